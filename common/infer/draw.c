/* draw.c - the next token of an engine: by sample.c from logits on the host, or where they are when that is not host memory.
 *
 * On a device only the id comes back. Both ways take the same random number and the same rules; sums are rounded differently.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/base/rng.h"
#include "common/comm/device.h"
#include "common/infer/compose.h"
#include "common/infer/engine_int.h"

static int host_logits(struct lwm_engine *g, enum lwm_modality head, struct lwm_err *e)
{
	const struct lwm_llama_cfg *c = &g->kv->cfg;
	int64_t most = c->vision_rows > c->vocab_text ? c->vision_rows : c->vocab_text;

	if (!g->logits)
		g->logits = malloc((size_t)(g->max_streams * most) * sizeof *g->logits);
	if (!g->logits)
		return lwm_fail(e, LWM_EMEMORY, "no memory for %" PRId64 " logits", most);
	return lwm_engine_read_logits(g, head, g->logits, e);
}

static int draw_on_host(struct lwm_engine *g, enum lwm_modality head, const struct lwm_draw *d, int64_t *id, double *logprob,
			struct lwm_err *e)
{
	const struct lwm_llama_cfg *c = &g->kv->cfg;
	int64_t rows = head == LWM_VISION ? c->vision_rows : c->vocab_text;
	float *logits;

	LWM_TRY(host_logits(g, head, e));
	logits = g->logits;
	if (g->have == 2) { // the result takes the place of the stream without a prompt
		lwm_guide_logits(logits + rows, logits, d->limit, d->guide);
		logits += rows;
	}
	return lwm_sampler_draw(d->sampler, logits, 0, d->limit, d->step, d->sample, id, logprob, e);
}

static int draw_on_device(struct lwm_engine *g, enum lwm_modality head, const struct lwm_draw *d, int64_t *id, double *logprob,
			  struct lwm_err *e)
{
	struct lwm_rng r = lwm_rng_at(d->sampler->seed, LWM_RNG_SAMPLE, d->step, d->sample);
	struct lk_draw_cfg how = { .first = 0, .last = d->limit, .top_k = d->sampler->top_k, .temperature = d->sampler->temperature,
				   .top_p = d->sampler->top_p };
	struct lk_view y, x;
	double u = lwm_rng_double(&r);
	int32_t got = -1;

	// row 0: the stream with the prompt; row 1: the one without
	LWM_TRY(lwm_engine_place_rows(g, head, e));
	y = lwm_logit_piece(g->m, head, 0, g->have);
	LWM_TRY(lwm_pass_result(g->m, e));
	x = lk_view1(y.data, LK_F32, d->limit);
	if (g->have == 2 && d->guide != 1) { // u + guide (c - u)
		y.data = (float *)y.data + y.stride[0];
		y = lk_view1(y.data, LK_F32, d->limit);
		LWM_TRY(lwm_dev_check(g->dev, lk_scale(g->dev, &y, (float)(1 - d->guide)), e));
		LWM_TRY(lwm_dev_check(g->dev, lk_axpy(g->dev, &y, (float)d->guide, &x), e));
		x = y;
	}
	x = lk_view2(x.data, LK_F32, 1, d->limit);
	LWM_TRY(lwm_dev_check(g->dev, lk_draw(g->dev, &x, &how, &u, &got, logprob), e));
	*id = got;
	if (got < 0)
		return lwm_fail(e, LWM_ENUMERIC, "logits 0 to %" PRId64 " hold NaN or nothing finite to choose from",
				d->limit - 1);
	return 0;
}

int lwm_engine_draw(struct lwm_engine *g, enum lwm_modality head, const struct lwm_draw *d, int64_t *id, double *logprob,
		 struct lwm_err *e)
{
	bool down = g->comm || lk_dev_is_host(g->dev) || g->have > lwm_logit_room(g->m);

	return down ? draw_on_host(g, head, d, id, logprob, e) : draw_on_device(g, head, d, id, logprob, e);
}

static int each_on_host(struct lwm_engine *g, enum lwm_modality head, const struct lwm_draw *d, int64_t *id, struct lwm_err *e)
{
	const struct lwm_llama_cfg *c = &g->kv->cfg;
	int64_t rows = head == LWM_VISION ? c->vision_rows : c->vocab_text;

	LWM_TRY(host_logits(g, head, e));
	for (int64_t i = 0; i < g->have; i++)
		LWM_TRY(lwm_sampler_draw(d[i].sampler, g->logits + i * rows, 0, d->limit, d[i].step, d[i].sample, &id[i], NULL, e));
	return 0;
}

static int each_on_device(struct lwm_engine *g, enum lwm_modality head, const struct lwm_draw *d, int64_t *id, struct lwm_err *e)
{
	struct lk_draw_cfg how = { .first = 0, .last = d->limit, .top_k = d->sampler->top_k, .temperature = d->sampler->temperature,
				   .top_p = d->sampler->top_p };
	int64_t n = g->have;
	double *u = malloc((size_t)n * sizeof *u);
	int32_t *got = malloc((size_t)n * sizeof *got);
	struct lk_view x;
	int rc = u && got ? lwm_engine_place_rows(g, head, e) : lwm_fail_memory(e, NULL);

	if (rc == 0) {
		x = lwm_logit_piece(g->m, head, 0, n);
		rc = lwm_pass_result(g->m, e);
	}
	for (int64_t i = 0; rc == 0 && i < n; i++) {
		struct lwm_rng r = lwm_rng_at(d[i].sampler->seed, LWM_RNG_SAMPLE, d[i].step, d[i].sample);

		u[i] = lwm_rng_double(&r);
	}
	if (rc == 0)
		rc = lwm_dev_check(g->dev, lk_draw(g->dev, &x, &how, u, got, NULL), e);
	for (int64_t i = 0; rc == 0 && i < n; i++) {
		id[i] = got[i];
		if (got[i] < 0)
			rc = lwm_fail(e, LWM_ENUMERIC, "logits 0 to %" PRId64 " hold NaN or nothing finite to choose from", d->limit - 1);
	}
	free(u);
	free(got);
	return rc;
}

int lwm_engine_draw_each(struct lwm_engine *g, enum lwm_modality head, const struct lwm_draw *d, int64_t *id, struct lwm_err *e)
{
	bool down = lk_dev_is_host(g->dev) || g->have > lwm_logit_room(g->m);

	if (g->comm)
		return lwm_fail(e, LWM_EINTERNAL, "a draw for each stream of an engine that ranks share");
	return (down ? each_on_host : each_on_device)(g, head, d, id, e);
}
