// SPDX-License-Identifier: MIT
/* GatewayWorker's business workers and GatewayClients as upstream: one internal port, PHP's internal protocol
 * (docs/PROTOCOL-gatewayworker.md). With other shards behind the same port (upstream_host.node) they act as
 * one gateway. */
#pragma once

#include "upstream/upstream.h"

struct gatewayworker_options {
    struct upstream_host *host; /* must outlive the upstream */
    bool listens;               /* takes internal connections (role link) */
    int internal_fd; /* bound and listening; -1: listen on lan_ip:start_port through the net itself */
    uint64_t seed;   /* for the random router */
};

/* NULL and *ret_err = -errno when the internal port cannot be listened on, or without memory. */
struct upstream *gatewayworker_new(const struct gatewayworker_options *opt, int *ret_err);
