/* llama_int.h - what the llama files share. Nobody else includes it. */
#ifndef LWM_MODEL_LLAMA_INT_H
#define LWM_MODEL_LLAMA_INT_H

#include "common/comm/device.h"
#include "common/comm/watchdog.h"
#include "common/model/attn_ring.h"
#include "common/model/llama.h"
#include "common/model/llama_pass.h"
#include "common/model/trunk.h"

/* ---- what a rank has of the model ---- */

/* Of each of `n` tensor-parallel ranks (1: alone). */
struct lwm_llama_cut {
	int n, rank;
	int64_t heads, kv_heads, head_dim, ffn;
	int64_t rows[LWM_MODALITIES], first[LWM_MODALITIES]; /* of the tables: how many, and which is the first */
};
/* What fits (lwm_llama_check_tp). Pure. */
struct lwm_llama_cut lwm_llama_cut_of(const struct lwm_llama_cfg *cfg, int rank, int n);
static inline int64_t lwm_llama_cut_width(const struct lwm_llama_cut *c) /* of the heads' outputs side by side */
{
	return c->heads * c->head_dim;
}
static inline int64_t lwm_llama_cut_qkv(const struct lwm_llama_cut *c) /* of q, k and v side by side */
{
	return (c->heads + 2 * c->kv_heads) * c->head_dim;
}

/* ---- weights (llama_weights.c): the only way to them ---- */

struct lwm_matrix {
	struct lk_view w; /* in the device's dtype; 1-d for norms */
	struct lk_view g; /* fp32 gradient; data NULL when none is wanted, as of a matrix that is frozen */
};
struct lwm_layer {
	struct lwm_matrix norm1, qkv, o, norm2, gate_up, down; /* qkv: rows q, k, v; gate_up: rows gate, up */
};
struct lwm_embed {
	struct lwm_matrix table[LWM_MODALITIES], input; /* input: of a trunk, which has no tables */
};
struct lwm_head {
	struct lwm_matrix norm, table[LWM_MODALITIES];
};

/* Where those lie, from the table of tensors: once for each model. */
struct lwm_weight_place {
	int64_t at; /* from the start of the group */
	int64_t rows, cols; /* cols 0: a vector */
};
enum lwm_layer_part {
	LWM_LAYER_NORM1,
	LWM_LAYER_QKV,
	LWM_LAYER_O,
	LWM_LAYER_NORM2,
	LWM_LAYER_GATE_UP,
	LWM_LAYER_DOWN,
	LWM_LAYER_PARTS
};
struct lwm_layer_map {
	struct lwm_group group;
	struct lwm_weight_place part[LWM_LAYER_PARTS];
};
struct lwm_llama_map {
	struct lwm_group first, last; /* the embeddings; the norm and the heads */
	struct lwm_weight_place embed[LWM_MODALITIES], input, norm, head[LWM_MODALITIES];
	bool tied;                    /* head lies in `first` */
	struct lwm_layer_map *layer;
};
int lwm_map_new(struct lwm_llama_map *m, const struct lwm_llama_cfg *cfg, int tp, struct lwm_err *e);
void lwm_map_release(struct lwm_llama_map *m);

/* From m->w; what: LWM_WEIGHTS, LWM_GRADS. A failure is kept in m->rc. release with grads: nothing more comes to this gradient. */
struct lwm_layer lwm_layer_acquire(struct lwm_llama *m, int64_t l, unsigned what);
void lwm_layer_release(struct lwm_llama *m, int64_t l, bool grads);
struct lwm_embed lwm_embed_acquire(struct lwm_llama *m, unsigned what);
void lwm_embed_release(struct lwm_llama *m, bool grads);
struct lwm_head lwm_head_acquire(struct lwm_llama *m, unsigned what);
void lwm_head_release(struct lwm_llama *m, bool grads); /* tied tables: their gradient is ready with the embeddings' */

/* ---- memory: one block, cut by a table ----
 *
 * T tokens of a step, O = T / tp of them this rank's own rows of the residual stream, heads H, K, width F, table rows V and
 * Q = (H + 2 K) E those of this rank's share of the model; P tokens of a piece, of which P / tp are own rows; R rows of logits. */

enum lwm_buf_id {
	LWM_BUF_X,      /* (O,D) residual stream: layers + 1 of them in training, else one */
	LWM_BUF_O,      /* (T,HE) attention output, per layer in training */
	LWM_BUF_LSE,    /* (T,H) fp32, likewise */
	LWM_BUF_QKV,    /* (T,Q); per layer without recomputation */
	LWM_BUF_MID,    /* (O,D) residual between attention and MLP; likewise; none in evaluation */
	LWM_BUF_GU,     /* (T,2F) gate and up; per layer without recomputation, else one piece */
	LWM_BUF_NORM,   /* (T,D); tensor parallelism: (P,D) a piece, of all ranks */
	LWM_BUF_H,      /* (P,F) */
	LWM_BUF_DH,     /* (P,F) */
	LWM_BUF_RSTD,   /* (O) fp32 */
	LWM_BUF_DX,     /* (O,D) gradient of the residual stream */
	LWM_BUF_DN,     /* (O,D), and (T,HE) gradient of the attention output */
	LWM_BUF_DELTA,  /* (T,H) fp32 */
	LWM_BUF_DQKV,   /* (T,Q) fp32 */
	LWM_BUF_IDS,    /* (T) int32; of a trunk the positions that rotate */
	/* of lean runs alone (llama_lean.c), whose Q is that of a group of heads, and which have LSE and DELTA group by group */
	LWM_BUF_KEPT_X, /* (T,D) input of a layer, in what is kept, per layer */
	LWM_BUF_KEPT_O, /* (T,HE) attention output, likewise */
	LWM_BUF_PIECE_X, /* (P,D) of that, as it is computed with */
	LWM_BUF_PIECE_O, /* (P,HE) */
	/* of tensor parallelism alone */
	LWM_BUF_PART,   /* (P,D) fp32: this rank's part of a sum over ranks */
	LWM_BUF_SUM,    /* (P/tp,D) fp32: own rows of the sum */
	LWM_BUF_GRAD,   /* (P,D) gradient of a piece of the residual stream, of all ranks */
	LWM_BUF_SHARED, /* (2 D) fp32 gradients of a layer's norms; and (2 KE,D) of all its k, v where ranks share key heads */
	LWM_BUF_STATS,  /* (tp,R,4) fp32 of cross-entropy */

	LWM_BUF_IDX,    /* (T) int32: counted positions, text first; tensor parallelism: within their piece */
	LWM_BUF_TARGET, /* (T) int32 */
	LWM_BUF_WEIGHT, /* (T) fp32 */
	LWM_BUF_NLL,    /* (T) fp32 */
	LWM_BUF_HIT,    /* (T) fp32 */
	LWM_BUF_LOGITS, /* (R,V) of the larger vocabulary */
	LWM_BUF_RX,     /* (R,D) rows of the residual stream; none with tensor parallelism */
	LWM_BUF_RN,     /* (R,D) normed */
	LWM_BUF_RD,     /* (R,D) gradient; tensor parallelism: fp32 */
	LWM_BUF_RRSTD,  /* (R); none with tensor parallelism */
	/* of a trunk, instead of those from IDX on */
	LWM_BUF_IN,     /* (T,input_dim) fp32: the vectors */
	LWM_BUF_IN_CAST, /* the same in the device's dtype, where that is another one */
	LWM_BUF_HIDDEN, /* (T,D) normed last stream */
	LWM_BUF_HIDDEN_GRAD, /* (T,D) */
	LWM_BUF_HIDDEN_RSTD, /* (T) fp32 */
	LWM_BUFS
};
enum lwm_buf_group { LWM_GROUP_SAVED, LWM_GROUP_WORK, LWM_GROUP_LOSS };

struct lwm_buf_plan {
	int64_t bytes[LWM_BUFS];  /* of one */
	int64_t copies[LWM_BUFS];
	int64_t offset[LWM_BUFS];
	int group[LWM_BUFS];
	int64_t total, host; /* host: of one layer, run->offload */
	int64_t mlp_chunk, loss_rows; /* P and R */
	bool lean;
};
void lwm_plan_bufs(struct lwm_buf_plan *p, const struct lwm_llama_cfg *cfg, const struct lwm_llama_cut *cut,
		   const struct lwm_llama_run *run, int dtype);

/* ---- activations in host memory (llama_offload.c) ----
 *
 * Of what is kept per layer only a few layers lie on the device, in slots that are used in turn: layer l in slot l % copies.
 * A second queue takes a layer to the host while the next one is computed, and brings it back before its turn in the backward.
 * The last two layers stay where they are. */
enum { LWM_OFFLOAD_RESIDENT = 2 };
struct lwm_offload;
int lwm_offload_new(struct lwm_llama *m, struct lwm_err *e);
void lwm_offload_free(struct lwm_offload *o);
/* Around layer l, in the forward and in the backward. Without run->offload they do nothing. */
void lwm_offload_fwd_begin(struct lwm_llama *m, int64_t l); /* its slots may be written */
void lwm_offload_fwd_end(struct lwm_llama *m, int64_t l);   /* it is complete: off to the host */
void lwm_offload_bwd_begin(struct lwm_llama *m, int64_t l); /* it is there; the one before it sets out */
void lwm_offload_bwd_end(struct lwm_llama *m, int64_t l);   /* its slots may be written */

struct lwm_llama {
	struct lk_dev *dev;
	struct lwm_llama_cfg cfg;
	struct lwm_llama_run run;
	struct lwm_llama_cut cut;
	struct lwm_llama_cut group; /* of cut, the heads that attention is computed for at a time */
	struct lwm_llama_map map;
	struct lwm_buf_plan plan;
	struct lwm_attn *attention;
	struct lwm_attn *own; /* the same, where it is the model's to free */
	struct lwm_offload *offload; /* NULL: everything stays on the device */
	char *block;
	int dtype;
	/* of the step under way */
	struct lwm_supply *w;
	const struct lwm_llama_batch *batch; /* the caller's, as is the next one: of a trunk, which has no batch */
	const struct lwm_trunk_batch *vectors;
	int64_t n;                           /* its tokens */
	int64_t counted[LWM_MODALITIES];
	int32_t *host_i; /* scratch, 2 T each */
	float *host_f;
	/* First failure of a step. Kernels after it are skipped, exchanges are not: the other ranks continue. */
	int rc;
	struct lwm_err err;
};

/* Calls a kernel unless something failed before; a sign of life to the watchdog. */
#define LWM_K(m, call)                                                              \
	do {                                                                        \
		if (!(m)->rc)                                                       \
			(m)->rc = lwm_dev_check((m)->dev, (call), &(m)->err);       \
		lwm_watchdog_tick();                                                \
	} while (0)

static inline void *lwm_buf(const struct lwm_llama *m, enum lwm_buf_id b, int64_t copy)
{
	return m->block + m->plan.offset[b] + (m->plan.copies[b] > 1 ? copy % m->plan.copies[b] : 0) * m->plan.bytes[b];
}
/* Rows [row, row + rows) of a 2-d buffer of the device's dtype. */
static inline struct lk_view lwm_rows(const struct lwm_llama *m, enum lwm_buf_id b, int64_t copy, int64_t cols,
				      int64_t row, int64_t rows)
{
	char *p = lwm_buf(m, b, copy);

	return lk_view2(p + row * cols * (int64_t)lk_dtype_size(m->dtype), m->dtype, rows, cols);
}
/* Groups that the heads of a run are in, and what one of them has of c. */
static inline int64_t lwm_head_groups(const struct lwm_llama_run *r)
{
	return r->train && r->head_groups > 1 ? r->head_groups : 1;
}
static inline struct lwm_llama_cut lwm_head_group(const struct lwm_llama_cut *c, const struct lwm_llama_run *r)
{
	struct lwm_llama_cut y = *c;

	y.heads /= lwm_head_groups(r);
	y.kv_heads /= lwm_head_groups(r);
	return y;
}
/* What the ring of a run is made for. */
static inline struct lwm_attn_ring_shape lwm_ring_shape(const struct lwm_llama_cut *c, const struct lwm_llama_run *r)
{
	int64_t n = lwm_head_groups(r);

	return (struct lwm_attn_ring_shape){ r->tokens, c->heads / n, c->kv_heads / n, c->head_dim, r->train, !r->no_causal };
}
/* Positions (n) on the device that rotate queries and keys: of a trunk they need not be those that mask. */
static inline const int32_t *lwm_rotates_by(const struct lwm_llama *m)
{
	return m->cfg.input_dim ? lwm_buf(m, LWM_BUF_IDS, 0) : lwm_attn_positions(m->attention);
}
/* q, k, v heads of a (n, Q) buffer. */
struct lwm_attn_qkv lwm_qkv_views(const struct lwm_llama_cut *cut, void *data, int dtype, int64_t n);
/* Columns [c0, c0 + cols) of a 2-d view. */
struct lk_view lwm_cols(const struct lk_view *v, int64_t c0, int64_t cols);

/* g += a^T b over tokens; nothing where no gradient is wanted */
static inline void lwm_add_weight_grad(struct lwm_llama *m, const struct lk_view *g, const struct lk_view *a,
				       const struct lk_view *b)
{
	if (g->data)
		LWM_K(m, lk_matmul(m->dev, g, a, b, LK_TA | LK_ACC, 1.0f));
}

/* ---- pieces of tokens, and what tensor-parallel ranks exchange of them (llama_tp.c) ----
 *
 * Between the blocks each rank has its own rows of the residual stream: of every piece of P tokens the rank-th of tp equal parts.
 * Before a block the piece's rows of all ranks are gathered, after it the ranks' partial sums are added up and dealt out again.
 * Alone a piece's rows are all own rows: nothing is gathered, and a sum is the product itself. A failed rank exchanges on. */
struct lwm_piece {
	int64_t at, rows;    /* of the step's tokens */
	int64_t own_at, own; /* own rows; own_at among this rank's, of each buffer (O,D) */
};
/* The piece of at most `most` tokens from token `at` on; both multiples of tp. */
struct lwm_piece lwm_piece_at(const struct lwm_llama *m, int64_t at, int64_t most);
/* Pieces that the attention's projections are computed in: alone one. */
int64_t lwm_piece_tokens(const struct lwm_llama *m);
static inline struct lk_view lwm_own_rows(const struct lwm_llama *m, enum lwm_buf_id b, int64_t copy, const struct lwm_piece *p)
{
	return lwm_rows(m, b, copy, m->cfg.dim, p->own_at, p->own);
}

/* x (own,D), own rows, through the norm w: (rows,D) of all ranks, in LWM_BUF_NORM. rstd of own rows in LWM_BUF_RSTD. */
struct lk_view lwm_tp_normed(struct lwm_llama *m, const struct lk_view *x, const struct lwm_matrix *w, const struct lwm_piece *p);
/* The same rows of all ranks as they are, in LWM_BUF_GRAD; alone *own itself. */
struct lk_view lwm_tp_gather(struct lwm_llama *m, const struct lk_view *own, const struct lwm_piece *p);
/* y (own,D), own rows, of the product a w summed over ranks: y += a w^T, y = a w. */
void lwm_tp_add(struct lwm_llama *m, const struct lk_view *y, const struct lk_view *a, const struct lk_view *w);
void lwm_tp_put(struct lwm_llama *m, const struct lk_view *y, const struct lk_view *a, const struct lk_view *w);
/* y (own,D) = own rows of the sum of LWM_BUF_PART (rows,D) over ranks. */
void lwm_tp_scatter(struct lwm_llama *m, const struct lk_view *y, const struct lwm_piece *p);
/* All ranks' `bytes`, this rank's among them at its place. */
void lwm_tp_allgather(struct lwm_llama *m, void *all, size_t bytes);

/* Gradients that every rank has a part of: of norms, and of key heads that ranks share. Alone they go where the others go; else
 * they are gathered in LWM_BUF_SHARED, summed over ranks and added then, so that they are whole on each rank.
 *	begin (a layer: two norms; the last norm: one) ... of norm 0, 1, of q, k, v ... end */
struct lwm_norm_grads {
	const struct lwm_matrix *norm[2], *qkv; /* norm[1], qkv NULL: there is none */
};
void lwm_shared_begin(struct lwm_llama *m, const struct lwm_norm_grads *g);
float *lwm_shared_norm(const struct lwm_llama *m, const struct lwm_norm_grads *g, int which);
/* g += dqkv^T n, for (rows,Q) and (rows,D) */
void lwm_shared_qkv(struct lwm_llama *m, const struct lwm_norm_grads *g, const struct lk_view *dqkv, const struct lk_view *n);
void lwm_shared_end(struct lwm_llama *m, const struct lwm_norm_grads *g);

/* llama_tp_loss.c: lwm_llama_loss and lwm_logit_rows where the vocabulary is cut. */
void lwm_tp_loss(struct lwm_llama *m);
void lwm_tp_logit_rows(struct lwm_llama *m, enum lwm_modality head, const int32_t *rows, int64_t nrows, float *host_out);

/* llama_step.c: all layers, from the first stream to the last; and back, from the gradient of the last to that of the first. */
void lwm_fwd_layers(struct lwm_llama *m);
void lwm_bwd_layers(struct lwm_llama *m);
/* llama_fwd.c, llama_bwd.c: the first stream; a layer; the gradient of the embeddings */
void lwm_fwd_embed(struct lwm_llama *m);
void lwm_fwd_layer(struct lwm_llama *m, int64_t l, const struct lwm_layer *w);
void lwm_bwd_layer(struct lwm_llama *m, int64_t l, const struct lwm_layer *w);
void lwm_bwd_embed(struct lwm_llama *m);
/* llama_fwd.c, llama_bwd.c: what lean runs do too. Heads of `cut`; q, k, v in LWM_BUF_QKV (l). */
void lwm_fwd_rotate(struct lwm_llama *m, int64_t l, const struct lwm_llama_cut *cut);
void lwm_fwd_attention(struct lwm_llama *m, int64_t l, const struct lwm_llama_cut *cut, const struct lk_view *o, float *lse);
void lwm_fwd_mlp(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, enum lwm_buf_id mid, int64_t copy);
void lwm_bwd_mlp_piece(struct lwm_llama *m, const struct lwm_layer *w, const struct lwm_norm_grads *shared,
		       const struct lk_view *mid, const struct lk_view *gu, const struct lwm_piece *p, int kept);
/* From dout to the gradient of rotated and then plain q, k, v, as a (n,Q) matrix in the device's dtype. o NULL: delta is there. */
struct lk_view lwm_bwd_attention(struct lwm_llama *m, int64_t l, const struct lwm_llama_cut *cut, const struct lk_view *o,
				 const struct lk_view *dout, const float *lse, float *delta);
/* llama_lean.c: a layer of a lean run */
void lwm_lean_forward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w);
void lwm_lean_backward(struct lwm_llama *m, int64_t l, const struct lwm_layer *w);

/* llama_fwd.c: what the backward does again */
void lwm_fwd_qkv(struct lwm_llama *m, int64_t l, const struct lwm_layer *w);
void lwm_fwd_mid(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, enum lwm_buf_id mid, int64_t copy);
/* llama_loss.c */
int lwm_loss_rows(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_err *e); /* checks and uploads */
void lwm_loss_stats(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_llama_stats *out);

#endif
