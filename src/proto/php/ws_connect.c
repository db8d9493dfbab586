// SPDX-License-Identifier: MIT
#include "proto/php/ws_connect.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "proto/php/php_parse_str.h"
#include "proto/php/php_write.h"

static uint8_t upper(uint8_t c)
{
    return c >= 'a' && c <= 'z' ? (uint8_t)(c - 32) : c;
}

/* A header's name as a key of $_SERVER, without "HTTP_". */
static uint8_t server_char(uint8_t c)
{
    return c == '-' ? '_' : upper(c);
}

/* The same name, in any case; as_key: as the same key of $_SERVER. */
static bool same(struct slice a, struct slice b, bool as_key)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        uint8_t x = a.data[i], y = b.data[i];
        if (x != y && (as_key ? server_char(x) != server_char(y) : upper(x) != upper(y)))
            return false;
    }
    return true;
}

/* First header before `limit` whose name is the same, or limit. */
static unsigned find(const struct http_request *req, struct slice name, bool as_key, unsigned limit)
{
    unsigned i = 0;
    while (i < limit && !same(req->headers[i].name, name, as_key))
        i++;
    return i;
}

/* All values of the headers of that name, joined with ','. false: there is none. */
static bool header_value(const struct http_request *req, struct slice name, struct bytes *scratch,
                         struct slice *ret)
{
    unsigned i = find(req, name, false, req->n_headers);
    if (i == req->n_headers)
        return false;
    *ret = req->headers[i].value;
    bool joined = false;
    for (unsigned j = i + 1; j < req->n_headers; j++) {
        if (!same(req->headers[j].name, name, false))
            continue;
        if (!joined) {
            bytes_clear(scratch);
            bytes_append(scratch, ret->data, ret->len);
        }
        joined = true;
        bytes_append_byte(scratch, ',');
        bytes_append(scratch, req->headers[j].value.data, req->headers[j].value.len);
    }
    if (joined)
        *ret = (struct slice){scratch->data, scratch->len};
    return true;
}

static void write_text(struct bytes *out, const char *s)
{
    php_write_string(out, (struct slice){(const uint8_t *)s, strlen(s)});
}

static void write_header_or_null(struct bytes *out, const struct http_request *req, struct slice name,
                                 struct bytes *scratch)
{
    struct slice value;
    if (header_value(req, name, scratch, &value))
        php_write_string(out, value);
    else
        php_write_null(out);
}

static void write_server_key(struct bytes *out, struct slice name)
{
    char head[PHP_INT_LEN_MAX + 16] = "s:";
    size_t n = 2 + php_format_int((int64_t)name.len + 5, head + 2);
    memcpy(head + n, ":\"HTTP_", 7);
    bytes_append(out, head, n + 7);
    if (!bytes_reserve(out, name.len + 2))
        return;
    for (size_t i = 0; i < name.len; i++)
        out->data[out->len++] = server_char(name.data[i]);
    bytes_append(out, "\";", 2);
}

/* HTTP_<NAME> of the header that first had this key; names that differ in '-' and '_' only share it, the last
 * of them (by its first line) gives the value. */
static void write_server_header(struct bytes *out, const struct http_request *req, unsigned i,
                                struct bytes *scratch)
{
    struct slice last = req->headers[i].name, value = SLICE_STR("");
    for (unsigned j = i + 1; j < req->n_headers; j++) {
        struct slice name = req->headers[j].name;
        if (same(name, last, true) && find(req, name, false, j) == j)
            last = name;
    }
    write_server_key(out, req->headers[i].name);
    header_value(req, last, scratch, &value);
    php_write_string(out, value);
}

static void write_server_headers(struct bytes *out, const struct http_request *req, struct bytes *scratch)
{
    for (unsigned i = 0; i < req->n_headers; i++) {
        if (find(req, req->headers[i].name, true, i) == i)
            write_server_header(out, req, i, scratch);
    }
}

static size_t count_server_headers(const struct http_request *req)
{
    size_t n = 0;
    for (unsigned i = 0; i < req->n_headers; i++)
        n += find(req, req->headers[i].name, true, i) == i;
    return n;
}

static void write_server(struct bytes *out, const struct http_request *req, struct slice query,
                         const char *remote_ip, uint16_t remote_port, uint16_t local_port,
                         struct bytes *scratch)
{
    php_write_array(out, 9 + count_server_headers(req));
    write_text(out, "QUERY_STRING");
    php_write_string(out, query);
    write_text(out, "REQUEST_METHOD");
    php_write_string(out, req->method);
    write_text(out, "REQUEST_URI");
    php_write_string(out, req->target);
    write_text(out, "SERVER_PROTOCOL");
    char protocol[16] = "HTTP/";
    size_t version_len = req->version.len < 8 ? req->version.len : 8;
    memcpy(protocol + 5, req->version.data, version_len);
    php_write_string(out, (struct slice){(uint8_t *)protocol, 5 + version_len});
    write_text(out, "SERVER_NAME");
    write_header_or_null(out, req, SLICE_STR("host"), scratch);
    write_text(out, "CONTENT_TYPE");
    write_header_or_null(out, req, SLICE_STR("content-type"), scratch);
    write_text(out, "REMOTE_ADDR");
    write_text(out, remote_ip);
    write_text(out, "REMOTE_PORT");
    php_write_int(out, remote_port);
    write_text(out, "SERVER_PORT");
    php_write_int(out, local_port);
    write_server_headers(out, req, scratch);
    php_write_array_end(out);
}

int php_ws_connect(struct bytes *out, const struct http_request *req, const char *remote_ip,
                   uint16_t remote_port, uint16_t local_port)
{
    struct bytes scratch = {0}, query_copy = {0};
    struct slice query, cookie = SLICE_STR("");
    size_t start = out->len;
    int err = php_url_query(req->target, &query_copy, &query);
    if (err == 0) {
        php_write_array(out, 3);
        write_text(out, "get");
        err = php_parse_str(out, query, PHP_INPUT_VARS_MAX);
    }
    if (err == 0) {
        write_text(out, "server");
        write_server(out, req, query, remote_ip, remote_port, local_port, &scratch);
        write_text(out, "cookie");
        header_value(req, SLICE_STR("cookie"), &scratch, &cookie);
        err = php_parse_cookie(out, cookie);
        php_write_array_end(out);
    }
    if (err == 0 && (out->failed || scratch.failed))
        err = -ENOMEM;
    if (err < 0)
        out->len = start;
    bytes_fini(&scratch);
    bytes_fini(&query_copy);
    return err;
}
