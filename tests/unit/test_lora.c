/* Adapters of low rank: which matrices have them; updates against PyTorch's, where they are never added to the matrix, on vectors
 * cut over ranks; stages on meshes, stopped and resumed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/comm/device.h"
#include "common/optim/lora.h"
#include "common/tensor/adapter.h"
#include "tests/unit/train_folder.h"
#include "tests/unit/train_probe.h"

/* ---- the table ---- */

static void make_table(struct lwm_tensors *t)
{
	static const struct lwm_tensor first[] = {
		{ .name = "embed", .ndim = 2, .shape = { 9, 8 }, .role = LWM_ROLE_EMBED, .trainable = true, .group = 0 },
		{ .name = "0.q", .ndim = 2, .shape = { 8, 6 }, .role = LWM_ROLE_MATRIX, .trainable = true, .decays = true, .group = 1 },
		{ .name = "0.norm", .ndim = 1, .shape = { 8 }, .role = LWM_ROLE_SCALE, .trainable = true, .group = 1 },
		{ .name = "1.q", .ndim = 2, .shape = { 8, 7 }, .role = LWM_ROLE_MATRIX, .trainable = true, .decays = true, .group = 2 },
		{ .name = "head", .ndim = 2, .shape = { 9, 8 }, .role = LWM_ROLE_HEAD, .trainable = true, .group = 3 },
	};
	*t = (struct lwm_tensors){ .align = 0 };
	for (size_t i = 0; i < sizeof first / sizeof *first; i++)
		assert_int_equal(lwm_tensors_add(t, &first[i], NULL), 0);
}

static void adapters_are_beside_their_matrices(void **state)
{
	static const struct {
		const char *name;
		int64_t rows, cols, adapts;
		bool trains;
	} want[] = { { "embed", 9, 8, 0, true }, { "0.q", 8, 6, 0, false },         { "0.norm", 8, 0, 0, true },
		     { "1.q", 8, 7, 0, false },  { "head", 9, 8, 0, true },         { "0.q.lora_a", 3, 6, 2, true },
		     { "0.q.lora_b", 8, 3, 2, true }, { "1.q.lora_a", 3, 7, 4, true }, { "1.q.lora_b", 8, 3, 4, true } };
	struct lwm_adapters how = { .targets = "?.q", .rank = 3 };
	struct lwm_tensors t;
	float v[24];
	(void)state;
	make_table(&t);
	assert_int_equal(lwm_adapters_add(&t, &how, NULL), 0);
	assert_int_equal(t.n, sizeof want / sizeof *want);
	for (int64_t i = 0; i < t.n; i++) {
		const struct lwm_tensor *q = &t.list[i];
		assert_string_equal(q->name, want[i].name);
		assert_true(q->shape[0] == want[i].rows && q->shape[1] == want[i].cols && q->adapts == want[i].adapts &&
			    q->trainable == want[i].trains);
		assert_int_equal(lwm_adapter_is_name(q->name), i > 4);
		assert_true(i < 5 || (q->group == 3 && q->decays));
	}
	lwm_tensors_init(&t, 1, t.list[5].offset, 18, v);
	assert_true(v[0] != 0 && v[17] != 0);
	lwm_tensors_init(&t, 1, t.list[6].offset, 24, v);
	for (int i = 0; i < 24; i++)
		assert_true(v[i] == 0);
	assert_true(lwm_adapters_scale(&how) == 1);
	how.alpha = 12;
	assert_true(lwm_adapters_scale(&how) == 4);
	lwm_tensors_release(&t);
}

static void what_cannot_have_them_is_named(void **state)
{
	static const struct {
		struct lwm_adapters how;
		int code;
		const char *words;
	} want[] = { { { "*.k", 2, 0 }, LWM_ECONFIG, "--lora: '*.k' matches no tensor" },
		     { { "*norm", 2, 0 }, LWM_ECONFIG, "'0.norm', which is no matrix" },
		     { { "embed", 2, 0 }, LWM_ECONFIG, "'embed', which is no matrix" },
		     { { "0.q,1.q", 6, 0 }, LWM_ECONFIG, "'0.q' is 8 x 6: adapters of --lora-rank 6" },
		     { { "0.q,,1.q", 2, 0 }, LWM_EUSAGE, "--lora ',1.q'" } };
	(void)state;
	for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
		struct lwm_err e = { 0 };
		struct lwm_tensors t;
		make_table(&t);
		int rc = lwm_adapters_add(&t, &want[i].how, &e);
		if (rc != -want[i].code || !strstr(e.msg, want[i].words))
			fail_msg("%zu: %d, '%s'", i, rc, e.msg);
		lwm_tensors_release(&t);
	}
}

/* ---- updates ---- */

enum { M = 5, N = 7, R = 2, INPUTS = 3, UPDATES = 14, A = R * N, B = M * R };
static const double scale = 1.5;

static const double golden[UPDATES][A + B] = {
#include "tests/golden/adapt-1/lora.inc"
};

static double first_of(int i)
{
	return i < A ? 0.3 * sin(i + 1) : 0.2 * cos(2 * (i - A));
}

static double base_at(int64_t i)
{
	return 0.4 * sin(0.9 * (double)i);
}

/* W + scale B A after n updates. */
static void effective(int n, double w[M * N])
{
	for (int i = 0; i < M; i++)
		for (int j = 0; j < N; j++) {
			double sum = 0;
			for (int r = 0; r < R; r++) {
				double a = n ? golden[n - 1][r * N + j] : first_of(r * N + j);
				double b = n ? golden[n - 1][A + i * R + r] : first_of(A + i * R + r);
				sum += b * a;
			}
			w[i * N + j] = (double)(float)base_at(i * N + j) + scale * sum;
		}
}

/* Of half the squared distance, with respect to the effective weights. */
static void gradient(const double w[M * N], double d[M * N])
{
	memset(d, 0, M * N * sizeof *d);
	for (int k = 0; k < INPUTS; k++)
		for (int i = 0; i < M; i++) {
			double y = -0.5 * sin(1.1 * (M * k + i));
			for (int j = 0; j < N; j++)
				y += w[i * N + j] * cos(0.37 * (N * k + j));
			for (int j = 0; j < N; j++)
				d[i * N + j] += y * cos(0.37 * (N * k + j));
		}
}

/* Of the gradients of A and B, by their formulas: updates of Adam do not tell what these are multiplied by. */
static double norm_of(int n, const double d[M * N])
{
	double sum = 0;
	for (int r = 0; r < R; r++) {
		for (int j = 0; j < N; j++) {
			double da = 0;
			for (int i = 0; i < M; i++)
				da += scale * (n ? golden[n - 1][A + i * R + r] : first_of(A + i * R + r)) * d[i * N + j];
			sum += da * da;
		}
		for (int i = 0; i < M; i++) {
			double db = 0;
			for (int j = 0; j < N; j++)
				db += scale * (n ? golden[n - 1][r * N + j] : first_of(r * N + j)) * d[i * N + j];
			sum += db * db;
		}
	}
	return sqrt(sum);
}

/* The flat element at k of this rank's local vector. All is one group. */
static int64_t flat_of(const struct lwm_cut *c, int64_t k)
{
	return c->shards == 1 ? k : c->group[0].offset + c->shard * c->group[0].slice + k;
}

static int set_gradient(struct lwm_weights *w, const double d[M * N], float *host, struct lwm_err *e)
{
	for (int64_t k = 0; k < w->cut.local; k++) {
		int64_t i = flat_of(&w->cut, k);
		host[k] = i < M * N ? (float)(d[i] / w->cut.replicas) : 0;
	}
	return lwm_dev_check(w->dev, lk_upload(w->dev, w->grad, host, (size_t)w->cut.local * sizeof *host), e);
}

static int set_weights(struct lwm_weights *w, float *host, struct lwm_err *e)
{
	for (int64_t k = 0; k < w->cut.count; k++) {
		int64_t i = flat_of(&w->cut, lwm_cut_place(&w->cut, k));
		host[k] = i < M * N ? (float)base_at(i) : i < M * N + A + B ? (float)first_of((int)i - M * N) : 0;
	}
	LWM_TRY(lwm_weights_put(w, LWM_STATE_WEIGHTS, host, e));
	return lwm_weights_gather(w, e);
}

/* Slices of a stretch go beyond its end. */
static bool is_own(const struct lwm_cut *c, int64_t k)
{
	for (int64_t i = 0; i < lwm_cut_stretches(c); i++) {
		struct lwm_cut_stretch s = lwm_cut_stretch(c, i);
		if (k >= s.state && k < s.state + lwm_cut_owned(c, &s))
			return true;
	}
	return false;
}

/* Own pieces: W as it was, adapters as PyTorch's, compute weights their sum; n updates were made. */
static int check_weights(struct lwm_weights *w, int n, float *host, struct lwm_err *e)
{
	double sum[M * N];
	effective(n, sum);
	LWM_TRY(lwm_weights_take(w, LWM_STATE_WEIGHTS, host, e));
	for (int64_t k = 0; k < w->cut.count; k++) {
		int64_t i = flat_of(&w->cut, lwm_cut_place(&w->cut, k));
		float computed = ((const float *)w->compute)[lwm_cut_place(&w->cut, k)];
		bool adapter = i >= M * N && i < M * N + A + B;
		double want = adapter ? n ? golden[n - 1][i - M * N] : first_of((int)i - M * N) : 0;
		if (!is_own(&w->cut, k))
			continue;
		if (i < M * N && (host[k] != (float)base_at(i) || !(fabs((double)computed - sum[i]) <= 5e-6)))
			return lwm_fail(e, LWM_ENO, "%d updates, weight %d: %.9g, with adapters %.9g instead of %.9g", n, (int)i,
					(double)host[k], (double)computed, sum[i]);
		if (adapter && (!(fabs((double)host[k] - want) <= 5e-6) || computed != host[k]))
			return lwm_fail(e, LWM_ENO, "%d updates, adapter %d: %.9g, PyTorch says %.9g", n, (int)i - M * N,
					(double)host[k], want);
	}
	return 0;
}

static int update_often(struct lwm_weights *w, const struct lwm_tensors *t, float *host, struct lwm_err *e)
{
	const struct lwm_adamw how = { .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1 };
	double sum[M * N], d[M * N], norm;
	LWM_TRY(set_weights(w, host, e));
	LWM_TRY(check_weights(w, 0, host, e));
	for (int n = 0; n < UPDATES; n++) {
		effective(n, sum);
		gradient(sum, d);
		LWM_TRY(set_gradient(w, d, host, e));
		LWM_TRY(lwm_weights_reduce(w, t, 1, &norm, e));
		if (!(fabs(norm - norm_of(n, d)) <= 1e-4 * norm))
			return lwm_fail(e, LWM_ENO, "%d updates: the norm is %.9g, by hand %.9g", n, norm, norm_of(n, d));
		LWM_TRY(lwm_weights_update(w, t, &how, n, 0.02, 1, e));
		LWM_TRY(lwm_weights_gather(w, e));
		LWM_TRY(check_weights(w, n + 1, host, e));
	}
	return 0;
}

struct split_case {
	int shards;
	bool whole;
};

static int adapt_on(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	static const struct lwm_tensor matrix = { .name = "w", .ndim = 2, .shape = { M, N }, .role = LWM_ROLE_MATRIX, .trainable = true,
						  .decays = true };
	const struct split_case *k = arg;
	int ranks = lwm_comm_size(c), shards = k->shards, replicas = ranks / shards;
	const struct lwm_adapters how = { .targets = "w", .rank = R };
	struct lwm_tensors t = { .align = 0 };
	struct lwm_weights w = { .dev = NULL };
	struct lwm_lora l = { .w = NULL };
	struct lwm_cut cut = { .n = 0 };
	struct lwm_devcomm *dc = NULL;
	struct lk_dev *dev = NULL;
	float host[256];
	int rc;
	LWM_GO(lwm_agree(c, lwm_device_open(&dev, "cpu", 1, e), e));
	LWM_GO(lwm_devcomm_new(&dc, dev, c, e));
	LWM_GO(lwm_agree(c, lwm_tensors_add(&t, &matrix, e), e));
	LWM_GO(lwm_agree(c, lwm_adapters_add(&t, &how, e), e));
	LWM_GO(lwm_agree(c, lwm_cut_new(&cut, &t, shards, replicas, e), e));
	cut = lwm_cut_of(&cut, lwm_comm_rank(c));
	LWM_GO(lwm_agree(c, lwm_weights_new(&w, dev, LK_F32, &cut, replicas > 1 ? dc : NULL, c, false, e), e));
	LWM_GO(lwm_agree(c, lwm_weights_part_master(&w, e), e));
	struct lwm_lora_how by = { .scale = scale, .ranks = ranks > 1 ? dc : NULL, .whole = k->whole };
	LWM_GO(lwm_agree(c, lwm_lora_new(&l, &w, &t, &by, e), e));
	w.lora = &l;
	rc = lwm_agree(c, update_often(&w, &t, host, e), e);
out:
	lwm_lora_release(&l);
	lwm_weights_release(&w);
	lwm_cut_release(&cut);
	lwm_tensors_release(&t);
	lwm_devcomm_free(dc);
	lk_dev_close(dev);
	return rc;
}

static void updates_are_those_of_pytorch(void **state)
{
	(void)state;
	for (int ranks = 1; ranks <= 3; ranks++)
		for (int i = 0; i < (ranks > 1 ? 4 : 2); i++) {
			struct split_case k = { i & 2 ? ranks : 1, i & 1 };
			struct lwm_err e = { 0 };
			if (lwm_comm_threads(ranks, adapt_on, &k, &e) < 0)
				fail_msg("%d ranks, %d shards, %d: %s", ranks, k.shards, k.whole, e.msg);
		}
}

/* ---- a matrix of several blocks ---- */

enum { TALL = 700, BROAD = 512 }; /* more than 2^18 elements */

static float tall_at(int64_t i)
{
	return i < TALL * BROAD ? 0.001f * (float)(i % 997) : 0.1f * (float)((i * 7) % 13) - 0.6f;
}

static int check_tall(struct lwm_weights *w, const struct lwm_tensors *t, struct lwm_err *e)
{
	int64_t from, n, at;
	const float *y = w->compute;
	if (!lwm_cut_own(&w->cut, &t->list[0], &from, &n, &at))
		return 0;
	for (int64_t k = 0; k < n; k++) {
		int64_t i = (from + k) / BROAD, j = (from + k) % BROAD;
		double want = (double)tall_at(from + k);
		for (int64_t r = 0; r < R; r++)
			want += scale * (double)tall_at(t->list[2].offset + i * R + r) *
				(double)tall_at(t->list[1].offset + r * BROAD + j);
		double got = (double)y[lwm_cut_place(&w->cut, at + k)];
		if (!(fabs(got - want) <= 1e-5))
			return lwm_fail(e, LWM_ENO, "row %d, column %d: %.9g, by hand %.9g", (int)i, (int)j, got, want);
	}
	return 0;
}

static int sum_tall(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	static const struct lwm_tensor matrix = { .name = "w", .ndim = 2, .shape = { TALL, BROAD }, .role = LWM_ROLE_MATRIX,
						  .trainable = true };
	const struct lwm_adapters how = { .targets = "w", .rank = R };
	int ranks = lwm_comm_size(c);
	struct lwm_tensors t = { .align = 0 };
	struct lwm_weights w = { .dev = NULL };
	struct lwm_lora l = { .w = NULL };
	struct lwm_cut cut = { .n = 0 };
	struct lwm_devcomm *dc = NULL;
	struct lk_dev *dev = NULL;
	float *host = NULL;
	int64_t from, n, at;
	int rc;
	(void)arg;
	LWM_GO(lwm_agree(c, lwm_device_open(&dev, "cpu", 1, e), e));
	LWM_GO(lwm_devcomm_new(&dc, dev, c, e));
	LWM_GO(lwm_agree(c, lwm_tensors_add(&t, &matrix, e), e));
	LWM_GO(lwm_agree(c, lwm_adapters_add(&t, &how, e), e));
	LWM_GO(lwm_agree(c, lwm_cut_new(&cut, &t, 1, ranks, e), e));
	cut = lwm_cut_of(&cut, lwm_comm_rank(c));
	LWM_GO(lwm_agree(c, lwm_weights_new(&w, dev, LK_F32, &cut, dc, c, false, e), e));
	LWM_GO(lwm_agree(c, lwm_weights_part_master(&w, e), e));
	struct lwm_lora_how by = { .scale = scale, .ranks = ranks > 1 ? dc : NULL };
	LWM_GO(lwm_agree(c, lwm_lora_new(&l, &w, &t, &by, e), e));
	w.lora = &l;
	host = calloc((size_t)cut.count, sizeof *host);
	LWM_GO(lwm_agree(c, host ? 0 : lwm_fail_memory(e, NULL), e));
	for (int64_t i = 0; i < t.n; i++)
		for (int64_t k = lwm_cut_own(&cut, &t.list[i], &from, &n, &at) ? 0 : n; k < n; k++)
			host[at + k] = tall_at(from + k);
	LWM_GO(lwm_agree(c, lwm_weights_put(&w, LWM_STATE_WEIGHTS, host, e), e));
	LWM_GO(lwm_weights_gather(&w, e));
	rc = lwm_agree(c, check_tall(&w, &t, e), e);
out:
	free(host);
	lwm_lora_release(&l);
	lwm_weights_release(&w);
	lwm_cut_release(&cut);
	lwm_tensors_release(&t);
	lwm_devcomm_free(dc);
	lk_dev_close(dev);
	return rc;
}

static void large_matrices_are_summed_in_blocks(void **state)
{
	(void)state;
	for (int ranks = 1; ranks <= 3; ranks++) {
		struct lwm_err e = { 0 };
		if (lwm_comm_threads(ranks, sum_tall, NULL, &e) < 0)
			fail_msg("%d ranks: %s", ranks, e.msg);
	}
}

/* ---- stages ---- */

enum { STEPS = 8 };

struct mesh_case {
	const char *mesh;
	int ranks;
	bool shards;
};
static const struct mesh_case meshes[] = { { "1,1,1,1", 1, false }, { "2,1,1,1", 2, false }, { "1,2,1,1", 2, true },
					   { "1,1,1,2", 2, true },  { "2,2,1,1", 4, true },  { "3,1,1,1", 3, false },
					   { "1,1,2,1", 2, false }, { "1,1,4,1", 4, false }, { "2,1,2,1", 4, false },
					   { "1,2,2,1", 4, true } };
enum { MESHES = sizeof meshes / sizeof *meshes };

static void stage_of(struct lwm_stage *s, const char *name, const struct mesh_case *m, char *out, size_t size)
{
	struct lwm_err e = { 0 };
	snprintf(out, size, "%s/%s", root, name);
	must(fx_stage(s, rows, out, &e), &e);
	s->steps = STEPS;
	s->mesh_dim = m->mesh;
	s->shard_weights = m->shards ? LWM_SHARD_TRUE : LWM_SHARD_FALSE;
	s->lora = "*self_attn.?_proj*,*up_proj*";
	s->lora_rank = 4;
	s->lora_alpha = 8;
	s->train_only = "*lora*";
	s->ema = 0.5;
	lwm_next_token_of(s)->tokens_per_batch = 12 * FX_SEQ;
	lwm_next_token_of(s)->micro_rows = 1;
}

static void train(struct lwm_stage *s, int ranks, int64_t stop_after)
{
	struct lwm_err e = { 0 };
	s->stop_after = stop_after;
	int rc = lwm_comm_threads(ranks, run_on, s, &e);
	if (rc != (stop_after ? -LWM_ESAVED : 0))
		fail_msg("%s: %d, %s", s->mesh_dim, rc, e.msg);
}

static double apart(const float *a, const float *b, int64_t n)
{
	double d = 0, s = 0;
	for (int64_t i = 0; i < n; i++) {
		d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
		s += (double)b[i] * (double)b[i];
	}
	return sqrt(d / s);
}

/* Base weights are those that the stage began with; adapters are the last tensors. */
static void check_base(const struct lwm_stage *s, const char *out, const struct probe *p)
{
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	char *dir = lwm_ckpt_dir(out, STEPS);
	float *start = calloc((size_t)p->n, sizeof *start);
	int64_t at = 0, adapters = 0;
	must(lwm_ckpt_open(&c, dir, &e), &e);
	for (int64_t i = 0; i < lwm_ckpt_count(c); at += p->size[i], i++) {
		struct lwm_tensor t = *lwm_ckpt_tensor(c, i);
		bool adapter = lwm_adapter_is_name(t.name);
		struct lwm_tensors one = { .list = &t, .n = 1, .total = p->size[i] };
		adapters += adapter;
		assert_true(adapter || !adapters);
		t.offset = 0;
		t.count = p->size[i];
		t.init = strstr(t.name, "norm") ? LWM_INIT_CONST : LWM_INIT_NORMAL;
		t.value = strstr(t.name, "norm") ? 1 : 0.02;
		lwm_tensors_init(&one, (uint64_t)s->seed, 0, p->size[i], start);
		bool same = !memcmp(start, p->v[LWM_CKPT_PARAMS] + at, (size_t)p->size[i] * sizeof *start);
		if (same == adapter)
			fail_msg("%s: '%s' %s", s->mesh_dim, t.name, same ? "did not move" : "moved");
	}
	assert_int_equal(adapters, 2 * 2 * 5);
	lwm_ckpt_close(c);
	free(start);
	free(dir);
}

static void adapters_alone_train_on_any_mesh(void **state)
{
	struct probe want = { 0 }, got;
	double first[STEPS], loss[STEPS];
	(void)state;
	for (int i = 0; i < MESHES; i++) {
		char out[2][256], name[32];
		struct lwm_err e = { 0 };
		struct lwm_stage s;
		for (int stopped = 0; stopped < 2; stopped++) {
			snprintf(name, sizeof name, "mesh%d-%d", i, stopped);
			stage_of(&s, name, &meshes[i], out[stopped], sizeof out[stopped]);
			if (stopped)
				train(&s, meshes[i].ranks, 3);
			train(&s, meshes[i].ranks, 0);
			must(probe_step(&got, out[stopped], STEPS, &e), &e);
			check_base(&s, out[stopped], &got);
			assert_int_equal(fx_losses(out[stopped], loss, STEPS), STEPS);
			lwm_stage_release(&s);
			if (!i && !stopped) {
				want = got;
				memcpy(first, loss, sizeof first);
				assert_true(loss[STEPS - 1] < loss[0]);
				continue;
			}
			for (int g = 0; g < LWM_CKPT_TRAINED; g++)
				if (!(apart(got.v[g], want.v[g], want.n) < (stopped && !i ? 1e-30 : 1e-3)))
					fail_msg("%s: %s are %g away", meshes[i].mesh, lwm_ckpt_group_names[g],
						 apart(got.v[g], want.v[g], want.n));
			for (int k = 0; k < STEPS; k++)
				assert_true(fabs(loss[k] - first[k]) <= 2e-5 * first[k]);
			probe_free(&got);
		}
		struct lwm_hash h[2];
		must(fx_state(out[0], &h[0], &e), &e);
		must(fx_state(out[1], &h[1], &e), &e);
		assert_string_equal(h[0].hex, h[1].hex); /* stopped: the same bits */
	}
	probe_free(&want);
}

/* Sums in canonical order: on any mesh the same bits, of a run that moves between meshes too. */
static void canonical_sums_are_the_same_on_any_mesh(void **state)
{
	static const struct mesh_case where[] = { { "1,1,1,1", 1, false }, { "2,1,1,1", 2, false }, { "1,2,1,1", 2, true },
						  { "4,1,1,1", 4, false }, { "2,2,1,1", 4, true },  { "3,1,1,1", 3, false } };
	enum { WHERE = sizeof where / sizeof *where };
	struct probe want = { 0 }, got;
	(void)state;
	for (int i = 0; i <= WHERE; i++) { /* the last one begins on one mesh and ends on another */
		struct lwm_err e = { 0 };
		struct lwm_stage s;
		char out[256], name[32];
		snprintf(name, sizeof name, "order%d", i);
		stage_of(&s, name, &where[i % WHERE], out, sizeof out);
		s.sum_order = LWM_SUM_CANONICAL;
		if (i == WHERE) {
			train(&s, where[0].ranks, 3);
			lwm_stage_release(&s);
			stage_of(&s, name, &where[4], out, sizeof out);
			s.sum_order = LWM_SUM_CANONICAL;
		}
		train(&s, where[i == WHERE ? 4 : i].ranks, 0);
		must(probe_step(i ? &got : &want, out, STEPS, &e), &e);
		check_base(&s, out, i ? &got : &want);
		lwm_stage_release(&s);
		if (!i)
			continue;
		for (int g = 0; g < LWM_CKPT_TRAINED; g++)
			if (memcmp(got.v[g], want.v[g], (size_t)want.n * sizeof *want.v[g]))
				fail_msg("%d, %s: %s are other bits", i, where[i % WHERE].mesh, lwm_ckpt_group_names[g]);
		probe_free(&got);
	}
	probe_free(&want);
}

static int set_up(void **state)
{
	(void)state;
	return folder_of("test_lora", FX_VOCAB);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(adapters_are_beside_their_matrices),
					    cmocka_unit_test(what_cannot_have_them_is_named),
					    cmocka_unit_test(updates_are_those_of_pytorch),
					    cmocka_unit_test(large_matrices_are_summed_in_blocks),
					    cmocka_unit_test(adapters_alone_train_on_any_mesh),
					    cmocka_unit_test(canonical_sums_are_the_same_on_any_mesh) };
	return cmocka_run_group_tests(tests, set_up, folder_gone);
}
