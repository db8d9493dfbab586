// SPDX-License-Identifier: MIT
/* Whether a loop still turns, as far as its count of turns tells. Pure: the caller has the clock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WATCHDOG_MISSES_MAX 3 /* deadlines until it is given up */

struct watchdog {
    uint64_t turns;
    uint64_t since_ms; /* when it was seen to turn, or the last deadline was missed */
    uint64_t looked_ms;
    unsigned missed; /* deadlines in a row */
    bool armed;
};

/* From now on it has to turn again. */
void watchdog_reset(struct watchdog *w);

/* To be called every timeout_ms / 4. The number of the deadline that has just been missed (1, 2, ...), 0:
 * none. A look that comes late tells nothing: we (and so perhaps all of us) did not run; the clock starts
 * again. */
unsigned watchdog_look(struct watchdog *w, uint64_t turns, uint64_t now_ms, uint64_t timeout_ms);
