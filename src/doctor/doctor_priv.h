// SPDX-License-Identifier: MIT
#pragma once

#include "doctor/doctor.h"

#define DOCTOR_CPUS_MAX 1024

struct doctor {
    const struct config *cfg;
    const char *root;
    struct doctor_report *report;
    uint16_t cpus[DOCTOR_CPUS_MAX]; /* that we may run on */
    unsigned n_cpus;                /* 0: not known */
    uint64_t memory_bytes;          /* of the machine; 0: not known */
    bool proxied;                   /* a listener has a proxy in front */
};

/* ---- findings. `why` is for those that are not good, too: why it matters. */
struct doctor_finding *doctor__add(struct doctor *d, const char *name, enum doctor_level level,
                                   const char *why);
#define DOCTOR_SAY(field, ...) snprintf(field, sizeof field, __VA_ARGS__)
struct doctor_finding *doctor__unknown(struct doctor *d, const char *name, const char *what);
/* "sysctl -w KEY=VALUE", and the line for sysctl.d */
void doctor__sysctl(struct doctor_finding *f, const char *key, const char *value);
void doctor__sysctl_number(struct doctor_finding *f, const char *key, uint64_t value);

/* A sysctl that should be at least `warn_below` (warn) and must be at least `bad_below` (bad; 0: never). Its
 * value is returned, 0 when it is not there. */
uint64_t doctor__at_least(struct doctor *d, const char *key, uint64_t bad_below, uint64_t warn_below,
                          const char *why);

/* ---- reading, all below the root */
/* The text without white space at its end, ended by a NUL; false: it is not there, or is empty. */
bool doctor__read(const struct doctor *d, const char *path, char *buf, size_t cap);
bool doctor__read_u64(const struct doctor *d, const char *path, uint64_t *ret);
/* "net.core.somaxconn" */
bool doctor__read_sysctl(const struct doctor *d, const char *key, char *buf, size_t cap);
/* Numbers of a text: how many, at most n. */
unsigned doctor__numbers(const char *text, uint64_t *ret, unsigned n);
/* Soft and hard limit of /proc/self/limits, by its name there; UINT64_MAX: none. */
bool doctor__read_limit(const struct doctor *d, const char *name, uint64_t *ret_soft, uint64_t *ret_hard);
/* A number of KiB in /proc/meminfo, as bytes. */
bool doctor__read_meminfo(const struct doctor *d, const char *name, uint64_t *ret);
/* A line "NAME:\tVALUE" of /proc/self/status. */
bool doctor__read_status(const struct doctor *d, const char *name, char *buf, size_t cap);
/* The path of a file or folder of the machine: root and path. Returns buf. */
char *doctor__path(const struct doctor *d, const char *path, char *buf, size_t cap);

/* What holds for our cgroup and all above it: the smallest of version 2's `file` (or version 1's, in the
 * hierarchy of that controller). read: the number in one folder, UINT64_MAX: no limit. */
typedef bool doctor_cgroup_fn(const struct doctor *d, const char *folder, uint64_t *ret);
uint64_t doctor__cgroup_min(const struct doctor *d, const char *controller, doctor_cgroup_fn *v2,
                            doctor_cgroup_fn *v1);

/* ---- the checks */
void doctor__look_at_files(struct doctor *d);
void doctor__look_at_network(struct doctor *d);
void doctor__look_at_ports(struct doctor *d);
void doctor__look_at_memory(struct doctor *d);
void doctor__look_at_cpus(struct doctor *d);
void doctor__look_at_folders(struct doctor *d);
