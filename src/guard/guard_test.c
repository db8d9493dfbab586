// SPDX-License-Identifier: MIT
#include "guard/guard_files_test.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/log.h"
#include "guard/guard_shm.h"

#define NOW 1000000 /* unix seconds */

static struct guard *g;

static struct guard *guard_of(unsigned shard, unsigned n_shards, struct guard_shm *shm)
{
    int r = 0;
    struct guard *new = guard_new(&(struct guard_options){.config = &cfg,
                                                          .files = test_files,
                                                          .shm = shm,
                                                          .shard = shard,
                                                          .n_shards = n_shards,
                                                          .n_edges = n_shards,
                                                          .max_clients = 100,
                                                          .counters = &counters},
                                  &r, &err);
    if (new == NULL)
        assert_true(r < 0 && err.n > 0);
    return new;
}

static void open_guard(void)
{
    load_files();
    g = guard_of(0, 1, NULL);
    assert_non_null(g);
}

static int close_guard(void **state)
{
    guard_free(g);
    g = NULL;
    return tear_down(state);
}

static int reload(void)
{
    load_files();
    return guard_reload(g, test_files, &err);
}

static enum guard_verdict check(const char *address)
{
    struct net_addr a = addr_of(address);
    return guard_check(g, &a, 0, 100, 1, NOW);
}

static enum guard_verdict check_lists(const char *address)
{
    struct net_addr a = addr_of(address);
    return guard_check_lists(g, &a, NOW);
}

static uint64_t count(enum counter_id id)
{
    return counter_get(&counters, id);
}

/* ---- lists */

static void nothing_configured_is_off_and_lets_pass(void **state)
{
    struct net_addr a = addr_of("192.0.2.1");
    open_guard();
    assert_false(guard_is_on(g));
    assert_false(guard_meters(g));
    assert_int_equal(check("192.0.2.1"), GUARD_PASS);
    assert_false(guard_enter(g, &a));
    assert_int_equal(guard_check_handshake(g, 1), GUARD_PASS);
}

static void the_longest_of_both_lists_decides(void **state)
{
    set("deny_list", "10.0.0.0/8, 10.1.2.0/24");
    set("allow_list", "10.1.0.0/16, 10.1.2.3");
    open_guard();
    assert_true(guard_is_on(g));
    assert_int_equal(check("10.2.0.1"), GUARD_DENY);
    assert_int_equal(check("10.1.0.1"), GUARD_PASS);
    assert_int_equal(check("10.1.2.1"), GUARD_DENY);
    assert_int_equal(check("10.1.2.3"), GUARD_PASS);
    assert_int_equal(check("11.0.0.1"), GUARD_PASS); /* on neither: there is a deny_list */
    assert_int_equal(check("2001:db8::1"), GUARD_PASS);
    assert_int_equal(check_lists("10.2.0.1"), GUARD_DENY);
    assert_int_equal(count(COUNTER_refused_deny), 3);
    assert_int_equal(count(COUNTER_dry_run_deny), 0);
}

static void with_only_an_allow_list_all_others_are_strangers(void **state)
{
    struct net_addr local = {.family = AF_UNIX};
    set("allow_list", "10.0.0.0/8");
    open_guard();
    assert_int_equal(check("10.2.0.1"), GUARD_PASS);
    assert_int_equal(check("11.0.0.1"), GUARD_DENY);
    assert_int_equal(check("::1"), GUARD_DENY);
    assert_int_equal(guard_check(g, &local, 0, 100, 1, NOW), GUARD_PASS);
}

/* A deny_list whose file has become empty is still a deny_list; an allow_list without a line allows nobody.
 */
static void lists_count_by_their_keys_not_by_their_lines(void **state)
{
    write_file("a", "# nobody\n");
    set("allow_list", "%s", path_of("a"));
    open_guard();
    assert_int_equal(check("10.0.0.1"), GUARD_DENY);
    set("deny_list", "%s", path_of("a"));
    assert_int_equal(reload(), 0);
    assert_int_equal(check("10.0.0.1"), GUARD_PASS);
}

static void the_same_prefix_on_both_is_denied_and_told(void **state)
{
    char line[400] = "";
    struct log_options opt = {.level = LOG_NOTICE, .path = path_of("b"), .process = "test"};
    assert_int_equal(log_open(&opt), 0);
    set("deny_list", "10.0.0.0/8");
    set("allow_list", "10.0.0.0/8");
    open_guard();
    assert_int_equal(check("10.0.0.1"), GUARD_DENY);
    log_close();
    FILE *f = fopen(path_of("b"), "re");
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(strstr(line, "warn test lists_disagree prefix=10.0.0.0/8 prefixes=1"));
    assert_non_null(fgets(line, sizeof line, f));
    assert_non_null(strstr(line, "notice test refused check=deny address=10.0.0.1 dry_run=no"));
    fclose(f);
}

/* ---- bans */

static void bans_end_by_themselves(void **state)
{
    struct net_addr a = addr_of("192.0.2.1"), b = addr_of("192.0.2.2");
    write_file("bans", "192.0.2.0/24 1000100 # all\n192.0.2.1 1000200\n198.51.100.0/24 999999\n");
    open_guard();
    assert_true(guard_is_on(g));
    assert_int_equal(guard_check(g, &a, 0, 100, 1, 1000099), GUARD_BAN);
    assert_int_equal(guard_check(g, &b, 0, 100, 1, 1000099), GUARD_BAN);
    assert_int_equal(guard_check(g, &a, 0, 100, 1, 1000100), GUARD_BAN);
    assert_int_equal(guard_check(g, &b, 0, 100, 1, 1000100), GUARD_PASS);
    assert_int_equal(guard_check(g, &a, 0, 100, 1, 1000200), GUARD_PASS);
    assert_int_equal(check("198.51.100.1"), GUARD_PASS);
    assert_int_equal(count(COUNTER_refused_ban), 3);
}

/* The longer ban may be the one that is over; then the shorter prefix still holds. */
static void a_shorter_prefix_banned_for_longer(void **state)
{
    struct net_addr a = addr_of("192.0.2.1");
    write_file("a", "192.0.2.1 1000001\n192.0.0.0/16 1000300\n192.0.2.0/24 1000002\n");
    set("ban_file", "%s", path_of("a"));
    open_guard();
    assert_int_equal(guard_check_lists(g, &a, 1000299), GUARD_BAN);
    assert_int_equal(guard_check_lists(g, &a, 1000300), GUARD_PASS);
}

static void an_allowed_address_can_be_banned(void **state)
{
    write_file("bans", "192.0.2.0/24 2000000\n");
    set("allow_list", "192.0.2.1");
    open_guard();
    assert_int_equal(check("192.0.2.1"), GUARD_BAN);
}

/* ---- what is wrong */

static void every_mistake_of_every_list_is_told(void **state)
{
    write_file("bans", "10.0.0.0/8 1\n10.0.0.0/8\n");
    write_file("a", "10.0.0.1/31\n");
    set("allow_list", "x");
    set("deny_list", "%s", path_of("a"));
    set("reserve_list", "1.2.3.4/0");
    set("dry_run", "total, everything, byterate");
    config_set(&cfg, "listen a", "port", "80", &err);
    config_set(&cfg, "listen a", "protocol", "text", &err);
    config_set(&cfg, "listen a", "trusted_proxies", "10.0.0.300", &err);
    load_files();
    assert_int_equal(guard_lists_check(&cfg, test_files, &err), -EINVAL);
    assert_int_equal(err.n, 7);
    assert_non_null(
        strstr(problem(0), "[gateway] dry_run: \"everything\" is not a check; expected all, or some"));
    assert_non_null(strstr(problem(1), "\"byterate\""));
    assert_non_null(strstr(problem(2), "[gateway] allow_list: \"x\""));
    assert_non_null(strstr(problem(3), "[gateway] deny_list: /tmp/"));
    assert_non_null(
        strstr(problem(3), "/a:1: \"10.0.0.1/31\" has bits set behind the prefix; expected 10.0.0.0/31"));
    assert_non_null(strstr(problem(4), "[gateway] ban_file: /tmp/"));
    assert_non_null(strstr(problem(4), "/bans:2: \"\" is no time; expected CIDR UNTIL"));
    assert_non_null(strstr(problem(5), "[gateway] reserve_list: \"1.2.3.4/0\""));
    assert_non_null(strstr(problem(6), "[listen a] trusted_proxies: \"10.0.0.300\""));
    assert_null(guard_of(0, 1, NULL));
}

static void good_lists_pass_the_check(void **state)
{
    set("allow_list", "::/0");
    set("dry_run", "all");
    load_files();
    assert_int_equal(guard_lists_check(&cfg, test_files, &err), 0);
    set("dry_run",
        "deny,ban , per_address,per_subnet,accept_rate,handshake_rate,total,message_rate,byte_rate");
    assert_int_equal(guard_lists_check(&cfg, test_files, &err), 0);
    assert_int_equal(err.n, 0);
}

static void a_reload_that_fails_leaves_the_old_lists(void **state)
{
    set("deny_list", "10.0.0.0/8");
    open_guard();
    set("deny_list", "10.0.0.0/8, 11.0.0.1/8");
    assert_int_equal(reload(), -EINVAL);
    assert_int_equal(check("10.0.0.1"), GUARD_DENY);
    assert_int_equal(check("11.0.0.1"), GUARD_PASS);
    set("deny_list", "11.0.0.0/8");
    set("dry_run", "ban");
    assert_int_equal(reload(), 0);
    assert_int_equal(check("10.0.0.1"), GUARD_PASS);
    assert_int_equal(check("11.0.0.1"), GUARD_DENY);
}

/* ---- the total */

static void the_reserve_is_for_those_on_its_list(void **state)
{
    struct net_addr a = addr_of("192.0.2.1"), b = addr_of("10.0.0.1"), local = {.family = AF_UNIX};
    set("connection_reserve", "10");
    set("reserve_list", "10.0.0.0/8");
    open_guard();
    assert_true(guard_is_on(g));
    assert_int_equal(guard_check(g, &a, 89, 100, 1, NOW), GUARD_PASS);
    assert_int_equal(guard_check(g, &a, 90, 100, 1, NOW), GUARD_TOTAL);
    assert_int_equal(guard_check(g, &local, 90, 100, 1, NOW), GUARD_TOTAL);
    assert_int_equal(guard_check(g, &b, 90, 100, 1, NOW), GUARD_PASS);
    assert_int_equal(guard_check(g, &b, 99, 100, 1, NOW), GUARD_PASS);
    assert_int_equal(guard_check(g, &b, 100, 100, 1, NOW), GUARD_TOTAL);
    set("connection_reserve", "1000"); /* more than there are */
    assert_int_equal(guard_check(g, &a, 0, 100, 1, NOW), GUARD_TOTAL);
    assert_int_equal(guard_check(g, &b, 0, 100, 1, NOW), GUARD_PASS);
    assert_int_equal(count(COUNTER_refused_total), 4);
}

/* ---- per address and subnet */

static unsigned enter_up_to(const char *format, unsigned n, unsigned tries)
{
    unsigned entered = 0;
    for (unsigned i = 0; i < tries; i++) {
        char text[64];
        snprintf(text, sizeof text, format, i % n + 1);
        struct net_addr a = addr_of(text);
        if (guard_check(g, &a, 0, 100, 1, NOW) != GUARD_PASS)
            continue;
        assert_true(guard_enter(g, &a));
        entered++;
    }
    return entered;
}

static void an_address_has_so_many_connections(void **state)
{
    struct net_addr a = addr_of("192.0.2.1"), local = {.family = AF_UNIX};
    set("connections_per_address", "3");
    open_guard();
    assert_true(guard_is_on(g));
    assert_int_equal(enter_up_to("192.0.2.%u", 2, 20), 6);
    assert_int_equal(enter_up_to("2001:db8::%u", 2, 20), 6);
    assert_int_equal(count(COUNTER_refused_per_address), 28);
    guard_leave(g, &a);
    assert_int_equal(enter_up_to("192.0.2.%u", 2, 20), 1);
    assert_int_equal(guard_check(g, &local, 0, 100, 1, NOW), GUARD_PASS);
    assert_false(guard_enter(g, &local));
}

static void a_subnet_has_so_many_connections(void **state)
{
    set("connections_per_subnet", "7");
    open_guard();
    assert_int_equal(enter_up_to("192.0.2.%u", 20, 60), 7);
    assert_int_equal(enter_up_to("192.0.3.%u", 20, 60), 7);
    assert_int_equal(enter_up_to("2001:db8::a%u", 9, 60), 7);
    assert_int_equal(enter_up_to("2001:db8::%u:0:0:1", 9, 60), 0); /* the same /64 */
    assert_int_equal(enter_up_to("2001:db8:0:1::%u", 9, 60), 7);
    assert_int_equal(count(COUNTER_refused_per_address), 0);
    assert_true(count(COUNTER_refused_per_subnet) > 100);
}

static void the_sizes_of_subnets_are_configured(void **state)
{
    set("connections_per_subnet", "4");
    set("subnet_bits_ipv4", "32");
    set("subnet_bits_ipv6", "128");
    open_guard();
    assert_int_equal(enter_up_to("192.0.2.%u", 5, 60), 20);
    assert_int_equal(enter_up_to("2001:db8::%u", 5, 60), 20);
}

static void limits_that_come_later_count_from_then_on(void **state)
{
    struct net_addr a = addr_of("192.0.2.1");
    open_guard();
    assert_false(guard_enter(g, &a));
    set("connections_per_address", "1");
    assert_int_equal(check("192.0.2.1"), GUARD_PASS);
    assert_true(guard_enter(g, &a));
    assert_int_equal(check("192.0.2.1"), GUARD_PER_ADDRESS);
    set("connections_per_address", "0");
    guard_leave(g, &a); /* counted, so it leaves, whatever the limit is now */
    set("connections_per_address", "1");
    assert_int_equal(check("192.0.2.1"), GUARD_PASS);
    guard_leave(g, &a); /* a mistake of the caller, or a damaged table: told, no more */
    assert_int_equal(check("192.0.2.1"), GUARD_PASS);
}

static void a_full_table_lets_pass_uncounted(void **state)
{
    set("connections_per_address", "1");
    open_guard();
    unsigned counted = 0;
    for (unsigned i = 0; i < 2000; i++) {
        struct net_addr a = {.family = AF_INET, .ip = {10, 0, (uint8_t)(i >> 8), (uint8_t)i}};
        assert_int_equal(guard_check(g, &a, 0, 100, 1, NOW), GUARD_PASS);
        counted += guard_enter(g, &a);
    }
    assert_in_range(counted, 100, 400); /* max_clients is 100 */
}

static void shards_count_together_and_a_dead_one_no_more(void **state)
{
    size_t bytes = guard_shm_bytes(3, 100);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    struct guard_shm *shm = guard_shm_init(memory, 3, 100);
    struct net_addr a = addr_of("192.0.2.1");
    struct guard *shards[3];

    set("connections_per_address", "6");
    load_files();
    for (unsigned i = 0; i < 3; i++) {
        shards[i] = guard_of(i, 3, shm);
        assert_non_null(shards[i]);
        assert_true(guard_enter(shards[i], &a));
        assert_true(guard_enter(shards[i], &a));
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(guard_check(shards[i], &a, 0, 100, 1, NOW), GUARD_PER_ADDRESS);
    guard_shm_bury(shm, 1);
    assert_int_equal(guard_check(shards[0], &a, 0, 100, 1, NOW), GUARD_PASS);
    guard_free(shards[1]);
    assert_true(guard_enter(shards[0], &a));
    assert_true(guard_enter(shards[0], &a));
    assert_int_equal(guard_check(shards[2], &a, 0, 100, 1, NOW), GUARD_PER_ADDRESS);
    guard_free(shards[0]);
    shards[0] = guard_of(0, 3, shm); /* a successor begins with nothing, buried or not */
    assert_int_equal(guard_check(shards[2], &a, 0, 100, 1, NOW), GUARD_PASS);
    guard_free(shards[0]);
    guard_free(shards[2]);
    munmap(memory, bytes);
}

/* ---- dry run */

static void a_dry_run_of_all_refuses_nobody_and_counts_everything(void **state)
{
    struct net_addr a = addr_of("192.0.2.1"), b = addr_of("198.51.100.1");
    write_file("bans", "192.0.2.0/24 2000000\n");
    set("deny_list", "192.0.2.0/24");
    set("connections_per_address", "1");
    set("connections_per_subnet", "1");
    set("connection_reserve", "10");
    set("accept_rate", "1");
    set("handshake_rate", "1");
    set("dry_run", "all");
    open_guard();
    assert_int_equal(guard_check(g, &a, 95, 100, 5000, NOW), GUARD_PASS);
    assert_true(guard_enter(g, &a));
    assert_int_equal(guard_check(g, &a, 95, 100, 5000, NOW), GUARD_PASS);
    guard_check_handshake(g, 5000);
    assert_int_equal(guard_check_handshake(g, 5000), GUARD_PASS);
    assert_int_equal(count(COUNTER_dry_run_deny), 2);
    assert_int_equal(count(COUNTER_dry_run_ban), 2);
    assert_int_equal(count(COUNTER_dry_run_total), 2);
    assert_int_equal(count(COUNTER_dry_run_per_address), 1);
    assert_int_equal(count(COUNTER_dry_run_per_subnet), 1);
    assert_int_equal(count(COUNTER_dry_run_accept_rate), 1);
    assert_int_equal(count(COUNTER_dry_run_handshake_rate), 1);
    assert_int_equal(guard_check(g, &b, 100, 100, 9000, NOW), GUARD_TOTAL); /* no room is no room */
    for (enum counter_id id = COUNTER_refused_deny; id <= COUNTER_refused_byte_rate; id++)
        assert_int_equal(count(id), id == COUNTER_refused_total);
}

/* Each check alone in dry run: it lets pass, the next one still refuses. */
static void each_check_alone(void **state)
{
    struct net_addr a = addr_of("192.0.2.1");
    write_file("bans", "192.0.2.0/24 2000000\n");
    set("deny_list", "192.0.2.0/24");
    set("connections_per_address", "1");
    set("connections_per_subnet", "1");
    set("connection_reserve", "10");
    set("accept_rate", "1");
    open_guard();
    assert_true(guard_enter(g, &a));
    static const enum guard_verdict order[] = {GUARD_DENY,        GUARD_BAN,        GUARD_TOTAL,
                                               GUARD_PER_ADDRESS, GUARD_PER_SUBNET, GUARD_ACCEPT_RATE};
    char list[200] = "";
    for (unsigned i = 0; i < 6; i++) {
        set("dry_run", "%s", list);
        assert_int_equal(reload(), 0);
        enum guard_verdict v = guard_check(g, &a, 95, 100, 5000, NOW);
        if (order[i] == GUARD_ACCEPT_RATE && v == GUARD_PASS) /* the first one of the second */
            v = guard_check(g, &a, 95, 100, 5000, NOW);
        assert_int_equal(v, order[i]);
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i > 0 ? "," : "",
                 guard_check_name(order[i]));
    }
    set("dry_run", "%s", list);
    assert_int_equal(reload(), 0);
    assert_int_equal(guard_check(g, &a, 95, 100, 5000, NOW), GUARD_PASS);
}

static void names_of_the_checks(void **state)
{
    assert_string_equal(guard_check_name(GUARD_DENY), "deny");
    assert_string_equal(guard_check_name(GUARD_BYTE_RATE), "byte_rate");
    assert_string_equal(guard_check_name(GUARD_PASS), "pass");
    assert_string_equal(guard_check_name(GUARD_N), "?");
}

#define GUARD_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, close_guard)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GUARD_TEST(nothing_configured_is_off_and_lets_pass),
        GUARD_TEST(the_longest_of_both_lists_decides),
        GUARD_TEST(with_only_an_allow_list_all_others_are_strangers),
        GUARD_TEST(lists_count_by_their_keys_not_by_their_lines),
        GUARD_TEST(the_same_prefix_on_both_is_denied_and_told),
        GUARD_TEST(bans_end_by_themselves),
        GUARD_TEST(a_shorter_prefix_banned_for_longer),
        GUARD_TEST(an_allowed_address_can_be_banned),
        GUARD_TEST(every_mistake_of_every_list_is_told),
        GUARD_TEST(good_lists_pass_the_check),
        GUARD_TEST(a_reload_that_fails_leaves_the_old_lists),
        GUARD_TEST(the_reserve_is_for_those_on_its_list),
        GUARD_TEST(an_address_has_so_many_connections),
        GUARD_TEST(a_subnet_has_so_many_connections),
        GUARD_TEST(the_sizes_of_subnets_are_configured),
        GUARD_TEST(limits_that_come_later_count_from_then_on),
        GUARD_TEST(a_full_table_lets_pass_uncounted),
        GUARD_TEST(shards_count_together_and_a_dead_one_no_more),
        GUARD_TEST(a_dry_run_of_all_refuses_nobody_and_counts_everything),
        GUARD_TEST(each_check_alone),
        cmocka_unit_test(names_of_the_checks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
