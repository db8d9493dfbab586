// SPDX-License-Identifier: MIT
/* Ports that are configured, against those that the kernel gives to outgoing connections or keeps for root.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "doctor/doctor_priv.h"

#define PORTS_MAX (CONFIG_LISTEN_MAX + 3)

struct ports {
    unsigned n;
    uint16_t list[PORTS_MAX];
};

static void add_port(struct ports *p, uint64_t port)
{
    for (unsigned i = 0; i < p->n; i++) {
        if (p->list[i] == port)
            return;
    }
    if (port != 0)
        p->list[p->n++] = (uint16_t)port;
}

static void collect(const struct doctor *d, struct ports *ret)
{
    const struct config *cfg = d->cfg;

    ret->n = 0;
    add_port(ret, cfg->gateway.start_port);
    add_port(ret, cfg->admin.port);
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        if (strncmp(cfg->listen[i].address, "unix:", 5) != 0)
            add_port(ret, cfg->listen[i].port);
    }
}

/* Appends ",PORT"; what has no room is left out. */
static void append_port(char *buf, size_t cap, unsigned port)
{
    size_t len = strlen(buf);
    if (len + 7 < cap)
        snprintf(buf + len, cap - len, "%s%u", len > 0 ? "," : "", port);
}

/* "8080,9148-9150" */
static bool list_has(const char *list, unsigned port)
{
    while (*list >= '0' && *list <= '9') {
        char *end;
        unsigned long low = strtoul(list, &end, 10), high = low;
        if (*end == '-')
            high = strtoul(end + 1, &end, 10);
        if (port >= low && port <= high)
            return true;
        list = *end == ',' ? end + 1 : end;
    }
    return false;
}

static void look_at_overlap(struct doctor *d, const struct ports *ports, const uint64_t range[2])
{
    static const char key[] = "net.ipv4.ip_local_reserved_ports";
    char reserved[4096] = "", all[160] = "", hit[128] = "";

    doctor__read_sysctl(d, key, reserved, sizeof reserved);
    snprintf(all, sizeof all, "%.100s", reserved);
    for (unsigned i = 0; i < ports->n; i++) {
        unsigned port = ports->list[i];
        if (port >= range[0] && port <= range[1] && !list_has(reserved, port)) {
            append_port(hit, sizeof hit, port);
            append_port(all, sizeof all, port);
        }
    }
    struct doctor_finding *f = doctor__add(d, "ports_reserved", hit[0] != '\0' ? DOCTOR_WARN : DOCTOR_OK,
                                           "the kernel may give a port of ours to an outgoing connection "
                                           "while the gateway is not there, and then the gateway does "
                                           "not start: address in use");
    DOCTOR_SAY(f->found, "outgoing connections take ports %" PRIu64 " to %" PRIu64 "%s%s", range[0], range[1],
               hit[0] != '\0' ? "; among them, and not reserved: "
                              : "; none of ours that is not reserved is among them",
               hit);
    DOCTOR_SAY(f->wanted, "ports of the gateway outside of that range, or reserved");
    if (f->level == DOCTOR_WARN)
        doctor__sysctl(f, key, all);
}

/* Of importance where connections go out from here: a proxy on this machine, tgg bench. */
static void look_at_number(struct doctor *d, const uint64_t range[2])
{
    uint64_t n = range[1] - range[0] + 1;
    unsigned addresses = d->cfg->n_listeners > 0 ? d->cfg->n_listeners : 1;
    bool few = d->report->connections > n * addresses;
    struct doctor_finding *f = doctor__add(d, "net.ipv4.ip_local_port_range",
                                           few && d->proxied ? DOCTOR_WARN
                                           : n < 10000       ? DOCTOR_WARN
                                                             : DOCTOR_OK,
                                           "a proxy on this machine, and tgg bench, have so many connections "
                                           "from one address to one port of the gateway. "
                                           "More of them: several addresses, or a Unix socket for the proxy");
    DOCTOR_SAY(f->found, "%" PRIu64 " ports%s", n,
               few && !d->proxied ? ", enough without a proxy or tgg bench on this machine" : "");
    DOCTOR_SAY(f->wanted, "as many as there are connections for each port of the gateway, 64,000 at most");
    if (f->level == DOCTOR_WARN)
        doctor__sysctl(f, "net.ipv4.ip_local_port_range", "1024 65535");
}

static void look_at_range(struct doctor *d, const struct ports *ports)
{
    static const char key[] = "net.ipv4.ip_local_port_range";
    char text[64];
    uint64_t range[2];

    if (!doctor__read_sysctl(d, key, text, sizeof text) || doctor__numbers(text, range, 2) != 2 ||
        range[1] < range[0]) {
        doctor__unknown(d, key, "this sysctl");
        return;
    }
    look_at_number(d, range);
    look_at_overlap(d, ports, range);
}

#define CAP_NET_BIND_SERVICE 10

/* proc(5): real, effective ... user ids; capabilities as a mask in hexadecimal digits. */
static bool may_bind_all(const struct doctor *d)
{
    char text[128];
    uint64_t ids[2] = {0};

    if (doctor__read_status(d, "CapEff", text, sizeof text))
        return strtoull(text, NULL, 16) >> CAP_NET_BIND_SERVICE & 1;
    return doctor__read_status(d, "Uid", text, sizeof text) && doctor__numbers(text, ids, 2) == 2 &&
           ids[1] == 0;
}

static void look_at_low_ports(struct doctor *d, const struct ports *ports)
{
    static const char key[] = "net.ipv4.ip_unprivileged_port_start";
    char text[32], low[128] = "";
    uint64_t start = 1024, lowest = 65535;

    if (doctor__read_sysctl(d, key, text, sizeof text))
        doctor__numbers(text, &start, 1);
    for (unsigned i = 0; i < ports->n; i++) {
        if (ports->list[i] < start) {
            append_port(low, sizeof low, ports->list[i]);
            lowest = ports->list[i] < lowest ? ports->list[i] : lowest;
        }
    }
    bool bad = low[0] != '\0' && !may_bind_all(d);
    struct doctor_finding *f = doctor__add(d, "ports_low", bad ? DOCTOR_BAD : DOCTOR_OK,
                                           "only root, or who has CAP_NET_BIND_SERVICE, may listen on them");
    if (low[0] == '\0')
        DOCTOR_SAY(f->found, "all ports are %" PRIu64 " or above", start);
    else
        DOCTOR_SAY(f->found, "ports below %" PRIu64 ": %s; %s", start, low,
                   bad ? "this user may not listen there" : "this user may");
    DOCTOR_SAY(f->wanted, "to be started as root (with the key user), or with the capability");
    if (!bad)
        return;
    doctor__sysctl_number(f, key, lowest);
    DOCTOR_SAY(f->keep, "AmbientCapabilities=CAP_NET_BIND_SERVICE in [Service] of the systemd unit");
}

void doctor__look_at_ports(struct doctor *d)
{
    struct ports ports;

    collect(d, &ports);
    look_at_range(d, &ports);
    look_at_low_ports(d, &ports);
}
