// SPDX-License-Identifier: MIT
#include "supervisor/reload.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "base/log.h"
#include "supervisor/check.h"

static char dir[64], conf[96], list[96], log_file[96];
static struct config cfg;
static struct files *files;
static struct listeners listeners;
static uint64_t generation;
static struct reload_report report;
static struct shard_plan plan = {.n = 1, .shards = {{.cpu = SHARD_CPU_NONE, .edge = true, .link = true}}};
#define N_PORTS 4
static unsigned ports[N_PORTS];

static void write_file(const char *path, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void write_file(const char *path, const char *fmt, ...)
{
    va_list ap;
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    va_start(ap, fmt);
    vfprintf(f, fmt, ap);
    va_end(ap);
    assert_int_equal(fclose(f), 0);
}

/* @a and so on are free ports. */
#define LISTEN_A  "[listen a]\naddress = 127.0.0.1\nport = @a\nprotocol = websocket\n"
#define LISTEN_B  "[listen b]\naddress = 127.0.0.1\nport = @b\nprotocol = text\n"
#define LISTEN_C  "[listen c]\naddress = 127.0.0.1\nport = @c\nprotocol = tcp\n"
#define LISTENERS LISTEN_A LISTEN_B

static void write_conf(const char *gateway, const char *sections)
{
    char text[2048];
    size_t n = 0;
    for (; *sections != '\0'; sections++) {
        if (*sections == '@') {
            sections++;
            n += (size_t)snprintf(text + n, sizeof text - n, "%u", ports[*sections - 'a']);
        } else {
            text[n++] = *sections;
        }
    }
    text[n] = '\0';
    write_file(conf, "[gateway]\nruntime_dir = %s\nban_file = %s/no_bans\n%s%s", dir, dir, gateway, text);
}

static unsigned free_port(int *ret_fd)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof a;
    *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(*ret_fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(*ret_fd, (struct sockaddr *)&a, &len), 0);
    return ntohs(a.sin_port);
}

static void find_ports(void)
{
    int fds[N_PORTS];
    for (unsigned i = 0; i < N_PORTS; i++)
        ports[i] = free_port(&fds[i]);
    for (unsigned i = 0; i < N_PORTS; i++)
        close(fds[i]);
}

static void open_listeners(void)
{
    struct config_error err = {0};
    struct listeners *next;
    listeners_init(&listeners);
    listeners.plan = &plan;
    listeners.opener = getpid();
    assert_int_equal(listeners_prepare(&listeners, &cfg, 0, &next, &err), 0);
    listeners_commit(&listeners, next);
}

static bool is_listening(unsigned port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool good = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return good;
}

static int set_up(void **state)
{
    struct config_error err = {0};
    snprintf(dir, sizeof dir, "/tmp/tgg-reload-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(conf, sizeof conf, "%s/conf", dir);
    snprintf(list, sizeof list, "%s/list", dir);
    snprintf(log_file, sizeof log_file, "%s/log", dir);
    find_ports();
    write_conf("retry_after = 20\n", LISTENERS);
    assert_int_equal(config_load(conf, &cfg, &err), 0);
    open_listeners();
    generation = 0;
    assert_int_equal(check_files(&cfg, (struct slice){NULL, 0}, &files, &err), 0);
    struct log_options opt = {.level = LOG_INFO, .path = log_file};
    return log_open(&opt);
}

static int tear_down(void **state)
{
    log_close();
    unlink(conf);
    unlink(list);
    unlink(log_file);
    files_free(files);
    config_fini(&cfg);
    listeners_close(&listeners);
    bytes_fini(&report.json);
    return rmdir(dir);
}

static char *logged(void)
{
    static char text[65536];
    FILE *f = fopen(log_file, "re");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    return text;
}

static void assert_logged(const char *text)
{
    if (strstr(logged(), text) == NULL)
        fail_msg("not in the log: %s\n%s", text, logged());
}

static int reload_once(void)
{
    generation++;
    const struct reload_target t = {
        .cfg = &cfg, .files = &files, .listeners = &listeners, .generation = generation};
    bytes_fini(&report.json);
    return reload(&t, &report);
}

static void assert_reported(const char *text)
{
    bytes_append_byte(&report.json, '\0');
    if (strstr((const char *)report.json.data, text) == NULL)
        fail_msg("not in the report: %s\n%s", text, report.json.data);
    report.json.len--;
}

/* And what goes to the shards is the text as it stands in the file. */
static void assert_reloads(void)
{
    struct files *theirs;
    int fd = reload_once();
    if (fd < 0)
        fail_msg("%s", logged());
    assert_int_equal(files_open(fd, &theirs), 0);
    close(fd);
    assert_true(slice_eq(files_config_text(theirs), files_config_text(files)));
    assert_true(files_config_text(theirs).len > 0);
    assert_int_equal(files_changed(files, theirs), 0);
    files_free(theirs);
}

static void assert_refused(void)
{
    const struct files *before = files;
    assert_true(reload_once() < 0);
    assert_reported("\"changed\":[],\"added\":[],\"removed\":[],\"problems\":[\"");
    assert_ptr_equal(files, before);
    assert_int_equal(cfg.gateway.retry_after, 20);
    assert_int_equal(cfg.gateway.line.retry_after, 4);
    assert_string_equal(cfg.gateway.allow_list, "");
    assert_logged("reload_refused");
    assert_logged("nothing has changed");
}

static void live_keys_change(void **state)
{
    write_conf("connections_per_address = 7\nretry_after = 30\n", LISTENERS "idle_timeout = 9\n");
    assert_reloads();
    assert_int_equal(cfg.gateway.retry_after, 30);
    assert_int_equal(cfg.gateway.line.retry_after, 5);
    assert_int_equal(cfg.gateway.connections_per_address, 7);
    assert_int_equal(cfg.listen[1].idle_timeout, 9);
    assert_logged("setting_changed section=\"gateway\" key=retry_after");
    assert_logged("setting_changed section=\"gateway\" key=connections_per_address");
    assert_logged("setting_changed section=\"listen b\" key=idle_timeout");
    assert_logged("changed=3 needs_restart=0 files_changed=0");
    assert_reloads(); /* the same again */
    assert_logged("changed=0 needs_restart=0 files_changed=0");
}

static void other_keys_wait_for_a_restart_and_that_is_said(void **state)
{
    write_conf("retry_after = 21\nstuck_timeout = 77\nsecret_key = hidden\n", LISTENERS);
    assert_reloads();
    assert_int_equal(cfg.gateway.stuck_timeout, 5);
    assert_string_equal(cfg.gateway.secret_key, "");
    assert_int_equal(cfg.gateway.retry_after, 21);
    assert_logged("setting_needs_restart section=\"gateway\" key=stuck_timeout");
    assert_logged("changed=1 needs_restart=2");
    assert_null(strstr(logged(), "hidden"));
}

static void every_mistake_is_told_and_nothing_changes(void **state)
{
    write_conf("retry_after = 30\nretry_aftr = 31\naccept_rate = many\n", LISTENERS);
    assert_refused();
    assert_logged(":5: [gateway] retry_aftr");
    assert_logged(":6: [gateway] accept_rate");
    assert_logged("problems=2");
}

static void a_missing_file_is_a_mistake(void **state)
{
    write_conf("retry_after = 30\nallow_list = /does/not/exist\n", LISTENERS);
    assert_refused();
    assert_logged("/does/not/exist");
    unlink(conf);
    assert_refused();
    assert_logged("No such file");
}

static void lists_are_looked_at(void **state)
{
    write_file(list, "10.0.0.0/8\nnonsense\n");
    char gateway[192];
    snprintf(gateway, sizeof gateway, "retry_after = 30\nallow_list = %s\n", list);
    write_conf(gateway, LISTENERS);
    assert_refused();
    assert_logged("[gateway] allow_list");
    write_file(list, "10.0.0.0/8\n");
    assert_reloads();
    assert_logged("changed=2 needs_restart=0 files_changed=1");
    write_file(list, "10.0.0.0/9\n");
    assert_reloads();
    assert_logged("changed=0 needs_restart=0 files_changed=1");
}

static void certificates_are_looked_at(void **state)
{
    char sections[512];
    write_file(list, "no certificate\n");
    snprintf(sections, sizeof sections, LISTENERS "tls_certificate = %s\n", list);
    write_conf("retry_after = 30\n", sections);
    assert_refused();
    assert_logged("[listen b] tls_certificate");
}

static void listeners_come_and_go(void **state)
{
    write_conf("retry_after = 21\n", LISTEN_A LISTEN_C);
    assert_reloads();
    assert_logged("listener_added name=c address=127.0.0.1");
    assert_logged("listener_removed name=b address=127.0.0.1");
    assert_logged("listeners_added=1 listeners_removed=1");
    assert_reported(
        "{\"changed\":[{\"section\":\"gateway\",\"key\":\"retry_after\",\"live\":true}],\"added\":[\"c\"],"
        "\"removed\":[\"b\"],\"problems\":[]}");
    assert_int_equal(cfg.n_listeners, 2);
    assert_string_equal(cfg.listen[1].name, "c");
    assert_true(is_listening(ports[0]) && !is_listening(ports[1]) && is_listening(ports[2]));
    assert_int_equal(listeners.list[0].since, 0);
    assert_int_equal(listeners.list[1].since, 1);
    write_conf("retry_after = 21\n", LISTEN_C LISTEN_A);
    assert_reloads();
    assert_reported("{\"changed\":[],\"added\":[],\"removed\":[],\"problems\":[]}");
    assert_string_equal(cfg.listen[0].name, "c");
    assert_true(is_listening(ports[0]) && is_listening(ports[2]));
}

static void a_listener_with_another_port_is_another_one(void **state)
{
    write_conf("stuck_timeout = 9\n",
               LISTEN_A "[listen b]\naddress = 127.0.0.1\nport = @c\nprotocol = text\nidle_timeout = 3\n");
    assert_reloads();
    assert_reported("{\"section\":\"gateway\",\"key\":\"stuck_timeout\",\"live\":false}");
    assert_reported("{\"section\":\"listen b\",\"key\":\"port\",\"live\":true}");
    assert_reported("{\"section\":\"listen b\",\"key\":\"idle_timeout\",\"live\":true}");
    assert_reported("\"added\":[\"b\"],\"removed\":[\"b\"]");
    assert_true(!is_listening(ports[1]) && is_listening(ports[2]));
    assert_int_equal(cfg.listen[1].idle_timeout, 3);
}

static void a_listener_that_cannot_be_changes_nothing(void **state)
{
    int fd;
    unsigned taken = free_port(&fd);
    assert_int_equal(listen(fd, 1), 0);
    ports[3] = taken;
    write_conf("retry_after = 30\n",
               LISTEN_A LISTEN_C "[listen d]\naddress = 127.0.0.1\nport = @d\nprotocol = text\n");
    assert_refused();
    assert_logged(":15: [listen d] port: 127.0.0.1 port");
    assert_reported(":15: [listen d] port: 127.0.0.1 port");
    assert_int_equal(cfg.n_listeners, 2);
    assert_true(is_listening(ports[0]) && is_listening(ports[1]) && !is_listening(ports[2]));
    close(fd);
    write_conf("retry_after = 30\n", "");
    assert_refused();
    assert_logged("no listener");
    assert_true(is_listening(ports[0]) && is_listening(ports[1]));
}

/* The file alone would be right, and so was the one before. */
static void old_and_new_must_go_together(void **state)
{
    write_conf("retry_after = 20\nping_mode = websocket\nstart_port = 83\n", LISTENERS);
    assert_reloads(); /* ping_mode is live */
    char gateway[512], data[200];
    memset(data, 'x', sizeof data - 1);
    data[sizeof data - 1] = '\0';
    snprintf(gateway, sizeof gateway, "retry_after = 20\nping_data = %s\nping_mode = websocket\n", data);
    write_conf(gateway, LISTENERS);
    assert_true(reload_once() < 0);
    assert_string_equal(cfg.gateway.ping_data, "");
    /* The internal port changes with the next start only, and until then both would be on one. */
    snprintf(gateway, sizeof gateway, "start_port = %u\n", ports[3]);
    char listener[128];
    snprintf(listener, sizeof listener, LISTEN_A "[listen b]\nport = %u\nprotocol = text\n",
             (unsigned)cfg.gateway.start_port);
    write_conf(gateway, listener);
    assert_true(reload_once() < 0);
    assert_logged("is the internal port");
    assert_int_equal(cfg.listen[1].port, ports[1]);
}

/* Ticket keys of the file that was named at the start. */
static void a_file_that_waits_for_a_restart_is_not_asked_for(void **state)
{
    write_conf("retry_after = 22\ntls_ticket_file = /does/not/exist\n", LISTENERS);
    assert_reloads();
    assert_int_equal(cfg.gateway.retry_after, 22);
    assert_logged("setting_needs_restart section=\"gateway\" key=tls_ticket_file");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(live_keys_change),
        TEST(other_keys_wait_for_a_restart_and_that_is_said),
        TEST(every_mistake_is_told_and_nothing_changes),
        TEST(a_missing_file_is_a_mistake),
        TEST(lists_are_looked_at),
        TEST(certificates_are_looked_at),
        TEST(listeners_come_and_go),
        TEST(a_listener_with_another_port_is_another_one),
        TEST(a_listener_that_cannot_be_changes_nothing),
        TEST(old_and_new_must_go_together),
        TEST(a_file_that_waits_for_a_restart_is_not_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
