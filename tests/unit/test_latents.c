/* test_latents.c - clips as latents: which numbers a patch of them has, and how they are scaled. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/train/latents.h"

enum { SIDE = 12, FRAMES = 4, PIXELS = FRAMES * SIDE * SIDE * 3 };

/* Of latents that are the pixels the patches are those of frames. */
static void patches_of_pixels(void **state)
{
	static const int patch[] = { 3, 6, 12 };
	struct lwm_latent_space s = { .side = SIDE, .factor = 1, .channels = 3 };
	float z[PIXELS], want[PIXELS], have[PIXELS];
	uint8_t frames[PIXELS];

	(void)state;
	for (int i = 0; i < PIXELS; i++) {
		frames[i] = (uint8_t)(i * 37 + i / 256);
		z[i] = (float)frames[i] / 127.5f - 1;
	}
	for (int k = 0; k < 6; k++) {
		struct lwm_patch_grid g = { .frames = FRAMES, .side = SIDE, .patch_frames = 1 + k / 3, .patch = patch[k % 3] };

		assert_int_equal(lwm_latent_patch_numbers(&s, &g), lwm_patch_numbers(&g));
		lwm_patches(&g, frames, want);
		lwm_latent_patches(&s, &g, z, have);
		assert_memory_equal(have, want, sizeof want);
		memset(want, 0, sizeof want);
		lwm_latent_patches_join(&s, &g, have, want);
		assert_memory_equal(want, z, sizeof z);
	}
}

/* A latent of 2 x 2 pixels and 5 channels: (frame, row, column, channel) of a clip is where its own numbers say. */
static void patches_of_latents(void **state)
{
	enum { WIDE = SIDE / 2, CHANNELS = 5, NUMBERS = FRAMES * WIDE * WIDE * CHANNELS };
	struct lwm_latent_space s = { .side = SIDE, .factor = 2, .channels = CHANNELS };
	struct lwm_patch_grid g = { .frames = FRAMES, .side = SIDE, .patch_frames = 2, .patch = 4 };
	float z[NUMBERS], p[NUMBERS], back[NUMBERS];

	(void)state;
	for (int i = 0; i < NUMBERS; i++)
		z[i] = (float)i;
	assert_int_equal(lwm_latent_places(&s), WIDE * WIDE);
	assert_int_equal(lwm_latent_numbers(&s), WIDE * WIDE * CHANNELS);
	assert_int_equal(lwm_latent_patch_numbers(&s, &g), 2 * 2 * 2 * CHANNELS);
	lwm_latent_patches(&s, &g, z, p);
	for (int t = 0; t < FRAMES; t++)
		for (int y = 0; y < WIDE; y++)
			for (int x = 0; x < WIDE; x++)
				for (int c = 0; c < CHANNELS; c++) {
					int token = t / 2 * 9 + y / 2 * 3 + x / 2, place = (t % 2 * 2 + y % 2) * 2 + x % 2;
					float want = z[((t * WIDE + y) * WIDE + x) * CHANNELS + c];

					assert_true(p[(token * 8 + place) * CHANNELS + c] == want);
				}
	lwm_latent_patches_join(&s, &g, p, back);
	assert_memory_equal(back, z, sizeof z);
}

/* A code is where a latent of one channel is. */
static void patches_of_codes(void **state)
{
	enum { WIDE = SIDE / 2, NUMBERS = FRAMES * WIDE * WIDE };
	struct lwm_latent_space s = { .side = SIDE, .factor = 2, .channels = 1 };
	struct lwm_patch_grid g = { .frames = FRAMES, .side = SIDE, .patch_frames = 2, .patch = 4 };
	int32_t codes[NUMBERS], p[NUMBERS];
	float z[NUMBERS], q[NUMBERS];

	(void)state;
	for (int i = 0; i < NUMBERS; i++) {
		codes[i] = 3 * i;
		z[i] = (float)codes[i];
	}
	assert_int_equal(lwm_code_patch_numbers(&s, &g), 8);
	lwm_code_patches(&s, &g, codes, p);
	lwm_latent_patches(&s, &g, z, q);
	for (int i = 0; i < NUMBERS; i++)
		assert_true(p[i] == (int32_t)q[i]);
}

static void scaled_and_back(void **state)
{
	double mean[] = { 0.5, -2 }, deviation[] = { 2, 0.25 };
	struct lwm_latent_space s = { .side = 2, .factor = 1, .channels = 2, .mean = mean, .deviation = deviation };
	float z[] = { 0.5f, -2, 4.5f, -1 };

	(void)state;
	lwm_latent_scale(&s, z, 2);
	assert_true(z[0] == 0 && z[1] == 0 && z[2] == 2 && z[3] == 4);
	lwm_latent_unscale(&s, z, 2);
	assert_true(z[0] == 0.5f && z[1] == -2 && z[2] == 4.5f && z[3] == -1);
}

/* What the VQGAN gives as latents, scaled, is decoded as the VQGAN decodes what it gave: to a rounding. */
static void decoded_as_the_vqgan_does(void **state)
{
	enum { N = 2, WIDE = 8, BYTES = N * WIDE * WIDE * 3, LATENTS = N * 4 * 4 * 5 };
	const struct lwm_vqgan_cfg c = { .resolution = WIDE, .hidden = 4, .levels = 2, .mult = { 1, 2 }, .res_blocks = 1,
					 .z_channels = 6, .embed_dim = 5, .num_embeddings = 12, .groups = 2 };
	double mean[] = { 0.3, -1, 2, 0, 5 }, deviation[] = { 0.01, 7, 0.5, 3, 0.1 };
	struct lwm_latent_space s = { .side = WIDE, .factor = 2, .channels = 5, .mean = mean, .deviation = deviation };
	struct lwm_latents l = { .vqgan = "it", .cfg = c };
	uint8_t rgb[BYTES], want[BYTES], have[BYTES];
	struct lwm_tensors t;
	struct lwm_err e = { 0 };
	float z[LATENTS];
	char why[256];
	void *mem;

	(void)state;
	for (int i = 0; i < BYTES; i++)
		rgb[i] = (uint8_t)(i * 53 + i / 7);
	assert_int_equal(lk_dev_open(&l.vq.dev, "cpu", 1, why, sizeof why), 0);
	assert_int_equal(lwm_vqgan_tensors(&t, &c, &e), 0);
	assert_int_equal(lk_mem_alloc(l.vq.dev, (size_t)t.total * 4, &mem), 0);
	l.vq.flat = mem;
	lwm_tensors_init(&t, 5, 0, t.total, l.vq.flat); /* the device's memory is the host's */
	l.vq.weights = lwm_flat_weights_of(l.vq.flat, LK_F32, NULL);
	assert_int_equal(lwm_vqgan_new(&l.vq.net, l.vq.dev, &c, &l.vq.weights.base, 1, &e), 0);
	for (int snap = 0; snap < 2; snap++) {
		assert_int_equal(lwm_vqgan_latents(l.vq.net, rgb, N, WIDE, WIDE, NULL, z, &e), 0);
		assert_int_equal(lwm_vqgan_decode_latents(l.vq.net, z, snap, N, WIDE, WIDE, want, &e), 0);
		lwm_latent_scale(&s, z, N * lwm_latent_places(&s));
		assert_int_equal(lwm_latents_decode(&l, &s, z, N, snap, have, &e), 0);
		for (int i = 0; i < BYTES; i++)
			assert_true(abs(want[i] - have[i]) <= 1);
	}
	lwm_tensors_release(&t);
	mem = l.vq.dev;
	lwm_latents_release(&l);
	lk_dev_close(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(patches_of_pixels), cmocka_unit_test(patches_of_latents), cmocka_unit_test(patches_of_codes),
		cmocka_unit_test(scaled_and_back), cmocka_unit_test(decoded_as_the_vqgan_does),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
