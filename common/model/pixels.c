/* Patches predicted from hidden states. */
#include "common/model/pixels.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/comm/device.h"

enum buf { B_IDX, B_RX, B_Y, B_TARGET, B_DY, B_DRX, BUFS };

/* Where the buffers begin, at[BUFS] their end: rows of hidden states, what they predict in fp32, targets, the gradient as products
 * take it, that of the rows. */
static void lay_out(int64_t at[BUFS + 1], int64_t rows, int64_t dim, int64_t numbers, int dtype, bool train)
{
	int64_t a = (int64_t)lk_dtype_size(dtype);
	const int64_t bytes[BUFS] = { [B_IDX] = rows * 4, [B_RX] = rows * dim * a, [B_Y] = rows * numbers * 4,
				      [B_TARGET] = rows * numbers * 4, [B_DY] = train && a != 4 ? rows * numbers * a : 0,
				      [B_DRX] = train ? rows * dim * a : 0 };

	at[0] = 0;
	for (int i = 0; i < BUFS; i++)
		at[i + 1] = at[i] + lwm_round64(bytes[i]);
}

int64_t lwm_pixels_bytes(int64_t rows, int64_t dim, int64_t numbers, int dtype, bool train)
{
	int64_t at[BUFS + 1];

	lay_out(at, rows, dim, numbers, dtype, train);
	return at[BUFS];
}

int64_t lwm_pixels_arrays(int64_t rows, int64_t numbers)
{
	return rows * numbers * 4;
}

int lwm_pixels_init(struct lwm_pixels *p, struct lk_dev *dev, int64_t rows, int64_t dim, int64_t numbers, bool train,
		    struct lwm_err *e)
{
	void *block;

	*p = (struct lwm_pixels){ .dev = dev, .rows = rows, .dim = dim, .numbers = numbers, .train = train,
				  .dtype = lk_dev_dtype(dev) };
	p->diff = malloc((size_t)(rows * numbers) * sizeof *p->diff);
	if (!p->diff)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " patches", rows);
	LWM_TRY(lwm_dev_check(dev, lk_mem_alloc(dev, (size_t)lwm_pixels_bytes(rows, dim, numbers, p->dtype, train), &block), e));
	p->block = block;
	return 0;
}

void lwm_pixels_release(struct lwm_pixels *p)
{
	if (p->dev)
		lk_mem_free(p->dev, p->block);
	free(p->diff);
	memset(p, 0, sizeof *p);
}

/* The views of a step. */
struct rows {
	struct lk_view rx, y; /* hidden states; what is predicted, and afterwards its gradient: fp32 */
	int32_t *idx;
	int64_t at[BUFS + 1];
};

static struct rows rows_of(const struct lwm_pixels *p, int64_t n)
{
	struct rows r = { .at = { 0 } };

	LWM_BUG_ON(n < 1 || n > p->rows);
	lay_out(r.at, p->rows, p->dim, p->numbers, p->dtype, p->train);
	r.rx = lk_view2(p->block + r.at[B_RX], p->dtype, n, p->dim);
	r.y = lk_view2(p->block + r.at[B_Y], LK_F32, n, p->numbers);
	r.idx = (int32_t *)(p->block + r.at[B_IDX]);
	return r;
}

/* r->y becomes the gradient of all it came from. */
static int pixels_backward(struct lwm_pixels *p, const struct lwm_pixels_step *s, const struct rows *r, struct lwm_err *e)
{
	struct lk_view dy = r->y, drx = lk_view2(p->block + r->at[B_DRX], p->dtype, s->n, p->dim), g = s->g, dh = s->dh;
	size_t bytes = (size_t)(dh.n[0] * dh.n[1]) * lk_dtype_size(p->dtype);

	if (s->scale > 0 && s->scale != 1)
		LWM_TRY(lwm_dev_check(p->dev, lk_scale(p->dev, &r->y, s->scale), e));
	if (p->dtype != LK_F32) {
		dy = lk_view2(p->block + r->at[B_DY], p->dtype, s->n, p->numbers);
		LWM_TRY(lwm_dev_check(p->dev, lk_cast(p->dev, &dy, &r->y), e));
	}
	LWM_TRY(lwm_dev_check(p->dev, lk_matmul(p->dev, &g, &dy, &r->rx, LK_TA | LK_ACC, 1.0f), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_matmul(p->dev, &drx, &dy, &s->w, 0, 1.0f), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_zero(p->dev, dh.data, bytes), e));
	return lwm_dev_check(p->dev, lk_scatter_add_rows(p->dev, &dh, &drx, r->idx), e);
}

int lwm_pixels_predict(struct lwm_pixels *p, const struct lwm_pixels_step *s, float *y, struct lwm_err *e)
{
	struct rows r = rows_of(p, s->n);

	LWM_TRY(lwm_dev_check(p->dev, lk_upload(p->dev, r.idx, s->idx, (size_t)s->n * sizeof *r.idx), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_gather_rows(p->dev, &r.rx, &s->h, r.idx), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_matmul(p->dev, &r.y, &r.rx, &s->w, LK_TB, 1.0f), e));
	return y ? lwm_dev_check(p->dev, lk_download(p->dev, y, r.y.data, (size_t)(s->n * p->numbers) * sizeof *y), e) : 0;
}

int lwm_pixels_back(struct lwm_pixels *p, const struct lwm_pixels_step *s, const float *dy, struct lwm_err *e)
{
	struct rows r = rows_of(p, s->n);

	LWM_TRY(lwm_dev_check(p->dev, lk_upload(p->dev, r.y.data, dy, (size_t)(s->n * p->numbers) * sizeof *dy), e));
	return pixels_backward(p, s, &r, e);
}

int lwm_pixels_loss(struct lwm_pixels *p, const struct lwm_pixels_step *s, double *loss, float *what, struct lwm_err *e)
{
	struct rows r = rows_of(p, s->n);
	struct lk_view t = lk_view2(p->block + r.at[B_TARGET], LK_F32, s->n, p->numbers);
	size_t bytes = (size_t)(s->n * p->numbers) * sizeof(float);

	LWM_TRY(lwm_pixels_predict(p, s, what, e));
	LWM_TRY(lwm_dev_check(p->dev, lk_upload(p->dev, t.data, s->target, bytes), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_axpy(p->dev, &r.y, -1.0f, &t), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_download(p->dev, p->diff, r.y.data, bytes), e));
	for (int64_t i = 0; i < s->n; i++) {
		loss[i] = 0;
		for (int64_t k = 0; k < p->numbers; k++)
			loss[i] += (double)p->diff[i * p->numbers + k] * (double)p->diff[i * p->numbers + k] / (double)p->numbers;
	}
	if (!s->g.data)
		return 0;
	LWM_TRY(lwm_dev_check(p->dev, lk_scale(p->dev, &r.y, 2.0f / (float)p->numbers), e));
	return pixels_backward(p, s, &r, e);
}
