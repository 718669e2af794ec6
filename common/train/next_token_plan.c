/* The objective next-token: what a step costs, for plans. The formulas of what is sent are those of README.md here and of
 * common/model/README.md; rows are taken for one document each, or for documents of --plan-document tokens. */
#include <math.h>
#include <stdlib.h>

#include "common/train/next_token_int.h"

/* Bytes that a token's numbers outside of products make a layer read and write in a forward pass, in elements: norms, rotation,
 * residual stream; of the MLP gate, up and their product. A backward pass takes twice that. */
enum { MOVED_WIDTH = 14, MOVED_FFN = 3, MOVED_HEAD = 6 };

static int64_t document_of(const struct lwm_nt *t)
{
	int64_t said = t->base.stage->plan_document, seq = t->set->seq_length;

	return said > 0 && said < seq ? said : seq;
}

/* Positions and segments of the whole microbatch, documents end to end, dealt to the ring: in t->ring_pos and ring_seg. */
static int deal_rows(struct lwm_nt *t, struct lwm_err *e)
{
	int64_t rows = t->cut.micro_rows, seq = t->set->seq_length, all = rows * seq, doc = document_of(t);
	struct lwm_batch b = { .rows = rows, .seq = seq };
	int rc = 0;

	free(t->ring_seg);
	free(t->ring_pos);
	t->ring_seg = malloc((size_t)all * sizeof *t->ring_seg);
	t->ring_pos = malloc((size_t)all * sizeof *t->ring_pos);
	b.segments = malloc((size_t)all * sizeof *b.segments);
	b.positions = malloc((size_t)all * sizeof *b.positions);
	if (!t->ring_seg || !t->ring_pos || !b.segments || !b.positions)
		rc = lwm_fail_memory(e, "the rows of a plan");
	for (int64_t i = 0; rc == 0 && i < all; i++) {
		b.segments[i] = (int32_t)(i / seq * ((seq + doc - 1) / doc) + i % seq / doc);
		b.positions[i] = (int32_t)(i % seq % doc);
	}
	if (rc == 0)
		rc = lwm_ring_deal_make(&t->deal, (enum lwm_ring_layout)t->set->ring_layout, rows, seq, b.segments,
					t->base.mesh->dim[LWM_SP], e);
	if (rc == 0)
		lwm_nt_take_all(t, &b);
	free(b.segments);
	free(b.positions);
	return rc;
}

/* Keys, values and their gradients, and the few numbers that ranks compare when a batch begins. */
static int ring_work(struct lwm_nt *t, const struct lwm_llama_run *run, struct lwm_step_work *w, struct lwm_err *e)
{
	int sp = t->base.mesh->dim[LWM_SP];
	double bytes;

	if (sp == 1)
		return 0;
	LWM_TRY(deal_rows(t, e));
	LWM_TRY(lwm_llama_ring_sends(&t->cfg, run, t->base.dtype, sp, t->base.mesh->dim[LWM_TP], t->ring_pos, t->ring_seg, &bytes,
				     e));
	w->ring = (double)t->base.passes * (bytes / sp + (sp - 1) * 32.0);
	w->ring_calls = (double)t->base.passes * (double)t->cfg.layers * 3 * (sp - 1);
	return 0;
}

int lwm_nt_ring_fills(struct lwm_nt *t, int64_t *bytes, struct lwm_err *e)
{
	struct lwm_llama_run run = lwm_nt_run(t);

	int rc = deal_rows(t, e);

	if (rc == 0)
		rc = lwm_llama_ring_fills(&t->cfg, &run, t->base.dtype, t->base.mesh->dim[LWM_SP], t->base.mesh->dim[LWM_TP],
					  t->ring_pos, t->ring_seg, bytes, e);
	free(t->ring_seg); /* this process's size is part of a plan */
	free(t->ring_pos);
	t->ring_seg = t->ring_pos = NULL;
	return rc;
}

/* Pairs of tokens of a row that see each other. */
static double pairs_of_row(const struct lwm_nt *t)
{
	double doc = (double)document_of(t), seq = (double)t->set->seq_length, whole = floor(seq / doc), rest = seq - whole * doc;

	return (whole * doc * (doc + 1) + rest * (rest + 1)) / 2;
}

/* README.md, "Ranks that share the model", with all targets in one table. */
static void tp_work(const struct lwm_nt *t, const struct lwm_llama_run *run, struct lwm_step_work *w)
{
	double n = t->base.mesh->dim[LWM_TP], d = (double)t->cfg.dim, l = (double)t->cfg.layers, tokens = (double)run->tokens;
	double a = (double)lk_dtype_size(t->base.dtype), r = run->recompute, shared = 2 * d * l + d, m = (double)t->base.passes;
	int64_t chunk = run->mlp_chunk > 0 ? run->mlp_chunk : 4096, pieces = (run->tokens + chunk - 1) / chunk;

	if (n < 2)
		return;
	if ((double)t->cfg.kv_heads < n)
		shared += 2 * (double)t->cfg.kv_heads * (double)lwm_llama_head_dim(&t->cfg) * d * l;
	w->tp = m * (n - 1) * (tokens / n * d * (a * (l * (6 + r) + 2) + 4 * (l * (4 + r) + 2))
			  + 16 * tokens + 8 / n * shared + 16);
	w->tp_calls = m * (l * (10 + 2 * r) * (double)pieces + 4);
}

int lwm_nt_work(struct lwm_objective *o, struct lwm_step_work *w, struct lwm_err *e)
{
	struct lwm_nt *t = (struct lwm_nt *)o;
	const struct lwm_mesh *mesh = o->mesh;
	const struct lwm_llama_cfg *c = &t->cfg;
	struct lwm_llama_run run = lwm_nt_run(t);
	double tp = mesh->dim[LWM_TP], m = (double)o->passes, tokens = m * (double)run.tokens, l = (double)c->layers;
	double d = (double)c->dim, e1 = (double)lwm_llama_head_dim(c), ffn = (double)c->ffn / tp;
	double a = (double)lk_dtype_size(o->dtype);
	double width = d / tp, kv = (double)c->kv_heads < tp ? e1 : (double)c->kv_heads * e1 / tp;
	double layer = d * (2 * width + 2 * kv) + 3 * d * ffn, again = run.recompute ? layer - d * ffn : 0;
	double vocab = (double)(c->vision_rows > c->vocab_text ? c->vision_rows : c->vocab_text) / tp;
	int64_t unformed; /* frozen matrices have no gradients */
	double pairs = tokens * pairs_of_row(t) / (double)t->set->seq_length; /* a rank of a ring has its share of all */

	LWM_TRY(lwm_llama_unformed(c, (int)mesh->dim[LWM_TP], &o->local, &unformed, e));
	*w = (struct lwm_step_work){ .products = tokens * (l * (6 * layer + 2 * again) + 6 * d * vocab - 2 * (double)unformed),
				     .attention = 14 * l * width * pairs,
				     .offloaded = 2 * m * (double)o->host_bytes };
	w->moved = tokens * a * (l * (MOVED_WIDTH * d / tp + MOVED_FFN * ffn) * (3 + run.recompute) + MOVED_HEAD * vocab);
	tp_work(t, &run, w);
	return ring_work(t, &run, w, e);
}
