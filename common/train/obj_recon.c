/* Reconstruction: trains the VQGAN on frames (common/train/recon.h does the work). Weights stay fp32. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/media/frames.h"
#include "common/train/objective.h"
#include "common/train/recon.h"

enum { S_FRAMES, S_LOSS, S_L1, S_L2, S_VQ, S_USED, S_USERS };

struct recon {
	struct lwm_objective base;
	struct lwm_recon_cfg cfg;
	struct lwm_paths media, held_out;
	struct lwm_recon *net;
};

static struct recon *self(struct lwm_objective *o)
{
	return (struct recon *)o;
}

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

static void override(int32_t *dst, int64_t value)
{
	if (value)
		*dst = (int32_t)value;
}

static int shape(struct lwm_vqgan_cfg *m, const struct lwm_stage *s, struct lwm_err *e)
{
	LWM_TRY(lwm_vqgan_preset(m, s->model, e));
	if (s->channel_mult)
		LWM_TRY(parse_mult(m, s->channel_mult, e));
	override(&m->resolution, s->resolution);
	override(&m->hidden, s->hidden);
	override(&m->res_blocks, s->res_blocks);
	override(&m->z_channels, s->z_channels);
	override(&m->embed_dim, s->z_channels);
	override(&m->num_embeddings, s->codes);
	override(&m->groups, s->groups);
	return lwm_vqgan_check(m, e);
}

int lwm_objective_recon_check(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	struct lwm_vqgan_cfg c;
	int ranks = lwm_mesh_ranks(m, LWM_DATA);
	if (m->dim[LWM_SP] > 1 || m->dim[LWM_TP] > 1)
		return lwm_fail(e, LWM_ECONFIG, "mesh_dim '%s': a VQGAN trains on data ranks only (dp, fsdp)", s->mesh_dim);
	if (s->batch_frames % ranks)
		return lwm_fail(e, LWM_ECONFIG, "--batch-frames %" PRId64 " do not divide among %d ranks", s->batch_frames, ranks);
	return shape(&c, s, e);
}

static int configure(struct recon *r, struct lwm_err *e)
{
	const struct lwm_stage *s = r->base.stage;
	struct lwm_vqgan_cfg *m = &r->cfg.model;
	LWM_TRY(shape(m, s, e));
	lwm_recon_defaults(&r->cfg);
	r->cfg.loss = (struct lwm_vqgan_loss){ .l1 = (float)s->l1, .l2 = (float)s->l2,
					       .codebook = (float)s->codebook_weight,
					       .commit = (float)s->commit_weight };
	r->cfg.inputs = &r->media;
	r->cfg.eval_inputs = r->held_out.n ? &r->held_out : NULL;
	r->cfg.holdout = s->holdout;
	r->cfg.fps = s->fps;
	r->cfg.max_pixels = s->max_pixels;
	r->cfg.cache_bytes = s->cache_mib << 20;
	r->cfg.quantize_from = s->quantize_from;
	r->cfg.revive_every = s->revive_every;
	r->cfg.revive_until = s->revive_until;
	r->cfg.probe_frames = s->probe_frames;
	r->cfg.batch = s->batch_frames;
	r->cfg.frames_per_pass = s->frames_per_pass;
	r->cfg.seed = (uint64_t)s->seed;
	return lwm_vqgan_cfg_to_json(m, &r->base.config, e);
}

/* A clip that is held out twice, by way of its folder say, would count twice in every evaluation. */
static int check_copies(const struct lwm_paths *held, struct lwm_err *e)
{
	char **real = calloc((size_t)held->n + 1, sizeof *real);
	int rc = real ? 0 : lwm_fail(e, LWM_EMEMORY, "out of memory for paths");
	for (int64_t i = 0; rc == 0 && i < held->n; i++) {
		real[i] = realpath(held->v[i], NULL); /* NULL: not there, which is told when it is opened */
		for (int64_t k = 0; rc == 0 && real[i] && k < i; k++)
			if (real[k] && strcmp(real[i], real[k]) == 0)
				rc = lwm_fail(e, LWM_ECONFIG, "%s: is held out twice, as %s too: name held-out clips once", held->v[i],
					      held->v[k]);
	}
	for (int64_t i = 0; real && i < held->n; i++)
		free(real[i]);
	free(real);
	return rc;
}

static int recon_attach(struct lwm_objective *o, void *compute, struct lwm_err *e)
{
	LWM_TRY(lwm_recon_new(&self(o)->net, o->dev, &self(o)->cfg, compute, e));
	memcpy(o->data, lwm_recon_content(self(o)->net)->hex, sizeof o->data);
	return 0;
}

static void add(double *sums, const struct lwm_recon_stats *st)
{
	sums[S_FRAMES] += st->sum.frames;
	sums[S_LOSS] += st->sum.loss;
	sums[S_L1] += st->sum.l1;
	sums[S_L2] += st->sum.l2;
	sums[S_VQ] += st->sum.vq;
	sums[S_USED] += (double)st->codes_used;
	sums[S_USERS] += 1;
}

static int recon_step(struct lwm_objective *o, int64_t step, float *grads, double sums[LWM_SUMS], struct lwm_err *e)
{
	struct lwm_comm *g = o->mesh->comm[LWM_GRAD];
	struct lwm_recon_stats st = { 0 };
	LWM_TRY(lwm_recon_prepare(self(o)->net, step, e));
	LWM_TRY(lwm_recon_step(self(o)->net, step, lwm_comm_rank(g), lwm_comm_size(g), grads, &st, e));
	add(sums, &st);
	return 0;
}

/* Every rank sees the same held-out frames, so only one counts. */
static int recon_eval(struct lwm_objective *o, double sums[LWM_SUMS], struct lwm_err *e)
{
	struct lwm_recon_stats st = { 0 };
	if (lwm_comm_rank(o->mesh->comm[LWM_GRAD]))
		return 0;
	LWM_TRY(lwm_recon_eval(self(o)->net, o->stage->eval_rows, &st, e));
	add(sums, &st);
	return 0;
}

/* lwm_recon_step already divides by the batch. */
static double recon_norm(const double sums[LWM_SUMS])
{
	(void)sums;
	return 1;
}

static double recon_render(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json)
{
	double n = sums[S_FRAMES] > 0 ? sums[S_FRAMES] : 1;
	(void)o;
	(void)eval;
	lwm_str_printf(json, ",\"frames\":%.0f,\"l1\":%.9g,\"l2\":%.9g,\"vq\":%.9g,\"psnr\":%.6g,\"codes_used\":%.0f",
		       sums[S_FRAMES], sums[S_L1] / n, sums[S_L2] / n, sums[S_VQ] / n, lwm_psnr(sums[S_L2] / n),
		       sums[S_USERS] > 0 ? sums[S_USED] / sums[S_USERS] : 0);
	return sums[S_LOSS] / n;
}

static void recon_free(struct lwm_objective *o)
{
	struct recon *r = self(o);
	lwm_recon_free(r->net);
	lwm_paths_release(&r->media);
	lwm_paths_release(&r->held_out);
	lwm_tensors_release(&o->tensors);
	json_decref(o->config);
	free(r);
}

static int find_media(struct recon *r, const struct lwm_paths *from, struct lwm_paths *out, struct lwm_err *e)
{
	for (int64_t i = 0; i < from->n; i++)
		LWM_TRY(lwm_objective_absent(&r->base, lwm_paths_expand(out, from->v[i], lwm_media_suffixes, e), e));
	return 0;
}

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* The largest pass is one of training, of held-out frames, which the first rank takes a whole batch at a time, or of the probe. */
static void size_memory(struct recon *r)
{
	const struct lwm_stage *s = r->base.stage;
	const struct lwm_vqgan_cfg *m = &r->cfg.model;
	int ranks = lwm_mesh_ranks(r->base.mesh, LWM_DATA);
	int64_t n = least(s->frames_per_pass, s->eval_rows ? s->batch_frames : s->batch_frames / ranks);
	int64_t probe = least(s->frames_per_pass, s->probe_frames);
	int64_t train = lwm_vqgan_memory(m, n, m->resolution, m->resolution, true);
	int64_t look = probe ? lwm_vqgan_memory(m, probe, m->resolution, m->resolution, false) : 0;
	r->base.memory_bytes = train > look ? train : look;
	if (s->planning)
		r->base.own_bytes = lwm_vqgan_own(r->base.dev, m, n, m->resolution, m->resolution, true);
}

/* Frames of all clips, by the headers of some that are spread over them; -1: they do not tell. */
static int count_frames(struct recon *r, double *frames, struct lwm_err *e)
{
	enum { LOOK_AT = 32 };
	int64_t n = r->media.n, every = (n + LOOK_AT - 1) / LOOK_AT, seen = 0;
	int side = (int)r->cfg.model.resolution;
	struct lwm_frames_opts o = { .fps = r->cfg.fps, .width = side, .height = side, .max_pixels = r->cfg.max_pixels };
	*frames = 0;
	for (int64_t i = 0; i < n; i += every, seen++) {
		struct lwm_frames *f;
		LWM_TRY(lwm_frames_open(&f, r->media.v[i], &o, e));
		int64_t have = lwm_frames_info(f).frames;
		lwm_frames_close(f);
		if (have < 0)
			return *frames = -1, 0;
		*frames += (double)have;
	}
	*frames *= seen ? (double)n / (double)seen : 0;
	return 0;
}

/* The cache of frames, as many as there are or fit, and what goes with a batch and with the probe (lwm_recon_new). */
static int size_arrays(struct recon *r, struct lwm_err *e)
{
	const struct lwm_recon_cfg *c = &r->cfg;
	int64_t side = c->model.resolution, one = side * side * 3, codes = lwm_vqgan_codes(&c->model, side, side);
	int64_t most = c->batch > c->probe_frames ? c->batch : c->probe_frames;
	double frames;
	LWM_TRY(count_frames(r, &frames, e));
	double cache = frames < 0 || frames * (double)one > (double)c->cache_bytes ? (double)c->cache_bytes : frames * (double)one;
	r->base.array_bytes = (int64_t)cache + most * (one + codes * 4) + c->probe_frames * codes * (c->model.embed_dim + 1) * 4;
	return 0;
}

int lwm_objective_recon(struct lwm_objective **out, const struct lwm_stage *s, const struct lwm_mesh *m,
			struct lk_dev *dev, struct lwm_err *e)
{
	static const struct lwm_objective_ops ops = { recon_attach, recon_step, recon_eval, recon_norm,
						      recon_render, NULL,       recon_free };
	struct recon *r = calloc(1, sizeof *r);
	int rc = 0;
	*out = NULL;
	if (!r)
		return lwm_fail(e, LWM_EMEMORY, "out of memory");
	r->base = (struct lwm_objective){ .ops = &ops, .kind = "vqgan", .dev = dev, .stage = s, .mesh = m,
					  .unit = "frame" };
	r->base.dtype = LK_F32;
	LWM_GO(lwm_objective_recon_check(s, m, e));
	LWM_GO(find_media(r, &s->data, &r->media, e));
	LWM_GO(find_media(r, &s->eval_data, &r->held_out, e));
	LWM_GO(check_copies(&r->held_out, e));
	LWM_GO(configure(r, e));
	LWM_GO(lwm_vqgan_tensors(&r->base.tensors, &r->cfg.model, e));
	r->base.tokenizer_hash = "";
	r->base.tokens_per_step = s->batch_frames;
	size_memory(r);
	if (s->planning)
		LWM_GO(size_arrays(r, e));
out:
	if (rc < 0)
		recon_free(&r->base);
	else
		*out = &r->base;
	return rc;
}
