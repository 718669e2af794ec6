/* world_batch.h - many clips that go on, one after the other, into files. Local calls.
 *
 *	struct lwm_world_batch b = { .w = ..., .how = ..., .samples = 1, .made = fn, .arg = arg };
 *	lwm_world_list(&b, &inputs, output, out_dir, e)      which files go on, and what the results are called
 *	lwm_world_claim(&b, out_dir, settings, e)            of a folder: is it ours?
 *	lwm_world_draw_all(&b, e)
 *	lwm_world_release(&b)
 */
#ifndef LWM_EVAL_WORLD_BATCH_H
#define LWM_EVAL_WORLD_BATCH_H

#include <jansson.h>

#include "common/base/path.h"
#include "common/eval/drawn.h"
#include "common/eval/world.h"

/* A clip is written. Negative: stops. */
typedef int lwm_world_made_fn(void *arg, const char *name, int64_t frames, int64_t number, struct lwm_err *e);
struct lwm_world_batch {
	struct lwm_world w;
	struct lwm_drawn how;
	int64_t samples;          /* clips of each input */
	lwm_world_made_fn *made;  /* may be NULL */
	void *arg;
	struct lwm_paths in, out; /* clip i * samples + k goes on from in.v[i] */
	bool resumed;             /* what is there is ours, and stays */
};
/* Inputs are files, folders of them and @LISTs. output: one file, with the number of the sample before its suffix where there are
 * several; or out_dir, DIR/STEM.mp4 for each input; or neither, and there are no names. -LWM_EUSAGE: several inputs for one file,
 * or two of one name. */
int lwm_world_list(struct lwm_world_batch *b, const struct lwm_paths *inputs, const char *output, const char *out_dir,
		   struct lwm_err *e);
/* Takes the folder, made where it is not there, for these clips. What decides what they look like is written to DIR/world.json
 * before the first of them: `settings`, what the batch does not know of (taken over; NULL: there was no memory for it), and the
 * batch. The same there: an earlier run began, and its clips are kept. Another: -LWM_ECANTCREATE, or with how.force all are drawn
 * anew. */
int lwm_world_claim(struct lwm_world_batch *b, const char *dir, json_t *settings, struct lwm_err *e);
/* The number of a clip is that of its draws. A request to stop (base/stop.h) is seen between two clips: -LWM_ESAVED. */
int lwm_world_draw_all(struct lwm_world_batch *b, struct lwm_err *e);
void lwm_world_release(struct lwm_world_batch *b); /* the lists, and what is done in b->w */

#endif
