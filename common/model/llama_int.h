/* llama_int.h - what the llama files share. Nobody else includes it. */
#ifndef LWM_MODEL_LLAMA_INT_H
#define LWM_MODEL_LLAMA_INT_H

#include "common/comm/device.h"
#include "common/comm/watchdog.h"
#include "common/model/attn_ring.h"
#include "common/model/llama.h"
#include "common/model/llama_pass.h"

/* ---- weights (llama_weights.c): the only way to them ---- */

struct lwm_matrix {
	struct lk_view w; /* in the device's dtype; 1-d for norms */
	struct lk_view g; /* fp32 gradient; data NULL when none is wanted */
};
struct lwm_layer {
	struct lwm_matrix norm1, qkv, o, norm2, gate_up, down; /* qkv: rows q, k, v; gate_up: rows gate, up */
};
struct lwm_embed {
	struct lwm_matrix table[LWM_MODALITIES];
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
	struct lwm_weight_place embed[LWM_MODALITIES], norm, head[LWM_MODALITIES];
	bool tied;                    /* head lies in `first` */
	struct lwm_layer_map *layer;
};
int lwm_map_new(struct lwm_llama_map *m, const struct lwm_llama_cfg *cfg, struct lwm_err *e);
void lwm_map_release(struct lwm_llama_map *m);

/* From m->w; what: LWM_WEIGHTS, LWM_GRADS. A failure is kept in m->rc. release with grads: nothing more comes to this gradient. */
struct lwm_layer lwm_layer_acquire(struct lwm_llama *m, int64_t l, unsigned what);
void lwm_layer_release(struct lwm_llama *m, int64_t l, bool grads);
struct lwm_embed lwm_embed_acquire(struct lwm_llama *m, unsigned what);
void lwm_embed_release(struct lwm_llama *m, bool grads);
struct lwm_head lwm_head_acquire(struct lwm_llama *m, unsigned what);
void lwm_head_release(struct lwm_llama *m, bool grads); /* tied tables: their gradient is ready with the embeddings' */

/* ---- memory: one block, cut by a table ---- */

enum lwm_buf_id {
	LWM_BUF_X,      /* (T,D) residual stream: layers + 1 of them in training, else one */
	LWM_BUF_O,      /* (T,D) attention output, per layer in training */
	LWM_BUF_LSE,    /* (T,H) fp32, likewise */
	LWM_BUF_QKV,    /* (T,Q), Q = (H + 2 K) E; per layer without recomputation */
	LWM_BUF_MID,    /* (T,D) residual between attention and MLP; likewise; none in evaluation */
	LWM_BUF_GU,     /* (T,2F) gate and up; per layer without recomputation, else one piece */
	LWM_BUF_NORM,   /* (T,D) */
	LWM_BUF_H,      /* (C,F) */
	LWM_BUF_DH,     /* (C,F) */
	LWM_BUF_RSTD,   /* (T) fp32 */
	LWM_BUF_DX,     /* (T,D) gradient of the residual stream */
	LWM_BUF_DN,     /* (T,D) */
	LWM_BUF_DELTA,  /* (T,H) fp32 */
	LWM_BUF_DQKV,   /* (T,Q) fp32 */
	LWM_BUF_IDS,    /* (T) int32 */
	LWM_BUF_IDX,    /* (T) int32: counted positions, text first */
	LWM_BUF_TARGET, /* (T) int32 */
	LWM_BUF_WEIGHT, /* (T) fp32 */
	LWM_BUF_NLL,    /* (T) fp32 */
	LWM_BUF_HIT,    /* (T) fp32 */
	LWM_BUF_LOGITS, /* (R,V) of the larger vocabulary */
	LWM_BUF_RX,     /* (R,D) rows of the residual stream */
	LWM_BUF_RN,     /* (R,D) normed */
	LWM_BUF_RD,     /* (R,D) gradient */
	LWM_BUF_RRSTD,  /* (R) */
	LWM_BUFS
};
enum lwm_buf_group { LWM_GROUP_SAVED, LWM_GROUP_WORK, LWM_GROUP_LOSS };

struct lwm_buf_plan {
	int64_t bytes[LWM_BUFS];  /* of one */
	int64_t copies[LWM_BUFS];
	int64_t offset[LWM_BUFS];
	int group[LWM_BUFS];
	int64_t total, host; /* host: of one layer, run->offload */
	int64_t mlp_chunk, loss_rows;
};
void lwm_plan_bufs(struct lwm_buf_plan *p, const struct lwm_llama_cfg *cfg, const struct lwm_llama_run *run, int dtype);

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
	struct lwm_llama_map map;
	struct lwm_buf_plan plan;
	struct lwm_attn *attention;
	struct lwm_attn *own; /* the same, where it is the model's to free */
	struct lwm_offload *offload; /* NULL: everything stays on the device */
	char *block;
	int dtype;
	/* of the step under way */
	struct lwm_supply *w;
	const struct lwm_llama_batch *batch; /* the caller's */
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
/* q, k, v heads of a (n, Q) buffer. */
struct lwm_attn_qkv lwm_qkv_views(const struct lwm_llama_cfg *cfg, void *data, int dtype, int64_t n);
/* Columns [c0, c0 + cols) of a 2-d view. */
struct lk_view lwm_cols(const struct lk_view *v, int64_t c0, int64_t cols);

/* llama_fwd.c: what the backward does again */
void lwm_fwd_norm(struct lwm_llama *m, const struct lk_view *y, const struct lk_view *x, const struct lwm_matrix *w);
void lwm_fwd_qkv(struct lwm_llama *m, int64_t l, const struct lwm_layer *w);
void lwm_fwd_mid(struct lwm_llama *m, int64_t l, const struct lwm_layer *w, const struct lk_view *mid);
/* llama_loss.c */
int lwm_loss_rows(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_err *e); /* checks and uploads */
void lwm_loss_stats(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_llama_stats *out);

#endif
