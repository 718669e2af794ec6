/* The objective reconstruction: trains the VQGAN on frames. Its settings, its data, its sizes; recon.h does the steps. Every rank
 * decodes all media into its own cache and takes its share of the frames of each step. Weights stay fp32. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/media/frames.h"
#include "common/train/frame_cache.h"
#include "common/train/objective.h"
#include "common/train/perceptual_file.h"
#include "common/train/recon.h"

/* Places in the sums. */
enum { S_FRAMES, S_LOSS, S_L1, S_L2, S_VQ, S_USED, S_USERS, S_PERCEPTUAL, S_JUDGED, S_HINGE, S_FOOLED, S_REAL, S_MADE, S_BALANCE };

struct reconstruction { /* settings */
	/* the model, over the preset (0: the preset's) */
	int64_t resolution, hidden, z_channels, codes, res_blocks, groups;
	const char *channel_mult; /* "1,2,2,4": channels of the levels in units of hidden; NULL: the preset's */
	/* the data: media files or folders of them, and lwm_stage.frames */
	int64_t batch_frames, frames_per_pass; /* frames in a step, all ranks together; in memory at once */
	const char *size, *crop_from;          /* "WxH" or "N": what a step sees, pieces of what; NULL: the resolution, no pieces */
	/* the loss, and the care of the codebook (recon.h) */
	double l1, l2, codebook_weight, commit_weight;
	double perceptual, adversarial;
	int64_t adversarial_start, disc_channels, disc_layers;
	const char *perceptual_net; /* file of that network; NULL: none */
	int64_t quantize_from, revive_every, revive_until, probe_frames; /* steps; frames */
};

#define SET(field, rule, preset, ...) LWM_SETTING(struct reconstruction, field, rule, preset, __VA_ARGS__)

static const struct lwm_setting settings[] = {
	LWM_SECTION("VQGAN"),
	SET(resolution, LWM_MODEL, 0, LWM_OPT_INT(0, "resolution", NULL, 0, 8192, "N", "frame size, over the preset", 0)),
	LWM_SETTING_TEXT(struct reconstruction, channel_mult, LWM_MODEL, NULL,
			 LWM_OPT_STR(0, "channel-mult", NULL, "LIST", "channels of the levels in units of --hidden", 0)),
	SET(hidden, LWM_MODEL, 0, LWM_OPT_INT(0, "hidden", NULL, 0, 4096, "N", "channels of the first level, over the preset", 0)),
	SET(res_blocks, LWM_MODEL, 0, LWM_OPT_INT(0, "res-blocks", NULL, 0, 16, "N", "over the preset", 0)),
	SET(z_channels, LWM_MODEL, 0, LWM_OPT_INT(0, "z-channels", NULL, 0, 4096, "N", "size of a code vector, over the preset", 0)),
	SET(codes, LWM_MODEL, 0, LWM_OPT_INT(0, "codes", NULL, 0, 1 << 20, "N", "rows of the codebook, over the preset", 0)),
	SET(groups, LWM_MODEL, 0, LWM_OPT_INT(0, "groups", NULL, 0, 1024, "N", "of the group norms, over the preset", 0)),
	SET(batch_frames, LWM_FIXED, 16,
	    LWM_OPT_INT(0, "batch-frames", NULL, 1, 1 << 20, "N", "frames in a step, all ranks together", 0)),
	SET(frames_per_pass, LWM_FREE, 16,
	    LWM_OPT_INT(0, "frames-per-pass", NULL, 1, 1 << 20, "N", "frames in memory at once", 0)),
	LWM_SETTING_TEXT(struct reconstruction, size, LWM_FIXED, NULL,
			 LWM_OPT_STR(0, "size", NULL, "WxH", "of the frames that a step sees, or N for N x N; default: the resolution", 0)),
	LWM_SETTING_TEXT(struct reconstruction, crop_from, LWM_FIXED, NULL,
			 LWM_OPT_STR(0, "crop-from", NULL, "WxH", "frames are decoded in this size, and a step sees random pieces", 0)),
	SET(l1, LWM_FIXED, 0.1, LWM_OPT_DOUBLE(0, "l1", NULL, 0, 1e6, "X", "weight of |x - t|", 0)),
	SET(l2, LWM_FIXED, 1, LWM_OPT_DOUBLE(0, "l2", NULL, 0, 1e6, "X", "weight of (x - t)^2", 0)),
	SET(codebook_weight, LWM_FIXED, 0.2,
	    LWM_OPT_DOUBLE(0, "codebook-weight", NULL, 0, 1e6, "X", "pulls codes to latents", 0)),
	SET(commit_weight, LWM_FIXED, 0.02,
	    LWM_OPT_DOUBLE(0, "commit-weight", NULL, 0, 1e6, "X", "pulls latents to codes", 0)),
	SET(perceptual, LWM_FIXED, 0,
	    LWM_OPT_DOUBLE(0, "perceptual", NULL, 0, 1e6, "X", "weight of LPIPS, the distance in features of --perceptual-net", 0)),
	LWM_SETTING_TEXT(struct reconstruction, perceptual_net, LWM_UNRECORDED, NULL, /* its hash is */
			 LWM_OPT_STR(0, "perceptual-net", NULL, "FILE",
				     "safetensors: features.N of a VGG as torchvision, linN.model.1 as LPIPS", 0)),
	SET(adversarial, LWM_FIXED, 0,
	    LWM_OPT_DOUBLE(0, "adversarial", NULL, 0, 1e6, "X",
			   "weight of a patch discriminator's verdict, times |gradient of the loss| / |its gradient|; 0: none", 0)),
	SET(adversarial_start, LWM_FIXED, 0,
	    LWM_OPT_INT(0, "adversarial-start", NULL, 0, 1 << 30, "N", "the step from which it is trained and heard", 0)),
	SET(disc_channels, LWM_FIXED, 64, LWM_OPT_INT(0, "disc-channels", NULL, 4, 1024, "N", "of its first layer, a multiple of 4", 0)),
	SET(disc_layers, LWM_FIXED, 3, LWM_OPT_INT(0, "disc-layers", NULL, 1, 6, "N", "convolutions of it that halve frames", 0)),
	SET(quantize_from, LWM_FIXED, 0,
	    LWM_OPT_INT(0, "quantize-from", NULL, 0, 1 << 30, "N", "before this step a plain autoencoder learns", 0)),
	SET(probe_frames, LWM_FIXED, 128,
	    LWM_OPT_INT(0, "probe-frames", NULL, 0, 1 << 20, "N",
			"random frames that make the codebook at that step; 0: it stays as drawn", 0)),
	SET(revive_every, LWM_FIXED, 50,
	    LWM_OPT_INT(0, "revive-every", NULL, 0, 1 << 30, "N", "steps; codes that no probe frame uses are drawn anew; 0: never", 0)),
	SET(revive_until, LWM_FIXED, 1000,
	    LWM_OPT_INT(0, "revive-until", NULL, 0, 1 << 30, "N", "last step that draws codes anew", 0)),
	LWM_SETTINGS_END
};

struct recon {
	struct lwm_objective base;
	const struct reconstruction *set;
	struct lwm_recon_cfg cfg;
	struct lwm_paths media, held_out;
	struct lwm_perceptual_cfg features; /* no convolutions: no perceptual loss */
	struct lwm_perceptual *perceptual;
	struct lwm_recon *net;
};

static struct recon *recon_of(struct lwm_objective *o)
{
	return (struct recon *)o;
}

/* "1,2,2,4": channels of the levels. */
static int parse_mult(struct lwm_vqgan_cfg *c, const char *text, struct lwm_err *e)
{
	char copy[64], *save = NULL;
	c->levels = 0;
	if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy)
		return lwm_fail(e, LWM_EUSAGE, "--channel-mult: '%s' is too long", text);
	for (char *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		int64_t v;
		LWM_TRY(lwm_parse_int(p, 1, 64, &v, "--channel-mult", e));
		if (c->levels == LWM_VQGAN_MAX_LEVELS)
			return lwm_fail(e, LWM_EUSAGE, "--channel-mult: more than %d levels", LWM_VQGAN_MAX_LEVELS);
		c->mult[c->levels++] = (int32_t)v;
	}
	return 0;
}

/* The sizes of frames, which the shape of the model must fit. */
static int choose_sizes(struct lwm_recon_cfg *c, const struct reconstruction *set, struct lwm_err *e)
{
	int32_t f = lwm_vqgan_factor(&c->model);

	c->width = c->height = c->model.resolution;
	LWM_TRY(lwm_parse_size(set->size, 8192, &c->width, &c->height, "--size", e));
	c->from_width = c->width;
	c->from_height = c->height;
	LWM_TRY(lwm_parse_size(set->crop_from, 8192, &c->from_width, &c->from_height, "--crop-from", e));
	if (c->width % f || c->height % f)
		return lwm_fail(e, LWM_ECONFIG, "frames of %" PRId64 " x %" PRId64 " (--size, --resolution): this VQGAN takes multiples of %d",
				c->width, c->height, f);
	if (c->from_width >= c->width && c->from_height >= c->height)
		return 0;
	return lwm_fail(e, LWM_ECONFIG, "--crop-from %s: has no pieces of %" PRId64 " x %" PRId64, set->crop_from, c->width, c->height);
}

static void override_size(int32_t *dst, int64_t value)
{
	if (value)
		*dst = (int32_t)value;
}

/* The preset, with what the settings say over it. */
static int choose_shape(struct lwm_vqgan_cfg *m, const struct lwm_stage *s, struct lwm_err *e)
{
	const struct reconstruction *set = lwm_settings_of(s, settings);
	LWM_TRY(lwm_vqgan_preset(m, s->model, e));
	if (set->channel_mult)
		LWM_TRY(parse_mult(m, set->channel_mult, e));
	override_size(&m->resolution, set->resolution);
	override_size(&m->hidden, set->hidden);
	override_size(&m->res_blocks, set->res_blocks);
	override_size(&m->z_channels, set->z_channels);
	override_size(&m->embed_dim, set->z_channels);
	override_size(&m->num_embeddings, set->codes);
	override_size(&m->groups, set->groups);
	return lwm_vqgan_check(m, e);
}

static struct lwm_patchgan_cfg judge_of(const struct reconstruction *set)
{
	return (struct lwm_patchgan_cfg){ (int32_t)set->disc_channels, (int32_t)set->disc_layers };
}

static int check_settings(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	const struct reconstruction *set = lwm_settings_of(s, settings);
	struct lwm_recon_cfg c = { 0 };
	int ranks = lwm_mesh_ranks(m, LWM_DATA), all = 1;
	for (int a = 0; a < LWM_AXES; a++)
		all *= m->dim[a];
	if (all != ranks)
		return lwm_fail(e, LWM_ECONFIG, "mesh_dim '%s': a VQGAN trains on data ranks only (dp, fsdp)", s->mesh_dim);
	if ((set->perceptual > 0) != (set->perceptual_net != NULL))
		return lwm_fail(e, LWM_EUSAGE, set->perceptual_net ? "--perceptual-net: no --perceptual weight makes use of it" :
			"--perceptual wants the network whose features it compares: --perceptual-net FILE");
	if (set->batch_frames % ranks)
		return lwm_fail(e, LWM_ECONFIG, "--batch-frames %" PRId64 " do not divide among %d ranks", set->batch_frames, ranks);
	LWM_TRY(choose_shape(&c.model, s, e));
	LWM_TRY(choose_sizes(&c, set, e));
	if (!(set->adversarial > 0))
		return 0;
	c.judge = judge_of(set);
	return lwm_patchgan_check(&c.judge, c.height, c.width, e);
}

static int fill_config(struct recon *r, struct lwm_err *e)
{
	const struct reconstruction *set = r->set;
	struct lwm_vqgan_cfg *m = &r->cfg.model;
	LWM_TRY(choose_shape(m, r->base.stage, e));
	LWM_TRY(choose_sizes(&r->cfg, set, e));
	r->cfg.loss = (struct lwm_vqgan_loss){ .l1 = (float)set->l1, .l2 = (float)set->l2,
					       .codebook = (float)set->codebook_weight,
					       .commit = (float)set->commit_weight,
					       .perceptual = (float)set->perceptual };
	r->cfg.adversarial = (float)set->adversarial;
	r->cfg.adversarial_from = set->adversarial_start;
	r->cfg.judge = judge_of(set);
	r->cfg.ranks = r->base.mesh->comm[LWM_GRAD];
	r->cfg.inputs = &r->media;
	r->cfg.eval_inputs = r->held_out.n ? &r->held_out : NULL;
	r->cfg.holdout = r->base.stage->frames.holdout;
	r->cfg.fps = r->base.stage->frames.fps;
	r->cfg.max_pixels = r->base.stage->frames.max_pixels;
	r->cfg.cache_bytes = r->base.stage->frames.cache_mib << 20;
	r->cfg.quantize_from = set->quantize_from;
	r->cfg.revive_every = set->revive_every;
	r->cfg.revive_until = set->revive_until;
	r->cfg.probe_frames = set->probe_frames;
	r->cfg.batch = set->batch_frames;
	r->cfg.frames_per_pass = set->frames_per_pass;
	r->cfg.seed = (uint64_t)r->base.stage->seed;
	return lwm_vqgan_cfg_to_json(m, &r->base.config, e);
}

/* Weights and gradient where they begin: all of them lie on every rank. */
static int find_weights(const struct lwm_objective *o, struct lwm_supply *w, struct lwm_supplied *at, struct lwm_err *e)
{
	struct lwm_group first = lwm_tensors_group(&o->tensors, 0);

	LWM_TRY(lwm_supply_acquire(w, &first, LWM_WEIGHTS | LWM_GRADS, at, 0, e));
	lwm_supply_release(w, &first);
	return 0;
}

/* The network, and its name for the record. */
static int attach_perceptual(struct recon *r, struct lwm_err *e)
{
	struct lwm_perceptual_file f;
	int rc;

	if (!r->features.convs)
		return 0;
	rc = lwm_perceptual_read(&f, r->set->perceptual_net, true, e);
	if (rc == 0)
		rc = lwm_perceptual_new(&r->perceptual, r->base.dev, &f.cfg, f.values, r->cfg.model.unit_pixels, e);
	memcpy(r->base.network, f.hash, sizeof r->base.network);
	r->cfg.loss.features = r->perceptual;
	lwm_perceptual_release(&f);
	return rc;
}

static int recon_attach(struct lwm_objective *o, struct lwm_supply *w, struct lwm_err *e)
{
	struct lwm_supplied at;

	LWM_TRY(find_weights(o, w, &at, e));
	LWM_TRY(attach_perceptual(recon_of(o), e));
	LWM_TRY(lwm_recon_new(&recon_of(o)->net, o->dev, &recon_of(o)->cfg, (float *)(uintptr_t)at.w, e));
	memcpy(o->data, lwm_recon_content(recon_of(o)->net)->hex, sizeof o->data);
	return 0;
}

static void add_stats(double *sums, const struct lwm_recon_stats *st)
{
	sums[S_FRAMES] += st->sum.frames;
	sums[S_LOSS] += st->sum.loss;
	sums[S_L1] += st->sum.l1;
	sums[S_L2] += st->sum.l2;
	sums[S_VQ] += st->sum.vq;
	sums[S_PERCEPTUAL] += st->sum.perceptual;
	sums[S_JUDGED] += st->sum.judged;
	sums[S_HINGE] += st->sum.hinge;
	sums[S_FOOLED] += st->sum.fooled;
	sums[S_REAL] += st->sum.real;
	sums[S_MADE] += st->sum.made;
	sums[S_BALANCE] += st->sum.balance;
	sums[S_USED] += (double)st->codes_used;
	sums[S_USERS] += 1;
}

static int recon_step(struct lwm_objective *o, int64_t step, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	struct lwm_comm *g = o->mesh->comm[LWM_GRAD];
	struct lwm_recon_stats st = { 0 };
	struct lwm_supplied at;

	LWM_TRY(find_weights(o, w, &at, e));
	LWM_TRY(lwm_recon_prepare(recon_of(o)->net, step, e));
	LWM_TRY(lwm_recon_step(recon_of(o)->net, step, lwm_comm_rank(g), lwm_comm_size(g), at.g, &st, e));
	add_stats(sums, &st);
	return 0;
}

static int64_t smaller_of(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* A rank's frames of a step. */
static int64_t share_of(const struct recon *r)
{
	return r->set->batch_frames / lwm_mesh_ranks(r->base.mesh, LWM_DATA);
}

/* Every rank sees the same held-out frames, so only one counts. */
static int recon_eval(struct lwm_objective *o, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	struct lwm_recon_stats st = { 0 };
	(void)w; /* the net has them from attach */
	if (lwm_comm_rank(o->mesh->comm[LWM_GRAD]))
		return 0;
	LWM_TRY(lwm_recon_eval(recon_of(o)->net, o->stage->eval_rows, share_of(recon_of(o)), &st, e));
	add_stats(sums, &st);
	return 0;
}

/* Every rank has all weights, and shows by itself. */
static int recon_sample(struct lwm_objective *o, int64_t step, struct lwm_supply *w, struct lwm_samples *made, struct lwm_err *e)
{
	struct recon *r = recon_of(o);
	const struct lwm_recon_cfg *c = &r->cfg;
	bool held = lwm_recon_frames(r->net, true) > 0;
	int64_t n = smaller_of(o->stage->samples, lwm_recon_frames(r->net, held));
	uint8_t *sheet = malloc((size_t)(2 * n * c->width * c->height * 3));
	int rc = sheet ? 0 : lwm_fail_memory(e, "samples");

	(void)w; /* the net has them from attach */
	if (rc == 0)
		rc = lwm_recon_show(r->net, step, n, share_of(r), sheet, e);
	if (rc == 0)
		rc = lwm_samples_sheet(made, sheet, 2, n, c->width, c->height, e);
	lwm_str_printf(&made->what, "%s frames: as they are; below, what %s", held ? "held-out" : "training",
		       step > c->quantize_from ? "their codes give back" : "their latents give back, as there are no codes yet");
	free(sheet);
	return rc;
}

/* lwm_recon_step already divides by the batch. */
static double recon_norm(const double sums[LWM_SUMS])
{
	(void)sums;
	return 1;
}

static void render_number(struct lwm_str *json, const char *key, double v, int digits)
{
	lwm_str_printf(json, ",\"%s\":", key);
	lwm_str_number(json, v, digits);
}

/* What the discriminator said of the frames it was asked about. */
static void render_judge(const double sums[LWM_SUMS], bool eval, struct lwm_str *json)
{
	static const struct { const char *key; int at; } part[] = {
		{ "disc_loss", S_HINGE }, { "gen_loss", S_FOOLED }, { "logits_real", S_REAL }, { "logits_made", S_MADE },
		{ "gen_weight", S_BALANCE },
	};
	size_t n = sizeof part / sizeof *part - (eval ? 1 : 0);
	for (size_t i = 0; i < n && sums[S_JUDGED] > 0; i++)
		render_number(json, part[i].key, sums[part[i].at] / sums[S_JUDGED], 9);
}

static double recon_render(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json)
{
	double n = sums[S_FRAMES] > 0 ? sums[S_FRAMES] : 1;

	lwm_str_printf(json, ",\"frames\":%.0f", sums[S_FRAMES]);
	render_number(json, "l1", sums[S_L1] / n, 9);
	render_number(json, "l2", sums[S_L2] / n, 9);
	render_number(json, "vq", sums[S_VQ] / n, 9);
	render_number(json, "psnr", lwm_psnr(sums[S_L2] / n), 6);
	if (recon_of(o)->features.convs)
		render_number(json, "perceptual", sums[S_PERCEPTUAL] / n, 9);
	render_judge(sums, eval, json);
	lwm_str_printf(json, ",\"codes_used\":%.0f", sums[S_USERS] > 0 ? sums[S_USED] / sums[S_USERS] : 0);
	return sums[S_LOSS] / n;
}

static void close_objective(struct lwm_objective *o)
{
	struct recon *r = recon_of(o);
	lwm_recon_free(r->net);
	lwm_perceptual_free(r->perceptual);
	lwm_paths_release(&r->media);
	lwm_paths_release(&r->held_out);
}

static int find_media(struct recon *r, const struct lwm_paths *from, struct lwm_paths *out, struct lwm_err *e)
{
	for (int64_t i = 0; i < from->n; i++)
		LWM_TRY(lwm_objective_absent(&r->base, lwm_paths_expand(out, from->v[i], lwm_media_suffixes, e), e));
	return 0;
}

/* The largest pass is one of training, of as many held-out frames, or of the probe. */
static void size_memory(struct recon *r)
{
	const struct lwm_stage *s = r->base.stage;
	const struct reconstruction *set = r->set;
	const struct lwm_vqgan_cfg *m = &r->cfg.model;
	int64_t n = smaller_of(set->frames_per_pass, share_of(r)), h = r->cfg.height, w = r->cfg.width;
	int64_t probe = smaller_of(set->frames_per_pass, set->probe_frames);
	int64_t train = lwm_vqgan_memory(m, n, h, w, true);
	int64_t look = probe ? lwm_vqgan_memory(m, probe, h, w, false) : 0;
	r->base.memory_bytes = train > look ? train : look;
	if (r->features.convs)
		r->base.memory_bytes += lwm_perceptual_memory(&r->features, n, h, w, LK_F32);
	if (r->cfg.adversarial > 0)
		r->base.memory_bytes += lwm_patchgan_memory(&r->cfg.judge, n, h, w, LK_F32) +
					lwm_vqgan_critic_memory(m, share_of(r), h, w, LK_F32);
	if (s->planning)
		r->base.own_bytes = lwm_vqgan_own(r->base.dev, m, n, h, w, true);
	if (s->planning && r->features.convs)
		r->base.own_bytes += lwm_perceptual_own(r->base.dev, &r->features, n, h, w);
	if (s->planning && r->cfg.adversarial > 0)
		r->base.own_bytes += lwm_patchgan_own(r->base.dev, &r->cfg.judge, n, h, w);
}

/* The cache of frames, as many as there are or fit, and what goes with a batch and with the probe (lwm_recon_new). */
static int size_arrays(struct recon *r, struct lwm_err *e)
{
	const struct lwm_recon_cfg *c = &r->cfg;
	int64_t one = c->width * c->height * 3, kept = c->from_width * c->from_height * 3;
	int64_t codes = lwm_vqgan_codes(&c->model, c->height, c->width);
	int64_t most = c->batch > c->probe_frames ? c->batch : c->probe_frames;
	double frames;
	const struct lwm_frame_source how = { .fps = c->fps, .width = c->from_width, .height = c->from_height,
					      .max_pixels = c->max_pixels };
	LWM_TRY(lwm_frame_count(&r->media, &how, &frames, e));
	double cache = frames < 0 || frames * (double)kept > (double)c->cache_bytes ? (double)c->cache_bytes :
										      frames * (double)kept;
	r->base.array_bytes = (int64_t)cache + most * (one + codes * 4) + c->probe_frames * codes * (c->model.embed_dim + 1) * 4;
	return 0;
}

/* What the care of the codebook writes (recon.h) must be meant to change. */
static int check_care(const struct recon *r, struct lwm_err *e)
{
	static const char *const written[] = { "quantize.embedding.weight", "quant_conv.weight", "quant_conv.bias" };
	for (size_t i = 0; r->set->probe_frames && i < sizeof written / sizeof *written; i++) {
		const struct lwm_tensor *t = lwm_tensors_find(&r->base.tensors, written[i]);
		if (t && !t->trainable)
			return lwm_fail(e, LWM_ECONFIG, "'%s' is to be left alone, but --probe-frames %" PRId64 " make it: say "
					"--probe-frames 0 too", written[i], r->set->probe_frames);
	}
	return 0;
}

/* What the network is; that it can be had is known before anything is decoded. */
static int look_at_network(struct recon *r, struct lwm_err *e)
{
	struct lwm_perceptual_file f;
	int rc;

	if (!r->set->perceptual_net)
		return 0;
	rc = lwm_perceptual_read(&f, r->set->perceptual_net, false, e);
	r->features = f.cfg;
	lwm_perceptual_release(&f);
	if (rc == 0)
		return lwm_perceptual_fits(&r->features, r->cfg.height, r->cfg.width, e);
	r->features.convs = 0;
	return lwm_objective_absent(&r->base, rc, e);
}

static int open_objective(struct lwm_objective *o, struct lwm_err *e)
{
	struct recon *r = recon_of(o);
	const struct lwm_stage *s = o->stage;
	r->set = lwm_settings_of(s, settings);
	o->dtype = LK_F32;
	LWM_TRY(find_media(r, &s->data, &r->media, e));
	LWM_TRY(find_media(r, &s->eval_data, &r->held_out, e));
	LWM_TRY(lwm_frame_check_copies(&r->held_out, e));
	LWM_TRY(fill_config(r, e));
	LWM_TRY(look_at_network(r, e));
	LWM_TRY(lwm_vqgan_tensors(&o->tensors, &r->cfg.model, e));
	if (r->cfg.adversarial > 0)
		LWM_TRY(lwm_patchgan_tensors(&o->tensors, &r->cfg.judge, e));
	LWM_TRY(lwm_objective_localize(o, e));
	LWM_TRY(check_care(r, e));
	o->tokenizer_hash = "";
	o->units_per_step = r->set->batch_frames;
	size_memory(r);
	return s->planning ? size_arrays(r, e) : 0;
}

const struct lwm_objective_type lwm_objective_reconstruction = {
	.kind = "vqgan",
	.unit = "frame",
	.holds_out = true,
	.settings = settings,
	.settings_size = sizeof(struct reconstruction),
	.size = sizeof(struct recon),
	.check = check_settings,
	.open = open_objective,
	.attach = recon_attach,
	.step = recon_step,
	.eval = recon_eval,
	.sample = recon_sample,
	.norm = recon_norm,
	.render = recon_render,
	.close = close_objective,
};
