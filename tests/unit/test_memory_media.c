/* Out of memory is no damaged film. FFmpeg goes on without what it could not allocate, so a clip would be counted as damaged,
 * or its frames would be others: memory for it is asked for before it is opened, and what FFmpeg itself reports is told. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#include "tests/unit/io_fault.h"

static void has_its_own_malloc(void **state)
{
	(void)state;
	print_message("[  SKIPPED ] has_its_own_malloc: the sanitizer has its own malloc\n");
	skip();
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(has_its_own_malloc) };
	return cmocka_run_group_tests_name("memory_media", tests, NULL, NULL);
}
#else
#include "tests/unit/memory_fault.h"

#include "common/base/hash.h"
#include "common/media/frames.h"
#include "common/media/picture.h"

static int64_t peak;
static char wrong[1200];

static void watch(int64_t k, int64_t bytes)
{
	(void)k;
	if (bytes > peak)
		peak = bytes;
}


static const char *clip(void)
{
	const char *path = at("clip.mp4");
	struct lwm_err e = { 0 };
	uint8_t *rgb = malloc(12 * 64 * 48 * 3);
	for (int i = 0; i < 12 * 64 * 48 * 3; i++)
		rgb[i] = (uint8_t)(i / 7 + i / 9000 * 31);
	if (!lwm_path_exists(path))
		must(lwm_video_write(path, rgb, 12, 64, 48, 4, false, &e), &e);
	free(rgb);
	return path;
}

/* Hash of the frames, or the code of the failure. */
static int decode(const char *path, struct lwm_hash *h)
{
	const struct lwm_frames_opts o = { .fps = 3, .width = 32, .height = 32 };
	struct lwm_err e = { 0 };
	uint8_t *rgb;
	int64_t n;
	int rc = lwm_frames_read(path, &o, 1 << 24, &rgb, &n, NULL, &e);
	how.countdown = -1;
	how.budget = 0;
	if (rc < 0) {
		snprintf(wrong, sizeof wrong, "%d: %s", -rc, e.msg);
		return -rc;
	}
	*h = lwm_hash_bytes(rgb, (size_t)(n * 32 * 32 * 3));
	free(rgb);
	return 0;
}

static void clips_in_a_budget(void **state)
{
	(void)state;
	enum { STEPS = 120 };
	struct lwm_hash want, have;
	const char *path = clip();
	int seen_codes[2] = { 0 };
	peak = 0;
	int64_t before = in_use;
	how.watch = watch;
	assert_int_equal(decode(path, &want), 0);
	how.watch = NULL;
	int64_t most = peak - before;
	for (int i = 1; i <= STEPS + STEPS / 4; i++) {
		how.budget = in_use + most * i / STEPS;
		int code = decode(path, &have);
		how.budget = 0;
		if (code == 0)
			assert_string_equal(have.hex, want.hex);
		else if (code != LWM_EMEMORY)
			fail_msg("a budget of %lld bytes: %s", (long long)(most * i / STEPS), wrong);
		seen_codes[code == 0]++;
	}
	assert_true(seen_codes[0] > STEPS / 2 && seen_codes[1] > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(clips_in_a_budget) };
	return cmocka_run_group_tests_name("memory_media", tests, scratch_make, scratch_remove);
}
#endif
