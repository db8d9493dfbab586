// SPDX-License-Identifier: MIT
/* A node of three shards in one process, whose turns the test makes, in virtual time. */
#pragma once

#include <errno.h>

#include "base/log.h"
#include "loop/loop.h"
#include "mesh/mesh_util_test.h"

#define RING      (64 * KIB)
#define N_LOG     8192
#define N_NODE    3
#define TYPE_ECHO 1000000

/* One shard of the node under test; what it is told is noted. */
struct shard {
    struct mesh *m;
    struct loop *l;
    struct counters counters;
    unsigned me;
    unsigned n_got, n_rooms, n_wakes;
    unsigned n_broken, broken; /* how often, and the peer */
    struct {
        uint32_t from, type;
        size_t len;
    } got[N_LOG];
    uint64_t cost_ns; /* of a message */
    unsigned woken[MESH_SHARDS_MAX];
    void (*on_message)(struct shard *s, unsigned from, uint32_t type);
    void (*on_room)(struct shard *s, unsigned to);
};

static void *mem;
static struct shard shards[N_NODE];
static uint64_t virtual_ns, waited_ns;
static uint8_t payload[600 * KIB];

static inline uint64_t virtual_now(void *ctx)
{
    return virtual_ns;
}

static inline int virtual_poll(void *ctx, uint64_t timeout_ns)
{
    waited_ns = timeout_ns;
    loop_poll_returned(((struct shard *)ctx)->l);
    return 0;
}

static inline void on_message(void *ctx, unsigned from, uint32_t type, const uint8_t *data, size_t len)
{
    struct shard *s = ctx;
    assert_true(s->n_got < N_LOG);
    assert_true((uintptr_t)data % 8 == 0);
    assert_true(is_filled(data, type, len));
    s->got[s->n_got].from = from;
    s->got[s->n_got].type = type;
    s->got[s->n_got++].len = len;
    virtual_ns += s->cost_ns;
    if (s->on_message != NULL)
        s->on_message(s, from, type);
}

static inline void on_room(void *ctx, unsigned to)
{
    struct shard *s = ctx;
    assert_int_equal(mesh_waiting(s->m, to), 0);
    s->n_rooms++;
    if (s->on_room != NULL)
        s->on_room(s, to);
}

static inline void on_wake(void *ctx, unsigned to)
{
    struct shard *s = ctx;
    s->n_wakes++;
    s->woken[to]++;
}

static inline void on_broken(void *ctx, unsigned peer)
{
    struct shard *s = ctx;
    s->n_broken++;
    s->broken = peer;
}

static const struct mesh_ops ops = {
    .message = on_message, .room = on_room, .wake = on_wake, .broken = on_broken};

static inline struct mesh_options options_of(struct shard *s)
{
    return (struct mesh_options){.me = s->me,
                                 .n_shards = N_NODE,
                                 .mem = mem,
                                 .ring_bytes = RING,
                                 .loop = s->l,
                                 .counters = &s->counters,
                                 .ops = &ops,
                                 .ctx = s,
                                 .message_max = sizeof payload};
}

static inline void shard_open(struct shard *s, unsigned me, bool start)
{
    const struct loop_clock clock = {.now_ns = virtual_now};
    int err = 0;
    memset(s, 0, sizeof *s);
    s->me = me;
    s->l = loop_new(&clock, 10 * MS);
    loop_set_poller(s->l, &(struct loop_poller){.poll = virtual_poll, .ctx = s});
    struct mesh_options opt = options_of(s);
    s->m = mesh_new(&opt, &err);
    assert_non_null(s->m);
    if (start)
        mesh_start(s->m);
}

static inline void shard_close(struct shard *s)
{
    mesh_free(s->m);
    loop_free(s->l);
}

/* kill -9 */
static inline void shard_kill(struct shard *s)
{
    mesh_abandon(s->m);
    loop_free(s->l);
    s->m = NULL;
}

static inline int setup(void **state)
{
    virtual_ns = 123456789;
    mem = shared_memory(mesh_bytes(N_NODE, RING));
    for (unsigned i = 0; i < N_NODE; i++)
        shard_open(&shards[i], i, true);
    return 0;
}

static inline int teardown(void **state)
{
    for (unsigned i = 0; i < N_NODE; i++)
        shard_close(&shards[i]);
    return munmap(mem, mesh_bytes(N_NODE, RING));
}

static inline bool send_note(unsigned from, unsigned to, uint32_t type, size_t len, struct mesh_note *note)
{
    assert_true(len <= sizeof payload);
    fill(payload, type, len);
    struct slice part = {payload, len};
    return mesh_send(shards[from].m, to, type, &part, 1, note);
}

static inline void send(unsigned from, unsigned to, uint32_t type, size_t len)
{
    assert_true(send_note(from, to, type, len, NULL));
}

static inline int try(unsigned from, unsigned to, uint32_t type, size_t len)
{
    fill(payload, type, len);
    struct slice part = {payload, len};
    return mesh_try(shards[from].m, to, type, &part, 1);
}

static inline void turn(unsigned i)
{
    loop_turn(shards[i].l, 0);
}

static inline void turns(unsigned n)
{
    for (; n > 0; n--) {
        for (unsigned i = 0; i < N_NODE; i++)
            turn(i);
    }
}

static inline uint64_t count(unsigned shard, enum counter_id id)
{
    return counter_get(&shards[shard].counters, id);
}

/* These types, in this order, `n` in all since the shard came. */
static inline void expect_types(unsigned shard, uint32_t first, unsigned n)
{
    assert_int_equal(shards[shard].n_got, n);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(shards[shard].got[i].type, first + i);
}

struct counted_note {
    struct mesh_note note;
    unsigned done, order;
};
static unsigned n_done;

static inline void note_done(struct mesh_note *n)
{
    struct counted_note *c = (struct counted_note *)n;
    c->done++;
    c->order = n_done++;
}

static inline void bury_and_tell(unsigned dead, uint64_t by_it, uint64_t to_it)
{
    uint64_t got_to_it = 77;
    assert_int_equal(mesh_bury(mem, N_NODE, RING, dead, &got_to_it), by_it);
    assert_int_equal(got_to_it, to_it);
    for (unsigned i = 0; i < N_NODE; i++) {
        if (i != dead)
            mesh_peer_died(shards[i].m, dead);
    }
}

static jmp_buf out;

static inline void die(struct shard *s, unsigned from, uint32_t type)
{
    if (type == 3)
        longjmp(out, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
