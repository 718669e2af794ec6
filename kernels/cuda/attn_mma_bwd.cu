/* attn_mma_bwd.cu - attention backward on every chip */
#include "kernels/cuda/attn_int.h"

int lk_attn_mma_bwd(struct lk_dev *dev, const struct lk_attn_job *j)
{
	(void)j;
	return lk_cuda_fail(dev, LK_EUNSUP, "attention is not there yet");
}
