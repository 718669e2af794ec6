/* Turn lists: a small record of each published layout, token by token, with the byte tokenizer; what is refused, and for what. */
#include "tests/unit/data_fixture.h"

#include "common/data/ingest/clipdoc.h"
#include "common/data/ingest/fields.h"
#include "common/data/ingest/shelf.h"

enum { BOS = 1, EOS = 2, VOCAB = 259 };
#define HEAD "^You are a helpful assistant. USER: "
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
static void show(const struct lwm_docbuf *d, struct lwm_str *out)
{
	int64_t r = 0;
	bool loss = false;
	for (int64_t i = 0; i < d->ids.n; i++) {
		int32_t id = d->ids.v[i];
		while (r + 1 < d->nruns && d->run[r + 1].start <= i)
			r++;
		if (d->run[r].loss != loss)
			lwm_str_putc(out, loss ? ')' : '(');
		loss = d->run[r].loss;
		if (id >= VOCAB)
			lwm_str_printf(out, "{%d}", id - VOCAB);
		else
			lwm_str_putc(out, id == BOS ? '^' : id == EOS ? '$' : (char)(id - 3));
	}
	if (loss)
		lwm_str_putc(out, ')');
}

static int codes_by_name(void *user, const char *name, struct lwm_ids *out, struct lwm_err *e)
{
	int32_t v[4] = { name[0] - 'a', 1, 2, 3 };
	(void)user;
	if (strchr(name, '-'))
		return lwm_fail(e, LWM_EDATA, "no clip %s", name);
	return lwm_ids_add(out, v, 4, e);
}

/* chat.user: anything that is not NULL asks for codes by name. */
static int build(const struct lwm_chat_cfg *chat, const char *fields, const char *json, struct lwm_docbuf *d)
{
	struct lwm_fields_cfg cfg = { .fields = &fields, .nfields = 1, .index = -1, .frame_codes = 2, .chat = *chat };
	struct lwm_fields *f;
	json_t *o = json_loads(json, 0, NULL);
	assert_non_null(o);
	if (cfg.chat.user)
		cfg.chat.codes = codes_by_name;
	OK(lwm_fields_open(&f, &cfg, bytes, &err));
	lwm_err_clear(&err);
	int rc = lwm_fields_build(f, o, 0, d, &err);
	lwm_fields_free(f);
	json_decref(o);
	return rc;
}

static void expect_as(const struct lwm_chat_cfg *chat, const char *fields, const char *json, const char *want)
{
	struct lwm_docbuf d = { 0 };
	struct lwm_str s = { 0 };
	if (build(chat, fields, json, &d) < 0)
		fail_msg("%s", err.msg);
	show(&d, &s);
	assert_string_equal(lwm_str_get(&s), want);
	lwm_docbuf_release(&d);
	lwm_str_release(&s);
}

static void expect(const char *json, const char *want)
{
	struct lwm_chat_cfg chat = { .vision = true, .user = &chat };
	expect_as(&chat, "<|chat|>", json, want);
}

static void refuse(const char *json, const char *fault, const char *says)
{
	struct lwm_chat_cfg chat = { .vision = true, .user = &chat };
	struct lwm_docbuf d = { 0 };
	assert_int_equal(build(&chat, "<|chat|>", json, &d), -LWM_EDATA);
	assert_string_equal(d.fault, fault);
	if (!strstr(err.msg, says))
		fail_msg("'%s' does not say '%s'", err.msg, says);
	lwm_docbuf_release(&d);
}

static void test_text_layouts(void **state)
{
	(void)state;
	const char *two = HEAD "q ASSISTANT:(a$)USER: r ASSISTANT:(b$)";
	expect("{\"id\": \"x\", \"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"a\"},"
	       "{\"from\": \"human\", \"value\": \" r\\n\"}, {\"from\": \"gpt\", \"value\": \"\\tb \"}]}", two);
	expect("{\"id\": \"0\", \"data\": [\"q\", \"a\", \"r\", \"b\"]}", two);
	expect("{\"prompt\": \"q\", \"messages\": [{\"content\": \"q\", \"role\": \"user\"}, {\"content\": \"a\", \"role\": \"assistant\"},"
	       "{\"content\": \"r\", \"role\": \"user\"}, {\"content\": \"b\", \"role\": \"assistant\"}]}", two);
	/* no answer before the first question, no question after the last answer */
	expect("{\"conversations\": [{\"from\": \"gpt\", \"value\": \"hello\"}, {\"from\": \"user\", \"value\": \"q\"},"
	       "{\"from\": \"chatgpt\", \"value\": \"a\"}, {\"from\": \"human\", \"value\": \"r\"}]}", HEAD "q ASSISTANT:(a$)");
}

static void test_system_prompts(void **state)
{
	(void)state;
	struct lwm_chat_cfg none = { .system = "" }, other = { .system = "Be brief." };
	const char *qa = "{\"data\": [\"q\", \"a\"]}";
	expect_as(&none, "<|chat|>", qa, "^USER: q ASSISTANT:(a$)");
	expect_as(&other, "<|chat|>", qa, "^Be brief. USER: q ASSISTANT:(a$)");
	/* a record's own stands over both */
	expect_as(&other, "<|chat|>", "{\"system\": \"S.\", \"data\": [\"q\", \"a\", \"r\", \"b\"]}",
		  "^S. USER: q ASSISTANT:(a$)USER: r ASSISTANT:(b$)");
	expect("{\"messages\": [{\"role\": \"system\", \"content\": \"S.\"}, {\"role\": \"user\", \"content\": \"q\"},"
	       "{\"role\": \"assistant\", \"content\": \"a\"}]}", "^S. USER: q ASSISTANT:(a$)");
	/* a blank one is none, wherever it stands; the same one twice is one */
	expect_as(&other, "<|chat|>", "{\"system\": \" \", \"system_prompt\": \"\", \"data\": [\"q\", \"a\"]}",
		  "^Be brief. USER: q ASSISTANT:(a$)");
	expect_as(&other, "<|chat|>", "{\"system\": null, \"messages\": [{\"role\": \"system\", \"content\": \"\\n\"}, {\"role\": \"user\","
		  "\"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}", "^Be brief. USER: q ASSISTANT:(a$)");
	expect("{\"system\": \" S.\", \"messages\": [{\"role\": \"system\", \"content\": \"S.\"}, {\"role\": \"user\", \"content\": \"q\"},"
	       "{\"role\": \"assistant\", \"content\": \"a\"}]}", "^S. USER: q ASSISTANT:(a$)");
	expect_as(&other, "[document],<|chat|>", "{\"document\": \"D\", \"data\": [\"q\", \"a\"]}",
		  "^DBe brief. USER: q ASSISTANT:(a$)");
	expect_as(&other, "[<|chat|>]", qa, "^Be brief. USER: q ASSISTANT:a($)");
}

#define LLAVA(clip, q, more) \
	"{\"image\": " clip ", \"conversations\": [{\"from\": \"human\", \"value\": \"" q "\"}, {\"from\": \"gpt\", \"value\": \"a\"}" more "]}"
#define TURN(who, text) ", {\"from\": \"" who "\", \"value\": \"" text "\"}"

static void test_clip_layouts(void **state)
{
	(void)state;
	const char *one = HEAD "q\n<vision>{1}{1}{8192}{2}{3}{8193}</vision> ASSISTANT:(a$)";
	expect(LLAVA("\"b.jpg\"", "<image>\\nq", ), one);
	expect(LLAVA("\"b.jpg\"", "q\\n<image>", ), one);
	expect("{\"v_id\": \"b\", \"video\": \"b.mp4\", \"conversations\": [{\"from\": \"human\", \"value\": \"q\\n<video>\"},"
	       "{\"from\": \"gpt\", \"value\": \"a\"}]}", one);
	expect("{\"q\": \"q\", \"a\": \"a\", \"video_id\": \"b\"}", one);
	/* several questions about one image: its codes stand once */
	expect(LLAVA("\"b.jpg\"", "<image>\\nq", TURN("human", "r") TURN("gpt", "c")),
	       HEAD "q\n<vision>{1}{1}{8192}{2}{3}{8193}</vision> ASSISTANT:(a$)USER: r ASSISTANT:(c$)");
	/* several images, each where its place is */
	expect(LLAVA("[\"b.jpg\", \"c.jpg\", \"d.jpg\"]", "see <image> and <image> so", TURN("human", "<image>") TURN("gpt", "c")),
	       HEAD "see and so\n<vision>{1}{1}{8192}{2}{3}{8193}</vision><vision>{2}{1}{8192}{2}{3}{8193}</vision> ASSISTANT:(a$)"
	       "USER: \n<vision>{3}{1}{8192}{2}{3}{8193}</vision> ASSISTANT:(c$)");
	/* an answer may be an image */
	expect("{\"image\": \"b.png\", \"conversations\": [{\"from\": \"human\", \"value\": \"Generate an image of x\"},"
	       "{\"from\": \"gpt\", \"value\": \"<image>\"}]}",
	       HEAD "Generate an image of x ASSISTANT:(<vision>{1}{1}{8192}{2}{3}{8193}</vision>$)");
	/* without an image it is text */
	expect("{\"image\": null, \"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"a\"}]}",
	       HEAD "q ASSISTANT:(a$)");
}

/* Ten images in one turn, characters of several bytes around them, and words that only a place between them keeps apart. */
static void test_many_images(void **state)
{
	(void)state;
	struct lwm_str want = { 0 };
	lwm_str_puts(&want, HEAD "\xe4\xb8\xad </ s> \xf0\x9f\x98\x80\n");
	for (int i = 0; i < 10; i++)
		lwm_str_printf(&want, "<vision>{%d}{1}{8192}{2}{3}{8193}</vision>", i);
	lwm_str_puts(&want, " ASSISTANT:(a$)");
	expect(LLAVA("[\"a\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", \"h\", \"i\", \"j\"]",
		     "\\u4e2d<image> </<image>s><image><image><image><image><image><image><image>\\ud83d\\ude00<image>", ), want.s);
	lwm_str_release(&want);
}

static void test_read_turns(void **state)
{
	(void)state;
	static const struct {
		const char *json, *want; /* NULL: refused */
	} t[] = {
		{ "{\"data\": [\"q\", \" a \", \"r\"]}", "(-) q=a r=-" },
		{ "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"assistant\", \"content\": \"hi\"},"
		  "{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}", "(S) q=a" },
		{ "[\"q\", \" r\"]", "(-) q=- r=-" },
		{ "[]", NULL },
		{ "[\"q\", \"\"]", NULL },
		{ "[\"<s>\"]", NULL },
		{ "{\"system\": \"</s>\", \"data\": [\"q\", \"a\"]}", NULL },
		{ "{\"data\": [\"q\", \"<vision>\"]}", NULL },
		{ "{\"data\": [\"q\\u0000\", \"a\"]}", NULL },
		{ LLAVA("\"b.jpg\"", "<image>", ), NULL },
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct lwm_chat_turns c;
		struct lwm_str s = { 0 };
		json_t *o = json_loads(t[i].json, JSON_ALLOW_NUL, NULL);
		lwm_err_clear(&err);
		int rc = lwm_chat_read(&c, o, &err);
		if (rc == 0) {
			lwm_str_printf(&s, "(%s)", c.system ? c.system : "-");
			for (int64_t k = 0; k < c.n; k++)
				lwm_str_printf(&s, " %s=%s", c.turn[k].question, c.turn[k].answer ? c.turn[k].answer : "-");
			assert_string_equal(s.s, t[i].want ? t[i].want : "refused");
		} else if (rc != -LWM_EDATA || t[i].want || c.n) {
			fail_msg("%s: %d %s", t[i].json, rc, err.msg);
		}
		lwm_chat_release(&c);
		lwm_str_release(&s);
		json_decref(o);
	}
}

static void test_own_codes(void **state)
{
	(void)state;
	struct lwm_chat_cfg chat = { .vision = true };
	const char *want = HEAD "q\n<vision>{7}{8}{8193}</vision> ASSISTANT:(a$)";
	expect_as(&chat, "<|chat|>", "{\"vision\": [7, 8], \"image\": \"b.jpg\", \"conversations\": [{\"from\": \"human\", \"value\":"
		  "\"<image>\\nq\"}, {\"from\": \"gpt\", \"value\": \"a\"}]}", want);
	/* whatever it is called, and where it has no name: what lies beside a clip need not say it */
	expect_as(&chat, "<|chat|>", "{\"vision\": [7, 8], \"conversations\": [{\"from\": \"human\", \"value\":"
		  "\"q <video>\"}, {\"from\": \"gpt\", \"value\": \"a\"}]}", want);
	expect_as(&chat, "<|chat|>", "{\"data\": [\"q\", \"a\"]}", HEAD "q ASSISTANT:(a$)"); /* brings none */
	struct lwm_docbuf d = { 0 };
	assert_int_equal(build(&chat, "<|chat|>", "{\"vision\": [7, 8], \"data\": [\"q\", \"a\"]}", &d), -LWM_EDATA);
	assert_string_equal(d.fault, "bad turns"); /* no place for them */
	chat.vision = false;
	assert_int_equal(build(&chat, "<|chat|>", LLAVA("\"b.jpg\"", "<image>\\nq", ), &d), -LWM_EDATA);
	assert_string_equal(d.fault, "no codes");
	lwm_docbuf_release(&d);
}

static void test_special_words(void **state)
{
	(void)state;
	static const char *const words[] = { "<s>", "</s>", "<unk>", "<vision>", "</vision>", "<|bos|>", "<|eos|>", "<|chat|>",
					     "<image>", "<video>", "USER:", "ASSISTANT:", "<|world|>", "<|free|>", "<|left|>",
					     "<|right|>", "<|straight|>", "<|stop|>", "<|traj|>", "<|speed|>", "<|steer|>",
					     "<|goal|>", "<|b0", "<|b1" };
	static const char *const escaped[] = { "< s>", "< /s>", "< unk>", "< vision>", "< /vision>", "< |bos|>", "< |eos|>",
					       "< |chat|>", "< image>", "< video>", "USER :", "ASSISTANT :", "< |world|>", "< |free|>", "< |left|>",
					       "< |right|>", "< |straight|>", "< |stop|>", "< |traj|>", "< |speed|>", "< |steer|>",
					       "< |goal|>", "< |b0", "< |b1" };
	static const char *const where[] = { "{\"data\": [\"x%sy\", \"a\"]}", "{\"data\": [\"q\", \"x%sy\"]}",
					     "{\"system\": \"x%sy\", \"data\": [\"q\", \"a\"]}" };
	static const char *const want[] = { HEAD "x%sy ASSISTANT:(a$)", HEAD "q ASSISTANT:(x%sy$)", "^x%sy USER: q ASSISTANT:(a$)" };
	struct lwm_chat_cfg escape = { .escape = true };
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		for (int k = 0; k < 3; k++) {
			char json[200], text[200];
			snprintf(json, sizeof json, where[k], words[i]);
			refuse(json, "special token", words[i]);
			snprintf(text, sizeof text, want[k], escaped[i]);
			expect_as(&escape, "<|chat|>", json, text);
		}
	expect("{\"data\": [\"a < s > <S> user: USER\", \"a\"]}", HEAD "a < s > <S> user: USER ASSISTANT:(a$)");
	expect_as(&escape, "<|chat|>", "{\"data\": [\"<s><s>\", \"USER:USER:\"]}", HEAD "< s>< s> ASSISTANT:(USER :USER :$)");
	/* beside a clip that has its place */
	refuse(LLAVA("\"b.jpg\"", "<image>\\n<vision>", ), "special token", "<vision>");
}

static void test_refused(void **state)
{
	(void)state;
	refuse("{\"text\": \"x\"}", "missing key", "conversations");
	refuse("{\"conversations\": \"x\"}", "wrong type", "conversations");
	refuse("{\"data\": []}", "bad turns", "no question");
	refuse("{\"data\": [\"q\"]}", "bad turns", "no question");
	refuse("{\"data\": [\"q\", \" \\n\"]}", "bad turns", "turn 2 is empty");
	refuse("{\"data\": [\"q\", 5]}", "bad turns", "turn 2 has no text");
	refuse("{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"human\", \"value\": \"a\"}]}", "bad turns",
	       "turn 2 is not an answer");
	refuse("{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"tool\", \"value\": \"a\"}]}", "bad turns",
	       "'tool'");
	refuse("{\"conversations\": [{\"from\": \"human\", \"value\": \"q\"}, {\"from\": \"gpt\", \"value\": \"a\"},"
	       "{\"from\": \"gpt\", \"value\": \"b\"}]}", "bad turns", "turn 3 is not a question");
	refuse("{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"},"
	       "{\"role\": \"system\", \"content\": \"s\"}]}", "bad turns", "turn 3");
	refuse("{\"system\": 5, \"data\": [\"q\", \"a\"]}", "wrong type", "field 'system' is not a text");
	refuse("{\"system\": \"S\", \"system_prompt\": \"T\", \"data\": [\"q\", \"a\"]}", "bad turns", "two system prompts");
	refuse("{\"system\": \"S\", \"messages\": [{\"role\": \"system\", \"content\": \"T\"}, {\"role\": \"user\", \"content\": \"q\"},"
	       "{\"role\": \"assistant\", \"content\": \"a\"}]}", "bad turns", "two system prompts");
	refuse("{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"system\", \"content\": \"T\"},"
	       "{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}", "bad turns", "turn 2 is not a question");
	refuse(LLAVA("\"b.jpg\"", "q", ), "bad turns", "1 clips, and places for 0");
	refuse(LLAVA("\"b.jpg\"", "<image><image>", ), "bad turns", "more places than clips");
	refuse(LLAVA("[\"b.jpg\", 3]", "<image>", ), "wrong type", "image");
	refuse(LLAVA("\"b-.jpg\"", "<image>", ), "no codes", "b-.jpg");
}

/* ---- clips by name ---- */

static void make_clips(const char *path, const char *const *name, int n, int32_t first)
{
	struct lwm_docs_meta meta = { .vocab_text = VOCAB, .vocab_vision = 18, .tokenizer = lwm_tokenizer_hash(bytes)->hex, .tool = "test",
				      .config = "", .policy = "none" };
	struct lwm_docs_writer *w;
	OK(lwm_docs_create(&w, path, &meta, true, &err));
	for (int i = 0; i < n; i++) {
		int32_t ids[] = { 3, VOCAB + first + i, VOCAB + 5, VOCAB + 17, 4 };
		OK(lwm_docs_append(w, lwm_path_base(name[i]), name[i], ids, 5, NULL, 0, &err));
	}
	OK(lwm_docs_commit(w, &err));
}

static void test_shelf(void **state)
{
	(void)state;
	static const char *const a[] = { "data/coco/train2017/1.jpg", "data/vg/1.jpg", "data/web/v_7.mp4" };
	static const char *const b[] = { "data/frames/clip.d", "2.PNG" };
	static const struct {
		const char *name;
		int32_t code; /* -1: none, -2: several */
	} t[] = { { "train2017/1.jpg", 0 }, { "coco/train2017/1.jpg", 0 }, { "vg/1.jpg", 1 }, { "1.jpg", -2 }, { "v_7", 2 },
		  { "v_7.mp4", 2 }, { "./web/v_7.avi", 2 }, { "ain2017/1.jpg", -1 }, { "clip.d", 8 }, { "2.png", 9 }, { "2", 9 },
		  { "3.jpg", -1 }, { "", -1 }, { "gqa/1.jpg", -1 } };
	struct lwm_paths shards = { 0 };
	struct lwm_shelf *s;
	make_clips(in_scratch("a.h5"), a, 3, 0);
	make_clips(in_scratch("b.h5"), b, 2, 8);
	OK(lwm_paths_add(&shards, in_scratch("a.h5"), &err));
	OK(lwm_paths_add(&shards, in_scratch("b.h5"), &err));
	OK(lwm_shelf_open(&s, &shards, bytes, 16, 2, &err));
	assert_int_equal(lwm_shelf_clips(s), 5);
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct lwm_ids ids = { 0 };
		lwm_err_clear(&err);
		int rc = lwm_shelf_codes(s, t[i].name, &ids, &err);
		if ((rc == 0) != (t[i].code >= 0))
			fail_msg("%s: %d %s", t[i].name, rc, err.msg);
		if (rc == 0) {
			assert_int_equal(ids.n, 2);
			assert_int_equal(ids.v[0], t[i].code);
			assert_int_equal(ids.v[1], 5);
		} else {
			assert_int_equal(rc, -LWM_EDATA);
			assert_true((strstr(err.msg, "two clips") != NULL) == (t[i].code == -2));
		}
		lwm_ids_release(&ids);
	}
	lwm_shelf_close(s);
	lwm_err_clear(&err);
	assert_int_equal(lwm_shelf_open(&s, &shards, bytes, 17, 2, &err), -LWM_ECONFIG);
	assert_null(s);
	lwm_paths_release(&shards);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_layouts), cmocka_unit_test(test_system_prompts), cmocka_unit_test(test_clip_layouts),
		cmocka_unit_test(test_own_codes),    cmocka_unit_test(test_special_words),  cmocka_unit_test(test_refused),
		cmocka_unit_test(test_shelf),        cmocka_unit_test(test_many_images),    cmocka_unit_test(test_read_turns),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
