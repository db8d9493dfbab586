// SPDX-License-Identifier: MIT
/* Negotiation. What is compressed and decompressed: deflate_test.c. */
#include "proto/ws/deflate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static const struct ws_deflate_wish all = {true, true, 15, 15};

/* Offers: one header for each, up to NULL. What comes back is the answer without name and line end, or "". */
static const char *negotiate(const char *const *offers, const struct ws_deflate_wish *wish,
                             struct ws_deflate_params *ret)
{
    static struct http_request req;
    static char header[WS_DEFLATE_HEADER_MAX];
    static const char name[] = "Sec-WebSocket-Extensions: ";
    req.n_headers = 0;
    for (; *offers != NULL; offers++) {
        req.headers[req.n_headers++] =
            (struct http_header){SLICE_STR("X-Other"), SLICE_STR("permessage-deflate")};
        req.headers[req.n_headers++] = (struct http_header){SLICE_STR("sec-webSocket-extensions"),
                                                            {(const uint8_t *)*offers, strlen(*offers)}};
    }
    memset(header, 'x', sizeof header);
    if (!ws_deflate_negotiate(&req, wish, ret, header, sizeof header))
        return "";
    size_t len = strlen(header);
    assert_memory_equal(header, name, sizeof name - 1);
    assert_string_equal(header + len - 2, "\r\n");
    header[len - 2] = '\0';
    return header + sizeof name - 1;
}

static struct ws_deflate_params check_offer(const char *offer, const struct ws_deflate_wish *wish,
                                            const char *want)
{
    struct ws_deflate_params p = {0};
    assert_string_equal(negotiate((const char *[]){offer, NULL}, wish, &p), want);
    return p;
}

static void check_params(struct ws_deflate_params p, bool takeover, bool client_takeover, unsigned bits,
                         unsigned client_bits)
{
    assert_int_equal(p.takeover, takeover);
    assert_int_equal(p.client_takeover, client_takeover);
    assert_int_equal(p.window_bits, bits);
    assert_int_equal(p.client_window_bits, client_bits);
}

#define PMD "permessage-deflate"

static void nothing_offered_nothing_agreed(void **state)
{
    struct ws_deflate_params p;
    assert_string_equal(negotiate((const char *[]){NULL}, &all, &p), "");
    static const char *const none[] = {
        "",
        ",",
        " , ,",
        "foo",
        "foo; bar=1",
        "x-webkit-deflate-frame",
        "foo,bar",
        "permessage-bzip2",
        "permessage-deflatex",
        "permessage-deflat",
        "Permessage-Deflate",
    };
    for (size_t i = 0; i < COUNT(none); i++)
        check_offer(none[i], &all, "");
}

static void a_plain_offer(void **state)
{
    check_params(check_offer(PMD, &all, PMD), true, true, 15, 15);
    /* What we do not give we say, whether the client asked or not (sections 7.1.1.1 and 7.1.1.2). */
    struct ws_deflate_wish wish = {false, true, 15, 15};
    check_params(check_offer(PMD, &wish, PMD "; server_no_context_takeover"), false, true, 15, 15);
    wish = (struct ws_deflate_wish){true, false, 15, 15};
    check_params(check_offer(PMD, &wish, PMD "; client_no_context_takeover"), true, false, 15, 15);
    /* A smaller window of ours needs no consent and is not told; a client's cannot be asked for. */
    wish = (struct ws_deflate_wish){true, true, 10, 11};
    check_params(check_offer(PMD, &wish, PMD), true, true, 10, 15);
}

static void takeover_is_off_when_either_side_wants_it_off(void **state)
{
    check_params(check_offer(PMD "; server_no_context_takeover", &all, PMD "; server_no_context_takeover"),
                 false, true, 15, 15);
    check_params(check_offer(PMD "; client_no_context_takeover", &all, PMD "; client_no_context_takeover"),
                 true, false, 15, 15);
    struct ws_deflate_wish none = {false, false, 15, 15};
    const char *both = PMD "; server_no_context_takeover; client_no_context_takeover";
    check_params(check_offer(both, &all, both), false, false, 15, 15);
    check_params(check_offer(both, &none, both), false, false, 15, 15);
    check_params(check_offer(PMD "; client_no_context_takeover; server_no_context_takeover", &all, both),
                 false, false, 15, 15);
}

static void every_window_of_ours(void **state)
{
    for (unsigned asked = 8; asked <= 15; asked++) {
        for (unsigned wanted = 9; wanted <= 15; wanted++) {
            char offer[80], want[80];
            unsigned got = asked < wanted ? asked : wanted;
            struct ws_deflate_wish wish = {true, true, (uint8_t)wanted, 15};
            snprintf(offer, sizeof offer, PMD "; server_max_window_bits=%u", asked);
            snprintf(want, sizeof want, PMD "; server_max_window_bits=%u", got);
            if (asked == 8)
                check_offer(offer, &wish, "");
            else
                check_params(check_offer(offer, &wish, want), true, true, got, 15);
        }
    }
}

static void every_window_of_the_client(void **state)
{
    for (unsigned asked = 8; asked <= 15; asked++) {
        for (unsigned wanted = 9; wanted <= 15; wanted++) {
            char offer[80], want[80] = PMD;
            unsigned got = asked < wanted ? asked : wanted;
            struct ws_deflate_wish wish = {true, true, 15, (uint8_t)wanted};
            snprintf(offer, sizeof offer, PMD "; client_max_window_bits=%u", asked);
            if (got < 15)
                snprintf(want, sizeof want, PMD "; client_max_window_bits=%u", got);
            check_params(check_offer(offer, &wish, want), true, true, 15, got < 9 ? 9 : got);
        }
    }
    struct ws_deflate_wish wish = {true, true, 15, 12};
    check_params(check_offer(PMD "; client_max_window_bits", &all, PMD), true, true, 15, 15);
    check_params(check_offer(PMD "; client_max_window_bits", &wish, PMD "; client_max_window_bits=12"), true,
                 true, 15, 12);
}

static void all_parameters_at_once(void **state)
{
    struct ws_deflate_wish wish = {true, true, 12, 13};
    const char *offer = PMD ";client_max_window_bits=14;server_max_window_bits=15;"
                            "client_no_context_takeover;server_no_context_takeover";
    const char *want = PMD "; server_no_context_takeover; client_no_context_takeover; "
                           "server_max_window_bits=12; client_max_window_bits=13";
    check_params(check_offer(offer, &wish, want), false, false, 12, 13);
}

static void white_space_and_quotes(void **state)
{
    static const char *const same[] = {
        PMD ";server_max_window_bits=10",
        " \t" PMD " \t;\tserver_max_window_bits = 10 ",
        PMD "; server_max_window_bits=\"10\"",
        PMD "; server_max_window_bits=\"1\\0\"",
        PMD "; server_max_window_bits=\"\\1\\0\" ,foo",
        PMD "; server_max_window_bits= \"10\"\t",
        ",," PMD "; server_max_window_bits=10,,",
    };
    for (size_t i = 0; i < COUNT(same); i++)
        check_params(check_offer(same[i], &all, PMD "; server_max_window_bits=10"), true, true, 10, 15);
}

static void malformed_parameters_decline_the_offer(void **state)
{
    static const char *const bad[] = {
        /* values */
        "server_max_window_bits",
        "server_max_window_bits=",
        "server_max_window_bits=\"\"",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=0",
        "server_max_window_bits=08",
        "server_max_window_bits=010",
        "server_max_window_bits=100",
        "server_max_window_bits=1",
        "server_max_window_bits=1a",
        "server_max_window_bits=-9",
        "server_max_window_bits=+9",
        "server_max_window_bits=9.0",
        "server_max_window_bits=4294967305",
        "server_max_window_bits=8",
        "server_max_window_bits=true",
        "client_max_window_bits=",
        "client_max_window_bits=\"\"",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=09",
        "client_max_window_bits=015",
        "client_max_window_bits=150",
        "client_max_window_bits=1 5",
        "client_max_window_bits=\"1 5\"",
        "server_no_context_takeover=1",
        "server_no_context_takeover=true",
        "server_no_context_takeover=",
        "server_no_context_takeover=\"\"",
        "client_no_context_takeover=1",
        "client_no_context_takeover=\"a\"",
        /* twice */
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_max_window_bits; client_max_window_bits=10",
        "client_max_window_bits=10; client_no_context_takeover; client_max_window_bits=10",
        /* unknown */
        "foo",
        "foo=1",
        "foo=\"bar\"",
        "server_max_window_bit=10",
        "server_max_window_bitss=10",
        "Server_Max_Window_Bits=10",
        "max_window_bits=10",
        "mem_level=8",
        "server_no_context_takeover; foo",
        "foo; server_no_context_takeover",
        /* no list */
        "",
        ";",
        "; server_no_context_takeover",
        "server_no_context_takeover;",
        "=",
        "=10",
        "server_max_window_bits==10",
        "server_max_window_bits=10=10",
        "server_max_window_bits 10",
        "server_max_window_bits=10 client_max_window_bits",
        "server_max_window_bits:10",
        "server_max_window_bits=\"10",
        "server_max_window_bits=10\"",
        "server_max_window_bits=\"10\\",
        "server_max_window_bits=\"10\"0",
        "server_max_window_bits='10'",
        "server_max_window_bits=(10)",
        "server_max_window_bits=\x80",
        "\xC3\xA4",
        "server_no_context_takeover\x01",
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        char offers[300];
        snprintf(offers, sizeof offers, PMD "; %s", bad[i]);
        check_offer(offers, &all, "");
        /* It does not stand in the way of the next, unless that is in its quotes. */
        snprintf(offers, sizeof offers, PMD "; %s, " PMD "; server_max_window_bits=11", bad[i]);
        const char *quote = strchr(bad[i], '"');
        bool open = quote != NULL && (strchr(quote + 1, '"') == NULL);
        check_offer(offers, &all, open ? "" : PMD "; server_max_window_bits=11");
        struct ws_deflate_params p;
        snprintf(offers, sizeof offers, PMD "; %s", bad[i]);
        assert_string_equal(negotiate((const char *[]){offers, PMD, NULL}, &all, &p), PMD);
    }
    check_offer(PMD " foo", &all, "");
    check_offer(PMD "=1", &all, "");
    check_offer("\"" PMD "\"", &all, "");
}

static void the_first_acceptable_offer_is_taken(void **state)
{
    check_params(check_offer(PMD "; server_max_window_bits=8, " PMD "; client_max_window_bits, " PMD
                                 "; server_no_context_takeover",
                             &all, PMD),
                 true, true, 15, 15);
    check_params(
        check_offer(PMD "; server_max_window_bits=10, " PMD, &all, PMD "; server_max_window_bits=10"), true,
        true, 10, 15);
    check_params(check_offer("foo, bar; a=\"b, " PMD ", \\\", \"; c , " PMD "; server_no_context_takeover",
                             &all, PMD "; server_no_context_takeover"),
                 false, true, 15, 15);
    check_offer("foo; a=\"b, " PMD ", c\"", &all, "");
    check_offer(PMD "; foo=\"b a, " PMD ", c\"", &all, "");
    struct ws_deflate_params p;
    assert_string_equal(negotiate((const char *[]){"foo", "", PMD "; x",
                                                   "bar; y=1, " PMD "; server_max_window_bits=9", PMD, NULL},
                                  &all, &p),
                        PMD "; server_max_window_bits=9");
    check_params(p, true, true, 9, 15);
}

/* A list that is cut anywhere: an answer to what is whole, or none. */
static void cut_offers(void **state)
{
    static const char offer[] = PMD "; server_max_window_bits=\"1\\0\"; client_no_context_takeover";
    for (size_t n = 0; n < sizeof offer; n++) {
        char *cut = strndup(offer, n);
        const char *want = "";
        if (n == strlen(PMD) || n == strlen(PMD) + 1)
            want = n == strlen(PMD) ? PMD : "";
        else if (strcmp(cut, PMD "; server_max_window_bits=\"1\\0\"") == 0)
            want = PMD "; server_max_window_bits=10";
        else if (n == sizeof offer - 1)
            want = PMD "; client_no_context_takeover; server_max_window_bits=10";
        check_offer(cut, &all, want);
        free(cut);
    }
}

static void ret_is_untouched_when_nothing_is_agreed(void **state)
{
    struct ws_deflate_params p;
    memset(&p, 0x5A, sizeof p);
    negotiate((const char *[]){PMD "; server_max_window_bits=8", NULL}, &all, &p);
    assert_int_equal(p.window_bits, 0x5A);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_offered_nothing_agreed),
        cmocka_unit_test(a_plain_offer),
        cmocka_unit_test(takeover_is_off_when_either_side_wants_it_off),
        cmocka_unit_test(every_window_of_ours),
        cmocka_unit_test(every_window_of_the_client),
        cmocka_unit_test(all_parameters_at_once),
        cmocka_unit_test(white_space_and_quotes),
        cmocka_unit_test(malformed_parameters_decline_the_offer),
        cmocka_unit_test(the_first_acceptable_offer_is_taken),
        cmocka_unit_test(cut_offers),
        cmocka_unit_test(ret_is_untouched_when_nothing_is_agreed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
