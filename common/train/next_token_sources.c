/* The objective next-token: what it says of its sources, in plans and in the line of each step. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/train/next_token_int.h"

enum { STEPS_TOLD = 16, SOURCES_TOLD = 16 /* of a line of metrics, which is kept with the state */, NAME_TOLD = 32 };
_Static_assert((int)SOURCES_TOLD <= (int)LWM_LOSS_GROUPS, "sums of each source that is told");

static int by_step(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return x < y ? -1 : x > y;
}

/* The steps at which a share may have a bend, the first and the last step of the stage: sorted, each once; the first STEPS_TOLD. */
static int64_t steps_told(const struct lwm_nt *t, int64_t step[STEPS_TOLD])
{
	int64_t last = t->base.stage->steps - 1, n = 0, points = 2, *all;
	for (int64_t i = 0; i < t->nsources; i++)
		points += t->sources[i].npoints;
	all = malloc((size_t)points * sizeof *all);
	if (!all)
		return -1;
	points = 0;
	all[points++] = 0;
	all[points++] = last;
	for (int64_t i = 0; i < t->nsources; i++)
		for (int64_t k = 0; k < t->sources[i].npoints; k++)
			if (t->sources[i].point[k].step < last)
				all[points++] = t->sources[i].point[k].step;
	qsort(all, (size_t)points, sizeof *all, by_step);
	for (int64_t i = 0; i < points && n < STEPS_TOLD; i++)
		if (n == 0 || all[i] != step[n - 1])
			step[n++] = all[i];
	free(all);
	return n;
}

static double part_of(const struct lwm_nt *t, int64_t i, int64_t step)
{
	return lwm_sources_part(t->sources, t->nsources, i, step);
}

/* One source: a line for people, an object for programs. */
static void tell_source(struct lwm_nt *t, int64_t i, const int64_t *step, int64_t n)
{
	struct lwm_str *line = &t->base.plan_lines, *json = &t->base.plan_json;
	const struct lwm_loader_source *s = &t->sources[i];
	bool shared = part_of(t, i, 0) >= 0;
	lwm_str_printf(line, "%-15s%s: ", i ? "" : "sources", s->shards.v[0]);
	lwm_str_printf(json, "%s{\"path\":", i ? "," : "");
	lwm_str_json(json, s->shards.v[0], strlen(s->shards.v[0]));
	lwm_str_printf(json, ",\"weight\":%.9g", s->loss > 0 ? s->loss : 1);
	lwm_str_puts(line, shared ? "" : "as many rows as it has");
	for (int64_t k = 0; k < n && shared; k++) {
		lwm_str_printf(json, "%s[%" PRId64 ",%.9g]", k ? "," : ",\"shares\":[", step[k], part_of(t, i, step[k]));
		if (k && !lwm_sources_change(t->sources, t->nsources))
			break;
		lwm_str_printf(line, "%s%.4g %%", k ? ", " : "", 100 * part_of(t, i, step[k]));
		if (lwm_sources_change(t->sources, t->nsources))
			lwm_str_printf(line, " at step %" PRId64, step[k]);
		else
			lwm_str_puts(line, " of the rows");
	}
	lwm_str_puts(json, shared ? "]}" : "}");
	if (s->loss > 0 && s->loss != 1)
		lwm_str_printf(line, "; its labels weigh %.4g", s->loss);
	lwm_str_putc(line, '\n');
}

int lwm_nt_tell_sources(struct lwm_nt *t, struct lwm_err *e)
{
	int64_t step[STEPS_TOLD], n;
	if (t->nsources < 2)
		return 0;
	n = steps_told(t, step);
	if (n < 0)
		return lwm_fail_memory(e, NULL);
	lwm_str_puts(&t->base.plan_json, ",\"sources\":[");
	for (int64_t i = 0; i < t->nsources; i++)
		tell_source(t, i, step, n);
	lwm_str_puts(&t->base.plan_json, "]");
	LWM_TRY(lwm_str_ok(&t->base.plan_lines, e));
	return lwm_str_ok(&t->base.plan_json, e);
}

void lwm_nt_render_sources(const struct lwm_nt *t, struct lwm_str *json)
{
	int64_t n = t->nsources < SOURCES_TOLD ? t->nsources : SOURCES_TOLD;
	if (t->nsources < 2)
		return;
	for (int64_t i = 0; i < n; i++)
		lwm_str_printf(json, "%s%" PRId64, i ? "," : ",\"source_rows\":[", t->source_rows[i]);
	lwm_str_puts(json, "]");
	if (part_of(t, 0, t->at_step) < 0)
		return;
	for (int64_t i = 0; i < n; i++)
		lwm_str_printf(json, "%s%.6g", i ? "," : ",\"source_shares\":[", part_of(t, i, t->at_step));
	lwm_str_puts(json, "]");
}

/* What a source is called in a line: the end of its path, without the ending of row shards. */
static void name_source(const char *path, char name[NAME_TOLD])
{
	static const char *const endings[] = { ".rows.h5", ".h5" };
	size_t n = strlen(path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
		size_t k = strlen(endings[i]);
		if (n > k && !memcmp(path + n - k, endings[i], k) && path[n - k - 1] != '/') {
			n -= k;
			break;
		}
	}
	size_t from = n;
	while (from > 0 && path[from - 1] != '/')
		from--;
	n -= from;
	if (n > NAME_TOLD - 1)
		n = NAME_TOLD - 1;
	memcpy(name, path + from, n);
	name[n] = '\0';
}

/* The name of source i as a key; one that an earlier source has gets #I behind it. */
static void put_name(const struct lwm_loader_source *src, int64_t i, struct lwm_str *json)
{
	char name[NAME_TOLD], other[NAME_TOLD], key[NAME_TOLD + 24];
	bool taken = false;
	name_source(src[i].shards.v[0], name);
	for (int64_t k = 0; k < i && !taken; k++) {
		name_source(src[k].shards.v[0], other);
		taken = !strcmp(name, other);
	}
	snprintf(key, sizeof key, "%s", name);
	if (taken)
		snprintf(key, sizeof key, "%s#%" PRId64, name, i + 1);
	lwm_str_json(json, key, strlen(key));
}

void lwm_nt_render_losses(const struct lwm_nt *t, const double *sums, bool eval, struct lwm_str *json)
{
	const struct lwm_loader_source *src = eval ? t->eval_sources : t->sources;
	int64_t n = eval ? t->neval_sources : t->nsources, told = 0;
	if (n < 2)
		return;
	for (int64_t i = 0; i < n && i < SOURCES_TOLD; i++) {
		const double *p = sums + 2 * i;
		if (p[1] <= 0)
			continue;
		lwm_str_puts(json, told++ ? "," : ",\"loss_of\":{");
		put_name(src, i, json);
		lwm_str_putc(json, ':');
		lwm_str_number(json, p[0] / p[1], 9);
	}
	lwm_str_puts(json, told ? "}" : "");
}
