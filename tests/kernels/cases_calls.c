/* cases_calls.c - wrong calls: each must be refused with LK_EINVAL and a sentence, before any memory is touched. */
#include <stddef.h>

#include "tests/kernels/ops.h"

static int bad_shapes(struct ops_run *r, const void *arg)
{
	struct lk_view a = ops_in(r, OPS_ACT, 2, 4, 5), b = ops_in(r, OPS_ACT, 2, 6, 7);
	struct lk_view c = ops_out(r, "c", OPS_ACT, 2, 4, 7);

	(void)arg;
	return lk_matmul(r->dev, &c, &a, &b, 0, 1.0f);
}

static int bad_overlap(struct ops_run *r, const void *arg)
{
	struct lk_view a = ops_in(r, OPS_ACT, 2, 4, 4), b = ops_in(r, OPS_ACT, 2, 4, 4);

	(void)arg;
	return lk_matmul(r->dev, &a, &a, &b, 0, 1.0f);
}

static int bad_dtype(struct ops_run *r, const void *arg)
{
	struct lk_view g = ops_in(r, OPS_ACT, 2, 3, 8), u = ops_ints(r, LK_I32, 0, 9, 2, 3, 8);
	struct lk_view y = ops_out(r, "y", OPS_ACT, 2, 3, 8);

	(void)arg;
	return lk_swiglu_fwd(r->dev, &y, &g, &u);
}

static int bad_stride(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_inout(r, "x", OPS_ACT, 2, 3, 8);

	(void)arg;
	x.stride[1] = 2;
	return lk_scale(r->dev, &x, 2.0f);
}

static int bad_rows(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_inout(r, "x", OPS_ACT, 2, 3, 8), w = ops_in(r, OPS_ACT, 1, 8);
	struct lk_view y = ops_out(r, "y", OPS_ACT, 2, 3, 8), rstd = ops_out(r, "rstd", LK_F32, 1, 3);

	(void)arg;
	x.stride[0] = 7;
	return lk_rmsnorm_fwd(r->dev, &y, rstd.data, &x, NULL, &w, 1e-6f);
}

static int bad_odd_head(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_inout(r, "x", OPS_ACT, 3, 3, 2, 5), pos = ops_ints(r, LK_I32, 0, 9, 1, 3);

	(void)arg;
	return lk_rope(r->dev, &x, pos.data, 1e4, 0);
}

static int bad_null(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_inout(r, "x", OPS_ACT, 3, 3, 2, 4);

	(void)arg;
	return lk_rope(r->dev, &x, NULL, 1e4, 0);
}

static int bad_negative(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_inout(r, "x", LK_F32, 1, 8);

	(void)arg;
	return lk_fill(r->dev, x.data, -1, 0.0f);
}

static int bad_dense(struct ops_run *r, const void *arg)
{
	struct lk_view x, y;

	(void)arg;
	ops_pad(r, 2);
	x = ops_in(r, LK_F32, 2, 3, 4);
	y = ops_inout(r, "y", LK_F32, 2, 3, 4);
	return lk_axpy(r->dev, &y, 1.0f, &x);
}

static int bad_step_zero(struct ops_run *r, const void *arg)
{
	struct lk_view p = ops_inout(r, "p", LK_F32, 1, 4);
	struct lk_adamw_cfg cfg = { 1e-3f, 0.9f, 0.95f, 1e-8f, 0.0f, 1.0f, 0.0, 0.0 };

	(void)arg;
	return lk_adamw(r->dev, p.data, p.data, p.data, p.data, NULL, 4, &cfg);
}

static int bad_copy(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_inout(r, "x", LK_F32, 1, 64);

	(void)arg;
	return lk_copy(r->dev, x.data, (float *)x.data + 8, 128);
}

static int bad_vocabulary(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_inout(r, "x", OPS_ACT, 2, 2, 0), t = ops_ints(r, LK_I32, 0, 9, 1, 2);
	struct lk_view nll = ops_out(r, "nll", LK_F32, 1, 2);

	(void)arg;
	return lk_xent(r->dev, &x, t.data, nll.data, nll.data, NULL, 0);
}

static int bad_part(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_inout(r, "x", OPS_ACT, 2, 2, 8), t = ops_ints(r, LK_I32, 0, 9, 1, 2);
	struct lk_view nll = ops_out(r, "nll", LK_F32, 1, 2), all = ops_in(r, LK_F32, 3, 3, 2, LK_XENT_PART);

	(void)arg;
	return lk_xent_join(r->dev, &x, t.data, NULL, all.data, 3, 3, nll.data, NULL, 0);
}

#define BAD(name, run) { name, OPS_BAD, run, NULL, 0, 0, NULL }

static const struct ops_case cases[] = {
	BAD("matmul of unfit shapes", bad_shapes),
	BAD("matmul onto itself", bad_overlap),
	BAD("swiglu of integers", bad_dtype),
	BAD("scale with a last stride of 2", bad_stride),
	BAD("rmsnorm of rows that overlap", bad_rows),
	BAD("rope of an odd head", bad_odd_head),
	BAD("rope without positions", bad_null),
	BAD("fill of -1 elements", bad_negative),
	BAD("axpy of views with gaps", bad_dense),
	BAD("adamw at step 0", bad_step_zero),
	BAD("copy onto itself", bad_copy),
	BAD("xent of an empty vocabulary", bad_vocabulary),
	BAD("xent of a part that does not exist", bad_part),
};

const struct ops_family ops_family_calls = { "calls", cases, (int)(sizeof cases / sizeof *cases) };
