// SPDX-License-Identifier: MIT
/* config_keys.def as data, and the reading and writing of one value. For config*.c and the tool that writes
 * the documents; everybody else uses config.h. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum config_kind {
    CONFIG_KIND_UINT,
    CONFIG_KIND_BOOL,
    CONFIG_KIND_STRING,
    CONFIG_KIND_IPV4,
    CONFIG_KIND_ADDRESSES,
    CONFIG_KIND_ENUM,
};

enum config_section {
    CONFIG_SECTION_gateway,
    CONFIG_SECTION_listen,
    CONFIG_SECTION_register,
    CONFIG_SECTION_log,
    CONFIG_SECTION_admin,
    CONFIG_SECTION_N
};

struct config_key {
    enum config_section section;
    const char *name;
    enum config_kind kind;
    const char *const *choices; /* CONFIG_KIND_ENUM */
    unsigned n_choices;
    bool live;       /* a reload is enough */
    const char *def; /* as in a file; NULL: must be set */
    uint64_t min, max;
    const char *unit;
    const char *php;
    const char *text;
    size_t offset, line_offset; /* in the section's struct */
};

extern const struct config_key config_keys[];
extern const unsigned config_keys_n;
extern const char *const config_section_names[CONFIG_SECTION_N]; /* "gateway", ... */
extern const char *const config_section_texts[CONFIG_SECTION_N]; /* what it is, for documents */

const struct config_key *config_key_find(enum config_section section, const char *name);
/* What somebody who wrote `name` may have meant: the key that replaces that PHP property, or one spelled
 * alike. NULL when nothing is near. */
const struct config_key *config_key_nearest(enum config_section section, const char *name);
/* Never to be shown: not in errors, not by -t. */
bool config_key_is_secret(const struct config_key *k);
/* The number of single-character changes between two words, at most `limit` (then limit is returned). */
unsigned config_distance(const char *a, const char *b, unsigned limit);

static inline void *config_key_value(const struct config_key *k, const void *section)
{
    return (char *)section + k->offset;
}
static inline uint32_t *config_key_line(const struct config_key *k, const void *section)
{
    return (uint32_t *)(void *)((char *)section + k->line_offset);
}

/* Read `text` into *value (replacing and freeing what was there). 0 or -EINVAL with what was found and what
 * was expected in why; *value is then untouched. */
int config_value_parse(const struct config_key *k, const char *text, unsigned line, void *value, char *why,
                       size_t cap);
/* As it would be written in a file. */
void config_value_print(FILE *out, const struct config_key *k, const void *value);
void config_value_fini(const struct config_key *k, void *value);
/* What the key takes: "0 to 86400 s", "one of close, drop_newest, drop_oldest". Returns buf. */
char *config_value_expected(const struct config_key *k, char *buf, size_t cap);
