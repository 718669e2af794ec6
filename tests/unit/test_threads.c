/* The number of threads changes no bit: products of many shapes, and a training step with all it leaves behind. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "common/base/log.h"
#include "kernels/kernels.h"
#include "tests/unit/train_probe.h"

static const int threads[] = { 1, 2, 3, 5, 8 };
enum { TEAMS = sizeof threads / sizeof *threads, SEQ = 1024, ROWS = 4, VOCAB = 300, STEPS = 2 };
static char root[128], rows[160];

/* ---- products ---- */

static void fill(float *x, int64_t n, uint64_t seed)
{
	struct lwm_rng g = lwm_rng_at(seed, LWM_RNG_TEST, 0, 0);
	for (int64_t i = 0; i < n; i++)
		x[i] = (float)lwm_rng_double(&g) - 0.5f;
}

/* Sizes of one side, of several and of a long sum; edges that are no multiple of anything. */
static void products(void **state)
{
	static const struct {
		int64_t m, n, k;
	} shape[] = { { 1700, 130, 120 }, { 130, 1611, 250 }, { 1600, 1601, 17 }, { 150, 192, 2100 }, { 563, 328, 1191 },
		      { 96, 64, 4099 },   { 641, 527, 173 },  { 9, 448, 670 },    { 657, 3, 795 },    { 704, 640, 6 } };
	static const unsigned flags[] = { 0, LK_TB, LK_TA, LK_TA | LK_ACC, LK_ACC };
	struct lk_dev *dev[TEAMS];
	char why[256];
	(void)state;
	for (int t = 0; t < TEAMS; t++)
		if (lk_dev_open(&dev[t], "cpu", threads[t], why, sizeof why))
			fail_msg("%s", why);
	for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
		int64_t m = shape[i].m, n = shape[i].n, k = shape[i].k;
		float *a = malloc((size_t)(m * k + n * k + 2 * m * n) * sizeof *a), *b = a + m * k;
		float *one = b + n * k, *c = one + m * n;
		fill(a, m * k + n * k, i);
		for (size_t f = 0; f < sizeof flags / sizeof *flags; f++) {
			struct lk_view va = flags[f] & LK_TA ? lk_view2(a, LK_F32, k, m) : lk_view2(a, LK_F32, m, k);
			struct lk_view vb = flags[f] & LK_TB ? lk_view2(b, LK_F32, n, k) : lk_view2(b, LK_F32, k, n);
			for (int t = 0; t < TEAMS; t++) {
				struct lk_view vc = lk_view2(t ? c : one, LK_F32, m, n);
				fill(vc.data, m * n, 99);
				assert_int_equal(lk_matmul(dev[t], &vc, &va, &vb, flags[f], f % 2 ? 1.0f : 0.37f), 0);
				if (t && memcmp(one, c, (size_t)(m * n) * sizeof *c))
					fail_msg("product %d, flags %u: other bits on %d threads", (int)i, flags[f], threads[t]);
			}
		}
		free(a);
	}
	for (int t = 0; t < TEAMS; t++)
		lk_dev_close(dev[t]);
}

/* ---- training ---- */

/* Rows of one document, of two, and of many; long enough that work is shared out. */
static int long_rows(const char *path, struct lwm_err *e)
{
	struct lwm_rows_meta m = { .seq = SEQ, .vocab_text = VOCAB, .tokenizer = "", .tool = "test", .config = "",
				   .weighting = "per_example" };
	struct lwm_rows_writer *w;
	LWM_TRY(lwm_rows_create(&w, path, &m, true, e));
	for (int64_t r = 0; r < ROWS; r++) {
		struct lwm_rng g = lwm_rng_at(6, LWM_RNG_TEST, 0, (uint64_t)r);
		struct lwm_segment seg[SEQ / 50 + 1];
		int32_t tok[SEQ];
		int64_t n = 0, len = r == 0 ? SEQ : r == 1 ? SEQ / 2 : 50;
		for (int64_t at = 0; at + len <= SEQ; at += len, n++)
			seg[n] = (struct lwm_segment){ .start = at, .len = len, .doc = n };
		for (int64_t i = 0; i < SEQ; i++)
			tok[i] = i < n * len ? (int32_t)lwm_rng_below(&g, VOCAB) : 0;
		int rc = lwm_rows_append(w, tok, seg, n, NULL, 0, e);
		if (rc < 0) {
			lwm_rows_discard(w);
			return rc;
		}
	}
	return lwm_rows_commit(w, e);
}

/* Trains on n threads of each of `ranks` ranks; what was left behind goes to state, loss and norm by step. */
static void train(int n, int ranks, int64_t kv_heads, struct lwm_hash *state, double loss[STEPS], double norm[STEPS])
{
	struct lwm_stage s;
	struct lwm_err e = { 0 };
	char out[256];
	snprintf(out, sizeof out, "%s/run-%d-%d-%d", root, n, ranks, (int)kv_heads);
	must(fx_stage(&s, rows, out, &e), &e);
	s.threads = n;
	lwm_next_token_of(&s)->dim = 128;
	lwm_next_token_of(&s)->ffn = 192;
	lwm_next_token_of(&s)->layers = 1;
	lwm_next_token_of(&s)->kv_heads = kv_heads;
	lwm_next_token_of(&s)->seq_length = SEQ;
	lwm_next_token_of(&s)->tokens_per_batch = ROWS * SEQ;
	lwm_next_token_of(&s)->micro_rows = 2;
	s.steps = STEPS;
	s.mesh_dim = ranks > 1 ? "1,1,1,-1" : "1,1,1,1";
	must(lwm_comm_threads(ranks, run_on, &s, &e), &e);
	must(fx_state(out, state, &e), &e);
	json_t *steps = probe_events(out, "step");
	assert_int_equal(json_array_size(steps), STEPS);
	for (size_t i = 0; i < STEPS; i++) {
		loss[i] = probe_number(steps, i, "loss");
		norm[i] = probe_number(steps, i, "grad_norm");
	}
	json_decref(steps);
	lwm_stage_release(&s);
}

static void same_training(int ranks, int64_t kv_heads)
{
	struct lwm_hash one, h;
	double loss[2][STEPS], norm[2][STEPS];
	train(1, ranks, kv_heads, &one, loss[0], norm[0]);
	for (int t = 1; t < TEAMS; t++) {
		train(threads[t], ranks, kv_heads, &h, loss[1], norm[1]);
		for (int i = 0; i < STEPS; i++)
			if (loss[0][i] != loss[1][i] || norm[0][i] != norm[1][i])
				fail_msg("%d threads: step %d has loss %a, norm %a; on one thread %a, %a", threads[t], i + 1, loss[1][i],
					 norm[1][i], loss[0][i], norm[0][i]);
		assert_string_equal(h.hex, one.hex);
	}
}

static void training(void **state)
{
	(void)state;
	same_training(1, 2);
	same_training(1, 1);
}

static void training_in_a_ring(void **state)
{
	(void)state;
	same_training(2, 4);
}

static int set_up(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	lwm_log_init("test_threads", LWM_ERROR);
	snprintf(root, sizeof root, "/tmp/lwm-test-threads-%ld", (long)getpid());
	snprintf(rows, sizeof rows, "%s/rows.h5", root);
	return lwm_mkdirs(root, &e) < 0 || long_rows(rows, &e) < 0;
}

static int tear_down(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	return lwm_remove_tree(root, &e);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(products), cmocka_unit_test(training),
					    cmocka_unit_test(training_in_a_ring) };
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
