// SPDX-License-Identifier: MIT
/* What the conformance suite needs of a back end: a server and a client, each with a loop and a net of its
 * own. */
#pragma once

#include <stdbool.h>

#include "loop/loop.h"
#include "net/net.h"

#define MS UINT64_C(1000000)

enum { SERVER, CLIENT };

extern struct loop *loops[2];
extern struct net *nets[2];

struct backend {
    const char *name;
    void (*open)(void);
    void (*close)(void);
    bool (*step)(void); /* false: nothing will happen any more (a back end that cannot know says true) */
    void (*wait)(unsigned ms);      /* go on for so long, whatever happens */
    bool (*is_quiet)(unsigned who); /* does its loop wait, or does it spin? */
    void (*accepts_fail)(bool on);
};
extern const struct backend epoll_backend, sim_backend;
