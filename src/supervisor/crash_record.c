// SPDX-License-Identifier: MIT
#include "supervisor/crash_record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "proto/gw/packet.h"
#include "supervisor/build.h"

#define COMMANDS_LOGGED 16 /* of CRASH_COMMANDS, which all stand in the file */
#define SAME_SECOND_MAX 9
#define EXPLAINED_MAX   256

/* ---- what is in it: whatever a process that went wrong has written there */

static bool has_signal(const struct shard_crash *c)
{
    return c->signal != 0;
}

static uint32_t frames_n(const struct shard_crash *c)
{
    return !has_signal(c) ? 0 : c->n_frames < CRASH_FRAMES_MAX ? c->n_frames : CRASH_FRAMES_MAX;
}

static unsigned commands_n(const struct shard_crash *c)
{
    return c->n_commands < CRASH_COMMANDS ? (unsigned)c->n_commands : CRASH_COMMANDS;
}

/* The last one is 0, the one before it 1. */
static const struct crash_command *command_of(const struct shard_crash *c, unsigned back)
{
    return &c->commands[(c->n_commands - 1 - back) % CRASH_COMMANDS];
}

/* Before the signal; without one before the end. */
static uint64_t ago_ms(const struct crash_death *d, const struct shard_crash *c,
                       const struct crash_command *command)
{
    uint64_t end_ms = has_signal(c) ? c->loop_ms : d->loop_ms;
    uint64_t command_ms = command->loop_ns / 1000000;
    return end_ms > command_ms ? end_ms - command_ms : 0;
}

static const char *signal_name(int sig)
{
    const char *name = sigabbrev_np(sig);
    return name != NULL ? name : "?";
}

static const char *assertion_of(const struct shard_crash *c, char buf[CRASH_ASSERTION_MAX])
{
    snprintf(buf, CRASH_ASSERTION_MAX, "%.*s", CRASH_ASSERTION_MAX - 1, has_signal(c) ? c->assertion : "");
    for (char *p = buf; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
            *p = '?';
    return buf;
}

/* 20261122T160000Z */
static void format_time(int64_t unix_ms, const char *format, char *buf, size_t cap)
{
    time_t t = (time_t)(unix_ms / 1000);
    struct tm tm;
    if (gmtime_r(&t, &tm) == NULL || strftime(buf, cap, format, &tm) == 0)
        snprintf(buf, cap, "?");
}

/* ---- as text */

static void text_head(const struct crash_death *d, const struct shard_crash *c, struct bytes *out)
{
    char when[32], id[BUILD_ID_STRLEN], assertion[CRASH_ASSERTION_MAX];

    format_time(has_signal(c) ? c->unix_ms : d->unix_ms, "%Y-%m-%dT%H:%M:%SZ", when, sizeof when);
    bytes_printf(out, "shard %u, pid %d, died at %s by signal %d (%s)\n", d->shard, (int)d->pid, when,
                 d->signal, signal_name(d->signal));
    bytes_printf(out, "tgg %s, build id %s, core file: %s\n", TGG_VERSION, build_id(id),
                 d->core ? "yes" : "no");
    if (!has_signal(c)) {
        bytes_append_str(out, "It had no handler for that: there is no stack.\n");
        return;
    }
    if (c->code > 0)
        bytes_printf(out, "signal %d, code %d, address 0x%" PRIx64 "\n", c->signal, c->code, c->address);
    else
        bytes_printf(out, "signal %d, sent by process %" PRIu64 "\n", c->signal, c->address);
    if (assertion_of(c, assertion)[0] != '\0')
        bytes_printf(out, "assertion failed: %s\n", assertion);
}

static void text_stack(const struct shard_crash *c, struct bytes *out)
{
    char what[EXPLAINED_MAX];

    if (!has_signal(c))
        return;
    bytes_printf(out, "\nstack (the first ones are the handler):\n");
    for (uint32_t i = 0; i < frames_n(c); i++)
        bytes_printf(out, "  #%-2u %s\n", i, build_explain(c->frames[i], what, sizeof what));
    bytes_append_str(out, "  addr2line -fipe tgg");
    for (uint32_t i = 0; i < frames_n(c); i++) {
        if (strncmp(build_explain(c->frames[i], what, sizeof what), "tgg", 3) == 0)
            bytes_printf(out, " 0x%" PRIx64, c->frames[i] - c->base);
    }
    bytes_append_str(out, "\n");
}

static void text_commands(const struct crash_death *d, const struct shard_crash *c, struct bytes *out)
{
    bytes_printf(out, "\ncommands: %" PRIu64 " in all, the last %u, newest first:\n", c->n_commands,
                 commands_n(c));
    for (unsigned i = 0; i < commands_n(c); i++) {
        const struct crash_command *command = command_of(c, i);
        bytes_printf(out,
                     "  %8" PRIu64 " ms before: %s (%u), connection_id %u, %u bytes, link %u of shard %u\n",
                     ago_ms(d, c, command), gw_cmd_name(command->cmd), command->cmd, command->connection_id,
                     command->len, command->link, command->shard);
    }
}

void crash_text(const struct crash_death *d, const struct shard_crash *c, struct bytes *out)
{
    text_head(d, c, out);
    text_stack(c, out);
    text_commands(d, c, out);
}

/* ---- the file */

#define PREFIX "crash-shard"

/* From its time on: names sort by age. NULL: not one of ours. */
static const char *time_in(const char *name)
{
    const char *dot = strrchr(name, '.');
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 || dot == NULL || strcmp(dot, ".txt") != 0)
        return NULL;
    const char *dash = strchr(name + strlen(PREFIX), '-');
    return dash == NULL ? NULL : dash + 1;
}

static int is_ours(const struct dirent *e)
{
    return time_in(e->d_name) != NULL;
}

static int by_age(const struct dirent **a, const struct dirent **b)
{
    return strcmp(time_in((*a)->d_name), time_in((*b)->d_name));
}

static void remove_oldest(int folder)
{
    struct dirent **list;
    int n = scandirat(folder, ".", &list, is_ours, by_age);

    for (int i = 0; i < n; i++) {
        if (i < n - CRASH_FILES_MAX)
            unlinkat(folder, list[i]->d_name, 0);
        free(list[i]);
    }
    if (n >= 0)
        free(list);
}

/* Its name is in name[]. A descriptor or -errno. */
static int create(int folder, const struct crash_death *d, char *name, size_t cap)
{
    char when[32], again[8] = "";
    int fd = -1;

    format_time(d->unix_ms, "%Y%m%dT%H%M%SZ", when, sizeof when);
    for (unsigned i = 1; i <= SAME_SECOND_MAX; i++) {
        if (i > 1)
            snprintf(again, sizeof again, "-%u", i);
        snprintf(name, cap, PREFIX "%u-%s%s.txt", d->shard, when, again);
        fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
        if (fd >= 0 || errno != EEXIST)
            break;
    }
    return fd < 0 ? -errno : fd;
}

int crash_file_write(const char *folder, const struct crash_death *d, struct slice text, char *ret_path,
                     size_t cap)
{
    char name[96];
    int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    int r = create(dir, d, name, sizeof name);
    if (r >= 0) {
        ssize_t n = write(r, text.data, text.len);
        int err = n < 0 ? -errno : n == (ssize_t)text.len ? 0 : -ENOSPC;
        close(r);
        snprintf(ret_path, cap, "%s/%s", folder, name);
        r = err;
    }
    remove_oldest(dir);
    close(dir);
    return r;
}

/* ---- the log */

static void log_head(const struct crash_death *d, const struct shard_crash *c, const char *path)
{
    char id[BUILD_ID_STRLEN], assertion[CRASH_ASSERTION_MAX], told[2 * CRASH_ASSERTION_MAX + 16] = "";

    if (assertion_of(c, assertion)[0] != '\0')
        snprintf(told, sizeof told, " assertion=%s", log_quote(assertion, strlen(assertion)));
    LOG(LOG_ERROR, "shard_crashed",
        "shard=%u pid=%d signal=%d name=%s code=%d address=0x%" PRIx64 " version=%s build_id=%s frames=%u "
        "commands=%" PRIu64 "%s record=\"%s\"",
        d->shard, (int)d->pid, d->signal, signal_name(d->signal), has_signal(c) ? c->code : 0,
        has_signal(c) ? c->address : 0, TGG_VERSION, build_id(id), frames_n(c), c->n_commands, told, path);
}

static void log_lines(const struct crash_death *d, const struct shard_crash *c)
{
    char what[EXPLAINED_MAX];

    for (uint32_t i = 0; i < frames_n(c); i++)
        LOG(LOG_ERROR, "crash_stack", "shard=%u frame=%u at=\"%s\"", d->shard, i,
            build_explain(c->frames[i], what, sizeof what));
    for (unsigned i = 0; i < commands_n(c) && i < COMMANDS_LOGGED; i++) {
        const struct crash_command *command = command_of(c, i);
        LOG(LOG_NOTICE, "crash_command",
            "shard=%u ago_ms=%" PRIu64 " cmd=%s connection_id=%u bytes=%u link=%u link_shard=%u", d->shard,
            ago_ms(d, c, command), gw_cmd_name(command->cmd), command->connection_id, command->len,
            command->link, command->shard);
    }
}

/* "" : there is none. */
static void write_file(const struct config *cfg, const struct crash_death *d, const struct shard_crash *c,
                       char *ret_path, size_t cap)
{
    struct bytes text = {0};

    ret_path[0] = '\0';
    if (cfg->log.target != LOG_TARGET_FILE)
        return;
    crash_text(d, c, &text);
    int r = text.failed
                ? -ENOMEM
                : crash_file_write(cfg->log.directory, d, (struct slice){text.data, text.len}, ret_path, cap);
    if (r < 0)
        LOG(LOG_WARN, "crash_record_not_written", "directory=\"%s\" error=\"%s\"", cfg->log.directory,
            strerror(-r));
    bytes_fini(&text);
}

void crash_record(const struct config *cfg, const struct crash_death *d, const struct shard_crash *c)
{
    char path[PATH_MAX];

    write_file(cfg, d, c, path, sizeof path);
    log_head(d, c, path);
    log_lines(d, c);
}
