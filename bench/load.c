// SPDX-License-Identifier: MIT
/* tgg-load: the load client of the benchmarks. See load.h for its parts and bench/README.md for its use. */
#include "load.h"

#include "common.h"
#include "handshake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define STALL_MAX_NS 10000000000u /* a run in which nothing happens for so long has failed */
#define NS_PER_MS    1000000u

static void window_open(struct load *l)
{
    memset(&l->latency, 0, sizeof(l->latency));
    l->window.operations = l->operations;
    for (uint32_t i = 0; i < l->opt.n_cpu_pids; i++)
        l->window.cpu_ns[i] = process_cpu_ns(l->opt.cpu_pids[i]);
    l->window.own_cpu_ns = process_cpu_ns(getpid());
    l->window.start_ns = l->engine.now;
}

static void window_close(struct load *l)
{
    l->window.operations = l->operations - l->window.operations;
    for (uint32_t i = 0; i < l->opt.n_cpu_pids; i++)
        l->window.cpu_ns[i] = process_cpu_ns(l->opt.cpu_pids[i]) - l->window.cpu_ns[i];
    l->window.own_cpu_ns = process_cpu_ns(getpid()) - l->window.own_cpu_ns;
    l->window.end_ns = l->engine.now;
}

static void latency_print(const struct hist *h)
{
    printf("\"latency_ns\":{\"count\":%lu,\"mean\":%lu,\"p50\":%lu,\"p90\":%lu,\"p99\":%lu,\"p999\":%lu,"
           "\"max\":%lu}",
           h->count, h->count == 0 ? 0 : h->sum / h->count, hist_quantile(h, 0.5), hist_quantile(h, 0.9),
           hist_quantile(h, 0.99), hist_quantile(h, 0.999), h->max);
}

static void result_print(const struct load *l)
{
    uint64_t cpu_ns = 0;
    double seconds = (double)(l->window.end_ns - l->window.start_ns) / 1e9;
    printf("{\"event\":\"result\",\"mode\":\"%s\",\"connections\":%u,\"payload\":%u,\"operations\":%lu,"
           "\"seconds\":%.6f,\"load_cpu_ns\":%lu,\"cpu_ns\":[",
           l->mode->name, l->opt.connections, l->opt.payload, l->window.operations, seconds,
           l->window.own_cpu_ns);
    for (uint32_t i = 0; i < l->opt.n_cpu_pids; i++) {
        printf("%s%lu", i == 0 ? "" : ",", l->window.cpu_ns[i]);
        cpu_ns += l->window.cpu_ns[i];
    }
    double operations = l->window.operations == 0 ? 1 : (double)l->window.operations;
    printf("],\"cpu_ns_per_operation\":%.1f,", (double)cpu_ns / operations);
    latency_print(&l->latency);
    puts("}");
    fflush(stdout);
}

static bool window_is_over(const struct load *l)
{
    uint64_t limit = l->opt.run_operations;
    return l->engine.now >= l->window.start_ns + (uint64_t)l->opt.run_ms * NS_PER_MS ||
           (limit > 0 && l->operations - l->window.operations >= limit);
}

bool phase_advance(struct load *l)
{
    uint64_t measure_ns = l->start_ns + (uint64_t)l->opt.warmup_ms * NS_PER_MS;
    if (l->phase == PHASE_WARMUP && l->engine.now >= measure_ns &&
        l->operations - l->start_operations >= l->opt.warmup_operations) {
        l->phase = PHASE_MEASURE;
        window_open(l);
    }
    if (l->phase == PHASE_MEASURE && window_is_over(l)) {
        window_close(l);
        if (l->mode->end != NULL)
            l->mode->end(l);
        result_print(l);
        l->phase = l->opt.hold ? PHASE_DRAIN : PHASE_DONE;
    }
    if (l->phase == PHASE_DRAIN && l->mode->drained(l)) {
        say_ready();
        l->phase = PHASE_HOLD;
    }
    return l->phase != PHASE_DONE;
}

static void mode_begin(struct load *l)
{
    l->engine.now = l->start_ns = load_now_ns();
    l->start_operations = l->operations;
    l->phase = PHASE_WARMUP;
    if (l->mode->start != NULL)
        l->mode->start(l);
}

/* Standard input ended: the one who started us wants no more. A line: go. */
void stdin_read(struct load *l)
{
    char text[64];
    ssize_t n = read(STDIN_FILENO, text, sizeof(text));
    if (n <= 0) {
        l->phase = PHASE_DONE;
        return;
    }
    if (l->phase == PHASE_HOLD && l->mode->drained != NULL)
        mode_begin(l);
}

static void all_ready(struct load *l)
{
    say_ready();
    if (l->opt.hold)
        l->phase = PHASE_HOLD;
    else
        mode_begin(l);
}

static void connect_more(struct load *l)
{
    while (l->n_begun < l->opt.connections && l->n_begun - l->n_ready < l->opt.connecting_max) {
        struct conn *c = &l->conns[l->n_begun];
        c->base.index = l->n_begun++;
        engine_begin(&l->engine, &c->base);
    }
    if (l->n_ready == l->opt.connections)
        all_ready(l);
}

static void turn(struct load *l, uint64_t sleep_ns_max)
{
    bool patient = l->phase == PHASE_HOLD;
    uint64_t ns = sleep_ns_max < STALL_MAX_NS ? sleep_ns_max : STALL_MAX_NS;
    uint64_t before = load_now_ns();
    int n = engine_turn(&l->engine, patient ? UINT64_MAX : ns);
    if (n < 0) {
        errno = -n;
        die_errno("waiting");
    }
    if (n == 0 && ns == STALL_MAX_NS && l->engine.now - before >= ns)
        die("nothing came for %u s (%u of %u connections ready)", (unsigned)(STALL_MAX_NS / 1000000000u),
            l->n_ready, l->opt.connections);
}

static void run(struct load *l)
{
    uint64_t sleep_ns_max = UINT64_MAX;
    connect_more(l);
    while (phase_advance(l)) {
        turn(l, sleep_ns_max);
        if (l->phase == PHASE_CONNECT)
            connect_more(l);
        sleep_ns_max = UINT64_MAX;
        if (load_is_running(l) && l->mode->turn != NULL)
            sleep_ns_max = l->mode->turn(l);
    }
}

static const char usage_text[] =
    "usage: tgg-load echo|fan-out|listen|store|connect|idle --target ADDRESS:PORT [options]\n"
    "  --connections N        (1)\n"
    "  --payload BYTES        (64) 16 to 65535\n"
    "  --outstanding N        (1) messages on the way per connection, broadcasts, or connections being "
    "cycled\n"
    "  --rate N               echo: open loop, messages per second over all connections\n"
    "  --warmup MS            (300) before the measured window\n"
    "  --run MS               (2000) the measured window\n"
    "  --warmup-operations N  (0) and at least so many operations\n"
    "  --run-operations N     the window ends after so many operations, if that comes first;\n"
    "                         listen: a line after each so many\n"
    "  --cpu-pid PID          take this process' CPU time over the window; may be given several times\n"
    "  --sources N            (8) source addresses, from 127.0.0.1 upwards\n"
    "  --source-first N       (0) begin with 127.0.0.1 + N\n"
    "  --connecting N         (256) connections that are being established at a time\n"
    "  --silent               idle: connect and say nothing\n"
    "  --deflate              offer permessage-deflate\n"
    "  --deaf                 do not read once the handshake is done\n"
    "  --tls                  TLS, whatever the certificate says (not: connect)\n"
    "  --opaque               the peer echoes payloads as they were masked (tgg-floor)\n"
    "  --await                a connection is ready when a first message has come\n"
    "  --hold                 a run at each line on standard input, end at its end\n"
    "  --no-handshake         connect: TCP only\n"
    "  --message              connect: one echo before the close\n"
    "  --close wait|fin|reset (wait) connect: end and wait for the other end; end and forget; RST\n";

static const struct load_mode *parse_mode(const char *name)
{
    static const struct load_mode *const modes[] = {&load_echo,  &load_fanout,  &load_listen,
                                                    &load_store, &load_connect, &load_idle};
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(name, modes[i]->name) == 0)
            return modes[i];
    }
    usage(usage_text);
}

static void take_cpu_pid(const struct arg *arg, const char *text)
{
    struct load_options *o = arg->into;
    if (o->n_cpu_pids == CPU_PIDS_MAX)
        die("--cpu-pid: at most %u", CPU_PIDS_MAX);
    o->cpu_pids[o->n_cpu_pids++] = (pid_t)parse_uint(arg->name, text, 1, INT32_MAX);
}

static void take_rate(const struct arg *arg, const char *text)
{
    *(double *)arg->into = (double)parse_uint(arg->name, text, 1, 100000000);
}

static void take_close(const struct arg *arg, const char *text)
{
    static const char *const names[] = {[CLOSE_WAIT] = "wait", [CLOSE_FIN] = "fin", [CLOSE_RESET] = "reset"};
    *(enum close_kind *)arg->into = (enum close_kind)arg_choice(arg, text, names, 3);
}

static void options_parse(struct load *l, int argc, char **argv)
{
    struct load_options *o = &l->opt;
    const struct arg args[] = {
        {"--target", arg_address, &o->target},
        {"--connections", arg_u32, &o->connections, 1, 1000000},
        {"--payload", arg_u32, &o->payload, PAYLOAD_MIN, PAYLOAD_MAX},
        {"--outstanding", arg_u32, &o->outstanding, 1, 10000},
        {"--rate", take_rate, &o->rate},
        {"--warmup", arg_u32, &o->warmup_ms, 0, 3600000},
        {"--run", arg_u32, &o->run_ms, 1, 3600000},
        {"--warmup-operations", arg_u64, &o->warmup_operations, 0, UINT32_MAX},
        {"--run-operations", arg_u64, &o->run_operations, 1, UINT32_MAX},
        {"--cpu-pid", take_cpu_pid, o},
        {"--sources", arg_u32, &o->sources, 1, 65536},
        {"--source-first", arg_u32, &o->source_first, 0, 65536},
        {"--connecting", arg_u32, &o->connecting_max, 1, 1000000},
        {"--silent", arg_flag, &o->silent},
        {"--deflate", arg_flag, &o->deflate},
        {"--deaf", arg_flag, &o->deaf},
        {"--tls", arg_flag, &o->tls},
        {"--opaque", arg_flag, &o->opaque},
        {"--await", arg_flag, &o->await},
        {"--hold", arg_flag, &o->hold},
        {"--no-handshake", arg_flag, &o->no_handshake},
        {"--message", arg_flag, &o->message},
        {"--close", take_close, &o->close},
    };
    *o = (struct load_options){.connections = 1,
                               .payload = 64,
                               .outstanding = 1,
                               .warmup_ms = 300,
                               .run_ms = 2000,
                               .sources = 8,
                               .connecting_max = 256};
    int rest = args_parse(argc, argv, args, sizeof(args) / sizeof(args[0]), usage_text);
    if (rest + 1 != argc || o->target.sin_port == 0)
        usage(usage_text);
    l->mode = parse_mode(argv[rest]);
    if (l->mode == &load_idle || l->mode == &load_listen)
        o->hold = true;
}

static void target_init(struct load *l)
{
    struct sockaddr_storage source = {.ss_family = AF_INET};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&source;
    l->target.protocol = LOAD_WEBSOCKET;
    memcpy(&l->target.address, &l->opt.target, sizeof(l->opt.target));
    l->target.address_len = sizeof(l->opt.target);
    l->sources.n = l->opt.sources;
    l->sources.list = xcalloc(l->sources.n, sizeof(source));
    for (uint32_t i = 0; i < l->opt.sources; i++) {
        v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK + l->opt.source_first + i);
        l->sources.list[i] = source;
    }
}

static void load_engine_init(struct load *l)
{
    struct engine_conf conf = {
        .target = &l->target,
        .sources = &l->sources,
        .request = l->opt.deflate ? HANDSHAKE_REQUEST_DEFLATE : HANDSHAKE_REQUEST,
        .accept = HANDSHAKE_ACCEPT,
        .silent = l->opt.silent,
    };
    if (l->opt.tls)
        conf.tls = load_tls_client(TLS1_3_VERSION, false, NULL);
    if (l->opt.tls && conf.tls == NULL)
        die("TLS: %s", load_tls_error());
    int r = engine_init(&l->engine, &conf, &load_conn_ops, l);
    if (r < 0) {
        errno = -r;
        die_errno("epoll");
    }
}

int main(int argc, char **argv)
{
    static struct load load;
    struct load *l = &load;
    options_parse(l, argc, argv);
    raise_file_limit();
    prctl(PR_SET_TIMERSLACK, 1UL); /* the open loop sleeps for microseconds */
    target_init(l);
    load_engine_init(l);
    frames_init(l);
    if (l->mode == &load_connect) {
        load_connect_run(l);
        return 0;
    }
    l->conns = xcalloc(l->opt.connections, sizeof(*l->conns));
    if (l->opt.hold && engine_watch(&l->engine, STDIN_FILENO) < 0)
        die("standard input cannot be watched");
    run(l);
    return 0;
}
