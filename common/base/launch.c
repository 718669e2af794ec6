/* The launchers' own words come first: what mpirun starts inside a Slurm job inherits the SLURM_PROCID, SLURM_LOCALID and
 * SLURM_STEP_NUM_TASKS of the daemon that started it. */
#include "common/base/launch.h"

#include <stdint.h>
#include <stdlib.h>

#include "common/base/num.h"

static int first_of(const char *const *names, int otherwise)
{
	for (; *names; names++) {
		const char *s = getenv(*names);
		int64_t n;

		if (s && lwm_parse_int(s, 0, 1 << 24, &n, *names, NULL) == 0)
			return (int)n;
	}
	return otherwise;
}

int lwm_launch_rank(void)
{
	static const char *const names[] = { "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID", NULL };

	return first_of(names, 0);
}

int lwm_launch_size(void)
{
	static const char *const names[] = { "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", NULL };

	return first_of(names, 1);
}

int lwm_launch_local_rank(void)
{
	static const char *const names[] = { "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK",
					     "MV2_COMM_WORLD_LOCAL_RANK", "PALS_LOCAL_RANKID", "SLURM_LOCALID", NULL };

	return first_of(names, 0);
}
