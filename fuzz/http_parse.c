// SPDX-License-Identifier: MIT
/* The head of a request, and the WebSocket handshake made from it. The first 2 bytes: size limit, cuts.
 * - In one piece, in many, or byte by byte: the same answer, the same request.
 * - All slices lie in the head, without control characters; the bytes behind the head are as they were.
 * - Whatever the request, there is an answer to give. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "proto/line/http_parse.h"
#include "proto/ws/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Parses as the bytes come in; *ret_head is the block that holds the bytes up to the last call. */
static int parse_in_pieces(const uint8_t *data, size_t len, size_t limit, unsigned seed, uint8_t **ret_head,
                           struct http_request *ret)
{
    size_t scanned = 0, n = 0;
    for (;;) {
        size_t step = len - n;
        if (seed != 0) {
            seed = seed * 1103515245 + 12345;
            step = 1 + (seed >> 16) % (seed & 0x4000 ? 40 : 3);
            seed |= 1;
        }
        n = len - n < step ? len : n + step;
        uint8_t *exact = malloc(n > 0 ? n : 1);
        ASSERT(exact != NULL);
        if (n > 0)
            memcpy(exact, data, n);
        int r = http_parse(exact, n, &scanned, limit, ret);
        ASSERT(scanned <= n);
        ASSERT(r > 0 || memcmp(exact, data, n) == 0 || r < 0);
        if (r != 0 || n == len) {
            ASSERT(r <= 0 || ((size_t)r <= n && memcmp(exact + r, data + r, n - (size_t)r) == 0));
            *ret_head = exact;
            return r;
        }
        free(exact);
    }
}

static void check_slice(struct slice s, const uint8_t *head, size_t len)
{
    ASSERT(s.data >= head && s.len <= len && s.data + s.len <= head + len);
    for (size_t i = 0; i < s.len; i++)
        ASSERT((s.data[i] >= ' ' || s.data[i] == '\t') && s.data[i] != 0x7F);
}

static void check_request(const struct http_request *req, const uint8_t *head, size_t len)
{
    ASSERT(slice_eq_str(req->method, "GET") && slice_eq_str(req->version, "1.1"));
    check_slice(req->target, head, len);
    check_slice(req->path, head, len);
    check_slice(req->query, head, len);
    check_slice(req->host, head, len);
    ASSERT(req->target.len > 0 && req->n_headers > 0 && req->n_headers <= HTTP_HEADERS_MAX);
    ASSERT(http_request_header(req, "host") != NULL && http_request_header(req, "transfer-encoding") == NULL);
    for (unsigned i = 0; i < req->n_headers; i++) {
        check_slice(req->headers[i].name, head, len);
        check_slice(req->headers[i].value, head, len);
        ASSERT(req->headers[i].name.len > 0 &&
               memchr(req->headers[i].name.data, ' ', req->headers[i].name.len) == NULL);
    }
}

static bool same_place(struct slice a, const uint8_t *a_head, struct slice b, const uint8_t *b_head)
{
    return a.data - a_head == b.data - b_head && a.len == b.len;
}

static void check_same(const struct http_request *a, const uint8_t *a_head, const struct http_request *b,
                       const uint8_t *b_head)
{
    ASSERT(a->n_headers == b->n_headers && same_place(a->target, a_head, b->target, b_head));
    ASSERT(same_place(a->path, a_head, b->path, b_head) && same_place(a->query, a_head, b->query, b_head));
    ASSERT(same_place(a->host, a_head, b->host, b_head));
    for (unsigned i = 0; i < a->n_headers; i++) {
        ASSERT(same_place(a->headers[i].name, a_head, b->headers[i].name, b_head));
        ASSERT(same_place(a->headers[i].value, a_head, b->headers[i].value, b_head));
    }
}

static void check_answer(int parsed, const struct http_request *req)
{
    char out[HTTP_ERROR_SIZE];
    int status = parsed < 0 ? -parsed : ws_handshake_check(req);
    size_t n = status == 0 ? ws_handshake_response(req, NULL, NULL, out, WS_RESPONSE_SIZE)
                           : http_error_response(status, out, sizeof out);
    ASSERT(n > 0 && n == strlen(out));
    int said = (out[9] - '0') * 100 + (out[10] - '0') * 10 + (out[11] - '0');
    ASSERT(said == (status == 0 ? 101 : status));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct http_request whole, cut;
    static const size_t limits[] = {1, 16, 60, 200, 1000, 8192, 65536, 1 << 20};
    if (len < 2)
        return 0;
    size_t limit = limits[data[0] & 7];
    unsigned seed = data[1] | 1u;
    uint8_t *whole_head, *cut_head;
    data += 2;
    len -= 2;
    int r = parse_in_pieces(data, len, limit, 0, &whole_head, &whole);
    int s = parse_in_pieces(data, len, limit, seed, &cut_head, &cut);
    ASSERT(r == s && r <= (int)limit);
    if (r > 0) {
        check_request(&whole, whole_head, (size_t)r);
        check_same(&whole, whole_head, &cut, cut_head);
    }
    if (r != 0)
        check_answer(r, &whole);
    free(whole_head);
    free(cut_head);
    return 0;
}
