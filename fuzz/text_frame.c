// SPDX-License-Identifier: MIT
/* The client protocols "text" and "frame". The first 3 bytes: protocol, limit, how the rest is cut.
 * - In one piece or in many, the same messages and the same error come out.
 * - Messages keep to the limit; encoding them again gives the bytes that they came from (text: but for "\r").
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "proto/line/frame.h"
#include "proto/line/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct run {
    struct bytes pending, log;
    size_t scanned, limit;
    bool text;
    ssize_t error;
};

static void check_text(const struct run *r, const uint8_t *from, size_t used, struct slice m)
{
    ASSERT(used - 1 <= r->limit && m.data == from && m.len < used && from[used - 1] == '\n');
    ASSERT(m.len == 0 || (m.data[m.len - 1] != '\r' && m.data[m.len - 1] != '\n'));
    ASSERT(memchr(m.data, '\n', m.len) == NULL);
    for (size_t i = m.len; i + 1 < used; i++)
        ASSERT(from[i] == '\r');
}

static void check_frame(const struct run *r, const uint8_t *from, size_t used, struct slice m)
{
    ASSERT(used <= r->limit && m.data == from + 4 && m.len + 4 == used);
    uint8_t *again = malloc(used);
    ASSERT(again != NULL && frame_encode(again, m.data, m.len) == used);
    ASSERT(memcmp(again, from, used) == 0);
    free(again);
}

static void log_message(struct run *r, struct slice m)
{
    uint8_t *line = malloc(m.len + TEXT_OVERHEAD);
    ASSERT(line != NULL && text_encode(line, m.data, m.len) == m.len + 1);
    bytes_printf(&r->log, "%zu ", m.len);
    bytes_append(&r->log, line, m.len + 1);
    free(line);
}

/* One message from the front of an exact copy of what is pending. False: none. */
static bool step(struct run *r)
{
    struct slice m;
    size_t len = r->pending.len;
    uint8_t *exact = malloc(len > 0 ? len : 1);
    ASSERT(exact != NULL);
    if (len > 0)
        memcpy(exact, r->pending.data, len);
    ssize_t n =
        r->text ? text_decode(exact, len, &r->scanned, r->limit, &m) : frame_decode(exact, len, r->limit, &m);
    ASSERT(n <= (ssize_t)len);
    if (n > 0) {
        (r->text ? check_text : check_frame)(r, exact, (size_t)n, m);
        log_message(r, m);
        bytes_consume(&r->pending, (size_t)n);
    } else if (n < 0) {
        ASSERT(n == -EMSGSIZE || (n == -EPROTO && !r->text));
        r->error = n;
    }
    free(exact);
    return n > 0;
}

static void run(struct run *r, const uint8_t *data, size_t len, unsigned seed)
{
    for (size_t pos = 0; pos < len && r->error == 0;) {
        size_t n = len - pos;
        if (seed != 0) {
            seed = seed * 1103515245 + 12345;
            n = 1 + (seed >> 16) % 13;
            seed |= 1;
        }
        if (n > len - pos)
            n = len - pos;
        ASSERT(bytes_append(&r->pending, data + pos, n));
        pos += n;
        while (r->pending.len > 0 && step(r))
            ;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const size_t limits[] = {0, 3, 4, 5, 16, 100, 4096, SIZE_MAX};
    if (len < 3)
        return 0;
    struct run whole = {.text = data[0] & 1, .limit = limits[data[1] & 7]}, cut = whole;
    if (whole.text && whole.limit == SIZE_MAX)
        whole.limit = cut.limit = 1 << 20;
    run(&whole, data + 3, len - 3, 0);
    run(&cut, data + 3, len - 3, data[2] | 1u);
    ASSERT(whole.error == cut.error && whole.log.len == cut.log.len);
    ASSERT(whole.log.len == 0 || memcmp(whole.log.data, cut.log.data, whole.log.len) == 0);
    bytes_fini(&whole.pending);
    bytes_fini(&whole.log);
    bytes_fini(&cut.pending);
    bytes_fini(&cut.log);
    return 0;
}
