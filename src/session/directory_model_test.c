// SPDX-License-Identifier: MIT
/* Random changes, with cursors alive across them and memory failing now and then, against a naive model. */
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

#define N       500 /* members */
#define UIDS    40
#define GROUPS  60
#define CURSORS 6
#define NONE    (-1)

struct client {
    struct member m;
    bool in;
    int uid;
    bool group[GROUPS];
    size_t session_len;
    uint8_t session_byte;
};

enum what { ON_NOTHING, ON_ALL, ON_UID, ON_GROUP };

struct watched_cursor {
    enum what what;
    int which;
    bool due[N]; /* in the set at begin, still in, not visited yet */
    struct member_cursor c;
};

struct watched_group_cursor {
    bool on;
    bool due[GROUPS];
    struct group_cursor c;
};

struct world {
    struct estate *estate;
    struct directory *d;
    struct name_filter uids, groups;
    uint64_t rng;
    struct client clients[N];
    struct watched_cursor cursors[CURSORS];
    struct watched_group_cursor group_cursors[2];
    bool always_cursors; /* never a moment without a cursor */
    unsigned joins_of_10;
    uint64_t visits, failures;
};

static uint32_t rnd(struct world *w, uint32_t below)
{
    w->rng ^= w->rng << 13;
    w->rng ^= w->rng >> 7;
    w->rng ^= w->rng << 17;
    return (uint32_t)((w->rng >> 20) % below);
}

/* Name 0 is empty, the others differ in length. */
static size_t name_of(char *buf, size_t cap, const char *kind, int i)
{
    return i == 0 ? 0 : (size_t)snprintf(buf, cap, "%s-%0*d", kind, i % 30 + 1, i);
}

static bool group_exists(const struct world *w, int g)
{
    for (int i = 0; i < N; i++) {
        if (w->clients[i].group[g]) {
            return true;
        }
    }
    return false;
}

/* ---- the model's side of leaving ---- */

static void forget(struct world *w, int i, enum what what, int which)
{
    for (int k = 0; k < CURSORS; k++) {
        struct watched_cursor *c = &w->cursors[k];
        if (c->what == what && c->which == which) {
            c->due[i] = false;
        }
    }
}

static void model_unbind(struct world *w, int i)
{
    forget(w, i, ON_UID, w->clients[i].uid);
    w->clients[i].uid = NONE;
}

static void model_leave(struct world *w, int i, int g)
{
    forget(w, i, ON_GROUP, g);
    w->clients[i].group[g] = false;
    if (!group_exists(w, g)) {
        w->group_cursors[0].due[g] = w->group_cursors[1].due[g] = false;
    }
}

/* ---- steps ---- */

static bool failed(struct world *w, int r)
{
    session_alloc_fail_after = -1;
    assert_true(r == 0 || r == -ENOMEM);
    w->failures += r != 0;
    return r != 0;
}

static void maybe_no_memory(struct world *w)
{
    if (rnd(w, 20) == 0) {
        session_alloc_fail_after = rnd(w, 3);
    }
}

static void step_add(struct world *w, int i)
{
    struct client *c = &w->clients[i];
    if (c->in) {
        return;
    }
    maybe_no_memory(w);
    if (failed(w, directory_add(w->d, &c->m))) {
        assert_int_equal(c->m.id, 0);
        return;
    }
    c->in = true;
    c->uid = NONE;
    assert_ptr_equal(directory_find(w->d, c->m.id), &c->m);
}

static void step_remove(struct world *w, int i)
{
    struct client *c = &w->clients[i];
    if (!c->in) {
        return;
    }
    uint32_t id = c->m.id;
    directory_remove(w->d, &c->m);
    assert_null(directory_find(w->d, id));
    model_unbind(w, i);
    for (int g = 0; g < GROUPS; g++) {
        if (c->group[g]) {
            model_leave(w, i, g);
        }
    }
    forget(w, i, ON_ALL, 0);
    memset(c, 0, sizeof(*c));
}

static void step_bind(struct world *w, int i)
{
    char name[64];
    int u = (int)rnd(w, UIDS);
    struct client *c = &w->clients[i];
    if (!c->in) {
        return;
    }
    if (rnd(w, 10) >= w->joins_of_10) {
        directory_uid_unbind(w->d, &c->m);
        model_unbind(w, i);
        return;
    }
    maybe_no_memory(w);
    if (failed(w, directory_uid_bind(w->d, &c->m, name, name_of(name, sizeof(name), "uid", u)))) {
        return;
    }
    if (c->uid != u) {
        model_unbind(w, i);
        c->uid = u;
    }
}

static void step_group(struct world *w, int i)
{
    char name[64];
    int g = (int)rnd(w, GROUPS);
    size_t len = name_of(name, sizeof(name), "group", g);
    struct client *c = &w->clients[i];
    if (!c->in) {
        return;
    }
    if (rnd(w, 10) < w->joins_of_10) {
        maybe_no_memory(w);
        if (!failed(w, directory_group_join(w->d, &c->m, name, len))) {
            c->group[g] = true;
        }
    } else {
        directory_group_leave(w->d, &c->m, name, len);
        if (c->group[g]) {
            model_leave(w, i, g);
        }
    }
    assert_int_equal(directory_is_in_group(w->d, &c->m, name, len), c->group[g]);
}

static void step_dissolve(struct world *w)
{
    char name[64];
    int g = (int)rnd(w, GROUPS);
    size_t len = name_of(name, sizeof(name), "group", g);
    directory_group_dissolve(w->d, name, len);
    for (int i = 0; i < N; i++) {
        if (w->clients[i].group[g]) {
            model_leave(w, i, g);
        }
    }
    assert_int_equal(directory_group_count(w->d, name, len), 0);
}

static void step_session(struct world *w, int i)
{
    uint8_t data[100];
    struct client *c = &w->clients[i];
    if (!c->in) {
        return;
    }
    size_t len = rnd(w, sizeof(data));
    uint8_t byte = (uint8_t)rnd(w, 256);
    memset(data, byte, len);
    maybe_no_memory(w);
    if (!failed(w, directory_session_set(w->d, &c->m, data, len))) {
        c->session_len = len;
        c->session_byte = byte;
    }
}

/* ---- cursors ---- */

static void cursor_begin(struct world *w, struct watched_cursor *c)
{
    char name[64];
    c->what = ON_ALL + rnd(w, 3);
    c->which = 0;
    if (c->what == ON_ALL) {
        directory_all_begin(w->d, &c->c);
    } else if (c->what == ON_UID) {
        c->which = (int)rnd(w, UIDS);
        directory_uid_begin(w->d, name, name_of(name, sizeof(name), "uid", c->which), &c->c);
    } else {
        c->which = (int)rnd(w, GROUPS);
        directory_group_begin(w->d, name, name_of(name, sizeof(name), "group", c->which), &c->c);
    }
    for (int i = 0; i < N; i++) {
        const struct client *cl = &w->clients[i];
        c->due[i] = cl->in && (c->what == ON_ALL || (c->what == ON_UID && cl->uid == c->which) ||
                               (c->what == ON_GROUP && cl->group[c->which]));
    }
}

static void cursor_end(struct world *w, struct watched_cursor *c)
{
    member_cursor_end(w->d, &c->c);
    c->what = ON_NOTHING;
}

static void cursor_slice(struct world *w, struct watched_cursor *c)
{
    for (uint32_t n = rnd(w, 30); n > 0; n--) {
        struct member *m = member_cursor_next(&c->c);
        if (!m) {
            for (int i = 0; i < N; i++) {
                assert_false(c->due[i]);
            }
            if (!w->always_cursors || rnd(w, 4) == 0) {
                cursor_end(w, c);
            }
            return;
        }
        int i = (int)((struct client *)m - w->clients);
        assert_true(c->due[i]);
        c->due[i] = false;
        w->visits++;
    }
}

static void step_cursor(struct world *w)
{
    struct watched_cursor *c = &w->cursors[rnd(w, CURSORS)];
    if (c->what == ON_NOTHING) {
        cursor_begin(w, c);
    } else if (rnd(w, 20) == 0) {
        cursor_end(w, c);
    } else {
        cursor_slice(w, c);
    }
}

static int group_of_name(const struct group *g)
{
    size_t len, want;
    char name[64];
    const uint8_t *p = group_name(g, &len);
    for (int i = 0; i < GROUPS; i++) {
        want = name_of(name, sizeof(name), "group", i);
        if (want == len && memcmp(p, name, len) == 0) {
            return i;
        }
    }
    fail();
    return NONE;
}

static void step_group_cursor(struct world *w)
{
    struct watched_group_cursor *c = &w->group_cursors[rnd(w, 2)];
    if (!c->on) {
        c->on = true;
        directory_groups_begin(w->d, &c->c);
        for (int g = 0; g < GROUPS; g++) {
            c->due[g] = group_exists(w, g);
        }
        return;
    }
    const struct group *g = NULL;
    for (uint32_t n = rnd(w, 8) + 1; n > 0 && (g = group_cursor_next(&c->c)); n--) {
        int i = group_of_name(g);
        assert_true(c->due[i]);
        c->due[i] = false;
        w->visits++;
    }
    if (!g) {
        for (int i = 0; i < GROUPS; i++) {
            assert_false(c->due[i]);
        }
        c->on = false;
        group_cursor_end(&c->c);
    }
}

/* ---- comparing ---- */

static void compare_client(struct world *w, const struct client *c)
{
    char name[64];
    uint32_t groups = 0;
    assert_int_equal(c->m.id != 0, c->in);
    assert_int_equal(c->m.uid != NULL, c->in && c->uid != NONE);
    if (c->m.uid) {
        size_t len;
        const uint8_t *uid = uid_entry_name(c->m.uid, &len);
        assert_int_equal(len, name_of(name, sizeof(name), "uid", c->uid));
        assert_memory_equal(uid, name, len);
    }
    for (int g = 0; g < GROUPS; g++) {
        size_t len = name_of(name, sizeof(name), "group", g);
        groups += c->group[g];
        assert_int_equal(directory_is_in_group(w->d, &c->m, name, len), c->group[g]);
    }
    assert_int_equal(c->m.n_memberships, groups);
    assert_int_equal(c->m.session ? c->m.session->len : 0, c->session_len);
    for (size_t i = 0; i < c->session_len; i++) {
        assert_int_equal(c->m.session->data[i], c->session_byte);
    }
}

/* As many names are counted as there are. */
static void compare_filter(const struct name_filter *f, uint32_t names)
{
    for (uint32_t i = 0; i < NODE_FILTER_BUCKETS; i++) {
        names -= f->buckets[i];
    }
    assert_int_equal(names, 0);
}

static void compare(struct world *w)
{
    char name[64];
    uint32_t members = 0, uid[UIDS] = {0}, group[GROUPS] = {0}, uids = 0, groups = 0;
    const char *wrong = directory_check(w->d);
    if (wrong) {
        fail_msg("%s", wrong);
    }
    for (int i = 0; i < N; i++) {
        struct client *c = &w->clients[i];
        compare_client(w, c);
        members += c->in;
        if (c->in && c->uid != NONE) {
            uid[c->uid]++;
        }
        for (int g = 0; g < GROUPS; g++) {
            group[g] += c->group[g];
        }
    }
    for (int i = 0; i < UIDS; i++) {
        uids += uid[i] > 0;
        assert_int_equal(directory_uid_count(w->d, name, name_of(name, sizeof(name), "uid", i)), uid[i]);
    }
    for (int i = 0; i < GROUPS; i++) {
        groups += group[i] > 0;
        assert_int_equal(directory_group_count(w->d, name, name_of(name, sizeof(name), "group", i)),
                         group[i]);
    }
    assert_int_equal(directory_count(w->d), members);
    assert_int_equal(directory_uids(w->d), uids);
    assert_int_equal(directory_groups(w->d), groups);
}

static void step(struct world *w, uint32_t n)
{
    int i = (int)rnd(w, N);
    if (n % 2000 == 0) { /* swing between filling and emptying */
        w->joins_of_10 = w->joins_of_10 == 8 ? 2 : 8;
    }
    switch (rnd(w, 20)) {
    case 0:
    case 1: rnd(w, 10) < w->joins_of_10 ? step_add(w, i) : step_remove(w, i); break;
    case 2:
    case 3:
    case 4: step_bind(w, i); break;
    case 5: step_session(w, i); break;
    case 6:
        if (rnd(w, 20) == 0) {
            step_dissolve(w);
        }
        break;
    case 7:
    case 8: step_cursor(w); break;
    case 9: step_group_cursor(w); break;
    default: step_group(w, i); break;
    }
}

static void finish(struct world *w)
{
    compare(w);
    for (int i = 0; i < N; i++) {
        step_remove(w, i);
    }
    for (int k = 0; k < CURSORS; k++) {
        if (w->cursors[k].what != ON_NOTHING) {
            assert_null(member_cursor_next(&w->cursors[k].c));
            cursor_end(w, &w->cursors[k]);
        }
    }
    for (int k = 0; k < 2; k++) {
        group_cursor_end(&w->group_cursors[k].c);
    }
    compare(w);
    assert_true(directory_bytes(w->d) < 4096);
    directory_free(w->d);
    estate_close(w->estate); /* asserts that every session came back */
    compare_filter(&w->uids, 0);
    compare_filter(&w->groups, 0);
}

static void run(uint64_t seed, bool always_cursors, uint32_t steps)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->rng = seed;
    w->always_cursors = always_cursors;
    w->joins_of_10 = 2;
    int err;
    w->estate = estate_open(NULL, 0, N, (size_t)1 << 20, &err);
    assert_non_null(w->estate);
    w->d = directory_new(5, ID_SEQ_MAX - 100, w->estate);
    assert_non_null(w->d);
    directory_set_filters(w->d, &w->uids, &w->groups);
    for (uint32_t n = 0; n < steps; n++) {
        step(w, n);
        if (n % 1000 == 0) {
            compare(w);
        }
    }
    finish(w);
    print_message("seed %llu: %llu visits, %llu allocations failed\n", (unsigned long long)seed,
                  (unsigned long long)w->visits, (unsigned long long)w->failures);
    assert_true(w->visits > 1000 && w->failures > 10);
    free(w);
}

static void random_changes_agree_with_the_model(void **state)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        run(seed, false, 100000);
    }
}

static void random_changes_under_unbroken_cursors_agree_with_the_model(void **state)
{
    for (uint64_t seed = 11; seed <= 14; seed++) {
        run(seed, true, 100000);
    }
}

int main(void)
{
    hash_init_fixed(7);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_changes_agree_with_the_model),
        cmocka_unit_test(random_changes_under_unbroken_cursors_agree_with_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
