// SPDX-License-Identifier: MIT
/* What the files of guard/ share. */
#pragma once

#include "base/log.h"
#include "guard/address_count.h"
#include "guard/ban_file.h"
#include "guard/cidr_table.h"
#include "guard/guard.h"

/* ---- lists (cidr_list.c) */

/* Where a value stands, for what is wrong with it. */
struct list_source {
    const struct files *files;
    const char *section, *key;
    unsigned line;
    struct config_error *err;
};
/* All prefixes of a list's value (CIDRs and paths), each with `value`. 0, -EINVAL with every problem added,
 * -ENOMEM. */
int guard__list_read(struct cidr_set *set, const char *list, int64_t value, const struct list_source *src);
/* Whether it names anything. */
bool guard__list_is_set(const char *list);

/* The lines of a text: without their end (LF or CRLF), counted from 1. All zero but text: before the first.
 */
struct text_lines {
    struct slice text;
    size_t at;
    unsigned line;
    struct slice content; /* of the line */
};
bool guard__next_line(struct text_lines *l);
/* Without comment (# and what follows) and without blanks around it. */
struct slice guard__line_words(struct slice line);

/* ---- rates over all clients (guard_meter.c) */

/* A token bucket, full at first. `level` is in parts of a client, of which 1000 * n_edges are one: so a part
 * of the rate that is no whole number is kept. */
struct bucket {
    uint64_t level, last_ms;
    bool started;
};
/* Takes one client or handshake out, of rate a second over n_edges shards (each has its part, but at least
 * one a second). False: it is empty. */
bool guard__bucket_take(struct bucket *b, uint64_t rate, unsigned n_edges, uint64_t now_ms);

/* ---- the guard (guard.c) */

enum access { ACCESS_ALLOW, ACCESS_DENY }; /* the higher one wins (cidr_clashes) */

/* From configuration and files; replaced as a whole. */
struct guard_lists {
    struct cidr_table *access; /* enum access */
    struct cidr_table *bans;   /* end of the ban, unix seconds */
    struct cidr_list *reserve;
    bool strangers_pass;      /* who is on no list */
    bool access_set;          /* allow_list or deny_list is there */
    unsigned dry_run;         /* 1 << enum guard_verdict */
    struct cidr_clashes both; /* on allow_list and on deny_list */
};

/* Everything that the configuration and its files say. 0, -EINVAL with every problem added, -ENOMEM; ret is
 * untouched on failure. Bans that end before now_unix_s are left out (guard_lists.c). */
int guard__lists_load(const struct config *cfg, const struct files *files, int64_t now_unix_s,
                      struct guard_lists *ret, struct config_error *err);
void guard__lists_fini(struct guard_lists *l);

struct guard {
    struct guard_options opt;
    struct guard_lists lists;
    struct guard_shm *shm;
    bool shm_is_mine;
    unsigned shard; /* in shm */
    struct bucket accepts, handshakes;
    int64_t now_unix_s; /* of the last check: bans that ended before are not loaded again */
};

/* A check found that it should refuse: counts, logs; what to return (GUARD_PASS in dry run). addr may be
 * NULL. */
enum guard_verdict guard__refuse(struct guard *g, enum guard_verdict v, const struct net_addr *addr);
