// SPDX-License-Identifier: MIT
#include "admin/admin_util_test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "admin/admin.h"
#include "base/log.h"
#include "common/settings.h"
#include "common/shard_plan.h"

/* ---- the player */

static uint8_t message[CONTROL_MESSAGE_MAX];

static void say(int fd, const struct control_request *req, int status, uint64_t cursor, uint32_t flags,
                const struct bytes *json)
{
    struct control_reply reply = {.id = req->head.id, .status = status, .cursor = cursor, .flags = flags};
    while (control_reply(fd, &reply, json->data, json->len) == -EAGAIN)
        poll(NULL, 0, 1);
}

/* Its cursor is how many have been seen. */
static uint64_t list_clients(unsigned shard, const struct control_request *req, struct bytes *out)
{
    uint64_t i = req->head.cursor;
    for (uint32_t n = 0; i < FAKE_CLIENTS && n < req->head.limit; i++, n++)
        bytes_printf(out, "%s{\"shard\":%u,\"connection_id\":%u}", n > 0 ? "," : "", shard,
                     (shard << 26) + 1 + (unsigned)i);
    return i < FAKE_CLIENTS ? i : 0;
}

static void list_names(unsigned shard, const struct control_request *req, struct bytes *out)
{
    struct slice name = req->text[CONTROL_TEXT_NAME];
    if (name.data == NULL)
        bytes_printf(out, "{\"name\":\"n%u\",\"clients\":%u,\"shard\":%u}", shard, 10 + shard, shard);
    else if (slice_eq_str(name, "all"))
        bytes_printf(out, "{\"name\":\"all\",\"clients\":%u,\"shard\":%u}", 1 + shard, shard);
    else if (slice_eq_str(name, "n1") && shard == 1)
        bytes_printf(out, "{\"name\":\"n1\",\"clients\":11,\"shard\":1}");
}

static void list_top(unsigned shard, const struct control_request *req, struct bytes *out)
{
    if (req->head.by < CONTROL_BY_GROUPS)
        bytes_printf(out, "{\"shard\":%u,\"value\":%u},{\"shard\":%u,\"value\":%u}", shard, 10 * shard + 5,
                     shard, shard);
    else
        bytes_printf(out, "{\"name\":\"room\",\"clients\":%u},{\"name\":\"own%u\",\"clients\":2}", 5 + shard,
                     shard);
}

static void list_listeners(const struct fakes *f, unsigned shard, struct bytes *out)
{
    bytes_printf(out, "{\"name\":\"one\",\"clients\":%u}", shard + 1);
    if (!f->listener_closed)
        bytes_append_str(out, ",{\"name\":\"two\",\"clients\":0}");
}

static void begin_trace(struct fakes *f, int fd, unsigned shard, const struct control_request *req)
{
    struct bytes out = {0};
    f->trace_id = req->head.id;
    bytes_printf(&out, "{\"shard\":%u,\"event\":\"trace_begin\"}\n", shard);
    say(fd, req, 0, 0, CONTROL_MORE, &out);
    for (unsigned i = 0; i < f->trace_burst; i++) {
        bytes_clear(&out);
        for (unsigned n = 0; n < 100; n++)
            bytes_printf(&out, "{\"shard\":%u,\"event\":\"in\",\"size\":%u,\"bytes\":\"%0300u\"}\n", shard, n,
                         i);
        say(fd, req, 0, 0, CONTROL_MORE, &out);
    }
    if (req->head.seconds == 1) {
        bytes_clear(&out);
        bytes_append_str(&out, "{\"event\":\"trace_end\"}\n");
        say(fd, req, 0, 0, 0, &out);
    }
    bytes_fini(&out);
}

/* What a shard says; *ret_status is 0 unless it is an error. */
static uint64_t play_shard(struct fakes *f, unsigned shard, const struct control_request *req,
                           struct bytes *out, int *ret_status)
{
    switch (req->head.op) {
    case CONTROL_CLIENTS: return list_clients(shard, req, out);
    case CONTROL_UIDS:
    case CONTROL_GROUPS: list_names(shard, req, out); return 0;
    case CONTROL_TOP: list_top(shard, req, out); return 0;
    case CONTROL_LISTENERS: list_listeners(f, shard, out); return 0;
    case CONTROL_WORKERS:
        bytes_printf(out, "{\"key\":\"127.0.0.1:w%u-%u\",\"shard\":%u}", shard, (unsigned)req->head.cursor,
                     shard);
        return req->head.cursor < 2 ? req->head.cursor + 1 : 0;
    case CONTROL_TABLES: bytes_printf(out, "{\"shard\":%u,\"name\":\"clients\"}", shard); return 0;
    case CONTROL_CHECK: bytes_printf(out, "{\"shard\":%u,\"looked_at\":9,\"problems\":[]}", shard); return 0;
    case CONTROL_CLOSE: bytes_printf(out, "{\"closed\":%u}", shard + 1); return 0;
    case CONTROL_DRAIN: bytes_printf(out, "{\"clients\":%u}", shard + 1); return 0;
    case CONTROL_REBALANCE: bytes_append_str(out, "{\"moved\":2}"); return 0;
    case CONTROL_WORKER: *ret_status = shard == 1 ? 0 : -ENOENT; return 0;
    case CONTROL_CLIENT:
        if ((req->head.client & 0xff) > FAKE_CLIENTS)
            *ret_status = -ENOENT;
        else
            bytes_printf(out, "{\"connection_id\":%u,\"shard\":%u}", req->head.client, shard);
        return 0;
    case CONTROL_INJECT:
        *ret_status = -ENOSYS;
        bytes_append_str(out, "{\"error\":\"not in this build\"}");
        return 0;
    default: return 0;
    }
}

static void play_supervisor(struct fakes *f, const struct control_request *req, struct bytes *out,
                            int *ret_status)
{
    switch (req->head.op) {
    case CONTROL_RELOAD:
        bytes_append_str(out, f->reload_problems > 0
                                  ? "{\"changed\":[],\"problems\":[\"line 3: x\"]}"
                                  : "{\"changed\":[{\"key\":\"log.level\"}],\"problems\":[]}");
        *ret_status = f->reload_problems > 0 ? -EINVAL : 0;
        break;
    case CONTROL_UNBAN:
        *ret_status = -ENOENT;
        bytes_append_str(out, "{\"error\":\"10.0.0.0/8 is not banned\"}");
        break;
    case CONTROL_EVACUATE:
        bytes_append_str(out, "{\"shard\":1,\"clients\":7,\"links\":2,\"pause_ms\":3}");
        break;
    default: bytes_append_str(out, "{}"); break;
    }
}

static void play(struct fakes *f, unsigned who, int fd, const struct control_request *req)
{
    struct bytes out = {0};
    int status = 0;
    uint64_t cursor = 0;
    struct slice name = req->text[CONTROL_TEXT_NAME];

    if (req->head.op != CONTROL_HELLO) {
        f->last = req->head;
        snprintf(f->last_name, sizeof f->last_name, "%.*s", (int)name.len,
                 name.data != NULL ? (const char *)name.data : "");
    }
    __atomic_fetch_add(&f->asked[req->head.op], 1, __ATOMIC_SEQ_CST);
    if (f->mode[who] == FAKE_SILENT)
        return;
    if (req->head.op == CONTROL_TRACE && f->mode[who] == FAKE_ANSWERS) {
        begin_trace(f, fd, who, req);
        return;
    }
    if (f->mode[who] == FAKE_GARBAGE)
        bytes_append_str(&out, "{\"half\":");
    else if (f->mode[who] == FAKE_REFUSES)
        status = -EBUSY;
    else if (who == FAKE_SHARDS)
        play_supervisor(f, req, &out, &status);
    else
        cursor = play_shard(f, who, req, &out, &status);
    say(fd, req, status, cursor, 0, &out);
    bytes_fini(&out);
}

static _Noreturn void run_player(struct fake_node *f)
{
    struct pollfd p[FAKE_SHARDS + 1];
    for (unsigned i = 0; i <= FAKE_SHARDS; i++)
        p[i] = (struct pollfd){.fd = i < FAKE_SHARDS ? f->node.control_fds[i][0] : f->supervisor[0],
                               .events = POLLIN};
    for (;;) {
        poll(p, FAKE_SHARDS + 1, -1);
        for (unsigned i = 0; i <= FAKE_SHARDS; i++) {
            struct control_request req;
            while (control_receive(p[i].fd, message, &req) == 0)
                play(f->fakes, i, p[i].fd, &req);
        }
    }
}

/* ---- the node */

static void set(struct fake_node *f, const char *section, const char *key, const char *value)
{
    static struct config_error err;
    assert_int_equal(config_set(&f->cfg, section, key, value, &err), 0);
}

static void make_config(struct fake_node *f)
{
    config_defaults(&f->cfg);
    set(f, "gateway", "runtime_dir", f->dir);
    set(f, "gateway", "shards", "3");
    set(f, "gateway", "start_port", "2900");
    set(f, "admin", "query_timeout", "400");
    set(f, "listen one", "port", "8282");
    set(f, "listen one", "protocol", "websocket");
    set(f, "listen two", "port", "8283");
    set(f, "listen two", "protocol", "text");
}

static void make_memory(struct fake_node *f)
{
    struct shard_plan plan = {.n = FAKE_SHARDS};
    for (unsigned i = 0; i < FAKE_SHARDS; i++) {
        plan.shards[i].cpu = SHARD_CPU_NONE;
        plan.shards[i].edge = plan.shards[i].link = true;
    }
    assert_int_equal(node_shm_anonymous(&plan, &f->shm_file), 0);
    f->shm = f->shm_file.shm;
    f->node.n_shards = FAKE_SHARDS;
    f->node.shared = node_shared_new();
    f->fakes = mmap(NULL, sizeof *f->fakes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_non_null(f->node.shared);
    assert_true(f->fakes != MAP_FAILED);
    for (unsigned i = 0; i < FAKE_SHARDS; i++) {
        f->shm->processes[NODE_PROCESS_SHARDS + i].pid = getpid();
        f->shm->processes[NODE_PROCESS_SHARDS + i].state = PROCESS_ALIVE;
        shard_shm_set_state(&f->shm->blocks[i].shm, SHARD_STATE_RUNNING);
        f->node.shared->shards[i].phase = NODE_UP;
        assert_int_equal(control_open(f->node.control_fds[i]), 0);
    }
    counter_set(&f->shm->blocks[0].shm.counters, COUNTER_workers, 2);
    assert_int_equal(control_open(f->supervisor), 0);
    assert_int_equal(settings_open(f->settings), 0);
}

static int listen_unix(struct fake_node *f)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    snprintf(f->socket_path, sizeof f->socket_path, "%s/admin.sock", f->dir);
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", f->socket_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(fd, 64), 0);
    return fd;
}

static int listen_tcp(struct fake_node *f)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    f->port = ntohs(addr.sin_port);
    return fd;
}

static void make_page(const struct fake_node *f)
{
    char path[128];
    snprintf(path, sizeof path, "%s/index.html", f->dir);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs("<!doctype html><title>page</title>", out);
    fclose(out);
}

static int fork_off(void (*run)(struct fake_node *f, const struct admin_start *start), struct fake_node *f,
                    const struct admin_start *a)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(f, a);
        _exit(1);
    }
    assert_true(pid > 0);
    return pid;
}

static void player(struct fake_node *f, const struct admin_start *a)
{
    run_player(f);
}

static void admin(struct fake_node *f, const struct admin_start *a)
{
    log_level_now = LOG_ERROR;
    exit(admin_main(a)); /* not _exit: the leak checker looks */
}

void fake_node_open(struct fake_node *f)
{
    memset(f, 0, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/tgg-admin-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    make_config(f);
    make_memory(f);
    make_page(f);
    admin_set_page_dir(f->dir);
    struct admin_start a = {.cfg = &f->cfg,
                            .node = &f->node,
                            .shm = f->shm,
                            .control_fd = f->supervisor[1],
                            .settings_fd = f->settings[0],
                            .socket_fd = listen_unix(f),
                            .http_fd = listen_tcp(f),
                            .token = "se-cr_et"};
    f->player = fork_off(player, f, NULL);
    f->admin = fork_off(admin, f, &a);
    close(a.socket_fd);
    close(a.http_fd);
}

int fake_node_end_admin(struct fake_node *f)
{
    int status = -1;
    if (f->admin == 0)
        return -1;
    kill(f->admin, SIGTERM);
    waitpid(f->admin, &status, 0);
    f->admin = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void fake_node_close(struct fake_node *f)
{
    char path[128];
    (void)fake_node_end_admin(f);
    kill(f->player, SIGKILL);
    waitpid(f->player, NULL, 0);
    for (unsigned i = 0; i < FAKE_SHARDS; i++) {
        close(f->node.control_fds[i][0]);
        close(f->node.control_fds[i][1]);
    }
    for (unsigned i = 0; i < 2; i++) {
        close(f->supervisor[i]);
        close(f->settings[i]);
    }
    node_shm_release(&f->shm_file);
    node_shared_free(f->node.shared);
    munmap(f->fakes, sizeof *f->fakes);
    config_fini(&f->cfg);
    unlink(f->socket_path);
    snprintf(path, sizeof path, "%s/index.html", f->dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/bans", f->dir);
    unlink(path);
    rmdir(f->dir);
}

/* ---- asking */

int fake_connect(const struct fake_node *f, bool tcp)
{
    struct timeval limit = {.tv_sec = 10};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(f->port)};
    int fd = socket(tcp ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(un.sun_path, sizeof un.sun_path, "%s", f->socket_path);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (tcp)
        assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    else
        assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof un), 0);
    return fd;
}

static void send_all(int fd, const struct bytes *b)
{
    assert_int_equal(send(fd, b->data, b->len, MSG_NOSIGNAL), b->len);
}

static char *read_all(int fd)
{
    struct bytes all = {0};
    ssize_t n;
    do {
        assert_true(bytes_reserve(&all, 65536));
        n = recv(fd, all.data + all.len, 65536, 0);
        all.len += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    bytes_append_byte(&all, 0);
    return (char *)all.data;
}

char *fake_request(const struct fake_node *f, bool tcp, const char *method, const char *target,
                   const char *head, int *ret_status, char **ret_all)
{
    struct bytes request = {0};
    int fd = fake_connect(f, tcp);

    bytes_printf(&request, "%s %s HTTP/1.1\r\n%sConnection: close\r\n%s\r\n", method, target,
                 strstr(head, "Host: ") == NULL ? "Host: tgg:80\r\n" : "", head);
    send_all(fd, &request);
    bytes_fini(&request);
    char *all = read_all(fd);
    close(fd);
    *ret_status = strlen(all) > 12 ? (int)strtol(all + 9, NULL, 10) : 0;
    char *body = strstr(all, "\r\n\r\n");
    body = strdup(body != NULL ? body + 4 : "");
    if (ret_all != NULL)
        *ret_all = all;
    else
        free(all);
    return body;
}

char *fake_get(const struct fake_node *f, const char *target, int *ret_status)
{
    return fake_request(f, false, "GET", target, "", ret_status, NULL);
}

char *fake_post(const struct fake_node *f, const char *target, int *ret_status)
{
    return fake_request(f, false, "POST", target, "", ret_status, NULL);
}

void fake_send(const struct fake_node *f, int fd, const char *method, const char *target)
{
    struct bytes request = {0};
    bytes_printf(&request, "%s %s HTTP/1.1\r\nHost: tgg:80\r\nAuthorization: Bearer se-cr_et\r\n\r\n", method,
                 target);
    send_all(fd, &request);
    bytes_fini(&request);
}

unsigned fake_read_lines(int fd, unsigned at_least, unsigned timeout_ms)
{
    unsigned lines = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char text[65536];
    /* A line of the answer begins with a brace; what is in its chunks' heads does not. */
    while (lines < at_least && poll(&p, 1, (int)timeout_ms) > 0) {
        ssize_t n = recv(fd, text, sizeof text, 0);
        if (n <= 0)
            break;
        for (ssize_t i = 0; i + 1 < n; i++)
            lines += text[i] == '}' && text[i + 1] == '\n';
    }
    return lines;
}
