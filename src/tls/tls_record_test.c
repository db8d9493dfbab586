// SPDX-License-Identifier: MIT
/* What OpenSSL's client does not say: a peer with the client's keys, on the same record layer. */
#include "tls/tls_util_test.h"

#include "base/assert.h"
#include "tls/tls_priv.h"

static struct tls_context *ctx;

static int make_all(void **state)
{
    assert_int_equal(make_util_dir(state), 0);
    struct identity id = make_identity((struct identity_options){.cn = "a", .san = "DNS:a.example"});
    write_pem("a.pem", id.cert, NULL, id.key);
    free_identity(&id);
    ctx = need_context("tls_certificate = @/a.pem\n", NULL);
    return 0;
}

static int free_all(void **state)
{
    tls_context_free(ctx);
    SSL_SESSION_free(util_session);
    return remove_util_dir(state);
}

/* ---- the peer: the client's end of an open connection */

struct peer {
    struct tls_record r;
    struct tls_aead a;
    uint8_t plain[TLS_PLAIN_BYTES];
};

static void peer_start(struct peer *p, struct server *s, int version)
{
    struct client c;
    server_init(s, ctx);
    client_init(&c, (struct client_options){.version = version});
    assert_true(shake_hands(&c, s));
    client_fini(&c);
    *p = (struct peer){.r = *s->t->rec};
    p->r.read = s->t->rec->write;
    p->r.write = s->t->rec->read;
    p->r.nonce_base = 0x123456789;
    assert_true(tls__aead_init(&p->a));
}

static void peer_finish(struct peer *p, struct server *s)
{
    tls__record_wipe(&p->r, &p->a);
    tls__aead_fini(&p->a);
    server_fini(s);
    assert_int_equal(ERR_peek_error(), 0);
}

static enum tls_result peer_say(struct peer *p, struct server *s, int type, const void *data, size_t len)
{
    uint8_t out[TLS_SEALED_MAX];
    size_t n = tls__record_write(&p->r, &p->a, type, data, len, out);
    assert_int_not_equal(n, 0);
    return tls_conn_feed(s->t, out, n);
}

/* The next record that the server has sent. */
static struct tls_input peer_read(struct peer *p, struct server *s)
{
    assert_true(s->sent.len >= TLS_RECORD_HEADER);
    size_t len = TLS_RECORD_HEADER + (size_t)(s->sent.data[3] << 8 | s->sent.data[4]);
    assert_true(len <= s->sent.len);
    struct tls_input in = tls__record_read(&p->r, &p->a, s->sent.data, len, p->plain);
    bytes_consume(&s->sent, len);
    return in;
}

static void peer_hears(struct peer *p, struct server *s, const char *text)
{
    struct tls_input in = peer_read(p, s);
    assert_int_equal(in.event, TLS_EVENT_DATA);
    assert_int_equal(in.len, strlen(text));
    assert_memory_equal(p->plain, text, in.len);
}

static void peer_talks(struct peer *p, struct server *s)
{
    bytes_clear(&s->plain);
    assert_int_equal(peer_say(p, s, SSL3_RT_APPLICATION_DATA, "hello", 5), TLS_OK);
    assert_int_equal(s->plain.len, 5);
    assert_int_equal(tls_conn_write(s->t, "world", 5), 5);
    peer_hears(p, s, "world");
    assert_int_equal(s->sent.len, 0);
}

/* The server has sent this fatal alert (plain, as the peer reads it), and nothing else. */
static void peer_sees_alert(struct peer *p, struct server *s, int alert)
{
    struct tls_input in = peer_read(p, s);
    assert_int_equal(in.event, TLS_EVENT_ERROR);
    assert_int_equal(in.alert, -1);
    assert_int_equal(p->plain[0], SSL3_AL_FATAL);
    assert_int_equal(p->plain[1], alert);
    assert_int_equal(s->sent.len, 0);
    assert_false(tls_conn_is_open(s->t));
}

static void both_talk(void **state)
{
    FOR_VERSIONS(v)
    {
        struct peer p;
        struct server s;
        peer_start(&p, &s, *v);
        for (unsigned i = 0; i < 5; i++)
            peer_talks(&p, &s);
        peer_finish(&p, &s);
    }
}

/* ---- messages that do not belong here */

struct wrong {
    int version, type;
    const char *bytes;
    size_t len;
    int alert;
    const char *text;
};
#define BYTES(s) (s), sizeof(s) - 1
static const struct wrong wrongs[] = {
    {TLS1_3_VERSION, 22, BYTES("\x01\x00\x00\x02xx"), SSL_AD_UNEXPECTED_MESSAGE, "unexpected message"},
    {TLS1_3_VERSION, 22, BYTES("\x04"), SSL_AD_UNEXPECTED_MESSAGE, "unexpected message"},
    {TLS1_3_VERSION, 22, BYTES("\x14\x00\x00\x20"), SSL_AD_UNEXPECTED_MESSAGE, "unexpected message"},
    {TLS1_3_VERSION, 22, BYTES("\x18\x00\x00\x01\x02"), SSL_AD_ILLEGAL_PARAMETER, "bad key update"},
    {TLS1_3_VERSION, 22, BYTES("\x18\x00\x00\x02\x00\x00"), SSL_AD_DECODE_ERROR, "bad key update"},
    {TLS1_3_VERSION, 22, BYTES("\x18\x00\x00\x00"), SSL_AD_DECODE_ERROR, "bad key update"},
    {TLS1_3_VERSION, 22, BYTES("\x18\x00\x00\x01\x00\x18\x00\x00\x01\x00"), SSL_AD_UNEXPECTED_MESSAGE,
     "not on record boundary"},
    {TLS1_3_VERSION, 20, BYTES("\x01"), SSL_AD_UNEXPECTED_MESSAGE, "unexpected record"},
    {TLS1_3_VERSION, 24, BYTES("\x01"), SSL_AD_UNEXPECTED_MESSAGE, "unexpected record"},
    {TLS1_3_VERSION, 0, BYTES("\0\0\0"), SSL_AD_UNEXPECTED_MESSAGE, "bad record type"},
    {TLS1_3_VERSION, 21, BYTES("\x02"), SSL_AD_UNEXPECTED_MESSAGE, "invalid alert"},
    {TLS1_3_VERSION, 21, BYTES("\x02\x28\x01"), SSL_AD_UNEXPECTED_MESSAGE, "invalid alert"},
    {TLS1_2_VERSION, 22, BYTES("\x14\x00\x00\x0c"), SSL_AD_UNEXPECTED_MESSAGE, "unexpected message"},
    {TLS1_2_VERSION, 22, BYTES("\x01\x7f\xff\xff"), SSL_AD_ILLEGAL_PARAMETER, "excessive message size"},
    {TLS1_2_VERSION, 20, BYTES("\x01"), SSL_AD_UNEXPECTED_MESSAGE, "unexpected record"},
    {TLS1_2_VERSION, 21, BYTES("\x01"), SSL_AD_UNEXPECTED_MESSAGE, "invalid alert"},
    {TLS1_2_VERSION, 21, BYTES("\x03\x28"), SSL_AD_ILLEGAL_PARAMETER, "unknown alert type"},
};

static void what_does_not_belong_here(void **state)
{
    for (size_t i = 0; i < sizeof wrongs / sizeof wrongs[0]; i++) {
        struct peer p;
        struct server s;
        peer_start(&p, &s, wrongs[i].version);
        peer_talks(&p, &s);
        assert_int_equal(peer_say(&p, &s, wrongs[i].type, wrongs[i].bytes, wrongs[i].len), TLS_ERROR);
        assert_string_equal(tls_conn_error(s.t), wrongs[i].text);
        peer_sees_alert(&p, &s, wrongs[i].alert);
        assert_int_equal(peer_say(&p, &s, SSL3_RT_APPLICATION_DATA, "x", 1), TLS_ERROR);
        assert_int_equal(tls_conn_write(s.t, "x", 1), -EPIPE);
        peer_finish(&p, &s);
    }
}

/* Only the outside of the record is wrong. */
static void wrong_headers(void **state)
{
    static const struct {
        int version;
        uint8_t header[5];
        int alert;
    } headers[] = {
        {TLS1_3_VERSION, {20, 3, 3, 0, 1}, SSL_AD_UNEXPECTED_MESSAGE},
        {TLS1_3_VERSION, {21, 3, 3, 0, 2}, SSL_AD_UNEXPECTED_MESSAGE},
        {TLS1_3_VERSION, {22, 3, 3, 0, 5}, SSL_AD_UNEXPECTED_MESSAGE},
        {TLS1_3_VERSION, {23, 3, 3, 0, 0}, SSL_AD_BAD_RECORD_MAC},
        {TLS1_3_VERSION, {23, 3, 3, 0, 15}, SSL_AD_BAD_RECORD_MAC},
        {TLS1_3_VERSION, {23, 3, 3, 0, 16}, SSL_AD_BAD_RECORD_MAC},
        {TLS1_3_VERSION, {23, 2, 3, 0, 20}, SSL_AD_PROTOCOL_VERSION},
        {TLS1_3_VERSION, {24, 3, 3, 0, 20}, SSL_AD_UNEXPECTED_MESSAGE},
        {TLS1_3_VERSION, {23, 3, 3, 0x41, 1}, SSL_AD_RECORD_OVERFLOW},
        {TLS1_3_VERSION, {23, 3, 3, 0x49, 0}, SSL_AD_RECORD_OVERFLOW},
        {TLS1_2_VERSION, {23, 3, 1, 0, 40}, SSL_AD_PROTOCOL_VERSION},
        {TLS1_2_VERSION, {23, 3, 3, 0, 7}, SSL_AD_BAD_RECORD_MAC},
        {TLS1_2_VERSION, {23, 3, 3, 0, 23}, SSL_AD_BAD_RECORD_MAC},
        {TLS1_2_VERSION, {23, 3, 3, 0, 24}, SSL_AD_BAD_RECORD_MAC},
        {TLS1_2_VERSION, {20, 3, 3, 0, 1}, SSL_AD_BAD_RECORD_MAC},
        {TLS1_2_VERSION, {23, 3, 3, 0x49, 0}, SSL_AD_RECORD_OVERFLOW},
    };
    for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        static uint8_t record[5 + 0x4900];
        struct peer p;
        struct server s;
        peer_start(&p, &s, headers[i].version);
        memcpy(record, headers[i].header, 5);
        size_t len = 5 + (size_t)(record[3] << 8 | record[4]);
        assert_int_equal(tls_conn_feed(s.t, record, len), TLS_ERROR);
        peer_sees_alert(&p, &s, headers[i].alert);
        peer_finish(&p, &s);
    }
}

/* Inner plaintext of TLS 1.3, made by hand: content, type, zeros (RFC 8446 section 5.4). As OpenSSL's client
 * does not pad, this is where padding is seen at all. */
static enum tls_result say_padded(struct peer *p, struct server *s, const void *data, size_t len, int type,
                                  size_t zeros)
{
    static uint8_t inner[20000], out[21000];
    size_t n = len;
    if (len > 0)
        memcpy(inner, data, len);
    if (type != 0)
        inner[n++] = (uint8_t)type;
    memset(inner + n, 0, zeros);
    n += zeros;
    ASSERT(n > 0); /* the last byte goes as the type that tls__record_write appends */
    uint16_t had = p->r.fragment_max;
    p->r.fragment_max = TLS_RECORD_MAX;
    size_t sealed;
    if (n - 1 > 0)
        sealed = tls__record_write(&p->r, &p->a, inner[n - 1], inner, n - 1, out);
    else
        sealed = 0;
    p->r.fragment_max = had;
    return sealed > 0 ? tls_conn_feed(s->t, out, sealed) : TLS_GONE;
}

static void padding(void **state)
{
    static uint8_t data[TLS_RECORD_MAX];
    struct peer p;
    struct server s;
    peer_start(&p, &s, TLS1_3_VERSION);
    for (size_t zeros = 0; zeros < 300; zeros += 37) {
        bytes_clear(&s.plain);
        assert_int_equal(say_padded(&p, &s, "padded", 6, 23, zeros), TLS_OK);
        assert_int_equal(s.plain.len, 6);
        assert_memory_equal(s.plain.data, "padded", 6);
    }
    bytes_clear(&s.plain);
    assert_int_equal(say_padded(&p, &s, NULL, 0, 23, 5), TLS_OK); /* empty */
    assert_int_equal(s.plain.len, 0);
    assert_int_equal(say_padded(&p, &s, data, TLS_RECORD_MAX - 100, 23, 100), TLS_OK);
    assert_int_equal(s.plain.len, TLS_RECORD_MAX - 100);
    assert_int_equal(say_padded(&p, &s, "\x01\x00", 2, 21, 9), TLS_ENDED);
    peer_finish(&p, &s);

    peer_start(&p, &s, TLS1_3_VERSION);
    assert_int_equal(say_padded(&p, &s, NULL, 0, 0, 50), TLS_ERROR); /* zeros only */
    peer_sees_alert(&p, &s, SSL_AD_UNEXPECTED_MESSAGE);
    peer_finish(&p, &s);

    for (int type = 21; type <= 22; type++) { /* RFC 8446 section 5.1: none of these is empty */
        peer_start(&p, &s, TLS1_3_VERSION);
        assert_int_equal(say_padded(&p, &s, NULL, 0, type, 3), TLS_ERROR);
        peer_sees_alert(&p, &s, SSL_AD_UNEXPECTED_MESSAGE);
        peer_finish(&p, &s);
    }
}

static void too_many_records_without_data(void **state)
{
    struct peer p;
    struct server s;
    peer_start(&p, &s, TLS1_3_VERSION);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(say_padded(&p, &s, NULL, 0, 23, 1), TLS_OK);
    peer_talks(&p, &s); /* begins anew */
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(say_padded(&p, &s, NULL, 0, 23, 1), TLS_OK);
    assert_int_equal(say_padded(&p, &s, NULL, 0, 23, 1), TLS_ERROR);
    assert_string_equal(tls_conn_error(s.t), "too many empty records");
    peer_sees_alert(&p, &s, SSL_AD_UNEXPECTED_MESSAGE);
    peer_finish(&p, &s);

    peer_start(&p, &s, TLS1_2_VERSION);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(peer_say(&p, &s, 21, "\x01\x5a", 2), TLS_OK);
    assert_int_equal(peer_say(&p, &s, 21, "\x01\x5a", 2), TLS_ERROR);
    assert_string_equal(tls_conn_error(s.t), "too many warn alerts");
    peer_finish(&p, &s);
}

/* ---- alerts */

static void alerts(void **state)
{
    struct peer p;
    struct server s;
    peer_start(&p, &s, TLS1_3_VERSION);
    assert_int_equal(peer_say(&p, &s, 21, "\x01\x5a", 2), TLS_OK); /* user_canceled */
    peer_talks(&p, &s);
    assert_int_equal(peer_say(&p, &s, 21, "\x01\x28", 2), TLS_ERROR); /* a warning, but there are none */
    assert_string_equal(tls_conn_error(s.t), "sslv3 alert handshake failure");
    assert_int_equal(s.sent.len, 0);
    peer_finish(&p, &s);

    peer_start(&p, &s, TLS1_2_VERSION);
    assert_int_equal(peer_say(&p, &s, 21, "\x01\x28", 2), TLS_OK);
    peer_talks(&p, &s);
    assert_int_equal(peer_say(&p, &s, 21, "\x02\xfe", 2), TLS_ERROR); /* that nobody knows */
    assert_string_equal(tls_conn_error(s.t), "an alert of the peer");
    peer_finish(&p, &s);
}

/* After our close_notify nothing is said any more, not even that something is wrong. */
static void silence_after_our_end(void **state)
{
    FOR_VERSIONS(v)
    {
        struct peer p;
        struct server s;
        peer_start(&p, &s, *v);
        tls_conn_shutdown(s.t);
        assert_int_equal(peer_read(&p, &s).event, TLS_EVENT_CLOSED);
        if (*v == TLS1_3_VERSION)
            assert_int_equal(peer_say(&p, &s, 22, "\x18\x00\x00\x01\x01", 5), TLS_OK);
        p.r.write.seq = 77;
        assert_int_equal(peer_say(&p, &s, 23, "x", 1), TLS_ERROR);
        assert_int_equal(s.sent.len, 0);
        peer_finish(&p, &s);
    }
}

/* ---- keys that change */

static enum tls_result peer_update(struct peer *p, struct server *s, bool request)
{
    uint8_t out[64];
    size_t n = tls__record_update(&p->r, &p->a, request, out);
    return tls_conn_feed(s->t, out, n);
}

static void key_updates(void **state)
{
    struct peer p;
    struct server s;
    peer_start(&p, &s, TLS1_3_VERSION);
    assert_int_equal(peer_update(&p, &s, false), TLS_OK);
    assert_int_equal(s.sent.len, 0);
    peer_talks(&p, &s);
    assert_int_equal(peer_update(&p, &s, true), TLS_OK);
    assert_int_equal(peer_read(&p, &s).event, TLS_EVENT_NONE); /* the answer, with the old keys */
    assert_false(p.r.owes_update);
    peer_talks(&p, &s);
    /* In two records: with the old keys until it is whole. */
    assert_int_equal(peer_say(&p, &s, 22, "\x18\x00", 2), TLS_OK);
    assert_int_equal(peer_update(&p, &s, false), TLS_ERROR); /* no message any more: 24 0 24 0 0 */
    peer_finish(&p, &s);
}

static void a_key_update_in_parts(void **state)
{
    for (size_t first = 1; first < 5; first++) {
        struct peer p;
        struct server s;
        peer_start(&p, &s, TLS1_3_VERSION);
        assert_int_equal(peer_say(&p, &s, 22, "\x18\x00\x00\x01\x01", first), TLS_OK);
        struct tls_keys old = p.r.write;
        uint8_t out[64];
        (void)tls__record_update(&p.r, &p.a, false, out); /* only for the keys behind it */
        struct tls_keys next = p.r.write;
        p.r.write = old;
        p.a.keyed[p.r.suite->aead][1] = NULL;
        assert_int_equal(peer_say(&p, &s, 22, &"\x18\x00\x00\x01\x01"[first], 5 - first), TLS_OK);
        p.r.write = next;
        p.a.keyed[p.r.suite->aead][1] = NULL;
        assert_int_equal(peer_read(&p, &s).event, TLS_EVENT_NONE);
        peer_talks(&p, &s);
        peer_finish(&p, &s);
    }
}

static void data_within_a_key_update(void **state)
{
    struct peer p;
    struct server s;
    peer_start(&p, &s, TLS1_3_VERSION);
    assert_int_equal(peer_say(&p, &s, 22, "\x18\x00\x00", 3), TLS_OK);
    assert_int_equal(peer_say(&p, &s, 23, "x", 1), TLS_ERROR);
    assert_int_equal(s.plain.len, 0);
    peer_sees_alert(&p, &s, SSL_AD_UNEXPECTED_MESSAGE);
    peer_finish(&p, &s);
}

/* Every answer costs us two derivations. */
static void too_many_key_updates(void **state)
{
    struct peer p;
    struct server s;
    peer_start(&p, &s, TLS1_3_VERSION);
    for (unsigned i = 0; i < 32; i++) {
        assert_int_equal(peer_update(&p, &s, true), TLS_OK);
        assert_int_equal(peer_read(&p, &s).event, TLS_EVENT_NONE);
    }
    assert_int_equal(peer_update(&p, &s, true), TLS_ERROR);
    assert_string_equal(tls_conn_error(s.t), "too many key updates");
    peer_finish(&p, &s);
}

/* RFC 8446 section 5.5. */
static void our_own_key_update_at_the_limit(void **state)
{
    struct peer p;
    struct server s;
    peer_start(&p, &s, TLS1_3_VERSION);
    s.t->rec->write.seq = p.r.read.seq = (1 << 24) - 1;
    assert_int_equal(tls_conn_write(s.t, "last", 4), 4);
    peer_hears(&p, &s, "last");
    assert_int_equal(s.sent.len, 0);
    assert_int_equal(tls_conn_write(s.t, "first", 5), 5);
    assert_int_equal(peer_read(&p, &s).event, TLS_EVENT_NONE);
    assert_false(p.r.owes_update); /* the client is not asked for the same */
    assert_int_equal(p.r.read.seq, 0);
    peer_hears(&p, &s, "first");
    peer_talks(&p, &s);
    peer_finish(&p, &s);
}

static void the_last_sequence_number(void **state)
{
    FOR_VERSIONS(v)
    {
        struct peer p;
        struct server s;
        peer_start(&p, &s, *v);
        s.t->rec->read.seq = p.r.write.seq = UINT64_MAX - 1;
        assert_int_equal(peer_say(&p, &s, 23, "x", 1), TLS_OK);
        uint8_t junk[40] = {23, 3, 3, 0, 35};
        assert_int_equal(tls_conn_feed(s.t, junk, sizeof junk), TLS_ERROR);
        assert_string_equal(tls_conn_error(s.t), "too many records");
        peer_finish(&p, &s);
    }
    struct peer p; /* no new keys in TLS 1.2 */
    struct server s;
    peer_start(&p, &s, TLS1_2_VERSION);
    s.t->rec->write.seq = p.r.read.seq = UINT64_MAX - 1;
    assert_int_equal(tls_conn_write(s.t, "x", 1), 1);
    peer_hears(&p, &s, "x");
    assert_int_equal(tls_conn_write(s.t, "x", 1), -EPIPE);
    assert_int_equal(s.sent.len, 0);
    peer_finish(&p, &s);
}

/* ---- hellos in TLS 1.2 */

static void a_hello_in_records_of_any_size(void **state)
{
    uint8_t hello[304] = {1, 0, 1, 44};
    for (size_t step = 1; step < sizeof hello + 1; step += step < 8 ? 1 : 59) {
        struct peer p;
        struct server s;
        struct tls_input in;
        peer_start(&p, &s, TLS1_2_VERSION);
        for (size_t at = 0; at < sizeof hello; at += step) {
            size_t n = sizeof hello - at < step ? sizeof hello - at : step;
            assert_int_equal(s.sent.len, 0);
            s.t->rec->idle = 0; /* or the small ones are too many */
            assert_int_equal(peer_say(&p, &s, 22, hello + at, n), TLS_OK);
        }
        in = peer_read(&p, &s);
        assert_int_equal(in.event, TLS_EVENT_NONE);
        assert_memory_equal(p.plain, "\x01\x64", 2); /* no_renegotiation, a warning */
        peer_talks(&p, &s);
        peer_finish(&p, &s);
    }
}

static void too_many_hellos(void **state)
{
    struct peer p;
    struct server s;
    unsigned i;
    peer_start(&p, &s, TLS1_2_VERSION);
    s.room = 100;
    for (i = 0; peer_say(&p, &s, 22, "\x01\x00\x00\x00\x01\x00\x00\x00", 8) == TLS_OK; i++)
        assert_true(tls_conn_memory(s.t) < 1024);
    assert_int_equal(i, 32);
    assert_string_equal(tls_conn_error(s.t), "too many renegotiations");
    peer_finish(&p, &s);
}

/* ---- nonces and keys */

/* TLS 1.2 with GCM: an explicit nonce comes once under a key. OpenSSL has used one for its Finished: the
 * client's record of handshakes tells which. */
static void explicit_nonces_go_on(void **state)
{
    for (unsigned i = 0; i < 20; i++) {
        struct server s;
        struct client c;
        uint8_t finished[8];
        server_init(&s, ctx);
        client_init(&c, (struct client_options){.version = TLS1_2_VERSION,
                                                .ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256"});
        (void)SSL_do_handshake(c.ssl);
        to_server(&c, &s, SIZE_MAX / 2);
        to_client(&s, &c);
        (void)SSL_do_handshake(c.ssl);
        assert_int_equal(to_server(&c, &s, SIZE_MAX / 2), TLS_HANDSHAKEN);
        size_t at = s.sent.len - (5 + 8 + 16 + 16); /* the Finished is the last of the flight */
        assert_int_equal(s.sent.data[at], 22);
        memcpy(finished, s.sent.data + at + 5, 8);
        to_client(&s, &c);
        assert_int_equal(SSL_do_handshake(c.ssl), 1);
        for (unsigned k = 1; k < 4; k++) {
            assert_int_equal(tls_conn_write(s.t, "x", 1), 1);
            uint64_t a = 0, b = 0;
            for (unsigned j = 0; j < 8; j++) {
                a = a << 8 | finished[j];
                b = b << 8 | s.sent.data[5 + j];
            }
            assert_int_equal(b - a, k);
            to_client(&s, &c);
        }
        server_fini(&s);
        client_fini(&c);
    }
}

/* RFC 8448 section 3: traffic secrets of an example, the server's keys, and the client's record of 50 bytes.
 */
static void an_example_of_the_standard(void **state)
{
    static const uint8_t client_secret[32] = {
        0x9e, 0x40, 0x64, 0x6c, 0xe7, 0x9a, 0x7f, 0x9d, 0xc0, 0x5a, 0xf8, 0x88, 0x9b, 0xce, 0x65, 0x52,
        0x87, 0x5a, 0xfa, 0x0b, 0x06, 0xdf, 0x00, 0x87, 0xf7, 0x92, 0xeb, 0xb7, 0xc1, 0x75, 0x04, 0xa5};
    static const uint8_t server_secret[32] = {
        0xa1, 0x1a, 0xf9, 0xf0, 0x55, 0x31, 0xf8, 0x56, 0xad, 0x47, 0x11, 0x6b, 0x45, 0xa9, 0x50, 0x32,
        0x82, 0x04, 0xb4, 0xf4, 0x4b, 0xfb, 0x6b, 0x3a, 0x4b, 0x4f, 0x1f, 0x3f, 0xcb, 0x63, 0x16, 0x43};
    static const uint8_t key[16] = {0x9f, 0x02, 0x28, 0x3b, 0x6c, 0x9c, 0x07, 0xef,
                                    0xc2, 0x6b, 0xb9, 0xf2, 0xac, 0x92, 0xe3, 0x56};
    static const uint8_t iv[12] = {0xcf, 0x78, 0x2b, 0x88, 0xdd, 0x83, 0x54, 0x9a, 0xad, 0xf1, 0xe9, 0x84};
    static const uint8_t record[72] = {
        0x17, 0x03, 0x03, 0x00, 0x43, 0xa2, 0x3f, 0x70, 0x54, 0xb6, 0x2c, 0x94, 0xd0, 0xaf, 0xfa,
        0xfe, 0x82, 0x28, 0xba, 0x55, 0xcb, 0xef, 0xac, 0xea, 0x42, 0xf9, 0x14, 0xaa, 0x66, 0xbc,
        0xab, 0x3f, 0x2b, 0x98, 0x19, 0xa8, 0xa5, 0xb4, 0x6b, 0x39, 0x5b, 0xd5, 0x4a, 0x9a, 0x20,
        0x44, 0x1e, 0x2b, 0x62, 0x97, 0x4e, 0x1f, 0x5a, 0x62, 0x92, 0xa2, 0x97, 0x70, 0x14, 0xbd,
        0x1e, 0x3d, 0xea, 0xe6, 0x3a, 0xee, 0xbb, 0x21, 0x69, 0x49, 0x15, 0xe4};
    struct tls_record r = {.suite = tls__suite_find(TLS1_3_VERSION, 0x1301), .fragment_max = TLS_RECORD_MAX};
    struct tls_aead a = {0};
    uint8_t plain[128];
    assert_true(tls__aead_init(&a));
    memcpy(r.read.secret, client_secret, sizeof client_secret);
    memcpy(r.write.secret, server_secret, sizeof server_secret);
    assert_true(tls__record_derive(&r, &a));
    assert_memory_equal(r.write.key, key, sizeof key);
    assert_memory_equal(r.write.iv, iv, sizeof iv);
    struct tls_input in = tls__record_read(&r, &a, record, sizeof record, plain);
    assert_int_equal(in.event, TLS_EVENT_DATA);
    assert_int_equal(in.len, 50);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(plain[i], i);
    tls__record_wipe(&r, &a);
    tls__aead_fini(&a);
}

static void keys_are_wiped(void **state)
{
    struct peer p;
    struct server s;
    static const struct tls_record zeros;
    peer_start(&p, &s, TLS1_3_VERSION);
    peer_talks(&p, &s);
    assert_ptr_equal(p.a.keyed[p.r.suite->aead][1], &p.r.write);
    unsigned aead = p.r.suite->aead;
    tls__record_wipe(&p.r, &p.a);
    assert_memory_equal(&p.r, &zeros, sizeof zeros);
    assert_null(p.a.keyed[aead][0]);
    assert_null(p.a.keyed[aead][1]);
    peer_finish(&p, &s);
}

/* Connections take turns with the contexts of ciphers. */
static void connections_in_turn(void **state)
{
    enum { N = 6 };
    static struct peer p[N];
    static struct server s[N];
    for (unsigned i = 0; i < N; i++)
        peer_start(&p[i], &s[i], util_versions[i % 2]);
    for (unsigned round = 0; round < 20; round++)
        for (unsigned i = 0; i < N; i++)
            peer_talks(&p[(i * 5 + round) % N], &s[(i * 5 + round) % N]);
    for (unsigned i = 0; i < N; i++)
        peer_finish(&p[i], &s[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_talk),
        cmocka_unit_test(what_does_not_belong_here),
        cmocka_unit_test(wrong_headers),
        cmocka_unit_test(padding),
        cmocka_unit_test(too_many_records_without_data),
        cmocka_unit_test(alerts),
        cmocka_unit_test(silence_after_our_end),
        cmocka_unit_test(key_updates),
        cmocka_unit_test(a_key_update_in_parts),
        cmocka_unit_test(data_within_a_key_update),
        cmocka_unit_test(too_many_key_updates),
        cmocka_unit_test(our_own_key_update_at_the_limit),
        cmocka_unit_test(the_last_sequence_number),
        cmocka_unit_test(a_hello_in_records_of_any_size),
        cmocka_unit_test(too_many_hellos),
        cmocka_unit_test(explicit_nonces_go_on),
        cmocka_unit_test(an_example_of_the_standard),
        cmocka_unit_test(keys_are_wiped),
        cmocka_unit_test(connections_in_turn),
    };
    return cmocka_run_group_tests(tests, make_all, free_all);
}
