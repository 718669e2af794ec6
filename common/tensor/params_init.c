/* params_init.c - initial values, each a function of (seed, tensor name, element). */
#include <string.h>

#include "common/base/hash.h"
#include "common/base/rng.h"
#include "common/tensor/params.h"

enum { DRAW = 64 }; /* elements that share one generator, drawn in order */

/* Elements [from, to) of block `block` of a tensor, which starts at element block * DRAW. */
static void draw(uint64_t seed, uint64_t tensor, double std, int64_t block, int64_t from, int64_t to, float *out)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_INIT, tensor, (uint64_t)block);

	for (int64_t i = block * DRAW; i < to; i++) {
		double x = std * lwm_rng_normal(&r);

		if (i >= from)
			out[i - from] = (float)x;
	}
}

/* Elements [from, to) of one tensor. */
static void init_tensor(const struct lwm_param *q, uint64_t seed, int64_t from, int64_t to, float *out)
{
	uint64_t tensor = lwm_hash64(q->name, strlen(q->name), 0);
	int64_t b0 = from / DRAW, b1 = (to + DRAW - 1) / DRAW;

	if (q->init == LWM_INIT_CONST) {
		for (int64_t i = from; i < to; i++)
			out[i - from] = (float)q->value;
		return;
	}
#pragma omp parallel for schedule(static) if (to - from > 1 << 16)
	for (int64_t b = b0; b < b1; b++) {
		int64_t lo = b * DRAW > from ? b * DRAW : from, hi = (b + 1) * DRAW < to ? (b + 1) * DRAW : to;

		draw(seed, tensor, q->value, b, lo, hi, out + (lo - from));
	}
}

void lwm_params_init(const struct lwm_params *p, uint64_t seed, int64_t first, int64_t n, float *out)
{
	const struct lwm_param *q = lwm_params_at(p, first), *end = p->list + p->n;

	for (; n > 0 && q && q < end; q++) {
		int64_t from = first - q->offset, take = q->count - from < n ? q->count - from : n;

		init_tensor(q, seed, from, from + take, out);
		first += take;
		out += take;
		n -= take;
	}
}
