/* contrast_loss.c - InfoNCE between the views of all ranks, or of queries and their keys, and its gradient. */
#include <math.h>

#include "common/model/contrast_int.h"

/* An exchange takes place whatever this rank's state is, unless another one is gone. */
static bool can_exchange(const struct lwm_contrast *m)
{
	return m->run.ranks && m->rc != -LWM_ERANK;
}

/* Rows of one side, of all ranks, into B_ALL. */
static void gather_side(struct lwm_contrast *m, const struct lk_view *own)
{
	size_t bytes = (size_t)(m->n * m->c.out) * sizeof(float);
	void *all = m->block + m->lay.at[B_ALL];
	struct lwm_err e = { 0 };

	if (can_exchange(m))
		keep_failure(m, lwm_devcomm_allgather(m->run.ranks, own->data, bytes, all, &e), &e);
	else if (!m->run.ranks)
		K(m, lk_copy(m->dev, all, own->data, bytes));
}

/* dk += what all ranks found of the gradient of these rows. */
static void scatter_side(struct lwm_contrast *m, const struct lk_view *dk)
{
	struct lk_view part = floats_of(m, B_DALL, 0, m->all, m->c.out), mine = floats_of(m, B_MINE, 0, m->n, m->c.out);
	struct lwm_err e = { 0 };

	if (can_exchange(m))
		keep_failure(m, lwm_devcomm_reduce_scatter_f32(m->run.ranks, part.data, mine.data, m->all * m->c.out, &e), &e);
	K(m, lk_axpy(m->dev, dk, 1.0f, m->run.ranks ? &mine : &part));
}

/* ---- a queue ---- */

/* The queue in fp32: where it lies, or a copy. */
static struct lk_view queue_of(struct lwm_contrast *m, struct lwm_supply *w)
{
	int64_t keys = m->c.queue, e = m->c.out;
	struct lk_view copy = floats_of(m, B_QUEUE, 0, keys, e);
	struct lwm_supplied at = { NULL, NULL };

	m->rc = lwm_supply_acquire(w, &m->queue, LWM_WEIGHTS, &at, m->rc, &m->err);
	struct lk_view there = lk_view2((void *)(uintptr_t)at.w, m->dtype, keys, e);

	if (m->dtype != LK_F32)
		K(m, lk_cast(m->dev, &copy, &there));
	lwm_supply_release(w, &m->queue);
	return m->dtype == LK_F32 ? there : copy;
}

/* Of (n,K+1) numbers those of the queue; the last one of row i. */
static struct lk_view of_queue(const struct lwm_contrast *m, const struct lk_view *s)
{
	struct lk_view y = lk_view2(s->data, LK_F32, m->n, m->c.queue);

	y.stride[0] = m->c.queue + 1;
	return y;
}

static struct lk_view of_own(const struct lwm_contrast *m, const struct lk_view *s, int64_t i)
{
	return lk_view2((float *)s->data + i * (m->c.queue + 1) + m->c.queue, LK_F32, 1, 1);
}

/* Rows of the queue have length 1, those of z length sqrt(out). */
static void compare_with_queue(struct lwm_contrast *m, const struct lk_view *s, const struct lk_view *queue, float scale)
{
	struct lk_view q = floats_of(m, B_Z, 0, m->n, m->c.out), all = of_queue(m, s);

	K(m, lk_matmul(m->dev, &all, &q, queue, LK_TB, scale * sqrtf((float)m->c.out)));
	for (int64_t i = 0; i < m->n; i++) {
		struct lk_view a = floats_of(m, B_Z, i, 1, m->c.out), b = floats_of(m, B_Z, m->n + i, 1, m->c.out);
		struct lk_view own = of_own(m, s, i);

		K(m, lk_matmul(m->dev, &own, &a, &b, LK_TB, scale));
	}
}

/* s is the gradient of the logits. */
static void return_to_queries(struct lwm_contrast *m, const struct lk_view *s, const struct lk_view *queue, float scale)
{
	struct lk_view dq = floats_of(m, B_DZ, 0, m->n, m->c.out), all = of_queue(m, s);

	K(m, lk_matmul(m->dev, &dq, &all, queue, LK_ACC, scale * sqrtf((float)m->c.out)));
	for (int64_t i = 0; i < m->n; i++) {
		struct lk_view da = floats_of(m, B_DZ, i, 1, m->c.out), b = floats_of(m, B_Z, m->n + i, 1, m->c.out);
		struct lk_view own = of_own(m, s, i);

		K(m, lk_matmul(m->dev, &da, &own, &b, LK_ACC, scale));
	}
}

int lwm_contrast_enqueue(struct lwm_contrast *m, int64_t n, struct lwm_supply *w, struct lwm_err *e)
{
	int64_t values = m->all * m->c.out;
	struct lk_view keys = lk_view1(m->block + m->lay.at[B_ALL], LK_F32, values), to;
	struct lwm_supplied at = { NULL, NULL };

	if (!m->c.queue)
		return 0;
	LWM_BUG_ON(m->c.queue % m->all);
	LWM_TRY(lwm_supply_acquire(w, &m->queue, LWM_WEIGHTS, &at, 0, e));
	to = lk_view1((char *)(uintptr_t)at.w + n * m->all % m->c.queue * m->c.out * (int64_t)lk_dtype_size(m->dtype), m->dtype,
		      values);
	lwm_supply_release(w, &m->queue);
	LWM_TRY(lwm_dev_check(m->dev, lk_zero(m->dev, to.data, (size_t)values * lk_dtype_size(m->dtype)), e));
	return lwm_dev_check(m->dev, lk_axpy(m->dev, &to, 1 / sqrtf((float)m->c.out), &keys), e);
}

/* ---- the loss ---- */

/* Logits become their gradient. One direction of two counts half, the only one of queries and keys whole. */
static void find_nll(struct lwm_contrast *m, const struct lk_view *s, bool grads, struct lwm_contrast_stats *stats)
{
	float *nll = (float *)(m->block + m->lay.at[B_NLL]);
	double part = m->c.momentum ? 1 : 0.5;

	K(m, lk_xent(m->dev, s, (int32_t *)(m->block + m->lay.at[B_TARGET]), (float *)(m->block + m->lay.at[B_WEIGHT]), nll,
		     nll + m->n, grads));
	K(m, lk_download(m->dev, m->nll, nll, (size_t)(2 * m->n) * sizeof *nll));
	for (int64_t i = 0; i < m->n && !m->rc; i++) {
		stats->loss += (double)m->nll[i] * part;
		stats->hits += (double)m->nll[m->n + i] * part;
	}
}

/* Each row of side `q` looks for its pair among all rows of the other side. Keys are constants. */
static void search_side(struct lwm_contrast *m, int q, bool grads, struct lwm_contrast_stats *stats)
{
	int64_t n = m->n, e = m->c.out;
	struct lk_view a = floats_of(m, B_Z, q * n, n, e), b = floats_of(m, B_Z, (1 - q) * n, n, e);
	struct lk_view all = floats_of(m, B_ALL, 0, m->all, e), s = floats_of(m, B_S, 0, n, m->all);
	struct lk_view da = floats_of(m, B_DZ, q * n, n, e);
	float scale = (float)(1 / (m->c.temperature * (double)e));

	gather_side(m, &b);
	K(m, lk_matmul(m->dev, &s, &a, &all, LK_TB, scale));
	find_nll(m, &s, grads, stats);
	if (!grads)
		return;
	K(m, lk_matmul(m->dev, &da, &s, &all, LK_ACC, scale * m->loss_scale));
	if (m->c.momentum)
		return;
	struct lk_view db = floats_of(m, B_DZ, (1 - q) * n, n, e), dall = floats_of(m, B_DALL, 0, m->all, e);

	K(m, lk_matmul(m->dev, &dall, &s, &a, LK_TA, scale * m->loss_scale));
	scatter_side(m, &db);
}

/* Each query looks for its key among those of the queue. The keys of all ranks are gathered to go into it afterwards. */
static void search_queue(struct lwm_contrast *m, struct lwm_supply *w, bool grads, struct lwm_contrast_stats *stats)
{
	struct lk_view keys = floats_of(m, B_Z, m->n, m->n, m->c.out), s = floats_of(m, B_S, 0, m->n, m->c.queue + 1);
	float scale = (float)(1 / (m->c.temperature * (double)m->c.out));
	struct lk_view queue = queue_of(m, w);

	gather_side(m, &keys);
	compare_with_queue(m, &s, &queue, scale);
	find_nll(m, &s, grads, stats);
	if (grads)
		return_to_queries(m, &s, &queue, scale * m->loss_scale);
}

void lwm_contrast_loss(struct lwm_contrast *m, struct lwm_supply *w, bool grads, struct lwm_contrast_stats *stats)
{
	int64_t rows = m->c.momentum ? m->n : 2 * m->n;

	if (grads)
		K(m, lk_zero(m->dev, m->block + m->lay.at[B_DZ], (size_t)(rows * m->c.out) * sizeof(float)));
	if (m->c.queue)
		search_queue(m, w, grads, stats);
	else
		search_side(m, 0, grads, stats);
	if (!m->c.momentum)
		search_side(m, 1, grads, stats);
	stats->pairs += m->rc ? 0 : (double)m->n;
}
