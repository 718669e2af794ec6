/* denoise.c - the pass of denoise.h: patches and features in, the trunk over them, F, D, the loss, and back. */
#include "common/model/denoise.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/pixels.h"

struct lwm_denoise {
	struct lk_dev *dev;
	struct lwm_denoise_cfg c;
	struct lwm_denoise_run run;
	struct lwm_llama *trunk;
	struct lwm_pixels pixels;
	struct lwm_clip_loss *loss;
	struct lwm_group group;
	int64_t weight; /* its place in it */
	int dtype;
	float *vectors, *out; /* host, of a pass: (rows, input_dim); (rows, numbers): F, then its gradient */
	float *denoised, *slope; /* of a clip: D, the gradient of it */
	int32_t *seg, *pos, *idx; /* (rows) each */
};

/* ---- sizes ---- */

int lwm_denoise_check(const struct lwm_denoise_cfg *c, struct lwm_err *e)
{
	const struct lwm_latent_shape *s = &c->shape;

	LWM_TRY(lwm_llama_check(&c->trunk, e));
	if (s->times < 1 || s->rows < 1 || s->columns < 1 || s->channels < 1 || c->patch < 1 || s->rows % c->patch ||
	    s->columns % c->patch)
		return lwm_fail(e, LWM_ECONFIG, "denoise: clips of %" PRId64 " x %" PRId64 " x %" PRId64 " x %" PRId64 " latents are not cut by "
				"patches of %" PRId64, s->times, s->rows, s->columns, s->channels, c->patch);
	if (c->trunk.input_dim != lwm_denoise_input_dim(c))
		return lwm_fail(e, LWM_ECONFIG, "denoise: vectors of %" PRId64 " numbers, but a patch and the features of its noise are %" PRId64,
				c->trunk.input_dim, lwm_denoise_input_dim(c));
	return 0;
}

int lwm_denoise_tensors(struct lwm_tensors *t, const struct lwm_denoise_cfg *c, struct lwm_err *e)
{
	int rc = lwm_denoise_check(c, e);

	LWM_TRY(rc);
	LWM_TRY(lwm_llama_tensors(t, &c->trunk, e));
	rc = lwm_tensors_add(t, &(struct lwm_tensor){ .name = "denoise.latents.weight", .ndim = 2,
			     .shape = { lwm_denoise_numbers(c), c->trunk.dim }, .role = LWM_ROLE_MATRIX, .modality = LWM_MODALITIES,
			     .trainable = true, .decays = true, .split = LWM_SPLIT_NONE, .init = LWM_INIT_NORMAL,
			     .value = c->trunk.init_std, .group = (int)c->trunk.layers + 1 }, e);
	if (rc < 0)
		lwm_tensors_release(t);
	return rc;
}

static struct lwm_llama_run trunk_run(const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r)
{
	struct lwm_llama_run y = r->how;

	y.tokens = r->clips * lwm_denoise_tokens(c);
	y.no_causal = true;
	y.ring = y.tp = NULL;
	y.attention = NULL;
	return y;
}

int64_t lwm_denoise_memory(const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r, int dtype)
{
	struct lwm_llama_run how = trunk_run(c, r);

	return lwm_llama_memory(&c->trunk, &how, dtype, 1, 1).total +
	       lwm_pixels_bytes(how.tokens, c->trunk.dim, lwm_denoise_numbers(c), dtype, r->how.train);
}

int64_t lwm_denoise_host(const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r, int dtype)
{
	struct lwm_llama_run how = trunk_run(c, r);

	return lwm_llama_memory(&c->trunk, &how, dtype, 1, 1).host;
}

int64_t lwm_denoise_arrays(const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r)
{
	struct lwm_llama_run how = trunk_run(c, r);
	int64_t numbers = lwm_denoise_numbers(c);

	return lwm_llama_arrays(&how, 1) + how.tokens * (4 * (c->trunk.input_dim + numbers) + 3 * 4) +
	       lwm_pixels_arrays(how.tokens, numbers) + lwm_clip_loss_bytes(&c->shape) + 8 * lwm_latent_count(&c->shape);
}

int64_t lwm_denoise_own(struct lk_dev *dev, const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r)
{
	struct lwm_llama_run how = trunk_run(c, r);

	return lwm_llama_own(dev, &c->trunk, &how, 1);
}

double lwm_denoise_flops(const struct lwm_denoise_cfg *c, double clips)
{
	double each = (double)lwm_denoise_tokens(c), rows = clips * each;
	struct lwm_llama_work w = { .tokens = rows, .pairs = rows * each };

	return lwm_llama_work_flops(&c->trunk, &w) +
	       (4 * (double)c->trunk.input_dim + 6 * (double)lwm_denoise_numbers(c)) * rows * (double)c->trunk.dim;
}

/* ---- life ---- */

static int find_weights(struct lwm_denoise *m, struct lwm_err *e)
{
	struct lwm_tensors t;

	LWM_TRY(lwm_denoise_tensors(&t, &m->c, e));
	m->group = lwm_tensors_group(&t, m->c.trunk.layers + 1);
	m->weight = lwm_tensors_find(&t, "denoise.latents.weight")->offset - m->group.offset;
	lwm_tensors_release(&t);
	return 0;
}

static int allocate_memory(struct lwm_denoise *m, struct lwm_err *e)
{
	struct lwm_llama_run how = trunk_run(&m->c, &m->run);
	size_t n = (size_t)how.tokens, clip = (size_t)lwm_latent_count(&m->c.shape);
	int64_t numbers = lwm_denoise_numbers(&m->c), each = lwm_denoise_tokens(&m->c);

	m->vectors = malloc(n * (size_t)m->c.trunk.input_dim * sizeof *m->vectors);
	m->out = malloc(n * (size_t)numbers * sizeof *m->out);
	m->denoised = malloc(2 * clip * sizeof *m->denoised);
	m->seg = malloc(n * 3 * sizeof *m->seg);
	if (!m->vectors || !m->out || !m->denoised || !m->seg)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %zu patches", n);
	m->slope = m->denoised + clip;
	m->pos = m->seg + n;
	m->idx = m->pos + n;
	for (int64_t i = 0; i < how.tokens; i++) {
		m->seg[i] = (int32_t)(i / each);
		m->pos[i] = (int32_t)(i % each);
		m->idx[i] = (int32_t)i;
	}
	LWM_TRY(lwm_clip_loss_new(&m->loss, &m->c.shape, m->run.structure, m->run.dynamics, e));
	LWM_TRY(lwm_pixels_init(&m->pixels, m->dev, how.tokens, m->c.trunk.dim, numbers, m->run.how.train, e));
	return lwm_llama_new(&m->trunk, m->dev, &m->c.trunk, &how, e);
}

int lwm_denoise_new(struct lwm_denoise **out, struct lk_dev *dev, const struct lwm_denoise_cfg *c, const struct lwm_denoise_run *r,
		    struct lwm_err *e)
{
	struct lwm_denoise *m;
	int rc = 0;

	*out = NULL;
	LWM_TRY(lwm_denoise_check(c, e));
	if (r->clips < 1)
		return lwm_fail(e, LWM_ECONFIG, "denoise: %" PRId64 " clips at a time", r->clips);
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
		lwm_denoise_free(m);
	return rc;
}

void lwm_denoise_free(struct lwm_denoise *m)
{
	if (!m)
		return;
	lwm_llama_free(m->trunk);
	lwm_pixels_release(&m->pixels);
	lwm_clip_loss_free(m->loss);
	free(m->vectors);
	free(m->out);
	free(m->denoised);
	free(m->seg);
	free(m);
}

/* ---- patches ---- */

/* Where the line y of the patch of token i begins in its clip; it has patch * channels numbers. */
static int64_t line_of(const struct lwm_denoise *m, int64_t i, int64_t y)
{
	const struct lwm_latent_shape *s = &m->c.shape;
	int64_t across = s->columns / m->c.patch, down = s->rows / m->c.patch, t = i / (across * down);
	int64_t row = i / across % down * m->c.patch + y, column = i % across * m->c.patch;

	return ((t * s->rows + row) * s->columns + column) * s->channels;
}

static int64_t time_of(const struct lwm_denoise *m, int64_t i)
{
	return i / (lwm_denoise_tokens(&m->c) / m->c.shape.times);
}

static void write_features(double c, float *out)
{
	for (int k = 0; k < LWM_DENOISE_FEATURES / 2; k++) {
		out[k] = (float)cos(k * M_PI / 2 * c);
		out[LWM_DENOISE_FEATURES / 2 + k] = (float)sin((k + 1) * M_PI / 2 * c);
	}
}

/* The patch of token t of a clip, times `scale`. */
static void copy_patch(const struct lwm_denoise *m, const float *x, int64_t t, float scale, float *out)
{
	int64_t line = m->c.patch * m->c.shape.channels;

	for (int64_t y = 0; y < m->c.patch; y++)
		for (int64_t k = 0; k < line; k++)
			*out++ = scale * x[line_of(m, t, y) + k];
}

/* The vectors of clip i of the pass. */
static void take_clip(struct lwm_denoise *m, const struct lwm_denoise_batch *b, int64_t i)
{
	struct lwm_precondition pre = lwm_precondition(b->sigma[i]);
	int64_t each = lwm_denoise_tokens(&m->c), numbers = lwm_denoise_numbers(&m->c), time = each / m->c.shape.times;
	int64_t last = (b->clean[i] - 1) * time; /* token that the last clean time begins with */
	const float *x = b->noisy + i * lwm_latent_count(&m->c.shape);
	float *v = m->vectors + i * each * m->c.trunk.input_dim, features[LWM_DENOISE_FEATURES];

	write_features(pre.noise, features);
	for (int64_t t = 0; t < each; t++, v += m->c.trunk.input_dim) {
		bool clean = time_of(m, t) < b->clean[i];

		memset(v + numbers, 0, (size_t)numbers * sizeof *v + 2 * sizeof features);
		copy_patch(m, x, t, clean ? 1 : (float)pre.in, v);
		if (b->clean[i])
			copy_patch(m, x, last + t % time, 1, v + numbers);
		memcpy(v + 2 * numbers + (clean ? LWM_DENOISE_FEATURES : 0), features, sizeof features);
	}
}

/* D of clip i of the pass from F, m->out; scale 0 is a net whose F is 0. */
static void put_denoised(const struct lwm_denoise *m, const struct lwm_denoise_batch *b, int64_t i, double scale, float *d)
{
	struct lwm_precondition pre = lwm_precondition(b->sigma[i]);
	int64_t each = lwm_denoise_tokens(&m->c), line = m->c.patch * m->c.shape.channels, numbers = lwm_denoise_numbers(&m->c);
	const float *x = b->noisy + i * lwm_latent_count(&m->c.shape), *f = m->out + i * each * numbers;

	for (int64_t t = 0; t < each; t++)
		for (int64_t y = 0; y < m->c.patch; y++)
			for (int64_t k = 0, at = line_of(m, t, y); k < line; k++)
				d[at + k] = time_of(m, t) < b->clean[i] ? x[at + k] :
					    (float)(pre.skip * (double)x[at + k] +
						    scale * pre.out * (double)f[t * numbers + y * line + k]);
}

/* m->out of clip i becomes the gradient of F, from m->slope, that of D. */
static void take_slope(struct lwm_denoise *m, const struct lwm_denoise_batch *b, int64_t i)
{
	double out = lwm_precondition(b->sigma[i]).out;
	int64_t each = lwm_denoise_tokens(&m->c), line = m->c.patch * m->c.shape.channels, numbers = lwm_denoise_numbers(&m->c);
	float *f = m->out + i * each * numbers;

	for (int64_t t = 0; t < each; t++)
		for (int64_t y = 0; y < m->c.patch; y++)
			for (int64_t k = 0; k < line; k++)
				f[t * numbers + y * line + k] = (float)(out * (double)m->slope[line_of(m, t, y) + k]);
}

/* ---- a step ---- */

static void judge_clips(struct lwm_denoise *m, const struct lwm_denoise_batch *b, bool back, struct lwm_denoise_stats *stats)
{
	int64_t n = lwm_latent_count(&m->c.shape);
	struct lwm_clip_parts nothing = { 0 };

	for (int64_t i = 0; i < b->clips; i++) {
		double weight = lwm_precondition(b->sigma[i]).weight;
		const float *z = b->target + i * n;

		if (stats->compare) {
			put_denoised(m, b, i, 0, m->denoised);
			lwm_clip_loss(m->loss, z, m->denoised, b->clean[i], weight, &nothing, NULL);
		}
		put_denoised(m, b, i, 1, m->denoised);
		lwm_clip_loss(m->loss, z, m->denoised, b->clean[i], weight, &stats->parts, back ? m->slope : NULL);
		if (b->denoised)
			memcpy(b->denoised + i * n, m->denoised, (size_t)n * sizeof *z);
		if (back)
			take_slope(m, b, i);
	}
	stats->nothing += nothing.plain + nothing.dynamics + nothing.structure;
	stats->clips += (double)b->clips;
}

/* F, what is made of it, and its gradient in the trunk's. stats NULL: D alone. */
static int predict(struct lwm_denoise *m, const struct lwm_denoise_batch *b, struct lwm_supply *w, struct lwm_denoise_stats *stats,
		   int failed, struct lwm_err *e)
{
	int64_t n = b->clips * lwm_denoise_tokens(&m->c), p = lwm_denoise_numbers(&m->c), d = m->c.trunk.dim;
	struct lwm_pixels_step s = { .h = lwm_trunk_hidden(m->trunk), .idx = m->idx, .n = n, .scale = w->scale };
	struct lwm_supplied at = { NULL, NULL };
	int rc = lwm_supply_acquire(w, &m->group, w->grads ? LWM_WEIGHTS | LWM_GRADS : LWM_WEIGHTS, &at, failed, e);

	s.w = lk_view2(at.w ? (char *)(uintptr_t)at.w + m->weight * (int64_t)lk_dtype_size(m->dtype) : NULL, m->dtype, p, d);
	s.g = lk_view2(at.g ? at.g + m->weight : NULL, LK_F32, p, d);
	if (rc == 0)
		rc = lwm_pixels_predict(&m->pixels, &s, m->out, e);
	if (rc == 0 && stats)
		judge_clips(m, b, w->grads, stats);
	for (int64_t i = 0; i < b->clips && rc == 0 && !stats; i++)
		put_denoised(m, b, i, 1, b->denoised + i * lwm_latent_count(&m->c.shape));
	if (w->grads)
		s.dh = lwm_trunk_hidden_grad(m->trunk);
	if (rc == 0 && w->grads)
		rc = lwm_pixels_back(&m->pixels, &s, m->out, e);
	lwm_supply_release(w, &m->group);
	return rc;
}

static int run_pass(struct lwm_denoise *m, const struct lwm_denoise_batch *b, struct lwm_supply *w, struct lwm_denoise_stats *stats,
		    struct lwm_err *e)
{
	struct lwm_trunk_batch t = { .n = b->clips * lwm_denoise_tokens(&m->c), .vectors = m->vectors, .seg = m->seg,
				     .pos = m->pos };
	struct lwm_err why = { 0 };

	LWM_BUG_ON(b->clips < 1 || b->clips > m->run.clips);
	for (int64_t i = 0; i < b->clips; i++)
		take_clip(m, b, i);
	LWM_TRY(lwm_trunk_begin(m->trunk, &t, w, e));
	lwm_trunk_forward(m->trunk);
	lwm_trunk_fail(m->trunk, predict(m, b, w, stats, lwm_trunk_fail(m->trunk, 0, &why), &why), &why);
	if (w->grads)
		lwm_trunk_backward(m->trunk);
	return lwm_trunk_end(m->trunk, e);
}

int lwm_denoise_step(struct lwm_denoise *m, const struct lwm_denoise_batch *b, struct lwm_supply *w,
		     struct lwm_denoise_stats *stats, struct lwm_err *e)
{
	return run_pass(m, b, w, stats, e);
}

int lwm_denoise_apply(struct lwm_denoise *m, const struct lwm_denoise_batch *b, struct lwm_supply *w, struct lwm_err *e)
{
	LWM_BUG_ON(w->grads || !b->denoised);
	return run_pass(m, b, w, NULL, e);
}
