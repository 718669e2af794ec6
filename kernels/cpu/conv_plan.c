/* conv_plan.c - geometry and packed weights of the gather convolutions (see lk_conv_plan in image_int.h).
 *
 * Backward, one dimension: input row y is seen through rows u = up y + a, a in [0, up), of the doubled input, and
 * u = s o + k - pad for output row o and tap k. So o = (up y + a + pad - k) / s wherever that divides. Writing
 * y = os i + p with os = s / gcd(s, up), o = (up os / s) i + (up p + a + pad - k) / s: a step and, for each phase p,
 * consecutive offsets.
 */
#include "kernels/cpu/image_int.h"

#include <string.h>

static int32_t gcd(int32_t a, int32_t b)
{
	return b ? gcd(b, a % b) : a;
}

void lk_conv_plan_fwd(struct lk_conv_plan *p, const struct lk_conv_geom *g)
{
	struct lk_conv_plan q = { g->cin, g->cout, g->kh, g->kw, -g->pad_top, -g->pad_left, g->stride, g->upsample,
				  1, 0, 0, NULL };
	*p = q;
}

int lk_conv_plan_steps(const struct lk_conv_geom *g)
{
	return g->stride / gcd(g->stride, g->upsample);
}

/* Offset of (phase p, row a of the doubling, tap k), or 0 returned where it does not divide. */
static int tap_offset(int32_t s, int32_t up, int32_t pad, int32_t p, int32_t a, int32_t k, int32_t *off)
{
	int32_t num = up * p + a + pad - k;
	if (num % s)
		return 0;
	*off = num / s;
	return 1;
}

/* First offset and how many: they are consecutive because num runs through consecutive integers. */
static void tap_span(int32_t s, int32_t up, int32_t pad, int32_t p, int32_t taps, int32_t *first, int32_t *n)
{
	int32_t lo = INT32_MAX, hi = INT32_MIN, off;
	for (int32_t a = 0; a < up; a++) {
		for (int32_t k = 0; k < taps; k++) {
			if (!tap_offset(s, up, pad, p, a, k, &off))
				continue;
			lo = off < lo ? off : lo;
			hi = off > hi ? off : hi;
		}
	}
	*first = lo > hi ? 0 : lo;
	*n = lo > hi ? 0 : hi - lo + 1;
}

void lk_conv_plan_bwd(struct lk_conv_plan *p, const struct lk_conv_geom *g, int py, int px)
{
	int32_t os = lk_conv_plan_steps(g);
	struct lk_conv_plan q = { g->cout, g->cin, 0, 0, 0, 0, g->upsample * os / g->stride, 1, os, py, px, NULL };
	tap_span(g->stride, g->upsample, g->pad_top, py, g->kh, &q.fy, &q.ny);
	tap_span(g->stride, g->upsample, g->pad_left, px, g->kw, &q.fx, &q.nx);
	if (!q.ny || !q.nx)
		q.ny = q.nx = 0; /* no output looks at these pixels */
	*p = q;
}

int64_t lk_conv_plan_floats(const struct lk_conv_plan *p, int nr)
{
	return lk_round_up(p->cout, nr) * p->ny * p->nx * p->cin;
}

/* Rows of one backward tap (ey,ex): t (cout,cin) += w[ki,kj] transposed for every (a,k) pair that has this offset. */
static void sum_taps(float *t, const struct lk_conv_plan *p, const struct lk_conv_geom *g, const float *w, int32_t ey,
		     int32_t ex)
{
	int32_t oy, ox, up = g->upsample;
	memset(t, 0, (size_t)g->cin * (size_t)g->cout * sizeof *t);
	for (int32_t i = 0; i < up * up * g->kh * g->kw; i++) {
		int32_t kj = i % g->kw, ki = i / g->kw % g->kh, ab = i / (g->kw * g->kh);
		if (!tap_offset(g->stride, up, g->pad_top, p->py, ab / up, ki, &oy) || oy != p->fy + ey ||
		    !tap_offset(g->stride, up, g->pad_left, p->px, ab % up, kj, &ox) || ox != p->fx + ex)
			continue;
		const float *tap = w + (int64_t)(ki * g->kw + kj) * g->cin * g->cout;
		for (int64_t co = 0; co < g->cout; co++)
			for (int64_t ci = 0; ci < g->cin; ci++)
				t[co * g->cin + ci] += tap[ci * g->cout + co];
	}
}

int lk_conv_plan_pack(struct lk_dev *dev, struct lk_conv_plan *p, const struct lk_conv_geom *g, const float *w,
		      int backward)
{
	const struct lk_image_gemm *hot = lk_image_gemm_of(dev);
	int64_t taps = (int64_t)p->ny * p->nx, each = (int64_t)p->cin * p->cout, ldp = taps * p->cin * hot->nr;
	int threads = lk_cpu_of(dev)->threads;
	float *room = backward ? lk_cpu_scratch(dev, (size_t)(taps * each) * sizeof *room + 64) : NULL;
	if (backward && !room)
		return lk_fail(dev, LK_ENOMEM, "no memory for the turned weights of a convolution");
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int64_t t = 0; t < taps; t++) {
		const float *src = w + t * each;
		if (backward) {
			sum_taps(room + t * each, p, g, w, (int32_t)(t / p->nx), (int32_t)(t % p->nx));
			src = room + t * each;
		}
		hot->pack(p->cout, p->cin, src, p->cout, p->packed + t * p->cin * hot->nr, ldp);
	}
	return LK_OK;
}
