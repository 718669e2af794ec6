/* Conversations: what the context holds after each turn, files of them, and which answers count as right. */
#include "tests/unit/eval_fixture.h"
#include "tests/unit/llama_fixture.h"

#include "common/eval/dialogue.h"

enum { BOS = 1, EOS = 2, MOST = 40, CONTEXT = 700 };
static struct lwm_llama_cfg cfg;
static float *weights, *parrot;
static struct lk_dev *dev;
static struct lwm_tokenizer *tok;

static int set_up(void **state)
{
	int64_t total;
	if (fx_set_up(state))
		return 1;
	cfg = tiny_cfg();
	cfg.vocab_text = 259; /* bytes */
	cfg.vision_rows = cfg.vision_codes = 0;
	cfg.max_seq = 1024;
	cfg.dim = 272;
	cfg.heads = 4;
	weights = weights_new(&cfg, &total);
	parrot = parrot_new(&cfg, 'y' + 3, EOS);
	dev = device("cpu", 1);
	tok = fx_tokenizer(false);
	return 0;
}

static int tear_down(void **state)
{
	free(weights);
	free(parrot);
	lk_dev_close(dev);
	lwm_tokenizer_free(tok);
	return fx_tear_down(state);
}

static struct lwm_generate writer(const float *w, double temperature)
{
	struct lwm_generate x = { .tok = tok, .sampler = { temperature, 0, 1, 5 }, .most = MOST };
	OK(lwm_engine_new(&x.g, dev, &cfg, w, 16, 1, err));
	return x;
}

static int keep(void *arg, int32_t id, double logprob, struct lwm_err *e)
{
	(void)logprob;
	return lwm_ids_add(arg, &id, 1, e);
}

static void add(struct lwm_ids *ids, const char *text)
{
	OK(lwm_tokenizer_encode(tok, text, strlen(text), ids, err));
}

static void add_id(struct lwm_ids *ids, int32_t id)
{
	OK(lwm_ids_add(ids, &id, 1, err));
}

/* Each answer is that to the whole conversation so far, fed at once; the one before it ended by </s> or by its length. */
static void test_turns_are_one_context(void **state)
{
	(void)state;
	int by_mark = 0, by_length = 0;
	for (uint64_t k = 0; k < 12; k++) {
		struct lwm_generate w = writer(weights, 8);
		struct lwm_dialogue *d;
		struct lwm_ids whole = { 0 };
		OK(lwm_dialogue_new(&d, &w, CONTEXT, false, err));
		if (k % 2) { /* of one before it nothing is left */
			struct lwm_ids other = { 0 };
			OK(lwm_dialogue_ask(d, "before", 99, keep, &other, NULL, err));
			lwm_ids_release(&other);
			lwm_dialogue_begin(d, "Sys.");
		}
		add_id(&whole, BOS);
		for (int turn = 0; turn < 4; turn++) {
			static const char *const q[] = { "USER: one ASSISTANT:", "USER: two ASSISTANT:", "USER: three ASSISTANT:",
							 "USER: four ASSISTANT:" };
			static const char *const ask[] = { "one", "two", "three", "four" };
			struct lwm_ids said = { 0 }, want = { 0 };
			char first[80];
			bool finished, ended;
			snprintf(first, sizeof first, "%s %s", k % 2 ? "Sys." : "You are a helpful assistant.", q[0]);
			if (turn)
				add_id(&whole, EOS);
			add(&whole, turn ? q[turn] : first);
			/* the number of an answer is part of its draws: sought until one of either end was seen */
			OK(lwm_dialogue_ask(d, ask[turn], 100 * k + (uint64_t)turn, keep, &said, &finished, err));
			OK(lwm_generate_text(&w, whole.v, whole.n, 100 * k + (uint64_t)turn, &want, &ended, err));
			assert_int_equal(said.n, want.n);
			assert_memory_equal(said.v, want.v, (size_t)said.n * sizeof *said.v);
			assert_int_equal(finished, ended);
			*(finished ? &by_mark : &by_length) += turn < 3;
			OK(lwm_ids_add(&whole, said.v, said.n, err));
			/* the last one drawn is fed with the next question */
			assert_int_equal(lwm_dialogue_length(d), whole.n - !finished);
			lwm_ids_release(&said);
			lwm_ids_release(&want);
		}
		lwm_ids_release(&whole);
		lwm_dialogue_free(d);
		lwm_engine_free(w.g);
	}
	assert_true(by_mark > 2 && by_length > 2);
}

static void test_a_context_ends(void **state)
{
	(void)state;
	struct lwm_generate w = writer(parrot, 0);
	struct lwm_dialogue *d;
	struct lwm_ids said = { 0 };
	OK(lwm_dialogue_new(&d, &w, 40, true, err));
	OK(lwm_dialogue_ask(d, "0123456789012345678901234567890123456", 0, keep, &said, NULL, err)); /* <s> and 37 */
	assert_int_equal(lwm_dialogue_length(d), 39);
	FAILS(lwm_dialogue_ask(d, "", 0, keep, &said, NULL, err), LWM_ECONFIG, "fills the context of 40 tokens");
	lwm_dialogue_begin(d, NULL);
	OK(lwm_dialogue_ask(d, "again", 0, keep, &said, NULL, err));
	assert_int_equal(lwm_dialogue_length(d), 1 + 5 + 1);
	lwm_ids_release(&said);
	lwm_dialogue_free(d);
	lwm_engine_free(w.g);
}

/* ---- many prompts side by side ---- */

enum { PROMPTS = 21 };
struct asked {
	struct lwm_ids said[PROMPTS];
	bool finished[PROMPTS], heard[PROMPTS];
};

static int give_prompt(void *user, int64_t i, struct lwm_ids *ids, uint64_t *sample, struct lwm_err *e)
{
	(void)user;
	*sample = 1000 + (uint64_t)i * 7;
	for (int32_t k = 0; k < 1 + i * 5 % 37; k++) { /* of ragged lengths, in chunks of 16 */
		int32_t id = k ? 3 + (int32_t)((k * 31 + i * 17) % 250) : BOS;
		LWM_TRY(lwm_ids_add(ids, &id, 1, e));
	}
	return 0;
}

static int take_answer(void *user, int64_t i, const struct lwm_ids *said, bool finished, struct lwm_err *e)
{
	struct asked *x = user;
	assert_false(x->heard[i]);
	x->heard[i] = true;
	x->finished[i] = finished;
	return lwm_ids_add(&x->said[i], said->v, said->n, e);
}

/* Every answer is the one that its prompt gets alone, however many streams there are, and in whatever places of a batch they go. */
static void test_side_by_side(void **state)
{
	(void)state;
	static const int64_t streams[] = { 1, 2, 5, 16, 19, 40 };
	int ended = 0;
	for (size_t k = 0; k < sizeof streams / sizeof *streams; k++) {
		struct lwm_generate w = { .tok = tok, .sampler = { 8, 0, 1, 5 }, .most = MOST };
		struct asked x = { 0 };
		struct lwm_prompts p = { give_prompt, take_answer, &x, PROMPTS, 37 };
		OK(lwm_engine_new(&w.g, dev, &cfg, weights, 16, streams[k], err));
		OK(lwm_generate_texts(&w, &p, streams[k], err));
		for (int64_t i = 0; i < PROMPTS; i++) {
			struct lwm_ids ids = { 0 }, want = { 0 };
			uint64_t sample;
			bool finished;
			OK(give_prompt(NULL, i, &ids, &sample, err));
			OK(lwm_generate_text(&w, ids.v, ids.n, sample, &want, &finished, err));
			assert_true(x.heard[i]);
			assert_int_equal(x.said[i].n, want.n);
			assert_true(!want.n || !memcmp(x.said[i].v, want.v, (size_t)want.n * sizeof *want.v));
			assert_int_equal(x.finished[i], finished);
			ended += finished;
			lwm_ids_release(&ids);
			lwm_ids_release(&want);
			lwm_ids_release(&x.said[i]);
		}
		lwm_engine_free(w.g);
	}
	assert_true(ended > 5);
}

/* ---- files ---- */

struct seen {
	struct lwm_str text;
	int stop_at;
};

static int see(void *arg, const struct lwm_dialogue_turn *t, struct lwm_err *e)
{
	struct seen *s = arg;
	lwm_str_printf(&s->text, "%d.%d %s=%s/%s:%d ", (int)t->dialogue, (int)t->turn, t->question, t->said,
		       t->expected ? t->expected : "-", t->right);
	return s->stop_at && t->turn + 1 == s->stop_at ? lwm_fail(e, LWM_EIO, "enough") : 0;
}

/* A model that says y; most: tokens of an answer. */
static int hold(const char *name, const char *text, int64_t most, struct seen *s, struct lwm_dialogue_scores *scores,
		struct lwm_err *e)
{
	struct lwm_generate w = writer(parrot, 0);
	struct lwm_dialogue *d;
	w.most = most;
	OK(lwm_dialogue_new(&d, &w, CONTEXT, false, err));
	lwm_str_reset(&s->text);
	int rc = lwm_dialogue_hold(d, fx_write(name, text), see, s, scores, e);
	lwm_dialogue_free(d);
	lwm_engine_free(w.g);
	return rc;
}

static void test_files(void **state)
{
	(void)state;
	static const char two[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \" y\\n\"},"
				  "{\"role\": \"user\", \"content\": \"b\"}, {\"role\": \"assistant\", \"content\": \"Y\"}]}";
	struct lwm_dialogue_scores sc = { 0 };
	struct seen s = { 0 };
	char text[600];
	snprintf(text, sizeof text, "%s\n\n{\"data\": [\"c\", \"y\", \"d\"]}\n[\"e\", \"f\"]\n", two);
	OK(hold("d.jsonl", text, MOST, &s, &sc, err));
	assert_string_equal(s.text.s, "0.0 a=y/y:1 0.1 b=y/Y:0 1.0 c=y/y:1 1.1 d=y/-:0 2.0 e=y/-:0 2.1 f=y/-:0 ");
	assert_true(sc.dialogues == 3 && sc.asked[0] == 2 && sc.right[0] == 2 && sc.asked[1] == 1 && sc.right[1] == 0);
	snprintf(text, sizeof text, "[%s,\n[\"e\"]]", two);
	OK(hold("d.json", text, MOST, &s, &sc, err)); /* counted on */
	assert_string_equal(s.text.s, "3.0 a=y/y:1 3.1 b=y/Y:0 4.0 e=y/-:0 ");
	OK(lwm_dialogue_scores_write(&sc, fx_path("right.json"), true, err));
	char *json = fx_read(fx_path("right.json"));
	assert_string_equal(json, "{\"dialogues\":5,\"turns\":{\"1\":{\"asked\":3,\"right\":3,\"share_right\":1},"
				  "\"2\":{\"asked\":2,\"right\":0,\"share_right\":0}}}\n");
	free(json);
	/* the words are right, and it had not come to an end */
	memset(&sc, 0, sizeof sc);
	OK(hold("d.jsonl", "{\"data\": [\"c\", \"y\"]}\n", 1, &s, &sc, err));
	assert_string_equal(s.text.s, "0.0 c=y/y:0 ");
	/* a system prompt of the record: its tokens are those of the conversation */
	struct lwm_generate w = writer(parrot, 0);
	struct lwm_dialogue *d;
	OK(lwm_dialogue_new(&d, &w, CONTEXT, false, err));
	OK(lwm_dialogue_hold(d, fx_write("d.jsonl", "{\"system\": \"S\", \"data\": [\"c\", \"y\"]}\n"), see, &s, &sc, err));
	assert_int_equal(lwm_dialogue_length(d), 1 + (int)strlen("S USER: c ASSISTANT:") + 1);
	lwm_dialogue_free(d);
	lwm_engine_free(w.g);
	/* what fn says ends it */
	s.stop_at = 1;
	memset(&sc, 0, sizeof sc);
	FAILS(hold("d.jsonl", "[\"e\", \"f\"]", MOST, &s, &sc, err), LWM_EIO, "enough");
	assert_string_equal(s.text.s, "0.0 e=y/-:0 ");
	lwm_str_release(&s.text);
}

static void test_bad_files(void **state)
{
	(void)state;
	static const struct {
		const char *name, *text, *says;
	} t[] = {
		{ "x.jsonl", "[\"a\"]\n{\"data\": [\"a\"\n", "x.jsonl, line 2: " },
		{ "x.jsonl", "[\"a\"]\n[\"a\", 3]\n", "x.jsonl, line 2: question 2 is not a text" },
		{ "x.jsonl", "[\" \"]\n", "x.jsonl, line 1: question 1 is empty" },
		{ "x.jsonl", "[]\n", "there is no question" },
		{ "x.jsonl", "\n", "holds no dialogue" },
		{ "x.jsonl", "[\"say </s>\"]\n", "'</s>' in the text of a turn" },
		{ "x.jsonl", "{\"data\": [\"q\", \"USER: a\"]}\n", "'USER:' in the text of a turn" },
		{ "x.jsonl", "{\"text\": \"q\"}\n", "no turns" },
		{ "x.jsonl", "{\"q\": \"q\", \"a\": \"a\", \"video_id\": \"v\"}\n", "it names a clip, 'v'" },
		{ "x.json", "{\"data\": [\"q\", \"a\"]}", "x.json: is not a list of dialogues" },
		{ "x.json", "[[\"a\"], {\"data\": [\"q\"]}]", "x.json, record 2: there is no question with an answer" },
	};
	struct lwm_dialogue_scores sc = { 0 };
	struct seen s = { 0 };
	for (size_t i = 0; i < sizeof t / sizeof *t; i++)
		FAILS(hold(t[i].name, t[i].text, 1, &s, &sc, err), LWM_EDATA, t[i].says);
	struct lwm_str many = { 0 };
	for (int i = 0; i <= LWM_DIALOGUE_TURNS; i++)
		lwm_str_puts(&many, i ? ",\"q\"" : "[\"q\"");
	lwm_str_puts(&many, "]");
	FAILS(hold("x.jsonl", many.s, 1, &s, &sc, err), LWM_EDATA, "65 questions, 64 are possible");
	lwm_str_release(&many);
	lwm_str_release(&s.text);
}

static void test_texts(void **state)
{
	(void)state;
	struct lwm_dialogue_turn t = { 1, 0, "q\"", "no", "yes", false };
	struct lwm_str s = { 0 };
	lwm_dialogue_turn_text(&t, false, &s);
	assert_string_equal(s.s, "\nUSER: q\"\nASSISTANT: no\n(expected: yes)\n");
	lwm_str_reset(&s);
	lwm_dialogue_turn_text(&t, true, &s);
	assert_string_equal(s.s, "{\"dialogue\":1,\"turn\":0,\"prompt\":\"q\\\"\",\"text\":\"no\",\"expected\":\"yes\",\"right\":false}\n");
	lwm_str_reset(&s);
	t = (struct lwm_dialogue_turn){ 0, 1, "q", "yes", "yes", true };
	lwm_dialogue_turn_text(&t, false, &s);
	assert_string_equal(s.s, "USER: q\nASSISTANT: yes\n");
	lwm_str_reset(&s);
	t.expected = NULL;
	lwm_dialogue_turn_text(&t, true, &s);
	assert_string_equal(s.s, "{\"dialogue\":0,\"turn\":1,\"prompt\":\"q\",\"text\":\"yes\"}\n");
	lwm_str_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_turns_are_one_context), cmocka_unit_test(test_a_context_ends), cmocka_unit_test(test_files),
		cmocka_unit_test(test_bad_files), cmocka_unit_test(test_texts), cmocka_unit_test(test_side_by_side),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
