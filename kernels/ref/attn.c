/* attn.c - block attention in plain loops and fp64 sums: what the fast backends are measured against. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "kernels/ref/ref_int.h"

static float *row3(const struct lk_view *v, int64_t t, int64_t h)
{
	return (float *)v->data + t * v->stride[0] + h * v->stride[1];
}

static double dot(const float *a, const float *b, int64_t n)
{
	double s = 0;

	for (int64_t i = 0; i < n; i++)
		s += (double)a[i] * b[i];
	return s;
}

/* Key or value s of head h as floats: where it lies, or in `room` (D floats) when it is kept in fewer bits. */
static const float *cached(const struct lk_view *v, const float *scale, int64_t scale_stride, int64_t s, int64_t h,
			   float *room)
{
	if (v->dtype == LK_F32)
		return row3(v, s, h);
	lk_kv_row(room, v->data, v->dtype, s * v->stride[0] + h * v->stride[1], v->n[2],
		  scale ? scale[s * scale_stride + h] : 1.0f);
	return room;
}

static int sees(const struct lk_attn *a, int64_t t, int64_t s)
{
	if (a->qs->seg[t] < 0 || a->qs->seg[t] != a->ks->seg[s])
		return 0;
	return !a->causal || a->ks->pos[s] <= a->qs->pos[t];
}

static int64_t key_head(const struct lk_attn *a, int64_t h)
{
	return h / (a->q.n[1] / a->k.n[1]);
}

/* One query row and head: m, l and acc (D doubles) take in all keys of the block. score: room for Tk doubles and D floats. */
static void fold_row(const struct lk_attn *a, int64_t t, int64_t h, double *score, double *m, double *l, double *acc)
{
	int64_t tk = a->k.n[0], d = a->q.n[2], hk = key_head(a, h);
	double top = *m, keep;
	float *room = (float *)(score + tk);

	for (int64_t s = 0; s < tk; s++) {
		score[s] = -INFINITY;
		if (sees(a, t, s))
			score[s] = a->scale * dot(row3(&a->q, t, h),
						  cached(&a->k, a->k_scale, a->scale_stride, s, hk, room), d);
		top = fmax(top, score[s]);
	}
	if (isinf(top) && top < 0)
		return; // nothing seen so far: m stays -inf, l and acc stay 0
	keep = exp(*m - top);
	*m = top;
	*l *= keep;
	for (int64_t i = 0; i < d; i++)
		acc[i] *= keep;
	for (int64_t s = 0; s < tk; s++) {
		double p = exp(score[s] - top);
		const float *v;

		if (p == 0)
			continue;
		v = cached(&a->v, a->v_scale, a->scale_stride, s, hk, room);
		*l += p;
		for (int64_t i = 0; i < d; i++)
			acc[i] += p * v[i];
	}
}

static int attn_begin(struct lk_dev *dev, const struct lk_attn_state *st, int64_t tq, int64_t h, int64_t d)
{
	(void)dev;
	for (int64_t i = 0; i < tq * h; i++) {
		st->m[i] = -INFINITY;
		st->l[i] = 0;
	}
	for (int64_t i = 0; i < tq * h * d; i++)
		st->acc[i] = 0;
	return 0;
}

static void end_row(float *o, float *lse, double m, double l, const double *acc, int64_t d)
{
	for (int64_t i = 0; i < d; i++)
		o[i] = l > 0 ? (float)(acc[i] / l) : 0.0f;
	*lse = l > 0 ? (float)(m + log(l)) : -INFINITY;
}

static double *row_room(struct lk_dev *dev, int64_t tk, int64_t d)
{
	double *p = calloc((size_t)(tk + 2 * d), sizeof *p);

	if (!p)
		lk_fail(dev, LK_ENOMEM, "attention: no memory for one row of %" PRId64 " scores", tk);
	return p;
}

static int attn_fwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_attn_state *st)
{
	int64_t tq = a->q.n[0], nh = a->q.n[1], d = a->q.n[2];
	double *acc = row_room(dev, a->k.n[0], d), *score = acc + d;

	if (!acc)
		return LK_ENOMEM;
	for (int64_t r = 0; r < tq * nh; r++) {
		double m = st->m[r], l = st->l[r];

		for (int64_t i = 0; i < d; i++)
			acc[i] = st->acc[r * d + i];
		fold_row(a, r / nh, r % nh, score, &m, &l, acc);
		st->m[r] = (float)m;
		// what rounding takes from m goes into l and acc
		double fix = isinf(m) ? 1 : exp(m - st->m[r]);

		st->l[r] = (float)(l * fix);
		for (int64_t i = 0; i < d; i++)
			st->acc[r * d + i] = (float)(acc[i] * fix);
	}
	free(acc);
	return 0;
}

static int attn_end(struct lk_dev *dev, const struct lk_view *o, float *lse, const struct lk_attn_state *st)
{
	int64_t nh = o->n[1], d = o->n[2];
	double *acc = row_room(dev, 0, d);

	if (!acc)
		return LK_ENOMEM;
	for (int64_t r = 0; r < o->n[0] * nh; r++) {
		for (int64_t i = 0; i < d; i++)
			acc[i] = st->acc[r * d + i];
		end_row(row3(o, r / nh, r % nh), lse + r, st->m[r], st->l[r], acc, d);
	}
	free(acc);
	return 0;
}

static int attn_once(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *o, float *lse)
{
	int64_t tq = a->q.n[0], nh = a->q.n[1], d = a->q.n[2];
	double *acc = row_room(dev, a->k.n[0], d), *score = acc + d;

	if (!acc)
		return LK_ENOMEM;
	for (int64_t r = 0; r < tq * nh; r++) {
		double m = -INFINITY, l = 0;

		for (int64_t i = 0; i < d; i++)
			acc[i] = 0;
		fold_row(a, r / nh, r % nh, score, &m, &l, acc);
		end_row(row3(o, r / nh, r % nh), lse + r, m, l, acc, d);
	}
	free(acc);
	return 0;
}

static int attn_delta(struct lk_dev *dev, float *delta, const struct lk_view *o, const struct lk_view *dout)
{
	int64_t nh = o->n[1];

	(void)dev;
	for (int64_t r = 0; r < o->n[0] * nh; r++)
		delta[r] = (float)dot(row3(o, r / nh, r % nh), row3(dout, r / nh, r % nh), o->n[2]);
	return 0;
}

/* One query row: ds = p (dp - delta) with p = exp(score - lse), dp = dout . v; then
 * dq += scale ds k, dk += scale ds q, dv += p dout (Dao et al. 2022, algorithm 4). dk, dv: (Tk,D) doubles. */
static void bwd_row(const struct lk_attn *a, const float *dout, float lse, float delta, int64_t t, int64_t h,
		    double *dq, double *dk, double *dv)
{
	int64_t d = a->q.n[2], hk = key_head(a, h);
	const float *q = row3(&a->q, t, h);

	for (int64_t s = 0; s < a->k.n[0]; s++) {
		const float *k = row3(&a->k, s, hk);
		double p, ds;

		if (!sees(a, t, s))
			continue;
		p = exp(a->scale * dot(q, k, d) - lse);
		ds = p * (dot(dout, row3(&a->v, s, hk), d) - delta) * a->scale;
		for (int64_t i = 0; i < d; i++) {
			dq[i] += ds * k[i];
			dk[s * d + i] += ds * q[i];
			dv[s * d + i] += p * dout[i];
		}
	}
}

static void add_rows(const struct lk_view *y, int64_t h, const double *x)
{
	for (int64_t t = 0; t < y->n[0]; t++)
		for (int64_t i = 0; i < y->n[2]; i++)
			row3(y, t, h)[i] += (float)x[t * y->n[2] + i];
}

static int attn_bwd(struct lk_dev *dev, const struct lk_attn *a, const struct lk_view *dout, const float *lse,
		    const float *delta, const struct lk_view *dq, const struct lk_view *dk, const struct lk_view *dv)
{
	int64_t tq = a->q.n[0], nh = a->q.n[1], d = a->q.n[2], tk = a->k.n[0], group = nh / a->k.n[1];

	for (int64_t hk = 0; hk < a->k.n[1]; hk++) {
		double *sum = calloc((size_t)((tq * group + 2 * tk) * d + 1), sizeof *sum);
		double *sk = sum + tq * group * d, *sv = sk + tk * d;

		if (!sum)
			return lk_fail(dev, LK_ENOMEM, "attention: no memory for the gradient sums of one head");
		for (int64_t r = 0; r < tq * group; r++) {
			int64_t h = hk * group + r / tq, t = r % tq;

			// a row that saw nothing has lse = -inf and no visible key: the loop is empty
			bwd_row(a, row3(dout, t, h), lse[t * nh + h], delta[t * nh + h], t, h, sum + r * d, sk, sv);
		}
		for (int64_t g = 0; g < group; g++)
			add_rows(dq, hk * group + g, sum + g * tq * d);
		add_rows(dk, hk, sk);
		add_rows(dv, hk, sv);
		free(sum);
	}
	return 0;
}

static int attn_merge(struct lk_dev *dev, float *o, float *lse, const float *o2, const float *lse2, int64_t tq,
		      int64_t h, int64_t d)
{
	(void)dev;
	for (int64_t r = 0; r < tq * h; r++) {
		double m = fmax(lse[r], lse2[r]), w1, w2;

		if (isinf(m) && m < 0)
			continue; // neither part saw anything: o is zeros and lse -inf already
		w1 = exp(lse[r] - m);
		w2 = exp(lse2[r] - m);
		for (int64_t i = 0; i < d; i++)
			o[r * d + i] = (float)((w1 * o[r * d + i] + w2 * o2[r * d + i]) / (w1 + w2));
		lse[r] = (float)(m + log(w1 + w2));
	}
	return 0;
}

void lk_ref_fill_attn(struct lk_ops *o)
{
	o->attention.attn_begin = attn_begin;
	o->attention.attn_fwd = attn_fwd;
	o->attention.attn_end = attn_end;
	o->attention.attn_once = attn_once;
	o->attention.attn_delta = attn_delta;
	o->attention.attn_bwd = attn_bwd;
	o->attention.attn_merge = attn_merge;
}
