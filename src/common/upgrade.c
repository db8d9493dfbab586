// SPDX-License-Identifier: MIT
#include "common/upgrade.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/assert.h"

/* ---- the page */

static_assert(offsetof(struct upgrade_page, outcome) == 8, "page layout");
static_assert(offsetof(struct upgrade_page, edges) == 16, "page layout");
static_assert(offsetof(struct upgrade_page, same) == 32, "page layout");
static_assert(offsetof(struct upgrade_page, home) == 128, "page layout");
static_assert(sizeof(struct upgrade_page) == 128 + 4096, "page layout");

/* Whoever maps it must not be made to fault by another who cuts it short. */
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int map(int fd, struct upgrade_page **ret)
{
    struct upgrade_page *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *ret = p;
    return 0;
}

int upgrade_page_make(struct upgrade_page **ret)
{
    int fd = memfd_create("tgg-upgrade", MFD_CLOEXEC | MFD_ALLOW_SEALING), r;
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, sizeof **ret) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        r = -errno;
    else
        r = map(fd, ret);
    if (r < 0) {
        close(fd);
        return r;
    }
    (*ret)->magic = UPGRADE_PAGE_MAGIC;
    return fd;
}

static bool has(uint64_t shards, unsigned i)
{
    return i < NODE_SHARDS_MAX && (shards >> i & 1) != 0;
}

/* Each id is at an edge, or, in a row whose shard is none, has never been given (node_home_plan); and each
 * edge has some to give. */
static bool home_is_good(const struct node_home *h, uint64_t edges)
{
    uint64_t may_give = 0;
    for (unsigned i = 0; i < sizeof h->shard; i++) {
        unsigned row = i / NODE_HOME_PARTS, shard = h->shard[i];
        if (shard != row && !has(edges, shard))
            return false;
        if (shard == row)
            may_give |= UINT64_C(1) << row;
    }
    return (edges & ~may_give) == 0;
}

static bool page_is_good(const struct upgrade_page *p)
{
    if (p->magic != UPGRADE_PAGE_MAGIC || p->n_shards == 0 || p->n_shards > NODE_SHARDS_MAX || p->same > 1 ||
        p->within > 2)
        return false;
    uint64_t all = UINT64_MAX >> (NODE_SHARDS_MAX - p->n_shards);
    return p->edges != 0 && p->links != 0 && ((p->edges | p->links) & ~all) == 0 &&
           home_is_good(&p->home, p->edges);
}

int upgrade_page_open(int fd, struct upgrade_page **ret)
{
    struct upgrade_page *p = NULL;
    struct stat st;
    int r;

    if (fstat(fd, &st) < 0)
        return -errno;
    int seals = fcntl(fd, F_GET_SEALS);
    if (st.st_size != (off_t)sizeof *p || seals < 0 || (seals & SEALS) != SEALS)
        return -EPROTO;
    if ((r = map(fd, &p)) < 0)
        return r;
    if (!page_is_good(p)) {
        upgrade_page_close(p);
        return -EPROTO;
    }
    *ret = p;
    return 0;
}

void upgrade_page_close(struct upgrade_page *p)
{
    if (p != NULL)
        munmap(p, sizeof *p);
}

/* A word that nobody of us wrote: whoever reads it gives up, so that all agree. */
static enum upgrade_outcome outcome_of(uint32_t word)
{
    return word == UPGRADE_OPEN || word == UPGRADE_COMMITTED ? (enum upgrade_outcome)word : UPGRADE_ABANDONED;
}

enum upgrade_outcome upgrade_page_decide(struct upgrade_page *p, enum upgrade_outcome wish)
{
    uint32_t was = UPGRADE_OPEN;

    ASSERT(wish == UPGRADE_COMMITTED || wish == UPGRADE_ABANDONED);
    /* Release: whoever sees the word (upgrade_page_outcome, or here in vain) sees what was written to shared
     * memory before it was decided; acquire: so do we if somebody else was first. */
    if (__atomic_compare_exchange_n(&p->outcome, &was, (uint32_t)wish, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE))
        return wish;
    return outcome_of(was);
}

enum upgrade_outcome upgrade_page_outcome(const struct upgrade_page *p)
{
    /* Acquire: partner of upgrade_page_decide. */
    return outcome_of(__atomic_load_n(&p->outcome, __ATOMIC_ACQUIRE));
}

/* ---- messages */

#define MESSAGE_BYTES offsetof(struct upgrade_message, n_fds)
static_assert(MESSAGE_BYTES == 32 + UPGRADE_TEXT_MAX, "no padding");

union fd_control {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(UPGRADE_FDS_MAX * sizeof(int))];
};

int upgrade_open(int ret[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret) == 0 ? 0 : -errno;
}

static void add_fds(struct msghdr *msg, union fd_control *control, const int *fds, unsigned n)
{
    *msg = (struct msghdr){.msg_iov = msg->msg_iov,
                           .msg_iovlen = msg->msg_iovlen,
                           .msg_control = control,
                           .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
}

int upgrade_send(int fd, const struct upgrade_message *m)
{
    struct iovec iov = {(void *)(uintptr_t)m, MESSAGE_BYTES};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    union fd_control control = {0};
    ssize_t n;

    ASSERT(m->op < UPGRADE_OP_N && m->n_fds <= UPGRADE_FDS_MAX);
    ASSERT(memchr(m->text, '\0', sizeof m->text) != NULL);
    if (m->n_fds > 0)
        add_fds(&msg, &control, m->fds, m->n_fds);
    do
        n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? -EPIPE : -errno;
    return n == (ssize_t)MESSAGE_BYTES ? 0 : -EIO;
}

static void take_fds(struct msghdr *msg, struct upgrade_message *m)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        ASSERT(n <= UPGRADE_FDS_MAX - m->n_fds); /* the kernel had no room for more */
        memcpy(&m->fds[m->n_fds], CMSG_DATA(c), n * sizeof(int));
        m->n_fds += (uint32_t)n;
    }
}

static int check(const struct upgrade_message *m, size_t len, int flags)
{
    if ((flags & MSG_CTRUNC) != 0)
        return -EMFILE;
    if (len != MESSAGE_BYTES || (flags & MSG_TRUNC) != 0 || m->op >= UPGRADE_OP_N ||
        memchr(m->text, '\0', sizeof m->text) == NULL)
        return -EBADMSG;
    return 0;
}

int upgrade_receive(int fd, struct upgrade_message *ret)
{
    struct upgrade_message m;
    struct iovec iov = {&m, MESSAGE_BYTES};
    union fd_control control;
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof m.fds)};
    ssize_t n;

    do
        n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return errno == ECONNRESET ? -EPIPE : -errno;
    m.n_fds = 0;
    take_fds(&msg, &m);
    int r = n == 0 ? -EPIPE : check(&m, (size_t)n, msg.msg_flags);
    if (r == 0) {
        *ret = m;
        return 0;
    }
    for (unsigned i = 0; i < m.n_fds; i++)
        close(m.fds[i]);
    return r;
}

const char *upgrade_op_name(unsigned op)
{
    static const char *const names[UPGRADE_OP_N] = {
        [UPGRADE_HOLD] = "hold",         [UPGRADE_STOP] = "stop",     [UPGRADE_RESUME] = "resume",
        [UPGRADE_PLAN] = "plan",         [UPGRADE_EXPORT] = "export", [UPGRADE_LEAVE] = "leave",
        [UPGRADE_THAW] = "thaw",         [UPGRADE_QUIET] = "quiet",   [UPGRADE_STOPPED] = "stopped",
        [UPGRADE_EXPORTED] = "exported", [UPGRADE_THAWED] = "thawed", [UPGRADE_READY] = "ready",
        [UPGRADE_IMPORTED] = "imported", [UPGRADE_TAKE] = "take",     [UPGRADE_GO] = "go",
        [UPGRADE_FAILED] = "failed",
    };
    return op < UPGRADE_OP_N ? names[op] : "unknown";
}
