// SPDX-License-Identifier: MIT
/* What a dead predecessor has left. Nothing in it is believed: every offset and length is checked against the
 * plot before it is used, and what does not fit is passed over and counted. */
#include "estate/legacy_priv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/assert.h"

/* ---- inherit */

/* The oldest of those that are younger than `after` (NULL: than nothing). */
static struct plot_shm *oldest(struct estate_shm *shm, const struct plot_shm *after)
{
    struct plot_shm *found = NULL;
    for (unsigned i = 0; i < ESTATE_PLOTS; i++) {
        struct plot_shm *p = &shm->plots[i];
        if (plot__state(p) == PLOT_LEGACY &&
            (after == NULL || plot__incarnation(p) > plot__incarnation(after)) &&
            (found == NULL || plot__incarnation(p) < plot__incarnation(found)))
            found = p;
    }
    return found;
}

/* False: the chunk makes no sense. */
static bool check_chunk(const struct legacy *l, struct estate_chunk *c, struct left_chunk *ret)
{
    const struct plot_shape *s = &l->shape;
    struct estate_chunk r = *c;
    /* In the middle of estate_chunk_reset `written` may be the larger one: then nothing is left. */
    if (r.offset < s->heap_at || r.offset > s->bytes || r.len > s->bytes - r.offset || r.len > r.cap)
        return false;
    *ret = (struct left_chunk){
        .seq = r.seq, .record = c, .data = l->at + r.offset, .len = r.len, .written = r.written};
    return true;
}

static int by_seq(const void *a, const void *b)
{
    uint64_t x = ((const struct left_chunk *)a)->seq, y = ((const struct left_chunk *)b)->seq;
    return x < y ? -1 : x > y;
}

static void collect_chunks(struct legacy *l, uint32_t n_records)
{
    struct estate_chunk *records = (struct estate_chunk *)(l->at + l->shape.chunks_at);
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_records; i++)
        n += records[i].seq != 0;
    l->chunks = calloc((size_t)n + 1, sizeof *l->chunks);
    ASSERT(l->chunks != NULL);
    for (uint32_t i = 0; i < n_records && l->n_chunks < n; i++) {
        if (records[i].seq == 0)
            continue;
        if (check_chunk(l, &records[i], &l->chunks[l->n_chunks]))
            l->n_chunks++;
        else
            l->damaged++;
    }
    qsort(l->chunks, l->n_chunks, sizeof *l->chunks, by_seq);
}

static uint32_t at_most(uint32_t n, uint32_t max)
{
    return n < max ? n : max;
}

struct legacy *estate_inherit(void *mem, size_t bytes)
{
    return estate_inherit_next(mem, bytes, NULL);
}

struct legacy *estate_inherit_next(void *mem, size_t bytes, const struct legacy *after)
{
    struct estate_shm *shm = mem;
    if (bytes < ESTATE_PAGE || __atomic_load_n(&shm->magic, __ATOMIC_ACQUIRE) != ESTATE_MAGIC ||
        shm->version != ESTATE_VERSION || shm->heap_bytes == 0 || shm->heap_bytes > bytes ||
        bytes < estate_bytes(shm->max_clients, shm->heap_bytes))
        return NULL;
    struct plot_shm *plot = oldest(shm, after != NULL ? after->plot : NULL);
    if (plot == NULL)
        return NULL;
    struct legacy *l = calloc(1, sizeof *l);
    ASSERT(l != NULL);
    l->plot = plot;
    l->shape = plot__shape(shm->max_clients, shm->heap_bytes);
    l->at = plot__at(mem, &l->shape, (unsigned)(plot - shm->plots));
    l->clients = (struct estate_client *)l->at;
    l->n_client_records = at_most(plot->clients_used, l->shape.max_clients);
    for (uint32_t i = 0; i < l->n_client_records; i++)
        l->clients_left += l->clients[i].id != 0;
    collect_chunks(l, at_most(plot->chunks_used, l->shape.max_chunks));
    return l;
}

void legacy_keep(struct legacy *l)
{
    if (l == NULL)
        return;
    free(l->chunks);
    free(l);
}

void legacy_free(struct legacy *l)
{
    if (l == NULL)
        return;
    plot__release(l->plot, l->at, &l->shape, MADV_REMOVE);
    legacy_keep(l);
}

uint32_t legacy_damaged(const struct legacy *l)
{
    return l->damaged;
}

/* ---- packets */

static uint32_t get_u32_be(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Length of the packet at `at`; 0: the rest of the chunk makes no sense. */
static uint32_t packet_len(const struct left_chunk *c, uint32_t at)
{
    uint32_t left = c->len - at;
    uint32_t len = left >= 4 ? get_u32_be(c->data + at) : 0;
    return len >= 4 && len <= left ? len : 0;
}

/* The next packet of this chunk that was not written whole. */
static bool next_in_chunk(struct legacy *l, struct left_chunk *c, struct slice *ret)
{
    while (l->packet_at < c->len) {
        uint32_t at = l->packet_at, len = packet_len(c, at);
        if (len == 0) {
            l->damaged++;
            l->packet_at = c->len;
            return false;
        }
        l->packet_at = at + len;
        if (l->packet_at > c->written) {
            *ret = (struct slice){c->data + at, len};
            return true;
        }
    }
    return false;
}

bool legacy_packet(struct legacy *l, struct slice *ret)
{
    l->last_chunk = NULL;
    for (; l->chunk < l->n_chunks; l->chunk++, l->packet_at = 0) {
        struct left_chunk *c = &l->chunks[l->chunk];
        if (next_in_chunk(l, c, ret)) {
            l->last_chunk = c;
            l->last_end = l->packet_at;
            return true;
        }
    }
    return false;
}

void legacy_packet_done(struct legacy *l)
{
    ASSERT(l->last_chunk != NULL);
    /* Release: where it was handed on to, it is before it is marked off here. */
    __atomic_store_n(&l->last_chunk->record->written, l->last_end, __ATOMIC_RELEASE);
    l->last_chunk = NULL;
}

/* ---- clients */

/* Where its session is; empty if it is nowhere. */
static struct slice session_of(struct legacy *l, uint32_t place)
{
    const struct plot_shape *s = &l->shape;
    uint64_t offset = (uint64_t)place * ESTATE_SESSION_UNIT;
    uint32_t len;
    if (offset == 0)
        return (struct slice){0};
    if (offset >= s->heap_at && offset <= s->bytes - sizeof len) {
        memcpy(&len, l->at + offset, sizeof len);
        if (len <= s->bytes - sizeof len - offset)
            return (struct slice){l->at + offset + sizeof len, len};
    }
    l->damaged++;
    return (struct slice){0};
}

bool legacy_client(struct legacy *l, struct estate_client *ret, struct slice *ret_session)
{
    l->last_client = NULL;
    for (; l->next_client < l->n_client_records; l->next_client++) {
        struct estate_client *c = &l->clients[l->next_client];
        if (c->id == 0)
            continue;
        *ret = *c;
        *ret_session = session_of(l, ret->session);
        l->last_client = c;
        l->next_client++;
        return true;
    }
    return false;
}

void legacy_client_done(struct legacy *l)
{
    ASSERT(l->last_client != NULL && l->clients_left > 0);
    /* Release: whoever tells of it knows before it is gone here. */
    __atomic_store_n(&l->last_client->id, 0, __ATOMIC_RELEASE);
    l->last_client = NULL;
    l->clients_left--;
}

void legacy_rewind(struct legacy *l)
{
    while (l->first_client < l->n_client_records && l->clients[l->first_client].id == 0)
        l->first_client++;
    l->next_client = l->first_client;
    l->last_client = NULL;
}

uint32_t legacy_clients_left(const struct legacy *l)
{
    return l->clients_left;
}
