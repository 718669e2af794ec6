#include "common/train/objective.h"

#include <stdlib.h>

const char *const lwm_objective_names[] = { "next-token", "reconstruction", NULL };

int lwm_objective_new(struct lwm_objective **out, const struct lwm_stage *s, const struct lwm_mesh *m,
		      struct lk_dev *dev, struct lwm_err *e)
{
	if (s->objective == LWM_RECONSTRUCTION)
		return lwm_objective_recon(out, s, m, dev, e);
	return lwm_objective_tokens(out, s, m, dev, e);
}

int lwm_objective_check(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	if (s->objective == LWM_RECONSTRUCTION)
		return lwm_objective_recon_check(s, m, e);
	return lwm_objective_tokens_check(s, m, e);
}

void lwm_objective_free(struct lwm_objective *o)
{
	if (o)
		o->ops->free(o);
}
