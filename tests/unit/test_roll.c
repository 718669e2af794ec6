/* test_roll.c - clips that go on in rounds: each code is the one that the context asks for, and the context is written down here
 * token by token. */
#include <math.h>

#include "common/infer/roll.h"
#include "tests/unit/llama_fixture.h"

enum { CODES = 6, FRAME = 4, MOST = 64, CLIP = 16 };

struct world {
	struct lwm_llama_cfg cfg;
	struct lk_dev *dev;
	struct lwm_engine *g;
	float *w;
	struct lwm_roll how;
	struct lwm_ids actions[CLIP];
	int32_t codes[CLIP * FRAME];
};

static int32_t head[] = { 1, 5, 9 }, nothing[] = { 11 };
static int32_t acts[CLIP] = { 0, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34 };

static struct lwm_ids ids_of(int32_t *v, int64_t n)
{
	return (struct lwm_ids){ .v = v, .n = n };
}

/* Action t has one token, every third one two. */
static struct world world_new(int64_t rounds, int64_t frames, int64_t overlap, double guide)
{
	struct world x = { .cfg = tiny_cfg(), .dev = device("cpu", 1) };
	int64_t total;

	x.w = weights_new(&x.cfg, &total);
	assert_int_equal(lwm_engine_new(&x.g, x.dev, &x.cfg, x.w, 16, 2, NULL), 0);
	x.how = (struct lwm_roll){ .sampler = { .temperature = 0, .top_p = 1, .seed = 3 }, .guide = guide, .frame_codes = FRAME,
				   .codes = CODES, .rounds = rounds, .frames = frames, .overlap = overlap,
				   .head = ids_of(head, 3), .free = ids_of(nothing, 1) };
	for (int t = 1; t < CLIP; t++)
		x.actions[t] = ids_of(&acts[t], t % 3 ? 1 : t + 1 < CLIP ? 2 : 1);
	for (int i = 0; i < CLIP * FRAME; i++)
		x.codes[i] = i % 5;
	return x;
}

static void world_free(struct world *x)
{
	lwm_engine_free(x->g);
	lk_dev_close(x->dev);
	free(x->w);
}

static void roll(struct world *x, int64_t given, uint64_t sample)
{
	struct lwm_roll_clip clip = { x->codes, given, x->actions, sample };
	struct lwm_err e = { 0 };

	if (lwm_roll_forward(x->g, &x->how, &clip, NULL, NULL, &e))
		fail_msg("%s", e.msg);
}

/* Logits for code i of frame t, in a context that begins with frame `first`. */
static void ask(struct world *x, int64_t first, int64_t t, int64_t i, bool acting, float *logits)
{
	int32_t ids[MOST * 4];
	struct lwm_cache *c;
	int64_t n = 0;

	for (int k = 0; k < 3; k++)
		ids[n++] = head[k];
	for (int64_t f = first; f <= t; f++) {
		if (f > first)
			ids[n++] = (int32_t)(x->cfg.vocab_text + x->cfg.vision_codes); // end of frame
		if (f > first && acting)
			for (int64_t k = 0; k < x->actions[f].n; k++)
				ids[n++] = x->actions[f].v[k];
		else if (f > first)
			ids[n++] = nothing[0];
		for (int64_t k = 0; k < (f < t ? FRAME : i); k++)
			ids[n++] = (int32_t)(x->cfg.vocab_text + x->codes[f * FRAME + k]);
	}
	assert_int_equal(lwm_engine_new_cache(&c, x->g, MOST * 4, NULL), 0);
	assert_int_equal(lwm_prefill(x->g, c, ids, n, NULL), 0);
	assert_int_equal(lwm_engine_read_logits(x->g, LWM_VISION, logits, NULL), 0);
	lwm_cache_free(c);
}

/* Every drawn code is the likeliest one under u + s (c - u). */
static void check_frame(struct world *x, int64_t first, int64_t t, double guide)
{
	float c[1024], u[1024];

	assert_true(x->cfg.vision_rows <= 1024);
	for (int64_t i = 0; i < FRAME; i++) {
		int best = 0;

		ask(x, first, t, i, true, c);
		ask(x, first, t, i, false, u);
		for (int k = 0; k < CODES; k++)
			c[k] = (float)(u[k] + guide * (c[k] - u[k]));
		for (int k = 1; k < CODES; k++)
			best = c[k] > c[best] ? k : best;
		assert_int_equal(x->codes[t * FRAME + i], best);
	}
}

/* 3 rounds of 4 frames, 2 shared: 8 frames; round r draws frames 2 + 2 r and 3 + 2 r after frames 2 r and 1 + 2 r. */
static void a_round_begins_with_the_end_of_the_one_before(void **state)
{
	struct world x = world_new(3, 4, 2, 1);

	(void)state;
	assert_int_equal(lwm_roll_frames(&x.how), 8);
	roll(&x, 2, 0);
	for (int i = 0; i < 2 * FRAME; i++)
		assert_int_equal(x.codes[i], i % 5); // what was given stays
	for (int64_t t = 2; t < 8; t++)
		check_frame(&x, (t - 2) / 2 * 2, t, 1);
	for (int i = 8 * FRAME; i < CLIP * FRAME; i++)
		assert_int_equal(x.codes[i], i % 5); // and nothing behind is touched
	world_free(&x);
}

static void one_given_frame_is_enough(void **state)
{
	struct world x = world_new(2, 4, 3, 1);

	(void)state;
	assert_int_equal(lwm_roll_frames(&x.how), 5);
	roll(&x, 1, 0);
	for (int64_t t = 1; t < 4; t++)
		check_frame(&x, 0, t, 1);
	check_frame(&x, 1, 4, 1);
	world_free(&x);
}

static void guidance_leaves_the_actions_out_of_one_stream(void **state)
{
	struct world x = world_new(2, 5, 1, 3), plain = world_new(2, 5, 1, 1);

	(void)state;
	roll(&x, 1, 0);
	for (int64_t t = 1; t < 9; t++)
		check_frame(&x, (t - 1) / 4 * 4, t, 3);
	roll(&plain, 1, 0);
	assert_memory_not_equal(x.codes, plain.codes, sizeof x.codes);
	x.how.over = LWM_GUIDE_TRIANGLE;
	roll(&x, 1, 0);
	for (int64_t t = 1; t < 9; t++) {
		static const double scale[] = { 1, 2, 3, 2, 1 };

		check_frame(&x, (t - 1) / 4 * 4, t, scale[t - (t - 1) / 4 * 4]);
	}
	world_free(&x);
	world_free(&plain);
}

static void the_triangle_peaks_in_the_middle_of_a_round(void **state)
{
	struct lwm_roll how = { .guide = 2.5, .over = LWM_GUIDE_TRIANGLE, .frames = 25, .rounds = 2, .overlap = 3 };

	(void)state;
	assert_int_equal(lwm_roll_frames(&how), 47); // Vista: 22 n + 3
	assert_true(fabs(lwm_roll_guide(&how, 0) - 1) < 1e-12);
	assert_true(fabs(lwm_roll_guide(&how, 6) - 1.75) < 1e-12);
	assert_true(fabs(lwm_roll_guide(&how, 12) - 2.5) < 1e-12);
	assert_true(fabs(lwm_roll_guide(&how, 24) - 1) < 1e-12);
	how.over = LWM_GUIDE_CONSTANT;
	assert_true(lwm_roll_guide(&how, 0) == 2.5);
}

static void draws_depend_on_sample_and_round_alone(void **state)
{
	struct world x = world_new(1, 5, 1, 1), y = world_new(3, 5, 1, 1);

	(void)state;
	x.how.sampler.temperature = y.how.sampler.temperature = 2;
	roll(&x, 1, 4);
	roll(&y, 1, 4);
	assert_memory_equal(x.codes, y.codes, 5 * FRAME * sizeof *x.codes);
	// where logits hardly matter and places are the same, a round would repeat the one before but for its own draws
	for (int t = 1; t < CLIP; t++)
		y.actions[t] = ids_of(nothing, 1);
	y.how.sampler.temperature = 1e6;
	roll(&y, 1, 4);
	assert_memory_not_equal(y.codes + FRAME, y.codes + 5 * FRAME, 4 * FRAME * sizeof *y.codes);
	memcpy(y.codes, x.codes, sizeof y.codes);
	roll(&x, 1, 5);
	assert_memory_not_equal(x.codes, y.codes, 5 * FRAME * sizeof *x.codes);
	world_free(&x);
	world_free(&y);
}

struct heard {
	int64_t last, stop_at;
};

static int hear(void *arg, int64_t done, struct lwm_err *e)
{
	struct heard *h = arg;

	assert_int_equal(done, h->last + 1);
	h->last = done;
	return done == h->stop_at ? lwm_fail(e, LWM_ESAVED, "enough") : 0;
}

static void progress_counts_all_codes_and_can_stop(void **state)
{
	struct world x = world_new(3, 4, 2, 1);
	struct lwm_roll_clip clip = { x.codes, 1, x.actions, 0 };
	struct heard h = { 0 };

	(void)state;
	assert_int_equal(lwm_roll_forward(x.g, &x.how, &clip, hear, &h, NULL), 0);
	assert_int_equal(h.last, 7 * FRAME);
	h = (struct heard){ .stop_at = 2 * FRAME + 1 };
	assert_int_equal(lwm_roll_forward(x.g, &x.how, &clip, hear, &h, NULL), -LWM_ESAVED);
	world_free(&x);
}

static void what_cannot_be_is_refused(void **state)
{
	static const struct {
		int64_t rounds, frames, overlap, given;
		const char *says;
	} bad[] = {
		{ 1, 3, 3, 1, "a round shares at least one frame, and draws at least one" }, { 1, 3, 0, 1, "rounds of 3 frames, 0 of them shared" },
		{ 2, 5, 2, 3, "begins with 1 to 2" }, { 2, 5, 2, 0, "0 frames to begin with" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct lwm_roll how = { .rounds = bad[i].rounds, .frames = bad[i].frames, .overlap = bad[i].overlap };
		struct lwm_err e = { 0 };

		assert_int_equal(lwm_roll_check(&how, bad[i].given, &e), -LWM_EUSAGE);
		if (!strstr(e.msg, bad[i].says))
			fail_msg("%s", e.msg);
	}
	struct world x = world_new(1, 4, 2, 1);
	struct lwm_roll_clip clip = { x.codes, 3, x.actions, 0 };

	assert_int_equal(lwm_roll_forward(x.g, &x.how, &clip, NULL, NULL, NULL), -LWM_EUSAGE);
	assert_int_equal(lwm_roll_context(&x.how, 2), 3 + 4 * 5 + 3 * 2);
	world_free(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_round_begins_with_the_end_of_the_one_before),
		cmocka_unit_test(one_given_frame_is_enough),
		cmocka_unit_test(guidance_leaves_the_actions_out_of_one_stream),
		cmocka_unit_test(the_triangle_peaks_in_the_middle_of_a_round),
		cmocka_unit_test(draws_depend_on_sample_and_round_alone),
		cmocka_unit_test(progress_counts_all_codes_and_can_stop),
		cmocka_unit_test(what_cannot_be_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
