// SPDX-License-Identifier: MIT
#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "doctor/doctor_priv.h"

#define PAGE_BYTES 4096 /* what tcp_mem counts in; larger pages only make the estimate safer */

/* Connections that may wait to be accepted: what the configuration asks for, but no more than a shard that is
 * busy for a moment could ever take. */
static uint64_t wanted_backlog(const struct doctor *d)
{
    uint64_t backlog = 0, wanted = d->report->per_shard / 4;

    for (unsigned i = 0; i < d->cfg->n_listeners; i++) {
        if (d->cfg->listen[i].backlog > backlog)
            backlog = d->cfg->listen[i].backlog;
    }
    wanted = wanted < 4096 ? 4096 : wanted > 65535 ? 65535 : wanted;
    return backlog != 0 && backlog < wanted ? backlog : wanted;
}

static void look_at_queues(struct doctor *d)
{
    uint64_t wanted = wanted_backlog(d), most = d->report->per_shard > 10000 ? 1024 : 0;
    char text[16];

    doctor__at_least(d, "net.core.somaxconn", most < wanted ? most : wanted, wanted,
                     "connections that wait to be accepted by a shard: it caps the key backlog. When all "
                     "clients come back at once, "
                     "those who find no place wait for a second or more");
    doctor__at_least(d, "net.ipv4.tcp_max_syn_backlog", 0, wanted,
                     "connections whose handshake is under way, likewise");
    doctor__at_least(d, "net.core.netdev_max_backlog", 0, d->report->connections >= 50000 ? 5000 : 1000,
                     "packets that wait for a CPU; what is over is lost, and sent again");
    if (!doctor__read_sysctl(d, "net.ipv4.tcp_syncookies", text, sizeof text)) {
        doctor__unknown(d, "net.ipv4.tcp_syncookies", "this sysctl");
        return;
    }
    struct doctor_finding *f =
        doctor__add(d, "net.ipv4.tcp_syncookies", text[0] == '0' ? DOCTOR_WARN : DOCTOR_OK,
                    "without it a flood of SYNs keeps clients out");
    DOCTOR_SAY(f->found, "%s", text);
    DOCTOR_SAY(f->wanted, "1");
    if (f->level == DOCTOR_WARN)
        doctor__sysctl(f, "net.ipv4.tcp_syncookies", "1");
}

/* ---- memory of the kernel's sockets */

static void look_at_tcp_mem(struct doctor *d)
{
    static const char key[] = "net.ipv4.tcp_mem";
    char text[128], value[128];
    uint64_t pages[3], wanted = d->report->connections; /* a page for each */

    if (!doctor__read_sysctl(d, key, text, sizeof text) || doctor__numbers(text, pages, 3) != 3) {
        doctor__unknown(d, key, "this sysctl");
        return;
    }
    bool too_much = d->memory_bytes != 0 && pages[2] * PAGE_BYTES > d->memory_bytes / 2;
    enum doctor_level level = pages[2] < wanted / 8           ? DOCTOR_BAD
                              : pages[2] < wanted || too_much ? DOCTOR_WARN
                                                              : DOCTOR_OK;
    struct doctor_finding *f =
        doctor__add(d, key, level,
                    too_much ? "the kernel may take more than half of the memory for what waits in sockets"
                             : "pages of 4 KiB that all TCP sockets may hold; past the last number the "
                               "kernel throws data away and "
                               "connections stall. Wanted: one page for each connection");
    DOCTOR_SAY(f->found, "%s (at most %" PRIu64 " MiB)", text, pages[2] * PAGE_BYTES >> 20);
    if (too_much)
        wanted = d->memory_bytes / 4 / PAGE_BYTES;
    DOCTOR_SAY(f->wanted, "third number %" PRIu64 "%s", wanted, too_much ? "" : " or more");
    if (level == DOCTOR_OK)
        return;
    DOCTOR_SAY(value, "%" PRIu64 " %" PRIu64 " %" PRIu64, wanted / 2, wanted * 3 / 4, wanted);
    doctor__sysctl(f, key, value);
}

/* min default max of net.ipv4.tcp_rmem and tcp_wmem. */
static void look_at_buffers(struct doctor *d, const char *key, const char *what)
{
    char text[128], value[128];
    uint64_t v[3];

    if (!doctor__read_sysctl(d, key, text, sizeof text) || doctor__numbers(text, v, 3) != 3) {
        doctor__unknown(d, key, "this sysctl");
        return;
    }
    uint64_t all = v[1] * d->report->connections;
    bool much = d->memory_bytes != 0 && all > 2 * d->memory_bytes;
    struct doctor_finding *f = doctor__add(d, key,
                                           v[0] > 16384 ? DOCTOR_WARN
                                           : much       ? DOCTOR_WARN
                                                        : DOCTOR_OK,
                                           what);
    DOCTOR_SAY(f->found, "%s (%" PRIu64 " MiB, if every connection used its default)", text, all >> 20);
    DOCTOR_SAY(f->wanted, "a first number of 4096, and a default that all of them could use without more "
                          "than twice the memory");
    if (f->level == DOCTOR_OK)
        return;
    uint64_t def = much ? 2 * d->memory_bytes / d->report->connections / 4096 * 4096 : v[1];
    if (def < 8192)
        def = 8192;
    DOCTOR_SAY(value, "4096 %" PRIu64 " %" PRIu64, def, v[2] > def ? v[2] : def);
    doctor__sysctl(f, key, value);
}

/* ---- what connections leave behind */

static void look_at_ends(struct doctor *d)
{
    char text[32];
    uint64_t value;

    if (!doctor__read_sysctl(d, "net.ipv4.tcp_tw_reuse", text, sizeof text)) {
        doctor__unknown(d, "net.ipv4.tcp_tw_reuse", "this sysctl");
    } else {
        struct doctor_finding *f =
            doctor__add(d, "net.ipv4.tcp_tw_reuse", text[0] == '0' && d->proxied ? DOCTOR_WARN : DOCTOR_OK,
                        "whether outgoing connections (of a proxy on this machine, of tgg bench) may take "
                        "the port of one that has just "
                        "ended; of no account for clients that come from elsewhere");
        DOCTOR_SAY(f->found, "%s", text);
        DOCTOR_SAY(f->wanted, "1 or 2 with a proxy on this machine");
        if (f->level == DOCTOR_WARN)
            doctor__sysctl(f, "net.ipv4.tcp_tw_reuse", "1");
    }
    if (!doctor__read_sysctl(d, "net.ipv4.tcp_fin_timeout", text, sizeof text) ||
        doctor__numbers(text, &value, 1) != 1) {
        doctor__unknown(d, "net.ipv4.tcp_fin_timeout", "this sysctl");
        return;
    }
    struct doctor_finding *f = doctor__add(
        d, "net.ipv4.tcp_fin_timeout", value > 60 ? DOCTOR_WARN : DOCTOR_OK,
        "seconds for which the kernel keeps a connection that we have closed and the client has not");
    DOCTOR_SAY(f->found, "%s", text);
    DOCTOR_SAY(f->wanted, "60 or less");
    if (f->level == DOCTOR_WARN)
        doctor__sysctl(f, "net.ipv4.tcp_fin_timeout", "60");
}

static void look_at_orphans(struct doctor *d)
{
    uint64_t wanted = d->report->connections / 4;

    doctor__at_least(d, "net.ipv4.tcp_max_orphans", 0,
                     wanted < 4096     ? 4096
                     : wanted > 262144 ? 262144
                                       : wanted,
                     "closed connections that still have data to send; past it the kernel resets them, and "
                     "the close frame is lost");
}

static void look_at_conntrack(struct doctor *d)
{
    static const char key[] = "net.netfilter.nf_conntrack_max";
    char text[32];

    if (!doctor__read_sysctl(d, key, text, sizeof text)) {
        struct doctor_finding *f = doctor__add(d, key, DOCTOR_OK, "");
        DOCTOR_SAY(f->found, "connection tracking is not loaded");
        return;
    }
    uint64_t connections = d->report->connections;
    doctor__at_least(d, key, connections, connections + connections / 4 + 10000,
                     "the firewall keeps an entry for each connection, and drops packets without a word when "
                     "there is no place (dmesg: "
                     "nf_conntrack: table full). Or do not track the client ports at all (nft notrack)");
}

/* ---- network cards */

static unsigned count_rx_queues(const struct doctor *d, const char *card)
{
    char path[PATH_MAX], whole[PATH_MAX];
    unsigned n = 0;

    snprintf(path, sizeof path, "/sys/class/net/%s/queues", card);
    DIR *dir = opendir(doctor__path(d, path, whole, sizeof whole));
    if (dir == NULL)
        return 0;
    for (const struct dirent *e; (e = readdir(dir)) != NULL;)
        n += strncmp(e->d_name, "rx-", 3) == 0;
    closedir(dir);
    return n;
}

/* Receive packet steering: whether the first queue's packets are spread over CPUs (a mask, not all 0). */
static bool has_rps(const struct doctor *d, const char *card)
{
    char path[PATH_MAX], mask[1024];

    snprintf(path, sizeof path, "/sys/class/net/%s/queues/rx-0/rps_cpus", card);
    return doctor__read(d, path, mask, sizeof mask) && strspn(mask, "0,") != strlen(mask);
}

static bool is_card(const struct doctor *d, const char *name)
{
    char path[PATH_MAX], state[32], whole[PATH_MAX];

    if (name[0] == '.')
        return false;
    snprintf(path, sizeof path, "/sys/class/net/%s/device", name); /* virtual ones have none */
    DIR *dir = opendir(doctor__path(d, path, whole, sizeof whole));
    if (dir == NULL)
        return false;
    closedir(dir);
    snprintf(path, sizeof path, "/sys/class/net/%s/operstate", name);
    return !doctor__read(d, path, state, sizeof state) || strcmp(state, "down") != 0;
}

/* A mask of the first n CPUs, as sysfs wants it: groups of 32 bits. */
static void cpu_mask(unsigned n, char *buf, size_t cap)
{
    size_t at = 0;
    for (unsigned group = (n + 31) / 32; group > 0 && at < cap; group--) {
        unsigned bits = n - (group - 1) * 32;
        uint32_t mask = bits >= 32 ? UINT32_MAX : (UINT32_C(1) << bits) - 1;
        at += (size_t)snprintf(buf + at, cap - at, "%x%s", mask, group > 1 ? "," : "");
    }
}

static void look_at_card(struct doctor *d, const char *card)
{
    unsigned queues = count_rx_queues(d, card);
    bool rps = has_rps(d, card);
    char name[48], mask[128];

    snprintf(name, sizeof name, "nic.%.32s", card);
    bool few = queues == 1 && !rps && d->n_cpus > 1 && d->report->shards > 1;
    struct doctor_finding *f =
        doctor__add(d, name, few ? DOCTOR_WARN : DOCTOR_OK,
                    "one queue is one CPU that takes all packets, however many shards there are");
    DOCTOR_SAY(f->found, "%u receive queue%s, %u CPUs%s", queues, queues == 1 ? "" : "s", d->n_cpus,
               rps ? ", RPS is on" : "");
    DOCTOR_SAY(f->wanted,
               "several queues (ethtool -L %.32s combined N, if the card can), or RPS over all CPUs", card);
    if (!few)
        return;
    cpu_mask(d->n_cpus, mask, sizeof mask);
    DOCTOR_SAY(f->now, "echo %s > /sys/class/net/%.32s/queues/rx-0/rps_cpus", mask, card);
    DOCTOR_SAY(f->keep,
               "ACTION==\"add\", SUBSYSTEM==\"net\", KERNEL==\"%.32s\", ATTR{queues/rx-0/rps_cpus}=\"%s\" in "
               "/etc/udev/rules.d/90-tgg.rules",
               card, mask);
}

static void look_at_cards(struct doctor *d)
{
    char whole[PATH_MAX];
    unsigned n = 0;
    DIR *dir = opendir(doctor__path(d, "/sys/class/net", whole, sizeof whole));

    for (const struct dirent *e; dir != NULL && n < 8 && (e = readdir(dir)) != NULL;) {
        if (is_card(d, e->d_name)) {
            look_at_card(d, e->d_name);
            n++;
        }
    }
    if (dir != NULL)
        closedir(dir);
    if (n == 0)
        doctor__unknown(d, "nic", "a network card");
}

void doctor__look_at_network(struct doctor *d)
{
    /* Here, because the buffers are compared with it. */
    if (!doctor__read_meminfo(d, "MemTotal", &d->memory_bytes))
        d->memory_bytes = 0;
    look_at_queues(d);
    look_at_tcp_mem(d);
    look_at_buffers(d, "net.ipv4.tcp_rmem",
                    "what a client may send while its shard does not read it, in the kernel's memory");
    look_at_buffers(
        d, "net.ipv4.tcp_wmem",
        "what may wait in the kernel for a client that does not read, before it waits in the gateway");
    look_at_ends(d);
    look_at_orphans(d);
    look_at_conntrack(d);
    look_at_cards(d);
}
