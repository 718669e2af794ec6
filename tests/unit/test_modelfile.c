/* Models and their tokenizers as programs open them: whatever byte of a merged folder is damaged, nothing is used in silence;
 * a tokenizer of another model is refused; a model that cannot be named has no name. */
#include "tests/unit/io_fault.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>

#include "common/base/json.h"
#include "common/base/rng.h"
#include "common/io/inspect.h"
#include "common/io/model.h"
#include "common/comm/device.h"
#include "common/infer/load.h"
#include "common/model/llama_json.h"
#include "common/text/tokenizer.h"

/* ---- the k-th opening of a file of this name fails as on a bad disk ---- */

static const char *bad_name; /* NULL: none */
static int64_t countdown;
static bool fired;

int open(const char *path, int flags, ...)
{
	int (*real)(const char *, int, ...);
	va_list ap;
	va_start(ap, flags);
	int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;
	va_end(ap);
	*(void **)&real = dlsym(RTLD_NEXT, "open");
	if (bad_name && !strcmp(lwm_path_base(path), bad_name) && countdown-- == 0) {
		fired = true;
		errno = EIO;
		return -1;
	}
	return real(path, flags, mode);
}

/* ---- a small model ---- */

static struct lk_dev *dev;

static struct lwm_llama_cfg shape(int64_t vocab)
{
	struct lwm_llama_cfg c;
	struct lwm_err e = { 0 };
	must(lwm_llama_preset(&c, "nano", &e), &e);
	c.dim = 16;
	c.ffn = 24;
	c.layers = 2;
	c.heads = c.kv_heads = 2;
	c.vocab_text = vocab;
	return c;
}

static int put_tokenizer(void *ctx, const char *dir, struct lwm_err *e)
{
	return lwm_tokenizer_copy_to(ctx, dir, false, e);
}

/* Several files of weights; the tokenizer lies beside them unless it is only to be recorded. */
static void write_model(const char *dir, struct lwm_tokenizer *t, bool beside)
{
	struct lwm_err e = { 0 };
	struct lwm_llama_cfg c = shape(lwm_tokenizer_vocab(t));
	struct lwm_tensors p = { 0 };
	struct lwm_model_writer *w;
	json_t *config;
	must(lwm_llama_to_json(&c, &config, &e), &e);
	must(lwm_llama_tensors(&p, &c, &e), &e);
	float *v = calloc((size_t)p.total, sizeof *v);
	for (int64_t i = 0; i < p.total; i++)
		v[i] = (float)(i % 97) / 50 - 1;
	struct lwm_model_spec spec = { .kind = "lwm", .config = config, .max_file_bytes = 20000, .ctx = t,
				       .extra = beside ? put_tokenizer : NULL, .tokenizer = lwm_tokenizer_hash(t)->hex };
	must(lwm_model_create(&w, dir, &spec, &p, true, &e), &e);
	for (int64_t i = 0; i < p.n; i++)
		must(lwm_model_add(w, v + p.list[i].offset, &e), &e);
	must(lwm_model_commit(w, &e), &e);
	free(v);
	lwm_tensors_release(&p);
	json_decref(config);
}

static void open_bytes(struct lwm_tokenizer **t)
{
	struct lwm_err e = { 0 };
	must(lwm_tokenizer_open(t, "bytes", &e), &e);
}

/* A SentencePiece model of `vocab` pieces in the scratch folder. */
static const char *pieces(int64_t vocab)
{
	char name[40];
	struct lwm_err e = { 0 };
	struct lwm_str text = { 0 };
	snprintf(name, sizeof name, "pieces-%d.model", (int)vocab);
	const char *model = at(name), *input = at("text.txt");
	for (int i = 0; i < 500; i++)
		lwm_str_printf(&text, "Sentence %d of a text about ships, seas and mornings with %d gulls.\n", i, i * 7);
	spill(input, text.s, text.len);
	lwm_str_release(&text);
	struct lwm_tokenizer_train_cfg how = { .inputs = &input, .ninputs = 1, .vocab = vocab, .threads = 1 };
	if (!lwm_path_exists(model))
		must(lwm_tokenizer_train(&how, model, true, &e), &e);
	return model;
}

static void open_pieces(struct lwm_tokenizer **t, int64_t vocab)
{
	struct lwm_err e = { 0 };
	must(lwm_tokenizer_open(t, pieces(vocab), &e), &e);
}

/* Opens model and tokenizer as a program does, and lets go of them. */
static int use(const char *dir, const char *spec, struct lwm_err *e)
{
	struct lwm_lm m = { 0 };
	struct lwm_tokenizer *t = NULL;
	memset(e, 0, sizeof *e);
	int rc = lwm_lm_open_with_tokenizer(&m, &t, dir, false, spec, dev, e);
	if (rc == 0) {
		lwm_tokenizer_free(t);
		lwm_lm_close(&m);
	}
	return rc;
}

/* ---- what is in a manifest ---- */

static void every_file_is_named(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_tokenizer *t;
	json_t *m;
	struct dirent *d;
	int64_t n = 0;
	open_bytes(&t);
	write_model(at("named"), t, true);
	must(lwm_json_read(&m, at("named/manifest.json"), 1 << 20, &e), &e);
	assert_string_equal(json_string_value(json_object_get(m, "schema")), "lwm-model-2");
	assert_string_equal(json_string_value(json_object_get(m, "tokenizer")), lwm_tokenizer_hash(t)->hex);
	json_t *files = json_object_get(m, "files");
	DIR *dir = opendir(at("named"));
	while ((d = readdir(dir)))
		if (d->d_name[0] != '.' && strcmp(d->d_name, "manifest.json")) {
			if (!json_object_get(files, d->d_name))
				fail_msg("%s is not in the manifest", d->d_name);
			n++;
		}
	closedir(dir);
	assert_int_equal(n, json_object_size(files));
	assert_in_range(n, 5, 20); /* two or more of weights, config, index, tokenizer */
	json_decref(m);
	lwm_tokenizer_free(t);
	must(use(at("named"), NULL, &e), &e);
	must(lwm_check_thing(at("named"), LWM_THING_MODEL, &e), &e);
}

/* 200 bits of each file, wherever they are. */
static void flip_each_file(const char *model, int64_t seed)
{
	struct lwm_err e = { 0 };
	struct lwm_paths files = { 0 };
	char dir[200];
	size_t n;
	snprintf(dir, sizeof dir, "%s", at(model));
	must(lwm_paths_expand(&files, dir, NULL, &e), &e);
	for (int64_t i = 0; i < files.n; i++) {
		struct lwm_rng r = lwm_rng_at((uint64_t)seed, LWM_RNG_TEST, 3, (uint64_t)i);
		free(slurp(files.v[i], &n));
		for (int k = 0; k < 200; k++) {
			size_t byte = (size_t)lwm_rng_below(&r, (int64_t)n);
			unsigned char bit = (unsigned char)(1u << lwm_rng_below(&r, 8));
			flip(files.v[i], byte, bit);
			int rc = use(dir, NULL, &e);
			if (rc != -LWM_EDATA || !e.msg[0])
				fail_msg("byte %zu of %s, bit %02x: %d '%s'", byte, files.v[i], bit, rc, e.msg);
			if (k % 20 == 0)
				assert_int_equal(lwm_check_thing(dir, LWM_THING_MODEL, NULL), -LWM_EDATA);
			flip(files.v[i], byte, bit);
		}
	}
	lwm_paths_release(&files);
	must(use(dir, NULL, &e), &e);
}

static void no_flip_is_used(void **state)
{
	(void)state;
	struct lwm_tokenizer *t;
	open_bytes(&t);
	write_model(at("flip-bytes"), t, true);
	lwm_tokenizer_free(t);
	flip_each_file("flip-bytes", 1);
	open_pieces(&t, 320);
	write_model(at("flip-pieces"), t, true);
	lwm_tokenizer_free(t);
	flip_each_file("flip-pieces", 2);
}

static void exchanged_files_are_refused(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_tokenizer *t;
	char *s;
	size_t n;
	open_bytes(&t);
	write_model(at("ex"), t, true);
	lwm_tokenizer_free(t);
	/* well-formed, but with a layer less */
	json_t *config;
	must(lwm_json_read(&config, at("ex/config.json"), 1 << 20, &e), &e);
	json_object_set_new(config, "num_hidden_layers", json_integer(1));
	s = slurp(at("ex/config.json"), &n);
	must(lwm_json_write(config, at("ex/config.json"), true, &e), &e);
	json_decref(config);
	assert_int_equal(use(at("ex"), NULL, &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "config.json"));
	spill(at("ex/config.json"), s, n);
	free(s);
	must(use(at("ex"), NULL, &e), &e);
	/* a file that the manifest names is missing: the rest can be used, a check says so */
	unlink(at("ex/tokenizer.txt"));
	must(use(at("ex"), "bytes", &e), &e);
	assert_int_equal(use(at("ex"), NULL, &e), -LWM_EUSAGE);
	memset(&e, 0, sizeof e);
	assert_int_equal(lwm_check_thing(at("ex"), LWM_THING_MODEL, &e), -LWM_EDATA);
	assert_non_null(strstr(e.msg, "tokenizer.txt"));
	unlink(at("ex/config.json"));
	assert_int_equal(use(at("ex"), "bytes", &e), -LWM_ENOINPUT);
}

/* ---- which tokenizer ---- */

static void the_tokenizer_of_another_model(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_tokenizer *t, *other;
	char model[200], hash[33], another[33], bad[220];
	size_t n;
	open_pieces(&t, 320);
	open_pieces(&other, 300);
	snprintf(hash, sizeof hash, "%s", lwm_tokenizer_hash(t)->hex);
	snprintf(another, sizeof another, "%s", lwm_tokenizer_hash(other)->hex);
	snprintf(model, sizeof model, "%s", at("tok"));
	write_model(model, t, false); /* knows its tokenizer, has none beside it */
	assert_int_equal(use(model, NULL, &e), -LWM_EUSAGE);
	must(use(model, pieces(320), &e), &e);
	assert_int_equal(use(model, pieces(300), &e), -LWM_ECONFIG);
	assert_true(strstr(e.msg, hash) && strstr(e.msg, another) && strstr(e.msg, model) && strstr(e.msg, "pieces-300"));
	assert_int_equal(use(model, "bytes", &e), -LWM_ECONFIG);
	/* one flipped bit in a copy that lies elsewhere */
	snprintf(bad, sizeof bad, "%s", at("copy.model"));
	char *s = slurp(pieces(320), &n);
	for (size_t i = 20; i < n; i += n / 40) {
		spill(bad, s, n);
		flip(bad, i, 4);
		int rc = use(model, bad, &e);
		assert_true(rc == -LWM_ECONFIG || (rc == -LWM_EDATA && strstr(e.msg, "copy.model")));
	}
	free(s);
	write_model(at("tok2"), t, true);
	must(use(model, at("tok2"), &e), &e);
	must(use(model, at("tok2/tokenizer.model"), &e), &e);
	lwm_tokenizer_free(other);
	lwm_tokenizer_free(t);
}

/* A tokenizer from a model folder, for any purpose. */
static void a_damaged_tokenizer_in_a_folder(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_tokenizer *t;
	char file[220];
	open_pieces(&t, 320);
	write_model(at("dam"), t, true);
	lwm_tokenizer_free(t);
	snprintf(file, sizeof file, "%s", at("dam/tokenizer.model"));
	must(lwm_tokenizer_open_as(&t, file, lwm_model_check_file, NULL, NULL, &e), &e);
	lwm_tokenizer_free(t);
	int loads = 0;
	for (size_t i = 30; i < 4000; i += 90) { /* in pieces and scores: many such models still load */
		struct lwm_tokenizer *damaged;
		flip(file, i, 2);
		if (lwm_tokenizer_open(&damaged, file, NULL) == 0) {
			loads++;
			lwm_tokenizer_free(damaged);
		}
		assert_int_equal(lwm_tokenizer_open_as(&t, at("dam"), lwm_model_check_file, NULL, NULL, NULL), -LWM_EDATA);
		memset(&e, 0, sizeof e);
		assert_int_equal(lwm_tokenizer_open_as(&t, file, lwm_model_check_file, NULL, NULL, &e), -LWM_EDATA);
		assert_non_null(strstr(e.msg, "tokenizer.model"));
		flip(file, i, 2);
	}
	assert_in_range(loads, 5, 45);
	/* a folder of another program: no manifest, nothing to compare with */
	unlink(at("dam/manifest.json"));
	memset(&e, 0, sizeof e);
	must(use(at("dam"), NULL, &e), &e);
	must(use(at("dam"), pieces(320), &e), &e);
	assert_int_equal(use(at("dam"), pieces(300), &e), -LWM_ECONFIG);
	assert_non_null(strstr(e.msg, "300 pieces"));
}

/* ---- the name of a model ---- */

/* Whichever opening of the manifest fails: an error, or the name that the model always has. */
static void a_name_needs_the_manifest(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_tokenizer *t;
	struct lwm_lm m;
	char name[33];
	int64_t k;
	open_bytes(&t);
	write_model(at("name"), t, true);
	lwm_tokenizer_free(t);
	must(lwm_lm_open(&m, at("name"), false, dev, &e), &e);
	memcpy(name, m.hash, sizeof name);
	lwm_lm_close(&m);
	for (k = 0; k < 50; k++) {
		memset(&e, 0, sizeof e);
		bad_name = "manifest.json";
		countdown = k;
		fired = false;
		int rc = lwm_lm_open(&m, at("name"), false, dev, &e);
		bad_name = NULL;
		if (rc == 0) {
			assert_string_equal(m.hash, name);
			lwm_lm_close(&m);
		} else {
			assert_int_equal(rc, -LWM_EIO);
			assert_non_null(strstr(e.msg, "manifest.json"));
		}
		if (!fired)
			break;
	}
	assert_in_range(k, 2, 49); /* read when the folder is opened, and for the name */
}

static int set_up(void **state)
{
	struct lwm_err e = { 0 };
	return scratch_make(state) || lwm_device_open(&dev, "ref", 1, &e) < 0;
}

static int tear_down(void **state)
{
	lk_dev_close(dev);
	return scratch_remove(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_file_is_named),
		cmocka_unit_test(no_flip_is_used),
		cmocka_unit_test(exchanged_files_are_refused),
		cmocka_unit_test(the_tokenizer_of_another_model),
		cmocka_unit_test(a_damaged_tokenizer_in_a_folder),
		cmocka_unit_test(a_name_needs_the_manifest),
	};
	return cmocka_run_group_tests_name("modelfile", tests, set_up, tear_down);
}
