/* Lines of metrics.jsonl, one after the other: the steps become points, of the others what the last one says counts. */
#include "common/eval/run_series.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"

static bool grow_column(double **column, int64_t cap)
{
	double *p = realloc(*column, (size_t)cap * sizeof *p);
	if (p)
		*column = p;
	return p;
}

static int make_room(struct lwm_run_series *s, struct lwm_err *e)
{
	int64_t cap = s->cap ? s->cap * 2 : 256;
	if (s->n < s->cap)
		return 0;
	if (!grow_column(&s->step, cap) || !grow_column(&s->loss, cap) || !grow_column(&s->seconds, cap) ||
	    !grow_column(&s->seen, cap) || !grow_column(&s->flops, cap))
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a loss curve");
	for (int64_t i = 0; i < s->nsources; i++)
		if (!grow_column(&s->source[i].loss, cap))
			return lwm_fail(e, LWM_EMEMORY, "out of memory for a loss curve");
	s->cap = cap;
	return 0;
}

static double number_of(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

/* The source of that name, a new one if there is none: it had no loss in the steps before. NULL: out of memory. */
static struct lwm_run_source *source_of(struct lwm_run_series *s, const char *name)
{
	for (int64_t i = 0; i < s->nsources; i++)
		if (!strcmp(s->source[i].name, name))
			return &s->source[i];
	struct lwm_run_source *more = realloc(s->source, (size_t)(s->nsources + 1) * sizeof *more), *new;
	if (!more)
		return NULL;
	s->source = more;
	new = &more[s->nsources];
	*new = (struct lwm_run_source){ strdup(name), malloc((size_t)s->cap * sizeof *new->loss) };
	s->nsources++; /* what it has is released with the others */
	if (!new->name || !new->loss)
		return NULL;
	for (int64_t i = 0; i < s->n; i++)
		new->loss[i] = NAN;
	return new;
}

static int add_losses(struct lwm_run_series *s, json_t *of, struct lwm_err *e)
{
	const char *name;
	json_t *loss;
	for (int64_t i = 0; i < s->nsources; i++)
		s->source[i].loss[s->n] = NAN;
	json_object_foreach(of, name, loss) {
		struct lwm_run_source *p = source_of(s, name);
		if (!p)
			return lwm_fail(e, LWM_EMEMORY, "out of memory for a loss curve");
		p->loss[s->n] = json_is_number(loss) ? json_number_value(loss) : NAN;
	}
	return 0;
}

static int add_step(struct lwm_run_series *s, const json_t *o, struct lwm_err *e)
{
	const json_t *loss = json_object_get(o, "loss");
	LWM_TRY(make_room(s, e));
	s->step[s->n] = number_of(o, "step");
	s->loss[s->n] = json_is_number(loss) ? json_number_value(loss) : NAN;
	s->seconds[s->n] = number_of(o, "seconds");
	s->seen[s->n] = number_of(o, "seen");
	s->flops[s->n] = number_of(o, "flops");
	s->total += s->seconds[s->n];
	LWM_TRY(add_losses(s, json_object_get(o, "loss_of"), e));
	s->skipped += json_is_true(json_object_get(o, "skipped"));
	s->overflows += json_is_true(json_object_get(o, "overflow"));
	s->n++;
	return 0;
}

/* A line without a name is none. */
static int add_sample(struct lwm_run_series *s, const json_t *o, struct lwm_err *e)
{
	const char *file = json_string_value(json_object_get(o, "file")), *what = json_string_value(json_object_get(o, "what"));
	struct lwm_run_sample new = { .step = number_of(o, "step") }, *more;
	if (!file)
		return 0;
	if (s->nsamples && s->sample[s->nsamples - 1].step == new.step) {
		s->nsamples--;
		free(s->sample[s->nsamples].file);
		free(s->sample[s->nsamples].what);
	}
	more = realloc(s->sample, (size_t)(s->nsamples + 1) * sizeof *more);
	if (!more)
		return lwm_fail_memory(e, NULL);
	s->sample = more;
	new.file = strdup(file);
	new.what = strdup(what ? what : "");
	s->sample[s->nsamples++] = new; /* what it has is released with the others */
	return new.file && new.what ? 0 : lwm_fail_memory(e, NULL);
}

static int take_line(struct lwm_run_series *s, const json_t *o, struct lwm_err *e)
{
	const char *event = json_string_value(json_object_get(o, "event")), *unit = json_string_value(json_object_get(o, "unit"));
	double peak = number_of(o, "peak_tflops"), steps = number_of(o, "steps"), time = number_of(o, "time");
	if (unit)
		snprintf(s->unit, sizeof s->unit, "%s", unit);
	if (peak > 0)
		s->peak = peak * 1e12;
	if (steps >= 1 && steps < 9e15)
		s->steps = (int64_t)steps;
	if (time > s->last && time < 1e15)
		s->last = time;
	s->ended = event && !strcmp(event, "end") ? (int64_t)fmin(fmax(number_of(o, "step"), 0), 9e15) : -1;
	if (event && !strcmp(event, "sample"))
		return add_sample(s, o, e);
	return event && !strcmp(event, "step") ? add_step(s, o, e) : 0;
}

int lwm_run_series_read(struct lwm_run_series *s, const char *dir, bool lenient, struct lwm_err *e)
{
	char *path = lwm_path_join(dir, "metrics.jsonl"), *text = NULL, *end;
	size_t n;
	memset(s, 0, sizeof *s);
	s->ended = -1;
	int rc = path ? lwm_read_file(path, (int64_t)1 << 30, &text, &n, e) : lwm_fail_memory(e, NULL);
	for (char *p = text; rc == 0 && (end = memchr(p, '\n', n - (size_t)(p - text))); p = end + 1) {
		struct lwm_err why = { 0 };
		json_t *o = NULL;
		rc = lwm_json_parse(&o, p, (size_t)(end - p), path, &why);
		if (rc == 0) {
			rc = take_line(s, o, e);
		} else if (lenient && rc == -LWM_EDATA) {
			s->bad++;
			rc = 0;
		} else {
			*e = why;
		}
		json_decref(o);
	}
	free(text);
	free(path);
	return rc;
}

void lwm_run_series_release(struct lwm_run_series *s)
{
	free(s->step);
	free(s->loss);
	free(s->seconds);
	free(s->seen);
	free(s->flops);
	for (int64_t i = 0; i < s->nsources; i++) {
		free(s->source[i].name);
		free(s->source[i].loss);
	}
	free(s->source);
	for (int64_t i = 0; i < s->nsamples; i++) {
		free(s->sample[i].file);
		free(s->sample[i].what);
	}
	free(s->sample);
	memset(s, 0, sizeof *s);
}
