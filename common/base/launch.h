/* launch.h - what a launcher (mpirun, srun and others), Slurm or CUDA told this process in its environment, before MPI is started.
 * The names of these variables are known here and nowhere else. Local calls; the environment is read each time.
 */
#ifndef LWM_BASE_LAUNCH_H
#define LWM_BASE_LAUNCH_H

#include <stdbool.h>
#include <stdint.h>

/* Of all processes started together. 0 of 1 when nothing was told. */
int lwm_launch_rank(void);
int lwm_launch_size(void);
/* Among the processes of this node; 0 when nothing was told. */
int lwm_launch_local_rank(void);
/* How many processes this node has of those; 0 when nothing was told. */
int lwm_launch_local_size(void);
/* Has a launcher started this process that MPI can ask about the others? If not, MPI would see one process alone. */
bool lwm_launch_by_mpi(void);

/* The number of the Slurm job this runs in, as text of the environment; NULL: in none. */
const char *lwm_launch_job(void);
/* When that job's time is over, in seconds since 1970; false, and *end as it was: nothing was told. */
bool lwm_launch_job_end(int64_t *end);

/* The GPUs that a scheduler or the caller gave this process, as "NAME=value" of the variable that says so, in static memory; NULL:
 * none. */
const char *lwm_launch_gpus(void);
/* Has it been given GPUs that the others on the node do not see? */
bool lwm_launch_gpus_own(void);

#endif
