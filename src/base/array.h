// SPDX-License-Identifier: MIT
/* Growing of arrays of pointers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Room for one more behind n: doubles *cap (from `first` when it is 0). `array` is the address of the pointer
 * to the first element. False without memory; everything is as it was then. */
static inline bool array_reserve_one(void *array, uint32_t n, uint32_t *cap, uint32_t first)
{
    void **base = array;
    if (n < *cap)
        return true;
    uint32_t new_cap = *cap == 0 ? first : *cap * 2;
    void *grown = realloc(*base, new_cap * sizeof(void *));
    if (grown == NULL)
        return false;
    *base = grown;
    *cap = new_cap;
    return true;
}

/* Room for the element at `at`, however far behind the end; new elements are NULL. Else as array_reserve_one.
 */
static inline bool array_reserve_at(void *array, uint32_t at, uint32_t *cap, uint32_t first)
{
    while (at >= *cap) {
        uint32_t from = *cap;
        if (!array_reserve_one(array, from, cap, first))
            return false;
        memset(*(void ***)array + from, 0, (*cap - from) * sizeof(void *));
    }
    return true;
}
