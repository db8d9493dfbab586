// SPDX-License-Identifier: MIT
#ifndef TGGW_PACKET_H
#define TGGW_PACKET_H
// The internal packet of GatewayWorker: 28 bytes of head (big endian), ext_data, body. Pure functions.
//   0 pack_len u32 | 4 cmd u8 | 5 local_ip u32 | 9 local_port u16 | 11 client_ip u32 | 15 client_port u16
//   17 connection_id u32 | 21 flag u8 | 22 gateway_port u16 | 24 ext_len u32
#include "bytes.h"

enum { TGGW__HEAD_LEN = 28 };
enum { TGGW__FLAG_SCALAR = 0x01, TGGW__FLAG_NO_ENCODE = 0x02 };

enum tggw__cmd {
    TGGW__ON_CONNECT = 1,
    TGGW__ON_MESSAGE = 3,
    TGGW__ON_CLOSE = 4,
    TGGW__SEND_TO_ONE = 5,
    TGGW__SEND_TO_ALL = 6,
    TGGW__KICK = 7,
    TGGW__DESTROY = 8,
    TGGW__UPDATE_SESSION = 9,
    TGGW__GET_ALL_CLIENT_SESSIONS = 10,
    TGGW__IS_ONLINE = 11,
    TGGW__BIND_UID = 12,
    TGGW__UNBIND_UID = 13,
    TGGW__SEND_TO_UID = 14,
    TGGW__GET_CLIENT_ID_BY_UID = 15,
    TGGW__BATCH_GET_CLIENT_ID_BY_UID = 16,
    TGGW__JOIN_GROUP = 20,
    TGGW__LEAVE_GROUP = 21,
    TGGW__SEND_TO_GROUP = 22,
    TGGW__GET_CLIENT_SESSIONS_BY_GROUP = 23,
    TGGW__GET_CLIENT_COUNT_BY_GROUP = 24,
    TGGW__SELECT = 25,
    TGGW__GET_GROUP_ID_LIST = 26,
    TGGW__UNGROUP = 27,
    TGGW__BATCH_GET_CLIENT_COUNT_BY_GROUP = 28,
    TGGW__WORKER_CONNECT = 200,
    TGGW__PING = 201,
    TGGW__GATEWAY_CLIENT_CONNECT = 202,
    TGGW__GET_SESSION_BY_CLIENT_ID = 203,
    TGGW__SET_SESSION = 204,
    TGGW__ON_WEBSOCKET_CONNECT = 205,
};

// Pointers are into the caller's bytes.
struct tggw__packet {
    uint8_t cmd, flag;
    uint16_t local_port, client_port, gateway_port;
    uint32_t local_ip, client_ip, connection_id;
    const uint8_t *ext, *body;
    size_t ext_len, body_len;
};

// The length of the packet that starts at data: 0 when fewer than 4 bytes are there, -EBADMSG when it is
// shorter than a head or longer than len_max.
int64_t tggw__packet_length(const uint8_t *data, size_t len, size_t len_max);
// data holds the whole packet (packet_length() bytes). -EBADMSG: ext_len does not fit.
int tggw__packet_decode(const uint8_t *data, size_t len, struct tggw__packet *ret_p);
// Appends. -EMSGSIZE: more than 4 GiB; -ENOMEM.
int tggw__packet_append(struct tggw__bytes *out, const struct tggw__packet *p);

static inline size_t tggw__packet_size(const struct tggw__packet *p)
{
    return TGGW__HEAD_LEN + p->ext_len + p->body_len;
}

#endif
