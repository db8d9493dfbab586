// SPDX-License-Identifier: MIT
/* What no single key shows. */
#include "common/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "common/config_table.h"
#include "common/shard_plan.h"

#define WEBSOCKET_CONTROL_MAX 125 /* RFC 6455 section 5.5 */

static const char *listen_label(const struct config_listen *l, char *buf, size_t cap)
{
    snprintf(buf, cap, "listen %s", l->name);
    return buf;
}

static void check_required(const struct config_listen *l, struct config_error *err)
{
    char label[64], expected[256];
    for (unsigned i = 0; i < config_keys_n; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->section != CONFIG_SECTION_listen || k->def != NULL || *config_key_line(k, l) != 0)
            continue;
        config_error_add(err, l->section_line, listen_label(l, label, sizeof label), k->name,
                         "missing; expected %s", config_value_expected(k, expected, sizeof expected));
    }
}

/* AF_INET or AF_INET6, or 0. ip: 16 bytes. */
static int parse_ip(const char *text, uint8_t *ip)
{
    memset(ip, 0, 16);
    if (inet_pton(AF_INET, text, ip) == 1)
        return AF_INET;
    return inet_pton(AF_INET6, text, ip) == 1 ? AF_INET6 : 0;
}

static void check_ip(const char *text, unsigned line, const char *section, const char *key,
                     struct config_error *err)
{
    uint8_t ip[16];
    if (parse_ip(text, ip) == 0)
        config_error_add(err, line, section, key,
                         "%s is not an address; expected IPv4 or IPv6, such as 0.0.0.0 or ::",
                         log_quote(text, strlen(text)));
}

static bool is_any(const uint8_t *ip)
{
    static const uint8_t any[16];
    return memcmp(ip, any, 16) == 0;
}

/* Whether both could not be listened on: the same address, or one of them is all addresses of its family. */
static bool addresses_clash(const char *a, const char *b)
{
    uint8_t ip_a[16], ip_b[16];
    int family = parse_ip(a, ip_a);
    if (family == 0 || family != parse_ip(b, ip_b))
        return false;
    return is_any(ip_a) || is_any(ip_b) || memcmp(ip_a, ip_b, 16) == 0;
}

static void check_clashes(const struct config *cfg, unsigned i, struct config_error *err)
{
    const struct config_listen *l = &cfg->listen[i];
    char label[64];
    unsigned line = l->line.port != 0 ? l->line.port : l->section_line;

    if (l->port == 0)
        return; /* missing, and said so */
    for (unsigned j = 0; j < i; j++) {
        const struct config_listen *other = &cfg->listen[j];
        if (other->port == l->port && addresses_clash(other->address, l->address))
            config_error_add(err, line, listen_label(l, label, sizeof label), "port",
                             "%s:%" PRIu64
                             " is taken by [listen %s] of line %u; expected an address and port of its own",
                             l->address, l->port, other->name, other->section_line);
    }
    if (cfg->gateway.start_port == l->port &&
        (cfg->gateway.inner_listen[0] == '\0' || addresses_clash(cfg->gateway.inner_listen, l->address)))
        config_error_add(err, line, listen_label(l, label, sizeof label), "port",
                         "%" PRIu64 " is the internal port, [gateway] start_port; expected another", l->port);
}

static void check_gateway_keys(const struct config_gateway *g, struct config_error *err)
{
    size_t ping_len = strlen(g->ping_data);
    if (g->ping_mode == PING_MODE_WEBSOCKET && ping_len > WEBSOCKET_CONTROL_MAX)
        config_error_add(
            err, g->line.ping_data != 0 ? g->line.ping_data : g->line.ping_mode, "gateway", "ping_data",
            "%zu bytes do not fit a WebSocket ping; expected at most %d with ping_mode websocket", ping_len,
            WEBSOCKET_CONTROL_MAX);
    if ((g->ring_size & (g->ring_size - 1)) != 0)
        config_error_add(err, g->line.ring_size, "gateway", "ring_size",
                         "%" PRIu64 " is not a power of two; expected one, such as 1m", g->ring_size);
    if (g->lan_ip == 0)
        config_error_add(
            err, g->line.lan_ip, "gateway", "lan_ip",
            "0.0.0.0 is not an address that workers could connect to; expected one of this machine");
    if (g->inner_listen[0] != '\0')
        check_ip(g->inner_listen, g->line.inner_listen, "gateway", "inner_listen", err);
}

int config_check(const struct config *cfg, struct config_error *err)
{
    unsigned before = err->n + err->left_out;
    char label[64];

    if (err->path[0] == '\0')
        snprintf(err->path, sizeof err->path, "%s", cfg->source_path);
    check_gateway_keys(&cfg->gateway, err);
    shard_plan_check(cfg, err);
    check_ip(cfg->reg.address, cfg->reg.line.address, "register", "address", err);
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        const struct config_listen *l = &cfg->listen[i];
        check_required(l, err);
        check_ip(l->address, l->line.address, listen_label(l, label, sizeof label), "address", err);
        check_clashes(cfg, i, err);
    }
    return err->n + err->left_out == before ? 0 : -EINVAL;
}

int config_check_gateway(const struct config *cfg, struct config_error *err)
{
    if (err->path[0] == '\0')
        snprintf(err->path, sizeof err->path, "%s", cfg->source_path);
    if (cfg->n_listeners > 0)
        return 0;
    config_error_add(err, 0, "", "",
                     "no listener; expected at least one [listen NAME] section with port and protocol");
    return -EINVAL;
}
