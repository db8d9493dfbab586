// SPDX-License-Identifier: MIT
/* The contents of the files that a configuration names: certificates, keys, lists. The supervisor reads them
 * while it may (a shard runs as another user, perhaps in a sandbox), a shard gets them at its fork, and anew
 * with each reload, with the text of the configuration, in one piece of memory. */
#pragma once

#include "base/bytes.h"
#include "common/config.h"

struct files; /* immutable */

/* Everything that cfg names, and the configuration's own text (config_text; may be of length 0). Only what is
 * there is read: a missing ban file is an empty one, any other missing file is an error of its key. 0, or
 * -EINVAL with err added to. Bounded: FILES_TOTAL_MAX. */
#define FILES_TOTAL_MAX ((size_t)256 << 20)
int files_load(const struct config *cfg, struct slice config_text, struct files **ret,
               struct config_error *err);
void files_free(struct files *f);

/* The content of the file that the configuration calls so; false: it was not loaded. Valid as long as f. */
bool files_get(const struct files *f, const char *path, size_t path_len, struct slice *ret);
struct slice files_config_text(const struct files *f);
/* How many files only one of the two has, or have another content; without the configuration's text. */
unsigned files_changed(const struct files *a, const struct files *b);

/* To another process: a sealed memfd that holds all, and back from it (mapped). The descriptor is the
 * caller's; it may be closed after. files_open refuses what does not hold together: -EINVAL. */
int files_to_fd(const struct files *f); /* fd or -errno */
int files_open(int fd, struct files **ret);
/* The same, and its text as a configuration, which has been checked by whoever sent it. path only names it.
 */
int files_open_config(int fd, const char *path, struct files **ret, struct config *ret_config);

/* Path of the bans, as files_get knows it: ban_file, or "bans" in runtime_dir. Returns buf. */
char *files_ban_path(const struct config *cfg, char *buf, size_t cap);
