// SPDX-License-Identifier: MIT
#include "tls.h"

#include "common.h"

#include <errno.h>
#include <openssl/err.h>

static _Noreturn void die_tls(const char *what)
{
    char text[256] = "no reason given";
    unsigned long e = ERR_get_error();
    if (e != 0)
        ERR_error_string_n(e, text, sizeof(text));
    die("%s: %s", what, text);
}

static SSL_CTX *context(const SSL_METHOD *method)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (ctx == NULL)
        die_tls("SSL_CTX_new");
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    return ctx;
}

SSL_CTX *tls_server(const char *pem)
{
    SSL_CTX *ctx = context(TLS_server_method());
    SSL_CTX_set_num_tickets(ctx, 1);
    if (SSL_CTX_use_certificate_chain_file(ctx, pem) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, pem, SSL_FILETYPE_PEM) != 1)
        die_tls(pem);
    return ctx;
}

SSL_CTX *tls_client(void)
{
    return context(TLS_client_method());
}

SSL *tls_on(SSL_CTX *ctx, int fd)
{
    SSL *s = SSL_new(ctx);
    if (s == NULL || SSL_set_fd(s, fd) != 1)
        die_tls("SSL_new");
    if (SSL_get_ssl_method(s) == TLS_server_method())
        SSL_set_accept_state(s);
    else
        SSL_set_connect_state(s);
    return s;
}

static ssize_t result(SSL *s, int n, const char *what)
{
    int err = SSL_get_error(s, n);
    if (n > 0)
        return n;
    if (err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    if (err == SSL_ERROR_ZERO_RETURN || err == SSL_ERROR_SYSCALL ||
        ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        ERR_clear_error();
        return 0;
    }
    die_tls(what);
}

ssize_t tls_recv(SSL *s, void *data, size_t len)
{
    ERR_clear_error();
    return result(s, SSL_read(s, data, (int)len), "reading");
}

ssize_t tls_send(SSL *s, const void *data, size_t len)
{
    ERR_clear_error();
    ssize_t n = result(s, SSL_write(s, data, (int)len), "writing");
    if (n == 0) {
        errno = EPIPE;
        return -1;
    }
    return n;
}

int tls_greet(SSL *s)
{
    ERR_clear_error();
    int n = SSL_do_handshake(s);
    if (n == 1)
        return 1;
    if (result(s, n, "TLS handshake") == 0)
        die("the other side closed within the TLS handshake");
    return 0;
}
