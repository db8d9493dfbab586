// SPDX-License-Identifier: MIT
/* What no single key shows. */
#include "common/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

#define UNIX_PATH_MAX 107 /* of sockaddr_un */
#define TOKEN_LEN_MIN 16

static bool is_unix(const char *address)
{
    return strncmp(address, "unix:", 5) == 0;
}

static void check_socket_mode(const char *text, unsigned line, const char *label, struct config_error *err)
{
    uint64_t mode = strtoul(text, NULL, 8);
    if (strspn(text, "01234567") != strlen(text) || mode > 0777)
        config_error_add(err, line, label, "socket_mode",
                         "%s is no file mode; expected octal digits such as 0660",
                         log_quote(text, strlen(text)));
}

static void check_listen_address(const struct config_listen *l, const char *label, struct config_error *err)
{
    const char *path = l->address + 5;
    if (is_unix(l->address) && (*path != '/' || strlen(path) > UNIX_PATH_MAX))
        config_error_add(
            err, l->line.address, label, "address",
            "%s is no path for a socket; expected unix: and an absolute path of at most %d bytes",
            log_quote(path, strlen(path)), UNIX_PATH_MAX);
    check_socket_mode(l->socket_mode, l->line.socket_mode, label, err);
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
    if (is_unix(a) || is_unix(b))
        return strcmp(a, b) == 0;
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
    if (config_listen_socket_of(cfg, i) != i)
        return; /* told apart by path */
    for (unsigned j = 0; j < i; j++) {
        const struct config_listen *other = &cfg->listen[j];
        if ((is_unix(l->address) || other->port == l->port) && addresses_clash(other->address, l->address))
            config_error_add(err, line, listen_label(l, label, sizeof label), "port",
                             "%s:%" PRIu64
                             " is taken by [listen %s] of line %u; expected an address and port of its own%s",
                             l->address, l->port, other->name, other->section_line,
                             l->protocol == PROTOCOL_WEBSOCKET && other->protocol == PROTOCOL_WEBSOCKET
                                 ? ", or a path of its own in both"
                                 : "");
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
    if (g->connection_reserve > 0 && g->reserve_list[0] == '\0')
        config_error_add(err, g->line.connection_reserve, "gateway", "connection_reserve",
                         "for whom? Set reserve_list");
    if (g->max_connections > 0 && g->connection_reserve >= g->max_connections)
        config_error_add(err, g->line.connection_reserve, "gateway", "connection_reserve",
                         "leaves nothing of max_connections for others; expected less than %" PRIu64,
                         g->max_connections);
    if (g->ban_file[0] != '\0' && g->ban_file[0] != '/')
        config_error_add(err, g->line.ban_file, "gateway", "ban_file", "%s is no absolute path",
                         log_quote(g->ban_file, strlen(g->ban_file)));
    if (g->lan_ip == 0)
        config_error_add(
            err, g->line.lan_ip, "gateway", "lan_ip",
            "0.0.0.0 is not an address that workers could connect to; expected one of this machine");
    if (g->inner_listen[0] != '\0')
        check_ip(g->inner_listen, g->line.inner_listen, "gateway", "inner_listen", err);
}

/* ---- lists of the handshake */

static bool is_token(const char *s, size_t len)
{
    size_t n = strspn(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
    return len > 0 && n >= len;
}

static bool is_path(const char *s, size_t len)
{
    return s[0] == '/' && memchr(s, ' ', len) == NULL && memchr(s, '?', len) == NULL;
}

static bool is_origin(const char *s, size_t len)
{
    if ((len == 4 && strncasecmp(s, "none", 4) == 0) || (len == 4 && strncasecmp(s, "null", 4) == 0))
        return true;
    const char *host = memmem(s, len, "://", 3);
    return host != NULL && host > s && host + 3 < s + len && s[len - 1] != '/' &&
           memchr(host + 3, '/', (size_t)(s + len - host - 3)) == NULL;
}

static void check_list(const char *value, bool (*is_right)(const char *, size_t), unsigned line,
                       const char *label, const char *key, const char *expected, struct config_error *err)
{
    const char *item;
    for (size_t len; config_list_next(&value, &item, &len);)
        if (!is_right(item, len))
            config_error_add(err, line, label, key, "%s is none; expected %s", log_quote(item, len),
                             expected);
}

/* Those that we send ourselves, or that would change what follows. */
static bool is_of_handshake(const char *name, size_t len)
{
    static const char *const names[] = {"Connection", "Upgrade", "Content-Length", "Transfer-Encoding"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (len == strlen(names[i]) && strncasecmp(name, names[i], len) == 0)
            return true;
    return len > 14 && strncasecmp(name, "Sec-WebSocket-", 14) == 0;
}

/* "Name: value | Name: value" */
static void check_response_headers(const struct config_listen *l, const char *label, struct config_error *err)
{
    for (const char *p = l->response_headers; *p != '\0';) {
        p += strspn(p, " \t|");
        size_t len = strcspn(p, "|"), name = strcspn(p, ":|");
        bool clean = true;
        for (size_t i = 0; i < len; i++)
            clean &= (unsigned char)p[i] >= 0x20 || p[i] == '\t';
        if (len > 0 && name < len && is_of_handshake(p, name))
            config_error_add(err, l->line.response_headers, label, "response_headers",
                             "%s is a header of the handshake itself; expected others", log_quote(p, name));
        if (len > 0 && (p[name] != ':' || !is_token(p, name) || !clean))
            config_error_add(err, l->line.response_headers, label, "response_headers",
                             "%s is no header; expected Name: value, several separated by |",
                             log_quote(p, len));
        p += len;
    }
}

/* Of listeners on one socket the first one would have them all. */
static void check_same_paths(const struct config *cfg, unsigned i, const char *label,
                             struct config_error *err)
{
    const struct config_listen *l = &cfg->listen[i];
    const char *mine = l->path, *a, *b;
    for (size_t a_len; config_list_next(&mine, &a, &a_len);)
        for (unsigned j = 0; j < i; j++) {
            if (config_listen_socket_of(cfg, i) == i ||
                config_listen_socket_of(cfg, i) != config_listen_socket_of(cfg, j))
                continue;
            const char *others = cfg->listen[j].path;
            for (size_t b_len; config_list_next(&others, &b, &b_len);)
                if (a_len == b_len && memcmp(a, b, a_len) == 0)
                    config_error_add(err, l->line.path, label, "path",
                                     "%s is that of [listen %s] of line %u, too; expected paths of its own",
                                     log_quote(a, a_len), cfg->listen[j].name, cfg->listen[j].section_line);
        }
}

static void check_handshake_lists(const struct config_listen *l, const char *label, struct config_error *err)
{
    check_list(l->path, is_path, l->line.path, label, "path",
               "a path such as /chat, or /chat/ with all below it", err);
    check_list(l->origins, is_origin, l->line.origins, label, "origins",
               "an origin such as https://example.com, without a path; none or null", err);
    check_list(l->subprotocols, is_token, l->line.subprotocols, label, "subprotocols",
               "a name (RFC 9110 token)", err);
    check_response_headers(l, label, err);
    if (l->health_path[0] != '\0' && !is_path(l->health_path, strlen(l->health_path)))
        config_error_add(err, l->line.health_path, label, "health_path",
                         "%s is no path; expected one such as /health",
                         log_quote(l->health_path, strlen(l->health_path)));
}

/* Keys that mean nothing without another one, or to another protocol: said, instead of doing nothing in
 * silence. */
static void check_edge_keys(const struct config *cfg, unsigned i, const char *label, struct config_error *err)
{
    const struct config_listen *l = &cfg->listen[i];
    static const char in_first[] = "belongs into the first listener of this address and port";
    bool ws = l->protocol == PROTOCOL_WEBSOCKET, tls = l->tls_certificate[0] != '\0';
    bool shared = config_listen_socket_of(cfg, i) != i;
    const struct {
        bool wrong;
        unsigned line;
        const char *key, *text;
    } checks[] = {
        {!ws && l->path[0] != '\0', l->line.path, "path", "only websocket listeners have paths"},
        {!ws && l->origins[0] != '\0', l->line.origins, "origins", "only websocket listeners have origins"},
        {!ws && l->forwarded != FORWARDED_OFF, l->line.forwarded, "forwarded",
         "only websocket listeners have headers; use proxy_protocol"},
        {!ws && l->deflate, l->line.deflate, "deflate", "only websocket listeners compress"},
        {l->forwarded != FORWARDED_OFF && l->trusted_proxies[0] == '\0' && !is_unix(l->address),
         l->line.forwarded, "forwarded", "whose headers are believed? Set trusted_proxies"},
        {l->proxy_protocol != PROXY_PROTOCOL_OFF && l->trusted_proxies[0] == '\0' && !is_unix(l->address),
         l->line.proxy_protocol, "proxy_protocol", "whose headers are believed? Set trusted_proxies"},
        {!tls && l->tls_key[0] != '\0', l->line.tls_key, "tls_key",
         "without tls_certificate it does nothing"},
        {!tls && l->tls_client_verify != TLS_CLIENT_VERIFY_OFF, l->line.tls_client_verify,
         "tls_client_verify", "without tls_certificate it does nothing"},
        {l->tls_client_verify != TLS_CLIENT_VERIFY_OFF && l->tls_client_ca[0] == '\0',
         l->line.tls_client_verify, "tls_client_verify", "by whom? Set tls_client_ca"},
        {tls && shared, l->line.tls_certificate, "tls_certificate", in_first},
        {l->tls_client_verify == TLS_CLIENT_VERIFY_OFF && l->tls_client_ca[0] != '\0', l->line.tls_client_ca,
         "tls_client_ca", "nobody is asked for a certificate; set tls_client_verify"},
        {shared && (l->forwarded != FORWARDED_OFF || l->proxy_protocol != PROXY_PROTOCOL_OFF),
         l->forwarded != FORWARDED_OFF ? l->line.forwarded : l->line.proxy_protocol,
         l->forwarded != FORWARDED_OFF ? "forwarded" : "proxy_protocol", in_first},
        {shared && l->health_path[0] != '\0', l->line.health_path, "health_path", in_first},
        {!ws && l->health_path[0] != '\0', l->line.health_path, "health_path",
         "only websocket listeners speak HTTP"},
        {!ws && l->response_headers[0] != '\0', l->line.response_headers, "response_headers",
         "only websocket listeners speak HTTP"},
        {!ws && l->subprotocols[0] != '\0', l->line.subprotocols, "subprotocols",
         "only websocket listeners have sub-protocols"},
        {l->header_size_max < l->url_length_max && l->line.url_length_max != 0, l->line.url_length_max,
         "url_length_max", "more than header_size_max"},
    };
    for (size_t n = 0; n < sizeof checks / sizeof checks[0]; n++)
        if (checks[n].wrong)
            config_error_add(err, checks[n].line, label, checks[n].key, "%s", checks[n].text);
}

static void check_admin(const struct config_admin *a, struct config_error *err)
{
    check_ip(a->address, a->line.address, "admin", "address", err);
    check_socket_mode(a->socket_mode, a->line.socket_mode, "admin", err);
    if (a->socket[0] != '\0' && a->socket[0] != '/')
        config_error_add(err, a->line.socket, "admin", "socket", "%s is no absolute path",
                         log_quote(a->socket, strlen(a->socket)));
    if (a->token[0] != '\0' && strlen(a->token) < TOKEN_LEN_MIN)
        config_error_add(err, a->line.token, "admin", "token",
                         "shorter than %d characters; leave it empty for one of chance", TOKEN_LEN_MIN);
    for (const char *p = a->token; *p != '\0'; p++) {
        if (*p > 0x20 && *p < 0x7f)
            continue;
        config_error_add(err, a->line.token, "admin", "token",
                         "a character that a header cannot carry; expected letters, digits and signs");
        break;
    }
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
    check_admin(&cfg->admin, err);
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        const struct config_listen *l = &cfg->listen[i];
        check_required(l, err);
        listen_label(l, label, sizeof label);
        if (!is_unix(l->address))
            check_ip(l->address, l->line.address, label, "address", err);
        check_listen_address(l, label, err);
        check_edge_keys(cfg, i, label, err);
        check_handshake_lists(l, label, err);
        check_same_paths(cfg, i, label, err);
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
