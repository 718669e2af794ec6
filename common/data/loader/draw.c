/* Which row each global sample is: a pure function of sources, weights and seed (loader.h).
 *
 * Draws come in blocks of LWM_MIX_BLOCK. Of each block, source s has slots[s] draws (shares by largest remainder); a permutation by
 * (seed, block) says which. The k-th draw of a source is a row by another permutation, of (seed, epoch, source). Where shares
 * change, a block is a step, of which source s has as many draws as shares.c says.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/rng.h"
#include "common/data/loader/loader_int.h"

/* Shares of a block by largest remainder; a source with any weight gets at least one draw. */
int lwm_loader_plan_draws(struct lwm_loader *l, const struct lwm_loader_cfg *cfg, struct lwm_err *e)
{
	double total = 0;
	int64_t given = 0, n = cfg->nsources;
	LWM_TRY(lwm_shares_open(&l->shares, cfg, e));
	if (l->shares)
		return 0;
	for (int64_t i = 0; i < n; i++) {
		if (!(cfg->source[i].weight >= 0 && cfg->source[i].weight < 1e300))
			return lwm_fail(e, LWM_ECONFIG, "source '%s': its weight must be 0 or more",
					l->set.source[i].name);
		total += cfg->source[i].weight;
	}
	if (total == 0 || n == 1)
		return 0;
	if (n > LWM_MIX_BLOCK)
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " weighted sources, at most %d can be mixed", n,
				LWM_MIX_BLOCK);
	l->slots = calloc((size_t)n, sizeof *l->slots);
	double *left = calloc((size_t)n, sizeof *left);
	if (!l->slots || !left) {
		free(left);
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the mixture");
	}
	for (int64_t i = 0; i < n; i++) {
		double exact = cfg->source[i].weight / total * LWM_MIX_BLOCK;
		l->slots[i] = (int64_t)exact;
		if (l->slots[i] == 0 && exact > 0)
			l->slots[i] = 1;
		left[i] = exact - (double)l->slots[i];
		given += l->slots[i];
	}
	while (given != LWM_MIX_BLOCK) { /* the one that is furthest below (or above) its exact share */
		int64_t best = -1, step = given < LWM_MIX_BLOCK ? 1 : -1;
		double sign = (double)step;
		for (int64_t i = 0; i < n; i++)
			if (l->slots[i] > (step < 0) && (best < 0 || sign * left[i] > sign * left[best]))
				best = i;
		l->slots[best] += step;
		left[best] -= sign;
		given += step;
	}
	free(left);
	return 0;
}

/* Which source draw g is of, and its place among the draws of that source in the block. */
static int64_t source_of(const struct lwm_loader *l, int64_t g, int64_t *place)
{
	int64_t source = 0;
	*place = lwm_rng_permute(l->cfg.seed, LWM_RNG_MIX, (uint64_t)(g / LWM_MIX_BLOCK), LWM_MIX_BLOCK, g % LWM_MIX_BLOCK);
	while (*place >= l->slots[source])
		*place -= l->slots[source++];
	return source;
}

/* The same where shares change: draw g is of which source, and which of its draws over all steps. */
static int64_t draw_of(const struct lwm_loader *l, int64_t g, int64_t *source)
{
	int64_t step = g / l->cfg.rows_per_step, s = 0;
	int64_t place = lwm_rng_permute(l->cfg.seed, LWM_RNG_MIX, (uint64_t)step, l->cfg.rows_per_step, g % l->cfg.rows_per_step);
	lwm_shares_at(l->shares, step);
	while (place >= l->shares->count[s])
		place -= l->shares->count[s++];
	*source = s;
	return l->shares->before[s] + place;
}

void lwm_loader_count_rows(const struct lwm_loader *l, int64_t step, int64_t *counts)
{
	int64_t n = l->cfg.once ? l->cfg.once : l->cfg.rows_per_step, first = step * l->cfg.rows_per_step;
	if (l->shares)
		lwm_shares_at(l->shares, step);
	for (int64_t s = 0; s < l->set.nsources; s++)
		counts[s] = l->shares ? l->shares->count[s] : l->set.nsources == 1 ? n : 0;
	for (int64_t i = 0; i < n && l->set.nsources > 1 && !l->shares; i++)
		counts[lwm_loader_sample(l, first + i).source]++;
}

struct lwm_sample lwm_loader_sample(const struct lwm_loader *l, int64_t g)
{
	struct lwm_sample x = { 0, 0, 0 };
	int64_t k = g, rows = l->info.rows;
	if (l->held) {
		x.source = l->held[g].source;
		k = l->held[g].draw;
		rows = l->set.source[x.source].rows;
	} else if (l->shares) {
		k = draw_of(l, g, &x.source);
		rows = l->set.source[x.source].rows;
	} else if (l->slots) {
		int64_t place;
		x.source = source_of(l, g, &place);
		k = g / LWM_MIX_BLOCK * l->slots[x.source] + place;
		rows = l->set.source[x.source].rows;
	}
	x.epoch = k / rows;
	uint64_t stream = (uint64_t)x.epoch << 16 | (uint64_t)x.source;
	x.row = lwm_rng_permute(l->cfg.seed, LWM_RNG_ORDER, stream, rows, k % rows);
	if (!l->slots) /* one pool: find the source of the row */
		while (x.row >= l->set.source[x.source].rows)
			x.row -= l->set.source[x.source++].rows;
	return x;
}

/* Held-out rows of weighted sources: the draws in order, without those of a source that has no row left. */
static int draw_once(struct lwm_loader *l, struct lwm_err *e)
{
	int64_t n = 0, *drawn = calloc((size_t)l->set.nsources, sizeof *drawn);
	l->held = malloc((size_t)l->cfg.once * sizeof *l->held);
	if (!drawn || !l->held) {
		free(drawn);
		return lwm_fail(e, LWM_EMEMORY, "out of memory for the order of %" PRId64 " rows", l->cfg.once);
	}
	for (int64_t g = 0, place; n < l->cfg.once; g++) {
		int64_t s = source_of(l, g, &place);
		if (drawn[s] < l->set.source[s].rows)
			l->held[n++] = (struct lwm_loader_held){ s, drawn[s]++ };
	}
	free(drawn);
	return 0;
}

/* One step of whole microbatches on every rank, with room for all that counts. */
int lwm_loader_hold_out(struct lwm_loader *l, struct lwm_err *e)
{
	int64_t unit = l->cfg.ranks * l->cfg.micro_rows, all = 0;
	if (!l->cfg.once)
		return 0;
	for (int64_t i = 0; i < l->set.nsources; i++)
		all += !l->slots || l->slots[i] ? l->set.source[i].rows : 0;
	l->cfg.once = l->cfg.once < all ? l->cfg.once : all;
	l->cfg.rows_per_step = (l->cfg.once + unit - 1) / unit * unit;
	return l->slots ? draw_once(l, e) : 0;
}
