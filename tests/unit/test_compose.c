/* test_compose.c - answers and frames: the right head, valid codes, markers where they belong, reproducible. */
#include "common/infer/compose.h"
#include "tests/unit/llama_fixture.h"

enum { CODES = 6, FRAME = 4, ROOM = 64 };

struct engine {
	struct lwm_llama_cfg cfg;
	struct lk_dev *dev;
	struct lwm_engine *g;
	float *w;
};

static struct engine engine_new(bool vision)
{
	struct engine x = { .cfg = tiny_cfg(), .dev = device("cpu", 1) };
	int64_t total;

	if (!vision)
		x.cfg.vision_rows = x.cfg.vision_codes = 0;
	x.w = weights_new(&x.cfg, &total);
	assert_int_equal(lwm_engine_new(&x.g, x.dev, &x.cfg, x.w, 16, 2, NULL), 0);
	return x;
}

static void engine_free(struct engine *x)
{
	lwm_engine_free(x->g);
	lk_dev_close(x->dev);
	free(x->w);
}

static struct lwm_cache *cache_new(struct engine *x)
{
	struct lwm_cache *c;

	assert_int_equal(lwm_engine_new_cache(&c, x->g, ROOM, NULL), 0);
	return c;
}

struct heard {
	int32_t id[ROOM];
	int n, stop_at;
};

static int hear(void *arg, int32_t id, double logprob, struct lwm_err *e)
{
	struct heard *h = arg;

	(void)e;
	assert_true(logprob <= 0);
	h->id[h->n++] = id;
	return h->n == h->stop_at;
}

static struct heard answer(struct engine *x, struct lwm_text_run how, int stop_at)
{
	static const int32_t prompt[] = { 1, 5, 9, 36, 39 };
	struct heard h = { .stop_at = stop_at };
	struct lwm_cache *c = cache_new(x);
	struct lwm_err e = { 0 };
	int64_t made;

	assert_int_equal(lwm_prefill(x->g, c, prompt, 5, NULL), 0);
	if (lwm_compose_text(x->g, c, &how, hear, &h, &made, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(made, h.n);
	lwm_cache_free(c);
	return h;
}

static void answers_are_text_and_end(void **state)
{
	struct engine x = engine_new(true);
	struct lwm_text_run how = { .sampler = { .temperature = 1.5, .top_p = 1, .seed = 4 }, .max_tokens = 30,
				    .eos = -1 };
	struct heard a = answer(&x, how, 0), b = answer(&x, how, 0), c;

	(void)state;
	assert_int_equal(a.n, 30);
	assert_memory_equal(a.id, b.id, sizeof a.id);
	for (int i = 0; i < a.n; i++)
		assert_in_range(a.id[i], 0, 36);
	assert_int_equal(answer(&x, how, 7).n, 7);
	how.eos = a.id[11];
	c = answer(&x, how, 0);
	assert_true(c.n <= 11 && !memcmp(a.id, c.id, (size_t)c.n * 4));
	how.eos = -1;
	how.sample = 1;
	c = answer(&x, how, 0);
	assert_memory_not_equal(a.id, c.id, 30 * 4);
	how.max_tokens = 1000; // the context ends first
	assert_int_equal(answer(&x, how, 0).n, ROOM - 5 + 1);
	engine_free(&x);
}

/* Draws frames; ids gets what the context holds then (prompt, codes, markers). */
static void draw(struct engine *x, int streams, double guide, int64_t frames, int32_t *codes)
{
	static const int32_t prompt[] = { 1, 5, 9, 36 };
	struct lwm_frames_plan how = { .image = { .temperature = 1, .top_k = 5, .top_p = 1, .seed = 2 },
				       .video = { .temperature = 0.7, .top_p = 1, .seed = 2 }, .guide_image = guide,
				       .guide_video = guide, .frame_codes = FRAME, .frames = frames };
	struct lwm_frames_streams s = { { cache_new(x), cache_new(x) }, { 36, 36 }, streams };
	struct lwm_err e = { 0 };

	assert_int_equal(lwm_prefill(x->g, s.cache[0], prompt, 3, NULL), 0);
	assert_int_equal(lwm_prefill(x->g, s.cache[1], prompt, 1, NULL), 0);
	if (lwm_compose_frames(x->g, &s, &how, codes, NULL, NULL, &e))
		fail_msg("%s", e.msg);
	assert_int_equal(s.pending[0], lwm_llama_eov(&x->cfg));
	// the marker of the last frame is pending; the token before the first frame was fed
	assert_int_equal(lwm_cache_length(s.cache[0]), 3 + frames * (FRAME + 1));
	lwm_cache_free(s.cache[0]);
	lwm_cache_free(s.cache[1]);
}

static void frames_hold_valid_codes(void **state)
{
	struct engine x = engine_new(true);
	int32_t a[3 * FRAME], b[3 * FRAME], differ = 0;

	(void)state;
	draw(&x, 1, 1, 3, a);
	draw(&x, 2, 1, 3, b);
	assert_memory_equal(a, b, sizeof a); // guidance 1 is no guidance
	draw(&x, 2, 5, 3, b);
	for (int i = 0; i < 3 * FRAME; i++) {
		assert_in_range(a[i], 0, CODES - 1);
		assert_in_range(b[i], 0, CODES - 1);
		differ += a[i] != b[i];
	}
	assert_true(differ > 0);
	engine_free(&x);
}

/* The second frame continues the context "prompt, frame, end of frame", as training rows have it. */
static void a_clip_can_be_continued(void **state)
{
	struct engine x = engine_new(true);
	int32_t all[2 * FRAME], rest[FRAME], prompt[3 + 1 + FRAME] = { 1, 5, 9, 36 };
	struct lwm_frames_plan how = { .image = { .top_p = 1 }, .video = { .temperature = 0.7, .top_p = 1, .seed = 2 },
				       .guide_image = 1, .guide_video = 1, .frame_codes = FRAME, .frames = 1,
				       .before = 1 };
	struct lwm_frames_streams s = { { cache_new(&x), NULL }, { (int32_t)lwm_llama_eof(&x.cfg), 0 }, 1 };

	(void)state;
	draw(&x, 1, 1, 2, all);
	for (int i = 0; i < FRAME; i++)
		prompt[4 + i] = (int32_t)(x.cfg.vocab_text + all[i]);
	assert_int_equal(lwm_prefill(x.g, s.cache[0], prompt, 4 + FRAME, NULL), 0);
	assert_int_equal(lwm_compose_frames(x.g, &s, &how, rest, NULL, NULL, NULL), 0);
	assert_memory_equal(rest, all + FRAME, sizeof rest);
	lwm_cache_free(s.cache[0]);
	engine_free(&x);
}

static void what_cannot_be_is_refused(void **state)
{
	struct engine x = engine_new(true), text = engine_new(false);
	struct lwm_frames_plan how = { .image = { .top_p = 1 }, .video = { .top_p = 1 }, .guide_image = 1,
				       .guide_video = 1, .frame_codes = FRAME, .frames = 13 };
	struct lwm_frames_streams s = { { cache_new(&x), NULL }, { 1, 0 }, 1 };
	struct lwm_frames_streams t = { { cache_new(&text), NULL }, { 1, 0 }, 1 };
	int32_t codes[13 * FRAME];
	struct lwm_err e = { 0 };

	(void)state;
	assert_int_equal(lwm_compose_frames(x.g, &s, &how, codes, NULL, NULL, &e), -LWM_ECONFIG);
	assert_non_null(strstr(e.msg, "65 tokens"));
	how.frames = 1;
	how.codes = CODES + 1;
	assert_int_equal(lwm_compose_frames(x.g, &s, &how, codes, NULL, NULL, NULL), -LWM_ECONFIG);
	how.codes = 2;
	how.image.temperature = 2;
	assert_int_equal(lwm_compose_frames(x.g, &s, &how, codes, NULL, NULL, NULL), 0);
	for (int i = 0; i < FRAME; i++)
		assert_in_range(codes[i], 0, 1);
	assert_int_equal(lwm_compose_frames(text.g, &t, &how, codes, NULL, NULL, NULL), -LWM_ECONFIG);
	lwm_cache_free(s.cache[0]);
	lwm_cache_free(t.cache[0]);
	engine_free(&x);
	engine_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_are_text_and_end),
		cmocka_unit_test(frames_hold_valid_codes),
		cmocka_unit_test(a_clip_can_be_continued),
		cmocka_unit_test(what_cannot_be_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
