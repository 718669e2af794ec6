/* The objective contrastive: two views of each clip are to be found again among those of all others (common/model/contrast.h says
 * the loss, media/augment.h what a view is). Every rank takes its share of a step's clips; negatives are those of all ranks, or of
 * a queue of earlier keys. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/contrast.h"
#include "common/train/clips.h"
#include "common/train/next_token_int.h"
#include "common/train/supply.h"

/* Places in the sums. */
enum { S_PAIRS, S_LOSS, S_HITS, S_OTHERS };

struct contrastive { /* settings */
	double temperature;
	double momentum;                   /* of the encoder of keys; 0: there is none */
	int64_t queue;                     /* keys; 0: those of the step */
	int64_t hidden, out;               /* of the projection head; hidden 0: the model's width */
	double min_area, flip, jitter, grey; /* of a view */
};

#define SET(field, rule, preset, ...) LWM_SETTING(struct contrastive, field, rule, preset, __VA_ARGS__)

static const struct lwm_setting settings[] = {
	LWM_SECTION("Contrastive"),
	SET(temperature, LWM_FIXED, 0.07, LWM_OPT_DOUBLE(0, "temperature", NULL, 1e-4, 100, "X", "of InfoNCE", 0)),
	SET(momentum, LWM_FIXED, 0,
	    LWM_OPT_DOUBLE(0, "momentum", NULL, 0, 0.9999999, "X",
			   "keys come from a copy of the weights, which moves by 1 - X of the way to them at each update (MoCo); "
			   "published 0.999; 0: no copy", 0)),
	SET(queue, LWM_FIXED, 0,
	    LWM_OPT_INT(0, "queue", NULL, 0, 1 << 24, "N",
			"negatives are that many earlier keys, a multiple of --batch-clips; published 65536; 0: keys of the step", 0)),
	SET(hidden, LWM_MODEL, 0,
	    LWM_OPT_INT(0, "head-hidden", NULL, 0, 1 << 20, "N", "width of the projection head; 0: the model's", 0)),
	SET(out, LWM_MODEL, 128, LWM_OPT_INT(0, "head-out", NULL, 2, 1 << 20, "N", "numbers that views are compared by", 0)),
	SET(min_area, LWM_FIXED, 0.3,
	    LWM_OPT_DOUBLE(0, "min-crop", NULL, 0.01, 1, "X", "smallest part of the area that a view shows", 0)),
	SET(flip, LWM_FIXED, 0.5, LWM_OPT_DOUBLE(0, "flip", NULL, 0, 1, "P", "of views that are mirrored", 0)),
	SET(jitter, LWM_FIXED, 0.4, LWM_OPT_DOUBLE(0, "jitter", NULL, 0, 1, "X", "brightness and contrast of a view: 1 - X to 1 + X", 0)),
	SET(grey, LWM_FIXED, 0.2, LWM_OPT_DOUBLE(0, "grey", NULL, 0, 1, "P", "of views that are grey", 0)),
	LWM_SETTINGS_END
};

/* Evaluations see the same views every time: those of a step that never comes. */
enum { EVAL_STEP = INT32_MAX };

struct pairing {
	struct lwm_objective base;
	const struct contrastive *set;
	struct lwm_clips clips;
	struct lwm_contrast_cfg cfg;
	struct lwm_contrast *net;
	uint8_t *view; /* frames of one */
};

static struct pairing *self(struct lwm_objective *o)
{
	return (struct pairing *)o;
}

static int shape_of(struct lwm_contrast_cfg *c, const struct lwm_stage *s, struct lwm_err *e)
{
	const struct contrastive *set = lwm_settings_of(s, settings);
	struct lwm_patch_grid g = lwm_clips_grid(s);

	LWM_TRY(lwm_clips_trunk(&c->trunk, s, e));
	c->tokens = lwm_patch_tokens(&g);
	c->hidden = set->hidden ? set->hidden : c->trunk.dim;
	c->out = set->out;
	c->temperature = set->temperature;
	c->momentum = set->momentum > 0;
	c->queue = set->queue;
	return lwm_contrast_check(c, e);
}

static struct lwm_contrast_run run_of(const struct lwm_objective *o)
{
	const struct lwm_stage *s = o->stage;
	const struct contrastive *set = lwm_settings_of(s, settings);
	int64_t views = set->momentum > 0 ? 1 : 2; /* of a clip, at once */

	return (struct lwm_contrast_run){ .how = lwm_clips_run(s), .pairs = lwm_clips_share(o),
					  .at_once = views * s->frames.at_once, .ranks = o->mesh->dev[LWM_GRAD] };
}

static int check_momentum(const struct lwm_stage *s, struct lwm_err *e)
{
	const struct contrastive *set = lwm_settings_of(s, settings);

	if (set->queue && !(set->momentum > 0))
		return lwm_fail(e, LWM_ECONFIG, "--queue %" PRId64 ": its keys are of a momentum encoder, and --momentum is 0", set->queue);
	if (set->queue % s->frames.batch)
		return lwm_fail(e, LWM_ECONFIG, "--queue %" PRId64 " is not a multiple of --batch-clips %" PRId64, set->queue,
				s->frames.batch);
	if (set->momentum > 0 && s->shard_weights == LWM_SHARD_TRUE)
		return lwm_fail(e, LWM_ECONFIG, "--momentum %g: its copy of the weights is whole on every rank, not with --shard-weights true",
				set->momentum);
	if (set->momentum > 0 && s->lora && *s->lora)
		return lwm_fail(e, LWM_ECONFIG, "--momentum %g: its copy of the weights follows what trains, not adapters (--lora)",
				set->momentum);
	return 0;
}

static int check_settings(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	const struct contrastive *set = lwm_settings_of(s, settings);
	struct lwm_contrast_cfg c;
	struct lwm_llama_run how = lwm_clips_run(s);

	LWM_TRY(lwm_clips_check(s, m, e));
	if (s->frames.batch < 2 && !set->queue)
		return lwm_fail(e, LWM_ECONFIG, "--batch-clips %" PRId64 ": a clip has nothing to be told from", s->frames.batch);
	if (s->frames.vqgan)
		return lwm_fail(e, LWM_ECONFIG, "--vqgan %s: views are of pixels, this objective has no latents and no codes", s->frames.vqgan);
	LWM_TRY(check_momentum(s, e));
	LWM_TRY(shape_of(&c, s, e));
	how.tokens = c.tokens;
	return lwm_llama_check_run(&c.trunk, &how, 1, e);
}

static double flops_of(const struct lwm_objective *o, const double sums[LWM_SUMS])
{
	return lwm_contrast_flops(&((const struct pairing *)o)->cfg, sums[S_PAIRS]);
}

static int size_plan(struct pairing *p, const struct lwm_contrast_run *run, int ranks, struct lwm_err *e)
{
	int64_t cache;

	LWM_TRY(lwm_clips_bytes(&p->clips, &p->base, &cache, e));
	p->base.own_bytes = lwm_contrast_own(p->base.dev, &p->cfg, run, ranks);
	/* the same space serves the sums of whole gradients, which a plan counts */
	int64_t work = p->cfg.momentum ? 0 : lwm_comm_work(ranks, run->pairs * ranks * p->cfg.out);
	int64_t weights = lwm_stage_shards(&p->base) ? 0 : lwm_comm_work(ranks, p->base.tensors.total);
	p->base.exchange_bytes = work > weights ? work - weights : 0;
	p->base.array_bytes = cache + lwm_contrast_arrays(&p->cfg, run) + p->clips.grid.frames * p->clips.grid.side *
			      p->clips.grid.side * 3 + p->base.exchange_bytes;
	return 0;
}

static int open_objective(struct lwm_objective *o, struct lwm_err *e)
{
	struct pairing *p = self(o);
	const struct lwm_stage *s = o->stage;
	struct lwm_contrast_run run = run_of(o);
	int ranks = lwm_mesh_ranks(o->mesh, LWM_DATA);
	int64_t views;

	p->set = lwm_settings_of(s, settings);
	o->dtype = s->planning && s->plan_gib ? LK_BF16 : lk_dev_dtype(o->dev);
	o->momentum = p->set->momentum;
	o->whole = o->momentum > 0;
	LWM_TRY(lwm_clips_find(&p->clips, o, e));
	LWM_TRY(shape_of(&p->cfg, s, e));
	views = p->cfg.momentum ? run.pairs : 2 * run.pairs;
	LWM_TRY(lwm_nt_match_source(o, lwm_next_token_of(s), &p->cfg.trunk, e));
	LWM_TRY(lwm_contrast_tensors(&o->tensors, &p->cfg, e));
	LWM_TRY(lwm_clips_config(&o->config, "contrastive", &p->cfg.trunk, s, e));
	o->tokenizer_hash = "";
	o->units_per_step = s->frames.batch;
	o->passes = run.at_once > 0 && run.at_once < views ? (views + run.at_once - 1) / run.at_once : 1;
	o->memory_bytes = lwm_contrast_memory(&p->cfg, &run, o->dtype, ranks);
	o->host_bytes = lwm_contrast_host(&p->cfg, &run, o->dtype);
	o->most_flops = lwm_contrast_flops(&p->cfg, (double)s->frames.batch);
	return s->planning ? size_plan(p, &run, ranks, e) : 0;
}

static int attach_weights(struct lwm_objective *o, struct lwm_supply *w, struct lwm_err *e)
{
	struct pairing *p = self(o);
	struct lwm_contrast_run run = run_of(o);

	(void)w; /* each step is given them */
	LWM_TRY(lwm_clips_load(&p->clips, o, e));
	int ranks = lwm_mesh_ranks(o->mesh, LWM_DATA), least = p->cfg.queue ? 1 : 2;
	if (lwm_clips_to_judge(&p->clips) < (ranks > least ? ranks : least))
		return lwm_fail(e, LWM_ECONFIG, "clips held out: %" PRId64 ", but two are needed to be told apart, and one for each of %d "
				"ranks; with --holdout 0 training clips are taken", lwm_clips_to_judge(&p->clips), ranks);
	p->view = malloc((size_t)(p->clips.grid.frames * p->clips.cache.one));
	if (!p->view)
		return lwm_fail_memory(e, "a view");
	return lwm_contrast_new(&p->net, o->dev, &p->cfg, &run, e);
}

/* ---- steps ---- */

/* The clips of a step: pair i of this rank is clip first + i of the step, or of those held out. */
struct views {
	struct pairing *p;
	int64_t step, first, pairs;
	bool held;
};

static int fill_views(void *ctx, int64_t first, int64_t n, float *out, struct lwm_err *e)
{
	const struct views *v = ctx;
	struct pairing *p = v->p;
	const struct lwm_stage *s = p->base.stage;
	struct lwm_augment how = { .side = p->clips.grid.side, .min_area = p->set->min_area, .flip = p->set->flip,
				   .jitter = p->set->jitter, .grey = p->set->grey };

	(void)e;
	for (int64_t i = first; i < first + n; i++, out += p->cfg.tokens * p->cfg.trunk.input_dim) {
		int64_t clip = v->first + i % v->pairs;
		const uint8_t *frames = v->held ? lwm_clips_held(&p->clips, clip) : lwm_clips_at(&p->clips, s, v->step, clip);
		struct lwm_rng r = lwm_rng_at((uint64_t)s->seed, LWM_RNG_AUGMENT, (uint64_t)v->step,
					      (uint64_t)(2 * clip + i / v->pairs));

		lwm_augment(&how, &r, frames, p->clips.grid.frames, p->view);
		lwm_patches(&p->clips.grid, p->view, out);
	}
	return 0;
}

static int one_batch(struct pairing *p, struct views *v, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	struct lwm_contrast_stats st = { 0 };

	LWM_TRY(lwm_contrast_step(p->net, v->pairs, fill_views, v, w, &st, e));
	sums[S_PAIRS] += st.pairs;
	sums[S_LOSS] += st.loss;
	sums[S_HITS] += st.hits;
	sums[S_OTHERS] += st.pairs * (double)(p->cfg.queue ? p->cfg.queue : v->pairs * lwm_mesh_ranks(p->base.mesh, LWM_DATA) - 1);
	return 0;
}

static int step_objective(struct lwm_objective *o, int64_t step, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	int64_t n = lwm_clips_share(o);
	struct views v = { .p = self(o), .step = step, .first = lwm_mesh_rank(o->mesh, LWM_DATA) * n, .pairs = n };

	return one_batch(self(o), &v, w, sums, e);
}

static int enqueue(struct lwm_objective *o, int64_t n, struct lwm_supply *w, struct lwm_err *e)
{
	return lwm_contrast_enqueue(self(o)->net, n, w, e);
}

/* As many clips at a time as a step has, or all; --eval-rows of them, at least one batch. */
static int eval_objective(struct lwm_objective *o, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	struct pairing *p = self(o);
	int64_t ranks = lwm_mesh_ranks(o->mesh, LWM_DATA), have = lwm_clips_to_judge(&p->clips), n = lwm_clips_share(o);
	int64_t want = o->stage->eval_rows < have ? o->stage->eval_rows : have, batches;

	n = n < have / ranks ? n : have / ranks;
	batches = want / (n * ranks) > 0 ? want / (n * ranks) : 1;
	for (int64_t i = 0; i < batches; i++) {
		struct views v = { .p = p, .step = EVAL_STEP, .pairs = n, .held = true,
				   .first = (i * ranks + lwm_mesh_rank(o->mesh, LWM_DATA)) * n };

		LWM_TRY(one_batch(p, &v, w, sums, e));
	}
	return 0;
}

static double norm_of(const double sums[LWM_SUMS])
{
	return sums[S_PAIRS];
}

static double render(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json)
{
	double n = sums[S_PAIRS] > 0 ? sums[S_PAIRS] : 1;

	lwm_str_printf(json, ",\"pairs\":%.0f,\"negatives\":%.0f,\"found\":%.6g", sums[S_PAIRS], sums[S_OTHERS] / n, sums[S_HITS] / n);
	if (eval)
		lwm_str_printf(json, ",\"held_out\":%s", self(o)->clips.held ? "true" : "false");
	return sums[S_LOSS] / n;
}

static void close_objective(struct lwm_objective *o)
{
	struct pairing *p = self(o);

	lwm_contrast_free(p->net);
	lwm_clips_release(&p->clips);
	free(p->view);
}

const struct lwm_objective_type lwm_objective_contrastive = {
	.kind = "trunk",
	.unit = "clip",
	.holds_out = true,
	.by_group = true,
	.settings = settings,
	.settings_size = sizeof(struct contrastive),
	.size = sizeof(struct pairing),
	.scales = true,
	.check = check_settings,
	.open = open_objective,
	.attach = attach_weights,
	.step = step_objective,
	.updated = enqueue,
	.eval = eval_objective,
	.norm = norm_of,
	.render = render,
	.flops = flops_of,
	.close = close_objective,
};
