// SPDX-License-Identifier: MIT
#include "load/codec.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define FIN  0x80u
#define RSV1 0x40u
#define RSV  0x30u
#define MASK 0x80u

/* The length of a frame's head and of what it announces; 0: not all there. */
static size_t websocket_head(const uint8_t *data, size_t len, uint64_t *ret_len)
{
    uint16_t two;
    uint64_t eight;
    if (len < 2)
        return 0;
    *ret_len = data[1] & 127;
    if (*ret_len < 126)
        return 2;
    if (*ret_len == 126) {
        if (len < 4)
            return 0;
        memcpy(&two, data + 2, sizeof(two));
        *ret_len = be16toh(two);
        return 4;
    }
    if (len < 10)
        return 0;
    memcpy(&eight, data + 2, sizeof(eight));
    *ret_len = be64toh(eight);
    return 10;
}

static bool opcode_is_known(unsigned opcode)
{
    return opcode <= LOAD_OP_BINARY || (opcode >= LOAD_OP_CLOSE && opcode <= LOAD_OP_PONG);
}

static ssize_t websocket_read(const uint8_t *data, size_t len, struct codec_message *ret)
{
    uint64_t n;
    size_t head = websocket_head(data, len, &n);
    if (len >= 2 && ((data[0] & RSV) != 0 || (data[1] & MASK) != 0 || !opcode_is_known(data[0] & 15u)))
        return -EPROTO;
    if (len >= 2 && (data[0] & 8) != 0 && ((data[1] & 127) > 125 || (data[0] & FIN) == 0))
        return -EPROTO;
    if (head == 0)
        return 0;
    if (n > CODEC_MESSAGE_MAX)
        return -EMSGSIZE;
    if (len - head < n)
        return 0;
    *ret = (struct codec_message){.opcode = data[0] & 15,
                                  .compressed = (data[0] & RSV1) != 0,
                                  .whole = (data[0] & FIN) != 0,
                                  .data = data + head,
                                  .len = (size_t)n};
    return (ssize_t)(head + n);
}

static struct codec_message plain(const uint8_t *data, size_t len)
{
    return (struct codec_message){.opcode = LOAD_OP_BINARY, .whole = true, .data = data, .len = len};
}

static ssize_t text_read(const uint8_t *data, size_t len, struct codec_message *ret)
{
    const uint8_t *end = memchr(data, '\n', len);
    if (end == NULL)
        return len > CODEC_MESSAGE_MAX ? -EMSGSIZE : 0;
    *ret = plain(data, (size_t)(end - data));
    return end - data + 1;
}

static ssize_t frame_read(const uint8_t *data, size_t len, struct codec_message *ret)
{
    uint32_t total;
    if (len < sizeof(total))
        return 0;
    memcpy(&total, data, sizeof(total));
    total = be32toh(total);
    if (total < sizeof(total))
        return -EPROTO;
    if (total > CODEC_MESSAGE_MAX)
        return -EMSGSIZE;
    if (len < total)
        return 0;
    *ret = plain(data + sizeof(total), total - sizeof(total));
    return (ssize_t)total;
}

ssize_t codec_read(enum load_protocol protocol, const uint8_t *data, size_t len, struct codec_message *ret)
{
    if (len == 0)
        return 0;
    switch (protocol) {
    case LOAD_WEBSOCKET: return websocket_read(data, len, ret);
    case LOAD_TEXT: return text_read(data, len, ret);
    case LOAD_FRAME: return frame_read(data, len, ret);
    case LOAD_TCP: break;
    }
    *ret = plain(data, len);
    return (ssize_t)len;
}

static size_t websocket_head_write(uint8_t opcode, size_t len, const uint8_t mask[4], uint8_t *head)
{
    uint16_t two = htobe16((uint16_t)len);
    uint64_t eight = htobe64(len);
    size_t n = 2;
    head[0] = (uint8_t)(FIN | opcode);
    if (len < 126) {
        head[1] = (uint8_t)(MASK | len);
    } else if (len <= UINT16_MAX) {
        head[1] = MASK | 126;
        memcpy(head + 2, &two, sizeof(two));
        n = 4;
    } else {
        head[1] = MASK | 127;
        memcpy(head + 2, &eight, sizeof(eight));
        n = 10;
    }
    memcpy(head + n, mask, 4);
    return n + 4;
}

size_t codec_head(enum load_protocol protocol, uint8_t opcode, size_t len, const uint8_t mask[4],
                  uint8_t head[CODEC_HEAD_MAX])
{
    uint32_t total = htobe32((uint32_t)len + (uint32_t)sizeof(total));
    if (protocol == LOAD_WEBSOCKET)
        return websocket_head_write(opcode, len, mask, head);
    if (protocol != LOAD_FRAME)
        return 0;
    memcpy(head, &total, sizeof(total));
    return sizeof(total);
}

size_t codec_tail(enum load_protocol protocol, uint8_t tail[CODEC_TAIL_MAX])
{
    tail[0] = '\n';
    return protocol == LOAD_TEXT ? 1 : 0;
}

void codec_mask(uint8_t *data, size_t len, const uint8_t key[4])
{
    uint64_t word, wide;
    size_t i = 0;
    memcpy(&wide, key, 4);
    memcpy((uint8_t *)&wide + 4, key, 4);
    for (; i + sizeof(word) <= len; i += sizeof(word)) {
        memcpy(&word, data + i, sizeof(word));
        word ^= wide;
        memcpy(data + i, &word, sizeof(word));
    }
    for (; i < len; i++)
        data[i] ^= key[i % 4];
}

static unsigned status_of(const uint8_t *text, size_t len)
{
    unsigned status = 0;
    if (len < 12 || memcmp(text, "HTTP/1.", 7) != 0)
        return 0;
    for (size_t i = 9; i < 12; i++) {
        if (text[i] < '0' || text[i] > '9')
            return 0;
        status = status * 10 + (text[i] - '0');
    }
    return status;
}

size_t codec_answer(const uint8_t *text, size_t len, const char *accept, unsigned *ret_status)
{
    const uint8_t *end = memmem(text, len, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t used = (size_t)(end - text) + 4;
    *ret_status = status_of(text, used);
    if (*ret_status == 101 && memmem(text, used, accept, strlen(accept)) == NULL)
        *ret_status = 0;
    return used;
}
