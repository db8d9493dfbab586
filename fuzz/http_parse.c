// SPDX-License-Identifier: MIT
/* The head of a request, and the WebSocket handshake made from it. The first 2 bytes: limits, cuts.
 * - In one piece, in many, or byte by byte: the same answer, the same request.
 * - All slices lie in the head, without control characters; the bytes behind the head are as they were.
 * - The limits hold: of the head, of the request line (known one byte after it), of the number of headers.
 * - Whatever the request, there is an answer to give.
 * - Origins, sub-protocols and paths that pass are on the list by a look at their ends, too. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "proto/line/http_parse.h"
#include "proto/ws/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Parses as the bytes come in; *ret_head is the block that holds the bytes up to the last call. */
static int parse_in_pieces(const uint8_t *data, size_t len, const struct http_limits *limits, unsigned seed,
                           uint8_t **ret_head, struct http_request *ret)
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
        int r = http_parse(exact, n, &scanned, limits, ret);
        ASSERT(scanned <= n && (r != 0 || n < limits->head_size_max || n < 2));
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
    ASSERT(slice_eq_str(req->method, "GET"));
    bool old = slice_eq_str(req->version, "1.0");
    ASSERT(old || slice_eq_str(req->version, "1.1"));
    check_slice(req->target, head, len);
    check_slice(req->path, head, len);
    check_slice(req->query, head, len);
    check_slice(req->host, head, len);
    ASSERT(req->target.len > 0 && (old || req->n_headers > 0) && req->n_headers <= HTTP_HEADERS_MAX);
    ASSERT((old || http_request_header(req, "host") != NULL) &&
           http_request_header(req, "transfer-encoding") == NULL);
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

/* The request line without its end. */
static size_t line_len(const uint8_t *head, size_t len)
{
    size_t start = head[0] == '\n' ? 1 : head[0] == '\r' ? 2 : 0;
    const uint8_t *lf = memchr(head + start, '\n', len - start);
    ASSERT(lf != NULL);
    return (size_t)(lf - head) - start - (lf[-1] == '\r');
}

static bool ends_with(struct slice s, const char *end)
{
    size_t n = strlen(end);
    return s.len > n && strncasecmp((const char *)s.data + s.len - n, end, n) == 0;
}

static void check_lists(const struct http_request *req)
{
    char buf[32];
    const struct slice *origin = http_request_header(req, "Origin");
    ASSERT(ws_origin_allowed(req, "") && !ws_origin_allowed(req, "nonsense"));
    ASSERT(ws_origin_allowed(req, "none") == (origin == NULL));
    if (ws_origin_allowed(req, "https://*.example.com"))
        ASSERT(origin != NULL && strncasecmp((const char *)origin->data, "https://", 8) == 0 &&
               (ends_with(*origin, ".example.com") || ends_with(*origin, ".example.com:443")));
    const char *chosen = ws_subprotocol_select(req, "mqtt, chat", buf, sizeof buf);
    if (chosen != NULL)
        ASSERT(strcmp(chosen, "mqtt") == 0 || strcmp(chosen, "chat") == 0);
    ASSERT(http_path_match(req->path, "/") == 1 && http_path_match(req->path, "") == 1);
    size_t n = http_path_match(req->path, "/chat, /api/");
    ASSERT(n == 0 || (n == 5 && req->path.len >= 5 &&
                      (slice_eq_str(req->path, "/chat") || memcmp(req->path.data, "/api/", 5) == 0)));
}

static void check_answer(int parsed, const struct http_request *req)
{
    char out[HTTP_ERROR_SIZE];
    int status = parsed < 0 ? -parsed : ws_handshake_check(req);
    size_t n = status == 0 ? ws_handshake_response(req, NULL, NULL, out, WS_RESPONSE_SIZE)
                           : http_error_response(status, 30, out, sizeof out);
    ASSERT(n > 0 && n == strlen(out));
    int said = (out[9] - '0') * 100 + (out[10] - '0') * 10 + (out[11] - '0');
    ASSERT(said == (status == 0 ? 101 : status));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct http_request whole, cut;
    static const size_t head_sizes[] = {1, 16, 60, 200, 1000, 8192, 65536, 1 << 20};
    static const size_t line_sizes[] = {1 << 20, 16, 40, 300};
    static const unsigned numbers[] = {HTTP_HEADERS_MAX, 1, 2, 3, 5, 10, 100, HTTP_HEADERS_MAX};
    if (len < 2)
        return 0;
    const struct http_limits limits = {head_sizes[data[0] & 7], line_sizes[data[0] >> 3 & 3],
                                       numbers[data[0] >> 5]};
    unsigned seed = data[1] | 1u;
    uint8_t *whole_head, *cut_head;
    data += 2;
    len -= 2;
    int r = parse_in_pieces(data, len, &limits, 0, &whole_head, &whole);
    int s = parse_in_pieces(data, len, &limits, seed, &cut_head, &cut);
    ASSERT(r == s && r <= (int)limits.head_size_max);
    if (r > 0) {
        check_request(&whole, whole_head, (size_t)r);
        check_same(&whole, whole_head, &cut, cut_head);
        ASSERT(line_len(whole_head, (size_t)r) <= limits.line_size_max);
        ASSERT(whole.n_headers <= limits.headers_max);
        check_lists(&whole);
    }
    if (r == 0)
        ASSERT(len <= limits.line_size_max + 3 || memchr(data, '\n', len) != NULL);
    if (r != 0)
        check_answer(r, &whole);
    free(whole_head);
    free(cut_head);
    return 0;
}
