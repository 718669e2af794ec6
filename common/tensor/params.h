/* params.h - a model's weights as ONE flat fp32 vector and a table that names its slices.
 *
 * Optimizer, gradient sums and checkpoints run over the flat vector or over named slices of it; only the model knows
 * what the slices mean. Names are those of the Hugging Face layout. Tensors follow each other without gaps, so that
 * neighbours which are multiplied by the same input (q,k,v and gate,up) form one matrix.
 *
 * Row-major, W (out,in): y = x W^T. Rows of q_proj and k_proj are in interleaved rotary order (LWM_PARAM_ROPE).
 */
#ifndef LWM_TENSOR_PARAMS_H
#define LWM_TENSOR_PARAMS_H

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

enum {
	/* weight decay leaves it alone (norms, biases) */
	LWM_PARAM_NO_DECAY = 1,
	/* rows of a head are rotary pairs (0,1)(2,3)...; Hugging Face wants (0,E/2)(1,E/2+1)...: see lwm_rope_row */
	LWM_PARAM_ROPE = 2,
	/* belongs to the vision extension; absent in a text checkpoint */
	LWM_PARAM_VISION = 4
};
enum lwm_init { LWM_INIT_NORMAL, LWM_INIT_CONST };

struct lwm_param {
	char name[80];
	int64_t shape[4];
	int ndim;
	int64_t offset, count; /* elements in the flat vector */
	unsigned flags;
	int split_dim; /* dimension that tensor parallelism cuts; -1: every rank has all of it */
	int heads;     /* with LWM_PARAM_ROPE: rows = heads * head size */
	enum lwm_init init;
	double value; /* standard deviation, or the constant */
};

struct lwm_params {
	struct lwm_param *list; /* n entries, ascending offsets, no gaps */
	int64_t n, cap;
	int64_t total; /* elements */
};

/* Appends a tensor behind the last one; trailing extents of 0 are absent. Returns its entry, valid until the next add,
 * to set flags and init; NULL with *e filled when memory or an int64_t does not suffice. */
struct lwm_param *lwm_params_add(struct lwm_params *p, const char *name, int64_t d0, int64_t d1, int64_t d2,
				 int64_t d3, struct lwm_err *e);
void lwm_params_release(struct lwm_params *p);
const struct lwm_param *lwm_params_find(const struct lwm_params *p, const char *name); /* NULL: no such tensor */
/* The tensor that holds flat element i; NULL outside. */
const struct lwm_param *lwm_params_at(const struct lwm_params *p, int64_t i);

/* Initial values of the flat elements [first, first + n) into host memory. A value is a function of (seed, tensor
 * name, element) only: any split over ranks or chunks gives the same bits. */
void lwm_params_init(const struct lwm_params *p, uint64_t seed, int64_t first, int64_t n, float *out);

/* Calls fn for the maximal runs of equal weight decay (1 or 0) that make up the flat elements [first, first + n). Stops
 * at the first negative result and returns it. */
typedef int lwm_params_run_fn(void *arg, int64_t first, int64_t n, int decay, struct lwm_err *e);
int lwm_params_runs(const struct lwm_params *p, int64_t first, int64_t n, lwm_params_run_fn *fn, void *arg,
		    struct lwm_err *e);

/* Row of the Hugging Face (half-split) tensor that holds our row r of a LWM_PARAM_ROPE tensor of `head` rows a head. */
static inline int64_t lwm_rope_row(int64_t r, int64_t head)
{
	int64_t i = r % head;

	return r - i + i / 2 + (i % 2) * (head / 2);
}

#endif
