// SPDX-License-Identifier: MIT
#include "proto/ws/deflate.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZLIB_CONST
#include <zlib.h>

#include "base/assert.h"
#include "proto/line/http_parse.h"

#define WINDOW_BITS_MIN 9
#define WINDOW_BITS_MAX 15
#define MEM_LEVEL_MAX   9

/* --- Reading offers (the grammar of RFC 6455 section 9.1)
 *
 *   list   = offer *( "," offer )           elements may be empty
 *   offer  = token *( ";" param )
 *   param  = token [ "=" ( token | quoted ) ]   quoted: its text is a token, too */

struct reader {
    const uint8_t *p, *end;
};

static bool is_token_char(uint8_t c)
{
    if (c <= ' ' || c >= 0x7F)
        return false;
    return strchr("()<>@,;:\\\"/[]?={}", c) == NULL;
}

/* The next byte that is no white space, which is passed; 0 at the end. */
static uint8_t peek(struct reader *r)
{
    while (r->p != r->end && (*r->p == ' ' || *r->p == '\t'))
        r->p++;
    return r->p != r->end ? *r->p : 0;
}

static bool take(struct reader *r, uint8_t c)
{
    if (peek(r) != c)
        return false;
    r->p++;
    return true;
}

static struct slice take_token(struct reader *r)
{
    peek(r);
    const uint8_t *start = r->p;
    while (r->p != r->end && is_token_char(*r->p))
        r->p++;
    return (struct slice){start, (size_t)(r->p - start)};
}

/* The value of a parameter, without quotes. len counts all of it, text has what fits: no value that we know
 * has more than 2 characters. */
struct value {
    size_t len;
    char text[2];
};

static bool add_char(struct value *v, uint8_t c)
{
    if (!is_token_char(c))
        return false;
    if (v->len < sizeof v->text)
        v->text[v->len] = (char)c;
    v->len++;
    return true;
}

/* Behind the opening quote. */
static bool take_quoted(struct reader *r, struct value *v)
{
    while (r->p != r->end) {
        uint8_t c = *r->p++;
        if (c == '"')
            return v->len > 0;
        if (c == '\\' && r->p != r->end)
            c = *r->p++;
        if (!add_char(v, c))
            return false;
    }
    return false;
}

static bool take_value(struct reader *r, struct value *ret)
{
    *ret = (struct value){0};
    if (take(r, '"'))
        return take_quoted(r, ret);
    struct slice token = take_token(r);
    for (size_t i = 0; i < token.len; i++)
        add_char(ret, token.data[i]);
    return token.len > 0;
}

/* From the start of an offer to the comma behind it, or the end. A quoted string may have commas. */
static void skip_offer(struct reader *r)
{
    bool quoted = false;
    for (; r->p != r->end && (quoted || *r->p != ','); r->p++) {
        if (*r->p == '"')
            quoted = !quoted;
        else if (*r->p == '\\' && quoted && r->p + 1 != r->end)
            r->p++;
    }
}

/* --- The parameters (section 7.1) */

enum param {
    SERVER_NO_TAKEOVER,
    CLIENT_NO_TAKEOVER,
    SERVER_BITS,
    CLIENT_BITS,
    N_PARAMS,
};

static const struct {
    const char *name;
    bool may_have_value, needs_value;
} params[N_PARAMS] = {
    [SERVER_NO_TAKEOVER] = {"server_no_context_takeover", false, false},
    [CLIENT_NO_TAKEOVER] = {"client_no_context_takeover", false, false},
    [SERVER_BITS] = {"server_max_window_bits", true, true},
    [CLIENT_BITS] = {"client_max_window_bits", true, false},
};

struct offer {
    bool has[N_PARAMS];
    uint8_t bits[N_PARAMS]; /* 8 to 15; 15 without a value */
};

/* 8 to 15 without leading zeros; 0: anything else. */
static uint8_t window_bits_of(const struct value *v)
{
    if (v->len == 1 && (v->text[0] == '8' || v->text[0] == '9'))
        return (uint8_t)(v->text[0] - '0');
    if (v->len == 2 && v->text[0] == '1' && v->text[1] >= '0' && v->text[1] <= '5')
        return (uint8_t)(10 + v->text[1] - '0');
    return 0;
}

/* NULL in v: no value. Names are compared exactly: who is not understood goes uncompressed, whom we
 * misunderstood would not understand us. */
static bool add_param(struct offer *o, struct slice name, const struct value *v)
{
    for (unsigned i = 0; i < N_PARAMS; i++) {
        if (!slice_eq_str(name, params[i].name))
            continue;
        if (o->has[i] || (v == NULL ? params[i].needs_value : !params[i].may_have_value))
            return false;
        o->has[i] = true;
        o->bits[i] = v == NULL ? WINDOW_BITS_MAX : window_bits_of(v);
        return o->bits[i] != 0;
    }
    return false;
}

static bool take_param(struct reader *r, struct offer *o)
{
    struct value value;
    struct slice name = take_token(r);
    if (name.len == 0)
        return false;
    if (!take(r, '='))
        return add_param(o, name, NULL);
    return take_value(r, &value) && add_param(o, name, &value);
}

/* True: an offer of permessage-deflate that is well-formed. In any case r is at a comma or at the end. */
static bool take_offer(struct reader *r, struct offer *ret)
{
    *ret = (struct offer){.bits = {[SERVER_BITS] = WINDOW_BITS_MAX, [CLIENT_BITS] = WINDOW_BITS_MAX}};
    struct reader start = *r;
    bool good = slice_eq_str(take_token(r), "permessage-deflate");
    while (good && take(r, ';'))
        good = take_param(r, ret);
    if (good && (peek(r) == ',' || r->p == r->end))
        return true;
    *r = start; /* it may have failed inside a quoted string */
    skip_offer(r);
    return false;
}

/* --- Agreeing */

static uint8_t min_bits(uint8_t a, uint8_t b)
{
    return a < b ? a : b;
}

static bool agree(const struct offer *o, const struct ws_deflate_wish *wish, struct ws_deflate_params *ret)
{
    if (o->bits[SERVER_BITS] < WINDOW_BITS_MIN)
        return false;
    ret->takeover = wish->takeover && !o->has[SERVER_NO_TAKEOVER];
    /* A client that says it will not remember is held to it: that saves our memory. */
    ret->client_takeover = wish->client_takeover && !o->has[CLIENT_NO_TAKEOVER];
    ret->window_bits = min_bits(wish->window_bits, o->bits[SERVER_BITS]);
    ret->client_window_bits =
        o->has[CLIENT_BITS] ? min_bits(wish->client_window_bits, o->bits[CLIENT_BITS]) : WINDOW_BITS_MAX;
    return true;
}

static void write_answer(const struct offer *o, const struct ws_deflate_params *p, char *header, size_t cap)
{
    char server_bits[40] = "", client_bits[40] = "";
    if (o->has[SERVER_BITS])
        snprintf(server_bits, sizeof server_bits, "; %s=%u", params[SERVER_BITS].name, p->window_bits);
    if (o->has[CLIENT_BITS] && p->client_window_bits < WINDOW_BITS_MAX)
        snprintf(client_bits, sizeof client_bits, "; %s=%u", params[CLIENT_BITS].name, p->client_window_bits);
    int n = snprintf(header, cap, "Sec-WebSocket-Extensions: permessage-deflate%s%s%s%s\r\n",
                     p->takeover ? "" : "; server_no_context_takeover",
                     p->client_takeover ? "" : "; client_no_context_takeover", server_bits, client_bits);
    ASSERT(n > 0 && (size_t)n < cap);
}

static bool window_ok(unsigned bits)
{
    return bits >= WINDOW_BITS_MIN && bits <= WINDOW_BITS_MAX;
}

bool ws_deflate_negotiate(const struct http_request *req, const struct ws_deflate_wish *wish,
                          struct ws_deflate_params *ret, char *header, size_t cap)
{
    ASSERT(window_ok(wish->window_bits) && window_ok(wish->client_window_bits));
    ASSERT(cap >= WS_DEFLATE_HEADER_MAX);
    for (unsigned i = 0; i < req->n_headers; i++) {
        const struct http_header *h = &req->headers[i];
        if (!http_slice_is(h->name, "Sec-WebSocket-Extensions") || h->value.len == 0)
            continue;
        struct reader r = {h->value.data, h->value.data + h->value.len};
        do {
            struct offer offer;
            struct ws_deflate_params p;
            if (!take_offer(&r, &offer) || !agree(&offer, wish, &p))
                continue;
            write_answer(&offer, &p, header, cap);
            if (p.client_window_bits < WINDOW_BITS_MIN)
                p.client_window_bits = WINDOW_BITS_MIN;
            *ret = p;
            return true;
        } while (take(&r, ','));
    }
    return false;
}

/* --- What both directions have in common */

/* The end of a message that is not sent (section 7.2.1): LEN and NLEN of an empty stored block. */
static const uint8_t tail[4] = {0x00, 0x00, 0xFF, 0xFF};

/* An allocator that counts what zlib asks for. */
static void *counting_alloc(void *opaque, unsigned n, unsigned size)
{
    *(size_t *)opaque += (size_t)n * size;
    return calloc(n, size);
}

static void counting_free(void *opaque, void *p)
{
    free(p);
}

/* Where zlib is to write next: the room that out has, made to be room_min at least, and not more than left.
 * 0: no memory. */
static unsigned next_room(z_stream *z, struct bytes *out, size_t room_min, size_t left)
{
    if (!bytes_reserve(out, room_min < left ? room_min : left))
        return 0;
    size_t room = out->cap - out->len;
    room = room < left ? room : left;
    z->next_out = out->data + out->len;
    z->avail_out = room < UINT_MAX ? (unsigned)room : UINT_MAX;
    return z->avail_out;
}

/* --- Compressing */

struct ws_deflater {
    z_stream z;
    bool clean; /* nothing has been compressed since it was new or reset */
};

struct ws_deflater *ws_deflater_new(unsigned window_bits, unsigned level, unsigned mem_level)
{
    ASSERT(window_ok(window_bits) && level >= 1 && level <= 9 && mem_level >= 1 &&
           mem_level <= MEM_LEVEL_MAX);
    struct ws_deflater *d = calloc(1, sizeof *d);
    if (d == NULL)
        return NULL;
    d->clean = true;
    int rc =
        deflateInit2(&d->z, (int)level, Z_DEFLATED, -(int)window_bits, (int)mem_level, Z_DEFAULT_STRATEGY);
    if (rc == Z_OK)
        return d;
    ASSERT(rc == Z_MEM_ERROR);
    free(d);
    return NULL;
}

void ws_deflater_free(struct ws_deflater *d)
{
    if (d == NULL)
        return;
    deflateEnd(&d->z);
    free(d);
}

size_t ws_deflater_memory(unsigned window_bits, unsigned mem_level)
{
    static size_t known[WINDOW_BITS_MAX + 1][MEM_LEVEL_MAX + 1];
    ASSERT(window_ok(window_bits) && mem_level >= 1 && mem_level <= MEM_LEVEL_MAX);
    size_t *bytes = &known[window_bits][mem_level];
    if (*bytes != 0)
        return *bytes;
    size_t count = 0;
    z_stream z = {.zalloc = counting_alloc, .zfree = counting_free, .opaque = &count};
    if (deflateInit2(&z, 1, Z_DEFLATED, -(int)window_bits, (int)mem_level, Z_DEFAULT_STRATEGY) != Z_OK)
        return (1U << (window_bits + 2)) + (1U << (mem_level + 9)) + 8192; /* as zconf.h has it */
    deflateEnd(&z);
    return *bytes = sizeof(struct ws_deflater) + count;
}

#define STEP_MAX 4096 /* room for long messages is made in steps: they come out shorter than they may */

static bool deflate_all(z_stream *z, struct bytes *out)
{
    size_t bound = deflateBound(z, z->avail_in) + 16; /* 16: for the marker of the flush */
    size_t step = bound < STEP_MAX ? bound : STEP_MAX;
    do {
        unsigned room = next_room(z, out, step, SIZE_MAX);
        if (room == 0)
            return false;
        int rc = deflate(z, Z_SYNC_FLUSH);
        ASSERT(rc == Z_OK);
        out->len += room - z->avail_out;
    } while (z->avail_out == 0);
    return true;
}

bool ws_deflate(struct ws_deflater *d, bool fresh, const void *data, size_t len, struct bytes *out)
{
    ASSERT(len <= UINT32_MAX);
    if (len == 0)
        return bytes_append_byte(out, 0x00);
    if (fresh && !d->clean)
        deflateReset(&d->z);
    d->clean = false;
    size_t start = out->len;
    d->z.next_in = data;
    d->z.avail_in = (unsigned)len;
    if (!deflate_all(&d->z, out)) {
        out->len = start;
        return false;
    }
    ASSERT(out->len - start > sizeof tail &&
           memcmp(out->data + out->len - sizeof tail, tail, sizeof tail) == 0);
    out->len -= sizeof tail;
    return true;
}

/* --- Decompressing */

#define ROOM_MIN 512 /* zlib's fast loop wants 258 bytes of room */

struct ws_inflater {
    z_stream z;
};

struct ws_inflater *ws_inflater_new(unsigned window_bits)
{
    ASSERT(window_bits >= 8 && window_bits <= WINDOW_BITS_MAX);
    struct ws_inflater *i = calloc(1, sizeof *i);
    if (i == NULL)
        return NULL;
    int rc = inflateInit2(&i->z, -(int)window_bits);
    if (rc == Z_OK)
        return i;
    ASSERT(rc == Z_MEM_ERROR);
    free(i);
    return NULL;
}

void ws_inflater_free(struct ws_inflater *i)
{
    if (i == NULL)
        return;
    inflateEnd(&i->z);
    free(i);
}

size_t ws_inflater_memory(unsigned window_bits)
{
    static size_t state_bytes;
    ASSERT(window_bits >= 8 && window_bits <= WINDOW_BITS_MAX);
    size_t window = (size_t)1 << window_bits, count = 0;
    if (state_bytes == 0) {
        z_stream z = {.zalloc = counting_alloc, .zfree = counting_free, .opaque = &count};
        if (inflateInit2(&z, -(int)window_bits) != Z_OK)
            return 8192 + window;
        inflateEnd(&z);
        state_bytes = count;
    }
    return sizeof(struct ws_inflater) + state_bytes + window;
}

size_t ws_inflater_window(struct ws_inflater *i, uint8_t *out)
{
    unsigned len = 0;
    int rc = inflateGetDictionary(&i->z, out, &len);
    ASSERT(rc == Z_OK && len <= WS_WINDOW_MAX);
    return len;
}

bool ws_inflater_set_window(struct ws_inflater *i, const void *window, size_t len)
{
    if (len == 0)
        return true;
    ASSERT(len <= WS_WINDOW_MAX);
    int rc = inflateSetDictionary(&i->z, window, (unsigned)len);
    ASSERT(rc == Z_OK || rc == Z_MEM_ERROR);
    return rc == Z_OK;
}

/* One call of inflate: 0, 1 at the end of a stream, or an error. Where size_max has been reached there is
 * room for one more byte, to be thrown away: it tells whether there is more. */
static int inflate_some(z_stream *z, size_t end_max, struct bytes *out)
{
    static uint8_t beyond; /* nobody reads it */
    size_t left = end_max - out->len;
    z->next_out = &beyond;
    z->avail_out = 1;
    if (left > 0 && next_room(z, out, ROOM_MIN, left) == 0)
        return -ENOMEM;
    unsigned room = z->avail_out;
    int rc = inflate(z, Z_SYNC_FLUSH);
    size_t n = room - z->avail_out;
    if (n > left)
        return -EMSGSIZE;
    out->len += n;
    switch (rc) {
    case Z_OK:
    case Z_BUF_ERROR: return 0; /* the latter: nothing was left to do */
    case Z_STREAM_END: return 1;
    case Z_MEM_ERROR: return -ENOMEM;
    default: return -EBADMSG;
    }
}

/* All of the input: 0, 1 if it ended with the end of a stream (i then expects a new one), or an error. */
static int inflate_all(z_stream *z, const void *data, size_t len, size_t end_max, struct bytes *out)
{
    int rc;
    z->next_in = data;
    z->avail_in = (unsigned)len;
    do {
        rc = inflate_some(z, end_max, out);
        if (rc == 1)
            inflateReset(z);
    } while (rc >= 0 && (z->avail_in > 0 || (rc == 0 && z->avail_out == 0)));
    return rc;
}

/* Whether the input ended where a message may: behind a block, with no bits left. So zlib documents
 * data_type. */
static bool between_blocks(const z_stream *z)
{
    return z->data_type == 128;
}

int ws_inflate(struct ws_inflater *i, bool fresh, const void *data, size_t len, size_t size_max,
               struct bytes *out)
{
    ASSERT(len <= UINT32_MAX);
    if (len == 0)
        return 0;
    if (fresh)
        inflateReset(&i->z);
    size_t start = out->len, end_max = size_max < SIZE_MAX - start ? start + size_max : SIZE_MAX;
    int rc = inflate_all(&i->z, data, len, end_max, out);
    if (rc == 0) {
        rc = inflate_all(&i->z, tail, sizeof tail, end_max, out);
        if (rc >= 0 && !between_blocks(&i->z))
            rc = -EBADMSG;
    }
    if (rc < 0)
        out->len = start;
    return rc < 0 ? rc : 0;
}
