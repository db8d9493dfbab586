// SPDX-License-Identifier: MIT
/* The demo page of `tgg run`: files of one folder, read-only, over HTTP (libmicrohttpd). Not for anything
 * else. */
#pragma once

/* Serve until TERM or INT, which must be blocked. listen_fd stays the caller's. /config.json tells the page
 * the port of the WebSocket listener. The exit status: 0 or 1. */
int web_server_run(const char *dir, int listen_fd, unsigned websocket_port);
