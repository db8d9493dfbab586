// SPDX-License-Identifier: MIT
#include "supervisor/supervisor_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "guard/guard_shm.h"
#include "mesh/mesh.h"
#include "supervisor/core_file.h"
#include "supervisor/crash_record.h"

/* A child that was told to end at once, or whose drain time is over. With a sanitizer it looks for leaks at
 * its end, which several of them at once do for many seconds. */
#ifdef __SANITIZE_ADDRESS__
#define KILL_AFTER_STOP_MS 12000
#else
#define KILL_AFTER_STOP_MS 5000
#endif
#define KILL_AFTER_CORE_MS 1000 /* what a stuck shard gets to write its core file */
#define LOOK_AT_START_MS   10   /* between two looks at the shards until the announcer can start */
#define IDLE_MS            60000
#define CRASH_LOOP         3 /* deaths in a row, each young, that are called one */

/* A worker that reads the address from a register must find somebody there. */
static bool links_are_served(const struct supervisor *s)
{
    for (unsigned i = 0; i < s->plan.n; i++) {
        if (s->plan.shards[i].link && shard_shm_state(supervisor__shm_of(s, i)) != SHARD_STATE_RUNNING)
            return false;
    }
    return true;
}

static unsigned count_running(const struct supervisor *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < s->plan.n; i++)
        n += shard_shm_state(supervisor__shm_of(s, i)) == SHARD_STATE_RUNNING;
    return n;
}

/* ---- what they leave behind */

static void wake_others(const struct supervisor *s, unsigned shard)
{
    const uint64_t one = 1;
    for (unsigned i = 0; i < s->plan.n; i++) {
        /* It never gets full: see net_epoll.h. */
        if (i != shard && write(s->node.wake_fds[i], &one, sizeof one) < 0)
            LOG(LOG_ERROR, "shard_not_woken", "shard=%u error=\"%s\"", i, strerror(errno));
    }
}

/* Before anything else, as the others wait for what it does not do any more. */
static void bury(struct supervisor *s, unsigned shard)
{
    uint64_t from_it = 0, to_it = 0;

    if (s->plan.n > 1)
        from_it = mesh_bury(s->node.mesh, s->plan.n, s->node.ring_bytes, shard, &to_it);
    node_shared_bury(s->node.shared, shard);
    guard_shm_bury(s->node.guard, shard);
    wake_others(s, shard);
    counters_clear_gauges(&supervisor__shm_of(s, shard)->counters);
    if (s->plan.n > 1)
        LOG(LOG_NOTICE, "shard_buried", "shard=%u messages_from_it=%" PRIu64 " messages_to_it=%" PRIu64,
            shard, from_it, to_it);
}

/* A register that the dead announcer was connected to has lost us. */
static void forget_registers(const struct supervisor *s)
{
    int64_t now_unix_ms = supervisor__now_unix_s() * 1000;
    struct node_register *registers = s->shm.shm->announcer.registers;
    for (unsigned i = 0; i < NODE_REGISTERS_MAX; i++) {
        if (registers[i].connected == 0)
            continue;
        registers[i].connected = 0;
        registers[i].since_unix_ms = now_unix_ms;
    }
}

/* What to call it when that happened to a process. */
static const char *const died_events[PROCESS_KIND_N] = {
    [PROCESS_SHARD] = "shard_died", [PROCESS_ANNOUNCER] = "announcer_died", [PROCESS_ADMIN] = "admin_died"};
static const char *const ended_events[PROCESS_KIND_N] = {[PROCESS_SHARD] = "shard_ended",
                                                         [PROCESS_ANNOUNCER] = "announcer_ended",
                                                         [PROCESS_ADMIN] = "admin_ended"};
static const char *const killed_events[PROCESS_KIND_N] = {[PROCESS_SHARD] = "shard_killed",
                                                          [PROCESS_ANNOUNCER] = "announcer_killed",
                                                          [PROCESS_ADMIN] = "admin_killed"};

static void log_end(enum log_level level, const char *event, const struct child *c, int wstatus,
                    uint64_t lived_ms, unsigned retry_ms)
{
    if (WIFSIGNALED(wstatus))
        LOG(level, event, "%s signal=%d name=\"%s\" core=%s lived_ms=%" PRIu64 " restart_in_ms=%u", c->label,
            WTERMSIG(wstatus), strsignal(WTERMSIG(wstatus)), WCOREDUMP(wstatus) ? "yes" : "no", lived_ms,
            retry_ms);
    else
        LOG(level, event, "%s status=%d lived_ms=%" PRIu64 " restart_in_ms=%u", c->label,
            WEXITSTATUS(wstatus), lived_ms, retry_ms);
}

static void died(struct supervisor *s, struct child *c, int wstatus, uint64_t lived_ms)
{
    unsigned delay_ms = child_died(c, wstatus, lived_ms);

    if (c->kind == PROCESS_SHARD)
        shard_shm_set_state(supervisor__shm_of(s, c->number), SHARD_STATE_DEAD);
    if (delay_ms == 0)
        supervisor__start(s, c); /* the log can wait */
    log_end(LOG_ERROR, died_events[c->kind], c, wstatus, lived_ms, delay_ms);
    if (c->entry->deaths_young >= CRASH_LOOP)
        LOG(LOG_ERROR, "crash_loop", "%s deaths=%u delay_ms=%u", c->label, c->entry->deaths_young, delay_ms);
}

static void ended_as_told(struct supervisor *s, struct child *c, int wstatus, uint64_t lived_ms)
{
    bool clean = WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == 0;

    child_retire(c);
    if (c->kind == PROCESS_SHARD)
        shard_shm_set_state(supervisor__shm_of(s, c->number), SHARD_STATE_STOPPED);
    if (!clean)
        s->status = 1;
    log_end(clean ? LOG_NOTICE : LOG_ERROR, ended_events[c->kind], c, wstatus, lived_ms, 0);
}

/* Its connections are another process's. */
static void ended_with_another_in_place(struct child *c, int wstatus, uint64_t lived_ms)
{
    child_retire(c);
    log_end(LOG_INFO, ended_events[c->kind], c, wstatus, lived_ms, 0);
}

static void record_crash(const struct supervisor *s, const struct child *c, pid_t pid, int wstatus,
                         const struct shard_crash *crash)
{
    struct crash_death death = {
        .shard = c->number,
        .pid = pid,
        .signal = WTERMSIG(wstatus),
        .core = WCOREDUMP(wstatus),
        .unix_ms = supervisor__now_unix_s() * 1000,
        .loop_ms = child_now_ms(),
    };
    crash_record(s->cfg, &death, crash);
}

static void ended(struct supervisor *s, struct child *c, int wstatus)
{
    bool is_shard = c->kind == PROCESS_SHARD;
    pid_t pid = c->pid;
    uint64_t lived_ms = child_reaped(c);
    struct shard_crash crash;

    if (is_shard && s->stopping == STOPPING_NO) {
        upgrade_old_shard_ended(s, c->number);
        upgrade_new_shard_ended(s, c->number);
        evacuate_shard_ended(s, c->number);
    }
    if (s->stopping == STOPPING_LEAVES || !upgrade_new_is_sure(s)) {
        ended_with_another_in_place(c, wstatus, lived_ms);
        return;
    }
    if (is_shard) {
        crash = s->shm.shm->crashes[c->number].crash; /* its successor begins anew */
        bury(s, c->number);
    } else if (c->kind == PROCESS_ANNOUNCER) {
        forget_registers(s);
    }
    if (s->stopping == STOPPING_NO)
        died(s, c, wstatus, lived_ms);
    else
        ended_as_told(s, c, wstatus, lived_ms);
    if (is_shard && WIFSIGNALED(wstatus))
        record_crash(s, c, pid, wstatus, &crash);
}

static struct child *child_of(struct supervisor *s, pid_t pid)
{
    for (unsigned i = 0; i < supervisor__n_children(s); i++) {
        if (supervisor__child(s, i)->pid == pid)
            return supervisor__child(s, i);
    }
    return NULL;
}

static void reap(struct supervisor *s)
{
    int wstatus;
    for (pid_t pid; (pid = waitpid(-1, &wstatus, WNOHANG)) > 0;) {
        struct child *c = child_of(s, pid);
        if (c != NULL)
            ended(s, c, wstatus);
        else
            upgrade_old_reaped(s, pid, wstatus);
    }
}

/* ---- the end */

static bool shards_are_gone(const struct supervisor *s)
{
    for (unsigned i = 0; i < s->plan.n; i++) {
        if (s->shards[i].pid != 0)
            return false;
    }
    return true;
}

static void stop_other(struct child *c)
{
    if (c->pid == 0 || c->kill_at_ms != CHILD_NEVER)
        return;
    child_kill(c, SIGTERM);
    child_plan_kill(c, KILL_AFTER_STOP_MS);
}

/* The address stays with the registers until the last worker link is gone: a drain is no reason for workers
 * to look for another gateway before that. And who asks how the end comes on is answered until it is there.
 */
static void stop_others(struct supervisor *s)
{
    if (!shards_are_gone(s))
        return;
    stop_other(&s->announcer);
    if (s->announcer.pid == 0)
        stop_other(&s->admin);
}

static void stop_shard(struct supervisor *s, struct child *c, bool at_once)
{
    if (c->pid == 0) {
        child_retire(c);
        shard_shm_set_state(supervisor__shm_of(s, c->number), SHARD_STATE_STOPPED);
        return;
    }
    child_kill(c, at_once ? SIGINT : SIGTERM);
    child_plan_kill(c, KILL_AFTER_STOP_MS + (at_once ? 0 : s->cfg->gateway.drain_timeout * 1000));
}

void supervisor__stop(struct supervisor *s, int sig)
{
    if (upgrade_old_stops(s, sig) || upgrade_new_stops(s) || evacuate_stops(s, sig))
        return;
    bool at_once = sig == SIGINT || s->stopping != STOPPING_NO;

    LOG(LOG_NOTICE, "stopping", "signal=%s how=%s", sig == SIGINT ? "INT" : "TERM",
        at_once ? "at_once" : "drain");
    notify_send(&s->notify, "STOPPING=1");
    s->stopping = at_once ? STOPPING_AT_ONCE : STOPPING_DRAIN;
    /* Nobody is started any more: when the shards close theirs, clients are refused instead of kept waiting.
     */
    listeners_close(&s->listeners);
    NODE_STORE(s->node.shared->draining, 1); /* before the first of them is told */
    for (unsigned i = 0; i < s->plan.n; i++)
        stop_shard(s, &s->shards[i], at_once);
    for (unsigned i = s->plan.n; i < supervisor__n_children(s); i++) {
        if (supervisor__child(s, i)->pid == 0)
            child_retire(supervisor__child(s, i));
    }
}

/* ---- signals */

static void reopen_logs(struct supervisor *s)
{
    int r = log_reopen();
    if (r < 0)
        LOG(LOG_ERROR, "log_not_reopened", "error=\"%s\"", strerror(-r));
    LOG(LOG_NOTICE, "log_reopened", "signal=USR1");
    for (unsigned i = 0; i < supervisor__n_children(s); i++) {
        supervisor__give_log(s, supervisor__child(s, i));
        child_kill(supervisor__child(s, i), SIGUSR1);
    }
}

int64_t supervisor__now_unix_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec;
}

/* 0 or -errno: nothing has changed. */
static int read_again(struct supervisor *s, struct reload_report *report)
{
    struct reload_target target = {
        .cfg = s->cfg,
        .files = &s->files,
        .listeners = &s->listeners,
        .generation = s->distribution.generation + 1,
    };
    int fd = reload(&target, report);
    if (fd < 0)
        return fd;
    ticket_store_update(&s->tickets, s->cfg, s->files, supervisor__now_unix_s());
    distribution_begin(&s->distribution, &s->node, &s->listeners, fd);
    return 0;
}

int supervisor__reload(struct supervisor *s, struct reload_report *report)
{
    if (s->stopping != STOPPING_NO) {
        LOG(LOG_NOTICE, "reload_not_done", "note=\"the gateway ends\"");
        return -ESHUTDOWN;
    }
    if (supervisor__busy(s) != NULL) {
        LOG(LOG_ERROR, "reload_not_done", "note=\"%s: again when it is over\"", supervisor__busy(s));
        return -EBUSY;
    }
    if (s->ready)
        notify_reloading(&s->notify);
    int r = read_again(s, report);
    if (r == 0)
        node_shm_set_log_level(s->shm.shm, (enum log_level)s->cfg->log.level);
    if (s->ready)
        notify_send(&s->notify, "READY=1");
    return r;
}

static void on_hup(struct supervisor *s)
{
    struct reload_report report = {.json = {0}};
    supervisor__reload(s, &report);
    bytes_fini(&report.json);
}

static void on_signal(struct supervisor *s, int sig)
{
    switch (sig) {
    case SIGCHLD: reap(s); break;
    case SIGTERM:
    case SIGINT: supervisor__stop(s, sig); break;
    case SIGUSR2: upgrade_old_request(s, ""); break;
    case SIGUSR1: reopen_logs(s); break;
    case SIGHUP: on_hup(s); break;
    default: break;
    }
}

static int block_signals(struct supervisor *s)
{
    static const int list[] = {SIGTERM, SIGINT, SIGCHLD, SIGUSR1, SIGUSR2, SIGHUP};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigset_t set;

    sigaction(SIGPIPE, &ignore, NULL);
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        sigaddset(&set, list[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return s->signal_fd < 0 ? -errno : 0;
}

static void take_signals(struct supervisor *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        on_signal(s, (int)info.ssi_signo);
}

/* ---- shards that do not turn */

static void give_up_stuck(struct child *c)
{
    if (core_file_is_possible()) {
        child_kill(c, SIGABRT);
        child_plan_kill(c, KILL_AFTER_CORE_MS);
    } else {
        child_plan_kill(c, 0);
    }
}

static void on_missed(struct supervisor *s, struct child *c, unsigned missed)
{
    LOG(LOG_ERROR, "shard_stuck", "shard=%u pid=%d missed=%u of=%d stuck_timeout_s=%" PRIu64, c->number,
        (int)c->pid, missed, WATCHDOG_MISSES_MAX, s->cfg->gateway.stuck_timeout);
    c->entry->state = PROCESS_STUCK;
    if (missed == 1) {
        child_kill(c, SIGQUIT);
        /* To one that drains a second TERM would say: at once. */
        if (s->stopping == STOPPING_NO)
            child_kill(c, SIGTERM);
    } else if (missed == WATCHDOG_MISSES_MAX) {
        give_up_stuck(c);
    }
}

static void look_at_shard(struct supervisor *s, struct child *c, uint64_t now_ms)
{
    const struct shard_shm *shm = supervisor__shm_of(s, c->number);
    enum shard_state state = shard_shm_state(shm);

    uint64_t turns = __atomic_load_n(&shm->turns, __ATOMIC_RELAXED);

    /* One that takes over takes turns before it serves. */
    bool turned = state == SHARD_STATE_STARTING && turns > 0;
    if (c->pid == 0 || (state != SHARD_STATE_RUNNING && state != SHARD_STATE_DRAINING && !turned))
        return;
    unsigned missed = watchdog_look(&c->watchdog, turns, now_ms, s->cfg->gateway.stuck_timeout * 1000);
    if (missed > 0) {
        on_missed(s, c, missed);
    } else if (c->entry->state == PROCESS_STUCK && c->watchdog.missed == 0) {
        LOG(LOG_WARN, "shard_turns_again", "shard=%u pid=%d", c->number, (int)c->pid);
        c->entry->state = PROCESS_ALIVE;
    }
}

static void look_at_shards(struct supervisor *s, uint64_t now_ms)
{
    uint64_t timeout_ms = s->cfg->gateway.stuck_timeout * 1000;
    if (timeout_ms == 0 || now_ms < s->look_at_ms)
        return;
    s->look_at_ms = now_ms + timeout_ms / 4;
    if (upgrade_old_holds(s) || evacuate_busy(s) != NULL) /* they stand still because they were told to */
        return;
    for (unsigned i = 0; i < s->plan.n; i++)
        look_at_shard(s, &s->shards[i], now_ms);
}

/* ---- the service manager */

static void describe(const struct supervisor *s, char *buf, size_t cap)
{
    unsigned running = count_running(s);
    if (s->stopping != STOPPING_NO)
        snprintf(buf, cap, "%s", s->stopping == STOPPING_DRAIN ? "drains" : "ends");
    else if (running < s->plan.n)
        snprintf(buf, cap, "%u of %u shards run", running, s->plan.n);
    else
        snprintf(buf, cap, "%u shard%s run%s", running, running == 1 ? "" : "s", running == 1 ? "s" : "");
}

/* Whenever it has changed. READY comes once: that a shard dies later is our business. */
static void tell_manager(struct supervisor *s, uint64_t now_ms)
{
    char status[sizeof s->told];

    if (s->stopping == STOPPING_LEAVES || !upgrade_new_may_tell(s))
        return;
    if (!s->ready && s->announced && count_running(s) == s->plan.n) {
        s->ready = true;
        LOG(LOG_NOTICE, "ready", "shards=%u", s->plan.n);
        notify_send(&s->notify, "READY=1");
    }
    describe(s, status, sizeof status);
    if (strcmp(status, s->told) != 0) {
        memcpy(s->told, status, sizeof status);
        notify_send(&s->notify, "STATUS=%s", status);
    }
    notify_turn(&s->notify, now_ms);
}

/* ---- the run */

static void on_time_of(struct supervisor *s, struct child *c, uint64_t now_ms)
{
    if (c->restart_at_ms <= now_ms && s->stopping == STOPPING_NO)
        supervisor__start(s, c);
    if (c->kill_at_ms <= now_ms && c->pid != 0) {
        LOG(LOG_ERROR, killed_events[c->kind], "%s note=\"it did not end in time\"", c->label);
        child_kill(c, SIGKILL);
        c->kill_at_ms = CHILD_NEVER;
    }
}

static void on_time(struct supervisor *s)
{
    uint64_t now_ms = child_now_ms();

    for (unsigned i = 0; i < supervisor__n_children(s); i++)
        on_time_of(s, supervisor__child(s, i), now_ms);
    look_at_shards(s, now_ms);
    distribution_turn(&s->distribution, &s->node);
    if (s->stopping == STOPPING_NO && upgrade_new_is_sure(s))
        ticket_store_turn(&s->tickets, supervisor__now_unix_s());
    if (s->stopping == STOPPING_DRAIN || s->stopping == STOPPING_AT_ONCE)
        stop_others(s);
    else if (s->stopping == STOPPING_NO && !s->announced && upgrade_new_is_sure(s) && links_are_served(s))
        supervisor__start(s, &s->announcer);
    upgrade_old_turn(s, now_ms);
    upgrade_new_turn(s, now_ms);
    evacuate_turn(s, now_ms);
    tell_manager(s, now_ms);
    log_flush();
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* At least a second from now: a key that could not be made is tried again then. */
static uint64_t tickets_due_ms(const struct supervisor *s, uint64_t now_ms)
{
    int64_t due_unix_s = ticket_store_due_unix_s(&s->tickets), now = supervisor__now_unix_s();
    if (due_unix_s == INT64_MAX)
        return UINT64_MAX;
    return now_ms + (due_unix_s > now + 1 ? (uint64_t)(due_unix_s - now) : 1) * 1000;
}

static uint64_t next_ms(struct supervisor *s, uint64_t now_ms)
{
    uint64_t next = earlier(now_ms + IDLE_MS, notify_due_ms(&s->notify));

    for (unsigned i = 0; i < supervisor__n_children(s); i++) {
        const struct child *c = supervisor__child(s, i);
        next = earlier(next, earlier(c->restart_at_ms, c->kill_at_ms));
    }
    if (s->cfg->gateway.stuck_timeout != 0)
        next = earlier(next, s->look_at_ms);
    if (!s->ready && s->stopping == STOPPING_NO && upgrade_new_is_sure(s))
        next = earlier(next, now_ms + LOOK_AT_START_MS);
    if (distribution_waits(&s->distribution))
        next = earlier(next, now_ms + DISTRIBUTION_RETRY_MS);
    next = earlier(next, earlier(upgrade_old_due_ms(s), upgrade_new_due_ms(s, now_ms)));
    next = earlier(next, evacuate_due_ms(s));
    return earlier(next, tickets_due_ms(s, now_ms));
}

/* -1: passed over. The shards have something to say only when connections move. */
static unsigned what_to_poll(const struct supervisor *s, struct pollfd *fds)
{
    const int single[] = {s->signal_fd,         s->admin_control[0], s->upgrade_socket.listen_fd,
                          s->upgrade_socket.fd, s->upgrade_old.fd,   s->upgrade_new.fd};
    unsigned n = 0;

    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++)
        fds[n++] = (struct pollfd){.fd = single[i], .events = POLLIN};
    for (unsigned i = 0; i < s->plan.n && supervisor__busy(s) != NULL; i++)
        fds[n++] = (struct pollfd){.fd = s->node.upgrade_fds[i][1], .events = POLLIN};
    return n;
}

static void wait_and_handle(struct supervisor *s)
{
    uint64_t now_ms = child_now_ms(), until_ms = next_ms(s, now_ms);
    struct pollfd fds[8 + NODE_SHARDS_MAX];
    unsigned n = what_to_poll(s, fds);

    poll(fds, n, until_ms > now_ms ? (int)(until_ms - now_ms) : 0);
    take_signals(s);
    if (s->admin_control[0] >= 0)
        supervisor__take_orders(s);
    upgrade_old_listen(s);
    on_time(s);
}

/* Of those that end in order. */
static bool goes_on(const struct supervisor *s)
{
    return s->stopping == STOPPING_NO || !shards_are_gone(s) || s->announcer.pid != 0 || s->admin.pid != 0 ||
           (s->stopping == STOPPING_LEAVES && !upgrade_old_has_left(s, child_now_ms()));
}

static void run(struct supervisor *s)
{
    supervisor__log_start(s);
    upgrade_new_begin(s);
    for (unsigned i = 0; i < s->plan.n && s->stopping == STOPPING_NO; i++)
        supervisor__start(s, &s->shards[i]);
    /* The announcer once it is worth it. */
    if (s->cfg->admin.enabled && upgrade_new_is_sure(s))
        supervisor__start(s, &s->admin);
    while (goes_on(s))
        wait_and_handle(s);
    if (s->stopping == STOPPING_LEAVES)
        upgrade_old_farewell(s);
    s->shm.shm->processes[NODE_PROCESS_SUPERVISOR].state = PROCESS_ENDED;
    s->shm.shm->processes[NODE_PROCESS_SUPERVISOR].pid = 0;
    LOG(LOG_NOTICE, "ended", "status=%d", s->status);
}

const char *supervisor__busy(const struct supervisor *s)
{
    const char *why = upgrade_old_busy(s);
    if (why == NULL)
        why = upgrade_new_busy(s);
    return why != NULL ? why : evacuate_busy(s);
}

void supervisor_refuse_upgrade(int upgrade_fd, const struct config_error *err)
{
    upgrade_new_refuse(upgrade_fd, err);
}

static void init(struct supervisor *s, struct config *cfg, int upgrade_fd)
{
    s->cfg = cfg;
    s->pid = getpid();
    s->signal_fd = s->shm.fd = s->admin_control[0] = s->admin_control[1] = -1;
    listeners_init(&s->listeners);
    distribution_init(&s->distribution);
    admin_ports_init(&s->admin_ports);
    upgrade_socket_adopt(&s->upgrade_socket, -1);
    upgrade_old_init(&s->upgrade_old);
    upgrade_new_init(&s->upgrade_new, upgrade_fd);
    evacuate_init(&s->evacuate);
    notify_open(&s->notify);
}

int supervisor_run(struct config *cfg, int upgrade_fd, shard_main_fn *shard_main,
                   announce_main_fn *announce_main, admin_main_fn *admin_main)
{
    struct config_error *err = calloc(1, sizeof *err);
    struct supervisor *s = calloc(1, sizeof *s);
    int status = 1;

    if (err == NULL || s == NULL)
        goto out;
    init(s, cfg, upgrade_fd);
    s->shard_main = shard_main;
    s->announce_main = announce_main;
    s->admin_main = admin_main;
    int r = block_signals(s); /* first: no signal may come before its handling */
    if (r < 0)
        config_error_add(err, 0, "", "", "no descriptor for signals: %s", strerror(-r));
    if (r < 0 || supervisor__set_up(s, err) < 0) {
        config_error_print(stderr, err);
        if (upgrade_fd >= 0)
            upgrade_new_refuse(upgrade_fd, err);
        s->status = s->status != 0 ? s->status : 1;
    } else {
        run(s);
    }
    status = s->status;
    supervisor__clean_up(s);
out:
    free(s);
    free(err);
    return status;
}
