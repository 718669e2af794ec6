/* cases_transformer.c - the transformer's ops but attention. */
#include <math.h>

#include "tests/kernels/ops.h"

#define N(a) ((int)(sizeof(a) / sizeof *(a)))

static const char sums[] = "fp32 sums of up to a few thousand products; bf16 keeps 8 bits";
static const char pointwise[] = "a few fp32 roundings, exp within 2 ulp; bf16 keeps 8 bits";

/* ---- RMS norm ---- */

struct shape {
	int t, d, pad;
	int f32; /* 1: fp32 on every device */
};

static int act(const struct shape *s)
{
	return s->f32 ? LK_F32 : OPS_ACT;
}

static int rmsnorm(struct ops_run *r, const void *arg)
{
	const struct shape *s = arg;
	struct lk_view x, y, w = ops_in(r, act(s), 1, s->d), rstd = ops_out(r, "rstd", LK_F32, 1, s->t);

	ops_pad(r, s->pad);
	x = ops_in(r, act(s), 2, s->t, s->d);
	y = ops_out(r, "y", act(s), 2, s->t, s->d);
	return lk_rmsnorm_fwd(r->dev, &y, rstd.data, &x, NULL, &w, 1e-6f);
}

static int rmsnorm_residual(struct ops_run *r, const void *arg)
{
	const struct shape *s = arg;
	struct lk_view x, delta, y, w = ops_in(r, act(s), 1, s->d), rstd = ops_out(r, "rstd", LK_F32, 1, s->t);

	ops_pad(r, s->pad);
	x = ops_inout(r, "x", act(s), 2, s->t, s->d);
	delta = ops_in(r, act(s), 2, s->t, s->d);
	y = ops_out(r, "y", act(s), 2, s->t, s->d);
	return lk_rmsnorm_fwd(r->dev, &y, rstd.data, &x, &delta, &w, 1e-5f);
}

static int rmsnorm_bwd(struct ops_run *r, const void *arg)
{
	const struct shape *s = arg;
	struct lk_view w = ops_in(r, act(s), 1, s->d), rstd = ops_in(r, LK_F32, 1, s->t);
	struct lk_view dw = ops_inout(r, "dw", LK_F32, 1, s->d), x, dy, dx;

	ops_pad(r, s->pad);
	x = ops_in(r, act(s), 2, s->t, s->d);
	dy = ops_in(r, act(s), 2, s->t, s->d);
	dx = ops_inout(r, "dx", act(s), 2, s->t, s->d);
	return lk_rmsnorm_bwd(r->dev, &dx, dw.data, &dy, &x, &w, rstd.data);
}

static int rmsnorm_grad(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_var(r, "x", 2, 5, 11), w = ops_var(r, "w", 1, 11), dy = ops_in(r, LK_F32, 2, 5, 11);
	struct lk_view y = ops_out(r, "y", LK_F32, 2, 5, 11), rstd = ops_out(r, "rstd", LK_F32, 1, 5);
	int rc = lk_rmsnorm_fwd(r->dev, &y, rstd.data, &x, NULL, &w, 1e-3f);

	(void)arg;
	ops_loss(r, &y, &dy);
	if (!rc && r->want_grad) {
		struct lk_view dx = ops_zeros(r, "dx", LK_F32, 2, 5, 11), dw = ops_zeros(r, "dw", LK_F32, 1, 11);

		rc = lk_rmsnorm_bwd(r->dev, &dx, dw.data, &dy, &x, &w, rstd.data);
		ops_grad(r, "x", &dx);
		ops_grad(r, "w", &dw);
	}
	return rc;
}

static const struct shape s_odd = { 7, 33, 0, 0 }, s_pad = { 67, 80, 9, 0 }, s_wide = { 5, 1111, 0, 0 },
			  s_one = { 1, 1, 0, 0 },
			  s_tall = { 300, 20, 0, 0 }, s_vec = { 70, 256, 8, 0 }, s_long = { 3, 4360, 0, 0 },
			  s_huge = { 9, 8328, 0, 0 }, s_beyond = { 2, 17000, 0, 0 }, s_rare = { 19, 8203, 0, 0 },
			  s_f32 = { 35, 132, 4, 1 };

/* ---- rope ---- */

struct rope {
	int t, h, d, pad, first, inverse;
	double theta;
};

static int rope_of(struct ops_run *r, const struct rope *p, int dtype)
{
	struct lk_view x, pos = ops_ints(r, LK_I32, p->first, p->first + 4000, 1, p->t);

	ops_pad(r, p->pad);
	x = ops_inout(r, "x", dtype, 3, p->t, p->h, p->d);
	return lk_rope(r->dev, &x, pos.data, p->theta, p->inverse);
}

static int rope(struct ops_run *r, const void *arg)
{
	return rope_of(r, arg, OPS_ACT);
}

static int rope_f32(struct ops_run *r, const void *arg)
{
	return rope_of(r, arg, LK_F32);
}

/* Tables may be kept from call to call: other positions in the same memory, another theta, another size. */
static int rope_repeated(struct ops_run *r, const void *arg)
{
	struct lk_view a = ops_ints(r, LK_I32, 0, 100, 1, 12), b = ops_ints(r, LK_I32, 5000, 9000, 1, 12);
	struct lk_view x = ops_inout(r, "x", OPS_ACT, 3, 12, 3, 16), half = x, few = x, where;
	int rc;

	(void)arg;
	where = ops_zeros(r, "positions", LK_I32, 1, 12);
	rc = lk_copy(r->dev, where.data, a.data, 48);
	if (!rc)
		rc = lk_rope(r->dev, &x, where.data, 1e4, 0);
	if (!rc)
		rc = lk_copy(r->dev, where.data, b.data, 48);
	if (!rc)
		rc = lk_rope(r->dev, &x, where.data, 1e4, 0);
	if (!rc)
		rc = lk_rope(r->dev, &x, where.data, 5e7, 1);
	half.n[2] = 8;
	if (!rc)
		rc = lk_rope(r->dev, &half, where.data, 5e7, 0);
	few.n[0] = 5;
	return rc ? rc : lk_rope(r->dev, &few, where.data, 5e7, 0);
}

static int rope_grad(struct ops_run *r, const void *arg)
{
	struct lk_view x0 = ops_var(r, "x", 3, 3, 2, 6), dy = ops_in(r, LK_F32, 3, 3, 2, 6);
	struct lk_view pos = ops_ints(r, LK_I32, 0, 1000, 1, 3), y = ops_out(r, "y", LK_F32, 3, 3, 2, 6);
	int rc = lk_copy(r->dev, y.data, x0.data, 36 * sizeof(float));

	(void)arg;
	if (!rc)
		rc = lk_rope(r->dev, &y, pos.data, 1e4, 0);
	ops_loss(r, &y, &dy);
	if (!rc && r->want_grad) {
		struct lk_view dx = ops_zeros(r, "dx", LK_F32, 3, 3, 2, 6);

		rc = lk_copy(r->dev, dx.data, dy.data, 36 * sizeof(float));
		if (!rc)
			rc = lk_rope(r->dev, &dx, pos.data, 1e4, 1);
		ops_grad(r, "x", &dx);
	}
	return rc;
}

static const struct rope r_small = { 9, 3, 8, 0, 0, 0, 1e4 }, r_inv = { 9, 3, 8, 0, 0, 1, 1e4 },
			 r_far = { 70, 5, 64, 6, 1040000, 0, 5e7 }, r_two = { 4, 2, 2, 0, 0, 0, 1e6 },
			 r_odd = { 33, 2, 34, 3, 100, 1, 1e6 }, r_vec = { 21, 70, 64, 8, 1000000, 0, 1e7 },
			 r_wide = { 5, 3, 296, 0, 0, 0, 5e5 }, r_last = { 6, 1, 128, 0, 2147479600, 1, 5e7 };

/* ---- SwiGLU ---- */

static int swiglu(struct ops_run *r, const void *arg)
{
	const struct shape *s = arg;
	struct lk_view g, u, y;

	ops_scale(r, 12.0);
	ops_pad(r, s->pad);
	g = ops_in(r, act(s), 2, s->t, s->d);
	u = ops_in(r, act(s), 2, s->t, s->d);
	y = ops_out(r, "y", act(s), 2, s->t, s->d);
	return lk_swiglu_fwd(r->dev, &y, &g, &u);
}

static int swiglu_odd_numbers(struct ops_run *r, const void *arg)
{
	static const float odd[] = { NAN, 200.0f, -200.0f, -88.5f, 88.5f, 0.0f, 1e-30f, 40.0f, -40.0f };
	struct lk_view g = ops_given_f32(r, OPS_ACT, odd, 2, 1, N(odd)), u = ops_in(r, OPS_ACT, 2, 1, N(odd));
	struct lk_view y = ops_out(r, "y", OPS_ACT, 2, 1, N(odd));

	(void)arg;
	return lk_swiglu_fwd(r->dev, &y, &g, &u);
}

static int swiglu_bwd(struct ops_run *r, const void *arg)
{
	const struct shape *s = arg;
	struct lk_view g, u, dy, dg, du;

	ops_scale(r, 6.0);
	ops_pad(r, s->pad);
	g = ops_in(r, act(s), 2, s->t, s->d);
	u = ops_in(r, act(s), 2, s->t, s->d);
	dy = ops_in(r, act(s), 2, s->t, s->d);
	dg = ops_out(r, "dg", act(s), 2, s->t, s->d);
	du = ops_out(r, "du", act(s), 2, s->t, s->d);
	return lk_swiglu_bwd(r->dev, &dg, &du, &dy, &g, &u);
}

static int swiglu_bwd_alias(struct ops_run *r, const void *arg)
{
	const struct shape *s = arg;
	struct lk_view g = ops_inout(r, "g", act(s), 2, s->t, s->d), u = ops_inout(r, "u", act(s), 2, s->t, s->d);
	struct lk_view dy = ops_in(r, act(s), 2, s->t, s->d);

	return lk_swiglu_bwd(r->dev, &g, &u, &dy, &g, &u);
}

/* Gate and input as the halves of one product, as the model has them; gradients take their place. */
static int swiglu_halves(struct ops_run *r, const void *arg)
{
	const struct shape *s = arg;
	struct lk_view gu, g, u, y, dy;
	int rc;

	ops_pad(r, s->pad);
	gu = ops_inout(r, "gu", act(s), 2, s->t, 2 * s->d);
	y = ops_out(r, "y", act(s), 2, s->t, s->d);
	dy = ops_in(r, act(s), 2, s->t, s->d);
	g = u = gu;
	g.n[1] = u.n[1] = s->d;
	u.data = (char *)gu.data + (size_t)s->d * lk_dtype_size(gu.dtype);
	rc = lk_swiglu_fwd(r->dev, &y, &g, &u);
	return rc ? rc : lk_swiglu_bwd(r->dev, &g, &u, &dy, &g, &u);
}

static int swiglu_grad(struct ops_run *r, const void *arg)
{
	struct lk_view g = ops_var(r, "g", 2, 4, 9), u = ops_var(r, "u", 2, 4, 9), dy = ops_in(r, LK_F32, 2, 4, 9);
	struct lk_view y = ops_out(r, "y", LK_F32, 2, 4, 9);
	int rc = lk_swiglu_fwd(r->dev, &y, &g, &u);

	(void)arg;
	ops_loss(r, &y, &dy);
	if (!rc && r->want_grad) {
		struct lk_view dg = ops_out(r, "dg", LK_F32, 2, 4, 9), du = ops_out(r, "du", LK_F32, 2, 4, 9);

		rc = lk_swiglu_bwd(r->dev, &dg, &du, &dy, &g, &u);
		ops_grad(r, "g", &dg);
		ops_grad(r, "u", &du);
	}
	return rc;
}

/* ---- embedding, rows ---- */

/* Ids below, in and above the table; rows of others stay. */
static int embed(struct ops_run *r, const void *arg)
{
	const struct shape *s = arg;
	struct lk_view ids = ops_ints(r, LK_I32, 90, 140, 1, s->t), table, y;

	ops_pad(r, s->pad);
	table = ops_in(r, act(s), 2, 30, s->d);
	y = ops_inout(r, "y", act(s), 2, s->t, s->d);
	return lk_embed_fwd(r->dev, &y, ids.data, &table, 100);
}

static int embed_bwd(struct ops_run *r, const void *arg)
{
	const struct shape *s = arg;
	struct lk_view ids = ops_ints(r, LK_I32, 90, 140, 1, s->t), dtable, dy;

	ops_pad(r, s->pad);
	dy = ops_in(r, act(s), 2, s->t, s->d);
	dtable = ops_inout(r, "dtable", LK_F32, 2, 30, s->d);
	return lk_embed_bwd(r->dev, &dtable, ids.data, &dy, 100);
}

struct ids {
	int n, d, rows, pad;
	int often; /* of every so many ids one is drawn, the others are all the same */
};

static int embed_bwd_ids(struct ops_run *r, const void *arg)
{
	const struct ids *s = arg;
	struct lk_view ids, dtable, dy;
	int32_t id[5000];

	for (int i = 0; i < s->n; i++)
		id[i] = i % s->often ? 7 + s->rows / 3 : (int32_t)(ops_u32(r) % (uint32_t)(s->rows + s->rows / 8 + 1)) + 3;
	ids = ops_given_i32(r, id, s->n);
	ops_pad(r, s->pad);
	dy = ops_in(r, OPS_ACT, 2, s->n, s->d);
	dtable = ops_inout(r, "dtable", LK_F32, 2, s->rows, s->d);
	return lk_embed_bwd(r->dev, &dtable, ids.data, &dy, 7);
}

static const struct ids i_many = { 5000, 8, 300, 0, 1 }, i_same = { 4500, 24, 50, 8, 40 },
			i_sparse = { 500, 3, 70000, 0, 2 }, i_one = { 2049, 2056, 1, 0, 5000 };

static int rows(struct ops_run *r, const void *arg)
{
	static const int32_t idx[] = { 11, 3, 0, 7, 8 };
	const struct shape *s = arg;
	struct lk_view i = ops_given_i32(r, idx, N(idx)), x, y, z;
	int rc;

	ops_pad(r, s->pad);
	x = ops_in(r, act(s), 2, 12, s->d);
	y = ops_out(r, "gathered", act(s), 2, N(idx), s->d);
	z = ops_inout(r, "scattered", act(s), 2, 12, s->d);
	rc = lk_gather_rows(r->dev, &y, &x, i.data);
	return rc ? rc : lk_scatter_add_rows(r->dev, &z, &y, i.data);
}

/* ---- cross-entropy ---- */

struct loss {
	int n, v, pad, grad;
	int f32; /* 1: fp32 on every device */
};

static int xent(struct ops_run *r, const void *arg)
{
	const struct loss *s = arg;
	struct lk_view target = ops_ints(r, LK_I32, 0, s->v, 1, s->n), weight = ops_in(r, LK_F32, 1, s->n), logits;
	struct lk_view nll = ops_out(r, "nll", LK_F32, 1, s->n), hit = ops_out(r, "hit", LK_F32, 1, s->n);

	ops_scale(r, 9.0);
	ops_pad(r, s->pad);
	logits = ops_inout(r, "logits", s->f32 ? LK_F32 : OPS_ACT, 2, s->n, s->v);
	return lk_xent(r->dev, &logits, target.data, weight.data, nll.data, hit.data, s->grad);
}

/* Ties, all equal, a huge one, -Inf among them, a NaN row. */
static int xent_odd_rows(struct ops_run *r, const void *arg)
{
	static const int32_t target[] = { 2, 1, 0, 3, 4, 1 };
	static const float logits[6][5] = { { 1, 2, 2, 0, 2 }, { 0, 0, 0, 0, 0 }, { 3e4f, 0, 1, 2, 3 },
					    { -INFINITY, 1, -INFINITY, 2, 0 }, { -1e4f, -1e4f, -1e4f, -1e4f, -1e4f },
					    { 1, NAN, 0, 0, 0 } };
	struct lk_view t = ops_given_i32(r, target, 6), w = ops_in(r, LK_F32, 1, 6), l;
	struct lk_view nll = ops_out(r, "nll", LK_F32, 1, 6), hit = ops_out(r, "hit", LK_F32, 1, 5);
	struct lk_view five;
	int rc;

	(void)arg;
	l = ops_given_f32(r, OPS_ACT, &logits[0][0], 2, 6, 5);
	rc = lk_xent(r->dev, &l, t.data, w.data, nll.data, NULL, 0);
	five = l;
	five.n[0] = 5;
	return rc ? rc : lk_xent(r->dev, &five, t.data, w.data, nll.data, hit.data, 0);
}

static int xent_grad(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_var(r, "logits", 2, 4, 7), w = ops_in(r, LK_F32, 1, 4);
	struct lk_view target = ops_ints(r, LK_I32, 0, 7, 1, 4), nll = ops_out(r, "nll", LK_F32, 1, 4);
	struct lk_view work = ops_out(r, "work", LK_F32, 2, 4, 7);
	int rc = lk_copy(r->dev, work.data, x.data, 28 * sizeof(float));

	(void)arg;
	if (!rc)
		rc = lk_xent(r->dev, &work, target.data, w.data, nll.data, NULL, 1);
	ops_loss(r, &nll, &w);
	if (!rc && r->want_grad)
		ops_grad(r, "logits", &work);
	return rc;
}

/* ---- cross-entropy of a vocabulary in parts ---- */

struct cut_loss {
	struct loss of;
	int parts; /* of equal size */
};

/* Columns of part k. */
static struct lk_view part_of(const struct lk_view *v, int k, int parts)
{
	struct lk_view y = *v;

	y.n[1] /= parts;
	y.data = (char *)y.data + (size_t)(k * y.n[1]) * lk_dtype_size(y.dtype);
	return y;
}

/* Targets as each part counts them, one part after the other. */
static struct lk_view part_targets(struct ops_run *r, const int32_t *target, int n, int v, int parts)
{
	int32_t mine[256];

	for (int k = 0; k < parts; k++)
		for (int i = 0; i < n; i++)
			mine[k * n + i] = target[i] - k * (v / parts);
	return ops_given_i32(r, mine, (int64_t)n * parts);
}

/* Each part on its own, then all of them joined for each. all (parts,n,4); nll, hit (parts,n): every part says the same. */
static int cut_rows(struct ops_run *r, const struct lk_view *logits, const struct lk_view *target, const struct lk_view *weight,
		    float *all, float *nll, float *hit, int parts, int grad)
{
	int64_t n = logits->n[0];
	int rc = 0;

	for (int k = 0; !rc && k < parts; k++) {
		struct lk_view x = part_of(logits, k, parts);

		rc = lk_xent_part(r->dev, &x, (int32_t *)target->data + k * n, all + k * n * LK_XENT_PART, grad);
	}
	for (int k = 0; !rc && k < parts; k++) {
		struct lk_view x = part_of(logits, k, parts);

		rc = lk_xent_join(r->dev, &x, (int32_t *)target->data + k * n, weight->data, all, parts, k, nll + k * n,
				  hit ? hit + k * n : NULL, grad);
	}
	return rc;
}

static int xent_cut(struct ops_run *r, const void *arg)
{
	const struct cut_loss *s = arg;
	const struct loss *l = &s->of;
	struct lk_view weight = ops_in(r, LK_F32, 1, l->n), logits, targets;
	struct lk_view all = ops_out(r, "parts", LK_F32, 3, s->parts, l->n, LK_XENT_PART);
	struct lk_view nll = ops_out(r, "nll", LK_F32, 2, s->parts, l->n), hit = ops_out(r, "hit", LK_F32, 2, s->parts, l->n);
	int32_t target[64];

	for (int i = 0; i < l->n; i++)
		target[i] = (int32_t)(ops_u32(r) % (uint32_t)l->v);
	targets = part_targets(r, target, l->n, l->v, s->parts);
	ops_scale(r, 9.0);
	ops_pad(r, l->pad);
	logits = ops_inout(r, "logits", l->f32 ? LK_F32 : OPS_ACT, 2, l->n, l->v);
	return cut_rows(r, &logits, &targets, &weight, all.data, nll.data, hit.data, s->parts, l->grad);
}

/* Ties within a part and between parts, a huge one, a part of -Inf, all equal, a NaN. */
static int xent_cut_odd_rows(struct ops_run *r, const void *arg)
{
	static const int32_t target[] = { 3, 1, 4, 0, 2, 5, 4 };
	static const float logits[7][6] = { { 0, 2, 1, 2, 2, 0 }, { 0, 2, 1, 2, 2, 0 }, { 0, 2, 1, 0, 3e4f, 0 },
					    { 0, 0, 0, 0, 0, 0 }, { -INFINITY, -INFINITY, 1, 2, 0, 0 },
					    { 1, 2, 3, 4, -INFINITY, 5 }, { 1, NAN, 0, 0, 0, 2 } };
	const int *grad = arg;
	struct lk_view t = part_targets(r, target, 7, 6, 3), w = ops_in(r, LK_F32, 1, 7);
	struct lk_view all = ops_out(r, "parts", LK_F32, 3, 3, 6, LK_XENT_PART), last = ops_zeros(r, "last", LK_F32, 2, 3, 4);
	struct lk_view nll = ops_out(r, "nll", LK_F32, 2, 3, 7), hit = ops_out(r, "hit", LK_F32, 2, 3, 6), l, six, t6;
	int rc;

	l = ops_given_f32(r, OPS_ACT, &logits[0][0], 2, 7, 6);
	six = l;
	six.n[0] = 6;
	t6 = part_targets(r, target, 6, 6, 3);
	if (*grad) {
		struct lk_view work = ops_out(r, "work", OPS_ACT, 2, 6, 6);

		rc = lk_copy(r->dev, work.data, l.data, 36 * lk_dtype_size(l.dtype));
		six = work;
		if (rc)
			return rc;
	}
	rc = cut_rows(r, &six, &t6, &w, all.data, nll.data, hit.data, 3, *grad);
	l.data = (char *)l.data + 36 * lk_dtype_size(l.dtype);
	l.n[0] = 1;
	t = part_targets(r, target + 6, 1, 6, 3);
	return rc ? rc : cut_rows(r, &l, &t, &w, last.data, (float *)nll.data + 18, NULL, 3, 0);
}

static int xent_cut_grad(struct ops_run *r, const void *arg)
{
	static const int32_t target[] = { 0, 5, 6, 8 };
	struct lk_view x = ops_var(r, "logits", 2, 4, 9), w = ops_in(r, LK_F32, 1, 4), targets = part_targets(r, target, 4, 9, 3);
	struct lk_view nll = ops_out(r, "nll", LK_F32, 2, 3, 4), all = ops_out(r, "parts", LK_F32, 3, 3, 4, LK_XENT_PART);
	struct lk_view work = ops_out(r, "work", LK_F32, 2, 4, 9), first = nll;
	int rc = lk_copy(r->dev, work.data, x.data, 36 * sizeof(float));

	(void)arg;
	if (!rc)
		rc = cut_rows(r, &work, &targets, &w, all.data, nll.data, NULL, 3, 1);
	first.n[0] = 1;
	ops_loss(r, &first, &w);
	if (!rc && r->want_grad)
		ops_grad(r, "logits", &work);
	return rc;
}

static const int value_alone = 0, with_grad = 1;
static const struct cut_loss c_one = { { 7, 33, 0, 1, 0 }, 1 }, c_three = { { 7, 33, 0, 1, 0 }, 3 },
			     c_pad = { { 40, 1000, 8, 1, 0 }, 4 }, c_value = { { 5, 256, 0, 0, 0 }, 8 },
			     c_wide = { { 3, 50304, 0, 1, 0 }, 2 }, c_huge = { { 2, 2 * 131075, 0, 1, 0 }, 2 },
			     c_f32 = { { 5, 2052, 4, 1, 1 }, 2 };

static const struct loss l_small = { 7, 33, 0, 1, 0 }, l_pad = { 40, 1000, 8, 1, 0 }, l_value = { 5, 257, 0, 0, 0 },
			 l_wide = { 3, 50257, 0, 1, 0 }, l_two = { 3, 2, 0, 1, 0 }, l_huge = { 2, 131075, 0, 1, 0 },
			 l_even = { 2, 131072, 8, 1, 0 }, l_f32 = { 5, 2052, 4, 1, 1 };

#define CMP(name, run, arg, tol32, tol16, why) { name, OPS_CMP, run, arg, tol32, tol16, why }
#define GRAD(name, run) { name, OPS_GRAD, run, NULL, 2e-3, 0, "five-point differences of fp32 outputs" }

static const struct ops_case cases[] = {
	CMP("rmsnorm 7x33", rmsnorm, &s_odd, 1e-6, 6e-3, sums),
	CMP("rmsnorm 67x80 padded", rmsnorm, &s_pad, 1e-6, 6e-3, sums),
	CMP("rmsnorm 5x1111", rmsnorm, &s_wide, 1e-6, 6e-3, sums),
	CMP("rmsnorm 1x1", rmsnorm, &s_one, 1e-6, 6e-3, sums),
	CMP("rmsnorm with residual 67x80 padded", rmsnorm_residual, &s_pad, 1e-6, 6e-3, sums),
	CMP("rmsnorm with residual 5x1111", rmsnorm_residual, &s_wide, 1e-6, 6e-3, sums),
	CMP("rmsnorm_bwd 7x33", rmsnorm_bwd, &s_odd, 1e-6, 6e-3, sums),
	CMP("rmsnorm_bwd 67x80 padded", rmsnorm_bwd, &s_pad, 1e-6, 6e-3, sums),
	CMP("rmsnorm_bwd 5x1111", rmsnorm_bwd, &s_wide, 1e-6, 6e-3, sums),
	CMP("rmsnorm_bwd 300x20", rmsnorm_bwd, &s_tall, 1e-6, 6e-3, sums),
	CMP("rmsnorm 70x256 padded", rmsnorm, &s_vec, 1e-6, 6e-3, sums),
	CMP("rmsnorm with residual 3x4360", rmsnorm_residual, &s_long, 1e-6, 6e-3, sums),
	CMP("rmsnorm with residual 2x17000", rmsnorm_residual, &s_beyond, 1e-6, 6e-3, sums),
	CMP("rmsnorm with residual in fp32 35x132 padded", rmsnorm_residual, &s_f32, 1e-6, 1e-5, sums),
	CMP("rmsnorm_bwd 70x256 padded", rmsnorm_bwd, &s_vec, 1e-6, 6e-3, sums),
	CMP("rmsnorm_bwd 3x4360", rmsnorm_bwd, &s_long, 1e-6, 6e-3, sums),
	CMP("rmsnorm_bwd 9x8328", rmsnorm_bwd, &s_huge, 1e-6, 6e-3, sums),
	CMP("rmsnorm_bwd 19x8203", rmsnorm_bwd, &s_rare, 1e-6, 6e-3, sums),
	CMP("rmsnorm_bwd in fp32 35x132 padded", rmsnorm_bwd, &s_f32, 1e-6, 1e-5, sums),
	CMP("rope 9x3x8", rope, &r_small, 1e-6, 4e-3, pointwise),
	CMP("rope 9x3x8 inverse", rope, &r_inv, 1e-6, 4e-3, pointwise),
	CMP("rope 70x5x64 far positions padded", rope, &r_far, 1e-6, 4e-3, "angles in fp64: far positions cost nothing"),
	CMP("rope 4x2x2", rope, &r_two, 1e-6, 4e-3, pointwise),
	CMP("rope 33x2x34 inverse padded", rope, &r_odd, 1e-6, 4e-3, pointwise),
	CMP("rope 21x70x64 padded", rope, &r_vec, 1e-6, 4e-3, pointwise),
	CMP("rope 5x3x296", rope, &r_wide, 1e-6, 4e-3, pointwise),
	CMP("rope of fp32 70x5x64 far positions padded", rope_f32, &r_far, 1e-6, 1e-6, "angles in fp64: far positions cost nothing"),
	CMP("rope of fp32 6x1x128 inverse, last positions", rope_f32, &r_last, 1e-6, 1e-6, "positions up to 2^31"),
	CMP("rope with changing positions", rope_repeated, NULL, 1e-6, 8e-3, pointwise),
	CMP("swiglu 7x33", swiglu, &s_odd, 1e-6, 4e-3, pointwise),
	CMP("swiglu 67x80 padded", swiglu, &s_pad, 1e-6, 4e-3, pointwise),
	CMP("swiglu 70x256 padded", swiglu, &s_vec, 1e-6, 4e-3, pointwise),
	CMP("swiglu 3x4360", swiglu, &s_long, 1e-6, 4e-3, pointwise),
	CMP("swiglu in fp32 35x132 padded", swiglu, &s_f32, 1e-6, 1e-5, pointwise),
	CMP("swiglu of halves 70x256 padded", swiglu_halves, &s_vec, 2e-6, 6e-3, pointwise),
	CMP("swiglu of halves 67x80 padded", swiglu_halves, &s_pad, 2e-6, 6e-3, pointwise),
	CMP("swiglu of odd numbers", swiglu_odd_numbers, NULL, 1e-6, 4e-3, pointwise),
	CMP("swiglu_bwd 7x33", swiglu_bwd, &s_odd, 2e-6, 6e-3, pointwise),
	CMP("swiglu_bwd 67x80 padded", swiglu_bwd, &s_pad, 2e-6, 6e-3, pointwise),
	CMP("swiglu_bwd in fp32 35x132 padded", swiglu_bwd, &s_f32, 2e-6, 1e-5, pointwise),
	CMP("swiglu_bwd in place", swiglu_bwd_alias, &s_wide, 2e-6, 6e-3, pointwise),
	CMP("embed 67x80 padded", embed, &s_pad, 0, 0, "copies"),
	CMP("embed 7x33", embed, &s_odd, 0, 0, "copies"),
	CMP("embed_bwd 67x80 padded", embed_bwd, &s_pad, 1e-6, 1e-5, sums),
	CMP("embed_bwd 300x20", embed_bwd, &s_tall, 1e-6, 1e-5, sums),
	CMP("embed 70x256 padded", embed, &s_vec, 0, 0, "copies"),
	CMP("embed 3x4360", embed, &s_long, 0, 0, "copies"),
	CMP("embed_bwd 70x256 padded", embed_bwd, &s_vec, 1e-6, 1e-5, sums),
	CMP("embed_bwd of fp32 35x132 padded", embed_bwd, &s_f32, 1e-6, 1e-5, sums),
	CMP("embed_bwd of 5000 ids", embed_bwd_ids, &i_many, 1e-6, 1e-5, sums),
	CMP("embed_bwd of repeated ids", embed_bwd_ids, &i_same, 1e-6, 1e-5, sums),
	CMP("embed_bwd into 70000 rows", embed_bwd_ids, &i_sparse, 1e-6, 1e-5, sums),
	CMP("embed_bwd into one row", embed_bwd_ids, &i_one, 2e-6, 1e-5, sums),
	CMP("gather and scatter rows of fp32 padded", rows, &s_f32, 1e-7, 1e-7, pointwise),
	CMP("gather and scatter rows 4360 wide", rows, &s_long, 1e-7, 4e-3, pointwise),
	CMP("gather and scatter rows", rows, &s_odd, 1e-7, 4e-3, pointwise),
	CMP("gather and scatter rows padded", rows, &s_pad, 1e-7, 4e-3, pointwise),
	CMP("xent 7x33", xent, &l_small, 2e-6, 6e-3, pointwise),
	CMP("xent 40x1000 padded", xent, &l_pad, 2e-6, 6e-3, pointwise),
	CMP("xent 5x257 without gradient", xent, &l_value, 2e-6, 6e-3, pointwise),
	CMP("xent 3x50257", xent, &l_wide, 2e-6, 6e-3, sums),
	CMP("xent 3x2", xent, &l_two, 1e-5, 6e-3, "a softmax near 1 less 1 cancels"),
	CMP("xent 2x131075", xent, &l_huge, 2e-6, 6e-3, sums),
	CMP("xent 2x131072 padded", xent, &l_even, 2e-6, 6e-3, sums),
	CMP("xent of fp32 5x2052 padded", xent, &l_f32, 2e-6, 1e-5, pointwise),
	CMP("xent of odd rows", xent_odd_rows, NULL, 2e-6, 6e-3, pointwise),
	CMP("xent of a vocabulary in one part, 7x33", xent_cut, &c_one, 2e-6, 6e-3, pointwise),
	CMP("xent of a vocabulary in 3 parts, 7x33", xent_cut, &c_three, 2e-6, 6e-3, pointwise),
	CMP("xent of a vocabulary in 4 parts, 40x1000 padded", xent_cut, &c_pad, 2e-6, 6e-3, pointwise),
	CMP("xent of a vocabulary in 8 parts, 5x256 without gradient", xent_cut, &c_value, 2e-6, 6e-3, pointwise),
	CMP("xent of a vocabulary in 2 parts, 3x50304", xent_cut, &c_wide, 2e-6, 6e-3, sums),
	CMP("xent of a vocabulary in 2 parts, 2x262150", xent_cut, &c_huge, 1e-5, 6e-3, "fp32 sums of 131,075 terms"),
	CMP("xent of a vocabulary in 2 parts of fp32, 5x2052 padded", xent_cut, &c_f32, 2e-6, 1e-5, pointwise),
	CMP("xent of a vocabulary in parts, odd rows", xent_cut_odd_rows, &value_alone, 2e-6, 6e-3, pointwise),
	CMP("xent of a vocabulary in parts, odd rows with gradient", xent_cut_odd_rows, &with_grad, 2e-6, 6e-3, pointwise),
	GRAD("xent gradient of a vocabulary in parts", xent_cut_grad),
	GRAD("rmsnorm gradient", rmsnorm_grad),
	GRAD("rope gradient", rope_grad),
	GRAD("swiglu gradient", swiglu_grad),
	GRAD("xent gradient", xent_grad),
};

const struct ops_family ops_family_transformer = { "transformer", cases, N(cases) };
