// SPDX-License-Identifier: MIT
#include "admin/metrics_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LABELS_MAX 96

struct process_view {
    const struct node_process *p;
    const struct shard_shm *shard; /* NULL: it is none */
    char labels[LABELS_MAX];
    bool has_memory, has_cpu;
    uint64_t resident_bytes, shared_bytes, cpu_ns;
};

struct process_views {
    unsigned n;
    struct process_view list[NODE_PROCESSES_MAX];
};

/* /proc/PID/NAME, ended by a NUL; false: there is none. */
static bool read_proc(int pid, const char *name, char *buf, size_t cap)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, buf, cap - 1);
    close(fd);
    if (n <= 0)
        return false;
    buf[n] = '\0';
    return true;
}

/* proc(5), statm: size, resident, shared ... in pages. */
static void look_at_memory(struct process_view *v)
{
    char text[256], *end;

    if (!read_proc(v->p->pid, "statm", text, sizeof text))
        return;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    strtoull(text, &end, 10);
    v->resident_bytes = strtoull(end, &end, 10) * page;
    v->shared_bytes = strtoull(end, &end, 10) * page;
    v->has_memory = true;
}

/* proc(5), stat: behind the name in brackets, the 12th and 13th fields are utime and stime in ticks. */
static void look_at_cpu(struct process_view *v)
{
    char text[1024];

    if (v->shard != NULL) {
        v->cpu_ns = __atomic_load_n(&v->shard->cpu_ns, __ATOMIC_RELAXED);
        v->has_cpu = true;
        return;
    }
    if (!read_proc(v->p->pid, "stat", text, sizeof text))
        return;
    char *at = strrchr(text, ')');
    for (unsigned field = 0; at != NULL && field < 12; field++)
        at = strchr(at + 1, ' ');
    if (at == NULL)
        return;
    uint64_t ticks = strtoull(at, &at, 10);
    ticks += strtoull(at, &at, 10);
    v->cpu_ns = ticks * (UINT64_C(1000000000) / (uint64_t)sysconf(_SC_CLK_TCK));
    v->has_cpu = true;
}

static void look_at(struct process_view *v, const struct metrics_input *in, const struct node_process *p)
{
    *v = (struct process_view){.p = p};
    const char *kind = p->kind < PROCESS_KIND_N ? process_kind_name((enum process_kind)p->kind) : "unknown";
    if (p->kind == PROCESS_SHARD) {
        v->shard = &in->shm->blocks[p->number].shm;
        snprintf(v->labels, sizeof v->labels, "process=\"%s\",shard=\"%u\"", kind, p->number);
    } else {
        snprintf(v->labels, sizeof v->labels, "process=\"%s\"", kind);
    }
    if (p->pid > 0) {
        look_at_memory(v);
        look_at_cpu(v);
    }
}

static void look_at_all(const struct metrics_input *in, struct process_views *ret)
{
    const struct node_process *table = in->shm->processes;

    ret->n = 0;
    look_at(&ret->list[ret->n++], in, &table[NODE_PROCESS_SUPERVISOR]);
    look_at(&ret->list[ret->n++], in, &table[NODE_PROCESS_ANNOUNCER]);
    look_at(&ret->list[ret->n++], in, &table[NODE_PROCESS_ADMIN]);
    for (unsigned i = 0; i < in->shm->n_shards; i++)
        look_at(&ret->list[ret->n++], in, &table[NODE_PROCESS_SHARDS + i]);
}

static const char *begin(struct bytes *out, enum metric_id id)
{
    metrics__head(out, &metric_families[id]);
    return metric_families[id].name;
}

static void write_states(const struct process_views *all, struct bytes *out)
{
    char labels[LABELS_MAX + 32];

    const char *name = begin(out, METRIC_process_up);
    for (unsigned i = 0; i < all->n; i++)
        metrics__uint(out, name, all->list[i].labels, all->list[i].p->state == PROCESS_ALIVE);
    name = begin(out, METRIC_process_state);
    for (unsigned i = 0; i < all->n; i++) {
        for (uint32_t state = 0; state < PROCESS_STATE_N; state++) {
            snprintf(labels, sizeof labels, "%s,state=\"%s\"", all->list[i].labels,
                     process_state_name(state));
            metrics__uint(out, name, labels, all->list[i].p->state == state);
        }
    }
}

static void write_deaths(const struct process_views *all, struct bytes *out)
{
    const char *name = begin(out, METRIC_process_start_time_seconds);
    for (unsigned i = 0; i < all->n; i++) {
        if (all->list[i].p->pid > 0)
            metrics__ms(out, name, all->list[i].labels, all->list[i].p->start_unix_ms);
    }
    name = begin(out, METRIC_process_restarts_total);
    for (unsigned i = 0; i < all->n; i++)
        metrics__uint(out, name, all->list[i].labels, all->list[i].p->restarts);
    name = begin(out, METRIC_process_deaths_young);
    for (unsigned i = 0; i < all->n; i++)
        metrics__uint(out, name, all->list[i].labels, all->list[i].p->deaths_young);
}

static void write_use(const struct process_views *all, struct bytes *out)
{
    const char *name = begin(out, METRIC_process_cpu_seconds_total);
    for (unsigned i = 0; i < all->n; i++) {
        if (all->list[i].has_cpu)
            metrics__ns(out, name, all->list[i].labels, all->list[i].cpu_ns);
    }
    name = begin(out, METRIC_process_resident_memory_bytes);
    for (unsigned i = 0; i < all->n; i++) {
        if (all->list[i].has_memory)
            metrics__uint(out, name, all->list[i].labels, all->list[i].resident_bytes);
    }
    name = begin(out, METRIC_process_resident_shared_memory_bytes);
    for (unsigned i = 0; i < all->n; i++) {
        if (all->list[i].has_memory)
            metrics__uint(out, name, all->list[i].labels, all->list[i].shared_bytes);
    }
}

void metrics__processes(const struct metrics_input *in, struct bytes *out)
{
    struct process_views all;

    look_at_all(in, &all);
    write_states(&all, out);
    write_deaths(&all, out);
    write_use(&all, out);
}
