// SPDX-License-Identifier: MIT
/* What a service manager is told (sd_notify(3)): datagrams to the socket that NOTIFY_SOCKET names. Nothing
 * happens without one, and nobody waits for it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct notify {
    int fd;                         /* connected; -1: nobody wants to know */
    uint64_t watchdog_ms;           /* half of the time in which it wants to hear of us; 0: it does not */
    uint64_t due_ms;                /* the next WATCHDOG=1 */
    char socket[128], watchdog[48]; /* variables for a successor; "": none */
};

/* By the environment of the process, out of which these variables are taken: no child is to have them. */
void notify_open(struct notify *n);
void notify_close(struct notify *n);
/* Of these variables those that a process needs that takes the place of this one ("NAME=VALUE", NULL behind
 * the last), within n. (The manager believes what it says from MAINPID=PID on, which this one sends.) */
#define NOTIFY_VARIABLES_MAX 3
void notify_environment(const struct notify *n, const char *ret[NOTIFY_VARIABLES_MAX]);

/* Variables, separated by newlines: "READY=1\nSTATUS=3 shards run". */
void notify_send(struct notify *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The configuration is read again now; READY=1 says when that is done. */
void notify_reloading(struct notify *n);
/* We turn: sends WATCHDOG=1 when that is due. */
void notify_turn(struct notify *n, uint64_t now_ms);
/* When the next one is; UINT64_MAX: never. */
uint64_t notify_due_ms(const struct notify *n);
