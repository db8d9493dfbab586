// SPDX-License-Identifier: MIT
/* Producers and a consumer at full speed, as threads (under -Db_sanitize=thread: with every access checked)
 * and as processes over a memfd, sleeping whenever there is nothing to do. A wake-up that gets lost shows as
 * a sleep that times out, one that was not needed as more wake-ups than sleeps. RING_STRESS_MS: how long each
 * case runs (200). */
#include "ring/ring_util_test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ring/ring_map.h"

#define SIZE          4096
#define RESERVE       512
#define STRIDE        (ring_bytes(SIZE))
#define PRODUCERS_MAX 3
#define LOST_MS       20000
#define TYPE_END      UINT32_MAX

/* In the shared mapping too, so that processes can report. */
struct tally {
    uint64_t records, sleeps, wakes, refused;
    uint64_t awake;  /* sleeps that were announced and given up */
    uint32_t failed; /* line */
};

struct arena {
    struct bell_shm bell;
    struct tally consumer, producer[PRODUCERS_MAX];
    uint8_t pad[256];
};

struct stress {
    struct ring_map map;
    struct arena *arena;
    uint8_t *rings;
    unsigned n;
    uint64_t ms;
    int consumer_fd, producer_fd[PRODUCERS_MAX];
};

struct producer {
    struct stress *s;
    unsigned index;
    struct ring_writer w;
    struct tally *tally;
    uint64_t random;
};

#define FAIL(tally) ((tally)->failed = (tally)->failed != 0 ? (tally)->failed : __LINE__)

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint32_t random_below(uint64_t *state, uint32_t n)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((*state >> 33) % n);
}

/* Until woken; false: nobody did. */
static bool sleep_on(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    bool woken = poll(&p, 1, LOST_MS) == 1;
    (void)ring_wake_clear(fd);
    return woken;
}

/* ---- producer */

static void publish(struct producer *p)
{
    if (ring_publish(&p->w)) {
        p->tally->wakes++;
        (void)ring_wake(p->s->consumer_fd);
    }
}

/* A record whose bytes follow from its number; waits for room. */
static bool produce_one(struct producer *p, enum ring_class class, uint32_t type, uint32_t len)
{
    int r;
    while ((r = put(&p->w, class, type, len)) == -EAGAIN) {
        p->tally->refused++;
        publish(p);
        if (ring_want_room(&p->w, class, len) && !sleep_on(p->s->producer_fd[p->index]))
            return false;
    }
    p->tally->records += r == 0;
    return r == 0;
}

static bool produce_batch(struct producer *p)
{
    for (uint32_t n = 1 + random_below(&p->random, 12); n > 0; n--) {
        uint32_t len =
            random_below(&p->random, 16) == 0 ? random_below(&p->random, 1500) : random_below(&p->random, 80);
        uint32_t type = (uint32_t)p->tally->records;
        if (!produce_one(p, type % 8 == 0 ? RING_LIFECYCLE : RING_BULK, type, len))
            return false;
        if (random_below(&p->random, 8) == 0)
            ring_show(&p->w);
    }
    publish(p);
    if (random_below(&p->random, 16) == 0)
        sched_yield(); /* let the consumer find nothing, and sleep */
    return true;
}

static void produce(struct producer *p)
{
    uint64_t end = now_ms() + p->s->ms;
    p->random = 1 + p->index;
    p->tally = &p->s->arena->producer[p->index];
    uint8_t *mem = p->s->rings + p->index * STRIDE;
    if (ring_writer_attach(&p->w, mem, STRIDE, p->s->n > 1 ? &p->s->arena->bell : NULL, p->index) < 0) {
        FAIL(p->tally);
        return;
    }
    while (now_ms() < end) {
        for (int i = 0; i < 64; i++) {
            if (!produce_batch(p)) {
                FAIL(p->tally);
                return;
            }
        }
    }
    if (!produce_one(p, RING_LIFECYCLE, TYPE_END, 0))
        FAIL(p->tally);
    publish(p);
}

static void *producer_thread(void *arg)
{
    produce(arg);
    return NULL;
}

/* ---- consumer */

struct consumer {
    struct stress *s;
    struct tally *tally;
    struct ring_reader r[PRODUCERS_MAX];
    uint32_t expected[PRODUCERS_MAX];
    unsigned ended;
    uint64_t look_into; /* rings that may have something */
    uint64_t random;
};

static bool consume_one(struct consumer *c, unsigned i, const struct ring_record *got)
{
    if (got->type == TYPE_END) {
        c->ended++;
        return true;
    }
    c->tally->records++;
    uint32_t n = c->expected[i]++;
    return got->type == n && got->class == (n % 8 == 0 ? RING_LIFECYCLE : RING_BULK) &&
           is_filled(got->data, n, got->len);
}

/* Some records of one ring; forgets the ring when it was empty. */
static bool consume_ring(struct consumer *c, unsigned i)
{
    struct ring_record got;
    int r = 1;
    for (uint32_t n = 1 + random_below(&c->random, 40); n > 0 && (r = ring_read(&c->r[i], &got)) == 1; n--) {
        if (!consume_one(c, i, &got))
            return false;
    }
    if (r == 0)
        c->look_into &= ~(UINT64_C(1) << i);
    if (ring_release(&c->r[i])) {
        c->s->arena->consumer.wakes++;
        (void)ring_wake(c->s->producer_fd[i]);
    }
    return r >= 0;
}

static bool consumer_sleep(struct consumer *c)
{
    bool own = c->s->n == 1;
    if (!(own ? ring_prepare_sleep(&c->r[0]) : bell_prepare_sleep(&c->s->arena->bell))) {
        c->look_into |= own;
        c->tally->awake++;
        return true;
    }
    c->tally->sleeps++;
    bool woken = sleep_on(c->s->consumer_fd);
    bell_cancel_sleep(own ? c->r[0].bell : &c->s->arena->bell);
    c->look_into |= own;
    return woken;
}

static void consume(struct stress *s)
{
    struct consumer c = {.s = s, .tally = &s->arena->consumer, .random = 99};
    for (unsigned i = 0; i < s->n; i++) {
        if (ring_reader_attach(&c.r[i], s->rings + i * STRIDE, STRIDE, s->n == 1) < 0)
            FAIL(c.tally);
    }
    for (uint32_t idle = 0; c.ended < s->n && c.tally->failed == 0;) {
        if (s->n > 1)
            c.look_into |= bell_take(&s->arena->bell);
        for (unsigned i = 0; i < s->n; i++) {
            if ((c.look_into >> i & 1) != 0 && !consume_ring(&c, i))
                FAIL(c.tally);
        }
        idle = c.look_into == 0 ? idle + 1 : idle / 2;
        if (idle < random_below(&c.random, 1000)) { /* run on, sometimes: then both sides are at work */
            c.look_into |= s->n == 1;
            continue;
        }
        idle = 0;
        if (c.look_into == 0 && c.ended < s->n && !consumer_sleep(&c))
            FAIL(c.tally);
    }
}

/* ---- races: both sides begin a round together, one record each, so that they meet in the few instructions
 * that matter, millions of times. Here a wake-up is only a flag, as a system call would take a thousand times
 * as long. */

struct race {
    struct ring_writer w;
    struct ring_reader r;
    uint64_t ms;
    _Atomic uint32_t round; /* that the producer has begun */
    _Atomic uint32_t ready; /* rounds that the consumer is through with */
    _Atomic uint32_t woken;
    _Atomic uint32_t lost;
    _Atomic bool stop;
};

/* Spin until *word is value, give up the core now and then; false: it never came. */
static bool race_wait(struct race *race, _Atomic uint32_t *word, uint32_t value)
{
    uint64_t end = 0;
    for (uint32_t spins = 1; atomic_load(word) != value; spins++) {
        if (atomic_load(&race->stop))
            return false;
        if (spins % 4096 != 0)
            continue;
        sched_yield();
        end = end != 0 ? end : now_ms() + LOST_MS;
        if (now_ms() > end) {
            atomic_fetch_add(&race->lost, 1);
            atomic_store(&race->stop, true);
            return false;
        }
    }
    return true;
}

static void dally(uint64_t *random, uint32_t most)
{
    for (volatile uint32_t n = random_below(random, most); n > 0;)
        n = n - 1;
}

static void *sleepy_consumer(void *arg)
{
    struct race *race = arg;
    struct ring_record got;
    uint64_t random = 5;
    for (uint32_t round = 1; race_wait(race, &race->round, round); round++) {
        dally(&random, 200);
        /* Now and then it runs on and leaves the bit of the bell set. */
        if (random_below(&random, 2) == 0 && ring_prepare_sleep(&race->r)) {
            if (!race_wait(race, &race->woken, round))
                break;
            ring_cancel_sleep(&race->r);
        }
        while (ring_read(&race->r, &got) == 0 && !atomic_load(&race->stop))
            ;
        (void)ring_release(&race->r);
        atomic_store(&race->ready, round);
    }
    return NULL;
}

static void waking_producer(struct race *race)
{
    uint64_t end = now_ms() + race->ms, random = 3;
    uint32_t round = 0;
    while (!atomic_load(&race->stop) && (round % 256 != 0 || now_ms() < end)) {
        atomic_store(&race->round, ++round);
        dally(&random, 200);
        put(&race->w, RING_BULK, round, 8);
        if (ring_publish(&race->w))
            atomic_store(&race->woken, round);
        if (!race_wait(race, &race->ready, round))
            break;
    }
    print_message("%u rounds\n", round);
}

/* The ring is full at the beginning of each round, and read while the producer asks for room. */
static void *releasing_consumer(void *arg)
{
    struct race *race = arg;
    struct ring_record got;
    uint64_t random = 5;
    for (uint32_t round = 1; race_wait(race, &race->round, round); round++) {
        dally(&random, 200);
        while (ring_read(&race->r, &got) == 1)
            ;
        if (ring_release(&race->r))
            atomic_store(&race->woken, round);
        atomic_store(&race->ready, round);
    }
    return NULL;
}

static void asking_producer(struct race *race)
{
    uint32_t round = 0, len = ring_record_max(&race->w);
    uint64_t end = now_ms() + race->ms, random = 3;
    while (!atomic_load(&race->stop) && (round % 256 != 0 || now_ms() < end)) {
        uint8_t *p;
        while (ring_reserve(&race->w, RING_BULK, round, len, &p) == 0)
            ;
        (void)ring_publish(&race->w);
        atomic_store(&race->round, ++round);
        dally(&random, 200);
        if (ring_want_room(&race->w, RING_BULK, len) && !race_wait(race, &race->woken, round))
            break;
        if (!race_wait(race, &race->ready, round))
            break;
    }
    print_message("%u rounds\n", round);
}

static void run_race(void *(*consumer)(void *), void (*producer)(struct race *))
{
    static struct race race;
    struct test_ring t;
    pthread_t thread;
    const char *ms = getenv("RING_STRESS_MS");
    memset(&race, 0, sizeof race);
    race.ms = 3 * (ms != NULL ? strtoul(ms, NULL, 10) : 200);
    test_ring_open(&t, SIZE, 0, 0);
    race.w = t.w;
    race.r = t.r;
    assert_int_equal(pthread_create(&thread, NULL, consumer, &race), 0);
    producer(&race);
    atomic_store(&race.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&race.lost), 0);
    test_ring_close(&t);
}

static void no_wake_up_is_lost_when_sleep_and_record_meet(void **state)
{
    run_race(sleepy_consumer, waking_producer);
}

static void no_room_is_missed_when_wish_and_release_meet(void **state)
{
    run_race(releasing_consumer, asking_producer);
}

/* ---- cases */

static void stress_open(struct stress *s, unsigned n, uint64_t start)
{
    const char *ms = getenv("RING_STRESS_MS");
    *s = (struct stress){.n = n, .ms = ms != NULL ? strtoul(ms, NULL, 10) : 200};
    assert_int_equal(ring_shm_create(NULL, sizeof(struct arena) + n * STRIDE + 64, &s->map), 0);
    s->arena = s->map.mem;
    s->rings = (uint8_t *)s->map.mem + ((sizeof(struct arena) + 63) & ~(size_t)63);
    struct ring_params params = {.size = SIZE, .reserve = RESERVE, .start = start};
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(ring_format(s->rings + i * STRIDE, STRIDE, &params), 0);
        s->producer_fd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    }
    s->consumer_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

static void stress_close(struct stress *s, const char *name)
{
    const struct tally *c = &s->arena->consumer;
    uint64_t records = 0, wakes = 0, refused = 0;
    for (unsigned i = 0; i < s->n; i++) {
        const struct tally *p = &s->arena->producer[i];
        struct ring_report report;
        assert_int_equal(p->failed, 0);
        assert_int_equal(ring_valid(s->rings + i * STRIDE, STRIDE, &report), 0);
        records += p->records - 1; /* without the end */
        wakes += p->wakes;
        refused += p->refused;
        close(s->producer_fd[i]);
    }
    assert_int_equal(c->failed, 0);
    assert_int_equal(c->records, records);
    /* One more for each sleep that was announced and given up, at most. */
    assert_true(wakes <= c->sleeps + c->awake);
    assert_true(c->wakes <= refused);
    print_message("%s: %lu records, %lu sleeps, %lu wake-ups, %lu times full\n", name, (unsigned long)records,
                  (unsigned long)c->sleeps, (unsigned long)wakes, (unsigned long)refused);
    close(s->consumer_fd);
    ring_shm_unmap(&s->map);
}

static void run_threads(unsigned n, uint64_t start)
{
    struct stress s;
    pthread_t threads[PRODUCERS_MAX];
    struct producer producers[PRODUCERS_MAX];
    stress_open(&s, n, start);
    for (unsigned i = 0; i < n; i++) {
        producers[i] = (struct producer){.s = &s, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, producer_thread, &producers[i]), 0);
    }
    consume(&s);
    for (unsigned i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    stress_close(&s, "threads");
}

static void run_processes(unsigned n, uint64_t start)
{
    struct stress s;
    stress_open(&s, n, start);
    for (unsigned i = 0; i < n; i++) {
        if (fork() == 0) {
            struct producer p = {.s = &s, .index = i};
            produce(&p);
            _exit(0);
        }
    }
    consume(&s);
    for (unsigned i = 0; i < n; i++)
        assert_true(wait(NULL) > 0);
    stress_close(&s, "processes");
}

static void two_threads_lose_nothing(void **state)
{
    for (size_t i = 0; i < N_STARTS; i++)
        run_threads(1, starts[i]);
}

static void several_threads_ring_one_bell(void **state)
{
    run_threads(3, UINT64_C(0) - 4096);
}

static void two_processes_lose_nothing(void **state)
{
    for (size_t i = 0; i < N_STARTS; i++)
        run_processes(1, starts[i]);
}

static void several_processes_ring_one_bell(void **state)
{
    run_processes(3, UINT64_C(0x100000000) - 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_wake_up_is_lost_when_sleep_and_record_meet),
        cmocka_unit_test(no_room_is_missed_when_wish_and_release_meet),
        cmocka_unit_test(two_processes_lose_nothing),
        cmocka_unit_test(several_processes_ring_one_bell),
        cmocka_unit_test(two_threads_lose_nothing),
        cmocka_unit_test(several_threads_ring_one_bell),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
