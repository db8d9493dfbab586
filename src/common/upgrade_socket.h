// SPDX-License-Identifier: MIT
/* The socket by which `tgg upgrade` asks a running process (the supervisor, the register) to hand over to a
 * new one. Lines of text, each at most UPGRADE_LINE_MAX bytes:
 *
 *   asks      "upgrade BINARY\n"     an absolute path; empty: the file that the running one was started from
 *   answers   "progress TEXT\n"      any number of them
 *             "done TEXT\n"          or
 *             "failed TEXT\n"        nothing has changed; or
 *             "busy TEXT\n"          another upgrade is under way
 *             and the end of the connection behind the last one
 *
 * Only root and the user of the process itself are heard. One upgrade at a time; who asks may leave, the
 * upgrade goes on. Nothing here blocks or needs a loop: poll both descriptors for POLLIN, and call _turn when
 * one of them has it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define UPGRADE_SOCKET_NAME "upgrade.sock" /* the gateway's, in runtime_dir */
#define UPGRADE_LINE_MAX    4608           /* PATH_MAX and some words */

/* Only upgrade_socket_* write to it. */
struct upgrade_socket {
    int listen_fd; /* -1: not open */
    int fd;        /* who asks; -1: nobody */
    bool asked;    /* it has said what it wants, and waits for the end */
    bool busy;     /* as upgrade_socket_set_busy said */
    size_t len;
    char line[UPGRADE_LINE_MAX];
};

/* <dir>/<name>. False: it does not fit into the address of a socket. */
bool upgrade_socket_path(const char *dir, const char *name, char *buf, size_t cap);
/* That of the register with this port: there may be several. */
bool upgrade_socket_register_path(const char *dir, unsigned port, char *buf, size_t cap);

/* Bind and listen at path, mode 0600. 0 or -errno, as listen_socket_open_unix says (then closed). */
int upgrade_socket_open(struct upgrade_socket *u, const char *path);
/* One that listens already: of the process that ran before; fd becomes the socket's. */
void upgrade_socket_adopt(struct upgrade_socket *u, int fd);
/* Another process listens there from now on; who has asked this one still hears from it. */
void upgrade_socket_leave(struct upgrade_socket *u);
/* Also when it is not open. The file stays: unlink it unless another process has the socket. */
void upgrade_socket_close(struct upgrade_socket *u);

/* 1: somebody asks for an upgrade: *ret_binary (within u, until _done, _failed or _close) is "" or absolute.
 * 0: not now. Who is not allowed, says something else or comes while another one waits is answered here. */
int upgrade_socket_turn(struct upgrade_socket *u, const char **ret_binary);

/* To the one that asked; nothing, if nobody did (a signal) or it has left. A newline in it becomes a space.
 * After _done and _failed the connection is over. */
void upgrade_socket_progress(struct upgrade_socket *u, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void upgrade_socket_done(struct upgrade_socket *u, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void upgrade_socket_failed(struct upgrade_socket *u, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* An upgrade has begun for another reason (a signal): who asks from now on is told that one is under way,
 * until this is said again with false. Not needed for those that _turn has told of. */
void upgrade_socket_set_busy(struct upgrade_socket *u, bool busy);

/* ---- the other end */

/* Connected, blocking, closed on exec; or -errno: -ENOENT, -ECONNREFUSED: nobody is there; -EACCES: not for
 * this user. */
int upgrade_socket_connect(const char *path);
