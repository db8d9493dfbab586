// SPDX-License-Identifier: MIT
#include "proto/gw/packet.h"

static const char *cmd_name(uint8_t cmd)
{
    switch (cmd) {
#define X(name, number)                                                                                      \
    case number: return #name;
        GW_CMDS(X)
#undef X
    default: return NULL;
    }
}

const char *gw_cmd_name(uint8_t cmd)
{
    const char *name = cmd_name(cmd);
    return name != NULL ? name : "UNKNOWN";
}

bool gw_cmd_known(uint8_t cmd)
{
    return cmd_name(cmd) != NULL;
}

void gw_client_id_encode(char out[GW_CLIENT_ID_LEN], const struct gw_client_id *id)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[GW_CLIENT_ID_LEN / 2];
    gw_put_u32(raw, id->local_ip);
    gw_put_u16(raw + 4, id->local_port);
    gw_put_u32(raw + 6, id->connection_id);
    for (size_t i = 0; i < sizeof raw; i++) {
        out[2 * i] = digits[raw[i] >> 4];
        out[2 * i + 1] = digits[raw[i] & 15];
    }
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int gw_client_id_decode(struct slice text, struct gw_client_id *ret)
{
    uint8_t raw[GW_CLIENT_ID_LEN / 2];
    if (text.len != GW_CLIENT_ID_LEN)
        return -EPROTO;
    for (size_t i = 0; i < sizeof raw; i++) {
        int high = hex_digit(text.data[2 * i]), low = hex_digit(text.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return -EPROTO;
        raw[i] = (uint8_t)(high << 4 | low);
    }
    ret->local_ip = gw_get_u32(raw);
    ret->local_port = gw_get_u16(raw + 4);
    ret->connection_id = gw_get_u32(raw + 6);
    return 0;
}
