/* launch.h - what a launcher (mpirun, srun and others) told this process in its environment, before MPI is started. */
#ifndef LWM_BASE_LAUNCH_H
#define LWM_BASE_LAUNCH_H

/* Of all processes started together. 0 of 1 when nothing was told. */
int lwm_launch_rank(void);
int lwm_launch_size(void);
/* Among the processes of this node; 0 when nothing was told. */
int lwm_launch_local_rank(void);

#endif
