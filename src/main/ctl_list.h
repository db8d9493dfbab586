// SPDX-License-Identifier: MIT
/* tgg ctl: lists that come in pages (clients, uids, groups). */
#pragma once

#include "main/ctl_ask.h"
#include "main/ctl_commands.h"

#define CTL_PAGE_ROWS     200 /* asked for at once: what a shard answers at most */
#define CTL_LIMIT_DEFAULT 100

/* All that was asked for: so many rows, or all (--all), each once. v->out gets text, or JSON: the first
 * answer with the rows of all pages, or one array for --all. It is given to `flush` (if not NULL) after each
 * page and then emptied. v->answer is not used. 0; -EINTR; other -errno: `why` tells. */
int ctl_list(const struct ctl_command *command, const struct ctl_asker *asker,
             const struct ctl_target *target, struct ctl_view *v, int (*flush)(struct bytes *out),
             struct bytes *why);
