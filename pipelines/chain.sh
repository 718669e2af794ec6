#!/bin/bash
#	pipelines/chain.sh text|vision|chat [STAGE...] [-- SBATCH OPTIONS]
# Submits the stages of a curriculum, all of them or those named, as jobs that follow each other: stage_STAGE.sh, with the options
# given, then merge.sh. What is complete is not submitted. A job whose forerunner has failed finds that what it needs does not exist, and
# ends at once. One line for each job: its number and what it is. LWM_OUT, LWM_STEPS and so on as for the stages.
. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
file=${1:?FILE: text, vision or chat} stages=() options=() last='' n=0
shift
while [ $# -gt 0 ]; do
	[ "$1" != -- ] || { shift && options=("$@") && break; }
	stages+=("$1")
	shift
done
yaml=${LWM_PIPELINE:-$LWM_HOME/pipelines/$file.yaml}
[ ${#stages[@]} -gt 0 ] || mapfile -t stages < <(sed -n 's/^- name: train_//p' "$yaml")
for s in "${stages[@]}"; do
	[ -x "$LWM_HOME/pipelines/stage_$s.sh" ] || { echo "$s: no pipelines/stage_$s.sh" >&2; exit 64; }
done

# complete STAGE: what a job before it will make anew is not
complete() {
	lwm_curriculum "$file" "${LWM_RANKS:-0}"
	[ -z "$last" ] && [[ $("${curriculum[@]}" --plan --only "$1" 2>/dev/null) == *'0 to run, 1 complete' ]]
}

# submit WHAT SCRIPT ARGUMENT...: after the job before it
submit() {
	local what=$1
	shift
	last=$(sbatch --parsable ${last:+--dependency=afterany:$last} "$@") || exit 69
	last=${last%%;*}
	n=$((n + 1))
	echo "$last $what"
}

for s in "${stages[@]}"; do
	complete "train_$s" || submit "train_$s" "${options[@]}" "$LWM_HOME/pipelines/stage_$s.sh"
	complete "merge_$s" || submit "merge_$s" "$LWM_HOME/pipelines/merge.sh" "$file" "$s"
done
[ $n -gt 0 ] || echo 'nothing to submit' >&2
