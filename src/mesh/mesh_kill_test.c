// SPDX-License-Identifier: MIT
/* Shards as processes that are killed (-9) at any moment, buried and replaced, while they send to each other.
 * What they sent and got stands in memory that outlives them, so that each message is checked against all
 * lives of its sender and its receiver. MESH_KILL_MS: how long (3000); deaths come every few milliseconds. */
#include "mesh/mesh_run_test.h"

#include <signal.h>
#include <sys/pidfd.h>

#include "base/log.h"

#define N        3
#define RING     (64 * KIB)
#define LEN_MOST (150 * KIB)
#define LIVES    4096

/* From one shard to one other. Each word has one writer at a time: the sender or the receiver. */
struct pair {
    _Atomic uint32_t visible[LIVES]; /* by life of the sender: so many of its messages cannot get lost */
    _Atomic uint32_t sent[LIVES];    /* given to mesh_send or mesh_try */
    _Atomic uint64_t got;            /* life << 32 | number of messages of it that came */
    _Atomic uint32_t repeats, large;
    bool ended; /* the last message of all came */
};

struct arena {
    struct pair pairs[N][N];
    _Atomic uint32_t deaths[N];
    _Atomic uint32_t stop;
    _Atomic uint32_t failed; /* line */
    _Atomic uint64_t messages;
};

static struct arena *arena;
static void *mem;
static int fds[N];

struct shard {
    unsigned me;
    uint32_t life, seen[N]; /* deaths of others that it knows of */
    struct mesh *m;
    struct eventfd_poller p;
    struct counters counters;
    struct loop_hook source;
    struct timer tick;
    uint64_t random;
    bool full[N], over, first[N];
    uint32_t ends_shown;
    uint8_t payload[LEN_MOST];
};

struct head {
    uint32_t life, seq;
};

#define CHECK(ok)                                                                                            \
    do {                                                                                                     \
        if (!(ok) && atomic_exchange(&arena->failed, __LINE__) == 0)                                         \
            fprintf(stderr, "line %d: %s\n", __LINE__, #ok);                                                 \
    } while (0)

#define TYPE_END UINT32_MAX

static size_t len_of(unsigned from, unsigned to, uint32_t seq)
{
    uint64_t x = (seq + 1) * UINT64_C(0x9E3779B97F4A7C15) + from * 77 + to * 1234567;
    uint64_t kind = x >> 54, r = (x ^ x >> 29) * UINT64_C(0xBF58476D1CE4E5B9) >> 20;
    size_t max = kind < 900 ? 200 : kind < 1020 ? 6000 : LEN_MOST - 8;
    return sizeof(struct head) + r % (max - sizeof(struct head));
}

/* ---- what must hold */

static uint64_t check_next(struct shard *s, unsigned from, const struct head *h)
{
    struct pair *p = &arena->pairs[from][s->me];
    uint64_t got = atomic_load(&p->got);
    uint32_t life = (uint32_t)(got >> 32), n = (uint32_t)got;
    CHECK(h->life >= life && h->life < LIVES);
    for (; life < h->life; life++, n = 0)
        CHECK(n >= atomic_load(&p->visible[life]));
    if (s->first[from] && h->seq + 1 == n) { /* its callback had run, but it was not released */
        atomic_fetch_add(&p->repeats, 1);
        return got;
    }
    CHECK(h->seq == n);
    return (uint64_t)h->life << 32 | (h->seq + 1);
}

static void on_message(void *ctx, unsigned from, uint32_t type, const uint8_t *data, size_t len)
{
    struct shard *s = ctx;
    struct pair *p = &arena->pairs[from][s->me];
    struct head h;
    memcpy(&h, data, sizeof h);
    uint64_t got = check_next(s, from, &h);
    if (type == TYPE_END) {
        p->ended = true;
    } else {
        CHECK(len == len_of(from, s->me, h.seq) && type == h.seq);
        CHECK(is_filled(data + sizeof h, h.seq, len - sizeof h));
    }
    s->first[from] = false;
    atomic_store(&p->got, got);
    if (len > mesh_try_max(s->m))
        atomic_fetch_add(&p->large, 1);
    atomic_fetch_add(&arena->messages, 1);
}

static void on_room(void *ctx, unsigned to)
{
    ((struct shard *)ctx)->full[to] = false;
}

static void on_wake(void *ctx, unsigned to)
{
    (void)ring_wake(fds[to]);
}

static const struct mesh_ops ops = {.message = on_message, .room = on_room, .wake = on_wake};

/* ---- sending */

struct seq_note {
    struct mesh_note note;
    struct shard *s;
    unsigned to;
    uint32_t seq;
    bool is_end;
};

static void on_note(struct mesh_note *note)
{
    struct seq_note *n = CONTAINER_OF(note, struct seq_note, note);
    atomic_store(&arena->pairs[n->s->me][n->to].visible[n->s->life], n->seq + 1);
    n->s->ends_shown += n->is_end;
    free(n);
}

static struct mesh_note *note_new(struct shard *s, unsigned to, uint32_t seq, bool is_end)
{
    struct seq_note *n = malloc(sizeof *n);
    *n = (struct seq_note){{on_note}, s, to, seq, is_end};
    return &n->note;
}

static void send_one(struct shard *s, unsigned to)
{
    struct pair *p = &arena->pairs[s->me][to];
    struct head h = {s->life, atomic_load(&p->sent[s->life])};
    size_t len = len_of(s->me, to, h.seq);
    struct slice parts[] = {{(uint8_t *)&h, sizeof h}, {s->payload, len - sizeof h}};
    uint32_t how = random_below(&s->random, 3);
    fill(s->payload, h.seq, len - sizeof h);
    if (how == 0 && len <= mesh_try_max(s->m)) {
        atomic_store(&p->sent[s->life], h.seq + 1);
        if (mesh_try(s->m, to, h.seq, parts, 2) == 0) {
            atomic_store(&p->visible[s->life], h.seq + 1);
        } else {
            atomic_store(&p->sent[s->life], h.seq);
            s->full[to] = true;
        }
        return;
    }
    atomic_store(&p->sent[s->life], h.seq + 1);
    CHECK(mesh_send(s->m, to, h.seq, parts, 2, how == 1 ? note_new(s, to, h.seq, false) : NULL));
    s->full[to] = mesh_waiting(s->m, to) > 100 * KIB;
}

static void send_ends(struct shard *s)
{
    s->over = true;
    for (unsigned to = 0; to < N; to++) {
        struct pair *p = &arena->pairs[s->me][to];
        struct head h = {s->life, atomic_load(&p->sent[s->life])};
        struct slice part = {(uint8_t *)&h, sizeof h};
        if (to != s->me)
            CHECK(mesh_send(s->m, to, TYPE_END, &part, 1, note_new(s, to, h.seq, true)));
    }
}

static bool run_source(struct loop_hook *hook)
{
    struct shard *s = CONTAINER_OF(hook, struct shard, source);
    for (unsigned i = 0; i < N; i++) {
        uint32_t deaths = atomic_load(&arena->deaths[i]);
        if (i != s->me && deaths != s->seen[i])
            mesh_peer_died(s->m, i);
        s->seen[i] = deaths;
    }
    if (s->over)
        return false;
    if (atomic_load(&arena->stop) != 0) {
        send_ends(s);
        return false;
    }
    for (unsigned n = random_below(&s->random, 20); n > 0; n--) {
        unsigned to = (s->me + 1 + random_below(&s->random, N - 1)) % N;
        if (!s->full[to])
            send_one(s, to);
    }
    return random_below(&s->random, 4) != 0;
}

static void on_tick(struct timer *t)
{
    struct shard *s = CONTAINER_OF(t, struct shard, tick);
    timer_set(s->p.loop, t, 5, on_tick);
}

static bool is_done(const struct shard *s)
{
    for (unsigned i = 0; i < N; i++) {
        if (i != s->me && !arena->pairs[i][s->me].ended)
            return false;
    }
    return s->over && s->ends_shown >= N - 1;
}

static void shard_run(unsigned me)
{
    static struct shard s;
    int err = 0;
    log_level_now = LOG_ERROR;
    s.me = me;
    s.life = atomic_load(&arena->deaths[me]);
    s.random = 1 + me + s.life * 1000;
    for (unsigned i = 0; i < N; i++) {
        s.seen[i] = atomic_load(&arena->deaths[i]);
        s.first[i] = true;
    }
    eventfd_poller_open(&s.p, fds[me]);
    struct mesh_options opt = {.me = me,
                               .n_shards = N,
                               .mem = mem,
                               .ring_bytes = RING,
                               .loop = s.p.loop,
                               .counters = &s.counters,
                               .ops = &ops,
                               .ctx = &s,
                               .message_max = LEN_MOST};
    s.m = mesh_new(&opt, &err);
    s.source.run = run_source;
    loop_hook_add(s.p.loop, &s.source);
    mesh_start(s.m);
    timer_set(s.p.loop, &s.tick, 5, on_tick);
    while (!is_done(&s))
        loop_turn(s.p.loop, UINT64_MAX);
    mesh_flush(s.m);
    CHECK(counter_get(&s.counters, COUNTER_mesh_broken) == 0);
    _exit(0);
}

/* ---- the supervisor */

static pid_t spawn(unsigned i)
{
    pid_t pid = fork();
    if (pid == 0)
        shard_run(i);
    assert_true(pid > 0);
    return pid;
}

static void kill_and_replace(pid_t *pids, unsigned i)
{
    uint64_t to_it;
    int status;
    kill(pids[i], SIGKILL);
    assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    mesh_bury(mem, N, RING, i, &to_it);
    assert_true(atomic_fetch_add(&arena->deaths[i], 1) < LIVES - 2);
    for (unsigned k = 0; k < N; k++)
        (void)ring_wake(fds[k]);
    pids[i] = spawn(i);
}

static void wait_until_done(const pid_t *pids)
{
    for (unsigned i = 0; i < N; i++) {
        struct pollfd p = {.fd = pidfd_open(pids[i], 0), .events = POLLIN};
        int status = -1;
        if (poll(&p, 1, LOST_MS) == 0)
            kill(pids[i], SIGKILL); /* and fail below */
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
        close(p.fd);
    }
}

static void expect_everything_visible_arrived(void)
{
    uint32_t repeats = 0, large = 0, deaths = 0;
    for (unsigned a = 0; a < N; a++) {
        deaths += atomic_load(&arena->deaths[a]);
        for (unsigned b = 0; b < N; b++) {
            struct pair *p = &arena->pairs[a][b];
            uint32_t life = atomic_load(&arena->deaths[a]);
            if (a == b)
                continue;
            repeats += atomic_load(&p->repeats);
            large += atomic_load(&p->large);
            /* The end came, which is one more than what was sent. */
            assert_int_equal(atomic_load(&p->got) >> 32, life);
            assert_int_equal((uint32_t)atomic_load(&p->got), atomic_load(&p->sent[life]) + 1);
        }
    }
    print_message("%lu messages, %u of them large, %u deaths, %u read again\n",
                  (unsigned long)atomic_load(&arena->messages), large, deaths, repeats);
    assert_true(deaths > 0 && large > 100);
    assert_int_equal(atomic_load(&arena->failed), 0);
}

static void killed_shards_lose_nothing_that_was_visible(void **state)
{
    const char *ms = getenv("MESH_KILL_MS");
    uint64_t end_ns = now_ns() + (ms != NULL ? strtoul(ms, NULL, 10) : 3000) * MS, random = 4711;
    pid_t pids[N];
    log_level_now = LOG_ERROR;
    arena = shared_memory(sizeof *arena);
    mem = shared_memory(mesh_bytes(N, RING));
    for (unsigned i = 0; i < N; i++)
        fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    for (unsigned i = 0; i < N; i++)
        pids[i] = spawn(i);
    while (now_ns() < end_ns && atomic_load(&arena->failed) == 0) {
        (void)poll(NULL, 0, (int)random_below(&random, 20)); /* any moment */
        kill_and_replace(pids, random_below(&random, N));
    }
    atomic_store(&arena->stop, 1);
    wait_until_done(pids);
    expect_everything_visible_arrived();
    munmap(arena, sizeof *arena);
    munmap(mem, mesh_bytes(N, RING));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_shards_lose_nothing_that_was_visible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
