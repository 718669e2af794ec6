/* The objective masked: most patches of a clip are hidden, and predicted from those that are seen (common/model/masked.h says the
 * model and the loss, media/augment.h the mask and the targets), as pixels or as the codes of a VQGAN that is not trained
 * (latents.h). Every rank takes its share of a step's clips. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/masked.h"
#include "common/model/vqgan.h"
#include "common/train/latents.h"
#include "common/train/next_token_int.h"

/* Places in the sums. */
enum { S_PATCHES, S_LOSS, S_CLIPS, S_HITS, S_UNIGRAM };

/* What is predicted. */
enum targets { NORMALISED, PLAIN, CODES };
static const char *const target_names[] = { "normalised", "plain", "codes", NULL };

struct masking { /* settings */
	double ratio;                        /* of the places of a frame that are hidden */
	/* of the decoder; dim 0: half of the trunk's; ffn 0: in the trunk's proportion; heads 0: of the trunk's size */
	int64_t layers, dim, ffn, heads;
	int targets;
};

#define SET(field, rule, preset, ...) LWM_SETTING(struct masking, field, rule, preset, __VA_ARGS__)

static const struct lwm_setting settings[] = {
	LWM_SECTION("Masked"),
	SET(ratio, LWM_FIXED, 0.75, LWM_OPT_DOUBLE(0, "mask-ratio", NULL, 0.01, 0.99, "X", "of the places that are hidden", 0)),
	SET(targets, LWM_FIXED, NORMALISED,
	    LWM_OPT_CHOICE(0, "mask-targets", NULL, target_names, "pixels of a patch with mean 0 and deviation 1, or as they are; codes of the --vqgan", 0)),
	SET(layers, LWM_MODEL, 2, LWM_OPT_INT(0, "decoder-layers", NULL, 1, 1024, "N", "of the decoder", 0)),
	SET(dim, LWM_MODEL, 0, LWM_OPT_INT(0, "decoder-dim", NULL, 0, 1 << 20, "N", "its width; 0: half of the model's", 0)),
	SET(ffn, LWM_MODEL, 0, LWM_OPT_INT(0, "decoder-ffn", NULL, 0, 1 << 22, "N", "its MLP width; 0: in the model's proportion", 0)),
	SET(heads, LWM_MODEL, 0, LWM_OPT_INT(0, "decoder-heads", NULL, 0, 1024, "N", "its heads; 0: as many as of the model's size fit", 0)),
	LWM_SETTINGS_END
};

/* Evaluations hide the same places every time: those of a step that never comes. */
enum { EVAL_STEP = INT32_MAX };

struct hiding {
	struct lwm_objective base;
	const struct masking *set;
	struct lwm_clips clips;
	struct lwm_masked_cfg cfg;
	struct lwm_masked *net;
	int64_t kept;               /* places of a frame that are seen */
	struct lwm_latents latents; /* of codes, as are the next two */
	struct lwm_latent_space space;
	double *unigram;            /* (codes): -ln of how often the clips that are trained on have it */
	float *patches, *targets;   /* of a pass */
	int32_t *visible, *codes;
};

static struct hiding *self(struct lwm_objective *o)
{
	return (struct hiding *)o;
}

static int64_t places_of(const struct lwm_patch_grid *g)
{
	return (g->side / g->patch) * (g->side / g->patch);
}

/* Rounded, and never none or all. */
static int64_t kept_of(const struct lwm_stage *s)
{
	const struct masking *set = lwm_settings_of(s, settings);
	struct lwm_patch_grid g = lwm_clips_grid(s);
	int64_t n = places_of(&g), kept = (int64_t)floor((1 - set->ratio) * (double)n + 0.5);

	return kept < 1 ? 1 : kept < n ? kept : n - 1;
}

static int shape_of(struct lwm_masked_cfg *c, const struct lwm_stage *s, struct lwm_err *e)
{
	const struct masking *set = lwm_settings_of(s, settings);
	struct lwm_patch_grid g = lwm_clips_grid(s);
	int64_t head;

	LWM_TRY(lwm_clips_trunk(&c->trunk, s, e));
	if (places_of(&g) < 2)
		return lwm_fail(e, LWM_ECONFIG, "--frame-size %" PRId64 " of --patch-size %" PRId64 ": one patch a frame cannot be hidden and "
				"seen", g.side, g.patch);
	c->codes = c->each = 0; /* known with the VQGAN */
	c->decoder = c->trunk;
	c->decoder.input_dim = c->trunk.dim;
	c->decoder.layers = set->layers;
	c->decoder.dim = set->dim ? set->dim : c->trunk.dim / 2;
	c->decoder.ffn = set->ffn ? set->ffn : c->trunk.ffn * c->decoder.dim / c->trunk.dim;
	head = lwm_llama_head_dim(&c->trunk);
	c->decoder.heads = set->heads ? set->heads : c->decoder.dim % head ? 1 : c->decoder.dim / head;
	c->decoder.kv_heads = c->decoder.heads;
	c->tokens = lwm_patch_tokens(&g);
	c->kept = kept_of(s) * (g.frames / g.patch_frames);
	if (lwm_masked_check(c, e) < 0)
		return lwm_context(e, "decoder of width %" PRId64, c->decoder.dim);
	return 0;
}

static bool of_codes(const struct lwm_stage *s)
{
	const struct masking *set = lwm_settings_of(s, settings);

	return set->targets == CODES;
}

enum { LOGITS = 128 /* MiB at a time, as of a language model */ };

static struct lwm_masked_run run_of(const struct lwm_objective *o)
{
	int64_t mib = lwm_next_token_of(o->stage)->loss_mib;
	int64_t share = lwm_clips_share(o), at_once = o->stage->frames.at_once;

	return (struct lwm_masked_run){ .how = lwm_clips_run(o->stage), .clips = at_once > 0 && at_once < share ? at_once : share,
					.logits = (mib ? mib : LOGITS) << 20 };
}

static int check_targets(const struct lwm_stage *s, struct lwm_err *e)
{
	const char *vqgan = s->frames.vqgan;

	if (of_codes(s) && !vqgan)
		return lwm_fail(e, LWM_EUSAGE, "--mask-targets codes: --vqgan has to say whose");
	if (!of_codes(s) && vqgan)
		return lwm_fail(e, LWM_ECONFIG, "--vqgan %s: targets are pixels (say --mask-targets codes)", vqgan);
	if (of_codes(s) && s->sample_every)
		return lwm_fail(e, LWM_ECONFIG, "--sample-every: of --mask-targets codes nothing is shown, they are no pixels");
	return 0;
}

static int check_settings(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	struct lwm_llama_run how = lwm_clips_run(s);
	struct lwm_masked_cfg c;

	LWM_TRY(lwm_clips_check(s, m, e));
	LWM_TRY(check_targets(s, e));
	LWM_TRY(shape_of(&c, s, e));
	how.tokens = c.tokens;
	LWM_TRY(lwm_llama_check_run(&c.trunk, &how, 1, e));
	return lwm_llama_check_run(&c.decoder, &how, 1, e);
}

static double flops_of(const struct lwm_objective *o, const double sums[LWM_SUMS])
{
	return lwm_masked_flops(&((const struct hiding *)o)->cfg, sums[S_CLIPS]);
}

/* Floats of the patches of a pass. */
static int64_t pass_floats(const struct hiding *p, const struct lwm_masked_run *r)
{
	return r->clips * p->cfg.tokens * p->cfg.trunk.input_dim;
}

static int size_plan(struct hiding *p, const struct lwm_masked_run *r, struct lwm_err *e)
{
	int64_t cache;

	LWM_TRY(lwm_clips_bytes(&p->clips, &p->base, &cache, e));
	p->base.own_bytes = lwm_masked_own(p->base.dev, &p->cfg, r);
	p->base.array_bytes = cache + lwm_masked_arrays(&p->cfg, r) + pass_floats(p, r) * (p->cfg.codes ? 4 : 8) +
			      r->clips * (p->cfg.kept + p->cfg.tokens * p->cfg.each) * 4 + p->cfg.codes * 8;
	if (p->cfg.codes)
		lwm_latents_plan(&p->latents, &p->space, &p->base, cache, LWM_LATENT_CODES);
	return 0;
}

static int find_codes(struct hiding *p, struct lwm_err *e)
{
	LWM_TRY(lwm_latents_find(&p->latents, &p->space, &p->base, e));
	p->cfg.codes = p->latents.cfg.levels ? p->latents.cfg.num_embeddings : 1;
	p->cfg.each = lwm_code_patch_numbers(&p->space, &p->clips.grid);
	return 0;
}

/* As if each had been seen once more than it was. */
static int count_codes(struct hiding *p, struct lwm_err *e)
{
	int64_t n = p->clips.cache.n * lwm_latent_places(&p->space), k = p->cfg.codes;

	p->unigram = calloc((size_t)k, sizeof *p->unigram);
	if (!p->unigram)
		return lwm_fail_memory(e, "how often codes are");
	for (int64_t i = 0; i < n; i++)
		p->unigram[p->latents.codes[i]]++;
	for (int64_t i = 0; i < k; i++)
		p->unigram[i] = -log((p->unigram[i] + 1) / (double)(n + k));
	return 0;
}

/* Whose codes they are is part of the model's configuration, which is compared before weights are there: so they are made first. */
static int load_clips(struct hiding *p, struct lwm_err *e)
{
	json_t *o;

	if (!p->base.stage->planning) {
		LWM_TRY(lwm_clips_load(&p->clips, &p->base, e));
		if (p->cfg.codes) {
			LWM_TRY(lwm_latents_load(&p->latents, &p->space, &p->clips, &p->base, LWM_LATENT_CODES, e));
			LWM_TRY(count_codes(p, e));
		}
	}
	if (!p->cfg.codes)
		return 0;
	o = json_pack("{s:s s:I s:I}", "vqgan", p->space.vqgan, "factor", (json_int_t)p->space.factor, "codes",
		      (json_int_t)p->cfg.codes);
	return json_object_set_new(p->base.config, "lwm_codes", o) ? lwm_fail_memory(e, "a model configuration") : 0;
}

static int open_objective(struct lwm_objective *o, struct lwm_err *e)
{
	struct hiding *p = self(o);
	const struct lwm_stage *s = o->stage;
	struct lwm_masked_run run = run_of(o);

	p->set = lwm_settings_of(s, settings);
	o->dtype = s->planning && s->plan_gib ? LK_BF16 : lk_dev_dtype(o->dev);
	LWM_TRY(lwm_clips_find(&p->clips, o, e));
	LWM_TRY(shape_of(&p->cfg, s, e));
	if (of_codes(s))
		LWM_TRY(find_codes(p, e));
	LWM_TRY(lwm_nt_match_source(o, lwm_next_token_of(s), &p->cfg.trunk, e));
	p->kept = kept_of(s);
	LWM_TRY(lwm_masked_tensors(&o->tensors, &p->cfg, e));
	LWM_TRY(lwm_clips_config(&o->config, "masked", &p->cfg.trunk, s, e));
	LWM_TRY(load_clips(p, e));
	o->tokenizer_hash = "";
	o->units_per_step = s->frames.batch;
	o->passes = (lwm_clips_share(o) + run.clips - 1) / run.clips;
	o->memory_bytes = lwm_masked_memory(&p->cfg, &run, o->dtype);
	o->host_bytes = lwm_masked_host(&p->cfg, &run, o->dtype);
	o->most_flops = lwm_masked_flops(&p->cfg, (double)s->frames.batch);
	return s->planning ? size_plan(p, &run, e) : 0;
}

static int attach_weights(struct lwm_objective *o, struct lwm_supply *w, struct lwm_err *e)
{
	struct hiding *p = self(o);
	struct lwm_masked_run run = run_of(o);
	size_t floats = (size_t)pass_floats(p, &run);

	(void)w; /* each step is given them */
	p->patches = malloc(floats * sizeof *p->patches);
	p->targets = malloc(p->cfg.codes ? 1 : floats * sizeof *p->targets);
	p->codes = malloc((size_t)(run.clips * p->cfg.tokens * p->cfg.each) * sizeof *p->codes + 1);
	p->visible = malloc((size_t)(run.clips * p->cfg.kept) * sizeof *p->visible);
	if (!p->patches || !p->targets || !p->codes || !p->visible)
		return lwm_fail_memory(e, "the patches of a pass");
	return lwm_masked_new(&p->net, o->dev, &p->cfg, &run, e);
}

/* ---- steps ---- */

/* Clip `clip` of a step, or of those held out, as number i of the pass. */
static void take_clip(struct hiding *p, int64_t i, int64_t step, int64_t clip, bool held)
{
	const struct lwm_stage *s = p->base.stage;
	const uint8_t *frames = held ? lwm_clips_held(&p->clips, clip) : lwm_clips_at(&p->clips, s, step, clip);
	int64_t floats = p->cfg.tokens * p->cfg.trunk.input_dim;
	float *x = p->patches + i * floats, *y = p->cfg.codes ? NULL : p->targets + i * floats;

	lwm_patches(&p->clips.grid, frames, x);
	if (p->cfg.codes)
		lwm_code_patches(&p->space, &p->clips.grid, lwm_latent_codes_of(&p->latents, &p->clips, frames),
				 p->codes + i * p->cfg.tokens * p->cfg.each);
	else
		memcpy(y, x, (size_t)floats * sizeof *y);
	if (p->set->targets == NORMALISED)
		lwm_patches_normalise(&p->clips.grid, y);
	lwm_patches_tube(&p->clips.grid, p->kept, (uint64_t)s->seed, (uint64_t)step, (uint64_t)clip, p->visible + i * p->cfg.kept);
}

/* What hidden patches of the first clips of the pass cost where each code is as likely as it is often. */
static double unigram_of(const struct hiding *p, int64_t clips)
{
	int64_t tokens = p->cfg.tokens, each = p->cfg.each;
	double sum = 0;

	for (int64_t i = 0; i < clips; i++) {
		const int32_t *visible = p->visible + i * p->cfg.kept;
		int64_t seen = 0;

		for (int64_t t = 0; t < tokens; t++) {
			if (seen < p->cfg.kept && visible[seen] == t) {
				seen++;
				continue;
			}
			for (int64_t k = 0; k < each; k++)
				sum += p->unigram[p->codes[(i * tokens + t) * each + k]] / (double)each;
		}
	}
	return sum;
}

/* Clips [first, first + n) of a step, or of those held out. */
static int run_clips(struct hiding *p, struct lwm_supply *w, int64_t step, int64_t first, int64_t n, bool held,
		     double sums[LWM_SUMS], struct lwm_err *e)
{
	int64_t most = run_of(&p->base).clips, passes = 0;

	if (held && w->shared)
		passes = lwm_clips_passes(&p->clips, &p->base, most);
	for (int64_t at = 0; at < n || at < passes * most; at += most) {
		bool any = at < n;
		struct lwm_masked_batch b = { .clips = !any ? 1 : n - at < most ? n - at : most,
					       .patches = p->patches, .targets = p->targets, .codes = p->codes,
					       .visible = p->visible };
		struct lwm_masked_stats st = { 0 };

		for (int64_t i = 0; i < b.clips; i++)
			take_clip(p, i, step, any ? first + at + i : 0, held);
		w->more = at + b.clips < n;
		LWM_TRY(lwm_masked_step(p->net, &b, w, &st, e));
		if (!any)
			continue;
		sums[S_PATCHES] += st.patches;
		sums[S_LOSS] += st.loss;
		sums[S_CLIPS] += (double)b.clips;
		sums[S_HITS] += st.hits;
		sums[S_UNIGRAM] += held && p->cfg.codes ? unigram_of(p, b.clips) : 0;
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

/* Clip i of the pass in three rows of the sheet: as it is, without what is hidden, with what is predicted there. */
static void show_clip(struct hiding *p, int64_t i, const float *predicted, uint8_t *sheet)
{
	const struct lwm_patch_grid *g = &p->clips.grid;
	int64_t numbers = p->cfg.trunk.input_dim, clip = g->frames * p->clips.cache.one, seen = 0;
	const int32_t *visible = p->visible + i * p->cfg.kept;
	float *x = p->patches + i * p->cfg.tokens * numbers, *y = p->targets + i * p->cfg.tokens * numbers;

	lwm_patches_join(g, x, sheet);
	memset(y, 0, (size_t)(p->cfg.tokens * numbers) * sizeof *y);
	for (int64_t k = 0; k < p->cfg.kept; k++)
		memcpy(y + visible[k] * numbers, x + visible[k] * numbers, (size_t)numbers * sizeof *y);
	lwm_patches_join(g, y, sheet + clip);
	for (int64_t t = 0; t < p->cfg.tokens; t++)
		if (seen < p->cfg.kept && visible[seen] == t)
			seen++;
		else
			memcpy(y + t * numbers, predicted + (t - seen) * numbers, (size_t)numbers * sizeof *y);
	if (p->set->targets != PLAIN)
		lwm_patches_restore(g, x, y);
	for (int64_t k = 0; k < p->cfg.kept; k++)
		memcpy(y + visible[k] * numbers, x + visible[k] * numbers, (size_t)numbers * sizeof *y);
	lwm_patches_join(g, y, sheet + 2 * clip);
}

/* The first n held-out clips; predicted: room for those of a pass. */
static int show_clips(struct hiding *p, struct lwm_supply *w, float *predicted, uint8_t *sheet, int64_t n, struct lwm_err *e)
{
	int64_t most = run_of(&p->base).clips, hidden = (p->cfg.tokens - p->cfg.kept) * p->cfg.trunk.input_dim;
	int64_t clip = p->clips.grid.frames * p->clips.cache.one;

	for (int64_t at = 0; at < n; at += most) {
		struct lwm_masked_batch b = { .clips = n - at < most ? n - at : most, .patches = p->patches, .targets = p->targets,
					      .visible = p->visible, .predicted = predicted };
		struct lwm_masked_stats st = { 0 };

		for (int64_t i = 0; i < b.clips; i++)
			take_clip(p, i, EVAL_STEP, at + i, true);
		LWM_TRY(lwm_masked_step(p->net, &b, w, &st, e));
		for (int64_t i = 0; i < b.clips; i++)
			show_clip(p, i, predicted + i * hidden, sheet + 3 * (at + i) * clip);
	}
	return 0;
}

static int sample_objective(struct lwm_objective *o, int64_t step, struct lwm_supply *w, struct lwm_samples *made,
			    struct lwm_err *e)
{
	struct hiding *p = self(o);
	const struct lwm_patch_grid *g = &p->clips.grid;
	int64_t n = lwm_clips_to_show(&p->clips, o), hidden = (p->cfg.tokens - p->cfg.kept) * p->cfg.trunk.input_dim;
	uint8_t *sheet = malloc((size_t)(3 * n * g->frames * p->clips.cache.one));
	float *predicted = malloc((size_t)(run_of(o).clips * hidden) * sizeof *predicted);
	int rc = lwm_supply_agree(w, sheet && predicted ? 0 : lwm_fail_memory(e, "samples"), e);

	(void)step; /* the same places are hidden every time */
	if (rc == 0)
		rc = show_clips(p, w, predicted, sheet, n, e);
	if (rc == 0)
		rc = lwm_samples_sheet(made, sheet, 3 * n, g->frames, g->side, g->side, e);
	lwm_str_printf(&made->what, "%s clips: as they are; what is seen of them; what the model makes of the rest%s",
		       p->clips.held ? "held-out" : "training",
		       p->set->targets == NORMALISED ? ", with the mean and deviation that each patch really has" : "");
	free(sheet);
	free(predicted);
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

static double render(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json)
{
	double n = sums[S_PATCHES] > 0 ? sums[S_PATCHES] : 1, loss = sums[S_LOSS] / n;

	lwm_str_printf(json, ",\"clips\":%.0f,\"hidden\":%.0f", sums[S_CLIPS], sums[S_PATCHES]);
	if (self(o)->set->targets == PLAIN) /* pixels go from -1 to 1 */
		put(json, "psnr", lwm_psnr(loss));
	if (self(o)->cfg.codes) {
		put(json, "accuracy", sums[S_HITS] / n);
		put(json, "perplexity", exp(loss));
		if (eval)
			put(json, "unigram", sums[S_UNIGRAM] / n);
	}
	if (eval)
		lwm_str_printf(json, ",\"held_out\":%s", self(o)->clips.held ? "true" : "false");
	return loss;
}

static void close_objective(struct lwm_objective *o)
{
	struct hiding *p = self(o);

	lwm_masked_free(p->net);
	lwm_latents_release(&p->latents);
	lwm_clips_release(&p->clips);
	free(p->unigram);
	free(p->codes);
	free(p->patches);
	free(p->targets);
	free(p->visible);
}

const struct lwm_objective_type lwm_objective_masked = {
	.kind = "trunk",
	.unit = "clip",
	.holds_out = true,
	.by_group = true,
	.settings = settings,
	.settings_size = sizeof(struct masking),
	.size = sizeof(struct hiding),
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
