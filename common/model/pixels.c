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

/* diff becomes the gradient of all it came from. */
static int pixels_backward(struct lwm_pixels *p, const struct lwm_pixels_step *s, const int64_t *at, struct lk_view *diff,
			   const struct lk_view *rx, struct lwm_err *e)
{
	struct lk_view dy = *diff, drx = lk_view2(p->block + at[B_DRX], p->dtype, s->n, p->dim), g = s->g, dh = s->dh;
	size_t bytes = (size_t)(dh.n[0] * dh.n[1]) * lk_dtype_size(p->dtype);

	LWM_TRY(lwm_dev_check(p->dev, lk_scale(p->dev, diff, 2.0f / (float)p->numbers), e));
	if (p->dtype != LK_F32) {
		dy = lk_view2(p->block + at[B_DY], p->dtype, s->n, p->numbers);
		LWM_TRY(lwm_dev_check(p->dev, lk_cast(p->dev, &dy, diff), e));
	}
	LWM_TRY(lwm_dev_check(p->dev, lk_matmul(p->dev, &g, &dy, rx, LK_TA | LK_ACC, 1.0f), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_matmul(p->dev, &drx, &dy, &s->w, 0, 1.0f), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_zero(p->dev, dh.data, bytes), e));
	return lwm_dev_check(p->dev, lk_scatter_add_rows(p->dev, &dh, &drx, (int32_t *)(p->block + at[B_IDX])), e);
}

int lwm_pixels_loss(struct lwm_pixels *p, const struct lwm_pixels_step *s, double *loss, float *what, struct lwm_err *e)
{
	int64_t at[BUFS + 1], n = s->n;
	size_t bytes = (size_t)(n * p->numbers) * sizeof(float);

	LWM_BUG_ON(n < 1 || n > p->rows);
	lay_out(at, p->rows, p->dim, p->numbers, p->dtype, p->train);
	struct lk_view rx = lk_view2(p->block + at[B_RX], p->dtype, n, p->dim);
	struct lk_view y = lk_view2(p->block + at[B_Y], LK_F32, n, p->numbers);
	struct lk_view t = lk_view2(p->block + at[B_TARGET], LK_F32, n, p->numbers);
	int32_t *idx = (int32_t *)(p->block + at[B_IDX]);
	LWM_TRY(lwm_dev_check(p->dev, lk_upload(p->dev, idx, s->idx, (size_t)n * sizeof *idx), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_upload(p->dev, t.data, s->target, bytes), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_gather_rows(p->dev, &rx, &s->h, idx), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_matmul(p->dev, &y, &rx, &s->w, LK_TB, 1.0f), e));
	if (what)
		LWM_TRY(lwm_dev_check(p->dev, lk_download(p->dev, what, y.data, bytes), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_axpy(p->dev, &y, -1.0f, &t), e));
	LWM_TRY(lwm_dev_check(p->dev, lk_download(p->dev, p->diff, y.data, bytes), e));
	for (int64_t i = 0; i < n; i++) {
		loss[i] = 0;
		for (int64_t k = 0; k < p->numbers; k++)
			loss[i] += (double)p->diff[i * p->numbers + k] * (double)p->diff[i * p->numbers + k] / (double)p->numbers;
	}
	return s->g.data ? pixels_backward(p, s, at, &y, &rx, e) : 0;
}
