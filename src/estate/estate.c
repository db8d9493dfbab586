// SPDX-License-Identifier: MIT
#include "estate/estate.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/assert.h"
#include "estate/estate_priv.h"

/* Each chunk is a packet at least, most are a page at least. */
#define CHUNK_BYTES_MIN 1024
#define CHUNKS_MIN      64

static size_t round_page(size_t n)
{
    return (n + ESTATE_PAGE - 1) & ~(ESTATE_PAGE - 1);
}

struct plot_shape plot__shape(uint32_t max_clients, size_t heap_bytes)
{
    struct plot_shape s = {.max_clients = max_clients, .heap_bytes = round_page(heap_bytes)};
    size_t chunks = CHUNKS_MIN + s.heap_bytes / CHUNK_BYTES_MIN;
    s.max_chunks = chunks < UINT32_MAX ? (uint32_t)chunks : UINT32_MAX - 1;
    s.chunks_at = round_page(max_clients * sizeof(struct estate_client));
    s.heap_at = s.chunks_at + round_page(s.max_chunks * sizeof(struct estate_chunk));
    s.bytes = s.heap_at + s.heap_bytes;
    return s;
}

size_t estate_bytes(uint32_t max_clients, size_t heap_bytes)
{
    return ESTATE_PAGE + ESTATE_PLOTS * plot__shape(max_clients, heap_bytes).bytes;
}

void plot__release(struct plot_shm *p, uint8_t *at, const struct plot_shape *shape, int advice)
{
    /* Empty first: dead from here on, nobody finds half a plot. */
    __atomic_store_n(&p->clients_used, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&p->chunks_used, 0, __ATOMIC_RELEASE);
    estate__fence();
    /* If the kernel does not want it, the next process uses it as it is: nobody counts on zeros. */
    (void)madvise(at, shape->bytes, advice);
    plot__set_state(p, plot__incarnation(p), PLOT_FREE);
}

/* ---- open, close */

/* New memory gets its shape; other memory must have it. */
static int settle_shape(struct estate_shm *shm, uint32_t max_clients, size_t heap_bytes)
{
    uint64_t magic = __atomic_load_n(&shm->magic, __ATOMIC_ACQUIRE);
    if (magic == 0) {
        shm->version = ESTATE_VERSION;
        shm->max_clients = max_clients;
        shm->heap_bytes = round_page(heap_bytes);
        /* Release: killed before it, the next one finds it new. */
        __atomic_store_n(&shm->magic, ESTATE_MAGIC, __ATOMIC_RELEASE);
        return 0;
    }
    bool same = magic == ESTATE_MAGIC && shm->version == ESTATE_VERSION && shm->max_clients == max_clients &&
                shm->heap_bytes == round_page(heap_bytes);
    return same ? 0 : -EPROTO;
}

/* Takes a free plot; what is in use belongs to the dead. Its number, or -EBUSY. */
static int take_plot(struct estate_shm *shm)
{
    uint64_t last = 0;
    int found = -EBUSY;
    for (unsigned i = ESTATE_PLOTS; i-- > 0;) {
        struct plot_shm *p = &shm->plots[i];
        if (plot__incarnation(p) > last)
            last = plot__incarnation(p);
        if (plot__state(p) != PLOT_FREE)
            plot__set_state(p, plot__incarnation(p), PLOT_LEGACY);
        if (plot__state(p) == PLOT_FREE)
            found = (int)i;
    }
    if (found < 0)
        return found;
    struct plot_shm *p = &shm->plots[found];
    p->clients_used = p->chunks_used = 0;
    /* Release: empty before it is live. */
    plot__set_state(p, last + 1, PLOT_LIVE);
    return found;
}

static int start(struct estate *e, struct estate_shm *shm, uint32_t max_clients, size_t heap_bytes)
{
    e->shape = plot__shape(max_clients, heap_bytes);
    int plot = settle_shape(shm, max_clients, heap_bytes);
    if (plot == 0)
        plot = take_plot(shm);
    if (plot < 0)
        return plot;
    e->plot = &shm->plots[plot];
    e->at = plot__at(shm, &e->shape, (unsigned)plot);
    e->clients = (struct estate_client *)e->at;
    e->chunks = (struct estate_chunk *)(e->at + e->shape.chunks_at);
    e->next_seq = 1;
    int r = heap__init(&e->heap, e->at + e->shape.heap_at, e->shape.heap_bytes, e->advice);
    if (r < 0)
        plot__set_state(e->plot, plot__incarnation(e->plot), PLOT_FREE);
    return r;
}

static int map_own(struct estate *e, size_t bytes, void **ret)
{
    void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mem == MAP_FAILED)
        return -ENOMEM;
    *ret = e->own_mem = mem;
    e->own_bytes = bytes;
    e->advice = MADV_DONTNEED;
    return 0;
}

static void unmap_own(struct estate *e)
{
    if (e->own_mem != NULL)
        ASSERT(munmap(e->own_mem, e->own_bytes) == 0);
}

struct estate *estate_open(void *mem, size_t bytes, uint32_t max_clients, size_t heap_bytes, int *ret_err)
{
    ASSERT(((uintptr_t)mem & (ESTATE_PAGE - 1)) == 0 && heap_bytes > 0);
    size_t needed = estate_bytes(max_clients, heap_bytes);
    struct estate *e = calloc(1, sizeof *e);
    int r = e == NULL ? -ENOMEM : mem != NULL && bytes < needed ? -EPROTO : 0;
    if (r == 0) {
        e->advice = MADV_REMOVE;
        if (mem == NULL)
            r = map_own(e, needed, &mem);
    }
    if (r == 0)
        r = start(e, mem, max_clients, heap_bytes);
    if (r == 0)
        return e;
    if (e != NULL)
        unmap_own(e);
    free(e);
    *ret_err = r;
    return NULL;
}

void estate_abandon(struct estate *e)
{
    heap__fini(&e->heap);
    unmap_own(e);
    free(e);
}

void estate_close(struct estate *e)
{
    if (e == NULL)
        return;
    ASSERT(e->n_clients == 0 && e->n_chunks == 0 && e->heap.used == 0);
    if (e->own_mem == NULL)
        plot__release(e->plot, e->at, &e->shape, e->advice);
    estate_abandon(e);
}

/* ---- heap */

void *estate_alloc(struct estate *e, size_t len)
{
    return heap__alloc(&e->heap, len);
}

void estate_free(struct estate *e, void *block)
{
    heap__free(&e->heap, block);
}

size_t estate_block_bytes(const struct estate *e, const void *block)
{
    return heap__block_bytes(&e->heap, block);
}

size_t estate_heap_used(const struct estate *e)
{
    return e->heap.used;
}

size_t estate_heap_idle(const struct estate *e)
{
    return e->heap.dirty_pages * HEAP_PAGE;
}

void estate_trim(struct estate *e)
{
    heap__purge(&e->heap, 0);
}

uint32_t estate_session(const struct estate *e, const void *block)
{
    if (block == NULL)
        return 0;
    size_t offset = (size_t)((const uint8_t *)block - e->at);
    ASSERT(offset >= e->shape.heap_at && offset < e->shape.bytes && offset % ESTATE_SESSION_UNIT == 0);
    return (uint32_t)(offset / ESTATE_SESSION_UNIT);
}

/* ---- clients */

/* A record that nobody uses, its id 0; NULL: all are in use. */
static struct estate_client *client_slot(struct estate *e)
{
    if (e->clients_free != 0) {
        struct estate_client *c = &e->clients[e->clients_free - 1];
        e->clients_free = c->worker;
        ASSERT(c->id == 0 && e->clients_free <= e->plot->clients_used);
        return c;
    }
    uint32_t used = e->plot->clients_used;
    if (used == e->shape.max_clients)
        return NULL;
    e->clients[used].id = 0; /* the memory may be a predecessor's */
    /* Release: the id is 0 before the reader looks as far as this. */
    __atomic_store_n(&e->plot->clients_used, used + 1, __ATOMIC_RELEASE);
    return &e->clients[used];
}

struct estate_client *estate_client_add(struct estate *e, const struct estate_client *like)
{
    ASSERT(like->id != 0);
    struct estate_client *c = client_slot(e);
    if (c == NULL)
        return NULL;
    c->worker = like->worker;
    c->session = like->session;
    c->port = like->port;
    c->gateway_port = like->gateway_port;
    c->ip = like->ip;
    /* Release: the rest is there before the id that makes it a record. */
    __atomic_store_n(&c->id, like->id, __ATOMIC_RELEASE);
    e->n_clients++;
    return c;
}

void estate_client_remove(struct estate *e, struct estate_client *c)
{
    ASSERT(c->id != 0 && c >= e->clients && c < e->clients + e->plot->clients_used);
    /* Release: where the client was handed on to, it is before it is gone here. */
    __atomic_store_n(&c->id, 0, __ATOMIC_RELEASE);
    estate__fence(); /* it is gone before the record or its session are used again */
    c->worker = e->clients_free;
    e->clients_free = (uint32_t)(c - e->clients) + 1;
    e->n_clients--;
}

void estate_client_bind(struct estate *e, struct estate_client *c, uint32_t worker)
{
    ASSERT(c->id != 0);
    __atomic_store_n(&c->worker, worker, __ATOMIC_RELAXED); /* one word: the old one or the new one */
}

void estate_client_session(struct estate *e, struct estate_client *c, const void *block)
{
    ASSERT(c->id != 0);
    /* Release: the block is filled before it is pointed to; and one word: the old one or the new one. */
    __atomic_store_n(&c->session, estate_session(e, block), __ATOMIC_RELEASE);
    estate__fence(); /* before the old one is used for something else */
}

uint32_t estate_clients(const struct estate *e)
{
    return e->n_clients;
}

/* ---- chunks */

static struct estate_chunk *chunk_slot(struct estate *e)
{
    if (e->chunks_free != 0) {
        struct estate_chunk *c = &e->chunks[e->chunks_free - 1];
        e->chunks_free = c->free_next;
        ASSERT(c->seq == 0 && e->chunks_free <= e->plot->chunks_used);
        return c;
    }
    uint32_t used = e->plot->chunks_used;
    if (used == e->shape.max_chunks)
        return NULL;
    e->chunks[used].seq = 0; /* the memory may be a predecessor's */
    /* Release: as for clients. */
    __atomic_store_n(&e->plot->chunks_used, used + 1, __ATOMIC_RELEASE);
    return &e->chunks[used];
}

static void chunk_slot_free(struct estate *e, struct estate_chunk *c)
{
    c->free_next = e->chunks_free;
    e->chunks_free = (uint32_t)(c - e->chunks) + 1;
}

struct estate_chunk *estate_chunk_new(struct estate *e, size_t cap)
{
    struct estate_chunk *c = cap <= UINT32_MAX ? chunk_slot(e) : NULL;
    if (c == NULL)
        return NULL;
    uint8_t *data = heap__alloc(&e->heap, cap);
    if (data == NULL) {
        chunk_slot_free(e, c);
        return NULL;
    }
    c->offset = (uint64_t)(data - e->at);
    c->data = data;
    c->cap = (uint32_t)cap;
    c->len = c->written = 0;
    /* Release: the rest is there before the number that makes it a chunk. */
    __atomic_store_n(&c->seq, e->next_seq++, __ATOMIC_RELEASE);
    e->n_chunks++;
    return c;
}

void estate_chunk_reset(struct estate *e, struct estate_chunk *c)
{
    /* len first: with the old `written` there is nothing left to write. Release: the chunk is empty before it
     * is all unwritten, and both before its new place. */
    __atomic_store_n(&c->len, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&c->written, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&c->seq, e->next_seq++, __ATOMIC_RELEASE);
    estate__fence(); /* before new packets are filled in */
}

void estate_chunk_free(struct estate *e, struct estate_chunk *c)
{
    ASSERT(c->seq != 0 && c >= e->chunks && c < e->chunks + e->plot->chunks_used);
    /* Release: where its packets were handed on to, they are before they are gone here. */
    __atomic_store_n(&c->seq, 0, __ATOMIC_RELEASE);
    estate__fence(); /* it is gone before its memory is used for something else */
    heap__free(&e->heap, c->data);
    chunk_slot_free(e, c);
    e->n_chunks--;
}

uint32_t estate_chunks(const struct estate *e)
{
    return e->n_chunks;
}
