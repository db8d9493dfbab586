// SPDX-License-Identifier: MIT
#include "ring/ring_map.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_memory(const char *path)
{
    int fd = path == NULL ? memfd_create("tgg-rings", MFD_CLOEXEC | MFD_ALLOW_SEALING)
                          : open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

static int set_size(int fd, const char *path, size_t bytes)
{
    if (ftruncate(fd, (off_t)bytes) < 0)
        return -errno;
    if (path == NULL && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    return 0;
}

static int map_fd(int fd, size_t bytes, void **ret)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *ret = p;
    return 0;
}

int ring_shm_create(const char *path, size_t bytes, struct ring_map *ret)
{
    void *mem = NULL;
    if (bytes == 0)
        return -EINVAL;
    int fd = open_memory(path);
    if (fd < 0)
        return fd;
    int r = set_size(fd, path, bytes);
    if (r == 0)
        r = map_fd(fd, bytes, &mem);
    if (r < 0) {
        close(fd);
        if (path != NULL)
            (void)unlink(path);
        return r;
    }
    *ret = (struct ring_map){.mem = mem, .bytes = bytes, .fd = fd};
    return 0;
}

int ring_shm_map(int fd, size_t bytes_min, struct ring_map *ret)
{
    struct stat st;
    void *mem = NULL;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_size <= 0 || (size_t)st.st_size < bytes_min)
        return -EPROTO;
    int r = map_fd(fd, (size_t)st.st_size, &mem);
    if (r < 0)
        return r;
    *ret = (struct ring_map){.mem = mem, .bytes = (size_t)st.st_size, .fd = -1};
    return 0;
}

void ring_shm_unmap(struct ring_map *map)
{
    if (map->mem != NULL)
        (void)munmap(map->mem, map->bytes);
    if (map->fd >= 0)
        close(map->fd);
    *map = (struct ring_map){.fd = -1};
}
