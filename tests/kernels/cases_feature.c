/* cases_feature.c - leaky relu, pooling, distance of features. */
#include <stdio.h>

#include "tests/kernels/ops.h"

#define N(a) ((int)(sizeof(a) / sizeof *(a)))

static const char exact[] = "one multiplication, or none";
static const char sums[] = "fp32 sums over the channels of a pixel";

/* ---- leaky relu ---- */

static const float relu_slope = 0.0f, leak_slope = 0.2f;

static int leaky(struct ops_run *r, const void *arg)
{
	float slope = *(const float *)arg;
	struct lk_view x = ops_in(r, OPS_ACT, 4, 2, 13, 17, 41), y = ops_out(r, "y", OPS_ACT, 4, 2, 13, 17, 41);
	struct lk_view dy = ops_in(r, OPS_ACT, 4, 2, 13, 17, 41), dx = ops_out(r, "dx", OPS_ACT, 4, 2, 13, 17, 41);
	int rc = lk_leaky_fwd(r->dev, &y, &x, slope);

	return rc ? rc : lk_leaky_bwd(r->dev, &dx, &dy, &y, slope);
}

static int leaky_in_place(struct ops_run *r, const void *arg)
{
	float slope = *(const float *)arg;
	struct lk_view x = ops_inout(r, "x", OPS_ACT, 2, 3, 9001), d = ops_inout(r, "d", OPS_ACT, 2, 3, 9001);
	int rc = lk_leaky_fwd(r->dev, &x, &x, slope);

	return rc ? rc : lk_leaky_bwd(r->dev, &d, &d, &x, slope);
}

static int leaky_grad(struct ops_run *r, const void *arg)
{
	float slope = *(const float *)arg;
	struct lk_view x = ops_var(r, "x", 2, 3, 9), y = ops_out(r, "y", LK_F32, 2, 3, 9), dy = ops_in(r, LK_F32, 2, 3, 9), dx;
	int rc = lk_leaky_fwd(r->dev, &y, &x, slope);

	ops_loss(r, &y, &dy);
	if (!rc && r->want_grad) {
		dx = ops_out(r, "dx", LK_F32, 2, 3, 9);
		rc = lk_leaky_bwd(r->dev, &dx, &dy, &y, slope);
		ops_grad(r, "x", &dx);
	}
	return rc;
}

static int bad_slope(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_in(r, OPS_ACT, 1, 8);

	(void)arg;
	return lk_leaky_fwd(r->dev, &x, &x, -0.5f);
}

/* ---- pooling ---- */

struct image {
	int n, h, w, c;
};

static int pool(struct ops_run *r, const void *arg)
{
	const struct image *g = arg;
	struct lk_view x = ops_in(r, OPS_ACT, 4, g->n, g->h, g->w, g->c);
	struct lk_view y = ops_out(r, "y", OPS_ACT, 4, g->n, g->h / 2, g->w / 2, g->c);
	struct lk_view dy = ops_in(r, OPS_ACT, 4, g->n, g->h / 2, g->w / 2, g->c);
	struct lk_view dx = ops_out(r, "dx", OPS_ACT, 4, g->n, g->h, g->w, g->c);
	int rc = lk_maxpool_fwd(r->dev, &y, &x);

	return rc ? rc : lk_maxpool_bwd(r->dev, &dx, &dy, &x);
}

/* Zeros, as behind a relu: of four equal ones the first gets the gradient, of two the one before. */
static int pool_ties(struct ops_run *r, const void *arg)
{
	static const float x[] = { 0, 0, 0, 0, 1, 2, 2, 1, 1, 3, 3, 3 }, dy[] = { 5, 6, 7 };
	static const float want[] = { 5, 0, 0, 0, 0, 6, 0, 0, 0, 7, 0, 0 };
	struct lk_view xv = ops_given_f32(r, OPS_ACT, x, 4, 3, 2, 2, 1), d = ops_given_f32(r, OPS_ACT, dy, 4, 3, 1, 1, 1);
	struct lk_view dx = ops_out(r, "dx", OPS_ACT, 4, 3, 2, 2, 1), all = ops_out(r, "all", LK_F32, 4, 3, 2, 2, 1);
	float got[N(want)];
	int rc = lk_maxpool_bwd(r->dev, &dx, &d, &xv);

	(void)arg;
	if (!rc)
		rc = lk_cast(r->dev, &all, &dx);
	if (!rc)
		rc = lk_download(r->dev, got, all.data, sizeof got);
	for (int i = 0; !rc && i < N(want); i++)
		if (got[i] != want[i])
			snprintf(r->why, sizeof r->why, "element %d has %g, not %g", i, (double)got[i], (double)want[i]);
	return rc;
}

/* Numbers far enough from each other that no difference makes another one the largest. */
static int pool_grad(struct ops_run *r, const void *arg)
{
	static float apart[2 * 5 * 4 * 3];
	struct lk_view x = ops_var(r, "x", 4, 2, 5, 4, 3), y = ops_out(r, "y", LK_F32, 4, 2, 2, 2, 3);
	struct lk_view dy = ops_in(r, LK_F32, 4, 2, 2, 2, 3), dx, sum;
	int rc;

	(void)arg;
	for (int i = 0; i < N(apart); i++)
		apart[i] = 2.5f * (float)(((i / 12 & 1) * 2 + (i / 3 & 1) + i) % 4);
	sum = ops_given_f32(r, LK_F32, apart, 4, 2, 5, 4, 3);
	rc = lk_axpy(r->dev, &x, 1, &sum);
	if (!rc)
		rc = lk_maxpool_fwd(r->dev, &y, &x);
	ops_loss(r, &y, &dy);
	if (!rc && r->want_grad) {
		dx = ops_out(r, "dx", LK_F32, 4, 2, 5, 4, 3);
		rc = lk_maxpool_bwd(r->dev, &dx, &dy, &x);
		ops_grad(r, "x", &dx);
	}
	return rc;
}

static int bad_pool(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_in(r, OPS_ACT, 4, 1, 4, 4, 2), y = ops_in(r, OPS_ACT, 4, 1, 2, 3, 2);

	(void)arg;
	return lk_maxpool_fwd(r->dev, &y, &x);
}

static const struct image p_even = { 2, 12, 18, 24 }, p_odd = { 3, 7, 11, 5 }, p_small = { 1, 2, 2, 1 };

/* ---- distance of features ---- */

static int feature(struct ops_run *r, const void *arg)
{
	const struct image *g = arg;
	struct lk_view x = ops_in(r, OPS_ACT, 4, g->n, g->h, g->w, g->c), t = ops_in(r, OPS_ACT, 4, g->n, g->h, g->w, g->c);
	struct lk_view w = ops_in(r, LK_F32, 1, g->c), dx = ops_out(r, "dx", OPS_ACT, 4, g->n, g->h, g->w, g->c);
	double with, alone;
	int rc = lk_feature_loss(r->dev, &dx, &x, &t, w.data, 0.5f, &with);

	if (!rc)
		rc = lk_feature_loss(r->dev, NULL, &x, &t, w.data, 3.0f, &alone);
	if (rc)
		return rc;
	ops_value(r, "loss", with);
	if (alone != with)
		snprintf(r->why, sizeof r->why, "the loss without a gradient differs");
	return 0;
}

/* By hand: |x| = 5 and |t| = 10, so (0.6, 0.8) - (0.8, 0.6) weighs 2 * 0.04 + 3 * 0.04; of a pixel of zeros t's weights are
 * left. */
static int feature_by_hand(struct ops_run *r, const void *arg)
{
	static const float x[] = { 3, 4, 0, 0 }, t[] = { 8, 6, 0, 7 }, w[] = { 2, 3 };
	struct lk_view xv = ops_given_f32(r, OPS_ACT, x, 4, 1, 1, 2, 2), tv = ops_given_f32(r, OPS_ACT, t, 4, 1, 1, 2, 2);
	struct lk_view wv = ops_given_f32(r, LK_F32, w, 1, 2), dx = ops_out(r, "dx", OPS_ACT, 4, 1, 1, 2, 2);
	double loss;
	int rc = lk_feature_loss(r->dev, &dx, &xv, &tv, wv.data, 1, &loss);

	(void)arg;
	if (!rc && !(loss > 1.6 - 1e-5 && loss < 1.6 + 1e-5))
		snprintf(r->why, sizeof r->why, "the loss is %g, not (0.2 + 3) / 2", loss);
	return rc;
}

static int feature_grad(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_var(r, "x", 4, 2, 2, 3, 5), t = ops_in(r, LK_F32, 4, 2, 2, 3, 5);
	struct lk_view w = ops_in(r, LK_F32, 1, 5), dx;
	double l;
	int rc;

	(void)arg;
	dx = ops_out(r, "dx", LK_F32, 4, 2, 2, 3, 5);
	rc = lk_feature_loss(r->dev, &dx, &x, &t, w.data, 1.5f, &l);
	r->loss += 1.5 * l;
	if (!rc && r->want_grad)
		ops_grad(r, "x", &dx);
	return rc;
}

static int bad_feature(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_in(r, OPS_ACT, 4, 1, 2, 2, 3), t = ops_in(r, OPS_ACT, 4, 1, 2, 3, 2), w = ops_in(r, LK_F32, 1, 3);
	double l;

	(void)arg;
	return lk_feature_loss(r->dev, NULL, &x, &t, w.data, 1, &l);
}

static const struct image f_small = { 1, 2, 3, 2 }, f_wide = { 2, 9, 7, 70 }, f_large = { 1, 40, 60, 24 };

#define CMP(name, run, arg, tol32, tol16, why) { name, OPS_CMP, run, arg, tol32, tol16, why }
#define GRAD(name, run, arg) { name, OPS_GRAD, run, arg, 5e-3, 0, "central differences of an fp32 loss" }
#define BAD(name, run) { name, OPS_BAD, run, NULL, 0, 0, NULL }

static const struct ops_case cases[] = {
	CMP("relu", leaky, &relu_slope, 0, 0, exact),
	CMP("leaky relu", leaky, &leak_slope, 1e-7, 4e-3, exact),
	CMP("leaky relu in place", leaky_in_place, &leak_slope, 1e-7, 4e-3, exact),
	CMP("maxpool", pool, &p_even, 0, 0, exact),
	CMP("maxpool odd", pool, &p_odd, 0, 0, exact),
	CMP("maxpool of four pixels", pool, &p_small, 0, 0, exact),
	CMP("maxpool of equals", pool_ties, NULL, 0, 0, exact),
	CMP("feature_loss 2 channels", feature, &f_small, 2e-6, 8e-3, sums),
	CMP("feature_loss 70 channels", feature, &f_wide, 2e-6, 8e-3, sums),
	CMP("feature_loss 2400 pixels", feature, &f_large, 2e-6, 8e-3, sums),
	CMP("feature_loss by hand", feature_by_hand, NULL, 1e-6, 8e-3, sums),
	GRAD("relu gradient", leaky_grad, &relu_slope), GRAD("leaky relu gradient", leaky_grad, &leak_slope),
	GRAD("maxpool gradient", pool_grad, NULL), GRAD("feature_loss gradient", feature_grad, NULL),
	BAD("leaky relu of a negative slope", bad_slope), BAD("maxpool to another size", bad_pool),
	BAD("feature_loss of other images", bad_feature),
};

const struct ops_family ops_family_feature = { "feature", cases, N(cases) };
