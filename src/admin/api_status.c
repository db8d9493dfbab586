// SPDX-License-Identifier: MIT
/* The state of the node: from shared memory, so that it is there with stuck shards too; only the number of
 * clients of each listener is asked for, and not waited for long. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin_priv.h"
#include "admin/collect.h"
#include "admin/json_rows.h"
#include "admin/metrics.h"
#include "admin/proc_stat.h"
#include "base/log.h"

/* ---- listeners */

struct listener_row {
    uint64_t clients, clients_of[NODE_SHARDS_MAX];
    uint64_t of; /* shards that have it */
};

static int listener_of(const struct config *cfg, const char *name)
{
    for (unsigned i = 0; name != NULL && i < cfg->n_listeners; i++) {
        if (strcmp(cfg->listen[i].name, name) == 0)
            return (int)i;
    }
    return -1;
}

static void add_listener_row(const struct config *cfg, unsigned shard, struct slice row,
                             struct listener_row *rows)
{
    json_t *json = json_loadb((const char *)row.data, row.len, JSON_ALLOW_NUL, NULL);
    bool removed = json_is_true(json_object_get(json, "removed"));
    int i = removed ? -1 : listener_of(cfg, json_string_value(json_object_get(json, "name")));
    json_int_t clients = json_integer_value(json_object_get(json, "clients"));
    if (i >= 0 && clients >= 0 && !json_is_false(json_object_get(json, "open"))) {
        rows[i].clients += (uint64_t)clients;
        rows[i].clients_of[shard] += (uint64_t)clients;
        rows[i].of |= UINT64_C(1) << shard;
    }
    json_decref(json);
}

static void read_listeners(struct request *r, struct listener_row *rows)
{
    const struct admin *a = r->admin;
    for (unsigned shard = 0; shard < a->node->n_shards; shard++) {
        struct slice row;
        size_t pos = 0;
        while (gather_has(&r->gather, shard) &&
               json_rows_next(gather_json(&r->gather, shard), &pos, &row) > 0)
            add_listener_row(a->cfg, shard, row, rows);
    }
}

/* A listener that no edge shard names is not open; when none answered, nobody knows more than before. */
static void remember_closed(struct request *r, const struct listener_row *rows)
{
    struct admin *a = r->admin;
    uint64_t edges = admin_edge_shards(a);
    bool answered = false;
    for (unsigned i = 0; i < a->node->n_shards; i++)
        answered = answered || ((edges >> i & 1) != 0 && gather_has(&r->gather, i));
    if (!answered)
        return;
    a->listeners_closed = 0;
    for (unsigned i = 0; i < a->cfg->n_listeners && i < CONFIG_LISTEN_MAX; i++)
        a->listeners_closed |= (uint64_t)(rows[i].of == 0) << i;
}

/* One that a reload has removed, and that still has clients: a row for each shard. */
static void write_removed(unsigned shard, struct slice row, struct json_writer *w)
{
    json_t *json = json_loadb((const char *)row.data, row.len, JSON_ALLOW_NUL, NULL);
    char number[12];

    if (json_is_true(json_object_get(json, "removed"))) {
        snprintf(number, sizeof number, "%u", shard);
        json_object_set_new(json, "shards", json_pack("{s:O}", number, json_object_get(json, "clients")));
        char *text = json_dumps(json, JSON_COMPACT);
        if (text != NULL)
            json_raw(w, text, strlen(text));
        free(text);
    }
    json_decref(json);
}

static void write_all_removed(const struct request *r, struct json_writer *w)
{
    for (unsigned shard = 0; shard < r->admin->node->n_shards; shard++) {
        struct slice row;
        size_t pos = 0;
        while (gather_has(&r->gather, shard) &&
               json_rows_next(gather_json(&r->gather, shard), &pos, &row) > 0)
            write_removed(shard, row, w);
    }
}

static void write_listener(const struct config_listen *l, const struct listener_row *row,
                           struct json_writer *w)
{
    json_begin(w, '{');
    json_member_str(w, "name", l->name);
    json_member_str(w, "address", l->address);
    json_member_uint(w, "port", l->port);
    json_member_str(w, "protocol", config_protocol_name(l->protocol));
    json_member_bool(w, "tls", l->tls_certificate[0] != '\0');
    json_member_uint(w, "clients", row->clients);
    json_member_bool(w, "removed", false);
    json_key(w, "shards");
    json_begin(w, '{');
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        char number[12];
        if ((row->of >> i & 1) == 0)
            continue;
        snprintf(number, sizeof number, "%u", i);
        json_member_uint(w, number, row->clients_of[i]);
    }
    json_end(w, '}');
    json_end(w, '}');
}

void api_ask_listeners(struct request *r, uint64_t timeout_ms, void (*then)(struct request *r))
{
    request_head(r, CONTROL_LISTENERS);
    r->gather.ask.kind = ASK_FREE; /* whoever asks for the state gets it, however many others ask */
    request_ask(r, admin_edge_shards(r->admin), timeout_ms, GATHER_ROWS, then);
}

void api_write_listeners(struct request *r, struct json_writer *w)
{
    static struct listener_row rows[CONFIG_LISTEN_MAX];

    memset(rows, 0, sizeof rows);
    read_listeners(r, rows);
    remember_closed(r, rows);
    json_key(w, "listeners");
    json_begin(w, '[');
    for (unsigned i = 0; i < r->admin->cfg->n_listeners; i++)
        write_listener(&r->admin->cfg->listen[i], &rows[i], w);
    write_all_removed(r, w);
    json_end(w, ']');
}

static void answer_listeners(struct request *r)
{
    struct json_writer w = {.out = &r->body};
    json_begin(&w, '{');
    api_write_listeners(r, &w);
    request_missing(r, &w);
    json_end(&w, '}');
    request_answer(r, MHD_HTTP_OK);
}

void api_listeners(struct request *r)
{
    if (!query_end(&r->query))
        request_wrong(r);
    else
        api_ask_listeners(r, r->admin->cfg->admin.query_timeout, answer_listeners);
}

/* ---- processes and shards */

static uint64_t uptime_s(const struct node_process *p)
{
    int64_t ms = p->pid == 0 ? 0 : admin_unix_ms() - p->start_unix_ms;
    return ms > 0 ? (uint64_t)ms / 1000 : 0;
}

static const char *phase_name(uint32_t phase)
{
    static const char *const names[] = {"down", "up", "leaves", "quiet"};
    return phase <= NODE_QUIET ? names[phase] : "?";
}

static void write_figures(const struct shard_shm *shm, const struct proc_stat *stat, struct json_writer *w)
{
    uint64_t cpu_ns = __atomic_load_n(&shm->cpu_ns, __ATOMIC_RELAXED);
    json_member_uint(w, "clients", counter_get(&shm->counters, COUNTER_clients));
    json_member_uint(w, "links", counter_get(&shm->counters, COUNTER_links));
    json_member_uint(w, "workers", counter_get(&shm->counters, COUNTER_workers));
    json_member_uint(w, "cpu_ns", cpu_ns != 0 ? cpu_ns : stat->cpu_ns);
    json_member_uint(w, "turns", __atomic_load_n(&shm->turns, __ATOMIC_RELAXED));
    json_member_uint(w, "turn_longest_ns", __atomic_load_n(&shm->turn_longest_ns, __ATOMIC_RELAXED));
    json_member_uint(w, "rss_bytes", stat->rss_bytes);
    json_member_uint(w, "stacks", NODE_LOAD(shm->stacks));
}

/* Of any ids. */
static bool is_a_home(const struct node_home *home, unsigned shard)
{
    return memchr(home->shard, (int)shard, sizeof home->shard) != NULL;
}

static void write_shard(const struct admin *a, unsigned i, struct json_writer *w)
{
    const struct node_process *p = &a->shm->processes[NODE_PROCESS_SHARDS + i];
    const struct node_shm_shard *plan = &a->shm->shards[i];
    const struct node_shard *shared = &a->node->shared->shards[i];
    struct proc_stat stat;

    proc_stat_read(p->pid, &stat);
    json_begin(w, '{');
    json_member_uint(w, "shard", i);
    json_member_str(w, "state", shard_state_name(shard_shm_state(&a->shm->blocks[i].shm)));
    json_member_str(w, "phase", phase_name(NODE_LOAD(shared->phase)));
    json_member_int(w, "pid", p->pid);
    json_key(w, "cpu");
    if (plan->cpu >= 0)
        json_int(w, plan->cpu);
    else
        json_write_null(w);
    json_member_bool(w, "edge", (plan->roles & NODE_ROLE_EDGE) != 0);
    json_member_bool(w, "link", (plan->roles & NODE_ROLE_LINK) != 0);
    json_member_uint(w, "uptime_s", uptime_s(p));
    json_member_uint(w, "restarts", p->restarts);
    json_member_bool(w, "drained", NODE_LOAD(shared->drained) != 0);
    json_member_bool(w, "evacuated",
                     NODE_LOAD(shared->drained) == NODE_EVACUATED ||
                         ((plan->roles & NODE_ROLE_EDGE) != 0 && !is_a_home(&a->node->shared->home, i)));
    write_figures(&a->shm->blocks[i].shm, &stat, w);
    json_end(w, '}');
}

static void write_process(const struct node_process *p, struct json_writer *w)
{
    struct proc_stat stat;

    proc_stat_read(p->pid, &stat);
    json_begin(w, '{');
    json_member_str(w, "kind",
                    p->kind < PROCESS_KIND_N ? process_kind_name((enum process_kind)p->kind) : "?");
    json_member_uint(w, "number", p->number);
    json_member_int(w, "pid", p->pid);
    json_member_str(w, "state", process_state_name(p->state));
    json_member_uint(w, "uptime_s", uptime_s(p));
    json_member_uint(w, "restarts", p->restarts);
    json_member_uint(w, "deaths_young", p->deaths_young);
    json_member_uint(w, "cpu_ns", stat.cpu_ns);
    json_member_uint(w, "rss_bytes", stat.rss_bytes);
    json_end(w, '}');
}

static void write_processes(const struct admin *a, struct json_writer *w)
{
    json_key(w, "processes");
    json_begin(w, '[');
    for (unsigned i = 0; i < NODE_PROCESS_SHARDS + a->node->n_shards; i++)
        write_process(&a->shm->processes[i], w);
    write_process(&a->shm->processes[NODE_PROCESS_ADMIN], w);
    json_end(w, ']');
}

/* ---- the node */

/* That of every shard, else "mixed". */
static const char *state_of_all(const struct admin *a)
{
    enum shard_state state = shard_shm_state(&a->shm->blocks[0].shm);
    if (NODE_LOAD(a->node->shared->draining) != 0)
        return "draining";
    for (unsigned i = 1; i < a->node->n_shards; i++) {
        if (shard_shm_state(&a->shm->blocks[i].shm) != state)
            return "mixed";
    }
    return shard_state_name(state);
}

static const char *level_name(void)
{
    return config_log_level_name((enum config_log_level)log_level_now);
}

static bool supervisor_lives(const struct admin *a)
{
    return getppid() == a->supervisor;
}

static void write_ready(const struct admin *a, struct json_writer *w)
{
    struct ready ready;
    ready_look(a, &ready);
    json_member_bool(w, "ready", ready.n == 0);
    json_key(w, "not_ready");
    json_begin(w, '[');
    for (unsigned i = 0; i < ready.n; i++)
        json_str(w, ready.why[i]);
    json_end(w, ']');
}

static void write_head(const struct admin *a, struct json_writer *w)
{
    const struct node_shm *shm = a->shm;
    int64_t up_ms = admin_unix_ms() - shm->supervisor_start_unix_ms;

    json_member_str(w, "version", TGG_VERSION);
    json_member_bool(w, "running", supervisor_lives(a));
    write_ready(a, w);
    json_member_str(w, "state", state_of_all(a));
    json_member_uint(w, "uptime_s", up_ms > 0 ? (uint64_t)up_ms / 1000 : 0);
    json_member_string(w, "config", shm->config_path, strnlen(shm->config_path, sizeof shm->config_path), 0);
    json_member_int(w, "supervisor_pid", shm->supervisor_pid);
}

static void write_counters(const struct admin *a, struct json_writer *w)
{
    struct counters sum;
    node_shm_sum(a->shm, &sum);
    json_member_uint(w, "workers_n", sum.v[COUNTER_workers]);
    json_member_uint(w, "clients_n", sum.v[COUNTER_clients]);
    json_key(w, "counters");
    json_begin(w, '{');
    for (unsigned i = 0; i < COUNTER_N; i++)
        json_member_uint(w, counter_infos[i].name, sum.v[i]);
    json_end(w, '}');
}

static void answer_status(struct request *r)
{
    const struct admin *a = r->admin;
    struct bytes listeners = {0};
    struct json_writer w = {.out = &listeners};

    api_write_listeners(r, &w); /* first: whether it is ready depends on it */
    w = (struct json_writer){.out = &r->body};
    json_begin(&w, '{');
    write_head(a, &w);
    json_key(&w, "shards");
    json_begin(&w, '[');
    for (unsigned i = 0; i < a->node->n_shards; i++)
        write_shard(a, i, &w);
    json_end(&w, ']');
    write_processes(a, &w);
    json_raw(&w, listeners.data, listeners.len);
    api_write_registers(a, &w);
    write_counters(a, &w);
    json_member_str(&w, "log_level", level_name());
    request_missing(r, &w);
    json_end(&w, '}');
    r->body.failed = r->body.failed || listeners.failed;
    bytes_fini(&listeners);
    request_answer(r, MHD_HTTP_OK);
}

void api_status(struct request *r)
{
    if (!query_end(&r->query))
        request_wrong(r);
    else
        api_ask_listeners(r, ADMIN_QUICK_MS, answer_status);
}

/* ---- lines of text */

static void answer_text(struct request *r, unsigned status)
{
    r->type = "text/plain; charset=utf-8";
    request_answer(r, status);
}

/* Parameters are let in: probes of load balancers have their own. */
void api_livez(struct request *r)
{
    bool lives = supervisor_lives(r->admin);
    bytes_append_str(&r->body, lives ? "ok\n" : "the supervisor is dead\n");
    answer_text(r, lives ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE);
}

static void answer_readyz(struct request *r)
{
    struct bytes unused = {0};
    struct json_writer w = {.out = &unused};
    struct ready ready;

    api_write_listeners(r, &w);
    bytes_fini(&unused);
    ready_look(r->admin, &ready);
    bytes_append_str(&r->body, ready.n == 0 ? "ok" : "not ready: ");
    for (unsigned i = 0; i < ready.n; i++)
        bytes_printf(&r->body, "%s%s", i == 0 ? "" : "; ", ready.why[i]);
    bytes_append_str(&r->body, "\n");
    answer_text(r, ready.n == 0 ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE);
}

void api_readyz(struct request *r)
{
    struct ready ready;
    ready_look(r->admin, &ready);
    /* Nothing to ask when it is not ready anyway: but a listener that was closed may be open by now. */
    if (ready.n > 0 && r->admin->listeners_closed == 0)
        answer_readyz(r);
    else
        api_ask_listeners(r, ADMIN_QUICK_MS, answer_readyz);
}

/* ---- metrics */

static void answer_metrics(struct request *r)
{
    const struct admin *a = r->admin;
    struct metrics_input in = {.shm = a->shm,
                               .node = a->node,
                               .cfg = a->cfg,
                               .scrapes = a->scrapes,
                               .requests = a->requests_n,
                               .requests_refused = a->requests_refused};
    struct ready ready;
    ready_look(a, &ready);
    in.ready = ready.n == 0;
    for (unsigned i = 0; i < a->node->n_shards; i++) {
        struct slice rows = collected(r, i);
        if ((r->missing >> i & 1) == 0)
            in.worker_rows[i] = rows.len > 0 ? rows : SLICE_STR("");
    }
    if (!metrics_write(&in, &r->body)) {
        request_error(r, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
        return;
    }
    r->type = METRICS_CONTENT_TYPE;
    request_answer(r, MHD_HTTP_OK);
}

void api_metrics(struct request *r)
{
    r->admin->scrapes++;
    r->gather.ask.kind = ASK_FREE;
    collect(r, CONTROL_WORKERS, ADMIN_METRICS_MS, answer_metrics);
}
