/* weights_shifted.c - weights of a second model, counted from where they begin among all. */
#include "common/model/weights.h"

static struct lwm_group shift_group(const struct lwm_shifted_weights *s, const struct lwm_group *g)
{
	return (struct lwm_group){ g->index + s->index, g->offset + s->offset, g->count };
}

static int shifted_acquire(struct lwm_supply *w, const struct lwm_group *g, unsigned what, struct lwm_supplied *at, int failed,
			   struct lwm_err *e)
{
	struct lwm_shifted_weights *s = (struct lwm_shifted_weights *)w;
	struct lwm_group to = shift_group(s, g);

	return lwm_supply_acquire(s->to, &to, what, at, failed, e);
}

static void shifted_release(struct lwm_supply *w, const struct lwm_group *g)
{
	struct lwm_shifted_weights *s = (struct lwm_shifted_weights *)w;
	struct lwm_group to = shift_group(s, g);

	lwm_supply_release(s->to, &to);
}

static int shifted_ready(struct lwm_supply *w, const struct lwm_group *g, int failed, struct lwm_err *e)
{
	struct lwm_shifted_weights *s = (struct lwm_shifted_weights *)w;
	struct lwm_group to = shift_group(s, g);

	return lwm_supply_grad_ready(s->to, &to, failed, e);
}

static int shifted_agree(struct lwm_supply *w, int rc, struct lwm_err *e)
{
	return lwm_supply_agree(((struct lwm_shifted_weights *)w)->to, rc, e);
}

void lwm_shifted_weights_to(struct lwm_shifted_weights *s, struct lwm_supply *to)
{
	static const struct lwm_supply_ops ops = { shifted_acquire, shifted_release, shifted_ready, shifted_agree };

	s->base = *to;
	s->base.ops = &ops;
	s->base.table = NULL; /* it says what trains by other places: all gradients are formed */
	s->to = to;
}
