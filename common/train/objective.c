/* What objectives share. */
#include "common/train/objective.h"

#include <stdlib.h>

#include "common/tensor/range.h"

int lwm_objective_open(struct lwm_objective **out, const struct lwm_objective_type *type, const struct lwm_stage *s,
		       const struct lwm_mesh *m, struct lk_dev *dev, struct lwm_err *e)
{
	struct lwm_objective *o = calloc(1, type->size);
	*out = NULL;
	if (!o)
		return lwm_fail(e, LWM_EMEMORY, "out of memory");
	if (s->sum_order == LWM_SUM_CANONICAL && !lk_dev_is_host(dev)) {
		free(o);
		return lwm_fail(e, LWM_ECONFIG, "--sum-order canonical is for CPUs, not for %s", lk_dev_name(dev));
	}
	if (lk_dev_dtype(dev) == LK_F16 && !type->scales) {
		free(o);
		return lwm_fail(e, LWM_ECONFIG, "%s computes in fp16, for which this objective cannot scale its loss", lk_dev_name(dev));
	}
	*o = (struct lwm_objective){ .type = type, .stage = s, .mesh = m, .dev = dev };
	int rc = type->open(o, e);
	if (rc == 0)
		rc = lwm_objective_localize(o, e);
	if (rc < 0)
		lwm_objective_free(o);
	else
		*out = o;
	return rc;
}

int lwm_objective_localize(struct lwm_objective *o, struct lwm_err *e)
{
	struct lwm_choose how = lwm_stage_choice(o->stage);
	struct lwm_adapters adapters = lwm_stage_adapters(o->stage);

	if (o->local.n)
		return 0;
	LWM_TRY(lwm_adapters_add(&o->tensors, &adapters, e));
	LWM_TRY(lwm_choose_tensors(&o->tensors, &how, e));
	return lwm_tensors_local(&o->local, &o->tensors, o->mesh->dim[LWM_TP], e);
}

void lwm_objective_free(struct lwm_objective *o)
{
	if (!o)
		return;
	o->type->close(o);
	lwm_tensors_release(&o->tensors);
	lwm_tensors_release(&o->local);
	json_decref(o->config);
	lwm_str_release(&o->plan_lines);
	lwm_str_release(&o->plan_json);
	free(o);
}

int lwm_objective_absent(struct lwm_objective *o, int rc, struct lwm_err *e)
{
	if (rc != -LWM_ENOINPUT || !o->stage->planning)
		return rc;
	if (!o->absent.code)
		o->absent = *e;
	lwm_err_clear(e);
	return 0;
}
