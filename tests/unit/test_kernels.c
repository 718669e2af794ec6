/* Devices: opening, sharing a process, sequences, and the arithmetic that must not depend on the number of threads.
 * The ops themselves are held against ref in tests/kernels. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

static struct lk_dev *open_dev(const char *spec, int threads)
{
	struct lk_dev *dev;
	char why[256];

	if (lk_dev_open(&dev, spec, threads, why, sizeof why))
		fail_msg("%s: %s", spec, why);
	return dev;
}

/* n numbers in [-1,1) that depend on seed alone */
static float *numbers(struct lk_dev *dev, int64_t n, uint32_t seed)
{
	float *host = malloc((size_t)n * sizeof *host);
	void *p;

	assert_non_null(host);
	for (int64_t i = 0; i < n; i++) {
		seed = seed * 1664525u + 1013904223u;
		host[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
	}
	assert_int_equal(lk_mem_alloc(dev, (size_t)n * sizeof *host, &p), 0);
	assert_int_equal(lk_upload(dev, p, host, (size_t)n * sizeof *host), 0);
	free(host);
	return p;
}

static float *download(struct lk_dev *dev, const float *p, int64_t n)
{
	float *host = malloc((size_t)n * sizeof *host);

	assert_non_null(host);
	assert_int_equal(lk_download(dev, host, p, (size_t)n * sizeof *host), 0);
	return host;
}

/* ---- opening ---- */

static void open_says_why_not(void **state)
{
	static const char *const none[] = { "gpu", "cpux", "cuda:", "cuda:x", "cuda:1x", "" };
	struct lk_dev *dev;
	char why[256];

	(void)state;
	for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
		assert_int_equal(lk_dev_open(&dev, none[i], 0, why, sizeof why), LK_EUNSUP);
		assert_null(dev);
		assert_true(strlen(why) > 20);
	}
	assert_int_equal(lk_dev_open(&dev, "cpu", -1, why, sizeof why), LK_EINVAL);
	assert_true(strlen(why) > 10);
}

static void missing_cuda_library_is_told(void **state)
{
	struct lk_dev *dev;
	char why[256];

	(void)state;
	setenv("LWM_CUDA_LIB", "/nonexistent/liblwm_cuda.so", 1);
	assert_int_equal(lk_dev_open(&dev, "cuda:0", 0, why, sizeof why), LK_EUNSUP);
	assert_non_null(strstr(why, "/nonexistent/liblwm_cuda.so"));
	unsetenv("LWM_CUDA_LIB");
}

static void isa_can_be_lowered_not_raised(void **state)
{
	struct lk_dev *dev;
	char why[256];

	(void)state;
	setenv("LWM_ISA", "base", 1);
	assert_int_equal(lk_dev_open(&dev, "cpu", 2, why, sizeof why), 0);
	assert_non_null(strstr(lk_dev_name(dev), "base"));
	assert_non_null(strstr(lk_dev_name(dev), "2 threads"));
	assert_int_equal(lk_dev_threads(dev), 2);
	assert_int_equal(lk_dev_dtype(dev), LK_F32);
	lk_dev_close(dev);
	setenv("LWM_ISA", "mmx", 1);
	assert_int_equal(lk_dev_open(&dev, "cpu", 2, why, sizeof why), LK_EUNSUP);
	assert_non_null(strstr(why, "mmx"));
	unsetenv("LWM_ISA");
}

static void errors_are_sentences(void **state)
{
	struct lk_dev *dev = open_dev("cpu", 1);
	struct lk_view a = lk_view2(NULL, LK_F32, 3, 4), b = lk_view2(NULL, LK_F32, 5, 6);

	(void)state;
	assert_string_equal(lk_dev_error(dev), "");
	assert_int_equal(lk_matmul(dev, &a, &a, &b, 0, 1.0f), LK_EINVAL);
	assert_string_equal(lk_dev_error(dev), "matmul: c has no memory");
	assert_int_equal(lk_matmul(dev, NULL, &a, &b, 0, 1.0f), LK_EINVAL);
	assert_string_equal(lk_dev_error(dev), "matmul: c is NULL");
	lk_dev_close(dev);
	lk_dev_close(NULL);
}

static void memory_and_queues(void **state)
{
	struct lk_dev *dev = open_dev("cpu", 2), *queue;
	struct lk_event *ev;
	size_t spare, total;
	void *p, *big, *empty, *none;
	char text[16] = "";

	(void)state;
	assert_int_equal(lk_dev_fork(&queue, dev), 0);
	assert_int_equal(lk_mem_alloc(dev, 100, &p), 0);
	assert_int_equal((uintptr_t)p % 64, 0);
	assert_int_equal(lk_mem_alloc(dev, (size_t)5 << 20, &big), 0);
	assert_int_equal(lk_mem_alloc(dev, 0, &empty), 0);
	assert_int_equal(lk_upload(dev, p, "moved", 6), 0);
	assert_int_equal(lk_event_new(dev, &ev), 0);
	assert_int_equal(lk_record(dev, ev), 0);
	assert_int_equal(lk_wait(queue, ev), 0);
	assert_int_equal(lk_copy(queue, big, p, 6), 0);
	assert_int_equal(lk_sync(queue), 0);
	assert_int_equal(lk_download(dev, text, big, 6), 0);
	assert_string_equal(text, "moved");
	assert_int_equal(lk_dev_memory(dev, &spare, &total), 0);
	assert_true(spare > 0 && spare <= total);
	assert_int_equal(lk_mem_alloc(dev, SIZE_MAX - 5, &none), LK_ENOMEM);
	assert_null(none);
	assert_int_equal(lk_upload(dev, NULL, "x", 1), LK_EINVAL);
	lk_event_free(ev);
	lk_mem_free(dev, p);
	lk_mem_free(dev, big);
	lk_mem_free(dev, empty);
	lk_mem_free(dev, NULL);
	lk_dev_close(queue);
	lk_dev_close(dev);
}

static void targets_stay_in_the_vocabulary(void **state)
{
	static const int32_t targets[3] = { 0, 6, 7 };
	struct lk_dev *dev = open_dev("cpu", 1);
	float *x = numbers(dev, 21, 1), *w = numbers(dev, 6, 2);
	struct lk_view logits = lk_view2(x, LK_F32, 3, 7);
	void *t;

	(void)state;
	assert_int_equal(lk_mem_alloc(dev, sizeof targets, &t), 0);
	assert_int_equal(lk_upload(dev, t, targets, sizeof targets), 0);
	assert_int_equal(lk_xent(dev, &logits, t, w, w + 3, NULL, 1), LK_EINVAL);
	assert_string_equal(lk_dev_error(dev), "xent: target 7 of row 2 is outside of the 7 entries");
	logits.n[0] = 2;
	assert_int_equal(lk_xent(dev, &logits, t, w, w + 3, NULL, 1), 0);
	lk_mem_free(dev, t);
	lk_mem_free(dev, x);
	lk_mem_free(dev, w);
	lk_dev_close(dev);
}

/* What holders of a cut vocabulary work out together is what lk_xent says of the whole, and each of them says the same bits. */
static void parts_of_a_vocabulary_make_the_whole(void **state)
{
	enum { N = 6, V = 1056 };
	static const char *const name[] = { "ref", "cpu" };
	static float x[N * V], whole[N * V], cut[N * V], all[8 * N * LK_XENT_PART], nll[N], hit[N], part_nll[N], part_hit[N];
	const float weight[N] = { 1, 0.5f, 2, 0, 1, 1 };
	const int32_t target[N] = { 0, 131, 132, 500, 1055, 7 };

	(void)state;
	for (int i = 0; i < N * V; i++)
		x[i] = 6 * sinf((float)(i * i % 10007));
	for (int i = 0; i < N; i += 2)
		x[i * V + target[i]] = 6.5f; // hits
	x[4 * V + 3] = 6.5f;                 // but this one: another part has the same, earlier
	for (int d = 0; d < 2; d++) {
		struct lk_dev *dev = open_dev(name[d], 2);
		struct lk_view w = lk_view2(whole, LK_F32, N, V);

		memcpy(whole, x, sizeof x);
		assert_int_equal(lk_xent(dev, &w, target, weight, nll, hit, 1), 0);
		assert_true(hit[0] == 1 && hit[1] == 0 && hit[2] == 1 && hit[4] == 0);
		for (int n = 1; n <= 8; n *= 2) {
			int32_t mine[N];

			memcpy(cut, x, sizeof x);
			for (int step = 0; step < 2; step++)
				for (int k = 0; k < n; k++) {
					struct lk_view c = lk_view2(cut + k * (V / n), LK_F32, N, V / n);

					c.stride[0] = V;
					for (int i = 0; i < N; i++)
						mine[i] = target[i] - k * (V / n);
					if (!step) {
						assert_int_equal(lk_xent_part(dev, &c, mine, all + k * N * LK_XENT_PART, 1), 0);
						continue;
					}
					assert_int_equal(lk_xent_join(dev, &c, mine, weight, all, n, k, part_nll, part_hit, 1), 0);
					for (int i = 0; i < N; i++)
						assert_true(fabsf(part_nll[i] - nll[i]) <= 1e-6f * fabsf(nll[i]));
					assert_memory_equal(part_hit, hit, sizeof hit);
				}
			for (int i = 0; i < N * V; i++)
				assert_true(fabsf(cut[i] - whole[i]) <= 1e-7f + 2e-6f * fabsf(whole[i]));
		}
		lk_dev_close(dev);
	}
}

/* ---- sequences ---- */

static int brute_sees(int64_t nq, const int32_t *qp, const int32_t *qs, int64_t nk, const int32_t *kp, const int32_t *ks,
		      int causal)
{
	for (int64_t i = 0; i < nq; i++)
		for (int64_t j = 0; j < nk; j++)
			if (qs[i] >= 0 && qs[i] == ks[j] && (!causal || kp[j] <= qp[i]))
				return 1;
	return 0;
}

/* Never 0 for a pair that sees something; and 0 where whole blocks are apart. */
static void sequences_see_each_other(void **state)
{
	struct lk_dev *dev = open_dev("ref", 0);
	uint32_t r = 7;
	int zeros = 0;

	(void)state;
	for (int trial = 0; trial < 300; trial++) {
		int32_t pos[2][150], seg[2][150];
		struct lk_seq *s[2];
		int64_t n[2];

		for (int q = 0; q < 2; q++) {
			int32_t start, id;

			r = r * 1664525u + 1013904223u;
			n[q] = r >> 24 & 127;
			start = (int32_t)(r >> 16 & 255);
			id = (int32_t)(r >> 12 & 3) - 1;
			for (int64_t i = 0; i < n[q]; i++) {
				pos[q][i] = start + (int32_t)i;
				seg[q][i] = id + (i > 70 ? 1 : 0);
			}
			assert_int_equal(lk_seq_new(dev, &s[q], n[q], pos[q], seg[q]), 0);
		}
		for (int causal = 0; causal < 2; causal++) {
			int want = brute_sees(n[0], pos[0], seg[0], n[1], pos[1], seg[1], causal);
			int got = lk_seq_sees(s[0], s[1], causal);

			assert_true(got >= want);
			zeros += !got;
		}
		lk_seq_free(s[0]);
		lk_seq_free(s[1]);
	}
	assert_true(zeros > 50);
	lk_dev_close(dev);
}

static void sequences_are_checked_and_copied(void **state)
{
	struct lk_dev *dev = open_dev("cpu", 1);
	int32_t pos[3] = { 4, 5, 6 }, back[3];
	struct lk_seq *s;

	(void)state;
	assert_int_equal(lk_seq_new(dev, &s, -1, pos, NULL), LK_EINVAL);
	assert_null(s);
	assert_int_equal(lk_seq_new(dev, &s, 3, NULL, NULL), LK_EINVAL);
	assert_int_equal(lk_seq_new(dev, &s, 3, pos, NULL), 0);
	pos[0] = 99;
	assert_int_equal(lk_download(dev, back, lk_seq_pos(s), sizeof back), 0);
	assert_int_equal(back[0], 4);
	assert_int_equal(back[2], 6);
	lk_seq_free(s);
	lk_seq_free(NULL);
	assert_int_equal(lk_seq_new(dev, &s, 0, NULL, NULL), 0);
	assert_int_equal(lk_seq_sees(s, s, 1), 0);
	lk_seq_free(s);
	lk_dev_close(dev);
}

/* ---- any number of threads ---- */

enum { M = 200, N = 330, K = 260 };

struct work {
	int threads;
	uint32_t seed;
	float *product, *norm, *dw; /* (M,N), (M,K), (K) */
	double sum;
};

/* A product, a norm forward and backward, a sum: on a device of its own. */
static void *do_work(void *arg)
{
	struct work *w = arg;
	struct lk_dev *dev = open_dev("cpu", w->threads);
	float *a = numbers(dev, M * K, w->seed), *b = numbers(dev, N * K, w->seed + 1), *c = numbers(dev, M * N, 3);
	float *y = numbers(dev, M * K, 4), *rstd = numbers(dev, M, 5), *dw = numbers(dev, K, 6);
	struct lk_view av = lk_view2(a, LK_F32, M, K), bv = lk_view2(b, LK_F32, N, K), cv = lk_view2(c, LK_F32, M, N);
	struct lk_view yv = lk_view2(y, LK_F32, M, K), wv = lk_view1(b, LK_F32, K), gv = lk_view2(b, LK_F32, M, K);

	for (int repeat = 0; repeat < 3; repeat++) {
		assert_int_equal(lk_matmul(dev, &cv, &av, &bv, LK_TB, 1.0f), 0);
		assert_int_equal(lk_rmsnorm_fwd(dev, &yv, rstd, &av, NULL, &wv, 1e-6f), 0);
	}
	assert_int_equal(lk_rmsnorm_bwd(dev, &yv, dw, &gv, &av, &wv, rstd), 0);
	assert_int_equal(lk_sumsq(dev, c, M * N, &w->sum), 0);
	w->product = download(dev, c, M * N);
	w->norm = download(dev, y, M * K);
	w->dw = download(dev, dw, K);
	lk_mem_free(dev, a);
	lk_mem_free(dev, b);
	lk_mem_free(dev, c);
	lk_mem_free(dev, y);
	lk_mem_free(dev, rstd);
	lk_mem_free(dev, dw);
	lk_dev_close(dev);
	return NULL;
}

static void free_work(struct work *w)
{
	free(w->product);
	free(w->norm);
	free(w->dw);
}

static void threads_do_not_change_results(void **state)
{
	struct work one = { .threads = 1, .seed = 11 }, three = { .threads = 3, .seed = 11 };
	double worst = 0;

	(void)state;
	do_work(&one);
	do_work(&three);
	assert_memory_equal(one.norm, three.norm, M * K * sizeof(float));
	assert_memory_equal(one.dw, three.dw, K * sizeof(float));
	for (int i = 0; i < M * N; i++) {
		double d = (double)one.product[i] - three.product[i];

		worst = d > worst ? d : -d > worst ? -d : worst;
	}
	assert_true(worst < 1e-4); // the BLAS may sum the edge of a part in another order
	free_work(&one);
	free_work(&three);
}

/* Ranks as threads: devices of different sizes compute at once, each as if it were alone. */
static void devices_live_side_by_side(void **state)
{
	enum { RANKS = 4 };
	struct work alone[RANKS], together[RANKS];
	pthread_t id[RANKS];

	(void)state;
	for (int i = 0; i < RANKS; i++) {
		alone[i] = (struct work){ .threads = 1 + i % 3, .seed = 100u + 7u * (uint32_t)i };
		together[i] = alone[i];
		do_work(&alone[i]);
	}
	for (int i = 0; i < RANKS; i++)
		assert_int_equal(pthread_create(&id[i], NULL, do_work, &together[i]), 0);
	for (int i = 0; i < RANKS; i++)
		assert_int_equal(pthread_join(id[i], NULL), 0);
	for (int i = 0; i < RANKS; i++) {
		assert_memory_equal(alone[i].product, together[i].product, M * N * sizeof(float));
		assert_memory_equal(alone[i].norm, together[i].norm, M * K * sizeof(float));
		assert_memory_equal(alone[i].dw, together[i].dw, K * sizeof(float));
		assert_true(alone[i].sum == together[i].sum);
		free_work(&alone[i]);
		free_work(&together[i]);
	}
}

/* ---- signs of life ---- */

static int signs; /* one thread */

static void count_sign(void)
{
	signs++;
}

/* What may take minutes on a long row says from inside that it goes on, forward and backward. */
static void attention_gives_signs_of_life(void **state)
{
	enum { T = 4000, D = 32 };
	struct lk_dev *dev = open_dev("cpu", 1);
	float *x[9], *lse = numbers(dev, T, 1), *delta = numbers(dev, T, 2);
	struct lk_view v[9];
	int32_t pos[T];
	struct lk_seq *s;

	(void)state;
	for (int i = 0; i < T; i++)
		pos[i] = i;
	for (int i = 0; i < 9; i++) {
		x[i] = numbers(dev, T * D, (uint32_t)i);
		v[i] = lk_view3(x[i], LK_F32, T, 1, D);
	}
	assert_int_equal(lk_seq_new(dev, &s, T, pos, NULL), 0);
	struct lk_attn a = { .q = v[0], .k = v[1], .v = v[2], .qs = s, .ks = s, .scale = 0.2f, .causal = 1 };
	lk_on_progress(count_sign);
	assert_int_equal(lk_attn_once(dev, &a, &v[3], lse), 0);
	assert_true(signs >= 3);
	signs = 0;
	assert_int_equal(lk_attn_delta(dev, delta, &v[3], &v[4]), 0);
	assert_int_equal(lk_attn_bwd(dev, &a, &v[4], lse, delta, &v[5], &v[6], &v[7]), 0);
	assert_true(signs >= 3);
	lk_on_progress(NULL);
	signs = 0;
	assert_int_equal(lk_attn_once(dev, &a, &v[3], lse), 0);
	assert_int_equal(signs, 0);
	lk_seq_free(s);
	for (int i = 0; i < 9; i++)
		lk_mem_free(dev, x[i]);
	lk_mem_free(dev, lse);
	lk_mem_free(dev, delta);
	lk_dev_close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attention_gives_signs_of_life),
		cmocka_unit_test(open_says_why_not),
		cmocka_unit_test(missing_cuda_library_is_told),
		cmocka_unit_test(isa_can_be_lowered_not_raised),
		cmocka_unit_test(errors_are_sentences),
		cmocka_unit_test(memory_and_queues),
		cmocka_unit_test(targets_stay_in_the_vocabulary),
		cmocka_unit_test(parts_of_a_vocabulary_make_the_whole),
		cmocka_unit_test(sequences_see_each_other),
		cmocka_unit_test(sequences_are_checked_and_copied),
		cmocka_unit_test(threads_do_not_change_results),
		cmocka_unit_test(devices_live_side_by_side),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
