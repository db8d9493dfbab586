// SPDX-License-Identifier: MIT
/* The register gives all that it has to a new process, and ends:
 *
 *   this one                                  the new one
 *   starts it                                 reads its configuration
 *   serves on               <── ready ──────
 *   stands still            ─── sockets, peers, end ──>  takes all, serves nobody yet
 *                           <── taken ──────
 *                           ─── go ────────>
 *                           <── serving ────  from here on all is its own
 *   ends
 *
 * Until "serving" has come this one can go on as if nothing had been: it kills the new one, which has neither
 * read nor written anything. The new one ends when this one does before all is there; when all is there, it
 * goes on without "go", because this one ends its side of the channel only by its death, or when the new one
 * is dead. */
#include "register/register_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/pool.h"
#include "common/config.h"
#include "common/dirs.h"
#include "common/fault.h"
#include "common/upgrade_exec.h"

#define START_MS     5000 /* from its start until it is ready; meanwhile this one serves */
#define HAND_OVER_MS 5000 /* from then until it serves */
#define NS_PER_MS    UINT64_C(1000000)
#define WHY_MAX      400

/* ---- its end */

static void end_words(struct register_server *s)
{
    struct register_upgrade *u = &s->upgrade;

    if (u->word_watch.handle != 0)
        net_epoll_watch_remove(s->net, &u->word_watch);
    timer_cancel(s->loop, &u->deadline);
}

/* Returns how it ended. */
static const char *end_process(pid_t pid, char *buf, size_t cap)
{
    int status = 0;

    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status))
        snprintf(buf, cap, "status %d%s", WEXITSTATUS(status),
                 WEXITSTATUS(status) == 78 ? ", its configuration is not good" : "");
    else
        snprintf(buf, cap, "signal %d", WTERMSIG(status));
    return buf;
}

/* The new one is dead before its channel is closed: a closed one is what tells it that this one is dead. */
static void __attribute__((format(printf, 2, 3))) give_up(struct register_server *s, const char *fmt, ...)
{
    struct register_upgrade *u = &s->upgrade;
    char why[WHY_MAX], end[64];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    end_words(s);
    end_process(u->pid, end, sizeof end);
    register__channel_close(&u->channel);
    u->pid = 0;
    u->ready = false;
    LOG(LOG_ERROR, "upgrade_failed", "why=%s end=\"%s\" note=\"nothing has changed\"",
        log_quote(why, strlen(why)), end);
    upgrade_socket_set_busy(&u->socket, false);
    upgrade_socket_failed(&u->socket, "%s (the new process: %s); nothing has changed", why, end);
}

static const char *explain(int err)
{
    return err == -EPIPE       ? "the new process has ended"
           : err == -ETIMEDOUT ? "the new process did not take it in time"
           : err == -EBADMSG   ? "the new process said something that makes no sense"
                               : strerror(-err);
}

/* ---- everything goes over */

static int put_listener(struct transfer_sink *sink, enum register_listener_kind kind, int fd,
                        const char *path)
{
    struct transfer_register_listener r = {.kind = kind, .path = {(const uint8_t *)path, strlen(path)}};
    struct bytes record = {0};
    int err = -ENOMEM;

    if (transfer_put_register_listener(&record, &r))
        err = sink->put(sink, 0, (struct slice){record.data, record.len}, fd);
    bytes_fini(&record);
    return err;
}

static int put_end(struct transfer_sink *sink, uint64_t records)
{
    struct transfer_end r = {.phase = 1, .records = records};
    struct bytes record = {0};
    int err = -ENOMEM;

    if (transfer_put_end(&record, &r))
        err = sink->put(sink, 0, (struct slice){record.data, record.len}, -1);
    bytes_fini(&record);
    return err;
}

static int put_all(struct register_server *s)
{
    struct register_upgrade *u = &s->upgrade;
    struct transfer_sink *sink = transfer_sender_sink(u->channel.out);
    bool socket = u->socket.listen_fd >= 0;

    int r = put_listener(sink, REGISTER_LISTENER_PEERS, s->listen_fd, "");
    if (r == 0 && socket)
        r = put_listener(sink, REGISTER_LISTENER_UPGRADE, u->socket.listen_fd, u->socket_path);
    if (r == 0)
        r = register__peers_put(s, sink);
    if (r == 0)
        r = put_end(sink, pool_used(s->peers) + (socket ? 2 : 1));
    return r < 0 ? r : transfer_sender_flush(u->channel.out);
}

/* The new process says it; *why holds its reason if it says that it cannot. */
static int await(struct register_server *s, enum register_word word, uint64_t deadline_ns, char *why)
{
    struct transfer_record record;
    struct transfer_register_word w;

    int r = register__channel_wait(&s->upgrade.channel, deadline_ns, &record);
    if (r == 0)
        r = register__word_of(&record, &w);
    if (r == 0 && w.word == REGISTER_WORD_FAILED)
        snprintf(why, WHY_MAX, "%.*s", (int)w.text.len, (const char *)w.text.data);
    if (r == 0 && (w.word != word || (word == REGISTER_WORD_TAKEN && w.peers != pool_used(s->peers))))
        r = -EBADMSG;
    return r;
}

static int hand_over(struct register_server *s, char *why)
{
    struct register_channel *c = &s->upgrade.channel;
    uint64_t deadline_ns = loop_clock_ns(s->loop) + HAND_OVER_MS * NS_PER_MS;

    int r = register__channel_set_deadline(c, deadline_ns);
    if (r == 0)
        r = put_all(s);
    if (r == 0)
        r = await(s, REGISTER_WORD_TAKEN, deadline_ns, why);
    if (r == 0)
        r = fault_at("old_register.taken");
    if (r == 0)
        r = register__channel_say(c, REGISTER_WORD_GO, 0, NULL);
    if (r == 0)
        r = fault_at("old_register.go");
    if (r == 0)
        r = await(s, REGISTER_WORD_SERVING, deadline_ns, why);
    if (r < 0 && why[0] == '\0')
        snprintf(why, WHY_MAX, "%s", explain(r));
    return r;
}

/* The new one serves. */
static void leave(struct register_server *s, uint64_t pause_ns)
{
    struct register_upgrade *u = &s->upgrade;
    size_t peers = pool_used(s->peers);
    uint64_t all_ms = (loop_clock_ns(s->loop) - u->begun_ns) / NS_PER_MS;
    double pause_ms = (double)pause_ns / NS_PER_MS;
    int pid = (int)u->pid;

    fault_at("old_register.serving");
    u->left = true;
    register__forget_all(s);
    s->changed = false;
    if (s->notify != NULL)
        notify_send(s->notify, "MAINPID=%d", pid);
    LOG(LOG_NOTICE, "register_handed_over", "pid=%d connections=%zu pause_ms=%.1f took_ms=%" PRIu64, pid,
        peers, pause_ms, all_ms);
    upgrade_socket_done(&u->socket, "pid=%d connections=%zu pause_ms=%.1f took_ms=%" PRIu64, pid, peers,
                        pause_ms, all_ms);
    u->pid = 0;
    register__channel_close(&u->channel);
    loop_stop(s->loop);
}

/* At the end of a turn, when everybody has been told the list as it is: nothing is half done here, and
 * nothing moves until this function is over. */
static bool hand_over_when_ready(struct loop_hook *h)
{
    struct register_upgrade *u = CONTAINER_OF(h, struct register_upgrade, hook);
    struct register_server *s = CONTAINER_OF(u, struct register_server, upgrade);
    char why[WHY_MAX] = "";

    if (!u->ready || s->changed)
        return false;
    end_words(s);
    uint64_t begun_ns = loop_clock_ns(s->loop);
    if (hand_over(s, why) < 0)
        give_up(s, "%s", why);
    else
        leave(s, loop_clock_ns(s->loop) - begun_ns);
    return false;
}

/* ---- until the new one is ready */

static void on_deadline(struct timer *t)
{
    struct register_server *s = CONTAINER_OF(t, struct register_server, upgrade.deadline);
    give_up(s, "the new process was not ready within %d ms", START_MS);
}

static void on_word(struct net_watch *w)
{
    struct register_server *s = CONTAINER_OF(w, struct register_server, upgrade.word_watch);
    struct transfer_record record;
    struct transfer_register_word word;

    int r = register__channel_next(&s->upgrade.channel, &record);
    if (r == 0)
        return;
    if (r > 0)
        r = register__word_of(&record, &word);
    if (r == 0 && word.word == REGISTER_WORD_FAILED) {
        give_up(s, "%.*s", (int)word.text.len, (const char *)word.text.data);
        return;
    }
    if (r == 0)
        r = word.word == REGISTER_WORD_READY ? fault_at("old_register.ready") : -EBADMSG;
    if (r < 0) {
        give_up(s, "%s", explain(r));
        return;
    }
    upgrade_socket_progress(&s->upgrade.socket, "the new process is ready, version %.*s", (int)word.text.len,
                            (const char *)word.text.data);
    s->upgrade.ready = true;
}

static int start(struct register_server *s, const char *binary)
{
    struct register_upgrade *u = &s->upgrade;
    const char *env[NOTIFY_VARIABLES_MAX] = {NULL};
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        return -errno;
    if (s->notify != NULL)
        notify_environment(s->notify, env);
    pid_t pid = fault_at("old_register.exec");
    if (pid == 0)
        pid = upgrade_exec(binary, env, ends[1]);
    close(ends[1]);
    int r = pid < 0 ? pid : register__channel_open(&u->channel, ends[0], 0);
    if (r < 0) {
        close(ends[0]);
        if (pid > 0)
            end_process(pid, (char[64]){0}, 64);
        return r;
    }
    u->pid = pid;
    u->word_watch.readable = on_word;
    r = net_epoll_watch_add(s->net, &u->word_watch, ends[0]);
    timer_set(s->loop, &u->deadline, r < 0 ? 0 : START_MS, on_deadline);
    return 0;
}

void register__upgrade_begin(struct register_server *s, const char *binary)
{
    struct register_upgrade *u = &s->upgrade;
    const char *why_not = upgrade_exec_why_not();

    if (u->pid != 0) {
        LOG(LOG_WARN, "upgrade_under_way", "pid=%d", (int)u->pid);
        return;
    }
    u->begun_ns = loop_clock_ns(s->loop);
    int r = why_not == NULL ? start(s, binary) : -EOPNOTSUPP;
    if (binary[0] == '\0' && why_not == NULL)
        binary = upgrade_exec_binary();
    if (r < 0) {
        const char *why = why_not != NULL ? why_not : strerror(-r);
        LOG(LOG_ERROR, "upgrade_failed", "binary=%s why=%s note=\"nothing has changed\"",
            log_quote(binary, strlen(binary)), why);
        upgrade_socket_failed(&u->socket, "%s: %s; nothing has changed",
                              why_not != NULL ? "not possible" : binary, why);
        return;
    }
    LOG(LOG_NOTICE, "upgrade_begun", "binary=%s pid=%d", log_quote(binary, strlen(binary)), (int)u->pid);
    upgrade_socket_set_busy(&u->socket, true);
    upgrade_socket_progress(&u->socket, "%s runs as process %d", binary, (int)u->pid);
}

/* ---- the socket of tgg upgrade --register */

/* Who connects is added to the set; it leaves it by its closing. */
static void on_socket(struct net_watch *w)
{
    struct register_server *s = CONTAINER_OF(w, struct register_server, upgrade.socket_watch);
    struct register_upgrade *u = &s->upgrade;
    struct epoll_event e = {.events = EPOLLIN};
    const char *binary;

    bool asked = upgrade_socket_turn(&u->socket, &binary) > 0;
    if (u->socket.fd >= 0 && epoll_ctl(u->poll_fd, EPOLL_CTL_ADD, u->socket.fd, &e) < 0 && errno != EEXIST)
        LOG(LOG_ERROR, "upgrade_socket_failed", "error=\"%s\"", strerror(errno));
    if (asked)
        register__upgrade_begin(s, binary);
}

static int watch_socket(struct register_server *s)
{
    struct register_upgrade *u = &s->upgrade;
    struct epoll_event e = {.events = EPOLLIN};

    u->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (u->poll_fd < 0 || epoll_ctl(u->poll_fd, EPOLL_CTL_ADD, u->socket.listen_fd, &e) < 0)
        return -errno;
    u->socket_watch.readable = on_socket;
    return net_epoll_watch_add(s->net, &u->socket_watch, u->poll_fd);
}

static int open_socket(struct register_server *s, int taken_fd, const char *taken_path)
{
    struct register_upgrade *u = &s->upgrade;
    const char *dir = s->config->gateway.runtime_dir;

    if (!upgrade_socket_register_path(dir, (unsigned)s->config->reg.port, u->socket_path,
                                      sizeof u->socket_path))
        return -ENAMETOOLONG;
    if (taken_fd >= 0 && strcmp(taken_path, u->socket_path) == 0) {
        upgrade_socket_adopt(&u->socket, taken_fd);
        return 0;
    }
    if (taken_fd >= 0) {
        unlink(taken_path);
        close(taken_fd);
    }
    int r = make_dirs(dir, 0755);
    return r < 0 ? r : upgrade_socket_open(&u->socket, u->socket_path);
}

static void on_usr2(struct service *service)
{
    register__upgrade_begin(CONTAINER_OF(service, struct register_server, service), "");
}

void register__upgrade_init(struct register_server *s, int taken_fd, const char *taken_path)
{
    struct register_upgrade *u = &s->upgrade;

    u->hook.run = hand_over_when_ready;
    loop_hook_add(s->loop, &u->hook);
    s->service.usr2 = on_usr2;
    int r = open_socket(s, taken_fd, taken_path);
    if (r == 0)
        r = watch_socket(s);
    if (r < 0)
        LOG(LOG_NOTICE, "no_upgrade_socket",
            "path=%s error=\"%s\" note=\"tgg upgrade --register does not reach this register, signal USR2 "
            "does\"",
            log_quote(u->socket_path, strlen(u->socket_path)), strerror(-r));
}

/* Also of one that was never initialised. */
void register__upgrade_fini(struct register_server *s)
{
    struct register_upgrade *u = &s->upgrade;

    if (u->pid != 0)
        give_up(s, "the register ends");
    if (u->socket_watch.handle != 0)
        net_epoll_watch_remove(s->net, &u->socket_watch);
    if (u->poll_fd >= 0)
        close(u->poll_fd);
    if (u->socket.listen_fd >= 0 && !u->left)
        unlink(u->socket_path);
    upgrade_socket_close(&u->socket);
    if (u->hook.run != NULL)
        loop_hook_remove(s->loop, &u->hook);
}
