/* roll.c - rounds of frames: each opens a context with the end of the one before, then draws frame by frame (compose.c), with the
 * tokens of an action between them. */
#include "common/infer/roll.h"

#include <inttypes.h>
#include <math.h>

const char *const lwm_guide_overs[] = { "constant", "triangle", NULL };

enum { ROUND_SHIFT = 40 }; /* the number of a round stands above that of the sample */

int lwm_roll_check(const struct lwm_roll *how, int64_t given, struct lwm_err *e)
{
	if (how->rounds < 1 || how->overlap < 1 || how->frames <= how->overlap)
		return lwm_fail(e, LWM_EUSAGE, "rounds of %" PRId64 " frames, %" PRId64 " of them shared: a round shares at least one frame, "
				"and draws at least one", how->frames, how->overlap);
	if (given < 1 || given > how->overlap)
		return lwm_fail(e, LWM_EUSAGE, "%" PRId64 " frames to begin with: a round of %" PRId64 " frames begins with 1 to %" PRId64,
				given, how->frames, how->overlap);
	return 0;
}

int64_t lwm_roll_frames(const struct lwm_roll *how)
{
	return how->rounds * (how->frames - how->overlap) + how->overlap;
}

double lwm_roll_guide(const struct lwm_roll *how, int64_t t)
{
	if (how->over == LWM_GUIDE_CONSTANT || how->frames < 2)
		return how->guide;
	return 1 + (how->guide - 1) * (1 - fabs(2 * (double)t / (double)(how->frames - 1) - 1));
}

int64_t lwm_roll_context(const struct lwm_roll *how, int64_t longest)
{
	return how->head.n + how->frames * (how->frame_codes + 1) + (how->frames - 1) * longest;
}

/* What leads to frame t of the clip in stream s: in stream 1 nobody acts. */
static int add_action(struct lwm_ids *ids, const struct lwm_roll *how, const struct lwm_roll_clip *clip, int64_t t, int s,
		      struct lwm_err *e)
{
	const struct lwm_ids *action = s ? &how->free : &clip->actions[t];

	return lwm_ids_add(ids, action->v, action->n, e);
}

/* All but the last of the ids goes into the cache; the last one is fed with the first draw. */
static int feed(struct lwm_engine *g, struct lwm_frames_streams *st, int s, const struct lwm_ids *ids, struct lwm_err *e)
{
	if (ids->n > 1)
		LWM_TRY(lwm_prefill(g, st->cache[s], ids->v, ids->n - 1, e));
	st->pending[s] = ids->v[ids->n - 1];
	return 0;
}

/* The context of stream s before the first draw of a round that begins with frame `first` and knows `known` frames. */
static int open_context(struct lwm_engine *g, const struct lwm_roll *how, const struct lwm_roll_clip *clip, int64_t first,
			int64_t known, struct lwm_frames_streams *st, int s, struct lwm_err *e)
{
	const struct lwm_llama_cfg *c = lwm_engine_config(g);
	struct lwm_ids ids = { 0 };
	int rc = 0;

	LWM_GO(lwm_ids_add(&ids, how->head.v, how->head.n, e));
	for (int64_t t = 0; t < known; t++) {
		LWM_GO(lwm_frames_ids(&ids, c, clip->codes + (first + t) * how->frame_codes, 1, how->frame_codes, true, e));
		LWM_GO(add_action(&ids, how, clip, first + t + 1, s, e));
	}
	lwm_cache_rewind(st->cache[s], 0);
	rc = feed(g, st, s, &ids, e);
out:
	lwm_ids_release(&ids);
	return rc;
}

struct counted {
	lwm_code_fn *fn;
	void *arg;
	int64_t before; /* codes of the frames before the one being drawn */
};

static int count_on(void *arg, int64_t done, struct lwm_err *e)
{
	const struct counted *c = arg;

	return c->fn ? c->fn(c->arg, c->before + done, e) : 0;
}

/* Draws frame t of a round that begins with frame `first`, and feeds what leads to the one after it, where there is one. */
static int draw_frame(struct lwm_engine *g, const struct lwm_roll *how, const struct lwm_roll_clip *clip, int64_t first, int64_t t,
		      int64_t round, struct lwm_frames_streams *st, struct counted *heard, struct lwm_err *e)
{
	double guide = st->count == 2 ? lwm_roll_guide(how, t) : 1;
	struct lwm_frames_plan one = { how->sampler, how->sampler, guide, guide, clip->sample + ((uint64_t)round << ROUND_SHIFT),
				       how->frame_codes, how->codes, 1, t };
	int rc = lwm_compose_frames(g, st, &one, clip->codes + (first + t) * how->frame_codes, count_on, heard, e);

	heard->before += how->frame_codes;
	for (int s = 0; rc == 0 && s < st->count && t + 1 < how->frames; s++) {
		int32_t eof = (int32_t)lwm_llama_eof(lwm_engine_config(g));
		struct lwm_ids ids = { 0 };

		rc = lwm_ids_add(&ids, &eof, 1, e);
		if (rc == 0)
			rc = add_action(&ids, how, clip, first + t + 1, s, e);
		if (rc == 0)
			rc = feed(g, st, s, &ids, e);
		lwm_ids_release(&ids);
	}
	return rc;
}

int lwm_roll_forward(struct lwm_engine *g, const struct lwm_roll *how, const struct lwm_roll_clip *clip, lwm_code_fn *progress,
		     void *arg, struct lwm_err *e)
{
	struct lwm_frames_streams st = { .count = how->guide != 1 ? 2 : 1 };
	struct counted heard = { .fn = progress, .arg = arg };
	int64_t longest = how->free.n;
	int rc = 0;

	LWM_TRY(lwm_roll_check(how, clip->given, e));
	for (int64_t t = 1; t < lwm_roll_frames(how); t++)
		longest = clip->actions[t].n > longest ? clip->actions[t].n : longest;
	for (int s = 0; s < st.count; s++)
		LWM_GO(lwm_engine_new_cache(&st.cache[s], g, lwm_roll_context(how, longest), e));
	for (int64_t r = 0; r < how->rounds; r++) {
		int64_t first = r * (how->frames - how->overlap), known = r ? how->overlap : clip->given;

		for (int s = 0; s < st.count; s++)
			LWM_GO(open_context(g, how, clip, first, known, &st, s, e));
		for (int64_t t = known; t < how->frames; t++)
			LWM_GO(draw_frame(g, how, clip, first, t, r, &st, &heard, e));
	}
out:
	for (int s = 0; s < st.count; s++)
		lwm_cache_free(st.cache[s]);
	return rc;
}
