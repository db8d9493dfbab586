// SPDX-License-Identifier: MIT
#include "common/upgrade.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned count_fds(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

/* ---- the page */

static int make_page(struct upgrade_page **ret)
{
    int fd = upgrade_page_make(ret);
    assert_true(fd >= 0);
    (*ret)->n_shards = 4;
    (*ret)->edges = 0x7;
    (*ret)->links = 0x8;
    node_home_init(&(*ret)->home);
    return fd;
}

static void another_process_sees_the_page(void **state)
{
    struct upgrade_page *p, *q;
    int fd = make_page(&p);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(upgrade_page_outcome(p), UPGRADE_OPEN);
    assert_int_equal(upgrade_page_open(fd, &q), 0);
    close(fd);
    assert_ptr_not_equal(p, q);
    assert_int_equal(q->n_shards, 4);
    assert_int_equal(upgrade_page_decide(p, UPGRADE_COMMITTED), UPGRADE_COMMITTED);
    assert_int_equal(upgrade_page_outcome(q), UPGRADE_COMMITTED);
    upgrade_page_close(p);
    upgrade_page_close(q);
    upgrade_page_close(NULL);
}

static void nobody_can_cut_it_short(void **state)
{
    struct upgrade_page *p;
    int fd = make_page(&p);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, 1 << 20), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    upgrade_page_close(p);
    close(fd);
}

static void a_word_is_set_once(void **state)
{
    struct upgrade_page *p;
    int fd = make_page(&p);
    assert_int_equal(upgrade_page_decide(p, UPGRADE_ABANDONED), UPGRADE_ABANDONED);
    assert_int_equal(upgrade_page_decide(p, UPGRADE_COMMITTED), UPGRADE_ABANDONED);
    assert_int_equal(upgrade_page_decide(p, UPGRADE_ABANDONED), UPGRADE_ABANDONED);
    p->outcome = UPGRADE_COMMITTED;
    assert_int_equal(upgrade_page_decide(p, UPGRADE_ABANDONED), UPGRADE_COMMITTED);
    p->outcome = 77; /* nobody's word */
    assert_int_equal(upgrade_page_decide(p, UPGRADE_COMMITTED), UPGRADE_ABANDONED);
    assert_int_equal(upgrade_page_outcome(p), UPGRADE_ABANDONED);
    upgrade_page_close(p);
    close(fd);
}

/* Two processes with different wishes: in each round both hear the same. */
static void two_that_decide_at_once_agree(void **state)
{
    enum { ROUNDS = 300 };
    struct upgrade_page *p;
    unsigned committed = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        int start[2], status, fd = make_page(&p);
        assert_int_equal(pipe(start), 0);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            char c;
            if (read(start[0], &c, 1) != 1)
                _exit(99);
            _exit((int)upgrade_page_decide(p, UPGRADE_ABANDONED));
        }
        assert_int_equal(write(start[1], "x", 1), 1);
        if (round % 2 != 0) /* so that either is the first sometimes */
            sched_yield();
        enum upgrade_outcome mine = upgrade_page_decide(p, UPGRADE_COMMITTED);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), mine);
        assert_int_equal(upgrade_page_outcome(p), mine);
        committed += mine == UPGRADE_COMMITTED;
        upgrade_page_close(p);
        close(fd);
        close(start[0]);
        close(start[1]);
    }
    assert_true(committed > 0);
}

static void assert_refused(int fd)
{
    struct upgrade_page *q = NULL;
    assert_int_equal(upgrade_page_open(fd, &q), -EPROTO);
    assert_null(q);
}

static void a_page_that_makes_no_sense_is_refused(void **state)
{
    struct upgrade_page *p, good, *q;
    int fd = make_page(&p);
    good = *p;
#define REFUSED(change)                                                                                      \
    do {                                                                                                     \
        change;                                                                                              \
        assert_refused(fd);                                                                                  \
        *p = good;                                                                                           \
    } while (0)
    REFUSED(p->magic++);
    REFUSED(p->n_shards = 0);
    REFUSED(p->n_shards = 65);
    REFUSED(p->n_shards = 3); /* links are at the fourth */
    REFUSED(p->edges = 0);
    REFUSED(p->edges = 0x17);
    REFUSED(p->links = 0);
    REFUSED(p->same = 2);
    REFUSED(p->home.shard[0] = 3); /* no edge */
    REFUSED(p->home.shard[0] = 64);
    REFUSED(p->home.shard[63 * 64] = 62);
    REFUSED(memset(&p->home.shard[64], 0, 64)); /* edge 1 would have nothing to give */
#undef REFUSED
    p->n_shards = 64;
    p->edges = UINT64_MAX;
    p->same = 1;
    assert_int_equal(upgrade_page_open(fd, &q), 0);
    upgrade_page_close(q);
    upgrade_page_close(p);
    close(fd);
}

static void a_file_that_is_no_page_is_refused(void **state)
{
    struct upgrade_page *q = NULL;
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_refused(fd);
    assert_int_equal(ftruncate(fd, sizeof *q), 0);
    assert_refused(fd); /* not sealed */
    close(fd);
    assert_int_equal(upgrade_page_open(-1, &q), -EBADF);
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_refused(fd);
    close(fd);
}

static void a_plan_makes_a_good_page(void **state)
{
    struct upgrade_page *p, *q;
    struct node_home before;
    int fd = make_page(&p);
    node_home_init(&before);
    for (unsigned n = 1; n <= 64; n++) {
        p->n_shards = n;
        p->links = p->edges = UINT64_MAX >> (64 - n);
        node_home_plan(&before, UINT64_MAX >> (n - 1), p->edges, &p->home);
        assert_int_equal(upgrade_page_open(fd, &q), 0);
        upgrade_page_close(q);
    }
    upgrade_page_close(p);
    close(fd);
}

/* ---- messages */

static int ends[2];

static int with_ends(void **state)
{
    return upgrade_open(ends);
}

static int without_ends(void **state)
{
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static void a_message_goes_either_way(void **state)
{
    struct upgrade_message m = {.op = UPGRADE_EXPORTED,
                                .phase = 2,
                                .n = UINT64_MAX,
                                .clients = 7,
                                .links = 8},
                           got;
    memset(&got, 0xFF, sizeof got);
    memset(m.text, 'x', sizeof m.text - 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(upgrade_receive(ends[1 - i], &got), -EAGAIN);
        assert_int_equal(upgrade_send(ends[i], &m), 0);
        assert_int_equal(upgrade_receive(ends[1 - i], &got), 0);
        assert_memory_equal(&got, &m, offsetof(struct upgrade_message, fds));
        assert_int_equal(upgrade_receive(ends[1 - i], &got), -EAGAIN);
    }
    assert_true((fcntl(ends[0], F_GETFD) & FD_CLOEXEC) != 0);
}

static void descriptors_come_in_order(void **state)
{
    struct upgrade_message m = {.op = UPGRADE_PLAN, .n_fds = UPGRADE_FDS_MAX}, got;
    for (unsigned i = 0; i < m.n_fds; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        m.fds[i] = memfd_create(name, MFD_CLOEXEC);
        assert_true(m.fds[i] >= 0);
        assert_int_equal(ftruncate(m.fds[i], i), 0);
    }
    assert_int_equal(upgrade_send(ends[0], &m), 0);
    for (unsigned i = 0; i < m.n_fds; i++)
        close(m.fds[i]);
    assert_int_equal(upgrade_receive(ends[1], &got), 0);
    assert_int_equal(got.n_fds, UPGRADE_FDS_MAX);
    for (unsigned i = 0; i < got.n_fds; i++) {
        assert_int_equal(lseek(got.fds[i], 0, SEEK_END), i);
        assert_true((fcntl(got.fds[i], F_GETFD) & FD_CLOEXEC) != 0);
        close(got.fds[i]);
    }
}

static void the_other_side_is_gone(void **state)
{
    struct upgrade_message m = {.op = UPGRADE_HOLD}, got;
    assert_int_equal(upgrade_send(ends[0], &m), 0);
    close(ends[0]);
    assert_int_equal(upgrade_send(ends[1], &m), -EPIPE);
    assert_int_equal(upgrade_receive(ends[1], &got), 0); /* its last word is heard */
    assert_int_equal(upgrade_receive(ends[1], &got), -EPIPE);
    close(ends[1]);
    /* With something of ours that it had not read. */
    assert_int_equal(upgrade_open(ends), 0);
    assert_int_equal(upgrade_send(ends[1], &m), 0);
    close(ends[0]);
    assert_int_equal(upgrade_receive(ends[1], &got), -EPIPE);
    ends[0] = -1;
}

static void a_full_socket_says_so(void **state)
{
    struct upgrade_message m = {.op = UPGRADE_HOLD}, got;
    unsigned n = 0;
    int r;
    while ((r = upgrade_send(ends[0], &m)) == 0)
        n++;
    assert_int_equal(r, -EAGAIN);
    assert_true(n >= 64);
    while (n-- > 0)
        assert_int_equal(upgrade_receive(ends[1], &got), 0);
    assert_int_equal(upgrade_receive(ends[1], &got), -EAGAIN);
}

/* A message of that many bytes, with n descriptors. */
static void send_raw(const void *data, size_t len, unsigned n)
{
    struct iovec iov = {(void *)(uintptr_t)data, len};
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(100 * sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n > 0) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_LEN(n * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n * sizeof(int));
        int fds[100] = {0};
        memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    }
    assert_int_equal(sendmsg(ends[0], &msg, 0), len);
}

static void nonsense_is_refused_and_its_descriptors_closed(void **state)
{
    struct upgrade_message m = {.op = UPGRADE_HOLD}, got;
    const size_t len = offsetof(struct upgrade_message, n_fds);
    unsigned fds = count_fds();
    for (unsigned n = 0; n <= 60; n += 30) {
        send_raw(&m, len - 1, n);
        assert_int_equal(upgrade_receive(ends[1], &got), -EBADMSG);
        send_raw(&m, len + 1, n);
        assert_int_equal(upgrade_receive(ends[1], &got), -EBADMSG);
        m.op = UPGRADE_OP_N;
        send_raw(&m, len, n);
        assert_int_equal(upgrade_receive(ends[1], &got), -EBADMSG);
        m.op = UPGRADE_HOLD;
        memset(m.text, 'x', sizeof m.text);
        send_raw(&m, len, n);
        assert_int_equal(upgrade_receive(ends[1], &got), -EBADMSG);
        memset(m.text, 0, sizeof m.text);
    }
    send_raw(&m, len, UPGRADE_FDS_MAX + 1);
    assert_int_equal(upgrade_receive(ends[1], &got), -EMFILE);
    assert_int_equal(count_fds(), fds);
}

static void every_op_has_a_name(void **state)
{
    for (unsigned i = 0; i < UPGRADE_OP_N; i++) {
        assert_non_null(upgrade_op_name(i));
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(upgrade_op_name(i), upgrade_op_name(k));
    }
    assert_string_equal(upgrade_op_name(UPGRADE_HOLD), "hold");
    assert_string_equal(upgrade_op_name(UPGRADE_FAILED), "failed");
    assert_string_equal(upgrade_op_name(UPGRADE_OP_N), "unknown");
}

static unsigned fds_at_first;

static int count_at_first(void **state)
{
    fds_at_first = count_fds();
    return 0;
}

static int nothing_leaks(void **state)
{
    return count_fds() == fds_at_first ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_process_sees_the_page),
        cmocka_unit_test(nobody_can_cut_it_short),
        cmocka_unit_test(a_word_is_set_once),
        cmocka_unit_test(two_that_decide_at_once_agree),
        cmocka_unit_test(a_page_that_makes_no_sense_is_refused),
        cmocka_unit_test(a_file_that_is_no_page_is_refused),
        cmocka_unit_test(a_plan_makes_a_good_page),
        cmocka_unit_test_setup_teardown(a_message_goes_either_way, with_ends, without_ends),
        cmocka_unit_test_setup_teardown(descriptors_come_in_order, with_ends, without_ends),
        cmocka_unit_test_setup_teardown(the_other_side_is_gone, with_ends, without_ends),
        cmocka_unit_test_setup_teardown(a_full_socket_says_so, with_ends, without_ends),
        cmocka_unit_test_setup_teardown(nonsense_is_refused_and_its_descriptors_closed, with_ends,
                                        without_ends),
        cmocka_unit_test(every_op_has_a_name),
    };
    return cmocka_run_group_tests(tests, count_at_first, nothing_leaks);
}
