/* Models as LWM's checkpointer leaves them (tests/golden/flax-1/make.py) against the same in safetensors; streams that lie. */
#include "tests/unit/model_same.h"

static void models_are_those_of_safetensors(void **state)
{
	(void)state;
	compare("flax-1/stream", "grouped-v5", 0);
	compare("flax-1/state", "grouped-v4", 0); /* optimizer state is passed over */
	compare("flax-1/tree", "mistral-v5", 0);  /* in chunks, and one tree */
}

static char *load(size_t *n)
{
	return slurp("tests/golden/flax-1/stream/params", n);
}

/* A folder with that as its stream. -LWM_EDATA with these words. */
static void refused(const char *s, size_t n, const char *with)
{
	struct lwm_model *m;
	struct lwm_err e = { 0 };
	size_t len;
	char *config = slurp("tests/golden/flax-1/stream/config.json", &len);
	must(lwm_mkdirs(at("model"), &e), &e);
	spill(at("model/config.json"), config, len);
	spill(at("model/params"), s, n);
	free(config);
	int rc = lwm_model_open(&m, at("model"), &e);
	if (rc != -LWM_EDATA || !strstr(e.msg, with))
		fail_msg("%d '%s', should say '%s'", rc, e.msg, with);
}

static void put(char *s, size_t n, const char *what, const char *instead)
{
	char *p = memmem(s, n, what, strlen(what));
	assert_non_null(p);
	memcpy(p, instead, strlen(instead));
}

static void streams_that_lie(void **state)
{
	(void)state;
	size_t n;
	char *s = load(&n), *twice;
	for (size_t cut = 1; cut < n; cut += n / 7)
		refused(s, n - cut, "");
	refused(s, n - 10, "beyond the end");
	put(s, n, "bfloat16", "bfloat17");
	refused(s, n, "of a type that is not read here");
	free(s);

	s = load(&n);
	put(s, n, "attention_norm", "attention_worm");
	refused(s, n, "no part of a language model of LWM");
	free(s);

	s = load(&n);
	put(s, n, "scan_decoder", "loop_decoder");
	refused(s, n, "scan_layers");
	free(s);

	s = load(&n);
	twice = malloc(2 * n);
	assert_non_null(twice);
	memcpy(twice, s, n);
	memcpy(twice + n, s, n);
	refused(twice, 2 * n, "twice");
	free(twice);
	free(s);

	refused("\x92\x91\xa4step\xc4\1\7", 10, "holds no weights");
	refused("\x92\x91\xa1x\xdd\xff\xff\xff\xff", 9, "more items than there are bytes");
	refused("\x92\x91\xa7lm_head\xc4\x0a\xc7\x07\1\x93\x92\2\3\xa1x\xc0", 22, "of a type");
	refused("\x81\xa1x\x81\xa1x\x81\xa1x\x81\xa1x\x81\xa1x\x81\xa1x\x81\xa1x\x81\xa1x\x81\xa1x\x81\xa1x\x81\xa1x\x81\xa1x\x81\xa1x"
		"\x81\xa1x\x81\xa1x\x81\xa1x\xc0", 49, "too deep");
	refused("\x92\x90\xc1", 3, "no item of MessagePack");
}

static void chunks_that_lie(void **state)
{
	(void)state;
	size_t n;
	char *s = slurp("tests/golden/flax-1/tree/params", &n), *p = memmem(s, n, "\xa6" "chunks", 7);
	assert_non_null(p);
	assert_memory_equal(p + 8, "\xa1" "0", 2);
	p[9] = '1';
	refused(s, n, "in another order");
	free(s);

	s = slurp("tests/golden/flax-1/tree/params", &n);
	p = memmem(s, n, "\xa5shape", 6);
	assert_non_null(p);
	p[9] = 1; /* {"0": 1, ...} */
	refused(s, n, "does not hold what its shape says");
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(models_are_those_of_safetensors),
		cmocka_unit_test(streams_that_lie),
		cmocka_unit_test(chunks_that_lie),
	};
	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
