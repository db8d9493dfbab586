// SPDX-License-Identifier: MIT
/* HUP, tgg ctl reload: the file of the configuration and all that it names are read again. */
#pragma once

#include "base/bytes.h"
#include "common/config.h"
#include "common/files.h"
#include "supervisor/listeners.h"

/* What came of it, for tgg ctl: a JSON object, in both cases,
 *   {"changed":[{"section","key","live"}...],"added":[names],"removed":[names],"problems":[texts]}
 * `live` false: it takes effect with the next start. A listener whose address, port, protocol, backlog or
 * socket_mode has changed is in added and in removed. With problems nothing has changed, and the other three
 * are empty. */
struct reload_report {
    struct bytes json; /* {0} before, the caller's to bytes_fini after */
};

struct reload_target {
    struct config *cfg;
    struct files **files;        /* of cfg */
    struct listeners *listeners; /* of cfg */
    uint64_t generation;         /* of what comes out */
};

/* All or nothing. When everything is right the values of LIVE keys and the listeners go over into cfg,
 * sockets of new listeners are there and those of old ones are closed, *files is another one (the old one is
 * freed), and a descriptor of it comes back, the caller's, for distribution_begin. Else -errno, and all is as
 * it was. Every change, every problem, and every changed key that needs a restart are in the log and in the
 * report. */
int reload(const struct reload_target *t, struct reload_report *report);
