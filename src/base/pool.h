// SPDX-License-Identifier: MIT
/* Fixed-size objects from chunks, lowest chunk first, so that chunks empty out after a burst and go back.
 * One thread. With TGG_POOL_MALLOC every object is malloc'ed. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct pool;

/* `size` bytes each, at most `max` objects (0: no limit). NULL without memory. `name` must outlive the pool.
 */
struct pool *pool_new(const char *name, size_t size, size_t max);
/* Every object must have come back. */
void pool_free(struct pool *p);

void *pool_get(struct pool *p); /* zeroed; NULL at the limit or without memory */
void pool_put(struct pool *p, void *obj);

size_t pool_used(const struct pool *p); /* objects out */
size_t pool_peak(const struct pool *p);
size_t pool_bytes(const struct pool *p); /* memory held, used or not */
