// SPDX-License-Identifier: MIT
/* listeners.c and listeners_inherit.c among themselves. */
#pragma once

#include "supervisor/listeners.h"

/* ---- listeners.c */

struct listeners_socket *listeners__socket(const struct listeners *l, uint32_t number); /* NULL: none */
struct listeners_socket *listeners__place(struct listeners *l);                         /* a free one */
/* To what it says, from these. */
void listeners__adjust(uint64_t backlog, mode_t mode, const struct listeners_socket *s);
int listeners__give_file(const struct listeners *l, const struct listeners_socket *s);
/* Only of those that are ours. */
void listeners__remove_file(const struct listeners_socket *s);

/* ---- listeners_inherit.c */

/* Into `l`, which has none: sockets that cfg has a use for, spares and leavers. 0 or -ENOMEM. All descriptors
 * but that of the internal port are taken, also on failure. */
int listeners__inherit(struct listeners *l, const struct config *cfg, struct listeners_inherited *inherited);
/* Spares and leavers, without a look at what waits there. */
void listeners__free_inherited(struct listeners *l);
