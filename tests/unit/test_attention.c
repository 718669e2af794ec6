/* test_attention.c - a model asks its attention body in the promised order, and a body is one file: the one here, over one rank and
 * without a ring, gives the bits that the ring alone gives. */
#include "common/comm/device.h"
#include "common/model/attention.h"
#include "tests/unit/llama_fixture.h"

/* ---- a body ---- */

struct plain {
	struct lwm_attn base;
	struct lk_dev *dev;
	struct lk_seq *seq;
	float scale;
	int fail_layer; /* of the forward; -1: none */
	char calls[256];
};

static void note(struct plain *p, const char *what, int64_t layer, int failed)
{
	size_t at = strlen(p->calls);

	snprintf(p->calls + at, sizeof p->calls - at, " %s%d%s", what, (int)layer, failed ? "!" : "");
}

static int begin_batch(struct lwm_attn *a, int64_t n, const int32_t *pos, const int32_t *seg, struct lwm_err *e)
{
	struct plain *p = (struct plain *)a;

	note(p, "n", n, 0);
	lk_seq_free(p->seq);
	p->seq = NULL;
	return lwm_dev_check(p->dev, lk_seq_new(p->dev, &p->seq, n, pos, seg), e);
}

static const int32_t *batch_positions(const struct lwm_attn *a)
{
	return lk_seq_pos(((const struct plain *)a)->seq);
}

static struct lk_attn attn_of(const struct plain *p, const struct lwm_attn_qkv *x)
{
	return (struct lk_attn){ .q = x->q, .k = x->k, .v = x->v, .qs = p->seq, .ks = p->seq, .scale = p->scale, .causal = 1 };
}

static int forward_layer(struct lwm_attn *a, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o, float *lse,
			 int failed, struct lwm_err *e)
{
	struct plain *p = (struct plain *)a;
	struct lk_attn at = attn_of(p, x);

	note(p, "f", layer, failed);
	if (failed)
		return failed;
	if (layer == p->fail_layer)
		return lwm_fail(e, LWM_EUNAVAIL, "layer %d does not want to", (int)layer);
	return lwm_dev_check(p->dev, lk_attn_once(p->dev, &at, o, lse), e);
}

static int backward_layer(struct lwm_attn *a, int64_t layer, const struct lwm_attn_qkv *x, const struct lk_view *o,
			  const struct lk_view *dout, const float *lse, float *delta, const struct lwm_attn_qkv *dx, int failed,
			  struct lwm_err *e)
{
	struct plain *p = (struct plain *)a;
	struct lk_attn at = attn_of(p, x);

	note(p, "b", layer, failed);
	if (failed)
		return failed;
	LWM_TRY(lwm_dev_check(p->dev, lk_attn_delta(p->dev, delta, o, dout), e));
	return lwm_dev_check(p->dev, lk_attn_bwd(p->dev, &at, dout, lse, delta, &dx->q, &dx->k, &dx->v), e);
}

static void free_nothing(struct lwm_attn *a)
{
	(void)a;
	fail_msg("a body that was lent is freed");
}

static const struct lwm_attn_ops plain_ops = { begin_batch, batch_positions, forward_layer, backward_layer, free_nothing };

static struct plain plain_on(struct lk_dev *dev, const struct lwm_llama_cfg *c, int fail_layer)
{
	return (struct plain){ .base.ops = &plain_ops, .dev = dev, .fail_layer = fail_layer,
			       .scale = (float)(1 / sqrt((double)lwm_llama_head_dim(c))) };
}

/* ---- a model that uses it ---- */

enum { LEN = 40 };

static void any_body_gives_the_same_bits(void **state)
{
	static const char *const devices[] = { "ref", "cpu" };
	const int lengths[] = { 13, 20 };
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, LEN, lengths, 2, 0);
	int64_t total;
	float *w = weights_new(&c, &total);

	(void)state;
	for (int i = 0; i < 4; i++) {
		struct lwm_llama_run run = { .recompute = i / 2 };
		struct result want = step_once(devices[i % 2], &c, run, &x.b, w, true), got = { 0 };
		struct lk_dev *dev = device(devices[i % 2], 1);
		struct plain p = plain_on(dev, &c, -1);
		struct lwm_err e = { 0 };

		run.attention = &p.base;
		if (step_on(dev, &c, run, &x.b, w, true, &got, &e))
			fail_msg("%s", e.msg);
		assert_string_equal(p.calls, " n40 f0 f1 b1 b0");
		assert_memory_equal(&got.stats, &want.stats, sizeof want.stats);
		assert_memory_equal(got.grad, want.grad, (size_t)total * sizeof *want.grad);
		lk_seq_free(p.seq);
		lk_dev_close(dev);
		free(want.grad);
		free(got.grad);
	}
	free(w);
	batch_free(&x);
}

/* Ranks may wait for each other in any layer: a failure is handed on to every call that follows, and none is left out. */
static void a_failure_is_handed_on(void **state)
{
	struct lwm_llama_cfg c = tiny_cfg();
	struct batch x = batch_docs(&c, LEN, &(const int){ LEN }, 1, 0);
	struct lk_dev *dev = device("cpu", 1);
	int64_t total;
	float *w = weights_new(&c, &total);

	(void)state;
	for (int layer = 0; layer < 2; layer++) {
		struct plain p = plain_on(dev, &c, layer);
		struct lwm_llama_run run = { .attention = &p.base };
		struct result r = { 0 };
		struct lwm_err e = { 0 };

		assert_int_equal(step_on(dev, &c, run, &x.b, w, true, &r, &e), -LWM_EUNAVAIL);
		assert_non_null(strstr(e.msg, "does not want to"));
		assert_string_equal(p.calls, layer ? " n40 f0 f1 b1! b0!" : " n40 f0 f1! b1! b0!");
		lk_seq_free(p.seq);
		free(r.grad);
	}
	lk_dev_close(dev);
	free(w);
	batch_free(&x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_body_gives_the_same_bits),
		cmocka_unit_test(a_failure_is_handed_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
