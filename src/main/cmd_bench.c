// SPDX-License-Identifier: MIT
/* tgg bench: load on a gateway, from outside, as its clients make it (docs/BENCH-TOOL.md). */
#include "main/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load/bench_run.h"
#include "load/plot.h"
#include "load/report.h"

static bool write_whole(FILE *f, const struct bytes *text, const char *name)
{
    bool good = !text->failed && fwrite(text->data, 1, text->len, f) == text->len && fflush(f) == 0;
    if (!good)
        fprintf(stderr, "tgg bench: %s: %s\n", name, text->failed ? "no memory" : strerror(errno));
    return good;
}

static bool write_file(const char *path, const struct bytes *text)
{
    FILE *f = fopen(path, "w");
    if (f == NULL) {
        fprintf(stderr, "tgg bench: %s: %s\n", path, strerror(errno));
        return false;
    }
    bool good = write_whole(f, text, path);
    return fclose(f) == 0 && good;
}

/* One of the forms of the result, to a file ("-": standard output), if it is wanted. */
static bool deliver(const struct bench_result *r, const char *path,
                    void (*form)(const struct bench_result *, struct bytes *))
{
    struct bytes text = {0};
    if (path == NULL)
        return true;
    form(r, &text);
    bool good =
        strcmp(path, "-") == 0 ? write_whole(stdout, &text, "standard output") : write_file(path, &text);
    bytes_fini(&text);
    return good;
}

/* With --json - standard output is for programs, and people read standard error. */
static bool report(const struct bench_result *r)
{
    const struct bench_options *o = r->opt;
    struct bytes text = {0};
    bool json_out = o->json != NULL && strcmp(o->json, "-") == 0;
    report_text(r, &text);
    bool good = write_whole(json_out ? stderr : stdout, &text, "the report");
    bytes_fini(&text);
    good = deliver(r, o->json, report_json) && good;
    good = deliver(r, o->html, plot_html) && good;
    return deliver(r, o->svg, plot_svg) && good;
}

static int run(struct bench_options *o)
{
    char error[512];
    if (!load_target_resolve(&o->target, error) || !bench_limit_check(o, error, sizeof error)) {
        fprintf(stderr, "tgg bench: %s\n", error);
        return EXIT_RUNTIME;
    }
    struct bench_result *r = calloc(1, sizeof *r);
    int err = r != NULL ? bench_run(o, r) : -ENOMEM;
    bool good = err == 0 && report(r) && bench_is_good(r);
    if (err < 0)
        fprintf(stderr, "tgg bench: %s\n", strerror(-err));
    if (r != NULL)
        bench_result_fini(r);
    free(r);
    return good ? EXIT_OK : EXIT_RUNTIME;
}

int cmd_bench(int argc, char **argv)
{
    struct bench_options options;
    int status = bench_options_parse(argc, argv, &options);
    if (status < 0)
        status = run(&options);
    bench_options_fini(&options);
    return status;
}
