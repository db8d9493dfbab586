// SPDX-License-Identifier: MIT
/* Asks a running gateway or register to hand over to a new process, and shows how it goes
 * (common/upgrade_socket.h). What can be found wrong before is: nothing begins with a binary that does not
 * run or does not take the configuration. */
#include "main/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "common/node_shm.h"
#include "common/upgrade_socket.h"

#define EXIT_BUSY    75    /* EX_TEMPFAIL of sysexits.h */
#define TRY_MS       30000 /* for what the new binary is asked before */
#define PATIENCE_MS  30000 /* beyond what an upgrade may take by the configuration */
#define REGISTER_MS  20000 /* what one of the register takes at most, and some more */
#define OUTPUT_MAX   65536
#define STATUS_LOST  256 /* of a program that did not end in time */
#define STATUS_FIRST 257 /* of a program that was ended by a signal: and its number */

struct upgrade_options {
    const char *config_path, *binary;
    bool check, quiet, is_register;
};

struct upgrade {
    struct upgrade_options opt;
    struct config cfg;
    char binary[PATH_MAX];
    const char *what; /* "gateway", "register" */
    uint64_t begun_ms;
};

static uint64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* ---- options */

static void print_usage(FILE *out)
{
    fprintf(out,
            "usage: tgg upgrade [options] [BINARY]\n"
            "  BINARY             the program that takes over; default: this one\n"
            "  -c, --config FILE  the configuration of what runs; default " CONFIG_PATH_DEFAULT "\n"
            "  --register         the register, not the gateway\n"
            "  --check            only whether BINARY runs and takes the configuration\n"
            "  -q, --quiet        nothing but errors\n"
            "  -h, --help         this text\n"
            "exit status: 0 done; 1 failed, nothing has changed; 75 another upgrade is under way; 78 the\n"
            "configuration is not good\n");
}

static int parse(int argc, char **argv, struct upgrade_options *ret)
{
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'}, {"register", no_argument, NULL, 'r'},
        {"check", no_argument, NULL, 'k'},        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},         {0},
    };

    *ret = (struct upgrade_options){.config_path = CONFIG_PATH_DEFAULT};
    for (int c; (c = getopt_long(argc, argv, "c:qh", longs, NULL)) != -1;) {
        switch (c) {
        case 'c': ret->config_path = optarg; break;
        case 'r': ret->is_register = true; break;
        case 'k': ret->check = true; break;
        case 'q': ret->quiet = true; break;
        case 'h': print_usage(stdout); return EXIT_OK;
        default: print_usage(stderr); return EXIT_USAGE;
        }
    }
    if (optind < argc)
        ret->binary = argv[optind++];
    if (optind == argc)
        return -1;
    fprintf(stderr, "tgg upgrade: %s was not expected\n", argv[optind]);
    print_usage(stderr);
    return EXIT_USAGE;
}

/* ---- the new binary */

static int find_binary(struct upgrade *u)
{
    const char *given = u->opt.binary != NULL ? u->opt.binary : "/proc/self/exe";
    struct stat st;

    if (realpath(given, u->binary) == NULL || stat(u->binary, &st) < 0) {
        fprintf(stderr, "tgg upgrade: %s: %s\n", given, strerror(errno));
        return EXIT_RUNTIME;
    }
    if (!S_ISREG(st.st_mode) || access(u->binary, X_OK) < 0) {
        fprintf(stderr, "tgg upgrade: %s: not a program that can be started\n", u->binary);
        return EXIT_RUNTIME;
    }
    return EXIT_OK;
}

static _Noreturn void become(char *const *argv, int out, bool with_stdout)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(with_stdout ? out : null, STDOUT_FILENO) < 0 ||
        dup2(out, STDERR_FILENO) < 0)
        _exit(127);
    execv(argv[0], argv);
    dprintf(STDERR_FILENO, "%s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

/* What it says; false: it has not come to its end in time. */
static bool read_output(int fd, char *buf, size_t cap)
{
    uint64_t until_ms = now_ms() + TRY_MS;
    size_t len = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        char rest[4096];
        uint64_t at_ms = now_ms();
        if (at_ms >= until_ms || poll(&p, 1, (int)(until_ms - at_ms)) == 0)
            return false;
        bool room = len < cap - 1;
        ssize_t n = room ? read(fd, buf + len, cap - 1 - len) : read(fd, rest, sizeof rest);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += room ? (size_t)n : 0;
        buf[len] = '\0';
    }
    return true;
}

/* Exit status, or one of those above; buf has what it said on stderr, and on stdout if asked for. -errno: it
 * was not started. */
static int try_binary(char *const *argv, bool with_stdout, char *buf, size_t cap)
{
    int ends[2], status = 0;

    buf[0] = '\0';
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0)
        become(argv, ends[1], with_stdout);
    int err = errno;
    close(ends[1]);
    bool ended = pid > 0 && read_output(ends[0], buf, cap);
    close(ends[0]);
    if (pid < 0)
        return -err;
    if (!ended)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!ended)
        return STATUS_LOST;
    return WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_FIRST + WTERMSIG(status);
}

static const char *ended_how(int status, char *buf, size_t cap)
{
    if (status < 0)
        snprintf(buf, cap, "could not be started: %s", strerror(-status));
    else if (status == STATUS_LOST)
        snprintf(buf, cap, "did not end within %d s", TRY_MS / 1000);
    else if (status >= STATUS_FIRST)
        snprintf(buf, cap, "was ended by signal %d", status - STATUS_FIRST);
    else
        snprintf(buf, cap, "ended with status %d", status);
    return buf;
}

static int check_version(const struct upgrade *u, char *buf, size_t cap)
{
    char *const argv[] = {(char *)(uintptr_t)u->binary, (char *)(uintptr_t) "--version", NULL};
    char how[96];

    int status = try_binary(argv, true, buf, cap);
    if (status == 0 && strncmp(buf, "tgg ", 4) == 0) {
        buf[strcspn(buf, "\n")] = '\0';
        if (!u->opt.quiet)
            printf("%s: %s\n", u->binary, buf);
        return EXIT_OK;
    }
    if (status == 0)
        fprintf(stderr, "tgg upgrade: %s is not tgg: asked for its version, it says something else\n",
                u->binary);
    else
        fprintf(stderr, "%stgg upgrade: %s --version %s\n", buf, u->binary,
                ended_how(status, how, sizeof how));
    return EXIT_RUNTIME;
}

static int check_config(const struct upgrade *u, char *buf, size_t cap)
{
    char *const argv[] = {(char *)(uintptr_t)u->binary,
                          (char *)(uintptr_t)u->what,
                          (char *)(uintptr_t) "-t",
                          (char *)(uintptr_t) "-c",
                          (char *)(uintptr_t)u->opt.config_path,
                          NULL};
    char how[96];

    int status = try_binary(argv, false, buf, cap);
    if (status == 0) {
        if (!u->opt.quiet)
            printf("%s: good\n", u->opt.config_path);
        return EXIT_OK;
    }
    fprintf(stderr, "%stgg upgrade: %s %s -t -c %s %s; nothing has been asked for\n", buf, u->binary, u->what,
            u->opt.config_path, ended_how(status, how, sizeof how));
    return status == EXIT_CONFIG ? EXIT_CONFIG : EXIT_RUNTIME;
}

static int check(struct upgrade *u)
{
    char *buf = malloc(OUTPUT_MAX);
    if (buf == NULL)
        return EXIT_RUNTIME;
    int status = find_binary(u);
    if (status == EXIT_OK)
        status = check_version(u, buf, OUTPUT_MAX);
    if (status == EXIT_OK)
        status = check_config(u, buf, OUTPUT_MAX);
    free(buf);
    return status;
}

/* ---- the running one */

/* The pid of the gateway with this runtime_dir, 0: none. */
static int running_pid(const struct config *cfg)
{
    const struct node_shm *shm;
    bool running = false;

    if (node_shm_map(cfg->gateway.runtime_dir, &shm, &running) < 0)
        return 0;
    int pid = running ? shm->supervisor_pid : 0;
    node_shm_unmap(shm);
    return pid > 0 && kill(pid, 0) < 0 && errno == ESRCH ? 0 : pid;
}

static void explain(const struct upgrade *u, const char *path, int err)
{
    bool nobody = err == -ENOENT || err == -ECONNREFUSED;
    int pid = nobody && !u->opt.is_register ? running_pid(&u->cfg) : 0;

    if (pid > 0)
        fprintf(
            stderr,
            "tgg upgrade: the gateway that runs (process %d) does not listen at %s: it is of a version that "
            "cannot hand over, or begins or ends just now. Restart it once\n",
            pid, path);
    else if (nobody && u->opt.is_register)
        fprintf(stderr,
                "tgg upgrade: no register with port %" PRIu64
                " listens at %s: none runs, or one that could not make this "
                "file (its log says so; signal USR2 to it does the same)\n",
                u->cfg.reg.port, path);
    else if (nobody)
        fprintf(stderr, "tgg upgrade: %s: no gateway runs with this runtime_dir\n",
                u->cfg.gateway.runtime_dir);
    else if (err == -EACCES || err == -EPERM)
        fprintf(stderr, "tgg upgrade: %s: only root and the user that it runs as may ask for that\n", path);
    else
        fprintf(stderr, "tgg upgrade: %s: %s\n", path, strerror(-err));
}

/* Connected; -1: said why not. */
static int connect_to(const struct upgrade *u)
{
    char path[PATH_MAX + 32];
    const char *dir = u->cfg.gateway.runtime_dir;

    bool fits = u->opt.is_register
                    ? upgrade_socket_register_path(dir, (unsigned)u->cfg.reg.port, path, sizeof path)
                    : upgrade_socket_path(dir, UPGRADE_SOCKET_NAME, path, sizeof path);
    int fd = fits ? upgrade_socket_connect(path) : -ENAMETOOLONG;
    if (fd < 0)
        explain(u, path, fd);
    return fd < 0 ? -1 : fd;
}

/* ---- how it goes */

/* -1: it goes on; else the exit status. */
static int take_line(const struct upgrade *u, const char *line)
{
    const char *text = strchr(line, ' ');
    size_t word_len = text != NULL ? (size_t)(text - line) : strlen(line);
    struct slice word = {(const uint8_t *)line, word_len};

    text = text != NULL ? text + 1 : "";
    if (slice_eq_str(word, "failed")) {
        fprintf(stderr, "tgg upgrade: %s\n", text);
        return EXIT_RUNTIME;
    }
    if (slice_eq_str(word, "busy")) {
        fprintf(stderr, "tgg upgrade: %s\n", text);
        return EXIT_BUSY;
    }
    bool done = slice_eq_str(word, "done");
    if (!u->opt.quiet) {
        printf("%8" PRIu64 " ms  %s%s\n", now_ms() - u->begun_ms, done ? "done: " : "", text);
        fflush(stdout);
    }
    return done ? EXIT_OK : -1;
}

/* Whole lines of the first *len bytes of buf, which are gone then. */
static int take_lines(const struct upgrade *u, char *buf, size_t *len)
{
    char *line = buf, *end;
    int status = -1;

    while (status < 0 && (end = memchr(line, '\n', *len - (size_t)(line - buf))) != NULL) {
        *end = '\0';
        status = take_line(u, line);
        line = end + 1;
    }
    *len -= (size_t)(line - buf);
    memmove(buf, line, *len);
    return status;
}

static int follow(const struct upgrade *u, int fd)
{
    char buf[UPGRADE_LINE_MAX];
    size_t len = 0;
    uint64_t all_ms = u->opt.is_register
                          ? REGISTER_MS
                          : u->cfg.gateway.upgrade_timeout * 1000 + u->cfg.gateway.upgrade_pause_max;
    const char *why = "it ended without saying how it went";

    for (int status; len < sizeof buf;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, (int)(all_ms + PATIENCE_MS)) == 0) {
            why = "it says nothing more";
            break;
        }
        ssize_t n = read(fd, buf + len, sizeof buf - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
        if ((status = take_lines(u, buf, &len)) >= 0)
            return status;
    }
    fprintf(stderr, "tgg upgrade: %s; its log has more (tgg status says what runs)\n", why);
    return EXIT_RUNTIME;
}

static int ask(struct upgrade *u)
{
    char line[sizeof "upgrade \n" + PATH_MAX];
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    int status = EXIT_RUNTIME;

    sigaction(SIGPIPE, &ignore, NULL);
    int fd = connect_to(u);
    if (fd < 0)
        return status;
    u->begun_ms = now_ms();
    int len = snprintf(line, sizeof line, "upgrade %s\n", u->binary);
    /* One that answers at once ("busy") and has closed its end: its answer is there to be read. */
    if (write(fd, line, (size_t)len) != len && errno != EPIPE)
        fprintf(stderr, "tgg upgrade: %s\n", strerror(errno));
    else
        status = follow(u, fd);
    close(fd);
    return status;
}

/* ---- the command */

static int run(struct upgrade *u)
{
    int status = check(u);
    if (status != EXIT_OK || u->opt.check)
        return status;
    struct options load = {.config_path = u->opt.config_path};
    status = options_load(&load, &u->cfg);
    if (status != EXIT_OK)
        return status;
    status = ask(u);
    config_fini(&u->cfg);
    return status;
}

int cmd_upgrade(int argc, char **argv)
{
    struct upgrade *u = calloc(1, sizeof *u);
    if (u == NULL)
        return EXIT_RUNTIME;
    int status = parse(argc, argv, &u->opt);
    if (status < 0) {
        u->what = u->opt.is_register ? "register" : "gateway";
        status = run(u);
    }
    free(u);
    return status;
}
