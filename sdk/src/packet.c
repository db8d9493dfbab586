// SPDX-License-Identifier: MIT
#include "packet.h"

#include <errno.h>

#include "../include/tgg_worker.h"

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)(v >> 16));
    put16(p + 2, (uint16_t)v);
}

int64_t tggw__packet_length(const uint8_t *data, size_t len, size_t len_max)
{
    if (len < 4)
        return 0;
    uint32_t n = get32(data);
    return n < TGGW__HEAD_LEN || n > len_max ? -EBADMSG : (int64_t)n;
}

int tggw__packet_decode(const uint8_t *data, size_t len, struct tggw__packet *ret_p)
{
    if (len < TGGW__HEAD_LEN)
        return -EBADMSG;
    size_t ext_len = get32(data + 24);
    if (ext_len > len - TGGW__HEAD_LEN)
        return -EBADMSG;
    *ret_p = (struct tggw__packet){
        .cmd = data[4],
        .flag = data[21],
        .local_ip = get32(data + 5),
        .local_port = get16(data + 9),
        .client_ip = get32(data + 11),
        .client_port = get16(data + 15),
        .connection_id = get32(data + 17),
        .gateway_port = get16(data + 22),
        .ext = data + TGGW__HEAD_LEN,
        .ext_len = ext_len,
        .body = data + TGGW__HEAD_LEN + ext_len,
        .body_len = len - TGGW__HEAD_LEN - ext_len,
    };
    return 0;
}

static void write_head(uint8_t *d, const struct tggw__packet *p)
{
    put32(d, (uint32_t)tggw__packet_size(p));
    d[4] = p->cmd;
    put32(d + 5, p->local_ip);
    put16(d + 9, p->local_port);
    put32(d + 11, p->client_ip);
    put16(d + 15, p->client_port);
    put32(d + 17, p->connection_id);
    d[21] = p->flag;
    put16(d + 22, p->gateway_port);
    put32(d + 24, (uint32_t)p->ext_len);
}

int tggw__packet_append(struct tggw__bytes *out, const struct tggw__packet *p)
{
    if (p->ext_len > UINT32_MAX / 4 || p->body_len > UINT32_MAX / 4)
        return -EMSGSIZE;
    int r = tggw__bytes_reserve(out, tggw__packet_size(p));
    if (r < 0)
        return r;
    uint8_t *d = out->data + out->tail;
    write_head(d, p);
    if (p->ext_len > 0)
        memcpy(d + TGGW__HEAD_LEN, p->ext, p->ext_len);
    if (p->body_len > 0)
        memcpy(d + TGGW__HEAD_LEN + p->ext_len, p->body, p->body_len);
    out->tail += tggw__packet_size(p);
    return 0;
}

void tggw_client_id_format(uint32_t ip, uint16_t port, uint32_t connection_id,
                           char ret_client_id[TGGW_CLIENT_ID_SIZE])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[10];
    put32(raw, ip);
    put16(raw + 4, port);
    put32(raw + 6, connection_id);
    for (size_t i = 0; i < sizeof raw; i++) {
        ret_client_id[2 * i] = digits[raw[i] >> 4];
        ret_client_id[2 * i + 1] = digits[raw[i] & 15];
    }
    ret_client_id[TGGW_CLIENT_ID_LEN] = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int tggw_client_id_parse(const char *client_id, uint32_t *ret_ip, uint16_t *ret_port,
                         uint32_t *ret_connection_id)
{
    uint8_t raw[10];
    if (client_id == NULL)
        return -EINVAL;
    // hex_digit() refuses the NUL, so a short text ends the loop before its end is passed.
    for (size_t i = 0; i < sizeof raw; i++) {
        int high = hex_digit(client_id[2 * i]);
        int low = high < 0 ? -1 : hex_digit(client_id[2 * i + 1]);
        if (low < 0)
            return -EINVAL;
        raw[i] = (uint8_t)(high << 4 | low);
    }
    if (client_id[TGGW_CLIENT_ID_LEN] != '\0')
        return -EINVAL;
    *ret_ip = get32(raw);
    *ret_port = get16(raw + 4);
    *ret_connection_id = get32(raw + 6);
    return 0;
}
