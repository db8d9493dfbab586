// SPDX-License-Identifier: MIT
#include "transfer/transfer_fill_test.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* The functions of each record as ones of any record. */
#define WRAP(name, type, version, fields, text)                                                              \
    static bool put_##name(struct bytes *out, const void *r)                                                 \
    {                                                                                                        \
        return transfer_put_##name(out, r);                                                                  \
    }                                                                                                        \
    static bool put_fields_##name(struct bytes *out, const void *r)                                          \
    {                                                                                                        \
        return transfer_put_##name##_fields(out, r);                                                         \
    }                                                                                                        \
    static int get_##name(struct slice from, void *ret)                                                      \
    {                                                                                                        \
        return transfer_get_##name(from, ret);                                                               \
    }
TRANSFER_RECORDS(WRAP)
static const struct codec {
    bool (*put)(struct bytes *out, const void *r);
    bool (*put_fields)(struct bytes *out, const void *r);
    int (*get)(struct slice from, void *ret);
} codecs[] = {
#define CODEC(name, type, version, fields, text) {put_##name, put_fields_##name, get_##name},
    TRANSFER_RECORDS(CODEC)};

static struct slice slice_of(const struct bytes *b)
{
    return (struct slice){b->data, b->len};
}

static void assert_same(const struct transfer_layout *l, union any_record *a, union any_record *b)
{
    for (unsigned tag = 0; tag < l->n; tag++) {
        const struct transfer_field *f = &l->fields[tag];
        if (f->kind == TRANSFER_NUMBER)
            assert_true(*filled_number(a, f) == *filled_number(b, f));
        else if (f->kind == TRANSFER_BYTES)
            assert_true(slice_eq(*filled_slice(a, f), *filled_slice(b, f)));
    }
}

/* For the record of each type: its table, its functions, and one that is filled. */
static void for_each(void (*check)(const struct transfer_layout *l, const struct codec *c, struct filled *f))
{
    static struct filled f;
    const struct transfer_layout *l;
    for (unsigned i = 0; (l = transfer__layout(i)) != NULL; i++) {
        fill(&f, l);
        check(l, &codecs[i], &f);
    }
}

static void check_round_trip(const struct transfer_layout *l, const struct codec *c, struct filled *f)
{
    struct bytes out = {0};
    struct transfer_record rec;
    union any_record got;
    assert_true(bytes_append_str(&out, "before"));
    assert_true(c->put(&out, &f->r));
    struct slice run = {out.data + 6, out.len - 6};
    assert_int_equal(transfer_next(&run, &rec), 1);
    assert_int_equal(rec.type, l->type);
    assert_int_equal(rec.handle, -1);
    assert_int_equal(transfer_next(&run, &rec), 0);
    memset(&got, 0xFF, sizeof got);
    assert_int_equal(c->get(rec.fields, &got), 0);
    assert_same(l, &f->r, &got);
    /* The fields alone are the same bytes. */
    struct bytes fields = {0};
    assert_true(c->put_fields(&fields, &f->r));
    assert_true(slice_eq(slice_of(&fields), rec.fields));
    bytes_fini(&fields);
    bytes_fini(&out);
}

static void every_field_of_every_record_comes_back(void **state)
{
    for_each(check_round_trip);
}

static void check_each_alone(const struct transfer_layout *l, const struct codec *c, struct filled *f)
{
    for (unsigned tag = 0; tag < l->n; tag++) {
        const struct transfer_field *field = &l->fields[tag];
        union any_record one = {0}, got;
        struct bytes out = {0};
        if (field->kind == TRANSFER_NO_FIELD)
            continue;
        if (field->kind == TRANSFER_NUMBER)
            *filled_number(&one, field) = UINT64_MAX;
        else
            *filled_slice(&one, field) = *filled_slice(&f->r, field);
        assert_true(c->put_fields(&out, &one));
        assert_int_equal(c->get(slice_of(&out), &got), 0);
        assert_same(l, &one, &got);
        bytes_fini(&out);
    }
}

static void what_is_missing_is_0_or_empty(void **state)
{
    for_each(check_each_alone);
}

static void check_empty(const struct transfer_layout *l, const struct codec *c, struct filled *f)
{
    union any_record none = {0}, got;
    struct bytes out = {0};
    assert_true(c->put(&out, &none));
    assert_int_equal(out.len, TRANSFER_HEAD_BYTES);
    memset(&got, 0xFF, sizeof got);
    assert_int_equal(c->get((struct slice){NULL, 0}, &got), 0);
    assert_same(l, &none, &got);
    bytes_fini(&out);
}

static void zeros_are_not_written(void **state)
{
    for_each(check_empty);
}

static void check_cut(const struct transfer_layout *l, const struct codec *c, struct filled *f)
{
    struct bytes out = {0};
    assert_true(c->put(&out, &f->r));
    for (size_t len = 0; len < out.len; len++) {
        /* Of exactly that length, so that a read behind it is seen. */
        uint8_t *cut = malloc(len + 1);
        assert_non_null(cut);
        uint8_t *at = cut + 1;
        memcpy(at, out.data, len);
        struct slice run = {at, len};
        struct transfer_record rec;
        assert_int_equal(transfer_next(&run, &rec), len == 0 ? 0 : -EBADMSG);
        if (len >= TRANSFER_HEAD_BYTES) {
            union any_record got;
            struct slice fields = {at + TRANSFER_HEAD_BYTES, len - TRANSFER_HEAD_BYTES};
            int r = c->get(fields, &got);
            assert_true(r == 0 || r == -EBADMSG);
            if (r == 0) { /* between two fields: those before are there, and write the same again */
                struct bytes again = {0};
                assert_true(c->put_fields(&again, &got));
                assert_true(slice_eq(slice_of(&again), fields));
                bytes_fini(&again);
            }
        }
        free(cut);
    }
    bytes_fini(&out);
}

static void a_record_that_is_cut_off_is_an_error_or_a_shorter_one(void **state)
{
    for_each(check_cut);
}

static void check_any_byte_changed(const struct transfer_layout *l, const struct codec *c, struct filled *f)
{
    struct bytes out = {0};
    assert_true(c->put_fields(&out, &f->r));
    for (size_t i = 0; i < out.len; i++) {
        for (unsigned v = 0; v < 256; v++) {
            union any_record got;
            uint8_t was = out.data[i];
            out.data[i] = (uint8_t)v;
            int r = c->get(slice_of(&out), &got);
            assert_true(r == 0 || r == -EBADMSG);
            out.data[i] = was;
        }
    }
    bytes_fini(&out);
}

static void no_byte_makes_the_reader_fail_otherwise(void **state)
{
    for_each(check_any_byte_changed);
}

/* ---- bytes as they are written down in docs/TRANSFER-FORMAT.md */

static void the_wire_form_is_as_documented(void **state)
{
    struct bytes out = {0};
    struct transfer_end end = {.phase = 1, .records = 300, .workers = 5};
    assert_true(transfer_put_end(&out, &end));
    assert_int_equal(out.len, 12 + 2 + 3 + 2);
    assert_memory_equal(out.data, ((uint8_t[]){8, 0, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0}), 12);
    assert_memory_equal(out.data + 12, ((uint8_t[]){0x08, 0x01, 0x10, 0xAC, 0x02, 0x18, 0x05}), 7);
    bytes_clear(&out);
    struct transfer_client c = {.id = 1, .groups = SLICE_STR("\1a"), .parked_moved = 128};
    assert_true(transfer_put_client_fields(&out, &c));
    assert_int_equal(out.len, 2 + 4 + 3);
    assert_memory_equal(out.data, "\x08\x01\x4A\x02\x01\x61\x78\x80\x01", 9);
    bytes_clear(&out);
    c = (struct transfer_client){.parked_ago_ms = 1};
    assert_true(transfer_put_client_fields(&out, &c));
    assert_int_equal(out.len, 3); /* a tag from 16 on takes two bytes */
    assert_memory_equal(out.data, "\x80\x01\x01", 3);
    bytes_fini(&out);
}

#define GET_END(literal, ret) transfer_get_end(SLICE_STR(literal), ret)

static void fields_that_are_not_known_are_skipped(void **state)
{
    struct transfer_end e;
    /* tag 15 a number, tag 15 bytes, tag 1000 bytes, a tag of 61 bits */
    assert_int_equal(GET_END("\x78\x05\x08\x02\x7A\x03"
                             "abc\x10\x07\xC2\x3E\x01x",
                             &e),
                     0);
    assert_int_equal(e.phase, 2);
    assert_int_equal(e.records, 7);
    assert_int_equal(GET_END("\xF8\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01\x05\x10\x07", &e), 0);
    assert_int_equal(e.records, 7);
}

static void the_last_of_two_counts(void **state)
{
    struct transfer_end e;
    assert_int_equal(GET_END("\x08\x02\x10\x07\x08\x01", &e), 0);
    assert_int_equal(e.phase, 1);
    assert_int_equal(GET_END("\x10\x07\x08\x01", &e), 0); /* any order */
    assert_int_equal(e.records, 7);
    assert_int_equal(GET_END("\x08\x81\x80\x00", &e), 0); /* longer than need be */
    assert_int_equal(e.phase, 1);
}

static void nonsense_is_refused(void **state)
{
    struct transfer_end e;
    assert_int_equal(GET_END("\x0A\x01x", &e), -EBADMSG); /* bytes for a number */
    assert_int_equal(GET_END("\x00\x01", &e), -EBADMSG);  /* tag 0 */
    assert_int_equal(GET_END("\x02\x01x", &e), -EBADMSG); /* tag 0 */
    assert_int_equal(GET_END("\x7A\x02x", &e), -EBADMSG); /* longer than what is there */
    assert_int_equal(GET_END("\x08", &e), -EBADMSG);      /* no value */
    assert_int_equal(GET_END("\x08\x80", &e), -EBADMSG);  /* no end */
    for (unsigned kind = 1; kind < 8; kind++) {
        uint8_t bytes[9] = {(uint8_t)(15 << 3 | kind)};
        if (kind != 2)
            assert_int_equal(transfer_get_end((struct slice){bytes, sizeof bytes}, &e), -EBADMSG);
    }
    struct transfer_client c;
    assert_int_equal(transfer_get_client(SLICE_STR("\x38\x01"), &c), -EBADMSG); /* a number for bytes */
    assert_int_equal(GET_END("\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", &e), 0);
    assert_true(e.phase == UINT64_MAX);
    assert_int_equal(GET_END("\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02", &e), -EBADMSG);
    assert_int_equal(GET_END("\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", &e), -EBADMSG);
    assert_int_equal(GET_END("\x7A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", &e), -EBADMSG);
}

static void a_head_must_be_known(void **state)
{
    struct bytes out = {0};
    struct transfer_end end = {.phase = 1};
    struct transfer_record rec;
    assert_true(transfer_put_end(&out, &end));
    struct slice run = slice_of(&out);
    out.data[2] = 99; /* any version */
    assert_int_equal(transfer_next(&run, &rec), 1);
    for (unsigned i = 0; i < 8; i++) {
        uint8_t was = out.data[i];
        if (i == 2 || i == 3)
            continue;
        run = slice_of(&out);
        out.data[i] = 0xF0; /* type, flags, nothing */
        assert_int_equal(transfer_next(&run, &rec), -EBADMSG);
        assert_int_equal(run.len, out.len);
        out.data[i] = was;
    }
    bytes_fini(&out);
}

static void records_follow_each_other(void **state)
{
    static struct filled f;
    const struct transfer_layout *l;
    struct bytes out = {0};
    struct transfer_record rec;
    unsigned i;
    for (i = 0; (l = transfer__layout(i)) != NULL; i++) {
        fill(&f, l);
        assert_true(codecs[i].put(&out, &f.r));
    }
    struct slice run = slice_of(&out);
    for (i = 0; (l = transfer__layout(i)) != NULL; i++) {
        assert_int_equal(transfer_next(&run, &rec), 1);
        assert_int_equal(rec.type, l->type);
    }
    assert_int_equal(transfer_next(&run, &rec), 0);
    bytes_fini(&out);
}

static void without_memory_nothing_is_written(void **state)
{
    struct bytes out = {.failed = true};
    struct transfer_end end = {.phase = 1};
    assert_false(transfer_put_end(&out, &end));
    assert_false(transfer_list_add(&out, "x", 1));
    assert_int_equal(out.len, 0);
    out.failed = false;
    /* More than a length can say. */
    struct transfer_client c = {.session = {(const uint8_t *)"x", (size_t)UINT32_MAX}};
    assert_false(transfer_put_client(&out, &c));
    assert_true(out.failed);
    bytes_fini(&out);
}

/* ---- parts of fields */

static void a_list_has_its_elements(void **state)
{
    struct bytes out = {0};
    struct slice list, got;
    const struct slice parts[] = {SLICE_STR("ab"), {NULL, 0}, SLICE_STR("c")};
    char large[300];
    memset(large, 'y', sizeof large);
    assert_true(transfer_list_add(&out, "x", 1));
    assert_true(transfer_list_add(&out, NULL, 0));
    assert_true(transfer_list_add(&out, large, sizeof large));
    assert_true(transfer_list_add_parts(&out, parts, 3));
    assert_true(transfer_list_add_parts(&out, NULL, 0));
    assert_memory_equal(out.data, "\1x\0\xAC\2y", 6);
    list = slice_of(&out);
    assert_int_equal(transfer_list_next(&list, &got), 1);
    assert_true(slice_eq_str(got, "x"));
    assert_int_equal(transfer_list_next(&list, &got), 1);
    assert_int_equal(got.len, 0);
    assert_int_equal(transfer_list_next(&list, &got), 1);
    assert_int_equal(got.len, sizeof large);
    assert_memory_equal(got.data, large, sizeof large);
    assert_int_equal(transfer_list_next(&list, &got), 1);
    assert_true(slice_eq_str(got, "abc"));
    assert_int_equal(transfer_list_next(&list, &got), 1);
    assert_int_equal(got.len, 0);
    assert_int_equal(transfer_list_next(&list, &got), 0);
    bytes_fini(&out);
}

static void a_list_that_is_cut_off_is_an_error(void **state)
{
    struct bytes out = {0};
    struct slice got;
    assert_true(transfer_list_add(&out, "hello", 5));
    for (size_t len = 1; len < out.len; len++) {
        struct slice list = {out.data, len};
        assert_int_equal(transfer_list_next(&list, &got), -EBADMSG);
    }
    struct slice list = SLICE_STR("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01");
    assert_int_equal(transfer_list_next(&list, &got), -EBADMSG);
    bytes_fini(&out);
}

static void check_address(const struct net_addr *a, const char *want, size_t len)
{
    struct bytes out = {0};
    struct net_addr got = {.family = 99};
    assert_true(transfer_put_address(&out, a));
    assert_int_equal(out.len, len);
    assert_memory_equal(out.data, want, len);
    assert_int_equal(transfer_get_address(slice_of(&out), &got), 0);
    assert_memory_equal(&got, a, sizeof got);
    for (size_t cut = 0; cut < out.len; cut++)
        assert_int_equal(transfer_get_address((struct slice){out.data, cut}, &got), -EBADMSG);
    assert_true(bytes_append_byte(&out, 0));
    assert_int_equal(transfer_get_address(slice_of(&out), &got), -EBADMSG);
    bytes_fini(&out);
}

static void addresses_come_back(void **state)
{
    struct net_addr a, got;
    memset(&a, 0, sizeof a);
    a.family = AF_INET;
    memcpy(a.ip, "\1\2\3\4", 4);
    a.port = 0x1234;
    check_address(&a, "\4\1\2\3\4\x34\x12", 7);
    a.family = AF_INET6;
    memcpy(a.ip, "0123456789abcdef", 16);
    check_address(&a,
                  "\6"
                  "0123456789abcdef\x34\x12",
                  19);
    memset(&a, 0, sizeof a);
    a.family = AF_UNIX;
    check_address(&a, "\0\0\0", 3);
    for (unsigned kind = 0; kind < 256; kind++) {
        uint8_t bytes[7] = {(uint8_t)kind, 1, 2, 3, 4, 5, 6};
        int r = transfer_get_address((struct slice){bytes, sizeof bytes}, &got);
        assert_int_equal(r, kind == 4 ? 0 : -EBADMSG);
    }
}

struct counting_sink {
    struct transfer_sink sink;
    unsigned puts, fail_at;
};

static int count_put(struct transfer_sink *s, unsigned to, struct slice record, int handle)
{
    struct counting_sink *c = (struct counting_sink *)s;
    assert_int_equal(to, c->puts++);
    assert_int_equal(handle, -1);
    assert_true(slice_eq_str(record, "record"));
    return to == c->fail_at ? -EIO : 0;
}

static void a_record_goes_to_all(void **state)
{
    struct counting_sink c = {{count_put}, 0, 99};
    struct transfer_plan plan = {.n_shards = 3};
    assert_int_equal(transfer_put_all(&c.sink, &plan, SLICE_STR("record")), 0);
    assert_int_equal(c.puts, 3);
    c.puts = 0;
    c.fail_at = 1;
    assert_int_equal(transfer_put_all(&c.sink, &plan, SLICE_STR("record")), -EIO);
    assert_int_equal(c.puts, 2);
}

/* ---- the list */

static void the_list_keeps_its_rules(void **state)
{
    const struct transfer_layout *l;
    for (unsigned i = 0; (l = transfer__layout(i)) != NULL; i++) {
        unsigned offset = 0;
        assert_true(l->type > 0 && l->version > 0 && strlen(l->text) > 0);
        assert_int_equal(l->fields[0].kind, TRANSFER_NO_FIELD);
        for (unsigned tag = 1; tag < l->n; tag++) {
            if (l->fields[tag].kind == TRANSFER_NO_FIELD)
                continue;
            assert_int_equal(l->fields[tag].offset, offset); /* tags stand in order */
            offset += l->fields[tag].kind == TRANSFER_NUMBER ? 8 : 16;
        }
        assert_int_equal(offset, l->size);
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(l->name, transfer__layout(k)->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_of_every_record_comes_back),
        cmocka_unit_test(what_is_missing_is_0_or_empty),
        cmocka_unit_test(zeros_are_not_written),
        cmocka_unit_test(a_record_that_is_cut_off_is_an_error_or_a_shorter_one),
        cmocka_unit_test(no_byte_makes_the_reader_fail_otherwise),
        cmocka_unit_test(the_wire_form_is_as_documented),
        cmocka_unit_test(fields_that_are_not_known_are_skipped),
        cmocka_unit_test(the_last_of_two_counts),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(a_head_must_be_known),
        cmocka_unit_test(records_follow_each_other),
        cmocka_unit_test(without_memory_nothing_is_written),
        cmocka_unit_test(a_list_has_its_elements),
        cmocka_unit_test(a_list_that_is_cut_off_is_an_error),
        cmocka_unit_test(addresses_come_back),
        cmocka_unit_test(a_record_goes_to_all),
        cmocka_unit_test(the_list_keeps_its_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
