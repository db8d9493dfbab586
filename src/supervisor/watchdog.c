// SPDX-License-Identifier: MIT
#include "supervisor/watchdog.h"

void watchdog_reset(struct watchdog *w)
{
    *w = (struct watchdog){0};
}

unsigned watchdog_look(struct watchdog *w, uint64_t turns, uint64_t now_ms, uint64_t timeout_ms)
{
    bool late = w->armed && now_ms - w->looked_ms > timeout_ms / 2;
    bool turned = !w->armed || turns != w->turns;

    w->looked_ms = now_ms;
    if (turned)
        w->missed = 0;
    if (turned || late) {
        w->armed = true;
        w->turns = turns;
        w->since_ms = now_ms;
        return 0;
    }
    if (now_ms - w->since_ms < timeout_ms)
        return 0;
    w->since_ms = now_ms;
    return ++w->missed;
}
