/* model_same.h - models in other programs' files against the same in safetensors. */
#ifndef LWM_TESTS_UNIT_MODEL_SAME_H
#define LWM_TESTS_UNIT_MODEL_SAME_H

#include "tests/unit/io_fault.h"

#include "common/io/model.h"

static inline float *values_of(struct lwm_model *m, const struct lwm_tensor *t)
{
	struct lwm_err e = { 0 };
	float *v = malloc((size_t)t->count * sizeof *v);
	assert_non_null(v);
	/* in two calls, so that the second begins in the middle */
	int64_t part = t->count / 3;
	if (lwm_model_read_named(m, t, 0, part, v, &e) < 0 || lwm_model_read_named(m, t, part, t->count - part, v + part, &e) < 0)
		fail_msg("%s", e.msg);
	return v;
}

/* Every tensor of a is one of b, bit for bit. */
static inline void same_weights(struct lwm_model *a, struct lwm_model *b)
{
	for (int64_t i = 0; i < lwm_model_count(a); i++) {
		const struct lwm_tensor *t = lwm_model_tensor(a, i);
		float *x = values_of(a, t), *y = values_of(b, t);
		if (memcmp(x, y, (size_t)t->count * sizeof *x))
			fail_msg("'%s' differs", t->name);
		free(x);
		free(y);
	}
}

/* A model of tests/golden has the weights of one of hf-1 there, and so many tensors more. */
static inline void compare(const char *name, const char *of, int64_t more)
{
	struct lwm_model *a, *b;
	struct lwm_err e = { 0 };
	char path[256];
	snprintf(path, sizeof path, "tests/golden/hf-1/%s", of);
	if (lwm_model_open(&a, path, &e) < 0)
		fail_msg("%s", e.msg);
	snprintf(path, sizeof path, "tests/golden/%s", name);
	if (lwm_model_open(&b, path, &e) < 0)
		fail_msg("%s", e.msg);
	assert_int_equal(lwm_model_count(b), lwm_model_count(a) + more);
	same_weights(a, b);
	lwm_model_close(a);
	lwm_model_close(b);
}

#endif
