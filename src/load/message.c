// SPDX-License-Identifier: MIT
#include "load/message.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- marks */

static const char digits[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static char *digits_put(char *p, uint64_t value, unsigned n)
{
    for (unsigned i = n; i-- > 0; value >>= 6)
        p[i] = digits[value & 63];
    return p + n;
}

static int digit_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

static bool digits_take(const uint8_t **p, unsigned n, uint64_t *ret)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < n; i++) {
        int d = digit_value((*p)[i]);
        if (d < 0)
            return false;
        value = value << 6 | (uint64_t)d;
    }
    *p += n;
    *ret = value;
    return true;
}

void mark_write(const struct mark *m, char text[MARK_BYTES])
{
    char *p = text;
    memcpy(p, MARK_PREFIX, 4);
    p = digits_put(p + 4, m->run, 4);
    p = digits_put(p, m->client, 4);
    p = digits_put(p, m->seq, 4);
    digits_put(p, m->time_ns, 8);
}

static bool mark_take(const uint8_t *p, struct mark *ret)
{
    uint64_t run, client, seq, time_ns;
    p += 4;
    if (!digits_take(&p, 4, &run) || !digits_take(&p, 4, &client) || !digits_take(&p, 4, &seq) ||
        !digits_take(&p, 8, &time_ns))
        return false;
    *ret = (struct mark){(uint32_t)run, (uint32_t)client, (uint32_t)seq, time_ns};
    return true;
}

size_t mark_find(const uint8_t *data, size_t len, struct mark *ret)
{
    size_t at = 0;
    while (len - at >= MARK_BYTES) {
        const uint8_t *p = memmem(data + at, len - at, MARK_PREFIX, 4);
        if (p == NULL || (size_t)(data + len - p) < MARK_BYTES)
            return 0;
        if (mark_take(p, ret))
            return (size_t)(p - data) + MARK_BYTES;
        at = (size_t)(p - data) + 1;
    }
    return 0;
}

uint64_t mark_age_ns(const struct mark *m, uint64_t now_ns)
{
    uint64_t age = (now_ns - m->time_ns) & MARK_TIME_MASK;
    return age > MARK_TIME_MASK / 2 ? 0 : age;
}

/* ---- sizes */

static bool take_number(const char **p, uint32_t min, uint32_t max, uint32_t *ret)
{
    char *end;
    if (**p < '0' || **p > '9')
        return false;
    unsigned long long v = strtoull(*p, &end, 10);
    if (v < min || v > max)
        return false;
    *p = end;
    *ret = (uint32_t)v;
    return true;
}

bool mix_parse(const char *text, struct mix *ret)
{
    struct mix m = {0};
    for (const char *p = text;; p++) {
        struct mix_part part = {.weight = 1};
        if (m.n == MIX_MAX || !take_number(&p, 1, MESSAGE_SIZE_MAX, &part.size))
            return false;
        if (*p == ':') {
            p++;
            if (!take_number(&p, 1, 1000000, &part.weight))
                return false;
        }
        m.parts[m.n++] = part;
        m.total += part.weight;
        if (*p == '\0')
            break;
        if (*p != ',')
            return false;
    }
    *ret = m;
    return true;
}

static uint32_t gcd(uint32_t a, uint32_t b)
{
    while (b != 0) {
        uint32_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

/* Steps of about 0.618 of the whole, which has no factor in common with it, come by every place once before
 * they come by one again, and never stay in one region. */
static uint32_t step_of(uint32_t total)
{
    uint32_t step = (uint32_t)((double)total * 0.6180339887);
    if (step == 0)
        step = 1;
    while (gcd(step, total) != 1)
        step++;
    return step;
}

uint32_t mix_size(const struct mix *m, uint64_t n)
{
    if (m->n == 1)
        return m->parts[0].size;
    uint64_t place = n % m->total * step_of(m->total) % m->total;
    for (uint32_t i = 0; i < m->n; i++) {
        if (place < m->parts[i].weight)
            return m->parts[i].size;
        place -= m->parts[i].weight;
    }
    return m->parts[0].size;
}

uint32_t mix_size_min(const struct mix *m)
{
    uint32_t min = UINT32_MAX;
    for (uint32_t i = 0; i < m->n; i++)
        min = m->parts[i].size < min ? m->parts[i].size : min;
    return min;
}

uint32_t mix_size_max(const struct mix *m)
{
    uint32_t max = 0;
    for (uint32_t i = 0; i < m->n; i++)
        max = m->parts[i].size > max ? m->parts[i].size : max;
    return max;
}

uint64_t mix_mean_milli(const struct mix *m)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < m->n; i++)
        sum += (uint64_t)m->parts[i].size * m->parts[i].weight;
    return m->total == 0 ? 0 : sum * 1000 / m->total;
}

/* ---- templates */

static const struct piece_name {
    const char *name;
    enum message_piece kind;
} piece_names[] = {
    {"{id}", PIECE_ID},     {"{seq}", PIECE_SEQ},   {"{time}", PIECE_TIME},
    {"{mark}", PIECE_MARK}, {"{fill}", PIECE_FILL},
};

static const struct piece_name *piece_at(const char *p)
{
    for (size_t i = 0; i < sizeof(piece_names) / sizeof(piece_names[0]); i++) {
        if (strncmp(p, piece_names[i].name, strlen(piece_names[i].name)) == 0)
            return &piece_names[i];
    }
    return NULL;
}

static bool piece_add(struct template *t, enum message_piece kind, const char *text, size_t len)
{
    if (kind == PIECE_TEXT && len == 0)
        return true;
    if (t->n == TEMPLATE_PIECES_MAX)
        return false;
    t->pieces[t->n++] = (struct template_piece){kind, text, (uint32_t)len};
    return true;
}

bool template_parse(const char *text, struct template *ret)
{
    struct template t = {0};
    const char *literal = text;
    for (const char *p = text; *p != '\0';) {
        const struct piece_name *piece = *p == '{' ? piece_at(p) : NULL;
        if (piece == NULL) {
            p++;
            continue;
        }
        if (!piece_add(&t, PIECE_TEXT, literal, (size_t)(p - literal)) ||
            !piece_add(&t, piece->kind, NULL, 0))
            return false;
        literal = p += strlen(piece->name);
    }
    if (!piece_add(&t, PIECE_TEXT, literal, strlen(literal)))
        return false;
    *ret = t;
    return true;
}

bool template_has(const struct template *t, enum message_piece kind)
{
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->pieces[i].kind == kind)
            return true;
    }
    return false;
}

/* A piece other than {fill}, as text. */
static size_t piece_text(const struct template_piece *piece, const struct message_values *v, char *buf,
                         const char **ret)
{
    const size_t cap = MARK_BYTES + 1;
    *ret = buf;
    switch (piece->kind) {
    case PIECE_TEXT: *ret = piece->text; return piece->len;
    case PIECE_ID: return (size_t)snprintf(buf, cap, "%" PRIu64, v->id);
    case PIECE_SEQ: return (size_t)snprintf(buf, cap, "%" PRIu64, v->seq);
    case PIECE_TIME: return (size_t)snprintf(buf, cap, "%" PRIu64, v->time_ms);
    case PIECE_MARK: mark_write(&v->mark, buf); return MARK_BYTES;
    case PIECE_FILL: break;
    }
    return 0;
}

/* How long it is without {fill}. */
static size_t bare_len(const struct template *t, const struct message_values *v)
{
    char buf[MARK_BYTES + 1];
    const char *text;
    size_t len = 0;
    for (uint32_t i = 0; i < t->n; i++)
        len += piece_text(&t->pieces[i], v, buf, &text);
    return len;
}

static void letters_put(uint8_t *p, size_t len)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    size_t at = 0;
    for (; at + 26 <= len; at += 26)
        memcpy(p + at, letters, 26);
    memcpy(p + at, letters, len - at);
}

/* Only the first {fill} is filled. */
size_t template_fill(const struct template *t, const struct message_values *v, size_t size, uint8_t *out,
                     size_t cap)
{
    size_t bare = template_has(t, PIECE_FILL) ? bare_len(t, v) : size, at = 0;
    size_t fill = size > bare ? size - bare : 0;
    for (uint32_t i = 0; i < t->n; i++) {
        char buf[MARK_BYTES + 1];
        const char *text;
        bool is_fill = t->pieces[i].kind == PIECE_FILL;
        size_t n = is_fill ? fill : piece_text(&t->pieces[i], v, buf, &text);
        if (n > cap - at)
            n = cap - at;
        if (is_fill) {
            letters_put(out + at, n);
            fill = 0;
        } else {
            memcpy(out + at, text, n);
        }
        at += n;
    }
    return at;
}

size_t template_len_max(const struct template *t, size_t size)
{
    struct message_values v = {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0}};
    size_t bare = bare_len(t, &v);
    return bare > size ? bare : size;
}
