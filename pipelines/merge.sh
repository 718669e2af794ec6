#!/bin/bash
#SBATCH --job-name=lwm-merge
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=02:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#	sbatch --dependency=afterany:JOB pipelines/merge.sh text 32k
# The model of a stage, from its last checkpoint, when the stage is complete: one process, no GPU. It reads and writes piece by piece;
# what it holds does not grow with the model. The next stage starts from this model. LWM_OUT: where, as for the stage.
. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
file=${1:?FILE: text, vision or chat} stage=${2:?STAGE: 32k, 128k, ...}
lwm_need "${LWM_OUT:-runs/$file}/train/$stage/summary.json"
lwm_stage "$file" "merge_$stage"
