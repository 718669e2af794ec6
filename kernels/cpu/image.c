/* image.c - the image ops of the CPU backend: picks the instruction set and fills the table. */
#include "kernels/cpu/image_int.h"

#include <omp.h>

const struct lk_image_gemm *lk_image_gemm(struct lk_dev *dev)
{
#ifdef __x86_64__
	static const struct lk_image_gemm *const by_isa[LK_ISA_COUNT] = { &lk_image_gemm_base, &lk_image_gemm_avx2,
									   &lk_image_gemm_avx512 };
#else
	static const struct lk_image_gemm *const by_isa[LK_ISA_COUNT] = { &lk_image_gemm_base };
#endif
	return by_isa[lk_cpu(dev)->isa];
}

int lk_thread(void)
{
	return omp_get_thread_num();
}

void lk_cpu_fill_image(struct lk_dev *dev)
{
	lk_cpu_fill_conv(dev);
}
