// SPDX-License-Identifier: MIT
/* The way of new settings to a shard: messages with bounds over a socket pair of its own, each a running
 * number and a descriptor (a memfd of files_to_fd: the configuration's text and its files). The supervisor
 * writes, the shard reads to the end and takes the last. Neither side blocks. */
#pragma once

#include <stdint.h>

/* [0] to receive, [1] to send; closed on exec, non-blocking. 0 or -errno. */
int settings_open(int ret[2]);
/* The descriptor stays the caller's. 0; -EAGAIN: nothing of it went out, the shard has not read what came
 * before; -errno. */
int settings_send(int fd, uint64_t generation, int files_fd);
/* A descriptor, which is the caller's now. -EAGAIN: none is there. -EPIPE: the other end is closed.
 * -EBADMSG: not one of ours (it is gone). Other -errno. */
int settings_receive(int fd, uint64_t *ret_generation);
/* What a shard that died has not read is not for its successor. */
void settings_drain(int fd);
