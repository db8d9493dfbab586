// SPDX-License-Identifier: MIT
/* Senders are processes of their own where they may have to wait. */
#include "transfer/transfer_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SECOND UINT64_C(1000000000)

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

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

static int ends[2];
static unsigned fds_at_first;

static int with_ends(void **state)
{
    fds_at_first = count_fds();
    return transfer_open(ends);
}

static void close_end(int i)
{
    if (ends[i] >= 0)
        close(ends[i]);
    ends[i] = -1;
}

/* And nothing has leaked. */
static int without_ends(void **state)
{
    close_end(0);
    close_end(1);
    return count_fds() == fds_at_first ? 0 : -1;
}

static int sized_fd(off_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    return fd;
}

static struct transfer_sender *sender(unsigned me, uint64_t wait_ns)
{
    struct transfer_sender *s = transfer_sender_new(me, &ends[1], 1, now_ns() + wait_ns);
    assert_non_null(s);
    return s;
}

/* A client with that id, whose session is so long and of a byte that follows from the id. */
static int put_client(struct transfer_sender *s, unsigned to, uint64_t id, size_t session_len, int handle)
{
    static uint8_t session[8 << 20];
    struct bytes out = {0};
    memset(session, (int)(id % 251), session_len);
    struct transfer_client c = {.id = id, .session = {session, session_len}};
    assert_true(transfer_put_client(&out, &c));
    struct transfer_sink *sink = transfer_sender_sink(s);
    int r = sink->put(sink, to, (struct slice){out.data, out.len}, handle);
    bytes_fini(&out);
    return r;
}

static void assert_client(const struct transfer_record *rec, uint64_t id, size_t session_len)
{
    struct transfer_client c;
    assert_int_equal(rec->type, TRANSFER_TYPE_client);
    assert_int_equal(transfer_get_client(rec->fields, &c), 0);
    assert_int_equal(c.id, id);
    assert_int_equal(c.session.len, session_len);
    for (size_t i = 0; i < session_len; i++)
        if (c.session.data[i] != id % 251)
            fail();
}

static void assert_sized(int fd, off_t size)
{
    assert_true(fd >= 0);
    assert_int_equal(lseek(fd, 0, SEEK_END), size);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    close(fd);
}

static void records_come_with_their_descriptors(void **state)
{
    struct transfer_receiver *r = transfer_receiver_new(ends[0]);
    struct transfer_sender *s = sender(7, SECOND);
    struct transfer_record rec;
    unsigned from;
    int fd = sized_fd(5);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), 0);
    assert_int_equal(put_client(s, 0, 1, 10, -1), 0);
    assert_int_equal(put_client(s, 0, 2, 0, fd), 0);
    assert_int_equal(put_client(s, 0, 3, 20, -1), 0);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), 0); /* only collected */
    assert_int_equal(transfer_sender_flush(s), 0);
    assert_int_equal(transfer_sender_flush(s), 0); /* nothing more */
    close(fd);
    assert_int_equal(transfer_sender_records(s, 0), 3);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), 1);
    assert_int_equal(from, 7);
    assert_int_equal(rec.handle, -1);
    assert_client(&rec, 1, 10);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), 1);
    assert_client(&rec, 2, 0);
    assert_sized(rec.handle, 5);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), 1);
    assert_client(&rec, 3, 20);
    assert_int_equal(rec.handle, -1);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), 0);
    transfer_sender_free(s);
    transfer_receiver_free(r);
}

static void there_is_room_for_several_messages(void **state)
{
    struct transfer_sender *s = sender(0, SECOND / 100);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(put_client(s, 0, 1, TRANSFER_MESSAGE_MAX - 100, -1), 0);
    assert_int_equal(transfer_sender_flush(s), 0);
    transfer_sender_free(s);
    assert_true((fcntl(ends[0], F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(ends[0], F_GETFD) & fcntl(ends[1], F_GETFD) & FD_CLOEXEC) != 0);
}

static bool wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 10000) == 1;
}

/* The next one, waiting for it; 1, or what transfer_receiver_next says. */
static int next_wait(struct transfer_receiver *r, unsigned *ret_from, struct transfer_record *ret)
{
    for (;;) {
        int n = transfer_receiver_next(r, ret_from, ret);
        if (n != 0)
            return n;
        assert_true(wait_readable(ends[0]));
    }
}

static int status_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* The sizes that the i-th record of a sender has: around a message's, and far more. */
static size_t size_of(unsigned i)
{
    static const size_t sizes[] = {
        0,
        100,
        3000,
        TRANSFER_MESSAGE_MAX / 2,
        TRANSFER_MESSAGE_MAX - 64,
        TRANSFER_MESSAGE_MAX,
        5 * TRANSFER_MESSAGE_MAX + 1,
        20,
        8 << 20,
        7,
    };
    /* Large ones seldom. */
    return i % 8 != 0 ? i % 300 : sizes[i / 8 % (sizeof sizes / sizeof sizes[0])];
}

static bool has_fd(unsigned i)
{
    return i % 3 == 0 || i % 8 == 0;
}

enum { RECORDS = 1200 };

static int send_all(unsigned me)
{
    struct transfer_sender *s = sender(me, 20 * SECOND);
    int r = 0;
    for (unsigned i = 0; i < RECORDS && r == 0; i++) {
        int fd = has_fd(i) ? sized_fd(i) : -1; /* stays open until it is sent */
        r = put_client(s, 0, me * 10000 + i, size_of(i), fd);
    }
    if (r == 0)
        r = transfer_sender_flush(s);
    transfer_sender_free(s);
    return -r;
}

static void several_senders_are_told_apart(void **state)
{
    enum { SENDERS = 3 };
    static const unsigned numbers[SENDERS] = {0, 5, 63};
    unsigned at[64] = {0}, from, switches = 0, last = 99;
    struct transfer_receiver *r = transfer_receiver_new(ends[0]);
    struct transfer_record rec;
    pid_t pids[SENDERS];
    int n;
    for (unsigned i = 0; i < SENDERS; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            close_end(0);
            _exit(send_all(numbers[i]));
        }
    }
    close_end(1);
    while ((n = next_wait(r, &from, &rec)) == 1) {
        unsigned i = at[from]++;
        assert_client(&rec, from * 10000 + i, size_of(i));
        if (has_fd(i))
            assert_sized(rec.handle, i);
        else
            assert_int_equal(rec.handle, -1);
        switches += from != last;
        last = from;
    }
    assert_int_equal(n, -EPIPE);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), -EPIPE);
    for (unsigned i = 0; i < SENDERS; i++) {
        assert_int_equal(at[numbers[i]], RECORDS);
        assert_int_equal(status_of(pids[i]), 0);
    }
    assert_true(switches > 10);
    transfer_receiver_free(r);
}

static void more_descriptors_than_a_message_has(void **state)
{
    struct transfer_receiver *r = transfer_receiver_new(ends[0]);
    struct transfer_sender *s = sender(1, SECOND);
    struct transfer_record rec;
    unsigned from;
    int fd = sized_fd(9);
    for (unsigned i = 0; i < 2 * TRANSFER_FDS_MAX + 3; i++)
        assert_int_equal(put_client(s, 0, i, 1, fd), 0);
    assert_int_equal(transfer_sender_flush(s), 0);
    close(fd);
    for (unsigned i = 0; i < 2 * TRANSFER_FDS_MAX + 3; i++) {
        assert_int_equal(transfer_receiver_next(r, &from, &rec), 1);
        assert_client(&rec, i, 1);
        assert_sized(rec.handle, 9);
    }
    assert_int_equal(transfer_receiver_next(r, &from, &rec), 0);
    transfer_sender_free(s);
    transfer_receiver_free(r);
}

static void each_receiver_gets_its_own(void **state)
{
    enum { N = 3 };
    int pairs[N][2], to[N];
    struct transfer_record rec;
    unsigned from;
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(transfer_open(pairs[i]), 0);
        to[i] = pairs[i][1];
    }
    struct transfer_sender *s = transfer_sender_new(2, to, N, now_ns() + SECOND);
    struct transfer_plan plan = {.n_shards = N};
    struct bytes out = {0};
    struct transfer_end end = {.phase = 1};
    for (unsigned i = 0; i < 10; i++)
        for (unsigned k = 0; k < i; k++)
            assert_int_equal(put_client(s, i % N, i, 1, -1), 0);
    assert_true(transfer_put_end(&out, &end));
    assert_int_equal(transfer_put_all(transfer_sender_sink(s), &plan, (struct slice){out.data, out.len}), 0);
    bytes_fini(&out);
    assert_int_equal(transfer_sender_flush(s), 0);
    for (unsigned i = 0; i < N; i++) {
        struct transfer_receiver *r = transfer_receiver_new(pairs[i][0]);
        uint64_t n = 0;
        while (transfer_receiver_next(r, &from, &rec) == 1) {
            struct transfer_client c;
            n++;
            assert_int_equal(from, 2);
            if (rec.type != TRANSFER_TYPE_client)
                continue;
            assert_int_equal(transfer_get_client(rec.fields, &c), 0);
            assert_int_equal(c.id % N, i);
        }
        assert_int_equal(rec.type, TRANSFER_TYPE_end);
        assert_int_equal(n, transfer_sender_records(s, i));
        transfer_receiver_free(r);
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
    transfer_sender_free(s);
}

static void a_receiver_that_is_gone_is_an_error_for_good(void **state)
{
    for (unsigned unread = 0; unread < 2; unread++) {
        struct transfer_sender *s = sender(0, 10 * SECOND);
        assert_int_equal(put_client(s, 0, 1, 10, -1), 0);
        if (unread == 1)
            assert_int_equal(transfer_sender_flush(s), 0);
        close_end(0);
        assert_int_equal(put_client(s, 0, 2, TRANSFER_MESSAGE_MAX, -1), -EPIPE);
        assert_int_equal(put_client(s, 0, 3, 10, -1), -EPIPE);
        assert_int_equal(transfer_sender_flush(s), -EPIPE);
        transfer_sender_free(s);
        close_end(1);
        assert_int_equal(transfer_open(ends), 0);
    }
}

static void one_that_goes_while_we_wait(void **state)
{
    struct transfer_sender *s = sender(0, 10 * SECOND);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) { /* has the receiving end, and never reads */
        poll(NULL, 0, 100);
        _exit(0);
    }
    close_end(0);
    int r = 0;
    while (r == 0)
        r = put_client(s, 0, 1, TRANSFER_MESSAGE_MAX, -1);
    assert_int_equal(r, -EPIPE);
    assert_int_equal(status_of(pid), 0);
    transfer_sender_free(s);
}

static void one_that_does_not_read_is_waited_for_until_the_deadline(void **state)
{
    uint64_t begin = now_ns();
    struct transfer_sender *s = sender(0, SECOND / 5);
    int r = 0;
    while (r == 0)
        r = put_client(s, 0, 1, TRANSFER_MESSAGE_MAX, -1);
    assert_int_equal(r, -ETIMEDOUT);
    assert_in_range(now_ns() - begin, SECOND / 5, 3 * SECOND);
    assert_int_equal(put_client(s, 0, 1, 1, -1), -ETIMEDOUT);
    assert_int_equal(transfer_sender_flush(s), -ETIMEDOUT);
    transfer_sender_free(s);
}

static void after_the_deadline_nothing_goes(void **state)
{
    struct transfer_sender *s = sender(0, 0);
    assert_int_equal(put_client(s, 0, 1, 1, -1), 0);
    assert_int_equal(transfer_sender_flush(s), -ETIMEDOUT);
    transfer_sender_free(s);
}

/* As a user without privileges, whose descriptors on their way are counted. */
static int send_many_descriptors(uint64_t wait_ns)
{
    const struct rlimit few = {100, 100};
    uint64_t begin = now_ns();
    close_end(0);
    if (geteuid() == 0 && setuid(65534) < 0)
        return 100;
    struct transfer_sender *s = sender(0, wait_ns);
    if (setrlimit(RLIMIT_NOFILE, &few) < 0)
        return 101;
    int r = 0;
    for (unsigned i = 0; i < 10 * TRANSFER_FDS_MAX && r == 0; i++)
        r = put_client(s, 0, i, 1, 0);
    if (r == 0)
        r = transfer_sender_flush(s);
    transfer_sender_free(s);
    /* That it had to wait shows that it was refused. */
    return r < 0 ? -r : now_ns() - begin > SECOND / 5 ? 0 : 102;
}

static pid_t fork_sender_of_many(uint64_t wait_ns)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(send_many_descriptors(wait_ns));
    close_end(1);
    return pid;
}

static void too_many_descriptors_on_their_way_are_waited_for(void **state)
{
    struct transfer_receiver *r = transfer_receiver_new(ends[0]);
    struct transfer_record rec;
    unsigned from, got = 0;
    pid_t pid = fork_sender_of_many(10 * SECOND);
    poll(NULL, 0, 300);
    while (next_wait(r, &from, &rec) == 1) {
        assert_client(&rec, got++, 1);
        assert_true(rec.handle >= 0);
        close(rec.handle);
    }
    assert_int_equal(status_of(pid), 0);
    assert_int_equal(got, 10 * TRANSFER_FDS_MAX);
    transfer_receiver_free(r);
}

static void but_not_longer_than_the_deadline(void **state)
{
    pid_t pid = fork_sender_of_many(SECOND / 5);
    assert_int_equal(status_of(pid), ETIMEDOUT);
}

static void without_descriptors_of_its_own_the_receiver_says_so(void **state)
{
    struct transfer_receiver *r = transfer_receiver_new(ends[0]);
    struct transfer_sender *s = sender(0, SECOND);
    struct transfer_record rec;
    struct rlimit before, few;
    unsigned from;
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(put_client(s, 0, i, 1, ends[0]), 0);
    assert_int_equal(transfer_sender_flush(s), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = (struct rlimit){count_fds() + 20, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), -EMFILE);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), -EMFILE);
    transfer_receiver_free(r);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    transfer_sender_free(s);
}

static void what_was_not_taken_is_closed(void **state)
{
    struct transfer_receiver *r = transfer_receiver_new(ends[0]);
    struct transfer_sender *s = sender(3, SECOND);
    struct transfer_record rec;
    unsigned from;
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(put_client(s, 0, i, 1, ends[0]), 0);
    assert_int_equal(put_client(s, 0, 5, 2 * TRANSFER_MESSAGE_MAX, ends[0]), 0); /* its end is never sent */
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(transfer_receiver_next(r, &from, &rec), 1);
        close(rec.handle);
    }
    transfer_receiver_free(r); /* with the rest of the first message; others are in the socket */
    r = transfer_receiver_new(ends[0]);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), 0); /* with half of the large one */
    transfer_receiver_free(r);
    transfer_sender_free(s);
}

static void one_that_dies_within_a_record(void **state)
{
    struct transfer_receiver *r = transfer_receiver_new(ends[0]);
    struct transfer_sender *s = sender(3, SECOND);
    struct transfer_record rec;
    unsigned from;
    assert_int_equal(put_client(s, 0, 5, 2 * TRANSFER_MESSAGE_MAX, ends[0]), 0);
    transfer_sender_free(s);
    close_end(1);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), -EPIPE);
    transfer_receiver_free(r);
}

static void a_record_may_be_as_large_as_the_limit(void **state)
{
    struct transfer_sender *s = sender(0, SECOND);
    struct transfer_sink *sink = transfer_sender_sink(s);
    /* Not touched: it is refused before. */
    uint8_t *large = mmap(NULL, TRANSFER_RECORD_MAX + 1, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(large, MAP_FAILED);
    assert_int_equal(sink->put(sink, 0, (struct slice){large, TRANSFER_RECORD_MAX + 1}, -1), -EMSGSIZE);
    assert_int_equal(transfer_sender_records(s, 0), 0);
    munmap(large, TRANSFER_RECORD_MAX + 1);
    transfer_sender_free(s);
}

/* ---- what others may send */

struct raw {
    uint8_t bytes[512];
    size_t len;
};

static void raw_message(struct raw *m, uint32_t magic, unsigned from, unsigned n_fds)
{
    transfer__put_u32(m->bytes, magic);
    transfer__put_u16(m->bytes + 4, (uint16_t)from);
    transfer__put_u16(m->bytes + 6, (uint16_t)n_fds);
    m->len = 8;
}

static void raw_piece(struct raw *m, size_t len, uint32_t flags, const void *data, size_t data_len)
{
    transfer__put_u32(m->bytes + m->len, (uint32_t)len);
    transfer__put_u32(m->bytes + m->len + 4, flags);
    memcpy(m->bytes + m->len + 8, data, data_len);
    m->len += 8 + data_len;
}

static void raw_send(const struct raw *m, unsigned n_fds)
{
    struct iovec iov = {(void *)(uintptr_t)m->bytes, m->len};
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(253 * sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds > 0) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_LEN(n_fds * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int)); /* descriptor 0, so many times */
    }
    assert_int_equal(sendmsg(ends[1], &msg, 0), m->len);
}

/* With descriptors that nobody may keep. */
static void assert_refused(const struct raw *m, unsigned n_fds, int error)
{
    struct transfer_receiver *r = transfer_receiver_new(ends[0]);
    struct transfer_record rec;
    unsigned from, fds = count_fds();
    raw_send(m, n_fds);
    int n = transfer_receiver_next(r, &from, &rec);
    if (n == 1) { /* of two records the first may be fine */
        if (rec.handle >= 0)
            close(rec.handle);
        n = transfer_receiver_next(r, &from, &rec);
    }
    assert_int_equal(n, error);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), error);
    transfer_receiver_free(r);
    assert_int_equal(count_fds(), fds);
}

enum { FIRST = TRANSFER_PIECE_FIRST, LAST = TRANSFER_PIECE_LAST, FD = TRANSFER_PIECE_FD };

/* A record `end` that has two bytes of fields. */
static const uint8_t end_record[14] = {8, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 1};

static void the_message_of_a_stranger(void **state)
{
    static const uint8_t large[12] = {8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x10},
                         unknown[12] = {0xF0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0},
                         flags[12] = {8, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0};
    struct raw m;
#define REFUSED(magic, from, head_fds, fds, error, ...)                                                      \
    do {                                                                                                     \
        raw_message(&m, magic, from, head_fds);                                                              \
        __VA_ARGS__;                                                                                         \
        assert_refused(&m, fds, error);                                                                      \
    } while (0)
#define PIECE(len, piece_flags, data, data_len) raw_piece(&m, len, piece_flags, data, data_len)
    REFUSED(1, 0, 0, 0, -EBADMSG, );
    REFUSED(1, 0, 3, 3, -EBADMSG, );
    REFUSED(TRANSFER_MAGIC, 64, 3, 3, -EBADMSG, PIECE(14, FIRST | LAST, end_record, 14));
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, m.len = 7);
    REFUSED(TRANSFER_MAGIC, 0, 2, 1, -EBADMSG, PIECE(14, FIRST | LAST, end_record, 14));
    REFUSED(TRANSFER_MAGIC, 0, 0, 1, -EBADMSG, PIECE(14, FIRST | LAST, end_record, 14));
    /* Descriptors that no record has; a record that has none. */
    REFUSED(TRANSFER_MAGIC, 0, 1, 1, -EBADMSG, PIECE(14, FIRST | LAST, end_record, 14));
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(14, FIRST | LAST | FD, end_record, 14));
    REFUSED(TRANSFER_MAGIC, 0, 253, 253, -EMFILE, PIECE(14, FIRST | LAST | FD, end_record, 14));
    /* Pieces. */
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(15, FIRST | LAST, end_record, 14));
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(UINT32_MAX, FIRST | LAST, end_record, 14));
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(13, FIRST | LAST, end_record, 13));
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(11, FIRST, end_record, 11));
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(14, FIRST, end_record, 14)); /* it was the last */
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(14, LAST, end_record, 14));
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(14, 0, end_record, 14));
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(14, 8 | FIRST | LAST, end_record, 14));
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(0, FIRST | LAST, end_record, 0));
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, m.bytes[m.len++] = 0);
    REFUSED(TRANSFER_MAGIC, 0, 1, 1, -EBADMSG, PIECE(12, FIRST | FD, end_record, 12);
            PIECE(14, FIRST | LAST, end_record, 14)); /* before the first had ended */
    REFUSED(TRANSFER_MAGIC, 0, 1, 1, -EBADMSG, PIECE(12, FIRST | FD, end_record, 12);
            PIECE(3, LAST, end_record, 3)); /* too long */
    REFUSED(TRANSFER_MAGIC, 0, 1, 1, -EBADMSG, PIECE(12, FIRST | FD, end_record, 12);
            PIECE(0, 0, end_record, 0)); /* without end */
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EBADMSG, PIECE(14, FIRST | LAST, end_record, 14);
            PIECE(15, FIRST | LAST, end_record, 14)); /* behind a good one */
    /* Records. */
    REFUSED(TRANSFER_MAGIC, 0, 0, 0, -EMSGSIZE, PIECE(12, FIRST, large, 12));
    REFUSED(TRANSFER_MAGIC, 0, 2, 2, -EBADMSG, PIECE(12, FIRST | LAST | FD, unknown, 12));
    REFUSED(TRANSFER_MAGIC, 0, 2, 2, -EBADMSG, PIECE(12, FIRST | LAST | FD, flags, 12));
#undef PIECE
#undef REFUSED
}

static void a_message_that_is_too_long(void **state)
{
    struct transfer_receiver *r = transfer_receiver_new(ends[0]);
    struct transfer_record rec;
    unsigned from;
    static uint8_t bytes[TRANSFER_MESSAGE_MAX + 1];
    transfer__put_u32(bytes, TRANSFER_MAGIC);
    assert_int_equal(send(ends[1], bytes, sizeof bytes, 0), sizeof bytes);
    assert_int_equal(transfer_receiver_next(r, &from, &rec), -EBADMSG);
    transfer_receiver_free(r);
}

static void pieces_of_a_byte_each(void **state)
{
    struct transfer_receiver *r = transfer_receiver_new(ends[0]);
    struct transfer_record rec;
    struct transfer_end end;
    struct raw m;
    unsigned from;
    raw_message(&m, TRANSFER_MAGIC, 9, 1);
    raw_piece(&m, 12, FIRST | FD, end_record, 12);
    raw_send(&m, 1);
    for (unsigned i = 12; i < sizeof end_record; i++) {
        assert_int_equal(transfer_receiver_next(r, &from, &rec), 0);
        raw_message(&m, TRANSFER_MAGIC, 9, 0);
        raw_piece(&m, 1, i == sizeof end_record - 1 ? LAST : 0, end_record + i, 1);
        raw_send(&m, 0);
    }
    assert_int_equal(transfer_receiver_next(r, &from, &rec), 1);
    assert_int_equal(from, 9);
    assert_int_equal(transfer_get_end(rec.fields, &end), 0);
    assert_int_equal(end.phase, 1);
    assert_true(rec.handle >= 0);
    close(rec.handle);
    transfer_receiver_free(r);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, with_ends, without_ends)
    const struct CMUnitTest tests[] = {
        TEST(records_come_with_their_descriptors),
        TEST(there_is_room_for_several_messages),
        TEST(several_senders_are_told_apart),
        TEST(more_descriptors_than_a_message_has),
        TEST(each_receiver_gets_its_own),
        TEST(a_receiver_that_is_gone_is_an_error_for_good),
        TEST(one_that_goes_while_we_wait),
        TEST(one_that_does_not_read_is_waited_for_until_the_deadline),
        TEST(after_the_deadline_nothing_goes),
        TEST(too_many_descriptors_on_their_way_are_waited_for),
        TEST(but_not_longer_than_the_deadline),
        TEST(without_descriptors_of_its_own_the_receiver_says_so),
        TEST(what_was_not_taken_is_closed),
        TEST(one_that_dies_within_a_record),
        TEST(a_record_may_be_as_large_as_the_limit),
        TEST(the_message_of_a_stranger),
        TEST(a_message_that_is_too_long),
        TEST(pieces_of_a_byte_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
