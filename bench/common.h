// SPDX-License-Identifier: MIT
/* What the bench programs share: ending with a message, clocks, options, sockets, epoll. Every function here
 * ends the process with a message on standard error when it cannot do its job: a run that went wrong gives no
 * figure. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same with strerror(errno) behind it. */
_Noreturn void die_errno(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* CLOCK_MONOTONIC, ns. */
uint64_t now_ns(void);
/* CPU time that the kernel has charged to a process since its start, ns: the sum of what /proc/PID/schedstat
 * says of its threads, but brought up to date in the call (schedstat lags by up to a tick while the process
 * runs). */
uint64_t process_cpu_ns(pid_t pid);

/* A number from the command line within [min, max]. */
uint64_t parse_uint(const char *option, const char *text, uint64_t min, uint64_t max);
/* "1.2.3.4:80" */
struct sockaddr_in parse_address(const char *option, const char *text);

/* An option of the command line. `take` gets its text (NULL for one without an argument) and puts the value
 * where `into` points. */
struct arg {
    const char *name; /* with its dashes */
    void (*take)(const struct arg *arg, const char *text);
    void *into;
    uint64_t min, max; /* of numbers */
};
void arg_u32(const struct arg *arg, const char *text);     /* into: uint32_t */
void arg_u64(const struct arg *arg, const char *text);     /* into: uint64_t */
void arg_address(const struct arg *arg, const char *text); /* into: struct sockaddr_in */
void arg_text(const struct arg *arg, const char *text);    /* into: const char * */
void arg_flag(const struct arg *arg, const char *text);    /* into: bool; has no argument */
/* The index of text in names. */
size_t arg_choice(const struct arg *arg, const char *text, const char *const *names, size_t n);

#define ARGS_MAX 32

/* Takes all options, of at most ARGS_MAX kinds. Returns the index of the first word that is none: all of
 * those stand at the end of argv then. */
int args_parse(int argc, char **argv, const struct arg *args, size_t n, const char *usage_text);
_Noreturn void usage(const char *text);

/* Tell who started us that all is in place: {"event":"ready"} on standard output. */
void say_ready(void);

void *xcalloc(size_t n, size_t size);
int xepoll_create(void);
void xepoll_ctl(int epoll, int op, int fd, uint32_t events, epoll_data_t data);

/* RLIMIT_NOFILE to the hard limit. */
void raise_file_limit(void);
void set_nodelay(int fd);
void set_nonblocking(int fd);
/* Non-blocking, SO_REUSEADDR. */
int tcp_listen(const struct sockaddr_in *address);
int tcp_connect_blocking(const struct sockaddr_in *address);
