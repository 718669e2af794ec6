/* plot.h - pictures of numbers: heat maps and curves, as png and svg (cairo). The same numbers give the same bytes.
 *
 * Text is drawn as paths in svg, so that no font is needed to look at it.
 */
#ifndef LWM_EVAL_PLOT_H
#define LWM_EVAL_PLOT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/str.h"

enum lwm_plot_format { LWM_PLOT_SVG, LWM_PLOT_PNG };
enum lwm_colors { LWM_COLORS_SIGNAL /* red, amber, green, as published */, LWM_COLORS_CIVIDIS /* for every eye */ };
extern const char *const lwm_color_names[];

struct lwm_heatmap {
	const char *title, *subtitle, *x_label, *y_label;
	const int64_t *x; /* nx column values, shown as 32K, 1M */
	const double *y;  /* ny row values in percent, the first on top */
	int64_t nx, ny;
	const double *value; /* (ny, nx) in 0..1; NaN = not run, hatched and never coloured */
	enum lwm_colors colors;
};

struct lwm_curve { /* a point that is not finite interrupts the line */
	const char *name;
	const double *x, *y;
	int64_t n;
};
struct lwm_chart {
	const char *title, *x_label, *y_label;
	const struct lwm_curve *curve;
	int64_t ncurves;
	bool log_y; /* values below 1e-12 are drawn there */
};

/* Local. A whole picture, appended to *out; what is no UTF-8 in a text is drawn as U+FFFD. -LWM_EMEMORY: too large. */
int lwm_plot_draw_heatmap(struct lwm_str *out, const struct lwm_heatmap *h, enum lwm_plot_format f, struct lwm_err *e);
int lwm_plot_draw_chart(struct lwm_str *out, const struct lwm_chart *c, enum lwm_plot_format f, struct lwm_err *e);

#endif
