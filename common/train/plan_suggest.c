/* The best mesh and way of running for a number of ranks: every cut of them into dp, fsdp, tp and sp is judged as a run would judge
 * it, planned in each way that the objective knows, and those that fit are put in order of their time. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/train/plan_int.h"

enum { BEST = 5 };

struct choice {
	int dim[LWM_AXES];
	const char *way;       /* options */
	double step, tokens;   /* seconds; units a second */
	int64_t per_rank;
	const char *limit;
};

struct search {
	const struct lwm_stage *given;
	struct lk_dev *dev;
	int ranks;
	int64_t program;
	struct choice best[BEST];
	int n;                      /* of them */
	int tried, refused, small;  /* meshes and ways; that a run would refuse; that do not fit with the margin */
};

/* Faster; as fast and smaller. */
static bool is_better(const struct choice *a, const struct choice *b)
{
	return a->step != b->step ? a->step < b->step : a->per_rank < b->per_rank;
}

static void keep_choice(struct search *x, const struct choice *c)
{
	int at = x->n;

	if (x->n < BEST)
		x->n++;
	else if (is_better(c, &x->best[BEST - 1]))
		at = BEST - 1;
	else
		return;
	for (; at > 0 && is_better(c, &x->best[at - 1]); at--)
		x->best[at] = x->best[at - 1];
	x->best[at] = *c;
}

/* One mesh in the way that is set. */
static int try_way(struct search *x, const struct lwm_stage *s, const char *way, struct lwm_err *e)
{
	const struct lwm_objective_type *type = lwm_objectives[s->objective];
	struct lwm_plan p = { .code = 0 };
	struct lwm_objective *o = NULL;
	int rc;

	LWM_TRY(lwm_mesh_parse(s->mesh_dim, x->ranks, p.mesh.dim, e));
	LWM_GO(lwm_objective_open(&o, type, s, &p.mesh, x->dev, e));
	if (o->host_bytes && lk_dev_is_host(x->dev) && !s->plan_gib)
		goto out; /* to the memory that it comes from */
	LWM_GO(lwm_plan_make(&p, s, o, x->program, e));
	x->tried++;
	if (!lwm_plan_is_safe(&p)) {
		x->small++;
		goto out;
	}
	struct choice c = { .way = way, .step = p.time.step, .tokens = (double)o->units_per_step / p.time.step,
			    .per_rank = p.per_rank, .limit = p.time.limit };
	memcpy(c.dim, p.mesh.dim, sizeof c.dim);
	keep_choice(x, &c);
out:
	lwm_objective_free(o);
	return rc;
}

/* A mesh that a run would refuse is none. */
static int try_mesh(struct search *x, const int dim[LWM_AXES], struct lwm_err *e)
{
	const struct lwm_objective_type *type = lwm_objectives[x->given->objective];
	struct lwm_stage s = *x->given;
	struct lwm_err why = { 0 };
	char text[LWM_MESH_TEXT];
	const char *way = "";
	int i = 0;

	s.mesh_dim = lwm_mesh_text(dim, text);
	do {
		int rc;

		if (type->vary && !(way = type->vary(&s, i)))
			break;
		rc = lwm_stage_check(&s, x->ranks, &why);
		if (rc == 0)
			rc = try_way(x, &s, way, &why);
		if (rc == -LWM_ECONFIG || rc == -LWM_EUSAGE)
			x->refused++;
		else if (rc < 0) {
			*e = why;
			return rc;
		}
		lwm_err_clear(&why);
		i++;
	} while (type->vary);
	return 0;
}

/* All cuts of what is left into the axes from `axis` on. */
static int try_meshes(struct search *x, int dim[LWM_AXES], int axis, int left, struct lwm_err *e)
{
	if (axis == LWM_AXES - 1) {
		dim[axis] = left;
		return try_mesh(x, dim, e);
	}
	for (int n = 1; n <= left; n++) {
		if (left % n)
			continue;
		dim[axis] = n;
		LWM_TRY(try_meshes(x, dim, axis + 1, left / n, e));
	}
	return 0;
}

static void tell_choices(struct lwm_str *out, const struct search *x, const char *unit)
{
	char grid[LWM_MESH_TEXT], a[32];

	lwm_str_printf(out, "suggestions    %d meshes and ways planned, %d of them do not fit or barely; %d would be refused\n", x->tried, x->small,
		       x->refused);
	for (int i = 0; i < x->n; i++) {
		const struct choice *c = &x->best[i];

		lwm_str_printf(out, "%14d --mesh-dim %s%s: %.4g s a step, %.4g %ss/s, %s a rank; most of it %s\n", i + 1,
			       lwm_mesh_text(c->dim, grid), c->way, c->step, c->tokens, unit,
			       lwm_bytes_text((double)c->per_rank, a, sizeof a), c->limit);
	}
}

static void list_choices(struct lwm_str *out, const struct search *x)
{
	char grid[LWM_MESH_TEXT];

	lwm_str_printf(out, ",\"suggest\":[");
	for (int i = 0; i < x->n; i++) {
		const struct choice *c = &x->best[i];

		lwm_str_printf(out, "%s{\"mesh\":[%s],\"options\":\"--mesh-dim %s%s\",\"step_seconds\":%.9g,\"bytes_per_rank\":%" PRId64
			       ",\"limit\":\"%s\"}", i ? "," : "", lwm_mesh_text(c->dim, grid), grid, c->way, c->step, c->per_rank,
			       c->limit);
	}
	lwm_str_putc(out, ']');
}

/* Objectives' settings are changed on the way (vary), and put back. */
int lwm_plan_suggest(struct lwm_str *out, const struct lwm_stage *s, int ranks, struct lk_dev *dev, int64_t program, bool json,
		     struct lwm_err *e)
{
	const struct lwm_objective_type *type = lwm_objectives[s->objective];
	struct search x = { .given = s, .dev = dev, .ranks = ranks, .program = program };
	void *set = lwm_settings_of(s, type->settings), *before;
	int dim[LWM_AXES], rc;

	if (!type->work || !lwm_rates_known(&s->rates))
		return lwm_fail(e, LWM_EUSAGE, "--suggest has to know rates: --plan-gpu, --calibrate, or --plan-tflops, --plan-memory-rate "
				"and --plan-node-rate");
	before = malloc(type->settings_size);
	if (!before)
		return lwm_fail_memory(e, NULL);
	memcpy(before, set, type->settings_size);
	rc = try_meshes(&x, dim, 0, ranks, e);
	memcpy(set, before, type->settings_size);
	free(before);
	if (rc == 0)
		json ? list_choices(out, &x) : tell_choices(out, &x, type->unit);
	return rc;
}
