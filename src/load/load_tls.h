// SPDX-License-Identifier: MIT
/* TLS of the load client and of the bench programs: OpenSSL on the socket itself, as it comes, non-blocking.
 * Where something fails load_tls_error() says what. */
#pragma once

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* pem: certificate and key. TLS 1.3, released buffers, one ticket, no session cache. NULL: failed. */
SSL_CTX *load_tls_server(const char *pem);
/* version_min: TLS1_2_VERSION or TLS1_3_VERSION. verify: the certificate must be good for the machine's
 * authorities, or those in the file ca (PEM) unless it is NULL. NULL: failed. */
SSL_CTX *load_tls_client(int version_min, bool verify, const char *ca);
/* name: of the server, for SNI and for the check of its certificate (a name or an address); NULL: neither.
 * The side is that of ctx. NULL: failed. Ended with SSL_free. */
SSL *load_tls_on(SSL_CTX *ctx, int fd, const char *name);

/* As recv and send: -1 with errno EAGAIN when it would block (a write is then to be tried again with the same
 * bytes, more behind them are allowed), 0 at the end of the stream; -1 with EPROTO when TLS failed; other
 * errno of the socket. */
ssize_t load_tls_recv(SSL *s, void *data, size_t len);
ssize_t load_tls_send(SSL *s, const void *data, size_t len);
/* Goes on with the handshake: 1 done, 0 not yet; -1: failed, errno EPROTO, ECONNRESET (the other side went)
 * or of the socket. */
int load_tls_greet(SSL *s);

/* What failed last, in words; of this process, until the next failure. */
const char *load_tls_error(void);
