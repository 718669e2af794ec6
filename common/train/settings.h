/* settings.h - the settings of a stage as its checkpoints record them, and what may change when a run is resumed.
 *
 * Names are those of lwm-train-stage's options. A setting either decides what is computed, then a run that is resumed must have
 * the value it was begun with unless its change is allowed by name; or it decides only how fast, how often and where, then it is
 * recorded and free. "data" stands for the content of the training data: names of files may change, rows may not.
 */
#ifndef LWM_TRAIN_SETTINGS_H
#define LWM_TRAIN_SETTINGS_H

#include <jansson.h>

#include "common/train/stage.h"

/* All settings as one object; data: the hash of the data, "" unknown. NULL: out of memory. */
json_t *lwm_settings_json(const struct lwm_stage *s, const char *data);
/* Is every setting of `now` that decides what is computed as it was in `before`? A setting that `before` lacks (an older version
 * wrote it) had its default: options are added with a default that changes nothing. Every difference is named, and refused
 * (-LWM_ECONFIG) unless s->allow_change has its name; allowed ones are said on the log. where: the checkpoint, for messages. */
int lwm_settings_same(const struct lwm_stage *s, const json_t *before, const json_t *now, const char *where, struct lwm_err *e);
/* Does s->allow_change name settings? -LWM_EUSAGE with the nearest name. */
int lwm_settings_check(const struct lwm_stage *s, struct lwm_err *e);

#endif
