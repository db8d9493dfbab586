// SPDX-License-Identifier: MIT
/* Two configurations beside each other: what differs, and what of a newer one takes effect at once. And lists
 * as they stand in values. */
#include "common/config.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "common/config_priv.h"

/* ---- comparing */

static bool values_differ(const struct config_key *k, const void *a, const void *b)
{
    char *texts[2];
    size_t lens[2];
    for (unsigned i = 0; i < 2; i++) {
        FILE *f = open_memstream(&texts[i], &lens[i]);
        if (f == NULL)
            abort();
        config_value_print(f, k, i == 0 ? a : b);
        if (fclose(f) != 0)
            abort();
    }
    bool differ = lens[0] != lens[1] || memcmp(texts[0], texts[1], lens[0]) != 0;
    free(texts[0]);
    free(texts[1]);
    return differ;
}

/* Calls each for every section that both have, listeners in order. */
static void each_section(struct config *a, struct config *b,
                         void (*each)(void *ctx, enum config_section section, const char *label, void *of_a,
                                      void *of_b),
                         void *ctx)
{
    for (unsigned s = 0; s < CONFIG_SECTION_N; s++) {
        enum config_section section = (enum config_section)s;
        unsigned n = section == CONFIG_SECTION_listen ? a->n_listeners : 1;
        ASSERT(section != CONFIG_SECTION_listen || n == b->n_listeners);
        for (unsigned i = 0; i < n; i++) {
            char label[64];
            if (section == CONFIG_SECTION_listen)
                snprintf(label, sizeof label, "listen %s", a->listen[i].name);
            else
                snprintf(label, sizeof label, "%s", config_section_names[s]);
            each(ctx, section, label, config__section(a, section, i), config__section(b, section, i));
        }
    }
}

struct compare {
    void (*differs)(void *ctx, const char *section, const char *key, bool live);
    void *ctx;
};

static void compare_section(void *ctx, enum config_section section, const char *label, void *of_a, void *of_b)
{
    const struct compare *c = ctx;
    for (unsigned i = 0; i < config_keys_n; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->section == section && values_differ(k, config_key_value(k, of_a), config_key_value(k, of_b)))
            c->differs(c->ctx, label, k->name, k->live);
    }
}

void config_compare(const struct config *a, const struct config *b,
                    void (*differs)(void *ctx, const char *section, const char *key, bool live), void *ctx)
{
    struct compare c = {differs, ctx};
    each_section((struct config *)a, (struct config *)b, compare_section, &c);
}

bool config_same_listeners(const struct config *a, const struct config *b)
{
    if (a->n_listeners != b->n_listeners)
        return false;
    for (unsigned i = 0; i < a->n_listeners; i++)
        if (strcmp(a->listen[i].name, b->listen[i].name) != 0)
            return false;
    return true;
}

/* ---- taking over */

static size_t value_size(const struct config_key *k)
{
    switch (k->kind) {
    case CONFIG_KIND_UINT: return sizeof(CONFIG_TYPE_UINT);
    case CONFIG_KIND_BOOL: return sizeof(CONFIG_TYPE_BOOL);
    case CONFIG_KIND_STRING: return sizeof(CONFIG_TYPE_STRING);
    case CONFIG_KIND_IPV4: return sizeof(CONFIG_TYPE_IPV4);
    case CONFIG_KIND_ADDRESSES: return sizeof(CONFIG_TYPE_ADDRESSES);
    case CONFIG_KIND_ENUM: return sizeof(enum config_protocol);
    }
    UNREACHABLE();
}

static void swap(void *a, void *b, size_t size)
{
    char kept[sizeof(struct config_addresses)];
    ASSERT(size <= sizeof kept);
    memcpy(kept, a, size);
    memcpy(a, b, size);
    memcpy(b, kept, size);
}

static void apply_section(void *ctx, enum config_section section, const char *label, void *of_a, void *of_b)
{
    for (unsigned i = 0; i < config_keys_n; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->section != section || !k->live)
            continue;
        swap(config_key_value(k, of_a), config_key_value(k, of_b), value_size(k));
        swap(config_key_line(k, of_a), config_key_line(k, of_b), sizeof(uint32_t));
    }
}

void config_apply_live(struct config *cfg, struct config *from)
{
    ASSERT(config_same_listeners(cfg, from));
    each_section(cfg, from, apply_section, NULL);
}

/* ---- listeners that share a socket */

static bool same_address(const char *a, const char *b)
{
    uint8_t ip_a[16], ip_b[16];
    for (unsigned i = 0; i < 2; i++) {
        int family = i == 0 ? AF_INET : AF_INET6;
        if (inet_pton(family, a, ip_a) == 1 && inet_pton(family, b, ip_b) == 1)
            return memcmp(ip_a, ip_b, family == AF_INET ? 4 : 16) == 0;
    }
    return strcmp(a, b) == 0;
}

static bool may_share(const struct config_listen *l)
{
    return l->protocol == PROTOCOL_WEBSOCKET && l->path[0] != '\0';
}

unsigned config_listen_socket_of(const struct config *cfg, unsigned i)
{
    const struct config_listen *l = &cfg->listen[i];
    for (unsigned j = 0; j < i && may_share(l); j++) {
        const struct config_listen *other = &cfg->listen[j];
        if (other->port == l->port && may_share(other) && same_address(other->address, l->address))
            return j;
    }
    return i;
}

/* ---- lists */

bool config_list_next(const char **pos, const char **ret, size_t *ret_len)
{
    const char *p = *pos + strspn(*pos, ", \t");
    if (*p == '\0') {
        *pos = p;
        return false;
    }
    size_t len = strcspn(p, ",");
    *pos = p + len;
    while (len > 0 && (p[len - 1] == ' ' || p[len - 1] == '\t'))
        len--;
    *ret = p;
    *ret_len = len;
    return true;
}
