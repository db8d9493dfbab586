// SPDX-License-Identifier: MIT
#include "main/ctl_views.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "common/counters.h"
#include "main/commands.h"
#include "main/ctl_text.h"

static void blank(const struct ctl_view *v)
{
    bytes_append_byte(v->out, '\n');
}

/* ---- status */

static const struct ctl_column shard_columns[] = {
    {"shard", "shard", CTL_RTEXT},
    {"state", "state", CTL_TEXT},
    {"phase", "phase", CTL_TEXT},
    {"drained", "drained", CTL_YES},
    {"pid", "pid", CTL_RTEXT},
    {"cpu", "cpu", CTL_NUMBER},
    {"edge", "edge", CTL_YES},
    {"link", "link", CTL_YES},
    {"up", "uptime_s", CTL_SECONDS},
    {"restarts", "restarts", CTL_NUMBER},
    {"clients", "clients", CTL_NUMBER, .rate = "clients/s"},
    {"links", "links", CTL_NUMBER},
    {"workers", "workers", CTL_NUMBER},
    {"cpu_time", "cpu_ns", CTL_NS, .rate = "busy", .rate_only = true},
    {"turns", "turns", CTL_NUMBER, .rate = "turns/s", .rate_only = true},
    {"longest_turn", "turn_longest_ns", CTL_NS},
    {"memory", "rss_bytes", CTL_BYTES},
    {0},
};
const struct ctl_section ctl_section_shards = {"shards", shard_columns, .key = "shard pid", .sort = "shard"};

static const struct ctl_column process_columns[] = {
    {"process", "kind", CTL_TEXT},
    {"number", "number", CTL_RTEXT},
    {"pid", "pid", CTL_RTEXT},
    {"state", "state", CTL_TEXT},
    {"up", "uptime_s", CTL_SECONDS},
    {"restarts", "restarts", CTL_NUMBER},
    {"died_young", "deaths_young", CTL_NUMBER},
    {"cpu_time", "cpu_ns", CTL_NS, .rate = "busy", .rate_only = true},
    {"memory", "rss_bytes", CTL_BYTES},
    {0},
};
const struct ctl_section ctl_section_processes = {"processes", process_columns, .key = "kind number pid"};

static const struct ctl_column listener_columns[] = {
    {"listener", "name", CTL_TEXT},  {"address", "address", CTL_TEXT},
    {"port", "port", CTL_RTEXT},     {"protocol", "protocol", CTL_TEXT},
    {"tls", "tls", CTL_YES},         {"clients", "clients", CTL_NUMBER, .rate = "clients/s"},
    {"removed", "removed", CTL_YES}, {0},
};
const struct ctl_section ctl_section_listeners = {"listeners", listener_columns,
                                                  .key = "name address port removed"};

static const struct ctl_column register_columns[] = {
    {"register", "address", CTL_TEXT},
    {"connected", "connected", CTL_TEXT},
    {"since", "since_s", CTL_SECONDS},
    {0},
};
const struct ctl_section ctl_section_registers = {"registers", register_columns, .key = "address"};

/* What goes through, from the counters: rows that no answer has as such. */
static const struct ctl_column traffic_columns[] = {
    {"traffic", "what", CTL_TEXT},
    {"number", "number", CTL_NUMBER, .rate = "number/s"},
    {"size", "bytes", CTL_BYTES, .rate = "size/s"},
    {0},
};
static const struct ctl_section traffic_section = {"traffic", traffic_columns, .key = "what"};

static const struct {
    const char *what, *number, *bytes;
} traffic_rows[] = {
    {"messages from clients", "client_messages_in", "client_message_bytes_in"},
    {"messages to clients", "client_messages_out", "client_message_bytes_out"},
    {"packets from workers", "link_packets_in", "link_bytes_in"},
    {"messages to workers", "event_message", "link_bytes_out"},
    {"connections accepted", "client_accepted", ""},
    {"connections refused", "client_refused", ""},
};

static json_t *traffic(const json_t *answer)
{
    const json_t *counters = json_object_get(answer, "counters");
    json_t *rows = json_array();

    for (size_t i = 0; i < sizeof traffic_rows / sizeof traffic_rows[0]; i++) {
        json_t *row = json_object();
        ctl_set(row, "what", json_string(traffic_rows[i].what));
        ctl_set(row, "number", json_incref(json_object_get(counters, traffic_rows[i].number)));
        ctl_set(row, "bytes", json_incref(json_object_get(counters, traffic_rows[i].bytes)));
        json_array_append_new(rows, row);
    }
    return rows;
}

static void show_heading(const struct ctl_view *v)
{
    const json_t *a = v->answer;
    struct bytes why = {0};
    char up[CTL_FORMAT_MAX];

    bytes_append_str(&why, json_is_true(json_object_get(a, "ready")) ? "ready" : "not ready: ");
    if (!json_is_true(json_object_get(a, "ready")))
        ctl_value_append(&why, json_object_get(a, "not_ready"), CTL_TEXT);
    bytes_append_byte(&why, '\0');
    ctl_show_line(v, "tgg %s, %s, up %s, %s", ctl_string(a, "version"), ctl_string(a, "state"),
                  ctl_format_seconds(ctl_number(a, "uptime_s"), up),
                  why.data != NULL ? (char *)why.data : "");
    bytes_fini(&why);
    ctl_show_line(v, "%.0f clients, %.0f workers, log level %s, configuration %s", ctl_number(a, "clients_n"),
                  ctl_number(a, "workers_n"), ctl_string(a, "log_level"), ctl_string(a, "config"));
}

void ctl_view_status(struct ctl_view *v)
{
    static const struct ctl_section *const sections[] = {&ctl_section_shards, &ctl_section_processes,
                                                         &ctl_section_listeners, &ctl_section_registers};
    json_t *now = traffic(v->answer), *then = v->before != NULL ? traffic(v->before) : NULL;

    show_heading(v);
    blank(v);
    ctl_show_rows(v, &traffic_section, now, then);
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        if (json_array_size(json_object_get(v->answer, sections[i]->member)) == 0)
            continue;
        blank(v);
        ctl_show_section(v, sections[i]);
    }
    json_decref(now);
    json_decref(then);
}

/* ---- clients */

void ctl_view_client(struct ctl_view *v)
{
    ctl_show_object(v, v->answer);
}

#define TOP_CLIENT(unit, rate_title)                                                                         \
    {                                                                                                        \
        {"value", "value", unit, .rate = rate_title}, {"id", "connection_id", CTL_RTEXT},                    \
            {"shard", "shard", CTL_RTEXT}, {"address", "address", CTL_TEXT}, {"uid", "uid", CTL_TEXT},       \
            {"listener", "listener", CTL_TEXT}, {"age", "age_s", CTL_SECONDS},                               \
            {"idle", "idle_s", CTL_SECONDS}, {"queue", "queue_bytes", CTL_BYTES},                            \
            {"groups", "groups_n", CTL_NUMBER}, {"worker", "worker", CTL_TEXT}, {0},                         \
    }
/* Values of the first two are per second already. */
static const struct ctl_column top_messages_columns[] = TOP_CLIENT(CTL_NUMBER, NULL);
static const struct ctl_column top_bytes_columns[] = TOP_CLIENT(CTL_BYTES, NULL);
static const struct ctl_column top_queue_columns[] = TOP_CLIENT(CTL_BYTES, "change/s");
static const struct ctl_column top_names_columns[] = {
    {"clients", "clients", CTL_NUMBER, .rate = "change/s"},
    {"name", "name", CTL_TEXT},
    {0},
};

void ctl_view_top(struct ctl_view *v)
{
    const char *by = ctl_string(v->answer, "by");
    bool names = strcmp(by, "groups") == 0 || strcmp(by, "uids") == 0;
    bool queue = strcmp(by, "queue") == 0, bytes = strncmp(by, "bytes", 5) == 0;
    struct ctl_section section = {"top", .none = "none", .key = names ? "name" : "shard connection_id",
                                  .columns = names   ? top_names_columns
                                             : queue ? top_queue_columns
                                             : bytes ? top_bytes_columns
                                                     : top_messages_columns};
    if (!names && !queue)
        ctl_show_line(v, "%s a second, over %.0f s", by, ctl_number(v->answer, "seconds"));
    else
        ctl_show_line(v, "%s", queue ? "bytes that wait to be sent" : by);
    ctl_show_section(v, &section);
}

/* ---- counters */

static const struct ctl_column counter_columns[] = {
    {"counter", "name", CTL_TEXT},
    {"value", "value", CTL_NUMBER, .rate = "per_s"},
    {"meaning", "help", CTL_TEXT},
    {0},
};
static const struct ctl_section counter_section = {"counters", counter_columns, .key = "name",
                                                   .none = "none that is not 0"};

/* Of this build; the gateway may be of another one, and have more. */
static const char *help_of(const char *name)
{
    for (unsigned i = 0; i < COUNTER_N; i++) {
        if (strcmp(counter_infos[i].name, name) == 0)
            return counter_infos[i].help;
    }
    return "";
}

static json_t *counter_rows(const json_t *answer, bool nonzero)
{
    json_t *rows = json_array(), *value;
    const char *name;

    json_object_foreach(json_object_get(answer, "counters"), name, value)
    {
        if (nonzero && json_number_value(value) == 0)
            continue;
        json_t *row = json_object();
        ctl_set(row, "name", json_string(name));
        ctl_set(row, "value", json_incref(value));
        ctl_set(row, "help", json_string(help_of(name)));
        json_array_append_new(rows, row);
    }
    return rows;
}

void ctl_view_counters(struct ctl_view *v)
{
    json_t *now = counter_rows(v->answer, ctl_given(v->args, CTL_BIT(NONZERO)));
    json_t *then = v->before != NULL ? counter_rows(v->before, false) : NULL;
    ctl_show_rows(v, &counter_section, now, then);
    json_decref(now);
    json_decref(then);
}

static void show_reasons(const struct ctl_view *v, const struct ctl_section *section)
{
    json_t *rows = json_array(), *row;
    size_t i;

    json_array_foreach(json_object_get(v->answer, section->member), i, row)
    {
        if (ctl_number(row, "count") != 0 || !ctl_given(v->args, CTL_BIT(NONZERO)))
            json_array_append(rows, row);
    }
    ctl_show_rows(v, section, rows, v->before != NULL ? json_object_get(v->before, section->member) : NULL);
    json_decref(rows);
}

void ctl_view_closes(struct ctl_view *v)
{
    static const struct ctl_column closes[] = {
        {"closed", "count", CTL_NUMBER, .rate = "per_s"},
        {"reason", "reason", CTL_TEXT},
        {"meaning", "help", CTL_TEXT},
        {0},
    };
    static const struct ctl_column drops[] = {
        {"dropped", "count", CTL_NUMBER, .rate = "per_s"},
        {"reason", "reason", CTL_TEXT},
        {"meaning", "help", CTL_TEXT},
        {0},
    };
    static const struct ctl_section sections[] = {
        {"closes", closes, .key = "reason", .sort = "-count", .none = "no client was closed"},
        {"drops", drops, .key = "reason", .sort = "-count", .none = "no message was dropped"},
    };
    for (size_t i = 0; i < 2; i++) {
        if (i > 0)
            blank(v);
        show_reasons(v, &sections[i]);
    }
}

/* ---- histograms */

static json_t *histogram_value(const json_t *h, double value, bool is_number)
{
    char buf[CTL_FORMAT_MAX];
    if (!is_number)
        return json_string("-");
    return json_string(strcmp(ctl_string(h, "unit"), "bytes") == 0 ? ctl_format_bytes(value, buf)
                                                                   : ctl_format_ns(value * 1e9, buf));
}

static json_t *histogram_row(const char *name, const json_t *h)
{
    static const char *const members[] = {"p50", "p90", "p99", "max_bound"};
    double count = ctl_number(h, "count");
    json_t *row = json_object();

    ctl_set(row, "name", json_string(name));
    ctl_set(row, "count", json_incref(json_object_get(h, "count")));
    ctl_set(row, "mean", histogram_value(h, count > 0 ? ctl_number(h, "sum") / count : 0, count > 0));
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        ctl_set(row, members[i],
                histogram_value(h, ctl_number(h, members[i]),
                                count > 0 && json_is_number(json_object_get(h, members[i]))));
    return row;
}

static json_t *histogram_rows(const json_t *answer)
{
    json_t *rows = json_array(), *h;
    const char *name;
    json_object_foreach(json_object_get(answer, "histograms"), name, h)
    {
        json_array_append_new(rows, histogram_row(name, h));
    }
    return rows;
}

void ctl_view_histograms(struct ctl_view *v)
{
    static const struct ctl_column columns[] = {
        {"histogram", "name", CTL_TEXT},       {"count", "count", CTL_NUMBER, .rate = "per_s"},
        {"mean", "mean", CTL_RTEXT},           {"p50_below", "p50", CTL_RTEXT},
        {"p90_below", "p90", CTL_RTEXT},       {"p99_below", "p99", CTL_RTEXT},
        {"max_below", "max_bound", CTL_RTEXT}, {0},
    };
    static const struct ctl_section section = {"histograms", columns, .key = "name"};
    json_t *now = histogram_rows(v->answer), *then = v->before != NULL ? histogram_rows(v->before) : NULL;

    ctl_show_rows(v, &section, now, then);
    json_decref(now);
    json_decref(then);
}

/* ---- check */

void ctl_view_check(struct ctl_view *v)
{
    size_t i, j;
    json_t *shard, *problem;

    json_array_foreach(json_object_get(v->answer, "shards"), i, shard)
    {
        const json_t *problems = json_object_get(shard, "problems");
        ctl_show_line(v, "shard %.0f: %.0f looked at, %s", ctl_number(shard, "shard"),
                      ctl_number(shard, "looked_at"), json_array_size(problems) == 0 ? "good" : "wrong:");
        json_array_foreach(problems, j, problem)
        {
            ctl_show_line(v, "  %s", json_string_value(problem) != NULL ? json_string_value(problem) : "?");
        }
    }
    /* Its answer says ok only of shards that were asked. */
    bool ok = json_is_true(json_object_get(v->answer, "ok")) &&
              json_array_size(json_object_get(v->answer, "missing")) == 0;
    v->status = ok ? EXIT_OK : EXIT_RUNTIME;
}

/* ---- bans */

void ctl_view_bans(struct ctl_view *v)
{
    static const struct ctl_column columns[] = {
        {"address", "address", CTL_TEXT},
        {"until", "until_unix_s", CTL_UNIX},
        {"left", "left_s", CTL_SECONDS},
        {0},
    };
    static const struct ctl_section section = {"bans", columns, .sort = "until_unix_s", .none = "none"};
    size_t i;
    json_t *ban;

    json_array_foreach(json_object_get(v->answer, "bans"), i, ban)
    {
        ctl_set(ban, "left_s", json_real(ctl_number(ban, "until_unix_s") - (double)time(NULL)));
    }
    ctl_show_section(v, &section);
}

/* ---- orders */

static const char *word(const struct ctl_view *v, int i)
{
    return i < v->args->n_words ? v->args->words[i] : "";
}

void ctl_view_closed(struct ctl_view *v)
{
    double closing = ctl_number(v->answer, "closing");
    double n = closing > 0 ? closing : ctl_number(v->answer, "closed");
    ctl_show_line(v, "%s %.0f %s", closing > 0 ? "going to close" : "closed", n,
                  n == 1 ? "client" : "clients");
}

void ctl_view_ban(struct ctl_view *v)
{
    char buf[CTL_FORMAT_MAX];
    int64_t s = ctl_given(v->args, CTL_BIT(FOR)) ? v->args->number[CTL_OPTION_FOR] : 3600;
    ctl_show_line(v, "%s is banned for %s", word(v, 1), ctl_format_seconds((double)s, buf));
}

void ctl_view_unban(struct ctl_view *v)
{
    ctl_show_line(v, "%s is not banned any more", word(v, 1));
}

void ctl_view_drain(struct ctl_view *v)
{
    char buf[CTL_FORMAT_MAX], n[CTL_FORMAT_MAX] = "those", when[CTL_FORMAT_MAX + 8] = "at once";
    int64_t s = ctl_given(v->args, CTL_BIT(OVER)) ? v->args->number[CTL_OPTION_OVER] : 30;
    bool worker = strcmp(word(v, 1), "worker") == 0;

    if (json_is_number(json_object_get(v->answer, "clients")))
        snprintf(n, sizeof n, "the %.0f", ctl_number(v->answer, "clients"));
    if (s > 0)
        snprintf(when, sizeof when, "within %s", ctl_format_seconds((double)s, buf));
    ctl_show_line(v, "%s%s%s drains: no new clients, %s that are there are %s %s", word(v, 1),
                  v->args->n_words > 2 ? " " : "", word(v, 2), n, worker ? "bound to others" : "closed",
                  when);
}

void ctl_view_undrain(struct ctl_view *v)
{
    ctl_show_line(v, "%s%s%s takes clients again", word(v, 1), v->args->n_words > 2 ? " " : "", word(v, 2));
}

void ctl_view_evacuate(struct ctl_view *v)
{
    double clients = ctl_number(v->answer, "clients"), links = ctl_number(v->answer, "links");

    ctl_show_line(v, "%s shard %s: %.0f %s and %.0f internal %s have moved, pause %.0f ms",
                  ctl_given(v->args, CTL_BIT(BACK)) ? "back to" : "off", word(v, 1), clients,
                  clients == 1 ? "client" : "clients", links, links == 1 ? "connection" : "connections",
                  ctl_number(v->answer, "pause_ms"));
}

void ctl_view_rebalance(struct ctl_view *v)
{
    double n = ctl_number(v->answer, "moved");
    ctl_show_line(v, "%.0f %s are going to be bound to another worker", n, n == 1 ? "client" : "clients");
}

void ctl_view_log_level(struct ctl_view *v)
{
    ctl_show_line(v, "log level %s in all processes, until the next reload or start", word(v, 1));
}

static void show_listeners(struct ctl_view *v, const char *member, const char *what)
{
    size_t i;
    json_t *name;
    json_array_foreach(json_object_get(v->answer, member), i, name)
    {
        ctl_show_line(v, "listener %s %s", json_string_value(name), what);
    }
}

void ctl_view_reload(struct ctl_view *v)
{
    static const struct ctl_column columns[] = {
        {"section", "section", CTL_TEXT},
        {"key", "key", CTL_TEXT},
        {"live", "live", CTL_TEXT},
        {0},
    };
    static const struct ctl_section section = {"changed", columns, .none = "no key has changed"};
    size_t i;
    json_t *key;
    bool restart = false;

    ctl_show_section(v, &section);
    show_listeners(v, "added", "is added");
    show_listeners(v, "removed", "is removed; its clients stay until they leave");
    json_array_foreach(json_object_get(v->answer, "changed"), i, key)
    {
        restart = restart || json_is_false(json_object_get(key, "live"));
    }
    if (restart)
        ctl_note(v, "tgg ctl: keys that are not live wait for the next start of the gateway");
}

void ctl_view_inject(struct ctl_view *v)
{
    ctl_show_line(v, "shard %s was told: %s", word(v, 1), word(v, 2));
}
