/* ref.c - the ref device: every op by plain loops. */
#include <stdio.h>

#include "kernels/backend.h"
#include "kernels/ref/ref_int.h"

void lk_ref_fill(struct lk_ops *o)
{
	lk_ref_fill_mem(o);
	lk_ref_fill_dense(o);
	lk_ref_fill_norm(o);
	lk_ref_fill_rope(o);
	lk_ref_fill_embed(o);
	lk_ref_fill_xent(o);
	lk_ref_fill_optim(o);
	lk_ref_fill_attn(o);
	lk_ref_fill_gen(o);
	lk_ref_fill_conv(o);
	lk_ref_fill_image(o);
	lk_ref_fill_feature(o);
}

int lk_ref_open(struct lk_dev *dev, int index, int threads, char *why, size_t n)
{
	(void)index, (void)threads, (void)why, (void)n;
	lk_ref_fill(&dev->ops);
	dev->dtype = LK_F32;
	dev->threads = 1;
	dev->is_host = 1;
	snprintf(dev->name, sizeof dev->name, "ref (plain loops, 1 thread)");
	return 0;
}
