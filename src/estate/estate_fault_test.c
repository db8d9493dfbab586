// SPDX-License-Identifier: MIT
/* A process that dies at any single instruction: it is stepped through under ptrace, where a stopped process
 * leaves the same bytes as a dead one. After every instruction that changed the estate, an heir of a copy
 * finds what was there before the operation, or what is there after it, and nothing else. */
#include "estate/estate.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define CLIENTS          4
#define HEAP_BYTES       ((size_t)64 << 10)
#define CHANGES_AT_LEAST 100

static uint8_t *mem, *copy, *reference, *last;
static size_t mem_bytes;
static struct progress { /* shared */
    uint32_t operation;  /* being done */
} * progress;

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

/* ---- what an heir finds, as text */

struct text {
    char s[4096];
    size_t len;
};

static void say(struct text *t, const char *what, unsigned long a, unsigned long b, struct slice content)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < content.len; i++)
        sum = sum * 31 + content.data[i];
    t->len += (size_t)snprintf(t->s + t->len, sizeof t->s - t->len, "%s %lu %lu %zu:%x\n", what, a, b,
                               content.len, sum);
    assert_true(t->len < sizeof t->s);
}

/* memcpy, which the sanitizer does not let into memory that is free. */
__attribute__((no_sanitize("address"))) static void copy_all(void *to, const void *from)
{
    for (size_t i = 0; i < mem_bytes / sizeof(uint64_t); i++)
        ((volatile uint64_t *)to)[i] = ((const volatile uint64_t *)from)[i];
}

static void describe(const uint8_t *of, struct text *t)
{
    int err;
    struct legacy *l;
    struct slice s;
    struct estate_client c;
    copy_all(copy, of);
    struct estate *heir = estate_open(copy, mem_bytes, CLIENTS, HEAP_BYTES, &err);
    assert_non_null(heir);
    t->len = 0;
    t->s[0] = '\0';
    while ((l = estate_inherit(copy, mem_bytes)) != NULL) {
        while (legacy_packet(l, &s))
            say(t, "packet", 0, 0, s);
        while (legacy_client(l, &c, &s))
            say(t, "client", c.id, c.worker, s);
        assert_int_equal(legacy_damaged(l), 0);
        legacy_free(l);
    }
    estate_close(heir);
}

/* ---- operations */

static struct estate *estate;
static struct estate_client *clients[3];
static void *sessions[3];
static struct estate_chunk *chunks[3];

static void add(int i, uint32_t id)
{
    struct estate_client like = {.id = id, .worker = id, .ip = id};
    clients[i] = estate_client_add(estate, &like);
}

static void set_session(int i, uint32_t len, uint8_t byte)
{
    uint8_t *block = NULL;
    if (len > 0) {
        block = estate_alloc(estate, sizeof len + len);
        memcpy(block, &len, sizeof len);
        memset(block + sizeof len, byte, len);
    }
    estate_client_session(estate, clients[i], block);
    estate_free(estate, sessions[i]);
    sessions[i] = block;
}

static void remove_client(int i)
{
    estate_client_remove(estate, clients[i]);
    estate_free(estate, sessions[i]);
    sessions[i] = NULL;
}

static void put(int i, uint32_t len, uint8_t byte)
{
    uint8_t *at = estate_chunk_data(chunks[i]) + estate_chunk_len(chunks[i]);
    memset(at, byte, len);
    at[0] = at[1] = at[2] = 0;
    at[3] = (uint8_t)len;
    estate_chunk_commit(chunks[i], len);
}

static void chunk_new(int i, size_t cap)
{
    chunks[i] = estate_chunk_new(estate, cap);
}

static void open_estate(void *in)
{
    int err;
    estate = estate_open(in, mem_bytes, CLIENTS, HEAP_BYTES, &err);
    if (estate == NULL)
        _exit(1);
}

/* Records, sessions and memory of chunks are used again and again: nobody may be found with what is
 * another's. */
static bool operation(void *in, uint32_t number)
{
    switch (number) {
    case 0: open_estate(in); break;
    case 1: add(0, 11); break;
    case 2: set_session(0, 20, 1); break;
    case 3: set_session(0, 21, 2); break;
    case 4: set_session(0, 22, 3); break;
    case 5: add(1, 12); break;
    case 6: set_session(1, 30, 4); break;
    case 7: estate_client_bind(estate, clients[0], 7); break;
    case 8: remove_client(0); break;
    case 9: add(0, 13); break;
    case 10: set_session(0, 23, 5); break;
    case 11: remove_client(1); break;
    case 12: set_session(0, 0, 0); break;
    case 13: set_session(0, 40, 6); break;
    case 14: chunk_new(0, 100); break;
    case 15: put(0, 20, 1); break;
    case 16: put(0, 30, 2); break;
    case 17: chunk_new(1, 9000); break;
    case 18: put(1, 25, 3); break;
    case 19: put(0, 26, 4); break;
    case 20: estate_chunk_written(chunks[0], 20); break;
    case 21: estate_chunk_written(chunks[0], 49); break;
    case 22: estate_chunk_written(chunks[0], 76); break;
    case 23: estate_chunk_free(estate, chunks[0]); break;
    case 24: chunk_new(2, 100); break;
    case 25: put(2, 33, 5); break;
    case 26: estate_chunk_written(chunks[1], 25); break;
    case 27: estate_chunk_reset(estate, chunks[1]); break;
    case 28: put(1, 18, 6); break;
    case 29: estate_chunk_reset(estate, chunks[2]); break;
    case 30: put(2, 19, 7); break;
    case 31: estate_chunk_free(estate, chunks[1]); break;
    case 32: estate_trim(estate); break;
    case 33: estate_chunk_free(estate, chunks[2]); break;
    case 34: remove_client(0); break;
    case 35: estate_close(estate); break;
    default: return false;
    }
    return true;
}
#define OPERATIONS 36
#define BIND       7

/* What is to be found before each operation, and after the last. */
static struct text expected[OPERATIONS + 1], bound_to_none;

static void make_reference(void)
{
    memset(reference, 0, mem_bytes);
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        describe(reference, &expected[i]);
        if (i == BIND) {
            estate_client_bind(estate, clients[0], 0);
            describe(reference, &bound_to_none);
        }
        assert_true(operation(reference, i));
    }
    describe(reference, &expected[OPERATIONS]);
    assert_string_equal(expected[0].s, "");
    assert_string_equal(expected[OPERATIONS].s, "");
    for (int i = 0; i < 3; i++)
        sessions[i] = NULL;
}

/* ---- stepping */

static void script(void)
{
    for (uint32_t i = 0; operation(mem, i); i++)
        __atomic_store_n(&progress->operation, i + 1, __ATOMIC_SEQ_CST);
}

static pid_t start_traced(void (*what)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(2);
        raise(SIGSTOP);
        what();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSTOPPED(status)); /* else there is no ptrace here */
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL), 0);
    return pid;
}

/* check is called after every instruction that changed the memory. How many did. */
static unsigned step_through(void (*what)(void), void (*check)(void))
{
    int status;
    unsigned changes = 0;
    pid_t pid = start_traced(what);
    memcpy(last, mem, mem_bytes);
    for (;;) {
        assert_int_equal(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSTOPPED(status))
            break;
        assert_int_equal(WSTOPSIG(status), SIGTRAP);
        if (memcmp(last, mem, mem_bytes) == 0)
            continue;
        memcpy(last, mem, mem_bytes);
        check();
        changes++;
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    print_message("  %u instructions changed something\n", changes);
    return changes;
}

static void check_before_or_after(void)
{
    struct text found;
    uint32_t at = progress->operation;
    describe(mem, &found);
    if (at == BIND && strcmp(found.s, bound_to_none.s) == 0)
        return;
    const char *after = expected[at < OPERATIONS ? at + 1 : at].s;
    if (strcmp(found.s, expected[at].s) != 0 && strcmp(found.s, after) != 0)
        fail_msg("in operation %u:\n%s-- before:\n%s-- after:\n%s", at, found.s, expected[at].s, after);
}

static void any_instruction_leaves_what_was_or_what_will_be(void **state)
{
    make_reference();
    memset(mem, 0, mem_bytes);
    progress->operation = 0;
    assert_true(step_through(script, check_before_or_after) > CHANGES_AT_LEAST);
    assert_int_equal(progress->operation, OPERATIONS);
}

/* ---- the heir dies too */

#define LEFT_PACKETS 5

static void leave_something(void)
{
    memset(mem, 0, mem_bytes);
    open_estate(mem);
    for (uint8_t i = 0; i < LEFT_PACKETS; i++) {
        if (i % 2 == 0)
            chunk_new(0, 100);
        put(0, 20u + i, i);
    }
    for (int i = 0; i < 3; i++) {
        add(i, (uint32_t)i + 1);
        set_session(i, (uint32_t)i * 10, (uint8_t)i);
        sessions[i] = NULL;
    }
    estate_abandon(estate);
}

static void take_over(void)
{
    struct slice s;
    struct estate_client c;
    open_estate(mem);
    struct legacy *l = estate_inherit(mem, mem_bytes);
    chunk_new(0, 1000);
    while (legacy_packet(l, &s)) {
        memcpy(estate_chunk_data(chunks[0]) + estate_chunk_len(chunks[0]), s.data, s.len);
        estate_chunk_commit(chunks[0], s.len);
        legacy_packet_done(l);
    }
    while (legacy_client(l, &c, &s)) {
        uint32_t len = (uint32_t)s.len;
        uint8_t *block = estate_alloc(estate, sizeof len + len);
        memcpy(block, &len, sizeof len);
        if (len > 0)
            memcpy(block + sizeof len, s.data, len);
        c.session = estate_session(estate, block);
        estate_client_add(estate, &c);
        legacy_client_done(l);
    }
    legacy_free(l);
}

/* Each once; one thing twice, while it is being handed on. */
static void check_nothing_is_lost(void)
{
    struct text found;
    describe(mem, &found);
    unsigned lines = 0, seen[LEFT_PACKETS + 3] = {0};
    for (const char *at = found.s; *at != '\0'; at = strchr(at, '\n') + 1, lines++) {
        unsigned long id, worker, len;
        if (sscanf(at, "packet %lu %lu %lu:", &id, &worker, &len) == 3)
            seen[len - 20]++;
        else if (sscanf(at, "client %lu %lu %lu:", &id, &worker, &len) == 3 && len == (id - 1) * 10)
            seen[LEFT_PACKETS + id - 1]++;
        else
            fail_msg("%s", at);
    }
    for (int i = 0; i < LEFT_PACKETS + 3; i++)
        assert_in_range(seen[i], 1, 2);
    assert_in_range(lines, LEFT_PACKETS + 3, LEFT_PACKETS + 4);
}

static void an_heir_that_dies_at_any_instruction_loses_nothing(void **state)
{
    leave_something();
    check_nothing_is_lost();
    assert_true(step_through(take_over, check_nothing_is_lost) > LEFT_PACKETS * 3);
}

static int map_memory(void **state)
{
    mem_bytes = estate_bytes(CLIENTS, HEAP_BYTES);
    mem = map(mem_bytes);
    copy = map(mem_bytes);
    reference = map(mem_bytes);
    last = map(mem_bytes);
    progress = map(sizeof *progress);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_instruction_leaves_what_was_or_what_will_be),
        cmocka_unit_test(an_heir_that_dies_at_any_instruction_loses_nothing),
    };
    return cmocka_run_group_tests(tests, map_memory, NULL);
}
