/* test_ring.c - attention over 1, 2, 4 and 8 ranks (threads) equals one rank, for every layout. */
#include "tests/unit/ring_cases.h"

static int run_all(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	return ring_all(c, arg, e);
}

static void check_ranks(int n, const char *dev)
{
	struct lwm_err e = { 0 };

	if (lwm_comm_threads(n, run_all, (void *)(uintptr_t)dev, &e))
		fail_msg("%s", e.msg);
}

static void one_rank(void **state)
{
	(void)state;
	check_ranks(1, "ref");
	check_ranks(1, "cpu");
}

static void two_ranks(void **state)
{
	(void)state;
	check_ranks(2, "ref");
	check_ranks(2, "cpu");
}

static void four_ranks(void **state)
{
	(void)state;
	check_ranks(4, "ref");
	check_ranks(4, "cpu");
}

static void eight_ranks(void **state)
{
	(void)state;
	check_ranks(8, "ref");
	check_ranks(8, "cpu");
}

/* One rank passes an id out of range: all return the same code, and nobody hangs. */
static int run_bad(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct lwm_llama_cfg cfg = tiny_cfg();
	struct batch all = ring_batch(&cfg, &ring_cases[0]);
	struct batch mine = ring_slice(&all, LWM_RING_ZIGZAG, lwm_comm_size(c), lwm_comm_rank(c));
	struct lwm_llama_run run = { 0 };
	struct lk_dev *dev = device("ref", 1);
	struct lwm_devcomm *around;
	struct result r = { 0 };
	int64_t total;
	float *w = weights_new(&cfg, &total);
	int rc;

	if (lwm_comm_rank(c) == 1) {
		if (*(int *)arg)
			mine.tokens[0] = 999;
		else
			mine.b.n--;
	}
	LWM_TRY(lwm_devcomm_new(&around, dev, c, e));
	run.ring = around;
	rc = step_on(dev, &cfg, run, &mine.b, w, true, &r, e);
	lwm_devcomm_free(around);
	free(r.grad);
	free(w);
	batch_free(&all);
	batch_free(&mine);
	lk_dev_close(dev);
	return rc == (*(int *)arg ? -LWM_EDATA : -LWM_ECONFIG) ? 0 : -LWM_EINTERNAL;
}

static void a_rank_that_fails_takes_all_along(void **state)
{
	struct lwm_err e = { 0 };
	int which[] = { 1, 0 };

	(void)state;
	for (int i = 0; i < 2; i++)
		if (lwm_comm_threads(4, run_bad, &which[i], &e))
			fail_msg("case %d: %s", i, e.msg);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_rank),    cmocka_unit_test(two_ranks),
		cmocka_unit_test(four_ranks),  cmocka_unit_test(eight_ranks),
		cmocka_unit_test(a_rank_that_fails_takes_all_along),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
