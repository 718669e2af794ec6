#!/bin/bash
#SBATCH --job-name=lwm-pack
#SBATCH --array=0-99
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
#	sbatch slurm/pack_array.sh INPUT OUT SEQ_LENGTH [lwm-pack options]
# Document shards to rows, one row shard for each task: the number of tasks decides which documents meet, so keep it.
# A failed task is submitted again with  LWM_TASKS=100 sbatch --array=3,7 slurm/pack_array.sh ...
. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
lwm_only_failed "$0" "$@"
input=${1:?INPUT: document shards, a folder or @LIST} out=${2:?OUT: the folder of the row shards}
seq=${3:?SEQ_LENGTH: tokens in a row}
shift 3
options=("$@")
mkdir -p "$out"
task() {
	lwm_job 1 lwm-pack --task "$1" --tasks "$2" --seq-length "$seq" --output "$out" "${options[@]}" "$input"
}
lwm_array task
