/* trunk_fixture.h - the small trunk of tests/golden/trunk-1, its weights, and its slopes. */
#ifndef LWM_TEST_TRUNK_FIXTURE_H
#define LWM_TEST_TRUNK_FIXTURE_H

#include "common/model/trunk.h"
#include "tests/unit/llama_fixture.h"

enum { INPUT = 12 };
struct slope {
	const char *tensor;
	double slope; /* of the loss along numbers("direction of TENSOR") */
};

static inline struct lwm_llama_cfg small_trunk(void)
{
	return (struct lwm_llama_cfg){ .dim = 16, .ffn = 20, .layers = 2, .heads = 4, .kv_heads = 2, .max_seq = 64,
				       .rope_theta = 100, .rms_eps = 1e-6, .init_std = 0.25, .input_dim = INPUT };
}

/* As numbers() of make.py. */
static inline void numbers(const char *about, const char *name, int64_t n, float *out)
{
	uint32_t x = 2166136261u;

	for (int part = 0; part < 2; part++)
		for (const char *p = part ? name : about; *p; p++)
			x = (x ^ (unsigned char)*p) * 16777619u;
	for (int64_t i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		out[i] = (float)(x >> 16) / 65536.0f - 0.5f;
	}
}

static inline float *weights_by_name(const struct lwm_tensors *t)
{
	float *w = malloc((size_t)t->total * sizeof *w);

	for (int64_t i = 0; i < t->n; i++) {
		float *v = w + t->list[i].offset;

		numbers("", t->list[i].name, t->list[i].count, v);
		for (int64_t k = 0; t->list[i].ndim == 1 && k < t->list[i].count; k++)
			v[k] = 1 + v[k] / 2;
	}
	return w;
}

static inline float *random_weights(const struct lwm_tensors *t)
{
	float *w = malloc((size_t)t->total * sizeof *w);

	lwm_tensors_init(t, 5, 0, t->total, w);
	for (int64_t i = 0; i < t->n; i++)
		for (int64_t k = 0; t->list[i].ndim == 1 && k < t->list[i].count; k++)
			w[t->list[i].offset + k] += 0.1f * (float)(k % 5);
	return w;
}

/* All tensors that train, along the directions of make.py. */
static inline void check_slopes(const char *dev, const struct lwm_tensors *t, const float *grad, const struct slope *want, size_t n)
{
	float d[768];
	int64_t train = 0;

	for (int64_t i = 0; i < t->n; i++)
		train += t->list[i].trainable;
	assert_int_equal(train, (int64_t)n);
	for (size_t i = 0; i < n; i++) {
		const struct lwm_tensor *p = lwm_tensors_find(t, want[i].tensor);
		double sum = 0, size = 0;

		if (!p)
			fail_msg("%s is missing", want[i].tensor);
		assert_true(p->count <= (int64_t)(sizeof d / sizeof *d));
		numbers("direction of ", p->name, p->count, d);
		for (int64_t k = 0; k < p->count; k++) {
			sum += (double)d[k] * (double)grad[p->offset + k];
			size += fabs((double)d[k] * (double)grad[p->offset + k]);
		}
		if (!(fabs(sum - want[i].slope) <= 2e-5 * size))
			fail_msg("%s on %s: %.9g, expected %.9g", p->name, dev, sum, want[i].slope);
	}
}

/* The loss of an objective at weights w. */
typedef double loss_fn(void *ctx, const float *w);
/* Along a random direction within each tensor that trains: (L(w+hd) - L(w-hd)) / 2h against grad . d. Of others it is 0. */
static inline void check_differences(const struct lwm_tensors *t, const float *w, const float *grad, loss_fn *loss, void *ctx)
{
	float *v = malloc((size_t)t->total * sizeof *v);

	for (int64_t i = 0; i < t->n; i++) {
		const struct lwm_tensor *q = &t->list[i];
		struct lwm_rng g = lwm_rng_at(3, LWM_RNG_TEST, 1, (uint64_t)i);
		double h = 0.02 / sqrt((double)q->count), dot = 0, fd = 0, size = 0;

		for (int64_t k = 0; k < q->count && !q->trainable; k++)
			assert_true(grad[q->offset + k] == 0);
		if (!q->trainable)
			continue;
		for (int sign = -1; sign <= 1; sign += 2) {
			struct lwm_rng d = g;

			memcpy(v, w, (size_t)t->total * sizeof *v);
			for (int64_t k = 0; k < q->count; k++) {
				double x = lwm_rng_normal(&d), slope = (double)grad[q->offset + k];

				v[q->offset + k] += (float)(sign * h * x);
				dot += sign > 0 ? x * slope : 0;
				size += sign > 0 ? x * x * slope * slope : 0;
			}
			fd += sign * loss(ctx, v) / (2 * h);
		}
		if (!(fabs(fd - dot) <= 0.02 * sqrt(size) + 1e-4))
			fail_msg("%s: slope %g, gradient %g", q->name, fd, dot);
		assert_true(size > 0);
	}
	free(v);
}

#endif
