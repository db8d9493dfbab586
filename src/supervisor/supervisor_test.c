// SPDX-License-Identifier: MIT
/* The supervisor in a process of its own, over shards that do nothing but what a test tells them to. */
#include "supervisor/supervisor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/hash.h"
#include "common/control.h"
#include "common/node_shm.h"
#include "common/settings.h"
#include "supervisor/supervisor_util_test.h"

#define SHARDS 3
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* core files of terabytes, and handlers of their own */
#else
#define SANITIZED 0
#endif
#define PATIENCE_MS 15000

/* What a shard is told and what it tells. */
struct played {
    int pid;
    unsigned starts;
    bool is_edge, is_link, own_estate_only, late; /* late: does not say that it runs */
    bool end_well, ignore_stop, stand_still, deaf;
    unsigned quits, terms;
    int cpu; /* -1: may run on several */
    uint64_t wakes, hash;
    uint64_t generation, retry_after; /* of the last settings that came; as it was started with */
    bool has_files;
    unsigned asked; /* by the admin process */
    bool crash;     /* to run into */
    bool has_notify_socket;
};

/* What the admin process is told to ask for, and the answer. */
struct asked {
    unsigned ask, answered; /* running */
    bool nonsense;
    struct control_head head;
    char name[16];
    int status;
    char json[1024];
};

static struct {
    struct played shards[SHARDS];
    int announcer_pid;
    unsigned announcer_starts, shards_at_announcer_end;
    struct played admin;
    struct asked asked;
    unsigned admin_answers_of_shards, others_at_admin_end;
    bool admin_has_socket, admin_has_port;
    char admin_token[80];
} * play; /* shared with all processes */

static char dir[64];
static bool with_cores;
static char log_dir[96];
static struct config cfg;
static pid_t supervisor;

/* ---- in the children */

static int only_cpu(void)
{
    cpu_set_t set;
    sched_getaffinity(0, sizeof set, &set);
    for (int i = 0; CPU_COUNT(&set) == 1 && i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &set))
            return i;
    return -1;
}

static void note_start(struct played *p, const struct shard_start *s)
{
    const struct node *n = s->node;
    p->is_edge = s->listeners != NULL && fcntl(s->listeners[0].fd, F_GETFD) >= 0;
    p->has_notify_socket = getenv("NOTIFY_SOCKET") != NULL;
    p->is_link = s->internal_fd >= 0;
    p->cpu = only_cpu();
    p->hash = hash_bytes("name", 4);
    p->own_estate_only = true;
    for (unsigned i = 0; i < n->n_shards; i++)
        p->own_estate_only &= (n->estates[i] != NULL) == (i == s->shard);
    p->quits = p->terms = 0;
    p->generation = 0;
    p->retry_after = s->cfg->gateway.retry_after;
    p->starts++;
    p->pid = getpid();
}

static void play_settings(struct played *p, int fd)
{
    struct files *files;
    struct settings settings;
    if (settings_receive(fd, &settings) < 0)
        return;
    p->generation = settings.generation;
    p->has_files = files_open(settings.files_fd, &files) == 0;
    if (p->has_files)
        files_free(files);
    settings_close(&settings);
}

static void play_control(struct played *p, const struct shard_start *s)
{
    static uint8_t buf[CONTROL_MESSAGE_MAX];
    struct control_request req;
    if (s->control_fd < 0 || control_receive(s->control_fd, buf, &req) < 0)
        return;
    p->asked++;
    struct control_reply reply = {.id = req.head.id};
    control_reply(s->control_fd, &reply, "{}", 2);
}

static void note_command(const struct shard_start *s)
{
    struct crash_command c = {.loop_ns = 1000000, .link = 7, .connection_id = 4711, .len = 28, .cmd = 5};
    shard_crash_command(s->crash, &c);
}

/* Returns whether it ends. */
static bool play_signal(struct played *p, int sig)
{
    if (sig == SIGTERM)
        p->terms++;
    return (sig == SIGTERM || sig == SIGINT) && !p->ignore_stop;
}

static int play_shard(const struct shard_start *s)
{
    struct played *p = &play->shards[s->shard];
    struct timespec tick = {.tv_nsec = 5000000};
    uint64_t wakes;
    sigset_t set;

    note_start(p, s);
    s->shm->next_seq++;
    sigprocmask(SIG_SETMASK, NULL, &set);
    for (;;) {
        if (!p->late)
            shard_shm_set_state(s->shm, SHARD_STATE_RUNNING);
        if (!p->stand_still)
            s->shm->turns++;
        if (read(s->node->wake_fds[s->shard], &wakes, sizeof wakes) > 0)
            p->wakes += wakes;
        p->quits = s->shm->stacks;
        if (!p->deaf)
            play_settings(p, s->settings_fd);
        play_control(p, s);
        if (p->crash) {
            p->crash = false;
            note_command(s);
            raise(SIGSEGV);
        }
        if (p->end_well)
            return p->end_well = false;
        if (play_signal(p, sigtimedwait(&set, NULL, &tick)))
            return 0;
    }
}

static int play_announcer(const struct announce_start *s)
{
    sigset_t set;
    int sig;

    counter_add(s->counters, COUNTER_register_connected, 1);
    play->announcer_starts++;
    play->announcer_pid = getpid();
    sigprocmask(SIG_SETMASK, NULL, &set);
    sigwait(&set, &sig);
    play->shards_at_announcer_end = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        play->shards_at_announcer_end += kill(play->shards[i].pid, 0) == 0;
    return 0;
}

static void ask_shards(const struct node *n)
{
    struct control_request req = {.head.op = CONTROL_HELLO};
    for (unsigned i = 0; i < n->n_shards; i++)
        control_send(n->control_fds[i][1], &req);
}

static void hear_shards(const struct node *n, uint8_t *buf)
{
    struct control_reply reply;
    struct slice json;
    for (unsigned i = 0; i < n->n_shards; i++)
        while (control_receive_reply(n->control_fds[i][1], buf, &reply, &json) == 0)
            play->admin_answers_of_shards++;
}

static void ask(const struct admin_start *s, struct asked *a)
{
    struct control_request req = {.head = a->head};
    if (a->nonsense)
        assert_int_equal(send(s->control_fd, "nonsense", 8, 0), 8);
    if (a->name[0] != '\0')
        req.text[CONTROL_TEXT_NAME] = (struct slice){(const uint8_t *)a->name, strlen(a->name)};
    if (!a->nonsense)
        control_send(s->control_fd, &req);
}

static void hear(const struct admin_start *s, struct asked *a, uint8_t *buf)
{
    struct control_reply reply;
    struct slice json;
    if (control_receive_reply(s->control_fd, buf, &reply, &json) < 0)
        return;
    a->status = reply.status;
    snprintf(a->json, sizeof a->json, "%.*s", (int)json.len, (const char *)json.data);
    a->answered++;
}

static int play_admin(const struct admin_start *s)
{
    static uint8_t buf[CONTROL_MESSAGE_MAX];
    struct played *p = &play->admin;
    struct timespec tick = {.tv_nsec = 5000000};
    unsigned asked = play->asked.ask;
    sigset_t set;

    ask_shards(s->node);
    play->admin_has_socket = s->socket_fd >= 0 && fcntl(s->socket_fd, F_GETFD) >= 0;
    play->admin_has_port = s->http_fd >= 0 && fcntl(s->http_fd, F_GETFD) >= 0;
    snprintf(play->admin_token, sizeof play->admin_token, "%s", s->token);
    p->retry_after = s->cfg->gateway.retry_after;
    p->terms = 0;
    p->starts++;
    p->pid = getpid();
    sigprocmask(SIG_SETMASK, NULL, &set);
    do {
        hear_shards(s->node, buf);
        play_settings(p, s->settings_fd);
        if (asked != play->asked.ask) {
            asked++;
            ask(s, &play->asked);
        }
        hear(s, &play->asked, buf);
    } while (!play_signal(p, sigtimedwait(&set, NULL, &tick)));
    play->others_at_admin_end = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        play->others_at_admin_end += kill(play->shards[i].pid, 0) == 0;
    play->others_at_admin_end += play->announcer_pid != 0 && kill(play->announcer_pid, 0) == 0;
    return 0;
}

/* ---- around it */

#define set(section, key, ...) set_in(&cfg, section, key, __VA_ARGS__)

static int set_up(void **state)
{
    snprintf(dir, sizeof dir, "/tmp/tgg-supervisor-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    play = mmap(NULL, sizeof *play, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(play, MAP_FAILED);
    with_cores = false;
    log_dir[0] = '\0';
    config_defaults(&cfg);
    set("gateway", "runtime_dir", "%s", dir);
    set("gateway", "start_port", "%u", free_port());
    set("gateway", "shards", "%d", SHARDS);
    set("gateway", "drain_timeout", "1");
    set("gateway", "max_connections", "1000");
    set("listen a", "address", "127.0.0.1");
    set("listen a", "port", "%u", free_port());
    set("listen a", "protocol", "text");
    return 0;
}

static void remove_folder(const char *path)
{
    char file[512];
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        unlink(file);
    }
    closedir(d);
    assert_int_equal(rmdir(path), 0);
}

static int tear_down(void **state)
{
    char path[96];
    if (supervisor != 0) {
        kill(supervisor, SIGKILL);
        waitpid(supervisor, NULL, 0);
        supervisor = 0;
    }
    static const char *const names[] = {"conf", "admin.sock", "admin.token", "bans", "node.shm"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    if (log_dir[0] != '\0')
        remove_folder(log_dir);
    unsetenv("NOTIFY_SOCKET");
    rmdir(dir);
    munmap(play, sizeof *play);
    config_fini(&cfg);
    return 0;
}

static bool all_run(void)
{
    for (unsigned i = 0; i < SHARDS; i++)
        if (__atomic_load_n(&play->shards[i].pid, __ATOMIC_RELAXED) == 0)
            return false;
    return true;
}

static void run(void)
{
    supervisor = fork();
    assert_true(supervisor >= 0);
    if (supervisor == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDERR_FILENO);
        if (!with_cores)
            setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        if (chdir(dir) < 0) /* where a core file goes */
            _exit(99);
        _exit(supervisor_run(&cfg, -1, play_shard, play_announcer, play_admin));
    }
    WAIT_FOR(all_run());
}

static int wait_status(void)
{
    int wstatus;
    assert_int_equal(waitpid(supervisor, &wstatus, 0), supervisor);
    supervisor = 0;
    assert_true(WIFEXITED(wstatus));
    return WEXITSTATUS(wstatus);
}

static int end(int sig)
{
    kill(supervisor, sig);
    return wait_status();
}

static const struct node_shm *view(void)
{
    const struct node_shm *shm;
    bool running;
    assert_int_equal(node_shm_map(dir, &shm, &running), 0);
    return shm;
}

/* ---- tests */

static void each_shard_gets_what_its_roles_need(void **state)
{
    char cpu[16];
    set("gateway", "edge_shards", "0,2");
    set("gateway", "link_shards", "1,2");
    cpu_set_t allowed;
    sched_getaffinity(0, sizeof allowed, &allowed);
    int first = 0;
    while (!CPU_ISSET(first, &allowed))
        first++;
    snprintf(cpu, sizeof cpu, "%d", first);
    set("gateway", "cpus", "%s", cpu);
    run();
    const struct played *p = play->shards;
    assert_true(p[0].is_edge && !p[0].is_link);
    assert_true(!p[1].is_edge && p[1].is_link);
    assert_true(p[2].is_edge && p[2].is_link);
    for (unsigned i = 0; i < SHARDS; i++) {
        assert_true(p[i].own_estate_only);
        assert_int_equal(p[i].cpu, first);
        assert_int_equal(p[i].hash, p[0].hash);
    }
    const struct node_shm *shm = view();
    assert_int_equal(shm->n_shards, SHARDS);
    assert_int_equal(shm->max_clients, 1000);
    assert_int_equal(shm->supervisor_pid, supervisor);
    for (unsigned i = 0; i < SHARDS; i++) {
        assert_int_equal(shm->processes[NODE_PROCESS_SHARDS + i].pid, p[i].pid);
        assert_int_equal(shm->processes[NODE_PROCESS_SHARDS + i].state, PROCESS_ALIVE);
    }
    assert_int_equal(end(SIGTERM), 0);
    assert_int_equal(shm->processes[NODE_PROCESS_SHARDS].state, PROCESS_ENDED);
    assert_int_equal(shard_shm_state(&shm->blocks[2].shm), SHARD_STATE_STOPPED);
    node_shm_unmap(shm);
}

static void a_dead_shard_is_replaced_and_the_others_are_told(void **state)
{
    run();
    int old = play->shards[1].pid;
    const struct node_shm *shm = view();
    uint32_t seq = shm->blocks[1].shm.next_seq;
    assert_int_equal(play->shards[0].wakes, 0);
    kill(old, SIGKILL);
    WAIT_FOR(play->shards[1].starts == 2);
    WAIT_FOR(play->shards[0].wakes == 1 && play->shards[2].wakes == 1);
    assert_int_not_equal(play->shards[1].pid, old);
    assert_int_equal(play->shards[0].starts, 1);
    assert_int_equal(shm->processes[NODE_PROCESS_SHARDS + 1].restarts, 1);
    assert_int_equal(shm->processes[NODE_PROCESS_SHARDS].restarts, 0);
    WAIT_FOR(shm->blocks[1].shm.next_seq == seq + 1); /* goes on */
    node_shm_unmap(shm);
    assert_int_equal(end(SIGTERM), 0);
}

static void a_shard_that_ends_untold_is_replaced(void **state)
{
    run();
    play->shards[2].end_well = true;
    WAIT_FOR(play->shards[2].starts == 2);
    assert_int_equal(end(SIGTERM), 0);
}

static void the_announcer_comes_when_all_links_are_served(void **state)
{
    set("gateway", "link_shards", "0,1");
    play->shards[1].late = play->shards[2].late = true; /* 2 has no links: nobody waits for it */
    run();
    pause_ms(100);
    assert_int_equal(play->announcer_starts, 0);
    play->shards[1].late = false;
    WAIT_FOR(play->announcer_pid != 0);
    int old = play->announcer_pid;
    kill(old, SIGKILL);
    WAIT_FOR(play->announcer_starts == 2);
    const struct node_shm *shm = view();
    struct counters sum;
    WAIT_FOR(play->announcer_pid != old);
    node_shm_sum(shm, &sum);
    assert_int_equal(counter_get(&sum, COUNTER_register_connected), 2);
    assert_int_equal(shm->processes[NODE_PROCESS_ANNOUNCER].restarts, 1);
    node_shm_unmap(shm);
    assert_int_equal(end(SIGTERM), 0);
    assert_int_equal(play->shards_at_announcer_end, 0); /* it left the registers after they had drained */
}

static void a_stuck_shard_is_asked_then_killed(void **state)
{
    set("gateway", "stuck_timeout", "1");
    run();
    struct played *p = &play->shards[0];
    int old = p->pid;
    p->ignore_stop = true;
    p->stand_still = true;
    const struct node_shm *shm = view();
    WAIT_FOR(p->quits == 1 && p->terms == 1); /* asked for its stack, and to end */
    assert_int_equal(shm->processes[NODE_PROCESS_SHARDS].state, PROCESS_STUCK);
    assert_int_equal(p->pid, old);
    p->stand_still = false;
    WAIT_FOR(shm->processes[NODE_PROCESS_SHARDS].state == PROCESS_ALIVE); /* it came back */
    assert_int_equal(p->starts, 1);
    p->stand_still = true;
    WAIT_FOR(shm->processes[NODE_PROCESS_SHARDS].restarts == 1);
    p->ignore_stop = p->stand_still = false;
    WAIT_FOR(p->starts == 2);
    int wstatus = shm->processes[NODE_PROCESS_SHARDS].last_wait_status;
    assert_true(WIFSIGNALED(wstatus) && !WCOREDUMP(wstatus));
    assert_int_equal(WTERMSIG(wstatus), SIGKILL);
    assert_int_equal(play->shards[1].starts, 1);
    node_shm_unmap(shm);
    assert_int_equal(end(SIGTERM), 0);
}

/* Where core files are allowed, and go to the folder of the process. */
static void a_stuck_shard_leaves_a_core_file(void **state)
{
    struct rlimit limit;
    char pattern[64] = "", path[128];
    FILE *f = fopen("/proc/sys/kernel/core_pattern", "re");

    assert_non_null(f);
    assert_non_null(fgets(pattern, sizeof pattern, f));
    fclose(f);
    getrlimit(RLIMIT_CORE, &limit);
    if (SANITIZED || strcmp(pattern, "core\n") != 0 || limit.rlim_max == 0) {
        print_message("no core files in the working folder here: not looked at\n");
        return;
    }
    with_cores = true;
    set("gateway", "stuck_timeout", "1");
    run();
    struct played *p = &play->shards[0];
    p->ignore_stop = p->stand_still = true;
    const struct node_shm *shm = view();
    WAIT_FOR(shm->processes[NODE_PROCESS_SHARDS].restarts == 1);
    p->ignore_stop = p->stand_still = false;
    int wstatus = shm->processes[NODE_PROCESS_SHARDS].last_wait_status;
    assert_true(WIFSIGNALED(wstatus) && WCOREDUMP(wstatus));
    assert_int_equal(WTERMSIG(wstatus), SIGABRT);
    WAIT_FOR(p->starts == 2);
    assert_int_equal(shm->blocks[0].shm.stacks, 2); /* when it was asked, and with the end */
    node_shm_unmap(shm);
    assert_int_equal(end(SIGTERM), 0);
    snprintf(path, sizeof path, "%s/core", dir);
    struct stat st;
    if (stat(path, &st) < 0) /* core.PID, with kernel.core_uses_pid */
        return;
    assert_true(st.st_size < 64 * 1024 * 1024); /* what is shared and sparse is not in it */
    unlink(path);
}

static void write_conf(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/conf", dir);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    config_print(f, &cfg);
    assert_int_equal(fclose(f), 0);
    free(cfg.source_path);
    cfg.source_path = strdup(path);
}

static void new_settings_reach_all_shards_and_their_successors(void **state)
{
    struct played *p = play->shards;
    struct played *admin = &play->admin;
    set("gateway", "retry_after", "20");
    write_conf();
    run();
    assert_int_equal(p[1].retry_after, 20);
    p[2].deaf = true;
    set("gateway", "retry_after", "30");
    write_conf();
    kill(supervisor, SIGHUP);
    WAIT_FOR(p[0].generation == 1 && p[1].generation == 1);
    assert_true(p[0].has_files && p[1].has_files);
    WAIT_FOR(admin->generation == 1 && admin->has_files);
    kill(admin->pid, SIGKILL);
    WAIT_FOR(admin->starts == 2);
    assert_int_equal(admin->retry_after, 30);
    kill(p[2].pid, SIGKILL);
    p[2].deaf = false;
    WAIT_FOR(p[2].starts == 2);
    assert_int_equal(p[2].retry_after, 30);
    set("gateway", "retry_after", "40");
    write_conf();
    kill(supervisor, SIGHUP);
    WAIT_FOR(p[0].generation == 2 && p[1].generation == 2 && p[2].generation == 2);
    assert_int_equal(p[0].starts, 1);
    FILE *f = fopen(cfg.source_path, "ae");
    fputs("[gateway]\nno_such_key = 1\n", f);
    fclose(f);
    kill(supervisor, SIGHUP);
    pause_ms(50);
    kill(p[1].pid, SIGKILL);
    WAIT_FOR(p[1].starts == 2);
    assert_int_equal(p[1].retry_after, 40);
    assert_int_equal(p[0].generation, 2);
    assert_int_equal(end(SIGTERM), 0);
}

static void what_is_named_is_looked_at_first(void **state)
{
    set("gateway", "deny_list", "/does/not/exist");
    supervisor = fork();
    if (supervisor == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDERR_FILENO);
        _exit(supervisor_run(&cfg, -1, play_shard, play_announcer, play_admin));
    }
    assert_int_equal(wait_status(), 78);
    assert_false(play->shards[0].starts > 0);
}

static void shards_that_do_not_end_are_killed(void **state)
{
    run();
    play->shards[1].ignore_stop = true;
    assert_int_equal(end(SIGINT), 1);
    for (unsigned i = 0; i < SHARDS; i++)
        assert_int_equal(kill(play->shards[i].pid, 0), -1);
}

static void nobody_outlives_the_supervisor(void **state)
{
    run();
    WAIT_FOR(play->announcer_pid != 0);
    kill(supervisor, SIGKILL);
    waitpid(supervisor, NULL, 0);
    supervisor = 0;
    for (unsigned i = 0; i < SHARDS;
         i++) /* zombies of the init process count as there: ask for TERM instead */
        WAIT_FOR(play->shards[i].terms == 1);
}

/* ---- the admin process */

/* Its answer to what play->asked holds; false: none came. */
static bool answered(enum control_op op, const char *name)
{
    struct asked *a = &play->asked;
    unsigned before = a->answered;
    a->head.op = (uint16_t)op;
    snprintf(a->name, sizeof a->name, "%s", name);
    a->ask++;
    WAIT_FOR(a->answered == before + 1);
    return true;
}

static void the_admin_process_comes_back_and_the_shards_do_not_notice(void **state)
{
    set("admin", "port", "%u", free_port());
    run();
    WAIT_FOR(play->admin_answers_of_shards == SHARDS);
    assert_true(play->admin_has_socket && play->admin_has_port);
    char token[80];
    memcpy(token, play->admin_token, sizeof token);
    assert_int_equal(strlen(token), 64);
    int old = play->admin.pid;
    kill(old, SIGKILL);
    WAIT_FOR(play->admin.starts == 2);
    WAIT_FOR(play->admin.pid != old);
    WAIT_FOR(play->admin_answers_of_shards == 2 * SHARDS);
    assert_true(play->admin_has_socket && play->admin_has_port);
    assert_string_equal(play->admin_token, token);
    const struct node_shm *shm = view();
    assert_int_equal(shm->processes[NODE_PROCESS_ADMIN].restarts, 1);
    assert_int_equal(shm->processes[NODE_PROCESS_ADMIN].pid, play->admin.pid);
    for (unsigned i = 0; i < SHARDS; i++) {
        assert_int_equal(play->shards[i].starts, 1);
        assert_int_equal(play->shards[i].asked, 2);
    }
    WAIT_FOR(play->announcer_pid != 0);
    assert_int_equal(end(SIGTERM), 0);
    assert_int_equal(play->others_at_admin_end, 0); /* it is the last to go */
    assert_int_equal(shm->processes[NODE_PROCESS_ADMIN].state, PROCESS_ENDED);
    node_shm_unmap(shm);
}

static void without_an_admin_process_there_is_none(void **state)
{
    char path[96];
    set("admin", "enabled", "no");
    set("admin", "port", "%u", free_port());
    run();
    WAIT_FOR(play->announcer_pid != 0);
    assert_int_equal(play->admin.starts, 0);
    const struct node_shm *shm = view();
    assert_int_equal(shm->processes[NODE_PROCESS_ADMIN].state, PROCESS_NONE);
    node_shm_unmap(shm);
    snprintf(path, sizeof path, "%s/admin.sock", dir);
    assert_int_equal(access(path, F_OK), -1);
    kill(supervisor, SIGHUP);
    assert_int_equal(end(SIGTERM), 0);
}

static void a_port_of_the_admin_process_in_use_stops_the_start(void **state)
{
    unsigned port;
    int fd = listen_somewhere(&port);
    set("admin", "port", "%u", port);
    supervisor = fork();
    if (supervisor == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDERR_FILENO);
        _exit(supervisor_run(&cfg, -1, play_shard, play_announcer, play_admin));
    }
    assert_int_equal(wait_status(), 1);
    assert_int_equal(play->shards[0].starts, 0);
    close(fd);
}

static void the_admin_process_is_obeyed(void **state)
{
    struct asked *a = &play->asked;
    set("gateway", "retry_after", "20");
    write_conf();
    run();
    WAIT_FOR(play->admin.starts == 1);
    const struct node_shm *shm = view();
    assert_int_equal(shm->log_level, LOG_NOTICE + 1);
    assert_true(answered(CONTROL_LOG_LEVEL, "debug"));
    assert_int_equal(a->status, 0);
    assert_string_equal(a->json, "{\"level\":\"debug\"}");
    assert_int_equal(shm->log_level, LOG_DEBUG + 1);
    assert_true(answered(CONTROL_LOG_LEVEL, "loud"));
    assert_int_equal(a->status, -EINVAL);
    assert_non_null(strstr(a->json, "\"error\":"));
    assert_int_equal(shm->log_level, LOG_DEBUG + 1);

    set("gateway", "retry_after", "30");
    write_conf();
    assert_true(answered(CONTROL_RELOAD, ""));
    assert_int_equal(a->status, 0);
    assert_non_null(strstr(a->json, "\"changed\":["));
    assert_non_null(strstr(a->json, "retry_after"));
    WAIT_FOR(play->shards[0].generation == 1);
    assert_int_equal(shm->log_level, LOG_NOTICE + 1); /* as configured again */

    assert_true(answered(CONTROL_LOG_LEVEL, "info"));
    a->head.address = (struct net_addr){.family = AF_INET, .ip = {10, 1, 2, 3}};
    a->head.address_bits = 8;
    a->head.seconds = 60;
    assert_true(answered(CONTROL_BAN, ""));
    assert_int_equal(a->status, 0);
    assert_non_null(strstr(a->json, "\"address\":\"10.0.0.0/8\""));
    WAIT_FOR(play->shards[0].generation == 2); /* so they know */
    assert_int_equal(shm->log_level, LOG_INFO + 1);
    assert_true(answered(CONTROL_UNBAN, ""));
    assert_int_equal(a->status, 0);
    WAIT_FOR(play->shards[0].generation == 3);
    assert_true(answered(CONTROL_UNBAN, ""));
    assert_int_equal(a->status, -ENOENT);
    a->head.seconds = 0;
    assert_true(answered(CONTROL_BAN, ""));
    assert_int_equal(a->status, -EINVAL);
    a->head.address.family = 0;
    a->head.address_bits = 0;
    assert_true(answered(CONTROL_UNBAN, ""));
    assert_int_equal(a->status, -EINVAL);

    FILE *f = fopen(cfg.source_path, "ae");
    fputs("[gateway]\nno_such_key = 1\n", f);
    fclose(f);
    assert_true(answered(CONTROL_RELOAD, ""));
    assert_true(a->status < 0);
    assert_non_null(strstr(a->json, "no_such_key"));
    assert_true(answered(CONTROL_CLIENTS, "")); /* of shards */
    assert_int_equal(a->status, -EINVAL);
    a->nonsense = true;
    assert_true(answered(CONTROL_HELLO, ""));
    assert_int_equal(a->status, -EINVAL);
    a->nonsense = false;
    assert_true(answered(CONTROL_HELLO, ""));
    assert_int_equal(a->status, 0);
    node_shm_unmap(shm);
    assert_int_equal(end(SIGTERM), 0);
}

/* ---- the service manager */

static int manager(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    char name[64];
    int n = snprintf(name, sizeof name, "@tgg-supervisor-test-%d", (int)getpid());
    memcpy(a.sun_path + 1, name + 1, (size_t)n - 1);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(
        bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n)), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "100000", 1);
    return fd;
}

/* Waits for that message; what comes before it is passed over. Returns how many WATCHDOG=1 were among them.
 */
static unsigned hear_manager(int fd, const char *begins)
{
    char text[600] = "";
    unsigned watchdogs = 0;
    for (unsigned waited_ms = 0; strncmp(text, begins, strlen(begins)) != 0; waited_ms += 5) {
        ssize_t n = recv(fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        watchdogs += strcmp(text, "WATCHDOG=1") == 0;
        if (n <= 0)
            pause_ms(5);
        if (waited_ms > PATIENCE_MS)
            fail_msg("was not told: %s", begins);
    }
    return watchdogs;
}

static void the_service_manager_is_told(void **state)
{
    int fd = manager();
    write_conf();
    play->shards[1].late = true;
    run();
    unsetenv("WATCHDOG_USEC");
    hear_manager(fd, "STATUS=2 of 3 shards run");
    play->shards[1].late = false;
    hear_manager(fd, "READY=1");
    hear_manager(fd, "STATUS=3 shards run");
    for (unsigned i = 0; i < SHARDS; i++)
        assert_false(play->shards[i].has_notify_socket);
    hear_manager(fd, "WATCHDOG=1");
    hear_manager(fd, "WATCHDOG=1");
    kill(supervisor, SIGHUP);
    hear_manager(fd, "RELOADING=1\nMONOTONIC_USEC=");
    hear_manager(fd, "READY=1");
    kill(supervisor, SIGTERM);
    hear_manager(fd, "STOPPING=1");
    assert_int_equal(wait_status(), 0);
    close(fd);
}

/* ---- crashes */

/* Of shard 1; "" as long as there is none. Returns ret. */
static char *read_record(char *ret, size_t cap)
{
    char pattern[128];
    glob_t found;
    size_t n = 0;

    snprintf(pattern, sizeof pattern, "%s/crash-shard1-*Z.txt", log_dir);
    if (glob(pattern, 0, NULL, &found) == 0) {
        FILE *f = fopen(found.gl_pathv[0], "re");
        assert_non_null(f);
        n = fread(ret, 1, cap - 1, f);
        fclose(f);
        globfree(&found);
    }
    ret[n] = '\0';
    return ret;
}

static void a_crash_leaves_a_record(void **state)
{
    char record[16384];
    snprintf(log_dir, sizeof log_dir, "%s/log", dir);
    set("log", "target", "file");
    set("log", "directory", "%s", log_dir);
    run();
    if (SANITIZED) /* which has handlers of its own */
        kill(play->shards[1].pid, SIGKILL);
    else
        play->shards[1].crash = true;
    WAIT_FOR(play->shards[1].starts == 2);
    WAIT_FOR(strstr(read_record(record, sizeof record), "commands: ") != NULL);
    assert_non_null(strstr(record, "shard 1, pid "));
    assert_non_null(strstr(record, "build id "));
    if (!SANITIZED) {
        assert_non_null(strstr(record, "by signal 11 (SEGV)"));
        assert_non_null(strstr(record, "#4 "));
        assert_non_null(strstr(record, "SEND_TO_ONE (5), connection_id 4711, 28 bytes, link 7 of shard 0"));
    }
    const struct node_shm *shm = view();
    assert_int_equal(shm->crashes[1].crash.signal, 0); /* of its successor */
    assert_int_equal(shm->crashes[1].crash.n_commands, 0);
    node_shm_unmap(shm);
    assert_int_equal(end(SIGTERM), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_shard_gets_what_its_roles_need, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_dead_shard_is_replaced_and_the_others_are_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_shard_that_ends_untold_is_replaced, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_announcer_comes_when_all_links_are_served, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stuck_shard_is_asked_then_killed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_stuck_shard_leaves_a_core_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(new_settings_reach_all_shards_and_their_successors, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(what_is_named_is_looked_at_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(shards_that_do_not_end_are_killed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_admin_process_comes_back_and_the_shards_do_not_notice, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(without_an_admin_process_there_is_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_port_of_the_admin_process_in_use_stops_the_start, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_admin_process_is_obeyed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_service_manager_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_crash_leaves_a_record, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nobody_outlives_the_supervisor, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
