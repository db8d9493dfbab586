// SPDX-License-Identifier: MIT
/* What a dead shard has left behind (common/shard_crash.h), for people: lines in the log, and with [log]
 * target = file a file beside it, of which the last few are kept. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "common/config.h"
#include "common/shard_crash.h"

#define CRASH_FILES_MAX 20

struct crash_death {
    unsigned shard;
    pid_t pid;
    int signal; /* as waitpid says */
    bool core;
    int64_t unix_ms;  /* when it was reaped */
    uint64_t loop_ms; /* likewise, on CLOCK_MONOTONIC */
};

/* Both, by a supervisor that is the same program in the same place (addresses are explained by its own
 * mappings). c has been copied: its successor overwrites it. */
void crash_record(const struct config *cfg, const struct crash_death *d, const struct shard_crash *c);

/* The text of the file. */
void crash_text(const struct crash_death *d, const struct shard_crash *c, struct bytes *out);
/* "crash-shard0-20261122T160000Z.txt" in that folder (another one within the same second: "...Z-2.txt"); more
 * than CRASH_FILES_MAX of them: the oldest go. ret_path[cap] is where it is. 0 or -errno. */
int crash_file_write(const char *folder, const struct crash_death *d, struct slice text, char *ret_path,
                     size_t cap);
