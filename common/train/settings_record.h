/* settings_record.h - the settings of a stage as its checkpoints record them, and what may change when a run is resumed.
 *
 *	lwm_settings_check(s, e)                                   does --allow-change name settings that could be refused?
 *	now = lwm_settings_record(s, data, network)                goes into each checkpoint
 *	lwm_settings_compare(s, before, now, where, e)             resumed: was the run begun with these?
 *
 * Names are those of the options. A setting either decides what is computed, then a resumed run must have the value it was begun
 * with unless its change is allowed by name; or it decides only how fast, how often and where, then it is recorded and free
 * (settings.h: the rules). "data" stands for the content of the training data: names of files may change, rows may not; likewise
 * "perceptual-net" for the network that a loss looks through.
 * All functions are local.
 */
#ifndef LWM_TRAIN_SETTINGS_RECORD_H
#define LWM_TRAIN_SETTINGS_RECORD_H

#include <jansson.h>

#include "common/train/stage.h"

/* All settings as one object; data, network: hashes of them, "" unknown, none. NULL: out of memory. */
json_t *lwm_settings_record(const struct lwm_stage *s, const char *data, const char *network);
/* Is every setting of `now` that decides what is computed as it was in `before`? A setting that `before` lacks (an older version
 * wrote it) had its default: options are added with a default that changes nothing. Every difference is named, and refused
 * (-LWM_ECONFIG) unless s->allow_change has its name; allowed ones are said on the log. where: the checkpoint, for messages. */
int lwm_settings_compare(const struct lwm_stage *s, const json_t *before, const json_t *now, const char *where, struct lwm_err *e);
/* Does s->allow_change name settings that a resumed run must keep? -LWM_EUSAGE with the nearest name. */
int lwm_settings_check(const struct lwm_stage *s, struct lwm_err *e);

#endif
