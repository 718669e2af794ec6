/* The tokenizer against a discriminator: gradients of both against finite differences, the weight between them by hand, and that
 * passes do not matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/model/vqgan.h"

static const struct lwm_vqgan_cfg small = { .resolution = 16, .hidden = 4, .levels = 3, .mult = { 1, 2, 2 }, .res_blocks = 1,
					    .z_channels = 6, .embed_dim = 5, .num_embeddings = 12, .groups = 2 };
static const struct lwm_patchgan_cfg judge = { .channels = 4, .layers = 2 };
enum { FRAMES = 3, SIDE = 16 };

struct net {
	struct lk_dev *dev;
	struct lwm_tensors p;
	int64_t judge_at;
	float *flat, *grads; /* host memory, which is the device's */
	struct lwm_flat_weights w, g;
	struct lwm_vqgan *m;
	struct lwm_patchgan *d;
	struct lwm_vqgan_critic critic;
	struct lwm_vqgan_loss how;
	uint8_t rgb[FRAMES * SIDE * SIDE * 3];
};

static float *floats(struct net *t)
{
	void *p;
	assert_int_equal(lk_mem_alloc(t->dev, (size_t)t->p.total * 4, &p), 0);
	return p;
}

static void open_net(struct net *t, int64_t per_pass)
{
	struct lwm_err e = { 0 };
	char why[256];
	memset(t, 0, sizeof *t);
	assert_int_equal(lk_dev_open(&t->dev, "ref", 1, why, sizeof why), 0);
	assert_int_equal(lwm_vqgan_tensors(&t->p, &small, &e), 0);
	t->judge_at = t->p.total;
	assert_int_equal(lwm_patchgan_tensors(&t->p, &judge, &e), 0);
	t->flat = floats(t);
	t->grads = floats(t);
	lwm_tensors_init(&t->p, 7, 0, t->p.total, t->flat);
	for (int64_t i = t->judge_at; i < t->p.total; i++)
		t->flat[i] *= 4; /* verdicts that differ */
	t->w = lwm_flat_weights_of(t->flat, LK_F32, NULL);
	t->g = lwm_flat_weights_of(NULL, LK_F32, t->grads);
	for (size_t i = 0; i < sizeof t->rgb; i++)
		t->rgb[i] = (uint8_t)((uint32_t)i * 2654435761u >> 23);
	assert_int_equal(lwm_vqgan_new(&t->m, t->dev, &small, &t->w.base, per_pass, &e), 0);
	assert_int_equal(lwm_patchgan_new(&t->d, t->dev, &judge, t->flat + t->judge_at, &e), 0);
	t->critic = (struct lwm_vqgan_critic){ t->d, t->grads + t->judge_at, 0.8f, NULL };
	t->how = (struct lwm_vqgan_loss){ .l2 = 1, .continuous = true, .critic = &t->critic };
}

static void close_net(struct net *t)
{
	lwm_vqgan_free(t->m);
	lwm_patchgan_free(t->d);
	lk_mem_free(t->dev, t->flat);
	lk_mem_free(t->dev, t->grads);
	lwm_tensors_release(&t->p);
	lk_dev_close(t->dev);
}

static struct lwm_vqgan_stats run(struct net *t, bool back)
{
	struct lwm_vqgan_stats st = { 0 };
	struct lwm_err e = { 0 };
	if (back)
		memset(t->grads, 0, (size_t)t->p.total * sizeof *t->grads);
	assert_int_equal(lwm_vqgan_refresh(t->m, &e), 0);
	if (lwm_vqgan_train(t->m, t->rgb, FRAMES, SIDE, SIDE, &t->how, 1.0f / FRAMES, back ? &t->g.base : NULL, NULL, &st, &e) < 0)
		fail_msg("%s", e.msg);
	return st;
}

static double length(const struct net *t, const char *name)
{
	const struct lwm_tensor *q = lwm_tensors_find(&t->p, name);
	double sq = 0;
	for (int64_t k = 0; k < q->count; k++)
		sq += pow((double)t->grads[q->offset + k], 2);
	return sqrt(sq);
}

/* In the direction of the gradient of each tensor what it is of rises as fast as that is long: loss + a g for the tokenizer, a as
 * it was; the hinge loss for the discriminator. */
static void differences(void **state)
{
	struct net t;
	struct lwm_vqgan_stats st, side[2];
	const float h = 3e-5f;
	(void)state;
	open_net(&t, FRAMES);
	st = run(&t, true);
	double a = st.balance / FRAMES;
	assert_true(a > 0 && st.judged == FRAMES);
	assert_true(fabs(st.loss - st.l2 - a * st.fooled) < 1e-9 * FRAMES);
	for (int64_t i = 0; i < t.p.n; i++) {
		const struct lwm_tensor *q = &t.p.list[i];
		bool of_judge = q->offset >= t.judge_at;
		double len = length(&t, q->name);
		if (q->role == LWM_ROLE_CODEBOOK)
			continue;
		assert_true(len > 0);
		float *keep = malloc((size_t)q->count * sizeof *keep);
		memcpy(keep, t.flat + q->offset, (size_t)q->count * sizeof *keep);
		for (int s = 0; s < 2; s++) {
			for (int64_t k = 0; k < q->count; k++)
				t.flat[q->offset + k] = keep[k] + (s ? -h : h) * (float)(t.grads[q->offset + k] / len);
			side[s] = run(&t, false);
		}
		memcpy(t.flat + q->offset, keep, (size_t)q->count * sizeof *keep);
		free(keep);
		assert_true(side[0].balance == 0);
		double slope = of_judge ? side[0].hinge - side[1].hinge :
					  side[0].loss - side[1].loss + a * (side[0].fooled - side[1].fooled);
		slope /= 2 * (double)h * FRAMES;
		if (fabs(slope - len) > 0.02 * len + 1e-3)
			fail_msg("%s: %g by differences, gradient of length %g", q->name, slope, len);
	}
	close_net(&t);
}

/* a = weight |dL| / (|dg| + 1e-4) in the last convolution, where dL is the gradient without a discriminator and a dg what it adds;
 * a discriminator that says nothing leaves |dL| / 1e-4, and never more than 10^4. */
static void by_hand(void **state)
{
	static const char last[] = "decoder.conv_out.weight";
	struct net t;
	struct lwm_vqgan_stats st;
	double sq = 0;
	(void)state;
	open_net(&t, FRAMES);
	const struct lwm_tensor *q = lwm_tensors_find(&t.p, last);
	float *alone = malloc((size_t)q->count * sizeof *alone);
	t.how.critic = NULL;
	run(&t, true);
	double dl = length(&t, last);
	memcpy(alone, t.grads + q->offset, (size_t)q->count * sizeof *alone);
	t.how.critic = &t.critic;
	st = run(&t, true);
	for (int64_t k = 0; k < q->count; k++)
		sq += pow(((double)t.grads[q->offset + k] - (double)alone[k]) / (st.balance / FRAMES), 2);
	double want = 0.8 * dl / (sqrt(sq) + 1e-4);
	if (fabs(st.balance / FRAMES - want) > 1e-4 * want)
		fail_msg("%g, expected %g", st.balance / FRAMES, want);
	free(alone);
	q = lwm_tensors_find(&t.p, "discriminator.conv3.weight");
	for (int64_t k = 0; k < q->count; k++)
		t.flat[q->offset + k] = 0;
	st = run(&t, true);
	assert_true(dl / 1e-4 < 1e4 && fabs(st.balance / FRAMES - 0.8 * dl / 1e-4) < 1e-4 * dl / 1e-4);
	assert_true(fabs(st.hinge / FRAMES - 1) < 1e-6);
	t.how.l2 = 1000;
	st = run(&t, true);
	assert_true(fabs(st.balance / FRAMES - 0.8e4) < 1e-3);
	close_net(&t);
}

/* One frame at a time goes forward twice, and gives the same; codes as well. */
static void passes(void **state)
{
	struct net one, all;
	(void)state;
	open_net(&one, 1);
	open_net(&all, FRAMES);
	for (int quantized = 0; quantized < 2; quantized++) {
		one.how.continuous = all.how.continuous = !quantized;
		one.how.codebook = all.how.codebook = 0.7f;
		one.how.commit = all.how.commit = 0.3f;
		struct lwm_vqgan_stats a = run(&one, true), b = run(&all, true);
		assert_true(fabs(a.balance - b.balance) < 1e-5 * b.balance && fabs(a.hinge - b.hinge) < 1e-6 * b.hinge);
		for (int64_t i = 0; i < all.p.n; i++) {
			const struct lwm_tensor *q = &all.p.list[i];
			double diff = 0, len = length(&all, q->name);
			for (int64_t k = 0; k < q->count; k++)
				diff += pow((double)one.grads[q->offset + k] - (double)all.grads[q->offset + k], 2);
			assert_true(len > 0 || (q->role == LWM_ROLE_CODEBOOK && !quantized));
			if (sqrt(diff) > 2e-5 * len)
				fail_msg("%s: %g apart of %g", q->name, sqrt(diff), len);
		}
	}
	close_net(&one);
	close_net(&all);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(differences), cmocka_unit_test(by_hand), cmocka_unit_test(passes) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
