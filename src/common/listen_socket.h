// SPDX-License-Identifier: MIT
/* Listening sockets, bound before anything else is started. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Bind and listen: IPv4 or IPv6 (then IPv6 only, so that 0.0.0.0 and :: can have the same port),
 * SO_REUSEADDR, non-blocking, closed on exec. The descriptor or -errno; -EINVAL when address is none. */
int listen_socket_open(const char *address, uint16_t port, int backlog);

/* Why it failed and what to do about it, in words. Returns buf. */
char *listen_socket_explain(int err, const char *address, uint16_t port, char *buf, size_t cap);
