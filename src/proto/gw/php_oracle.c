// SPDX-License-Identifier: MIT
/* For tests/test_php_oracle.py: reads cases, one a line, "<operation> <hex> <hex> ...", and writes one line
 * each: the result in hex, or "!" when the operation failed. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "proto/gw/command.h"
#include "proto/gw/json.h"
#include "proto/php/php_json.h"
#include "proto/php/php_parse_str.h"
#include "proto/php/php_value.h"
#include "proto/php/php_write.h"
#include "proto/php/ws_connect.h"

#define ARGS_MAX 300

struct test_case {
    size_t n;
    struct slice args[ARGS_MAX];
};

static int run_reserialize(struct bytes *out, const struct test_case *c)
{
    return php_reserialize(out, c->args[0]);
}

static int run_merge(struct bytes *out, const struct test_case *c)
{
    return php_session_merge(out, c->args[0], c->args[1]);
}

static int run_json(struct bytes *out, const struct test_case *c)
{
    return php_to_json(out, c->args[0]);
}

static int run_parse_str(struct bytes *out, const struct test_case *c)
{
    return php_parse_str(out, c->args[0], PHP_INPUT_VARS_MAX);
}

static int run_cookie(struct bytes *out, const struct test_case *c)
{
    return php_parse_cookie(out, c->args[0]);
}

static int run_url_query(struct bytes *out, const struct test_case *c)
{
    struct bytes scratch = {0};
    struct slice query;
    int err = php_url_query(c->args[0], &scratch, &query);
    if (err == 0)
        bytes_append(out, query.data, query.len);
    bytes_fini(&scratch);
    return err;
}

/* method, target, version, then name and value of each header */
static int run_ws_connect(struct bytes *out, const struct test_case *c)
{
    static struct http_request req;
    req = (struct http_request){.method = c->args[0], .target = c->args[1], .version = c->args[2]};
    for (size_t i = 3; i + 1 < c->n && req.n_headers < HTTP_HEADERS_MAX; i += 2)
        req.headers[req.n_headers++] = (struct http_header){c->args[i], c->args[i + 1]};
    return php_ws_connect(out, &req, "192.0.2.7", 54321, 8282);
}

static int run_key(struct bytes *out, const struct test_case *c)
{
    php_write_key(out, c->args[0]);
    return 0;
}

/* 8 bytes of a double, little endian */
static int run_float(struct bytes *out, const struct test_case *c)
{
    double v;
    memcpy(&v, c->args[0].data, sizeof v);
    php_write_float(out, v);
    return 0;
}

static int run_json_valid(struct bytes *out, const struct test_case *c)
{
    struct json_reader r;
    struct json_value v;
    int token;
    json_init(&r, c->args[0]);
    while ((token = json_next(&r, &v)) > 0)
        ;
    bytes_append_byte(out, token == JSON_TOK_DONE ? '1' : '0');
    return 0;
}

/* The names of a list as PHP makes them array keys: serialize() of each behind the other. */
static int run_names(struct bytes *out, const struct test_case *c)
{
    static struct gw_args args;
    struct gw_names names;
    int err = gw_read_names(&args, c->args[0], &names);
    for (size_t i = 0; err == 0 && i < names.n; i++)
        php_write_key(out, names.items[i]);
    return err;
}

static const struct {
    const char *name;
    int (*run)(struct bytes *out, const struct test_case *c);
} operations[] = {
    {"reserialize", run_reserialize}, {"merge", run_merge},   {"json", run_json},
    {"parse_str", run_parse_str},     {"cookie", run_cookie}, {"url_query", run_url_query},
    {"ws_connect", run_ws_connect},   {"key", run_key},       {"float", run_float},
    {"json_valid", run_json_valid},   {"names", run_names},
};

static int hex_digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

/* Each argument in memory of its own size, so that sanitizers see a read past its end. */
static struct slice read_arg(const char *hex)
{
    size_t len = strlen(hex) / 2;
    uint8_t *data = malloc(len > 0 ? len : 1);
    if (data == NULL)
        abort();
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(hex_digit(hex[2 * i]) << 4 | hex_digit(hex[2 * i + 1]));
    return (struct slice){data, len};
}

static bool run_case(const char *operation, const struct test_case *c)
{
    struct bytes out = {0};
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(operations[i].name, operation) != 0)
            continue;
        int err = operations[i].run(&out, c);
        for (size_t j = 0; err == 0 && j < out.len; j++)
            printf("%02x", out.data[j]);
        puts(err == 0 ? "" : "!");
        bytes_fini(&out);
        return true;
    }
    fprintf(stderr, "unknown operation %s\n", operation);
    return false;
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    bool ok = true;
    hash_init_fixed(1);
    while (ok && getline(&line, &cap, stdin) > 0) {
        struct test_case c = {0};
        char *rest = line;
        line[strcspn(line, "\n")] = '\0';
        const char *operation = strsep(&rest, " ");
        while (rest != NULL && c.n < ARGS_MAX)
            c.args[c.n++] = read_arg(strsep(&rest, " "));
        ok = run_case(operation, &c);
        for (size_t i = 0; i < c.n; i++)
            free((void *)c.args[i].data);
    }
    free(line);
    return ok ? 0 : 1;
}
