/* world.c - a file's first frames become codes, and a roll goes on from there. */
#include "common/eval/world.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/text/action.h"

/* The action that leads to frame t of the clip, t >= 1. A frame belongs to the round that draws it. */
static struct lwm_ids action_of(const struct lwm_world *w, int64_t t)
{
	const struct lwm_roll *r = &w->roll;
	int64_t round = t < r->overlap ? 0 : (t - r->overlap) / (r->frames - r->overlap);

	if (w->actions == 0)
		return r->free;
	if (w->actions == 1)
		return w->action[0];
	return w->action[w->actions == r->rounds ? round : t - 1];
}

/* One for each frame; malloc'ed. */
static int spread_actions(const struct lwm_world *w, struct lwm_ids **out, struct lwm_err *e)
{
	int64_t n = lwm_roll_frames(&w->roll);

	*out = calloc((size_t)n, sizeof **out);
	if (!*out)
		return lwm_fail(e, LWM_EMEMORY, "no memory for the actions of %" PRId64 " frames", n);
	for (int64_t t = 1; t < n; t++)
		(*out)[t] = action_of(w, t);
	return 0;
}

static int add_actions(struct lwm_world *w, struct lwm_tokenizer *tok, const struct lwm_paths *actions, struct lwm_err *e)
{
	struct lwm_action a = { 0 };

	w->action = calloc((size_t)actions->n + 1, sizeof *w->action);
	if (!w->action)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " actions", actions->n);
	LWM_TRY(lwm_action_add(tok, &a, &w->roll.free, e));
	for (; w->actions < actions->n; w->actions++) {
		LWM_TRY(lwm_action_parse(&a, actions->v[w->actions], e));
		LWM_TRY(lwm_action_add(tok, &a, &w->action[w->actions], e));
	}
	return 0;
}

int lwm_world_set(struct lwm_world *w, struct lwm_tokenizer *tok, const struct lwm_paths *actions, struct lwm_err *e)
{
	const struct lwm_roll *r = &w->roll;
	int32_t bos = lwm_tokenizer_bos(tok);
	int64_t steps;

	LWM_TRY(lwm_roll_check(r, w->frames.max_frames, e));
	steps = lwm_roll_frames(r) - 1;
	if (actions->n > 1 && actions->n != r->rounds && actions->n != steps)
		return lwm_fail(e, LWM_EUSAGE, "%" PRId64 " actions: a clip takes one, one for each round (%" PRId64 "), or one for each step to "
				"a frame (%" PRId64 ")", actions->n, r->rounds, steps);
	LWM_TRY(lwm_ids_add(&w->roll.head, &bos, 1, e));
	LWM_TRY(lwm_action_add_world(tok, &w->roll.head, e));
	return add_actions(w, tok, actions, e);
}

void lwm_world_unset(struct lwm_world *w)
{
	for (int64_t i = 0; i < w->actions; i++)
		lwm_ids_release(&w->action[i]);
	free(w->action);
	w->action = NULL;
	w->actions = 0;
	lwm_ids_release(&w->roll.head);
	lwm_ids_release(&w->roll.free);
}

int64_t lwm_world_context(const struct lwm_world *w)
{
	int64_t longest = w->roll.free.n;

	for (int64_t i = 0; i < w->actions; i++)
		longest = w->action[i].n > longest ? w->action[i].n : longest;
	return lwm_roll_context(&w->roll, longest);
}

int lwm_world_draw(const struct lwm_world *w, const char *path, uint64_t sample, int32_t *codes, int64_t *given,
		   lwm_code_fn *progress, void *arg, struct lwm_err *e)
{
	struct lwm_roll_clip clip = { .codes = codes, .sample = sample };
	struct lwm_ids *actions = NULL;
	uint8_t *rgb = NULL;
	int rc = 0;

	LWM_GO(lwm_frames_read(path, &w->frames, (int64_t)1 << 32, &rgb, &clip.given, NULL, e));
	LWM_GO(lwm_vqgan_encode(w->net, rgb, clip.given, w->frames.height, w->frames.width, codes, e));
	LWM_GO(spread_actions(w, &actions, e));
	clip.actions = actions;
	if (given)
		*given = clip.given;
	rc = lwm_roll_forward(w->g, &w->roll, &clip, progress, arg, e);
out:
	free(actions);
	free(rgb);
	return rc;
}
