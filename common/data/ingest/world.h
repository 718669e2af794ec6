/* world.h - drives as documents: the element <|world|> of the field language, frames with the actions that lead to them.
 *
 *	<|world|> frame0 EOF  action1 frame1 EOF  ...  action(n-1) frame(n-1) EOV       (common/text/action.h; EOF, EOV: fields.h)
 *
 * Frames are the record's "vision" (of lwm-vqgan-encode: the clip's). Its actions are one of
 *
 *	"actions": [null, ACTION, ACTION, ...]     as many as frames; entry k leads to frame k, so the first one is null
 *	"action": ACTION                           one for the whole clip: before every frame but the first
 *
 * ACTION as lwm_action_read has it. A record without either, or a clip with no .json beside it, drives freely: <|free|> before
 * every frame but the first. That is what unlabelled video gives.
 *
 * Loss: frames and their marks have it, the first frame too; <|world|> and actions never: they are given, not foretold. In
 * brackets nothing has.
 *
 * Guidance needs a model that has seen drives without their actions: a document loses all of its actions (<|free|>) with
 * probability `drop`, 0.15 as published (Vista); which one does is a function of (seed, number of the document), LWM_RNG_DROP.
 *
 * Frames that are thinned (max_frames) leave no action to lead from one to the next: -LWM_EDATA where there is "actions".
 */
#ifndef LWM_DATA_INGEST_WORLD_H
#define LWM_DATA_INGEST_WORLD_H

/* Which modes of the actions that a record has are told. cycle: of document i those of kind i modulo 4, in the published order cmd,
 * traj, steer, goal; a document that has none of them is free. steer: speed and steer, which are one kind there. */
enum lwm_world_actions {
	LWM_WORLD_ALL, LWM_WORLD_CYCLE, LWM_WORLD_NONE,
	LWM_WORLD_CMD, LWM_WORLD_TRAJ, LWM_WORLD_STEER, LWM_WORLD_GOAL
};
extern const char *const lwm_world_actions_names[]; /* "all", "cycle", "none", "cmd", "traj", "steer", "goal", NULL */

struct lwm_world_cfg { /* zero-initialised: all of them, none dropped */
	enum lwm_world_actions actions;
	double drop;
};
#define LWM_WORLD_DROP 0.15

#endif
