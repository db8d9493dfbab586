// SPDX-License-Identifier: MIT
/* One connection:
 *
 *   first record whole ── an SSL (tls_ssl.c) ── handshake done ─┬─ its keys in a tls_record (tls_record.c)
 *                                                               └─ not one of its ciphers: the SSL stays
 *
 * OpenSSL is given whole records only: for a part of one it would hold a buffer of 17 KB as long as the rest
 * does not come, we hold the part. The SSL is made with the first whole record, so that who says nothing, or
 * is no TLS client, costs next to nothing. When the handshake is done it goes: 13 KB become 0.4, records cost
 * half the time, and what is known of the connection can be told to another process (tls_transfer.c). */
#include "tls/tls_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>

#include "base/assert.h"

/* OpenSSL's bound for a record's content (SSL3_RT_MAX_PLAIN_LENGTH + SSL3_RT_MAX_ENCRYPTED_OVERHEAD); a
 * longer one it refuses by its header. */
#define RECORD_CONTENT_MAX (16384 + 320)
/* Measured (tls_memory_test.c): an idle SSL, whichever version. */
#define SSL_BYTES (13 * 1024)

/* ---- pieces */

size_t tls__piece_left(const struct piece *p)
{
    return p->len - p->at;
}

static void piece_clear(struct piece *p)
{
    free(p->data);
    *p = (struct piece){0};
}

bool tls__piece_append(struct piece *p, const void *data, size_t len)
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
    ASSERT(len <= tls__piece_left(p));
    p->at += (uint32_t)len;
    if (p->at == p->len)
        piece_clear(p);
}

/* ---- errors */

enum tls_result tls__conn_fail(struct tls_conn *t, const char *error)
{
    if (!t->failed)
        t->error = error;
    t->failed = true;
    piece_clear(&t->in);
    return TLS_ERROR;
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
    size_t left = tls__piece_left(&t->out);
    if (left == 0)
        return;
    size_t n = send_now(t, t->out.data + t->out.at, left);
    if (!t->broken)
        piece_consume(&t->out, n);
}

bool tls__conn_push(struct tls_conn *t, const void *data, size_t len)
{
    size_t sent = t->gather || tls__piece_left(&t->out) > 0 ? 0 : send_now(t, data, len);
    size_t max = t->open ? TLS_OUT_OPEN_MAX : TLS_OUT_HANDSHAKE_MAX;
    if (t->broken)
        return false;
    if (sent < len && (tls__piece_left(&t->out) + len - sent > max ||
                       !tls__piece_append(&t->out, (const uint8_t *)data + sent, len - sent))) {
        t->broken = true;
        piece_clear(&t->out);
    }
    return !t->broken;
}

/* ---- records of our own: each is made in ctx->sealed, which is free again when it is sent or waits */

/* The handshake is done, and the SSL is gone. */
static bool is_ours(const struct tls_conn *t)
{
    return t->open && t->ssl == NULL;
}

static uint8_t *take_sealed(struct tls_conn *t)
{
    ASSERT(!t->ctx->sealed_used);
    t->ctx->sealed_used = true;
    return t->ctx->sealed;
}

static bool push_sealed(struct tls_conn *t, size_t len)
{
    bool ok = len == 0 || tls__conn_push(t, t->ctx->sealed, len);
    t->ctx->sealed_used = false;
    return ok;
}

/* Answers to the client, and new keys when ours are used up: not while something waits, so that nobody makes
 * us keep more and more of them. False: it is broken. */
static bool pay(struct tls_conn *t)
{
    if (!is_ours(t) || t->shut || t->failed || t->freed || t->broken || tls__piece_left(&t->out) > 0)
        return !t->broken;
    return push_sealed(t, tls__record_pay(t->rec, &t->ctx->aead, take_sealed(t)));
}

/* RFC 8446 section 6.2. */
static enum tls_result fail_with(struct tls_conn *t, int alert, const char *text)
{
    if (alert >= 0 && !t->shut && !t->failed && !t->freed && !t->broken)
        (void)push_sealed(t, tls__record_alert(t->rec, &t->ctx->aead, SSL3_AL_FATAL, alert, take_sealed(t)));
    return tls__conn_fail(t, text);
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
    tls__ssl_free(t);
    if (t->rec != NULL)
        tls__record_wipe(t->rec, &t->ctx->aead);
    free(t->rec);
    free(t->names);
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

/* ---- receiving */

/* Of the record that begins at p: bytes with the header; 0: not known yet; -1: this is not the beginning of a
 * record that OpenSSL would take. RFC 8446 section 5.1. */
static int record_size(const uint8_t *p, size_t len)
{
    if (len >= 1 && (p[0] < 20 || p[0] > 23))
        return -1;
    if (len >= 2 && p[1] != 3)
        return -1;
    if (len < TLS_RECORD_HEADER)
        return 0;
    int n = p[3] << 8 | p[4];
    return n <= RECORD_CONTENT_MAX ? TLS_RECORD_HEADER + n : -1;
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

bool tls__conn_deliver(struct tls_conn *t, size_t len)
{
    t->key_updates = 0;
    if (!t->ops->plain(t->owner, t->ctx->plain, len) || t->freed)
        t->stopped = true;
    return !t->stopped;
}

/* The records of the window up to one that is for this layer and says something. Those of one window are put
 * together: small ones make one call of plain, as in tls__ssl_read. */
static struct tls_input read_some(struct tls_conn *t, size_t *ret_len)
{
    struct tls_input in = {.event = TLS_EVENT_NONE};
    size_t used = 0;
    while (t->window_len > 0 && in.event <= TLS_EVENT_NONE) {
        size_t len = TLS_RECORD_HEADER + (size_t)(t->window[3] << 8 | t->window[4]);
        ASSERT(len <= t->window_len);
        if (used + len > TLS_PLAIN_BYTES)
            break;
        in = tls__record_read(t->rec, &t->ctx->aead, t->window, len, t->ctx->plain + used);
        used += in.event == TLS_EVENT_DATA ? in.len : 0;
        t->window += len;
        t->window_len -= len;
    }
    *ret_len = used;
    return in;
}

static enum tls_result read_ours(struct tls_conn *t)
{
    while (t->window_len > 0) {
        size_t len;
        struct tls_input in = read_some(t, &len);
        t->ended = in.event == TLS_EVENT_CLOSED;
        if (len > 0 && !tls__conn_deliver(t, len)) /* what was good comes first */
            return TLS_GONE;
        if (t->failed) /* a tls_conn_write of the owner's */
            return TLS_ERROR;
        if (in.event == TLS_EVENT_ERROR)
            return fail_with(t, in.alert, in.text);
        if (!pay(t))
            return tls__conn_fail(t, "the connection is broken");
        if (t->ended)
            return TLS_ENDED;
    }
    return TLS_OK;
}

static enum tls_result read_window(struct tls_conn *t)
{
    enum tls_result r = t->open ? TLS_OK : tls__ssl_shake(t);
    if (r != TLS_OK || t->window_len == 0)
        return r;
    return t->ssl != NULL ? tls__ssl_read(t) : read_ours(t);
}

static enum tls_result pump(struct tls_conn *t, const uint8_t *data, size_t len)
{
    if (len == 0)
        return TLS_OK;
    if (!t->open && !tls__ssl_make(t))
        return tls__conn_fail(t, "no memory");
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

/* What stands there is no record: the peer is told, once it has been talked with. */
static enum tls_result refuse(struct tls_conn *t, const uint8_t *data, size_t len)
{
    if (is_ours(t)) {
        struct tls_input in = tls__record_refuse(t->rec, data, len);
        return fail_with(t, in.alert, in.text);
    }
    if (t->ssl == NULL)
        return tls__conn_fail(t, not_tls(data, len));
    enum tls_result r = pump(t, data, len);
    return r == TLS_OK ? tls__conn_fail(t, "not a TLS record") : r;
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
    size_t have = tls__piece_left(&t->in);
    int n = record_size(t->in.data + t->in.at, have);
    size_t want = n > 0 ? (size_t)n : n == 0 ? TLS_RECORD_HEADER : 0;
    return want > have ? want - have : 0;
}

/* First what was kept, each record of it made whole from the new data. */
static enum tls_result feed_kept(struct tls_conn *t, const uint8_t **data, size_t *len)
{
    while (tls__piece_left(&t->in) > 0) {
        size_t need = record_needs(t), n = need < *len ? need : *len;
        if (n > 0 && !tls__piece_append(&t->in, *data, n))
            return tls__conn_fail(t, "no memory");
        *data += n;
        *len -= n;
        if (n < need)
            return TLS_OK;
        if (need > 0 && record_needs(t) > 0)
            continue; /* that was the header */
        size_t used;
        enum tls_result r = take(t, t->in.data + t->in.at, tls__piece_left(&t->in), &used);
        if (r != TLS_OK)
            return r;
        piece_consume(&t->in, used);
    }
    return TLS_OK;
}

static enum tls_result feed(struct tls_conn *t, const uint8_t *data, size_t len)
{
    enum tls_result r = feed_kept(t, &data, &len);
    if (r != TLS_OK || tls__piece_left(&t->in) > 0)
        return r;
    size_t used;
    r = take(t, data, len, &used);
    if (r == TLS_OK && len > used && !tls__piece_append(&t->in, data + used, len - used))
        r = tls__conn_fail(t, "no memory");
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
    t->flight = t->out.len;
    r = feed(t, data, len);
    t->feeding = false;
    t->gather = false;
    if (r != TLS_OK)
        piece_clear(&t->in);
    if (!was_open && !t->freed)
        send_out(t);
    if (r == TLS_OK && t->broken)
        r = tls__conn_fail(t, "the connection is broken");
    if (r == TLS_OK && !was_open && t->open)
        r = TLS_HANDSHAKEN;
    return end(t) ? r : TLS_GONE;
}

int tls_conn_hold(struct tls_conn *t, const uint8_t *data, size_t len)
{
    enum tls_result over;
    ASSERT(!t->feeding);
    if (is_over(t, &over))
        return 1;
    if (tls__piece_left(&t->in) + len > (tls_conn_has_begun(t) ? TLS_HOLD_BEGUN_MAX : TLS_HOLD_MAX))
        return -ENOBUFS;
    if (len > 0 && !tls__piece_append(&t->in, data, len))
        return -ENOMEM;
    return tls__piece_left(&t->in) > 0 && record_needs(t) == 0;
}

size_t tls_conn_kept(const struct tls_conn *t)
{
    return tls__piece_left(&t->in);
}

struct slice tls_conn_kept_bytes(const struct tls_conn *t)
{
    return (struct slice){t->in.data != NULL ? t->in.data + t->in.at : NULL, tls__piece_left(&t->in)};
}

bool tls_conn_has_begun(const struct tls_conn *t)
{
    return t->ssl != NULL || t->open || t->failed;
}

bool tls_conn_is_open(const struct tls_conn *t)
{
    return t->open && !t->failed;
}

/* ---- sending */

bool tls_conn_is_flushed(const struct tls_conn *t)
{
    return tls__piece_left(&t->out) == 0;
}

bool tls_conn_flush(struct tls_conn *t)
{
    begin(t);
    send_out(t);
    (void)pay(t);
    bool flushed = tls_conn_is_flushed(t);
    return end(t) && flushed;
}

static bool write_ours(struct tls_conn *t, const void *data, size_t len)
{
    size_t n = tls__record_write(t->rec, &t->ctx->aead, SSL3_RT_APPLICATION_DATA, data, len, take_sealed(t));
    bool pushed = push_sealed(t, n);
    if (!pushed || n == 0)
        (void)tls__conn_fail(t, pushed ? "no memory" : "the connection is broken");
    return pushed && n > 0;
}

static ssize_t write_record(struct tls_conn *t, const void *data, size_t len)
{
    send_out(t);
    (void)pay(t);
    if (t->freed || t->broken)
        return -EPIPE;
    if (!tls_conn_is_flushed(t))
        return 0;
    bool ok = t->ssl != NULL ? tls__ssl_write(t, data, len) : write_ours(t, data, len);
    return ok ? (ssize_t)len : -EPIPE;
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
    if (t->ssl != NULL)
        tls__ssl_shutdown(t);
    else
        (void)push_sealed(t, tls__record_alert(t->rec, &t->ctx->aead, SSL3_AL_WARNING, SSL_AD_CLOSE_NOTIFY,
                                               take_sealed(t)));
    (void)end(t);
}

/* ---- what is known of it */

const char *tls_conn_error(const struct tls_conn *t)
{
    return t->error != NULL ? t->error : "";
}

/* ---- names: in one block, since most connections have none */

static size_t names_bytes(const struct tls_conn *t)
{
    if (t->names == NULL)
        return 0;
    size_t n = strlen(t->names) + 1;
    return n + strlen(t->names + n) + 1;
}

bool tls__conn_set_names(struct tls_conn *t, struct slice server_name, struct slice subject)
{
    ASSERT(t->names == NULL);
    if (server_name.len + subject.len == 0)
        return true;
    t->names = calloc(1, server_name.len + subject.len + 2);
    if (t->names == NULL)
        return false;
    if (server_name.len > 0)
        memcpy(t->names, server_name.data, server_name.len);
    if (subject.len > 0)
        memcpy(t->names + server_name.len + 1, subject.data, subject.len);
    return true;
}

const char *tls__conn_server_name(const struct tls_conn *t)
{
    return t->names != NULL ? t->names : "";
}

const char *tls__conn_subject(const struct tls_conn *t)
{
    return t->names != NULL ? t->names + strlen(t->names) + 1 : "";
}

size_t tls_conn_memory(const struct tls_conn *t)
{
    return sizeof *t + t->in.cap + t->out.cap + names_bytes(t) + (t->rec != NULL ? sizeof *t->rec : 0) +
           (t->ssl != NULL ? SSL_BYTES : 0);
}

bool tls_conn_is_resumed(const struct tls_conn *t)
{
    return t->ssl != NULL ? SSL_session_reused(t->ssl) == 1 : t->resumed;
}

void tls_conn_info(const struct tls_conn *t, struct tls_info *ret)
{
    *ret = (struct tls_info){.version = "", .cipher = "", .server_name = ""};
    ret->reused = tls_conn_is_resumed(t);
    if (t->ssl != NULL) {
        const char *name = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name);
        ret->version = SSL_get_version(t->ssl);
        ret->cipher = SSL_get_cipher_name(t->ssl);
        ret->server_name = name != NULL ? name : "";
        tls__ssl_subject(t->ssl, ret->client_subject, sizeof ret->client_subject);
    } else if (t->open) {
        ret->version = t->rec->suite->version == TLS1_3_VERSION ? "TLSv1.3" : "TLSv1.2";
        ret->cipher = t->rec->suite->name;
        ret->server_name = tls__conn_server_name(t);
        snprintf(ret->client_subject, sizeof ret->client_subject, "%s", tls__conn_subject(t));
    }
}
