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

struct compare {
    void (*differs)(void *ctx, const char *section, const char *key, bool live);
    void *ctx;
};

/* A listener's keys take effect all: one whose START keys differ is another one. */
static void compare_section(const struct compare *c, enum config_section section, const char *label,
                            const void *of_a, const void *of_b)
{
    for (unsigned i = 0; i < config_keys_n; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->section == section && values_differ(k, config_key_value(k, of_a), config_key_value(k, of_b)))
            c->differs(c->ctx, label, k->name, k->live || section == CONFIG_SECTION_listen);
    }
}

static const struct config_listen *listener_called(const struct config *cfg, const char *name)
{
    for (unsigned i = 0; i < cfg->n_listeners; i++) {
        if (strcmp(cfg->listen[i].name, name) == 0)
            return &cfg->listen[i];
    }
    return NULL;
}

void config_compare(const struct config *a, const struct config *b,
                    void (*differs)(void *ctx, const char *section, const char *key, bool live), void *ctx)
{
    struct compare c = {differs, ctx};
    char label[64];

    for (unsigned s = 0; s < CONFIG_SECTION_N; s++) {
        enum config_section section = (enum config_section)s;
        if (section != CONFIG_SECTION_listen)
            compare_section(&c, section, config_section_names[s],
                            config__section((struct config *)a, section, 0),
                            config__section((struct config *)b, section, 0));
    }
    for (unsigned i = 0; i < a->n_listeners; i++) {
        const struct config_listen *other = listener_called(b, a->listen[i].name);
        snprintf(label, sizeof label, "listen %s", a->listen[i].name);
        if (other != NULL)
            compare_section(&c, CONFIG_SECTION_listen, label, &a->listen[i], other);
    }
}

char *config_listen_identity(const struct config_listen *l, char *buf, size_t cap)
{
    FILE *f = fmemopen(buf, cap, "w");
    if (f == NULL)
        abort();
    fprintf(f, "%s", l->name);
    for (unsigned i = 0; i < config_keys_n; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->section != CONFIG_SECTION_listen || k->live)
            continue;
        fputc(' ', f);
        config_value_print(f, k, config_key_value(k, l));
    }
    long len = ftell(f);
    ASSERT(fclose(f) == 0 && len > 0 && (size_t)len < cap);
    return buf;
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
    char kept[sizeof(struct config_listen)];
    ASSERT(size <= sizeof kept);
    memcpy(kept, a, size);
    memcpy(a, b, size);
    memcpy(b, kept, size);
}

static void apply_section(enum config_section section, void *of_a, void *of_b)
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
    for (unsigned s = 0; s < CONFIG_SECTION_N; s++) {
        enum config_section section = (enum config_section)s;
        if (section != CONFIG_SECTION_listen)
            apply_section(section, config__section(cfg, section, 0), config__section(from, section, 0));
    }
    /* Whole: those that both have are alike in all that is not LIVE. */
    for (unsigned i = 0; i < CONFIG_LISTEN_MAX; i++)
        swap(&cfg->listen[i], &from->listen[i], sizeof cfg->listen[i]);
    swap(&cfg->n_listeners, &from->n_listeners, sizeof cfg->n_listeners);
}

/* ---- listeners on one address */

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

bool config_listen_is_at(const struct config_listen *l, const char *address, uint64_t port)
{
    bool is_unix = strncmp(address, "unix:", 5) == 0;
    return same_address(l->address, address) && (is_unix || l->port == port);
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
