/* Codes of patches predicted from hidden states. */
#include "common/model/codes.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/comm/device.h"

enum buf { B_IDX, B_TARGET, B_WEIGHT, B_NLL, B_HIT, B_RX, B_Y, B_DY, B_DRX, BUFS };

/* Rows of a piece. */
static int64_t piece_of(const struct lwm_codes_size *s)
{
	int64_t n = s->bytes / (s->each * s->codes * (int64_t)sizeof(float));

	return n < 1 ? 1 : n < s->rows ? n : s->rows;
}

/* Where the buffers begin, at[BUFS] their end: of all rows places, targets and what becomes of them; of a piece hidden states,
 * logits in fp32, their gradient as products take it, that of the hidden states. */
static void lay_out(int64_t at[BUFS + 1], const struct lwm_codes_size *s, int dtype)
{
	int64_t a = (int64_t)lk_dtype_size(dtype), all = s->rows * s->each * 4, k = piece_of(s), logits = k * s->each * s->codes;
	const int64_t bytes[BUFS] = { [B_IDX] = s->rows * 4, [B_TARGET] = all, [B_WEIGHT] = k * s->each * 4, [B_NLL] = all,
				      [B_HIT] = all, [B_RX] = k * s->dim * a, [B_Y] = logits * 4,
				      [B_DY] = s->train && a != 4 ? logits * a : 0, [B_DRX] = s->train ? k * s->dim * a : 0 };

	at[0] = 0;
	for (int i = 0; i < BUFS; i++)
		at[i + 1] = at[i] + lwm_round64(bytes[i]);
}

int64_t lwm_codes_bytes(const struct lwm_codes_size *s, int dtype)
{
	int64_t at[BUFS + 1];

	lay_out(at, s, dtype);
	return at[BUFS];
}

int64_t lwm_codes_arrays(const struct lwm_codes_size *s)
{
	return s->rows * s->each * 2 * (int64_t)sizeof(float);
}

int lwm_codes_init(struct lwm_codes *c, struct lk_dev *dev, const struct lwm_codes_size *s, struct lwm_err *e)
{
	void *block;

	*c = (struct lwm_codes){ .dev = dev, .size = *s, .dtype = lk_dev_dtype(dev) };
	c->host = malloc((size_t)lwm_codes_arrays(s));
	if (!c->host)
		return lwm_fail(e, LWM_EMEMORY, "no memory for the codes of %" PRId64 " patches", s->rows);
	LWM_TRY(lwm_dev_check(dev, lk_mem_alloc(dev, (size_t)lwm_codes_bytes(s, c->dtype), &block), e));
	c->block = block;
	return 0;
}

void lwm_codes_release(struct lwm_codes *c)
{
	if (c->dev)
		lk_mem_free(c->dev, c->block);
	free(c->host);
	memset(c, 0, sizeof *c);
}

#define K(call) LWM_TRY(lwm_dev_check(c->dev, (call), e))

/* Of rows idx, whose logits y are their gradient by now. */
static int piece_backward(struct lwm_codes *c, const struct lwm_codes_step *s, const int64_t at[BUFS + 1], const int32_t *idx,
			  const struct lk_view *rx, const struct lk_view *y, struct lwm_err *e)
{
	struct lk_view dy = *y, drx = lk_view2(c->block + at[B_DRX], c->dtype, y->n[0], c->size.dim);

	if (c->dtype != LK_F32) {
		dy = lk_view2(c->block + at[B_DY], c->dtype, y->n[0], y->n[1]);
		K(lk_cast(c->dev, &dy, y));
	}
	K(lk_matmul(c->dev, &s->g, &dy, rx, LK_TA | LK_ACC, 1.0f));
	K(lk_matmul(c->dev, &drx, &dy, &s->w, 0, 1.0f));
	K(lk_scatter_add_rows(c->dev, &s->dh, &drx, idx));
	return 0;
}

/* Rows [r, r + k). Logits of a row are `each` rows of K for their softmax. */
static int loss_piece(struct lwm_codes *c, const struct lwm_codes_step *s, const int64_t at[BUFS + 1], int64_t r, int64_t k,
		      struct lwm_err *e)
{
	int64_t each = c->size.each, codes = c->size.codes;
	const int32_t *idx = (int32_t *)(c->block + at[B_IDX]) + r, *target = (int32_t *)(c->block + at[B_TARGET]) + r * each;
	float *nll = (float *)(c->block + at[B_NLL]) + r * each, *hit = (float *)(c->block + at[B_HIT]) + r * each;
	struct lk_view rx = lk_view2(c->block + at[B_RX], c->dtype, k, c->size.dim);
	struct lk_view y = lk_view2(c->block + at[B_Y], LK_F32, k, each * codes), z = lk_view2(y.data, LK_F32, k * each, codes);

	K(lk_gather_rows(c->dev, &rx, &s->h, idx));
	K(lk_matmul(c->dev, &y, &rx, &s->w, LK_TB, 1.0f));
	K(lk_xent(c->dev, &z, target, (float *)(c->block + at[B_WEIGHT]), nll, hit, s->g.data != NULL));
	return s->g.data ? piece_backward(c, s, at, idx, &rx, &y, e) : 0;
}

int lwm_codes_loss(struct lwm_codes *c, const struct lwm_codes_step *s, double *loss, double *hits, struct lwm_err *e)
{
	int64_t at[BUFS + 1], n = s->n * c->size.each, most = piece_of(&c->size);
	float *nll = c->host, *hit = c->host + n, scale = s->scale > 0 ? s->scale : 1;

	LWM_BUG_ON(s->n < 1 || s->n > c->size.rows);
	lay_out(at, &c->size, c->dtype);
	K(lk_upload(c->dev, c->block + at[B_IDX], s->idx, (size_t)s->n * sizeof *s->idx));
	K(lk_upload(c->dev, c->block + at[B_TARGET], s->target, (size_t)n * sizeof *s->target));
	K(lk_fill(c->dev, (float *)(c->block + at[B_WEIGHT]), most * c->size.each, scale / (float)c->size.each));
	if (s->g.data)
		K(lk_zero(c->dev, s->dh.data, (size_t)(s->dh.n[0] * s->dh.n[1]) * lk_dtype_size(c->dtype)));
	for (int64_t r = 0; r < s->n; r += most)
		LWM_TRY(loss_piece(c, s, at, r, s->n - r < most ? s->n - r : most, e));
	K(lk_download(c->dev, nll, c->block + at[B_NLL], (size_t)n * sizeof *nll));
	K(lk_download(c->dev, hit, c->block + at[B_HIT], (size_t)n * sizeof *hit));
	for (int64_t i = 0; i < s->n; i++)
		loss[i] = hits[i] = 0;
	for (int64_t i = 0; i < n; i++) {
		loss[i / c->size.each] += (double)nll[i] / (double)c->size.each;
		hits[i / c->size.each] += (double)hit[i] / (double)c->size.each;
	}
	return 0;
}
