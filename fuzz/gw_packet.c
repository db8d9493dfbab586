// SPDX-License-Identifier: MIT
/* Packets: what is decoded encodes to the same bytes; less of it is never more than "need more"; client ids.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "proto/gw/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check_packet(const uint8_t *data, const struct gw_packet *p, ssize_t n, size_t len)
{
    uint8_t head[GW_HEAD_LEN];
    struct gw_packet shorter;
    ASSERT((size_t)n <= len && n == (ssize_t)(GW_HEAD_LEN + p->ext.len + p->body.len));
    ASSERT(p->ext.data == data + GW_HEAD_LEN && p->body.data + p->body.len == data + n);
    gw_packet_encode_head(head, p);
    ASSERT(memcmp(head, data, sizeof head) == 0);
    ASSERT(gw_packet_decode(data, (size_t)n - 1, 1 << 20, &shorter) == 0);
    ASSERT(gw_cmd_known(p->cmd) == (strcmp(gw_cmd_name(p->cmd), "UNKNOWN") != 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct gw_client_id id;
    char text[GW_CLIENT_ID_LEN];
    size_t at = 0;
    if (gw_client_id_decode((struct slice){data, len}, &id) == 0) {
        struct gw_client_id back;
        gw_client_id_encode(text, &id);
        ASSERT(gw_client_id_decode((struct slice){(uint8_t *)text, sizeof text}, &back) == 0);
        ASSERT(back.connection_id == id.connection_id && back.local_ip == id.local_ip);
    }
    while (at < len) {
        struct gw_packet p;
        ssize_t n = gw_packet_decode(data + at, len - at, 1 << 20, &p);
        ASSERT(n >= GW_HEAD_LEN || n == 0 || n == -EPROTO || n == -EMSGSIZE);
        if (n <= 0)
            break;
        check_packet(data + at, &p, n, len - at);
        at += (size_t)n;
    }
    return 0;
}
