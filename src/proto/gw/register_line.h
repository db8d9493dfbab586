// SPDX-License-Identifier: MIT
/* The lines of the Register protocol: one JSON object per line (docs/PROTOCOL-gatewayworker.md). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"

enum register_event {
    REGISTER_UNKNOWN, /* a line with an event that is none of these */
    REGISTER_GATEWAY_CONNECT,
    REGISTER_WORKER_CONNECT,
    REGISTER_PING,
    REGISTER_BROADCAST_ADDRESSES,
};

/* All zero before first use; memory is kept from line to line. */
struct register_line {
    enum register_event event;
    struct slice
        address; /* empty when missing; like the others it points into the line or into this struct */
    struct slice secret_key; /* empty when missing, as PHP's Register has it */
    struct slice *addresses; /* of broadcast_addresses */
    size_t n_addresses;
    size_t cap_addresses;
    struct bytes text;
};

/* One line, with or without its "\n". 0; -EPROTO: not an object with an event (a peer that says this is
 * closed), or a value of the wrong type; -ENOMEM. */
int register_line_parse(const uint8_t *data, size_t len, struct register_line *ret);
void register_line_fini(struct register_line *line);

/* Each appends one line with its "\n"; without memory out->failed is set. */
void register_line_gateway_connect(struct bytes *out, struct slice address, struct slice secret_key);
void register_line_worker_connect(struct bytes *out, struct slice secret_key);
void register_line_ping(struct bytes *out);
void register_line_broadcast(struct bytes *out, const struct slice *addresses, size_t n);
