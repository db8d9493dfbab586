// SPDX-License-Identifier: MIT
/* Any bytes as what a supervisor hands over: what is taken can be read to its last byte, and goes on as it
 * came. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "common/files.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static unsigned sum_of(struct slice s)
{
    unsigned sum = 0;
    for (size_t i = 0; i < s.len; i++)
        sum += s.data[i];
    return sum;
}

static void check_taken(const struct files *f)
{
    static const char *const paths[] = {"", "/", "/etc/allow", "certificate.pem"};
    struct files *again = NULL;
    struct slice got;
    volatile unsigned sum = sum_of(files_config_text(f));

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        if (files_get(f, paths[i], strlen(paths[i]), &got))
            sum += sum_of(got);
    }
    (void)sum;
    int fd = files_to_fd(f);
    ASSERT(fd >= 0 && files_open(fd, &again) == 0);
    ASSERT(slice_eq(files_config_text(f), files_config_text(again)));
    files_free(again);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct files *f = NULL;
    int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    ASSERT(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    ASSERT(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    int r = files_open(fd, &f);
    close(fd);
    ASSERT(r == 0 || r == -EINVAL);
    if (r == 0) {
        check_taken(f);
        files_free(f);
    }
    return 0;
}
