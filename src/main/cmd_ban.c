// SPDX-License-Identifier: MIT
/* tgg ban, unban, bans: edit the file of bans, then have the gateway read it. */
#include "main/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "common/files.h"
#include "guard/ban_file.h"

struct bans {
    const char *command;
    struct options opt;
    struct config cfg;
    char path[PATH_MAX]; /* of the file */
    int64_t now_unix_s;
};

static int open_bans(int argc, char **argv, const char *allowed, struct bans *ret)
{
    int status = options_parse_and_load(argc, argv, allowed, &ret->opt, &ret->cfg);
    if (status >= 0)
        return status;
    ret->command = argv[0];
    ret->now_unix_s = time(NULL);
    files_ban_path(&ret->cfg, ret->path, sizeof ret->path);
    return -1;
}

/* ---- what is printed */

static void print_time(int64_t unix_s)
{
    time_t t = (time_t)unix_s;
    struct tm tm;
    char text[40];
    if (gmtime_r(&t, &tm) != NULL && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0)
        printf("%s", text);
    else
        printf("@%" PRId64, unix_s);
}

/* Another program may have put foreign bytes there: nothing that a terminal obeys. */
static void print_comment(struct slice c)
{
    if (c.len > 0)
        printf("  ");
    for (size_t i = 0; i < c.len; i++)
        putchar(c.data[i] >= 0x20 && c.data[i] != 0x7f ? c.data[i] : '?');
}

static void print_ban(void *ctx, const struct ban *b, struct slice comment)
{
    const struct bans *bans = ctx;
    char text[CIDR_STRLEN];

    if (b->until_unix_s <= bans->now_unix_s)
        return;
    printf("%-43s ", cidr_format(&b->cidr, text, sizeof text));
    print_time(b->until_unix_s);
    printf(" %9" PRId64 "s", b->until_unix_s - bans->now_unix_s);
    print_comment(comment);
    putchar('\n');
}

static int explain(const struct bans *bans, int err, const struct ban_edit *edit)
{
    char why[PATH_MAX + BAN_WHY_MAX];
    fprintf(stderr, "tgg %s: %s\n", bans->command, ban_file_explain(err, bans->path, edit, why, sizeof why));
    return err == -EINVAL && edit->line > 0 ? EXIT_CONFIG : EXIT_RUNTIME;
}

/* ---- changing one */

static int tell_gateway(const struct bans *bans)
{
    int r = gateway_hup(&bans->cfg);
    if (r == 0)
        return EXIT_OK;
    if (r == -ESRCH) {
        fprintf(stderr, "tgg %s: no gateway runs; it will count from its start\n", bans->command);
        return EXIT_OK;
    }
    fprintf(stderr, "tgg %s: %s is changed, but the gateway could not be told to read it: %s\n",
            bans->command, bans->path, strerror(-r));
    return EXIT_RUNTIME;
}

static int parse_address(const struct bans *bans, struct cidr *ret)
{
    const char *text = bans->opt.address;
    char why[CIDR_WHY_MAX];

    enum cidr_problem problem = cidr_parse(text, strlen(text), ret);
    if (problem == CIDR_OK)
        return EXIT_OK;
    fprintf(stderr, "tgg %s: %s\n", bans->command,
            cidr_explain(problem, text, strlen(text), why, sizeof why));
    return EXIT_USAGE;
}

static int add(struct bans *bans)
{
    struct ban_edit edit = {.change.until_unix_s = bans->now_unix_s + bans->opt.for_s,
                            .now_unix_s = bans->now_unix_s};
    char text[CIDR_STRLEN];

    int status = parse_address(bans, &edit.change.cidr);
    if (status != EXIT_OK)
        return status;
    int r = ban_file_edit(bans->path, &edit);
    if (r < 0)
        return explain(bans, r, &edit);
    printf("%s is banned until ", cidr_format(&edit.change.cidr, text, sizeof text));
    print_time(edit.change.until_unix_s);
    printf("%s\n", edit.replaced > 0 ? " (instead of the ban it had)" : "");
    fflush(stdout);
    return tell_gateway(bans);
}

static int lift(struct bans *bans)
{
    struct ban_edit edit = {.now_unix_s = bans->now_unix_s};
    char text[CIDR_STRLEN];

    int status = parse_address(bans, &edit.change.cidr);
    if (status != EXIT_OK)
        return status;
    int r = ban_file_edit(bans->path, &edit);
    if (r < 0)
        return explain(bans, r, &edit);
    cidr_format(&edit.change.cidr, text, sizeof text);
    if (edit.replaced == 0) {
        fprintf(stderr, "tgg unban: %s is not banned; tgg bans shows the prefixes that are\n", text);
        return EXIT_RUNTIME;
    }
    printf("%s is not banned any more\n", text);
    fflush(stdout);
    return tell_gateway(bans);
}

/* ---- the commands */

static int show(struct bans *bans)
{
    struct bytes text = {0};
    struct ban_edit wrong = {0};

    int r = ban_file_read(bans->path, &text);
    if (r == 0)
        r = ban_text_walk((struct slice){text.data, text.len}, print_ban, bans, &wrong.line, wrong.why,
                          sizeof wrong.why);
    bytes_fini(&text);
    return r < 0 ? explain(bans, r, &wrong) : EXIT_OK;
}

static int run(int argc, char **argv, const char *options, int (*command)(struct bans *))
{
    struct bans bans;
    int status = open_bans(argc, argv, options, &bans);
    if (status >= 0)
        return status;
    status = command(&bans);
    config_fini(&bans.cfg);
    return status;
}

int cmd_ban(int argc, char **argv)
{
    return run(argc, argv, "cfa", add);
}

int cmd_unban(int argc, char **argv)
{
    return run(argc, argv, "ca", lift);
}

int cmd_bans(int argc, char **argv)
{
    return run(argc, argv, "c", show);
}
