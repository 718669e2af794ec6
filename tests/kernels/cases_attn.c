/* cases_attn.c - block attention: shapes, masks, carried state, partial results, gradients, documents, rings. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kernels/ops.h"

#define N(a) ((int)(sizeof(a) / sizeof *(a)))

static const char sums[] = "fp32 sums of up to a thousand weights; exp of fp32 scores";
static const char sharp[] = "scores of tens: their fp32 rounding is an error of the weights";
static const char split[] = "ref sees the whole at once, the tested device in parts, whose sums are fp32";
static const char halves[] = "two weighted terms, weights from fp32 exponentials";
static const char steps[] = "five-point differences of fp32 outputs";

enum layout {
	PLAIN,    /* positions ascend, one segment; queries are the last of the keys */
	DOCS,     /* documents of 77 tokens, positions start again */
	PADDED,   /* the same with padding inside and at the end */
	TINY,     /* documents of 3 */
	REVERSED, /* positions descend */
	STRIPED,  /* every other position: queries 1, 3, 5 ..., keys 0, 2, 4 ... */
	RANDOM,   /* any positions, three segments and padding, in no order */
	APART,    /* queries and keys of different segments: nobody sees anything */
	ZIGZAG,   /* the order that a ring of `parts` ranks keeps a row in */
};

struct shape {
	int tq, tk, h, hk, d, causal;
	enum layout layout;
	int pad;      /* gap after each head */
	double sharp; /* 0 or 1: the usual scale; larger: times that */
	int parts;    /* carried, merge, ring: blocks */
	int end;      /* lets a list of fewer members end in a comma */
};

/* ---- sequences ---- */

enum { DOC = 77 };

struct side {
	int32_t *pos, *seg;
};

static void zigzag(int32_t *pos, int n, int parts)
{
	for (int r = 0, at = 0; r < parts; r++)
		for (int half = 0; half < 2; half++) {
			int c = half ? 2 * parts - 1 - r : r;

			for (int i = n * c / (2 * parts); i < n * (c + 1) / (2 * parts); i++)
				pos[at++] = i;
		}
}

static void lay_out(struct ops_run *r, const struct shape *c, struct side *s, int n, int keys)
{
	for (int i = 0; i < n; i++) {
		s->pos[i] = i + (!keys && c->tk > c->tq ? c->tk - c->tq : 0);
		s->seg[i] = 0;
		if (c->layout == DOCS || c->layout == PADDED) {
			s->pos[i] = i % DOC;
			s->seg[i] = i / DOC;
		}
		if (c->layout == PADDED && (i % DOC > 70 || i > n - 9))
			s->seg[i] = -1 - i % 2;
		if (c->layout == TINY) {
			s->pos[i] = i % 3;
			s->seg[i] = i / 3;
		}
		if (c->layout == REVERSED)
			s->pos[i] = n - 1 - i;
		if (c->layout == STRIPED)
			s->pos[i] = 2 * i + !keys;
		if (c->layout == RANDOM) {
			s->pos[i] = (int32_t)(ops_u32(r) % (uint32_t)(n + 1));
			s->seg[i] = (int32_t)(ops_u32(r) % 4) - 1;
		}
		if (c->layout == APART)
			s->seg[i] = keys;
	}
	if (c->layout == ZIGZAG)
		zigzag(s->pos, n, c->parts);
}

static struct side side_new(struct ops_run *r, const struct shape *c, int keys)
{
	int n = keys ? c->tk : c->tq;
	struct side s = { calloc((size_t)n + 1, sizeof *s.pos), calloc((size_t)n + 1, sizeof *s.seg) };

	if (s.pos && s.seg)
		lay_out(r, c, &s, n, keys);
	return s;
}

/* ---- one problem ---- */

struct problem {
	struct lk_attn a;
	struct lk_seq *qs, *ks;
	struct side side[2];
	float *m, *l, *acc, *lse, *delta, *lse2; /* of all queries; device memory that is not compared */
	void *mem;
};

static int problem_open(struct ops_run *r, const struct shape *c, struct problem *p)
{
	size_t rows = (size_t)(c->tq * c->h), each = rows + 16;
	int rc;

	memset(p, 0, sizeof *p);
	ops_pad(r, c->pad);
	p->a.q = ops_in(r, OPS_ACT, 3, c->tq, c->h, c->d);
	p->a.k = ops_in(r, OPS_ACT, 3, c->tk, c->hk, c->d);
	p->a.v = ops_in(r, OPS_ACT, 3, c->tk, c->hk, c->d);
	p->a.scale = (float)((c->sharp > 0 ? c->sharp : 1) / sqrt(c->d));
	p->a.causal = c->causal;
	p->side[0] = side_new(r, c, 0);
	p->side[1] = side_new(r, c, 1);
	if (!p->side[0].seg || !p->side[1].seg || !p->side[0].pos || !p->side[1].pos)
		return LK_ENOMEM;
	rc = lk_seq_new(r->dev, &p->qs, c->tq, p->side[0].pos, c->layout == PLAIN ? NULL : p->side[0].seg);
	if (!rc)
		rc = lk_seq_new(r->dev, &p->ks, c->tk, p->side[1].pos, c->layout == PLAIN ? NULL : p->side[1].seg);
	if (!rc)
		rc = lk_mem_alloc(r->dev, sizeof(float) * (5 * each + rows * (size_t)c->d), &p->mem);
	if (rc)
		return rc;
	p->a.qs = p->qs;
	p->a.ks = p->ks;
	p->m = p->mem;
	p->l = p->m + each;
	p->lse = p->l + each;
	p->lse2 = p->lse + each;
	p->delta = p->lse2 + each;
	p->acc = p->delta + each;
	return 0;
}

static int problem_close(struct ops_run *r, struct problem *p, int rc)
{
	int sync = lk_sync(r->dev); // queued work may still read the sequences

	lk_seq_free(p->qs);
	lk_seq_free(p->ks);
	lk_mem_free(r->dev, p->mem);
	for (int i = 0; i < 2; i++) {
		free(p->side[i].pos);
		free(p->side[i].seg);
	}
	return rc ? rc : sync;
}

static struct lk_view rows(const struct lk_view *v, int64_t from, int64_t n)
{
	struct lk_view part = *v;

	part.data = (char *)v->data + (size_t)(from * v->stride[0]) * lk_dtype_size(v->dtype);
	part.n[0] = n;
	return part;
}

/* What happens in parts on the tested device happens at once on ref. */
static int whole(const struct ops_run *r)
{
	return strncmp(lk_dev_name(r->dev), "ref", 3) == 0;
}

/* ---- forward ---- */

static int once(struct ops_run *r, const void *arg)
{
	const struct shape *c = arg;
	struct lk_view o = ops_out(r, "o", OPS_ACT, 3, c->tq, c->h, c->d);
	struct lk_view lse = ops_out(r, "lse", LK_F32, 2, c->tq, c->h);
	struct problem p;
	int rc = problem_open(r, c, &p);

	if (!rc)
		rc = lk_attn_once(r->dev, &p.a, &o, lse.data);
	return problem_close(r, &p, rc);
}

/* Queries [q0, q0 + nq) against keys [k0, k0 + nk), as a problem of its own; frees its sequences in part_close. */
static int part_open(struct ops_run *r, const struct problem *p, int64_t q0, int64_t nq, int64_t k0, int64_t nk,
		     struct problem *part)
{
	int rc;

	memset(part, 0, sizeof *part);
	part->a = p->a;
	part->a.q = rows(&p->a.q, q0, nq);
	part->a.k = rows(&p->a.k, k0, nk);
	part->a.v = rows(&p->a.v, k0, nk);
	rc = lk_seq_new(r->dev, &part->qs, nq, p->side[0].pos + q0, p->side[0].seg + q0);
	if (!rc)
		rc = lk_seq_new(r->dev, &part->ks, nk, p->side[1].pos + k0, p->side[1].seg + k0);
	part->a.qs = part->qs;
	part->a.ks = part->ks;
	return rc;
}

/* Queries [q0, q0 + nq) against all keys, in `parts` blocks, the last block first. */
static int fold_blocks(struct ops_run *r, const struct shape *c, const struct problem *p, int64_t q0, int64_t nq,
		       const struct lk_view *o, float *lse)
{
	struct lk_attn_state st = { p->m + q0 * c->h, p->l + q0 * c->h, p->acc + q0 * c->h * c->d };
	struct lk_view part_o = rows(o, q0, nq);
	int rc = lk_attn_begin(r->dev, &st, nq, c->h, c->d);

	for (int i = c->parts - 1; !rc && i >= 0; i--) {
		int64_t from = (int64_t)c->tk * i / c->parts, to = (int64_t)c->tk * (i + 1) / c->parts;
		struct problem part;

		rc = part_open(r, p, q0, nq, from, to - from, &part);
		if (!rc && (i == 0 || lk_seq_sees(part.qs, part.ks, c->causal)))
			rc = lk_attn_fwd(r->dev, &part.a, &st);
		rc = problem_close(r, &part, rc);
	}
	return rc ? rc : lk_attn_end(r->dev, &part_o, lse + q0 * c->h, &st);
}

static int carried(struct ops_run *r, const void *arg)
{
	const struct shape *c = arg;
	struct lk_view o = ops_out(r, "o", OPS_ACT, 3, c->tq, c->h, c->d);
	struct lk_view lse = ops_out(r, "lse", LK_F32, 2, c->tq, c->h);
	struct problem p;
	int rc = problem_open(r, c, &p);

	if (!rc && whole(r))
		rc = lk_attn_once(r->dev, &p.a, &o, lse.data);
	else if (!rc)
		rc = fold_blocks(r, c, &p, 0, c->tq, &o, lse.data);
	return problem_close(r, &p, rc);
}

/* Parts of the keys joined by lk_attn_merge. Its o is fp32, so this is for devices that compute in fp32. */
static int merged(struct ops_run *r, const void *arg)
{
	const struct shape *c = arg;
	struct lk_view o = ops_out(r, "o", LK_F32, 3, c->tq, c->h, c->d);
	struct lk_view lse = ops_out(r, "lse", LK_F32, 2, c->tq, c->h);
	struct problem p;
	int rc = problem_open(r, c, &p);

	for (int i = 0; !rc && i < c->parts; i++) {
		int64_t from = (int64_t)c->tk * i / c->parts, to = (int64_t)c->tk * (i + 1) / c->parts;
		struct lk_view o2 = lk_view3(p.acc, LK_F32, c->tq, c->h, c->d);
		struct problem part;

		rc = part_open(r, &p, 0, c->tq, from, to - from, &part);
		if (!rc)
			rc = lk_attn_once(r->dev, &part.a, i ? &o2 : &o, i ? p.lse2 : lse.data);
		if (!rc && i)
			rc = lk_attn_merge(r->dev, o.data, lse.data, o2.data, p.lse2, c->tq, c->h, c->d);
		rc = problem_close(r, &part, rc);
	}
	return problem_close(r, &p, rc);
}

/* The queries stay, blocks of keys come and go: what a backend keeps for a pair of sequences must go with either. */
static int passing(struct ops_run *r, const void *arg)
{
	const struct shape *c = arg;
	struct lk_view o = ops_out(r, "o", OPS_ACT, 3, c->tq, c->h, c->d);
	struct lk_view lse = ops_out(r, "lse", LK_F32, 2, c->tq, c->h);
	struct problem p;
	int rc = problem_open(r, c, &p);
	struct lk_attn_state st = { p.m, p.l, p.acc };

	if (rc || whole(r))
		return problem_close(r, &p, rc ? rc : lk_attn_once(r->dev, &p.a, &o, lse.data));
	rc = lk_attn_begin(r->dev, &st, c->tq, c->h, c->d);
	for (int i = 0; !rc && i < c->parts; i++) {
		int64_t from = (int64_t)c->tk * i / c->parts, n = (int64_t)c->tk * (i + 1) / c->parts - from;
		struct lk_attn a = p.a;
		struct lk_seq *ks = NULL;

		a.k = rows(&p.a.k, from, n);
		a.v = rows(&p.a.v, from, n);
		rc = lk_seq_new(r->dev, &ks, n, p.side[1].pos + from, p.side[1].seg + from);
		a.ks = ks;
		if (!rc)
			rc = lk_attn_fwd(r->dev, &a, &st);
		lk_seq_free(ks);
	}
	return problem_close(r, &p, rc ? rc : lk_attn_end(r->dev, &o, lse.data, &st));
}

/* Two partial results of given log-sum-exps, some of which saw nothing. */
static int join(struct ops_run *r, const void *arg)
{
	const struct shape *c = arg;
	struct lk_view o = ops_inout(r, "o", LK_F32, 3, c->tq, c->h, c->d);
	struct lk_view o2 = ops_in(r, LK_F32, 3, c->tq, c->h, c->d), lse = ops_out(r, "lse", LK_F32, 2, c->tq, c->h), from[2];
	int n = c->tq * c->h, rc;
	float *x = calloc((size_t)n, sizeof *x);

	if (!x)
		return LK_ENOMEM;
	for (int k = 0; k < 2; k++) {
		for (int i = 0; i < n; i++)
			x[i] = ops_u32(r) % 4 ? (float)(20 * ops_uniform(r)) : -INFINITY;
		from[k] = ops_given_f32(r, LK_F32, x, 2, c->tq, c->h);
	}
	free(x);
	rc = lk_copy(r->dev, lse.data, from[0].data, (size_t)n * sizeof(float));
	return rc ? rc : lk_attn_merge(r->dev, o.data, lse.data, o2.data, from[1].data, c->tq, c->h, c->d);
}

/* ---- backward ---- */

struct grads {
	struct lk_view o, dout, dq, dk, dv;
};

static struct grads grads_new(struct ops_run *r, const struct shape *c)
{
	struct grads g;

	g.o = ops_out(r, "o", OPS_ACT, 3, c->tq, c->h, c->d);
	g.dout = ops_in(r, OPS_ACT, 3, c->tq, c->h, c->d);
	g.dq = ops_inout(r, "dq", LK_F32, 3, c->tq, c->h, c->d);
	g.dk = ops_inout(r, "dk", LK_F32, 3, c->tk, c->hk, c->d);
	g.dv = ops_inout(r, "dv", LK_F32, 3, c->tk, c->hk, c->d);
	return g;
}

/* Gradients of queries [q0, ...) against keys [k0, ...); lse and delta are those of the whole rows. */
static int bwd_part(struct ops_run *r, const struct shape *c, const struct problem *p, const struct grads *g,
		    int64_t q0, int64_t nq, int64_t k0, int64_t nk)
{
	struct lk_view dout = rows(&g->dout, q0, nq), dq = rows(&g->dq, q0, nq), dk = rows(&g->dk, k0, nk);
	struct lk_view dv = rows(&g->dv, k0, nk);
	struct problem part;
	int rc = part_open(r, p, q0, nq, k0, nk, &part);

	if (!rc && lk_seq_sees(part.qs, part.ks, c->causal))
		rc = lk_attn_bwd(r->dev, &part.a, &dout, p->lse + q0 * c->h, p->delta + q0 * c->h, &dq, &dk, &dv);
	return problem_close(r, &part, rc);
}

static int both_at_once(struct ops_run *r, const struct problem *p, const struct grads *g)
{
	int rc = lk_attn_once(r->dev, &p->a, &g->o, p->lse);

	if (!rc)
		rc = lk_attn_delta(r->dev, p->delta, &g->o, &g->dout);
	return rc ? rc : lk_attn_bwd(r->dev, &p->a, &g->dout, p->lse, p->delta, &g->dq, &g->dk, &g->dv);
}

static int bwd(struct ops_run *r, const void *arg)
{
	const struct shape *c = arg;
	struct problem p;
	struct grads g;
	int rc;

	ops_pad(r, c->pad);
	g = grads_new(r, c);
	rc = problem_open(r, c, &p);
	if (!rc)
		rc = both_at_once(r, &p, &g);
	return problem_close(r, &p, rc);
}

/* Every rank of a ring keeps its block of queries and meets all blocks of keys: the parts must sum to the whole. */
static int ring(struct ops_run *r, const void *arg)
{
	const struct shape *c = arg;
	struct grads g = grads_new(r, c);
	struct problem p;
	int rc = problem_open(r, c, &p);

	if (rc || whole(r))
		return problem_close(r, &p, rc ? rc : both_at_once(r, &p, &g));
	for (int i = 0; !rc && i < c->parts; i++) {
		int64_t from = (int64_t)c->tq * i / c->parts, to = (int64_t)c->tq * (i + 1) / c->parts;

		rc = fold_blocks(r, c, &p, from, to - from, &g.o, p.lse);
	}
	if (!rc)
		rc = lk_attn_delta(r->dev, p.delta, &g.o, &g.dout);
	for (int i = 0; !rc && i < c->parts * c->parts; i++) {
		int64_t q = i / c->parts, k = i % c->parts;
		int64_t q0 = c->tq * q / c->parts, q1 = c->tq * (q + 1) / c->parts;
		int64_t k0 = c->tk * k / c->parts, k1 = c->tk * (k + 1) / c->parts;

		rc = bwd_part(r, c, &p, &g, q0, q1 - q0, k0, k1 - k0);
	}
	return problem_close(r, &p, rc);
}

/* Documents that share a row must come out as if each were alone. */
static int documents(struct ops_run *r, const void *arg)
{
	const struct shape *c = arg;
	struct grads g = grads_new(r, c);
	struct problem p;
	int rc = problem_open(r, c, &p);

	if (rc || whole(r))
		return problem_close(r, &p, rc ? rc : both_at_once(r, &p, &g));
	for (int64_t from = 0; !rc && from < c->tq; from += DOC) {
		int64_t n = c->tq - from < DOC ? c->tq - from : DOC;
		struct lk_view o = rows(&g.o, from, n), dout = rows(&g.dout, from, n);
		struct problem doc;

		rc = part_open(r, &p, from, n, from, n, &doc);
		if (!rc)
			rc = lk_attn_once(r->dev, &doc.a, &o, p.lse + from * c->h);
		if (!rc)
			rc = lk_attn_delta(r->dev, p.delta + from * c->h, &o, &dout);
		rc = problem_close(r, &doc, rc);
		if (!rc)
			rc = bwd_part(r, c, &p, &g, from, n, from, n);
	}
	return problem_close(r, &p, rc);
}

/* ---- finite differences ---- */

static int grad(struct ops_run *r, const void *arg)
{
	const struct shape *c = arg;
	struct problem p;
	int rc = problem_open(r, c, &p);
	struct lk_view o, dout;

	p.a.q = ops_var(r, "q", 3, c->tq, c->h, c->d);
	p.a.k = ops_var(r, "k", 3, c->tk, c->hk, c->d);
	p.a.v = ops_var(r, "v", 3, c->tk, c->hk, c->d);
	o = ops_out(r, "o", LK_F32, 3, c->tq, c->h, c->d);
	dout = ops_in(r, LK_F32, 3, c->tq, c->h, c->d);
	if (!rc)
		rc = lk_attn_once(r->dev, &p.a, &o, p.lse);
	ops_loss(r, &o, &dout);
	if (!rc && r->want_grad) {
		struct lk_view dq = ops_zeros(r, "dq", LK_F32, 3, c->tq, c->h, c->d);
		struct lk_view dk = ops_zeros(r, "dk", LK_F32, 3, c->tk, c->hk, c->d);
		struct lk_view dv = ops_zeros(r, "dv", LK_F32, 3, c->tk, c->hk, c->d);

		rc = lk_attn_delta(r->dev, p.delta, &o, &dout);
		if (!rc)
			rc = lk_attn_bwd(r->dev, &p.a, &dout, p.lse, p.delta, &dq, &dk, &dv);
		ops_grad(r, "q", &dq);
		ops_grad(r, "k", &dk);
		ops_grad(r, "v", &dv);
	}
	return problem_close(r, &p, rc);
}

/* ---- the list ---- */

#define S(...) (&(const struct shape){ __VA_ARGS__, .end = 0 })
/* forward and backward of one shape */
#define BOTH(name, s) \
	{ "once " name, OPS_CMP, once, s, 2e-6, 1e-2, sums }, { "bwd " name, OPS_CMP, bwd, s, 5e-6, 2e-2, sums }
#define FWD(name, run, s, why) { name, OPS_CMP, run, s, 3e-6, 1e-2, why }
#define PARTS(name, run, s) { name, OPS_CMP, run, s, 6e-6, 2e-2, split }
#define GRAD(name, s) { name, OPS_GRAD, grad, s, 2e-3, 0, steps }

static const struct ops_case cases[] = {
	BOTH("1 token", S(1, 1, 8, 8, 64, 0)),
	BOTH("65 causal", S(65, 65, 2, 2, 64, 1)),
	BOTH("48 causal d32", S(48, 48, 3, 3, 32, 1)),
	BOTH("301 causal d64", S(301, 301, 2, 2, 64, 1)),
	BOTH("301 full d128", S(301, 301, 1, 1, 128, 0)),
	BOTH("200 causal d96", S(200, 200, 2, 2, 96, 1)),
	BOTH("130 causal d100, gaps", S(130, 130, 2, 1, 100, 1, .pad = 12)),
	BOTH("97 full d8", S(97, 97, 2, 2, 8, 0)),
	BOTH("99 causal d20", S(99, 99, 2, 2, 20, 1)),
	BOTH("grouped heads", S(150, 150, 6, 2, 64, 1)),
	BOTH("one key head, gaps", S(70, 70, 4, 1, 40, 1, .pad = 4)),
	BOTH("few queries", S(5, 400, 2, 2, 64, 1)),
	BOTH("few queries, grouped", S(3, 700, 8, 2, 64, 1)),
	BOTH("more queries than keys", S(333, 100, 2, 2, 64, 1)),
	BOTH("documents", S(500, 500, 2, 2, 64, 1, .layout = DOCS)),
	BOTH("documents, full", S(400, 400, 2, 1, 64, 0, .layout = DOCS)),
	BOTH("documents with padding", S(400, 400, 2, 2, 64, 1, .layout = PADDED)),
	BOTH("tiny documents", S(200, 200, 2, 2, 64, 1, .layout = TINY)),
	BOTH("descending positions", S(250, 250, 2, 2, 64, 1, .layout = REVERSED)),
	BOTH("striped positions", S(250, 250, 2, 2, 64, 1, .layout = STRIPED)),
	BOTH("scattered segments", S(230, 260, 2, 2, 64, 1, .layout = RANDOM)),
	BOTH("scattered segments, full", S(130, 160, 2, 2, 48, 0, .layout = RANDOM)),
	BOTH("zigzag positions", S(480, 480, 2, 2, 64, 1, .layout = ZIGZAG, .parts = 4)),
	BOTH("nobody sees anything", S(70, 90, 2, 2, 64, 1, .layout = APART)),
	BOTH("261 causal d128, grouped", S(261, 261, 4, 2, 128, 1)),
	BOTH("d128, tiles cut on both sides", S(143, 371, 2, 1, 128, 1)),
	BOTH("documents with padding, d128", S(330, 330, 2, 1, 128, 1, .layout = PADDED)),
	BOTH("scattered segments, d96", S(170, 203, 3, 1, 96, 1, .layout = RANDOM)),
	BOTH("zigzag positions, d96", S(288, 288, 2, 2, 96, 1, .layout = ZIGZAG, .parts = 3)),
	BOTH("61 causal d7", S(61, 75, 2, 1, 7, 1)),
	BOTH("97 full d30, gaps", S(97, 70, 2, 2, 30, 0, .pad = 3)),
	BOTH("17 queries", S(17, 200, 2, 1, 64, 1)),
	BOTH("no keys", S(20, 0, 2, 2, 64, 1)),
	FWD("one query, grouped", once, S(1, 1500, 8, 2, 64, 1), sums),
	FWD("one query, d100", once, S(1, 1100, 2, 2, 100, 1), sums),
	FWD("one query, scattered segments", once, S(1, 700, 3, 3, 64, 1, .layout = RANDOM), sums),
	FWD("one query, many keys", once, S(1, 5003, 2, 1, 64, 1), sums),
	FWD("16 queries, grouped", once, S(16, 300, 8, 1, 128, 1), sums),
	FWD("3 queries, d96, gaps", once, S(3, 310, 6, 2, 96, 1, .pad = 8), sums),
	FWD("9 queries, documents", once, S(9, 400, 2, 2, 32, 1, .layout = DOCS), sums),
	FWD("one query sees nothing", once, S(1, 700, 3, 3, 64, 1, .layout = APART), sums),
	FWD("one query, no keys", once, S(1, 0, 2, 2, 64, 1), sums),
	{ "once sharp", OPS_CMP, once, S(200, 200, 2, 2, 64, 1, .sharp = 40), 2e-5, 3e-2, sharp },
	{ "bwd sharp", OPS_CMP, bwd, S(200, 200, 2, 2, 64, 1, .sharp = 40), 2e-5, 3e-2, sharp },
	FWD("carried 2 blocks", carried, S(200, 200, 2, 2, 64, 1, .parts = 2), split),
	FWD("carried 5 blocks", carried, S(301, 301, 2, 1, 64, 1, .layout = DOCS, .parts = 5), split),
	FWD("carried 3 blocks, scattered", carried, S(150, 250, 2, 2, 40, 1, .layout = RANDOM, .parts = 3), split),
	FWD("carried 4 blocks, one query", carried, S(1, 900, 4, 2, 64, 1, .parts = 4), split),
	FWD("carried 4 blocks, d128", carried, S(203, 415, 4, 2, 128, 1, .layout = REVERSED, .parts = 4), split),
	FWD("carried 3 blocks, d96, padding", carried, S(250, 250, 2, 1, 96, 1, .layout = PADDED, .parts = 3), split),
	FWD("carried 3 blocks, few queries", carried, S(6, 500, 4, 2, 96, 1, .layout = RANDOM, .parts = 3), split),
	FWD("carried, d7", carried, S(40, 90, 2, 1, 7, 1, .parts = 2), split),
	FWD("keys come and go", passing, S(150, 320, 2, 1, 64, 1, .layout = RANDOM, .parts = 5), split),
	FWD("keys come and go, documents", passing, S(200, 200, 2, 2, 64, 1, .layout = DOCS, .parts = 4), split),
	FWD("carried, nothing seen", carried, S(60, 60, 2, 2, 64, 1, .layout = APART, .parts = 2), split),
	FWD("carried sharp", carried, S(200, 200, 2, 2, 64, 1, .sharp = 10, .parts = 3), split),
	FWD("merge 3 parts", merged, S(40, 300, 2, 2, 64, 1, .parts = 3), split),
	FWD("merge 2 parts, scattered", merged, S(33, 200, 3, 3, 40, 1, .layout = RANDOM, .parts = 2), split),
	FWD("merge, nothing seen", merged, S(10, 20, 2, 2, 64, 1, .layout = APART, .parts = 2), split),
	FWD("join", join, S(37, 0, 3, 3, 64, 0), halves),
	FWD("join d20", join, S(11, 0, 2, 2, 20, 0), halves),
	FWD("merge 4 parts, one query", merged, S(1, 900, 4, 2, 64, 1, .parts = 4), split),
	PARTS("ring of 2, zigzag", ring, S(320, 320, 2, 2, 64, 1, .layout = ZIGZAG, .parts = 2)),
	PARTS("ring of 4, zigzag", ring, S(480, 480, 2, 1, 64, 1, .layout = ZIGZAG, .parts = 4)),
	PARTS("ring of 8, zigzag", ring, S(480, 480, 1, 1, 64, 1, .layout = ZIGZAG, .parts = 8)),
	PARTS("ring of 4, contiguous documents", ring, S(500, 500, 2, 2, 64, 1, .layout = DOCS, .parts = 4)),
	PARTS("documents alone", documents, S(400, 400, 2, 2, 64, 1, .layout = DOCS)),
	PARTS("ring of 3, d128", ring, S(390, 390, 4, 2, 128, 1, .layout = ZIGZAG, .parts = 3)),
	PARTS("documents alone, d100", documents, S(250, 250, 4, 2, 100, 1, .layout = DOCS)),
	GRAD("gradient causal", S(7, 7, 2, 1, 8, 1)),
	GRAD("gradient full", S(5, 9, 2, 2, 6, 0)),
	GRAD("gradient segments", S(12, 12, 1, 1, 8, 1, .layout = RANDOM)),
};

const struct ops_family ops_family_attn = { "attn", cases, N(cases) };
