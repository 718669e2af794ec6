/* kernels.h - arithmetic on tensors, the same calls on every device.
 *
 * The only header of this folder that others include. It knows nothing of tokens, files or ranks.
 *
 *	struct lk_dev *dev;
 *	char why[256];
 *	if (lk_dev_open(&dev, "cpu", 0, why, sizeof why)) ...        ref | cpu | cuda:0
 *	lk_mem_alloc(dev, bytes, &p);  lk_upload(dev, p, host, bytes);
 *	lk_matmul(dev, c, a, b, LK_TB, 1.0f);
 *	lk_download(dev, host, p, bytes);                             waits
 *
 * Contract, kept by every backend:
 * 1. dispatch.c checks dtype, rank, extents, strides once; a wrong call is LK_EINVAL with a sentence in lk_dev_error.
 * 2. Work on one device runs in call order. Two devices made by lk_dev_fork meet only through lk_record / lk_wait.
 * 3. Returning 0 means accepted; results are there after lk_sync or lk_download. Callers outside kernels/ never
 *    dereference device memory: they upload and download.
 * 4. Pointers named host_* are host memory; every other pointer in a call is memory of that device.
 * 5. No op allocates on its hot path after the first call of that shape; scratch belongs to the device.
 * 6. Activations and weights are of lk_dev_dtype(dev): LK_F32 on ref and cpu, LK_BF16 on cuda. Sums are fp32 or better.
 *    Gradients of weights, optimizer state, norms' rstd, log-sum-exp, attention partials, dq, dk, dv are LK_F32.
 * 7. Same inputs, same device, same thread count, same build: same bits.
 * 8. Backward ops ADD into gradients of weights. Whether they add into gradients of activations stands at each op.
 * 9. A device belongs to one host thread at a time.
 */
#ifndef LK_KERNELS_H
#define LK_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum lk_status { LK_OK = 0, LK_EINVAL = -1, LK_ENOMEM = -2, LK_EUNSUP = -3, LK_EDEVICE = -4 };
enum lk_dtype { LK_F32, LK_BF16, LK_I32, LK_U8, LK_I8, LK_DTYPE_COUNT };

/* A borrowed view: n[0..ndim) extents, stride[0..ndim) in elements. The last stride is always 1; ops accept any
 * stride in the other dimensions unless they say "dense". */
struct lk_view {
	void *data;
	int64_t n[4];
	int64_t stride[4];
	int32_t ndim;
	int32_t dtype; /* enum lk_dtype */
};

struct lk_dev;   /* a place to compute and one in-order queue */
struct lk_event; /* a point in a queue */

static inline size_t lk_dtype_size(int dtype)
{
	return dtype == LK_BF16 ? 2 : dtype == LK_U8 || dtype == LK_I8 ? 1 : 4;
}

static inline struct lk_view lk_view4(void *data, int dtype, int64_t a, int64_t b, int64_t c, int64_t d)
{
	struct lk_view v = { data, { a, b, c, d }, { b * c * d, c * d, d, 1 }, 4, dtype };
	return v;
}

static inline struct lk_view lk_view3(void *data, int dtype, int64_t a, int64_t b, int64_t c)
{
	struct lk_view v = { data, { a, b, c, 1 }, { b * c, c, 1, 0 }, 3, dtype };
	return v;
}

static inline struct lk_view lk_view2(void *data, int dtype, int64_t a, int64_t b)
{
	struct lk_view v = { data, { a, b, 1, 1 }, { b, 1, 0, 0 }, 2, dtype };
	return v;
}

static inline struct lk_view lk_view1(void *data, int dtype, int64_t a)
{
	struct lk_view v = { data, { a, 1, 1, 1 }, { 1, 0, 0, 0 }, 1, dtype };
	return v;
}

/* ---- devices, memory, queues ---- */

/* spec: "ref", "cpu", "cuda" or "cuda:N". threads: CPU threads to use, 0 = all the process may use; ignored by ref
 * and cuda. On failure *out is NULL and why (n bytes) holds one sentence: LK_EUNSUP no such backend in this build or
 * its library cannot be loaded, LK_EDEVICE no usable device, LK_ENOMEM. */
int lk_dev_open(struct lk_dev **out, const char *spec, int threads, char *why, size_t n);
int lk_dev_fork(struct lk_dev **out, struct lk_dev *dev); /* same place, second queue, for copies and ring traffic */
void lk_dev_close(struct lk_dev *dev);                    /* NULL is fine */
/* How many devices of a kind ("ref", "cpu", "cuda") there are: 1 or more, or a status < 0 with the reason in why. */
int lk_dev_count(const char *kind, char *why, size_t n);
int lk_dev_dtype(const struct lk_dev *dev);               /* dtype of activations and compute weights */
int lk_dev_threads(const struct lk_dev *dev);
const char *lk_dev_name(const struct lk_dev *dev);        /* "cpu (avx512, OpenBLAS SkylakeX, 2 threads)" */
const char *lk_dev_error(const struct lk_dev *dev);       /* the sentence of the last failure, "" if none */
/* fn is called now and then by operations that may take minutes on a CPU, from any of their threads: a sign of life. For the whole
 * process; NULL: nobody listens. */
void lk_on_progress(void (*fn)(void));
const char *lk_dev_warning(const struct lk_dev *dev);     /* e.g. the BLAS runs with the wrong core type; "" if none */
void *lk_dev_native(struct lk_dev *dev);                  /* cudaStream_t on cuda; NULL elsewhere */
/* Of a host, free is what programs can have: what caches of files hold counts. */
int lk_dev_memory(struct lk_dev *dev, size_t *free_bytes, size_t *total_bytes);
int lk_dev_is_host(const struct lk_dev *dev);             /* 1: device memory is host memory (ref, cpu) */

int lk_mem_alloc(struct lk_dev *dev, size_t bytes, void **out); /* 64-byte aligned, contents undefined */
void lk_mem_free(struct lk_dev *dev, void *p);
int lk_host_alloc(struct lk_dev *dev, size_t bytes, void **out); /* pinned where that helps */
void lk_host_free(struct lk_dev *dev, void *p);
int lk_upload(struct lk_dev *dev, void *dst, const void *host_src, size_t bytes); /* host_src may be reused at once */
int lk_download(struct lk_dev *dev, void *host_dst, const void *src, size_t bytes); /* waits */
int lk_copy(struct lk_dev *dev, void *dst, const void *src, size_t bytes);          /* within the device, no overlap */
/* Between device memory and memory of lk_host_alloc, queued and not waited for: neither side may be touched before the queue
 * has passed (lk_sync, or an event). On a device made by lk_dev_fork they run beside the arithmetic. */
int lk_copy_out(struct lk_dev *dev, void *host_dst, const void *src, size_t bytes);
int lk_copy_in(struct lk_dev *dev, void *dst, const void *host_src, size_t bytes);
int lk_event_new(struct lk_dev *dev, struct lk_event **out);
void lk_event_free(struct lk_event *ev);
int lk_record(struct lk_dev *dev, struct lk_event *ev);
int lk_wait(struct lk_dev *dev, const struct lk_event *ev); /* later work on dev waits for ev */
int lk_sync(struct lk_dev *dev);

/* ---- what a device takes for itself, beside the memory of its callers ---- */

struct lk_conv_geom;
struct lk_own {
	int64_t kept;    /* bytes that stay: until the device is closed, of a convolution until it is freed */
	int64_t scratch; /* bytes that all calls share: of several, the most counts */
};
/* For attention of n queries and n keys, forward and with `back` backward, and for the angles of lk_rope at as many positions. Only
 * sizes: nothing is computed. LK_EUNSUP where the backend does not say (all but cpu). */
int lk_attn_own(struct lk_dev *dev, int64_t n, int64_t heads, int64_t kv_heads, int64_t head_dim, int back, struct lk_own *own);
/* For a convolution of images x (n,h,w,cin); likewise. */
int lk_conv_own(struct lk_dev *dev, const struct lk_conv_geom *g, int64_t n, int64_t h, int64_t w, int back, struct lk_own *own);

/* ---- groups: devices of several ranks that exchange device memory by themselves ----
 *
 * One device a rank, no two ranks on one GPU; on cuda by NCCL. ref and cpu have none. Every call is made by all ranks in the
 * same order. A group has a queue of its own: an exchange begins there when all that was called on the device before is
 * done, and runs beside what the device is given next, until lk_group_finish makes later work of the device wait for it.
 * No call waits on the host but lk_group_new, lk_group_settle and lk_group_free. Sums are fp32, in an order that follows
 * from the number of ranks and the wiring between their GPUs: the same bits on every run of the same allocation.
 * A rank that is lost shows in lk_group_settle; after a failure (LK_EDEVICE) the group is of no more use. The sentence is
 * in lk_dev_error of the group's device. */
enum { LK_GROUP_ID = 128, LK_GROUP_PLACE = 16, LK_GROUP_INFLIGHT = 8 };
struct lk_group;
/* Local. What no two ranks may share: a number of the GPU's own. LK_EUNSUP with the reason where this device cannot group. */
int lk_group_place(struct lk_dev *dev, unsigned char place[LK_GROUP_PLACE]);
/* Local. Made by one rank, which tells it to the others. */
int lk_group_id(struct lk_dev *dev, unsigned char id[LK_GROUP_ID]);
/* Tries the group before it returns: a sum, a gather and a block round the ring. seconds: how long this call and
 * lk_group_settle wait for other ranks. Free the group before the device. */
int lk_group_new(struct lk_dev *dev, struct lk_group **out, const unsigned char id[LK_GROUP_ID], int rank, int size,
		 double seconds);
void lk_group_free(struct lk_group *g); /* NULL is fine; what is still under way after a few seconds is given up */
int lk_group_sum(struct lk_group *g, float *p, int64_t n); /* in place */
/* mine (n / size) = this rank's slice of the sum of in (n); it may be its own place in `in`. */
int lk_group_reduce_scatter(struct lk_group *g, const float *in, float *mine, int64_t n);
/* all (size * bytes); mine may be its own place in all. */
int lk_group_allgather(struct lk_group *g, const void *mine, size_t bytes, void *all);
/* One send and one receive at once; 0 bytes: nothing that way. At most LK_GROUP_INFLIGHT are in flight, finished in order. */
int lk_group_start(struct lk_group *g, int to, const void *send, size_t send_bytes, int from, void *recv, size_t recv_bytes);
int lk_group_finish(struct lk_group *g);
int lk_group_settle(struct lk_group *g); /* waits until all of that is done */

/* ---- dense algebra ---- */

enum { LK_TA = 1, LK_TB = 2, LK_ACC = 4 };
/* c (M,N) = alpha * op(a) op(b)  [+ c with LK_ACC].  op(a) is (M,K): a is (M,K), or (K,M) with LK_TA; b likewise
 * (K,N), or (N,K) with LK_TB. Rows may be strided. a, b of one dtype; c of the same dtype or LK_F32. */
int lk_matmul(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
	      unsigned flags, float alpha);

/* ---- element-wise and reductions; x, y dense, n elements ---- */

int lk_zero(struct lk_dev *dev, void *p, size_t bytes);
int lk_fill(struct lk_dev *dev, float *p, int64_t n, float value);
int lk_cast(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x);         /* y = (dtype)x, same n */
int lk_axpy(struct lk_dev *dev, const struct lk_view *y, float a, const struct lk_view *x); /* y += a x; dtypes may differ */
int lk_scale(struct lk_dev *dev, const struct lk_view *y, float a);                         /* y *= a */
/* host_out = sum of squares of fp32 x, in fp64, deterministic. Waits. NaN or Inf in x shows in the result. */
int lk_sumsq(struct lk_dev *dev, const float *x, int64_t n, double *host_out);

/* ---- transformer ---- */

/* RMS norm (Zhang & Sennrich 2019): y = w * x * rstd, rstd = 1/sqrt(mean(x^2) + eps). x, y (T,D), w (D), rstd (T) fp32.
 * With delta (T,D) not NULL, x is first replaced by x + delta (the residual sum), in place. */
int lk_rmsnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *rstd, const struct lk_view *x,
		   const struct lk_view *delta, const struct lk_view *w, float eps);
/* dx += gradient (adds, so that the residual path joins for free), dw (D) fp32 += gradient. */
int lk_rmsnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dw, const struct lk_view *dy,
		   const struct lk_view *x, const struct lk_view *w, const float *rstd);

/* Rotary embedding (Su et al. 2021), interleaved pairs, in place. x (T,H,D), D even, token and head strides free.
 * angle = pos[t] * theta^(-2i/D), formed in fp64. pos (T) int32. inverse != 0 rotates back (the backward). */
int lk_rope(struct lk_dev *dev, const struct lk_view *x, const int32_t *pos, double theta, int inverse);

/* SwiGLU (Shazeer 2020): y = silu(g) * u. All (T,F), rows strided. bwd OVERWRITES dg, du; they may alias g, u. */
int lk_swiglu_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *g, const struct lk_view *u);
int lk_swiglu_bwd(struct lk_dev *dev, const struct lk_view *dg, const struct lk_view *du, const struct lk_view *dy,
		  const struct lk_view *g, const struct lk_view *u);

/* y[t] = table[ids[t] - first] for ids[t] in [first, first + rows); other rows of y are left alone.
 * y (T,D), table (rows,D). Two calls with two tables make the vision model's embedding. */
int lk_embed_fwd(struct lk_dev *dev, const struct lk_view *y, const int32_t *ids, const struct lk_view *table,
		 int32_t first);
/* dtable (rows,D) fp32 += dy rows. Deterministic. */
int lk_embed_bwd(struct lk_dev *dev, const struct lk_view *dtable, const int32_t *ids, const struct lk_view *dy,
		 int32_t first);

/* y[i] = x[idx[i]] (gather) and y[idx[i]] += x[i] (scatter; idx distinct). x, y 2-d, idx int32 device memory.
 * They bring together the positions that one head has to be evaluated at. */
int lk_gather_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx);
int lk_scatter_add_rows(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const int32_t *idx);

/* Softmax cross-entropy over one chunk of rows. logits (n,V); target (n) int32 in [0,V); weight (n) fp32.
 * nll[i] = lse_i - logit[i][target] (unweighted, fp32); hit[i] = 1.0f if the arg max is the target (lowest index wins).
 * grad != 0: logits is overwritten by weight[i] * (softmax - onehot). nll, hit are device memory; hit may be NULL. */
int lk_xent(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight, float *nll,
	    float *hit, int grad);

/* AdamW (Loshchilov & Hutter 2019), decoupled decay times lr; eps outside the root.
 * g is multiplied by grad_scale first. bias1 = 1 - beta1^t, bias2 = 1 - beta2^t. */
struct lk_adamw {
	float lr, beta1, beta2, eps, weight_decay, grad_scale;
	double bias1, bias2;
};
/* p, m, v, g fp32, n elements. p_compute: NULL or the same weights in lk_dev_dtype, refreshed from p. */
int lk_adamw(struct lk_dev *dev, float *p, float *m, float *v, const float *g, void *p_compute, int64_t n,
	     const struct lk_adamw *cfg);

/* ---- attention ----
 *
 * Block attention with a carried state, so that a ring can fold in one key/value block after the other (Rabe & Staats
 * 2021; Dao et al. 2022; Liu et al. 2023). Token t of a query block sees token s of a key block iff
 *	seg[t] == seg[s], seg[t] >= 0, and (not causal or pos[s] <= pos[t]).
 * Rows of a batch are laid end to end as different segments: there is no batch dimension. */

struct lk_seq; /* positions and segments of one block of tokens, with what a backend needs to skip masked tiles */
/* host_pos, host_seg: n int32 each; host_seg NULL = all one segment. Copied. Segment id < 0 = padding.
 * Any order is right; runs of ascending positions and equal segments are fast. */
int lk_seq_new(struct lk_dev *dev, struct lk_seq **out, int64_t n, const int32_t *host_pos, const int32_t *host_seg);
void lk_seq_free(struct lk_seq *s);
const int32_t *lk_seq_pos(const struct lk_seq *s); /* device memory, for lk_rope */
/* 1 if some query token sees some key token, 0 if the whole block pair is masked out. Exact up to tile summaries:
 * may say 1 for a block without a visible pair, never 0 for one with. Host work, cheap. */
int lk_seq_sees(const struct lk_seq *q, const struct lk_seq *k, int causal);

struct lk_attn {
	struct lk_view q;    /* (Tq,H,D) */
	struct lk_view k, v; /* (Tk,Hkv,D), H a multiple of Hkv; head h uses key head h / (H/Hkv) */
	const struct lk_seq *qs, *ks;
	float scale; /* 1/sqrt(D) as a rule */
	int causal;
	/* Only when k, v are LK_I8 (see lk_kv_store): scales of k and v, (Tk,Hkv) with rows scale_stride apart. */
	const float *k_scale, *v_scale;
	int64_t scale_stride;
};
/* Forward only, and only for so few queries, k and v may also be what lk_kv_store writes: LK_BF16 or LK_I8. */
enum { LK_ATTN_FEW = 4 };
/* Carried per query and head: running max m and sum l (Tq,H), unnormalised output acc (Tq,H,D), all fp32 and dense. */
struct lk_attn_state {
	float *m, *l, *acc;
};
int lk_attn_begin(struct lk_dev *dev, const struct lk_attn_state *st, int64_t tq, int64_t h, int64_t d);
int lk_attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st); /* folds a block in */
/* o (Tq,H,D) = acc / l, zeros where nothing was seen; lse (Tq,H) = m + log l, -INFINITY where nothing was seen. */
int lk_attn_end(struct lk_dev *dev, const struct lk_view *o, float *lse, const struct lk_attn_state *st);
/* begin + fwd + end for a single key/value block, without the carried state in memory. */
int lk_attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse);

/* delta (Tq,H) fp32 = sum over D of o * dout. */
int lk_attn_delta(struct lk_dev *dev, float *delta, const struct lk_view *o, const struct lk_view *dout);
/* dq (Tq,H,D), dk, dv (Tk,Hkv,D): fp32 views, ADDED into. dout like q; lse, delta (Tq,H) of the whole row. */
int lk_attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
		const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv);

/* Merge two partial results over the same queries: (o,lse) becomes the result over both key sets (fp32 o). Used when a
 * cache is split over ranks and only partials travel. o, o2 (Tq,H,D) dense fp32. */
int lk_attn_merge(struct lk_dev *dev, float *o, float *lse, const float *o2, const float *lse2, int64_t tq, int64_t h,
		  int64_t d);

/* ---- generation ---- */

/* Keys or values in fewer bits, for caches. x (n,H,D) of the device's dtype -> y (n,H,D) LK_BF16 (scale NULL), or LK_I8
 * with scale (n,H) fp32, rows scale_stride apart: scale = max|x| / 127 over D, y = x / scale rounded to even. A row of
 * zeros has scale 0, a row with NaN or Inf has scale NaN and y 0. */
int lk_kv_store(struct lk_dev *dev, const struct lk_view *y, float *scale, int64_t scale_stride,
		const struct lk_view *x);
/* And back: y = x * scale. */
int lk_kv_load(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x, const float *scale,
	       int64_t scale_stride);

struct lk_draw {
	int64_t first, last; /* only columns [first, last) have a chance */
	int64_t top_k;       /* 0: all; else so many of the largest, lower index first on ties */
	double temperature;  /* 0: the largest logit, the lowest index on ties */
	double top_p;        /* 1: all; else the largest that make up so much of the weight */
};
/* For each row of logits (n,V) fp32 one column, by inverse transform of host_u[i] in [0,1) over exp(logit / temperature)
 * of what the limits leave, in index order without limits, else from the largest down. What weighs less than 2^-41 of the
 * largest may count as nothing. host_logprob (may be NULL): natural log of its probability at temperature 1 over
 * [first, last). host_id -1: NaN or +Inf in the range, or nothing finite. Waits. */
int lk_draw(struct lk_dev *dev, const struct lk_view *logits, const struct lk_draw *how, const double *host_u,
	    int32_t *host_id, double *host_logprob);

/* ---- images: NHWC, dense ---- */

struct lk_conv; /* geometry, and the weights in the form the backend likes best */
struct lk_conv_geom {
	int32_t cin, cout, kh, kw, stride;
	int32_t pad_top, pad_left, pad_bottom, pad_right; /* zeros */
	int32_t upsample; /* 1, or 2: the input is first doubled by nearest neighbour */
};
/* w (kh,kw,cin,cout) fp32 and bias (cout) fp32 are borrowed: call lk_conv_refresh after they changed. */
int lk_conv_new(struct lk_dev *dev, struct lk_conv **out, const struct lk_conv_geom *g, const float *w,
		const float *bias);
int lk_conv_refresh(struct lk_dev *dev, struct lk_conv *c);
void lk_conv_free(struct lk_conv *c);
/* x (N,H,W,cin) -> y (N,H',W',cout), plus add (like y) when not NULL: the residual branch. y must not alias x. */
int lk_conv_fwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *y, const struct lk_view *x,
		const struct lk_view *add);
/* dx OVERWRITTEN (NULL: not wanted); dw, db fp32 added into (NULL: not wanted). */
int lk_conv_bwd(struct lk_dev *dev, struct lk_conv *c, const struct lk_view *dx, float *dw, float *db,
		const struct lk_view *dy, const struct lk_view *x);

/* Group norm (Wu & He 2018) over H, W and the channels of a group, then silu when silu != 0. x, y (N,H,W,C) dense;
 * scale, bias (C) fp32; mean, rstd (N,groups) fp32. y may alias x in inference. */
int lk_groupnorm_fwd(struct lk_dev *dev, const struct lk_view *y, float *mean, float *rstd, const struct lk_view *x,
		     const float *scale, const float *bias, int groups, float eps, int silu);
/* dx OVERWRITTEN, dscale, dbias fp32 added into. x is the input of the forward. dx may alias dy. */
int lk_groupnorm_bwd(struct lk_dev *dev, const struct lk_view *dx, float *dscale, float *dbias,
		     const struct lk_view *dy, const struct lk_view *x, const float *mean, const float *rstd,
		     const float *scale, const float *bias, int groups, float eps, int silu);

/* idx[i] = argmin_k |z_i - e_k|^2, lowest k on ties. z (n,D), codebook (K,D) fp32, idx int32. */
int lk_nearest_code(struct lk_dev *dev, int32_t *idx, const struct lk_view *z, const struct lk_view *codebook);

/* y = clip(x * scale + shift) to u8 or back: 8-bit pixels <-> [-1,1]. From u8: u/127.5 - 1. To u8:
 * trunc(clamp((x+1)*127.5, 0, 255)). One of x, y is LK_U8. */
int lk_pixels(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x);

/* Reconstruction loss: host_out[0] = mean |x-t|, host_out[1] = mean (x-t)^2; dx OVERWRITTEN (may be NULL) by
 * (w1 * sign(x-t) + w2 * 2(x-t)) / n, the gradient of w1*L1 + w2*L2. Waits. */
int lk_recon_loss(struct lk_dev *dev, const struct lk_view *dx, const struct lk_view *x, const struct lk_view *t,
		  float w1, float w2, double *host_out);

#ifdef __cplusplus
}
#endif
#endif
