// SPDX-License-Identifier: MIT
#include "supervisor/admin_ports.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"

#define BACKLOG       128
#define TOKEN_BYTES   32 /* of chance */
#define TOKEN_LEN_MIN 16

/* ---- the token */

int admin_token_path(const struct config *cfg, char *buf, size_t cap)
{
    return snprintf(buf, cap, "%s/admin.token", cfg->gateway.runtime_dir) < (int)cap ? 0 : -ENAMETOOLONG;
}

/* What somebody else could have put there is none. */
static bool is_trusted(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 022) == 0;
}

static size_t token_len(const char *text, size_t len)
{
    size_t n = 0;
    while (n < len && text[n] > 0x20 && text[n] < 0x7f)
        n++;
    for (size_t i = n; i < len; i++) {
        if (text[i] != '\n')
            return 0;
    }
    return n >= TOKEN_LEN_MIN && n <= ADMIN_TOKEN_MAX ? n : 0;
}

static bool read_token(const char *path, char ret[ADMIN_TOKEN_MAX + 1])
{
    char text[ADMIN_TOKEN_MAX + 8];
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = is_trusted(fd) ? read(fd, text, sizeof text) : -1;
    close(fd);
    size_t len = n > 0 ? token_len(text, (size_t)n) : 0;
    if (len > 0) {
        memcpy(ret, text, len);
        ret[len] = '\0';
    }
    explicit_bzero(text, sizeof text);
    return len > 0;
}

static void make_token(char ret[ADMIN_TOKEN_MAX + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t bytes[TOKEN_BYTES];
    /* Never short for so few bytes; without chance there is no token worth its name. */
    ASSERT(getrandom(bytes, sizeof bytes, 0) == (ssize_t)sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i++) {
        ret[2 * i] = digits[bytes[i] >> 4];
        ret[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret[2 * sizeof bytes] = '\0';
    explicit_bzero(bytes, sizeof bytes);
}

static int write_token(const char *path, const char *token)
{
    int r = 0;
    char line[ADMIN_TOKEN_MAX +
              2]; /* not printf's: that leaves it on the stack, which children get a copy of */
    size_t len = strlen(token);
    (void)unlink(path); /* of one that died here */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    memcpy(line, token, len);
    line[len] = '\n';
    if (write(fd, line, len + 1) != (ssize_t)len + 1)
        r = errno != 0 ? -errno : -EIO;
    explicit_bzero(line, sizeof line);
    close(fd);
    return r;
}

/* Whole or not at all, for whoever reads it. */
static int keep_token(const char *path, const char *token)
{
    char new[PATH_MAX];
    if (snprintf(new, sizeof new, "%s.new", path) >= (int)sizeof new)
        return -ENAMETOOLONG;
    int r = write_token(new, token);
    if (r == 0 && rename(new, path) < 0)
        r = -errno;
    return r;
}

int admin_token_get(const char *path, char ret[ADMIN_TOKEN_MAX + 1])
{
    if (read_token(path, ret))
        return 0;
    make_token(ret);
    return keep_token(path, ret);
}

static void find_token(const struct config *cfg, struct admin_ports *p)
{
    char path[PATH_MAX];
    if (cfg->admin.token[0] != '\0') {
        snprintf(p->token, sizeof p->token, "%s", cfg->admin.token);
        return;
    }
    int r = admin_token_path(cfg, path, sizeof path);
    if (r == 0)
        r = admin_token_get(path, p->token);
    else
        make_token(p->token);
    if (r < 0)
        LOG(LOG_WARN, "admin_token_not_kept",
            "path=\"%s\" error=\"%s\" note=\"nobody knows the token of the admin port; set [admin] token\"",
            path, strerror(-r));
}

/* ---- the sockets */

void admin_ports_init(struct admin_ports *p)
{
    *p = (struct admin_ports){.socket_fd = -1, .http_fd = -1};
}

static int find_address(const struct config *cfg, struct admin_ports *p)
{
    bool own = cfg->admin.socket[0] != '\0';
    int n = snprintf(p->address, sizeof p->address, "unix:%s%s",
                     own ? cfg->admin.socket : cfg->gateway.runtime_dir, own ? "" : "/admin.sock");
    return n < (int)sizeof p->address ? 0 : -ENAMETOOLONG;
}

static mode_t mode_of(const struct config *cfg)
{
    return (mode_t)strtoul(cfg->admin.socket_mode, NULL, 8) & 0777; /* config_check has looked at it */
}

static void give_socket(const struct admin_ports *p, gid_t gid)
{
    if (gid != (gid_t)-1 && lchown(p->address + strlen("unix:"), (uid_t)-1, gid) < 0)
        LOG(LOG_WARN, "admin_socket_not_given", "group=%u error=\"%s\"", (unsigned)gid, strerror(errno));
}

static bool inherit_socket(struct admin_ports_inherited *inherited, struct admin_ports *p)
{
    if (inherited == NULL || inherited->socket_fd < 0 || strcmp(inherited->socket_address, p->address) != 0)
        return false;
    p->socket_fd = inherited->socket_fd;
    p->file = inherited->file;
    p->inherited = true;
    inherited->socket_fd = -1;
    return true;
}

static void open_socket(const struct config *cfg, gid_t gid, struct admin_ports_inherited *inherited,
                        struct admin_ports *p)
{
    char why[512];
    int r = find_address(cfg, p);

    if (r == 0 && inherit_socket(inherited, p))
        return;
    if (r == 0)
        r = p->socket_fd = listen_socket_open_unix(p->address, BACKLOG, mode_of(cfg), &p->file);
    if (r < 0) {
        LOG(LOG_WARN, "admin_socket_not_opened", "error=\"%s\" note=\"tgg ctl does not reach this gateway\"",
            listen_socket_explain(r, p->address, 0, why, sizeof why));
        p->socket_fd = -1;
        return;
    }
    give_socket(p, gid);
}

static int inherit_port(const struct config_admin *a, struct admin_ports_inherited *inherited)
{
    if (inherited == NULL || inherited->http_fd < 0 || inherited->http_port != a->port ||
        strcmp(inherited->http_address, a->address) != 0)
        return -1;
    int fd = inherited->http_fd;
    inherited->http_fd = -1;
    return fd;
}

static int open_port(const struct config *cfg, struct admin_ports_inherited *inherited, struct admin_ports *p,
                     struct config_error *err)
{
    const struct config_admin *a = &cfg->admin;
    char why[320];
    int r = inherit_port(a, inherited);

    if (r < 0)
        r = listen_socket_open(a->address, (uint16_t)a->port, BACKLOG);

    if (r < 0) {
        bool address = r == -EADDRNOTAVAIL || r == -EINVAL;
        config_error_add(err, address ? a->line.address : a->line.port, "admin", address ? "address" : "port",
                         "%s", listen_socket_explain(r, a->address, (uint16_t)a->port, why, sizeof why));
        return r;
    }
    p->http_fd = r;
    find_token(cfg, p);
    return 0;
}

/* What calls that have returned left below us: children get a copy of it. */
static __attribute__((noinline)) void wipe_dead_stack(void)
{
    char area[32768];
    explicit_bzero(area, sizeof area);
}

int admin_ports_open(const struct config *cfg, gid_t gid, struct admin_ports_inherited *inherited,
                     struct admin_ports *ret, struct config_error *err)
{
    int r = 0;

    admin_ports_init(ret);
    ret->opener = getpid();
    if (cfg->admin.enabled && cfg->admin.port != 0)
        r = open_port(cfg, inherited, ret, err);
    wipe_dead_stack(); /* the token */
    if (r < 0) {
        admin_ports_init(ret);
        return r;
    }
    if (cfg->admin.enabled)
        open_socket(cfg, gid, inherited, ret);
    return 0;
}

/* ---- an upgrade */

void admin_ports_inherited_init(struct admin_ports_inherited *i)
{
    *i = (struct admin_ports_inherited){.socket_fd = -1, .http_fd = -1};
}

void admin_ports_inherited_close(struct admin_ports_inherited *i)
{
    if (i->socket_fd >= 0)
        close(i->socket_fd);
    if (i->http_fd >= 0)
        close(i->http_fd);
    admin_ports_inherited_init(i);
}

void admin_ports_settle(const struct config *cfg, gid_t gid, struct admin_ports_inherited *inherited,
                        struct admin_ports *p)
{
    if (p->inherited && chmod(p->address + strlen("unix:"), mode_of(cfg)) < 0)
        LOG(LOG_WARN, "admin_socket_not_adjusted", "error=\"%s\"", strerror(errno));
    if (p->inherited)
        give_socket(p, gid);
    p->inherited = false;
    if (inherited->socket_fd >= 0)
        listen_socket_remove_file(inherited->socket_address, &inherited->file);
    admin_ports_inherited_close(inherited);
}

void admin_ports_disown(struct admin_ports *p)
{
    p->opener = 0;
}

void admin_ports_close(struct admin_ports *p)
{
    if (p->socket_fd >= 0 && p->opener == getpid() && !p->inherited)
        listen_socket_remove_file(p->address, &p->file);
    if (p->socket_fd >= 0)
        close(p->socket_fd);
    if (p->http_fd >= 0)
        close(p->http_fd);
    explicit_bzero(p, sizeof *p);
    admin_ports_init(p);
}
