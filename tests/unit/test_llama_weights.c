/* A model takes its weights group by group, and is done with them when it says so: here each group has memory of its own while it
 * is held, and nothing after that. */
#include "tests/unit/llama_fixture.h"

static const int docs3[] = { 11, 7, 9 };

enum { MOST_GROUPS = 8 };
struct moving {
	struct lwm_supply base;
	const float *all;
	float *grad; /* of all */
	float *w[MOST_GROUPS], *g[MOST_GROUPS];
	int held[MOST_GROUPS], ready[MOST_GROUPS], acquired[MOST_GROUPS];
	int refuse; /* group whose acquire fails; -1: none */
};

static int move_in(struct lwm_supply *s, const struct lwm_group *g, unsigned what, struct lwm_supplied *at, int failed,
		   struct lwm_err *e)
{
	struct moving *m = (struct moving *)s;
	int64_t k = g->index;

	assert_true(k < MOST_GROUPS && g->count > 0);
	if (!failed && k == m->refuse)
		failed = lwm_fail(e, LWM_EIO, "group %d is out", (int)k);
	m->acquired[k]++;
	if (!m->held[k]++) {
		m->w[k] = malloc((size_t)g->count * sizeof *m->w[k]);
		memcpy(m->w[k], m->all + g->offset, (size_t)g->count * sizeof *m->w[k]);
	}
	if (what & LWM_GRADS && !m->g[k]) {
		assert_int_equal(m->ready[k], 0);
		m->g[k] = calloc((size_t)g->count, sizeof *m->g[k]);
	}
	at->w = what & LWM_WEIGHTS ? m->w[k] : NULL;
	at->g = what & LWM_GRADS ? m->g[k] : NULL;
	return failed;
}

static void move_out(struct lwm_supply *s, const struct lwm_group *g)
{
	struct moving *m = (struct moving *)s;
	int64_t k = g->index;

	assert_true(m->held[k] > 0);
	if (--m->held[k])
		return;
	memset(m->w[k], 0xff, (size_t)g->count * sizeof *m->w[k]); /* NaN to whoever looks there now */
	free(m->w[k]);
	m->w[k] = NULL;
}

static int add_up(struct lwm_supply *s, const struct lwm_group *g, int failed, struct lwm_err *e)
{
	struct moving *m = (struct moving *)s;
	int64_t k = g->index;

	(void)e;
	assert_true(!m->ready[k]++ && m->g[k] && !m->held[k]);
	for (int64_t i = 0; i < g->count; i++)
		m->grad[g->offset + i] += m->g[k][i];
	free(m->g[k]);
	m->g[k] = NULL;
	return failed;
}

/* Every group is fetched, given back, and its gradient is told to be ready once, when it is whole. */
static void check_moving(const char *name, struct lwm_llama_cfg c, struct lwm_llama_run run, int refuse)
{
	static const struct lwm_supply_ops ops = { move_in, move_out, add_up, NULL };
	struct batch x = batch_docs(&c, 30, docs3, 3, 0);
	int64_t total;
	float *w = weights_new(&c, &total);
	struct result want = step_once(name, &c, run, &x.b, w, true);
	struct moving s = { .base = { .ops = &ops, .grads = true }, .all = w, .grad = calloc((size_t)total, sizeof *w),
			    .refuse = refuse };
	struct lk_dev *dev = device(name, 1);
	struct lwm_llama_stats st;
	struct lwm_err e = { 0 };
	struct lwm_llama *m;
	int groups = (int)c.layers + 2;

	run.tokens = x.b.n;
	run.train = true;
	assert_int_equal(lwm_llama_new(&m, dev, &c, &run, &e), 0);
	assert_int_equal(lwm_llama_step(m, &x.b, &s.base, &st, &e), refuse < 0 ? 0 : -LWM_EIO);
	for (int k = 0; k < groups; k++) {
		assert_int_equal(s.held[k], 0);
		assert_int_equal(s.ready[k], 1);
		assert_null(s.g[k]);
		assert_int_equal(s.acquired[k], k == 0 ? 2 + c.tie_embeddings : k == groups - 1 ? 1 : 2);
	}
	if (refuse < 0) {
		assert_true(st.loss[LWM_TEXT] == want.stats.loss[LWM_TEXT] && st.loss[LWM_VISION] == want.stats.loss[LWM_VISION]);
		for (int64_t i = 0; i < total; i++)
			assert_true(s.grad[i] == want.grad[i]);
	}
	lwm_llama_free(m);
	lk_dev_close(dev);
	free(s.grad);
	free(want.grad);
	free(w);
	batch_free(&x);
}

/* Forward alone, then the loss: what a step is made of can be called piece by piece. */
static void a_step_in_pieces(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, 30, docs3, 3, 0);
	int64_t total;
	float *w = weights_new(&c, &total), *grad = calloc((size_t)total, sizeof *grad);
	struct result want = step_once("cpu", &c, (struct lwm_llama_run){ 0 }, &x.b, w, true);
	struct lwm_llama_run run = { .tokens = x.b.n, .train = true };
	struct lwm_flat_weights own = lwm_flat_weights_of(w, LK_F32, grad);
	struct lk_dev *dev = device("cpu", 1);
	struct lwm_llama_stats st;
	struct lwm_llama *m;

	(void)state;
	assert_int_equal(lwm_llama_new(&m, dev, &c, &run, NULL), 0);
	assert_int_equal(lwm_llama_begin(m, &x.b, &own.base, NULL), 0);
	lwm_llama_forward(m);
	assert_int_equal(lwm_llama_end(m, NULL, NULL), 0);
	for (int64_t i = 0; i < total; i++)
		assert_true(grad[i] == 0);
	assert_int_equal(lwm_llama_begin(m, &x.b, &own.base, NULL), 0);
	lwm_llama_forward(m);
	lwm_llama_loss(m);
	lwm_llama_backward(m);
	assert_int_equal(lwm_llama_end(m, &st, NULL), 0);
	assert_true(st.loss[LWM_TEXT] == want.stats.loss[LWM_TEXT]);
	assert_memory_equal(grad, want.grad, (size_t)total * sizeof *grad);
	lwm_llama_free(m);
	lk_dev_close(dev);
	free(grad);
	free(want.grad);
	free(w);
	batch_free(&x);
}

/* Of what is frozen no gradient is formed: where it would lie stays as it was. What trains has the same bits. */
static void frozen_matrices_have_no_gradient(void **state)
{
	static const char *const frozen[] = { "q_proj", "gate_proj", "o_proj", "embed_tokens", "vision_head", "lm_head", "down_proj",
					      "k_proj", "v_proj", "up_proj" };
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, 30, docs3, 3, 0);
	int64_t total;
	float *w = weights_new(&c, &total);

	(void)state;
	for (int how = 0; how < 6; how++) { /* some of them, then all; recomputed, and in groups of heads */
		struct lwm_llama_run run = { .recompute = how & 1 || how > 3, .head_groups = how > 3 ? 2 : 0 };
		struct result want = step_once("cpu", &c, run, &x.b, w, true);
		float *grad = calloc((size_t)total, sizeof *grad);
		struct lwm_flat_weights own = lwm_flat_weights_of(w, LK_F32, grad);
		struct lk_dev *dev = device("cpu", 1);
		struct lwm_llama_stats st;
		struct lwm_tensors t;
		struct lwm_llama *m;

		assert_int_equal(lwm_llama_tensors(&t, &c, NULL), 0);
		for (int64_t i = 0; i < t.n; i++)
			for (int k = 0; k < (how & 2 ? 10 : 7); k++)
				t.list[i].trainable = t.list[i].trainable && !strstr(t.list[i].name, frozen[k]);
		own.base.table = &t;
		run.tokens = x.b.n;
		run.train = true;
		assert_int_equal(lwm_llama_new(&m, dev, &c, &run, NULL), 0);
		assert_int_equal(lwm_llama_step(m, &x.b, &own.base, &st, NULL), 0);
		for (int64_t i = 0; i < t.n; i++) {
			const struct lwm_tensor *q = &t.list[i];
			/* q, k and v are one matrix, gate and up are */
			bool beside = !(how & 2) && (strstr(q->name, "q_proj") || strstr(q->name, "gate_proj"));
			int64_t same = 0, none = 0;

			for (int64_t k = q->offset; k < q->offset + q->count; k++) {
				same += grad[k] == want.grad[k];
				none += grad[k] == 0;
			}
			if ((q->trainable || beside ? same : none) != q->count)
				fail_msg("%d, %s: %d of %d values are the same, %d are 0", how, q->name, (int)same, (int)q->count, (int)none);
		}
		lwm_tensors_release(&t);
		lwm_llama_free(m);
		lk_dev_close(dev);
		free(want.grad);
		free(grad);
	}
	free(w);
	batch_free(&x);
}

static void weights_may_move_between_uses(void **state)
{
	static const char *const devices[] = { "ref", "cpu" };
	struct lwm_llama_cfg c = tiny_cfg();

	(void)state;
	for (size_t d = 0; d < 2; d++)
		for (int how = 0; how < 4; how++) {
			struct lwm_llama_run run = { .recompute = how & 1 };

			c.tie_embeddings = how & 2;
			check_moving(devices[d], c, run, -1);
			check_moving(devices[d], c, run, 2);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(weights_may_move_between_uses),
		cmocka_unit_test(a_step_in_pieces),
		cmocka_unit_test(frozen_matrices_have_no_gradient),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
