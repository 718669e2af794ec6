/* The communicator cases over MPI, and those of device memory. Run under mpirun; rank 0 speaks. */
#include "common/base/log.h"
#include "tests/unit/devcomm_cases.h"

/* Each rank is a process, so the emulated GPUs know nothing of each other: through host memory. */
static int device_memory(struct lwm_comm *world, const char *device, const char *kind, struct lwm_err *e)
{
	struct devcomm_setup s = { device, kind };
	int rc = lwm_agree(world, devcomm_all(world, &s, e), e);
	if (rc < 0 && lwm_comm_rank(world) == 0)
		printf("FAILED device memory on %s, %d ranks: %s\n", device, lwm_comm_size(world), e->msg);
	lwm_err_clear(e);
	return rc < 0;
}

/* A large message to rank 0, which calls nothing until its sender says by a file that it is rid of it: MPI has to be asked
 * beside. */
static int received_beside(struct lwm_comm *c, struct lwm_err *e)
{
	enum { LEN = 3000017 };
	int n = lwm_comm_size(c), me = lwm_comm_rank(c);
	bool came = true;
	char path[64];
	int64_t pid = getpid();
	float *p = calloc(LEN, sizeof *p);
	FILE *f;
	NEED(p);
	LWM_TRY(lwm_comm_bcast(c, &pid, sizeof pid, 0, e));
	snprintf(path, sizeof path, "/tmp/lwm-test-comm-%ld-beside", (long)pid);
	if (me == 0) {
		LWM_TRY(lwm_comm_start(c, 0, NULL, 0, n - 1, p, LEN * sizeof *p, e));
		came = file_appears(path);
		LWM_TRY(lwm_comm_finish(c, e));
	} else if (me == n - 1) {
		p[LEN - 1] = 7;
		LWM_TRY(lwm_comm_start(c, 0, p, LEN * sizeof *p, 0, NULL, 0, e));
		LWM_TRY(lwm_comm_finish(c, e));
		NEED((f = fopen(path, "w")) && fclose(f) == 0);
	}
	LWM_TRY(lwm_comm_barrier(c, e));
	came = came && (me || p[LEN - 1] == 7);
	if (me == 0)
		unlink(path);
	free(p);
	NEED(came);
	return 0;
}

int main(int argc, char **argv)
{
	struct lwm_err e = { 0 };
	struct lwm_comm *world;
	int passed = 0, failed = 0, skipped = 0;
	lwm_log_init("mpi_comm", LWM_ERROR);
	if (lwm_comm_mpi(&world, &argc, &argv, &e) < 0) {
		fprintf(stderr, "mpi_comm: %s\n", e.msg);
		return -e.code;
	}
	int n = lwm_comm_size(world);
	for (int i = 0; i < N_COMM_CASES; i++) {
		if ((comm_cases[i].even && n % 2) || (comm_cases[i].many && n < 2))
			continue;
		int rc = lwm_agree(world, comm_cases[i].fn(world, NULL, &e), &e);
		if (rc < 0 && lwm_comm_rank(world) == 0)
			printf("FAILED %s on %d ranks: %s\n", comm_cases[i].name, n, e.msg);
		rc < 0 ? failed++ : passed++;
		lwm_err_clear(&e);
	}
	if (lwm_agree(world, received_beside(world, &e), &e) < 0) {
		if (lwm_comm_rank(world) == 0)
			printf("FAILED received beside computation on %d ranks: %s\n", n, e.msg);
		failed++;
	} else
		passed++;
	lwm_err_clear(&e);
	device_memory(world, "cpu", "host", &e) ? failed++ : passed++;
	setenv("LWM_NCCL", "0", 1);
	if (devcomm_emulator())
		device_memory(world, "cuda", "staged", &e) ? failed++ : passed++;
	else
		skipped++;
	if (skipped && lwm_comm_rank(world) == 0)
		printf("skip device memory of a GPU: the emulated one was not built (make emu)\n");
	if (lwm_comm_rank(world) == 0)
		printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
	lwm_comm_free(world);
	return failed ? 1 : 0;
}
