// SPDX-License-Identifier: MIT
/* Announces this gateway to one register for as long as it lives: connects, says gateway_connect, stays
 * connected (the register drops the address when the connection ends), comes back a second after every loss.
 */
#pragma once

#include "common/config.h"
#include "common/counters.h"
#include "common/node_shm.h"
#include "loop/loop.h"
#include "net/net.h"

struct register_client;

/* All that it needs; outlives it. */
struct register_client_host {
    struct loop *loop;
    struct net *net;
    const struct config *config;
    struct counters *counters; /* register_* */
};

/* NULL without memory. address stays the caller's; entry, where others see how it stands with this register:
 * NULL for one that has no place in the table. */
struct register_client *register_client_new(const struct register_client_host *host,
                                            const struct config_address *address,
                                            struct node_register *entry);
void register_client_free(struct register_client *r); /* NULL is fine */
