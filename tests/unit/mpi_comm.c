/* The communicator cases over MPI. Run under mpirun; rank 0 speaks. */
#include "tests/unit/comm_cases.h"

int main(int argc, char **argv)
{
	struct lwm_err e = { 0 };
	struct lwm_comm *world;
	int passed = 0, failed = 0;
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
	if (lwm_comm_rank(world) == 0)
		printf("%d passed, %d failed, 0 skipped\n", passed, failed);
	lwm_comm_free(world);
	return failed ? 1 : 0;
}
