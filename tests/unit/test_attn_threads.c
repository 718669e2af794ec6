/* Attention of the cpu device, forward and backward, on 1 to 8 threads: within rounding of ref, and the same bits each time and on
 * any number of threads, as kernels/README.md says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/attn_int.h"
#include "kernels/kernels_int.h"

static const int teams[] = { 1, 2, 3, 5, 8 };
enum { TEAMS = sizeof teams / sizeof *teams };

struct shape {
	const char *name;
	int tq, tk, h, hk, d, causal;
	int doc; /* tokens of a document; 0: one */
};

static const struct shape shapes[] = {
	{ "causal", 500, 500, 4, 4, 64, 1, 0 },
	{ "full", 260, 390, 2, 2, 32, 0, 0 },
	{ "grouped", 420, 420, 6, 2, 64, 1, 0 },
	{ "one key head", 400, 400, 8, 1, 20, 1, 0 },
	{ "three key heads", 300, 300, 3, 3, 48, 1, 0 },
	{ "documents", 700, 700, 2, 1, 64, 1, 77 },
	{ "tiny documents", 300, 300, 4, 2, 16, 1, 3 },
	{ "two shares", 1100, 1100, 6, 3, 16, 1, 0 },
	{ "four shares", 2150, 2150, 2, 1, 16, 1, 0 },
	{ "four shares of documents", 2150, 2150, 4, 2, 16, 1, 333 },
	{ "eight shares, few queries", 60, 4200, 2, 2, 16, 0, 0 },
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

enum { O, LSE, DQ, DK, DV, PARTS };
static const char *const parts[] = { "o", "lse", "dq", "dk", "dv" };

struct result {
	float *v[PARTS];
	int64_t n[PARTS];
};

static void fill(float *x, int64_t n, uint32_t seed)
{
	for (int64_t i = 0; i < n; i++) {
		seed = seed * 1664525u + 1013904223u;
		x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
	}
}

static struct lk_seq *sequence(struct lk_dev *dev, const struct shape *s, int n, int behind)
{
	int32_t *pos = malloc((size_t)n * 4), *seg = malloc((size_t)n * 4);
	struct lk_seq *q;
	for (int i = 0; i < n; i++) {
		pos[i] = s->doc ? i % s->doc : i + behind;
		seg[i] = s->doc ? i / s->doc : 0;
	}
	assert_int_equal(lk_seq_new(dev, &q, n, pos, seg), 0);
	free(pos);
	free(seg);
	return q;
}

/* Host devices: their memory is the host's. Gradients begin at numbers that are not zero, since they are added into. */
static struct result compute(const char *spec, int threads, const struct shape *s)
{
	struct lk_dev *dev;
	char why[256];
	if (lk_dev_open(&dev, spec, threads, why, sizeof why))
		fail_msg("%s: %s", spec, why);
	int64_t nq = (int64_t)s->tq * s->h * s->d, nk = (int64_t)s->tk * s->hk * s->d;
	struct result r = { .n = { nq, (int64_t)s->tq * s->h, nq, nk, nk } };
	float *in = malloc((size_t)(2 * nq + 2 * nk + s->tq * s->h) * sizeof *in), *delta = in + 2 * nq + 2 * nk;
	fill(in, 2 * nq + 2 * nk, 7);
	for (int i = 0; i < PARTS; i++) {
		r.v[i] = malloc((size_t)r.n[i] * sizeof **r.v);
		fill(r.v[i], r.n[i], 11 + (uint32_t)i);
	}
	struct lk_attn a = { .q = lk_view3(in, LK_F32, s->tq, s->h, s->d),
			     .k = lk_view3(in + nq, LK_F32, s->tk, s->hk, s->d),
			     .v = lk_view3(in + nq + nk, LK_F32, s->tk, s->hk, s->d),
			     .scale = (float)(1 / sqrt((double)s->d)), .causal = s->causal };
	struct lk_view dout = lk_view3(in + nq + 2 * nk, LK_F32, s->tq, s->h, s->d), v[PARTS];
	for (int i = 0; i < PARTS; i++)
		v[i] = lk_view3(r.v[i], LK_F32, i < DK ? s->tq : s->tk, i < DK ? s->h : s->hk, s->d);
	struct lk_seq *qs = sequence(dev, s, s->tq, s->tk > s->tq ? s->tk - s->tq : 0), *ks = sequence(dev, s, s->tk, 0);
	a.qs = qs;
	a.ks = ks;
	assert_int_equal(lk_attn_once(dev, &a, &v[O], r.v[LSE]), 0);
	assert_int_equal(lk_attn_delta(dev, delta, &v[O], &dout), 0);
	assert_int_equal(lk_attn_bwd(dev, &a, &dout, r.v[LSE], delta, &v[DQ], &v[DK], &v[DV]), 0);
	lk_seq_free(qs);
	lk_seq_free(ks);
	free(in);
	lk_dev_close(dev);
	return r;
}

static void result_free(struct result *r)
{
	for (int i = 0; i < PARTS; i++)
		free(r->v[i]);
}

static double apart(const float *a, const float *b, int64_t n)
{
	double d = 0, size = 1e-30;
	for (int64_t i = 0; i < n; i++) {
		d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
		size += (double)b[i] * (double)b[i];
	}
	return sqrt(d / size);
}

static void same(const struct shape *s, int threads, const struct result *a, const struct result *b, int from, int to,
		 const char *what)
{
	for (int i = from; i < to; i++)
		if (memcmp(a->v[i], b->v[i], (size_t)a->n[i] * sizeof(float)))
			fail_msg("%s on %d threads: %s %s", s->name, threads, parts[i], what);
}

static void check_shape(const struct shape *s)
{
	struct result ref = compute("ref", 0, s), one = { 0 };
	for (int t = 0; t < TEAMS; t++) {
		struct result a = compute("cpu", teams[t], s), b = compute("cpu", teams[t], s);
		for (int i = 0; i < PARTS; i++) {
			double d = apart(a.v[i], ref.v[i], a.n[i]);
			if (!(d < 5e-6))
				fail_msg("%s on %d threads: %s differs from ref by %g", s->name, teams[t], parts[i], d);
		}
		same(s, teams[t], &a, &b, O, PARTS, "is not the same the second time");
		result_free(&b);
		if (t == 0) {
			one = a;
			continue;
		}
		same(s, teams[t], &a, &one, O, PARTS, "differs from that of one thread");
		result_free(&a);
	}
	result_free(&one);
	result_free(&ref);
}

static void check_all(void)
{
	for (int i = 0; i < SHAPES; i++)
		check_shape(&shapes[i]);
}

static void any_number_of_threads(void **state)
{
	(void)state;
	check_all();
}

/* The plainest instruction set has tiles of other sizes. */
static void any_number_of_threads_base(void **state)
{
	(void)state;
	setenv("LWM_ISA", "base", 1);
	check_all();
	unsetenv("LWM_ISA");
}

/* ---- what is left out ---- */

static int sees(const struct lk_attn *a, int64_t t, int64_t s)
{
	return a->qs->seg[t] >= 0 && a->qs->seg[t] == a->ks->seg[s] && (!a->causal || a->ks->pos[s] <= a->qs->pos[t]);
}

/* Pairs (query tile, key tile) with a visible pair of tokens, token by token. */
static int64_t visible_pairs(const struct lk_attn_plan *p)
{
	int64_t n = 0;
	for (int64_t i = 0; i < p->nqtiles; i++) {
		const struct lk_attn_qtile *q = &p->qtiles[i];
		int64_t from = p->groups[q->g0].q0, to = p->groups[q->g1 - 1].q0 + p->groups[q->g1 - 1].n;
		for (int64_t k = 0; k < p->nktiles; k++) {
			int found = 0;
			for (int64_t t = from; t < to && !found; t++)
				for (int64_t s = p->ktiles[k].k0; s < p->ktiles[k].k0 + p->ktiles[k].n && !found; s++)
					found = sees(p->a, t, s);
			n += found;
		}
	}
	return n;
}

/* Of documents of 240 tokens end to end, tiles of keys end with them, so summaries are exact: no pair more is computed than
 * has something in it. The numbers beside it are of 48 queries and 240 keys a tile. */
static void pairs_that_nobody_sees_are_left_out(void **state)
{
	static const struct {
		int n, doc, causal;
		int64_t pairs;
	} rows[] = { { 960, 0, 1, 50 }, { 960, 0, 0, 80 }, { 960, 240, 1, 20 }, { 960, 480, 0, 40 }, { 960, 480, 1, 30 } };
	struct lk_dev *dev;
	char why[256];
	(void)state;
	assert_int_equal(lk_dev_open(&dev, "cpu", 1, why, sizeof why), 0);
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct shape s = { .name = "", .doc = rows[i].doc };
		struct lk_seq *q = sequence(dev, &s, rows[i].n, 0);
		struct lk_attn a = { .qs = q, .ks = q, .causal = rows[i].causal };
		struct lk_attn_plan p = { .a = &a, .bk = 240, .gw = 48, .dp = 64, .tile_groups = 1 };
		void *room = malloc(lk_attn_plan_bytes(&a, 16));
		int64_t pairs = 0;
		lk_attn_plan_make(&p, 16, room);
		for (int64_t k = 0; k < p.nqtiles; k++)
			pairs += p.qtiles[k].pairs;
		assert_int_equal(pairs, visible_pairs(&p));
		assert_int_equal(pairs, rows[i].pairs);
		free(room);
		lk_seq_free(q);
	}
	lk_dev_close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(any_number_of_threads), cmocka_unit_test(any_number_of_threads_base),
					    cmocka_unit_test(pairs_that_nobody_sees_are_left_out) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
