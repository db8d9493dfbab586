// SPDX-License-Identifier: MIT
/* TLS of the bench programs: OpenSSL on the socket itself, as it comes, non-blocking. */
#pragma once

#include <openssl/ssl.h>
#include <stddef.h>
#include <sys/types.h>

/* pem: certificate and key. TLS 1.3, released buffers, one ticket, no session cache. */
SSL_CTX *tls_server(const char *pem);
/* Takes any certificate. */
SSL_CTX *tls_client(void);
SSL *tls_on(SSL_CTX *ctx, int fd);
/* As recv and send: -1 with errno EAGAIN when it would block (a write is then to be tried again with the same
 * bytes), 0 at the end of the stream. Ends the process with the error of TLS if there is one. */
ssize_t tls_recv(SSL *s, void *data, size_t len);
ssize_t tls_send(SSL *s, const void *data, size_t len);
/* Goes on with the handshake: done or not yet; ends the process when it fails. */
int tls_greet(SSL *s);
