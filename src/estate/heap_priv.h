// SPDX-License-Identifier: MIT
/* What heap.c (slabs) takes from heap_run.c (runs of pages). */
#pragma once

#include "estate/heap.h"

/* n pages in a row, HEAP_NONE if there are none. What they are (page[].kind) is set by the caller. */
uint32_t heap__take_run(struct heap *h, uint32_t n);
/* They are free and dirty. */
void heap__give_run(struct heap *h, uint32_t first, uint32_t n);
void heap__init_runs(struct heap *h);
const char *heap__check_run(const struct heap *h, uint32_t first);

/* The sanitizer sees who touches a block that is not his. */
#if defined(__SANITIZE_ADDRESS__)
#define HEAP_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HEAP_ASAN 1
#endif
#endif
#ifdef HEAP_ASAN
#include <sanitizer/asan_interface.h>
#define HEAP_POISON(p, len)   __asan_poison_memory_region((p), (len))
#define HEAP_UNPOISON(p, len) __asan_unpoison_memory_region((p), (len))
#else
#define HEAP_POISON(p, len)   ((void)(p), (void)(len))
#define HEAP_UNPOISON(p, len) ((void)(p), (void)(len))
#endif
