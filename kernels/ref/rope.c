/* rope.c - rotary position embedding (Su et al. 2021): the pair (x[2i], x[2i+1]) of a head is turned by the angle
 * pos theta^(-2i/D), which is formed in fp64; the inverse turns back. */
#include <math.h>

#include "kernels/ref/ref_int.h"

static int rope(struct lk_dev *dev, const struct lk_view *x, const int32_t *pos, double theta, int inverse)
{
	int64_t d = x->n[2];

	(void)dev;
	for (int64_t t = 0; t < x->n[0]; t++) {
		for (int64_t i = 0; i < d / 2; i++) {
			double angle = pos[t] * pow(theta, -2.0 * (double)i / (double)d);
			double c = cos(angle), s = inverse ? -sin(angle) : sin(angle);

			for (int64_t h = 0; h < x->n[1]; h++) {
				float *p = lk_row(x, t) + h * x->stride[1] + 2 * i;
				double a = p[0], b = p[1];

				p[0] = (float)(a * c - b * s);
				p[1] = (float)(a * s + b * c);
			}
		}
	}
	return 0;
}

void lk_ref_fill_rope(struct lk_ops *o)
{
	o->dense.rope = rope;
}
