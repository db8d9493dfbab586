// SPDX-License-Identifier: MIT
/* What happens in a run, drawn from its seed: clients and workers come, talk and go; then all settles; then
 * it ends, in one of several ways. */
#pragma once

#include "sim/world.h"

void script_run(struct world *w);
