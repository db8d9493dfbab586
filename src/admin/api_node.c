// SPDX-License-Identifier: MIT
/* Paths that are answered at once: from shared memory, tables of ours, and the file of bans. */
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "admin/admin_priv.h"
#include "common/config_table.h"
#include "common/files.h"
#include "common/histograms.h"
#include "guard/ban_file.h"

#define BANS_MAX 10000

/* No parameters; false: answered. */
static bool begin(struct request *r)
{
    if (query_end(&r->query))
        return true;
    request_wrong(r);
    return false;
}

static const struct counters *counters_of(const struct admin *a, unsigned shard)
{
    return &a->shm->blocks[shard].shm.counters;
}

static void write_counters(struct json_writer *w, const struct counters *c)
{
    json_key(w, "counters");
    json_begin(w, '{');
    for (unsigned i = 0; i < COUNTER_N; i++)
        json_member_uint(w, counter_infos[i].name, counter_get(c, (enum counter_id)i));
    json_end(w, '}');
}

void api_counters(struct request *r)
{
    struct json_writer w = {.out = &r->body};
    struct counters sum;
    uint64_t mask = api_shard(r);

    if (!begin(r))
        return;
    if (mask == admin_all_shards(r->admin))
        node_shm_sum(r->admin->shm, &sum);
    else
        sum = *counters_of(r->admin, (unsigned)__builtin_ctzll(mask));
    json_begin(&w, '{');
    write_counters(&w, &sum);
    json_key(&w, "shards");
    json_begin(&w, '[');
    for (unsigned i = 0; i < r->admin->node->n_shards; i++) {
        if ((mask >> i & 1) == 0)
            continue;
        json_begin(&w, '{');
        json_member_uint(&w, "shard", i);
        write_counters(&w, counters_of(r->admin, i));
        json_end(&w, '}');
    }
    json_end(&w, ']');
    request_missing(r, &w);
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

/* ---- /api/names */

static const char *kind_name(enum counter_kind kind)
{
    static const char *const names[] = {"counter", "gauge", "drop", "close"};
    return names[kind];
}

static const char *unit_name(enum histogram_unit unit)
{
    return unit == HISTOGRAM_UNIT_seconds ? "seconds" : "bytes";
}

static void write_keys(struct json_writer *w)
{
    json_key(w, "keys");
    json_begin(w, '[');
    for (unsigned i = 0; i < config_keys_n; i++) {
        const struct config_key *k = &config_keys[i];
        json_begin(w, '{');
        json_member_str(w, "section", config_section_names[k->section]);
        json_member_str(w, "name", k->name);
        json_member_bool(w, "live", k->live);
        json_member_str(w, "text", k->text);
        json_end(w, '}');
    }
    json_end(w, ']');
}

void api_names(struct request *r)
{
    struct json_writer w = {.out = &r->body};

    if (!begin(r))
        return;
    json_begin(&w, '{');
    json_key(&w, "counters");
    json_begin(&w, '[');
    for (unsigned i = 0; i < COUNTER_N; i++) {
        json_begin(&w, '{');
        json_member_str(&w, "name", counter_infos[i].name);
        json_member_str(&w, "help", counter_infos[i].help);
        json_member_str(&w, "kind", kind_name(counter_infos[i].kind));
        json_end(&w, '}');
    }
    json_end(&w, ']');
    json_key(&w, "histograms");
    json_begin(&w, '[');
    for (unsigned i = 0; i < HISTOGRAM_N; i++) {
        json_begin(&w, '{');
        json_member_str(&w, "name", histogram_infos[i].name);
        json_member_str(&w, "help", histogram_infos[i].help);
        json_member_str(&w, "unit", unit_name(histogram_infos[i].unit));
        json_end(&w, '}');
    }
    json_end(&w, ']');
    write_keys(&w);
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

/* ---- /api/histograms */

/* Nanoseconds as seconds; bytes; UINT64_MAX: no bound. */
static void write_value(struct json_writer *w, enum histogram_unit unit, uint64_t value)
{
    char text[40];
    int n = 0;
    if (value == UINT64_MAX) {
        json_write_null(w);
    } else if (unit == HISTOGRAM_UNIT_bytes) {
        json_uint(w, value);
    } else {
        n = snprintf(text, sizeof text, "%" PRIu64 ".%09" PRIu64, value / 1000000000, value % 1000000000);
        json_raw(w, text, (size_t)n);
    }
}

static void member_value(struct json_writer *w, const char *key, enum histogram_unit unit, uint64_t value)
{
    json_key(w, key);
    write_value(w, unit, value);
}

static uint64_t max_bound(const struct histogram *h, unsigned shift)
{
    for (unsigned i = HISTOGRAM_BUCKETS; i > 0; i--) {
        if (h->buckets[i - 1] != 0)
            return histogram_bound(shift, i - 1);
    }
    return 0;
}

static void write_histogram(struct json_writer *w, const struct histogram_info *info,
                            const struct histogram *h)
{
    json_key(w, info->name);
    json_begin(w, '{');
    json_member_str(w, "unit", unit_name(info->unit));
    json_member_uint(w, "count", histogram_count(h));
    member_value(w, "sum", info->unit, h->sum);
    member_value(w, "p50", info->unit, histogram_quantile(h, info->shift, 0.5));
    member_value(w, "p90", info->unit, histogram_quantile(h, info->shift, 0.9));
    member_value(w, "p99", info->unit, histogram_quantile(h, info->shift, 0.99));
    member_value(w, "max_bound", info->unit, max_bound(h, info->shift));
    json_key(w, "buckets");
    json_begin(w, '[');
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        json_begin(w, '[');
        write_value(w, info->unit, histogram_bound(info->shift, i));
        json_uint(w, h->buckets[i]);
        json_end(w, ']');
    }
    json_end(w, ']');
    json_end(w, '}');
}

void api_histograms(struct request *r)
{
    struct json_writer w = {.out = &r->body};

    if (!begin(r))
        return;
    json_begin(&w, '{');
    json_key(&w, "histograms");
    json_begin(&w, '{');
    for (unsigned id = 0; id < HISTOGRAM_N; id++) {
        struct histogram sum = {.sum = 0};
        for (unsigned i = 0; i < r->admin->node->n_shards; i++)
            histogram_merge(&sum, &r->admin->shm->blocks[i].shm.histograms.h[id]);
        write_histogram(&w, &histogram_infos[id], &sum);
    }
    json_end(&w, '}');
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

/* ---- registers, reasons */

void api_write_registers(const struct admin *a, struct json_writer *w)
{
    int64_t now_ms = admin_unix_ms();

    json_key(w, "registers");
    json_begin(w, '[');
    for (unsigned i = 0; i < NODE_REGISTERS_MAX; i++) {
        const struct node_register *reg = &a->shm->announcer.registers[i];
        size_t len = strnlen(reg->address, sizeof reg->address);
        int64_t since_ms = __atomic_load_n(&reg->since_unix_ms, __ATOMIC_RELAXED);
        if (len == 0)
            continue;
        json_begin(w, '{');
        json_member_string(w, "address", reg->address, len, 0);
        json_member_bool(w, "connected", NODE_LOAD(reg->connected) != 0);
        json_key(w, "since_s");
        if (since_ms == 0)
            json_write_null(w);
        else
            json_int(w, now_ms > since_ms ? (now_ms - since_ms) / 1000 : 0);
        json_end(w, '}');
    }
    json_end(w, ']');
}

void api_registers(struct request *r)
{
    struct json_writer w = {.out = &r->body};
    if (!begin(r))
        return;
    json_begin(&w, '{');
    api_write_registers(r->admin, &w);
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

/* The reasons of one kind, under their own names: without dropped_ and client_closed_. */
static void write_reasons(struct json_writer *w, const char *key, const struct counters *sum, unsigned first,
                          unsigned n, size_t prefix_len)
{
    json_key(w, key);
    json_begin(w, '[');
    for (unsigned i = first; i < first + n; i++) {
        json_begin(w, '{');
        json_member_str(w, "reason", counter_infos[i].name + prefix_len);
        json_member_str(w, "help", counter_infos[i].help);
        json_member_uint(w, "count", sum->v[i]);
        json_end(w, '}');
    }
    json_end(w, ']');
}

void api_closes(struct request *r)
{
    struct json_writer w = {.out = &r->body};
    struct counters sum;

    if (!begin(r))
        return;
    node_shm_sum(r->admin->shm, &sum);
    json_begin(&w, '{');
    write_reasons(&w, "closes", &sum, COUNTER_CLOSE_FIRST, CLOSE_REASON_N, sizeof "client_closed_" - 1);
    write_reasons(&w, "drops", &sum, COUNTER_DROP_FIRST, DROP_REASON_N, sizeof "dropped_" - 1);
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

/* ---- bans */

struct bans {
    struct json_writer w;
    int64_t now_unix_s;
    unsigned n, left_out;
};

static void write_ban(void *ctx, const struct ban *b, struct slice comment)
{
    struct bans *bans = ctx;
    char text[CIDR_STRLEN];

    if (b->until_unix_s <= bans->now_unix_s)
        return;
    if (bans->n == BANS_MAX) {
        bans->left_out++;
        return;
    }
    bans->n++;
    json_begin(&bans->w, '{');
    json_member_str(&bans->w, "address", cidr_format(&b->cidr, text, sizeof text));
    json_member_int(&bans->w, "until_unix_s", b->until_unix_s);
    if (comment.len > 0)
        json_member_string(&bans->w, "comment", comment.data, comment.len, 256);
    json_end(&bans->w, '}');
}

void api_bans(struct request *r)
{
    struct bans bans = {.w = {.out = &r->body}, .now_unix_s = admin_unix_ms() / 1000};
    struct bytes text = {0};
    char path[PATH_MAX], why[BAN_WHY_MAX];
    unsigned line = 0;

    if (!begin(r))
        return;
    files_ban_path(r->admin->cfg, path, sizeof path);
    int err = ban_file_read(path, &text);
    json_begin(&bans.w, '{');
    json_key(&bans.w, "bans");
    json_begin(&bans.w, '[');
    int wrong = err < 0 ? 0
                        : ban_text_walk((struct slice){text.data, text.len}, write_ban, &bans, &line, why,
                                        sizeof why);
    json_end(&bans.w, ']');
    if (bans.left_out > 0)
        json_member_uint(&bans.w, "left_out", bans.left_out);
    json_end(&bans.w, '}');
    bytes_fini(&text);
    if (err < 0)
        request_error(r, MHD_HTTP_CONFLICT, "%s: %s", path, strerror(-err));
    else if (wrong < 0)
        request_error(r, MHD_HTTP_CONFLICT, "%s:%u: %s", path, line, why);
    else
        request_answer(r, MHD_HTTP_OK);
}
