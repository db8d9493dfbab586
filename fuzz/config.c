// SPDX-License-Identifier: MIT
/* Any bytes as a configuration file. What is taken obeys the table, prints and reads back the same; what is
 * refused says why, in order. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "common/config.h"
#include "common/config_table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static char *printed(const struct config *cfg, size_t *ret_len)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, ret_len);
    ASSERT(f != NULL);
    config_print(f, cfg);
    fclose(f);
    return text;
}

static void check_section(enum config_section section, const void *base)
{
    for (unsigned i = 0; i < config_keys_n; i++) {
        const struct config_key *k = &config_keys[i];
        const void *value = config_key_value(k, base);
        if (k->section != section)
            continue;
        if (k->kind == CONFIG_KIND_UINT)
            ASSERT(*(const uint64_t *)value >= k->min && *(const uint64_t *)value <= k->max);
        if (k->kind == CONFIG_KIND_STRING)
            ASSERT(strlen(*(char *const *)value) >= k->min && strlen(*(char *const *)value) <= k->max);
        if (k->kind == CONFIG_KIND_ENUM)
            ASSERT(*(const unsigned *)value < k->n_choices);
        if (k->kind == CONFIG_KIND_ADDRESSES)
            ASSERT(((const struct config_addresses *)value)->n > 0);
    }
}

static void check_taken(const struct config *cfg)
{
    static struct config_error err;
    static struct config again;
    size_t len, len_again;

    check_section(CONFIG_SECTION_gateway, &cfg->gateway);
    check_section(CONFIG_SECTION_register, &cfg->reg);
    check_section(CONFIG_SECTION_log, &cfg->log);
    for (unsigned i = 0; i < cfg->n_listeners; i++)
        check_section(CONFIG_SECTION_listen, &cfg->listen[i]);
    if (cfg->gateway.secret_key[0] != '\0' || cfg->reg.secret_key[0] != '\0')
        return; /* not printed, so not read back */

    char *once = printed(cfg, &len);
    ASSERT(config_load_text(once, len, "fuzz", &again, &err) == 0);
    char *twice = printed(&again, &len_again);
    char *thrice;
    size_t len_thrice;
    config_fini(&again);
    /* The first has its defaults apart; from then on nothing moves. */
    ASSERT(config_load_text(twice, len_again, "fuzz", &again, &err) == 0);
    thrice = printed(&again, &len_thrice);
    ASSERT(len_again == len_thrice && memcmp(twice, thrice, len_again) == 0);
    config_fini(&again);
    free(once);
    free(twice);
    free(thrice);
}

static void check_refused(const struct config_error *err)
{
    char line[1024];
    ASSERT(err->n > 0);
    for (unsigned i = 0; i < err->n; i++) {
        config_problem_format(err, i, line, sizeof line);
        ASSERT(strncmp(line, "fuzz:", 5) == 0 && err->list[i].text[0] != '\0');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct config cfg;
    static struct config_error err;
    int r = config_load_text((const char *)data, len, "fuzz", &cfg, &err);

    ASSERT(r == 0 || r == -EINVAL);
    if (r == 0) {
        check_taken(&cfg);
        config_fini(&cfg);
    } else {
        check_refused(&err);
    }
    return 0;
}
