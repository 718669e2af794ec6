/* dense.h - products, element-wise ops, the layers of a transformer but attention, its loss, and AdamW.
 *
 * A chapter of kernels.h, which outside code includes instead. One layer, forward:
 *
 *	lk_rmsnorm_fwd(dev, &y, rstd, &x, &delta, &w, eps);     x += delta, the residual sum; y = norm of it
 *	lk_matmul(dev, &q, &y, &wq, LK_TB, 1);                  weights as (out,in); k, v likewise
 *	lk_rope(dev, &q3, pos, theta, 0);                       k likewise; then attention.h
 *	lk_swiglu_fwd(dev, &h, &gate, &up);
 *	...
 *	lk_xent(dev, &logits, target, weight, nll, hit, 1);     logits become their gradient
 */
#ifndef LK_DENSE_H
#define LK_DENSE_H

#include "kernels/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- products ---- */

enum { LK_TA = 1, LK_TB = 2, LK_ACC = 4 };
/* c (M,N) = alpha * op(a) op(b)  [+ c with LK_ACC].  op(a) is (M,K): a is (M,K), or (K,M) with LK_TA; b likewise
 * (K,N), or (N,K) with LK_TB. Rows may be strided. a, b of one dtype; c of the same dtype or LK_F32. */
int lk_matmul(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
	      unsigned flags, float alpha);
/* What the device takes for itself for a product of M x N numbers by sums of K. Only sizes: nothing is computed. LK_EUNSUP where
 * the backend does not say (all but cpu). See lk_attn_own. */
int lk_matmul_own(struct lk_dev *dev, int64_t m, int64_t n, int64_t k, struct lk_own *own);

/* ---- element-wise and reductions; x, y dense, n elements ---- */

int lk_zero(struct lk_dev *dev, void *p, size_t bytes);
int lk_fill(struct lk_dev *dev, float *p, int64_t n, float value);
int lk_cast(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *x);          /* y = (dtype)x, same n */
int lk_axpy(struct lk_dev *dev, const struct lk_view *y, float a, const struct lk_view *x); /* y += a x; dtypes may differ */
int lk_scale(struct lk_dev *dev, const struct lk_view *y, float a);                         /* y *= a */
/* host_out = sum of squares of fp32 x, in fp64, deterministic. Waits. NaN or Inf in x shows in the result. */
int lk_sumsq(struct lk_dev *dev, const float *x, int64_t n, double *host_out);

/* ---- layers ---- */

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

/* SwiGLU (Shazeer 2020): y = silu(g) * u, silu(g) = g / (1 + e^-g). All (T,F), rows strided. */
int lk_swiglu_fwd(struct lk_dev *dev, const struct lk_view *y, const struct lk_view *g, const struct lk_view *u);
/* OVERWRITES dg, du; they may alias g, u. */
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

/* ---- loss and optimizer ---- */

/* Softmax cross-entropy over one chunk of rows. logits (n,V); target (n) int32 in [0,V); weight (n) fp32.
 * nll[i] = lse_i - logit[i][target] (unweighted, fp32); hit[i] = 1.0f if the arg max is the target (lowest index wins).
 * grad != 0: logits is overwritten by weight[i] * (softmax - onehot). nll, hit are device memory; hit may be NULL, and without
 * grad weight too. */
int lk_xent(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight, float *nll,
	    float *hit, int grad);

/* The same where the vocabulary is cut: each of several holders has logits (n,V) of its own V neighbouring entries and nobody ever
 * has all of them. Parts are numbered in the order of their entries.
 *
 *	lk_xent_part(dev, &logits, target, mine, grad)             what a holder knows of each row: part (n,4) fp32
 *	...                                                        the holders exchange that: all (parts,n,4), the same for everyone
 *	lk_xent_join(dev, &logits, target, weight, all, parts, me, nll, hit, grad)
 *
 * part: the largest logit m, the sum of e^(logit - m), the logit of the target (0: it is another part's), and 1.0f if the
 * target is the first of the largest (else 0). target (n) int32 counts from this part's first entry: outside of [0,V) is another's.
 * Then lse = M + log sum of s e^(m - M) over the parts in their order, M = max m; nll and hit are those of lk_xent, the same bits
 * for every holder. grad != 0, in both calls or in neither: logits becomes weight[i] * (softmax - onehot) of these entries; between
 * the two calls what stands in it belongs to the device. Without grad logits is left alone, weight may be NULL. hit may be NULL. */
enum { LK_XENT_PART = 4 }; /* floats of a row's part */
int lk_xent_part(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, float *part, int grad);
int lk_xent_join(struct lk_dev *dev, const struct lk_view *logits, const int32_t *target, const float *weight, const float *all,
		 int parts, int mine, float *nll, float *hit, int grad);

/* AdamW (Loshchilov & Hutter 2019), with decoupled decay times lr, eps outside the root, and g multiplied by grad_scale first:
 *	m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2
 *	p -= lr (m / bias1 / (sqrt(v / bias2) + eps) + weight_decay p) */
struct lk_adamw_cfg {
	float lr, beta1, beta2, eps, weight_decay, grad_scale;
	double bias1, bias2; /* 1 - beta1^t and 1 - beta2^t, t counted from 1 */
};
/* p, m, v, g fp32, n elements. p_compute: NULL or the same weights in lk_dev_dtype, refreshed from p. */
int lk_adamw(struct lk_dev *dev, float *p, float *m, float *v, const float *g, void *p_compute, int64_t n,
	     const struct lk_adamw_cfg *cfg);

#ifdef __cplusplus
}
#endif
#endif
