// SPDX-License-Identifier: MIT
/* What two supervisors tell each other during an upgrade, over a socket pair (SOCK_SEQPACKET): records of
 * transfer/transfer_records.h, one a message, with descriptors. The two may be of different versions.
 *
 *   old                                            new
 *   offer, offer_ids, offer_socket,
 *   offer_listener ..., OFFERED ──────────────────>  checks its configuration, sets up, starts its shards
 *                          <──────────────────────── PROGRESS, any number, at any time
 *                          <──────────────────────── READY, with the page and the shards' import ends
 *   HOLD ─────────────────────────────────────────>  TAKE to its shards
 *   (its shards stop; offer_ids once more)
 *                          <──────────────────────── IMPORTED, phase 1
 *   EXPORTED, the totals ─────────────────────────>
 *                          <──────────────────────── COMMITTED: the page says so
 *   LEAVING ──────────────────────────────────────>  announces itself
 *                          <──────────────────────── SETTLED: known where the old one is, all there
 *
 * FAILED from the new one, or the end of either, before COMMITTED: it is given up. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "common/upgrade.h"
#include "transfer/transfer.h"

/* In the records: never changed. */
enum upgrade_step {
    UPGRADE_STEP_OFFERED = 1,
    UPGRADE_STEP_HOLD = 2,
    UPGRADE_STEP_EXPORTED = 3,
    UPGRADE_STEP_LEAVING = 4,
    UPGRADE_STEP_PROGRESS = 16,
    UPGRADE_STEP_FAILED = 17,
    UPGRADE_STEP_READY = 18,
    UPGRADE_STEP_IMPORTED = 19,
    UPGRADE_STEP_COMMITTED = 20,
    UPGRADE_STEP_SETTLED = 21,
};

enum upgrade_socket_kind {
    UPGRADE_SOCKET_LISTENER,
    UPGRADE_SOCKET_INTERNAL,
    UPGRADE_SOCKET_ADMIN,
    UPGRADE_SOCKET_ADMIN_PORT,
    UPGRADE_SOCKET_UPGRADE,
    UPGRADE_SOCKET_KIND_N
};

#define UPGRADE_WIRE_BYTES_MAX 32768
#define UPGRADE_WIRE_TEXT_MAX  4096 /* of a course record; longer ones are cut */

struct upgrade_wire {
    enum transfer_type type;
    struct slice fields; /* into bytes */
    unsigned n_fds;
    int fds[UPGRADE_FDS_MAX]; /* the receiver's to close */
    uint8_t bytes[UPGRADE_WIRE_BYTES_MAX];
};

/* Both ends alike, non-blocking, closed on exec. 0 or -errno. */
int upgrade_wire_open(int ret[2]);
/* A whole record; descriptors stay the caller's. 0; -EAGAIN: the other side does not read; -EPIPE; other
 * -errno. */
int upgrade_wire_send(int fd, const struct bytes *record, const int *fds, unsigned n_fds);
/* 0; -EAGAIN; -EPIPE: the other side is gone; -EPROTO: a record that this version does not know; -EBADMSG. */
int upgrade_wire_receive(int fd, struct upgrade_wire *ret);
void upgrade_wire_close(struct upgrade_wire *w); /* descriptors that nobody took (set to -1) */

/* A course record. */
int upgrade_wire_step(int fd, enum upgrade_step step, const struct transfer_course *more, const char *text,
                      const int *fds, unsigned n_fds);
const char *upgrade_step_name(uint64_t step);

/* Of a field: cut off, without control characters, NUL-terminated. */
char *upgrade_wire_text(struct slice field, char *buf, size_t cap);
