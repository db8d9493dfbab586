// SPDX-License-Identifier: MIT
#include "register/register_priv.h"

#include <stdlib.h>
#include <string.h>

struct entry {
    struct slice address;
    size_t index;
};

static int compare(const void *va, const void *vb)
{
    const struct entry *a = va, *b = vb;
    size_t n = a->address.len < b->address.len ? a->address.len : b->address.len;
    int d = memcmp(a->address.data, b->address.data, n);
    if (d != 0)
        return d;
    if (a->address.len != b->address.len)
        return a->address.len < b->address.len ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

static size_t count(const struct list *head)
{
    size_t n = 0;
    for (const struct list *l = head->next; l != head; l = l->next)
        n++;
    return n;
}

/* Keep the first of each; returns how many. By sorting, because a list of thousands is made anew at every
 * change. */
static size_t unique(struct slice *all, size_t n, struct entry *sorted)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        sorted[i] = (struct entry){all[i], i};
    qsort(sorted, n, sizeof *sorted, compare);
    for (size_t i = 1; i < n; i++) {
        if (slice_eq(sorted[i].address, sorted[i - 1].address))
            all[sorted[i].index].len = 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (all[i].len > 0)
            all[kept++] = all[i];
    }
    return kept;
}

void register__append_list(const struct register_server *s, struct bytes *out)
{
    size_t n = 0, cap = count(&s->gateways);
    struct slice *all = calloc(cap + 1, sizeof *all);
    struct entry *sorted = calloc(cap + 1, sizeof *sorted);

    if (all == NULL || sorted == NULL) {
        out->failed = true;
        goto out;
    }
    for (const struct list *l = s->gateways.next; l != &s->gateways; l = l->next) {
        const struct peer *p = CONTAINER_OF(l, struct peer, gateway_link);
        all[n++] = (struct slice){p->address.data, p->address.len};
    }
    n = unique(all, n, sorted);
    register_line_broadcast(out, all, n);
out:
    free(all);
    free(sorted);
}

bool register__address_ok(struct slice address)
{
    if (address.len == 0 || address.len > REGISTER_ADDRESS_MAX)
        return false;
    for (size_t i = 0; i < address.len; i++) {
        if (address.data[i] <= 0x20 || address.data[i] >= 0x7f)
            return false;
    }
    return true;
}
