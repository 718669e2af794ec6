/* Files written by earlier versions stay readable: what is in tests/golden is never written again, a new format gets a new
 * folder. io-2: the model of io-1 with a manifest that names every file. io-3: rows as lwm-rows-2; the checkpoint of io-1 with a
 * record that tells the slices of each part.
 *
 *	build/rel/tests/unit/test_io_golden --make DIR      writes such a folder
 */
#include "tests/unit/io_fault.h"
#include "tests/unit/tensor_table.h"

#include "common/io/inspect.h"
#include "common/io/merge.h"
#include "common/io/rowshard.h"

static const struct lwm_tensor table[] = { { .name = "model.norm.weight", .ndim = 1, .shape = { 12 } },
						{ .name = "model.layers.0.self_attn.q_proj.weight", .ndim = 2, .shape = { 8, 6 } } };

static void write_docs(const char *path)
{
	struct lwm_docs_meta m = { 300, 20, "0123456789abcdef0123456789abcdef", "golden 1", "{}", "bos" };
	struct lwm_loss_run runs[2] = { { 0, 0 }, { 4, 1 } };
	struct lwm_docs_writer *w;
	struct lwm_err e = { 0 };
	int32_t t[20];
	for (int i = 0; i < 20; i++)
		t[i] = i * 16;
	must(lwm_docs_create(&w, path, &m, true, &e), &e);
	must(lwm_docs_append(w, "first", "a picture", t, 20, runs, 2, &e), &e);
	must(lwm_docs_append(w, "second", NULL, t + 3, 7, NULL, 0, &e), &e);
	must(lwm_docs_reject(w, "too short", 2, &e), &e);
	must(lwm_docs_commit(w, &e), &e);
}

static void write_rows(const char *path)
{
	struct lwm_rows_meta m = { 16, 70000, 0, "", "golden 1", "", "per_token" };
	struct lwm_segment seg[2] = { { 0, 5, 0, 4 }, { 7, 9, 0, 5 } };
	struct lwm_rows_writer *w;
	struct lwm_err e = { 0 };
	int32_t t[16];
	for (int i = 0; i < 16; i++)
		t[i] = 69999 - i;
	must(lwm_rows_create(&w, path, &m, true, &e), &e);
	must(lwm_rows_append(w, t, seg, 2, NULL, 0, &e), &e);
	must(lwm_rows_commit(w, &e), &e);
}

static int put_bytes(void *ctx, const char *dir, struct lwm_err *e)
{
	char *path = lwm_path_join(dir, "tokenizer.txt");
	(void)ctx;
	(void)e;
	spill(path, "bytes\n", 6);
	free(path);
	return 0;
}

static void write_ckpt(const char *root)
{
	struct lwm_err e = { 0 };
	struct lwm_ckpt_part part[2];
	struct lwm_ckpt *c;
	float v[2][48];
	char *dir = lwm_ckpt_dir(root, 3);
	json_t *config = json_pack("{s:{s:i,s:i}}", "model", "hidden_size", 8, "num_attention_heads", 2);
	for (int i = 0; i < 48; i++) {
		v[0][i] = (float)i * 0.5f;
		v[1][i] = (float)(i + 24) * 0.5f;
	}
	struct lwm_ckpt_slice s[3] = { { 1, 0, 3, 8, 6, { v[0], v[0], v[0] } },
				       { 0, 0, 12, 1, 0, { v[0], v[0], v[0] } },
				       { 1, 3, 3, 8, 6, { v[1], v[1], v[1] } } };
	for (int r = 0; r < 2; r++) {
		struct lwm_ckpt_out o = { dir, r, TABLE(table, 2), s + 2 * r, r ? 1 : 2, LWM_CKPT_TRAINED_ALL, NULL, NULL, NULL };
		must(lwm_ckpt_write_part(&o, &part[r], &e), &e);
	}
	struct lwm_ckpt_meta m = { "lwm", 3, "1,1,2,1", 2, config, NULL, "", "", LWM_CKPT_TRAINED_ALL };
	must(lwm_ckpt_commit(dir, &m, TABLE(table, 2), part, 2, s, &e), &e);
	struct lwm_model_spec spec = { .dtype = LWM_ST_BF16, .max_file_bytes = 50, .extra = put_bytes,
				       .tokenizer = "0123456789abcdef0123456789abcdef" };
	char *model = lwm_path_join(root, "model");
	must(lwm_ckpt_open(&c, dir, &e), &e);
	must(lwm_merge_model(c, LWM_CKPT_PARAMS, false, model, &spec, true, NULL, &e), &e);
	lwm_ckpt_close(c);
	json_decref(config);
	free(model);
	free(dir);
}

static const char *golden_of(int number, const char *name)
{
	static char buf[4][128];
	static int i;
	i = (i + 1) % 4;
	snprintf(buf[i], sizeof buf[i], "tests/golden/io-%d/%s", number, name);
	return buf[i];
}

static const char *golden(const char *name)
{
	return golden_of(1, name);
}

static void documents(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_docs *d;
	struct lwm_doc doc;
	int32_t t[20];
	must(lwm_docs_open(&d, golden("a.docs.h5"), &e), &e);
	must(lwm_docs_get(d, 0, &doc, &e), &e);
	assert_string_equal(doc.id, "first");
	assert_string_equal(doc.source, "a picture");
	assert_true(doc.n == 20 && doc.nruns == 2 && doc.runs[1].start == 4);
	must(lwm_docs_read(d, 1, 0, 7, t, &e), &e);
	for (int i = 0; i < 7; i++)
		assert_int_equal(t[i], (i + 3) * 16);
	assert_int_equal(lwm_docs_manifest(d)->rejected, 2);
	assert_string_equal(lwm_docs_get_meta(d)->policy, "bos");
	lwm_docs_close(d);
}

static void rows(void **state)
{
	(void)state;
	for (int number = 1; number <= 3; number += 2) {
		struct lwm_err e = { 0 };
		struct lwm_rows_reader *r;
		struct lwm_row row = { 0 };
		must(lwm_rows_open(&r, golden_of(number, "a.rows.h5"), &e), &e);
		must(lwm_rows_read(r, 0, &row, &e), &e);
		assert_true(row.nseg == 2 && row.seg[1].start == 7 && row.seg[1].doc == 5 && row.seg[1].n_loss == 8);
		assert_true(row.tokens[6] == 0);
		assert_int_equal(row.tokens[8], 69991);
		lwm_row_release(&row);
		lwm_rows_close(r);
		must(lwm_check_thing(golden_of(number, "a.rows.h5"), LWM_THING_ROWS, &e), &e);
	}
}

static void checkpoint_and_model(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_ckpt *c;
	float v[48];
	for (int number = 1; number <= 3; number += 2) { /* lwm-checkpoint-1 and -2 */
		must(lwm_ckpt_open(&c, golden_of(number, "step_00000003"), &e), &e);
		must(lwm_ckpt_read(c, LWM_CKPT_ADAM_M, 1, 0, 48, v, &e), &e);
		for (int i = 0; i < 48; i++) /* row i / 6; the first three columns are rank 0's */
			assert_true(v[i] == (float)(i / 6 * 3 + i % 3 + (i % 6 < 3 ? 0 : 24)) * 0.5f);
		must(lwm_merge_verify_model(c, LWM_CKPT_PARAMS, false, golden("model"), LWM_ST_BF16, NULL, &e), &e);
		must(lwm_merge_verify_model(c, LWM_CKPT_PARAMS, false, golden_of(2, "model"), LWM_ST_BF16, NULL, &e), &e);
		lwm_ckpt_close(c);
	}
}

/* The first manifests of models say nothing about tokenizers. */
static void what_models_say_of_their_tokenizer(void **state)
{
	(void)state;
	struct lwm_err e = { 0 };
	struct lwm_model *m;
	must(lwm_model_open(&m, golden("model"), &e), &e);
	assert_string_equal(lwm_model_tokenizer_hash(m), "");
	assert_null(lwm_model_tokenizer(m));
	lwm_model_close(m);
	must(lwm_model_open(&m, golden_of(2, "model"), &e), &e);
	assert_string_equal(lwm_model_tokenizer_hash(m), "0123456789abcdef0123456789abcdef");
	assert_non_null(lwm_model_tokenizer(m));
	lwm_model_close(m);
}

static void all_intact(void **state)
{
	(void)state;
	static const char *const name[] = { "a.docs.h5", "a.rows.h5", "step_00000003", "model" };
	for (int i = 0; i < 4; i++) {
		struct lwm_err e = { 0 };
		enum lwm_thing what;
		must(lwm_thing_of(golden(name[i]), &what, &e), &e);
		assert_int_not_equal(what, LWM_THING_OTHER);
		must(lwm_check_thing(golden(name[i]), what, &e), &e);
	}
	struct lwm_err e = { 0 };
	must(lwm_check_thing(golden_of(2, "model"), LWM_THING_MODEL, &e), &e);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(documents),
		cmocka_unit_test(rows),
		cmocka_unit_test(checkpoint_and_model),
		cmocka_unit_test(what_models_say_of_their_tokenizer),
		cmocka_unit_test(all_intact),
	};
	if (argc == 3 && !strcmp(argv[1], "--make")) {
		snprintf(scratch, sizeof scratch, "%s", argv[2]);
		write_docs(at("a.docs.h5"));
		write_rows(at("a.rows.h5"));
		write_ckpt(argv[2]);
		return 0;
	}
	return cmocka_run_group_tests_name("io_golden", tests, NULL, NULL);
}
