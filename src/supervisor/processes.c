// SPDX-License-Identifier: MIT
/* The children's processes: what each of them gets, and what it must not have. */
#include "supervisor/supervisor_priv.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "supervisor/core_file.h"
#include "supervisor/node_memory.h"
#include "supervisor/sandbox.h"
#include "supervisor/stack_dump.h"
#include "supervisor/upgrade_shards.h"

/* ---- in the child */

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
    node_shm_take_log_level(s->shm.shm);
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

/* A log with a relative path could not be opened again from there. */
static void enter_core_folder(const struct supervisor *s, const struct child *c)
{
    if (s->cfg->log.target == LOG_TARGET_FILE && s->cfg->log.directory[0] != '/')
        return;
    if (core_file_enter_folder())
        LOG(LOG_NOTICE, "core_files", "%s folder=" CORE_FILE_FOLDER, c->label);
}

/* What only the supervisor has. */
static void leave_supervisor(struct supervisor *s)
{
    distribution_fini(&s->distribution);
    ticket_store_fini(&s->tickets);
    notify_close(&s->notify);
    upgrade_socket_close(&s->upgrade_socket);
    upgrade_old_close(s);
    upgrade_new_close(s);
    evacuate_close(s);
    close(s->signal_fd);
    if (s->admin_control[0] >= 0)
        close(s->admin_control[0]);
}

static void leave_admin(struct supervisor *s)
{
    admin_ports_close(&s->admin_ports);
    if (s->admin_control[1] >= 0)
        close(s->admin_control[1]);
}

static _Noreturn void run_shard(struct supervisor *s, const struct child *c)
{
    unsigned shard = c->number;
    struct shard_start start = {
        .shard = shard,
        .cfg = s->cfg,
        .files = s->files,
        .node = &s->node,
        .listeners = listeners_of(&s->listeners, shard),
        .generation = s->distribution.generation,
        .internal_fd = s->plan.shards[shard].link ? s->listeners.internal_fd : -1,
        .shm = supervisor__shm_of(s, shard),
        .settings_fd = s->node.settings_fds[shard][0],
        .control_fd = s->node.control_fds[shard][0],
        .upgrade_fd = s->node.upgrade_fds[shard][0],
        .import_fd = s->node.import_fds[shard][0],
        .n_predecessors = upgrade_new_predecessors(s),
        .crash = &s->shm.shm->crashes[shard].crash,
        .node_shm = s->shm.shm,
        .guard = s->node.guard,
        .tickets = s->node.tickets,
    };

    become_child(s, c);
    listeners_keep(&s->listeners, shard);
    node_memory_keep(&s->node, shard);
    leave_supervisor(s);
    leave_admin(s);
    pin(s, shard);
    enter_core_folder(s, c);
    stack_dump_install(c->name, &start.shm->stacks, start.crash);
    enter_sandbox(s, c);
    exit(s->shard_main(&start));
}

/* It talks to name servers: without what it does not need of the keys of clients' connections (copies that
 * their check left in freed memory are not looked for). */
static _Noreturn void run_announcer(struct supervisor *s, const struct child *c)
{
    struct announce_start start = {
        .cfg = s->cfg,
        .counters = &s->shm.shm->announcer.counters,
        .registers = s->shm.shm->announcer.registers,
        .node_shm = s->shm.shm,
    };

    become_child(s, c);
    listeners_close(&s->listeners);
    node_memory_free(&s->node);
    leave_supervisor(s);
    leave_admin(s);
    files_free(s->files);
    exit(s->announce_main(&start));
}

/* It reads what strangers send it: without any key but its own, and what all share is only to be looked at.
 */
static _Noreturn void run_admin(struct supervisor *s, const struct child *c)
{
    static uint32_t stacks;
    static struct shard_crash crash;
    struct admin_start start = {
        .cfg = s->cfg,
        .node = &s->node,
        .shm = s->shm.shm,
        .control_fd = s->admin_control[1],
        .settings_fd = s->node.settings_fds[s->plan.n][0],
        .socket_fd = s->admin_ports.socket_fd,
        .http_fd = s->admin_ports.http_fd,
        .token = s->admin_ports.token,
    };

    become_child(s, c);
    listeners_close(&s->listeners);
    node_memory_keep_admin(&s->node);
    leave_supervisor(s);
    files_free(s->files);
    mprotect(s->shm.shm, sizeof *s->shm.shm, PROT_READ);
    stack_dump_install(c->name, &stacks, &crash);
    enter_sandbox(s, c);
    exit(s->admin_main(&start));
}

/* ---- in the supervisor */

void supervisor__give_log(const struct supervisor *s, const struct child *c)
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
    shard_shm_set_state(supervisor__shm_of(s, c->number), SHARD_STATE_STARTING);
    __atomic_store_n(&supervisor__shm_of(s, c->number)->turns, 0, __ATOMIC_RELAXED);
    memset(&s->shm.shm->crashes[c->number].crash, 0, sizeof(struct shard_crash));
    distribution_skip(&s->distribution, &s->node, &s->listeners, c->number);
    upgrade_shards_forget(s, c->number);
    int r = child_fork(c);
    if (r == 0)
        run_shard(s, c);
    if (r > 0)
        LOG(LOG_NOTICE, "shard_started", "shard=%u pid=%d cpu=%d", c->number, (int)c->pid,
            s->plan.shards[c->number].cpu);
}

static void start_announcer(struct supervisor *s, struct child *c)
{
    s->announced = true;
    int r = child_fork(c);
    if (r == 0)
        run_announcer(s, c);
    if (r > 0)
        LOG(LOG_NOTICE, "announcer_started", "pid=%d", (int)c->pid);
}

/* Answers to a dead predecessor are not for its successor. */
static void drain(int fd)
{
    char byte;
    while (recv(fd, &byte, sizeof byte, MSG_DONTWAIT) > 0)
        ;
}

static void start_admin(struct supervisor *s, struct child *c)
{
    drain(s->admin_control[1]);
    distribution_skip(&s->distribution, &s->node, &s->listeners, s->plan.n);
    int r = child_fork(c);
    if (r == 0)
        run_admin(s, c);
    if (r > 0)
        LOG(LOG_NOTICE, "admin_started", "pid=%d", (int)c->pid);
}

void supervisor__start(struct supervisor *s, struct child *c)
{
    supervisor__give_log(s, c);
    if (c->kind == PROCESS_SHARD)
        start_shard(s, c);
    else if (c->kind == PROCESS_ANNOUNCER)
        start_announcer(s, c);
    else
        start_admin(s, c);
}
