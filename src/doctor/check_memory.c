// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "doctor/doctor_priv.h"

/* Of an idle client, docs/PERFORMANCE.md: ours with uid, group and session; the kernel's, one end; with TLS.
 */
#define OURS_BYTES   765
#define KERNEL_BYTES 5000
#define TLS_BYTES    2500
#define SHARD_BYTES  (UINT64_C(16) << 20) /* of a shard without clients: program, tables, rings */

static uint64_t estimate(const struct doctor *d, bool *ret_tls)
{
    const struct doctor_report *r = d->report;
    uint64_t each = OURS_BYTES + KERNEL_BYTES, fixed = r->shards * SHARD_BYTES;
    bool deflate = false;

    *ret_tls = false;
    for (unsigned i = 0; i < d->cfg->n_listeners; i++) {
        *ret_tls |= d->cfg->listen[i].tls_certificate[0] != '\0';
        deflate |= d->cfg->listen[i].deflate;
    }
    if (*ret_tls)
        each += TLS_BYTES - OURS_BYTES;
    if (deflate)
        fixed += r->edge_shards * d->cfg->gateway.deflate_memory;
    return each * r->connections + fixed;
}

static bool number_in(const struct doctor *d, const char *folder, const char *file, uint64_t *ret)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return doctor__read_u64(d, path, ret); /* "max" is no number */
}

static bool memory_max_v2(const struct doctor *d, const char *folder, uint64_t *ret)
{
    return number_in(d, folder, "memory.max", ret);
}

static bool memory_max_v1(const struct doctor *d, const char *folder, uint64_t *ret)
{
    return number_in(d, folder, "memory.limit_in_bytes", ret);
}

static void look_at_amount(struct doctor *d)
{
    bool tls;
    uint64_t wanted = estimate(d, &tls),
             limit = doctor__cgroup_min(d, "memory", memory_max_v2, memory_max_v1);
    bool of_group = limit < d->memory_bytes;

    if (d->memory_bytes == 0 && limit == UINT64_MAX) {
        doctor__unknown(d, "memory", "/proc/meminfo");
        return;
    }
    uint64_t there = of_group || d->memory_bytes == 0 ? limit : d->memory_bytes;
    enum doctor_level level = wanted > there ? DOCTOR_BAD : wanted > there / 10 * 7 ? DOCTOR_WARN : DOCTOR_OK;
    struct doctor_finding *f = doctor__add(
        d, "memory", level,
        "an idle client is 765 bytes of the gateway (2.5 KB with TLS) and some 5 KB of the kernel "
        "(docs/PERFORMANCE.md); what waits in queues, and the workers, come on top");
    DOCTOR_SAY(f->found, "%" PRIu64 " MiB%s", there >> 20, of_group ? " (memory limit of the cgroup)" : "");
    DOCTOR_SAY(f->wanted, "%" PRIu64 " MiB for %" PRIu64 " idle clients%s, and a third more for queues",
               wanted >> 20, d->report->connections, tls ? " with TLS" : "");
    if (level == DOCTOR_OK)
        DOCTOR_SAY(f->found, "%" PRIu64 " MiB%s; idle clients take %" PRIu64 " MiB", there >> 20,
                   of_group ? " (memory limit of the cgroup)" : "", wanted >> 20);
    else if (of_group)
        DOCTOR_SAY(f->keep,
                   "MemoryMax=%" PRIu64 "M in [Service] of the systemd unit, or the limit of the container",
                   (wanted >> 20) * 10 / 7 + 1);
}

static void look_at_overcommit(struct doctor *d)
{
    static const char key[] = "vm.overcommit_memory";
    char text[16];

    if (!doctor__read_sysctl(d, key, text, sizeof text)) {
        doctor__unknown(d, key, "this sysctl");
        return;
    }
    struct doctor_finding *f = doctor__add(
        d, key, text[0] == '2' ? DOCTOR_BAD : DOCTOR_OK,
        "with 2 the kernel counts each reserved page as used, 33 GiB for each shard, and the gateway does "
        "not start");
    DOCTOR_SAY(f->found, "%s", text);
    DOCTOR_SAY(f->wanted, "0 or 1");
    if (f->level == DOCTOR_BAD)
        doctor__sysctl(f, key, "0");
}

static void look_at_swap(struct doctor *d)
{
    uint64_t total, free_bytes;

    if (!doctor__read_meminfo(d, "SwapTotal", &total) || !doctor__read_meminfo(d, "SwapFree", &free_bytes)) {
        doctor__unknown(d, "swap", "/proc/meminfo");
        return;
    }
    uint64_t used = total > free_bytes ? total - free_bytes : 0;
    struct doctor_finding *f =
        doctor__add(d, "swap", used > (UINT64_C(64) << 20) ? DOCTOR_WARN : DOCTOR_OK,
                    "a shard whose page has to be read from disk holds all of its clients up meanwhile");
    if (total == 0)
        DOCTOR_SAY(f->found, "none");
    else
        DOCTOR_SAY(f->found, "%" PRIu64 " of %" PRIu64 " MiB in use", used >> 20, total >> 20);
    DOCTOR_SAY(f->wanted, "none in use");
    if (f->level == DOCTOR_WARN) {
        DOCTOR_SAY(f->now, "sysctl -w vm.swappiness=1 && swapoff -a && swapon -a");
        DOCTOR_SAY(f->keep, "MemorySwapMax=0 in [Service] of the systemd unit");
    }
}

static void look_at_huge_pages(struct doctor *d)
{
    static const char path[] = "/sys/kernel/mm/transparent_hugepage/enabled";
    char text[64];
    uint64_t n;

    if (!doctor__read(d, path, text, sizeof text)) {
        doctor__unknown(d, "transparent_huge_pages", path);
    } else {
        struct doctor_finding *f = doctor__add(
            d, "transparent_huge_pages", strstr(text, "[always]") != NULL ? DOCTOR_WARN : DOCTOR_OK,
            "with always the kernel clears and merges pages of 2 MiB when it likes: turns that take longer, "
            "and memory for tables of which little is used");
        DOCTOR_SAY(f->found, "%s", text);
        DOCTOR_SAY(f->wanted, "madvise or never");
        if (f->level == DOCTOR_WARN) {
            DOCTOR_SAY(f->now, "echo madvise > %s", path);
            DOCTOR_SAY(f->keep,
                       "transparent_hugepage=madvise in the kernel's command line (GRUB_CMDLINE_LINUX)");
        }
    }
    if (!doctor__read_meminfo(d, "HugePages_Total", &n)) {
        doctor__unknown(d, "vm.nr_hugepages", "/proc/meminfo");
        return;
    }
    struct doctor_finding *f = doctor__add(d, "vm.nr_hugepages", DOCTOR_OK, "");
    DOCTOR_SAY(f->found, "%" PRIu64 "; the gateway uses none (DPDK would)", n);
}

void doctor__look_at_memory(struct doctor *d)
{
    look_at_amount(d);
    look_at_overcommit(d);
    doctor__at_least(d, "vm.max_map_count", 4096, 65530, "pieces of address space that a process may have");
    look_at_swap(d);
    look_at_huge_pages(d);
}
