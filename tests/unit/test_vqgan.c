/* test_vqgan.c - the frame tokenizer: table, shapes, gradients against finite differences, cpu against ref. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rng.h"
#include "common/base/json.h"
#include "common/model/vqgan.h"

static const struct lwm_vqgan_cfg small = { .resolution = 16, .hidden = 4, .levels = 3, .mult = { 1, 2, 2 },
					    .res_blocks = 1, .z_channels = 6, .embed_dim = 5, .num_embeddings = 12,
					    .groups = 2 };

struct net {
	struct lk_dev *dev;
	struct lwm_tensors p;
	float *host, *flat; /* host copy, device */
	struct lwm_flat_weights w;
	struct lwm_vqgan *m;
};

/* Gradients of a call; one at a time. */
static struct lwm_flat_weights *grads_in(float *g)
{
	static struct lwm_flat_weights w;
	w = lwm_flat_weights_of(NULL, LK_F32, g);
	return &w;
}

static void open_net(struct net *t, const char *spec, const struct lwm_vqgan_cfg *c, int64_t per_pass)
{
	struct lwm_err e = { 0 };
	char why[256];
	void *p;
	assert_int_equal(lk_dev_open(&t->dev, spec, 1, why, sizeof why), 0);
	assert_int_equal(lwm_vqgan_tensors(&t->p, c, &e), 0);
	t->host = malloc((size_t)t->p.total * sizeof *t->host);
	lwm_tensors_init(&t->p, 7, 0, t->p.total, t->host);
	/* Biases and a codebook that matter. */
	for (int64_t i = 0; i < t->p.n; i++) {
		struct lwm_rng r = lwm_rng_at(3, LWM_RNG_TEST, (uint64_t)i, 0);
		const struct lwm_tensor *q = &t->p.list[i];
		for (int64_t j = 0; j < q->count; j++) {
			if (q->role == LWM_ROLE_BIAS || q->role == LWM_ROLE_SCALE)
				t->host[q->offset + j] += 0.2f * (float)lwm_rng_normal(&r);
			if (q->role == LWM_ROLE_CODEBOOK)
				t->host[q->offset + j] = 0.5f * (float)lwm_rng_normal(&r);
		}
	}
	assert_int_equal(lk_mem_alloc(t->dev, (size_t)t->p.total * 4, &p), 0);
	t->flat = p;
	assert_int_equal(lk_upload(t->dev, t->flat, t->host, (size_t)t->p.total * 4), 0);
	t->w = lwm_flat_weights_of(t->flat, LK_F32, NULL);
	if (lwm_vqgan_new(&t->m, t->dev, c, &t->w.base, per_pass, &e) < 0)
		fail_msg("%s", e.msg);
}

static void close_net(struct net *t)
{
	lwm_vqgan_free(t->m);
	lk_mem_free(t->dev, t->flat);
	lk_dev_close(t->dev);
	lwm_tensors_release(&t->p);
	free(t->host);
}

static void noise(uint8_t *rgb, int64_t n, uint64_t seed)
{
	struct lwm_rng r = lwm_rng_at(seed, LWM_RNG_TEST, 0, 0);
	for (int64_t i = 0; i < n; i++)
		rgb[i] = (uint8_t)lwm_rng_below(&r, 256);
}

static void published_count(void **state)
{
	struct lwm_vqgan_cfg c;
	struct lwm_tensors p;
	struct lwm_err e = { 0 };
	int64_t enc = 0, dec = 0;
	(void)state;
	assert_int_equal(lwm_vqgan_preset(&c, "lwm", &e), 0);
	assert_int_equal(lwm_vqgan_tensors(&p, &c, &e), 0);
	assert_int_equal(p.params, 146244675);
	for (int64_t i = 0; i < p.n; i++) {
		enc += strncmp(p.list[i].name, "encoder.", 8) ? 0 : p.list[i].count;
		dec += strncmp(p.list[i].name, "decoder.", 8) ? 0 : p.list[i].count;
		assert_int_equal(p.list[i].offset % 16, 0);
	}
	assert_int_equal(enc, 58693568);
	assert_int_equal(dec, 87018499);
	assert_string_equal(p.list[0].name, "encoder.conv_in.weight");
	assert_int_equal(lwm_vqgan_codes(&c, 256, 256), 256);
	lwm_tensors_release(&p);
	assert_int_equal(lwm_vqgan_preset(&c, "large", &e), -LWM_ECONFIG);
}

static void names(void **state)
{
	static const char *const some[] = {
		"encoder.down_blocks.1.resnets.0.conv_shortcut.weight", "encoder.down_blocks.3.downsamplers.0.conv.bias",
		"encoder.mid_block.resnets.1.norm2.weight", "encoder.conv_norm_out.bias", "quant_conv.weight",
		"quantize.embedding.weight", "post_quant_conv.bias", "decoder.up_blocks.0.resnets.2.conv2.weight",
		"decoder.up_blocks.4.resnets.0.conv_shortcut.bias", "decoder.up_blocks.3.upsamplers.0.conv.weight",
	};
	struct lwm_vqgan_cfg c;
	struct lwm_tensors p;
	struct lwm_err e = { 0 };
	(void)state;
	assert_int_equal(lwm_vqgan_preset(&c, "lwm", &e), 0);
	assert_int_equal(lwm_vqgan_tensors(&p, &c, &e), 0);
	for (size_t i = 0; i < sizeof some / sizeof *some; i++)
		assert_non_null(lwm_tensors_find(&p, some[i]));
	assert_null(lwm_tensors_find(&p, "encoder.down_blocks.4.downsamplers.0.conv.bias"));
	assert_null(lwm_tensors_find(&p, "encoder.down_blocks.2.resnets.0.conv_shortcut.bias"));
	lwm_tensors_release(&p);
}

static void config_file(void **state)
{
	static const char *const presets[] = { "lwm", "small", "tiny" };
	struct lwm_err e = { 0 };
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct lwm_vqgan_cfg a, b;
		json_t *o;
		assert_int_equal(lwm_vqgan_preset(&a, presets[i], &e), 0);
		assert_int_equal(lwm_vqgan_check(&a, &e), 0);
		assert_int_equal(lwm_vqgan_cfg_to_json(&a, &o, &e), 0);
		assert_int_equal(lwm_vqgan_cfg_from_json(&b, o, "config.json", &e), 0);
		assert_memory_equal(&a, &b, sizeof a);
		json_object_set_new(o, "mid_block_add_attention", json_true());
		assert_int_equal(lwm_vqgan_cfg_from_json(&b, o, "config.json", &e), -LWM_EDATA);
		lwm_err_clear(&e);
		json_decref(o);
	}
	struct lwm_vqgan_cfg bad = small;
	bad.groups = 3;
	assert_int_equal(lwm_vqgan_check(&bad, &e), -LWM_ECONFIG);
}

static void shapes_and_passes(void **state)
{
	struct net one, many;
	struct lwm_err e = { 0 };
	uint8_t rgb[3 * 8 * 12 * 3], a[sizeof rgb], b[sizeof rgb];
	int32_t ca[3 * 2 * 3], cb[3 * 2 * 3];
	(void)state;
	noise(rgb, sizeof rgb, 1);
	open_net(&one, "ref", &small, 1);
	open_net(&many, "ref", &small, 2);
	assert_int_equal(lwm_vqgan_encode(one.m, rgb, 3, 8, 12, ca, &e), 0);
	assert_int_equal(lwm_vqgan_encode(many.m, rgb, 3, 8, 12, cb, &e), 0);
	assert_memory_equal(ca, cb, sizeof ca);
	assert_int_equal(lwm_vqgan_decode(one.m, ca, 3, 8, 12, a, &e), 0);
	assert_int_equal(lwm_vqgan_decode(many.m, ca, 3, 8, 12, b, &e), 0);
	assert_memory_equal(a, b, sizeof a);
	assert_int_equal(lwm_vqgan_encode(one.m, rgb, 1, 8, 10, ca, &e), -LWM_ECONFIG);
	lwm_err_clear(&e);
	ca[4] = 12;
	assert_int_equal(lwm_vqgan_decode(one.m, ca, 1, 8, 12, a, &e), -LWM_EDATA);
	close_net(&one);
	close_net(&many);
}

static double loss_of(struct net *t, const uint8_t *rgb, int64_t n, int32_t *codes)
{
	static const struct lwm_vqgan_loss l = { .l1 = 0.3f, .l2 = 1.0f, .codebook = 0.7f, .commit = 0.25f, .continuous = false };
	struct lwm_vqgan_stats st = { 0 };
	struct lwm_err e = { 0 };
	assert_int_equal(lk_upload(t->dev, t->flat, t->host, (size_t)t->p.total * 4), 0);
	assert_int_equal(lwm_vqgan_refresh(t->m, &e), 0);
	assert_int_equal(lwm_vqgan_train(t->m, rgb, n, 8, 8, &l, 1, NULL, codes, &st, &e), 0);
	return st.loss;
}

/* Decoder weights: the loss is differentiable in them while the codes stay. */
static void decoder_gradient(struct net *t, const uint8_t *rgb, const float *grads)
{
	int32_t c0[2 * 4], c1[2 * 4];
	int checked = 0;
	for (int64_t i = 0; i < t->p.n; i++) {
		const struct lwm_tensor *q = &t->p.list[i];
		if (strncmp(q->name, "decoder.", 8) && strncmp(q->name, "post_", 5))
			continue;
		for (int64_t j = 0; j < q->count; j += 1 + q->count / 3) {
			float *w = &t->host[q->offset + j], keep = *w, h = 2e-3f;
			*w = keep + h;
			double up = loss_of(t, rgb, 2, c0);
			*w = keep - h;
			double down = loss_of(t, rgb, 2, c1);
			*w = keep;
			assert_memory_equal(c0, c1, sizeof c0);
			double fd = (up - down) / (2 * (double)h), g = (double)grads[q->offset + j];
			if (fabs(fd - g) > 0.02 * fabs(fd) + 2e-3)
				fail_msg("%s[%lld]: %g, finite difference %g", q->name, (long long)j, g, fd);
			checked++;
		}
	}
	assert_true(checked > 100);
}

/* The encoder's chain, checked through the commitment term alone: straight_through checks what else arrives at it. */
static void encoder_gradient(struct net *t, const uint8_t *rgb)
{
	static const struct lwm_vqgan_loss l = { .l1 = 0, .l2 = 0, .codebook = 0, .commit = 1.0f, .continuous = false };
	struct lwm_vqgan_stats st = { 0 };
	struct lwm_err e = { 0 };
	float *grads = calloc((size_t)t->p.total, 4);
	void *dg;
	int32_t c0[2 * 4], c1[2 * 4];
	int checked = 0;
	assert_int_equal(lk_mem_alloc(t->dev, (size_t)t->p.total * 4, &dg), 0);
	assert_int_equal(lk_zero(t->dev, dg, (size_t)t->p.total * 4), 0);
	loss_of(t, rgb, 2, NULL);
	assert_int_equal(lwm_vqgan_train(t->m, rgb, 2, 8, 8, &l, 1, &grads_in(dg)->base, NULL, &st, &e), 0);
	assert_int_equal(lk_download(t->dev, grads, dg, (size_t)t->p.total * 4), 0);
	for (int64_t i = 0; i < t->p.n; i++) {
		const struct lwm_tensor *q = &t->p.list[i];
		bool encoder = strncmp(q->name, "encoder.", 8) == 0 || strncmp(q->name, "quant_conv", 10) == 0;
		for (int64_t j = 0; j < q->count; j += 1 + q->count / 3) {
			if (!encoder) {
				assert_true(grads[q->offset + j] == 0);
				continue;
			}
			float *w = &t->host[q->offset + j], keep = *w, h = 1e-3f;
			double v[2];
			for (int s = 0; s < 2; s++) {
				struct lwm_vqgan_stats su = { 0 };
				*w = s ? keep - h : keep + h;
				loss_of(t, rgb, 2, s ? c1 : c0);
				assert_int_equal(lwm_vqgan_train(t->m, rgb, 2, 8, 8, &l, 1, NULL, NULL, &su, &e), 0);
				v[s] = su.loss;
			}
			*w = keep;
			if (memcmp(c0, c1, sizeof c0))
				continue; // another code is nearest now: the loss has a kink between
			double fd = (v[0] - v[1]) / (2 * (double)h), g = (double)grads[q->offset + j];
			if (fabs(fd - g) > 0.03 * fabs(fd) + 2e-3)
				fail_msg("%s[%lld]: %g, finite difference %g", q->name, (long long)j, g, fd);
			checked++;
		}
	}
	assert_true(checked > 60);
	lk_mem_free(t->dev, dg);
	free(grads);
}

/* Straight through: the gradient at z is the one at q. Moving the whole codebook by h moves every q by h, so the finite
 * difference of the pixel loss in that direction is the gradient of quant_conv's bias. */
static void straight_through(struct net *t, const uint8_t *rgb)
{
	static const struct lwm_vqgan_loss l = { .l1 = 0, .l2 = 1.0f, .codebook = 0, .commit = 0, .continuous = false };
	struct lwm_vqgan_stats st = { 0 };
	struct lwm_err e = { 0 };
	const struct lwm_tensor *book = NULL, *bias = NULL;
	int32_t codes[3][2 * 4];
	float bias_grad[5];
	void *dg;
	int checked = 0;
	for (int64_t i = 0; i < t->p.n; i++) {
		book = t->p.list[i].role == LWM_ROLE_CODEBOOK ? &t->p.list[i] : book;
		bias = strcmp(t->p.list[i].name, "quant_conv.bias") ? bias : &t->p.list[i];
	}
	assert_int_equal(lk_mem_alloc(t->dev, (size_t)t->p.total * 4, &dg), 0);
	assert_int_equal(lk_zero(t->dev, dg, (size_t)t->p.total * 4), 0);
	assert_int_equal(lwm_vqgan_train(t->m, rgb, 2, 8, 8, &l, 1, &grads_in(dg)->base, codes[2], &st, &e), 0);
	assert_int_equal(lk_download(t->dev, bias_grad, (float *)dg + bias->offset, sizeof bias_grad), 0);
	for (int d = 0; d < 5; d++) {
		double v[2];
		for (int s = 0; s < 2; s++) {
			struct lwm_vqgan_stats su = { 0 };
			float h = s ? -5e-3f : 5e-3f;
			for (int k = 0; k < 12; k++)
				t->host[book->offset + k * 5 + d] += h;
			loss_of(t, rgb, 2, codes[s]);
			assert_int_equal(lwm_vqgan_train(t->m, rgb, 2, 8, 8, &l, 1, NULL, NULL, &su, &e), 0);
			v[s] = su.loss;
			for (int k = 0; k < 12; k++)
				t->host[book->offset + k * 5 + d] -= h;
		}
		double fd = (v[0] - v[1]) / 1e-2;
		if (memcmp(codes[0], codes[1], sizeof codes[0]) || memcmp(codes[0], codes[2], sizeof codes[0]))
			continue;
		assert_true(fabs(fd - (double)bias_grad[d]) < 0.02 * fabs(fd) + 1e-3);
		checked++;
	}
	assert_true(checked >= 2);
	loss_of(t, rgb, 2, NULL);
	lk_mem_free(t->dev, dg);
}

/* As a plain autoencoder the loss is differentiable from end to end, and the codebook takes no part. */
static void autoencoder_gradient(struct net *t, const uint8_t *rgb)
{
	static const struct lwm_vqgan_loss l = { .l1 = 0, .l2 = 1.0f, .codebook = 1.0f, .commit = 1.0f, .continuous = true };
	struct lwm_vqgan_stats st = { 0 };
	struct lwm_err e = { 0 };
	float *grads = calloc((size_t)t->p.total, 4);
	void *dg;
	int checked = 0;
	assert_int_equal(lk_mem_alloc(t->dev, (size_t)t->p.total * 4, &dg), 0);
	assert_int_equal(lk_zero(t->dev, dg, (size_t)t->p.total * 4), 0);
	assert_int_equal(lwm_vqgan_train(t->m, rgb, 2, 8, 8, &l, 1, &grads_in(dg)->base, NULL, &st, &e), 0);
	assert_int_equal(lk_download(t->dev, grads, dg, (size_t)t->p.total * 4), 0);
	assert_true(st.vq == 0);
	for (int64_t i = 0; i < t->p.n; i++) {
		const struct lwm_tensor *q = &t->p.list[i];
		for (int64_t j = 0; j < q->count; j += 1 + q->count / 3) {
			float *w = &t->host[q->offset + j], keep = *w, h = 2e-3f;
			double v[2];
			for (int s = 0; s < 2; s++) {
				struct lwm_vqgan_stats su = { 0 };
				*w = s ? keep - h : keep + h;
				loss_of(t, rgb, 2, NULL);
				assert_int_equal(lwm_vqgan_train(t->m, rgb, 2, 8, 8, &l, 1, NULL, NULL, &su, &e), 0);
				v[s] = su.loss;
			}
			*w = keep;
			double fd = (v[0] - v[1]) / (2 * (double)h), g = (double)grads[q->offset + j];
			if (fabs(fd - g) > 0.02 * fabs(fd) + 2e-3)
				fail_msg("%s[%lld]: %g, finite difference %g", q->name, (long long)j, g, fd);
			checked++;
		}
	}
	assert_true(checked > 200);
	loss_of(t, rgb, 2, NULL);
	lk_mem_free(t->dev, dg);
	free(grads);
}

/* Codebook rows: the codebook term and nothing else. */
static void codebook_gradient(struct net *t, const uint8_t *rgb, const float *grads)
{
	const struct lwm_vqgan_cfg *c = &small;
	float z[2 * 4 * 5];
	double want[12 * 5] = { 0 };
	int32_t codes[2 * 4];
	struct lwm_err e = { 0 };
	const float *book = NULL, *g = NULL;
	for (int64_t i = 0; i < t->p.n; i++) {
		if (t->p.list[i].role == LWM_ROLE_CODEBOOK) {
			book = t->host + t->p.list[i].offset;
			g = grads + t->p.list[i].offset;
		}
	}
	assert_int_equal(lwm_vqgan_latents(t->m, rgb, 2, 8, 8, codes, z, &e), 0);
	for (int i = 0; i < 8; i++)
		for (int j = 0; j < 5; j++)
			want[codes[i] * 5 + j] += 0.7 * 2 * 2.0 / 40 *
						  ((double)book[codes[i] * 5 + j] - (double)z[i * 5 + j]);
	for (int i = 0; i < c->num_embeddings * c->embed_dim; i++)
		assert_true(fabs(want[i] - (double)g[i]) < 1e-5 + 1e-4 * fabs(want[i]));
}

static void gradients_of(const struct lwm_vqgan_cfg *c)
{
	static const struct lwm_vqgan_loss l = { .l1 = 0.3f, .l2 = 1.0f, .codebook = 0.7f, .commit = 0.25f, .continuous = false };
	struct net t;
	struct lwm_err e = { 0 };
	struct lwm_vqgan_stats st = { 0 };
	uint8_t rgb[2 * 8 * 8 * 3];
	void *dg;
	noise(rgb, sizeof rgb, 5);
	open_net(&t, "ref", c, 2);
	float *grads = calloc((size_t)t.p.total, 4);
	assert_int_equal(lk_mem_alloc(t.dev, (size_t)t.p.total * 4, &dg), 0);
	assert_int_equal(lk_zero(t.dev, dg, (size_t)t.p.total * 4), 0);
	assert_int_equal(lwm_vqgan_train(t.m, rgb, 2, 8, 8, &l, 1, &grads_in(dg)->base, NULL, &st, &e), 0);
	assert_int_equal(lk_download(t.dev, grads, dg, (size_t)t.p.total * 4), 0);
	assert_true(fabs(st.frames - 2) < 1e-9);
	assert_true(fabs(st.loss - loss_of(&t, rgb, 2, NULL)) < 1e-5);
	codebook_gradient(&t, rgb, grads);
	straight_through(&t, rgb);
	autoencoder_gradient(&t, rgb);
	decoder_gradient(&t, rgb, grads);
	encoder_gradient(&t, rgb);
	lk_mem_free(t.dev, dg);
	free(grads);
	close_net(&t);
}

static void gradients(void **state)
{
	struct lwm_vqgan_cfg unit = small;
	(void)state;
	gradients_of(&small);
	unit.unit_pixels = 1;
	gradients_of(&unit);
}

/* What training gives on a device, downloaded. */
static float *train_on(const char *spec, const struct lwm_vqgan_cfg *c, int64_t per_pass, const uint8_t *rgb, int64_t n,
		       int32_t *codes, uint8_t *back, struct lwm_vqgan_stats *st, int64_t *floats)
{
	static const struct lwm_vqgan_loss l = { .l1 = 0.5f, .l2 = 1.0f, .codebook = 1.0f, .commit = 0.25f, .continuous = false };
	struct net t;
	struct lwm_err e = { 0 };
	void *dg;
	open_net(&t, spec, c, per_pass);
	float *grads = calloc((size_t)t.p.total, 4);
	assert_int_equal(lk_mem_alloc(t.dev, (size_t)t.p.total * 4, &dg), 0);
	assert_int_equal(lk_zero(t.dev, dg, (size_t)t.p.total * 4), 0);
	if (lwm_vqgan_train(t.m, rgb, n, 32, 16, &l, 0.25f, &grads_in(dg)->base, codes, st, &e) < 0)
		fail_msg("%s", e.msg);
	assert_int_equal(lk_download(t.dev, grads, dg, (size_t)t.p.total * 4), 0);
	assert_int_equal(lwm_vqgan_decode(t.m, codes, n, 32, 16, back, &e), 0);
	*floats = t.p.total;
	lk_mem_free(t.dev, dg);
	close_net(&t);
	return grads;
}

static void devices_and_cuts_agree(void **state)
{
	static const struct {
		const char *spec;
		int64_t per_pass;
	} other[] = { { "cpu", 4 }, { "cpu", 1 }, { "ref", 3 } };
	struct lwm_vqgan_cfg c = { .resolution = 32, .hidden = 8, .levels = 3, .mult = { 1, 2, 4 }, .res_blocks = 1,
				   .z_channels = 8, .embed_dim = 8, .num_embeddings = 20, .groups = 4 };
	struct lwm_vqgan_stats a = { 0 };
	uint8_t rgb[4 * 32 * 16 * 3], x[sizeof rgb], y[sizeof rgb];
	int32_t ca[4 * 32], cb[4 * 32];
	int64_t n;
	(void)state;
	noise(rgb, sizeof rgb, 9);
	float *ga = train_on("ref", &c, 4, rgb, 4, ca, x, &a, &n);
	for (size_t k = 0; k < sizeof other / sizeof *other; k++) {
		struct lwm_vqgan_stats b = { 0 };
		float *gb = train_on(other[k].spec, &c, other[k].per_pass, rgb, 4, cb, y, &b, &n);
		double diff = 0, norm = 0;
		assert_memory_equal(ca, cb, sizeof ca);
		assert_true(fabs(a.loss - b.loss) < 1e-5 * a.loss);
		for (int64_t i = 0; i < n; i++) {
			diff += pow((double)(ga[i] - gb[i]), 2);
			norm += pow((double)ga[i], 2);
		}
		assert_true(norm > 0 && sqrt(diff / norm) < 1e-4);
		for (size_t i = 0; i < sizeof x; i++)
			assert_true(abs(x[i] - y[i]) <= 1);
		free(gb);
	}
	free(ga);
}

/* Rows of the codebook are what its codes decode to; latents that snap are what encode and decode make of the frames; latents that
 * do not are something else. */
static void latents_become_frames(void **state)
{
	enum { FRAMES = 3, SIDE = 16, CODES = 16, BYTES = FRAMES * SIDE * SIDE * 3 };
	static const char *const devices[] = { "ref", "cpu" };
	(void)state;
	for (int k = 0; k < 2; k++) {
		uint8_t rgb[BYTES], want[BYTES], got[BYTES];
		int32_t codes[FRAMES * CODES];
		float z[FRAMES * CODES * 5], rows[FRAMES * CODES * 5];
		struct lwm_err e = { 0 };
		struct net t = { 0 };
		open_net(&t, devices[k], &small, 2);
		noise(rgb, BYTES, 5);
		assert_int_equal(lwm_vqgan_latents(t.m, rgb, FRAMES, SIDE, SIDE, codes, z, &e), 0);
		assert_int_equal(lwm_vqgan_decode(t.m, codes, FRAMES, SIDE, SIDE, want, &e), 0);
		const float *book = t.host + lwm_tensors_find(&t.p, "quantize.embedding.weight")->offset;
		for (int i = 0; i < FRAMES * CODES; i++)
			memcpy(rows + i * 5, book + codes[i] * 5, 5 * sizeof *rows);
		assert_int_equal(lwm_vqgan_decode_latents(t.m, rows, false, FRAMES, SIDE, SIDE, got, &e), 0);
		assert_memory_equal(got, want, BYTES);
		assert_int_equal(lwm_vqgan_decode_latents(t.m, z, true, FRAMES, SIDE, SIDE, got, &e), 0);
		assert_memory_equal(got, want, BYTES);
		assert_int_equal(lwm_vqgan_decode_latents(t.m, z, false, FRAMES, SIDE, SIDE, got, &e), 0);
		assert_true(memcmp(got, want, BYTES) != 0);
		close_net(&t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_count), cmocka_unit_test(names),
		cmocka_unit_test(config_file),     cmocka_unit_test(shapes_and_passes), cmocka_unit_test(gradients),
		cmocka_unit_test(devices_and_cuts_agree), cmocka_unit_test(latents_become_frames),
	};
	return cmocka_run_group_tests_name("vqgan", tests, NULL, NULL);
}
