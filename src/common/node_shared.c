// SPDX-License-Identifier: MIT
#include "common/node_shared.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

/* Not datagrams: of those a socket holds net.unix.max_dgram_qlen, often 10; of these some 270. */
int node_hand_open(int ret[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ret) == 0 ? 0 : -errno;
}

_Static_assert(sizeof(struct node_hand) == 8, "no padding");

int node_hand_give(int to, const struct node_hand *what, int fd)
{
    union {
        struct cmsghdr head;
        uint8_t bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {(void *)(uintptr_t)what, sizeof *what};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    control.head.cmsg_level = SOL_SOCKET;
    control.head.cmsg_type = SCM_RIGHTS;
    control.head.cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
    return sendmsg(to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof *what ? 0 : -errno;
}

#define PAGE UINT64_C(4096)

/* The whole pages within that memory. */
static void *whole_pages(void *mem, size_t len, size_t *ret_len)
{
    uintptr_t from = ((uintptr_t)mem + PAGE - 1) & ~(PAGE - 1);
    *ret_len = (((uintptr_t)mem + len) & ~(PAGE - 1)) - from;
    return (void *)from;
}

struct node_shared *node_shared_new(void)
{
    size_t len;
    struct node_shared *n =
        mmap(NULL, sizeof *n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (n == MAP_FAILED)
        return NULL;
    node_home_init(&n->home);
    /* A core file of a shard would else have 128 MiB of them, and writing it make memory of all. */
    void *filters = whole_pages(n->names, sizeof n->names, &len);
    madvise(filters, len, MADV_DONTDUMP);
    return n;
}

void node_shared_free(struct node_shared *n)
{
    if (n != NULL)
        munmap(n, sizeof *n);
}

/* Whole pages go back to the kernel, which gives zeros afterwards; without that the bytes are cleared. */
static void clear_filters(void *mem, size_t len)
{
    size_t pages_len;
    uint8_t *pages = whole_pages(mem, len, &pages_len), *end = (uint8_t *)mem + len;
    memset(mem, 0, (size_t)(pages - (uint8_t *)mem));
    if (madvise(pages, pages_len, MADV_REMOVE) != 0)
        memset(pages, 0, pages_len);
    memset(pages + pages_len, 0, (size_t)(end - (pages + pages_len)));
}

void node_shared_bury(struct node_shared *n, unsigned shard)
{
    struct node_shard *s = &n->shards[shard];
    node_choice_end(n, shard); /* it may have died in the middle of one */
    NODE_STORE(s->phase, NODE_DOWN);
    NODE_STORE(s->clients, 0);
    NODE_STORE(s->links, 0);
    NODE_STORE(s->members, 0);
    node_shard_took_settings(s, UINT64_MAX, 0);
    /* Connections that were given to it and not taken are lost with it, or taken by its successor. */
    for (unsigned i = 0; i < NODE_SHARDS_MAX; i++) {
        NODE_STORE(s->client_handoff.taken[i], NODE_LOAD(n->shards[i].client_handoff.handed[shard]));
        NODE_STORE(s->link_handoff.taken[i], NODE_LOAD(n->shards[i].link_handoff.handed[shard]));
    }
    for (unsigned i = 0; i < NODE_WORKERS_MAX; i++)
        if (NODE_LOAD(n->workers[i].clients[shard]) != 0)
            NODE_STORE(n->workers[i].clients[shard], 0);
    clear_filters(&n->names[shard], sizeof n->names[shard]);
    NODE_STORE(n->deaths_of[shard], n->deaths_of[shard] + 1);
    /* Release: whoever sees the new count sees what is above. */
    __atomic_store_n(&n->deaths, n->deaths + 1, __ATOMIC_RELEASE);
}
