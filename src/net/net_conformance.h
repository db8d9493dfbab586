// SPDX-License-Identifier: MIT
/* What the conformance suites need of a back end: a server, a client, and one who may take over from the
 * server, each with a loop and a net of its own. */
#pragma once

#include <stdbool.h>

#include "loop/loop.h"
#include "net/net.h"

#define MS UINT64_C(1000000)

enum { SERVER, CLIENT, SUCCESSOR, N_NETS };

extern struct loop *loops[N_NETS];
extern struct net *nets[N_NETS];

struct backend {
    const char *name;
    void (*open)(void);
    void (*close)(void);
    bool (*step)(void); /* false: nothing will happen any more (a back end that cannot know says true) */
    void (*wait)(unsigned ms);      /* go on for so long, whatever happens */
    bool (*is_quiet)(unsigned who); /* does its loop wait, or does it spin? */
    void (*accepts_fail)(bool on);
    int (*pass)(int handle); /* as if it had come to another process */
};

/* The one that is tried now, and on to the next; false: that was the last. */
extern const struct backend *backend;
bool next_backend(void);

/* Steps until the condition holds. */
#define PUMP_UNTIL(cond)                                                                                     \
    do {                                                                                                     \
        unsigned steps_ = 0;                                                                                 \
        while (!(cond)) {                                                                                    \
            if (++steps_ > 200000 || !backend->step())                                                       \
                fail_msg("%s: never: %s", backend->name, #cond);                                             \
        }                                                                                                    \
    } while (0)

/* Chance that is the same each time. */
extern unsigned random_state;
unsigned draw(unsigned n);
