// SPDX-License-Identifier: MIT
#include "upstream/gatewayworker/meter.h"

#include <string.h>

/* Marks are not nearer to each other. */
#define MARK_NS UINT64_C(1000000)

static void observe(struct meter *m, uint64_t ns, uint64_t times, struct histogram *all)
{
    histogram_add_n(&m->times, HISTOGRAM_SHIFT_worker_queue, ns, times);
    histogram_add_n(all, HISTOGRAM_SHIFT_worker_queue, ns, times);
}

static void forget(struct meter *m, uint32_t first, uint32_t n)
{
    memmove(m->marks + first, m->marks + first + n, (m->n - first - n) * sizeof m->marks[0]);
    m->n -= n;
}

/* The mark goes whose neighbours are the nearest to each other, as seen from now. */
static void thin(struct meter *m, uint64_t now_ns)
{
    uint32_t least = 1;
    double least_gap = 0;
    for (uint32_t i = 1; i + 1 < m->n; i++) {
        double age = (double)(now_ns - m->marks[i + 1].ns + MARK_NS);
        double gap = (double)(m->marks[i + 1].ns - m->marks[i - 1].ns) / age;
        if (i == 1 || gap < least_gap) {
            least = i;
            least_gap = gap;
        }
    }
    forget(m, least, 1);
}

void meter_waits(struct meter *m, uint64_t written, uint64_t queued, uint64_t now_ns)
{
    uint64_t before = m->queued;
    m->queued = queued;
    if (m->n == 0) {
        m->marks[m->n++] = (struct meter_mark){written, now_ns};
        m->first_seen = false;
        return;
    }
    if (queued == before || now_ns - m->marks[m->n - 1].ns < MARK_NS)
        return;
    if (m->n == METER_MARKS)
        thin(m, now_ns);
    m->marks[m->n++] = (struct meter_mark){before, now_ns};
}

void meter_written(struct meter *m, uint64_t written, uint64_t queued, uint64_t now_ns, struct histogram *all)
{
    uint32_t n = 0; /* marks behind which something was written */
    for (; n < m->n && m->marks[n].position < written; n++)
        if (n > 0 || !m->first_seen)
            observe(m, now_ns - m->marks[n].ns, 1, all);
    if (written == queued) {
        m->n = 0;
        return;
    }
    if (n == 0)
        return;
    /* The last of them is the first that is left, unless the next one stands right here. */
    bool next_is_here = n < m->n && m->marks[n].position == written;
    forget(m, 0, next_is_here ? n : n - 1);
    m->first_seen = !next_is_here;
}

void meter_moved(struct meter *m, uint64_t written, uint64_t queued)
{
    if (m->n == 0)
        return;
    m->n = written == queued ? 0 : 1;
    m->marks[0].position = written;
    m->first_seen = false;
    m->queued = queued;
}

void meter_sample(struct meter *m, uint64_t ns, struct histogram *all)
{
    observe(m, ns, METER_SAMPLE, all);
}
