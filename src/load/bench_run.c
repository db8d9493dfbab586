// SPDX-License-Identifier: MIT
#include "load/bench_run.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "load/client.h"
#include "load/engine.h"

#define DESCRIPTORS_BESIDE 32u /* of a process, besides its connections */
#define LOOK_NS            20000000
#define SAMPLE_NS          1000000000u
#define START_DELAY_NS     60000000u /* so that every process has heard of it */

const char *const bench_count_names[BENCH_COUNTS] = {
#define BENCH_COUNT(name, text) [BENCH_##name] = #name,
#include "load/bench_counts.def"
};
const char *const bench_count_texts[BENCH_COUNTS] = {
#define BENCH_COUNT(name, text) [BENCH_##name] = text,
#include "load/bench_counts.def"
};
const char *const bench_error_names[BENCH_ERRORS] = {
#define BENCH_ERROR(name, text) [BENCH_ERROR_##name] = #name,
#include "load/bench_counts.def"
};
const char *const bench_error_texts[BENCH_ERRORS] = {
#define BENCH_ERROR(name, text) [BENCH_ERROR_##name] = text,
#include "load/bench_counts.def"
};

/* ---- descriptors */

bool bench_limit_check(const struct bench_options *o, char *error, size_t cap)
{
    struct rlimit limit;
    uint32_t each = (o->connections + o->processes - 1) / o->processes + DESCRIPTORS_BESIDE;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return true;
    if (limit.rlim_cur < each) {
        struct rlimit more = {.rlim_cur = each, .rlim_max = limit.rlim_max > each ? limit.rlim_max : each};
        if (setrlimit(RLIMIT_NOFILE, &more) == 0)
            return true;
    }
    if (limit.rlim_cur >= each)
        return true;
    uint64_t room = limit.rlim_max > DESCRIPTORS_BESIDE ? limit.rlim_max - DESCRIPTORS_BESIDE : 1;
    uint64_t processes = (o->connections + room - 1) / room;
    if (processes <= BENCH_PROCESSES_MAX)
        snprintf(error, cap,
                 "%u connections in %u process(es) need %u descriptors each, and a process may have %" PRIu64
                 ": use --processes %" PRIu64 ", or raise the limit (ulimit -n %u)",
                 o->connections, o->processes, each, (uint64_t)limit.rlim_max, processes, each);
    else
        snprintf(error, cap,
                 "%u connections need more than %u processes at the %" PRIu64
                 " descriptors that each may have: raise the limit (ulimit -n)",
                 o->connections, BENCH_PROCESSES_MAX, (uint64_t)limit.rlim_max);
    return false;
}

/* ---- processes */

struct parent {
    const struct bench_options *opt;
    struct bench_result *result;
    struct bench_shm *shm;
    size_t shm_bytes;
    pid_t *pids; /* 0: ended */
    uint64_t begin_ns, sample_ns;
    struct bench_block *now, *before; /* the sums at this sample and at the one before */
    struct hist *between;
    size_t samples_cap;
    bool redraws; /* progress is one line on a terminal */
};

static volatile sig_atomic_t n_interrupts;

static void on_signal(int number)
{
    n_interrupts++;
}

static void signals_take(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    n_interrupts = 0;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

/* A terminal sends INT to all processes; the parent tells the others what to do. */
static _Noreturn void child(struct parent *p, uint32_t i, uint32_t first, uint32_t n)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGINT, &ignore, NULL);
    sigaction(SIGTERM, &ignore, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1UL); /* messages are due to the microsecond */
    int r = client_process_run(p->opt, p->shm, i, first, n);
    if (r < 0)
        fprintf(stderr, "tgg bench: process %u: %s%s%s\n", i, strerror(-r),
                p->shm->blocks[i].tls_error[0] ? ": " : "", p->shm->blocks[i].tls_error);
    fflush(stderr);
    _exit(r < 0 ? 1 : 0);
}

static int fork_all(struct parent *p)
{
    const struct bench_options *o = p->opt;
    uint32_t first = 0;
    for (uint32_t i = 0; i < o->processes; i++) {
        uint32_t n = o->connections / o->processes + (i < o->connections % o->processes ? 1 : 0);
        pid_t pid = fork();
        if (pid < 0)
            return -errno;
        if (pid == 0)
            child(p, i, first, n);
        p->pids[i] = pid;
        first += n;
    }
    return 0;
}

/* What is left of them when `killed`: ended at once. */
static void reap(struct parent *p, bool killed)
{
    for (uint32_t i = 0; i < p->opt->processes; i++) {
        int status;
        if (p->pids[i] == 0)
            continue;
        if (killed)
            kill(p->pids[i], SIGKILL);
        pid_t pid = waitpid(p->pids[i], &status, killed ? 0 : WNOHANG);
        if (pid != p->pids[i])
            continue;
        p->pids[i] = 0;
        if (!killed && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
            p->result->n_died++;
    }
}

static bool all_have(const struct parent *p, enum bench_state state)
{
    for (uint32_t i = 0; i < p->opt->processes; i++) {
        if (p->pids[i] != 0 && bench_get(&p->shm->blocks[i].state) < (uint32_t)state)
            return false;
    }
    return true;
}

static bool all_ended(const struct parent *p)
{
    for (uint32_t i = 0; i < p->opt->processes; i++) {
        if (p->pids[i] != 0)
            return false;
    }
    return true;
}

/* ---- sums */

static void sum_block(struct bench_block *into, const struct bench_block *from)
{
    for (size_t i = 0; i < BENCH_COUNTS; i++)
        into->counts[i] += bench_read(&from->counts[i]);
    for (size_t i = 0; i < BENCH_ERRORS; i++)
        into->errors[i] += bench_read(&from->errors[i]);
    into->open += bench_get(&from->open);
    hist_merge(&into->latency, &from->latency);
}

static void sum_rest(struct bench_block *into, const struct bench_block *from)
{
    for (size_t i = 0; i < BENCH_CLOSE_CODES; i++)
        into->closes[i] += from->closes[i];
    for (size_t i = 0; i < BENCH_HTTP_CODES; i++)
        into->http[i] += from->http[i];
    if (into->tls_error[0] == '\0')
        memcpy(into->tls_error, from->tls_error, sizeof(into->tls_error));
    if (into->connect_errno == 0)
        into->connect_errno = from->connect_errno;
    hist_merge(&into->connect, &from->connect);
    hist_merge(&into->handshake, &from->handshake);
    hist_merge(&into->ping, &from->ping);
}

static void sum_up(struct parent *p, struct bench_block *ret)
{
    memset(ret, 0, sizeof(*ret));
    for (uint32_t i = 0; i < p->opt->processes; i++)
        sum_block(ret, &p->shm->blocks[i]);
}

static void result_take(struct parent *p)
{
    struct bench_result *r = p->result;
    sum_up(p, &r->sum);
    for (uint32_t i = 0; i < p->opt->processes; i++) {
        const struct bench_block *b = &p->shm->blocks[i];
        double share = r->run_s > 0 ? (double)b->run_cpu_ns / 1e9 / r->run_s : 0;
        sum_rest(&r->sum, b);
        if (share > r->cpu_share_max)
            r->cpu_share_max = share;
    }
}

static uint64_t bad_of(const struct bench_block *b)
{
    return b->counts[BENCH_failed] + b->counts[BENCH_dropped];
}

static struct bench_sample *sample_new(struct parent *p)
{
    struct bench_result *r = p->result;
    if (r->n_samples == p->samples_cap) {
        size_t cap = p->samples_cap * 2 + 64;
        struct bench_sample *samples = realloc(r->samples, cap * sizeof(*samples));
        if (samples == NULL)
            return NULL;
        r->samples = samples;
        p->samples_cap = cap;
    }
    return &r->samples[r->n_samples++];
}

static const struct bench_sample *sample_take(struct parent *p, uint64_t now)
{
    double seconds = (double)(now - p->sample_ns) / 1e9;
    struct bench_block *b = p->now;
    sum_up(p, b);
    hist_since(&b->latency, &p->before->latency, p->between);
    struct bench_sample *s = sample_new(p);
    if (s != NULL)
        *s = (struct bench_sample){
            .end_ms = (now - p->begin_ns) / 1000000,
            .open = b->open,
            .failed = bad_of(b),
            .out_per_s =
                (double)(b->counts[BENCH_messages_out] - p->before->counts[BENCH_messages_out]) / seconds,
            .in_per_s =
                (double)(b->counts[BENCH_messages_in] - p->before->counts[BENCH_messages_in]) / seconds,
            .latencies_per_s = (double)p->between->count / seconds,
            .p50_ns = hist_quantile(p->between, 0.5),
            .p90_ns = hist_quantile(p->between, 0.9),
            .p99_ns = hist_quantile(p->between, 0.99),
            .max_ns = p->between->max,
        };
    p->now = p->before;
    p->before = b;
    p->sample_ns = now;
    return s;
}

/* ---- progress */

static const char *phase_name(const struct parent *p)
{
    if (!all_have(p, BENCH_READY))
        return "connecting";
    return all_have(p, BENCH_DRAINED) ? "closing" : p->result->run_at_s > 0 ? "running" : "ready";
}

static void progress(struct parent *p, const struct bench_sample *s)
{
    const struct bench_block *b = p->before; /* the newest sums */
    if (p->opt->quiet || s == NULL)
        return;
    fprintf(stderr, "%s%5.0f s  %-10s  connected %u of %u, failed %" PRIu64 "  out %.0f/s  in %.0f/s",
            p->redraws ? "\r" : "", (double)s->end_ms / 1000, phase_name(p), s->open, p->opt->connections,
            s->failed, s->out_per_s, s->in_per_s);
    if (b->latency.count > 0)
        fprintf(stderr, "  p50 %.2f ms  p99 %.2f ms", (double)hist_quantile(&b->latency, 0.5) / 1e6,
                (double)hist_quantile(&b->latency, 0.99) / 1e6);
    fputs(p->redraws ? "\033[K" : "\n", stderr);
    fflush(stderr);
}

/* ---- the run */

static double seconds_since(uint64_t then_ns, uint64_t now_ns)
{
    return now_ns > then_ns ? (double)(now_ns - then_ns) / 1e9 : 0;
}

/* Orders that follow from what the processes say of themselves. */
static void advance(struct parent *p, uint64_t now)
{
    struct bench_result *r = p->result;
    struct bench_shm *shm = p->shm;
    if (n_interrupts > 0 && !r->interrupted) {
        r->interrupted = true;
        if (shm->start_ns > 0 && now > shm->start_ns && r->run_s == 0)
            r->run_s = fmin(seconds_since(shm->start_ns, now), p->opt->time_s);
        bench_set(&shm->stop, 1);
    }
    if (r->connect_s == 0 && all_have(p, BENCH_READY)) {
        r->connect_s = seconds_since(p->begin_ns, now);
        struct bench_block *b = p->now;
        sum_up(p, b);
        if (b->open == 0) {
            bench_set(&shm->stop, 1); /* nobody to talk to */
        } else if (!r->interrupted) {
            r->run_at_s = seconds_since(p->begin_ns, now + START_DELAY_NS);
            __atomic_store_n(&shm->start_ns, now + START_DELAY_NS, __ATOMIC_RELEASE);
        }
    }
    if (shm->close == 0 && all_have(p, BENCH_DRAINED)) {
        if (r->run_at_s > 0 && r->run_s == 0)
            r->run_s = p->opt->time_s;
        if (now > p->sample_ns + SAMPLE_NS / 4)
            sample_take(p, now);
        bench_set(&shm->close, 1);
    }
}

static void watch(struct parent *p)
{
    while (!all_ended(p)) {
        struct timespec wait = {.tv_nsec = LOOK_NS};
        (void)nanosleep(&wait, NULL);
        uint64_t now = load_now_ns();
        reap(p, n_interrupts > 1);
        advance(p, now);
        if (now >= p->sample_ns + SAMPLE_NS && p->shm->close == 0)
            progress(p, sample_take(p, now));
    }
    if (p->redraws && !p->opt->quiet && p->result->n_samples > 0)
        fputs("\r\033[K", stderr);
}

static int parent_init(struct parent *p)
{
    const struct bench_options *o = p->opt;
    struct timespec ts;
    p->shm_bytes = sizeof(*p->shm) + o->processes * sizeof(p->shm->blocks[0]);
    void *map = mmap(NULL, p->shm_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    p->shm = map != MAP_FAILED ? map : NULL;
    p->pids = calloc(o->processes, sizeof(*p->pids));
    p->now = calloc(1, sizeof(*p->now));
    p->before = calloc(1, sizeof(*p->before));
    p->between = calloc(1, sizeof(*p->between));
    if (p->shm == NULL || p->pids == NULL || p->now == NULL || p->before == NULL || p->between == NULL)
        return -ENOMEM;
    if (getrandom(&p->shm->run_id, sizeof(p->shm->run_id), 0) != sizeof(p->shm->run_id))
        p->shm->run_id = (uint32_t)getpid();
    p->shm->n = o->processes;
    p->begin_ns = p->sample_ns = load_now_ns();
    clock_gettime(CLOCK_REALTIME, &ts);
    p->result->begin_unix_s = (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
    p->redraws = isatty(STDERR_FILENO);
    return 0;
}

static void parent_fini(struct parent *p)
{
    if (p->shm != NULL)
        munmap(p->shm, p->shm_bytes);
    free(p->pids);
    free(p->now);
    free(p->before);
    free(p->between);
}

int bench_run(const struct bench_options *o, struct bench_result *ret)
{
    struct parent p = {.opt = o, .result = ret};
    *ret = (struct bench_result){.opt = o};
    int r = parent_init(&p);
    if (r == 0) {
        signals_take();
        fflush(stdout);
        r = fork_all(&p);
        if (r == 0)
            watch(&p);
        else
            reap(&p, true);
        result_take(&p);
    }
    parent_fini(&p);
    return r;
}

void bench_result_fini(struct bench_result *r)
{
    free(r->samples);
    r->samples = NULL;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : 100.0 * (double)part / (double)whole;
}

double bench_errors_percent(const struct bench_result *r)
{
    const uint64_t *c = r->sum.counts;
    uint64_t due = c[BENCH_messages_out] + c[BENCH_unsent];
    double connections = percent(bad_of(&r->sum), c[BENCH_begun]);
    double messages = percent(c[BENCH_unanswered] + c[BENCH_unsent], due);
    return connections > messages ? connections : messages;
}

bool bench_is_good(const struct bench_result *r)
{
    return r->sum.counts[BENCH_opened] > 0 && r->n_died == 0 && bench_errors_percent(r) <= r->opt->max_errors;
}
