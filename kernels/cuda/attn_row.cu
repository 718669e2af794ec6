/* attn_row.cu - few queries against many keys */
#include "kernels/cuda/attn_int.h"

int lk_attn_row_fwd(struct lk_dev *dev, const struct lk_attn_job *j)
{
	(void)j;
	return lk_cuda_fail(dev, LK_EUNSUP, "attention is not there yet");
}
