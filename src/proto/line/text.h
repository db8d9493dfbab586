// SPDX-License-Identifier: MIT
/* The client protocol "text": a message is a line. Pure. */
#pragma once

#include <sys/types.h>

#include "base/bytes.h"

/* Takes one message from the front of data.
 * >0         bytes used, the newline included; *ret is the message, in data, without the "\r" and "\n" at its
 * end (all of them, as PHP's rtrim does); it may be empty. 0          no newline yet: call again with the
 * same bytes and more. *scanned is 0 for a new message and kept by the caller meanwhile, so that bytes are
 * not looked at twice; it is 0 again after a message. -EMSGSIZE  more than size_max bytes before the newline;
 * said as soon as that many have come. */
ssize_t text_decode(const uint8_t *data, size_t len, size_t *scanned, size_t size_max, struct slice *ret);

/* Writes message and newline, len + TEXT_OVERHEAD bytes; returns that. */
#define TEXT_OVERHEAD 1
size_t text_encode(uint8_t *out, const void *data, size_t len);
