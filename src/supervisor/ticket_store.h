// SPDX-License-Identifier: MIT
/* Keys of TLS session tickets: made here (or read from tls_ticket_file), changed every tls_ticket_rotation,
 * kept in runtime_dir/tls_tickets so that a restart goes on where it was, and written to the memory that the
 * shards read (common/ticket_keys.h). For the supervisor. */
#pragma once

#include <stdint.h>

#include "common/config.h"
#include "common/files.h"
#include "common/ticket_keys.h"

/* The newest makes tickets, which live for two rotations after it has been replaced. */
#define TICKET_STORE_KEYS 3

struct ticket_store {
    struct ticket_keys *shared;
    char *path;          /* of the keys that are kept */
    uint64_t rotation_s; /* > 0 */
    enum { TICKETS_OFF, TICKETS_OWN, TICKETS_OF_FILE } from;
    unsigned n; /* with TICKETS_OWN: newest first */
    struct {
        int64_t made_unix_s;
        struct ticket_key key;
    } own[TICKET_STORE_KEYS];
};

/* Off. */
void ticket_store_init(struct ticket_store *t, const struct config *cfg, struct ticket_keys *shared);
void ticket_store_fini(struct ticket_store *t);

/* Whether tls_ticket_file, when there is one, holds keys. 0, or -EINVAL with err added to. */
int ticket_file_check(const struct config *cfg, const struct files *files, struct config_error *err);

/* At the start and after each reload, with a configuration that was checked: on when a listener speaks TLS,
 * keys of a file read again. What cannot be kept or read back is logged; there are keys all the same. */
void ticket_store_update(struct ticket_store *t, const struct config *cfg, const struct files *files,
                         int64_t now_unix_s);
/* Changes the key when its time has come. */
void ticket_store_turn(struct ticket_store *t, int64_t now_unix_s);
/* When that is; INT64_MAX: never. */
int64_t ticket_store_due_unix_s(const struct ticket_store *t);
