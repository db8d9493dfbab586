// SPDX-License-Identifier: MIT
/* tgg ctl: a set of numbers, to say each row of a list once while what is listed changes. All zero is an
 * empty one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ctl_seen {
    uint64_t *slots; /* open addressing, a power of two of them, at most half full; 0: free */
    size_t cap, n;
    bool has_zero, failed;
};

/* Whether it is new. Without memory it is (and failed is set). */
bool ctl_seen_add(struct ctl_seen *seen, uint64_t number);
void ctl_seen_fini(struct ctl_seen *seen);
