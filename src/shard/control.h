// SPDX-License-Identifier: MIT
/* The shard's side of common/control.h: questions and orders of the admin process. */
#pragma once

struct control;
struct net;
struct shard;

/* fd is the shard's end (control_open), the caller's to close after control_free. NULL and *ret_err = -errno.
 */
struct control *control_new(struct shard *s, struct net *net, int fd, int *ret_err);
/* NULL is fine. Before shard_free. */
void control_free(struct control *c);
