/* Which updates are made: losses and norms that are not finite, spikes, and how many of them a run survives. */
#include "common/optim/guards.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"

enum { MAX_SKIPS = 10 }; /* in a row */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* Until the window is full nothing is a spike: the first norms of a run fall fast. */
static bool is_spike(const struct lwm_guards *g, const struct lwm_guard_state *st, double norm)
{
	double sorted[LWM_GUARD_WINDOW];
	if (g->spike_factor <= 0 || st->nrecent < LWM_GUARD_WINDOW)
		return false;
	memcpy(sorted, st->recent, sizeof sorted);
	qsort(sorted, LWM_GUARD_WINDOW, sizeof *sorted, compare_doubles);
	return norm > g->spike_factor * sorted[LWM_GUARD_WINDOW / 2];
}

bool lwm_guards_refuse(const struct lwm_guards *g, const struct lwm_guard_state *st, double loss, double norm)
{
	return !isfinite(loss) || !isfinite(norm) || is_spike(g, st, norm);
}

int lwm_guards_skip(struct lwm_guard_state *st, int64_t step, double loss, double norm, struct lwm_err *e)
{
	st->skipped++;
	if (++st->skips_in_row >= MAX_SKIPS || (st->skipped > 20 && st->skipped * 50 > step))
		return lwm_fail(e, LWM_ENUMERIC,
				"step %" PRId64 ": loss %g, gradient norm %g: %" PRId64
				" updates were skipped by now; lower the learning rate or look at the data",
				step, loss, norm, st->skipped);
	lwm_log(LWM_WARN, "step %" PRId64 ": loss %g, gradient norm %g: update skipped", step, loss, norm);
	return 0;
}

/* The window goes round by updates made, not by steps: a skipped one would leave a hole in it. */
void lwm_guards_note(struct lwm_guard_state *st, int64_t step, double norm)
{
	st->recent[(step - st->skipped) % LWM_GUARD_WINDOW] = norm;
	if (st->nrecent < LWM_GUARD_WINDOW)
		st->nrecent++;
	st->skips_in_row = 0;
}

double lwm_guards_clip(const struct lwm_guards *g, double norm)
{
	return g->clip > 0 && norm > g->clip ? g->clip / norm : 1;
}
