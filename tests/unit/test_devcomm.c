/* Device memory between ranks: host, staged, and from GPU to GPU on the emulator; training over them; which GPU is whose. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "common/base/log.h"
#include "tests/unit/devcomm_cases.h"
#include "tests/unit/train_folder.h"

static bool emulated;

static void need_emulator(void)
{
	if (!emulated) {
		print_message("skip: the emulated GPU was not built (make emu)\n");
		skip();
	}
}

static void each_size(const char *device, const char *kind, const char *nccl, int most)
{
	struct devcomm_setup s = { device, kind };

	nccl ? setenv("LWM_NCCL", nccl, 1) : unsetenv("LWM_NCCL");
	for (int n = 1; n <= most; n++) {
		struct lwm_err e = { 0 };

		if (lwm_comm_threads(n, devcomm_all, &s, &e))
			fail_msg("%s on %d ranks: %s", device, n, e.msg);
	}
	unsetenv("LWM_NCCL");
}

static void test_host(void **state)
{
	(void)state;
	each_size("cpu", "host", NULL, 4);
}

static void test_staged(void **state)
{
	(void)state;
	need_emulator();
	each_size("cuda", "staged", "0", 3);
}

static void test_nccl(void **state)
{
	(void)state;
	need_emulator();
	each_size("cuda", "nccl", "1", 3);
}

/* Two ranks, one GPU: it works, but not by NCCL. */
static void test_shared_gpu(void **state)
{
	struct devcomm_setup s = { "cuda:0", "staged" };
	struct lwm_err e = { 0 };

	(void)state;
	need_emulator();
	each_size("cuda:0", "staged", NULL, 2);
	setenv("LWM_NCCL", "1", 1);
	assert_int_equal(lwm_comm_threads(2, devcomm_all, &s, &e), -LWM_EUNAVAIL);
	assert_non_null(strstr(e.msg, "share a GPU"));
	unsetenv("LWM_NCCL");
}

static int mixed(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct devcomm_setup s = { lwm_comm_rank(c) ? "cpu" : "cuda:0", "" };
	struct devcomm_rank r;
	int rc = devcomm_open(&r, c, &s, e);

	(void)arg;
	devcomm_close(&r);
	return rc == -LWM_ECONFIG ? 0 : lwm_fail(e, LWM_ENO, "mixed devices gave %d", rc);
}

static void test_mixed_devices(void **state)
{
	struct lwm_err e = { 0 };

	(void)state;
	need_emulator();
	if (lwm_comm_threads(2, mixed, NULL, &e))
		fail_msg("%s", e.msg);
}

/* ---- training ---- */

static int train(struct lwm_comm *c, void *arg, struct lwm_err *e)
{
	struct lwm_stage s = *(struct lwm_stage *)arg;
	char device[16];

	snprintf(device, sizeof device, "cuda:%d", lwm_comm_rank(c));
	s.device = device;
	return lwm_stage_run(&s, c, e);
}

enum { STEPS = 3 };

static void train_on(const char *mesh, int ranks, const char *nccl, double *loss)
{
	struct lwm_err e = { 0 };
	struct lwm_stage s;
	char out[256];

	snprintf(out, sizeof out, "%s/%s-%s", root, mesh, nccl);
	assert_int_equal(fx_stage(&s, rows, out, &e), 0);
	lwm_next_token_of(&s)->tokens_per_batch = FX_SEQ * 4;
	lwm_next_token_of(&s)->micro_rows = 1;
	lwm_next_token_of(&s)->layers = 1;
	s.steps = STEPS;
	s.mesh_dim = mesh;
	setenv("LWM_NCCL", nccl, 1);
	if (lwm_comm_threads(ranks, train, &s, &e))
		fail_msg("mesh %s, LWM_NCCL=%s: %s", mesh, nccl, e.msg);
	unsetenv("LWM_NCCL");
	assert_int_equal(fx_losses(out, loss, STEPS), STEPS);
	lwm_stage_release(&s);
}

/* Any mesh gives the losses of one rank, whichever way the gradients and the ring go. */
static void test_training(void **state)
{
	static const struct {
		const char *mesh, *nccl;
		int ranks;
	} m[] = { { "2,1,1,1", "0", 2 }, { "1,1,1,2", "0", 2 }, { "1,1,2,1", "0", 2 }, { "2,1,1,1", "1", 2 }, { "1,1,1,2", "1", 2 },
			{ "1,1,2,1", "1", 2 }, { "1,2,1,2", "1", 4 }, { "1,1,2,2", "1", 4 } };
	double alone[STEPS], loss[STEPS];

	(void)state;
	need_emulator();
	train_on("1,1,1,1", 1, "0", alone);
	for (size_t i = 0; i < sizeof m / sizeof *m; i++) {
		train_on(m[i].mesh, m[i].ranks, m[i].nccl, loss);
		for (int k = 0; k < STEPS; k++)
			if (!(fabs(loss[k] - alone[k]) <= 5e-3 * alone[k])) /* bf16 rounds at other places */
				fail_msg("mesh %s, LWM_NCCL=%s, step %d: loss %.9g, on one rank %.9g", m[i].mesh, m[i].nccl, k,
					 loss[k], alone[k]);
	}
}

/* ---- whose GPU ---- */

static void gpu_is(int gpus, int want)
{
	struct lwm_err e = { 0 };
	int index = -1, rc = lwm_device_gpu(gpus, &index, &e);

	if (want < 0) {
		assert_int_equal(rc, -LWM_EUNAVAIL);
		assert_non_null(strstr(e.msg, "one rank for each GPU"));
	} else {
		assert_int_equal(rc, 0);
		assert_int_equal(index, want);
	}
}

static void test_gpu_of_rank(void **state)
{
	static const char *const names[] = { "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK",
					     "MV2_COMM_WORLD_LOCAL_RANK", "PALS_LOCAL_RANKID", "SLURM_LOCALID",
					     "CUDA_VISIBLE_DEVICES", "SLURM_GPUS_PER_TASK" };

	(void)state;
	for (int i = 0; i < 8; i++)
		unsetenv(names[i]);
	gpu_is(4, 0); // alone
	for (int i = 0; i < 6; i++) {
		setenv(names[i], "3", 1);
		gpu_is(4, 3);
		gpu_is(3, -1);
		gpu_is(1, -1);
		unsetenv(names[i]);
	}
	setenv("SLURM_LOCALID", "0", 1); // of the daemon that mpirun started
	setenv("OMPI_COMM_WORLD_LOCAL_RANK", "2", 1);
	gpu_is(4, 2);
	setenv("CUDA_VISIBLE_DEVICES", "2", 1); // the scheduler has narrowed it
	gpu_is(1, 0);
	setenv("CUDA_VISIBLE_DEVICES", "0,1", 1);
	gpu_is(2, -1);
	setenv("SLURM_GPUS_PER_TASK", "2", 1); // two of its own
	gpu_is(2, 0);
	for (int i = 0; i < 8; i++)
		unsetenv(names[i]);
}

static int set_up(void **state)
{
	(void)state;
	emulated = devcomm_emulator();
	return folder_of("test_devcomm", FX_VOCAB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gpu_of_rank), cmocka_unit_test(test_host),	  cmocka_unit_test(test_staged),
		cmocka_unit_test(test_nccl),	    cmocka_unit_test(test_shared_gpu), cmocka_unit_test(test_mixed_devices),
		cmocka_unit_test(test_training),
	};

	return cmocka_run_group_tests(tests, set_up, folder_gone);
}
