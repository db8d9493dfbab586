// SPDX-License-Identifier: MIT
#include "base/assert.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

char assert_text[ASSERT_TEXT_MAX];

_Noreturn void assert_failed(const char *expr, const char *file, int line, const char *func)
{
    static bool in_progress;

    /* The log itself may be what is broken: the second time round say it without it. */
    if (in_progress) {
        fprintf(stderr, "assert_failed expr=\"%s\" file=%s line=%d function=%s\n", expr, file, line, func);
        abort();
    }
    in_progress = true;
    snprintf(assert_text, sizeof assert_text, "%s (%s:%d, %s)", expr, file, line, func);
    LOG(LOG_ERROR, "assert_failed", "expr=%s file=%s line=%d function=%s", log_quote(expr, strlen(expr)),
        file, line, func);
    abort();
}
