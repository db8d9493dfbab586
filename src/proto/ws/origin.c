// SPDX-License-Identifier: MIT
/* Which pages may connect: the Origin header against a list (ws_origin_allowed in handshake.h). */
#include "proto/ws/handshake.h"

#include <string.h>
#include <strings.h>

#include "base/net_addr.h"
#include "proto/line/http_parse.h"

/* scheme://host:port (RFC 6454 section 6.2), of the header or of the list. */
struct origin {
    struct slice scheme;
    struct slice host; /* a name, or [IPv6] with its brackets; may be empty (file://) */
    unsigned port;     /* the scheme's own when none is said, 0 when it has none */
    bool wildcard;     /* host is what stands behind "*." */
};

enum { SCHEME = 1, HOST = 2 };

static const uint8_t classes[256] = {
    ['+'] = SCHEME,
    ['-'] = SCHEME | HOST,
    ['.'] = SCHEME | HOST,
    ['0' ... '9'] = SCHEME | HOST,
    ['A' ... 'Z'] = SCHEME | HOST,
    ['_'] = HOST,
    ['a' ... 'z'] = SCHEME | HOST,
};

/* How many bytes at the beginning are of the class. */
static size_t span(struct slice s, uint8_t class)
{
    size_t n = 0;
    while (n < s.len && (classes[s.data[n]] & class))
        n++;
    return n;
}

static struct slice skip(struct slice s, size_t n)
{
    return (struct slice){s.data + n, s.len - n};
}

static bool same(struct slice a, struct slice b)
{
    return a.len == b.len && strncasecmp((const char *)a.data, (const char *)b.data, a.len) == 0;
}

static unsigned default_port(struct slice scheme)
{
    if (http_slice_is(scheme, "http") || http_slice_is(scheme, "ws"))
        return 80;
    return http_slice_is(scheme, "https") || http_slice_is(scheme, "wss") ? 443 : 0;
}

/* ":8080" or nothing. Without zeros in front: no browser sends them, and one more way to write a port is one
 * more for tricks. */
static bool parse_port(struct slice s, struct origin *ret)
{
    if (s.len == 0)
        return true;
    if (s.data[0] != ':' || s.len < 2 || s.len > 6 || s.data[1] == '0')
        return false;
    ret->port = 0;
    for (size_t i = 1; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return false;
        ret->port = ret->port * 10 + (unsigned)(s.data[i] - '0');
    }
    return ret->port <= UINT16_MAX;
}

/* A name has no empty labels but for a dot at its end: "a..b" and ".b" are what tricks are made of. */
static bool is_name(struct slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i] == '.' && (i == 0 || s.data[i - 1] == '.'))
            return false;
    return true;
}

/* The bytes of a host: anything else in it (a path, a user's name, a backslash) makes it none. */
static size_t host_len(struct slice s)
{
    if (s.len == 0 || s.data[0] != '[')
        return span(s, HOST);
    const uint8_t *end = memchr(s.data, ']', s.len);
    return end == NULL ? 0 : (size_t)(end - s.data) + 1;
}

static bool parse_origin(struct slice s, bool is_item, struct origin *ret)
{
    struct origin o = {.scheme = {s.data, span(s, SCHEME)}};
    s = skip(s, o.scheme.len);
    if (o.scheme.len == 0 || s.len < 3 || memcmp(s.data, "://", 3) != 0)
        return false;
    s = skip(s, 3);
    o.wildcard = is_item && s.len > 2 && memcmp(s.data, "*.", 2) == 0;
    if (o.wildcard)
        s = skip(s, 2);
    o.host = (struct slice){s.data, host_len(s)};
    o.port = default_port(o.scheme);
    if (!is_name(o.host) || (o.wildcard && (o.host.len == 0 || o.host.data[0] == '[')) ||
        !parse_port(skip(s, o.host.len), &o))
        return false;
    *ret = o;
    return true;
}

/* An IPv6 address has many spellings. */
static bool same_host(struct slice a, struct slice b)
{
    struct net_addr a6, b6;
    if (same(a, b))
        return true;
    if (a.len < 2 || a.data[0] != '[' || b.len < 2 || b.data[0] != '[')
        return false;
    return net_addr_parse_ip((const char *)a.data + 1, a.len - 2, &a6) == 0 &&
           net_addr_parse_ip((const char *)b.data + 1, b.len - 2, &b6) == 0 && a6.family == b6.family &&
           memcmp(a6.ip, b6.ip, sizeof a6.ip) == 0;
}

static bool matches(const struct origin *o, const struct origin *item)
{
    if (!same(o->scheme, item->scheme) || o->port != item->port)
        return false;
    if (!item->wildcard)
        return same_host(o->host, item->host);
    /* At least one byte and a dot before it; a name has no empty label, so that is at least one label. */
    if (o->host.len < item->host.len + 2)
        return false;
    size_t before = o->host.len - item->host.len;
    return o->host.data[before - 1] == '.' && same(skip(o->host, before), item->host);
}

static bool item_allows(struct slice item, const struct slice *value)
{
    struct origin o, ours;
    if (value == NULL)
        return http_slice_is(item, "none");
    if (slice_eq_str(*value, "null"))
        return slice_eq_str(item, "null");
    return parse_origin(item, true, &ours) && parse_origin(*value, false, &o) && matches(&o, &ours);
}

bool ws_origin_allowed(const struct http_request *req, const char *list)
{
    struct slice rest = {(const uint8_t *)list, strlen(list)}, item;
    const struct slice *value = NULL;
    unsigned n_values = 0;
    bool any = false, allowed = false;
    for (unsigned i = 0; i < req->n_headers; i++)
        if (http_slice_is(req->headers[i].name, "Origin")) {
            value = &req->headers[i].value;
            n_values++;
        }
    while (!allowed && http_list_next(&rest, &item)) {
        any = true;
        allowed = item_allows(item, value);
    }
    return !any || (allowed && n_values <= 1);
}
