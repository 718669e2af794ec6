/* What lwm-status says of a run: the ledger against sums made by hand, the state for every combination of signs, hosts, texts. */
#include "tests/unit/eval_fixture.h"

#include "common/eval/run_status.h"

static void near(double a, double b)
{
	if (!(fabs(a - b) < 1e-9))
		fail_msg("%.12g instead of %.12g", a, b);
}

static void is_ledger(const struct lwm_run_ledger *l, const double want[LWM_LEDGER_PARTS], double total)
{
	double sum = 0;
	for (int p = 0; p < LWM_LEDGER_PARTS; p++) {
		if (!(fabs(l->seconds[p] - want[p]) < 1e-9))
			fail_msg("%s: %.12g instead of %.12g", lwm_ledger_names[p], l->seconds[p], want[p]);
		sum += l->seconds[p];
	}
	near(l->total, total);
	near(sum, total);
}

/* Three runs. The first starts at 1000, is loaded at 1010, saves for 4 s and 6 s and is killed; its last line is of 1100. The
 * second starts at 1130, is loaded at 1145, computes 3 steps of 7 s again, saves for 5 s, and is asked to end at 1245. The third
 * starts at 1250, is loaded at 1252, and works until 1300. Steps that count took 150 s.
 *	starting 10 + 15 + 2 = 27; gaps (1130 - 1100) + (1250 - 1245) = 35; saving 15; lost 7; useful 150
 *	of 1300 - 1000 = 300 are left for the rest: 300 - 27 - 35 - 15 - 7 - 150 = 66 */
static const char *const three =
	"{\"event\":\"begin\",\"time\":1010,\"began\":1000,\"step\":0,\"steps\":50,"
	"\"ranks\":2,\"hosts\":[[\"a\",1],[\"b\",1]],\"lost_steps\":0,"
	"\"lost_seconds\":0,\"ended\":0}\n"
	"{\"event\":\"save\",\"time\":1050,\"step\":10,\"seconds\":4}\n"
	"{\"event\":\"save\",\"time\":1090,\"step\":20,\"seconds\":6}\n"
	"{\"event\":\"begin\",\"time\":1145,\"began\":1130,\"step\":20,\"steps\":50,"
	"\"ranks\":2,\"hosts\":[[\"a\",1],[\"b\",1]],\"lost_steps\":3,"
	"\"lost_seconds\":7,\"ended\":1100,\"job\":\"12\",\"cwd\":\"/w\",\"command\":[\"x\",\"y z\"]}\n"
	"{\"event\":\"save\",\"time\":1240,\"step\":30,\"seconds\":5}\n"
	"{\"event\":\"end\",\"time\":1245,\"step\":30,\"code\":75,\"why\":\"time limit\"}\n"
	"{\"event\":\"begin\",\"time\":1252,\"began\":1250,\"step\":30,\"steps\":50,"
	"\"ranks\":2,\"hosts\":[[\"a\",1],[\"c\",1]],\"lost_steps\":0,"
	"\"lost_seconds\":0,\"ended\":1245,\"cwd\":\"/w\",\"command\":[\"x\",\"y z\"]}\n"
	"{\"event\":\"save\",\"ti";

static void test_ledger(void **state)
{
	static const double want[] = { 150, 7, 15, 27, 35, 66 }, idle[] = { 150, 7, 15, 27, 35, 0 };
	struct lwm_run_history h;
	struct lwm_run_ledger l;
	(void)state;
	fx_write("history.jsonl", three);
	OK(lwm_run_history_read(&h, fx_root, err));
	assert_int_equal(h.n, 3);
	assert_int_equal(h.bad, 0);
	near(h.last, 1252);
	near(h.v[0].over, 1100);
	assert_false(h.v[0].ended);
	assert_true(h.v[1].ended);
	assert_int_equal(h.v[1].code, 75);
	assert_string_equal(h.v[1].why, "time limit");
	assert_string_equal(h.v[1].job, "12");
	assert_string_equal(h.v[2].job, "");
	assert_int_equal(h.v[1].lost_steps, 3);
	assert_int_equal(h.v[1].reached, 30);
	assert_int_equal(json_array_size(h.command), 2);
	lwm_run_ledger_make(&l, &h, 150, 1300);
	is_ledger(&l, want, 300);
	/* clocks that differ: the parts come to more than the wall clock, and then the total is theirs */
	lwm_run_ledger_make(&l, &h, 150, 1200);
	is_ledger(&l, idle, 234);
	/* a start that seems to be before the end of the run before is no gap of less than nothing */
	h.v[2].began = 1240;
	lwm_run_ledger_make(&l, &h, 150, 1300);
	near(l.seconds[LWM_LEDGER_GAPS], 30);
	near(l.seconds[LWM_LEDGER_STARTING], 37);
	lwm_run_history_release(&h);
	lwm_run_ledger_make(&l, &h, 150, 1300); /* no runs: nothing is known */
	near(l.total, 0);
}

/* Killed after a save: the save is the last sign when metrics.jsonl said nothing later. */
static void test_last_sign(void **state)
{
	struct lwm_run_history h;
	struct lwm_run_ledger l;
	(void)state;
	fx_write("history.jsonl", "rubbish\n{\"event\":\"save\",\"time\":1,\"step\":1,\"seconds\":1}\n"
				  "{\"event\":\"begin\",\"time\":10,\"began\":5,\"step\":0,\"steps\":9,\"ended\":0}\n"
				  "{\"event\":\"save\",\"time\":60,\"step\":3,\"seconds\":2}\n"
				  "{\"event\":\"begin\",\"time\":90,\"began\":80,\"step\":3,\"steps\":9,\"ended\":40}\n");
	OK(lwm_run_history_read(&h, fx_root, err));
	assert_int_equal(h.n, 2);
	assert_int_equal(h.bad, 1);
	near(h.v[0].over, 60);
	lwm_run_ledger_make(&l, &h, 30, 100);
	near(l.seconds[LWM_LEDGER_GAPS], 20);
	lwm_run_history_release(&h);
}

static void test_states(void **state)
{
	static const struct {
		struct lwm_run_signs s;
		enum lwm_run_state want;
	} table[] = {
		{ { .lock = LWM_LOCK_HELD, .silent = 9, .patience = 10 }, LWM_RUN_RUNNING },
		{ { .lock = LWM_LOCK_HELD, .silent = 11, .patience = 10 }, LWM_RUN_SILENT },
		{ { .lock = LWM_LOCK_HELD, .complete = true, .ended = true, .patience = 10 }, LWM_RUN_RUNNING },
		{ { .lock = LWM_LOCK_HELD, .stop_file = true, .patience = 10 }, LWM_RUN_RUNNING },
		{ { .lock = LWM_LOCK_UNSEEN, .silent = 9, .patience = 10 }, LWM_RUN_RUNNING },
		{ { .lock = LWM_LOCK_UNSEEN, .silent = 11, .patience = 10 }, LWM_RUN_SILENT },
		{ { .lock = LWM_LOCK_UNSEEN, .ended = true, .code = 75 }, LWM_RUN_SAVED },
		{ { .complete = true, .ended = true }, LWM_RUN_COMPLETE },
		{ { .complete = true, .ended = true, .stop_file = true }, LWM_RUN_COMPLETE },
		{ { .stop_file = true, .ended = true }, LWM_RUN_STOPPED },
		{ { .stop_file = true }, LWM_RUN_STOPPED },
		{ { .silent = 1, .patience = 10 }, LWM_RUN_DEAD },
		{ { .ended = true }, LWM_RUN_SAVED },
		{ { .ended = true, .code = 75 }, LWM_RUN_SAVED },
		{ { .ended = true, .code = 79 }, LWM_RUN_DIVERGED },
		{ { .ended = true, .code = 79, .blames = true }, LWM_RUN_FAILED },
		{ { .ended = true, .code = 74 }, LWM_RUN_FAILED },
		{ { .ended = true, .code = 76 }, LWM_RUN_FAILED },
	};
	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (lwm_run_judge(&table[i].s) != table[i].want)
			fail_msg("row %zu is %s instead of %s", i, lwm_run_states[lwm_run_judge(&table[i].s)],
				 lwm_run_states[table[i].want]);
}

static void is_hosts(const char *history, bool running, const char *want)
{
	struct lwm_run_history h;
	fx_write("history.jsonl", history);
	OK(lwm_run_history_read(&h, fx_root, err));
	json_t *list = lwm_run_suspicious_hosts(&h, running);
	char *text = json_dumps(list, JSON_COMPACT | JSON_SORT_KEYS);
	assert_string_equal(text, want);
	free(text);
	json_decref(list);
	lwm_run_history_release(&h);
}

#define RUN(hosts) "{\"event\":\"begin\",\"time\":2,\"began\":1,\"step\":0,\"steps\":9,\"hosts\":[" hosts "]}\n"
#define END(code) "{\"event\":\"end\",\"time\":3,\"step\":1,\"code\":" code ",\"why\":\"\"}\n"

static void test_hosts(void **state)
{
	static const char *const b = "[{\"attempts\":2,\"host\":\"b\",\"suspect\":2}]";
	(void)state;
	/* b was in both that were lost, a in those and in one that went well */
	is_hosts(RUN("[\"a\",4],[\"b\",4]") RUN("[\"b\",4],[\"a\",4]") END("76") RUN("[\"a\",4],[\"c\",4]") END("75"), false, b);
	/* all on the same hosts: nothing can be told */
	is_hosts(RUN("[\"a\",4],[\"b\",4]") RUN("[\"a\",4],[\"b\",4]") RUN("[\"a\",4],[\"b\",4]") END("0"), false, "[]");
	/* b no more than others */
	is_hosts(RUN("[\"a\",4]") RUN("[\"b\",4]") RUN("[\"a\",4]") RUN("[\"b\",4]"), false, "[]");
	/* once is chance, and what the user or the numbers ended is no machine's doing */
	is_hosts(RUN("[\"b\",4]") RUN("[\"a\",4]") END("75"), false, "[]");
	is_hosts(RUN("[\"b\",4]") END("79") RUN("[\"b\",4]") END("78") RUN("[\"a\",4]") END("75"), false, "[]");
	/* the one that runs has not failed */
	is_hosts(RUN("[\"a\",4]") END("0") RUN("[\"b\",4]") RUN("[\"b\",4]"), true, "[]");
	is_hosts(RUN("[\"a\",4]") END("0") RUN("[\"b\",4]") RUN("[\"b\",4]"), false, b);
	is_hosts(RUN("7,[],[3,\"x\"],{\"a\":1}"), false, "[]");
}

#define OF4 "{\"event\":\"begin\",\"time\":2,\"began\":1,\"step\":0,\"steps\":9,\"ranks\":4,\"hosts\":[[\"a\",1],[\"b\",2],[\"c\",1]]}\n"
#define WORDS(rank, waited) "{\"event\":\"end\",\"time\":3,\"step\":5,\"code\":76,\"why\":\"rank " rank "\",\"rank\":" rank \
	",\"host\":\"h" rank "\",\"section\":\"step\",\"waited\":" waited "}\n"
#define OTHERS "{\"event\":\"end\",\"time\":3,\"step\":5,\"code\":79,\"why\":\"w\",\"rank\":2,\"host\":\"b\"}\n"

/* Who is to blame, by what the watchdogs of several ranks wrote. */
static void test_blame(void **state)
{
	static const struct {
		const char *history, *why, *host;
		int rank;
		const char *hosts;
	} table[] = {
		{ OF4 WORDS("1", "false"), "rank 1", "h1", 1, "[{\"attempts\":0,\"host\":\"h1\",\"named\":1}]" },
		/* the one that did not wait, whoever wrote first */
		{ OF4 WORDS("0", "true") WORDS("3", "false") WORDS("2", "true"), "rank 3", "h3", 3,
		  "[{\"attempts\":0,\"host\":\"h3\",\"named\":1}]" },
		/* all waited but one */
		{ OF4 WORDS("0", "true") WORDS("3", "true") WORDS("1", "true"), "rank 0; nothing was heard of rank 2 on b", "b", 2,
		  "[{\"attempts\":1,\"host\":\"b\",\"named\":1}]" },
		{ OF4 WORDS("1", "true") WORDS("2", "true"), "rank 1; nothing was heard of rank 0 on a and 1 more", "a", 0,
		  "[{\"attempts\":1,\"host\":\"a\",\"named\":1}]" },
		/* too few spoke to say anything of the others; or all of them, and the same one twice */
		{ OF4 WORDS("1", "true"), "rank 1", "", -1, "[]" },
		{ OF4 WORDS("1", "true") WORDS("1", "true"), "rank 1", "", -1, "[]" },
		{ OF4 WORDS("1", "true") WORDS("0", "true") WORDS("2", "true") WORDS("3", "true"), "rank 1", "", -1, "[]" },
		{ OF4 WORDS("1", "true") WORDS("70000000000", "true"), "rank 1", "", -1, "[]" },
		/* weights that are not those of other ranks */
		{ OF4 OTHERS, "w", "b", 2, "[{\"attempts\":1,\"host\":\"b\",\"named\":1}]" },
		{ OF4 END("79"), "", "", -1, "[]" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
		struct lwm_run_history h;
		fx_write("history.jsonl", table[i].history);
		OK(lwm_run_history_read(&h, fx_root, err));
		assert_int_equal(h.n, 1);
		assert_true(h.v[0].ended);
		assert_string_equal(h.v[0].why, table[i].why);
		assert_string_equal(h.v[0].host, table[i].host);
		assert_int_equal(h.v[0].rank, table[i].rank);
		lwm_run_history_release(&h);
		is_hosts(table[i].history, false, table[i].hosts);
	}
}

static void is_bars(const double *v, int64_t n, int width, const char *want)
{
	struct lwm_str s = { 0 };
	lwm_plot_bars(&s, v, n, width);
	assert_string_equal(lwm_str_get(&s), want);
	lwm_str_release(&s);
}

static void test_texts(void **state)
{
	static const struct { double v; const char *age; } ages[] = { { 0, "0.0 s" }, { 9.94, "9.9 s" }, { 9.96, "10 s" },
		{ 119.4, "119 s" },
		{ 120, "2 min" }, { 7199, "119 min" }, { 7200, "2 h 00 min" }, { 11100, "3 h 05 min" }, { 172800, "2 d 0 h" },
		{ 187200, "2 d 4 h" } };
	static const double ramp[] = { 1, 2, 3, 4, 5, 6, 7, 8 }, flat[] = { 2, 2 }, gap[] = { 1, NAN, 2, INFINITY };
	char buf[32];
	(void)state;
	for (size_t i = 0; i < sizeof ages / sizeof *ages; i++)
		assert_string_equal(lwm_age_text(ages[i].v, buf, sizeof buf), ages[i].age);
	is_bars(ramp, 8, 60, "▁▂▃▄▅▆▇█");
	is_bars(ramp, 8, 2, "▁█");
	is_bars(flat, 2, 60, "▄▄");
	is_bars(gap, 4, 60, "▁ █ ");
	is_bars(NULL, 0, 60, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_ledger), cmocka_unit_test(test_last_sign),
					    cmocka_unit_test(test_states), cmocka_unit_test(test_hosts),
					    cmocka_unit_test(test_blame),  cmocka_unit_test(test_texts) };
	return cmocka_run_group_tests(tests, fx_set_up, fx_tear_down);
}
