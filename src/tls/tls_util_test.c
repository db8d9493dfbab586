// SPDX-License-Identifier: MIT
#include "tls/tls_util_test.h"

#include <dirent.h>
#include <unistd.h>

EVP_PKEY *make_key(enum key_type type)
{
    switch (type) {
    case KEY_RSA: return EVP_RSA_gen(2048);
    case KEY_RSA_1024: return EVP_RSA_gen(1024);
    case KEY_ED25519: return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    default: return EVP_EC_gen("P-256");
    }
}

void add_extension(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    assert_non_null(e);
    assert_int_equal(X509_add_ext(x, e, -1), 1);
    X509_EXTENSION_free(e);
}

struct identity make_identity(struct identity_options o)
{
    static long serial = 1;
    struct identity id = {.cert = X509_new(), .key = make_key(o.type)};
    assert_non_null(id.key);
    X509_set_version(id.cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(id.cert), serial++);
    X509_gmtime_adj(X509_getm_notBefore(id.cert), o.from_s != 0 || o.to_s != 0 ? o.from_s : -60);
    X509_gmtime_adj(X509_getm_notAfter(id.cert), o.from_s != 0 || o.to_s != 0 ? o.to_s : 3600);
    if (o.cn != NULL)
        X509_NAME_add_entry_by_txt(X509_get_subject_name(id.cert), "CN", MBSTRING_UTF8,
                                   (const unsigned char *)o.cn, -1, -1, 0);
    X509_set_issuer_name(id.cert, X509_get_subject_name(o.issuer != NULL ? o.issuer->cert : id.cert));
    X509_set_pubkey(id.cert, id.key);
    if (o.san != NULL)
        add_extension(id.cert, NID_subject_alt_name, o.san);
    if (o.ca)
        add_extension(id.cert, NID_basic_constraints, "critical,CA:TRUE");
    assert_true(X509_sign(id.cert, o.issuer != NULL ? o.issuer->key : id.key,
                          o.type == KEY_ED25519 && o.issuer == NULL ? NULL : EVP_sha256()) > 0);
    return id;
}

void free_identity(struct identity *id)
{
    X509_free(id->cert);
    EVP_PKEY_free(id->key);
    *id = (struct identity){0};
}

char util_dir[64];

int make_util_dir(void **state)
{
    snprintf(util_dir, sizeof util_dir, "/tmp/tgg-tls-test-XXXXXX");
    return mkdtemp(util_dir) != NULL ? 0 : -1;
}

int remove_util_dir(void **state)
{
    char path[384];
    DIR *d = opendir(util_dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", util_dir, e->d_name);
        unlink(path); /* "." and "..": refused */
    }
    if (d != NULL)
        closedir(d);
    return rmdir(util_dir);
}

FILE *open_file(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", util_dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    return f;
}

void write_text(const char *name, const char *text)
{
    FILE *f = open_file(name);
    fputs(text, f);
    fclose(f);
}

void write_pem(const char *name, X509 *cert, X509 *chain, EVP_PKEY *key)
{
    FILE *f = open_file(name);
    if (cert != NULL)
        PEM_write_X509(f, cert);
    if (chain != NULL)
        PEM_write_X509(f, chain);
    if (key != NULL)
        PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
}

struct config_error util_error;

struct tls_context *make_context(const char *lines, const struct ticket_keys *tickets)
{
    struct bytes text = {0};
    bytes_append_str(&text, "[listen a]\nport = 1\nprotocol = websocket\n");
    for (const char *p = lines; *p != '\0'; p++) {
        if (*p == '@')
            bytes_append_str(&text, util_dir);
        else
            bytes_append_byte(&text, (uint8_t)*p);
    }
    static struct config cfg;
    struct files *files = NULL;
    memset(&util_error, 0, sizeof util_error);
    struct tls_context *ctx = NULL;
    if (config_load_text((const char *)text.data, text.len, "test.ini", &cfg, &util_error) == 0) {
        if (files_load(&cfg, (struct slice){0}, &files, &util_error) == 0)
            ctx = tls_context_new(&cfg.listen[0], files, tickets, &util_error);
        files_free(files);
        config_fini(&cfg);
    }
    bytes_fini(&text);
    return ctx;
}

struct tls_context *need_context(const char *lines, const struct ticket_keys *tickets)
{
    struct tls_context *ctx = make_context(lines, tickets);
    if (ctx == NULL)
        config_error_print(stderr, &util_error);
    assert_non_null(ctx);
    assert_int_equal(util_error.n, 0);
    return ctx;
}

struct tls_context *make_simple_context(void)
{
    assert_int_equal(make_util_dir(NULL), 0);
    struct identity id = make_identity((struct identity_options){.cn = "a", .san = "DNS:a.example"});
    write_pem("a.pem", id.cert, NULL, id.key);
    struct tls_context *ctx = need_context("tls_certificate = @/a.pem\n", NULL);
    free_identity(&id);
    assert_int_equal(remove_util_dir(NULL), 0);
    return ctx;
}

ssize_t server_send(void *owner, const void *data, size_t len)
{
    struct server *s = owner;
    s->sends++;
    if (s->free_in_send && s->t != NULL) {
        tls_conn_free(s->t);
        s->t = NULL;
    }
    if (s->send_error != 0)
        return s->send_error;
    size_t n = len < s->room ? len : s->room;
    s->room -= n;
    bytes_append(&s->sent, data, n);
    return (ssize_t)n;
}

bool server_plain(void *owner, uint8_t *data, size_t len)
{
    struct server *s = owner;
    s->plains++;
    assert_true(len > 0);
    bytes_append(&s->plain, data, len);
    for (size_t at = 0; s->echo && at < len; at += TLS_RECORD_MAX) {
        size_t n = len - at < TLS_RECORD_MAX ? len - at : TLS_RECORD_MAX;
        assert_int_equal(tls_conn_write(s->t, data + at, n), n);
    }
    memset(data, 0xee, len); /* it is writable */
    if (s->free_within) {
        tls_conn_free(s->t);
        s->t = NULL;
    }
    return !s->stop && !s->free_within;
}

const struct tls_conn_ops server_ops = {server_send, server_plain};

void server_init(struct server *s, struct tls_context *ctx)
{
    *s = (struct server){.room = SIZE_MAX};
    s->t = tls_conn_new(ctx, &server_ops, s);
    assert_non_null(s->t);
}

void server_fini(struct server *s)
{
    tls_conn_free(s->t);
    bytes_fini(&s->sent);
    bytes_fini(&s->plain);
}

/* OpenSSL's, and one that tls_record.c does not have. */
#define CLIENT_SUITES                                                                                        \
    "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_128_CCM_SHA256"

SSL_SESSION *util_session;

int keep_session(SSL *ssl, SSL_SESSION *s)
{
    SSL_SESSION_free(util_session);
    util_session = s;
    return 1;
}

void client_init(struct client *c, struct client_options o)
{
    c->ctx = SSL_CTX_new(TLS_client_method());
    if (o.version != 0) {
        SSL_CTX_set_min_proto_version(c->ctx, o.version);
        SSL_CTX_set_max_proto_version(c->ctx, o.version);
    }
    if (o.identity != NULL) {
        assert_int_equal(SSL_CTX_use_certificate(c->ctx, o.identity->cert), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey(c->ctx, o.identity->key), 1);
    }
    if (o.sigalgs != NULL)
        assert_int_equal(SSL_CTX_set1_sigalgs_list(c->ctx, o.sigalgs), 1);
    if (o.ciphers != NULL)
        assert_int_equal(SSL_CTX_set_cipher_list(c->ctx, o.ciphers), 1);
    const char *suites = o.suites != NULL ? o.suites : CLIENT_SUITES;
    assert_int_equal(SSL_CTX_set_ciphersuites(c->ctx, suites), 1);
    if (o.fragment != 0)
        assert_int_equal(SSL_CTX_set_tlsext_max_fragment_length(c->ctx, o.fragment), 1);
    SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c->ctx, keep_session);
    c->ssl = SSL_new(c->ctx);
    c->in = BIO_new(BIO_s_mem());
    c->out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(c->in, -1);
    SSL_set_bio(c->ssl, c->in, c->out);
    SSL_set_connect_state(c->ssl);
    if (o.server_name != NULL)
        SSL_set_tlsext_host_name(c->ssl, o.server_name);
    if (o.session != NULL)
        assert_int_equal(SSL_set_session(c->ssl, o.session), 1);
}

void client_fini(struct client *c)
{
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    ERR_clear_error();
}

struct slice client_out(struct client *c)
{
    char *data;
    long len = BIO_get_mem_data(c->out, &data);
    return (struct slice){(const uint8_t *)data, (size_t)len};
}

void to_client(struct server *s, struct client *c)
{
    if (s->sent.len > 0)
        assert_int_equal(BIO_write(c->in, s->sent.data, (int)s->sent.len), s->sent.len);
    bytes_clear(&s->sent);
}

enum tls_result to_server(struct client *c, struct server *s, size_t step)
{
    enum tls_result last = TLS_OK;
    struct slice d = client_out(c);
    uint8_t *copy = malloc(d.len + 1);
    memcpy(copy, d.data, d.len);
    BIO_reset(c->out);
    for (size_t at = 0; at < d.len && s->t != NULL; at += step) {
        size_t n = d.len - at < step ? d.len - at : step;
        uint8_t *piece = malloc(n); /* so that reading behind it is seen */
        memcpy(piece, copy + at, n);
        enum tls_result r = tls_conn_feed(s->t, piece, n);
        free(piece);
        last = r != TLS_OK ? r : last;
        if (r != TLS_OK && r != TLS_HANDSHAKEN)
            break;
        assert_int_equal(ERR_peek_error(), 0);
    }
    free(copy);
    return last;
}

bool shake_hands_by(struct client *c, struct server *s, size_t step)
{
    for (unsigned i = 0; i < 10; i++) {
        int r = SSL_do_handshake(c->ssl);
        bool failed = r != 1 && SSL_get_error(c->ssl, r) != SSL_ERROR_WANT_READ;
        ERR_clear_error();
        enum tls_result got = to_server(c, s, step);
        if (failed || got == TLS_ERROR)
            return false;
        bool done = r == 1 && tls_conn_is_open(s->t);
        to_client(s, c);
        if (done)
            return true;
    }
    return false;
}

bool shake_hands(struct client *c, struct server *s)
{
    return shake_hands_by(c, s, SIZE_MAX / 2);
}

void client_write(struct client *c, const void *data, size_t len)
{
    size_t n = 0;
    assert_int_equal(SSL_write_ex(c->ssl, data, len, &n), 1);
    assert_int_equal(n, len);
}

size_t client_read(struct client *c, void *buf, size_t cap)
{
    size_t len = 0, n;
    while (len < cap && SSL_read_ex(c->ssl, (uint8_t *)buf + len, cap - len, &n) == 1)
        len += n;
    ERR_clear_error();
    return len;
}

void client_hears(struct server *s, struct client *c, const void *data, size_t len)
{
    uint8_t *heard = malloc(len + 1);
    assert_non_null(heard);
    to_client(s, c);
    assert_int_equal(client_read(c, heard, len + 1), len);
    assert_memory_equal(heard, data, len);
    free(heard);
}

bool client_saw_end(const struct client *c)
{
    return (SSL_get_shutdown(c->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
}

bool client_got_alert(struct client *c, int reason)
{
    int r = SSL_do_handshake(c->ssl);
    unsigned long e = ERR_peek_error();
    ERR_clear_error();
    return r != 1 && ERR_GET_REASON(e) == reason;
}

void echo_once(struct client *c, struct server *s)
{
    char buf[16];
    s->echo = true;
    client_write(c, "hello", 5);
    assert_int_equal(to_server(c, s, SIZE_MAX / 2), TLS_OK);
    to_client(s, c);
    assert_int_equal(client_read(c, buf, sizeof buf), 5);
    assert_memory_equal(buf, "hello", 5);
}

const int util_versions[2] = {TLS1_2_VERSION, TLS1_3_VERSION};

void finish(struct server *s, struct client *c)
{
    server_fini(s);
    client_fini(c);
    assert_int_equal(ERR_peek_error(), 0);
}

void fill(uint8_t *data, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)((i + seed) * 31 + (i + seed) / 251);
}
