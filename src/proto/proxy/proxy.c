// SPDX-License-Identifier: MIT
#include "proto/proxy/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static const uint8_t v1_start[6] = "PROXY ";
static const uint8_t v2_start[12] = "\r\n\r\n\0\r\nQUIT\n";

/* What of `start` is there is right. */
static bool begins(const uint8_t *data, size_t len, const void *start, size_t start_len)
{
    return memcmp(data, start, len < start_len ? len : start_len) == 0;
}

/* --- Version 1: "PROXY TCP4 source destination port port\r\n" */

struct v1_family {
    const char *word;
    uint8_t len;
    char separator; /* in each of its addresses; 0: the rest of the line says nothing */
};
static const struct v1_family v1_families[] = {{"TCP4 ", 5, '.'}, {"TCP6 ", 5, ':'}, {"UNKNOWN", 7, '\0'}};

static const struct v1_family *v1_find_family(const uint8_t *rest, size_t len)
{
    for (size_t i = 0; i < sizeof v1_families / sizeof v1_families[0]; i++)
        if (begins(rest, len, v1_families[i].word, v1_families[i].len))
            return &v1_families[i];
    return NULL;
}

/* Length of the line with its CRLF, 0, -EPROTO (a CR or LF alone) or -EMSGSIZE. */
static ssize_t v1_find_end(const uint8_t *data, size_t len)
{
    size_t n = len < PROXY_V1_MAX ? len : PROXY_V1_MAX;
    for (size_t i = sizeof v1_start; i < n; i++) {
        if (data[i] == '\n')
            return data[i - 1] == '\r' ? (ssize_t)i + 1 : -EPROTO;
        if (data[i - 1] == '\r')
            return -EPROTO;
    }
    return n == PROXY_V1_MAX ? -EMSGSIZE : 0;
}

/* The bytes up to the next `end`, which is skipped; NULL when there is none. */
static const char *v1_take(const char **pos, char end, size_t *ret_len)
{
    const char *field = *pos, *stop = field;
    while (*stop != end && *stop != '\r')
        stop++;
    if (*stop != end)
        return NULL;
    *ret_len = (size_t)(stop - field);
    *pos = stop + 1;
    return field;
}

/* As each address may be v4-mapped and is then IPv4 for us, the family is told by how it is written. */
static bool v1_take_address(const char **pos, char separator, struct net_addr *ret)
{
    size_t len;
    const char *field = v1_take(pos, ' ', &len);
    return field != NULL && (memchr(field, ':', len) != NULL) == (separator == ':') &&
           net_addr_parse_ip(field, len, ret) == 0;
}

/* 0 to 65535 without leading zeros. */
static bool v1_take_port(const char **pos, char end, uint16_t *ret)
{
    size_t len;
    const char *field = v1_take(pos, end, &len);
    if (field == NULL || len == 0 || len > 5 || (field[0] == '0' && len > 1))
        return false;
    unsigned port = 0;
    for (size_t i = 0; i < len; i++) {
        if (field[i] < '0' || field[i] > '9')
            return false;
        port = port * 10 + (unsigned)(field[i] - '0');
    }
    *ret = (uint16_t)port;
    return port <= UINT16_MAX;
}

static ssize_t v1_decode(const uint8_t *data, size_t len, struct proxy_header *ret)
{
    const uint8_t *rest = data + sizeof v1_start;
    const struct v1_family *family = v1_find_family(rest, len - sizeof v1_start);
    if (family == NULL)
        return -EPROTO;
    ssize_t n = v1_find_end(data, len);
    if (n <= 0)
        return n;
    struct proxy_header h = {.version = 1, .has_addresses = family->separator != '\0'};
    const char *pos = (const char *)rest + family->len;
    if (!h.has_addresses) {
        if (*pos != ' ' && *pos != '\r')
            return -EPROTO;
    } else if (!v1_take_address(&pos, family->separator, &h.client) ||
               !v1_take_address(&pos, family->separator, &h.server) ||
               !v1_take_port(&pos, ' ', &h.client.port) || !v1_take_port(&pos, '\r', &h.server.port)) {
        return -EPROTO;
    }
    *ret = h;
    return n;
}

/* --- Version 2: 16 bytes, then as many as they say: addresses, and TLVs that we do not look at. */

#define V2_HEAD_LEN 16
enum {
    V2_LOCAL = 0,
    V2_PROXY = 1,
    V2_TRANSPORT_UNSPEC = 0,
    V2_TRANSPORT_MAX = 2, /* datagrams */
    V2_INET_STREAM = 0x11,
    V2_INET6_STREAM = 0x21,
};

/* By family: the length of an address and of the whole block. */
struct v2_family {
    uint8_t family; /* AF_*; 0: we have none */
    uint8_t addr_len;
    uint8_t block_len;
};
static const struct v2_family v2_families[] = {
    {0, 0, 0}, {AF_INET, 4, 12}, {AF_INET6, 16, 36}, {AF_UNIX, 108, 216}};

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static bool v2_is_local(uint8_t command)
{
    return (command & 0x0F) == V2_LOCAL;
}

/* The family of a PROXY command: NULL when its byte makes no sense. With an unspecified transport, addresses
 * are not to be looked at (and need not be there). */
static const struct v2_family *v2_find_family(uint8_t byte)
{
    unsigned family = byte >> 4, transport = byte & 0x0F;
    if (family >= sizeof v2_families / sizeof v2_families[0] || transport > V2_TRANSPORT_MAX)
        return NULL;
    return &v2_families[transport == V2_TRANSPORT_UNSPEC ? 0 : family];
}

/* What the bytes that are there show, in their order: 0 or an error. */
static int v2_check_head(const uint8_t *data, size_t len)
{
    if (len > 12 && (data[12] >> 4 != 2 || (data[12] & 0x0F) > V2_PROXY))
        return -EPROTO;
    if (len > 13 && !v2_is_local(data[12]) && v2_find_family(data[13]) == NULL)
        return -EPROTO;
    if (len < V2_HEAD_LEN)
        return 0;
    if (get16(data + 14) > PROXY_V2_MAX - V2_HEAD_LEN)
        return -EMSGSIZE;
    if (!v2_is_local(data[12]) && get16(data + 14) < v2_find_family(data[13])->block_len)
        return -EPROTO;
    return 0;
}

static void v2_take_address(const uint8_t *ip, const uint8_t *port, uint8_t family, struct net_addr *ret)
{
    if (family == AF_INET6) {
        net_addr_from_ip6(ip, get16(port), ret);
        return;
    }
    *ret = (struct net_addr){.family = AF_INET, .port = get16(port)};
    memcpy(ret->ip, ip, 4);
}

static ssize_t v2_decode(const uint8_t *data, size_t len, struct proxy_header *ret)
{
    int r = v2_check_head(data, len);
    if (r < 0 || len < V2_HEAD_LEN)
        return r;
    size_t n = V2_HEAD_LEN + (size_t)get16(data + 14);
    if (len < n)
        return 0;
    struct proxy_header h = {.version = 2};
    const struct v2_family *f = &v2_families[0];
    if (!v2_is_local(data[12])) /* whose family means nothing (section 2.2) */
        f = v2_find_family(data[13]);
    if (f->family == AF_INET || f->family == AF_INET6) {
        const uint8_t *client = data + V2_HEAD_LEN, *server = client + f->addr_len;
        const uint8_t *ports = server + f->addr_len;
        v2_take_address(client, ports, f->family, &h.client);
        v2_take_address(server, ports + 2, f->family, &h.server);
        h.has_addresses = true;
    }
    *ret = h;
    return (ssize_t)n;
}

ssize_t proxy_decode(const uint8_t *data, size_t len, struct proxy_header *ret)
{
    if (len == 0)
        return 0;
    if (begins(data, len, v1_start, sizeof v1_start))
        return len < sizeof v1_start ? 0 : v1_decode(data, len, ret);
    if (begins(data, len, v2_start, sizeof v2_start))
        return v2_decode(data, len, ret);
    return -ENOMSG;
}

/* --- Encoding */

/* The bytes of an address as IPv6: IPv4 becomes v4-mapped. */
static void as_ip6(const struct net_addr *a, uint8_t out[16])
{
    static const uint8_t prefix[12] = {[10] = 0xFF, [11] = 0xFF};
    if (a->family == AF_INET6) {
        memcpy(out, a->ip, 16);
        return;
    }
    memcpy(out, prefix, 12);
    memcpy(out + 12, a->ip, 4);
}

/* The family that can say both, 0: none can. */
static uint8_t common_family(const struct net_addr *client, const struct net_addr *server)
{
    if (client->family == AF_UNIX || server->family == AF_UNIX)
        return 0;
    return client->family == AF_INET && server->family == AF_INET ? AF_INET : AF_INET6;
}

static void v1_format_ip(const struct net_addr *a, uint8_t family, char buf[INET6_ADDRSTRLEN])
{
    uint8_t ip6[16];
    as_ip6(a, ip6);
    inet_ntop(family, family == AF_INET ? a->ip : ip6, buf, INET6_ADDRSTRLEN);
}

static size_t v1_encode(const struct net_addr *client, const struct net_addr *server, char *out, size_t cap)
{
    char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN], line[2 * INET6_ADDRSTRLEN + 32] = "PROXY UNKNOWN\r\n";
    uint8_t family = common_family(client, server);
    if (family != 0) {
        v1_format_ip(client, family, from);
        v1_format_ip(server, family, to);
        snprintf(line, sizeof line, "PROXY TCP%c %s %s %u %u\r\n", family == AF_INET ? '4' : '6', from, to,
                 client->port, server->port);
    }
    size_t n = strlen(line);
    if (n > cap)
        return 0;
    memcpy(out, line, n);
    return n;
}

static uint8_t *put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
    return p + 2;
}

static uint8_t *v2_put_ip(uint8_t *p, const struct net_addr *a, uint8_t family)
{
    if (family == AF_INET) {
        memcpy(p, a->ip, 4);
        return p + 4;
    }
    as_ip6(a, p);
    return p + 16;
}

static size_t v2_encode(const struct net_addr *client, const struct net_addr *server, uint8_t *out,
                        size_t cap)
{
    uint8_t header[V2_HEAD_LEN + 36], *p = header + sizeof v2_start;
    uint8_t family = common_family(client, server);
    memcpy(header, v2_start, sizeof v2_start);
    *p++ = 0x20 | (family == 0 ? V2_LOCAL : V2_PROXY);
    *p++ = family == 0 ? 0 : family == AF_INET ? V2_INET_STREAM : V2_INET6_STREAM;
    p = put16(p, family == 0 ? 0 : family == AF_INET ? 12 : 36);
    if (family != 0) {
        p = v2_put_ip(v2_put_ip(p, client, family), server, family);
        p = put16(put16(p, client->port), server->port);
    }
    size_t n = (size_t)(p - header);
    if (n > cap)
        return 0;
    memcpy(out, header, n);
    return n;
}

size_t proxy_encode(unsigned version, const struct net_addr *client, const struct net_addr *server,
                    uint8_t *out, size_t cap)
{
    return version == 1 ? v1_encode(client, server, (char *)out, cap) : v2_encode(client, server, out, cap);
}
