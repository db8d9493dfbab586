// SPDX-License-Identifier: MIT
#include "common/counters.h"

#include <inttypes.h>

const struct counter_info counter_infos[COUNTER_N] = {
#define COUNTER(name, help) {#name, help, COUNTER_KIND_COUNTER},
#define GAUGE(name, help)   {#name, help, COUNTER_KIND_GAUGE},
#define DROP_REASON(name, help)
#define CLOSE_REASON(name, help)
#include "common/counters.def"
#undef COUNTER
#undef GAUGE
#undef DROP_REASON
#define COUNTER(name, help)
#define GAUGE(name, help)
#define DROP_REASON(name, help) {"dropped_" #name, help, COUNTER_KIND_DROP},
#include "common/counters.def"
#undef DROP_REASON
#undef CLOSE_REASON
#define DROP_REASON(name, help)
#define CLOSE_REASON(name, help) {"client_closed_" #name, help, COUNTER_KIND_CLOSE},
#include "common/counters.def"
#undef COUNTER
#undef GAUGE
#undef DROP_REASON
#undef CLOSE_REASON
};

const char *close_reason_name(enum close_reason reason)
{
    return counter_infos[COUNTER_CLOSE_FIRST + (unsigned)reason].name + sizeof "client_closed_" - 1;
}

const char *close_reason_help(enum close_reason reason)
{
    return counter_infos[COUNTER_CLOSE_FIRST + (unsigned)reason].help;
}

const char *drop_reason_name(enum drop_reason reason)
{
    return counter_infos[COUNTER_DROP_FIRST + (unsigned)reason].name + sizeof "dropped_" - 1;
}

void counters_clear_gauges(struct counters *c)
{
    for (unsigned i = 0; i < COUNTER_N; i++) {
        if (counter_infos[i].kind == COUNTER_KIND_GAUGE)
            counter_set(c, (enum counter_id)i, 0);
    }
}

/* FNV-1a: not keyed, because two builds must agree on it. */
uint64_t counters_layout(void)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (unsigned i = 0; i < COUNTER_N; i++) {
        for (const char *p = counter_infos[i].name;; p++) {
            h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
            if (*p == '\0')
                break;
        }
    }
    return h;
}

void counters_write_text(FILE *out, const struct counters *c)
{
    for (unsigned i = 0; i < COUNTER_N; i++)
        fprintf(out, "%s %" PRIu64 "\n", counter_infos[i].name, counter_get(c, (enum counter_id)i));
}

void counters_write_json(FILE *out, const struct counters *c)
{
    for (unsigned i = 0; i < COUNTER_N; i++)
        fprintf(out, "%s\"%s\":%" PRIu64, i > 0 ? "," : "", counter_infos[i].name,
                counter_get(c, (enum counter_id)i));
}
