// SPDX-License-Identifier: MIT
/* Bytes of a peer into a tls_conn. The first byte chooses:
 *   even  the rest is what the peer sends, in pieces whose length the second byte gives;
 *   odd   a real client's handshake and messages, changed on the way: (u16 offset, u8 xor) each. */
#include "tls/tls_util_test.h"

#include "base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct peer {
    struct tls_conn *t;
    struct bytes sent;
    size_t plain;
};

static ssize_t peer_send(void *owner, const void *data, size_t len)
{
    bytes_append(&((struct peer *)owner)->sent, data, len);
    return (ssize_t)len;
}
static bool peer_plain(void *owner, uint8_t *data, size_t len)
{
    struct peer *p = owner;
    ASSERT(len > 0 && tls_conn_is_open(p->t));
    p->plain += len;
    return true;
}
static const struct tls_conn_ops peer_ops = {peer_send, peer_plain};

/* What holds for each call, whatever came. */
static enum tls_result feed_checked(struct peer *p, const uint8_t *data, size_t len)
{
    bool was_open = tls_conn_is_open(p->t);
    enum tls_result r = tls_conn_feed(p->t, data, len);
    ASSERT(r != TLS_GONE);
    ASSERT((r == TLS_ERROR) == (tls_conn_error(p->t)[0] != '\0'));
    ASSERT(r != TLS_HANDSHAKEN || (!was_open && tls_conn_is_open(p->t)));
    ASSERT(r != TLS_OK || was_open == tls_conn_is_open(p->t));
    ASSERT(tls_conn_memory(p->t) < 64 * 1024);
    ASSERT(tls_conn_is_flushed(p->t));
    ASSERT(ERR_peek_error() == 0);
    if (r == TLS_ERROR || r == TLS_ENDED)
        ASSERT(tls_conn_feed(p->t, data, len) == r);
    return r;
}

static void feed_raw(struct peer *p, const uint8_t *data, size_t len)
{
    size_t step = len > 0 ? (size_t)data[0] + 1 : 1;
    for (size_t at = 1; at < len; at += step)
        (void)feed_checked(p, data + at, len - at < step ? len - at : step);
    ASSERT(p->plain == 0); /* nobody guesses keys */
}

/* Changes that lie in bytes [from, from + len) of what the client sends in all. */
static bool change(uint8_t *bytes, size_t from, size_t len, const uint8_t *data, size_t data_len)
{
    bool changed = false;
    for (size_t i = 0; i + 3 <= data_len; i += 3) {
        size_t at = (size_t)data[i] << 8 | data[i + 1];
        if (at >= from && at - from < len) {
            bytes[at - from] ^= data[i + 2];
            changed = changed || data[i + 2] != 0;
        }
    }
    return changed;
}

static void feed_changed(struct peer *p, int version, const uint8_t *data, size_t len)
{
    struct client c;
    size_t sent = 0;
    bool changed = false;
    client_init(&c, (struct client_options){.version = version, .server_name = "a.example"});
    for (unsigned i = 0; i < 6; i++) {
        if (SSL_do_handshake(c.ssl) == 1)
            (void)SSL_write(c.ssl, "hello", 5);
        ERR_clear_error();
        struct slice d = client_out(&c);
        changed = change((uint8_t *)d.data, sent, d.len, data, len) || changed;
        sent += d.len;
        enum tls_result r = feed_checked(p, d.data, d.len);
        ASSERT(changed || r == TLS_OK || r == TLS_HANDSHAKEN);
        if (p->sent.len > 0)
            BIO_write(c.in, p->sent.data, (int)p->sent.len);
        bytes_clear(&p->sent);
        BIO_reset(c.out);
    }
    ASSERT(changed || p->plain >= 20);
    client_fini(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct tls_context *ctx;
    if (ctx == NULL)
        ctx = make_simple_context();
    if (len < 2)
        return 0;
    struct peer p = {0};
    p.t = tls_conn_new(ctx, &peer_ops, &p);
    ASSERT(p.t != NULL);
    if (data[0] % 2 == 0)
        feed_raw(&p, data + 1, len - 1);
    else
        feed_changed(&p, data[0] & 2 ? TLS1_2_VERSION : TLS1_3_VERSION, data + 1, len - 1);
    tls_conn_free(p.t);
    bytes_fini(&p.sent);
    return 0;
}
