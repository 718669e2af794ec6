/* weights_flat.c - weights that every rank has whole: a group lies where it always lies. */
#include "common/comm/devcomm.h"
#include "common/comm/device.h"
#include "common/model/weights.h"

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

	return (struct lwm_flat_weights){ .base = { .ops = &ops, .grads = grad != NULL },
					  .compute = compute,
					  .grad = grad,
					  .size = lk_dtype_size(dtype) };
}

/* ---- gradients that are summed step by step ---- */

/* The first group's gradient is the last to be ready. A rank that has failed takes part, for the others wait for it. */
static int chain_gradient(struct lwm_supply *w, const struct lwm_group *g, int failed, struct lwm_err *e)
{
	struct lwm_flat_weights *f = (struct lwm_flat_weights *)w;
	struct lwm_devcomm_op *op = NULL;
	struct lwm_err why = { 0 };
	int rc = 0;

	if (g->index)
		return failed;
	for (int64_t i = 0, n = lwm_cut_stretches(f->cut); rc == 0 && i < n; i++) {
		struct lwm_cut_stretch s = lwm_cut_stretch(f->cut, i);
		int64_t all = f->cut->replicas * s.slice;

		if (!s.moves)
			continue;
		rc = lwm_devcomm_begin_chain_f32(f->ranks, f->grad + s.at, all, 1, f->sum + s.state, &op, &why);
		if (rc == 0)
			rc = lwm_devcomm_wait(f->ranks, op, &why);
	}
	if (rc == 0)
		rc = lwm_dev_check(f->dev, lk_zero(f->dev, f->grad, (size_t)f->cut->local * sizeof *f->grad), &why);
	if (rc == 0 || (failed && rc != -LWM_ERANK))
		return failed;
	if (e)
		*e = why;
	return rc;
}

static int agree_all(struct lwm_supply *w, int rc, struct lwm_err *e)
{
	return lwm_agree(lwm_devcomm_comm(((struct lwm_flat_weights *)w)->ranks), rc, e);
}

void lwm_flat_weights_chain(struct lwm_flat_weights *f, struct lk_dev *dev, struct lwm_devcomm *ranks, float *sum,
			    const struct lwm_cut *cut)
{
	static const struct lwm_supply_ops ops = { acquire_group, release_group, chain_gradient, agree_all };

	f->base.ops = &ops;
	f->base.shared = lwm_comm_size(lwm_devcomm_comm(ranks)) > 1;
	f->dev = dev;
	f->ranks = ranks;
	f->sum = sum;
	f->cut = cut;
}
