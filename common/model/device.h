/* device.h - the device a tool computes on, by its --device option; kernel results as our errors; sizes of buffers. */
#ifndef LWM_MODEL_DEVICE_H
#define LWM_MODEL_DEVICE_H

#include <stdint.h>

#include "common/base/err.h"
#include "kernels/kernels.h"

/* spec: "cpu", "ref", "cuda", "cuda:N", or "auto": a GPU where there is one, else the CPU. Logs what was chosen and any warning
 * (a BLAS that does not know this CPU). threads 0: all the process may use. -LWM_EUNAVAIL with the reason. */
int lwm_device_open(struct lk_dev **out, const char *spec, int64_t threads, struct lwm_err *e);

/* 0, or the failure of the last kernel call as a sentence. */
int lwm_dev_check(struct lk_dev *dev, int status, struct lwm_err *e);

/* Every buffer starts at a multiple of 64 bytes. */
static inline int64_t lwm_round64(int64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

#endif
