// SPDX-License-Identifier: MIT
#include "common/node_shared.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define CELLS (NODE_SHARDS_MAX * NODE_HOME_PARTS)

static uint64_t first(unsigned n)
{
    return UINT64_MAX >> (64 - n);
}

static bool has(uint64_t shards, unsigned i)
{
    return i < 64 && (shards >> i & 1) != 0;
}

/* A node and its clients: so many (in any unit) in each cell. */
struct model {
    struct node_home home;
    uint64_t edges;
    double clients[CELLS];
};

static void model_init(struct model *m, uint64_t edges)
{
    *m = (struct model){.edges = edges};
    node_home_init(&m->home);
}

/* Each edge gives as many ids, alike from all cells that it may give. */
static void clients_come(struct model *m, double n)
{
    for (unsigned e = 0; e < 64; e++) {
        if (!has(m->edges, e))
            continue;
        const uint8_t *row = &m->home.shard[e * 64];
        unsigned own = 0;
        for (unsigned i = 0; i < 64; i++)
            own += row[i] == e;
        assert_true(own > 0);
        for (unsigned i = 0; i < 64; i++)
            if (row[i] == e)
                m->clients[e * 64 + i] += n / own;
    }
}

static void count_clients(const struct model *m, double of[64])
{
    memset(of, 0, 64 * sizeof *of);
    for (unsigned i = 0; i < CELLS; i++)
        of[m->home.shard[i]] += m->clients[i];
}

/* What holds after every change. */
static void check(const struct model *m)
{
    for (unsigned i = 0; i < CELLS; i++) {
        if (m->clients[i] > 0)
            assert_true(has(m->edges, m->home.shard[i]));
        else
            assert_true(has(m->edges, m->home.shard[i]) || m->home.shard[i] == i / 64);
    }
    for (unsigned e = 0; e < 64; e++)
        if (has(m->edges, e))
            assert_non_null(memchr(&m->home.shard[e * 64], (int)e, 64));
}

/* Nobody has more than `most` times what is fair, nor less than 1 / most. */
static void check_even(const struct model *m, double most)
{
    double of[64], all = 0, n = __builtin_popcountll(m->edges);
    count_clients(m, of);
    for (unsigned e = 0; e < 64; e++)
        all += of[e];
    for (unsigned e = 0; e < 64; e++) {
        if (!has(m->edges, e))
            continue;
        if (of[e] > all / n * most || of[e] < all / n / most)
            print_message("edge %u has %.0f clients, fair is %.0f\n", e, of[e], all / n);
        assert_true(of[e] <= all / n * most);
        assert_true(of[e] >= all / n / most);
    }
}

static bool change(struct model *m, uint64_t edges)
{
    struct node_home before = m->home;
    bool differs = node_home_plan(&before, m->edges, edges, &m->home);
    assert_int_equal(differs, memcmp(&before, &m->home, sizeof before) != 0);
    m->edges = edges;
    check(m);
    return differs;
}

static void at_first_ids_are_where_they_were_given(void **state)
{
    struct node_shared *n = node_shared_new();
    assert_non_null(n);
    for (unsigned shard = 0; shard < 64; shard++)
        for (uint32_t seq = 1; seq < 200; seq++)
            assert_int_equal(node_home_of(&n->home, shard << CONNECTION_SEQ_BITS | seq), shard);
    n->home.shard[5] = 9;
    assert_int_equal(node_home_of(&n->home, 5), 9);
    assert_int_equal(node_home_of(&n->home, 64 + 5), 9);
    assert_int_equal(node_home_of(&n->home, 6), 0);
    node_shared_bury(n, 0);
    node_shared_bury(n, 9);
    assert_int_equal(node_home_of(&n->home, 5), 9);
    node_shared_free(n);
}

static void nothing_moves_when_nothing_changes(void **state)
{
    struct model m;
    for (unsigned n = 1; n <= 64; n++) {
        model_init(&m, first(n));
        clients_come(&m, 1);
        assert_false(change(&m, first(n)));
    }
    /* Nor in one that has moved before. */
    model_init(&m, first(8));
    clients_come(&m, 1);
    assert_true(change(&m, first(3)));
    assert_false(change(&m, first(3)));
}

static void from_1_to_4_and_back(void **state)
{
    struct model m;
    model_init(&m, first(1));
    clients_come(&m, 64);
    change(&m, first(4));
    check_even(&m, 1.0001);
    for (unsigned row = 1; row < 4; row++) /* never given before: whole */
        for (unsigned i = 0; i < 64; i++)
            assert_int_equal(m.home.shard[row * 64 + i], row);
    clients_come(&m, 50);
    check_even(&m, 1.0001);
    change(&m, first(1));
    check_even(&m, 1.0001);
    for (unsigned i = 0; i < 4 * 64; i++)
        assert_int_equal(m.home.shard[i], 0);
    for (int i = 0; i < 10; i++) { /* from now on the parts of a row are not equally full */
        change(&m, first(4));
        check_even(&m, 1.25);
        clients_come(&m, 20);
        change(&m, first(1));
        clients_come(&m, 1000); /* of one edge, in its row */
    }
}

static void from_4_to_3(void **state)
{
    struct model m;
    model_init(&m, first(4));
    clients_come(&m, 1000);
    struct node_home before = m.home;
    change(&m, first(3));
    check_even(&m, 1.02);
    for (unsigned i = 0; i < CELLS; i++)
        if (before.shard[i] != 3)
            assert_int_equal(m.home.shard[i], before.shard[i]);
}

static void from_8_to_2_and_back(void **state)
{
    struct model m;
    model_init(&m, first(8));
    clients_come(&m, 1000);
    change(&m, first(2));
    check_even(&m, 1.0001);
    clients_come(&m, 5000); /* while they were two */
    change(&m, first(8));
    check_even(&m, 1.05);
    for (int i = 0; i < 10; i++) {
        clients_come(&m, 100);
        change(&m, first(2));
        check_even(&m, 1.25);
        change(&m, first(8));
        check_even(&m, 1.25);
    }
    for (unsigned e = 0; e < 8; e++) { /* and still has ids to give */
        unsigned own = 0;
        for (unsigned i = 0; i < 64; i++)
            own += m.home.shard[e * 64 + i] == e;
        assert_true(own >= 7);
    }
}

static void one_that_leaves_and_comes_back_for_a_while(void **state)
{
    struct model m;
    model_init(&m, first(4));
    clients_come(&m, 1000);
    for (unsigned e = 0; e < 4; e++) {
        struct node_home before = m.home;
        change(&m, first(4) & ~(UINT64_C(1) << e));
        check_even(&m, 1.05);
        for (unsigned i = 0; i < CELLS; i++) /* only what it had has moved */
            if (before.shard[i] != e)
                assert_int_equal(m.home.shard[i], before.shard[i]);
        clients_come(&m, 100);
        before = m.home;
        change(&m, first(4));
        check_even(&m, 1.05);
        for (unsigned i = 0; i < CELLS; i++) /* only to it */
            if (m.home.shard[i] != e)
                assert_int_equal(m.home.shard[i], before.shard[i]);
    }
}

static void other_roles(void **state)
{
    struct model m;
    model_init(&m, 0x3); /* 0 and 1; links are elsewhere */
    clients_come(&m, 1000);
    change(&m, 0xC);
    check_even(&m, 1.0001);
    clients_come(&m, 1000);
    change(&m, 0x6); /* one goes, one comes */
    check_even(&m, 1.05);
    change(&m, 0xF0);
    check_even(&m, 1.05);
    clients_come(&m, 1000);
    change(&m, 0x1);
    check_even(&m, 1.0001);
    change(&m, UINT64_MAX);
    check_even(&m, 1.5);
}

static void from_any_number_to_any_other(void **state)
{
    struct model m;
    for (unsigned n = 1; n <= 64; n += 3) {
        for (unsigned to = 1; to <= 64; to += 3) {
            model_init(&m, first(n));
            clients_come(&m, 1000);
            change(&m, first(to));
            /* Of one that had a row, another gets a whole number of 64ths: that is as even as it can be. */
            if (to <= n)
                check_even(&m, 1.5);
            else
                check_even(&m, 2.2);
            change(&m, first(n));
            change(&m, first(64));
        }
    }
}

static uint64_t any(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + 1442695040888963407;
    return *seed ^ *seed >> 29;
}

static void one_change_after_the_other(void **state)
{
    struct model m;
    uint64_t seed = 1;
    model_init(&m, first(5));
    for (int i = 0; i < 500; i++) {
        uint64_t edges = any(&seed) & first(1 + any(&seed) % 64);
        clients_come(&m, 1);
        change(&m, edges != 0 ? edges : 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_first_ids_are_where_they_were_given),
        cmocka_unit_test(nothing_moves_when_nothing_changes),
        cmocka_unit_test(from_1_to_4_and_back),
        cmocka_unit_test(from_4_to_3),
        cmocka_unit_test(from_8_to_2_and_back),
        cmocka_unit_test(one_that_leaves_and_comes_back_for_a_while),
        cmocka_unit_test(other_roles),
        cmocka_unit_test(from_any_number_to_any_other),
        cmocka_unit_test(one_change_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
