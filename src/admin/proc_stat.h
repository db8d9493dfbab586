// SPDX-License-Identifier: MIT
/* What the kernel tells of a process. */
#pragma once

#include <stdint.h>

/* Each 0 when it cannot be read. */
struct proc_stat {
    uint64_t cpu_ns;
    uint64_t rss_bytes;
};
void proc_stat_read(int32_t pid, struct proc_stat *ret);
