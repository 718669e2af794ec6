#!/bin/bash
#SBATCH --job-name=lwm-encode
#SBATCH --array=0-99
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
#	sbatch slurm/encode_array.sh INPUT OUT VQGAN [lwm-vqgan-encode options]
# Videos and images to document shards of codes, one shard for each task: the number of tasks decides which clips share a
# shard, so keep it. A finished shard is left alone. Failed tasks again:  LWM_TASKS=100 sbatch --array=3,7 ...
. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
lwm_only_failed "$0" "$@"
input=${1:?INPUT: a file, a folder or @LIST} out=${2:?OUT: the folder of the shards} model=${3:?VQGAN: its folder}
shift 3
options=("$@")
mkdir -p "$out"
task() {
	lwm_job 1 lwm-vqgan-encode --task "$1" --tasks "$2" --out-dir "$out" --model "$model" "${options[@]}" "$input"
}
lwm_array task
