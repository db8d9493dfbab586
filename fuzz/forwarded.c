// SPDX-License-Identifier: MIT
/* Headers that name the client. The first byte: which header, and whom to trust; the rest: its values, one a
 * line.
 * - An address that comes out is IPv4 or IPv6, never v4-mapped.
 * - Lists are walked from their end: with an address that is not trusted appended, that is the client,
 * whatever stands before it.
 * - X-Forwarded-For: the same answer as a walk from the beginning gives that remembers the last one not
 * trusted. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "proto/line/forwarded.h"
#include "proto/line/http_parse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { TRUST_NOBODY, TRUST_ALL, TRUST_TEN, TRUST_ODD };

static const char *const names[] = {"X-Forwarded-For", "X-Real-IP", "Forwarded"};
static struct http_request req;

static bool is_trusted(void *ctx, const struct net_addr *a)
{
    unsigned whom = *(unsigned *)ctx;
    ASSERT((a->family == AF_INET || a->family == AF_INET6) && a->port == 0);
    if (whom == TRUST_TEN)
        return a->ip[0] == 10;
    return whom == TRUST_ALL || (whom == TRUST_ODD && a->ip[a->family == AF_INET ? 3 : 15] % 2 == 1);
}

/* The lines as headers of that name, with another in between. */
static void make_request(const char *name, const uint8_t *data, size_t len)
{
    req.n_headers = 0;
    while (len > 0 && req.n_headers < HTTP_HEADERS_MAX - 2) {
        const uint8_t *lf = memchr(data, '\n', len);
        size_t n = lf == NULL ? len : (size_t)(lf - data);
        struct slice value = {data, n};
        struct slice header = {(const uint8_t *)name, strlen(name)};
        if (n > 0 && data[0] == '!')
            header = SLICE_STR("X-Other");
        req.headers[req.n_headers++] = (struct http_header){header, value};
        n += lf != NULL;
        data += n;
        len -= n;
    }
}

static void append(const char *name, const char *value)
{
    req.headers[req.n_headers++] =
        (struct http_header){{(const uint8_t *)name, strlen(name)}, {(const uint8_t *)value, strlen(value)}};
}

static int parse_one(struct slice item, struct net_addr *ret)
{
    struct http_request one = {.n_headers = 1, .headers = {{SLICE_STR("X-Real-IP"), item}}};
    return forwarded_client(&one, FORWARDED_HEADER_X_REAL_IP, is_trusted, NULL, ret);
}

/* X-Forwarded-For from its beginning. */
static int walk_forward(unsigned whom, struct net_addr *ret)
{
    int r = -ENOENT;
    for (unsigned i = 0; i < req.n_headers; i++) {
        struct slice rest = req.headers[i].value, item;
        if (!http_slice_is(req.headers[i].name, names[0]))
            continue;
        while (http_list_next(&rest, &item)) {
            struct net_addr a;
            int now = parse_one(item, &a);
            struct net_addr plain = a;
            plain.port = 0;
            if (r != -ENOENT && now == 0 && is_trusted(&whom, &plain))
                continue;
            r = now;
            if (now == 0)
                *ret = a;
        }
    }
    return r;
}

static void check_appended(enum forwarded_header which, unsigned whom, const uint8_t *data, size_t len)
{
    /* 192.0.2.4 is not trusted by any but TRUST_ALL. */
    static const char *const values[] = {"192.0.2.4:7", "192.0.2.4:7", "proto=\"a,b\";for=\"192.0.2.4:7\""};
    char text[64];
    struct net_addr a;
    append(names[which], values[which]);
    ASSERT(forwarded_client(&req, which, is_trusted, &whom, &a) == 0);
    ASSERT(strcmp(net_addr_format(&a, text, sizeof text), "192.0.2.4:7") == 0);
    if (which == FORWARDED_HEADER_X_REAL_IP)
        return;
    /* To the same line. */
    size_t n = strlen(values[which]);
    char *joined = malloc(len + 2 + n);
    ASSERT(joined != NULL);
    memcpy(joined, data, len);
    memcpy(joined + len, ", ", 2);
    memcpy(joined + len + 2, values[which], n);
    req.n_headers = 1;
    req.headers[0] = (struct http_header){{(const uint8_t *)names[which], strlen(names[which])},
                                          {(const uint8_t *)joined, len + 2 + n}};
    ASSERT(forwarded_client(&req, which, is_trusted, &whom, &a) == 0);
    ASSERT(strcmp(net_addr_format(&a, text, sizeof text), "192.0.2.4:7") == 0);
    free(joined);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint8_t mapped[12] = {[10] = 0xFF, [11] = 0xFF};
    struct net_addr a = {0}, b = {0};
    if (len < 1)
        return 0;
    enum forwarded_header which = data[0] % 3;
    unsigned whom = data[0] / 3 % 4;
    data++;
    len--;
    make_request(names[which], data, len);
    int r = forwarded_client(&req, which, is_trusted, &whom, &a);
    ASSERT(r == 0 || r == -ENOENT || r == -EINVAL);
    if (r == 0)
        ASSERT(a.family == AF_INET || (a.family == AF_INET6 && memcmp(a.ip, mapped, 12) != 0));
    if (which == FORWARDED_HEADER_X_FORWARDED_FOR) {
        ASSERT(walk_forward(whom, &b) == r);
        ASSERT(r < 0 || (a.family == b.family && a.port == b.port && memcmp(a.ip, b.ip, sizeof a.ip) == 0));
    }
    if (whom != TRUST_ALL)
        check_appended(which, whom, data, len);
    return 0;
}
