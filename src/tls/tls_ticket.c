// SPDX-License-Identifier: MIT
/* Session tickets (RFC 5077, RFC 8446 section 4.6.1) with keys that all shards share: whoever gets the
 * connection can resume it. Nothing is stored here. */
#include "tls/tls_priv.h"

#include <string.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#define LIFETIME_DEFAULT_S 7200
#define LIFETIME_MAX_S     (7 * 24 * 3600) /* RFC 8446 section 4.6.1 */

static bool is_key(const struct ticket_key *k)
{
    static const uint8_t none[sizeof k->name];
    return memcmp(k->name, none, sizeof none) != 0;
}

static const struct ticket_key *find_key(const struct ticket_keys *keys, const uint8_t *name)
{
    for (uint32_t i = 0; i < keys->n; i++)
        if (is_key(&keys->keys[i]) && memcmp(keys->keys[i].name, name, sizeof keys->keys[i].name) == 0)
            return &keys->keys[i];
    return NULL;
}

static bool set_hmac(EVP_MAC_CTX *mac, const struct ticket_key *k)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)k->hmac, sizeof k->hmac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, params) == 1;
}

static int make_ticket(const struct tls_context *ctx, const struct ticket_keys *keys, unsigned char *name,
                       unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    const struct ticket_key *k = &keys->keys[0];
    if (keys->n == 0 || !is_key(k))
        return 0;
    if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(ctx->ticket_cipher)) != 1)
        return 0;
    memcpy(name, k->name, sizeof k->name);
    if (EVP_EncryptInit_ex2(cipher, ctx->ticket_cipher, k->aes, iv, NULL) != 1 || !set_hmac(mac, k))
        return -1;
    return 1;
}

static int open_ticket(const struct tls_context *ctx, const struct ticket_keys *keys,
                       const unsigned char *name, const unsigned char *iv, EVP_CIPHER_CTX *cipher,
                       EVP_MAC_CTX *mac, bool single_use)
{
    const struct ticket_key *k = find_key(keys, name);
    if (k == NULL)
        return 0;
    if (!set_hmac(mac, k) || EVP_DecryptInit_ex2(cipher, ctx->ticket_cipher, k->aes, iv, NULL) != 1)
        return -1;
    return single_use || k != &keys->keys[0] ? 2 : 1;
}

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3). Negative: the handshake fails; 0: no ticket, or it is not
 * opened; 1; 2: opened, and the client gets a new one. */
static int ticket_cb(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int enc)
{
    const struct tls_context *ctx = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct ticket_keys keys;
    if (!ticket_keys_read(ctx->tickets, &keys))
        return 0;
    int r;
    if (enc)
        r = make_ticket(ctx, &keys, name, iv, cipher, mac);
    else /* clients of TLS 1.3 use a ticket once (RFC 8446 appendix C.4) */
        r = open_ticket(ctx, &keys, name, iv, cipher, mac, SSL_version(ssl) >= TLS1_3_VERSION);
    OPENSSL_cleanse(&keys, sizeof keys);
    return r;
}

bool tls__tickets_set(struct tls_context *ctx, SSL_CTX *ssl_ctx)
{
    SSL_CTX_set_session_cache_mode(ssl_ctx, SSL_SESS_CACHE_OFF);
    if (ctx->tickets == NULL) {
        SSL_CTX_set_options(ssl_ctx, SSL_OP_NO_TICKET);
        return SSL_CTX_set_num_tickets(ssl_ctx, 0) == 1; /* TLS 1.3 would send such as need a cache */
    }
    struct ticket_keys keys = {0};
    uint32_t lifetime = ticket_keys_read(ctx->tickets, &keys) ? keys.lifetime_s : 0;
    OPENSSL_cleanse(&keys, sizeof keys);
    if (lifetime == 0)
        lifetime = LIFETIME_DEFAULT_S;
    SSL_CTX_set_timeout(ssl_ctx, lifetime < LIFETIME_MAX_S ? lifetime : LIFETIME_MAX_S);
    return SSL_CTX_set_num_tickets(ssl_ctx, 1) == 1 &&
           SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl_ctx, ticket_cb) == 1;
}
