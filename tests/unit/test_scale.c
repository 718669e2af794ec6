/* The scale of a loss: when it moves, how far, and what is not its business. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/log.h"
#include "common/optim/scale.h"

static const struct lwm_scaling dynamic = { .first = 8, .interval = 2, .backoff = 0.5 };

static void it_grows_after_updates_in_a_row(void **state)
{
	static const double want[] = { 8, 16, 16, 32, 32 };
	struct lwm_scale_state st = lwm_scale_begin(&dynamic);
	(void)state;
	assert_true(lwm_scale_now(&st) == 8);
	for (int i = 0; i < 5; i++) {
		lwm_scale_note(&dynamic, &st);
		assert_true(lwm_scale_now(&st) == want[i]);
	}
	lwm_scale_back_off(&dynamic, &st, 5); /* the one update that was counted counts no more */
	assert_true(st.scale == 16 && st.overflows == 1 && st.good == 0);
	lwm_scale_note(&dynamic, &st);
	assert_true(st.scale == 16);
	lwm_scale_note(&dynamic, &st);
	assert_true(st.scale == 32);
}

static void what_an_overflow_is(void **state)
{
	struct lwm_scaling fixed = dynamic;
	struct lwm_scale_state st = lwm_scale_begin(&dynamic), none = { 0 };
	(void)state;
	assert_true(lwm_scale_overflowed(&dynamic, &st, 2.5, INFINITY));
	assert_true(lwm_scale_overflowed(&dynamic, &st, 2.5, NAN));
	assert_false(lwm_scale_overflowed(&dynamic, &st, 2.5, 1e30));
	assert_false(lwm_scale_overflowed(&dynamic, &st, NAN, NAN));
	assert_false(lwm_scale_overflowed(&dynamic, &st, INFINITY, NAN));
	assert_false(lwm_scale_overflowed(&dynamic, &none, 2.5, INFINITY));
	assert_true(lwm_scale_now(&none) == 1);
	lwm_scale_note(&dynamic, &none);
	assert_true(none.scale == 0 && none.good == 0);
	fixed.fixed = 1024;
	st = lwm_scale_begin(&fixed);
	assert_true(st.scale == 1024);
	assert_false(lwm_scale_overflowed(&fixed, &st, 2.5, INFINITY));
	lwm_scale_note(&fixed, &st);
	lwm_scale_note(&fixed, &st);
	assert_true(st.scale == 1024);
}

/* It ends somewhere both ways; below, the guards are asked. */
static void it_has_ends(void **state)
{
	struct lwm_scale_state st = lwm_scale_begin(&dynamic);
	(void)state;
	for (int i = 0; i < 200 && lwm_scale_overflowed(&dynamic, &st, 1, NAN); i++)
		lwm_scale_back_off(&dynamic, &st, i);
	assert_true(st.scale == 0x1p-24 && st.overflows == 27);
	for (int i = 0; i < 1000; i++)
		lwm_scale_note(&dynamic, &st);
	assert_true(st.scale == 0x1p40);
}

static void only_powers_of_two(void **state)
{
	static const struct {
		double fixed, first, backoff;
		const char *says; /* NULL: it is well */
	} t[] = { { 0, 65536, 0.5, NULL },	{ 1, 65536, 0.25, NULL },     { 0x1p-24, 0x1p40, 0.5, NULL },
		  { 3, 8, 0.5, "--loss-scale 3" }, { 0, 0, 0.5, "-first 0" },   { 0, 1000, 0.5, "-first 1000" },
		  { 0, 0x1p41, 0.5, "-first" },	{ 0, 8, 0, "-backoff 0:" },   { 0, 8, 1, "-backoff 1:" },
		  { 0, 8, 0.3, "-backoff 0.3" },	{ INFINITY, 8, 0.5, "inf" }, { 0, 0x1p-25, 0.5, "-first" } };
	(void)state;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct lwm_scaling c = { t[i].fixed, t[i].first, 2, t[i].backoff };
		struct lwm_err e = { 0 };
		assert_int_equal(lwm_scale_check(&c, &e), t[i].says ? -LWM_ECONFIG : 0);
		assert_true(!t[i].says || strstr(e.msg, t[i].says));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_grows_after_updates_in_a_row),
		cmocka_unit_test(what_an_overflow_is),
		cmocka_unit_test(it_has_ends),
		cmocka_unit_test(only_powers_of_two),
	};

	lwm_log_init("test_scale", LWM_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
