/* What a stage would take, before it is queued: the objective is opened without its weights, and its sizes are added up. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/path.h"
#include "common/comm/device.h"
#include "common/io/ckpt.h"
#include "common/train/plan_int.h"
#include "common/train/start.h"

/* Does what the first weights come from exist? A run that resumes from a checkpoint of its own wants none. */
static int look_at_source(const struct lwm_stage *s, struct lwm_objective *o, struct lwm_err *e)
{
	struct lwm_start from;
	char *own = NULL;
	int rc = 0;
	LWM_TRY(lwm_start_parse(&from, s->start_from, e));
	if (!from.source)
		return 0;
	if (lwm_path_folder(s->out, NULL) > 0 && lwm_ckpt_latest(&own, s->out, true, LWM_CKPT_QUICK, NULL, NULL, NULL) == 0 && own)
		goto out;
	rc = lwm_start_look(&from, s->older_ok, o->tokenizer_hash, &o->tensors, e);
	rc = lwm_objective_absent(o, rc, e);
out:
	free(own);
	return rc;
}

/* What is planned for: the GPU that was named, and the rates that hold for it. */
static struct lwm_stage settle_rates(const struct lwm_stage *given)
{
	struct lwm_stage s = *given;

	s.planning = true;
	if (!s.plan_gib)
		s.plan_gib = lwm_gpu_gib(s.plan_gpu);
	s.rates = lwm_rates_of(&given->rates, given->plan_gpu);
	return s;
}

static int write_plan(struct lwm_str *out, const struct lwm_stage *s, struct lwm_plan *p, struct lwm_objective *o, int ranks,
		      bool json, struct lwm_err *e)
{
	int64_t program = (int64_t)lwm_rss(); /* libraries, the BLAS's buffers: this process has them by now as a rank will */

	LWM_TRY(lwm_plan_make(p, s, o, program, e));
	LWM_TRY(look_at_source(s, o, e));
	lwm_plan_judge(p, s, !o->absent.code);
	json ? lwm_plan_json(out, p, s, o) : lwm_plan_text(out, p, s, o);
	if (s->suggest)
		LWM_TRY(lwm_plan_suggest(out, s, ranks, o->dev, program, json, e));
	lwm_str_printf(out, json ? "}\n" : "verdict        %s\n", p->verdict);
	if (p->code)
		return lwm_fail(e, p->code, "the plan %s", p->verdict);
	return o->absent.code ? lwm_fail(e, -o->absent.code, "%s", o->absent.msg) : 0;
}

/* Of settings that a run would refuse as they are: why, and the meshes that it would take. */
static int write_refusal(struct lwm_str *out, const struct lwm_stage *s, struct lk_dev *dev, int ranks, bool json,
			 const struct lwm_err *why, struct lwm_err *e)
{
	lwm_str_puts(out, json ? "{\"refused\":" : "refused        ");
	json ? lwm_str_json(out, why->msg, strlen(why->msg)) : lwm_str_puts(out, why->msg);
	lwm_str_puts(out, json ? "" : "\n");
	LWM_TRY(lwm_plan_suggest(out, s, ranks, dev, (int64_t)lwm_rss(), json, e));
	lwm_str_puts(out, json ? "}\n" : "");
	return 0;
}

int lwm_stage_plan(const struct lwm_stage *given, int ranks, bool json, struct lwm_str *out, struct lwm_err *e)
{
	struct lwm_stage s = settle_rates(given);
	struct lwm_plan p = { .code = 0 };
	struct lwm_objective *o = NULL;
	struct lk_dev *dev = NULL;
	struct lwm_err why = { 0 };
	int rc, refused = lwm_stage_check(&s, ranks, &why);

	if (refused == 0)
		refused = lwm_mesh_parse(s.mesh_dim, ranks, p.mesh.dim, &why);
	if (refused == 0 || s.suggest)
		LWM_GO(lwm_device_open_as(&dev, s.device, (enum lwm_dtype)s.dtype, s.threads, e));
	if (refused == 0)
		refused = lwm_objective_open(&o, lwm_objectives[s.objective], &s, &p.mesh, dev, &why);
	if (refused == 0) {
		LWM_GO(write_plan(out, &s, &p, o, ranks, json, e));
	} else {
		if (s.suggest && (refused == -LWM_ECONFIG || refused == -LWM_EUSAGE))
			LWM_GO(write_refusal(out, &s, dev, ranks, json, &why, e));
		*e = why;
		rc = refused;
	}
out:
	lwm_objective_free(o);
	lk_dev_close(dev);
	return rc;
}

int lwm_stage_calibrate(struct lwm_stage *s, struct lwm_comm *world, struct lwm_err *e)
{
	struct lk_dev *dev = NULL;
	int rc = lwm_agree(world, lwm_device_open_as(&dev, s->device, (enum lwm_dtype)s->dtype, s->threads, e), e);

	if (rc == 0)
		rc = lwm_rates_measure(&s->rates, dev, world, e);
	lk_dev_close(dev);
	return rc;
}
