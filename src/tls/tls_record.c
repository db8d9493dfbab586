// SPDX-License-Identifier: MIT
#include "tls/tls_record.h"

#include <string.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "base/assert.h"

/* RFC 8446 section 5.5: with AES-GCM 2^24.5 full records under one key are safe. */
#define KEY_RECORDS_MAX ((uint64_t)1 << 24)
/* Records without data in a row: each costs us something and the peer nothing (OpenSSL allows 32 empty ones).
 */
#define IDLE_MAX 32
/* RFC 8446 section 5.2, RFC 5246 section 6.2.3. */
#define CONTENT_MAX_13 (16384 + 256)
#define CONTENT_MAX_12 (16384 + 2048)
/* OpenSSL's for a ClientHello. */
#define HELLO_MAX (128 * 1024)

enum { READ, WRITE }; /* struct tls_aead */

/* ---- suites */

#define SUITE_13(id, aead, key, secret, name)                                                                \
    {                                                                                                        \
        TLS1_3_VERSION, id, aead, key, secret, name                                                          \
    }
#define SUITE_12(id, aead, key, name)                                                                        \
    {                                                                                                        \
        TLS1_2_VERSION, id, aead, key, 0, name                                                               \
    }
static const struct tls_suite suites[] = {
    SUITE_13(0x1301, TLS_AES_128_GCM, 16, 32, "TLS_AES_128_GCM_SHA256"),
    SUITE_13(0x1302, TLS_AES_256_GCM, 32, 48, "TLS_AES_256_GCM_SHA384"),
    SUITE_13(0x1303, TLS_CHACHA20_POLY1305, 32, 32, "TLS_CHACHA20_POLY1305_SHA256"),
    SUITE_12(0xc02b, TLS_AES_128_GCM, 16, "ECDHE-ECDSA-AES128-GCM-SHA256"),
    SUITE_12(0xc02c, TLS_AES_256_GCM, 32, "ECDHE-ECDSA-AES256-GCM-SHA384"),
    SUITE_12(0xc02f, TLS_AES_128_GCM, 16, "ECDHE-RSA-AES128-GCM-SHA256"),
    SUITE_12(0xc030, TLS_AES_256_GCM, 32, "ECDHE-RSA-AES256-GCM-SHA384"),
    SUITE_12(0xcca8, TLS_CHACHA20_POLY1305, 32, "ECDHE-RSA-CHACHA20-POLY1305"),
    SUITE_12(0xcca9, TLS_CHACHA20_POLY1305, 32, "ECDHE-ECDSA-CHACHA20-POLY1305"),
    SUITE_12(0x009c, TLS_AES_128_GCM, 16, "AES128-GCM-SHA256"),
    SUITE_12(0x009d, TLS_AES_256_GCM, 32, "AES256-GCM-SHA384"),
    SUITE_12(0x009e, TLS_AES_128_GCM, 16, "DHE-RSA-AES128-GCM-SHA256"),
    SUITE_12(0x009f, TLS_AES_256_GCM, 32, "DHE-RSA-AES256-GCM-SHA384"),
    SUITE_12(0xccaa, TLS_CHACHA20_POLY1305, 32, "DHE-RSA-CHACHA20-POLY1305"),
};

const struct tls_suite *tls__suite_find(unsigned version, unsigned id)
{
    for (size_t i = 0; i < sizeof suites / sizeof suites[0]; i++)
        if (suites[i].version == version && suites[i].id == id)
            return &suites[i];
    return NULL;
}

static bool is_13(const struct tls_record *r)
{
    return r->suite->version == TLS1_3_VERSION;
}

/* In TLS 1.2 part of the nonce is sent with each record (RFC 5288 section 3). */
bool tls__record_has_explicit_nonce(const struct tls_record *r)
{
    return !is_13(r) && r->suite->aead != TLS_CHACHA20_POLY1305;
}

/* ---- contexts of ciphers */

static bool hmac_init(struct tls_aead *a)
{
    static const char *const digests[] = {"SHA256", "SHA384"};
    EVP_MAC *mac = EVP_MAC_fetch(NULL, OSSL_MAC_NAME_HMAC, NULL);
    bool ok = mac != NULL;
    for (unsigned i = 0; ok && i < 2; i++) {
        const OSSL_PARAM params[] = {
            OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)digests[i], 0),
            OSSL_PARAM_construct_end(),
        };
        a->hmac[i] = EVP_MAC_CTX_new(mac);
        ok = a->hmac[i] != NULL && EVP_MAC_CTX_set_params(a->hmac[i], params) == 1;
    }
    EVP_MAC_free(mac);
    return ok;
}

bool tls__aead_init(struct tls_aead *a)
{
    static const char *const names[] = {"AES-128-GCM", "AES-256-GCM", "ChaCha20-Poly1305"};
    for (unsigned i = 0; i < TLS_AEADS; i++) {
        EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, names[i], NULL);
        bool ok = cipher != NULL;
        for (int way = READ; ok && way <= WRITE; way++) {
            a->ctx[i][way] = EVP_CIPHER_CTX_new();
            ok = a->ctx[i][way] != NULL &&
                 EVP_CipherInit_ex2(a->ctx[i][way], cipher, NULL, NULL, way == WRITE, NULL) == 1;
        }
        EVP_CIPHER_free(cipher);
        if (!ok)
            return false;
    }
    return hmac_init(a);
}

void tls__aead_fini(struct tls_aead *a)
{
    for (unsigned i = 0; i < TLS_AEADS; i++)
        for (int way = READ; way <= WRITE; way++)
            EVP_CIPHER_CTX_free(a->ctx[i][way]); /* wipes */
    EVP_MAC_CTX_free(a->hmac[0]);
    EVP_MAC_CTX_free(a->hmac[1]);
    *a = (struct tls_aead){0};
}

/* The context with the keys of that connection and the nonce of that record. */
static EVP_CIPHER_CTX *start_cipher(struct tls_aead *a, unsigned aead, int way, const struct tls_keys *keys,
                                    const uint8_t *nonce)
{
    EVP_CIPHER_CTX *c = a->ctx[aead][way];
    bool is_set = a->keyed[aead][way] == keys;
    a->keyed[aead][way] = NULL;
    if (EVP_CipherInit_ex2(c, NULL, is_set ? NULL : keys->key, nonce, way == WRITE, NULL) != 1)
        return NULL;
    a->keyed[aead][way] = keys;
    return c;
}

/* Before keys change or go. */
static void forget_keys(struct tls_aead *a, const struct tls_suite *suite, int way,
                        const struct tls_keys *keys)
{
    static const uint8_t zeros[TLS_KEY_MAX];
    if (suite == NULL || a->keyed[suite->aead][way] != keys)
        return;
    a->keyed[suite->aead][way] = NULL;
    (void)EVP_CipherInit_ex2(a->ctx[suite->aead][way], NULL, zeros, NULL, way == WRITE, NULL);
}

void tls__record_wipe(struct tls_record *r, struct tls_aead *a)
{
    forget_keys(a, r->suite, READ, &r->read);
    forget_keys(a, r->suite, WRITE, &r->write);
    OPENSSL_cleanse(r, sizeof *r);
}

/* ---- keys */

static EVP_MAC_CTX *hmac_of(const struct tls_suite *suite, struct tls_aead *a)
{
    return a->hmac[suite->secret_len == 48];
}

static bool start_hmac(const struct tls_suite *suite, struct tls_aead *a, const uint8_t *secret)
{
    return EVP_MAC_init(hmac_of(suite, a), secret, suite->secret_len, NULL) == 1;
}

static void forget_hmac(const struct tls_suite *suite, struct tls_aead *a)
{
    static const uint8_t zeros[TLS_SECRET_MAX];
    (void)start_hmac(suite, a, zeros);
}

/* HKDF-Expand-Label (RFC 8446 section 7.1) of no more than one block of the hash, which is one HMAC: T(1) of
 * RFC 5869 section 2.3. With the secret of start_hmac. */
static bool expand_label(const struct tls_suite *suite, struct tls_aead *a, const char *label, uint8_t *ret,
                         size_t len)
{
    uint8_t info[32], block[EVP_MAX_MD_SIZE];
    size_t n = 0, label_len = strlen(label), block_len;
    ASSERT(label_len + 12 <= sizeof info && len <= suite->secret_len);
    info[n++] = 0;
    info[n++] = (uint8_t)len;
    info[n++] = (uint8_t)(6 + label_len);
    memcpy(info + n, "tls13 ", 6);
    memcpy(info + n + 6, label, label_len);
    n += 6 + label_len;
    info[n++] = 0; /* the context is empty */
    info[n++] = 1; /* T(1) */
    EVP_MAC_CTX *mac = hmac_of(suite, a);
    bool ok = EVP_MAC_init(mac, NULL, 0, NULL) == 1 && EVP_MAC_update(mac, info, n) == 1 &&
              EVP_MAC_final(mac, block, &block_len, sizeof block) == 1;
    if (ok)
        memcpy(ret, block, len);
    OPENSSL_cleanse(block, sizeof block);
    return ok;
}

/* RFC 8446 section 7.3; every key begins with record 0 (section 5.3). */
static bool derive_keys(const struct tls_suite *suite, struct tls_aead *a, struct tls_keys *k)
{
    return start_hmac(suite, a, k->secret) && expand_label(suite, a, "key", k->key, suite->key_len) &&
           expand_label(suite, a, "iv", k->iv, sizeof k->iv);
}

bool tls__record_derive(struct tls_record *r, struct tls_aead *a)
{
    bool ok = derive_keys(r->suite, a, &r->read) && derive_keys(r->suite, a, &r->write);
    forget_hmac(r->suite, a);
    return ok;
}

/* RFC 8446 section 7.2. */
static bool next_keys(struct tls_record *r, struct tls_aead *a, int way, struct tls_keys *k)
{
    uint8_t next[TLS_SECRET_MAX];
    bool ok = start_hmac(r->suite, a, k->secret) &&
              expand_label(r->suite, a, "traffic upd", next, r->suite->secret_len);
    if (ok) {
        forget_keys(a, r->suite, way, k);
        memcpy(k->secret, next, r->suite->secret_len);
        k->seq = 0;
        ok = derive_keys(r->suite, a, k);
    }
    forget_hmac(r->suite, a);
    OPENSSL_cleanse(next, sizeof next);
    return ok;
}

/* RFC 5246 section 6.3: key_block = PRF(master_secret, "key expansion", server_random + client_random). */
static bool expand_master(SSL *ssl, const char *digest, uint8_t *ret, size_t len)
{
    uint8_t master[SSL_MAX_MASTER_KEY_LENGTH], seed[13 + 2 * SSL3_RANDOM_SIZE] = "key expansion";
    size_t master_len = SSL_SESSION_get_master_key(SSL_get0_session(ssl), master, sizeof master);
    size_t got = SSL_get_server_random(ssl, seed + 13, SSL3_RANDOM_SIZE);
    got += SSL_get_client_random(ssl, seed + 13 + SSL3_RANDOM_SIZE, SSL3_RANDOM_SIZE);
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SECRET, master, master_len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SEED, seed, sizeof seed),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_TLS1_PRF, NULL);
    EVP_KDF_CTX *ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
    bool ok = ctx != NULL && got == 2 * (size_t)SSL3_RANDOM_SIZE && master_len > 0 &&
              EVP_KDF_derive(ctx, ret, len, params) == 1;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    OPENSSL_cleanse(master, sizeof master);
    return ok;
}

/* The block is cut into the client's key, ours, the client's IV, ours; with AEAD there are no keys of a MAC.
 * GCM has 4 bytes of IV ("salt", RFC 5288 section 3), ChaCha20 all 12 (RFC 7905 section 2). */
bool tls__record_derive_12(struct tls_record *r, SSL *ssl)
{
    uint8_t block[2 * (TLS_KEY_MAX + TLS_NONCE_BYTES)];
    size_t key = r->suite->key_len, iv = tls__record_has_explicit_nonce(r) ? 4 : TLS_NONCE_BYTES;
    const EVP_MD *md = SSL_CIPHER_get_handshake_digest(SSL_get_current_cipher(ssl));
    bool ok = md != NULL && expand_master(ssl, EVP_MD_get0_name(md), block, 2 * (key + iv));
    if (ok) {
        memcpy(r->read.key, block, key);
        memcpy(r->write.key, block + key, key);
        memcpy(r->read.iv, block + 2 * key, iv);
        memcpy(r->write.iv, block + 2 * key + iv, iv);
    }
    OPENSSL_cleanse(block, sizeof block);
    return ok;
}

/* ---- nonces and additional data */

static void put_u64(uint8_t *p, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (56 - 8 * i));
}

/* explicit: as it stands in the record, or NULL. Else RFC 8446 section 5.3, RFC 7905 section 2: the IV with
 * the number of the record. */
static void make_nonce(const struct tls_keys *k, const uint8_t *explicit_part, uint8_t *nonce)
{
    memcpy(nonce, k->iv, TLS_NONCE_BYTES);
    if (explicit_part != NULL) {
        memcpy(nonce + 4, explicit_part, 8);
        return;
    }
    uint8_t seq[8];
    put_u64(seq, k->seq);
    for (unsigned i = 0; i < 8; i++)
        nonce[4 + i] ^= seq[i];
}

/* TLS 1.3: the header as it is sent (RFC 8446 section 5.2); TLS 1.2: number, type, version, and the length of
 * the plaintext (RFC 5246 section 6.2.3.3). Bytes. */
#define AAD_MAX 13
static int make_aad(const struct tls_record *r, const struct tls_keys *k, const uint8_t *header, size_t plain,
                    uint8_t *aad)
{
    if (is_13(r)) {
        memcpy(aad, header, TLS_RECORD_HEADER);
        return TLS_RECORD_HEADER;
    }
    put_u64(aad, k->seq);
    memcpy(aad + 8, header, 3);
    aad[11] = (uint8_t)(plain >> 8);
    aad[12] = (uint8_t)plain;
    return AAD_MAX;
}

/* ---- reading */

static struct tls_input error_input(int alert, const char *text)
{
    return (struct tls_input){.event = TLS_EVENT_ERROR, .alert = alert, .text = text};
}

/* A record that is not data. */
static struct tls_input idle_input(struct tls_record *r, const char *too_many)
{
    if (++r->idle > IDLE_MAX)
        return error_input(SSL_AD_UNEXPECTED_MESSAGE, too_many);
    return (struct tls_input){.event = TLS_EVENT_NONE};
}

/* The record's header was found good. Bytes of plaintext; -1: it is not the peer's record of that number. */
static int open_record(struct tls_record *r, struct tls_aead *a, const uint8_t *record, size_t len,
                       uint8_t *plain)
{
    struct tls_keys *k = &r->read;
    const uint8_t *explicit_part = tls__record_has_explicit_nonce(r) ? record + TLS_RECORD_HEADER : NULL;
    const uint8_t *text = record + TLS_RECORD_HEADER + (explicit_part != NULL ? 8 : 0);
    if (len < (size_t)(text - record) + TLS_TAG_BYTES)
        return -1;
    int n = (int)(len - (size_t)(text - record)) - TLS_TAG_BYTES, out = 0, end = 0;
    uint8_t nonce[TLS_NONCE_BYTES], aad[AAD_MAX];
    make_nonce(k, explicit_part, nonce);
    int aad_len = make_aad(r, k, record, (size_t)n, aad);
    EVP_CIPHER_CTX *c = start_cipher(a, r->suite->aead, READ, k, nonce);
    if (c == NULL || EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, TLS_TAG_BYTES, (void *)(text + n)) != 1 ||
        EVP_DecryptUpdate(c, NULL, &end, aad, aad_len) != 1 ||
        (n > 0 && EVP_DecryptUpdate(c, plain, &out, text, n) != 1) ||
        EVP_DecryptFinal_ex(c, plain + n, &end) != 1) /* compares the tag, in constant time */
        return -1;
    k->seq++;
    return n;
}

/* RFC 8446 section 6: all but these two end the connection, whatever level they claim; RFC 5246 section 7.2.
 */
static struct tls_input read_alert(struct tls_record *r, const uint8_t *p, size_t n)
{
    if (n != 2)
        return error_input(SSL_AD_UNEXPECTED_MESSAGE, "invalid alert");
    if (p[1] == SSL_AD_CLOSE_NOTIFY)
        return (struct tls_input){.event = TLS_EVENT_CLOSED};
    if (is_13(r) ? p[1] == SSL_AD_USER_CANCELLED : p[0] == SSL3_AL_WARNING)
        return idle_input(r, "too many warn alerts");
    if (!is_13(r) && p[0] != SSL3_AL_FATAL)
        return error_input(SSL_AD_ILLEGAL_PARAMETER, "unknown alert type");
    const char *text = ERR_reason_error_string(ERR_PACK(ERR_LIB_SSL, 0, SSL_AD_REASON_OFFSET + p[1]));
    return error_input(-1, text != NULL ? text : "an alert of the peer");
}

/* RFC 8446 section 4.6.3. It stands at the end of its record, since the next one has other keys (section
 * 5.1). */
static struct tls_input read_key_update(struct tls_record *r, struct tls_aead *a, const uint8_t *p, size_t n)
{
    size_t room = sizeof r->message - r->message_len, take = n < room ? n : room;
    memcpy(r->message + r->message_len, p, take);
    r->message_len += (uint8_t)take;
    const uint8_t *m = r->message;
    if (m[0] != SSL3_MT_KEY_UPDATE) /* a client has nothing else to say after its Finished */
        return error_input(SSL_AD_UNEXPECTED_MESSAGE, "unexpected message");
    if (r->message_len >= 4 && (m[1] != 0 || m[2] != 0 || m[3] != 1))
        return error_input(SSL_AD_DECODE_ERROR, "bad key update");
    if (r->message_len == sizeof r->message) {
        if (take < n)
            return error_input(SSL_AD_UNEXPECTED_MESSAGE, "not on record boundary");
        if (m[4] > SSL_KEY_UPDATE_REQUESTED)
            return error_input(SSL_AD_ILLEGAL_PARAMETER, "bad key update");
        r->owes_update = r->owes_update || m[4] == SSL_KEY_UPDATE_REQUESTED;
        r->message_len = 0;
        if (!next_keys(r, a, READ, &r->read))
            return error_input(SSL_AD_INTERNAL_ERROR, "no memory");
    }
    return idle_input(r, "too many key updates");
}

/* A ClientHello is skipped, and answered by a warning (RFC 5246 section 7.2.2), as OpenSSL does with
 * SSL_OP_NO_RENEGOTIATION. */
static struct tls_input read_hello(struct tls_record *r, const uint8_t *p, size_t n)
{
    while (n > 0) {
        if (r->message_len < 4) {
            r->message[r->message_len++] = *p++;
            n--;
            if (r->message_len < 4)
                continue;
            r->message_left = (uint32_t)r->message[1] << 16 | r->message[2] << 8 | r->message[3];
            if (r->message[0] != SSL3_MT_CLIENT_HELLO)
                return error_input(SSL_AD_UNEXPECTED_MESSAGE, "unexpected message");
            if (r->message_left > HELLO_MAX)
                return error_input(SSL_AD_ILLEGAL_PARAMETER, "excessive message size");
        }
        size_t skip = n < r->message_left ? n : r->message_left;
        p += skip;
        n -= skip;
        r->message_left -= (uint32_t)skip;
        if (r->message_left > 0)
            break;
        r->message_len = 0;
        r->owes_warning = true;
    }
    return idle_input(r, "too many renegotiations");
}

static struct tls_input read_content(struct tls_record *r, struct tls_aead *a, int type, const uint8_t *p,
                                     size_t n)
{
    if (n > r->fragment_max)
        return error_input(SSL_AD_RECORD_OVERFLOW, "data length too long");
    if (type == SSL3_RT_APPLICATION_DATA && n == 0)
        return idle_input(r, "too many empty records");
    if (n == 0)
        return error_input(SSL_AD_UNEXPECTED_MESSAGE, "bad length"); /* RFC 8446 section 5.1 */
    if (is_13(r) && r->message_len > 0 && type != SSL3_RT_HANDSHAKE)
        return error_input(SSL_AD_UNEXPECTED_MESSAGE, "mixed handshake and non handshake data");
    switch (type) {
    case SSL3_RT_APPLICATION_DATA: r->idle = 0; return (struct tls_input){.event = TLS_EVENT_DATA, .len = n};
    case SSL3_RT_ALERT: return read_alert(r, p, n);
    case SSL3_RT_HANDSHAKE: return is_13(r) ? read_key_update(r, a, p, n) : read_hello(r, p, n);
    default: return error_input(SSL_AD_UNEXPECTED_MESSAGE, "unexpected record");
    }
}

struct tls_input tls__record_read(struct tls_record *r, struct tls_aead *a, const uint8_t *record, size_t len,
                                  uint8_t *plain)
{
    ASSERT(len >= TLS_RECORD_HEADER);
    int type = record[0];
    if (is_13(r) && type != SSL3_RT_APPLICATION_DATA) /* all is disguised as that (RFC 8446 section 5.2) */
        return error_input(SSL_AD_UNEXPECTED_MESSAGE, "bad record type");
    if (!is_13(r) && record[2] != 3)
        return error_input(SSL_AD_PROTOCOL_VERSION, "wrong version number");
    if (len - TLS_RECORD_HEADER > (is_13(r) ? CONTENT_MAX_13 : CONTENT_MAX_12))
        return error_input(SSL_AD_RECORD_OVERFLOW, "encrypted length too long");
    if (r->read.seq == UINT64_MAX) /* RFC 8446 section 5.3: never wraps */
        return error_input(SSL_AD_INTERNAL_ERROR, "too many records");
    int n = open_record(r, a, record, len, plain);
    if (n < 0)
        return error_input(SSL_AD_BAD_RECORD_MAC, "decryption failed or bad record mac");
    if (is_13(r)) { /* padding, and before it the type (RFC 8446 section 5.4) */
        while (n > 0 && plain[n - 1] == 0)
            n--;
        if (n == 0)
            return error_input(SSL_AD_UNEXPECTED_MESSAGE, "bad record type");
        type = plain[--n];
    }
    return read_content(r, a, type, plain, (size_t)n);
}

struct tls_input tls__record_refuse(const struct tls_record *r, const uint8_t *data, size_t len)
{
    bool is_type = len > 0 && data[0] >= SSL3_RT_CHANGE_CIPHER_SPEC && data[0] <= SSL3_RT_APPLICATION_DATA;
    if (!is_type || (is_13(r) && data[0] != SSL3_RT_APPLICATION_DATA))
        return error_input(SSL_AD_UNEXPECTED_MESSAGE, "bad record type");
    if (len < TLS_RECORD_HEADER || data[1] != 3)
        return error_input(SSL_AD_PROTOCOL_VERSION, "wrong version number");
    if ((data[3] << 8 | data[4]) > CONTENT_MAX_12)
        return error_input(SSL_AD_RECORD_OVERFLOW, "packet length too long");
    return error_input(SSL_AD_RECORD_OVERFLOW, "encrypted length too long");
}

/* ---- writing */

/* In TLS 1.3 the type is the last byte of what is encrypted. */
static bool seal(struct tls_record *r, struct tls_aead *a, uint8_t inner, const void *data, int len,
                 const uint8_t *aad, int aad_len, const uint8_t *nonce, uint8_t *out)
{
    int n, at = 0;
    EVP_CIPHER_CTX *c = start_cipher(a, r->suite->aead, WRITE, &r->write, nonce);
    if (c == NULL || EVP_EncryptUpdate(c, NULL, &n, aad, aad_len) != 1)
        return false;
    if (len > 0 && EVP_EncryptUpdate(c, out, &at, data, len) != 1)
        return false;
    if (is_13(r)) {
        if (EVP_EncryptUpdate(c, out + at, &n, &inner, 1) != 1)
            return false;
        at += n;
    }
    return EVP_EncryptFinal_ex(c, out + at, &n) == 1 &&
           EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, TLS_TAG_BYTES, out + at) == 1;
}

static size_t write_one(struct tls_record *r, struct tls_aead *a, int type, const void *data, size_t len,
                        uint8_t *out)
{
    struct tls_keys *k = &r->write;
    uint8_t nonce[TLS_NONCE_BYTES], aad[AAD_MAX];
    size_t explicit_len = tls__record_has_explicit_nonce(r) ? 8 : 0;
    size_t content = explicit_len + len + (is_13(r) ? 1 : 0) + TLS_TAG_BYTES;
    if (k->seq == UINT64_MAX)
        return 0;
    out[0] = (uint8_t)(is_13(r) ? SSL3_RT_APPLICATION_DATA : type);
    out[1] = out[2] = 3;
    out[3] = (uint8_t)(content >> 8);
    out[4] = (uint8_t)content;
    uint8_t *explicit_part = explicit_len > 0 ? out + TLS_RECORD_HEADER : NULL;
    if (explicit_part != NULL)
        put_u64(explicit_part, r->nonce_base + k->seq); /* goes on where OpenSSL was: none comes twice */
    make_nonce(k, explicit_part, nonce);
    int aad_len = make_aad(r, k, out, len, aad);
    if (!seal(r, a, (uint8_t)type, data, (int)len, aad, aad_len, nonce,
              out + TLS_RECORD_HEADER + explicit_len))
        return 0;
    k->seq++;
    return TLS_RECORD_HEADER + content;
}

size_t tls__record_write(struct tls_record *r, struct tls_aead *a, int type, const void *data, size_t len,
                         uint8_t *out)
{
    const uint8_t *p = data;
    size_t made = 0;
    ASSERT(len > 0 && len <= TLS_RECORD_MAX);
    while (len > 0) {
        size_t n = len < r->fragment_max ? len : r->fragment_max;
        size_t one = write_one(r, a, type, p, n, out + made);
        if (one == 0)
            return 0;
        made += one;
        p += n;
        len -= n;
    }
    return made;
}

size_t tls__record_alert(struct tls_record *r, struct tls_aead *a, int level, int alert, uint8_t *out)
{
    const uint8_t message[2] = {(uint8_t)level, (uint8_t)alert};
    return tls__record_write(r, a, SSL3_RT_ALERT, message, sizeof message, out);
}

size_t tls__record_update(struct tls_record *r, struct tls_aead *a, bool request, uint8_t *out)
{
    const uint8_t message[5] = {SSL3_MT_KEY_UPDATE, 0, 0, 1, request};
    size_t n = tls__record_write(r, a, SSL3_RT_HANDSHAKE, message, sizeof message, out);
    if (n > 0 && !next_keys(r, a, WRITE, &r->write)) {
        r->write.seq = UINT64_MAX; /* the peer could not read what follows */
        n = 0;
    }
    return n;
}

/* Several requests while we could not send are answered by one (RFC 8446 section 4.6.3). */
size_t tls__record_pay(struct tls_record *r, struct tls_aead *a, uint8_t *out)
{
    size_t n = 0;
    if (r->owes_update || (is_13(r) && r->write.seq >= KEY_RECORDS_MAX))
        n = tls__record_update(r, a, false, out);
    else if (r->owes_warning)
        n = tls__record_alert(r, a, SSL3_AL_WARNING, SSL_AD_NO_RENEGOTIATION, out);
    r->owes_update = r->owes_warning = false;
    return n;
}
