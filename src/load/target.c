// SPDX-License-Identifier: MIT
#include "load/target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define SOURCES_MAX 65536u
#define PROBE_MS    2000

static bool fail(char *error, const char *what, const char *text)
{
    snprintf(error, TARGET_ERROR_MAX, "%s: %.160s", what, text);
    return false;
}

struct scheme {
    const char *name;
    enum load_protocol protocol;
    bool tls;
    uint16_t port; /* when none is given; 0: must be given */
};
static const struct scheme schemes[] = {
    {"ws://", LOAD_WEBSOCKET, false, 80}, {"wss://", LOAD_WEBSOCKET, true, 443},
    {"text://", LOAD_TEXT, false, 0},     {"frame://", LOAD_FRAME, false, 0},
    {"tcp://", LOAD_TCP, false, 0},
};

static const struct scheme *scheme_of(const char *url)
{
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        if (strncmp(url, schemes[i].name, strlen(schemes[i].name)) == 0)
            return &schemes[i];
    }
    return NULL;
}

static bool parse_port(const char *text, size_t len, uint16_t *ret)
{
    unsigned v = 0;
    if (len == 0 || len > 5)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        v = v * 10 + (unsigned)(text[i] - '0');
    }
    *ret = (uint16_t)v;
    return v >= 1 && v <= 65535;
}

static bool keep(char *into, const char *text, size_t len)
{
    if (len == 0 || len >= TARGET_TEXT_MAX)
        return false;
    memcpy(into, text, len);
    into[len] = '\0';
    return true;
}

/* unix:PATH, or with WebSocket unix:PATH:/PATH */
static bool parse_unix(const char *rest, struct load_target *ret, char *error)
{
    const char *end = ret->protocol == LOAD_WEBSOCKET ? strstr(rest, ":/") : NULL;
    size_t len = end != NULL ? (size_t)(end - rest) : strlen(rest);
    ret->is_unix = true;
    if (len >= sizeof(((struct sockaddr_un *)NULL)->sun_path) || !keep(ret->host, rest, len))
        return fail(error, "not the path of a Unix socket", rest);
    return end == NULL || keep(ret->path, end + 1, strlen(end + 1)) || fail(error, "too long", end);
}

/* HOST, HOST:PORT, [ADDRESS], [ADDRESS]:PORT */
static bool parse_host(const char *rest, size_t len, uint16_t port_default, struct load_target *ret,
                       char *error)
{
    const char *end = rest + len, *host = rest, *host_end = memchr(rest, ':', len);
    if (*rest == '[') {
        host = rest + 1;
        host_end = memchr(rest, ']', len);
        if (host_end == NULL)
            return fail(error, "no ] behind the address", rest);
    }
    if (host_end == NULL)
        host_end = end;
    if (!keep(ret->host, host, (size_t)(host_end - host)))
        return fail(error, "no host", rest);
    const char *port = *rest == '[' ? host_end + 1 : host_end;
    ret->port = port_default;
    if (port == end && port_default != 0)
        return true;
    if (port == end)
        return fail(error, "no port behind the host", rest);
    if (*port != ':' || !parse_port(port + 1, (size_t)(end - port - 1), &ret->port))
        return fail(error, "not a port behind the host; expected 1 to 65535", rest);
    return true;
}

bool load_target_parse(const char *url, struct load_target *ret, char error[TARGET_ERROR_MAX])
{
    const struct scheme *scheme = scheme_of(url);
    *ret = (struct load_target){.path = "/"};
    if (scheme == NULL)
        return fail(error, "not a URL; expected ws://, wss://, text://, frame:// or tcp://", url);
    for (const char *p = url; *p != '\0'; p++) {
        if ((unsigned char)*p <= ' ' || *p == 127)
            return fail(error, "a URL has no spaces and no control characters", url);
    }
    ret->protocol = scheme->protocol;
    ret->tls = scheme->tls;
    const char *rest = url + strlen(scheme->name);
    if (strncmp(rest, "unix:", 5) == 0)
        return parse_unix(rest + 5, ret, error);
    size_t len = strcspn(rest, "/?");
    if (!parse_host(rest, len, scheme->port, ret, error))
        return false;
    const char *path = rest + len;
    if (*path == '\0' || (ret->protocol != LOAD_WEBSOCKET && strcmp(path, "/") == 0))
        return true;
    if (ret->protocol != LOAD_WEBSOCKET)
        return fail(error, "only ws:// and wss:// have a path", url);
    int n = snprintf(ret->path, sizeof(ret->path), "%s%s", *path == '?' ? "/" : "", path);
    return n < (int)sizeof(ret->path) || fail(error, "too long", url);
}

static bool resolve_unix(struct load_target *t)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&t->address;
    memset(&t->address, 0, sizeof(t->address));
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, t->host, strlen(t->host) + 1);
    t->address_len = sizeof(*un);
    return true;
}

/* Whether somebody takes a connection there, within PROBE_MS. */
static bool is_there(const struct addrinfo *a)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), err = 0;
    socklen_t len = sizeof(err);
    if (fd < 0)
        return false;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    bool good = connect(fd, a->ai_addr, a->ai_addrlen) == 0;
    if (!good && errno == EINPROGRESS && poll(&p, 1, PROBE_MS) == 1)
        good = getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err == 0;
    close(fd);
    return good;
}

/* A name may have several addresses ("localhost": ::1 and 127.0.0.1); the first at which somebody is. */
static const struct addrinfo *choose(const struct addrinfo *list)
{
    for (const struct addrinfo *a = list; a != NULL && list->ai_next != NULL; a = a->ai_next) {
        if (is_there(a))
            return a;
    }
    return list;
}

bool load_target_resolve(struct load_target *t, char error[TARGET_ERROR_MAX])
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    char port[8];
    if (t->is_unix)
        return resolve_unix(t);
    snprintf(port, sizeof(port), "%u", t->port);
    int r = getaddrinfo(t->host, port, &hints, &list);
    if (r != 0)
        return fail(error, gai_strerror(r), t->host);
    const struct addrinfo *one = choose(list);
    memcpy(&t->address, one->ai_addr, one->ai_addrlen);
    t->address_len = one->ai_addrlen;
    freeaddrinfo(list);
    return true;
}

void load_target_host(const struct load_target *t, char *buf, size_t cap)
{
    bool v6 = strchr(t->host, ':') != NULL;
    uint16_t usual = t->tls ? 443 : 80;
    if (t->is_unix)
        snprintf(buf, cap, "localhost");
    else if (t->port == usual)
        snprintf(buf, cap, "%s%s%s", v6 ? "[" : "", t->host, v6 ? "]" : "");
    else
        snprintf(buf, cap, "%s%s%s:%u", v6 ? "[" : "", t->host, v6 ? "]" : "", t->port);
}

static bool parse_source(const char *text, struct sockaddr_storage *ret)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
    memset(ret, 0, sizeof(*ret));
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        return true;
    }
    v6->sin6_family = AF_INET6;
    return inet_pton(AF_INET6, text, &v6->sin6_addr) == 1;
}

static bool add(struct load_sources *s, const struct sockaddr_storage *address)
{
    struct sockaddr_storage *list = s->n < SOURCES_MAX ? realloc(s->list, (s->n + 1) * sizeof(*list)) : NULL;
    if (list == NULL)
        return false;
    s->list = list;
    s->list[s->n++] = *address;
    return true;
}

bool load_sources_add(struct load_sources *s, const char *text, char error[TARGET_ERROR_MAX])
{
    for (const char *p = text;; p++) {
        size_t len = strcspn(p, ",");
        char one[INET6_ADDRSTRLEN];
        struct sockaddr_storage address;
        if (len >= sizeof(one))
            return fail(error, "not an address", p);
        memcpy(one, p, len);
        one[len] = '\0';
        if (!parse_source(one, &address))
            return fail(error, "not an address", one);
        if (!add(s, &address))
            return fail(error, "too many addresses", text);
        p += len;
        if (*p == '\0')
            return true;
    }
}

bool load_sources_add_range(struct load_sources *s, const char *text, char error[TARGET_ERROR_MAX])
{
    struct sockaddr_storage first, last;
    char one[INET6_ADDRSTRLEN];
    size_t len = strcspn(text, "-");
    if (text[len] == '\0' || len >= sizeof(one))
        return fail(error, "not a range; expected FIRST-LAST", text);
    memcpy(one, text, len);
    one[len] = '\0';
    if (!parse_source(one, &first) || !parse_source(text + len + 1, &last) || first.ss_family != AF_INET ||
        last.ss_family != AF_INET)
        return fail(error, "not a range of IPv4 addresses", text);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&first;
    uint32_t from = ntohl(v4->sin_addr.s_addr);
    uint32_t to = ntohl(((struct sockaddr_in *)&last)->sin_addr.s_addr);
    if (to < from || to - from >= SOURCES_MAX)
        return fail(error, "the range ends before it begins, or has more than 65536 addresses", text);
    for (uint32_t i = from; i <= to && i >= from; i++) {
        v4->sin_addr.s_addr = htonl(i);
        if (!add(s, &first))
            return fail(error, "too many addresses", text);
    }
    return true;
}

void load_sources_fini(struct load_sources *s)
{
    free(s->list);
    *s = (struct load_sources){0};
}

/* The port is chosen at connect: then it need only be free towards this target, and there is room for some
 * 28,000 connections (net.ipv4.ip_local_port_range) from each address. */
static int bind_source(int fd, const struct sockaddr_storage *source)
{
    int on = 1;
    socklen_t len = source->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on)) < 0 ||
        bind(fd, (const struct sockaddr *)source, len) < 0)
        return -errno;
    return 0;
}

int load_socket_connect(const struct load_target *t, const struct load_sources *s, uint64_t n)
{
    int fd = socket(t->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int r = fd < 0 ? -errno : 0;
    if (r == 0 && s != NULL && s->n > 0)
        r = bind_source(fd, &s->list[n % s->n]);
    if (r == 0 && connect(fd, (const struct sockaddr *)&t->address, t->address_len) < 0 &&
        errno != EINPROGRESS)
        r = -errno;
    if (r < 0 && fd >= 0)
        close(fd);
    return r < 0 ? r : fd;
}
