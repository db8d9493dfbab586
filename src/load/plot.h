// SPDX-License-Identifier: MIT
/* Charts of a run, as SVG without scripts and without outside resources. Everything is well-formed XML; all
 * text is escaped. Each appends to `out`; without memory out->failed is set. */
#pragma once

#include "base/bytes.h"
#include "load/bench_run.h"

/* Text as it may stand in XML, between tags and in attributes: bytes that are no UTF-8, and control
 * characters, become '?'. */
void plot_escape(struct bytes *out, const char *text);

/* A page: figures, tables and all charts; light and dark as the reader has it. */
void plot_html(const struct bench_result *r, struct bytes *out);
/* One SVG file: latency over time, and its distribution. */
void plot_svg(const struct bench_result *r, struct bytes *out);
