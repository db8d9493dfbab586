// SPDX-License-Identifier: MIT
/* Records of a connection whose handshake is done, without OpenSSL's SSL: TLS 1.3 (RFC 8446) and TLS 1.2
 * (RFC 5246) with AES-GCM (RFC 5288) and ChaCha20-Poly1305 (RFC 7905), the ciphers by EVP. Unlike an SSL it
 * can be told to another process, and it is small: a connection has its keys only, the contexts of ciphers
 * are shared (struct tls_aead) and are given a connection's keys when they are those of another: 130 ns, for
 * 2.3 KB less. No I/O. Only this folder uses it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>
#include <openssl/ssl.h>

#include "tls/tls.h"

#define TLS_RECORD_HEADER 5
#define TLS_TAG_BYTES     16
#define TLS_SECRET_MAX    48 /* of SHA-384 */
#define TLS_KEY_MAX       32
#define TLS_NONCE_BYTES   12
/* Bytes that a record has above its data, at most: header, explicit nonce, inner type, tag. */
#define TLS_RECORD_EXTRA (TLS_RECORD_HEADER + 8 + 1 + TLS_TAG_BYTES)
/* Room for what tls__record_write makes: with fragment_max 512 it is 32 records. */
#define TLS_SEALED_MAX (TLS_RECORD_MAX + 32 * TLS_RECORD_EXTRA)

/* ---- ciphers */

enum tls_aead_id { TLS_AES_128_GCM, TLS_AES_256_GCM, TLS_CHACHA20_POLY1305, TLS_AEADS };

struct tls_suite {
    uint16_t version, id; /* TLS1_2_VERSION ...; of IANA */
    uint8_t aead;
    uint8_t key_len, secret_len; /* of a secret of TLS 1.3: the hash's */
    const char *name;            /* OpenSSL's */
};
/* NULL: none of ours (CBC, CCM, and others that nobody uses). */
const struct tls_suite *tls__suite_find(unsigned version, unsigned id);

/* One direction of a connection. */
struct tls_keys {
    uint64_t seq; /* of the next record */
    uint8_t key[TLS_KEY_MAX];
    uint8_t iv[TLS_NONCE_BYTES];
    uint8_t secret[TLS_SECRET_MAX]; /* TLS 1.3: from which key, iv and the next secret are derived */
};

/* Contexts of ciphers that all connections of a tls_context share, one for each cipher and direction, and
 * those of HMAC (to fetch them anew costs more than the hash). */
struct tls_aead {
    EVP_MAC_CTX *hmac[2]; /* with SHA-256, SHA-384; keyed with zeros between uses */
    EVP_CIPHER_CTX *ctx[TLS_AEADS][2];
    const struct tls_keys *keyed[TLS_AEADS][2]; /* whose keys are set in it; NULL: nobody's */
};
bool tls__aead_init(struct tls_aead *a);
void tls__aead_fini(struct tls_aead *a); /* all zero is fine */

/* ---- a connection */

struct tls_record {
    const struct tls_suite *suite;
    struct tls_keys read, write;
    uint64_t nonce_base;   /* TLS 1.2 with GCM: the explicit nonce of our record number 0 */
    uint32_t message_left; /* TLS 1.2: of a ClientHello that is skipped */
    uint16_t fragment_max; /* RFC 6066 section 4; else TLS_RECORD_MAX */
    uint8_t message[5];    /* of an incomplete handshake message: a KeyUpdate, the head of a ClientHello */
    uint8_t message_len;
    uint8_t idle;            /* records without data since the last with data */
    uint8_t secret_bytes[2]; /* in the handshake: of the secrets that have come, read and write */
    bool owes_update : 1;    /* KeyUpdate */
    bool owes_warning : 1;   /* no_renegotiation */
    bool has_nonce : 1;
    bool has_finished : 1; /* in the handshake: ours is sent */
};

/* Keys out of what is known when the handshake is done: TLS 1.3: the secrets (in r->read and r->write); TLS
 * 1.2: the master secret and randoms of ssl. False: no memory. r->suite and the sequence numbers are set. */
bool tls__record_derive(struct tls_record *r, struct tls_aead *a);
bool tls__record_derive_12(struct tls_record *r, SSL *ssl);
/* TLS 1.2 with GCM. */
bool tls__record_has_explicit_nonce(const struct tls_record *r);
/* Wipes it: nobody's keys are left here or in a. */
void tls__record_wipe(struct tls_record *r, struct tls_aead *a);

enum tls_event {
    TLS_EVENT_DATA,   /* len bytes, may be 0 */
    TLS_EVENT_NONE,   /* it was for this layer; something may be owed now (tls__record_pay) */
    TLS_EVENT_CLOSED, /* close_notify */
    TLS_EVENT_ERROR,  /* it is over: alert (-1: none is sent), text (static) */
};
struct tls_input {
    enum tls_event event;
    size_t len;
    int alert;
    const char *text;
};
/* A whole record of the peer's: len is what its header says. plain has room for len bytes, and may be
 * scribbled in whatever comes out. */
struct tls_input tls__record_read(struct tls_record *r, struct tls_aead *a, const uint8_t *record, size_t len,
                                  uint8_t *plain);
/* Bytes that are no beginning of a record (tls__record_read was not called for them). */
struct tls_input tls__record_refuse(const struct tls_record *r, const uint8_t *data, size_t len);

/* One record, or several where the client wants small ones, to out (TLS_SEALED_MAX). len <= TLS_RECORD_MAX.
 * Bytes; 0: no memory, or the last sequence number is used. */
size_t tls__record_write(struct tls_record *r, struct tls_aead *a, int type, const void *data, size_t len,
                         uint8_t *out);
size_t tls__record_alert(struct tls_record *r, struct tls_aead *a, int level, int alert, uint8_t *out);
/* What is owed to the peer, or to the limits of our key; to be sent before data. Bytes; 0: nothing. */
size_t tls__record_pay(struct tls_record *r, struct tls_aead *a, uint8_t *out);
/* With the next keys (RFC 8446 section 7.2). For tests: the lead in a KeyUpdate. */
size_t tls__record_update(struct tls_record *r, struct tls_aead *a, bool request, uint8_t *out);
