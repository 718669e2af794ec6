#!/bin/bash
#SBATCH --job-name=lwm-qa
#SBATCH --array=0-99
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.log
#	sbatch slurm/qa_array.sh INPUT OUT MODEL [lwm-qa-gen options]
# Long documents to chats about them: a short-context model writes a question and an answer for every chunk. A finished
# shard is left alone, so a failed task is simply submitted again:  LWM_TASKS=100 sbatch --array=3,7 slurm/qa_array.sh ...
. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
lwm_only_failed "$0" "$@"
input=${1:?INPUT: document shards, a folder or @LIST} out=${2:?OUT: the folder of the shards} model=${3:?MODEL: its folder}
shift 3
options=("$@")
mkdir -p "$out"
task() {
	lwm_job 1 lwm-qa-gen --task "$1" --tasks "$2" --out-dir "$out" --model "$model" "${options[@]}" "$input"
}
lwm_array task
