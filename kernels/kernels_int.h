/* kernels_int.h - what a backend fills in and what it is handed. For the files of kernels/ alone.
 *
 * A backend is a table of functions, struct lk_ops, in parts by role; each part has a chapter of kernels.h and a dispatch_*.c that
 * checks the arguments and calls the entry. Entries have the parameters of the public call of the same name, and its contract:
 * shapes, dtypes, what is added into and what is overwritten stand in the chapter. Here stands what is known beyond that.
 *
 *  - Arguments were checked: backends check nothing again. Calls with nothing to do (no elements, 0 bytes) do not arrive.
 *  - An entry that is NULL becomes LK_EUNSUP with a sentence, unless "(optional)" says what else happens.
 *  - Work may be queued (rule 2 of kernels.h): 0 means accepted. "Waits" is said where the entry itself must wait.
 *  - Scratch belongs to the device and grows; nothing is allocated per call (rule 5).
 *  - The result depends on arguments and device alone, not on threads or on what ran before (rule 7).
 *  - A failure returns a status and leaves its sentence in dev->err: lk_fail, or what the backend has in its place.
 *
 * ref fills every entry but those marked "ref: none" by plain loops; a backend on host memory may begin with that (lk_ref_fill) and
 * replace what it does faster, as cpu does. cuda fills a table of its own.
 */
#ifndef LK_KERNELS_INT_H
#define LK_KERNELS_INT_H

#include "kernels/kernels.h"
#include "kernels/number.h"

#define LK_ABI 10 /* of struct lk_ops and struct lk_dev: one higher when they change */

/* ---- device.h ---- */

struct lk_device_ops {
	/* Frees dev->impl and what it holds, after waiting for work under way. (optional) there is nothing to free. ref: none */
	void (*close)(struct lk_dev *dev);
	/* Makes child->impl: a second queue at the place of parent, with scratch of its own. child is a copy of parent with impl
	 * NULL and no error; on failure the sentence is in child->err and nothing is left to free. */
	int (*fork)(struct lk_dev *child, struct lk_dev *parent);
	/* Bytes of the device's memory; of a host, free counts what caches of files hold. */
	int (*memory)(struct lk_dev *dev, size_t *free_bytes, size_t *total_bytes);
};

struct lk_memory_ops {
	int (*mem_alloc)(struct lk_dev *dev, size_t bytes, void **out); /* at least 64-byte aligned; bytes > 0 */
	void (*mem_free)(struct lk_dev *dev, void *p);                  /* never NULL; required */
	int64_t (*mem_own)(int64_t bytes); /* what mem_alloc takes of the process's memory for so many. NULL: so many */
	int (*host_alloc)(struct lk_dev *dev, size_t bytes, void **out); /* what copy_out and copy_in need; bytes > 0 */
	void (*host_free)(struct lk_dev *dev, void *p);                  /* never NULL; required */
	int (*upload)(struct lk_dev *dev, void *dst, const void *host_src, size_t bytes);   /* host_src is free on return */
	int (*download)(struct lk_dev *dev, void *host_dst, const void *src, size_t bytes); /* waits */
	int (*copy)(struct lk_dev *dev, void *dst, const void *src, size_t bytes);          /* within the device, no overlap */
	int (*copy_out)(struct lk_dev *dev, void *host_dst, const void *src, size_t bytes); /* host memory of host_alloc */
	int (*copy_in)(struct lk_dev *dev, void *dst, const void *host_src, size_t bytes);  /* likewise */
};

/* Of a device that finishes each call before it returns, record, wait and sync do nothing. */
struct lk_queue_ops {
	int (*event_new)(struct lk_dev *dev, struct lk_event **out); /* calloc; what the backend needs goes into impl */
	void (*event_free)(struct lk_event *ev);                     /* never NULL; frees ev too */
	int (*record)(struct lk_dev *dev, struct lk_event *ev);
	int (*wait)(struct lk_dev *dev, const struct lk_event *ev); /* the queue waits, the host does not */
	int (*sync)(struct lk_dev *dev);                            /* waits */
};

/* ---- dense.h ---- */

struct lk_dense_ops {
	/* c (M,N) = alpha op(a) op(b) [+ c]; M, N, K > 0, each and every row stride below 2^31. a, b may be bf16 with fp32 c. */
	int (*matmul)(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b, unsigned flags,
		      float alpha);

	/* Fills own for fp32 in the orders that take most; nothing is computed. M, N, K > 0. ref: none */
	int (*matmul_own)(struct lk_dev *dev, int64_t m, int64_t n, int64_t k, struct lk_own *own);

	/* Over n > 0 dense elements. cast, axpy and scale take fp32 and bf16, y and x of different types too. */
	int (*zero)(struct lk_dev *dev, void *p, size_t bytes);
	int (*fill)(struct lk_dev *dev, float *p, int64_t n, float value);
	int (*cast)(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x);
	int (*axpy)(struct lk_dev *dev, const struct lk_view *y, float a, const struct lk_view *x);
	int (*scale)(struct lk_dev *dev, const struct lk_view *y, float a);
	/* Sum of squares of x (n) in fp64, in an order that n alone decides. Waits. */
	int (*sumsq)(struct lk_dev *dev, const float *x, int64_t n, double *host_out);

	/* y, x, delta (T,D) with strided rows, w (D), rstd (T) fp32. delta may be NULL; else x becomes x + delta
	 * first, in memory too. */
	int (*rmsnorm_fwd)(struct lk_dev *dev, const struct lk_view *y, float *rstd, const struct lk_view *x,
			   const struct lk_view *delta, const struct lk_view *w, float eps);
	/* Adds into dx (T,D) and dw (D) fp32; dw's sum over rows in an order that T and D alone decide. */
	int (*rmsnorm_bwd)(struct lk_dev *dev, const struct lk_view *dx, float *dw, const struct lk_view *dy,
			   const struct lk_view *x, const struct lk_view *w, const float *rstd);
	/* x (T,H,D) in place, pairs (2i, 2i+1), pos (T) on the device; angles in fp64. */
	int (*rope)(struct lk_dev *dev, const struct lk_view *x, const int32_t *pos, double theta, int inverse);
	/* All (T,F). bwd overwrites dg, du, which may be g, u themselves. */
	int (*swiglu_fwd)(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *g, const struct lk_view *u);
	int (*swiglu_bwd)(struct lk_dev *dev, const struct lk_view *dg, const struct lk_view *du, const struct lk_view *dy,
			  const struct lk_view *g, const struct lk_view *u);
	/* y, dy (T,D), table, dtable (rows,D), ids (T) on the device. ids outside of [first, first + rows) are skipped: rows of y
	 * stay as they are. bwd adds the rows of one id in the order of the tokens (rule 7). */
	int (*embed_fwd)(struct lk_dev *dev, const struct lk_view *y, const int32_t *ids, const struct lk_view *table,
			 int32_t first);
	int (*embed_bwd)(struct lk_dev *dev, const struct lk_view *dtable, const int32_t *ids, const struct lk_view *dy,
			 int32_t first);
	/* y[i] = x[idx[i]], and y[idx[i]] += x[i] with distinct idx. Rows of D elements; idx on the device, not checked. */
	int (*gather_rows)(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx);
	int (*scatter_add_rows)(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx);

	/* logits (n,V), V > 0; target, weight, nll, hit (n). hit may be NULL; without grad weight may be too, and logits is left
	 * alone. On a host device targets were checked to be in [0,V). */
	int (*xent)(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight, float *nll,
		    float *hit, int grad);
	/* part (n,4). A target outside of [0,V) is another part's. What join finds in logits, part may have prepared when grad. */
	int (*xent_part)(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, float *part, int grad);
	/* all (parts,n,4), this part's at [mine]. */
	int (*xent_join)(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight,
			 const float *all, int parts, int mine, float *nll, float *hit, int grad);
	/* p, m, v, g (n) fp32 with n > 0; p_compute NULL, or (n) in dev->dtype, written too. */
	int (*adamw)(struct lk_dev *dev, float *p, float *m, float *v, const float *g, void *p_compute, int64_t n,
		     const struct lk_adamw_cfg *cfg);
};

/* ---- attention.h ---- */

struct lk_attention_ops {
	/* Fills the device part of s: dev_pos, dev_seg, impl; the host part is done. (optional) on host devices, where dev_pos and
	 * dev_seg already are pos and seg. ref: none. */
	int (*seq_new)(struct lk_dev *dev, struct lk_seq *s);
	/* Frees the device part alone. (optional) where there is none. ref: none */
	void (*seq_free)(struct lk_seq *s);

	/* st: m, l (Tq,H), acc (Tq,H,D), fp32 and dense. begin empties it, fwd folds a->k, a->v in (Tk > 0; of LK_BF16 or LK_I8 on
	 * any device where Tq <= LK_ATTN_FEW), end writes o (Tq,H,D) and lse (Tq,H). */
	int (*attn_begin)(struct lk_dev *dev, const struct lk_attn_state *st, int64_t tq, int64_t h, int64_t d);
	int (*attn_fwd)(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st);
	int (*attn_end)(struct lk_dev *dev, const struct lk_view *o, float *lse, const struct lk_attn_state *st);
	/* The three for one block of keys, Tk may be 0: o = 0, lse = -INFINITY. */
	int (*attn_once)(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse);
	/* delta (Tq,H) = sum over D of o dout. */
	int (*attn_delta)(struct lk_dev *dev, float *delta, const struct lk_view *o, const struct lk_view *dout);
	/* Adds into dq (Tq,H,D), dk, dv (Tk,Hkv,D), fp32, from p = e^(scale q k - lse), ds = p (dout v - delta):
	 * dv += p dout, dk += scale ds q, dq += scale ds k. Tq, Tk > 0. The order of each sum is fixed (rule 7). */
	int (*attn_bwd)(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
			const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv);
	/* (o, lse) becomes the result over both key sets; o, o2 (Tq,H,D) fp32 and dense. */
	int (*attn_merge)(struct lk_dev *dev, float *o, float *lse, const float *o2, const float *lse2, int64_t tq, int64_t h,
			  int64_t d);
	/* Fills own; nothing is computed. ref: none */
	int (*attn_own)(struct lk_dev *dev, int64_t n, int64_t heads, int64_t kv_heads, int64_t head_dim, int back,
			struct lk_own *own);
};

/* ---- generation.h ---- */

struct lk_generation_ops {
	/* One of x, y (n,H,D) is of the device's dtype, the other LK_BF16 with scale NULL or LK_I8 with scale (n,H). */
	int (*kv_store)(struct lk_dev *dev, const struct lk_view *y, float *scale, int64_t scale_stride, const struct lk_view *x);
	int (*kv_load)(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const float *scale,
		       int64_t scale_stride);
	/* logits (n,V) fp32 on the device, n > 0; host_u, host_id, host_logprob (n) on the host, host_logprob may be NULL.
	 * Waits. */
	int (*draw)(struct lk_dev *dev, const struct lk_view *logits, const struct lk_draw_cfg *how, const double *host_u,
		    int32_t *host_id, double *host_logprob);
};

/* ---- image.h ---- */

struct lk_image_ops {
	/* c->dev, g, w and bias are set; makes c->impl and packs the weights. On failure nothing is left to free. */
	int (*conv_new)(struct lk_dev *dev, struct lk_conv *c);
	int (*conv_refresh)(struct lk_dev *dev, struct lk_conv *c); /* the weights changed: packs them again */
	void (*conv_free)(struct lk_conv *c);                       /* frees impl alone. (optional) there is none */
	/* x (N,H,W,cin), y and add (N,H',W',cout), dense; add may be NULL. */
	int (*conv_fwd)(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *y, const struct lk_view *x,
			const struct lk_view *add);
	/* Overwrites dx, adds into dw (like w) and db (cout); each may be NULL. Sums in an order that the shapes decide (rule
	 * 7). */
	int (*conv_bwd)(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *dx, float *dw, float *db,
			const struct lk_view *dy, const struct lk_view *x);
	/* Fills own for images (n,h,w,cin); nothing is computed. ref: none */
	int (*conv_own)(struct lk_dev *dev, const struct lk_conv_geom *g, int64_t n, int64_t h, int64_t w, int back,
			struct lk_own *own);
	/* x, y, dx, dy (N,H,W,C); mean, rstd (N,groups); scale, bias, dscale, dbias (C). fwd writes mean and rstd; y may be x. bwd
	 * overwrites dx, which may be dy, and adds into dscale, dbias. */
	int (*groupnorm_fwd)(struct lk_dev *dev, const struct lk_view *y, float *mean, float *rstd, const struct lk_view *x,
			     const float *scale, const float *bias, int groups, float eps, int silu);
	int (*groupnorm_bwd)(struct lk_dev *dev, const struct lk_view *dx, float *dscale, float *dbias, const struct lk_view *dy,
			     const struct lk_view *x, const float *mean, const float *rstd, const float *scale, const float *bias,
			     int groups, float eps, int silu);
	/* Over dense elements, y may be x and dx dy; views may differ in type. */
	int (*leaky_fwd)(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, float slope);
	int (*leaky_bwd)(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *y,
			 float slope);
	/* x, dx (N,H,W,C), y, dy (N,H/2,W/2,C), of one type; H, W > 1. */
	int (*maxpool_fwd)(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x);
	int (*maxpool_bwd)(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *dy, const struct lk_view *x);
	/* idx (n), z (n,D), codebook (K,D) fp32, K > 0. The lowest index of the nearest. */
	int (*nearest_code)(struct lk_dev *dev, int32_t *idx, const struct lk_view *z, const struct lk_view *codebook);
	/* One of y, x is LK_U8; dense, n > 0 elements. */
	int (*pixels)(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x);
	/* x, t, dx of n > 0 dense elements, dx may be NULL. host_out (2). Waits. */
	int (*recon_loss)(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t, float w1,
			  float w2, double *host_out);
	/* x, t, dx (N,H,W,C) of one type, not empty, dx may be NULL; weight (C). The sum over pixels in an order that the shape
	 * alone decides. Waits. */
	int (*feature_loss)(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
			    const float *weight, float scale, double *host_out);
};

/* ---- group.h ---- ref: none of these. Where group_new is NULL, place and id may say why, and nothing else is called. */

struct lk_group_ops {
	int (*group_place)(struct lk_dev *dev, unsigned char *place); /* LK_GROUP_PLACE bytes, zeroed */
	int (*group_id)(struct lk_dev *dev, unsigned char *id);       /* LK_GROUP_ID bytes, zeroed */
	/* g->dev, rank, size and seconds are set; makes g->impl, and waits for all ranks. On failure group_free follows if impl
	 * was made. */
	int (*group_new)(struct lk_dev *dev, struct lk_group *g, const unsigned char *id);
	void (*group_free)(struct lk_group *g); /* frees impl alone, which is not NULL */
	/* queued in the group, after what the device was given before; the device's later work does not wait */
	int (*group_sum)(struct lk_group *g, float *p, int64_t n);
	int (*group_reduce_scatter)(struct lk_group *g, const float *in, float *mine, int64_t n); /* n: elements of one slice */
	int (*group_allgather)(struct lk_group *g, const void *mine, size_t bytes, void *all);
	int (*group_mark)(struct lk_group *g, int i); /* mark i, 0 <= i <= LK_GROUP_BEGUN: what the group was given until now */
	int (*group_join)(struct lk_group *g, int i); /* the device's later work waits for mark i */
	int (*group_start)(struct lk_group *g, int to, const void *send, size_t send_bytes, int from, void *recv,
			   size_t recv_bytes);
	int (*group_finish)(struct lk_group *g); /* called once for each start, in their order */
	int (*group_settle)(struct lk_group *g); /* waits */
};

struct lk_ops {
	struct lk_device_ops device;
	struct lk_memory_ops memory;
	struct lk_queue_ops queue;
	struct lk_dense_ops dense;
	struct lk_attention_ops attention;
	struct lk_generation_ops generation;
	struct lk_image_ops image;
	struct lk_group_ops group;
};

/* ---- what the entries are handed ---- */

struct lk_dev {
	struct lk_ops ops;
	int dtype;   /* of activations and compute weights: enum lk_dtype */
	int threads; /* CPU threads it computes with */
	int is_host; /* device memory is host memory */
	char name[96], err[256], warning[256];
	void *impl; /* of the backend */
};
/* What a program and a backend in a shared object compare; the backend refuses another one. The size is there for a new entry whose
 * author forgot the number. */
enum { LK_LAYOUT = LK_ABI << 16 | (int)sizeof(struct lk_dev) };

/* A backend's event_new allocates it (calloc) and keeps what it needs in impl; lk_event_new sets free to its event_free. */
struct lk_event {
	void (*free)(struct lk_event *);
	void *impl;
};

/* Tile summary: over LK_SEQ_TILE consecutive tokens. Tokens with seg < 0 count in neither range. */
enum { LK_SEQ_TILE = 64 };
struct lk_seq_tile {
	int32_t pos_min, pos_max, seg_min, seg_max; /* min > max: only padding */
};
struct lk_seq {
	struct lk_dev *dev;
	int64_t n, ntiles;
	int32_t *pos, *seg;         /* host, n */
	struct lk_seq_tile *tiles;  /* host, ntiles */
	int32_t *dev_pos, *dev_seg; /* device; == pos, seg on host devices */
	void *impl;                 /* of the backend */
};

struct lk_conv {
	struct lk_dev *dev;
	struct lk_conv_geom g;
	const float *w, *bias; /* borrowed device memory: (kh,kw,cin,cout), (cout) */
	void *impl;            /* of the backend */
};

struct lk_group {
	struct lk_dev *dev;
	int rank, size;
	int inflight;   /* exchanges started and not finished */
	uint64_t begun; /* bit i: ticket i is out */
	double seconds; /* how long to wait for other ranks */
	void *impl;     /* of the backend */
};

/* ---- what backends may call ---- */

#ifdef __cplusplus
extern "C" {
#endif

/* report.c: sets dev->err and returns code. A shared object has one of its own: it cannot call into the program. */
int lk_fail(struct lk_dev *dev, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same for an op that the backend does not have: LK_EUNSUP. */
int lk_missing(struct lk_dev *dev, const char *op);

/* A sign of life from inside a long loop, to whom lk_on_progress named. */
extern void (*lk_progress_fn)(void);
static inline void lk_progress(void)
{
	if (lk_progress_fn)
		lk_progress_fn();
}

/* ref/ref.c: ref's entries. */
void lk_ref_fill(struct lk_ops *o);

#ifdef __cplusplus
}
#endif

#endif
