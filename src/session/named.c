// SPDX-License-Identifier: MIT
#include "session/directory_priv.h"

#include <string.h>

#include "base/hash.h"

struct name_key named__key(const void *data, size_t len)
{
    uint64_t h = len <= DIRECTORY_NAME_LEN_MAX ? hash_bytes(len ? data : "", len) : 0;
    uint32_t folded = (uint32_t)(h ^ (h >> 32));
    return (struct name_key){.data = data, .len = len, .hash = folded ? folded : 1, .full_hash = h};
}

struct name_key named__key_of(const struct named *n)
{
    return named__key(n->name, n->set.name_len);
}

static bool matches(const void *value, const void *arg)
{
    const struct named *n = value;
    const struct name_key *key = arg;
    return n->set.name_len == key->len && (key->len == 0 || memcmp(n->name, key->data, key->len) == 0);
}

struct named *named__find(const struct hash_table *t, struct name_key key)
{
    return hash_table__find_match(t, key.hash, matches, &key);
}

#define LOOKED_AT_MAX 4096

bool directory_next_name(const struct directory *d, enum directory_names which, uint32_t *position,
                         const uint8_t **ret_name, size_t *ret_len, uint32_t *ret_members)
{
    const struct hash_table *t = which == DIRECTORY_UIDS ? &d->uids : &d->groups;
    uint32_t slots = hash_table__slots(t);
    *ret_name = NULL;
    for (uint32_t looked_at = 0; *position < slots && looked_at < LOOKED_AT_MAX; looked_at++) {
        const struct named *n = hash_table__at(t, (*position)++);
        if (!n) {
            continue;
        }
        *ret_name = n->name;
        *ret_len = n->set.name_len;
        *ret_members = n->set.live;
        return true;
    }
    return *position < slots;
}
