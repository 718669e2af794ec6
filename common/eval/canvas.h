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

/* White, in points (svg) or pixels (png), which are as large. */
int lwm_canvas_begin(struct lwm_canvas *c, struct lwm_str *out, double width, double height, enum lwm_plot_format f,
		     struct lwm_err *e);
/* The picture is whole in *out after this; nothing is left to free, after a failure either. */
int lwm_canvas_end(struct lwm_canvas *c, struct lwm_err *e);
/* x: the text's left (align 0), centre (0.5) or right (1) edge; y: its middle; size: of the font; angle: degrees, clockwise. */
void lwm_canvas_draw_text(struct lwm_canvas *c, double x, double y, double align, double size, double angle, const char *text);
/* How wide that is; a picture's size is chosen before there is one to draw into. 0: it cannot be told. */
double lwm_canvas_text_width(double size, const char *text);
void lwm_canvas_set_gray(struct lwm_canvas *c, double level); /* of what is drawn next: 0 black, 1 white */

#endif
