/* The frame tokenizer against numbers of a second program (tests/golden/vqgan-1/make.py): where zeros stand around a picture,
 * the order of norms and activations, and what pixels mean are the same in all of our backends, right or wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/vqgan.h"

enum { H = 8, W = 12, EMBED = 5, CODES = (H / 4) * (W / 4) };

static const struct golden {
	const char *name;
	int unit;                   /* pixels of [0,1] */
	double margin, l1, l2, vq;  /* margin: by how much the nearest row of the codebook is nearer */
	int32_t code[CODES];
	double z[CODES * EMBED], pixel[H * W * 3];
} golden[] = {
#include "tests/golden/vqgan-1/values.inc"
};

/* As numbers() of make.py. */
static void numbers(const char *name, int64_t n, float *out)
{
	uint32_t x = 2166136261u;
	for (const char *p = name; *p; p++)
		x = (x ^ (unsigned char)*p) * 16777619u;
	for (int64_t i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		out[i] = (float)(x >> 16) / 65536.0f - 0.5f;
	}
}

/* Numbers as they follow each other in a file of weights: OIHW for convolutions, which lie as (kh,kw,cin,cout) in memory. */
static void fill_weight(const struct lwm_tensor *t, float *out)
{
	int64_t cout = t->shape[3], cin = t->shape[2], taps = t->shape[0] * t->shape[1];
	float *v = malloc((size_t)t->count * sizeof *v);
	numbers(t->name, t->count, v);
	for (int64_t i = 0; i < t->count; i++)
		out[t->role == LWM_ROLE_CONV ? (i % taps * cin + i / taps % cin) * cout + i / taps / cin : i] =
			t->role == LWM_ROLE_SCALE      ? 1 + v[i] / 2
			: t->role == LWM_ROLE_BIAS     ? v[i] / 2
			: t->role == LWM_ROLE_CODEBOOK ? 2 * v[i]
						       : v[i];
	free(v);
}

static void picture(uint8_t *rgb)
{
	float v[3 * H * W];
	numbers("pixels", 3 * H * W, v); /* channels first */
	for (int c = 0; c < 3; c++)
		for (int i = 0; i < H * W; i++)
			rgb[i * 3 + c] = (uint8_t)((v[c * H * W + i] + 0.5f) * 256);
}

static void near(const struct golden *g, const char *dev, const char *what, double got, double want, double slack)
{
	if (!(fabs(got - want) <= slack))
		fail_msg("%s on %s: %s is %.9g, expected %.9g", g->name, dev, what, got, want);
}

static void check_net(const struct golden *g, const char *dev, struct lwm_vqgan *m)
{
	static const struct lwm_vqgan_loss how = { .l1 = 1, .l2 = 0.5f, .codebook = 0.75f, .commit = 0.25f, .continuous = false };
	struct lwm_vqgan_stats st = { 0 };
	struct lwm_err e = { 0 };
	uint8_t rgb[H * W * 3], back[H * W * 3];
	int32_t codes[CODES];
	float z[CODES * EMBED];
	picture(rgb);
	assert_int_equal(lwm_vqgan_latents(m, rgb, 1, H, W, codes, z, &e), 0);
	for (int i = 0; i < CODES * EMBED; i++)
		near(g, dev, "a latent", (double)z[i], g->z[i], 1e-5);
	assert_memory_equal(codes, g->code, sizeof codes);
	assert_int_equal(lwm_vqgan_decode(m, codes, 1, H, W, back, &e), 0);
	for (int i = 0; i < H * W * 3; i++) /* what is behind the point is cut off */
		near(g, dev, "a pixel", back[i] + (g->pixel[i] < 255 ? 0.5 : 0), g->pixel[i], 0.51);
	assert_int_equal(lwm_vqgan_train(m, rgb, 1, H, W, &how, 1, NULL, NULL, &st, &e), 0);
	near(g, dev, "the mean difference", st.l1, g->l1, 1e-5);
	near(g, dev, "the mean square", st.l2, g->l2, 1e-5);
	near(g, dev, "the distance from the codebook", st.vq, g->vq, 1e-5);
	near(g, dev, "the loss", st.loss, g->l1 + 0.5 * g->l2 + g->vq, 3e-5);
}

static void latents_codes_and_pixels(void **state)
{
	static const char *const devices[] = { "ref", "cpu" };
	struct lwm_vqgan_cfg c = { .resolution = 8, .hidden = 4, .levels = 3, .mult = { 1, 2, 2 }, .res_blocks = 1,
				   .z_channels = 6, .embed_dim = EMBED, .num_embeddings = 12, .groups = 2 };
	(void)state;
	for (size_t i = 0; i < 2 * sizeof golden / sizeof *golden; i++) {
		const struct golden *g = &golden[i / 2];
		struct lwm_tensors p;
		struct lwm_vqgan *m;
		struct lwm_err e = { 0 };
		struct lk_dev *dev;
		char why[256];
		void *flat;
		c.unit_pixels = g->unit;
		assert_int_equal(lk_dev_open(&dev, devices[i % 2], 1, why, sizeof why), 0);
		assert_int_equal(lwm_vqgan_tensors(&p, &c, &e), 0);
		float *host = calloc((size_t)p.total, sizeof *host);
		for (int64_t k = 0; k < p.n; k++)
			fill_weight(&p.list[k], host + p.list[k].offset);
		assert_int_equal(lk_mem_alloc(dev, (size_t)p.total * 4, &flat), 0);
		assert_int_equal(lk_upload(dev, flat, host, (size_t)p.total * 4), 0);
		struct lwm_flat_weights w = lwm_flat_weights_of(flat, LK_F32, NULL);
		assert_int_equal(lwm_vqgan_new(&m, dev, &c, &w.base, 1, &e), 0);
		check_net(g, devices[i % 2], m);
		lwm_vqgan_free(m);
		lk_mem_free(dev, flat);
		lk_dev_close(dev);
		lwm_tensors_release(&p);
		free(host);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(latents_codes_and_pixels) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
