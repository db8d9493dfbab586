// SPDX-License-Identifier: MIT
/* Keys of TLS session tickets (RFC 5077 section 4), in memory that all processes of a node share: written by
 * the supervisor, read by the shards. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct ticket_key {
    uint8_t name[16]; /* in the ticket, to find the key again; all zero: no key */
    uint8_t aes[32];  /* AES-256-CBC */
    uint8_t hmac[32]; /* HMAC-SHA-256 */
};

#define TICKET_KEYS_MAX 4
/* keys[0] makes new tickets; all of them open old ones. Zeroed: no tickets. */
struct ticket_keys {
    uint32_t version; /* odd: being written */
    uint32_t n;
    uint32_t lifetime_s; /* of a ticket: two rotations; 0: two hours */
    struct ticket_key keys[TICKET_KEYS_MAX];
};

/* A copy that belongs together. False: the writer did not come to its end (it died, or has had no CPU for
 * about 50 us): no ticket this time; ret is untouched. Any number of readers, no waiting in the kernel. */
bool ticket_keys_read(const struct ticket_keys *shared, struct ticket_keys *ret);
/* By the one writer (one at a time: a successor after its death). from->version is not looked at. */
void ticket_keys_write(struct ticket_keys *shared, const struct ticket_keys *from);
