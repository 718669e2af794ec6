/* test_samples.c - files of samples (--sample-every): what is in them is what evaluations judge, and training does not notice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/base/log.h"
#include "common/media/frames.h"
#include "common/media/picture.h"
#include "common/model/vqgan.h"
#include "common/train/clips.h"
#include "tests/unit/train_probe.h"

enum { PIXELS = 16, ONE = PIXELS * PIXELS * 3, FRAMES = 4, CLIPS = 14, HELD = 3, STEPS = 6, EVERY = 2 };
enum { TEXTS = 24 /* ids below that are text, the others codes and two markers */ };
enum { ZOOM = 4, CELL = PIXELS * ZOOM, GAP = 2 }; /* of a sheet */

static char root[128], media[160], held[160], row_file[160], held_rows[160];

/* A square that moves, of a colour of its own; each quarter of the ground behind it is of another one. */
static int make_clips(const char *dir, int first, int n, struct lwm_err *e)
{
	for (int k = first; k < first + n; k++) {
		uint8_t rgb[FRAMES][PIXELS][PIXELS][3];
		char path[256];

		for (int t = 0; t < FRAMES; t++)
			for (int i = 0; i < PIXELS * PIXELS; i++) {
				int y = i / PIXELS, x = i % PIXELS, at = (2 * k + 2 * t) % PIXELS;
				bool in = x >= at && x < at + 6 && y >= k % 10 && y < k % 10 + 6;

				rgb[t][y][x][0] = (uint8_t)(in ? 60 + 31 * k % 190 : 30);
				rgb[t][y][x][1] = (uint8_t)(in ? 60 + 67 * k % 190 : 30 + 60 * (y / 8 * 2 + x / 8));
				rgb[t][y][x][2] = (uint8_t)(in ? 200 : 30 + 5 * k % 60);
			}
		snprintf(path, sizeof path, "%s/c%02d.mp4", dir, k);
		LWM_TRY(lwm_video_write(path, &rgb[0][0][0][0], FRAMES, PIXELS, PIXELS, 4, false, e));
	}
	return 0;
}

static int set_up(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	lwm_log_init("test_samples", LWM_ERROR);
	snprintf(root, sizeof root, "/tmp/lwm-test-samples-%ld", (long)getpid());
	snprintf(media, sizeof media, "%s/media", root);
	snprintf(held, sizeof held, "%s/held", root);
	LWM_TRY(lwm_mkdirs(media, &e));
	LWM_TRY(lwm_mkdirs(held, &e));
	LWM_TRY(make_clips(media, 0, CLIPS, &e));
	LWM_TRY(make_clips(held, 40, HELD, &e));
	snprintf(row_file, sizeof row_file, "%s/rows.h5", root);
	snprintf(held_rows, sizeof held_rows, "%s/held.h5", root);
	LWM_TRY(fx_rows_of(row_file, TEXTS, &e));
	return fx_rows_of(held_rows, TEXTS, &e);
}

static int tear_down(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	return lwm_remove_tree(root, &e);
}

static void *value_of(const struct lwm_stage *s, const char *option)
{
	struct lwm_setting_at all[LWM_SETTINGS_MAX];
	int n = lwm_settings_list(s, all), i = 0;

	while (i < n && (!all[i].set->opt.name || strcmp(all[i].set->opt.name, option)))
		i++;
	assert_true(i < n);
	return all[i].value;
}

static const char *const objectives[] = { "next-frame", "masked", "reconstruction", "diffusion", "next-token" };
enum { OBJECTIVES = sizeof objectives / sizeof *objectives };

static void stage_of(struct lwm_stage *s, const char *objective, char out[160], const char *name)
{
	struct lwm_err e = { 0 };
	int i = 0;

	while (lwm_objective_names[i] && strcmp(lwm_objective_names[i], objective))
		i++;
	assert_non_null(lwm_objective_names[i]);
	snprintf(out, 160, "%s/%s-%s", root, objective, name);
	bool text = !strcmp(objective, "next-token");
	must(fx_stage(s, text ? row_file : media, out, &e), &e);
	must(lwm_paths_add(&s->eval_data, text ? held_rows : held, &e), &e);
	s->objective = i;
	s->frames.size = PIXELS;
	s->frames.patch = 8;
	s->frames.clip = FRAMES;
	s->frames.patch_frames = strcmp(objective, "masked") ? 1 : 2;
	s->frames.batch = 4;
	s->steps = STEPS;
	s->sample_every = EVERY;
	s->samples = HELD;
	lwm_next_token_of(s)->init_std = 0.1;
	*(int *)value_of(s, "mask-targets") = 1; /* plain */
	*(const char **)value_of(s, "clean-odds") = "1,2";
	*(int64_t *)value_of(s, "sample-steps") = 3;
	if (!strcmp(objective, "reconstruction")) {
		s->model = "tiny";
		*(int64_t *)value_of(s, "resolution") = PIXELS;
		*(int64_t *)value_of(s, "hidden") = 4;
		*(int64_t *)value_of(s, "groups") = 2;
		*(int64_t *)value_of(s, "codes") = 16;
		*(int64_t *)value_of(s, "batch-frames") = 4;
		*(int64_t *)value_of(s, "probe-frames") = 8;
		*(const char **)value_of(s, "channel-mult") = "1,2,2";
		s->samples = HELD * FRAMES;
	}
	if (text) {
		s->samples = 5;
		lwm_next_token_of(s)->sample_given = 8;
		lwm_next_token_of(s)->sample_tokens = 20; /* 4 at a time, and one more */
		lwm_next_token_of(s)->sample_temperature = 0.5;
	}
}

static void train(struct lwm_stage *s, int ranks, int want)
{
	struct lwm_err e = { 0 };
	int rc = lwm_comm_threads(ranks, run_on, s, &e);

	if (rc != want)
		fail_msg("%d, expected %d: %s", rc, want, e.msg);
}

/* ---- what is in a sheet ---- */

/* PSNR of what stands in cell b, of what stands in cell a. */
static double square_of(const uint8_t *a, const uint8_t *b)
{
	double sum = 0;

	for (int i = 0; i < ONE; i++)
		sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
	return sum / ONE / (127.5 * 127.5);
}

/* The sheet of a step: (rows, columns) frames, not enlarged. Freed by the caller. */
static uint8_t *read_sheet(const char *out, int64_t step, int rows, int columns)
{
	int width = columns * (CELL + GAP) + GAP, height = rows * (CELL + GAP) + GAP;
	struct lwm_frames_opts how = { .max_frames = 1 };
	struct lwm_frames_info info;
	struct lwm_err e = { 0 };
	uint8_t *rgb, *cells = malloc((size_t)(rows * columns * ONE));
	char path[256];
	int64_t n;

	snprintf(path, sizeof path, "%s/samples/step-%08d.png", out, (int)step);
	must(lwm_frames_read(path, &how, 1 << 24, &rgb, &n, &info, &e), &e);
	assert_true(n == 1 && info.width == width && info.height == height);
	for (int i = 0; i < rows * columns * PIXELS * PIXELS; i++) {
		int cell = i / (PIXELS * PIXELS), y = i / PIXELS % PIXELS, x = i % PIXELS;
		int down = GAP + cell / columns * (CELL + GAP) + y * ZOOM, right = GAP + cell % columns * (CELL + GAP) + x * ZOOM;
		const uint8_t *p = rgb + 3 * (down * width + right), *end = p + 3 * ((ZOOM - 1) * width + ZOOM - 1);

		assert_memory_equal(p, end, 3); /* enlarged by whole pixels */
		memcpy(cells + 3 * i, p, 3);
	}
	free(rgb);
	return cells;
}

static void read_held(uint8_t truth[HELD][FRAMES][ONE])
{
	for (int k = 0; k < HELD; k++) {
		struct lwm_frames_opts how = { .width = PIXELS, .height = PIXELS };
		struct lwm_err e = { 0 };
		char path[256];
		uint8_t *rgb;
		int64_t n;

		snprintf(path, sizeof path, "%s/c%02d.mp4", held, 40 + k);
		must(lwm_frames_read(path, &how, 1 << 24, &rgb, &n, NULL, &e), &e);
		assert_int_equal(n, FRAMES);
		memcpy(truth[k], rgb, (size_t)FRAMES * ONE);
		free(rgb);
	}
}

static void psnr_is(const char *out, const char *key, double square, double within)
{
	json_t *x = probe_events(out, "eval");
	double said = probe_number(x, json_array_size(x) - 1, key), seen = lwm_psnr(square);

	json_decref(x);
	if (!(fabs(said - seen) <= within))
		fail_msg("%s: the evaluation says %s %.6f, the picture %.6f", out, key, said, seen);
}

/* All clips that are judged are in the sheet: what is seen there is what the evaluation says. */
static void forecasts(void **state)
{
	static uint8_t truth[HELD][FRAMES][ONE];
	double square[2] = { 0 };
	struct lwm_stage s;
	char out[160];

	(void)state;
	read_held(truth);
	stage_of(&s, "next-frame", out, "seen");
	s.frames.at_once = 2;
	train(&s, 1, 0);
	uint8_t *sheet = read_sheet(out, s.steps, 2 * HELD, FRAMES);
	for (int k = 0; k < HELD; k++) {
		const uint8_t *came = sheet + 2 * k * FRAMES * ONE, *made = came + FRAMES * ONE;

		assert_memory_equal(came, truth[k], FRAMES * ONE);
		assert_memory_equal(made, truth[k], 2 * ONE); /* half of them are given */
		for (int t = 0; t < 2; t++)
			square[t] += square_of(came + (2 + t) * ONE, made + (2 + t) * ONE) / HELD;
	}
	psnr_is(out, "psnr_1", square[0], 1e-3);
	psnr_is(out, "psnr_2", square[1], 1e-3);
	free(sheet);
	lwm_stage_release(&s);
}

static bool patch_is(const uint8_t *frame, int patch, const uint8_t *of, int level)
{
	for (int i = 0; i < 64; i++)
		for (int c = 0; c < 3; c++) {
			int at = 3 * ((patch / 2 * 8 + i / 8) * PIXELS + patch % 2 * 8 + i % 8) + c;

			if (frame[at] != (of ? of[at] : level))
				return false;
		}
	return true;
}

/* One place of four is seen: in the middle row the others are grey, in the last one they are predicted. */
static void hidden_places(void **state)
{
	static uint8_t truth[HELD][FRAMES][ONE];
	double square = 0;
	struct lwm_stage s;
	char out[160];

	(void)state;
	read_held(truth);
	stage_of(&s, "masked", out, "seen");
	s.frames.at_once = 2;
	s.schedule.lr = 1e-2;
	s.steps = 100; /* until other places have other predictions */
	train(&s, 1, 0);
	uint8_t *sheet = read_sheet(out, s.steps, 3 * HELD, FRAMES);
	for (int i = 0; i < HELD * FRAMES; i++) {
		const uint8_t *came = sheet + (i / FRAMES * 3 * FRAMES + i % FRAMES) * ONE, *seen = came + FRAMES * ONE;
		const uint8_t *made = seen + FRAMES * ONE;
		int places = 0;

		assert_memory_equal(came, truth[i / FRAMES][i % FRAMES], ONE);
		for (int k = 0; k < 4; k++) {
			bool there = patch_is(seen, k, came, 0);

			assert_true(there || patch_is(seen, k, NULL, 128));
			assert_int_equal(there, patch_is(made, k, came, 0));
			places += there;
		}
		assert_int_equal(places, 1);
		square += square_of(came, made) * 4 / 3 / HELD / FRAMES; /* of what was hidden alone */
	}
	psnr_is(out, "psnr", square, 0.01); /* bytes are cut and rounded */
	free(sheet);
	lwm_stage_release(&s);
}

static void reconstructions(void **state)
{
	static uint8_t truth[HELD][FRAMES][ONE];
	double square = 0;
	struct lwm_stage s;
	char out[160];

	(void)state;
	read_held(truth);
	stage_of(&s, "reconstruction", out, "seen");
	train(&s, 1, 0);
	uint8_t *sheet = read_sheet(out, s.steps, 2, HELD * FRAMES);
	assert_memory_equal(sheet, truth, HELD * FRAMES * ONE);
	for (int i = 0; i < HELD * FRAMES; i++)
		square += square_of(sheet + i * ONE, sheet + (HELD * FRAMES + i) * ONE) / HELD / FRAMES;
	psnr_is(out, "psnr", square, 0.1);
	free(sheet);
	lwm_stage_release(&s);
}

/* ---- and training ---- */

static void same_training(const char *a, const char *b)
{
	double x[STEPS], y[STEPS];
	struct lwm_hash ha, hb;
	struct lwm_err e = { 0 };

	assert_int_equal(fx_losses(a, x, STEPS), STEPS);
	assert_int_equal(fx_losses(b, y, STEPS), STEPS);
	assert_memory_equal(x, y, sizeof x);
	must(fx_state(a, &ha, &e), &e);
	must(fx_state(b, &hb, &e), &e);
	assert_string_equal(ha.hex, hb.hex);
}

/* The files that metrics.jsonl names, one for each step that is due, are those of both. */
static void same_samples(const char *a, const char *b)
{
	json_t *x = probe_events(a, "sample"), *y = probe_events(b, "sample");

	assert_int_equal(json_array_size(x), STEPS / EVERY);
	assert_int_equal(json_array_size(y), STEPS / EVERY);
	for (size_t i = 0; i < STEPS / EVERY; i++) {
		const char *file = json_string_value(json_object_get(json_array_get(x, i), "file"));
		struct lwm_err e = { 0 };
		char path[320], *p[2];
		size_t n[2];

		assert_true(probe_number(x, i, "step") == (double)((i + 1) * EVERY));
		assert_string_equal(file, json_string_value(json_object_get(json_array_get(y, i), "file")));
		for (int k = 0; k < 2; k++) {
			snprintf(path, sizeof path, "%s/%s", k ? b : a, file);
			must(lwm_read_file(path, 1 << 24, &p[k], &n[k], &e), &e);
		}
		assert_true(n[0] == n[1] && n[0] > 20);
		assert_memory_equal(p[0], p[1], n[0]);
		free(p[0]);
		free(p[1]);
	}
	json_decref(x);
	json_decref(y);
}

/* Without samples, stopped and resumed, stopped where samples are due: the same weights and losses; and the same files. */
static void training_does_not_notice(void **state)
{
	(void)state;
	for (int k = 0; k < OBJECTIVES; k++) {
		char with[160], without[160], parts[160];
		struct lwm_stage s;

		stage_of(&s, objectives[k], with, "with");
		train(&s, 1, 0);
		lwm_stage_release(&s);
		stage_of(&s, objectives[k], without, "without");
		s.sample_every = 0;
		train(&s, 1, 0);
		lwm_stage_release(&s);
		same_training(with, without);
		for (int stop = 3; stop >= 0; stop -= stop == 3 ? 2 : 1) { /* 3 steps, 1, and what is left */
			stage_of(&s, objectives[k], parts, "parts");
			s.stop_after = stop;
			train(&s, 1, stop ? -LWM_ESAVED : 0);
			lwm_stage_release(&s);
		}
		same_training(with, parts);
		same_samples(with, parts);
	}
}

/* On ranks that share weights and on some that do not: all go through the same passes, one writes. */
static void on_ranks(void **state)
{
	static const struct { int ranks; const char *mesh; int shards; } t[] = {
		{ 1, "1,1,1,1", LWM_SHARD_FALSE }, { 2, "2,1,1,1", LWM_SHARD_FALSE }, { 2, "1,2,1,1", LWM_SHARD_TRUE },
		{ 2, "1,1,2,1", LWM_SHARD_FALSE } };

	(void)state;
	for (int k = 0; k < OBJECTIVES; k++) {
		bool text = !strcmp(objectives[k], "next-token");
		char out[160], one[160];

		for (size_t i = 0; i < sizeof t / sizeof *t - !text; i++) {
			struct lwm_stage s;

			stage_of(&s, objectives[k], i ? out : one, t[i].mesh);
			s.mesh_dim = t[i].mesh;
			s.shard_weights = strcmp(objectives[k], "reconstruction") ? t[i].shards : LWM_SHARD_FALSE;
			lwm_next_token_of(&s)->sample_temperature = 0;
			train(&s, t[i].ranks, 0);
			same_samples(i && text ? one : i ? out : one, i ? out : one);
			lwm_stage_release(&s);
		}
	}
}

/* ---- texts ---- */

/* Of the file of the last step; freed by the caller. */
static char *read_texts(const char *out)
{
	struct lwm_err e = { 0 };
	char path[256], *text;
	size_t n;

	snprintf(path, sizeof path, "%s/samples/step-%08d.txt", out, STEPS);
	must(lwm_read_file(path, 1 << 20, &text, &n, &e), &e);
	return text;
}

/* One piece of a line of ids: a number of a token of text, -1 a code, -2 "end of frame", -3 "end of vision". NULL: the line ends. */
static const char *next_piece(const char *p, int *kind)
{
	while (*p == ' ')
		p++;
	if (*p == '\n' || !*p)
		return NULL;
	if (!strncmp(p, "<end of frame>", 14)) {
		*kind = -2;
		return p + 14;
	}
	if (!strncmp(p, "<end of vision>", 15)) {
		*kind = -3;
		return p + 15;
	}
	if (*p == '<') {
		assert_true(strtol(p + 1, NULL, 10) < FX_VOCAB - TEXTS - 2);
		*kind = -1;
		return strchr(p, '>') + 1;
	}
	*kind = (int)strtol(p, (char **)(uintptr_t)&p, 10);
	assert_true(*kind >= 0 && *kind < TEXTS);
	return p;
}

/* Rows of no tokenizer at hand: ids. In these documents ids count upwards, so it is known how they go on; codes follow codes until
 * their end is drawn, tokens of text follow text, and what comes first is of the kind that came. */
static void texts_and_codes(void **state)
{
	struct lwm_stage s;
	char out[160], *text, *p;
	int texts = 0, after_code = 0, first_code = 0;

	(void)state;
	stage_of(&s, "next-token", out, "seen");
	s.samples = 24;
	lwm_next_token_of(&s)->sample_temperature = 2;
	train(&s, 1, 0);
	p = text = read_texts(out);
	assert_non_null(strstr(text, "step 6, held-out documents, tokens drawn\n\n==== 1: "));
	for (int at = 1; (p = strstr(p, "==== ")); at++) {
		const char *q;
		int kind[3] = { 0 }, first[3] = { 0 }, n[3] = { 0 }, given, last = 0;

		assert_int_equal(strtol(p + 5, &p, 10), at);
		given = (int)strtol(p + 1, NULL, 10);
		assert_true(given >= 2 && given <= 8);
		for (int part = 0; part < 3; part++) { /* given, added, in the document */
			p = strchr(p, '\n') + 1;
			q = p;
			for (last = 0; (q = next_piece(q, &kind[part])); n[part]++) {
				first[part] = n[part] ? first[part] : kind[part];
				if (part == 1 && n[part]) {
					bool code = last == -1 || last == -2;
					assert_int_equal(code, kind[part] < 0);
					after_code += code;
				}
				last = kind[part];
			}
			p = strchr(p, '\n') + 1; /* to the line between */
		}
		assert_true(n[0] == given && n[1] == 20 && n[2] >= given && n[2] <= 20);
		assert_true((first[1] < 0) == (first[2] < 0));
		first_code += first[1] < 0;
		texts++;
	}
	assert_true(texts == 24 && first_code > 2 && first_code < 22 && after_code > 20);
	free(text);
	lwm_stage_release(&s);
}

/* Check, plan and run have the same judge. */
static void refused(void **state)
{
	struct lwm_str text = { 0 };
	struct lwm_err e[2] = { { 0 } };
	struct lwm_stage s;
	char out[160];

	(void)state;
	stage_of(&s, "contrastive", out, "refused");
	assert_int_equal(lwm_stage_plan(&s, 1, false, &text, &e[0]), -LWM_ECONFIG);
	assert_string_equal(e[0].msg, "--sample-every: the objective contrastive has nothing that could be shown");
	assert_int_equal(lwm_comm_threads(1, run_on, &s, &e[1]), -LWM_ECONFIG);
	assert_non_null(strstr(e[1].msg, e[0].msg));
	lwm_stage_release(&s);
	stage_of(&s, "next-token", out, "refused");
	s.mesh_dim = "1,1,1,2";
	lwm_err_clear(&e[1]);
	assert_int_equal(lwm_comm_threads(2, run_on, &s, &e[1]), -LWM_ECONFIG);
	assert_non_null(strstr(e[1].msg, "--sample-every: with sp > 1 (mesh_dim '1,1,1,2')"));
	s.sample_every = 0;
	lwm_err_clear(&e[0]);
	must(lwm_stage_check(&s, 2, &e[0]), &e[0]);
	lwm_str_release(&text);
	lwm_stage_release(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(forecasts), cmocka_unit_test(hidden_places),
					    cmocka_unit_test(reconstructions), cmocka_unit_test(training_does_not_notice),
					    cmocka_unit_test(on_ranks), cmocka_unit_test(texts_and_codes),
					    cmocka_unit_test(refused) };

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
