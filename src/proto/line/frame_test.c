// SPDX-License-Identifier: MIT
#include "proto/line/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static ssize_t decode(const char *data, size_t len, size_t limit, struct slice *ret)
{
    return frame_decode((const uint8_t *)data, len, limit, ret);
}

static void a_frame_at_every_split(void **state)
{
    static const char in[] = "\0\0\0\x08"
                             "abcd\0\0\0\x04\0\0\0\x05x";
    struct slice m;
    for (size_t n = 0; n < 8; n++) {
        uint8_t *exact = malloc(n > 0 ? n : 1);
        memcpy(exact, in, n);
        assert_int_equal(frame_decode(exact, n, 100, &m), 0);
        free(exact);
    }
    for (size_t n = 8; n < sizeof in; n++) {
        assert_int_equal(decode(in, n, 100, &m), 8);
        assert_true(slice_eq_str(m, "abcd"));
    }
}

static void frames_in_a_row(void **state)
{
    static const char in[] = "\0\0\0\x08"
                             "abcd\0\0\0\x04\0\0\0\x05x";
    struct slice m;
    assert_int_equal(decode(in + 8, sizeof in - 1 - 8, 100, &m), 4);
    assert_int_equal(m.len, 0);
    assert_int_equal(decode(in + 12, sizeof in - 1 - 12, 100, &m), 5);
    assert_true(slice_eq_str(m, "x"));
}

static void a_length_counts_itself(void **state)
{
    struct slice m;
    assert_int_equal(decode("\0\0\0\x00", 4, 100, &m), -EPROTO);
    assert_int_equal(decode("\0\0\0\x03", 4, 100, &m), -EPROTO);
    assert_int_equal(decode("\0\0\0\x04", 4, 100, &m), 4);
}

static void the_limit_counts_the_length_too(void **state)
{
    struct slice m;
    assert_int_equal(decode("\0\0\0\x08", 4, 7, &m), -EMSGSIZE);
    assert_int_equal(decode("\0\0\0\x08", 4, 8, &m), 0);
    assert_int_equal(decode("\0\0\0\x08", 3, 7, &m), 0);
    assert_int_equal(decode("\xFF\xFF\xFF\xFF", 4, 10 << 20, &m), -EMSGSIZE);
    assert_int_equal(decode("\x80\0\0\0", 4, SIZE_MAX, &m), 0);
}

static void encoding_is_read_back(void **state)
{
    uint8_t out[300], payload[256];
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)i;
    for (size_t len = 0; len <= sizeof payload; len++) {
        struct slice m;
        assert_int_equal(frame_encode(out, payload, len), len + 4);
        assert_int_equal(frame_decode(out, len + 4, 1000, &m), len + 4);
        assert_int_equal(m.len, len);
        assert_memory_equal(m.data, payload, len);
    }
    assert_int_equal(frame_header(out, 0x01020300), 4);
    assert_memory_equal(out, "\x01\x02\x03\x04", 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_at_every_split), cmocka_unit_test(frames_in_a_row),
        cmocka_unit_test(a_length_counts_itself), cmocka_unit_test(the_limit_counts_the_length_too),
        cmocka_unit_test(encoding_is_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
