// SPDX-License-Identifier: MIT
#include "base/net_addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static const uint8_t v4_mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void addr_set_in6(struct net_addr *a, const struct in6_addr *in6)
{
    if (memcmp(in6->s6_addr, v4_mapped_prefix, 12) == 0) {
        a->family = AF_INET;
        memcpy(a->ip, in6->s6_addr + 12, 4);
    } else {
        a->family = AF_INET6;
        memcpy(a->ip, in6->s6_addr, 16);
    }
}

void net_addr_from_sockaddr(const struct sockaddr_storage *from, struct net_addr *ret)
{
    struct net_addr a = {.family = AF_UNIX};

    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)from;
        a.family = AF_INET;
        memcpy(a.ip, &in->sin_addr, 4);
        a.port = ntohs(in->sin_port);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;
        addr_set_in6(&a, &in6->sin6_addr);
        a.port = ntohs(in6->sin6_port);
    }
    *ret = a;
}

socklen_t net_addr_to_sockaddr(const struct net_addr *a, struct sockaddr_storage *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (a->family == AF_INET) {
        struct sockaddr_in *in = (struct sockaddr_in *)ret;
        in->sin_family = AF_INET;
        memcpy(&in->sin_addr, a->ip, 4);
        in->sin_port = htons(a->port);
        return sizeof(*in);
    }
    if (a->family == AF_INET6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
        in6->sin6_family = AF_INET6;
        memcpy(&in6->sin6_addr, a->ip, 16);
        in6->sin6_port = htons(a->port);
        return sizeof(*in6);
    }
    return 0;
}

char *net_addr_format_ip(const struct net_addr *a, char *buf, size_t cap)
{
    if (a->family == AF_UNIX)
        snprintf(buf, cap, "unix:");
    else if (inet_ntop(a->family, a->ip, buf, (socklen_t)cap) == NULL)
        snprintf(buf, cap, "?");
    return buf;
}

char *net_addr_format(const struct net_addr *a, char *buf, size_t cap)
{
    char ip[INET6_ADDRSTRLEN + 1];

    net_addr_format_ip(a, ip, sizeof(ip));
    if (a->family == AF_UNIX)
        snprintf(buf, cap, "%s", ip);
    else
        snprintf(buf, cap, a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, a->port);
    return buf;
}

/* A decimal number up to 65535 and nothing else. */
static int parse_port(const char *text, uint16_t *ret)
{
    unsigned port = 0;

    if (*text == '\0' || strlen(text) > 5)
        return -EINVAL;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        port = port * 10 + (unsigned)(*text - '0');
    }
    if (port > UINT16_MAX)
        return -EINVAL;
    *ret = (uint16_t)port;
    return 0;
}

/* IPv4 first: a worker's address must be IPv4, and a name with both mostly means it. */
static int resolve(const char *host, struct net_addr *a)
{
    static const int families[] = {AF_INET, AF_INET6};
    int r = -ENOENT;

    for (unsigned i = 0; i < 2 && r != 0; i++) {
        struct addrinfo hints = {.ai_family = families[i], .ai_socktype = SOCK_STREAM}, *found;
        struct sockaddr_storage ss = {0};
        if (getaddrinfo(host, NULL, &hints, &found) != 0)
            continue;
        memcpy(&ss, found->ai_addr, found->ai_addrlen);
        net_addr_from_sockaddr(&ss, a);
        freeaddrinfo(found);
        r = 0;
    }
    return r;
}

void net_addr_from_ip6(const uint8_t ip[16], uint16_t port, struct net_addr *ret)
{
    struct net_addr a = {.port = port};
    struct in6_addr in6;

    memcpy(&in6, ip, 16);
    addr_set_in6(&a, &in6);
    *ret = a;
}

int net_addr_parse_ip(const char *text, size_t len, struct net_addr *ret)
{
    struct net_addr a = {.family = AF_INET};
    struct in6_addr in6;
    char copy[INET6_ADDRSTRLEN]; /* the longest there is, and its NUL */

    if (len >= sizeof(copy) || memchr(text, '\0', len) != NULL)
        return -EINVAL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (inet_pton(AF_INET6, copy, &in6) == 1)
        addr_set_in6(&a, &in6);
    else if (inet_pton(AF_INET, copy, a.ip) != 1)
        return -EINVAL;
    *ret = a;
    return 0;
}

int net_addr_parse(const char *text, struct net_addr *ret)
{
    struct net_addr a = {0};
    struct in6_addr in6;
    char host[256];
    uint16_t port;

    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof(host))
        return -EINVAL;
    if (parse_port(colon + 1, &port) < 0)
        return -EINVAL;
    size_t len = (size_t)(colon - text);
    memcpy(host, text, len);
    host[len] = '\0';

    if (host[0] == '[') {
        if (host[len - 1] != ']')
            return -EINVAL;
        host[len - 1] = '\0';
        if (inet_pton(AF_INET6, host + 1, &in6) != 1)
            return -EINVAL;
        addr_set_in6(&a, &in6);
    } else if (strchr(host, ':') != NULL) {
        return -EINVAL; /* IPv6 without brackets: which colon is the port's? */
    } else if (inet_pton(AF_INET, host, a.ip) == 1) {
        a.family = AF_INET;
    } else {
        int r = resolve(host, &a);
        if (r < 0)
            return r;
    }
    a.port = port;
    *ret = a;
    return 0;
}
