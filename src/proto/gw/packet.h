// SPDX-License-Identifier: MIT
/* GatewayWorker's internal packet, spoken between a gateway and BusinessWorkers or GatewayClients over TCP
 * (docs/PROTOCOL-gatewayworker.md). All integers big endian:
 *
 *    0         4    5         9         11        15          17             21    22            24       28
 *    | pack_len |cmd|local_ip |local_port|client_ip|client_port|connection_id |flag|gateway_port|ext_len |
 * ext | body |
 *
 * pack_len counts the whole packet, the head included. Pure and inline: this is on the way of every message.
 */
#pragma once

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "base/bytes.h"

#define GW_HEAD_LEN 28

/* X(symbol, number): every command of the wire, in numeric order. */
#define GW_CMDS(X)                                                                                           \
    X(ON_CONNECT, 1)                                                                                         \
    X(ON_MESSAGE, 3)                                                                                         \
    X(ON_CLOSE, 4)                                                                                           \
    X(SEND_TO_ONE, 5)                                                                                        \
    X(SEND_TO_ALL, 6)                                                                                        \
    X(KICK, 7)                                                                                               \
    X(DESTROY, 8)                                                                                            \
    X(UPDATE_SESSION, 9)                                                                                     \
    X(GET_ALL_CLIENT_SESSIONS, 10)                                                                           \
    X(IS_ONLINE, 11)                                                                                         \
    X(BIND_UID, 12)                                                                                          \
    X(UNBIND_UID, 13)                                                                                        \
    X(SEND_TO_UID, 14)                                                                                       \
    X(GET_CLIENT_ID_BY_UID, 15)                                                                              \
    X(BATCH_GET_CLIENT_ID_BY_UID, 16)                                                                        \
    X(JOIN_GROUP, 20)                                                                                        \
    X(LEAVE_GROUP, 21)                                                                                       \
    X(SEND_TO_GROUP, 22)                                                                                     \
    X(GET_CLIENT_SESSIONS_BY_GROUP, 23)                                                                      \
    X(GET_CLIENT_COUNT_BY_GROUP, 24)                                                                         \
    X(SELECT, 25)                                                                                            \
    X(GET_GROUP_ID_LIST, 26)                                                                                 \
    X(UNGROUP, 27)                                                                                           \
    X(BATCH_GET_CLIENT_COUNT_BY_GROUP, 28)                                                                   \
    X(WORKER_CONNECT, 200)                                                                                   \
    X(PING, 201)                                                                                             \
    X(GATEWAY_CLIENT_CONNECT, 202)                                                                           \
    X(GET_SESSION_BY_CLIENT_ID, 203)                                                                         \
    X(SET_SESSION, 204)                                                                                      \
    X(ON_WEBSOCKET_CONNECT, 205)

enum gw_cmd {
#define X(name, number) GW_CMD_##name = (number),
    GW_CMDS(X)
#undef X
};

enum gw_flag {
    GW_FLAG_BODY_IS_SCALAR = 0x01,  /* the body is a plain string; without it, PHP serialize() */
    GW_FLAG_NOT_CALL_ENCODE = 0x02, /* the body is already framed for the client */
};

struct gw_packet {
    uint32_t pack_len; /* whole packet in bytes; filled by decode, ignored by encode */
    uint8_t cmd;
    uint8_t flag;
    uint16_t local_port;
    uint32_t local_ip; /* addresses and ports in host byte order */
    uint32_t client_ip;
    uint16_t client_port;
    uint16_t gateway_port;
    uint32_t connection_id;
    struct slice ext; /* point into the buffer that was decoded */
    struct slice body;
};

static inline uint16_t gw_get_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return be16toh(v);
}

static inline uint32_t gw_get_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return be32toh(v);
}

static inline void gw_put_u16(uint8_t *p, uint16_t v)
{
    v = htobe16(v);
    memcpy(p, &v, sizeof v);
}

static inline void gw_put_u32(uint8_t *p, uint32_t v)
{
    v = htobe32(v);
    memcpy(p, &v, sizeof v);
}

/* Reads the packet at the front of data. Bytes of the packet (>= 28, ret filled); 0: more bytes are needed;
 * -EPROTO: pack_len below the head's, or ext_len past the packet's end; -EMSGSIZE: pack_len > size_max (said
 * as soon as the length is there). ret is untouched unless the result is positive. */
static inline ssize_t gw_packet_decode(const uint8_t *data, size_t len, size_t size_max,
                                       struct gw_packet *ret)
{
    if (len < 4)
        return 0;
    uint32_t pack_len = gw_get_u32(data);
    if (__builtin_expect(pack_len < GW_HEAD_LEN, 0))
        return -EPROTO;
    if (__builtin_expect(pack_len > size_max, 0))
        return -EMSGSIZE;
    if (len < GW_HEAD_LEN)
        return 0;
    uint32_t ext_len = gw_get_u32(data + 24);
    if (__builtin_expect(ext_len > pack_len - GW_HEAD_LEN, 0))
        return -EPROTO;
    if (len < pack_len)
        return 0;
    ret->pack_len = pack_len;
    ret->cmd = data[4];
    ret->local_ip = gw_get_u32(data + 5);
    ret->local_port = gw_get_u16(data + 9);
    ret->client_ip = gw_get_u32(data + 11);
    ret->client_port = gw_get_u16(data + 15);
    ret->connection_id = gw_get_u32(data + 17);
    ret->flag = data[21];
    ret->gateway_port = gw_get_u16(data + 22);
    ret->ext = (struct slice){data + GW_HEAD_LEN, ext_len};
    ret->body = (struct slice){data + GW_HEAD_LEN + ext_len, pack_len - GW_HEAD_LEN - ext_len};
    return (ssize_t)pack_len;
}

/* The 28 bytes in front of p->ext and p->body, which the caller sends behind it; pack_len and ext_len are
 * computed from their lengths (the sum must fit in 32 bits; the caller's limits see to that). */
static inline void gw_packet_encode_head(uint8_t head[GW_HEAD_LEN], const struct gw_packet *p)
{
    gw_put_u32(head, (uint32_t)(GW_HEAD_LEN + p->ext.len + p->body.len));
    head[4] = p->cmd;
    gw_put_u32(head + 5, p->local_ip);
    gw_put_u16(head + 9, p->local_port);
    gw_put_u32(head + 11, p->client_ip);
    gw_put_u16(head + 15, p->client_port);
    gw_put_u32(head + 17, p->connection_id);
    head[21] = p->flag;
    gw_put_u16(head + 22, p->gateway_port);
    gw_put_u32(head + 24, (uint32_t)p->ext.len);
}

/* "SEND_TO_ONE"; "UNKNOWN" for a number that the wire does not have. Never NULL. */
const char *gw_cmd_name(uint8_t cmd);
bool gw_cmd_known(uint8_t cmd);

/* client_id: how workers and applications name a client: hex of local_ip u32, local_port u16, connection_id
 * u32. */
#define GW_CLIENT_ID_LEN 20

struct gw_client_id {
    uint32_t local_ip;
    uint16_t local_port;
    uint32_t connection_id;
};

/* 20 lower-case characters, no terminating zero. */
void gw_client_id_encode(char out[GW_CLIENT_ID_LEN], const struct gw_client_id *id);
/* 0, or -EPROTO (not 20 hexadecimal digits; either case is taken); ret untouched then. */
int gw_client_id_decode(struct slice text, struct gw_client_id *ret);
