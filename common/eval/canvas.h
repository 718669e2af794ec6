/* canvas.h - a cairo surface that ends as bytes; for the plot files alone. */
#ifndef LWM_EVAL_CANVAS_H
#define LWM_EVAL_CANVAS_H

#include <cairo.h>

#include "common/eval/plot.h"

struct lwm_canvas {
	cairo_surface_t *surface;
	cairo_t *cr;
	struct lwm_str *out;
	size_t from; /* where in out the picture begins */
	enum lwm_plot_format format;
};

int lwm_canvas_begin(struct lwm_canvas *c, struct lwm_str *out, double width, double height, enum lwm_plot_format f,
		     struct lwm_err *e);
int lwm_canvas_end(struct lwm_canvas *c, struct lwm_err *e);
/* x: the text's left (align 0), centre (0.5) or right (1) edge; y: its middle. */
void lwm_canvas_draw_text(struct lwm_canvas *c, double x, double y, double align, double size, double angle, const char *text);
void lwm_canvas_set_gray(struct lwm_canvas *c, double level);

#endif
