// SPDX-License-Identifier: MIT
/* Whole nodes under simulation: many seeds, each a run of its own.
 *
 *   TGG_SIM_SEEDS=N   how many (default 2000)
 *   TGG_SIM_FIRST=N   from which on (default 1); with TGG_SIM_SEEDS=1 a single one, in this process
 *   TGG_SIM_JOBS=N    so many at the same time (default 2)
 *   TGG_SIM_SHARDS=N, TGG_SIM_DEATHS=N   instead of what the seed says: shards, and deaths at most
 *   TGG_SIM_UPGRADES=N   likewise, upgrades at most
 *   TGG_SIM_VERBOSE=1 the trace of every run, as it goes, and the shards' log
 *
 * Runs are done by children, a batch each: the memory of shards that were killed is never freed (sim_node.h),
 * and goes with them. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/log.h"
#include "sim/script.h"
#include "sim/world.h"

/* Runs of which it is looked whether a second one goes the same way. */
#define TWICE_EVERY 40
#define BATCH       50
#define SEED_S_MAX  20 /* of real time: it goes round in circles */
#define JOBS_MAX    16
#define FAILED_MAX  3

static uint64_t seed_now;
static struct world *world_now;

/* Of one batch; all but the last are sums. */
struct totals {
    uint64_t messages_in, messages_out, fanouts_sliced, queries_sliced, moved, parked, paused, replaced;
    uint64_t seeds, failed, strict, clients, shards, deaths, deaths_within, lossy, with_deaths;
    uint64_t upgrades, given_up, unrest, with_upgrades;
    struct sim_carried carried;
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

/* An assert failed, or worse, or it does not end: this process is lost, so what it says need not be safe. */
static void on_crash(int sig)
{
    fprintf(stderr, "signal %d %s\n", sig, assert_text);
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
    sigaction(SIGALRM, &action, NULL);
}

static void add_sums(void *to, const void *from, size_t size)
{
    for (size_t i = 0; i < size / sizeof(uint64_t); i++)
        ((uint64_t *)to)[i] += ((const uint64_t *)from)[i];
}

static void add_up(struct totals *t, const struct world *w)
{
    for (unsigned i = 0; i < w->node.crew->n_shards; i++) {
        const struct counters *c = &w->node.crew->shards[i].shm.counters;
        t->messages_in += counter_get(c, COUNTER_client_messages_in);
        t->messages_out += counter_get(c, COUNTER_client_messages_out);
        t->fanouts_sliced += counter_get(c, COUNTER_fanouts_sliced);
        t->queries_sliced += counter_get(c, COUNTER_queries_sliced);
        t->moved += counter_get(c, COUNTER_event_moved);
        t->parked += counter_get(c, COUNTER_event_parked);
        t->paused += counter_get(c, COUNTER_worker_paused);
        t->replaced += counter_get(c, COUNTER_uid_replaced);
    }
    t->strict += w->strict;
    t->clients += w->n_clients;
    t->shards += w->node.crew->n_shards;
    t->deaths += w->node.deaths;
    t->deaths_within += w->node.deaths_within;
    t->lossy += w->lossy;
    t->with_deaths += w->node.deaths > 0;
    add_sums(&t->carried, &w->node.carried, sizeof t->carried);
    t->upgrades += w->node.upgrades;
    t->given_up += w->node.upgrades_given_up;
    t->unrest += w->node.upgrades_unrest;
    t->with_upgrades += w->node.upgrades > 0;
    struct loop_stats stats = {0};
    sim_node_stats_add(w, &stats);
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
    alarm(SEED_S_MAX);
    struct world *w = world_now = world_new(seed, verbose);
    script_run(w);
    *ret_digest = sim_net_digest(w->net);
    bool ok = !w->failed;
    if (!ok) {
        fprintf(stderr, "FAILED: %s\n%s\n", w->failure, (const char *)w->config_text.data);
        print_trace(w);
    }
    add_up(t, w);
    bool died = w->node.has_entombed; /* with what it had in hands */
    world_free(w);
    world_now = NULL;
    buf_stats_get(&after);
    if (after.used_count != before.used_count && !died) {
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

static void run_batch(uint64_t first, uint64_t n, bool verbose, struct totals *t)
{
    for (uint64_t seed = first; seed < first + n && t->failed < FAILED_MAX; seed++) {
        uint64_t digest;
        log_level_now = verbose || seed % 8 == 0 ? LOG_DEBUG : LOG_ERROR;
        bool ok = run_seed(seed, verbose, t, &digest);
        if (ok && seed % TWICE_EVERY == 0)
            ok = run_seed_again(seed, digest);
        t->seeds++;
        t->failed += !ok;
    }
}

/* ---- children */

static void add_totals(struct totals *to, const struct totals *of)
{
    add_sums(to, of, offsetof(struct totals, turn_ns_longest));
    if (of->turn_ns_longest > to->turn_ns_longest)
        to->turn_ns_longest = of->turn_ns_longest;
}

struct job {
    pid_t pid;             /* 0: none */
    struct totals *totals; /* shared with it */
};

static void job_start(struct job *job, uint64_t first, uint64_t n, bool verbose)
{
    *job->totals = (struct totals){0};
    job->pid = fork();
    if (job->pid != 0)
        return;
    run_batch(first, n, verbose, job->totals);
    exit(job->totals->failed == 0 ? 0 : 1);
}

/* A child that crashed has said so itself. */
static void job_wait(struct job *jobs, unsigned n, struct totals *t)
{
    int status;
    pid_t pid = wait(&status);
    for (unsigned i = 0; i < n; i++) {
        if (jobs[i].pid != pid)
            continue;
        jobs[i].pid = 0;
        if (status != 0 && jobs[i].totals->failed == 0)
            jobs[i].totals->failed = 1;
        add_totals(t, jobs[i].totals);
    }
}

static unsigned running(const struct job *jobs, unsigned n)
{
    unsigned some = 0;
    for (unsigned i = 0; i < n; i++)
        some += jobs[i].pid > 0;
    return some;
}

static void run_all(uint64_t first, uint64_t seeds, unsigned n, bool verbose, struct totals *t)
{
    struct job jobs[JOBS_MAX] = {0};
    struct totals *shared =
        mmap(NULL, sizeof *shared * JOBS_MAX, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t next = first;
    while (next < first + seeds || running(jobs, n) > 0) {
        for (unsigned i = 0; i < n && next < first + seeds && t->failed < FAILED_MAX; i++) {
            if (jobs[i].pid > 0)
                continue;
            uint64_t left = first + seeds - next, size = left < BATCH ? left : BATCH;
            jobs[i].totals = &shared[i];
            job_start(&jobs[i], next, size, verbose);
            next += size;
        }
        if (running(jobs, n) == 0)
            break;
        job_wait(jobs, n, t);
    }
    munmap(shared, sizeof *shared * JOBS_MAX);
}

static void print_upgrades(const struct totals *t)
{
#define U(x) ((unsigned long long)(x))
    const struct sim_carried *c = &t->carried;
    printf("%llu seeds with upgrades: %llu upgrades, %llu given up, %llu found no rest\n",
           U(t->with_upgrades), U(t->upgrades), U(t->given_up), U(t->unrest));
    printf("handed over: %llu clients (%llu with bytes to send, %llu with input, %llu in the middle of a "
           "frame, %llu of a message, %llu not read, %llu with events that wait, %llu closing, %llu without "
           "an id), %llu links (%llu with commands, %llu with bytes to send), %llu workers that are gone, "
           "%llu events of nobody\n",
           U(c->clients), U(c->client_out), U(c->client_in), U(c->ws_decoder), U(c->message), U(c->paused),
           U(c->parked), U(c->closing), U(c->young), U(c->links), U(c->link_in), U(c->link_out),
           U(c->gone_workers), U(c->homeless));
#undef U
}

static void print_totals(const struct totals *t, double s)
{
#define U(x) ((unsigned long long)(x))
    printf(
        "%llu seeds in %.1f s (%.0f/s): %llu strict, %llu shards, %llu clients, %llu messages in, %llu out, "
        "%llu fan-outs and %llu queries in slices, %llu events moved, %llu parked, %llu pauses, "
        "%llu replaced at their uid\n",
        U(t->seeds), s, (double)t->seeds / s, U(t->strict), U(t->shards), U(t->clients), U(t->messages_in),
        U(t->messages_out), U(t->fanouts_sliced), U(t->queries_sliced), U(t->moved), U(t->parked),
        U(t->paused), U(t->replaced));
    printf("%llu seeds with deaths: %llu deaths, %llu of them within a turn; %llu seeds lost what a worker's "
           "kernel had\n",
           U(t->with_deaths), U(t->deaths), U(t->deaths_within), U(t->lossy));
    print_upgrades(t);
    printf("%llu turns, %llu over their budget, the longest %.1f ms of virtual time\n", U(t->turns),
           U(t->turns_over), (double)t->turn_ns_longest / 1e6);
#undef U
}

int main(void)
{
    uint64_t first = from_env("TGG_SIM_FIRST", 1), seeds = from_env("TGG_SIM_SEEDS", 2000);
    uint64_t jobs = from_env("TGG_SIM_JOBS", 2);
    bool verbose = from_env("TGG_SIM_VERBOSE", 0) != 0;
    struct totals totals = {0};
    struct timespec begin, end;
    struct log_options quiet = {.level = LOG_DEBUG, .path = verbose ? NULL : "/dev/null", .process = "sim"};
    mallopt(M_PERTURB, 0xa5); /* what is read before it was written goes wrong, the same way each time */
    catch_crashes();
    log_open(&quiet);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (seeds == 1)
        run_batch(first, seeds, verbose, &totals);
    else
        run_all(first, seeds, jobs < 1 ? 1 : jobs > JOBS_MAX ? JOBS_MAX : (unsigned)jobs, verbose, &totals);
    clock_gettime(CLOCK_MONOTONIC, &end);
    print_totals(&totals, (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9);
    log_close();
    return totals.failed == 0 ? 0 : 1;
}
