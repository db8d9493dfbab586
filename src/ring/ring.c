// SPDX-License-Identifier: MIT
#include "ring/ring_priv.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

/* ---- producer */

int ring_writer_attach(struct ring_writer *w, void *mem, size_t bytes, struct bell_shm *bell,
                       unsigned bell_bit)
{
    struct ring_shm *shm = mem;
    struct ring_report found = {0};
    ASSERT(bell_bit < 64);
    int r = ring__check(shm, bytes, &found);
    if (r < 0)
        return r;
    uint64_t reserve = shm->reserve;
    if (reserve % RECORD_ALIGN != 0 || reserve > found.size / 2) /* read again since: may be another */
        return -EPROTO;
    const struct ring_params params = {.size = found.size, .reserve = reserve};
    *w = (struct ring_writer){
        .shm = shm,
        .data = (uint8_t *)mem + sizeof *shm,
        .bell = bell != NULL ? bell : &shm->bell,
        .bell_bit = (uint8_t)bell_bit,
        .size = found.size,
        .limit = {[RING_BULK] = found.size - reserve, [RING_LIFECYCLE] = found.size},
        .next = found.tail,
        .tail = found.tail,
        .head = found.head,
        .record_max = ring_params_record_max(&params),
    };
    return 0;
}

/* Padding before a record of so many bytes, at the producer's position. */
static uint64_t padding_before(const struct ring_writer *w, uint64_t need)
{
    uint64_t left = w->size - (w->next & (w->size - 1));
    return need > left ? left : 0;
}

static bool fits(const struct ring_writer *w, enum ring_class class, uint64_t bytes)
{
    return w->next + bytes - w->head <= w->limit[class];
}

/* It cannot have released what it has not seen, nor go back. */
bool ring__see_head(struct ring_writer *w)
{
    /* seq_cst: acquires the consumer's reads before the bytes are written over (partner: its store in
     * ring_release), and stands behind the store of room_wanted (want). */
    uint64_t head = atomic_load_explicit(&w->shm->head, memory_order_seq_cst);
    if (head - w->head > w->tail - w->head || head % RECORD_ALIGN != 0) {
        w->broken = true;
        return false;
    }
    w->head = head;
    return true;
}

static int make_room(struct ring_writer *w, enum ring_class class, uint64_t bytes)
{
    if (w->broken || !ring__see_head(w))
        return -EPROTO;
    if (fits(w, class, bytes))
        return 0;
    /* Relaxed, not read-modify-write: this process is its only writer, others only show it. */
    uint64_t n = atomic_load_explicit(&w->shm->full[class], memory_order_relaxed);
    atomic_store_explicit(&w->shm->full[class], n + 1, memory_order_relaxed);
    return -EAGAIN;
}

/* Relaxed: nobody reads it before the tail says so. Atomic, because a broken consumer may. */
static void write_head(struct ring_writer *w, uint32_t flags_len, uint32_t type)
{
    struct record_shm *record = (struct record_shm *)(w->data + (w->next & (w->size - 1)));
    atomic_store_explicit(&record->flags_len, flags_len, memory_order_relaxed);
    atomic_store_explicit(&record->type, type, memory_order_relaxed);
}

int ring__reserve(struct ring_writer *w, enum ring_class class, uint32_t flags, uint32_t type, uint32_t len,
                  uint8_t **ret)
{
    if (len > w->record_max)
        return -EMSGSIZE;
    RING_LOCK(w->shm);
    uint64_t need = record_bytes(len);
    uint64_t padding = padding_before(w, need);
    if (!fits(w, class, padding + need)) {
        int r = make_room(w, class, padding + need);
        if (r < 0)
            return r;
    }
    if (padding != 0) {
        write_head(w, RECORD_PADDING | (uint32_t)(padding - sizeof(struct record_shm)), 0);
        RING_FAULT(reserve_padding);
        w->next += padding;
    }
    write_head(w, flags | (class == RING_LIFECYCLE ? RECORD_LIFECYCLE : 0) | len, type);
    RING_FAULT(reserve_head);
    *ret = w->data + (w->next & (w->size - 1)) + sizeof(struct record_shm);
    w->next += need;
    return 0;
}

int ring_reserve(struct ring_writer *w, enum ring_class class, uint32_t type, uint32_t len, uint8_t **ret)
{
    if (w->fragmented[class])
        return -EBUSY;
    return ring__reserve(w, class, 0, type, len, ret);
}

bool ring_publish(struct ring_writer *w)
{
    if (w->next == w->tail && !w->shown)
        return false;
    RING_LOCK(w->shm);
    RING_FAULT(publish_begin);
    /* seq_cst: releases the records (partner: the load in see_tail), and stands before the load of rung in
     * bell_ring (1 and 2 of ring_bell.h). */
    atomic_store_explicit(&w->shm->tail, w->next, memory_order_seq_cst);
    RING_FAULT(publish_tail);
    w->tail = w->next;
    w->shown = false;
    return bell_ring(w->bell, w->bell_bit);
}

void ring_show(struct ring_writer *w)
{
    if (w->next == w->tail)
        return;
    RING_LOCK(w->shm);
    /* Release: the records (partner: the load in see_tail). */
    atomic_store_explicit(&w->shm->tail, w->next, memory_order_release);
    w->tail = w->next;
    w->shown = true;
}

uint64_t ring_in_use(const struct ring_writer *w)
{
    /* Relaxed: nothing follows from it. */
    uint64_t bytes = w->next - atomic_load_explicit(&w->shm->head, memory_order_relaxed);
    return bytes <= w->size ? bytes : 0;
}

void ring_cancel(struct ring_writer *w)
{
    w->next = w->tail;
}

/* Say what we wait for, and look once more where the consumer is: after that, either we have seen it there or
 * its ring_release sees that we wait. False: broken. Within RING_LOCK. */
static bool want(struct ring_writer *w, uint32_t what)
{
    /* Else the consumer could wait for us while we wait for it. */
    ASSERT(w->next == w->tail && !w->shown);
    RING_FAULT(room_begin);
    /* seq_cst: before the load of head in ring__see_head; partners are the store of head and the load of
     * room_wanted in ring_release (Dekker, as in ring_bell.h). */
    atomic_store_explicit(&w->shm->room_wanted, what, memory_order_seq_cst);
    RING_FAULT(room_wanted);
    return !w->broken && ring__see_head(w);
}

static bool want_nothing(struct ring_writer *w)
{
    /* Relaxed: a consumer that still sees that we wait tells us once too often. */
    atomic_store_explicit(&w->shm->room_wanted, ROOM_NOT, memory_order_relaxed);
    return false;
}

bool ring_want_room(struct ring_writer *w, enum ring_class class, uint32_t len)
{
    ASSERT(len <= w->record_max);
    RING_LOCK(w->shm);
    uint64_t need = record_bytes(len);
    bool waits = want(w, ROOM_SOME) && !fits(w, class, padding_before(w, need) + need);
    return waits || want_nothing(w);
}

bool ring_want_empty(struct ring_writer *w)
{
    RING_LOCK(w->shm);
    bool waits = want(w, ROOM_ALL) && w->head != w->tail;
    return waits || want_nothing(w);
}

/* ---- consumer */

int ring_reader_attach(struct ring_reader *r, void *mem, size_t bytes, bool own_bell)
{
    struct ring_shm *shm = mem;
    struct ring_report found = {0};
    int err = ring__check(shm, bytes, &found);
    if (err < 0)
        return err;
    *r = (struct ring_reader){
        .shm = shm,
        .data = (const uint8_t *)mem + sizeof *shm,
        .bell = own_bell ? &shm->bell : NULL,
        .size = found.size,
        .head = found.head,
        .next = found.head,
        .tail = found.head, /* the first ring_read looks */
    };
    return 0;
}

/* Look where the producer is. 1: further; 0: not; -EPROTO. */
static int see_tail(struct ring_reader *r)
{
    if (r->broken)
        return -EPROTO;
    /* seq_cst: acquires the records (partner: the stores in ring_publish and ring_show), and stands behind
     * the taking of rung and the store of asleep (b and d of ring_bell.h). */
    uint64_t tail = atomic_load_explicit(&r->shm->tail, memory_order_seq_cst);
    if (tail == r->tail)
        return 0;
    if (tail - r->head > r->size || tail - r->head < r->tail - r->head || tail % RECORD_ALIGN != 0) {
        r->broken = true;
        return -EPROTO;
    }
    r->tail = tail;
    return 1;
}

int ring_read(struct ring_reader *r, struct ring_record *ret)
{
    RING_LOCK(r->shm);
    for (;;) { /* twice at most: there is no padding behind padding */
        int seen = r->next != r->tail ? 1 : see_tail(r);
        if (seen <= 0)
            return seen;
        const struct record_shm *record = (const struct record_shm *)(r->data + (r->next & (r->size - 1)));
        /* (Prefetching the next lines was tried: no difference.) */
        /* Relaxed, once: published with the tail. What is checked is what is used, whatever is written there
         * now. */
        uint32_t flags_len = atomic_load_explicit(&record->flags_len, memory_order_relaxed);
        uint32_t type = atomic_load_explicit(&record->type, memory_order_relaxed);
        uint64_t bytes = record_check(r->size, r->next, r->tail, flags_len, type);
        if (r->broken || bytes == 0) {
            r->broken = true;
            return -EPROTO;
        }
        r->next += bytes;
        if ((flags_len & RECORD_PADDING) != 0)
            continue;
        RING_FAULT(read_record);
        *ret = (struct ring_record){
            .data = (const uint8_t *)(record + 1),
            .len = flags_len & RECORD_LEN_MASK,
            .type = type,
            .class = (flags_len & RECORD_LIFECYCLE) != 0 ? RING_LIFECYCLE : RING_BULK,
            .more = (flags_len & RECORD_MORE) != 0,
            .continues = (flags_len & RECORD_CONTINUES) != 0,
        };
        return 1;
    }
}

bool ring_release(struct ring_reader *r)
{
    if (r->next == r->head)
        return false;
    RING_LOCK(r->shm);
    RING_FAULT(release_begin);
    /* seq_cst: releases our reads (partner: the load in see_head), and stands before the load of room_wanted.
     */
    atomic_store_explicit(&r->shm->head, r->next, memory_order_seq_cst);
    RING_FAULT(release_head);
    r->head = r->next;
    /* seq_cst: partner is the store in want. */
    uint32_t wanted = atomic_load_explicit(&r->shm->room_wanted, memory_order_seq_cst);
    if (wanted == ROOM_NOT)
        return false;
    /* Not for every few bytes; but at the latest when all is released that we know of. */
    if (r->tail - r->head > (wanted == ROOM_SOME ? r->size / 2 : 0))
        return false;
    /* seq_cst: taken, so that the producer is told once. */
    bool waits = atomic_exchange_explicit(&r->shm->room_wanted, ROOM_NOT, memory_order_seq_cst) != ROOM_NOT;
    RING_FAULT(release_room);
    return waits;
}

bool ring_prepare_sleep(struct ring_reader *r)
{
    ASSERT(r->bell != NULL);
    /* The bit may stand from records that we have read without asking the bell. A producer that saw it set,
     * before it is taken here, told nobody: its records are seen by the look that follows. */
    (void)bell_take(r->bell);
    if (r->next != r->tail || see_tail(r) != 0)
        return false;
    return bell_prepare_sleep(r->bell);
}

void ring_cancel_sleep(struct ring_reader *r)
{
    ASSERT(r->bell != NULL);
    bell_cancel_sleep(r->bell);
}
