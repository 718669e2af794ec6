/* kernels_int.h - what dispatch.c and the backends share. Nobody else includes it.
 *
 * A backend is a table of functions. ref fills the whole table with plain loops; cpu takes ref's table and replaces
 * what it does faster; cuda is a shared object whose lk_cuda_open fills a table of its own (a missing op is NULL and
 * becomes LK_EUNSUP). Arguments were checked by dispatch.c: backends check nothing again.
 * Signatures are those of kernels.h.
 */
#ifndef LK_KERNELS_INT_H
#define LK_KERNELS_INT_H

#include <string.h>

#include "kernels/kernels.h"

#define LK_ABI 5 /* of struct lk_ops and struct lk_dev; the cuda object refuses another one */

struct lk_ops {
	void (*close)(struct lk_dev *);
	int (*fork)(struct lk_dev *child, struct lk_dev *parent); /* child->ops is a copy already */
	int (*mem_alloc)(struct lk_dev *, size_t, void **);
	void (*mem_free)(struct lk_dev *, void *);
	int (*host_alloc)(struct lk_dev *, size_t, void **);
	void (*host_free)(struct lk_dev *, void *);
	int (*upload)(struct lk_dev *, void *, const void *, size_t);
	int (*download)(struct lk_dev *, void *, const void *, size_t);
	int (*copy)(struct lk_dev *, void *, const void *, size_t);
	int (*copy_out)(struct lk_dev *, void *, const void *, size_t);
	int (*copy_in)(struct lk_dev *, void *, const void *, size_t);
	int (*event_new)(struct lk_dev *, struct lk_event **);
	void (*event_free)(struct lk_event *);
	int (*record)(struct lk_dev *, struct lk_event *);
	int (*wait)(struct lk_dev *, const struct lk_event *);
	int (*sync)(struct lk_dev *);
	void *(*native)(struct lk_dev *);
	int (*memory)(struct lk_dev *, size_t *, size_t *);

	int (*matmul)(struct lk_dev *, const struct lk_view *, const struct lk_view *, const struct lk_view *, unsigned,
		      float);

	int (*zero)(struct lk_dev *, void *, size_t);
	int (*fill)(struct lk_dev *, float *, int64_t, float);
	int (*cast)(struct lk_dev *, const struct lk_view *, const struct lk_view *);
	int (*axpy)(struct lk_dev *, const struct lk_view *, float, const struct lk_view *);
	int (*scale)(struct lk_dev *, const struct lk_view *, float);
	int (*sumsq)(struct lk_dev *, const float *, int64_t, double *);

	int (*rmsnorm_fwd)(struct lk_dev *, const struct lk_view *, float *, const struct lk_view *,
			   const struct lk_view *, const struct lk_view *, float);
	int (*rmsnorm_bwd)(struct lk_dev *, const struct lk_view *, float *, const struct lk_view *,
			   const struct lk_view *, const struct lk_view *, const float *);
	int (*rope)(struct lk_dev *, const struct lk_view *, const int32_t *, double, int);
	int (*swiglu_fwd)(struct lk_dev *, const struct lk_view *, const struct lk_view *, const struct lk_view *);
	int (*swiglu_bwd)(struct lk_dev *, const struct lk_view *, const struct lk_view *, const struct lk_view *,
			  const struct lk_view *, const struct lk_view *);
	int (*embed_fwd)(struct lk_dev *, const struct lk_view *, const int32_t *, const struct lk_view *, int32_t);
	int (*embed_bwd)(struct lk_dev *, const struct lk_view *, const int32_t *, const struct lk_view *, int32_t);
	int (*gather_rows)(struct lk_dev *, const struct lk_view *, const struct lk_view *, const int32_t *);
	int (*scatter_add_rows)(struct lk_dev *, const struct lk_view *, const struct lk_view *, const int32_t *);
	int (*xent)(struct lk_dev *, const struct lk_view *, const int32_t *, const float *, float *, float *, int);
	int (*adamw)(struct lk_dev *, float *, float *, float *, const float *, void *, int64_t,
		     const struct lk_adamw *);

	/* fills the device part; the host part is done (see struct lk_seq). Host devices may leave both NULL. */
	int (*seq_new)(struct lk_dev *, struct lk_seq *);
	void (*seq_free)(struct lk_seq *);
	int (*attn_begin)(struct lk_dev *, const struct lk_attn_state *, int64_t, int64_t, int64_t);
	int (*attn_fwd)(struct lk_dev *, const struct lk_attn *, const struct lk_attn_state *);
	int (*attn_end)(struct lk_dev *, const struct lk_view *, float *, const struct lk_attn_state *);
	int (*attn_once)(struct lk_dev *, const struct lk_attn *, const struct lk_view *, float *);
	int (*attn_delta)(struct lk_dev *, float *, const struct lk_view *, const struct lk_view *);
	int (*attn_bwd)(struct lk_dev *, const struct lk_attn *, const struct lk_view *, const float *, const float *,
			const struct lk_view *, const struct lk_view *, const struct lk_view *);
	int (*attn_merge)(struct lk_dev *, float *, float *, const float *, const float *, int64_t, int64_t, int64_t);

	int (*kv_store)(struct lk_dev *, const struct lk_view *, float *, int64_t, const struct lk_view *);
	int (*kv_load)(struct lk_dev *, const struct lk_view *, const struct lk_view *, const float *, int64_t);
	int (*draw)(struct lk_dev *, const struct lk_view *, const struct lk_draw *, const double *, int32_t *, double *);

	int (*conv_new)(struct lk_dev *, struct lk_conv *); /* geometry and weights are set */
	int (*conv_refresh)(struct lk_dev *, struct lk_conv *);
	void (*conv_free)(struct lk_conv *); /* frees impl only */
	int (*conv_fwd)(struct lk_dev *, struct lk_conv *, const struct lk_view *, const struct lk_view *,
			const struct lk_view *);
	int (*conv_bwd)(struct lk_dev *, struct lk_conv *, const struct lk_view *, float *, float *,
			const struct lk_view *, const struct lk_view *);
	int (*groupnorm_fwd)(struct lk_dev *, const struct lk_view *, float *, float *, const struct lk_view *,
			     const float *, const float *, int, float, int);
	int (*groupnorm_bwd)(struct lk_dev *, const struct lk_view *, float *, float *, const struct lk_view *,
			     const struct lk_view *, const float *, const float *, const float *, const float *, int,
			     float, int);
	int (*nearest_code)(struct lk_dev *, int32_t *, const struct lk_view *, const struct lk_view *);
	int (*pixels)(struct lk_dev *, const struct lk_view *, const struct lk_view *);
	int (*recon_loss)(struct lk_dev *, const struct lk_view *, const struct lk_view *, const struct lk_view *, float,
			  float, double *);

	int (*group_place)(struct lk_dev *, unsigned char *);
	int (*group_id)(struct lk_dev *, unsigned char *);
	int (*group_new)(struct lk_dev *, struct lk_group *, const unsigned char *); /* fills impl */
	void (*group_free)(struct lk_group *);					     /* frees impl only */
	int (*group_sum)(struct lk_group *, float *, int64_t);
	int (*group_reduce_scatter)(struct lk_group *, const float *, float *, int64_t); /* elements of one slice */
	int (*group_allgather)(struct lk_group *, const void *, size_t, void *);
	int (*group_start)(struct lk_group *, int, const void *, size_t, int, void *, size_t);
	int (*group_finish)(struct lk_group *);
	int (*group_settle)(struct lk_group *);

	int (*attn_own)(struct lk_dev *, int64_t, int64_t, int64_t, int64_t, int, struct lk_own *);
	int (*conv_own)(struct lk_dev *, const struct lk_conv_geom *, int64_t, int64_t, int64_t, int, struct lk_own *);
};

struct lk_dev {
	struct lk_ops ops;
	int dtype, threads, is_host;
	char name[96], err[256], warning[256];
	void *impl; /* of the backend */
};

/* A backend's event_new allocates it (calloc) and keeps what it needs in impl; dispatch.c sets free to ops.event_free. */
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
	int32_t *pos, *seg;        /* host, n */
	struct lk_seq_tile *tiles; /* host, ntiles */
	int32_t *dev_pos, *dev_seg; /* device; == pos, seg on host devices */
	void *impl;
};

struct lk_group {
	struct lk_dev *dev;
	int rank, size, inflight;
	double seconds;
	void *impl;
};

struct lk_conv {
	struct lk_dev *dev;
	struct lk_conv_geom g;
	const float *w, *bias;
	void *impl;
};

static inline float *lk_row(const struct lk_view *v, int64_t i)
{
	return (float *)v->data + i * v->stride[0];
}

static inline float lk_bf16_get(uint16_t b)
{
	uint32_t bits = (uint32_t)b << 16;
	float f;

	memcpy(&f, &bits, sizeof f);
	return f;
}

/* Round to nearest, ties to even; NaN stays NaN. */
static inline uint16_t lk_bf16_put(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof bits);
	if ((bits & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static inline float lk_get(const void *p, int dtype, int64_t i)
{
	return dtype == LK_BF16 ? lk_bf16_get(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

static inline void lk_put(void *p, int dtype, int64_t i, float x)
{
	if (dtype == LK_BF16)
		((uint16_t *)p)[i] = lk_bf16_put(x);
	else
		((float *)p)[i] = x;
}

/* n elements from element `at` of a cache's row, as floats. */
static inline void lk_kv_row(float *y, const void *data, int dtype, int64_t at, int64_t n, float scale)
{
	const int8_t *q = (const int8_t *)data + at;
	const uint16_t *b = (const uint16_t *)data + at;

	if (dtype == LK_I8)
		for (int64_t i = 0; i < n; i++)
			y[i] = scale * (float)q[i];
	else
		for (int64_t i = 0; i < n; i++)
			y[i] = lk_bf16_get(b[i]);
}

#ifdef __cplusplus
extern "C" {
#endif

/* Sets dev->err and returns code. */
int lk_fail(struct lk_dev *dev, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ref/: each family fills its ops; dispatch.c calls all of them for "ref" and, before cpu's, for "cpu". */
void lk_ref_fill_mem(struct lk_ops *o);
void lk_ref_fill_dense(struct lk_ops *o);
void lk_ref_fill_attn(struct lk_ops *o);
void lk_ref_fill_gen(struct lk_ops *o);
void lk_ref_fill_image(struct lk_ops *o);

/* A sign of life from inside a long loop: what lk_on_progress was told. */
extern void (*lk_progress_fn)(void);
static inline void lk_progress(void)
{
	if (lk_progress_fn)
		lk_progress_fn();
}

/* cpu/: opens the BLAS, sets dev->impl, name, warning; then each family overlays. */
int lk_cpu_open(struct lk_dev *dev, char *why, size_t n);
void lk_cpu_fill_dense(struct lk_dev *dev);
void lk_cpu_fill_attn(struct lk_dev *dev);
void lk_cpu_fill_image(struct lk_dev *dev);

/* cuda/liblwm_cuda.so exports lk_cuda_open; dispatch_open.c finds it with dlopen. abi is LK_ABI of the caller. */
typedef int lk_cuda_open_fn(struct lk_dev *dev, int abi, int index, char *why, size_t n);
/* And lk_cuda_count: GPUs, or a status < 0 with the reason. */
typedef int lk_cuda_count_fn(char *why, size_t n);

#ifdef __cplusplus
}
#endif

#endif
