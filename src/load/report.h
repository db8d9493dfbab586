// SPDX-License-Identifier: MIT
/* What came out of a run, for people and for programs. Each appends to `out`; without memory out->failed is
 * set. */
#pragma once

#include "base/bytes.h"
#include "load/bench_run.h"

/* A table for people; plain text. */
void report_text(const struct bench_result *r, struct bytes *out);
/* One JSON object; its members are described in docs/BENCH-TOOL.md. */
void report_json(const struct bench_result *r, struct bytes *out);

/* What was done, in words: "1000 connections from 2 processes, echo, ..." */
void report_what(const struct bench_result *r, struct bytes *out);
/* A name for a close code, or "". */
const char *report_close_name(unsigned code);
/* Whatever people should know before they trust the figures; NULL behind the last. Texts live until the next
 * call. */
#define REPORT_NOTES_MAX 8
void report_notes(const struct bench_result *r, const char *notes[REPORT_NOTES_MAX]);
/* "830 us", "1.20 ms", "3.4 s" */
#define REPORT_TIME_MAX 24
const char *report_time(uint64_t ns, char buf[REPORT_TIME_MAX]);
