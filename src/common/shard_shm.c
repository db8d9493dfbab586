// SPDX-License-Identifier: MIT
#include "common/shard_shm.h"

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

#define HEAD_SIZE offsetof(struct shard_shm, pid)

const char *shard_state_name(enum shard_state state)
{
    static const char *const names[SHARD_STATE_N] = {"none",     "starting", "running",
                                                     "draining", "stopped",  "dead"};
    return names[state];
}

uint32_t shard_shm_clock_seq(int64_t unix_s)
{
    /* 1024 ids a second: a node that takes fewer than that on average does not meet an id of before the
     * restart until 2^26 / 1024 seconds, 18 hours, have passed. */
    uint32_t seq = (uint32_t)((uint64_t)unix_s * 1024) & CONNECTION_SEQ_MASK;
    return seq != 0 ? seq : 1;
}

void shard_shm_init(struct shard_shm *shm, unsigned shard, uint32_t first_seq)
{
    ASSERT(first_seq != 0 && first_seq <= CONNECTION_SEQ_MASK);
    memset(shm, 0, sizeof *shm);
    shm->magic = SHARD_SHM_MAGIC;
    shm->version = SHARD_SHM_VERSION;
    shm->size = sizeof *shm;
    shm->counters_layout = counters_layout();
    shm->counters_n = COUNTER_N;
    shm->shard = shard;
    shm->next_seq = first_seq;
}

static int shm_path(const char *dir, unsigned shard, char *buf, size_t cap)
{
    return snprintf(buf, cap, "%s/shard-%u.shm", dir, shard) < (int)cap ? 0 : -ENAMETOOLONG;
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

/* The sequence that an earlier run left, 0 when there is none. A length or version of another build is fine:
 * the head is where it always was. */
static uint32_t left_sequence(int fd, unsigned shard)
{
    struct shard_shm head;
    if (pread(fd, &head, HEAD_SIZE, 0) != (ssize_t)HEAD_SIZE)
        return 0;
    if (head.magic != SHARD_SHM_MAGIC || head.version != SHARD_SHM_VERSION || head.shard != shard)
        return 0;
    return head.next_seq <= CONNECTION_SEQ_MASK ? head.next_seq : 0;
}

static int map_file(int fd, struct shard_shm **ret)
{
    /* Allocated now: a tmpfs that is full tells it here, not by SIGBUS later. */
    int r = posix_fallocate(fd, 0, sizeof **ret);
    if (r != 0)
        return -r;
    if (ftruncate(fd, sizeof **ret) < 0)
        return -errno;
    void *p = mmap(NULL, sizeof **ret, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *ret = p;
    return 0;
}

int shard_shm_create(const char *dir, unsigned shard, struct shard_shm_file *ret)
{
    char path[PATH_MAX];
    struct shard_shm *shm = NULL;
    int r = make_dirs(dir, 0755);

    if (r < 0 || (r = shm_path(dir, shard, path, sizeof path)) < 0)
        return r;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return -errno;
    r = lock_file(fd);
    uint32_t seq = r == 0 ? left_sequence(fd, shard) : 0;
    if (r == 0)
        r = map_file(fd, &shm);
    if (r < 0) {
        close(fd);
        return r;
    }
    shard_shm_init(shm, shard, seq != 0 ? seq : shard_shm_clock_seq(time(NULL)));
    *ret = (struct shard_shm_file){.shm = shm, .fd = fd, .continued = seq != 0};
    return 0;
}

int shard_shm_anonymous(unsigned shard, struct shard_shm_file *ret)
{
    void *p = mmap(NULL, sizeof(struct shard_shm), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return -errno;
    shard_shm_init(p, shard, shard_shm_clock_seq(time(NULL)));
    *ret = (struct shard_shm_file){.shm = p, .fd = -1};
    return 0;
}

void shard_shm_release(struct shard_shm_file *f)
{
    if (f->shm != NULL)
        munmap(f->shm, sizeof *f->shm);
    if (f->fd >= 0)
        close(f->fd);
    *f = (struct shard_shm_file){.fd = -1};
}

int shard_shm_map(const char *dir, unsigned shard, const struct shard_shm **ret, bool *ret_running)
{
    char path[PATH_MAX];
    struct stat st;
    int r = shm_path(dir, shard, path, sizeof path);

    if (r < 0)
        return r;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    bool running = file_is_locked(fd);
    struct shard_shm *shm = MAP_FAILED;
    if (fstat(fd, &st) < 0)
        r = -errno;
    else if (st.st_size != (off_t)sizeof *shm)
        r = -EPROTO;
    else if ((shm = mmap(NULL, sizeof *shm, PROT_READ, MAP_SHARED, fd, 0)) == MAP_FAILED)
        r = -errno;
    close(fd);
    if (r < 0)
        return r;
    if (shm->magic != SHARD_SHM_MAGIC || shm->version != SHARD_SHM_VERSION ||
        shm->counters_layout != counters_layout()) {
        munmap(shm, sizeof *shm);
        return -EPROTO;
    }
    *ret = shm;
    *ret_running = running;
    return 0;
}

void shard_shm_unmap(const struct shard_shm *shm)
{
    munmap((void *)(uintptr_t)shm, sizeof *shm);
}
