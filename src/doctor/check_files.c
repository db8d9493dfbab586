// SPDX-License-Identifier: MIT
/* Descriptors: of each shard, of the machine, and what epoll keeps of them. */
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "common/node_shm.h"
#include "doctor/doctor_priv.h"

/* Beside clients, as common/file_limit.c has it, and some workers. */
#define RESERVE           256
#define RESERVE_PER_SHARD 2

static uint64_t wanted_of_shard(const struct doctor *d)
{
    const struct doctor_report *r = d->report;
    return r->per_shard + RESERVE + (r->shards > 1 ? RESERVE_PER_SHARD * r->shards : 0);
}

static void say_limit(char *buf, size_t cap, uint64_t limit)
{
    if (limit == UINT64_MAX)
        snprintf(buf, cap, "unlimited");
    else
        snprintf(buf, cap, "%" PRIu64, limit);
}

static void look_at_nofile(struct doctor *d, uint64_t wanted)
{
    uint64_t soft, hard;
    char text[2][32];

    if (!doctor__read_limit(d, "Max open files", &soft, &hard)) {
        doctor__unknown(d, "nofile", "/proc/self/limits");
        return;
    }
    struct doctor_finding *f = doctor__add(d, "nofile", hard < wanted ? DOCTOR_BAD : DOCTOR_OK,
                                           "each client is a descriptor of its shard; past the hard limit of "
                                           "it clients are refused (refused_total). This is "
                                           "the limit of this shell; a service has its own, see keep");
    say_limit(text[0], sizeof text[0], hard);
    say_limit(text[1], sizeof text[1], soft);
    DOCTOR_SAY(f->found, "hard limit %s (soft %s, raised by tgg itself)", text[0], text[1]);
    DOCTOR_SAY(f->wanted, "hard limit %" PRIu64 " or more", wanted);
    if (f->level == DOCTOR_OK)
        return;
    DOCTOR_SAY(f->now, "ulimit -n %" PRIu64 " (as root, in the shell that then starts tgg)", wanted);
    DOCTOR_SAY(f->keep,
               "LimitNOFILE=%" PRIu64 " in [Service] of the systemd unit, or \"tgg hard nofile %" PRIu64
               "\" in /etc/security/limits.d/tgg.conf",
               wanted, wanted);
}

/* What a gateway that runs with this runtime_dir has made of its limits. */
static void look_at_running(struct doctor *d)
{
    const struct node_shm *shm;
    char dir[PATH_MAX];
    bool running;

    if (node_shm_map(doctor__path(d, d->cfg->gateway.runtime_dir, dir, sizeof dir), &shm, &running) < 0)
        return;
    if (running) {
        bool few = shm->max_clients < d->report->per_shard;
        struct doctor_finding *f =
            doctor__add(d, "running_gateway", few ? DOCTOR_BAD : DOCTOR_OK,
                        "what max_connections and the file limit that it was started with make");
        DOCTOR_SAY(f->found, "takes %u clients on each of %u shards", shm->max_clients, shm->n_shards);
        DOCTOR_SAY(f->wanted, "%" PRIu64 " on each", d->report->per_shard);
        if (few)
            DOCTOR_SAY(f->keep, "a higher limit or max_connections (see nofile), and a restart");
    }
    node_shm_unmap(shm);
}

/* What units get that say nothing themselves: DefaultLimitNOFILE=SOFT[:HARD]. */
static void look_at_systemd(struct doctor *d, uint64_t wanted)
{
    char text[8192];
    const char *line;
    uint64_t hard = 524288; /* since systemd 240 */

    if (!doctor__read(d, "/etc/systemd/system.conf", text, sizeof text))
        return; /* no systemd: nothing to say */
    if ((line = strstr(text, "\nDefaultLimitNOFILE=")) != NULL) {
        line += sizeof "\nDefaultLimitNOFILE=" - 1;
        const char *colon = line + strcspn(line, ":\n");
        const char *last = *colon == ':' ? colon + 1 : line;
        if (strncmp(last, "infinity", 8) == 0)
            hard = UINT64_MAX;
        else if (doctor__numbers(last, &hard, 1) != 1)
            hard = 0;
    }
    struct doctor_finding *f = doctor__add(d, "systemd_nofile", hard < wanted ? DOCTOR_WARN : DOCTOR_OK,
                                           "what a unit without LimitNOFILE gets");
    char limit[32];
    say_limit(limit, sizeof limit, hard);
    DOCTOR_SAY(f->found, "DefaultLimitNOFILE: hard limit %s", limit);
    DOCTOR_SAY(f->wanted, "%" PRIu64 " or more, or LimitNOFILE in the unit", wanted);
    if (f->level == DOCTOR_WARN)
        DOCTOR_SAY(f->keep, "LimitNOFILE=%" PRIu64 " in [Service] of the systemd unit", wanted);
}

static void look_at_all_files(struct doctor *d)
{
    char text[128];
    uint64_t numbers[3], used = 0;

    if (doctor__read_sysctl(d, "fs.file-nr", text, sizeof text) && doctor__numbers(text, numbers, 3) == 3)
        used = numbers[0];
    /* A shard's own, and what workers and everything else of the machine may yet open. */
    uint64_t ours = d->report->connections + (uint64_t)d->report->shards * RESERVE;
    doctor__at_least(
        d, "fs.file-max", used + ours, used + ours + 10000,
        "open files of the whole machine: what is open now (fs.file-nr), all connections, and some room");
}

static void look_at_address_space(struct doctor *d)
{
    uint64_t soft, hard;

    if (!doctor__read_limit(d, "Max address space", &soft, &hard)) {
        doctor__unknown(d, "address_space", "/proc/self/limits");
        return;
    }
    struct doctor_finding *f =
        doctor__add(d, "address_space", soft == UINT64_MAX ? DOCTOR_OK : DOCTOR_BAD,
                    "each shard reserves some 33 GiB of addresses, of which almost nothing becomes memory");
    char limit[32];
    say_limit(limit, sizeof limit, soft);
    DOCTOR_SAY(f->found, "%s", limit);
    DOCTOR_SAY(f->wanted, "unlimited");
    if (f->level == DOCTOR_BAD) {
        DOCTOR_SAY(f->now, "ulimit -v unlimited (in the shell that starts tgg)");
        DOCTOR_SAY(f->keep, "LimitAS=infinity in [Service] of the systemd unit");
    }
}

void doctor__look_at_files(struct doctor *d)
{
    uint64_t wanted = wanted_of_shard(d);

    look_at_nofile(d, wanted);
    look_at_running(d);
    look_at_systemd(d, wanted);
    doctor__at_least(d, "fs.nr_open", wanted, wanted, "no limit of descriptors can be set higher than this");
    look_at_all_files(d);
    doctor__at_least(d, "fs.epoll.max_user_watches", d->report->connections + d->report->shards * RESERVE, 0,
                     "connections that all shards of one user may watch with epoll");
    look_at_address_space(d);
}
