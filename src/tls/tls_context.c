// SPDX-License-Identifier: MIT
/* What the connections of one listener have in common. OpenSSL wants an SSL_CTX for each certificate (of each
 * key type); a name of SNI leads to the SSL_CTX ("site") with all certificates that have it. */
#include "tls/tls_priv.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/evp.h>

#include "base/assert.h"
#include "base/log.h"

#define CIPHERS_DEFAULT "ECDHE+AESGCM:ECDHE+CHACHA20"
/* Those that everybody has; the larger ones only make a flood of handshakes cheaper for the flooder. */
#define GROUPS "X25519:P-256:P-384"
/* Certificates of a client with its chain. */
#define CLIENT_CHAIN_BYTES (32 * 1024)

/* ---- sites: sets of certificates, one of each key type */

#define SITE_CERTS_MAX 4 /* RSA, ECDSA, Ed25519, and one more */

struct site_plan {
    unsigned certs[SITE_CERTS_MAX]; /* ascending */
    unsigned n;
};

struct build {
    const struct tls_source *src;
    struct tls_context *ctx;
    const struct tls_cert *certs;
    unsigned n_certs;
    struct site_plan *plans; /* of ctx->sites */
    STACK_OF(X509) * client_ca;
    uint8_t session_context[32];
};

static void plan_add(struct site_plan *p, const struct build *b, unsigned cert)
{
    for (unsigned i = 0; i < p->n; i++)
        if (EVP_PKEY_get_base_id(b->certs[p->certs[i]].key) == EVP_PKEY_get_base_id(b->certs[cert].key))
            return; /* the first of its type stays */
    if (p->n < SITE_CERTS_MAX)
        p->certs[p->n++] = cert;
}

/* ---- one SSL_CTX */

static bool set_versions(const struct build *b, SSL_CTX *c)
{
    const struct config_listen *l = b->src->l;
    int min = l->tls_version_min == TLS_VERSION_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
    if (SSL_CTX_set_min_proto_version(c, min) != 1 || SSL_CTX_set1_groups_list(c, GROUPS) != 1) {
        TLS_COMPLAIN(b->src, tls_version_min, "%s", tls__reason());
        return false;
    }
    if (SSL_CTX_set_cipher_list(c, l->tls_ciphers[0] != '\0' ? l->tls_ciphers : CIPHERS_DEFAULT) != 1) {
        TLS_COMPLAIN(b->src, tls_ciphers, "no cipher that OpenSSL knows (openssl ciphers -v lists them): %s",
                     tls__reason());
        return false;
    }
    if (l->tls_ciphersuites[0] != '\0' && SSL_CTX_set_ciphersuites(c, l->tls_ciphersuites) != 1) {
        TLS_COMPLAIN(b->src, tls_ciphersuites,
                     "not cipher suites of TLS 1.3, such as TLS_AES_128_GCM_SHA256, separated by colons: %s",
                     tls__reason());
        return false;
    }
    return true;
}

/* With our certificates, and without keys shared beforehand, nobody gets these. */
static bool is_never_chosen(const SSL_CIPHER *cipher)
{
    int auth = SSL_CIPHER_get_auth_nid(cipher);
    return auth == NID_auth_dss || auth == NID_auth_psk || auth == NID_auth_srp ||
           SSL_CIPHER_get_kx_nid(cipher) == NID_kx_rsa_psk;
}

/* A connection with a cipher that is not ours keeps its SSL, and cannot go to another process. */
static void warn_of_ciphers(const struct build *b)
{
    STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(b->ctx->fallback);
    bool is_13_only = b->src->l->tls_version_min == TLS_VERSION_1_3;
    for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); i++) {
        const SSL_CIPHER *cipher = sk_SSL_CIPHER_value(ciphers, i);
        unsigned id = SSL_CIPHER_get_protocol_id(cipher);
        unsigned version = (id >> 8) == 0x13 ? TLS1_3_VERSION : TLS1_2_VERSION;
        if ((version == TLS1_2_VERSION && is_13_only) || is_never_chosen(cipher) ||
            tls__suite_find(version, id) != NULL)
            continue;
        LOG(LOG_WARN, "tls_cipher_ends_with_upgrade",
            "listener=\"%s\" cipher=%s hint=\"an upgrade closes connections with it: use AES-GCM or "
            "ChaCha20\"",
            b->src->l->name, SSL_CIPHER_get_name(cipher));
        return;
    }
}

static bool set_client_ca(const struct build *b, SSL_CTX *c)
{
    bool ok = true;
    X509_STORE *store = SSL_CTX_get_cert_store(c);
    for (int i = 0; ok && i < sk_X509_num(b->client_ca); i++) {
        X509 *ca = sk_X509_value(b->client_ca, i);
        ok = X509_STORE_add_cert(store, ca) == 1 && SSL_CTX_add_client_CA(c, ca) == 1;
    }
    if (!ok)
        TLS_COMPLAIN(b->src, tls_client_ca, "%s", tls__reason());
    int mode = SSL_VERIFY_PEER;
    if (b->src->l->tls_client_verify == TLS_CLIENT_VERIFY_REQUIRED)
        mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    SSL_CTX_set_verify(c, mode, NULL);
    return ok;
}

static bool set_certificates(const struct build *b, const struct site_plan *p, SSL_CTX *c)
{
    for (unsigned i = 0; i < p->n; i++) {
        const struct tls_cert *cert = &b->certs[p->certs[i]];
        ERR_clear_error();
        if (SSL_CTX_use_cert_and_key(c, cert->leaf, cert->key, cert->chain, 1) == 1)
            continue;
        TLS_COMPLAIN(b->src, tls_certificate, "certificate %u of the list cannot be used: %s",
                     p->certs[i] + 1, tls__reason());
        return false;
    }
    return true;
}

static int choose_site(SSL *ssl, int *alert, void *arg)
{
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    SSL_CTX *site = name != NULL ? tls__context_find(arg, name) : NULL;
    if (site == NULL) /* the first one's, and no word of it to the client (RFC 6066 section 3 allows that) */
        return SSL_TLSEXT_ERR_NOACK;
    if (site != SSL_get_SSL_CTX(ssl) && SSL_set_SSL_CTX(ssl, site) == NULL) {
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *site_new(const struct build *b, const struct site_plan *p)
{
    SSL_CTX *c = SSL_CTX_new(TLS_server_method());
    if (c == NULL) {
        TLS_COMPLAIN(b->src, tls_certificate, "%s", tls__reason());
        return NULL;
    }
    SSL_CTX_set_app_data(c, b->ctx);
    SSL_CTX_set_options(c, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    /* A chain is what the file says, not what could be put together of the client CAs. */
    SSL_CTX_set_mode(c, SSL_MODE_NO_AUTO_CHAIN);
    SSL_CTX_set_max_cert_list(c, CLIENT_CHAIN_BYTES);
    SSL_CTX_set_msg_callback(c, tls__on_message);
    SSL_CTX_set_msg_callback_arg(c, b->ctx);
    SSL_CTX_set_tlsext_servername_callback(c, choose_site);
    SSL_CTX_set_tlsext_servername_arg(c, b->ctx);
    bool ok = SSL_CTX_set_session_id_context(c, b->session_context, sizeof b->session_context) == 1 &&
              tls__tickets_set(b->ctx, c);
    if (!ok)
        TLS_COMPLAIN(b->src, tls_certificate, "%s", tls__reason());
    ok = ok && set_versions(b, c) && set_certificates(b, p, c) &&
         (b->client_ca == NULL || set_client_ca(b, c));
    if (!ok) {
        SSL_CTX_free(c);
        return NULL;
    }
    return c;
}

/* The site of a plan, made when it is new. */
static SSL_CTX *site_of(struct build *b, const struct site_plan *p)
{
    struct tls_context *ctx = b->ctx;
    for (unsigned i = 0; i < ctx->n_sites; i++)
        if (b->plans[i].n == p->n && memcmp(b->plans[i].certs, p->certs, p->n * sizeof p->certs[0]) == 0)
            return ctx->sites[i];
    SSL_CTX **sites = reallocarray(ctx->sites, ctx->n_sites + 1, sizeof *sites);
    if (sites != NULL)
        ctx->sites = sites;
    struct site_plan *plans = reallocarray(b->plans, ctx->n_sites + 1, sizeof *plans);
    if (plans != NULL)
        b->plans = plans;
    SSL_CTX *c = sites != NULL && plans != NULL ? site_new(b, p) : NULL;
    if (c == NULL)
        return NULL;
    b->plans[ctx->n_sites] = *p;
    ctx->sites[ctx->n_sites++] = c;
    return c;
}

/* ---- names */

/* A name that a certificate has. */
struct claim {
    const char *name;
    unsigned cert;
};

static int compare_claims(const void *a, const void *b)
{
    const struct claim *x = a, *y = b;
    int r = strcmp(x->name, y->name);
    return r != 0 ? r : x->cert < y->cert ? -1 : x->cert > y->cert;
}

static struct claim *collect_claims(const struct build *b, unsigned *ret_n)
{
    unsigned n = 0;
    for (unsigned i = 0; i < b->n_certs; i++)
        n += b->certs[i].n_names;
    struct claim *claims = calloc(n + 1, sizeof *claims);
    if (claims == NULL)
        return NULL;
    *ret_n = 0;
    for (unsigned i = 0; i < b->n_certs; i++)
        for (unsigned j = 0; j < b->certs[i].n_names; j++)
            claims[(*ret_n)++] = (struct claim){b->certs[i].names[j], i};
    qsort(claims, n, sizeof *claims, compare_claims);
    return claims;
}

static bool add_name(struct build *b, const char *name, const struct site_plan *p)
{
    struct tls_name n = {.site = site_of(b, p)};
    if (n.site == NULL || (n.name = strdup(name)) == NULL)
        return false;
    b->ctx->names[b->ctx->n_names++] = n;
    return true;
}

/* Certificates of one name stand together in the claims, in the order of the list. */
static bool add_names(struct build *b, const struct claim *claims, unsigned n)
{
    b->ctx->names = calloc(n + 1, sizeof *b->ctx->names);
    if (b->ctx->names == NULL)
        return false;
    for (unsigned i = 0, next; i < n; i = next) {
        struct site_plan p = {0};
        for (next = i; next < n && strcmp(claims[next].name, claims[i].name) == 0; next++)
            plan_add(&p, b, claims[next].cert);
        if (!add_name(b, claims[i].name, &p))
            return false;
    }
    return true;
}

/* Nobody can ask for it by name. */
static bool add_nameless(struct build *b)
{
    for (unsigned i = 0; i < b->n_certs; i++) {
        struct site_plan p = {.certs = {i}, .n = 1};
        if (b->certs[i].n_names == 0 && site_of(b, &p) == NULL)
            return false;
    }
    return true;
}

static SSL_CTX *find_exactly(const struct tls_context *ctx, const char *name);

static bool build_sites(struct build *b)
{
    unsigned n;
    struct claim *claims = collect_claims(b, &n);
    bool ok = claims != NULL && add_names(b, claims, n) && add_nameless(b);
    free(claims);
    if (!ok)
        return false;
    struct site_plan first = {.certs = {0}, .n = 1};
    b->ctx->fallback =
        b->certs[0].n_names > 0 ? find_exactly(b->ctx, b->certs[0].names[0]) : site_of(b, &first);
    return b->ctx->fallback != NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct tls_name *)a)->name, ((const struct tls_name *)b)->name);
}

static SSL_CTX *find_exactly(const struct tls_context *ctx, const char *name)
{
    struct tls_name key = {.name = (char *)name};
    const struct tls_name *n =
        ctx->n_names == 0 ? NULL : bsearch(&key, ctx->names, ctx->n_names, sizeof key, compare_names);
    return n != NULL ? n->site : NULL;
}

SSL_CTX *tls__context_find(const struct tls_context *ctx, const char *name)
{
    char lower[256];
    size_t len = strlen(name);
    if (len > 0 && name[len - 1] == '.')
        len--;
    if (len == 0 || len >= sizeof lower)
        return NULL;
    for (size_t i = 0; i < len; i++)
        lower[i] = (char)tolower((unsigned char)name[i]);
    lower[len] = '\0';
    SSL_CTX *site = find_exactly(ctx, lower);
    char *dot = strchr(lower, '.');
    if (site != NULL || dot == NULL || dot == lower)
        return site;
    dot[-1] = '*'; /* chat.example.com: *.example.com */
    return find_exactly(ctx, dot - 1);
}

/* ---- the whole */

/* Sessions are taken up only where the same would have been asked of the client in a full handshake, and
 * where the client would have met the same names: RFC 8446 section 4.6.1. New certificates for the old names
 * leave tickets good. */
static bool hash_session_context(struct build *b)
{
    const struct config_listen *l = b->src->l;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    uint8_t verify = (uint8_t)l->tls_client_verify;
    bool ok = md != NULL && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(md, &verify, sizeof verify) == 1;
    for (int i = 0; ok && b->client_ca != NULL && i < sk_X509_num(b->client_ca); i++) {
        uint8_t digest[EVP_MAX_MD_SIZE];
        unsigned len;
        ok = X509_digest(sk_X509_value(b->client_ca, i), EVP_sha256(), digest, &len) == 1 &&
             EVP_DigestUpdate(md, digest, len) == 1;
    }
    for (unsigned i = 0; ok && i < b->n_certs; i++)
        for (unsigned j = 0; ok && j < b->certs[i].n_names; j++)
            ok = EVP_DigestUpdate(md, b->certs[i].names[j], strlen(b->certs[i].names[j]) + 1) == 1;
    ok = ok && EVP_DigestFinal_ex(md, b->session_context, NULL) == 1;
    EVP_MD_CTX_free(md);
    if (!ok)
        TLS_COMPLAIN(b->src, tls_certificate, "%s", tls__reason());
    return ok;
}

static struct tls_context *context_alloc(const struct ticket_keys *tickets)
{
    struct tls_context *ctx = calloc(1, sizeof *ctx);
    if (ctx == NULL)
        return NULL;
    ctx->refs = 1;
    ctx->tickets = tickets;
    ctx->bio = tls__bio_new();
    ctx->ticket_cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    if (ctx->bio == NULL || ctx->ticket_cipher == NULL || !tls__aead_init(&ctx->aead)) {
        tls__context_unref(ctx);
        return NULL;
    }
    return ctx;
}

struct tls_context *tls_context_new(const struct config_listen *l, const struct files *files,
                                    const struct ticket_keys *tickets, struct config_error *err)
{
    struct tls_source src = {.l = l, .files = files, .err = err};
    struct build b = {.src = &src, .ctx = context_alloc(tickets)};
    struct tls_cert *certs = NULL;
    bool ok = b.ctx != NULL;
    if (!ok)
        TLS_COMPLAIN(&src, tls_certificate, "%s", tls__reason());
    ok = tls__certs_load(&src, &certs, &b.n_certs) && ok;
    b.certs = certs;
    if (l->tls_client_verify != TLS_CLIENT_VERIFY_OFF)
        ok = (b.client_ca = tls__client_ca_load(&src)) != NULL && ok;
    unsigned problems = err->n + err->left_out;
    if (ok && !(hash_session_context(&b) && build_sites(&b))) {
        if (err->n + err->left_out == problems)
            TLS_COMPLAIN(&src, tls_certificate, "no memory");
        ok = false;
    }
    if (ok)
        warn_of_ciphers(&b);
    sk_X509_pop_free(b.client_ca, X509_free);
    tls__certs_free(certs, b.n_certs);
    free(b.plans);
    ERR_clear_error();
    if (!ok) {
        tls_context_free(b.ctx);
        return NULL;
    }
    return b.ctx;
}

void tls__context_unref(struct tls_context *ctx)
{
    ASSERT(ctx->refs > 0);
    if (--ctx->refs > 0)
        return;
    for (unsigned i = 0; i < ctx->n_names; i++)
        free(ctx->names[i].name);
    free(ctx->names);
    for (unsigned i = 0; i < ctx->n_sites; i++)
        SSL_CTX_free(ctx->sites[i]);
    free(ctx->sites);
    EVP_CIPHER_free(ctx->ticket_cipher);
    BIO_free(ctx->bio);
    tls__aead_fini(&ctx->aead);
    OPENSSL_cleanse(ctx->plain, sizeof ctx->plain);
    free(ctx);
}

void tls_context_free(struct tls_context *ctx)
{
    if (ctx != NULL)
        tls__context_unref(ctx);
}
