/* The objective diffusion: noise is taken out of the latents of a clip (common/model/denoise.h: the net; noise.h, clip_loss.h: what
 * it is trained with, as Vista has it). Latents are those of a VQGAN in a folder, which is not trained, or the pixels themselves.
 * Every rank takes its share of a step's clips; their noise is a function of the step and the place in its batch. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/model/denoiser.h"
#include "common/model/euler.h"
#include "common/train/latents.h"
#include "common/train/next_token_int.h"

/* Places in the sums. */
enum { S_CLIPS, S_PLAIN, S_DYNAMICS, S_STRUCTURE, S_NOTHING };

struct diffusing { /* settings */
	double mean, deviation, offset; /* of the noise */
	const char *odds;               /* of 0, 1, 2 ... clean first frames */
	double structure;               /* of the loss */
	bool no_dynamics;
	int64_t sample_steps;           /* of a clip that is drawn to be shown */
};

#define SET(field, rule, preset, ...) LWM_SETTING(struct diffusing, field, rule, preset, __VA_ARGS__)

static const struct lwm_setting settings[] = {
	LWM_SECTION("Diffusion"),
	SET(mean, LWM_FIXED, 1.0, LWM_OPT_DOUBLE(0, "sigma-mean", NULL, -20, 20, "X", "of ln sigma of the noise, one for each clip", 0)),
	SET(deviation, LWM_FIXED, 1.6, LWM_OPT_DOUBLE(0, "sigma-deviation", NULL, 0, 10, "X", "of ln sigma, which is normal", 0)),
	SET(offset, LWM_FIXED, 0.02,
	    LWM_OPT_DOUBLE(0, "offset-noise", NULL, 0, 10, "X", "part of the noise that is the same all over a frame and channel", 0)),
	LWM_SETTING_TEXT(struct diffusing, odds, LWM_FIXED, "1,2,4,8",
			 LWM_OPT_STR(0, "clean-odds", NULL, "LIST", "that the first 0, 1, 2 ... frames of a clip are given without noise", 0)),
	SET(structure, LWM_FIXED, 0.1, LWM_OPT_DOUBLE(0, "structure-weight", NULL, 0, 1e6, "X", "of the loss of high frequencies", 0)),
	SET(no_dynamics, LWM_FIXED, 0, LWM_OPT_FLAG(0, "no-dynamics", NULL, "errors of motion weigh no more than others")),
	SET(sample_steps, LWM_FREE, 20, LWM_OPT_INT(0, "sample-steps", NULL, 1, 1 << 20, "N", "in which the clips of samples are drawn", 0)),
	LWM_SETTINGS_END
};

/* Evaluations see the same noise every time: that of a step that never comes. */
enum { EVAL_STEP = INT32_MAX };

struct denoising {
	struct lwm_objective base;
	struct lwm_noise noise;
	struct lwm_clips clips;
	struct lwm_latents latents;
	struct lwm_denoiser made; /* the net among it */
	struct lwm_denoise *net;
	float *noisy, *target; /* of a pass */
	double *sigma;
	int64_t *clean;
};

static struct denoising *self(struct lwm_objective *o)
{
	return (struct denoising *)o;
}

/* "1,2,4,8" */
static int parse_odds(struct lwm_noise *n, const char *text, struct lwm_err *e)
{
	char copy[128], *save = NULL;
	int64_t all = 0;

	n->kinds = 0;
	if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy)
		return lwm_fail(e, LWM_EUSAGE, "--clean-odds: '%s' is too long", text);
	for (char *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		if (n->kinds == LWM_CLEAN_KINDS)
			return lwm_fail(e, LWM_EUSAGE, "--clean-odds %s: more than %d", text, LWM_CLEAN_KINDS);
		LWM_TRY(lwm_parse_int(p, 0, 1 << 20, &n->odds[n->kinds], "--clean-odds", e));
		all += n->odds[n->kinds++];
	}
	return all ? 0 : lwm_fail(e, LWM_EUSAGE, "--clean-odds '%s': one of them has to be above 0", text);
}

static int noise_of(struct lwm_noise *n, const struct lwm_stage *s, struct lwm_err *e)
{
	const struct diffusing *set = lwm_settings_of(s, settings);

	*n = (struct lwm_noise){ .mean = set->mean, .deviation = set->deviation, .offset = set->offset };
	LWM_TRY(parse_odds(n, set->odds, e));
	if (n->kinds > s->frames.clip)
		return lwm_fail(e, LWM_ECONFIG, "--clean-odds %s: of --clip-frames %" PRId64 " nothing is left to be denoised after %d clean ones",
				set->odds, s->frames.clip, n->kinds - 1);
	return 0;
}

static int shape_net(struct lwm_denoise_cfg *c, const struct lwm_latent_space *l, const struct lwm_stage *s, struct lwm_err *e)
{
	int64_t wide = l->side / l->factor;

	c->patch = s->frames.patch / l->factor;
	c->shape = (struct lwm_latent_shape){ .times = s->frames.clip, .rows = wide, .columns = wide, .channels = l->channels };
	LWM_TRY(lwm_clips_trunk(&c->trunk, s, e));
	c->trunk.input_dim = lwm_denoise_input_dim(c);
	c->trunk.max_seq = lwm_denoise_tokens(c);
	return lwm_denoise_check(c, e);
}

static struct lwm_denoise_run run_of(const struct lwm_objective *o)
{
	const struct diffusing *set = lwm_settings_of(o->stage, settings);
	int64_t share = lwm_clips_share(o), at_once = o->stage->frames.at_once;

	return (struct lwm_denoise_run){ .how = lwm_clips_run(o->stage), .clips = at_once > 0 && at_once < share ? at_once : share,
					 .structure = set->structure, .dynamics = !set->no_dynamics };
}

static int check_settings(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	struct lwm_llama_run how = lwm_clips_run(s);
	struct lwm_patch_grid g = lwm_clips_grid(s);
	struct lwm_llama_cfg c;
	struct lwm_noise n;

	LWM_TRY(lwm_clips_check(s, m, e));
	if (s->frames.patch_frames != 1)
		return lwm_fail(e, LWM_ECONFIG, "--patch-frames %" PRId64 ": frames are denoised one by one, say 1", s->frames.patch_frames);
	LWM_TRY(noise_of(&n, s, e));
	LWM_TRY(lwm_clips_trunk(&c, s, e));
	how.tokens = lwm_patch_tokens(&g);
	return lwm_llama_check_run(&c, &how, 1, e);
}

static double flops_of(const struct lwm_objective *o, const double sums[LWM_SUMS])
{
	return lwm_denoise_flops(&((const struct denoising *)o)->made.net, sums[S_CLIPS]);
}

/* Clips that are shown are decoded. */
static enum lwm_latents_use use_of(const struct denoising *p)
{
	return p->base.stage->sample_every ? LWM_LATENTS_AND_BACK : LWM_LATENTS;
}

static int size_plan(struct denoising *p, const struct lwm_denoise_run *r, struct lwm_err *e)
{
	const struct lwm_latent_shape *s = &p->made.net.shape;
	int64_t cache;

	LWM_TRY(lwm_clips_bytes(&p->clips, &p->base, &cache, e));
	p->base.own_bytes = lwm_denoise_own(p->base.dev, &p->made.net, r);
	p->base.array_bytes = cache + lwm_denoise_arrays(&p->made.net, r) + r->clips * (lwm_latent_count(s) * 8 + 16);
	lwm_latents_plan(&p->latents, &p->made.space, &p->base, cache, use_of(p));
	return 0;
}

/* What latents are is part of the model's configuration, which is compared before weights are there: so they are made first. */
static int load_clips(struct denoising *p, struct lwm_err *e)
{
	LWM_TRY(lwm_latent_space_reserve(&p->made.space, e));
	if (p->base.stage->planning)
		return 0;
	LWM_TRY(lwm_clips_load(&p->clips, &p->base, e));
	return lwm_latents_load(&p->latents, &p->made.space, &p->clips, &p->base, use_of(p), e);
}

static int open_objective(struct lwm_objective *o, struct lwm_err *e)
{
	struct denoising *p = self(o);
	const struct lwm_stage *s = o->stage;
	struct lwm_denoise_cfg *net = &p->made.net;
	struct lwm_denoise_run run = run_of(o);

	o->dtype = s->planning && s->plan_gib ? LK_BF16 : lk_dev_dtype(o->dev);
	LWM_TRY(noise_of(&p->noise, s, e));
	p->made.clean = p->noise.kinds - 1;
	LWM_TRY(lwm_clips_find(&p->clips, o, e));
	LWM_TRY(lwm_latents_find(&p->latents, &p->made.space, o, e));
	LWM_TRY(shape_net(net, &p->made.space, s, e));
	LWM_TRY(lwm_nt_match_source(o, lwm_next_token_of(s), &net->trunk, e));
	LWM_TRY(lwm_denoise_tensors(&o->tensors, net, e));
	LWM_TRY(lwm_clips_config(&o->config, "diffusion", &net->trunk, s, e));
	LWM_TRY(load_clips(p, e));
	LWM_TRY(lwm_denoiser_to_json(&p->made, o->config, e));
	o->tokenizer_hash = "";
	o->units_per_step = s->frames.batch;
	o->passes = (lwm_clips_share(o) + run.clips - 1) / run.clips;
	o->memory_bytes = lwm_denoise_memory(net, &run, o->dtype);
	o->host_bytes = lwm_denoise_host(net, &run, o->dtype);
	o->most_flops = lwm_denoise_flops(net, (double)s->frames.batch);
	return s->planning ? size_plan(p, &run, e) : 0;
}

static int attach_weights(struct lwm_objective *o, struct lwm_supply *w, struct lwm_err *e)
{
	struct denoising *p = self(o);
	struct lwm_denoise_run run = run_of(o);
	size_t floats = (size_t)(run.clips * lwm_latent_count(&p->made.net.shape));

	(void)w; /* each step is given them */
	p->noisy = malloc(floats * sizeof *p->noisy);
	p->target = malloc(floats * sizeof *p->target);
	p->sigma = malloc((size_t)run.clips * sizeof *p->sigma);
	p->clean = malloc((size_t)run.clips * sizeof *p->clean);
	if (!p->noisy || !p->target || !p->sigma || !p->clean)
		return lwm_fail_memory(e, "the latents of a pass");
	return lwm_denoise_new(&p->net, o->dev, &p->made.net, &run, e);
}

/* ---- steps ---- */

/* Clip `clip` of a step, or of those held out, as number i of the pass. */
static void take_clip(struct denoising *p, int64_t i, int64_t step, int64_t clip, bool held)
{
	const struct lwm_stage *s = p->base.stage;
	const uint8_t *frames = held ? lwm_clips_held(&p->clips, clip) : lwm_clips_at(&p->clips, s, step, clip);
	int64_t floats = lwm_latent_count(&p->made.net.shape);
	float *z = p->target + i * floats;

	memcpy(z, lwm_latents_of(&p->latents, &p->clips, frames), (size_t)floats * sizeof *z);
	lwm_noise_draw(&p->noise, &p->made.net.shape, (uint64_t)s->seed, (uint64_t)step, (uint64_t)clip, z, p->noisy + i * floats,
		       &p->sigma[i], &p->clean[i]);
}

/* Clips [first, first + n) of a step, or of those held out. */
static int run_clips(struct denoising *p, struct lwm_supply *w, int64_t step, int64_t first, int64_t n, bool held,
		     double sums[LWM_SUMS], struct lwm_err *e)
{
	int64_t most = run_of(&p->base).clips, passes = 0;

	if (held && w->shared)
		passes = lwm_clips_passes(&p->clips, &p->base, most);
	for (int64_t at = 0; at < n || at < passes * most; at += most) {
		bool any = at < n;
		struct lwm_denoise_batch b = { .clips = !any ? 1 : n - at < most ? n - at : most,
					       .noisy = p->noisy, .target = p->target, .sigma = p->sigma, .clean = p->clean };
		struct lwm_denoise_stats st = { .compare = held };

		for (int64_t i = 0; i < b.clips; i++)
			take_clip(p, i, step, any ? first + at + i : 0, held);
		w->more = at + b.clips < n;
		LWM_TRY(lwm_denoise_step(p->net, &b, w, &st, e));
		if (!any)
			continue;
		sums[S_CLIPS] += st.clips;
		sums[S_PLAIN] += st.parts.plain;
		sums[S_DYNAMICS] += st.parts.dynamics;
		sums[S_STRUCTURE] += st.parts.structure;
		sums[S_NOTHING] += st.nothing;
	}
	return 0;
}

static int step_objective(struct lwm_objective *o, int64_t step, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	int64_t n = lwm_clips_share(o);

	return run_clips(self(o), w, step, lwm_mesh_rank(o->mesh, LWM_DATA) * n, n, false, sums, e);
}

static int eval_objective(struct lwm_objective *o, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	int64_t first, end;

	lwm_clips_deal(&self(o)->clips, o, &first, &end);
	return run_clips(self(o), w, EVAL_STEP, first, end - first, true, sums, e);
}

struct drawing {
	struct denoising *p;
	struct lwm_supply *w;
};

static int denoise_clip(void *ctx, const float *x, double sigma, int64_t clean, float *denoised, struct lwm_err *e)
{
	struct drawing *d = ctx;
	struct lwm_denoise_batch b = { .clips = 1, .noisy = x, .sigma = &sigma, .clean = &clean, .denoised = denoised };

	return lwm_denoise_apply(d->p->net, &b, d->w, e);
}

/* Clips one below the other, each in two rows: what came, and what is drawn after the first frames. Clip i begins with the same
 * noise every time. */
static int show_clips(struct denoising *p, struct lwm_supply *w, uint8_t *sheet, int64_t n, struct lwm_err *e)
{
	const struct diffusing *set = lwm_settings_of(p->base.stage, settings);
	const struct lwm_latent_shape *s = &p->made.net.shape;
	struct lwm_rollout how = { .steps = set->sample_steps, .sigma_max = 700, .sigma_min = 0.002, .rho = 7, .guide = 1,
				   .rounds = 1 };
	struct drawing d = { p, w };
	int64_t clip = s->times * p->clips.cache.one;

	for (int64_t i = 0; i < n; i++) {
		const uint8_t *truth = lwm_clips_held(&p->clips, i);
		float *z = p->noisy;

		memcpy(sheet + 2 * i * clip, truth, (size_t)clip);
		LWM_TRY(lwm_rollout_draw(&how, s, denoise_clip, &d, (uint64_t)p->base.stage->seed, (uint64_t)i,
					 lwm_latents_of(&p->latents, &p->clips, truth), p->made.clean, z, e));
		for (int64_t k = 0; k < lwm_latent_count(s); k++)
			if (!isfinite(z[k]))
				return lwm_fail(e, LWM_ENUMERIC, "number %" PRId64 " of a clip that was drawn is not finite", k);
		LWM_TRY(lwm_latents_decode(&p->latents, &p->made.space, z, s->times, false, sheet + (2 * i + 1) * clip, e));
	}
	return 0;
}

static int sample_objective(struct lwm_objective *o, int64_t step, struct lwm_supply *w, struct lwm_samples *made,
			    struct lwm_err *e)
{
	struct denoising *p = self(o);
	int64_t n = lwm_clips_to_show(&p->clips, o), side = p->clips.grid.side;
	uint8_t *sheet = malloc((size_t)(2 * n * p->clips.grid.frames * p->clips.cache.one));
	int rc = lwm_supply_agree(w, sheet ? 0 : lwm_fail_memory(e, "samples"), e);

	(void)step;
	if (rc == 0)
		rc = show_clips(p, w, sheet, n, e);
	if (rc == 0)
		rc = lwm_samples_sheet(made, sheet, 2 * n, p->clips.grid.frames, side, side, e);
	lwm_str_printf(&made->what, "%s clips: as they are; below, %" PRId64 " frames that are given, then what is drawn after them",
		       p->clips.held ? "held-out" : "training", p->made.clean);
	free(sheet);
	return rc;
}

static double norm_of(const double sums[LWM_SUMS])
{
	return sums[S_CLIPS];
}

static double render(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json)
{
	double n = sums[S_CLIPS] > 0 ? sums[S_CLIPS] : 1;
	const struct { const char *key; double v; } part[] = {
		{ "plain", sums[S_PLAIN] }, { "dynamics", sums[S_DYNAMICS] }, { "structure", sums[S_STRUCTURE] },
		{ "nothing", sums[S_NOTHING] }, /* of evaluations alone */
	};

	lwm_str_printf(json, ",\"clips\":%.0f", sums[S_CLIPS]);
	for (int i = 0; i < (eval ? 4 : 3); i++) {
		lwm_str_printf(json, ",\"%s\":", part[i].key);
		lwm_str_number(json, part[i].v / n, 9);
	}
	if (eval)
		lwm_str_printf(json, ",\"held_out\":%s", self(o)->clips.held ? "true" : "false");
	return (sums[S_PLAIN] + sums[S_DYNAMICS] + sums[S_STRUCTURE]) / n;
}

static void close_objective(struct lwm_objective *o)
{
	struct denoising *p = self(o);

	lwm_denoise_free(p->net);
	lwm_latents_release(&p->latents);
	lwm_denoiser_release(&p->made);
	lwm_clips_release(&p->clips);
	free(p->noisy);
	free(p->target);
	free(p->sigma);
	free(p->clean);
}

const struct lwm_objective_type lwm_objective_diffusion = {
	.kind = "trunk",
	.unit = "clip",
	.holds_out = true,
	.by_group = true,
	.settings = settings,
	.settings_size = sizeof(struct diffusing),
	.size = sizeof(struct denoising),
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
