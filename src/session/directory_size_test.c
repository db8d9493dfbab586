// SPDX-License-Identifier: MIT
/* What a client costs: bytes (asserted) and nanoseconds (printed; only the worst pause is asserted, loosely).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/hash.h"
#include "estate/estate.h"
#include "session/directory_priv.h"

#define CLIENTS        15000
#define GROUPS         100
#define BYTES_PER_IDLE 250
#define MANY           1000000
#define PAUSE_NS_MAX                                                                                         \
    (INT64_C(500) * 1000 * 1000) /* machines under load; the number printed is what counts                   \
                                  */

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static long resident_bytes(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%*s %ld", &pages) != 1) {
            pages = 0;
        }
        fclose(f);
    }
    return pages * 4096;
}

static struct member *members_new(size_t n)
{
    struct member *m = calloc(n, sizeof(*m));
    assert_non_null(m);
    memset(m, 0, n * sizeof(*m)); /* touched: not to be measured */
    return m;
}

static void report(const char *what, int64_t began, uint32_t n)
{
    print_message("  %-28s %6.1f ns each\n", what, (double)(now_ns() - began) / n);
}

static struct name {
    char text[15];
    uint8_t len;
} uid_names[CLIENTS], group_names[GROUPS];

static int make_names(void **state)
{
    for (uint32_t i = 0; i < CLIENTS; i++) {
        struct name *n = &uid_names[i];
        n->len = (uint8_t)snprintf(n->text, sizeof(n->text), "user-%u", i % CLIENTS);
    }
    for (uint32_t i = 0; i < GROUPS; i++) {
        struct name *n = &group_names[i];
        n->len = (uint8_t)snprintf(n->text, sizeof(n->text), "group-%u", i % GROUPS);
    }
    return 0;
}

static void bind_all(struct directory *d, struct member *m, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(directory_uid_bind(d, &m[i], uid_names[i].text, uid_names[i].len), 0);
    }
}

static void join_all(struct directory *d, struct member *m, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct name *g = &group_names[i % GROUPS];
        assert_int_equal(directory_group_join(d, &m[i], g->text, g->len), 0);
    }
}

static void fill(struct directory *d, struct member *m, uint32_t n)
{
    uint8_t session[64] = {1};
    int64_t t = now_ns();
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(directory_add(d, &m[i]), 0);
    }
    report("add", t, n);
    t = now_ns();
    bind_all(d, m, n);
    report("uid bind", t, n);
    t = now_ns();
    join_all(d, m, n);
    report("group join", t, n);
    t = now_ns();
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(directory_session_set(d, &m[i], session, sizeof(session)), 0);
    }
    report("session set", t, n);
}

static void walk(struct directory *d, struct member *m, uint32_t n)
{
    struct member_cursor c;
    uint64_t sum = 0;
    int64_t t = now_ns();
    directory_all_begin(d, &c);
    for (struct member *v; (v = member_cursor_next(&c));) {
        sum += v->id;
    }
    member_cursor_end(d, &c);
    report("cursor step (all)", t, n);
    t = now_ns();
    for (uint32_t g = 0; g < GROUPS; g++) {
        directory_group_begin(d, group_names[g].text, group_names[g].len, &c);
        for (struct member *v; (v = member_cursor_next(&c));) {
            sum -= v->id;
        }
        member_cursor_end(d, &c);
    }
    report("cursor step (groups)", t, n);
    assert_int_equal(sum, 0);
    t = now_ns();
    for (uint32_t i = 0; i < n; i++) {
        assert_ptr_equal(directory_find(d, m[i].id), &m[i]);
    }
    report("find by id", t, n);
}

static void empty(struct directory *d, struct member *m, uint32_t n)
{
    int64_t t = now_ns();
    for (uint32_t i = 0; i < n; i++) {
        directory_remove(d, &m[(i * UINT64_C(7919)) % n]); /* 7919 is prime to n: each once, out of order */
    }
    report("remove", t, n);
    assert_int_equal(directory_count(d), 0);
}

static void an_idle_client_costs_at_most_250_bytes(void **state)
{
    struct member *m = members_new(CLIENTS);
    int err;
    struct estate *estate = estate_open(NULL, 0, CLIENTS, (size_t)64 << 20, &err);
    assert_non_null(estate);
    struct directory *d = directory_new(0, 1, estate);
    size_t bare = directory_bytes(d);
    long resident = resident_bytes();
    fill(d, m, CLIENTS);
    size_t bytes = directory_bytes(d);
    print_message("  resident memory grew by %.1f per client\n",
                  (double)(resident_bytes() - resident) / CLIENTS);
    print_message("  %zu bytes, %.1f per client (limit %d)\n", bytes, (double)bytes / CLIENTS,
                  BYTES_PER_IDLE);
    assert_null(directory_check(d));
    assert_true(bytes / CLIENTS <= BYTES_PER_IDLE);
    walk(d, m, CLIENTS);
    empty(d, m, CLIENTS);
    print_message("  %zu bytes when empty again, %zu when new\n", directory_bytes(d), bare);
    assert_true(directory_bytes(d) < bare + 1024);
    print_message("  once more, memory already touched:\n");
    fill(d, m, CLIENTS);
    empty(d, m, CLIENTS);
    directory_free(d);
    estate_close(estate);
    free(m);
}

static void no_growth_makes_a_long_pause(void **state)
{
    struct member *m = members_new(MANY);
    struct directory *d = directory_new(0, 1, NULL);
    int64_t worst_in = 0, worst_out = 0, began = now_ns();
    for (uint32_t i = 0; i < MANY; i++) {
        int64_t t = now_ns();
        assert_int_equal(directory_add(d, &m[i]), 0);
        t = now_ns() - t;
        worst_in = t > worst_in ? t : worst_in;
    }
    report("add, of a million", began, MANY);
    began = now_ns();
    for (uint32_t i = 0; i < MANY; i++) {
        int64_t t = now_ns();
        directory_remove(d, &m[i]);
        t = now_ns() - t;
        worst_out = t > worst_out ? t : worst_out;
    }
    report("remove, of a million", began, MANY);
    print_message("  longest add %.0f us, longest remove %.0f us\n", (double)worst_in / 1e3,
                  (double)worst_out / 1e3);
    assert_true(worst_in < PAUSE_NS_MAX && worst_out < PAUSE_NS_MAX);
    directory_free(d);
    free(m);
}

/* The one step that is not small: closing up when half of a set has left under a cursor. Paid for by those
 * who left, but at once; how long it takes is printed. */
static void half_of_a_large_set_may_leave_under_a_cursor(void **state)
{
    enum { LARGE = 200000 };
    struct member *m = members_new(LARGE);
    struct directory *d = directory_new(0, 1, NULL);
    struct member_cursor c;
    int64_t worst = 0;
    uint32_t visited = 0;
    for (uint32_t i = 0; i < LARGE; i++) {
        assert_int_equal(directory_add(d, &m[i]), 0);
    }
    directory_all_begin(d, &c);
    for (uint32_t i = 0; i < LARGE * 3 / 4; i++) {
        int64_t t = now_ns();
        directory_remove(d, &m[i]);
        t = now_ns() - t;
        worst = t > worst ? t : worst;
    }
    while (member_cursor_next(&c)) {
        visited++;
    }
    assert_int_equal(visited, LARGE / 4);
    member_cursor_end(d, &c);
    print_message("  longest remove %.0f us, of %d\n", (double)worst / 1e3, LARGE);
    assert_true(worst < PAUSE_NS_MAX);
    assert_null(directory_check(d));
    for (uint32_t i = LARGE * 3 / 4; i < LARGE; i++) {
        directory_remove(d, &m[i]);
    }
    directory_free(d);
    free(m);
}

static void leaving_by_name_does_not_depend_on_the_number_of_groups(void **state)
{
    enum { MEMBERSHIPS = 10000 };
    struct member *m = members_new(2);
    struct directory *d = directory_new(0, 1, NULL);
    char name[32];
    assert_int_equal(directory_add(d, &m[0]), 0);
    assert_int_equal(directory_add(d, &m[1]), 0);
    int64_t t = now_ns();
    for (uint32_t i = 0; i < MEMBERSHIPS; i++) {
        int len = snprintf(name, sizeof(name), "g%u", i);
        assert_int_equal(directory_group_join(d, &m[0], name, (size_t)len), 0);
        assert_int_equal(directory_group_join(d, &m[1], name, (size_t)len), 0);
    }
    report("join, of 10,000 groups", t, MEMBERSHIPS * 2);
    assert_null(directory_check(d));
    t = now_ns();
    for (uint32_t i = 0; i < MEMBERSHIPS; i++) {
        int len = snprintf(name, sizeof(name), "g%u", i);
        directory_group_leave(d, &m[0], name, (size_t)len);
    }
    report("leave, of 10,000 groups", t, MEMBERSHIPS);
    assert_int_equal(m[0].n_memberships, 0);
    assert_int_equal(m[1].n_memberships, MEMBERSHIPS);
    assert_null(directory_check(d));
    directory_remove(d, &m[0]);
    directory_remove(d, &m[1]);
    directory_free(d);
    free(m);
}

int main(void)
{
    hash_init_fixed(7);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_client_costs_at_most_250_bytes),
        cmocka_unit_test(no_growth_makes_a_long_pause),
        cmocka_unit_test(half_of_a_large_set_may_leave_under_a_cursor),
        cmocka_unit_test(leaving_by_name_does_not_depend_on_the_number_of_groups),
    };
    return cmocka_run_group_tests(tests, make_names, NULL);
}
