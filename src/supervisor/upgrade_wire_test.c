// SPDX-License-Identifier: MIT
#include "supervisor/upgrade_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "supervisor/upgrade_offer.h"

static int ends[2];
static struct upgrade_wire w;

static int set_up(void **state)
{
    return upgrade_wire_open(ends);
}

static int tear_down(void **state)
{
    for (unsigned i = 0; i < 2; i++)
        if (ends[i] >= 0)
            close(ends[i]);
    return 0;
}

static void a_step_arrives_with_descriptors(void **state)
{
    struct transfer_course more = {.n = 7, .clients = 8}, got;
    int fds[] = {ends[0], ends[1]};
    char text[16];

    assert_int_equal(upgrade_wire_receive(ends[1], &w), -EAGAIN);
    assert_int_equal(upgrade_wire_step(ends[0], UPGRADE_STEP_READY, &more, "line\nof text", fds, 2), 0);
    assert_int_equal(upgrade_wire_receive(ends[1], &w), 0);
    assert_int_equal(w.type, TRANSFER_TYPE_course);
    assert_int_equal(transfer_get_course(w.fields, &got), 0);
    assert_int_equal(got.step, UPGRADE_STEP_READY);
    assert_int_equal(got.n, 7);
    assert_int_equal(got.clients, 8);
    assert_string_equal(upgrade_wire_text(got.text, text, sizeof text), "line of text");
    assert_string_equal(upgrade_wire_text(got.text, text, 5), "line");
    assert_int_equal(w.n_fds, 2);
    assert_true(fcntl(w.fds[1], F_GETFD) & FD_CLOEXEC);
    int one = w.fds[0];
    upgrade_wire_close(&w);
    assert_int_equal(fcntl(one, F_GETFD), -1);
    close(ends[0]);
    ends[0] = -1;
    assert_int_equal(upgrade_wire_receive(ends[1], &w), -EPIPE);
    assert_int_equal(upgrade_wire_step(ends[1], UPGRADE_STEP_READY, NULL, NULL, NULL, 0), -EPIPE);
}

static void the_last_word_of_one_that_has_not_read_all_is_heard(void **state)
{
    struct transfer_course got;
    assert_int_equal(upgrade_wire_step(ends[1], UPGRADE_STEP_READY, NULL, NULL, NULL, 0), 0);
    assert_int_equal(upgrade_wire_step(ends[0], UPGRADE_STEP_FAILED, NULL, NULL, NULL, 0), 0);
    close(ends[0]);
    ends[0] = -1;
    assert_int_equal(upgrade_wire_receive(ends[1], &w), 0);
    assert_int_equal(transfer_get_course(w.fields, &got), 0);
    assert_int_equal(got.step, UPGRADE_STEP_FAILED);
    assert_int_equal(upgrade_wire_receive(ends[1], &w), -EPIPE);
}

static int heard(const void *bytes, size_t len)
{
    assert_int_equal(send(ends[0], bytes, len, 0), len);
    return upgrade_wire_receive(ends[1], &w);
}

static void what_makes_no_sense_is_refused(void **state)
{
    static uint8_t big[UPGRADE_WIRE_BYTES_MAX + 1];
    const uint8_t unknown[12] = {99, 0, 1}, of_shards[12] = {4, 0, 1}, too_long[12] = {20, 0, 1, [8] = 1};

    assert_int_equal(heard("short", 5), -EBADMSG);
    assert_int_equal(heard(unknown, sizeof unknown), -EPROTO);
    assert_int_equal(heard(of_shards, sizeof of_shards), -EPROTO);
    assert_int_equal(heard(too_long, sizeof too_long), -EBADMSG);
    assert_int_equal(heard(big, sizeof big), -EBADMSG);
}

static int offer(struct upgrade_offer *o, const char **ret_why)
{
    upgrade_wire_step(ends[0], UPGRADE_STEP_OFFERED, NULL, NULL, NULL, 0);
    return upgrade_offer_receive(ends[1], o, ret_why);
}

static void put_node(const struct transfer_offer *node)
{
    struct bytes record = {0};
    transfer_put_offer(&record, node);
    assert_int_equal(upgrade_wire_send(ends[0], &record, NULL, 0), 0);
    bytes_fini(&record);
}

static void an_offer_is_looked_at(void **state)
{
    static struct upgrade_offer o;
    uint8_t home[sizeof o.home.shard] = {0};
    const char *why = "";
    struct transfer_offer good = {
        .n_shards = 2, .edges = 3, .links = 1, .home = {home, sizeof home}, .clients = 5};
    struct transfer_offer bad[] = {good, good, good, good, good};

    assert_int_equal(offer(&o, &why), -EBADMSG); /* without a node */
    put_node(&good);
    assert_int_equal(offer(&o, &why), 0);
    assert_int_equal(o.n_shards, 2);
    assert_int_equal(o.clients, 5);
    upgrade_offer_close(&o);
    bad[0].n_shards = 65;
    bad[1].edges = 4;
    bad[2].links = 0;
    bad[3].home.len--;
    bad[4].n_shards = 0;
    for (unsigned i = 0; i < 5; i++) {
        put_node(&bad[i]);
        assert_int_equal(upgrade_offer_receive(ends[1], &o, &why), -EBADMSG);
    }
    home[77] = 64;
    put_node(&good);
    assert_int_equal(upgrade_offer_receive(ends[1], &o, &why), -EBADMSG);
    const uint8_t unknown[12] = {21, 0, 1};
    send(ends[0], unknown, sizeof unknown, 0);
    assert_int_equal(upgrade_offer_receive(ends[1], &o, &why), -EPROTO);
    assert_non_null(strstr(why, "another version"));
}

static void sockets_without_descriptors_are_none(void **state)
{
    static struct upgrade_offer o;
    const char *why = "";
    struct bytes record = {0};
    struct transfer_offer_socket s = {.kind = UPGRADE_SOCKET_INTERNAL};

    transfer_put_offer_socket(&record, &s);
    upgrade_wire_send(ends[0], &record, NULL, 0);
    assert_int_equal(upgrade_offer_receive(ends[1], &o, &why), -EBADMSG);
    /* Two internal ports; then a kind that is not known. */
    upgrade_wire_send(ends[0], &record, &ends[0], 1);
    upgrade_wire_send(ends[0], &record, &ends[0], 1);
    assert_int_equal(upgrade_offer_receive(ends[1], &o, &why), -EBADMSG);
    bytes_clear(&record);
    s.kind = UPGRADE_SOCKET_KIND_N;
    transfer_put_offer_socket(&record, &s);
    upgrade_wire_send(ends[0], &record, &ends[0], 1);
    assert_int_equal(upgrade_offer_receive(ends[1], &o, &why), -EPROTO);
    bytes_fini(&record);
}

static void ids_are_looked_at(void **state)
{
    static struct upgrade_offer o;
    uint8_t left[8 * SHARD_ID_BLOCKS] = {[8] = 2, [9] = 1};
    struct transfer_offer_ids good = {.shard = 3, .next_seq = 9, .left_unix_s = {left, sizeof left}};
    struct transfer_offer_ids bad[] = {good, good, good};
    struct bytes record = {0};

    bad[0].shard = 64;
    bad[1].next_seq = CONNECTION_SEQ_MASK + 1;
    bad[2].left_unix_s.len--;
    for (unsigned i = 0; i < 3; i++) {
        bytes_clear(&record);
        transfer_put_offer_ids_fields(&record, &bad[i]);
        assert_int_equal(upgrade_offer_take_ids(&o, (struct slice){record.data, record.len}), -EBADMSG);
    }
    bytes_clear(&record);
    transfer_put_offer_ids_fields(&record, &good);
    assert_int_equal(upgrade_offer_take_ids(&o, (struct slice){record.data, record.len}), 0);
    assert_true(o.ids[3].known);
    assert_int_equal(o.ids[3].ids.next_seq, 9);
    assert_int_equal(o.ids[3].ids.left_unix_s[1], 0x102);
    bytes_fini(&record);
}

#define WITH_ALL(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ALL(the_last_word_of_one_that_has_not_read_all_is_heard),
        WITH_ALL(a_step_arrives_with_descriptors),
        WITH_ALL(what_makes_no_sense_is_refused),
        WITH_ALL(an_offer_is_looked_at),
        WITH_ALL(sockets_without_descriptors_are_none),
        WITH_ALL(ids_are_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
