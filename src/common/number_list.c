// SPDX-License-Identifier: MIT
#include "common/number_list.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/assert.h"

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t");
}

/* What stands behind the number, NULL: there is none. One that is much too large reads as UINT16_MAX + 1. */
static const char *read_number(const char *p, unsigned *ret)
{
    unsigned v = 0;
    p = skip_blanks(p);
    if (!isdigit((unsigned char)*p))
        return NULL;
    for (; isdigit((unsigned char)*p); p++)
        v = v <= UINT16_MAX ? v * 10 + (unsigned)(*p - '0') : v;
    *ret = v <= UINT16_MAX ? v : (unsigned)UINT16_MAX + 1;
    return skip_blanks(p);
}

int number_list_parse(const char *text, unsigned max, uint16_t *ret, size_t cap)
{
    size_t n = 0;

    ASSERT(max <= UINT16_MAX);
    for (const char *p = text;; p++) {
        unsigned from, to;
        if ((p = read_number(p, &from)) == NULL)
            return -EINVAL;
        to = from;
        if (*p == '-' && (p = read_number(p + 1, &to)) == NULL)
            return -EINVAL;
        if (to < from || (*p != '\0' && *p != ','))
            return -EINVAL;
        if (to > max)
            return -ERANGE;
        if (to - from >= cap - n)
            return -E2BIG;
        for (unsigned v = from; v <= to; v++)
            ret[n++] = (uint16_t)v;
        if (*p == '\0')
            return (int)n;
    }
}
