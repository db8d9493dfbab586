// SPDX-License-Identifier: MIT
/* Any bytes as lines of CIDRs and of bans: what is taken prints and reads back the same, and is found in a
 * table by longest match as a search from end to end finds it; an edited file of bans reads back without the
 * bans that are over, and with the new one. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "guard/ban_file.h"
#include "guard/cidr_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define LINES_MAX 64

static struct cidr found[LINES_MAX];
static unsigned n_found;

static struct net_addr addr_of(const struct cidr *c)
{
    struct net_addr a = {.family = c->family};
    for (unsigned i = 0; i < 8; i++) {
        a.ip[i] = (uint8_t)(c->hi >> (56 - 8 * i));
        a.ip[8 + i] = (uint8_t)(c->lo >> (56 - 8 * i));
    }
    return a;
}

static void check_line(const char *line, size_t len)
{
    char text[CIDR_STRLEN], why[CIDR_WHY_MAX];
    struct cidr c, again;
    enum cidr_problem problem = cidr_parse(line, len, &c);

    ASSERT(strlen(cidr_explain(problem, line, len, why, sizeof why)) > 0);
    if (problem != CIDR_OK && problem != CIDR_HOST_BITS)
        return;
    cidr_format(&c, text, sizeof text);
    ASSERT(cidr_parse(text, strlen(text), &again) == CIDR_OK);
    ASSERT(again.hi == c.hi && again.lo == c.lo && again.bits == c.bits && again.family == c.family);
    if (n_found < LINES_MAX)
        found[n_found++] = c;
}

static int64_t longest(const struct cidr *address)
{
    int64_t best = -1;
    for (unsigned i = 0; i < n_found; i++) {
        struct cidr cut = *address;
        if (found[i].family != address->family)
            continue;
        cidr_cut(&cut, found[i].bits);
        if (cut.hi == found[i].hi && cut.lo == found[i].lo && found[i].bits > best)
            best = found[i].bits;
    }
    return best;
}

static void check_address(const struct cidr_table *t, struct cidr c)
{
    int64_t bits = -1;
    struct net_addr a = addr_of(&c);
    cidr_from_addr(&a, &c);
    cidr_table_find(t, &a, INT64_MIN, &bits);
    ASSERT(bits == longest(&c));
}

static void check_table(void)
{
    struct cidr_set set = {0};
    for (unsigned i = 0; i < n_found; i++)
        ASSERT(cidr_set_add(&set, &found[i], found[i].bits) == 0);
    struct cidr_table *t = cidr_table_new(&set, NULL);
    ASSERT(t != NULL);
    for (unsigned i = 0; i < n_found; i++) {
        struct cidr c = found[i];
        check_address(t, c);
        for (unsigned bit = 0; bit < 128; bit++) {
            c = found[i];
            if (bit < 64)
                c.hi ^= UINT64_C(1) << (63 - bit);
            else
                c.lo ^= UINT64_C(1) << (127 - bit);
            check_address(t, c);
        }
    }
    cidr_table_free(t);
    cidr_set_fini(&set);
}

/* ---- bans */

static unsigned n_bans, n_ours;
static const struct cidr ours = {.hi = UINT64_C(0xc0000207) << 32, .family = AF_INET, .bits = 32};

static void count_ban(void *ctx, const struct ban *b, struct slice comment)
{
    n_bans++;
    ASSERT(ctx == NULL || b->until_unix_s > 1000);
    n_ours += b->cidr.hi == ours.hi && b->cidr.lo == 0 && b->cidr.family == AF_INET && b->cidr.bits == 32;
}

static void check_bans(struct slice text)
{
    struct ban_edit edit = {.change = {ours, 2000}, .now_unix_s = 1000};
    struct bytes out = {0};
    unsigned line;
    char why[BAN_WHY_MAX];

    n_bans = n_ours = 0;
    int walked = ban_text_walk(text, count_ban, NULL, &line, why, sizeof why);
    unsigned before = n_bans;
    int r = ban_text_edit(text, &edit, &out);
    ASSERT(r == walked);
    if (r == 0) {
        n_bans = n_ours = 0;
        ASSERT(ban_text_walk((struct slice){out.data, out.len}, count_ban, &edit, &line, why, sizeof why) ==
               0);
        ASSERT(n_ours == 1);
        ASSERT(n_bans == before - edit.replaced - edit.expired + 1);
    } else {
        ASSERT(edit.line == line && strcmp(edit.why, why) == 0);
    }
    bytes_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    n_found = 0;
    for (size_t at = 0; at < len;) {
        const uint8_t *end = memchr(data + at, '\n', len - at);
        size_t n = end != NULL ? (size_t)(end - data) - at : len - at;
        check_line((const char *)data + at, n);
        at += n + 1;
    }
    check_table();
    check_bans((struct slice){data, len});
    return 0;
}
