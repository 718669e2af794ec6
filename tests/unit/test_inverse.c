/* test_inverse.c - the head that names commands: least squares worked out by hand, and what it looks at. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/base/rng.h"
#include "common/eval/inverse.h"

static void near(double a, double b)
{
	if (fabs(a - b) > 1e-9)
		fail_msg("%.12g is not %.12g", a, b);
}

/* x x^T sums to diag(2, 2), of mean square 2; with ridge 1/2 the matrix is diag(3, 3), so that W is x one-hot^T / 3. */
static void two_steps_by_hand(void **state)
{
	static const float l[] = { 1, 1 }, r[] = { -1, 1 }, near_l[] = { 0.1f, 1 };
	struct lwm_inverse h;

	(void)state;
	assert_int_equal(lwm_inverse_init(&h, 2, NULL), 0);
	lwm_inverse_add(&h, l, LWM_CMD_LEFT);
	lwm_inverse_add(&h, r, LWM_CMD_RIGHT);
	assert_int_equal(lwm_inverse_fit(&h, 0.5, NULL), 0);
	near(h.w[0 * LWM_CMDS + LWM_CMD_LEFT], 1.0 / 3);
	near(h.w[1 * LWM_CMDS + LWM_CMD_LEFT], 1.0 / 3);
	near(h.w[0 * LWM_CMDS + LWM_CMD_RIGHT], -1.0 / 3);
	near(h.w[1 * LWM_CMDS + LWM_CMD_RIGHT], 1.0 / 3);
	near(h.w[1 * LWM_CMDS + LWM_CMD_STOP], 0);
	assert_int_equal(lwm_inverse_name(&h, l), LWM_CMD_LEFT);
	assert_int_equal(lwm_inverse_name(&h, r), LWM_CMD_RIGHT);
	assert_int_equal(lwm_inverse_name(&h, near_l), LWM_CMD_LEFT);
	lwm_inverse_release(&h);
}

/* The normal equations hold for any sums: (X^T X + ridge trace/n) W = X^T Y. */
static void the_normal_equations_hold(void **state)
{
	enum { N = 7, STEPS = 30 };
	struct lwm_inverse h;
	struct lwm_rng r = lwm_rng_at(5, LWM_RNG_TEST, 0, 0);
	double xx[N][N] = { { 0 } }, xy[N][LWM_CMDS] = { { 0 } }, trace = 0;

	(void)state;
	assert_int_equal(lwm_inverse_init(&h, N, NULL), 0);
	for (int s = 0; s < STEPS; s++) {
		enum lwm_action_cmd c = (enum lwm_action_cmd)lwm_rng_below(&r, LWM_CMDS);
		float x[N];

		for (int i = 0; i < N; i++)
			x[i] = (float)lwm_rng_normal(&r) + (float)c;
		for (int i = 0; i < N; i++)
			for (int k = 0; k < N; k++)
				xx[i][k] += (double)x[i] * x[k];
		for (int i = 0; i < N; i++)
			xy[i][c] += x[i];
		lwm_inverse_add(&h, x, c);
	}
	assert_int_equal(h.steps, STEPS);
	assert_int_equal(lwm_inverse_fit(&h, 0.01, NULL), 0);
	for (int i = 0; i < N; i++)
		trace += xx[i][i];
	for (int i = 0; i < N; i++)
		for (int c = 0; c < LWM_CMDS; c++) {
			double sum = 0.01 * trace / N * h.w[i * LWM_CMDS + c];

			for (int k = 0; k < N; k++)
				sum += xx[i][k] * h.w[k * LWM_CMDS + c];
			if (fabs(sum - xy[i][c]) > 1e-8)
				fail_msg("row %d, command %d: %.12g is not %.12g", i, c, sum, xy[i][c]);
		}
	lwm_inverse_release(&h);
}

static void one_command_is_not_enough_and_unseen_ones_are_not_named(void **state)
{
	static const float x[] = { 1, 1 }, y[] = { 1, -1 }, neither[] = { 0, -5 };
	struct lwm_inverse h;
	struct lwm_err e = { 0 };

	(void)state;
	assert_int_equal(lwm_inverse_init(&h, 2, NULL), 0);
	lwm_inverse_add(&h, x, LWM_CMD_STRAIGHT);
	assert_int_equal(lwm_inverse_fit(&h, 1e-3, &e), -LWM_EDATA);
	assert_string_equal(e.msg, "1 steps show 1 command: two are needed to tell them apart");
	lwm_inverse_add(&h, x, LWM_CMD_STOP);
	assert_int_equal(lwm_inverse_fit(&h, 1e-3, NULL), 0);
	assert_true(lwm_inverse_name(&h, neither) >= LWM_CMD_STRAIGHT); // left, never seen, would score 0 and win
	lwm_inverse_add(&h, y, LWM_CMD_LEFT);
	assert_int_equal(lwm_inverse_fit(&h, 1e-3, NULL), 0);
	assert_int_equal(lwm_inverse_name(&h, y), LWM_CMD_LEFT);
	lwm_inverse_release(&h);
}

static void latents_are_averaged_over_a_grid(void **state)
{
	float z[2 * 8 * 8 * 2], out[2 * 16 * 2], small[2 * 2] = { 1, 2, 3, 4 }, x[5];
	static const float from[] = { 1, 2 }, to[] = { 5, 1 }, want[] = { 1, 2, 4, -1, 1 };

	(void)state;
	for (int i = 0; i < 2 * 8 * 8 * 2; i++)
		z[i] = (float)i;
	lwm_inverse_pool(z, 2, 8, 8, 2, out);
	// place (y 1, x 2) of frame 1, number 1: the mean of rows 2, 3 and columns 4, 5
	near(out[(16 + 1 * 4 + 2) * 2 + 1], (128 + (2 * 8 + 4) * 2 + 1 + 128 + (3 * 8 + 5) * 2 + 1) / 2.0);
	lwm_inverse_pool(small, 1, 2, 2, 1, out); // fewer places than the grid has
	near(out[0], 1);
	near(out[1], 1);
	near(out[2], 2);
	near(out[15], 4);
	lwm_inverse_step(from, to, 2, x);
	assert_memory_equal(x, want, sizeof want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(two_steps_by_hand),
		cmocka_unit_test(the_normal_equations_hold),
		cmocka_unit_test(one_command_is_not_enough_and_unseen_ones_are_not_named),
		cmocka_unit_test(latents_are_averaged_over_a_grid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
