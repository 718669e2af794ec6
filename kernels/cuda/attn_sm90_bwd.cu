/* attn_sm90_bwd.cu - attention on Hopper. No job is taken here so far: the portable kernels do them all. */
#include "kernels/cuda/attn_int.h"

int lk_attn_sm90_bwd(struct lk_dev *dev, const struct lk_attn_job *j)
{
	(void)dev;
	(void)j;
	return LK_EUNSUP;
}
