// SPDX-License-Identifier: MIT
/* permessage-deflate. The first 4 bytes choose windows, levels, limits and which of the three parts runs:
 * - The rest as a client's Sec-WebSocket-Extensions: what is agreed lies within the wish, and our answer,
 * sent as an offer, is agreed to by the same answer.
 * - The rest as compressed messages of a peer: never more output than the limit, what was there before stays,
 *   the limit changes nothing but whether there is a result, and an inflater works after an error.
 * - The rest, cut into messages, compressed, fresh or not: comes back, with take-over and (fresh) without. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "proto/ws/deflate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Bits of the seed, taken from below. */
static unsigned draw(uint32_t *seed, unsigned n)
{
    unsigned v = *seed % n;
    *seed /= n;
    return v;
}

static uint32_t mix(uint32_t seed)
{
    return (seed * 1664525 + 1013904223) ^ seed >> 15;
}

/* --- Negotiation */

static bool negotiate(struct slice offer, const struct ws_deflate_wish *wish, struct ws_deflate_params *ret,
                      char header[WS_DEFLATE_HEADER_MAX])
{
    static struct http_request req;
    req.n_headers = 1;
    req.headers[0] = (struct http_header){SLICE_STR("Sec-WebSocket-Extensions"), offer};
    return ws_deflate_negotiate(&req, wish, ret, header, WS_DEFLATE_HEADER_MAX);
}

static void agreement(const uint8_t *data, size_t len, uint32_t seed)
{
    static const char name[] = "Sec-WebSocket-Extensions: ";
    struct ws_deflate_wish wish = {.takeover = draw(&seed, 2), .client_takeover = draw(&seed, 2)};
    wish.window_bits = (uint8_t)(9 + draw(&seed, 7));
    wish.client_window_bits = (uint8_t)(9 + draw(&seed, 7));
    struct ws_deflate_params p, again;
    char header[WS_DEFLATE_HEADER_MAX], second[WS_DEFLATE_HEADER_MAX];
    if (!negotiate((struct slice){data, len}, &wish, &p, header))
        return;
    ASSERT(p.window_bits >= 9 && p.window_bits <= wish.window_bits);
    ASSERT(p.client_window_bits >= 9 && p.client_window_bits <= 15);
    ASSERT(wish.takeover || !p.takeover);
    ASSERT(wish.client_takeover || !p.client_takeover);
    size_t n = strlen(header);
    ASSERT(n > sizeof name + 1 && memcmp(header, name, sizeof name - 1) == 0);
    ASSERT(strcmp(header + n - 2, "\r\n") == 0);
    struct slice answer = {(uint8_t *)header + sizeof name - 1, n - 2 - (sizeof name - 1)};
    ASSERT(negotiate(answer, &wish, &again, second));
    ASSERT(strcmp(header, second) == 0);
    ASSERT(again.takeover == p.takeover && again.client_takeover == p.client_takeover);
    ASSERT(again.window_bits == p.window_bits && again.client_window_bits == p.client_window_bits);
}

/* --- Inflating what a peer sends */

static void check_works(struct ws_inflater *i)
{
    struct bytes out = {0};
    ASSERT(ws_inflate(i, true, "\xf2\x48\xcd\xc9\xc9\x07\x00", 7, 5, &out) == 0);
    ASSERT(out.len == 5 && memcmp(out.data, "Hello", 5) == 0);
    bytes_fini(&out);
}

static int inflate_within(struct ws_inflater *i, const uint8_t *data, size_t len, size_t size_max,
                          struct bytes *out)
{
    bytes_clear(out);
    ASSERT(bytes_append_str(out, "kept"));
    int rc = ws_inflate(i, true, data, len, size_max, out);
    ASSERT(rc == 0 || rc == -EMSGSIZE || rc == -EBADMSG);
    ASSERT(out->len <= 4 + size_max && (rc == 0 || out->len == 4));
    ASSERT(out->cap <= 2 * (4 + size_max) + 64);
    ASSERT(memcmp(out->data, "kept", 4) == 0);
    return rc;
}

#define LARGE ((size_t)1 << 20)

static void peer_data(const uint8_t *data, size_t len, uint32_t seed)
{
    struct ws_inflater *i = ws_inflater_new(9 + draw(&seed, 7));
    struct bytes small = {0}, large = {0};
    size_t size_max = draw(&seed, 4) == 0 ? draw(&seed, 70000) : draw(&seed, 600);
    ASSERT(i != NULL);
    int rc_small = inflate_within(i, data, len, size_max, &small);
    int rc = inflate_within(i, data, len, LARGE, &large);
    if (rc == 0 && large.len - 4 <= size_max)
        ASSERT(rc_small == 0 && small.len == large.len && memcmp(small.data, large.data, small.len) == 0);
    else if (rc == -EMSGSIZE || rc == 0)
        ASSERT(rc_small == -EMSGSIZE);
    else
        ASSERT(rc_small != 0);
    if (rc == 0) /* as it is from the beginning of a connection; then the same behind itself */
        ASSERT(ws_inflate(i, false, data, len, LARGE, &small) == 0);
    check_works(i);
    bytes_fini(&small);
    bytes_fini(&large);
    ws_inflater_free(i);
}

/* --- There and back */

struct talk {
    struct ws_deflater *d;
    struct ws_inflater *remembers, *forgets;
};

static void there_and_back(struct talk *t, bool fresh, const uint8_t *data, size_t len)
{
    struct bytes wire = {0}, out = {0};
    ASSERT(ws_deflate(t->d, fresh, data, len, &wire));
    ASSERT(wire.len >= 1 && wire.len <= len + len / 4 + 64);
    ASSERT(ws_inflate(t->remembers, false, wire.data, wire.len, len, &out) == 0);
    ASSERT(out.len == len && (len == 0 || memcmp(out.data, data, len) == 0));
    bytes_clear(&out);
    if (fresh) {
        ASSERT(ws_inflate(t->forgets, true, wire.data, wire.len, len, &out) == 0);
        ASSERT(out.len == len && (len == 0 || memcmp(out.data, data, len) == 0));
    }
    bytes_fini(&wire);
    bytes_fini(&out);
}

static void conversation(const uint8_t *data, size_t len, uint32_t seed)
{
    uint32_t cuts = mix(seed);
    unsigned window_bits = 9 + draw(&seed, 7), level = 1 + draw(&seed, 9), mem_level = 1 + draw(&seed, 9);
    struct talk t = {ws_deflater_new(window_bits, level, mem_level), ws_inflater_new(window_bits),
                     ws_inflater_new(window_bits)};
    ASSERT(t.d != NULL && t.remembers != NULL && t.forgets != NULL);
    for (size_t pos = 0; pos <= len;) {
        cuts = mix(cuts);
        size_t n = (cuts >> 8) % ((cuts >> 4 & 3) == 0 ? 5000 : 60);
        n = n < len - pos ? n : len - pos;
        there_and_back(&t, (cuts & 3) == 0, data + pos, n);
        pos += n > 0 ? n : 1;
    }
    ws_deflater_free(t.d);
    ws_inflater_free(t.remembers);
    ws_inflater_free(t.forgets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint32_t seed;
    if (len < sizeof seed)
        return 0;
    memcpy(&seed, data, sizeof seed);
    data += sizeof seed;
    len -= sizeof seed;
    switch (draw(&seed, 3)) {
    case 0: agreement(data, len, seed); break;
    case 1: peer_data(data, len, seed); break;
    default: conversation(data, len, seed); break;
    }
    return 0;
}
