// SPDX-License-Identifier: MIT
/* A process that is killed at any moment, many times over. Beside the estate it keeps the truth in shared
 * memory: what is there for certain, and what it is just about to change, which may be there or not. Its heir
 * must find the one or the other, whole. */
#include "estate/estate.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define CLIENTS    300
#define LINKS      6
#define HEAP_BYTES ((size_t)8 << 20)
#define ROUNDS     400
#define FILL_MAX   90000

/* What a client's record may say. In doubt: both of the two. */
struct client_truth {
    uint32_t there[2];
    uint32_t session[2]; /* number of its content, 0: empty */
    uint32_t worker[2];
    uint32_t doubt; /* [1] may be it too: stored after [1] was filled, cleared after [0] is up to date */
};

/* A link: packets first .. last are there; in doubt also up to last_maybe, or only from first_maybe on. */
struct link_truth {
    uint32_t first, first_maybe, last, last_maybe;
};

static struct truth {
    struct client_truth clients[CLIENTS];
    struct link_truth links[LINKS];
    uint64_t operations;
} * truth;

static void *mem;
static size_t mem_bytes;
static uint64_t rng;

static uint32_t rnd(uint32_t below)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)((rng >> 20) % below);
}

#define STORE(word, v) __atomic_store_n(&(word), (v), __ATOMIC_SEQ_CST)
#define BARRIER()      __atomic_thread_fence(__ATOMIC_SEQ_CST)

/* ---- contents that know themselves */

static uint32_t session_len(uint32_t number)
{
    uint32_t h = number * UINT32_C(2654435761);
    return h % 50 == 0 ? 5000 + h % 20000 : 1 + h / 64 % 400;
}

static void fill(uint8_t *at, size_t len, uint32_t number)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(number * 7 + i * 13 + (i >> 8));
}

static bool is_filled(const uint8_t *at, size_t len, uint32_t number)
{
    for (size_t i = 0; i < len; i++)
        if (at[i] != (uint8_t)(number * 7 + i * 13 + (i >> 8)))
            return false;
    return true;
}

#define PACKET_HEAD 16

static uint32_t packet_len(uint32_t number)
{
    uint32_t h = number * UINT32_C(2246822519);
    return PACKET_HEAD + (h % 97 == 0 ? h / 97 % FILL_MAX : h / 128 % 300);
}

static void put_u32(uint8_t *at, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> (24 - 8 * i));
}

static uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* ---- the process that is killed */

struct own_link { /* as link_queue has it, in small */
    struct estate_chunk *chunks[64];
    uint32_t count, written;
};

static struct estate *estate;
static struct estate_client *records[CLIENTS];
static void *sessions[CLIENTS];
static struct own_link links[LINKS];

static void doubt(struct client_truth *t)
{
    BARRIER();
    STORE(t->doubt, 1);
}

static void certain(struct client_truth *t)
{
    BARRIER();
    t->there[0] = t->there[1];
    t->session[0] = t->session[1];
    t->worker[0] = t->worker[1];
    BARRIER();
    STORE(t->doubt, 0);
}

static void *new_session(uint32_t number)
{
    uint32_t len = session_len(number);
    uint8_t *block = number != 0 ? estate_alloc(estate, sizeof len + len) : NULL;
    if (block == NULL)
        return NULL;
    memcpy(block, &len, sizeof len);
    fill(block + sizeof len, len, number);
    return block;
}

static void client_add(uint32_t i)
{
    struct client_truth *t = &truth->clients[i];
    uint32_t number = rnd(3) == 0 ? 0 : rnd(UINT32_MAX - 1) + 1;
    void *block = new_session(number);
    t->there[1] = 1;
    t->session[1] = block != NULL ? number : 0;
    t->worker[1] = rnd(100) + 1;
    doubt(t);
    struct estate_client like = {
        .id = i + 1, .worker = t->worker[1], .session = estate_session(estate, block)};
    records[i] = estate_client_add(estate, &like);
    if (records[i] == NULL)
        _exit(1);
    sessions[i] = block;
    certain(t);
}

static void client_remove(uint32_t i)
{
    struct client_truth *t = &truth->clients[i];
    t->there[1] = 0;
    doubt(t);
    estate_client_remove(estate, records[i]);
    estate_free(estate, sessions[i]);
    records[i] = NULL;
    certain(t);
}

static void client_session(uint32_t i)
{
    struct client_truth *t = &truth->clients[i];
    uint32_t number = rnd(10) == 0 ? 0 : rnd(UINT32_MAX - 1) + 1;
    void *block = new_session(number);
    t->session[1] = block != NULL ? number : 0;
    doubt(t);
    estate_client_session(estate, records[i], block);
    estate_free(estate, sessions[i]);
    sessions[i] = block;
    certain(t);
}

static void client_bind(uint32_t i)
{
    struct client_truth *t = &truth->clients[i];
    t->worker[1] = rnd(100) + 1;
    doubt(t);
    estate_client_bind(estate, records[i], t->worker[1]);
    certain(t);
}

static void link_put(uint32_t i)
{
    struct link_truth *t = &truth->links[i];
    struct own_link *l = &links[i];
    uint32_t number = t->last + 1, len = packet_len(number);
    struct estate_chunk *c = l->count > 0 ? l->chunks[l->count - 1] : NULL;
    if (c == NULL || estate_chunk_cap(c) - estate_chunk_len(c) < len) {
        size_t cap = rnd(2) == 0 ? 4096 : 65536;
        c = l->count < 64 ? estate_chunk_new(estate, len > cap ? len : cap) : NULL;
        if (c == NULL)
            return;
        l->chunks[l->count++] = c;
    }
    uint8_t *at = estate_chunk_data(c) + estate_chunk_len(c);
    put_u32(at, len);
    put_u32(at + 4, i);
    put_u32(at + 8, number);
    fill(at + PACKET_HEAD, len - PACKET_HEAD, number);
    STORE(t->last_maybe, number);
    estate_chunk_commit(c, len);
    STORE(t->last, number);
}

static void drop_first_chunk(struct own_link *l)
{
    if (l->count == 1 && rnd(2) == 0) {
        estate_chunk_reset(estate, l->chunks[0]);
    } else {
        estate_chunk_free(estate, l->chunks[0]);
        memmove(l->chunks, l->chunks + 1, --l->count * sizeof *l->chunks);
    }
    l->written = 0;
}

/* Some bytes of the first chunk, up to all of it, are written. */
static void link_written(uint32_t i)
{
    struct link_truth *t = &truth->links[i];
    struct own_link *l = &links[i];
    if (l->count == 0)
        return;
    struct estate_chunk *c = l->chunks[0];
    uint32_t len = (uint32_t)estate_chunk_len(c);
    uint32_t to = rnd(2) == 0 ? len : l->written + rnd(len - l->written + 1);
    uint32_t first = t->first;
    for (uint32_t at = 0; at + 4 <= len;) { /* numbers of the packets that end at `to` or before */
        uint32_t packet = get_u32(estate_chunk_data(c) + at);
        if (at + packet > to)
            break;
        uint32_t number = get_u32(estate_chunk_data(c) + at + 8);
        first = number + 1 > first ? number + 1 : first;
        at += packet;
    }
    STORE(t->first_maybe, first);
    estate_chunk_written(c, to);
    STORE(t->first, first);
    l->written = to;
    if (to == len)
        drop_first_chunk(l);
}

static void operate(void)
{
    uint32_t i = rnd(CLIENTS), link = rnd(LINKS);
    switch (rnd(10)) {
    case 0:
    case 1: records[i] == NULL ? client_add(i) : client_remove(i); break;
    case 2:
    case 3:
        if (records[i] != NULL)
            client_session(i);
        break;
    case 4:
        if (records[i] != NULL)
            client_bind(i);
        break;
    case 5: link_written(link); break;
    default: link_put(link); break;
    }
}

/* The whole of what the dead one left goes into a plot of our own, as a shard does it. The truth stays as it
 * is: that is the point. */
static void take_over(struct legacy *l)
{
    struct slice p;
    struct estate_client got;
    while (legacy_packet(l, &p)) {
        uint32_t i = get_u32(p.data + 4), number = get_u32(p.data + 8);
        struct own_link *own = &links[i];
        if (own->count == 64)
            _exit(1);
        struct estate_chunk *c = estate_chunk_new(estate, p.len);
        if (c == NULL)
            _exit(1);
        memcpy(estate_chunk_data(c), p.data, p.len);
        estate_chunk_commit(c, p.len);
        own->chunks[own->count++] = c;
        legacy_packet_done(l);
        STORE(truth->links[i].last, number);
    }
    while (legacy_client(l, &got, &p)) {
        uint8_t *block = NULL;
        uint32_t len = (uint32_t)p.len;
        if (len > 0) {
            block = estate_alloc(estate, sizeof len + len);
            if (block == NULL)
                _exit(1);
            memcpy(block, &len, sizeof len);
            memcpy(block + sizeof len, p.data, len);
        }
        got.session = estate_session(estate, block);
        uint32_t i = got.id - 1;
        records[i] = estate_client_add(estate, &got);
        sessions[i] = block;
        legacy_client_done(l);
    }
    legacy_free(l);
}

static _Noreturn void live(uint64_t seed)
{
    int err;
    rng = seed;
    estate = estate_open(mem, mem_bytes, CLIENTS, HEAP_BYTES, &err);
    if (estate == NULL)
        _exit(1);
    for (;; truth->operations++)
        operate();
}

/* ---- the heir */

static bool may_be(const struct client_truth *t, const uint32_t values[2], uint32_t v)
{
    return v == values[0] || (t->doubt && v == values[1]);
}

static bool session_is(struct slice s, uint32_t number)
{
    return number == 0 ? s.len == 0 : s.len == session_len(number) && is_filled(s.data, s.len, number);
}

static void check_clients(struct legacy *l)
{
    struct estate_client got;
    struct slice s;
    bool there[CLIENTS] = {0};
    while (legacy_client(l, &got, &s)) {
        assert_in_range(got.id, 1, CLIENTS);
        struct client_truth *t = &truth->clients[got.id - 1];
        assert_false(there[got.id - 1]);
        there[got.id - 1] = true;
        assert_true(session_is(s, t->session[0]) || (t->doubt && session_is(s, t->session[1])));
        assert_true(may_be(t, t->worker, got.worker));
    }
    for (uint32_t i = 0; i < CLIENTS; i++)
        assert_true(may_be(&truth->clients[i], truth->clients[i].there, there[i]));
}

static void check_packets(struct legacy *l)
{
    struct slice p;
    uint32_t next[LINKS] = {0};
    while (legacy_packet(l, &p)) {
        assert_true(p.len >= PACKET_HEAD);
        uint32_t i = get_u32(p.data + 4), number = get_u32(p.data + 8);
        assert_in_range(i, 0, LINKS - 1);
        struct link_truth *t = &truth->links[i];
        assert_int_equal(p.len, packet_len(number));
        assert_true(is_filled(p.data + PACKET_HEAD, p.len - PACKET_HEAD, number));
        if (next[i] == 0)
            assert_true(number == t->first || number == t->first_maybe);
        else
            assert_int_equal(number, next[i]); /* one after the other, none twice, none lost */
        next[i] = number + 1;
    }
    for (int i = 0; i < LINKS; i++) {
        struct link_truth *t = &truth->links[i];
        if (next[i] == 0)
            assert_true(t->first > t->last || t->first_maybe > t->last || t->first_maybe > t->last_maybe);
        else
            assert_true(next[i] == t->last + 1 || next[i] == t->last_maybe + 1);
    }
}

static void sleep_ns(long ns)
{
    struct timespec t = {.tv_nsec = ns};
    nanosleep(&t, NULL);
}

static void kill_at_random(uint64_t seed)
{
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        live(seed);
    while (__atomic_load_n(&truth->operations, __ATOMIC_RELAXED) == 0 && waitpid(pid, &status, WNOHANG) == 0)
        sleep_ns(20000);
    sleep_ns(rnd(5) == 0 ? rnd(20000000) : rnd(3000000));
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void truth_reset(void)
{
    memset(truth, 0, sizeof *truth);
    for (int i = 0; i < LINKS; i++)
        truth->links[i] = (struct link_truth){.first = 1, .first_maybe = 1};
}

static void an_heir_finds_the_truth(void **state)
{
    uint64_t operations = 0, in_doubt = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        int err;
        truth_reset();
        rng = round * UINT64_C(0x9E3779B97F4A7C15) + 1;
        kill_at_random(rng + round);
        operations += truth->operations;
        for (int i = 0; i < CLIENTS; i++)
            in_doubt += truth->clients[i].doubt;
        estate = estate_open(mem, mem_bytes, CLIENTS, HEAP_BYTES, &err);
        assert_non_null(estate);
        struct legacy *l = estate_inherit(mem, mem_bytes);
        assert_non_null(l);
        check_packets(l);
        check_clients(l);
        assert_int_equal(legacy_damaged(l), 0);
        legacy_free(l);
        assert_null(estate_inherit(mem, mem_bytes));
        estate_close(estate);
    }
    print_message("  %d deaths, %llu operations, %llu in the middle of a client's change\n", ROUNDS,
                  (unsigned long long)operations, (unsigned long long)in_doubt);
    assert_true(operations > ROUNDS * 100 && in_doubt > 0);
}

/* ---- killed while it takes over */

static _Noreturn void take_over_and_die(void)
{
    int err;
    struct legacy *l;
    estate = estate_open(mem, mem_bytes, CLIENTS, HEAP_BYTES, &err);
    if (estate == NULL)
        _exit(err == -EBUSY ? 2 : 1);
    while ((l = estate_inherit(mem, mem_bytes)) != NULL)
        take_over(l);
    STORE(truth->operations, 1);
    for (;;)
        pause();
}

/* Everything is there once, or twice where it was being handed on; in all plots together. */
static void count_all(unsigned n_packets, unsigned n_clients)
{
    unsigned packets[2000] = {0}, clients[CLIENTS] = {0}, twice = 0;
    struct legacy *l;
    struct slice p;
    struct estate_client got;
    while ((l = estate_inherit(mem, mem_bytes)) != NULL) {
        while (legacy_packet(l, &p)) {
            uint32_t number = get_u32(p.data + 8);
            assert_true(p.len == packet_len(number) && number < n_packets);
            assert_true(is_filled(p.data + PACKET_HEAD, p.len - PACKET_HEAD, number));
            packets[number]++;
        }
        while (legacy_client(l, &got, &p)) {
            assert_true(session_is(p, got.id));
            clients[got.id - 1]++;
        }
        legacy_free(l);
    }
    for (unsigned i = 0; i < n_packets; i++) {
        assert_in_range(packets[i], 1, 2);
        twice += packets[i] - 1;
    }
    for (unsigned i = 0; i < n_clients; i++) {
        assert_in_range(clients[i], 1, 2);
        twice += clients[i] - 1;
    }
    assert_in_range(twice, 0, 2); /* of each of two deaths at most one thing */
}

static void prepare(unsigned n_packets)
{
    int err;
    memset(links, 0, sizeof links);
    memset(records, 0, sizeof records);
    estate = estate_open(mem, mem_bytes, CLIENTS, HEAP_BYTES, &err);
    assert_non_null(estate);
    struct estate_chunk *c = NULL;
    for (uint32_t number = 0; number < n_packets; number++) {
        uint32_t len = packet_len(number);
        if (c == NULL || estate_chunk_cap(c) - estate_chunk_len(c) < len)
            c = estate_chunk_new(estate, len > 4096 ? len : 4096);
        uint8_t *at = estate_chunk_data(c) + estate_chunk_len(c);
        put_u32(at, len);
        put_u32(at + 4, number % LINKS);
        put_u32(at + 8, number);
        fill(at + PACKET_HEAD, len - PACKET_HEAD, number);
        estate_chunk_commit(c, len);
    }
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct estate_client like = {.id = i + 1, .session = estate_session(estate, new_session(i + 1))};
        assert_non_null(estate_client_add(estate, &like));
    }
    estate_abandon(estate);
}

static void an_heir_that_is_killed_loses_nothing(void **state)
{
    enum { PACKETS = 60 * LINKS, TIMES = 100 };
    int err, status;
    for (unsigned round = 0; round < TIMES; round++) {
        truth_reset();
        rng = round + 12345;
        prepare(PACKETS);
        for (int heir = 0; heir < 2; heir++) {
            pid_t pid = fork();
            if (pid == 0)
                take_over_and_die();
            sleep_ns(rnd(1200000));
            kill(pid, SIGKILL);
            assert_int_equal(waitpid(pid, &status, 0), pid);
            assert_true(WIFSIGNALED(status));
        }
        estate = estate_open(mem, mem_bytes, CLIENTS, HEAP_BYTES, &err);
        assert_non_null(estate);
        count_all(PACKETS, CLIENTS);
        estate_close(estate);
    }
}

static int map_memory(void **state)
{
    mem_bytes = estate_bytes(CLIENTS, HEAP_BYTES);
    mem = mmap(NULL, mem_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    truth = mmap(NULL, sizeof *truth, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return mem != MAP_FAILED && truth != MAP_FAILED ? 0 : -1;
}

static int unmap_memory(void **state)
{
    munmap(truth, sizeof *truth);
    return munmap(mem, mem_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_heir_finds_the_truth, map_memory, unmap_memory),
        cmocka_unit_test_setup_teardown(an_heir_that_is_killed_loses_nothing, map_memory, unmap_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
