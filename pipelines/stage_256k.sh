#!/bin/bash
#SBATCH --job-name=lwm-text-256k
#SBATCH --nodes=32
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Text stage 256k: 256K tokens, theta 1e7, 3000 steps, on books of 200k to 500k tokens, from the 128K model.
# Every number is in pipelines/text.yaml; sbatch options and LWM_MODEL, LWM_STEPS, LWM_OUT, ... stand over it. The rows
# come from slurm/tokenize_array.sh and slurm/pack_array.sh (--mode concat --drop-tail), or from lwm-run. Its model is made by a job
# of its own, which needs no GPU:  sbatch --dependency=afterany:JOB pipelines/merge.sh text 256k
# Submit from the source tree or set LWM_HOME.
. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
lwm_stage text train_256k
