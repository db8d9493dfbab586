// SPDX-License-Identifier: MIT
/* Memory of the session tables, counted as the allocator counts it (its own overhead included), so that
 * directory_bytes tells what the process really holds. Private to src/session. One thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct mem {
    size_t bytes;
};

/* Test hook: the n-th allocation from now fails, and every later one, until it is set to -1 (never). */
extern long session_alloc_fail_after;
bool mem__injected_failure(void); /* for what is allocated elsewhere */

void *mem__alloc(struct mem *mem, size_t size);            /* NULL without memory */
void *mem__realloc(struct mem *mem, void *p, size_t size); /* NULL without memory: p is as it was */
void mem__free(struct mem *mem, void *p);                  /* p may be NULL */

/* Zeroed, for tables. Large ones come straight from the kernel: zero pages cost nothing until touched, while
 * calloc clears recycled memory in one go (milliseconds for a million slots), and they go back at once when
 * freed. */
void *mem__alloc_zero(struct mem *mem, size_t size);
void mem__free_zero(struct mem *mem, void *p, size_t size);
