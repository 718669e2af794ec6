/* dense.c - matrix product, element-wise ops and the sum of squares; every sum in fp64, from the first term to the last. */
#include "kernels/ref/ref_int.h"

static int matmul(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
		  unsigned flags, float alpha)
{
	int ta = (flags & LK_TA) != 0, tb = (flags & LK_TB) != 0;
	int64_t depth = a->n[!ta];
	int64_t am = ta ? 1 : a->stride[0], ak = ta ? a->stride[0] : 1; // steps along M and K of op(a)
	int64_t bn = tb ? b->stride[0] : 1, bk = tb ? 1 : b->stride[0];
	const float *x = a->data, *y = b->data;

	(void)dev;
	for (int64_t i = 0; i < c->n[0]; i++) {
		for (int64_t j = 0; j < c->n[1]; j++) {
			double sum = 0;

			for (int64_t k = 0; k < depth; k++)
				sum += (double)x[i * am + k * ak] * y[j * bn + k * bk];
			sum = alpha * sum + (flags & LK_ACC ? lk_row(c, i)[j] : 0.0);
			lk_row(c, i)[j] = (float)sum;
		}
	}
	return 0;
}

static int fill(struct lk_dev *dev, float *p, int64_t n, float value)
{
	(void)dev;
	for (int64_t i = 0; i < n; i++)
		p[i] = value;
	return 0;
}

static int64_t count(const struct lk_view *v)
{
	int64_t n = 1;

	for (int i = 0; i < v->ndim; i++)
		n *= v->n[i];
	return n;
}

static int cast(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x)
{
	int64_t n = count(y);

	(void)dev;
	for (int64_t i = 0; i < n; i++)
		lk_put(y->data, y->dtype, i, lk_get(x->data, x->dtype, i));
	return 0;
}

static int axpy(struct lk_dev *dev, const struct lk_view *y, float a, const struct lk_view *x)
{
	int64_t n = count(y);

	(void)dev;
	for (int64_t i = 0; i < n; i++)
		lk_put(y->data, y->dtype, i, lk_get(y->data, y->dtype, i) + a * lk_get(x->data, x->dtype, i));
	return 0;
}

static int scale(struct lk_dev *dev, const struct lk_view *y, float a)
{
	int64_t n = count(y);

	(void)dev;
	for (int64_t i = 0; i < n; i++)
		lk_put(y->data, y->dtype, i, a * lk_get(y->data, y->dtype, i));
	return 0;
}

static int sumsq(struct lk_dev *dev, const float *x, int64_t n, double *host_out)
{
	double sum = 0;

	(void)dev;
	for (int64_t i = 0; i < n; i++)
		sum += (double)x[i] * x[i];
	*host_out = sum;
	return 0;
}

void lk_ref_fill_dense(struct lk_ops *o)
{
	o->dense.matmul = matmul;
	o->dense.fill = fill;
	o->dense.cast = cast;
	o->dense.axpy = axpy;
	o->dense.scale = scale;
	o->dense.sumsq = sumsq;
}
