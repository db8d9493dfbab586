// SPDX-License-Identifier: MIT
/* For the tests of this folder: certificates made on the spot, a context from a configuration in words, and a
 * client of OpenSSL's that talks with a tls_conn through memory. */
#pragma once

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/bytes.h"
#include "common/config.h"
#include "common/files.h"
#include "common/ticket_keys.h"
#include "tls/tls.h"

/* ---- certificates */

struct identity {
    X509 *cert;
    EVP_PKEY *key;
};
enum key_type { KEY_EC, KEY_RSA, KEY_ED25519, KEY_RSA_1024 };
struct identity_options {
    enum key_type type;
    const char *cn;                /* NULL: none */
    const char *san;               /* "DNS:a.example,DNS:*.b.example"; NULL: none */
    const struct identity *issuer; /* NULL: self-signed */
    bool ca;
    long from_s, to_s; /* from now; both 0: valid */
};

EVP_PKEY *make_key(enum key_type type);
void add_extension(X509 *x, int nid, const char *value);
struct identity make_identity(struct identity_options o);
void free_identity(struct identity *id);

/* ---- files and contexts */

extern char util_dir[64];
int make_util_dir(void **state);
int remove_util_dir(void **state);

FILE *open_file(const char *name);
void write_text(const char *name, const char *text);

/* The certificate, and the key behind it. Either may be NULL. */
void write_pem(const char *name, X509 *cert, X509 *chain, EVP_PKEY *key);
extern struct config_error util_error;

/* From the lines of a [listen a] section, in which @ stands for the directory. */
struct tls_context *make_context(const char *lines, const struct ticket_keys *tickets);
struct tls_context *need_context(const char *lines, const struct ticket_keys *tickets);

/* One certificate, nothing else; no file stays. */
struct tls_context *make_simple_context(void);

/* ---- the server's side */

struct server {
    struct tls_conn *t;
    struct bytes sent;  /* ciphertext for the client */
    struct bytes plain; /* from the client */
    size_t room;        /* bytes that send takes; less with each */
    size_t sends, plains;
    int send_error;   /* if not 0, what send returns */
    bool echo;        /* plain writes back what came */
    bool stop;        /* plain says so */
    bool free_within; /* plain frees t */
    bool free_in_send;
};
ssize_t server_send(void *owner, const void *data, size_t len);
bool server_plain(void *owner, uint8_t *data, size_t len);
extern const struct tls_conn_ops server_ops;
void server_init(struct server *s, struct tls_context *ctx);
void server_fini(struct server *s);

/* ---- the client's side */

struct client {
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out;
};
struct client_options {
    const char *server_name;
    int version; /* TLS1_2_VERSION or TLS1_3_VERSION; 0: both */
    SSL_SESSION *session;
    const struct identity *identity;
    const char *sigalgs, *ciphers, *suites;
    uint8_t fragment; /* TLSEXT_max_fragment_length_512 ...; 0: as large as it may be */
};
extern SSL_SESSION *util_session; /* the last that a client got */
int keep_session(SSL *ssl, SSL_SESSION *s);
void client_init(struct client *c, struct client_options o);
void client_fini(struct client *c);

/* What the client has to send. */
struct slice client_out(struct client *c);

/* What the server sent goes to the client. */
void to_client(struct server *s, struct client *c);

/* All of the client's bytes go to the server, in pieces of `step`. The last result that was not TLS_OK. */
enum tls_result to_server(struct client *c, struct server *s, size_t step);

/* Until both have finished, or one of them cannot. */
bool shake_hands_by(struct client *c, struct server *s, size_t step);
bool shake_hands(struct client *c, struct server *s);
void client_write(struct client *c, const void *data, size_t len);

/* What there is to read for the client, at most cap. */
size_t client_read(struct client *c, void *buf, size_t cap);

/* What the server has sent is this, no more and no less. */
void client_hears(struct server *s, struct client *c, const void *data, size_t len);
/* close_notify */
bool client_saw_end(const struct client *c);
/* The handshake goes no further: this alert has come. */
bool client_got_alert(struct client *c, int reason);

/* "hello" there and back. */
void echo_once(struct client *c, struct server *s);

/* ---- both */

extern const int util_versions[2];
#define FOR_VERSIONS(v) for (const int *v = util_versions; v < util_versions + 2; v++)

/* The end of a test; OpenSSL has no error left over. */
void finish(struct server *s, struct client *c);
void fill(uint8_t *data, size_t len, unsigned seed);
