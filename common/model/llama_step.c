/* llama_step.c - the frame of a step: what is checked before it, the order of its layers, and how its ranks agree on what became of
 * it. */
#include <inttypes.h>
#include <string.h>

#include "common/model/llama_int.h"

void lwm_pass_start(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w)
{
	m->rc = 0;
	memset(&m->err, 0, sizeof m->err);
	m->batch = b;
	m->n = b->n;
	m->w = w;
}

int lwm_pass_result(const struct lwm_llama *m, struct lwm_err *e)
{
	if (m->rc && e && !e->code)
		*e = m->err;
	return m->rc;
}

void lwm_pass_set(struct lwm_llama *m, int rc, const struct lwm_err *why)
{
	m->rc = rc;
	m->err = *why;
}

static int check_batch(const struct lwm_llama *m, const struct lwm_llama_batch *b, const struct lwm_supply *w, struct lwm_err *e)
{
	int64_t ids = lwm_llama_ids(&m->cfg);

	if (w->grads && !m->run.train)
		return lwm_fail(e, LWM_EINTERNAL, "gradients wanted from a model made for evaluation");
	if (b->n < 1 || b->n > m->run.tokens)
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " tokens in a step made for 1 to %" PRId64, b->n, m->run.tokens);
	if (b->n % m->cut.n)
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " tokens of a step cannot be divided over %d tensor-parallel ranks",
				b->n, m->cut.n);
	for (int64_t i = 0; i < b->n; i++)
		if (b->tokens[i] < 0 || b->tokens[i] >= ids)
			return lwm_fail(e, LWM_EDATA, "token %" PRId64 " has id %d, the model knows 0 to %" PRId64, i,
					(int)b->tokens[i], ids - 1);
	return 0;
}

/* This rank's outcome and that of the others: first of those that share the rows, then, each of them knowing that, of those that
 * share the model. */
static int agree_outcome(const struct lwm_llama *m, int rc, struct lwm_err *e)
{
	struct lwm_devcomm *groups[] = { m->run.ring, m->run.tp };

	for (int i = 0; i < 2; i++)
		if (groups[i] && lwm_comm_size(lwm_devcomm_comm(groups[i])) > 1)
			rc = lwm_agree(lwm_devcomm_comm(groups[i]), rc, e);
	return rc;
}

/* A number that says which batch it is. */
static int64_t batch_mark(const struct lwm_llama_batch *b)
{
	uint64_t mark = lwm_comm_mark(LWM_COMM_MARK ^ (uint64_t)b->n, b->tokens, b->n);

	mark = lwm_comm_mark(mark, b->seg, b->n);
	mark = lwm_comm_mark(mark, b->pos, b->n);
	if (b->targets && b->weights) {
		mark = lwm_comm_mark(mark, b->targets, b->n);
		mark = lwm_comm_mark(mark, b->weights, b->n);
	}
	return (int64_t)(mark >> 1);
}

/* Ranks that share the model compute with one batch: other tokens on one of them would be a wrong model without a sign of it. */
static int check_same_batch(const struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_err *e)
{
	int64_t mark, v[2];
	int rc = 0;

	if (m->cut.n == 1)
		return 0;
	mark = batch_mark(b);
	v[0] = mark;
	v[1] = -mark;
	LWM_TRY(lwm_comm_max_i64(lwm_devcomm_comm(m->run.tp), v, 2, e));
	if (v[0] != -v[1])
		rc = lwm_fail(e, LWM_EINTERNAL, "ranks that share the model were given different tokens");
	return agree_outcome(m, rc, e);
}

int lwm_llama_begin(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w, struct lwm_err *e)
{
	int rc = check_batch(m, b, w, e);

	lwm_pass_start(m, b, w);
	if (!rc)
		rc = lwm_loss_rows(m, b, e);
	rc = agree_outcome(m, rc, e);
	if (!rc)
		rc = check_same_batch(m, b, e);
	if (!rc && m->own && b->ring_pos)
		lwm_attn_ring_tell(m->own, b->ring_pos, b->ring_seg);
	if (!rc)
		rc = lwm_attn_begin(m->attention, b->n, b->pos, b->seg, e);
	if (m->cut.n > 1)
		rc = lwm_agree(lwm_devcomm_comm(m->run.tp), rc, e);
	return lwm_supply_agree(w, rc, e); /* those of a ring have agreed by now, those that exchange weights have not */
}

void lwm_fwd_layers(struct lwm_llama *m)
{
	for (int64_t l = 0; l < m->cfg.layers; l++) {
		struct lwm_layer y = lwm_layer_acquire(m, l, LWM_WEIGHTS);

		lwm_offload_fwd_begin(m, l);
		(m->plan.lean ? lwm_lean_forward : lwm_fwd_layer)(m, l, &y);
		lwm_layer_release(m, l, false);
		lwm_offload_fwd_end(m, l);
	}
}

void lwm_llama_forward(struct lwm_llama *m)
{
	lwm_fwd_embed(m);
	lwm_fwd_layers(m);
}

void lwm_bwd_layers(struct lwm_llama *m)
{
	for (int64_t l = m->cfg.layers - 1; l >= 0; l--) {
		struct lwm_layer y = lwm_layer_acquire(m, l, LWM_WEIGHTS | LWM_GRADS);

		lwm_offload_bwd_begin(m, l);
		(m->plan.lean ? lwm_lean_backward : lwm_bwd_layer)(m, l, &y);
		lwm_layer_release(m, l, true);
		lwm_offload_bwd_end(m, l);
	}
}

void lwm_llama_backward(struct lwm_llama *m)
{
	lwm_bwd_layers(m);
	lwm_bwd_embed(m);
}

/* What is waited for next must not wait for a rank that is gone. */
static void settle_groups(struct lwm_llama *m)
{
	struct lwm_devcomm *groups[] = { m->run.ring, m->run.tp };

	for (int i = 0; i < 2; i++) {
		int rc = groups[i] ? lwm_devcomm_settle(groups[i], &m->err) : 0;

		if (!m->rc || rc == -LWM_ERANK)
			m->rc = rc ? rc : m->rc;
	}
}

static int finish_step(struct lwm_llama *m, struct lwm_err *e)
{
	return lwm_supply_agree(m->w, agree_outcome(m, lwm_pass_result(m, e), e), e);
}

int lwm_llama_end(struct lwm_llama *m, struct lwm_llama_stats *out, struct lwm_err *e)
{
	settle_groups(m);
	if (out)
		lwm_loss_stats(m, m->batch, out);
	return finish_step(m, e);
}

int lwm_llama_step(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w, struct lwm_llama_stats *out,
		   struct lwm_err *e)
{
	LWM_TRY(lwm_llama_begin(m, b, w, e));
	lwm_llama_forward(m);
	lwm_llama_loss(m);
	if (w->grads)
		lwm_llama_backward(m);
	return lwm_llama_end(m, out, e);
}

int lwm_llama_logits(struct lwm_llama *m, const struct lwm_llama_batch *b, struct lwm_supply *w, enum lwm_modality head,
		     const int32_t *rows, int64_t nrows, float *host_out, struct lwm_err *e)
{
	int rc = 0;

	LWM_TRY(lwm_llama_begin(m, b, w, e));
	for (int64_t i = 0; i < nrows && !rc; i++)
		if (rows[i] < 0 || rows[i] >= b->n || nrows > m->run.tokens)
			rc = lwm_fail(&m->err, LWM_EINTERNAL, "row %d of a step of %" PRId64 " tokens", (int)rows[i], b->n);
	if (!rc && (head == LWM_VISION && !m->cfg.vision_rows))
		rc = lwm_fail(&m->err, LWM_ECONFIG, "the model has no vision head");
	m->rc = rc;
	lwm_llama_forward(m);
	settle_groups(m);
	if (m->cut.n > 1) {
		lwm_tp_logit_rows(m, head, rows, nrows, host_out);
	} else if (nrows) { /* after a failure too: others may wait for this rank's part of the weights */
		lwm_logit_pick(m, rows, nrows);
		lwm_logit_rows(m, head, nrows, host_out);
	}
	return finish_step(m, e);
}
