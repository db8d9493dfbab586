// SPDX-License-Identifier: MIT
#include "main/ctl_seen.h"

#include <stdlib.h>

static size_t place(const struct ctl_seen *seen, uint64_t number)
{
    size_t i = (size_t)((number * UINT64_C(0x9E3779B97F4A7C15)) >> 20) & (seen->cap - 1);
    while (seen->slots[i] != 0 && seen->slots[i] != number)
        i = (i + 1) & (seen->cap - 1);
    return i;
}

static bool grow(struct ctl_seen *seen)
{
    struct ctl_seen larger = {.cap = seen->cap > 0 ? 2 * seen->cap : 1024, .n = seen->n};

    larger.has_zero = seen->has_zero;
    larger.slots = calloc(larger.cap, sizeof larger.slots[0]);
    if (larger.slots == NULL)
        return false;
    for (size_t i = 0; i < seen->cap; i++) {
        if (seen->slots[i] != 0)
            larger.slots[place(&larger, seen->slots[i])] = seen->slots[i];
    }
    free(seen->slots);
    *seen = larger;
    return true;
}

bool ctl_seen_add(struct ctl_seen *seen, uint64_t number)
{
    if (number == 0) {
        bool is_new = !seen->has_zero;
        seen->has_zero = true;
        return is_new;
    }
    if (2 * (seen->n + 1) > seen->cap && !grow(seen)) {
        seen->failed = true;
        return true;
    }
    size_t i = place(seen, number);
    if (seen->slots[i] == number)
        return false;
    seen->slots[i] = number;
    seen->n++;
    return true;
}

void ctl_seen_fini(struct ctl_seen *seen)
{
    free(seen->slots);
    *seen = (struct ctl_seen){0};
}
