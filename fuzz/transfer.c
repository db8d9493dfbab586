// SPDX-License-Identifier: MIT
/* Any bytes as a run of records. What is taken can be written and read again, and is the same; lists and
 * addresses in any field are read to their end. */
#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "transfer/transfer_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

union any_record {
#define MEMBER(name, type, version, fields, text) struct transfer_##name name;
    TRANSFER_RECORDS(MEMBER)
#undef MEMBER
};

static void check_parts(struct slice field, const uint8_t *begin, const uint8_t *end)
{
    struct net_addr a, again;
    struct slice list = field, element;
    struct bytes out = {0};
    size_t all = 0;
    int r;

    ASSERT(field.len == 0 || (field.data >= begin && field.data + field.len <= end));
    while ((r = transfer_list_next(&list, &element)) == 1)
        all += 1 + element.len;
    ASSERT((r == 0 && list.len == 0 && all <= field.len) || r == -EBADMSG);
    if (transfer_get_address(field, &a) < 0)
        return;
    ASSERT(transfer_put_address(&out, &a) && slice_eq(field, (struct slice){out.data, out.len}));
    ASSERT(transfer_get_address((struct slice){out.data, out.len}, &again) == 0);
    bytes_fini(&out);
}

static uint64_t number_of(const union any_record *r, const struct transfer_field *f)
{
    return *(const uint64_t *)((const char *)r + f->offset);
}

static struct slice slice_of(const union any_record *r, const struct transfer_field *f)
{
    return *(const struct slice *)((const char *)r + f->offset);
}

static void check_same(const struct transfer_layout *l, const union any_record *a, const union any_record *b)
{
    for (unsigned tag = 0; tag < l->n; tag++) {
        const struct transfer_field *f = &l->fields[tag];
        if (f->kind == TRANSFER_NUMBER)
            ASSERT(number_of(a, f) == number_of(b, f));
        else if (f->kind == TRANSFER_BYTES)
            ASSERT(slice_eq(slice_of(a, f), slice_of(b, f)));
    }
}

static const struct transfer_layout *layout_of(unsigned type)
{
    const struct transfer_layout *l;
    for (unsigned i = 0; (l = transfer__layout(i)) != NULL && l->type != type; i++)
        ;
    ASSERT(l != NULL); /* others are refused by transfer_next */
    return l;
}

static void check_record(const struct transfer_record *rec)
{
    const struct transfer_layout *l = layout_of(rec->type);
    union any_record r, again;
    struct transfer_record rec_again;
    struct bytes out = {0};

    if (transfer__get(l, rec->fields, &r) < 0)
        return;
    for (unsigned tag = 0; tag < l->n; tag++)
        if (l->fields[tag].kind == TRANSFER_BYTES)
            check_parts(slice_of(&r, &l->fields[tag]), rec->fields.data, rec->fields.data + rec->fields.len);
    ASSERT(transfer__put(&out, l, &r, true));
    struct slice run = {out.data, out.len};
    ASSERT(transfer_next(&run, &rec_again) == 1 && run.len == 0 && rec_again.type == rec->type);
    ASSERT(rec_again.fields.len <= rec->fields.len); /* there is no shorter form than ours */
    ASSERT(transfer__get(l, rec_again.fields, &again) == 0);
    check_same(l, &r, &again);
    bytes_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct slice run = {data, len};
    struct transfer_record rec;
    int r;

    while ((r = transfer_next(&run, &rec)) == 1) {
        ASSERT(rec.handle == -1 && rec.fields.data >= data && rec.fields.data + rec.fields.len == run.data);
        check_record(&rec);
    }
    ASSERT(r == 0 ? run.len == 0 : r == -EBADMSG);
    return 0;
}
