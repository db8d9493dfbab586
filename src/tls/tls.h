// SPDX-License-Identifier: MIT
/* TLS for one side of a connection (the server's), on OpenSSL: ciphertext in, plaintext out, without sockets,
 * so that any back end of net/ can be below it. One thread per process.
 *
 *   net data() ── tls_conn_feed ──> plaintext, in pieces, by ops->plain
 *   tls_conn_write ──> ciphertext by ops->send; what is not taken waits in the tls_conn (bounded: one record
 *                      of 16 KB and what the handshake has) until tls_conn_flush
 *
 * An idle tls_conn holds no buffers of records. Until the first record is whole it holds nothing of
 * OpenSSL's, only what has come: a silent client costs some 150 bytes. When the handshake is done it is rid
 * of OpenSSL's part again (unless the operator has configured ciphers other than AES-GCM and
 * ChaCha20-Poly1305): some 500 bytes, which can be told to another process. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "common/config.h"
#include "common/files.h"
#include "common/ticket_keys.h"

struct tls_context; /* of one listener: certificates by SNI, versions, client CAs */
struct tls_conn;

/* From the keys tls_* of l and the files they name. NULL: err has been added to (file, what is wrong: no
 * certificate in it, key does not fit, expired is only a warning in the log). tickets: shared with all
 * shards; NULL: none; must outlive every connection (its lifetime_s is read here, its keys at each ticket).
 * Certificates that have a name in common serve it together when their keys are of different types (RSA and
 * ECDSA), else the first does. Takes milliseconds for each certificate. */
struct tls_context *tls_context_new(const struct config_listen *l, const struct files *files,
                                    const struct ticket_keys *tickets, struct config_error *err);
/* Connections that were made with it keep what they need. */
void tls_context_free(struct tls_context *ctx);

struct tls_conn_ops {
    /* Ciphertext: bytes taken now (fewer than len: no room, tls_conn_flush when there is), or -errno. */
    ssize_t (*send)(void *owner, const void *data, size_t len);
    /* Plaintext; buffer of the context's, writable, gone after. False: stop (the owner is closing or gone: t
     * is not touched any more in this tls_conn_feed, which returns TLS_GONE). */
    bool (*plain)(void *owner, uint8_t *data, size_t len);
};

/* NULL without memory. Nothing is sent before the client has spoken. */
struct tls_conn *tls_conn_new(struct tls_context *ctx, const struct tls_conn_ops *ops, void *owner);
/* May be called within ops->plain and ops->send (then freed when the call that is on the stack returns:
 * TLS_GONE, -EPIPE; no callback follows). Sends nothing: see tls_conn_shutdown. NULL is fine. */
void tls_conn_free(struct tls_conn *t);
/* Bytes that it has now; for OpenSSL's part, which is there while the handshake goes on, a measured constant
 * (13 KB). */
size_t tls_conn_memory(const struct tls_conn *t);

enum tls_result {
    TLS_OK,
    TLS_HANDSHAKEN, /* the handshake was completed within this call (plaintext may have followed already) */
    TLS_ENDED,      /* the peer's close_notify came: no more plaintext */
    TLS_ERROR,      /* it is over; an alert may wait to be sent. See tls_conn_error */
    TLS_GONE,       /* plain said stop */
};
/* Ciphertext came. All of it is used up or kept (less than a record). What comes after an end, an error or a
 * stop is thrown away, with the same result again. The last three results win over TLS_HANDSHAKEN
 * (tls_conn_is_open tells). Not from within a callback of this or another tls_conn. */
enum tls_result tls_conn_feed(struct tls_conn *t, const uint8_t *data, size_t len);
/* Ciphertext came, and the CPU time is not there: it is only kept, for the next tls_conn_feed, which may then
 * have len 0. 1: a whole record waits (or something that will fail); 0: not yet; -ENOBUFS: more than
 * TLS_HOLD_MAX before its ClientHello was answered, or TLS_HOLD_BEGUN_MAX after (a client may send as much as
 * it likes right behind its Finished; no more of it is read until that had its turn); -ENOMEM. */
#define TLS_HOLD_MAX       (32 * 1024)
#define TLS_HOLD_BEGUN_MAX (512 * 1024)
int tls_conn_hold(struct tls_conn *t, const uint8_t *data, size_t len);
/* Bytes of an incomplete record that are kept, or held. */
size_t tls_conn_kept(const struct tls_conn *t);
struct slice tls_conn_kept_bytes(const struct tls_conn *t); /* until the next call */
/* A record of the client has been looked at. Before that it is its kept bytes and nothing else: another
 * process can take it over by tls_conn_new and tls_conn_hold. Begun and not open: half a handshake, nobody
 * can. */
bool tls_conn_has_begun(const struct tls_conn *t);
bool tls_conn_is_open(const struct tls_conn *t); /* the handshake is done */
/* Encrypts a piece (at most TLS_RECORD_MAX) as one record and sends it. Bytes taken: len or 0 (blocked or not
 * open yet: nothing happened); -EPIPE: it is over. Fine after TLS_ENDED (the peer only ended its own side)
 * and within callbacks. Each record costs some 30 bytes and a microsecond: put small messages together. A
 * piece that was taken is this layer's: it is sent by tls_conn_flush if not at once. */
#define TLS_RECORD_MAX 16384
ssize_t tls_conn_write(struct tls_conn *t, const void *data, size_t len);
/* There is room again, or the last words (an alert) should go. True: everything is sent, or never will be. */
bool tls_conn_flush(struct tls_conn *t);
bool tls_conn_is_flushed(const struct tls_conn *t);
/* close_notify, behind everything written; once, only when open. Nothing can be written after it. */
void tls_conn_shutdown(struct tls_conn *t);

/* Why it is over; static. "" when it is not. */
const char *tls_conn_error(const struct tls_conn *t);
/* The handshake was that of an earlier session. */
bool tls_conn_is_resumed(const struct tls_conn *t);
/* For logs and tests: "TLSv1.3", cipher, "reused", the name of SNI or "", subject of the client's certificate
 * (RFC 2253, shortened) or "". Strings live as long as t. */
struct tls_info {
    const char *version, *cipher, *server_name;
    bool reused;
    char client_subject[256];
};
void tls_conn_info(const struct tls_conn *t, struct tls_info *ret);

/* ---- to be taken over by another process */

/* The handshake is done, nothing has failed, and the cipher is one that we have (see above). */
bool tls_conn_can_export(const struct tls_conn *t);
/* The fields of a record tls (transfer/transfer_records.h), behind what is in out: keys, numbers of records,
 * bytes kept and bytes that wait. t stays as it is; but as soon as two go on from here they use the same keys
 * for different records: one of both is to be freed with nothing sent (tls_conn_free sends nothing). Who has
 * the record can read and forge: wipe what holds it (OPENSSL_cleanse). Not from within callbacks. 0;
 * -EOPNOTSUPP: not tls_conn_can_export; -ENOMEM. */
int tls_conn_export(const struct tls_conn *t, struct bytes *out);
/* As it was: open; what waits is sent by tls_conn_flush, and records that are held are read by the next
 * tls_conn_feed. Its context need not have the certificates of the handshake. NULL: *ret_err is -EBADMSG (not
 * such a record, or one of a cipher that is unknown here) or -ENOMEM. */
struct tls_conn *tls_conn_import(struct tls_context *ctx, const struct tls_conn_ops *ops, void *owner,
                                 struct slice record, int *ret_err);
