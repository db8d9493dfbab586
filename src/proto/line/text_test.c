// SPDX-License-Identifier: MIT
#include "proto/line/text.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* What came so far, in a block of exactly its size; messages are taken as they become whole. */
struct run {
    struct bytes buffer, log;
    size_t scanned, limit;
    ssize_t error;
};

static ssize_t take(struct run *r, struct slice *ret)
{
    uint8_t *exact = malloc(r->buffer.len);
    memcpy(exact, r->buffer.data, r->buffer.len);
    ssize_t n = text_decode(exact, r->buffer.len, &r->scanned, r->limit, ret);
    if (n > 0)
        ret->data = r->buffer.data + (ret->data - exact);
    free(exact);
    return n;
}

static void feed(struct run *r, const char *data, size_t len)
{
    struct slice message;
    ssize_t n;
    if (r->error != 0 || len == 0)
        return;
    bytes_append(&r->buffer, data, len);
    while (r->buffer.len > 0 && (n = take(r, &message)) != 0) {
        if (n < 0) {
            r->error = n;
            return;
        }
        bytes_append_byte(&r->log, '<');
        bytes_append(&r->log, message.data, message.len);
        bytes_append_byte(&r->log, '>');
        bytes_consume(&r->buffer, (size_t)n);
    }
}

static void finish(struct run *r, const char *want, ssize_t error)
{
    bytes_append_byte(&r->log, '\0');
    assert_string_equal((char *)r->log.data, want);
    assert_int_equal(r->error, error);
    bytes_fini(&r->log);
    bytes_fini(&r->buffer);
}

static void check(const char *in, size_t limit, const char *want, ssize_t error)
{
    size_t len = strlen(in);
    for (size_t split = 0; split <= len; split++) {
        struct run r = {.limit = limit};
        feed(&r, in, split);
        feed(&r, in + split, len - split);
        finish(&r, want, error);
    }
    struct run r = {.limit = limit};
    for (size_t i = 0; i < len; i++)
        feed(&r, in + i, 1);
    finish(&r, want, error);
}

static void lines_are_messages(void **state)
{
    check("", 100, "", 0);
    check("one", 100, "", 0);
    check("one\n", 100, "<one>", 0);
    check("one\ntwo\nthr", 100, "<one><two>", 0);
}

static void empty_lines_are_empty_messages(void **state)
{
    check("\n\n\r\na\n", 100, "<><><><a>", 0);
}

static void line_ends_are_trimmed_as_php_does(void **state)
{
    check("a\r\nb\r\r\r\nc\rd\r\n\re\n \n", 100, "<a><b><c\rd><\re>< >", 0);
}

static void the_limit_counts_bytes_before_the_newline(void **state)
{
    check("12345\n", 5, "<12345>", 0);
    check("123456\n", 5, "", -EMSGSIZE);
    check("1\n123456", 5, "<1>", -EMSGSIZE);
    check("1234\r\n", 5, "<1234>", 0);
    check("12345\r\n", 5, "", -EMSGSIZE);
    check("\n", 0, "<>", 0);
    check("1\n", 0, "", -EMSGSIZE);
}

/* A byte that was looked at is not looked at again: a newline put there afterwards stays unseen. */
static void nothing_is_scanned_twice(void **state)
{
    uint8_t data[] = "abcdef";
    size_t scanned = 0;
    struct slice message;
    assert_int_equal(text_decode(data, 3, &scanned, 100, &message), 0);
    assert_int_equal(scanned, 3);
    data[1] = '\n';
    assert_int_equal(text_decode(data, 6, &scanned, 100, &message), 0);
    data[5] = '\n';
    scanned = 5;
    assert_int_equal(text_decode(data, 6, &scanned, 100, &message), 6);
    assert_int_equal(scanned, 0);
}

static void encoding_appends_a_newline(void **state)
{
    uint8_t out[8];
    assert_int_equal(text_encode(out, "abc", 3), 4);
    assert_memory_equal(out, "abc\n", 4);
    assert_int_equal(text_encode(out, NULL, 0), 1);
    assert_memory_equal(out, "\n", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_messages),
        cmocka_unit_test(empty_lines_are_empty_messages),
        cmocka_unit_test(line_ends_are_trimmed_as_php_does),
        cmocka_unit_test(the_limit_counts_bytes_before_the_newline),
        cmocka_unit_test(nothing_is_scanned_twice),
        cmocka_unit_test(encoding_appends_a_newline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
