// SPDX-License-Identifier: MIT
/* One piece of memory, in a process as in a memfd (offsets from its begin, host byte order; both ends are of
 * one build, the magic says so):
 *
 *   ┌────────┬───────────┬───────────┬─────┬──────────────────────┬────────────────────────────────┐
 *   │ header │ entry [0] │ entry [1] │ ... │ configuration's text │ path, content, path, content …  │
 *   └────────┴───────────┴───────────┴─────┴──────────────────────┴────────────────────────────────┘
 */
#include "common/files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"

#define MAGIC       UINT64_C(0x3173656c69466767) /* "ggFiles1": the digit is the layout's version */
#define SEALS       (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW)
#define ENTRIES_MAX 65536

struct header {
    uint64_t magic;
    uint64_t bytes; /* of all */
    uint64_t n;     /* entries */
    uint64_t text_off, text_len;
};
struct entry {
    uint64_t path_off, path_len, data_off, data_len;
};
static_assert(sizeof(struct header) == 40 && sizeof(struct entry) == 32,
              "no holes: they would be of the heap");

/* Private keys are in it: no heap, whose pages are used again, and no core file. */
struct files {
    const struct header *map;
};

static const struct entry *entries_of(const struct files *f)
{
    return (const struct entry *)(f->map + 1);
}

static struct slice slice_at(const struct files *f, uint64_t off, uint64_t len)
{
    return (struct slice){(const uint8_t *)f->map + off, len};
}

/* ---- reading */

/* What has been read so far. */
struct loading {
    const struct config *cfg;
    struct config_error *err;
    struct loaded {
        struct slice path; /* within the configuration, or ban_path */
        uint8_t *data;
        size_t len;
    } * list;
    unsigned n, cap;
    size_t total, paths;
    char ban_path[PATH_MAX];
};

/* Where it stands in the configuration. */
struct place {
    const char *section, *key;
    unsigned line;
    bool may_be_missing;
};

static void wipe(void *data, size_t len)
{
    if (data != NULL)
        explicit_bzero(data, len);
    free(data);
}

static void loading_fini(struct loading *ld)
{
    for (unsigned i = 0; i < ld->n; i++)
        wipe(ld->list[i].data, ld->list[i].len);
    free(ld->list);
}

/* As much as there is, also when the file grows meanwhile; -EFBIG: more than max. */
static int read_all(int fd, size_t guess, size_t max, uint8_t **ret, size_t *ret_len)
{
    size_t cap = (guess < max ? guess : max) + 1, len = 0;
    uint8_t *data = malloc(cap);

    while (data != NULL) {
        ssize_t n = read(fd, data + len, cap - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || (len += (size_t)n) > max) {
            int r = n < 0 ? -errno : n > 0 ? -EFBIG : 0;
            if (r < 0) {
                wipe(data, len);
                return r;
            }
            *ret = data;
            *ret_len = len;
            return 0;
        }
        if (len < cap)
            continue;
        uint8_t *larger = malloc(2 * cap); /* not realloc, which would leave a copy behind */
        if (larger != NULL)
            memcpy(larger, data, len);
        wipe(data, len);
        data = larger;
        cap *= 2;
    }
    return -ENOMEM;
}

static int read_path(const char *path, size_t max, uint8_t **ret, size_t *ret_len)
{
    struct stat st;
    /* Without O_NONBLOCK a FIFO would keep us for ever. */
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), r;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0)
        r = -errno;
    else if (S_ISDIR(st.st_mode))
        r = -EISDIR;
    else if (!S_ISREG(st.st_mode))
        r = -ENODEV;
    else
        r = read_all(fd, (size_t)st.st_size, max, ret, ret_len);
    close(fd);
    return r;
}

static void refuse(struct loading *ld, const struct place *at, struct slice path, int r)
{
    const char *name = log_quote(path.data, path.len);

    if (r == -EFBIG)
        config_error_add(ld->err, at->line, at->section, at->key,
                         "%s: too large; expected at most %zu MiB of files together", name,
                         FILES_TOTAL_MAX >> 20);
    else if (r == -ENODEV)
        config_error_add(ld->err, at->line, at->section, at->key, "%s: not a file; expected a regular one",
                         name);
    else
        config_error_add(ld->err, at->line, at->section, at->key, "%s: %s; expected a file that can be read",
                         name, strerror(-r));
}

static bool is_loaded(const struct loading *ld, struct slice path)
{
    for (unsigned i = 0; i < ld->n; i++) {
        if (slice_eq(ld->list[i].path, path))
            return true;
    }
    return false;
}

static void keep(struct loading *ld, struct slice path, uint8_t *data, size_t len)
{
    if (ld->n == ld->cap) {
        ld->cap = ld->cap > 0 ? 2 * ld->cap : 16;
        ld->list = realloc(ld->list, ld->cap * sizeof *ld->list);
        if (ld->list == NULL)
            abort();
    }
    ld->list[ld->n++] = (struct loaded){path, data, len};
    ld->total += len;
    ld->paths += path.len;
}

static void load_file(struct loading *ld, const struct place *at, const char *path, size_t path_len)
{
    struct slice name = {(const uint8_t *)path, path_len};
    char text[PATH_MAX];
    uint8_t *data = NULL;
    size_t len = 0;
    int r = 0;

    if (is_loaded(ld, name))
        return;
    if (path_len >= sizeof text) {
        r = -ENAMETOOLONG;
    } else if (ld->n == ENTRIES_MAX) {
        r = -E2BIG;
    } else {
        snprintf(text, sizeof text, "%.*s", (int)path_len, path);
        r = read_path(text, FILES_TOTAL_MAX - ld->total, &data, &len);
    }
    if (r == 0)
        keep(ld, name, data, len);
    else if ((r != -ENOENT && r != -ENOTDIR) || !at->may_be_missing)
        refuse(ld, at, name, r);
}

/* Every item of a list that is a path: only those that begin with '/' when other things may stand there. */
static void load_list(struct loading *ld, const struct place *at, const char *value, bool addresses)
{
    const char *item;
    size_t len;
    for (const char *pos = value; config_list_next(&pos, &item, &len);) {
        if (!addresses || *item == '/')
            load_file(ld, at, item, len);
    }
}

static void load_gateway(struct loading *ld)
{
    const struct config_gateway *g = &ld->cfg->gateway;
    struct place bans = {"gateway", "ban_file", g->line.ban_file, true};

    load_list(ld, &(struct place){"gateway", "allow_list", g->line.allow_list, false}, g->allow_list, true);
    load_list(ld, &(struct place){"gateway", "deny_list", g->line.deny_list, false}, g->deny_list, true);
    load_list(ld, &(struct place){"gateway", "reserve_list", g->line.reserve_list, false}, g->reserve_list,
              true);
    files_ban_path(ld->cfg, ld->ban_path, sizeof ld->ban_path);
    load_file(ld, &bans, ld->ban_path, strlen(ld->ban_path));
    if (g->tls_ticket_file[0] != '\0')
        load_file(ld, &(struct place){"gateway", "tls_ticket_file", g->line.tls_ticket_file, false},
                  g->tls_ticket_file, strlen(g->tls_ticket_file));
}

static void load_listener(struct loading *ld, const struct config_listen *l)
{
    char label[64];

    snprintf(label, sizeof label, "listen %s", l->name);
    load_list(ld, &(struct place){label, "trusted_proxies", l->line.trusted_proxies, false},
              l->trusted_proxies, true);
    load_list(ld, &(struct place){label, "tls_certificate", l->line.tls_certificate, false},
              l->tls_certificate, false);
    load_list(ld, &(struct place){label, "tls_key", l->line.tls_key, false}, l->tls_key, false);
    if (l->tls_client_ca[0] != '\0')
        load_file(ld, &(struct place){label, "tls_client_ca", l->line.tls_client_ca, false}, l->tls_client_ca,
                  strlen(l->tls_client_ca));
}

/* ---- laying out */

struct writer {
    uint8_t *base;
    size_t at;
};

static uint64_t put(struct writer *w, const void *data, size_t len)
{
    size_t off = w->at;
    if (len > 0)
        memcpy(w->base + off, data, len);
    w->at += len;
    return off;
}

/* NULL without memory. */
static struct files *lay_out(const struct loading *ld, struct slice text)
{
    size_t head = sizeof(struct header) + ld->n * sizeof(struct entry);
    size_t bytes = head + text.len + ld->paths + ld->total;
    struct files *f = malloc(sizeof *f);
    struct header *h = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (f == NULL || h == MAP_FAILED) {
        if (h != MAP_FAILED)
            munmap(h, bytes);
        free(f);
        return NULL;
    }
    madvise(h, bytes, MADV_DONTDUMP);
    struct writer w = {(uint8_t *)h, head};
    struct entry *e = (struct entry *)(h + 1);
    *h = (struct header){.magic = MAGIC, .bytes = bytes, .n = ld->n, .text_len = text.len};
    h->text_off = put(&w, text.data, text.len);
    for (unsigned i = 0; i < ld->n; i++) {
        const struct loaded *l = &ld->list[i];
        e[i].path_len = l->path.len;
        e[i].path_off = put(&w, l->path.data, l->path.len);
        e[i].data_len = l->len;
        e[i].data_off = put(&w, l->data, l->len);
    }
    ASSERT(w.at == bytes);
    mprotect(h, bytes, PROT_READ);
    f->map = h;
    return f;
}

int files_load(const struct config *cfg, struct slice config_text, struct files **ret,
               struct config_error *err)
{
    unsigned before = err->n + err->left_out;
    struct loading *ld = calloc(1, sizeof *ld);
    struct files *f = NULL;

    if (ld == NULL)
        return -ENOMEM;
    if (err->path[0] == '\0')
        snprintf(err->path, sizeof err->path, "%s", cfg->source_path);
    ld->cfg = cfg;
    ld->err = err;
    load_gateway(ld);
    for (unsigned i = 0; i < cfg->n_listeners; i++)
        load_listener(ld, &cfg->listen[i]);
    int r = err->n + err->left_out == before ? 0 : -EINVAL;
    if (r == 0 && (f = lay_out(ld, config_text)) == NULL) {
        config_error_add(err, 0, "", "", "no memory for the %zu bytes of the files that it names", ld->total);
        r = -ENOMEM;
    }
    loading_fini(ld);
    free(ld);
    if (r == 0)
        *ret = f;
    return r;
}

void files_free(struct files *f)
{
    if (f != NULL)
        munmap((void *)f->map, f->map->bytes);
    free(f);
}

/* ---- asking */

bool files_get(const struct files *f, const char *path, size_t path_len, struct slice *ret)
{
    const struct entry *e = entries_of(f);
    struct slice name = {(const uint8_t *)path, path_len};

    for (uint64_t i = 0; i < f->map->n; i++) {
        if (!slice_eq(slice_at(f, e[i].path_off, e[i].path_len), name))
            continue;
        *ret = slice_at(f, e[i].data_off, e[i].data_len);
        return true;
    }
    return false;
}

struct slice files_config_text(const struct files *f)
{
    return slice_at(f, f->map->text_off, f->map->text_len);
}

/* Those of a that b does not have, or has with another content; only_missing: without the latter. */
static unsigned count_others(const struct files *a, const struct files *b, bool only_missing)
{
    const struct entry *e = entries_of(a);
    unsigned n = 0;

    for (uint64_t i = 0; i < a->map->n; i++) {
        struct slice path = slice_at(a, e[i].path_off, e[i].path_len), theirs;
        bool there = files_get(b, (const char *)path.data, path.len, &theirs);
        if (!there || (!only_missing && !slice_eq(slice_at(a, e[i].data_off, e[i].data_len), theirs)))
            n++;
    }
    return n;
}

unsigned files_changed(const struct files *a, const struct files *b)
{
    return count_others(a, b, false) + count_others(b, a, true);
}

char *files_ban_path(const struct config *cfg, char *buf, size_t cap)
{
    if (cfg->gateway.ban_file[0] != '\0')
        snprintf(buf, cap, "%s", cfg->gateway.ban_file);
    else
        snprintf(buf, cap, "%s/bans", cfg->gateway.runtime_dir);
    return buf;
}

/* ---- between processes */

static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

int files_to_fd(const struct files *f)
{
    int fd = memfd_create("tgg-files", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int r = write_all(fd, (const uint8_t *)f->map, f->map->bytes);
    if (r == 0 && fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
        r = -errno;
    if (r < 0)
        close(fd);
    return r < 0 ? r : fd;
}

static bool is_within(const struct header *h, uint64_t off, uint64_t len)
{
    return off <= h->bytes && len <= h->bytes - off;
}

static bool holds_together(const struct header *h, size_t bytes)
{
    const struct entry *e = (const struct entry *)(h + 1);

    if (h->magic != MAGIC || h->bytes != bytes || h->n > ENTRIES_MAX ||
        h->n > (bytes - sizeof *h) / sizeof *e || !is_within(h, h->text_off, h->text_len))
        return false;
    for (uint64_t i = 0; i < h->n; i++) {
        if (!is_within(h, e[i].path_off, e[i].path_len) || !is_within(h, e[i].data_off, e[i].data_len))
            return false;
    }
    return true;
}

int files_open(int fd, struct files **ret)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    /* Unsealed it could shrink below us, or change after it was checked. */
    if (seals < 0 || (seals & SEALS) != SEALS)
        return -EINVAL;
    if (fstat(fd, &st) < 0)
        return -errno;
    size_t bytes = (size_t)st.st_size;
    if (bytes < sizeof(struct header))
        return -EINVAL;
    /* Private: kernels before 6.7 refuse a shared mapping of what is sealed against writing, read-only too.
     */
    const struct header *h = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (h == MAP_FAILED)
        return -errno;
    struct files *f = holds_together(h, bytes) ? malloc(sizeof *f) : NULL;
    if (f == NULL) {
        int r = holds_together(h, bytes) ? -ENOMEM : -EINVAL;
        munmap((void *)h, bytes);
        return r;
    }
    madvise((void *)h, bytes, MADV_DONTDUMP);
    f->map = h;
    *ret = f;
    return 0;
}

int files_open_config(int fd, const char *path, struct files **ret, struct config *ret_config)
{
    struct config_error *err = calloc(1, sizeof *err);
    int r = err != NULL ? files_open(fd, ret) : -ENOMEM;
    if (r == 0) {
        struct slice text = files_config_text(*ret);
        r = config_load_text((const char *)text.data, text.len, path, ret_config, err);
        if (r < 0)
            files_free(*ret);
    }
    free(err);
    return r;
}
