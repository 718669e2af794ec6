/* Which tensors train, how fast, and the average of them: patterns of names; updates against PyTorch's, on vectors cut over ranks;
 * moments that take no room for what is frozen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/comm/device.h"
#include "common/optim/weights.h"
#include "common/tensor/choose.h"

/* ---- patterns ---- */

static const char *const names[] = { "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight",
				     "model.layers.0.input_layernorm.weight", "model.layers.1.self_attn.q_proj.weight",
				     "model.layers.10.mlp.up_proj.weight", "lm_head.weight" };
enum { NAMES = sizeof names / sizeof *names };

static void make_table(struct lwm_tensors *t)
{
	*t = (struct lwm_tensors){ .align = 0 };
	for (int i = 0; i < NAMES; i++) {
		struct lwm_tensor one = { .name = names[i], .ndim = 1, .shape = { 10 + i }, .trainable = true, .group = i };
		assert_int_equal(lwm_tensors_add(t, &one, NULL), 0);
	}
}

static void patterns_choose(void **state)
{
	static const struct {
		struct lwm_choose how;
		const char *trains; /* one letter for each name: - or what its rate is */
		int64_t elements;
	} want[] = {
		{ { NULL, NULL, NULL }, "111111", 75 },
		{ { "", "", "" }, "111111", 75 },
		{ { "*q_proj*", NULL, NULL }, "-1-1--", 24 },
		{ { "*q_proj*,lm_head.weight", NULL, NULL }, "-1-1-1", 39 },
		{ { NULL, "model.embed*,*norm*", NULL }, "-1-111", 53 },
		{ { "model.*", "model.layers.1*", NULL }, "111---", 33 },
		{ { "model.layers.?.*", "*.1.*", "*=2,*norm.weight=3" }, "-23---", 23 },
		{ { "*[01].self*", NULL, NULL }, "-1-1--", 24 },
		{ { NULL, NULL, "*=4,*layers*=3,*q_proj*=2" }, "423234", 75 },
		{ { NULL, NULL, "*q_proj*=2,*layers*=3" }, "133331", 75 },
	};
	(void)state;
	for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
		struct lwm_err e = { 0 };
		struct lwm_tensors t;
		int64_t many, n = 0;
		make_table(&t);
		assert_int_equal(lwm_choose_check(&want[k].how, &e), 0);
		if (lwm_choose_tensors(&t, &want[k].how, &e) < 0)
			fail_msg("%zu: %s", k, e.msg);
		for (int i = 0; i < NAMES; i++) {
			char c = want[k].trains[i];
			double rate = t.list[i].rate > 0 ? t.list[i].rate : 1;
			if (t.list[i].trainable != (c != '-') || (c != '-' && rate != c - '0'))
				fail_msg("%zu: %s trains %d at %g", k, names[i], t.list[i].trainable, rate);
			n += c != '-';
		}
		assert_int_equal(lwm_choose_trained(&t, &many), want[k].elements);
		assert_int_equal(many, n);
		lwm_tensors_release(&t);
	}
}

static void patterns_that_are_no_use_are_named(void **state)
{
	static const struct {
		struct lwm_choose how;
		int code;
		bool by_check; /* without the table */
		const char *words;
	} want[] = {
		{ { "*q_proj*,*nose*", NULL, NULL }, LWM_ECONFIG, false, "--train-only: '*nose*' matches no tensor" },
		{ { NULL, "model.layers.2.*", NULL }, LWM_ECONFIG, false, "--freeze: 'model.layers.2.*' matches no tensor" },
		{ { NULL, NULL, "head=2" }, LWM_ECONFIG, false, "--lr-factors: 'head' matches no tensor" },
		{ { NULL, "*q_proj*", "*q_proj*=2" }, LWM_ECONFIG, false, "--lr-factors: '*q_proj*' matches nothing that trains" },
		{ { "*norm*", "*layer*", NULL }, LWM_ECONFIG, false, "nothing is left to train" },
		{ { "a,,b", NULL, NULL }, LWM_EUSAGE, true, "--train-only ',b'" },
		{ { NULL, "a,", NULL }, LWM_EUSAGE, true, "--freeze 'a,'" },
		{ { NULL, NULL, "*norm*" }, LWM_EUSAGE, true, "not PATTERN=X" },
		{ { NULL, NULL, "*=0" }, LWM_EUSAGE, true, "not PATTERN=X" },
		{ { NULL, NULL, "*=1x" }, LWM_EUSAGE, true, "not PATTERN=X" },
		{ { NULL, NULL, "*=-1" }, LWM_EUSAGE, true, "not PATTERN=X" },
		{ { NULL, NULL, "*=nan" }, LWM_EUSAGE, true, "not PATTERN=X" },
		{ { NULL, NULL, "*=1e7" }, LWM_EUSAGE, true, "not PATTERN=X" },
		{ { NULL, NULL, "=1" }, LWM_EUSAGE, true, "not PATTERN=X" },
	};
	(void)state;
	for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
		struct lwm_err e = { 0 }, early = { 0 };
		struct lwm_tensors t;
		make_table(&t);
		int rc = lwm_choose_tensors(&t, &want[k].how, &e);
		if (rc != -want[k].code || !strstr(e.msg, want[k].words))
			fail_msg("%zu: %d, '%s'", k, rc, e.msg);
		assert_int_equal(lwm_choose_check(&want[k].how, &early), want[k].by_check ? rc : 0);
		lwm_tensors_release(&t);
	}
}

/* ---- updates ---- */

enum { NORM = 3, FROZEN = 4, SLOW = 5, FAST = 2, ALL = NORM + FROZEN + SLOW + FAST, UPDATES = 14 };

static const float first[ALL] = { 1, 1.1f, 0.9f, 0.3f, -0.7f, 0.2f, 0.6f, 0.5f, -0.25f, 0.125f, 2, -1.5f, 0.75f, -0.5f };
/* weights, then their average, after each update */
static const double golden[UPDATES][2 * ALL] = {
#include "tests/golden/adapt-1/updates.inc"
};

/* Two of each value, so that there is something for each of several ranks: value i lies at i and at WIDE + i. */
enum { WIDE = 64, BOTH = 2 * WIDE };

static void describe(struct lwm_tensor list[8], struct lwm_tensors *t)
{
	static const int64_t count[4] = { NORM, FROZEN, SLOW, FAST };
	int64_t at = 0;
	for (int k = 0; k < 4; k++) {
		for (int copy = 0; copy < 2; copy++)
			list[4 * copy + k] = (struct lwm_tensor){ .name = "x", .offset = copy * WIDE + at, .count = count[k], .trainable = k != 1,
								  .decays = k > 0, .rate = k == 2 ? 0.25 : k == 3 ? 3 : 0 };
		at += count[k];
	}
	*t = (struct lwm_tensors){ .list = list, .n = 8, .total = BOTH };
}

/* Of all that this rank has: which value lies at k of the local vector; -1: none. */
static int64_t value_at(const struct lwm_cut *c, int64_t k)
{
	int64_t i = c->shards == 1 ? k : c->group[0].offset + c->shard * c->group[0].slice + k;
	return i < BOTH && i % WIDE < ALL ? i % WIDE : -1;
}

static int set_gradient(struct lwm_weights *w, int n, float *host, struct lwm_err *e)
{
	for (int64_t k = 0; k < w->cut.local; k++) {
		int64_t i = value_at(&w->cut, k);
		host[k] = i < 0 ? 0 : (float)((0.4 * sin(1.3 * n + 0.9 * (double)i) + 0.05 * (double)i) / w->cut.replicas);
	}
	return lwm_dev_check(w->dev, lk_upload(w->dev, w->grad, host, (size_t)w->cut.local * sizeof *host), e);
}

static int check_vector(struct lwm_weights *w, const struct lwm_tensors *t, enum lwm_state g, const double *want, float *host,
			struct lwm_err *e)
{
	int64_t from, n, at, next = 0;
	LWM_TRY(lwm_weights_take(w, g, host, e));
	for (int64_t i = 0; i < t->n; i++) {
		if (!lwm_cut_own(&w->cut, &t->list[i], &from, &n, &at))
			continue;
		int64_t trained = lwm_cut_trained(&w->cut, &t->list[i], at, n, &next), lies = g == LWM_STATE_WEIGHTS ? at : trained;
		for (int64_t k = 0; lies >= 0 && k < n; k++)
			if (!(fabs((double)host[lies + k] - want[(from + k) % WIDE]) <= 2e-6))
				return lwm_fail(e, LWM_ENO, "vector %d, value %d: %.9g, PyTorch says %.9g", g, (int)(from + k),
						(double)host[lies + k], want[(from + k) % WIDE]);
	}
	return 0;
}

static int update_often(struct lwm_weights *w, const struct lwm_tensors *t, float *host, struct lwm_err *e)
{
	const struct lwm_adamw how = { .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1 };
	double norm;
	for (int64_t k = 0; k < w->cut.count; k++) {
		int64_t i = value_at(&w->cut, lwm_cut_place(&w->cut, k));
		host[k] = i < 0 ? 0 : first[i];
	}
	LWM_TRY(lwm_weights_put(w, LWM_STATE_WEIGHTS, host, e));
	LWM_TRY(lwm_weights_begin_average(w, t, e));
	for (int n = 0; n < UPDATES; n++) {
		LWM_TRY(set_gradient(w, n, host, e));
		LWM_TRY(lwm_weights_reduce(w, t, 1, &norm, e));
		LWM_TRY(lwm_weights_update(w, t, &how, n, 0.02, 1, e));
		LWM_TRY(lwm_weights_average(w, t, lwm_average_decay(0.5, n + 1), e));
		LWM_TRY(check_vector(w, t, LWM_STATE_WEIGHTS, golden[n], host, e));
		LWM_TRY(check_vector(w, t, LWM_STATE_AVERAGE, golden[n] + ALL, host, e));
	}
	return 0;
}

/* Of 112 elements 20 train: no rank has room for many more. */
static int check_room(const struct lwm_weights *w, struct lwm_err *e)
{
	struct lwm_weights_room room = lwm_weights_room_of(&w->cut, LK_F32, false, NULL);
	if (w->cut.packed && w->cut.trained < w->cut.count && w->cut.trained <= 32 && room.moments == 8 * w->cut.trained &&
	    room.average == 4 * w->cut.trained)
		return 0;
	return lwm_fail(e, LWM_ENO, "%d of %d elements are trained", (int)w->cut.trained, (int)w->cut.count);
}

static int adapt_on(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int ranks = lwm_comm_size(c), shards = *(const int *)arg, replicas = ranks / shards;
	struct lwm_weights w = { .dev = NULL };
	struct lwm_cut cut = { .n = 0 };
	struct lwm_devcomm *dc = NULL;
	struct lwm_tensor list[8];
	struct lk_dev *dev = NULL;
	struct lwm_tensors t;
	float host[2 * BOTH];
	int rc;
	describe(list, &t);
	LWM_GO(lwm_agree(c, lwm_device_open(&dev, "cpu", 1, e), e));
	LWM_GO(lwm_devcomm_new(&dc, dev, c, e));
	LWM_GO(lwm_agree(c, lwm_cut_new(&cut, &t, shards, replicas, e), e));
	cut = lwm_cut_of(&cut, lwm_comm_rank(c));
	LWM_GO(lwm_agree(c, lwm_weights_new(&w, dev, LK_F32, &cut, replicas > 1 ? dc : NULL, c, false, e), e));
	LWM_GO(lwm_agree(c, lwm_weights_keep_average(&w, e), e));
	if (cut.count > 32)
		LWM_GO(lwm_agree(c, check_room(&w, e), e));
	rc = lwm_agree(c, update_often(&w, &t, host, e), e);
out:
	lwm_weights_release(&w);
	lwm_cut_release(&cut);
	lwm_devcomm_free(dc);
	lk_dev_close(dev);
	return rc;
}

static void updates_are_those_of_pytorch(void **state)
{
	(void)state;
	for (int ranks = 1; ranks <= 3; ranks++)
		for (int shards = 1; shards <= ranks; shards += ranks > 1 ? ranks - 1 : 1) {
			struct lwm_err e = { 0 };
			if (lwm_comm_threads(ranks, adapt_on, &shards, &e) < 0)
				fail_msg("%d ranks, %d shards: %s", ranks, shards, e.msg);
		}
}

static void decay_warms_up(void **state)
{
	(void)state;
	assert_true(lwm_average_decay(0.9999, 1) == 2.0 / 11);
	assert_true(lwm_average_decay(0.9999, 8) == 0.5);
	assert_true(lwm_average_decay(0.9999, 1 << 20) == 0.9999);
	assert_true(lwm_average_decay(0.25, 3) == 0.25);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(patterns_choose), cmocka_unit_test(patterns_that_are_no_use_are_named),
					    cmocka_unit_test(updates_are_those_of_pytorch), cmocka_unit_test(decay_warms_up) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
