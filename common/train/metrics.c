/* What a stage reports while it runs, and the summary it leaves. */
#include "common/train/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/inplace.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/num.h"
#include "common/base/outfile.h"
#include "common/base/path.h"
#include "common/train/events.h"

struct lwm_metrics {
	const struct lwm_stage *s;
	const struct lwm_objective *o;
	struct lwm_jsonl *file;
	struct lwm_history *history;
	struct lwm_events *events; /* NULL: none are wanted */
	char *summary;
	double last_eval;
	struct spent {
		double seconds, flops; /* of steps */
	} line, run;             /* since the last log line, and since this run began */
	double peak;             /* FLOP a second of all ranks; 0 unknown */
	const char *peak_source;
	bool evaluated;
	struct lwm_str eval_more;
	int64_t since;
	bool trained; /* a step was made in this run */
};

/* What a line that is there says of the run that wrote it. */
static void note_before(struct lwm_history_before *b, const char *line, size_t n, bool cut)
{
	const char *time = memmem(line, n, "\"time\":", 7), *seconds = memmem(line, n, "\"seconds\":", 10);
	double at = time ? strtod(time + 7, NULL) : 0;
	if (at > b->ended)
		b->ended = at;
	if (!cut || !memmem(line, n, "\"event\":\"step\"", 14))
		return;
	b->lost_steps++;
	b->lost_seconds += seconds ? strtod(seconds + 10, NULL) : 0;
}

static bool is_of_end(const char *line, size_t n)
{
	return memmem(line, n, "\"event\":\"eval\"", 14) || memmem(line, n, "\"event\":\"sample\"", 16);
}

/* Keeps the lines up to the step that is resumed from; a run that begins anew begins a new file. The last evaluation and samples of
 * a run that was killed before its summary are made again, so their lines go, too. *before: what the lines said, those that go
 * among them. */
static int cut_after(const char *path, int64_t step, bool ends_again, struct lwm_history_before *before, struct lwm_err *e)
{
	char *text = NULL, *p, *end, *cut = NULL;
	size_t n;
	off_t keep;
	int fd, rc;
	if (!lwm_path_exists(path))
		return 0;
	LWM_TRY(lwm_inplace_open(&fd, path, O_RDWR, e));
	LWM_GO(lwm_read_fd(fd, path, (int64_t)1 << 32, &text, &n, e));
	for (p = text; (end = memchr(p, '\n', n - (size_t)(p - text))); p = end + 1) {
		const char *at = memmem(p, (size_t)(end - p), "\"step\":", 7);
		int64_t of = at ? strtoll(at + 7, NULL, 10) : 0;
		if (!cut && (of > step || (of == step && ends_again && is_of_end(p, (size_t)(end - p)))))
			cut = p;
		note_before(before, p, (size_t)(end - p), cut);
	}
	keep = step == 0 ? 0 : (off_t)((cut ? cut : p) - text);
	if (ftruncate(fd, keep))
		rc = lwm_fail_errno(e, LWM_EIO, errno, "%s: cannot cut off the lines behind step %" PRId64, path, step);
out:
	free(text);
	close(fd);
	return rc;
}

static int end_line(struct lwm_metrics *m, struct lwm_str *line, struct lwm_err *e)
{
	lwm_str_printf(line, ",\"time\":%.3f}", lwm_history_now());
	int rc = lwm_jsonl_add(m->file, line, e);
	lwm_str_release(line);
	return rc;
}

/* A value and its exact bits. JSON has no NaN: null, and the bits tell. */
static void put_number(struct lwm_str *line, const char *key, double v)
{
	if (isfinite(v))
		lwm_str_printf(line, ",\"%s\":%.9g,\"%s_hex\":\"%a\"", key, v, key, v);
	else
		lwm_str_printf(line, ",\"%s\":null,\"%s_hex\":\"%a\"", key, key, v);
}

/* The start in both files. */
static int put_start(struct lwm_metrics *m, int64_t step, const struct lwm_history_start *begin, struct lwm_err *e)
{
	const struct lwm_objective *o = m->o;
	struct lwm_str line = { 0 };
	LWM_TRY(lwm_history_begin(m->history, begin, e));
	lwm_str_printf(&line, "{\"event\":\"start\",\"step\":%" PRId64 ",\"steps\":%" PRId64 ",\"kind\":\"%s\",\"unit\":\"%s\",\"device\":",
		       step, m->s->steps, o->type->kind, o->type->unit);
	lwm_str_json(&line, lk_dev_name(o->dev), strlen(lk_dev_name(o->dev)));
	lwm_str_printf(&line, ",\"ranks\":%d,\"parameters\":%" PRId64, lwm_comm_size(o->mesh->world), o->tensors.params);
	lwm_settings_show(m->s, &line);
	lwm_str_printf(&line, ",\"units_per_step\":%" PRId64, o->units_per_step);
	return end_line(m, &line, e);
}

static int open_events(struct lwm_metrics *m, int64_t step, struct lwm_err *e)
{
	char *dir = lwm_path_join(m->s->out, "tensorboard");
	int rc = dir ? lwm_events_open(&m->events, dir, lwm_history_now(), step, e) : lwm_fail_memory(e, "tensorboard");
	free(dir);
	return rc;
}

/* The points of a step. */
static void add_points(struct lwm_metrics *m, const struct lwm_train_state *st, const struct lwm_step_figures *f)
{
	double now = lwm_history_now(), rate = f->seconds > 0 ? (double)m->o->units_per_step / f->seconds : 0;
	char tag[64];
	snprintf(tag, sizeof tag, "train/%s_per_second", m->o->type->unit);
	lwm_events_scalar(m->events, now, st->step, "train/loss", st->loss);
	lwm_events_scalar(m->events, now, st->step, "train/grad_norm", f->grad_norm);
	lwm_events_scalar(m->events, now, st->step, "train/lr", f->lr);
	lwm_events_scalar(m->events, now, st->step, tag, rate);
	if (f->loss_scale > 0)
		lwm_events_scalar(m->events, now, st->step, "train/loss_scale", f->loss_scale);
	lwm_events_more(m->events, now, st->step, "train/", st->more);
}

int lwm_metrics_open(struct lwm_metrics **out, const struct lwm_stage *s, const struct lwm_objective *o, int64_t step,
		     double began, const char *hosts, struct lwm_err *e)
{
	struct lwm_history_start begin = { .began = began, .step = step, .steps = s->steps,
					   .ranks = lwm_comm_size(o->mesh->world), .hosts = hosts };
	struct lwm_metrics *m = calloc(1, sizeof *m);
	char *path = lwm_path_join(s->out, "metrics.jsonl");
	int rc = m && path ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory");
	if (rc < 0)
		goto out;
	m->s = s;
	m->o = o;
	m->summary = lwm_path_join(s->out, "summary.json");
	if (!m->summary)
		LWM_GO(lwm_fail(e, LWM_EMEMORY, "out of memory"));
	LWM_GO(cut_after(path, step, step == s->steps && !lwm_path_exists(m->summary), &begin.before, e));
	LWM_GO(lwm_jsonl_open(&m->file, path, e));
	LWM_GO(lwm_history_open(&m->history, s->out, e));
	if (s->tensorboard)
		LWM_GO(open_events(m, step, e));
	LWM_GO(put_start(m, step, &begin, e));
out:
	free(path);
	if (rc < 0)
		lwm_metrics_close(m);
	else
		*out = m;
	return rc;
}

double lwm_metrics_seconds(const struct lwm_metrics *m)
{
	return m->run.seconds;
}

static void put_peak(struct lwm_str *line, const struct lwm_metrics *m)
{
	lwm_str_printf(line, ",\"peak_tflops\":%.6g,\"peak_source\":\"%s\"", m->peak / 1e12, m->peak_source);
}

int lwm_metrics_peak(struct lwm_metrics *m, int64_t step, double rate, const char *source, struct lwm_err *e)
{
	struct lwm_str line = { 0 };
	m->peak = rate;
	m->peak_source = source;
	lwm_log(LWM_INFO, "peak of all ranks: %.4g TFLOP/s, %s", rate / 1e12, source);
	lwm_str_printf(&line, "{\"event\":\"peak\",\"step\":%" PRId64, step);
	put_peak(&line, m);
	return end_line(m, &line, e);
}

/* A peak that the steps exceed was measured while others used the processors: nothing does more than its peak. */
static void raise_peak(struct lwm_metrics *m, const struct spent *s)
{
	if (m->peak > 0 && !strcmp(m->peak_source, "measured") && s->seconds > 0 && s->flops / s->seconds > m->peak)
		m->peak = s->flops / s->seconds;
}

static void log_progress(struct lwm_metrics *m, const struct lwm_train_state *st, const struct lwm_step_figures *f)
{
	struct lwm_str work = { 0 };
	char text[32];
	double busy = m->line.seconds, rate = busy > 0 ? (double)(m->since * m->o->units_per_step) / busy : 0;
	long left = m->since ? (long)((double)(m->s->steps - st->step) * busy / (double)m->since) : 0;
	raise_peak(m, &m->line);
	if (m->line.flops > 0 && busy > 0)
		lwm_str_printf(&work, " %.4g GFLOP/s", m->line.flops / busy / 1e9);
	if (m->peak > 0 && m->line.flops > 0 && busy > 0)
		lwm_str_printf(&work, " MFU %.1f %% of %.4g TFLOP/s %s", 100 * m->line.flops / busy / m->peak, m->peak / 1e12,
			       m->peak_source);
	lwm_log(LWM_INFO, "step %" PRId64 "/%" PRId64 " loss %.4f gnorm %.3g lr %.2e %s %s/s%s eta %ldh%02ldm%02lds", st->step,
		m->s->steps, st->loss, f->grad_norm, f->lr, lwm_rate_text(rate, text, sizeof text), m->o->type->unit,
		lwm_str_get(&work), left / 3600, left / 60 % 60, left % 60);
	lwm_str_release(&work);
	m->line = (struct spent){ 0, 0 };
	m->since = 0;
}

int lwm_metrics_step(struct lwm_metrics *m, const struct lwm_train_state *st, const struct lwm_step_figures *f,
		     struct lwm_err *e)
{
	struct spent *spent[] = { &m->line, &m->run };
	struct lwm_str line = { 0 };
	lwm_str_printf(&line, "{\"event\":\"step\",\"step\":%" PRId64, st->step);
	put_number(&line, "loss", st->loss);
	put_number(&line, "grad_norm", f->grad_norm);
	lwm_str_printf(&line, ",\"lr\":%.9g,\"seconds\":%.6g,\"seen\":%.17g", f->lr, f->seconds, st->units);
	if (f->flops > 0)
		lwm_str_printf(&line, ",\"flops\":%.15g", f->flops);
	if (f->loss_scale > 0)
		lwm_str_printf(&line, ",\"loss_scale\":%.17g", f->loss_scale);
	lwm_str_printf(&line, "%s%s%s", f->skipped ? ",\"skipped\":true" : "", f->overflow ? ",\"overflow\":true" : "", st->more);
	for (int i = 0; i < 2; i++) {
		spent[i]->seconds += f->seconds;
		spent[i]->flops += f->flops;
	}
	m->since++;
	m->trained = true;
	if (m->events)
		add_points(m, st, f);
	if (st->step % m->s->log_every == 0 || st->step == m->s->steps)
		log_progress(m, st, f);
	return end_line(m, &line, e);
}

int lwm_metrics_eval(struct lwm_metrics *m, const struct lwm_train_state *st, double loss, const struct lwm_str *more,
		     struct lwm_err *e)
{
	struct lwm_str line = { 0 };
	lwm_str_printf(&line, "{\"event\":\"eval\",\"step\":%" PRId64, st->step);
	put_number(&line, "loss", loss);
	lwm_str_puts(&line, lwm_str_get(more));
	m->last_eval = loss;
	m->evaluated = true;
	lwm_str_reset(&m->eval_more);
	lwm_str_puts(&m->eval_more, lwm_str_get(more));
	lwm_log(LWM_INFO, "step %" PRId64 " held-out loss %.4f", st->step, loss);
	if (m->events) {
		lwm_events_scalar(m->events, lwm_history_now(), st->step, "eval/loss", loss);
		lwm_events_more(m->events, lwm_history_now(), st->step, "eval/", lwm_str_get(more));
	}
	return end_line(m, &line, e);
}

int lwm_metrics_sampled(struct lwm_metrics *m, int64_t step, const char *file, const struct lwm_str *what, struct lwm_err *e)
{
	struct lwm_str line = { 0 };
	lwm_str_printf(&line, "{\"event\":\"sample\",\"step\":%" PRId64 ",\"file\":\"%s\",\"what\":", step, file);
	lwm_str_json(&line, lwm_str_get(what), what->len);
	lwm_log(LWM_INFO, "step %" PRId64 " %s", step, file);
	return end_line(m, &line, e);
}

int lwm_metrics_saved(struct lwm_metrics *m, int64_t step, double seconds, double blocking, struct lwm_err *e)
{
	struct lwm_str line = { 0 };
	lwm_str_printf(&line, "{\"event\":\"save\",\"step\":%" PRId64 ",\"seconds\":%.4f,\"blocking\":%.4f", step, seconds,
		       blocking);
	lwm_log(LWM_INFO, "checkpoint of step %" PRId64 " stands (%.1f s, training waited %.2f s)", step, seconds, blocking);
	LWM_TRY(lwm_history_saved(m->history, step, seconds, blocking, e));
	return end_line(m, &line, e);
}

void lwm_metrics_ended(struct lwm_metrics *m, const struct lwm_history_end *end)
{
	struct lwm_err ignored = { 0 };
	if (lwm_history_end(m->history, end, &ignored) < 0)
		lwm_log(LWM_WARN, "%s", ignored.msg);
}

void lwm_metrics_sync(struct lwm_metrics *m)
{
	struct lwm_err why = { 0 };
	if (lwm_jsonl_sync_file(m->file, &why) < 0)
		lwm_log(LWM_WARN, "%s", why.msg);
}

bool lwm_metrics_complete(const struct lwm_metrics *m)
{
	return lwm_path_exists(m->summary);
}

int lwm_metrics_done(struct lwm_metrics *m, const struct lwm_train_state *st, double seconds, double peak_rss,
		     struct lwm_err *e)
{
	struct lwm_str line = { 0 }, sum = { 0 };
	lwm_str_printf(&line, "{\"event\":\"end\",\"step\":%" PRId64 ",\"seconds\":%.3f,\"peak_rss\":%.0f", st->step, seconds,
		       peak_rss);
	raise_peak(m, &m->run);
	if (m->peak > 0)
		put_peak(&line, m);
	if (m->peak > 0 && m->run.flops > 0 && m->run.seconds > 0)
		lwm_str_printf(&line, ",\"mfu\":%.6g", m->run.flops / m->run.seconds / m->peak);
	LWM_TRY(end_line(m, &line, e));
	struct lwm_jsonl *file = m->file;
	m->file = NULL;
	LWM_TRY(lwm_jsonl_close(file, e));
	lwm_str_printf(&sum, "{\"step\":%" PRId64 ",\"seen\":%.17g,\"unit\":\"%s\",\"skipped\":%" PRId64 ",\"parameters\":%" PRId64, st->step,
		       st->units, m->o->type->unit, st->guard.skipped, m->o->tensors.params);
	if (st->scaling.scale > 0)
		lwm_str_printf(&sum, ",\"overflows\":%" PRId64 ",\"loss_scale\":%.17g", st->scaling.overflows, st->scaling.scale);
	put_number(&sum, "loss", st->loss);
	lwm_str_puts(&sum, st->more);
	if (m->evaluated) {
		lwm_str_printf(&sum, ",\"eval\":{\"step\":%" PRId64, st->step);
		put_number(&sum, "loss", m->last_eval);
		lwm_str_puts(&sum, lwm_str_get(&m->eval_more));
		lwm_str_putc(&sum, '}');
	}
	lwm_str_puts(&sum, "}\n");
	int rc = lwm_str_ok(&sum, e);
	/* a stage that was complete before keeps the summary of the run that trained it */
	if (rc == 0 && (m->trained || !lwm_metrics_complete(m)))
		rc = lwm_write_file(m->summary, sum.s, sum.len, true, e);
	lwm_str_release(&sum);
	return rc;
}

void lwm_metrics_close(struct lwm_metrics *m)
{
	struct lwm_err ignored = { 0 };
	if (!m)
		return;
	if (lwm_jsonl_close(m->file, &ignored) < 0)
		lwm_log(LWM_WARN, "%s", ignored.msg);
	lwm_history_close(m->history);
	lwm_events_close(m->events);
	lwm_str_release(&m->eval_more);
	free(m->summary);
	free(m);
}
