// SPDX-License-Identifier: MIT
#include "common/config_table.h"

#include <string.h>
#include <strings.h>

#include "common/config.h"

#define CHOICE(constant, text) text,
#define CHOICES_DEFINE(name)   static const char *const choices_##name[] = {CONFIG_ENUM_##name(CHOICE)};
CONFIG_ENUMS(CHOICES_DEFINE)

#define KIND_UINT       CONFIG_KIND_UINT, NULL, 0
#define KIND_BOOL       CONFIG_KIND_BOOL, NULL, 0
#define KIND_STRING     CONFIG_KIND_STRING, NULL, 0
#define KIND_IPV4       CONFIG_KIND_IPV4, NULL, 0
#define KIND_ADDRESSES  CONFIG_KIND_ADDRESSES, NULL, 0
#define KIND_ENUM(name) CONFIG_KIND_ENUM, choices_##name, sizeof choices_##name / sizeof choices_##name[0]
#define WHEN_LIVE       true
#define WHEN_START      false
#define REQUIRED        NULL

const struct config_key config_keys[] = {
#define KEY(section, name, type, when, def, min, max, unit, php, text)                                       \
    {CONFIG_SECTION_##section,                                                                               \
     #name,                                                                                                  \
     KIND_##type,                                                                                            \
     WHEN_##when,                                                                                            \
     def,                                                                                                    \
     min,                                                                                                    \
     max,                                                                                                    \
     unit,                                                                                                   \
     php,                                                                                                    \
     text,                                                                                                   \
     offsetof(struct config_##section, name),                                                                \
     offsetof(struct config_##section, line.name)},
#include "common/config_keys.def"
#undef KEY
};
const unsigned config_keys_n = sizeof config_keys / sizeof config_keys[0];

const char *const config_section_names[CONFIG_SECTION_N] = {"gateway", "listen", "register", "log", "admin"};
const char *const config_section_texts[CONFIG_SECTION_N] = {
    "The gateway: its address for business workers, its limits and its habits.",
    "A port for clients. As many sections as there are ports, each with a name of its own: [listen NAME].",
    "The register (tgg register), where gateways and business workers find each other.",
    "The log of every process.",
    "What is seen and steered while the gateway runs: tgg ctl, metrics, the web page.",
};

#define ENUM_NAME_DEFINE(name)                                                                               \
    const char *config_##name##_name(enum config_##name value)                                               \
    {                                                                                                        \
        return choices_##name[value];                                                                        \
    }
CONFIG_ENUMS(ENUM_NAME_DEFINE)

bool config_key_is_secret(const struct config_key *k)
{
    return strcmp(k->name, "secret_key") == 0 || strcmp(k->name, "token") == 0;
}

const struct config_key *config_key_find(enum config_section section, const char *name)
{
    for (unsigned i = 0; i < config_keys_n; i++) {
        if (config_keys[i].section == section && strcmp(config_keys[i].name, name) == 0)
            return &config_keys[i];
    }
    return NULL;
}

#define DISTANCE_WORD_MAX 64

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

unsigned config_distance(const char *a, const char *b, unsigned limit)
{
    size_t na = strlen(a), nb = strlen(b);
    unsigned row[DISTANCE_WORD_MAX + 1];

    if (na > DISTANCE_WORD_MAX || nb > DISTANCE_WORD_MAX)
        return limit;
    for (unsigned j = 0; j <= nb; j++)
        row[j] = j;
    for (unsigned i = 1; i <= na; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= nb; j++) {
            unsigned above = row[j];
            row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[nb] < limit ? row[nb] : limit;
}

/* Whether `word` stands in a comma-separated list. */
static bool list_has(const char *list, const char *word)
{
    const char *item;
    for (size_t len; config_list_next(&list, &item, &len);)
        if (len == strlen(word) && strncasecmp(item, word, len) == 0)
            return true;
    return false;
}

const struct config_key *config_key_nearest(enum config_section section, const char *name)
{
    const struct config_key *best = NULL;
    unsigned best_distance = (unsigned)strlen(name) / 3 + 2;

    for (unsigned i = 0; i < config_keys_n; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->section != section)
            continue;
        if (list_has(k->php, name))
            return k;
        unsigned d = config_distance(name, k->name, best_distance);
        if (d < best_distance) {
            best = k;
            best_distance = d;
        }
    }
    return best;
}
