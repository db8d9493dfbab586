// SPDX-License-Identifier: MIT
#include "common/listen_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

union any_address {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
};

static const struct net_keepalive keepalive_default = NET_KEEPALIVE_DEFAULT;

static socklen_t parse(const char *address, uint16_t port, union any_address *ret)
{
    memset(ret, 0, sizeof *ret);
    if (inet_pton(AF_INET, address, &ret->v4.sin_addr) == 1) {
        ret->v4.sin_family = AF_INET;
        ret->v4.sin_port = htons(port);
        return sizeof ret->v4;
    }
    if (inet_pton(AF_INET6, address, &ret->v6.sin6_addr) == 1) {
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = htons(port);
        return sizeof ret->v6;
    }
    return 0;
}

/* A socket that is not bound yet, or -errno. */
static int make_socket(const union any_address *a, const struct net_keepalive *k)
{
    const int on = 1;
    int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        (a->sa.sa_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0)) {
        int err = errno;
        close(fd);
        return -err;
    }
    tcp_options_set(fd, k);
    return fd;
}

/* Returns fd, or -errno with fd closed. */
static int bind_and_listen(int fd, const union any_address *a, socklen_t len, int backlog)
{
    if (bind(fd, &a->sa, len) == 0 && listen(fd, backlog) == 0)
        return fd;
    int err = errno;
    close(fd);
    return -err;
}

static int open_first(const char *address, uint16_t port, int backlog, const struct net_keepalive *k)
{
    union any_address a;
    socklen_t len = parse(address, port, &a);

    if (len == 0)
        return -EINVAL;
    int fd = make_socket(&a, k);
    return fd < 0 ? fd : bind_and_listen(fd, &a, len, backlog);
}

int listen_socket_open(const char *address, uint16_t port, int backlog)
{
    return open_first(address, port, backlog, &keepalive_default);
}

int listen_socket_share(int fd)
{
    const int on = 1;
    return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ? -errno : 0;
}

/* Beside one that listens and shares its port. */
static int open_beside(const char *address, uint16_t port, int backlog, const struct net_keepalive *k)
{
    union any_address a;
    socklen_t len = parse(address, port, &a);
    int fd = make_socket(&a, k);

    if (fd < 0)
        return fd;
    int r = listen_socket_share(fd);
    if (r < 0) {
        close(fd);
        return r;
    }
    return bind_and_listen(fd, &a, len, backlog);
}

/* Until there are n; those that are opened are closed when one fails. */
static int open_rest(const char *address, uint16_t port, int backlog, const struct net_keepalive *k,
                     unsigned opened, unsigned n, int *ret_fds)
{
    int r = 0;
    while (r >= 0 && opened < n) {
        r = open_beside(address, port, backlog, k);
        if (r >= 0)
            ret_fds[opened++] = r;
    }
    if (r >= 0)
        return 0;
    while (opened > 0)
        close(ret_fds[--opened]);
    return r;
}

int listen_socket_open_beside(const char *address, uint16_t port, int backlog, const struct net_keepalive *k,
                              unsigned n, int *ret_fds)
{
    return n > 0 ? open_rest(address, port, backlog, k, 0, n, ret_fds) : -EINVAL;
}

/* The first one listens before it shares the port: with SO_REUSEPORT from the beginning nobody would notice
 * that another process of this user, with SO_REUSEPORT too, has it already. The kernel takes it into the
 * group when the next one joins (since Linux 4.20). */
int listen_socket_open_several(const char *address, uint16_t port, int backlog, const struct net_keepalive *k,
                               unsigned n, int *ret_fds)
{
    int r = n > 0 ? open_first(address, port, backlog, k) : -EINVAL;

    if (r < 0)
        return r;
    ret_fds[0] = r;
    r = n > 1 ? listen_socket_share(ret_fds[0]) : 0;
    if (r == 0)
        return open_rest(address, port, backlog, k, 1, n, ret_fds);
    close(ret_fds[0]);
    return r;
}

/* ---- Unix sockets */

#define UNIX_PREFIX     "unix:"
#define UNIX_PREFIX_LEN 5

bool listen_socket_is_unix(const char *address)
{
    return strncmp(address, UNIX_PREFIX, UNIX_PREFIX_LEN) == 0;
}

static int parse_unix(const char *address, union any_address *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->un.sun_family = AF_UNIX;
    if (!listen_socket_is_unix(address) || address[UNIX_PREFIX_LEN] != '/')
        return -EINVAL;
    size_t len = strlen(address + UNIX_PREFIX_LEN);
    if (len >= sizeof ret->un.sun_path)
        return -ENAMETOOLONG;
    memcpy(ret->un.sun_path, address + UNIX_PREFIX_LEN, len + 1);
    return 0;
}

static int unix_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd < 0 ? -errno : fd;
}

/* 0: nobody has this file open any more; -EADDRINUSE: somebody answers, or would if its queue were not full;
 * other -errno: it cannot be found out. */
static int is_left_behind(const union any_address *a)
{
    int fd = unix_socket(), err = 0;
    if (fd < 0)
        return fd;
    if (connect(fd, &a->sa, sizeof a->un) < 0)
        err = errno;
    close(fd);
    switch (err) {
    case ECONNREFUSED: return 0;
    case 0:
    case EAGAIN:
    case EPROTOTYPE: return -EADDRINUSE;
    default: return -err;
    }
}

/* Out of the way with what a dead process has left. */
static int clear_place(const union any_address *a)
{
    struct stat st;
    if (lstat(a->un.sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;
    int r = is_left_behind(a);
    if (r < 0)
        return r;
    return unlink(a->un.sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

/* With the permissions from its first moment on; the umask alone would not do where the folder has a default
 * ACL. */
static int bind_file(int fd, const union any_address *a, mode_t mode)
{
    mode_t before = umask(~mode & 0777);
    int r = bind(fd, &a->sa, sizeof a->un) < 0 ? -errno : 0;
    umask(before);
    if (r == 0 && chmod(a->un.sun_path, mode) < 0) {
        r = -errno;
        unlink(a->un.sun_path);
    }
    return r;
}

static int bind_and_listen_unix(int fd, const union any_address *a, int backlog, mode_t mode,
                                struct listen_socket_file *ret_file)
{
    struct stat st;
    int r = clear_place(a);
    if (r == 0)
        r = bind_file(fd, a, mode);
    if (r < 0)
        return r;
    if (listen(fd, backlog) < 0 || lstat(a->un.sun_path, &st) < 0) {
        r = -errno;
        unlink(a->un.sun_path);
        return r;
    }
    *ret_file = (struct listen_socket_file){.dev = st.st_dev, .ino = st.st_ino};
    return 0;
}

/* Two that start at once would both find the same file left behind, and the later one would remove what the
 * earlier one has made. The lock goes with the descriptor. */
static int lock_folder(const union any_address *a)
{
    char folder[sizeof a->un.sun_path];
    size_t len = (size_t)(strrchr(a->un.sun_path, '/') - a->un.sun_path);

    memcpy(folder, a->un.sun_path, len);
    memcpy(folder + len, len == 0 ? "/" : "", len == 0 ? 2 : 1);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    int err = errno;
    close(fd);
    return err == EWOULDBLOCK ? -EBUSY : -err;
}

int listen_socket_open_unix(const char *address, int backlog, mode_t mode,
                            struct listen_socket_file *ret_file)
{
    union any_address a;
    int r = parse_unix(address, &a);
    int lock = r < 0 ? r : lock_folder(&a);
    int fd = lock < 0 ? lock : unix_socket();

    r = fd < 0 ? fd : bind_and_listen_unix(fd, &a, backlog, mode, ret_file);
    if (lock >= 0)
        close(lock);
    if (r < 0 && fd >= 0)
        close(fd);
    return r < 0 ? r : fd;
}

void listen_socket_remove_file(const char *address, const struct listen_socket_file *file)
{
    union any_address a;
    struct stat st;

    if (parse_unix(address, &a) == 0 && lstat(a.un.sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
        st.st_dev == file->dev && st.st_ino == file->ino)
        unlink(a.un.sun_path);
}

/* ---- words */

static char *explain_unix(int err, const char *address, char *buf, size_t cap)
{
    const char *path = address + UNIX_PREFIX_LEN;
    switch (err) {
    case -EADDRINUSE:
        snprintf(
            buf, cap,
            "%s is in use; expected a path that nobody listens on: see who does with: ss -lxp src %s, then "
            "stop that or choose another path",
            address, path);
        break;
    case -EEXIST:
        snprintf(buf, cap,
                 "%s exists and is no socket; expected a path for a new one, or of one that was left behind",
                 path);
        break;
    case -ENOENT:
    case -ENOTDIR:
        snprintf(buf, cap, "the folder of %s does not exist; expected one, as mkdir -p would make it", path);
        break;
    case -EACCES:
    case -EPERM:
    case -EROFS:
        snprintf(buf, cap,
                 "not allowed to make %s; expected a folder that this user may write to (and, if the file is "
                 "there already, to be allowed to connect to it and to remove it)",
                 path);
        break;
    case -EBUSY:
        snprintf(buf, cap,
                 "the folder of %s is locked by another process; expected no other gateway that starts in it "
                 "just now: try again",
                 path);
        break;
    case -EINVAL:
    case -ENAMETOOLONG:
        snprintf(buf, cap,
                 "%s is no path for a socket; expected unix: and an absolute path of at most %zu bytes",
                 address, sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
        break;
    default: snprintf(buf, cap, "cannot listen on %s: %s", address, strerror(-err)); break;
    }
    return buf;
}

char *listen_socket_explain(int err, const char *address, uint16_t port, char *buf, size_t cap)
{
    if (listen_socket_is_unix(address))
        return explain_unix(err, address, buf, cap);
    switch (err) {
    case -EADDRINUSE:
        snprintf(buf, cap,
                 "%s port %u is in use; expected a free port: see who has it with: ss -ltnp 'sport = :%u', "
                 "then stop "
                 "that or choose another port",
                 address, port, port);
        break;
    case -EADDRNOTAVAIL:
        snprintf(buf, cap, "%s is not an address of this machine; expected one of those that ip addr shows",
                 address);
        break;
    case -EACCES:
        snprintf(buf, cap,
                 "not allowed to listen on %s port %u; expected a port from 1024 on, or root, or "
                 "CAP_NET_BIND_SERVICE",
                 address, port);
        break;
    default: snprintf(buf, cap, "cannot listen on %s port %u: %s", address, port, strerror(-err)); break;
    }
    return buf;
}
