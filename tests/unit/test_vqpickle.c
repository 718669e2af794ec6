/* Frame tokenizers as LWM stores them (tests/golden/vqpickle-1/make.py): names, axes and the configuration that follows from
 * shapes; and strings of bytes too long to be held. */
#include "tests/unit/io_fault.h"

#include <inttypes.h>

#include "common/io/model.h"
#include "common/io/pickle.h"

static const char golden[] = "tests/golden/vqpickle-1/";

static int64_t config_int(const struct lwm_model *m, const char *key)
{
	return json_integer_value(json_object_get(lwm_model_config(m), key));
}

static void check_config(const struct lwm_model *m)
{
	const json_t *c = lwm_model_config(m), *channels = json_object_get(c, "block_out_channels");
	assert_string_equal(lwm_model_get_kind(m)->name, "vqgan");
	assert_int_equal(json_array_size(channels), 2);
	assert_int_equal(json_integer_value(json_array_get(channels, 0)), 4);
	assert_int_equal(json_integer_value(json_array_get(channels, 1)), 8);
	assert_int_equal(config_int(m, "latent_channels"), 3);
	assert_int_equal(config_int(m, "vq_embed_dim"), 2);
	assert_int_equal(config_int(m, "layers_per_block"), 1);
	assert_int_equal(config_int(m, "norm_num_groups"), 32);
	assert_int_equal(config_int(m, "num_vq_embeddings"), 5);
	assert_string_equal(json_string_value(json_object_get(json_object_get(c, "lwm"), "pixel_range")), "[-1,1]");
}

/* names.txt: a name of diffusers and its shape a line, sorted; value j of tensor i is 1000 i + j. */
static void check_values(struct lwm_model *m)
{
	size_t n;
	char *text = slurp("tests/golden/vqpickle-1/names.txt", &n), *line, *rest = text;
	struct lwm_err e = { 0 };
	int64_t i = 0;
	while ((line = strsep(&rest, "\n")) && *line) {
		char *name = strsep(&line, " ");
		struct lwm_tensor t = { .name = name, .ndim = 0 };
		int64_t count = 1;
		for (char *d; (d = strsep(&line, " "));) {
			t.shape[t.ndim] = strtol(d, NULL, 10);
			count *= t.shape[t.ndim++];
		}
		float *v = malloc((size_t)count * sizeof *v);
		assert_non_null(v);
		must(lwm_model_read_named(m, &t, 0, count, v, &e), &e);
		for (int64_t j = 0; j < count; j++)
			if (v[j] != (float)(1000 * i + j))
				fail_msg("value %" PRId64 " of '%s' is %g", j, name, (double)v[j]);
		free(v);
		i++;
	}
	assert_int_equal(i, lwm_model_count(m));
	free(text);
}

static void as_numpy_writes_them(void **state)
{
	(void)state;
	static const char *const files[] = { "numpy1-p4.pkl", "numpy2-p4.pkl", "numpy2-p5.pkl" };
	for (int i = 0; i < 3; i++) {
		struct lwm_model *m;
		struct lwm_err e = { 0 };
		char path[128];
		snprintf(path, sizeof path, "%s%s", golden, files[i]);
		must(lwm_model_open(&m, path, &e), &e);
		check_config(m);
		check_values(m);
		assert_int_equal(lwm_model_check(m, &e), -LWM_ENO);
		lwm_model_close(m);
	}
}

static void refused(const char *path, const char *with)
{
	struct lwm_model *m;
	struct lwm_err e = { 0 };
	int rc = lwm_model_open(&m, path, &e);
	if (rc != -LWM_EDATA || !strstr(e.msg, with))
		fail_msg("%s: %d '%s', should say '%s'", path, rc, e.msg, with);
}

static void what_is_not_read(void **state)
{
	(void)state;
	refused("tests/golden/vqpickle-1/p2.pkl", "write it with protocol 4");
	refused("tests/golden/vqpickle-1/fortran.pkl", "row by row");
	refused("tests/golden/vqpickle-1/jax.pkl", "numpy.asarray");

	size_t n;
	char *s = slurp("tests/golden/vqpickle-1/numpy2-p4.pkl", &n), *name;
	spill(at("cut"), s, n - 100);
	refused(at("cut"), "it ends in the middle");
	name = memmem(s, n, "MidBlock_0", 10);
	assert_non_null(name);
	memcpy(name, "MidBlack_0", 10);
	spill(at("name"), s, n);
	refused(at("name"), "no part of LWM's frame tokenizer");
	free(s);

	spill(at("text"), "\x80\x04N.", 4);
	refused(at("text"), "it is no dict");
	spill(at("empty"), "\x80\x04}.", 4);
	refused(at("empty"), "is missing");
}

/* A hundred thousand bytes in a file are not held, but found; what follows them is read. */
static void long_strings(void **state)
{
	(void)state;
	enum { LONG = 100000 };
	static const char ahead[] = "ahead\x80\x04(B\xa0\x86\x01"; /* of 100000 bytes, and the 0 at its end */
	char *s = malloc(LONG + 64);
	struct lwm_pickle *p;
	struct lwm_err e = { 0 };
	int64_t used;
	size_t n = 0;
	assert_non_null(s);
	memcpy(s, ahead, sizeof ahead);
	n += sizeof ahead;
	memset(s + n, 'x', LONG);
	n += LONG;
	memcpy(s + n, "C\3abcX\2\0\0\0hit.behind", 20);
	n += 20;
	spill(at("long"), s, n);
	int fd = open(at("long"), O_RDONLY);
	assert_true(fd >= 0);
	must(lwm_pickle_read_file(&p, fd, 5, (int64_t)n, &used, "long", &e), &e);
	assert_int_equal(used, n - 5 - 6);
	const struct lwm_pk *t = lwm_pickle_root(p);
	assert_int_equal(t->n, 3);
	assert_null(t->v[0]->s);
	assert_int_equal(t->v[0]->len, LONG);
	assert_int_equal(t->v[0]->at, 5 + 2 + 1 + 5);
	assert_memory_equal(t->v[1]->s, "abc", 3);
	assert_int_equal(t->v[1]->at, 5 + 2 + 1 + 5 + LONG + 2);
	assert_true(lwm_pk_is_text(t->v[2], "hi"));
	lwm_pickle_free(p);
	assert_int_equal(lwm_pickle_read_file(&p, fd, 5, 5 + 1000, &used, "long", &e), -LWM_EDATA);
	close(fd);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_numpy_writes_them),
		cmocka_unit_test(what_is_not_read),
		cmocka_unit_test(long_strings),
	};
	return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
