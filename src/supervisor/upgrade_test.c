// SPDX-License-Identifier: MIT
/* Upgrades from one supervisor to another, each a process that was really started (this program with the
 * arguments of a gateway), over shards that hand over and take over but serve nobody. */
#include "supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/control.h"
#include "common/fault.h"
#include "common/node_shm.h"
#include "common/upgrade.h"
#include "common/upgrade_exec.h"
#include "common/upgrade_socket.h"
#include "supervisor/supervisor_util_test.h"
#include "transfer/transfer.h"

#define SHARDS      3
#define CLIENTS     20 /* of each shard of the first node */
#define ENTRIES     512
#define PATIENCE_MS 20000

enum activity { NOTHING, SERVES, HOLDS, STOPPED, TAKES };
enum trouble { FINE, FAIL, HANG, DIE, LIE };

/* A shard process. */
struct entry {
    int pid, supervisor;
    unsigned shard;
    enum activity activity;
    unsigned clients, links, given; /* given: by the supervisor, out of spare sockets */
    unsigned at_home;               /* clients */
    bool drained;
    uint64_t generation;
};

static struct play {
    unsigned n_entries;
    struct entry entries[ENTRIES];
    /* What goes wrong: */
    struct {
        enum trouble what;
        unsigned op, phase, shard;
        bool new_side;
    } trouble;
    unsigned loud; /* so often shard 0 is not quiet */
    bool slot_used, late;
    unsigned announcers, admins;
    int announcer, admin;
    bool connected; /* announcers reach their register */
    /* What the admin process asks the supervisor for, and the answer. */
    struct {
        unsigned asked, answered, op, shard;
        bool on;
        int status;
        char json[512];
    } order;
} * play; /* shared with all processes */

static char dir[64];

/* ---- a shard */

struct actor {
    const struct shard_start *start;
    struct entry *entry;
    uint32_t clients[SHARDS * CLIENTS * 2];
    unsigned n_clients, n_links;
    struct upgrade_page *page;
    struct transfer_sender *sender;
    struct transfer_receiver *receiver;
    int receivers[NODE_SHARDS_MAX];
    unsigned ended[3], told, n_givers;
    unsigned n_clients_before, n_links_before; /* within one node */
    bool takes_within;
    int link_fd;
};

static struct entry *new_entry(const struct shard_start *start)
{
    struct entry *e = &play->entries[__atomic_fetch_add(&play->n_entries, 1, __ATOMIC_SEQ_CST)];
    e->shard = start->shard;
    e->supervisor = getppid();
    return e;
}

static void publish(struct actor *a, enum activity activity)
{
    struct node_shard *n = &a->start->node->shared->shards[a->start->shard];
    a->entry->at_home = 0;
    for (unsigned i = 0; i < a->n_clients; i++)
        a->entry->at_home += node_home_of(&a->start->node->shared->home, a->clients[i]) == a->start->shard;
    a->entry->clients = a->n_clients;
    a->entry->links = a->n_links;
    NODE_STORE(n->clients, a->n_clients);
    NODE_STORE(n->links, a->n_links);
    NODE_STORE(n->phase, activity == SERVES ? NODE_UP : NODE_DOWN);
    __atomic_store_n(&a->entry->activity, activity, __ATOMIC_SEQ_CST);
}

static void say(const struct actor *a, struct upgrade_message m)
{
    (void)upgrade_send(a->start->upgrade_fd, &m);
}

/* True: the answer is not given. */
static bool is_troubled(struct actor *a, unsigned op, unsigned phase)
{
    bool new_side = a->start->n_predecessors > 0 && a->told < 3 && !a->takes_within;
    if (play->trouble.what == FINE || play->trouble.op != op || play->trouble.phase != phase ||
        play->trouble.shard != a->start->shard || play->trouble.new_side != new_side)
        return false;
    enum trouble what = play->trouble.what;
    play->trouble.what = FINE;
    if (what == DIE)
        raise(SIGKILL);
    if (what == LIE) {
        if (phase == 2)
            a->n_clients++;
        else
            a->n_links++;
        return false;
    }
    if (what == FAIL)
        say(a, (struct upgrade_message){.op = UPGRADE_FAILED, .text = "it was told to fail"});
    return true;
}

static void put(struct actor *a, unsigned to, struct bytes *record, int fd)
{
    struct transfer_sink *sink = transfer_sender_sink(a->sender);
    if (sink->put(sink, to, (struct slice){record->data, record->len}, fd) < 0)
        _exit(86);
    bytes_clear(record);
}

/* Within one node: what stays here is nobody's business. */
static unsigned put_unless_own(struct actor *a, unsigned to, struct bytes *record)
{
    if (a->page->within != 0 && to == a->start->shard) {
        bytes_clear(record);
        return 0;
    }
    put(a, to, record, a->link_fd);
    return 1;
}

static unsigned link_home(const struct actor *a)
{
    unsigned own = a->start->shard % a->page->n_shards;
    return (a->page->links >> own & 1) != 0 ? own : (unsigned)__builtin_ctzll(a->page->links);
}

static void export_phase(struct actor *a, unsigned phase)
{
    struct bytes record = {0};

    if (is_troubled(a, UPGRADE_EXPORT, phase))
        return;
    unsigned links = 0, clients = 0;
    for (unsigned i = 0; phase == 1 && i < a->n_links; i++) {
        struct transfer_link link = {.number = i};
        transfer_put_link(&record, &link);
        links += put_unless_own(a, link_home(a), &record);
    }
    for (unsigned i = 0; phase == 2 && i < a->n_clients; i++) {
        struct transfer_client client = {.id = a->clients[i]};
        transfer_put_client(&record, &client);
        clients += put_unless_own(a, node_home_of(&a->page->home, a->clients[i]), &record);
    }
    for (unsigned i = 0; i < a->page->n_shards; i++) {
        struct transfer_end end = {.phase = phase};
        transfer_put_end(&record, &end);
        put(a, i, &record, -1);
    }
    if (transfer_sender_flush(a->sender) < 0)
        _exit(87);
    bytes_fini(&record);
    say(a,
        (struct upgrade_message){.op = UPGRADE_EXPORTED, .phase = phase, .clients = clients, .links = links});
}

static void take_plan(struct actor *a, struct upgrade_message *m)
{
    if (upgrade_page_open(m->fds[0], &a->page) < 0)
        _exit(88);
    memcpy(a->receivers, m->fds + 1, (m->n_fds - 1) * sizeof(int));
    a->sender = transfer_sender_new(a->start->shard, a->receivers, m->n_fds - 1, UINT64_MAX);
}

static void import(struct actor *a)
{
    struct transfer_record r;
    struct transfer_end end;
    struct transfer_client client;
    unsigned from;

    while (transfer_receiver_next(a->receiver, &from, &r) == 1) {
        if (r.type == TRANSFER_TYPE_end && transfer_get_end(r.fields, &end) == 0)
            a->ended[end.phase]++;
        if (r.type == TRANSFER_TYPE_client && transfer_get_client(r.fields, &client) == 0)
            a->clients[a->n_clients++] = (uint32_t)client.id;
        a->n_links += r.type == TRANSFER_TYPE_link;
        if (r.handle >= 0)
            close(r.handle);
    }
    if (a->told < 2 && a->ended[a->told + 1] == a->n_givers) {
        a->told++;
        if (!is_troubled(a, UPGRADE_IMPORTED, a->told))
            say(a, (struct upgrade_message){.op = UPGRADE_IMPORTED,
                                            .phase = a->told,
                                            .clients = a->n_clients - a->n_clients_before,
                                            .links = a->n_links - a->n_links_before});
    }
}

static void take_within(struct actor *a, unsigned n_givers)
{
    a->takes_within = true;
    a->receiver = transfer_receiver_new(a->start->import_fd);
    a->told = 0;
    memset(a->ended, 0, sizeof a->ended);
    a->n_givers = n_givers;
    a->n_clients_before = a->n_clients;
    a->n_links_before = a->n_links;
}

/* The outcome, within one node: what was given is gone, or what was taken. */
static void settle_within(struct actor *a)
{
    bool done = upgrade_page_outcome(a->page) == UPGRADE_COMMITTED;
    unsigned kept = 0;

    if (a->takes_within && !done) {
        a->n_clients = a->n_clients_before;
        a->n_links = a->n_links_before;
    }
    for (unsigned i = 0; done && i < a->n_clients; i++)
        if (node_home_of(&a->page->home, a->clients[i]) == a->start->shard)
            a->clients[kept++] = a->clients[i];
    if (done)
        a->n_clients = kept;
    if (done && link_home(a) != a->start->shard)
        a->n_links = 0;
    a->takes_within = false;
    a->told = 3;
}

static void serve(struct actor *a)
{
    shard_shm_set_state(a->start->shm, SHARD_STATE_RUNNING);
    publish(a, SERVES);
}

static void free_all(struct actor *a)
{
    transfer_sender_free(a->sender);
    transfer_receiver_free(a->receiver);
    upgrade_page_close(a->page);
    a->sender = NULL;
    a->receiver = NULL;
    a->page = NULL;
}

static void obey(struct actor *a, struct upgrade_message *m)
{
    if (m->op == UPGRADE_EXPORT) {
        export_phase(a, m->phase);
        return;
    }
    if (is_troubled(a, m->op, 0))
        return;
    switch (m->op) {
    case UPGRADE_HOLD:
    case UPGRADE_RESUME:
        publish(a, HOLDS);
        say(a, (struct upgrade_message){.op = UPGRADE_QUIET});
        break;
    case UPGRADE_STOP: {
        struct upgrade_message stopped = {.op = UPGRADE_STOPPED, .n = 1};
        if (a->start->shard == 0 && play->loud > 0) {
            play->loud--;
            stopped.n = 0;
            snprintf(stopped.text, sizeof stopped.text, "noise");
        }
        publish(a, STOPPED);
        say(a, stopped);
        break;
    }
    case UPGRADE_PLAN: take_plan(a, m); break;
    case UPGRADE_LEAVE: _exit(0);
    case UPGRADE_THAW:
        if (a->page != NULL && a->page->within != 0)
            settle_within(a);
        free_all(a);
        serve(a);
        say(a, (struct upgrade_message){.op = UPGRADE_THAWED});
        break;
    case UPGRADE_TAKE:
        if (upgrade_page_open(m->fds[0], &a->page) < 0)
            _exit(89);
        if (a->page->within != 0)
            take_within(a, m->phase);
        break;
    case UPGRADE_GO:
        a->told = 3;
        free_all(a);
        serve(a);
        break;
    default: break;
    }
}

static void take_given(struct actor *a)
{
    char bytes[8];
    while (recv(a->start->node->hand_fds[a->start->shard][0], bytes, sizeof bytes, MSG_DONTWAIT) == 8)
        a->entry->given++;
}

static void take_settings(struct actor *a)
{
    struct settings settings;
    while (settings_receive(a->start->settings_fd, &settings) == 0) {
        a->entry->generation = settings.generation;
        node_shard_took_settings(&a->start->node->shared->shards[a->start->shard], settings.generation,
                                 play->slot_used ? UINT64_MAX : 0);
        settings_close(&settings);
    }
}

static void begin(struct actor *a)
{
    const struct shard_start *s = a->start;
    a->link_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    a->entry = new_entry(s);
    if (s->n_predecessors > 0) {
        a->receiver = transfer_receiver_new(s->import_fd);
        a->n_givers = s->n_predecessors;
        publish(a, TAKES);
        if (!is_troubled(a, UPGRADE_READY, 0))
            say(a, (struct upgrade_message){.op = UPGRADE_READY});
    } else {
        for (unsigned i = 0; i < CLIENTS && s->listeners != NULL; i++)
            a->clients[a->n_clients++] = s->shard << CONNECTION_SEQ_BITS | (i + 1);
        a->n_links = 1;
        s->shm->next_seq = 1000 + s->shard;
        while (play->late)
            sched_yield();
        serve(a);
    }
    a->entry->pid = getpid(); /* last: it is complete then */
}

static int play_shard(const struct shard_start *s)
{
    struct actor a = {.start = s};
    struct timespec none = {0};
    sigset_t set;

    sigprocmask(SIG_SETMASK, NULL, &set);
    begin(&a);
    for (;;) {
        struct upgrade_message m;
        struct pollfd fds[] = {{.fd = s->upgrade_fd, .events = POLLIN},
                               {.fd = a.receiver != NULL ? s->import_fd : -1, .events = POLLIN}};
        poll(fds, 2, 5);
        s->shm->turns++;
        if (upgrade_receive(s->upgrade_fd, &m) == 0)
            obey(&a, &m);
        a.entry->drained = NODE_LOAD(s->node->shared->shards[s->shard].drained) != 0;
        if (a.receiver != NULL && a.told < 3)
            import(&a);
        take_given(&a);
        take_settings(&a);
        int sig = sigtimedwait(&set, NULL, &none);
        if (sig == SIGTERM || sig == SIGINT) {
            free_all(&a);
            return 0;
        }
    }
}

static int play_announcer(const struct announce_start *s)
{
    sigset_t set;
    int sig;
    play->announcers++;
    play->announcer = getpid();
    if (play->connected) {
        snprintf(s->registers[0].address, sizeof s->registers[0].address, "127.0.0.1:1");
        s->registers[0].connected = 1;
    }
    sigprocmask(SIG_SETMASK, NULL, &set);
    sigwait(&set, &sig);
    return 0;
}

static void ask_supervisor(const struct admin_start *s)
{
    struct control_request req = {.head = {.op = (uint16_t)play->order.op,
                                           .cursor = play->order.shard,
                                           .flags = play->order.on ? CONTROL_ON : 0}};
    control_send(s->control_fd, &req);
}

static void hear_supervisor(const struct admin_start *s)
{
    static uint8_t buf[CONTROL_MESSAGE_MAX];
    struct control_reply reply;
    struct slice json;
    if (control_receive_reply(s->control_fd, buf, &reply, &json) < 0)
        return;
    play->order.status = reply.status;
    snprintf(play->order.json, sizeof play->order.json, "%.*s", (int)json.len, (const char *)json.data);
    play->order.answered++;
}

static int play_admin(const struct admin_start *s)
{
    struct timespec tick = {.tv_nsec = 5000000};
    sigset_t set;
    unsigned asked = play->order.asked;

    play->admins++;
    play->admin = s->socket_fd >= 0 ? getpid() : -1;
    sigprocmask(SIG_SETMASK, NULL, &set);
    do {
        if (asked != play->order.asked)
            ask_supervisor(s);
        asked = play->order.asked;
        hear_supervisor(s);
    } while (sigtimedwait(&set, NULL, &tick) < 0);
    return 0;
}

/* ---- a gateway: this program, started as one */

static struct play *map_play(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *play) < 0)
        abort();
    void *p = mmap(NULL, sizeof *play, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return p != MAP_FAILED ? p : NULL;
}

static int run_gateway(char **argv)
{
    struct config cfg;
    struct config_error *err = calloc(1, sizeof *err);
    int fd = upgrade_exec_fd();

    play = map_play(getenv("TGG_TEST_PLAY"));
    upgrade_exec_remember(argv);
    if (err == NULL || config_load(argv[3], &cfg, err) < 0) {
        if (fd >= 0)
            supervisor_refuse_upgrade(fd, err);
        return 78;
    }
    int status = supervisor_run(&cfg, fd, play_shard, play_announcer, play_admin);
    config_fini(&cfg);
    free(err);
    return status;
}

/* ---- around it */

static unsigned ports[3]; /* internal, listener, another */
static pid_t supervisor;

static const char *path_of(const char *name)
{
    static char paths[4][96];
    static unsigned i;
    char *path = paths[i++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

/* What `more` says stands instead of what is said here. */
static void write_config(unsigned shards, const char *more)
{
    FILE *f = fopen(path_of("conf"), "we");
    assert_non_null(f);
    fprintf(f, "[gateway]\nshards = %u\ndrain_timeout = 1\nmax_connections = 1000\nupgrade_timeout = 6\n",
            shards);
    fprintf(f, "upgrade_pause_max = 2000\nsandbox = off\n");
    if (strstr(more, "lan_ip") == NULL)
        fprintf(f, "lan_ip = 127.0.0.1\n");
    if (strstr(more, "runtime_dir") == NULL)
        fprintf(f, "runtime_dir = %s\n", dir);
    if (strstr(more, "start_port") == NULL)
        fprintf(f, "start_port = %u\n", ports[0]);
    fprintf(f, "%s\n[log]\ntarget = file\ndirectory = %s/log\n", more, dir);
    if (strstr(more, "[listen") == NULL)
        fprintf(f, "[listen a]\naddress = 127.0.0.1\nport = %u\nprotocol = text\n", ports[1]);
    fclose(f);
}

static bool is_alive(int pid)
{
    char path[64], state = 'X';
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return false;
    int n = fscanf(f, "%*d (%*[^)]) %c", &state);
    fclose(f);
    return n == 1 && state != 'Z' && state != 'X';
}

struct census {
    unsigned processes, serving, clients, links, given, at_home, of_supervisor;
    uint64_t generation; /* that all have taken over */
};

static struct census census(void)
{
    struct census c = {.generation = UINT64_MAX};
    for (unsigned i = 0; i < play->n_entries; i++) {
        const struct entry *e = &play->entries[i];
        if (e->pid == 0 || !is_alive(e->pid))
            continue;
        c.processes++;
        if (e->activity != SERVES)
            continue;
        c.serving++;
        c.clients += e->clients;
        c.links += e->links;
        c.at_home += e->at_home;
        c.given += e->given;
        c.of_supervisor += e->supervisor == supervisor;
        c.generation = e->generation < c.generation ? e->generation : c.generation;
    }
    return c;
}

static int shm_pid(void)
{
    const struct node_shm *shm;
    bool running;
    if (node_shm_map(dir, &shm, &running) < 0)
        return -1;
    int pid = running ? shm->supervisor_pid : -1;
    node_shm_unmap(shm);
    return pid;
}

static bool is_ready(void)
{
    char line[1024];
    bool ready = false;
    FILE *f = fopen(path_of("log/supervisor.log"), "re");
    if (f == NULL)
        return false;
    while (fgets(line, sizeof line, f) != NULL)
        ready |= strstr(line, " ready ") != NULL;
    fclose(f);
    return ready;
}

static void start(unsigned shards, const char *more)
{
    write_config(shards, more);
    supervisor = fork();
    assert_true(supervisor >= 0);
    if (supervisor == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null, STDERR_FILENO);
        execl("/proc/self/exe", "tgg", "gateway", "-c", path_of("conf"), (char *)NULL);
        _exit(127);
    }
    if (play->late)
        return;
    WAIT_FOR(is_ready());
    assert_int_equal(census().serving, shards);
}

/* The words of upgrade.sock up to the last. */
static char answer[8192], last[sizeof answer];

static const char *hear(int fd)
{
    size_t len = 0;
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    for (ssize_t n; len < sizeof answer - 1 && (n = recv(fd, answer + len, sizeof answer - 1 - len, 0)) > 0;)
        len += (size_t)n;
    close(fd);
    answer[len] = '\0';
    last[0] = '\0';
    char *end = strrchr(answer, '\n');
    if (end != NULL) {
        *end = '\0';
        const char *line = strrchr(answer, '\n');
        snprintf(last, sizeof last, "%s", line != NULL ? line + 1 : answer);
    }
    return last;
}

static int ask(const char *binary)
{
    char line[256];
    int fd = upgrade_socket_connect(path_of("upgrade.sock"));
    assert_true(fd >= 0);
    int n = snprintf(line, sizeof line, "upgrade %s\n", binary);
    /* Who is busy says so before it has heard what is wanted. */
    assert_true(send(fd, line, (size_t)n, MSG_NOSIGNAL) == n || errno == EPIPE);
    return fd;
}

static const char *upgrade(void)
{
    return hear(ask(""));
}

static bool begins_with(const char *text, const char *with)
{
    if (strncmp(text, with, strlen(with)) == 0)
        return true;
    print_message("heard: %s\n", text);
    return false;
}

/* Ours or our children's. */
static int reap(pid_t pid)
{
    int wstatus;
    WAIT_FOR(waitpid(pid, &wstatus, WNOHANG) == pid);
    return WIFEXITED(wstatus) ? WEXITSTATUS(wstatus) : 128 + WTERMSIG(wstatus);
}

/* The next supervisor is there, alone, with everybody. */
static void assert_taken_over(unsigned shards, unsigned clients, unsigned links)
{
    pid_t before = supervisor;
    WAIT_FOR(shm_pid() != before);
    assert_int_equal(reap(before), 0);
    supervisor = shm_pid();
    assert_true(supervisor > 0 && is_alive(supervisor));
    struct census c = census();
    assert_int_equal(c.processes, shards);
    assert_int_equal(c.serving, shards);
    assert_int_equal(c.of_supervisor, shards);
    assert_int_equal(c.clients, clients);
    assert_int_equal(c.links, links);
    assert_int_equal(c.at_home, clients);
    assert_int_not_equal(access(path_of("node.shm.next"), F_OK), 0);
}

/* Nothing has changed; a shard may have died. */
static void assert_as_before(unsigned shards)
{
    assert_int_equal(shm_pid(), supervisor);
    WAIT_FOR(census().serving == shards && census().processes == shards);
    assert_int_equal(census().of_supervisor, shards);
    assert_int_equal(census().clients, shards * CLIENTS);
    assert_int_not_equal(access(path_of("node.shm.next"), F_OK), 0);
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) != 0;) /* shards of a new one that has died */
        assert_true(pid > 0 && pid != supervisor);
}

static void end(void)
{
    kill(supervisor, SIGTERM);
    assert_int_equal(reap(supervisor), 0);
    supervisor = 0;
    WAIT_FOR(census().processes == 0);
}

static void fault(const char *place, const char *action)
{
    FILE *f = fopen(path_of("fault"), "we");
    assert_non_null(f);
    if (place != NULL)
        fprintf(f, "%s %s\n", place, action);
    fclose(f);
}

static int set_up(void **state)
{
    snprintf(dir, sizeof dir, "/tmp/tgg-upgrade-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
    setenv("TGG_TEST_PLAY", path_of("play"), 1);
    setenv("TGG_FAULT_FILE", path_of("fault"), 1);
    fault(NULL, NULL);
    play = map_play(path_of("play"));
    assert_non_null(play);
    for (unsigned i = 0; i < 3; i++)
        ports[i] = free_port();
    play->connected = true;
    /* What a supervisor leaves to its successor is ours to wait for. */
    return prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static int tear_down(void **state)
{
    if (supervisor != 0)
        kill(supervisor, SIGKILL);
    for (unsigned i = 0; i < play->n_entries; i++)
        if (play->entries[i].pid != 0 && is_alive(play->entries[i].pid))
            kill(play->entries[i].pid, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    supervisor = 0;
    munmap(play, sizeof *play);
    pid_t pid = fork();
    if (pid == 0)
        execlp("rm", "rm", "-rf", dir, (char *)NULL);
    waitpid(pid, NULL, 0);
    return 0;
}

/* ---- tests */

static void one_takes_the_place_of_the_other(void **state)
{
    start(SHARDS, "");
    struct stat before, after;
    assert_int_equal(stat(path_of("upgrade.sock"), &before), 0);
    assert_int_equal(before.st_mode & 0777, 0600);
    for (unsigned i = 1; i <= 4; i++) {
        assert_true(begins_with(upgrade(), "done pid="));
        assert_non_null(strstr(last, "clients=60 links=3 "));
        assert_non_null(strstr(answer, "progress clients are handed over"));
        assert_taken_over(SHARDS, SHARDS * CLIENTS, SHARDS);
        assert_int_equal(play->announcers, i + 1);
        assert_int_equal(play->admins, i + 1);
        assert_true(is_alive(play->announcer) && is_alive(play->admin));
    }
    assert_int_equal(stat(path_of("upgrade.sock"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(access(path_of("admin.sock"), F_OK), 0);
    end();
    assert_int_not_equal(access(path_of("upgrade.sock"), F_OK), 0);
    assert_int_not_equal(access(path_of("admin.sock"), F_OK), 0);
}

static void a_signal_asks_too(void **state)
{
    start(2, "");
    kill(supervisor, SIGUSR2);
    assert_taken_over(2, 2 * CLIENTS, 2);
    end();
}

static unsigned connect_some(unsigned n, int *fds)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)ports[1]), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    for (unsigned i = 0; i < n; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fds[i], (struct sockaddr *)&a, sizeof a) < 0)
            return i;
    }
    return n;
}

static void the_number_of_shards_may_change(void **state)
{
    int fds[40];
    start(SHARDS, "");
    write_config(5, "");
    assert_true(begins_with(upgrade(), "done pid="));
    assert_taken_over(5, SHARDS * CLIENTS, SHARDS);
    WAIT_FOR(census().generation == 1); /* the two new ones get sockets */
    /* Nobody accepts here, so these wait in the queues of all five. */
    assert_int_equal(connect_some(40, fds), 40);
    write_config(2, "");
    assert_true(begins_with(upgrade(), "done pid="));
    assert_taken_over(2, SHARDS * CLIENTS, SHARDS);
    unsigned given = census().given;
    assert_in_range(given, 1, 39); /* those in the other three */
    write_config(SHARDS, "link_shards = 0\nedge_shards = 1,2");
    assert_true(begins_with(upgrade(), "done pid="));
    assert_taken_over(SHARDS, SHARDS * CLIENTS, SHARDS);
    for (unsigned i = 0; i < 40; i++)
        close(fds[i]);
    end();
}

static void ids_go_on(void **state)
{
    struct node_shm_file f;
    struct node_shm_ids ids;
    struct shard_plan plan = {.n = 1};
    start(SHARDS, "");
    write_config(1, "");
    assert_true(begins_with(upgrade(), "done pid="));
    assert_taken_over(1, SHARDS * CLIENTS, SHARDS);
    end();
    assert_int_equal(node_shm_create(dir, &plan, &f), 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        assert_true(node_shm_get_ids(&f, i, &ids));
        assert_int_equal(ids.next_seq, 1000 + i);
    }
    node_shm_release(&f);
}

static void somebody_who_is_not_quiet_is_waited_for(void **state)
{
    start(SHARDS, "");
    play->loud = 3;
    assert_true(begins_with(upgrade(), "done pid="));
    assert_int_equal(play->loud, 0);
    assert_taken_over(SHARDS, SHARDS * CLIENTS, SHARDS);
    end();
}

static void who_is_never_quiet_ends_it_in_time(void **state)
{
    start(SHARDS, "upgrade_handshake_wait = 100");
    play->loud = UINT32_MAX;
    assert_true(begins_with(upgrade(), "failed the pause took longer than upgrade_pause_max"));
    assert_non_null(strstr(last, "noise"));
    play->loud = 0;
    assert_as_before(SHARDS);
    end();
}

static void what_is_wrong_is_told(void **state)
{
    static const struct {
        const char *more, *expected;
    } cases[] = {
        {"turn_max = many", "turn_max"},
        {"start_port = 1", "start_port"},
        {"runtime_dir = /tmp/elsewhere", "runtime_dir"},
        {"lan_ip = 127.0.0.2", "lan_ip"},
        {"[listen b]\naddress = 127.0.0.1\nport = 1999\nprotocol = text", "[listen a]"},
        {"[listen a]\naddress = 127.0.0.1\nport = 1999\nprotocol = text", "it has moved"},
        {"[listen a]\naddress = 127.0.0.1\nport = 1999\nprotocol = frame", "protocol"},
    };
    start(2, "");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_config(2, cases[i].more);
        assert_true(begins_with(upgrade(), "failed "));
        if (strstr(last, cases[i].expected) == NULL)
            fail_msg("%s: %s", cases[i].expected, last);
        assert_as_before(2);
    }
    write_config(2, "");
    assert_true(begins_with(upgrade(), "done"));
    assert_taken_over(2, 2 * CLIENTS, 2);
    end();
}

static void what_is_no_program_is_refused(void **state)
{
    start(1, "");
    assert_true(begins_with(hear(ask("/does/not/exist")), "failed /does/not/exist: No such file"));
    assert_true(begins_with(hear(ask(path_of("conf"))), "failed"));
    assert_non_null(strstr(last, "no file that can be executed"));
    assert_true(begins_with(hear(ask("relative")), "failed relative is not an absolute path"));
    assert_true(begins_with(hear(ask("/bin/true")), "failed the new supervisor"));
    assert_as_before(1);
    end();
}

static void not_while_it_starts_or_a_shard_is_dead(void **state)
{
    play->late = true;
    start(2, "");
    WAIT_FOR(access(path_of("upgrade.sock"), F_OK) == 0);
    assert_true(begins_with(upgrade(), "failed the gateway is still starting"));
    play->late = false;
    WAIT_FOR(is_ready());
    play->late = true; /* its successor will take its time */
    kill(play->entries[0].pid, SIGKILL);
    WAIT_FOR(play->n_entries == 3);
    assert_true(begins_with(upgrade(), "failed shard "));
    assert_non_null(strstr(last, "starting"));
    play->late = false;
    WAIT_FOR(census().serving == 2);
    assert_true(begins_with(upgrade(), "done"));
    assert_taken_over(2, 2 * CLIENTS, 2);
    end();
}

static void a_removed_listener_with_clients_is_named(void **state)
{
    char more[256];
    snprintf(more, sizeof more,
             "[listen gone]\naddress = 127.0.0.1\nport = %u\nprotocol = text\n[listen a]\naddress = "
             "127.0.0.1\nport = %u\nprotocol = text\n",
             ports[2], ports[1]);
    start(2, more);
    write_config(2, "");
    play->slot_used = true;
    kill(supervisor, SIGHUP);
    WAIT_FOR(census().generation == 1);
    assert_true(begins_with(upgrade(), "failed the listener gone was removed"));
    play->slot_used = false;
    kill(supervisor, SIGHUP);
    WAIT_FOR(census().generation == 2);
    pause_ms(20);
    assert_true(begins_with(upgrade(), "done"));
    assert_taken_over(2, 2 * CLIENTS, 2);
    end();
}

static void one_at_a_time(void **state)
{
    start(2, "");
    play->trouble.op = UPGRADE_HOLD;
    play->trouble.what = HANG;
    int first = ask("");
    WAIT_FOR(play->trouble.what == FINE);
    assert_true(begins_with(upgrade(), "busy another upgrade"));
    kill(supervisor, SIGHUP); /* not now */
    assert_true(begins_with(hear(first), "failed the pause took longer"));
    assert_as_before(2);
    assert_int_equal(census().generation, 0);
    end();
}

static void an_end_gives_it_up_first(void **state)
{
    start(2, "");
    play->trouble.op = UPGRADE_HOLD;
    play->trouble.what = HANG;
    int fd = ask("");
    WAIT_FOR(play->trouble.what == FINE);
    kill(supervisor, SIGTERM);
    assert_true(begins_with(hear(fd), "failed the gateway was told to end"));
    assert_int_equal(reap(supervisor), 0);
    supervisor = 0;
    WAIT_FOR(census().processes == 0);
}

static void trouble_with_a_shard_changes_nothing(void **state)
{
    static const struct {
        bool new_side;
        unsigned op, phase;
    } steps[] = {
        {false, UPGRADE_HOLD, 0},   {false, UPGRADE_STOP, 0},    {false, UPGRADE_PLAN, 0},
        {false, UPGRADE_EXPORT, 1}, {false, UPGRADE_EXPORT, 2},  {true, UPGRADE_READY, 0},
        {true, UPGRADE_TAKE, 0},    {true, UPGRADE_IMPORTED, 1}, {true, UPGRADE_IMPORTED, 2},
    };
    start(SHARDS, "upgrade_handshake_wait = 0");
    for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        for (enum trouble what = FAIL; what <= LIE; what++) {
            if ((what == LIE && steps[i].phase == 0) || (what == HANG && steps[i].op == UPGRADE_READY) ||
                ((what == HANG || what == LIE) && (steps[i].op == UPGRADE_PLAN || !steps[i].new_side)) ||
                (what == HANG && steps[i].op == UPGRADE_TAKE))
                continue;
            play->trouble.new_side = steps[i].new_side;
            play->trouble.op = steps[i].op;
            play->trouble.phase = steps[i].phase;
            play->trouble.shard = i % SHARDS;
            play->trouble.what = what;
            if (!begins_with(upgrade(), "failed "))
                fail_msg("step %u trouble %u", i, (unsigned)what);
            assert_int_equal(play->trouble.what, FINE);
            assert_as_before(SHARDS);
        }
    }
    assert_true(begins_with(upgrade(), "done"));
    assert_taken_over(SHARDS, SHARDS * CLIENTS, SHARDS);
    end();
}

static void an_old_shard_that_hangs_ends_it_in_time(void **state)
{
    static const unsigned ops[] = {UPGRADE_STOP, UPGRADE_EXPORT};
    start(2, "upgrade_handshake_wait = 0");
    for (unsigned i = 0; i < 2; i++) {
        play->trouble.op = ops[i];
        play->trouble.phase = i;
        play->trouble.what = HANG;
        assert_true(begins_with(upgrade(), "failed the pause took longer"));
        assert_as_before(2);
    }
    end();
}

static void without_a_register_the_old_one_still_leaves(void **state)
{
    play->connected = false;
    start(1, "");
    assert_true(begins_with(upgrade(), "done"));
    assert_taken_over(1, CLIENTS, 1);
    end();
}

/* ---- within one node */

static void begin_order(unsigned op, unsigned shard, bool on)
{
    WAIT_FOR(play->admins > 0); /* one that starts after the order does not see it */
    play->order.op = op;
    play->order.shard = shard;
    play->order.on = on;
    play->order.asked++;
}

static int order(unsigned op, unsigned shard, bool on)
{
    unsigned answered = play->order.answered;
    begin_order(op, shard, on);
    WAIT_FOR(play->order.answered == answered + 1);
    if (play->order.status < 0)
        print_message("heard: %s\n", play->order.json);
    return play->order.status;
}

static const struct entry *entry_of(unsigned shard)
{
    for (unsigned i = play->n_entries; i-- > 0;)
        if (play->entries[i].shard == shard && is_alive(play->entries[i].pid))
            return &play->entries[i];
    fail_msg("there is no shard %u", shard);
    return NULL;
}

static void a_shard_is_evacuated_and_comes_back(void **state)
{
    start(SHARDS, "");
    assert_int_equal(order(CONTROL_EVACUATE, 1, true), 0);
    assert_non_null(strstr(play->order.json, "{\"shard\":1,\"clients\":20,\"links\":1,\"pause_ms\":"));
    assert_int_equal(entry_of(1)->clients, 0);
    assert_int_equal(entry_of(1)->links, 0);
    WAIT_FOR(entry_of(1)->drained);
    assert_in_range(entry_of(0)->clients, CLIENTS + 9, CLIENTS + 11);
    assert_int_equal(census().clients, SHARDS * CLIENTS);
    assert_int_equal(census().at_home, SHARDS * CLIENTS);
    assert_int_equal(census().links, SHARDS);
    /* Another one as well, and once more the first. */
    assert_int_equal(order(CONTROL_EVACUATE, 0, true), 0);
    assert_int_equal(order(CONTROL_EVACUATE, 1, true), 0);
    assert_int_equal(entry_of(2)->clients, SHARDS * CLIENTS);
    assert_int_equal(order(CONTROL_EVACUATE, 2, true), -EPERM);
    assert_non_null(strstr(play->order.json, "no other shard takes clients"));
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(order(CONTROL_EVACUATE, i, false), 0);
        WAIT_FOR(!entry_of(i)->drained);
        assert_int_equal(entry_of(i)->clients, CLIENTS);
    }
    assert_int_equal(census().at_home, SHARDS * CLIENTS);
    assert_int_equal(order(CONTROL_EVACUATE, SHARDS, true), -ENOENT);
    assert_true(begins_with(upgrade(), "done"));
    assert_taken_over(SHARDS, SHARDS * CLIENTS, SHARDS);
    end();
}

static void an_evacuation_that_fails_changes_nothing(void **state)
{
    static const struct {
        unsigned op, phase, shard;
        enum trouble what;
    } troubles[] = {
        {UPGRADE_HOLD, 0, 0, FAIL},     {UPGRADE_STOP, 0, 2, HANG},     {UPGRADE_EXPORT, 1, 1, FAIL},
        {UPGRADE_IMPORTED, 1, 2, FAIL}, {UPGRADE_IMPORTED, 2, 0, HANG}, {UPGRADE_EXPORT, 2, 1, DIE},
    };
    start(SHARDS, "upgrade_handshake_wait = 0");
    for (unsigned i = 0; i < sizeof troubles / sizeof troubles[0]; i++) {
        play->trouble.op = troubles[i].op;
        play->trouble.phase = troubles[i].phase;
        play->trouble.shard = troubles[i].shard;
        play->trouble.what = troubles[i].what;
        assert_int_equal(order(CONTROL_EVACUATE, 1, true), -ECANCELED);
        assert_non_null(strstr(play->order.json, "all is as before"));
        assert_as_before(SHARDS);
        assert_int_equal(census().at_home, SHARDS * CLIENTS);
        assert_false(entry_of(1)->drained);
    }
    assert_int_equal(order(CONTROL_EVACUATE, 1, true), 0);
    end();
}

static void nothing_else_is_done_meanwhile(void **state)
{
    start(2, "upgrade_handshake_wait = 0");
    play->trouble.op = UPGRADE_HOLD;
    play->trouble.what = HANG;
    begin_order(CONTROL_EVACUATE, 0, true);
    WAIT_FOR(play->trouble.what == FINE);
    assert_true(begins_with(upgrade(), "busy"));
    unsigned answered = play->order.answered;
    begin_order(CONTROL_RELOAD, 0, false);
    WAIT_FOR(play->order.answered == answered + 1);
    assert_int_equal(play->order.status, -EBUSY);
    kill(supervisor, SIGTERM);
    assert_int_equal(reap(supervisor), 0);
    supervisor = 0;
}

/* ---- the supervisors die, fail and hang at every step (-Dinject=true) */

#ifdef TGG_INJECT
static const char *const before[] = {
    "old_supervisor.offers", "old_supervisor.prepares", "old_supervisor.holds",   "old_supervisor.stops",
    "old_supervisor.links",  "old_supervisor.clients",  "old_supervisor.commits", "new_supervisor.offer",
    "new_supervisor.check",  "new_supervisor.prepare",  "new_supervisor.starts",  "new_supervisor.waits",
    "new_supervisor.takes",  "new_supervisor.links",    "new_supervisor.commit",
};
#define N_BEFORE (sizeof before / sizeof before[0])

static bool is_old(const char *place)
{
    return strncmp(place, "old", 3) == 0;
}

static void a_supervisor_that_fails_anywhere_changes_nothing(void **state)
{
    start(2, "");
    for (unsigned i = 0; i < N_BEFORE; i++) {
        fault(before[i], "fail");
        if (!begins_with(upgrade(), "failed "))
            fail_msg("%s", before[i]);
        if (strstr(last, before[i]) == NULL)
            fail_msg("%s: %s", before[i], last);
        assert_as_before(2);
    }
    fault(NULL, NULL);
    assert_true(begins_with(upgrade(), "done"));
    assert_taken_over(2, 2 * CLIENTS, 2);
    end();
}

static void a_new_supervisor_that_dies_before_the_commit_changes_nothing(void **state)
{
    start(2, "");
    for (unsigned i = 0; i < N_BEFORE; i++) {
        if (is_old(before[i]))
            continue;
        fault(before[i], "kill");
        if (!begins_with(upgrade(), "failed the new supervisor "))
            fail_msg("%s", before[i]);
        assert_as_before(2);
    }
    fault(NULL, NULL);
    assert_true(begins_with(upgrade(), "done"));
    assert_taken_over(2, 2 * CLIENTS, 2);
    end();
}

static void a_new_supervisor_that_hangs_is_given_up(void **state)
{
    static const char *const places[] = {"new_supervisor.check", "new_supervisor.starts",
                                         "new_supervisor.takes", "new_supervisor.commit"};
    start(1, "upgrade_handshake_wait = 0");
    for (unsigned i = 0; i < 4; i++) {
        fault(places[i], "hang");
        if (!begins_with(upgrade(), i < 2 ? "failed it took longer" : "failed the pause took longer"))
            fail_msg("%s", places[i]);
        assert_as_before(1);
    }
    fault(NULL, NULL);
    assert_true(begins_with(upgrade(), "done"));
    assert_taken_over(1, CLIENTS, 1);
    end();
}

/* Its shards get TERM, as always; nobody else is left. */
static void an_old_supervisor_that_dies_before_the_commit_leaves_nothing(void **state)
{
    for (unsigned i = 0; i < N_BEFORE; i++) {
        if (!is_old(before[i]))
            continue;
        unlink(path_of("log/supervisor.log"));
        fault(NULL, NULL);
        start(2, "");
        fault(before[i], "kill");
        upgrade();
        assert_int_equal(reap(supervisor), 128 + SIGKILL);
        supervisor = 0;
        WAIT_FOR(census().processes == 0);
        while (waitpid(-1, NULL, 0) > 0) /* the new one ends, too */
            ;
        unlink(path_of("node.shm"));
    }
}

static void after_the_commit_the_new_one_goes_on_alone(void **state)
{
    start(2, "");
    fault("old_supervisor.leaves", "kill");
    upgrade();
    assert_int_equal(reap(supervisor), 128 + SIGKILL);
    WAIT_FOR(census().serving == 2 && census().processes == 2);
    supervisor = shm_pid();
    assert_int_equal(census().of_supervisor, 2);
    assert_int_equal(census().clients, 2 * CLIENTS);
    fault(NULL, NULL);
    WAIT_FOR(begins_with(upgrade(), "done"));
    assert_taken_over(2, 2 * CLIENTS, 2);
    end();
}

static void a_new_supervisor_that_dies_after_the_commit_is_told_of(void **state)
{
    start(2, "");
    fault("new_supervisor.committed", "kill");
    assert_true(begins_with(upgrade(), "failed the new supervisor died by signal 9 after it had taken over"));
    assert_int_equal(reap(supervisor), 1);
    supervisor = 0;
    WAIT_FOR(census().processes == 0);
}
#endif

#define WITH_ALL(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        WITH_ALL(one_takes_the_place_of_the_other),
        WITH_ALL(a_signal_asks_too),
        WITH_ALL(the_number_of_shards_may_change),
        WITH_ALL(ids_go_on),
        WITH_ALL(somebody_who_is_not_quiet_is_waited_for),
        WITH_ALL(who_is_never_quiet_ends_it_in_time),
        WITH_ALL(what_is_wrong_is_told),
        WITH_ALL(what_is_no_program_is_refused),
        WITH_ALL(not_while_it_starts_or_a_shard_is_dead),
        WITH_ALL(a_removed_listener_with_clients_is_named),
        WITH_ALL(one_at_a_time),
        WITH_ALL(an_end_gives_it_up_first),
        WITH_ALL(trouble_with_a_shard_changes_nothing),
        WITH_ALL(an_old_shard_that_hangs_ends_it_in_time),
        WITH_ALL(without_a_register_the_old_one_still_leaves),
        WITH_ALL(a_shard_is_evacuated_and_comes_back),
        WITH_ALL(an_evacuation_that_fails_changes_nothing),
        WITH_ALL(nothing_else_is_done_meanwhile),
#ifdef TGG_INJECT
        WITH_ALL(a_supervisor_that_fails_anywhere_changes_nothing),
        WITH_ALL(a_new_supervisor_that_dies_before_the_commit_changes_nothing),
        WITH_ALL(a_new_supervisor_that_hangs_is_given_up),
        WITH_ALL(an_old_supervisor_that_dies_before_the_commit_leaves_nothing),
        WITH_ALL(after_the_commit_the_new_one_goes_on_alone),
        WITH_ALL(a_new_supervisor_that_dies_after_the_commit_is_told_of),
#endif
    };
    if (argc > 3 && strcmp(argv[1], "gateway") == 0)
        return run_gateway(argv);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
