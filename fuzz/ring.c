// SPDX-License-Identifier: MIT
/* Rings whose shared bytes anybody may have written: checking, mending, reading and writing stay within the
 * memory (which has exactly its size, so that AddressSanitizer sees), come to an end, and agree with each
 * other.
 *
 *   byte 0   what is done: 1 identity too is the input's, 2 write over it again while it is read, 4 messages
 *   then     identity or not (64), tail, head (8 each, as far from the real ones), data */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "ring/ring_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define SIZE  512
#define START (UINT64_C(0) - 256)

static uint8_t *mem;
static const size_t bytes = sizeof(struct ring_shm) + SIZE;

struct input {
    const uint8_t *p;
    size_t left;
};

static void take(struct input *in, void *to, size_t n)
{
    size_t have = n < in->left ? n : in->left;
    memcpy(to, in->p, have);
    in->p += have;
    in->left -= have;
}

static int64_t take_offset(struct input *in)
{
    int16_t v = 0;
    take(in, &v, sizeof v);
    return v & 1 ? v : v * 4; /* mostly aligned */
}

static void in_data(const uint8_t *p, size_t len)
{
    const uint8_t *area = mem + sizeof(struct ring_shm);
    ASSERT(p >= area && p + len <= area + SIZE);
}

static void scribble(struct input *in)
{
    uint16_t at = 0;
    uint64_t value = 0;
    take(in, &at, sizeof at);
    take(in, &value, sizeof value);
    memcpy(mem + at % (bytes / 8) * 8, &value, sizeof value);
}

static uint64_t sum(const uint8_t *p, size_t len)
{
    uint64_t s = 0;
    for (size_t i = 0; i < len; i++)
        s += p[i];
    return s;
}

/* How many records came, -1: it was refused at some place. */
static int read_all(struct input *in, bool again)
{
    struct ring_reader r;
    struct ring_record got;
    int n = 0, result;
    if (ring_reader_attach(&r, mem, bytes, true) < 0)
        return -1;
    while ((result = ring_read(&r, &got)) == 1 && n < 1000) {
        in_data(got.data, got.len);
        n += sum(got.data, got.len) < UINT64_MAX;
        if (again && in->left > 0)
            scribble(in);
        if (n % 3 == 0)
            ring_release(&r);
    }
    (void)ring_prepare_sleep(&r);
    return result < 0 ? -1 : n;
}

static void receive_all(struct input *in, bool again)
{
    struct ring_reader r;
    struct ring_receiver rv;
    struct ring_record got;
    if (ring_reader_attach(&r, mem, bytes, true) < 0)
        return;
    ring_receiver_init(&rv, &r, 2000);
    for (int n = 0; ring_receive(&rv, &got) == 1 && n < 1000; n++) {
        ASSERT(got.len <= 2000 && sum(got.data, got.len) < UINT64_MAX);
        if (again && in->left > 0)
            scribble(in);
        ring_release(&r);
    }
    ring_receiver_fini(&rv);
}

static void write_some(struct input *in, bool again)
{
    struct ring_writer w;
    uint8_t *p;
    if (ring_writer_attach(&w, mem, bytes, NULL, 0) < 0)
        return;
    for (uint32_t n = 0; n < 20; n++) {
        uint32_t size = n * 13 % (ring_record_max(&w) + 1);
        if (ring_reserve(&w, n % 2 ? RING_BULK : RING_LIFECYCLE, n, size, &p) == 0) {
            in_data(p, size);
            memset(p, (int)n, size);
        }
        if (again && in->left > 0)
            scribble(in);
        if (n % 4 == 0)
            (void)ring_publish(&w);
    }
    (void)ring_publish(&w);
    (void)ring_want_room(&w, RING_BULK, 10);
}

static void repair(unsigned dead)
{
    struct ring_report report, after;
    if (ring_repair(mem, bytes, dead, NULL, 0, &report) < 0)
        return;
    int valid = ring_valid(mem, bytes, &after);
    /* Only a flag of the side that lives may still be wrong. */
    ASSERT(valid == 0 || dead == RING_DEAD_CONSUMER || dead == RING_DEAD_PRODUCER);
    ASSERT(after.tail - after.head <= after.size);
    if (valid == 0)
        ASSERT(report.records[0] == after.records[0] && report.records[1] == after.records[1]);
}

static void fill_in(struct input *in, bool identity)
{
    struct ring_params params = {.size = SIZE, .reserve = 64, .start = START};
    struct ring_shm *shm = (struct ring_shm *)mem;
    memset(mem, 0, bytes);
    ASSERT(ring_format(mem, bytes, &params) == 0);
    if (identity)
        take(in, mem, 64);
    atomic_store(&shm->tail, START + (uint64_t)take_offset(in));
    atomic_store(&shm->head, START + (uint64_t)take_offset(in));
    take(in, mem + sizeof *shm, SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct input in = {data, len};
    struct ring_report report;
    uint8_t what = 0;
    take(&in, &what, 1);
    mem = aligned_alloc(64, bytes);
    ASSERT(mem != NULL);
    fill_in(&in, (what & 1) != 0);
    bool again = (what & 2) != 0;
    bool valid = ring_valid(mem, bytes, &report) == 0;
    if ((what & 8) != 0)
        repair(1 + (what >> 4) % 3);
    if ((what & 4) != 0) {
        receive_all(&in, again);
    } else {
        uint64_t records = report.records[RING_BULK] + report.records[RING_LIFECYCLE];
        int n = read_all(&in, again);
        if (valid && !again)
            ASSERT(n >= 0 && (uint64_t)n == records);
    }
    write_some(&in, again);
    repair(RING_DEAD_PRODUCER | RING_DEAD_CONSUMER);
    (void)read_all(&in, false);
    free(mem);
    return 0;
}
