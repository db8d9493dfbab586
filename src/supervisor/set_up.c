// SPDX-License-Identifier: MIT
/* Before the run: all that can be wrong, and all that the children are to inherit. */
#include "supervisor/supervisor_priv.h"

#include <errno.h>
#include <execinfo.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "common/file_limit.h"
#include "common/log_setup.h"
#include "common/upgrade_socket.h"
#include "supervisor/check.h"
#include "supervisor/node_memory.h"
#include "supervisor/upgrade_offer.h"

/* With a folder that cannot be had a gateway still runs, only without a memory of its ids; but not beside
 * another one that uses the same folder. */
static int open_shm(struct supervisor *s, struct config_error *err)
{
    const struct config *cfg = s->cfg;
    bool beside = upgrade_new_takes_over(s);
    int r = beside ? node_shm_create_next(cfg->gateway.runtime_dir, &s->plan, &s->shm)
                   : node_shm_create(cfg->gateway.runtime_dir, &s->plan, &s->shm);

    if (r == -EBUSY && beside)
        config_error_add(err, cfg->gateway.line.runtime_dir, "gateway", "runtime_dir",
                         "%s: processes of an upgrade that was given up are still there; expected them to "
                         "end: again in a moment",
                         cfg->gateway.runtime_dir);
    else if (r == -EBUSY)
        config_error_add(err, cfg->gateway.line.runtime_dir, "gateway", "runtime_dir",
                         "%s is in use by another gateway (see: tgg status); expected a folder of its own",
                         cfg->gateway.runtime_dir);
    if (r == -EBUSY)
        return r;
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
    node_shm_set_log_level(shm, (enum log_level)s->cfg->log.level);
    snprintf(shm->config_path, sizeof shm->config_path, "%s", s->cfg->source_path);
}

static void init_children(struct supervisor *s)
{
    struct node_process *entries = s->shm.shm->processes;
    for (unsigned i = 0; i < s->plan.n; i++)
        child_init(&s->shards[i], PROCESS_SHARD, i, &entries[NODE_PROCESS_SHARDS + i]);
    child_init(&s->announcer, PROCESS_ANNOUNCER, 0, &entries[NODE_PROCESS_ANNOUNCER]);
    child_init(&s->admin, PROCESS_ADMIN, 0, &entries[NODE_PROCESS_ADMIN]);
}

/* As each child will do it: a folder that only root may enter is found out now, not by a shard. */
static int check_log_of(const struct supervisor *s, const struct child *c, struct config_error *err)
{
    char path[PATH_MAX];
    if (!child_log_path(c, s->cfg, path, sizeof path))
        return 0;
    if (!s->privileges.change && !s->privileges.confine) /* as the supervisor, whose file is there */
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

static int check_logs(struct supervisor *s, struct config_error *err)
{
    int r = 0;
    for (unsigned i = 0; i < supervisor__n_children(s) && r == 0; i++)
        r = check_log_of(s, supervisor__child(s, i), err);
    return r;
}

/* Shards that get sockets later (listeners_widen) are told so as at a reload, with the text. */
static int check_with_text(struct supervisor *s, struct config_error *err)
{
    char *text = NULL;
    size_t len = 0;
    int r = upgrade_new_takes_over(s) ? config_read_text(s->cfg->source_path, &text, &len, err) : 0;

    if (r == 0)
        r = check_files(s->cfg, (struct slice){(uint8_t *)text, len}, &s->files, err);
    free(text);
    return r;
}

/* What it says, and what it names. */
static int check(struct supervisor *s, struct config_error *err)
{
    int r_user = privileges_resolve(s->cfg, &s->privileges, err);
    int r = check_with_text(s, err);
    return r_user < 0 ? r_user : r;
}

/* Sockets of clients and workers, as they belong to their user. */
static int open_listeners(struct supervisor *s, struct config_error *err)
{
    struct listeners_inherited *inherited = upgrade_new_takes_over(s) ? &s->upgrade_new.offer->sockets : NULL;
    int r = listeners_open(s->cfg, &s->plan, inherited, &s->listeners, err);
    if (r < 0 || !s->privileges.change)
        return r;
    r = listeners_give_files(&s->listeners, s->privileges.uid, s->privileges.gid);
    if (r < 0)
        config_error_add(err, 0, "", "", "socket files cannot be given to %s: %s", s->privileges.user,
                         strerror(-r));
    return r;
}

static int open_admin(struct supervisor *s, struct config_error *err)
{
    gid_t gid = s->privileges.change ? s->privileges.gid : (gid_t)-1;
    struct admin_ports_inherited *inherited = upgrade_new_takes_over(s) ? &s->upgrade_new.offer->admin : NULL;

    if (!s->cfg->admin.enabled)
        return 0;
    int r = admin_ports_open(s->cfg, gid, inherited, &s->admin_ports, err);
    if (r == 0 && (r = control_open(s->admin_control)) < 0)
        config_error_add(err, 0, "", "", "no descriptors for the admin process: %s", strerror(-r));
    return r;
}

static int make_memory(struct supervisor *s, struct config_error *err)
{
    int r = node_memory_make(s->cfg, s->plan.n, &s->node, err);
    if (r < 0)
        return r;
    listeners_set_shared(&s->listeners, s->node.shared);
    fill_shm(s);
    init_children(s);
    ticket_store_init(&s->tickets, s->cfg, s->node.tickets);
    return upgrade_new_prepare(s, err);
}

void supervisor__open_upgrade_socket(struct supervisor *s, int fd)
{
    char path[PATH_MAX];

    if (fd >= 0) {
        upgrade_socket_adopt(&s->upgrade_socket, fd);
        return;
    }
    bool fits = upgrade_socket_path(s->cfg->gateway.runtime_dir, UPGRADE_SOCKET_NAME, path, sizeof path);
    int r = fits ? upgrade_socket_open(&s->upgrade_socket, path) : -ENAMETOOLONG;
    if (r < 0)
        LOG(LOG_WARN, "upgrade_socket_not_opened",
            "path=\"%s\" error=\"%s\" note=\"only USR2 asks for an upgrade\"", path, strerror(-r));
}

/* Whoever connects then finds nobody, as it is. */
static void close_upgrade_socket(struct supervisor *s)
{
    char path[PATH_MAX];
    if (s->upgrade_socket.listen_fd >= 0 &&
        upgrade_socket_path(s->cfg->gateway.runtime_dir, UPGRADE_SOCKET_NAME, path, sizeof path))
        unlink(path);
    upgrade_socket_close(&s->upgrade_socket);
}

int supervisor__set_up(struct supervisor *s, struct config_error *err)
{
    void *frame;

    snprintf(err->path, sizeof err->path, "%s", s->cfg->source_path);
    file_limit_raise();
    int r = upgrade_new_receive(s, err);
    if (r < 0)
        return r;
    r = check(s, err);
    if (r < 0)
        s->status = EX_CONFIG; /* as `tgg gateway -t` says; what follows depends on the machine: 1 */
    if (r < 0 || (r = shard_plan_make(s->cfg, &s->plan, err)) < 0 || (r = upgrade_new_check(s, err)) < 0 ||
        (r = open_listeners(s, err)) < 0 ||
        (r = log_setup(s->cfg, "supervisor", "supervisor.log", err)) < 0 || (r = open_shm(s, err)) < 0 ||
        (r = open_admin(s, err)) < 0 || (r = make_memory(s, err)) < 0 || (r = check_logs(s, err)) < 0)
        return r;
    if (!upgrade_new_takes_over(s))
        supervisor__open_upgrade_socket(s, -1);
    ticket_store_update(&s->tickets, s->cfg, s->files, supervisor__now_unix_s());
    hash_init();          /* here, so that all shards hash alike: the names that they tell each other of */
    backtrace(&frame, 1); /* loads libgcc where the shards have it, too: for the addresses of their stacks */
    return 0;
}

static void log_admin(const struct supervisor *s)
{
    const struct config_admin *a = &s->cfg->admin;
    if (s->admin_ports.socket_fd >= 0)
        LOG(LOG_NOTICE, "admin_listening", "address=%s mode=%s", s->admin_ports.address, a->socket_mode);
    if (s->admin_ports.http_fd >= 0)
        LOG(LOG_NOTICE, "admin_listening", "address=%s port=%" PRIu64, a->address, a->port);
}

void supervisor__log_start(const struct supervisor *s)
{
    const struct config *cfg = s->cfg;
    char internal[80];

    LOG(LOG_NOTICE, "started",
        "version=%s pid=%d config=\"%s\" internal=%s:%" PRIu64 " shards=%u next_seq=%u continued=%s",
        TGG_VERSION, (int)getpid(), cfg->source_path,
        listeners_internal_address(cfg, internal, sizeof internal), cfg->gateway.start_port, s->plan.n,
        supervisor__shm_of(s, 0)->next_seq, s->shm.continued || upgrade_new_takes_over(s) ? "yes" : "no");
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
    log_admin(s);
}

void supervisor__clean_up(struct supervisor *s)
{
    close_upgrade_socket(s);
    upgrade_old_fini(s);
    upgrade_new_fini(s);
    evacuate_close(s);
    listeners_close(&s->listeners);
    admin_ports_close(&s->admin_ports);
    for (unsigned i = 0; i < 2; i++)
        if (s->admin_control[i] >= 0)
            close(s->admin_control[i]);
    distribution_fini(&s->distribution);
    ticket_store_fini(&s->tickets);
    node_memory_free(&s->node);
    files_free(s->files);
    node_shm_release(&s->shm);
    notify_close(&s->notify);
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    log_close();
}
