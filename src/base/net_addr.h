// SPDX-License-Identifier: MIT
/* Addresses of peers, as every layer names them. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* An address of a peer or of ourselves: IPv4 (also v4-mapped, unmapped by us), IPv6, or a Unix socket (no
 * bytes). */
struct net_addr {
    uint8_t family; /* AF_INET, AF_INET6, AF_UNIX */
    uint8_t ip[16]; /* network order; the first 4 for AF_INET */
    uint16_t port;  /* host order */
};
/* "1.2.3.4:80", "[::1]:80", "unix:"; returns buf. cap >= NET_ADDR_STRLEN. */
#define NET_ADDR_STRLEN 64
char *net_addr_format(const struct net_addr *a, char *buf, size_t cap);
/* Only the address, no port, no brackets. */
char *net_addr_format_ip(const struct net_addr *a, char *buf, size_t cap);
/* Numeric "ip:port", "[ip6]:port" or a host name (resolved once, may block: start-up only). 0 or
 * -EINVAL/-ENOENT. */
int net_addr_parse(const char *text, struct net_addr *ret);
/* A numeric address of `len` bytes and nothing else: "1.2.3.4" (no leading zeros), "2001:db8::1" (no
 * brackets, no zone). Resolves nothing, so it is for bytes from outside. Port 0. 0 or -EINVAL. */
int net_addr_parse_ip(const char *text, size_t len, struct net_addr *ret);
/* From the bytes of an IPv6 address (v4-mapped becomes IPv4). */
void net_addr_from_ip6(const uint8_t ip[16], uint16_t port, struct net_addr *ret);

/* From what the kernel gave (v4-mapped becomes IPv4), and to what it takes; the length, or 0 for a family
 * that we cannot write. */
void net_addr_from_sockaddr(const struct sockaddr_storage *from, struct net_addr *ret);
socklen_t net_addr_to_sockaddr(const struct net_addr *a, struct sockaddr_storage *ret);
