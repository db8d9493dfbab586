// SPDX-License-Identifier: MIT
/* Every listening socket of a gateway. */
#pragma once

#include "common/config.h"

struct listeners {
    unsigned n;
    int fds[CONFIG_LISTEN_MAX]; /* in the order of cfg->listen */
    int internal_fd;
};

/* All or none: 0, or -EINVAL with every one that failed in err. */
int listeners_open(const struct config *cfg, struct listeners *ret, struct config_error *err);
void listeners_close(struct listeners *l);

/* Where the internal port listens: inner_listen, else lan_ip, or all addresses when lan_ip is a public one
 * (on many rented machines that is the router's). Returns buf; cap >= 64. */
char *listeners_internal_address(const struct config *cfg, char *buf, size_t cap);
