/* image_hot.c - the inner loops of the image ops: the constant tables that image_gemm, conv_wino and image_norm.hot.c export for
 * each instruction set, picked by that of the device. */
#include <omp.h>

#include "kernels/cpu/image_int.h"

#ifdef __x86_64__
#define BY_ISA(t) { &t##_base, &t##_avx2, &t##_avx512 }
#else
#define BY_ISA(t) { &t##_base }
#endif

const struct lk_image_gemm *lk_image_gemm_of(struct lk_dev *dev)
{
	static const struct lk_image_gemm *const by_isa[LK_ISA_COUNT] = BY_ISA(lk_image_gemm);
	return by_isa[lk_cpu_of(dev)->isa];
}

const struct lk_image_wino *lk_image_wino_of(struct lk_dev *dev)
{
	static const struct lk_image_wino *const by_isa[LK_ISA_COUNT] = BY_ISA(lk_image_wino);
	return by_isa[lk_cpu_of(dev)->isa];
}

const struct lk_image_norm *lk_image_norm_of(struct lk_dev *dev)
{
	static const struct lk_image_norm *const by_isa[LK_ISA_COUNT] = BY_ISA(lk_image_norm);
	return by_isa[lk_cpu_of(dev)->isa];
}

int lk_thread(void)
{
	return omp_get_thread_num();
}
