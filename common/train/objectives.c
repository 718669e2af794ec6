/* The table of objectives: to add one, add its line. The order is that of --objective, whose first one is the default. */
#include "common/train/objective.h"

/* X(name of the option's value, constant that its own file defines) */
#define OBJECTIVES(X) \
	X("next-token", lwm_objective_next_token) \
	X("reconstruction", lwm_objective_reconstruction) \
	X("contrastive", lwm_objective_contrastive) \
	X("masked", lwm_objective_masked) \
	X("next-frame", lwm_objective_next_frame) \
	X("diffusion", lwm_objective_diffusion)

#define DECLARE(name, type) extern const struct lwm_objective_type type;
#define NAME(name, type) name,
#define ADDRESS(name, type) &type,

OBJECTIVES(DECLARE)
const char *const lwm_objective_names[] = { OBJECTIVES(NAME) NULL };
const struct lwm_objective_type *const lwm_objectives[] = { OBJECTIVES(ADDRESS) NULL };
