// SPDX-License-Identifier: MIT
#include "doctor/doctor.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/json_writer.h"
#include "common/number_list.h"
#include "common/shard_plan.h"
#include "doctor/doctor_priv.h"

#define SYSCTL_FILE "/etc/sysctl.d/90-tgg.conf"

const char *doctor_level_name(enum doctor_level level)
{
    static const char *const names[DOCTOR_LEVEL_N] = {"ok", "unknown", "warn", "bad"};
    return names[level];
}

/* ---- findings */

struct doctor_finding *doctor__add(struct doctor *d, const char *name, enum doctor_level level,
                                   const char *why)
{
    struct doctor_report *r = d->report;

    ASSERT(r->n < DOCTOR_FINDINGS_MAX);
    struct doctor_finding *f = &r->list[r->n++];
    *f = (struct doctor_finding){.level = level};
    snprintf(f->name, sizeof f->name, "%s", name);
    snprintf(f->why, sizeof f->why, "%s", why);
    r->count[level]++;
    return f;
}

struct doctor_finding *doctor__unknown(struct doctor *d, const char *name, const char *what)
{
    struct doctor_finding *f = doctor__add(d, name, DOCTOR_UNKNOWN, "");
    DOCTOR_SAY(f->found, "%s is not to be seen from here", what);
    return f;
}

void doctor__sysctl(struct doctor_finding *f, const char *key, const char *value)
{
    const char *quote = strpbrk(value, " \t") != NULL ? "'" : "";
    DOCTOR_SAY(f->now, "sysctl -w %s=%s%s%s", key, quote, value, quote);
    DOCTOR_SAY(f->keep, "%s = %s in " SYSCTL_FILE, key, value);
}

void doctor__sysctl_number(struct doctor_finding *f, const char *key, uint64_t value)
{
    DOCTOR_SAY(f->now, "sysctl -w %s=%" PRIu64, key, value);
    DOCTOR_SAY(f->keep, "%s = %" PRIu64 " in " SYSCTL_FILE, key, value);
}

uint64_t doctor__at_least(struct doctor *d, const char *key, uint64_t bad_below, uint64_t warn_below,
                          const char *why)
{
    uint64_t value;
    char text[64];

    if (!doctor__read_sysctl(d, key, text, sizeof text) || doctor__numbers(text, &value, 1) != 1) {
        doctor__unknown(d, key, "this sysctl");
        return 0;
    }
    enum doctor_level level = value < bad_below ? DOCTOR_BAD : value < warn_below ? DOCTOR_WARN : DOCTOR_OK;
    struct doctor_finding *f = doctor__add(d, key, level, why);
    uint64_t wanted = bad_below > warn_below ? bad_below : warn_below;
    DOCTOR_SAY(f->found, "%" PRIu64, value);
    DOCTOR_SAY(f->wanted, "%" PRIu64 " or more", wanted);
    if (level != DOCTOR_OK)
        doctor__sysctl_number(f, key, wanted);
    return value;
}

/* ---- what there is to hold */

static void look_at_shards(struct doctor *d, uint64_t connections)
{
    struct doctor_report *r = d->report;
    const struct config_gateway *g = &d->cfg->gateway;
    char cpus[4096];

    if (doctor__read_status(d, "Cpus_allowed_list", cpus, sizeof cpus)) {
        int n = number_list_parse(cpus, UINT16_MAX, d->cpus, DOCTOR_CPUS_MAX);
        d->n_cpus = n > 0 ? (unsigned)n : 0;
    }
    r->shards = strcmp(g->shards, "auto") == 0 && d->n_cpus > 0 ? d->n_cpus : config_shards(d->cfg);
    if (r->shards > NODE_SHARDS_MAX)
        r->shards = NODE_SHARDS_MAX;
    for (unsigned i = 0; i < r->shards; i++)
        r->edge_shards += config_shard_is_edge(d->cfg, i);
    if (r->edge_shards == 0)
        r->edge_shards = 1;
    r->connections = connections != 0          ? connections
                     : g->max_connections != 0 ? g->max_connections * r->edge_shards
                                               : DOCTOR_CONNECTIONS_DEFAULT;
    /* Clients are spread within a few per cent (docs/OPERATION.md). */
    uint64_t even = (r->connections + r->edge_shards - 1) / r->edge_shards;
    r->per_shard = r->edge_shards > 1 ? even + even / 20 : even;
}

static void look_at_proxies(struct doctor *d)
{
    for (unsigned i = 0; i < d->cfg->n_listeners; i++) {
        const struct config_listen *l = &d->cfg->listen[i];
        if (l->trusted_proxies[0] != '\0' || l->proxy_protocol != PROXY_PROTOCOL_OFF ||
            l->forwarded != FORWARDED_OFF)
            d->proxied = true;
    }
}

void doctor_look(const struct config *cfg, uint64_t connections, const char *root, struct doctor_report *ret)
{
    struct doctor d = {.cfg = cfg, .root = root, .report = ret};

    memset(ret, 0, sizeof *ret);
    look_at_shards(&d, connections);
    look_at_proxies(&d);
    doctor__look_at_files(&d);
    doctor__look_at_network(&d);
    doctor__look_at_ports(&d);
    doctor__look_at_memory(&d);
    doctor__look_at_cpus(&d);
    doctor__look_at_folders(&d);
}

/* ---- what is printed */

static void print_detail(FILE *out, const char *name, const char *text)
{
    if (text[0] != '\0')
        fprintf(out, "        %-7s %s\n", name, text);
}

static void print_finding(FILE *out, const struct doctor_finding *f)
{
    fprintf(out, "%-7s %-36s %s\n", doctor_level_name(f->level), f->name, f->found);
    if (f->level != DOCTOR_WARN && f->level != DOCTOR_BAD)
        return;
    print_detail(out, "wanted", f->wanted);
    print_detail(out, "why", f->why);
    print_detail(out, "now", f->now);
    print_detail(out, "keep", f->keep);
}

void doctor_print_text(FILE *out, const struct doctor_report *r)
{
    fprintf(out, "for %" PRIu64 " connections, up to %" PRIu64 " on each of %u shards\n\n", r->connections,
            r->per_shard, r->edge_shards);
    for (unsigned i = 0; i < r->n; i++)
        print_finding(out, &r->list[i]);
    fprintf(out, "\n%u bad, %u warn, %u ok, %u unknown; nothing was changed\n", r->count[DOCTOR_BAD],
            r->count[DOCTOR_WARN], r->count[DOCTOR_OK], r->count[DOCTOR_UNKNOWN]);
}

static void json_finding(struct json_writer *w, const struct doctor_finding *f)
{
    json_begin(w, '{');
    json_member_str(w, "name", f->name);
    json_member_str(w, "level", doctor_level_name(f->level));
    json_member_string(w, "found", f->found, strlen(f->found), 0);
    json_member_string(w, "wanted", f->wanted, strlen(f->wanted), 0);
    json_member_string(w, "why", f->why, strlen(f->why), 0);
    json_member_string(w, "now", f->now, strlen(f->now), 0);
    json_member_string(w, "keep", f->keep, strlen(f->keep), 0);
    json_end(w, '}');
}

void doctor_print_json(FILE *out, const struct doctor_report *r)
{
    struct bytes text = {0};
    struct json_writer w = {.out = &text};

    json_begin(&w, '{');
    json_member_uint(&w, "connections", r->connections);
    json_member_uint(&w, "connections_per_shard", r->per_shard);
    json_member_uint(&w, "shards", r->shards);
    json_member_uint(&w, "edge_shards", r->edge_shards);
    json_member_bool(&w, "good", r->count[DOCTOR_BAD] == 0);
    for (unsigned level = 0; level < DOCTOR_LEVEL_N; level++)
        json_member_uint(&w, doctor_level_name((enum doctor_level)level), r->count[level]);
    json_key(&w, "findings");
    json_begin(&w, '[');
    for (unsigned i = 0; i < r->n; i++)
        json_finding(&w, &r->list[i]);
    json_end(&w, ']');
    json_end(&w, '}');
    fwrite(text.data, 1, text.len, out);
    putc('\n', out);
    bytes_fini(&text);
}
