// SPDX-License-Identifier: MIT
/* The body of ON_WEBSOCKET_CONNECT. */
#pragma once

#include <stdint.h>

#include "base/bytes.h"
#include "proto/line/http_request.h"

/* Appends serialize(['get' => .., 'server' => .., 'cookie' => ..]) of a handshake request, as GatewayWorker's
 * gateway gives it. remote_ip is the client's address as text. 0, or -ENOMEM with out as it was. */
int php_ws_connect(struct bytes *out, const struct http_request *req, const char *remote_ip,
                   uint16_t remote_port, uint16_t local_port);

/* parse_url($target)['query'] ?? '' : what PHP takes for the query of a request target, which is "" when it
 * finds the target malformed. Control characters become '_' (then *ret points into scratch). 0 or -ENOMEM. */
int php_url_query(struct slice target, struct bytes *scratch, struct slice *ret);
