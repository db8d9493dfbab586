// SPDX-License-Identifier: MIT
/* Listening sockets, bound before anything else is started. All are non-blocking and closed on exec. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/tcp_options.h"

/* Bind and listen: IPv4 or IPv6 (then IPv6 only, so that 0.0.0.0 and :: can have the same port),
 * SO_REUSEADDR, TCP options with NET_KEEPALIVE_DEFAULT. The descriptor or -errno; -EINVAL when address is
 * none, or one of a Unix socket. */
int listen_socket_open(const char *address, uint16_t port, int backlog);

/* `n` of them on one address, among which the kernel spreads the connections (SO_REUSEPORT when n > 1). As
 * with one: -EADDRINUSE when anybody else listens there, also another process of ours. All or none: 0 or
 * -errno. The TCP options are there before the first connection: what waits in the queue when a shard comes
 * has them. */
int listen_socket_open_several(const char *address, uint16_t port, int backlog, const struct net_keepalive *k,
                               unsigned n, int *ret_fds);

/* Beside sockets of ours that are about to go (the whole address instead of one, or the other way round):
 * all of them share the port, see listen_socket_share. */
int listen_socket_open_beside(const char *address, uint16_t port, int backlog, const struct net_keepalive *k,
                              unsigned n, int *ret_fds);
/* Lets others of this user listen on its port, too (SO_REUSEPORT). 0 or -errno. */
int listen_socket_share(int fd);

/* ---- Unix sockets: address "unix:" and an absolute path */
bool listen_socket_is_unix(const char *address);

/* Which file it made: somebody else's may stand there by now. */
struct listen_socket_file {
    dev_t dev;
    ino_t ino;
};

/* Bind and listen, the file with these permissions. There is no SO_REUSEPORT for them: several processes
 * share the one socket. A file that a dead process has left is replaced. The descriptor or -errno:
 *   -EADDRINUSE    somebody listens there
 *   -EEXIST        something that is no socket stands there
 *   -EBUSY         another process does the same in this folder, just now
 *   -EINVAL, -ENAMETOOLONG, and what the file system says */
int listen_socket_open_unix(const char *address, int backlog, mode_t mode,
                            struct listen_socket_file *ret_file);
/* At the end, by the one who opened it: whoever connects from now on is refused. Only the file that `file`
 * tells of; the descriptor is not touched. */
void listen_socket_remove_file(const char *address, const struct listen_socket_file *file);

/* Why it failed and what to do about it, in words. Returns buf. */
char *listen_socket_explain(int err, const char *address, uint16_t port, char *buf, size_t cap);
