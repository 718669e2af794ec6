/* image_conv.c - convolution and its backward, plain loops over NHWC in double precision.
 *
 * Everything is written over the virtual input that upsample makes: pixel (u,v) of it is pixel (u/up, v/up) of x.
 */
#include "kernels/ref/ref_int.h"

enum { CO_BLOCK = 64 }; /* output channels summed at once */

struct conv_shape {
	int64_t n, h, w, oh, ow;
	const struct lk_conv_geom *g;
};

static struct conv_shape shape_of(const struct lk_conv *c, const struct lk_view *x, const struct lk_view *y)
{
	struct conv_shape s = { x->n[0], x->n[1], x->n[2], y->n[1], y->n[2], &c->g };
	return s;
}

/* Index of the first channel of the input pixel under tap (ki,kj) of output pixel (oy,ox); -1: padding. */
static int64_t input_at(const struct conv_shape *s, int64_t img, int64_t oy, int64_t ox, int32_t ki, int32_t kj)
{
	const struct lk_conv_geom *g = s->g;
	int64_t u = oy * g->stride + ki - g->pad_top, v = ox * g->stride + kj - g->pad_left;
	if (u < 0 || v < 0 || u >= s->h * g->upsample || v >= s->w * g->upsample)
		return -1;
	return ((img * s->h + u / g->upsample) * s->w + v / g->upsample) * g->cin;
}

/* Output channels [co, co + m) of one output pixel. */
static void fwd_pixel(const struct lk_conv *c, const struct conv_shape *s, float *y, const float *x, const float *add,
		      int64_t img, int64_t oy, int64_t ox, int64_t co, int64_t m)
{
	const struct lk_conv_geom *g = s->g;
	double acc[CO_BLOCK];
	for (int64_t j = 0; j < m; j++)
		acc[j] = (c->bias ? (double)c->bias[co + j] : 0.0) + (add ? (double)add[co + j] : 0.0);
	for (int32_t ki = 0; ki < g->kh; ki++) {
		for (int32_t kj = 0; kj < g->kw; kj++) {
			int64_t at = input_at(s, img, oy, ox, ki, kj);
			if (at < 0)
				continue;
			const float *w = c->w + (int64_t)(ki * g->kw + kj) * g->cin * g->cout + co;
			for (int32_t ci = 0; ci < g->cin; ci++, w += g->cout) {
				double xv = x[at + ci];
				for (int64_t j = 0; j < m; j++)
					acc[j] += xv * (double)w[j];
			}
		}
	}
	for (int64_t j = 0; j < m; j++)
		y[co + j] = (float)acc[j];
}

static int conv_fwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *y, const struct lk_view *x,
		    const struct lk_view *add)
{
	struct conv_shape s = shape_of(c, x, y);
	const float *xd = x->data, *ad = add ? add->data : NULL;
	float *yd = y->data;
	int64_t cout = c->g.cout;
	(void)dev;
	for (int64_t img = 0; img < s.n; img++) {
		for (int64_t oy = 0; oy < s.oh; oy++) {
			for (int64_t ox = 0; ox < s.ow; ox++) {
				int64_t at = ((img * s.oh + oy) * s.ow + ox) * cout;
				for (int64_t co = 0; co < cout; co += CO_BLOCK) {
					int64_t m = cout - co < CO_BLOCK ? cout - co : CO_BLOCK;
					fwd_pixel(c, &s, yd + at, xd, ad ? ad + at : NULL, img, oy, ox, co, m);
				}
			}
		}
	}
	return LK_OK;
}

/* Gradient of one tap at one output pixel: into dx (of that input pixel) and dw (of that tap), either may be NULL. */
static void bwd_tap(const struct lk_conv_geom *g, float *dx, float *dw, const float *dy, const float *x, const float *w)
{
	for (int32_t ci = 0; ci < g->cin; ci++, w += g->cout) {
		double sum = 0.0;
		for (int32_t co = 0; co < g->cout; co++)
			sum += (double)w[co] * (double)dy[co];
		if (dx)
			dx[ci] += (float)sum;
		if (dw)
			for (int32_t co = 0; co < g->cout; co++)
				dw[(int64_t)ci * g->cout + co] += x[ci] * dy[co];
	}
}

static void bwd_pixel(const struct lk_conv *c, const struct conv_shape *s, float *dx, float *dw, const float *dy,
		      const float *x, int64_t img, int64_t oy, int64_t ox)
{
	const struct lk_conv_geom *g = s->g;
	for (int32_t ki = 0; ki < g->kh; ki++) {
		for (int32_t kj = 0; kj < g->kw; kj++) {
			int64_t at = input_at(s, img, oy, ox, ki, kj);
			int64_t tap = (int64_t)(ki * g->kw + kj) * g->cin * g->cout;
			if (at >= 0)
				bwd_tap(g, dx ? dx + at : NULL, dw ? dw + tap : NULL, dy, x + at, c->w + tap);
		}
	}
}

static int conv_bwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *dx, float *dw, float *db,
		    const struct lk_view *dy, const struct lk_view *x)
{
	struct conv_shape s = shape_of(c, x, dy);
	float *dxd = dx ? dx->data : NULL;
	const float *dyd = dy->data, *xd = x->data;
	int64_t cout = c->g.cout;
	(void)dev;
	if (dxd)
		for (int64_t i = 0; i < s.n * s.h * s.w * c->g.cin; i++)
			dxd[i] = 0.0f;
	for (int64_t img = 0; img < s.n; img++) {
		for (int64_t oy = 0; oy < s.oh; oy++) {
			for (int64_t ox = 0; ox < s.ow; ox++, dyd += cout) {
				if (dxd || dw)
					bwd_pixel(c, &s, dxd, dw, dyd, xd, img, oy, ox);
				for (int64_t co = 0; db && co < cout; co++)
					db[co] += dyd[co];
			}
		}
	}
	return LK_OK;
}

/* The reference reads the borrowed weights as they are: nothing to prepare. */
static int conv_new(struct lk_dev *dev, struct lk_conv *c)
{
	(void)dev;
	c->impl = NULL;
	return LK_OK;
}

static int conv_refresh(struct lk_dev *dev, struct lk_conv *c)
{
	(void)dev;
	(void)c;
	return LK_OK;
}

static void conv_free(struct lk_conv *c)
{
	(void)c;
}

void lk_ref_fill_conv(struct lk_ops *o)
{
	o->image.conv_new = conv_new;
	o->image.conv_refresh = conv_refresh;
	o->image.conv_free = conv_free;
	o->image.conv_fwd = conv_fwd;
	o->image.conv_bwd = conv_bwd;
}
