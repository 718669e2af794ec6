/* masked.c - the passes of masked.h: the trunk over what is seen, the decoder over all, the loss at the hidden ones, and back. */
#include "common/model/masked.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"
#include "common/comm/device.h"
#include "common/model/codes.h"
#include "common/model/pixels.h"

/* C clips of N tokens, K of them seen, M hidden; D dim. */
enum buf {
	B_FROM, /* (CK + 1,D): hidden states of what is seen, and the vector of the hidden ones */
	B_IN,   /* (CN,D): the decoder's inputs */
	B_DIN,  /* (CN,D): their gradient */
	B_PICK, /* (CN) int32: which row of FROM a place takes */
	B_SEEN, /* (CK) int32: which place a row of what is seen has */
	B_HIDDEN, /* (CN) int32: 0 at hidden places, else -1 */
	BUFS
};
struct layout {
	int64_t at[BUFS + 1];
};

struct lwm_masked {
	struct lk_dev *dev;
	struct lwm_masked_cfg c;
	struct lwm_masked_run run;
	struct lwm_llama *trunk, *decoder;
	struct lwm_pixels pixels; /* or */
	struct lwm_codes codes;
	struct lwm_shifted_weights behind; /* the decoder's: its groups lie behind the trunk's */
	struct lwm_group token_group, head_group;
	int64_t token, weight; /* places in them */
	struct layout lay;
	int dtype;
	char *block;
	float *vectors, *target;              /* host: (CK,P), (CM,P) */
	int32_t *code;                        /* (CM, codes of a patch) */
	int32_t *seg, *pos, *pick, *seen, *hidden, *idx; /* host: (CN) each; idx the hidden places one after the other */
	double *loss, *hits;                  /* (CM) each */
	int rc;
	struct lwm_err err;
};

#define K(m, call)                                                                  \
	do {                                                                        \
		if (!(m)->rc)                                                       \
			(m)->rc = lwm_dev_check((m)->dev, (call), &(m)->err);       \
	} while (0)

/* ---- sizes ---- */

int lwm_masked_check(const struct lwm_masked_cfg *c, struct lwm_err *e)
{
	LWM_TRY(lwm_llama_check(&c->trunk, e));
	LWM_TRY(lwm_llama_check(&c->decoder, e));
	if (c->trunk.input_dim < 1 || c->decoder.input_dim != c->trunk.dim)
		return lwm_fail(e, LWM_ECONFIG, "masked: a decoder over vectors of %" PRId64 " numbers behind a trunk of width %" PRId64,
				c->decoder.input_dim, c->trunk.dim);
	if (c->kept < 1 || c->kept >= c->tokens)
		return lwm_fail(e, LWM_ECONFIG, "masked: %" PRId64 " of %" PRId64 " patches of a clip are seen: some, and not all, must be",
				c->kept, c->tokens);
	if (c->codes < 0 || (c->codes > 0) != (c->each > 0))
		return lwm_fail(e, LWM_ECONFIG, "masked: %" PRId64 " codes of %" PRId64 " in a patch", c->each, c->codes);
	return 0;
}

static int add_matrix(struct lwm_tensors *t, const char *name, int64_t rows, int64_t cols, int64_t group, double std,
		      struct lwm_err *e)
{
	return lwm_tensors_add(t, &(struct lwm_tensor){ .name = name, .ndim = 2, .shape = { rows, cols }, .role = LWM_ROLE_MATRIX,
			       .modality = LWM_MODALITIES, .trainable = true, .decays = rows > 1, .split = LWM_SPLIT_NONE,
			       .init = LWM_INIT_NORMAL, .value = std, .group = (int)group }, e);
}

/* The decoder's table behind the trunk's. */
static int add_decoder(struct lwm_tensors *t, const struct lwm_masked_cfg *c, struct lwm_err *e)
{
	struct lwm_tensors own;
	int rc;

	LWM_TRY(lwm_llama_tensors(&own, &c->decoder, e));
	rc = 0;
	for (int64_t i = 0; i < own.n && rc == 0; i++) {
		struct lwm_tensor q = own.list[i];
		char name[128];

		snprintf(name, sizeof name, "decoder.%s", q.name + strlen("model."));
		q.name = name;
		q.group += (int)c->trunk.layers + 2;
		rc = lwm_tensors_add(t, &q, e);
	}
	lwm_tensors_release(&own);
	return rc;
}

static const char *head_name(const struct lwm_masked_cfg *c)
{
	return c->codes ? "masked.codes.weight" : "masked.pixels.weight";
}

/* Of the head. */
static int64_t outputs_of(const struct lwm_masked_cfg *c)
{
	return c->codes ? c->codes * c->each : c->trunk.input_dim;
}

int lwm_masked_tensors(struct lwm_tensors *t, const struct lwm_masked_cfg *c, struct lwm_err *e)
{
	int64_t last = c->trunk.layers + 1;
	int rc = lwm_masked_check(c, e);

	LWM_TRY(rc);
	LWM_TRY(lwm_llama_tensors(t, &c->trunk, e));
	rc = add_matrix(t, "masked.token", 1, c->trunk.dim, last, c->trunk.init_std, e);
	if (rc == 0)
		rc = add_decoder(t, c, e);
	if (rc == 0)
		rc = add_matrix(t, head_name(c), outputs_of(c), c->decoder.dim, last + c->decoder.layers + 2,
				c->decoder.init_std, e);
	if (rc < 0)
		lwm_tensors_release(t);
	return rc;
}

static struct lwm_llama_run run_of(const struct lwm_masked_run *r, int64_t tokens, bool on_device)
{
	struct lwm_llama_run y = r->how;

	y.tokens = r->clips * tokens;
	y.no_causal = true;
	y.device_vectors = on_device;
	y.ring = y.tp = NULL;
	y.attention = NULL;
	return y;
}

static struct layout lay_out(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r, int dtype)
{
	int64_t n = r->clips * c->tokens, k = r->clips * c->kept, row = c->trunk.dim * (int64_t)lk_dtype_size(dtype);
	const int64_t bytes[BUFS] = { [B_FROM] = (k + 1) * row, [B_IN] = n * row, [B_DIN] = r->how.train ? n * row : 0,
				      [B_PICK] = n * 4, [B_SEEN] = k * 4, [B_HIDDEN] = n * 4 };
	struct layout y;

	y.at[0] = 0;
	for (int i = 0; i < BUFS; i++)
		y.at[i + 1] = y.at[i] + lwm_round64(bytes[i]);
	return y;
}

static int64_t hidden_rows(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r)
{
	return r->clips * (c->tokens - c->kept);
}

static struct lwm_codes_size codes_of(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r)
{
	return (struct lwm_codes_size){ .rows = hidden_rows(c, r), .dim = c->decoder.dim, .codes = c->codes, .each = c->each,
					.bytes = r->logits, .train = r->how.train };
}

static int64_t head_bytes(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r, int dtype)
{
	struct lwm_codes_size s = codes_of(c, r);

	return c->codes ? lwm_codes_bytes(&s, dtype)
			: lwm_pixels_bytes(hidden_rows(c, r), c->decoder.dim, c->trunk.input_dim, dtype, r->how.train);
}

/* On the host, with its targets. */
static int64_t head_arrays(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r)
{
	int64_t n = hidden_rows(c, r);
	struct lwm_codes_size s = codes_of(c, r);

	return c->codes ? lwm_codes_arrays(&s) + n * c->each * 4
			: lwm_pixels_arrays(n, c->trunk.input_dim) + n * c->trunk.input_dim * 4;
}

int64_t lwm_masked_memory(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r, int dtype)
{
	struct lwm_llama_run a = run_of(r, c->kept, false), b = run_of(r, c->tokens, true);

	return lwm_llama_memory(&c->trunk, &a, dtype, 1, 1).total + lwm_llama_memory(&c->decoder, &b, dtype, 1, 1).total +
	       lay_out(c, r, dtype).at[BUFS] + head_bytes(c, r, dtype);
}

int64_t lwm_masked_host(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r, int dtype)
{
	struct lwm_llama_run a = run_of(r, c->kept, false), b = run_of(r, c->tokens, true);

	return lwm_llama_memory(&c->trunk, &a, dtype, 1, 1).host + lwm_llama_memory(&c->decoder, &b, dtype, 1, 1).host;
}

int64_t lwm_masked_arrays(const struct lwm_masked_cfg *c, const struct lwm_masked_run *r)
{
	struct lwm_llama_run a = run_of(r, c->kept, false), b = run_of(r, c->tokens, true);

	return lwm_llama_arrays(&a, 1) + lwm_llama_arrays(&b, 1) + hidden_rows(c, r) * 16 + head_arrays(c, r) +
	       r->clips * (c->kept * 4 * c->trunk.input_dim + c->tokens * 6 * 4);
}

int64_t lwm_masked_own(struct lk_dev *dev, const struct lwm_masked_cfg *c, const struct lwm_masked_run *r)
{
	struct lwm_llama_run a = run_of(r, c->kept, false), b = run_of(r, c->tokens, true);
	int64_t x = lwm_llama_own(dev, &c->trunk, &a, 1), y = lwm_llama_own(dev, &c->decoder, &b, 1);

	return x > y ? x : y;
}

double lwm_masked_flops(const struct lwm_masked_cfg *c, double clips)
{
	double n = (double)c->tokens, k = (double)c->kept, p = (double)c->trunk.input_dim, d = (double)c->trunk.dim;
	double dd = (double)c->decoder.dim;
	struct lwm_llama_work a = { .tokens = clips * k, .pairs = clips * k * k };
	struct lwm_llama_work b = { .tokens = clips * n, .pairs = clips * n * n };

	return lwm_llama_work_flops(&c->trunk, &a) + lwm_llama_work_flops(&c->decoder, &b) +
	       clips * (4 * p * d * k + 6 * d * dd * n + 6 * dd * (double)outputs_of(c) * (n - k));
}

/* ---- life ---- */

static int find_weights(struct lwm_masked *m, struct lwm_err *e)
{
	int64_t last = m->c.trunk.layers + 1;
	struct lwm_tensors t;

	LWM_TRY(lwm_masked_tensors(&t, &m->c, e));
	m->token_group = lwm_tensors_group(&t, last);
	m->head_group = lwm_tensors_group(&t, last + m->c.decoder.layers + 2);
	m->token = lwm_tensors_find(&t, "masked.token")->offset - m->token_group.offset;
	m->weight = lwm_tensors_find(&t, head_name(&m->c))->offset - m->head_group.offset;
	m->behind.index = last + 1;
	m->behind.offset = lwm_tensors_group(&t, last + 1).offset;
	lwm_tensors_release(&t);
	return 0;
}

static int allocate_memory(struct lwm_masked *m, struct lwm_err *e)
{
	size_t n = (size_t)(m->run.clips * m->c.tokens), p = (size_t)m->c.trunk.input_dim;
	size_t k = (size_t)(m->run.clips * m->c.kept), hidden = n - k;
	struct lwm_llama_run a = run_of(&m->run, m->c.kept, false), b = run_of(&m->run, m->c.tokens, true);
	struct lwm_codes_size size = codes_of(&m->c, &m->run);
	void *block;

	m->vectors = malloc(k * p * sizeof *m->vectors);
	m->target = malloc(m->c.codes ? 1 : hidden * p * sizeof *m->target);
	m->code = malloc(m->c.codes ? hidden * (size_t)m->c.each * sizeof *m->code : 1);
	m->loss = malloc(hidden * sizeof *m->loss);
	m->hits = malloc(hidden * sizeof *m->hits);
	m->seg = malloc(n * 6 * sizeof *m->seg);
	if (!m->vectors || !m->target || !m->code || !m->loss || !m->hits || !m->seg)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %zu patches", n);
	m->pos = m->seg + n;
	m->pick = m->pos + n;
	m->seen = m->pick + n;
	m->hidden = m->seen + n;
	m->idx = m->hidden + n;
	LWM_TRY(lwm_dev_check(m->dev, lk_mem_alloc(m->dev, (size_t)m->lay.at[BUFS], &block), e));
	m->block = block;
	if (m->c.codes)
		LWM_TRY(lwm_codes_init(&m->codes, m->dev, &size, e));
	else
		LWM_TRY(lwm_pixels_init(&m->pixels, m->dev, (int64_t)hidden, m->c.decoder.dim, (int64_t)p, m->run.how.train, e));
	LWM_TRY(lwm_llama_new(&m->trunk, m->dev, &m->c.trunk, &a, e));
	return lwm_llama_new(&m->decoder, m->dev, &m->c.decoder, &b, e);
}

int lwm_masked_new(struct lwm_masked **out, struct lk_dev *dev, const struct lwm_masked_cfg *c, const struct lwm_masked_run *r,
		   struct lwm_err *e)
{
	struct lwm_masked *m;
	int rc = 0;

	*out = NULL;
	LWM_TRY(lwm_masked_check(c, e));
	if (r->clips < 1)
		return lwm_fail(e, LWM_ECONFIG, "masked: %" PRId64 " clips at a time", r->clips);
	m = calloc(1, sizeof *m);
	if (!m)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a model");
	m->dev = dev;
	m->c = *c;
	m->run = *r;
	m->dtype = lk_dev_dtype(dev);
	m->lay = lay_out(c, r, m->dtype);
	LWM_GO(find_weights(m, e));
	LWM_GO(allocate_memory(m, e));
	*out = m;
out:
	if (rc < 0)
		lwm_masked_free(m);
	return rc;
}

void lwm_masked_free(struct lwm_masked *m)
{
	if (!m)
		return;
	lwm_llama_free(m->trunk);
	lwm_llama_free(m->decoder);
	lwm_pixels_release(&m->pixels);
	lwm_codes_release(&m->codes);
	lk_mem_free(m->dev, m->block);
	free(m->vectors);
	free(m->target);
	free(m->code);
	free(m->loss);
	free(m->hits);
	free(m->seg);
	free(m);
}

/* ---- a step ---- */

static struct lk_view rows_of(const struct lwm_masked *m, enum buf b, int64_t row, int64_t rows)
{
	int64_t d = m->c.trunk.dim;

	return lk_view2(m->block + m->lay.at[b] + row * d * (int64_t)lk_dtype_size(m->dtype), m->dtype, rows, d);
}

static void keep_failure(struct lwm_masked *m, int rc, const struct lwm_err *e)
{
	if (!rc || (m->rc && rc != -LWM_ERANK))
		return;
	m->rc = rc;
	m->err = *e;
}

/* Of hidden place number `row`. */
static void take_target(struct lwm_masked *m, const struct lwm_masked_batch *b, int64_t row, int64_t place)
{
	size_t p = (size_t)m->c.trunk.input_dim, each = (size_t)m->c.each;

	if (m->c.codes)
		memcpy(m->code + (size_t)row * each, b->codes + (size_t)place * each, each * sizeof *m->code);
	else
		memcpy(m->target + (size_t)row * p, b->targets + (size_t)place * p, p * sizeof *m->target);
}

/* Which place is seen, and by that everything on the host. */
static int sort_places(struct lwm_masked *m, const struct lwm_masked_batch *b, struct lwm_err *e)
{
	int64_t n = m->c.tokens, k = m->c.kept, p = m->c.trunk.input_dim, row = 0, none = 0, all = b->clips * k;

	for (int64_t i = 0; i < b->clips; i++) {
		const int32_t *v = b->visible + i * k;
		int64_t next = 0;

		for (int64_t t = 0; t < n; t++) {
			int64_t place = i * n + t;
			bool seen = next < k && v[next] == t;

			m->pick[place] = (int32_t)(seen ? row : all);
			m->hidden[place] = seen ? -1 : 0;
			if (seen) {
				memcpy(m->vectors + row * p, b->patches + place * p, (size_t)p * sizeof *m->vectors);
				m->seen[row++] = (int32_t)place;
				next++;
			} else if (none < b->clips * (n - k)) {
				take_target(m, b, none, place);
				m->idx[none++] = (int32_t)place;
			}
		}
		if (next != k)
			return lwm_fail(e, LWM_EINTERNAL, "masked: places that are seen do not ascend from 0 to %" PRId64, n - 1);
	}
	return 0;
}

static void upload_places(struct lwm_masked *m, int64_t clips)
{
	size_t n = (size_t)(clips * m->c.tokens) * 4, k = (size_t)(clips * m->c.kept) * 4;

	K(m, lk_upload(m->dev, m->block + m->lay.at[B_PICK], m->pick, n));
	K(m, lk_upload(m->dev, m->block + m->lay.at[B_SEEN], m->seen, k));
	K(m, lk_upload(m->dev, m->block + m->lay.at[B_HIDDEN], m->hidden, n));
}

/* The decoder's inputs, from the trunk's hidden states. */
static void join_places(struct lwm_masked *m, struct lwm_supply *w, int64_t clips)
{
	int64_t n = clips * m->c.tokens, k = clips * m->c.kept, row = m->c.trunk.dim * (int64_t)lk_dtype_size(m->dtype);
	struct lk_view h = lwm_trunk_hidden(m->trunk), from = rows_of(m, B_FROM, 0, k + 1), in = rows_of(m, B_IN, 0, n);
	struct lwm_supplied at = { NULL, NULL };

	m->rc = lwm_supply_acquire(w, &m->token_group, LWM_WEIGHTS, &at, m->rc, &m->err);
	K(m, lk_copy(m->dev, from.data, h.data, (size_t)(k * row)));
	K(m, lk_copy(m->dev, (char *)from.data + k * row,
		     (char *)(uintptr_t)at.w + m->token * (int64_t)lk_dtype_size(m->dtype), (size_t)row));
	lwm_supply_release(w, &m->token_group);
	K(m, lk_gather_rows(m->dev, &in, &from, (int32_t *)(m->block + m->lay.at[B_PICK])));
}

/* The gradient of the decoder's inputs back to the trunk's hidden states and the learned vector. */
static void part_places(struct lwm_masked *m, struct lwm_supply *w, int64_t clips)
{
	struct lk_view din = rows_of(m, B_DIN, 0, clips * m->c.tokens), dh = lwm_trunk_hidden_grad(m->trunk), g;
	struct lwm_supplied at = { NULL, NULL };

	m->rc = lwm_supply_acquire(w, &m->token_group, LWM_GRADS, &at, m->rc, &m->err);
	g = lk_view2(at.g ? at.g + m->token : NULL, LK_F32, 1, m->c.trunk.dim);
	K(m, lk_embed_bwd(m->dev, &g, (int32_t *)(m->block + m->lay.at[B_HIDDEN]), &din, 0));
	lwm_supply_release(w, &m->token_group);
	K(m, lk_gather_rows(m->dev, &dh, &din, (int32_t *)(m->block + m->lay.at[B_SEEN])));
}

/* Loss and hits of the hidden places. */
static int apply_head(struct lwm_masked *m, const struct lwm_pixels_step *s, const struct lwm_masked_batch *b, struct lwm_err *e)
{
	struct lwm_codes_step c = { .h = s->h, .idx = s->idx, .n = s->n, .target = m->code, .w = s->w, .g = s->g, .scale = s->scale,
				    .dh = s->dh };

	memset(m->hits, 0, (size_t)s->n * sizeof *m->hits);
	return m->c.codes ? lwm_codes_loss(&m->codes, &c, m->loss, m->hits, e)
			  : lwm_pixels_loss(&m->pixels, s, m->loss, b->predicted, e);
}

static void predict(struct lwm_masked *m, const struct lwm_masked_batch *b, struct lwm_supply *w, struct lwm_masked_stats *stats)
{
	int64_t n = b->clips * (m->c.tokens - m->c.kept), p = outputs_of(&m->c), d = m->c.decoder.dim;
	struct lwm_supplied at = { NULL, NULL };
	struct lwm_pixels_step s = { .h = lwm_trunk_hidden(m->decoder), .idx = m->idx, .n = n, .target = m->target,
				     .scale = w->scale };
	struct lwm_err e = { 0 };

	m->rc = lwm_supply_acquire(w, &m->head_group, w->grads ? LWM_WEIGHTS | LWM_GRADS : LWM_WEIGHTS, &at, m->rc, &m->err);
	s.w = lk_view2(at.w ? (char *)(uintptr_t)at.w + m->weight * (int64_t)lk_dtype_size(m->dtype) : NULL, m->dtype, p, d);
	s.g = lk_view2(at.g ? at.g + m->weight : NULL, LK_F32, p, d);
	if (w->grads)
		s.dh = lwm_trunk_hidden_grad(m->decoder);
	if (!m->rc)
		keep_failure(m, apply_head(m, &s, b, &e), &e);
	lwm_supply_release(w, &m->head_group);
	for (int64_t i = 0; i < n && !m->rc; i++) {
		stats->loss += m->loss[i];
		stats->hits += m->hits[i];
	}
	stats->patches += m->rc ? 0 : (double)n;
}

/* Places of a pass over `each` tokens of a clip, at the positions given, all clips a segment each. */
static struct lwm_trunk_batch pass_of(struct lwm_masked *m, int64_t clips, int64_t each, const int32_t *places)
{
	for (int64_t i = 0; i < clips * each; i++) {
		m->seg[i] = (int32_t)(i / each);
		m->pos[i] = (int32_t)((places ? places[i] : i) % m->c.tokens);
	}
	return (struct lwm_trunk_batch){ .n = clips * each, .seg = m->seg, .pos = m->pos };
}

static void decode(struct lwm_masked *m, const struct lwm_masked_batch *b, struct lwm_supply *w, struct lwm_masked_stats *stats)
{
	struct lwm_trunk_batch d = pass_of(m, b->clips, m->c.tokens, NULL);
	struct lwm_err e = { 0 };

	lwm_shifted_weights_to(&m->behind, w);
	d.on_device = m->block + m->lay.at[B_IN];
	d.gradient = w->grads ? m->block + m->lay.at[B_DIN] : NULL;
	keep_failure(m, lwm_trunk_begin(m->decoder, &d, &m->behind.base, &e), &e);
	if (e.code)
		return;
	lwm_trunk_fail(m->decoder, m->rc, &m->err);
	lwm_trunk_forward(m->decoder);
	predict(m, b, w, stats);
	lwm_trunk_fail(m->decoder, m->rc, &m->err);
	if (w->grads)
		lwm_trunk_backward(m->decoder);
	keep_failure(m, lwm_trunk_end(m->decoder, &e), &e);
}

int lwm_masked_step(struct lwm_masked *m, const struct lwm_masked_batch *b, struct lwm_supply *w, struct lwm_masked_stats *stats,
		    struct lwm_err *e)
{
	struct lwm_trunk_batch t;
	struct lwm_err why = { 0 };

	LWM_BUG_ON(b->clips < 1 || b->clips > m->run.clips);
	m->rc = 0;
	memset(&m->err, 0, sizeof m->err);
	LWM_TRY(lwm_supply_agree(w, sort_places(m, b, e), e));
	upload_places(m, b->clips);
	t = pass_of(m, b->clips, m->c.kept, m->seen);
	t.vectors = m->vectors;
	LWM_TRY(lwm_trunk_begin(m->trunk, &t, w, e));
	lwm_trunk_fail(m->trunk, m->rc, &m->err);
	lwm_trunk_forward(m->trunk);
	join_places(m, w, b->clips);
	decode(m, b, w, stats);
	if (w->grads) {
		part_places(m, w, b->clips);
		lwm_trunk_fail(m->trunk, m->rc, &m->err);
		lwm_trunk_backward(m->trunk);
	}
	lwm_trunk_fail(m->trunk, m->rc, &m->err);
	keep_failure(m, lwm_trunk_end(m->trunk, &why), &why);
	if (m->rc)
		*e = m->err;
	return m->rc;
}
