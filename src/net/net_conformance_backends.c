// SPDX-License-Identifier: MIT
#include "net/net_conformance.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

#include "net/net_sim.h"

struct loop *loops[N_NETS];
struct net *nets[N_NETS];

static void epoll_open(void)
{
    for (unsigned i = 0; i < N_NETS; i++) {
        int err = 0;
        loops[i] = loop_new(&loop_clock_monotonic, 10 * MS);
        nets[i] = net_epoll_new(loops[i], &err);
        assert_non_null(nets[i]);
    }
}

static void nets_close(void)
{
    for (unsigned i = 0; i < N_NETS; i++) {
        net_free(nets[i]);
        loop_free(loops[i]);
    }
}

static bool epoll_step(void)
{
    static unsigned turns;
    loop_turn(loops[SERVER], 0);
    loop_turn(loops[SUCCESSOR], 0);
    loop_turn(loops[CLIENT], ++turns % 8 == 0 ? MS : 0); /* mostly there is something to do */
    return true;
}

static void epoll_wait_ms(unsigned ms)
{
    uint64_t end_ns = loop_clock_monotonic.now_ns(NULL) + ms * MS;
    while (loop_clock_monotonic.now_ns(NULL) < end_ns) {
        loop_turn(loops[SERVER], MS);
        loop_turn(loops[CLIENT], MS);
        loop_turn(loops[SUCCESSOR], 0);
    }
}

static bool epoll_is_quiet(unsigned who)
{
    uint64_t start_ns = loop_clock_monotonic.now_ns(NULL);
    loop_turn(loops[who], 30 * MS);
    return loop_clock_monotonic.now_ns(NULL) - start_ns >= 30 * MS;
}

static void epoll_accepts_fail(bool on)
{
    static struct rlimit before;
    struct rlimit none;

    if (!on) {
        setrlimit(RLIMIT_NOFILE, &before);
        return;
    }
    getrlimit(RLIMIT_NOFILE, &before);
    int next = dup(0);
    close(next);
    none = before;
    none.rlim_cur = (rlim_t)next;
    setrlimit(RLIMIT_NOFILE, &none);
}

static int epoll_pass(int handle)
{
    return dup(handle);
}

static const struct backend epoll_backend = {
    .name = "epoll",
    .open = epoll_open,
    .close = nets_close,
    .step = epoll_step,
    .wait = epoll_wait_ms,
    .is_quiet = epoll_is_quiet,
    .accepts_fail = epoll_accepts_fail,
    .pass = epoll_pass,
};

/* The simulation: a new seed for every test and round. */
static struct sim_net *world;
static uint64_t sim_seed;

static void sim_open(void)
{
    world = sim_net_new(++sim_seed);
    struct loop_clock clock = sim_net_clock(world);
    for (unsigned i = 0; i < N_NETS; i++) {
        loops[i] = loop_new(&clock, 10 * MS);
        nets[i] = sim_net_node(world, loops[i]);
    }
}

static void sim_close(void)
{
    nets_close();
    sim_net_free(world);
}

static bool sim_step(void)
{
    return sim_net_step(world, sim_net_now_ns(world) + 100000 * MS);
}

static void sim_wait_ms(unsigned ms)
{
    sim_net_run(world, ms * MS);
}

static bool sim_is_quiet(unsigned who)
{
    struct loop_stats before, after;
    loop_stats_get(loops[who], &before);
    sim_net_run(world, 100 * MS);
    loop_stats_get(loops[who], &after);
    return before.turns == after.turns;
}

static void sim_accepts_fail(bool on)
{
    sim_net_node_fail_accepts(nets[SERVER], on ? 1000000 : 0, EMFILE);
}

static int sim_pass(int handle)
{
    return handle;
}

static const struct backend sim_backend = {
    .name = "sim",
    .open = sim_open,
    .close = sim_close,
    .step = sim_step,
    .wait = sim_wait_ms,
    .is_quiet = sim_is_quiet,
    .accepts_fail = sim_accepts_fail,
    .pass = sim_pass,
};

const struct backend *backend;

bool next_backend(void)
{
    static const struct backend *const backends[] = {&epoll_backend, &sim_backend};
    static unsigned next;
    if (next == sizeof(backends) / sizeof(backends[0]))
        return false;
    backend = backends[next++];
    printf("back end: %s\n", backend->name);
    return true;
}

unsigned random_state;

unsigned draw(unsigned n)
{
    random_state = random_state * 1103515245 + 12345;
    return (random_state >> 8) % n;
}
