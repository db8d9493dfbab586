// SPDX-License-Identifier: MIT
#include "estate/estate.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "estate/estate_priv.h"
#include "estate/legacy_priv.h"

#define CLIENTS    1000
#define HEAP_BYTES ((size_t)4 << 20)

static void *mem;
static size_t mem_bytes;

static int map_memory(void **state)
{
    mem_bytes = estate_bytes(CLIENTS, HEAP_BYTES);
    mem = mmap(NULL, mem_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return mem != MAP_FAILED ? 0 : -1;
}

static int unmap_memory(void **state)
{
    return munmap(mem, mem_bytes);
}

static struct estate *open_shared(void)
{
    int err = 0;
    struct estate *e = estate_open(mem, mem_bytes, CLIENTS, HEAP_BYTES, &err);
    assert_int_equal(err, 0);
    assert_non_null(e);
    return e;
}

static struct estate_client *add(struct estate *e, uint32_t id)
{
    struct estate_client like = {.id = id,
                                 .worker = id + 1,
                                 .port = (uint16_t)(id + 3),
                                 .gateway_port = (uint16_t)(id + 4),
                                 .ip = id + 5};
    return estate_client_add(e, &like);
}

static void *session(struct estate *e, const void *data, uint32_t len)
{
    uint8_t *block = estate_alloc(e, sizeof len + len);
    assert_non_null(block);
    memcpy(block, &len, sizeof len);
    memcpy(block + sizeof len, data, len);
    return block;
}

static void put(struct estate_chunk *c, uint32_t len, uint8_t byte)
{
    uint8_t *at = estate_chunk_data(c) + estate_chunk_len(c);
    memset(at, byte, len);
    at[0] = (uint8_t)(len >> 24);
    at[1] = (uint8_t)(len >> 16);
    at[2] = (uint8_t)(len >> 8);
    at[3] = (uint8_t)len;
    estate_chunk_commit(c, len);
}

static void assert_packet(struct legacy *l, uint32_t len, uint8_t byte)
{
    struct slice p;
    assert_true(legacy_packet(l, &p));
    assert_int_equal(p.len, len);
    assert_int_equal(p.data[len - 1], byte);
}

static void assert_no_packet(struct legacy *l)
{
    struct slice p;
    assert_false(legacy_packet(l, &p));
    assert_false(legacy_packet(l, &p));
}

/* The process is killed, its successor is there. */
static struct legacy *killed(struct estate **e)
{
    estate_abandon(*e);
    *e = open_shared();
    return estate_inherit(mem, mem_bytes);
}

/* ---- */

static void an_orderly_end_leaves_nothing(void **state)
{
    struct estate *e = open_shared();
    void *block = session(e, "abc", 3);
    struct estate_client *c = add(e, 7);
    struct estate_chunk *chunk = estate_chunk_new(e, 100);
    estate_client_session(e, c, block);
    assert_int_equal(estate_clients(e), 1);
    assert_int_equal(estate_chunks(e), 1);
    assert_int_equal(estate_heap_used(e), estate_block_bytes(e, block) + 112);
    estate_client_remove(e, c);
    estate_chunk_free(e, chunk);
    estate_free(e, block);
    estate_close(e);
    assert_null(estate_inherit(mem, mem_bytes));
    e = open_shared();
    assert_null(estate_inherit(mem, mem_bytes));
    estate_close(e);
    estate_close(NULL);
}

static void in_private_memory_it_works_alike(void **state)
{
    int err;
    struct estate *e = estate_open(NULL, 0, 2, 10000, &err);
    assert_non_null(e);
    void *block = estate_alloc(e, 5000);
    struct estate_client *a = add(e, 1), *b = add(e, 2);
    assert_true(block != NULL && a != NULL && b != NULL);
    assert_null(add(e, 3));
    assert_null(estate_alloc(e, 10000));
    assert_null(estate_chunk_new(e, 10000));
    estate_client_remove(e, a);
    assert_ptr_equal(add(e, 3), a);
    estate_client_remove(e, a);
    estate_client_remove(e, b);
    estate_free(e, block);
    assert_true(estate_heap_idle(e) > 0);
    estate_trim(e);
    assert_int_equal(estate_heap_idle(e), 0);
    estate_close(e);
}

static void clients_are_found_with_their_last_session(void **state)
{
    struct estate *e = open_shared();
    struct estate_client *c[5], got;
    struct slice s;
    for (uint32_t i = 0; i < 5; i++)
        c[i] = add(e, 100 + i);
    estate_client_remove(e, c[1]);
    void *old = session(e, "old", 3);
    estate_client_session(e, c[2], old);
    estate_client_session(e, c[2], session(e, "new one", 7));
    estate_free(e, old);
    estate_client_bind(e, c[3], 55);
    struct estate_client like = {.id = 9, .session = estate_session(e, session(e, "at once", 7))};
    estate_client_add(e, &like); /* takes the place of 101 */
    void *gone = session(e, "x", 1);
    estate_client_session(e, c[4], gone);
    estate_client_session(e, c[4], NULL);
    estate_free(e, gone);

    struct legacy *l = killed(&e);
    assert_int_equal(legacy_clients_left(l), 5);
    assert_true(legacy_client(l, &got, &s));
    assert_true(got.id == 100 && got.worker == 101 && got.port == 103 && got.gateway_port == 104 &&
                got.ip == 105 && s.len == 0);
    assert_true(legacy_client(l, &got, &s));
    assert_true(got.id == 9 && slice_eq_str(s, "at once"));
    assert_true(legacy_client(l, &got, &s));
    assert_true(got.id == 102 && slice_eq_str(s, "new one"));
    assert_true(legacy_client(l, &got, &s));
    assert_true(got.id == 103 && got.worker == 55);
    legacy_client_done(l);
    assert_true(legacy_client(l, &got, &s));
    assert_true(got.id == 104 && s.len == 0);
    assert_false(legacy_client(l, &got, &s));
    assert_int_equal(legacy_clients_left(l), 4);
    assert_int_equal(legacy_damaged(l), 0);
    legacy_free(l);
    assert_null(estate_inherit(mem, mem_bytes));
    estate_close(e);
}

static void packets_come_in_the_order_of_their_chunks(void **state)
{
    struct estate *e = open_shared();
    struct estate_chunk *a = estate_chunk_new(e, 1000), *b = estate_chunk_new(e, 70000),
                        *c = estate_chunk_new(e, 1000);
    put(c, 40, 5);
    put(b, 30000, 3);
    put(b, 40000, 4);
    put(a, 40, 1);
    put(a, 40, 2);
    estate_chunk_free(e, estate_chunk_new(e, 10));
    struct estate_chunk *d = estate_chunk_new(e, 10); /* its record lies before others */
    put(d, 10, 6);
    estate_chunk_reset(e, c); /* and this one goes behind it */
    put(c, 44, 7);
    memset(estate_chunk_data(c) + 44, 0xee, 100); /* never committed */

    struct legacy *l = killed(&e);
    assert_packet(l, 40, 1);
    assert_packet(l, 40, 2);
    assert_packet(l, 30000, 3);
    assert_packet(l, 40000, 4);
    assert_packet(l, 10, 6);
    assert_packet(l, 44, 7);
    assert_no_packet(l);
    legacy_free(l);
    estate_close(e);
}

/* Whatever was written of it: from the packet on whose last byte was not. */
static void a_packet_counts_until_its_last_byte_is_written(void **state)
{
    enum { N = 5, LEN = 20 };
    for (size_t written = 0; written <= N * LEN; written++) {
        struct estate *e = open_shared();
        struct estate_chunk *c = estate_chunk_new(e, 4096);
        for (uint8_t i = 1; i <= N; i++)
            put(c, LEN, i);
        estate_chunk_written(c, written);
        struct legacy *l = killed(&e);
        for (size_t i = written / LEN + 1; i <= N; i++)
            assert_packet(l, LEN, (uint8_t)i);
        assert_no_packet(l);
        legacy_free(l);
        estate_close(e);
    }
}

/* The heir is killed too, half-way: its own heir finds the rest, and what the first had added. */
static void what_was_done_is_not_seen_by_the_next_successor(void **state)
{
    struct estate *e = open_shared();
    struct estate_chunk *c = estate_chunk_new(e, 4096);
    struct estate_client got;
    struct slice s;
    for (uint8_t i = 1; i <= 4; i++)
        put(c, 20, i);
    for (uint32_t id = 1; id <= 3; id++)
        add(e, id);
    struct legacy *l = killed(&e);
    for (uint8_t i = 1; i <= 2; i++) {
        assert_packet(l, 20, i);
        legacy_packet_done(l);
    }
    assert_packet(l, 20, 3);
    assert_true(legacy_client(l, &got, &s));
    legacy_client_done(l);
    add(e, 77);
    legacy_keep(l);

    l = killed(&e);
    assert_packet(l, 20, 3);
    assert_packet(l, 20, 4);
    assert_no_packet(l);
    assert_int_equal(legacy_clients_left(l), 2);
    assert_true(legacy_client(l, &got, &s));
    assert_int_equal(got.id, 2);
    legacy_free(l);
    l = estate_inherit(mem, mem_bytes);
    assert_int_equal(legacy_clients_left(l), 1);
    assert_true(legacy_client(l, &got, &s));
    assert_int_equal(got.id, 77);
    legacy_free(l);
    estate_close(e);
}

/* Who is passed over comes again after a rewind, who is done does not, in any order. */
static void clients_that_are_not_done_come_again(void **state)
{
    enum { N = 20 };
    struct estate *e = open_shared();
    struct estate_client got;
    struct slice s;
    bool done[N] = {0};
    for (uint32_t i = 0; i < N; i++)
        add(e, i + 1);
    struct legacy *l = killed(&e);
    for (unsigned pass = 0, left = N; left > 0; pass++, legacy_rewind(l)) {
        unsigned seen = 0, before = left;
        for (; legacy_client(l, &got, &s); seen++) {
            assert_false(done[got.id - 1]);
            if ((got.id * 7 + pass) % 3 == 0) {
                legacy_client_done(l);
                done[got.id - 1] = true;
                left--;
            }
        }
        assert_int_equal(seen, before);
        assert_int_equal(legacy_clients_left(l), left);
    }
    assert_false(legacy_client(l, &got, &s));
    legacy_free(l);
    estate_close(e);
}

static void several_legacies_can_be_held_at_once(void **state)
{
    struct estate *e;
    struct estate_client got;
    struct slice s;
    struct legacy *l[3], *last = NULL;
    for (uint32_t i = 0; i < 3; i++) {
        e = open_shared();
        add(e, i + 1);
        estate_abandon(e);
    }
    e = open_shared();
    for (uint32_t i = 0; i < 3; i++) {
        assert_non_null(last = l[i] = estate_inherit_next(mem, mem_bytes, last));
        assert_true(legacy_client(l[i], &got, &s));
        assert_int_equal(got.id, i + 1);
    }
    assert_null(estate_inherit_next(mem, mem_bytes, last)); /* not the one that lives */
    legacy_free(l[0]);
    legacy_keep(l[1]);
    legacy_free(l[2]);
    legacy_free(NULL);
    legacy_keep(NULL);
    l[1] = killed(&e);
    assert_true(legacy_client(l[1], &got, &s));
    assert_int_equal(got.id, 2);
    legacy_free(l[1]);
    assert_non_null(l[0] = estate_inherit(mem, mem_bytes)); /* the one killed just now, empty */
    assert_int_equal(legacy_clients_left(l[0]), 0);
    legacy_free(l[0]);
    assert_null(estate_inherit(mem, mem_bytes));
    estate_close(e);
}

static void legacies_come_oldest_first_and_block_the_fifth(void **state)
{
    struct estate *e = NULL;
    struct estate_client got;
    struct slice s;
    int err;
    for (uint32_t round = 0; round < 10; round++) { /* their numbers do not follow their places */
        for (uint32_t i = 0; i < ESTATE_PLOTS; i++) {
            e = open_shared();
            add(e, round * 10 + i + 1);
            estate_abandon(e);
        }
        assert_null(estate_open(mem, mem_bytes, CLIENTS, HEAP_BYTES, &err));
        assert_int_equal(err, -EBUSY);
        for (uint32_t i = 0; i < ESTATE_PLOTS; i++) {
            struct legacy *l = estate_inherit(mem, mem_bytes);
            assert_true(legacy_client(l, &got, &s));
            assert_int_equal(got.id, round * 10 + i + 1);
            assert_int_equal(legacy_clients_left(l), 1);
            legacy_free(l);
            if (i == round % ESTATE_PLOTS) { /* a free plot in the middle of it */
                e = open_shared();
                estate_close(e);
            }
        }
    }
}

/* A plot that was used is not zeroed where the kernel does not take it back; nobody finds what was there. */
static void a_plot_is_empty_when_it_is_taken_again(void **state)
{
    struct estate *e = open_shared();
    assert_int_equal(e->plot - ((struct estate_shm *)mem)->plots, 0);
    memset(e->clients, 0x55, CLIENTS * sizeof *e->clients);
    memset(e->chunks, 0x55, e->shape.max_chunks * sizeof *e->chunks);
    struct estate_client *c = add(e, 5);
    struct estate_chunk *chunk = estate_chunk_new(e, 100);
    put(chunk, 30, 1);
    assert_non_null(c);
    struct legacy *l = killed(&e);
    assert_int_equal(legacy_clients_left(l), 1);
    assert_packet(l, 30, 1);
    assert_no_packet(l);
    assert_int_equal(legacy_damaged(l), 0);
    legacy_free(l);
    estate_close(e);
}

static void memory_of_another_shape_is_refused(void **state)
{
    int err = 0;
    struct estate *e = open_shared();
    estate_close(e);
    assert_null(estate_open(mem, mem_bytes, CLIENTS - 1, HEAP_BYTES, &err));
    assert_int_equal(err, -EPROTO);
    assert_null(estate_open(mem, mem_bytes, CLIENTS, HEAP_BYTES / 2, &err));
    assert_int_equal(err, -EPROTO);
    assert_null(estate_open(mem, mem_bytes - 1, CLIENTS, HEAP_BYTES, &err));
    assert_int_equal(err, -EPROTO);
    struct estate_shm *shm = mem;
    shm->magic ^= 1;
    assert_null(estate_open(mem, mem_bytes, CLIENTS, HEAP_BYTES, &err));
    assert_int_equal(err, -EPROTO);
    assert_null(estate_inherit(mem, mem_bytes));
}

/* ---- a wild process */

/* Reads all that is to be had: nothing outside the plot (the sanitizer, or the end of the mapping). */
static unsigned read_all(struct legacy *l)
{
    struct estate_client got;
    struct slice s;
    unsigned n = 0;
    volatile uint8_t sum = 0;
    while (legacy_packet(l, &s)) {
        assert_true(s.len >= 4);
        assert_true(s.data >= l->at && s.data + s.len <= l->at + l->shape.bytes);
        sum = (uint8_t)(sum + s.data[0] + s.data[s.len - 1]);
        legacy_packet_done(l);
        n++;
    }
    while (legacy_client(l, &got, &s)) {
        assert_true(s.len == 0 || (s.data >= l->at && s.data + s.len <= l->at + l->shape.bytes));
        sum = (uint8_t)(sum + (s.len > 0 ? s.data[s.len - 1] : 0));
        legacy_client_done(l);
        n++;
    }
    assert_int_equal(legacy_clients_left(l), 0);
    return n;
}

static void bad_chunks_and_sessions_are_passed_over(void **state)
{
    struct estate *e = open_shared();
    struct estate_chunk *c[8];
    struct estate_client *cl[4];
    for (int i = 0; i < 8; i++) {
        c[i] = estate_chunk_new(e, 100);
        put(c[i], 50, (uint8_t)i);
    }
    for (uint32_t i = 0; i < 4; i++) {
        cl[i] = add(e, i + 1);
        estate_client_session(e, cl[i], session(e, "session", 7));
    }
    c[0]->offset = e->shape.bytes + 1;
    c[1]->offset = e->shape.bytes - 10;
    c[2]->offset = 0;
    c[3]->len = UINT32_MAX;
    c[3]->cap = UINT32_MAX;
    c[4]->len = c[4]->cap + 1;
    memset(estate_chunk_data(c[5]), 0, 4);    /* a packet of length 0 */
    memset(estate_chunk_data(c[6]), 0xff, 4); /* one of 4 GiB */
    cl[0]->session = (uint32_t)((e->shape.bytes + 16) / 16);
    cl[1]->session = UINT32_MAX;
    memset(e->at + cl[2]->session * ESTATE_SESSION_UNIT, 0xff, 4);

    struct legacy *l = killed(&e);
    assert_int_equal(legacy_damaged(l), 5);
    assert_packet(l, 50, 7);
    assert_no_packet(l);
    assert_int_equal(legacy_damaged(l), 7);
    struct estate_client got;
    struct slice s;
    for (int i = 0; i < 3; i++) {
        assert_true(legacy_client(l, &got, &s));
        assert_int_equal(s.len, 0);
    }
    assert_int_equal(legacy_damaged(l), 10);
    assert_true(legacy_client(l, &got, &s));
    assert_true(slice_eq_str(s, "session"));
    legacy_free(l);
    estate_close(e);
}

static uint64_t rng = 1;
static uint32_t rnd(uint32_t below)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)((rng >> 20) % below);
}

static void random_bytes_over_a_legacy_do_no_harm(void **state)
{
    unsigned found = 0, damaged = 0;
    for (int round = 0; round < 2000; round++) {
        struct estate *e = open_shared();
        for (uint32_t i = 0; i < 10; i++) {
            struct estate_chunk *c = estate_chunk_new(e, 200);
            put(c, 50, 1);
            put(c, 60, 2);
            estate_client_session(e, add(e, i + 1), session(e, "session", 7));
        }
        uint8_t *areas[] = {(uint8_t *)e->clients, (uint8_t *)e->chunks, e->at + e->shape.heap_at,
                            (uint8_t *)e->plot + 8};
        const uint32_t lens[] = {10 * sizeof *e->clients, 10 * sizeof *e->chunks, 8192, 8};
        estate_abandon(e);
        for (uint32_t n = rnd(30); n > 0; n--) {
            uint32_t area = rnd(30) == 0 ? 3 : rnd(3);
            areas[area][rnd(lens[area])] = (uint8_t)rnd(256);
        }
        e = open_shared();
        struct legacy *l = estate_inherit(mem, mem_bytes);
        found += read_all(l);
        damaged += legacy_damaged(l);
        legacy_free(l);
        estate_close(e);
    }
    assert_true(found > 1000 && damaged > 100);
}

static void many_clients_come_and_go(void **state)
{
    static struct estate_client *there[CLIENTS];
    struct estate *e = open_shared();
    struct estate_client got;
    struct slice s;
    for (int step = 0; step < 100000; step++) {
        uint32_t i = rnd(CLIENTS);
        if (there[i] != NULL) {
            assert_int_equal(there[i]->id, i + 1);
            estate_client_remove(e, there[i]);
            there[i] = NULL;
        } else {
            assert_non_null(there[i] = add(e, i + 1));
        }
    }
    uint32_t n = estate_clients(e);
    struct legacy *l = killed(&e);
    assert_int_equal(legacy_clients_left(l), n);
    for (; legacy_client(l, &got, &s); n--) {
        assert_non_null(there[got.id - 1]);
        there[got.id - 1] = NULL;
    }
    assert_int_equal(n, 0);
    legacy_free(l);
    estate_close(e);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, map_memory, unmap_memory)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_orderly_end_leaves_nothing),
        TEST(in_private_memory_it_works_alike),
        TEST(clients_are_found_with_their_last_session),
        TEST(packets_come_in_the_order_of_their_chunks),
        TEST(a_packet_counts_until_its_last_byte_is_written),
        TEST(what_was_done_is_not_seen_by_the_next_successor),
        TEST(clients_that_are_not_done_come_again),
        TEST(several_legacies_can_be_held_at_once),
        TEST(legacies_come_oldest_first_and_block_the_fifth),
        TEST(a_plot_is_empty_when_it_is_taken_again),
        TEST(memory_of_another_shape_is_refused),
        TEST(bad_chunks_and_sessions_are_passed_over),
        TEST(random_bytes_over_a_legacy_do_no_harm),
        TEST(many_clients_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
