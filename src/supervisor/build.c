// SPDX-License-Identifier: MIT
#include "supervisor/build.h"

#include <dlfcn.h>
#include <elf.h>
#include <inttypes.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

struct program {
    uint64_t base;
    uint8_t id[32];
    size_t id_len;
};

#define PADDED(n) (((n) + 3) & ~(size_t)3)

static void look_at_notes(struct program *p, const uint8_t *notes, size_t len)
{
    while (len >= sizeof(ElfW(Nhdr))) {
        ElfW(Nhdr) head;
        memcpy(&head, notes, sizeof head);
        const uint8_t *name = notes + sizeof head, *desc = name + PADDED(head.n_namesz);
        size_t all = sizeof head + PADDED(head.n_namesz) + PADDED(head.n_descsz);
        if (all > len)
            return;
        if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == 4 && memcmp(name, "GNU", 4) == 0) {
            p->id_len = head.n_descsz < sizeof p->id ? head.n_descsz : sizeof p->id;
            memcpy(p->id, desc, p->id_len);
        }
        notes += all;
        len -= all;
    }
}

/* The first object is the program. */
static int look_at_object(struct dl_phdr_info *info, size_t size, void *ctx)
{
    struct program *p = ctx;
    p->base = info->dlpi_addr;
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_NOTE && p->id_len == 0)
            look_at_notes(p, (const uint8_t *)(uintptr_t)(info->dlpi_addr + part->p_vaddr), part->p_memsz);
    }
    return 1;
}

uint64_t build_base(void)
{
    struct program p = {.id_len = 0};
    dl_iterate_phdr(look_at_object, &p);
    return p.base;
}

char *build_id(char buf[BUILD_ID_STRLEN])
{
    struct program p = {.id_len = 0};
    dl_iterate_phdr(look_at_object, &p);
    snprintf(buf, BUILD_ID_STRLEN, "none");
    for (size_t i = 0; i < p.id_len; i++)
        snprintf(buf + 2 * i, BUILD_ID_STRLEN - 2 * i, "%02x", p.id[i]);
    return buf;
}

char *build_explain(uint64_t address, char *buf, size_t cap)
{
    Dl_info info;

    if (dladdr((void *)(uintptr_t)address, &info) == 0 || info.dli_fname == NULL) {
        snprintf(buf, cap, "0x%" PRIx64, address);
        return buf;
    }
    const char *slash = strrchr(info.dli_fname, '/');
    const char *object = slash != NULL ? slash + 1 : info.dli_fname;
    uint64_t offset = address - (uintptr_t)info.dli_fbase;
    if (info.dli_sname != NULL)
        snprintf(buf, cap, "%s+0x%" PRIx64 " %s+0x%" PRIx64, object, offset, info.dli_sname,
                 address - (uintptr_t)info.dli_saddr);
    else
        snprintf(buf, cap, "%s+0x%" PRIx64, object, offset);
    return buf;
}
