// SPDX-License-Identifier: MIT
/* One chart: a frame with axes, in which lines or bars are drawn. */
#pragma once

#include "load/plot.h"

#define CHART_WIDTH  720.0
#define CHART_HEIGHT 270.0

enum chart_unit { UNIT_COUNT, UNIT_TIME_NS, UNIT_SECONDS, UNIT_NINES };

struct chart_axis {
    double min, max;
    bool log;
    enum chart_unit unit;
};

struct chart_series {
    const char *name;
    unsigned color;  /* class s0.. of the style */
    const double *y; /* negative: nothing there */
    bool dashed;     /* so that one beneath it is seen */
};

struct chart {
    const char *title;
    struct chart_axis x, y;
    double top; /* where in the drawing it begins */
};

/* The style of all charts; colours for light and for dark. */
extern const char plot__style[];

/* Room on an axis for values 0..max (log: min..max), ends at round numbers. */
struct chart_axis plot__axis(double min, double max, bool log, enum chart_unit unit);
/* The frame, its title, grid and numbers, and who is who. */
void plot__frame(struct bytes *out, const struct chart *c, const struct chart_series *series, size_t n);
void plot__line(struct bytes *out, const struct chart *c, const double *x, const struct chart_series *s,
                size_t n);
/* A bar from x0 to x1, with a text that shows when it is pointed at. */
void plot__bar(struct bytes *out, const struct chart *c, double x0, double x1, double y, unsigned color,
               const char *tip);
/* An upright line with a word at its top, `row` lines of text down. */
void plot__mark(struct bytes *out, const struct chart *c, double x, const char *word, unsigned row);
