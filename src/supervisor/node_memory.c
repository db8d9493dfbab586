// SPDX-License-Identifier: MIT
#include "supervisor/node_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/control.h"
#include "common/file_limit.h"
#include "common/settings.h"
#include "common/ticket_keys.h"
#include "common/upgrade.h"
#include "estate/estate.h"
#include "guard/guard_shm.h"
#include "mesh/mesh.h"
#include "transfer/transfer.h"

/* Sessions and unwritten packets of one process, at the most. */
#define ESTATE_HEAP_BYTES ((size_t)4 << 30)

/* NULL without address space. Not in core files: a walk over it would take minutes. */
static void *map_sparse(size_t bytes)
{
    void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem == MAP_FAILED)
        return NULL;
    madvise(mem, bytes, MADV_DONTDUMP);
    return mem;
}

static int make_guard(struct node *n)
{
    n->guard_bytes = guard_shm_bytes(n->n_shards, n->max_clients);
    void *mem = map_sparse(n->guard_bytes);
    if (mem == NULL)
        return -ENOMEM;
    n->guard = guard_shm_init(mem, n->n_shards, n->max_clients);
    return 0;
}

static int make_memory(struct node *n)
{
    n->shared = node_shared_new();
    n->tickets = map_sparse(sizeof *n->tickets);
    if (n->shared == NULL || n->tickets == NULL || make_guard(n) < 0)
        return -ENOMEM;
    /* One shard alone has nobody to talk to. */
    if (n->n_shards > 1 && (n->mesh = map_sparse(mesh_bytes(n->n_shards, n->ring_bytes))) == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < n->n_shards; i++) {
        n->estates[i] = map_sparse(n->estate_bytes);
        if (n->estates[i] == NULL)
            return -ENOMEM;
    }
    return 0;
}

static void no_descriptors(struct node *n)
{
    memset(n->wake_fds, 0xff, sizeof n->wake_fds); /* -1 */
    memset(n->hand_fds, 0xff, sizeof n->hand_fds);
    memset(n->settings_fds, 0xff, sizeof n->settings_fds);
    memset(n->control_fds, 0xff, sizeof n->control_fds);
    memset(n->upgrade_fds, 0xff, sizeof n->upgrade_fds);
    memset(n->import_fds, 0xff, sizeof n->import_fds);
}

static int make_descriptors(struct node *n, bool with_admin)
{
    for (unsigned i = 0; i < n->n_shards; i++) {
        n->wake_fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        if (n->wake_fds[i] < 0)
            return -errno;
        int err = node_hand_open(n->hand_fds[i]);
        if (err == 0)
            err = settings_open(n->settings_fds[i]);
        if (err == 0)
            err = upgrade_open(n->upgrade_fds[i]);
        if (err == 0)
            err = transfer_open(n->import_fds[i]);
        if (err == 0 && with_admin)
            err = control_open(n->control_fds[i]);
        if (err != 0)
            return err;
    }
    return with_admin ? settings_open(n->settings_fds[n->n_shards]) : 0;
}

int node_memory_make(const struct config *cfg, unsigned n_shards, struct node *ret, struct config_error *err)
{
    struct node n = {
        .n_shards = n_shards,
        .ring_bytes = cfg->gateway.ring_size,
        .estate_heap_bytes = ESTATE_HEAP_BYTES,
        .max_clients = file_limit_clients(cfg, n_shards),
    };
    n.estate_bytes = estate_bytes(n.max_clients, n.estate_heap_bytes);
    no_descriptors(&n);
    int r = make_memory(&n);
    if (r < 0)
        config_error_add(err, 0, "", "",
                         "no address space for what %u shards share (about %zu GiB, of which almost nothing "
                         "becomes memory); expected no limit (ulimit -v) and vm.overcommit_memory 0 or 1",
                         n_shards, n_shards * (n.estate_bytes >> 30) + 1);
    if (r == 0 && (r = make_descriptors(&n, cfg->admin.enabled)) < 0)
        config_error_add(err, 0, "", "", "no descriptors for %u shards: %s", n_shards, strerror(-r));
    if (r < 0) {
        node_memory_free(&n);
        return r;
    }
    *ret = n;
    return 0;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void close_pair(int fds[2])
{
    close_fd(&fds[0]);
    close_fd(&fds[1]);
}

static void unmap(void **mem, size_t bytes)
{
    if (*mem != NULL)
        munmap(*mem, bytes);
    *mem = NULL;
}

static void unmap_estate(struct node *n, unsigned shard)
{
    unmap(&n->estates[shard], n->estate_bytes);
}

/* But guard, figures and the ends of the admin process. */
static void free_for_shards(struct node *n)
{
    for (unsigned i = 0; i < n->n_shards; i++) {
        unmap_estate(n, i);
        close_fd(&n->wake_fds[i]);
        close_pair(n->hand_fds[i]);
        close_pair(n->settings_fds[i]);
        close_pair(n->upgrade_fds[i]);
        close_pair(n->import_fds[i]);
        close_fd(&n->control_fds[i][0]);
    }
    close_fd(&n->settings_fds[n->n_shards][1]);
    unmap((void **)&n->tickets, sizeof *n->tickets);
    if (n->mesh != NULL)
        munmap(n->mesh, mesh_bytes(n->n_shards, n->ring_bytes));
    n->mesh = NULL;
}

void node_memory_free(struct node *n)
{
    if (n->n_shards == 0)
        return;
    free_for_shards(n);
    for (unsigned i = 0; i < n->n_shards; i++)
        close_fd(&n->control_fds[i][1]);
    close_pair(n->settings_fds[n->n_shards]);
    unmap((void **)&n->guard, n->guard_bytes);
    node_shared_free(n->shared);
    *n = (struct node){0};
}

void node_memory_keep(struct node *n, unsigned shard)
{
    mprotect(n->tickets, sizeof *n->tickets, PROT_READ);
    close_pair(n->settings_fds[n->n_shards]);
    for (unsigned i = 0; i < n->n_shards; i++) {
        close_fd(&n->settings_fds[i][1]);
        close_fd(&n->control_fds[i][1]);
        close_fd(&n->upgrade_fds[i][1]);
        close_fd(&n->import_fds[i][1]);
        if (i == shard)
            continue;
        unmap_estate(n, i);
        close_fd(&n->hand_fds[i][0]);
        close_fd(&n->settings_fds[i][0]);
        close_fd(&n->upgrade_fds[i][0]);
        close_fd(&n->import_fds[i][0]);
        close_fd(&n->control_fds[i][0]);
    }
}

void node_memory_keep_admin(struct node *n)
{
    free_for_shards(n);
    close_fd(&n->settings_fds[n->n_shards][1]);
    mprotect(n->guard, n->guard_bytes, PROT_READ);
    mprotect(n->shared, sizeof *n->shared, PROT_READ);
}
