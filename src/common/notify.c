// SPDX-License-Identifier: MIT
#include "common/notify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

/* A path, or @ and a name of the abstract namespace. 0: neither. */
static socklen_t parse(const char *text, struct sockaddr_un *ret)
{
    size_t len = strlen(text);

    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    if ((text[0] != '/' && text[0] != '@') || len < 2 || len >= sizeof ret->sun_path)
        return 0;
    memcpy(ret->sun_path, text, len);
    if (text[0] == '@')
        ret->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

static int open_socket(const char *text)
{
    struct sockaddr_un address;
    socklen_t len = parse(text, &address);
    if (len == 0)
        return -EINVAL;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, len) == 0)
        return fd;
    int err = errno;
    close(fd);
    return -err;
}

/* Of this process: a manager that started another one wants to hear of that. */
static uint64_t watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    if (usec == NULL || (pid != NULL && strtoll(pid, NULL, 10) != getpid()))
        return 0;
    uint64_t half_ms = strtoull(usec, NULL, 10) / 2000;
    return half_ms > 0 ? half_ms : 1;
}

static void keep_for_successor(struct notify *n)
{
    const char *name = getenv("NOTIFY_SOCKET"), *usec = getenv("WATCHDOG_USEC");

    snprintf(n->socket, sizeof n->socket, "NOTIFY_SOCKET=%s", name);
    if (n->watchdog_ms > 0 && usec != NULL && strlen(usec) < 24)
        snprintf(n->watchdog, sizeof n->watchdog, "WATCHDOG_USEC=%s", usec);
}

void notify_environment(const struct notify *n, const char *ret[NOTIFY_VARIABLES_MAX])
{
    unsigned count = 0;
    if (n->socket[0] != '\0')
        ret[count++] = n->socket;
    if (n->watchdog[0] != '\0')
        ret[count++] = n->watchdog;
    ret[count] = NULL;
}

void notify_open(struct notify *n)
{
    const char *text = getenv("NOTIFY_SOCKET");

    *n = (struct notify){.fd = -1};
    if (text != NULL) {
        n->fd = open_socket(text);
        if (n->fd < 0)
            LOG(LOG_WARN, "notify_socket_not_usable", "socket=%s error=\"%s\"", log_quote(text, strlen(text)),
                strerror(-n->fd));
    }
    if (n->fd >= 0) {
        n->watchdog_ms = watchdog_ms();
        keep_for_successor(n);
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_close(struct notify *n)
{
    if (n->fd >= 0)
        close(n->fd);
    *n = (struct notify){.fd = -1};
}

void notify_send(struct notify *n, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (n->fd < 0)
        return;
    va_start(ap, fmt);
    int len = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (send(n->fd, text, (size_t)len < sizeof text ? (size_t)len : sizeof text - 1, MSG_NOSIGNAL) < 0)
        LOG(LOG_WARN, "not_notified", "error=\"%s\" note=\"the service manager does not hear of us\"",
            strerror(errno));
}

void notify_reloading(struct notify *n)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    notify_send(n, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
                (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000);
}

void notify_turn(struct notify *n, uint64_t now_ms)
{
    if (n->watchdog_ms == 0 || now_ms < n->due_ms)
        return;
    n->due_ms = now_ms + n->watchdog_ms;
    notify_send(n, "WATCHDOG=1");
}

uint64_t notify_due_ms(const struct notify *n)
{
    return n->watchdog_ms == 0 ? UINT64_MAX : n->due_ms;
}
