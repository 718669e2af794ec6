/* Actions: the table of quantities number by number, words to ids and back with three kinds of tokenizer, texts and records with
 * everything that is refused. */
#include "tests/unit/data_fixture.h"

#include <math.h>

#include "common/base/outfile.h"
#include "common/text/action.h"

enum { LINES = 400 };
static struct lwm_tokenizer *whole, *spelled, *bytes;

static struct lwm_tokenizer *train(const char *name, const char *const *symbols, int64_t n)
{
	const char *in[] = { in_scratch("text.txt") };
	struct lwm_tokenizer_train_cfg how = { .inputs = in, .ninputs = 1, .symbols = symbols, .nsymbols = n, .vocab = 310 + n };
	struct lwm_tokenizer *t;
	OK(lwm_tokenizer_train(&how, in_scratch(name), true, &err));
	OK(lwm_tokenizer_open(&t, in_scratch(name), &err));
	return t;
}

static int setup(void **state)
{
	static char name[LWM_ACTION_WORDS][LWM_ACTION_NAME];
	const char *all[LWM_ACTION_WORDS];
	struct lwm_str text = { 0 };
	if (scratch_make(state))
		return -1;
	for (int i = 0; i < LINES; i++)
		lwm_str_printf(&text, "the car number %d turned left, then right, and drove on\n", i);
	OK(lwm_write_file(in_scratch("text.txt"), text.s, text.len, true, &err));
	lwm_str_release(&text);
	for (int i = 0; i < LWM_ACTION_WORDS; i++)
		all[i] = lwm_action_word(i, name[i]);
	whole = train("whole.model", all, LWM_ACTION_WORDS);
	spelled = train("spelled.model", NULL, 0);
	return lwm_tokenizer_open(&bytes, "bytes", &err);
}

static int teardown(void **state)
{
	lwm_tokenizer_free(whole);
	lwm_tokenizer_free(spelled);
	lwm_tokenizer_free(bytes);
	return scratch_remove(state);
}

static const char *text_of(const struct lwm_tokenizer *t, const struct lwm_ids *ids)
{
	static struct lwm_str s;
	lwm_str_reset(&s);
	for (int64_t i = 0; i < ids->n; i++) {
		size_t n;
		const char *b = lwm_tokenizer_bytes(t, ids->v[i], &n);
		lwm_str_add(&s, b, n);
	}
	return lwm_str_get(&s);
}

static struct lwm_action parsed(const char *text)
{
	struct lwm_action a;
	memset(&a, 0x55, sizeof a);
	OK(lwm_action_parse(&a, text, &err));
	return a;
}

/* Every row of the table in action.h. */
static void test_table(void **state)
{
	static const struct {
		enum lwm_action_mode mode;
		int i, bins;
		double low, high, step;
	} row[] = {
		{ LWM_ACTION_TRAJ, 0, 127, -31.5, 31.5, 0.5 }, { LWM_ACTION_TRAJ, 1, 128, -7.5, 56, 0.5 },
		{ LWM_ACTION_TRAJ, 6, 127, -31.5, 31.5, 0.5 }, { LWM_ACTION_TRAJ, 7, 128, -7.5, 56, 0.5 },
		{ LWM_ACTION_SPEED, 0, 128, 0, 127, 1 },       { LWM_ACTION_SPEED, 3, 128, 0, 127, 1 },
		{ LWM_ACTION_STEER, 0, 127, -1, 1, 1. / 63 },  { LWM_ACTION_STEER, 3, 127, -1, 1, 1. / 63 },
		{ LWM_ACTION_GOAL, 0, 128, 0, 1, 1. / 127 },   { LWM_ACTION_GOAL, 1, 128, 0, 1, 1. / 127 },
	};
	(void)state;
	for (size_t k = 0; k < sizeof row / sizeof *row; k++) {
		assert_int_equal(lwm_action_bins(row[k].mode, row[k].i), row[k].bins);
		assert_true(row[k].bins <= LWM_ACTION_BINS);
		for (int b = 0; b < row[k].bins; b++) {
			double v = lwm_action_value(row[k].mode, row[k].i, b);
			assert_true(fabs(v - (row[k].low + b * row[k].step)) < 1e-9);
			/* the nearest: less than half a step away is the same bin, more is the next */
			double less = fmin(v + 0.49 * row[k].step, row[k].high), more = v + 0.51 * row[k].step;
			assert_int_equal(lwm_action_bin(row[k].mode, row[k].i, fmin(v, row[k].high)), b);
			assert_int_equal(lwm_action_bin(row[k].mode, row[k].i, less), b);
			assert_int_equal(lwm_action_bin(row[k].mode, row[k].i, more), more > row[k].high ? -1 : b + 1);
		}
		assert_int_equal(lwm_action_bin(row[k].mode, row[k].i, row[k].low - 1e-6), -1);
		assert_int_equal(lwm_action_bin(row[k].mode, row[k].i, row[k].high + 1e-6), -1);
		assert_int_equal(lwm_action_bin(row[k].mode, row[k].i, NAN), -1);
	}
	/* straight ahead is a bin of its own */
	assert_true(lwm_action_value(LWM_ACTION_STEER, 0, 63) == 0 && lwm_action_value(LWM_ACTION_TRAJ, 0, 63) == 0);
	assert_true(lwm_action_value(LWM_ACTION_TRAJ, 1, 15) == 0 && lwm_action_value(LWM_ACTION_SPEED, 0, 0) == 0);
	assert_int_equal(lwm_action_numbers(LWM_ACTION_CMD), 0);
	assert_int_equal(lwm_action_numbers(LWM_ACTION_TRAJ), 8);
	assert_int_equal(lwm_action_numbers(LWM_ACTION_GOAL), 2);
}

static void test_words(void **state)
{
	static const char *const first[] = { "<|world|>", "<|free|>", "<|left|>", "<|right|>", "<|straight|>", "<|stop|>",
					     "<|traj|>", "<|speed|>", "<|steer|>", "<|goal|>", "<|b000|>", "<|b001|>" };
	char a[LWM_ACTION_NAME], b[LWM_ACTION_NAME];
	(void)state;
	for (int i = 0; i < 12; i++)
		assert_string_equal(lwm_action_word(i, a), first[i]);
	assert_int_equal(LWM_ACTION_WORDS, 138);
	assert_string_equal(lwm_action_word(137, a), "<|b127|>");
	for (int i = 0; i < LWM_ACTION_WORDS; i++) /* none begins another */
		for (int k = 0; k < LWM_ACTION_WORDS; k++)
			assert_true(i == k || strncmp(lwm_action_word(i, a), lwm_action_word(k, b), strlen(a)));
}

/* text typed, the words it becomes, the text of what these words say */
static const struct {
	const char *typed, *words, *back;
} good[] = {
	{ "left", "<|left|>", "cmd=left" },
	{ " cmd = right ", "<|right|>", "cmd=right" },
	{ "straight", "<|straight|>", "cmd=straight" },
	{ "stop", "<|stop|>", "cmd=stop" },
	{ "free", "<|free|>", "free" },
	{ "speed=30", "<|speed|><|b030|><|b030|><|b030|><|b030|>", "speed=30,30,30,30" },
	{ "speed=0, 126.4,126.6 ,127", "<|speed|><|b000|><|b126|><|b127|><|b127|>", "speed=0,126,127,127" },
	{ "steer=-1,0,0.5,1", "<|steer|><|b000|><|b063|><|b095|><|b126|>", "steer=-1,0,0.507936508,1" },
	{ "traj=-31.5,-7.5,0,0,0.4,4,31.5,56",
	  "<|traj|><|b000|><|b000|><|b063|><|b015|><|b064|><|b023|><|b126|><|b127|>", "traj=-31.5,-7.5,0,0,0.5,4,31.5,56" },
	{ "goal=0,1", "<|goal|><|b000|><|b127|>", "goal=0,1" },
	{ "goal=1,0;left", "<|left|><|goal|><|b127|><|b000|>", "cmd=left;goal=1,0" },
	{ "steer=0; speed=5; stop", "<|stop|><|speed|><|b005|><|b005|><|b005|><|b005|><|steer|><|b063|><|b063|><|b063|><|b063|>",
	  "cmd=stop;speed=5,5,5,5;steer=0,0,0,0" },
};

static void test_round_trips(void **state)
{
	struct lwm_tokenizer *const kinds[] = { whole, spelled, bytes };
	struct lwm_str s = { 0 };
	(void)state;
	for (size_t k = 0; k < sizeof good / sizeof *good; k++)
		for (int t = 0; t < 3; t++) {
			struct lwm_action a = parsed(good[k].typed), b, c;
			struct lwm_ids ids = { 0 };
			int32_t before = 7;
			OK(lwm_ids_add(&ids, &before, 1, &err));
			OK(lwm_action_add(kinds[t], &a, &ids, &err));
			assert_int_equal(ids.v[0], 7);
			ids.v++, ids.n--;
			assert_string_equal(text_of(kinds[t], &ids), good[k].words);
			int64_t words = 0;
			for (const char *p = good[k].words; *p; p++)
				words += *p == '>';
			assert_true(t == 0 ? ids.n == words : ids.n > words);
			OK(lwm_action_take(kinds[t], ids.v, ids.n, &b, &err));
			lwm_str_reset(&s);
			lwm_action_show(&b, &s);
			assert_string_equal(lwm_str_get(&s), good[k].back);
			/* what was shown is read again, and makes the same tokens */
			c = parsed(lwm_str_get(&s));
			struct lwm_ids again = { 0 };
			OK(lwm_action_add(kinds[t], &c, &again, &err));
			assert_int_equal(again.n, ids.n);
			assert_memory_equal(again.v, ids.v, (size_t)ids.n * sizeof *ids.v);
			/* less or more than an action is none */
			for (int64_t n = 0; n < ids.n && !strchr(good[k].back, ';'); n++) {
				assert_int_equal(lwm_action_take(kinds[t], ids.v, n, &b, &err), -LWM_EDATA);
				lwm_err_clear(&err);
			}
			OK(lwm_ids_add(&again, again.v, 1, &err));
			assert_int_equal(lwm_action_take(kinds[t], again.v, again.n, &b, &err), -LWM_EDATA);
			lwm_err_clear(&err);
			lwm_ids_release(&again);
			ids.v--;
			lwm_ids_release(&ids);
		}
	lwm_str_release(&s);
}

/* Every bin of every number comes back as itself. */
static void test_every_bin(void **state)
{
	(void)state;
	for (int m = 1; m < LWM_ACTION_MODES; m++)
		for (int b = 0; b < LWM_ACTION_BINS; b++) {
			struct lwm_action a = { .has = LWM_ACTION_BIT(m) }, got;
			struct lwm_ids ids = { 0 };
			enum lwm_action_mode mode = (enum lwm_action_mode)m;
			double *const of[] = { NULL, a.traj, a.speed, a.steer, a.goal }, *v = of[m];
			const double *const out[] = { NULL, got.traj, got.speed, got.steer, got.goal }, *w = out[m];
			int n = lwm_action_numbers(mode);
			for (int i = 0; i < n; i++)
				v[i] = lwm_action_value(mode, i, (b + i) % lwm_action_bins(mode, i));
			OK(lwm_action_add(whole, &a, &ids, &err));
			assert_int_equal(ids.n, n + 1);
			OK(lwm_action_take(whole, ids.v, ids.n, &got, &err));
			assert_int_equal(got.has, a.has);
			assert_memory_equal(w, v, (size_t)n * sizeof *v);
			lwm_ids_release(&ids);
		}
}

static void test_refused_texts(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{ "", "'' is none of left" },
		{ "lefft", "(did you mean 'left'?)" },
		{ "Left", "'Left' is none of" },
		{ "cmd=up", "'up' is none of left, right, straight, stop" },
		{ "cmd=", "'' is none of left" },
		{ "speeds=3", "(did you mean 'speed'?)" },
		{ "speed", "'speed' is none of" },
		{ "speed=", "'' is not a number" },
		{ "speed=fast", "speed: 'fast' is not a number" },
		{ "speed=3 4", "'3 4' is not a number" },
		{ "speed=nan", "'nan' is not a number" },
		{ "speed=1,2,3", "speed has 4 numbers, not 3" },
		{ "speed=1,2,3,4,5", "speed has 4 numbers, not 5" },
		{ "speed=127.6", "speed 127.6 is not in 0..127" },
		{ "speed=-1", "speed -1 is not in 0..127" },
		{ "steer=1.1", "steer 1.1 is not in -1..1" },
		{ "traj=1,2", "traj has 8 numbers, not 2" },
		{ "traj=1,2,3,4,5,6,7,8,9", "traj has 8 numbers, not 9" },
		{ "traj=40,0,0,0,0,0,0,0", "traj x 40 is not in -31.5..31.5" },
		{ "traj=0,-8,0,0,0,0,0,0", "traj y -8 is not in -7.5..56" },
		{ "goal=0.5", "goal has 2 numbers, not 1" },
		{ "goal=0.5,1.01", "goal y 1.01 is not in 0..1" },
		{ "left;right", "cmd is given twice" },
		{ "speed=1;speed=2", "speed is given twice" },
		{ "left;", "'' is none of" },
		{ "free;left", "free is no action, and stands alone" },
		{ "left;free", "free is no action, and stands alone" },
		{ "free=1", "'free' is none of" },
	};
	char longer[2048];
	(void)state;
	for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
		struct lwm_action a = parsed("steer=0.25"), was = a;
		lwm_err_clear(&err);
		if (lwm_action_parse(&a, bad[k].text, &err) != -LWM_EUSAGE || !strstr(err.msg, bad[k].why))
			fail_msg("'%s': '%s', not '%s'", bad[k].text, err.msg, bad[k].why);
		assert_memory_equal(&a, &was, sizeof a);
	}
	memset(longer, '1', sizeof longer);
	longer[sizeof longer - 1] = 0;
	struct lwm_action a;
	lwm_err_clear(&err);
	assert_int_equal(lwm_action_parse(&a, longer, &err), -LWM_EUSAGE);
	assert_non_null(strstr(err.msg, "is longer than"));
	lwm_err_clear(&err);
}

static int read_json(struct lwm_action *a, const char *json)
{
	json_t *v = json_loads(json, JSON_DECODE_ANY, NULL);
	assert_non_null(v);
	int rc = lwm_action_read(a, v, &err);
	json_decref(v);
	return rc;
}

static void test_records(void **state)
{
	static const struct {
		const char *json, *shown, *written;
	} fine[] = {
		{ "null", "free", "null" },
		{ "{}", "free", "null" },
		{ "\"left\"", "cmd=left", "{\"cmd\": \"left\"}" },
		{ "{\"cmd\": \"stop\"}", "cmd=stop", "{\"cmd\": \"stop\"}" },
		{ "{\"goal\": [0.25, 1], \"cmd\": \"right\"}", "cmd=right;goal=0.25,1", "{\"cmd\": \"right\", \"goal\": [0.25, 1]}" },
		{ "{\"speed\": [1, 2, 3, 4.5]}", "speed=1,2,3,4.5", "{\"speed\": [1, 2, 3, 4.5]}" },
		{ "{\"steer\": [-0.5, 0, 0, 0.125]}", "steer=-0.5,0,0,0.125", "{\"steer\": [-0.5, 0, 0, 0.125]}" },
		{ "{\"traj\": [0, 1, 2, 3, 4, 5, 6, 7]}", "traj=0,1,2,3,4,5,6,7", "{\"traj\": [0, 1, 2, 3, 4, 5, 6, 7]}" },
	};
	static const struct {
		const char *json, *why;
	} bad[] = {
		{ "3", "neither null nor a text nor an object" },
		{ "[1]", "neither null nor a text nor an object" },
		{ "\"up\"", "'up' is none of left" },
		{ "{\"command\": \"left\"}", "'command' is none of cmd, traj, speed, steer, goal" },
		{ "{\"cmd\": 1}", "cmd is not a string" },
		{ "{\"cmd\": \"up\"}", "'up' is none of left" },
		{ "{\"speed\": 3}", "speed is no list of 4 numbers" },
		{ "{\"speed\": [1, 2]}", "speed has 4 numbers, not 2" },
		{ "{\"speed\": [1, 2, 3, \"4\"]}", "speed: value 3 is not a number" },
		{ "{\"traj\": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}", "traj is no list of 8 numbers" },
		{ "{\"goal\": [800, 450]}", "goal x 800 is not in 0..1" },
	};
	struct lwm_str s = { 0 };
	(void)state;
	for (size_t k = 0; k < sizeof fine / sizeof *fine; k++) {
		struct lwm_action a, b;
		OK(read_json(&a, fine[k].json));
		lwm_str_reset(&s);
		lwm_action_show(&a, &s);
		assert_string_equal(lwm_str_get(&s), fine[k].shown);
		lwm_str_reset(&s);
		lwm_action_write(&a, &s);
		assert_string_equal(lwm_str_get(&s), fine[k].written);
		OK(read_json(&b, lwm_str_get(&s)));
		assert_memory_equal(&a, &b, sizeof a);
	}
	for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
		struct lwm_action a;
		lwm_err_clear(&err);
		if (read_json(&a, bad[k].json) != -LWM_EDATA || !strstr(err.msg, bad[k].why))
			fail_msg("%s: '%s', not '%s'", bad[k].json, err.msg, bad[k].why);
	}
	lwm_err_clear(&err);
	lwm_str_release(&s);
}

/* Tokens that are no action: another order, a bin a quantity has not, words of other things, nothing. */
static void test_refused_tokens(void **state)
{
	static const char *const bad[] = {
		"", "left", "<|world|>", "<|b000|>", "<|free|><|left|>", "<|left|><|free|>", "<|left|><|right|>", "<|left|> ",
		"<|goal|><|b000|><|b000|><|left|>", "<|goal|><|b000|>", "<|goal|><|b000|><|b000|><|b000|>",
		"<|steer|><|b000|><|b000|><|b000|><|b127|>", "<|speed|><|b000|><|speed|><|b000|><|b000|>",
	};
	struct lwm_action a = parsed("left"), out = { .has = LWM_ACTION_BIT(LWM_ACTION_SPEED), .speed = { 1, 2, 3, 200 } };
	struct lwm_ids ids = { 0 };
	(void)state;
	for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
		ids.n = 0;
		OK(lwm_tokenizer_encode_rest(bytes, bad[k], strlen(bad[k]), &ids, &err));
		if (lwm_action_take(bytes, ids.v, ids.n, &a, &err) != -LWM_EDATA || a.has != 1 || a.cmd != LWM_CMD_LEFT)
			fail_msg("%s was taken", bad[k]);
		lwm_err_clear(&err);
	}
	/* what cannot be said adds nothing */
	ids.n = 0;
	assert_int_equal(lwm_action_add(whole, &out, &ids, &err), -LWM_EDATA);
	assert_non_null(strstr(err.msg, "speed 200 is not in 0..127"));
	assert_int_equal(ids.n, 0);
	lwm_err_clear(&err);
	OK(lwm_action_add_world(whole, &ids, &err));
	assert_int_equal(ids.n, 1);
	assert_string_equal(text_of(whole, &ids), "<|world|>");
	lwm_ids_release(&ids);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),         cmocka_unit_test(test_words),   cmocka_unit_test(test_round_trips),
		cmocka_unit_test(test_every_bin),     cmocka_unit_test(test_refused_texts), cmocka_unit_test(test_records),
		cmocka_unit_test(test_refused_tokens),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
