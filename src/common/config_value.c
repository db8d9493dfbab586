// SPDX-License-Identifier: MIT
#include "common/config_table.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/assert.h"
#include "base/log.h"
#include "common/config.h"

/* Start-up: without memory for the configuration there is nothing to go on with. */
static char *copy_string(const char *s, size_t len)
{
    char *copy = strndup(s, len);
    if (copy == NULL)
        abort();
    return copy;
}

/* ---- what is expected */

static void expected_number(const struct config_key *k, char *buf, size_t cap)
{
    const char *suffixes = "";
    if (strcmp(k->unit, "bytes") == 0)
        suffixes = " (suffixes k, m, g)";
    else if (strcmp(k->unit, "s") == 0)
        suffixes = " (suffixes s, m, h)";
    else if (strcmp(k->unit, "ms") == 0)
        suffixes = " (suffixes ms, s)";
    snprintf(buf, cap, "%" PRIu64 " to %" PRIu64 "%s%s%s", k->min, k->max, k->unit[0] != '\0' ? " " : "",
             k->unit, suffixes);
}

static void expected_choice(const struct config_key *k, char *buf, size_t cap)
{
    int at = snprintf(buf, cap, "one of ");
    for (unsigned i = 0; i < k->n_choices && (size_t)at < cap; i++)
        at += snprintf(buf + at, cap - (size_t)at, "%s%s", i > 0 ? ", " : "", k->choices[i]);
}

static void expected_string(const struct config_key *k, char *buf, size_t cap)
{
    if (k->min > 0)
        snprintf(buf, cap, "text of %" PRIu64 " to %" PRIu64 " bytes", k->min, k->max);
    else
        snprintf(buf, cap, "text of at most %" PRIu64 " bytes", k->max);
}

char *config_value_expected(const struct config_key *k, char *buf, size_t cap)
{
    switch (k->kind) {
    case CONFIG_KIND_UINT: expected_number(k, buf, cap); break;
    case CONFIG_KIND_BOOL: snprintf(buf, cap, "yes or no (true, false, on, off, 1, 0)"); break;
    case CONFIG_KIND_STRING: expected_string(k, buf, cap); break;
    case CONFIG_KIND_IPV4: snprintf(buf, cap, "an IPv4 address such as 192.168.1.10"); break;
    case CONFIG_KIND_ADDRESSES: snprintf(buf, cap, "host:port, several separated by commas"); break;
    case CONFIG_KIND_ENUM: expected_choice(k, buf, cap); break;
    }
    return buf;
}

/* "FOUND; expected ...". Returns -EINVAL. */
static int refuse(const struct config_key *k, const char *found, char *why, size_t cap)
{
    char expected[256];
    snprintf(why, cap, "%s; expected %s", found, config_value_expected(k, expected, sizeof expected));
    return -EINVAL;
}

static int refuse_text(const struct config_key *k, const char *text, const char *is, char *why, size_t cap)
{
    char found[256];
    if (config_key_is_secret(k))
        snprintf(found, sizeof found, "the value %s", is);
    else if (*text == '\0')
        snprintf(found, sizeof found, "no value");
    else
        snprintf(found, sizeof found, "%s %s", log_quote(text, strlen(text)), is);
    return refuse(k, found, why, cap);
}

/* ---- numbers */

struct suffix {
    const char *unit, *text;
    uint64_t factor;
};
static const struct suffix suffixes[] = {
    {"bytes", "k", 1024},
    {"bytes", "m", 1024 * 1024},
    {"bytes", "g", 1024 * 1024 * 1024},
    {"s", "s", 1},
    {"s", "m", 60},
    {"s", "h", 3600},
    {"ms", "ms", 1},
    {"ms", "s", 1000},
};

/* 0 when it is not one that the unit takes. */
static uint64_t suffix_factor(const char *unit, const char *text)
{
    if (*text == '\0')
        return 1;
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        if (strcmp(suffixes[i].unit, unit) == 0 && strcasecmp(suffixes[i].text, text) == 0)
            return suffixes[i].factor;
    }
    return 0;
}

static int parse_uint(const struct config_key *k, const char *text, uint64_t *ret, char *why, size_t cap)
{
    uint64_t v = 0;
    const char *p = text;
    bool overflow = false;

    for (; isdigit((unsigned char)*p); p++)
        overflow |= __builtin_mul_overflow(v, 10, &v) || __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v);
    if (p == text)
        return refuse_text(k, text, "is not a number", why, cap);
    while (*p == ' ')
        p++;
    uint64_t factor = suffix_factor(k->unit, p);
    if (factor == 0)
        return refuse_text(k, text, "is not a number", why, cap);
    overflow |= __builtin_mul_overflow(v, factor, &v);
    if (overflow || v < k->min || v > k->max)
        return refuse_text(k, text, "is out of range", why, cap);
    *ret = v;
    return 0;
}

static int parse_bool(const struct config_key *k, const char *text, bool *ret, char *why, size_t cap)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *ret = i % 2 != 0;
            return 0;
        }
    }
    return refuse_text(k, text, "is neither", why, cap);
}

static int parse_choice(const struct config_key *k, const char *text, unsigned *ret, char *why, size_t cap)
{
    for (unsigned i = 0; i < k->n_choices; i++) {
        if (strcmp(text, k->choices[i]) == 0) {
            *ret = i;
            return 0;
        }
    }
    return refuse_text(k, text, "is not known", why, cap);
}

/* ---- text and addresses */

static int parse_string(const struct config_key *k, const char *text, char **ret, char *why, size_t cap)
{
    size_t len = strlen(text);
    char found[64];

    if (len < k->min || len > k->max) {
        snprintf(found, sizeof found, "%zu bytes", len);
        return refuse(k, found, why, cap);
    }
    free(*ret);
    *ret = copy_string(text, len);
    return 0;
}

static int parse_ipv4(const struct config_key *k, const char *text, uint32_t *ret, char *why, size_t cap)
{
    struct in_addr addr;
    if (inet_pton(AF_INET, text, &addr) != 1)
        return refuse_text(k, text, "is not an IPv4 address", why, cap);
    *ret = ntohl(addr.s_addr);
    return 0;
}

static void addresses_fini(struct config_addresses *a)
{
    for (unsigned i = 0; i < a->n; i++)
        free(a->list[i].host);
    free(a->list);
    *a = (struct config_addresses){0};
}

static bool parse_port(const char *text, const char *end, uint16_t *ret)
{
    unsigned v = 0;
    if (text == end || end - text > 5)
        return false;
    for (; text < end; text++) {
        if (!isdigit((unsigned char)*text))
            return false;
        v = v * 10 + (unsigned)(*text - '0');
    }
    *ret = (uint16_t)v;
    return v >= 1 && v <= 65535;
}

/* host:port or [ipv6]:port in p..end. */
static bool parse_address(const char *p, const char *end, struct config_address *ret)
{
    const char *colon = memrchr(p, ':', (size_t)(end - p));
    const char *host = p, *host_end = colon;

    if (colon == NULL || !parse_port(colon + 1, end, &ret->port))
        return false;
    if (*p == '[') {
        host++;
        if (host_end <= host || *--host_end != ']')
            return false;
    } else if (memchr(p, ':', (size_t)(colon - p)) != NULL) {
        return false; /* an IPv6 address without brackets: which colon is the port's? */
    }
    if (host_end == host)
        return false;
    for (const char *c = host; c < host_end; c++) {
        if (!isalnum((unsigned char)*c) && strchr(".-_:%", *c) == NULL)
            return false;
    }
    ret->host = copy_string(host, (size_t)(host_end - host));
    return true;
}

static bool addresses_has(const struct config_addresses *a, const struct config_address *one)
{
    for (unsigned i = 0; i < a->n; i++) {
        if (a->list[i].port == one->port && strcasecmp(a->list[i].host, one->host) == 0)
            return true;
    }
    return false;
}

static void addresses_add(struct config_addresses *a, struct config_address one)
{
    struct config_address *list = reallocarray(a->list, a->n + 1, sizeof one);
    if (list == NULL)
        abort();
    list[a->n] = one;
    a->list = list;
    a->n++;
}

static int parse_addresses(const struct config_key *k, const char *text, unsigned line,
                           struct config_addresses *ret, char *why, size_t cap)
{
    struct config_addresses all = {0};
    struct config_address one = {.line = line};

    for (const char *p = text;; p++) {
        p += strspn(p, " \t");
        const char *next = p + strcspn(p, ",");
        const char *end = next;
        while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
            end--;
        if (!parse_address(p, end, &one)) {
            addresses_fini(&all);
            return refuse_text(k, text, "is not host:port", why, cap);
        }
        if (addresses_has(&all, &one)) {
            free(one.host);
            addresses_fini(&all);
            return refuse_text(k, text, "names an address twice", why, cap);
        }
        addresses_add(&all, one);
        p = next;
        if (*p == '\0')
            break;
    }
    addresses_fini(ret);
    *ret = all;
    return 0;
}

/* ---- any kind */

int config_value_parse(const struct config_key *k, const char *text, unsigned line, void *value, char *why,
                       size_t cap)
{
    switch (k->kind) {
    case CONFIG_KIND_UINT: return parse_uint(k, text, value, why, cap);
    case CONFIG_KIND_BOOL: return parse_bool(k, text, value, why, cap);
    case CONFIG_KIND_STRING: return parse_string(k, text, value, why, cap);
    case CONFIG_KIND_IPV4: return parse_ipv4(k, text, value, why, cap);
    case CONFIG_KIND_ADDRESSES: return parse_addresses(k, text, line, value, why, cap);
    case CONFIG_KIND_ENUM: return parse_choice(k, text, value, why, cap);
    }
    UNREACHABLE();
}

static void print_ipv4(FILE *out, uint32_t ip)
{
    fprintf(out, "%u.%u.%u.%u", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

static void print_addresses(FILE *out, const struct config_addresses *a)
{
    for (unsigned i = 0; i < a->n; i++) {
        bool v6 = strchr(a->list[i].host, ':') != NULL;
        fprintf(out, "%s%s%s%s:%u", i > 0 ? ", " : "", v6 ? "[" : "", a->list[i].host, v6 ? "]" : "",
                a->list[i].port);
    }
}

void config_value_print(FILE *out, const struct config_key *k, const void *value)
{
    switch (k->kind) {
    case CONFIG_KIND_UINT: fprintf(out, "%" PRIu64, *(const uint64_t *)value); break;
    case CONFIG_KIND_BOOL: fputs(*(const bool *)value ? "yes" : "no", out); break;
    case CONFIG_KIND_STRING: fputs(*(char *const *)value, out); break;
    case CONFIG_KIND_IPV4: print_ipv4(out, *(const uint32_t *)value); break;
    case CONFIG_KIND_ADDRESSES: print_addresses(out, value); break;
    case CONFIG_KIND_ENUM: fputs(k->choices[*(const unsigned *)value], out); break;
    }
}

void config_value_fini(const struct config_key *k, void *value)
{
    if (k->kind == CONFIG_KIND_STRING) {
        free(*(char **)value);
        *(char **)value = NULL;
    } else if (k->kind == CONFIG_KIND_ADDRESSES) {
        addresses_fini(value);
    }
}
