// SPDX-License-Identifier: MIT
#include "sim/sim_message.h"

#include <stdio.h>

#include "base/assert.h"

static uint8_t filler(const struct sim_message *m, uint32_t at)
{
    if (m->kind == SIM_OF_LINK_BINARY && at == SIM_MESSAGE_HEAD)
        return 0xff;
    return (uint8_t)('a' + (at * 7 + m->number * 13 + m->sender) % 26);
}

void sim_message_append(struct bytes *out, const struct sim_message *m)
{
    char head[SIM_MESSAGE_HEAD + 8];
    ASSERT(m->len > SIM_MESSAGE_HEAD && m->len <= SIM_MESSAGE_MAX && m->sender < 1000);
    snprintf(head, sizeof head, "%c%03u.%07u.%07u:", m->kind, m->sender, m->number, m->len);
    ASSERT(bytes_reserve(out, m->len));
    bytes_append(out, head, SIM_MESSAGE_HEAD);
    for (uint32_t at = SIM_MESSAGE_HEAD; at < m->len; at++)
        out->data[out->len++] = filler(m, at);
}

static bool read_number(const uint8_t *at, unsigned digits, uint32_t *ret)
{
    *ret = 0;
    for (unsigned i = 0; i < digits; i++) {
        if (at[i] < '0' || at[i] > '9')
            return false;
        *ret = *ret * 10 + (uint32_t)(at[i] - '0');
    }
    return true;
}

bool sim_message_head(struct slice data, struct sim_message *ret)
{
    if (data.len < SIM_MESSAGE_HEAD)
        return false;
    ret->kind = (char)data.data[0];
    bool known = ret->kind == SIM_OF_CLIENT || ret->kind == SIM_OF_LINK || ret->kind == SIM_OF_LINK_BINARY;
    return known && read_number(data.data + 1, 3, &ret->sender) && data.data[4] == '.' &&
           read_number(data.data + 5, 7, &ret->number) && data.data[12] == '.' &&
           read_number(data.data + 13, 7, &ret->len) && data.data[20] == ':' && ret->len > SIM_MESSAGE_HEAD;
}

bool sim_message_check(struct slice data, struct sim_message *ret)
{
    if (!sim_message_head(data, ret) || ret->len != data.len)
        return false;
    for (uint32_t at = SIM_MESSAGE_HEAD; at < data.len; at++)
        if (data.data[at] != filler(ret, at))
            return false;
    return true;
}
