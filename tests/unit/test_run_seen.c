/* When a look at a file says that it is the same, and when it cannot. */
#include "tests/unit/io_fault.h"

#include "common/pipeline/seen.h"

#define SECOND 1000000000LL

static const char *file_of(const char *name, const char *text, int64_t sec, long ns)
{
	const char *path = at(name);
	const struct timespec t[2] = { { sec, ns }, { sec, ns } };
	spill(path, text, strlen(text));
	assert_int_equal(utimensat(AT_FDCWD, path, t, 0), 0);
	return path;
}

/* Tasks of one output; `from` is the stage's way of checking. */
static struct lwm_run_look look(const char *path, int check)
{
	char *v[1] = { (char *)(uintptr_t)path };
	struct lwm_pipe_task t = { .label = "x", .outputs = { v, 1, 1 } };
	struct lwm_run_look l;
	lwm_run_look_at(&t, check, &l);
	return l;
}

/* The time of change is now and has fractions; the time of modification is later, so it counts. */
static void the_grain_of_a_clock(void **state)
{
	int64_t now = lwm_run_wall_time() / SECOND;
	struct lwm_run_look l;
	(void)state;
	l = look(file_of("fine", "x", now + 100, 5), 0);
	assert_int_equal(l.settled, (now + 100) * SECOND + 5 + 20 * 1000 * 1000);
	assert_false(l.coarse);
	l = look(file_of("coarse", "x", now + 100, 0), 0);
	assert_int_equal(l.settled, (now + 102) * SECOND);
	assert_true(l.coarse);
	l = look(file_of("old", "x", now - 100, 5), 0); /* changed just now, whatever its modification says */
	assert_true(l.settled > now * SECOND);
	assert_string_equal(look(at("absent"), 0).hex, "");
}

static void what_makes_a_look_another(void **state)
{
	char was[33];
	(void)state;
	const char *path = file_of("f", "abc", 1000, 7);
	snprintf(was, sizeof was, "%s", look(path, 0).hex);
	assert_string_equal(look(path, 0).hex, was);
	assert_string_not_equal(look(path, 1).hex, was); /* checked in another way */
	file_of("f", "abd", 1000, 7); /* of the same size and time of modification */
	assert_string_not_equal(look(path, 0).hex, was);
}

static void only_what_is_settled_is_noted_down(void **state)
{
	struct lwm_pipeline p = { .out = scratch };
	struct lwm_pipe_task t = { .label = "task" };
	struct lwm_run_seen s;
	struct lwm_run_look l = { .hex = "0123456789abcdef0123456789abcdef", .settled = 50 }, none = { .hex = "" };
	struct lwm_err e = { 0 };
	(void)state;
	must(lwm_mkdirs(at(".lwm-run"), &e), &e);
	must(lwm_run_seen_open(&s, &p, &t, false, &e), &e);
	lwm_run_seen_verified(&s, &l, 49);
	assert_false(lwm_run_seen_whole(&s, &l));
	lwm_run_seen_verified(&s, &l, 50);
	assert_true(lwm_run_seen_whole(&s, &l));
	assert_false(lwm_run_seen_whole(&s, &none));
	lwm_run_seen_close(&s);
	must(lwm_run_seen_open(&s, &p, &t, false, &e), &e);
	assert_true(lwm_run_seen_whole(&s, &l));
	lwm_run_seen_close(&s);
	must(lwm_run_seen_open(&s, &p, &t, true, &e), &e);
	assert_false(lwm_run_seen_whole(&s, &l));
	lwm_run_seen_close(&s);
	static const char other[] = "{\"schema\": \"other\", \"verified\": \"0123456789abcdef0123456789abcdef\"}";
	spill(at(".lwm-run/task.seen.json"), other, strlen(other));
	must(lwm_run_seen_open(&s, &p, &t, false, &e), &e);
	assert_false(lwm_run_seen_whole(&s, &l));
	lwm_run_seen_close(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_grain_of_a_clock),
		cmocka_unit_test(what_makes_a_look_another),
		cmocka_unit_test(only_what_is_settled_is_noted_down),
	};
	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
