/* gen_int.h - between the files of generation: kv.cu, draw.cu. */
#ifndef LK_CUDA_GEN_INT_H
#define LK_CUDA_GEN_INT_H

#include "kernels/cuda/cuda_int.h"

void lk_cuda_fill_draw(struct lk_ops *o);

#endif
