/* test_tp_gpu.c - ranks that share the model on GPUs (emulated), in bf16: by NCCL and through host memory, against fp32.
 *
 * What travels between the blocks is rounded to bf16, sums are fp32: such a step is as far from fp32 as that of one GPU. */
#include "tests/unit/devcomm_cases.h"
#include "tests/unit/tp_fixture.h"

static struct lwm_llama_cfg gpu_model(void)
{
	return (struct lwm_llama_cfg){ .vocab_text = 64, .vision_rows = 16, .vision_codes = 11, .dim = 64, .ffn = 96, .layers = 2,
				       .heads = 2, .kv_heads = 1, .max_seq = 96, .rope_theta = 100, .rms_eps = 1e-6,
				       .init_std = 0.1 };
}

/* A step with weights and gradient in the device's memory; both on the host here. */
static int step_gpu(struct lk_dev *dev, const struct lwm_llama_cfg *c, const struct lwm_llama_run *run, const struct batch *b,
		    const float *w, float *grad, int64_t n, double *loss, struct lwm_err *e)
{
	struct lwm_llama_stats st = { 0 };
	struct lwm_llama *m = NULL;
	void *w32 = NULL, *wc = NULL, *g = NULL;
	size_t bytes = (size_t)n * sizeof(float);
	int rc = 0;

	if (lk_mem_alloc(dev, bytes, &w32) || lk_mem_alloc(dev, bytes, &wc) || lk_mem_alloc(dev, bytes, &g) ||
	    lk_upload(dev, w32, w, bytes) || lk_zero(dev, g, bytes))
		return lwm_fail(e, LWM_ENO, "%s", lk_dev_error(dev));
	struct lk_view from = lk_view1(w32, LK_F32, n), to = lk_view1(wc, lk_dev_dtype(dev), n);
	if (lk_cast(dev, &to, &from))
		return lwm_fail(e, LWM_ENO, "%s", lk_dev_error(dev));
	struct lwm_flat_weights lw = lwm_flat_weights_of(wc, lk_dev_dtype(dev), g);
	LWM_GO(lwm_llama_new(&m, dev, c, run, e));
	LWM_GO(lwm_llama_step(m, &b->b, &lw.base, &st, e));
	*loss = st.loss[LWM_TEXT] + st.loss[LWM_VISION];
	if (lk_download(dev, grad, g, bytes))
		rc = lwm_fail(e, LWM_ENO, "%s", lk_dev_error(dev));
out:
	lwm_llama_free(m);
	lk_mem_free(dev, w32);
	lk_mem_free(dev, wc);
	lk_mem_free(dev, g);
	return rc;
}

struct outcome {
	double loss, far; /* far: of its gradients from fp32, |difference| / |fp32| */
};

struct gpu_job {
	bool recompute;
	struct outcome got;
};

static double distance(const float *a, const float *b, int64_t n)
{
	double d = 0, s = 0;

	for (int64_t i = 0; i < n; i++) {
		d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
		s += (double)b[i] * (double)b[i];
	}
	return sqrt(d / s);
}

static int run_gpu(struct lwm_comm *comm, void *arg, struct lwm_err *e)
{
	static const int lengths[] = { 40, 20 };
	struct gpu_job *j = arg;
	struct lwm_llama_cfg c = gpu_model();
	struct batch b = batch_docs(&c, 64, lengths, 2, 0);
	struct part p = part_new(&c, lwm_comm_size(comm), lwm_comm_rank(comm));
	struct lwm_llama_run run = { .tokens = 64, .train = true, .recompute = j->recompute, .mlp_chunk = 24, .loss_bytes = 1500 };
	struct outcome y = { 0, 0 };
	int64_t total;
	float *w = weights_new(&c, &total), *lw = malloc((size_t)total * 4), *g = malloc((size_t)total * 4);
	float *whole = calloc((size_t)total, 4);
	struct result want = step_once("cpu", &c, (struct lwm_llama_run){ 0 }, &b.b, w, true);
	struct world x;
	char dev[16];
	int rc = 0;

	snprintf(dev, sizeof dev, "cuda:%d", lwm_comm_rank(comm));
	LWM_TRY(world_new(&x, comm, dev, lwm_comm_size(comm), e));
	move_part(&p, w, lw, false);
	run.tp = x.mesh.dev[LWM_TP];
	LWM_GO(step_gpu(x.dev, &c, &run, &b, lw, g, p.local.total, &y.loss, e));
	move_part(&p, whole, g, true);
	LWM_GO(lwm_comm_sum_f32(comm, whole, total, e));
	y.far = distance(whole, want.grad, total);
	if (!(fabs(y.loss - want.loss) < 0.01 * fabs(want.loss)))
		rc = lwm_fail(e, LWM_ENO, "loss %.9g, in fp32 %.9g", y.loss, want.loss);
	LWM_GO(lwm_agree(comm, rc, e));
	if (lwm_comm_rank(comm) == 0)
		j->got = y;
out:
	free(w);
	free(lw);
	free(g);
	free(whole);
	free(want.grad);
	part_release(&p);
	batch_free(&b);
	world_free(&x);
	return rc;
}

static struct outcome gpus(int n, bool recompute, const char *nccl)
{
	struct gpu_job j = { .recompute = recompute };
	struct lwm_err e = { 0 };

	setenv("LWM_NCCL", nccl, 1);
	if (lwm_comm_threads(n, run_gpu, &j, &e))
		fail_msg("%d GPUs, LWM_NCCL=%s: %s", n, nccl, e.msg);
	unsetenv("LWM_NCCL");
	return j.got;
}

static void gpus_share_the_model(void **state)
{
	(void)state;
	if (!devcomm_emulator()) {
		print_message("skip: the emulated GPU was not built (make emu)\n");
		skip();
	}
	for (int recompute = 0; recompute < 2; recompute++) {
		struct outcome one = gpus(1, recompute, "0"), staged = gpus(2, recompute, "0"), nccl = gpus(2, recompute, "1");

		print_message("from fp32: one GPU %.2g, two %.2g, by NCCL %.2g\n", one.far, staged.far, nccl.far);
		assert_below(one.far, 0.04);
		assert_below(staged.far, 1.5 * one.far);
		assert_below(nccl.far, 1.5 * one.far);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(gpus_share_the_model) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
