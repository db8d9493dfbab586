// SPDX-License-Identifier: MIT
#include "ring/ring_message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "ring/ring_priv.h"

/* ---- producer */

/* Eight fragments fill a ring: while the consumer reads some, there is room for the next. */
static uint32_t fragment_max(const struct ring_writer *w)
{
    uint64_t part = w->size / 8 - sizeof(struct record_shm);
    return part < w->record_max ? (uint32_t)part : w->record_max;
}

uint32_t ring_send_room(const struct ring_writer *w, const struct ring_sending *s)
{
    if (!ring_send_is_large(w, s))
        return (uint32_t)s->len;
    size_t left = s->len - s->sent;
    uint32_t max = fragment_max(w);
    return left < max ? (uint32_t)left : max;
}

static int send_whole(struct ring_writer *w, struct ring_sending *s)
{
    uint8_t *p;
    int r = ring_reserve(w, s->class, s->type, (uint32_t)s->len, &p);
    if (r < 0)
        return r;
    if (s->len > 0)
        memcpy(p, s->data, s->len);
    s->sent = s->len;
    return 0;
}

static int send_first(struct ring_writer *w, struct ring_sending *s)
{
    uint8_t *p;
    uint32_t len = fragment_max(w);
    const struct fragment_shm head = {.message_bytes = s->len};
    int r = ring__reserve(w, s->class, RECORD_MORE, s->type, len, &p);
    if (r < 0)
        return r;
    memcpy(p, &head, sizeof head);
    memcpy(p + sizeof head, s->data, len - sizeof head);
    s->sent = len - sizeof head;
    s->begin = w->next - record_bytes(len);
    w->fragmented[s->class] = true;
    return 0;
}

static int send_next(struct ring_writer *w, struct ring_sending *s)
{
    uint8_t *p;
    uint32_t len = ring_send_room(w, s);
    bool last = s->sent + len == s->len;
    int r = ring__reserve(w, s->class, RECORD_CONTINUES | (last ? 0 : RECORD_MORE), s->type, len, &p);
    if (r < 0)
        return r;
    memcpy(p, s->data + s->sent, len);
    s->sent += len;
    s->end = w->next;
    w->fragmented[s->class] = !last;
    return 0;
}

int ring_send(struct ring_writer *w, struct ring_sending *s)
{
    if (s->sent == 0 && w->fragmented[s->class])
        return -EBUSY;
    if (!ring_send_is_large(w, s))
        return send_whole(w, s);
    do {
        int r = s->sent == 0 ? send_first(w, s) : send_next(w, s);
        if (r < 0)
            return r;
    } while (s->sent < s->len);
    return 0;
}

void ring_send_give_up(struct ring_writer *w, struct ring_sending *s)
{
    if (s->sent > 0 && s->sent < s->len)
        w->fragmented[s->class] = false;
    s->sent = s->len;
}

/* Positions are never further apart than a ring is large. */
static bool is_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

bool ring_send_is_untouched(struct ring_writer *w, const struct ring_sending *s)
{
    RING_LOCK(w->shm);
    return !w->broken && ring__see_head(w) && !is_before(s->begin, w->head);
}

int ring_send_state(struct ring_writer *w, const struct ring_sending *s)
{
    ASSERT(s->sent == s->len && ring_send_is_large(w, s));
    RING_LOCK(w->shm);
    if (w->broken || !ring__see_head(w))
        return -EPROTO;
    if (is_before(w->head, s->end))
        return -EAGAIN;
    /* Relaxed: stored before the head that has just been acquired (ring_taken). */
    return atomic_load_explicit(&w->shm->taken[s->class], memory_order_relaxed) == s->end ? 0 : -ESTALE;
}

/* ---- consumer */

void ring_receiver_init(struct ring_receiver *rv, struct ring_reader *reader, size_t message_max)
{
    ASSERT(message_max <= UINT32_MAX);
    *rv = (struct ring_receiver){.reader = reader, .message_max = message_max};
}

static void part_clear(struct ring_message_part *part)
{
    free(part->data);
    *part = (struct ring_message_part){0};
}

void ring_receiver_fini(struct ring_receiver *rv)
{
    for (int i = 0; i < RING_CLASS_N; i++)
        part_clear(&rv->part[i]);
}

static int broken(struct ring_receiver *rv)
{
    rv->reader->broken = true;
    return -EPROTO;
}

static int append(struct ring_receiver *rv, struct ring_message_part *part, const uint8_t *data, uint64_t len,
                  bool more)
{
    /* All but the last leave something to come. */
    if (len > part->message_bytes - part->len || more != (part->len + len < part->message_bytes))
        return broken(rv);
    if (len > 0)
        memcpy(part->data + part->len, data, len);
    part->len += len;
    part->open = more;
    part->done = !more;
    return 0;
}

static int begin(struct ring_receiver *rv, struct ring_message_part *part, const struct ring_record *f)
{
    struct fragment_shm head;
    if (f->len < sizeof head)
        return broken(rv);
    memcpy(&head, f->data, sizeof head); /* once: what is checked is used */
    if (head.message_bytes > rv->message_max)
        return broken(rv);
    uint8_t *data = malloc(head.message_bytes > 0 ? head.message_bytes : 1);
    if (data == NULL)
        return -ENOMEM;
    if (part->open)
        rv->cut++;
    part_clear(part);
    *part = (struct ring_message_part){
        .data = data, .message_bytes = head.message_bytes, .type = f->type, .open = true};
    return append(rv, part, f->data + sizeof head, f->len - sizeof head, true);
}

/* 0 or an error; part->done says whether it is whole now. */
static int fragment(struct ring_receiver *rv, struct ring_message_part *part, const struct ring_record *f)
{
    if (!f->continues)
        return begin(rv, part, f);
    if (!part->open) {
        rv->orphans++;
        rv->headless += !part->headless;
        part->headless = f->more;
        return 0;
    }
    if (f->type != part->type)
        return broken(rv);
    return append(rv, part, f->data, f->len, f->more);
}

/* A whole record of a class ends an unfinished message of it: the producer sends none in between. */
static void end_unfinished(struct ring_receiver *rv, struct ring_message_part *part)
{
    if (part->open) {
        rv->cut++;
        part_clear(part);
    }
    part->headless = false;
}

static void drop_delivered(struct ring_receiver *rv)
{
    for (int i = 0; i < RING_CLASS_N; i++) {
        if (rv->part[i].done)
            part_clear(&rv->part[i]);
    }
}

int ring_receive(struct ring_receiver *rv, struct ring_record *ret)
{
    struct ring_record f;
    drop_delivered(rv);
    for (;;) { /* at most once for each record in the ring: ring_read is given them only as they are published
                */
        uint64_t before = rv->reader->next;
        int r = ring_read(rv->reader, &f);
        if (r <= 0)
            return r;
        struct ring_message_part *part = &rv->part[f.class];
        if (!f.more && !f.continues) {
            end_unfinished(rv, part);
            *ret = f;
            return 1;
        }
        r = fragment(rv, part, &f);
        if (r == -ENOMEM)
            rv->reader->next = before;
        if (r < 0)
            return r;
        if (part->done) {
            *ret = (struct ring_record){
                .data = part->data,
                .len = (uint32_t)part->len,
                .type = part->type,
                .class = f.class,
                .continues = true,
            };
            return 1;
        }
    }
}

void ring_taken(struct ring_receiver *rv, const struct ring_record *got)
{
    struct ring_reader *r = rv->reader;
    ASSERT(got->continues && rv->part[got->class].done);
    RING_LOCK(r->shm);
    /* Release: a successor, and the producer, see it with the head that ring_release stores after it
     * (partner: ring_send_state, behind its look at the head). */
    atomic_store_explicit(&r->shm->taken[got->class], r->next, memory_order_release);
    RING_FAULT(taken);
}
