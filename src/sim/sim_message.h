// SPDX-License-Identifier: MIT
/* The messages of the simulation tell who sent them, which one it is and how long they are, and their content
 * follows from that: whoever gets one can say whether it is whole.
 *
 *   S 012 . 0000034 . 0001000 : cdefgh...      kind, sender, number, length of all, filler */
#pragma once

#include "base/bytes.h"

#define SIM_MESSAGE_HEAD 21
#define SIM_MESSAGE_MAX  9999999

enum sim_message_kind {
    SIM_OF_CLIENT = 'C',
    SIM_OF_LINK = 'S',
    SIM_OF_LINK_BINARY = 'B', /* is not UTF-8 */
};

struct sim_message {
    char kind;
    unsigned sender;
    uint32_t number;
    uint32_t len; /* of all, at least SIM_MESSAGE_HEAD + 1 */
};

void sim_message_append(struct bytes *out, const struct sim_message *m);
/* Reads the head; false: it is none. */
bool sim_message_head(struct slice data, struct sim_message *ret);
/* Head and content of a whole message (and nothing else). False: something in it is not as it was sent. */
bool sim_message_check(struct slice data, struct sim_message *ret);
