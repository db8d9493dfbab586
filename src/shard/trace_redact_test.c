// SPDX-License-Identifier: MIT
#include "shard/trace_redact.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define NAMES "password, token,cookie"

static void check(const char *text, const char *expected)
{
    struct bytes out = {0};
    trace_redact(&out, (const uint8_t *)text, strlen(text), NAMES);
    bytes_append_byte(&out, 0);
    assert_string_equal((const char *)out.data, expected);
    bytes_fini(&out);
}

static void json(void **state)
{
    check("{\"password\":\"hunter2\",\"a\":1}", "{\"password\":\"***\",\"a\":1}");
    check("{\"Access_Token\" : \"a\\\"b\\\\\",\"a\":1}", "{\"Access_Token\" : \"***\",\"a\":1}");
    check("{\"token\":123,\"a\":1}", "{\"token\":***,\"a\":1}");
    check("{\"token\":{\"a\":1},\"b\":2}", "{\"token\":***");
    check("{\"tokens\":\"seen\",\"tokenizer\":1}", "{\"tokens\":\"seen\",\"tokenizer\":1}");
    check("\"password\"", "\"password\"");
}

static void json_in_a_string(void **state)
{
    check("{\"body\":\"{\\\"password\\\":\\\"x\\\",\\\"b\\\":1}\"}",
          "{\"body\":\"{\\\"password\\\":\\\"***\\\",\\\"b\\\":1}\"}");
}

static void forms_and_headers(void **state)
{
    check("a=1&password=x y&token=z", "a=1&password=*** y&token=***");
    check("GET / HTTP/1.1\r\nCookie: a=b; c=d, e\r\nHost: x\r\n",
          "GET / HTTP/1.1\r\nCookie: ***\r\nHost: x\r\n");
}

static void what_is_cut_off_is_masked_to_the_end(void **state)
{
    check("{\"password\":\"hunt", "{\"password\":\"***");
    check("password=", "password=***");
    check("passwor", "passwor");
}

/* No byte of the secret is ever seen, wherever the text is cut. */
static void at_every_cut(void **state)
{
    static const char text[] = "{\"a\":\"b\",\"password\" : \"ZZ\\\"ZZ\",\"c\":\"d\"}";
    for (size_t len = 0; len < sizeof text; len++) {
        struct bytes out = {0};
        trace_redact(&out, (const uint8_t *)text, len, NAMES);
        assert_true(out.len == 0 || memchr(out.data, 'Z', out.len) == NULL);
        bytes_fini(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json),
        cmocka_unit_test(json_in_a_string),
        cmocka_unit_test(forms_and_headers),
        cmocka_unit_test(what_is_cut_off_is_masked_to_the_end),
        cmocka_unit_test(at_every_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
