/* vector.cu - element-wise ops and reductions over dense arrays. */
#include "kernels/cuda/cuda_int.h"

static int zero(struct lk_dev *dev, void *p, size_t bytes)
{
	return lk_cuda_check(dev, "zero", cudaMemsetAsync(p, 0, bytes, lk_stream(dev)));
}

void lk_cuda_fill_vector(struct lk_ops *o)
{
	o->zero = zero;
}
