/* --data, read: paths, shares that may change over the steps, and weights of labels. */
#include "common/train/sources.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"

#define SHARE_MOST 1e9

/* "STEP:SHARE" */
static int parse_point(const char *text, size_t n, struct lwm_share_point *p, const char *what, struct lwm_err *e)
{
	char word[64], *colon;
	if (n >= sizeof word)
		return lwm_fail(e, LWM_EUSAGE, "%s: '%.20s...' is not STEP:SHARE", what, text);
	snprintf(word, sizeof word, "%.*s", (int)n, text);
	colon = strchr(word, ':');
	if (!colon)
		return lwm_fail(e, LWM_EUSAGE, "%s: '%s' is not STEP:SHARE", what, word);
	*colon = 0;
	LWM_TRY(lwm_parse_int(word, 0, (int64_t)1 << 40, &p->step, what, e));
	return lwm_parse_double(colon + 1, 0, SHARE_MOST, &p->share, what, e);
}

static int parse_points(const char *text, size_t n, struct lwm_loader_source *s, struct lwm_err *e)
{
	struct lwm_share_point *p;
	int64_t count = 1, i = 0;
	for (size_t k = 0; k < n; k++)
		count += text[k] == ',';
	s->point = p = calloc((size_t)count, sizeof *p);
	if (!p)
		return lwm_fail_memory(e, NULL);
	for (const char *at = text, *end = text + n; at <= end; i++) {
		size_t len = 0;
		while (at + len < end && at[len] != ',')
			len++;
		LWM_TRY(parse_point(at, len, &p[i], s->name, e));
		if (i && p[i].step <= p[i - 1].step)
			return lwm_fail(e, LWM_EUSAGE, "%s: steps of shares must ascend", s->name);
		at += len + 1;
	}
	s->npoints = i;
	return 0;
}

/* What stands after the '=': "SHARE", "STEP:SHARE,...", each with "*WEIGHT" after it; or that alone. */
static int parse_shares(const char *text, struct lwm_loader_source *s, struct lwm_err *e)
{
	const char *star = strchr(text, '*');
	size_t n = star ? (size_t)(star - text) : strlen(text);
	char word[64];
	if (star) {
		LWM_TRY(lwm_parse_double(star + 1, 0, SHARE_MOST, &s->loss, s->name, e));
		if (s->loss == 0)
			return lwm_fail(e, LWM_EUSAGE, "%s: a source whose labels weigh nothing teaches nothing", s->name);
		if (n == 0)
			return 0;
	}
	if (memchr(text, ':', n))
		return parse_points(text, n, s, e);
	snprintf(word, sizeof word, "%.*s", n < sizeof word ? (int)n : 0, text);
	return lwm_parse_double(word, 0, SHARE_MOST, &s->weight, s->name, e);
}

static int parse_source(const char *text, struct lwm_loader_source *s, struct lwm_err *e)
{
	const char *eq = strrchr(text, '=');
	s->name = text;
	if (eq)
		LWM_TRY(parse_shares(eq + 1, s, e));
	char *path = strndup(text, eq ? (size_t)(eq - text) : strlen(text));
	int rc = path ? lwm_paths_add(&s->shards, path, e) : lwm_fail(e, LWM_EMEMORY, "%s: out of memory", text);
	free(path);
	return rc;
}

int lwm_sources_parse(const struct lwm_paths *texts, struct lwm_loader_source **out, struct lwm_err *e)
{
	struct lwm_loader_source *s = calloc((size_t)texts->n + 1, sizeof *s);
	int rc = s ? 0 : lwm_fail_memory(e, NULL);
	for (int64_t i = 0; rc == 0 && i < texts->n; i++)
		rc = parse_source(texts->v[i], &s[i], e);
	if (rc < 0) {
		lwm_sources_free(s, texts->n);
		s = NULL;
	}
	*out = s;
	return rc;
}

void lwm_sources_free(struct lwm_loader_source *s, int64_t n)
{
	for (int64_t i = 0; s && i < n; i++) {
		lwm_paths_release(&s[i].shards);
		free((void *)s[i].point);
	}
	free(s);
}

double lwm_sources_part(const struct lwm_loader_source *s, int64_t n, int64_t i, int64_t step)
{
	double sum = 0;
	for (int64_t k = 0; k < n; k++)
		sum += lwm_loader_share(&s[k], step);
	return sum > 0 ? lwm_loader_share(&s[i], step) / sum : -1;
}

int lwm_sources_check(const struct lwm_loader_source *s, int64_t n, struct lwm_err *e)
{
	for (int64_t i = 0; i < n; i++) /* shares are linear between points: the points tell */
		for (int64_t k = 0; k < s[i].npoints; k++)
			if (lwm_sources_part(s, n, 0, s[i].point[k].step) < 0)
				return lwm_fail(e, LWM_ECONFIG, "--data: at step %" PRId64 " no source has a share", s[i].point[k].step);
	return 0;
}

bool lwm_sources_change(const struct lwm_loader_source *s, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		if (s[i].npoints)
			return true;
	return false;
}
