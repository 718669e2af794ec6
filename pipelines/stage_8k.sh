#!/bin/bash
#SBATCH --job-name=lwm-vision-8k
#SBATCH --nodes=64
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Vision stage 8k: 8K tokens, 14000 steps, on captioned images and clips and plain text, from the 1K model.
# Every number is in pipelines/vision.yaml; sbatch options and LWM_MODEL, LWM_STEPS, LWM_OUT, ... stand over it. The rows
# come from slurm/encode_array.sh and slurm/pack_array.sh, or from lwm-run. Its model is made by a job of its own, which needs no
# GPU:  sbatch --dependency=afterany:JOB pipelines/merge.sh vision 8k
# Submit from the source tree or set LWM_HOME.
. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
lwm_stage vision train_8k
