// SPDX-License-Identifier: MIT
/* tgg ctl: ask the admin process; what went wrong is said for people. */
#pragma once

#include <jansson.h>

#include "base/bytes.h"
#include "main/ctl_http.h"

#define CTL_ANSWER_MAX ((size_t)256 << 20)

struct ctl_asker {
    const char *socket_path;
    const char *method;
    unsigned more_wait_s;
};

/* The whole body behind what ret_body holds. 0; -EINTR: told to stop; other -errno: why, for people, is in
 * `why` (lines of harmless text), also when the gateway said no. */
int ctl_ask(const struct ctl_asker *asker, const char *target, struct bytes *ret_body, struct bytes *why);

/* Lines about what an error means (of ctl_http_ask), and what to do. */
void ctl_ask_explain(const char *socket_path, int error, struct bytes *why);
/* What the gateway said no with: a status that is not 200 and its body. */
void ctl_ask_refused(unsigned status, const struct bytes *body, struct bytes *why);

/* JSON of an answer: an object, to be freed by json_decref; NULL: `why` tells. */
json_t *ctl_answer_parse(const void *data, size_t len, struct bytes *why);
