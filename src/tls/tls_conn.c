// SPDX-License-Identifier: MIT
/* One connection. OpenSSL is given whole records only: for a part of one it would hold a buffer of 17 KB as
 * long as the rest does not come, we hold the part. The SSL is made with the first whole record, so that who
 * says nothing, or is no TLS client, costs next to nothing. */
#include "tls/tls_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/x509.h>

#include "base/assert.h"

#define RECORD_HEADER 5
/* OpenSSL's bound for a record's content (SSL3_RT_MAX_PLAIN_LENGTH + SSL3_RT_MAX_ENCRYPTED_OVERHEAD); a
 * longer one it refuses by its header. */
#define RECORD_CONTENT_MAX (16384 + 320)
/* What may wait to be sent: a handshake with a large chain; then a record, and small ones that OpenSSL
 * answers (a change of keys). Past that the peer makes us send and does not read. */
#define OUT_HANDSHAKE_MAX (128 * 1024)
#define OUT_OPEN_MAX      (32 * 1024)
/* The least that SSL_set_max_send_fragment takes. */
#define SMALL_RECORD    512
#define KEY_UPDATES_MAX 32
/* Measured (tls_memory_test.c): an idle SSL, whichever version. */
#define SSL_BYTES (13 * 1024)

struct piece {
    uint8_t *data;
    uint32_t at, len, cap; /* the bytes are data[at .. len) */
};

struct tls_conn {
    struct tls_context *ctx;
    const struct tls_conn_ops *ops;
    void *owner;
    SSL *ssl;              /* NULL until the first record is whole */
    const char *error;     /* static */
    const uint8_t *window; /* what the BIO may read now */
    size_t window_len;
    struct piece in;  /* ciphertext of a record that is not whole, or held */
    struct piece out; /* ciphertext that was not taken */
    uint8_t busy;     /* calls of ours that are on the stack */
    bool freed : 1;   /* by the owner, while busy */
    bool feeding : 1;
    bool gather : 1;      /* out goes at the end of the feed, in one piece */
    bool open : 1;        /* the handshake is done */
    bool ended : 1;       /* the peer's close_notify */
    bool failed : 1;      /* error tells */
    bool broken : 1;      /* ops->send said so: nothing can be sent */
    bool stopped : 1;     /* ops->plain said so */
    bool shut : 1;        /* our close_notify */
    unsigned key_updates; /* since data came */
};

/* ---- pieces */

static size_t piece_left(const struct piece *p)
{
    return p->len - p->at;
}

static void piece_clear(struct piece *p)
{
    free(p->data);
    *p = (struct piece){0};
}

static bool piece_append(struct piece *p, const void *data, size_t len)
{
    if (p->len + len > p->cap) {
        size_t cap = p->len + len > 2 * (size_t)p->cap ? p->len + len : 2 * (size_t)p->cap;
        uint8_t *grown = realloc(p->data, cap);
        if (grown == NULL)
            return false;
        p->data = grown;
        p->cap = (uint32_t)cap;
    }
    memcpy(p->data + p->len, data, len);
    p->len += (uint32_t)len;
    return true;
}

/* The first bytes are used up. */
static void piece_consume(struct piece *p, size_t len)
{
    ASSERT(len <= piece_left(p));
    p->at += (uint32_t)len;
    if (p->at == p->len)
        piece_clear(p);
}

/* ---- errors */

static enum tls_result fail(struct tls_conn *t, const char *error)
{
    if (!t->failed)
        t->error = error;
    t->failed = true;
    piece_clear(&t->in);
    return TLS_ERROR;
}

/* SSL_* has failed; its alert, if any, has gone through the BIO. */
static enum tls_result fail_ssl(struct tls_conn *t)
{
    long verify = SSL_get_verify_result(t->ssl);
    const char *text = ERR_reason_error_string(ERR_peek_last_error()); /* the last: TLS's own view */
    ERR_clear_error();
    if (t->broken)
        return fail(t, "the connection is broken");
    if (verify != X509_V_OK && !t->open)
        return fail(t, X509_verify_cert_error_string(verify));
    return fail(t, text != NULL ? text : "TLS failed");
}

/* ---- sending */

static size_t send_now(struct tls_conn *t, const void *data, size_t len)
{
    if (t->broken || t->freed)
        return 0;
    ssize_t n = t->ops->send(t->owner, data, len);
    BIO_set_data(t->ctx->bio, t); /* OpenSSL may be on the stack below, for t */
    if (n < 0 && n != -EAGAIN) {
        t->broken = true;
        piece_clear(&t->out);
    }
    ASSERT(n <= (ssize_t)len);
    return n < 0 ? 0 : (size_t)n;
}

static void send_out(struct tls_conn *t)
{
    size_t left = piece_left(&t->out);
    if (left == 0)
        return;
    size_t n = send_now(t, t->out.data + t->out.at, left);
    if (!t->broken)
        piece_consume(&t->out, n);
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
    struct tls_conn *t = bio_conn(bio);
    BIO_clear_retry_flags(bio);
    *ret = 0;
    size_t sent = t->gather || piece_left(&t->out) > 0 ? 0 : send_now(t, data, len);
    size_t max = t->open ? OUT_OPEN_MAX : OUT_HANDSHAKE_MAX;
    if (t->broken)
        return 0;
    if (sent < len &&
        (piece_left(&t->out) + len - sent > max || !piece_append(&t->out, data + sent, len - sent))) {
        t->broken = true;
        piece_clear(&t->out);
        return 0;
    }
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

/* ---- making and freeing */

struct tls_conn *tls_conn_new(struct tls_context *ctx, const struct tls_conn_ops *ops, void *owner)
{
    struct tls_conn *t = calloc(1, sizeof *t);
    if (t == NULL)
        return NULL;
    *t = (struct tls_conn){.ctx = ctx, .ops = ops, .owner = owner};
    ctx->refs++;
    return t;
}

static void destroy(struct tls_conn *t)
{
    enter(t);
    SSL_free(t->ssl);
    ERR_clear_error();
    piece_clear(&t->in);
    piece_clear(&t->out);
    tls__context_unref(t->ctx);
    free(t);
}

void tls_conn_free(struct tls_conn *t)
{
    if (t == NULL)
        return;
    ASSERT(!t->freed);
    t->freed = true;
    if (t->busy == 0)
        destroy(t);
}

static void begin(struct tls_conn *t)
{
    ASSERT(!t->freed && t->busy < UINT8_MAX);
    t->busy++;
}
/* False: the owner has freed t meanwhile, and now it is gone. */
static bool end(struct tls_conn *t)
{
    if (--t->busy > 0)
        return !t->freed;
    if (t->freed) {
        destroy(t);
        return false;
    }
    /* Two buffers of a record. SSL_MODE_RELEASE_BUFFERS would drop them after every record of a feed, and
     * forgets one after a change of keys. */
    if (t->ssl != NULL)
        SSL_free_buffers(t->ssl);
    return true;
}

static bool make_ssl(struct tls_conn *t)
{
    if (t->ssl != NULL)
        return true;
    enter(t);
    t->ssl = SSL_new(t->ctx->fallback);
    if (t->ssl == NULL)
        return false;
    BIO_up_ref(t->ctx->bio); /* SSL_set_bio takes one for both */
    SSL_set_bio(t->ssl, t->ctx->bio, t->ctx->bio);
    SSL_set_accept_state(t->ssl);
    return true;
}

/* ---- receiving */

/* Of the record that begins at p: bytes with the header; 0: not known yet; -1: this is not the beginning of a
 * record that OpenSSL would take. RFC 8446 section 5.1. */
static int record_size(const uint8_t *p, size_t len)
{
    if (len >= 1 && (p[0] < 20 || p[0] > 23))
        return -1;
    if (len >= 2 && p[1] != 3)
        return -1;
    if (len < RECORD_HEADER)
        return 0;
    int n = p[3] << 8 | p[4];
    return n <= RECORD_CONTENT_MAX ? RECORD_HEADER + n : -1;
}

/* Bytes of the whole records at the front. *ret_bad: what follows them is no record. */
static size_t whole_records(const uint8_t *data, size_t len, bool *ret_bad)
{
    size_t at = 0;
    int n;
    while ((n = record_size(data + at, len - at)) > 0 && (size_t)n <= len - at)
        at += (size_t)n;
    *ret_bad = n < 0;
    return at;
}

/* A KeyUpdate costs us two derivations of keys and the peer nothing: after so many without a byte of data it
 * is an attack. OpenSSL sees no end of input then, and read_window fails. */
void tls__on_message(int is_written, int version, int type, const void *data, size_t len, SSL *ssl, void *arg)
{
    const struct tls_context *ctx = arg;
    struct tls_conn *t = BIO_get_data(ctx->bio);
    if (is_written || type != SSL3_RT_HANDSHAKE || len == 0 || *(const uint8_t *)data != SSL3_MT_KEY_UPDATE)
        return;
    if (++t->key_updates > KEY_UPDATES_MAX)
        t->window_len = 0;
}

static bool deliver(struct tls_conn *t, size_t len)
{
    t->key_updates = 0;
    if (!t->ops->plain(t->owner, t->ctx->plain, len) || t->freed)
        t->stopped = true;
    return !t->stopped;
}

/* SSL_read has given nothing. */
static enum tls_result read_result(struct tls_conn *t)
{
    switch (SSL_get_error(t->ssl, 0)) {
    case SSL_ERROR_WANT_READ: return TLS_OK;
    case SSL_ERROR_ZERO_RETURN: t->ended = true; return TLS_ENDED;
    default: return fail_ssl(t);
    }
}

/* Everything in the window. Records of one window are put together: small ones make one call of plain. */
static enum tls_result read_window(struct tls_conn *t)
{
    uint8_t *plain = t->ctx->plain;
    size_t used = 0;
    for (;;) {
        size_t n = 0;
        enter(t);
        bool got = SSL_read_ex(t->ssl, plain + used, TLS_PLAIN_BYTES - used, &n) == 1;
        used += n;
        t->open = t->open || SSL_is_init_finished(t->ssl);
        enum tls_result r = got ? TLS_OK : read_result(t);
        /* Not once more for nothing: that would cost a buffer of a record. */
        bool last = !got || (t->window_len == 0 && SSL_pending(t->ssl) == 0);
        if (used > 0 && (last || used == TLS_PLAIN_BYTES)) {
            if (!deliver(t, used))
                return TLS_GONE;
            used = 0;
        }
        if (t->key_updates > KEY_UPDATES_MAX)
            return fail(t, "too many key updates");
        if (t->failed) /* now, or a tls_conn_write of the owner's */
            return TLS_ERROR;
        if (last)
            return r;
    }
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

static enum tls_result pump(struct tls_conn *t, const uint8_t *data, size_t len)
{
    if (len == 0)
        return TLS_OK;
    if (!make_ssl(t))
        return fail(t, "no memory");
    ASSERT(!t->ctx->plain_used);
    t->ctx->plain_used = true;
    t->window = data;
    t->window_len = len;
    enum tls_result r = read_window(t);
    t->window = NULL;
    t->window_len = 0;
    t->ctx->plain_used = false;
    return r;
}

/* Words for those who come without TLS. */
static const char *not_tls(const uint8_t *data, size_t len)
{
    static const char *const methods[] = {"GET ", "POST", "PUT ", "HEAD", "OPTI", "CONN", "PROX"};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (len >= 4 && memcmp(data, methods[i], 4) == 0)
            return i == 6 ? "a PROXY header, not TLS" : "plain HTTP, not TLS";
    return "not TLS";
}

/* What stands there is no record: OpenSSL says so to the peer, once it has talked with it. */
static enum tls_result refuse(struct tls_conn *t, const uint8_t *data, size_t len)
{
    if (t->ssl == NULL)
        return fail(t, not_tls(data, len));
    enum tls_result r = pump(t, data, len);
    return r == TLS_OK ? fail(t, "not a TLS record") : r;
}

/* The whole records at the front; *ret_rest: what is left. */
static enum tls_result take(struct tls_conn *t, const uint8_t *data, size_t len, size_t *ret_used)
{
    bool bad;
    *ret_used = whole_records(data, len, &bad);
    enum tls_result r = pump(t, data, *ret_used);
    if (r == TLS_OK && bad)
        r = refuse(t, data + *ret_used, len - *ret_used);
    return r;
}

/* Bytes that the first record of t->in still needs, as far as is known. */
static size_t record_needs(const struct tls_conn *t)
{
    size_t have = piece_left(&t->in);
    int n = record_size(t->in.data + t->in.at, have);
    size_t want = n > 0 ? (size_t)n : n == 0 ? RECORD_HEADER : 0;
    return want > have ? want - have : 0;
}

/* First what was kept, each record of it made whole from the new data. */
static enum tls_result feed_kept(struct tls_conn *t, const uint8_t **data, size_t *len)
{
    while (piece_left(&t->in) > 0) {
        size_t need = record_needs(t), n = need < *len ? need : *len;
        if (n > 0 && !piece_append(&t->in, *data, n))
            return fail(t, "no memory");
        *data += n;
        *len -= n;
        if (n < need)
            return TLS_OK;
        if (need > 0 && record_needs(t) > 0)
            continue; /* that was the header */
        size_t used;
        enum tls_result r = take(t, t->in.data + t->in.at, piece_left(&t->in), &used);
        if (r != TLS_OK)
            return r;
        piece_consume(&t->in, used);
    }
    return TLS_OK;
}

static enum tls_result feed(struct tls_conn *t, const uint8_t *data, size_t len)
{
    enum tls_result r = feed_kept(t, &data, &len);
    if (r != TLS_OK || piece_left(&t->in) > 0)
        return r;
    size_t used;
    r = take(t, data, len, &used);
    if (r == TLS_OK && len > used && !piece_append(&t->in, data + used, len - used))
        r = fail(t, "no memory");
    return r;
}

/* Nothing is read any more. */
static bool is_over(const struct tls_conn *t, enum tls_result *ret)
{
    *ret = t->stopped ? TLS_GONE : t->failed ? TLS_ERROR : TLS_ENDED;
    return t->stopped || t->failed || t->ended;
}

enum tls_result tls_conn_feed(struct tls_conn *t, const uint8_t *data, size_t len)
{
    enum tls_result r;
    ASSERT(!t->feeding);
    if (is_over(t, &r))
        return r;
    begin(t);
    t->feeding = true;
    bool was_open = t->open;
    t->gather = !was_open;
    r = feed(t, data, len);
    t->feeding = false;
    t->gather = false;
    if (r != TLS_OK)
        piece_clear(&t->in);
    if (!was_open && !t->freed)
        send_out(t);
    if (r == TLS_OK && t->broken)
        r = fail(t, "the connection is broken");
    if (r == TLS_OK && !was_open && t->open)
        r = TLS_HANDSHAKEN;
    if (!was_open && t->open)
        forget_exchange(t->ssl);
    return end(t) ? r : TLS_GONE;
}

int tls_conn_hold(struct tls_conn *t, const uint8_t *data, size_t len)
{
    enum tls_result over;
    ASSERT(!t->feeding);
    if (is_over(t, &over))
        return 1;
    if (piece_left(&t->in) + len > TLS_HOLD_MAX)
        return -ENOBUFS;
    if (len > 0 && !piece_append(&t->in, data, len))
        return -ENOMEM;
    return piece_left(&t->in) > 0 && record_needs(t) == 0;
}

size_t tls_conn_kept(const struct tls_conn *t)
{
    return piece_left(&t->in);
}

bool tls_conn_is_open(const struct tls_conn *t)
{
    return t->open && !t->failed;
}

/* ---- sending */

bool tls_conn_is_flushed(const struct tls_conn *t)
{
    return piece_left(&t->out) == 0;
}

bool tls_conn_flush(struct tls_conn *t)
{
    begin(t);
    send_out(t);
    bool flushed = tls_conn_is_flushed(t);
    return end(t) && flushed;
}

/* OpenSSL allocates for the largest record that is allowed: not 17 KB for a small message. */
static void allow_record(SSL *ssl, size_t len)
{
    long max = len <= SMALL_RECORD ? SMALL_RECORD : TLS_RECORD_MAX;
    SSL_set_max_send_fragment(ssl, max);
    SSL_set_split_send_fragment(ssl, max); /* which a smaller maximum has made smaller */
}

static ssize_t write_record(struct tls_conn *t, const void *data, size_t len)
{
    send_out(t);
    if (t->freed || t->broken)
        return -EPIPE;
    if (!tls_conn_is_flushed(t))
        return 0;
    size_t n = 0;
    enter(t);
    allow_record(t->ssl, len);
    if (SSL_write_ex(t->ssl, data, len, &n) != 1) {
        (void)fail_ssl(t);
        return -EPIPE;
    }
    ASSERT(n == len);
    return (ssize_t)n;
}

ssize_t tls_conn_write(struct tls_conn *t, const void *data, size_t len)
{
    ASSERT(len <= TLS_RECORD_MAX);
    if (t->failed || t->broken || t->shut)
        return -EPIPE;
    if (!t->open || len == 0)
        return 0;
    begin(t);
    ssize_t n = write_record(t, data, len);
    return end(t) ? n : -EPIPE;
}

void tls_conn_shutdown(struct tls_conn *t)
{
    if (!t->open || t->failed || t->broken || t->shut)
        return;
    t->shut = true;
    begin(t);
    enter(t);
    (void)SSL_shutdown(t->ssl);
    ERR_clear_error();
    (void)end(t);
}

/* ---- what is known of it */

const char *tls_conn_error(const struct tls_conn *t)
{
    return t->error != NULL ? t->error : "";
}

size_t tls_conn_memory(const struct tls_conn *t)
{
    return sizeof *t + t->in.cap + t->out.cap + (t->ssl != NULL ? SSL_BYTES : 0);
}

static void print_subject(const SSL *ssl, char *buf, size_t cap)
{
    X509 *peer = SSL_get0_peer_certificate(ssl);
    BIO *mem = peer != NULL ? BIO_new(BIO_s_mem()) : NULL;
    if (mem == NULL)
        return;
    if (X509_NAME_print_ex(mem, X509_get_subject_name(peer), 0, XN_FLAG_RFC2253) >= 0) {
        int n = BIO_read(mem, buf, (int)cap - 1);
        buf[n > 0 ? n : 0] = '\0';
    }
    BIO_free(mem);
    ERR_clear_error();
}

bool tls_conn_is_resumed(const struct tls_conn *t)
{
    return t->ssl != NULL && SSL_session_reused(t->ssl) == 1;
}

void tls_conn_info(const struct tls_conn *t, struct tls_info *ret)
{
    *ret = (struct tls_info){.version = "", .cipher = "", .server_name = ""};
    if (t->ssl == NULL)
        return;
    const char *name = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
    ret->version = SSL_get_version(t->ssl);
    ret->cipher = SSL_get_cipher_name(t->ssl);
    ret->server_name = name != NULL ? name : "";
    ret->reused = tls_conn_is_resumed(t);
    print_subject(t->ssl, ret->client_subject, sizeof ret->client_subject);
}
