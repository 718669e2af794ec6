/* load_int.h - what language models and VQGANs have in common when they are opened. */
#ifndef LWM_INFER_LOAD_INT_H
#define LWM_INFER_LOAD_INT_H

#include "common/io/source.h"
#include "kernels/kernels.h"

/* The weights of table p from s into new device memory of dtype, laid out as the table says, gaps zero. *out is the caller's to
 * give to lk_mem_free; NULL on failure. name: of the model, for messages. A tensor that the source lacks or has in another shape is
 * -LWM_ECONFIG. */
int lwm_load_weights(void **out, struct lk_dev *dev, int dtype, struct lwm_source *s, const struct lwm_tensors *p, const char *name,
		     struct lwm_err *e);

#endif
