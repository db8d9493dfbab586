// SPDX-License-Identifier: MIT
/* What the shards tell of their workers, as JSON rows, becomes families. */
#include "admin/metrics_priv.h"

#include <jansson.h>
#include <string.h>

#define LABELS_MAX (3 * 256 + 64) /* a key has up to CONTROL_NAME_MAX bytes, some of which are escaped */

/* Two of the buckets in one: workers may be many, and powers of four do. */
#define BUCKETS_EVERY 2

static const char *const healths[] = {"ok", "slow", "full", "stuck"};
static const char *const directions[] = {"in", "out"};

struct rows {
    json_t *of[NODE_SHARDS_MAX]; /* arrays; NULL: that shard did not answer */
    unsigned n;
};

static json_t *parse(struct slice text)
{
    struct bytes array = {0};
    json_t *rows = NULL;

    bytes_append_byte(&array, '[');
    bytes_append(&array, text.data, text.len);
    bytes_append_byte(&array, ']');
    if (!array.failed)
        rows = json_loadb((const char *)array.data, array.len, JSON_ALLOW_NUL, NULL);
    bytes_fini(&array);
    return rows;
}

static uint64_t member(const json_t *row, const char *key)
{
    json_int_t v = json_integer_value(json_object_get(row, key));
    return v > 0 ? (uint64_t)v : 0;
}

static void labels_of(const json_t *row, unsigned shard, char *buf, size_t cap)
{
    char key[3 * 256 + 1];
    const json_t *text = json_object_get(row, "key");
    const char *value = json_string_value(text);

    metrics__label(key, sizeof key, value != NULL ? value : "", value != NULL ? json_string_length(text) : 0);
    snprintf(buf, cap, "worker=\"%s\",shard=\"%u\"", key, shard);
}

/* ---- how one row becomes one family's samples */

static void write_plain(struct bytes *out, const char *name, const char *labels, const json_t *row,
                        const char *key)
{
    metrics__uint(out, name, labels, member(row, key));
}

static void write_ms(struct bytes *out, const char *name, const char *labels, const json_t *row,
                     const char *key)
{
    metrics__ms(out, name, labels, (int64_t)member(row, key));
}

static void write_bool(struct bytes *out, const char *name, const char *labels, const json_t *row,
                       const char *key)
{
    metrics__uint(out, name, labels, json_is_true(json_object_get(row, key)));
}

/* key: "messages_%s" */
static void write_directions(struct bytes *out, const char *name, const char *labels, const json_t *row,
                             const char *key)
{
    char both[LABELS_MAX + 32], one[32];

    for (unsigned i = 0; i < 2; i++) {
        snprintf(one, sizeof one, "%s_%s", key, directions[i]);
        snprintf(both, sizeof both, "%s,direction=\"%s\"", labels, directions[i]);
        metrics__uint(out, name, both, member(row, one));
    }
}

static void write_health(struct bytes *out, const char *name, const char *labels, const json_t *row,
                         const char *key)
{
    const char *is = json_string_value(json_object_get(row, key));
    char both[LABELS_MAX + 32];

    for (unsigned i = 0; i < sizeof healths / sizeof healths[0]; i++) {
        snprintf(both, sizeof both, "%s,state=\"%s\"", labels, healths[i]);
        metrics__uint(out, name, both, is != NULL && strcmp(is, healths[i]) == 0);
    }
}

static void write_queue_time(struct bytes *out, const char *name, const char *labels, const json_t *row,
                             const char *key)
{
    const json_t *from = json_object_get(row, key), *buckets = json_object_get(from, "buckets");
    struct histogram h = {.sum = member(from, "sum_ns")};

    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        json_int_t n = json_integer_value(json_array_get(buckets, i));
        h.buckets[i] = n > 0 ? (uint64_t)n : 0;
    }
    metrics__histogram(out, name, labels, &h, HISTOGRAM_SHIFT_worker_queue, HISTOGRAM_UNIT_seconds,
                       BUCKETS_EVERY);
}

static const struct worker_family {
    enum metric_id id;
    void (*write)(struct bytes *out, const char *name, const char *labels, const json_t *row,
                  const char *key);
    const char *key;
} worker_families[] = {
    {METRIC_worker_clients, write_plain, "clients"},
    {METRIC_worker_paused_clients, write_plain, "paused_clients"},
    {METRIC_worker_queue_bytes, write_plain, "queue_bytes"},
    {METRIC_worker_queue_age_seconds, write_ms, "queue_age_ms"},
    {METRIC_worker_messages_total, write_directions, "messages"},
    {METRIC_worker_bytes_total, write_directions, "bytes"},
    {METRIC_worker_idle_seconds, write_plain, "idle_s"},
    {METRIC_worker_connected_seconds, write_plain, "connected_s"},
    {METRIC_worker_draining, write_bool, "draining"},
    {METRIC_worker_health, write_health, "health"},
    {METRIC_worker_queue_time_seconds, write_queue_time, "queue_time"},
};

static void write_family(const struct rows *rows, const struct worker_family *f, struct bytes *out)
{
    char labels[LABELS_MAX];
    const char *name = metric_families[f->id].name;

    metrics__head(out, &metric_families[f->id]);
    for (unsigned shard = 0; shard < rows->n; shard++) {
        for (size_t i = 0; i < json_array_size(rows->of[shard]); i++) {
            const json_t *row = json_array_get(rows->of[shard], i);
            labels_of(row, shard, labels, sizeof labels);
            f->write(out, name, labels, row, f->key);
        }
    }
}

void metrics__workers(const struct metrics_input *in, struct bytes *out, uint64_t *ret_answered)
{
    struct rows rows = {.n = in->shm->n_shards};

    *ret_answered = 0;
    for (unsigned i = 0; i < rows.n; i++) {
        if (in->worker_rows[i].data != NULL && (rows.of[i] = parse(in->worker_rows[i])) != NULL)
            *ret_answered |= UINT64_C(1) << i;
    }
    for (unsigned i = 0; i < sizeof worker_families / sizeof worker_families[0]; i++)
        write_family(&rows, &worker_families[i], out);
    for (unsigned i = 0; i < rows.n; i++)
        json_decref(rows.of[i]);
}
