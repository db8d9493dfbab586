// SPDX-License-Identifier: MIT
/* Memory for rings: a memfd, or a file on a tmpfs, mapped shared. Sparse: pages that were never touched cost
 * nothing, so one mapping may have room for all rings of a node. */
#pragma once

#include <stddef.h>

struct ring_map {
    void *mem; /* starts as all zero */
    size_t bytes;
    int fd; /* close-on-exec; inherited by forks; -1: not held */
};

/* path NULL: a memfd, sealed so that no peer can cut off what others have mapped (SIGBUS). Else a new file
 * (mode 0600) that later processes can open; its folder must be one that only trusted processes can write to,
 * and as its pages are allocated when touched, a tmpfs that is full ends the toucher by SIGBUS: size it for
 * all of them. 0 or -errno: -EEXIST, -EINVAL (no bytes), others. *ret is untouched on failure. */
int ring_shm_create(const char *path, size_t bytes, struct ring_map *ret);

/* Map what ring_shm_create made, whole. The descriptor stays the caller's (ret->fd is -1). 0 or -errno;
 * -EPROTO: not at least `bytes_min` large. */
int ring_shm_map(int fd, size_t bytes_min, struct ring_map *ret);

/* Unmap, and close the descriptor if it is held. Fine for all zero with fd -1. */
void ring_shm_unmap(struct ring_map *map);
