/* weights_flat.c - weights that every rank has whole: a group lies where it always lies. */
#include "common/model/weights.h"
#include "kernels/kernels.h"

static int acquire_group(struct lwm_supply *w, const struct lwm_group *g, unsigned what, struct lwm_supplied *at, int failed,
			 struct lwm_err *e)
{
	const struct lwm_flat_weights *f = (const struct lwm_flat_weights *)w;

	(void)e;
	at->w = what & LWM_WEIGHTS ? f->compute + (size_t)g->offset * f->size : NULL;
	at->g = what & LWM_GRADS && f->grad ? f->grad + g->offset : NULL;
	return failed;
}

static void release_group(struct lwm_supply *w, const struct lwm_group *g)
{
	(void)w;
	(void)g;
}

/* Gradients of all groups are summed at once, when the step is over (common/optim). */
static int keep_gradient(struct lwm_supply *w, const struct lwm_group *g, int failed, struct lwm_err *e)
{
	(void)w;
	(void)g;
	(void)e;
	return failed;
}

struct lwm_flat_weights lwm_flat_weights_of(const void *compute, int dtype, float *grad)
{
	static const struct lwm_supply_ops ops = { acquire_group, release_group, keep_gradient, NULL };

	return (struct lwm_flat_weights){ { &ops, grad != NULL, false, false }, compute, grad, lk_dtype_size(dtype) };
}
