/* The learning rate of an update: a warm-up, then a constant, a cosine or a line. */
#include "common/optim/schedule.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

const char *const lwm_schedule_names[] = { "constant", "cosine", "linear", NULL };
const char *const lwm_warmup_names[] = { "one", "zero", NULL };

double lwm_schedule_rate(const struct lwm_schedule *s, int64_t steps, int64_t n)
{
	double span = (double)((s->decay_steps ? s->decay_steps : steps) - s->warmup_steps), x;
	if (n < s->warmup_steps)
		return s->init_lr + (s->lr - s->init_lr) * (double)(n + (s->warmup_from == LWM_FROM_ONE)) / (double)s->warmup_steps;
	x = span > 0 ? (double)(n - s->warmup_steps) / span : 1;
	if (x > 1)
		x = 1;
	switch (s->shape) {
	case LWM_COSINE:
		return s->min_lr + (s->lr - s->min_lr) * 0.5 * (1 + cos(3.141592653589793 * x));
	case LWM_LINEAR:
		return s->lr + (s->min_lr - s->lr) * x;
	default:
		return s->lr;
	}
}

int lwm_schedule_check(const struct lwm_schedule *s, struct lwm_err *e)
{
	if (s->decay_steps && s->decay_steps <= s->warmup_steps)
		return lwm_fail(e, LWM_EUSAGE, "--decay-steps %" PRId64 " end before the warm-up of %" PRId64 " steps does: they are "
				"counted from step 0", s->decay_steps, s->warmup_steps);
	return 0;
}
