// SPDX-License-Identifier: MIT
/* What the admin process listens on, and what it asks of those who come by TCP. Made by the supervisor, which
 * keeps it for as long as it lives: a dead admin process leaves nothing to its successor but who waits. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/config.h"
#include "common/listen_socket.h"

#define ADMIN_TOKEN_MAX 256

struct admin_ports {
    int socket_fd;     /* Unix socket; -1: none */
    int http_fd;       /* admin port; -1: none */
    char address[128]; /* of the Unix socket: "unix:/path" */
    struct listen_socket_file file;
    char token[ADMIN_TOKEN_MAX + 1]; /* "" without an admin port */
    pid_t opener;
    bool inherited; /* the Unix socket is another supervisor's, until it is settled */
};

/* What one supervisor hands to the next at an upgrade. A socket that is not wanted any more stays here. */
struct admin_ports_inherited {
    int socket_fd; /* -1: none, as below */
    char socket_address[128];
    struct listen_socket_file file;
    int http_fd;
    char http_address[128];
    uint64_t http_port;
};
void admin_ports_inherited_init(struct admin_ports_inherited *i);
void admin_ports_inherited_close(struct admin_ports_inherited *i);

void admin_ports_init(struct admin_ports *p); /* none */

/* With [admin] enabled; runtime_dir and the log must be there. 0, or -errno with err added to: the admin port
 * cannot be had. A Unix socket that cannot be had is a warning in the log. gid: whose group the Unix socket
 * gets (socket_mode says what that may do; its owner is who started us), -1: as it is. Sockets that are
 * inherited (NULL: none) and stand where these are to be are taken. */
int admin_ports_open(const struct config *cfg, gid_t gid, struct admin_ports_inherited *inherited,
                     struct admin_ports *ret, struct config_error *err);
/* The upgrade is sure: the inherited Unix socket is ours, with this mode and group; one that is left in
 * `inherited` goes, with its file. */
void admin_ports_settle(const struct config *cfg, gid_t gid, struct admin_ports_inherited *inherited,
                        struct admin_ports *p);
/* In the process that opened them the file of the Unix socket goes, too (but of one that is inherited and not
 * settled); others only close. The token is wiped. */
void admin_ports_close(struct admin_ports *p);
/* They are another process's now: admin_ports_close leaves the file alone. */
void admin_ports_disown(struct admin_ports *p);

/* Where the token is kept when the configuration has none; buf[cap]. 0 or -ENAMETOOLONG. */
int admin_token_path(const struct config *cfg, char *buf, size_t cap);
/* That token, as it was kept or, when there is none or it is not to be trusted, a new one (32 random bytes in
 * hexadecimal digits), kept with mode 0600 from now on. 0; -errno: it is new and could not be kept. */
int admin_token_get(const char *path, char ret[ADMIN_TOKEN_MAX + 1]);
