// SPDX-License-Identifier: MIT
#include "supervisor/check.h"

#include <errno.h>

#include "guard/guard.h"
#include "supervisor/ticket_store.h"
#include "tls/tls.h"

/* As a shard makes them, and away with it. */
static void check_certificates(const struct config *cfg, const struct files *files, struct config_error *err)
{
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        if (cfg->listen[i].tls_certificate[0] == '\0')
            continue;
        struct tls_context *ctx = tls_context_new(&cfg->listen[i], files, NULL, err);
        if (ctx != NULL)
            tls_context_free(ctx);
    }
}

int check_files(const struct config *cfg, struct slice config_text, struct files **ret,
                struct config_error *err)
{
    unsigned before = err->n + err->left_out;
    struct files *files;
    int r = files_load(cfg, config_text, &files, err);

    if (r < 0)
        return r; /* what is missing would be told once more by each */
    guard_lists_check(cfg, files, err);
    ticket_file_check(cfg, files, err);
    check_certificates(cfg, files, err);
    if (err->n + err->left_out > before) {
        files_free(files);
        return -EINVAL;
    }
    *ret = files;
    return 0;
}
