// SPDX-License-Identifier: MIT
#include "proto/line/frame.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/assert.h"

ssize_t frame_decode(const uint8_t *data, size_t len, size_t size_max, struct slice *ret)
{
    if (len < FRAME_HEADER_SIZE)
        return 0;
    uint32_t be;
    memcpy(&be, data, sizeof be);
    size_t total = be32toh(be);
    if (total < FRAME_HEADER_SIZE)
        return -EPROTO;
    if (total > size_max)
        return -EMSGSIZE;
    if (len < total)
        return 0;
    *ret = (struct slice){data + FRAME_HEADER_SIZE, total - FRAME_HEADER_SIZE};
    return (ssize_t)total;
}

size_t frame_header(uint8_t *out, size_t payload_len)
{
    ASSERT(payload_len <= FRAME_PAYLOAD_MAX);
    uint32_t be = htobe32((uint32_t)(payload_len + FRAME_HEADER_SIZE));
    memcpy(out, &be, sizeof be);
    return FRAME_HEADER_SIZE;
}

size_t frame_encode(uint8_t *out, const void *data, size_t len)
{
    frame_header(out, len);
    if (len > 0)
        memcpy(out + FRAME_HEADER_SIZE, data, len);
    return FRAME_HEADER_SIZE + len;
}
