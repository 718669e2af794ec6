/* ref_int.h - what the dense files of ref/ share. Plain loops, sums in fp64: these define what the ops mean. */
#ifndef LK_REF_INT_H
#define LK_REF_INT_H

#include "kernels/kernels_int.h"

/* lk_ref_fill_dense calls these, one per file */
void lk_ref_fill_matmul(struct lk_ops *o);
void lk_ref_fill_norm(struct lk_ops *o);
void lk_ref_fill_rope(struct lk_ops *o);
void lk_ref_fill_embed(struct lk_ops *o);
void lk_ref_fill_xent(struct lk_ops *o);
void lk_ref_fill_optim(struct lk_ops *o);

#endif
