// SPDX-License-Identifier: MIT
/* tgg-bench-ring: records of 64 bytes from one core to another, through
 *
 *   ring         src/ring: written in place, published, copied out, released
 *   mutex        an array of such records and two positions under a pthread mutex
 *   ck_copy      ck_ring (Concurrency Kit) with entries of 64 bytes, copied in and out by it
 *   ck_pointer   ck_ring with pointers to entries of a pool: written into the pool, copied out of it
 *
 * each once a record at a time (publish, release, lock: for every record) and once in batches (ring, mutex:
 * one for up to --batch records; ck_ring has no batches). ring_show lies between: every record is visible at
 * once, as with ck_ring, but whether the consumer sleeps, which ck_ring never asks, is looked at once a
 * batch.
 *
 * What is the same for all: the cores, room for SLOTS records, 64 bytes written by the producer and copied
 * out by the consumer, who checks the number in each; waiting: spin, and give up the core after SPINS turns
 * (so that a machine with other work to do does not stop everything for a time slice). ck_ring's pool has no
 * list of free entries: an entry's turn comes again when the ring has gone round, which is cheaper than any
 * list.
 *
 * All run in turns, --rounds times; the figures are medians. One line of JSON. */
#include "common.h"

#include <ck_ring.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ring/ring.h"
#include "ring/ring_map.h"

#define PAYLOAD    64
#define SLOTS      4096 /* records that each has room for */
#define SPINS      2000
#define ROUNDS_MAX 101
#define BATCH_MAX  1024

struct entry {
    uint64_t number;
    uint8_t rest[PAYLOAD - sizeof(uint64_t)];
};
static_assert(sizeof(struct entry) == PAYLOAD, "one record");

CK_RING_PROTOTYPE(entry, entry)

/* One run: each side is called until it has moved `records`. */
struct run {
    uint64_t records, batch;
    void (*produce)(struct run *);
    void (*consume)(struct run *);
    int cpu[2];
    pthread_barrier_t start;
    uint64_t begin_ns, end_ns;
};

static void wait_a_bit(unsigned *spins)
{
    if (++*spins < SPINS) {
        __builtin_ia32_pause();
        return;
    }
    *spins = 0;
    sched_yield();
}

/* What an application would do with a record: make it, and take it out. */
static inline void entry_write(void *to, uint64_t number)
{
    struct entry e = {.number = number};
    memset(e.rest, (int)number, sizeof e.rest);
    memcpy(to, &e, sizeof e);
}

static inline void entry_read(const void *from, uint64_t number)
{
    struct entry e;
    memcpy(&e, from, sizeof e);
    __asm__ volatile("" : : "m"(e) : "memory"); /* all of it is wanted */
    if (e.number != number)
        die("record %llu came in the place of %llu", (unsigned long long)e.number,
            (unsigned long long)number);
}

/* ---- ring */

static struct ring_map map;
static struct ring_writer writer;
static struct ring_reader reader;

static void ring_open(void)
{
    struct ring_params params = {.size = SLOTS * UINT64_C(128)};
    /* A record takes 72 bytes; so bulk may use as much as SLOTS of them take. */
    params.reserve = params.size - SLOTS * UINT64_C(72);
    if (ring_shm_create(NULL, ring_bytes(params.size), &map) < 0 ||
        ring_format(map.mem, map.bytes, &params) < 0)
        die("no memory for the ring");
    if (ring_writer_attach(&writer, map.mem, map.bytes, NULL, 0) < 0 ||
        ring_reader_attach(&reader, map.mem, map.bytes, true) < 0)
        die("the ring cannot be attached");
}

static void ring_produce(struct run *run)
{
    uint8_t *p;
    unsigned spins = 0;
    for (uint64_t n = 0; n < run->records;) {
        uint64_t end = n + run->batch < run->records ? n + run->batch : run->records;
        for (; n < end && ring_reserve(&writer, RING_BULK, 1, PAYLOAD, &p) == 0; n++)
            entry_write(p, n);
        if (writer.next != writer.tail)
            (void)ring_publish(&writer);
        else
            wait_a_bit(&spins);
    }
}

static void ring_show_produce(struct run *run)
{
    uint8_t *p;
    unsigned spins = 0;
    for (uint64_t n = 0; n < run->records;) {
        if (ring_reserve(&writer, RING_BULK, 1, PAYLOAD, &p) < 0) {
            wait_a_bit(&spins);
            continue;
        }
        entry_write(p, n++);
        ring_show(&writer);
        if (n % run->batch == 0)
            (void)ring_publish(&writer);
    }
    (void)ring_publish(&writer);
}

static void ring_consume(struct run *run)
{
    struct ring_record r;
    unsigned spins = 0;
    for (uint64_t n = 0; n < run->records;) {
        uint64_t end = n + run->batch < run->records ? n + run->batch : run->records, begin = n;
        for (; n < end && ring_read(&reader, &r) == 1; n++)
            entry_read(r.data, n);
        (void)ring_release(&reader);
        if (n == begin)
            wait_a_bit(&spins);
    }
}

/* ---- mutex */

static struct {
    pthread_mutex_t mutex;
    _Alignas(128) uint64_t head, tail;
    _Alignas(128) struct entry entries[SLOTS];
} locked = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void mutex_produce(struct run *run)
{
    unsigned spins = 0;
    for (uint64_t n = 0; n < run->records;) {
        uint64_t end = n + run->batch < run->records ? n + run->batch : run->records, begin = n;
        pthread_mutex_lock(&locked.mutex);
        for (; n < end && locked.tail - locked.head < SLOTS; n++)
            entry_write(&locked.entries[locked.tail++ % SLOTS], n);
        pthread_mutex_unlock(&locked.mutex);
        if (n == begin)
            wait_a_bit(&spins);
    }
}

static void mutex_consume(struct run *run)
{
    unsigned spins = 0;
    for (uint64_t n = 0; n < run->records;) {
        uint64_t end = n + run->batch < run->records ? n + run->batch : run->records, begin = n;
        pthread_mutex_lock(&locked.mutex);
        for (; n < end && locked.tail != locked.head; n++)
            entry_read(&locked.entries[locked.head++ % SLOTS], n);
        pthread_mutex_unlock(&locked.mutex);
        if (n == begin)
            wait_a_bit(&spins);
    }
}

/* ---- ck_ring */

static _Alignas(128) ck_ring_t ck;
static _Alignas(128) struct entry ck_entries[SLOTS];
static _Alignas(128) ck_ring_buffer_t ck_pointers[SLOTS];
static _Alignas(128) struct entry pool[2 * SLOTS];

static void ck_copy_produce(struct run *run)
{
    unsigned spins = 0;
    struct entry e;
    for (uint64_t n = 0; n < run->records; n++) {
        entry_write(&e, n);
        while (!ck_ring_enqueue_spsc_entry(&ck, ck_entries, &e))
            wait_a_bit(&spins);
    }
}

static void ck_copy_consume(struct run *run)
{
    unsigned spins = 0;
    struct entry e;
    for (uint64_t n = 0; n < run->records; n++) {
        while (!ck_ring_dequeue_spsc_entry(&ck, ck_entries, &e))
            wait_a_bit(&spins);
        entry_read(&e, n);
    }
}

static void ck_pointer_produce(struct run *run)
{
    unsigned spins = 0;
    for (uint64_t n = 0; n < run->records; n++) {
        /* Free: its pointer was taken out SLOTS or more records ago. */
        struct entry *e = &pool[n % (2 * SLOTS)];
        entry_write(e, n);
        while (!ck_ring_enqueue_spsc(&ck, ck_pointers, e))
            wait_a_bit(&spins);
    }
}

static void ck_pointer_consume(struct run *run)
{
    unsigned spins = 0;
    void *e;
    for (uint64_t n = 0; n < run->records; n++) {
        while (!ck_ring_dequeue_spsc(&ck, ck_pointers, &e))
            wait_a_bit(&spins);
        entry_read(e, n);
    }
}

/* ---- runs */

static const struct contender {
    const char *name;
    void (*produce)(struct run *);
    void (*consume)(struct run *);
    bool batches;
} contenders[] = {
    {"ring", ring_produce, ring_consume, false},
    {"mutex", mutex_produce, mutex_consume, false},
    {"ck_copy", ck_copy_produce, ck_copy_consume, false},
    {"ck_pointer", ck_pointer_produce, ck_pointer_consume, false},
    {"ring_show", ring_show_produce, ring_consume, true},
    {"ring_batch", ring_produce, ring_consume, true},
    {"mutex_batch", mutex_produce, mutex_consume, true},
};
#define N_CONTENDERS (sizeof contenders / sizeof *contenders)

static void pin(int cpu)
{
    cpu_set_t set;
    if (cpu < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0)
        die("cannot run on CPU %d", cpu);
}

static void *consumer_thread(void *arg)
{
    struct run *run = arg;
    pin(run->cpu[1]);
    pthread_barrier_wait(&run->start);
    run->consume(run);
    run->end_ns = now_ns();
    return NULL;
}

/* ns per record, from when both run until the last one is out. */
static double run_once(const struct contender *c, uint64_t records, uint64_t batch, const int cpu[2])
{
    pthread_t thread;
    struct run run = {.records = records,
                      .batch = c->batches ? batch : 1,
                      .produce = c->produce,
                      .consume = c->consume,
                      .cpu = {cpu[0], cpu[1]}};
    pthread_barrier_init(&run.start, NULL, 2);
    ck_ring_init(&ck, SLOTS);
    if (pthread_create(&thread, NULL, consumer_thread, &run) != 0)
        die("no thread");
    pthread_barrier_wait(&run.start);
    run.begin_ns = now_ns();
    run.produce(&run);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&run.start);
    return (double)(run.end_ns - run.begin_ns) / (double)records;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_result(const char *name, double *ns, unsigned rounds)
{
    qsort(ns, rounds, sizeof *ns, compare_doubles);
    printf(",\"%s\":{\"ns\":%.3f,\"ns_min\":%.3f,\"ns_max\":%.3f,\"records_per_s\":%.0f}", name,
           ns[rounds / 2], ns[0], ns[rounds - 1], 1e9 / ns[rounds / 2]);
}

static void print_usage(void)
{
    printf("Usage: tgg-bench-ring [--records N] [--batch N] [--rounds N] [--cpus A,B]\n"
           "64-byte records between two threads: src/ring, ck_ring, a ring under a mutex (bench/README.md).\n"
           "  --records N   per run (1000000)\n"
           "  --batch N     records that are published, released or moved under one lock at once (32)\n"
           "  --rounds N    runs of each, in turns, after one that is thrown away (7, at least 5)\n"
           "  --cpus A,B    producer and consumer (not pinned)\n");
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"records", required_argument, NULL, 'r'}, {"batch", required_argument, NULL, 'b'},
        {"rounds", required_argument, NULL, 'n'},  {"cpus", required_argument, NULL, 'c'},
        {"help", no_argument, NULL, 'h'},          {0}};
    static double ns[N_CONTENDERS][ROUNDS_MAX + 1];
    uint64_t records = 1000000, batch = 32, rounds = 7;
    int cpu[2] = {-1, -1};

    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case 'r': records = parse_uint("--records", optarg, 1, UINT64_C(1) << 40); break;
        case 'b': batch = parse_uint("--batch", optarg, 1, BATCH_MAX); break;
        case 'n': rounds = parse_uint("--rounds", optarg, 5, ROUNDS_MAX); break;
        case 'c':
            if (sscanf(optarg, "%d,%d", &cpu[0], &cpu[1]) != 2)
                die("--cpus %s: two numbers", optarg);
            break;
        case 'h': print_usage(); return 0;
        default: print_usage(); return 2;
        }
    }
    ring_open();
    pin(cpu[0]);
    for (uint64_t round = 0; round <= rounds; round++) { /* the first one is thrown away */
        for (size_t i = 0; i < N_CONTENDERS; i++)
            ns[i][round > 0 ? round - 1 : ROUNDS_MAX] = run_once(&contenders[i], records, batch, cpu);
    }
    printf("{\"event\":\"result\",\"records\":%llu,\"batch\":%llu,\"rounds\":%llu",
           (unsigned long long)records, (unsigned long long)batch, (unsigned long long)rounds);
    for (size_t i = 0; i < N_CONTENDERS; i++)
        print_result(contenders[i].name, ns[i], (unsigned)rounds);
    printf("}\n");
    return 0;
}
