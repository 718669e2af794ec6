/* dense_int.h - what the files of the dense ops share: the parts of lk_cuda_fill_transformer and what they have in common. */
#ifndef LK_CUDA_DENSE_INT_H
#define LK_CUDA_DENSE_INT_H

#include "kernels/cuda/cuda_int.h"

#endif
