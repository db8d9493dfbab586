// SPDX-License-Identifier: MIT
/* What the admin process asks for (common/control.h). It speaks to strangers: what it says is looked at as a
 * peer's bytes, and it does not get all of our time. */
#include "supervisor/supervisor_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/json_writer.h"
#include "base/log.h"
#include "guard/ban_file.h"

#define ORDERS_PER_TURN 8

/* ---- answers */

void supervisor__answer(struct supervisor *s, uint32_t id, int status, const struct bytes *json)
{
    struct control_reply reply = {.id = id, .status = status};
    static const char left_out[] = "{\"error\":\"what there is to say is too long; see the log\"}";
    bool fits = !json->failed && json->len <= CONTROL_JSON_MAX;

    int r = control_reply(s->admin_control[0], &reply, fits ? (const void *)json->data : left_out,
                          fits ? json->len : sizeof left_out - 1);
    if (r < 0)
        LOG(LOG_WARN, "order_not_answered", "id=%u error=\"%s\"", id, strerror(-r));
}

void supervisor__refuse(struct supervisor *s, uint32_t id, int err, const char *fmt, ...)
{
    char why[PATH_MAX + BAN_WHY_MAX + 128];
    struct bytes out = {0};
    struct json_writer w = {.out = &out};
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    json_begin(&w, '{');
    json_member_str(&w, "error", why);
    json_end(&w, '}');
    supervisor__answer(s, id, err, &out);
    bytes_fini(&out);
}

/* ---- reload */

static void order_reload(struct supervisor *s, const struct control_request *req)
{
    struct reload_report report = {.json = {0}};
    int r = supervisor__reload(s, &report);

    if (report.json.len > 0)
        supervisor__answer(s, req->head.id, r, &report.json);
    else
        supervisor__refuse(s, req->head.id, r, "the configuration is not read: %s",
                           r == -ESHUTDOWN ? "the gateway ends" : strerror(-r));
    bytes_fini(&report.json);
}

/* ---- bans */

static bool prefix_of(const struct control_head *h, struct cidr *ret)
{
    if (h->address.family == 0)
        return false;
    cidr_from_addr(&h->address, ret);
    cidr_cut(ret, h->address_bits);
    return true;
}

/* A level that was ordered stays: who bans an address has not asked for another one. */
static int reload_and_keep_level(struct supervisor *s, struct reload_report *report)
{
    enum log_level level = log_level_now;
    enum config_log_level configured = s->cfg->log.level;
    int r = supervisor__reload(s, report);
    if (r == 0 && s->cfg->log.level == configured)
        node_shm_set_log_level(s->shm.shm, level);
    return r;
}

/* The shards are to know it. */
static bool reread(struct supervisor *s, uint32_t id, const char *prefix, const char *path)
{
    struct reload_report report = {.json = {0}};
    int r = reload_and_keep_level(s, &report);

    bytes_fini(&report.json);
    if (r < 0)
        supervisor__refuse(s, id, r,
                           "%s is changed for %s, but could not be read again: see the log for what is wrong",
                           path, prefix);
    return r == 0;
}

static void answer_ban(struct supervisor *s, uint32_t id, const char *prefix, const struct ban_edit *edit)
{
    struct bytes out = {0};
    struct json_writer w = {.out = &out};

    json_begin(&w, '{');
    json_member_str(&w, "address", prefix);
    json_member_int(&w, "until_unix_s", edit->change.until_unix_s);
    json_member_uint(&w, "replaced", edit->replaced);
    json_end(&w, '}');
    supervisor__answer(s, id, 0, &out);
    bytes_fini(&out);
}

/* until_unix_s 0: no more. */
static void change_ban(struct supervisor *s, const struct control_request *req, int64_t until_unix_s)
{
    struct ban_edit edit = {.change.until_unix_s = until_unix_s, .now_unix_s = supervisor__now_unix_s()};
    char path[PATH_MAX], prefix[CIDR_STRLEN], why[PATH_MAX + BAN_WHY_MAX];
    uint32_t id = req->head.id;

    if (!prefix_of(&req->head, &edit.change.cidr)) {
        supervisor__refuse(s, id, -EINVAL, "no address; expected one, such as 10.1.2.3 or 10.0.0.0/8");
        return;
    }
    cidr_format(&edit.change.cidr, prefix, sizeof prefix);
    files_ban_path(s->cfg, path, sizeof path);
    int r = ban_file_edit(path, &edit);
    if (r < 0)
        supervisor__refuse(s, id, r, "%s", ban_file_explain(r, path, &edit, why, sizeof why));
    else if (until_unix_s == 0 && edit.replaced == 0)
        supervisor__refuse(s, id, -ENOENT, "%s is not banned", prefix);
    else if (reread(s, id, prefix, path)) {
        LOG(LOG_NOTICE, until_unix_s == 0 ? "unbanned" : "banned", "address=%s until_unix_s=%" PRId64, prefix,
            until_unix_s);
        answer_ban(s, id, prefix, &edit);
    }
}

static void order_ban(struct supervisor *s, const struct control_request *req)
{
    if (req->head.seconds == 0)
        supervisor__refuse(s, req->head.id, -EINVAL, "0 seconds; expected for how long it is banned");
    else
        change_ban(s, req, supervisor__now_unix_s() + req->head.seconds);
}

static void order_unban(struct supervisor *s, const struct control_request *req)
{
    change_ban(s, req, 0);
}

/* ---- log level */

static void order_log_level(struct supervisor *s, const struct control_request *req)
{
    struct slice name = req->text[CONTROL_TEXT_NAME];
    struct bytes out = {0};
    struct json_writer w = {.out = &out};

    for (unsigned i = 0; i <= LOG_DEBUG; i++) {
        const char *level = config_log_level_name((enum config_log_level)i);
        if (name.data == NULL || !slice_eq_str(name, level))
            continue;
        LOG(LOG_NOTICE, "log_level", "level=%s note=\"until the next reload or start\"", level);
        node_shm_set_log_level(s->shm.shm, (enum log_level)i);
        json_begin(&w, '{');
        json_member_str(&w, "level", level);
        json_end(&w, '}');
        supervisor__answer(s, req->head.id, 0, &out);
        bytes_fini(&out);
        return;
    }
    supervisor__refuse(s, req->head.id, -EINVAL,
                       "no such level; expected error, warn, notice, info or debug");
}

/* ---- all of them */

static void order_hello(struct supervisor *s, const struct control_request *req)
{
    struct bytes out = {0};
    bytes_append_str(&out, "{}");
    supervisor__answer(s, req->head.id, 0, &out);
    bytes_fini(&out);
}

struct order {
    void (*carry_out)(struct supervisor *s, const struct control_request *req);
    bool takes_time, changes;
};
static const struct order orders[CONTROL_OP_N] = {
    [CONTROL_HELLO] = {order_hello, false, false},
    [CONTROL_RELOAD] = {order_reload, true, true},
    [CONTROL_BAN] = {order_ban, true, true},
    [CONTROL_UNBAN] = {order_unban, true, true},
    [CONTROL_LOG_LEVEL] = {order_log_level, false, true},
    [CONTROL_EVACUATE] = {evacuate_request, true, true},
};

/* Returns whether there is time for another one in this turn. */
static bool take_order(struct supervisor *s, const struct control_request *req)
{
    const struct order *order = &orders[req->head.op];
    if (order->carry_out == NULL) {
        LOG(LOG_WARN, "order_unknown", "op=%u", req->head.op);
        supervisor__refuse(s, req->head.id, -EINVAL, "operation %u is none of the supervisor", req->head.op);
        return true;
    }
    if (order->changes && supervisor__busy(s) != NULL) {
        supervisor__refuse(s, req->head.id, -EBUSY, "%s: again when it is over", supervisor__busy(s));
        return true;
    }
    order->carry_out(s, req);
    return !order->takes_time;
}

void supervisor__take_orders(struct supervisor *s)
{
    for (unsigned i = 0; i < ORDERS_PER_TURN; i++) {
        struct control_request req = {.head.id = 0};
        int r = control_receive(s->admin_control[0], s->order, &req);
        if (r == -EAGAIN || r == -EINTR)
            return;
        if (r < 0) {
            LOG(LOG_WARN, "order_not_understood", "error=\"%s\"", strerror(-r));
            supervisor__refuse(s, req.head.id, -EINVAL, "a message that makes no sense");
        } else if (!take_order(s, &req)) {
            return;
        }
    }
}
