// SPDX-License-Identifier: MIT
/* Register lines: what is read and written anew reads the same. */
#include <errno.h>

#include "base/assert.h"
#include "proto/gw/register_line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void write_again(struct bytes *out, const struct register_line *line)
{
    switch (line->event) {
    case REGISTER_GATEWAY_CONNECT: register_line_gateway_connect(out, line->address, line->secret_key); break;
    case REGISTER_WORKER_CONNECT: register_line_worker_connect(out, line->secret_key); break;
    case REGISTER_BROADCAST_ADDRESSES:
        register_line_broadcast(out, line->addresses, line->n_addresses);
        break;
    case REGISTER_PING:
    case REGISTER_UNKNOWN: register_line_ping(out); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct register_line line, back;
    struct bytes out = {0};
    int err = register_line_parse(data, len, &line);
    ASSERT(err == 0 || err == -EPROTO);
    if (err == 0) {
        write_again(&out, &line);
        ASSERT(out.data[out.len - 1] == '\n');
        ASSERT(register_line_parse(out.data, out.len, &back) == 0);
        ASSERT(line.event == back.event || line.event == REGISTER_UNKNOWN);
        if (line.event == REGISTER_GATEWAY_CONNECT)
            ASSERT(slice_eq(line.address, back.address) && slice_eq(line.secret_key, back.secret_key));
        if (line.event == REGISTER_BROADCAST_ADDRESSES)
            ASSERT(line.n_addresses == back.n_addresses);
        for (size_t i = 0; i < back.n_addresses; i++)
            ASSERT(slice_eq(line.addresses[i], back.addresses[i]));
        bytes_fini(&out);
    }
    return 0;
}
