// SPDX-License-Identifier: MIT
/* Built with -Dring_lock=true every call on a ring that looks at or moves its shared positions is made under
 * a mutex in it, as in a ring without atomics. Only there to be measured against (bench/ring_table.py): who
 * dies while it holds the mutex stops the other side for good. */
#pragma once

#include "ring/ring_shm.h"

#ifdef TGG_RING_LOCK
#include <pthread.h>

static_assert(sizeof(pthread_mutex_t) <= sizeof(((struct ring_shm *)NULL)->reserved_identity), "room");

static inline pthread_mutex_t *ring__mutex(struct ring_shm *shm)
{
    return (pthread_mutex_t *)shm->reserved_identity;
}
static inline void ring__lock_format(struct ring_shm *shm)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(ring__mutex(shm), &attr);
}
static inline struct ring_shm *ring__lock(struct ring_shm *shm)
{
    pthread_mutex_lock(ring__mutex(shm));
    return shm;
}
static inline void ring__unlock(struct ring_shm **locked)
{
    pthread_mutex_unlock(ring__mutex(*locked));
}
/* From here to the end of the block. */
#define RING_LOCK(shm) __attribute__((cleanup(ring__unlock))) struct ring_shm *locked = ring__lock(shm)
#else
#define ring__lock_format(shm) ((void)0)
#define RING_LOCK(shm)         ((void)0)
#endif
