/* loss.hot.c - the two passes over a row of logits. */
#include <math.h>

#include "kernels/cpu/dense_int.h"
#include "kernels/cpu/vmath.h"

static float row_max(const float *x, int64_t n)
{
	vf m[4] = { lk_vset(-INFINITY), lk_vset(-INFINITY), lk_vset(-INFINITY), lk_vset(-INFINITY) };
	int64_t j = 0;

	for (; j + 4 * LK_VEC <= n; j += 4 * LK_VEC)
		for (int k = 0; k < 4; k++)
			m[k] = lk_vmax(m[k], lk_vload(x + j + k * LK_VEC));
	for (; j < n; j += LK_VEC)
		m[0] = lk_vmax(m[0], lk_vload_n(x + j, n - j < LK_VEC ? n - j : LK_VEC, -INFINITY));
	return lk_vmaxlane(lk_vmax(lk_vmax(m[0], m[1]), lk_vmax(m[2], m[3])));
}

static float row_exp(float *x, float max, int64_t n, int store)
{
	vf s[4] = { { 0 } };
	int64_t j = 0;

	for (; j + 4 * LK_VEC <= n; j += 4 * LK_VEC) {
		for (int k = 0; k < 4; k++) {
			vf e = lk_vexp(lk_vload(x + j + k * LK_VEC) - max);

			if (store)
				lk_vstore(x + j + k * LK_VEC, e);
			s[k] += e;
		}
	}
	for (; j < n; j += LK_VEC) {
		int64_t left = n - j < LK_VEC ? n - j : LK_VEC;
		vf e = lk_vexp(lk_vload_n(x + j, left, -INFINITY) - max);

		if (store)
			lk_vstore_n(x + j, e, left);
		if (left < LK_VEC) { // the lanes past the row are 0, or NaN where max is infinite
			float t[LK_VEC];

			lk_vstore(t, e);
			e = lk_vload_n(t, left, 0.0f);
		}
		s[0] += e;
	}
	return lk_vsum((s[0] + s[1]) + (s[2] + s[3]));
}

void LK_ISA_NAME(lk_loss_hot)(struct lk_dense_hot *h)
{
	h->row_max = row_max;
	h->row_exp = row_exp;
}
