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

/* Lies where `with` lies, from its copy `copy` on: nothing of the two is needed at the same time. */
static void share_buf(struct lwm_buf_plan *p, enum lwm_buf_id b, enum lwm_buf_id with, int64_t copy)
{
	p->copies[b] = 1;
	p->group[b] = p->group[with];
	p->offset[b] = p->offset[with] + copy * p->bytes[with];
}

/* Slots of run->offload: the stream goes in and out of a layer while an older one is on its way to the host. */
enum { OFFLOAD_X = 3, OFFLOAD_O = 2 };

/* What the plan of a step goes by. */
struct step_size {
	const struct lwm_llama_cfg *c;
	const struct lwm_llama_cut *cut;
	const struct lwm_llama_run *r;
	int64_t a;        /* bytes of an element */
	int64_t t, own;   /* tokens, and own rows */
	int64_t width, q; /* of the attention's output and of q, k, v */
	bool tp;
};

static void plan_saved(struct lwm_buf_plan *p, const struct step_size *s)
{
	const struct lwm_llama_run *r = s->r;
	int64_t t = s->t, n = s->c->layers, stream = s->own * s->c->dim * s->a;
	int64_t layers = !r->train ? 1 : r->offload && n > OFFLOAD_O ? OFFLOAD_O : n;
	int64_t streams = !r->train ? 1 : r->offload && n + 1 > OFFLOAD_X ? OFFLOAD_X : n + 1;
	int64_t kept = r->train && !r->recompute ? n : 1;
	int keep = r->train ? LWM_GROUP_SAVED : LWM_GROUP_WORK, keep2 = kept > 1 ? LWM_GROUP_SAVED : LWM_GROUP_WORK;

	add_buf(p, LWM_BUF_X, keep, stream, streams);
	add_buf(p, LWM_BUF_O, keep, t * s->width * s->a, layers);
	add_buf(p, LWM_BUF_LSE, keep, t * s->cut->heads * 4, layers);
	p->host = r->train && r->offload ? p->bytes[LWM_BUF_X] + p->bytes[LWM_BUF_O] + p->bytes[LWM_BUF_LSE] : 0;
	add_buf(p, LWM_BUF_QKV, keep2, t * s->q * s->a, kept);
	add_buf(p, LWM_BUF_GU, keep2, (kept > 1 || (r->train && !r->recompute) ? t : p->mlp_chunk) * 2 * s->cut->ffn * s->a, kept);
	if (!r->train)
		return;
	// the last stream is the loss's alone, which is over before DN has anything to keep; MID is before DN in a layer
	if (s->tp || streams <= n)
		add_buf(p, LWM_BUF_DN, LWM_GROUP_WORK, stream, 1);
	else
		share_buf(p, LWM_BUF_DN, LWM_BUF_X, n);
	if (r->recompute)
		share_buf(p, LWM_BUF_MID, LWM_BUF_DN, 0);
	else
		add_buf(p, LWM_BUF_MID, keep2, stream, kept);
}

static void plan_work(struct lwm_buf_plan *p, const struct step_size *s)
{
	int64_t t = s->t, back = s->r->train, stream = s->own * s->c->dim * s->a, f = p->mlp_chunk * s->cut->ffn * s->a;
	int64_t row = p->mlp_chunk / s->cut->n * s->c->dim * s->a; // of a piece's own rows
	int g = LWM_GROUP_WORK;

	add_buf(p, LWM_BUF_H, g, back && row > f ? row : f, 1);
	add_buf(p, LWM_BUF_DH, g, f, back);
	add_buf(p, LWM_BUF_RSTD, g, s->own * 4, 1);
	add_buf(p, LWM_BUF_DX, g, stream, back);
	add_buf(p, LWM_BUF_DELTA, g, t * s->cut->heads * 4, back);
	add_buf(p, LWM_BUF_DQKV, g, t * s->q * 4, back);
	if (back && !s->tp) // normed rows are for products, before attention's gradients and after them (input_backward)
		share_buf(p, LWM_BUF_NORM, LWM_BUF_DQKV, 0);
	else
		add_buf(p, LWM_BUF_NORM, g, (s->tp ? p->mlp_chunk : t) * s->c->dim * s->a, 1);
	add_buf(p, LWM_BUF_IDS, g, t * 4, 1);
}

/* Of a lean run, all but the loss: see llama_lean.c for what shares what. */
static void plan_lean(struct lwm_buf_plan *p, const struct step_size *s)
{
	int64_t t = s->t, n = s->c->layers, d = s->c->dim, piece = p->mlp_chunk, k = s->r->keep_bf16 ? 2 : s->a;
	int64_t f = piece * s->cut->ffn * s->a, row = piece * d * s->a;
	struct lwm_llama_cut one = lwm_head_group(s->cut, s->r);
	int64_t q = lwm_llama_cut_qkv(&one);
	int keep = LWM_GROUP_SAVED, g = LWM_GROUP_WORK;

	add_buf(p, LWM_BUF_KEPT_X, keep, t * d * k, n);
	add_buf(p, LWM_BUF_KEPT_O, keep, t * s->width * k, n);
	add_buf(p, LWM_BUF_LSE, keep, t * s->cut->heads * 4, n);
	add_buf(p, LWM_BUF_X, g, t * d * s->a, 1);
	add_buf(p, LWM_BUF_DX, g, t * d * s->a, 1);
	share_buf(p, LWM_BUF_O, LWM_BUF_DX, 0);
	add_buf(p, LWM_BUF_QKV, g, t * q * s->a, 1);
	add_buf(p, LWM_BUF_DQKV, g, t * q * 4, 1);
	add_buf(p, LWM_BUF_DELTA, g, t * s->cut->heads * 4, 1);
	add_buf(p, LWM_BUF_IDS, g, t * 4, 1);
	add_buf(p, LWM_BUF_RSTD, g, piece * 4, 1);
	add_buf(p, LWM_BUF_NORM, g, row, 1);
	add_buf(p, LWM_BUF_PIECE_X, g, row, 1);
	add_buf(p, LWM_BUF_PIECE_O, g, piece * s->width * s->a, 1);
	add_buf(p, LWM_BUF_DN, g, row, 1);
	add_buf(p, LWM_BUF_GU, g, 2 * f, 1);
	add_buf(p, LWM_BUF_H, g, row > f ? row : f, 1);
	add_buf(p, LWM_BUF_DH, g, f, 1);
}

/* Of tensor parallelism. */
static void plan_exchange(struct lwm_buf_plan *p, const struct step_size *s)
{
	int64_t d = s->c->dim, shared = 2 * d, back = s->tp && s->r->train;
	int g = LWM_GROUP_WORK;

	if (s->c->kv_heads < s->cut->n)
		shared += 2 * s->c->kv_heads * s->cut->head_dim * d;
	add_buf(p, LWM_BUF_PART, g, p->mlp_chunk * d * 4, s->tp);
	add_buf(p, LWM_BUF_SUM, g, p->mlp_chunk / s->cut->n * d * 4, s->tp);
	add_buf(p, LWM_BUF_GRAD, g, p->mlp_chunk * d * s->a, back);
	add_buf(p, LWM_BUF_SHARED, g, shared * 4, back);
	add_buf(p, LWM_BUF_STATS, LWM_GROUP_LOSS, s->cut->n * p->loss_rows * LK_XENT_PART * 4, s->tp);
}

/* Rows of the larger table. */
static int64_t most_rows(const struct lwm_llama_cut *cut)
{
	return cut->rows[LWM_TEXT] > cut->rows[LWM_VISION] ? cut->rows[LWM_TEXT] : cut->rows[LWM_VISION];
}

static void plan_loss(struct lwm_buf_plan *p, const struct step_size *s)
{
	int64_t v = most_rows(s->cut), rows = p->loss_rows, row = rows * s->c->dim * s->a;
	int g = LWM_GROUP_LOSS;

	for (enum lwm_buf_id b = LWM_BUF_IDX; b <= LWM_BUF_HIT; b++)
		add_buf(p, b, g, s->t * 4, 1);
	add_buf(p, LWM_BUF_LOGITS, g, rows * v * s->a < v * 4 ? v * 4 : rows * v * s->a, 1); // one row in fp32 at least
	add_buf(p, LWM_BUF_RX, g, row, !s->tp);
	add_buf(p, LWM_BUF_RN, g, row, 1);
	add_buf(p, LWM_BUF_RD, g, s->tp ? rows * s->c->dim * 4 : row, s->r->train);
	add_buf(p, LWM_BUF_RRSTD, g, rows * 4, !s->tp);
}

/* Of a trunk, what a model over ids has for its loss. */
static void plan_vectors(struct lwm_buf_plan *p, const struct step_size *s)
{
	int64_t in = s->t * s->c->input_dim, stream = s->t * s->c->dim * s->a;
	int g = LWM_GROUP_LOSS;

	add_buf(p, LWM_BUF_IN, g, in * 4, !s->r->device_vectors);
	add_buf(p, LWM_BUF_IN_CAST, g, in * s->a, s->a != 4 && !s->r->device_vectors);
	add_buf(p, LWM_BUF_HIDDEN, g, stream, 1);
	add_buf(p, LWM_BUF_HIDDEN_GRAD, g, stream, s->r->train);
	add_buf(p, LWM_BUF_HIDDEN_RSTD, g, s->t * 4, 1);
}

/* Rows of logits at a time. */
static int64_t count_loss_rows(const struct step_size *s)
{
	int64_t most = s->r->loss_bytes > 0 ? s->r->loss_bytes : (int64_t)128 << 20;
	int64_t rows = s->c->input_dim ? 1 : most / (most_rows(s->cut) * s->a);

	rows = rows < 1 ? 1 : rows > 2048 ? 2048 : rows;
	return rows < s->r->tokens ? rows : s->r->tokens;
}

bool lwm_llama_is_lean(const struct lwm_llama_run *r, int dtype)
{
	return r->train && (r->head_groups > 1 || (r->keep_bf16 && lk_dtype_size(dtype) > 2));
}

void lwm_plan_bufs(struct lwm_buf_plan *p, const struct lwm_llama_cfg *c, const struct lwm_llama_cut *cut,
		   const struct lwm_llama_run *r, int dtype)
{
	int64_t n = cut->n, a = (int64_t)lk_dtype_size(dtype), own = (r->tokens + n - 1) / n;
	struct step_size s = { c, cut, r, a, r->tokens, own, lwm_llama_cut_width(cut), lwm_llama_cut_qkv(cut), n > 1 };
	int64_t rows = count_loss_rows(&s);
	int64_t chunk = r->mlp_chunk > 0 ? r->mlp_chunk : 4096;

	memset(p, 0, sizeof *p);
	chunk = chunk < r->tokens ? chunk : r->tokens;
	p->mlp_chunk = (chunk + n - 1) / n * n;
	p->loss_rows = s.tp && rows > p->mlp_chunk ? p->mlp_chunk : rows;
	p->lean = lwm_llama_is_lean(r, dtype);
	if (p->lean) {
		plan_lean(p, &s);
	} else {
		plan_saved(p, &s);
		plan_work(p, &s);
	}
	plan_exchange(p, &s);
	(c->input_dim ? plan_vectors : plan_loss)(p, &s);
}

struct lwm_llama_cut lwm_llama_cut_of(const struct lwm_llama_cfg *c, int rank, int n)
{
	return (struct lwm_llama_cut){ .n = n, .rank = rank, .heads = c->heads / n,
				       .kv_heads = c->kv_heads < n ? 1 : c->kv_heads / n, .head_dim = lwm_llama_head_dim(c),
				       .ffn = c->ffn / n, .rows = { c->vocab_text / n, c->vision_rows / n },
				       .first = { rank * (c->vocab_text / n), c->vocab_text + rank * (c->vision_rows / n) } };
}

struct lwm_attn_qkv lwm_qkv_views(const struct lwm_llama_cut *c, void *data, int dtype, int64_t n)
{
	int64_t e = c->head_dim, row = lwm_llama_cut_qkv(c), a = (int64_t)lk_dtype_size(dtype);
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

struct lwm_llama_bytes lwm_llama_memory(const struct lwm_llama_cfg *c, const struct lwm_llama_run *run, int dtype,
					int ring_size, int tp)
{
	struct lwm_llama_cut cut = lwm_llama_cut_of(c, 0, tp);
	struct lwm_attn_ring_shape s = lwm_ring_shape(&cut, run);
	struct lwm_llama_bytes y = { 0 };
	struct lwm_buf_plan p;

	lwm_plan_bufs(&p, c, &cut, run, dtype);
	for (int b = 0; b < LWM_BUFS; b++) {
		int64_t *group[] = { &y.saved, &y.work, &y.loss };

		*group[p.group[b]] += p.bytes[b] * p.copies[b];
	}
	y.ring = lwm_attn_ring_bytes(&s, dtype, ring_size);
	y.total = p.total + y.ring;
	y.host = c->layers > LWM_OFFLOAD_RESIDENT ? p.host * (c->layers - LWM_OFFLOAD_RESIDENT) : 0;
	return y;
}

/* Scratch of the largest product: each matrix (out, in) with some tokens, forward, backward, and its gradient. */
static int64_t most_of_products(struct lk_dev *dev, const struct lwm_llama_cfg *c, const struct lwm_llama_cut *cut,
				const struct lwm_llama_run *run)
{
	struct lwm_buf_plan p;
	int64_t most = 0;

	lwm_plan_bufs(&p, c, cut, run, LK_F32);
	int64_t whole = cut->n > 1 || p.lean ? p.mlp_chunk : run->tokens, d = c->dim;
	int64_t head = c->input_dim ? d : most_rows(cut), width = c->input_dim ? c->input_dim : d;
	struct lwm_llama_cut one = lwm_head_group(cut, run);
	const struct {
		int64_t out, in, tokens;
	} x[] = { { lwm_llama_cut_qkv(cut), d, whole }, { d, lwm_llama_cut_width(cut), whole }, { 2 * cut->ffn, d, p.mlp_chunk },
		  { d, cut->ffn, p.mlp_chunk }, { head, width, c->input_dim ? run->tokens : p.loss_rows },
		  { d, lwm_llama_cut_width(cut), run->tokens },
		  { lwm_llama_cut_width(&one), d, p.mlp_chunk }, { one.kv_heads * one.head_dim, d, p.mlp_chunk } };
	for (size_t i = 0; i < sizeof x / sizeof *x - (p.lean ? 0 : 3); i++) {
		int64_t size[3][3] = { { x[i].tokens, x[i].out, x[i].in }, { x[i].tokens, x[i].in, x[i].out },
				       { x[i].out, x[i].in, x[i].tokens } };

		for (int k = 0; k < (run->train ? 3 : 1); k++) {
			struct lk_own own;

			if (lk_matmul_own(dev, size[k][0], size[k][1], size[k][2], &own) == 0 && own.scratch > most)
				most = own.scratch;
		}
	}
	return most;
}

int64_t lwm_llama_own(struct lk_dev *dev, const struct lwm_llama_cfg *c, const struct lwm_llama_run *run, int tp)
{
	struct lwm_llama_cut cut = lwm_llama_cut_of(c, 0, tp);
	int64_t products;
	struct lk_own own;
	struct lwm_llama_cut one = lwm_head_group(&cut, run);
	int rc = lk_attn_own(dev, run->tokens, one.heads, one.kv_heads, cut.head_dim, run->train, &own);

	if (rc)
		return 0;
	products = most_of_products(dev, c, &cut, run);
	return own.kept + (own.scratch > products ? own.scratch : products);
}

/* lwm_llama.host_i and host_f; of a ring all positions and segments once as they came, or as the caller told them, once as lk_seq,
 * and those of one rank on their way. */
int64_t lwm_llama_arrays(const struct lwm_llama_run *run, int ring_size)
{
	return run->tokens * (2 * 4 + 2 * 4 + 8 * (int64_t)ring_size + 8 * ((int64_t)ring_size + 1));
}

int lwm_llama_ring_sends(const struct lwm_llama_cfg *c, const struct lwm_llama_run *run, int dtype, int ring_size, int tp,
			 const int32_t *pos, const int32_t *seg, double *bytes, struct lwm_err *e)
{
	struct lwm_llama_cut cut = lwm_llama_cut_of(c, 0, tp);
	struct lwm_attn_ring_shape s = lwm_ring_shape(&cut, run);
	int64_t sends[2];

	LWM_TRY(lwm_attn_ring_sends(&s, dtype, ring_size, run->tokens, pos, seg, sends, e));
	*bytes = (double)c->layers * (double)lwm_head_groups(run) * (double)(sends[0] + sends[1]);
	return 0;
}

int lwm_llama_ring_fills(const struct lwm_llama_cfg *c, const struct lwm_llama_run *run, int dtype, int ring_size, int tp,
			 const int32_t *pos, const int32_t *seg, int64_t *bytes, struct lwm_err *e)
{
	struct lwm_llama_cut cut = lwm_llama_cut_of(c, 0, tp);
	struct lwm_attn_ring_shape s = lwm_ring_shape(&cut, run);

	return lwm_attn_ring_fills(&s, dtype, ring_size, run->tokens, pos, seg, bytes, e);
}

/* bf16 weights have fp32 ones beside them; gradient and two moments are fp32. */
static bool row_fits(struct lk_dev *dev, const struct lwm_llama_cfg *c, const struct lwm_llama_run *run, int dtype, int64_t tokens,
		 int64_t bytes, int64_t host_bytes)
{
	int64_t each = (int64_t)lk_dtype_size(dtype) + 12 + (dtype == LK_F32 ? 0 : 4);
	struct lwm_llama_run r = *run;
	struct lwm_llama_bytes need;

	r.tokens = tokens;
	need = lwm_llama_memory(c, &r, dtype, 1, 1);
	if (dev)
		need.total += lwm_llama_own(dev, c, &r, 1) + lwm_llama_arrays(&r, 1);
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
