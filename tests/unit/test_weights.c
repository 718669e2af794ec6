/* The flat vectors of an optimizer, one tensor of which is frozen: it has no part in the norm and does not move; a rank that
 * fails beside the others; exact sums of squares. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "common/comm/device.h"
#include "common/optim/squares.h"
#include "common/optim/weights.h"

enum { FIRST = 70, FROZEN = 90, LAST = 45, ALL = FIRST + FROZEN + LAST }; /* ranks are cut within the frozen one */

static bool is_frozen(int64_t i)
{
	return i >= FIRST && i < FIRST + FROZEN;
}

static float weight_at(int64_t i)
{
	return 0.25f + 0.01f * (float)i;
}

static float gradient_at(int64_t i)
{
	return is_frozen(i) ? 1000.0f : (float)(i % 7) - 3.5f; /* never 0 */
}

/* The flat index of value k of what this rank has the state of; -1: padding. All tensors are one group. */
static int64_t flat_of(const struct lwm_cut *c, int64_t k)
{
	int64_t from, n, at;
	return lwm_cut_own_group(c, 0, &from, &n, &at) && k >= at && k < at + n ? from + k - at : -1;
}

/* As the objective leaves it: each replica a part of the gradient, which all of them add up to. A replica has all of what its shard
 * has, which is more than it has the state of. */
static int set_gradient(struct lwm_weights *w, struct lwm_err *e)
{
	const struct lwm_cut whole = lwm_cut_alone(&w->cut);
	float *host = calloc((size_t)w->cut.local, sizeof *host);
	if (!host)
		return lwm_fail_memory(e, NULL);
	for (int64_t k = 0; k < w->cut.local; k++) {
		int64_t i = flat_of(&whole, k);
		host[k] = i < 0 ? 0 : gradient_at(i) / (float)w->cut.replicas;
	}
	int rc = lwm_dev_check(w->dev, lk_upload(w->dev, w->grad, host, (size_t)w->cut.local * sizeof *host), e);
	free(host);
	return rc;
}

static int set_weights(struct lwm_weights *w, float *host, struct lwm_err *e)
{
	const struct lwm_cut whole = lwm_cut_alone(&w->cut);
	for (int64_t k = 0; k < w->cut.count; k++)
		host[k] = weight_at(flat_of(&whole, lwm_cut_place(&w->cut, k)));
	return lwm_weights_put(w, LWM_STATE_WEIGHTS, host, e);
}

/* Where the frozen tensor lies nothing has changed, everywhere else something has. Padding does not count; of moments the frozen
 * one has none, where that saves room. */
static int look_at_state(struct lwm_weights *w, const struct lwm_tensors *t, float *host, struct lwm_err *e)
{
	for (int g = 0; g <= LWM_STATE_V; g++) {
		int64_t from, n, at, next = 0;
		LWM_TRY(lwm_weights_take(w, (enum lwm_state)g, host, e));
		for (int64_t i = 0; i < t->n; i++) {
			if (!lwm_cut_own(&w->cut, &t->list[i], &from, &n, &at))
				continue;
			int64_t lies = lwm_cut_trained(&w->cut, &t->list[i], at, n, &next);
			lies = g == LWM_STATE_WEIGHTS || (!t->list[i].trainable && !w->cut.packed) ? at : lies;
			for (int64_t k = 0; lies >= 0 && k < n; k++) {
				bool same = host[lies + k] == (g == LWM_STATE_WEIGHTS ? weight_at(from + k) : 0);
				if (same != is_frozen(from + k))
					return lwm_fail(e, LWM_ENO, "vector %d, value %d: %.9g", g, (int)(from + k), (double)host[lies + k]);
			}
		}
	}
	return 0;
}

static int step_once(struct lwm_weights *w, const struct lwm_tensors *t, float *host, struct lwm_err *e)
{
	const struct lwm_adamw how = { .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.1 };
	double sum = 0, norm;
	for (int64_t i = 0; i < ALL; i++)
		sum += is_frozen(i) ? 0 : (double)gradient_at(i) * (double)gradient_at(i);
	LWM_TRY(set_weights(w, host, e));
	LWM_TRY(set_gradient(w, e));
	LWM_TRY(lwm_weights_reduce(w, t, 0.5, &norm, e));
	if (!(fabs(norm - 0.5 * sqrt(sum)) <= 1e-5 * norm))
		return lwm_fail(e, LWM_ENO, "the norm is %.9g, by hand %.9g", norm, 0.5 * sqrt(sum));
	LWM_TRY(lwm_weights_update(w, t, &how, 0, 0.01, 0.5, e));
	return look_at_state(w, t, host, e);
}

/* arg: shards, as many as there are ranks, or one. */
static int train_frozen(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct lwm_tensor list[] = { { .count = FIRST, .trainable = true, .decays = true },
				     { .offset = FIRST, .count = FROZEN, .decays = true },
				     { .offset = FIRST + FROZEN, .count = LAST, .trainable = true } };
	const struct lwm_tensors t = { .list = list, .n = 3, .total = ALL };
	int ranks = lwm_comm_size(c), shards = *(const int *)arg, replicas = ranks / shards;
	struct lwm_weights w = { .dev = NULL };
	struct lwm_cut cut = { .n = 0 };
	struct lwm_devcomm *dc = NULL;
	struct lk_dev *dev = NULL;
	float *host = NULL;
	int rc;
	LWM_GO(lwm_agree(c, lwm_device_open(&dev, "cpu", 1, e), e));
	LWM_GO(lwm_devcomm_new(&dc, dev, c, e));
	LWM_GO(lwm_agree(c, lwm_cut_new(&cut, &t, shards, replicas, e), e));
	cut = lwm_cut_of(&cut, lwm_comm_rank(c));
	LWM_GO(lwm_agree(c, lwm_weights_new(&w, dev, LK_F32, &cut, replicas > 1 ? dc : NULL, c, false, e), e));
	host = calloc((size_t)cut.count, sizeof *host);
	LWM_GO(lwm_agree(c, host ? 0 : lwm_fail_memory(e, NULL), e));
	rc = lwm_agree(c, step_once(&w, &t, host, e), e);
out:
	free(host);
	lwm_weights_release(&w);
	lwm_cut_release(&cut);
	lwm_devcomm_free(dc);
	lk_dev_close(dev);
	return rc;
}

static void frozen(void **state)
{
	(void)state;
	for (int ranks = 1; ranks <= 3; ranks++)
		for (int shards = 1; shards <= ranks; shards += ranks > 1 ? ranks - 1 : 1) {
			struct lwm_err e = { 0 };
			if (lwm_comm_threads(ranks, train_frozen, &shards, &e) < 0)
				fail_msg("%d ranks, %d shards: %s", ranks, shards, e.msg);
		}
}

/* The last rank's device fails when it comes to its own piece: all are told, none waits. */
static int fail_at_piece(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	const struct lwm_tensor one = { .count = FIRST, .trainable = true };
	const struct lwm_tensors t = { .list = (struct lwm_tensor *)&one, .n = 1, .total = FIRST };
	struct lwm_weights w = { .dev = NULL };
	struct lwm_cut cut = { .n = 0 };
	struct lk_dev *dev = NULL;
	double norm;
	int rc;
	(void)arg;
	LWM_GO(lwm_agree(c, lwm_device_open(&dev, "cpu", 1, e), e));
	LWM_GO(lwm_agree(c, lwm_cut_new(&cut, &t, lwm_comm_size(c), 1, e), e));
	cut = lwm_cut_of(&cut, lwm_comm_rank(c));
	LWM_GO(lwm_agree(c, lwm_weights_new(&w, dev, LK_F32, &cut, NULL, c, false, e), e));
	float *slice = w.slice;
	if (lwm_comm_rank(c) == lwm_comm_size(c) - 1)
		w.slice = NULL;
	rc = lwm_weights_reduce(&w, &t, 1, &norm, e);
	w.slice = slice;
	rc = rc < 0 && strstr(e->msg, "sumsq") ? 0 : lwm_fail(e, LWM_ENO, "%d", rc);
out:
	lwm_weights_release(&w);
	lwm_cut_release(&cut);
	lk_dev_close(dev);
	return rc;
}

static void all_are_told(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	for (int ranks = 1; ranks <= 3; ranks++)
		if (lwm_comm_threads(ranks, fail_at_piece, NULL, &e) < 0)
			fail_msg("%d ranks: '%s'", ranks, e.msg);
}

/* ---- exact sums of squares ---- */

enum { SQUARES = 6000 };

/* Any exponent but those of infinities, subnormals among them. */
static float wild_value(struct lwm_rng *g)
{
	uint32_t exponent = (uint32_t)lwm_rng_below(g, 255), sign = (uint32_t)lwm_rng_below(g, 2);
	uint32_t bits = (uint32_t)lwm_rng_below(g, 1 << 23) | exponent << 23 | sign << 31;
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

/* arg: the total of one rank. Rank r has every so many-th value. */
static int share_squares(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct lwm_rng g = lwm_rng_at(1, LWM_RNG_TEST, 0, 0);
	struct lwm_squares s = { .high = { 0 } };
	for (int i = 0; i < SQUARES; i++) {
		float x = wild_value(&g);
		if (i % lwm_comm_size(c) == lwm_comm_rank(c))
			lwm_squares_add(&s, &x, 1);
	}
	LWM_TRY(lwm_squares_gather(&s, c, e));
	double sum = lwm_squares_total(&s), *want = arg;
	if (lwm_comm_size(c) == 1)
		*want = sum;
	return memcmp(&sum, want, sizeof sum) ? lwm_fail(e, LWM_ENO, "the sum is %a, of one rank %a", sum, *want) : 0;
}

static double total_of(const float *x, int64_t n)
{
	struct lwm_squares s = { .high = { 0 } };
	lwm_squares_add(&s, x, n);
	return lwm_squares_total(&s);
}

static void squares(void **state)
{
	float some[64], tiny[2] = { 0x1p-149f, -0x1.8p-127f }, many[3] = { 0x1p60f, 3, -1 }, odd[3] = { 1, INFINITY, 2 };
	double sum = 0, alone = 0;
	struct lwm_err e = { 0 };
	struct lwm_rng g = lwm_rng_at(2, LWM_RNG_TEST, 0, 0);
	(void)state;
	assert_true(total_of(NULL, 0) == 0);
	assert_true(total_of(tiny, 2) == 0x1p-298 + 0x1.2p-253);
	assert_true(total_of(many, 3) == 0x1p120 && total_of(many + 1, 2) == 10);
	assert_true(isinf(total_of(odd, 3)));
	odd[0] = NAN;
	assert_true(isnan(total_of(odd, 3)));
	for (int i = 0; i < 64; i++) { /* of 24 bits each, and few of them: exact in fp64 with room for the sum */
		some[i] = (float)lwm_rng_below(&g, 1 << 20) / 1024;
		sum += (double)some[i] * (double)some[i];
	}
	assert_true(total_of(some, 64) == sum);
	for (int ranks = 1; ranks <= 5; ranks++)
		if (lwm_comm_threads(ranks, share_squares, &alone, &e) < 0)
			fail_msg("%d ranks: %s", ranks, e.msg);
	assert_true(alone > 0x1p250);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(frozen), cmocka_unit_test(all_are_told), cmocka_unit_test(squares) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
