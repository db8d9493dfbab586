// SPDX-License-Identifier: MIT
#include "register/register_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/list.h"
#include "base/log.h"
#include "proto/gw/register_line.h"

#define RETRY_MS         1000 /* as PHP */
#define CONNECT_LIMIT_MS 5000
/* A name that was not found is looked up after a longer pause, and one that was, again after so many losses:
 * the resolver holds up the loop while it waits. */
#define LOOK_UP_RETRY_MS 10000
#define LOOK_UP_AGAIN    30

struct register_client {
    struct net_conn conn;
    const struct register_client_host *host;
    const struct config_address *address;
    struct node_register *entry;      /* NULL: none */
    char text[NET_ADDR_STRLEN + 256]; /* host:port, for the log */
    struct net_addr addr;
    bool resolved, connected;
    uint32_t n_lost;
    struct bytes out;   /* not written yet: a line, or the end of one */
    struct timer timer; /* retry, connect limit, or ping: there is always one thing to wait for */
};

static const struct net_conn_ops register_conn_ops;
static void try_connect(struct register_client *r);

/* For `tgg status` and the like (node_shm.h); one that never was connected says so. */
static void show(struct register_client *r, bool connected)
{
    struct timespec ts;
    if (r->entry == NULL || connected == (r->entry->connected != 0))
        return;
    clock_gettime(CLOCK_REALTIME, &ts);
    __atomic_store_n(&r->entry->since_unix_ms, (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000,
                     __ATOMIC_RELAXED);
    __atomic_store_n(&r->entry->connected, connected, __ATOMIC_RELAXED);
}

static void on_retry(struct timer *t)
{
    try_connect(CONTAINER_OF(t, struct register_client, timer));
}

static void lost(struct register_client *r, const char *why)
{
    counter_add(r->host->counters, COUNTER_register_lost, 1);
    LOG(LOG_WARN, r->connected ? "register_lost" : "register_not_reached",
        "register=%s error=\"%s\" retry_ms=%d", r->text, why, r->resolved ? RETRY_MS : LOOK_UP_RETRY_MS);
    r->connected = false;
    show(r, false);
    if (++r->n_lost % LOOK_UP_AGAIN == 0)
        r->resolved = false; /* a name may lead elsewhere by now */
    bytes_clear(&r->out);
    timer_set(r->host->loop, &r->timer, r->resolved ? RETRY_MS : LOOK_UP_RETRY_MS, on_retry);
}

static void give_up(struct register_client *r, const char *why)
{
    net_close(r->host->net, &r->conn, true);
    lost(r, why);
}

static void on_connect_limit(struct timer *t)
{
    give_up(CONTAINER_OF(t, struct register_client, timer), "no answer in time");
}

static void write_out(struct register_client *r)
{
    if (r->out.len == 0)
        return;
    struct iovec iov = {r->out.data, r->out.len};
    ssize_t n = net_writev(r->host->net, &r->conn, &iov, 1);
    if (n < 0)
        give_up(r, strerror((int)-n));
    else
        bytes_consume(&r->out, (size_t)n);
}

/* PHP's rule: not to a register on this machine. */
static bool wants_ping(const struct register_client *r)
{
    return strncmp(r->address->host, "127.0.0.1", 9) != 0;
}

static void on_ping(struct timer *t)
{
    struct register_client *r = CONTAINER_OF(t, struct register_client, timer);
    timer_set(r->host->loop, t, r->host->config->gateway.worker_ping_interval * 1000, on_ping);
    if (r->out.len > 0)
        return; /* the last one is not even written */
    register_line_ping(&r->out);
    write_out(r);
}

static void on_connected(struct net_conn *c)
{
    struct register_client *r = CONTAINER_OF(c, struct register_client, conn);
    const struct config_gateway *cfg = &r->host->config->gateway;
    char address[NET_ADDR_STRLEN];
    uint32_t ip = cfg->lan_ip;
    int len = snprintf(address, sizeof address, "%u.%u.%u.%u:%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255,
                       ip & 255, (unsigned)cfg->start_port);
    r->connected = true;
    show(r, true);
    counter_add(r->host->counters, COUNTER_register_connected, 1);
    LOG(LOG_NOTICE, "register_connected", "register=%s address=%s", r->text, address);
    timer_cancel(r->host->loop, &r->timer);
    if (wants_ping(r))
        timer_set(r->host->loop, &r->timer, cfg->worker_ping_interval * 1000, on_ping);
    register_line_gateway_connect(&r->out, (struct slice){(const uint8_t *)address, (size_t)len},
                                  (struct slice){(const uint8_t *)cfg->secret_key, strlen(cfg->secret_key)});
    write_out(r);
}

static void on_data(struct net_conn *c, uint8_t *data, size_t len)
{
    /* A register has nothing to tell a gateway; PHP's sends a text before it closes for a bad request. */
    struct register_client *r = CONTAINER_OF(c, struct register_client, conn);
    LOG(LOG_WARN, "register_says", "register=%s text=%s", r->text, log_quote(data, len));
}

static void on_writable(struct net_conn *c)
{
    write_out(CONTAINER_OF(c, struct register_client, conn));
}

static void on_closed(struct net_conn *c, int err)
{
    struct register_client *r = CONTAINER_OF(c, struct register_client, conn);
    lost(r, err != 0 ? strerror(err) : "closed by the register (a wrong secret key?)");
}

static const struct net_conn_ops register_conn_ops = {
    .data = on_data, .writable = on_writable, .closed = on_closed, .connected = on_connected};

static void try_connect(struct register_client *r)
{
    /* An address is read at once; a name is looked up, which may hold up the loop for a moment: registers of
     * busy gateways are best given as addresses. */
    int err = r->resolved ? 0 : net_addr_parse(r->text, &r->addr);
    r->resolved = err == 0;
    if (err == 0)
        err = net_connect(r->host->net, &r->conn, &r->addr);
    if (err != 0)
        lost(r, strerror(-err));
    else
        timer_set(r->host->loop, &r->timer, CONNECT_LIMIT_MS, on_connect_limit);
}

struct register_client *register_client_new(const struct register_client_host *host,
                                            const struct config_address *address, struct node_register *entry)
{
    struct register_client *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->host = host;
    r->address = address;
    r->entry = entry;
    r->conn.ops = &register_conn_ops;
    bool v6 = strchr(address->host, ':') != NULL;
    snprintf(r->text, sizeof r->text, v6 ? "[%s]:%u" : "%s:%u", address->host, address->port);
    if (entry != NULL)
        snprintf(entry->address, sizeof entry->address, "%.*s", (int)sizeof entry->address - 1, r->text);
    try_connect(r);
    return r;
}

void register_client_free(struct register_client *r)
{
    if (r == NULL)
        return;
    timer_cancel(r->host->loop, &r->timer);
    if (net_conn_is_open(&r->conn))
        net_close(r->host->net, &r->conn, false);
    bytes_fini(&r->out);
    free(r);
}
