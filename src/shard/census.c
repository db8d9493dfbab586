// SPDX-License-Identifier: MIT
#include "shard/census.h"

#include <errno.h>
#include <stdlib.h>

/* Clients that come while it is counted find a place, too. */
#define SPARE 1024

int census_begin(struct shard *s, struct census **ret)
{
    uint32_t cap = s->n_clients + s->n_clients / 8 + SPARE;
    unsigned n = 0;
    for (const struct census *other = s->census; other != NULL; other = other->next)
        n++;
    if (n >= CENSUS_MAX)
        return -EBUSY;
    struct census *made = calloc(1, sizeof *made);
    struct census_row *rows = calloc(cap, sizeof *rows);
    if (made == NULL || rows == NULL) {
        free(made);
        free(rows);
        return -ENOMEM;
    }
    *made = (struct census){.next = s->census, .rows = rows, .cap = cap};
    *ret = s->census = made;
    return 0;
}

void census_end(struct shard *s, struct census *n)
{
    struct census **at = &s->census;
    while (*at != n)
        at = &(*at)->next;
    *at = n->next;
    free(n->rows);
    free(n);
}

void census_in(struct shard *s, const struct client *c, size_t len)
{
    for (struct census *n = s->census; n != NULL; n = n->next) {
        struct census_row *row = census_row(n, c);
        if (row == NULL)
            continue;
        row->messages_in++;
        row->bytes_in += len;
    }
}

void census_out(struct shard *s, const struct client *c, size_t len)
{
    for (struct census *n = s->census; n != NULL; n = n->next) {
        struct census_row *row = census_row(n, c);
        if (row == NULL)
            continue;
        row->messages_out++;
        row->bytes_out += len;
    }
}

void census_came(struct shard *s, uint32_t at)
{
    for (struct census *n = s->census; n != NULL; n = n->next)
        if (at < n->cap)
            n->rows[at] = (struct census_row){0};
}

void census_moved(struct shard *s, uint32_t from, uint32_t to)
{
    for (struct census *n = s->census; n != NULL; n = n->next)
        if (to < n->cap)
            n->rows[to] = from < n->cap ? n->rows[from] : (struct census_row){0};
}
