/* matmul_int.h - what the files of the matrix product share. */
#ifndef LK_CUDA_MATMUL_INT_H
#define LK_CUDA_MATMUL_INT_H

#include "kernels/cuda/cuda_int.h"
#include "kernels/cuda/matmul_plan.h"

/* cuBLASLt's product. *done = false: it has no algorithm for this one. */
int lk_lt_matmul(struct lk_dev *dev, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
		 unsigned flags, float alpha, bool *done);
void lk_lt_close(struct lk_dev *dev);

#endif
