// SPDX-License-Identifier: MIT
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "estate/estate.h"
#include "session/directory_priv.h"

#define N      300
#define STR(s) (s), sizeof(s) - 1

struct fixture {
    struct estate *estate;
    struct directory *d;
    struct member m[N];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    if (!f) {
        return -1;
    }
    int err;
    f->estate = estate_open(NULL, 0, N, (size_t)1 << 20, &err);
    if (!f->estate) {
        return -1;
    }
    f->d = directory_new(3, 1, f->estate);
    *state = f;
    return f->d ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    const char *wrong = directory_check(f->d);
    for (int i = 0; i < N; i++) {
        if (f->m[i].id) {
            directory_remove(f->d, &f->m[i]);
        }
    }
    directory_free(f->d); /* asserts that every byte came back */
    estate_close(f->estate);
    free(f);
    if (wrong) {
        print_error("%s\n", wrong);
    }
    return wrong ? -1 : 0;
}

static void add(struct fixture *f, int n)
{
    for (int i = 0; i < n; i++) {
        assert_int_equal(directory_add(f->d, &f->m[i]), 0);
    }
}

static void join(struct fixture *f, int first, int n, const char *group)
{
    for (int i = first; i < first + n; i++) {
        assert_int_equal(directory_group_join(f->d, &f->m[i], group, strlen(group)), 0);
    }
}

static void bind(struct fixture *f, int i, const char *uid)
{
    assert_int_equal(directory_uid_bind(f->d, &f->m[i], uid, strlen(uid)), 0);
}

static uint32_t count_rest(struct member_cursor *c)
{
    uint32_t n = 0;
    while (member_cursor_next(c)) {
        n++;
    }
    return n;
}

/* ---- ids ---- */

static void ids_carry_the_shard_and_count_up(void **state)
{
    struct fixture *f = *state;
    add(f, 3);
    assert_int_equal(f->m[0].id, 3u << 26 | 1);
    assert_int_equal(f->m[2].id, 3u << 26 | 3);
    assert_int_equal(directory_next_seq(f->d), 4);
    assert_ptr_equal(directory_find(f->d, f->m[1].id), &f->m[1]);
    assert_null(directory_find(f->d, 2)); /* shard 0 */
    assert_null(directory_find(f->d, 0));
    assert_int_equal(directory_count(f->d), 3);
}

static void a_freed_id_waits_for_the_next_round(void **state)
{
    struct fixture *f = *state;
    add(f, 1);
    directory_remove(f->d, &f->m[0]);
    add(f, 1);
    assert_int_equal(f->m[0].id & ID_SEQ_MAX, 2);
}

static void ids_wrap_and_skip_those_in_use(void **state)
{
    struct member m[6] = {0};
    struct directory *d = directory_new(63, ID_SEQ_MAX, NULL);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(directory_add(d, &m[i]), 0);
    }
    assert_int_equal(m[0].id, UINT32_MAX);
    assert_int_equal(m[1].id, 63u << 26 | 1);
    assert_int_equal(m[3].id, 63u << 26 | 3);
    directory_remove(d, &m[2]);
    d->next_seq = ID_SEQ_MAX; /* the sequence has come round */
    assert_int_equal(directory_add(d, &m[4]), 0);
    assert_int_equal(directory_add(d, &m[5]), 0);
    assert_int_equal(m[4].id, 63u << 26 | 2);
    assert_int_equal(m[5].id, 63u << 26 | 4);
    assert_null(directory_check(d));
    for (int i = 0; i < 6; i++) {
        if (m[i].id) {
            directory_remove(d, &m[i]);
        }
    }
    directory_free(d);
}

static void the_first_sequence_number_is_never_zero(void **state)
{
    const uint32_t starts[] = {0, UINT32_C(1) << 26};
    for (int i = 0; i < 2; i++) {
        struct directory *d = directory_new(0, starts[i], NULL);
        assert_int_equal(directory_next_seq(d), 1);
        directory_free(d);
    }
}

static void removal_leaves_the_member_zeroed(void **state)
{
    struct fixture *f = *state;
    static const struct member none;
    add(f, 2);
    bind(f, 0, "u");
    join(f, 0, 2, "g");
    assert_int_equal(directory_session_set(f->d, &f->m[0], STR("abc")), 0);
    directory_remove(f->d, &f->m[0]);
    assert_memory_equal(&f->m[0], &none, sizeof(none));
    assert_int_equal(directory_uids(f->d), 0);
    assert_int_equal(directory_group_count(f->d, STR("g")), 1);
}

/* ---- sessions ---- */

static void a_session_is_replaced_never_changed(void **state)
{
    struct fixture *f = *state;
    add(f, 1);
    assert_int_equal(directory_session_set(f->d, &f->m[0], STR("one")), 0);
    assert_int_equal(f->m[0].session->len, 3);
    assert_int_equal(directory_session_set(f->d, &f->m[0], f->m[0].session->data, 2), 0); /* from itself */
    assert_memory_equal(f->m[0].session->data, "on", 2);
    session_alloc_fail_after = 0;
    assert_int_equal(directory_session_set(f->d, &f->m[0], STR("three")), -ENOMEM);
    session_alloc_fail_after = -1;
    assert_memory_equal(f->m[0].session->data, "on", 2);
    assert_int_equal(directory_session_set(f->d, &f->m[0], NULL, 0), 0);
    assert_null(f->m[0].session);
}

/* The session that a successor of this process would find in that record. */
static void assert_record_says(struct fixture *f, const struct estate_client *record, const char *text)
{
    if (!text) {
        assert_int_equal(record->session, 0);
        return;
    }
    const struct session_bytes *s = f->m[0].session;
    assert_int_equal(record->session, estate_session(f->estate, s));
    assert_int_equal(s->len, strlen(text));
    assert_memory_equal(s->data, text, s->len);
}

static void a_record_follows_the_session(void **state)
{
    struct fixture *f = *state;
    add(f, 1);
    struct estate_client *record = estate_client_add(f->estate, &(struct estate_client){.id = f->m[0].id});
    assert_non_null(record);
    f->m[0].record = record;
    assert_record_says(f, record, NULL);
    assert_int_equal(directory_session_set(f->d, &f->m[0], STR("one")), 0);
    assert_record_says(f, record, "one");
    session_alloc_fail_after = 0;
    assert_int_equal(directory_session_set(f->d, &f->m[0], STR("two")), -ENOMEM);
    session_alloc_fail_after = -1;
    assert_record_says(f, record, "one");
    assert_int_equal(directory_session_set(f->d, &f->m[0], STR("three")), 0);
    assert_record_says(f, record, "three");
    assert_int_equal(directory_session_set(f->d, &f->m[0], NULL, 0), 0);
    assert_record_says(f, record, NULL);
    f->m[0].record = NULL;
    estate_client_remove(f->estate, record);
}

static void a_session_can_outlive_its_member(void **state)
{
    struct fixture *f = *state;
    add(f, 2);
    assert_null(directory_session_detach(f->d, &f->m[1]));
    size_t bytes = directory_bytes(f->d);
    assert_int_equal(directory_session_set(f->d, &f->m[0], STR("last words")), 0);
    struct session_bytes *s = directory_session_detach(f->d, &f->m[0]);
    assert_null(f->m[0].session);
    assert_int_equal(directory_bytes(f->d), bytes);
    directory_remove(f->d, &f->m[0]);
    assert_memory_equal(s->data, "last words", s->len);
    estate_free(f->estate, s);
}

static void a_session_larger_than_the_estate_is_refused(void **state)
{
    struct fixture *f = *state;
    static const uint8_t huge[2 << 20];
    add(f, 1);
    assert_int_equal(directory_session_set(f->d, &f->m[0], STR("small")), 0);
    assert_int_equal(directory_session_set(f->d, &f->m[0], huge, sizeof(huge)), -ENOMEM);
    assert_memory_equal(f->m[0].session->data, "small", 5);
}

static void without_an_estate_sessions_are_kept_too(void **state)
{
    struct member m = {0};
    struct directory *d = directory_new(1, 1, NULL);
    assert_int_equal(directory_add(d, &m), 0);
    assert_int_equal(directory_session_set(d, &m, STR("abc")), 0);
    assert_int_equal(directory_session_set(d, &m, STR("def")), 0);
    assert_memory_equal(m.session->data, "def", 3);
    directory_remove(d, &m);
    directory_free(d);
}

/* ---- ids, again ---- */

#define BLOCK (UINT32_C(1) << 20)

static int add_at(struct directory *d, uint32_t seq, int64_t now)
{
    struct member m = {0};
    d->next_seq = seq;
    directory_set_now(d, now);
    int r = directory_add(d, &m);
    if (r == 0) {
        assert_int_equal(m.id & ID_SEQ_MAX, seq);
        directory_remove(d, &m);
    } else {
        assert_int_equal(directory_next_seq(d), seq);
    }
    return r;
}

static void a_block_of_ids_is_not_entered_too_soon(void **state)
{
    struct fixture *f = *state;
    int64_t left[DIRECTORY_ID_BLOCKS] = {0};
    directory_set_reuse(f->d, left, 600, 1000);
    assert_int_equal(add_at(f->d, BLOCK - 2, 1000), 0);
    assert_int_equal(left[0], 0);
    assert_int_equal(add_at(f->d, BLOCK - 1, 1001), 0); /* the last of block 0 */
    assert_int_equal(left[0], 1001);
    assert_int_equal(directory_next_seq(f->d), BLOCK);
    assert_int_equal(add_at(f->d, BLOCK, 1002), 0); /* a block that was never left */
    assert_int_equal(add_at(f->d, ID_SEQ_MAX, 1100), 0);
    assert_int_equal(left[DIRECTORY_ID_BLOCKS - 1], 1100);
    assert_int_equal(directory_next_seq(f->d), 1);
    assert_int_equal(add_at(f->d, 1, 1600), -EAGAIN);
    assert_int_equal(add_at(f->d, 1, 1601), 0);
    assert_int_equal(add_at(f->d, 5, 1), 0); /* inside a block nothing is asked */
}

static void the_times_of_blocks_outlive_the_directory(void **state)
{
    int64_t left[DIRECTORY_ID_BLOCKS] = {[7] = 5000};
    struct directory *d = directory_new(0, 7 * BLOCK, NULL);
    directory_set_reuse(d, left, 600, 5599);
    assert_int_equal(add_at(d, 7 * BLOCK, 5599), -EAGAIN);
    assert_int_equal(add_at(d, 7 * BLOCK, 5600), 0);
    directory_free(d);
}

static void a_clock_that_goes_back_does_not_lock_blocks_for_long(void **state)
{
    struct fixture *f = *state;
    int64_t left[DIRECTORY_ID_BLOCKS] = {[3] = 90000, [4] = 10};
    directory_set_reuse(f->d, left, 600, 1000);
    assert_int_equal(left[3], 1000);
    assert_int_equal(left[4], 10);
    assert_int_equal(add_at(f->d, 3 * BLOCK, 1599), -EAGAIN);
    assert_int_equal(add_at(f->d, 3 * BLOCK, 1600), 0);
    left[3] = 1600;
    directory_set_now(f->d, 100);
    assert_int_equal(left[3], 100);
}

/* An id that is in use at the end of a block is passed over, and the block is left all the same. */
static void a_block_is_left_by_passing_over_ids_in_use(void **state)
{
    struct fixture *f = *state;
    int64_t left[DIRECTORY_ID_BLOCKS] = {0};
    directory_set_reuse(f->d, left, 600, 1000);
    f->d->next_seq = 2 * BLOCK - 1;
    add(f, 1);
    left[1] = 0;
    assert_int_equal(add_at(f->d, 2 * BLOCK - 2, 2000), 0);
    assert_int_equal(left[1], 0);
    assert_int_equal(directory_next_seq(f->d), 2 * BLOCK - 1);
    directory_set_now(f->d, 2001);
    assert_int_equal(directory_add(f->d, &f->m[1]), 0);
    assert_int_equal(f->m[1].id & ID_SEQ_MAX, 2 * BLOCK);
    assert_int_equal(left[1], 2001);
}

/* Ids of clients that have outlived most of a round; they are just ahead of the sequence when they go. */
static void an_id_that_goes_just_ahead_is_passed_over(void **state)
{
    struct fixture *f = *state;
    int64_t left[DIRECTORY_ID_BLOCKS] = {0};
    directory_set_reuse(f->d, left, 600, 1000);
    f->d->next_seq = 1000;
    add(f, 200);
    f->d->next_seq = 990; /* the sequence has come round, nearly */
    for (int i = 0; i < 100; i++) {
        directory_remove(f->d, &f->m[i]);
    }
    directory_id_gone(f->d, 3u << 26 | 995);
    directory_id_gone(f->d, 3u << 26 | 995);
    directory_id_gone(f->d, 4u << 26 | 994); /* another shard's */
    for (uint32_t seq = 990; seq < 1000; seq++) {
        if (seq != 995) {
            assert_int_equal(directory_add(f->d, &f->m[0]), 0);
            assert_int_equal(f->m[0].id & ID_SEQ_MAX, seq);
            directory_remove(f->d, &f->m[0]);
        }
    }
    assert_int_equal(directory_add(f->d, &f->m[0]), 0);
    assert_int_equal(f->m[0].id & ID_SEQ_MAX, 1200); /* gone, or in use */
    f->d->next_seq = 990;
    directory_set_now(f->d, 1599);
    assert_int_equal(directory_add(f->d, &f->m[1]), 0);
    assert_int_equal(f->m[1].id & ID_SEQ_MAX, 990); /* it had been behind when it went */
    f->d->next_seq = 995;
    directory_set_now(f->d, 1600);
    assert_int_equal(directory_add(f->d, &f->m[2]), 0);
    assert_int_equal(f->m[2].id & ID_SEQ_MAX, 995);
    assert_int_equal(f->d->reuse.count, 0);
}

static void going_ids_without_memory_or_with_a_clock_that_goes_back(void **state)
{
    struct fixture *f = *state;
    int64_t left[DIRECTORY_ID_BLOCKS] = {0};
    directory_set_reuse(f->d, left, 600, 1000);
    for (int fail_at = 0; fail_at < 2; fail_at++) {
        session_alloc_fail_after = fail_at;
        directory_id_gone(f->d, 3u << 26 | 10);
        session_alloc_fail_after = -1;
        assert_int_equal(f->d->reuse.count, 0);
    }
    directory_id_gone(f->d, 3u << 26 | 1);
    directory_set_now(f->d, 100);
    directory_set_now(f->d, 699);
    add(f, 1);
    assert_int_equal(f->m[0].id & ID_SEQ_MAX, 2);
    directory_set_now(f->d, 700);
    assert_int_equal(f->d->reuse.count, 0);
    directory_id_gone(f->d, 3u << 26 | 50); /* left behind: directory_free has it */
}

/* ---- name filters ---- */

static bool may_have(const struct name_filter *n, const char *name)
{
    return name_filter_may_have(n, hash_bytes(name, strlen(name)));
}

static void filters_know_the_names_that_are_there(void **state)
{
    struct fixture *f = *state;
    struct name_filter *uids = calloc(1, sizeof(*uids)), *groups = calloc(1, sizeof(*groups));
    static const struct name_filter none;
    struct member_cursor c;
    directory_set_filters(f->d, uids, groups);
    add(f, 3);
    bind(f, 0, "u");
    bind(f, 1, "u");
    bind(f, 2, "");
    join(f, 0, 3, "g");
    join(f, 0, 1, "h");
    assert_true(may_have(uids, "u") && may_have(uids, "") && may_have(groups, "g") && may_have(groups, "h"));
    assert_false(may_have(uids, "g") || may_have(groups, "u"));
    bind(f, 0, "v");
    assert_true(may_have(uids, "u") && may_have(uids, "v"));
    directory_uid_begin(f->d, STR("u"), &c);
    bind(f, 1, "v");
    assert_false(may_have(uids, "u")); /* a cursor does not keep it */
    member_cursor_end(f->d, &c);
    directory_group_leave(f->d, &f->m[0], STR("h"));
    assert_false(may_have(groups, "h"));
    directory_group_dissolve(f->d, STR("g"));
    assert_memory_equal(groups, &none, sizeof(none));
    join(f, 1, 1, "again");
    session_alloc_fail_after = 0;
    assert_int_equal(directory_group_join(f->d, &f->m[2], STR("fails")), -ENOMEM);
    session_alloc_fail_after = -1;
    assert_false(may_have(groups, "fails"));
    for (int i = 0; i < 3; i++) {
        directory_remove(f->d, &f->m[i]);
    }
    assert_memory_equal(uids, &none, sizeof(none));
    assert_memory_equal(groups, &none, sizeof(none));
    free(uids);
    free(groups);
}

/* ---- uids ---- */

static void a_second_bind_moves(void **state)
{
    struct fixture *f = *state;
    size_t len;
    add(f, 2);
    bind(f, 0, "a");
    bind(f, 1, "a");
    assert_int_equal(directory_uid_count(f->d, STR("a")), 2);
    bind(f, 0, "a");
    assert_int_equal(directory_uid_count(f->d, STR("a")), 2);
    bind(f, 0, "b");
    assert_int_equal(directory_uid_count(f->d, STR("a")), 1);
    assert_int_equal(directory_uid_count(f->d, STR("b")), 1);
    assert_memory_equal(uid_entry_name(f->m[0].uid, &len), "b", 1);
    assert_int_equal(len, 1);
    bind(f, 1, "b");
    assert_int_equal(directory_uids(f->d), 1);
    directory_uid_unbind(f->d, &f->m[1]);
    directory_uid_unbind(f->d, &f->m[1]);
    assert_null(f->m[1].uid);
    assert_int_equal(directory_uid_count(f->d, STR("b")), 1);
}

static void names_may_be_empty_binary_and_huge(void **state)
{
    struct fixture *f = *state;
    static char huge[DIRECTORY_NAME_LEN_MAX + 1];
    memset(huge, 'x', sizeof(huge));
    add(f, 3);
    assert_int_equal(directory_uid_bind(f->d, &f->m[0], NULL, 0), 0);
    assert_int_equal(directory_uid_bind(f->d, &f->m[1], STR("a\0b")), 0);
    assert_int_equal(directory_uid_count(f->d, "", 0), 1);
    assert_int_equal(directory_uid_count(f->d, STR("a\0b")), 1);
    assert_int_equal(directory_uid_count(f->d, STR("a\0c")), 0);
    assert_int_equal(directory_group_join(f->d, &f->m[0], NULL, 0), 0);
    assert_true(directory_is_in_group(f->d, &f->m[0], "", 0));
    assert_int_equal(directory_uid_bind(f->d, &f->m[2], huge, DIRECTORY_NAME_LEN_MAX), 0);
    assert_int_equal(directory_group_join(f->d, &f->m[2], huge, DIRECTORY_NAME_LEN_MAX), 0);
    assert_int_equal(directory_uid_count(f->d, huge, DIRECTORY_NAME_LEN_MAX), 1);
    assert_int_equal(directory_group_count(f->d, huge, DIRECTORY_NAME_LEN_MAX), 1);
    assert_int_equal(directory_group_count(f->d, huge, DIRECTORY_NAME_LEN_MAX - 1), 0);
}

static void names_too_long_are_refused_and_never_found(void **state)
{
    struct fixture *f = *state;
    static char huge[DIRECTORY_NAME_LEN_MAX + 1];
    struct member_cursor c;
    add(f, 1);
    bind(f, 0, ""); /* 65536 is 0 in 16 bits */
    assert_int_equal(directory_uid_bind(f->d, &f->m[0], huge, sizeof(huge)), -EINVAL);
    assert_int_equal(directory_group_join(f->d, &f->m[0], huge, sizeof(huge)), -EINVAL);
    assert_int_equal(directory_uid_count(f->d, huge, sizeof(huge)), 0);
    directory_group_leave(f->d, &f->m[0], huge, sizeof(huge));
    directory_uid_begin(f->d, huge, sizeof(huge), &c);
    assert_null(member_cursor_next(&c));
    member_cursor_end(f->d, &c);
}

/* ---- groups ---- */

static void joining_twice_counts_once(void **state)
{
    struct fixture *f = *state;
    add(f, 2);
    join(f, 0, 2, "g");
    join(f, 0, 1, "g");
    assert_int_equal(directory_group_count(f->d, STR("g")), 2);
    assert_int_equal(f->m[0].n_memberships, 1);
    directory_group_leave(f->d, &f->m[0], STR("g"));
    directory_group_leave(f->d, &f->m[0], STR("g"));
    directory_group_leave(f->d, &f->m[0], STR("nobody's"));
    assert_false(directory_is_in_group(f->d, &f->m[0], STR("g")));
    assert_true(directory_is_in_group(f->d, &f->m[1], STR("g")));
    directory_group_leave(f->d, &f->m[1], STR("g"));
    assert_int_equal(directory_groups(f->d), 0);
}

static void a_member_may_be_in_many_groups(void **state)
{
    struct fixture *f = *state;
    char name[16];
    add(f, 20);
    for (int g = 0; g < 200; g++) {
        snprintf(name, sizeof(name), "g%d", g);
        join(f, 0, 20, name);
    }
    assert_null(directory_check(f->d));
    for (int g = 0; g < 200; g += 2) {
        directory_group_leave(f->d, &f->m[7], name, (size_t)snprintf(name, sizeof(name), "g%d", g));
    }
    assert_int_equal(f->m[7].n_memberships, 100);
    assert_null(directory_check(f->d));
    directory_remove(f->d, &f->m[0]);
    assert_int_equal(directory_group_count(f->d, STR("g0")), 18);
    assert_int_equal(directory_group_count(f->d, STR("g1")), 19);
}

static void dissolving_empties_the_group(void **state)
{
    struct fixture *f = *state;
    add(f, 100);
    join(f, 0, 100, "g");
    join(f, 0, 50, "h");
    directory_group_dissolve(f->d, STR("g"));
    directory_group_dissolve(f->d, STR("g"));
    assert_int_equal(directory_groups(f->d), 1);
    assert_int_equal(directory_group_count(f->d, STR("g")), 0);
    assert_int_equal(directory_group_count(f->d, STR("h")), 50);
    assert_int_equal(f->m[0].n_memberships, 1);
    assert_int_equal(f->m[99].n_memberships, 0);
}

/* ---- cursors ---- */

static void a_cursor_on_nothing_is_empty(void **state)
{
    struct fixture *f = *state;
    struct member_cursor c;
    directory_group_begin(f->d, STR("none"), &c);
    assert_null(member_cursor_next(&c));
    member_cursor_end(f->d, &c);
    member_cursor_end(f->d, &c);
    directory_all_begin(f->d, &c);
    add(f, 1); /* later: not visited */
    assert_null(member_cursor_next(&c));
    assert_null(member_cursor_next(&c));
    member_cursor_end(f->d, &c);
}

static void dissolving_under_a_cursor_ends_it(void **state)
{
    struct fixture *f = *state;
    struct member_cursor c;
    add(f, 10);
    join(f, 0, 10, "g");
    directory_group_begin(f->d, STR("g"), &c);
    assert_non_null(member_cursor_next(&c));
    directory_group_dissolve(f->d, STR("g"));
    assert_int_equal(directory_groups(f->d), 0);
    join(f, 0, 5, "g"); /* another group of that name */
    assert_null(member_cursor_next(&c));
    assert_null(directory_check(f->d));
    member_cursor_end(f->d, &c);
    assert_int_equal(directory_group_count(f->d, STR("g")), 5);
}

static void a_uid_outlives_its_members_while_a_cursor_is_on_it(void **state)
{
    struct fixture *f = *state;
    struct member_cursor a, b;
    add(f, 2);
    bind(f, 0, "u");
    directory_uid_begin(f->d, STR("u"), &a);
    directory_uid_begin(f->d, STR("u"), &b);
    directory_remove(f->d, &f->m[0]);
    assert_int_equal(directory_uids(f->d), 0);
    bind(f, 1, "u");
    assert_null(member_cursor_next(&a));
    member_cursor_end(f->d, &a);
    assert_null(member_cursor_next(&b));
    assert_null(directory_check(f->d));
    member_cursor_end(f->d, &b);
    assert_int_equal(directory_uid_count(f->d, STR("u")), 1);
}

static void a_uid_has_a_mark_as_long_as_it_has_members(void **state)
{
    struct fixture *f = *state;
    struct member_cursor cursor;
    add(f, 2);
    bind(f, 0, "made without");
    uid_entry_set_mark(f->m[0].uid, UINT64_MAX);
    assert_int_equal(uid_entry_mark(f->m[0].uid), 0);
    directory_set_uid_marks(f->d, true);
    bind(f, 0, "u");
    assert_int_equal(uid_entry_mark(f->m[0].uid), 0);
    uid_entry_set_mark(f->m[0].uid, UINT64_MAX);
    bind(f, 1, "u");
    bind(f, 0, "another");
    assert_int_equal(uid_entry_mark(f->m[0].uid), 0);
    assert_true(uid_entry_mark(f->m[1].uid) == UINT64_MAX);
    directory_uid_begin(f->d, STR("u"), &cursor); /* keeps the entry, not the name */
    directory_uid_unbind(f->d, &f->m[1]);
    bind(f, 1, "u");
    assert_int_equal(uid_entry_mark(f->m[1].uid), 0);
    member_cursor_end(f->d, &cursor);
}

static void removals_under_several_cursors(void **state)
{
    struct fixture *f = *state;
    struct member_cursor c[3];
    add(f, 10);
    for (int k = 0; k < 3; k++) { /* at 0, 3 and 6 */
        directory_all_begin(f->d, &c[k]);
        for (int i = 0; i < k * 3; i++) {
            assert_ptr_equal(member_cursor_next(&c[k]), &f->m[i]);
        }
    }
    directory_remove(f->d, &f->m[1]);
    directory_remove(f->d, &f->m[4]);
    directory_remove(f->d, &f->m[9]);
    assert_int_equal(directory_add(f->d, &f->m[20]), 0);
    member_cursor_end(f->d, &c[1]);
    directory_remove(f->d, &f->m[7]);
    assert_int_equal(count_rest(&c[0]), 6);
    assert_int_equal(count_rest(&c[2]), 2);
    assert_null(directory_check(f->d));
    member_cursor_end(f->d, &c[2]);
    member_cursor_end(f->d, &c[0]);
    assert_int_equal(f->d->all.used, 7);
}

static void cursors_without_a_gap_do_not_let_a_set_grow(void **state)
{
    struct fixture *f = *state;
    struct member_cursor c[2];
    add(f, 100);
    join(f, 0, 100, "g");
    directory_group_begin(f->d, STR("g"), &c[0]);
    for (int round = 1; round < 1000; round++) {
        directory_group_begin(f->d, STR("g"), &c[round % 2]);
        member_cursor_end(f->d, &c[(round + 1) % 2]);
        for (int i = 0; i < 10; i++) {
            struct member *m = member_cursor_next(&c[round % 2]);
            directory_group_leave(f->d, m, STR("g"));
            assert_int_equal(directory_group_join(f->d, m, STR("g")), 0);
        }
        assert_int_equal(directory_group_count(f->d, STR("g")), 100);
        assert_true(f->m[0].memberships[0].group->named.set.used <= 100 * 2 + 64);
    }
    assert_int_equal(count_rest(&c[1]), 90);
    member_cursor_end(f->d, &c[1]);
}

static void groups_come_and_go_under_a_group_cursor(void **state)
{
    struct fixture *f = *state;
    struct group_cursor c;
    size_t len;
    add(f, 1);
    join(f, 0, 1, "a");
    join(f, 0, 1, "b");
    join(f, 0, 1, "c");
    directory_groups_begin(f->d, &c);
    assert_memory_equal(group_name(group_cursor_next(&c), &len), "a", 1);
    directory_group_dissolve(f->d, STR("a"));
    directory_group_dissolve(f->d, STR("b"));
    join(f, 0, 1, "a");
    join(f, 0, 1, "d");
    assert_int_equal(directory_groups(f->d), 3);
    assert_memory_equal(group_name(group_cursor_next(&c), &len), "c", 1);
    assert_null(group_cursor_next(&c));
    assert_null(directory_check(f->d));
    group_cursor_end(&c);
    group_cursor_end(&c);
    assert_null(directory_check(f->d));
}

/* ---- no memory ---- */

/* Fail the first allocation, then the second, ... until all were enough. */
static void each_failing_allocation_leaves_everything_unchanged(void **state)
{
    struct fixture *f = *state;
    int fail_at, failures = 0;
    for (int i = 0; i < 100; i++) {
        for (fail_at = 0;; fail_at++, failures++) {
            uint32_t seq = directory_next_seq(f->d);
            session_alloc_fail_after = fail_at;
            if (directory_add(f->d, &f->m[i]) == 0) {
                break;
            }
            assert_int_equal(f->m[i].id, 0);
            assert_int_equal(directory_next_seq(f->d), seq);
            assert_int_equal(directory_count(f->d), i);
            assert_null(directory_check(f->d));
        }
        char name[16];
        size_t len = (size_t)snprintf(name, sizeof(name), "n%d", i / 3);
        for (fail_at = 0;; fail_at++, failures++) {
            session_alloc_fail_after = fail_at;
            if (directory_uid_bind(f->d, &f->m[i], name, len) == 0) {
                break;
            }
            assert_null(f->m[i].uid);
            assert_int_equal(directory_uid_count(f->d, name, len), i % 3);
            assert_null(directory_check(f->d));
        }
        for (fail_at = 0;; fail_at++, failures++) {
            session_alloc_fail_after = fail_at;
            if (directory_group_join(f->d, &f->m[i], name, len) == 0) {
                break;
            }
            assert_null(f->m[i].memberships);
            assert_int_equal(directory_group_count(f->d, name, len), i % 3);
            assert_null(directory_check(f->d));
        }
    }
    session_alloc_fail_after = -1;
    assert_true(failures > 200);
}

static void a_rebind_without_memory_keeps_the_old_uid(void **state)
{
    struct fixture *f = *state;
    add(f, 1);
    bind(f, 0, "old");
    session_alloc_fail_after = 0;
    assert_int_equal(directory_uid_bind(f->d, &f->m[0], STR("new")), -ENOMEM);
    assert_null(directory_new(0, 1, NULL));
    session_alloc_fail_after = -1;
    assert_int_equal(directory_uid_count(f->d, STR("old")), 1);
    assert_int_equal(directory_uid_count(f->d, STR("new")), 0);
}

/* ---- the check itself ---- */

static void the_check_notices_damage(void **state)
{
    struct fixture *f = *state;
    add(f, 3);
    bind(f, 0, "u");
    bind(f, 1, "u");
    join(f, 0, 3, "g");
    assert_null(directory_check(f->d));
    f->m[0].position = 1;
    assert_non_null(directory_check(f->d));
    f->m[0].position = 0;
    f->m[1].uid_position = 0;
    assert_non_null(directory_check(f->d));
    f->m[1].uid_position = 1;
    f->m[2].memberships[0].position = 1;
    assert_non_null(directory_check(f->d));
    f->m[2].memberships[0].position = 2;
    f->d->all.n_cursors = 1;
    assert_non_null(directory_check(f->d));
    f->d->all.n_cursors = 0;
    struct uid_entry *u = f->m[1].uid;
    f->m[1].uid = NULL;
    assert_non_null(directory_check(f->d));
    f->m[1].uid = u;
    f->m[0].id ^= 1u << 30;
    assert_non_null(directory_check(f->d));
    f->m[0].id ^= 1u << 30;
    assert_null(directory_check(f->d));
}

static void the_check_in_slices_notices_damage_too(void **state)
{
    struct fixture *f = *state;
    add(f, N);
    for (int i = 0; i < N; i++) {
        bind(f, i, i % 2 ? "odd" : "even");
    }
    join(f, 0, N, "all");
    uint64_t position = 0;
    unsigned slices = 0;
    do {
        assert_null(directory_check_slice(f->d, &position, 7));
        slices++;
    } while (position != 0);
    assert_true(slices > N / 7);
    f->m[N - 1].uid_position ^= 1;
    const char *wrong = NULL;
    do {
        wrong = directory_check_slice(f->d, &position, 7);
    } while (!wrong && position != 0);
    assert_non_null(wrong);
    f->m[N - 1].uid_position ^= 1;
}

static void names_one_by_one(void **state)
{
    struct fixture *f = *state;
    const uint8_t *name;
    size_t len;
    uint32_t position = 0, members, names = 0, sum = 0;
    assert_false(directory_next_name(f->d, DIRECTORY_GROUPS, &position, &name, &len, &members));
    assert_null(name);
    add(f, N);
    for (int i = 0; i < N; i++) {
        char group[8];
        snprintf(group, sizeof(group), "g%d", i % 40);
        join(f, i, 1, group);
    }
    for (position = 0; directory_next_name(f->d, DIRECTORY_GROUPS, &position, &name, &len, &members);) {
        if (name) {
            names++;
            sum += members;
            assert_int_equal(directory_group_count(f->d, name, len), members);
        }
    }
    assert_int_equal(names, 40);
    assert_int_equal(sum, N);
    position = 0;
    assert_false(directory_next_name(f->d, DIRECTORY_UIDS, &position, &name, &len, &members));
}

/* Ids that another shard gave: they do all that ours do, and the sequence does not care. */
static void members_may_have_ids_of_other_shards(void **state)
{
    struct fixture *f = *state;
    uint32_t foreign = (UINT32_C(9) << ID_SEQ_BITS) + 1;
    assert_int_equal(directory_add_as(f->d, &f->m[0], foreign), 0);
    assert_int_equal(directory_add_as(f->d, &f->m[1], foreign), -EEXIST);
    assert_int_equal(directory_add_as(f->d, &f->m[1], UINT32_C(9) << ID_SEQ_BITS), -EINVAL);
    assert_int_equal(f->m[1].id, 0);
    assert_int_equal(directory_add_as(f->d, &f->m[1], (UINT32_C(3) << ID_SEQ_BITS) + 1), 0);
    assert_int_equal(directory_next_seq(f->d), 1);
    assert_int_equal(directory_add(f->d, &f->m[2]), 0);
    assert_int_equal(f->m[2].id, (UINT32_C(3) << ID_SEQ_BITS) + 2); /* 1 is in use already */
    assert_ptr_equal(directory_find(f->d, foreign), &f->m[0]);
    bind(f, 0, "u");
    join(f, 0, 3, "g");
    assert_int_equal(directory_session_set(f->d, &f->m[0], STR("s")), 0);
    assert_null(directory_check(f->d));
    directory_remove(f->d, &f->m[0]);
    assert_null(directory_find(f->d, foreign));
    assert_int_equal(directory_add_as(f->d, &f->m[0], foreign), 0);
}

static void a_foreign_id_that_goes_stands_in_nobodys_way(void **state)
{
    struct fixture *f = *state;
    int64_t left[DIRECTORY_ID_BLOCKS] = {0};
    directory_set_reuse(f->d, left, 600, 1000);
    assert_int_equal(directory_add_as(f->d, &f->m[0], (UINT32_C(9) << ID_SEQ_BITS) + 1), 0);
    directory_remove(f->d, &f->m[0]);
    assert_int_equal(f->d->reuse.count, 0);
    /* One of our own row that came from elsewhere is kept as if we had given it. */
    assert_int_equal(directory_add_as(f->d, &f->m[0], (UINT32_C(3) << ID_SEQ_BITS) + 1), 0);
    directory_remove(f->d, &f->m[0]);
    assert_int_equal(f->d->reuse.count, 1);
    assert_int_equal(directory_add(f->d, &f->m[0]), 0);
    assert_int_equal(f->m[0].id & ID_SEQ_MAX, 2);
}

static void only_ids_whose_home_is_here_are_given(void **state)
{
    struct fixture *f = *state;
    static struct node_home home;
    memset(&home, 7, sizeof home);
    uint8_t *row = home.shard + 3 * NODE_HOME_PARTS;
    row[5] = row[63] = 3;
    directory_set_home(f->d, &home);
    add(f, 5);
    static const uint32_t want[] = {5, 63, 64 + 5, 64 + 63, 128 + 5};
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(f->m[i].id & ID_SEQ_MAX, want[i]);
    directory_set_next_seq(f->d, ID_SEQ_MAX); /* it ends with 63, and begins with 1 */
    assert_int_equal(directory_add(f->d, &f->m[5]), 0);
    assert_int_equal(f->m[5].id & ID_SEQ_MAX, ID_SEQ_MAX);
    assert_int_equal(directory_next_seq(f->d), 1);
    assert_null(directory_check(f->d));
    assert_int_equal(directory_add_as(f->d, &f->m[6], (UINT32_C(8) << ID_SEQ_BITS) + 1), 0);
    assert_string_equal(directory_check(f->d), "a member's id is none of this shard");
    home.shard[8 * NODE_HOME_PARTS + 1] = 3;
    assert_null(directory_check(f->d));
    row[5] = row[63] = 7;
    assert_int_equal(directory_add(f->d, &f->m[7]), -EAGAIN);
    assert_int_equal(f->m[7].id, 0);
    directory_set_home(f->d, NULL);
    assert_int_equal(directory_add(f->d, &f->m[7]), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    hash_init_fixed(7);
    const struct CMUnitTest tests[] = {
        TEST(ids_carry_the_shard_and_count_up),
        TEST(a_freed_id_waits_for_the_next_round),
        TEST(ids_wrap_and_skip_those_in_use),
        TEST(the_first_sequence_number_is_never_zero),
        TEST(removal_leaves_the_member_zeroed),
        TEST(a_session_is_replaced_never_changed),
        TEST(a_record_follows_the_session),
        TEST(a_session_can_outlive_its_member),
        TEST(a_session_larger_than_the_estate_is_refused),
        TEST(without_an_estate_sessions_are_kept_too),
        TEST(a_block_of_ids_is_not_entered_too_soon),
        TEST(the_times_of_blocks_outlive_the_directory),
        TEST(a_clock_that_goes_back_does_not_lock_blocks_for_long),
        TEST(a_block_is_left_by_passing_over_ids_in_use),
        TEST(an_id_that_goes_just_ahead_is_passed_over),
        TEST(going_ids_without_memory_or_with_a_clock_that_goes_back),
        TEST(filters_know_the_names_that_are_there),
        TEST(a_second_bind_moves),
        TEST(names_may_be_empty_binary_and_huge),
        TEST(names_too_long_are_refused_and_never_found),
        TEST(joining_twice_counts_once),
        TEST(a_member_may_be_in_many_groups),
        TEST(dissolving_empties_the_group),
        TEST(a_cursor_on_nothing_is_empty),
        TEST(dissolving_under_a_cursor_ends_it),
        TEST(a_uid_outlives_its_members_while_a_cursor_is_on_it),
        TEST(a_uid_has_a_mark_as_long_as_it_has_members),
        TEST(removals_under_several_cursors),
        TEST(cursors_without_a_gap_do_not_let_a_set_grow),
        TEST(groups_come_and_go_under_a_group_cursor),
        TEST(each_failing_allocation_leaves_everything_unchanged),
        TEST(a_rebind_without_memory_keeps_the_old_uid),
        TEST(the_check_notices_damage),
        TEST(the_check_in_slices_notices_damage_too),
        TEST(names_one_by_one),
        TEST(members_may_have_ids_of_other_shards),
        TEST(a_foreign_id_that_goes_stands_in_nobodys_way),
        TEST(only_ids_whose_home_is_here_are_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
