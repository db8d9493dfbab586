// SPDX-License-Identifier: MIT
/* Shards at full speed that send to each other, as threads (under -Db_sanitize=thread: with every access
 * checked) and as processes, sleeping whenever there is nothing to do. A wake-up that gets lost shows as a
 * wait that nobody ended. And what a message costs. MESH_STRESS_MS: how long each case runs (300). */
#include "mesh/mesh_run_test.h"

#include <pthread.h>
#include <sched.h>

#define RING     (64 * KIB)
#define N_MOST   3
#define LEN_MOST (150 * KIB)
#define TYPE_END UINT32_MAX

struct report {
    uint64_t in, out, wakes, sleeps, lost, waited;
    uint32_t failed; /* line */
};

struct stress {
    void *mem;
    struct report *reports; /* shared */
    unsigned n;
    uint64_t ms;
    int fds[N_MOST];
};

struct shard {
    struct stress *s;
    unsigned me;
    struct mesh *m;
    struct eventfd_poller p;
    struct counters counters;
    struct loop_hook source;
    struct timer timer;
    uint64_t end_ns, random;
    uint32_t sent[N_MOST], got[N_MOST];
    bool full[N_MOST], ended[N_MOST], over;
    uint8_t payload[LEN_MOST];
};

#define CHECK(s, ok) ((ok) ? (void)0 : (void)((s)->s->reports[(s)->me].failed = __LINE__))

static void on_message(void *ctx, unsigned from, uint32_t type, const uint8_t *data, size_t len)
{
    struct shard *s = ctx;
    if (type == TYPE_END) {
        CHECK(s, !s->ended[from]);
        s->ended[from] = true;
        return;
    }
    CHECK(s, type == s->got[from]);
    CHECK(s, is_filled(data, type, len));
    s->got[from]++;
}

static void on_room(void *ctx, unsigned to)
{
    ((struct shard *)ctx)->full[to] = false;
}

static void on_wake(void *ctx, unsigned to)
{
    (void)ring_wake(((struct shard *)ctx)->s->fds[to]);
}

static const struct mesh_ops ops = {.message = on_message, .room = on_room, .wake = on_wake};

static void on_note(struct mesh_note *n)
{
    free(n);
}

static void send_one(struct shard *s, unsigned to)
{
    uint32_t n = s->sent[to], kind = random_below(&s->random, 1000);
    size_t len = random_below(&s->random, kind < 900 ? 100 : kind < 998 ? 5000 : LEN_MOST);
    struct slice part = {s->payload, len};
    fill(s->payload, n, len);
    if (kind % 10 == 0 && len < mesh_try_max(s->m)) {
        s->full[to] = mesh_try(s->m, to, n, &part, 1) != 0;
        s->sent[to] += !s->full[to];
        return;
    }
    struct mesh_note *note = kind % 10 == 1 ? calloc(1, sizeof *note) : NULL;
    if (note != NULL)
        note->done = on_note;
    CHECK(s, mesh_send(s->m, to, n, &part, 1, note));
    s->sent[to]++;
    s->full[to] = mesh_waiting(s->m, to) > 0;
}

/* Some messages a turn; now and then none, so that all fall asleep. */
static bool run_source(struct loop_hook *h)
{
    struct shard *s = CONTAINER_OF(h, struct shard, source);
    if (s->over)
        return false;
    for (unsigned n = random_below(&s->random, 20); n > 0; n--) {
        unsigned to = (s->me + 1 + random_below(&s->random, s->s->n - 1)) % s->s->n;
        if (!s->full[to])
            send_one(s, to);
    }
    return random_below(&s->random, 8) != 0;
}

static void on_timer(struct timer *t)
{
    struct shard *s = CONTAINER_OF(t, struct shard, timer);
    if (now_ns() < s->end_ns) {
        timer_set(s->p.loop, t, 1, on_timer);
        return;
    }
    s->over = true;
    for (unsigned i = 0; i < s->s->n; i++) {
        if (i != s->me)
            CHECK(s, mesh_send(s->m, i, TYPE_END, NULL, 0, NULL));
    }
}

static bool is_done(const struct shard *s)
{
    for (unsigned i = 0; i < s->s->n; i++) {
        if (i != s->me && (!s->ended[i] || mesh_waiting(s->m, i) > 0))
            return false;
    }
    return s->over;
}

static void report(struct shard *s)
{
    struct report *r = &s->s->reports[s->me];
    r->in = counter_get(&s->counters, COUNTER_mesh_messages_in);
    r->out = counter_get(&s->counters, COUNTER_mesh_messages_out);
    r->wakes = counter_get(&s->counters, COUNTER_mesh_wakes);
    r->waited = counter_get(&s->counters, COUNTER_mesh_waited);
    r->sleeps = s->p.sleeps;
    r->lost = s->p.lost;
    CHECK(s, counter_get(&s->counters, COUNTER_mesh_broken) == 0);
    CHECK(s, counter_get(&s->counters, COUNTER_mesh_cut) == 0);
}

static void *shard_run(void *arg)
{
    struct shard *s = arg;
    int err = 0;
    eventfd_poller_open(&s->p, s->s->fds[s->me]);
    struct mesh_options opt = {.me = s->me,
                               .n_shards = s->s->n,
                               .mem = s->s->mem,
                               .ring_bytes = RING,
                               .loop = s->p.loop,
                               .counters = &s->counters,
                               .ops = &ops,
                               .ctx = s,
                               .message_max = LEN_MOST};
    s->m = mesh_new(&opt, &err);
    s->source.run = run_source;
    s->random = 77 + s->me;
    loop_hook_add(s->p.loop, &s->source);
    mesh_start(s->m);
    s->end_ns = now_ns() + s->s->ms * MS;
    timer_set(s->p.loop, &s->timer, 1, on_timer);
    while (!is_done(s) && s->p.lost == 0)
        loop_turn(s->p.loop, UINT64_MAX);
    loop_hook_remove(s->p.loop, &s->source);
    timer_cancel(s->p.loop, &s->timer);
    mesh_flush(s->m);
    report(s);
    mesh_free(s->m);
    loop_free(s->p.loop);
    return NULL;
}

static struct shard *shard_make(struct stress *s, unsigned me)
{
    struct shard *shard = calloc(1, sizeof *shard);
    assert_non_null(shard);
    shard->s = s;
    shard->me = me;
    return shard;
}

static void stress_open(struct stress *s, unsigned n)
{
    const char *ms = getenv("MESH_STRESS_MS");
    *s = (struct stress){.n = n, .ms = ms != NULL ? strtoul(ms, NULL, 10) : 300};
    s->mem = shared_memory(mesh_bytes(n, RING));
    s->reports = shared_memory(sizeof(struct report) * N_MOST);
    for (unsigned i = 0; i < n; i++)
        s->fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

static void stress_close(struct stress *s, const char *name)
{
    struct report sum = {0};
    for (unsigned i = 0; i < s->n; i++) {
        assert_int_equal(s->reports[i].failed, 0);
        assert_int_equal(s->reports[i].lost, 0);
        sum.in += s->reports[i].in;
        sum.out += s->reports[i].out;
        sum.wakes += s->reports[i].wakes;
        sum.sleeps += s->reports[i].sleeps;
        sum.waited += s->reports[i].waited;
        close(s->fds[i]);
    }
    assert_int_equal(sum.in, sum.out);
    assert_true(sum.in > 100);
    print_message("%s: %lu messages, %lu waited, %lu sleeps, %lu wake-ups\n", name, (unsigned long)sum.in,
                  (unsigned long)sum.waited, (unsigned long)sum.sleeps, (unsigned long)sum.wakes);
    munmap(s->mem, mesh_bytes(s->n, RING));
    munmap(s->reports, sizeof(struct report) * N_MOST);
}

static void run_threads(unsigned n)
{
    struct stress s;
    struct shard *shards[N_MOST];
    pthread_t threads[N_MOST];
    stress_open(&s, n);
    for (unsigned i = 0; i < n; i++) {
        shards[i] = shard_make(&s, i);
        assert_int_equal(pthread_create(&threads[i], NULL, shard_run, shards[i]), 0);
    }
    for (unsigned i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
        free(shards[i]);
    }
    stress_close(&s, "threads");
}

static void two_threads_lose_nothing(void **state)
{
    run_threads(2);
}

static void three_threads_lose_nothing(void **state)
{
    run_threads(3);
}

static void three_processes_lose_nothing(void **state)
{
    struct stress s;
    stress_open(&s, 3);
    for (unsigned i = 0; i < s.n; i++) {
        if (fork() == 0) {
            shard_run(shard_make(&s, i));
            _exit(0);
        }
    }
    for (unsigned i = 0; i < s.n; i++)
        assert_true(wait(NULL) > 0);
    stress_close(&s, "processes");
}

/* ---- the cost of one message of 64 bytes, from mesh_send to the callback, each side on a core of its own */

enum { BENCH_TURN = 64, BENCH_LEN = 64 };

struct bench {
    struct mesh *m;
    struct eventfd_poller p;
    struct counters counters;
    struct loop_hook source;
    int *fds;
    uint64_t n, most, begin_ns, end_ns, cpu_ns;
    bool full;
};

static void bench_message(void *ctx, unsigned from, uint32_t type, const uint8_t *data, size_t len)
{
    struct bench *b = ctx;
    uint64_t copy[BENCH_LEN / 8];
    memcpy(copy, data, sizeof copy);
    __asm__ volatile("" : : "m"(copy) : "memory");
    if (b->n++ == 0)
        b->begin_ns = now_ns();
    if (b->n == b->most) {
        b->end_ns = now_ns();
        loop_stop(b->p.loop);
    }
}

static void bench_room(void *ctx, unsigned to)
{
    ((struct bench *)ctx)->full = false;
}

static void bench_wake(void *ctx, unsigned to)
{
    (void)ring_wake(((struct bench *)ctx)->fds[to]);
}

static const struct mesh_ops bench_ops = {.message = bench_message, .room = bench_room, .wake = bench_wake};

static bool bench_source(struct loop_hook *h)
{
    struct bench *b = CONTAINER_OF(h, struct bench, source);
    uint64_t data[BENCH_LEN / 8] = {b->n};
    struct slice part = {(uint8_t *)data, sizeof data};
    for (unsigned i = 0; i < BENCH_TURN && !b->full && b->n < b->most; i++, b->n++) {
        (void)mesh_send(b->m, 1, 1, &part, 1, NULL);
        b->full = mesh_waiting(b->m, 1) > 0;
    }
    if (b->n == b->most && !b->full)
        loop_stop(b->p.loop);
    return !b->full;
}

static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000 * MS + (uint64_t)ts.tv_nsec;
}

static void bench_side(struct bench *b, unsigned me, void *mem)
{
    cpu_set_t set;
    int err;
    CPU_ZERO(&set);
    CPU_SET(me, &set);
    (void)sched_setaffinity(0, sizeof set, &set);
    eventfd_poller_open(&b->p, b->fds[me]);
    struct mesh_options opt = {.me = me,
                               .n_shards = 2,
                               .mem = mem,
                               .ring_bytes = KIB * KIB,
                               .loop = b->p.loop,
                               .counters = &b->counters,
                               .ops = &bench_ops,
                               .ctx = b,
                               .message_max = KIB};
    b->m = mesh_new(&opt, &err);
    b->source.run = bench_source;
    if (me == 0)
        loop_hook_add(b->p.loop, &b->source);
    mesh_start(b->m);
    b->cpu_ns = cpu_ns();
    loop_turn(b->p.loop, 0); /* the hooks, before anything waits */
    loop_run(b->p.loop);
    b->cpu_ns = cpu_ns() - b->cpu_ns;
    loop_hook_remove(b->p.loop, &b->source);
    mesh_free(b->m);
    loop_free(b->p.loop);
}

static void what_a_message_costs(void **state)
{
    const char *n = getenv("MESH_BENCH_MESSAGES");
    int fds[2] = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)};
    void *mem = shared_memory(mesh_bytes(2, KIB * KIB));
    struct bench *b = shared_memory(sizeof *b);
    *b = (struct bench){.fds = fds, .most = n != NULL ? strtoul(n, NULL, 10) : 100000};
    if (fork() == 0) {
        bench_side(b, 1, mem);
        _exit(0);
    }
    struct bench sender = {.fds = fds, .most = b->most};
    bench_side(&sender, 0, mem);
    assert_true(wait(NULL) > 0);
    assert_int_equal(b->n, b->most);
    double most = (double)b->most;
    print_message("64-byte message between processes: %.1f ns, CPU of sender %.1f and receiver %.1f ns; "
                  "%.1f wake-ups and %.1f sleeps per 1000\n",
                  (double)(b->end_ns - b->begin_ns) / most, (double)sender.cpu_ns / most,
                  (double)b->cpu_ns / most,
                  (double)counter_get(&sender.counters, COUNTER_mesh_wakes) * 1000 / most,
                  (double)b->p.sleeps * 1000 / most);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_processes_lose_nothing),
        cmocka_unit_test(what_a_message_costs),
        cmocka_unit_test(two_threads_lose_nothing),
        cmocka_unit_test(three_threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
