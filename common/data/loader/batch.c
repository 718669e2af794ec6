/* Rows become a batch: targets are shifted, and weights are such that loss = sum of weight * nll / norm (loader.h says which). */
#include <stdlib.h>
#include <string.h>

#include "common/data/loader/loader_int.h"

static bool is_vision(const struct lwm_loader *l, int32_t target)
{
	return target >= l->info.vocab_text;
}

/* Targets of one row, and weight 1 where they count. The mask belongs to the target (rowshard.h); the last token of a segment has
 * none. A row may hold a token more than the batch: the target of the last one. */
static void set_labels(const struct lwm_loader *l, const struct lwm_row *r, struct lwm_batch *b, int64_t at)
{
	int32_t *target = b->targets + at;
	float *weight = b->weights + at;
	for (int64_t t = 0; t < b->seq; t++) {
		bool has = t + 1 < r->seq && r->segment[t] >= 0 && r->segment[t + 1] == r->segment[t];
		target[t] = has ? r->tokens[t + 1] : -1;
		weight[t] = has && r->mask[t + 1];
		if (weight[t] > 0)
			*(is_vision(l, target[t]) ? &b->loss_vision : &b->loss_text) += 1;
	}
}

/* Weights of one unit, positions [at, at + n): a segment, or a row. v: what its source weighs. */
static void set_weights(const struct lwm_loader *l, struct lwm_batch *b, int64_t at, int64_t n, double v)
{
	const int32_t *target = b->targets + at;
	float *weight = b->weights + at, each[2];
	int64_t count[2] = { 0, 0 };
	for (int64_t t = 0; t < n; t++)
		if (weight[t] > 0)
			count[l->apart && is_vision(l, target[t])]++;
	for (int m = 0; m < 2; m++)
		each[m] = (float)(l->cfg.weighting == LWM_PER_TOKEN || !count[m] ? v * l->modality[m]
										 : v * (l->modality[m] / (double)count[m]));
	for (int64_t t = 0; t < n; t++)
		if (weight[t] > 0)
			weight[t] = each[l->apart && is_vision(l, target[t])];
	if (l->cfg.weighting == LWM_PER_TOKEN)
		b->norm += v * (l->modality[0] * (double)count[0] + l->modality[1] * (double)count[1]);
	else
		b->norm += l->cfg.weighting == LWM_PUBLISHED || count[0] + count[1] > 0 ? v : 0;
}

static void add_row(const struct lwm_loader *l, const struct lwm_row *r, struct lwm_batch *b, int64_t at, double v)
{
	memcpy(b->tokens + at, r->tokens, (size_t)b->seq * sizeof *r->tokens);
	memcpy(b->positions + at, r->position, (size_t)b->seq * sizeof *r->position);
	for (int64_t t = 0; t < b->seq; t++)
		b->segments[at + t] = r->segment[t] < 0 ? -1 : r->segment[t] + (int32_t)b->segments_n;
	set_labels(l, r, b, at);
	for (int64_t i = 0; i < r->nseg && r->seg[i].start < b->seq; i++) {
		int64_t start = r->seg[i].start, room = b->seq - start, n = r->seg[i].len < room ? r->seg[i].len : room;
		b->segments_n++;
		b->tokens_n += n;
		if (l->cfg.weighting == LWM_PER_EXAMPLE)
			set_weights(l, b, at + start, n, v);
	}
	if (l->cfg.weighting != LWM_PER_EXAMPLE)
		set_weights(l, b, at, b->seq, v);
}

/* A row of nothing: no sum takes anything from it. */
static void add_padding(struct lwm_batch *b, int64_t at)
{
	memset(b->tokens + at, 0, (size_t)b->seq * sizeof *b->tokens);
	memset(b->positions + at, 0, (size_t)b->seq * sizeof *b->positions);
	for (int64_t t = at; t < at + b->seq; t++) {
		b->segments[t] = b->targets[t] = -1;
		b->weights[t] = 0;
	}
}

int lwm_loader_fill(struct lwm_loader *l, int64_t step, int64_t micro, struct lwm_batch *b, struct lwm_err *e)
{
	const struct lwm_loader_cfg *c = &l->cfg;
	b->first_sample = step * c->rows_per_step;
	if (c->in_turn)
		b->first_sample += (micro * c->ranks + c->rank) * c->micro_rows;
	else
		b->first_sample += c->rank * (c->rows_per_step / c->ranks) + micro * c->micro_rows;
	b->norm = 0;
	b->segments_n = b->loss_text = b->loss_vision = b->tokens_n = 0;
	for (int64_t i = 0; i < b->rows; i++) {
		b->row_source[i] = -1;
		if (c->once && b->first_sample + i >= c->once) {
			add_padding(b, i * b->seq);
			continue;
		}
		struct lwm_sample x = lwm_loader_sample(l, b->first_sample + i);
		b->row_source[i] = (int32_t)x.source;
		LWM_TRY(lwm_rowset_read(&l->set, x.source, x.row, &l->row, e));
		add_row(l, &l->row, b, i * b->seq, l->loss[x.source]);
	}
	return 0;
}
