// SPDX-License-Identifier: MIT
#include "common/ticket_keys.h"

#include <assert.h>
#include <stddef.h>

#include "base/assert.h"

/* A sequence lock: version is odd while the words behind it change. Words are copied one by one with relaxed
 * atomics, so that a reader that meets a writer reads a mixture, sees it by the version, and tries again. */
#define WORDS ((sizeof(struct ticket_keys) - sizeof(uint32_t)) / sizeof(uint32_t))
static_assert(offsetof(struct ticket_keys, version) == 0 &&
                  sizeof(struct ticket_keys) % sizeof(uint32_t) == 0,
              "words behind the version");

/* A writer needs a microsecond; one without a CPU is not waited for: a ticket more or less. */
#define TRIES 2000

bool ticket_keys_read(const struct ticket_keys *shared, struct ticket_keys *ret)
{
    const uint32_t *from = (const uint32_t *)(const void *)shared;
    struct ticket_keys copy;
    uint32_t *to = (uint32_t *)(void *)&copy;
    for (unsigned tries = 0; tries < TRIES; tries++) {
        /* Acquire: words not older than this version. Partner: the release at the end of the writer. */
        uint32_t before = __atomic_load_n(from, __ATOMIC_ACQUIRE);
        if (before & 1)
            continue;
        /* Acquire: if one of the words is newer, so is the version below. Partner: the writer's releases. */
        for (size_t i = 1; i <= WORDS; i++)
            to[i] = __atomic_load_n(from + i, __ATOMIC_ACQUIRE);
        if (__atomic_load_n(from, __ATOMIC_RELAXED) != before)
            continue;
        copy.version = before;
        if (copy.n > TICKET_KEYS_MAX) /* not from ticket_keys_write */
            return false;
        *ret = copy;
        return true;
    }
    return false;
}

void ticket_keys_write(struct ticket_keys *shared, const struct ticket_keys *from)
{
    ASSERT(from->n <= TICKET_KEYS_MAX);
    uint32_t *to = (uint32_t *)(void *)shared;
    const uint32_t *words = (const uint32_t *)(const void *)from;
    /* Odd already: left so by a writer that died. */
    uint32_t writing = __atomic_load_n(to, __ATOMIC_RELAXED) | 1;
    __atomic_store_n(to, writing, __ATOMIC_RELAXED);
    /* Release: whoever reads one of the new words also reads `writing` or later. Partner: the reader's
     * acquires. */
    for (size_t i = 1; i <= WORDS; i++)
        __atomic_store_n(to + i, words[i], __ATOMIC_RELEASE);
    __atomic_store_n(to, writing + 1, __ATOMIC_RELEASE); /* partner: the reader's first load */
}
