// SPDX-License-Identifier: MIT
#include "transfer/transfer_priv.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"

#define VARINT_MAX 10 /* bytes of 64 bits */
#define KEY_MAX    3  /* of a tag */

enum wire_type { WIRE_NUMBER = 0, WIRE_BYTES = 2 };

/* ---- numbers */

static inline uint8_t *write_varint(uint8_t *to, uint64_t v)
{
    while (v >= 0x80) {
        *to++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *to++ = (uint8_t)v;
    return to;
}

/* Behind it, or NULL: it has no end, or does not fit into 64 bits. */
static inline const uint8_t *read_varint(const uint8_t *at, const uint8_t *end, uint64_t *ret)
{
    uint64_t v = 0;

    for (unsigned shift = 0; at < end && shift < 64; shift += 7) {
        uint8_t c = *at++;
        if (shift == 63 && c > 1)
            return NULL;
        v |= (uint64_t)(c & 0x7F) << shift;
        if (c < 0x80) {
            *ret = v;
            return at;
        }
    }
    return NULL;
}

static const uint8_t *read_slice(const uint8_t *at, const uint8_t *end, struct slice *ret)
{
    uint64_t len;

    at = read_varint(at, end, &len);
    if (at == NULL || len > (size_t)(end - at))
        return NULL;
    *ret = (struct slice){at, (size_t)len};
    return at + len;
}

/* ---- head */

static bool is_known(uint16_t type)
{
    switch (type) {
#define CASE(name, number, version, fields, text) case number:
        TRANSFER_RECORDS(CASE)
#undef CASE
        return true;
    default: return false;
    }
}

void transfer__head_write(uint8_t to[TRANSFER_HEAD_BYTES], const struct transfer_head *h)
{
    transfer__put_u16(to, h->type);
    transfer__put_u16(to + 2, h->version);
    transfer__put_u32(to + 4, 0);
    transfer__put_u32(to + 8, h->len);
}

int transfer__head_read(const uint8_t *from, struct transfer_head *ret)
{
    *ret = (struct transfer_head){
        .type = transfer__get_u16(from),
        .version = transfer__get_u16(from + 2),
        .len = transfer__get_u32(from + 8),
    };
    return is_known(ret->type) && transfer__get_u32(from + 4) == 0 ? 0 : -EBADMSG;
}

/* ---- any record */

static uint64_t number_at(const void *r, const struct transfer_field *f)
{
    return *(const uint64_t *)((const char *)r + f->offset);
}

static struct slice slice_at(const void *r, const struct transfer_field *f)
{
    return *(const struct slice *)((const char *)r + f->offset);
}

/* At most. */
static size_t size_of_fields(const struct transfer_layout *l, const void *r)
{
    size_t size = (size_t)l->n * (KEY_MAX + VARINT_MAX);
    for (unsigned tag = 0; tag < l->n; tag++) {
        if (l->fields[tag].kind == TRANSFER_BYTES)
            size += slice_at(r, &l->fields[tag]).len;
    }
    return size;
}

static uint8_t *write_number(uint8_t *to, unsigned tag, uint64_t v)
{
    if (v == 0)
        return to;
    return write_varint(write_varint(to, tag << 3 | WIRE_NUMBER), v);
}

static uint8_t *write_bytes(uint8_t *to, unsigned tag, struct slice v)
{
    if (v.len == 0)
        return to;
    to = write_varint(write_varint(to, tag << 3 | WIRE_BYTES), v.len);
    memcpy(to, v.data, v.len);
    return to + v.len;
}

/* With -Dtransfer_future=true this writes what a later version might: in each record fields that nobody
 * knows, and none of those that only feed figures. What the other build makes of it is tested
 * (tests/test_upgrade.py, TGG_BUILD_OTHER). */
#ifdef TGG_TRANSFER_FUTURE
#define FUTURE_NUMBER 900
#define FUTURE_BYTES  901
#define FUTURE_ROOM   64
#define FUTURE_LATER  1 /* versions */

static bool is_left_out(const struct transfer_field *f)
{
    static const char *const names[] = {"ages",     "control_frames", "since_unix_ms", "packets_in",
                                        "bytes_in", "events_out",     "bytes_out"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (f->name != NULL && strcmp(f->name, names[i]) == 0)
            return true;
    }
    return false;
}

static uint8_t *write_future(uint8_t *to)
{
    static const uint8_t text[] = "from a later version";
    to = write_number(to, FUTURE_NUMBER, UINT64_MAX);
    return write_bytes(to, FUTURE_BYTES, (struct slice){text, sizeof text - 1});
}
#else
#define FUTURE_ROOM  0
#define FUTURE_LATER 0
static inline bool is_left_out(const struct transfer_field *f)
{
    return false;
}
static inline uint8_t *write_future(uint8_t *to)
{
    return to;
}
#endif

bool transfer__put(struct bytes *out, const struct transfer_layout *l, const void *r, bool with_head)
{
    size_t head_len = with_head ? TRANSFER_HEAD_BYTES : 0;
    size_t room = size_of_fields(l, r) + head_len + FUTURE_ROOM;

    if (room > UINT32_MAX)
        out->failed = true;
    if (!bytes_reserve(out, room))
        return false;
    uint8_t *head = out->data + out->len, *begin = head + head_len, *at = write_future(begin);
    for (unsigned tag = 0; tag < l->n; tag++) {
        const struct transfer_field *f = &l->fields[tag];
        if (is_left_out(f))
            continue;
        if (f->kind == TRANSFER_NUMBER)
            at = write_number(at, tag, number_at(r, f));
        else if (f->kind == TRANSFER_BYTES)
            at = write_bytes(at, tag, slice_at(r, f));
    }
    if (with_head) {
        struct transfer_head h = {l->type, l->version + FUTURE_LATER, (uint32_t)(at - begin)};
        transfer__head_write(head, &h);
    }
    out->len = (size_t)(at - out->data);
    return true;
}

/* A field that is known must be of its kind; of one that comes twice, the second counts. */
static bool take_number(const struct transfer_layout *l, uint64_t tag, uint64_t v, void *ret)
{
    if (tag >= l->n || l->fields[tag].kind == TRANSFER_NO_FIELD)
        return true;
    if (l->fields[tag].kind != TRANSFER_NUMBER)
        return false;
    *(uint64_t *)((char *)ret + l->fields[tag].offset) = v;
    return true;
}

static bool take_bytes(const struct transfer_layout *l, uint64_t tag, struct slice v, void *ret)
{
    if (tag >= l->n || l->fields[tag].kind == TRANSFER_NO_FIELD)
        return true;
    if (l->fields[tag].kind != TRANSFER_BYTES)
        return false;
    *(struct slice *)((char *)ret + l->fields[tag].offset) = v;
    return true;
}

static const uint8_t *read_field(const struct transfer_layout *l, const uint8_t *at, const uint8_t *end,
                                 void *ret)
{
    uint64_t key, number;
    struct slice bytes;

    at = read_varint(at, end, &key);
    if (at == NULL || key >> 3 == 0)
        return NULL;
    switch (key & 7) {
    case WIRE_NUMBER:
        at = read_varint(at, end, &number);
        return at != NULL && take_number(l, key >> 3, number, ret) ? at : NULL;
    case WIRE_BYTES:
        at = read_slice(at, end, &bytes);
        return at != NULL && take_bytes(l, key >> 3, bytes, ret) ? at : NULL;
    default: return NULL;
    }
}

int transfer__get(const struct transfer_layout *l, struct slice fields, void *ret)
{
    const uint8_t *at = fields.data, *end = at + fields.len;

    memset(ret, 0, l->size);
    while (at != end) {
        at = read_field(l, at, end, ret);
        if (at == NULL)
            return -EBADMSG;
    }
    return 0;
}

/* ---- the records: of each a table of its fields by tag, and the functions of transfer.h. `struct of` lets a
 * field be found by its name alone. */

#define FIELD_U(tag, field, text) [tag] = {TRANSFER_NUMBER, offsetof(struct of, r.field), #field, text},
#define FIELD_B(tag, field, text) [tag] = {TRANSFER_BYTES, offsetof(struct of, r.field), #field, text},
#define RECORD(record, number, its_version, list, what)                                                      \
    static const struct transfer_layout *record##_layout(void)                                               \
    {                                                                                                        \
        struct of {                                                                                          \
            struct transfer_##record r;                                                                      \
        };                                                                                                   \
        static const struct transfer_field table[] = {list(FIELD_U, FIELD_B)};                               \
        static const struct transfer_layout layout = {                                                       \
            .name = #record,                                                                                 \
            .text = what,                                                                                    \
            .type = number,                                                                                  \
            .version = its_version,                                                                          \
            .n = sizeof table / sizeof table[0],                                                             \
            .size = sizeof(struct of),                                                                       \
            .fields = table,                                                                                 \
        };                                                                                                   \
        return &layout;                                                                                      \
    }                                                                                                        \
    bool transfer_put_##record(struct bytes *out, const struct transfer_##record *r)                         \
    {                                                                                                        \
        return transfer__put(out, record##_layout(), r, true);                                               \
    }                                                                                                        \
    bool transfer_put_##record##_fields(struct bytes *out, const struct transfer_##record *r)                \
    {                                                                                                        \
        return transfer__put(out, record##_layout(), r, false);                                              \
    }                                                                                                        \
    int transfer_get_##record(struct slice fields, struct transfer_##record *ret)                            \
    {                                                                                                        \
        return transfer__get(record##_layout(), fields, ret);                                                \
    }
TRANSFER_RECORDS(RECORD)

const struct transfer_layout *transfer__layout(unsigned i)
{
#define LAYOUT(record, number, version, list, text) record##_layout,
    static const struct transfer_layout *(*const layouts[])(void) = {TRANSFER_RECORDS(LAYOUT)};
#undef LAYOUT
    return i < sizeof layouts / sizeof layouts[0] ? layouts[i]() : NULL;
}

int transfer_next(struct slice *run, struct transfer_record *ret)
{
    struct transfer_head h;

    if (run->len == 0)
        return 0;
    if (run->len < TRANSFER_HEAD_BYTES || transfer__head_read(run->data, &h) < 0 ||
        h.len > run->len - TRANSFER_HEAD_BYTES)
        return -EBADMSG;
    *ret = (struct transfer_record){h.type, {run->data + TRANSFER_HEAD_BYTES, h.len}, -1};
    run->data += TRANSFER_HEAD_BYTES + h.len;
    run->len -= TRANSFER_HEAD_BYTES + h.len;
    return 1;
}

/* ---- parts of fields */

bool transfer_list_add_parts(struct bytes *out, const struct slice *parts, unsigned n)
{
    size_t len = 0;

    for (unsigned i = 0; i < n; i++)
        len += parts[i].len;
    if (!bytes_reserve(out, VARINT_MAX + len))
        return false;
    uint8_t *at = write_varint(out->data + out->len, len);
    for (unsigned i = 0; i < n; i++) {
        if (parts[i].len > 0)
            memcpy(at, parts[i].data, parts[i].len);
        at += parts[i].len;
    }
    out->len = (size_t)(at - out->data);
    return true;
}

bool transfer_list_add(struct bytes *out, const void *data, size_t len)
{
    return transfer_list_add_parts(out, &(struct slice){data, len}, 1);
}

int transfer_list_next(struct slice *list, struct slice *ret)
{
    if (list->len == 0)
        return 0;
    const uint8_t *end = list->data + list->len, *at = read_slice(list->data, end, ret);
    if (at == NULL)
        return -EBADMSG;
    *list = (struct slice){at, (size_t)(end - at)};
    return 1;
}

/* An address: a byte, 4 or 6 or 0 (a Unix socket); 4, 16 or no bytes; port, u16 little-endian. */
static uint8_t ip_len_of(const struct net_addr *a)
{
    return a->family == AF_INET ? 4 : a->family == AF_INET6 ? 16 : 0;
}

bool transfer_put_address(struct bytes *out, const struct net_addr *addr)
{
    uint8_t ip_len = ip_len_of(addr), text[1 + 16 + 2];

    text[0] = ip_len == 4 ? 4 : ip_len == 16 ? 6 : 0;
    memcpy(text + 1, addr->ip, ip_len);
    transfer__put_u16(text + 1 + ip_len, addr->port);
    return bytes_append(out, text, 1u + ip_len + 2);
}

int transfer_get_address(struct slice field, struct net_addr *ret)
{
    static const uint8_t families[7] = {[0] = AF_UNIX, [4] = AF_INET, [6] = AF_INET6};
    struct net_addr a = {.family = field.len > 0 && field.data[0] < 7 ? families[field.data[0]] : 0};
    uint8_t ip_len = ip_len_of(&a);

    if (a.family == 0 || field.len != 1u + ip_len + 2)
        return -EBADMSG;
    memcpy(a.ip, field.data + 1, ip_len);
    a.port = transfer__get_u16(field.data + 1 + ip_len);
    *ret = a;
    return 0;
}

int transfer_put_all(struct transfer_sink *s, const struct transfer_plan *plan, struct slice record)
{
    int r = 0;
    for (unsigned to = 0; to < plan->n_shards && r == 0; to++)
        r = s->put(s, to, record, -1);
    return r;
}
