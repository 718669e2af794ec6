/* Documents of several sources in mixed order: each source's shards fall into chunks of neighbours, permuted anew in every epoch;
 * the next chunk is one of the source that is furthest from its quota of tokens. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "common/data/pack/pack_int.h"

enum { CHUNK_DOCS = LWM_MIX_CHUNK, CHUNK_TOKENS = 256 << 10 };

static int grow_array(void *buf, int64_t *cap, int64_t need, size_t size, struct lwm_err *e)
{
	void **p = buf;
	if (need <= *cap)
		return 0;
	int64_t n = *cap * 2 > need ? *cap * 2 : need;
	void *q = realloc(*p, (size_t)n * size);
	if (!q)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for a window of %" PRId64 " entries", n);
	*p = q;
	*cap = n;
	return 0;
}

/* Tokens of a document that go into rows; 0: it is rejected by its length. */
static int64_t used_tokens(const struct lwm_pack_cfg *c, int64_t len, bool count, struct lwm_pack_stats *st)
{
	bool too_long = len > c->seq_length && c->mode != LWM_PACK_CONCAT;
	if (len < c->min_tokens) {
		st->rejected_short += count;
		return 0;
	}
	if (too_long && c->longer == LWM_LONG_DROP) {
		st->rejected_long += count;
		return 0;
	}
	return too_long && c->longer == LWM_LONG_TRUNCATE ? c->seq_length : len;
}

static int check_shard(struct lwm_mix *m, const struct lwm_mix_shard *x, struct lwm_err *e)
{
	const struct lwm_docs_meta *meta = lwm_docs_get_meta(x->h);
	if (m->nshards == 1) {
		m->vocab_text = meta->vocab_text;
		snprintf(m->tokenizer, sizeof m->tokenizer, "%s", meta->tokenizer);
	}
	if (meta->vocab_vision > m->vocab_vision)
		m->vocab_vision = meta->vocab_vision;
	if (meta->vocab_text != m->vocab_text || strcmp(meta->tokenizer, m->tokenizer))
		return lwm_fail(e, LWM_ECONFIG, "%s: made with another tokenizer than %s", x->path, m->shard[0].path);
	return 0;
}

/* This task's chunks of one shard; *number counts the chunks of the source. */
static int add_chunks(struct lwm_mix *m, struct lwm_mix_source *s, int64_t shard, int64_t *number, struct lwm_err *e)
{
	const struct lwm_pack_cfg *c = m->cfg;
	struct lwm_docs *h = m->shard[shard].h;
	int64_t docs = lwm_docs_count(h), tokens = lwm_docs_tokens(h), len[CHUNK_DOCS];
	int64_t tasks = c->tasks > 0 ? c->tasks : 1, per = docs ? CHUNK_TOKENS / (tokens / docs + 1) : 1;
	per = per < 1 ? 1 : per > CHUNK_DOCS ? CHUNK_DOCS : per;
	for (int64_t first = 0; first < docs; first += per) {
		int64_t n = docs - first < per ? docs - first : per;
		if ((*number)++ % tasks != c->task)
			continue;
		LWM_TRY(grow_array(&s->chunk, &s->cap, s->nchunks + 1, sizeof *s->chunk, e));
		struct lwm_mix_chunk *k = &s->chunk[s->nchunks++];
		*k = (struct lwm_mix_chunk){ .shard = shard, .first = first, .n = n };
		LWM_TRY(lwm_docs_lengths(h, first, n, len, e));
		if (c->hold_out > 0)
			LWM_TRY(lwm_mix_part(c, h, k, &m->look, &m->look_cap, e));
		for (int64_t i = 0; i < n; i++) {
			m->st->docs_aside += lwm_mix_is_aside(k, i);
			if (lwm_mix_is_aside(k, i))
				continue;
			s->usable += used_tokens(c, len[i], true, m->st);
			m->st->tokens_in += len[i];
		}
		s->docs_in += n;
	}
	return 0;
}

static int add_source(struct lwm_mix *m, int64_t i, struct lwm_err *e)
{
	const struct lwm_paths *p = &m->cfg->source[i].shards;
	int64_t number = 0;
	for (int64_t k = 0; k < p->n; k++) {
		struct lwm_mix_shard *x = &m->shard[m->nshards];
		x->path = p->v[k];
		x->base = m->docs;
		LWM_TRY(lwm_docs_open(&x->h, x->path, e));
		m->nshards++;
		LWM_TRY(check_shard(m, x, e));
		m->docs += lwm_docs_count(x->h);
		LWM_TRY(add_chunks(m, &m->source[i], m->nshards - 1, &number, e));
	}
	m->st->docs_in += m->source[i].docs_in;
	return 0;
}

/* quota_s = w_s N, N as far as the sources go. */
static int set_quotas(struct lwm_mix *m, struct lwm_err *e)
{
	const struct lwm_pack_cfg *c = m->cfg;
	double epochs = c->epochs > 0 ? (double)c->epochs : 1, sum = 0, all = INFINITY;
	bool weighted = false;
	for (int64_t i = 0; i < c->nsources; i++) {
		if (!(c->source[i].weight >= 0 && c->source[i].weight < 1e300))
			return lwm_fail(e, LWM_ECONFIG, "source '%s': its weight must be 0 or more", c->source[i].name);
		weighted = weighted || c->source[i].weight > 0;
	}
	for (int64_t i = 0; i < c->nsources; i++)
		sum += weighted ? c->source[i].weight : (double)m->source[i].usable;
	for (int64_t i = 0; i < c->nsources; i++) {
		double w = weighted ? c->source[i].weight : (double)m->source[i].usable;
		if (weighted && w > 0 && m->source[i].usable == 0)
			return lwm_fail(e, LWM_ECONFIG, "source '%s' has a weight but no usable document in this part",
					c->source[i].name);
		if (w > 0)
			all = fmin(all, epochs * (double)m->source[i].usable * (sum / w));
	}
	if (c->max_tokens > 0)
		all = fmin(all, (double)c->max_tokens);
	for (int64_t i = 0; i < c->nsources; i++) {
		double w = weighted ? c->source[i].weight : (double)m->source[i].usable;
		m->source[i].quota = w > 0 ? llround(w / sum * all) : 0;
	}
	return 0;
}

int lwm_mix_open(struct lwm_mix *m, const struct lwm_pack_cfg *cfg, struct lwm_pack_stats *st, struct lwm_err *e)
{
	int64_t n = 0;
	m->cfg = cfg;
	m->st = st;
	for (int64_t i = 0; i < cfg->nsources; i++)
		n += cfg->source[i].shards.n;
	m->shard = calloc((size_t)n + 1, sizeof *m->shard);
	m->source = calloc((size_t)cfg->nsources + 1, sizeof *m->source);
	if (!m->shard || !m->source)
		return lwm_fail(e, LWM_EMEMORY, "out of memory for %" PRId64 " shards", n);
	for (int64_t i = 0; i < cfg->nsources; i++)
		LWM_TRY(add_source(m, i, e));
	if (m->nshards == 0)
		return lwm_fail(e, LWM_ENOINPUT, "no document shards to pack");
	if (st->docs_aside > 0 && st->docs_aside == st->docs_in && cfg->tasks <= 1)
		return lwm_fail(e, LWM_ECONFIG, "%s of %" PRId64 " documents: with a share of %g held out there are none on this side",
				cfg->held_out ? "the held-out part" : "the training part", st->docs_in, cfg->hold_out);
	return set_quotas(m, e);
}

void lwm_mix_release(struct lwm_mix *m)
{
	for (int64_t i = 0; i < m->nshards; i++)
		lwm_docs_close(m->shard[i].h);
	for (int64_t i = 0; m->source && i < m->cfg->nsources; i++)
		free(m->source[i].chunk);
	free(m->shard);
	free(m->source);
	free(m->look);
	*m = (struct lwm_mix){ 0 };
}

/* The documents of a chunk as whole pieces, in stored order, from w->piece[w->n]. */
static int read_chunk(struct lwm_mix *m, const struct lwm_mix_chunk *c, struct lwm_window *w, struct lwm_err *e)
{
	const struct lwm_mix_shard *x = &m->shard[c->shard];
	int64_t token[CHUNK_DOCS + 1], run[CHUNK_DOCS + 1], n = c->n;
	LWM_TRY(lwm_docs_extents(x->h, c->first, n, token, run, e));
	LWM_TRY(grow_array(&w->piece, &w->cap, w->n + 2 * n, sizeof *w->piece, e));
	LWM_TRY(grow_array(&w->tokens, &w->tokens_cap, w->ntokens + token[n] - token[0], sizeof *w->tokens, e));
	LWM_TRY(grow_array(&w->runs, &w->runs_cap, w->nruns + run[n] - run[0], sizeof *w->runs, e));
	LWM_TRY(lwm_docs_read_many(x->h, n, token, run, w->tokens + w->ntokens, w->runs + w->nruns, e));
	for (int64_t i = 0; i < n; i++)
		w->piece[w->n + n + i] = (struct lwm_pack_item){
			.tok = w->ntokens + token[i] - token[0], .len = token[i + 1] - token[i],
			.run = w->nruns + run[i] - run[0], .nruns = run[i + 1] - run[i], .doc = x->base + c->first + i
		};
	w->ntokens += token[n] - token[0];
	w->nruns += run[n] - run[0];
	return 0;
}

/* Has any token but the first, up to len, a loss? */
static bool has_loss(const struct lwm_window *w, const struct lwm_pack_item *p, int64_t len)
{
	for (int64_t i = 0; i < p->nruns; i++) {
		const struct lwm_loss_run *r = &w->runs[p->run + i];
		int64_t end = i + 1 < p->nruns ? r[1].start : p->len;
		end = end < len ? end : len;
		if (r->loss && end > (r->start > 1 ? r->start : 1))
			return true;
	}
	return false;
}

/* Puts a document into the window, cut as asked. */
static int add_document(struct lwm_mix *m, const struct lwm_pack_item *doc, int64_t used, struct lwm_window *w,
			struct lwm_err *e)
{
	int64_t seq = m->cfg->seq_length;
	bool cut = used > seq && m->cfg->mode != LWM_PACK_CONCAT;
	m->st->docs_split += cut;
	m->st->docs_truncated += used < doc->len;
	m->st->tokens_cut += doc->len - used;
	for (int64_t off = 0; off < used;) {
		struct lwm_pack_item p = *doc;
		p.len = cut && used - off > seq ? seq : used - off;
		p.tok += off;
		p.off = off;
		off += p.len;
		LWM_TRY(grow_array(&w->piece, &w->cap, w->n + 1, sizeof *w->piece, e));
		w->piece[w->n++] = p;
		m->st->pieces++;
	}
	return 0;
}

int lwm_mix_next(struct lwm_mix *m, struct lwm_window *w, struct lwm_err *e)
{
	const struct lwm_pack_cfg *c = m->cfg;
	struct lwm_mix_source *s = NULL;
	for (int64_t i = 0; i < c->nsources; i++) { /* the one that is furthest behind */
		struct lwm_mix_source *x = &m->source[i];
		if (x->drawn < x->quota &&
		    (!s || (double)x->drawn / (double)x->quota < (double)s->drawn / (double)s->quota))
			s = x;
	}
	if (!s)
		return 0;
	int64_t epoch = s->at / s->nchunks, k = s->at % s->nchunks, n;
	uint64_t stream = (uint64_t)epoch << 16 | (uint64_t)(s - m->source);
	if (c->shuffle)
		k = lwm_rng_permute(c->seed, LWM_RNG_ORDER, stream, s->nchunks, k);
	n = s->chunk[k].n;
	struct lwm_pack_item doc[CHUNK_DOCS];
	LWM_TRY(read_chunk(m, &s->chunk[k], w, e));
	memcpy(doc, w->piece + w->n + n, (size_t)n * sizeof *doc);
	stream |= (uint64_t)(k + 1) << 32;
	int64_t order[CHUNK_DOCS];
	if (c->shuffle)
		lwm_rng_permutation(c->seed, LWM_RNG_MIX, stream, n, order);
	for (int64_t i = 0; i < n && s->drawn < s->quota; i++) {
		const struct lwm_pack_item *d = &doc[c->shuffle ? order[i] : i];
		if (lwm_mix_is_aside(&s->chunk[k], c->shuffle ? order[i] : i))
			continue;
		int64_t used = used_tokens(c, d->len, false, m->st);
		s->drawn += used;
		if (used && c->drop_lossless && !has_loss(w, d, used)) {
			m->st->rejected_lossless += epoch == 0;
			continue;
		}
		if (used) {
			*(epoch ? &m->st->repeats : &s->docs_used) += 1;
			LWM_TRY(add_document(m, d, used, w, e));
		}
	}
	s->at++;
	return 1;
}
