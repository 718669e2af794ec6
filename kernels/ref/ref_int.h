/* ref_int.h - what the files of ref/ share. Plain loops, sums in fp64: these define what the ops mean. */
#ifndef LK_REF_INT_H
#define LK_REF_INT_H

#include "kernels/kernels_int.h"

/* Each file fills in its entries; ref.c calls them all. */
void lk_ref_fill_mem(struct lk_ops *o);
void lk_ref_fill_dense(struct lk_ops *o);
void lk_ref_fill_norm(struct lk_ops *o);
void lk_ref_fill_rope(struct lk_ops *o);
void lk_ref_fill_embed(struct lk_ops *o);
void lk_ref_fill_xent(struct lk_ops *o);
void lk_ref_fill_optim(struct lk_ops *o);
void lk_ref_fill_attn(struct lk_ops *o);
void lk_ref_fill_gen(struct lk_ops *o);
void lk_ref_fill_conv(struct lk_ops *o);
void lk_ref_fill_image(struct lk_ops *o);
void lk_ref_fill_feature(struct lk_ops *o);

#endif
