/* forecast.c - the pass of forecast.h: the trunk over all times but the last, what changes, and back. */
#include "common/model/forecast.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/pixels.h"

struct lwm_forecast {
	struct lk_dev *dev;
	struct lwm_forecast_cfg c;
	struct lwm_forecast_run run;
	struct lwm_llama *trunk;
	struct lwm_pixels pixels;
	struct lwm_group group;
	int64_t weight; /* its place in it */
	int dtype;
	float *vectors, *change; /* host, of a pass: (rows, input_dim) */
	double *loss;            /* (rows) */
	int32_t *seg, *pos, *see, *idx; /* (rows) each */
};

/* ---- sizes ---- */

int lwm_forecast_check(const struct lwm_forecast_cfg *c, struct lwm_err *e)
{
	LWM_TRY(lwm_llama_check(&c->trunk, e));
	if (c->trunk.input_dim < 1 || c->times < 2 || c->places < 1)
		return lwm_fail(e, LWM_ECONFIG, "forecast: clips of %" PRId64 " times of %" PRId64 " patches: two times are needed, one to see and "
				"one to predict", c->times, c->places);
	return 0;
}

int lwm_forecast_tensors(struct lwm_tensors *t, const struct lwm_forecast_cfg *c, struct lwm_err *e)
{
	int rc = lwm_forecast_check(c, e);

	LWM_TRY(rc);
	LWM_TRY(lwm_llama_tensors(t, &c->trunk, e));
	rc = lwm_tensors_add(t, &(struct lwm_tensor){ .name = "forecast.pixels.weight", .ndim = 2,
			     .shape = { c->trunk.input_dim, c->trunk.dim }, .role = LWM_ROLE_MATRIX, .modality = LWM_MODALITIES,
			     .trainable = true, .decays = true, .split = LWM_SPLIT_NONE, .init = LWM_INIT_NORMAL,
			     .value = c->trunk.init_std, .group = (int)c->trunk.layers + 1 }, e);
	if (rc < 0)
		lwm_tensors_release(t);
	return rc;
}

static int64_t rows_of(const struct lwm_forecast_cfg *c, int64_t clips)
{
	return clips * (c->times - 1) * c->places;
}

static struct lwm_llama_run trunk_run(const struct lwm_forecast_cfg *c, const struct lwm_forecast_run *r)
{
	struct lwm_llama_run y = r->how;

	y.tokens = rows_of(c, r->clips);
	y.no_causal = false;
	y.ring = y.tp = NULL;
	y.attention = NULL;
	return y;
}

int64_t lwm_forecast_memory(const struct lwm_forecast_cfg *c, const struct lwm_forecast_run *r, int dtype)
{
	struct lwm_llama_run how = trunk_run(c, r);

	return lwm_llama_memory(&c->trunk, &how, dtype, 1, 1).total +
	       lwm_pixels_bytes(how.tokens, c->trunk.dim, c->trunk.input_dim, dtype, r->how.train);
}

int64_t lwm_forecast_host(const struct lwm_forecast_cfg *c, const struct lwm_forecast_run *r, int dtype)
{
	struct lwm_llama_run how = trunk_run(c, r);

	return lwm_llama_memory(&c->trunk, &how, dtype, 1, 1).host;
}

int64_t lwm_forecast_arrays(const struct lwm_forecast_cfg *c, const struct lwm_forecast_run *r)
{
	struct lwm_llama_run how = trunk_run(c, r);

	return lwm_llama_arrays(&how, 1) + how.tokens * (8 * c->trunk.input_dim + 8 + 4 * 4) +
	       lwm_pixels_arrays(how.tokens, c->trunk.input_dim);
}

int64_t lwm_forecast_own(struct lk_dev *dev, const struct lwm_forecast_cfg *c, const struct lwm_forecast_run *r)
{
	struct lwm_llama_run how = trunk_run(c, r);

	return lwm_llama_own(dev, &c->trunk, &how, 1);
}

/* A place sees the places of its own time and of those before. */
double lwm_forecast_flops(const struct lwm_forecast_cfg *c, double clips)
{
	double t = (double)(c->times - 1), s = (double)c->places, rows = clips * t * s;
	struct lwm_llama_work w = { .tokens = rows, .pairs = clips * s * s * t * (t + 1) / 2 };

	return lwm_llama_work_flops(&c->trunk, &w) + 10 * rows * (double)c->trunk.input_dim * (double)c->trunk.dim;
}

/* ---- life ---- */

static int find_weights(struct lwm_forecast *m, struct lwm_err *e)
{
	struct lwm_tensors t;

	LWM_TRY(lwm_forecast_tensors(&t, &m->c, e));
	m->group = lwm_tensors_group(&t, m->c.trunk.layers + 1);
	m->weight = lwm_tensors_find(&t, "forecast.pixels.weight")->offset - m->group.offset;
	lwm_tensors_release(&t);
	return 0;
}

static int allocate_memory(struct lwm_forecast *m, struct lwm_err *e)
{
	struct lwm_llama_run how = trunk_run(&m->c, &m->run);
	size_t n = (size_t)how.tokens, p = (size_t)m->c.trunk.input_dim;

	m->vectors = malloc(n * p * sizeof *m->vectors);
	m->change = malloc(n * p * sizeof *m->change);
	m->loss = malloc(n * sizeof *m->loss);
	m->seg = malloc(n * 4 * sizeof *m->seg);
	if (!m->vectors || !m->change || !m->loss || !m->seg)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %zu patches", n);
	m->pos = m->seg + n;
	m->see = m->pos + n;
	m->idx = m->see + n;
	for (int64_t i = 0, one = rows_of(&m->c, 1); i < how.tokens; i++) {
		m->seg[i] = (int32_t)(i / one);
		m->pos[i] = (int32_t)(i % one);
		m->see[i] = (int32_t)(i % one / m->c.places);
		m->idx[i] = (int32_t)i;
	}
	LWM_TRY(lwm_pixels_init(&m->pixels, m->dev, how.tokens, m->c.trunk.dim, (int64_t)p, m->run.how.train, e));
	return lwm_llama_new(&m->trunk, m->dev, &m->c.trunk, &how, e);
}

int lwm_forecast_new(struct lwm_forecast **out, struct lk_dev *dev, const struct lwm_forecast_cfg *c,
		     const struct lwm_forecast_run *r, struct lwm_err *e)
{
	struct lwm_forecast *m;
	int rc = 0;

	*out = NULL;
	LWM_TRY(lwm_forecast_check(c, e));
	if (r->clips < 1)
		return lwm_fail(e, LWM_ECONFIG, "forecast: %" PRId64 " clips at a time", r->clips);
	m = calloc(1, sizeof *m);
	if (!m)
		return lwm_fail(e, LWM_EMEMORY, "no memory for a model");
	m->dev = dev;
	m->c = *c;
	m->run = *r;
	m->dtype = lk_dev_dtype(dev);
	LWM_GO(find_weights(m, e));
	LWM_GO(allocate_memory(m, e));
	*out = m;
out:
	if (rc < 0)
		lwm_forecast_free(m);
	return rc;
}

void lwm_forecast_free(struct lwm_forecast *m)
{
	if (!m)
		return;
	lwm_llama_free(m->trunk);
	lwm_pixels_release(&m->pixels);
	free(m->vectors);
	free(m->change);
	free(m->loss);
	free(m->seg);
	free(m);
}

/* ---- a step ---- */

/* All times but the last, and what becomes of each of their numbers. Returns the sum of what a forecast without change misses. */
static double take_patches(struct lwm_forecast *m, const struct lwm_forecast_batch *b)
{
	int64_t time = m->c.places * m->c.trunk.input_dim, some = (m->c.times - 1) * time;
	double still = 0;

	for (int64_t i = 0; i < b->clips; i++) {
		const float *x = b->patches + i * m->c.times * time;
		float *d = m->change + i * some;

		memcpy(m->vectors + i * some, x, (size_t)some * sizeof *x);
		for (int64_t k = 0; k < some; k++) {
			d[k] = x[k + time] - x[k];
			still += (double)d[k] * (double)d[k];
		}
	}
	return still / (double)m->c.trunk.input_dim;
}

/* The loss, and its gradient in the trunk's. */
static int predict(struct lwm_forecast *m, const struct lwm_forecast_batch *b, struct lwm_supply *w,
		   struct lwm_forecast_stats *stats, int failed, struct lwm_err *e)
{
	int64_t n = rows_of(&m->c, b->clips), p = m->c.trunk.input_dim, d = m->c.trunk.dim;
	struct lwm_pixels_step s = { .h = lwm_trunk_hidden(m->trunk), .idx = m->idx, .n = n, .target = m->change,
				     .scale = w->scale };
	struct lwm_supplied at = { NULL, NULL };
	int rc = lwm_supply_acquire(w, &m->group, w->grads ? LWM_WEIGHTS | LWM_GRADS : LWM_WEIGHTS, &at, failed, e);

	s.w = lk_view2(at.w ? (char *)(uintptr_t)at.w + m->weight * (int64_t)lk_dtype_size(m->dtype) : NULL, m->dtype, p, d);
	s.g = lk_view2(at.g ? at.g + m->weight : NULL, LK_F32, p, d);
	if (w->grads)
		s.dh = lwm_trunk_hidden_grad(m->trunk);
	if (rc == 0)
		rc = lwm_pixels_loss(&m->pixels, &s, m->loss, b->predicted, e);
	lwm_supply_release(w, &m->group);
	for (int64_t i = 0; i < n && rc == 0; i++)
		stats->loss += m->loss[i];
	for (int64_t i = 0; i < n * p && rc == 0 && b->predicted; i++)
		b->predicted[i] += m->vectors[i];
	stats->patches += rc ? 0 : (double)n;
	return rc;
}

int lwm_forecast_step(struct lwm_forecast *m, const struct lwm_forecast_batch *b, struct lwm_supply *w,
		      struct lwm_forecast_stats *stats, struct lwm_err *e)
{
	struct lwm_trunk_batch t = { .n = rows_of(&m->c, b->clips), .vectors = m->vectors, .seg = m->seg, .pos = m->pos,
				     .see = m->see };
	struct lwm_err why = { 0 };

	LWM_BUG_ON(b->clips < 1 || b->clips > m->run.clips);
	stats->still += take_patches(m, b);
	LWM_TRY(lwm_trunk_begin(m->trunk, &t, w, e));
	lwm_trunk_forward(m->trunk);
	lwm_trunk_fail(m->trunk, predict(m, b, w, stats, lwm_trunk_fail(m->trunk, 0, &why), &why), &why);
	if (w->grads)
		lwm_trunk_backward(m->trunk);
	return lwm_trunk_end(m->trunk, e);
}
