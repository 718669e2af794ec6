/* Weights as torch.save leaves them (tests/golden/torch-1/make.py) against the same weights in safetensors, and files that lie. */
#include "tests/unit/model_same.h"

#include "common/io/pickle.h"
#include "common/io/torchfile.h"

static void models_are_those_of_safetensors(void **state)
{
	(void)state;
	compare("torch-1/zip", "tied-v5", 1); /* and the head, which is the embedding */
	compare("torch-1/older", "grouped-v5", 0);
	compare("torch-1/parts", "mistral-v5", 0);
	compare("torch-1/wrapped", "grouped-v4", 0);
}

static void what_is_shared_is_there_twice(void **state)
{
	(void)state;
	struct lwm_model *m;
	struct lwm_err e = { 0 };
	assert_int_equal(lwm_model_open(&m, "tests/golden/torch-1/zip", &e), 0);
	const struct lwm_tensor *a = lwm_model_tensor(m, lwm_model_find(m, "model.embed_tokens.weight")),
				*b = lwm_model_tensor(m, lwm_model_find(m, "lm_head.weight"));
	float *x = values_of(m, a), *y = values_of(m, b);
	assert_memory_equal(x, y, (size_t)a->count * sizeof *x);
	free(x);
	free(y);
	lwm_model_close(m);
}

static void sums_are_checked_where_there_are_some(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		int rc;
	} files[] = { { "zip", 0 }, { "wrapped", 0 }, { "older", -LWM_ENO }, { "unsummed", -LWM_ENO } };
	for (int i = 0; i < 4; i++) {
		struct lwm_torch *t;
		struct lwm_err e = { 0 };
		char path[256];
		snprintf(path, sizeof path, "tests/golden/torch-1/%s/pytorch_model.bin", files[i].name);
		assert_int_equal(lwm_torch_open(&t, path, &e), 0);
		assert_int_equal(lwm_torch_check(t, &e), files[i].rc);
		lwm_torch_close(t);
	}
}

/* ---- files that lie ---- */

struct file {
	char *p;
	size_t n;
};

static struct file load(const char *name)
{
	struct file f;
	char path[256];
	snprintf(path, sizeof path, "tests/golden/torch-1/%s/pytorch_model.bin", name);
	f.p = slurp(path, &f.n);
	return f;
}

/* The last place of these bytes. */
static char *last(struct file f, const char *what, size_t len)
{
	for (char *p = f.p + f.n - len; p >= f.p; p--)
		if (!memcmp(p, what, len))
			return p;
	fail_msg("not in the file");
	abort();
}

/* Opens what is in memory: -LWM_EDATA with that in its sentence. */
static void refused(struct file f, const char *with)
{
	struct lwm_torch *t;
	struct lwm_err e = { 0 };
	const char *path = at("lie.bin");
	spill(path, f.p, f.n);
	int rc = lwm_torch_open(&t, path, &e);
	if (rc == 0) { /* it is found out when it is checked */
		rc = lwm_torch_check(t, &e);
		lwm_torch_close(t);
	}
	if (rc != -LWM_EDATA || !strstr(e.msg, with))
		fail_msg("%d: '%s', should say '%s'", rc, e.msg, with);
	free(f.p);
}

static void archives_that_lie(void **state)
{
	(void)state;
	struct file f = load("zip");
	char *x = last(f, "PK\1\2", 4); /* an entry of the directory */
	x[10] = 8;
	refused(f, "compressed");

	f = load("zip");
	memset(last(f, "PK\1\2", 4) + 20, 0x7f, 3); /* both sizes */
	memset(last(f, "PK\1\2", 4) + 24, 0x7f, 3);
	refused(f, "larger than the file");

	f = load("zip");
	x = last(f, "PK\1\2", 4);
	memset(x + 42, 0, 4); /* it lies where the first one does */
	refused(f, "overlap");

	f = load("zip");
	f.p[200] ^= 1; /* a byte of the object, or of its numbers */
	refused(f, "");

	f = load("zip");
	f.n -= 10;
	refused(f, "without its directory");

	f = load("zip");
	last(f, "PK\6\6", 4)[48 + 5] = 1; /* of ZIP64, which torch.save always writes */
	refused(f, "directory does not fit");

	f = load("zip");
	memcpy(last(f, "data.pkl", 8), "else.pkl", 8);
	refused(f, "no data.pkl");

	f = load("zip");
	last(f, "/data/0PK", 9)[6] = 'x';
	refused(f, "are missing");

	f = load("zip");
	x = last(f, "little", 6);
	memcpy(x, "biglit", 6);
	refused(f, "little-endian");
}

static void damaged_numbers(void **state)
{
	(void)state;
	struct file f = load("zip");
	f.p[f.n / 2] ^= 4;
	refused(f, "is damaged");
}

static void older_files_that_lie(void **state)
{
	(void)state;
	struct file f = load("older");
	f.p[4] ^= 1;
	refused(f, "no file of torch.save");

	f = load("older");
	f.n -= 100;
	refused(f, "reach beyond its end");

	f = load("older");
	f.n = 400;
	refused(f, "it ends in the middle");
}

/* ---- pickles ---- */

static int parse(const char *text, size_t n, struct lwm_pickle **out, struct lwm_err *e)
{
	memset(e, 0, sizeof *e);
	return lwm_pickle_read(out, text, n, "pickle", e);
}

static void nothing_is_executed(void **state)
{
	(void)state;
	struct lwm_pickle *p;
	struct lwm_err e;
	/* os.system("exit 3"), as an exploit has it: a node, no more */
	static const char text[] = "\x80\x02" "cposix\nsystem\nX\x06\0\0\0exit 3\x85R.";
	assert_int_equal(parse(text, sizeof text - 1, &p, &e), 0);
	const struct lwm_pk *root = lwm_pickle_root(p);
	assert_int_equal(root->kind, LWM_PK_CALL);
	assert_non_null(lwm_pk_call(root, "posix", "system"));
	assert_true(lwm_pk_is_text(root->args->v[0], "exit 3"));
	lwm_pickle_free(p);
}

static void opcodes_that_are_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t n;
		const char *says;
	} bad[] = {
		{ "\x80\x06.", 3, "protocol" },
		{ "\x80\x02I1\n.", 6, "0x49 is no opcode" },
		{ "\x80\x02.", 3, "more, or less, than one object" },
		{ "\x80\x02NN.", 5, "more, or less, than one object" },
		{ "\x80\x02N(.", 5, "more, or less, than one object" },
		{ "\x80\x02h\5.", 5, "never remembered" },
		{ "\x80\x02Nr\xff\xff\xff\x7f.", 9, "more than a file of weights has" },
		{ "\x80\x02X\xff\xff\xff\x7fhi.", 10, "ends in the middle" },
		{ "\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", 12, "ends in the middle" },
		{ "\x80\x02(}s.", 6, "more than was put there" },
		{ "\x80\x02}(Nu.", 7, "do not fit" },
		{ "\x80\x02]Na(Ne(NNu.", 13, "do not fit" },
		{ "\x80\x02NNR.", 6, "no tuple" },
		{ "\x80\x02t.", 4, "no mark" },
		{ "\x80\x02(R.", 5, "more than was put there" },
		{ "\x80\x02" "cposix\nsys", 12, "middle of a line" },
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct lwm_pickle *p;
		struct lwm_err e;
		assert_int_equal(parse(bad[i].text, bad[i].n, &p, &e), -LWM_EDATA);
		assert_null(p);
		if (!strstr(e.msg, bad[i].says))
			fail_msg("%zu: '%s', should say '%s'", i, e.msg, bad[i].says);
	}
}

static void numbers_of_pickles(void **state)
{
	(void)state;
	static const char text[] = "\x80\x04(K\xffM\xff\xffJ\xff\xff\xff\xff\x8a\x00\x8a\x01\xff\x8a\x02\x00\x80\x8a\x09"
				   "\1\2\3\4\5\6\7\x08\x09" "G\x3f\xf8\0\0\0\0\0\0\x88t.";
	static const int64_t want[] = { 255, 65535, -1, 0, -1, -32768 };
	struct lwm_pickle *p;
	struct lwm_err e;
	assert_int_equal(parse(text, sizeof text - 1, &p, &e), 0);
	const struct lwm_pk *t = lwm_pickle_root(p);
	assert_int_equal(t->n, 9);
	for (int i = 0; i < 6; i++) {
		assert_int_equal(t->v[i]->kind, LWM_PK_INT);
		assert_int_equal(t->v[i]->i, want[i]);
	}
	assert_int_equal(t->v[6]->kind, LWM_PK_LONG);
	assert_true(t->v[7]->f == 1.5);
	assert_int_equal(t->v[8]->kind, LWM_PK_BOOL);
	lwm_pickle_free(p);
}

/* Lists in lists in lists, each ten times the one before: memory of what is there, not of what it would be. */
static void bombs(void **state)
{
	(void)state;
	char text[1024];
	size_t n = 0;
	struct lwm_pickle *p;
	struct lwm_err e;
	text[n++] = (char)0x80;
	text[n++] = 4;
	text[n++] = 'N';
	for (int level = 0; level < 60; level++) {
		text[n++] = 'q';
		text[n++] = (char)level;
		text[n++] = '(';
		for (int i = 0; i < 5; i++) {
			text[n++] = 'h';
			text[n++] = (char)level;
		}
		text[n++] = 't';
	}
	text[n] = '.';
	/* what is remembered stays on the stack, too: 61 objects, and one is allowed */
	assert_int_equal(parse(text, n + 1, &p, &e), -LWM_EDATA);
	char *many = malloc(3 << 20);
	assert_non_null(many);
	memset(many, 'N', 3 << 20);
	memcpy(many, "\x80\x04", 2);
	assert_int_equal(parse(many, 3 << 20, &p, &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "more than a million objects"));
	free(many);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(models_are_those_of_safetensors),
		cmocka_unit_test(what_is_shared_is_there_twice),
		cmocka_unit_test(sums_are_checked_where_there_are_some),
		cmocka_unit_test(archives_that_lie),
		cmocka_unit_test(damaged_numbers),
		cmocka_unit_test(older_files_that_lie),
		cmocka_unit_test(nothing_is_executed),
		cmocka_unit_test(opcodes_that_are_refused),
		cmocka_unit_test(numbers_of_pickles),
		cmocka_unit_test(bombs),
	};
	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
