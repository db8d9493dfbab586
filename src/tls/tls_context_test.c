// SPDX-License-Identifier: MIT
#include "tls/tls_util_test.h"

#include "base/log.h"

static struct identity a, a_rsa, b, wild, nameless, ca, other_ca, client_of_ca, client_of_other;

static int make_all(void **state)
{
    assert_int_equal(make_util_dir(state), 0);
    a = make_identity((struct identity_options){.cn = "x", .san = "DNS:a.example,DNS:www.A.example"});
    a_rsa = make_identity((struct identity_options){.type = KEY_RSA, .san = "DNS:a.example"});
    b = make_identity((struct identity_options){.cn = "b.example"}); /* only a CN */
    wild = make_identity((struct identity_options){.san = "DNS:*.a.example,DNS:*.w.example,IP:1.2.3.4"});
    nameless = make_identity((struct identity_options){0});
    ca = make_identity((struct identity_options){.cn = "ca", .ca = true});
    other_ca = make_identity((struct identity_options){.cn = "other ca", .ca = true});
    client_of_ca = make_identity((struct identity_options){.cn = "al,ice", .issuer = &ca});
    client_of_other = make_identity((struct identity_options){.cn = "mallory", .issuer = &other_ca});
    write_pem("a.pem", a.cert, NULL, a.key);
    write_pem("a_only.pem", a.cert, NULL, NULL);
    write_pem("a.key", NULL, NULL, a.key);
    write_pem("a_rsa.pem", a_rsa.cert, NULL, a_rsa.key);
    write_pem("b.pem", b.cert, NULL, b.key);
    write_pem("wild.pem", wild.cert, NULL, wild.key);
    write_pem("nameless.pem", nameless.cert, NULL, nameless.key);
    write_pem("ca.pem", ca.cert, NULL, NULL);
    write_pem("cas.pem", ca.cert, other_ca.cert, NULL);
    return 0;
}

static int free_all(void **state)
{
    struct identity *all[] = {
        &a, &a_rsa, &b, &wild, &nameless, &ca, &other_ca, &client_of_ca, &client_of_other};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free_identity(all[i]);
    SSL_SESSION_free(util_session);
    return remove_util_dir(state);
}

/* ---- the certificate that a client gets */

static const struct identity *served(struct tls_context *ctx, struct client_options o)
{
    static const struct identity *const all[] = {&a, &a_rsa, &b, &wild, &nameless};
    struct server s;
    struct client c;
    const struct identity *found = NULL;
    server_init(&s, ctx);
    client_init(&c, o);
    if (shake_hands(&c, &s)) {
        X509 *got = SSL_get0_peer_certificate(c.ssl);
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            if (X509_cmp(got, all[i]->cert) == 0)
                found = all[i];
        echo_once(&c, &s);
    }
    server_fini(&s);
    client_fini(&c);
    return found;
}

static void certificates_by_name(void **state)
{
    static const struct {
        const char *name;
        const struct identity *expected;
    } cases[] = {
        {NULL, &nameless},         {"a.example", &a},
        {"A.Example", &a},         {"www.a.example", &a}, /* exact before wildcard */
        {"chat.a.example", &wild}, {"x.chat.a.example", &nameless},
        {"b.example", &b},         {"x.b.example", &nameless},
        {"x.w.example", &wild},    {"w.example", &nameless},
        {"unknown", &nameless},    {"example", &nameless},
    };
    struct tls_context *ctx =
        need_context("tls_certificate = @/nameless.pem, @/a.pem , @/wild.pem,@/b.pem\n", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++)
            assert_ptr_equal(served(ctx, (struct client_options){.server_name = cases[i].name, .version = v}),
                             cases[i].expected);
    tls_context_free(ctx);
}

static void two_key_types_for_a_name(void **state)
{
    struct tls_context *ctx = need_context("tls_certificate = @/b.pem, @/a_rsa.pem, @/a.pem\n", NULL);
    struct client_options rsa = {.server_name = "a.example", .sigalgs = "rsa_pss_rsae_sha256:RSA+SHA256"};
    struct client_options ec = {.server_name = "a.example", .sigalgs = "ECDSA+SHA256"};
    for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++) {
        rsa.version = ec.version = v;
        assert_ptr_equal(served(ctx, rsa), &a_rsa);
        assert_ptr_equal(served(ctx, ec), &a);
        ec.server_name = "www.a.example"; /* only one of them has it */
        assert_ptr_equal(served(ctx, ec), &a);
        rsa.server_name = "www.a.example";
        assert_null(served(ctx, rsa));
        rsa.server_name = ec.server_name = "a.example";
    }
    tls_context_free(ctx);
    ctx = need_context("tls_certificate = @/a_rsa.pem, @/a.pem\n", NULL); /* without SNI too */
    rsa.server_name = ec.server_name = NULL;
    assert_ptr_equal(served(ctx, rsa), &a_rsa);
    assert_ptr_equal(served(ctx, ec), &a);
    tls_context_free(ctx);
}

static void the_first_of_a_name_and_type_wins(void **state)
{
    struct identity twin = make_identity((struct identity_options){.san = "DNS:a.example"});
    write_pem("twin.pem", twin.cert, NULL, twin.key);
    struct tls_context *ctx = need_context("tls_certificate = @/a.pem, @/twin.pem\n", NULL);
    assert_ptr_equal(served(ctx, (struct client_options){.server_name = "a.example"}), &a);
    tls_context_free(ctx);
    free_identity(&twin);
}

static void keys_in_files_of_their_own(void **state)
{
    write_pem("b.key", NULL, NULL, b.key);
    write_pem("b_only.pem", b.cert, NULL, NULL);
    struct tls_context *ctx =
        need_context("tls_certificate = @/a_only.pem, @/b_only.pem\ntls_key = @/a.key, @/b.key\n", NULL);
    assert_ptr_equal(served(ctx, (struct client_options){.server_name = "b.example"}), &b);
    tls_context_free(ctx);
}

static void the_chain_is_sent(void **state)
{
    struct identity leaf = make_identity((struct identity_options){.cn = "leaf", .issuer = &ca});
    write_pem("leaf.pem", leaf.cert, ca.cert, leaf.key);
    struct tls_context *ctx = need_context("tls_certificate = @/leaf.pem\n", NULL);
    struct server s;
    struct client c;
    server_init(&s, ctx);
    client_init(&c, (struct client_options){0});
    assert_true(shake_hands(&c, &s));
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(c.ssl);
    assert_int_equal(sk_X509_num(chain), 2);
    assert_int_equal(X509_cmp(sk_X509_value(chain, 1), ca.cert), 0);
    server_fini(&s);
    client_fini(&c);
    tls_context_free(ctx);
    free_identity(&leaf);
}

static void many_names(void **state)
{
    struct bytes lines = {0};
    bytes_append_str(&lines, "tls_certificate = ");
    for (unsigned i = 0; i < 40; i++) {
        char name[32], san[64];
        snprintf(name, sizeof name, "many%u.pem", i);
        snprintf(san, sizeof san, "DNS:n%u.example,DNS:*.n%u.example", i, i);
        struct identity id = make_identity((struct identity_options){.san = san});
        write_pem(name, id.cert, NULL, id.key);
        free_identity(&id);
        bytes_printf(&lines, "@/%s,", name);
    }
    bytes_append(&lines, "\n", 2);
    struct tls_context *ctx = need_context((const char *)lines.data, NULL);
    for (unsigned i = 0; i < 40; i += 13) {
        char name[32];
        struct server s;
        struct client c;
        snprintf(name, sizeof name, "x.n%u.example", i);
        server_init(&s, ctx);
        client_init(&c, (struct client_options){.server_name = name});
        assert_true(shake_hands(&c, &s));
        assert_int_equal(X509_check_host(SSL_get0_peer_certificate(c.ssl), name, 0, 0, NULL), 1);
        server_fini(&s);
        client_fini(&c);
    }
    tls_context_free(ctx);
    bytes_fini(&lines);
}

/* ---- what is wrong with a configuration */

static void expect_problem(const char *lines, unsigned line, const char *key, const char *text)
{
    struct tls_context *ctx = make_context(lines, NULL);
    assert_null(ctx);
    assert_true(util_error.n >= 1);
    const struct config_problem *p = &util_error.list[0];
    if (strstr(p->text, text) == NULL || p->line != line || strcmp(p->key, key) != 0)
        config_error_print(stderr, &util_error);
    assert_int_equal(p->line, line);
    assert_string_equal(p->section, "listen a");
    assert_string_equal(p->key, key);
    assert_non_null(strstr(p->text, text));
    assert_int_equal(ERR_peek_error(), 0);
}

static void problems_are_told(void **state)
{
    write_text("empty.pem", "");
    write_text("text.pem", "no PEM here\n");
    write_text("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    write_text("broken.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    FILE *f = open_file("encrypted.key");
    PEM_write_PrivateKey(f, a.key, EVP_aes_128_cbc(), (const unsigned char *)"secret", 6, NULL, NULL);
    fclose(f);
    struct identity weak = make_identity((struct identity_options){.type = KEY_RSA_1024, .cn = "weak"});
    write_pem("weak.pem", weak.cert, NULL, weak.key);
    free_identity(&weak);

    expect_problem("tls_certificate = @/empty.pem\n", 4, "tls_certificate", "empty");
    expect_problem("tls_certificate = @/text.pem\n", 4, "tls_certificate", "there is none in it");
    expect_problem("tls_certificate = @/broken.pem\n", 4, "tls_certificate", "cannot be read");
    expect_problem("tls_certificate = @/weak.pem\n", 4, "tls_certificate", "too small");
    expect_problem("tls_certificate = @/a_only.pem\n", 4, "tls_certificate", "name that in tls_key");
    expect_problem("tls_certificate = @/a.pem\ntls_key = @/text.pem\n", 5, "tls_key", "no private key in");
    expect_problem("tls_certificate = @/a.pem\ntls_key = @/broken.key\n", 5, "tls_key", "cannot be read");
    expect_problem("tls_certificate = @/a.pem\ntls_key = @/encrypted.key\n", 5, "tls_key", "is encrypted");
    expect_problem("tls_certificate = @/a.pem\ntls_key = @/b.pem\n", 5, "tls_key", "does not belong");
    write_pem("mixed.pem", a.cert, NULL, b.key);
    expect_problem("tls_certificate = @/mixed.pem\n", 4, "tls_certificate", "does not belong");
    expect_problem("tls_certificate = @/a.pem, @/b.pem\ntls_key = @/a.key\n", 5, "tls_key", "1 files");
    expect_problem("tls_certificate = @/a.pem\ntls_ciphers = nonsense\n", 5, "tls_ciphers", "no cipher");
    expect_problem("tls_certificate = @/a.pem\ntls_ciphersuites = nonsense\n", 5, "tls_ciphersuites",
                   "TLS 1.3");
}

static void problems_with_client_cas(void **state)
{
    expect_problem("tls_certificate = @/a.pem\ntls_client_verify = required\ntls_client_ca = @/text.pem\n", 6,
                   "tls_client_ca", "there is none in it");
}

static void all_problems_at_once(void **state)
{
    assert_null(make_context("tls_certificate = @/text.pem, @/a_only.pem\n", NULL));
    assert_int_equal(util_error.n, 2);
}

/* What is logged when the context is made. */
static const char *logged_by(const char *lines)
{
    static char text[1024];
    char log[96];
    snprintf(log, sizeof log, "%s/log", util_dir);
    unlink(log);
    assert_int_equal(log_open(&(struct log_options){.level = LOG_WARN, .path = log, .process = "test"}), 0);
    tls_context_free(need_context(lines, NULL));
    log_close();
    FILE *f = fopen(log, "r");
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

static void dates_are_only_warnings(void **state)
{
    struct identity old = make_identity((struct identity_options){.cn = "old", .from_s = -100, .to_s = -50});
    struct identity early =
        make_identity((struct identity_options){.cn = "early", .from_s = 50, .to_s = 100});
    write_pem("old.pem", old.cert, NULL, old.key);
    write_pem("early.pem", early.cert, NULL, early.key);
    const char *text = logged_by("tls_certificate = @/old.pem,@/early.pem\n");
    assert_non_null(strstr(text, "tls_certificate_expired"));
    assert_non_null(strstr(text, "tls_certificate_not_yet_valid"));
    free_identity(&old);
    free_identity(&early);
}

/* As `openssl ecparam -genkey` writes it: parameters before the key. */
static void a_key_with_parameters_before_it(void **state)
{
    FILE *f = open_file("ec.pem");
    PEM_write_X509(f, a.cert);
    fputs("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n", f);
    PEM_write_PrivateKey(f, a.key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
    tls_context_free(need_context("tls_certificate = @/ec.pem\n", NULL));
}

static void an_ed25519_certificate(void **state)
{
    struct identity ed = make_identity((struct identity_options){.type = KEY_ED25519, .cn = "ed"});
    write_pem("ed.pem", ed.cert, NULL, ed.key);
    struct tls_context *ctx = need_context("tls_certificate = @/ed.pem\n", NULL);
    struct server s;
    struct client c;
    server_init(&s, ctx);
    client_init(&c, (struct client_options){0});
    assert_true(shake_hands(&c, &s));
    server_fini(&s);
    client_fini(&c);
    tls_context_free(ctx);
    free_identity(&ed);
}

/* ---- versions and ciphers */

static void versions_and_ciphers(void **state)
{
    struct tls_context *ctx = need_context("tls_certificate = @/a.pem\ntls_version_min = 1.3\n", NULL);
    assert_null(served(ctx, (struct client_options){.version = TLS1_2_VERSION}));
    assert_ptr_equal(served(ctx, (struct client_options){.version = TLS1_3_VERSION}), &a);
    tls_context_free(ctx);

    ctx = need_context("tls_certificate = @/a.pem\n", NULL);
    assert_ptr_equal(served(ctx, (struct client_options){.version = TLS1_2_VERSION}), &a);
    assert_null(served(
        ctx, (struct client_options){.version = TLS1_2_VERSION, .ciphers = "ECDHE-ECDSA-AES128-SHA256"}));
    tls_context_free(ctx);

    ctx = need_context("tls_certificate = @/a.pem\ntls_ciphers = ECDHE-ECDSA-AES128-SHA256\n"
                       "tls_ciphersuites = TLS_CHACHA20_POLY1305_SHA256\n",
                       NULL);
    for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++) {
        struct server s;
        struct client c;
        struct tls_info info;
        server_init(&s, ctx);
        client_init(&c, (struct client_options){.version = v});
        assert_true(shake_hands(&c, &s));
        tls_conn_info(s.t, &info);
        assert_string_equal(info.cipher, v == TLS1_2_VERSION ? "ECDHE-ECDSA-AES128-SHA256"
                                                             : "TLS_CHACHA20_POLY1305_SHA256");
        echo_once(&c, &s);
        server_fini(&s);
        client_fini(&c);
    }
    tls_context_free(ctx);
}

/* Ciphers with which a connection cannot go to another process. */
static void ciphers_that_are_warned_of(void **state)
{
    static const struct {
        const char *lines;
        bool warns;
    } cases[] = {
        {"", false},
        {"tls_ciphers = ECDHE+AESGCM:DHE+AESGCM:kRSA+AESGCM:ECDHE+CHACHA20\n", false},
        {"tls_ciphersuites = TLS_AES_128_GCM_SHA256\n", false},
        {"tls_ciphers = ECDHE+AESGCM:ECDHE-RSA-AES128-SHA\n", true},
        {"tls_ciphers = ECDHE-RSA-AES128-SHA\ntls_version_min = 1.3\n", false},
        {"tls_ciphersuites = TLS_AES_128_GCM_SHA256:TLS_AES_128_CCM_SHA256\ntls_version_min = 1.3\n", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char lines[256];
        snprintf(lines, sizeof lines, "tls_certificate = @/a.pem\n%s", cases[i].lines);
        const char *text = logged_by(lines);
        assert_int_equal(strstr(text, "tls_cipher_ends_with_upgrade") != NULL, cases[i].warns);
    }
}

/* ---- client certificates */

static bool client_gets_in(struct tls_context *ctx, int version, const struct identity *id, const char **ret)
{
    static struct tls_info info;
    struct server s;
    struct client c;
    server_init(&s, ctx);
    client_init(&c, (struct client_options){.version = version, .identity = id});
    bool in = shake_hands(&c, &s) && tls_conn_is_open(s.t);
    tls_conn_info(s.t, &info);
    *ret = in ? info.client_subject : tls_conn_error(s.t);
    if (in)
        assert_true(sk_X509_NAME_num(SSL_get0_peer_CA_list(c.ssl)) > 0);
    server_fini(&s);
    client_fini(&c);
    return in;
}

static void client_certificates(void **state)
{
    struct tls_context *required = need_context(
        "tls_certificate = @/a.pem\ntls_client_ca = @/ca.pem\ntls_client_verify = required\n", NULL);
    struct tls_context *optional = need_context(
        "tls_certificate = @/a.pem\ntls_client_ca = @/ca.pem\ntls_client_verify = optional\n", NULL);
    struct tls_context *both = need_context(
        "tls_certificate = @/a.pem\ntls_client_ca = @/cas.pem\ntls_client_verify = required\n", NULL);
    const char *what;
    for (int v = TLS1_2_VERSION; v <= TLS1_3_VERSION; v++) {
        assert_false(client_gets_in(required, v, NULL, &what));
        assert_string_equal(what, "peer did not return a certificate");
        assert_false(client_gets_in(required, v, &client_of_other, &what));
        assert_non_null(strstr(what, "issuer certificate"));
        assert_true(client_gets_in(required, v, &client_of_ca, &what));
        assert_string_equal(what, "CN=al\\,ice");

        assert_true(client_gets_in(optional, v, NULL, &what));
        assert_string_equal(what, "");
        assert_false(client_gets_in(optional, v, &client_of_other, &what));
        assert_true(client_gets_in(optional, v, &client_of_ca, &what));

        assert_true(client_gets_in(both, v, &client_of_other, &what));
        assert_string_equal(what, "CN=mallory");
    }
    tls_context_free(required);
    tls_context_free(optional);
    tls_context_free(both);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(certificates_by_name),
        cmocka_unit_test(two_key_types_for_a_name),
        cmocka_unit_test(the_first_of_a_name_and_type_wins),
        cmocka_unit_test(keys_in_files_of_their_own),
        cmocka_unit_test(the_chain_is_sent),
        cmocka_unit_test(many_names),
        cmocka_unit_test(problems_are_told),
        cmocka_unit_test(problems_with_client_cas),
        cmocka_unit_test(all_problems_at_once),
        cmocka_unit_test(dates_are_only_warnings),
        cmocka_unit_test(a_key_with_parameters_before_it),
        cmocka_unit_test(an_ed25519_certificate),
        cmocka_unit_test(versions_and_ciphers),
        cmocka_unit_test(ciphers_that_are_warned_of),
        cmocka_unit_test(client_certificates),
    };
    return cmocka_run_group_tests(tests, make_all, free_all);
}
