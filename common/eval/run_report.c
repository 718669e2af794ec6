/* The page, section by section: checks, training, pictures, samples, time. Each section is read from files as it is written; a
 * file that cannot be read ends the page. */
#include "common/eval/run_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/num.h"
#include "common/base/show.h"
#include "common/eval/html.h"
#include "common/eval/plot.h"
#include "common/eval/run_samples.h"
#include "common/eval/run_series.h"
#include "common/media/frames.h"
#include "common/media/picture.h"

enum { MAX_TEXT = 1 << 16, MAX_PICTURE = 1 << 24, STRIP = 12 /* frames of a clip */, ZOOM = 3 };

/* "NAME=PATH": splits at the last '='; name is malloc'ed, path points into spec. */
static int split_spec(const char *spec, char **name, const char **path, struct lwm_err *e)
{
	const char *eq = strrchr(spec, '=');
	if (!eq)
		return lwm_fail(e, LWM_EUSAGE, "'%s': expected NAME=PATH", spec);
	*name = strndup(spec, (size_t)(eq - spec));
	*path = eq + 1;
	return *name ? 0 : lwm_fail_memory(e, NULL);
}

/* ---- metrics of a stage ---- */

struct series {
	char *name;
	const char *dir;
	struct lwm_run_series of;
};

static int read_series(struct series *s, const char *spec, struct lwm_err *e)
{
	LWM_TRY(split_spec(spec, &s->name, &s->dir, e));
	return lwm_run_series_read(&s->of, s->dir, false, e);
}

static void stage_table(struct lwm_str *b, const struct series *s, int64_t n)
{
	lwm_str_puts(b, "<table><tr><th>stage</th><th>steps</th><th>seen</th><th>step time, s</th><th>rate</th>"
			"<th>first loss</th><th>last loss</th></tr>\n");
	for (int64_t i = 0; i < n; i++) {
		const struct lwm_run_series *v = &s[i].of;
		int64_t last = v->n - 1;
		double units = v->n ? v->seen[last] : 0;
		char text[32];
		lwm_str_puts(b, "<tr><td>");
		lwm_html_add_text(b, s[i].name);
		lwm_str_printf(b, "</td><td>%.0f</td><td>%s ", v->n ? v->step[last] : 0, lwm_rate_text(units, text, sizeof text));
		lwm_html_add_text(b, v->unit);
		lwm_str_printf(b, "</td><td>%.1f</td><td>%s ", v->total,
			       lwm_rate_text(v->total > 0 ? units / v->total : 0, text, sizeof text));
		lwm_html_add_text(b, v->unit);
		lwm_str_printf(b, "/s</td><td>%.4f</td><td>%.4f</td></tr>\n", v->n ? v->loss[0] : NAN, v->n ? v->loss[last] : NAN);
	}
	lwm_str_puts(b, "</table>\n");
}

static int draw_chart(struct lwm_str *b, const char *title, const struct lwm_curve *c, int64_t n, const char *caption,
		      struct lwm_err *e)
{
	struct lwm_chart chart = { .title = title, .x_label = "step of the stage", .y_label = "loss", .curve = c, .ncurves = n };
	struct lwm_str svg = { 0 };
	int rc = lwm_plot_draw_chart(&svg, &chart, LWM_PLOT_SVG, e);
	if (rc == 0)
		lwm_html_add_svg(b, lwm_str_get(&svg), svg.len, caption);
	lwm_str_release(&svg);
	return rc;
}

static int draw_curves(struct lwm_str *b, const struct series *s, int64_t n, struct lwm_err *e)
{
	struct lwm_curve *c = calloc((size_t)n, sizeof *c);
	if (!c)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for curves");
	for (int64_t i = 0; i < n; i++)
		c[i] = (struct lwm_curve){ s[i].name, s[i].of.step, s[i].of.loss, s[i].of.n };
	int rc = draw_chart(b, "Training loss", c, n, "Loss of every step, as written to metrics.jsonl.", e);
	free(c);
	return rc;
}

/* Of a stage with several sources: what the labels of each cost. */
static int draw_sources(struct lwm_str *b, const struct series *s, struct lwm_err *e)
{
	struct lwm_curve *c = calloc((size_t)s->of.nsources + 1, sizeof *c);
	struct lwm_str title = { 0 };
	if (!c)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for curves");
	for (int64_t i = 0; i < s->of.nsources; i++)
		c[i] = (struct lwm_curve){ s->of.source[i].name, s->of.step, s->of.source[i].loss, s->of.n };
	lwm_str_printf(&title, "Loss of each source: %s", s->name);
	int rc = lwm_str_ok(&title, e);
	if (rc == 0 && s->of.nsources)
		rc = draw_chart(b, lwm_str_get(&title), c, s->of.nsources, "Mean loss of the labels of each source of data.", e);
	lwm_str_release(&title);
	free(c);
	return rc;
}

static int add_samples(struct lwm_str *b, const struct series *s, int64_t n, struct lwm_err *e)
{
	int64_t files = 0;
	for (int64_t i = 0; i < n; i++)
		files += s[i].of.nsamples;
	if (files)
		lwm_html_add_heading(b, 2, "While it was trained");
	for (int64_t i = 0; i < n; i++)
		LWM_TRY(lwm_run_samples_add(b, s[i].name, s[i].dir, &s[i].of, e));
	return 0;
}

static int add_stages(struct lwm_str *b, const struct lwm_paths *p, struct lwm_err *e)
{
	struct series *s = calloc((size_t)p->n, sizeof *s);
	int rc = s ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " stages", p->n);
	for (int64_t i = 0; rc == 0 && i < p->n; i++)
		rc = read_series(&s[i], p->v[i], e);
	if (rc == 0) {
		lwm_html_add_heading(b, 2, "Training");
		rc = draw_curves(b, s, p->n, e);
		for (int64_t i = 0; rc == 0 && i < p->n; i++)
			rc = draw_sources(b, &s[i], e);
		stage_table(b, s, p->n);
	}
	if (rc == 0)
		rc = add_samples(b, s, p->n, e);
	for (int64_t i = 0; s && i < p->n; i++) {
		free(s[i].name);
		lwm_run_series_release(&s[i].of);
	}
	free(s);
	return rc;
}

/* ---- the rest ---- */

static int add_checks(struct lwm_str *b, const struct lwm_paths *p, struct lwm_str *failures, int64_t *failed, struct lwm_err *e)
{
	lwm_html_add_heading(b, 2, "Checks");
	lwm_str_puts(b, "<table><tr><th>what</th><th>seen</th><th>wanted</th><th></th></tr>\n");
	for (int64_t i = 0; i < p->n; i++) {
		struct lwm_check c;
		LWM_TRY(lwm_check_read(&c, p->v[i], e));
		lwm_str_puts(b, "<tr><td>");
		lwm_html_add_text(b, c.name);
		lwm_str_printf(b, "</td><td>%.4g</td><td>%s %.4g</td><td class=\"%s\">%s</td></tr>\n", c.value,
			       c.at_least ? "≥" : "≤", c.bound, c.ok ? "ok" : "bad", c.ok ? "holds" : "MISSED");
		if (!c.ok) {
			++*failed;
			lwm_show_add(failures, c.name);
			lwm_str_printf(failures, ": %.4g, wanted %s %.4g\n", c.value, c.at_least ? ">=" : "<=", c.bound);
		}
	}
	lwm_str_puts(b, "</table>\n");
	return 0;
}

static int add_timing(struct lwm_str *b, const char *path, struct lwm_err *e)
{
	char *text, *end;
	size_t n;
	int rc = 0;
	double total = 0;
	LWM_TRY(lwm_read_file(path, 1 << 26, &text, &n, e));
	lwm_html_add_heading(b, 2, "Time and memory");
	lwm_str_puts(b, "<table><tr><th>stage</th><th>seconds</th><th>peak memory</th></tr>\n");
	for (char *p = text; rc == 0 && (end = memchr(p, '\n', n - (size_t)(p - text))); p = end + 1) {
		json_t *o = NULL;
		const char *name;
		char mem[32];
		double s;
		rc = lwm_json_parse(&o, p, (size_t)(end - p), path, e);
		if (rc == 0 && (rc = lwm_json_str(o, "stage", &name, path, e)) == 0 &&
		    (rc = lwm_json_double(o, "seconds", &s, path, e)) == 0) {
			total += s;
			lwm_str_puts(b, "<tr><td>");
			lwm_html_add_text(b, name);
			lwm_str_printf(b, "</td><td>%.1f</td><td>%s</td></tr>\n", s,
				       lwm_bytes_text(json_number_value(json_object_get(o, "max_rss_bytes")), mem, sizeof mem));
		}
		json_decref(o);
	}
	lwm_str_printf(b, "<tr><th>all</th><th>%.1f</th><th></th></tr></table>\n", total);
	free(text);
	return rc;
}

/* The first frames of a clip side by side, as a picture. */
static int encode_clip(struct lwm_str *png, const char *path, int64_t max_pixels, struct lwm_err *e)
{
	struct lwm_frames_opts opts = { .max_frames = STRIP, .max_pixels = max_pixels };
	struct lwm_frames_info info;
	struct lwm_sheet sheet = { 0 };
	uint8_t *rgb = NULL;
	int64_t n = 0;
	int rc = lwm_frames_read(path, &opts, MAX_PICTURE, &rgb, &n, &info, e);
	if (rc == 0)
		rc = lwm_sheet_init(&sheet, (int)n, 1, info.width * ZOOM, info.height * ZOOM, 2, e);
	for (int64_t i = 0; rc == 0 && i < n; i++)
		lwm_sheet_put(&sheet, (int)i, 0, rgb + i * info.width * info.height * 3, ZOOM);
	if (rc == 0)
		rc = lwm_png_encode(png, sheet.rgb, sheet.width, sheet.height, e);
	lwm_sheet_release(&sheet);
	free(rgb);
	return rc;
}

static bool is_clip(const char *path)
{
	return lwm_path_has_suffix(path, ".mp4") || lwm_path_has_suffix(path, ".mkv");
}

static int add_clip(struct lwm_str *b, const char *path, const char *caption, int64_t max_pixels, struct lwm_err *e)
{
	struct lwm_str png = { 0 };
	int rc = encode_clip(&png, path, max_pixels, e);
	if (rc == 0)
		lwm_html_add_png(b, png.s, png.len, caption);
	lwm_str_release(&png);
	return rc;
}

/* LABEL=FILE; what follows "; " is the next one's. */
static int split_rows(struct lwm_strip *s, char *text, struct lwm_err *e)
{
	while (text) {
		char *next = strstr(text, "; "), *eq;
		if (next)
			*next = 0;
		eq = strchr(text, '=');
		if (!eq)
			return lwm_fail(e, LWM_EUSAGE, "'%s': expected LABEL=FILE", text);
		*eq = 0;
		if (!is_clip(eq + 1))
			return lwm_fail(e, LWM_EUSAGE, "%s: rows of a strip are clips, .mp4 or .mkv", eq + 1);
		if (s->n == (int64_t)(sizeof s->row / sizeof *s->row))
			return lwm_fail(e, LWM_EUSAGE, "a strip has at most %" PRId64 " rows", s->n);
		s->row[s->n].label = text;
		s->row[s->n++].path = eq + 1;
		text = next ? next + 2 : NULL;
	}
	return 0;
}

int lwm_strip_read(struct lwm_strip *s, const char *spec, struct lwm_err *e)
{
	char *colon = NULL;
	int rc = 0;
	*s = (struct lwm_strip){ .text = strdup(spec) };
	if (!s->text)
		return lwm_fail_memory(e, NULL);
	for (char *p = s->text; (p = strstr(p, ": ")); p++)
		colon = p;
	if (!colon)
		rc = lwm_fail(e, LWM_EUSAGE, "expected 'CAPTION: LABEL=FILE; LABEL=FILE'");
	if (rc == 0) {
		*colon = 0;
		s->caption = s->text;
		rc = split_rows(s, colon + 2, e);
	}
	if (rc < 0) {
		lwm_context(e, "--strip '%s'", spec);
		lwm_strip_release(s);
	}
	return rc;
}

void lwm_strip_release(struct lwm_strip *s)
{
	free(s->text);
	*s = (struct lwm_strip){ 0 };
}

static int add_strip(struct lwm_str *b, const char *spec, int64_t max_pixels, struct lwm_err *e)
{
	struct lwm_strip s;
	int rc = 0;
	LWM_TRY(lwm_strip_read(&s, spec, e));
	lwm_html_begin_rows(b);
	for (int64_t i = 0; rc == 0 && i < s.n; i++) {
		struct lwm_str png = { 0 };
		rc = encode_clip(&png, s.row[i].path, max_pixels, e);
		if (rc == 0)
			lwm_html_add_png_row(b, png.s, png.len, s.row[i].label);
		lwm_str_release(&png);
	}
	lwm_html_end_rows(b, s.caption);
	lwm_strip_release(&s);
	return rc;
}

static int add_still(struct lwm_str *b, const char *path, const char *caption, struct lwm_err *e)
{
	char *data;
	size_t n;
	LWM_TRY(lwm_read_file(path, MAX_PICTURE, &data, &n, e));
	int rc = lwm_html_add_picture(b, path, data, n, caption, e);
	free(data);
	return rc;
}

static int add_picture(struct lwm_str *b, const char *spec, int64_t max_pixels, struct lwm_err *e)
{
	char *caption;
	const char *path;
	LWM_TRY(split_spec(spec, &caption, &path, e));
	int rc = is_clip(path) ? add_clip(b, path, caption, max_pixels, e) : add_still(b, path, caption, e);
	free(caption);
	return rc;
}

static int add_quote(struct lwm_str *b, const char *spec, struct lwm_err *e)
{
	char *caption, *data;
	const char *path;
	size_t n;
	LWM_TRY(split_spec(spec, &caption, &path, e));
	int rc = lwm_read_file(path, MAX_TEXT, &data, &n, e);
	if (rc == 0) {
		lwm_html_add_paragraph(b, caption);
		lwm_str_puts(b, "<pre>");
		lwm_html_add_bytes(b, data, n);
		lwm_str_puts(b, "</pre>\n");
		free(data);
	}
	free(caption);
	return rc;
}

int lwm_run_report_make(const struct lwm_run_report *r, struct lwm_str *out, struct lwm_str *failures, int64_t *failed,
			struct lwm_err *e)
{
	*failed = 0;
	lwm_html_begin(out, r->title);
	if (r->checks.n)
		LWM_TRY(add_checks(out, &r->checks, failures, failed, e));
	if (r->stages.n)
		LWM_TRY(add_stages(out, &r->stages, e));
	if (r->pictures.n || r->strips.n)
		lwm_html_add_heading(out, 2, "Pictures");
	for (int64_t i = 0; i < r->pictures.n; i++)
		LWM_TRY(add_picture(out, r->pictures.v[i], r->max_pixels, e));
	for (int64_t i = 0; i < r->strips.n; i++)
		LWM_TRY(add_strip(out, r->strips.v[i], r->max_pixels, e));
	if (r->texts.n)
		lwm_html_add_heading(out, 2, "Samples");
	for (int64_t i = 0; i < r->texts.n; i++)
		LWM_TRY(add_quote(out, r->texts.v[i], e));
	if (r->timing)
		LWM_TRY(add_timing(out, r->timing, e));
	lwm_html_end(out);
	return lwm_str_ok(out, e);
}
