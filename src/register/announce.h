// SPDX-License-Identifier: MIT
/* The announcer: a process of the gateway's that keeps its one internal address in the lists of all
 * registers, however many shards stand behind that address. A child of the supervisor's. */
#pragma once

#include "common/announce_start.h"

announce_main_fn announce_main;
