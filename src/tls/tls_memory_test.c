// SPDX-License-Identifier: MIT
/* Bytes of a connection, as malloc counts them (with the 8 of its own), OpenSSL's and ours. */
#include "tls/tls_util_test.h"

#include <malloc.h>

#define IDLE_MAX 600

static bool counting;
static long counted;

static long cost(void *p)
{
    return p != NULL ? (long)malloc_usable_size(p) + 8 : 0;
}

/* Only what is allocated while counting; a block knows by its first word whether it was. */
struct head {
    bool counted;
    _Alignas(16) uint8_t data[];
};
static void *count_malloc(size_t n, const char *file, int line)
{
    struct head *h = malloc(sizeof *h + n);
    if (h == NULL)
        return NULL;
    h->counted = counting;
    if (counting)
        counted += cost(h) - (long)sizeof *h;
    return h->data;
}
static void count_free(void *p, const char *file, int line)
{
    if (p == NULL)
        return;
    struct head *h = (struct head *)((uint8_t *)p - offsetof(struct head, data));
    if (h->counted)
        counted -= cost(h) - (long)sizeof *h;
    free(h);
}
static void *count_realloc(void *p, size_t n, const char *file, int line)
{
    void *q = count_malloc(n, file, line);
    if (p == NULL || q == NULL)
        return q;
    struct head *h = (struct head *)((uint8_t *)p - offsetof(struct head, data));
    size_t had = malloc_usable_size(h) - sizeof *h;
    memcpy(q, p, had < n ? had : n);
    count_free(p, file, line);
    return q;
}

static struct tls_context *ctx;
static struct ticket_keys keys = {.n = 1, .keys[0] = {.name = {1}}};

static int free_all(void **state)
{
    tls_context_free(ctx);
    SSL_SESSION_free(util_session);
    return remove_util_dir(state);
}

/* The server's part of what the client has to say. */
static enum tls_result count_feed(struct client *c, struct server *s)
{
    struct slice d = client_out(c);
    counting = true;
    enum tls_result r = tls_conn_feed(s->t, d.data, d.len);
    counting = false;
    BIO_reset(c->out);
    to_client(s, c);
    return r;
}

static void count_start(struct client *c, struct server *s, int version)
{
    counted = 0;
    server_init(s, ctx);
    client_init(c, (struct client_options){.version = version, .server_name = "a.example"});
    (void)SSL_do_handshake(c->ssl);
    assert_int_equal(count_feed(c, s), TLS_OK);
}

static void count_end(struct client *c, struct server *s)
{
    server_fini(s);
    client_fini(c);
    assert_int_equal(counted, 0); /* no leak */
}

static void count_open(struct client *c, struct server *s, int version)
{
    count_start(c, s, version);
    (void)SSL_do_handshake(c->ssl);
    assert_int_equal(count_feed(c, s), TLS_HANDSHAKEN);
    s->echo = true;
    client_write(c, "hello", 5);
    assert_int_equal(count_feed(c, s), TLS_OK);
}

static int make_all(void **state)
{
    assert_int_equal(make_util_dir(state), 0);
    struct identity id = make_identity((struct identity_options){.cn = "a", .san = "DNS:a.example"});
    write_pem("a.pem", id.cert, NULL, id.key);
    free_identity(&id);
    ctx = need_context("tls_certificate = @/a.pem\n", &keys);
    for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++) { /* what is made once for all */
        struct server s;
        struct client c;
        count_open(&c, &s, v);
        server_fini(&s);
        client_fini(&c);
    }
    return 0;
}
static void an_idle_connection(void **state)
{
    for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++) {
        struct server s;
        struct client c;
        count_open(&c, &s, v);
        assert_int_equal(counted, 0); /* nothing of OpenSSL's is left */
        long said = (long)tls_conn_memory(s.t);
        print_message("TLS 1.%d: an idle connection has %ld bytes\n", v - TLS1_VERSION, said);
        assert_in_range(said, cost(s.t), IDLE_MAX);
        count_end(&c, &s);
    }
}

static void nothing_stays_after_a_change_of_keys(void **state)
{
    struct server s;
    struct client c;
    count_open(&c, &s, TLS1_3_VERSION);
    long before = counted;
    for (unsigned i = 0; i < 3; i++) {
        SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED);
        client_write(&c, "hello", 5);
        assert_int_equal(count_feed(&c, &s), TLS_OK);
    }
    assert_int_equal(counted, before);
    count_end(&c, &s);
}

static void nothing_stays_after_large_messages(void **state)
{
    static uint8_t data[100000];
    struct server s;
    struct client c;
    count_open(&c, &s, TLS1_2_VERSION);
    long before = counted;
    client_write(&c, data, sizeof data);
    assert_int_equal(count_feed(&c, &s), TLS_OK);
    assert_int_equal(counted, before);
    assert_int_equal(tls_conn_write(s.t, data, TLS_RECORD_MAX), TLS_RECORD_MAX);
    assert_int_equal(counted, before);
    count_end(&c, &s);
}

/* Before it is known that it speaks TLS: nothing of OpenSSL's, and of ours what it sent. */
static void a_client_that_says_little(void **state)
{
    struct server s;
    server_init(&s, ctx);
    assert_true(tls_conn_memory(s.t) < 256);
    counting = true;
    counted = 0;
    assert_int_equal(tls_conn_feed(s.t, (const uint8_t *)"\x16\x03\x01\x02", 4), TLS_OK);
    assert_int_equal(tls_conn_feed(s.t, (const uint8_t *)"\x00\x01", 2), TLS_OK);
    counting = false;
    assert_int_equal(counted, 0);
    assert_true(tls_conn_memory(s.t) < 256);
    server_fini(&s);
}

static void a_handshake_that_waits(void **state)
{
    for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++) {
        struct server s;
        struct client c;
        count_start(&c, &s, v);
        print_message("TLS 1.%d: a handshake that waits has %ld bytes\n", v - TLS1_VERSION, counted);
        assert_in_range(counted, 1, 48 * 1024);
        count_end(&c, &s);
    }
}

int main(void)
{
    if (CRYPTO_set_mem_functions(count_malloc, count_realloc, count_free) != 1)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_connection),
        cmocka_unit_test(nothing_stays_after_a_change_of_keys),
        cmocka_unit_test(nothing_stays_after_large_messages),
        cmocka_unit_test(a_client_that_says_little),
        cmocka_unit_test(a_handshake_that_waits),
    };
    return cmocka_run_group_tests(tests, make_all, free_all);
}
