// SPDX-License-Identifier: MIT
/* Everything in one command: a parent that starts the parts as children, waits, and ends them all when it is
 * told to or when one of them ends. */
#include "main/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "common/listen_socket.h"
#include "common/node_shm.h"
#include "main/assets.h"
#include "main/web_server.h"
#include "register/register.h"
#include "supervisor/admin_ports.h"

#define WEB_ADDRESS "127.0.0.1"
#define WAIT_MS     50 /* between two looks at the gateway while it starts */

/* Of the built-in configuration. */
#define ADMIN_ADDRESS "127.0.0.1"
#define ADMIN_PORT    "1240"

/* In the order of their start. */
enum part { PART_REGISTER, PART_GATEWAY, PART_DEMO, PART_WEB, PART_N };
static const char *const part_names[PART_N] = {"register", "gateway", "demo worker", "demo page"};

struct run {
    struct config cfg;
    unsigned http_port;
    unsigned websocket_port;
    int register_fd, web_fd;
    char web_dir[PATH_MAX], demo[PATH_MAX];
    pid_t pids[PART_N]; /* 0: not running */
    int status;
    bool announced;
};

/* ---- the configuration */

/* On 127.0.0.1 only: a demo is nobody else's business. */
static const char built_in[] = "[gateway]\n"
                               "lan_ip = 127.0.0.1\n"
                               "start_port = 2900\n"
                               "register_address = 127.0.0.1:1236\n"
                               "drain_timeout = 1\n"
                               "ping_interval = 55\n"
                               "ping_data = {\"type\":\"ping\"}\n"
                               "runtime_dir = %s\n"
                               "[listen websocket]\n"
                               "address = 127.0.0.1\n"
                               "port = 8282\n"
                               "protocol = websocket\n"
                               "[register]\n"
                               "address = 127.0.0.1\n"
                               "port = 1236\n"
                               "[admin]\n"
                               "address = " ADMIN_ADDRESS "\n"
                               "port = " ADMIN_PORT "\n";

static void runtime_dir(char *buf, size_t cap)
{
    const char *own = getenv("XDG_RUNTIME_DIR");
    if (getuid() == 0)
        snprintf(buf, cap, "/run/tgg_gw-demo");
    else if (own != NULL && own[0] == '/')
        snprintf(buf, cap, "%s/tgg_gw-demo", own);
    else
        snprintf(buf, cap, "/tmp/tgg_gw-demo-%u", (unsigned)getuid());
}

static int load_built_in(struct config *ret)
{
    char text[sizeof built_in + PATH_MAX], dir[PATH_MAX];
    struct config_error *err = calloc(1, sizeof *err);

    if (err == NULL)
        return EXIT_RUNTIME;
    runtime_dir(dir, sizeof dir);
    int n = snprintf(text, sizeof text, built_in, dir);
    int r = config_load_text(text, (size_t)n, "built-in", ret, err);
    if (r < 0)
        config_error_print(stderr, err);
    free(err);
    return r < 0 ? EXIT_CONFIG : EXIT_OK;
}

/* Somebody else may have the admin port of the built-in configuration: a demo can do without. */
static void free_admin_port(struct config *cfg)
{
    char why[320];
    uint16_t port = (uint16_t)cfg->admin.port;
    int fd = listen_socket_open(cfg->admin.address, port, 1);
    if (fd >= 0) {
        close(fd);
        return;
    }
    fprintf(stderr, "tgg run: no admin page: %s\n",
            listen_socket_explain(fd, cfg->admin.address, port, why, sizeof why));
    cfg->admin.port = 0;
}

static unsigned find_websocket_port(const struct config *cfg)
{
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        if (cfg->listen[i].protocol == PROTOCOL_WEBSOCKET)
            return (unsigned)cfg->listen[i].port;
    }
    return 0;
}

/* ---- the parts */

static int run_demo(const struct run *run)
{
    char address[96];
    sigset_t none;

    /* Not as an argument, which every user of the machine could read. */
    if (setenv("TGG_SECRET_KEY", config_register_secret(&run->cfg), 1) != 0)
        return EXIT_RUNTIME;
    snprintf(address, sizeof address, "%s:%" PRIu64, run->cfg.reg.address, run->cfg.reg.port);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execl(run->demo, run->demo, "--register", address, (char *)NULL);
    LOG(LOG_ERROR, "demo_not_started", "path=\"%s\" error=\"%s\"", run->demo, strerror(errno));
    return EXIT_RUNTIME;
}

static int run_part(struct run *run, enum part part)
{
    switch (part) {
    case PART_REGISTER: return register_run(&run->cfg, run->register_fd, NULL);
    case PART_GATEWAY: return gateway_run(&run->cfg);
    case PART_DEMO: return run_demo(run);
    case PART_WEB: return web_server_run(run->web_dir, run->web_fd, run->websocket_port);
    case PART_N: break;
    }
    return EXIT_RUNTIME;
}

static void start_part(struct run *run, enum part part)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent)
            exit(EXIT_RUNTIME);
        if (part != PART_REGISTER)
            close(run->register_fd);
        if (part != PART_WEB)
            close(run->web_fd);
        exit(run_part(run, part));
    }
    if (pid < 0) {
        fprintf(stderr, "tgg run: the %s could not be started: %s\n", part_names[part], strerror(errno));
        run->status = EXIT_RUNTIME;
        return;
    }
    run->pids[part] = pid;
}

/* Returns whether a part ended that should not have. */
static bool reap(struct run *run, bool ending)
{
    int wstatus;
    bool lost = false;

    for (pid_t pid; (pid = waitpid(-1, &wstatus, WNOHANG)) > 0;) {
        for (unsigned i = 0; i < PART_N; i++) {
            if (run->pids[i] != pid)
                continue;
            run->pids[i] = 0;
            if (ending)
                continue;
            fprintf(stderr, "tgg run: the %s ended (%s %d), so all end\n", part_names[i],
                    WIFSIGNALED(wstatus) ? "signal" : "status",
                    WIFSIGNALED(wstatus) ? WTERMSIG(wstatus) : WEXITSTATUS(wstatus));
            run->status = EXIT_RUNTIME;
            lost = true;
        }
    }
    return lost;
}

/* ---- waiting */

static void signal_set(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGCHLD);
}

/* The next signal, 0 when wait_ms passed. */
static int next_signal(unsigned wait_ms)
{
    sigset_t set;
    struct timespec ts = {.tv_sec = wait_ms / 1000, .tv_nsec = (long)(wait_ms % 1000) * 1000000};
    signal_set(&set);
    int sig = sigtimedwait(&set, NULL, &ts);
    return sig > 0 ? sig : 0;
}

static bool shards_run(const struct node_shm *shm)
{
    for (unsigned i = 0; i < shm->n_shards; i++) {
        if (shard_shm_state(&shm->blocks[i].shm) != SHARD_STATE_RUNNING)
            return false;
    }
    return true;
}

/* With the token where a browser does not send it on, but for one that the operator has chosen. */
static void announce_admin(const struct run *run)
{
    const struct config_admin *a = &run->cfg.admin;
    char path[PATH_MAX], token[ADMIN_TOKEN_MAX + 1];
    bool v6 = strchr(a->address, ':') != NULL;

    if (!a->enabled || a->port == 0)
        return;
    printf("  admin page        http://%s%s%s:%" PRIu64 "/", v6 ? "[" : "", a->address, v6 ? "]" : "",
           a->port);
    if (a->token[0] == '\0' && admin_token_path(&run->cfg, path, sizeof path) == 0 &&
        admin_token_get(path, token) == 0)
        printf("#token=%s", token);
    explicit_bzero(token, sizeof token);
    printf("\n");
}

static void announce(struct run *run)
{
    const struct node_shm *shm;
    bool running;

    if (node_shm_map(run->cfg.gateway.runtime_dir, &shm, &running) < 0)
        return;
    run->announced = running && shards_run(shm);
    node_shm_unmap(shm);
    if (!run->announced)
        return;
    printf("tgg run: open http://%s:%u/ in two browser tabs; Ctrl-C ends it\n", WEB_ADDRESS, run->http_port);
    printf("  clients           ws://127.0.0.1:%u/\n", run->websocket_port);
    printf("  business workers  register %s:%" PRIu64 "\n", run->cfg.reg.address, run->cfg.reg.port);
    announce_admin(run);
    fflush(stdout);
}

static void wait_until_told(struct run *run)
{
    while (run->status == EXIT_OK) {
        int sig = next_signal(run->announced ? 60000 : WAIT_MS);
        if (sig == SIGTERM || sig == SIGINT)
            return;
        if (reap(run, false))
            return;
        if (!run->announced)
            announce(run);
    }
}

static void end_part(struct run *run, enum part part)
{
    unsigned waited_ms = 0;
    unsigned wait_ms_max = (unsigned)run->cfg.gateway.drain_timeout * 1000 + 8000;

    /* The gateway lets its clients go in order; the others have nothing to drain. */
    if (run->pids[part] != 0)
        kill(run->pids[part], SIGTERM);
    for (; run->pids[part] != 0; waited_ms += WAIT_MS) {
        int sig = next_signal(WAIT_MS);
        reap(run, true);
        if (run->pids[part] != 0 && (sig == SIGTERM || sig == SIGINT))
            kill(run->pids[part], SIGINT);
        if (run->pids[part] != 0 && waited_ms > wait_ms_max) {
            fprintf(stderr, "tgg run: the %s did not end and was killed\n", part_names[part]);
            kill(run->pids[part], SIGKILL);
            run->status = EXIT_RUNTIME;
        }
    }
}

/* ---- the command */

static int open_ports(struct run *run)
{
    char why[320];
    struct config_error *err = calloc(1, sizeof *err);
    if (err == NULL)
        return EXIT_RUNTIME;
    run->register_fd = register_listen(&run->cfg, err);
    if (run->register_fd < 0)
        config_error_print(stderr, err);
    free(err);
    run->web_fd = listen_socket_open(WEB_ADDRESS, (uint16_t)run->http_port, 64);
    if (run->web_fd < 0)
        fprintf(stderr, "tgg run: --http: %s\n",
                listen_socket_explain(run->web_fd, WEB_ADDRESS, (uint16_t)run->http_port, why, sizeof why));
    return run->register_fd >= 0 && run->web_fd >= 0 ? EXIT_OK : EXIT_RUNTIME;
}

static int find_assets(struct run *run)
{
    if (!assets_web_dir(run->web_dir, sizeof run->web_dir)) {
        fprintf(stderr, "tgg run: the demo page is not there, expected at %s\n", run->web_dir);
        return EXIT_RUNTIME;
    }
    if (!assets_demo_program(run->demo, sizeof run->demo)) {
        fprintf(stderr, "tgg run: the demo worker is not there, expected beside tgg or at %s\n", run->demo);
        return EXIT_RUNTIME;
    }
    run->websocket_port = find_websocket_port(&run->cfg);
    if (run->websocket_port == 0) {
        fprintf(stderr, "%s: no listener with protocol websocket, which the demo page needs\n",
                run->cfg.source_path);
        return EXIT_CONFIG;
    }
    return EXIT_OK;
}

static void start_and_wait(struct run *run)
{
    sigset_t set;
    signal_set(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (unsigned i = 0; i < PART_N && run->status == EXIT_OK; i++)
        start_part(run, (enum part)i);
    wait_until_told(run);
    /* The gateway before the demo worker, which hears of each client that leaves. */
    end_part(run, PART_WEB);
    end_part(run, PART_GATEWAY);
    end_part(run, PART_DEMO);
    end_part(run, PART_REGISTER);
}

int cmd_run(int argc, char **argv)
{
    static struct run run = {.register_fd = -1, .web_fd = -1};
    struct options opt;

    int status = options_parse(argc, argv, "cp", &opt);
    if (status >= 0)
        return status;
    status = opt.config_given ? options_load(&opt, &run.cfg) : load_built_in(&run.cfg);
    if (status != EXIT_OK)
        return status;
    if (!opt.config_given)
        free_admin_port(&run.cfg);
    run.http_port = opt.http_port;
    run.status = find_assets(&run);
    if (run.status == EXIT_OK)
        run.status = open_ports(&run);
    if (run.status == EXIT_OK)
        start_and_wait(&run);
    if (run.register_fd >= 0)
        close(run.register_fd);
    if (run.web_fd >= 0)
        close(run.web_fd);
    config_fini(&run.cfg);
    return run.status;
}
