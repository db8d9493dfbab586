// SPDX-License-Identifier: MIT
/* What tls_conn costs, against OpenSSL alone: records of 64 bytes, one at a time, the server's side only,
 * against SSL_read and SSL_write over memory BIOs. Nanoseconds per record; then many connections in turn, so
 * that none finds its keys in the shared contexts of ciphers or in the cache. */
#include "tls/tls_util_test.h"

#include <malloc.h>
#include <time.h>

enum { MESSAGE = 64, RECORDS = 2000, ROUNDS = 50 };
enum { MANY = 1000, MANY_RECORDS = 20 };

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* RECORDS records of the client's; the length of each is the same. */
static uint8_t *make_records(struct client *c, size_t *ret_len)
{
    uint8_t message[MESSAGE] = {0};
    for (unsigned i = 0; i < RECORDS; i++)
        client_write(c, message, MESSAGE);
    struct slice d = client_out(c);
    uint8_t *copy = malloc(d.len);
    memcpy(copy, d.data, d.len);
    *ret_len = d.len / RECORDS;
    BIO_reset(c->out);
    return copy;
}

static bool bench_only; /* after the handshake: nobody looks at what comes out */

static ssize_t bench_send(void *owner, const void *data, size_t len)
{
    return bench_only ? (ssize_t)len : server_send(owner, data, len);
}
static bool bench_plain(void *owner, uint8_t *data, size_t len)
{
    return true;
}
static const struct tls_conn_ops bench_ops = {bench_send, bench_plain};

struct cost {
    uint64_t read_ns, write_ns;
};

static struct cost bench_conn(struct tls_context *ctx, int version)
{
    struct server s;
    struct client c;
    struct cost best = {UINT64_MAX, UINT64_MAX};
    uint8_t message[MESSAGE] = {0};
    s = (struct server){.room = SIZE_MAX};
    s.t = tls_conn_new(ctx, &bench_ops, &s);
    client_init(&c, (struct client_options){.version = version});
    bench_only = false;
    if (!shake_hands(&c, &s))
        abort();
    bench_only = true;
    for (unsigned r = 0; r < ROUNDS; r++) {
        size_t len;
        uint8_t *records = make_records(&c, &len);
        uint64_t t0 = now_ns();
        for (unsigned i = 0; i < RECORDS; i++)
            (void)tls_conn_feed(s.t, records + i * len, len);
        uint64_t t1 = now_ns();
        for (unsigned i = 0; i < RECORDS; i++)
            (void)tls_conn_write(s.t, message, MESSAGE);
        uint64_t t2 = now_ns();
        best.read_ns = t1 - t0 < best.read_ns ? t1 - t0 : best.read_ns;
        best.write_ns = t2 - t1 < best.write_ns ? t2 - t1 : best.write_ns;
        free(records);
        bytes_clear(&s.plain);
        bytes_clear(&s.sent);
    }
    server_fini(&s);
    client_fini(&c);
    return best;
}

static struct cost bench_openssl(int version, bool release)
{
    struct identity id = make_identity((struct identity_options){.cn = "a"});
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(ctx, id.cert);
    SSL_CTX_use_PrivateKey(ctx, id.key);
    if (release)
        SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL *ssl = SSL_new(ctx);
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    BIO_set_mem_eof_return(in, -1);
    SSL_set_bio(ssl, in, out);
    SSL_set_accept_state(ssl);
    struct client c;
    struct cost best = {UINT64_MAX, UINT64_MAX};
    uint8_t message[MESSAGE] = {0};
    static uint8_t buf[16384];
    client_init(&c, (struct client_options){.version = version});
    for (unsigned i = 0; i < 4; i++) {
        (void)SSL_do_handshake(c.ssl);
        struct slice d = client_out(&c);
        BIO_write(in, d.data, (int)d.len);
        BIO_reset(c.out);
        (void)SSL_do_handshake(ssl);
        char *data;
        long len = BIO_get_mem_data(out, &data);
        BIO_write(c.in, data, (int)len);
        BIO_reset(out);
    }
    for (unsigned r = 0; r < ROUNDS; r++) {
        size_t len;
        uint8_t *records = make_records(&c, &len);
        uint64_t t0 = now_ns();
        for (unsigned i = 0; i < RECORDS; i++) {
            BIO_write(in, records + i * len, (int)len);
            ERR_clear_error();
            while (SSL_read(ssl, buf, sizeof buf) > 0)
                continue;
        }
        uint64_t t1 = now_ns();
        for (unsigned i = 0; i < RECORDS; i++) {
            ERR_clear_error();
            (void)SSL_write(ssl, message, MESSAGE);
            BIO_reset(out);
        }
        uint64_t t2 = now_ns();
        best.read_ns = t1 - t0 < best.read_ns ? t1 - t0 : best.read_ns;
        best.write_ns = t2 - t1 < best.write_ns ? t2 - t1 : best.write_ns;
        free(records);
    }
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    client_fini(&c);
    free_identity(&id);
    return best;
}

static void print(const char *what, struct cost c)
{
    printf("%-34s read %5lu ns, write %5lu ns\n", what, (unsigned long)(c.read_ns / RECORDS),
           (unsigned long)(c.write_ns / RECORDS));
}

struct many {
    struct server s;
    struct client c;
    uint8_t *records;
    size_t len; /* of each */
};

/* Server's part of a handshake, best of all. */
static uint64_t timed_handshake(struct many *m)
{
    uint64_t ns = 0;
    for (unsigned i = 0; i < 4 && !tls_conn_is_open(m->s.t); i++) {
        (void)SSL_do_handshake(m->c.ssl);
        struct slice d = client_out(&m->c);
        uint64_t t0 = now_ns();
        (void)tls_conn_feed(m->s.t, d.data, d.len);
        ns += now_ns() - t0;
        BIO_reset(m->c.out);
        to_client(&m->s, &m->c);
    }
    (void)SSL_do_handshake(m->c.ssl);
    return ns;
}

static void start_many(struct many *m, struct tls_context *ctx, struct client_options o, uint64_t *best)
{
    uint8_t message[MESSAGE] = {0};
    m->s = (struct server){.room = SIZE_MAX};
    m->s.t = tls_conn_new(ctx, &bench_ops, &m->s);
    client_init(&m->c, o);
    uint64_t ns = timed_handshake(m);
    *best = ns < *best ? ns : *best;
    for (unsigned r = 0; r < MANY_RECORDS; r++)
        client_write(&m->c, message, MESSAGE);
    struct slice d = client_out(&m->c);
    m->records = malloc(d.len);
    memcpy(m->records, d.data, d.len);
    m->len = d.len / MANY_RECORDS;
    client_fini(&m->c); /* else its memory would be in the way */
    bytes_fini(&m->s.sent);
}

static void bench_many(struct tls_context *ctx, struct client_options o, const char *what)
{
    static struct many many[MANY];
    uint8_t message[MESSAGE] = {0};
    uint64_t handshake = UINT64_MAX, echo = UINT64_MAX;
    bench_only = false;
    for (unsigned i = 0; i < MANY; i++)
        start_many(&many[i], ctx, o, &handshake);
    bench_only = true;
    for (unsigned r = 0; r < MANY_RECORDS; r++) {
        uint64_t t0 = now_ns();
        for (unsigned i = 0; i < MANY; i++) {
            struct many *m = &many[i];
            if (tls_conn_feed(m->s.t, m->records + r * m->len, m->len) != TLS_OK ||
                tls_conn_write(m->s.t, message, MESSAGE) != MESSAGE)
                abort();
        }
        uint64_t ns = now_ns() - t0;
        echo = ns < echo ? ns : echo;
    }
    size_t before = mallinfo2().uordblks;
    uint64_t t0 = now_ns();
    for (unsigned i = 0; i < MANY; i++)
        tls_conn_free(many[i].s.t);
    uint64_t end = now_ns() - t0;
    printf("%-34s handshake %4lu us, end %5lu ns, echo %5lu ns, %5zu bytes a connection\n", what,
           (unsigned long)(handshake / 1000), (unsigned long)(end / MANY), (unsigned long)(echo / MANY),
           (before - mallinfo2().uordblks) / MANY);
    for (unsigned i = 0; i < MANY; i++)
        free(many[i].records);
}

int main(void)
{
    if (make_util_dir(NULL) != 0)
        return 1;
    struct identity id = make_identity((struct identity_options){.cn = "a"});
    write_pem("a.pem", id.cert, NULL, id.key);
    struct tls_context *ctx = need_context("tls_certificate = @/a.pem\n", NULL);
    for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++) {
        printf("TLS 1.%d, %d bytes\n", v - TLS1_VERSION, MESSAGE);
        print("  OpenSSL", bench_openssl(v, false));
        print("  OpenSSL, SSL_MODE_RELEASE_BUFFERS", bench_openssl(v, true));
        print("  tls_conn", bench_conn(ctx, v));
    }
    printf("%d connections in turn, %d bytes\n", MANY, MESSAGE);
    bench_many(ctx, (struct client_options){.version = TLS1_2_VERSION}, "  TLS 1.2");
    bench_many(ctx, (struct client_options){.version = TLS1_3_VERSION}, "  TLS 1.3");
    tls_context_free(ctx);
    free_identity(&id);
    return remove_util_dir(NULL);
}
