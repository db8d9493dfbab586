// SPDX-License-Identifier: MIT
/* The way of new settings to a shard (and to the admin process): messages with bounds over a socket pair of
 * its own, each a running number, a memfd of files_to_fd (the configuration's text and its files), and where
 * the listeners of that configuration stand, with the descriptors of this shard's sockets. Each message is
 * complete: the supervisor writes, the shard reads to the end and takes the last. Neither side blocks.
 *
 * A listener has a slot, the same in all shards, for as long as any of them has it or a client of it; one
 * that is removed and comes again with the same name and START keys gets its slot again, where clients of it
 * may still be. */
#pragma once

#include <stdint.h>

#include "common/config.h"

/* A listener of the configuration. */
struct settings_listener {
    uint64_t since;  /* a generation: shards that have taken it over know this listener */
    uint32_t socket; /* number of the socket that it stands on, alone or with others
                      * (config_listen_socket_of): of two with one number it is the same, never 0 */
    uint16_t slot;   /* below CONFIG_LISTEN_MAX */
    uint16_t made;   /* grows when the slot is given to another listener than before */
    int fd;          /* bound and listening, this shard's own (of a Unix socket: its own descriptor of the one
                      * that all share); -1: it has none, but that of an earlier one; or no role edge */
};

struct settings {
    uint64_t generation;
    int files_fd;
    unsigned n_listeners;
    struct settings_listener listeners[CONFIG_LISTEN_MAX]; /* in the order of the configuration */
};

/* [0] to receive, [1] to send; closed on exec, non-blocking. 0 or -errno. */
int settings_open(int ret[2]);
/* The descriptors stay the caller's. 0; -EAGAIN: nothing of it went out, the shard has not read what came
 * before; -errno. */
int settings_send(int fd, const struct settings *s);
/* 0: the descriptors in *ret are the caller's now. -EAGAIN: none is there. -EPIPE: the other end is closed.
 * -EBADMSG: not one of ours, or there was no room for its descriptors (it is gone). Other -errno. */
int settings_receive(int fd, struct settings *ret);
/* Closes the descriptors that are there (not -1). */
void settings_close(struct settings *s);
/* What a shard that died has not read is not for its successor. */
void settings_drain(int fd);
