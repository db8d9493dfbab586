// SPDX-License-Identifier: MIT
#include "common/upgrade_socket.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "common/listen_socket.h"

#define BACKLOG  8
#define TEXT_MAX 1024
#define MODE     0600

static const char verb[] = "upgrade ";
static const char another[] = "another upgrade is under way";

/* ---- addresses */

bool upgrade_socket_path(const char *dir, const char *name, char *buf, size_t cap)
{
    struct sockaddr_un address;
    int n = snprintf(buf, cap, "%s/%s", dir, name);
    return n > 0 && (size_t)n < cap && (size_t)n < sizeof address.sun_path;
}

bool upgrade_socket_register_path(const char *dir, unsigned port, char *buf, size_t cap)
{
    char name[32];
    snprintf(name, sizeof name, "register-%u.sock", port);
    return upgrade_socket_path(dir, name, buf, cap);
}

int upgrade_socket_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, len);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    int err = errno;
    close(fd);
    return -err;
}

/* ---- the listener */

static void init(struct upgrade_socket *u, int fd)
{
    u->listen_fd = fd;
    u->fd = -1;
    u->asked = u->busy = false;
    u->len = 0;
}

int upgrade_socket_open(struct upgrade_socket *u, const char *path)
{
    char address[sizeof "unix:" + PATH_MAX];
    struct listen_socket_file file;

    init(u, -1);
    snprintf(address, sizeof address, "unix:%s", path);
    int fd = listen_socket_open_unix(address, BACKLOG, MODE, &file);
    if (fd < 0)
        return fd;
    u->listen_fd = fd;
    return 0;
}

void upgrade_socket_adopt(struct upgrade_socket *u, int fd)
{
    init(u, fd);
}

static void drop(struct upgrade_socket *u)
{
    if (u->fd >= 0)
        close(u->fd);
    u->fd = -1;
    u->asked = false;
    u->len = 0;
}

void upgrade_socket_leave(struct upgrade_socket *u)
{
    if (u->listen_fd >= 0)
        close(u->listen_fd);
    u->listen_fd = -1;
}

void upgrade_socket_close(struct upgrade_socket *u)
{
    drop(u);
    upgrade_socket_leave(u);
}

void upgrade_socket_set_busy(struct upgrade_socket *u, bool busy)
{
    u->busy = busy;
}

/* ---- answers */

/* False: it does not take it. Whoever reads at all has room for some lines. */
static bool send_line(int fd, const char *word, const char *text)
{
    char line[TEXT_MAX + 16];
    int len = snprintf(line, sizeof line, "%s %s", word, text);

    for (char *p = line; *p != '\0'; p++)
        if (*p == '\n' || *p == '\r')
            *p = ' ';
    line[len++] = '\n';
    return send(fd, line, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

static void say(struct upgrade_socket *u, const char *word, const char *fmt, va_list ap)
{
    char text[TEXT_MAX];

    if (!u->asked)
        return;
    vsnprintf(text, sizeof text, fmt, ap);
    if (!send_line(u->fd, word, text))
        drop(u);
}

void upgrade_socket_progress(struct upgrade_socket *u, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(u, "progress", fmt, ap);
    va_end(ap);
}

void upgrade_socket_done(struct upgrade_socket *u, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(u, "done", fmt, ap);
    va_end(ap);
    drop(u);
}

void upgrade_socket_failed(struct upgrade_socket *u, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(u, "failed", fmt, ap);
    va_end(ap);
    drop(u);
}

/* ---- who asks */

static bool is_allowed(int fd)
{
    struct ucred peer;
    socklen_t len = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
        return false;
    if (peer.uid == 0 || peer.uid == geteuid())
        return true;
    LOG(LOG_WARN, "upgrade_refused", "uid=%u pid=%d note=\"neither root nor the user of this process\"",
        (unsigned)peer.uid, (int)peer.pid);
    return false;
}

static void turn_away(int fd, const char *word, const char *why)
{
    send_line(fd, word, why);
    close(fd);
}

/* One that has connected and said nothing yet makes room: it may never do. */
static void take_next(struct upgrade_socket *u)
{
    int fd = accept4(u->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (!is_allowed(fd)) {
        turn_away(fd, "failed", "only root and the user of this process may ask for that");
    } else if (u->asked || u->busy) {
        turn_away(fd, "busy", another);
    } else {
        if (u->fd >= 0)
            send_line(u->fd, "busy", "somebody else asks for an upgrade");
        drop(u);
        u->fd = fd;
    }
}

/* A whole line is there, without its end. */
static int take_line(struct upgrade_socket *u, const char **ret_binary)
{
    const char *binary = u->line + sizeof verb - 1;

    u->asked = true;
    if (strncmp(u->line, verb, sizeof verb - 1) != 0)
        upgrade_socket_failed(u, "%s", "not understood; expected: upgrade BINARY");
    else if (*binary != '\0' && *binary != '/')
        upgrade_socket_failed(u, "%s is not an absolute path", binary);
    else if (u->busy) { /* it connected before that began */
        send_line(u->fd, "busy", another);
        drop(u);
    } else {
        *ret_binary = binary;
        return 1;
    }
    return 0;
}

/* Who has asked is read on, to hear when it leaves. */
static int read_on(struct upgrade_socket *u, const char **ret_binary)
{
    char rest[64];
    char *to = u->asked ? rest : u->line + u->len;
    size_t room = u->asked ? sizeof rest : sizeof u->line - u->len;
    ssize_t n = recv(u->fd, to, room, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        drop(u);
        return 0;
    }
    if (u->asked)
        return 0;
    u->len += (size_t)n;
    char *end = memchr(u->line, '\n', u->len);
    if (end == NULL && u->len == sizeof u->line) {
        u->asked = true;
        upgrade_socket_failed(u, "a line of more than %d bytes", UPGRADE_LINE_MAX);
    }
    if (end == NULL)
        return 0;
    *end = '\0';
    return take_line(u, ret_binary);
}

int upgrade_socket_turn(struct upgrade_socket *u, const char **ret_binary)
{
    if (u->fd >= 0 && read_on(u, ret_binary) > 0)
        return 1;
    if (u->listen_fd >= 0)
        take_next(u);
    return u->fd >= 0 && !u->asked ? read_on(u, ret_binary) : 0;
}
