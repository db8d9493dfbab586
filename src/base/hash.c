// SPDX-License-Identifier: MIT
#include "base/hash.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "base/assert.h"

static uint64_t key;
static bool key_drawn;

void hash_init(void)
{
    ssize_t n;

    do
        n = getrandom(&key, sizeof(key), 0);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof(key)) { /* start-up: without a key peers could choose their collisions */
        fprintf(stderr, "hash_init: getrandom: %s\n", n < 0 ? strerror(errno) : "short");
        exit(1);
    }
    key_drawn = true;
}

void hash_init_fixed(uint64_t seed)
{
    key = seed;
    key_drawn = true;
}

uint64_t hash_bytes(const void *data, size_t len)
{
    ASSERT(key_drawn);
    return XXH3_64bits_withSeed(data, len, key);
}
