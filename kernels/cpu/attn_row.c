/* attn_row.c - a few queries against many keys: the keys are split, the parts are joined in order.
 *
 * The splits depend on the number of keys alone, so the result is the same for any number of threads.
 */
#include <math.h>

#include "kernels/cpu/attn_int.h"

enum { SPLIT = 512, MOST_SPLITS = 256 };

static int64_t round_up(int64_t n, int64_t to)
{
	return (n + to - 1) / to * to;
}

static const struct lk_attn_row_hot *row_hot(struct lk_dev *dev)
{
#ifdef __x86_64__
	switch (lk_cpu_of(dev)->isa) {
	case LK_ISA_AVX512: return &lk_attn_row_hot_avx512;
	case LK_ISA_AVX2: return &lk_attn_row_hot_avx2;
	default: break;
	}
#else
	(void)dev;
#endif
	return &lk_attn_row_hot_base;
}

/* All parts of row r (query t, head h), the carried state before them, into out. */
static void join_row(const struct lk_attn *a, const struct lk_attn_part *part, int64_t parts, int64_t dp, int64_t r,
		     const struct lk_attn_out *out)
{
	int64_t nh = a->q.n[1], d = a->q.n[2];
	const struct lk_view *o = out->o;
	float *to = o ? (float *)o->data + r / nh * o->stride[0] + r % nh * o->stride[1] : out->st->acc + r * d;
	float m = out->st ? out->st->m[r] : -INFINITY, l = 0, w, inv;

	for (int64_t i = 0; i < parts; i++)
		m = fmaxf(m, part[i].m[r]);
	w = out->st && m > -INFINITY ? expf(out->st->m[r] - m) : 0.0f;
	if (out->st)
		l = out->st->l[r] * w;
	for (int64_t c = 0; c < d; c++)
		to[c] = w > 0 ? to[c] * w : 0.0f; // never written where nothing was seen
	for (int64_t i = 0; i < parts; i++) {
		const float *acc = part[i].acc + r * dp;

		if (part[i].m[r] == -INFINITY)
			continue;
		w = expf(part[i].m[r] - m);
		l += part[i].l[r] * w;
		for (int64_t c = 0; c < d; c++)
			to[c] += w * acc[c];
	}
	if (out->st) {
		out->st->m[r] = m;
		out->st->l[r] = l;
		return;
	}
	inv = l > 0 ? 1.0f / l : 0.0f;
	for (int64_t c = 0; c < d; c++)
		to[c] *= inv;
	out->lse[r] = l > 0 ? m + logf(l) : -INFINITY;
}

static struct lk_attn_part part_at(float *mem, int64_t i, int64_t rows, int64_t dp)
{
	float *m = mem + i * rows * (dp + 2);

	return (struct lk_attn_part){ m, m + rows, m + 2 * rows };
}

int lk_attn_rows(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_out *out)
{
	const struct lk_attn_row_hot *hot = row_hot(dev);
	int64_t tk = a->k.n[0], rows = a->q.n[0] * a->q.n[1], dp = round_up(a->q.n[2], hot->vec);
	int64_t split = round_up((tk + MOST_SPLITS - 1) / MOST_SPLITS, hot->chunk), parts;
	struct lk_attn_part *part;
	float *mem, *room;
	size_t bytes;

	split = split > SPLIT ? split : SPLIT;
	parts = (tk + split - 1) / split;
	bytes = sizeof(float) * (size_t)(parts * rows * (dp + 2)) + (size_t)parts * (sizeof *part + hot->room(a));
	mem = lk_cpu_scratch(dev, bytes + 64);
	if (!mem)
		return lk_fail(dev, LK_ENOMEM, "attention: no memory for %zu bytes of scratch", bytes);
	part = (struct lk_attn_part *)(void *)(mem + parts * rows * (dp + 2));
	room = (float *)(void *)(part + parts);
	for (int64_t i = 0; i < parts; i++)
		part[i] = part_at(mem, i, rows, dp);
#pragma omp parallel num_threads(dev->threads)
	{
#pragma omp for schedule(dynamic, 1)
		for (int64_t i = 0; i < parts; i++)
			hot->run(a, i * split, (i + 1) * split < tk ? (i + 1) * split : tk, &part[i],
				 room + hot->room(a) / sizeof(float) * (size_t)i);
#pragma omp for
		for (int64_t r = 0; r < rows; r++)
			join_row(a, part, parts, dp, r, out);
	}
	return 0;
}
