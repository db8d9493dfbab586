// SPDX-License-Identifier: MIT
/* Questions of a link, pipelined, and what their answers must say: commands of one link run in order, so the
 * answer shows every change that this link made before it asked. Who was online when it asked and still is
 * when the answer comes must be in it; who was neither must not. */
#pragma once

#include "base/bytes.h"

struct sim_link;

/* Asks something at random. */
void sim_query_ask(struct sim_link *l);
void sim_query_answered(struct sim_link *l, struct slice reply);
void sim_query_free_all(struct sim_link *l);
