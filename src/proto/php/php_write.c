// SPDX-License-Identifier: MIT
#include "proto/php/php_write.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

size_t php_format_int(int64_t v, char out[PHP_INT_LEN_MAX])
{
    char digits[PHP_INT_LEN_MAX];
    uint64_t rest = v < 0 ? -(uint64_t)v : (uint64_t)v;
    size_t n = 0, len = 0;
    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest > 0);
    if (v < 0)
        out[len++] = '-';
    while (n > 0)
        out[len++] = digits[--n];
    return len;
}

/* "<type>:<v><after>" */
static void write_number(struct bytes *out, char type, int64_t v, const char *after)
{
    char text[PHP_INT_LEN_MAX + 8] = {type, ':'};
    size_t len = 2 + php_format_int(v, text + 2);
    while (*after != '\0')
        text[len++] = *after++;
    bytes_append(out, text, len);
}

void php_write_null(struct bytes *out)
{
    bytes_append(out, "N;", 2);
}

void php_write_bool(struct bytes *out, bool v)
{
    bytes_append(out, v ? "b:1;" : "b:0;", 4);
}

void php_write_int(struct bytes *out, int64_t v)
{
    write_number(out, 'i', v, ";");
}

void php_write_string(struct bytes *out, struct slice v)
{
    if (!bytes_reserve(out, v.len + PHP_INT_LEN_MAX + 6))
        return;
    uint8_t *p = out->data + out->len;
    *p++ = 's';
    *p++ = ':';
    p += php_format_int((int64_t)v.len, (char *)p);
    *p++ = ':';
    *p++ = '"';
    if (v.len > 0)
        memcpy(p, v.data, v.len);
    p += v.len;
    *p++ = '"';
    *p++ = ';';
    out->len = (size_t)(p - out->data);
}

void php_write_float(struct bytes *out, double v)
{
    char text[PHP_FLOAT_LEN_MAX];
    size_t len = php_format_float(v, 'E', text);
    bytes_append(out, "d:", 2);
    bytes_append(out, text, len);
    bytes_append_byte(out, ';');
}

void php_write_array(struct bytes *out, size_t n)
{
    write_number(out, 'a', (int64_t)n, ":{");
}

void php_write_array_end(struct bytes *out)
{
    bytes_append_byte(out, '}');
}

void php_write_key_int(struct bytes *out, int64_t key)
{
    php_write_int(out, key);
}

void php_write_key(struct bytes *out, struct slice key)
{
    int64_t v;
    if (php_key_is_int(key, &v))
        php_write_int(out, v);
    else
        php_write_string(out, key);
}

bool php_key_is_int(struct slice key, int64_t *ret)
{
    bool negative = key.len > 0 && key.data[0] == '-';
    size_t digits = key.len - negative;
    if (digits == 0 || digits > 19 || (key.data[negative] == '0' && key.len > 1))
        return false;
    uint64_t v = 0; /* 19 digits cannot exceed it */
    for (size_t i = negative; i < key.len; i++) {
        if (key.data[i] < '0' || key.data[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(key.data[i] - '0');
    }
    if (v > (uint64_t)INT64_MAX + negative)
        return false;
    *ret = (int64_t)(negative ? -v : v);
    return true;
}

/* v = 0.d1d2d3.. * 10^point */
struct decimal {
    char digits[24];
    int n;
    int point;
};

static bool round_trips(double v, int n_digits, char text[40])
{
    snprintf(text, 40, "%.*e", n_digits - 1, v);
    return strtod(text, NULL) == v;
}

/* One more in the last place: at a power of two the doubles below lie closer than those above, so that the
 * nearest decimal of n digits may fall short of v while the next one up still reads as v. */
static bool bump(double v, int n_digits, char text[40])
{
    snprintf(text, 40, "%.*e", n_digits - 1, v);
    char *e = strchr(text, 'e');
    ASSERT(e != NULL);
    for (char *p = e - 1; p >= text; p--) {
        if (*p == '.')
            continue;
        if (*p != '9') {
            ++*p;
            return strtod(text, NULL) == v;
        }
        *p = '0';
    }
    return false;
}

static void shortest_decimal(double v, struct decimal *ret)
{
    char text[40];
    int fraction,
        from = 15; /* a normal double keeps any 15 digits, so shorter ones show as zeros at the end */
    bool power_of_two = frexp(v, &fraction) == 0.5;
    if (v < 0x1p-1022)
        from = 1;
    for (int n = from; n <= 17; n++) {
        if (round_trips(v, n, text) || (power_of_two && bump(v, n, text)))
            break;
    }
    char *e = strchr(text, 'e');
    ASSERT(e != NULL);
    ret->n = 0;
    for (const char *p = text; p < e; p++) {
        if (*p != '.')
            ret->digits[ret->n++] = *p;
    }
    while (ret->n > 1 && ret->digits[ret->n - 1] == '0')
        ret->n--;
    ret->point = (int)strtol(e + 1, NULL, 10) + 1;
}

/* d.ddde+x */
static size_t print_exponential(const struct decimal *d, char exponent, char *out)
{
    int x = d->point - 1;
    size_t len = 0;
    out[len++] = d->digits[0];
    out[len++] = '.';
    if (d->n == 1)
        out[len++] = '0';
    memcpy(out + len, d->digits + 1, (size_t)d->n - 1);
    len += (size_t)d->n - 1;
    out[len++] = exponent;
    out[len++] = x < 0 ? '-' : '+';
    return len + php_format_int(x < 0 ? -x : x, out + len);
}

static size_t print_plain(const struct decimal *d, char *out)
{
    size_t len = 0;
    if (d->point <= 0)
        out[len++] = '0';
    for (int i = 0; i < d->point; i++)
        out[len++] = i < d->n ? d->digits[i] : '0';
    if (d->n <= d->point)
        return len;
    out[len++] = '.';
    for (int i = d->point; i < 0; i++)
        out[len++] = '0';
    for (int i = d->point > 0 ? d->point : 0; i < d->n; i++)
        out[len++] = d->digits[i];
    return len;
}

size_t php_format_float(double v, char exponent, char out[PHP_FLOAT_LEN_MAX])
{
    struct decimal d;
    if (isnan(v)) {
        memcpy(out, "NAN", 3);
        return 3;
    }
    size_t sign = signbit(v) ? 1 : 0;
    out[0] = '-';
    v = fabs(v);
    if (isinf(v)) {
        memcpy(out + sign, "INF", 3);
        return sign + 3;
    }
    if (v == 0) {
        out[sign] = '0';
        return sign + 1;
    }
    shortest_decimal(v, &d);
    if (d.point < -3 || d.point > 17)
        return sign + print_exponential(&d, exponent, out + sign);
    return sign + print_plain(&d, out + sign);
}
