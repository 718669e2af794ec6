/* The objective next-token: the steps of training, and what they say of themselves. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/train/next_token_int.h"

/* Places in the sums. Per modality: loss (weight * nll), nll, hits, tokens. Per source: nll, tokens. */
enum { S_NORM, S_TOKENS, S_SEGMENTS, S_FIRST, S_PER = 4, S_PAIRS = S_FIRST + LWM_MODALITIES * S_PER, S_SOURCES,
       S_END = S_SOURCES + 2 * LWM_LOSS_GROUPS };
_Static_assert((int)S_END <= (int)LWM_SUMS, "sums of next-token");

static struct lwm_nt *self(struct lwm_objective *o)
{
	return (struct lwm_nt *)o;
}

int lwm_nt_attach(struct lwm_objective *o, struct lwm_supply *w, struct lwm_err *e)
{
	struct lwm_nt *t = self(o);
	struct lwm_llama_run run = lwm_nt_run(t);
	size_t n = (size_t)t->cut.local, ranks = (size_t)t->base.mesh->dim[LWM_SP];
	(void)w;
	if (o->stage->sum_order == LWM_SUM_CANONICAL) {
		t->all_sums = malloc((size_t)lwm_mesh_ranks(o->mesh, LWM_DATA) * sizeof *t->all_sums);
		if (!t->all_sums)
			return lwm_fail_memory(e, NULL);
	}
	t->tok = malloc(n * sizeof *t->tok);
	t->target = malloc(n * sizeof *t->target);
	t->seg = malloc(n * sizeof *t->seg);
	t->pos = malloc(n * sizeof *t->pos);
	t->weight = malloc(n * sizeof *t->weight);
	t->source = malloc(n * sizeof *t->source);
	if (ranks > 1) {
		t->ring_seg = malloc(n * ranks * sizeof *t->ring_seg);
		t->ring_pos = malloc(n * ranks * sizeof *t->ring_pos);
	}
	if (!t->tok || !t->target || !t->seg || !t->pos || !t->weight || !t->source ||
	    (ranks > 1 && (!t->ring_seg || !t->ring_pos)))
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %zu tokens", n);
	return lwm_llama_new(&t->net, o->dev, &t->cfg, &run, e);
}

/* ---- steps ---- */

/* This rank's tokens of the rows, in ring order. Targets were shifted before, so nothing is lost at the cuts. */
static int take_share(struct lwm_nt *t, const struct lwm_batch *b, struct lwm_err *e)
{
	const struct lwm_mesh *m = t->base.mesh;
	enum lwm_ring_layout layout = (enum lwm_ring_layout)t->set->ring_layout;
	int r = m->coord[LWM_SP];
	int64_t at = 0;
	LWM_TRY(lwm_ring_deal_make(&t->deal, layout, b->rows, b->seq, b->segments, m->dim[LWM_SP], e));
	for (int64_t k = t->deal.first[r]; k < t->deal.first[r + 1]; k++) {
		const struct lwm_ring_run *run = &t->deal.run[k];
		for (int64_t i = 0; i < run->count; i++, at++) {
			int64_t g = run->from + i * run->step;
			t->tok[at] = b->tokens[g];
			t->target[at] = b->targets[g];
			t->seg[at] = b->segments[g];
			t->pos[at] = b->positions[g];
			t->weight[at] = b->weights[g];
			t->source[at] = b->row_source[g / b->seq];
		}
	}
	return 0;
}

/* Who holds what. */
void lwm_nt_take_all(struct lwm_nt *t, const struct lwm_batch *b)
{
	int64_t at = 0;
	for (int64_t k = 0; k < t->deal.first[t->deal.n]; k++) {
		const struct lwm_ring_run *run = &t->deal.run[k];
		for (int64_t i = 0; i < run->count; i++, at++) {
			t->ring_seg[at] = b->segments[run->from + i * run->step];
			t->ring_pos[at] = b->positions[run->from + i * run->step];
		}
	}
}

/* The next microbatch, and of it this rank's share: of one without tokens padding. A rank that fails must not leave the others
 * waiting in the ring, in a layer, or for its weights. */
static int next_share(struct lwm_nt *t, struct lwm_loader *l, int64_t step, int64_t micro, struct lwm_supply *w,
		      struct lwm_batch **b, struct lwm_err *e)
{
	int rc = lwm_loader_get(l, step, micro, b, e);
	if (rc == 0)
		rc = take_share(t, *b, e);
	if (rc == 0 && t->ring_pos)
		lwm_nt_take_all(t, *b);
	rc = lwm_agree(t->base.mesh->comm[LWM_SP], rc, e);
	return lwm_supply_agree(w, lwm_agree(t->base.mesh->comm[LWM_TP], rc, e), e);
}

/* Pairs of tokens that see each other: the segments of a row are runs, and each token sees those before it and itself. */
static double visible_pairs(const struct lwm_batch *b)
{
	double pairs = 0;
	for (int64_t row = 0; row < b->rows; row++) {
		const int32_t *seg = b->segments + row * b->seq;
		for (int64_t i = 0, n = 0; i < b->seq; i++) {
			n = i && seg[i] == seg[i - 1] ? n + 1 : 1;
			pairs += seg[i] < 0 ? 0 : (double)n;
		}
	}
	return pairs;
}

static void add_stats(double *sums, const struct lwm_batch *b, const struct lwm_llama_stats *st, bool first_of_row)
{
	if (first_of_row) { /* every rank of the ring has the same rows: count them once */
		sums[S_NORM] += b->norm;
		sums[S_TOKENS] += (double)b->tokens_n;
		sums[S_SEGMENTS] += (double)b->segments_n;
		sums[S_PAIRS] += visible_pairs(b);
	}
	for (int m = 0; m < LWM_MODALITIES; m++) {
		double *p = sums + S_FIRST + m * S_PER;
		p[0] += st->loss[m];
		p[1] += st->nll[m];
		p[2] += st->hits[m];
		p[3] += (double)st->tokens[m];
	}
	for (int g = 0; g < LWM_LOSS_GROUPS; g++) {
		sums[S_SOURCES + 2 * g] += st->group_nll[g];
		sums[S_SOURCES + 2 * g + 1] += (double)st->group_tokens[g];
	}
}

/* The sums of a microbatch of each data rank are added one after the other, on all of them. */
static int add_in_order(struct lwm_nt *t, const double mine[LWM_SUMS], double sums[LWM_SUMS], struct lwm_err *e)
{
	struct lwm_comm *c = t->base.mesh->comm[LWM_DATA];
	LWM_TRY(lwm_comm_allgather(c, mine, sizeof *t->all_sums, t->all_sums, e));
	for (int r = 0; r < lwm_comm_size(c); r++)
		for (int i = 0; i < LWM_SUMS; i++)
			sums[i] += t->all_sums[r][i];
	return 0;
}

/* Ranks that share weights go through them together: one without rows goes through them with padding. */
static int run_batches(struct lwm_nt *t, struct lwm_loader *l, int64_t step, struct lwm_supply *w, double *sums, struct lwm_err *e)
{
	const struct lwm_mesh *m = t->base.mesh;
	int64_t micros = lwm_loader_micros(l);
	for (int64_t i = 0; i < micros; i++) {
		struct lwm_llama_stats st = { 0 };
		struct lwm_batch *b = NULL;
		LWM_TRY(next_share(t, l, step, i, w, &b, e));
		if (l == t->train)
			memcpy(t->source_rows, b->source_rows, (size_t)t->nsources * sizeof *t->source_rows);
		if (b->tokens_n == 0 && !w->shared) /* held-out rows ended before the share of this rank did */
			continue;
		w->more = i + 1 < micros;
		struct lwm_llama_batch in = { t->cut.local, t->tok, t->target, t->weight, t->seg, t->pos, t->ring_seg,
					      t->ring_pos, t->source };
		int rc = lwm_llama_step(t->net, &in, w, &st, e);
		if (rc < 0 && m->dim[LWM_SP] * m->dim[LWM_TP] > 1 && !w->shared)
			e->who = LWM_ERR_ALONE; /* the ring waits for this rank */
		LWM_TRY(rc);
		double own[LWM_SUMS] = { 0 };
		if (t->all_sums) {
			add_stats(own, b, &st, true);
			LWM_TRY(add_in_order(t, own, sums, e));
			continue;
		}
		if (m->coord[LWM_TP] == 0) /* ranks that share the model have the same tokens, and the same sums */
			add_stats(sums, b, &st, m->coord[LWM_SP] == 0);
	}
	if (t->all_sums && lwm_mesh_rank(m, LWM_DATA) > 0)
		memset(sums, 0, LWM_SUMS * sizeof *sums); /* all have them: one says them */
	return 0;
}

int lwm_nt_step(struct lwm_objective *o, int64_t step, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	self(o)->at_step = step;
	return run_batches(self(o), self(o)->train, step, w, sums, e);
}

int lwm_nt_eval(struct lwm_objective *o, struct lwm_supply *w, double sums[LWM_SUMS], struct lwm_err *e)
{
	return run_batches(self(o), self(o)->eval, 0, w, sums, e);
}

double lwm_nt_norm(const double sums[LWM_SUMS])
{
	return sums[S_NORM];
}

double lwm_nt_render(struct lwm_objective *o, const double sums[LWM_SUMS], bool eval, struct lwm_str *json)
{
	static const char *const name[] = { "text", "vision" };
	double loss = 0, norm = sums[S_NORM] > 0 ? sums[S_NORM] : 1;
	for (int m = 0; m < LWM_MODALITIES; m++)
		loss += sums[S_FIRST + m * S_PER] / norm;
	lwm_str_printf(json, ",\"tokens\":%.0f,\"segments\":%.0f", sums[S_TOKENS], sums[S_SEGMENTS]);
	for (int m = 0; m < LWM_MODALITIES; m++) {
		const double *p = sums + S_FIRST + m * S_PER;
		if (p[3] <= 0)
			continue;
		lwm_str_printf(json, ",\"%s_nll\":", name[m]);
		lwm_str_number(json, p[1] / p[3], 9);
		lwm_str_printf(json, ",\"%s_acc\":%.6g,\"%s_tokens\":%.0f", name[m], p[2] / p[3], name[m], p[3]);
		if (eval)
			lwm_str_printf(json, ",\"%s_unigram\":%.6g", name[m], self(o)->unigram[m]);
	}
	if (!eval)
		lwm_nt_render_sources(self(o), json);
	lwm_nt_render_losses(self(o), sums + S_SOURCES, eval, json);
	return loss;
}

double lwm_nt_flops(const struct lwm_objective *o, const double sums[LWM_SUMS])
{
	struct lwm_llama_work w = { .tokens = sums[S_TOKENS], .pairs = sums[S_PAIRS] };
	for (int m = 0; m < LWM_MODALITIES; m++)
		w.heads[m] = sums[S_FIRST + m * S_PER + 3];
	return lwm_llama_work_flops(&((const struct lwm_nt *)o)->cfg, &w);
}

double lwm_nt_most_flops(const struct lwm_nt *t)
{
	double seq = (double)t->set->seq_length, rows = (double)t->cut.rows_step;
	enum lwm_modality head = t->cfg.vision_rows > t->cfg.vocab_text ? LWM_VISION : LWM_TEXT;
	struct lwm_llama_work w = { .tokens = rows * seq, .pairs = rows * seq * (seq + 1) / 2 };
	w.heads[head] = rows * seq;
	return lwm_llama_work_flops(&t->cfg, &w);
}
