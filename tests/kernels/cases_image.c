/* cases_image.c - convolution, group norm, nearest code, pixels, reconstruction loss. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/kernels/ops.h"

#define N(a) ((int)(sizeof(a) / sizeof *(a)))

static const char conv_sums[] = "fp32 sums; Winograd's transforms cost about a digit";
static const char sums[] = "fp32 sums over parts, joined in fp64";
static const char cancel[] = "fp32 sums over parts, joined in fp64; means near zero are small differences";

/* ---- convolution ---- */

struct conv {
	struct lk_conv_geom g;
	int n, h, w, add;
};

/* x, w, b are made in this order by every case; y is the shape of the result. */
struct conv_io {
	struct lk_view x, w, b;
	int oh, ow;
	struct lk_conv *c;
};

static void conv_size(const struct conv *c, struct conv_io *io)
{
	const struct lk_conv_geom *g = &c->g;

	io->oh = (c->h * g->upsample + g->pad_top + g->pad_bottom - g->kh) / g->stride + 1;
	io->ow = (c->w * g->upsample + g->pad_left + g->pad_right - g->kw) / g->stride + 1;
}

static int conv_open(struct ops_run *r, const struct conv *c, struct conv_io *io)
{
	const struct lk_conv_geom *g = &c->g;

	conv_size(c, io);
	io->x = ops_in(r, OPS_ACT, 4, c->n, c->h, c->w, g->cin);
	io->w = ops_in(r, LK_F32, 4, g->kh, g->kw, g->cin, g->cout);
	io->b = ops_in(r, LK_F32, 1, g->cout);
	return lk_conv_new(r->dev, &io->c, g, io->w.data, io->b.data);
}

static int conv_close(struct ops_run *r, struct conv_io *io, int rc)
{
	int sync = lk_sync(r->dev); /* queued work may still read the weights that the handle keeps */

	lk_conv_free(io->c);
	return rc ? rc : sync;
}

static int conv_fwd(struct ops_run *r, const void *arg)
{
	const struct conv *c = arg;
	struct conv_io io;
	int rc = conv_open(r, c, &io);
	struct lk_view y = ops_out(r, "y", OPS_ACT, 4, c->n, io.oh, io.ow, c->g.cout);
	struct lk_view add = ops_in(r, OPS_ACT, 4, c->n, io.oh, io.ow, c->g.cout);

	if (!rc)
		rc = lk_conv_fwd(r->dev, io.c, &y, &io.x, c->add ? &add : NULL);
	return conv_close(r, &io, rc);
}

static int conv_bwd_to(struct ops_run *r, const struct conv *c, struct conv_io *io)
{
	struct lk_view dy = ops_in(r, OPS_ACT, 4, c->n, io->oh, io->ow, c->g.cout);
	struct lk_view dx = ops_out(r, "dx", OPS_ACT, 4, c->n, c->h, c->w, c->g.cin);
	struct lk_view dw = ops_inout(r, "dw", LK_F32, 4, c->g.kh, c->g.kw, c->g.cin, c->g.cout);
	struct lk_view db = ops_inout(r, "db", LK_F32, 1, c->g.cout);

	return lk_conv_bwd(r->dev, io->c, &dx, dw.data, db.data, &dy, &io->x);
}

static int conv_bwd(struct ops_run *r, const void *arg)
{
	const struct conv *c = arg;
	struct conv_io io;
	int rc = conv_open(r, c, &io);

	return conv_close(r, &io, rc ? rc : conv_bwd_to(r, c, &io));
}

/* Each gradient alone: NULL means not wanted. */
static int conv_bwd_parts(struct ops_run *r, const void *arg)
{
	const struct conv *c = arg;
	struct conv_io io;
	int rc = conv_open(r, c, &io);
	struct lk_view dy = ops_in(r, OPS_ACT, 4, c->n, io.oh, io.ow, c->g.cout);
	struct lk_view dx = ops_out(r, "dx", OPS_ACT, 4, c->n, c->h, c->w, c->g.cin);
	struct lk_view dw = ops_inout(r, "dw", LK_F32, 4, c->g.kh, c->g.kw, c->g.cin, c->g.cout);
	struct lk_view db = ops_inout(r, "db", LK_F32, 1, c->g.cout);

	if (!rc)
		rc = lk_conv_bwd(r->dev, io.c, NULL, dw.data, NULL, &dy, &io.x);
	if (!rc)
		rc = lk_conv_bwd(r->dev, io.c, NULL, NULL, db.data, &dy, &io.x);
	if (!rc)
		rc = lk_conv_bwd(r->dev, io.c, &dx, NULL, NULL, &dy, &io.x);
	return conv_close(r, &io, rc);
}

/* Forward and backward once more with other weights under the same handle. */
static int conv_refresh(struct ops_run *r, const void *arg)
{
	const struct conv *c = arg;
	const struct lk_conv_geom *g = &c->g;
	struct lk_view more = ops_in(r, LK_F32, 4, g->kh, g->kw, g->cin, g->cout), y;
	struct conv_io io;
	int rc;

	conv_size(c, &io);
	io.x = ops_in(r, OPS_ACT, 4, c->n, c->h, c->w, g->cin);
	io.w = ops_inout(r, "w", LK_F32, 4, g->kh, g->kw, g->cin, g->cout);
	io.b = ops_in(r, LK_F32, 1, g->cout);
	y = ops_out(r, "y", OPS_ACT, 4, c->n, io.oh, io.ow, g->cout);
	rc = lk_conv_new(r->dev, &io.c, g, io.w.data, io.b.data);
	if (!rc)
		rc = conv_bwd_to(r, c, &io);
	if (!rc)
		rc = lk_axpy(r->dev, &io.w, 3.0f, &more);
	if (!rc)
		rc = lk_conv_refresh(r->dev, io.c);
	if (!rc)
		rc = lk_conv_fwd(r->dev, io.c, &y, &io.x, NULL);
	if (!rc)
		rc = conv_bwd_to(r, c, &io);
	return conv_close(r, &io, rc);
}

static int conv_grad(struct ops_run *r, const void *arg)
{
	const struct conv *c = arg;
	const struct lk_conv_geom *g = &c->g;
	struct conv_io io;
	struct lk_view y, dy, dx, dw, db;
	int rc;

	conv_size(c, &io);
	io.x = ops_var(r, "x", 4, c->n, c->h, c->w, g->cin);
	io.w = ops_var(r, "w", 4, g->kh, g->kw, g->cin, g->cout);
	io.b = ops_var(r, "b", 1, g->cout);
	y = ops_out(r, "y", LK_F32, 4, c->n, io.oh, io.ow, g->cout);
	dy = ops_in(r, LK_F32, 4, c->n, io.oh, io.ow, g->cout);
	rc = lk_conv_new(r->dev, &io.c, g, io.w.data, io.b.data);
	if (!rc)
		rc = lk_conv_fwd(r->dev, io.c, &y, &io.x, NULL);
	ops_loss(r, &y, &dy);
	if (!rc && r->want_grad) {
		dx = ops_out(r, "dx", LK_F32, 4, c->n, c->h, c->w, g->cin);
		dw = ops_zeros(r, "dw", LK_F32, 4, g->kh, g->kw, g->cin, g->cout);
		db = ops_zeros(r, "db", LK_F32, 1, g->cout);
		rc = lk_conv_bwd(r->dev, io.c, &dx, dw.data, db.data, &dy, &io.x);
		ops_grad(r, "x", &dx);
		ops_grad(r, "w", &dw);
		ops_grad(r, "b", &db);
	}
	return conv_close(r, &io, rc);
}

/* cin cout kh kw stride, pad top left bottom right, upsample; n h w add */
static const struct conv
	c_first = { { 3, 16, 3, 3, 1, 1, 1, 1, 1, 1 }, 2, 9, 7, 0 },
	c_last = { { 32, 3, 3, 3, 1, 1, 1, 1, 1, 1 }, 1, 13, 6, 0 },
	c_odd = { { 20, 37, 3, 3, 1, 1, 1, 1, 1, 1 }, 2, 9, 11, 1 },
	c_even = { { 64, 64, 3, 3, 1, 1, 1, 1, 1, 1 }, 2, 16, 16, 1 },
	c_many = { { 16, 24, 3, 3, 1, 1, 1, 1, 1, 1 }, 1, 70, 66, 1 },
	c_batch = { { 16, 16, 3, 3, 1, 1, 1, 1, 1, 1 }, 30, 12, 10, 0 },
	c_dot = { { 17, 40, 3, 3, 1, 1, 1, 1, 1, 1 }, 3, 1, 1, 1 },
	c_wide_pad = { { 18, 5, 3, 3, 1, 3, 0, 2, 4, 1 }, 1, 5, 6, 0 },
	c_point = { { 48, 33, 1, 1, 1, 0, 0, 0, 0, 1 }, 2, 11, 13, 1 },
	c_point_s2 = { { 8, 12, 1, 1, 2, 0, 0, 0, 0, 1 }, 2, 7, 8, 0 },
	c_down = { { 64, 48, 3, 3, 2, 0, 0, 1, 1, 1 }, 2, 16, 14, 0 },
	c_down_odd = { { 19, 21, 3, 3, 2, 0, 0, 1, 1, 1 }, 1, 9, 13, 1 },
	c_up = { { 32, 16, 3, 3, 1, 1, 1, 1, 1, 2 }, 2, 7, 9, 0 },
	c_up_thin = { { 5, 6, 3, 3, 1, 1, 1, 1, 1, 2 }, 1, 4, 3, 1 },
	c_any = { { 7, 9, 5, 2, 3, 2, 1, 0, 3, 1 }, 2, 14, 11, 1 },
	c_up_s2 = { { 6, 10, 4, 3, 2, 1, 2, 0, 1, 2 }, 1, 6, 5, 0 },
	c_up_s3 = { { 4, 5, 3, 5, 3, 1, 1, 2, 2, 2 }, 2, 7, 8, 0 },
	c_wide = { { 64, 128, 3, 3, 1, 1, 1, 1, 1, 1 }, 1, 16, 20, 1 },
	c_wider = { { 128, 376, 1, 1, 1, 0, 0, 0, 0, 1 }, 2, 13, 16, 1 },
	c_deep = { { 128, 128, 3, 3, 1, 1, 1, 1, 1, 1 }, 2, 15, 14, 1 },
	c_down_wide = { { 64, 128, 3, 3, 2, 0, 0, 1, 1, 1 }, 1, 27, 31, 1 },
	c_down_even = { { 64, 128, 4, 4, 2, 2, 1, 0, 1, 1 }, 1, 24, 26, 0 },
	c_point_wide = { { 64, 128, 1, 1, 2, 0, 0, 0, 0, 1 }, 2, 25, 26, 0 },
	c_up_wide = { { 128, 128, 3, 3, 1, 1, 1, 1, 1, 2 }, 1, 13, 12, 0 },
	c_tiny = { { 3, 4, 3, 3, 1, 1, 1, 1, 1, 1 }, 1, 4, 5, 0 },
	c_tiny_down = { { 3, 2, 3, 3, 2, 0, 0, 1, 1, 1 }, 2, 6, 5, 0 },
	c_tiny_up = { { 2, 3, 3, 3, 1, 1, 1, 1, 1, 2 }, 1, 3, 4, 0 };

static int bad_conv_size(struct ops_run *r, const void *arg)
{
	struct conv_io io;
	int rc = conv_open(r, &c_tiny, &io);
	struct lk_view y = ops_in(r, OPS_ACT, 4, 1, 4, 4, 4); /* one column short */

	(void)arg;
	if (!rc)
		rc = lk_conv_fwd(r->dev, io.c, &y, &io.x, NULL);
	lk_conv_free(io.c);
	return rc;
}

static int bad_conv_alias(struct ops_run *r, const void *arg)
{
	static const struct conv c = { { 4, 4, 3, 3, 1, 1, 1, 1, 1, 1 }, 1, 4, 4, 0 };
	struct conv_io io;
	int rc = conv_open(r, &c, &io);

	(void)arg;
	if (!rc)
		rc = lk_conv_fwd(r->dev, io.c, &io.x, &io.x, NULL);
	lk_conv_free(io.c);
	return rc;
}

/* ---- group norm ---- */

struct norm {
	int n, h, w, c, groups, silu;
};

static int norm_fwd(struct ops_run *r, const void *arg)
{
	const struct norm *g = arg;
	struct lk_view x = ops_in(r, OPS_ACT, 4, g->n, g->h, g->w, g->c), s = ops_in(r, LK_F32, 1, g->c);
	struct lk_view b = ops_in(r, LK_F32, 1, g->c), y = ops_out(r, "y", OPS_ACT, 4, g->n, g->h, g->w, g->c);
	struct lk_view mean = ops_out(r, "mean", LK_F32, 2, g->n, g->groups);
	struct lk_view rstd = ops_out(r, "rstd", LK_F32, 2, g->n, g->groups);

	return lk_groupnorm_fwd(r->dev, &y, mean.data, rstd.data, &x, s.data, b.data, g->groups, 1e-6f, g->silu);
}

static int norm_in_place(struct ops_run *r, const void *arg)
{
	const struct norm *g = arg;
	struct lk_view x = ops_inout(r, "x", OPS_ACT, 4, g->n, g->h, g->w, g->c), s = ops_in(r, LK_F32, 1, g->c);
	struct lk_view b = ops_in(r, LK_F32, 1, g->c), mean = ops_out(r, "mean", LK_F32, 2, g->n, g->groups);
	struct lk_view rstd = ops_out(r, "rstd", LK_F32, 2, g->n, g->groups);

	return lk_groupnorm_fwd(r->dev, &x, mean.data, rstd.data, &x, s.data, b.data, g->groups, 1e-6f, g->silu);
}

/* A mean a thousand times the deviation: squares must not be summed around zero. */
static int norm_far_mean(struct ops_run *r, const void *arg)
{
	enum { H = 20, W = 20, C = 8 };
	static float far[H * W * C];
	struct lk_view x, s = ops_in(r, LK_F32, 1, C), b = ops_in(r, LK_F32, 1, C);
	struct lk_view y = ops_out(r, "y", OPS_ACT, 4, 1, H, W, C), mean = ops_out(r, "mean", LK_F32, 2, 1, 2);
	struct lk_view rstd = ops_out(r, "rstd", LK_F32, 2, 1, 2);

	(void)arg;
	for (int i = 0; i < N(far); i++)
		far[i] = 1024.0f + (float)(i * 37 % 16) / 8.0f; /* exact in fp32 */
	x = ops_given_f32(r, LK_F32, far, 4, 1, H, W, C);
	if (lk_dev_dtype(r->dev) != LK_F32) {
		snprintf(r->why, sizeof r->why, "bf16 cannot hold these numbers");
		return LK_EUNSUP;
	}
	return lk_groupnorm_fwd(r->dev, &y, mean.data, rstd.data, &x, s.data, b.data, 2, 1e-6f, 0);
}

/* mean and rstd come from the same device's forward */
static int norm_bwd_to(struct ops_run *r, const struct norm *g, const struct lk_view *dx, const struct lk_view *dy)
{
	struct lk_view x = ops_in(r, OPS_ACT, 4, g->n, g->h, g->w, g->c), s = ops_in(r, LK_F32, 1, g->c);
	struct lk_view b = ops_in(r, LK_F32, 1, g->c), y = ops_out(r, "y", OPS_ACT, 4, g->n, g->h, g->w, g->c);
	struct lk_view mean = ops_out(r, "mean", LK_F32, 2, g->n, g->groups);
	struct lk_view rstd = ops_out(r, "rstd", LK_F32, 2, g->n, g->groups);
	struct lk_view ds = ops_inout(r, "dscale", LK_F32, 1, g->c), db = ops_inout(r, "dbias", LK_F32, 1, g->c);
	int rc = lk_groupnorm_fwd(r->dev, &y, mean.data, rstd.data, &x, s.data, b.data, g->groups, 1e-6f, g->silu);

	return rc ? rc : lk_groupnorm_bwd(r->dev, dx, ds.data, db.data, dy, &x, mean.data, rstd.data, s.data, b.data,
					  g->groups, 1e-6f, g->silu);
}

static int norm_bwd(struct ops_run *r, const void *arg)
{
	const struct norm *g = arg;
	struct lk_view dy = ops_in(r, OPS_ACT, 4, g->n, g->h, g->w, g->c);
	struct lk_view dx = ops_out(r, "dx", OPS_ACT, 4, g->n, g->h, g->w, g->c);

	return norm_bwd_to(r, g, &dx, &dy);
}

static int norm_bwd_in_place(struct ops_run *r, const void *arg)
{
	const struct norm *g = arg;
	struct lk_view dy = ops_inout(r, "dy", OPS_ACT, 4, g->n, g->h, g->w, g->c);

	return norm_bwd_to(r, g, &dy, &dy);
}

static int norm_grad(struct ops_run *r, const void *arg)
{
	const struct norm *g = arg;
	struct lk_view x = ops_var(r, "x", 4, g->n, g->h, g->w, g->c), s = ops_var(r, "scale", 1, g->c);
	struct lk_view b = ops_var(r, "bias", 1, g->c), y = ops_out(r, "y", LK_F32, 4, g->n, g->h, g->w, g->c);
	struct lk_view dy = ops_in(r, LK_F32, 4, g->n, g->h, g->w, g->c), dx, ds, db;
	struct lk_view mean = ops_out(r, "mean", LK_F32, 2, g->n, g->groups);
	struct lk_view rstd = ops_out(r, "rstd", LK_F32, 2, g->n, g->groups);
	int rc = lk_groupnorm_fwd(r->dev, &y, mean.data, rstd.data, &x, s.data, b.data, g->groups, 1e-3f, g->silu);

	ops_loss(r, &y, &dy);
	if (!rc && r->want_grad) {
		dx = ops_out(r, "dx", LK_F32, 4, g->n, g->h, g->w, g->c);
		ds = ops_zeros(r, "dscale", LK_F32, 1, g->c);
		db = ops_zeros(r, "dbias", LK_F32, 1, g->c);
		rc = lk_groupnorm_bwd(r->dev, &dx, ds.data, db.data, &dy, &x, mean.data, rstd.data, s.data, b.data,
				      g->groups, 1e-3f, g->silu);
		ops_grad(r, "x", &dx);
		ops_grad(r, "scale", &ds);
		ops_grad(r, "bias", &db);
	}
	return rc;
}

static int bad_groups(struct ops_run *r, const void *arg)
{
	static const struct norm g = { 1, 4, 4, 10, 4, 0 };

	(void)arg;
	return norm_fwd(r, &g);
}

static const struct norm n_plain = { 2, 5, 7, 24, 8, 0 }, n_silu = { 2, 5, 7, 24, 8, 1 },
			 n_thin = { 3, 9, 4, 6, 3, 1 }, n_one = { 1, 6, 6, 20, 1, 1 },
			 n_batch = { 5, 20, 18, 32, 32, 1 }, n_large = { 1, 72, 73, 64, 32, 1 },
			 n_wide = { 2, 3, 5, 2056, 8, 1 }, n_wide_odd = { 2, 3, 2, 258, 6, 1 },
			 n_grad = { 2, 3, 4, 6, 3, 0 }, n_grad_silu = { 1, 4, 3, 8, 2, 1 };

/* ---- nearest code ---- */

struct codes {
	int n, k, d, pad;
};

static int nearest(struct ops_run *r, const void *arg)
{
	const struct codes *c = arg;
	struct lk_view z, e, idx = ops_out(r, "idx", LK_I32, 1, c->n);

	ops_pad(r, c->pad);
	z = ops_in(r, OPS_ACT, 2, c->n, c->d);
	e = ops_in(r, LK_F32, 2, c->k, c->d);
	return lk_nearest_code(r->dev, idx.data, &z, &e);
}

/* Whole numbers: every distance is exact, so ties are ties on every device and the lowest index wins. */
static int nearest_ties(struct ops_run *r, const void *arg)
{
	enum { COUNT = 70, K = 300, D = 6 };
	static float zs[COUNT * D], es[K * D];
	struct lk_view z, e, idx = ops_out(r, "idx", LK_I32, 1, COUNT);

	(void)arg;
	for (int i = 0; i < N(zs); i++)
		zs[i] = (float)(ops_u32(r) % 3);
	for (int i = 0; i < N(es); i++)
		es[i] = (float)(ops_u32(r) % 2);
	z = ops_given_f32(r, OPS_ACT, zs, 2, COUNT, D);
	e = ops_given_f32(r, LK_F32, es, 2, K, D);
	return lk_nearest_code(r->dev, idx.data, &z, &e);
}

/* Codes so close that rounding may swap them, as in a fresh codebook: the chosen one's distance may exceed the
 * smallest by a hundred thousandth. */
static int nearest_close(struct ops_run *r, const void *arg)
{
	enum { COUNT = 50, K = 1000, D = 64 };
	static float zs[COUNT * D], es[K * D];
	static int32_t at[COUNT];
	struct lk_view z, e;
	double worst = 0.0;
	void *idx; /* not an output to be compared: the choice among equals is free */
	int rc = lk_mem_alloc(r->dev, sizeof at, &idx);

	(void)arg;
	for (int i = 0; i < N(zs); i++)
		zs[i] = (float)((int)(ops_u32(r) % 257) - 128) / 64.0f; /* exact in bf16 */
	for (int i = 0; i < N(es); i++)
		es[i] = (float)(ops_uniform(r) * 2.0 - 1.0) / (float)K;
	z = ops_given_f32(r, OPS_ACT, zs, 2, COUNT, D);
	e = ops_given_f32(r, LK_F32, es, 2, K, D);
	if (rc)
		return rc;
	rc = lk_nearest_code(r->dev, idx, &z, &e);
	if (!rc)
		rc = lk_download(r->dev, at, idx, sizeof at);
	lk_mem_free(r->dev, idx);
	for (int i = 0; !rc && i < COUNT; i++) {
		double least = INFINITY, mine = INFINITY;

		for (int k = 0; k < K; k++) {
			double d = 0.0;

			for (int j = 0; j < D; j++)
				d += pow((double)zs[i * D + j] - (double)es[k * D + j], 2.0);
			least = d < least ? d : least;
			mine = k == at[i] ? d : mine;
		}
		worst = fmax(worst, mine / least - 1.0);
	}
	if (!rc && !(worst <= 1e-5))
		snprintf(r->why, sizeof r->why, "a chosen code is %g farther than the nearest", worst);
	return rc;
}

static const struct codes k_small = { 5, 7, 3, 0 }, k_pad = { 77, 530, 37, 5 }, k_one = { 3, 1, 4, 0 },
			  k_large = { 100, 2048, 64, 0 };

/* ---- pixels ---- */

/* Every byte; and the number in the middle of each byte's interval comes back as that byte. */
static int pixels_all(struct ops_run *r, const void *arg)
{
	float mid[256];
	uint8_t back[256];
	struct lk_view bytes = ops_ints(r, LK_U8, 0, 256, 3, 3, 11, 257), y = ops_out(r, "y", OPS_ACT, 3, 3, 11, 257);
	struct lk_view exact = ops_out(r, "exact", LK_F32, 3, 3, 11, 257); /* bf16 is too coarse for the way back */
	struct lk_view again = ops_out(r, "again", LK_U8, 3, 3, 11, 257), x, u = ops_out(r, "u", LK_U8, 1, 256);
	int rc;

	(void)arg;
	for (int i = 0; i < 256; i++)
		mid[i] = ((float)i + 0.5f) / 127.5f - 1.0f;
	x = ops_given_f32(r, OPS_ACT, mid, 1, 256);
	rc = lk_pixels(r->dev, &y, &bytes);
	if (!rc)
		rc = lk_pixels(r->dev, &exact, &bytes);
	if (!rc)
		rc = lk_pixels(r->dev, &again, &exact);
	if (!rc)
		rc = lk_pixels(r->dev, &u, &x);
	if (!rc)
		rc = lk_download(r->dev, back, u.data, sizeof back);
	for (int i = 0; !rc && lk_dev_dtype(r->dev) == LK_F32 && !r->bf16 && i < 256; i++)
		if (back[i] != i)
			snprintf(r->why, sizeof r->why, "%.9g became %d, not %d", (double)mid[i], back[i], i);
	return rc;
}

static int pixels_odd(struct ops_run *r, const void *arg)
{
	static const float odd[] = { -1.0f, 1.0f, -1.5f, 1.5f, 0.0f, -0.0f, 3e38f, -3e38f, INFINITY, -INFINITY, 0.999f };
	static const uint8_t want[] = { 0, 255, 0, 255, 127, 127, 255, 0, 255, 0, 254 };
	uint8_t got[N(want)];
	struct lk_view x = ops_given_f32(r, OPS_ACT, odd, 1, N(odd)), y = ops_out(r, "y", LK_U8, 1, N(odd));
	int rc = lk_pixels(r->dev, &y, &x);

	(void)arg;
	if (!rc)
		rc = lk_download(r->dev, got, y.data, sizeof got);
	for (int i = 0; !rc && i < N(want) - r->bf16; i++) /* bf16 has no 0.999 */
		if (got[i] != want[i])
			snprintf(r->why, sizeof r->why, "%g became %d, not %d", (double)odd[i], got[i], want[i]);
	return rc;
}

static int bad_pixels(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_in(r, OPS_ACT, 1, 8), y = ops_in(r, OPS_ACT, 1, 8);

	(void)arg;
	return lk_pixels(r->dev, &y, &x);
}

/* ---- reconstruction loss ---- */

static int loss(struct ops_run *r, const void *arg)
{
	const int *n = arg;
	struct lk_view x = ops_in(r, OPS_ACT, 2, 3, *n), t = ops_in(r, OPS_ACT, 2, 3, *n);
	struct lk_view dx = ops_out(r, "dx", OPS_ACT, 2, 3, *n);
	double both[2], alone[2];
	int rc = lk_recon_loss(r->dev, &dx, &x, &t, 0.75f, 0.25f, both);

	if (!rc)
		rc = lk_recon_loss(r->dev, NULL, &x, &t, 1.0f, 1.0f, alone);
	if (rc)
		return rc;
	ops_value(r, "l1", both[0]);
	ops_value(r, "l2", both[1]);
	if (alone[0] != both[0] || alone[1] != both[1])
		snprintf(r->why, sizeof r->why, "the loss without a gradient differs");
	return 0;
}

static int loss_grad(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_var(r, "x", 2, 3, 50), t = ops_in(r, LK_F32, 2, 3, 50), dx;
	double l[2];
	int rc;

	(void)arg;
	dx = ops_out(r, "dx", LK_F32, 2, 3, 50);
	rc = lk_recon_loss(r->dev, &dx, &x, &t, 0.6f, 0.4f, l);
	r->loss += 0.6 * l[0] + 0.4 * l[1];
	if (!rc && r->want_grad)
		ops_grad(r, "x", &dx);
	return rc;
}

/* An element without difference has no gradient. */
static int loss_equal(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_in(r, OPS_ACT, 1, 37), dx = ops_out(r, "dx", OPS_ACT, 1, 37);
	double l[2];
	int rc = lk_recon_loss(r->dev, &dx, &x, &x, 1.0f, 1.0f, l);

	(void)arg;
	if (!rc && (l[0] != 0.0 || l[1] != 0.0))
		snprintf(r->why, sizeof r->why, "the loss of equal images is %g, %g", l[0], l[1]);
	return rc;
}

static const int l_small = 7, l_large = 30011;

#define FWD(name, c) { name, OPS_CMP, conv_fwd, &c, 1e-5, 1e-2, conv_sums }
#define BWD(name, c) { name, OPS_CMP, conv_bwd, &c, 1e-5, 1e-2, conv_sums }
#define CMP(name, run, arg, tol32, tol16, why) { name, OPS_CMP, run, arg, tol32, tol16, why }
#define GRAD(name, run, arg) { name, OPS_GRAD, run, arg, 5e-3, 0, "central differences of an fp32 loss" }
#define BAD(name, run) { name, OPS_BAD, run, NULL, 0, 0, NULL }

static const struct ops_case cases[] = {
	FWD("conv 3x3 of 3 channels", c_first), FWD("conv 3x3 to 3 channels", c_last), FWD("conv 3x3 odd", c_odd),
	FWD("conv 3x3 64 channels", c_even), FWD("conv 3x3 70x66", c_many), FWD("conv 3x3 of 30 images", c_batch),
	FWD("conv 3x3 of one pixel", c_dot), FWD("conv 3x3 uneven padding", c_wide_pad), FWD("conv 1x1", c_point),
	FWD("conv 1x1 stride 2", c_point_s2), FWD("conv stride 2", c_down), FWD("conv stride 2 odd", c_down_odd),
	FWD("conv doubled", c_up), FWD("conv doubled, few channels", c_up_thin), FWD("conv 5x2 stride 3", c_any),
	FWD("conv 4x3 doubled stride 2", c_up_s2), FWD("conv 3x5 doubled stride 3", c_up_s3),
	FWD("conv 3x3 to 128 channels", c_wide), FWD("conv 1x1 to 376 channels", c_wider),
	FWD("conv 3x3 128 channels", c_deep), FWD("conv stride 2 to 128 channels", c_down_wide),
	FWD("conv doubled to 128 channels", c_up_wide), FWD("conv 4x4 stride 2 to 128 channels", c_down_even),
	FWD("conv 1x1 stride 2 to 128 channels", c_point_wide),
	BWD("conv_bwd 3x3 of 3 channels", c_first), BWD("conv_bwd 3x3 to 3 channels", c_last),
	BWD("conv_bwd 3x3 odd", c_odd), BWD("conv_bwd 3x3 64 channels", c_even), BWD("conv_bwd 3x3 70x66", c_many),
	BWD("conv_bwd 3x3 of 30 images", c_batch), BWD("conv_bwd 3x3 of one pixel", c_dot),
	BWD("conv_bwd 3x3 uneven padding", c_wide_pad), BWD("conv_bwd 1x1", c_point),
	BWD("conv_bwd 1x1 stride 2", c_point_s2), BWD("conv_bwd stride 2", c_down),
	BWD("conv_bwd stride 2 odd", c_down_odd), BWD("conv_bwd doubled", c_up),
	BWD("conv_bwd doubled, few channels", c_up_thin), BWD("conv_bwd 5x2 stride 3", c_any),
	BWD("conv_bwd 4x3 doubled stride 2", c_up_s2), BWD("conv_bwd 3x5 doubled stride 3", c_up_s3),
	BWD("conv_bwd 3x3 to 128 channels", c_wide), BWD("conv_bwd 1x1 to 376 channels", c_wider),
	BWD("conv_bwd 3x3 128 channels", c_deep), BWD("conv_bwd stride 2 to 128 channels", c_down_wide),
	BWD("conv_bwd doubled to 128 channels", c_up_wide), BWD("conv_bwd 4x4 stride 2 to 128 channels", c_down_even),
	BWD("conv_bwd 1x1 stride 2 to 128 channels", c_point_wide),
	CMP("conv_bwd 3x3, one gradient at a time", conv_bwd_parts, &c_odd, 1e-5, 1e-2, conv_sums),
	CMP("conv_bwd stride 2, one gradient at a time", conv_bwd_parts, &c_down_odd, 1e-5, 1e-2, conv_sums),
	CMP("conv_refresh 3x3", conv_refresh, &c_odd, 1e-5, 1e-2, conv_sums),
	CMP("conv_refresh stride 2", conv_refresh, &c_down_odd, 1e-5, 1e-2, conv_sums),
	CMP("conv_refresh doubled", conv_refresh, &c_up, 1e-5, 1e-2, conv_sums),
	CMP("groupnorm", norm_fwd, &n_plain, 2e-6, 6e-3, sums),
	CMP("groupnorm silu", norm_fwd, &n_silu, 2e-6, 6e-3, sums),
	CMP("groupnorm 2 channels a group", norm_fwd, &n_thin, 2e-6, 6e-3, sums),
	CMP("groupnorm one group", norm_fwd, &n_one, 4e-5, 6e-3, cancel),
	CMP("groupnorm 5 images", norm_fwd, &n_batch, 4e-5, 6e-3, cancel),
	CMP("groupnorm 72x73", norm_fwd, &n_large, 4e-5, 6e-3, cancel),
	CMP("groupnorm 2056 channels", norm_fwd, &n_wide, 4e-5, 6e-3, cancel),
	CMP("groupnorm 258 channels", norm_fwd, &n_wide_odd, 4e-5, 6e-3, cancel),
	CMP("groupnorm in place", norm_in_place, &n_silu, 2e-6, 6e-3, sums),
	CMP("groupnorm in place 72x73", norm_in_place, &n_large, 4e-5, 6e-3, cancel),
	CMP("groupnorm far from zero", norm_far_mean, NULL, 2e-6, 2e-6, "sums around the first pixel"),
	CMP("groupnorm_bwd", norm_bwd, &n_plain, 5e-6, 1e-2, sums),
	CMP("groupnorm_bwd silu", norm_bwd, &n_silu, 5e-6, 1e-2, sums),
	CMP("groupnorm_bwd 2 channels a group", norm_bwd, &n_thin, 5e-6, 1e-2, sums),
	CMP("groupnorm_bwd one group", norm_bwd, &n_one, 4e-5, 1e-2, cancel),
	CMP("groupnorm_bwd 5 images", norm_bwd, &n_batch, 4e-5, 1e-2, cancel),
	CMP("groupnorm_bwd 72x73", norm_bwd, &n_large, 4e-5, 1e-2, cancel),
	CMP("groupnorm_bwd 2056 channels", norm_bwd, &n_wide, 4e-5, 1e-2, cancel),
	CMP("groupnorm_bwd 258 channels", norm_bwd, &n_wide_odd, 4e-5, 1e-2, cancel),
	CMP("groupnorm_bwd in place", norm_bwd_in_place, &n_silu, 5e-6, 1e-2, sums),
	CMP("groupnorm_bwd in place 72x73", norm_bwd_in_place, &n_large, 4e-5, 1e-2, cancel),
	CMP("nearest_code 5 of 7", nearest, &k_small, 0, 0, "the code, not its distance"),
	CMP("nearest_code 77 of 530 padded", nearest, &k_pad, 0, 0, "the code, not its distance"),
	CMP("nearest_code of one", nearest, &k_one, 0, 0, "the code, not its distance"),
	CMP("nearest_code 100 of 2048", nearest, &k_large, 0, 0, "the code, not its distance"),
	CMP("nearest_code ties", nearest_ties, NULL, 0, 0, "distances are whole numbers"),
	CMP("nearest_code close codes", nearest_close, NULL, 0, 0, "checked in the case"),
	CMP("pixels", pixels_all, NULL, 0, 8e-3, "defined to the bit in fp32"),
	CMP("pixels of odd numbers", pixels_odd, NULL, 0, 0, "defined to the bit"),
	CMP("recon_loss 3x7", loss, &l_small, 1e-6, 8e-3, sums),
	CMP("recon_loss 3x30011", loss, &l_large, 1e-6, 8e-3, sums),
	CMP("recon_loss of equals", loss_equal, NULL, 0, 0, "zero"),
	GRAD("conv 3x3 gradient", conv_grad, &c_tiny), GRAD("conv stride 2 gradient", conv_grad, &c_tiny_down),
	GRAD("conv doubled gradient", conv_grad, &c_tiny_up), GRAD("conv doubled stride 3 gradient", conv_grad, &c_up_s3),
	GRAD("groupnorm gradient", norm_grad, &n_grad), GRAD("groupnorm silu gradient", norm_grad, &n_grad_silu),
	GRAD("recon_loss gradient", loss_grad, NULL),
	BAD("conv to an image of another size", bad_conv_size), BAD("conv onto its input", bad_conv_alias),
	BAD("group norm of 10 channels in 4 groups", bad_groups), BAD("pixels without bytes", bad_pixels),
};

const struct ops_family ops_family_image = { "image", cases, N(cases) };
