// SPDX-License-Identifier: MIT
/* How a message that is no string reaches a client: Workerman's websocket sends json_encode($value,
 * JSON_UNESCAPED_UNICODE) of what unserialize($body, ['allowed_classes' => false]) gave. */
#pragma once

#include "base/bytes.h"

/* Appends the JSON of a serialized value; a string goes as it is, other scalars as PHP prints them (true "1",
 * false
 * ""), null is "null". 0; -EPROTO: not a serialized value; where PHP's json_encode fails: -EILSEQ a string
 * that is not UTF-8, -EDOM a float that is INF or NAN, -ELOOP an array that contains itself, -E2BIG more than
 * 512 levels; -ENOMEM. On error out is as it was. */
int php_to_json(struct bytes *out, struct slice serialized);
