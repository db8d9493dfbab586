// SPDX-License-Identifier: MIT
/* OpenSSL's part of a connection: the handshake. It ends with the keys in a tls_record, and the SSL is freed;
 * only if the operator has configured ciphers that tls_record.c does not have, it stays.
 *
 * OpenSSL 3.0 tells its keys in no other way than this one: secrets of TLS 1.3 by the callback that is meant
 * for key logs, the master secret of TLS 1.2 in the session, from which the keys follow. How many records
 * have gone under a key is counted here. */
#include "tls/tls_priv.h"

#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509.h>

#include "base/assert.h"

/* The least that SSL_set_max_send_fragment takes. */
#define SMALL_RECORD    512
#define KEY_UPDATES_MAX 32

/* SSL_* has failed; its alert, if any, has gone through the BIO. */
static enum tls_result fail_ssl(struct tls_conn *t)
{
    long verify = SSL_get_verify_result(t->ssl);
    const char *text = ERR_reason_error_string(ERR_peek_last_error()); /* the last: TLS's own view */
    ERR_clear_error();
    if (t->broken)
        return tls__conn_fail(t, "the connection is broken");
    if (verify != X509_V_OK && !t->open)
        return tls__conn_fail(t, X509_verify_cert_error_string(verify));
    return tls__conn_fail(t, text != NULL ? text : "TLS failed");
}

/* ---- the BIO: one for all connections of a context, since a call into OpenSSL ends before the next one
 * begins; its data is the connection whose call it is. */

static struct tls_conn *bio_conn(BIO *bio)
{
    return BIO_get_data(bio);
}

static int bio_read(BIO *bio, char *data, size_t len, size_t *ret)
{
    struct tls_conn *t = bio_conn(bio);
    BIO_clear_retry_flags(bio);
    if (t->window_len == 0) {
        BIO_set_retry_read(bio);
        *ret = 0;
        return 0;
    }
    *ret = len < t->window_len ? len : t->window_len;
    memcpy(data, t->window, *ret);
    t->window += *ret;
    t->window_len -= *ret;
    return 1;
}

/* Takes all or fails for good: OpenSSL never has to try again. */
static int bio_write(BIO *bio, const char *data, size_t len, size_t *ret)
{
    BIO_clear_retry_flags(bio);
    *ret = 0;
    if (!tls__conn_push(bio_conn(bio), data, len))
        return 0;
    *ret = len;
    return 1;
}

static long bio_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
    return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method(void)
{
    static BIO_METHOD *method; /* for the life of the process */
    if (method != NULL)
        return method;
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tgg connection");
    if (m == NULL || !BIO_meth_set_read_ex(m, bio_read) || !BIO_meth_set_write_ex(m, bio_write) ||
        !BIO_meth_set_ctrl(m, bio_ctrl)) {
        BIO_meth_free(m);
        return NULL;
    }
    return method = m;
}

BIO *tls__bio_new(void)
{
    BIO_METHOD *m = bio_method();
    BIO *bio = m != NULL ? BIO_new(m) : NULL;
    if (bio != NULL)
        BIO_set_init(bio, 1);
    return bio;
}

/* Before every call of OpenSSL for t. */
static void enter(struct tls_conn *t)
{
    BIO_set_data(t->ctx->bio, t);
    ERR_clear_error();
}

/* ---- the SSL */

bool tls__ssl_make(struct tls_conn *t)
{
    if (t->ssl != NULL)
        return true;
    enter(t);
    t->ssl = SSL_new(t->ctx->fallback);
    if (t->rec == NULL)
        t->rec = calloc(1, sizeof *t->rec);
    if (t->ssl == NULL || t->rec == NULL)
        return false;
    BIO_up_ref(t->ctx->bio); /* SSL_set_bio takes one for both */
    SSL_set_bio(t->ssl, t->ctx->bio, t->ctx->bio);
    SSL_set_accept_state(t->ssl);
    return true;
}

void tls__ssl_free(struct tls_conn *t)
{
    if (t->ssl == NULL)
        return;
    enter(t);
    SSL_free(t->ssl);
    ERR_clear_error();
    t->ssl = NULL;
}

/* ---- what is seen of the handshake */

/* How many records each side has sent under its keys. A change_cipher_spec of TLS 1.2 is followed by number
 * 0, the Finished (RFC 5246 section 6.1); that of TLS 1.3 means nothing, there secrets do it (on_secret).
 */
static void count_record(struct tls_record *r, bool is_written, uint8_t type)
{
    struct tls_keys *k = is_written ? &r->write : &r->read;
    k->seq = type == SSL3_RT_CHANGE_CIPHER_SPEC ? 0 : k->seq + 1;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Bytes. */
static uint8_t take_secret(struct tls_keys *k, const char *hex)
{
    uint8_t n = 0;
    for (; n < sizeof k->secret && hex_digit(hex[0]) >= 0 && hex_digit(hex[1]) >= 0; n++, hex += 2)
        k->secret[n] = (uint8_t)(hex_digit(hex[0]) << 4 | hex_digit(hex[1]));
    k->seq = 0; /* RFC 8446 section 5.3 */
    return n;
}

/* "LABEL <random of the client> <secret>"; OpenSSL wipes the line. It comes at the moment when the keys are
 * set. */
static void on_secret(const SSL *ssl, const char *line)
{
    const struct tls_context *ctx = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct tls_conn *t = BIO_get_data(ctx->bio);
    const char *secret = strrchr(line, ' ');
    if (t->ssl != ssl || secret == NULL)
        return;
    if (strncmp(line, "CLIENT_TRAFFIC_SECRET_0 ", 24) == 0)
        t->rec->secret_bytes[0] = take_secret(&t->rec->read, secret + 1);
    else if (strncmp(line, "SERVER_TRAFFIC_SECRET_0 ", 24) == 0)
        t->rec->secret_bytes[1] = take_secret(&t->rec->write, secret + 1);
}

/* Only from our Finished on, and only for this handshake: the secrets before it are nobody's business, and
 * each line costs 2 us. */
static void hear_secrets(const struct tls_conn *t, bool on)
{
    SSL_CTX_set_keylog_callback(SSL_get_SSL_CTX(t->ssl), on ? on_secret : NULL);
}

static bool is_message(int type, const void *data, size_t len, uint8_t message)
{
    return type == SSL3_RT_HANDSHAKE && len > 0 && *(const uint8_t *)data == message;
}

/* A KeyUpdate costs us two derivations of keys and the peer nothing: after so many without a byte of data it
 * is an attack. OpenSSL sees no end of input then, and tls__ssl_read fails. */
void tls__on_message(int is_written, int version, int type, const void *data, size_t len, SSL *ssl, void *arg)
{
    const struct tls_context *ctx = arg;
    struct tls_conn *t = BIO_get_data(ctx->bio);
    if (t->rec != NULL && type == SSL3_RT_HEADER && len > 0)
        count_record(t->rec, is_written, *(const uint8_t *)data);
    if (t->rec != NULL && is_written && is_message(type, data, len, SSL3_MT_FINISHED)) {
        t->rec->has_finished = true;
        hear_secrets(t, true);
    }
    if (is_written || !is_message(type, data, len, SSL3_MT_KEY_UPDATE))
        return;
    if (++t->key_updates > KEY_UPDATES_MAX)
        t->window_len = 0;
}

/* TLS 1.2 with GCM: OpenSSL begins at a random explicit nonce and counts. We go on from there: it stands in
 * the record behind our change_cipher_spec, whose number is 0. Both are of one flight, which is in t->out. */
static void note_nonce(struct tls_conn *t)
{
    bool changed = false;
    for (size_t at = t->flight, n; at + TLS_RECORD_HEADER + 8 <= t->out.len; at += n) {
        const uint8_t *p = t->out.data + at;
        n = TLS_RECORD_HEADER + (size_t)(p[3] << 8 | p[4]);
        if (changed) {
            for (unsigned i = 0; i < 8; i++)
                t->rec->nonce_base = t->rec->nonce_base << 8 | p[TLS_RECORD_HEADER + i];
            t->rec->has_nonce = true;
            return;
        }
        changed = p[0] == SSL3_RT_CHANGE_CIPHER_SPEC;
    }
}

/* ---- the end of the handshake */

/* RFC 6066 section 4: a client with little memory. */
static uint16_t fragment_max(const SSL *ssl)
{
    unsigned code = SSL_SESSION_get_max_fragment_length(SSL_get0_session(ssl));
    bool is_asked = code >= TLSEXT_max_fragment_length_512 && code <= TLSEXT_max_fragment_length_4096;
    return is_asked ? (uint16_t)(256u << code) : TLS_RECORD_MAX;
}

static bool keep_names(struct tls_conn *t)
{
    char subject[sizeof((struct tls_info *)0)->client_subject];
    const char *name = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
    tls__ssl_subject(t->ssl, subject, sizeof subject);
    return tls__conn_set_names(t, (struct slice){(const uint8_t *)name, name != NULL ? strlen(name) : 0},
                               (struct slice){(const uint8_t *)subject, strlen(subject)});
}

/* It is one of our ciphers, and OpenSSL has told what it was to tell: nothing goes with keys of zeros. */
static bool is_complete(const struct tls_record *r)
{
    if (r->suite == NULL)
        return false;
    if (r->suite->version == TLS1_3_VERSION)
        return r->secret_bytes[0] == r->suite->secret_len && r->secret_bytes[1] == r->suite->secret_len;
    return r->has_nonce || !tls__record_has_explicit_nonce(r);
}

static bool derive_keys(struct tls_conn *t)
{
    if (SSL_version(t->ssl) == TLS1_3_VERSION)
        return tls__record_derive(t->rec, &t->ctx->aead);
    return tls__record_derive_12(t->rec, t->ssl);
}

/* The keys of the exchange, which OpenSSL would keep: nobody needs them again, and what was said is not to be
 * read by who finds them in memory later. */
static void forget_exchange(SSL *ssl)
{
    EVP_PKEY *key;
    if (SSL_get_tmp_key(ssl, &key) == 1) {
        (void)EVP_PKEY_set_type(key, EVP_PKEY_X25519); /* frees what is in it */
        EVP_PKEY_free(key);
    }
    if (SSL_get_peer_tmp_key(ssl, &key) == 1) {
        (void)EVP_PKEY_set_type(key, EVP_PKEY_X25519);
        EVP_PKEY_free(key);
    }
    ERR_clear_error();
}

/* SSL_read or SSL_do_handshake came to no end. */
static enum tls_result read_result(struct tls_conn *t, int got)
{
    switch (SSL_get_error(t->ssl, got)) {
    case SSL_ERROR_WANT_READ: return TLS_OK;
    case SSL_ERROR_ZERO_RETURN: t->ended = true; return TLS_ENDED;
    default: return fail_ssl(t);
    }
}

/* OpenSSL does it all. */
static enum tls_result stay(struct tls_conn *t)
{
    tls__record_wipe(t->rec, &t->ctx->aead);
    free(t->rec);
    t->rec = NULL;
    forget_exchange(t->ssl);
    return TLS_OK;
}

/* The keys go to t->rec, and the SSL goes. */
static enum tls_result detach(struct tls_conn *t)
{
    bool has_rest = SSL_has_pending(t->ssl) != 0;
    t->resumed = SSL_session_reused(t->ssl) == 1;
    t->rec->fragment_max = fragment_max(t->ssl);
    bool ok = keep_names(t) && derive_keys(t);
    tls__ssl_free(t);
    if (!ok)
        return tls__conn_fail(t, "no memory");
    return has_rest ? tls__conn_fail(t, "data behind the handshake in its record") : TLS_OK;
}

enum tls_result tls__ssl_shake(struct tls_conn *t)
{
    enter(t);
    hear_secrets(t, t->rec->has_finished);
    int done = SSL_do_handshake(t->ssl);
    hear_secrets(t, false);
    if (!t->rec->has_nonce)
        note_nonce(t);
    if (done != 1)
        return read_result(t, done);
    ERR_clear_error();
    t->open = true;
    const SSL_CIPHER *cipher = SSL_get_current_cipher(t->ssl);
    t->rec->suite = tls__suite_find((unsigned)SSL_version(t->ssl), SSL_CIPHER_get_protocol_id(cipher));
    return is_complete(t->rec) ? detach(t) : stay(t);
}

/* ---- with ciphers that are not ours */

/* Everything in the window. Records of one window are put together: small ones make one call of plain. */
enum tls_result tls__ssl_read(struct tls_conn *t)
{
    uint8_t *plain = t->ctx->plain;
    size_t used = 0;
    for (;;) {
        size_t n = 0;
        enter(t);
        bool got = SSL_read_ex(t->ssl, plain + used, TLS_PLAIN_BYTES - used, &n) == 1;
        used += n;
        enum tls_result r = got ? TLS_OK : read_result(t, 0);
        /* Not once more for nothing: that would cost a buffer of a record. */
        bool last = !got || (t->window_len == 0 && SSL_pending(t->ssl) == 0);
        if (used > 0 && (last || used == TLS_PLAIN_BYTES)) {
            if (!tls__conn_deliver(t, used))
                return TLS_GONE;
            used = 0;
        }
        if (t->key_updates > KEY_UPDATES_MAX)
            return tls__conn_fail(t, "too many key updates");
        if (t->failed) /* now, or a tls_conn_write of the owner's */
            return TLS_ERROR;
        if (last)
            return r;
    }
}

/* OpenSSL allocates for the largest record that is allowed: not 17 KB for a small message. */
static void allow_record(SSL *ssl, size_t len)
{
    long max = len <= SMALL_RECORD ? SMALL_RECORD : TLS_RECORD_MAX;
    SSL_set_max_send_fragment(ssl, max);
    SSL_set_split_send_fragment(ssl, max); /* which a smaller maximum has made smaller */
}

bool tls__ssl_write(struct tls_conn *t, const void *data, size_t len)
{
    size_t n = 0;
    enter(t);
    allow_record(t->ssl, len);
    if (SSL_write_ex(t->ssl, data, len, &n) != 1) {
        (void)fail_ssl(t);
        return false;
    }
    ASSERT(n == len);
    return true;
}

void tls__ssl_shutdown(struct tls_conn *t)
{
    enter(t);
    (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
}

void tls__ssl_subject(const SSL *ssl, char *buf, size_t cap)
{
    X509 *peer = SSL_get0_peer_certificate(ssl);
    BIO *mem = peer != NULL ? BIO_new(BIO_s_mem()) : NULL;
    buf[0] = '\0';
    if (mem == NULL)
        return;
    if (X509_NAME_print_ex(mem, X509_get_subject_name(peer), 0, XN_FLAG_RFC2253) >= 0) {
        int n = BIO_read(mem, buf, (int)cap - 1);
        buf[n > 0 ? n : 0] = '\0';
    }
    BIO_free(mem);
    ERR_clear_error();
}
