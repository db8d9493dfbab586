// SPDX-License-Identifier: MIT
#include "load/load_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <openssl/err.h>
#include <openssl/x509_vfy.h>

static char error_text[256];

const char *load_tls_error(void)
{
    return error_text;
}

/* s: NULL where there is no connection yet. */
static void error_keep(const char *what, const SSL *s)
{
    unsigned long e = ERR_get_error();
    long verified = s != NULL ? SSL_get_verify_result(s) : X509_V_OK;
    const char *reason = e != 0 ? ERR_reason_error_string(e) : NULL;
    if (verified != X509_V_OK)
        reason = X509_verify_cert_error_string(verified);
    snprintf(error_text, sizeof(error_text), "%s: %s", what, reason != NULL ? reason : "no reason given");
}

static SSL_CTX *context(const SSL_METHOD *method, int version_min)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (ctx == NULL) {
        error_keep("SSL_CTX_new", NULL);
        return NULL;
    }
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_min_proto_version(ctx, version_min);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    return ctx;
}

static SSL_CTX *failed(SSL_CTX *ctx, const char *what)
{
    error_keep(what, NULL);
    SSL_CTX_free(ctx);
    return NULL;
}

SSL_CTX *load_tls_server(const char *pem)
{
    SSL_CTX *ctx = context(TLS_server_method(), TLS1_3_VERSION);
    if (ctx == NULL)
        return NULL;
    SSL_CTX_set_num_tickets(ctx, 1);
    if (SSL_CTX_use_certificate_chain_file(ctx, pem) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, pem, SSL_FILETYPE_PEM) != 1)
        return failed(ctx, pem);
    return ctx;
}

SSL_CTX *load_tls_client(int version_min, bool verify, const char *ca)
{
    SSL_CTX *ctx = context(TLS_client_method(), version_min);
    if (ctx == NULL || !verify)
        return ctx;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    int r = ca != NULL ? SSL_CTX_load_verify_file(ctx, ca) : SSL_CTX_set_default_verify_paths(ctx);
    return r == 1 ? ctx : failed(ctx, ca != NULL ? ca : "the machine's authorities");
}

static bool is_address(const char *name)
{
    uint8_t ip[16];
    return inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1;
}

static bool name_set(SSL *s, const char *name)
{
    if (is_address(name))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(s), name) == 1;
    return SSL_set_tlsext_host_name(s, name) == 1 && SSL_set1_host(s, name) == 1;
}

SSL *load_tls_on(SSL_CTX *ctx, int fd, const char *name)
{
    SSL *s = SSL_new(ctx);
    if (s == NULL || SSL_set_fd(s, fd) != 1 || (name != NULL && !name_set(s, name))) {
        error_keep("SSL_new", NULL);
        SSL_free(s);
        return NULL;
    }
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
    switch (err) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_SYSCALL: return errno != 0 ? -1 : 0;
    case SSL_ERROR_SSL:
        if (ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
            return 0;
        break;
    default: break;
    }
    error_keep(what, s);
    errno = EPROTO;
    return -1;
}

ssize_t load_tls_recv(SSL *s, void *data, size_t len)
{
    ERR_clear_error();
    errno = 0;
    return result(s, SSL_read(s, data, (int)len), "reading");
}

ssize_t load_tls_send(SSL *s, const void *data, size_t len)
{
    ERR_clear_error();
    errno = 0;
    ssize_t n = result(s, SSL_write(s, data, (int)len), "writing");
    if (n == 0) {
        errno = EPIPE;
        return -1;
    }
    return n;
}

int load_tls_greet(SSL *s)
{
    ERR_clear_error();
    errno = 0;
    int n = SSL_do_handshake(s);
    if (n == 1)
        return 1;
    ssize_t r = result(s, n, "handshake");
    if (r == 0)
        errno = ECONNRESET;
    return r < 0 && errno == EAGAIN ? 0 : -1;
}
