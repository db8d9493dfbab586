// SPDX-License-Identifier: MIT
/* A node for tests of the admin process: shared memory of three shards that seem to run, a process that plays
 * the shards and the supervisor at the other ends of the control sockets, and admin_main in a process of its
 * own, asked over HTTP. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/control.h"
#include "common/node_shared.h"
#include "common/node_shm.h"

#define FAKE_SHARDS  3
#define FAKE_CLIENTS 5 /* of each */

enum fake_mode { FAKE_ANSWERS, FAKE_SILENT, FAKE_GARBAGE, FAKE_REFUSES };

/* Shared with the player. */
struct fakes {
    enum fake_mode mode[FAKE_SHARDS + 1]; /* the last: the supervisor */
    unsigned asked[CONTROL_OP_N];         /* messages by operation */
    unsigned reload_problems;
    bool listener_closed;     /* shards do not name listener "two" */
    struct control_head last; /* that came */
    char last_name[64];
    uint32_t trace_id;
    unsigned trace_burst; /* lines that come at once at the begin of a trace */
};

struct fake_node {
    struct config cfg;
    struct node node;
    struct node_shm *shm;
    struct node_shm_file shm_file;
    struct fakes *fakes;
    int supervisor[2]; /* control_open */
    int settings[2];   /* settings_open */
    char dir[64];
    char socket_path[96];
    uint16_t port;
    int player, admin; /* pids */
};

void fake_node_open(struct fake_node *f);
void fake_node_close(struct fake_node *f);
/* The exit status of admin_main, told to end. */
int fake_node_end_admin(struct fake_node *f);

/* A connection: to the Unix socket, or to the port. */
int fake_connect(const struct fake_node *f, bool tcp);
/* Sends `head` (lines that end with \r\n, Host not among them) and reads to the end. *ret_status: 0: no
 * answer. The body, to be freed; ret_all, unless NULL, is everything, to be freed. */
char *fake_request(const struct fake_node *f, bool tcp, const char *method, const char *target,
                   const char *head, int *ret_status, char **ret_all);
/* Over the Unix socket. */
char *fake_get(const struct fake_node *f, const char *target, int *ret_status);
char *fake_post(const struct fake_node *f, const char *target, int *ret_status);
/* Sent, not read. */
void fake_send(const struct fake_node *f, int fd, const char *method, const char *target);
/* Whole lines of the body that are there within the time, after the head; what is left over is thrown away.
 */
unsigned fake_read_lines(int fd, unsigned at_least, unsigned timeout_ms);
