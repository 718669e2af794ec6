/* weights.c - weights, gradient and moments of one rank; the two collectives of a step, and AdamW over its piece between them. */
#include "common/optim/weights.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "common/comm/device.h"
#include "common/optim/lora.h"
#include "common/optim/squares.h"
#include "common/tensor/range.h"

/* Is the sum of gradients apart from the gradient of this rank's rows? */
static bool slice_apart(const struct lwm_cut *c, bool chained)
{
	return c->replicas > 1 || (chained && c->shards == 1);
}

static int64_t taken(const struct lk_dev *dev, int64_t bytes)
{
	return dev ? lk_mem_own(dev, bytes) : bytes;
}

struct lwm_weights_room lwm_weights_room_of(const struct lwm_cut *c, int dtype, bool chained, const struct lk_dev *dev)
{
	int64_t piece = taken(dev, c->count * 4), trained = taken(dev, c->trained * 4);
	return (struct lwm_weights_room){
		.weights = taken(dev, c->local * (int64_t)lk_dtype_size(dtype)) + (dtype != LK_F32 ? piece : 0),
		.gradients = taken(dev, c->local * 4) + (slice_apart(c, chained) ? piece : 0),
		.moments = 2 * trained,
		.average = trained,
	};
}

static int alloc_values(struct lwm_weights *w, int64_t n, size_t size, void **out, struct lwm_err *e)
{
	if (lk_mem_alloc(w->dev, (size_t)n * size, out) == 0)
		return 0;
	*out = NULL;
	return lwm_fail(e, LWM_EMEMORY, "%s: no room for %" PRId64 " values of weights, gradient and optimizer state",
			lk_dev_name(w->dev), n);
}

int lwm_weights_new(struct lwm_weights *w, struct lk_dev *dev, int dtype, const struct lwm_cut *cut, struct lwm_devcomm *replicas,
		    struct lwm_comm *ranks, bool chained, struct lwm_err *e)
{
	void *p;
	int rc;
	*w = (struct lwm_weights){ .dev = dev, .dtype = dtype, .replicas = replicas, .ranks = ranks, .cut = *cut,
				  .chained = chained };
	LWM_GO(alloc_values(w, cut->local, lk_dtype_size(dtype), &w->compute, e));
	LWM_GO(alloc_values(w, cut->local, 4, &p, e));
	w->grad = p;
	LWM_GO(alloc_values(w, cut->trained, 4, &p, e));
	w->m = p;
	LWM_GO(alloc_values(w, cut->trained, 4, &p, e));
	w->v = p;
	if (dtype != LK_F32) {
		LWM_GO(alloc_values(w, cut->count, 4, &p, e));
		w->master = p;
	} else if (!cut->spread) {
		w->master = (float *)w->compute + cut->first;
	}
	w->slice = w->grad;
	if (slice_apart(cut, chained)) {
		LWM_GO(alloc_values(w, cut->count, 4, &p, e));
		w->slice = p;
	}
	LWM_GO(lwm_dev_check(dev, lk_zero(dev, w->m, (size_t)cut->trained * 4), e));
	LWM_GO(lwm_dev_check(dev, lk_zero(dev, w->v, (size_t)cut->trained * 4), e));
out:
	if (rc < 0)
		lwm_weights_release(w);
	return rc;
}

void lwm_weights_release(struct lwm_weights *w)
{
	if (!w->dev)
		return;
	if (w->dtype != LK_F32 || w->parted)
		lk_mem_free(w->dev, w->master);
	if (w->slice != w->grad)
		lk_mem_free(w->dev, w->slice);
	lk_mem_free(w->dev, w->compute);
	lk_mem_free(w->dev, w->grad);
	lk_mem_free(w->dev, w->m);
	lk_mem_free(w->dev, w->v);
	lk_mem_free(w->dev, w->average);
	memset(w, 0, sizeof *w);
}

int lwm_weights_part_master(struct lwm_weights *w, struct lwm_err *e)
{
	void *p;
	if (w->dtype != LK_F32)
		return 0;
	LWM_TRY(alloc_values(w, w->cut.count, 4, &p, e));
	w->master = p;
	w->parted = true;
	return 0;
}

int lwm_weights_keep_average(struct lwm_weights *w, struct lwm_err *e)
{
	void *p;
	LWM_TRY(alloc_values(w, w->cut.trained, 4, &p, e));
	w->average = p;
	return lwm_dev_check(w->dev, lk_zero(w->dev, p, (size_t)w->cut.trained * 4), e);
}

/* Own master weights from element `at` of the state on: of a stretch all that are owned lie end to end. */
static float *masters(struct lwm_weights *w, int64_t at)
{
	return w->master ? w->master + at : (float *)w->compute + lwm_cut_place(&w->cut, at);
}

static float *state_piece(struct lwm_weights *w, enum lwm_state g)
{
	float *const piece[LWM_STATES] = { w->master, w->m, w->v, w->average };
	return piece[g];
}

float *lwm_weights_host(struct lwm_weights *w, enum lwm_state g)
{
	return lk_dev_is_host(w->dev) ? state_piece(w, g) : NULL;
}

/* Own master weights of a stretch become compute weights. */
static int set_compute(struct lwm_weights *w, const struct lwm_cut_stretch *s, struct lwm_err *e)
{
	int64_t n = lwm_cut_owned(&w->cut, s);
	char *dst = (char *)w->compute + (size_t)(s->at + w->cut.replica * s->slice) * lk_dtype_size(w->dtype);
	struct lk_view y = lk_view1(dst, w->dtype, n), x = lk_view1(w->master + s->state, LK_F32, n);
	return n ? lwm_dev_check(w->dev, lk_cast(w->dev, &y, &x), e) : 0;
}

/* Masters that lie among the compute weights, stretch by stretch. */
static int copy_masters(struct lwm_weights *w, float *out, const float *in, struct lwm_err *e)
{
	for (int64_t i = 0, n = lwm_cut_stretches(&w->cut); i < n; i++) {
		struct lwm_cut_stretch s = lwm_cut_stretch(&w->cut, i);
		float *here = masters(w, s.state);
		size_t bytes = (size_t)lwm_cut_owned(&w->cut, &s) * 4;
		if (bytes)
			LWM_TRY(lwm_dev_check(w->dev, out ? lk_download(w->dev, out + s.state, here, bytes) :
							    lk_upload(w->dev, here, in + s.state, bytes), e));
	}
	return 0;
}

int lwm_weights_put(struct lwm_weights *w, enum lwm_state g, const float *host, struct lwm_err *e)
{
	if (!state_piece(w, g))
		return copy_masters(w, NULL, host, e);
	if (host != state_piece(w, g))
		LWM_TRY(lwm_dev_check(w->dev, lk_upload(w->dev, state_piece(w, g), host, (size_t)lwm_weights_count(w, g) * 4), e));
	if (g != LWM_STATE_WEIGHTS || (w->dtype == LK_F32 && !w->parted))
		return 0;
	for (int64_t i = 0, n = lwm_cut_stretches(&w->cut); i < n; i++) {
		struct lwm_cut_stretch s = lwm_cut_stretch(&w->cut, i);
		LWM_TRY(set_compute(w, &s, e));
	}
	return 0;
}

int lwm_weights_take(struct lwm_weights *w, enum lwm_state g, float *host, struct lwm_err *e)
{
	if (!state_piece(w, g)) {
		memset(host, 0, (size_t)lwm_weights_count(w, g) * sizeof *host);
		return copy_masters(w, host, NULL, e);
	}
	return lwm_dev_check(w->dev, lk_download(w->dev, host, state_piece(w, g), (size_t)lwm_weights_count(w, g) * 4), e);
}

/* From the last stretch to the first: what one brings of the next ones, beyond its end, is the same on all replicas by then. */
static int gather_stretches(struct lwm_weights *w, bool all, struct lwm_err *e)
{
	size_t size = lk_dtype_size(w->dtype);
	if (w->lora)
		LWM_TRY(lwm_lora_apply(w->lora, e));
	if (w->cut.replicas == 1)
		return 0;
	for (int64_t i = lwm_cut_stretches(&w->cut) - 1; i >= 0; i--) {
		struct lwm_cut_stretch s = lwm_cut_stretch(&w->cut, i);
		char *at = (char *)w->compute + (size_t)s.at * size;
		size_t bytes = (size_t)s.slice * size;
		if (all || s.moves || s.follows)
			LWM_TRY(lwm_devcomm_allgather(w->replicas, at + (size_t)w->cut.replica * bytes, bytes, at, e));
	}
	return lwm_devcomm_settle(w->replicas, e);
}

int lwm_weights_gather(struct lwm_weights *w, struct lwm_err *e)
{
	return gather_stretches(w, true, e);
}

int lwm_weights_gather_moved(struct lwm_weights *w, struct lwm_err *e)
{
	return gather_stretches(w, false, e);
}

int lwm_weights_zero_grad(struct lwm_weights *w, struct lwm_err *e)
{
	if (w->chained && w->cut.shards == 1) /* sums stand there before the step is over */
		LWM_TRY(lwm_dev_check(w->dev, lk_zero(w->dev, w->slice, (size_t)w->cut.count * 4), e));
	return lwm_dev_check(w->dev, lk_zero(w->dev, w->grad, (size_t)w->cut.local * 4), e);
}

/* The sum is waited for here, where a rank that is lost is noticed: the norm is waited for next. Of chained sums of slices each
 * replica has parts, and zeros elsewhere: brought together they are not changed by it. */
static int sum_gradients(struct lwm_weights *w, struct lwm_err *e)
{
	if (w->cut.replicas == 1 || (w->chained && w->cut.shards == 1))
		return 0;
	for (int64_t i = 0, n = lwm_cut_stretches(&w->cut); i < n; i++) {
		struct lwm_cut_stretch s = lwm_cut_stretch(&w->cut, i);
		if (s.moves)
			LWM_TRY(lwm_devcomm_reduce_scatter_f32(w->replicas, w->grad + s.at, w->slice + s.state,
							       w->cut.replicas * s.slice, e));
	}
	return lwm_devcomm_settle(w->replicas, e);
}

static int zero_slice(struct lwm_weights *w, int64_t from, int64_t to, struct lwm_err *e)
{
	return to > from ? lwm_dev_check(w->dev, lk_zero(w->dev, w->slice + from, (size_t)(to - from) * 4), e) : 0;
}

/* The gradient of what is not trained counts for nothing: 0 in the own slice, with what lies there of nobody's. */
static int drop_frozen(struct lwm_weights *w, const struct lwm_tensors *t, struct lwm_err *e)
{
	int64_t from, n, at, end = 0;
	for (int64_t i = 0; w->cut.frozen && i < t->n; i++) {
		if (!t->list[i].trainable || !lwm_cut_own(&w->cut, &t->list[i], &from, &n, &at))
			continue;
		LWM_TRY(zero_slice(w, end, at, e));
		end = at + n;
	}
	return w->cut.frozen ? zero_slice(w, end, w->cut.count, e) : 0;
}

/* Of the own piece of the gradient, without what a lower tensor-parallel rank counts. */
static int sum_squares(struct lwm_weights *w, double *sum, struct lwm_err *e)
{
	const struct lwm_norm_share *s = &w->share;
	*sum = 0;
	if (s->tp <= 1)
		return lwm_dev_check(w->dev, lk_sumsq(w->dev, w->slice, w->cut.count, sum), e);
	for (int64_t i = 0; i < s->local->n; i++) {
		int64_t from, n, at;
		double some;
		if (s->tp_rank % lwm_part_copies(&s->whole->list[i], s->tp) ||
		    !lwm_cut_own(&w->cut, &s->local->list[i], &from, &n, &at))
			continue;
		LWM_TRY(lwm_dev_check(w->dev, lk_sumsq(w->dev, w->slice + at, n, &some), e));
		*sum += some;
	}
	return 0;
}

/* The same over all ranks, whoever has which piece. */
static int sum_squares_exactly(struct lwm_weights *w, double *sum, struct lwm_err *e)
{
	struct lwm_squares s = { .high = { 0 } };
	lwm_squares_add(&s, w->slice, w->cut.count);
	LWM_TRY(lwm_squares_gather(&s, w->ranks, e));
	*sum = lwm_squares_total(&s);
	return 0;
}

int lwm_weights_reduce(struct lwm_weights *w, const struct lwm_tensors *t, double scale, double *norm, struct lwm_err *e)
{
	double sum[2] = { 0 }; /* of squares; of ranks that failed, so that no other waits for them */
	LWM_TRY(sum_gradients(w, e));
	if (w->lora)
		LWM_TRY(lwm_lora_gradients(w->lora, e));
	int rc = drop_frozen(w, t, e);
	if (rc == 0 && !w->chained)
		rc = sum_squares(w, &sum[0], e);
	sum[1] = rc < 0;
	LWM_TRY(lwm_comm_sum_f64(w->ranks, sum, 2, e));
	if (sum[1] > 0)
		return lwm_agree(w->ranks, rc, e);
	if (w->chained)
		LWM_TRY(sum_squares_exactly(w, &sum[0], e));
	*norm = fabs(scale) * sqrt(sum[0]);
	return 0;
}

int lwm_weights_update(struct lwm_weights *w, const struct lwm_tensors *t, const struct lwm_adamw *how, int64_t n, double lr,
		       double scale, struct lwm_err *e)
{
	struct lk_adamw_cfg a = { .beta1 = (float)how->beta1,
				  .beta2 = (float)how->beta2,
				  .eps = (float)how->eps,
				  .grad_scale = (float)scale,
				  .bias1 = 1 - pow(how->beta1, (double)(n + 1)),
				  .bias2 = 1 - pow(how->beta2, (double)(n + 1)) };
	size_t size = lk_dtype_size(w->dtype);
	int64_t next = 0;
	for (int64_t i = 0; i < t->n; i++) {
		const struct lwm_tensor *q = &t->list[i];
		int64_t from, len, lo;
		if (!q->trainable || !lwm_cut_own(&w->cut, q, &from, &len, &lo))
			continue;
		int64_t mo = lwm_cut_trained(&w->cut, q, lo, len, &next);
		a.lr = (float)(q->rate > 0 ? lr * q->rate : lr);
		a.weight_decay = q->decays || how->decay_all ? (float)how->weight_decay : 0;
		int64_t place = lwm_cut_place(&w->cut, lo);
		void *copy = w->dtype == LK_F32 ? NULL : (char *)w->compute + (size_t)place * size;
		LWM_TRY(lwm_dev_check(w->dev, lk_adamw(w->dev, masters(w, lo), w->m + mo, w->v + mo, w->slice + lo, copy, len,
						       &a), e));
		if (w->parted)
			LWM_TRY(lwm_dev_check(w->dev, lk_copy(w->dev, (float *)w->compute + place, w->master + lo,
							      (size_t)len * 4), e));
	}
	return 0;
}

/* ---- the average ---- */

int lwm_weights_begin_average(struct lwm_weights *w, const struct lwm_tensors *t, struct lwm_err *e)
{
	int64_t from, n, at, next = 0;
	for (int64_t i = 0; i < t->n; i++) {
		if (!t->list[i].trainable || !lwm_cut_own(&w->cut, &t->list[i], &from, &n, &at))
			continue;
		int64_t to = lwm_cut_trained(&w->cut, &t->list[i], at, n, &next);
		LWM_TRY(lwm_dev_check(w->dev, lk_copy(w->dev, w->average + to, masters(w, at), (size_t)n * 4), e));
	}
	return 0;
}

/* The difference is formed first, where the gradient was: decay * average + (1 - decay) * weights would drift, since the two
 * factors are rounded each by itself. */
static int average_stretch(struct lwm_weights *w, float *average, int64_t at, int64_t n, float rest, struct lwm_err *e)
{
	struct lk_view y = lk_view1(average, LK_F32, n), d = lk_view1(w->slice + at, LK_F32, n);
	LWM_TRY(lwm_dev_check(w->dev, lk_copy(w->dev, w->slice + at, masters(w, at), (size_t)n * 4), e));
	LWM_TRY(lwm_dev_check(w->dev, lk_axpy(w->dev, &d, -1, &y), e));
	return lwm_dev_check(w->dev, lk_axpy(w->dev, &y, rest, &d), e);
}

int lwm_weights_average(struct lwm_weights *w, const struct lwm_tensors *t, double decay, struct lwm_err *e)
{
	int64_t from, n, at, next = 0;
	for (int64_t i = 0; i < t->n; i++) {
		if (!t->list[i].trainable || !lwm_cut_own(&w->cut, &t->list[i], &from, &n, &at))
			continue;
		int64_t to = lwm_cut_trained(&w->cut, &t->list[i], at, n, &next);
		LWM_TRY(average_stretch(w, w->average + to, at, n, (float)(1 - decay), e));
	}
	return 0;
}

/* ---- copies that follow ---- */

/* n own elements of one tensor, from element `at` of the state on: between master and compute weights, where these are apart. */
static int cast_piece(struct lwm_weights *w, int64_t at, int64_t n, bool back, struct lwm_err *e)
{
	if (w->dtype == LK_F32 && !w->parted)
		return 0;
	char *p = (char *)w->compute + (size_t)lwm_cut_place(&w->cut, at) * lk_dtype_size(w->dtype);
	struct lk_view c = lk_view1(p, w->dtype, n), m = lk_view1(w->master + at, LK_F32, n);
	return lwm_dev_check(w->dev, back ? lk_cast(w->dev, &m, &c) : lk_cast(w->dev, &c, &m), e);
}

int lwm_weights_follow(struct lwm_weights *w, const struct lwm_tensors *t, double momentum, struct lwm_err *e)
{
	for (int64_t i = 0; i < t->n; i++) {
		const struct lwm_tensor *q = &t->list[i], *of = &t->list[q->follows ? q->follows - 1 : i];
		int64_t from, n, at, first, many, source;
		if (!q->follows || !lwm_cut_own(&w->cut, q, &from, &n, &at))
			continue;
		LWM_BUG_ON(!lwm_cut_own(&w->cut, of, &first, &many, &source) || many != n ||
			   first - of->offset != from - q->offset);
		if (momentum > 0)
			LWM_TRY(average_stretch(w, masters(w, at), source, n, (float)(1 - momentum), e));
		else
			LWM_TRY(lwm_dev_check(w->dev, lk_copy(w->dev, masters(w, at), masters(w, source), (size_t)n * 4), e));
		LWM_TRY(cast_piece(w, at, n, false, e));
	}
	return 0;
}

int lwm_weights_adopt(struct lwm_weights *w, const struct lwm_tensors *t, struct lwm_err *e)
{
	int64_t from, n, at;
	for (int64_t i = 0; i < t->n; i++)
		if (t->list[i].written && lwm_cut_own(&w->cut, &t->list[i], &from, &n, &at))
			LWM_TRY(cast_piece(w, at, n, true, e));
	return 0;
}

double lwm_average_decay(double most, int64_t n)
{
	double warm = (1 + (double)n) / (10 + (double)n);
	return warm < most ? warm : most;
}
