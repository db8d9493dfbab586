// SPDX-License-Identifier: MIT
/* Whole shards under simulation: many seeds, each a run of its own.
 *
 *   TGG_SIM_SEEDS=N   how many (default 2000)
 *   TGG_SIM_FIRST=N   from which on (default 1); with TGG_SIM_SEEDS=1 a single one
 *   TGG_SIM_VERBOSE=1 the trace of every run, as it goes, and the shard's log */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "sim/script.h"
#include "sim/world.h"

/* Runs of which it is looked whether a second one goes the same way. */
#define TWICE_EVERY 40

static uint64_t seed_now;
static struct world *world_now;

struct totals {
    uint64_t messages_in, messages_out, fanouts_sliced, queries_sliced, moved, parked, paused, strict,
        clients;
    uint64_t turns, turns_over, turn_ns_longest;
};

static uint64_t from_env(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void say_how(uint64_t seed)
{
    fprintf(stderr, "seed %llu; again: TGG_SIM_FIRST=%llu TGG_SIM_SEEDS=1 %s\n", (unsigned long long)seed,
            (unsigned long long)seed, program_invocation_name);
}

static void print_trace(const struct world *w)
{
    unsigned from = w->n_trace > WORLD_TRACE_LINES ? w->n_trace - WORLD_TRACE_LINES : 0;
    for (unsigned i = from; i < w->n_trace; i++)
        fprintf(stderr, "  %s\n", w->trace[i % WORLD_TRACE_LINES]);
}

/* An assert failed or worse: this process is lost, so what it says need not be safe. */
static void on_crash(int sig)
{
    fprintf(stderr, "signal %d\n", sig);
    if (world_now != NULL)
        print_trace(world_now);
    say_how(seed_now);
    _exit(1);
}

static void catch_crashes(void)
{
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_RESETHAND};
    sigaction(SIGABRT, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
}

static void add_up(struct totals *t, const struct world *w)
{
    const struct counters *c = &w->gateway.shm.counters;
    struct loop_stats stats;
    loop_stats_get(w->gateway.host.loop, &stats);
    t->messages_in += counter_get(c, COUNTER_client_messages_in);
    t->messages_out += counter_get(c, COUNTER_client_messages_out);
    t->fanouts_sliced += counter_get(c, COUNTER_fanouts_sliced);
    t->queries_sliced += counter_get(c, COUNTER_queries_sliced);
    t->moved += counter_get(c, COUNTER_event_moved);
    t->parked += counter_get(c, COUNTER_event_parked);
    t->paused += counter_get(c, COUNTER_worker_paused);
    t->strict += w->strict;
    t->clients += w->n_clients;
    t->turns += stats.turns;
    t->turns_over += stats.turns_over_budget;
    if (stats.turn_ns_longest > t->turn_ns_longest)
        t->turn_ns_longest = stats.turn_ns_longest;
}

/* True: all held. */
static bool run_seed(uint64_t seed, bool verbose, struct totals *t, uint64_t *ret_digest)
{
    struct buf_stats before, after;
    buf_stats_get(&before);
    seed_now = seed;
    struct world *w = world_now = world_new(seed, verbose);
    script_run(w);
    *ret_digest = sim_net_digest(w->net);
    bool ok = !w->failed;
    if (!ok) {
        fprintf(stderr, "FAILED: %s\n%s\n", w->failure, (const char *)w->config_text.data);
        print_trace(w);
    }
    add_up(t, w);
    world_free(w);
    world_now = NULL;
    buf_stats_get(&after);
    if (after.used_count != before.used_count) {
        fprintf(stderr, "FAILED: %lld buffers leaked\n", (long long)(after.used_count - before.used_count));
        ok = false;
    }
    if (!ok)
        say_how(seed);
    return ok;
}

static bool run_seed_again(uint64_t seed, uint64_t digest)
{
    struct totals unused = {0};
    uint64_t again;
    if (!run_seed(seed, false, &unused, &again) || again != digest) {
        fprintf(stderr, "FAILED: the second run of this seed went another way\n");
        say_how(seed);
        return false;
    }
    return true;
}

static void print_totals(const struct totals *t, uint64_t seeds, double s)
{
#define U(x) ((unsigned long long)(x))
    printf("%llu seeds in %.1f s (%.0f/s): %llu strict, %llu clients, %llu messages in, %llu out, %llu "
           "fan-outs and "
           "%llu queries in slices, %llu events moved, %llu parked, %llu pauses\n",
           U(seeds), s, (double)seeds / s, U(t->strict), U(t->clients), U(t->messages_in), U(t->messages_out),
           U(t->fanouts_sliced), U(t->queries_sliced), U(t->moved), U(t->parked), U(t->paused));
    printf("%llu turns, %llu over their budget, the longest %.1f ms of virtual time\n", U(t->turns),
           U(t->turns_over), (double)t->turn_ns_longest / 1e6);
#undef U
}

int main(void)
{
    uint64_t first = from_env("TGG_SIM_FIRST", 1), seeds = from_env("TGG_SIM_SEEDS", 2000), failed = 0;
    bool verbose = from_env("TGG_SIM_VERBOSE", 0) != 0;
    struct totals totals = {0};
    struct timespec begin, end;
    struct log_options quiet = {.level = LOG_DEBUG, .path = verbose ? NULL : "/dev/null", .process = "sim"};
    catch_crashes();
    log_open(&quiet);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint64_t seed = first; seed < first + seeds && failed < 3; seed++) {
        uint64_t digest;
        log_level_now = verbose || seed % 8 == 0 ? LOG_DEBUG : LOG_ERROR;
        bool ok = run_seed(seed, verbose, &totals, &digest);
        if (ok && seed % TWICE_EVERY == 0)
            ok = run_seed_again(seed, digest);
        failed += !ok;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    print_totals(&totals, seeds,
                 (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
    log_close();
    return failed == 0 ? 0 : 1;
}
