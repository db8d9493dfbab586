// SPDX-License-Identifier: MIT
#include "common/fault.h"

#ifdef TGG_INJECT
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define HANG_S  3600
#define SLOW_NS 500000000

static void pause_for(time_t s, long ns)
{
    struct timespec left = {.tv_sec = s, .tv_nsec = ns};
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
}

static int act(const char *action)
{
    if (strcmp(action, "kill") == 0)
        kill(getpid(), SIGKILL);
    if (strcmp(action, "hang") == 0)
        pause_for(HANG_S, 0);
    if (strcmp(action, "slow") == 0)
        pause_for(0, SLOW_NS);
    return strcmp(action, "fail") == 0 ? -EIO : 0;
}

/* Of a small file as much as there is. */
static bool read_file(const char *path, char *buf, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, buf, cap - 1) : -1;
    if (fd >= 0)
        close(fd);
    buf[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* The next word of a line, taken off it; empty: there is none. */
static char *next_word(char **line)
{
    char *word = *line + strspn(*line, " \t\r"), *end = word + strcspn(word, " \t\r");
    *line = *end != '\0' ? end + 1 : end;
    *end = '\0';
    return word;
}

static int act_on_line(char *line, const char *place)
{
    const char *name = next_word(&line), *action = next_word(&line);
    return strcmp(name, place) == 0 ? act(action) : 0;
}

int fault_at(const char *place)
{
    const char *path = getenv("TGG_FAULT_FILE");
    char text[4096];
    int r = 0;

    if (path == NULL || !read_file(path, text, sizeof text))
        return 0;
    for (char *line = text; *line != '\0' && r == 0;) {
        char *next = line + strcspn(line, "\n");
        if (*next != '\0')
            *next++ = '\0';
        r = act_on_line(line, place);
        line = next;
    }
    return r;
}
#endif
