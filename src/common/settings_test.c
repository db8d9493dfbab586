// SPDX-License-Identifier: MIT
#include "common/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static int pair[2], file;

static int open_pair(void **state)
{
    file = memfd_create("test", MFD_CLOEXEC);
    return file < 0 || settings_open(pair) < 0;
}

static int close_pair(void **state)
{
    for (unsigned i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    close(file);
    return 0;
}

static int lowest_fd(void)
{
    int fd = dup(file);
    assert_true(fd >= 0);
    close(fd);
    return fd;
}

static void a_descriptor_comes_with_its_number(void **state)
{
    uint64_t generation = 7;
    char text[6] = "";

    assert_int_equal(settings_receive(pair[0], &generation), -EAGAIN);
    assert_int_equal(generation, 7);
    assert_int_equal(write(file, "hello", 5), 5);
    assert_int_equal(settings_send(pair[1], UINT64_C(1) << 40, file), 0);
    int fd = settings_receive(pair[0], &generation);
    assert_true(fd >= 0 && fd != file);
    assert_true(generation == UINT64_C(1) << 40);
    assert_int_equal(pread(fd, text, 5, 0), 5);
    assert_string_equal(text, "hello");
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
}

static void they_come_in_order_and_are_all_taken_by_draining(void **state)
{
    uint64_t generation;
    int before = lowest_fd();

    for (uint64_t i = 1; i <= 5; i++)
        assert_int_equal(settings_send(pair[1], i, file), 0);
    for (uint64_t i = 1; i <= 2; i++) {
        int fd = settings_receive(pair[0], &generation);
        assert_true(fd >= 0);
        assert_int_equal(generation, i);
        close(fd);
    }
    assert_int_equal(send(pair[1], "x", 1, 0), 1); /* one that is not ours does not stop it */
    assert_int_equal(settings_send(pair[1], 6, file), 0);
    settings_drain(pair[0]);
    assert_int_equal(settings_receive(pair[0], &generation), -EAGAIN);
    assert_int_equal(lowest_fd(), before);
}

static void a_full_way_is_said_and_nothing_is_lost(void **state)
{
    uint64_t generation, sent = 0;
    int r;

    while ((r = settings_send(pair[1], sent + 1, file)) == 0)
        sent++;
    assert_int_equal(r, -EAGAIN);
    assert_true(sent > 10);
    for (uint64_t i = 1; i <= sent; i++) {
        int fd = settings_receive(pair[0], &generation);
        assert_true(fd >= 0);
        assert_int_equal(generation, i);
        close(fd);
    }
    assert_int_equal(settings_receive(pair[0], &generation), -EAGAIN);
    assert_int_equal(settings_send(pair[1], 1, file), 0);
}

static void what_is_not_ours_is_refused(void **state)
{
    static const char bytes[16];
    uint64_t generation = 3;

    for (size_t len = 1; len <= sizeof bytes; len++) {
        assert_int_equal(send(pair[1], bytes, len, 0), (int)len);
        assert_int_equal(settings_receive(pair[0], &generation), -EBADMSG);
    }
    assert_int_equal(generation, 3);
}

static void more_than_one_descriptor_is_refused_and_none_leaks(void **state)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control = {.bytes = {0}};
    uint64_t generation = 3;
    int fds[2] = {file, file}, before = lowest_fd();
    struct iovec iov = {.iov_base = &generation, .iov_len = sizeof generation};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(c), fds, sizeof fds);
    assert_int_equal(sendmsg(pair[1], &msg, 0), sizeof generation);
    assert_int_equal(settings_receive(pair[0], &generation), -EBADMSG);
    assert_int_equal(lowest_fd(), before);
}

static void a_closed_end_is_said(void **state)
{
    uint64_t generation;

    close(pair[1]);
    pair[1] = -1;
    assert_int_equal(settings_receive(pair[0], &generation), -EPIPE);
    settings_drain(pair[0]); /* ends */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_descriptor_comes_with_its_number, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(they_come_in_order_and_are_all_taken_by_draining, open_pair,
                                        close_pair),
        cmocka_unit_test_setup_teardown(a_full_way_is_said_and_nothing_is_lost, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(what_is_not_ours_is_refused, open_pair, close_pair),
        cmocka_unit_test_setup_teardown(more_than_one_descriptor_is_refused_and_none_leaks, open_pair,
                                        close_pair),
        cmocka_unit_test_setup_teardown(a_closed_end_is_said, open_pair, close_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
