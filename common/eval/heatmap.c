/* A grid of coloured cells with its axes and a legend. Colours are interpolated between three; a value below 1 is also written
 * into its cell, so that colour is not the only sign. */
#include <math.h>
#include <stdio.h>

#include "common/base/num.h"
#include "common/eval/canvas.h"

const char *const lwm_color_names[] = { "signal", "cividis", NULL };

enum { LEFT = 80, TOP = 76, RIGHT = 100, BOTTOM = 90 };
enum { TITLE = 16, SUBTITLE = 10, MARGIN = 16, WIDEST = 1200 }; /* size of letters; a longer line than the widest picture is cut */

struct rgb {
	double r, g, b;
};

static const struct rgb signal_map[] = { { 0xF0, 0x49, 0x6E }, { 0xEB, 0xB8, 0x39 }, { 0x0C, 0xD7, 0x9F } };
static const struct rgb cividis_map[] = { { 0x00, 0x22, 0x4E }, { 0x7D, 0x7C, 0x78 }, { 0xFE, 0xE8, 0x38 } };

static struct rgb color_of(enum lwm_colors which, double v)
{
	const struct rgb *map = which == LWM_COLORS_CIVIDIS ? cividis_map : signal_map;
	double t = fmin(fmax(v, 0), 1) * 2, f = t < 1 ? t : t - 1;
	const struct rgb *a = map + (t < 1 ? 0 : 1), *b = a + 1;
	return (struct rgb){ (a->r + (b->r - a->r) * f) / 255, (a->g + (b->g - a->g) * f) / 255,
			     (a->b + (b->b - a->b) * f) / 255 };
}

/* Cut by arithmetic: a clip would put an id into the svg, and ids of several pictures meet in one page. */
static void hatch_cell(struct lwm_canvas *c, double x, double y, double w, double h)
{
	lwm_canvas_set_gray(c, 0.75);
	cairo_set_line_width(c->cr, 1);
	for (double d = 6 - h; d < w; d += 6) { /* from (d, h) up to (d + h, 0) */
		double left = fmax(d, 0), right = fmin(d + h, w);
		cairo_move_to(c->cr, x + left, y + h - (left - d));
		cairo_line_to(c->cr, x + right, y + h - (right - d));
	}
	cairo_stroke(c->cr);
}

static void draw_cell(struct lwm_canvas *c, const struct lwm_heatmap *m, double v, double x, double y, double w, double h)
{
	char text[16];
	if (isnan(v)) {
		hatch_cell(c, x, y, w - 1, h - 1);
		return;
	}
	struct rgb k = color_of(m->colors, v);
	cairo_set_source_rgb(c->cr, k.r, k.g, k.b);
	cairo_rectangle(c->cr, x, y, w - 1, h - 1);
	cairo_fill(c->cr);
	if (v < 1 && w >= 24) { /* colour is not the only sign */
		snprintf(text, sizeof text, "%.2f", v);
		lwm_canvas_set_gray(c, m->colors == LWM_COLORS_CIVIDIS && v < 0.5 ? 1 : 0.1);
		lwm_canvas_draw_text(c, x + w / 2, y + h / 2, 0.5, fmin(10, h * 0.5), 0, text);
	}
}

static void draw_axes(struct lwm_canvas *c, const struct lwm_heatmap *m, double w, double h)
{
	char text[32];
	lwm_canvas_set_gray(c, 0.1);
	for (int64_t i = 0; i < m->nx; i++) {
		lwm_count_text(m->x[i], text, sizeof text);
		lwm_canvas_draw_text(c, LEFT + ((double)i + 0.5) * w, TOP + h * (double)m->ny + 16, 1, 11, -45, text);
	}
	for (int64_t i = 0; i < m->ny; i++) {
		snprintf(text, sizeof text, "%.0f%%", m->y[i]);
		lwm_canvas_draw_text(c, LEFT - 8, TOP + ((double)i + 0.5) * h, 1, 11, 0, text);
	}
	lwm_canvas_draw_text(c, LEFT + w * (double)m->nx / 2, TOP + h * (double)m->ny + 70, 0.5, 12, 0, m->x_label);
	lwm_canvas_draw_text(c, 16, TOP + h * (double)m->ny / 2, 0.5, 12, -90, m->y_label);
}

static void draw_legend(struct lwm_canvas *c, const struct lwm_heatmap *m, double x, double h)
{
	for (int i = 0; i < 100; i++) {
		struct rgb k = color_of(m->colors, 1 - i / 99.0);
		cairo_set_source_rgb(c->cr, k.r, k.g, k.b);
		cairo_rectangle(c->cr, x, TOP + h * i / 100, 14, h / 100 + 1);
		cairo_fill(c->cr);
	}
	lwm_canvas_set_gray(c, 0.1);
	lwm_canvas_draw_text(c, x + 20, TOP + 4, 0, 11, 0, "1.0");
	lwm_canvas_draw_text(c, x + 20, TOP + h / 2, 0, 11, 0, "0.5");
	lwm_canvas_draw_text(c, x + 20, TOP + h - 4, 0, 11, 0, "0.0");
}

int lwm_plot_draw_heatmap(struct lwm_str *out, const struct lwm_heatmap *m, enum lwm_plot_format f, struct lwm_err *e)
{
	struct lwm_canvas c;
	double w = fmin(60, fmax(16, 640.0 / (double)m->nx)), h = fmin(32, fmax(12, 400.0 / (double)m->ny));
	double words = fmax(lwm_canvas_text_width(TITLE, m->title), lwm_canvas_text_width(SUBTITLE, m->subtitle));
	double width = fmax(LEFT + w * (double)m->nx + RIGHT, fmax(560, fmin(LEFT + words + MARGIN, WIDEST)));
	double height = TOP + h * (double)m->ny + BOTTOM;
	LWM_TRY(lwm_canvas_begin(&c, out, width, height, f, e));
	lwm_canvas_set_gray(&c, 0.1);
	lwm_canvas_draw_text(&c, LEFT, 24, 0, TITLE, 0, m->title);
	lwm_canvas_set_gray(&c, 0.4);
	lwm_canvas_draw_text(&c, LEFT, 48, 0, SUBTITLE, 0, m->subtitle);
	for (int64_t y = 0; y < m->ny; y++)
		for (int64_t x = 0; x < m->nx; x++)
			draw_cell(&c, m, m->value[y * m->nx + x], LEFT + (double)x * w, TOP + (double)y * h, w, h);
	draw_axes(&c, m, w, h);
	draw_legend(&c, m, LEFT + w * (double)m->nx + 24, h * (double)m->ny);
	return lwm_canvas_end(&c, e);
}
