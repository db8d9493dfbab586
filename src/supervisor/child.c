// SPDX-License-Identifier: MIT
#include "supervisor/child.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "common/log_setup.h"

static uint64_t clock_ms(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t child_now_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

void child_init(struct child *c, enum process_kind kind, unsigned number, struct node_process *entry)
{
    *c = (struct child){
        .kind = kind,
        .number = number,
        .entry = entry,
        .restart_at_ms = CHILD_NEVER,
        .kill_at_ms = CHILD_NEVER,
    };
    if (kind == PROCESS_SHARD) {
        snprintf(c->name, sizeof c->name, "shard %u", number);
        snprintf(c->label, sizeof c->label, "shard=%u", number);
    } else {
        snprintf(c->name, sizeof c->name, "%s", process_kind_name(kind));
        snprintf(c->label, sizeof c->label, "process=%s", process_kind_name(kind));
    }
}

/* ---- in the child */

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

static void begin(const struct child *c, pid_t parent)
{
    char title[32];

    child_signals();
    snprintf(title, sizeof title, "tgg %s", c->name);
    prctl(PR_SET_NAME, title); /* cut off after 15 bytes */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        exit(1);              /* it died before PDEATHSIG was set */
    c->entry->pid = getpid(); /* whoever sees this process at work sees its number */
}

static char *log_name(const struct child *c, char *buf, size_t cap)
{
    snprintf(buf, cap, "%s.log", c->name);
    for (char *p = buf; *p != '\0'; p++)
        if (*p == ' ')
            *p = '-';
    return buf;
}

void child_open_log(const struct child *c, const struct config *cfg)
{
    char file[32];
    struct config_error *err = calloc(1, sizeof *err);

    log_name(c, file, sizeof file);
    if (err == NULL || log_setup(cfg, c->name, file, err) < 0) {
        LOG(LOG_ERROR, "log_not_opened", "%s file=%s", c->label, file);
        exit(1);
    }
    free(err);
}

bool child_log_path(const struct child *c, const struct config *cfg, char *buf, size_t cap)
{
    char file[32];
    if (cfg->log.target != LOG_TARGET_FILE)
        return false;
    snprintf(buf, cap, "%s/%s", cfg->log.directory, log_name(c, file, sizeof file));
    return true;
}

/* ---- in the supervisor */

int child_fork(struct child *c)
{
    pid_t parent = getpid();

    ASSERT(c->pid == 0);
    c->restart_at_ms = CHILD_NEVER;
    c->entry->start_unix_ms = (int64_t)clock_ms(CLOCK_REALTIME);
    pid_t pid = fork();
    if (pid == 0) {
        begin(c, parent);
        return 0;
    }
    if (pid < 0) {
        int err = errno;
        c->restart_at_ms = child_now_ms() + CHILD_DELAY_MS_MAX;
        LOG(LOG_ERROR, "fork_failed", "%s error=\"%s\" retry_ms=%d", c->label, strerror(err),
            CHILD_DELAY_MS_MAX);
        return -err;
    }
    c->pid = pid;
    c->started_ms = child_now_ms();
    c->entry->pid = pid;
    c->entry->state = PROCESS_ALIVE;
    watchdog_reset(&c->watchdog);
    return 1;
}

uint64_t child_reaped(struct child *c)
{
    ASSERT(c->pid != 0);
    c->pid = 0;
    c->entry->pid = 0;
    c->kill_at_ms = CHILD_NEVER;
    return child_now_ms() - c->started_ms;
}

unsigned child_delay_ms(unsigned deaths_young)
{
    if (deaths_young == 0)
        return 0;
    unsigned doublings = deaths_young - 1;
    if (doublings >= 16 || CHILD_DELAY_MS_MIN << doublings > CHILD_DELAY_MS_MAX)
        return CHILD_DELAY_MS_MAX;
    return CHILD_DELAY_MS_MIN << doublings;
}

unsigned child_died(struct child *c, int wstatus, uint64_t lived_ms)
{
    struct node_process *e = c->entry;

    e->deaths_young = lived_ms < CHILD_YOUNG_MS ? e->deaths_young + 1 : 0;
    e->restarts++;
    e->last_wait_status = wstatus;
    e->state = PROCESS_DEAD;
    unsigned delay_ms = child_delay_ms(e->deaths_young);
    c->restart_at_ms = child_now_ms() + delay_ms;
    return delay_ms;
}

void child_retire(struct child *c)
{
    c->restart_at_ms = CHILD_NEVER;
    c->entry->state = PROCESS_ENDED;
}

void child_kill(const struct child *c, int sig)
{
    if (c->pid != 0)
        kill(c->pid, sig);
}
