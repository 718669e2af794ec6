/* Curves over a common x axis. */
#include <math.h>
#include <stdio.h>

#include "common/eval/canvas.h"

enum { WIDTH = 720, HEIGHT = 300, LEFT = 70, TOP = 40, RIGHT = 150, BOTTOM = 50, TICKS = 5 };

struct range {
	double x0, x1, y0, y1;
	bool log_y;
};

static double y_of(const struct lwm_chart *c, double y)
{
	return c->log_y ? log10(fmax(y, 1e-12)) : y;
}

/* Neither NaN nor infinite, and no range of such values is. */
static bool is_drawable(double x, double y)
{
	return fabs(x) <= 1e300 && fabs(y) <= 1e300;
}

/* A range of one value, or of none, becomes one around it. */
static void widen_range(double *low, double *high)
{
	double pad = fmax(0.5, fabs(*low) / 1000);
	if (*high > *low)
		return;
	*low = isfinite(*low) ? *low - pad : 0;
	*high = isfinite(pad) ? *low + 2 * pad : 1;
}

static struct range find_range(const struct lwm_chart *c)
{
	struct range r = { INFINITY, -INFINITY, INFINITY, -INFINITY, c->log_y };
	for (int64_t k = 0; k < c->ncurves; k++) {
		for (int64_t i = 0; i < c->curve[k].n; i++) {
			double x = c->curve[k].x[i], y = y_of(c, c->curve[k].y[i]);
			if (!is_drawable(x, y))
				continue;
			r.x0 = fmin(r.x0, x);
			r.x1 = fmax(r.x1, x);
			r.y0 = fmin(r.y0, y);
			r.y1 = fmax(r.y1, y);
		}
	}
	widen_range(&r.x0, &r.x1);
	widen_range(&r.y0, &r.y1);
	return r;
}

static double at_x(const struct range *r, double x)
{
	return LEFT + (x - r->x0) / (r->x1 - r->x0) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const struct range *r, double y)
{
	return TOP + (r->y1 - y) / (r->y1 - r->y0) * (HEIGHT - TOP - BOTTOM);
}

static void draw_grid(struct lwm_canvas *c, const struct range *r)
{
	char text[32];
	cairo_set_line_width(c->cr, 1);
	for (int i = 0; i <= TICKS; i++) {
		double x = r->x0 + (r->x1 - r->x0) * i / TICKS, y = r->y0 + (r->y1 - r->y0) * i / TICKS;
		lwm_canvas_set_gray(c, 0.9);
		cairo_move_to(c->cr, LEFT, at_y(r, y));
		cairo_line_to(c->cr, WIDTH - RIGHT, at_y(r, y));
		cairo_stroke(c->cr);
		lwm_canvas_set_gray(c, 0.3);
		snprintf(text, sizeof text, "%.3g", r->log_y ? pow(10, y) : y);
		lwm_canvas_draw_text(c, LEFT - 6, at_y(r, y), 1, 10, 0, text);
		snprintf(text, sizeof text, "%.4g", x);
		lwm_canvas_draw_text(c, at_x(r, x), HEIGHT - BOTTOM + 14, 0.5, 10, 0, text);
	}
}

static void draw_curve(struct lwm_canvas *c, const struct lwm_chart *chart, const struct range *r, int64_t k)
{
	static const double hue[][3] = { { 0.12, 0.36, 0.66 }, { 0.84, 0.37, 0 },    { 0, 0.55, 0.42 }, { 0.66, 0.2, 0.5 },
					 { 0.35, 0.7, 0.9 },   { 0.6, 0.55, 0.05 }, { 0.3, 0.3, 0.3 }, { 0.5, 0.35, 0.2 } };
	const struct lwm_curve *v = &chart->curve[k];
	const double *h = hue[k % 8];
	bool pen = false;
	cairo_set_source_rgb(c->cr, h[0], h[1], h[2]);
	cairo_set_line_width(c->cr, 1.3);
	for (int64_t i = 0; i < v->n; i++) {
		double y = y_of(chart, v->y[i]);
		if (!is_drawable(v->x[i], y)) {
			pen = false;
			continue;
		}
		(pen ? cairo_line_to : cairo_move_to)(c->cr, at_x(r, v->x[i]), at_y(r, y));
		pen = true;
	}
	cairo_stroke(c->cr);
	lwm_canvas_draw_text(c, WIDTH - RIGHT + 12, TOP + 8 + 16 * (double)k, 0, 11, 0, v->name);
}

int lwm_plot_draw_chart(struct lwm_str *out, const struct lwm_chart *chart, enum lwm_plot_format f, struct lwm_err *e)
{
	struct lwm_canvas c;
	struct range r = find_range(chart);
	LWM_TRY(lwm_canvas_begin(&c, out, WIDTH, HEIGHT, f, e));
	draw_grid(&c, &r);
	lwm_canvas_set_gray(&c, 0.1);
	lwm_canvas_draw_text(&c, LEFT, 18, 0, 14, 0, chart->title);
	lwm_canvas_draw_text(&c, (WIDTH + LEFT - RIGHT) / 2.0, HEIGHT - 12, 0.5, 11, 0, chart->x_label);
	lwm_canvas_draw_text(&c, 14, (HEIGHT + TOP - BOTTOM) / 2.0, 0.5, 11, -90, chart->y_label);
	for (int64_t k = 0; k < chart->ncurves; k++)
		draw_curve(&c, chart, &r, k);
	return lwm_canvas_end(&c, e);
}
