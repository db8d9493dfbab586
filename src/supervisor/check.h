// SPDX-License-Identifier: MIT
/* Whether what a configuration names can be used: files, lists, certificates with their keys, ticket keys.
 * For the start, a reload and `tgg gateway -t`. */
#pragma once

#include "common/config.h"
#include "common/files.h"

/* Reads all that cfg names. config_text: see files_load. 0, or -errno with every problem added to err. */
int check_files(const struct config *cfg, struct slice config_text, struct files **ret,
                struct config_error *err);
