// SPDX-License-Identifier: MIT
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void print_error(const char *fmt, va_list ap)
{
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, fmt, ap);
}

_Noreturn void die(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_error(fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

_Noreturn void die_errno(const char *fmt, ...)
{
    int err = errno;
    va_list ap;
    va_start(ap, fmt);
    print_error(fmt, ap);
    va_end(ap);
    fprintf(stderr, ": %s\n", strerror(err));
    exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;
    if (clock_gettime(clock, &ts) < 0)
        die_errno("clock_gettime");
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t process_cpu_ns(pid_t pid)
{
    clockid_t clock;
    int err = clock_getcpuclockid(pid, &clock);
    if (err != 0) {
        errno = err;
        die_errno("CPU clock of process %d", (int)pid);
    }
    return clock_ns(clock);
}

uint64_t parse_uint(const char *option, const char *text, uint64_t min, uint64_t max)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < min || value > max)
        die("%s: \"%s\" is not a number from %llu to %llu", option, text, (unsigned long long)min,
            (unsigned long long)max);
    return value;
}

struct sockaddr_in parse_address(const char *option, const char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char host[64];
    const char *colon = strrchr(text, ':');
    if (colon == NULL || (size_t)(colon - text) >= sizeof(host))
        die("%s: \"%s\" is not ADDRESS:PORT", option, text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1)
        die("%s: \"%s\" is not an IPv4 address", option, host);
    address.sin_port = htons((uint16_t)parse_uint(option, colon + 1, 1, 65535));
    return address;
}

void arg_u32(const struct arg *arg, const char *text)
{
    uint64_t max = arg->max < UINT32_MAX ? arg->max : UINT32_MAX;
    *(uint32_t *)arg->into = (uint32_t)parse_uint(arg->name, text, arg->min, max);
}

void arg_u64(const struct arg *arg, const char *text)
{
    *(uint64_t *)arg->into = parse_uint(arg->name, text, arg->min, arg->max);
}

void arg_address(const struct arg *arg, const char *text)
{
    *(struct sockaddr_in *)arg->into = parse_address(arg->name, text);
}

void arg_text(const struct arg *arg, const char *text)
{
    *(const char **)arg->into = text;
}

void arg_flag(const struct arg *arg, const char *text)
{
    *(bool *)arg->into = true;
}

size_t arg_choice(const struct arg *arg, const char *text, const char *const *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(text, names[i]) == 0)
            return i;
    }
    fprintf(stderr, "%s: %s: \"%s\" is none of", program_invocation_short_name, arg->name, text);
    for (size_t i = 0; i < n; i++)
        fprintf(stderr, " %s", names[i]);
    fputc('\n', stderr);
    exit(1);
}

_Noreturn void usage(const char *text)
{
    fputs(text, stderr);
    exit(2);
}

int args_parse(int argc, char **argv, const struct arg *args, size_t n, const char *usage_text)
{
    struct option table[ARGS_MAX + 1] = {0};
    int c;
    if (n > ARGS_MAX)
        die("%zu kinds of options", n);
    for (size_t i = 0; i < n; i++) {
        table[i].name = args[i].name + strlen("--");
        table[i].has_arg = args[i].take == arg_flag ? no_argument : required_argument;
        table[i].val = (int)i;
    }
    while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
        if (c == '?')
            usage(usage_text);
        args[c].take(&args[c], optarg);
    }
    return optind;
}

void say_ready(void)
{
    puts("{\"event\":\"ready\"}");
    fflush(stdout);
}

int xepoll_create(void)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        die_errno("epoll_create1");
    return epoll;
}

void xepoll_ctl(int epoll, int op, int fd, uint32_t events, epoll_data_t data)
{
    struct epoll_event e = {.events = events, .data = data};
    if (epoll_ctl(epoll, op, fd, &e) < 0)
        die_errno("epoll_ctl");
}

void *xcalloc(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (p == NULL)
        die("no memory for %zu times %zu bytes", n, size);
    return p;
}

void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        die_errno("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        die_errno("setrlimit");
}

void set_nodelay(int fd)
{
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
        die_errno("TCP_NODELAY");
}

void set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        die_errno("O_NONBLOCK");
}

int tcp_listen(const struct sockaddr_in *address)
{
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die_errno("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        die_errno("SO_REUSEADDR");
    if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 || listen(fd, 65535) < 0)
        die_errno("listening on port %d", ntohs(address->sin_port));
    return fd;
}

int tcp_connect_blocking(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die_errno("socket");
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
        die_errno("connecting to port %d", ntohs(address->sin_port));
    return fd;
}
