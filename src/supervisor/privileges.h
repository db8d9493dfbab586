// SPDX-License-Identifier: MIT
/* As whom the children run, and without what: user and group of the configuration, no capabilities, nothing
 * to gain by what they execute. The supervisor itself stays as it was started. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/config.h"

#define PRIVILEGES_GROUPS_MAX 64

struct privileges {
    bool change;  /* user and group: only with a configured one, and only as root */
    bool confine; /* sandbox = on: no capabilities, no_new_privs */
    bool ignored; /* another user or group is configured, and we are not root */
    uid_t uid;
    gid_t gid;
    gid_t groups[PRIVILEGES_GROUPS_MAX]; /* those of the user, gid among them */
    int n_groups;
    char user[72]; /* for messages */
};

/* In the supervisor, before anything is started (it looks into the user database, which a child may not). 0,
 * or -EINVAL with err added to: unknown names. */
int privileges_resolve(const struct config *cfg, struct privileges *ret, struct config_error *err);

/* In a child, for good; TERM comes again when `parent` dies (a change of the user ends that). With a
 * change of the user no other process of that user may look into the child, and it writes no core file but by
 * the handler of stack_dump.h. 0 or -errno: then the child must end. */
int privileges_drop(const struct privileges *p, pid_t parent);

/* What a child is to open itself, in a folder where it perhaps may not make files: makes it when it is
 * missing, and gives it to the user. One that changes hands must not be a link, a device or the like (-ELOOP,
 * -EINVAL): whoever may write to the folder could else aim us at another. 0 or -errno. */
int privileges_give_file(const struct privileges *p, const char *path);
/* Whether a child could open that for appending, by trying it in one. 0 or -errno. */
int privileges_try_append(const struct privileges *p, const char *path);
