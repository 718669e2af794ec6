/* Field language: ids, loss runs and vision codes of small records, by hand, with the byte tokenizer. */
#include "tests/unit/data_fixture.h"

#include "common/data/ingest/fields_int.h"

enum { BOS = 1, EOS = 2, VOCAB = 259 };
static struct lwm_tokenizer *bytes;

static int setup(void **state)
{
	(void)state;
	return lwm_tokenizer_open(&bytes, "bytes", &err);
}

static int teardown(void **state)
{
	(void)state;
	lwm_tokenizer_free(bytes);
	return 0;
}

static int build(const struct lwm_fields_cfg *cfg, const char *json, int64_t number, struct lwm_docbuf *d)
{
	struct lwm_fields *f;
	json_t *o = json_loads(json, JSON_DECODE_ANY, NULL);
	assert_non_null(o);
	OK(lwm_fields_open(&f, cfg, bytes, &err));
	lwm_err_clear(&err);
	int rc = lwm_fields_build(f, o, number, d, &err);
	lwm_fields_free(f);
	json_decref(o);
	return rc;
}

/* Text form: bytes as they are, ^ bos, $ eos, {n} code n; lower line: 1 loss, 0 none. */
static void show(const struct lwm_docbuf *d, struct lwm_str *text, struct lwm_str *loss)
{
	int64_t r = 0;
	for (int64_t i = 0; i < d->ids.n; i++) {
		int32_t id = d->ids.v[i];
		if (id >= VOCAB)
			lwm_str_printf(text, "{%d}", id - VOCAB);
		else
			lwm_str_putc(text, id == BOS ? '^' : id == EOS ? '$' : (char)(id - 3));
		while (r + 1 < d->nruns && d->run[r + 1].start <= i)
			r++;
		lwm_str_putc(loss, d->run[r].loss ? '1' : '0');
	}
}

static void expect(const struct lwm_fields_cfg *cfg, const char *json, const char *text, const char *loss)
{
	struct lwm_docbuf d = { 0 };
	struct lwm_str t = { 0 }, l = { 0 };
	if (build(cfg, json, 0, &d) < 0)
		fail_msg("%s", err.msg);
	show(&d, &t, &l);
	assert_string_equal(lwm_str_get(&t), text);
	assert_string_equal(lwm_str_get(&l), loss);
	for (int64_t i = 1; i < d.nruns; i++)
		assert_int_not_equal(d.run[i].loss, d.run[i - 1].loss);
	lwm_docbuf_release(&d);
	lwm_str_release(&t);
	lwm_str_release(&l);
}

static void expect_fields(const char *fields, const char *json, const char *text, const char *loss)
{
	struct lwm_fields_cfg cfg = { .fields = &fields, .nfields = 1, .index = -1, .frame_codes = 2 };
	expect(&cfg, json, text, loss);
}

static void test_text(void **state)
{
	(void)state;
	expect_fields("text", "{\"text\": \"ab\"}", "^ab$", "0111");
	expect_fields("[q],a", "{\"q\": \"ab\", \"a\": \"c\"}", "^abc$", "00011");
	expect_fields("[q+r],a", "{\"q\": \"a\", \"r\": \"b\", \"a\": \"c\"}", "^a bc$", "000011");
	expect_fields("a,[q],a", "{\"q\": \"x\", \"a\": \"c\"}", "^cxc$", "01011");
	expect_fields("<|bos|>,[q],[<|eos|>],a", "{\"q\": \"x\", \"a\": \"c\"}", "^^x$c$", "010011");
	expect_fields(" [ q ] , a ", "{\"q\": \"x\", \"a\": \"\"}", "^x$", "001");
	expect_fields("text", "{\"text\": \"\\u00e9\"}", "^\xc3\xa9$", "0111");
}

static void test_options(void **state)
{
	(void)state;
	const char *f[] = { "[a+b],c" };
	struct lwm_fields_cfg cfg = { .fields = f, .nfields = 1, .index = -1, .separator = "--", .prepend = "> ",
				      .no_bos = true, .no_eos = true };
	expect(&cfg, "{\"a\": \"1\", \"b\": \"2\", \"c\": \"3\"}", "> 1--23", "0000001");
	f[0] = "[vision],a";
	cfg.frame_codes = 1;
	expect(&cfg, "{\"vision\": [7], \"a\": \"x\"}", "<vision>{7}{8193}</vision>x", "00000000000000000001");
}

static void test_vision(void **state)
{
	(void)state;
	expect_fields("[vision],a", "{\"vision\": [5, 6], \"a\": \"x\"}", "^<vision>{5}{6}{8193}</vision>x$",
		      "00000000000000000000011");
	expect_fields("[a],my_vision_2", "{\"my_vision_2\": [1, 2, 8191, 4], \"a\": \"x\"}",
		      "^x<vision>{1}{2}{8192}{8191}{4}{8193}</vision>$", "00111111111111111111111111");
}

static void test_frame_limit(void **state)
{
	(void)state;
	const char *f = "vision";
	struct lwm_fields_cfg cfg = { .fields = &f, .nfields = 1, .index = -1, .frame_codes = 1, .max_frames = 3,
				      .no_bos = true, .no_eos = true };
	struct lwm_docbuf d = { 0 };
	expect(&cfg, "{\"vision\": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}", "<vision>{0}{8192}{4}{8192}{9}{8193}</vision>",
	       "11111111111111111111111");
	assert_int_equal(build(&cfg, "{\"vision\": [0, 1, 2, 3]}", 0, &d), 0);
	assert_int_equal(d.frames, 3);
	lwm_docbuf_release(&d);
	for (int64_t n = 1; n < 40; n++)
		for (int64_t max = 1; max < 40; max++) {
			int64_t count = n < max ? n : max;
			for (int64_t i = 0; i < count; i++) {
				int64_t at = lwm_frame_pick(n, max, i);
				assert_true(at >= 0 && at < n);
				assert_true(i == 0 || at > lwm_frame_pick(n, max, i - 1));
			}
			assert_int_equal(lwm_frame_pick(n, max, 0), 0);
			if (max > 1)
				assert_int_equal(lwm_frame_pick(n, max, count - 1), n - 1);
		}
}

static void test_alternatives(void **state)
{
	(void)state;
	const char *f[] = { "a", "[a],b", "b" };
	struct lwm_fields_cfg cfg = { .fields = f, .nfields = 3, .index = -1, .seed = 4 };
	struct lwm_docbuf d = { 0 };
	int64_t count[5] = { 0 }, first[200];
	for (int64_t i = 0; i < 200; i++) {
		assert_int_equal(build(&cfg, "{\"a\": \"x\", \"b\": \"yy\"}", i, &d), 0);
		first[i] = d.ids.n - 2;
		count[first[i]]++;
	}
	for (int k = 1; k <= 3; k++) /* x, yy, xyy */
		assert_true(count[k] > 40);
	for (int64_t i = 199; i >= 0; i--) { /* the choice depends on the number alone */
		assert_int_equal(build(&cfg, "{\"a\": \"x\", \"b\": \"yy\"}", i, &d), 0);
		assert_int_equal(d.ids.n - 2, first[i]);
	}
	cfg.index = 2;
	assert_int_equal(build(&cfg, "{\"a\": \"x\", \"b\": \"yy\"}", 1, &d), 0);
	assert_int_equal(d.ids.n, 4);
	lwm_docbuf_release(&d);
}

static void test_fields_from_record(void **state)
{
	(void)state;
	struct lwm_fields_cfg cfg = { .from_example = "fields", .index = -1, .frame_codes = 1 };
	struct lwm_docbuf d = { 0 };
	expect(&cfg, "{\"fields\": \"[a],b\", \"a\": \"x\", \"b\": \"y\"}", "^xy$", "0011");
	cfg.index = 1;
	expect(&cfg, "{\"fields\": [\"[a],b\", \"b\"], \"a\": \"x\", \"b\": \"y\"}", "^y$", "011");
	assert_int_equal(build(&cfg, "{\"fields\": [\"a\"], \"a\": \"x\"}", 0, &d), -LWM_EDATA);
	assert_int_equal(build(&cfg, "{\"fields\": \"[a,b]\", \"a\": \"x\"}", 0, &d), -LWM_EDATA);
	assert_string_equal(d.fault, "bad fields");
	assert_int_equal(err.code, -LWM_EDATA);
	lwm_docbuf_release(&d);
}

static void test_refused_records(void **state)
{
	(void)state;
	static const struct {
		const char *fields, *json, *fault;
	} bad[] = {
		{ "a", "{\"b\": \"x\"}", "missing key" },
		{ "a", "{\"a\": 3}", "wrong type" },
		{ "a", "{\"a\": [1]}", "wrong type" },
		{ "a", "[1]", "not an object" },
		{ "vision", "{\"vision\": \"x\"}", "bad codes" },
		{ "vision", "{\"vision\": []}", "bad codes" },
		{ "vision", "{\"vision\": [1, 2, 3]}", "bad codes" },
		{ "vision", "{\"vision\": [1, 8192]}", "bad codes" },
		{ "vision", "{\"vision\": [1, -1]}", "bad codes" },
		{ "vision", "{\"vision\": [1, 1.5]}", "bad codes" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct lwm_docbuf d = { 0 };
		struct lwm_fields_cfg cfg = { .fields = &bad[i].fields, .nfields = 1, .index = -1, .frame_codes = 2 };
		assert_int_equal(build(&cfg, bad[i].json, 0, &d), -LWM_EDATA);
		assert_string_equal(d.fault, bad[i].fault);
		assert_true(err.msg[0] != 0);
		lwm_docbuf_release(&d);
	}
}

static int some_codes(void *user, const char *key, struct lwm_field_value *out, struct lwm_err *e)
{
	(void)key;
	(void)e;
	*out = (struct lwm_field_value){ .codes = user, .ncodes = 2 };
	return 0;
}

/* Codes that come from the encoder, not from JSON: the largest is one below the size of the codebook. */
static void test_codes_by_callback(void **state)
{
	(void)state;
	const char *f = "vision";
	struct lwm_fields_cfg cfg = { .fields = &f, .nfields = 1, .index = -1, .frame_codes = 2, .vision_codes = 16 };
	static const struct {
		int32_t codes[2];
		int rc;
	} t[] = { { { 0, 15 }, 0 }, { { 0, 16 }, -LWM_EDATA }, { { -1, 0 }, -LWM_EDATA } };
	struct lwm_fields *h;
	struct lwm_docbuf d = { 0 };
	OK(lwm_fields_open(&h, &cfg, bytes, &err));
	for (int i = 0; i < 3; i++) {
		int32_t codes[2] = { t[i].codes[0], t[i].codes[1] };
		lwm_err_clear(&err);
		assert_int_equal(lwm_fields_build_from(h, some_codes, codes, 0, &d, &err), t[i].rc);
	}
	lwm_fields_free(h);
	lwm_docbuf_release(&d);
}

static void test_refused_layouts(void **state)
{
	(void)state;
	static const char *const bad[] = { "", ",", "a,", "[a,b]", "a]", "[a", "[]",
					   "a+", "+a", "a+vision", "a+<|eos|>", "[[a]]" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct lwm_fields *f;
		struct lwm_fields_cfg cfg = { .fields = &bad[i], .nfields = 1, .index = -1 };
		lwm_err_clear(&err);
		if (lwm_fields_open(&f, &cfg, bytes, &err) != -LWM_ECONFIG)
			fail_msg("'%s' was accepted", bad[i]);
		assert_null(f);
	}
}

static void test_plain_text(void **state)
{
	(void)state;
	const char *f = "text", *g = "[question],text";
	struct lwm_fields_cfg cfg = { .fields = &f, .nfields = 1, .index = -1 };
	struct lwm_fields *h;
	struct lwm_docbuf d = { 0 };
	OK(lwm_fields_open(&h, &cfg, bytes, &err));
	assert_false(lwm_fields_has_vision(h));
	OK(lwm_fields_text(h, "a\xff\0b", 4, 0, &d, &err)); /* bytes are bytes */
	assert_int_equal(d.ids.n, 6);
	assert_int_equal(lwm_docbuf_loss_tokens(&d), 5);
	lwm_fields_free(h);
	cfg.no_bos = true; /* nothing predicts the first token, whatever its mark */
	OK(lwm_fields_open(&h, &cfg, bytes, &err));
	OK(lwm_fields_text(h, "abcd", 4, 0, &d, &err));
	assert_int_equal(d.ids.n, 5);
	assert_int_equal(lwm_docbuf_loss_tokens(&d), 4);
	lwm_fields_free(h);
	cfg.no_bos = false;
	cfg.fields = &g;
	OK(lwm_fields_open(&h, &cfg, bytes, &err));
	lwm_err_clear(&err);
	assert_int_equal(lwm_fields_text(h, "x", 1, 0, &d, &err), -LWM_EDATA);
	lwm_fields_free(h);
	lwm_docbuf_release(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),            cmocka_unit_test(test_options),
		cmocka_unit_test(test_vision),          cmocka_unit_test(test_frame_limit),
		cmocka_unit_test(test_alternatives),    cmocka_unit_test(test_fields_from_record),
		cmocka_unit_test(test_refused_records), cmocka_unit_test(test_refused_layouts),
		cmocka_unit_test(test_plain_text),      cmocka_unit_test(test_codes_by_callback),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
