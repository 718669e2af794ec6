/* attn_row.hot.c - attention of a few queries against many keys: generation from a cache.
 *
 * Bound by memory, so keys and values are read token by token as they lie, all heads of a token together, once each.
 * A chunk of tokens gives scores of all rows (query, head), then their weights, then the weighted sum of its values.
 */
#include <math.h>

#include "kernels/cpu/attn_int.h"
#include "kernels/cpu/vmath.h"

enum { CHUNK = 64, AHEAD = 3072 /* floats */ };

/* Row r = t H + h of the queries; part is laid out as lk_attn_part says. */
struct rows {
	int64_t n, d, dp, share, heads; /* share: rows of a token that use one key head */
	float *q, *score;               /* (n, dp) scaled; (n, CHUNK) */
	float *wide;                    /* one chunk of keys, then of values, as floats, where they are kept in fewer bits */
};

/* Floats of a chunk's keys, the same number of values. */
static int64_t wide_size(const struct lk_attn *a)
{
	return a->k.dtype == LK_F32 ? 0 : CHUNK * a->k.n[1] * a->k.n[2];
}

static size_t row_room(const struct lk_attn *a)
{
	int64_t n = a->q.n[0] * a->q.n[1], dp = (a->q.n[2] + LK_VEC - 1) / LK_VEC * LK_VEC;

	return sizeof(float) * (size_t)(n * (dp + CHUNK) + 2 * wide_size(a));
}

static const float *row3(const struct lk_view *v, int64_t t, int64_t h)
{
	return (const float *)v->data + t * v->stride[0] + h * v->stride[1];
}

static void open_rows(struct rows *w, const struct lk_attn *a, float *room)
{
	w->heads = a->q.n[1];
	w->n = a->q.n[0] * w->heads;
	w->d = a->q.n[2];
	w->dp = (w->d + LK_VEC - 1) / LK_VEC * LK_VEC;
	w->share = w->heads / a->k.n[1];
	w->score = room;
	w->q = room + w->n * CHUNK;
	w->wide = w->q + w->n * w->dp;
	for (int64_t r = 0; r < w->n; r++) {
		const float *q = row3(&a->q, r / w->heads, r % w->heads);

		for (int64_t i = 0; i < w->dp; i++)
			w->q[r * w->dp + i] = i < w->d ? a->scale * q[i] : 0.0f;
	}
}

/* Asks for the same head some tokens on, about AHEAD floats: the hardware's own guess ends with the page. */
static inline void fetch(const float *x, int64_t stride, int64_t d)
{
	int64_t ahead = (1 + AHEAD / stride) * stride;

	for (int64_t c = 0; c < d; c += 16)
		__builtin_prefetch(x + ahead + c, 0, 3);
}

static inline float dot(const float *q, const float *k, int64_t d)
{
	vf even = { 0 }, odd = { 0 };
	int64_t c = 0;

	for (; c + 2 * LK_VEC <= d; c += 2 * LK_VEC) {
		even += lk_vload(q + c) * lk_vload(k + c);
		odd += lk_vload(q + c + LK_VEC) * lk_vload(k + c + LK_VEC);
	}
	if (c + LK_VEC <= d) {
		even += lk_vload(q + c) * lk_vload(k + c);
		c += LK_VEC;
	}
	if (c < d)
		odd += lk_vload(q + c) * lk_vload_n(k + c, d - c, 0.0f);
	return lk_vsum(even + odd);
}

/* y (dp) += p * v */
static inline void add_scaled(float *y, float p, const float *v, int64_t d)
{
	int64_t c = 0;

	for (; c + LK_VEC <= d; c += LK_VEC)
		lk_vstore(y + c, lk_vload(y + c) + p * lk_vload(v + c));
	if (c < d)
		lk_vstore(y + c, lk_vload(y + c) + p * lk_vload_n(v + c, d - c, 0.0f));
}

static int sees(const struct lk_attn *a, int64_t t, int64_t s)
{
	return a->qs->seg[t] >= 0 && a->qs->seg[t] == a->ks->seg[s] && (!a->causal || a->ks->pos[s] <= a->qs->pos[t]);
}

/* Tokens [s0, s0 + n) of v as floats. */
static struct lk_view chunk_of(const struct lk_view *v, const float *scale, int64_t scale_stride, int64_t s0, int64_t n,
			       float *wide)
{
	int64_t heads = v->n[1], d = v->n[2];
	struct lk_view y = lk_view3(wide, LK_F32, n, heads, d);

	if (v->dtype == LK_F32) {
		y = *v;
		y.data = (float *)v->data + s0 * v->stride[0];
		return y;
	}
	for (int64_t s = 0; s < n; s++)
		for (int64_t h = 0; h < heads; h++)
			lk_kv_row(wide + (s * heads + h) * d, v->data, v->dtype, (s0 + s) * v->stride[0] + h * v->stride[1], d,
				  scale ? scale[(s0 + s) * scale_stride + h] : 1.0f);
	return y;
}

static void score_chunk(const struct rows *w, const struct lk_attn *a, int64_t s0, int64_t n)
{
	struct lk_view keys = chunk_of(&a->k, a->k_scale, a->scale_stride, s0, n, w->wide);

	for (int64_t s = 0; s < n; s++)
		for (int64_t hk = 0; hk < a->k.n[1]; hk++) {
			const float *k = row3(&keys, s, hk);

			fetch(k, keys.stride[0], w->d);
			for (int64_t t = 0; t < a->q.n[0]; t++)
				for (int64_t g = 0; g < w->share; g++) {
					int64_t r = t * w->heads + hk * w->share + g;

					w->score[r * CHUNK + s] = dot(w->q + r * w->dp, k, w->d);
				}
		}
	for (int64_t t = 0; t < a->q.n[0]; t++)
		for (int64_t s = 0; s < n; s++)
			if (!sees(a, t, s0 + s))
				for (int64_t h = 0; h < w->heads; h++)
					w->score[(t * w->heads + h) * CHUNK + s] = -INFINITY;
}

/* Turns a row's scores into weights and shrinks what it has summed so far. 0 if the row still has seen nothing. */
static int weigh_scores(float *x, int64_t n, float *m, float *l, float *acc, int64_t dp)
{
	vf top = lk_vset(*m), sum = { 0 };
	float keep;

	for (int64_t s = n; s < CHUNK; s++)
		x[s] = -INFINITY;
	for (int64_t s = 0; s < CHUNK; s += LK_VEC)
		top = lk_vmax(top, lk_vload(x + s));
	top = lk_vset(lk_vmaxlane(top));
	if (top[0] == -INFINITY)
		return 0;
	keep = lk_vexp(lk_vset(*m) - top)[0];
	for (int64_t s = 0; s < CHUNK; s += LK_VEC) {
		vf e = lk_vexp(lk_vload(x + s) - top);

		sum += e;
		lk_vstore(x + s, e);
	}
	*l = *l * keep + lk_vsum(sum);
	*m = top[0];
	if (keep != 1.0f)
		for (int64_t c = 0; c < dp; c += LK_VEC)
			lk_vstore(acc + c, keep * lk_vload(acc + c));
	return 1;
}

static void sum_chunk(const struct rows *w, const struct lk_attn *a, int64_t s0, int64_t n, float *acc)
{
	struct lk_view values = chunk_of(&a->v, a->v_scale, a->scale_stride, s0, n, w->wide + wide_size(a));

	for (int64_t s = 0; s < n; s++)
		for (int64_t hk = 0; hk < a->k.n[1]; hk++) {
			const float *v = row3(&values, s, hk);

			fetch(v, values.stride[0], w->d);
			for (int64_t t = 0; t < a->q.n[0]; t++)
				for (int64_t g = 0; g < w->share; g++) {
					int64_t r = t * w->heads + hk * w->share + g;

					add_scaled(acc + r * w->dp, w->score[r * CHUNK + s], v, w->d);
				}
		}
}

static void row_run(const struct lk_attn *a, int64_t from, int64_t to, const struct lk_attn_part *part, float *room)
{
	struct rows w;

	open_rows(&w, a, room);
	for (int64_t r = 0; r < w.n; r++) {
		part->m[r] = -INFINITY;
		part->l[r] = 0;
	}
	memset(part->acc, 0, sizeof(float) * (size_t)(w.n * w.dp));
	for (int64_t s = from; s < to; s += CHUNK) {
		int64_t n = to - s < CHUNK ? to - s : CHUNK;
		int seen = 0;

		for (int64_t t = 0; t < a->q.n[0]; t++)
			for (int64_t i = 0; i < n && !seen; i++)
				seen = sees(a, t, s + i);
		if (!seen)
			continue; // hidden keys are not even read
		score_chunk(&w, a, s, n);
		for (int64_t r = 0; r < w.n; r++)
			if (!weigh_scores(w.score + r * CHUNK, n, part->m + r, part->l + r, part->acc + r * w.dp, w.dp))
				memset(w.score + r * CHUNK, 0, sizeof(float) * CHUNK);
		sum_chunk(&w, a, s, n, part->acc);
	}
}

const struct lk_attn_row_hot LK_ISA_NAME(lk_attn_row_hot) = { LK_VEC, CHUNK, row_room, row_run };
