/* cases_dense.c - matrix product, element-wise ops, AdamW. */
#include <math.h>

#include "tests/kernels/ops.h"

#define N(a) ((int)(sizeof(a) / sizeof *(a)))

static const char sums[] = "fp32 sums of up to a few thousand products; bf16 keeps 8 bits";
static const char pointwise[] = "a few fp32 roundings, exp within 2 ulp; bf16 keeps 8 bits";

/* ---- matrix product ---- */

struct gemm {
	int m, n, k, pad;
	unsigned flags;
	float alpha;
};

static int matmul_to(struct ops_run *r, const struct gemm *g, int dtype)
{
	int ta = (g->flags & LK_TA) != 0, tb = (g->flags & LK_TB) != 0;
	struct lk_view a, b, c;

	ops_pad(r, g->pad);
	a = ops_in(r, OPS_ACT, 2, ta ? g->k : g->m, ta ? g->m : g->k);
	b = ops_in(r, OPS_ACT, 2, tb ? g->n : g->k, tb ? g->k : g->n);
	if (g->flags & LK_ACC)
		c = ops_inout(r, "c", dtype, 2, g->m, g->n);
	else
		c = ops_out(r, "c", dtype, 2, g->m, g->n);
	return lk_matmul(r->dev, &c, &a, &b, g->flags, g->alpha);
}

static int matmul(struct ops_run *r, const void *arg)
{
	return matmul_to(r, arg, OPS_ACT);
}

static int matmul_f32(struct ops_run *r, const void *arg)
{
	return matmul_to(r, arg, LK_F32);
}

static const struct gemm g_nn = { 33, 65, 17, 0, 0, 1.0f }, g_nt = { 70, 129, 64, 0, LK_TB, 0.5f },
			 g_tn = { 48, 31, 200, 0, LK_TA, 1.0f }, g_tt = { 19, 23, 29, 0, LK_TA | LK_TB, -1.5f },
			 g_acc = { 130, 96, 40, 5, LK_ACC, 1.0f }, g_acc_tn = { 96, 64, 130, 3, LK_TA | LK_ACC, 1.0f },
			 g_row = { 1, 300, 257, 0, LK_TB, 1.0f }, g_rows = { 3, 130, 77, 7, LK_TB | LK_ACC, 2.0f },
			 g_row_n = { 1, 300, 257, 0, 0, 1.0f }, g_some_n = { 7, 1100, 31, 3, LK_ACC, -0.5f },
			 g_some = { 13, 90, 100, 0, LK_TB, 1.0f }, g_col = { 300, 1, 64, 0, 0, 1.0f },
			 g_big = { 200, 300, 500, 0, LK_TB, 1.0f }, g_wide = { 20, 700, 64, 4, LK_TB, 1.0f },
			 g_split = { 150, 170, 90, 6, LK_TA | LK_ACC, 1.0f },
			 g_split_n = { 70, 400, 60, 1, 0, 2.0f },
			 g_few = { 1, 67, 256, 0, LK_TB, 1.0f }, g_few2 = { 2, 33, 1096, 8, LK_TB | LK_ACC, 0.5f },
			 g_few3 = { 3, 16, 2056, 0, LK_TB, 1.0f }, g_few4 = { 4, 131, 8, 8, LK_TB | LK_ACC, -1.0f },
			 g_thin = { 130, 24, 1, 0, LK_TA | LK_TB, 1.0f },
			 g_deep0 = { 5, 6, 0, 2, 0, 1.0f }, g_deep0_acc = { 5, 6, 0, 2, LK_ACC, 1.0f },
			 g_empty = { 0, 6, 4, 0, 0, 1.0f };

static int matmul_nan(struct ops_run *r, const void *arg)
{
	float x[6 * 5];
	struct lk_view a, b, c;

	(void)arg;
	for (int i = 0; i < 30; i++)
		x[i] = i == 7 ? NAN : i == 20 ? INFINITY : 0.25f * (float)i;
	a = ops_given_f32(r, OPS_ACT, x, 2, 6, 5);
	b = ops_in(r, OPS_ACT, 2, 5, 9);
	c = ops_out(r, "c", OPS_ACT, 2, 6, 9);
	return lk_matmul(r->dev, &c, &a, &b, 0, 1.0f);
}

/* More shapes than a backend may care to remember, then the first ones again. */
static int matmul_shapes(struct ops_run *r, const void *arg)
{
	struct lk_view a = ops_in(r, OPS_ACT, 2, 36, 8), b = ops_in(r, OPS_ACT, 2, 8, 36);
	struct lk_view c = ops_inout(r, "c", LK_F32, 2, 36, 36);

	(void)arg;
	for (int round = 0; round < 2; round++)
		for (int m = 1; m <= (round ? 2 : 30); m++)
			for (int n = 1; n <= 36; n++) {
				int rc;

				a.n[0] = c.n[0] = m;
				b.n[1] = c.n[1] = n;
				rc = lk_matmul(r->dev, &c, &a, &b, LK_ACC, 0.125f);
				if (rc)
					return rc;
			}
	return 0;
}

/* ---- element-wise and reductions ---- */

static int zero_fill(struct ops_run *r, const void *arg)
{
	struct lk_view z = ops_out(r, "zeroed", LK_F32, 1, 1003), f = ops_out(r, "filled", LK_F32, 1, 77);
	int rc = lk_zero(r->dev, z.data, 1003 * sizeof(float));

	(void)arg;
	return rc ? rc : lk_fill(r->dev, f.data, 77, -2.5f);
}

static int copy(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_in(r, LK_F32, 1, 999), y = ops_out(r, "y", LK_F32, 1, 999);

	(void)arg;
	return lk_copy(r->dev, y.data, x.data, 999 * sizeof(float));
}

static int cast(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_in(r, LK_F32, 2, 9, 117), h = ops_out(r, "bf16", LK_BF16, 2, 9, 117);
	struct lk_view back = ops_out(r, "back", LK_F32, 1, 9 * 117), same = ops_out(r, "same", LK_F32, 2, 9, 117);
	int rc = lk_cast(r->dev, &h, &x);

	(void)arg;
	if (!rc)
		rc = lk_cast(r->dev, &back, &h);
	return rc ? rc : lk_cast(r->dev, &same, &x);
}

static int cast_odd_numbers(struct ops_run *r, const void *arg)
{
	static const float odd[] = { NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 3.4e38f, 1e-40f, 1.00390625f, 1.01171875f };
	struct lk_view x = ops_given_f32(r, LK_F32, odd, 1, N(odd)), h = ops_out(r, "bf16", LK_BF16, 1, N(odd));

	(void)arg;
	return lk_cast(r->dev, &h, &x);
}

static int axpy_scale(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_in(r, LK_F32, 1, 1030), h = ops_in(r, OPS_ACT, 1, 1030);
	struct lk_view y = ops_inout(r, "y", LK_F32, 1, 1030), z = ops_inout(r, "z", OPS_ACT, 1, 1030);
	int rc = lk_axpy(r->dev, &y, 0.37f, &x);

	(void)arg;
	if (!rc)
		rc = lk_axpy(r->dev, &y, -1.5f, &h);
	if (!rc)
		rc = lk_axpy(r->dev, &z, 2.0f, &x);
	if (!rc)
		rc = lk_scale(r->dev, &z, 0.75f);
	return rc ? rc : lk_scale(r->dev, &y, -3.0f);
}

/* From the `at`-th element of v on. */
static struct lk_view slice(const struct lk_view *v, int64_t at)
{
	return lk_view1((char *)v->data + at * (int64_t)lk_dtype_size(v->dtype), v->dtype, v->n[0] - at);
}

/* Arrays that begin and end anywhere: at the same place in a vector, and not. */
static int slices(struct ops_run *r, const void *arg)
{
	static const int at[][2] = { { 3, 3 }, { 3, 7 }, { 1, 2 }, { 8, 0 } };
	struct lk_view x = ops_in(r, LK_F32, 1, 530), h = ops_in(r, OPS_ACT, 1, 530);

	(void)arg;
	for (int i = 0; i < N(at); i++) {
		struct lk_view y = ops_zeros(r, "y", LK_F32, 1, 530), z = ops_zeros(r, "z", OPS_ACT, 1, 530);
		struct lk_view xs = slice(&x, at[i][0]), hs = slice(&h, at[i][0]);
		struct lk_view ys = slice(&y, at[i][1]), zs = slice(&z, at[i][1]);
		int64_t n = (xs.n[0] < ys.n[0] ? xs.n[0] : ys.n[0]) - i;
		double sum;
		int rc;

		xs.n[0] = hs.n[0] = ys.n[0] = zs.n[0] = n;
		rc = lk_fill(r->dev, ys.data, n - 7, 0.5f);
		if (!rc)
			rc = lk_axpy(r->dev, &ys, 0.25f, &hs);
		if (!rc)
			rc = lk_cast(r->dev, &zs, &xs);
		if (!rc)
			rc = lk_axpy(r->dev, &zs, 2.0f, &hs);
		if (!rc)
			rc = lk_scale(r->dev, &ys, -3.0f);
		if (!rc)
			rc = lk_sumsq(r->dev, xs.data, n, &sum);
		if (rc)
			return rc;
		ops_value(r, "sum", sum);
	}
	return 0;
}

static int sumsq(struct ops_run *r, const void *arg)
{
	const int *n = arg;
	struct lk_view x;
	double sum;
	int rc;

	ops_scale(r, 30.0);
	x = ops_in(r, LK_F32, 1, *n);
	rc = lk_sumsq(r->dev, x.data, *n, &sum);
	ops_value(r, "sum", sum);
	return rc;
}

static int sumsq_nan(struct ops_run *r, const void *arg)
{
	static const float odd[] = { 1, 2, 3, NAN, 5 }, inf[] = { 1, INFINITY, 2 };
	struct lk_view x = ops_given_f32(r, LK_F32, odd, 1, N(odd)), y = ops_given_f32(r, LK_F32, inf, 1, N(inf));
	double sum;
	int rc = lk_sumsq(r->dev, x.data, N(odd), &sum);

	(void)arg;
	ops_value(r, "of NaN", sum);
	if (!rc)
		rc = lk_sumsq(r->dev, y.data, N(inf), &sum);
	ops_value(r, "of Inf", sum);
	return rc;
}

static const int n_small = 5, n_large = 300001;

/* ---- AdamW ---- */

static int adamw(struct ops_run *r, const void *arg)
{
	const int *n = arg;
	struct lk_adamw_cfg cfg = { 3e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 0.5f, 0.271, 0.142625 };
	struct lk_view g = ops_in(r, LK_F32, 1, *n), p = ops_inout(r, "p", LK_F32, 1, *n);
	struct lk_view m = ops_inout(r, "m", LK_F32, 1, *n), v = ops_zeros(r, "v", LK_F32, 1, *n);
	struct lk_view pc = ops_out(r, "p_compute", OPS_ACT, 1, *n);
	int rc = lk_adamw(r->dev, p.data, m.data, v.data, g.data, pc.data, *n, &cfg);

	return rc ? rc : lk_adamw(r->dev, p.data, m.data, v.data, g.data, NULL, *n, &cfg);
}

/* A piece of the parameters, beginning anywhere; p_compute at the same place of a vector, or not. */
static int adamw_piece(struct ops_run *r, const void *arg)
{
	const int *shift = arg;
	struct lk_adamw_cfg cfg = { 1e-3f, 0.9f, 0.95f, 1e-8f, 0.0f, 1.0f, 0.1, 0.05 };
	struct lk_view g = ops_in(r, LK_F32, 1, 700), p = ops_inout(r, "p", LK_F32, 1, 700);
	struct lk_view m = ops_inout(r, "m", LK_F32, 1, 700), v = ops_zeros(r, "v", LK_F32, 1, 700);
	struct lk_view pc = ops_zeros(r, "p_compute", OPS_ACT, 1, 700 + *shift);
	struct lk_view gs = slice(&g, 5), ps = slice(&p, 5), ms = slice(&m, 5), vs = slice(&v, 5), cs = slice(&pc, 5 + *shift);

	return lk_adamw(r->dev, ps.data, ms.data, vs.data, gs.data, cs.data, 601, &cfg);
}

static const int n_adam = 4099, shift_none = 0, shift_one = 1;

#define CMP(name, run, arg, tol32, tol16, why) { name, OPS_CMP, run, arg, tol32, tol16, why }

static const struct ops_case cases[] = {
	CMP("matmul 33x65x17", matmul, &g_nn, 1e-6, 4e-3, sums),
	CMP("matmul 70x129x64 TB", matmul, &g_nt, 1e-6, 4e-3, sums),
	CMP("matmul 48x31x200 TA", matmul, &g_tn, 1e-6, 4e-3, sums),
	CMP("matmul 19x23x29 TA TB", matmul, &g_tt, 1e-6, 4e-3, sums),
	CMP("matmul 130x96x40 ACC padded", matmul, &g_acc, 1e-6, 4e-3, sums),
	CMP("matmul 96x64x130 TA ACC padded into fp32", matmul_f32, &g_acc_tn, 1e-6, 1e-5, sums),
	CMP("matmul 1x300x257 TB", matmul, &g_row, 1e-6, 4e-3, sums),
	CMP("matmul 3x130x77 TB ACC padded", matmul, &g_rows, 1e-6, 4e-3, sums),
	CMP("matmul 1x300x257", matmul, &g_row_n, 1e-6, 4e-3, sums),
	CMP("matmul 7x1100x31 ACC padded", matmul, &g_some_n, 1e-6, 4e-3, sums),
	CMP("matmul 13x90x100 TB", matmul, &g_some, 1e-6, 4e-3, sums),
	CMP("matmul 300x1x64", matmul, &g_col, 1e-6, 4e-3, sums),
	CMP("matmul 200x300x500 TB into fp32", matmul_f32, &g_big, 2e-6, 1e-5, sums),
	CMP("matmul 20x700x64 TB padded", matmul, &g_wide, 1e-6, 4e-3, sums),
	CMP("matmul 150x170x90 TA ACC padded", matmul, &g_split, 1e-6, 4e-3, sums),
	CMP("matmul 70x400x60 padded", matmul, &g_split_n, 1e-6, 4e-3, sums),
	CMP("matmul 1x67x256 TB", matmul, &g_few, 1e-6, 4e-3, sums),
	CMP("matmul 2x33x1096 TB ACC padded into fp32", matmul_f32, &g_few2, 1e-6, 1e-5, sums),
	CMP("matmul 3x16x2056 TB", matmul, &g_few3, 1e-6, 4e-3, sums),
	CMP("matmul 4x131x8 TB ACC padded", matmul, &g_few4, 1e-6, 4e-3, sums),
	CMP("matmul 130x24x1 TA TB", matmul, &g_thin, 1e-6, 4e-3, sums),
	CMP("matmul of depth 0", matmul, &g_deep0, 0, 0, "exact"),
	CMP("matmul of depth 0 ACC", matmul, &g_deep0_acc, 0, 0, "exact"),
	CMP("matmul of no rows", matmul, &g_empty, 0, 0, "exact"),
	CMP("matmul of 1080 shapes", matmul_shapes, NULL, 5e-6, 1e-5, "a thousand fp32 sums"),
	CMP("matmul with NaN and Inf", matmul_nan, NULL, 1e-6, 4e-3, sums),
	CMP("zero and fill", zero_fill, NULL, 0, 0, "exact"),
	CMP("copy", copy, NULL, 0, 0, "exact"),
	CMP("cast to bf16 and back", cast, NULL, 0, 0, "rounding to nearest even is defined to the bit"),
	CMP("cast of odd numbers", cast_odd_numbers, NULL, 0, 0, "rounding to nearest even is defined to the bit"),
	CMP("axpy and scale", axpy_scale, NULL, 1e-7, 8e-3, pointwise),
	CMP("slices of arrays", slices, NULL, 1e-6, 8e-3, pointwise),
	CMP("sumsq of 5", sumsq, &n_small, 1e-14, 1e-14, "fp64 sums"),
	CMP("sumsq of 300001", sumsq, &n_large, 1e-12, 1e-12, "fp64 sums in another order"),
	CMP("sumsq with NaN and Inf", sumsq_nan, NULL, 0, 0, "not finite"),
	CMP("adamw 4099", adamw, &n_adam, 1e-6, 4e-3, pointwise),
	CMP("adamw of a piece", adamw_piece, &shift_none, 1e-6, 4e-3, pointwise),
	CMP("adamw of a piece, odd p_compute", adamw_piece, &shift_one, 1e-6, 4e-3, pointwise),
	CMP("adamw 5", adamw, &n_small, 1e-6, 4e-3, pointwise),
};

const struct ops_family ops_family_dense = { "dense", cases, N(cases) };
