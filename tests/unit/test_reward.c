/* test_reward.c - the variance of an ensemble of drawings, worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "common/eval/reward.h"

static void drawings_that_agree_are_worth_one(void **state)
{
	static const uint8_t same[4] = { 0, 77, 255, 3 };
	struct lwm_reward r;

	(void)state;
	assert_int_equal(lwm_reward_init(&r, 4, NULL), 0);
	for (int i = 0; i < 5; i++)
		lwm_reward_add(&r, same);
	assert_true(lwm_reward_variance(&r) < 1e-12);
	assert_true(fabs(lwm_reward_value(&r) - 1) < 1e-12);
	lwm_reward_release(&r);
}

/* Place 0 is -1, -1, 1: mean -1/3, squares of differences 4/9 + 4/9 + 16/9 = 24/9, over 2: 4/3. Place 1 is always 1. */
static void the_variance_is_the_unbiased_one_of_a_place_and_the_mean_of_all(void **state)
{
	static const uint8_t drawn[3][2] = { { 0, 255 }, { 0, 255 }, { 255, 255 } };
	struct lwm_reward r;

	(void)state;
	assert_int_equal(lwm_reward_init(&r, 2, NULL), 0);
	for (int i = 0; i < 3; i++)
		lwm_reward_add(&r, drawn[i]);
	assert_true(fabs(lwm_reward_variance(&r) - 2.0 / 3) < 1e-12);
	assert_true(fabs(lwm_reward_value(&r) - 0.513417119032592) < 1e-12); // exp(-2/3)
	lwm_reward_release(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(drawings_that_agree_are_worth_one),
		cmocka_unit_test(the_variance_is_the_unbiased_one_of_a_place_and_the_mean_of_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
