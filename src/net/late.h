// SPDX-License-Identifier: MIT
/* A queue of numbers, first in first out: connections whose events wait (net_epoll.c). All zero: empty. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct late {
    uint64_t *list;
    uint32_t at, n, cap; /* of list, those from `at` up to n are in the queue */
};

static inline bool late_is_empty(const struct late *q)
{
    return q->at == q->n;
}

/* False without memory. */
static inline bool late_push(struct late *q, uint64_t value)
{
    if (q->n == q->cap && q->at > q->cap / 2) {
        memmove(q->list, q->list + q->at, (q->n - q->at) * sizeof *q->list);
        q->n -= q->at;
        q->at = 0;
    }
    if (q->n == q->cap) {
        uint32_t cap = q->cap == 0 ? 256 : q->cap * 2;
        uint64_t *list = realloc(q->list, cap * sizeof *list);
        if (list == NULL)
            return false;
        q->list = list;
        q->cap = cap;
    }
    q->list[q->n++] = value;
    return true;
}

/* Not of an empty one. The memory goes back with the last. */
static inline uint64_t late_pop(struct late *q)
{
    uint64_t value = q->list[q->at++];
    if (q->at == q->n) {
        free(q->list);
        *q = (struct late){0};
    }
    return value;
}
