// SPDX-License-Identifier: MIT
/* The keys tcp_keepalive_* and tcp_user_timeout, for the sockets of clients and for those of workers. */
#pragma once

#include "base/tcp_options.h"
#include "common/config.h"

static inline struct net_keepalive keepalive_of_clients(const struct config *cfg)
{
    const struct config_gateway *g = &cfg->gateway;
    return (struct net_keepalive){
        .idle_s = (uint32_t)g->tcp_keepalive_idle,
        .interval_s = (uint32_t)g->tcp_keepalive_interval,
        .count = (uint32_t)g->tcp_keepalive_count,
        .user_timeout_ms = (uint32_t)g->tcp_user_timeout * 1000,
    };
}

/* Workers, GatewayClients: one that lives but reads nothing for minutes is busy, not gone
 * (worker_backpressure), and the user timeout would make no difference between the two. */
static inline struct net_keepalive keepalive_of_links(const struct config *cfg)
{
    struct net_keepalive k = keepalive_of_clients(cfg);
    k.user_timeout_ms = 0;
    return k;
}
