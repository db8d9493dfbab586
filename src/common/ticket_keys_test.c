// SPDX-License-Identifier: MIT
#include "common/ticket_keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* Keys whose every byte is `fill`. */
static struct ticket_keys keys_of(uint8_t fill)
{
    struct ticket_keys k = {.n = 1u + fill % TICKET_KEYS_MAX, .lifetime_s = fill};
    memset(k.keys, fill, sizeof k.keys);
    return k;
}

static void what_is_written_is_read(void **state)
{
    struct ticket_keys shared = {0}, out;
    assert_true(ticket_keys_read(&shared, &out));
    assert_int_equal(out.n, 0);
    struct ticket_keys in = keys_of(7);
    in.version = 99; /* not looked at */
    ticket_keys_write(&shared, &in);
    assert_true(ticket_keys_read(&shared, &out));
    assert_int_equal(out.version, 2);
    assert_int_equal(out.n, in.n);
    assert_int_equal(out.lifetime_s, 7);
    assert_memory_equal(out.keys, in.keys, sizeof in.keys);
    ticket_keys_write(&shared, &in);
    assert_int_equal(shared.version, 4);
}

static void a_dead_writer_is_seen_and_the_next_one_repairs(void **state)
{
    struct ticket_keys shared = keys_of(1), in = keys_of(2), out;
    memset(&out, 0x55, sizeof out);
    shared.version = 5;
    assert_false(ticket_keys_read(&shared, &out));
    assert_int_equal(out.n, 0x55555555); /* untouched */
    ticket_keys_write(&shared, &in);
    assert_int_equal(shared.version, 6);
    assert_true(ticket_keys_read(&shared, &out));
    assert_memory_equal(out.keys, in.keys, sizeof in.keys);
}

static void a_count_that_cannot_be_is_refused(void **state)
{
    struct ticket_keys shared = keys_of(3), out;
    shared.n = TICKET_KEYS_MAX + 1;
    assert_false(ticket_keys_read(&shared, &out));
}

static void the_version_wraps(void **state)
{
    struct ticket_keys shared = {.version = UINT32_MAX - 1}, in = keys_of(9), out;
    ticket_keys_write(&shared, &in);
    assert_int_equal(shared.version, 0);
    assert_true(ticket_keys_read(&shared, &out));
    assert_int_equal(out.lifetime_s, 9);
}

static bool all_of(const struct ticket_keys *k)
{
    const uint8_t *p = (const uint8_t *)k->keys;
    for (size_t i = 0; i < sizeof k->keys; i++)
        if (p[i] != k->lifetime_s)
            return false;
    return k->n == 1u + k->lifetime_s % TICKET_KEYS_MAX;
}

/* Another process writes all the time: every copy is of one writing. */
static void copies_belong_together(void **state)
{
    struct ticket_keys *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(shared, MAP_FAILED);
    struct ticket_keys first = keys_of(0);
    ticket_keys_write(shared, &first);
    pid_t pid = fork();
    assert_int_not_equal(pid, -1);
    if (pid == 0) {
        for (unsigned i = 0; i < 400000; i++) {
            struct ticket_keys k = keys_of((uint8_t)i);
            ticket_keys_write(shared, &k);
        }
        _exit(0);
    }
    unsigned reads = 0, changes = 0;
    uint32_t last = 0;
    while (waitpid(pid, NULL, WNOHANG) == 0) {
        struct ticket_keys k;
        if (!ticket_keys_read(shared, &k))
            continue; /* no luck for 2000 tries: allowed */
        assert_true(all_of(&k));
        changes += k.version != last;
        last = k.version;
        reads++;
    }
    assert_true(reads > 0);
    assert_true(changes > 0);
    munmap(shared, sizeof *shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_dead_writer_is_seen_and_the_next_one_repairs),
        cmocka_unit_test(a_count_that_cannot_be_is_refused),
        cmocka_unit_test(the_version_wraps),
        cmocka_unit_test(copies_belong_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
