// SPDX-License-Identifier: MIT
/* Listening sockets, bound before anything else is started. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Bind and listen: IPv4 or IPv6 (then IPv6 only, so that 0.0.0.0 and :: can have the same port),
 * SO_REUSEADDR, non-blocking, closed on exec. The descriptor or -errno; -EINVAL when address is none. */
int listen_socket_open(const char *address, uint16_t port, int backlog);

/* `n` of them on one address, among which the kernel spreads the connections (SO_REUSEPORT when n > 1). As
 * with one: -EADDRINUSE when anybody else listens there, also another process of ours. All or none: 0 or
 * -errno. */
int listen_socket_open_several(const char *address, uint16_t port, int backlog, unsigned n, int *ret_fds);

/* Why it failed and what to do about it, in words. Returns buf. */
char *listen_socket_explain(int err, const char *address, uint16_t port, char *buf, size_t cap);
