/* convert.h - weights of an open source, a model of any format or a checkpoint, into a model folder of ours, tensor by tensor.
 *
 *	lwm_convert(&source, &table, dir, &spec, force, &p, e)           writes
 *	lwm_convert_compare(&source, &table, dir, dtype, &p, e)          is the folder that?
 *
 * table: the tensors of the model by its configuration, in the order in which they are written; all of them must be there, of these
 * shapes (-LWM_ECONFIG). Memory: that of the formats on both sides, a convolution or a matrix at most, and 256 KiB. Both look
 * now and then whether the program was asked to stop: then -LWM_ESAVED, and nothing is kept. Local calls.
 */
#ifndef LWM_IO_CONVERT_H
#define LWM_IO_CONVERT_H

#include "common/base/progress.h"
#include "common/io/model.h"
#include "common/io/source.h"

/* spec->kind and ->config are set. p counts bytes of fp32 values; may be NULL. */
int lwm_convert(struct lwm_source *s, const struct lwm_tensors *table, const char *dir, const struct lwm_model_spec *spec,
		bool force, struct lwm_progress *p, struct lwm_err *e);
/* Every value of the folder is that of the source, rounded to dtype, and it has no other tensors. -LWM_ENO: they differ. */
int lwm_convert_compare(struct lwm_source *s, const struct lwm_tensors *table, const char *dir, enum lwm_st_dtype dtype,
			struct lwm_progress *p, struct lwm_err *e);

#endif
