/* vqgan_init.c - first weights of the frame tokenizer. */
#include <math.h>
#include <string.h>

#include "common/base/hash.h"
#include "common/base/rng.h"
#include "common/model/vqgan.h"

static float initial(const struct lwm_vqgan_param *p, struct lwm_rng *r)
{
	double fan_in = (double)(p->shape[1] * p->shape[2] * p->shape[3]);
	double u = 2 * lwm_rng_double(r) - 1;
	switch (p->kind) {
	case LWM_VQ_CONV:
		/* A residual branch starts small: the net begins nearly linear and does not fall into a grey mean. */
		return (float)(u * sqrt(3 / fan_in) * (strstr(p->name, ".conv2.") ? 0.1 : 1));
	case LWM_VQ_CODEBOOK:
		return (float)(u / (double)p->shape[0]);
	case LWM_VQ_SCALE:
		return 1;
	default:
		return 0;
	}
}

void lwm_vqgan_init(const struct lwm_vqgan_params *p, uint64_t seed, float *flat)
{
	memset(flat, 0, (size_t)p->floats * sizeof *flat);
	for (int64_t i = 0; i < p->n; i++) {
		const struct lwm_vqgan_param *q = &p->v[i];
		struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_INIT, lwm_hash64(q->name, strlen(q->name), 0), 0);
		for (int64_t j = 0; j < q->count; j++)
			flat[q->offset + j] = initial(q, &r);
	}
}
