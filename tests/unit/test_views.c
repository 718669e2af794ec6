/* test_views.c - what a view of a clip is, where a pixel of it goes: patches, crops, colours, tubes; how alike two frames are. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/media/augment.h"
#include "common/media/picture.h"

static void where_pixels_go(void **state)
{
	enum { SIDE = 6, FRAMES = 4 };
	struct lwm_patch_grid g = { .frames = FRAMES, .side = SIDE, .patch_frames = 2, .patch = 3 };
	uint8_t frames[FRAMES][SIDE][SIDE][3];
	float out[8][54];

	(void)state;
	for (size_t i = 0; i < sizeof frames; i++)
		(&frames[0][0][0][0])[i] = (uint8_t)(i * 37);
	assert_int_equal(lwm_patch_tokens(&g), 8);
	assert_int_equal(lwm_patch_numbers(&g), 54);
	lwm_patches(&g, &frames[0][0][0][0], &out[0][0]);
	for (int t = 0; t < FRAMES; t++)
		for (int y = 0; y < SIDE; y++)
			for (int x = 0; x < SIDE; x++)
				for (int c = 0; c < 3; c++) {
					int token = t / 2 * 4 + y / 3 * 2 + x / 3, at = ((t % 2 * 3 + y % 3) * 3 + x % 3) * 3 + c;
					double got = (double)out[token][at];

					assert_true(fabs(got - ((double)frames[t][y][x][c] / 127.5 - 1)) < 1e-6);
				}
}

enum { SIDE = 16, ONE = SIDE * SIDE * 3 };

/* A ramp from left to right in red, from top to bottom in green. */
static void ramp(uint8_t *frame)
{
	for (int i = 0; i < SIDE * SIDE; i++) {
		frame[3 * i] = (uint8_t)(8 + 12 * (i % SIDE));
		frame[3 * i + 1] = (uint8_t)(8 + 12 * (i / SIDE));
		frame[3 * i + 2] = 100;
	}
}

/* Crops: parts of the area and ratios as asked for, anywhere in the frame; mirrored or not; all frames alike. */
static void views_are_crops(void **state)
{
	enum { VIEWS = 400 };
	struct lwm_augment how = { .side = SIDE, .min_area = 0.3 };
	uint8_t from[2 * ONE], view[2 * ONE], other[2 * ONE];
	double mean = 0, least = 1, most = 0, left = 0;
	int mirrored = 0;

	(void)state;
	ramp(from);
	ramp(from + ONE);
	for (int k = 0; k < VIEWS; k++) {
		struct lwm_rng r = lwm_rng_at(1, LWM_RNG_AUGMENT, 0, (uint64_t)k), again = r;
		int row = SIDE / 2 * SIDE * 3, middle = (SIDE / 2) * 3;

		how.flip = 0;
		lwm_augment(&how, &r, from, 2, view);
		assert_memory_equal(view, view + ONE, ONE);
		double w = (view[row + 12 * 3] - view[row + 3 * 3]) / 9.0 / 12, h = (view[12 * SIDE * 3 + middle + 1] -
									  view[3 * SIDE * 3 + middle + 1]) / 9.0 / 12;
		mean += w * h / VIEWS;
		least = fmin(least, w * h);
		most = fmax(most, w * h);
		left += view[row] / 12.0 / VIEWS;
		assert_true(w / h > 0.68 && w / h < 1.47);
		how.flip = 0.5;
		r = again;
		lwm_augment(&how, &r, from, 2, other);
		bool turned = memcmp(view, other, ONE) != 0;
		for (int i = 0; i < SIDE && turned; i++)
			assert_memory_equal(other + row + 3 * i, view + row + 3 * (SIDE - 1 - i), 3);
		mirrored += turned;
	}
	assert_true(mean > 0.60 && mean < 0.68); /* 0.65 but for what is cut to the frame */
	assert_true(least > 0.25 && least < 0.36 && most > 0.9);
	assert_true(left > 1.2 && left < 2.6);
	assert_true(mirrored > VIEWS / 2 - 40 && mirrored < VIEWS / 2 + 40);
}

static void colours_of_views(void **state)
{
	struct lwm_augment how = { .side = SIDE, .min_area = 1, .jitter = 0.4 };
	uint8_t from[ONE], view[ONE];
	double low = 255, high = 0, grey = 0;

	(void)state;
	for (int k = 0; k < 200; k++) {
		struct lwm_rng r = lwm_rng_at(1, LWM_RNG_AUGMENT, 1, (uint64_t)k);

		memset(from, 100, ONE); /* plain: contrast changes nothing, brightness all alike */
		lwm_augment(&how, &r, from, 1, view);
		for (int i = 1; i < ONE; i++)
			assert_int_equal(view[i], view[0]);
		low = fmin(low, view[0]);
		high = fmax(high, view[0]);
	}
	assert_true(low >= 60 && low < 66 && high <= 140 && high > 134);
	how.jitter = 0;
	how.grey = 0.2;
	ramp(from);
	for (int k = 0; k < 200; k++) {
		struct lwm_rng r = lwm_rng_at(1, LWM_RNG_AUGMENT, 2, (uint64_t)k);
		bool is_grey = true;

		lwm_augment(&how, &r, from, 1, view);
		for (int i = 0; i < SIDE * SIDE; i++)
			is_grey = is_grey && view[3 * i] == view[3 * i + 1] && view[3 * i] == view[3 * i + 2];
		grey += is_grey;
	}
	assert_true(grey > 20 && grey < 62);
}

/* Mean 0 and deviation 1 of each colour of each patch; plain ones 0. And back. */
static void normalised_patches(void **state)
{
	struct lwm_patch_grid g = { .frames = 2, .side = 4, .patch_frames = 2, .patch = 2 };
	float x[4][8][3], was[4][8][3], back[4][8][3];

	(void)state;
	for (int i = 0; i < 4 * 8 * 3; i++)
		(&x[0][0][0])[i] = i / 24 == 1 ? 0.5f : (float)(i * i % 17) / 17 - 0.3f;
	memcpy(was, x, sizeof x);
	lwm_patches_normalise(&g, &x[0][0][0]);
	memcpy(back, x, sizeof x);
	lwm_patches_restore(&g, &was[0][0][0], &back[0][0][0]);
	for (int i = 0; i < 4 * 8 * 3; i++)
		assert_true(fabs((double)((&back[0][0][0])[i] - (&was[0][0][0])[i])) < 1e-5);
	for (int t = 0; t < 4; t++)
		for (int c = 0; c < 3; c++) {
			double mean = 0, square = 0;

			for (int k = 0; k < 8; k++) {
				mean += (double)x[t][k][c] / 8;
				square += (double)x[t][k][c] * (double)x[t][k][c] / 7;
			}
			assert_true(fabs(mean) < 1e-5 && fabs(square - (t != 1)) < 1e-3);
		}
}

/* As many as asked for, ascending, the same places in all frames, each place as often as any other; others for each sample. */
static void tubes(void **state)
{
	enum { PLACES = 16, KEPT = 4, DRAWS = 800 };
	struct lwm_patch_grid g = { .frames = 6, .side = 32, .patch_frames = 2, .patch = 8 };
	int32_t v[3 * KEPT], last[3 * KEPT] = { 0 };
	int count[PLACES] = { 0 }, same = 0;

	(void)state;
	for (int k = 0; k < DRAWS; k++) {
		lwm_patches_tube(&g, KEPT, 1, 2, (uint64_t)k, v);
		for (int i = 0; i < 3 * KEPT; i++) {
			assert_true(v[i] >= i / KEPT * PLACES && v[i] < (i / KEPT + 1) * PLACES);
			assert_true(i % KEPT == 0 || v[i] > v[i - 1]);
			assert_int_equal(v[i] % PLACES, v[i % KEPT]);
			count[v[i] % PLACES] += i < KEPT;
		}
		same += !memcmp(v, last, sizeof v);
		memcpy(last, v, sizeof v);
	}
	for (int i = 0; i < PLACES; i++)
		assert_true(count[i] > DRAWS * KEPT / PLACES - 60 && count[i] < DRAWS * KEPT / PLACES + 60);
	assert_true(same < 5);
}

static void patches_and_back(void **state)
{
	struct lwm_patch_grid g = { .frames = 4, .side = 6, .patch_frames = 2, .patch = 3 };
	uint8_t frames[4 * 6 * 6 * 3], again[sizeof frames];
	float x[sizeof frames];

	(void)state;
	for (size_t i = 0; i < sizeof frames; i++)
		frames[i] = (uint8_t)(i * 41 % 256);
	lwm_patches(&g, frames, x);
	lwm_patches_join(&g, x, again);
	assert_memory_equal(frames, again, sizeof frames);
	x[0] = 3;
	x[1] = -3;
	lwm_patches_join(&g, x, again);
	assert_true(again[0] == 255 && again[1] == 0);
}

/* The number is NumPy's, from the formula: covariances of windows by np.cov. */
static void similar_frames(void **state)
{
	static uint8_t a[10 * 9 * 3], b[10 * 9 * 3];

	(void)state;
	for (int i = 0; i < 10 * 9 * 3; i++) {
		a[i] = (uint8_t)(i * i % 251);
		b[i] = (uint8_t)((i * i + i % 40) % 251);
	}
	assert_true(fabs(lwm_ssim(a, a, 9, 10) - 1) < 1e-12);
	assert_true(fabs(lwm_ssim(a, b, 9, 10) - 0.5526744813619807) < 1e-9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(where_pixels_go),
		cmocka_unit_test(views_are_crops),
		cmocka_unit_test(colours_of_views),
		cmocka_unit_test(normalised_patches),
		cmocka_unit_test(tubes),
		cmocka_unit_test(patches_and_back),
		cmocka_unit_test(similar_frames),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
