// SPDX-License-Identifier: MIT
#include "common/counters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void every_counter_has_a_name_of_its_own_and_help(void **state)
{
    for (unsigned i = 0; i < COUNTER_N; i++) {
        assert_non_null(counter_infos[i].name);
        assert_true(strlen(counter_infos[i].help) > 0);
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(counter_infos[i].name, counter_infos[j].name);
    }
}

static void ids_and_names_agree(void **state)
{
    assert_string_equal(counter_infos[COUNTER_client_accepted].name, "client_accepted");
    assert_int_equal(counter_infos[COUNTER_client_accepted].kind, COUNTER_KIND_COUNTER);
    assert_string_equal(counter_infos[COUNTER_clients].name, "clients");
    assert_int_equal(counter_infos[COUNTER_clients].kind, COUNTER_KIND_GAUGE);
    assert_string_equal(counter_infos[COUNTER_CLOSE_FIRST + CLOSE_kicked].name, "client_closed_kicked");
    assert_int_equal(counter_infos[COUNTER_CLOSE_FIRST + CLOSE_kicked].kind, COUNTER_KIND_CLOSE);
    assert_string_equal(counter_infos[COUNTER_DROP_FIRST + DROP_client_gone].name, "dropped_client_gone");
    assert_int_equal(counter_infos[COUNTER_DROP_FIRST + DROP_client_gone].kind, COUNTER_KIND_DROP);
    assert_string_equal(close_reason_name(CLOSE_peer_close_frame), "peer_close_frame");
    assert_string_equal(drop_reason_name(DROP_no_memory), "no_memory");
    assert_true(strlen(close_reason_help(CLOSE_peer)) > 0);
}

static void the_first_and_last_of_each_kind_stand_inside_the_array(void **state)
{
    assert_int_equal(counter_infos[COUNTER_DROP_FIRST].kind, COUNTER_KIND_DROP);
    assert_int_not_equal(counter_infos[COUNTER_DROP_FIRST - 1].kind, COUNTER_KIND_DROP);
    assert_int_equal(counter_infos[COUNTER_CLOSE_FIRST].kind, COUNTER_KIND_CLOSE);
    assert_int_equal(counter_infos[COUNTER_CLOSE_FIRST - 1].kind, COUNTER_KIND_DROP);
    assert_int_equal(counter_infos[COUNTER_N - 1].kind, COUNTER_KIND_CLOSE);
}

static void adding_setting_and_clearing(void **state)
{
    struct counters c = {0};
    counter_add(&c, COUNTER_client_accepted, 2);
    counter_add(&c, COUNTER_client_accepted, 3);
    counter_set(&c, COUNTER_clients, 7);
    counter_sub(&c, COUNTER_clients, 1);
    counter_close(&c, CLOSE_peer);
    counter_drop(&c, DROP_client_gone);
    counter_drop(&c, DROP_client_gone);
    assert_int_equal(counter_get(&c, COUNTER_client_accepted), 5);
    assert_int_equal(counter_get(&c, COUNTER_clients), 6);
    assert_int_equal(counter_close_get(&c, CLOSE_peer), 1);
    assert_int_equal(counter_drop_get(&c, DROP_client_gone), 2);
    counters_clear_gauges(&c);
    assert_int_equal(counter_get(&c, COUNTER_clients), 0);
    assert_int_equal(counter_get(&c, COUNTER_client_accepted), 5);
    assert_int_equal(counter_close_get(&c, CLOSE_peer), 1);
}

static char *written(void (*write)(FILE *, const struct counters *), const struct counters *c)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    write(f, c);
    fclose(f);
    return text;
}

static void written_as_text_and_json(void **state)
{
    struct counters c = {0};
    counter_set(&c, COUNTER_client_accepted, 18446744073709551615u);
    char *text = written(counters_write_text, &c);
    assert_non_null(strstr(text, "client_accepted 18446744073709551615\n"));
    assert_non_null(strstr(text, "\nclient_closed_no_memory 0\n"));
    free(text);
    text = written(counters_write_json, &c);
    assert_memory_equal(text, "\"client_accepted\":18446744073709551615,", 39);
    assert_null(strstr(text, ",,"));
    assert_int_not_equal(text[strlen(text) - 1], ',');
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_counter_has_a_name_of_its_own_and_help),
        cmocka_unit_test(ids_and_names_agree),
        cmocka_unit_test(the_first_and_last_of_each_kind_stand_inside_the_array),
        cmocka_unit_test(adding_setting_and_clearing),
        cmocka_unit_test(written_as_text_and_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
