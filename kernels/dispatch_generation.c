/* dispatch_generation.c - generation.h: each op checks its arguments and calls the backend. */
#include <inttypes.h>
#include <math.h>

#include "kernels/check.h"

enum { STORED = 1u << LK_BF16 | 1u << LK_I8 };

static void check_stored(struct lk_check *k, const struct lk_view *wide, const char *wname, const struct lk_view *stored,
			 const char *sname, const float *scale, int64_t scale_stride)
{
	lk_check_view(k, wname, wide, 3, lk_act(k->dev), 0);
	lk_check_view(k, sname, stored, 3, STORED, 0);
	LK_WANT(k, lk_same(wide, stored), "x and y differ in shape");
	LK_WANT(k, (stored->dtype == LK_I8) == (scale != NULL), "scales belong to 8-bit values, and to them alone");
	LK_WANT(k, !scale || scale_stride >= stored->n[1], "rows of %" PRId64 " scales lie %" PRId64 " apart", stored->n[1],
		scale_stride);
	if (!k->rc)
		lk_check_apart(k, "y", wide, "x", stored);
}

int lk_kv_store(struct lk_dev *dev, const struct lk_view *y, float *scale, int64_t scale_stride, const struct lk_view *x)
{
	struct lk_check k = { dev, "kv_store", 0 };

	check_stored(&k, x, "x", y, "y", scale, scale_stride);
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, generation, kv_store, dev, y, scale, scale_stride, x);
}

int lk_kv_load(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const float *scale,
	       int64_t scale_stride)
{
	struct lk_check k = { dev, "kv_load", 0 };

	check_stored(&k, y, "y", x, "x", scale, scale_stride);
	if (k.rc || !lk_count(y))
		return k.rc;
	return LK_CALL(dev, generation, kv_load, dev, y, x, scale, scale_stride);
}

int lk_draw(struct lk_dev *dev, const struct lk_view *logits, const struct lk_draw_cfg *how, const double *host_u,
	    int32_t *host_id, double *host_logprob)
{
	struct lk_check k = { dev, "draw", 0 };

	lk_check_view(&k, "logits", logits, 2, 1u << LK_F32, 0);
	LK_WANT(&k, how && host_u && host_id, "an argument is NULL");
	LK_WANT(&k, how->first >= 0 && how->first < how->last && how->last <= logits->n[1] && logits->n[1] < INT32_MAX,
		"columns %" PRId64 " to %" PRId64 " of %" PRId64, how->first, how->last, logits->n[1]);
	LK_WANT(&k, how->temperature >= 0 && isfinite(how->temperature) && how->top_k >= 0 && how->top_p > 0 &&
		how->top_p <= 1, "temperature %g, top-k %" PRId64 ", top-p %g", how->temperature, how->top_k, how->top_p);
	for (int64_t i = 0; !k.rc && i < logits->n[0]; i++)
		LK_WANT(&k, host_u[i] >= 0 && host_u[i] < 1, "random number %" PRId64 " is %g, outside [0,1)", i, host_u[i]);
	if (k.rc || !logits->n[0])
		return k.rc;
	return LK_CALL(dev, generation, draw, dev, logits, how, host_u, host_id, host_logprob);
}
