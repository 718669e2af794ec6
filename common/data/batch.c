#include <stdlib.h>
#include <string.h>

#include "common/data/loader_int.h"

/* Labels and weights of one row. The mask belongs to the target (rowshard.h); the last token of a segment has none.
 * */
static void labels(const struct lwm_loader *l, const struct lwm_row *r, struct lwm_batch *b, int64_t at)
{
	int32_t *target = b->targets + at;
	float *weight = b->weights + at;
	int64_t seq = r->seq;
	for (int64_t t = 0; t < seq; t++) {
		bool has = t + 1 < seq && r->segment[t] >= 0 && r->segment[t + 1] == r->segment[t];
		target[t] = has ? r->tokens[t + 1] : -1;
		weight[t] = 0;
		if (!has || !r->mask[t + 1])
			continue;
		weight[t] = l->cfg.weighting == LWM_PER_TOKEN ? 1.0f : 1.0f / (float)r->seg[r->segment[t]].n_loss;
		*(target[t] >= l->info.vocab_text ? &b->loss_vision : &b->loss_text) += 1;
	}
}

static void add_row(const struct lwm_loader *l, const struct lwm_row *r, struct lwm_batch *b, int64_t at)
{
	memcpy(b->tokens + at, r->tokens, (size_t)r->seq * sizeof *r->tokens);
	memcpy(b->positions + at, r->position, (size_t)r->seq * sizeof *r->position);
	for (int64_t t = 0; t < r->seq; t++)
		b->segments[at + t] = r->segment[t] < 0 ? -1 : r->segment[t] + (int32_t)b->segments_n;
	labels(l, r, b, at);
	for (int64_t i = 0; i < r->nseg; i++) {
		b->tokens_n += r->seg[i].len;
		if (r->seg[i].n_loss > 0)
			b->norm += l->cfg.weighting == LWM_PER_TOKEN ? (double)r->seg[i].n_loss : 1.0;
	}
	b->segments_n += r->nseg;
}

int lwm_loader_fill(struct lwm_loader *l, int64_t step, int64_t micro, struct lwm_batch *b, struct lwm_err *e)
{
	const struct lwm_loader_cfg *c = &l->cfg;
	b->first_sample = step * c->rows_per_step + c->rank * (c->rows_per_step / c->ranks) + micro * c->micro_rows;
	b->norm = 0;
	b->segments_n = b->loss_text = b->loss_vision = b->tokens_n = 0;
	for (int64_t i = 0; i < b->rows; i++) {
		struct lwm_sample x = lwm_loader_sample(l, b->first_sample + i);
		LWM_TRY(lwm_rowset_read(&l->set, x.source, x.row, &l->row, e));
		add_row(l, &l->row, b, i * b->seq);
	}
	return 0;
}
