/* events.h - curves of a stage for TensorBoard: OUT/tensorboard/events.out.tfevents.TIME.HOST.PID, a file for each run.
 *
 *	lwm_events_open(&v, dir, time, step, e)
 *	lwm_events_scalar(v, time, step, "train/loss", loss)
 *	lwm_events_more(v, time, step, "train/", ",\"psnr\":21.5")
 *	lwm_events_close(v)
 *
 * Records as TensorFlow frames them: length (uint64), masked CRC-32C of it, an Event, masked CRC-32C of that; of Event the fields
 * wall_time, step, file_version, summary.value with tag and simple_value, session_log. A run that is resumed begins its file with
 * session_log START at its step: TensorBoard then forgets later points of older files, which are computed again. metrics.jsonl is
 * the record; this is a view of it. Records that the disk does not take wait in memory, which is said once. Local; rank 0. */
#ifndef LWM_TRAIN_EVENTS_H
#define LWM_TRAIN_EVENTS_H

#include <stdint.h>

#include "common/base/err.h"

struct lwm_events;
/* dir is made. time: seconds since 1970. step: that the run resumes from, or 0. -LWM_ECANTCREATE, -LWM_EIO, -LWM_EMEMORY. */
int lwm_events_open(struct lwm_events **out, const char *dir, double time, int64_t step, struct lwm_err *e);
void lwm_events_scalar(struct lwm_events *v, double time, int64_t step, const char *tag, double value);
/* A point for each number of an objective's report, ,"key":value...: tag is prefix and key; of an object's numbers prefix,
 * key, "/" and their key. Other values are not curves. */
void lwm_events_more(struct lwm_events *v, double time, int64_t step, const char *prefix, const char *more);
void lwm_events_close(struct lwm_events *v); /* NULL is fine */

#endif
