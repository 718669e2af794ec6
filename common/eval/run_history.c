/* Runs of a stage, read from what they said; sums over them. */
#include "common/eval/run_history.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/json.h"
#include "common/base/path.h"

const char *const lwm_ledger_names[] = { "useful", "lost", "saving", "starting", "gaps", "other", NULL };

/* ---- reading ---- */

static double number_of(const json_t *o, const char *key)
{
	double v = json_number_value(json_object_get(o, key));
	return v >= 0 && v < 1e15 ? v : 0;
}

static void copy_text(char *out, size_t size, const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	snprintf(out, size, "%s", s ? s : "");
}

static int add_attempt(struct lwm_run_history *h, const json_t *o, struct lwm_err *e)
{
	if (h->n == h->cap) {
		int64_t cap = h->cap ? h->cap * 2 : 16;
		struct lwm_run_attempt *v = realloc(h->v, (size_t)cap * sizeof *v);
		if (!v)
			return lwm_fail_memory(e, "runs");
		h->v = v;
		h->cap = cap;
	}
	struct lwm_run_attempt *a = &h->v[h->n];
	double ended = number_of(o, "ended");
	if (h->n && !h->v[h->n - 1].ended && ended > h->v[h->n - 1].over)
		h->v[h->n - 1].over = ended;
	*a = (struct lwm_run_attempt){ .began = number_of(o, "began"), .loaded = number_of(o, "time"),
				       .from = (int64_t)number_of(o, "step"), .steps = (int64_t)number_of(o, "steps"),
				       .lost_steps = (int64_t)number_of(o, "lost_steps"),
				       .lost_seconds = number_of(o, "lost_seconds"),
				       .ranks = (int)fmin(number_of(o, "ranks"), 1e9), .rank = -1 };
	a->reached = a->from;
	copy_text(a->job, sizeof a->job, o, "job");
	a->hosts = json_incref(json_object_get(o, "hosts"));
	h->n++;
	const char *cwd = json_string_value(json_object_get(o, "cwd"));
	json_decref(h->command);
	h->command = json_incref(json_object_get(o, "command"));
	free(h->cwd);
	h->cwd = cwd ? strdup(cwd) : NULL;
	return cwd && !h->cwd ? lwm_fail_memory(e, "runs") : 0;
}

/* Of ranks that ended together each may have written its line. The first counts, but one that did not wait is the cause. */
static int take_end(struct lwm_run_attempt *a, const json_t *o, struct lwm_err *e)
{
	json_t *rank = json_object_get(o, "rank");
	bool waited = json_is_integer(rank) && json_is_true(json_object_get(o, "waited"));
	if (waited && !a->waited)
		a->waited = json_array();
	if (waited && (!a->waited || json_array_append(a->waited, rank)))
		return lwm_fail_memory(e, "runs");
	if (a->ended && (waited || a->rank >= 0))
		return 0;
	a->ended = true;
	a->code = (int)fmin(number_of(o, "code"), 255);
	copy_text(a->why, sizeof a->why, o, "why");
	if (!json_is_integer(rank) || waited)
		return 0;
	a->rank = (int)fmin(number_of(o, "rank"), 1e9);
	copy_text(a->host, sizeof a->host, o, "host");
	return 0;
}

static int take_line(struct lwm_run_history *h, const json_t *o, struct lwm_err *e)
{
	const char *event = json_string_value(json_object_get(o, "event"));
	double time = number_of(o, "time");
	if (time > h->last)
		h->last = time;
	if (event && !strcmp(event, "begin"))
		return add_attempt(h, o, e);
	if (!event || !h->n)
		return 0;
	struct lwm_run_attempt *a = &h->v[h->n - 1];
	a->over = fmax(a->over, time);
	a->reached = (int64_t)number_of(o, "step");
	if (!strcmp(event, "save"))
		a->saving += number_of(o, json_object_get(o, "blocking") ? "blocking" : "seconds"); /* older lines: all of it */
	return !strcmp(event, "end") ? take_end(a, o, e) : 0;
}

static void copy_host(struct lwm_run_attempt *a, int rank)
{
	size_t i;
	json_t *v;
	double first = 0;
	json_array_foreach(a->hosts, i, v) {
		const char *name = json_string_value(json_array_get(v, 0));
		double n = json_number_value(json_array_get(v, 1));
		if (name && rank >= first && rank < first + n)
			snprintf(a->host, sizeof a->host, "%s", name);
		first += n;
	}
}

/* Where some ranks waited and none said that it did not, it is one of those that said nothing: it cannot speak. */
static int name_silent(struct lwm_run_attempt *a, struct lwm_err *e)
{
	enum { MOST = 1 << 20 };
	int silent = 0, first = -1;
	size_t i, n = strlen(a->why);
	json_t *v;
	if (!a->waited || a->rank >= 0 || a->ranks > MOST)
		return 0;
	bool *heard = calloc((size_t)a->ranks + 1, sizeof *heard);
	if (!heard)
		return lwm_fail_memory(e, "runs");
	json_array_foreach(a->waited, i, v)
		if (json_integer_value(v) >= 0 && json_integer_value(v) < a->ranks)
			heard[json_integer_value(v)] = true;
	for (int r = a->ranks; r-- > 0;)
		if (!heard[r]) {
			silent++;
			first = r;
		}
	free(heard);
	if (!silent || 2 * silent > a->ranks)
		return 0;
	a->rank = first;
	copy_host(a, first);
	snprintf(a->why + n, sizeof a->why - n, "; nothing was heard of rank %d on %s", first, *a->host ? a->host : "?");
	n = strlen(a->why);
	if (silent > 1)
		snprintf(a->why + n, sizeof a->why - n, " and %d more", silent - 1);
	return 0;
}

int lwm_run_history_read(struct lwm_run_history *h, const char *dir, struct lwm_err *e)
{
	char *path = lwm_path_join(dir, "history.jsonl"), *text = NULL, *end;
	size_t n = 0;
	memset(h, 0, sizeof *h);
	int rc = path ? 0 : lwm_fail_memory(e, NULL);
	if (rc == 0 && lwm_path_exists(path))
		rc = lwm_read_file(path, 1 << 28, &text, &n, e);
	for (char *p = text; rc == 0 && p && (end = memchr(p, '\n', n - (size_t)(p - text))); p = end + 1) {
		json_t *o = NULL;
		struct lwm_err why = { 0 };
		rc = lwm_json_parse(&o, p, (size_t)(end - p), path, &why);
		if (rc == 0) {
			rc = take_line(h, o, e);
		} else if (rc == -LWM_EDATA) {
			h->bad++;
			rc = 0;
		} else {
			*e = why;
		}
		json_decref(o);
	}
	for (int64_t i = 0; i < h->n && rc == 0; i++)
		rc = name_silent(&h->v[i], e);
	free(text);
	free(path);
	return rc;
}

void lwm_run_history_release(struct lwm_run_history *h)
{
	for (int64_t i = 0; i < h->n; i++) {
		json_decref(h->v[i].hosts);
		json_decref(h->v[i].waited);
	}
	json_decref(h->command);
	free(h->cwd);
	free(h->v);
	memset(h, 0, sizeof *h);
}

/* ---- the ledger ---- */

void lwm_run_ledger_make(struct lwm_run_ledger *l, const struct lwm_run_history *h, double useful, double until)
{
	double sum = 0, wall;
	memset(l, 0, sizeof *l);
	if (!h->n)
		return;
	l->seconds[LWM_LEDGER_USEFUL] = useful;
	for (int64_t i = 0; i < h->n; i++) {
		const struct lwm_run_attempt *a = &h->v[i];
		double over = fmax(a->over, a->loaded);
		l->seconds[LWM_LEDGER_LOST] += a->lost_seconds;
		l->seconds[LWM_LEDGER_SAVING] += a->saving;
		l->seconds[LWM_LEDGER_STARTING] += fmax(a->loaded - a->began, 0);
		if (i + 1 < h->n)
			l->seconds[LWM_LEDGER_GAPS] += fmax(h->v[i + 1].began - over, 0);
	}
	for (int p = 0; p < LWM_LEDGER_OTHER; p++)
		sum += l->seconds[p];
	wall = until - h->v[0].began;
	l->seconds[LWM_LEDGER_OTHER] = fmax(wall - sum, 0);
	l->total = fmax(wall, sum);
}

/* ---- hosts ---- */

bool lwm_run_attempt_suspect(const struct lwm_run_history *h, int64_t i, bool running)
{
	const struct lwm_run_attempt *a = &h->v[i];
	if (!a->ended)
		return !(running && i + 1 == h->n);
	return a->code == LWM_ERANK || a->code == LWM_EUNAVAIL || a->code == LWM_EMEMORY || a->code == LWM_EIO;
}

static bool has_host(const struct lwm_run_attempt *a, const char *name)
{
	size_t i;
	json_t *v;
	json_array_foreach(a->hosts, i, v) {
		const char *host = json_string_value(json_array_get(v, 0));
		if (host && !strcmp(host, name))
			return true;
	}
	return false;
}

/* Of the attempts of a host (NULL: of all), how many were suspect. */
static void count_attempts(const struct lwm_run_history *h, const char *name, bool running, int64_t *suspect, int64_t *all)
{
	*suspect = *all = 0;
	for (int64_t i = 0; i < h->n; i++)
		if (!name || has_host(&h->v[i], name)) {
			++*all;
			*suspect += lwm_run_attempt_suspect(h, i, running);
		}
}

static bool has_entry(const json_t *list, const char *name)
{
	size_t i;
	json_t *v;
	json_array_foreach(list, i, v)
		if (!strcmp(json_string_value(json_object_get(v, "host")), name))
			return true;
	return false;
}

static int add_named(json_t *list, const struct lwm_run_history *h, const char *name)
{
	int64_t suspect, all, named = 0;
	if (!*name || has_entry(list, name))
		return 0;
	for (int64_t i = 0; i < h->n; i++)
		named += !strcmp(h->v[i].host, name);
	count_attempts(h, name, false, &suspect, &all);
	return json_array_append_new(list, json_pack("{s:s,s:I,s:I}", "host", name, "named", (json_int_t)named, "attempts",
						     (json_int_t)all));
}

static int add_suspect(json_t *list, const struct lwm_run_history *h, const char *name, bool running)
{
	int64_t suspect, all, of_run, runs;
	if (has_entry(list, name))
		return 0;
	count_attempts(h, name, running, &suspect, &all);
	count_attempts(h, NULL, running, &of_run, &runs);
	/* without it the runs went better than with it */
	if (suspect < 2 || runs == all || suspect * (runs - all) <= (of_run - suspect) * all)
		return 0;
	return json_array_append_new(list, json_pack("{s:s,s:I,s:I}", "host", name, "suspect", (json_int_t)suspect, "attempts",
						     (json_int_t)all));
}

json_t *lwm_run_suspicious_hosts(const struct lwm_run_history *h, bool running)
{
	json_t *list = json_array(), *v;
	int rc = list ? 0 : -1;
	size_t k;
	for (int64_t i = 0; i < h->n && rc == 0; i++)
		rc = add_named(list, h, h->v[i].host);
	for (int64_t i = 0; i < h->n && rc == 0; i++)
		json_array_foreach(h->v[i].hosts, k, v) {
			const char *name = json_string_value(json_array_get(v, 0));
			if (name && rc == 0)
				rc = add_suspect(list, h, name, running);
		}
	if (rc) {
		json_decref(list);
		return NULL;
	}
	return list;
}
