// SPDX-License-Identifier: MIT
#include "main/ctl_http.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/bytes.h"
#include "main/ctl_wait.h"

#define READ_BYTES 65536

/* ---- the head */

/* The line at data[*at], without its end (CRLF, or LF as RFC 9112 section 2.2 lets us take); *at goes behind
 * it. False: it is not whole. */
static bool next_line(const uint8_t *data, size_t len, size_t *at, struct slice *ret)
{
    const uint8_t *end = memchr(data + *at, '\n', len - *at);
    if (end == NULL)
        return false;
    *ret = (struct slice){data + *at, (size_t)(end - data) - *at};
    *at = (size_t)(end - data) + 1;
    if (ret->len > 0 && ret->data[ret->len - 1] == '\r')
        ret->len--;
    return true;
}

/* "HTTP/1.1 200 OK" */
static bool parse_status(struct slice line, unsigned *ret)
{
    if (line.len < 12 || memcmp(line.data, "HTTP/1.", 7) != 0 || line.data[8] != ' ' ||
        (line.len > 12 && line.data[12] != ' '))
        return false;
    unsigned v = 0;
    for (size_t i = 9; i < 12; i++) {
        if (line.data[i] < '0' || line.data[i] > '9')
            return false;
        v = 10 * v + (line.data[i] - '0');
    }
    *ret = v;
    return v >= 200 && v <= 599;
}

static bool parse_length(struct slice value, int64_t *ret)
{
    int64_t v = 0;
    if (value.len == 0 || value.len > 15)
        return false;
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9')
            return false;
        v = 10 * v + (value.data[i] - '0');
    }
    *ret = v;
    return true;
}

static bool name_is(struct slice line, size_t colon, const char *name)
{
    return strlen(name) == colon && strncasecmp((const char *)line.data, name, colon) == 0;
}

static bool parse_field(struct slice line, struct ctl_http_head *head)
{
    const uint8_t *end = memchr(line.data, ':', line.len);
    if (end == NULL)
        return false;
    size_t colon = (size_t)(end - line.data);
    struct slice value = {end + 1, line.len - colon - 1};
    for (; value.len > 0 && (value.data[0] == ' ' || value.data[0] == '\t'); value.len--)
        value.data++;
    while (value.len > 0 && (value.data[value.len - 1] == ' ' || value.data[value.len - 1] == '\t'))
        value.len--;
    if (name_is(line, colon, "content-length"))
        return parse_length(value, &head->content_length);
    return !name_is(line, colon, "transfer-encoding");
}

ssize_t ctl_http_head_parse(const uint8_t *data, size_t len, struct ctl_http_head *ret)
{
    struct ctl_http_head head = {.content_length = -1};
    struct slice line;
    size_t at = 0;
    bool whole = false;

    for (unsigned n = 0; !whole && next_line(data, len, &at, &line); n++) {
        whole = n > 0 && line.len == 0;
        if (!whole && !(n == 0 ? parse_status(line, &head.status) : parse_field(line, &head)))
            return -EBADMSG;
    }
    if ((whole ? at : len) > CTL_HTTP_HEAD_MAX)
        return -EMSGSIZE;
    if (!whole)
        return len > 0 && memcmp(data, "HTTP/1.", len < 7 ? len : 7) != 0 ? -EBADMSG : 0;
    *ret = head;
    return (ssize_t)at;
}

/* ---- the connection */

struct exchange {
    const struct ctl_http_request *req;
    int fd;
    struct ctl_http_head *head;
    bool has_head;
    int64_t body_bytes; /* given to body so far */
    struct bytes in;    /* of the head, until it is whole */
};

static int64_t deadline(const struct exchange *x, unsigned more_s)
{
    if (x->req->endless)
        return CTL_FOREVER;
    return ctl_now_ms() + INT64_C(1000) * (CTL_HTTP_PATIENCE_S + more_s);
}

static int dial(const char *path, int64_t until_ms)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    int error = 0;

    if (len >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, len + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* A Unix socket whose queue is full says EAGAIN, and no event tells when there is room. */
    while (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        error = errno;
        if (error != EAGAIN && error != EINTR)
            break;
        if (ctl_now_ms() >= until_ms) {
            error = ETIMEDOUT;
            break;
        }
        error = ctl_wait(-1, 0, ctl_now_ms() + 20) == -EINTR ? EINTR : 0;
        if (error != 0)
            break;
    }
    if (error == 0)
        return fd;
    close(fd);
    return -error;
}

static int wait_for(const struct exchange *x, short events, int64_t until_ms)
{
    int r = ctl_wait(x->fd, events, until_ms);
    return r == 0 ? -ETIMEDOUT : r < 0 ? r : 0;
}

static int send_request(const struct exchange *x)
{
    struct bytes text = {0};
    int r = 0;

    bytes_printf(&text, "%s %s HTTP/1.0\r\nHost: tgg\r\n%s\r\n", x->req->method, x->req->target,
                 strcmp(x->req->method, "POST") == 0 ? "Content-Length: 0\r\n" : "");
    if (text.failed)
        r = -ENOMEM;
    for (size_t sent = 0; r == 0 && sent < text.len;) {
        ssize_t n = send(x->fd, text.data + sent, text.len - sent, MSG_NOSIGNAL);
        if (n >= 0)
            sent += (size_t)n;
        else if (errno == EAGAIN || errno == EINTR)
            r = wait_for(x, POLLOUT, deadline(x, 0));
        else
            r = -errno;
    }
    bytes_fini(&text);
    return r;
}

static bool is_whole(const struct exchange *x)
{
    return x->has_head && x->head->content_length >= 0 && x->body_bytes >= x->head->content_length;
}

static int take_body(struct exchange *x, const uint8_t *data, size_t len)
{
    if (x->head->content_length >= 0 && (int64_t)len > x->head->content_length - x->body_bytes)
        len = (size_t)(x->head->content_length - x->body_bytes);
    x->body_bytes += (int64_t)len;
    return len > 0 ? x->req->body(x->req->ctx, x->head, data, len) : 0;
}

static int take(struct exchange *x, const uint8_t *data, size_t len)
{
    if (x->has_head)
        return take_body(x, data, len);
    if (!bytes_append(&x->in, data, len))
        return -ENOMEM;
    ssize_t n = ctl_http_head_parse(x->in.data, x->in.len, x->head);
    if (n <= 0)
        return (int)n;
    x->has_head = true;
    return take_body(x, x->in.data + n, x->in.len - (size_t)n);
}

static int at_end(const struct exchange *x)
{
    if (!x->has_head)
        return x->in.len > 0 ? -EBADMSG : -EPIPE;
    return x->head->content_length >= 0 && !is_whole(x) ? -EPIPE : 0;
}

static int receive(struct exchange *x)
{
    static uint8_t piece[READ_BYTES];
    unsigned more_s = x->req->more_wait_s;

    while (!is_whole(x)) {
        int r = wait_for(x, POLLIN, deadline(x, more_s));
        if (r < 0)
            return r;
        ssize_t n = recv(x->fd, piece, sizeof piece, 0);
        if (n == 0)
            return at_end(x);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return errno == ECONNRESET ? -EPIPE : -errno;
        r = n > 0 ? take(x, piece, (size_t)n) : 0;
        if (r < 0)
            return r;
        more_s = n > 0 ? 0 : more_s;
    }
    return 0;
}

int ctl_http_ask(const char *socket_path, const struct ctl_http_request *req, struct ctl_http_head *ret_head)
{
    struct exchange x = {.req = req, .head = ret_head};

    x.fd = dial(socket_path, ctl_now_ms() + INT64_C(1000) * CTL_HTTP_PATIENCE_S);
    if (x.fd < 0)
        return x.fd;
    int r = send_request(&x);
    /* Who is refused may have been answered before he had said everything. */
    if (r == 0 || r == -EPIPE)
        r = receive(&x);
    bytes_fini(&x.in);
    close(x.fd);
    return r;
}
