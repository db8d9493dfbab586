// SPDX-License-Identifier: MIT
/* PROXY headers: the first bytes of a connection.
 * - However the bytes are cut, the same answer, given once and for all: more is needed up to some length,
 * from there on the same header or error.
 * - No more than the limits is ever waited for.
 * - Addresses that come out are IPv4 or IPv6, never v4-mapped, and come out again when they are encoded. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "proto/proxy/proxy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static ssize_t decode_exact(const uint8_t *data, size_t len, struct proxy_header *ret)
{
    uint8_t *exact = malloc(len > 0 ? len : 1);
    ASSERT(exact != NULL);
    if (len > 0)
        memcpy(exact, data, len);
    ssize_t r = proxy_decode(exact, len, ret);
    ASSERT(r <= (ssize_t)len);
    free(exact);
    return r;
}

static void check_addr(const struct net_addr *a)
{
    static const uint8_t mapped[12] = {[10] = 0xFF, [11] = 0xFF};
    ASSERT(a->family == AF_INET || (a->family == AF_INET6 && memcmp(a->ip, mapped, 12) != 0));
}

static bool same_addr(const struct net_addr *a, const struct net_addr *b)
{
    return a->family == b->family && a->port == b->port && memcmp(a->ip, b->ip, sizeof a->ip) == 0;
}

static bool same_header(const struct proxy_header *a, const struct proxy_header *b)
{
    return a->version == b->version && a->has_addresses == b->has_addresses &&
           same_addr(&a->client, &b->client) && same_addr(&a->server, &b->server);
}

static void check_header(const struct proxy_header *h, size_t len)
{
    ASSERT(h->version == 1 ? len <= PROXY_V1_MAX : h->version == 2 && len <= PROXY_V2_MAX);
    if (!h->has_addresses) {
        ASSERT(h->client.family == 0 && h->server.family == 0);
        return;
    }
    check_addr(&h->client);
    check_addr(&h->server);
    for (unsigned version = 1; version <= 2; version++) {
        uint8_t out[PROXY_V1_MAX];
        struct proxy_header again;
        size_t n = proxy_encode(version, &h->client, &h->server, out, sizeof out);
        ASSERT(n > 0 && decode_exact(out, n, &again) == (ssize_t)n);
        ASSERT(again.version == version && again.has_addresses);
        ASSERT(same_addr(&again.client, &h->client) && same_addr(&again.server, &h->server));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct proxy_header whole, cut;
    ssize_t want = decode_exact(data, len, &whole);
    if (want > 0)
        check_header(&whole, (size_t)want);
    else
        ASSERT(want == 0 || want == -ENOMSG || want == -EPROTO || want == -EMSGSIZE);
    if (want == 0)
        ASSERT(len < PROXY_V2_MAX && (len == 0 || data[0] != 'P' || len < PROXY_V1_MAX));
    ssize_t r = 0;
    for (size_t n = 0; n <= len && n <= PROXY_V2_MAX; n++) {
        ssize_t now = decode_exact(data, n, &cut);
        ASSERT(r == 0 ? now == 0 || now == want : now == want);
        ASSERT(now <= 0 || now == want);
        if (now > 0)
            ASSERT(n >= (size_t)want && same_header(&cut, &whole));
        r = now;
        if (r != 0 && n > (size_t)(want > 0 ? want : 0) + 200)
            break;
    }
    return 0;
}
