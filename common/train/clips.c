/* Clips of patches: which there are, which of them a step sees, and the trunk they go through. */
#include "common/train/clips.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/media/frames.h"
#include "common/model/llama_json.h"
#include "common/train/next_token_int.h"

struct lwm_patch_grid lwm_clips_grid(const struct lwm_stage *s)
{
	return (struct lwm_patch_grid){ .frames = s->frames.clip, .side = s->frames.size, .patch_frames = s->frames.patch_frames,
					.patch = s->frames.patch };
}

static int check_ranks(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	int ranks = lwm_mesh_ranks(m, LWM_DATA), all = 1;

	for (int a = 0; a < LWM_AXES; a++)
		all *= m->dim[a];
	if (all != ranks)
		return lwm_fail(e, LWM_ECONFIG, "mesh_dim '%s': clips train on data ranks only (dp, fsdp)", s->mesh_dim);
	if (s->frames.batch % ranks)
		return lwm_fail(e, LWM_ECONFIG, "--batch-clips %" PRId64 " do not divide among %d ranks", s->frames.batch, ranks);
	return 0;
}

int lwm_clips_check(const struct lwm_stage *s, const struct lwm_mesh *m, struct lwm_err *e)
{
	const struct lwm_stage_frames *f = &s->frames;
	struct lwm_llama_cfg c;

	if (f->size % f->patch)
		return lwm_fail(e, LWM_ECONFIG, "--frame-size %" PRId64 " is not a multiple of --patch-size %" PRId64, f->size, f->patch);
	if (f->clip % f->patch_frames)
		return lwm_fail(e, LWM_ECONFIG, "--clip-frames %" PRId64 " is not a multiple of --patch-frames %" PRId64, f->clip,
				f->patch_frames);
	LWM_TRY(check_ranks(s, m, e));
	return lwm_clips_trunk(&c, s, e);
}

int64_t lwm_clips_share(const struct lwm_objective *o)
{
	return o->stage->frames.batch / lwm_mesh_ranks(o->mesh, LWM_DATA);
}

int lwm_clips_trunk(struct lwm_llama_cfg *c, const struct lwm_stage *s, struct lwm_err *e)
{
	struct lwm_patch_grid g = lwm_clips_grid(s);

	LWM_TRY(lwm_nt_shape(c, s, lwm_next_token_of(s), e));
	c->vocab_text = c->vision_rows = c->vision_codes = 0;
	c->tie_embeddings = false;
	c->input_dim = lwm_patch_numbers(&g);
	c->max_seq = lwm_patch_tokens(&g);
	return lwm_llama_check(c, e);
}

struct lwm_llama_run lwm_clips_run(const struct lwm_stage *s)
{
	const struct lwm_next_token *set = lwm_next_token_of(s);

	return (struct lwm_llama_run){ .train = true, .recompute = !set->no_recompute, .offload = set->offload == LWM_OFFLOAD_TRUE,
				       .head_groups = set->head_groups, .keep_bf16 = set->kept == LWM_KEPT_BF16,
				       .mlp_chunk = set->mlp_chunk };
}

/* ---- media ---- */

static int find_media(struct lwm_objective *o, const struct lwm_paths *from, struct lwm_paths *out, struct lwm_err *e)
{
	for (int64_t i = 0; i < from->n; i++)
		LWM_TRY(lwm_objective_absent(o, lwm_paths_expand(out, from->v[i], lwm_media_suffixes, e), e));
	return 0;
}

int lwm_clips_find(struct lwm_clips *c, struct lwm_objective *o, struct lwm_err *e)
{
	c->grid = lwm_clips_grid(o->stage);
	LWM_TRY(find_media(o, &o->stage->data, &c->media, e));
	LWM_TRY(find_media(o, &o->stage->eval_data, &c->held_media, e));
	return lwm_frame_check_copies(&c->held_media, e);
}

static struct lwm_frame_source source_of(const struct lwm_clips *c, const struct lwm_stage *s)
{
	const struct lwm_stage_frames *f = &s->frames;

	return (struct lwm_frame_source){ .inputs = &c->media, .eval_inputs = c->held_media.n ? &c->held_media : NULL,
					  .holdout = f->holdout, .fps = f->fps, .width = f->size, .height = f->size,
					  .max_pixels = f->max_pixels, .cache_bytes = f->cache_mib << 20 };
}

int lwm_clips_bytes(const struct lwm_clips *c, const struct lwm_objective *o, int64_t *bytes, struct lwm_err *e)
{
	struct lwm_frame_source how = source_of(c, o->stage);
	const struct lwm_paths *from[] = { &c->media, &c->held_media };
	double one = (double)(how.width * how.height * 3), all = 0, most = (double)how.cache_bytes;

	for (int i = 0; i < 2; i++) {
		double frames;

		LWM_TRY(lwm_frame_count(from[i], &how, &frames, e));
		all = frames < 0 || all + frames * one > most ? most : all + frames * one;
	}
	*bytes = (int64_t)(all + all / one / (double)c->grid.frames * (double)sizeof *c->first);
	return 0;
}

/* All clips of one medium. */
static int cut_medium(struct lwm_clips *c, const struct lwm_clip *m, bool held, struct lwm_err *e)
{
	int64_t n = m->frames / c->grid.frames;

	if (n == 0)
		return lwm_fail(e, LWM_ECONFIG, "%s: has %" PRId64 " frames, a clip is %" PRId64 " (--clip-frames)", m->path, m->frames,
				c->grid.frames);
	for (int64_t i = 0; i < n; i++)
		c->first[c->n + c->held + i] = m->first + i * c->grid.frames;
	*(held ? &c->held : &c->n) += n;
	return 0;
}

int lwm_clips_load(struct lwm_clips *c, struct lwm_objective *o, struct lwm_err *e)
{
	struct lwm_frame_source how = source_of(c, o->stage);

	LWM_TRY(lwm_frame_cache_fill(&c->cache, &how, e));
	c->first = malloc((size_t)((c->cache.n + c->cache.held) / c->grid.frames + 1) * sizeof *c->first);
	if (!c->first)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a list of clips");
	for (int64_t i = 0; i < c->cache.clips; i++)
		LWM_TRY(cut_medium(c, &c->cache.clip[i], i >= c->cache.train_clips, e));
	if (c->n < o->stage->frames.batch)
		return lwm_fail(e, LWM_ECONFIG, "--batch-clips %" PRId64 ", but there are %" PRId64 " clips to train on: a step takes "
				"each once", o->stage->frames.batch, c->n);
	memcpy(o->data, c->cache.content.hex, sizeof o->data);
	return 0;
}

const uint8_t *lwm_clips_at(const struct lwm_clips *c, const struct lwm_stage *s, int64_t step, int64_t i)
{
	int64_t steps = c->n / s->frames.batch, epoch = step / steps, at = step % steps * s->frames.batch + i;

	at = lwm_rng_permute((uint64_t)s->seed, LWM_RNG_ORDER, (uint64_t)epoch, c->n, at);
	return c->cache.frames + c->first[at] * c->cache.one;
}

int64_t lwm_clips_to_judge(const struct lwm_clips *c)
{
	return c->held ? c->held : c->n;
}

void lwm_clips_deal(const struct lwm_clips *c, const struct lwm_objective *o, int64_t *first, int64_t *end)
{
	int64_t have = lwm_clips_to_judge(c), want = o->stage->eval_rows < have ? o->stage->eval_rows : have;
	int64_t ranks = lwm_mesh_ranks(o->mesh, LWM_DATA), r = lwm_mesh_rank(o->mesh, LWM_DATA);

	*first = want * r / ranks;
	*end = want * (r + 1) / ranks;
}

int64_t lwm_clips_passes(const struct lwm_clips *c, const struct lwm_objective *o, int64_t most)
{
	int64_t have = lwm_clips_to_judge(c), want = o->stage->eval_rows < have ? o->stage->eval_rows : have;
	int64_t ranks = lwm_mesh_ranks(o->mesh, LWM_DATA), n = (want + ranks - 1) / ranks;

	return (n + most - 1) / most;
}

int64_t lwm_clips_to_show(const struct lwm_clips *c, const struct lwm_objective *o)
{
	int64_t have = lwm_clips_to_judge(c);

	return o->stage->samples < have ? o->stage->samples : have;
}

const uint8_t *lwm_clips_held(const struct lwm_clips *c, int64_t i)
{
	return c->cache.frames + c->first[(c->held ? c->n : 0) + i] * c->cache.one;
}

void lwm_clips_release(struct lwm_clips *c)
{
	lwm_frame_cache_release(&c->cache);
	lwm_paths_release(&c->media);
	lwm_paths_release(&c->held_media);
	free(c->first);
	c->first = NULL;
}

int lwm_clips_config(json_t **out, const char *objective, const struct lwm_llama_cfg *c, const struct lwm_stage *s,
		     struct lwm_err *e)
{
	const struct lwm_stage_frames *f = &s->frames;
	json_t *grid = json_pack("{s:s s:I s:I s:I s:I}", "objective", objective, "frame_size", (json_int_t)f->size,
				 "clip_frames", (json_int_t)f->clip, "patch_size", (json_int_t)f->patch,
				 "patch_frames", (json_int_t)f->patch_frames);
	int rc = grid ? lwm_trunk_to_json(c, out, e) : lwm_fail(e, LWM_EMEMORY, "out of memory for a model configuration");

	if (rc == 0 && json_object_set(*out, "lwm_clips", grid))
		rc = lwm_fail(e, LWM_EMEMORY, "out of memory for a model configuration");
	json_decref(grid);
	return rc;
}
