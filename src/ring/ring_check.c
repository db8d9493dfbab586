// SPDX-License-Identifier: MIT
/* Making a ring, checking it, and mending it after a death. */
#include "ring/ring_priv.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

static bool size_is_good(uint64_t size)
{
    return size >= RING_SIZE_MIN && size <= RING_SIZE_MAX && (size & (size - 1)) == 0;
}

static bool reserve_is_good(uint64_t size, uint64_t reserve)
{
    return reserve % RECORD_ALIGN == 0 && reserve <= size / 2;
}

static bool is_aligned(const void *mem)
{
    return (uintptr_t)mem % 64 == 0;
}

int ring_format(void *mem, size_t bytes, const struct ring_params *params)
{
    struct ring_shm *shm = mem;
    if (!is_aligned(mem) || !size_is_good(params->size) || !reserve_is_good(params->size, params->reserve) ||
        params->start % RECORD_ALIGN != 0 || bytes < ring_bytes(params->size))
        return -EINVAL;
    memset(shm, 0, sizeof *shm);
    shm->version = RING_SHM_VERSION;
    shm->data_offset = sizeof *shm;
    shm->size = params->size;
    shm->reserve = params->reserve;
    ring__lock_format(shm);
    /* Relaxed: the magic number below makes them visible. */
    atomic_store_explicit(&shm->tail, params->start, memory_order_relaxed);
    atomic_store_explicit(&shm->head, params->start, memory_order_relaxed);
    atomic_store_explicit(&shm->taken[0], params->start, memory_order_relaxed); /* no message ends there */
    atomic_store_explicit(&shm->taken[1], params->start, memory_order_relaxed);
    /* Release: who sees the magic number sees the rest (partner: the load in ring__check). */
    __atomic_store_n(&shm->magic, RING_SHM_MAGIC, __ATOMIC_RELEASE);
    return 0;
}

static int fail(struct ring_report *ret, const char *fault)
{
    ret->fault = fault;
    return -EPROTO;
}

static int check_identity(const struct ring_shm *shm, size_t bytes, struct ring_report *ret)
{
    if (!is_aligned(shm) || bytes < sizeof *shm)
        return fail(ret, "memory too small or not aligned");
    /* Acquire: partner is the store in ring_format. */
    uint64_t magic = __atomic_load_n(&shm->magic, __ATOMIC_ACQUIRE);
    if (magic == 0)
        return -EAGAIN;
    if (magic != RING_SHM_MAGIC)
        return fail(ret, "magic number");
    if (shm->version != RING_SHM_VERSION || shm->data_offset != sizeof *shm)
        return fail(ret, "version");
    uint64_t size = __atomic_load_n(&shm->size, __ATOMIC_RELAXED); /* once: what is checked is used */
    if (!size_is_good(size) || bytes < ring_bytes(size))
        return fail(ret, "size");
    if (!reserve_is_good(size, __atomic_load_n(&shm->reserve, __ATOMIC_RELAXED)))
        return fail(ret, "reserve");
    ret->size = size;
    return 0;
}

/* head before tail: when the producer is dead tail stands still and head may grow; when the consumer is dead
 * head stands still, and the producer cannot get further than size beyond it. */
static void load_positions(const struct ring_shm *shm, struct ring_report *ret)
{
    /* Acquire: partners are the stores in ring_release and ring_publish. */
    ret->head = atomic_load_explicit(&shm->head, memory_order_acquire);
    ret->tail = atomic_load_explicit(&shm->tail, memory_order_acquire);
}

static int check_positions(struct ring_report *ret)
{
    if (ret->head % RECORD_ALIGN != 0)
        return fail(ret, "head is not aligned");
    if (ret->tail % RECORD_ALIGN != 0)
        return fail(ret, "tail is not aligned");
    if (ret->tail - ret->head > ret->size)
        return fail(ret, "more published than the area holds");
    return 0;
}

int ring__check(const struct ring_shm *shm, size_t bytes, struct ring_report *ret)
{
    int r = check_identity(shm, bytes, ret);
    if (r < 0)
        return r;
    load_positions(shm, ret);
    return check_positions(ret);
}

static void count_record(uint32_t flags_len, struct ring_report *ret)
{
    if ((flags_len & RECORD_PADDING) != 0)
        return;
    ret->records[(flags_len & RECORD_LIFECYCLE) != 0 ? RING_LIFECYCLE : RING_BULK]++;
    ret->messages += (flags_len & RECORD_MORE) == 0;
    ret->payload_bytes += flags_len & RECORD_LEN_MASK;
}

/* Position of the first record that cannot be; tail when all are good. */
static uint64_t walk(const struct ring_shm *shm, struct ring_report *ret)
{
    const uint8_t *data = (const uint8_t *)(shm + 1);
    uint64_t pos = ret->head;
    while (pos != ret->tail) {
        const struct record_shm *record = (const struct record_shm *)(data + (pos & (ret->size - 1)));
        /* Relaxed, once: published with the tail (load_positions). */
        uint32_t flags_len = atomic_load_explicit(&record->flags_len, memory_order_relaxed);
        uint32_t type = atomic_load_explicit(&record->type, memory_order_relaxed);
        uint64_t bytes = record_check(ret->size, pos, ret->tail, flags_len, type);
        if (bytes == 0)
            break;
        count_record(flags_len, ret);
        pos += bytes;
    }
    return pos;
}

static int check_words(const struct ring_shm *shm, struct ring_report *ret)
{
    /* Relaxed: only whether the value is possible. */
    if (atomic_load_explicit(&shm->room_wanted, memory_order_relaxed) > ROOM_ALL)
        return fail(ret, "room_wanted");
    if (atomic_load_explicit(&shm->bell.asleep, memory_order_relaxed) > 1)
        return fail(ret, "asleep");
    return 0;
}

int ring_valid(const void *mem, size_t bytes, struct ring_report *ret)
{
    const struct ring_shm *shm = mem;
    *ret = (struct ring_report){0};
    int r = ring__check(shm, bytes, ret);
    if (r == 0)
        r = check_words(shm, ret);
    if (r == 0 && walk(shm, ret) != ret->tail)
        r = fail(ret, "a record runs over the end of what is published, or of the area");
    return r;
}

/* Positions that cannot be: one of them was written over. Believe the side that lives, as it will write its
 * own position again; nothing is left in between. */
static void mend_positions(unsigned dead, struct ring_report *ret)
{
    if (check_positions(ret) == 0)
        return;
    if ((dead & RING_DEAD_PRODUCER) != 0) {
        if ((dead & RING_DEAD_CONSUMER) != 0)
            ret->head &= ~(RECORD_ALIGN - 1);
        ret->tail = ret->head;
    } else {
        ret->head = ret->tail;
    }
}

/* Where a record cannot be, the boundaries behind it are unknown. A producer's successor goes on from there;
 * when the producer lives it cannot go back, so a consumer's successor begins at its tail. */
static void mend_records(const struct ring_shm *shm, unsigned dead, struct ring_report *ret)
{
    uint64_t end = walk(shm, ret);
    if (end == ret->tail)
        return;
    ret->fault = "a record runs over the end of what is published, or of the area";
    if ((dead & RING_DEAD_PRODUCER) != 0) {
        ret->cut_bytes = ret->tail - end;
        ret->tail = end;
        return;
    }
    ret->cut_bytes = ret->tail - ret->head;
    ret->head = ret->tail;
    ret->messages = ret->payload_bytes = ret->records[RING_BULK] = ret->records[RING_LIFECYCLE] = 0;
}

/* seq_cst in both: in the place of the dead one's stores (ring_publish, ring_release), with the same
 * partners. */
static void stand_in_for_producer(struct ring_shm *shm, const struct ring_report *mended,
                                  struct bell_shm *bell, unsigned bell_bit)
{
    if (atomic_load_explicit(&shm->tail, memory_order_relaxed) != mended->tail)
        atomic_store_explicit(&shm->tail, mended->tail, memory_order_seq_cst);
    atomic_store_explicit(&shm->room_wanted, 0, memory_order_seq_cst);
    atomic_fetch_or_explicit(&bell->rung, UINT64_C(1) << bell_bit, memory_order_seq_cst);
    atomic_store_explicit(&bell->asleep, 0, memory_order_seq_cst); /* it is woken in any case */
    atomic_store_explicit(&shm->bell.asleep, 0, memory_order_seq_cst);
}

static void stand_in_for_consumer(struct ring_shm *shm, const struct ring_report *mended)
{
    if (atomic_load_explicit(&shm->head, memory_order_relaxed) != mended->head)
        atomic_store_explicit(&shm->head, mended->head, memory_order_seq_cst);
    atomic_store_explicit(&shm->room_wanted, 0, memory_order_seq_cst); /* it is told in any case */
    atomic_store_explicit(&shm->bell.asleep, 0, memory_order_seq_cst);
}

int ring_repair(void *mem, size_t bytes, unsigned dead, struct bell_shm *bell, unsigned bell_bit,
                struct ring_report *ret)
{
    struct ring_shm *shm = mem;
    ASSERT(bell_bit < 64 && dead != 0 && dead <= (RING_DEAD_PRODUCER | RING_DEAD_CONSUMER));
    *ret = (struct ring_report){0};
    int r = check_identity(shm, bytes, ret);
    if (r < 0)
        return r;
    load_positions(shm, ret);
    mend_positions(dead, ret);
    const char *fault = ret->fault;
    if (check_positions(ret) < 0) /* written over by the side that lives: it would do so again */
        return -EPROTO;
    ret->fault = fault;
    mend_records(shm, dead, ret);
    if ((dead & RING_DEAD_PRODUCER) != 0)
        stand_in_for_producer(shm, ret, bell != NULL ? bell : &shm->bell, bell_bit);
    if ((dead & RING_DEAD_CONSUMER) != 0)
        stand_in_for_consumer(shm, ret);
    return 0;
}
