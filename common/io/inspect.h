/* inspect.h - what a path is, what is in it, and whether it is intact.
 *
 *	lwm_thing_of(path, &what, e)                        what it is
 *	lwm_describe(path, what, tensors, &described, e)    what it says of itself
 *	lwm_check_thing(path, what, e)                      whether every byte is as it was written
 *
 * Reads only. Local calls.
 */
#ifndef LWM_IO_INSPECT_H
#define LWM_IO_INSPECT_H

#include <jansson.h>
#include <stdbool.h>

#include "common/base/err.h"

enum lwm_thing {
	LWM_THING_OTHER,
	LWM_THING_DOCS,
	LWM_THING_ROWS,
	LWM_THING_CKPT,
	LWM_THING_PART,
	LWM_THING_ST, /* a file of weights by itself; before MODEL, whose files may be that too */
	LWM_THING_MODEL,
	LWM_THING_INDEX, /* of a folder of row shards */
	LWM_THING_INPUTS /* list of inputs that they share */
};
const char *lwm_thing_name(enum lwm_thing what); /* "document shard" */

/* A folder with COMMIT.json (or named step_...) is a checkpoint, one with config.json and *.safetensors a model,
 * other folders are OTHER; files are known by content. A file of no known kind is OTHER without an error; a missing
 * one -LWM_ENOINPUT. */
int lwm_thing_of(const char *path, enum lwm_thing *out, struct lwm_err *e);
/* An object with members in the order to be shown. tensors: names, shapes and types too. *out is the caller's. */
int lwm_describe(const char *path, enum lwm_thing what, bool tensors, json_t **out, struct lwm_err *e);
/* Every byte that carries meaning against its hash, every value against its range. -LWM_EDATA damaged, -LWM_ENO made
 * by a program that leaves no hashes. */
int lwm_check_thing(const char *path, enum lwm_thing what, struct lwm_err *e);

#endif
