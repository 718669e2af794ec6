/* attn_cache.c - attention over caches: the new tokens of each stream see all of its cache, themselves included.
 *
 * A step is the tokens of all streams end to end. Each stream's keys and values go into its cache, then its queries look at that
 * cache alone, so that streams of different length run in one pass through the model. The first half of this file is what every
 * body over caches needs.
 */
#include "common/infer/attn_cache.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/comm/device.h"

/* ---- what bodies share ---- */

static int allocate_step(struct lwm_kv *kv, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, int64_t max_chunk,
			 int64_t max_streams, struct lwm_err *e)
{
	int64_t most = max_chunk > max_streams ? max_chunk : max_streams;

	kv->cfg = *cfg;
	kv->max_chunk = max_chunk;
	kv->max_streams = max_streams;
	kv->work.dev = dev;
	kv->host = malloc((size_t)most * 3 * sizeof *kv->host);
	kv->query = calloc((size_t)max_streams, sizeof *kv->query);
	if (!kv->host || !kv->query)
		return lwm_fail(e, LWM_EMEMORY, "no memory to generate %" PRId64 " streams", max_streams);
	return lwm_cache_work_init(&kv->work, dev, most, e);
}

int lwm_kv_create(struct lwm_kv **out, size_t size, const struct lwm_attn_ops *attn, const struct lwm_kv_ops *ops,
		  struct lk_dev *dev, const struct lwm_llama_cfg *cfg, int64_t max_chunk, int64_t max_streams, struct lwm_err *e)
{
	struct lwm_kv *kv = calloc(1, size);
	int rc;

	*out = NULL;
	if (!kv)
		return lwm_fail(e, LWM_EMEMORY, "no memory to generate");
	kv->base.ops = attn;
	kv->ops = ops;
	rc = allocate_step(kv, dev, cfg, max_chunk, max_streams, e);
	if (rc < 0)
		lwm_kv_free(&kv->base);
	else
		*out = kv;
	return rc;
}

void lwm_kv_free(struct lwm_attn *a)
{
	struct lwm_kv *kv = (struct lwm_kv *)a;

	for (int64_t i = 0; kv->query && i < kv->max_streams; i++)
		lk_seq_free(kv->query[i]);
	lk_seq_free(kv->rows);
	lwm_cache_work_release(&kv->work);
	free(kv->host);
	free(kv->query);
	free(kv);
}

void lwm_kv_take(struct lwm_kv *kv, struct lwm_cache *const *caches, int64_t streams, const int32_t *ids, int64_t per_stream)
{
	int32_t *pos = kv->host, *seg = kv->host + kv->work.tokens;

	for (int64_t s = 0; s < streams; s++)
		for (int64_t i = 0; i < per_stream; i++) {
			pos[s * per_stream + i] = (int32_t)(caches[s]->length + i);
			seg[s * per_stream + i] = (int32_t)s;
		}
	kv->step = (struct lwm_kv_step){ .caches = caches, .streams = streams, .per_stream = per_stream, .n = streams * per_stream,
					 .ids = ids, .pos = pos, .seg = seg, .taken = per_stream, .row = per_stream - 1 };
}

int lwm_kv_begin(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	struct lwm_kv *kv = (struct lwm_kv *)a;
	struct lk_dev *dev = kv->work.dev;
	int64_t each = kv->step.per_stream;

	for (int64_t s = 0; s < kv->step.streams; s++) {
		LWM_TRY(lwm_cache_reach(kv->step.caches[s], each, e));
		lk_seq_free(kv->query[s]);
		kv->query[s] = NULL;
		LWM_TRY(lwm_dev_check(dev, lk_seq_new(dev, &kv->query[s], each, pos + s * each, NULL), e));
	}
	lk_seq_free(kv->rows);
	kv->rows = NULL;
	return lwm_dev_check(dev, lk_seq_new(dev, &kv->rows, n, pos, seg), e);
}

const int32_t *lwm_kv_positions(const struct lwm_attn *a)
{
	return lk_seq_pos(((const struct lwm_kv *)a)->rows);
}

void lwm_kv_grow(struct lwm_kv *kv)
{
	for (int64_t s = 0; s < kv->step.streams; s++)
		lwm_cache_grow(kv->step.caches[s], kv->step.per_stream);
}

/* ---- one rank, the whole context ---- */

static int take_chunk(struct lwm_kv *kv, struct lwm_cache *const *c, const int32_t *ids, int64_t n, struct lwm_err *e)
{
	(void)e;
	lwm_kv_take(kv, c, 1, ids, n < kv->max_chunk ? n : kv->max_chunk);
	return 0;
}

static int attend_streams(struct lwm_attn *a, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse,
			  int failed, struct lwm_err *e)
{
	struct lwm_kv *kv = (struct lwm_kv *)a;
	int64_t n = kv->step.per_stream;

	if (failed)
		return failed;
	for (int64_t s = 0; s < kv->step.streams; s++) {
		struct lwm_attn_qkv own = { lwm_view_rows(&x->q, s * n, n), lwm_view_rows(&x->k, s * n, n),
					    lwm_view_rows(&x->v, s * n, n) };
		struct lk_view y = lwm_view_rows(o, s * n, n);

		LWM_TRY(lwm_cache_store(kv->step.caches[s], &kv->work, layer, &own, e));
		LWM_TRY(lwm_cache_attend(kv->step.caches[s], &kv->work, kv->query[s], layer, &own.q, &y,
					 lse + s * n * kv->cfg.heads, e));
	}
	return 0;
}

static const struct lwm_attn_ops attn_ops = { lwm_kv_begin, lwm_kv_positions, attend_streams, NULL, lwm_kv_free };
static const struct lwm_kv_ops kv_ops = { take_chunk, NULL, lwm_kv_grow };

int lwm_attn_cache_new(struct lwm_kv **out, struct lk_dev *dev, const struct lwm_llama_cfg *cfg, int64_t max_chunk,
		       int64_t max_streams, struct lwm_err *e)
{
	return lwm_kv_create(out, sizeof **out, &attn_ops, &kv_ops, dev, cfg, max_chunk, max_streams, e);
}
