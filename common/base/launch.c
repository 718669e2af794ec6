/* launch.c - the words of mpirun, srun, Slurm and CUDA in the environment. Nobody else reads them.
 *
 * The launchers' own words come first: what mpirun starts inside a Slurm job inherits the SLURM_PROCID, SLURM_LOCALID and
 * SLURM_STEP_NUM_TASKS of the daemon that started it. */
#include "common/base/launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

int lwm_launch_local_size(void)
{
	const char *s = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");

	if (!s)
		s = getenv("SLURM_TASKS_PER_NODE"); /* "4", "2(x3)", "4(x2),1": of the first node, as near as this says it */
	return s ? (int)strtol(s, NULL, 10) : 0;
}

bool lwm_launch_by_mpi(void)
{
	static const char *const names[] = { "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (getenv(names[i]))
			return true;
	return false;
}

const char *lwm_launch_job(void)
{
	return getenv("SLURM_JOB_ID");
}

bool lwm_launch_job_end(int64_t *end)
{
	const char *s = getenv("SLURM_JOB_END_TIME");

	return s && lwm_parse_int(s, 1, INT64_MAX, end, "SLURM_JOB_END_TIME", NULL) == 0;
}

int lwm_launch_local_rank(void)
{
	static const char *const names[] = { "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "PMI_LOCAL_RANK",
					     "MV2_COMM_WORLD_LOCAL_RANK", "PALS_LOCAL_RANKID", "SLURM_LOCALID", NULL };

	return first_of(names, 0);
}

/* CUDA_VISIBLE_DEVICES is set to say "none", too: empty, -1, NoDevFiles (Slurm). */
static bool says_some(const char *value)
{
	return *value && strcmp(value, "-1") && strcmp(value, "NoDevFiles");
}

const char *lwm_launch_gpus(void)
{
	static const char *const names[] = { "SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE", "SLURM_GPUS_PER_TASK",
					     "CUDA_VISIBLE_DEVICES" };
	static char text[128];

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const char *s = getenv(names[i]);
		bool counts = strstr(names[i], "GPUS_") != NULL; // a number of GPUs; the others list them

		if (!s || !says_some(s) || (counts && !strcmp(s, "0")))
			continue;
		snprintf(text, sizeof text, "%s=%s", names[i], s);
		return text;
	}
	return NULL;
}

bool lwm_launch_gpus_own(void)
{
	const char *visible = getenv("CUDA_VISIBLE_DEVICES");

	return getenv("SLURM_GPUS_PER_TASK") || (visible && *visible && !strchr(visible, ','));
}
