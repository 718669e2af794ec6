/* weights.c - weights, gradient and moments of one rank; the two collectives of a step, and AdamW over the slice between them. */
#include "common/optim/weights.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/device.h"
#include "common/tensor/range.h"

int64_t lwm_weights_bytes(int64_t floats, int ranks, int dtype)
{
	struct lwm_slice s = lwm_slice_of(floats, 0, ranks);
	return s.total * (int64_t)(lk_dtype_size(dtype) + 4) + s.count * 4 * (2 + (dtype != LK_F32) + (ranks > 1));
}

static int alloc_values(struct lwm_weights *w, int64_t n, size_t size, void **out, struct lwm_err *e)
{
	if (lk_mem_alloc(w->dev, (size_t)n * size, out) == 0)
		return 0;
	*out = NULL;
	return lwm_fail(e, LWM_EMEMORY, "%s: no room for %" PRId64 " values of weights, gradient and optimizer state",
			lk_dev_name(w->dev), n);
}

int lwm_weights_new(struct lwm_weights *w, struct lk_dev *dev, int dtype, int64_t floats, struct lwm_devcomm *grad_dev,
		    struct lwm_err *e)
{
	struct lwm_comm *grad_comm = lwm_devcomm_comm(grad_dev);
	int ranks = lwm_comm_size(grad_comm), rc;
	struct lwm_slice own = lwm_slice_of(floats, lwm_comm_rank(grad_comm), ranks);
	void *p;
	memset(w, 0, sizeof *w);
	w->dev = dev;
	w->dtype = dtype;
	w->grad_dev = grad_dev;
	w->grad_comm = grad_comm;
	w->count = own.count;
	w->total = own.total;
	w->first = own.first;
	LWM_GO(alloc_values(w, w->total, lk_dtype_size(w->dtype), &w->compute, e));
	LWM_GO(alloc_values(w, w->total, 4, &p, e));
	w->grad = p;
	LWM_GO(alloc_values(w, w->count, 4, &p, e));
	w->m = p;
	LWM_GO(alloc_values(w, w->count, 4, &p, e));
	w->v = p;
	if (w->dtype != LK_F32) {
		LWM_GO(alloc_values(w, w->count, 4, &p, e));
		w->master = p;
	} else {
		w->master = (float *)w->compute + w->first;
	}
	w->slice = w->grad;
	if (ranks > 1) {
		LWM_GO(alloc_values(w, w->count, 4, &p, e));
		w->slice = p;
	}
	LWM_GO(lwm_dev_check(w->dev, lk_zero(w->dev, w->m, (size_t)w->count * 4), e));
	LWM_GO(lwm_dev_check(w->dev, lk_zero(w->dev, w->v, (size_t)w->count * 4), e));
out:
	if (rc < 0)
		lwm_weights_release(w);
	return rc;
}

void lwm_weights_release(struct lwm_weights *w)
{
	if (!w->dev)
		return;
	if (w->dtype != LK_F32)
		lk_mem_free(w->dev, w->master);
	if (w->slice != w->grad)
		lk_mem_free(w->dev, w->slice);
	lk_mem_free(w->dev, w->compute);
	lk_mem_free(w->dev, w->grad);
	lk_mem_free(w->dev, w->m);
	lk_mem_free(w->dev, w->v);
	memset(w, 0, sizeof *w);
}

static float *state_slice(struct lwm_weights *w, enum lwm_state g)
{
	return g == LWM_STATE_WEIGHTS ? w->master : g == LWM_STATE_M ? w->m : w->v;
}

float *lwm_weights_host(struct lwm_weights *w, enum lwm_state g)
{
	return lk_dev_is_host(w->dev) ? state_slice(w, g) : NULL;
}

int lwm_weights_put(struct lwm_weights *w, enum lwm_state g, const float *host, struct lwm_err *e)
{
	if (host != state_slice(w, g))
		LWM_TRY(lwm_dev_check(w->dev, lk_upload(w->dev, state_slice(w, g), host, (size_t)w->count * 4), e));
	if (g == LWM_STATE_WEIGHTS && w->dtype != LK_F32) {
		char *dst = (char *)w->compute + (size_t)w->first * lk_dtype_size(w->dtype);
		struct lk_view y = lk_view1(dst, w->dtype, w->count), x = lk_view1(w->master, LK_F32, w->count);
		return lwm_dev_check(w->dev, lk_cast(w->dev, &y, &x), e);
	}
	return 0;
}

int lwm_weights_take(struct lwm_weights *w, enum lwm_state g, float *host, struct lwm_err *e)
{
	return lwm_dev_check(w->dev, lk_download(w->dev, host, state_slice(w, g), (size_t)w->count * 4), e);
}

int lwm_weights_gather(struct lwm_weights *w, struct lwm_err *e)
{
	size_t bytes = (size_t)w->count * lk_dtype_size(w->dtype);
	size_t at = (size_t)lwm_comm_rank(w->grad_comm) * bytes;
	if (lwm_comm_size(w->grad_comm) == 1)
		return 0;
	LWM_TRY(lwm_devcomm_allgather(w->grad_dev, (char *)w->compute + at, bytes, w->compute, e));
	return lwm_devcomm_settle(w->grad_dev, e);
}

int lwm_weights_zero_grad(struct lwm_weights *w, struct lwm_err *e)
{
	return lwm_dev_check(w->dev, lk_zero(w->dev, w->grad, (size_t)w->total * 4), e);
}

/* The sum is waited for here, where a rank that is lost is noticed: the norm is waited for next. */
static int sum_gradients(struct lwm_weights *w, struct lwm_err *e)
{
	if (lwm_comm_size(w->grad_comm) == 1)
		return 0;
	LWM_TRY(lwm_devcomm_reduce_scatter_f32(w->grad_dev, w->grad, w->slice, w->total, e));
	return lwm_devcomm_settle(w->grad_dev, e);
}

/* The gradient of what is not trained counts for nothing: 0 in the own slice. */
static int drop_frozen(struct lwm_weights *w, const struct lwm_tensors *t, struct lwm_err *e)
{
	int64_t at, n;
	for (int64_t i = 0; i < t->n; i++)
		if (!t->list[i].trainable && lwm_tensor_overlap(&t->list[i], w->first, w->count, &at, &n))
			LWM_TRY(lwm_dev_check(w->dev, lk_zero(w->dev, w->slice + (at - w->first), (size_t)n * 4), e));
	return 0;
}

int lwm_weights_reduce(struct lwm_weights *w, const struct lwm_tensors *t, double scale, double *norm, struct lwm_err *e)
{
	double sum = 0;
	LWM_TRY(sum_gradients(w, e));
	LWM_TRY(drop_frozen(w, t, e));
	LWM_TRY(lwm_dev_check(w->dev, lk_sumsq(w->dev, w->slice, w->count, &sum), e));
	LWM_TRY(lwm_comm_sum_f64(w->grad_comm, &sum, 1, e));
	*norm = fabs(scale) * sqrt(sum);
	return 0;
}

int lwm_weights_update(struct lwm_weights *w, const struct lwm_tensors *t, const struct lwm_adamw *how, int64_t n, double lr,
		       double scale, struct lwm_err *e)
{
	struct lk_adamw_cfg a = { .lr = (float)lr,
				  .beta1 = (float)how->beta1,
				  .beta2 = (float)how->beta2,
				  .eps = (float)how->eps,
				  .grad_scale = (float)scale,
				  .bias1 = 1 - pow(how->beta1, (double)(n + 1)),
				  .bias2 = 1 - pow(how->beta2, (double)(n + 1)) };
	size_t size = lk_dtype_size(w->dtype);
	for (int64_t i = 0; i < t->n; i++) {
		const struct lwm_tensor *q = &t->list[i];
		int64_t at, len;
		if (!q->trainable || !lwm_tensor_overlap(q, w->first, w->count, &at, &len))
			continue;
		int64_t lo = at - w->first;
		a.weight_decay = q->decays || how->decay_all ? (float)how->weight_decay : 0;
		void *copy = w->dtype == LK_F32 ? NULL : (char *)w->compute + (size_t)at * size;
		LWM_TRY(lwm_dev_check(w->dev, lk_adamw(w->dev, w->master + lo, w->m + lo, w->v + lo, w->slice + lo, copy, len,
						       &a), e));
	}
	return 0;
}
