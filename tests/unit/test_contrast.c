/* test_contrast.c - two views told from all others: against a second program, against finite differences, on several ranks, in
 * parts; the same of queries and keys of a copy, with and without a queue; a trunk's masks and positions. */
#include "common/model/contrast.h"
#include "tests/unit/trunk_fixture.h"

enum { TOKENS = 5, PAIRS = 3, OUT = 6 };
#include "tests/golden/trunk-1/contrast.inc"

static const char *const devices[] = { "ref", "cpu" };

static struct lwm_contrast_cfg model(void)
{
	return (struct lwm_contrast_cfg){ .trunk = small_trunk(), .tokens = TOKENS, .hidden = 14, .out = OUT, .temperature = 0.07 };
}

/* ---- one step ---- */

struct views {
	const float *all;    /* (2, pairs of all ranks, TOKENS, INPUT) */
	int64_t first, n, of; /* this rank's pairs among those */
	int rc;
	int64_t update;       /* of that number: keys go into the queue of the weights; -1: they do not */
};

static int fill(void *ctx, int64_t first, int64_t n, float *out, struct lwm_err *e)
{
	const struct views *v = ctx;
	int64_t one = TOKENS * INPUT;

	for (int64_t i = first; i < first + n; i++, out += one)
		memcpy(out, v->all + (i / v->n * v->of + v->first + i % v->n) * one, (size_t)one * sizeof *out);
	return v->rc ? lwm_fail(e, v->rc, "no view") : 0;
}

struct outcome {
	struct lwm_contrast_stats st;
	float *grad, z[2 * 16 * OUT];
};

static int step(struct lk_dev *dev, const struct lwm_contrast_cfg *c, struct lwm_contrast_run run, struct views *v, const float *w,
		int64_t total, bool grads, struct outcome *out, struct lwm_err *e)
{
	struct lwm_flat_weights lw;
	struct lwm_contrast *m;

	run.how.train = true;
	LWM_TRY(lwm_contrast_new(&m, dev, c, &run, e));
	out->st = (struct lwm_contrast_stats){ 0 };
	out->grad = grads ? calloc((size_t)total, sizeof *out->grad) : NULL;
	lw = lwm_flat_weights_of(w, LK_F32, out->grad);
	int rc = lwm_contrast_step(m, v->n, fill, v, &lw.base, &out->st, e);
	if (rc == 0)
		rc = lwm_contrast_embeddings(m, out->z, e);
	if (rc == 0 && v->update >= 0)
		rc = lwm_contrast_enqueue(m, v->update, &lw.base, e);
	lwm_contrast_free(m);
	return rc;
}

static struct outcome alone(const char *name, const struct lwm_contrast_cfg *c, struct lwm_contrast_run run, const float *views,
			    const float *w, int64_t total, bool grads)
{
	struct views v = { views, 0, run.pairs, run.pairs, 0, -1 };
	struct lk_dev *dev = device(name, 1);
	struct lwm_err e = { 0 };
	struct outcome out;

	if (step(dev, c, run, &v, w, total, grads, &out, &e))
		fail_msg("%s", e.msg);
	lk_dev_close(dev);
	return out;
}

static void as_a_second_program(void **state)
{
	struct lwm_contrast_cfg c = model();
	float views[2 * PAIRS * TOKENS * INPUT], *w;
	struct lwm_tensors t;
	int64_t half = PAIRS * TOKENS * INPUT;

	(void)state;
	assert_int_equal(lwm_contrast_tensors(&t, &c, NULL), 0);
	w = weights_by_name(&t);
	numbers("", "views", 2 * half, views);
	for (int64_t i = 0; i < half; i++)
		views[half + i] += 0.75f * views[i];
	for (int k = 0; k < 2; k++) {
		struct lwm_contrast_run run = { .pairs = PAIRS, .how.recompute = k };
		struct outcome y = alone(devices[k], &c, run, views, w, t.total, true);

		assert_below(fabs(y.st.loss - golden_loss[0]), 2e-5 * golden_loss[0]);
		assert_true(y.st.hits == golden_loss[1] && y.st.pairs == PAIRS);
		for (int i = 0; i < 2 * PAIRS * OUT; i++)
			assert_below(fabs((double)y.z[i] / sqrt(OUT) - golden_z[i]), 1e-5);
		check_slopes(devices[k], &t, y.grad, golden_slope, sizeof golden_slope / sizeof *golden_slope);
		free(y.grad);
	}
	free(w);
	lwm_tensors_release(&t);
}

/* ---- queries, and keys of a copy ---- */

enum { QUEUE = 6 };

static struct lwm_contrast_cfg with_momentum(int64_t queue)
{
	struct lwm_contrast_cfg c = model();

	c.momentum = true;
	c.queue = queue;
	return c;
}

/* Rows of the queue have length 1. */
static void normalise_queue(const struct lwm_tensors *t, float *w)
{
	const struct lwm_tensor *q = lwm_tensors_find(t, "momentum.queue");

	for (int64_t row = 0; q && row < q->shape[0]; row++) {
		float *v = w + q->offset + row * OUT;
		double sum = 0;

		for (int i = 0; i < OUT; i++)
			sum += (double)v[i] * (double)v[i];
		for (int i = 0; i < OUT; i++)
			v[i] = (float)((double)v[i] / sqrt(sum));
	}
}

static void keys_as_a_second_program(void **state)
{
	float views[2 * PAIRS * TOKENS * INPUT];
	int64_t half = PAIRS * TOKENS * INPUT;

	(void)state;
	numbers("", "views", 2 * half, views);
	for (int64_t i = 0; i < half; i++)
		views[half + i] = views[i] + (views[half + i] + 0.75f * views[i]) / 4;
	for (int queue = QUEUE; queue >= 0; queue -= QUEUE) {
		struct lwm_contrast_cfg c = with_momentum(queue);
		double loss = momentum_loss[queue ? 0 : 2];
		struct lwm_tensors t;
		float *w;

		assert_int_equal(lwm_contrast_tensors(&t, &c, NULL), 0);
		assert_int_equal(t.n, 2 * 23 + (queue > 0));
		w = weights_by_name(&t);
		normalise_queue(&t, w);
		for (int64_t i = 0; i < t.n; i++) {
			const struct lwm_tensor *q = &t.list[i];
			float *v = w + q->offset;

			assert_int_equal(q->follows > 0 || q->written, !q->trainable);
			if (!q->follows)
				continue;
			assert_string_equal(q->name + strlen("momentum."), t.list[q->follows - 1].name);
			numbers("", q->name, q->count, v);
			for (int64_t k = 0; k < q->count; k++)
				v[k] = w[t.list[q->follows - 1].offset + k] + v[k] / 4;
		}
		for (int k = 0; k < 2; k++) {
			struct lwm_contrast_run run = { .pairs = PAIRS, .how.recompute = k };
			struct outcome y = alone(devices[k], &c, run, views, w, t.total, true);

			assert_below(fabs(y.st.loss - loss), 2e-5 * loss);
			assert_true(y.st.pairs == PAIRS && (!queue || y.st.hits == momentum_loss[1]));
			for (int i = 0; i < 2 * PAIRS * OUT; i++)
				assert_below(fabs((double)y.z[i] / sqrt(OUT) - momentum_z[i]), 1e-5);
			if (queue)
				check_slopes(devices[k], &t, y.grad, momentum_slope,
					     sizeof momentum_slope / sizeof *momentum_slope);
			free(y.grad);
		}
		free(w);
		lwm_tensors_release(&t);
	}
}

static float *random_views(int64_t pairs)
{
	int64_t n = 2 * pairs * TOKENS * INPUT;
	struct lwm_rng r = lwm_rng_at(4, LWM_RNG_TEST, 2, 1);
	float *v = malloc((size_t)n * sizeof *v);

	for (int64_t i = 0; i < n; i++)
		v[i] = (float)lwm_rng_normal(&r);
	return v;
}

struct slopes {
	struct lwm_contrast_cfg c;
	struct lwm_contrast_run run;
	const float *views;
	int64_t total;
};

static double loss_at(void *ctx, const float *w)
{
	const struct slopes *x = ctx;

	return alone("ref", &x->c, x->run, x->views, w, x->total, false).st.loss;
}

static void gradients_are_slopes(void **state)
{
	struct slopes x = { .c = model(), .run.pairs = 4 };
	float *views = random_views(4), *w;
	struct lwm_tensors t;
	struct outcome y;

	(void)state;
	x.c.temperature = 0.5;
	assert_int_equal(lwm_contrast_tensors(&t, &x.c, NULL), 0);
	w = random_weights(&t);
	x.views = views;
	x.total = t.total;
	y = alone("ref", &x.c, x.run, views, w, t.total, true);
	check_differences(&t, w, y.grad, loss_at, &x);
	free(y.grad);
	free(views);
	free(w);
	lwm_tensors_release(&t);
}

/* Of queries: keys are constants. */
static void gradients_of_queries(void **state)
{
	(void)state;
	for (int queue = 0; queue <= 8; queue += 8) {
		struct slopes x = { .c = with_momentum(queue), .run.pairs = 4 };
		float *views = random_views(4), *w;
		struct lwm_tensors t;
		struct outcome y;

		x.c.temperature = 0.5;
		assert_int_equal(lwm_contrast_tensors(&t, &x.c, NULL), 0);
		w = random_weights(&t);
		x.views = views;
		x.total = t.total;
		y = alone("ref", &x.c, x.run, views, w, t.total, true);
		check_differences(&t, w, y.grad, loss_at, &x);
		free(y.grad);
		free(views);
		free(w);
		lwm_tensors_release(&t);
	}
}

/* Four updates of a queue of three batches: the oldest keys are replaced, the fourth batch stands where the first one did. */
static void oldest_keys_go(void **state)
{
	enum { BATCH = 2, BATCHES = 3 };
	struct lwm_contrast_cfg c = with_momentum(BATCH * BATCHES);
	struct lwm_contrast_run run = { .pairs = BATCH };
	struct lk_dev *dev = device("cpu", 1);
	const struct lwm_tensor *q;
	struct lwm_tensors t;
	float *views = random_views(4 * BATCH), *w, *first;
	int64_t one = 2 * BATCH * TOKENS * INPUT;

	(void)state;
	assert_int_equal(lwm_contrast_tensors(&t, &c, NULL), 0);
	w = random_weights(&t);
	q = lwm_tensors_find(&t, "momentum.queue");
	first = malloc((size_t)q->count * sizeof *first);
	memcpy(first, w + q->offset, (size_t)q->count * sizeof *first);
	for (int n = 0; n < 4; n++) {
		struct views v = { views + n * one, 0, BATCH, BATCH, 0, n };
		struct outcome y = { .grad = NULL };
		struct lwm_err e = { 0 };

		if (step(dev, &c, run, &v, w, t.total, true, &y, &e))
			fail_msg("%s", e.msg);
		for (int i = 0; i < BATCH * OUT; i++)
			first[n % BATCHES * BATCH * OUT + i] = y.z[BATCH * OUT + i] / (float)sqrt(OUT);
		assert_below(worst(w + q->offset, first, q->count), 1e-6);
		free(y.grad);
	}
	lk_dev_close(dev);
	free(first);
	free(views);
	free(w);
	lwm_tensors_release(&t);
}

/* ---- parts, ranks ---- */

static void same(const struct outcome *a, const struct outcome *b, int64_t total)
{
	assert_below(fabs(a->st.loss - b->st.loss), 1e-5 * fabs(b->st.loss));
	assert_true(a->st.hits == b->st.hits && a->st.pairs == b->st.pairs);
	assert_below(worst(a->grad, b->grad, total), 3e-5);
}

/* A part of the views at a time: the same negatives, the same loss, the same gradient. */
static void in_parts(void **state)
{
	static const int64_t at_once[] = { 1, 3, 4, 7 };
	const struct lwm_contrast_cfg *of = *state, c = of ? *of : model();
	struct lwm_contrast_run run = { .pairs = 4 };
	float *views = random_views(4), *w;
	struct lwm_tensors t;
	struct outcome all;

	assert_int_equal(lwm_contrast_tensors(&t, &c, NULL), 0);
	w = random_weights(&t);
	all = alone("cpu", &c, run, views, w, t.total, true);
	for (size_t i = 0; i < sizeof at_once / sizeof *at_once; i++) {
		struct outcome y;

		run.at_once = at_once[i];
		y = alone("cpu", &c, run, views, w, t.total, true);
		same(&y, &all, t.total);
		free(y.grad);
		y = alone("cpu", &c, run, views, w, t.total, false);
		assert_below(fabs(y.st.loss - all.st.loss), 1e-6 * all.st.loss);
	}
	free(all.grad);
	free(views);
	free(w);
	lwm_tensors_release(&t);
}

enum { ALL_PAIRS = 8 };
struct world {
	struct lwm_contrast_cfg c;
	const float *views, *w;
	const struct lwm_tensors *t;
	int64_t total, at_once;
	int bad; /* rank that cannot make its views */
	struct outcome sum;
	int rc[4];
	float queue[4][2 * ALL_PAIRS * OUT]; /* of each rank, after the step; with a queue of twice the pairs */
};

/* Weights of a rank alone: what is enqueued it writes into them. */
static float *own_weights(const struct world *x)
{
	float *w = malloc((size_t)x->total * sizeof *w);

	memcpy(w, x->w, (size_t)x->total * sizeof *w);
	return w;
}

static void keep_queue(struct world *x, int r, const float *w)
{
	const struct lwm_tensor *q = lwm_tensors_find(x->t, "momentum.queue");

	if (q)
		memcpy(x->queue[r], w + q->offset, sizeof x->queue[r]);
}

static int rank_step(struct lwm_comm *comm, void *arg, struct lwm_err *e)
{
	struct world *x = arg;
	int r = lwm_comm_rank(comm), n = lwm_comm_size(comm);
	struct lk_dev *dev = device("cpu", 1);
	struct lwm_contrast_run run = { .pairs = ALL_PAIRS / n, .at_once = x->at_once };
	struct views v = { x->views, r * (ALL_PAIRS / n), ALL_PAIRS / n, ALL_PAIRS, r == x->bad ? LWM_EDATA : 0,
			   x->c.queue ? 1 : -1 };
	struct outcome y = { .grad = NULL };
	float *w = own_weights(x);
	double sums[3];

	assert_int_equal(lwm_devcomm_new(&run.ranks, dev, comm, e), 0);
	x->rc[r] = step(dev, &x->c, run, &v, w, x->total, true, &y, e);
	keep_queue(x, r, w);
	sums[0] = y.st.loss;
	sums[1] = y.st.hits;
	sums[2] = y.st.pairs;
	assert_int_equal(lwm_comm_sum_f64(comm, sums, 3, e), 0);
	assert_int_equal(lwm_devcomm_sum_f32(run.ranks, y.grad, x->total, e), 0);
	if (r == 0) {
		x->sum.st = (struct lwm_contrast_stats){ .loss = sums[0], .hits = sums[1], .pairs = sums[2] };
		x->sum.grad = y.grad;
	} else {
		free(y.grad);
	}
	free(w);
	lwm_devcomm_free(run.ranks);
	lk_dev_close(dev);
	return 0;
}

static void on_several_ranks(void **state)
{
	static struct world x;
	struct lwm_err e = { 0 };
	struct lwm_tensors t;
	struct outcome one;
	float *views = random_views(ALL_PAIRS), *w, alone_queue[2 * ALL_PAIRS * OUT];

	x = (struct world){ .c = *state ? *(struct lwm_contrast_cfg *)*state : model(), .bad = -1, .t = &t };
	assert_int_equal(lwm_contrast_tensors(&t, &x.c, NULL), 0);
	w = random_weights(&t);
	x.views = views;
	x.w = w;
	x.total = t.total;
	one = alone("cpu", &x.c, (struct lwm_contrast_run){ .pairs = ALL_PAIRS }, views, w, t.total, true);
	for (int n = 1; n <= 4; n *= 2)
		for (x.at_once = 0; x.at_once < 4; x.at_once += 3) {
			assert_int_equal(lwm_comm_threads(n, rank_step, &x, &e), 0);
			same(&x.sum, &one, t.total);
			free(x.sum.grad);
			if (!x.c.queue)
				continue;
			/* all ranks have the same queue; on any number of them it is that of one, and has the new keys */
			for (int r = 1; r < n; r++)
				assert_memory_equal(x.queue[r], x.queue[0], sizeof x.queue[0]);
			if (n == 1 && !x.at_once)
				memcpy(alone_queue, x.queue[0], sizeof alone_queue);
			assert_below(worst(x.queue[0], alone_queue, 2 * ALL_PAIRS * OUT), 1e-5);
			for (int i = ALL_PAIRS * OUT; i < 2 * ALL_PAIRS * OUT; i++)
				assert_below(fabs((double)(x.queue[0][i] - one.z[i] / (float)sqrt(OUT))), 1e-6);
		}
	free(one.grad);
	free(views);
	free(w);
	lwm_tensors_release(&t);
}

/* One rank has no views: nobody is left waiting, and it alone says so. */
static void a_rank_that_fails(void **state)
{
	static struct world x;
	struct lwm_err e = { 0 };
	struct lwm_tensors t;
	float *views = random_views(ALL_PAIRS), *w;

	x = (struct world){ .c = *state ? *(struct lwm_contrast_cfg *)*state : model(), .bad = 1, .t = &t };
	assert_int_equal(lwm_contrast_tensors(&t, &x.c, NULL), 0);
	w = random_weights(&t);
	x.views = views;
	x.w = w;
	x.total = t.total;
	for (x.at_once = 0; x.at_once < 4; x.at_once += 3) {
		assert_int_equal(lwm_comm_threads(4, rank_step, &x, &e), 0);
		for (int r = 0; r < 4; r++)
			assert_int_equal(x.rc[r], r == 1 ? -LWM_EDATA : 0);
		free(x.sum.grad);
	}
	free(views);
	free(w);
	lwm_tensors_release(&t);
}

/* ---- the trunk ---- */

/* Hidden states of n vectors of one segment. */
static void hidden_of(const float *vectors, int64_t n, const int32_t *pos, const int32_t *see, bool every, float *out)
{
	struct lwm_llama_cfg c = model().trunk;
	struct lwm_llama_run run = { .tokens = n, .no_causal = every };
	struct lk_dev *dev = device("cpu", 1);
	int32_t seg[TOKENS] = { 0 };
	struct lwm_trunk_batch b = { .n = n, .vectors = vectors, .seg = seg, .pos = pos, .see = see };
	struct lwm_err e = { 0 };
	struct lwm_llama *m;
	struct lwm_tensors t;
	float *w;

	assert_int_equal(lwm_llama_tensors(&t, &c, &e), 0);
	w = random_weights(&t);
	struct lwm_flat_weights lw = lwm_flat_weights_of(w, LK_F32, NULL);
	if (lwm_llama_new(&m, dev, &c, &run, &e) || lwm_trunk_begin(m, &b, &lw.base, &e))
		fail_msg("%s", e.msg);
	lwm_trunk_forward(m);
	struct lk_view h = lwm_trunk_hidden(m);
	assert_int_equal(lk_download(dev, out, h.data, (size_t)(n * c.dim) * sizeof *out), 0);
	assert_int_equal(lwm_trunk_end(m, &e), 0);
	lwm_llama_free(m);
	free(w);
	lwm_tensors_release(&t);
	lk_dev_close(dev);
}

/* Two frames of two tokens and one of one: tokens of a frame see each other both ways and what was before, nobody what comes. */
static void who_sees_whom(void **state)
{
	static const int32_t pos[TOKENS] = { 0, 1, 2, 3, 4 }, see[TOKENS] = { 0, 0, 1, 1, 2 };
	float *v = random_views(1), a[3][TOKENS * 16], b[3][TOKENS * 16];

	(void)state;
	for (int last = 1; last < TOKENS; last++) {
		for (int way = 0; way < 3; way++)
			hidden_of(v, TOKENS, pos, way == 1 ? see : NULL, way == 2, a[way]);
		v[last * INPUT] += 1;
		for (int way = 0; way < 3; way++)
			hidden_of(v, TOKENS, pos, way == 1 ? see : NULL, way == 2, b[way]);
		for (int i = 0; i < TOKENS; i++)
			for (int way = 0; way < 3; way++) {
				bool sees = way == 0 ? i >= last : way == 1 ? see[i] >= see[last] : true;

				assert_true(!memcmp(a[way] + i * 16, b[way] + i * 16, 16 * sizeof(float)) == !sees);
			}
	}
	free(v);
}

/* What rotates is pos, whatever masks: all positions moved by one are the same angles between tokens; others are not. */
static void what_rotates(void **state)
{
	static const int32_t pos[TOKENS] = { 0, 1, 2, 3, 4 }, moved[TOKENS] = { 7, 8, 9, 10, 11 }, far[TOKENS] = { 0, 2, 4, 6, 8 };
	float *v = random_views(1), a[TOKENS * 16], b[TOKENS * 16];

	(void)state;
	hidden_of(v, TOKENS, pos, NULL, true, a);
	hidden_of(v, TOKENS, moved, NULL, true, b);
	assert_below(worst(b, a, TOKENS * 16), 1e-5);
	hidden_of(v, TOKENS, far, pos, false, b);
	hidden_of(v, TOKENS, pos, NULL, false, a);
	assert_true(worst(b, a, TOKENS * 16) > 1e-3);
	free(v);
}

static void what_is_refused(void **state)
{
	struct lwm_contrast_cfg c = model();
	struct lwm_llama_cfg t = c.trunk;
	struct lwm_err e = { 0 };

	(void)state;
	assert_int_equal(lwm_contrast_check(&c, &e), 0);
	c.temperature = 0;
	assert_int_equal(lwm_contrast_check(&c, &e), -LWM_ECONFIG);
	c = model();
	c.out = 1;
	assert_int_equal(lwm_contrast_check(&c, &e), -LWM_ECONFIG);
	c = model();
	c.queue = 4; /* of whose keys? */
	assert_int_equal(lwm_contrast_check(&c, &e), -LWM_ECONFIG);
	assert_int_equal(lwm_llama_check_tp(&t, 1, &e), 0);
	assert_int_equal(lwm_llama_check_tp(&t, 2, &e), -LWM_ECONFIG);
	t.vocab_text = 3;
	assert_int_equal(lwm_llama_check(&t, &e), -LWM_ECONFIG);
	t.vocab_text = 0;
	t.input_dim = 0;
	assert_int_equal(lwm_llama_check(&t, &e), -LWM_ECONFIG);
}

int main(void)
{
	struct lwm_contrast_cfg keys = with_momentum(0), queue = with_momentum(2 * ALL_PAIRS);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_a_second_program), cmocka_unit_test(gradients_are_slopes), cmocka_unit_test(in_parts),
		cmocka_unit_test(on_several_ranks), cmocka_unit_test(a_rank_that_fails),
		cmocka_unit_test(keys_as_a_second_program), cmocka_unit_test(gradients_of_queries),
		cmocka_unit_test(oldest_keys_go),
		cmocka_unit_test_prestate(in_parts, &keys), cmocka_unit_test_prestate(in_parts, &queue),
		cmocka_unit_test_prestate(on_several_ranks, &keys), cmocka_unit_test_prestate(on_several_ranks, &queue),
		cmocka_unit_test_prestate(a_rank_that_fails, &queue),
		cmocka_unit_test(who_sees_whom), cmocka_unit_test(what_rotates), cmocka_unit_test(what_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
