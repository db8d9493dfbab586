// SPDX-License-Identifier: MIT
/* The client's address in the headers that proxies add: X-Forwarded-For, X-Real-IP, Forwarded (RFC 7239).
 * Pure. */
#pragma once

#include "base/net_addr.h"
#include "proto/line/http_request.h"

enum forwarded_header {
    FORWARDED_HEADER_X_FORWARDED_FOR,
    FORWARDED_HEADER_X_REAL_IP,
    FORWARDED_HEADER_FORWARDED
};

/* Each proxy appends whom it got the request from, so the list (over all headers of that name, in order) is
 * walked from its end, over addresses that are trusted proxies, to the first that is not: that is the client.
 * All trusted: the first of the list. What stands before the client is never looked at: the client may have
 * written it, and nothing that it writes there changes the answer. X-Real-IP: the last header of that name,
 * one address.
 *
 * Addresses, in all three: 1.2.3.4, 1.2.3.4:80, [v6], [v6]:80, v6 (without zone; v4-mapped becomes IPv4). A
 * port may be obfuscated ("_x"; it counts as none). In Forwarded they may be quoted (section 4); an element
 * without `for`, with two of them, or that is no list of pairs is no address.
 *
 * is_trusted is called with ports 0 and may be called for each element.
 *
 * 0: *ret is the client (port 0 when none was said). -ENOENT: there is no such header, or only empty lists.
 * -EINVAL: what stands where the client should is no address ("unknown", an obfuscated name, nonsense). ret
 * is untouched unless 0. */
int forwarded_client(const struct http_request *req, enum forwarded_header which,
                     bool (*is_trusted)(void *ctx, const struct net_addr *addr), void *ctx,
                     struct net_addr *ret);
