/* Results become a table of sums over the grid, and the table files, pictures and a page. */
#include "common/eval/needle_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/eval/html.h"

/* The grid with sums of scores: cells of equal length and depth. */
struct table {
	int64_t *length, nx;
	double *depth;
	int64_t ny;
	double *sum, *count, *mean; /* (ny, nx) */
};

void lwm_wilson_interval(double k, double n, double *low, double *high)
{
	double z = 1.959964, p = n > 0 ? k / n : 0, d = 1 + z * z / n, c = p + z * z / (2 * n),
	       w = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n));
	*low = n > 0 ? fmax(0, (c - w) / d) : 0;
	*high = n > 0 ? fmin(1, (c + w) / d) : 1;
}

static void table_release(struct table *t)
{
	free(t->length);
	free(t->depth);
	free(t->sum);
	free(t->count);
	free(t->mean);
}

static int64_t place_of(const struct table *t, const struct lwm_needle_cell *c)
{
	for (int64_t y = 0; y < t->ny; y++)
		for (int64_t x = 0; x < t->nx; x++)
			if (t->length[x] == c->length && (t->depth[y] == c->depth || c->depth < 0))
				return y * t->nx + x;
	return -1; /* of another grid: not shown */
}

static int table_make(struct table *t, const struct lwm_sweep *s, const struct lwm_needle_results *r, struct lwm_err *e)
{
	memset(t, 0, sizeof *t);
	LWM_TRY(lwm_sweep_lengths(s, &t->length, &t->nx, e));
	LWM_TRY(lwm_sweep_depths(s, &t->depth, &t->ny, e));
	t->ny = s->task.needles > 1 ? 1 : t->ny;
	size_t n = (size_t)(t->nx * t->ny);
	t->sum = calloc(n, sizeof *t->sum);
	t->count = calloc(n, sizeof *t->count);
	t->mean = calloc(n, sizeof *t->mean);
	if (!t->sum || !t->count || !t->mean)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a table of %zu cells", n);
	for (int64_t i = 0; i < r->n; i++) {
		int64_t at = place_of(t, &r->v[i].cell);
		if (at >= 0) {
			t->sum[at] += r->v[i].score;
			t->count[at]++;
		}
	}
	for (size_t i = 0; i < n; i++)
		t->mean[i] = t->count[i] > 0 ? t->sum[i] / t->count[i] : NAN;
	return 0;
}

static void by_length(const struct table *t, int64_t x, double *k, double *n)
{
	*k = *n = 0;
	for (int64_t y = 0; y < t->ny; y++) {
		*k += t->sum[y * t->nx + x];
		*n += t->count[y * t->nx + x];
	}
}

static int save_file(const struct lwm_sweep *s, const char *name, const struct lwm_str *b, struct lwm_err *e)
{
	char *path = lwm_path_join(s->out, name);
	int rc = path ? lwm_str_ok(b, e) : lwm_fail_memory(e, NULL);
	if (rc == 0)
		rc = lwm_write_file(path, lwm_str_get(b), b->len, true, e);
	free(path);
	return rc;
}

static int write_csv(const struct lwm_needle_report *r, const struct table *t, struct lwm_err *e)
{
	struct lwm_str b = { 0 };
	lwm_str_puts(&b, "context_length,depth_percent,trials,accuracy,low95,high95\n");
	for (int64_t x = 0; x < t->nx; x++) {
		for (int64_t y = 0; y < t->ny; y++) {
			int64_t at = y * t->nx + x;
			double lo, hi;
			lwm_wilson_interval(t->sum[at], t->count[at], &lo, &hi);
			if (t->count[at] > 0)
				lwm_str_printf(&b, "%" PRId64 ",%g,%.0f,%.6f,%.6f,%.6f\n", t->length[x],
					       r->sweep->task.needles > 1 ? -1 : t->depth[y], t->count[at], t->mean[at], lo,
					       hi);
		}
	}
	int rc = save_file(r->sweep, "summary.csv", &b, e);
	lwm_str_release(&b);
	return rc;
}

static void length_rows(struct lwm_str *b, const struct table *t)
{
	lwm_str_puts(b, "<table><tr><th>context</th><th>trials</th><th>accuracy</th><th>95 % interval</th></tr>\n");
	for (int64_t x = 0; x < t->nx; x++) {
		char name[32];
		double k, n, lo, hi;
		by_length(t, x, &k, &n);
		lwm_wilson_interval(k, n, &lo, &hi);
		if (n > 0)
			lwm_str_printf(b, "<tr><td>%s</td><td>%.0f</td><td>%.3f</td><td>%.3f – %.3f</td></tr>\n",
				       lwm_count_text(t->length[x], name, sizeof name), n, k / n, lo, hi);
		else
			lwm_str_printf(b, "<tr><td>%s</td><td>0</td><td>not run</td><td></td></tr>\n",
				       lwm_count_text(t->length[x], name, sizeof name));
	}
	lwm_str_puts(b, "</table>\n");
}

static int write_html(const struct lwm_needle_report *r, const struct table *t, const struct lwm_needle_results *res,
		      const struct lwm_str *svg, struct lwm_err *e)
{
	struct lwm_str b = { 0 };
	lwm_html_begin(&b, r->title);
	lwm_html_add_paragraph(&b, r->details);
	lwm_html_add_svg(&b, lwm_str_get(svg), svg->len,
			 "Fraction of needles retrieved. Depth counts from the start of the haystack; hatched cells were not run.");
	length_rows(&b, t);
	lwm_html_add_paragraph(&b, res->identity);
	lwm_html_end(&b);
	int rc = save_file(r->sweep, "report.html", &b, e);
	lwm_str_release(&b);
	return rc;
}

static int write_pictures(const struct lwm_needle_report *r, const struct table *t, struct lwm_str *svg, struct lwm_err *e)
{
	struct lwm_heatmap m = { .title = r->title,
				 .subtitle = r->details,
				 .x_label = "context length (tokens)",
				 .y_label = "needle depth (% from start)",
				 .x = t->length,
				 .y = t->depth,
				 .nx = t->nx,
				 .ny = t->ny,
				 .value = t->mean,
				 .colors = r->colors };
	struct lwm_str png = { 0 };
	int rc = lwm_plot_draw_heatmap(svg, &m, LWM_PLOT_SVG, e);
	if (rc == 0)
		rc = lwm_plot_draw_heatmap(&png, &m, LWM_PLOT_PNG, e);
	if (rc == 0)
		rc = save_file(r->sweep, "heatmap.svg", svg, e);
	if (rc == 0)
		rc = save_file(r->sweep, "heatmap.png", &png, e);
	lwm_str_release(&png);
	return rc;
}

static void sum_up(const struct table *t, double *mean, double *worst)
{
	double sum = 0, count = 0;
	*worst = INFINITY;
	for (int64_t x = 0; x < t->nx; x++) {
		double k, n;
		by_length(t, x, &k, &n);
		sum += k;
		count += n;
		if (n > 0 && k / n < *worst)
			*worst = k / n;
	}
	*mean = count > 0 ? sum / count : NAN;
	if (!isfinite(*worst))
		*worst = NAN;
}

/* Numbers for programs: what the tool prints, and the accuracy of every length that was run. */
static int write_json(const struct lwm_needle_report *r, const struct table *t, double mean, double worst,
		      struct lwm_err *e)
{
	struct lwm_str b = { 0 };
	const char *comma = "";
	int rc;

	if (isnan(mean))
		return 0;
	lwm_str_printf(&b, "{\"accuracy\":%.6f,\"worst_length_accuracy\":%.6f,\"by_length\":{", mean, worst);
	for (int64_t x = 0; x < t->nx; x++) {
		double k, n;
		by_length(t, x, &k, &n);
		if (n > 0) {
			lwm_str_printf(&b, "%s\"%" PRId64 "\":%.6f", comma, t->length[x], k / n);
			comma = ",";
		}
	}
	lwm_str_puts(&b, "}}\n");
	rc = save_file(r->sweep, "summary.json", &b, e);
	lwm_str_release(&b);
	return rc;
}

int lwm_needle_report_write(const struct lwm_needle_report *r, double *mean, double *worst, struct lwm_err *e)
{
	struct lwm_needle_results res = { 0 };
	struct table t = { 0 };
	struct lwm_str svg = { 0 };
	char *path = lwm_path_join(r->sweep->out, "results.jsonl");
	int rc = path ? lwm_results_read(&res, path, e) : lwm_fail_memory(e, NULL);
	if (rc == 0)
		rc = table_make(&t, r->sweep, &res, e);
	if (rc == 0)
		rc = write_csv(r, &t, e);
	if (rc == 0)
		rc = write_pictures(r, &t, &svg, e);
	if (rc == 0)
		rc = write_html(r, &t, &res, &svg, e);
	if (rc == 0) {
		sum_up(&t, mean, worst);
		rc = write_json(r, &t, *mean, *worst, e);
	}
	free(path);
	lwm_str_release(&svg);
	table_release(&t);
	lwm_results_release(&res);
	return rc;
}
