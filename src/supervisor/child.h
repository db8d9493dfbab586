// SPDX-License-Identifier: MIT
/* One process of the supervisor's: its fork, its end, when its successor is due. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/config.h"
#include "common/node_shm.h"
#include "supervisor/watchdog.h"

#define CHILD_NEVER        UINT64_MAX
#define CHILD_YOUNG_MS     10000 /* one that died before that died young */
#define CHILD_DELAY_MS_MIN 100   /* of a successor's start, doubled with each young death in a row */
#define CHILD_DELAY_MS_MAX 5000

struct child {
    enum process_kind kind;
    unsigned number;
    char name[16];  /* "shard 3", "announcer" */
    char label[24]; /* "shard=3", "process=announcer": for the log */
    struct node_process *entry;
    pid_t pid; /* 0: none */
    uint64_t started_ms;
    uint64_t restart_at_ms; /* CHILD_NEVER: not waiting for it */
    uint64_t kill_at_ms;    /* CHILD_NEVER: not to be killed */
    struct watchdog watchdog;
};

uint64_t child_now_ms(void);

void child_init(struct child *c, enum process_kind kind, unsigned number, struct node_process *entry);

/* As fork(): 0 in the child, with everything set that shard_start.h promises but the log; 1 in the parent; 0
 * > on failure (-errno), and then the restart is planned. */
int child_fork(struct child *c);
/* In the child: its log. Ends the process when that cannot be had. */
void child_open_log(const struct child *c, const struct config *cfg);
/* The file of its log; false: it goes to stderr. */
bool child_log_path(const struct child *c, const struct config *cfg, char *buf, size_t cap);

/* It has been reaped. Returns how long it lived, in ms. */
uint64_t child_reaped(struct child *c);
/* It was not told to end: counts the death, plans the restart. Returns the delay in ms: 0, the first time. */
unsigned child_died(struct child *c, int wstatus, uint64_t lived_ms);
/* It was told to end, or will not be started again. */
void child_retire(struct child *c);

static inline void child_plan_kill(struct child *c, uint64_t in_ms)
{
    c->kill_at_ms = child_now_ms() + in_ms;
}
void child_kill(const struct child *c, int sig); /* nothing when there is no process */

/* The delay of a restart after that many young deaths in a row. */
unsigned child_delay_ms(unsigned deaths_young);
