// SPDX-License-Identifier: MIT
/* The file of bans: a line for each, `CIDR UNTIL_UNIX_S`, with # comments. Read by the gateway (guard.c, from
 * the files of the configuration) and edited by `tgg ban` and `tgg unban`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "guard/cidr.h"

struct ban {
    struct cidr cidr;
    int64_t until_unix_s; /* it ends then */
};

enum ban_line { BAN_LINE_EMPTY, BAN_LINE_BAN, BAN_LINE_WRONG };
/* One line without its end. BAN_LINE_EMPTY: blank, or only a comment. BAN_LINE_WRONG: why says what is wrong.
 */
#define BAN_WHY_MAX 512
enum ban_line ban_line_parse(struct slice line, struct ban *ret, char *why, size_t cap);
/* The comment behind it, without # and blanks; of length 0: none. */
struct slice ban_line_comment(struct slice line);

/* Calls for each ban in the text. 0; -EINVAL: that many lines are wrong, *ret_line and why tell of the first.
 */
int ban_text_walk(struct slice text, void (*each)(void *ctx, const struct ban *b, struct slice comment),
                  void *ctx, unsigned *ret_line, char *why, size_t cap);

/* A change: that prefix is banned until then, or with until_unix_s 0 no more. */
struct ban_edit {
    struct ban change;
    int64_t now_unix_s;
    unsigned replaced;     /* result: bans of the same prefix, not over yet, that were there */
    unsigned expired;      /* result: bans that were over and have been left out */
    unsigned line;         /* result: of the first that is wrong, else 0 */
    char why[BAN_WHY_MAX]; /* what is wrong with it */
};
/* The text with the change made; other lines and comments stay as they are. 0, -EINVAL (edit->line), -ENOMEM.
 */
int ban_text_edit(struct slice text, struct ban_edit *edit, struct bytes *out);

/* The whole file; a missing one is empty. 0 or -errno. */
int ban_file_read(const char *path, struct bytes *ret);
/* The same as ban_text_edit with the file: written anew beside it (synced) and renamed over it, so that a
 * reader sees all of it or the old one; with its owner and permissions (0644 for a new one). Others that
 * change it in this way wait (a lock on the folder). 0; -EINVAL (edit->line): nothing was written; -errno. */
int ban_file_edit(const char *path, struct ban_edit *edit);

/* Why that (or reading the file) failed, for people: "PATH:3: what is wrong", "PATH: No such file or
 * directory". Returns buf. */
char *ban_file_explain(int err, const char *path, const struct ban_edit *edit, char *buf, size_t cap);
