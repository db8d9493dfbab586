// SPDX-License-Identifier: MIT
// Sends each message back to its sender (or to all, or to a group). Also the worker of the benchmarks.
#include "tgg_worker.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ADDRESSES_MAX = 32 };

struct options {
    const char *registers[ADDRESSES_MAX], *gateways[ADDRESSES_MAX];
    size_t register_count, gateway_count;
    const char *secret, *name;
    unsigned id;
    const char *reply_group; // messages go to this group
    const char *join_group;  // clients join it
    bool broadcast, bind_uid, quiet;
    char *session;
    size_t session_len;
};

static struct tggw *running;

static void on_signal(int signo)
{
    tggw_stop(running);
}

static void on_connect(struct tggw *w, const struct tggw_client *c, void *user)
{
    const struct options *o = user;
    char uid[16];
    if (o->bind_uid) {
        snprintf(uid, sizeof uid, "u%u", c->connection_id);
        tggw_bind_uid(w, c->client_id, uid);
    }
    if (o->join_group != NULL)
        tggw_join_group(w, c->client_id, o->join_group);
    if (o->session_len > 0)
        tggw_set_session(w, c->client_id, o->session, o->session_len);
}

// A full output buffer (-ENOBUFS) drops the message; tggw_stats counts it.
static void on_message(struct tggw *w, const struct tggw_client *c, const void *data, size_t len, void *user)
{
    const struct options *o = user;
    if (o->broadcast)
        tggw_send_to_all(w, data, len, 0);
    else if (o->reply_group != NULL)
        tggw_send_to_group(w, o->reply_group, data, len, 0);
    else
        tggw_send_to_current(w, c, data, len, 0);
}

static void on_log(struct tggw *w, enum tggw_log_level level, const char *line, void *user)
{
    const struct options *o = user;
    if (!o->quiet || level == TGGW_LOG_ERROR)
        fprintf(stderr, "tgg-echo-worker: %s\n", line);
}

// A session that is exactly n bytes of serialize(["s" => "xxx..."]), or the shortest there is.
static int make_session(struct options *o, size_t n)
{
    char *text = malloc(n + 1);
    if (text == NULL)
        return -ENOMEM;
    memset(text, 'x', n);
    struct tggw_pair pair = {"s", text, n};
    while (pair.value_len > 0 && tggw_session_build(&pair, 1, NULL, 0) > n)
        pair.value_len--;
    o->session_len = tggw_session_build(&pair, 1, NULL, 0);
    o->session = malloc(o->session_len);
    if (o->session != NULL)
        tggw_session_build(&pair, 1, o->session, o->session_len);
    free(text);
    return o->session != NULL ? 0 : -ENOMEM;
}

static void usage(FILE *to)
{
    fputs("usage: tgg-echo-worker [--register HOST:PORT]... [--gateway HOST:PORT]... [options]\n"
          "  --register HOST:PORT   a Register (default 127.0.0.1:1236 when no --gateway is given)\n"
          "  --gateway HOST:PORT    a gateway's internal address, connected to directly\n"
          "  --secret KEY           secret key of the cluster\n"
          "  --name NAME, --id N    worker_key is NAME:N (default tgg-echo:0)\n"
          "  --broadcast            each message goes to all clients\n"
          "  --group NAME           clients join the group, each message goes to it\n"
          "  --bind-uid             bind uid \"u<connection_id>\" when a client connects\n"
          "  --join-group[=NAME]    join a group (default \"bench\") when a client connects\n"
          "  --session N            set a session of N bytes when a client connects\n"
          "  --quiet                errors only\n",
          to);
}

static const struct option long_options[] = {
    {"register", required_argument, NULL, 'r'},
    {"gateway", required_argument, NULL, 'g'},
    {"secret", required_argument, NULL, 's'},
    {"name", required_argument, NULL, 'n'},
    {"id", required_argument, NULL, 'i'},
    {"broadcast", no_argument, NULL, 'b'},
    {"group", required_argument, NULL, 'G'},
    {"bind-uid", no_argument, NULL, 'u'},
    {"join-group", optional_argument, NULL, 'j'},
    {"session", required_argument, NULL, 'S'},
    {"quiet", no_argument, NULL, 'q'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static int add(const char **list, size_t *count, const char *address)
{
    if (*count == ADDRESSES_MAX)
        return -E2BIG;
    list[(*count)++] = address;
    return 0;
}

// 0, or -EINVAL for what is no option.
static int take_option(struct options *o, int opt)
{
    switch (opt) {
    case 'r': return add(o->registers, &o->register_count, optarg);
    case 'g': return add(o->gateways, &o->gateway_count, optarg);
    case 's': o->secret = optarg; return 0;
    case 'n': o->name = optarg; return 0;
    case 'i': o->id = (unsigned)strtoul(optarg, NULL, 10); return 0;
    case 'b': o->broadcast = true; return 0;
    case 'G': o->join_group = o->reply_group = optarg; return 0;
    case 'u': o->bind_uid = true; return 0;
    case 'j': o->join_group = optarg != NULL ? optarg : "bench"; return 0;
    case 'S': return make_session(o, strtoul(optarg, NULL, 10));
    case 'q': o->quiet = true; return 0;
    default: return -EINVAL;
    }
}

static int parse(struct options *o, int argc, char **argv)
{
    int opt, r = 0;
    while (r == 0 && (opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (opt == 'h') {
            usage(stdout);
            exit(0);
        }
        r = take_option(o, opt);
    }
    if (r == 0 && optind < argc)
        r = -EINVAL;
    if (o->register_count + o->gateway_count == 0)
        add(o->registers, &o->register_count, "127.0.0.1:1236");
    return r;
}

// SIG_IGN once the worker is about to be freed: a second signal must not find it gone.
static void handle_signals(void (*handler)(int))
{
    struct sigaction act = {.sa_handler = handler};
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
}

static void report(const struct tggw *w)
{
    struct tggw_stats s;
    tggw_get_stats(w, &s);
    fprintf(stderr, "tgg-echo-worker: %llu packets in, %llu out, %llu reads, %llu writes, %llu dropped\n",
            (unsigned long long)s.packets_in, (unsigned long long)s.packets_out, (unsigned long long)s.reads,
            (unsigned long long)s.writes, (unsigned long long)s.no_buffer);
}

int main(int argc, char **argv)
{
    struct options o = {.name = "tgg-echo"};
    if (parse(&o, argc, argv) < 0) {
        usage(stderr);
        return 2;
    }
    struct tggw_config config = {
        .registers = o.registers,
        .register_count = o.register_count,
        .gateways = o.gateways,
        .gateway_count = o.gateway_count,
        .name = o.name,
        .id = o.id,
        .secret_key = o.secret,
        .cb = {.on_connect = on_connect, .on_message = on_message, .on_log = on_log},
        .user = &o,
    };
    int r = tggw_new(&config, &running);
    if (r == 0) {
        handle_signals(on_signal);
        r = tggw_run(running);
        handle_signals(SIG_IGN);
        if (!o.quiet)
            report(running);
        tggw_free(running);
    }
    if (r < 0)
        fprintf(stderr, "tgg-echo-worker: %s\n", strerror(-r));
    free(o.session);
    return r < 0;
}
