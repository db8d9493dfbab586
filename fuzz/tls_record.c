// SPDX-License-Identifier: MIT
/* The records of a TLS connection that another process handed over, and what its client sends then. The first
 * byte chooses:
 *   0, 1  the rest is the fields of a record tls, as tls_conn_import takes them;
 *   else  a connection of version and cipher by that byte, in whose client's place somebody who has the keys
 *         says: (u8 type, u8 length, bytes) each as one record; type 255: the bytes as they are; and every
 *         record with an odd length is followed by a move to another tls_conn. */
#include "tls/tls_util_test.h"

#include "base/assert.h"
#include "tls/tls_priv.h"
#include "transfer/transfer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct end {
    struct tls_conn *t;
    struct bytes sent;
    size_t plain;
};

static ssize_t end_send(void *owner, const void *data, size_t len)
{
    bytes_append(&((struct end *)owner)->sent, data, len);
    return (ssize_t)len;
}
static bool end_plain(void *owner, uint8_t *data, size_t len)
{
    struct end *e = owner;
    ASSERT(len > 0);
    e->plain += len;
    return true;
}
static const struct tls_conn_ops end_ops = {end_send, end_plain};

static bool import(struct end *e, struct tls_context *ctx, struct slice fields)
{
    int err = 0;
    e->t = tls_conn_import(ctx, &end_ops, e, fields, &err);
    ASSERT((e->t != NULL) == (err == 0 || err == -ENOMEM) || err == -EBADMSG);
    return e->t != NULL;
}

/* Out and in again: the same bytes come out. */
static void move(struct end *e, struct tls_context *ctx)
{
    struct bytes a = {0}, b = {0};
    ASSERT(tls_conn_can_export(e->t) && tls_conn_export(e->t, &a) == 0);
    tls_conn_free(e->t);
    ASSERT(import(e, ctx, (struct slice){a.data, a.len}));
    ASSERT(tls_conn_export(e->t, &b) == 0);
    ASSERT(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
    bytes_fini(&a);
    bytes_fini(&b);
}

static void feed_checked(struct end *e, const uint8_t *data, size_t len)
{
    enum tls_result r = tls_conn_feed(e->t, data, len);
    ASSERT(r != TLS_HANDSHAKEN);
    ASSERT((r == TLS_ERROR) == (tls_conn_error(e->t)[0] != '\0'));
    ASSERT((r != TLS_ERROR) == tls_conn_can_export(e->t));
    ASSERT(tls_conn_memory(e->t) < 200 * 1024);
    ASSERT(ERR_peek_error() == 0);
}

static void import_anything(struct tls_context *ctx, const uint8_t *data, size_t len)
{
    static const uint8_t junk[30] = {23, 3, 3, 0, 25};
    struct end e = {0};
    if (!import(&e, ctx, (struct slice){data, len}))
        return;
    move(&e, ctx);
    (void)tls_conn_flush(e.t);
    (void)tls_conn_write(e.t, "words", 5);
    (void)tls_conn_feed(e.t, junk, sizeof junk);
    tls_conn_shutdown(e.t);
    tls_conn_free(e.t);
    bytes_fini(&e.sent);
}

static void open_end(struct end *e, struct tls_context *ctx, uint8_t choice)
{
    static const struct {
        unsigned version, suite;
        size_t secret;
    } suites[] = {{TLS1_3_VERSION, 0x1301, 32}, {TLS1_3_VERSION, 0x1302, 48}, {TLS1_3_VERSION, 0x1303, 32},
                  {TLS1_2_VERSION, 0xc02b, 20}, {TLS1_2_VERSION, 0xc02c, 36}, {TLS1_2_VERSION, 0xcca9, 44}};
    unsigned i = choice % 6;
    static const uint8_t read_secret[48] = {1}, write_secret[48] = {2};
    struct transfer_tls x = {.version = suites[i].version,
                             .suite = suites[i].suite,
                             .read_secret = {read_secret, suites[i].secret},
                             .write_secret = {write_secret, suites[i].secret},
                             .fragment_max = choice & 128 ? 512 : 0};
    struct bytes fields = {0};
    ASSERT(transfer_put_tls_fields(&fields, &x));
    ASSERT(import(e, ctx, (struct slice){fields.data, fields.len}));
    bytes_fini(&fields);
}

static void say(struct end *e, struct tls_record *peer, struct tls_aead *a, uint8_t type, const uint8_t *data,
                size_t len)
{
    static uint8_t out[TLS_SEALED_MAX];
    if (type == 255 || len == 0) {
        feed_checked(e, data, len);
        return;
    }
    size_t plain = e->plain, n = tls__record_write(peer, a, type, data, len, out);
    ASSERT(n > 0);
    feed_checked(e, out, n);
    ASSERT(e->plain - plain <= len);
}

static void talk(struct tls_context *ctx, uint8_t choice, const uint8_t *data, size_t len)
{
    struct end e = {0};
    struct tls_aead a = {0};
    ASSERT(tls__aead_init(&a));
    open_end(&e, ctx, choice);
    struct tls_record peer = *e.t->rec;
    peer.write = e.t->rec->read;
    for (size_t at = 0; at + 2 <= len && tls_conn_can_export(e.t);) {
        size_t n = data[at + 1] < len - at - 2 ? data[at + 1] : len - at - 2;
        say(&e, &peer, &a, data[at], data + at + 2, n);
        if (n % 2 == 1 && tls_conn_can_export(e.t))
            move(&e, ctx);
        at += 2 + n;
    }
    if (tls_conn_is_open(e.t))
        ASSERT(tls_conn_write(e.t, "words", 5) == 5);
    tls_conn_free(e.t);
    tls__record_wipe(&peer, &a);
    tls__aead_fini(&a);
    bytes_fini(&e.sent);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct tls_context *ctx;
    if (ctx == NULL)
        ctx = make_simple_context();
    if (len < 1)
        return 0;
    if (data[0] < 2)
        import_anything(ctx, data + 1, len - 1);
    else
        talk(ctx, data[0], data + 1, len - 1);
    return 0;
}
