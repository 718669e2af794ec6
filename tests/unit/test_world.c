/* Drives as documents: token by token with the byte tokenizer, which actions are told and which dropped, what is refused, and the
 * record beside a clip. */
#include "tests/unit/data_fixture.h"

#include "common/base/outfile.h"
#include "common/data/ingest/clipdoc.h"
#include "common/text/action.h"

enum { BOS = 1, EOS = 2, VOCAB = 259 };
static struct lwm_tokenizer *bytes;

static int setup(void **state)
{
	scratch_make(state);
	return lwm_tokenizer_open(&bytes, "bytes", &err);
}

static int teardown(void **state)
{
	lwm_tokenizer_free(bytes);
	return scratch_remove(state);
}

/* Text form: ^ bos, $ eos, {n} code n; where loss begins and ends: ( and ). */
static const char *show(const struct lwm_docbuf *d)
{
	static struct lwm_str s;
	int64_t r = 0;
	bool loss = false;
	lwm_str_reset(&s);
	for (int64_t i = 0; i < d->ids.n; i++) {
		int32_t id = d->ids.v[i];
		while (r + 1 < d->nruns && d->run[r + 1].start <= i)
			r++;
		if (d->run[r].loss != loss)
			lwm_str_putc(&s, loss ? ')' : '(');
		loss = d->run[r].loss;
		if (id >= VOCAB)
			lwm_str_printf(&s, "{%d}", id - VOCAB);
		else
			lwm_str_putc(&s, id == BOS ? '^' : id == EOS ? '$' : (char)(id - 3));
	}
	lwm_str_puts(&s, loss ? ")" : "");
	return lwm_str_get(&s);
}

struct how {
	const char *fields;
	int64_t max_frames, number;
	uint64_t seed;
	enum lwm_world_actions actions;
	double drop;
};

static int build(const struct how *how, const char *json, struct lwm_docbuf *d)
{
	const char *fields = how->fields ? how->fields : "<|world|>";
	const struct lwm_fields_cfg cfg = { .fields = &fields, .nfields = 1, .index = -1, .frame_codes = 2, .vision_codes = 10,
					    .max_frames = how->max_frames, .seed = how->seed,
					    .world = { how->actions, how->drop } };
	struct lwm_fields *f;
	json_t *o = json_loads(json, 0, NULL);
	assert_non_null(o);
	OK(lwm_fields_open(&f, &cfg, bytes, &err));
	assert_true(lwm_fields_has_vision(f));
	lwm_err_clear(&err);
	int rc = lwm_fields_build(f, o, how->number, d, &err);
	lwm_fields_free(f);
	json_decref(o);
	return rc;
}

static void expect(const struct how *how, const char *json, const char *want)
{
	struct lwm_docbuf d = { 0 };
	if (build(how, json, &d) < 0)
		fail_msg("%s", err.msg);
	assert_string_equal(show(&d), want);
	lwm_docbuf_release(&d);
}

#define THREE "\"vision\": [1, 2, 3, 4, 5, 6]"

static void test_documents(void **state)
{
	static const struct how plain = { 0 }, bracket = { .fields = "[<|world|>]" }, beside = { .fields = "[a],<|world|>,b" };
	(void)state;
	expect(&plain, "{" THREE ", \"actions\": [null, \"left\", {\"cmd\": \"right\"}]}",
	       "^<|world|>({1}{2}{10})<|left|>({3}{4}{10})<|right|>({5}{6}{11}$)");
	expect(&plain, "{" THREE ", \"actions\": [null, null, \"speed=7;stop\"]}",
	       "^<|world|>({1}{2}{10})<|free|>({3}{4}{10})<|stop|><|speed|><|b007|><|b007|><|b007|><|b007|>({5}{6}{11}$)");
	/* one for all, and none */
	expect(&plain, "{" THREE ", \"action\": {\"goal\": [0, 1]}}",
	       "^<|world|>({1}{2}{10})<|goal|><|b000|><|b127|>({3}{4}{10})<|goal|><|b000|><|b127|>({5}{6}{11}$)");
	expect(&plain, "{" THREE "}", "^<|world|>({1}{2}{10})<|free|>({3}{4}{10})<|free|>({5}{6}{11}$)");
	expect(&plain, "{\"vision\": [9, 0], \"actions\": [null]}", "^<|world|>({9}{0}{11}$)");
	expect(&bracket, "{" THREE ", \"action\": \"left\"}", "^<|world|>{1}{2}{10}<|left|>{3}{4}{10}<|left|>{5}{6}{11}($)");
	expect(&beside, "{\"a\": \"x\", \"b\": \"y\", \"vision\": [1, 2, 3, 4], \"action\": \"left\"}",
	       "^x<|world|>({1}{2}{10})<|left|>({3}{4}{11}y$)");
	/* thinned, where no action says how one came to the next */
	struct how thin = { .max_frames = 2 };
	expect(&thin, "{" THREE ", \"action\": \"left\"}", "^<|world|>({1}{2}{10})<|left|>({5}{6}{11}$)");
}

#define EVERY "{\"vision\": [1, 2, 3, 4], \"action\": {\"cmd\": \"left\", \"traj\": [0, 0, 0, 0, 0, 0, 0, 0], \"speed\": [1, 1, 1, 1], " \
	      "\"steer\": [0, 0, 0, 0], \"goal\": [0, 0]}}"
#define BINS4(b) b b b b

static void test_modes(void **state)
{
	static const char *const cmd = "^<|world|>({1}{2}{10})<|left|>({3}{4}{11}$)",
		*const traj = "^<|world|>({1}{2}{10})<|traj|>" BINS4("<|b063|><|b015|>") "({3}{4}{11}$)",
		*const steer = "^<|world|>({1}{2}{10})<|speed|>" BINS4("<|b001|>") "<|steer|>" BINS4("<|b063|>") "({3}{4}{11}$)",
		*const goal = "^<|world|>({1}{2}{10})<|goal|><|b000|><|b000|>({3}{4}{11}$)",
		*const none = "^<|world|>({1}{2}{10})<|free|>({3}{4}{11}$)",
		*const all = "^<|world|>({1}{2}{10})<|left|><|traj|>" BINS4("<|b063|><|b015|>") "<|speed|>" BINS4("<|b001|>") "<|steer|>"
			     BINS4("<|b063|>") "<|goal|><|b000|><|b000|>({3}{4}{11}$)";
	static const struct {
		enum lwm_world_actions actions;
		int64_t number;
		const char *const *want;
	} row[] = {
		{ LWM_WORLD_ALL, 0, &all }, { LWM_WORLD_NONE, 0, &none }, { LWM_WORLD_CMD, 1, &cmd }, { LWM_WORLD_TRAJ, 0, &traj },
		{ LWM_WORLD_STEER, 0, &steer }, { LWM_WORLD_GOAL, 0, &goal },
		{ LWM_WORLD_CYCLE, 0, &cmd }, { LWM_WORLD_CYCLE, 1, &traj }, { LWM_WORLD_CYCLE, 2, &steer },
		{ LWM_WORLD_CYCLE, 3, &goal }, { LWM_WORLD_CYCLE, 4, &cmd },
	};
	(void)state;
	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		expect(&(struct how){ .actions = row[i].actions, .number = row[i].number }, EVERY, *row[i].want);
	/* a mode that the record has not */
	expect(&(struct how){ .actions = LWM_WORLD_GOAL }, "{\"vision\": [1, 2, 3, 4], \"action\": \"left\"}", none);
	for (int i = 0; i < 7; i++)
		assert_non_null(lwm_world_actions_names[i]);
	assert_string_equal(lwm_world_actions_names[LWM_WORLD_CYCLE], "cycle");
	assert_string_equal(lwm_world_actions_names[LWM_WORLD_GOAL], "goal");
	assert_null(lwm_world_actions_names[7]);
}

/* Of 2000 documents 15 % have no actions, others with another seed; all of a document's or none. */
static void test_drop(void **state)
{
	int dropped[2] = { 0 }, both = 0;
	(void)state;
	for (int64_t i = 0; i < 2000; i++) {
		bool gone[2];
		for (int s = 0; s < 2; s++) {
			struct how how = { .number = i, .seed = (uint64_t)s, .drop = 0.15 };
			struct lwm_docbuf d = { 0 };
			OK(build(&how, "{" THREE ", \"actions\": [null, \"left\", \"left\"]}", &d));
			int left = 0;
			for (const char *p = show(&d); (p = strstr(p, "left")); p++)
				left++;
			assert_true(left == 0 || left == 2);
			gone[s] = left == 0;
			dropped[s] += gone[s];
			struct lwm_rng r = lwm_rng_at((uint64_t)s, LWM_RNG_DROP, 0, (uint64_t)i);
			assert_int_equal(gone[s], lwm_rng_double(&r) < 0.15);
			lwm_docbuf_release(&d);
		}
		both += gone[0] && gone[1];
	}
	for (int s = 0; s < 2; s++)
		assert_in_range(dropped[s], 300 - 48, 300 + 48); /* three deviations */
	assert_in_range(both, 20, 75);                           /* 45 of independent draws */
	for (int64_t i = 0; i < 50; i++) {
		expect(&(struct how){ .number = i, .drop = 1 }, "{\"vision\": [1, 2, 3, 4], \"action\": \"left\"}",
		       "^<|world|>({1}{2}{10})<|free|>({3}{4}{11}$)");
		expect(&(struct how){ .number = i }, "{\"vision\": [1, 2, 3, 4], \"action\": \"left\"}",
		       "^<|world|>({1}{2}{10})<|left|>({3}{4}{11}$)");
	}
}

static void test_refused(void **state)
{
	static const struct {
		const char *json, *fault, *says;
		int64_t max_frames;
	} bad[] = {
		{ "{\"actions\": [null]}", "missing key", "no field 'vision'", 0 },
		{ "{\"vision\": [1, 2, 3]}", "bad codes", "no list of codes in whole frames of 2", 0 },
		{ "{\"vision\": [1, 10]}", "bad codes", "vision code", 0 },
		{ "{\"vision\": [1, 2], \"actions\": []}", "bad actions", "for each of the 1 frames, but of 0", 0 },
		{ "{" THREE ", \"actions\": [null, \"left\"]}", "bad actions", "for each of the 3 frames, but of 2", 0 },
		{ "{" THREE ", \"actions\": \"left\"}", "bad actions", "for each of the 3 frames", 0 },
		{ "{" THREE ", \"actions\": [\"left\", \"left\", \"left\"]}", "bad actions", "nothing leads to the first frame", 0 },
		{ "{" THREE ", \"actions\": [null, \"left\", \"up\"]}", "bad actions", "frame 2: action: 'up' is none of", 0 },
		{ "{" THREE ", \"action\": {\"speed\": [1]}}", "bad actions", "frame 1: action: speed has 4 numbers, not 1", 0 },
		{ "{" THREE ", \"action\": {\"command\": \"left\"}}", "bad actions", "'command' is none of cmd, traj", 0 },
		{ "{" THREE ", \"action\": \"left\", \"actions\": [null, null, null]}", "bad actions", "has both", 0 },
		{ "{" THREE ", \"actions\": [null, null, null]}", "bad actions", "3 frames are thinned to 2", 2 },
	};
	struct lwm_fields *f;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		for (int drop = 0; drop < 2; drop++) { /* a bad action is one where it is dropped too */
			struct lwm_docbuf d = { 0 };
			struct how how = { .max_frames = bad[i].max_frames, .drop = drop };
			int rc = build(&how, bad[i].json, &d);
			if (rc != -LWM_EDATA || !d.fault || strcmp(d.fault, bad[i].fault) || !strstr(err.msg, bad[i].says))
				fail_msg("%s: %s: %s", bad[i].json, d.fault ? d.fault : "built", err.msg);
			lwm_docbuf_release(&d);
		}
	lwm_err_clear(&err);
	for (double drop = -0.5; drop < 2; drop += 2) {
		const char *fields = "<|world|>";
		const struct lwm_fields_cfg cfg = { .fields = &fields, .nfields = 1, .index = -1, .world.drop = drop };
		assert_int_equal(lwm_fields_open(&f, &cfg, bytes, &err), -LWM_ECONFIG);
		assert_non_null(strstr(err.msg, "is not in 0..1"));
		lwm_err_clear(&err);
	}
	const char *joined = "<|world|>+a";
	const struct lwm_fields_cfg cfg = { .fields = &joined, .nfields = 1, .index = -1 };
	assert_int_equal(lwm_fields_open(&f, &cfg, bytes, &err), -LWM_ECONFIG);
	lwm_err_clear(&err);
}

/* What lies beside a clip; the way back to codes. */
static void test_clips(void **state)
{
	static const char *const json = "{\"actions\": [null, \"left\"]}";
	const char *fields = "<|world|>";
	const struct lwm_fields_cfg cfg = { .fields = &fields, .nfields = 1, .index = -1, .frame_codes = 2, .vision_codes = 10 };
	int32_t codes[] = { 1, 2, 3, 4 };
	struct lwm_ids ids = { .v = codes, .n = 4 }, back = { 0 };
	struct lwm_docbuf d = { 0 };
	struct lwm_fields *f;
	(void)state;
	OK(lwm_fields_open(&f, &cfg, bytes, &err));
	OK(lwm_write_file(in_scratch("a.json"), json, strlen(json), true, &err));
	OK(lwm_write_file(in_scratch("a.mp4"), "x", 1, true, &err));
	OK(lwm_clip_document(f, in_scratch("a.mp4"), &ids, 0, &d, &err));
	assert_string_equal(show(&d), "^<|world|>({1}{2}{10})<|left|>({3}{4}{11}$)");
	assert_int_equal(d.frames, 2);
	OK(lwm_clip_codes(d.ids.v, d.ids.n, VOCAB, 10, 2, &back, &err));
	assert_int_equal(back.n, 4);
	assert_memory_equal(back.v, codes, sizeof codes);
	OK(lwm_clip_document(f, in_scratch("b.mp4"), &ids, 0, &d, &err));
	assert_string_equal(show(&d), "^<|world|>({1}{2}{10})<|free|>({3}{4}{11}$)");
	ids.n = 2;
	assert_int_equal(lwm_clip_document(f, in_scratch("a.mp4"), &ids, 0, &d, &err), -LWM_EDATA);
	assert_string_equal(d.fault, "bad actions");
	lwm_err_clear(&err);
	lwm_ids_release(&back);
	lwm_docbuf_release(&d);
	lwm_fields_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_documents), cmocka_unit_test(test_modes), cmocka_unit_test(test_drop),
		cmocka_unit_test(test_refused),   cmocka_unit_test(test_clips),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
