// SPDX-License-Identifier: MIT
#include "supervisor/supervisor.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/log.h"
#include "common/file_limit.h"
#include "common/log_setup.h"
#include "common/node_shm.h"
#include "guard/guard_shm.h"
#include "mesh/mesh.h"
#include "supervisor/check.h"
#include "supervisor/child.h"
#include "supervisor/core_file.h"
#include "supervisor/distribution.h"
#include "supervisor/listeners.h"
#include "supervisor/node_memory.h"
#include "supervisor/privileges.h"
#include "supervisor/reload.h"
#include "supervisor/sandbox.h"
#include "supervisor/stack_dump.h"
#include "supervisor/ticket_store.h"

#define KILL_AFTER_STOP_MS 5000 /* a child that was told to end at once, or whose drain time is over */
#define KILL_AFTER_CORE_MS 1000 /* what a stuck shard gets to write its core file */
#define LOOK_AT_START_MS   10   /* between two looks at the shards until the announcer can start */
#define IDLE_MS            60000
#define CRASH_LOOP         3 /* deaths in a row, each young, that are called one */

enum stopping { STOPPING_NO, STOPPING_DRAIN, STOPPING_AT_ONCE };

struct supervisor {
    struct config *cfg;
    struct files *files; /* of cfg */
    shard_main_fn *shard_main;
    announce_main_fn *announce_main;
    struct shard_plan plan;
    struct listeners listeners;
    struct node_shm_file shm;
    struct node node;
    struct privileges privileges; /* of the children */
    struct ticket_store tickets;
    struct distribution distribution;
    pid_t pid;
    sigset_t signals;
    enum stopping stopping;
    struct child shards[NODE_SHARDS_MAX];
    struct child announcer;
    bool announced;      /* it was started once: from then on it lives as the shards do */
    uint64_t look_at_ms; /* when the watchdog is due */
    int status;          /* ours */
};

static struct shard_shm *shm_of(const struct supervisor *s, unsigned shard)
{
    return node_shm_shard(s->shm.shm, shard);
}

/* ---- the children's processes */

static void pin(const struct supervisor *s, unsigned shard)
{
    int cpu = s->plan.shards[shard].cpu;
    cpu_set_t set;

    if (cpu == SHARD_CPU_NONE)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0)
        LOG(LOG_WARN, "shard_not_pinned", "shard=%u cpu=%d error=\"%s\"", shard, cpu, strerror(errno));
}

/* It opens its log as the user that it is then, as it will have to after USR1. */
static void become_child(const struct supervisor *s, const struct child *c)
{
    int r = privileges_drop(&s->privileges, s->pid);
    if (r < 0) {
        LOG(LOG_ERROR, "privileges_not_dropped", "%s user=%s error=\"%s\"", c->label, s->privileges.user,
            strerror(-r));
        exit(1);
    }
    child_open_log(c, s->cfg);
}

/* Last: what comes before needs more than the shard does. */
static void enter_sandbox(const struct supervisor *s, const struct child *c)
{
    if (!s->privileges.confine)
        return;
    int r = sandbox_enter(c->name);
    if (r == -ENOSYS)
        LOG(LOG_NOTICE, "sandbox_off", "%s note=\"a sanitizer or valgrind needs more than it allows\"",
            c->label);
    else if (r < 0)
        LOG(LOG_WARN, "sandbox_not_entered", "%s error=\"%s\" note=\"it runs without seccomp\"", c->label,
            strerror(-r));
}

static _Noreturn void run_shard(struct supervisor *s, const struct child *c)
{
    unsigned shard = c->number;
    struct shard_start start = {
        .shard = shard,
        .cfg = s->cfg,
        .files = s->files,
        .node = &s->node,
        .listen_fds = listeners_of(&s->listeners, shard),
        .internal_fd = s->plan.shards[shard].link ? s->listeners.internal_fd : -1,
        .shm = shm_of(s, shard),
        .settings_fd = s->node.settings_fds[shard][0],
        .guard = s->node.guard,
        .tickets = s->node.tickets,
    };

    become_child(s, c);
    listeners_keep(&s->listeners, shard);
    node_memory_keep(&s->node, shard);
    distribution_fini(&s->distribution);
    ticket_store_fini(&s->tickets);
    pin(s, shard);
    stack_dump_install(c->name, &start.shm->stacks);
    enter_sandbox(s, c);
    exit(s->shard_main(&start));
}

static _Noreturn void run_announcer(struct supervisor *s, const struct child *c)
{
    struct announce_start start = {.cfg = s->cfg, .counters = &s->shm.shm->announcer.counters};

    become_child(s, c);
    /* It talks to name servers: without what it does not need of the keys of clients' connections (copies
     * that their check left in freed memory are not looked for). */
    listeners_close(&s->listeners);
    node_memory_free(&s->node);
    distribution_fini(&s->distribution);
    ticket_store_fini(&s->tickets);
    files_free(s->files);
    exit(s->announce_main(&start));
}

/* Whoever is to open it may not make files in that folder. */
static void give_log(const struct supervisor *s, const struct child *c)
{
    char path[PATH_MAX];
    if (!child_log_path(c, s->cfg, path, sizeof path))
        return;
    int r = privileges_give_file(&s->privileges, path);
    if (r < 0)
        LOG(LOG_ERROR, "log_not_given", "%s path=\"%s\" user=%s error=\"%s\"", c->label, path,
            s->privileges.user, strerror(-r));
}

static void start_shard(struct supervisor *s, struct child *c)
{
    shard_shm_set_state(shm_of(s, c->number), SHARD_STATE_STARTING);
    give_log(s, c);
    distribution_skip(&s->distribution, &s->node, c->number);
    int r = child_fork(c);
    if (r == 0)
        run_shard(s, c);
    if (r > 0)
        LOG(LOG_NOTICE, "shard_started", "shard=%u pid=%d cpu=%d", c->number, (int)c->pid,
            s->plan.shards[c->number].cpu);
}

static void start_announcer(struct supervisor *s)
{
    s->announced = true;
    give_log(s, &s->announcer);
    int r = child_fork(&s->announcer);
    if (r == 0)
        run_announcer(s, &s->announcer);
    if (r > 0)
        LOG(LOG_NOTICE, "announcer_started", "pid=%d", (int)s->announcer.pid);
}

static void start(struct supervisor *s, struct child *c)
{
    if (c->kind == PROCESS_SHARD)
        start_shard(s, c);
    else
        start_announcer(s);
}

/* A worker that reads the address from a register must find somebody there. */
static bool links_are_served(const struct supervisor *s)
{
    for (unsigned i = 0; i < s->plan.n; i++) {
        if (s->plan.shards[i].link && shard_shm_state(shm_of(s, i)) != SHARD_STATE_RUNNING)
            return false;
    }
    return true;
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
    counters_clear_gauges(&shm_of(s, shard)->counters);
    if (s->plan.n > 1)
        LOG(LOG_NOTICE, "shard_buried", "shard=%u messages_from_it=%" PRIu64 " messages_to_it=%" PRIu64,
            shard, from_it, to_it);
}

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
    bool is_shard = c->kind == PROCESS_SHARD;
    unsigned delay_ms = child_died(c, wstatus, lived_ms);

    if (is_shard)
        shard_shm_set_state(shm_of(s, c->number), SHARD_STATE_DEAD);
    if (delay_ms == 0)
        start(s, c); /* the log can wait */
    log_end(LOG_ERROR, is_shard ? "shard_died" : "announcer_died", c, wstatus, lived_ms, delay_ms);
    if (c->entry->deaths_young >= CRASH_LOOP)
        LOG(LOG_ERROR, "crash_loop", "%s deaths=%u delay_ms=%u", c->label, c->entry->deaths_young, delay_ms);
}

static void ended_as_told(struct supervisor *s, struct child *c, int wstatus, uint64_t lived_ms)
{
    bool is_shard = c->kind == PROCESS_SHARD;
    bool clean = WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == 0;

    child_retire(c);
    if (is_shard)
        shard_shm_set_state(shm_of(s, c->number), SHARD_STATE_STOPPED);
    if (!clean)
        s->status = 1;
    log_end(clean ? LOG_NOTICE : LOG_ERROR, is_shard ? "shard_ended" : "announcer_ended", c, wstatus,
            lived_ms, 0);
}

static void ended(struct supervisor *s, struct child *c, int wstatus)
{
    uint64_t lived_ms = child_reaped(c);

    if (c->kind == PROCESS_SHARD)
        bury(s, c->number);
    if (s->stopping == STOPPING_NO)
        died(s, c, wstatus, lived_ms);
    else
        ended_as_told(s, c, wstatus, lived_ms);
}

static struct child *child_of(struct supervisor *s, pid_t pid)
{
    for (unsigned i = 0; i < s->plan.n; i++) {
        if (s->shards[i].pid == pid)
            return &s->shards[i];
    }
    return s->announcer.pid == pid ? &s->announcer : NULL;
}

static void reap(struct supervisor *s)
{
    int wstatus;
    for (pid_t pid; (pid = waitpid(-1, &wstatus, WNOHANG)) > 0;) {
        struct child *c = child_of(s, pid);
        if (c != NULL)
            ended(s, c, wstatus);
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

/* The address stays with the registers until the last worker link is gone: a drain is no reason for workers
 * to look for another gateway before that. */
static void stop_announcer(struct supervisor *s)
{
    if (s->announcer.pid == 0 || s->announcer.kill_at_ms != CHILD_NEVER || !shards_are_gone(s))
        return;
    child_kill(&s->announcer, SIGTERM);
    child_plan_kill(&s->announcer, KILL_AFTER_STOP_MS);
}

static void stop_shard(struct supervisor *s, struct child *c, bool at_once)
{
    if (c->pid == 0) {
        child_retire(c);
        shard_shm_set_state(shm_of(s, c->number), SHARD_STATE_STOPPED);
        return;
    }
    child_kill(c, at_once ? SIGINT : SIGTERM);
    child_plan_kill(c, KILL_AFTER_STOP_MS + (at_once ? 0 : s->cfg->gateway.drain_timeout * 1000));
}

static void stop(struct supervisor *s, int sig)
{
    bool at_once = sig == SIGINT || s->stopping != STOPPING_NO;

    LOG(LOG_NOTICE, "stopping", "signal=%s how=%s", sig == SIGINT ? "INT" : "TERM",
        at_once ? "at_once" : "drain");
    s->stopping = at_once ? STOPPING_AT_ONCE : STOPPING_DRAIN;
    /* Nobody is started any more: when the shards close theirs, clients are refused instead of kept waiting.
     */
    listeners_close(&s->listeners);
    NODE_STORE(s->node.shared->draining, 1); /* before the first of them is told */
    for (unsigned i = 0; i < s->plan.n; i++)
        stop_shard(s, &s->shards[i], at_once);
    if (s->announcer.pid == 0)
        child_retire(&s->announcer);
}

/* ---- signals */

static void reopen_logs(struct supervisor *s)
{
    int r = log_reopen();
    if (r < 0)
        LOG(LOG_ERROR, "log_not_reopened", "error=\"%s\"", strerror(-r));
    LOG(LOG_NOTICE, "log_reopened", "signal=USR1");
    for (unsigned i = 0; i < s->plan.n; i++) {
        give_log(s, &s->shards[i]);
        child_kill(&s->shards[i], SIGUSR1);
    }
    give_log(s, &s->announcer);
    child_kill(&s->announcer, SIGUSR1);
}

static int64_t now_unix_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ts.tv_sec;
}

static void read_again(struct supervisor *s)
{
    if (s->stopping != STOPPING_NO) {
        LOG(LOG_NOTICE, "reload_not_done", "note=\"the gateway ends\"");
        return;
    }
    int fd = reload(s->cfg, &s->files);
    if (fd < 0)
        return;
    ticket_store_update(&s->tickets, s->cfg, s->files, now_unix_s());
    distribution_begin(&s->distribution, &s->node, fd);
}

static void on_signal(struct supervisor *s, int sig)
{
    switch (sig) {
    case SIGCHLD: reap(s); break;
    case SIGTERM:
    case SIGINT: stop(s, sig); break;
    case SIGUSR1: reopen_logs(s); break;
    case SIGHUP: read_again(s); break;
    default: break;
    }
}

static void block_signals(struct supervisor *s)
{
    static const int list[] = {SIGTERM, SIGINT, SIGCHLD, SIGUSR1, SIGUSR2, SIGHUP};
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGPIPE, &ignore, NULL);
    sigemptyset(&s->signals);
    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        sigaddset(&s->signals, list[i]);
    sigprocmask(SIG_BLOCK, &s->signals, NULL);
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
    const struct shard_shm *shm = shm_of(s, c->number);
    enum shard_state state = shard_shm_state(shm);

    if (c->pid == 0 || (state != SHARD_STATE_RUNNING && state != SHARD_STATE_DRAINING))
        return;
    unsigned missed = watchdog_look(&c->watchdog, __atomic_load_n(&shm->turns, __ATOMIC_RELAXED), now_ms,
                                    s->cfg->gateway.stuck_timeout * 1000);
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
    for (unsigned i = 0; i < s->plan.n; i++)
        look_at_shard(s, &s->shards[i], now_ms);
}

/* ---- the run */

static void on_time_of(struct supervisor *s, struct child *c, uint64_t now_ms)
{
    if (c->restart_at_ms <= now_ms && s->stopping == STOPPING_NO)
        start(s, c);
    if (c->kill_at_ms <= now_ms && c->pid != 0) {
        LOG(LOG_ERROR, c->kind == PROCESS_SHARD ? "shard_killed" : "announcer_killed",
            "%s note=\"it did not end in time\"", c->label);
        child_kill(c, SIGKILL);
        c->kill_at_ms = CHILD_NEVER;
    }
}

static void on_time(struct supervisor *s)
{
    uint64_t now_ms = child_now_ms();

    for (unsigned i = 0; i < s->plan.n; i++)
        on_time_of(s, &s->shards[i], now_ms);
    on_time_of(s, &s->announcer, now_ms);
    look_at_shards(s, now_ms);
    distribution_turn(&s->distribution, &s->node);
    ticket_store_turn(&s->tickets, now_unix_s());
    if (s->stopping != STOPPING_NO)
        stop_announcer(s);
    else if (!s->announced && links_are_served(s))
        start_announcer(s);
    log_flush();
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* At least a second from now: a key that could not be made is tried again then. */
static uint64_t tickets_due_ms(const struct supervisor *s, uint64_t now_ms)
{
    int64_t due_unix_s = ticket_store_due_unix_s(&s->tickets), now = now_unix_s();
    if (due_unix_s == INT64_MAX)
        return UINT64_MAX;
    return now_ms + (due_unix_s > now + 1 ? (uint64_t)(due_unix_s - now) : 1) * 1000;
}

static uint64_t next_ms(const struct supervisor *s, uint64_t now_ms)
{
    uint64_t next = now_ms + IDLE_MS;

    for (unsigned i = 0; i < s->plan.n; i++)
        next = earlier(next, earlier(s->shards[i].restart_at_ms, s->shards[i].kill_at_ms));
    next = earlier(next, earlier(s->announcer.restart_at_ms, s->announcer.kill_at_ms));
    if (s->cfg->gateway.stuck_timeout != 0)
        next = earlier(next, s->look_at_ms);
    if (!s->announced && s->stopping == STOPPING_NO)
        next = earlier(next, now_ms + LOOK_AT_START_MS);
    if (distribution_waits(&s->distribution))
        next = earlier(next, now_ms + DISTRIBUTION_RETRY_MS);
    return earlier(next, tickets_due_ms(s, now_ms));
}

static void wait_and_handle(struct supervisor *s)
{
    uint64_t now_ms = child_now_ms(), until_ms = next_ms(s, now_ms);
    uint64_t wait_ms = until_ms > now_ms ? until_ms - now_ms : 0;
    struct timespec ts = {.tv_sec = (time_t)(wait_ms / 1000), .tv_nsec = (long)(wait_ms % 1000) * 1000000};

    int sig = sigtimedwait(&s->signals, NULL, &ts);
    if (sig > 0)
        on_signal(s, sig);
    on_time(s);
}

/* ---- before the run */

/* With a folder that cannot be had a gateway still runs, only without a memory of its ids; but not beside
 * another one that uses the same folder. */
static int open_shm(struct supervisor *s, struct config_error *err)
{
    const struct config *cfg = s->cfg;
    int r = node_shm_create(cfg->gateway.runtime_dir, &s->plan, &s->shm);

    if (r == -EBUSY) {
        config_error_add(err, cfg->gateway.line.runtime_dir, "gateway", "runtime_dir",
                         "%s is in use by another gateway (see: tgg status); expected a folder of its own",
                         cfg->gateway.runtime_dir);
        return r;
    }
    if (r < 0) {
        LOG(LOG_WARN, "runtime_dir_not_usable",
            "path=\"%s\" error=\"%s\" note=\"connection ids start by the clock, tgg status sees nothing\"",
            cfg->gateway.runtime_dir, strerror(-r));
        r = node_shm_anonymous(&s->plan, &s->shm);
    }
    if (r < 0)
        config_error_add(err, 0, "", "", "no shared memory: %s", strerror(-r));
    return r;
}

static void fill_shm(struct supervisor *s)
{
    struct node_shm *shm = s->shm.shm;
    struct node_process *own = &shm->processes[NODE_PROCESS_SUPERVISOR];
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    own->pid = getpid();
    own->state = PROCESS_ALIVE;
    own->start_unix_ms = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
    shm->supervisor_pid = own->pid;
    shm->supervisor_start_unix_ms = own->start_unix_ms;
    shm->ring_bytes = s->node.ring_bytes;
    shm->max_clients = s->node.max_clients;
    snprintf(shm->config_path, sizeof shm->config_path, "%s", s->cfg->source_path);
}

static void init_children(struct supervisor *s)
{
    struct node_process *entries = s->shm.shm->processes;
    for (unsigned i = 0; i < s->plan.n; i++)
        child_init(&s->shards[i], PROCESS_SHARD, i, &entries[NODE_PROCESS_SHARDS + i]);
    child_init(&s->announcer, PROCESS_ANNOUNCER, 0, &entries[NODE_PROCESS_ANNOUNCER]);
}

/* As each child will do it: a folder that only root may enter is found out now, not by a shard. */
static int check_log_of(const struct supervisor *s, const struct child *c, struct config_error *err)
{
    char path[PATH_MAX];
    if (!child_log_path(c, s->cfg, path, sizeof path))
        return 0;
    int r = privileges_give_file(&s->privileges, path);
    if (r == 0)
        r = privileges_try_append(&s->privileges, path);
    if (r < 0)
        config_error_add(err, s->cfg->log.line.directory, "log", "directory",
                         "%s: %s; expected a folder that [gateway] user (%s) can enter, and in it no "
                         "files or its own",
                         path, strerror(-r), s->privileges.user);
    return r;
}

static int check_logs(const struct supervisor *s, struct config_error *err)
{
    int r = check_log_of(s, &s->announcer, err);
    for (unsigned i = 0; i < s->plan.n && r == 0; i++)
        r = check_log_of(s, &s->shards[i], err);
    return r;
}

/* What it says, and what it names. */
static int check(struct supervisor *s, struct config_error *err)
{
    int r_user = privileges_resolve(s->cfg, &s->privileges, err);
    int r = check_files(s->cfg, (struct slice){NULL, 0}, &s->files, err);
    return r_user < 0 ? r_user : r;
}

/* Everything that can be wrong, before anything is started. */
static int set_up(struct supervisor *s, struct config_error *err)
{
    snprintf(err->path, sizeof err->path, "%s", s->cfg->source_path);
    file_limit_raise();
    int r = check(s, err);
    if (r < 0)
        s->status = EX_CONFIG;
    if (r < 0 || (r = shard_plan_make(s->cfg, &s->plan, err)) < 0 ||
        (r = listeners_open(s->cfg, &s->plan, &s->listeners, err)) < 0)
        return r;
    if (s->privileges.change &&
        (r = listeners_give_files(s->cfg, s->privileges.uid, s->privileges.gid)) < 0) {
        config_error_add(err, 0, "", "", "socket files cannot be given to %s: %s", s->privileges.user,
                         strerror(-r));
        return r;
    }
    if ((r = log_setup(s->cfg, "supervisor", "supervisor.log", err)) < 0)
        return r;
    if ((r = open_shm(s, err)) < 0 || (r = node_memory_make(s->cfg, s->plan.n, &s->node, err)) < 0)
        return r;
    fill_shm(s);
    init_children(s);
    ticket_store_init(&s->tickets, s->cfg, s->node.tickets);
    if ((r = check_logs(s, err)) < 0)
        return r;
    ticket_store_update(&s->tickets, s->cfg, s->files, now_unix_s());
    hash_init(); /* here, so that all shards hash alike: the names that they tell each other of */
    return 0;
}

static void log_start(const struct supervisor *s)
{
    const struct config *cfg = s->cfg;
    char internal[80];

    LOG(LOG_NOTICE, "started",
        "version=%s pid=%d config=\"%s\" internal=%s:%" PRIu64 " shards=%u next_seq=%u continued=%s",
        TGG_VERSION, (int)getpid(), cfg->source_path,
        listeners_internal_address(cfg, internal, sizeof internal), cfg->gateway.start_port, s->plan.n,
        shm_of(s, 0)->next_seq, s->shm.continued ? "yes" : "no");
    if (s->plan.cpus_short)
        LOG(LOG_WARN, "fewer_cpus_than_shards", "shards=%u cpus=\"%s\" note=\"some shards share one\"",
            s->plan.n, cfg->gateway.cpus);
    LOG(LOG_NOTICE, "privileges", "user=%s sandbox=%s",
        s->privileges.change ? s->privileges.user : "as_started", config_sandbox_name(cfg->gateway.sandbox));
    if (s->privileges.ignored)
        LOG(LOG_WARN, "user_not_changed", "user=%s note=\"only root can become another\"",
            s->privileges.user);
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        const struct config_listen *l = &cfg->listen[i];
        LOG(LOG_NOTICE, "listening", "name=%s address=%s port=%" PRIu64 " protocol=%s", l->name, l->address,
            l->port, config_protocol_name(l->protocol));
    }
}

static void run(struct supervisor *s)
{
    log_start(s);
    for (unsigned i = 0; i < s->plan.n; i++)
        start_shard(s, &s->shards[i]);
    while (s->stopping == STOPPING_NO || !shards_are_gone(s) || s->announcer.pid != 0)
        wait_and_handle(s);
    s->shm.shm->processes[NODE_PROCESS_SUPERVISOR].state = PROCESS_ENDED;
    s->shm.shm->processes[NODE_PROCESS_SUPERVISOR].pid = 0;
    LOG(LOG_NOTICE, "ended", "status=%d", s->status);
}

static void clean_up(struct supervisor *s)
{
    listeners_close(&s->listeners);
    distribution_fini(&s->distribution);
    ticket_store_fini(&s->tickets);
    node_memory_free(&s->node);
    files_free(s->files);
    node_shm_release(&s->shm);
    log_close();
}

int supervisor_run(struct config *cfg, shard_main_fn *shard_main, announce_main_fn *announce_main)
{
    struct config_error *err = calloc(1, sizeof *err);
    struct supervisor *s = calloc(1, sizeof *s);
    int status = 1;

    if (err == NULL || s == NULL)
        goto out;
    s->cfg = cfg;
    s->shard_main = shard_main;
    s->announce_main = announce_main;
    s->pid = getpid();
    listeners_init(&s->listeners);
    distribution_init(&s->distribution);
    s->shm.fd = -1;
    block_signals(s); /* first: no signal may come before its handling */
    if (set_up(s, err) < 0) {
        config_error_print(stderr, err);
        s->status = s->status != 0 ? s->status : 1;
    } else {
        run(s);
    }
    status = s->status;
    clean_up(s);
out:
    free(s);
    free(err);
    return status;
}
