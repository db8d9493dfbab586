// SPDX-License-Identifier: MIT
#include "ring/ring_map.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ring/ring_util_test.h"

static void what_one_mapping_writes_the_other_reads(struct ring_map *a)
{
    struct ring_map b;
    struct ring_writer w;
    struct ring_reader r;
    struct ring_params params = {.size = 4096};
    assert_int_equal(ring_shm_map(a->fd, a->bytes + 1, &b), -EPROTO);
    assert_int_equal(ring_shm_map(a->fd, a->bytes, &b), 0);
    assert_ptr_not_equal(a->mem, b.mem);
    assert_int_equal(ring_format(a->mem, a->bytes, &params), 0);
    assert_int_equal(ring_writer_attach(&w, a->mem, a->bytes, NULL, 0), 0);
    assert_int_equal(ring_reader_attach(&r, b.mem, b.bytes, true), 0);
    assert_int_equal(put(&w, RING_BULK, 3, 100), 0);
    ring_publish(&w);
    expect(&r, RING_BULK, 3, 100);
    ring_shm_unmap(&b);
}

static void a_memfd_is_shared_and_cannot_be_cut(void **state)
{
    struct ring_map a;
    assert_int_equal(ring_shm_create(NULL, 0, &a), -EINVAL);
    assert_int_equal(ring_shm_create(NULL, ring_bytes(4096), &a), 0);
    what_one_mapping_writes_the_other_reads(&a);
    assert_int_equal(ftruncate(a.fd, 0), -1);
    assert_true((fcntl(a.fd, F_GETFD) & FD_CLOEXEC) != 0);
    ring_shm_unmap(&a);
    assert_null(a.mem);
    ring_shm_unmap(&a);
}

static void a_file_is_shared_and_new(void **state)
{
    struct ring_map a, again;
    char dir[] = "/dev/shm/tgg-ring-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/ring", dir);
    assert_int_equal(ring_shm_create(path, ring_bytes(4096), &a), 0);
    what_one_mapping_writes_the_other_reads(&a);
    assert_int_equal(ring_shm_create(path, 4096, &again), -EEXIST);
    ring_shm_unmap(&a);
    unlink(path);
    rmdir(dir);
}

static blkcnt_t blocks(int fd)
{
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    return st.st_blocks;
}

/* A node of 64 shards: a ring of 1 MiB for each ordered pair, in one mapping. */
static void rings_cost_no_memory_before_they_are_used(void **state)
{
    struct ring_map map;
    struct ring_writer w;
    size_t stride = (ring_bytes(1 << 20) + 4095) & ~(size_t)4095;
    assert_int_equal(ring_shm_create(NULL, 64 * 64 * stride, &map), 0);
    assert_int_equal(blocks(map.fd), 0);
    uint8_t *ring = (uint8_t *)map.mem + 1234 * stride;
    struct ring_params params = {.size = 1 << 20, .reserve = 1 << 16};
    assert_int_equal(ring_format(ring, stride, &params), 0);
    assert_int_equal(ring_writer_attach(&w, ring, stride, NULL, 0), 0);
    assert_int_equal(put(&w, RING_BULK, 1, 64), 0);
    ring_publish(&w);
    assert_true(blocks(map.fd) <= 8); /* of 512 bytes: one page */
    ring_shm_unmap(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_memfd_is_shared_and_cannot_be_cut),
        cmocka_unit_test(a_file_is_shared_and_new),
        cmocka_unit_test(rings_cost_no_memory_before_they_are_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
