// SPDX-License-Identifier: MIT
/* The supervisor's files among themselves: set_up.c (before the run), processes.c (its children's processes),
 * orders.c (what the admin process asks for), upgrade_old.c and upgrade_new.c (the two sides of an upgrade),
 * evacuate.c (connections moved between shards), supervisor.c (the run). */
#pragma once

#include <signal.h>

#include "common/control.h"
#include "common/node_shm.h"
#include "common/notify.h"
#include "common/upgrade_socket.h"
#include "supervisor/admin_ports.h"
#include "supervisor/child.h"
#include "supervisor/distribution.h"
#include "supervisor/evacuate.h"
#include "supervisor/listeners.h"
#include "supervisor/privileges.h"
#include "supervisor/reload.h"
#include "supervisor/supervisor.h"
#include "supervisor/ticket_store.h"
#include "supervisor/upgrade_new.h"
#include "supervisor/upgrade_old.h"

enum stopping {
    STOPPING_NO,
    STOPPING_DRAIN,
    STOPPING_AT_ONCE,
    STOPPING_LEAVES, /* another supervisor has taken over */
};

struct supervisor {
    struct config *cfg;
    struct files *files; /* of cfg */
    shard_main_fn *shard_main;
    announce_main_fn *announce_main;
    admin_main_fn *admin_main;
    struct shard_plan plan;
    struct listeners listeners;
    struct node_shm_file shm;
    struct node node;
    struct privileges privileges; /* of the children */
    struct ticket_store tickets;
    struct distribution distribution;
    struct admin_ports admin_ports;
    int admin_control[2]; /* control_open: [0] ours, [1] the admin process's */
    struct notify notify;
    struct upgrade_socket upgrade_socket;
    struct upgrade_old upgrade_old;
    struct upgrade_new upgrade_new;
    struct evacuate evacuate;
    pid_t pid;
    int signal_fd;
    enum stopping stopping;
    struct child shards[NODE_SHARDS_MAX];
    struct child announcer, admin;
    bool announced;      /* it was started once: from then on it lives as the shards do */
    bool ready;          /* all are there, and the service manager has been told */
    char told[128];      /* it: the last status */
    uint64_t look_at_ms; /* when the watchdog is due */
    int status;          /* ours */
    uint8_t order[CONTROL_MESSAGE_MAX];
};

static inline struct shard_shm *supervisor__shm_of(const struct supervisor *s, unsigned shard)
{
    return node_shm_shard(s->shm.shm, shard);
}

/* The shards, the announcer, and the admin process if there is to be one. */
static inline unsigned supervisor__n_children(const struct supervisor *s)
{
    return s->plan.n + (s->cfg->admin.enabled ? 2 : 1);
}
static inline struct child *supervisor__child(struct supervisor *s, unsigned i)
{
    return i < s->plan.n ? &s->shards[i] : i == s->plan.n ? &s->announcer : &s->admin;
}

int64_t supervisor__now_unix_s(void);

/* ---- set_up.c */

/* Everything that can be wrong, before anything is started: 0, or -errno with err added to and s->status set.
 */
int supervisor__set_up(struct supervisor *s, struct config_error *err);
void supervisor__log_start(const struct supervisor *s);
void supervisor__clean_up(struct supervisor *s);
/* upgrade.sock: that of the supervisor before, -1: a new one. */
void supervisor__open_upgrade_socket(struct supervisor *s, int fd);

/* ---- processes.c */

void supervisor__start(struct supervisor *s, struct child *c);
/* Whoever is to open it may not make files in that folder. */
void supervisor__give_log(const struct supervisor *s, const struct child *c);

/* ---- orders.c */

/* A few of those that wait; more of them wait for the next turn. */
void supervisor__take_orders(struct supervisor *s);
/* Of the order with that id; also later. */
void supervisor__answer(struct supervisor *s, uint32_t id, int status, const struct bytes *json);
void supervisor__refuse(struct supervisor *s, uint32_t id, int err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- upgrade_ready.c */

/* Why connections cannot be moved at this moment: a text (in buf, perhaps), NULL: they can. */
const char *supervisor__not_ready(const struct supervisor *s, char *buf, size_t cap);

/* ---- supervisor.c */

/* Reads the configuration again. 0, or -errno: -ESHUTDOWN when the gateway ends. report->json: see reload.h.
 */
int supervisor__reload(struct supervisor *s, struct reload_report *report);
/* TERM or INT. */
void supervisor__stop(struct supervisor *s, int sig);
/* Why nothing is to be changed now: a text, NULL: it may be. */
const char *supervisor__busy(const struct supervisor *s);
