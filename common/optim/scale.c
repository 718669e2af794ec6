/* The scale of the loss where gradients are formed in fp16. */
#include "common/optim/scale.h"

#include <inttypes.h>
#include <math.h>

#include "common/base/log.h"

#define LEAST 0x1p-24 /* below, what fits is as small as what is lost above */
#define MOST 0x1p40

static bool power_of_two(double x)
{
	int exponent;
	return x > 0 && isfinite(x) && frexp(x, &exponent) == 0.5;
}

static int check_scale(const char *option, double x, struct lwm_err *e)
{
	if (power_of_two(x) && x >= LEAST && x <= MOST)
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "%s %g: a scale must be a power of two from 2^-24 to 2^40, by which nothing is rounded", option, x);
}

int lwm_scale_check(const struct lwm_scaling *c, struct lwm_err *e)
{
	if (c->fixed != 0)
		LWM_TRY(check_scale("--loss-scale", c->fixed, e));
	LWM_TRY(check_scale("--loss-scale-first", c->first, e));
	if (!power_of_two(c->backoff) || c->backoff >= 1)
		return lwm_fail(e, LWM_ECONFIG, "--loss-scale-backoff %g: must be 0.5, 0.25 or another power of two below 1", c->backoff);
	return 0;
}

struct lwm_scale_state lwm_scale_begin(const struct lwm_scaling *c)
{
	return (struct lwm_scale_state){ .scale = c->fixed > 0 ? c->fixed : c->first };
}

bool lwm_scale_overflowed(const struct lwm_scaling *c, const struct lwm_scale_state *st, double loss, double norm)
{
	return st->scale > LEAST && c->fixed == 0 && isfinite(loss) && !isfinite(norm);
}

void lwm_scale_back_off(const struct lwm_scaling *c, struct lwm_scale_state *st, int64_t step)
{
	double before = st->scale;
	st->scale = fmax(before * c->backoff, LEAST);
	st->good = 0;
	st->overflows++;
	lwm_log(LWM_INFO, "step %" PRId64 ": gradients of the loss times %g are too large for fp16: no update, from now on times %g", step,
		before, st->scale);
}

void lwm_scale_note(const struct lwm_scaling *c, struct lwm_scale_state *st)
{
	if (st->scale <= 0 || c->fixed > 0 || ++st->good < c->interval)
		return;
	st->good = 0;
	st->scale = fmin(2 * st->scale, MOST);
}
