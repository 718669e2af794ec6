/* Communicators of threads, mesh text, ring layouts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/comm_cases.h"

static void test_threads(void **state)
{
	static const int sizes[] = { 1, 2, 3, 4, 8 };
	(void)state;
	for (int s = 0; s < 5; s++) {
		for (int i = 0; i < N_COMM_CASES; i++) {
			struct lwm_err e = { 0 };
			if ((comm_cases[i].even && sizes[s] % 2) || (comm_cases[i].many && sizes[s] < 2))
				continue;
			int rc = lwm_comm_threads(sizes[s], comm_cases[i].fn, NULL, &e);
			if (rc)
				fail_msg("%s on %d ranks: %s", comm_cases[i].name, sizes[s], e.msg);
		}
	}
}

static int leaves(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	(void)arg;
	if (lwm_comm_rank(c) == 1)
		return lwm_fail(e, LWM_EIO, "disk full");
	return lwm_comm_barrier(c, e);
}

static void test_rank_leaves(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	assert_int_equal(lwm_comm_threads(4, leaves, NULL, &e), -LWM_EIO);
	assert_string_equal(e.msg, "rank 1: disk full");
}

/* Rank 1 leaves while the others wait for what they began, in the group and in one split from it. */
static int leaves_begun(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int me = lwm_comm_rank(c), wait_first = *(int *)arg, rc[2];
	float *p = calloc(3000000, sizeof *p), *q = calloc(3000000, sizeof *q);
	struct lwm_comm_op *op[2] = { NULL, NULL };
	struct lwm_comm *part;
	NEED(p && q);
	LWM_TRY(lwm_comm_split(c, 0, 0, &part, e));
	if (me == 1) {
		lwm_comm_free(part);
		free(p);
		free(q);
		return lwm_fail(e, LWM_EIO, "disk full");
	}
	LWM_TRY(lwm_comm_begin_sum_f32(c, p, 3000000, &op[0], e));
	LWM_TRY(lwm_comm_begin_sum_f32(part, q, 3000000, &op[1], e));
	rc[wait_first] = lwm_comm_wait(wait_first ? part : c, op[wait_first], e);
	rc[!wait_first] = lwm_comm_wait(wait_first ? c : part, op[!wait_first], NULL);
	free(p);
	free(q);
	int after = lwm_comm_barrier(part, NULL);
	lwm_comm_free(part);
	if (rc[0] != -LWM_ERANK || rc[1] != -LWM_ERANK || after != -LWM_ERANK) {
		fprintf(stderr, "rank %d was told %d, %d and %d\n", me, rc[0], rc[1], after);
		abort();
	}
	return -LWM_ERANK;
}

static void test_rank_leaves_begun(void **state)
{
	(void)state;
	for (int first = 0; first < 2; first++) {
		struct lwm_err e = { 0 };
		assert_int_equal(lwm_comm_threads(4, leaves_begun, &first, &e), -LWM_EIO);
		assert_string_equal(e.msg, "rank 1: disk full");
	}
}

/* dp 2 x fsdp 2 x sp 2, row-major: ranks 2i and 2i + 1 share rows, those of equal parity hold different ones. */
static int cube(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	int me = lwm_comm_rank(c), all[8];
	struct lwm_mesh m;
	(void)arg;
	LWM_TRY(lwm_mesh_new(&m, "2,2,1,2", c, e));
	NEED(m.coord[LWM_DP] == me / 4 && m.coord[LWM_FSDP] == me / 2 % 2 && m.coord[LWM_SP] == me % 2);
	NEED(lwm_mesh_ranks(&m, LWM_DATA) == 4 && lwm_mesh_rank(&m, LWM_DATA) == me / 2);
	NEED(lwm_comm_size(m.comm[LWM_SP]) == 2 && lwm_comm_size(m.comm[LWM_DATA]) == 4 && lwm_comm_size(m.comm[LWM_GRAD]) == 8);
	LWM_TRY(lwm_comm_allgather(m.comm[LWM_SP], &me, sizeof me, all, e));
	NEED(all[0] == me / 2 * 2 && all[1] == me / 2 * 2 + 1);
	LWM_TRY(lwm_comm_allgather(m.comm[LWM_DATA], &me, sizeof me, all, e));
	for (int i = 0; i < 4; i++)
		NEED(all[i] == 2 * i + me % 2);
	LWM_TRY(lwm_comm_allgather(m.comm[LWM_FSDP], &me, sizeof me, all, e));
	NEED(all[0] == me / 4 * 4 + me % 2 && all[1] == all[0] + 2);
	LWM_TRY(lwm_comm_allgather(m.comm[LWM_DP], &me, sizeof me, all, e));
	NEED(all[0] == me % 4 && all[1] == all[0] + 4);
	NEED(lwm_comm_size(m.comm[LWM_TP]) == 1 && lwm_mesh_ranks(&m, LWM_GRAD) == 8 && lwm_mesh_rank(&m, LWM_GRAD) == me);
	lwm_mesh_release(&m);
	return 0;
}

static void test_cube(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	if (lwm_comm_threads(8, cube, NULL, &e))
		fail_msg("%s", e.msg);
}

static void mesh_is(const char *text, int ranks, int a, int b, int c, int d)
{
	struct lwm_err e = { 0 };
	int dim[LWM_AXES];
	assert_int_equal(lwm_mesh_parse(text, ranks, dim, &e), 0);
	assert_true(dim[0] == a && dim[1] == b && dim[2] == c && dim[3] == d);
}

static void mesh_fails(const char *text, int ranks, int code)
{
	struct lwm_err e = { 0 };
	int dim[LWM_AXES];
	assert_int_equal(lwm_mesh_parse(text, ranks, dim, &e), -code);
	assert_non_null(strstr(e.msg, text));
}

static void test_mesh_text(void **state)
{
	(void)state;
	mesh_is("1,-1,4,1", 256, 1, 64, 4, 1);
	mesh_is("!1,-1,2,2", 8, 1, 2, 2, 2);
	mesh_is("sp:4,dp:2,tp:1,fsdp:-1", 8, 2, 1, 1, 4);
	mesh_fails("1,-1,-1,1", 4, LWM_EUSAGE);
	mesh_fails("1,2,3", 6, LWM_EUSAGE);
	mesh_fails("1,2,3,x", 6, LWM_EUSAGE);
	mesh_fails("dp:1,dp:2,tp:1,sp:1", 2, LWM_EUSAGE);
	mesh_fails("1,1,1,0", 1, LWM_EUSAGE);
	mesh_fails("1,1,1,3", 4, LWM_ECONFIG);
	mesh_fails("3,-1,1,1", 4, LWM_ECONFIG);
	mesh_fails("1048576,1048576,1048576,1048576", 8, LWM_ECONFIG); /* 2^80 */
	mesh_fails("158115,235077,597915,274742", 401790254, LWM_ECONFIG); /* what their product is modulo 2^64 */
	mesh_fails("1048576,1048576,1048576,-1", 8, LWM_ECONFIG);
}

/* Every layout is a partition of the row; zigzag gives everyone the same causal work. */
static void test_layouts(void **state)
{
	enum { SEQ = 96 };
	(void)state;
	for (int layout = 0; layout < 3; layout++) {
		for (int n = 1; n <= 8; n = n == 1 ? 2 : n * 2) {
			int seen[SEQ] = { 0 };
			int64_t work[8] = { 0 };
			struct lwm_err e = { 0 };
			assert_int_equal(lwm_ring_check(layout, SEQ, n, &e), 0);
			for (int r = 0; r < n; r++) {
				int64_t last = -1;
				for (int64_t i = 0; i < SEQ / n; i++) {
					int64_t g = lwm_ring_global(layout, SEQ, n, r, i);
					assert_true(g > last && g < SEQ);
					seen[g]++;
					work[r] += g + 1;
					last = g;
				}
			}
			for (int i = 0; i < SEQ; i++)
				assert_int_equal(seen[i], 1);
			for (int r = 1; layout == LWM_RING_ZIGZAG && r < n; r++)
				assert_true(work[r] == work[0]);
		}
	}
	/* as mesh.h says them: a row of 12 on 3 ranks, rank by rank */
	static const int64_t places[3][12] = { { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 },
					       { 0, 1, 10, 11, 2, 3, 8, 9, 4, 5, 6, 7 },
					       { 0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11 } };
	for (int layout = 0; layout < 3; layout++)
		for (int i = 0; i < 12; i++)
			assert_int_equal(lwm_ring_global(layout, 12, 3, i / 4, i % 4), places[layout][i]);
	struct lwm_err e = { 0 };
	assert_int_equal(lwm_ring_check(LWM_RING_ZIGZAG, 100, 8, &e), -LWM_ECONFIG);
	assert_int_equal(lwm_ring_check(LWM_RING_ZIGZAG, 24, 8, NULL), -LWM_ECONFIG); /* two chunks a rank */
	assert_int_equal(lwm_ring_check(LWM_RING_STRIPED, 24, 8, NULL), 0);
	assert_int_equal(lwm_ring_check(LWM_RING_STRIPED, 25, 8, NULL), -LWM_ECONFIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads), cmocka_unit_test(test_rank_leaves),
					    cmocka_unit_test(test_rank_leaves_begun), cmocka_unit_test(test_cube),
					    cmocka_unit_test(test_mesh_text), cmocka_unit_test(test_layouts) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
