/* tensor.h - the one description of a weight: what is known of it before its values are, and a model's table of them.
 *
 *	struct lwm_tensors t = { 0 };
 *	lwm_tensors_add(&t, &(struct lwm_tensor){ .name = "model.norm.weight", .ndim = 1, .shape = { 4096 }, ... }, e);
 *	lwm_tensors_init(&t, seed, first, n, host);      the values that training begins with, any piece of them
 *	lwm_tensors_find(&t, "model.norm.weight")->offset
 *	lwm_tensors_release(&t);
 *
 * A model makes its table once, from its configuration. Optimizer, checkpoints, files and the model itself then read the same
 * table: where a tensor lies, how it is cut over ranks (range.h) and how it starts is told here and nowhere else.
 *
 * All weights together are one flat fp32 vector. Tensors lie in it in the order of the table, end to end but for the gaps of
 * `align`, so that neighbours which are multiplied by the same input (q, k, v and gate, up) form one matrix. Shapes are those in
 * memory: matrices are (out, in), row-major, y = x W^T; convolutions (kh, kw, cin, cout); rows of the q and k projections are in
 * interleaved rotary order. Names are those of the Hugging Face layout. Local calls; no files, no devices.
 */
#ifndef LWM_TENSOR_TENSOR_H
#define LWM_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

enum { LWM_TENSOR_DIMS = 4, LWM_SPLIT_NONE = -1 };

/* What a tensor does in its model. */
enum lwm_role {
	LWM_ROLE_MATRIX, /* (out, in) */
	LWM_ROLE_EMBED,  /* (ids, width): a row is looked up for each token */
	LWM_ROLE_HEAD,   /* (ids, width): a logit for each row */
	LWM_ROLE_CONV,   /* (kh, kw, cin, cout) */
	LWM_ROLE_SCALE,  /* of a norm */
	LWM_ROLE_BIAS,
	LWM_ROLE_CODEBOOK /* (codes, width): the nearest row is looked for */
};

/* What tokens are. Of a tensor: a model without that modality does not have it; LWM_MODALITIES: every model has it. */
enum lwm_modality { LWM_TEXT, LWM_VISION, LWM_MODALITIES };

/* How values start. u is uniform on [-1, 1). */
enum lwm_init {
	LWM_INIT_CONST,  /* value */
	LWM_INIT_NORMAL, /* normal with standard deviation `value` */
	LWM_INIT_FAN_IN, /* value * sqrt(3 / fan in) * u: variance value^2 / fan in; fan in is all but the last dimension */
	LWM_INIT_INVERSE, /* u / value */
	LWM_INIT_ROWS /* rows, along the last dimension, of length `value` in random directions */
};

struct lwm_tensor {
	const char *name; /* the table's own copy; elsewhere borrowed */
	int ndim;
	int64_t shape[LWM_TENSOR_DIMS]; /* 0 beyond ndim */
	int64_t offset, count;          /* its place in the flat vector and its elements; lwm_tensors_add fills them */
	enum lwm_role role;
	enum lwm_modality modality;
	bool trainable; /* the optimizer updates it, and its gradient is part of the norm */
	bool decays;    /* and weight decay pulls at it */
	double rate;    /* factor of its learning rate; 0: 1 (choose.h) */
	int split;      /* the dimension that tensor parallelism cuts; LWM_SPLIT_NONE: every rank has all of it */
	int parts;      /* it is cut into at most so many: of more ranks several hold the same part; 0: any number */
	int rope_heads; /* rows are so many heads of rotary pairs (0,1)(2,3)...; 0: no rotation. See lwm_rope_row */
	enum lwm_init init;
	double value;   /* of init */
	int group;      /* tensors of one group are neighbours and are fetched together; ascending */
	int64_t adapts; /* an adapter of the matrix before this number in the table (adapter.h); 0: an ordinary tensor */
	bool adapted;   /* a matrix that has adapters, whose gradients are made of its own */
	/* A copy, of the same shape, of the tensor before this number in the table, which it follows slowly (optim/weights.h); 0:
	 * an ordinary tensor. It does not train. All that follow are neighbours, in the order of those that they follow, which are
	 * neighbours too. */
	int64_t follows;
	bool written;   /* its objective writes it, alike on all ranks, which have it whole; it does not train */
};

/* Tensors that are fetched together: their stretch of the flat vector. */
struct lwm_group {
	int64_t index, offset, count;
};

struct lwm_tensors {
	struct lwm_tensor *list; /* n entries, ascending offsets */
	int64_t n, cap;
	int64_t align;           /* offsets and total are multiples of it; 0: no gaps. To be set before the first add */
	int64_t total, params;   /* elements of the flat vector, and of the tensors in it */
};

/* Elements of a tensor by its shape; -1: it is no shape that is used here. ndim 0 is one element. */
int64_t lwm_tensor_size(const struct lwm_tensor *t);
bool lwm_tensor_same_shape(const struct lwm_tensor *a, const struct lwm_tensor *b);

/* Appends a copy of t, name included, after the last one; its offset and count are worked out here. -LWM_ECONFIG: no usable shape,
 * or more elements in all than a 64-bit number counts in bytes; -LWM_EMEMORY. */
int lwm_tensors_add(struct lwm_tensors *p, const struct lwm_tensor *t, struct lwm_err *e);
void lwm_tensors_release(struct lwm_tensors *p);
const struct lwm_tensor *lwm_tensors_find(const struct lwm_tensors *p, const char *name); /* NULL: no such tensor */
bool lwm_tensors_have(const struct lwm_tensors *p, enum lwm_role role);
/* Group `index`, one after the other in the table; count 0: there is none. Gaps after its tensors belong to it. */
struct lwm_group lwm_tensors_group(const struct lwm_tensors *p, int64_t index);
/* Is the gradient of any of the flat elements [first, first + n) wanted? It is of what trains or is adapted. p NULL: yes. */
bool lwm_tensors_want(const struct lwm_tensors *p, int64_t first, int64_t n);
/* Is that the name of a tensor that helps in training and is no part of the model: of a discriminator, of a momentum encoder or its
 * queue? Checkpoints hold it, models do not, and a stage may start from weights without it. Pure. */
bool lwm_tensor_is_beside(const char *name);
/* The tensor that holds flat element i; NULL: none does, it is in a gap or outside. */
const struct lwm_tensor *lwm_tensors_at(const struct lwm_tensors *p, int64_t i);

/* Initial values of the flat elements [first, first + n) into host memory, zeros in gaps and after the end. A value is a function
 * of (seed, tensor name, element) only: any split over ranks or chunks gives the same bits. */
void lwm_tensors_init(const struct lwm_tensors *p, uint64_t seed, int64_t first, int64_t n, float *out);

/* The row in the Hugging Face order, (0,E/2)(1,E/2+1)..., of row r in memory; E: rows of a head, even. */
static inline int64_t lwm_rope_row(int64_t r, int64_t head)
{
	int64_t i = r % head;

	return r - i + i / 2 + (i % 2) * (head / 2);
}

#endif
