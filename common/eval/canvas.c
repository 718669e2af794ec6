/* A picture in memory: cairo draws into a surface that hands its bytes over when it is finished. Titles come from anywhere, so
 * what is no UTF-8 is shown as U+FFFD; text is drawn as paths, so that an svg needs no font to be looked at. */
#include "common/eval/canvas.h"

#include <cairo-svg.h>
#include <math.h>
#include <string.h>

#include "common/base/utf8.h"

static cairo_status_t collect_bytes(void *closure, const unsigned char *data, unsigned int n)
{
	struct lwm_str *out = closure;
	lwm_str_add(out, data, n);
	return out->failed ? CAIRO_STATUS_NO_MEMORY : CAIRO_STATUS_SUCCESS;
}

/* What cairo refuses, as our codes: a title that is no text is the user's. */
static int code_of(cairo_status_t st)
{
	switch (st) {
	case CAIRO_STATUS_NO_MEMORY:
	case CAIRO_STATUS_INVALID_SIZE: /* more pixels than it can address */
		return LWM_EMEMORY;
	case CAIRO_STATUS_INVALID_STRING:
		return LWM_EUSAGE;
	default:
		return LWM_EINTERNAL;
	}
}

static void choose_font(cairo_t *cr)
{
	cairo_select_font_face(cr, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
}

int lwm_canvas_begin(struct lwm_canvas *c, struct lwm_str *out, double width, double height, enum lwm_plot_format f,
		     struct lwm_err *e)
{
	*c = (struct lwm_canvas){ .out = out, .from = out->len, .format = f };
	c->surface = f == LWM_PLOT_SVG ? cairo_svg_surface_create_for_stream(collect_bytes, out, width, height) :
					 cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)ceil(width), (int)ceil(height));
	c->cr = cairo_create(c->surface);
	if (cairo_status(c->cr)) {
		int rc = lwm_fail(e, code_of(cairo_status(c->cr)), "cannot draw a picture of %g x %g: %s", width, height,
				  cairo_status_to_string(cairo_status(c->cr)));
		cairo_destroy(c->cr);
		cairo_surface_destroy(c->surface);
		return rc;
	}
	cairo_set_source_rgb(c->cr, 1, 1, 1);
	cairo_paint(c->cr);
	choose_font(c->cr);
	return 0;
}

/* cairo numbers its surfaces through a process; nothing refers to that name. */
static void drop_surface_id(struct lwm_str *out, size_t from)
{
	char *at = out->failed ? NULL : memmem(out->s + from, out->len - from, " id=\"surface", 12), *end;
	if (!at || !(end = strchr(at + 12, '"')))
		return;
	memmove(at, end + 1, out->len - (size_t)(end + 1 - out->s) + 1);
	out->len -= (size_t)(end + 1 - at);
}

int lwm_canvas_end(struct lwm_canvas *c, struct lwm_err *e)
{
	cairo_status_t st = cairo_status(c->cr);
	if (!st && c->format == LWM_PLOT_PNG)
		st = cairo_surface_write_to_png_stream(c->surface, collect_bytes, c->out);
	cairo_destroy(c->cr);
	cairo_surface_finish(c->surface); /* svg is written here */
	if (!st)
		st = cairo_surface_status(c->surface);
	cairo_surface_destroy(c->surface);
	if (!st && c->format == LWM_PLOT_SVG)
		drop_surface_id(c->out, c->from);
	return st ? lwm_fail(e, code_of(st), "cannot finish a picture: %s", cairo_status_to_string(st)) : 0;
}

/* cairo takes well-formed UTF-8 only; what is none, and controls, become U+FFFD. */
static void add_printable(struct lwm_str *out, const char *text)
{
	for (size_t i = 0, n = strlen(text), k; i < n; i += k ? k : 1) {
		unsigned char c = (unsigned char)text[i];
		k = lwm_utf8_len(text + i, n - i);
		if (k == 0 || c < 0x20 || c == 0x7f)
			lwm_str_puts(out, "\xEF\xBF\xBD");
		else
			lwm_str_add(out, text + i, k);
	}
}

void lwm_canvas_draw_text(struct lwm_canvas *c, double x, double y, double align, double size, double angle, const char *from)
{
	struct lwm_str shown = { 0 };
	cairo_text_extents_t t;
	add_printable(&shown, from);
	if (shown.failed)
		c->out->failed = true;
	const char *text = lwm_str_get(&shown);
	cairo_set_font_size(c->cr, size);
	cairo_text_extents(c->cr, text, &t);
	cairo_save(c->cr);
	cairo_translate(c->cr, x, y);
	cairo_rotate(c->cr, angle * M_PI / 180);
	cairo_move_to(c->cr, -align * t.x_advance, size * 0.36);
	cairo_text_path(c->cr, text);
	cairo_fill(c->cr);
	cairo_restore(c->cr);
	lwm_str_release(&shown);
}

double lwm_canvas_text_width(double size, const char *from)
{
	struct lwm_str shown = { 0 };
	cairo_text_extents_t t = { 0 };
	cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1);
	cairo_t *cr = cairo_create(surface);
	add_printable(&shown, from);
	choose_font(cr);
	cairo_set_font_size(cr, size);
	cairo_text_extents(cr, lwm_str_get(&shown), &t);
	cairo_destroy(cr);
	cairo_surface_destroy(surface);
	lwm_str_release(&shown);
	return t.x_advance;
}

void lwm_canvas_set_gray(struct lwm_canvas *c, double level)
{
	cairo_set_source_rgb(c->cr, level, level, level);
}
