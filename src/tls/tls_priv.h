// SPDX-License-Identifier: MIT
/* Between the files of this folder. */
#pragma once

#include <openssl/ssl.h>

#include "tls/tls.h"

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
    BIO *bio;        /* of all connections (tls_conn.c) */
    bool plain_used; /* by a feed that is going on */
    uint8_t plain[TLS_PLAIN_BYTES];
};

void tls__context_unref(struct tls_context *ctx);
/* For a server name as it came; NULL: none fits. */
SSL_CTX *tls__context_find(const struct tls_context *ctx, const char *name);

/* Looks at what comes (SSL_CTX_set_msg_callback; arg: the context). */
void tls__on_message(int is_written, int version, int type, const void *data, size_t len, SSL *ssl,
                     void *arg);

/* The BIO through which all connections of a context read and write (tls_conn.c). NULL without memory. */
BIO *tls__bio_new(void);

/* ---- session tickets (tls_ticket.c) */

/* Makes ssl_ctx use ctx->tickets (SSL_CTX_get_app_data(ssl_ctx) is ctx). */
bool tls__tickets_set(struct tls_context *ctx, SSL_CTX *ssl_ctx);
