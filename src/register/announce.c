// SPDX-License-Identifier: MIT
#include "register/announce.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "base/log.h"
#include "register/register_client.h"
#include "register/service.h"

#define TURN_NS_MAX  UINT64_C(10000000)
#define LOG_LEVEL_MS 1000

struct announcer {
    struct service service;
    struct register_client_host host;
    struct register_client **clients; /* one for each address */
    unsigned n_clients;
    const struct node_shm *node_shm;
    struct timer level_timer;
};

static void on_level(struct timer *t)
{
    struct announcer *a = CONTAINER_OF(t, struct announcer, level_timer);
    node_shm_take_log_level(a->node_shm);
    timer_set(a->service.loop, t, LOG_LEVEL_MS, on_level);
}

static int start_clients(struct announcer *a, const struct announce_start *start)
{
    const struct config_addresses *addresses = &start->cfg->gateway.register_address;

    a->clients = calloc(addresses->n, sizeof(struct register_client *));
    if (a->clients == NULL && addresses->n > 0)
        return -ENOMEM;
    for (unsigned i = 0; i < addresses->n; i++) {
        struct register_client *r = register_client_new(&a->host, &addresses->list[i],
                                                        i < NODE_REGISTERS_MAX ? &start->registers[i] : NULL);
        if (r == NULL)
            return -ENOMEM;
        a->clients[a->n_clients++] = r;
    }
    return 0;
}

static int init(struct announcer *a, const struct announce_start *start)
{
    service_block_signals();
    int r = service_init(&a->service, TURN_NS_MAX);
    if (r < 0)
        return r;
    a->host = (struct register_client_host){
        .loop = a->service.loop,
        .net = a->service.net,
        .config = start->cfg,
        .counters = start->counters,
    };
    a->node_shm = start->node_shm;
    on_level(&a->level_timer);
    return start_clients(a, start);
}

static void fini(struct announcer *a)
{
    for (unsigned i = 0; i < a->n_clients; i++)
        register_client_free(a->clients[i]);
    free(a->clients);
    if (a->service.loop != NULL)
        timer_cancel(a->service.loop, &a->level_timer);
    service_fini(&a->service);
}

int announce_main(const struct announce_start *start)
{
    struct announcer a = {.n_clients = 0};

    int r = init(&a, start);
    if (r == 0)
        service_run(&a.service);
    else
        LOG(LOG_ERROR, "announcer_start_failed", "error=\"%s\"", strerror(-r));
    fini(&a);
    return r == 0 ? 0 : 1;
}
