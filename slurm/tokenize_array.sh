#!/bin/bash
#SBATCH --job-name=lwm-tokenize
#SBATCH --array=0-99
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
#	sbatch slurm/tokenize_array.sh INPUT OUT [lwm-tokenize options]
# Text and JSON lines to document shards, one shard for each input file. A finished shard is left alone, so a failed
# task, or the whole array, is simply submitted again:  LWM_TASKS=100 sbatch --array=3,7 slurm/tokenize_array.sh ...
. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
lwm_only_failed "$0" "$@"
input=${1:?INPUT: a file, a folder or @LIST} out=${2:?OUT: the folder of the shards}
shift 2
options=("$@")
mkdir -p "$out"
task() {
	lwm_job 1 lwm-tokenize --task "$1" --tasks "$2" --out-dir "$out" "${options[@]}" "$input"
}
lwm_array task
