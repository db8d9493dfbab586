// SPDX-License-Identifier: MIT
/* A line of a Register, read by the worker library: only addresses that can be dialled come out, and their
 * list written anew reads the same. */
#include "../sdk/src/worker_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void write_line(struct tggw__bytes *b, char **list, size_t count)
{
    int err = 0;
    tggw__json_raw(b, "{\"event\":\"broadcast_addresses\",\"addresses\":", &err);
    tggw__json_list(b, (const char *const *)list, count, &err);
    tggw__json_raw(b, "}", &err);
    ASSERT(err == 0);
}

static void check_list(char **list, size_t count)
{
    struct tggw__bytes b = {0};
    char **again = NULL;
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        ASSERT(tggw__address_check(list[i]) == 0 && strlen(list[i]) < TGGW__ADDRESS_SIZE);
    write_line(&b, list, count);
    ASSERT(tggw__register_line((const char *)b.data + b.head, tggw__bytes_len(&b), &again, &n) == 1);
    ASSERT(n == count);
    for (size_t i = 0; i < n; i++)
        ASSERT(strcmp(list[i], again[i]) == 0);
    tggw__list_free(again, n);
    tggw__bytes_fini(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char **list = NULL;
    size_t count = 0;
    int r = tggw__register_line((const char *)data, len, &list, &count);
    ASSERT(r == 0 || r == 1 || r == -EBADMSG);
    ASSERT(r == 1 || list == NULL);
    if (r == 1) {
        ASSERT(count <= len);
        check_list(list, count);
        tggw__list_free(list, count);
    }
    return 0;
}
