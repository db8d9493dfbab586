// SPDX-License-Identifier: MIT
#include "tls/tls_util_test.h"

static struct tls_context *ctx;
static bool is_ssl; /* with ciphers for which the SSL stays */
#define NOT_OURS                                                                                             \
    "tls_ciphers = ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-CCM\n"                                          \
    "tls_ciphersuites = TLS_AES_128_CCM_SHA256\n"

static int make_with(const char *ciphers)
{
    char lines[256];
    snprintf(lines, sizeof lines, "tls_certificate = @/a.pem\n%s", ciphers);
    ctx = need_context(lines, NULL);
    return 0;
}

static int make_all(void **state)
{
    assert_int_equal(make_util_dir(state), 0);
    struct identity id = make_identity((struct identity_options){.cn = "a", .san = "DNS:a.example"});
    write_pem("a.pem", id.cert, NULL, id.key);
    free_identity(&id);
    is_ssl = false;
    return make_with("");
}

static int make_all_ssl(void **state)
{
    assert_int_equal(make_all(state), 0);
    tls_context_free(ctx);
    is_ssl = true;
    return make_with(NOT_OURS);
}

static int free_all(void **state)
{
    tls_context_free(ctx);
    SSL_SESSION_free(util_session);
    util_session = NULL;
    return remove_util_dir(state);
}

static void start(struct server *s, struct client *c, int version)
{
    server_init(s, ctx);
    client_init(c, (struct client_options){.version = version, .server_name = "a.example"});
}

static void start_open(struct server *s, struct client *c, int version)
{
    start(s, c, version);
    assert_true(shake_hands(c, s));
}

/* ---- handshakes */

static void a_handshake_and_an_echo(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        struct tls_info info;
        start(&s, &c, *v);
        assert_int_equal(SSL_do_handshake(c.ssl), -1);
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_OK);
        assert_int_equal(s.sends, 1); /* a flight goes in one piece */
        assert_false(tls_conn_is_open(s.t));
        assert_int_equal(tls_conn_write(s.t, "early", 5), 0);
        to_client(&s, &c);
        (void)SSL_do_handshake(c.ssl);
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_HANDSHAKEN);
        assert_true(tls_conn_is_open(s.t));
        to_client(&s, &c);
        assert_int_equal(SSL_do_handshake(c.ssl), 1);
        echo_once(&c, &s);
        tls_conn_info(s.t, &info);
        assert_string_equal(info.version, *v == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3");
        assert_int_equal(strstr(info.cipher, "GCM") == NULL, is_ssl);
        assert_int_equal(tls_conn_can_export(s.t), !is_ssl);
        assert_string_equal(info.server_name, "a.example");
        assert_string_equal(info.client_subject, "");
        assert_false(info.reused);
        assert_string_equal(tls_conn_error(s.t), "");
        finish(&s, &c);
    }
}

/* Every split point of the client's flights: the first `first` bytes of each, then the rest. */
static bool shake_hands_split(struct client *c, struct server *s, size_t first, size_t *ret_longest)
{
    for (unsigned i = 0; i < 4; i++) {
        int r = SSL_do_handshake(c->ssl);
        struct slice d = client_out(c);
        *ret_longest = d.len > *ret_longest ? d.len : *ret_longest;
        size_t n = first < d.len ? first : d.len;
        uint8_t *copy = malloc(d.len + 1);
        memcpy(copy, d.data, d.len);
        BIO_reset(c->out);
        enum tls_result a = tls_conn_feed(s->t, copy, n);
        enum tls_result b = tls_conn_feed(s->t, copy + n, d.len - n);
        free(copy);
        assert_true((a == TLS_OK || a == TLS_HANDSHAKEN) && (b == TLS_OK || b == TLS_HANDSHAKEN));
        to_client(s, c);
        if (r == 1)
            return tls_conn_is_open(s->t);
    }
    return false;
}

static void every_split_of_the_flights(void **state)
{
    FOR_VERSIONS(v)
    {
        size_t longest = 1;
        for (size_t at = 0; at < longest; at++) {
            struct server s;
            struct client c;
            start(&s, &c, *v);
            assert_true(shake_hands_split(&c, &s, at, &longest));
            echo_once(&c, &s);
            finish(&s, &c);
        }
        assert_true(longest > 150);
    }
}

static void bytes_one_by_one(void **state)
{
    for (size_t step = 1; step < 12; step++) {
        FOR_VERSIONS(v)
        {
            struct server s;
            struct client c;
            start(&s, &c, *v);
            assert_true(shake_hands_by(&c, &s, step));
            client_write(&c, "one", 3);
            client_write(&c, "two", 3);
            assert_int_equal(to_server(&c, &s, step), TLS_OK);
            assert_int_equal(s.plain.len, 6);
            assert_memory_equal(s.plain.data, "onetwo", 6);
            echo_once(&c, &s);
            finish(&s, &c);
        }
    }
}

/* The client's last flight and its first words are on their way together. */
static void start_with_first_words(struct server *s, struct client *c)
{
    start(s, c, TLS1_3_VERSION);
    (void)SSL_do_handshake(c->ssl);
    to_server(c, s, SIZE_MAX / 2);
    to_client(s, c);
    assert_int_equal(SSL_do_handshake(c->ssl), 1);
    client_write(c, "first", 5);
}

/* A client that sends with its last flight. */
static void plaintext_behind_the_handshake(void **state)
{
    struct server s;
    struct client c;
    start_with_first_words(&s, &c);
    s.echo = true;
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_HANDSHAKEN);
    assert_int_equal(s.plain.len, 5);
    client_hears(&s, &c, "first", 5);
    finish(&s, &c);
}

/* ---- plaintext */

static void small_messages_of_one_feed_come_together(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    for (unsigned i = 0; i < 100; i++)
        client_write(&c, "0123456789", 10);
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_OK);
    assert_int_equal(s.plain.len, 1000);
    assert_int_equal(s.plains, 1);
    finish(&s, &c);
}

static void large_writes_both_ways(void **state)
{
    enum { N = 3 * 1000 * 1000 };
    uint8_t *data = malloc(N);
    fill(data, N, 0);
    const size_t steps[] = {777, 16384, 65536, N};
    for (unsigned i = 0; i < 4; i++) {
        FOR_VERSIONS(v)
        {
            struct server s;
            struct client c;
            start_open(&s, &c, *v);
            client_write(&c, data, N);
            s.echo = true;
            assert_int_equal(to_server(&c, &s, steps[i]), TLS_OK);
            assert_int_equal(s.plain.len, N);
            assert_memory_equal(s.plain.data, data, N);
            client_hears(&s, &c, data, N);
            finish(&s, &c);
        }
    }
    free(data);
}

static void a_full_record_is_one_record(void **state)
{
    static uint8_t data[TLS_RECORD_MAX];
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        start_open(&s, &c, *v);
        RAND_bytes(data, sizeof data);
        assert_int_equal(tls_conn_write(s.t, data, 1), 1); /* a small one before it */
        client_hears(&s, &c, data, 1);
        assert_int_equal(tls_conn_write(s.t, data, sizeof data), sizeof data);
        assert_int_equal(s.sent.data[0], 23);
        assert_int_equal(s.sent.len, 5 + (s.sent.data[3] << 8 | s.sent.data[4]));
        client_hears(&s, &c, data, sizeof data);
        finish(&s, &c);
    }
}

/* ---- sending with no room */

static void a_send_that_takes_little(void **state)
{
    for (size_t room = 0; room < 6; room++) {
        FOR_VERSIONS(v)
        {
            struct server s;
            struct client c;
            start(&s, &c, *v);
            s.room = 0;
            for (unsigned i = 0; i < 4; i++) {
                (void)SSL_do_handshake(c.ssl);
                to_server(&c, &s, SIZE_MAX / 2);
                while (!tls_conn_is_flushed(s.t)) {
                    s.room = room + 1;
                    (void)tls_conn_flush(s.t);
                }
                s.room = 0;
                to_client(&s, &c);
            }
            assert_true(tls_conn_is_open(s.t));
            assert_int_equal(SSL_do_handshake(c.ssl), 1);

            s.room = room;
            assert_int_equal(tls_conn_write(s.t, "abc", 3), 3); /* taken, waits */
            assert_false(tls_conn_is_flushed(s.t));
            assert_int_equal(tls_conn_write(s.t, "def", 3), 0); /* blocked */
            s.room = SIZE_MAX;
            assert_true(tls_conn_flush(s.t));
            assert_int_equal(tls_conn_write(s.t, "def", 3), 3);
            client_hears(&s, &c, "abcdef", 6);
            finish(&s, &c);
        }
    }
}

/* tls_conn_write flushes by itself. */
static void a_write_sends_what_waits_first(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    s.room = 1;
    assert_int_equal(tls_conn_write(s.t, "abc", 3), 3);
    s.room = SIZE_MAX;
    assert_int_equal(tls_conn_write(s.t, "def", 3), 3);
    client_hears(&s, &c, "abcdef", 6);
    finish(&s, &c);
}

static void a_broken_connection(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    s.send_error = -EPIPE;
    assert_int_equal(tls_conn_write(s.t, "abc", 3), -EPIPE);
    assert_int_equal(tls_conn_write(s.t, "abc", 3), -EPIPE);
    assert_true(tls_conn_flush(s.t)); /* nothing to wait for */
    tls_conn_shutdown(s.t);
    assert_int_equal(tls_conn_feed(s.t, (const uint8_t *)"", 0), TLS_ERROR);
    assert_string_equal(tls_conn_error(s.t), "the connection is broken");
    finish(&s, &c);

    start(&s, &c, TLS1_3_VERSION); /* in the handshake */
    s.send_error = -ECONNRESET;
    (void)SSL_do_handshake(c.ssl);
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_ERROR);
    finish(&s, &c);

    start_open(&s, &c, TLS1_3_VERSION); /* EAGAIN is only: no room */
    s.send_error = -EAGAIN;
    assert_int_equal(tls_conn_write(s.t, "abc", 3), 3);
    assert_false(tls_conn_flush(s.t));
    s.send_error = 0;
    assert_true(tls_conn_flush(s.t));
    finish(&s, &c);
}

/* A client that makes us answer and never reads. */
static void what_waits_is_bounded(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    s.room = 0;
    unsigned i;
    for (i = 0; i < 3000; i++) {
        assert_int_equal(SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        client_write(&c, "x", 1);
        enum tls_result r = to_server(&c, &s, SIZE_MAX / 2);
        if (r == TLS_ERROR)
            break;
        assert_int_equal(r, TLS_OK);
        (void)tls_conn_write(s.t, "answer", 6);
        assert_true(tls_conn_memory(s.t) < 80 * 1024);
    }
    if (is_ssl) {
        assert_in_range(i, 100, 2999);
        assert_string_equal(tls_conn_error(s.t), "the connection is broken");
        assert_true(tls_conn_is_flushed(s.t)); /* thrown away */
    } else {                                   /* one answer for all */
        assert_int_equal(i, 3000);
        assert_true(tls_conn_memory(s.t) < 1024);
        s.room = SIZE_MAX;
        assert_true(tls_conn_flush(s.t));
        client_hears(&s, &c, "", 0); /* nothing was taken while it waited */
        echo_once(&c, &s);
    }
    finish(&s, &c);
}

static void keys_change(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        echo_once(&c, &s);
    }
    finish(&s, &c);
}

static void no_renegotiation(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_2_VERSION);
    assert_int_equal(SSL_renegotiate(c.ssl), 1);
    (void)SSL_do_handshake(c.ssl);
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_OK);
    to_client(&s, &c);
    assert_true(client_got_alert(&c, SSL_R_NO_RENEGOTIATION));
    assert_int_equal(tls_conn_write(s.t, "x", 1), 1);
    finish(&s, &c);
}

/* ---- ends */

static void a_close_notify_of_the_client(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        start_open(&s, &c, *v);
        client_write(&c, "last", 4);
        (void)SSL_shutdown(c.ssl);
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_ENDED);
        assert_memory_equal(s.plain.data, "last", 4);
        assert_int_equal(tls_conn_write(s.t, "bye", 3), 3); /* our side is still open */
        tls_conn_shutdown(s.t);
        tls_conn_shutdown(s.t);
        assert_int_equal(tls_conn_write(s.t, "x", 1), -EPIPE);
        client_hears(&s, &c, "bye", 3);
        assert_int_equal(SSL_get_shutdown(c.ssl), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        assert_int_equal(tls_conn_feed(s.t, (const uint8_t *)"more", 4), TLS_ENDED);
        assert_int_equal(tls_conn_feed(s.t, (const uint8_t *)"more", 4), TLS_ENDED);
        finish(&s, &c);
    }
}

static void a_close_notify_of_ours(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        start_open(&s, &c, *v);
        tls_conn_shutdown(s.t);
        client_hears(&s, &c, "", 0);
        assert_true(client_saw_end(&c));
        client_write(&c, "after", 5);
        (void)SSL_shutdown(c.ssl);
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_ENDED);
        assert_memory_equal(s.plain.data, "after", 5); /* what the client said until it knew */
        finish(&s, &c);
    }
}

static void a_shutdown_waits_behind_what_is_written(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    s.room = 2;
    assert_int_equal(tls_conn_write(s.t, "abc", 3), 3);
    tls_conn_shutdown(s.t);
    s.room = SIZE_MAX;
    assert_true(tls_conn_flush(s.t));
    client_hears(&s, &c, "abc", 3);
    assert_true(client_saw_end(&c));
    finish(&s, &c);
}

static void a_shutdown_before_the_handshake_says_nothing(void **state)
{
    struct server s;
    server_init(&s, ctx);
    tls_conn_shutdown(s.t);
    assert_int_equal(s.sends, 0);
    server_fini(&s);
}

/* ---- nonsense */

static void no_tls_at_all(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "plain HTTP, not TLS"},
        {"POST / HTTP/1.1\r\n\r\n", "plain HTTP, not TLS"},
        {"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", "a PROXY header, not TLS"},
        {"hello\n", "not TLS"},
        {"\x16\x02\x01\x01\x01\x01", "not TLS"},
        {"\x80\x2e\x01\x03\x03", "not TLS"}, /* a hello of SSL 2 */
        {"\x16\x03\x01\xff\xff\x01", "not TLS"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct server s;
        server_init(&s, ctx);
        size_t len = strlen(cases[i].text);
        assert_int_equal(tls_conn_feed(s.t, (const uint8_t *)cases[i].text, len), TLS_ERROR);
        assert_string_equal(tls_conn_error(s.t), cases[i].error);
        assert_true(tls_conn_memory(s.t) < 1024); /* no SSL was made for that */
        assert_int_equal(s.sent.len, 0);
        assert_int_equal(tls_conn_feed(s.t, (const uint8_t *)"x", 1), TLS_ERROR);
        server_fini(&s);
    }
}

/* The alert waits when there is no room. */
static void an_error_leaves_an_alert(void **state)
{
    struct server s;
    struct client c;
    server_init(&s, ctx);
    client_init(&c, (struct client_options){.version = TLS1_2_VERSION, .ciphers = "AES128-SHA"});
    s.room = 0;
    (void)SSL_do_handshake(c.ssl);
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_ERROR);
    assert_string_equal(tls_conn_error(s.t), "no shared cipher");
    assert_false(tls_conn_is_flushed(s.t));
    s.room = SIZE_MAX;
    assert_true(tls_conn_flush(s.t));
    to_client(&s, &c);
    assert_true(client_got_alert(&c, SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE));
    assert_int_equal(tls_conn_write(s.t, "x", 1), -EPIPE);
    finish(&s, &c);
}

static void a_changed_byte_ends_it(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        start_open(&s, &c, *v);
        client_write(&c, "good", 4);
        client_write(&c, "bad!", 4);
        struct slice d = client_out(&c);
        ((uint8_t *)d.data)[d.len - 1] ^= 1;
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_ERROR);
        assert_int_equal(s.plain.len, 4); /* what was good comes first */
        assert_string_equal(tls_conn_error(s.t), "decryption failed or bad record mac");
        assert_false(tls_conn_is_open(s.t));
        client_hears(&s, &c, "", 0);
        assert_true(client_saw_end(&c));
        assert_int_equal(tls_conn_feed(s.t, (const uint8_t *)"x", 1), TLS_ERROR);
        assert_int_equal(tls_conn_write(s.t, "x", 1), -EPIPE);
        tls_conn_shutdown(s.t);
        finish(&s, &c);
    }
}

static void garbage_between_records(void **state)
{
    static const struct {
        uint8_t bytes[6];
        size_t len;
    } cases[] = {{{'h'}, 1}, {{23, 2}, 2}, {{23, 3, 3, 0xff, 0xff}, 5}, {{23, 3, 3, 0x41, 0x41, 0}, 6}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        FOR_VERSIONS(v)
        {
            struct server s;
            struct client c;
            start_open(&s, &c, *v);
            client_write(&c, "good", 4);
            BIO_write(c.out, cases[i].bytes, (int)cases[i].len);
            assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_ERROR);
            assert_int_equal(s.plain.len, 4);
            assert_true(tls_conn_error(s.t)[0] != '\0');
            if (cases[i].bytes[3] == 0xff)
                assert_string_equal(tls_conn_error(s.t), "packet length too long");
            finish(&s, &c);
        }
    }
}

/* A record that decrypts to more than 16 KB cannot be made with OpenSSL's client; its length can be claimed.
 */
static void a_record_over_the_limit(void **state)
{
    static uint8_t record[5 + 16384 + 321] = {23, 3, 3, (16384 + 321) >> 8, (16384 + 321) & 255};
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    assert_int_equal(tls_conn_feed(s.t, record, sizeof record), TLS_ERROR);
    assert_string_equal(tls_conn_error(s.t), "encrypted length too long");
    client_hears(&s, &c, "", 0);
    assert_true(client_saw_end(&c));
    finish(&s, &c);

    start_open(&s, &c, TLS1_3_VERSION); /* between TLS 1.3's limit and OpenSSL's */
    record[3] = (16384 + 300) >> 8;
    record[4] = (16384 + 300) & 255;
    assert_int_equal(tls_conn_feed(s.t, record, 5 + 16384 + 300), TLS_ERROR);
    finish(&s, &c);
}

/* Every byte of a recorded hello, changed: no crash, and an error or a handshake that goes on. */
static void mutated_hellos(void **state)
{
    struct server s;
    struct client c;
    start(&s, &c, 0);
    (void)SSL_do_handshake(c.ssl);
    uint8_t hello[1024];
    struct slice d = client_out(&c);
    size_t len = d.len;
    assert_in_range(len, 100, sizeof hello);
    memcpy(hello, d.data, len);
    finish(&s, &c);
    unsigned refused = 0;
    for (size_t at = 0; at < len; at++) {
        for (unsigned bit = 0; bit < 8; bit += 3) {
            hello[at] ^= 1u << bit;
            server_init(&s, ctx);
            enum tls_result r = tls_conn_feed(s.t, hello, len);
            assert_true(r == TLS_OK || r == TLS_ERROR);
            assert_int_equal(r == TLS_ERROR, tls_conn_error(s.t)[0] != '\0');
            refused += r == TLS_ERROR;
            assert_int_equal(s.plain.len, 0);
            assert_int_equal(ERR_peek_error(), 0);
            server_fini(&s);
            hello[at] ^= 1u << bit;
        }
    }
    assert_true(refused > 100);
}

/* ---- freeing and stopping within callbacks */

static void free_within_plain(void **state)
{
    for (unsigned echo = 0; echo < 2; echo++) {
        FOR_VERSIONS(v)
        {
            struct server s;
            struct client c;
            start_open(&s, &c, *v);
            s.free_within = true;
            s.echo = echo == 1;
            client_write(&c, "x", 1);
            client_write(&c, "y", 1);
            assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_GONE);
            assert_int_equal(s.plains, 1);
            assert_null(s.t);
            finish(&s, &c);
        }
    }
}

static void free_within_plain_in_the_handshakes_feed(void **state)
{
    struct server s;
    struct client c;
    start_with_first_words(&s, &c);
    s.free_within = true;
    size_t sends = s.sends;
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_GONE);
    assert_int_equal(s.sends, sends); /* no callback after */
    finish(&s, &c);
}

static void free_within_send(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    s.free_in_send = true;
    assert_int_equal(tls_conn_write(s.t, "x", 1), -EPIPE);
    assert_null(s.t);
    finish(&s, &c);

    start(&s, &c, TLS1_3_VERSION);
    s.free_in_send = true;
    (void)SSL_do_handshake(c.ssl);
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_GONE);
    finish(&s, &c);

    start_open(&s, &c, TLS1_2_VERSION);
    s.room = 0;
    assert_int_equal(tls_conn_write(s.t, "x", 1), 1);
    s.free_in_send = true;
    assert_false(tls_conn_flush(s.t));
    finish(&s, &c);
}

static void stop_within_plain(void **state)
{
    struct server s;
    struct client c;
    start_open(&s, &c, TLS1_3_VERSION);
    s.stop = true;
    client_write(&c, "x", 1);
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_GONE);
    client_write(&c, "y", 1);
    assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_GONE);
    assert_int_equal(s.plain.len, 1);
    assert_int_equal(tls_conn_write(s.t, "bye", 3), 3); /* last words */
    tls_conn_shutdown(s.t);
    client_hears(&s, &c, "bye", 3);
    finish(&s, &c);
}

/* The context of a listener is replaced while connections live. */
static void a_connection_outlives_its_context(void **state)
{
    struct tls_context *own = need_context("tls_certificate = @/a.pem\n", NULL);
    struct server s;
    struct client c;
    server_init(&s, own);
    client_init(&c, (struct client_options){.version = TLS1_3_VERSION});
    tls_context_free(own);
    assert_true(shake_hands(&c, &s));
    echo_once(&c, &s);
    finish(&s, &c);
}

/* ---- holding */

static void held_bytes_are_fed_later(void **state)
{
    FOR_VERSIONS(v)
    {
        struct server s;
        struct client c;
        start(&s, &c, *v);
        (void)SSL_do_handshake(c.ssl);
        struct slice d = client_out(&c);
        for (size_t at = 0; at < d.len; at++)
            assert_int_equal(tls_conn_hold(s.t, d.data + at, 1), at + 1 == d.len);
        BIO_reset(c.out);
        assert_int_equal(s.sends, 0);
        assert_int_equal(tls_conn_feed(s.t, NULL, 0), TLS_OK);
        to_client(&s, &c);
        (void)SSL_do_handshake(c.ssl);
        d = client_out(&c);
        assert_int_equal(tls_conn_hold(s.t, d.data, d.len - 1), 1); /* two records and a part */
        assert_int_equal(tls_conn_feed(s.t, d.data + d.len - 1, 1), TLS_HANDSHAKEN);
        BIO_reset(c.out);
        to_client(&s, &c);
        assert_int_equal(SSL_do_handshake(c.ssl), 1);
        echo_once(&c, &s);
        finish(&s, &c);
    }
}

static void holding_is_bounded_and_sees_garbage(void **state)
{
    static const uint8_t zeros[TLS_HOLD_MAX];
    struct server s;
    server_init(&s, ctx);
    assert_int_equal(tls_conn_hold(s.t, NULL, 0), 0);
    assert_int_equal(tls_conn_hold(s.t, (const uint8_t *)"\x16\x03", 2), 0);
    assert_int_equal(tls_conn_hold(s.t, zeros, TLS_HOLD_MAX - 1), -ENOBUFS);
    server_fini(&s);
    server_init(&s, ctx);
    assert_int_equal(tls_conn_hold(s.t, (const uint8_t *)"G", 1), 1);
    assert_int_equal(tls_conn_hold(s.t, (const uint8_t *)"ET / ", 5), 1);
    assert_int_equal(tls_conn_feed(s.t, NULL, 0), TLS_ERROR);
    assert_string_equal(tls_conn_error(s.t), "plain HTTP, not TLS");
    assert_int_equal(tls_conn_hold(s.t, zeros, sizeof zeros), 1);
    server_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handshake_and_an_echo),
        cmocka_unit_test(every_split_of_the_flights),
        cmocka_unit_test(bytes_one_by_one),
        cmocka_unit_test(plaintext_behind_the_handshake),
        cmocka_unit_test(small_messages_of_one_feed_come_together),
        cmocka_unit_test(large_writes_both_ways),
        cmocka_unit_test(a_full_record_is_one_record),
        cmocka_unit_test(a_send_that_takes_little),
        cmocka_unit_test(a_write_sends_what_waits_first),
        cmocka_unit_test(a_broken_connection),
        cmocka_unit_test(what_waits_is_bounded),
        cmocka_unit_test(keys_change),
        cmocka_unit_test(no_renegotiation),
        cmocka_unit_test(a_close_notify_of_the_client),
        cmocka_unit_test(a_close_notify_of_ours),
        cmocka_unit_test(a_shutdown_waits_behind_what_is_written),
        cmocka_unit_test(a_shutdown_before_the_handshake_says_nothing),
        cmocka_unit_test(no_tls_at_all),
        cmocka_unit_test(an_error_leaves_an_alert),
        cmocka_unit_test(a_changed_byte_ends_it),
        cmocka_unit_test(garbage_between_records),
        cmocka_unit_test(a_record_over_the_limit),
        cmocka_unit_test(mutated_hellos),
        cmocka_unit_test(free_within_plain),
        cmocka_unit_test(free_within_plain_in_the_handshakes_feed),
        cmocka_unit_test(free_within_send),
        cmocka_unit_test(stop_within_plain),
        cmocka_unit_test(a_connection_outlives_its_context),
        cmocka_unit_test(held_bytes_are_fed_later),
        cmocka_unit_test(holding_is_bounded_and_sees_garbage),
    };
    int failed = cmocka_run_group_tests_name("records of our own", tests, make_all, free_all);
    return failed + cmocka_run_group_tests_name("with an SSL", tests, make_all_ssl, free_all);
}
