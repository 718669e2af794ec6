/* matmul_plan.c - layouts, transposes and leading dimensions of products. */
#include "kernels/cuda/matmul_plan.h"

static int32_t alignment(const void *p)
{
	uintptr_t at = (uintptr_t)p;
	int32_t a = 256;

	while (at % (uintptr_t)a)
		a /= 2;
	return a;
}

static struct lk_mm_mat flipped(const struct lk_view *v)
{
	struct lk_mm_mat m = { .rows = v->n[1], .cols = v->n[0], .ld = v->stride[0], .dtype = v->dtype,
			       .align = alignment(v->data) };

	if (m.cols == 1) // one row may come with any stride: take one that does not spoil the alignment
		m.ld = (m.rows + 127) / 128 * 128;
	return m;
}

void lk_mm_make(struct lk_mm *p, const struct lk_view *c, const struct lk_view *a, const struct lk_view *b,
		unsigned flags)
{
	memset(p, 0, sizeof *p);
	p->m = c->n[1];
	p->n = c->n[0];
	p->k = a->n[!(flags & LK_TA)];
	p->first = flipped(b);
	p->second = flipped(a);
	p->c = flipped(c);
	p->trans_first = (flags & LK_TB) != 0;
	p->trans_second = (flags & LK_TA) != 0;
	p->add = (flags & LK_ACC) != 0;
}

/* FNV-1a over the bytes. */
uint64_t lk_mm_hash(const struct lk_mm *p)
{
	const unsigned char *at = (const unsigned char *)p;
	uint64_t h = 14695981039346656037u;

	for (size_t i = 0; i < sizeof *p; i++)
		h = (h ^ at[i]) * 1099511628211u;
	return h;
}

static int by_16_bytes(const struct lk_view *v)
{
	return alignment(v->data) >= 16 && (v->n[0] == 1 || v->stride[0] % 8 == 0);
}

int lk_mm_few(const struct lk_view *c, const struct lk_view *a, const struct lk_view *b, unsigned flags)
{
	return (flags & (LK_TA | LK_TB)) == LK_TB && c->n[0] <= LK_MM_FEW && a->dtype == LK_BF16 && a->n[1] % 8 == 0 &&
	       by_16_bytes(a) && by_16_bytes(b);
}
