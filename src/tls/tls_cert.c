// SPDX-License-Identifier: MIT
/* Certificates and keys out of PEM files, with words for the operator when something is wrong with them. */
#include "tls/tls_priv.h"

#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/log.h"

void tls__complain(const struct tls_source *src, unsigned line, const char *key, const char *fmt, ...)
{
    char section[64], text[sizeof src->err->list[0].text];
    snprintf(section, sizeof section, "listen %s", src->l->name);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    config_error_add(src->err, line, section, key, "%s", text);
}

const char *tls__reason(void)
{
    unsigned long e = ERR_peek_last_error();
    const char *text = ERR_reason_error_string(e);
    ERR_clear_error();
    return text != NULL ? text : "OpenSSL does not say why";
}

/* ---- lists of files */

struct item {
    const char *path; /* not terminated */
    int len;
    struct slice content;
};

static unsigned count_items(const char *list)
{
    const char *pos = list, *item;
    size_t len;
    unsigned n = 0;
    while (config_list_next(&pos, &item, &len))
        n++;
    return n;
}

static bool next_item(const struct tls_source *src, const char **pos, struct item *ret)
{
    size_t len;
    if (!config_list_next(pos, &ret->path, &len))
        return false;
    ret->len = (int)len;
    ret->content = (struct slice){0};
    (void)files_get(src->files, ret->path, len, &ret->content); /* files_load has complained */
    return true;
}

static BIO *open_pem(struct slice pem)
{
    return BIO_new_mem_buf(pem.len > 0 ? (const void *)pem.data : "",
                           pem.len < INT_MAX ? (int)pem.len : INT_MAX);
}

static bool no_more_pem(void)
{
    unsigned long e = ERR_peek_last_error();
    return ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
}

/* ---- certificates */

/* All certificates of a PEM text, in order. NULL: *ret_wrong says what is wrong with it (none is there). */
static STACK_OF(X509) * read_certificates(struct slice pem, const char **ret_wrong)
{
    BIO *bio = open_pem(pem);
    STACK_OF(X509) *all = sk_X509_new_null();
    *ret_wrong = "no memory";
    if (bio == NULL || all == NULL)
        goto fail;
    ERR_clear_error();
    X509 *x;
    while ((x = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL)) != NULL)
        if (!sk_X509_push(all, x)) {
            X509_free(x);
            goto fail;
        }
    if (!no_more_pem()) {
        *ret_wrong = tls__reason();
        goto fail;
    }
    ERR_clear_error();
    if (sk_X509_num(all) == 0) {
        *ret_wrong = pem.len == 0 ? "it is empty or was not read"
                                  : "there is none in it (PEM is expected: -----BEGIN CERTIFICATE-----)";
        goto fail;
    }
    BIO_free(bio);
    return all;
fail:
    BIO_free(bio);
    sk_X509_pop_free(all, X509_free);
    return NULL;
}

static void warn_of_dates(const struct tls_source *src, const struct item *file, const X509 *x)
{
    if (X509_cmp_current_time(X509_get0_notAfter(x)) < 0)
        LOG(LOG_WARN, "tls_certificate_expired", "listener=\"%s\" file=%s", src->l->name,
            log_quote(file->path, (unsigned long)file->len));
    else if (X509_cmp_current_time(X509_get0_notBefore(x)) > 0)
        LOG(LOG_WARN, "tls_certificate_not_yet_valid", "listener=\"%s\" file=%s", src->l->name,
            log_quote(file->path, (unsigned long)file->len));
}

/* ---- keys */

struct passphrase {
    bool asked;
};
static int refuse_passphrase(char *buf, int size, int rwflag, void *u)
{
    ((struct passphrase *)u)->asked = true;
    return -1;
}

/* Where the keys are named. */
static unsigned key_line(const struct tls_source *src)
{
    return src->l->tls_key[0] != '\0' ? src->l->line.tls_key : src->l->line.tls_certificate;
}
static const char *key_name(const struct tls_source *src)
{
    return src->l->tls_key[0] != '\0' ? "tls_key" : "tls_certificate";
}

static bool mentions_key(struct slice pem)
{
    static const char mark[] = "PRIVATE KEY-----";
    return pem.len > 0 && memmem(pem.data, pem.len, mark, sizeof mark - 1) != NULL;
}

static bool read_key(const struct tls_source *src, const struct item *file, EVP_PKEY **ret)
{
    struct passphrase pass = {0};
    BIO *bio = open_pem(file->content);
    ERR_clear_error();
    *ret = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, &pass) : NULL;
    BIO_free(bio);
    if (*ret != NULL) {
        ERR_clear_error();
        return true;
    }
    if (pass.asked)
        tls__complain(src, key_line(src), key_name(src),
                      "the private key in %.*s is encrypted, and nobody is there to ask for its passphrase: "
                      "store it without one (openssl pkey -in FILE -out FILE)",
                      file->len, file->path);
    else if (!mentions_key(file->content))
        tls__complain(
            src, key_line(src), key_name(src),
            "no private key in %.*s (PEM is expected: -----BEGIN PRIVATE KEY-----)%s", file->len, file->path,
            src->l->tls_key[0] != '\0' ? "" : "; if it stands in a file of its own, name that in tls_key");
    else
        tls__complain(src, key_line(src), key_name(src), "the private key in %.*s cannot be read: %s",
                      file->len, file->path, tls__reason());
    ERR_clear_error();
    return false;
}

/* ---- names */

/* As in RFC 6125: letters, digits, -, _ and dots; "*" as the whole first label only. */
static bool is_dns_name(const unsigned char *s, size_t len)
{
    if (len == 0 || len > 253)
        return false;
    if (len > 2 && s[0] == '*' && s[1] == '.')
        s += 2, len -= 2;
    for (size_t i = 0; i < len; i++)
        if (!isalnum(s[i]) && s[i] != '-' && s[i] != '_' && s[i] != '.')
            return false;
    return true;
}

static bool add_name(struct tls_cert *c, const ASN1_STRING *name)
{
    const unsigned char *s = ASN1_STRING_get0_data(name);
    int len = ASN1_STRING_length(name);
    if (len <= 0 || !is_dns_name(s, (size_t)len))
        return true; /* nobody can ask for it */
    char **names = reallocarray(c->names, c->n_names + 1, sizeof *names);
    if (names == NULL)
        return false;
    c->names = names;
    char *copy = strndup((const char *)s, (size_t)len);
    if (copy == NULL)
        return false;
    for (char *p = copy; *p != '\0'; p++)
        *p = (char)tolower((unsigned char)*p);
    c->names[c->n_names++] = copy;
    return true;
}

/* Only a certificate without DNS names in its SAN is known by its CN (RFC 6125 section 6.4.4). */
static bool read_names(struct tls_cert *c)
{
    bool ok = true;
    GENERAL_NAMES *san = X509_get_ext_d2i(c->leaf, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; ok && san != NULL && i < sk_GENERAL_NAME_num(san); i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(san, i);
        if (g->type == GEN_DNS)
            ok = add_name(c, g->d.dNSName);
    }
    GENERAL_NAMES_free(san);
    X509_NAME *subject = X509_get_subject_name(c->leaf);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (ok && c->n_names == 0 && at >= 0)
        ok = add_name(c, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    return ok;
}

/* ---- all of them */

static bool load_one(const struct tls_source *src, const struct item *file, const struct item *key_file,
                     struct tls_cert *ret)
{
    const char *wrong;
    ret->chain = read_certificates(file->content, &wrong);
    if (ret->chain == NULL) {
        TLS_COMPLAIN(src, tls_certificate, "the certificate in %.*s cannot be read: %s", file->len,
                     file->path, wrong);
        return false;
    }
    ret->leaf = sk_X509_shift(ret->chain);
    if (!read_key(src, key_file, &ret->key))
        return false;
    if (X509_check_private_key(ret->leaf, ret->key) != 1) {
        ERR_clear_error();
        tls__complain(
            src, key_line(src), key_name(src),
            "the private key in %.*s does not belong to the first certificate in %.*s: the keys must "
            "stand in the order of tls_certificate, the server's certificate before its chain",
            key_file->len, key_file->path, file->len, file->path);
        return false;
    }
    warn_of_dates(src, file, ret->leaf);
    if (!read_names(ret)) {
        TLS_COMPLAIN(src, tls_certificate, "no memory");
        return false;
    }
    return true;
}

bool tls__certs_load(const struct tls_source *src, struct tls_cert **ret, unsigned *ret_n)
{
    const char *pos = src->l->tls_certificate, *key_pos = src->l->tls_key;
    unsigned n = count_items(pos), n_keys = count_items(key_pos);
    if (n == 0) {
        TLS_COMPLAIN(src, tls_certificate, "names no file");
        return false;
    }
    if (n_keys > 0 && n_keys != n) {
        TLS_COMPLAIN(src, tls_key, "%u files, but tls_certificate has %u: one key for each, in that order",
                     n_keys, n);
        return false;
    }
    struct tls_cert *certs = calloc(n, sizeof *certs);
    bool ok = certs != NULL;
    struct item file, key_file;
    for (unsigned i = 0; certs != NULL && next_item(src, &pos, &file); i++) {
        key_file = file;
        if (n_keys > 0)
            (void)next_item(src, &key_pos, &key_file);
        ok &= load_one(src, &file, &key_file, &certs[i]); /* go on: all that is wrong, at once */
    }
    if (!ok) {
        tls__certs_free(certs, certs != NULL ? n : 0);
        return false;
    }
    *ret = certs;
    *ret_n = n;
    return true;
}

void tls__certs_free(struct tls_cert *certs, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        X509_free(certs[i].leaf);
        EVP_PKEY_free(certs[i].key);
        sk_X509_pop_free(certs[i].chain, X509_free);
        for (unsigned j = 0; j < certs[i].n_names; j++)
            free(certs[i].names[j]);
        free(certs[i].names);
    }
    free(certs);
}

STACK_OF(X509) * tls__client_ca_load(const struct tls_source *src)
{
    const char *path = src->l->tls_client_ca, *wrong; /* one, not a list */
    struct slice content = {0};
    if (path[0] == '\0') {
        TLS_COMPLAIN(src, tls_client_verify,
                     "asks for client certificates, but tls_client_ca does not say whose are accepted");
        return NULL;
    }
    (void)files_get(src->files, path, strlen(path), &content); /* files_load has complained */
    STACK_OF(X509) *all = read_certificates(content, &wrong);
    if (all == NULL)
        TLS_COMPLAIN(src, tls_client_ca, "the certificates in %s cannot be read: %s", path, wrong);
    return all;
}
