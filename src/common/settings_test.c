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
#include <sys/stat.h>
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

static int send_one(uint64_t generation)
{
    return settings_send(pair[1], &(struct settings){.generation = generation, .files_fd = file});
}

static void a_descriptor_comes_with_its_number(void **state)
{
    struct settings got = {.generation = 7};
    char text[6] = "";

    assert_int_equal(settings_receive(pair[0], &got), -EAGAIN);
    assert_int_equal(got.generation, 7);
    assert_int_equal(write(file, "hello", 5), 5);
    assert_int_equal(send_one(UINT64_C(1) << 40), 0);
    assert_int_equal(settings_receive(pair[0], &got), 0);
    assert_true(got.files_fd >= 0 && got.files_fd != file);
    assert_true(got.generation == UINT64_C(1) << 40);
    assert_int_equal(got.n_listeners, 0);
    assert_int_equal(pread(got.files_fd, text, 5, 0), 5);
    assert_string_equal(text, "hello");
    assert_true(fcntl(got.files_fd, F_GETFD) & FD_CLOEXEC);
    settings_close(&got);
}

static bool is_same_file(int a, int b)
{
    struct stat of_a, of_b;
    return fstat(a, &of_a) == 0 && fstat(b, &of_b) == 0 && of_a.st_ino == of_b.st_ino;
}

/* Some with a descriptor, some without; each its own. */
static void listeners_come_with_theirs(void **state)
{
    int before = lowest_fd(), fds[CONFIG_LISTEN_MAX];
    struct settings s = {.generation = 3, .files_fd = file, .n_listeners = CONFIG_LISTEN_MAX}, got;

    for (unsigned i = 0; i < CONFIG_LISTEN_MAX; i++) {
        fds[i] = i % 3 == 1 ? -1 : memfd_create("socket", MFD_CLOEXEC);
        s.listeners[i] = (struct settings_listener){.since = UINT64_C(1) << 33 | i,
                                                    .socket = 1000000 + i,
                                                    .slot = (uint16_t)(CONFIG_LISTEN_MAX - 1 - i),
                                                    .made = (uint16_t)(65535 - i),
                                                    .fd = fds[i]};
    }
    assert_int_equal(settings_send(pair[1], &s), 0);
    assert_int_equal(settings_receive(pair[0], &got), 0);
    assert_int_equal(got.n_listeners, CONFIG_LISTEN_MAX);
    assert_true(is_same_file(got.files_fd, file));
    for (unsigned i = 0; i < CONFIG_LISTEN_MAX; i++) {
        const struct settings_listener *l = &got.listeners[i], *sent = &s.listeners[i];
        assert_true(l->since == sent->since && l->socket == sent->socket);
        assert_true(l->slot == sent->slot && l->made == sent->made);
        assert_true(fds[i] < 0 ? l->fd == -1 : is_same_file(l->fd, fds[i]));
    }
    settings_close(&got);
    for (unsigned i = 0; i < CONFIG_LISTEN_MAX; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    assert_int_equal(lowest_fd(), before);
}

static void they_come_in_order_and_are_all_taken_by_draining(void **state)
{
    struct settings got;
    int before = lowest_fd();

    for (uint64_t i = 1; i <= 5; i++)
        assert_int_equal(send_one(i), 0);
    for (uint64_t i = 1; i <= 2; i++) {
        assert_int_equal(settings_receive(pair[0], &got), 0);
        assert_int_equal(got.generation, i);
        settings_close(&got);
    }
    assert_int_equal(send(pair[1], "x", 1, 0), 1); /* one that is not ours does not stop it */
    struct settings with = {
        .generation = 6, .files_fd = file, .n_listeners = 1, .listeners = {{.socket = 1, .fd = file}}};
    assert_int_equal(settings_send(pair[1], &with), 0);
    settings_drain(pair[0]);
    assert_int_equal(settings_receive(pair[0], &got), -EAGAIN);
    assert_int_equal(lowest_fd(), before);
}

static void a_full_way_is_said_and_nothing_is_lost(void **state)
{
    struct settings got;
    uint64_t sent = 0;
    int r;

    while ((r = send_one(sent + 1)) == 0)
        sent++;
    assert_int_equal(r, -EAGAIN);
    assert_true(sent > 10);
    for (uint64_t i = 1; i <= sent; i++) {
        assert_int_equal(settings_receive(pair[0], &got), 0);
        assert_int_equal(got.generation, i);
        settings_close(&got);
    }
    assert_int_equal(settings_receive(pair[0], &got), -EAGAIN);
    assert_int_equal(send_one(1), 0);
}

static void what_is_not_ours_is_refused(void **state)
{
    static const char bytes[4096];
    struct settings got = {.generation = 3};

    for (size_t len = 1; len <= sizeof bytes; len += 1 + len / 8) {
        assert_int_equal(send(pair[1], bytes, len, 0), (int)len);
        assert_int_equal(settings_receive(pair[0], &got), -EBADMSG);
    }
    assert_int_equal(got.generation, 3);
}

/* Bytes of a message without listeners, with so many descriptors. */
static void send_raw(uint64_t n_listeners, unsigned n_fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(200 * sizeof(int))];
    } control = {.bytes = {0}};
    uint64_t head[2] = {9, n_listeners};
    int fds[200] = {0};
    struct iovec iov = {.iov_base = head, .iov_len = sizeof head};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = CMSG_SPACE(n_fds * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

    for (unsigned i = 0; i < n_fds; i++)
        fds[i] = file;
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    assert_int_equal(sendmsg(pair[1], &msg, 0), sizeof head);
}

static void another_number_of_descriptors_is_refused_and_none_leaks(void **state)
{
    static const unsigned wrong[] = {2, 3, 65, 66, 67, 200};
    struct settings got = {.generation = 3};
    int before = lowest_fd();

    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        send_raw(0, wrong[i]);
        assert_int_equal(settings_receive(pair[0], &got), -EBADMSG);
        assert_int_equal(lowest_fd(), before);
    }
    send_raw(1, 1); /* a listener that does not come */
    assert_int_equal(settings_receive(pair[0], &got), -EBADMSG);
    send_raw(UINT64_MAX, 1);
    assert_int_equal(settings_receive(pair[0], &got), -EBADMSG);
    assert_int_equal(lowest_fd(), before);
    assert_int_equal(got.generation, 3);
    send_raw(0, 1);
    assert_int_equal(settings_receive(pair[0], &got), 0);
    assert_int_equal(got.generation, 9);
    settings_close(&got);
}

static void a_slot_beyond_the_last_is_refused(void **state)
{
    int before = lowest_fd();
    struct settings s = {.generation = 1,
                         .files_fd = file,
                         .n_listeners = 1,
                         .listeners = {{.slot = CONFIG_LISTEN_MAX, .socket = 1, .fd = file}}};
    struct settings got;

    assert_int_equal(settings_send(pair[1], &s), 0);
    assert_int_equal(settings_receive(pair[0], &got), -EBADMSG);
    assert_int_equal(lowest_fd(), before);
}

static void a_closed_end_is_said(void **state)
{
    struct settings got;

    close(pair[1]);
    pair[1] = -1;
    assert_int_equal(settings_receive(pair[0], &got), -EPIPE);
    settings_drain(pair[0]); /* ends */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_pair, close_pair)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_descriptor_comes_with_its_number),
        TEST(listeners_come_with_theirs),
        TEST(they_come_in_order_and_are_all_taken_by_draining),
        TEST(a_full_way_is_said_and_nothing_is_lost),
        TEST(what_is_not_ours_is_refused),
        TEST(another_number_of_descriptors_is_refused_and_none_leaks),
        TEST(a_slot_beyond_the_last_is_refused),
        TEST(a_closed_end_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
