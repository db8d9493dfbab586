// SPDX-License-Identifier: MIT
/* tgg ctl: how each answer is shown that is not just one table. Each is called with a struct ctl_view whose
 * answer is an object, and may set its status. */
#pragma once

#include "main/ctl_show.h"

/* Parts of the status that have a command of their own. */
extern const struct ctl_section ctl_section_shards, ctl_section_processes, ctl_section_listeners,
    ctl_section_registers;

void ctl_view_status(struct ctl_view *v);
void ctl_view_client(struct ctl_view *v);
void ctl_view_top(struct ctl_view *v);
void ctl_view_counters(struct ctl_view *v);
void ctl_view_closes(struct ctl_view *v);
void ctl_view_histograms(struct ctl_view *v);
void ctl_view_check(struct ctl_view *v);
void ctl_view_bans(struct ctl_view *v);

/* Orders. */
void ctl_view_closed(struct ctl_view *v); /* close, kick */
void ctl_view_ban(struct ctl_view *v);
void ctl_view_unban(struct ctl_view *v);
void ctl_view_drain(struct ctl_view *v);
void ctl_view_undrain(struct ctl_view *v);
void ctl_view_evacuate(struct ctl_view *v);
void ctl_view_rebalance(struct ctl_view *v);
void ctl_view_log_level(struct ctl_view *v);
void ctl_view_reload(struct ctl_view *v);
void ctl_view_inject(struct ctl_view *v);
