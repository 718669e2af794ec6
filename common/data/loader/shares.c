/* Shares of sources that change over the steps: how many rows of each step are of which source.
 *
 * Each step owes source s its share of the R rows, R p_s(step); what whole rows leave over or take too much is carried to the next
 * step. Rows are given to whom most is owed: so after any number of steps a source has the sum of its shares, within one row for
 * each source there is, and the rows of a step are a pure function of the schedule and the step. p_s is linear between two points,
 * and constant before the first and after the last. A source whose share is 0 has no row, and what it was owed is forgotten.
 *
 * Steps are worked out one after the other; going back begins at step 0 again.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/data/loader/loader_int.h"

double lwm_loader_share(const struct lwm_loader_source *s, int64_t step)
{
	const struct lwm_share_point *p = s->point;
	int64_t i = 0, n = s->npoints;
	if (!n)
		return s->weight;
	while (i < n && p[i].step <= step)
		i++;
	if (i == 0 || i == n)
		return p[i ? n - 1 : 0].share;
	double part = (double)(step - p[i - 1].step) / (double)(p[i].step - p[i - 1].step);
	return p[i - 1].share + part * (p[i].share - p[i - 1].share);
}

/* Is there a share above 0 at every step? Between points all shares are linear, so the points tell. */
static int check_points(const struct lwm_loader_source *s, int64_t n, int64_t step, struct lwm_err *e)
{
	double sum = 0;
	for (int64_t i = 0; i < n; i++)
		sum += lwm_loader_share(&s[i], step);
	if (sum > 0 && sum < 1e300)
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "at step %" PRId64 " no source has a share", step);
}

static int check_source(const struct lwm_loader_source *s, struct lwm_err *e)
{
	for (int64_t i = 0; i < s->npoints; i++)
		if (s->point[i].step < 0 || (i && s->point[i].step <= s->point[i - 1].step) ||
		    !(s->point[i].share >= 0 && s->point[i].share < 1e300))
			return lwm_fail(e, LWM_ECONFIG, "source '%s': its shares must be 0 or more, at steps that follow each other",
					s->name);
	return 0;
}

static int check_schedule(const struct lwm_loader_cfg *cfg, struct lwm_err *e)
{
	const struct lwm_loader_source *s = cfg->source;
	if (cfg->once)
		return lwm_fail(e, LWM_ECONFIG, "held-out rows are read once: their shares cannot change over the steps");
	for (int64_t i = 0; i < cfg->nsources; i++)
		LWM_TRY(check_source(&s[i], e));
	LWM_TRY(check_points(s, cfg->nsources, 0, e));
	for (int64_t i = 0; i < cfg->nsources; i++)
		for (int64_t k = 0; k < s[i].npoints; k++)
			LWM_TRY(check_points(s, cfg->nsources, s[i].point[k].step, e));
	return 0;
}

static void rewind_shares(struct lwm_shares *m)
{
	m->step = -1;
	memset(m->before, 0, (size_t)m->n * sizeof *m->before);
	memset(m->count, 0, (size_t)m->n * sizeof *m->count);
	memset(m->owed, 0, (size_t)m->n * sizeof *m->owed);
}

static int copy_sources(struct lwm_shares *m, const struct lwm_loader_cfg *cfg, struct lwm_err *e)
{
	size_t n = (size_t)cfg->nsources;
	m->source = calloc(n, sizeof *m->source);
	m->before = calloc(n, sizeof *m->before);
	m->count = calloc(n, sizeof *m->count);
	m->owed = calloc(n, sizeof *m->owed);
	if (!m->source || !m->before || !m->count || !m->owed)
		return lwm_fail_memory(e, NULL);
	for (size_t i = 0; i < n; i++) {
		const struct lwm_loader_source *s = &cfg->source[i];
		struct lwm_share_point *p = calloc((size_t)s->npoints + 1, sizeof *p);
		if (!p)
			return lwm_fail_memory(e, NULL);
		if (s->npoints)
			memcpy(p, s->point, (size_t)s->npoints * sizeof *p);
		m->source[i] = (struct lwm_loader_source){ .weight = s->weight, .point = p, .npoints = s->npoints };
		m->n++;
	}
	return 0;
}

int lwm_shares_open(struct lwm_shares **out, const struct lwm_loader_cfg *cfg, struct lwm_err *e)
{
	bool changes = false;
	*out = NULL;
	for (int64_t i = 0; i < cfg->nsources; i++)
		changes |= cfg->source[i].npoints > 0;
	if (!changes)
		return 0;
	LWM_TRY(check_schedule(cfg, e));
	struct lwm_shares *m = calloc(1, sizeof *m);
	int rc = m ? copy_sources(m, cfg, e) : lwm_fail_memory(e, NULL);
	if (rc < 0) {
		lwm_shares_close(m);
		return rc;
	}
	m->rows = cfg->rows_per_step;
	rewind_shares(m);
	*out = m;
	return 0;
}

void lwm_shares_close(struct lwm_shares *m)
{
	if (!m)
		return;
	for (int64_t i = 0; i < m->n; i++)
		free((void *)m->source[i].point);
	free(m->source);
	free(m->before);
	free(m->count);
	free(m->owed);
	free(m);
}

/* One row more (or less, by < 0) to the source that is owed most (least) of those that have a share. */
static void give_row(struct lwm_shares *m, int by)
{
	int64_t best = -1;
	for (int64_t i = 0; i < m->n; i++)
		if (lwm_loader_share(&m->source[i], m->step) > 0 && m->count[i] + by >= 0 &&
		    (best < 0 || by * m->owed[i] > by * m->owed[best]))
			best = i;
	m->count[best] += by;
	m->owed[best] -= by;
}

static void next_step(struct lwm_shares *m)
{
	int64_t given = 0;
	double sum = 0;
	for (int64_t i = 0; i < m->n; i++)
		m->before[i] += m->count[i];
	m->step++;
	for (int64_t i = 0; i < m->n; i++)
		sum += lwm_loader_share(&m->source[i], m->step);
	for (int64_t i = 0; i < m->n; i++) {
		double share = lwm_loader_share(&m->source[i], m->step) / sum;
		m->owed[i] = share > 0 ? m->owed[i] + share * (double)m->rows : 0;
		m->count[i] = m->owed[i] > 0 ? (int64_t)floor(m->owed[i]) : 0;
		m->owed[i] -= (double)m->count[i];
		given += m->count[i];
	}
	for (; given < m->rows; given++)
		give_row(m, 1);
	for (; given > m->rows; given--)
		give_row(m, -1);
}

void lwm_shares_at(struct lwm_shares *m, int64_t step)
{
	if (step < m->step)
		rewind_shares(m);
	while (m->step < step)
		next_step(m);
}
