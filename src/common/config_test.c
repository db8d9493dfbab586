// SPDX-License-Identifier: MIT
#include "common/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/config_table.h"

static struct config cfg;
static struct config_error err;

static int load(const char *text)
{
    return config_load_text(text, strlen(text), "f.ini", &cfg, &err);
}

/* The n-th problem as it is printed. */
static const char *problem(unsigned i)
{
    static char line[1024];
    if (i >= err.n)
        return "(no such problem)";
    return config_problem_format(&err, i, line, sizeof line);
}

#define assert_problem(i, text) assert_string_equal(problem(i), text)

static void assert_one_problem(const char *text, const char *expected)
{
    assert_int_equal(load(text), -EINVAL);
    assert_problem(0, expected);
    assert_int_equal(err.n, 1);
}

/* A key in a good file, at line 2. */
static void assert_key_problem(const char *line, const char *expected)
{
    char text[512];
    snprintf(text, sizeof text, "[gateway]\n%s\n[listen a]\nport=1\nprotocol=text\n", line);
    assert_one_problem(text, expected);
}

/* ---- defaults */

static void every_default_of_the_table_is_a_good_value(void **state)
{
    config_defaults(&cfg); /* asserts inside */
    assert_int_equal(cfg.gateway.start_port, 2000);
    assert_int_equal(cfg.gateway.lan_ip, 0x7f000001);
    assert_int_equal(cfg.gateway.register_address.n, 1);
    assert_string_equal(cfg.gateway.register_address.list[0].host, "127.0.0.1");
    assert_int_equal(cfg.gateway.register_address.list[0].port, 1236);
    assert_int_equal(cfg.gateway.router, ROUTER_LEAST_CONNECTIONS);
    assert_string_equal(cfg.gateway.secret_key, "");
    assert_int_equal(cfg.n_listeners, 0);
    assert_int_equal(cfg.gateway.line.start_port, 0);
    config_fini(&cfg);
}

static void every_key_has_a_text_and_a_range_that_holds_its_default(void **state)
{
    for (unsigned i = 0; i < config_keys_n; i++) {
        const struct config_key *k = &config_keys[i];
        assert_true(strlen(k->text) > 10);
        assert_true(k->kind != CONFIG_KIND_UINT || k->max > k->min);
        assert_ptr_equal(config_key_find(k->section, k->name), k); /* no name twice in a section */
    }
}

static void an_empty_file_is_all_defaults(void **state)
{
    assert_int_equal(load(""), 0);
    assert_int_equal(cfg.reg.port, 1236);
    assert_string_equal(cfg.source_path, "f.ini");
    config_fini(&cfg);
}

/* ---- good values */

static void values_of_every_kind_are_read(void **state)
{
    assert_int_equal(load("# comment\n"
                          "; comment\n"
                          "[gateway]\n"
                          "lan_ip = 10.1.2.3\n"
                          "  start_port=2900\r\n"
                          "secret_key = a;b # c = d \n"
                          "register_address = 10.0.0.1:1236 , reg.example.org:1237,[::1]:9\n"
                          "router : round_robin\n"
                          "\n"
                          "[ listen  web ]\n"
                          "address = ::\n"
                          "port = 80\n"
                          "protocol = websocket\n"
                          "send_type = auto\n"
                          "[listen raw]\n"
                          "port = 81\n"
                          "protocol = tcp\n"
                          "[log]\n"
                          "level = debug"),
                     0);
    assert_int_equal(cfg.gateway.lan_ip, 0x0a010203);
    assert_int_equal(cfg.gateway.start_port, 2900);
    assert_int_equal(cfg.gateway.line.start_port, 5);
    assert_string_equal(cfg.gateway.secret_key, "a;b # c = d");
    assert_int_equal(cfg.gateway.register_address.n, 3);
    assert_string_equal(cfg.gateway.register_address.list[1].host, "reg.example.org");
    assert_string_equal(cfg.gateway.register_address.list[2].host, "::1");
    assert_int_equal(cfg.gateway.register_address.list[2].port, 9);
    assert_int_equal(cfg.gateway.register_address.list[2].line, 7);
    assert_int_equal(cfg.gateway.router, ROUTER_ROUND_ROBIN);
    assert_int_equal(cfg.n_listeners, 2);
    assert_string_equal(cfg.listen[0].name, "web");
    assert_int_equal(cfg.listen[0].section_line, 10);
    assert_int_equal(cfg.listen[0].protocol, PROTOCOL_WEBSOCKET);
    assert_int_equal(cfg.listen[0].send_type, SEND_TYPE_AUTO);
    assert_string_equal(cfg.listen[1].name, "raw");
    assert_string_equal(cfg.listen[1].address, "0.0.0.0");
    assert_int_equal(cfg.log.level, LOG_LEVEL_DEBUG);
    assert_int_equal(cfg.log.line.level, 19);
    config_fini(&cfg);
}

static void numbers_take_the_suffixes_of_their_unit(void **state)
{
    assert_int_equal(
        load("[gateway]\nsend_to_client_buffer_size = 64K\nsend_to_worker_buffer_size=2m\n"
             "no_worker_total_bytes = 1g\nping_interval = 2m\ndrain_timeout = 1h\nno_worker_wait=7 s\n"
             "turn_max = 1s\n"),
        0);
    assert_int_equal(cfg.gateway.send_to_client_buffer_size, 65536);
    assert_int_equal(cfg.gateway.send_to_worker_buffer_size, 2 << 20);
    assert_int_equal(cfg.gateway.no_worker_total_bytes, 1 << 30);
    assert_int_equal(cfg.gateway.ping_interval, 120);
    assert_int_equal(cfg.gateway.drain_timeout, 3600);
    assert_int_equal(cfg.gateway.no_worker_wait, 7);
    assert_int_equal(cfg.gateway.turn_max, 1000);
    config_fini(&cfg);
}

static void a_byte_order_mark_is_skipped(void **state)
{
    assert_int_equal(load("\xef\xbb\xbf[gateway]\nstart_port = 7\n"), 0);
    assert_int_equal(cfg.gateway.start_port, 7);
    config_fini(&cfg);
}

static void a_section_may_be_taken_up_again(void **state)
{
    assert_int_equal(load("[gateway]\nstart_port=7\n[log]\n[gateway]\nping_interval=3\n"), 0);
    assert_int_equal(cfg.gateway.start_port, 7);
    assert_int_equal(cfg.gateway.ping_interval, 3);
    config_fini(&cfg);
}

static void a_value_may_be_as_long_as_its_key_allows(void **state)
{
    char *text = malloc(70000);
    assert_non_null(text);
    int at = snprintf(text, 70000, "[gateway]\nping_data = ");
    memset(text + at, 'x', 65536);
    text[at + 65536] = '\0';
    assert_int_equal(load(text), 0);
    assert_int_equal(strlen(cfg.gateway.ping_data), 65536);
    config_fini(&cfg);
    memcpy(text + at + 65536, "x\n", 3);
    assert_one_problem(text,
                       "f.ini:2: [gateway] ping_data: 65537 bytes; expected text of at most 65536 bytes");
    free(text);
}

/* ---- what is wrong, and what is said about it */

static void wrong_numbers(void **state)
{
    assert_key_problem("ping_interval = fast",
                       "f.ini:2: [gateway] ping_interval: \"fast\" is not a number; expected 0 "
                       "to 86400 s (suffixes s, m, h)");
    assert_key_problem("ping_interval =",
                       "f.ini:2: [gateway] ping_interval: no value; expected 0 to 86400 s (suffixes "
                       "s, m, h)");
    assert_key_problem("start_port = 65536",
                       "f.ini:2: [gateway] start_port: \"65536\" is out of range; expected 1 to 65535");
    assert_key_problem("start_port = -1",
                       "f.ini:2: [gateway] start_port: \"-1\" is not a number; expected 1 to 65535");
    assert_key_problem("start_port = 8k",
                       "f.ini:2: [gateway] start_port: \"8k\" is not a number; expected 1 to 65535");
    assert_key_problem("ping_interval = 10k",
                       "f.ini:2: [gateway] ping_interval: \"10k\" is not a number; expected 0 to "
                       "86400 s (suffixes s, m, h)");
    assert_key_problem(
        "start_port = 99999999999999999999999",
        "f.ini:2: [gateway] start_port: \"99999999999999999999999\" is out of range; expected 1 to 65535");
    assert_key_problem(
        "no_worker_client_bytes = 17179869184g",
        "f.ini:2: [gateway] no_worker_client_bytes: \"17179869184g\" is out of range; expected 0 to "
        "4294967295 bytes (suffixes k, m, g)");
}

static void wrong_choices_addresses_and_text(void **state)
{
    assert_key_problem("slow_reader_policy = drop",
                       "f.ini:2: [gateway] slow_reader_policy: \"drop\" is not known; "
                       "expected one of close, drop_newest, drop_oldest");
    assert_key_problem("lan_ip = ::1",
                       "f.ini:2: [gateway] lan_ip: \"::1\" is not an IPv4 address; expected an IPv4 "
                       "address such as 192.168.1.10");
    static const char *const bad[] = {"127.0.0.1", "127.0.0.1:", ":1236", "::1:1236", "[::1]", "[]:1",  "a:0",
                                      "a:65536",   "a:1x",       "a:1,",  ",a:1",     "a b:1", "[::1:5"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[64], said[256];
        snprintf(line, sizeof line, "register_address = %s", bad[i]);
        snprintf(said, sizeof said,
                 "f.ini:2: [gateway] register_address: \"%s\" is not host:port; expected host:port, "
                 "several separated by commas",
                 bad[i]);
        assert_key_problem(line, said);
    }
    assert_key_problem(
        "register_address = a:1, b:1, A:1",
        "f.ini:2: [gateway] register_address: \"a:1, b:1, A:1\" names an address twice; expected "
        "host:port, several separated by commas");
    assert_key_problem("runtime_dir =",
                       "f.ini:2: [gateway] runtime_dir: 0 bytes; expected text of 1 to 4000 bytes");
}

static void unknown_keys_and_what_was_meant(void **state)
{
    assert_key_problem("ping_intervall = 1",
                       "f.ini:2: [gateway] ping_intervall: unknown key; did you mean ping_interval?");
    assert_key_problem(
        "sendToClientBufferSize = 1",
        "f.ini:2: [gateway] sendToClientBufferSize: unknown key; did you mean send_to_client_buffer_size?");
    assert_key_problem("colour = blue", "f.ini:2: [gateway] colour: unknown key");
    assert_key_problem("protocol = text",
                       "f.ini:2: [gateway] protocol: not a key of this section, but of [listen]");
}

static void unknown_sections(void **state)
{
    assert_one_problem(
        "[gatway]\nstart_port = x\n",
        "f.ini:1: unknown section \"gatway\"; expected [gateway], [listen NAME], [register] or [log]; did "
        "you mean [gateway]?");
    assert_one_problem("\n[database]\n",
                       "f.ini:2: unknown section \"database\"; expected [gateway], [listen NAME], "
                       "[register] or [log]");
    assert_one_problem("[gateway\n",
                       "f.ini:1: \"[gateway\" is not a heading; expected [SECTION] alone on its line");
    assert_one_problem("[gateway] x\n",
                       "f.ini:1: \"[gateway] x\" is not a heading; expected [SECTION] alone on its line");
    assert_one_problem(
        "start_port = 1\n",
        "f.ini:1: start_port: a key before the first section; expected [gateway] or another before it");
}

static void listener_names(void **state)
{
    static const char wrong[] =
        "a listener needs a name of 1 to 32 letters, digits, '.', '_' or '-': [listen NAME]";
    char said[256];
    snprintf(said, sizeof said, "f.ini:1: [listen] %s", wrong);
    assert_one_problem("[listen]\nport=1\n", said);
    snprintf(said, sizeof said, "f.ini:1: [listen a b] %s", wrong);
    assert_one_problem("[listen a b]\n", said);
    assert_one_problem(
        "[listen a]\nport=1\nprotocol=tcp\n[listen a]\nport=2\nprotocol=tcp\n",
        "f.ini:4: [listen a] a second listener of that name, the first is at line 1; expected a name of "
        "its own");
}

static void too_many_listeners(void **state)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    for (int i = 0; i <= CONFIG_LISTEN_MAX; i++)
        fprintf(f, "[listen l%d]\nport = %d\nprotocol = tcp\n", i, 100 + i);
    fclose(f);
    assert_one_problem(text, "f.ini:193: [listen l64] more than 64 listeners");
    free(text);
}

static void keys_set_twice(void **state)
{
    assert_key_problem("start_port = 5\nping_interval = 1\nstart_port = 6",
                       "f.ini:4: [gateway] start_port: set twice, first at line 2; expected once");
    assert_one_problem("[log]\nlevel=warn\n[gateway]\n[log]\nlevel=info\n",
                       "f.ini:5: [log] level: set twice, first at line 2; expected once");
}

static void missing_required_keys(void **state)
{
    assert_int_equal(load("[gateway]\n[listen a]\n"), -EINVAL);
    assert_problem(0, "f.ini:2: [listen a] port: missing; expected 1 to 65535");
    assert_problem(1, "f.ini:2: [listen a] protocol: missing; expected one of websocket, text, frame, tcp");
    assert_int_equal(err.n, 2);
}

static void two_listeners_on_one_port(void **state)
{
    static const char text[] =
        "[listen a]\naddress=%s\nport=80\nprotocol=tcp\n[listen b]\naddress=%s\nport=80\nprotocol=tcp\n";
    static const struct {
        const char *a, *b;
        bool clash;
    } cases[] = {
        {"127.0.0.1", "127.0.0.1", true},  {"0.0.0.0", "127.0.0.1", true}, {"127.0.0.1", "0.0.0.0", true},
        {"127.0.0.1", "127.0.0.2", false}, {"::", "0.0.0.0", false},       {"::1", "0:0::1", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char filled[256], said[256];
        snprintf(filled, sizeof filled, text, cases[i].a, cases[i].b);
        if (!cases[i].clash) {
            assert_int_equal(load(filled), 0);
            config_fini(&cfg);
            continue;
        }
        snprintf(said, sizeof said,
                 "f.ini:7: [listen b] port: %s:80 is taken by [listen a] of line 1; expected an "
                 "address and port of its own",
                 cases[i].b);
        assert_one_problem(filled, said);
    }
    assert_one_problem(
        "[gateway]\nstart_port=80\n[listen a]\nport=80\nprotocol=tcp\n",
        "f.ini:4: [listen a] port: 80 is the internal port, [gateway] start_port; expected another");
}

static void addresses_that_are_none(void **state)
{
    static const char expected[] = "is not an address; expected IPv4 or IPv6, such as 0.0.0.0 or ::";
    char said[256];
    snprintf(said, sizeof said, "f.ini:2: [listen a] address: \"localhost\" %s", expected);
    assert_one_problem("[listen a]\naddress=localhost\nport=1\nprotocol=tcp\n", said);
    snprintf(said, sizeof said, "f.ini:2: [register] address: \"1.2.3\" %s", expected);
    assert_one_problem("[register]\naddress=1.2.3\n", said);
    snprintf(said, sizeof said, "f.ini:2: [gateway] inner_listen: \"x\" %s", expected);
    assert_one_problem("[gateway]\ninner_listen=x\n", said);
    assert_one_problem(
        "[gateway]\nlan_ip=0.0.0.0\n",
        "f.ini:2: [gateway] lan_ip: 0.0.0.0 is not an address that workers could connect to; expected one "
        "of this machine");
}

static void a_websocket_ping_holds_125_bytes(void **state)
{
    char text[512];
    snprintf(text, sizeof text, "[gateway]\nping_mode=websocket\nping_data=%0125d\n", 0);
    assert_int_equal(load(text), 0);
    config_fini(&cfg);
    snprintf(text, sizeof text, "[gateway]\nping_mode=websocket\nping_data=%0126d\n", 0);
    assert_one_problem(
        text, "f.ini:3: [gateway] ping_data: 126 bytes do not fit a WebSocket ping; expected at most 125 "
              "with ping_mode websocket");
    snprintf(text, sizeof text, "[gateway]\nping_data=%0126d\n", 0);
    assert_int_equal(load(text), 0);
    config_fini(&cfg);
}

static void lines_that_are_nothing(void **state)
{
    assert_one_problem(
        "[gateway]\nwords without sense\n",
        "f.ini:2: [gateway] the line that starts with \"words\" has no '='; expected KEY = VALUE");
    assert_one_problem(
        "[gateway]\nstart_port\n",
        "f.ini:2: [gateway] the line that starts with \"start_port\" has no '='; expected KEY = VALUE");
    static const char zero[] = "[gateway]\nstart_port = 1\0002\n";
    assert_int_equal(config_load_text(zero, sizeof zero - 1, "f.ini", &cfg, &err), -EINVAL);
    assert_problem(0, "f.ini:2: a zero byte; expected text");
}

static void a_line_past_every_limit(void **state)
{
    size_t len = 200 * 1024;
    char *text = malloc(len + 1);
    assert_non_null(text);
    memset(text, 'x', len);
    memcpy(text, "[gateway]\nping_data=", 20);
    memcpy(text + len - 16, "\nstart_port=x0\n\n", 16);
    assert_int_equal(config_load_text(text, len, "f.ini", &cfg, &err), -EINVAL);
    assert_problem(0, "f.ini:2: [gateway] a line of 204774 bytes; expected at most 131069");
    assert_problem(1, "f.ini:3: [gateway] start_port: \"x0\" is not a number; expected 1 to 65535");
    assert_int_equal(err.n, 2);
    free(text);
}

static void every_problem_is_told_in_the_order_of_the_file(void **state)
{
    assert_int_equal(load("[gateway]\nstart_port=x\nnonsense\n[foo]\nbar=1\n[log]\nlevel=loud\n"), -EINVAL);
    assert_int_equal(err.n, 4);
    assert_int_equal(err.list[0].line, 2);
    assert_int_equal(err.list[1].line, 3);
    assert_int_equal(err.list[2].line, 4);
    assert_int_equal(err.list[3].line, 7);
}

static void more_problems_than_are_kept_are_counted(void **state)
{
    char text[4096] = "[gateway]\n";
    for (int i = 0; i < CONFIG_PROBLEMS_MAX + 5; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "a_bad_key=1\n");
    assert_int_equal(load(text), -EINVAL);
    assert_int_equal(err.n, CONFIG_PROBLEMS_MAX);
    assert_int_equal(err.left_out, 5);
}

static void a_secret_is_never_in_a_message(void **state)
{
    char text[2048] = "[gateway]\nsecret_key = ";
    memset(text + strlen(text), 'S', 1100);
    assert_int_equal(load(text), -EINVAL);
    assert_null(strstr(problem(0), "SS"));
    assert_problem(0, "f.ini:2: [gateway] secret_key: 1100 bytes; expected text of at most 1024 bytes");
    assert_int_equal(load("[gateway]\nsecret_key SSSS\n"), -EINVAL);
    assert_null(strstr(problem(0), "SS"));
}

static void failure_leaves_the_target_alone(void **state)
{
    memset(&cfg, 0x5a, sizeof cfg);
    assert_int_equal(load("[gateway]\nstart_port=x\n"), -EINVAL);
    for (size_t i = 0; i < sizeof cfg; i++)
        assert_int_equal(((const unsigned char *)&cfg)[i], 0x5a);
}

/* ---- files */

static void a_missing_file_and_a_folder(void **state)
{
    assert_int_equal(config_load("/nonexistent/tgg.ini", &cfg, &err), -ENOENT);
    assert_problem(
        0, "/nonexistent/tgg.ini: No such file or directory; name a file with -c FILE, or copy the example "
           "tgg_conf.ini there");
    assert_int_equal(config_load("/tmp", &cfg, &err), -EISDIR);
    assert_int_equal(err.n, 1);
}

static void a_file_is_read(void **state)
{
    char path[] = "/tmp/tgg-config-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "[register]\nport=9\n", 18), 18);
    close(fd);
    assert_int_equal(config_load(path, &cfg, &err), 0);
    assert_int_equal(cfg.reg.port, 9);
    assert_string_equal(cfg.source_path, path);
    config_fini(&cfg);
    unlink(path);
}

/* ---- a changed file */

static struct config now;
static unsigned n_differ;
static char differ[8][80];

static void note(void *ctx, const char *section, const char *key, bool live)
{
    if (n_differ < 8)
        snprintf(differ[n_differ], sizeof differ[0], "%s.%s %s", section, key, live ? "live" : "start");
    n_differ++;
}

#define BEFORE                                                                                               \
    "[gateway]\nretry_after=20\nstart_port=3000\n"                                                           \
    "[listen a]\nport=1\nprotocol=text\n[listen b]\nport=2\nprotocol=frame\n[listen "                        \
    "c]\nport=3\nprotocol=tcp\n"
#define AFTER                                                                                                \
    "[gateway]\nretry_after=21\nstart_port=3001\n"                                                           \
    "[listen d]\nport=4\nprotocol=text\n[listen c]\nport=3\nprotocol=tcp\nidle_timeout=9\n"                  \
    "[listen a]\nport=7\nprotocol=text\n"

static void load_both(void)
{
    assert_int_equal(load(AFTER), 0);
    now = cfg;
    assert_int_equal(load(BEFORE), 0);
}

static void live_keys_and_listeners_go_over_and_back(void **state)
{
    load_both();
    for (unsigned i = 0; i < 3; i++) {
        config_apply_live(&cfg, &now);
        assert_int_equal(cfg.gateway.retry_after, 21);
        assert_int_equal(cfg.gateway.start_port, 3000);
        assert_int_equal(now.gateway.start_port, 3001);
        assert_int_equal(cfg.n_listeners, 3);
        assert_string_equal(cfg.listen[0].name, "d");
        assert_int_equal(cfg.listen[1].idle_timeout, 9);
        assert_int_equal(cfg.listen[2].port, 7);
        assert_string_equal(now.listen[1].name, "b");
        if (i == 2)
            break;
        config_apply_live(&cfg, &now);
        assert_int_equal(cfg.gateway.retry_after, 20);
        assert_int_equal(cfg.listen[0].port, 1);
        assert_string_equal(cfg.listen[1].name, "b");
        assert_int_equal(now.listen[1].idle_timeout, 9);
    }
    struct config_listen taken;
    config_listen_take(&now, 1, &taken);
    config_fini(&now);
    assert_string_equal(taken.name, "b"); /* outlives it */
    assert_string_equal(taken.address, "0.0.0.0");
    config_listen_fini(&taken);
    config_fini(&cfg);
}

static void what_differs_is_told(void **state)
{
    load_both();
    n_differ = 0;
    config_compare(&cfg, &now, note, NULL);
    assert_int_equal(n_differ, 4);
    assert_string_equal(differ[0], "gateway.start_port start");
    assert_string_equal(differ[1], "gateway.retry_after live");
    assert_string_equal(differ[2], "listen a.port live"); /* made anew */
    assert_string_equal(differ[3], "listen c.idle_timeout live");
    config_fini(&cfg);
    config_fini(&now);
}

static void a_listener_is_its_name_and_start_keys(void **state)
{
    static const struct {
        const char *keys;
        bool same;
    } others[] = {
        {"[listen a]\nport=1\nprotocol=text\nidle_timeout=7\n", true},
        {"[listen b]\nport=1\nprotocol=text\n", false},
        {"[listen a]\nport=2\nprotocol=text\n", false},
        {"[listen a]\nport=1\nprotocol=frame\n", false},
        {"[listen a]\nport=1\nprotocol=text\nbacklog=7\n", false},
        {"[listen a]\nport=1\nprotocol=text\naddress=127.0.0.1\n", false},
        {"[listen a]\nport=1\nprotocol=text\nsocket_mode=0600\n", false},
    };
    char mine[CONFIG_LISTEN_IDENTITY_MAX], other[CONFIG_LISTEN_IDENTITY_MAX], longest[400];
    assert_int_equal(load("[listen a]\nport=1\nprotocol=text\n"), 0);
    config_listen_identity(&cfg.listen[0], mine, sizeof mine);
    config_fini(&cfg);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_int_equal(load(others[i].keys), 0);
        config_listen_identity(&cfg.listen[0], other, sizeof other);
        assert_int_equal(strcmp(mine, other) == 0, others[i].same);
        config_fini(&cfg);
    }
    snprintf(longest, sizeof longest,
             "[listen %032d]\naddress=unix:/%0102d\nport=65535\nprotocol=websocket\nbacklog=1048576\n", 1, 1);
    assert_int_equal(load(longest), 0);
    config_listen_identity(&cfg.listen[0], other, sizeof other);
    config_fini(&cfg);
}

static void an_address_is_one_however_it_is_written(void **state)
{
    assert_int_equal(load("[listen a]\naddress=::1\nport=1\nprotocol=text\n"
                          "[listen b]\naddress=unix:/tmp/s\nport=1\nprotocol=text\n"),
                     0);
    assert_true(config_listen_is_at(&cfg.listen[0], "0:0::1", 1));
    assert_false(config_listen_is_at(&cfg.listen[0], "::1", 2));
    assert_false(config_listen_is_at(&cfg.listen[0], "::", 1));
    assert_true(config_listen_is_at(&cfg.listen[1], "unix:/tmp/s", 2));
    assert_false(config_listen_is_at(&cfg.listen[1], "unix:/tmp/t", 1));
    config_fini(&cfg);
}

/* ---- built in code */

static void keys_set_in_code(void **state)
{
    config_defaults(&cfg);
    err = (struct config_error){0};
    assert_int_equal(config_set(&cfg, "gateway", "start_port", "3000", &err), 0);
    assert_int_equal(config_set(&cfg, "gateway", "start_port", "3001", &err), 0);
    assert_int_equal(config_set(&cfg, "listen chat", "port", "80", &err), 0);
    assert_int_equal(config_set(&cfg, "listen chat", "protocol", "websocket", &err), 0);
    assert_int_equal(config_check(&cfg, &err), 0);
    assert_int_equal(config_check_gateway(&cfg, &err), 0);
    assert_int_equal(cfg.gateway.start_port, 3001);
    assert_int_equal(cfg.gateway.line.start_port, CONFIG_LINE_CODE);
    assert_int_equal(cfg.n_listeners, 1);
    assert_int_equal(config_set(&cfg, "gateway", "start_port", "x", &err), -EINVAL);
    assert_int_equal(config_set(&cfg, "nothing", "start_port", "1", &err), -EINVAL);
    assert_problem(0, "built-in: [gateway] start_port: \"x\" is not a number; expected 1 to 65535");
    config_fini(&cfg);
}

static void a_gateway_needs_a_listener(void **state)
{
    assert_int_equal(load("[gateway]\n"), 0);
    assert_int_equal(config_check_gateway(&cfg, &err), -EINVAL);
    assert_problem(0,
                   "f.ini: no listener; expected at least one [listen NAME] section with port and protocol");
    config_fini(&cfg);
}

static void the_registers_key_falls_back_to_the_gateways(void **state)
{
    assert_int_equal(load("[gateway]\nsecret_key=a\n"), 0);
    assert_string_equal(config_register_secret(&cfg), "a");
    config_fini(&cfg);
    assert_int_equal(load("[gateway]\nsecret_key=a\n[register]\nsecret_key=b\n"), 0);
    assert_string_equal(config_register_secret(&cfg), "b");
    config_fini(&cfg);
}

static char *printed(void)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    config_print(f, &cfg);
    fclose(f);
    return text;
}

static void what_is_printed_can_be_read_and_says_the_same(void **state)
{
    assert_int_equal(
        load("[gateway]\nregister_address=a:1, [::1]:2\nsecret_key=hidden\nsend_to_client_buffer_size=64k\n"
             "[listen x]\nport=5\nprotocol=frame\nsend_type=binary\n"),
        0);
    char *once = printed();
    config_fini(&cfg);
    assert_null(strstr(once, "hidden"));
    assert_non_null(strstr(once, "# secret_key = (set)\n"));
    assert_non_null(strstr(once, "register_address = a:1, [::1]:2\n"));
    assert_int_equal(load(once), 0);
    assert_int_equal(cfg.gateway.send_to_client_buffer_size, 65536);
    assert_int_equal(cfg.listen[0].protocol, PROTOCOL_FRAME);
    for (unsigned i = 0; i < config_keys_n; i++) /* all of them are in it */
        assert_non_null(strstr(once, config_keys[i].name));
    config_fini(&cfg);
    free(once);
}

static void names_of_constants(void **state)
{
    assert_string_equal(config_protocol_name(PROTOCOL_TCP), "tcp");
    assert_string_equal(config_slow_reader_policy_name(SLOW_READER_DROP_OLDEST), "drop_oldest");
    assert_string_equal(config_log_closes_name(LOG_CLOSES_ABNORMAL), "abnormal");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_default_of_the_table_is_a_good_value),
        cmocka_unit_test(every_key_has_a_text_and_a_range_that_holds_its_default),
        cmocka_unit_test(an_empty_file_is_all_defaults),
        cmocka_unit_test(values_of_every_kind_are_read),
        cmocka_unit_test(numbers_take_the_suffixes_of_their_unit),
        cmocka_unit_test(a_byte_order_mark_is_skipped),
        cmocka_unit_test(a_section_may_be_taken_up_again),
        cmocka_unit_test(a_value_may_be_as_long_as_its_key_allows),
        cmocka_unit_test(wrong_numbers),
        cmocka_unit_test(wrong_choices_addresses_and_text),
        cmocka_unit_test(unknown_keys_and_what_was_meant),
        cmocka_unit_test(unknown_sections),
        cmocka_unit_test(listener_names),
        cmocka_unit_test(too_many_listeners),
        cmocka_unit_test(keys_set_twice),
        cmocka_unit_test(missing_required_keys),
        cmocka_unit_test(two_listeners_on_one_port),
        cmocka_unit_test(addresses_that_are_none),
        cmocka_unit_test(a_websocket_ping_holds_125_bytes),
        cmocka_unit_test(lines_that_are_nothing),
        cmocka_unit_test(a_line_past_every_limit),
        cmocka_unit_test(every_problem_is_told_in_the_order_of_the_file),
        cmocka_unit_test(more_problems_than_are_kept_are_counted),
        cmocka_unit_test(a_secret_is_never_in_a_message),
        cmocka_unit_test(failure_leaves_the_target_alone),
        cmocka_unit_test(a_missing_file_and_a_folder),
        cmocka_unit_test(a_file_is_read),
        cmocka_unit_test(live_keys_and_listeners_go_over_and_back),
        cmocka_unit_test(what_differs_is_told),
        cmocka_unit_test(a_listener_is_its_name_and_start_keys),
        cmocka_unit_test(an_address_is_one_however_it_is_written),
        cmocka_unit_test(keys_set_in_code),
        cmocka_unit_test(a_gateway_needs_a_listener),
        cmocka_unit_test(the_registers_key_falls_back_to_the_gateways),
        cmocka_unit_test(what_is_printed_can_be_read_and_says_the_same),
        cmocka_unit_test(names_of_constants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
