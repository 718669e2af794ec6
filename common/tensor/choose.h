/* choose.h - which tensors train, and how fast, by patterns of their names.
 *
 *	lwm_choose_check(&how, e)                settings alone: can these texts be read?
 *	lwm_choose_tensors(&table, &how, e)      once, before the table is cut over ranks
 *
 * A pattern is a name in which * stands for any characters, dots among them, ? for one, [abc] for one of these (fnmatch). A list
 * has them with commas between. `only`: what no pattern matches is frozen; `freeze`: what one matches is frozen, after that;
 * `rates`: PATTERN=X multiplies the learning rate by X, and with it the pull of weight decay, as parameter groups do elsewhere; of
 * several that match the last one counts. A pattern that matches no tensor is a mistake, and is named. Local calls.
 */
#ifndef LWM_TENSOR_CHOOSE_H
#define LWM_TENSOR_CHOOSE_H

#include "common/tensor/tensor.h"

struct lwm_choose { /* borrowed; NULL or "": nothing is said */
	const char *only, *freeze, *rates;
};

enum { LWM_PATTERN = 256 };
/* The next entry of a list into `out`: 1, 0 at the end. option: for messages. -LWM_EUSAGE: it is empty, or too long. */
int lwm_choose_next(const char **list, char out[LWM_PATTERN], const char *option, struct lwm_err *e);
/* -LWM_EUSAGE: a pattern is empty, a rate is no number above 0. */
int lwm_choose_check(const struct lwm_choose *how, struct lwm_err *e);
/* Sets `trainable` and `rate` of the table's tensors. -LWM_EUSAGE as above; -LWM_ECONFIG: a pattern that matches nothing, or of
 * `rates` nothing that trains; nothing is left to train. */
int lwm_choose_tensors(struct lwm_tensors *t, const struct lwm_choose *how, struct lwm_err *e);
/* Elements of trainable tensors, and how many these are. Pure. */
int64_t lwm_choose_trained(const struct lwm_tensors *t, int64_t *tensors);

#endif
