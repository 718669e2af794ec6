/* image_int.h - what the image files of kernels/cpu share.
 *
 * Each *.hot.c exports one table per instruction set; the plain files pick theirs by lk_cpu_of(dev)->isa.
 */
#ifndef LK_CPU_IMAGE_INT_H
#define LK_CPU_IMAGE_INT_H

#include "kernels/cpu/cpu_int.h"

/* Products with packed B. Panels of nr columns lie ldp floats apart, each (K,nr) dense. acc: c += instead of c =. */
typedef void lk_image_gemm_fn(int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
			      int64_t ldp, float *c, int64_t ldc, int acc);
struct lk_image_gemm {
	int mr, nr;
	lk_image_gemm_fn *gemm;   /* a (M,K) */
	lk_image_gemm_fn *gemm_t; /* a given as (K,M) */
	void (*pack)(int64_t n, int64_t k, const float *b, int64_t ldb, float *out, int64_t ldp);
};
extern const struct lk_image_gemm lk_image_gemm_base, lk_image_gemm_avx2, lk_image_gemm_avx512;
const struct lk_image_gemm *lk_image_gemm_of(struct lk_dev *dev);
int lk_thread(void); /* number of the calling thread in its team */

struct lk_conv_wino;

/* Transforms of F(4x4,3x3). */
struct lk_image_wino {
	void (*tile_in)(const float *const *px, int64_t c, float *v, int64_t vs);
	void (*tile_out)(const float *m, int64_t ms, int64_t n, float *y, int64_t ly, int rows, int cols,
			 const float *bias, const float *add);
	void (*weights_in)(const float *w, int64_t cin, int64_t cout, int64_t r0, int64_t r1, float *u, int64_t us);
	void (*tile_dy)(const float *const *px, int64_t n, float *y, int64_t ys, int64_t ldp);
	void (*weights_out)(float *dw, const float *du, int64_t us, int64_t ldu, int64_t cin, int64_t cout, int64_t r0,
			    int64_t r1);
};
extern const struct lk_image_wino lk_image_wino_base, lk_image_wino_avx2, lk_image_wino_avx512;
const struct lk_image_wino *lk_image_wino_of(struct lk_dev *dev);

/* Per channel coefficients of a group norm over one image. */
struct lk_gn_coef {
	const float *mean, *rstd, *gain, *scale, *bias; /* gain = rstd scale */
};
struct lk_image_norm {
	void (*stats)(const float *x, int64_t pixels, int64_t c, const float *shift, float *sum, float *sq);
	void (*apply)(float *y, const float *x, int64_t pixels, int64_t c, const struct lk_gn_coef *k, int silu);
	void (*grad_sums)(float *d, const float *dy, const float *x, int64_t pixels, int64_t c,
			  const struct lk_gn_coef *k, int silu, float *dscale, float *dbias);
	void (*grad_apply)(float *d, const float *x, int64_t pixels, int64_t c, const struct lk_gn_coef *k,
			   const float *m1, const float *m2);
	void (*distances)(int64_t rows, const float *norm, float *dot, float *least);
	float (*sum_squares)(const float *x, int64_t n);
	void (*to_bytes)(uint8_t *y, const float *x, int64_t n);
	void (*from_bytes)(float *y, const uint8_t *x, int64_t n);
	void (*loss)(float *dx, const float *x, const float *t, int64_t n, float c1, float c2, double *l);
};
extern const struct lk_image_norm lk_image_norm_base, lk_image_norm_avx2, lk_image_norm_avx512;
const struct lk_image_norm *lk_image_norm_of(struct lk_dev *dev);

/* ---- convolution as gather and product ----
 *
 * Output pixel (os i + py, os j + px) of a plan sums over taps (a,b) in ny x nx and over input channels:
 *	in[(step i + fy + a) / up, (step j + fx + b) / up, :] * weights[(a,b), :, :]
 * with zeros outside of the input. The forward is one plan; the gradient of the input is os^2 plans over dy, whose
 * weights are those of the forward, turned round and summed over the taps that meet. */
struct lk_conv_plan {
	int32_t cin, cout;
	int32_t ny, nx, fy, fx;
	int32_t step, up;
	int32_t os, py, px;
	float *packed; /* K = ny nx cin rows in panels of nr columns */
};


struct lk_conv_cpu {
	struct lk_conv_plan fwd;                  /* packed is NULL where wino_fwd does the work */
	struct lk_conv_plan *bwd;                 /* nbwd of them */
	struct lk_conv_wino *wino_fwd, *wino_bwd; /* or NULL */
	int nbwd, bwd_fresh; /* bwd weights are packed at the first backward after a refresh */
};

static inline struct lk_conv_cpu *lk_conv_cpu_of(struct lk_conv *c)
{
	return (struct lk_conv_cpu *)c->impl;
}

static inline int64_t lk_round_up(int64_t a, int64_t to)
{
	return (a + to - 1) / to * to;
}

/* conv_plan.c: geometry and weights of the plans. */
void lk_conv_plan_fwd(struct lk_conv_plan *p, const struct lk_conv_geom *g);
int lk_conv_plan_steps(const struct lk_conv_geom *g); /* os of the backward */
void lk_conv_plan_bwd(struct lk_conv_plan *p, const struct lk_conv_geom *g, int py, int px);
/* packed = weights of the plan from w (kh,kw,cin,cout); forward and backward. */
int lk_conv_plan_pack(struct lk_dev *dev, struct lk_conv_plan *p, const struct lk_conv_geom *g, const float *w,
		      int backward);
int64_t lk_conv_plan_floats(const struct lk_conv_plan *p, int nr);

/* conv_direct.c: out = bias + add + plan(in). bias, add may be NULL. */
int lk_conv_direct(struct lk_dev *dev, const struct lk_conv_plan *p, const struct lk_view *out,
		   const struct lk_view *in, const float *bias, const float *add);
/* Rows [r0, r0 + rows) of the plan's output grid over all images, gathered into a (rows, lda). */
struct lk_conv_grid {
	int64_t n, gh, gw; /* output grid of the plan */
	int64_t h, w;      /* input */
};
struct lk_conv_grid lk_conv_grid_of(const struct lk_conv_plan *p, const struct lk_view *out, const struct lk_view *in);
void lk_conv_gather(const struct lk_conv_plan *p, const struct lk_conv_grid *g, const float *in, int64_t r0,
		    int64_t rows, float *a, int64_t lda);

/* conv_wino.c */
struct lk_conv_wino {
	int64_t cin, cout;
	int32_t fy, fx, up; /* first input row, column of output 0; doubling of the input */
	int64_t us;         /* floats between the 36 packed matrices */
	float *u;
};
/* The same as lk_conv_direct for the geometries that fit, the backward where upsample is 1. */
int lk_conv_wino_fits(const struct lk_conv_geom *g);
struct lk_conv_wino lk_conv_wino_shape(struct lk_dev *dev, const struct lk_conv_geom *g, int backward); /* without memory */
struct lk_conv_wino *lk_conv_wino_new(struct lk_dev *dev, const struct lk_conv_geom *g, int backward);
void lk_conv_wino_free(struct lk_conv_wino *k);
int lk_conv_wino_pack(struct lk_dev *dev, struct lk_conv_wino *k, const float *w, int backward);
int lk_conv_wino_run(struct lk_dev *dev, const struct lk_conv_wino *k, const struct lk_view *out, const struct lk_view *in,
		     const float *bias, const float *add);

/* One call of a Winograd convolution: the 4x4 tiles of `out`, each seeing 6x6 pixels of `in`. */
struct lk_wino_job {
	const struct lk_image_gemm *gemm;
	const struct lk_image_wino *hot;
	const struct lk_conv_wino *k;
	const struct lk_view *in, *out;
	const float *bias, *add, *zeros; /* zeros: as many as in has channels */
	int64_t th, tw, tiles;           /* tiles of one image, and in all */
	int64_t ldv, ldm, vs, ms;        /* rows, and distance of the 36 matrices, of transformed inputs and products */
};
struct lk_wino_job lk_wino_job_of(struct lk_dev *dev, const struct lk_conv_wino *k, const struct lk_view *out,
				  const struct lk_view *in);
/* An odd number of cache lines, so that the 36 rows of a tile do not fall into one cache set. */
int64_t lk_wino_apart(int64_t floats);
/* Transforms tiles [t0, t1) of the block that begins at tile `first`. */
void lk_wino_tiles_in(const struct lk_wino_job *b, float *v, int64_t first, int64_t t0, int64_t t1);

/* conv_wino_grad.c: dw += for the same geometries; k is that of the forward. */
int lk_conv_wino_grad(struct lk_dev *dev, const struct lk_conv_wino *k, float *dw, const struct lk_view *dy,
		      const struct lk_view *x);

/* conv_grad.c: dw += , db += ; either may be NULL. Partial sums over fixed parts of the batch, added in order. */
int lk_conv_grad(struct lk_dev *dev, struct lk_conv *c, float *dw, float *db, const struct lk_view *dy,
		 const struct lk_view *x);

#endif
