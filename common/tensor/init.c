/* init.c - initial values, each a function of (seed, tensor name, element).
 *
 * Normal values are drawn in blocks of 64, each with a generator of its own, so that a piece costs no more than itself. Uniform
 * ones come from one generator for the whole tensor: a piece of those draws what comes before it and throws it away. Rows of a
 * given length have a generator each.
 */
#include <math.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/rng.h"
#include "common/tensor/range.h"

enum { DRAW = 64 }; /* elements that share one generator, drawn in order */

/* Elements [from, to) of block `block` of a tensor, which starts at element block * DRAW. */
static void draw_block(uint64_t seed, uint64_t tensor, double std, int64_t block, int64_t from, int64_t to, float *out)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_INIT, tensor, (uint64_t)block);

	for (int64_t i = block * DRAW; i < to; i++) {
		double x = std * lwm_rng_normal(&r);

		if (i >= from)
			out[i - from] = (float)x;
	}
}

static void draw_normal(const struct lwm_tensor *q, uint64_t seed, uint64_t tensor, int64_t from, int64_t to, float *out)
{
	int64_t b0 = from / DRAW, b1 = (to + DRAW - 1) / DRAW;

#pragma omp parallel for schedule(static) if (to - from > 1 << 16)
	for (int64_t b = b0; b < b1; b++) {
		int64_t lo = b * DRAW > from ? b * DRAW : from, hi = (b + 1) * DRAW < to ? (b + 1) * DRAW : to;

		draw_block(seed, tensor, q->value, b, lo, hi, out + (lo - from));
	}
}

static void draw_uniform(const struct lwm_tensor *q, uint64_t seed, uint64_t tensor, int64_t from, int64_t to, float *out)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_INIT, tensor, 0);
	double fan_in = (double)(q->count / q->shape[q->ndim - 1]);

	for (int64_t i = 0; i < to; i++) {
		double u = 2 * lwm_rng_double(&r) - 1;

		if (i >= from)
			out[i - from] = (float)(q->init == LWM_INIT_FAN_IN ? u * sqrt(3 / fan_in) * q->value : u / q->value);
	}
}

/* A row of normal numbers has no preferred direction. Twice through its generator: first for the length that it has. */
static void draw_rows(const struct lwm_tensor *q, uint64_t seed, uint64_t tensor, int64_t from, int64_t to, float *out)
{
	int64_t width = q->shape[q->ndim - 1];

#pragma omp parallel for schedule(static) if (to - from > 1 << 16)
	for (int64_t row = from / width; row < (to + width - 1) / width; row++) {
		struct lwm_rng first = lwm_rng_at(seed, LWM_RNG_INIT, tensor, (uint64_t)row), r = first;
		double sum = 0;

		for (int64_t i = 0; i < width; i++) {
			double x = lwm_rng_normal(&first);

			sum += x * x;
		}
		for (int64_t i = row * width; i < (row + 1) * width; i++) {
			double x = lwm_rng_normal(&r);

			if (i >= from && i < to)
				out[i - from] = (float)(q->value * x / sqrt(sum));
		}
	}
}

/* Elements [from, to) of one tensor. */
static void init_tensor(const struct lwm_tensor *q, uint64_t seed, int64_t from, int64_t to, float *out)
{
	uint64_t tensor = lwm_hash64(q->name, strlen(q->name), 0);

	if (q->init == LWM_INIT_NORMAL)
		draw_normal(q, seed, tensor, from, to, out);
	else if (q->init == LWM_INIT_ROWS)
		draw_rows(q, seed, tensor, from, to, out);
	else if (q->init != LWM_INIT_CONST)
		draw_uniform(q, seed, tensor, from, to, out);
	else
		for (int64_t i = from; i < to; i++)
			out[i - from] = (float)q->value;
}

void lwm_tensors_init(const struct lwm_tensors *p, uint64_t seed, int64_t first, int64_t n, float *out)
{
	int64_t from, take;

	memset(out, 0, (size_t)n * sizeof *out);
	for (int64_t i = 0; i < p->n; i++)
		if (lwm_tensor_overlap(&p->list[i], first, n, &from, &take)) {
			const struct lwm_tensor *q = &p->list[i];

			init_tensor(q, seed, from - q->offset, from - q->offset + take, out + (from - first));
		}
}
