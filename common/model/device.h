/* device.h - the device a tool computes on, by its --device option. */
#ifndef LWM_MODEL_DEVICE_H
#define LWM_MODEL_DEVICE_H

#include "common/base/err.h"
#include "kernels/kernels.h"

/* spec: "cpu", "ref", "cuda", "cuda:N", or "auto": a GPU where there is one, else the CPU. Logs what was chosen and any warning
 * (a BLAS that does not know this CPU). threads 0: all the process may use. -LWM_EUNAVAIL with the reason. */
int lwm_device_open(struct lk_dev **out, const char *spec, int64_t threads, struct lwm_err *e);
/* -LWM_EUNAVAIL or -LWM_EMEMORY with the device's sentence, for a failed lk_ call. */
int lwm_device_fail(struct lk_dev *dev, int lk_code, const char *what, struct lwm_err *e);

#endif
