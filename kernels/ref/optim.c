/* optim.c - AdamW (Loshchilov & Hutter 2019), each element in fp64; the formula is in dense.h. */
#include <math.h>

#include "kernels/ref/ref_int.h"

static int adamw(struct lk_dev *dev, float *p, float *m, float *v, const float *g, void *p_compute, int64_t n,
		 const struct lk_adamw_cfg *cfg)
{
	double b1 = cfg->beta1, b2 = cfg->beta2;

	for (int64_t i = 0; i < n; i++) {
		double gi = (double)cfg->grad_scale * g[i], mi, vi, step;

		m[i] = (float)(b1 * m[i] + (1.0 - b1) * gi);
		v[i] = (float)(b2 * v[i] + (1.0 - b2) * gi * gi);
		mi = m[i] / cfg->bias1;
		vi = v[i] / cfg->bias2;
		step = mi / (sqrt(vi) + cfg->eps) + (double)cfg->weight_decay * p[i];
		p[i] = (float)(p[i] - cfg->lr * step);
		if (p_compute)
			lk_put(p_compute, dev->dtype, i, p[i]);
	}
	return 0;
}

void lk_ref_fill_optim(struct lk_ops *o)
{
	o->dense.adamw = adamw;
}
