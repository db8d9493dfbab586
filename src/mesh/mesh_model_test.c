// SPDX-License-Identifier: MIT
/* Several shards in one process, random sends of all kinds and sizes through the smallest rings, random
 * deaths (also within callbacks), successors; and beside it what must hold: between each two shards
 * everything that was safe arrives, in order, once, large or small. What may differ, as the header says: the
 * message in whose callback a receiver died comes again.
 *
 * Shards that sleep do so within their poll, in which others take their turns meanwhile. */
#include "mesh/mesh_util_test.h"

#include <errno.h>

#include "base/log.h"
#include "loop/loop.h"

#define N           4
#define RING        (64 * KIB)
#define LEN_MAX     (200 * KIB)
#define SEEDS       24
#define STEPS       3000
#define DEPTH       3
#define NOTES       2048
#define WAITING_MAX (400 * KIB)

struct head {
    uint32_t incarnation, seq;
};

struct model_note {
    struct mesh_note note;
    unsigned from, to;
    uint32_t incarnation, seq;
    bool used;
};

struct shard {
    struct mesh *m; /* NULL: dead, no successor yet */
    struct loop *l;
    bool started, asleep, woken;
    uint32_t incarnation;
    uint32_t untold; /* deaths of others that it will be told of */
    struct counters counters;
    bool room_owed[N];
    struct model_note notes[NOTES];
};

/* From one to another, over all lives of both. */
struct pair {
    uint32_t sent;                 /* by this incarnation of the sender; the next number */
    uint32_t visible;              /* of those: so many must arrive, whoever dies */
    uint32_t got_incarnation, got; /* the last that came: and how many of it */
    bool again;                    /* the last one may come again */
    uint32_t must[4096];           /* by incarnation of the sender: visible at its death */
};

static void *mem;
static struct shard shards[N];
static struct pair pairs[N][N];
static uint64_t chance, virtual_ns;
static bool quiet; /* no deaths, no new messages */
static unsigned depth, n_deaths, n_repeats, n_messages, n_sleeps, n_large;
static uint64_t n_cut;
static jmp_buf *death; /* of the shard that runs */
static uint8_t payload[LEN_MAX];

static uint64_t virtual_now(void *ctx)
{
    return virtual_ns += 500;
}

static void step(unsigned i);

static void maybe_die(void)
{
    if (!quiet && random_below(&chance, 3000) == 0)
        longjmp(*death, 1);
}

/* ---- what must hold */

static size_t len_of(unsigned from, unsigned to, uint32_t seq)
{
    uint64_t x = (seq + 1) * UINT64_C(0x9E3779B97F4A7C15) + from * 77 + to * 1234567;
    uint64_t kind = x >> 58, r = (x ^ x >> 29) * UINT64_C(0xBF58476D1CE4E5B9) >> 20;
    size_t max = kind < 50 ? 300 : kind < 59 ? 8000 : kind < 62 ? 40000 : LEN_MAX - 8;
    return sizeof(struct head) + r % (max - sizeof(struct head));
}

static bool is_large(unsigned from, unsigned to, uint32_t seq)
{
    return len_of(from, to, seq) > (RING - RING / 16) / 2 - 8;
}

static void expect_next(unsigned from, unsigned to, const struct head *h)
{
    struct pair *p = &pairs[from][to];
    assert_true(h->incarnation >= p->got_incarnation);
    while (p->got_incarnation < h->incarnation) {
        assert_true(p->got >= p->must[p->got_incarnation]);
        p->got_incarnation++;
        p->got = 0;
        p->again = false;
    }
    if (p->again && h->seq + 1 == p->got) {
        n_repeats++;
    } else {
        assert_int_equal(h->seq, p->got);
        p->got = h->seq + 1;
    }
    p->again = false;
}

static void on_message(void *ctx, unsigned from, uint32_t type, const uint8_t *data, size_t len)
{
    struct shard *s = ctx;
    unsigned to = (unsigned)(s - shards);
    struct head h;
    assert_true(len >= sizeof h);
    memcpy(&h, data, sizeof h);
    assert_int_equal(type, h.seq);
    assert_int_equal(len, len_of(from, to, h.seq));
    assert_true(is_filled(data + sizeof h, h.seq, len - sizeof h));
    expect_next(from, to, &h);
    n_messages++;
    n_large += is_large(from, to, h.seq);
    pairs[from][to].again = true;
    maybe_die();
    if (!quiet && random_below(&chance, 4) == 0)
        mesh_flush(s->m);
    maybe_die();
    pairs[from][to].again = false;
}

static void on_room(void *ctx, unsigned to)
{
    struct shard *s = ctx;
    assert_int_equal(mesh_waiting(s->m, to), 0);
    s->room_owed[to] = false;
    maybe_die();
}

static void on_wake(void *ctx, unsigned to)
{
    shards[to].woken = true;
}

static const struct mesh_ops ops = {.message = on_message, .room = on_room, .wake = on_wake};

/* ---- sending */

static void on_note(struct mesh_note *note)
{
    struct model_note *n = (struct model_note *)note;
    struct pair *p = &pairs[n->from][n->to];
    assert_true(n->used && n->incarnation == shards[n->from].incarnation);
    assert_true(n->seq >= p->visible); /* in order, once */
    p->visible = n->seq + 1;
    n->used = false;
    maybe_die();
}

static struct model_note *note_get(unsigned from, unsigned to, uint32_t seq)
{
    struct shard *s = &shards[from];
    for (unsigned i = 0; i < NOTES; i++) {
        if (!s->notes[i].used) {
            s->notes[i] = (struct model_note){{on_note}, from, to, s->incarnation, seq, true};
            return &s->notes[i];
        }
    }
    return NULL;
}

static void send_one(unsigned from, unsigned to)
{
    struct shard *s = &shards[from];
    struct pair *p = &pairs[from][to];
    uint32_t seq = p->sent;
    struct head h = {s->incarnation, seq};
    size_t len = len_of(from, to, seq);
    fill(payload, seq, len - sizeof h);
    struct slice parts[] = {{(uint8_t *)&h, sizeof h}, {payload, len - sizeof h}};
    if (random_below(&chance, 3) == 0 && len <= mesh_try_max(s->m)) {
        int r = mesh_try(s->m, to, seq, parts, 2);
        if (r == 0) {
            p->sent++;
            p->visible = p->sent;
        } else {
            assert_int_equal(r, -EAGAIN);
            s->room_owed[to] = true;
        }
        return;
    }
    struct model_note *note = random_below(&chance, 2) == 0 ? note_get(from, to, seq) : NULL;
    p->sent++;
    s->room_owed[to] |= mesh_waiting(s->m, to) > 0;
    assert_true(mesh_send(s->m, to, seq, parts, 2, note != NULL ? &note->note : NULL));
}

static unsigned other(unsigned i)
{
    return (i + 1 + random_below(&chance, N - 1)) % N;
}

static void send_some(unsigned from)
{
    for (unsigned n = random_below(&chance, 30); n > 0; n--) {
        unsigned to = other(from);
        if (mesh_waiting(shards[from].m, to) < WAITING_MAX)
            send_one(from, to);
        maybe_die();
    }
}

/* ---- life */

static int poll_others(void *ctx, uint64_t timeout_ns)
{
    struct shard *s = ctx;
    unsigned me = (unsigned)(s - shards);
    if (timeout_ns > 0) {
        s->asleep = true;
        s->woken = false;
        n_sleeps++;
        for (unsigned n = random_below(&chance, 20); n > 0 && !s->woken; n--)
            step(other(me));
        /* Whoever rings the bell of a sleeper wakes it. */
        assert_true(s->woken || atomic_load(&mesh__shard(mem, me)->bell.rung) == 0);
        s->asleep = false;
    }
    loop_poll_returned(s->l);
    return 0;
}

static void shard_open(unsigned i)
{
    struct shard *s = &shards[i];
    const struct loop_clock clock = {.now_ns = virtual_now};
    int err = 0;
    s->l = loop_new(&clock, 1 * MS);
    loop_set_poller(s->l, &(struct loop_poller){.poll = poll_others, .ctx = s});
    struct mesh_options opt = {.me = i,
                               .n_shards = N,
                               .mem = mem,
                               .ring_bytes = RING,
                               .loop = s->l,
                               .counters = &s->counters,
                               .ops = &ops,
                               .ctx = s,
                               .message_max = LEN_MAX};
    s->m = mesh_new(&opt, &err);
    assert_non_null(s->m);
    s->started = false;
    s->untold = 0;
}

static void shard_kill(unsigned i)
{
    struct shard *s = &shards[i];
    uint64_t to_it;
    n_deaths++;
    mesh_abandon(s->m);
    free(s->l); /* not loop_free: it may have died within a turn */
    s->m = NULL;
    memset(s->notes, 0, sizeof s->notes);
    memset(s->room_owed, 0, sizeof s->room_owed);
    counters_clear_gauges(&s->counters);
    mesh_bury(mem, N, RING, i, &to_it);
    for (unsigned k = 0; k < N; k++) {
        struct pair *p = &pairs[i][k];
        p->must[s->incarnation] = p->visible;
        p->sent = p->visible = 0;
        shards[k].woken = true;
        if (k != i)
            shards[k].untold |= UINT32_C(1) << i;
    }
    s->incarnation++;
    assert_true(s->incarnation < 4096);
}

static void tell(unsigned i)
{
    while (shards[i].untold != 0) {
        unsigned dead = (unsigned)__builtin_ctz(shards[i].untold);
        shards[i].untold &= ~(UINT32_C(1) << dead);
        mesh_peer_died(shards[i].m, dead);
    }
}

static void live(unsigned i)
{
    struct shard *s = &shards[i];
    if (!s->started && (quiet || random_below(&chance, 3) == 0)) {
        mesh_start(s->m);
        s->started = true;
    }
    if (quiet || random_below(&chance, 4) == 0)
        tell(i);
    if (!quiet)
        send_some(i);
    if (quiet || random_below(&chance, 3) != 0)
        loop_turn(s->l, s->started && depth < DEPTH && random_below(&chance, 3) == 0 ? MS : 0);
    for (unsigned k = 0; k < N; k++) {
        if (k != i && mesh_waiting(s->m, k) == 0 && random_below(&chance, 8) == 0) {
            mesh_flush(s->m);
            pairs[i][k].visible = pairs[i][k].sent;
        }
    }
}

/* Something for shard i to do, unless it sleeps. */
static void step(unsigned i)
{
    struct shard *s = &shards[i];
    jmp_buf here, *before = death;
    if (s->asleep)
        return;
    if (s->m == NULL) {
        if (quiet || random_below(&chance, 4) == 0)
            shard_open(i);
        return;
    }
    depth++;
    death = &here;
    if (setjmp(here) == 0) {
        live(i);
        maybe_die();
    } else {
        shard_kill(i);
    }
    death = before;
    depth--;
}

static void expect_all_arrived(void)
{
    uint64_t in = 0, out = 0;
    for (unsigned i = 0; i < N; i++) {
        in += counter_get(&shards[i].counters, COUNTER_mesh_messages_in);
        out += counter_get(&shards[i].counters, COUNTER_mesh_messages_out);
        n_cut += counter_get(&shards[i].counters, COUNTER_mesh_cut);
        assert_int_equal(counter_get(&shards[i].counters, COUNTER_mesh_broken), 0);
        assert_int_equal(counter_get(&shards[i].counters, COUNTER_mesh_backlog_bytes), 0);
        for (unsigned k = 0; k < N; k++) {
            struct pair *p = &pairs[i][k];
            if (i == k)
                continue;
            assert_int_equal(mesh_waiting(shards[i].m, k), 0);
            assert_false(shards[i].room_owed[k]);
            struct head end = {shards[i].incarnation, p->sent};
            p->again = false;
            expect_next(i, k, &end);
        }
        for (unsigned k = 0; k < NOTES; k++)
            assert_false(shards[i].notes[k].used);
    }
    assert_true(in <= out + n_repeats);
}

static void run_seed(uint64_t seed)
{
    chance = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    memset(shards, 0, sizeof shards);
    memset(pairs, 0, sizeof pairs);
    mem = shared_memory(mesh_bytes(N, RING));
    n_repeats = 0;
    quiet = false;
    for (unsigned i = 0; i < STEPS; i++)
        step(random_below(&chance, N));
    quiet = true;
    for (unsigned n = 0; n < 400; n++) {
        for (unsigned i = 0; i < N; i++)
            step(i);
    }
    expect_all_arrived();
    for (unsigned i = 0; i < N; i++) {
        mesh_free(shards[i].m);
        loop_free(shards[i].l);
    }
    munmap(mem, mesh_bytes(N, RING));
}

static void everything_visible_arrives_in_order_and_once(void **state)
{
    const char *seeds = getenv("MESH_MODEL_SEEDS"), *first = getenv("MESH_MODEL_FIRST");
    uint64_t from = first != NULL ? strtoul(first, NULL, 10) : 1;
    uint64_t n = seeds != NULL ? strtoul(seeds, NULL, 10) : SEEDS;
    unsigned repeats = 0;
    log_level_now = LOG_ERROR; /* mesh_cut is daily bread here */
    for (uint64_t seed = from; seed < from + n; seed++) {
        if (seeds != NULL)
            fprintf(stderr, "seed %lu\n", (unsigned long)seed);
        run_seed(seed);
        repeats += n_repeats;
    }
    print_message("%u messages, %u of them large, %u deaths, %u read again, %lu begun anew, %u sleeps\n",
                  n_messages, n_large, n_deaths, repeats, (unsigned long)n_cut, n_sleeps);
    assert_true(n_deaths > 0 && n_sleeps > 0 && n_messages > 10000 && n_large > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_visible_arrives_in_order_and_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
