// SPDX-License-Identifier: MIT
#include "sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "sim/sim_client.h"
#include "sim/sim_link.h"

/* ---- chance */

uint64_t world_draw(struct world *w, uint64_t n)
{
    return sim_net_draw(w->net, n);
}

uint64_t world_between(struct world *w, uint64_t min, uint64_t max)
{
    return min + world_draw(w, max - min + 1);
}

bool world_chance(struct world *w, unsigned percent)
{
    return world_draw(w, 100) < percent;
}

/* ---- telling */

void world_trace(struct world *w, const char *fmt, ...)
{
    char *line = w->trace[w->n_trace++ % WORLD_TRACE_LINES];
    int n = snprintf(line, sizeof w->trace[0], "%12.6f ",
                     (double)(sim_net_now_ns(w->net) - 1000 * WORLD_S) / 1e9);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line + n, sizeof w->trace[0] - (size_t)n, fmt, args);
    va_end(args);
    if (w->verbose)
        fprintf(stderr, "%s\n", line);
}

void world_fail(struct world *w, const char *fmt, ...)
{
    va_list args;
    if (w->failed)
        return;
    w->failed = true;
    va_start(args, fmt);
    vsnprintf(w->failure, sizeof w->failure, fmt, args);
    va_end(args);
    world_trace(w, "FAILED: %s", w->failure);
}

/* ---- what a seed draws: configuration and network */

static const char *pick(struct world *w, const char *a, const char *b, const char *c)
{
    const char *of[] = {a, b, c};
    return of[world_draw(w, c != NULL ? 3 : 2)];
}

static void draw_gateway(struct world *w, struct bytes *t)
{
    static const char *const routers[] = {"least_connections", "random", "round_robin", "client_hash"};
    bytes_append_str(t, "[gateway]\n");
    bytes_printf(t, "lan_ip = %s\n", world_chance(w, 30) ? "10.9.9.9" : "127.0.0.1");
    bytes_printf(t, "worker_ping_interval = %u\n", (unsigned)world_between(w, 1, 20));
    bytes_printf(t, "router = %s\n", routers[world_draw(w, 4)]);
    bytes_printf(t, "on_connect = %s\n", pick(w, "accept", "handshake", NULL));
    bytes_printf(t, "worker_backpressure = %s\n", world_chance(w, 70) ? "pause" : "close");
    bytes_printf(t, "slow_reader_policy = %s\n", pick(w, "close", "drop_newest", "drop_oldest"));
    bytes_printf(t, "send_to_worker_buffer_size = %u\n", world_chance(w, 60) ? 65536 : 1000000);
    bytes_printf(t, "send_to_client_buffer_size = %u\n", (unsigned)(4096 << world_draw(w, 9)));
    bytes_printf(t, "no_worker_wait = %s\n", pick(w, "0", "2", "30"));
    if (world_chance(w, 30))
        bytes_printf(t, "no_worker_client_bytes = %u\nno_worker_total_bytes = %u\n",
                     (unsigned)world_between(w, 0, 4000), (unsigned)world_between(w, 2000, 20000));
    if (world_chance(w, 20))
        bytes_printf(t,
                     "ping_interval = %u\nping_not_response_limit = %u\nping_data = {hb}\nping_mode = %s\n",
                     (unsigned)world_between(w, 2, 20), (unsigned)world_draw(w, 4),
                     pick(w, "data", "websocket", NULL));
    bytes_printf(t, "query_timeout = %s\nclose_rate = %s\n", pick(w, "50", "1000", "5000"),
                 pick(w, "20", "1000", "20000"));
    bytes_printf(t, "turn_max = 1\nregister_address = 127.0.0.1:1236\n");
    if (w->seed % 3 == 0)
        bytes_append_str(t, "one_connection_per_uid = yes\n");
    if (world_chance(w, 50))
        bytes_append_str(t, "secret_key = " SIM_SECRET "\nworker_auth_timeout = 3\n");
}

static void draw_listener(struct world *w, struct bytes *t, const char *protocol, unsigned port)
{
    bytes_printf(t, "[listen %s]\nport = %u\nprotocol = %s\n", protocol, port, protocol);
    bytes_printf(t, "send_type = %s\n", pick(w, "text", "binary", "auto"));
    bytes_printf(t, "package_size_max = %u\n", SIM_PACKAGE_MAX);
    bytes_printf(t, "close_timeout = %u\n", (unsigned)world_between(w, 1, 5));
    if (world_chance(w, 15))
        bytes_printf(t, "handshake_timeout = %u\n", (unsigned)world_between(w, 1, 5));
    if (world_chance(w, 5))
        bytes_printf(t, "first_byte_timeout = %u\n", (unsigned)world_between(w, 1, 8));
    if (world_chance(w, 5))
        bytes_printf(t, "idle_timeout = %u\n", (unsigned)world_between(w, 3, 30));
}

static void draw_config(struct world *w)
{
    struct bytes *t = &w->config_text;
    struct config_error err = {0};
    draw_gateway(w, t);
    for (unsigned p = 0; p < SIM_PROTOCOLS; p++)
        draw_listener(w, t, config_protocol_name((enum config_protocol)p), SIM_CLIENT_PORT + p);
    bytes_append_byte(t, 0);
    if (config_load_text((const char *)t->data, t->len - 1, "drawn", &w->config, &err) != 0) {
        config_error_print(stderr, &err);
        abort();
    }
}

static void draw_network(struct world *w)
{
    struct sim_net_options *o = sim_net_options(w->net);
    if (world_chance(w, 30))
        o->latency_ns_max = 50 * WORLD_MS;
    if (world_chance(w, 30))
        o->buffer_bytes_max = 4096;
    else if (world_chance(w, 30))
        o->buffer_bytes_min = o->buffer_bytes_max;
    if (world_chance(w, 30))
        o->tiny_read_percent = o->part_read_percent = 0;
    if (world_chance(w, 30))
        o->short_write_percent = 50;
    if (world_chance(w, 40))
        o->clock_read_ns = 300000; /* four looks at the clock and a turn of 1 ms is over */
    if (w->strict)
        return;
    if (world_chance(w, 40))
        o->reset_per_million = 300;
    if (world_chance(w, 30))
        o->lost_end_percent = 10;
}

/* ---- life */

struct world *world_new(uint64_t seed, bool verbose)
{
    struct world *w = calloc(1, sizeof *w);
    ASSERT(w != NULL);
    w->seed = seed;
    w->verbose = verbose;
    hash_init_fixed(seed);
    w->net = sim_net_new(seed);
    w->strict = world_chance(w, 60);
    draw_config(w);
    draw_network(w);
    sim_host_open(w, &w->client_host, 10 * WORLD_MS);
    sim_host_open(w, &w->link_host, 10 * WORLD_MS);
    sim_node_open(w);
    return w;
}

void world_free(struct world *w)
{
    sim_node_close(w);
    for (unsigned i = 0; i < w->n_clients; i++)
        sim_client_free(w->clients[i]);
    for (unsigned i = 0; i < w->n_links; i++)
        sim_link_free(w->links[i]);
    sim_host_close(&w->client_host);
    sim_host_close(&w->link_host);
    sim_net_free(w->net);
    config_fini(&w->config);
    bytes_fini(&w->config_text);
    free(w);
}

/* ---- time */

static bool step(struct world *w, uint64_t until)
{
    uint64_t planned = sim_node_next_ns(w);
    bool went_on = sim_net_step(w->net, planned < until ? planned : until);
    sim_node_work(w);
    return went_on || planned <= until;
}

void world_run(struct world *w, uint64_t ns)
{
    uint64_t until = sim_net_now_ns(w->net) + ns;
    while (!w->failed && step(w, until)) {
    }
}

bool world_run_until(struct world *w, bool (*done)(struct world *w), uint64_t ns)
{
    uint64_t until = sim_net_now_ns(w->net) + ns;
    while (!w->failed && !done(w) && step(w, until)) {
    }
    return done(w);
}
