/* contrast.c - the passes of contrast.h: trunk, mean, projection head, and back. */
#include "common/model/contrast_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/num.h"

/* ---- sizes ---- */

int lwm_contrast_check(const struct lwm_contrast_cfg *c, struct lwm_err *e)
{
	const int64_t limit = 1 << 24;

	LWM_TRY(lwm_llama_check(&c->trunk, e));
	if (c->trunk.input_dim < 1 || c->tokens < 1 || c->hidden < 1 || c->out < 2 || c->tokens > limit || c->hidden > limit ||
	    c->out > limit)
		return lwm_fail(e, LWM_ECONFIG, "contrast: views of %" PRId64 " vectors of %" PRId64 " numbers, a head of %" PRId64
				" to %" PRId64 ": each from 1 (the last from 2) to %" PRId64, c->tokens, c->trunk.input_dim, c->hidden,
				c->out, limit);
	if (!(c->temperature > 0))
		return lwm_fail(e, LWM_ECONFIG, "contrast: a temperature of %g is not positive", c->temperature);
	if (c->queue < 0 || c->queue > limit || (c->queue && !c->momentum))
		return lwm_fail(e, LWM_ECONFIG, "contrast: a queue of %" PRId64 " keys%s", c->queue,
				c->momentum ? "" : " without a momentum encoder, which makes them");
	return 0;
}

/* Copies of all that there is so far, and the queue. */
static int add_momentum(struct lwm_tensors *t, const struct lwm_contrast_cfg *c, struct lwm_err *e)
{
	int64_t n = t->n, groups = c->trunk.layers + 2;
	struct lwm_tensor queue = { .name = "momentum.queue", .ndim = 2, .shape = { c->queue, c->out }, .role = LWM_ROLE_MATRIX,
				    .modality = LWM_MODALITIES, .split = LWM_SPLIT_NONE, .init = LWM_INIT_ROWS, .value = 1,
				    .group = (int)(2 * groups), .written = true };
	char name[256];

	for (int64_t i = 0; i < n; i++) {
		struct lwm_tensor copy = t->list[i];

		if (snprintf(name, sizeof name, "momentum.%s", copy.name) >= (int)sizeof name)
			return lwm_fail(e, LWM_EINTERNAL, "contrast: '%s' is too long a name", copy.name);
		copy.name = name;
		copy.follows = i + 1;
		copy.group += (int)groups;
		copy.trainable = copy.decays = false;
		LWM_TRY(lwm_tensors_add(t, &copy, e));
	}
	return c->queue ? lwm_tensors_add(t, &queue, e) : 0;
}

int lwm_contrast_tensors(struct lwm_tensors *t, const struct lwm_contrast_cfg *c, struct lwm_err *e)
{
	const struct {
		const char *name;
		int64_t rows, cols;
	} head[] = { { "contrast.gate_proj.weight", c->hidden, c->trunk.dim },
		     { "contrast.up_proj.weight", c->hidden, c->trunk.dim },
		     { "contrast.down_proj.weight", c->out, c->hidden } };
	int rc = lwm_contrast_check(c, e);

	LWM_TRY(rc);
	LWM_TRY(lwm_llama_tensors(t, &c->trunk, e));
	for (size_t i = 0; i < sizeof head / sizeof *head && rc == 0; i++)
		rc = lwm_tensors_add(t, &(struct lwm_tensor){ .name = head[i].name, .ndim = 2,
				     .shape = { head[i].rows, head[i].cols }, .role = LWM_ROLE_MATRIX, .modality = LWM_MODALITIES,
				     .trainable = true, .decays = true, .split = LWM_SPLIT_NONE, .init = LWM_INIT_NORMAL,
				     .value = c->trunk.init_std, .group = (int)c->trunk.layers + 1 }, e);
	if (rc == 0 && c->momentum)
		rc = add_momentum(t, c, e);
	if (rc < 0)
		lwm_tensors_release(t);
	return rc;
}

/* Queries and keys do not go through the trunk together: their weights are others. */
static int64_t views_at_once(const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r)
{
	int64_t most = c->momentum ? r->pairs : 2 * r->pairs;

	return r->at_once > 0 && r->at_once < most ? r->at_once : most;
}

static struct lwm_llama_run trunk_run(const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r)
{
	struct lwm_llama_run y = r->how;

	y.tokens = views_at_once(c, r) * c->tokens;
	y.no_causal = true;
	y.ring = y.tp = NULL;
	y.attention = NULL;
	return y;
}

static struct layout lay_out(const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r, int dtype, int ranks)
{
	int64_t v = views_at_once(c, r), n = r->pairs, all = n * ranks, a = (int64_t)lk_dtype_size(dtype), d = c->trunk.dim;
	int64_t back = r->how.train, both = c->momentum ? 0 : back; /* gradients of both sides */
	const int64_t bytes[BUFS] = {
		[B_MEAN] = a == 4 ? 0 : c->tokens * a, [B_MEAN32] = c->tokens * 4, [B_ONE] = c->out * 8, [B_POOL] = v * d * a,
		[B_GU] = v * 2 * c->hidden * a, [B_H] = v * c->hidden * a, [B_DH] = back * v * c->hidden * a,
		[B_P] = v * c->out * 4, [B_DP] = back * v * c->out * 4,
		[B_DP_CAST] = a == 4 ? 0 : back * v * c->out * a, [B_RSTD] = v * 4,
		[B_DPOOL] = back * v * d * a, [B_Z] = 2 * n * c->out * 4, [B_DZ] = (back + both) * n * c->out * 4,
		[B_ALL] = all * c->out * 4, [B_DALL] = both * all * c->out * 4, [B_MINE] = both * n * c->out * 4,
		[B_S] = n * (c->queue ? c->queue + 1 : all) * 4, [B_QUEUE] = a == 4 ? 0 : c->queue * c->out * 4,
		[B_TARGET] = n * 4, [B_WEIGHT] = n * 4, [B_NLL] = n * 8,
	};
	struct layout y = { .total = 0 };

	for (int i = 0; i < BUFS; i++) {
		y.at[i] = y.total;
		y.total += lwm_round64(bytes[i]);
	}
	return y;
}

int64_t lwm_contrast_memory(const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r, int dtype, int ranks)
{
	struct lwm_llama_run how = trunk_run(c, r);

	return lwm_llama_memory(&c->trunk, &how, dtype, 1, 1).total + lay_out(c, r, dtype, ranks).total;
}

int64_t lwm_contrast_host(const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r, int dtype)
{
	struct lwm_llama_run how = trunk_run(c, r);

	return lwm_llama_memory(&c->trunk, &how, dtype, 1, 1).host;
}

int64_t lwm_contrast_arrays(const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r)
{
	struct lwm_llama_run how = trunk_run(c, r);

	return lwm_llama_arrays(&how, 1) + how.tokens * (4 * c->trunk.input_dim + 8) + r->pairs * 12;
}

int64_t lwm_contrast_own(struct lk_dev *dev, const struct lwm_contrast_cfg *c, const struct lwm_contrast_run *r, int ranks)
{
	struct lwm_llama_run how = trunk_run(c, r);
	int64_t most = lwm_llama_own(dev, &c->trunk, &how, 1), all = c->queue ? c->queue : r->pairs * ranks;
	struct lk_own own;

	if (lk_matmul_own(dev, r->pairs, all, c->out, &own) == 0 && own.scratch > most)
		most = own.scratch;
	return most;
}

double lwm_contrast_flops(const struct lwm_contrast_cfg *c, double pairs)
{
	double t = (double)c->tokens, views = c->momentum ? pairs : 2 * pairs, keys = 2 * pairs - views;
	double f = (double)c->hidden, d = (double)c->trunk.dim, out = (double)c->out;
	double inputs = 2 * (double)c->trunk.input_dim * d * t, head = 2 * (2 * f * d + f * out);
	double compared = c->queue ? (double)c->queue + 1 : pairs; /* by each view, of the other side */
	struct lwm_llama_work w = { .tokens = views * t, .pairs = views * t * t };
	struct lwm_llama_work of_keys = { .tokens = keys * t, .pairs = keys * t * t };

	return lwm_llama_work_flops(&c->trunk, &w) + lwm_llama_work_flops(&c->trunk, &of_keys) / 3 + inputs * (2 * views + keys) +
	       head * (3 * views + keys) + (c->momentum ? 4 : 6) * views * compared * out;
}

/* ---- life ---- */

/* What no step changes. */
static void fill_constants(struct lwm_contrast *m)
{
	int64_t n = m->run.pairs;
	struct lk_view mean = rows_of(m, B_MEAN, m->dtype, 0, 1, m->c.tokens), mean32 = floats_of(m, B_MEAN32, 0, 1, m->c.tokens);
	float *one = (float *)(m->block + m->lay.at[B_ONE]);

	K(m, lk_fill(m->dev, mean32.data, m->c.tokens, 1.0f / (float)m->c.tokens));
	if (m->dtype != LK_F32)
		K(m, lk_cast(m->dev, &mean, &mean32));
	K(m, lk_fill(m->dev, one, m->c.out, 1.0f));
	K(m, lk_fill(m->dev, one + m->c.out, m->c.out, 0.0f));
	K(m, lk_fill(m->dev, (float *)(m->block + m->lay.at[B_WEIGHT]), n, m->c.momentum ? 1.0f : 0.5f));
}

static int allocate_memory(struct lwm_contrast *m, const struct lwm_llama_run *how, struct lwm_err *e)
{
	size_t tokens = (size_t)how->tokens, n = (size_t)m->run.pairs;
	void *block;

	m->vectors = malloc(tokens * (size_t)m->c.trunk.input_dim * sizeof *m->vectors);
	m->seg = malloc(tokens * sizeof *m->seg);
	m->pos = malloc(tokens * sizeof *m->pos);
	m->nll = malloc(2 * n * sizeof *m->nll);
	m->target = malloc(n * sizeof *m->target);
	if (!m->vectors || !m->seg || !m->pos || !m->nll || !m->target)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %zu vectors", tokens);
	for (int64_t i = 0; i < how->tokens; i++) {
		m->seg[i] = (int32_t)(i / m->c.tokens);
		m->pos[i] = (int32_t)(i % m->c.tokens);
	}
	LWM_TRY(lwm_dev_check(m->dev, lk_mem_alloc(m->dev, (size_t)m->lay.total, &block), e));
	m->block = block;
	return lwm_llama_new(&m->trunk, m->dev, &m->c.trunk, how, e);
}

static int find_head(struct lwm_contrast *m, struct lwm_err *e)
{
	struct lwm_tensors t;

	LWM_TRY(lwm_contrast_tensors(&t, &m->c, e));
	m->last = lwm_tensors_group(&t, m->c.trunk.layers + 1);
	m->gate_up = lwm_tensors_find(&t, "contrast.gate_proj.weight")->offset - m->last.offset;
	m->down = lwm_tensors_find(&t, "contrast.down_proj.weight")->offset - m->last.offset;
	m->keys.index = m->last.index + 1;
	m->keys.offset = lwm_tensors_group(&t, m->keys.index).offset;
	m->queue = lwm_tensors_group(&t, 2 * m->keys.index);
	lwm_tensors_release(&t);
	return 0;
}

int lwm_contrast_new(struct lwm_contrast **out, struct lk_dev *dev, const struct lwm_contrast_cfg *c,
		     const struct lwm_contrast_run *r, struct lwm_err *e)
{
	struct lwm_comm *comm = r->ranks ? lwm_devcomm_comm(r->ranks) : NULL;
	int ranks = comm ? lwm_comm_size(comm) : 1, rc = 0;
	struct lwm_llama_run how = trunk_run(c, r);
	struct lwm_contrast *m;

	*out = NULL;
	LWM_TRY(lwm_contrast_check(c, e));
	if (r->pairs < 1 || r->pairs * ranks > INT32_MAX)
		return lwm_fail(e, LWM_ECONFIG, "contrast: %" PRId64 " pairs on each of %d ranks", r->pairs, ranks);
	m = calloc(1, sizeof *m);
	if (!m)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a model");
	m->dev = dev;
	m->c = *c;
	m->run = *r;
	m->dtype = lk_dev_dtype(dev);
	m->ranks = ranks;
	m->rank = comm ? lwm_comm_rank(comm) : 0;
	m->lay = lay_out(c, r, m->dtype, ranks);
	if (m->dtype == LK_F32)
		m->lay.at[B_MEAN] = m->lay.at[B_MEAN32];
	LWM_GO(find_head(m, e));
	LWM_GO(allocate_memory(m, &how, e));
	fill_constants(m);
	rc = m->rc;
	if (rc < 0)
		*e = m->err;
	else
		*out = m;
out:
	if (rc < 0)
		lwm_contrast_free(m);
	return rc;
}

void lwm_contrast_free(struct lwm_contrast *m)
{
	if (!m)
		return;
	lwm_llama_free(m->trunk);
	lk_mem_free(m->dev, m->block);
	free(m->vectors);
	free(m->seg);
	free(m->pos);
	free(m->nll);
	free(m->target);
	free(m);
}

/* ---- the head ---- */

struct head {
	struct lk_view gate_up, down, ggate_up, gdown;
};

static struct head acquire_head(struct lwm_contrast *m, struct lwm_supply *w, unsigned what)
{
	int64_t d = m->c.trunk.dim, f = m->c.hidden, a = (int64_t)lk_dtype_size(m->dtype);
	struct lwm_supplied at = { NULL, NULL };

	m->rc = lwm_supply_acquire(w, &m->last, what, &at, m->rc, &m->err);
	return (struct head){
		.gate_up = lk_view2(at.w ? (char *)(uintptr_t)at.w + m->gate_up * a : NULL, m->dtype, 2 * f, d),
		.down = lk_view2(at.w ? (char *)(uintptr_t)at.w + m->down * a : NULL, m->dtype, m->c.out, f),
		.ggate_up = lk_view2(at.g ? at.g + m->gate_up : NULL, LK_F32, 2 * f, d),
		.gdown = lk_view2(at.g ? at.g + m->down : NULL, LK_F32, m->c.out, f),
	};
}

static struct lk_view half_of(const struct lk_view *v, int64_t which)
{
	int64_t cols = v->n[1] / 2;
	struct lk_view y = lk_view2((char *)v->data + which * cols * (int64_t)lk_dtype_size(v->dtype), v->dtype, v->n[0], cols);

	y.stride[0] = v->stride[0];
	return y;
}

/* Hidden states of view v of the pass, or their gradient. */
static struct lk_view states_of(const struct lwm_contrast *m, const struct lk_view *all, int64_t v)
{
	int64_t d = m->c.trunk.dim;

	return lk_view2((char *)all->data + v * m->c.tokens * d * (int64_t)lk_dtype_size(m->dtype), m->dtype, m->c.tokens, d);
}

/* Views [first, first + n) from hidden states to B_Z. */
static void head_forward(struct lwm_contrast *m, struct lwm_supply *w, int64_t first, int64_t n)
{
	struct head h = acquire_head(m, w, LWM_WEIGHTS);
	int64_t d = m->c.trunk.dim, f = m->c.hidden;
	struct lk_view x = lwm_trunk_hidden(m->trunk), mean = rows_of(m, B_MEAN, m->dtype, 0, 1, m->c.tokens);
	struct lk_view pool = rows_of(m, B_POOL, m->dtype, 0, n, d), gu = rows_of(m, B_GU, m->dtype, 0, n, 2 * f);
	struct lk_view g = half_of(&gu, 0), u = half_of(&gu, 1), y = rows_of(m, B_H, m->dtype, 0, n, f);
	struct lk_view p = floats_of(m, B_P, 0, n, m->c.out), z = floats_of(m, B_Z, first, n, m->c.out);
	struct lk_view one = lk_view1(m->block + m->lay.at[B_ONE], LK_F32, m->c.out);

	for (int64_t v = 0; v < n; v++) {
		struct lk_view row = rows_of(m, B_POOL, m->dtype, v, 1, d), s = states_of(m, &x, v);

		K(m, lk_matmul(m->dev, &row, &mean, &s, 0, 1.0f));
	}
	K(m, lk_matmul(m->dev, &gu, &pool, &h.gate_up, LK_TB, 1.0f));
	K(m, lk_swiglu_fwd(m->dev, &y, &g, &u));
	K(m, lk_matmul(m->dev, &p, &y, &h.down, LK_TB, 1.0f));
	K(m, lk_rmsnorm_fwd(m->dev, &z, (float *)(m->block + m->lay.at[B_RSTD]), &p, NULL, &one, 1e-12f));
	lwm_supply_release(w, &m->last);
}

/* From B_DZ to the gradients of the head and of the hidden states. */
static void head_backward(struct lwm_contrast *m, struct lwm_supply *w, int64_t first, int64_t n)
{
	struct head h = acquire_head(m, w, LWM_WEIGHTS | LWM_GRADS);
	int64_t d = m->c.trunk.dim, f = m->c.hidden, e = m->c.out;
	struct lk_view dx = lwm_trunk_hidden_grad(m->trunk), mean = rows_of(m, B_MEAN, m->dtype, 0, 1, m->c.tokens);
	struct lk_view pool = rows_of(m, B_POOL, m->dtype, 0, n, d), dpool = rows_of(m, B_DPOOL, m->dtype, 0, n, d);
	struct lk_view gu = rows_of(m, B_GU, m->dtype, 0, n, 2 * f), g = half_of(&gu, 0), u = half_of(&gu, 1);
	struct lk_view y = rows_of(m, B_H, m->dtype, 0, n, f), dy = rows_of(m, B_DH, m->dtype, 0, n, f);
	struct lk_view p = floats_of(m, B_P, 0, n, e), dp = floats_of(m, B_DP, 0, n, e), d16 = dp;
	struct lk_view dz = floats_of(m, B_DZ, first, n, e);
	struct lk_view one = lk_view1(m->block + m->lay.at[B_ONE], LK_F32, e);

	K(m, lk_zero(m->dev, dp.data, (size_t)(n * e) * sizeof(float)));
	K(m, lk_rmsnorm_bwd(m->dev, &dp, (float *)one.data + e, &dz, &p, &one, (float *)(m->block + m->lay.at[B_RSTD])));
	if (m->dtype != LK_F32) {
		d16 = rows_of(m, B_DP_CAST, m->dtype, 0, n, e);
		K(m, lk_cast(m->dev, &d16, &dp));
	}
	K(m, lk_matmul(m->dev, &h.gdown, &d16, &y, LK_TA | LK_ACC, 1.0f));
	K(m, lk_matmul(m->dev, &dy, &d16, &h.down, 0, 1.0f));
	K(m, lk_swiglu_bwd(m->dev, &g, &u, &dy, &g, &u));
	K(m, lk_matmul(m->dev, &h.ggate_up, &gu, &pool, LK_TA | LK_ACC, 1.0f));
	K(m, lk_matmul(m->dev, &dpool, &gu, &h.gate_up, 0, 1.0f));
	for (int64_t v = 0; v < n; v++) {
		struct lk_view row = rows_of(m, B_DPOOL, m->dtype, v, 1, d), s = states_of(m, &dx, v);

		K(m, lk_matmul(m->dev, &s, &mean, &row, LK_TA, 1.0f));
	}
	lwm_supply_release(w, &m->last);
}

/* ---- a step ---- */

struct pass {
	lwm_view_fn *fill;
	void *ctx;
	struct lwm_supply *w;
	struct lwm_trunk_batch b;
	int64_t first, n;
};

/* Views of the pass to B_Z. A failure of this rank is kept; where weights are shared all ranks skip the pass together. */
static bool pass_forward(struct lwm_contrast *m, struct pass *p)
{
	struct lwm_err e = { 0 };
	int rc = m->rc ? m->rc : p->fill(p->ctx, p->first, p->n, m->vectors, &e);

	if (rc && !m->rc)
		keep_failure(m, rc, &e);
	rc = lwm_supply_agree(p->w, m->rc, &m->err);
	keep_failure(m, rc, &m->err);
	if (m->rc)
		return false;
	p->b = (struct lwm_trunk_batch){ .n = p->n * m->c.tokens, .vectors = m->vectors, .seg = m->seg, .pos = m->pos };
	keep_failure(m, lwm_trunk_begin(m->trunk, &p->b, p->w, &m->err), &m->err);
	if (m->rc)
		return false;
	lwm_trunk_forward(m->trunk);
	head_forward(m, p->w, p->first, p->n);
	return true;
}

static void pass_end(struct lwm_contrast *m)
{
	struct lwm_err e = { 0 };

	lwm_trunk_fail(m->trunk, m->rc, &m->err);
	keep_failure(m, lwm_trunk_end(m->trunk, &e), &e);
}

static void pass_backward(struct lwm_contrast *m, struct pass *p)
{
	head_backward(m, p->w, p->first, p->n);
	lwm_trunk_fail(m->trunk, m->rc, &m->err);
	lwm_trunk_backward(m->trunk);
}

/* Which row of all each of the own looks for; with a queue the one behind it. */
static void begin_step(struct lwm_contrast *m, int64_t pairs)
{
	LWM_BUG_ON(pairs < 1 || pairs > m->run.pairs);
	m->n = pairs;
	m->all = pairs * m->ranks;
	for (int64_t i = 0; i < pairs; i++)
		m->target[i] = (int32_t)(m->c.queue ? m->c.queue : m->rank * pairs + i);
	K(m, lk_upload(m->dev, m->block + m->lay.at[B_TARGET], m->target, (size_t)pairs * sizeof *m->target));
}

/* Second views by the copy, before anything of the first ones is kept for a backward. */
static void make_keys(struct lwm_contrast *m, struct pass p, int64_t pairs, int64_t step)
{
	lwm_shifted_weights_to(&m->keys, p.w);
	m->keys.base.grads = false;
	p.w = &m->keys.base;
	for (p.first = pairs; p.first < 2 * pairs; p.first += step) {
		p.n = 2 * pairs - p.first < step ? 2 * pairs - p.first : step;
		if (pass_forward(m, &p))
			pass_end(m);
	}
}

int lwm_contrast_step(struct lwm_contrast *m, int64_t pairs, lwm_view_fn *fill, void *ctx, struct lwm_supply *w,
		      struct lwm_contrast_stats *stats, struct lwm_err *e)
{
	int64_t views = m->c.momentum ? pairs : 2 * pairs, step = views_at_once(&m->c, &m->run);
	bool whole = step >= views, open = false, grads = w->grads;
	struct pass p = { .fill = fill, .ctx = ctx, .w = w };

	m->rc = 0;
	memset(&m->err, 0, sizeof m->err);
	m->loss_scale = lwm_supply_scale(w);
	begin_step(m, pairs);
	if (m->c.momentum)
		make_keys(m, p, pairs, step);
	w->grads = grads && whole;
	for (p.first = 0; p.first < views; p.first += step) {
		p.n = views - p.first < step ? views - p.first : step;
		open = pass_forward(m, &p);
		if (open && !whole)
			pass_end(m);
	}
	w->grads = grads;
	lwm_contrast_loss(m, w, grads, stats);
	for (p.first = 0; p.first < views && (w->grads || whole); p.first += step) {
		p.n = views - p.first < step ? views - p.first : step;
		w->more = p.first + p.n < views;
		if (!whole)
			open = pass_forward(m, &p);
		if (open && w->grads)
			pass_backward(m, &p);
		if (open)
			pass_end(m);
	}
	if (m->rc)
		*e = m->err;
	return m->rc;
}

int lwm_contrast_embeddings(struct lwm_contrast *m, float *host_out, struct lwm_err *e)
{
	size_t bytes = (size_t)(2 * m->n * m->c.out) * sizeof(float);

	return lwm_dev_check(m->dev, lk_download(m->dev, host_out, m->block + m->lay.at[B_Z], bytes), e);
}
