// SPDX-License-Identifier: MIT
/* Rates, on a clock of our own. */
#include "guard/guard_files_test.h"
#include "guard/guard_priv.h"

static struct guard *g;

static void open_guard(unsigned n_edges)
{
    int r = 0;
    load_files();
    g = guard_new(&(struct guard_options){.config = &cfg,
                                          .files = test_files,
                                          .n_shards = n_edges,
                                          .n_edges = n_edges,
                                          .max_clients = 100,
                                          .counters = &counters},
                  &r, &err);
    assert_non_null(g);
}

static int close_guard(void **state)
{
    guard_free(g);
    g = NULL;
    return tear_down(state);
}

/* ---- the bucket */

static unsigned taken(struct bucket *b, uint64_t rate, unsigned n_edges, uint64_t from_ms, uint64_t to_ms,
                      unsigned tries_per_ms)
{
    unsigned n = 0;
    for (uint64_t t = from_ms; t < to_ms; t++)
        for (unsigned i = 0; i < tries_per_ms; i++)
            n += guard__bucket_take(b, rate, n_edges, t);
    return n;
}

static void a_bucket_gives_one_second_at_once_and_then_its_rate(void **state)
{
    struct bucket b = {0};
    assert_int_equal(taken(&b, 500, 1, 1000000, 1000001, 2000), 500);
    assert_int_equal(taken(&b, 500, 1, 1000001, 1010001, 3), 5000);
    assert_int_equal(taken(&b, 500, 1, 9000000, 9000001, 2000), 500); /* no more, however long it was quiet */
}

static void every_shard_has_its_part_also_of_what_is_no_whole_number(void **state)
{
    struct bucket b = {0};
    taken(&b, 10, 4, 5000, 5001, 100); /* empty */
    assert_int_equal(taken(&b, 10, 4, 5001, 5001 + 100000, 1), 250);
    b = (struct bucket){0};
    assert_int_equal(taken(&b, 10, 4, 0, 1, 100), 2); /* 2.5 */
    assert_int_equal(taken(&b, 10, 4, 1, 201, 1), 1); /* the half was kept */
    b = (struct bucket){0};
    taken(&b, 1, 64, 5000, 5001, 100);
    assert_int_equal(taken(&b, 1, 64, 5001, 15001, 1), 10); /* at least one a second */
    b = (struct bucket){0};
    assert_int_equal(taken(&b, 10000000, 1, 0, 1, 20000000), 10000000);
}

static void a_lower_rate_holds_at_once_and_time_never_runs_back(void **state)
{
    struct bucket b = {0};
    assert_true(guard__bucket_take(&b, 1000, 1, 5000));
    assert_int_equal(taken(&b, 10, 1, 5000, 5001, 100), 10);
    assert_int_equal(taken(&b, 10, 1, 4000, 4001, 100), 0);
    assert_int_equal(taken(&b, 10, 1, 4100, 4101, 100), 1);
}

/* ---- accept_rate and handshake_rate */

static void handshakes_over_the_rate_are_refused(void **state)
{
    set("handshake_rate", "10");
    open_guard(1);
    assert_false(guard_is_on(g)); /* nothing for guard_check */
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(guard_check_handshake(g, 1000), GUARD_PASS);
    assert_int_equal(guard_check_handshake(g, 1000), GUARD_HANDSHAKE_RATE);
    assert_int_equal(guard_check_handshake(g, 1099), GUARD_HANDSHAKE_RATE);
    assert_int_equal(guard_check_handshake(g, 1100), GUARD_PASS);
    assert_int_equal(counter_get(&counters, COUNTER_refused_handshake_rate), 2);
    set("handshake_rate", "0");
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(guard_check_handshake(g, 1100), GUARD_PASS);
    set("handshake_rate", "1");
    set("dry_run", "handshake_rate");
    assert_int_equal(guard_reload(g, test_files, &err), 0);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(guard_check_handshake(g, 1100), GUARD_PASS);
    assert_in_range(counter_get(&counters, COUNTER_dry_run_handshake_rate), 99, 100);
    assert_int_equal(counter_get(&counters, COUNTER_refused_handshake_rate), 2);
}

static void connections_over_the_rate_are_refused(void **state)
{
    struct net_addr a = addr_of("192.0.2.1"), local = {.family = AF_UNIX};
    set("accept_rate", "5");
    open_guard(1);
    assert_true(guard_is_on(g));
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(guard_check(g, i % 2 == 0 ? &a : &local, 0, 100, 1000, 0), GUARD_PASS);
    assert_int_equal(guard_check(g, &a, 0, 100, 1000, 0), GUARD_ACCEPT_RATE);
    assert_int_equal(guard_check(g, &local, 0, 100, 1199, 0), GUARD_ACCEPT_RATE);
    assert_int_equal(guard_check(g, &local, 0, 100, 1200, 0), GUARD_PASS);
    assert_int_equal(counter_get(&counters, COUNTER_refused_accept_rate), 2);
}

/* ---- one client */

static struct guard_meter m;

static enum guard_verdict message(uint32_t now_ms, uint64_t len, uint32_t *ret_wait_ms)
{
    return guard_meter(g, &m, now_ms, len, ret_wait_ms);
}

static void a_client_may_send_one_second_at_once(void **state)
{
    uint32_t wait;
    set("message_rate", "4");
    open_guard(1);
    assert_true(guard_meters(g));
    m = (struct guard_meter){0};
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(message(77, 1000000, &wait), GUARD_PASS);
        assert_int_equal(wait, 0);
    }
    assert_int_equal(message(77, 1, &wait), GUARD_MESSAGE_RATE);
    assert_int_equal(wait, 250);
    assert_int_equal(message(77 + 250, 1, &wait),
                     GUARD_MESSAGE_RATE); /* the one before was paid for just now */
    assert_int_equal(wait, 250);
    assert_int_equal(message(77 + 750, 1, &wait), GUARD_PASS);
    assert_int_equal(counter_get(&counters, COUNTER_refused_message_rate), 2);
    for (unsigned i = 0; i < 1000; i++)
        message(77 + 750, 1, &wait);
    assert_in_range(wait, 3000, 3300); /* a debt ends */
    assert_int_equal(message(77 + 750 + 5000, 1, &wait), GUARD_PASS);
}

/* Who waits as told gets the rate, to a message. */
static uint64_t sent_in(uint32_t seconds, uint64_t len)
{
    uint64_t n = 0;
    uint32_t now_ms = UINT32_MAX - 2000, end_ms = now_ms + seconds * 1000; /* over its wrap */
    m = (struct guard_meter){0};
    for (uint32_t wait; (int32_t)(end_ms - now_ms) > 0; n++) {
        message(now_ms, len, &wait);
        now_ms += wait;
    }
    return n;
}

static void pausing_brings_it_to_the_rate(void **state)
{
    static const unsigned rates[] = {1, 3, 7, 1000, 30000};
    open_guard(1);
    for (unsigned i = 0; i < 5; i++) {
        set("message_rate", "%u", rates[i]);
        uint64_t n = sent_in(20, 1);
        assert_in_range(n, 20 * rates[i], 21 * rates[i] + rates[i] / 500 + 2);
    }
    set("message_rate", "0");
    set("byte_rate", "1000");
    assert_in_range(sent_in(20, 10), 2000, 2102);
    assert_in_range(sent_in(20, 1), 20000, 21002); /* though a ms gives back less than one of ten */
    assert_in_range(sent_in(100, 30000), 4, 5);    /* each is paid for */
}

static void bytes_over_the_rate(void **state)
{
    uint32_t wait;
    set("byte_rate", "1000");
    open_guard(1);
    m = (struct guard_meter){0};
    assert_int_equal(message(5, 1000, &wait), GUARD_PASS);
    assert_int_equal(message(5, 0, &wait), GUARD_PASS);
    assert_int_equal(message(5, 500, &wait), GUARD_BYTE_RATE);
    assert_int_equal(wait, 500);
    assert_int_equal(message(5 + 1500, 1000, &wait), GUARD_PASS);
    assert_int_equal(message(5 + 1500, UINT64_MAX, &wait), GUARD_BYTE_RATE);
    assert_int_equal(wait, 3600000);
    assert_int_equal(counter_get(&counters, COUNTER_refused_byte_rate), 2);
}

static void both_rates_and_the_longer_wait(void **state)
{
    uint32_t wait;
    set("byte_rate", "1000");
    set("message_rate", "2");
    open_guard(1);
    m = (struct guard_meter){0};
    assert_int_equal(message(5, 4000, &wait), GUARD_BYTE_RATE);
    assert_int_equal(wait, 3000);
    message(5, 1, &wait);
    assert_int_equal(message(5, 0, &wait), GUARD_MESSAGE_RATE);
    assert_int_equal(wait, 3001);
}

static void a_dry_run_counts_those_over_the_rate_only(void **state)
{
    uint32_t wait;
    set("message_rate", "10");
    set("byte_rate", "50");
    set("dry_run", "message_rate, byte_rate");
    open_guard(1);
    m = (struct guard_meter){0};
    for (unsigned i = 0; i < 10000; i++) { /* 20 a second for 500 s */
        assert_int_equal(message(i * 50, 10, &wait), GUARD_PASS);
        assert_int_equal(wait, 0);
    }
    assert_in_range(counter_get(&counters, COUNTER_dry_run_message_rate), 4900, 5000);
    assert_in_range(counter_get(&counters, COUNTER_dry_run_byte_rate), 7400, 7500);
    assert_int_equal(counter_get(&counters, COUNTER_refused_message_rate), 0);
}

static void the_highest_rates(void **state)
{
    uint32_t wait;
    set("message_rate", "10000000");
    set("byte_rate", "4294967295");
    open_guard(1);
    m = (struct guard_meter){0};
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(message(i, 40000000, &wait), GUARD_PASS);
    for (unsigned i = 0; i < 20; i++)
        message(100, UINT32_MAX, &wait);
    assert_in_range(wait, 19500, 20500);
    assert_int_equal(sizeof(struct guard_meter), 16);
}

#define METER_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, close_guard)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bucket_gives_one_second_at_once_and_then_its_rate),
        cmocka_unit_test(every_shard_has_its_part_also_of_what_is_no_whole_number),
        cmocka_unit_test(a_lower_rate_holds_at_once_and_time_never_runs_back),
        METER_TEST(handshakes_over_the_rate_are_refused),
        METER_TEST(connections_over_the_rate_are_refused),
        METER_TEST(a_client_may_send_one_second_at_once),
        METER_TEST(pausing_brings_it_to_the_rate),
        METER_TEST(bytes_over_the_rate),
        METER_TEST(both_rates_and_the_longer_wait),
        METER_TEST(a_dry_run_counts_those_over_the_rate_only),
        METER_TEST(the_highest_rates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
