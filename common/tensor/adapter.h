/* adapter.h - tensors beside a matrix W that is frozen: A (rank, in) and B (out, rank), whose product is added to it.
 *
 *	lwm_adapters_check(&how, e)            settings alone
 *	lwm_adapters_add(&table, &how, e)      the matrices are frozen, their adapters appended
 *
 * NAME.lora_a begins normal with standard deviation 1 / rank, NAME.lora_b as 0, so that the model is at first what it was. They are
 * the last tensors of the table, of its last group, each A followed by its B; tensor parallelism cuts that one of the two which has
 * the dimension that it cuts of the matrix, and every rank has the other. Local calls. Computing with them: optim/lora.h.
 */
#ifndef LWM_TENSOR_ADAPTER_H
#define LWM_TENSOR_ADAPTER_H

#include "common/tensor/tensor.h"

#define LWM_ADAPTER_A ".lora_a"
#define LWM_ADAPTER_B ".lora_b"

struct lwm_adapters {
	const char *targets; /* patterns of names, commas between (choose.h), borrowed; NULL or "": no adapters */
	int64_t rank;
	double alpha;        /* scale * rank; 0: rank */
};

/* What B A is multiplied by. Pure. */
static inline double lwm_adapters_scale(const struct lwm_adapters *how)
{
	return how->alpha > 0 ? how->alpha / (double)how->rank : 1;
}

/* -LWM_EUSAGE: an empty pattern. */
int lwm_adapters_check(const struct lwm_adapters *how, struct lwm_err *e);
/* -LWM_ECONFIG: a pattern that matches nothing, or no matrix; a rank as large as a side of the matrix. -LWM_EMEMORY. */
int lwm_adapters_add(struct lwm_tensors *t, const struct lwm_adapters *how, struct lwm_err *e);
/* Is that the name of an adapter? Pure. */
bool lwm_adapter_is_name(const char *name);

#endif
