// SPDX-License-Identifier: MIT
/* tgg ctl: an HTTP/1.0 client (RFC 1945) on a Unix socket: one connection, one request without a body. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CTL_HTTP_HEAD_MAX 16384

struct ctl_http_head {
    unsigned status;        /* 200 to 599 */
    int64_t content_length; /* -1: the body goes on to the end of the connection */
};

/* The head of an answer, from its first byte on. > 0: bytes of it, the body follows; 0: it is not whole yet;
 * -EBADMSG: it is none, or of a kind that HTTP/1.0 does not have (chunked); -EMSGSIZE: over
 * CTL_HTTP_HEAD_MAX. */
ssize_t ctl_http_head_parse(const uint8_t *data, size_t len, struct ctl_http_head *ret);

/* Called with the body piece by piece; < 0 ends it all, and is what ctl_http_ask returns. */
typedef int ctl_http_body_fn(void *ctx, const struct ctl_http_head *head, const uint8_t *data, size_t len);

#define CTL_HTTP_PATIENCE_S 10 /* to connect, and between two pieces of the answer */

struct ctl_http_request {
    const char *method;
    const char *target;   /* path and query, encoded */
    unsigned more_wait_s; /* what the first byte may take beyond CTL_HTTP_PATIENCE_S */
    bool endless;         /* no deadline once it is connected */
    ctl_http_body_fn *body;
    void *ctx;
};

/* 0: the whole answer has been given to body, *ret_head tells its status. -ENAMETOOLONG, -ENOENT,
 * -ECONNREFUSED, -EACCES ...: not connected; -ETIMEDOUT; -EINTR: told to stop (ctl_wait.h); -EBADMSG,
 * -EMSGSIZE: not an answer; -EPIPE: it was cut off; other -errno, or what body returned. */
int ctl_http_ask(const char *socket_path, const struct ctl_http_request *req, struct ctl_http_head *ret_head);
