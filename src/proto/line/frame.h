// SPDX-License-Identifier: MIT
/* The client protocol "frame": a message behind its length, 4 bytes big-endian, which counts itself. Pure. */
#pragma once

#include <sys/types.h>

#include "base/bytes.h"

#define FRAME_HEADER_SIZE 4
#define FRAME_PAYLOAD_MAX ((size_t)UINT32_MAX - FRAME_HEADER_SIZE)

/* Takes one message from the front of data.
 * >0         bytes used, the length included; *ret is the message, in data; it may be empty.
 * 0          more bytes are needed
 * -EPROTO    a length that does not even count itself
 * -EMSGSIZE  a length over size_max (which counts the 4 bytes, as PHP's limit does); said as soon as it is
 * here. */
ssize_t frame_decode(const uint8_t *data, size_t len, size_t size_max, struct slice *ret);

/* The 4 bytes before a payload of that length (<= FRAME_PAYLOAD_MAX); returns FRAME_HEADER_SIZE. */
size_t frame_header(uint8_t *out, size_t payload_len);

/* Header and payload; returns the length of both. */
size_t frame_encode(uint8_t *out, const void *data, size_t len);
