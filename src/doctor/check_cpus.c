// SPDX-License-Identifier: MIT
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "common/number_list.h"
#include "doctor/doctor_priv.h"

static void look_at_number(struct doctor *d)
{
    unsigned shards = d->report->shards;

    if (d->n_cpus == 0) {
        doctor__unknown(d, "cpus", "/proc/self/status");
        return;
    }
    struct doctor_finding *f = doctor__add(
        d, "cpus", d->n_cpus < shards ? DOCTOR_WARN : DOCTOR_OK,
        "shards that share a CPU hold each other's clients up; workers on this machine need CPUs, too");
    DOCTOR_SAY(f->found, "%u that may be used, %u shard%s", d->n_cpus, shards, shards == 1 ? "" : "s");
    DOCTOR_SAY(f->wanted, "one CPU for each shard");
    if (f->level == DOCTOR_WARN)
        DOCTOR_SAY(f->keep, "shards = %u in [gateway] of the configuration", d->n_cpus);
}

static bool may_use(const struct doctor *d, unsigned cpu)
{
    for (unsigned i = 0; i < d->n_cpus; i++) {
        if (d->cpus[i] == cpu)
            return true;
    }
    return false;
}

/* Key cpus, when it is a list. */
static void look_at_pins(struct doctor *d)
{
    const char *text = d->cfg->gateway.cpus;
    uint16_t list[DOCTOR_CPUS_MAX];

    if (strcmp(text, "auto") == 0 || strcmp(text, "none") == 0 || d->n_cpus == 0)
        return;
    int n = number_list_parse(text, UINT16_MAX, list, DOCTOR_CPUS_MAX);
    for (int i = 0; i < n; i++) {
        if (may_use(d, list[i]))
            continue;
        struct doctor_finding *f = doctor__add(
            d, "cpus_pinned", DOCTOR_BAD, "a shard is to run there, and may not: the gateway does not start");
        DOCTOR_SAY(f->found, "CPU %u of the key cpus is not there, or not for this process", list[i]);
        DOCTOR_SAY(f->wanted, "CPUs that this process may use (taskset -cp $$)");
        DOCTOR_SAY(
            f->keep,
            "cpus = auto in [gateway] of the configuration, or CPUAffinity, AllowedCPUs of the systemd unit");
        return;
    }
    struct doctor_finding *f = doctor__add(d, "cpus_pinned", DOCTOR_OK, "");
    DOCTOR_SAY(f->found, "%.128s", text);
}

/* ---- quota, in thousandths of a CPU */

static bool quota_v2(const struct doctor *d, const char *folder, uint64_t *ret)
{
    char path[PATH_MAX], text[64];
    uint64_t v[2];

    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (!doctor__read(d, path, text, sizeof text) || doctor__numbers(text, v, 2) != 2 || v[1] == 0)
        return false; /* "max 100000" */
    *ret = v[0] * 1000 / v[1];
    return true;
}

static bool quota_v1(const struct doctor *d, const char *folder, uint64_t *ret)
{
    char path[PATH_MAX];
    uint64_t quota, period;

    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!doctor__read_u64(d, path, &quota)) /* -1: none */
        return false;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (!doctor__read_u64(d, path, &period) || period == 0)
        return false;
    *ret = quota * 1000 / period;
    return true;
}

static void look_at_quota(struct doctor *d)
{
    uint64_t quota = doctor__cgroup_min(d, "cpu", quota_v2, quota_v1);
    uint64_t wanted = (uint64_t)d->report->shards * 1000;
    struct doctor_finding *f = doctor__add(
        d, "cpu_quota", quota < wanted ? DOCTOR_WARN : DOCTOR_OK,
        "when the quota is used up all shards stand still for the rest of the period (some 100 ms)");
    if (quota == UINT64_MAX)
        DOCTOR_SAY(f->found, "none");
    else
        DOCTOR_SAY(f->found, "%" PRIu64 ".%" PRIu64 " CPUs (of the cgroup)", quota / 1000,
                   quota % 1000 / 100);
    DOCTOR_SAY(f->wanted, "%u CPUs or more, or no quota", d->report->shards);
    if (f->level == DOCTOR_WARN)
        DOCTOR_SAY(f->keep,
                   "CPUQuota=%u00%% in [Service] of the systemd unit, or the limit of the container; or "
                   "fewer shards",
                   d->report->shards);
}

/* ---- clock and governor */

static void look_at_clock(struct doctor *d)
{
    static const char folder[] = "/sys/devices/system/clocksource/clocksource0";
    static const char *const fast[] = {"tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page"};
    char path[128], text[64], others[256] = "";
    bool good = false;

    snprintf(path, sizeof path, "%s/current_clocksource", folder);
    if (!doctor__read(d, path, text, sizeof text)) {
        doctor__unknown(d, "clock_source", path);
        return;
    }
    for (size_t i = 0; i < sizeof fast / sizeof fast[0]; i++)
        good |= strcmp(text, fast[i]) == 0;
    struct doctor_finding *f = doctor__add(d, "clock_source", good ? DOCTOR_OK : DOCTOR_WARN,
                                           "others are read by a system call and a slow device, a "
                                           "microsecond or more each time, several times in "
                                           "each turn of the loop");
    snprintf(path, sizeof path, "%s/available_clocksource", folder);
    doctor__read(d, path, others, sizeof others);
    DOCTOR_SAY(f->found, "%s", text);
    DOCTOR_SAY(f->wanted, "tsc (of a virtual machine also kvm-clock)");
    if (good)
        return;
    if (strstr(others, "tsc") != NULL)
        DOCTOR_SAY(f->now, "echo tsc > %s/current_clocksource", folder);
    DOCTOR_SAY(f->keep,
               "clocksource=tsc in the kernel's command line; dmesg says why the kernel left it (unstable?)");
}

static void look_at_governor(struct doctor *d)
{
    char path[128], text[64] = "", bad[64] = "";
    unsigned slow = 0, seen = 0;

    for (unsigned i = 0; i < d->n_cpus; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/cpufreq/scaling_governor", d->cpus[i]);
        if (!doctor__read(d, path, text, sizeof text))
            continue;
        seen++;
        if (strcmp(text, "performance") != 0 && strcmp(text, "schedutil") != 0) {
            slow++;
            snprintf(bad, sizeof bad, "%s", text);
        }
    }
    if (seen == 0) {
        doctor__unknown(d, "cpu_governor", "cpufreq (a virtual machine has none)");
        return;
    }
    struct doctor_finding *f =
        doctor__add(d, "cpu_governor", slow > 0 ? DOCTOR_WARN : DOCTOR_OK,
                    "a CPU that is slow to speed up makes the first messages after a pause late");
    DOCTOR_SAY(f->found, "%s%s", slow > 0 ? bad : text, slow > 0 && slow < seen ? " on some CPUs" : "");
    DOCTOR_SAY(f->wanted, "performance or schedutil");
    if (slow > 0) {
        DOCTOR_SAY(f->now, "echo performance | tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor");
        DOCTOR_SAY(
            f->keep,
            "GOVERNOR=performance in /etc/default/cpufrequtils (package cpufrequtils), or tuned-adm profile "
            "latency-performance");
    }
}

/* CPUs that the scheduler leaves alone: good for shards that are pinned to them, bad when nobody is. */
static void look_at_isolated(struct doctor *d)
{
    char text[256];

    if (!doctor__read(d, "/sys/devices/system/cpu/isolated", text, sizeof text))
        return;
    bool pinned = strcmp(d->cfg->gateway.cpus, "auto") != 0 && strcmp(d->cfg->gateway.cpus, "none") != 0;
    struct doctor_finding *f = doctor__add(d, "cpus_isolated", pinned ? DOCTOR_OK : DOCTOR_WARN,
                                           "nothing runs on isolated CPUs that is not pinned to them");
    DOCTOR_SAY(f->found, "%.160s", text);
    DOCTOR_SAY(f->wanted, "shards pinned to them by the key cpus");
    if (!pinned)
        DOCTOR_SAY(f->keep, "cpus = %.200s in [gateway] of the configuration", text);
}

void doctor__look_at_cpus(struct doctor *d)
{
    look_at_number(d);
    look_at_pins(d);
    look_at_quota(d);
    look_at_isolated(d);
    look_at_clock(d);
    look_at_governor(d);
}
