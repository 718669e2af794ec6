/* image_ref.h - joins the two files of the reference image ops. */
#ifndef LK_IMAGE_REF_H
#define LK_IMAGE_REF_H

#include "kernels/kernels_int.h"

void lk_ref_fill_conv(struct lk_ops *o);

#endif
