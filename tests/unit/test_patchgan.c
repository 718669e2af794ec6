/* The patch discriminator against a second program (tests/golden/recon-1): logits, the hinge loss, gradients of all weights and of
 * the images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/patchgan.h"

#include "tests/golden/recon-1/patchgan.inc"

enum { N = 2, H = 24, W = 20, PIXELS = N * H * W * 3, PATCHES = sizeof golden_real / sizeof *golden_real };
static const struct lwm_patchgan_cfg cfg = { .channels = 4, .layers = 2 };

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

static void near(const char *what, int i, double got, double want, double slack)
{
	if (!(fabs(got - want) <= slack))
		fail_msg("%s %d is %.9g, expected %.9g", what, i, got, want);
}

struct rig {
	struct lk_dev *dev;
	struct lwm_tensors t;
	float *weights, *grads, *images[2], *dx; /* device, which is the host */
	struct lwm_patchgan *g;
};

static float *floats(struct rig *r, int64_t n)
{
	void *p;
	assert_int_equal(lk_mem_alloc(r->dev, (size_t)n * sizeof(float), &p), 0);
	assert_int_equal(lk_zero(r->dev, p, (size_t)n * sizeof(float)), 0);
	return p;
}

static void fill(const struct lwm_tensor *t, float *out)
{
	bool last = t->role == LWM_ROLE_CONV && t->shape[3] == 1, norm = strstr(t->name, "norm") != NULL;
	numbers(t->name, t->count, out);
	for (int64_t k = 0; k < t->count; k++)
		out[k] = t->role == LWM_ROLE_SCALE ? 1 + out[k] / 2 : norm ? out[k] / 2 :
			 t->role == LWM_ROLE_BIAS  ? out[k] / 4 : out[k] * (last ? 2 : 0.5f);
}

static void open_rig(struct rig *r, const char *spec)
{
	struct lwm_err e = { 0 };
	char why[256];
	memset(r, 0, sizeof *r);
	assert_int_equal(lk_dev_open(&r->dev, spec, 1, why, sizeof why), 0);
	assert_true(lk_dev_is_host(r->dev));
	r->t.align = 16;
	assert_int_equal(lwm_patchgan_tensors(&r->t, &cfg, &e), 0);
	r->weights = floats(r, r->t.total);
	r->grads = floats(r, r->t.total);
	r->dx = floats(r, PIXELS);
	for (int64_t i = 0; i < r->t.n; i++)
		fill(&r->t.list[i], r->weights + r->t.list[i].offset);
	for (int i = 0; i < 2; i++) {
		r->images[i] = floats(r, PIXELS);
		numbers(i ? "made" : "real", PIXELS, r->images[i]);
		for (int k = 0; k < PIXELS; k++)
			r->images[i][k] *= 2;
	}
	if (lwm_patchgan_new(&r->g, r->dev, &cfg, r->weights, &e) < 0)
		fail_msg("%s", e.msg);
}

static void close_rig(struct rig *r)
{
	lwm_patchgan_free(r->g);
	lk_mem_free(r->dev, r->weights);
	lk_mem_free(r->dev, r->grads);
	lk_mem_free(r->dev, r->dx);
	lk_mem_free(r->dev, r->images[0]);
	lk_mem_free(r->dev, r->images[1]);
	lwm_tensors_release(&r->t);
	lk_dev_close(r->dev);
}

/* Hinge loss of one kind of images, its gradient into grads. */
static double judge(struct rig *r, int made, const double *want)
{
	struct lk_view x = lk_view4(r->images[made], LK_F32, N, H, W, 3);
	struct lwm_err e = { 0 };
	float slopes[PATCHES];
	double loss = 0;
	int64_t n;
	assert_int_equal(lwm_patchgan_judge(r->g, &x, &n, &e), 0);
	assert_int_equal(n, PATCHES);
	for (int i = 0; i < PATCHES; i++) {
		double v = (double)lwm_patchgan_logits(r->g)[i] * (made ? 1 : -1);
		near(made ? "made" : "real", i, (double)lwm_patchgan_logits(r->g)[i], want[i], 2e-5);
		loss += v > -1 ? 0.5 * (1 + v) / PATCHES : 0;
		slopes[i] = v > -1 ? (made ? 0.5f : -0.5f) / PATCHES : 0;
	}
	if (lwm_patchgan_back(r->g, slopes, NULL, r->grads, &e) < 0)
		fail_msg("%s", e.msg);
	return loss;
}

static void as_published(const char *spec)
{
	struct rig r;
	struct lwm_err e = { 0 };
	float slopes[PATCHES];
	double fooled = 0;
	open_rig(&r, spec);
	near("hinge loss", 0, judge(&r, 0, golden_real) + judge(&r, 1, golden_made), golden_losses[0], 1e-5);
	assert_int_equal(r.t.n, (int64_t)(sizeof golden_weights / sizeof *golden_weights));
	for (size_t i = 0; i < sizeof golden_weights / sizeof *golden_weights; i++) {
		const struct lwm_tensor *t = lwm_tensors_find(&r.t, golden_weights[i].name);
		const int64_t at[3] = { 0, t->count / 2, t->count - 1 };
		double sq = 0;
		for (int64_t k = 0; k < t->count; k++)
			sq += pow((double)r.grads[t->offset + k], 2);
		near(t->name, -1, sqrt(sq), golden_weights[i].norm, 2e-5);
		for (int k = 0; k < 3; k++)
			near(t->name, k, (double)r.grads[t->offset + at[k]], golden_weights[i].some[k], 2e-5);
	}
	/* what the tokenizer is told: of the images judged last, without any gradient of weights */
	float *before = malloc((size_t)r.t.total * sizeof *before);
	memcpy(before, r.grads, (size_t)r.t.total * sizeof *before);
	struct lk_view dx = lk_view4(r.dx, LK_F32, N, H, W, 3);
	for (int i = 0; i < PATCHES; i++) {
		slopes[i] = -1.0f / PATCHES;
		fooled -= (double)lwm_patchgan_logits(r.g)[i] / PATCHES;
	}
	assert_int_equal(lwm_patchgan_back(r.g, slopes, &dx, NULL, &e), 0);
	near("what the tokenizer loses", 0, fooled, golden_losses[1], 1e-5);
	assert_memory_equal(before, r.grads, (size_t)r.t.total * sizeof *before);
	free(before);
	for (int i = 0, k = 0; i < N * H * W; i++)
		if (i / W % H % 3 == 0 && i % W % 3 == 0)
			for (int c = 0; c < 3; c++, k++)
				near("pixel", k, (double)r.dx[i * 3 + c], golden_grad[k], 2e-5);
	close_rig(&r);
}

static void golden(void **state)
{
	(void)state;
	as_published("ref");
	as_published("cpu");
}

/* The shape of Esser et al.: 2,765,633 weights without the biases that batch norm makes needless. */
static void published_shape(void **state)
{
	static const struct lwm_patchgan_cfg c = { .channels = 64, .layers = 3 };
	struct lwm_tensors t = { .align = 16 };
	struct lwm_err e = { 0 };
	(void)state;
	assert_int_equal(lwm_patchgan_tensors(&t, &c, &e), 0);
	assert_int_equal(t.params - (128 + 256 + 512), 2765633);
	for (int64_t i = 0; i < t.n; i++)
		assert_false(t.list[i].decays);
	lwm_tensors_release(&t);
	assert_int_equal(lwm_patchgan_check(&c, 24, 24, &e), 0);
	assert_int_equal(lwm_patchgan_check(&c, 23, 24, &e), -LWM_ECONFIG);
	lwm_err_clear(&e);
	assert_int_equal(lwm_patchgan_check(&(struct lwm_patchgan_cfg){ 6, 3 }, 64, 64, &e), -LWM_ECONFIG);
	lwm_err_clear(&e);
	assert_int_equal(lwm_patchgan_check(&(struct lwm_patchgan_cfg){ 64, 7 }, 64, 64, &e), -LWM_ECONFIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(golden), cmocka_unit_test(published_shape) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
