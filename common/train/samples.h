/* samples.h - what a model makes while it is trained, as files to be looked at: OUT/samples/step-NNNNNNNN.png, .txt
 * (--sample-every).
 *
 *	o->type->sample(o, step, weights, &made, e)    the file's bytes, and what is to be seen in it
 *	lwm_samples_write(s, step, &made, name, e)     one rank
 *	lwm_samples_release(&made)
 *
 * A file is a pure function of the weights, the seed, the step and the data: a run that was stopped and resumed leaves the same
 * bytes. All of it is local.
 */
#ifndef LWM_TRAIN_SAMPLES_H
#define LWM_TRAIN_SAMPLES_H

#include "common/base/str.h"
#include "common/train/stage.h"

/* Zero-initialised is empty. */
struct lwm_samples {
	struct lwm_str bytes; /* of the file */
	struct lwm_str what;  /* a line: what is to be seen */
	const char *suffix;   /* "png", "txt" */
};
void lwm_samples_release(struct lwm_samples *m);

enum { LWM_SAMPLES_NAME = 64 };

/* Made after the update of this step, if it is not the last one, after which there are samples anyway. Pure. */
bool lwm_samples_due(const struct lwm_stage *s, int64_t step);
/* A sheet of pictures, each of width x height pixels of 3 bytes: rgb (rows, columns, height, width, 3). Small ones are enlarged. */
int lwm_samples_sheet(struct lwm_samples *m, const uint8_t *rgb, int64_t rows, int64_t columns, int64_t width, int64_t height,
		      struct lwm_err *e);
/* name: of the file, below s->out. It appears whole, in place of one that was there. */
int lwm_samples_write(const struct lwm_stage *s, int64_t step, const struct lwm_samples *m, char name[LWM_SAMPLES_NAME],
		      struct lwm_err *e);

#endif
