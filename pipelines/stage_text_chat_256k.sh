#!/bin/bash
#SBATCH --job-name=lwm-chat-text-chat-256k
#SBATCH --nodes=32
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Chat stage text_chat_256k: 256K tokens, 300 steps, on UltraChat and questions about books at 7 to 3, from the base model of 256K.
# Every number is in pipelines/chat.yaml; sbatch options and LWM_MODEL, LWM_STEPS, LWM_OUT, ... stand over it. The rows
# come from slurm/tokenize_array.sh, slurm/qa_array.sh and slurm/pack_array.sh, or from lwm-run. Its model is made by a job of its
# own, which needs no GPU:  sbatch --dependency=afterany:JOB pipelines/merge.sh chat text_chat_256k
# Submit from the source tree or set LWM_HOME.
. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
lwm_stage chat train_text_chat_256k
