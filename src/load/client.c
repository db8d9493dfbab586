// SPDX-License-Identifier: MIT
#include "load/client.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "load/client_priv.h"

#define NS_PER_S    1000000000u
#define LOOK_NS     100000000u /* how often timeouts are looked at */
#define WAIT_NS_MAX 20000000u  /* how long an order of the parent may wait */
#define QUIET_NS    200000000u /* nobody waits for answers: it is over when nothing has come for so long */
#define SERVER_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

/* ---- the handshake: one key for all connections of the process */

struct handshake {
    struct bytes request;
    char accept[32];
};

static bool handshake_keys(char key[32], char accept[32])
{
    uint8_t nonce[16], digest[EVP_MAX_MD_SIZE];
    char text[32 + sizeof(SERVER_GUID)];
    unsigned len = 0;
    if (RAND_bytes(nonce, sizeof(nonce)) != 1)
        return false;
    EVP_EncodeBlock((uint8_t *)key, nonce, sizeof(nonce));
    int n = snprintf(text, sizeof(text), "%s%s", key, SERVER_GUID);
    if (EVP_Digest(text, (size_t)n, digest, &len, EVP_sha1(), NULL) != 1)
        return false;
    EVP_EncodeBlock((uint8_t *)accept, digest, (int)len);
    return true;
}

static bool has_header(const struct bench_options *o, const char *name)
{
    for (uint32_t i = 0; i < o->n_headers; i++) {
        if (strncasecmp(o->headers[i], name, strlen(name)) == 0 && o->headers[i][strlen(name)] == ':')
            return true;
    }
    return false;
}

static bool handshake_init(struct handshake *h, const struct bench_options *o)
{
    char key[32], host[TARGET_TEXT_MAX + 16];
    if (!handshake_keys(key, h->accept))
        return false;
    load_target_host(&o->target, host, sizeof(host));
    bytes_printf(&h->request, "GET %s HTTP/1.1\r\n", o->target.path);
    if (!has_header(o, "Host"))
        bytes_printf(&h->request, "Host: %s\r\n", host);
    bytes_printf(&h->request,
                 "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Key: %s\r\n",
                 key);
    if (o->subprotocol != NULL)
        bytes_printf(&h->request, "Sec-WebSocket-Protocol: %s\r\n", o->subprotocol);
    for (uint32_t i = 0; i < o->n_headers; i++)
        bytes_printf(&h->request, "%s\r\n", o->headers[i]);
    bytes_append(&h->request, "\r\n", 3); /* its NUL, too */
    return !h->request.failed;
}

/* ---- the turn */

static void connect_more(struct run *r)
{
    const struct bench_options *o = r->opt;
    double rate = o->ramp / o->processes;
    uint64_t allowed = r->n;
    if (rate > 0)
        allowed = (uint64_t)((double)(r->engine.now - r->ramp_ns) * rate / 1e9 +
                             (double)r->process / o->processes + 1e-9);
    while (r->n_begun < r->n && r->n_begun < allowed && r->engine.n_pending < o->connecting) {
        struct client *c = &r->clients[r->n_begun];
        c->base.index = r->first + r->n_begun++;
        count(r, BENCH_begun, 1);
        engine_begin(&r->engine, &c->base);
    }
}

static uint64_t until(uint64_t now, uint64_t then, uint64_t max)
{
    uint64_t ns = then > now ? then - now : 0;
    return ns < max ? ns : max;
}

/* When the next connect is due. */
static uint64_t ramp_wait(const struct run *r)
{
    const struct bench_options *o = r->opt;
    double rate = o->ramp / o->processes;
    if (rate == 0 || r->n_begun == r->n)
        return WAIT_NS_MAX;
    double at = (r->n_begun + 1 - (double)r->process / o->processes) / rate * 1e9;
    return until(r->engine.now, r->ramp_ns + (uint64_t)at + 1000, WAIT_NS_MAX);
}

static void look_after_timeouts(struct run *r)
{
    if (r->engine.now < r->next_look_ns)
        return;
    r->next_look_ns = r->engine.now + LOOK_NS;
    engine_expire(&r->engine, r->clients, sizeof(*r->clients), r->n_begun,
                  (uint64_t)(r->opt->timeout_s * NS_PER_S));
    if (r->sending)
        run__give_up_late(r);
}

static int turn(struct run *r, uint64_t wait_ns)
{
    int n = engine_turn(&r->engine, wait_ns < WAIT_NS_MAX ? wait_ns : WAIT_NS_MAX);
    look_after_timeouts(r);
    return n < 0 ? n : 0;
}

static bool is_told_to_stop(const struct run *r)
{
    return bench_get(&r->shm->stop) != 0;
}

static int connect_all(struct run *r)
{
    int n = 0;
    r->ramp_ns = r->engine.now = load_now_ns();
    while (n >= 0 && (r->n_begun < r->n || r->engine.n_pending > 0) && !is_told_to_stop(r)) {
        connect_more(r);
        n = turn(r, ramp_wait(r));
    }
    bench_set(&r->block->state, BENCH_READY);
    return n;
}

static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static uint64_t start_ns(const struct run *r)
{
    return __atomic_load_n(&r->shm->start_ns, __ATOMIC_ACQUIRE);
}

static int wait_for_start(struct run *r)
{
    int n = 0;
    while (n >= 0 && !is_told_to_stop(r) && (start_ns(r) == 0 || r->engine.now < start_ns(r)))
        n = turn(r, start_ns(r) == 0 ? WAIT_NS_MAX : until(r->engine.now, start_ns(r), WAIT_NS_MAX));
    return n;
}

static int send_all(struct run *r)
{
    int n = 0;
    if (is_told_to_stop(r))
        return 0;
    bench_set(&r->block->state, BENCH_RUNNING);
    r->cpu_ns = cpu_ns();
    run__start(r);
    while (n >= 0 && !is_told_to_stop(r) && r->engine.now < r->end_ns) {
        uint64_t wait = run__send_due(r);
        run__send_pings(r);
        if (r->opt->pings_s > 0 && until(r->engine.now, r->next_ping_ns, wait) < wait)
            wait = until(r->engine.now, r->next_ping_ns, wait);
        n = turn(r, until(r->engine.now, r->end_ns, wait));
    }
    if (!is_told_to_stop(r))
        run__send_due(r); /* those of the last turn */
    r->sending = false;
    r->block->run_cpu_ns = cpu_ns() - r->cpu_ns;
    return n;
}

static int drain(struct run *r)
{
    bool waits = r->opt->expect == EXPECT_ECHO || r->opt->expect == EXPECT_ANSWER;
    uint64_t began = load_now_ns(), end = began + (uint64_t)(r->opt->drain_s * NS_PER_S);
    int n = 0;
    r->last_in_ns = began;
    while (n >= 0 && r->engine.now < end) {
        bool done = run__all_answered(r) && (waits || r->engine.now >= r->last_in_ns + QUIET_NS);
        if (done || r->engine.n_open == 0)
            break;
        n = turn(r, WAIT_NS_MAX);
    }
    run__count_missing(r);
    bench_set(&r->block->state, BENCH_DRAINED);
    return n;
}

/* Nobody closes while others still count. */
static int wait_for_close(struct run *r)
{
    int n = 0;
    while (n >= 0 && bench_get(&r->shm->close) == 0)
        n = turn(r, WAIT_NS_MAX);
    return n;
}

static void close_all(struct run *r)
{
    for (uint32_t i = 0; i < r->n_begun; i++)
        engine_close(&r->engine, &r->clients[i].base, 1000);
    bench_set(&r->block->state, BENCH_DONE);
}

static int live(struct run *r)
{
    int n = connect_all(r);
    if (n >= 0)
        n = wait_for_start(r);
    if (n >= 0)
        n = send_all(r);
    if (n >= 0)
        n = drain(r);
    if (n >= 0)
        n = wait_for_close(r);
    close_all(r);
    return n;
}

static bool memory_init(struct run *r)
{
    r->clients = calloc(r->n, sizeof(*r->clients));
    if (r->opt->target.protocol == LOAD_TCP)
        r->tails = malloc((size_t)r->n * BENCH_ANSWER_MAX);
    if (r->clients == NULL || (r->opt->target.protocol == LOAD_TCP && r->tails == NULL))
        return false;
    for (uint32_t i = 0; i < r->n && r->tails != NULL; i++)
        r->clients[i].tail = r->tails + (size_t)i * BENCH_ANSWER_MAX;
    return run__send_init(r);
}

static int tls_init(const struct bench_options *o, struct bench_block *b, struct engine_conf *conf)
{
    if (!o->target.tls)
        return 0;
    conf->server_name = o->server_name != NULL ? o->server_name : o->target.is_unix ? NULL : o->target.host;
    conf->tls = load_tls_client(TLS1_2_VERSION, !o->insecure, o->ca);
    if (conf->tls != NULL)
        return 0;
    snprintf(b->tls_error, sizeof(b->tls_error), "%s", load_tls_error());
    return -EPROTO;
}

int client_process_run(const struct bench_options *opt, struct bench_shm *shm, uint32_t process,
                       uint32_t first, uint32_t n)
{
    struct run r = {
        .opt = opt, .shm = shm, .block = &shm->blocks[process], .process = process, .first = first, .n = n};
    struct handshake h = {0};
    struct engine_conf conf = {.target = &opt->target, .sources = &opt->sources};
    bool good = handshake_init(&h, opt) && memory_init(&r);
    int err = good ? tls_init(opt, r.block, &conf) : -ENOMEM;
    conf.request = (const char *)h.request.data;
    conf.accept = h.accept;
    if (err == 0)
        err = engine_init(&r.engine, &conf, &run__ops, &r);
    if (err == 0) {
        err = live(&r);
        engine_fini(&r.engine);
    }
    SSL_CTX_free(conf.tls);
    run__send_fini(&r);
    free(r.clients);
    free(r.tails);
    bytes_fini(&h.request);
    return err;
}
