/* safetensors and model folders: read by an independent parser here, strict about what they accept, and the layouts
 * that other programs expect. */
#include "tests/unit/io_fault.h"
#include "tests/unit/tensor_table.h"

#include <math.h>

#include "common/base/rng.h"
#include "common/io/model.h"
#include "common/io/safetensors.h"

static float val(int64_t t, int64_t i)
{
	return (float)((t * 7919 + i * 31) % 20011 - 10000) * 0.37f;
}

static uint16_t bf16(float f)
{
	uint32_t u;
	memcpy(&u, &f, 4);
	uint32_t low = u & 0xffff, up = u >> 16;
	return (uint16_t)(low > 0x8000 || (low == 0x8000 && (up & 1)) ? up + 1 : up);
}

static float widen(uint16_t h)
{
	uint32_t u = (uint32_t)h << 16;
	float f;
	memcpy(&f, &u, 4);
	return f;
}

/* ---- an independent reader: finds "NAME": { ... "data_offsets":[a,b] } by eye ---- */

static const char *raw(const char *file, const char *name, const char *dtype, const char *shape, int64_t *bytes)
{
	uint64_t n;
	char key[128];
	long long a, b;
	memcpy(&n, file, 8);
	assert_true(n % 8 == 0 && file[8] == '{');
	snprintf(key, sizeof key, "\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":", name, dtype, shape);
	const char *p = memmem(file + 8, n, key, strlen(key));
	if (!p)
		fail_msg("no %s in the header", key);
	assert_int_equal(sscanf(p + strlen(key), "[%lld,%lld]}", &a, &b), 2);
	*bytes = b - a;
	return file + 8 + n + a;
}

static const struct lwm_tensor lm[] = {
	{ .name = "model.embed_tokens.weight", .ndim = 2, .shape = { 100, 16 } },
	{ .name = "model.layers.0.self_attn.q_proj.weight", .ndim = 2, .shape = { 16, 16 } },
	{ .name = "model.layers.0.self_attn.k_proj.weight", .ndim = 2, .shape = { 8, 16 } }, /* two of four heads */
	{ .name = "model.layers.0.self_attn.v_proj.weight", .ndim = 2, .shape = { 8, 16 } },
	{ .name = "model.norm.weight", .ndim = 1, .shape = { 16 } },
	{ .name = "model.vision_embed_tokens.weight", .ndim = 2, .shape = { 33, 16 } },
};
enum { LM = 6 };

static int put_tokenizer(void *ctx, const char *dir, struct lwm_err *e)
{
	char path[256];
	(void)e;
	snprintf(path, sizeof path, "%s/tokenizer.%s", dir, (const char *)ctx);
	spill(path, "pieces", 6);
	return 0;
}

static int fail_extra(void *ctx, const char *dir, struct lwm_err *e)
{
	(void)ctx;
	return lwm_fail(e, LWM_ENOINPUT, "%s: no", dir);
}

static void write_lm(const char *dir, enum lwm_st_dtype dtype, int64_t limit, char *tokenizer, bool force)
{
	struct lwm_err e = { 0 };
	struct lwm_model_writer *w;
	float v[1600];
	json_t *config = json_pack("{s:i,s:i,s:i,s:{s:i}}", "hidden_size", 16, "num_attention_heads", 4,
				   "num_key_value_heads", 2, "lwm", "vision_vocab", 33);
	struct lwm_model_spec spec = { .kind = "lwm", .config = config, .dtype = dtype, .max_file_bytes = limit,
					.extra = tokenizer ? put_tokenizer : NULL, .ctx = tokenizer };
	must(lwm_model_create(&w, dir, &spec, TABLE(lm, LM), force, &e), &e);
	for (int64_t t = 0; t < LM; t++) {
		for (int64_t i = 0; i < 1600; i++)
			v[i] = val(t, i);
		must(lwm_model_add(w, v, &e), &e);
	}
	must(lwm_model_commit(w, &e), &e);
	json_decref(config);
}

static int64_t size_of(const struct lwm_tensor *t)
{
	int64_t n = 1;
	for (int d = 0; d < t->ndim; d++)
		n *= t->shape[d];
	return n;
}

static void check_lm(const char *dir, enum lwm_st_dtype dtype)
{
	struct lwm_err e = { 0 };
	struct lwm_model *m;
	float v[1600];
	must(lwm_model_open(&m, dir, &e), &e);
	assert_int_equal(lwm_model_count(m), LM);
	assert_string_equal(lwm_model_get_kind(m)->name, "lwm");
	for (int64_t t = 0; t < LM; t++) {
		int64_t n = size_of(&lm[t]), cut = n / 3 + 1;
		must(lwm_model_read_named(m, &lm[t], 0, cut, v, &e), &e);
		must(lwm_model_read_named(m, &lm[t], cut, n - cut, v + cut, &e), &e);
		for (int64_t i = 0; i < n; i++)
			assert_true(v[i] == (dtype == LWM_ST_F32 ? val(t, i) : widen(bf16(val(t, i)))));
	}
	must(lwm_model_check(m, &e), &e);
	struct lwm_tensor other = { .name = "model.norm.weight", .ndim = 1, .shape = { 17 } }, none = { .name = "lm_head.weight", .ndim = 1, .shape = { 16 } };
	assert_int_equal(lwm_model_read_named(m, &other, 0, 1, v, &e), -LWM_ECONFIG);
	assert_non_null(strstr(e.msg, "17"));
	assert_int_equal(lwm_model_read_named(m, &none, 0, 1, v, NULL), -LWM_ECONFIG);
	lwm_model_close(m);
}

static void language_model(void **state)
{
	(void)state;
	size_t n, k;
	int64_t bytes;
	char suffix[] = "model";
	struct lwm_err e = { 0 };
	struct lwm_model *m;
	write_lm(at("lm"), LWM_ST_F32, 0, suffix, false);
	must(lwm_model_open(&m, at("lm"), &e), &e);
	assert_string_equal(lwm_model_tokenizer(m), at("lm/tokenizer.model"));
	lwm_model_close(m);
	check_lm(at("lm"), LWM_ST_F32);
	char *s = slurp(at("lm/model.safetensors"), &n);
	const char *q = raw(s, "model.layers.0.self_attn.q_proj.weight", "F32", "16,16", &bytes);
	assert_int_equal(bytes, 1024);
	/* heads of 4 rows: memory rows 0 1 2 3 (pairs 01, 23) lie on disk as 0 2 1 3 (halves) */
	static const int64_t row[4] = { 0, 2, 1, 3 };
	for (int64_t p = 0; p < 16; p++) {
		for (int64_t c = 0; c < 16; c++) {
			float f;
			memcpy(&f, q + (p * 16 + c) * 4, 4);
			assert_true(f == val(1, (p / 4 * 4 + row[p % 4]) * 16 + c));
		}
	}
	const char *v = raw(s, "model.layers.0.self_attn.v_proj.weight", "F32", "8,16", &bytes);
	for (int64_t i = 0; i < 128; i++) {
		float f;
		memcpy(&f, v + i * 4, 4);
		assert_true(f == val(3, i));
	}
	for (int64_t r = 0; r < 256; r++) { /* there and back */
		int64_t p = lwm_rope_row(r, 128), i = p % 128;
		assert_int_equal(p - i + 2 * (i % 64) + i / 64, r);
	}
	free(s);
	s = slurp(at("lm/tokenizer.model"), &n);
	assert_string_equal(s, "pieces");
	free(s);
	/* the same again gives the same bytes */
	snprintf(suffix, sizeof suffix, "txt");
	write_lm(at("lm2"), LWM_ST_F32, 0, suffix, false);
	must(lwm_model_open(&m, at("lm2"), &e), &e);
	assert_string_equal(lwm_model_tokenizer(m), at("lm2"));
	lwm_model_close(m);
	s = slurp(at("lm/model.safetensors"), &n);
	char *again = slurp(at("lm2/model.safetensors"), &k);
	assert_int_equal(n, k);
	assert_memory_equal(s, again, n);
	free(s);
	free(again);
}

static void bfloat_in_several_files(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_model *m;
	int64_t bytes;
	size_t n;
	write_lm(at("bf"), LWM_ST_BF16, 1500, NULL, false);
	check_lm(at("bf"), LWM_ST_BF16);
	char *s = slurp(at("bf/model-00001-of-00003.safetensors"), &n);
	const char *p = raw(s, "model.embed_tokens.weight", "BF16", "100,16", &bytes);
	assert_int_equal(bytes, 3200); /* larger than the limit: alone in its file */
	for (int64_t i = 0; i < 1600; i++) {
		uint16_t h;
		memcpy(&h, p + 2 * i, 2);
		assert_int_equal(h, bf16(val(0, i)));
	}
	free(s);
	assert_true(lwm_path_exists(at("bf/model.safetensors.index.json")));
	must(lwm_model_open(&m, at("bf/model-00001-of-00003.safetensors"), &e), &e); /* one of them alone */
	assert_int_equal(lwm_model_count(m), 1);
	lwm_model_close(m);
	unlink(at("bf/model-00002-of-00003.safetensors"));
	assert_int_equal(lwm_model_open(&m, at("bf"), &e), -LWM_ENOINPUT);
}

static void replacing_a_folder(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_model_writer *w;
	json_t *config = json_pack("{s:i,s:i}", "hidden_size", 16, "num_attention_heads", 4);
	struct lwm_model_spec spec = { .kind = "lwm", .config = config };
	write_lm(at("re"), LWM_ST_F32, 0, NULL, false);
	assert_int_equal(lwm_model_create(&w, at("re"), &spec, TABLE(lm, LM), false, NULL), -LWM_ECANTCREATE);
	must(lwm_model_create(&w, at("re/"), &spec, TABLE(lm, LM), true, &e), &e);
	assert_int_equal(lwm_model_commit(w, NULL), -LWM_EINTERNAL); /* no tensor was added */
	check_lm(at("re"), LWM_ST_F32);                              /* the old one stands */
	write_lm(at("re"), LWM_ST_BF16, 0, NULL, true);
	check_lm(at("re"), LWM_ST_BF16);
	must(lwm_mkdirs(at("mine"), &e), &e);
	assert_int_equal(lwm_model_create(&w, at("mine"), &spec, TABLE(lm, LM), true, NULL), -LWM_ECANTCREATE);
	spec.extra = fail_extra;
	must(lwm_model_create(&w, at("re"), &spec, TABLE(lm, 0), true, &e), &e);
	assert_int_equal(lwm_model_commit(w, NULL), -LWM_ENOINPUT);
	check_lm(at("re"), LWM_ST_BF16);
	struct lwm_tensor odd = { .name = "model.layers.0.self_attn.q_proj.weight", .ndim = 2, .shape = { 15, 16 } };
	assert_int_equal(lwm_model_create(&w, at("odd"), &spec, TABLE(&odd, 1), false, NULL), -LWM_EDATA);
	assert_false(lwm_path_exists(at("odd")));
	json_decref(config);
}

static void tokenizer_model(void **state)
{
	(void)state;
	static const struct lwm_tensor t[] = { { .name = "encoder.conv_in.weight", .ndim = 4, .shape = { 3, 2, 5, 7 } },
						    { .name = "encoder.conv_in.bias", .ndim = 1, .shape = { 7 } },
						    { .name = "quantize.embedding.weight", .ndim = 2, .shape = { 9, 4 } } };
	struct lwm_err e = { 0 };
	struct lwm_model_writer *w;
	struct lwm_model *m;
	float v[300], got[300];
	int64_t bytes;
	size_t n;
	json_t *config = json_pack("{s:s}", "_class_name", "VQModel");
	struct lwm_model_spec spec = { .kind = "vqgan", .config = config };
	must(lwm_model_create(&w, at("vq"), &spec, TABLE(t, 3), false, &e), &e);
	for (int64_t k = 0; k < 3; k++) {
		for (int64_t i = 0; i < 300; i++)
			v[i] = val(k, i);
		must(lwm_model_add(w, v, &e), &e);
	}
	must(lwm_model_commit(w, &e), &e);
	json_decref(config);
	char *s = slurp(at("vq/diffusion_pytorch_model.safetensors"), &n);
	const char *p = raw(s, "encoder.conv_in.weight", "F32", "7,5,3,2", &bytes);
	for (int64_t o = 0; o < 7; o++) {
		for (int64_t i = 0; i < 5; i++) {
			for (int64_t k = 0; k < 6; k++) {
				float f;
				memcpy(&f, p + ((o * 5 + i) * 6 + k) * 4, 4);
				assert_true(f == val(0, (k * 5 + i) * 7 + o));
			}
		}
	}
	free(s);
	must(lwm_model_open(&m, at("vq"), &e), &e);
	assert_string_equal(lwm_model_get_kind(m)->name, "vqgan");
	for (int64_t k = 0; k < 3; k++) {
		int64_t size = size_of(&t[k]);
		for (int64_t i = 0; i < size; i += 11) {
			int64_t len = size - i < 11 ? size - i : 11;
			must(lwm_model_read_named(m, &t[k], i, len, got + i, &e), &e);
		}
		for (int64_t i = 0; i < size; i++)
			assert_true(got[i] == val(k, i));
	}
	lwm_model_close(m);
}

/* ---- strictness ---- */

static int open_text(const char *header, size_t data, struct lwm_err *e)
{
	struct lwm_st *st;
	uint64_t n = strlen(header);
	char buf[4096] = { 0 };
	memcpy(buf, &n, 8);
	memcpy(buf + 8, header, n);
	spill(at("t.safetensors"), buf, 8 + n + data);
	memset(e, 0, sizeof *e);
	int rc = lwm_st_open(&st, at("t.safetensors"), e);
	lwm_st_close(st);
	return rc;
}

static void headers_that_lie(void **state)
{
	(void)state;
	static const struct {
		const char *header;
		size_t data;
	} bad[] = {
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4 },  /* cut */
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 12 }, /* more */
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8 },  /* shape */
		{ "{\"a\":{\"dtype\":\"F99\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8 },  /* type */
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8 },  /* order */
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8 }, /* negative */
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,2],\"data_offsets\":[0,8]}}", 8 },
		/* overflow */
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8 }, /* not whole */
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"offsets\":[0,8]}}", 8 },
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8 }, /* hole */
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
		  "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
		  12 }, /* overlap */
		{ "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
		  "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
		  8 }, /* twice */
		{ "{\"__metadata__\":{\"x\":1},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4 },
		{ " {\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4 },
		{ "{\"a\":7}", 0 },
		{ "[1]", 0 },
		{ "{\"a\":{\"dtype\":\"F32\"", 0 },
	};
	struct lwm_err e;
	assert_int_equal(open_text("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}   ", 8, &e), 0);
	assert_int_equal(open_text("{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
				   "\"z\":{\"dtype\":\"I8\",\"shape\":[0,3],\"data_offsets\":[4,4]}}",
				   4, &e),
			 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		if (open_text(bad[i].header, bad[i].data, &e) != -LWM_EDATA)
			fail_msg("accepted: %s", bad[i].header);
		assert_non_null(strstr(e.msg, "t.safetensors"));
	}
	struct lwm_st *st;
	spill(at("t.safetensors"), "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
	assert_int_equal(lwm_st_open(&st, at("t.safetensors"), NULL), -LWM_EDATA);
	spill(at("t.safetensors"), "\x02", 1);
	assert_int_equal(lwm_st_open(&st, at("t.safetensors"), NULL), -LWM_EDATA);
}

static int64_t find_tensor(const struct lwm_st *st, const char *name)
{
	int64_t i = 0;
	while (i < lwm_st_count(st) && strcmp(lwm_st_get_tensor(st, i)->name, name))
		i++;
	assert_true(i < lwm_st_count(st));
	return i;
}

static void other_number_types(void **state)
{
	(void)state;
	static const char header[] = "{\"h\":{\"dtype\":\"F16\",\"shape\":[6],\"data_offsets\":[1,13]},"
				     "\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
				     "\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[13,21]}}";
	static const uint16_t half[6] = { 0x3c00, 0xc000, 0x0001, 0x7c00, 0x7e00, 0x03ff }; /* at an odd place */
	struct lwm_err e = { 0 };
	struct lwm_st *st;
	char buf[512] = { 0 };
	uint64_t n = strlen(header);
	double d = -2.5;
	float v[6];
	memcpy(buf, &n, 8);
	memcpy(buf + 8, header, n);
	memcpy(buf + 8 + n + 1, half, 12);
	memcpy(buf + 8 + n + 13, &d, 8);
	spill(at("h.safetensors"), buf, 8 + n + 21);
	must(lwm_st_open(&st, at("h.safetensors"), &e), &e);
	must(lwm_st_read(st, find_tensor(st, "h"), 0, 6, v, &e), &e);
	assert_true(v[0] == 1 && v[1] == -2 && v[2] == 0x1p-24f && isinf(v[3]) && isnan(v[4]) &&
		    v[5] == 1023 * 0x1p-24f);
	must(lwm_st_read(st, find_tensor(st, "d"), 0, 1, v, &e), &e);
	assert_true(v[0] == -2.5f);
	assert_int_equal(lwm_st_read(st, find_tensor(st, "u"), 0, 1, v, NULL), -LWM_EDATA);
	assert_int_equal(lwm_st_read(st, find_tensor(st, "h"), 5, 2, v, NULL), -LWM_EDATA);
	assert_int_equal(lwm_st_check(st, NULL), -LWM_ENO);
	lwm_st_close(st);
}

/* Several MiB, so that values cross the borders of blocks, and a float at a place that is not a multiple of 4. */
static void long_tensors(void **state)
{
	(void)state;
	enum { N = 700001 };
	struct lwm_st_tensor t[3] = { { "a", LWM_ST_BF16, 1, { 3 }, 0, 0, 0 },
				      { "b", LWM_ST_F32, 1, { N }, 0, 0, 0 },
				      { "c", LWM_ST_BF16, 2, { N, 1 }, 0, 0, 0 } };
	struct lwm_err e = { 0 };
	struct lwm_st_writer *w;
	struct lwm_st *st;
	float *v = malloc((3 + 2 * N) * sizeof *v), *got = malloc(N * sizeof *got);
	for (int64_t i = 0; i < 3 + 2 * N; i++)
		v[i] = val(1, i);
	v[5] = NAN;
	v[3 + N] = NAN;
	must(lwm_st_create(&w, at("l.safetensors"), t, 3, NULL, false, &e), &e);
	for (int64_t i = 0; i < 3 + 2 * N; i += 99991)
		must(lwm_st_write(w, v + i, 3 + 2 * N - i < 99991 ? 3 + 2 * N - i : 99991, &e), &e);
	assert_int_equal(lwm_st_write(w, v, 1, NULL), -LWM_EINTERNAL);
	must(lwm_st_commit(w, NULL, &e), &e);
	must(lwm_st_open(&st, at("l.safetensors"), &e), &e);
	must(lwm_st_read(st, find_tensor(st, "b"), 0, N, got, &e), &e);
	assert_memory_equal(got, v + 3, N * sizeof *got);
	must(lwm_st_read(st, find_tensor(st, "c"), 0, N, got, &e), &e);
	assert_true(isnan(got[0]));
	for (int64_t i = 1; i < N; i++)
		assert_true(got[i] == widen(bf16(v[3 + N + i])));
	must(lwm_st_check(st, &e), &e);
	lwm_st_close(st);
	flip(at("l.safetensors"), 2500000, 1);
	must(lwm_st_open(&st, at("l.safetensors"), &e), &e);
	assert_int_equal(lwm_st_read(st, 1, 0, N, got, NULL), -LWM_EDATA);
	must(lwm_st_read(st, 1, 0, 1000, got, &e), &e); /* what is whole is still read */
	lwm_st_close(st);
	free(v);
	free(got);
}

static void every_flip_and_cut_is_seen(void **state)
{
	(void)state;
	struct lwm_model *m;
	size_t n;
	char file[128], dir[128];
	write_lm(at("fl"), LWM_ST_F32, 0, NULL, false);
	snprintf(dir, sizeof dir, "%s", at("fl"));
	snprintf(file, sizeof file, "%s", at("fl/model.safetensors"));
	char *s = slurp(file, &n);
	for (size_t i = 0; i < n; i += i < 4096 ? 1 : 7) {
		struct lwm_err e = { 0 };
		flip(file, i, (unsigned char)(1u << i % 8));
		int rc = lwm_model_open(&m, dir, &e);
		if (rc == 0) { /* only the names of the sums themselves: the values are whole */
			float v[1600];
			for (int64_t t = 0; t < LM; t++) {
				int64_t k = size_of(&lm[t]);
				must(lwm_model_read_named(m, &lm[t], 0, k, v, &e), &e);
				for (int64_t j = 0; j < k; j++)
					assert_true(v[j] == val(t, j));
			}
		} else {
			assert_true(rc == -LWM_EDATA && e.msg[0]);
		}
		lwm_model_close(m);
		flip(file, i, (unsigned char)(1u << i % 8));
	}
	for (size_t k = 0; k < n; k += k < 4096 ? 1 : 31) {
		spill(file, s, k);
		assert_int_equal(lwm_model_open(&m, dir, NULL), -LWM_EDATA);
	}
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(language_model),     cmocka_unit_test(bfloat_in_several_files),
		cmocka_unit_test(replacing_a_folder), cmocka_unit_test(tokenizer_model),
		cmocka_unit_test(headers_that_lie),   cmocka_unit_test(other_number_types),
		cmocka_unit_test(long_tensors),       cmocka_unit_test(every_flip_and_cut_is_seen),
	};
	return cmocka_run_group_tests_name("io_model", tests, scratch_make, scratch_remove);
}
