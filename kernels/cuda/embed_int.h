/* embed_int.h - what embed.cu, embed_bwd.cu and sort.cu share. */
#ifndef LK_CUDA_EMBED_INT_H
#define LK_CUDA_EMBED_INT_H

#include "kernels/cuda/dense_int.h"

int lk_cuda_embed_bwd(struct lk_dev *dev, const struct lk_view *dtable, const int32_t *ids, const struct lk_view *dy,
		      int32_t first);

/* Bytes of device memory that lk_sort_ids works in, a multiple of 256. */
size_t lk_sort_bytes(int64_t n);
/* keys[i]: ids[.] - first in ascending order, those outside of [0, rows) as `rows` at the end; perm[i]: where it stood.
 * Equal keys keep their order. n < 2^31. Both lie in work afterwards. */
void lk_sort_ids(struct lk_dev *dev, void *work, const int32_t *ids, int64_t n, int32_t first, int64_t rows,
		 const int32_t **keys, const int32_t **perm);

#endif
