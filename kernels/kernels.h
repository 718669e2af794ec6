/* kernels.h - arithmetic on tensors, the same calls on every device.
 *
 * The only header of this folder that others include. It knows nothing of tokens, files or ranks.
 *
 *	struct lk_dev *dev;
 *	char why[256];
 *	if (lk_dev_open(&dev, "cpu", 0, why, sizeof why)) ...        ref | cpu | cuda:0
 *	lk_mem_alloc(dev, bytes, &p);  lk_upload(dev, p, host, bytes);
 *	lk_matmul(dev, &c, &a, &b, LK_TB, 1.0f);                      views of device memory
 *	lk_download(dev, host, p, bytes);                             waits
 *	lk_mem_free(dev, p);  lk_dev_close(dev);
 *
 * Every call but the few that return a value or nothing returns an enum lk_status; after a failure lk_dev_error holds one
 * finished sentence. The contract that every backend keeps:
 *  1. Arguments are checked once, in front of all backends: a wrong dtype, rank, extent, stride or overlap is LK_EINVAL, and
 *     nothing was done. What a backend does not offer is LK_EUNSUP.
 *  2. Work on one device runs in call order. Two devices of one place (lk_dev_fork) meet only through lk_record and lk_wait.
 *  3. Returning 0 means accepted; results are there after lk_sync or lk_download. Callers outside kernels/ never
 *     dereference device memory: they upload and download.
 *  4. Pointers named host_* are host memory; every other pointer in a call is memory of that device.
 *  5. No op allocates on its hot path after the first call of that shape; scratch belongs to the device.
 *  6. Activations and weights are of lk_dev_dtype(dev): LK_F32 on ref and cpu, LK_F16 on cpu-fp16, LK_BF16 on cuda. Sums are
 *     fp32 or better.
 *     Gradients of weights, optimizer state, norms' rstd, log-sum-exp, attention partials, dq, dk, dv are LK_F32.
 *  7. Same inputs, same device, same build: same bits; on cpu for any number of threads.
 *  8. Backward ops ADD into gradients of weights. Whether they add into gradients of activations stands at each op.
 *  9. A device belongs to one host thread at a time.
 *
 * Shapes are written (T,D): T rows of D elements, last extent first in memory. The chapters, each a header of its own: */
#ifndef LK_KERNELS_H
#define LK_KERNELS_H

#include "kernels/device.h"     /* views; devices, memory, queues */
#include "kernels/dense.h"      /* products, element-wise ops, the layers of a transformer, loss, AdamW */
#include "kernels/attention.h"  /* block attention with a carried state */
#include "kernels/generation.h" /* caches in fewer bits, the choice of a token */
#include "kernels/image.h"      /* convolution, group norm, codes, pixels */
#include "kernels/group.h"      /* devices of several ranks that exchange memory by themselves */

#endif
