// SPDX-License-Identifier: MIT
/* Following clients live: what they do and what is done to them, as lines of JSON (docs/ADMIN-API.md) in
 * answers to CONTROL_TRACE. Off unless somebody asks: then shard->traces is NULL, and all that a message
 * costs is a look at a bit of its client. Bounded in time ([admin] trace_time_max), in events a second
 * (trace_events), in number (TRACES_MAX), and by what the asker takes; what is left out is counted and said.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "common/counters.h"

struct client;
struct control_request;
struct shard;

#define TRACES_MAX 8

/* 0, -EBUSY or -ENOMEM. */
int trace_begin(struct shard *s, int fd, const struct control_request *req);
void trace_end(struct shard *s, uint32_t id);
void trace_end_all(struct shard *s);

/* ---- by whoever does it, when c->up.traced (trace_new_client, trace_uid_bound: when there is any trace) */
/* It has come and has an address: perhaps somebody follows that. */
void trace_new_client(struct client *c);
/* It has this uid now; perhaps somebody follows that. */
void trace_uid_bound(struct client *c, struct slice uid);
void trace_handshake(struct client *c);
/* event: "in", "out"; opcode: what kind of frame, NULL: of a protocol without. */
void trace_message(struct client *c, const char *event, const char *opcode, const uint8_t *data, size_t len);
void trace_command(struct client *c, const char *command, size_t len, const char *sender);
void trace_close(struct client *c, enum close_reason reason, unsigned code, const char *why);
