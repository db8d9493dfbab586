// SPDX-License-Identifier: MIT
#include "main/ctl_ask.h"

#include <errno.h>
#include <string.h>

#include "main/ctl_text.h"

/* ---- why not */

static void say(struct bytes *why, const char *text)
{
    bytes_append_str(why, "tgg ctl: ");
    ctl_text_append(why, text, strlen(text));
}

static const char *meaning(int error)
{
    switch (error) {
    case -ECONNREFUSED:
        return "nobody listens there: the gateway has ended, or its admin process is about to start again";
    case -EACCES:
    case -EPERM:
        return "not allowed: use the user that the gateway runs as, or root; [admin] socket_mode says who "
               "may";
    case -ETIMEDOUT: return "no answer in time: the admin process is busy or stuck; its log may say why";
    case -EPIPE: return "the answer was cut off: has the admin process just ended? Its log may say why";
    case -EBADMSG:
    case -EMSGSIZE: return "what answers there is not the admin process of tgg";
    case -ENAMETOOLONG: return "the path is too long for a Unix socket; see [admin] socket";
    default: return strerror(-error);
    }
}

void ctl_ask_explain(const char *socket_path, int error, struct bytes *why)
{
    if (error == -ENOENT) {
        say(why, "no admin socket at ");
        ctl_text_append(why, socket_path, strlen(socket_path));
        bytes_append_str(why, ": is the gateway running, and [admin] enabled? tgg status works without it\n");
        return;
    }
    say(why, socket_path);
    bytes_printf(why, ": %s\n", meaning(error));
}

void ctl_ask_refused(unsigned status, const struct bytes *body, struct bytes *why)
{
    json_t *answer = json_loadb((const char *)body->data, body->len, JSON_ALLOW_NUL, NULL);
    const json_t *error = json_object_get(answer, "error"), *problem;
    size_t i;

    if (json_is_string(error)) {
        say(why, "");
        ctl_text_append(why, json_string_value(error), json_string_length(error));
    } else {
        bytes_printf(why, "tgg ctl: the gateway said no (%u) ", status);
        ctl_text_append(why, body->data, body->len < 500 ? body->len : 500);
    }
    bytes_append_byte(why, '\n');
    json_array_foreach(json_object_get(answer, "problems"), i, problem)
    {
        bytes_append_str(why, "  ");
        ctl_text_append(why, json_string_value(problem), json_string_length(problem));
        bytes_append_byte(why, '\n');
    }
    json_decref(answer);
}

/* ---- asking */

static int collect(void *ctx, const struct ctl_http_head *head, const uint8_t *data, size_t len)
{
    struct bytes *body = ctx;
    if (len > CTL_ANSWER_MAX - body->len)
        return -EFBIG;
    return bytes_append(body, data, len) ? 0 : -ENOMEM;
}

int ctl_ask(const struct ctl_asker *asker, const char *target, struct bytes *ret_body, struct bytes *why)
{
    struct ctl_http_head head = {0};
    struct ctl_http_request req = {
        .method = asker->method, .target = target, .body = collect, .ctx = ret_body};

    req.more_wait_s = asker->more_wait_s;
    int r = ctl_http_ask(asker->socket_path, &req, &head);
    if (r < 0 && r != -EINTR)
        ctl_ask_explain(asker->socket_path, r, why);
    if (r == 0 && head.status != 200) {
        ctl_ask_refused(head.status, ret_body, why);
        return -EPROTO;
    }
    return r;
}

json_t *ctl_answer_parse(const void *data, size_t len, struct bytes *why)
{
    json_error_t error;
    json_t *answer = len > 0 ? json_loadb(data, len, JSON_ALLOW_NUL, &error) : NULL;

    if (json_is_object(answer))
        return answer;
    json_decref(answer);
    bytes_printf(why,
                 "tgg ctl: the answer makes no sense (not an object of JSON): are tgg and the gateway of the "
                 "same version?\n");
    return NULL;
}
