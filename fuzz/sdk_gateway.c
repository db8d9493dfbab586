// SPDX-License-Identifier: MIT
/* What a gateway sends to the worker library: however the bytes are cut, the same events come out of them,
 * with everything that they point at within the packet. First byte: how the second pass is cut. */
#include "../sdk/src/worker_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"

#define PACKET_BYTES_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* A digest of all events, so that two passes can be compared. */
struct heard {
    uint64_t events, digest;
};

static void mix(struct heard *h, const void *data, size_t len)
{
    const uint8_t *p = data;
    h->digest = (h->digest ^ len) * UINT64_C(0x100000001B3);
    for (size_t i = 0; i < len; i++) /* reads every byte: a sanitizer sees one outside */
        h->digest = (h->digest ^ p[i]) * UINT64_C(0x100000001B3);
}

static void hear(struct heard *h, uint8_t kind, const struct tggw_client *c, const void *data, size_t len)
{
    uint32_t ip, id;
    uint16_t port;
    ASSERT(strlen(c->client_id) == TGGW_CLIENT_ID_LEN);
    ASSERT(tggw_client_id_parse(c->client_id, &ip, &port, &id) == 0);
    ASSERT(ip == c->local_ip && port == c->local_port && id == c->connection_id);
    ASSERT((c->session == NULL) == (c->session_len == 0));
    ASSERT(c->session_len + len + TGGW__HEAD_LEN <= PACKET_BYTES_MAX);
    h->events++;
    mix(h, &kind, 1);
    mix(h, c->client_id, TGGW_CLIENT_ID_LEN);
    mix(h, &(uint32_t[]){c->client_ip, c->client_port, c->gateway_port, c->body_serialized}, 16);
    mix(h, c->session, c->session_len);
    mix(h, data, len);
}

static void on_connect(struct tggw *w, const struct tggw_client *c, void *user)
{
    hear(user, TGGW__ON_CONNECT, c, NULL, 0);
}

static void on_websocket_connect(struct tggw *w, const struct tggw_client *c, const void *data, size_t len,
                                 void *user)
{
    hear(user, TGGW__ON_WEBSOCKET_CONNECT, c, data, len);
}

static void on_message(struct tggw *w, const struct tggw_client *c, const void *data, size_t len, void *user)
{
    hear(user, TGGW__ON_MESSAGE, c, data, len);
}

static void on_close(struct tggw *w, const struct tggw_client *c, void *user)
{
    hear(user, TGGW__ON_CLOSE, c, NULL, 0);
}

static void no_log(struct tggw *w, enum tggw_log_level level, const char *line, void *user)
{
}

static struct heard heard;

static struct tggw *worker(void)
{
    static struct tggw *w;
    const char *address = "127.0.0.1:2000";
    struct tggw_config config = {.gateways = &address,
                                 .gateway_count = 1,
                                 .packet_bytes_max = PACKET_BYTES_MAX,
                                 .cb = {.on_connect = on_connect,
                                        .on_websocket_connect = on_websocket_connect,
                                        .on_message = on_message,
                                        .on_close = on_close,
                                        .on_log = no_log},
                                 .user = &heard};
    if (w == NULL)
        ASSERT(tggw_new(&config, &w) == 0);
    return w;
}

struct outcome {
    struct heard heard;
    uint64_t packets, left;
    int err;
};

/* One pass in pieces of 1 to piece_max bytes, each in memory of its own. */
static struct outcome pass(const uint8_t *data, size_t len, size_t piece_max)
{
    struct tggw *w = worker();
    struct tggw__gateway *g = w->gateways;
    struct outcome o = {0};
    uint64_t packets = w->stats.packets_in;
    uint32_t random = (uint32_t)piece_max;
    heard = (struct heard){0};
    while (len > 0 && o.err == 0) {
        random = random * 1664525 + 1013904223;
        size_t n = 1 + (random >> 8) % piece_max;
        n = n < len ? n : len;
        uint8_t *piece = malloc(n);
        ASSERT(piece != NULL);
        memcpy(piece, data, n);
        o.err = tggw__gateway_feed(g, piece, n);
        free(piece);
        data += n;
        len -= n;
    }
    o.heard = heard;
    o.packets = w->stats.packets_in - packets;
    o.left = tggw__bytes_len(&g->link.in);
    tggw__bytes_fini(&g->link.in);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0)
        return 0;
    size_t piece_max = 1 + data[0] % 64;
    data++;
    len--;
    struct outcome whole = pass(data, len, SIZE_MAX / 2);
    struct outcome cut = pass(data, len, piece_max);
    ASSERT(whole.err == 0 || whole.err == -EBADMSG);
    ASSERT(whole.err == cut.err && whole.packets == cut.packets);
    ASSERT(whole.heard.events == cut.heard.events && whole.heard.digest == cut.heard.digest);
    ASSERT(whole.packets >= whole.heard.events);
    ASSERT(whole.err != 0 || (whole.left == cut.left && whole.left <= len));
    return 0;
}
