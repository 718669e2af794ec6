/* A loader opened and closed, and its two batches: one is the caller's while a thread fills the other. */
#include "common/data/loader/loader.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/data/loader/loader_int.h"

static int check_cfg(const struct lwm_loader_cfg *c, struct lwm_err *e)
{
	if (c->ranks < 1 || c->rank < 0 || c->rank >= c->ranks || (c->rows_per_step < 1 && c->once < 1) || c->micro_rows < 1)
		return lwm_fail(e, LWM_ECONFIG, "rank %d of %d with %" PRId64 " rows a step, %" PRId64 " at a time: "
				"not possible", c->rank, c->ranks, c->rows_per_step, c->micro_rows);
	if (c->once == 0 && (c->rows_per_step % c->ranks || c->rows_per_step / c->ranks % c->micro_rows))
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " rows a step do not divide into %d data ranks with micro "
				"batches of %" PRId64 " rows", c->rows_per_step, c->ranks, c->micro_rows);
	return 0;
}

/* The weights of the modalities, as far as they are given. */
static int set_modalities(struct lwm_loader *l, struct lwm_err *e)
{
	const struct lwm_loader_cfg *c = &l->cfg;
	double text = c->text_weight, vision = c->vision_weight;
	if (!(text >= 0 && text < 1e300 && vision >= 0 && vision < 1e300))
		return lwm_fail(e, LWM_ECONFIG, "the weights of text and vision must be 0 or more");
	l->apart = text > 0 || vision > 0 || c->weighting == LWM_PUBLISHED;
	if (text == 0 && vision == 0)
		text = vision = c->weighting == LWM_PUBLISHED && (c->vision || l->info.vocab > l->info.vocab_text) ? 0.5 : 1;
	l->modality[0] = text;
	l->modality[1] = vision;
	return 0;
}

static int alloc_batch(struct lwm_loader *l, struct lwm_batch *b, struct lwm_err *e)
{
	int64_t n;
	b->rows = l->cfg.micro_rows;
	b->seq = l->info.seq_length;
	if (lwm_mul(b->rows, b->seq, &n) || n > INT64_MAX / 8)
		return lwm_fail(e, LWM_ECONFIG, "%" PRId64 " rows of %" PRId64 " tokens are too many", b->rows, b->seq);
	b->tokens = malloc((size_t)n * sizeof *b->tokens);
	b->targets = malloc((size_t)n * sizeof *b->targets);
	b->segments = malloc((size_t)n * sizeof *b->segments);
	b->positions = malloc((size_t)n * sizeof *b->positions);
	b->weights = malloc((size_t)n * sizeof *b->weights);
	b->row_source = malloc((size_t)b->rows * sizeof *b->row_source);
	if (!b->tokens || !b->targets || !b->segments || !b->positions || !b->weights || !b->row_source)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a batch of %" PRId64 " rows of %" PRId64 " tokens",
				b->rows, b->seq);
	return 0;
}

/* What labels of each source weigh, and room for the counts of both batches. */
static int set_sources(struct lwm_loader *l, const struct lwm_loader_cfg *cfg, struct lwm_err *e)
{
	size_t n = (size_t)cfg->nsources;
	l->loss = malloc(n * sizeof *l->loss);
	l->counts = calloc(n, sizeof *l->counts);
	l->counted = -1;
	for (int i = 0; i < 2; i++)
		l->slot[i].b.source_rows = l->slot[i].source_rows = calloc(n, sizeof *l->slot[i].source_rows);
	if (!l->loss || !l->counts || !l->slot[0].source_rows || !l->slot[1].source_rows)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %zu sources", n);
	for (size_t i = 0; i < n; i++) {
		l->loss[i] = cfg->source[i].loss == 0 ? 1 : cfg->source[i].loss;
		if (!(l->loss[i] > 0 && l->loss[i] < 1e300))
			return lwm_fail(e, LWM_ECONFIG, "source '%s': what its labels weigh must be above 0", l->set.source[i].name);
	}
	return 0;
}

static void *fill_ahead(void *user);

int lwm_loader_open(struct lwm_loader **out, const struct lwm_loader_cfg *cfg, struct lwm_err *e)
{
	struct lwm_loader *l = calloc(1, sizeof *l);
	int rc = l ? check_cfg(cfg, e) : lwm_fail(e, LWM_EMEMORY, "out of memory for the loader");
	*out = NULL;
	if (cfg->comm)
		rc = lwm_agree(cfg->comm, rc, e);
	if (rc < 0) {
		free(l);
		return rc;
	}
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->wake, NULL);
	l->cfg = *cfg;
	l->cfg.source = NULL;
	LWM_GO(lwm_rowset_open(&l->set, cfg, e));
	LWM_GO(set_sources(l, cfg, e));
	LWM_GO(lwm_loader_plan_draws(l, cfg, e));
	l->info = (struct lwm_loader_info){ .seq_length = cfg->seq_length ? cfg->seq_length : l->set.seq,
					    .nsources = l->set.nsources, .rows = l->set.rows,
					    .vocab_text = l->set.vocab_text,
					    .vocab = l->set.vocab_text + l->set.vocab_vision,
					    .tokenizer = l->set.tokenizer, .content = l->set.content };
	LWM_GO(set_modalities(l, e));
	LWM_GO(lwm_loader_hold_out(l, e));
	LWM_GO(alloc_batch(l, &l->slot[0].b, e));
	LWM_GO(alloc_batch(l, &l->slot[1].b, e));
	if (cfg->prefetch && pthread_create(&l->thread, NULL, fill_ahead, l)) {
		rc = lwm_fail(e, LWM_EMEMORY, "cannot start the loader's thread");
		goto out;
	}
	l->running = cfg->prefetch;
	*out = l;
out:
	if (cfg->comm)
		rc = lwm_agree(cfg->comm, rc, e);
	if (rc < 0) {
		lwm_loader_close(l);
		*out = NULL;
	}
	return rc;
}

void lwm_loader_close(struct lwm_loader *l)
{
	if (!l)
		return;
	if (l->running) {
		pthread_mutex_lock(&l->lock);
		l->stop = true;
		pthread_cond_broadcast(&l->wake);
		pthread_mutex_unlock(&l->lock);
		pthread_join(l->thread, NULL);
	}
	for (int i = 0; i < 2; i++) {
		struct lwm_batch *b = &l->slot[i].b;
		free(b->tokens);
		free(b->targets);
		free(b->segments);
		free(b->positions);
		free(b->weights);
		free(b->row_source);
		free(l->slot[i].source_rows);
	}
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->wake);
	lwm_row_release(&l->row);
	lwm_rowset_release(&l->set);
	lwm_shares_close(l->shares);
	free(l->loss);
	free(l->counts);
	free(l->slots);
	free(l->held);
	free(l);
}

static void fill_slot(struct lwm_loader *l, struct lwm_loader_slot *s)
{
	lwm_err_clear(&s->err);
	if (l->counted != s->step)
		lwm_loader_count_rows(l, s->step, l->counts);
	l->counted = s->step;
	memcpy(s->source_rows, l->counts, (size_t)l->set.nsources * sizeof *l->counts);
	s->rc = lwm_loader_fill(l, s->step, s->micro, &s->b, &s->err);
}

/* Fills wanted slots until told to stop. The row set is this thread's while a slot is wanted, the caller's otherwise. */
static void *fill_ahead(void *user)
{
	struct lwm_loader *l = user;
	pthread_mutex_lock(&l->lock);
	while (!l->stop) {
		struct lwm_loader_slot *s = NULL;
		for (int i = 0; i < 2; i++)
			if (l->slot[i].state == LWM_SLOT_WANTED)
				s = &l->slot[i];
		if (!s) {
			pthread_cond_wait(&l->wake, &l->lock);
			continue;
		}
		pthread_mutex_unlock(&l->lock);
		fill_slot(l, s);
		pthread_mutex_lock(&l->lock);
		s->state = LWM_SLOT_READY;
		pthread_cond_broadcast(&l->wake);
	}
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

static void want_next(struct lwm_loader *l, struct lwm_loader_slot *s, int64_t step, int64_t micro)
{
	bool last = micro + 1 == lwm_loader_micros(l);
	s->step = step + last;
	s->micro = last ? 0 : micro + 1;
	s->state = LWM_SLOT_WANTED;
	pthread_cond_broadcast(&l->wake);
}

int lwm_loader_get(struct lwm_loader *l, int64_t step, int64_t micro, struct lwm_batch **out, struct lwm_err *e)
{
	int64_t end;
	*out = NULL;
	if (step < 0 || micro < 0 || micro >= lwm_loader_micros(l) || lwm_mul(step + 1, l->cfg.rows_per_step, &end))
		return lwm_fail(e, LWM_EINTERNAL, "no such batch: step %" PRId64 ", micro batch %" PRId64, step, micro);
	struct lwm_loader_slot *s = &l->slot[1 - l->current];
	pthread_mutex_lock(&l->lock);
	while (s->state == LWM_SLOT_WANTED)
		pthread_cond_wait(&l->wake, &l->lock);
	if (s->state != LWM_SLOT_READY || s->step != step || s->micro != micro) {
		s->step = step;
		s->micro = micro;
		fill_slot(l, s);
	}
	int rc = s->rc;
	if (rc < 0) {
		s->state = LWM_SLOT_EMPTY;
		if (e && !e->code)
			*e = s->err;
	} else {
		l->current = 1 - l->current;
		*out = &s->b;
		if (l->running)
			want_next(l, &l->slot[1 - l->current], step, micro);
	}
	pthread_mutex_unlock(&l->lock);
	return rc;
}

int64_t lwm_loader_micros(const struct lwm_loader *l)
{
	return l->cfg.rows_per_step / l->cfg.ranks / l->cfg.micro_rows;
}

const struct lwm_loader_info *lwm_loader_info_of(const struct lwm_loader *l)
{
	return &l->info;
}
