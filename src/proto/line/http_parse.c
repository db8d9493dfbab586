// SPDX-License-Identifier: MIT
#include "proto/line/http_parse.h"

#include "base/assert.h"

/* Classes of bytes: RFC 9110 section 5.6.2 (token), section 5.5 (field values), RFC 3986 section 3.2.2
 * (host). */
enum {
    TEXT = 1,  /* visible, space, tab, or above 0x7F: what may stand inside a line */
    TOKEN = 2, /* names of methods and headers */
    HOST = 4,  /* a name, an address, a port, brackets */
};

static const uint8_t classes[256] = {
    ['\t'] = TEXT,
    [' '] = TEXT,
    ['!'] = TEXT | TOKEN | HOST,
    ['"'] = TEXT,
    ['#'] = TEXT | TOKEN,
    ['$' ... '\''] = TEXT | TOKEN | HOST,
    ['(' ... ')'] = TEXT | HOST,
    ['*' ... '+'] = TEXT | TOKEN | HOST,
    [','] = TEXT | HOST,
    ['-' ... '.'] = TEXT | TOKEN | HOST,
    ['/'] = TEXT,
    ['0' ... '9'] = TEXT | TOKEN | HOST,
    [':' ... ';'] = TEXT | HOST,
    ['<'] = TEXT,
    ['='] = TEXT | HOST,
    ['>' ... '@'] = TEXT,
    ['A' ... 'Z'] = TEXT | TOKEN | HOST,
    ['['] = TEXT | HOST,
    ['\\'] = TEXT,
    [']'] = TEXT | HOST,
    ['^'] = TEXT | TOKEN,
    ['_'] = TEXT | TOKEN | HOST,
    ['`'] = TEXT | TOKEN,
    ['a' ... 'z'] = TEXT | TOKEN | HOST,
    ['{'] = TEXT,
    ['|'] = TEXT | TOKEN,
    ['}'] = TEXT,
    ['~'] = TEXT | TOKEN | HOST,
    [0x80 ... 0xFF] = TEXT,
};

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool all_of(struct slice s, uint8_t class)
{
    for (size_t i = 0; i < s.len; i++)
        if ((classes[s.data[i]] & class) == 0)
            return false;
    return true;
}

static struct slice trim(struct slice s)
{
    while (s.len > 0 && is_blank(s.data[0])) {
        s.data++;
        s.len--;
    }
    while (s.len > 0 && is_blank(s.data[s.len - 1]))
        s.len--;
    return s;
}

bool http_list_next(struct slice *rest, struct slice *ret)
{
    while (rest->len > 0) {
        const uint8_t *comma = memchr(rest->data, ',', rest->len);
        size_t n = comma == NULL ? rest->len : (size_t)(comma - rest->data);
        struct slice item = trim((struct slice){rest->data, n});
        n += comma != NULL;
        rest->data += n;
        rest->len -= n;
        if (item.len > 0) {
            *ret = item;
            return true;
        }
    }
    return false;
}

bool http_list_has(struct slice value, const char *token)
{
    for (struct slice item; http_list_next(&value, &item);)
        if (http_slice_is(item, token))
            return true;
    return false;
}

/* --- Looking for the end: each byte once, in order, so that the answer does not depend on how they were cut.
 */

/* The empty line that may precede a request: its length; 0 as well while a CR is all there is. */
static size_t leading_line(const uint8_t *data, size_t len)
{
    if (len > 0 && data[0] == '\n')
        return 1;
    return len > 1 && data[0] == '\r' && data[1] == '\n' ? 2 : 0;
}

/* The method, of which at most METHOD_LEN_MAX bytes are looked at: garbage is known by its first bytes. */
#define METHOD_LEN_MAX 24
static int check_method(const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len && i <= METHOD_LEN_MAX; i++) {
        if (data[i] == ' ' && i > 0)
            return i == 3 && memcmp(data, "GET", 3) == 0 ? 0 : -405;
        if ((classes[data[i]] & TOKEN) == 0 || i == METHOD_LEN_MAX)
            return -400;
    }
    return 0;
}

/* The LF at `at` ends an empty line. `start`: where the request line starts. */
static bool is_empty_line(const uint8_t *data, size_t start, size_t at)
{
    if (at > start && data[at - 1] == '\r')
        at--;
    return at > start && data[at - 1] == '\n';
}

/* Looks at the bytes from *scanned to len: length of the head, 0 (it goes on) or -400. */
static int find_end(const uint8_t *data, size_t start, size_t len, size_t *scanned)
{
    size_t i = *scanned;
    for (; i < len; i++) {
        if (classes[data[i]] & TEXT)
            continue;
        if (data[i] == '\r') {
            if (i + 1 == len)
                break; /* look again when the next byte is here */
            if (data[i + 1] != '\n')
                return -400;
            i++;
        }
        if (data[i] != '\n')
            return -400;
        if (is_empty_line(data, start, i))
            return (int)i + 1;
    }
    *scanned = i;
    return 0;
}

/* Whether the byte at `at`, the first that the request line has no room for, belongs to it. */
static bool line_goes_on(const uint8_t *data, size_t start, size_t at)
{
    return memchr(data + start, '\n', at - start) == NULL && data[at] != '\n' && data[at] != '\r';
}

static int scan(const uint8_t *data, size_t len, size_t *scanned, const struct http_limits *limits)
{
    size_t n = len < limits->head_size_max ? len : limits->head_size_max;
    if (len == 1 && data[0] == '\r')
        return 0;
    size_t start = leading_line(data, n);
    size_t line_n = n - start < limits->line_size_max ? n : start + limits->line_size_max;
    if (*scanned <= start + METHOD_LEN_MAX) {
        int status = check_method(data + start, line_n - start);
        if (status < 0)
            return status;
    }
    int r = 0;
    /* First as far as the request line may reach; that is passed once, so the search for its end is made
     * once. */
    if (*scanned <= line_n) {
        r = find_end(data, start, line_n, scanned);
        if (r == 0 && line_n < n && line_goes_on(data, start, line_n))
            return -414;
    }
    if (r == 0)
        r = find_end(data, start, n, scanned);
    if (r == 0 && n == limits->head_size_max)
        return memchr(data + start, '\n', n - start) == NULL ? -414 : -431;
    return r;
}

/* --- The whole head is there. */

/* Takes the next line from *rest, without its end. Every line has one: scan() saw it. */
static struct slice take_line(struct slice *rest)
{
    const uint8_t *lf = memchr(rest->data, '\n', rest->len);
    struct slice line = {rest->data, (size_t)(lf - rest->data)};
    rest->data += line.len + 1;
    rest->len -= line.len + 1;
    if (line.len > 0 && line.data[line.len - 1] == '\r')
        line.len--;
    return line;
}

/* A header line with those folded behind it, joined by spaces in place of the line ends. */
static struct slice take_folded_line(struct slice *rest)
{
    struct slice line = take_line(rest);
    while (rest->len > 0 && is_blank(rest->data[0])) {
        uint8_t *gap = (uint8_t *)line.data + line.len;
        memset(gap, ' ', (size_t)(rest->data - gap));
        struct slice more = take_line(rest);
        line.len = (size_t)(more.data + more.len - line.data);
    }
    return line;
}

/* "host", "host:port", "[v6]:port" -> the host. False: not of that form. An empty host is allowed. */
static bool split_host(struct slice value, struct slice *ret)
{
    if (!all_of(value, HOST))
        return false;
    size_t n = 0;
    if (value.len > 0 && value.data[0] == '[') {
        const uint8_t *end = memchr(value.data, ']', value.len);
        if (end == NULL)
            return false;
        n = (size_t)(end - value.data) + 1;
    } else {
        while (n < value.len && value.data[n] != ':' && value.data[n] != '[' && value.data[n] != ']')
            n++;
    }
    if (n < value.len && value.data[n] != ':')
        return false;
    for (size_t i = n + 1; i < value.len; i++)
        if (!is_digit(value.data[i]))
            return false;
    *ret = (struct slice){value.data, n};
    return true;
}

/* "http://host/path" (RFC 9112 section 3.2.2): the authority goes to *ret, as it stands, and is cut from
 * *target. Nothing else that does not start with '/' makes sense with GET. */
static bool take_authority(struct slice *target, struct slice *ret)
{
    static const char *const schemes[] = {"http://", "https://", "ws://", "wss://"};
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t n = strlen(schemes[i]);
        if (target->len <= n || strncasecmp((const char *)target->data, schemes[i], n) != 0)
            continue;
        size_t end = n;
        while (end < target->len && target->data[end] != '/' && target->data[end] != '?')
            end++;
        *ret = (struct slice){target->data + n, end - n};
        target->data += end;
        target->len -= end;
        return ret->len > 0;
    }
    return false;
}

static int parse_target(struct http_request *ret)
{
    struct slice rest = ret->target;
    if (rest.len == 0 || memchr(rest.data, '#', rest.len) != NULL) /* RFC 6455 section 3: no fragment */
        return -400;
    ret->host = (struct slice){rest.data, 0};
    if (rest.data[0] != '/') {
        struct slice authority;
        if (!take_authority(&rest, &authority) || !split_host(authority, &ret->host))
            return -400;
    }
    const uint8_t *question = rest.len == 0 ? NULL : memchr(rest.data, '?', rest.len);
    ret->path = (struct slice){rest.data, question == NULL ? rest.len : (size_t)(question - rest.data)};
    ret->query = (struct slice){rest.data + rest.len, 0};
    if (question != NULL)
        ret->query = (struct slice){question + 1, rest.len - ret->path.len - 1};
    return 0;
}

static int parse_version(struct slice s, struct http_request *ret)
{
    if (s.len != 8 || memcmp(s.data, "HTTP/", 5) != 0 || !is_digit(s.data[5]) || s.data[6] != '.' ||
        !is_digit(s.data[7]))
        return -400;
    ret->version = (struct slice){s.data + 5, 3};
    bool known = slice_eq_str(ret->version, "1.1") || slice_eq_str(ret->version, "1.0");
    return known ? 0 : -505;
}

/* "GET target HTTP/1.1" (or 1.0: health checks of load balancers), single spaces. Bytes above 0x7F in the
 * target are let through, as PHP's Gateway does: nobody behind us reads the target as anything but bytes. */
static int parse_request_line(struct slice line, struct http_request *ret)
{
    ret->method = (struct slice){line.data, 3}; /* check_method() */
    struct slice rest = {line.data + 4, line.len - 4};
    const uint8_t *space = memchr(rest.data, ' ', rest.len);
    if (space == NULL)
        return -400;
    ret->target = (struct slice){rest.data, (size_t)(space - rest.data)};
    if (memchr(ret->target.data, '\t', ret->target.len) != NULL)
        return -400;
    int status = parse_version((struct slice){space + 1, rest.len - ret->target.len - 1}, ret);
    return status < 0 ? status : parse_target(ret);
}

/* A line that starts with white space has no name. It can only be the first: others would have been joined to
 * the one before (RFC 9112 section 2.2). */
static int parse_header(struct slice line, struct http_header *ret)
{
    size_t n = 0;
    while (n < line.len && (classes[line.data[n]] & TOKEN))
        n++;
    if (n == 0 || n == line.len || line.data[n] != ':')
        return -400;
    ret->name = (struct slice){line.data, n};
    ret->value = trim((struct slice){line.data + n + 1, line.len - n - 1});
    return 0;
}

static int parse_headers(struct slice rest, unsigned headers_max, struct http_request *ret)
{
    ret->n_headers = 0;
    for (;;) {
        struct slice line = take_folded_line(&rest);
        if (line.len == 0)
            return 0;
        if (ret->n_headers == headers_max)
            return -431;
        int status = parse_header(line, &ret->headers[ret->n_headers]);
        if (status < 0)
            return status;
        ret->n_headers++;
    }
}

static bool is_zero(struct slice number)
{
    for (size_t i = 0; i < number.len; i++)
        if (number.data[i] != '0')
            return false;
    return number.len > 0;
}

/* What RFC 9112 wants refused about single headers: section 3.2 (Host), and any body. */
static int check_headers(struct http_request *req)
{
    const struct slice *host = NULL;
    for (unsigned i = 0; i < req->n_headers; i++) {
        const struct http_header *h = &req->headers[i];
        if (http_slice_is(h->name, "Host")) {
            if (host != NULL)
                return -400;
            host = &h->value;
        } else if (http_slice_is(h->name, "Transfer-Encoding") ||
                   (http_slice_is(h->name, "Content-Length") && !is_zero(h->value))) {
            return -400;
        }
    }
    struct slice name;
    if (host == NULL && slice_eq_str(req->version, "1.0"))
        return 0;
    if (host == NULL || !split_host(*host, &name))
        return -400;
    if (req->host.len == 0) /* a host in the target wins: RFC 9112 section 3.2.2 */
        req->host = name;
    return 0;
}

int http_parse(uint8_t *data, size_t len, size_t *scanned, const struct http_limits *limits,
               struct http_request *ret)
{
    ASSERT(limits->headers_max <= HTTP_HEADERS_MAX);
    int head_len = scan(data, len, scanned, limits);
    if (head_len <= 0)
        return head_len;
    size_t start = leading_line(data, len);
    struct slice rest = {data + start, (size_t)head_len - start};
    int status = parse_request_line(take_line(&rest), ret);
    if (status == 0)
        status = parse_headers(rest, limits->headers_max, ret);
    if (status == 0)
        status = check_headers(ret);
    return status < 0 ? status : head_len;
}
