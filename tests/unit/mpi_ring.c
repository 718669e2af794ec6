/* mpi_ring.c - the ring cases over MPI. Run under mpirun; rank 0 speaks. */
#include "tests/unit/ring_cases.h"

int main(int argc, char **argv)
{
	static const char *const devices[] = { "ref", "cpu" };
	struct lwm_err e = { 0 };
	struct lwm_comm *world;
	int passed = 0, failed = 0;

	if (lwm_comm_mpi(&world, &argc, &argv, &e) < 0) {
		fprintf(stderr, "mpi_ring: %s\n", e.msg);
		return -e.code;
	}
	for (int i = 0; i < 2; i++) {
		int rc = ring_all(world, devices[i], &e);

		if (rc < 0 && lwm_comm_rank(world) == 0)
			printf("FAILED %s: %s\n", devices[i], e.msg);
		rc < 0 ? failed++ : passed++;
		lwm_err_clear(&e);
	}
	if (lwm_comm_rank(world) == 0)
		printf("%d passed, %d failed, 0 skipped\n", passed, failed);
	lwm_comm_free(world);
	return failed ? 1 : 0;
}
