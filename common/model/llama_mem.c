/* llama_mem.c - how activations share one block, and views of them. */
#include <string.h>

#include "common/model/llama_int.h"

static void add_buf(struct lwm_buf_plan *p, enum lwm_buf_id b, int group, int64_t bytes, int64_t copies)
{
	p->bytes[b] = lwm_round64(bytes);
	p->copies[b] = copies;
	p->group[b] = group;
	p->offset[b] = p->total;
	p->total += p->bytes[b] * copies;
}

/* Slots of run->offload: the stream goes in and out of a layer while an older one is on its way to the host. */
enum { OFFLOAD_X = 3, OFFLOAD_O = 2 };

static void plan_saved(struct lwm_buf_plan *p, const struct lwm_llama_cfg *c, const struct lwm_llama_run *r, int64_t a)
{
	int64_t t = r->tokens, q = c->dim + 2 * c->kv_heads * lwm_llama_head_dim(c);
	int64_t layers = !r->train ? 1 : r->offload && c->layers > OFFLOAD_O ? OFFLOAD_O : c->layers;
	int64_t streams = !r->train ? 1 : r->offload && c->layers + 1 > OFFLOAD_X ? OFFLOAD_X : c->layers + 1;
	int64_t kept = r->train && !r->recompute ? c->layers : 1;
	int keep = r->train ? LWM_GROUP_SAVED : LWM_GROUP_WORK, keep2 = kept > 1 ? LWM_GROUP_SAVED : LWM_GROUP_WORK;

	add_buf(p, LWM_BUF_X, keep, t * c->dim * a, streams);
	add_buf(p, LWM_BUF_O, keep, t * c->dim * a, layers);
	add_buf(p, LWM_BUF_LSE, keep, t * c->heads * 4, layers);
	p->host = r->train && r->offload ? p->bytes[LWM_BUF_X] + p->bytes[LWM_BUF_O] + p->bytes[LWM_BUF_LSE] : 0;
	add_buf(p, LWM_BUF_QKV, keep2, t * q * a, kept);
	add_buf(p, LWM_BUF_MID, keep2, t * c->dim * a, r->train ? kept : 0);
	add_buf(p, LWM_BUF_GU, keep2, (kept > 1 || (r->train && !r->recompute) ? t : p->mlp_chunk) * 2 * c->ffn * a, kept);
}

static void plan_work(struct lwm_buf_plan *p, const struct lwm_llama_cfg *c, const struct lwm_llama_run *r, int64_t a)
{
	int64_t t = r->tokens, q = c->dim + 2 * c->kv_heads * lwm_llama_head_dim(c), back = r->train;
	int g = LWM_GROUP_WORK;

	add_buf(p, LWM_BUF_NORM, g, t * c->dim * a, 1);
	add_buf(p, LWM_BUF_H, g, p->mlp_chunk * c->ffn * a, 1);
	add_buf(p, LWM_BUF_DH, g, p->mlp_chunk * c->ffn * a, back);
	add_buf(p, LWM_BUF_RSTD, g, t * 4, 1);
	add_buf(p, LWM_BUF_DX, g, t * c->dim * a, back);
	add_buf(p, LWM_BUF_DN, g, t * c->dim * a, back);
	add_buf(p, LWM_BUF_DELTA, g, t * c->heads * 4, back);
	add_buf(p, LWM_BUF_DQKV, g, t * q * 4, back);
	add_buf(p, LWM_BUF_IDS, g, t * 4, 1);
}

static void plan_loss(struct lwm_buf_plan *p, const struct lwm_llama_cfg *c, const struct lwm_llama_run *r, int64_t a)
{
	int64_t v = c->vocab_text > c->vision_rows ? c->vocab_text : c->vision_rows;
	int g = LWM_GROUP_LOSS;

	for (enum lwm_buf_id b = LWM_BUF_IDX; b <= LWM_BUF_HIT; b++)
		add_buf(p, b, g, r->tokens * 4, 1);
	add_buf(p, LWM_BUF_LOGITS, g, p->loss_rows * v * a < v * 4 ? v * 4 : p->loss_rows * v * a, 1); // one row in fp32 at least
	add_buf(p, LWM_BUF_RX, g, p->loss_rows * c->dim * a, 1);
	add_buf(p, LWM_BUF_RN, g, p->loss_rows * c->dim * a, 1);
	add_buf(p, LWM_BUF_RD, g, p->loss_rows * c->dim * a, r->train);
	add_buf(p, LWM_BUF_RRSTD, g, p->loss_rows * 4, 1);
}

void lwm_plan_bufs(struct lwm_buf_plan *p, const struct lwm_llama_cfg *c, const struct lwm_llama_run *r, int dtype)
{
	int64_t a = (int64_t)lk_dtype_size(dtype), v = c->vocab_text > c->vision_rows ? c->vocab_text : c->vision_rows;
	int64_t rows = (r->loss_bytes > 0 ? r->loss_bytes : (int64_t)128 << 20) / (v * a);
	int64_t chunk = r->mlp_chunk > 0 ? r->mlp_chunk : 4096;

	memset(p, 0, sizeof *p);
	rows = rows < 1 ? 1 : rows > 2048 ? 2048 : rows;
	p->loss_rows = rows < r->tokens ? rows : r->tokens;
	p->mlp_chunk = chunk < r->tokens ? chunk : r->tokens;
	plan_saved(p, c, r, a);
	plan_work(p, c, r, a);
	plan_loss(p, c, r, a);
}

struct lwm_attn_qkv lwm_qkv_views(const struct lwm_llama_cfg *c, void *data, int dtype, int64_t n)
{
	int64_t e = lwm_llama_head_dim(c), row = (c->heads + 2 * c->kv_heads) * e, a = (int64_t)lk_dtype_size(dtype);
	struct lwm_attn_qkv y;

	y.q = lk_view3(data, dtype, n, c->heads, e);
	y.k = lk_view3((char *)data + c->heads * e * a, dtype, n, c->kv_heads, e);
	y.v = lk_view3((char *)data + (c->heads + c->kv_heads) * e * a, dtype, n, c->kv_heads, e);
	y.q.stride[0] = y.k.stride[0] = y.v.stride[0] = row;
	return y;
}

struct lk_view lwm_cols(const struct lk_view *v, int64_t c0, int64_t cols)
{
	struct lk_view y = lk_view2((char *)v->data + c0 * (int64_t)lk_dtype_size(v->dtype), v->dtype, v->n[0], cols);

	y.stride[0] = v->stride[0];
	return y;
}

static struct lwm_attn_ring_shape ring_shape(const struct lwm_llama_cfg *c, const struct lwm_llama_run *r)
{
	struct lwm_attn_ring_shape s = { r->tokens, c->heads, c->kv_heads, lwm_llama_head_dim(c), r->train, !r->no_causal };

	return s;
}

struct lwm_llama_bytes lwm_llama_memory(const struct lwm_llama_cfg *c, const struct lwm_llama_run *run, int dtype,
					int ring_size)
{
	struct lwm_attn_ring_shape s = ring_shape(c, run);
	struct lwm_llama_bytes y = { 0 };
	struct lwm_buf_plan p;

	lwm_plan_bufs(&p, c, run, dtype);
	for (int b = 0; b < LWM_BUFS; b++) {
		int64_t *group[] = { &y.saved, &y.work, &y.loss };

		*group[p.group[b]] += p.bytes[b] * p.copies[b];
	}
	y.ring = lwm_attn_ring_bytes(&s, dtype, ring_size);
	y.total = p.total + y.ring;
	y.host = c->layers > LWM_OFFLOAD_RESIDENT ? p.host * (c->layers - LWM_OFFLOAD_RESIDENT) : 0;
	return y;
}

int64_t lwm_llama_own(struct lk_dev *dev, const struct lwm_llama_cfg *c, const struct lwm_llama_run *run)
{
	struct lk_own own;
	int rc = lk_attn_own(dev, run->tokens, c->heads, c->kv_heads, lwm_llama_head_dim(c), run->train, &own);

	return rc ? 0 : own.kept + own.scratch;
}

/* lwm_llama.host_i and host_f; of a ring all positions and segments once as they came and once as lk_seq. */
int64_t lwm_llama_arrays(const struct lwm_llama_run *run, int ring_size)
{
	return run->tokens * (2 * 4 + 2 * 4 + 8 * (int64_t)ring_size + 8 * ((int64_t)ring_size + 1));
}

/* bf16 weights have fp32 ones beside them; gradient and two moments are fp32. */
static bool row_fits(struct lk_dev *dev, const struct lwm_llama_cfg *c, const struct lwm_llama_run *run, int dtype, int64_t tokens,
		 int64_t bytes, int64_t host_bytes)
{
	int64_t each = (int64_t)lk_dtype_size(dtype) + 12 + (dtype == LK_F32 ? 0 : 4);
	struct lwm_llama_run r = *run;
	struct lwm_llama_bytes need;

	r.tokens = tokens;
	need = lwm_llama_memory(c, &r, dtype, 1);
	if (dev)
		need.total += lwm_llama_own(dev, c, &r) + lwm_llama_arrays(&r, 1);
	return need.total + each * lwm_llama_count(c) <= bytes && need.host <= host_bytes;
}

int64_t lwm_llama_longest(struct lk_dev *dev, const struct lwm_llama_cfg *c, const struct lwm_llama_run *run, int dtype,
			  int64_t bytes, int64_t host_bytes)
{
	int64_t lo = 0, hi = (int64_t)1 << 30;

	while (hi - lo > 1) {
		int64_t mid = lo + (hi - lo) / 2;

		if (row_fits(dev, c, run, dtype, mid, bytes, host_bytes))
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}
