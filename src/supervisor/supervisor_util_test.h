// SPDX-License-Identifier: MIT
/* What the tests of this folder share: a configuration in words, ports, waiting. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "common/config.h"
#include "common/listen_socket.h"

__attribute__((format(printf, 4, 5))) static inline void set_in(struct config *cfg, const char *section,
                                                                const char *key, const char *fmt, ...)
{
    struct config_error err = {0};
    char value[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(value, sizeof value, fmt, ap);
    va_end(ap);
    assert_int_equal(config_set(cfg, section, key, value, &err), 0);
}

/* A socket that listens on some port of 127.0.0.1. */
static inline int listen_somewhere(unsigned *ret_port)
{
    struct sockaddr_in a;
    socklen_t len = sizeof a;
    int fd = listen_socket_open("127.0.0.1", 0, 1);
    assert_true(fd >= 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

static inline unsigned free_port(void)
{
    unsigned port;
    close(listen_somewhere(&port));
    return port;
}

static inline void pause_ms(long ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&ts, NULL);
}

/* PATIENCE_MS: the test's. */
#define WAIT_FOR(condition)                                                                                  \
    do {                                                                                                     \
        unsigned waited_ms = 0;                                                                              \
        for (; !(condition) && waited_ms < PATIENCE_MS; waited_ms += 5)                                      \
            pause_ms(5);                                                                                     \
        if (waited_ms >= PATIENCE_MS)                                                                        \
            fail_msg("not in time: %s", #condition);                                                         \
    } while (0)
