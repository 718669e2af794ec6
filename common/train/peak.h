/* peak.h - what a device can do at most: the rate of its own matrix product, measured. */
#ifndef LWM_TRAIN_PEAK_H
#define LWM_TRAIN_PEAK_H

#include <stddef.h>

#include "common/base/err.h"
#include "kernels/kernels.h"

/* Local; takes about 0.1 s, at most 0.3. *rate: FLOP a second (2 n^3 for each product) of the fastest of several lk_matmul of two
 * square matrices of random numbers in the device's dtype, as large as that time and the room allow: n to 2048 where the device is
 * the host, else to 8192. room: `bytes` of device memory that may be overwritten; where it is too small for n = 1024, memory of its
 * own is taken for as long. Ranks that share cores must measure at the same time, or each counts the others' share as its own.
 * -LWM_EMEMORY when there is none. */
int lwm_peak_measure(struct lk_dev *dev, void *room, size_t bytes, double *rate, struct lwm_err *e);

#endif
