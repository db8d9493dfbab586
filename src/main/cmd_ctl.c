// SPDX-License-Identifier: MIT
/* tgg ctl: sees and steers a running gateway through its admin process (docs/ADMIN-API.md). */
#include "main/commands.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "main/ctl_ask.h"
#include "main/ctl_commands.h"
#include "main/ctl_list.h"
#include "main/ctl_text.h"
#include "main/ctl_trace.h"
#include "main/ctl_wait.h"

struct ctl {
    struct ctl_args args;
    const struct ctl_command *command;
    struct ctl_target target;
    struct ctl_asker asker;
    char socket_path[PATH_MAX];
    unsigned query_timeout_s; /* of the configuration, when it was read */
    bool json, watch, on_terminal;
    json_t *before; /* the last answer, while watching */
    int64_t before_ms;
};

/* ---- out */

static bool write_to(FILE *file, const struct bytes *text)
{
    return text->len == 0 || fwrite(text->data, 1, text->len, file) == text->len;
}

static int flush(struct bytes *out)
{
    bool good = write_to(stdout, out) && fflush(stdout) == 0;
    bytes_clear(out);
    return good ? 0 : -errno;
}

static struct ctl_screen screen_of(const struct ctl *c)
{
    struct winsize size;
    if (!c->on_terminal || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
        return (struct ctl_screen){0};
    return (struct ctl_screen){.width = size.ws_col, .height = size.ws_row};
}

/* ---- one answer */

static void say_missing(const struct ctl_view *v)
{
    const json_t *missing = json_object_get(v->answer, "missing");
    struct bytes text = {0};

    if (json_array_size(missing) == 0)
        return;
    ctl_value_append(&text, missing, CTL_TEXT);
    bytes_append_byte(&text, '\0');
    if (!text.failed)
        ctl_note(v, "tgg ctl: not all is there: no answer of shard %s", (char *)text.data);
    bytes_fini(&text);
}

/* JSON goes through as it is, but for the exit status of a check. */
static void show_json(struct ctl_view *v, const struct bytes *body, void (*view)(struct ctl_view *))
{
    struct bytes unseen = {0}, *out = v->out;

    ctl_json_append(out, body->data, body->len);
    if (body->len == 0 || body->data[body->len - 1] != '\n')
        bytes_append_byte(out, '\n');
    if (view == NULL)
        return;
    v->out = &unseen;
    view(v);
    v->out = out;
    bytes_fini(&unseen);
}

/* Text of the gateway's own, but for what a terminal could obey in the names that it has from others. */
static void show_plain(struct ctl_view *v, const struct bytes *body)
{
    for (size_t at = 0, n; at < body->len; at += n + 1) {
        const uint8_t *end = memchr(body->data + at, '\n', body->len - at);
        n = end != NULL ? (size_t)(end - body->data) - at : body->len - at;
        ctl_text_append(v->out, body->data + at, n);
        bytes_append_byte(v->out, '\n');
    }
}

static void show(const struct ctl *c, struct ctl_view *v, const struct bytes *body)
{
    if (c->json) {
        show_json(v, body, c->command->view);
        return;
    }
    if (c->command->view != NULL)
        c->command->view(v);
    else
        ctl_show_section(v, c->command->section);
    say_missing(v);
}

static int ask_once(const struct ctl *c, struct ctl_view *v, struct bytes *why)
{
    struct bytes body = {0};

    int r = ctl_ask(&c->asker, (const char *)c->target.text.data, &body, why);
    if (r == 0 && (c->command->flags & CTL_PLAIN) != 0) {
        show_plain(v, &body);
    } else if (r == 0) {
        v->answer = ctl_answer_parse(body.data, body.len, why);
        if (v->answer != NULL)
            show(c, v, &body);
        else
            r = -EPROTO;
    }
    bytes_fini(&body);
    return r;
}

/* Into v->out, or through it to stdout when it is long and not watched. */
static int answer(const struct ctl *c, struct ctl_view *v, struct bytes *why)
{
    bool paged = (c->command->flags & CTL_PAGED) != 0;
    int r = paged ? ctl_list(c->command, &c->asker, &c->target, v, v->watch ? NULL : flush, why)
                  : ask_once(c, v, why);
    if (r == 0 && (v->out->failed || v->notes->failed)) {
        bytes_append_str(why, "tgg ctl: no memory\n");
        return -ENOMEM;
    }
    return r;
}

static struct ctl_view view_of(const struct ctl *c, struct bytes *out, struct bytes *notes)
{
    return (struct ctl_view){.name = c->command->name,
                             .args = &c->args,
                             .screen = screen_of(c),
                             .watch = c->watch,
                             .before = c->before,
                             .elapsed_s = (double)(ctl_now_ms() - c->before_ms) / 1000,
                             .out = out,
                             .notes = notes,
                             .status = EXIT_OK};
}

static int run_once(const struct ctl *c)
{
    struct bytes out = {0}, notes = {0}, why = {0};
    struct ctl_view v = view_of(c, &out, &notes);

    int r = answer(c, &v, &why);
    if (r == 0)
        r = flush(&out);
    if (r < 0 && why.len == 0)
        bytes_printf(&why, "tgg ctl: cannot write: %s\n", strerror(-r));
    write_to(stderr, &notes);
    if (r < 0)
        write_to(stderr, &why);
    json_decref(v.answer);
    bytes_fini(&out);
    bytes_fini(&notes);
    bytes_fini(&why);
    return r < 0 ? EXIT_RUNTIME : v.status;
}

/* ---- again and again */

/* From the upper left corner, each line over the one that was there: nothing flickers. */
static void frame_terminal(const struct bytes *text, const struct ctl_screen *screen, struct bytes *frame)
{
    unsigned lines = 0;

    bytes_append_str(frame, "\033[H");
    for (size_t at = 0, n; at < text->len; at += n + 1) {
        const uint8_t *end = memchr(text->data + at, '\n', text->len - at);
        n = end != NULL ? (size_t)(end - text->data) - at : text->len - at;
        if (screen->height > 0 && ++lines >= screen->height)
            break;
        bytes_append(frame, text->data + at, n);
        bytes_append_str(frame, "\033[K\n");
    }
    bytes_append_str(frame, "\033[J");
}

static int write_frame(const struct ctl *c, const struct ctl_view *v, const struct bytes *why)
{
    struct bytes text = {0}, frame = {0};
    char now[CTL_FORMAT_MAX];

    if (!c->json)
        bytes_printf(&text, "tgg ctl %s, every %.3g s, %s\n", c->command->name,
                     (double)c->args.watch_ms / 1000, ctl_format_unix(time(NULL), now));
    if (!c->json)
        bytes_append(&text, why->data, why->len);
    bytes_append(&text, v->out->data, v->out->len);
    if (!c->json)
        bytes_append(&text, v->notes->data, v->notes->len);
    if (c->on_terminal && !c->json)
        frame_terminal(&text, &v->screen, &frame);
    else if (!c->json)
        bytes_append_byte(&text, '\n');
    int r = text.failed || frame.failed ? -ENOMEM : flush(frame.len > 0 ? &frame : &text);
    bytes_fini(&text);
    bytes_fini(&frame);
    return r;
}

/* A gateway that is away for a while comes back: only the first answer must be there. */
static int watch_once(struct ctl *c, bool first)
{
    struct bytes out = {0}, notes = {0}, why = {0};
    struct ctl_view v = view_of(c, &out, &notes);

    int r = answer(c, &v, &why);
    bool stopped = r == -EINTR, failed = r < 0;
    if (!stopped && !(failed && first))
        r = write_frame(c, &v, &why);
    if (failed && !stopped && (first || c->json))
        write_to(stderr, &why);
    json_decref(c->before);
    c->before = v.answer;
    c->before_ms = ctl_now_ms();
    bytes_fini(&out);
    bytes_fini(&notes);
    bytes_fini(&why);
    return r;
}

static int run_watch(struct ctl *c)
{
    ctl_stop_catch();
    int r = 0;
    if (c->on_terminal && !c->json)
        fputs("\033[2J", stdout);
    for (bool first = true; r == 0; first = false) {
        int64_t begun_ms = ctl_now_ms();
        r = watch_once(c, first);
        if (r == 0 && ctl_wait(-1, 0, begun_ms + c->args.watch_ms) == -EINTR)
            r = -EINTR;
    }
    json_decref(c->before);
    c->before = NULL;
    return r == -EINTR ? EXIT_OK : EXIT_RUNTIME;
}

static int run_trace(const struct ctl *c)
{
    struct bytes why = {0};
    const struct ctl_screen screen = screen_of(c);

    ctl_stop_catch();
    int r = ctl_trace(c->socket_path, (const char *)c->target.text.data, c->json, &screen, flush, &why);
    write_to(stderr, &why);
    bytes_fini(&why);
    return r < 0 ? EXIT_RUNTIME : EXIT_OK;
}

/* ---- the command */

/* Whom to ask. -1 or the exit status. */
static int find_socket(struct ctl *c)
{
    struct options opt = {.config_path = CONFIG_PATH_DEFAULT};
    struct config cfg;

    if (ctl_given(&c->args, CTL_BIT(SOCKET))) {
        snprintf(c->socket_path, sizeof c->socket_path, "%s", c->args.text[CTL_OPTION_SOCKET]);
        return -1;
    }
    if (ctl_given(&c->args, CTL_BIT(CONFIG)))
        opt.config_path = c->args.text[CTL_OPTION_CONFIG];
    int status = options_load(&opt, &cfg);
    if (status != EXIT_OK)
        return status;
    if (*cfg.admin.socket != '\0')
        snprintf(c->socket_path, sizeof c->socket_path, "%s", cfg.admin.socket);
    else
        snprintf(c->socket_path, sizeof c->socket_path, "%s/admin.sock", cfg.gateway.runtime_dir);
    c->query_timeout_s = (unsigned)(cfg.admin.query_timeout / 1000);
    config_fini(&cfg);
    return -1;
}

/* Whether it is meant; only a person is asked. */
static bool confirmed(const struct ctl *c)
{
    const char *question = ctl_command_question(c->command, &c->args);
    char line[16];

    if (question == NULL || !isatty(STDIN_FILENO))
        return true;
    fprintf(stderr, "tgg ctl: %s [y/N] ", question);
    if (fgets(line, sizeof line, stdin) != NULL && (strcmp(line, "y\n") == 0 || strcmp(line, "yes\n") == 0))
        return true;
    fprintf(stderr, "tgg ctl: nothing was done\n");
    return false;
}

static int run(struct ctl *c)
{
    int status = find_socket(c);
    if (status >= 0)
        return status;
    if (!confirmed(c))
        return EXIT_RUNTIME;
    c->asker = (struct ctl_asker){.socket_path = c->socket_path, .method = c->command->method};
    c->asker.more_wait_s = ctl_command_wait_s(c->command, &c->args) + c->query_timeout_s;
    if ((c->command->flags & CTL_STREAM) != 0)
        return run_trace(c);
    return c->watch ? run_watch(c) : run_once(c);
}

static int wrong_usage(const struct ctl_command *command)
{
    fprintf(stderr, "usage: tgg ctl %s%s%s [options]; tgg ctl %s%s--help tells more\n",
            command != NULL ? command->name : "COMMAND", command == NULL || *command->arguments ? " " : "",
            command != NULL ? command->arguments : "[arguments]", command != NULL ? command->name : "",
            command != NULL ? " " : "");
    return EXIT_USAGE;
}

int cmd_ctl(int argc, char **argv)
{
    static struct ctl c;

    c = (struct ctl){.on_terminal = isatty(STDOUT_FILENO)};
    if (!ctl_args_parse(argc, argv, &c.args))
        return wrong_usage(NULL);
    if (ctl_given(&c.args, CTL_BIT(HELP)) && c.args.n_words == 0) {
        ctl_usage(stdout, NULL);
        return EXIT_OK;
    }
    c.command = ctl_command_find(c.args.n_words > 0 ? c.args.words[0] : "status");
    if (c.command == NULL)
        return wrong_usage(NULL);
    if (ctl_given(&c.args, CTL_BIT(HELP))) {
        ctl_usage(stdout, c.command);
        return EXIT_OK;
    }
    c.json = ctl_given(&c.args, CTL_BIT(JSON));
    c.watch = ctl_given(&c.args, CTL_BIT(WATCH));
    hash_init();
    int status = ctl_command_check(c.command, &c.args) && ctl_target_make(c.command, &c.args, &c.target)
                     ? run(&c)
                     : wrong_usage(c.command);
    ctl_target_fini(&c.target);
    return status;
}
