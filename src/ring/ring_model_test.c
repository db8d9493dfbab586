// SPDX-License-Identifier: MIT
/* Random operations on a ring and on a plain queue beside it: they agree on what is read, on what fits, on
 * who is to be woken; and the ring is valid after each. Deaths of either side among the operations. */
#include "ring/ring_util_test.h"

#include <errno.h>

#define QUEUE_MAX 4096
#define STEPS     20000

struct item {
    uint32_t type, len;
    enum ring_class class;
    uint64_t begin, end; /* positions, padding before it included */
};

/* Positions in items[]: released <= read <= published <= reserved. */
struct model {
    struct item items[QUEUE_MAX];
    unsigned released, read, published, reserved;
    uint64_t start;
    bool asleep, rung;
    uint32_t n;
};

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 32) % n);
}

static uint64_t position(const struct model *m, unsigned i)
{
    return i == 0 ? m->start : m->items[(i - 1) % QUEUE_MAX].end;
}

/* Where a record would end, by the rules as ring_shm.h states them. */
static struct item item_next(const struct model *m, enum ring_class class, uint32_t len, uint64_t size)
{
    struct item it = {.type = m->n, .len = len, .class = class, .begin = position(m, m->reserved)};
    uint64_t bytes = 8 + (len + 7) / 8 * 8, left = size - it.begin % size;
    it.end = it.begin + (bytes > left ? left : 0) + bytes;
    return it;
}

static void op_reserve(struct test_ring *t, struct model *m)
{
    uint32_t max = ring_record_max(&t->w);
    uint32_t len = random_below(4) == 0 ? random_below(max + 1) : random_below(100 < max ? 100 : max);
    enum ring_class class = random_below(4) == 0 ? RING_LIFECYCLE : RING_BULK;
    struct item it = item_next(m, class, len, t->shm->size);
    uint64_t limit = t->shm->size - (class == RING_BULK ? t->shm->reserve : 0);
    bool fits = it.end - position(m, m->released) <= limit;
    assert_int_equal(put(&t->w, class, m->n, len), fits ? 0 : -EAGAIN);
    if (fits) {
        m->items[m->reserved++ % QUEUE_MAX] = it;
        m->n++;
    }
}

static void op_publish(struct test_ring *t, struct model *m)
{
    bool something = m->published != m->reserved;
    bool wake = something && !m->rung && m->asleep;
    assert_int_equal(ring_publish(&t->w), wake);
    m->rung |= something;
    m->asleep &= !wake;
    m->published = m->reserved;
}

static void op_read(struct test_ring *t, struct model *m)
{
    if (m->read == m->published) {
        expect_empty(&t->r);
        return;
    }
    const struct item *it = &m->items[m->read++ % QUEUE_MAX];
    expect(&t->r, it->class, it->type, it->len);
}

static void op_release(struct test_ring *t, struct model *m)
{
    assert_false(ring_release(&t->r)); /* nobody asked for room */
    m->released = m->read;
}

static void op_sleep(struct test_ring *t, struct model *m)
{
    m->rung = false;
    m->asleep = m->read == m->published;
    assert_int_equal(ring_prepare_sleep(&t->r), m->asleep);
}

static void op_awake(struct test_ring *t, struct model *m)
{
    ring_cancel_sleep(&t->r);
    m->asleep = false;
}

static void op_producer_dies(struct test_ring *t, struct model *m)
{
    struct ring_report report;
    assert_int_equal(ring_repair(t->mem, t->bytes, RING_DEAD_PRODUCER, NULL, 0, &report), 0);
    assert_null(report.fault);
    assert_int_equal(report.cut_bytes, 0);
    assert_int_equal(ring_writer_attach(&t->w, t->mem, t->bytes, NULL, 0), 0);
    m->reserved = m->published;
    m->rung = true;
    m->asleep = false;
}

static void op_consumer_dies(struct test_ring *t, struct model *m)
{
    struct ring_report report;
    assert_int_equal(ring_repair(t->mem, t->bytes, RING_DEAD_CONSUMER, NULL, 0, &report), 0);
    assert_null(report.fault);
    assert_int_equal(ring_reader_attach(&t->r, t->mem, t->bytes, true), 0);
    m->read = m->released;
    m->asleep = false;
}

static void check(struct test_ring *t, const struct model *m)
{
    struct ring_report report;
    uint64_t want[RING_CLASS_N] = {0};
    for (unsigned i = m->released; i != m->published; i++)
        want[m->items[i % QUEUE_MAX].class]++;
    assert_int_equal(ring_valid(t->mem, t->bytes, &report), 0);
    assert_true(report.records[0] == want[0] && report.records[1] == want[1]);
    assert_true(report.tail == position(m, m->published));
}

static void step(struct test_ring *t, struct model *m)
{
    switch (random_below(32)) {
    case 0: op_sleep(t, m); break;
    case 1: op_awake(t, m); break;
    case 2: random_below(4) == 0 ? op_producer_dies(t, m) : op_consumer_dies(t, m); break;
    case 3: op_publish(t, m); break;
    case 4:
    case 5: op_publish(t, m); /* fall through */
    case 6:
    case 7:
    case 8: op_release(t, m); break;
    default: random_below(2) == 0 ? op_reserve(t, m) : op_read(t, m);
    }
}

static void a_ring_does_what_a_queue_does(void **state)
{
    static const struct {
        uint64_t size, reserve;
    } shapes[] = {{512, 0}, {512, 256}, {1024, 128}, {8192, 1024}};
    static struct model m;
    for (size_t shape = 0; shape < sizeof shapes / sizeof *shapes; shape++) {
        for (size_t i = 0; i < N_STARTS; i++) {
            struct test_ring t;
            random_state = 0x9E3779B97F4A7C15u + shape * 100 + i;
            memset(&m, 0, sizeof m);
            m.start = starts[i];
            test_ring_open(&t, shapes[shape].size, shapes[shape].reserve, starts[i]);
            for (unsigned n = 0; n < STEPS; n++) {
                step(&t, &m);
                check(&t, &m);
            }
            assert_true(m.n > STEPS / 20);
            test_ring_close(&t);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_ring_does_what_a_queue_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
