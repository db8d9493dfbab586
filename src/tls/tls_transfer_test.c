// SPDX-License-Identifier: MIT
/* A client of OpenSSL's that does not notice that its server is another one. */
#include "tls/tls_util_test.h"

#include "tls/tls_priv.h"
#include "transfer/transfer.h"

static struct tls_context *ctx, *other; /* other: with nothing of ctx's */
static struct identity client_id;

#define ALL_CIPHERS "tls_ciphers = ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:kRSA+AESGCM\n"

static int make_all(void **state)
{
    assert_int_equal(make_util_dir(state), 0);
    struct identity ec = make_identity((struct identity_options){.cn = "a", .san = "DNS:a.example"});
    struct identity rsa =
        make_identity((struct identity_options){.type = KEY_RSA, .cn = "a", .san = "DNS:a.example"});
    struct identity ca = make_identity((struct identity_options){.cn = "ca", .ca = true});
    client_id = make_identity((struct identity_options){.cn = "client one", .issuer = &ca});
    write_pem("a.pem", ec.cert, NULL, ec.key);
    write_pem("b.pem", rsa.cert, NULL, rsa.key);
    write_pem("ca.pem", ca.cert, NULL, NULL);
    ctx = need_context("tls_certificate = @/a.pem,@/b.pem\ntls_client_ca = @/ca.pem\n"
                       "tls_client_verify = optional\n" ALL_CIPHERS,
                       NULL);
    other = need_context("tls_certificate = @/b.pem\ntls_version_min = 1.3\n"
                         "tls_ciphersuites = TLS_AES_256_GCM_SHA384\n",
                         NULL);
    free_identity(&ec);
    free_identity(&rsa);
    free_identity(&ca);
    return 0;
}

static int free_all(void **state)
{
    tls_context_free(ctx);
    tls_context_free(other);
    free_identity(&client_id);
    SSL_SESSION_free(util_session);
    return remove_util_dir(state);
}

static const struct case_of {
    int version;
    const char *cipher;
} cases[] = {
    {TLS1_3_VERSION, "TLS_AES_128_GCM_SHA256"},
    {TLS1_3_VERSION, "TLS_AES_256_GCM_SHA384"},
    {TLS1_3_VERSION, "TLS_CHACHA20_POLY1305_SHA256"},
    {TLS1_2_VERSION, "ECDHE-ECDSA-AES128-GCM-SHA256"},
    {TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384"},
    {TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305"},
    {TLS1_2_VERSION, "ECDHE-RSA-AES128-GCM-SHA256"},
    {TLS1_2_VERSION, "ECDHE-RSA-AES256-GCM-SHA384"},
    {TLS1_2_VERSION, "ECDHE-RSA-CHACHA20-POLY1305"},
    {TLS1_2_VERSION, "AES128-GCM-SHA256"},
    {TLS1_2_VERSION, "AES256-GCM-SHA384"},
};
#define FOR_CASES(k) for (const struct case_of *k = cases; k < cases + sizeof cases / sizeof cases[0]; k++)

static struct client_options options_of(const struct case_of *k)
{
    bool is_13 = k->version == TLS1_3_VERSION;
    return (struct client_options){.version = k->version,
                                   .server_name = "a.example",
                                   .ciphers = is_13 ? NULL : k->cipher,
                                   .suites = is_13 ? k->cipher : NULL};
}

static void start_with(struct server *s, struct client *c, struct client_options o)
{
    server_init(s, ctx);
    client_init(c, o);
    assert_true(shake_hands(c, s));
}

static void start_case(struct server *s, struct client *c, const struct case_of *k)
{
    start_with(s, c, options_of(k));
}

static void start_open(struct server *s, struct client *c, int version)
{
    start_with(s, c, (struct client_options){.version = version, .server_name = "a.example"});
}

/* From one process to the next: every other time into the context it comes from. */
static void move(struct server *s)
{
    static unsigned turn;
    struct bytes record = {0};
    int err = 0;
    assert_true(tls_conn_can_export(s->t));
    assert_int_equal(tls_conn_export(s->t, &record), 0);
    assert_in_range(record.len, 1, 64 * 1024);
    struct tls_conn *t = tls_conn_import(turn++ % 2 == 0 ? other : ctx, &server_ops, s,
                                         (struct slice){record.data, record.len}, &err);
    assert_non_null(t);
    size_t sends = s->sends;
    tls_conn_free(s->t);
    assert_int_equal(s->sends, sends);
    s->t = t;
    bytes_fini(&record);
}

/* ---- moves */

static void every_cipher(void **state)
{
    FOR_CASES(k)
    {
        struct server s;
        struct client c;
        struct tls_info before, after;
        start_case(&s, &c, k);
        tls_conn_info(s.t, &before);
        assert_string_equal(before.cipher, k->cipher);
        echo_once(&c, &s);
        for (unsigned i = 0; i < 3; i++) {
            move(&s);
            echo_once(&c, &s);
        }
        tls_conn_info(s.t, &after);
        assert_string_equal(after.version, k->version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3");
        assert_string_equal(after.cipher, k->cipher);
        assert_string_equal(after.server_name, "a.example");
        assert_string_equal(after.client_subject, "");
        assert_false(after.reused);
        assert_true(tls_conn_memory(s.t) < 600);
        finish(&s, &c);
    }
}

static void directly_behind_the_handshake(void **state)
{
    FOR_CASES(k)
    {
        struct server s;
        struct client c;
        start_case(&s, &c, k);
        move(&s);
        assert_int_equal(tls_conn_write(s.t, "first", 5), 5);
        client_hears(&s, &c, "first", 5);
        echo_once(&c, &s);
        finish(&s, &c);
    }
}

/* With a second hello: the client has guessed a group that we do not have. */
static void after_a_retried_hello(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        server_init(&s, ctx);
        client_init(&c, (struct client_options){.version = *v});
        assert_int_equal(SSL_set1_groups_list(c.ssl, "X448:P-256"), 1);
        assert_true(shake_hands_by(&c, &s, 100));
        move(&s);
        echo_once(&c, &s);
        finish(&s, &c);
    }
}

static void every_split_of_incoming_records(void **state)
{
    FOR_CASES(k)
    {
        struct server s;
        struct client c;
        start_case(&s, &c, k);
        uint8_t copy[512];
        size_t longest = 1;
        for (size_t at = 0; at < longest; at++) {
            client_write(&c, "some words", 10);
            client_write(&c, "more", 4);
            struct slice d = client_out(&c);
            longest = d.len;
            assert_in_range(longest, 50, sizeof copy);
            memcpy(copy, d.data, d.len);
            BIO_reset(c.out);
            bytes_clear(&s.plain);
            assert_int_equal(tls_conn_feed(s.t, copy, at), TLS_OK);
            size_t kept = tls_conn_kept(s.t);
            move(&s);
            assert_int_equal(tls_conn_kept(s.t), kept);
            assert_int_equal(tls_conn_feed(s.t, copy + at, longest - at), TLS_OK);
            assert_int_equal(s.plain.len, 14);
            assert_memory_equal(s.plain.data, "some wordsmore", 14);
        }
        finish(&s, &c);
    }
}

static void every_split_of_outgoing_records(void **state)
{
    FOR_CASES(k)
    {
        struct server s;
        struct client c;
        start_case(&s, &c, k);
        for (size_t room = 0; room < 50; room++) {
            s.room = room;
            assert_int_equal(tls_conn_write(s.t, "0123456789", 10), 10);
            bool was_flushed = tls_conn_is_flushed(s.t);
            move(&s);
            assert_int_equal(tls_conn_is_flushed(s.t), was_flushed);
            if (!was_flushed)
                assert_int_equal(tls_conn_write(s.t, "x", 1), 0);
            s.room = 3;
            (void)tls_conn_flush(s.t);
            move(&s);
            s.room = SIZE_MAX;
            assert_true(tls_conn_flush(s.t));
            client_hears(&s, &c, "0123456789", 10);
        }
        echo_once(&c, &s);
        finish(&s, &c);
    }
}

static void records_that_are_held(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    client_write(&c, "one", 3);
    client_write(&c, "two", 3);
    struct slice d = client_out(&c);
    assert_int_equal(tls_conn_hold(s.t, d.data, d.len - 4), 1);
    move(&s);
    assert_int_equal(tls_conn_feed(s.t, NULL, 0), TLS_OK);
    assert_int_equal(s.plain.len, 3);
    move(&s);
    assert_int_equal(tls_conn_feed(s.t, d.data + d.len - 4, 4), TLS_OK);
    assert_int_equal(s.plain.len, 6);
    finish(&s, &c);
}

static void large_records(void **state)
{
    static uint8_t data[60000];
    FOR_CASES(k)
    {
        struct server s;
        struct client c;
        start_case(&s, &c, k);
        fill(data, sizeof data, 1);
        client_write(&c, data, sizeof data);
        struct slice d = client_out(&c);
        assert_int_equal(tls_conn_feed(s.t, d.data, 20000), TLS_OK);
        move(&s);
        assert_int_equal(tls_conn_feed(s.t, d.data + 20000, d.len - 20000), TLS_OK);
        assert_int_equal(s.plain.len, sizeof data);
        assert_memory_equal(s.plain.data, data, sizeof data);
        s.room = 5000;
        assert_int_equal(tls_conn_write(s.t, data, TLS_RECORD_MAX), TLS_RECORD_MAX);
        move(&s);
        s.room = SIZE_MAX;
        assert_int_equal(tls_conn_write(s.t, data + TLS_RECORD_MAX, TLS_RECORD_MAX), TLS_RECORD_MAX);
        client_hears(&s, &c, data, 2 * TLS_RECORD_MAX);
        finish(&s, &c);
    }
}

static void many_records(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        start_open(&s, &c, *v);
        for (unsigned i = 0; i < 3000; i++) {
            client_write(&c, "hello", 5);
            assert_int_equal(tls_conn_write(s.t, "hello", 5), 5);
            assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_OK);
            if (i % 3 == 0)
                assert_int_equal(tls_conn_write(s.t, "abc", 3), 3);
            client_hears(&s, &c, "helloabc", i % 3 == 0 ? 8 : 5);
            if (i % 250 == 7)
                move(&s);
        }
        assert_int_equal(s.plain.len, 15000);
        finish(&s, &c);
    }
}

/* Pieces of any size in both directions at once; the server moves 20 times wherever it is. */
static void moves_while_data_flows(void **state)
{
    enum { N = 400000, MOVES = 20 };
    static uint8_t up[N], down[N], got[N];
    fill(up, N, 3);
    fill(down, N, 99);
    srand(7);
    FOR_CASES(k)
    {
        struct server s;
        struct client c;
        struct bytes wire = {0};
        size_t written = 0, said = 0, heard = 0;
        unsigned moves = 0;
        start_case(&s, &c, k);
        while (s.plain.len < N || heard < N) {
            if (written < N) {
                size_t n = (size_t)rand() % 9000 + 1;
                n = n < N - written ? n : N - written;
                client_write(&c, up + written, n);
                written += n;
                struct slice d = client_out(&c);
                bytes_append(&wire, d.data, d.len);
                BIO_reset(c.out);
            }
            size_t n = (size_t)rand() % 7000;
            n = n < wire.len ? n : wire.len;
            assert_int_equal(tls_conn_feed(s.t, wire.data, n), TLS_OK);
            bytes_consume(&wire, n);
            s.room = (size_t)rand() % 20000;
            (void)tls_conn_flush(s.t);
            n = (size_t)rand() % TLS_RECORD_MAX + 1;
            ssize_t taken = tls_conn_write(s.t, down + said, n < N - said ? n : N - said);
            assert_true(taken >= 0);
            said += (size_t)taken;
            to_client(&s, &c);
            heard += client_read(&c, got + heard, N - heard);
            if ((s.plain.len + heard) / (2 * N / MOVES) > moves) {
                move(&s);
                moves++;
            }
        }
        assert_in_range(moves, MOVES - 2, MOVES);
        assert_memory_equal(s.plain.data, up, N);
        assert_memory_equal(got, down, N);
        bytes_fini(&wire);
        finish(&s, &c);
    }
}

/* ---- keys that change */

static void key_updates_around_moves(void **state)
{
    for (int how = SSL_KEY_UPDATE_NOT_REQUESTED; how <= SSL_KEY_UPDATE_REQUESTED; how++) {
        struct server s;
        struct client c;
        start_open(&s, &c, TLS1_3_VERSION);
        for (unsigned i = 0; i < 10; i++) {
            assert_int_equal(SSL_key_update(c.ssl, how), 1);
            echo_once(&c, &s);
            move(&s);
            echo_once(&c, &s);
        }
        finish(&s, &c);
    }
}

/* Asked for while we cannot send: we owe it, and whoever comes after us. */
static void a_key_update_that_is_owed(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    s.room = 1;
    assert_int_equal(tls_conn_write(s.t, "abc", 3), 3);
    assert_int_equal(SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
    client_write(&c, "x", 1);
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_OK);
    move(&s);
    s.room = SIZE_MAX;
    assert_int_equal(tls_conn_write(s.t, "def", 3), 3);
    client_hears(&s, &c, "abcdef", 6);
    move(&s);
    echo_once(&c, &s);
    finish(&s, &c);
}

static void a_renegotiation_is_refused_after_a_move(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_2_VERSION);
    move(&s);
    assert_int_equal(SSL_renegotiate(c.ssl), 1);
    (void)SSL_do_handshake(c.ssl);
    assert_int_equal(to_server(&c, &s, 7), TLS_OK);
    to_client(&s, &c);
    assert_true(client_got_alert(&c, SSL_R_NO_RENEGOTIATION));
    assert_int_equal(tls_conn_write(s.t, "x", 1), 1);
    finish(&s, &c);
}

static void small_fragments(void **state)
{
    static uint8_t data[TLS_RECORD_MAX];
    fill(data, sizeof data, 5);
    FOR_VERSIONS(v)
    {
        for (uint8_t code = TLSEXT_max_fragment_length_512; code <= TLSEXT_max_fragment_length_4096; code++) {
            struct server s;
            struct client c;
            start_with(&s, &c, (struct client_options){.version = *v, .fragment = code});
            for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(tls_conn_write(s.t, data, sizeof data), sizeof data);
                assert_in_range(s.sent.data[3] << 8 | s.sent.data[4], 256u << code, (256u << code) + 25);
                client_hears(&s, &c, data, sizeof data);
                client_write(&c, data, sizeof data);
                assert_int_equal(to_server(&c, &s, 999), TLS_OK);
                move(&s);
            }
            assert_int_equal(s.plain.len, 2 * sizeof data);
            finish(&s, &c);
        }
    }
}

/* ---- ends */

static void a_side_that_has_ended(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        start_open(&s, &c, *v);
        client_write(&c, "last", 4);
        (void)SSL_shutdown(c.ssl);
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_ENDED);
        move(&s);
        assert_int_equal(tls_conn_feed(s.t, (const uint8_t *)"more", 4), TLS_ENDED);
        assert_int_equal(tls_conn_write(s.t, "bye", 3), 3);
        tls_conn_shutdown(s.t);
        move(&s);
        assert_int_equal(tls_conn_write(s.t, "x", 1), -EPIPE);
        tls_conn_shutdown(s.t);
        client_hears(&s, &c, "bye", 3);
        assert_int_equal(SSL_get_shutdown(c.ssl), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        finish(&s, &c);
    }
}

static void our_side_has_ended(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        start_open(&s, &c, *v);
        s.room = 3;
        tls_conn_shutdown(s.t);
        assert_false(tls_conn_is_flushed(s.t));
        move(&s);
        s.room = SIZE_MAX;
        assert_true(tls_conn_flush(s.t));
        assert_int_equal(tls_conn_write(s.t, "x", 1), -EPIPE);
        client_hears(&s, &c, "", 0);
        assert_true(client_saw_end(&c));
        client_write(&c, "after", 5);
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_OK);
        assert_memory_equal(s.plain.data, "after", 5);
        (void)SSL_shutdown(c.ssl);
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_ENDED);
        finish(&s, &c);
    }
}

static void an_owner_that_has_stopped(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    s.stop = true;
    client_write(&c, "x", 1);
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_GONE);
    move(&s);
    client_write(&c, "y", 1);
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_GONE);
    assert_int_equal(tls_conn_write(s.t, "bye", 3), 3);
    client_hears(&s, &c, "bye", 3);
    finish(&s, &c);
}

static void an_alert_of_the_client(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        start_open(&s, &c, *v);
        move(&s);
        assert_int_equal(tls_conn_write(s.t, "abc", 3), 3);
        s.sent.data[s.sent.len - 1] ^= 1;
        client_hears(&s, &c, "", 0);
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_ERROR);
        assert_string_equal(tls_conn_error(s.t), "sslv3 alert bad record mac");
        assert_true(tls_conn_is_flushed(s.t)); /* it is not answered */
        assert_int_equal(s.sent.len, 0);
        assert_false(tls_conn_can_export(s.t));
        finish(&s, &c);
    }
}

/* ---- a wire that lies */

enum lie { CHANGED, TWICE, SHORT, LOST, LIES };

/* What the client has written, with the lie in it. */
static size_t lie(enum lie what, const uint8_t *first, size_t first_len, const uint8_t *second,
                  size_t second_len, uint8_t *ret)
{
    size_t len = 0;
    if (what != LOST) {
        memcpy(ret, first, first_len);
        len = first_len;
    }
    switch (what) {
    case CHANGED: ret[len - 3] ^= 4; break;
    case TWICE: memcpy(ret + len, first, first_len); return len + first_len;
    case SHORT: len -= 5; break;
    default: break;
    }
    memcpy(ret + len, second, second_len);
    return len + second_len;
}

static void a_wire_that_lies(void **state)
{
    for (unsigned what = 0; what < LIES; what++) {
        FOR_CASES(k)
        {
            struct server s;
            struct client c;
            uint8_t first[128], second[128], wire[256];
            start_case(&s, &c, k);
            echo_once(&c, &s);
            bytes_clear(&s.plain);
            move(&s);
            client_write(&c, "first words", 11);
            struct slice d = client_out(&c);
            size_t first_len = d.len;
            memcpy(first, d.data, d.len);
            BIO_reset(c.out);
            client_write(&c, "second words", 12);
            d = client_out(&c);
            memcpy(second, d.data, d.len);
            size_t len = lie(what, first, first_len, second, d.len, wire);
            BIO_reset(c.out);
            s.echo = false;
            assert_int_equal(tls_conn_feed(s.t, wire, len), TLS_ERROR);
            assert_string_equal(tls_conn_error(s.t), "decryption failed or bad record mac");
            assert_int_equal(s.plain.len, what == TWICE ? 11 : 0);
            assert_false(tls_conn_can_export(s.t));
            assert_false(tls_conn_is_open(s.t));
            to_client(&s, &c); /* the alert */
            char buf[4];
            size_t n;
            assert_int_equal(SSL_read_ex(c.ssl, buf, sizeof buf, &n), 0);
            assert_int_equal(ERR_GET_REASON(ERR_peek_error()), SSL_R_SSLV3_ALERT_BAD_RECORD_MAC);
            ERR_clear_error();
            finish(&s, &c);
        }
    }
}

/* ---- what is known of it */

static void a_client_certificate_and_a_resumed_session(void **state)
{
    static struct ticket_keys keys = {.n = 1, .keys[0] = {.name = {1}}};
    struct tls_context *own = need_context("tls_certificate = @/a.pem\ntls_client_ca = @/ca.pem\n"
                                           "tls_client_verify = required\n",
                                           &keys);
    FOR_VERSIONS(v)
    {
        for (unsigned i = 0; i < 2; i++) {
            struct server s;
            struct client c;
            struct tls_info info;
            server_init(&s, own);
            client_init(&c, (struct client_options){.version = *v,
                                                    .server_name = "a.example",
                                                    .identity = &client_id,
                                                    .session = i == 1 ? util_session : NULL});
            assert_true(shake_hands(&c, &s));
            move(&s);
            echo_once(&c, &s);
            move(&s);
            tls_conn_info(s.t, &info);
            assert_string_equal(info.client_subject, "CN=client one");
            assert_string_equal(info.server_name, "a.example");
            assert_int_equal(info.reused, i == 1);
            assert_int_equal(tls_conn_is_resumed(s.t), i == 1);
            (void)SSL_shutdown(c.ssl); /* else the session counts as bad */
            finish(&s, &c);
        }
    }
    tls_context_free(own);
}

/* ---- who cannot be moved */

static void nothing_was_answered_yet(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server a, b;
        struct client c;
        server_init(&a, ctx);
        server_init(&b, other);
        client_init(&c, (struct client_options){.server_name = "a.example"});
        (void)SSL_do_handshake(c.ssl);
        struct slice d = client_out(&c);
        assert_false(tls_conn_has_begun(a.t));
        assert_int_equal(tls_conn_kept_bytes(a.t).len, 0);
        assert_int_equal(tls_conn_feed(a.t, d.data, d.len - 9), TLS_OK);
        assert_false(tls_conn_has_begun(a.t));
        assert_false(tls_conn_can_export(a.t));
        struct slice kept = tls_conn_kept_bytes(a.t);
        assert_int_equal(kept.len, d.len - 9);
        assert_int_equal(tls_conn_hold(b.t, kept.data, kept.len), 0);
        assert_int_equal(tls_conn_feed(b.t, d.data + d.len - 9, 9), TLS_OK);
        assert_true(tls_conn_has_begun(b.t));
        BIO_reset(c.out);
        to_client(&b, &c);
        assert_true(shake_hands(&c, &b));
        echo_once(&c, &b);
        server_fini(&a);
        finish(&b, &c);
    }
}

static void refuses(struct server *s)
{
    struct bytes out = {0};
    assert_false(tls_conn_can_export(s->t));
    assert_int_equal(tls_conn_export(s->t, &out), -EOPNOTSUPP);
    assert_int_equal(out.len, 0);
    bytes_fini(&out);
}

static void half_a_handshake(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        server_init(&s, ctx);
        client_init(&c, (struct client_options){.version = *v});
        (void)SSL_do_handshake(c.ssl);
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_OK);
        assert_true(tls_conn_has_begun(s.t));
        refuses(&s);
        finish(&s, &c);
    }
}

static void a_cipher_that_is_not_ours(void **state)
{
    struct tls_context *own = need_context("tls_certificate = @/a.pem\ntls_ciphers = ECDHE-ECDSA-AES128-SHA\n"
                                           "tls_ciphersuites = TLS_AES_128_CCM_SHA256\n",
                                           NULL);
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        server_init(&s, own);
        client_init(&c, (struct client_options){.version = *v});
        assert_true(shake_hands(&c, &s));
        echo_once(&c, &s);
        assert_true(tls_conn_has_begun(s.t));
        refuses(&s);
        finish(&s, &c);
    }
    tls_context_free(own);
}

static void a_broken_connection(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    s.send_error = -EPIPE;
    assert_int_equal(tls_conn_write(s.t, "abc", 3), -EPIPE);
    refuses(&s);
    finish(&s, &c);
}

/* ---- records that nobody wrote */

static void use(struct tls_conn *t, struct server *s)
{
    uint8_t junk[80] = {23, 3, 3, 0, 75};
    s->t = t;
    (void)tls_conn_flush(t);
    (void)tls_conn_write(t, "abc", 3);
    (void)tls_conn_feed(t, junk, sizeof junk);
    tls_conn_shutdown(t);
    struct tls_info info;
    tls_conn_info(t, &info);
    assert_true(tls_conn_memory(t) < 200 * 1024);
    tls_conn_free(t);
    s->t = NULL;
    bytes_clear(&s->sent);
}

static unsigned import_mutated(const uint8_t *data, size_t len)
{
    struct server s = {.room = SIZE_MAX};
    int err = 0;
    uint8_t *copy = malloc(len + 1);
    memcpy(copy, data, len);
    struct tls_conn *t = tls_conn_import(other, &server_ops, &s, (struct slice){copy, len}, &err);
    assert_true(t != NULL || err == -EBADMSG);
    if (t != NULL)
        use(t, &s);
    free(copy);
    bytes_fini(&s.sent);
    bytes_fini(&s.plain);
    return t == NULL;
}

static void records_that_nobody_wrote(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        struct bytes record = {0};
        unsigned refused = 0;
        start_open(&s, &c, *v);
        s.room = 10;
        assert_int_equal(tls_conn_write(s.t, "waits", 5), 5);
        assert_int_equal(tls_conn_feed(s.t, (const uint8_t *)"\x17\x03\x03\x00\x40 a part", 12), TLS_OK);
        assert_int_equal(tls_conn_export(s.t, &record), 0);
        for (size_t len = 0; len < record.len; len++)
            refused += import_mutated(record.data, len);
        for (size_t at = 0; at < record.len; at++) {
            for (unsigned bit = 0; bit < 8; bit++) {
                record.data[at] ^= 1u << bit;
                refused += import_mutated(record.data, record.len);
                record.data[at] ^= 1u << bit;
            }
        }
        assert_true(refused > 150);
        assert_int_equal(import_mutated(record.data, record.len), 0);
        bytes_fini(&record);
        finish(&s, &c);
    }
}

static void refuses_fields(struct transfer_tls x)
{
    struct bytes record = {0};
    struct server s = {.room = SIZE_MAX};
    int err = 0;
    assert_true(transfer_put_tls_fields(&record, &x));
    assert_null(tls_conn_import(other, &server_ops, &s, (struct slice){record.data, record.len}, &err));
    assert_int_equal(err, -EBADMSG);
    bytes_fini(&record);
}

static void fields_that_make_no_sense(void **state)
{
    static const uint8_t bytes[TLS_OUT_HANDSHAKE_MAX + 1];
    struct transfer_tls good = {
        .version = 0x0304, .suite = 0x1301, .read_secret = {bytes, 32}, .write_secret = {bytes, 32}};
    struct transfer_tls x = good;
#define WRONG(change)                                                                                        \
    do {                                                                                                     \
        x = good;                                                                                            \
        change;                                                                                              \
        refuses_fields(x);                                                                                   \
    } while (0)
    WRONG(x.version = 0x0303);
    WRONG(x.version = 0x10304);
    WRONG(x.suite = 0x1304);
    WRONG(x.suite = 0x11301);
    WRONG(x.read_secret.len = 31);
    WRONG(x.write_secret.len = 48);
    WRONG(x.write_secret.len = 0);
    WRONG((x.in = (struct slice){bytes, TLS_HOLD_MAX + 1}));
    WRONG((x.out = (struct slice){bytes, TLS_OUT_HANDSHAKE_MAX + 1}));
    WRONG((x.message = (struct slice){bytes, 5}));
    WRONG(x.fragment_max = 511);
    WRONG(x.fragment_max = 16385);
    WRONG(x.idle_records = 256);
    WRONG((x.server_name = (struct slice){(const uint8_t *)"a\0b", 3}));
    WRONG((x.client_subject = (struct slice){(const uint8_t *)memset((uint8_t[256]){0}, 'x', 256), 256}));
    WRONG(x.message_left = 1);
#undef WRONG
    struct bytes record = {0};
    int err;
    struct server s = {.room = SIZE_MAX};
    assert_true(transfer_put_tls_fields(&record, &good));
    s.t = tls_conn_import(other, &server_ops, &s, (struct slice){record.data, record.len}, &err);
    assert_non_null(s.t);
    bytes_fini(&record);
    server_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cipher),
        cmocka_unit_test(directly_behind_the_handshake),
        cmocka_unit_test(after_a_retried_hello),
        cmocka_unit_test(every_split_of_incoming_records),
        cmocka_unit_test(every_split_of_outgoing_records),
        cmocka_unit_test(records_that_are_held),
        cmocka_unit_test(large_records),
        cmocka_unit_test(many_records),
        cmocka_unit_test(moves_while_data_flows),
        cmocka_unit_test(key_updates_around_moves),
        cmocka_unit_test(a_key_update_that_is_owed),
        cmocka_unit_test(a_renegotiation_is_refused_after_a_move),
        cmocka_unit_test(small_fragments),
        cmocka_unit_test(a_side_that_has_ended),
        cmocka_unit_test(our_side_has_ended),
        cmocka_unit_test(an_owner_that_has_stopped),
        cmocka_unit_test(an_alert_of_the_client),
        cmocka_unit_test(a_wire_that_lies),
        cmocka_unit_test(a_client_certificate_and_a_resumed_session),
        cmocka_unit_test(nothing_was_answered_yet),
        cmocka_unit_test(half_a_handshake),
        cmocka_unit_test(a_cipher_that_is_not_ours),
        cmocka_unit_test(a_broken_connection),
        cmocka_unit_test(records_that_nobody_wrote),
        cmocka_unit_test(fields_that_make_no_sense),
    };
    return cmocka_run_group_tests(tests, make_all, free_all);
}
