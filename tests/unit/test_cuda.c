/* The cuda backend's devices, memory and queues, on the emulated GPU (tests/emu): refusals with their reasons, transfers of
 * every size, host memory that is used again at once, queues that wait for each other, sequences, threads as ranks.
 * Work there runs as late as CUDA may run it (LWM_EMU_ORDER=2), so that a missing wait shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/backend.h"

static char library[512];

/* NULL, with the reason in why */
static struct lk_dev *try_open(const char *spec, char *why, size_t n, int *rc)
{
	struct lk_dev *dev;

	*rc = lk_dev_open(&dev, spec, 0, why, n);
	return dev;
}

static struct lk_dev *open_dev(const char *spec)
{
	char why[256];
	int rc;
	struct lk_dev *dev = try_open(spec, why, sizeof why, &rc);

	if (!dev)
		fail_msg("%s: %s", spec, why);
	return dev;
}

/* Byte i of a pattern that repeats neither with pages nor with staging buffers. */
static unsigned char pattern(size_t i, unsigned seed)
{
	return (unsigned char)((i * 2654435761u + i / 251 + seed) >> 3);
}

static void fill(unsigned char *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = pattern(i, seed);
}

static void expect(const unsigned char *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != pattern(i, seed))
			fail_msg("byte %zu of %zu is wrong", i, n);
}

static void refused(const char *spec, const char *variable, const char *value, int want, const char *says)
{
	char why[256];
	struct lk_dev *dev;
	int rc;

	if (variable)
		setenv(variable, value, 1);
	dev = try_open(spec, why, sizeof why, &rc);
	if (variable)
		unsetenv(variable);
	assert_null(dev);
	assert_int_equal(rc, want);
	if (!strstr(why, says))
		fail_msg("\"%s\" does not say \"%s\"", why, says);
}

static void refuses_what_it_cannot_use(void **state)
{
	(void)state;
	refused("cuda:2", NULL, NULL, LK_EDEVICE, "there is no cuda:2: 2 GPUs are visible here");
	refused("cuda", "LWM_EMU_GPUS", "0", LK_EDEVICE, "sees no GPU");
	refused("cuda:1", "LWM_EMU_CC", "75", LK_EDEVICE, "compute capability 7.5; 8.0 (Ampere) or later");
}

static void refuses_another_interface(void **state)
{
	void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL), *sym;
	struct lk_dev dev = { .dtype = 0 };
	lk_library_open_fn *open_fn;
	char why[256];

	(void)state;
	assert_non_null(lib);
	sym = dlsym(lib, "lk_cuda_open");
	assert_non_null(sym);
	memcpy(&open_fn, &sym, sizeof open_fn);
	const int other[] = { LK_LAYOUT + (1 << 16), LK_LAYOUT - (int)sizeof(void *) }; /* another number; an entry less */
	for (int i = 0; i < 2; i++) {
		assert_int_equal(open_fn(&dev, other[i], 0, why, sizeof why), LK_EUNSUP);
		assert_non_null(strstr(why, "of another build"));
	}
	dlclose(lib);
}

static void tells_what_it_is(void **state)
{
	struct lk_dev *dev = open_dev("cuda:1");
	size_t free_bytes, total;

	(void)state;
	assert_int_equal(lk_dev_dtype(dev), LK_BF16);
	assert_int_equal(lk_dev_is_host(dev), 0);
	if (!strstr(lk_dev_name(dev), "cuda:1 (emulated GPU, ") || !strstr(lk_dev_name(dev), "GiB, driver for CUDA 13.0)"))
		fail_msg("the name is %s", lk_dev_name(dev));
	assert_int_equal(lk_dev_memory(dev, &free_bytes, &total), 0);
	assert_true(free_bytes > 0 && free_bytes <= total);
	lk_dev_close(dev);
}

static void full_memory_is_a_sentence(void **state)
{
	struct lk_dev *dev = open_dev("cuda");
	void *p;

	(void)state;
	assert_int_equal(lk_mem_alloc(dev, (size_t)1 << 50, &p), LK_ENOMEM);
	assert_null(p);
	if (!strstr(lk_dev_error(dev), "mem_alloc: no memory for 1125899906842624 bytes on GPU 0: "))
		fail_msg("it says: %s", lk_dev_error(dev));
	assert_int_equal(lk_mem_alloc(dev, 100, &p), 0); /* and goes on */
	lk_mem_free(dev, p);
	lk_dev_close(dev);
}

/* Around and above the staging buffers, from ordinary and from pinned memory; the source is spoiled at once. */
static void transfers_of_every_size(void **state)
{
	static const size_t sizes[] = { 1, 4095, 65537, (2u << 20) - 1, 2u << 20, (2u << 20) + 1, 33u << 20 };
	struct lk_dev *dev = open_dev("cuda");

	(void)state;
	for (int pinned = 0; pinned < 2; pinned++) {
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
			size_t n = sizes[i];
			void *src, *a, *b;
			unsigned char *back = malloc(n);

			assert_non_null(back);
			assert_int_equal(pinned ? lk_host_alloc(dev, n, &src) : !(src = malloc(n)), 0);
			assert_int_equal(lk_mem_alloc(dev, n, &a) || lk_mem_alloc(dev, n, &b), 0);
			fill(src, n, (unsigned)i);
			assert_int_equal(lk_upload(dev, a, src, n), 0);
			memset(src, 0, n);
			assert_int_equal(lk_copy(dev, b, a, n), 0);
			assert_int_equal(lk_download(dev, back, b, n), 0);
			expect(back, n, (unsigned)i);
			lk_mem_free(dev, a);
			lk_mem_free(dev, b);
			if (pinned)
				lk_host_free(dev, src);
			else
				free(src);
			free(back);
		}
	}
	lk_dev_close(dev);
}

/* A fork's copy waits for the parent's upload, and the parent's next upload for the copy. */
static void queues_wait_for_each_other(void **state)
{
	enum { BYTES = 300000 };
	struct lk_dev *dev = open_dev("cuda"), *fork;
	struct lk_event *there, *copied;
	unsigned char *host = malloc(BYTES);
	void *a, *b;

	(void)state;
	assert_non_null(host);
	assert_int_equal(lk_dev_fork(&fork, dev), 0);
	assert_true(fork->impl != dev->impl); /* and with it the stream */
	assert_int_equal(lk_event_new(dev, &there) || lk_event_new(fork, &copied), 0);
	assert_int_equal(lk_mem_alloc(dev, BYTES, &a) || lk_mem_alloc(dev, BYTES, &b), 0);
	assert_int_equal(lk_wait(fork, there), 0); /* never recorded: nothing to wait for */
	for (unsigned round = 0; round < 5; round++) {
		fill(host, BYTES, round);
		assert_int_equal(lk_upload(dev, a, host, BYTES) || lk_record(dev, there), 0);
		assert_int_equal(lk_wait(fork, there) || lk_copy(fork, b, a, BYTES) || lk_record(fork, copied), 0);
		assert_int_equal(lk_wait(dev, copied), 0);
	}
	assert_int_equal(lk_download(fork, host, b, BYTES), 0);
	expect(host, BYTES, 4);
	lk_event_free(there);
	lk_event_free(copied);
	lk_mem_free(fork, a);
	lk_mem_free(dev, b);
	lk_dev_close(fork);
	lk_dev_close(dev);
	free(host);
}

static void sequences_come_and_go(void **state)
{
	struct lk_dev *dev = open_dev("cuda");
	int32_t pos[777], seg[777], back[777];

	(void)state;
	for (int round = 0; round < 40; round++) {
		int n = round % 4 == 3 ? 0 : 777 - 19 * round;
		struct lk_seq *s, *other;

		for (int i = 0; i < n; i++) {
			pos[i] = i + 1000 * round;
			seg[i] = i / 100;
		}
		assert_int_equal(lk_seq_new(dev, &s, n, pos, seg), 0);
		assert_int_equal(lk_seq_new(dev, &other, n, pos, NULL), 0);
		memset(pos, 0xff, sizeof pos);
		assert_int_equal(lk_download(dev, back, lk_seq_pos(s), (size_t)n * sizeof *back), 0);
		for (int i = 0; i < n; i++)
			assert_int_equal(back[i], i + 1000 * round);
		assert_int_equal(lk_seq_sees(s, s, 1), n > 0);
		lk_seq_free(s);
		lk_seq_free(other);
	}
	lk_dev_close(dev);
}

/* Everything that a device took is given back when it is closed. */
static void closing_gives_all_back(void **state)
{
	struct lk_dev *witness = open_dev("cuda"), *dev, *fork;
	size_t before, after, total;
	int32_t pos[5] = { 0, 1, 2, 3, 4 };
	struct lk_seq *s;
	struct lk_view a, b, c;
	void *p;

	(void)state;
	assert_int_equal(lk_dev_memory(witness, &before, &total), 0);
	dev = open_dev("cuda");
	assert_int_equal(lk_dev_fork(&fork, dev), 0);
	assert_int_equal(lk_seq_new(dev, &s, 5, pos, NULL), 0);
	assert_int_equal(lk_mem_alloc(dev, 3 * 4096, &p), 0);
	a = lk_view2(p, LK_BF16, 16, 16);
	b = lk_view2((char *)p + 4096, LK_BF16, 16, 16);
	c = lk_view2((char *)p + 8192, LK_F32, 16, 16);
	assert_int_equal(lk_zero(dev, p, 3 * 4096), 0);
	assert_int_equal(lk_matmul(dev, &c, &a, &b, LK_TB, 1.0f), 0);
	assert_int_equal(lk_sync(dev), 0);
	lk_seq_free(s);
	lk_mem_free(dev, p);
	lk_dev_close(fork);
	lk_dev_close(dev);
	assert_int_equal(lk_dev_memory(witness, &after, &total), 0);
	assert_int_equal(before, after);
	lk_dev_close(witness);
}

/* A rank is a host thread with a device of its own; two share a GPU. */
static void *one_rank(void *arg)
{
	enum { N = 5000 };
	int rank = *(int *)arg;
	struct lk_dev *dev = open_dev(rank % 2 ? "cuda:1" : "cuda:0");
	float *x = malloc(N * sizeof *x), *back = malloc(N * sizeof *back);
	void *p, *q;
	struct lk_view vx, vy;
	intptr_t bad = !x || !back;

	bad = bad || lk_mem_alloc(dev, N * sizeof *x, &p) || lk_mem_alloc(dev, N * sizeof *x, &q);
	for (int round = 0; round < 10 && !bad; round++) {
		for (int i = 0; i < N; i++)
			x[i] = (float)(i + rank + round);
		vx = lk_view1(p, LK_F32, N);
		vy = lk_view1(q, LK_F32, N);
		bad = lk_upload(dev, p, x, N * sizeof *x) || lk_fill(dev, q, N, 1.0f) || lk_axpy(dev, &vy, 2.0f, &vx) ||
		      lk_download(dev, back, q, N * sizeof *back);
		for (int i = 0; i < N && !bad; i++)
			bad = back[i] != 1.0f + 2.0f * (float)(i + rank + round);
	}
	lk_mem_free(dev, p);
	lk_mem_free(dev, q);
	lk_dev_close(dev);
	free(x);
	free(back);
	return (void *)bad;
}

static void threads_as_ranks(void **state)
{
	pthread_t thread[4];
	int rank[4] = { 0, 1, 2, 3 };
	void *bad;

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, one_rank, &rank[i]), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(thread[i], &bad), 0);
		assert_null(bad);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_what_it_cannot_use), cmocka_unit_test(refuses_another_interface),
		cmocka_unit_test(tells_what_it_is),	      cmocka_unit_test(full_memory_is_a_sentence),
		cmocka_unit_test(transfers_of_every_size),    cmocka_unit_test(queues_wait_for_each_other),
		cmocka_unit_test(sequences_come_and_go),      cmocka_unit_test(closing_gives_all_back),
		cmocka_unit_test(threads_as_ranks),
	};
	const char *build = getenv("B");

	snprintf(library, sizeof library, "%s/emu/liblwm_cuda.so", build ? build : "build/rel");
	if (access(library, R_OK)) {
		printf("skip: %s was not built\n0 passed, 0 failed, %zu skipped\n", library, sizeof tests / sizeof *tests);
		return 0;
	}
	setenv("LWM_CUDA_LIB", library, 1);
	setenv("LWM_EMU_ORDER", "2", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
