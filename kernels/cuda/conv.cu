/* conv.cu - the convolution's ops: weights, scratch, and the passes as products (see conv_plan.h). */
#include <stdlib.h>

#include "kernels/cuda/conv_int.h"

static struct lk_conv_packs *packs(const struct lk_conv *c)
{
	return static_cast<struct lk_conv_packs *>(c->impl);
}

static int pack_weights(struct lk_dev *dev, struct lk_conv *c, int backward)
{
	void *p = packs(c)->w[backward];
	int64_t bytes = lk_conv_packed(&c->g, backward) * static_cast<int64_t>(sizeof(lk_bf16));

	if (!p) {
		int rc = dev->ops.memory.mem_alloc(dev, static_cast<size_t>(bytes ? bytes : 2), &p);

		if (rc)
			return rc;
		packs(c)->w[backward] = static_cast<lk_bf16 *>(p);
	}
	return lk_conv_pack(dev, packs(c)->w[backward], &c->g, backward, c->w);
}

static void conv_free(struct lk_conv *c)
{
	for (int i = 0; i < 2 && c->impl; i++)
		if (packs(c)->w[i])
			c->dev->ops.memory.mem_free(c->dev, packs(c)->w[i]);
	free(c->impl);
	c->impl = nullptr;
}

static int conv_new(struct lk_dev *dev, struct lk_conv *c)
{
	int rc;

	c->impl = calloc(1, sizeof(struct lk_conv_packs));
	if (!c->impl)
		return lk_cuda_fail(dev, LK_ENOMEM, "conv_new: out of memory");
	rc = pack_weights(dev, c, 0);
	if (rc)
		conv_free(c);
	return rc;
}

static int conv_refresh(struct lk_dev *dev, struct lk_conv *c)
{
	int rc = pack_weights(dev, c, 0);

	return rc || !packs(c)->w[1] ? rc : pack_weights(dev, c, 1);
}

/* ---- images as the kernels want them ---- */

struct image {
	const struct lk_view *v;
	lk_bf16 *padded; /* in scratch, or NULL */
};

static int all_bf16(struct lk_dev *dev, const char *op, const struct lk_view *a, const struct lk_view *b,
		    const struct lk_view *c)
{
	if (a->dtype == LK_BF16 && b->dtype == LK_BF16 && (!c || c->dtype == LK_BF16))
		return 0;
	return lk_cuda_fail(dev, LK_EUNSUP, "%s: images are bf16 on this device", op);
}

static int64_t pixels_of(const struct lk_view *v)
{
	return v->n[0] * v->n[1] * v->n[2];
}

static struct image cut_image(struct lk_cutter *cut, const struct lk_view *v)
{
	struct image im = { v, nullptr };

	if (v->n[3] % 8 || !lk_aligned16(v->data))
		im.padded = static_cast<lk_bf16 *>(lk_cut(cut, pixels_of(v) * lk_round_up(v->n[3], 8) *
								       static_cast<int64_t>(sizeof(lk_bf16))));
	return im;
}

static int fill_image(struct lk_dev *dev, const struct image *im)
{
	if (!im->padded)
		return 0;
	return lk_conv_pad(dev, im->padded, static_cast<const lk_bf16 *>(im->v->data), pixels_of(im->v),
			   static_cast<int32_t>(im->v->n[3]));
}

static const lk_bf16 *image_data(const struct image *im)
{
	return im->padded ? im->padded : static_cast<const lk_bf16 *>(im->v->data);
}

/* ---- passes ---- */

/* LWM_CUDA_CONV=mma keeps to the instructions that every chip has. */
static int run_product(struct lk_dev *dev, const struct lk_conv_gemm *p)
{
	const char *s = getenv("LWM_CUDA_CONV");
	int rc = s && strcmp(s, "mma") == 0 ? LK_EUNSUP : lk_conv_product_sm90(dev, p);

	return rc == LK_EUNSUP ? lk_conv_product_mma(dev, p) : rc;
}

/* dst = window over src, phase by phase. bias, add: forward only, may be NULL. */
static int run_pass(struct lk_dev *dev, const struct lk_conv *c, int backward, const struct lk_view *dst,
		    const struct image *src, const float *bias, const struct lk_view *add)
{
	struct lk_conv_dim rows = lk_conv_rows(&c->g, backward);
	int32_t steps = lk_conv_steps(&rows), n = static_cast<int32_t>(dst->n[3]);
	const lk_bf16 *w = packs(c)->w[backward];
	int rc = 0;

	for (int32_t i = 0; i < steps * steps && !rc; i++) {
		struct lk_conv_phase p = lk_conv_phase_of(&c->g, backward, i, dst->n[1], dst->n[2]);
		struct lk_conv_gemm a = {};

		a.src = image_data(src);
		a.w = w;
		a.add = add ? static_cast<const lk_bf16 *>(add->data) : nullptr;
		a.bias = bias;
		a.dst = static_cast<lk_bf16 *>(dst->data);
		a.m = dst->n[0] * p.y.count * p.x.count;
		a.n = n;
		a.c8 = static_cast<int32_t>(lk_ceil_div(src->v->n[3], 8));
		a.k = static_cast<int32_t>(p.k);
		a.h = static_cast<int32_t>(src->v->n[1]);
		a.w_src = static_cast<int32_t>(src->v->n[2]);
		a.oh = static_cast<int32_t>(dst->n[1]);
		a.ow = static_cast<int32_t>(dst->n[2]);
		a.y = p.y;
		a.x = p.x;
		a.wide = n % 8 == 0 && lk_aligned16(a.dst) && lk_aligned16(a.add);
		w += n * p.k;
		if (a.m)
			rc = run_product(dev, &a);
	}
	return rc;
}

static int conv_fwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *y, const struct lk_view *x,
		    const struct lk_view *add)
{
	struct lk_cutter cut = { nullptr, 0 };
	struct image src;
	int rc = all_bf16(dev, "conv_fwd", y, x, add);

	if (rc)
		return rc;
	cut_image(&cut, x);
	if (cut.used) {
		cut.base = static_cast<char *>(lk_scratch(dev, "conv_fwd", cut.used));
		if (!cut.base)
			return LK_ENOMEM;
		cut.used = 0;
	}
	src = cut_image(&cut, x);
	rc = fill_image(dev, &src);
	return rc ? rc : run_pass(dev, c, 0, y, &src, c->bias, add);
}

/* ---- backward ---- */

struct backward {
	struct image x, dy;
	struct lk_conv_dw w;
	float *db_part;
};

/* Sizes and places of everything that the gradients need. */
static struct backward cut_backward(struct lk_cutter *cut, const struct lk_conv *c, float *dw, const float *db,
				    const struct lk_view *dy, const struct lk_view *x)
{
	const int64_t size = static_cast<int64_t>(c->g.kh) * c->g.kw * c->g.cin * c->g.cout, f = sizeof(float);
	struct backward b = {};
	struct lk_conv_dw *w = &b.w;

	b.dy = cut_image(cut, dy);
	b.x.v = x;
	if (db)
		b.db_part = static_cast<float *>(lk_cut(cut, lk_conv_db_parts(pixels_of(dy)) * c->g.cout * f));
	if (!dw)
		return b;
	b.x = cut_image(cut, x);
	w->g = c->g;
	w->dw = dw;
	w->pixels = pixels_of(dy);
	w->cx8 = static_cast<int32_t>(lk_ceil_div(c->g.cin, 8));
	w->cy8 = static_cast<int32_t>(lk_ceil_div(c->g.cout, 8));
	w->h = static_cast<int32_t>(x->n[1]);
	w->w = static_cast<int32_t>(x->n[2]);
	w->oh = static_cast<int32_t>(dy->n[1]);
	w->ow = static_cast<int32_t>(dy->n[2]);
	w->splits = static_cast<int32_t>(lk_conv_splits(lk_conv_dw_tiles(&c->g), w->pixels, size));
	w->per = lk_round_up(lk_ceil_div(w->pixels, w->splits), LK_CONV_BK);
	w->splits = static_cast<int32_t>(lk_ceil_div(w->pixels, w->per));
	w->part = w->splits > 1 ? static_cast<float *>(lk_cut(cut, w->splits * size * f)) : nullptr;
	w->x = image_data(&b.x);
	w->dy = image_data(&b.dy);
	return b;
}

static int run_backward(struct lk_dev *dev, struct lk_conv *c, const struct backward *b, const struct lk_view *dx, float *dw,
			float *db)
{
	const struct lk_view *dy = b->dy.v;
	int rc = dx || dw ? fill_image(dev, &b->dy) : 0;

	if (!rc && dw)
		rc = fill_image(dev, &b->x);
	if (!rc && dw)
		rc = lk_conv_weight_grad(dev, &b->w);
	if (!rc && db)
		rc = lk_conv_bias_grad(dev, db, b->db_part, static_cast<const lk_bf16 *>(dy->data), pixels_of(dy), c->g.cout);
	if (!rc && dx && !packs(c)->w[1])
		rc = pack_weights(dev, c, 1);
	return rc || !dx ? rc : run_pass(dev, c, 1, dx, &b->dy, nullptr, nullptr);
}

static int conv_bwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *dx, float *dw, float *db,
		    const struct lk_view *dy, const struct lk_view *x)
{
	struct lk_cutter cut = { nullptr, 0 };
	struct backward b;
	int rc = all_bf16(dev, "conv_bwd", dy, x, dx);

	if (rc)
		return rc;
	cut_backward(&cut, c, dw, db, dy, x);
	if (cut.used) {
		cut.base = static_cast<char *>(lk_scratch(dev, "conv_bwd", cut.used));
		if (!cut.base)
			return LK_ENOMEM;
		cut.used = 0;
	}
	b = cut_backward(&cut, c, dw, db, dy, x);
	return run_backward(dev, c, &b, dx, dw, db);
}

void lk_cuda_fill_conv(struct lk_ops *o)
{
	o->image.conv_new = conv_new;
	o->image.conv_refresh = conv_refresh;
	o->image.conv_free = conv_free;
	o->image.conv_fwd = conv_fwd;
	o->image.conv_bwd = conv_bwd;
}
