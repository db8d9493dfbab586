// SPDX-License-Identifier: MIT
#include "supervisor/supervisor.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "common/log_setup.h"
#include "supervisor/listeners.h"

#define SHARD              0u  /* one for now */
#define DELAY_MS_MIN       100 /* of a restart; doubles while the shard dies young */
#define DELAY_MS_MAX       5000
#define YOUNG_MS           10000
#define KILL_AFTER_STOP_MS 5000 /* a shard that was told to end at once, or whose drain time is over */
#define NEVER              UINT64_MAX

enum stopping { STOPPING_NO, STOPPING_DRAIN, STOPPING_AT_ONCE };

struct supervisor {
    const struct config *cfg;
    shard_main_fn *shard_main;
    struct listeners listeners;
    struct shard_shm_file shm;
    sigset_t signals;
    enum stopping stopping;
    pid_t pid; /* of the shard, 0: none */
    uint64_t started_ms;
    uint64_t restart_at_ms; /* NEVER: not waiting for it */
    uint64_t kill_at_ms;
    unsigned delay_ms;
    int status; /* ours */
};

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint64_t now_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

/* ---- the shard's process */

/* As shard_start.h promises: TERM, INT and USR1 stay blocked. HUP is for the supervisor, and a terminal that
 * goes away must not end a shard that drains. */
static void child_signals(void)
{
    sigset_t set;
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGHUP, &ignore, NULL);
    sigaction(SIGUSR2, &ignore, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_SETMASK, &set, NULL);
}

static _Noreturn void run_child(struct supervisor *s, pid_t parent)
{
    char process[16], file[32];
    struct config_error *err = calloc(1, sizeof *err);
    struct shard_start start = {
        .shard = SHARD,
        .cfg = s->cfg,
        .listen_fds = s->listeners.fds,
        .internal_fd = s->listeners.internal_fd,
        .shm = s->shm.shm,
    };

    child_signals();
    snprintf(process, sizeof process, "tgg shard %u", SHARD);
    prctl(PR_SET_NAME, process);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        exit(1); /* it died before PDEATHSIG was set */
    s->shm.shm->pid = getpid();
    s->shm.shm->start_unix_ms = (int64_t)clock_ms(CLOCK_REALTIME);
    snprintf(file, sizeof file, "shard-%u.log", SHARD);
    if (err == NULL || log_setup(s->cfg, process + sizeof "tgg " - 1, file, err) < 0) {
        LOG(LOG_ERROR, "log_not_opened", "shard=%u", SHARD);
        exit(1);
    }
    free(err);
    exit(s->shard_main(&start));
}

static void plan_restart(struct supervisor *s)
{
    s->restart_at_ms = now_ms() + s->delay_ms;
}

static void start_shard(struct supervisor *s)
{
    pid_t parent = getpid();

    ASSERT(s->pid == 0);
    s->restart_at_ms = NEVER;
    shard_shm_set_state(s->shm.shm, SHARD_STATE_STARTING);
    pid_t pid = fork();
    if (pid == 0)
        run_child(s, parent);
    if (pid < 0) {
        s->delay_ms = DELAY_MS_MAX;
        LOG(LOG_ERROR, "shard_not_started", "shard=%u error=\"%s\" retry_ms=%u", SHARD, strerror(errno),
            s->delay_ms);
        plan_restart(s);
        return;
    }
    s->pid = pid;
    s->started_ms = now_ms();
    LOG(LOG_NOTICE, "shard_started", "shard=%u pid=%d", SHARD, (int)pid);
}

static void log_end(enum log_level level, const char *event, int wstatus, uint64_t lived_ms,
                    unsigned retry_ms)
{
    if (WIFSIGNALED(wstatus))
        LOG(level, event, "shard=%u signal=%d name=\"%s\" core=%s lived_ms=%" PRIu64 " restart_in_ms=%u",
            SHARD, WTERMSIG(wstatus), strsignal(WTERMSIG(wstatus)), WCOREDUMP(wstatus) ? "yes" : "no",
            lived_ms, retry_ms);
    else
        LOG(level, event, "shard=%u status=%d lived_ms=%" PRIu64 " restart_in_ms=%u", SHARD,
            WEXITSTATUS(wstatus), lived_ms, retry_ms);
}

static void shard_died(struct supervisor *s, int wstatus, uint64_t lived_ms)
{
    if (lived_ms >= YOUNG_MS || s->delay_ms == 0)
        s->delay_ms = DELAY_MS_MIN;
    else
        s->delay_ms = s->delay_ms * 2 < DELAY_MS_MAX ? s->delay_ms * 2 : DELAY_MS_MAX;
    s->shm.shm->restarts++;
    shard_shm_set_state(s->shm.shm, SHARD_STATE_DEAD);
    log_end(LOG_ERROR, "shard_died", wstatus, lived_ms, s->delay_ms);
    plan_restart(s);
}

static void shard_ended(struct supervisor *s, int wstatus)
{
    uint64_t lived_ms = now_ms() - s->started_ms;

    s->pid = 0;
    s->shm.shm->pid = 0;
    s->kill_at_ms = NEVER;
    counters_clear_gauges(&s->shm.shm->counters);
    if (s->stopping == STOPPING_NO) {
        shard_died(s, wstatus, lived_ms);
        return;
    }
    shard_shm_set_state(s->shm.shm, SHARD_STATE_STOPPED);
    bool clean = WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == 0;
    if (!clean)
        s->status = 1;
    log_end(clean ? LOG_NOTICE : LOG_ERROR, "shard_ended", wstatus, lived_ms, 0);
}

static void reap(struct supervisor *s)
{
    int wstatus;
    for (pid_t pid; (pid = waitpid(-1, &wstatus, WNOHANG)) > 0;) {
        if (pid == s->pid)
            shard_ended(s, wstatus);
    }
}

/* ---- signals */

static void stop(struct supervisor *s, int sig)
{
    uint64_t drain_ms = s->cfg->gateway.drain_timeout * 1000;
    bool at_once = sig == SIGINT || s->stopping != STOPPING_NO;

    LOG(LOG_NOTICE, "stopping", "signal=%s how=%s", sig == SIGINT ? "INT" : "TERM",
        at_once ? "at_once" : "drain");
    s->stopping = at_once ? STOPPING_AT_ONCE : STOPPING_DRAIN;
    s->restart_at_ms = NEVER;
    if (s->pid == 0)
        return;
    kill(s->pid, at_once ? SIGINT : SIGTERM);
    s->kill_at_ms = now_ms() + KILL_AFTER_STOP_MS + (at_once ? 0 : drain_ms);
}

static void reopen_logs(struct supervisor *s)
{
    int r = log_reopen();
    if (r < 0)
        LOG(LOG_ERROR, "log_not_reopened", "error=\"%s\"", strerror(-r));
    LOG(LOG_NOTICE, "log_reopened", "signal=USR1");
    if (s->pid != 0)
        kill(s->pid, SIGUSR1);
}

static void on_signal(struct supervisor *s, int sig)
{
    switch (sig) {
    case SIGCHLD: reap(s); break;
    case SIGTERM:
    case SIGINT: stop(s, sig); break;
    case SIGUSR1: reopen_logs(s); break;
    case SIGHUP:
        LOG(LOG_WARN, "reload_not_done",
            "signal=HUP note=\"the configuration is read at start only: restart tgg\"");
        break;
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

/* ---- the run */

static void on_time(struct supervisor *s)
{
    uint64_t now = now_ms();
    if (s->restart_at_ms <= now && s->stopping == STOPPING_NO)
        start_shard(s);
    if (s->kill_at_ms <= now && s->pid != 0) {
        LOG(LOG_ERROR, "shard_killed", "shard=%u note=\"it did not end in time\"", SHARD);
        kill(s->pid, SIGKILL);
        s->kill_at_ms = NEVER;
    }
}

static void wait_and_handle(struct supervisor *s)
{
    uint64_t until = s->restart_at_ms < s->kill_at_ms ? s->restart_at_ms : s->kill_at_ms;
    uint64_t now = now_ms();
    uint64_t wait_ms = until == NEVER ? 60000 : until > now ? until - now : 0;
    struct timespec ts = {.tv_sec = (time_t)(wait_ms / 1000), .tv_nsec = (long)(wait_ms % 1000) * 1000000};

    int sig = sigtimedwait(&s->signals, NULL, &ts);
    if (sig > 0)
        on_signal(s, sig);
    on_time(s);
}

static void raise_limit(int resource, const char *name)
{
    struct rlimit limit;
    if (getrlimit(resource, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(resource, &limit) < 0)
        LOG(LOG_WARN, "limit_not_raised", "limit=%s error=\"%s\"", name, strerror(errno));
}

/* With a folder that cannot be had a gateway still runs, only without a memory of its ids; but not beside
 * another one that uses the same folder. */
static int open_shm(struct supervisor *s, struct config_error *err)
{
    const struct config *cfg = s->cfg;
    int r = shard_shm_create(cfg->gateway.runtime_dir, SHARD, &s->shm);

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
        r = shard_shm_anonymous(SHARD, &s->shm);
    }
    if (r < 0) {
        config_error_add(err, 0, "", "", "no shared memory: %s", strerror(-r));
        return r;
    }
    s->shm.shm->supervisor_pid = getpid();
    s->shm.shm->supervisor_start_unix_ms = (int64_t)clock_ms(CLOCK_REALTIME);
    return 0;
}

/* Everything that can be wrong, before anything is started. */
static int set_up(struct supervisor *s, struct config_error *err)
{
    snprintf(err->path, sizeof err->path, "%s", s->cfg->source_path);
    raise_limit(RLIMIT_NOFILE, "nofile");
    raise_limit(RLIMIT_CORE, "core");
    int r = listeners_open(s->cfg, &s->listeners, err);
    if (r < 0)
        return r;
    if ((r = log_setup(s->cfg, "supervisor", "supervisor.log", err)) < 0)
        return r;
    return open_shm(s, err);
}

static void log_start(const struct supervisor *s)
{
    const struct config *cfg = s->cfg;
    char internal[80];

    LOG(LOG_NOTICE, "started",
        "version=%s pid=%d config=\"%s\" internal=%s:%" PRIu64 " next_seq=%u continued=%s", TGG_VERSION,
        (int)getpid(), cfg->source_path, listeners_internal_address(cfg, internal, sizeof internal),
        cfg->gateway.start_port, s->shm.shm->next_seq, s->shm.continued ? "yes" : "no");
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        const struct config_listen *l = &cfg->listen[i];
        LOG(LOG_NOTICE, "listening", "name=%s address=%s port=%" PRIu64 " protocol=%s", l->name, l->address,
            l->port, config_protocol_name(l->protocol));
    }
}

static void clean_up(struct supervisor *s)
{
    listeners_close(&s->listeners);
    shard_shm_release(&s->shm);
    log_close();
}

int supervisor_run(const struct config *cfg, shard_main_fn *shard_main)
{
    struct supervisor s = {
        .cfg = cfg,
        .shard_main = shard_main,
        .listeners = {.internal_fd = -1},
        .shm = {.fd = -1},
        .restart_at_ms = NEVER,
        .kill_at_ms = NEVER,
    };
    struct config_error *err = calloc(1, sizeof *err);

    if (err == NULL)
        return 1;
    block_signals(&s); /* first: no signal may come before its handling */
    if (set_up(&s, err) < 0) {
        config_error_print(stderr, err);
        s.status = 1;
    }
    free(err);
    if (s.status == 0) {
        log_start(&s);
        start_shard(&s);
        while (s.stopping == STOPPING_NO || s.pid != 0)
            wait_and_handle(&s);
        LOG(LOG_NOTICE, "ended", "status=%d", s.status);
    }
    clean_up(&s);
    return s.status;
}
