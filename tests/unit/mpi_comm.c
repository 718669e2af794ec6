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
