/* The distance of features: against a second program (tests/golden/recon-1), gradients of the tokenizer's weights through it
 * against finite differences, and files that are no such network. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/path.h"
#include "common/io/safetensors.h"
#include "common/model/vqgan.h"
#include "common/train/perceptual_file.h"

#include "tests/golden/recon-1/lpips.inc"

enum { N = 2, H = 9, W = 10, PIXELS = N * H * W * 3 };
static char dir[] = "/tmp/lwm_perceptual_XXXXXX";

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

/* ---- files ---- */

/* The network of make.py. */
static const struct lwm_st_tensor network[] = {
	{ .name = "features.0.weight", .ndim = 4, .shape = { 4, 3, 3, 3 } }, { .name = "features.0.bias", .ndim = 1, .shape = { 4 } },
	{ .name = "features.2.weight", .ndim = 4, .shape = { 5, 4, 3, 3 } }, { .name = "features.2.bias", .ndim = 1, .shape = { 5 } },
	{ .name = "features.5.weight", .ndim = 4, .shape = { 6, 5, 3, 3 } }, { .name = "features.5.bias", .ndim = 1, .shape = { 6 } },
	{ .name = "features.8.weight", .ndim = 4, .shape = { 4, 6, 3, 3 } }, { .name = "features.8.bias", .ndim = 1, .shape = { 4 } },
	{ .name = "features.10.weight", .ndim = 4, .shape = { 7, 4, 3, 3 } }, { .name = "features.10.bias", .ndim = 1, .shape = { 7 } },
	{ .name = "lin0.model.1.weight", .ndim = 4, .shape = { 1, 5, 1, 1 } },
	{ .name = "lin1.model.1.weight", .ndim = 4, .shape = { 1, 6, 1, 1 } },
	{ .name = "lin2.model.1.weight", .ndim = 4, .shape = { 1, 7, 1, 1 } },
	{ .name = "scaling_layer.shift", .ndim = 1, .shape = { 3 } },
};
enum { TENSORS = sizeof network / sizeof *network };

/* poison: the first value of tensor `at` becomes that, where it is not 0. */
static const char *write_file(const char *name, const struct lwm_st_tensor *t, int n, int at, float poison)
{
	static char path[80];
	struct lwm_st_writer *w;
	struct lwm_err e = { 0 };
	float v[1024];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	assert_int_equal(lwm_st_create(&w, path, t, n, NULL, true, &e), 0);
	for (int i = 0; i < n; i++) {
		int64_t size = 1;
		for (int d = 0; d < t[i].ndim; d++)
			size *= t[i].shape[d];
		numbers(t[i].name, size, v);
		for (int64_t k = 0; k < size; k++)
			v[k] = !strncmp(t[i].name, "lin", 3) ? v[k] + 0.5f : t[i].ndim == 1 ? v[k] / 4 : v[k];
		if (i == at)
			v[0] = poison;
		assert_int_equal(lwm_st_write(w, v, size, &e), 0);
	}
	assert_int_equal(lwm_st_commit(w, NULL, &e), 0);
	return path;
}

static struct lwm_perceptual *open_network(struct lk_dev *dev, const char *path, bool unit)
{
	struct lwm_perceptual_file f;
	struct lwm_perceptual *p;
	struct lwm_err e = { 0 };
	if (lwm_perceptual_read(&f, path, true, &e) < 0 || lwm_perceptual_new(&p, dev, &f.cfg, f.values, unit, &e) < 0)
		fail_msg("%s", e.msg);
	assert_int_equal(strlen(f.hash), 32);
	lwm_perceptual_release(&f);
	return p;
}

static void refuse(const char *what, const struct lwm_st_tensor *t, int n, int at, float poison, const char *say)
{
	struct lwm_perceptual_file f;
	struct lwm_err e = { 0 };
	const char *path = write_file("bad.safetensors", t, n, at, poison);
	int rc = lwm_perceptual_read(&f, path, true, &e);
	lwm_perceptual_release(&f);
	if (rc != -LWM_EDATA || !strstr(e.msg, say) || !strstr(e.msg, path))
		fail_msg("%s: %d, '%s'", what, rc, e.msg);
}

static void bad_files(void **state)
{
	struct lwm_st_tensor t[TENSORS + 1];
	struct lwm_perceptual_file f;
	struct lwm_err e = { 0 };
	char path[80];
	(void)state;
	refuse("no convolution", network + 1, 1, -1, 0, "has no 'features.0.weight'");
	refuse("no bias", network, 1, -1, 0, "has no 'features.0.bias'");
	refuse("no heads", network, 10, -1, 0, "has no 'lin0.model.1.weight': expected the weights of LPIPS");
	refuse("not a number", network, TENSORS, 4, NAN, "value 0 of 'features.5.weight' is nan: expected numbers");
	refuse("below zero", network, TENSORS, 11, -1, "value 0 of 'lin1.model.1.weight' is -1: expected weights of 0 or more");
	memcpy(t, network, sizeof network);
	t[4].name = "features.6.weight";
	refuse("a gap", t, TENSORS, -1, 0, "'features.6.weight' follows features.2");
	memcpy(t, network, sizeof network);
	t[0].name = "features.1.weight";
	refuse("not from 0 on", t, TENSORS, -1, 0, "from features.0 on");
	memcpy(t, network, sizeof network);
	t[2].shape[1] = 3;
	refuse("channels", t, TENSORS, -1, 0, "'features.2.weight' is no convolution of 3 x 3 from 4 channels");
	memcpy(t, network, sizeof network);
	t[2].shape[2] = 5;
	refuse("window", t, TENSORS, -1, 0, "'features.2.weight' is no convolution of 3 x 3 from 4 channels");
	memcpy(t, network, sizeof network);
	t[11].shape[1] = 5;
	refuse("head", t, TENSORS, -1, 0, "'lin1.model.1.weight' has another shape");
	memcpy(t, network, sizeof network);
	t[TENSORS] = (struct lwm_st_tensor){ .name = "features.1.running_mean", .ndim = 1, .shape = { 4 } };
	refuse("batch norm", t, TENSORS + 1, -1, 0, "'features.1.running_mean' has no place");
	t[TENSORS] = (struct lwm_st_tensor){ .name = "lin3.model.1.weight", .ndim = 4, .shape = { 1, 7, 1, 1 } };
	refuse("a head too many", t, TENSORS + 1, -1, 0, "'lin3.model.1.weight' has no place");
	snprintf(path, sizeof path, "%s/none", dir);
	assert_int_equal(lwm_perceptual_read(&f, path, false, &e), -LWM_ENOINPUT);
	lwm_perceptual_release(&f);
}

/* ---- values ---- */

static struct lk_view upload(struct lk_dev *dev, const float *v)
{
	void *p;
	assert_int_equal(lk_mem_alloc(dev, PIXELS * sizeof *v, &p), 0);
	assert_int_equal(lk_upload(dev, p, v, PIXELS * sizeof *v), 0);
	return lk_view4(p, LK_F32, N, H, W, 3);
}

/* unit: the same pictures on [0,1], whose gradient is twice as large. */
static void as_published(const char *spec, bool unit)
{
	struct lk_dev *dev;
	struct lwm_err e = { 0 };
	char why[256];
	float x[PIXELS], t[PIXELS], d[PIXELS];
	double loss, again;
	assert_int_equal(lk_dev_open(&dev, spec, 1, why, sizeof why), 0);
	struct lwm_perceptual *p = open_network(dev, write_file("net.safetensors", network, TENSORS, -1, 0), unit);
	numbers("x", PIXELS, x);
	numbers("t", PIXELS, t);
	for (int i = 0; i < PIXELS; i++) {
		x[i] = unit ? x[i] + 0.5f : 2 * x[i];
		t[i] = unit ? t[i] + 0.5f : 2 * t[i];
		d[i] = 1;
	}
	struct lk_view xv = upload(dev, x), tv = upload(dev, t), dv = upload(dev, d);
	if (lwm_perceptual_loss(p, &xv, &tv, &dv, 3, &loss, &e) < 0)
		fail_msg("%s", e.msg);
	assert_true(fabs(loss - golden_loss[0]) < 2e-6);
	assert_int_equal(lk_download(dev, d, dv.data, sizeof d), 0);
	for (int i = 0; i < PIXELS; i++)
		if (fabs((double)d[i] - 1 - (unit ? 6 : 3) * golden_grad[i]) > 1e-5)
			fail_msg("%s: gradient %d is %g, expected %g", spec, i, (double)d[i] - 1, (unit ? 6 : 3) * golden_grad[i]);
	assert_int_equal(lwm_perceptual_loss(p, &xv, &tv, NULL, 3, &again, &e), 0);
	assert_true(again == loss);
	assert_int_equal(lwm_perceptual_loss(p, &xv, &xv, NULL, 3, &again, &e), 0);
	assert_true(again == 0);
	lwm_perceptual_free(p);
	lk_mem_free(dev, xv.data);
	lk_mem_free(dev, tv.data);
	lk_mem_free(dev, dv.data);
	lk_dev_close(dev);
}

static void golden(void **state)
{
	(void)state;
	as_published("ref", false);
	as_published("cpu", false);
	as_published("cpu", true);
}

/* ---- through the tokenizer ---- */

static const struct lwm_vqgan_cfg small = { .resolution = 16, .hidden = 4, .levels = 3, .mult = { 1, 2, 2 }, .res_blocks = 1,
					    .z_channels = 6, .embed_dim = 5, .num_embeddings = 12, .groups = 2 };

struct net {
	struct lk_dev *dev;
	struct lwm_tensors p;
	float *host, *flat, *grads;
	struct lwm_flat_weights w, g;
	struct lwm_vqgan *m;
	struct lwm_vqgan_loss how;
	uint8_t rgb[2 * 8 * 8 * 3];
};

static double loss_of(struct net *t)
{
	struct lwm_vqgan_stats st = { 0 };
	struct lwm_err e = { 0 };
	assert_int_equal(lk_upload(t->dev, t->flat, t->host, (size_t)t->p.total * 4), 0);
	assert_int_equal(lwm_vqgan_refresh(t->m, &e), 0);
	assert_int_equal(lwm_vqgan_train(t->m, t->rgb, 2, 8, 8, &t->how, 1, NULL, NULL, &st, &e), 0);
	return st.loss;
}

/* Every tensor of encoder and decoder, a plain autoencoder, with no term but the perceptual one: in the direction of its own
 * gradient the loss rises as fast as that is long. */
static void differences(void **state)
{
	struct lwm_err e = { 0 };
	struct lwm_vqgan_stats st = { 0 };
	struct net t = { .how = { .perceptual = 1.5f, .continuous = true } };
	char why[256];
	void *p;
	(void)state;
	assert_int_equal(lk_dev_open(&t.dev, "ref", 1, why, sizeof why), 0);
	assert_int_equal(lwm_vqgan_tensors(&t.p, &small, &e), 0);
	t.how.features = open_network(t.dev, write_file("net.safetensors", network, TENSORS, -1, 0), false);
	t.host = malloc((size_t)t.p.total * 4);
	lwm_tensors_init(&t.p, 7, 0, t.p.total, t.host);
	assert_int_equal(lk_mem_alloc(t.dev, (size_t)t.p.total * 4, &p), 0);
	t.flat = p;
	t.grads = calloc((size_t)t.p.total, 4);
	t.w = lwm_flat_weights_of(t.flat, LK_F32, NULL);
	t.g = lwm_flat_weights_of(NULL, LK_F32, t.grads);
	for (size_t i = 0; i < sizeof t.rgb; i++)
		t.rgb[i] = (uint8_t)(i * 2654435761u >> 7);
	assert_int_equal(lk_upload(t.dev, t.flat, t.host, (size_t)t.p.total * 4), 0);
	assert_int_equal(lwm_vqgan_new(&t.m, t.dev, &small, &t.w.base, 2, &e), 0);
	assert_int_equal(lwm_vqgan_train(t.m, t.rgb, 2, 8, 8, &t.how, 1, &t.g.base, NULL, &st, &e), 0);
	assert_true(fabs(st.loss - 1.5 * st.perceptual) < 1e-12 && st.perceptual > 0);
	for (int64_t i = 0; i < t.p.n; i++) {
		const struct lwm_tensor *q = &t.p.list[i];
		double len = 0;
		for (int64_t k = 0; k < q->count; k++)
			len += pow((double)t.grads[q->offset + k], 2);
		len = sqrt(len);
		if (q->role == LWM_ROLE_CODEBOOK) {
			assert_true(len == 0);
			continue;
		}
		assert_true(len > 0);
		float h = 3e-4f;
		double side[2];
		for (int s = 0; s < 2; s++) {
			for (int64_t k = 0; k < q->count; k++)
				t.host[q->offset + k] += (s ? -2 * h : h) * (float)(t.grads[q->offset + k] / len);
			side[s] = loss_of(&t);
		}
		for (int64_t k = 0; k < q->count; k++)
			t.host[q->offset + k] += h * (float)(t.grads[q->offset + k] / len);
		double slope = (side[0] - side[1]) / (2 * (double)h);
		if (fabs(slope - len) > 0.02 * len + 2e-3)
			fail_msg("%s: %g by differences, gradient of length %g", q->name, slope, len);
	}
	lwm_vqgan_free(t.m);
	lwm_perceptual_free(t.how.features);
	lk_mem_free(t.dev, t.flat);
	lk_dev_close(t.dev);
	lwm_tensors_release(&t.p);
	free(t.host);
	free(t.grads);
}

static void too_small(void **state)
{
	struct lwm_perceptual_file f;
	struct lwm_err e = { 0 };
	(void)state;
	assert_int_equal(lwm_perceptual_read(&f, write_file("net.safetensors", network, TENSORS, -1, 0), false, &e), 0);
	assert_null(f.values);
	assert_int_equal(f.cfg.convs, 5);
	assert_int_equal(lwm_perceptual_fits(&f.cfg, 4, 4, &e), 0);
	assert_int_equal(lwm_perceptual_fits(&f.cfg, 4, 3, &e), -LWM_ECONFIG);
	lwm_perceptual_release(&f);
}

static int group_setup(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int group_teardown(void **state)
{
	struct lwm_err e = { 0 };
	(void)state;
	return lwm_remove_tree(dir, &e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden), cmocka_unit_test(differences), cmocka_unit_test(bad_files), cmocka_unit_test(too_small),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
