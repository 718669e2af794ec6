/* image.cu - the table of the image ops; each file fills in its own. */
#include "kernels/cuda/image_int.h"

void lk_cuda_fill_image(struct lk_ops *o)
{
	lk_cuda_fill_conv(o);
	lk_cuda_fill_groupnorm(o);
	lk_cuda_fill_code(o);
	lk_cuda_fill_pixels(o);
}

/* Nothing is kept at the device: weights belong to their convolution, everything else is scratch. */
void lk_cuda_close_image(struct lk_dev *dev)
{
	(void)dev;
}
