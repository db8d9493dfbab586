// SPDX-License-Identifier: MIT
#include "main/ctl_commands.h"

#include <inttypes.h>
#include <string.h>

#include "common/control.h"
#include "guard/cidr.h"
#include "main/commands.h"
#include "main/ctl_text.h"
#include "main/ctl_views.h"

/* ---- words that are no options */

static bool wrong(const char *what, const char *expected)
{
    fprintf(stderr, "tgg ctl: %s: expected %s\n", what, expected);
    return false;
}

static bool words_client(struct ctl_target *t, char **words, int n)
{
    if (words[0][0] == '\0')
        return wrong("an empty ID", "a connection_id or a client_id");
    bytes_append_byte(&t->text, '/');
    ctl_url_append(&t->text, words[0], strlen(words[0]));
    return true;
}

static bool words_name(struct ctl_target *t, char **words, int n)
{
    if (n > 0)
        ctl_target_parameter(t, "name", words[0]);
    return true;
}

static bool words_by(struct ctl_target *t, char **words, int n)
{
    const char *wanted = n > 0 ? words[0] : control_by_name(CONTROL_BY_MESSAGES_IN);

    for (unsigned by = 0; by < CONTROL_BY_N; by++) {
        if (strcmp(wanted, control_by_name(by)) == 0) {
            ctl_target_parameter(t, "by", wanted);
            return true;
        }
    }
    return wrong(words[0], "messages_in, bytes_in, messages_out, bytes_out, queue, groups or uids");
}

static bool words_uid(struct ctl_target *t, char **words, int n)
{
    ctl_target_parameter(t, "uid", words[0]);
    return true;
}

static bool words_address(struct ctl_target *t, char **words, int n)
{
    struct cidr cidr;
    char why[CIDR_WHY_MAX];
    enum cidr_problem problem = cidr_parse(words[0], strlen(words[0]), &cidr);

    if (problem != CIDR_OK) {
        fprintf(stderr, "tgg ctl: %s\n", cidr_explain(problem, words[0], strlen(words[0]), why, sizeof why));
        return false;
    }
    ctl_target_parameter(t, "address", words[0]);
    return true;
}

static bool is_number(const char *text)
{
    return *text != '\0' && strspn(text, "0123456789") == strlen(text) && strlen(text) < 10;
}

/* node | shard N | worker KEY */
static bool words_part(struct ctl_target *t, char **words, int n)
{
    bool node = strcmp(words[0], "node") == 0, shard = strcmp(words[0], "shard") == 0;

    if (!node && !shard && strcmp(words[0], "worker") != 0)
        return wrong(words[0], "node, shard N or worker KEY");
    if (n != (node ? 1 : 2))
        return wrong(words[0], node ? "nothing behind node" : shard ? "shard N" : "worker KEY");
    if (shard && !is_number(words[1]))
        return wrong(words[1], "the number of a shard");
    ctl_target_parameter(t, words[0], node ? "yes" : words[1]);
    return true;
}

static bool words_shard(struct ctl_target *t, char **words, int n)
{
    if (!is_number(words[0]))
        return wrong(words[0], "the number of a shard");
    ctl_target_parameter(t, "shard", words[0]);
    return true;
}

static bool words_level(struct ctl_target *t, char **words, int n)
{
    static const char *const levels[] = {
#define LEVEL(constant, name) name,
        CONFIG_ENUM_log_level(LEVEL)
#undef LEVEL
    };
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (strcmp(words[0], levels[i]) == 0) {
            ctl_target_parameter(t, "level", words[0]);
            return true;
        }
    }
    return wrong(words[0], "error, warn, notice, info or debug");
}

static bool words_inject(struct ctl_target *t, char **words, int n)
{
    if (!is_number(words[0]))
        return wrong(words[0], "the number of a shard");
    ctl_target_parameter(t, "shard", words[0]);
    ctl_target_parameter(t, "name", words[1]);
    return true;
}

/* ---- tables of single lists */

static const struct ctl_column worker_columns[] = {
    {"worker", "key", CTL_TEXT},
    {"shard", "shard", CTL_RTEXT},
    {"health", "health", CTL_TEXT},
    {"draining", "draining", CTL_YES},
    {"clients", "clients", CTL_NUMBER},
    {"paused", "paused_clients", CTL_NUMBER},
    {"queue", "queue_bytes", CTL_BYTES},
    {"queue_age", "queue_age_ms", CTL_MS},
    {"idle", "idle_s", CTL_SECONDS},
    {"in", "messages_in", CTL_NUMBER, .rate = "in/s", .rate_only = true},
    {"in_size", "bytes_in", CTL_BYTES, .rate = "in_size/s", .rate_only = true},
    {"out", "messages_out", CTL_NUMBER, .rate = "out/s", .rate_only = true},
    {"out_size", "bytes_out", CTL_BYTES, .rate = "out_size/s", .rate_only = true},
    {"wait_p50", "queue_time.p50_ns", CTL_NS},
    {"wait_p99", "queue_time.p99_ns", CTL_NS},
    {"up", "connected_s", CTL_SECONDS},
    {"address", "address", CTL_TEXT},
    {0},
};
static const struct ctl_section workers = {"workers", worker_columns, .key = "key shard", .sort = "key",
                                           .none = "no worker is there"};

static const struct ctl_column client_columns[] = {
    {"id", "connection_id", CTL_RTEXT},
    {"shard", "shard", CTL_RTEXT},
    {"state", "state", CTL_TEXT},
    {"listener", "listener", CTL_TEXT},
    {"address", "address", CTL_TEXT},
    {"age", "age_s", CTL_SECONDS},
    {"idle", "idle_s", CTL_SECONDS},
    {"queue", "queue_bytes", CTL_BYTES},
    {"uid", "uid", CTL_TEXT},
    {"groups", "groups_n", CTL_NUMBER},
    {"worker", "worker", CTL_TEXT},
    {"session", "session_bytes", CTL_BYTES},
    {"tls", "tls", CTL_YES},
    {"deflate", "deflate", CTL_YES},
    {"paused", "paused", CTL_YES},
    {"client_id", "client_id", CTL_TEXT},
    {0},
};
static const struct ctl_section clients = {"clients", client_columns, .key = "connection_id",
                                           .none = "no such client is there"};

static const struct ctl_column name_columns[] = {
    {"clients", "clients", CTL_NUMBER, .rate = "change/s"},
    {"shard", "shard", CTL_RTEXT},
    {"name", "name", CTL_TEXT},
    {0},
};
static const struct ctl_section uids = {"uids", name_columns, .key = "name shard", .sort = "-clients",
                                        .none = "no such uid is bound"};
static const struct ctl_section groups = {"groups", name_columns, .key = "name shard", .sort = "-clients",
                                          .none = "there is no such group"};

static const struct ctl_column table_columns[] = {
    {"shard", "shard", CTL_RTEXT},
    {"table", "name", CTL_TEXT},
    {"used", "used", CTL_NUMBER, .rate = "change/s"},
    {"peak", "peak", CTL_NUMBER},
    {"capacity", "capacity", CTL_NUMBER},
    {"size", "bytes", CTL_BYTES},
    {0},
};
static const struct ctl_section tables = {"tables", table_columns, .key = "shard name", .sort = "shard"};

/* ---- the commands */

#define CLOSING (CTL_BIT(CODE) | CTL_BIT(REASON))
static const struct ctl_command commands[] = {
    {"status", "", "the whole node: shards, processes, listeners, registers, traffic (the default)", "GET",
     "/api/status", .flags = CTL_WATCHABLE, .view = ctl_view_status},
    {"shards", "", "a line for each shard", "GET", "/api/status", .flags = CTL_WATCHABLE,
     .section = &ctl_section_shards},
    {"processes", "", "a line for each process", "GET", "/api/status", .flags = CTL_WATCHABLE,
     .section = &ctl_section_processes},
    {"listeners", "", "ports for clients, and how many came there", "GET", "/api/listeners",
     .flags = CTL_WATCHABLE, .section = &ctl_section_listeners},
    {"workers", "", "business workers: their clients, queues, traffic and health", "GET", "/api/workers",
     .flags = CTL_WATCHABLE, .section = &workers},
    {"registers", "", "registers that this gateway is announced to", "GET", "/api/registers",
     .flags = CTL_WATCHABLE, .section = &ctl_section_registers},
    {"clients", "", "clients that match all filters; the first 100 without --limit or --all", "GET",
     "/api/clients", CTL_FILTERS | CTL_BIT(LIMIT) | CTL_BIT(ALL), .flags = CTL_PAGED | CTL_WATCHABLE,
     .section = &clients},
    {"client", "ID", "one client in full, by its connection_id or client_id", "GET", "/api/clients",
     .flags = CTL_WATCHABLE, .words_min = 1, .words_max = 1, .words = words_client, .view = ctl_view_client},
    {"uids", "[NAME]", "uids with their number of clients, in each shard; or that one, in all", "GET",
     "/api/uids", CTL_BIT(PREFIX) | CTL_BIT(LIMIT) | CTL_BIT(ALL), .flags = CTL_PAGED | CTL_WATCHABLE,
     .words_max = 1, .words = words_name, .section = &uids},
    {"groups", "[NAME]", "groups likewise", "GET", "/api/groups",
     CTL_BIT(PREFIX) | CTL_BIT(LIMIT) | CTL_BIT(ALL), .flags = CTL_PAGED | CTL_WATCHABLE, .words_max = 1,
     .words = words_name, .section = &groups},
    {"top", "[BY]",
     "clients with the most messages_in, bytes_in, messages_out, bytes_out, or the longest queue; or the "
     "largest groups, uids",
     "GET", "/api/top", CTL_BIT(FOR) | CTL_BIT(LIMIT), .flags = CTL_WATCHABLE | CTL_WAITS, .wait_s = 1,
     .words_max = 1, .words = words_by, .view = ctl_view_top},
    {"tables", "", "sizes of all tables and pools with their peaks", "GET", "/api/tables",
     .flags = CTL_WATCHABLE, .section = &tables},
    {"counters", "", "every counter, over all shards or of one", "GET", "/api/counters",
     CTL_BIT(SHARD) | CTL_BIT(NONZERO), .flags = CTL_WATCHABLE, .view = ctl_view_counters},
    {"closes", "", "why clients were closed and messages dropped, and how often", "GET", "/api/closes",
     CTL_BIT(NONZERO), .flags = CTL_WATCHABLE, .view = ctl_view_closes},
    {"histograms", "", "how long things take and how large messages are", "GET", "/api/histograms",
     .flags = CTL_WATCHABLE, .view = ctl_view_histograms},
    {"check", "", "compare the tables of each shard with each other; exit status 1 when they disagree", "GET",
     "/api/check", .wait_s = 60, .view = ctl_view_check},
    {"bans", "", "the bans that hold", "GET", "/api/bans", .flags = CTL_WATCHABLE, .view = ctl_view_bans},
    {"trace", "", "follow a client (--client), a uid (--uid) or an address (--address), 60 s without --for",
     "GET", "/api/trace", CTL_BIT(CLIENT) | CTL_BIT(UID) | CTL_BIT(ADDRESS) | CTL_BIT(FOR),
     .flags = CTL_STREAM},
    {"metrics", "", "what Prometheus is told", "GET", "/metrics", .flags = CTL_PLAIN},
    {"close", "", "close all clients that match all filters", "POST", "/api/close",
     CTL_FILTERS | CLOSING | CTL_BIT(ALL) | CTL_BIT(OVER) | CTL_BIT(JITTER) | CTL_BIT(YES), .wait_s = 15,
     .view = ctl_view_closed},
    {"kick", "UID", "close the clients of a uid", "POST", "/api/kick", CLOSING, .words_min = 1,
     .words_max = 1, .words = words_uid, .view = ctl_view_closed},
    {"ban", "ADDRESS", "let no client of that address or prefix in (1h without --for), close those there",
     "POST", "/api/ban", CTL_BIT(FOR), .wait_s = 15, .words_min = 1, .words_max = 1, .words = words_address,
     .view = ctl_view_ban},
    {"unban", "ADDRESS", "lift the ban of exactly that prefix", "POST", "/api/unban", .wait_s = 15,
     .words_min = 1, .words_max = 1, .words = words_address, .view = ctl_view_unban},
    {"drain", "node | shard N | worker KEY",
     "no new clients there; those there are closed (worker: bound to others) over 30 s, or --over", "POST",
     "/api/drain", CLOSING | CTL_BIT(OVER) | CTL_BIT(JITTER) | CTL_BIT(YES), .words_min = 1, .words_max = 2,
     .words = words_part, .view = ctl_view_drain},
    {"undrain", "node | shard N | worker KEY", "take clients there again", "POST", "/api/undrain",
     .words_min = 1, .words_max = 2, .words = words_part, .view = ctl_view_undrain},
    {"evacuate", "SHARD",
     "move all connections of a shard to the others, nobody is closed; --back: bring its own back", "POST",
     "/api/evacuate", CTL_BIT(BACK) | CTL_BIT(YES), .wait_s = 90, .words_min = 1, .words_max = 1,
     .words = words_shard, .view = ctl_view_evacuate},
    {"rebalance", "", "bind clients evenly to the workers, over 10 s or --over", "POST", "/api/rebalance",
     CTL_BIT(OVER), .view = ctl_view_rebalance},
    {"log-level", "LEVEL", "error, warn, notice, info or debug, until the next reload or start", "POST",
     "/api/log", .wait_s = 15, .words_min = 1, .words_max = 1, .words = words_level,
     .view = ctl_view_log_level},
    {"reload", "", "read the configuration again; when it is wrong nothing changes", "POST", "/api/reload",
     .wait_s = 15, .view = ctl_view_reload},
    {"inject", "SHARD NAME", "test builds only: an error in a shard", "POST", "/api/inject", .words_min = 2,
     .words_max = 2, .words = words_inject, .view = ctl_view_inject},
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

const struct ctl_command *ctl_command_find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    fprintf(stderr, "tgg ctl: %s is not a command; tgg ctl --help lists them\n", name);
    return NULL;
}

static bool complain(const struct ctl_command *command, const char *what)
{
    fprintf(stderr, "tgg ctl %s: %s\n", command->name, what);
    return false;
}

static uint64_t options_of(const struct ctl_command *command)
{
    return command->options | CTL_COMMON | ((command->flags & CTL_WATCHABLE) != 0 ? CTL_BIT(WATCH) : 0);
}

static bool check_options(const struct ctl_command *command, const struct ctl_args *args)
{
    uint64_t surplus = args->given & ~options_of(command);
    if (surplus == 0)
        return true;
    fprintf(stderr, "tgg ctl %s: it has no option --%s\n", command->name,
            ctl_option_name((enum ctl_option_id)__builtin_ctzll(surplus)));
    return false;
}

bool ctl_command_check(const struct ctl_command *command, const struct ctl_args *args)
{
    int n = args->n_words > 0 ? args->n_words - 1 : 0;
    uint64_t traced = args->given & (CTL_BIT(CLIENT) | CTL_BIT(UID) | CTL_BIT(ADDRESS));

    if (!check_options(command, args))
        return false;
    if (n < command->words_min || n > command->words_max)
        return complain(command, n < command->words_min ? "something is missing" : "too many words");
    if ((command->flags & CTL_STREAM) != 0 && __builtin_popcountll(traced) != 1)
        return complain(command, "whom? One of --client, --uid, --address");
    if (strcmp(command->name, "close") == 0 && !ctl_given(args, CTL_FILTERS | CTL_BIT(ALL)))
        return complain(command, "which clients? Give a filter, or --all");
    if (strcmp(command->name, "close") == 0 && ctl_given(args, CTL_FILTERS) && ctl_given(args, CTL_BIT(ALL)))
        return complain(command, "a filter and --all do not go together");
    if ((command->flags & CTL_PAGED) != 0 && ctl_given(args, CTL_BIT(ALL)) &&
        ctl_given(args, CTL_BIT(WATCH) | CTL_BIT(LIMIT)))
        return complain(command, "--all goes neither with --watch nor with --limit");
    if ((command->flags & CTL_PAGED) != 0 && n > 0 &&
        ctl_given(args, CTL_BIT(ALL) | CTL_BIT(LIMIT) | CTL_BIT(PREFIX)))
        return complain(command, "a NAME goes with none of --prefix, --limit and --all");
    return true;
}

/* ---- the request */

void ctl_target_fini(struct ctl_target *t)
{
    bytes_fini(&t->text);
}

void ctl_target_parameter(struct ctl_target *t, const char *name, const char *value)
{
    bytes_printf(&t->text, "%c%s=", t->has_query ? '&' : '?', name);
    ctl_url_append(&t->text, value, strlen(value));
    t->has_query = true;
}

void ctl_target_number(struct ctl_target *t, const char *name, int64_t value)
{
    bytes_printf(&t->text, "%c%s=%" PRId64, t->has_query ? '&' : '?', name, value);
    t->has_query = true;
}

static void add_options(const struct ctl_command *command, const struct ctl_args *args, struct ctl_target *t)
{
    for (enum ctl_option_id id = 0; id < CTL_OPTION_N; id++) {
        const char *name = ctl_option_parameter(id);
        bool paging = id == CTL_OPTION_LIMIT && (command->flags & CTL_PAGED) != 0;
        if ((args->given >> id & 1) == 0 || name == NULL || paging)
            continue;
        if (ctl_option_is_number(id))
            ctl_target_number(t, name, args->number[id]);
        else
            ctl_target_parameter(t, name, args->text[id]);
    }
    if ((command->flags & CTL_PAGED) == 0 && ctl_given(args, CTL_BIT(ALL)))
        ctl_target_parameter(t, "all", "yes");
    if (ctl_given(args, CTL_BIT(BACK)))
        ctl_target_parameter(t, "back", "yes");
}

bool ctl_target_make(const struct ctl_command *command, const struct ctl_args *args, struct ctl_target *ret)
{
    int n = args->n_words > 0 ? args->n_words - 1 : 0;

    bytes_append_str(&ret->text, command->path);
    if (command->words != NULL && !command->words(ret, args->words + 1, n))
        return false;
    add_options(command, args, ret);
    bytes_append_byte(&ret->text, '\0');
    ret->text.len -= ret->text.failed ? 0 : 1;
    if (ret->text.failed)
        fprintf(stderr, "tgg ctl: no memory\n");
    return !ret->text.failed;
}

unsigned ctl_command_wait_s(const struct ctl_command *command, const struct ctl_args *args)
{
    uint64_t s = command->wait_s;

    if ((command->flags & CTL_WAITS) == 0)
        return command->wait_s;
    if (ctl_given(args, CTL_BIT(FOR)))
        s = (uint64_t)args->number[CTL_OPTION_FOR];
    /* Shards that have much to do may take half as long again before the gateway gives them up. */
    return (unsigned)(s + s / 2);
}

const char *ctl_command_question(const struct ctl_command *command, const struct ctl_args *args)
{
    if (ctl_given(args, CTL_BIT(YES)))
        return NULL;
    if (strcmp(command->name, "close") == 0 && ctl_given(args, CTL_BIT(ALL)))
        return "close all clients of this gateway?";
    if (strcmp(command->name, "drain") == 0 && strcmp(args->words[1], "node") == 0)
        return "close all clients of this gateway and take no more?";
    if (strcmp(command->name, "evacuate") == 0)
        return "hold the whole gateway for a moment, and move the connections?";
    return NULL;
}

/* ---- help */

static void print_command(FILE *out, const struct ctl_command *c)
{
    char left[64];
    snprintf(left, sizeof left, "%s%s%s", c->name, *c->arguments != '\0' ? " " : "", c->arguments);
    if (strlen(left) > 16)
        fprintf(out, "  %s\n  %-16s %s\n", left, "", c->help);
    else
        fprintf(out, "  %-16s %s\n", left, c->help);
}

void ctl_usage(FILE *out, const struct ctl_command *command)
{
    if (command != NULL) {
        fprintf(out, "usage: tgg ctl %s%s%s [options]\n\n%s.\n\n", command->name,
                *command->arguments != '\0' ? " " : "", command->arguments, command->help);
        ctl_options_print(out, options_of(command));
        return;
    }
    fprintf(out, "usage: tgg ctl [options] [COMMAND [arguments] [options]]\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++)
        print_command(out, &commands[i]);
    fprintf(out, "\n");
    ctl_options_print(out, CTL_COMMON | CTL_BIT(WATCH));
    fprintf(out, "\ntgg ctl COMMAND --help tells the options of a command; more in tgg(8).\n");
}
