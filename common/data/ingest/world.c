/* <|world|>: frames, before each the action that leads to it. */
#include "common/data/ingest/world.h"

#include <inttypes.h>
#include <stdlib.h>

#include "common/base/rng.h"
#include "common/data/ingest/fields_int.h"
#include "common/text/action.h"

const char *const lwm_world_actions_names[] = { "all", "cycle", "none", "cmd", "traj", "steer", "goal", NULL };

/* What a record says of its actions. */
struct told {
	const json_t *each; /* a list, one for each frame; or */
	const json_t *one;  /* one for the clip; or neither */
	unsigned modes;     /* that are told, of those there are */
};

static unsigned modes_of(enum lwm_world_actions w)
{
	switch (w) {
	case LWM_WORLD_ALL: case LWM_WORLD_CYCLE:
		return ~0u;
	case LWM_WORLD_CMD:
		return LWM_ACTION_BIT(LWM_ACTION_CMD);
	case LWM_WORLD_TRAJ:
		return LWM_ACTION_BIT(LWM_ACTION_TRAJ);
	case LWM_WORLD_STEER:
		return LWM_ACTION_BIT(LWM_ACTION_SPEED) | LWM_ACTION_BIT(LWM_ACTION_STEER);
	case LWM_WORLD_GOAL:
		return LWM_ACTION_BIT(LWM_ACTION_GOAL);
	default:
		return 0;
	}
}

/* The modes of document `number`: none where its actions are dropped. */
static unsigned modes_told(const struct lwm_fields_cfg *c, int64_t number)
{
	struct lwm_rng r = lwm_rng_at(c->seed, LWM_RNG_DROP, 0, (uint64_t)number);
	if (lwm_rng_double(&r) < c->world.drop)
		return 0;
	if (c->world.actions == LWM_WORLD_CYCLE)
		return modes_of((enum lwm_world_actions)(LWM_WORLD_CMD + number % 4));
	return modes_of(c->world.actions);
}

static int find_told(struct lwm_build *b, const json_t *record, int64_t frames, struct told *t, struct lwm_err *e)
{
	const int64_t max = b->f->cfg.max_frames;
	*t = (struct told){ .each = json_object_get(record, "actions"), .one = json_object_get(record, "action"),
			    .modes = modes_told(&b->f->cfg, b->number) };
	if (t->each && t->one)
		return lwm_fail(e, LWM_EDATA, "has both 'actions' and 'action'");
	if (!t->each)
		return 0;
	if (!json_is_array(t->each) || (int64_t)json_array_size(t->each) != frames)
		return lwm_fail(e, LWM_EDATA, "'actions' is no list of one for each of the %" PRId64 " frames, but of %zu (frames of the clip "
				"must all be taken: no other rate, none left out)", frames, json_array_size(t->each));
	if (!json_is_null(json_array_get(t->each, 0)))
		return lwm_fail(e, LWM_EDATA, "the first of 'actions' is not null, and nothing leads to the first frame");
	if (max > 0 && frames > max)
		return lwm_fail(e, LWM_EDATA, "%" PRId64 " frames are thinned to %" PRId64 ", and 'actions' lead from each to the next", frames,
				max);
	return 0;
}

/* The action that leads to frame k. Read even where it is dropped: a bad one is one in every run. */
static int add_action(struct lwm_build *b, const struct told *t, int64_t k, struct lwm_err *e)
{
	struct lwm_action a = { 0 };
	int64_t first = b->d->ids.n;
	const json_t *v = t->each ? json_array_get(t->each, (size_t)k) : t->one;
	if (v && lwm_action_read(&a, v, e) < 0)
		return e ? lwm_context(e, "frame %" PRId64, k) : -LWM_EDATA;
	a.has &= t->modes;
	LWM_TRY(lwm_action_add(b->f->t, &a, &b->d->ids, e));
	return lwm_docbuf_mark(b->d, first, false, e);
}

int lwm_world_element(struct lwm_build *b, const struct lwm_element *el, bool first, struct lwm_err *e)
{
	const int64_t per = b->f->cfg.frame_codes, max = b->f->cfg.max_frames, at = b->d->ids.n;
	struct lwm_field_value v = { 0 }, r = { 0 };
	struct told told;
	(void)first;
	LWM_TRY(lwm_build_fault(b->d, "missing key", b->get(b->user, "vision", &v, e)));
	LWM_TRY(lwm_build_fault(b->d, "missing key", b->get(b->user, el->key[0], &r, e)));
	LWM_TRY(lwm_build_frames(b, "vision", v.codes, v.ncodes, e));
	int64_t all = v.ncodes / per, n = max > 0 && all > max ? max : all;
	LWM_TRY(lwm_build_fault(b->d, "bad actions", find_told(b, r.record, all, &told, e)));
	LWM_TRY(lwm_action_add_world(b->f->t, &b->d->ids, e));
	LWM_TRY(lwm_docbuf_mark(b->d, at, false, e));
	for (int64_t i = 0; i < n; i++) {
		if (i)
			LWM_TRY(lwm_build_fault(b->d, "bad actions", add_action(b, &told, i, e)));
		LWM_TRY(lwm_build_fault(b->d, "bad codes",
			lwm_build_frame(b, v.codes, lwm_frame_pick(all, max, i), i == n - 1, el->loss, e)));
	}
	return 0;
}
