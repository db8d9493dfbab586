// SPDX-License-Identifier: MIT
/* Between config.c and config_load.c. */
#pragma once

#include "common/config.h"
#include "common/config_table.h"

/* One section of a configuration being written. */
struct config_place {
    enum config_section section;
    void *base;     /* its struct */
    char label[64]; /* "gateway", "listen chat": for messages */
};

/* The struct of a section; i: which listener. */
void *config__section(struct config *cfg, enum config_section section, unsigned i);
/* From "gateway" or "listen NAME" (made when new and there is room). 0 or -EINVAL with err added to.
 * *ret_new: a listener was made. */
int config__place(struct config *cfg, const char *title, unsigned line, struct config_place *ret,
                  bool *ret_new, struct config_error *err);
/* Set one key. 0 or -EINVAL with err added to. */
int config__set(struct config_place *place, const char *key, const char *value, unsigned line,
                struct config_error *err);
