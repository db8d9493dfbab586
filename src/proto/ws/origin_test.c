// SPDX-License-Identifier: MIT
#include "proto/ws/handshake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct http_request req;

/* A request with these values of Origin (up to a NULL). The text is copied exactly, so that a look past it
 * shows. */
static bool allowed_all(const char *list, const char *const *origins)
{
    char *text[4] = {NULL};
    unsigned n = 0;
    req = (struct http_request){.headers = {{SLICE_STR("Host"), SLICE_STR("example.com")}}, .n_headers = 1};
    for (; origins[n] != NULL; n++) {
        size_t len = strlen(origins[n]);
        text[n] = malloc(len > 0 ? len : 1);
        memcpy(text[n], origins[n], len);
        req.headers[req.n_headers++] =
            (struct http_header){SLICE_STR("oRIGIN"), {(const uint8_t *)text[n], len}};
    }
    bool allowed = ws_origin_allowed(&req, list);
    while (n > 0)
        free(text[--n]);
    return allowed;
}

static bool allowed(const char *list, const char *origin)
{
    return allowed_all(list, (const char *const[]){origin, NULL});
}

static void assert_all(bool want, const char *list, const char *const *origins, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (allowed(list, origins[i]) != want)
            fail_msg("%s: %s", list, origins[i] == NULL ? "(none)" : origins[i]);
}

#define ALLOWS(list, ...)                                                                                    \
    assert_all(true, list, (const char *const[]){__VA_ARGS__},                                               \
               sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))
#define REFUSES(list, ...)                                                                                   \
    assert_all(false, list, (const char *const[]){__VA_ARGS__},                                              \
               sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void without_a_list_all_come_in(void **state)
{
    ALLOWS("", NULL, "https://example.com", "null", "nonsense", "");
    ALLOWS(" , ,", NULL, "https://example.com", "null");
    assert_true(allowed_all("", (const char *const[]){"https://a", "https://b", NULL}));
}

static void an_origin_on_the_list(void **state)
{
    ALLOWS("https://example.com", "https://example.com", "HTTPS://EXAMPLE.com");
    ALLOWS("http://a.org, https://Example.com ,https://b.org", "https://example.com", "http://a.org",
           "https://b.org");
    REFUSES("https://example.com", NULL, "", "null", "http://example.com", "wss://example.com",
            "https://example.org", "https://www.example.com", "https://example.com.evil.com",
            "https://evil-example.com", "https://example.co", "https://example.comm", "https://example.com.",
            "example.com", "https:example.com", "https:/example.com", "//example.com", "://example.com");
}

static void the_default_port_may_be_missing(void **state)
{
    ALLOWS("https://example.com", "https://example.com:443");
    ALLOWS("https://example.com:443", "https://example.com", "https://example.com:443");
    ALLOWS("http://example.com:80", "http://example.com");
    ALLOWS("ws://example.com", "ws://example.com:80");
    ALLOWS("wss://example.com:443", "wss://example.com");
    ALLOWS("https://example.com:8443", "https://example.com:8443");
    REFUSES("https://example.com", "https://example.com:80", "https://example.com:8443",
            "http://example.com:443", "https://example.com:", "https://example.com:0",
            "https://example.com:0443", "https://example.com:65979", "https://example.com:443x",
            "https://example.com:4294967739", "https://example.com: 443", "https://example.com:+443");
    REFUSES("https://example.com:8443", "https://example.com", "https://example.com:443");
    REFUSES("http://example.com:443", "http://example.com", "https://example.com");
}

static void a_wildcard_stands_for_labels(void **state)
{
    static const char list[] = "https://*.example.com";
    ALLOWS(list, "https://www.example.com", "https://a.b.example.com", "https://a.b.c-d.EXAMPLE.com",
           "https://x.example.com:443", "https://example.com.example.com", "https://1_a.example.com");
    REFUSES(list, NULL, "null", "https://example.com", "https://.example.com", "https://a..example.com",
            "https://evil-example.com", "https://evilexample.com", "https://www.example.com.evil.com",
            "http://www.example.com", "https://www.example.com:8443", "https://*.example.com",
            "https://a.example.com.", "https://www.example.org", "https://example.comwww.example.co");
    ALLOWS("https://*.example.com:8443", "https://www.example.com:8443");
    REFUSES("https://*.example.com:8443", "https://www.example.com", "https://example.com:8443");
}

/* What makes some parsers see another host than browsers do. */
static void nothing_but_a_host_is_a_host(void **state)
{
    REFUSES("https://*.example.com, https://example.com", "https://evil.com/.example.com",
            "https://evil.com#.example.com", "https://evil.com?.example.com",
            "https://evil.com\\.example.com", "https://evil.com:443.example.com", "https://a@www.example.com",
            "https://www.example.com@evil.com", "https://evil.com%2F.example.com",
            "https://evil.com .example.com", "https://evil.com, https://example.com",
            "https://example.com https://evil.com", "https://example.com/", "https://www.example.com/",
            "https://[evil.com].example.com", "https://[a.example.com]", "https://\xE4\xB8\xAD.example.com",
            "https://https://example.com", " https://example.com", "https://evil.com\t.example.com");
    assert_false(allowed_all("https://example.com",
                             (const char *const[]){"https://example.com", "https://example.com", NULL}));
    assert_false(allowed_all("https://example.com",
                             (const char *const[]){"https://evil.com", "https://example.com", NULL}));
}

static void ipv6_hosts(void **state)
{
    ALLOWS("http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080", "http://[2001:DB8:0:0::1]:8080");
    ALLOWS("http://[0:0:0:0:0:0:0:1]", "http://[::1]", "http://[::1]:80");
    REFUSES("http://[::1]", "http://[::2]", "http://::1", "http://[::1", "http://[::1]8080", "http://[::1]x",
            "http://[::1]:", "http://[::1]:8080", "http://[::1%25lo]", "http://localhost", "http://[]",
            "http://[");
    REFUSES("http://*.[::1]", "http://[a.[::1]", "http://[::1]", "http://a.[::1]");
    ALLOWS("http://127.0.0.1:3000", "http://127.0.0.1:3000");
    REFUSES("http://127.0.0.1", "http://[::ffff:127.0.0.1]");
}

static void requests_without_origin(void **state)
{
    ALLOWS("none", NULL);
    ALLOWS("https://example.com, none", NULL, "https://example.com");
    REFUSES("none", "", "null", "none", "https://example.com", "none://none");
    REFUSES("https://example.com", NULL);
}

static void pages_without_origin(void **state)
{
    ALLOWS("null", "null");
    REFUSES("null", NULL, "", "NULL", "none", "https://null", "null://null");
    REFUSES("none", "null");
    REFUSES("https://*.example.com, https://null, http://*.null", "null");
}

static void applications_have_schemes_of_their_own(void **state)
{
    ALLOWS("chrome-extension://abcdefgh", "chrome-extension://abcdefgh");
    ALLOWS("capacitor://localhost, ionic://localhost", "capacitor://localhost", "ionic://localhost");
    ALLOWS("file://", "file://");
    ALLOWS("app+x.1://host:1", "app+x.1://host:1");
    REFUSES("capacitor://localhost", "http://localhost", "capacitor://localhost:80",
            "capacitor://localhost:0", "capacitor://");
    REFUSES("file://", "file:///etc", "file:", "null", "http://");
}

static void items_that_are_none_match_nothing(void **state)
{
    REFUSES("*", NULL, "*", "https://example.com", "null");
    REFUSES("example.com", "example.com", "https://example.com");
    REFUSES("https://", "https://example.com");
    REFUSES("https://*", "https://example.com", "https://");
    REFUSES("https://*.", "https://example.com", "https://a.", "https://");
    REFUSES("https://www.*.com", "https://www.example.com");
    REFUSES("https://example.com/", "https://example.com", "https://example.com/");
    ALLOWS("https://example.com/, https://example.com", "https://example.com");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_list_all_come_in),
        cmocka_unit_test(an_origin_on_the_list),
        cmocka_unit_test(the_default_port_may_be_missing),
        cmocka_unit_test(a_wildcard_stands_for_labels),
        cmocka_unit_test(nothing_but_a_host_is_a_host),
        cmocka_unit_test(ipv6_hosts),
        cmocka_unit_test(requests_without_origin),
        cmocka_unit_test(pages_without_origin),
        cmocka_unit_test(applications_have_schemes_of_their_own),
        cmocka_unit_test(items_that_are_none_match_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
