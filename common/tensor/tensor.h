/* tensor.h - what is known of a weight before its values are: name, shape, place. */
#ifndef LWM_TENSOR_TENSOR_H
#define LWM_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stdint.h>

struct lwm_tensor { /* a named slice of the flat vector, in memory layout */
	char name[80];
	int64_t shape[4];
	int ndim;
	int64_t offset, count;
	bool no_decay, vision; /* vision: may be missing in a text model that is started from */
};

#endif
