/* annos.h - samples of drives as they are published for Vista (annos/nuScenes.json, annos/YouTube.json): which frames, what the
 * driver does.
 *
 *	lwm_anno_read(&a, sample, &how, e)        one element of the file's list
 *	a.frames.v[0..n-1], a.action, a.times
 *	lwm_anno_release(&a)
 *
 * nuscenes: an object with
 *	frames  paths below the data root, at least how.frames of them, of which the first are taken
 *	traj    10 numbers: x, y of now and of 0.5, 1, 1.5 and 2 s later; the first pair is dropped
 *	speed   5 numbers, km/h, or none (a scene without CAN bus); the first is dropped
 *	angle   5 numbers, degrees of the wheel, or none; the first is dropped, the others are divided by 780
 *	cmd     0..3
 *	goal    x, y in a picture of 1600 x 900, divided by these; z: in front of the camera where positive
 * The action has cmd and traj, speed and steer where there are numbers, goal where z > 0 and 0 < x < 1600, 0 < y < 900.
 *
 * youtube: folder_name, below the data root, and first_frame, a number with leading zeros and a suffix ("000001360.jpg"); frame k is
 * the file whose number is that plus k, in as many digits at least. Such a sample drives freely.
 *
 * What cmd's numbers mean is not written down where they are published; right, left, straight, stop is the order of nuScenes'
 * planners (UniAD, VAD), with the fourth class behind it. how.cmd says it, so that it can be another.
 *
 * Local calls.
 */
#ifndef LWM_DATA_INGEST_ANNOS_H
#define LWM_DATA_INGEST_ANNOS_H

#include <jansson.h>

#include "common/base/path.h"
#include "common/text/action.h"

enum lwm_anno_layout { LWM_ANNO_AUTO, LWM_ANNO_NUSCENES, LWM_ANNO_YOUTUBE };
extern const char *const lwm_anno_layouts[]; /* "auto", "nuscenes", "youtube", NULL */

struct lwm_anno_how {
	enum lwm_anno_layout layout; /* auto: by the keys of each sample */
	int64_t frames;              /* of a clip */
	enum lwm_action_cmd cmd[4];  /* what 0..3 mean */
};
extern const enum lwm_action_cmd lwm_anno_cmds[4]; /* right, left, straight, stop */

struct lwm_anno {
	enum lwm_anno_layout layout;
	struct lwm_paths frames; /* how.frames paths below the data root */
	struct lwm_action action;
	int64_t times; /* how often a balanced set has it: 5 for a cmd other than 2 and 3, twice that where no mode is missing */
	const char *fault; /* after a failure: the reason in two words, for counting; a constant */
};
/* a is filled, or nothing of it is kept. -LWM_EDATA: the sample is broken: keys missing or of another type, numbers too few or
 * outside of the table of action.h, too few frames, paths that leave the data root. */
int lwm_anno_read(struct lwm_anno *a, const json_t *sample, const struct lwm_anno_how *how, struct lwm_err *e);
void lwm_anno_release(struct lwm_anno *a);

#endif
