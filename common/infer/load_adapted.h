/* load_adapted.h - the model that a checkpoint with adapters trains, put together by the device's own products, as training
 * does it.
 *
 * lwm_lm_open reads such a checkpoint too, and adds adapters as its values are read (io/fold.h). This is the other way to the same
 * weights: what a merge compares itself with. */
#ifndef LWM_INFER_LOAD_ADAPTED_H
#define LWM_INFER_LOAD_ADAPTED_H

#include "common/infer/load.h"

/* dir: a step folder, or "ema:" before it. dev: a host's, of fp32. Closed by lwm_lm_close. -LWM_ECONFIG: it holds no adapters.
 * Local. */
int lwm_lm_open_adapted(struct lwm_lm *m, const char *dir, struct lk_dev *dev, struct lwm_err *e);

#endif
