// SPDX-License-Identifier: MIT
#include "common/node_shm.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "common/dirs.h"

/* What of a shard's block a later run takes over. */
#define IDS_BYTES offsetof(struct shard_shm, state)

const char *process_kind_name(enum process_kind kind)
{
    static const char *const names[PROCESS_KIND_N] = {"supervisor", "announcer", "shard", "admin"};
    return names[kind];
}

const char *process_state_name(uint32_t state)
{
    static const char *const names[PROCESS_STATE_N] = {"none", "alive", "stuck", "dead", "ended"};
    return state < PROCESS_STATE_N ? names[state] : "?";
}

void node_shm_sum(const struct node_shm *shm, struct counters *ret)
{
    memset(ret, 0, sizeof *ret);
    for (unsigned id = 0; id < COUNTER_N; id++) {
        uint64_t sum = counter_get(&shm->announcer.counters, (enum counter_id)id);
        for (unsigned i = 0; i < shm->n_shards; i++)
            sum += counter_get(&shm->blocks[i].shm.counters, (enum counter_id)id);
        ret->v[id] = sum;
    }
}

void node_shm_take_log_level(const struct node_shm *shm)
{
    uint32_t level = __atomic_load_n(&shm->log_level, __ATOMIC_RELAXED);
    if (level > LOG_ERROR && level <= LOG_DEBUG + 1)
        log_level_now = (enum log_level)(level - 1);
}

void node_shm_set_log_level(struct node_shm *shm, enum log_level level)
{
    __atomic_store_n(&shm->log_level, (uint32_t)level + 1, __ATOMIC_RELAXED); /* partner: take_log_level */
    log_level_now = level;
}

/* ---- making it */

static void init_tables(struct node_shm *shm, const struct shard_plan *plan)
{
    shm->processes[NODE_PROCESS_SUPERVISOR].kind = PROCESS_SUPERVISOR;
    shm->processes[NODE_PROCESS_ANNOUNCER].kind = PROCESS_ANNOUNCER;
    shm->processes[NODE_PROCESS_ADMIN].kind = PROCESS_ADMIN;
    for (unsigned i = 0; i < plan->n; i++) {
        shm->processes[NODE_PROCESS_SHARDS + i].kind = PROCESS_SHARD;
        shm->processes[NODE_PROCESS_SHARDS + i].number = i;
        shm->shards[i].cpu = plan->shards[i].cpu;
        shm->shards[i].roles =
            (plan->shards[i].edge ? NODE_ROLE_EDGE : 0) | (plan->shards[i].link ? NODE_ROLE_LINK : 0);
    }
}

/* So that a reader needs no table of ours. */
static void init_names(struct node_shm *shm)
{
    size_t at = 0;
    memset(shm->counter_names, 0, sizeof shm->counter_names);
    for (unsigned id = 0; id < COUNTER_N; id++) {
        size_t len = strlen(counter_infos[id].name) + 1;
        ASSERT(at + len <= sizeof shm->counter_names);
        memcpy(shm->counter_names + at, counter_infos[id].name, len);
        at += len;
    }
}

/* Everything but the blocks of shards. The magic last: a reader does not take half of it for the whole. */
static void init_head(struct node_shm *shm, const struct shard_plan *plan)
{
    memset(shm, 0, offsetof(struct node_shm, blocks));
    shm->version = NODE_SHM_VERSION;
    shm->size = sizeof *shm;
    shm->counters_layout = counters_layout();
    shm->counters_n = COUNTER_N;
    shm->block_bytes = NODE_SHM_BLOCK;
    shm->n_shards = plan->n;
    init_tables(shm, plan);
    init_names(shm);
    __atomic_store_n(&shm->magic, NODE_SHM_MAGIC, __ATOMIC_RELEASE); /* partner: map_checked */
}

/* Returns whether its ids go on. */
static bool init_shard(struct shard_shm *shm, unsigned shard, bool is_ours)
{
    bool continued =
        is_ours && shm->shard == shard && shm->next_seq != 0 && shm->next_seq <= CONNECTION_SEQ_MASK;
    if (!continued) {
        shard_shm_init(shm, shard, shard_shm_clock_seq(time(NULL)));
        return false;
    }
    memset((uint8_t *)shm + IDS_BYTES, 0, sizeof *shm - IDS_BYTES);
    return true;
}

/* ---- the file */

#define FILE_NAME "node.shm"
#define FILE_NEXT "node.shm.next"

static int path_of(const char *dir, const char *name, char *buf, size_t cap)
{
    return snprintf(buf, cap, "%s/%s", dir, name) < (int)cap ? 0 : -ENAMETOOLONG;
}

/* The lock belongs to the open file description, which shards inherit: it ends with the last of them, so that
 * nobody takes over a file that an orphaned shard still writes to. */
static int lock_file(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

static bool file_is_locked(int fd)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

#define READ_AT(fd, member, ret)                                                                             \
    (pread(fd, ret, sizeof *(ret), offsetof(struct node_shm, member)) == (ssize_t)sizeof *(ret))

/* Whether an earlier run left ids where we would look for them: version 2 had them in the same place. */
static bool is_ours(int fd)
{
    uint64_t magic;
    uint32_t version, block_bytes;
    return READ_AT(fd, magic, &magic) && magic == NODE_SHM_MAGIC && READ_AT(fd, version, &version) &&
           (version == NODE_SHM_VERSION || version == 2) && READ_AT(fd, block_bytes, &block_bytes) &&
           block_bytes == NODE_SHM_BLOCK;
}

/* As far as it is used: a tmpfs that is full tells it here, not by SIGBUS later. 0 or -errno. */
static int allocate(int fd, unsigned n_shards)
{
    const struct {
        size_t from, len;
    } parts[] = {
        {0, offsetof(struct node_shm, blocks) + n_shards * NODE_SHM_BLOCK},
        {offsetof(struct node_shm, counter_names), NODE_SHM_NAMES},
        {offsetof(struct node_shm, crashes), n_shards * NODE_SHM_BLOCK},
    };
    int r = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0] && r == 0; i++)
        r = posix_fallocate(fd, (off_t)parts[i].from, (off_t)parts[i].len);
    return -r;
}

static int map_file(int fd, unsigned n_shards, struct node_shm **ret)
{
    int r = allocate(fd, n_shards);
    if (r < 0)
        return r;
    if (ftruncate(fd, sizeof **ret) < 0)
        return -errno;
    void *p = mmap(NULL, sizeof **ret, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *ret = p;
    return 0;
}

/* 0, or -errno with nothing left open. */
static int open_locked(const char *dir, const char *name, int *ret)
{
    char path[PATH_MAX];
    int r = make_dirs(dir, 0755);

    if (r < 0 || (r = path_of(dir, name, path, sizeof path)) < 0)
        return r;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return -errno;
    if ((r = lock_file(fd)) < 0)
        close(fd);
    else
        *ret = fd;
    return r;
}

static int create(int fd, const struct shard_plan *plan, bool ours, struct node_shm_file *ret)
{
    struct node_shm *shm = NULL;
    /* What is not ours must not be read as ids of later shards. */
    int r = !ours && ftruncate(fd, 0) < 0 ? -errno : map_file(fd, plan->n, &shm);

    if (r < 0) {
        close(fd);
        return r;
    }
    *ret = (struct node_shm_file){.shm = shm, .fd = fd, .continued = true};
    init_head(shm, plan);
    for (unsigned i = 0; i < plan->n; i++) {
        ret->continued &= init_shard(node_shm_shard(shm, i), i, ours);
        memset(&shm->crashes[i], 0, sizeof shm->crashes[i]);
    }
    return 0;
}

int node_shm_create(const char *dir, const struct shard_plan *plan, struct node_shm_file *ret)
{
    int fd = -1, r = open_locked(dir, FILE_NAME, &fd);
    return r < 0 ? r : create(fd, plan, is_ours(fd), ret);
}

/* ---- beside another one */

int node_shm_create_next(const char *dir, const struct shard_plan *plan, struct node_shm_file *ret)
{
    int fd = -1, r = open_locked(dir, FILE_NEXT, &fd);
    return r < 0 ? r : create(fd, plan, false, ret);
}

int node_shm_commit_next(const char *dir)
{
    char from[PATH_MAX], to[PATH_MAX];
    int r;
    if ((r = path_of(dir, FILE_NEXT, from, sizeof from)) < 0 ||
        (r = path_of(dir, FILE_NAME, to, sizeof to)) < 0)
        return r;
    return rename(from, to) < 0 ? -errno : 0;
}

void node_shm_remove_next(const char *dir)
{
    char path[PATH_MAX];
    if (path_of(dir, FILE_NEXT, path, sizeof path) == 0)
        (void)unlink(path);
}

/* Not by the mapping: to look into a hole of a tmpfs that is full would be our end. */
bool node_shm_get_ids(const struct node_shm_file *f, unsigned shard, struct node_shm_ids *ret)
{
    struct shard_shm ids;
    off_t at = (off_t)(offsetof(struct node_shm, blocks) + shard * sizeof f->shm->blocks[0]);

    ASSERT(shard < NODE_SHARDS_MAX);
    if (f->fd < 0)
        memcpy(&ids, node_shm_shard(f->shm, shard), IDS_BYTES);
    else if (pread(f->fd, &ids, IDS_BYTES, at) != (ssize_t)IDS_BYTES)
        return false;
    if (ids.shard != shard || ids.next_seq == 0 || ids.next_seq > CONNECTION_SEQ_MASK)
        return false;
    ret->next_seq = ids.next_seq;
    memcpy(ret->left_unix_s, ids.id_block_left_unix_s, sizeof ret->left_unix_s);
    return true;
}

int node_shm_set_ids(const struct node_shm_file *f, unsigned shard, const struct node_shm_ids *ids)
{
    struct shard_shm *shm;
    off_t at = (off_t)(offsetof(struct node_shm, blocks) + shard * sizeof f->shm->blocks[0]);

    if (shard >= NODE_SHARDS_MAX || ids->next_seq == 0 || ids->next_seq > CONNECTION_SEQ_MASK)
        return -EINVAL;
    int r = f->fd >= 0 ? posix_fallocate(f->fd, at, NODE_SHM_BLOCK) : 0;
    if (r != 0)
        return -r;
    shm = node_shm_shard(f->shm, shard);
    shm->shard = shard;
    shm->next_seq = ids->next_seq;
    memcpy(shm->id_block_left_unix_s, ids->left_unix_s, sizeof ids->left_unix_s);
    return 0;
}

int node_shm_anonymous(const struct shard_plan *plan, struct node_shm_file *ret)
{
    struct node_shm *shm =
        mmap(NULL, sizeof *shm, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shm == MAP_FAILED)
        return -errno;
    init_head(shm, plan);
    for (unsigned i = 0; i < plan->n; i++)
        init_shard(node_shm_shard(shm, i), i, false);
    *ret = (struct node_shm_file){.shm = shm, .fd = -1};
    return 0;
}

void node_shm_release(struct node_shm_file *f)
{
    if (f->shm != NULL)
        munmap(f->shm, sizeof *f->shm);
    if (f->fd >= 0)
        close(f->fd);
    *f = (struct node_shm_file){.fd = -1};
}

/* ---- reading it */

static int map_checked(int fd, const struct node_shm **ret)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size != (off_t)sizeof(struct node_shm))
        return -EPROTO;
    struct node_shm *shm = mmap(NULL, sizeof *shm, PROT_READ, MAP_SHARED, fd, 0);
    if (shm == MAP_FAILED)
        return -errno;
    if (__atomic_load_n(&shm->magic, __ATOMIC_ACQUIRE) != NODE_SHM_MAGIC ||
        shm->version != NODE_SHM_VERSION || shm->block_bytes != NODE_SHM_BLOCK ||
        shm->counters_layout != counters_layout() || shm->n_shards == 0 || shm->n_shards > NODE_SHARDS_MAX ||
        shm->config_path[sizeof shm->config_path - 1] != '\0') {
        munmap(shm, sizeof *shm);
        return -EPROTO;
    }
    *ret = shm;
    return 0;
}

int node_shm_map(const char *dir, const struct node_shm **ret, bool *ret_running)
{
    char path[PATH_MAX];
    int r = path_of(dir, FILE_NAME, path, sizeof path);

    if (r < 0)
        return r;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    bool running = file_is_locked(fd);
    r = map_checked(fd, ret);
    close(fd);
    if (r == 0)
        *ret_running = running;
    return r;
}

void node_shm_unmap(const struct node_shm *shm)
{
    munmap((void *)(uintptr_t)shm, sizeof *shm);
}
