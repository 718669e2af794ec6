/* A status as a page for people and as JSON for programs. What came from files is shown with its control characters spelt out. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/base/show.h"
#include "common/eval/run_status.h"

enum { COLUMNS = 60 };

const char *lwm_age_text(double seconds, char *buf, size_t size)
{
	int64_t s = seconds < 9e15 ? (int64_t)(seconds + 0.5) : (int64_t)9e15, min = s / 60, h = min / 60;
	if (seconds < 9.95)
		snprintf(buf, size, "%.1f s", seconds);
	else if (s < 120)
		snprintf(buf, size, "%" PRId64 " s", s);
	else if (min < 120)
		snprintf(buf, size, "%" PRId64 " min", min);
	else if (h < 48)
		snprintf(buf, size, "%" PRId64 " h %02d min", h, (int)(min % 60));
	else
		snprintf(buf, size, "%" PRId64 " d %d h", h / 24, (int)(h % 24));
	return buf;
}

void lwm_plot_bars(struct lwm_str *out, const double *v, int64_t n, int width)
{
	double mean[256], low = INFINITY, high = -INFINITY;
	int columns = width > 256 ? 256 : width;
	columns = n < columns ? (int)n : columns;
	for (int c = 0; c < columns; c++) {
		double sum = 0;
		int64_t k = 0;
		for (int64_t i = n * c / columns; i < n * (c + 1) / columns; i++)
			if (isfinite(v[i])) {
				sum += v[i];
				k++;
			}
		mean[c] = k ? sum / (double)k : NAN;
		low = fmin(low, mean[c]); /* of a number and NaN the number */
		high = fmax(high, mean[c]);
	}
	for (int c = 0; c < columns; c++) {
		int level = high > low ? (int)fmin(8 * (mean[c] - low) / (high - low), 7) : 3;
		char bar[] = { (char)0xe2, (char)0x96, (char)(0x81 + level), 0 };
		lwm_str_puts(out, isnan(mean[c]) ? " " : bar);
	}
}

/* ---- the page ---- */

static void begin_line(struct lwm_str *out, const char *name)
{
	lwm_str_printf(out, "%-10s", name);
}

static void end_line(struct lwm_str *out)
{
	lwm_str_putc(out, '\n');
}

static double last_sign(const struct lwm_run_status *st)
{
	return st->signs.silent;
}

static const struct lwm_run_attempt *last_attempt(const struct lwm_run_status *st)
{
	return st->history.n ? &st->history.v[st->history.n - 1] : NULL;
}

static double last_step(const struct lwm_run_status *st)
{
	const struct lwm_run_series *s = &st->series;
	const struct lwm_run_attempt *a = last_attempt(st);
	double step = s->n ? s->step[s->n - 1] : a ? (double)a->from : 0;
	return fmin(fmax(step, (double)st->checkpoint_step), 9e15); /* whatever stands there, it is printed whole */
}

static int64_t all_steps(const struct lwm_run_status *st)
{
	const struct lwm_run_attempt *a = last_attempt(st);
	return a && a->steps ? a->steps : st->series.steps;
}

static void show_state(const struct lwm_run_status *st, struct lwm_str *out)
{
	const struct lwm_run_attempt *a = last_attempt(st);
	char age[32];
	begin_line(out, "state");
	lwm_str_puts(out, lwm_run_states[st->state]);
	if (st->state != LWM_RUN_COMPLETE)
		lwm_str_printf(out, ", last sign of life %s ago", lwm_age_text(last_sign(st), age, sizeof age));
	else
		lwm_str_printf(out, " since %s", lwm_age_text(last_sign(st), age, sizeof age));
	if ((st->state == LWM_RUN_RUNNING || st->state == LWM_RUN_SILENT) && *st->holder) {
		lwm_str_puts(out, ", on ");
		lwm_show_add(out, st->holder);
	}
	if (st->state == LWM_RUN_DEAD)
		lwm_str_puts(out, ": it ended without a word, so it was killed or its node was lost");
	else if (a && a->ended && *a->why) {
		lwm_str_puts(out, ": ");
		lwm_show_add(out, a->why);
		if (a->code && a->code != LWM_ESAVED)
			lwm_str_printf(out, " (exit %d)", a->code);
	}
	end_line(out);
}

static void show_steps(const struct lwm_run_status *st, struct lwm_str *out)
{
	const struct lwm_run_series *s = &st->series;
	double step = last_step(st), all = (double)all_steps(st);
	char left[32];
	begin_line(out, "step");
	lwm_str_printf(out, "%.0f", step);
	if (all > 0)
		lwm_str_printf(out, " of %.0f (%.1f %%)", all, 100 * step / all);
	if (st->state == LWM_RUN_RUNNING && s->n && all > step)
		lwm_str_printf(out, ", about %s of steps to go",
			       lwm_age_text((all - step) * s->total / (double)s->n, left, sizeof left));
	if (s->skipped)
		lwm_str_printf(out, ", %" PRId64 " skipped by the guards", s->skipped);
	if (s->overflows)
		lwm_str_printf(out, ", %" PRId64 " without an update for gradients too large for fp16", s->overflows);
	end_line(out);
}

static void show_loss(const struct lwm_run_status *st, struct lwm_str *out)
{
	const struct lwm_run_series *s = &st->series;
	int64_t best = -1;
	if (!s->n)
		return;
	for (int64_t i = 0; i < s->n; i++)
		if (isfinite(s->loss[i]) && (best < 0 || s->loss[i] < s->loss[best]))
			best = i;
	begin_line(out, "loss");
	if (isfinite(s->loss[s->n - 1]))
		lwm_str_printf(out, "%.4f", s->loss[s->n - 1]);
	else
		lwm_str_puts(out, "not finite");
	if (best >= 0)
		lwm_str_printf(out, ", first %.4f, lowest %.4f at step %.0f", s->loss[0], s->loss[best], s->step[best]);
	end_line(out);
	begin_line(out, "");
	lwm_plot_bars(out, s->loss, s->n, COLUMNS);
	end_line(out);
}

static void show_rate(const struct lwm_run_status *st, struct lwm_str *out)
{
	char text[32];
	if (st->rate <= 0)
		return;
	begin_line(out, "rate");
	lwm_str_printf(out, "%s ", lwm_rate_text(st->rate, text, sizeof text));
	lwm_show_add(out, *st->series.unit ? st->series.unit : "unit");
	lwm_str_puts(out, "/s");
	if (st->mfu > 0)
		lwm_str_printf(out, ", MFU %.1f %%", 100 * st->mfu);
	lwm_str_puts(out, " (medians of the last steps)\n");
}

static void show_checkpoint(const struct lwm_run_status *st, struct lwm_str *out)
{
	double since = last_step(st) - (double)st->checkpoint_step;
	char age[32];
	begin_line(out, "saved");
	if (st->checkpoint_step < 0)
		lwm_str_puts(out, "no whole checkpoint");
	else
		lwm_str_printf(out, "step %" PRId64 ", %s ago, %s", st->checkpoint_step,
			       lwm_age_text(fmax(st->now - st->checkpoint_time, 0), age, sizeof age),
			       st->verified ? "verified: every byte was read" :
					      "verified by its seal and sizes (--verify reads all of it)");
	if (since > 0 && st->checkpoint_step >= 0)
		lwm_str_printf(out, "; %.0f step%s since", since, since == 1 ? "" : "s");
	end_line(out);
	for (int64_t i = 0; i < st->damaged.n; i++) {
		begin_line(out, "damaged");
		lwm_show_add(out, st->damaged.v[i]);
		end_line(out);
	}
	if (st->set_aside) {
		begin_line(out, "aside");
		lwm_str_printf(out, "%" PRId64 " in damaged/\n", st->set_aside);
	}
}

static void show_samples(const struct lwm_run_status *st, struct lwm_str *out)
{
	const struct lwm_run_series *s = &st->series;
	if (!s->nsamples)
		return;
	begin_line(out, "samples");
	lwm_str_printf(out, "%" PRId64 ", the last of step %.0f: ", s->nsamples, s->sample[s->nsamples - 1].step);
	lwm_show_add(out, s->sample[s->nsamples - 1].file);
	end_line(out);
}

static const char *reason_of(const struct lwm_run_attempt *a)
{
	if (!a->ended)
		return "no end was said: killed, or its node was lost";
	return *a->why ? a->why : a->code == 0 ? "all its steps were made" : "no reason was said";
}

static void show_restarts(const struct lwm_run_status *st, struct lwm_str *out)
{
	const struct lwm_run_history *h = &st->history;
	if (!h->n)
		return;
	begin_line(out, "restarts");
	lwm_str_printf(out, "%" PRId64 "\n", h->n - 1);
	for (int64_t i = 1; i < h->n; i++) {
		begin_line(out, "");
		lwm_str_printf(out, "at step %" PRId64 ", because ", h->v[i].from);
		lwm_show_add(out, reason_of(&h->v[i - 1]));
		if (h->v[i].lost_steps)
			lwm_str_printf(out, "; %" PRId64 " step%s computed again", h->v[i].lost_steps,
				       h->v[i].lost_steps == 1 ? "" : "s");
		end_line(out);
	}
}

static void show_ledger(const struct lwm_run_status *st, struct lwm_str *out)
{
	const struct lwm_run_ledger *l = &st->ledger;
	char text[32];
	if (l->total <= 0)
		return;
	begin_line(out, "time");
	lwm_str_printf(out, "%s:", lwm_age_text(l->total, text, sizeof text));
	for (int p = 0; p < LWM_LEDGER_PARTS; p++)
		lwm_str_printf(out, "%s %s %.1f %%", p ? "," : "", lwm_ledger_names[p], 100 * l->seconds[p] / l->total);
	end_line(out);
}

static void show_hosts(const struct lwm_run_status *st, struct lwm_str *out)
{
	size_t i;
	json_t *v;
	json_array_foreach(st->suspicious, i, v) {
		begin_line(out, i ? "" : "hosts");
		lwm_show_add(out, json_string_value(json_object_get(v, "host")));
		if (json_object_get(v, "named"))
			lwm_str_printf(out, ": named by the end of %d of its %d runs\n",
				       (int)json_integer_value(json_object_get(v, "named")),
				       (int)json_integer_value(json_object_get(v, "attempts")));
		else
			lwm_str_printf(out, ": %d of its %d runs ended badly, more than without it\n",
				       (int)json_integer_value(json_object_get(v, "suspect")),
				       (int)json_integer_value(json_object_get(v, "attempts")));
	}
}

void lwm_run_status_show(const struct lwm_run_status *st, struct lwm_str *out)
{
	begin_line(out, "run");
	lwm_show_add(out, st->dir);
	end_line(out);
	show_state(st, out);
	show_steps(st, out);
	show_loss(st, out);
	show_rate(st, out);
	show_checkpoint(st, out);
	show_samples(st, out);
	show_restarts(st, out);
	show_ledger(st, out);
	show_hosts(st, out);
	if (st->series.bad + st->history.bad) {
		begin_line(out, "records");
		lwm_str_printf(out, "%" PRId64 " lines of metrics.jsonl and %" PRId64 " of history.jsonl cannot be read\n",
			       st->series.bad, st->history.bad);
	}
	begin_line(out, "next");
	lwm_show_add(out, lwm_str_get(&st->next));
	end_line(out);
}

void lwm_run_status_line(const struct lwm_run_status *st, const char *name, int width, struct lwm_str *out)
{
	const struct lwm_run_series *s = &st->series;
	char text[32], shown[256];
	lwm_show(shown, sizeof shown, name);
	lwm_str_printf(out, "%-*s  %-8s  step %.0f", width, shown, lwm_run_states[st->state], last_step(st));
	if (all_steps(st))
		lwm_str_printf(out, " of %" PRId64, all_steps(st));
	if (s->n && isfinite(s->loss[s->n - 1]))
		lwm_str_printf(out, "  loss %.4f", s->loss[s->n - 1]);
	if (st->rate > 0) {
		lwm_str_printf(out, "  %s ", lwm_rate_text(st->rate, text, sizeof text));
		lwm_show_add(out, s->unit);
		lwm_str_puts(out, "/s");
	}
	if (st->checkpoint_step >= 0)
		lwm_str_printf(out, "  saved step %" PRId64 " %s ago", st->checkpoint_step,
			       lwm_age_text(fmax(st->now - st->checkpoint_time, 0), text, sizeof text));
	if (st->history.n > 1)
		lwm_str_printf(out, "  restarts %" PRId64, st->history.n - 1);
	end_line(out);
}

/* ---- JSON ---- */

static void put_text(struct lwm_str *out, const char *key, const char *text)
{
	lwm_str_printf(out, ",\"%s\":", key);
	if (text)
		lwm_str_json(out, text, strlen(text));
	else
		lwm_str_puts(out, "null");
}

static void put_number(struct lwm_str *out, const char *key, double v)
{
	lwm_str_printf(out, ",\"%s\":", key);
	if (isfinite(v))
		lwm_str_printf(out, "%.9g", v);
	else
		lwm_str_puts(out, "null");
}

static void put_checkpoint(struct lwm_str *out, const struct lwm_run_status *st)
{
	lwm_str_puts(out, ",\"checkpoint\":");
	if (st->checkpoint_step < 0) {
		lwm_str_puts(out, "null");
	} else {
		lwm_str_printf(out, "{\"step\":%" PRId64 ",\"verified\":\"%s\"", st->checkpoint_step,
			       st->verified ? "all" : "seal");
		put_text(out, "path", st->checkpoint);
		lwm_str_printf(out, ",\"time\":%.3f", st->checkpoint_time);
		put_number(out, "age", fmax(st->now - st->checkpoint_time, 0));
		lwm_str_putc(out, '}');
	}
	lwm_str_puts(out, ",\"damaged\":[");
	for (int64_t i = 0; i < st->damaged.n; i++) {
		lwm_str_puts(out, i ? "," : "");
		lwm_str_json(out, st->damaged.v[i], strlen(st->damaged.v[i]));
	}
	lwm_str_printf(out, "],\"set_aside\":%" PRId64, st->set_aside);
}

static void put_restarts(struct lwm_str *out, const struct lwm_run_history *h)
{
	lwm_str_puts(out, ",\"restarts\":[");
	for (int64_t i = 1; i < h->n; i++) {
		const struct lwm_run_attempt *a = &h->v[i], *before = a - 1;
		lwm_str_printf(out, "%s{\"step\":%" PRId64 ",\"began\":%.3f,\"lost_steps\":%" PRId64, i > 1 ? "," : "", a->from,
			       a->began, a->lost_steps);
		put_number(out, "lost_seconds", a->lost_seconds);
		if (before->ended)
			lwm_str_printf(out, ",\"code\":%d", before->code);
		else
			lwm_str_puts(out, ",\"code\":null");
		put_text(out, "reason", reason_of(before));
		lwm_str_putc(out, '}');
	}
	lwm_str_putc(out, ']');
}

static void put_ledger(struct lwm_str *out, const struct lwm_run_ledger *l)
{
	lwm_str_puts(out, ",\"ledger\":");
	if (l->total <= 0) {
		lwm_str_puts(out, "null");
		return;
	}
	lwm_str_printf(out, "{\"seconds\":%.9g,\"shares\":{", l->total);
	for (int p = 0; p < LWM_LEDGER_PARTS; p++)
		lwm_str_printf(out, "%s\"%s\":%.9g", p ? "," : "", lwm_ledger_names[p], l->seconds[p] / l->total);
	lwm_str_puts(out, "}}");
}

void lwm_run_status_json(const struct lwm_run_status *st, struct lwm_str *out)
{
	const struct lwm_run_series *s = &st->series;
	const struct lwm_run_attempt *a = last_attempt(st);
	char *hosts = json_dumps(st->suspicious, JSON_COMPACT);
	lwm_str_puts(out, "{\"schema\":\"lwm-status/1\"");
	put_text(out, "run", st->dir);
	put_text(out, "state", lwm_run_states[st->state]);
	put_number(out, "silent", last_sign(st));
	put_text(out, "holder", *st->holder ? st->holder : NULL);
	lwm_str_printf(out, ",\"stop_file\":%s", st->signs.stop_file ? "true" : "false");
	if (a && a->ended)
		lwm_str_printf(out, ",\"code\":%d", a->code);
	else
		lwm_str_puts(out, ",\"code\":null");
	put_text(out, "reason", a && a->ended ? reason_of(a) : NULL);
	lwm_str_printf(out, ",\"step\":%.0f,\"steps\":%" PRId64 ",\"skipped\":%" PRId64 ",\"overflows\":%" PRId64, last_step(st), all_steps(st),
		       s->skipped, s->overflows);
	put_number(out, "loss", s->n ? s->loss[s->n - 1] : NAN);
	put_text(out, "unit", s->unit);
	put_number(out, "rate", st->rate > 0 ? st->rate : NAN);
	put_number(out, "mfu", st->mfu > 0 ? st->mfu : NAN);
	put_checkpoint(out, st);
	put_text(out, "sample", s->nsamples ? s->sample[s->nsamples - 1].file : NULL);
	put_restarts(out, &st->history);
	put_ledger(out, &st->ledger);
	lwm_str_printf(out, ",\"suspicious_hosts\":%s,\"bad_lines\":%" PRId64, hosts ? hosts : "[]", s->bad + st->history.bad);
	put_text(out, "next", lwm_str_get(&st->next));
	lwm_str_putc(out, '}');
	if (!hosts)
		out->failed = true;
	free(hosts);
}
