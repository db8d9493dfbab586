// SPDX-License-Identifier: MIT
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "mesh/mesh_priv.h"

/* With its head; a message that is larger gets a chunk of its own. */
#define CHUNK_BYTES ((size_t)32 * 1024)

struct mesh_chunk {
    struct mesh_chunk *next;
    size_t cap, begin, end; /* of data: begin to end is in use */
    uint8_t data[];
};

static size_t queued_bytes(size_t len)
{
    return sizeof(struct mesh_queued) + ((len + 7) & ~(size_t)7);
}

static void chunk_put(struct mesh_spare *spare, struct mesh_chunk *c)
{
    if (spare->chunk != NULL || c->cap != CHUNK_BYTES - sizeof *c) {
        free(c);
        return;
    }
    spare->chunk = c;
}

static struct mesh_chunk *chunk_get(struct mesh_spare *spare, size_t need)
{
    size_t cap = CHUNK_BYTES - sizeof(struct mesh_chunk);
    struct mesh_chunk *c = spare->chunk;
    if (c != NULL && need <= cap) {
        spare->chunk = NULL;
    } else {
        cap = need > cap ? need : cap;
        c = malloc(sizeof *c + cap);
        if (c == NULL)
            return NULL;
    }
    *c = (struct mesh_chunk){.cap = cap};
    return c;
}

/* The chunk in which so many bytes find room. */
static struct mesh_chunk *chunk_for(struct mesh_backlog *b, struct mesh_spare *spare, size_t need)
{
    if (b->last != NULL && need <= b->last->cap - b->last->end)
        return b->last;
    struct mesh_chunk *c = chunk_get(spare, need);
    if (c == NULL)
        return NULL;
    if (b->last != NULL)
        b->last->next = c;
    else
        b->first = c;
    b->last = c;
    return c;
}

void mesh__gather(uint8_t *to, const struct slice *parts, unsigned n_parts)
{
    for (unsigned i = 0; i < n_parts; i++) {
        if (parts[i].len > 0)
            memcpy(to, parts[i].data, parts[i].len);
        to += parts[i].len;
    }
}

bool mesh__backlog_push(struct mesh_backlog *b, struct mesh_spare *spare, uint32_t type,
                        const struct slice *parts, unsigned n_parts, size_t len, struct mesh_note *note)
{
    size_t need = queued_bytes(len);
    struct mesh_chunk *c = chunk_for(b, spare, need);
    if (c == NULL)
        return false;
    struct mesh_queued *q = (struct mesh_queued *)(c->data + c->end);
    *q = (struct mesh_queued){.note = note, .len = len, .type = type};
    mesh__gather(q->data, parts, n_parts);
    c->end += need;
    b->messages++;
    b->bytes += need;
    return true;
}

struct mesh_queued *mesh__backlog_head(const struct mesh_backlog *b)
{
    return b->messages > 0 ? (struct mesh_queued *)(b->first->data + b->first->begin) : NULL;
}

void mesh__backlog_pop(struct mesh_backlog *b, struct mesh_spare *spare)
{
    struct mesh_chunk *c = b->first;
    ASSERT(b->messages > 0);
    size_t bytes = queued_bytes(mesh__backlog_head(b)->len);
    c->begin += bytes;
    b->bytes -= bytes;
    b->messages--;
    if (c->begin < c->end)
        return;
    b->first = c->next;
    if (b->first == NULL)
        b->last = NULL;
    chunk_put(spare, c);
}

void mesh__backlog_clear(struct mesh_backlog *b, struct mesh_spare *spare)
{
    while (b->messages > 0)
        mesh__backlog_pop(b, spare);
}

void mesh__spare_fini(struct mesh_spare *spare)
{
    free(spare->chunk);
    spare->chunk = NULL;
}
