// SPDX-License-Identifier: MIT
/* The PROXY protocol, versions 1 and 2 (haproxy's proxy-protocol.txt of 2020, sections 2.1 and 2.2): what a
 * proxy says, before any other byte, of the connection that it forwards. Pure. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/net_addr.h"

struct proxy_header {
    uint8_t version;    /* 1 or 2 */
    bool has_addresses; /* false: LOCAL, UNKNOWN, or a family that has none (Unix, unspecified): those of the
                         * connection itself stand, client and server are all zero */
    struct net_addr client; /* source, v4-mapped unmapped */
    struct net_addr server; /* destination, likewise */
};

#define PROXY_V1_MAX 107         /* bytes, the line's end included */
#define PROXY_V2_MAX (16 + 4096) /* ours: longer ones (TLVs) are refused with -EMSGSIZE */

/* data: what has come since the beginning; the header may come in any number of pieces.
 * >0         length of the header; *ret is filled
 * 0          more bytes are needed: so far it is the beginning of one (of version 1 at most PROXY_V1_MAX - 1
 *            bytes, of version 2 less than PROXY_V2_MAX)
 * -ENOMSG    it is none (one of its first 6 or 12 bytes is another): data of the client itself
 * -EPROTO    it is one, and malformed
 * -EMSGSIZE  too long
 * Errors are said at the first byte that shows them, but for the fields of a line of version 1, which are
 * looked at when it is whole (as section 2.1 asks). *ret is untouched unless the answer is > 0. */
ssize_t proxy_decode(const uint8_t *data, size_t len, struct proxy_header *ret);

/* For tests and tools: a v1 line or a v2 header of a TCP connection. IPv4 with IPv6 is said as IPv6; when one
 * of them is a Unix socket, UNKNOWN (version 1) or LOCAL (version 2). The length; 0 when cap is too small
 * (PROXY_V1_MAX is enough). */
size_t proxy_encode(unsigned version, const struct net_addr *client, const struct net_addr *server,
                    uint8_t *out, size_t cap);
