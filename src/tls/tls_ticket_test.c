// SPDX-License-Identifier: MIT
/* Resumption: two contexts are two shards; the keys are in memory that they share. */
#include "tls/tls_util_test.h"

static struct ticket_keys shared;
static struct tls_context *one, *two;

#define A "tls_certificate = @/a.pem\n"

static void set_keys(const uint8_t *numbers, uint32_t n)
{
    struct ticket_keys k = {.n = n, .lifetime_s = 600};
    for (uint32_t i = 0; i < n; i++) {
        memset(k.keys[i].name, numbers[i], sizeof k.keys[i].name);
        memset(k.keys[i].aes, numbers[i] ^ 0x55, sizeof k.keys[i].aes);
        memset(k.keys[i].hmac, numbers[i] ^ 0xaa, sizeof k.keys[i].hmac);
    }
    ticket_keys_write(&shared, &k);
}
#define SET_KEYS(...)                                                                                        \
    set_keys((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}) / sizeof(uint8_t))

static int make_all(void **state)
{
    assert_int_equal(make_util_dir(state), 0);
    struct identity id = make_identity((struct identity_options){.cn = "a", .san = "DNS:a.example"});
    struct identity b = make_identity((struct identity_options){.cn = "b", .san = "DNS:b.example"});
    struct identity ca = make_identity((struct identity_options){.cn = "ca", .ca = true});
    struct identity renewed = make_identity((struct identity_options){.cn = "a", .san = "DNS:a.example"});
    write_pem("a.pem", id.cert, NULL, id.key);
    write_pem("renewed.pem", renewed.cert, NULL, renewed.key);
    write_pem("b.pem", b.cert, NULL, b.key);
    write_pem("ca.pem", ca.cert, NULL, NULL);
    write_pem("ca_b.pem", b.cert, NULL, NULL);
    free_identity(&id);
    free_identity(&renewed);
    free_identity(&b);
    free_identity(&ca);
    SET_KEYS(1);
    one = need_context(A, &shared);
    two = need_context(A, &shared);
    return 0;
}

static int free_all(void **state)
{
    tls_context_free(one);
    tls_context_free(two);
    SSL_SESSION_free(util_session);
    return remove_util_dir(state);
}

static int before_each(void **state)
{
    SET_KEYS(1);
    SSL_SESSION_free(util_session);
    util_session = NULL;
    return 0;
}

static bool same_ticket(const SSL_SESSION *a, const SSL_SESSION *b)
{
    const unsigned char *x = NULL, *y = NULL;
    size_t x_len = 0, y_len = 0;
    if (a != NULL)
        SSL_SESSION_get0_ticket(a, &x, &x_len);
    if (b != NULL)
        SSL_SESSION_get0_ticket(b, &y, &y_len);
    return x_len == y_len && (x_len == 0 || memcmp(x, y, x_len) == 0);
}

/* A connection with the session that the last one left; whether it was resumed. A new ticket, if one comes,
 * is in util_session. */
static bool resumed(struct tls_context *ctx, int version, bool *ret_new_ticket)
{
    struct server s;
    struct client c;
    struct tls_info info;
    SSL_SESSION *session = util_session;
    if (session != NULL)
        SSL_SESSION_up_ref(session);
    server_init(&s, ctx);
    client_init(&c,
                (struct client_options){.version = version, .session = session, .server_name = "a.example"});
    assert_true(shake_hands(&c, &s));
    echo_once(&c, &s); /* TLS 1.3: the ticket is read here */
    tls_conn_info(s.t, &info);
    assert_int_equal(info.reused, SSL_session_reused(c.ssl));
    if (version == TLS1_2_VERSION) /* no word of a renewed one */
        keep_session(NULL, SSL_get1_session(c.ssl));
    if (ret_new_ticket != NULL)
        *ret_new_ticket = !same_ticket(session, util_session);
    (void)SSL_shutdown(c.ssl); /* else the session counts as bad */
    server_fini(&s);
    client_fini(&c);
    SSL_SESSION_free(session);
    return info.reused;
}

static void another_shard_resumes(void **state)
{
    FOR_VERSIONS(v)
    {
        bool ticket;
        before_each(state);
        assert_false(resumed(one, *v, &ticket));
        assert_true(ticket);
        assert_int_equal(SSL_SESSION_get_ticket_lifetime_hint(util_session), 600);
        assert_true(resumed(two, *v, &ticket));
        assert_int_equal(ticket, *v == TLS1_3_VERSION); /* used once */
        assert_true(resumed(one, *v, NULL));
    }
}

/* As after a restart: new contexts, the same keys. */
static void a_new_context_resumes(void **state)
{
    FOR_VERSIONS(v)
    {
        before_each(state);
        struct tls_context *old = need_context(A, &shared);
        assert_false(resumed(old, *v, NULL));
        tls_context_free(old);
        struct tls_context *new = need_context("tls_certificate = @/renewed.pem\n", &shared);
        assert_true(resumed(new, *v, NULL)); /* also with a new certificate for the same name */
        tls_context_free(new);
    }
}

static void a_rotation_renews(void **state)
{
    FOR_VERSIONS(v)
    {
        bool ticket;
        before_each(state);
        assert_false(resumed(one, *v, NULL));
        SET_KEYS(2, 1);
        assert_true(resumed(two, *v, &ticket));
        assert_true(ticket);
        SET_KEYS(3, 2); /* the first key is gone: only the renewed ticket is good */
        assert_true(resumed(one, *v, &ticket));
        assert_true(ticket);
        SET_KEYS(4);
        assert_false(resumed(two, *v, &ticket));
        assert_true(ticket);
    }
}

static void no_keys_no_tickets(void **state)
{
    FOR_VERSIONS(v)
    {
        bool ticket;
        before_each(state);
        set_keys(NULL, 0);
        assert_false(resumed(one, *v, &ticket));
        assert_false(ticket);
        assert_false(resumed(one, *v, NULL));
        SET_KEYS(0); /* a name of zeros is no key */
        assert_false(resumed(one, *v, NULL));
        assert_false(resumed(one, *v, NULL));
        shared.version |= 1; /* the writer died */
        assert_false(resumed(one, *v, NULL));
        SET_KEYS(1);
        assert_false(resumed(one, *v, NULL));
        assert_true(resumed(one, *v, NULL));
    }
}

static void a_context_without_tickets(void **state)
{
    FOR_VERSIONS(v)
    {
        bool ticket;
        before_each(state);
        struct tls_context *none = need_context(A, NULL);
        assert_false(resumed(none, *v, &ticket));
        assert_false(ticket);
        assert_false(resumed(none, *v, NULL));
        tls_context_free(none);
    }
}

/* Listeners that ask other things of a client, or stand for other names, do not take each other's sessions.
 */
static void sessions_of_other_listeners(void **state)
{
    static const char *const others[] = {
        "tls_certificate = @/b.pem\n",
        A "tls_client_ca = @/ca.pem\ntls_client_verify = optional\n",
        A "tls_client_ca = @/ca_b.pem\ntls_client_verify = optional\n",
    };
    enum { N = 3 };
    FOR_VERSIONS(v)
    {
        for (unsigned i = 0; i < N; i++) {
            struct tls_context *other = need_context(others[i], &shared);
            before_each(state);
            assert_false(resumed(other, *v, NULL));
            assert_true(resumed(other, *v, NULL));
            assert_false(resumed(one, *v, NULL));
            for (unsigned j = 0; j < N; j++) {
                struct tls_context *third = need_context(others[j], &shared);
                before_each(state);
                assert_false(resumed(other, *v, NULL));
                assert_int_equal(resumed(third, *v, NULL), i == j);
                tls_context_free(third);
            }
            tls_context_free(other);
        }
    }
}

static void a_changed_ticket_is_a_full_handshake(void **state)
{
    FOR_VERSIONS(v)
    {
        before_each(state);
        assert_false(resumed(one, *v, NULL));
        unsigned char *der = NULL;
        int len = i2d_SSL_SESSION(util_session, &der);
        const unsigned char *ticket;
        size_t ticket_len;
        SSL_SESSION_get0_ticket(util_session, &ticket, &ticket_len);
        unsigned char *at = memmem(der, (size_t)len, ticket, ticket_len);
        at[ticket_len / 2] ^= 1;
        const unsigned char *p = der;
        SSL_SESSION_free(util_session);
        util_session = d2i_SSL_SESSION(NULL, &p, len);
        OPENSSL_free(der);
        assert_non_null(util_session);
        assert_false(resumed(two, *v, NULL));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(another_shard_resumes, before_each),
        cmocka_unit_test_setup(a_new_context_resumes, before_each),
        cmocka_unit_test_setup(a_rotation_renews, before_each),
        cmocka_unit_test_setup(no_keys_no_tickets, before_each),
        cmocka_unit_test_setup(a_context_without_tickets, before_each),
        cmocka_unit_test_setup(sessions_of_other_listeners, before_each),
        cmocka_unit_test_setup(a_changed_ticket_is_a_full_handshake, before_each),
    };
    return cmocka_run_group_tests(tests, make_all, free_all);
}
