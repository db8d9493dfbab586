// SPDX-License-Identifier: MIT
/* What an old supervisor tells a new one of its node, and hands it, before anything is stopped. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "common/config.h"
#include "common/node_shm.h"
#include "supervisor/admin_ports.h"
#include "supervisor/listeners.h"

struct supervisor;

struct upgrade_offer {
    unsigned n_shards;
    uint64_t edges, links; /* a bit each */
    struct node_home home;
    uint64_t clients, connections; /* of clients; internal */
    uint64_t deadline_ns;          /* CLOCK_MONOTONIC */
    uint32_t lan_ip;
    uint64_t start_port;
    char version[64], runtime_dir[PATH_MAX];
    unsigned n_listeners;
    struct upgrade_offer_listener {
        char name[64], protocol[16], address[128];
        uint64_t port;
        bool clients;
    } listeners[CONFIG_LISTEN_MAX];
    struct {
        bool known;
        struct node_shm_ids ids;
    } ids[NODE_SHARDS_MAX];
    struct listeners_inherited sockets;
    struct admin_ports_inherited admin;
    int upgrade_fd; /* upgrade.sock; -1: none */
};

/* ---- old */

/* Part `part` of it, from 0 on. 1: there are more; 0: that was the last; -EAGAIN: this one later again; other
 * -errno. */
int upgrade_offer_send(struct supervisor *s, int fd, unsigned part);
/* The ids of all shards as they are now. 0 or -errno. */
int upgrade_offer_send_ids(struct supervisor *s, int fd);

/* ---- new */

/* Waits for all of it (for as long as the other side lives, 30 s at most). 0; -errno with *ret_why a text. */
int upgrade_offer_receive(int fd, struct upgrade_offer *ret, const char **ret_why);
/* Ids that come later. 0 or -EBADMSG. */
int upgrade_offer_take_ids(struct upgrade_offer *o, struct slice fields);
void upgrade_offer_close(struct upgrade_offer *o); /* descriptors that nobody took */
/* Whether what is there can go on with that configuration: 0, or -EINVAL with every reason in err. */
int upgrade_offer_check(const struct upgrade_offer *o, const struct config *cfg, struct config_error *err);
