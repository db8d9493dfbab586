// SPDX-License-Identifier: MIT
/* One process of `tgg bench`: its share of the clients, on an engine, from the first connect to the last
 * close. */
#pragma once

#include "load/bench_options.h"
#include "load/bench_shm.h"

/* Clients first..first+n-1 of the run, counted into shm->blocks[process]. Goes through the states of
 * bench_shm.h as the head of shm says. The target is resolved. 0 or -errno. */
int client_process_run(const struct bench_options *opt, struct bench_shm *shm, uint32_t process,
                       uint32_t first, uint32_t n);
