# shellcheck shell=bash
# The settings of your cluster: the only file here that a site edits. Every batch script reads it when its job starts.
# To have sbatch itself use account and partition, read it into your login shell too:  . slurm/site.sh

# module purge; module load gcc openmpi hdf5 ffmpeg

# export SBATCH_ACCOUNT=myproject
# export SBATCH_PARTITION=gpu

# What starts the ranks inside a job, where it is not srun --mpi=pmix --kill-on-bad-exit=1. Not outside: there mpirun does.
# [ -z "${SLURM_JOB_ID:-}" ] || export LWM_LAUNCH="srun --mpi=pmi2 --kill-on-bad-exit=1"

# Where the programs are, when they are not in the source tree's bin/.
# PATH=/opt/lwm/bin:$PATH

# What plans tell the time of a step by (lwm-train-stage --plan --help; options and --plan-gpu fill what is not said): of a rank's
# device TFLOP/s of products and of attention, GB/s of its memory, GB/s to ranks of its node and of others, GB/s to host memory, ranks
# of a node, GB/s that all ranks write. On a node: mpirun -n 8 lwm-train-stage ... --plan --calibrate --json shows them under "rates".
# export LWM_PLAN_TFLOPS=640 LWM_PLAN_ATTENTION_TFLOPS=450 LWM_PLAN_MEMORY_RATE=2900
# export LWM_PLAN_NODE_RATE=400 LWM_PLAN_NET_RATE=45 LWM_PLAN_HOST_RATE=45 LWM_PLAN_NODE_RANKS=8 LWM_PLAN_DISK_RATE=20

# How often a job that saved before its time limit is put back into the queue.
export LWM_MAX_REQUEUES="${LWM_MAX_REQUEUES:-200}"
# And one that lost a rank within its first hour.
export LWM_MAX_LOSSES="${LWM_MAX_LOSSES:-3}"
