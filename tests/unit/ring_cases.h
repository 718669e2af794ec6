/* ring_cases.h - a split sequence against an unsplit one; the same cases over threads and over MPI. */
#ifndef LWM_TEST_RING_CASES_H
#define LWM_TEST_RING_CASES_H

#include "common/comm/ring_deal.h"
#include "tests/unit/llama_fixture.h"

enum { RING_SEQ = 96, RING_ROWS = 2 };

struct ring_case {
	const char *name;
	int lengths[RING_ROWS][4], docs[RING_ROWS];
	bool no_causal, recompute;
	int groups; /* of heads */
};

/* One document a row; several documents; many short ones, most block pairs empty, one row nearly all padding. */
static const struct ring_case ring_cases[] = {
	{ "whole rows", { { 96 }, { 96 } }, { 1, 1 }, false, false, 1 },
	{ "packed rows", { { 50, 7, 30 }, { 3, 93 } }, { 3, 2 }, false, true, 1 },
	{ "short documents", { { 5, 11, 8, 6 }, { 2 } }, { 4, 1 }, false, false, 1 },
	{ "not causal", { { 60, 36 }, { 90 } }, { 2, 1 }, true, true, 1 },
	{ "heads in groups", { { 40, 17, 30 }, { 81, 5 } }, { 3, 2 }, false, true, 2 },
};
enum { N_RING_CASES = sizeof ring_cases / sizeof ring_cases[0] };

/* Both rows end to end. */
static inline struct batch ring_batch(const struct lwm_llama_cfg *c, const struct ring_case *k)
{
	struct batch x = batch_alloc(RING_SEQ * RING_ROWS);

	for (int r = 0; r < RING_ROWS; r++) {
		struct batch y = batch_docs(c, RING_SEQ, k->lengths[r], k->docs[r], 10 * r);
		size_t at = (size_t)r * RING_SEQ;

		memcpy(x.tokens + at, y.tokens, RING_SEQ * 4);
		memcpy(x.targets + at, y.targets, RING_SEQ * 4);
		memcpy(x.seg + at, y.seg, RING_SEQ * 4);
		memcpy(x.pos + at, y.pos, RING_SEQ * 4);
		memcpy(x.weights + at, y.weights, RING_SEQ * 4);
		batch_free(&y);
	}
	return x;
}

/* What rank r of n holds of it. */
static inline struct batch ring_slice(const struct batch *x, enum lwm_ring_layout layout, int n, int r)
{
	struct batch y = batch_alloc(RING_SEQ / n * RING_ROWS);
	struct lwm_ring_deal d = { 0 };
	struct lwm_err e = { 0 };
	int64_t i = 0;

	if (lwm_ring_deal_make(&d, layout, RING_ROWS, RING_SEQ, x->seg, n, &e))
		fail_msg("%s", e.msg);
	for (int64_t k = d.first[r]; k < d.first[r + 1]; k++)
		for (int64_t j = 0; j < d.run[k].count; j++, i++) {
			int64_t g = d.run[k].from + j * d.run[k].step;

			y.tokens[i] = x->tokens[g];
			y.targets[i] = x->targets[g];
			y.seg[i] = x->seg[g];
			y.pos[i] = x->pos[g];
			y.weights[i] = x->weights[g];
		}
	lwm_ring_deal_release(&d);
	return y;
}

/* Collective: one case, one layout. The sum of the ranks' losses and gradients is compared with one rank's. */
static inline int ring_check(struct lwm_comm *c, const char *dev_name, const struct ring_case *k,
			     enum lwm_ring_layout layout, struct lwm_err *e)
{
	struct lwm_llama_run alone = { .no_causal = k->no_causal }, split = alone;
	int n = lwm_comm_size(c), rank = lwm_comm_rank(c), rc = 0;
	struct lwm_llama_cfg cfg = tiny_cfg();
	struct batch all = ring_batch(&cfg, k), mine = ring_slice(&all, layout, n, rank);
	struct lk_dev *dev = device(dev_name, 1);
	struct result a = { 0 }, b = { 0 };
	int64_t total;
	float *w = weights_new(&cfg, &total);
	struct lwm_devcomm *around = NULL;
	double diff;

	LWM_GO(lwm_devcomm_new(&around, dev, c, e));
	split.ring = around;
	split.recompute = k->recompute;
	split.head_groups = k->groups;
	LWM_GO(step_on(dev, &cfg, alone, &all.b, w, true, &a, e));
	LWM_GO(step_on(dev, &cfg, split, &mine.b, w, true, &b, e));
	LWM_GO(lwm_comm_sum_f64(c, &b.loss, 1, e));
	LWM_GO(lwm_comm_sum_f32(c, b.grad, total, e));
	diff = worst(b.grad, a.grad, total);
	if (!(fabs(a.loss - b.loss) < 1e-5 * fabs(a.loss)) || !(diff < 2e-5))
		rc = lwm_fail(e, LWM_ENO, "%s, %s, %s, %d ranks: loss %.9g, alone %.9g; gradients differ by %g",
			      k->name, dev_name, lwm_ring_layouts[layout], n, b.loss, a.loss, diff);
out:
	free(a.grad);
	free(b.grad);
	free(w);
	batch_free(&all);
	batch_free(&mine);
	lwm_devcomm_free(around);
	lk_dev_close(dev);
	return rc < 0 ? -LWM_ENUMERIC : 0;
}

static inline int ring_all(struct lwm_comm *c, const char *dev_name, struct lwm_err *e)
{
	for (int i = 0; i < N_RING_CASES; i++)
		for (int layout = LWM_RING_CONTIGUOUS; layout <= LWM_RING_BALANCED; layout++) {
			int rc = lwm_agree(c, ring_check(c, dev_name, &ring_cases[i], layout, e), e);

			if (rc < 0)
				return rc;
		}
	return 0;
}

#endif
