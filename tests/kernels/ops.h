/* ops.h - cases that hold every backend's ops against ref.
 *
 * A case is one function. The harness calls it once on the ref device and once on the tested one; it asks for its
 * tensors, calls the op, and returns the op's status. All tensors come from here, so that both runs see the same
 * numbers and the harness sees what was written:
 *
 *	static int swiglu(struct ops_run *r, const void *arg)
 *	{
 *		struct lk_view g = ops_in(r, OPS_ACT, 2, 7, 33), u = ops_in(r, OPS_ACT, 2, 7, 33);
 *		struct lk_view y = ops_out(r, "y", OPS_ACT, 2, 7, 33);
 *
 *		return lk_swiglu_fwd(r->dev, &y, &g, &u);
 *	}
 *
 * Several calls may be chained with `||`-like early returns; the last status counts. Every output stands between guard
 * words, starts as NaN, and is compared after the run: where ref has NaN or Inf the backend must have the same, and
 * the rest must agree in relative norm, |y - ref| / |ref| <= tol (tol32, or tol16 when the tensor or the tested
 * device is bf16); integers exactly. A family (attention, images, ...) is one file with one table, named by one line in ops.c.
 * Needs kernels/ and libc only: it is carried to machines that have nothing else.
 */
#ifndef TESTS_KERNELS_OPS_H
#define TESTS_KERNELS_OPS_H

#include <stdint.h>

#include "kernels/kernels.h"

enum { OPS_ACT = -1 }; /* as dtype: lk_dev_dtype of the device */

enum ops_kind {
	OPS_CMP,  /* compared with ref */
	OPS_GRAD, /* ref only: backward against finite differences of forward */
	OPS_BAD,  /* a wrong call: must return LK_EINVAL and leave a sentence */
};

struct ops_run;

struct ops_case {
	const char *name;
	enum ops_kind kind;
	int (*run)(struct ops_run *r, const void *arg);
	const void *arg;
	double tol32, tol16; /* OPS_CMP: relative norm error; OPS_GRAD: tol32 of the directional derivative, tol16 unused */
	const char *why;     /* where the bound comes from */
};

struct ops_family {
	const char *name;
	const struct ops_case *cases;
	int n;
};

enum { OPS_MAX_TENSORS = 48 };

struct ops_tensor {
	char name[24];
	struct lk_view v;
	void *base;               /* device memory with guards; v.data begins a little after it */
	void *host;               /* the same bytes on the host: what was uploaded, later what came back */
	size_t bytes;             /* without guards, with the gaps between rows */
	int role;                 /* enum ops_role */
	double value;             /* of ops_value */
	struct ops_tensor *grad;  /* of an ops_var */
};

struct ops_run {
	struct lk_dev *dev;
	uint64_t seed;         /* of this case */
	int bf16;              /* 1: the tested device computes in bf16, so float inputs are rounded to bf16 for ref too */
	int pad;               /* elements between rows of the tensors made from now on (see ops_pad) */
	double scale;          /* uniform inputs in [-scale, scale), 1.0 at the start (see ops_scale) */
	uint64_t draws;        /* tensors and numbers drawn so far */
	int nt;
	struct ops_tensor t[OPS_MAX_TENSORS];
	char why[256];         /* first trouble of the harness itself: out of memory ... */
	/* OPS_GRAD */
	double loss;
	int want_grad;
	int bump_var;          /* which ops_var is moved, -1 none */
	double bump_step;
	const float *bump_dir; /* direction, dense */
};

/* Inputs: uniform in [-scale, scale). ndim extents follow. OPS_ACT, LK_F32 or LK_BF16. */
struct lk_view ops_in(struct ops_run *r, int dtype, int ndim, ...);
/* Integers in [lo, hi), LK_I32, LK_U8 or LK_I8. */
struct lk_view ops_ints(struct ops_run *r, int dtype, int64_t lo, int64_t hi, int ndim, ...);
/* The same from the caller's numbers (n of them, copied). */
struct lk_view ops_given_i32(struct ops_run *r, const int32_t *x, int64_t n);
struct lk_view ops_given_f32(struct ops_run *r, int dtype, const float *x, int ndim, ...); /* dense, in order */
/* Outputs: start as NaN (integers: 0xA5 bytes), compared. */
struct lk_view ops_out(struct ops_run *r, const char *name, int dtype, int ndim, ...);
/* Inputs that the op changes or adds to: start random, compared. */
struct lk_view ops_inout(struct ops_run *r, const char *name, int dtype, int ndim, ...);
/* A host number to be compared like an output of one element. */
void ops_value(struct ops_run *r, const char *name, double value);

void ops_pad(struct ops_run *r, int elements); /* rows (last dimension) of later tensors lie this much apart */
void ops_scale(struct ops_run *r, double scale);
uint32_t ops_u32(struct ops_run *r);     /* the case's own random numbers, the same on both devices */
double ops_uniform(struct ops_run *r);   /* [0,1) */

/* OPS_GRAD, only on ref, LK_F32:
 *
 *	struct lk_view g = ops_var(r, "g", 2, 5, 8), u = ops_in(r, LK_F32, 2, 5, 8), y = ops_out(r, "y", LK_F32, 2, 5, 8);
 *	struct lk_view dy = ops_in(r, LK_F32, 2, 5, 8);                     any fixed cotangent
 *	int rc = lk_swiglu_fwd(r->dev, &y, &g, &u);
 *
 *	ops_loss(r, &y, &dy);                                               loss += sum(y * dy), in fp64
 *	if (!rc && r->want_grad) {
 *		struct lk_view dg = ops_out(r, "dg", LK_F32, 2, 5, 8), du = ...     ops_zeros for gradients that are added into
 *		rc = lk_swiglu_bwd(r->dev, &dg, &du, &dy, &g, &u);
 *		ops_grad(r, "g", &dg);
 *	}
 *	return rc;
 */
struct lk_view ops_var(struct ops_run *r, const char *name, int ndim, ...);
struct lk_view ops_zeros(struct ops_run *r, const char *name, int dtype, int ndim, ...);
void ops_loss(struct ops_run *r, const struct lk_view *y, const struct lk_view *dy);
void ops_grad(struct ops_run *r, const char *var, const struct lk_view *grad);

extern const struct ops_family ops_family_dense; /* cases_dense.c */
extern const struct ops_family ops_family_transformer; /* cases_transformer.c */
extern const struct ops_family ops_family_calls; /* cases_calls.c */
extern const struct ops_family ops_family_attn;  /* cases_attn.c */
extern const struct ops_family ops_family_image; /* cases_image.c */
extern const struct ops_family ops_family_gen;   /* cases_gen.c */
extern const struct ops_family ops_family_feature; /* cases_feature.c */

#endif
