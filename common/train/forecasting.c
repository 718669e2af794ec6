/* The objective next-frame: every frame of a clip predicted from all before it (common/model/forecast.h: the model and the loss),
 * in pixels or in latents of a VQGAN that is not trained (latents.h), whose decoder then makes pixels of what was predicted.
 * Held-out clips are judged frame by frame, and by what comes when predictions are given back as the past: a few frames are
 * known, the others are rolled forward from them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/forecast.h"
#include "common/model/vqgan.h"
#include "common/train/latents.h"
#include "common/train/next_token_int.h"

/* Places in the sums; of times that were rolled forward the mean squared error and the similarity, one each, and of the same times
 * the error of the VQGAN alone. */
enum { HORIZON = 5 };
enum { S_PATCHES, S_LOSS, S_STILL, S_CLIPS, S_ERROR, S_SSIM = S_ERROR + HORIZON, S_VQGAN = S_SSIM + HORIZON,
       S_END = S_VQGAN + HORIZON };
_Static_assert((int)S_END <= (int)LWM_SUMS, "sums of next-frame");

struct forecasting { /* settings */
	int64_t known; /* frames that an evaluation begins with; 0: half of a clip */
	bool snap;     /* latents become codes before they are decoded */
};

#define SET(field, rule, preset, ...) LWM_SETTING(struct forecasting, field, rule, preset, __VA_ARGS__)

static const struct lwm_setting settings[] = {
	LWM_SECTION("Next frame"),
	SET(known, LWM_FREE, 0,
	    LWM_OPT_INT(0, "known-frames", NULL, 0, 1 << 16, "N", "of a held-out clip, from which the others are rolled forward; 0: half", 0)),
	SET(snap, LWM_FREE, 0,
	    LWM_OPT_FLAG(0, "snap", NULL, "in evaluations latents become codes of the --vqgan before it decodes them")),
	LWM_SETTINGS_END
};

struct forecaster {
	struct lwm_objective base;
	const struct forecasting *set;
	struct lwm_clips clips;
	struct lwm_latents latents;     /* with --vqgan */
	struct lwm_latent_space space;
	struct lwm_forecast_cfg cfg;
	struct lwm_forecast *net;
	float *patches, *predicted; /* of a pass: (clips, times, places, numbers); (clips, times - 1, places, numbers) */
	float *z;                   /* of a clip: latents */
	uint8_t *frames;            /* of a clip; with --vqgan two of them */
};

static struct forecaster *self(struct lwm_objective *o)
{
	return (struct forecaster *)o;
}

static int64_t known_times(const struct lwm_stage *s, const struct lwm_forecast_cfg *c)
{
	const struct forecasting *set = lwm_settings_of(s, settings);
	int64_t known = set->known / s->frames.patch_frames;

	return known ? known : c->times / 2;
}

static int shape_of(struct lwm_forecast_cfg *c, const struct lwm_stage *s, struct lwm_err *e)
{
	const struct forecasting *set = lwm_settings_of(s, settings);
	const struct lwm_stage_frames *f = &s->frames;

	LWM_TRY(lwm_clips_trunk(&c->trunk, s, e));
	c->times = f->clip / f->patch_frames;
	c->places = (f->size / f->patch) * (f->size / f->patch);
	if (c->times < 2)
		return lwm_fail(e, LWM_ECONFIG, "--clip-frames %" PRId64 " of --patch-frames %" PRId64 ": two times are needed, one to see and "
				"one to predict", f->clip, f->patch_frames);
	if (set->known % f->patch_frames || set->known >= f->clip)
		return lwm_fail(e, LWM_ECONFIG, "--known-frames %" PRId64 " is not a multiple of --patch-frames %" PRId64 " below "
				"--clip-frames %" PRId64, set->known, f->patch_frames, f->clip);
	if (set->snap && !f->vqgan)
		return lwm_fail(e, LWM_ECONFIG, "--snap: without --vqgan there are no latents that could become codes");
	return lwm_forecast_check(c, e);
}

static struct lwm_forecast_run run_of(const struct lwm_objective *o)
{
	int64_t share = lwm_clips_share(o), at_once = o->stage->frames.at_once;

	return (struct lwm_forecast_run){ .how = lwm_clips_run(o->stage),
					  .clips = at_once > 0 && at_once < share ? at_once : share };
}

static int check_settings(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	struct lwm_llama_run how = lwm_clips_run(s);
	struct lwm_forecast_cfg c;

	LWM_TRY(lwm_clips_check(s, m, e));
	LWM_TRY(shape_of(&c, s, e));
	how.tokens = c.places;
	return lwm_llama_check_run(&c.trunk, &how, 1, e);
}

static double flops_of(const struct lwm_objective *o, const double sums[LWM_SUMS])
{
	return lwm_forecast_flops(&((const struct forecaster *)o)->cfg, sums[S_CLIPS]);
}

static bool in_latents(const struct forecaster *p)
{
	return p->base.stage->frames.vqgan != NULL;
}

/* Numbers of a time of a clip. */
static int64_t time_floats(const struct forecaster *p)
{
	return p->cfg.places * p->cfg.trunk.input_dim;
}

static int size_plan(struct forecaster *p, const struct lwm_forecast_run *r, struct lwm_err *e)
{
	int64_t cache, side = p->clips.grid.side;

	LWM_TRY(lwm_clips_bytes(&p->clips, &p->base, &cache, e));
	p->base.own_bytes = lwm_forecast_own(p->base.dev, &p->cfg, r);
	p->base.array_bytes = cache + lwm_forecast_arrays(&p->cfg, r) + r->clips * (2 * p->cfg.times - 1) * time_floats(p) * 4 +
			      p->clips.grid.frames * side * side * 3;
	if (in_latents(p)) {
		lwm_latents_plan(&p->latents, &p->space, &p->base, cache, LWM_LATENTS_AND_BACK);
		p->base.array_bytes += p->clips.grid.frames * (p->latents.time * 4 + side * side * 3);
	}
	return 0;
}

/* What latents are is part of the model's configuration, which is compared before weights are there: so they are made first. */
static int find_latents(struct forecaster *p, struct lwm_err *e)
{
	LWM_TRY(lwm_latents_find(&p->latents, &p->space, &p->base, e));
	p->cfg.trunk.input_dim = lwm_latent_patch_numbers(&p->space, &p->clips.grid);
	return lwm_latent_space_reserve(&p->space, e);
}

static int load_clips(struct forecaster *p, struct lwm_err *e)
{
	if (!p->base.stage->planning)
		LWM_TRY(lwm_clips_load(&p->clips, &p->base, e));
	if (!in_latents(p))
		return 0;
	if (!p->base.stage->planning)
		LWM_TRY(lwm_latents_load(&p->latents, &p->space, &p->clips, &p->base, LWM_LATENTS_AND_BACK, e));
	return lwm_latent_space_to_json(&p->space, p->base.config, e);
}

static int open_objective(struct lwm_objective *o, struct lwm_err *e)
{
	struct forecaster *p = self(o);
	const struct lwm_stage *s = o->stage;
	struct lwm_forecast_run run = run_of(o);

	p->set = lwm_settings_of(s, settings);
	o->dtype = s->planning && s->plan_gib ? LK_BF16 : lk_dev_dtype(o->dev);
	LWM_TRY(lwm_clips_find(&p->clips, o, e));
	LWM_TRY(shape_of(&p->cfg, s, e));
	if (in_latents(p))
		LWM_TRY(find_latents(p, e));
	LWM_TRY(lwm_nt_match_source(o, lwm_next_token_of(s), &p->cfg.trunk, e));
	LWM_TRY(lwm_forecast_tensors(&o->tensors, &p->cfg, e));
	LWM_TRY(lwm_clips_config(&o->config, "next-frame", &p->cfg.trunk, s, e));
	LWM_TRY(load_clips(p, e));
	o->tokenizer_hash = "";
	o->units_per_step = s->frames.batch;
	o->passes = (lwm_clips_share(o) + run.clips - 1) / run.clips;
	o->memory_bytes = lwm_forecast_memory(&p->cfg, &run, o->dtype);
	o->host_bytes = lwm_forecast_host(&p->cfg, &run, o->dtype);
	o->most_flops = lwm_forecast_flops(&p->cfg, (double)s->frames.batch);
	return s->planning ? size_plan(p, &run, e) : 0;
}

static int attach_weights(struct lwm_objective *o, struct lwm_supply *w, struct lwm_err *e)
{
	struct forecaster *p = self(o);
	struct lwm_forecast_run run = run_of(o);
	size_t time = (size_t)(run.clips * time_floats(p)) * sizeof(float), times = (size_t)p->cfg.times;

	(void)w; /* each step is given them */
	p->patches = malloc(times * time);
	p->predicted = malloc((times - 1) * time);
	p->frames = malloc((size_t)(p->clips.grid.frames * p->clips.cache.one) * (in_latents(p) ? 2 : 1));
	p->z = malloc((size_t)(p->clips.grid.frames * p->latents.time) * sizeof *p->z + 1);
	if (!p->patches || !p->predicted || !p->frames || !p->z)
		return lwm_fail_memory(e, "the patches of a pass");
	return lwm_forecast_new(&p->net, o->dev, &p->cfg, &run, e);
}

/* ---- steps ---- */

/* Clip i of the pass, from its frames in the cache. */
static void take_clip(struct forecaster *p, int64_t i, const uint8_t *frames)
{
	float *x = p->patches + i * p->cfg.times * time_floats(p);

	if (in_latents(p))
		lwm_latent_patches(&p->space, &p->clips.grid, lwm_latents_of(&p->latents, &p->clips, frames), x);
	else
		lwm_patches(&p->clips.grid, frames, x);
}

static int run_pass(struct forecaster *p, struct lwm_supply *w, int64_t clips, bool look, struct lwm_forecast_stats *st,
		    struct lwm_err *e)
{
	struct lwm_forecast_batch b = { .clips = clips, .patches = p->patches, .predicted = look ? p->predicted : NULL };

	return lwm_forecast_step(p->net, &b, w, st, e);
}

static void add_stats(double *sums, const struct lwm_forecast_stats *st, int64_t clips)
{
	sums[S_PATCHES] += st->patches;
	sums[S_LOSS] += st->loss;
	sums[S_STILL] += st->still;
	sums[S_CLIPS] += (double)clips;
}

static int step_objective(struct lwm_objective *o, int64_t step, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	struct forecaster *p = self(o);
	int64_t n = lwm_clips_share(o), first = lwm_mesh_rank(o->mesh, LWM_DATA) * n, most = run_of(o).clips;

	for (int64_t at = 0; at < n; at += most) {
		int64_t clips = n - at < most ? n - at : most;
		struct lwm_forecast_stats st = { 0 };

		for (int64_t i = 0; i < clips; i++)
			take_clip(p, i, lwm_clips_at(&p->clips, o->stage, step, first + at + i));
		w->more = at + clips < n;
		LWM_TRY(run_pass(p, w, clips, false, &st, e));
		add_stats(sums, &st, clips);
	}
	return 0;
}

/* The patches of clip i of the pass as frames: p->frames. */
static int show_clip(struct forecaster *p, int64_t i, struct lwm_err *e)
{
	const struct lwm_patch_grid *g = &p->clips.grid;
	const float *x = p->patches + i * p->cfg.times * time_floats(p);

	if (!in_latents(p)) {
		lwm_patches_join(g, x, p->frames);
		return 0;
	}
	lwm_latent_patches_join(&p->space, g, x, p->z);
	return lwm_latents_decode(&p->latents, &p->space, p->z, g->frames, p->set->snap, p->frames, e);
}

/* What the VQGAN makes of the latents of the clip itself: the frames behind those of show_clip. */
static int show_truth(struct forecaster *p, const uint8_t *truth, uint8_t **decoded, struct lwm_err *e)
{
	const struct lwm_patch_grid *g = &p->clips.grid;

	*decoded = p->frames + g->frames * p->clips.cache.one;
	memcpy(p->z, lwm_latents_of(&p->latents, &p->clips, truth), (size_t)(g->frames * p->latents.time) * sizeof *p->z);
	return lwm_latents_decode(&p->latents, &p->space, p->z, g->frames, p->set->snap, *decoded, e);
}

/* Mean squared difference of two frames, of numbers from -1 to 1. */
static double difference(const uint8_t *a, const uint8_t *b, int64_t n)
{
	double square = 0;

	for (int64_t k = 0; k < n; k++)
		square += ((double)a[k] - b[k]) * ((double)a[k] - b[k]);
	return square / (double)n / (127.5 * 127.5);
}

/* What was rolled forward of clip i of the pass, held-out clip `clip`, against what came. */
static int judge_clip(struct forecaster *p, int64_t i, int64_t clip, double *sums, struct lwm_err *e)
{
	const struct lwm_patch_grid *g = &p->clips.grid;
	const uint8_t *truth = lwm_clips_held(&p->clips, clip);
	int64_t one = p->clips.cache.one, first = known_times(p->base.stage, &p->cfg) * g->patch_frames;
	double part = (double)g->patch_frames;
	uint8_t *decoded = NULL;

	LWM_TRY(show_clip(p, i, e));
	if (in_latents(p))
		LWM_TRY(show_truth(p, truth, &decoded, e));
	for (int64_t f = first; f < g->frames && (f - first) / g->patch_frames < HORIZON; f++) {
		const uint8_t *a = p->frames + f * one, *b = truth + f * one;
		int64_t ahead = (f - first) / g->patch_frames;

		sums[S_ERROR + ahead] += difference(a, b, one) / part;
		sums[S_SSIM + ahead] += lwm_ssim(a, b, g->side, g->side) / part;
		sums[S_VQGAN + ahead] += decoded ? difference(decoded + f * one, b, one) / part : 0;
	}
	return 0;
}

/* One time after the other takes the place of what came. Later times are not seen by those before. */
static int roll_forward(struct forecaster *p, struct lwm_supply *w, int64_t clips, struct lwm_err *e)
{
	int64_t time = time_floats(p), times = p->cfg.times;

	for (int64_t t = known_times(p->base.stage, &p->cfg); t < times; t++) {
		struct lwm_forecast_stats st = { 0 };

		LWM_TRY(run_pass(p, w, clips, true, &st, e));
		for (int64_t i = 0; i < clips; i++)
			memcpy(p->patches + (i * times + t) * time, p->predicted + (i * (times - 1) + t - 1) * time,
			       (size_t)time * sizeof(float));
	}
	return 0;
}

static int eval_objective(struct lwm_objective *o, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	struct forecaster *p = self(o);
	int64_t first, end, last, most = run_of(o).clips;

	lwm_clips_deal(&p->clips, o, &first, &end);
	last = first + (w->shared ? lwm_clips_passes(&p->clips, o, most) * most : 0);
	for (int64_t at = first; at < end || at < last; at += most) {
		bool any = at < end;
		int64_t clips = !any ? 1 : end - at < most ? end - at : most;
		struct lwm_forecast_stats st = { 0 };

		for (int64_t i = 0; i < clips; i++)
			take_clip(p, i, lwm_clips_held(&p->clips, any ? at + i : 0));
		LWM_TRY(run_pass(p, w, clips, false, &st, e));
		if (any)
			add_stats(sums, &st, clips);
		LWM_TRY(roll_forward(p, w, clips, e));
		for (int64_t i = 0; any && i < clips; i++)
			LWM_TRY(judge_clip(p, i, at + i, sums, e));
	}
	return 0;
}

/* Clips one below the other, each in two rows: what came, and what is given with what was rolled forward from it. */
static int show_clips(struct forecaster *p, struct lwm_supply *w, uint8_t *sheet, int64_t n, struct lwm_err *e)
{
	int64_t most = run_of(&p->base).clips, clip = p->clips.grid.frames * p->clips.cache.one;

	for (int64_t at = 0; at < n; at += most) {
		int64_t clips = n - at < most ? n - at : most;

		for (int64_t i = 0; i < clips; i++) {
			const uint8_t *truth = lwm_clips_held(&p->clips, at + i);

			memcpy(sheet + 2 * (at + i) * clip, truth, (size_t)clip);
			take_clip(p, i, truth);
		}
		LWM_TRY(roll_forward(p, w, clips, e));
		for (int64_t i = 0; i < clips; i++) {
			LWM_TRY(show_clip(p, i, e));
			memcpy(sheet + (2 * (at + i) + 1) * clip, p->frames, (size_t)clip);
		}
	}
	return 0;
}

static int sample_objective(struct lwm_objective *o, int64_t step, struct lwm_supply *w, struct lwm_samples *made,
			    struct lwm_err *e)
{
	struct forecaster *p = self(o);
	const struct lwm_patch_grid *g = &p->clips.grid;
	int64_t n = lwm_clips_to_show(&p->clips, o);
	uint8_t *sheet = malloc((size_t)(2 * n * g->frames * p->clips.cache.one));
	int rc = lwm_supply_agree(w, sheet ? 0 : lwm_fail_memory(e, "samples"), e);

	(void)step;
	if (rc == 0)
		rc = show_clips(p, w, sheet, n, e);
	if (rc == 0)
		rc = lwm_samples_sheet(made, sheet, 2 * n, g->frames, g->side, g->side, e);
	lwm_str_printf(&made->what, "%s clips: as they are; below, %" PRId64 " frames that are given, then what is made of them",
		       p->clips.held ? "held-out" : "training", known_times(o->stage, &p->cfg) * g->patch_frames);
	free(sheet);
	return rc;
}

static double norm_of(const double sums[LWM_SUMS])
{
	return sums[S_PATCHES];
}

static void put(struct lwm_str *json, const char *key, double v)
{
	lwm_str_printf(json, ",\"%s\":", key);
	lwm_str_number(json, v, 6);
}

/* Of rolling forward: one value for each time ahead. */
static void render_rolled(const struct forecaster *p, const double sums[LWM_SUMS], struct lwm_str *json)
{
	int64_t ahead = p->cfg.times - known_times(p->base.stage, &p->cfg);
	double n = sums[S_CLIPS] > 0 ? sums[S_CLIPS] : 1;
	char key[32];

	for (int64_t k = 0; k < ahead && k < HORIZON; k++) {
		snprintf(key, sizeof key, "psnr_%d", (int)k + 1);
		put(json, key, lwm_psnr(sums[S_ERROR + k] / n));
		snprintf(key, sizeof key, "ssim_%d", (int)k + 1);
		put(json, key, sums[S_SSIM + k] / n);
		if (in_latents(p)) {
			snprintf(key, sizeof key, "psnr_vqgan_%d", (int)k + 1);
			put(json, key, lwm_psnr(sums[S_VQGAN + k] / n));
		}
	}
}

static double render(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json)
{
	double n = sums[S_PATCHES] > 0 ? sums[S_PATCHES] : 1;

	lwm_str_printf(json, ",\"clips\":%.0f,\"predicted\":%.0f", sums[S_CLIPS], sums[S_PATCHES]);
	if (in_latents(self(o))) { /* the loss is of no pixels */
		put(json, "still", sums[S_STILL] / n);
	} else {
		put(json, "psnr", lwm_psnr(sums[S_LOSS] / n));
		put(json, "psnr_still", lwm_psnr(sums[S_STILL] / n));
	}
	if (eval) {
		render_rolled(self(o), sums, json);
		lwm_str_printf(json, ",\"held_out\":%s", self(o)->clips.held ? "true" : "false");
	}
	return sums[S_LOSS] / n;
}

static void close_objective(struct lwm_objective *o)
{
	struct forecaster *p = self(o);

	lwm_forecast_free(p->net);
	lwm_latents_release(&p->latents);
	lwm_latent_space_release(&p->space);
	lwm_clips_release(&p->clips);
	free(p->z);
	free(p->patches);
	free(p->predicted);
	free(p->frames);
}

const struct lwm_objective_type lwm_objective_next_frame = {
	.kind = "trunk",
	.unit = "clip",
	.holds_out = true,
	.by_group = true,
	.settings = settings,
	.settings_size = sizeof(struct forecasting),
	.size = sizeof(struct forecaster),
	.scales = true,
	.check = check_settings,
	.open = open_objective,
	.attach = attach_weights,
	.step = step_objective,
	.eval = eval_objective,
	.sample = sample_objective,
	.norm = norm_of,
	.render = render,
	.flops = flops_of,
	.close = close_objective,
};
