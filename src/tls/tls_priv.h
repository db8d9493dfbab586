// SPDX-License-Identifier: MIT
/* Between the files of this folder. */
#pragma once

#include <openssl/ssl.h>

#include "tls/tls.h"
#include "tls/tls_record.h"

/* ---- a certificate with its key, as it stands in the files (tls_cert.c) */

struct tls_cert {
    X509 *leaf;
    EVP_PKEY *key;
    STACK_OF(X509) * chain; /* what follows the leaf in its file; may be NULL */
    char **names;           /* DNS names of the SAN (the CN when there is none), lower case */
    unsigned n_names;
};

/* Where a finding belongs. */
struct tls_source {
    const struct config_listen *l;
    const struct files *files;
    struct config_error *err;
};
/* A finding about one key of the section, with its line. */
#define TLS_COMPLAIN(src, key, ...)                                                                          \
    tls__complain((src), (src)->l->line.key ? (src)->l->line.key : (src)->l->section_line, #key, __VA_ARGS__)
void tls__complain(const struct tls_source *src, unsigned line, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* What OpenSSL said last, for people; its queue is empty then. */
const char *tls__reason(void);

/* All that tls_certificate and tls_key name, in order. False: complained about; *ret is freed. */
bool tls__certs_load(const struct tls_source *src, struct tls_cert **ret, unsigned *ret_n);
void tls__certs_free(struct tls_cert *certs, unsigned n);
/* The CAs in tls_client_ca; NULL: complained about. */
STACK_OF(X509) * tls__client_ca_load(const struct tls_source *src);

/* ---- a listener (tls_context.c) */

struct tls_name {
    char *name;    /* "example.com" or "*.example.com", lower case */
    SSL_CTX *site; /* a reference of sites[] */
};

/* Plaintext of one call of ops->plain at most. */
#define TLS_PLAIN_BYTES (32 * 1024)

struct tls_context {
    unsigned refs;   /* the owner's and one for each connection */
    SSL_CTX **sites; /* one for each set of certificates */
    unsigned n_sites;
    SSL_CTX *fallback;      /* of sites: the first certificate's, when no name fits */
    struct tls_name *names; /* sorted */
    unsigned n_names;
    const struct ticket_keys *tickets;
    EVP_CIPHER *ticket_cipher;
    BIO *bio; /* of all connections (tls_conn.c) */
    struct tls_aead aead;
    bool plain_used;  /* by a feed that is going on */
    bool sealed_used; /* by a send that is going on */
    uint8_t plain[TLS_PLAIN_BYTES];
    uint8_t sealed[TLS_SEALED_MAX]; /* ciphertext, until it is sent or waits */
};

void tls__context_unref(struct tls_context *ctx);
/* For a server name as it came; NULL: none fits. */
SSL_CTX *tls__context_find(const struct tls_context *ctx, const char *name);

/* ---- a connection (tls_conn.c; tls_transfer.c) */

/* What may wait to be sent: a handshake with a large chain; then a record, and small ones that answer (a
 * change of keys). Past that the peer makes us send and does not read. */
#define TLS_OUT_HANDSHAKE_MAX (128 * 1024)
#define TLS_OUT_OPEN_MAX      (32 * 1024)

struct piece {
    uint8_t *data;
    uint32_t at, len, cap; /* the bytes are data[at .. len) */
};
size_t tls__piece_left(const struct piece *p);
bool tls__piece_append(struct piece *p, const void *data, size_t len);

struct tls_conn {
    struct tls_context *ctx;
    const struct tls_conn_ops *ops;
    void *owner;
    SSL *ssl;               /* NULL until the first record is whole, and again when the handshake is done */
    struct tls_record *rec; /* what an SSL's place is taken by; NULL before it, and for ciphers not ours */
    char *names;            /* server name, subject, each with its zero byte; NULL: both are empty */
    const char *error;      /* static */
    const uint8_t *window;  /* what may be read now */
    size_t window_len;
    struct piece in;  /* ciphertext of a record that is not whole, or held */
    struct piece out; /* ciphertext that was not taken */
    uint32_t flight;  /* where in out this feed's begins */
    uint8_t busy;     /* calls of ours that are on the stack */
    bool freed : 1;   /* by the owner, while busy */
    bool feeding : 1;
    bool gather : 1;     /* out goes at the end of the feed, in one piece */
    bool open : 1;       /* the handshake is done */
    bool ended : 1;      /* the peer's close_notify */
    bool failed : 1;     /* error tells */
    bool broken : 1;     /* ops->send said so: nothing can be sent */
    bool stopped : 1;    /* ops->plain said so */
    bool shut : 1;       /* our close_notify */
    bool resumed : 1;    /* without an SSL: the handshake was that of an earlier session */
    uint8_t key_updates; /* with an SSL: since data came */
};

/* False: no memory. */
bool tls__conn_set_names(struct tls_conn *t, struct slice server_name, struct slice subject);
const char *tls__conn_server_name(const struct tls_conn *t);
const char *tls__conn_subject(const struct tls_conn *t);

/* It is over; the first text stays. Returns TLS_ERROR. */
enum tls_result tls__conn_fail(struct tls_conn *t, const char *error);
/* Ciphertext: sent now, or it waits in t->out. False: it is broken (TLS_OUT_*_MAX, no memory, ops->send). */
bool tls__conn_push(struct tls_conn *t, const void *data, size_t len);
/* The first len bytes of the context's plain go to the owner. False: it said stop. */
bool tls__conn_deliver(struct tls_conn *t, size_t len);

/* ---- OpenSSL's part: the handshake, and what follows with ciphers that are not ours (tls_ssl.c) */

/* The BIO through which all connections of a context read and write. NULL without memory. */
BIO *tls__bio_new(void);
/* Looks at what comes and goes (SSL_CTX_set_msg_callback; arg: the context). */
void tls__on_message(int is_written, int version, int type, const void *data, size_t len, SSL *ssl,
                     void *arg);

bool tls__ssl_make(struct tls_conn *t);
/* All of the window, or until the handshake is done: then t->open, and if the cipher is one of ours the SSL
 * is gone and t->rec goes on. */
enum tls_result tls__ssl_shake(struct tls_conn *t);
enum tls_result tls__ssl_read(struct tls_conn *t);
bool tls__ssl_write(struct tls_conn *t, const void *data, size_t len); /* false: failed */
void tls__ssl_shutdown(struct tls_conn *t);
void tls__ssl_free(struct tls_conn *t);
/* Of a certificate's subject, what fits; "" when the client has shown none. */
void tls__ssl_subject(const SSL *ssl, char *buf, size_t cap);

/* ---- session tickets (tls_ticket.c) */

/* Makes ssl_ctx use ctx->tickets (SSL_CTX_get_app_data(ssl_ctx) is ctx). */
bool tls__tickets_set(struct tls_context *ctx, SSL_CTX *ssl_ctx);
