// SPDX-License-Identifier: MIT
/* The few offsets of the internal protocol's 28-byte head (docs/PROTOCOL-gatewayworker.md) that the floor and
 * the bench worker need. They are given here again, apart from src/proto/gw, so that the floor stays what it
 * is: a program that shares nothing with the gateway it is compared to. */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define PACKET_HEAD          28u
#define PACKET_LEN_AT        0u
#define PACKET_CMD_AT        4u
#define PACKET_CONNECTION_AT 17u
#define PACKET_FLAG_AT       21u
#define PACKET_EXT_LEN_AT    24u

#define PACKET_FLAG_PLAIN 0x01u

enum packet_cmd {
    CMD_ON_CONNECT = 1,
    CMD_ON_MESSAGE = 3,
    CMD_SEND_TO_ONE = 5,
    CMD_SEND_TO_ALL = 6,
    CMD_BIND_UID = 12,
    CMD_JOIN_GROUP = 20,
    CMD_WORKER_CONNECT = 200,
    CMD_SET_SESSION = 204,
};

static inline uint32_t packet_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return be32toh(v);
}

static inline void packet_put_u32(uint8_t *p, uint32_t value)
{
    uint32_t v = htobe32(value);
    memcpy(p, &v, sizeof(v));
}

/* A head with all fields zero but these. */
static inline void packet_head(uint8_t *p, uint8_t cmd, uint32_t connection_id, uint32_t ext_len,
                               uint32_t body_len)
{
    memset(p, 0, PACKET_HEAD);
    packet_put_u32(p + PACKET_LEN_AT, PACKET_HEAD + ext_len + body_len);
    p[PACKET_CMD_AT] = cmd;
    packet_put_u32(p + PACKET_CONNECTION_AT, connection_id);
    p[PACKET_FLAG_AT] = PACKET_FLAG_PLAIN;
    packet_put_u32(p + PACKET_EXT_LEN_AT, ext_len);
}
