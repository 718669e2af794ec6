/* image.c - the image ops of the CPU backend: picks the instruction set and fills the table. */
#include "kernels/cpu/image_int.h"

#include <omp.h>

#ifdef __x86_64__
#define BY_ISA(t) { &t##_base, &t##_avx2, &t##_avx512 }
#else
#define BY_ISA(t) { &t##_base }
#endif

const struct lk_image_gemm *lk_image_gemm(struct lk_dev *dev)
{
	static const struct lk_image_gemm *const by_isa[LK_ISA_COUNT] = BY_ISA(lk_image_gemm);
	return by_isa[lk_cpu(dev)->isa];
}

const struct lk_image_wino *lk_image_wino(struct lk_dev *dev)
{
	static const struct lk_image_wino *const by_isa[LK_ISA_COUNT] = BY_ISA(lk_image_wino);
	return by_isa[lk_cpu(dev)->isa];
}

const struct lk_image_norm *lk_image_norm(struct lk_dev *dev)
{
	static const struct lk_image_norm *const by_isa[LK_ISA_COUNT] = BY_ISA(lk_image_norm);
	return by_isa[lk_cpu(dev)->isa];
}

int lk_thread(void)
{
	return omp_get_thread_num();
}

void lk_cpu_fill_image(struct lk_dev *dev)
{
	lk_cpu_fill_conv(dev);
	dev->ops.groupnorm_fwd = lk_cpu_groupnorm_fwd;
	dev->ops.groupnorm_bwd = lk_cpu_groupnorm_bwd;
	dev->ops.nearest_code = lk_cpu_nearest_code;
	dev->ops.pixels = lk_cpu_pixels;
	dev->ops.recon_loss = lk_cpu_recon_loss;
}
