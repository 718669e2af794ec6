/* cases_gen.c - generation: keys and values in fewer bits, attention over them, the choice of a token. */
#include <math.h>
#include <stdlib.h>

#include "tests/kernels/ops.h"

#define N(a) ((int)(sizeof(a) / sizeof *(a)))

static const char exact[] = "one rounding, the same everywhere";
static const char sums[] = "fp32 sums of up to a thousand weights; exp of fp32 scores";
static const char logs[] = "fp64 exp and log";

/* ---- storing and loading ---- */

struct rows {
	int n, h, d, dtype, pad, special; /* special: zeros, NaN and Inf among the rows */
	int end;                          /* lets a list of fewer members end in a comma */
};

static struct lk_view source(struct ops_run *r, const struct rows *c)
{
	int64_t n = (int64_t)c->n * c->h * c->d;
	float *x = malloc((size_t)n * sizeof *x);
	struct lk_view v = { .ndim = 1 };

	for (int64_t i = 0; x && i < n; i++) {
		int64_t row = i / c->d;

		x[i] = (float)(ops_uniform(r) * 6 - 3);
		if (c->special && row % 5 == 1)
			x[i] = 0;
		if (c->special && i == 2 * c->d + 3)
			x[i] = NAN;
		if (c->special && i == 3 * c->d + c->d - 1)
			x[i] = -INFINITY;
	}
	if (x)
		v = ops_given_f32(r, OPS_ACT, x, 3, c->n, c->h, c->d);
	free(x);
	return v;
}

static int store(struct ops_run *r, const void *arg)
{
	const struct rows *c = arg;
	struct lk_view x, y, scale = { .data = NULL };

	ops_pad(r, c->pad);
	x = source(r, c);
	y = ops_out(r, "y", c->dtype, 3, c->n, c->h, c->d);
	if (c->dtype == LK_I8)
		scale = ops_out(r, "scale", LK_F32, 2, c->n, c->h);
	return lk_kv_store(r->dev, &y, scale.data, scale.stride[0], &x);
}

static int load(struct ops_run *r, const void *arg)
{
	const struct rows *c = arg;
	struct lk_view x, y, scale = { .data = NULL };

	ops_pad(r, c->pad);
	x = c->dtype == LK_I8 ? ops_ints(r, LK_I8, -127, 128, 3, c->n, c->h, c->d) : ops_in(r, LK_BF16, 3, c->n, c->h, c->d);
	if (c->dtype == LK_I8)
		scale = ops_in(r, LK_F32, 2, c->n, c->h);
	y = ops_out(r, "y", OPS_ACT, 3, c->n, c->h, c->d);
	return lk_kv_load(r->dev, &y, &x, scale.data, scale.stride[0]);
}

/* ---- attention over a cache ---- */

struct cached {
	int tq, tk, h, hk, d, dtype, pad, hidden; /* hidden: some keys come after the queries, some are padding */
	int end;
};

static int make_seqs(struct ops_run *r, const struct cached *c, struct lk_attn *a, struct lk_seq **qs, struct lk_seq **ks)
{
	int32_t *pos = malloc((size_t)(c->tk + c->tq) * 2 * sizeof *pos), *seg = pos + c->tk + c->tq;
	int shift = c->hidden ? c->tk / 3 : 0, rc;

	if (!pos)
		return LK_ENOMEM;
	for (int i = 0; i < c->tk; i++) {
		pos[i] = i;
		seg[i] = c->hidden && i % 7 == 3 ? -1 : 0;
	}
	for (int i = 0; i < c->tq; i++) {
		pos[c->tk + i] = c->tk - c->tq + i - shift;
		seg[c->tk + i] = 0;
	}
	rc = lk_seq_new(r->dev, ks, c->tk, pos, seg);
	if (!rc)
		rc = lk_seq_new(r->dev, qs, c->tq, pos + c->tk, seg + c->tk);
	free(pos);
	a->qs = *qs;
	a->ks = *ks;
	return rc;
}

static struct lk_view stored(struct ops_run *r, const struct cached *c, const float **scale)
{
	if (c->dtype == LK_BF16)
		return ops_in(r, LK_BF16, 3, c->tk, c->hk, c->d);
	ops_scale(r, 1.0 / 127);
	*scale = ops_in(r, LK_F32, 2, c->tk, c->hk).data;
	ops_scale(r, 1.0);
	return ops_ints(r, LK_I8, -127, 128, 3, c->tk, c->hk, c->d);
}

static int attend(struct ops_run *r, const struct cached *c, int carried)
{
	struct lk_attn a = { .scale = (float)(1 / sqrt(c->d)), .causal = 1, .scale_stride = c->hk + c->pad };
	struct lk_view o = ops_out(r, "o", OPS_ACT, 3, c->tq, c->h, c->d);
	struct lk_view lse = ops_out(r, "lse", LK_F32, 2, c->tq, c->h);
	struct lk_view m = ops_out(r, "m", LK_F32, 2, c->tq, c->h), l = ops_zeros(r, "l", LK_F32, 2, c->tq, c->h);
	struct lk_view acc = ops_zeros(r, "acc", LK_F32, 3, c->tq, c->h, c->d);
	struct lk_attn_state st = { m.data, l.data, acc.data };
	struct lk_seq *qs = NULL, *ks = NULL;
	int rc, sync;

	ops_pad(r, c->pad);
	a.q = ops_in(r, OPS_ACT, 3, c->tq, c->h, c->d);
	a.k = stored(r, c, &a.k_scale);
	a.v = stored(r, c, &a.v_scale);
	rc = make_seqs(r, c, &a, &qs, &ks);
	if (!rc && carried) {
		rc = lk_attn_begin(r->dev, &st, c->tq, c->h, c->d);
		for (int i = 0; !rc && i < 2; i++) // twice the same keys: sums double, the result stays
			rc = lk_attn_fwd(r->dev, &a, &st);
		if (!rc)
			rc = lk_attn_end(r->dev, &o, lse.data, &st);
	} else if (!rc) {
		rc = lk_attn_once(r->dev, &a, &o, lse.data);
	}
	sync = lk_sync(r->dev); // queued work may still read the sequences
	lk_seq_free(qs);
	lk_seq_free(ks);
	return rc ? rc : sync;
}

static int attend_once(struct ops_run *r, const void *arg)
{
	return attend(r, arg, 0);
}

static int attend_carried(struct ops_run *r, const void *arg)
{
	return attend(r, arg, 1);
}

/* ---- the choice of a token ---- */

struct choice {
	int n, v;
	struct lk_draw_cfg how;
	double spread;      /* logits in [-spread, spread) */
	int steps;          /* > 0: so many different logits, so that there are ties */
	float bad;          /* put into row 1 when not 0 */
	int end;
};

static struct lk_view logits_of(struct ops_run *r, const struct choice *c)
{
	float *x = malloc((size_t)(c->n * c->v) * sizeof *x);
	struct lk_view y = { .ndim = 1 };

	for (int i = 0; x && i < c->n * c->v; i++) {
		double u = ops_uniform(r);

		if (c->steps)
			u = floor(u * c->steps) / c->steps;
		x[i] = (float)((2 * u - 1) * c->spread);
		if (i % 11 == 5)
			x[i] = -INFINITY;
	}
	if (x && c->bad != 0)
		x[c->v + c->how.first + 1] = c->bad;
	for (int i = 0; x && i < c->v && isnan(c->bad); i++)
		x[2 * c->v + i] = -INFINITY;
	if (x)
		y = ops_given_f32(r, LK_F32, x, 2, c->n, c->v);
	free(x);
	return y;
}

static int choose(struct ops_run *r, const void *arg)
{
	const struct choice *c = arg;
	int bf16 = r->bf16, rc;
	int32_t id[64];
	double u[64], logprob[64];
	struct lk_view x;

	r->bf16 = 0; // logits are fp32 on every device
	x = logits_of(r, c);
	r->bf16 = bf16;
	for (int i = 0; i < c->n; i++)
		u[i] = i == 0 && c->how.temperature > 0.01 ? 0 : i == 1 ? 1 - 0x1p-53 : ops_uniform(r);
	rc = lk_draw(r->dev, &x, &c->how, u, id, logprob);
	for (int i = 0; !rc && i < c->n && 2 * i + 2 < OPS_MAX_TENSORS - 1; i++) {
		ops_value(r, "id", id[i] ? id[i] : 0.5); // relative: 0 would hide nothing but be hidden itself
		ops_value(r, "logprob", logprob[i]);
	}
	return rc;
}

/* ---- wrong calls ---- */

static int many_queries(struct ops_run *r, const void *arg)
{
	(void)arg;
	return attend(r, &(const struct cached){ 5, 40, 2, 2, 16, LK_I8, .end = 0 }, 0);
}

static int no_scales(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_in(r, OPS_ACT, 3, 2, 2, 8), y = ops_out(r, "y", LK_I8, 3, 2, 2, 8);

	(void)arg;
	return lk_kv_store(r->dev, &y, NULL, 0, &x);
}

static int bad_draw(struct ops_run *r, const void *arg)
{
	struct lk_view x = ops_in(r, LK_F32, 2, 1, 8);
	double u = *(const double *)arg;
	int32_t id;

	return lk_draw(r->dev, &x, &(struct lk_draw_cfg){ 0, u < 1 ? 9 : 8, 0, 1, 1 }, &u, &id, NULL);
}

/* ---- the list ---- */

#define R(...) (&(const struct rows){ __VA_ARGS__, .end = 0 })
#define C(...) (&(const struct cached){ __VA_ARGS__, .end = 0 })
#define D(...) (&(const struct choice){ __VA_ARGS__, .end = 0 })
#define EXACT(name, run, arg) { name, OPS_CMP, run, arg, 0, 0, exact }
#define ATTEND(name, run, arg) { name, OPS_CMP, run, arg, 3e-6, 1e-2, sums }
#define CHOOSE(name, arg) { name, OPS_CMP, choose, arg, 1e-9, 1e-9, logs }

static const struct ops_case cases[] = {
	EXACT("store 8 bit", store, R(37, 3, 64, LK_I8, .pad = 0)),
	EXACT("store 8 bit, d100, gaps", store, R(9, 5, 100, LK_I8, .pad = 4)),
	EXACT("store 8 bit, d7", store, R(9, 2, 7, LK_I8, .pad = 3)),
	EXACT("store 8 bit, d300", store, R(3, 2, 300, LK_I8, .pad = 0)),
	EXACT("store 8 bit, zeros, NaN, Inf", store, R(9, 2, 32, LK_I8, .special = 1)),
	EXACT("store bf16", store, R(37, 3, 64, LK_BF16, .pad = 0)),
	EXACT("store bf16, d7, gaps", store, R(11, 3, 7, LK_BF16, .pad = 5, .special = 1)),
	{ "load 8 bit", OPS_CMP, load, R(37, 3, 64, LK_I8, .pad = 0), 0, 4e-3, exact },
	{ "load 8 bit, d100, gaps", OPS_CMP, load, R(9, 5, 100, LK_I8, .pad = 4), 0, 4e-3, exact },
	{ "load 8 bit, d7", OPS_CMP, load, R(9, 2, 7, LK_I8, .pad = 3), 0, 4e-3, exact },
	{ "load bf16, d7, gaps", OPS_CMP, load, R(11, 3, 7, LK_BF16, .pad = 5), 0, 4e-3, exact },
	ATTEND("8 bit cache, one query", attend_once, C(1, 1500, 2, 2, 64, LK_I8)),
	ATTEND("8 bit cache, d128, grouped", attend_once, C(1, 700, 8, 2, 128, LK_I8)),
	ATTEND("8 bit cache, d96, 4 queries, hidden keys", attend_once, C(4, 333, 4, 4, 96, LK_I8, .hidden = 1)),
	ATTEND("8 bit cache, d20, gaps", attend_once, C(2, 99, 4, 2, 20, LK_I8, .pad = 12)),
	ATTEND("8 bit cache, d100, gaps", attend_once, C(3, 200, 2, 1, 100, LK_I8, .pad = 4, .hidden = 1)),
	ATTEND("8 bit cache, carried", attend_carried, C(2, 500, 4, 2, 64, LK_I8, .hidden = 1)),
	ATTEND("bf16 cache, one query", attend_once, C(1, 1500, 2, 2, 64, LK_BF16)),
	ATTEND("bf16 cache, d128, grouped, hidden keys", attend_once, C(3, 700, 8, 2, 128, LK_BF16, .hidden = 1)),
	ATTEND("bf16 cache, d20, gaps", attend_once, C(4, 99, 4, 2, 20, LK_BF16, .pad = 12)),
	ATTEND("bf16 cache, carried", attend_carried, C(1, 500, 4, 2, 64, LK_BF16)),
	CHOOSE("greedy", D(4, 32000, { 0, 32000, 0, 0, 1 }, 8)),
	CHOOSE("greedy, ties", D(3, 1000, { 10, 900, 0, 0, 1 }, 8, .steps = 5)),
	CHOOSE("all", D(8, 32000, { 0, 32000, 0, 1, 1 }, 8)),
	CHOOSE("all, a narrow range", D(5, 1000, { 100, 357, 0, 0.7, 1 }, 8)),
	CHOOSE("top 50", D(8, 32000, { 0, 32000, 50, 0.7, 1 }, 8)),
	CHOOSE("top 1000 of 8448", D(8, 8448, { 0, 8192, 1000, 1, 1 }, 3)),
	CHOOSE("top 7, ties", D(8, 500, { 0, 500, 7, 1, 1 }, 3, .steps = 6)),
	CHOOSE("top 5000 of 3000", D(3, 3000, { 0, 3000, 5000, 1, 1 }, 3)),
	CHOOSE("top 1", D(3, 3000, { 0, 3000, 1, 1, 1 }, 3)),
	CHOOSE("nucleus 0.9", D(8, 32000, { 0, 32000, 0, 1, 0.9 }, 8)),
	CHOOSE("nucleus 0.5 of top 40, ties", D(8, 2000, { 3, 1999, 40, 1.3, 0.5 }, 5, .steps = 9)),
	CHOOSE("nucleus 1e-9", D(3, 2000, { 0, 2000, 0, 1, 1e-9 }, 5)),
	CHOOSE("one column", D(3, 20, { 7, 8, 0, 1, 1 }, 5)),
	CHOOSE("cold", D(4, 3000, { 0, 3000, 0, 1e-3, 1 }, 5)),
	CHOOSE("NaN, and nothing finite", D(4, 300, { 2, 290, 20, 1, 1 }, 5, .bad = NAN)),
	CHOOSE("Inf", D(4, 300, { 2, 290, 0, 1, 1 }, 5, .bad = INFINITY)),
	{ "8-bit keys for five queries", OPS_BAD, many_queries, NULL, 0, 0, NULL },
	{ "8-bit store without scales", OPS_BAD, no_scales, NULL, 0, 0, NULL },
	{ "draw beyond the row", OPS_BAD, bad_draw, &(const double){ 0.5 }, 0, 0, NULL },
	{ "draw with u = 1", OPS_BAD, bad_draw, &(const double){ 1.0 }, 0, 0, NULL },
};

const struct ops_family ops_family_gen = { "gen", cases, N(cases) };
