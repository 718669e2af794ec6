/* launch.h - what a launcher (mpirun, srun and others) told this process in its environment, before MPI is started. */
#ifndef LWM_BASE_LAUNCH_H
#define LWM_BASE_LAUNCH_H

#include <stdbool.h>

/* Of all processes started together. 0 of 1 when nothing was told. */
int lwm_launch_rank(void);
int lwm_launch_size(void);
/* Among the processes of this node; 0 when nothing was told. */
int lwm_launch_local_rank(void);

/* The GPUs that a scheduler or the caller gave this process, as "NAME=value" of the variable that says so, in static memory; NULL:
 * none. */
const char *lwm_launch_gpus(void);
/* Has it been given GPUs that the others on the node do not see? */
bool lwm_launch_gpus_own(void);

#endif
