// SPDX-License-Identifier: MIT
#include "proto/line/forwarded.h"

#include <errno.h>
#include <string.h>

#include "proto/line/http_parse.h"

static const char *const header_names[] = {
    [FORWARDED_HEADER_X_FORWARDED_FOR] = "X-Forwarded-For",
    [FORWARDED_HEADER_X_REAL_IP] = "X-Real-IP",
    [FORWARDED_HEADER_FORWARDED] = "Forwarded",
};

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static struct slice trim(struct slice s)
{
    while (s.len > 0 && is_blank(s.data[0]))
        s = (struct slice){s.data + 1, s.len - 1};
    while (s.len > 0 && is_blank(s.data[s.len - 1]))
        s.len--;
    return s;
}

/* --- Addresses (RFC 7239 section 6, and what X-Forwarded-For is seen with) */

/* 0 to 65535 in at most 5 digits. */
static bool parse_port(struct slice s, uint16_t *ret)
{
    unsigned port = 0;
    if (s.len == 0 || s.len > 5)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
        port = port * 10 + (unsigned)(s.data[i] - '0');
    }
    *ret = (uint16_t)port;
    return port <= UINT16_MAX;
}

/* "_" and letters, digits, ".", "_", "-": a port that the proxy does not want to tell. */
static bool is_obfuscated(struct slice s)
{
    static const char also[] = "._-";
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.data[i], letter = c | 0x20;
        if (!(letter >= 'a' && letter <= 'z') && !(c >= '0' && c <= '9') &&
            memchr(also, c, sizeof also - 1) == NULL)
            return false;
    }
    return s.len > 1 && s.data[0] == '_';
}

/* Splits "[v6]:port", "[v6]", "v4:port", "v4", "v6". False: a bracket that is not closed, or not followed by
 * a port. */
static bool split_port(struct slice s, struct slice *ret_host, struct slice *ret_port)
{
    const uint8_t *end = s.data + s.len, *colon;
    *ret_host = s;
    *ret_port = (struct slice){NULL, 0};
    if (s.len > 0 && s.data[0] == '[') {
        const uint8_t *bracket = memchr(s.data, ']', s.len);
        if (bracket == NULL || (bracket + 1 < end && bracket[1] != ':'))
            return false;
        *ret_host = (struct slice){s.data + 1, (size_t)(bracket - s.data) - 1};
        colon = bracket + 1 < end ? bracket + 1 : NULL;
    } else {
        colon = memchr(s.data, ':', s.len);
        if (colon == NULL || memchr(colon + 1, ':', (size_t)(end - colon) - 1) != NULL)
            return true; /* no port, or IPv6 without brackets */
        ret_host->len = (size_t)(colon - s.data);
    }
    if (colon != NULL)
        *ret_port = (struct slice){colon + 1, (size_t)(end - colon) - 1};
    return true;
}

static int parse_node(struct slice s, struct net_addr *ret)
{
    struct slice host, port;
    struct net_addr a;
    uint16_t number = 0;
    if (s.len == 0 || !split_port(s, &host, &port))
        return -EINVAL;
    if (port.data != NULL && !parse_port(port, &number) && !is_obfuscated(port))
        return -EINVAL;
    if (net_addr_parse_ip((const char *)host.data, host.len, &a) < 0)
        return -EINVAL;
    if (s.data[0] == '[' && memchr(host.data, ':', host.len) == NULL)
        return -EINVAL; /* IPv4 in brackets */
    a.port = is_obfuscated(port) ? 0 : number;
    *ret = a;
    return 0;
}

/* --- Forwarded (RFC 7239 section 4): for="[::1]:4711";proto=http */

/* An address with its port, and what may be escaped of it. */
#define NODE_LEN_MAX 96

/* Takes a quoted string from *rest, which begins behind its first quote, without the escapes. */
static bool take_quoted(struct slice *rest, char buf[NODE_LEN_MAX], struct slice *ret)
{
    size_t n = 0, i = 0;
    for (; i < rest->len && rest->data[i] != '"'; i++, n++) {
        if (rest->data[i] == '\\' && ++i == rest->len)
            return false;
        if (n < NODE_LEN_MAX)
            buf[n] = (char)rest->data[i];
    }
    if (i == rest->len)
        return false;
    /* What is longer is none of ours (a host, an extension) or no address: its beginning will do. */
    *ret = (struct slice){(const uint8_t *)buf, n < NODE_LEN_MAX ? n : NODE_LEN_MAX};
    rest->data += i + 1;
    rest->len -= i + 1;
    return true;
}

/* A value without quotes: up to the end of the pair. Addresses with colons and brackets should be quoted, but
 * are seen without. */
static bool take_unquoted(struct slice *rest, struct slice *ret)
{
    size_t n = 0;
    while (n < rest->len && rest->data[n] != ';' && rest->data[n] != '"' && !is_blank(rest->data[n]))
        n++;
    *ret = (struct slice){rest->data, n};
    rest->data += n;
    rest->len -= n;
    return n > 0;
}

/* "name=value" and the ";" behind it. buf: for what was quoted. */
static bool take_pair(struct slice *rest, struct slice *ret_name, struct slice *ret_value,
                      char buf[NODE_LEN_MAX])
{
    const uint8_t *equals = memchr(rest->data, '=', rest->len);
    if (equals == NULL)
        return false;
    *ret_name = (struct slice){rest->data, (size_t)(equals - rest->data)};
    *rest = (struct slice){equals + 1, rest->len - ret_name->len - 1};
    bool quoted = rest->len > 0 && rest->data[0] == '"';
    if (quoted)
        *rest = (struct slice){rest->data + 1, rest->len - 1};
    if (!(quoted ? take_quoted(rest, buf, ret_value) : take_unquoted(rest, ret_value)))
        return false;
    *rest = trim(*rest);
    if (rest->len > 0 && rest->data[0] != ';')
        return false;
    if (rest->len > 0)
        *rest = trim((struct slice){rest->data + 1, rest->len - 1});
    return true;
}

static int parse_element(struct slice element, struct net_addr *ret)
{
    struct slice name, value;
    char buf[NODE_LEN_MAX];
    struct net_addr found;
    unsigned n_for = 0;
    while (element.len > 0) {
        if (element.data[0] == ';') { /* an empty pair */
            element = trim((struct slice){element.data + 1, element.len - 1});
            continue;
        }
        if (!take_pair(&element, &name, &value, buf))
            return -EINVAL;
        if (http_slice_is(name, "for") && (++n_for > 1 || parse_node(value, &found) < 0))
            return -EINVAL;
    }
    if (n_for == 0)
        return -EINVAL;
    *ret = found;
    return 0;
}

/* --- The list, from its end */

/* The quote at `at` is escaped: an odd number of backslashes stands before it. */
static bool is_escaped(const uint8_t *data, size_t at)
{
    size_t n = 0;
    while (n < at && data[at - n - 1] == '\\')
        n++;
    return n % 2 == 1;
}

/* Where the last element begins: behind the last comma, or the last that does not stand between quotes. It is
 * looked for from the end, so that a quote that somebody left open further in front changes nothing. */
static size_t last_element(struct slice list, bool with_quotes)
{
    bool quoted = false;
    size_t i = list.len;
    for (; i > 0 && (quoted || list.data[i - 1] != ','); i--)
        if (with_quotes && list.data[i - 1] == '"' && !(quoted && is_escaped(list.data, i - 1)))
            quoted = !quoted;
    return i;
}

struct walk {
    const struct http_request *req;
    const char *name;
    bool with_quotes;
    unsigned header;   /* those below it are still to come */
    struct slice rest; /* of the header that is being walked */
};

/* The element before; false: that was the first. Empty ones are none (RFC 9110 section 5.6.1). */
static bool walk_back(struct walk *w, struct slice *ret)
{
    for (;;) {
        while (w->rest.len > 0) {
            size_t start = last_element(w->rest, w->with_quotes);
            *ret = trim((struct slice){w->rest.data + start, w->rest.len - start});
            w->rest.len = start > 0 ? start - 1 : 0;
            if (ret->len > 0)
                return true;
        }
        do {
            if (w->header == 0)
                return false;
            w->header--;
        } while (!http_slice_is(w->req->headers[w->header].name, w->name));
        w->rest = w->req->headers[w->header].value;
    }
}

/* The last header of that name: it replaces, nothing is appended to it. */
static int real_ip(const struct http_request *req, const char *name, struct net_addr *ret)
{
    for (unsigned i = req->n_headers; i > 0; i--)
        if (http_slice_is(req->headers[i - 1].name, name))
            return parse_node(req->headers[i - 1].value, ret);
    return -ENOENT;
}

int forwarded_client(const struct http_request *req, enum forwarded_header which,
                     bool (*is_trusted)(void *ctx, const struct net_addr *addr), void *ctx,
                     struct net_addr *ret)
{
    if (which == FORWARDED_HEADER_X_REAL_IP)
        return real_ip(req, header_names[which], ret);
    struct walk w = {.req = req, .name = header_names[which], .header = req->n_headers};
    w.with_quotes = which == FORWARDED_HEADER_FORWARDED;
    struct net_addr found;
    struct slice element;
    int r = -ENOENT;
    while (walk_back(&w, &element)) {
        r = w.with_quotes ? parse_element(element, &found) : parse_node(element, &found);
        if (r < 0)
            return r;
        struct net_addr without_port = found;
        without_port.port = 0;
        if (!is_trusted(ctx, &without_port))
            break;
    }
    if (r == 0)
        *ret = found;
    return r;
}
