// SPDX-License-Identifier: MIT
/* Inside the register: register.c is the process (listener, signals), peer.c one connection and what it says,
 * addresses.c the list; hand_over.c and take_over.c are the two sides of an upgrade, channel.c what they talk
 * by, peer_transfer.c a connection as a record. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/list.h"
#include "common/notify.h"
#include "common/upgrade_socket.h"
#include "loop/loop.h"
#include "net/net.h"
#include "proto/gw/register_line.h"
#include "register/service.h"
#include "transfer/transfer.h"

struct pool;

#define REGISTER_LINE_MAX    ((size_t)64 * 1024)   /* of a line, its end included */
#define REGISTER_OUT_MAX     ((size_t)1024 * 1024) /* bytes that may wait for one worker that does not read */
#define REGISTER_ADDRESS_MAX ((size_t)255)

struct register_stats {
    uint64_t accepted, refused, timeouts, bad_lines, wrong_keys, slow_readers, broadcasts;
};

/* Both directions of one socket between the two processes of an upgrade. */
struct register_channel {
    int fd; /* -1: none */
    struct transfer_sender *out;
    struct transfer_receiver *in;
};

/* transfer_register_word.word */
enum register_word {
    REGISTER_WORD_READY = 1,
    REGISTER_WORD_TAKEN,
    REGISTER_WORD_GO,
    REGISTER_WORD_SERVING,
    REGISTER_WORD_FAILED,
};

/* transfer_register_listener.kind */
enum register_listener_kind { REGISTER_LISTENER_PEERS, REGISTER_LISTENER_UPGRADE };

/* Of the process that hands over. */
struct register_upgrade {
    struct upgrade_socket socket;
    char socket_path[128];
    int poll_fd; /* readable when the socket has something to do; -1 */
    struct net_watch socket_watch;
    pid_t pid; /* the new process; 0: no upgrade is under way */
    struct register_channel channel;
    struct net_watch word_watch;
    struct timer deadline;
    struct loop_hook hook;
    uint64_t begun_ns;
    bool ready; /* the new process is: everything goes to it at the end of this turn */
    bool left;  /* it has everything: nothing here is ours any more */
};

struct register_server {
    struct service service;
    struct loop *loop; /* the service's */
    struct net *net;   /* too */
    struct net_listener listener;
    struct pool *peers;
    struct list gateways; /* peers with an address, in the order of their coming */
    struct list workers;
    struct list others; /* have not said what they are */
    struct loop_hook broadcast_hook;
    bool changed;              /* the list, since the last broadcast */
    struct register_line line; /* the one being looked at */
    const char *secret;
    uint64_t auth_timeout_ms;
    struct register_stats stats;
    const struct config *config;
    struct notify *notify; /* NULL: no service manager knows this process */
    struct timer notify_timer;
    int listen_fd; /* the caller's, or taken over */
    struct register_upgrade upgrade;
};

struct peer {
    struct net_conn conn;
    struct register_server *server;
    struct list gateway_link, worker_link, other_link;
    struct timer auth_timer;
    uint64_t auth_until_ms; /* loop time */
    struct net_addr addr;
    struct bytes address; /* of a gateway: what it registered; empty: none */
    struct bytes in;      /* an incomplete line */
    struct bytes out;     /* what the peer has not taken yet */
};

/* ---- addresses.c */

/* Append the broadcast_addresses line with every address once, in the order of their coming. */
void register__append_list(const struct register_server *s, struct bytes *out);
/* Whether it can be an address: printable, not too long. */
bool register__address_ok(struct slice address);

/* ---- peer.c */

/* NULL at the limit or without memory. */
struct peer *register__peer_new(struct register_server *s, const struct net_addr *addr);
/* End the connection and free it. */
void register__peer_close(struct peer *p, bool hard);
/* Send or queue. false: it was broken or had too much waiting, and has been closed and freed. */
bool register__peer_send(struct peer *p, const struct bytes *line);
/* So long it has to say what it is. */
void register__peer_set_auth(struct peer *p, uint64_t left_ms);
/* It has said it: it is none of the others. */
void register__peer_authenticated(struct peer *p);
/* Another process has it: nobody is told of anything. */
void register__peer_forget(struct peer *p);
void register__forget_all(struct register_server *s);
/* It was taken over, and is served from now on. */
void register__peer_go(struct peer *p);

/* ---- peer_transfer.c */

/* Puts every peer: 0 or -errno. */
int register__peers_put(const struct register_server *s, struct transfer_sink *sink);
/* A peer of another process, as its record says; it is not served yet. The handle is taken in any case. 0,
 * -EUSERS: more than max_connections; -EBADMSG; other -errno. */
int register__peer_take(struct register_server *s, const struct transfer_record *record);

/* ---- channel.c */

/* fd becomes the channel's, on success. What is said has to be taken by then. 0 or -errno. */
int register__channel_open(struct register_channel *c, int fd, uint64_t deadline_ns);
void register__channel_close(struct register_channel *c); /* also when it is not open */
int register__channel_set_deadline(struct register_channel *c, uint64_t deadline_ns); /* 0 or -ENOMEM */
/* 0 or -errno. text may be NULL. */
int register__channel_say(struct register_channel *c, enum register_word word, uint64_t peers,
                          const char *text);
/* The next record: 1; 0: none is there now; -errno, -EPIPE: the other process has ended. */
int register__channel_next(struct register_channel *c, struct transfer_record *ret);
/* Waits for it: 0; -ETIMEDOUT; other -errno. */
int register__channel_wait(struct register_channel *c, uint64_t deadline_ns, struct transfer_record *ret);
/* 0; -EBADMSG: it is no word. Its text is cut off after REGISTER_WORD_TEXT_MAX bytes. */
#define REGISTER_WORD_TEXT_MAX 250
int register__word_of(const struct transfer_record *record, struct transfer_register_word *ret);

/* ---- hand_over.c */

/* taken_fd: the socket of tgg upgrade, of the process before, that listens at taken_path; -1: none. */
void register__upgrade_init(struct register_server *s, int taken_fd, const char *taken_path);
void register__upgrade_fini(struct register_server *s);
/* binary "": the one of this process. Somebody is told how it goes if there is somebody in the socket. */
void register__upgrade_begin(struct register_server *s, const char *binary);

/* ---- take_over.c */

/* All that another process has, by this socket, which becomes ours. 0: this one is the register from now on,
 * peers have to be told to go; else -errno: logged, that one goes on. Descriptors in ret are the caller's, on
 * success. */
struct register_taken {
    int listen_fd, socket_fd; /* -1: none */
    char socket_path[128];
};
int register__take_over(struct register_server *s, int fd, struct register_taken *ret);
