/* The flat vectors of an optimizer, one tensor of which is frozen: it has no part in the norm and does not move. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#include "common/comm/device.h"
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

/* As the objective leaves it: each rank a part of the gradient, which all of them add up to. */
static int set_gradient(struct lwm_weights *w, int ranks, struct lwm_err *e)
{
	float *host = calloc((size_t)w->total, sizeof *host);
	if (!host)
		return lwm_fail_memory(e, NULL);
	for (int64_t i = 0; i < ALL; i++)
		host[i] = gradient_at(i) / (float)ranks;
	int rc = lwm_dev_check(w->dev, lk_upload(w->dev, w->grad, host, (size_t)w->total * sizeof *host), e);
	free(host);
	return rc;
}

static int set_weights(struct lwm_weights *w, float *host, struct lwm_err *e)
{
	for (int64_t k = 0; k < w->count; k++)
		host[k] = weight_at(w->first + k);
	return lwm_weights_put(w, LWM_STATE_WEIGHTS, host, e);
}

/* Where the frozen tensor lies nothing has changed, everywhere else something has. Gaps do not count. */
static int look_at_state(struct lwm_weights *w, float *host, struct lwm_err *e)
{
	for (int g = 0; g < LWM_STATES; g++) {
		LWM_TRY(lwm_weights_take(w, (enum lwm_state)g, host, e));
		for (int64_t k = 0; k < w->count && w->first + k < ALL; k++) {
			int64_t i = w->first + k;
			bool same = host[k] == (g == LWM_STATE_WEIGHTS ? weight_at(i) : 0);
			if (same != is_frozen(i))
				return lwm_fail(e, LWM_ENO, "vector %d, value %d: %.9g", g, (int)i, (double)host[k]);
		}
	}
	return 0;
}

static int step_once(struct lwm_weights *w, int ranks, float *host, struct lwm_err *e)
{
	const struct lwm_adamw how = { .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.1 };
	struct lwm_tensor list[] = { { .count = FIRST, .trainable = true, .decays = true },
				     { .offset = FIRST, .count = FROZEN, .decays = true },
				     { .offset = FIRST + FROZEN, .count = LAST, .trainable = true } };
	const struct lwm_tensors t = { .list = list, .n = 3 };
	double sum = 0, norm;
	for (int64_t i = 0; i < ALL; i++)
		sum += is_frozen(i) ? 0 : (double)gradient_at(i) * (double)gradient_at(i);
	LWM_TRY(set_weights(w, host, e));
	LWM_TRY(set_gradient(w, ranks, e));
	LWM_TRY(lwm_weights_reduce(w, &t, 0.5, &norm, e));
	if (!(fabs(norm - 0.5 * sqrt(sum)) <= 1e-5 * norm))
		return lwm_fail(e, LWM_ENO, "the norm is %.9g, by hand %.9g", norm, 0.5 * sqrt(sum));
	LWM_TRY(lwm_weights_update(w, &t, &how, 0, 0.01, 0.5, e));
	return look_at_state(w, host, e);
}

static int train_frozen(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct lwm_weights w = { .dev = NULL };
	struct lwm_devcomm *dc = NULL;
	struct lk_dev *dev = NULL;
	float *host = NULL;
	int rc;
	(void)arg;
	LWM_GO(lwm_agree(c, lwm_device_open(&dev, "cpu", 1, e), e));
	LWM_GO(lwm_devcomm_new(&dc, dev, c, e));
	LWM_GO(lwm_agree(c, lwm_weights_new(&w, dev, LK_F32, ALL, dc, e), e));
	host = calloc((size_t)w.count, sizeof *host);
	LWM_GO(lwm_agree(c, host ? 0 : lwm_fail_memory(e, NULL), e));
	rc = lwm_agree(c, step_once(&w, lwm_comm_size(c), host, e), e);
out:
	free(host);
	lwm_weights_release(&w);
	lwm_devcomm_free(dc);
	lk_dev_close(dev);
	return rc;
}

static void frozen(void **state)
{
	(void)state;
	for (int ranks = 1; ranks <= 3; ranks++) {
		struct lwm_err e = { 0 };
		if (lwm_comm_threads(ranks, train_frozen, NULL, &e) < 0)
			fail_msg("%d ranks: %s", ranks, e.msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(frozen) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
