# shellcheck shell=bash
# What every batch script of ours does around its command; `lwm-run --slurm` copies the functions into the scripts it makes.
#
#	. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
#
# finds the programs, reads site.sh and goes to the folder the job was submitted from. Without Slurm the same scripts run
# here and now: mpirun instead of srun, array tasks one after the other, a job that saved and stopped at once again.
LWM_HOME=${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}
[ -d "$LWM_HOME/slurm" ] || { echo "LWM_HOME: $LWM_HOME has no slurm folder; submit from the source tree or set it" >&2; exit 64; }
PATH=$LWM_HOME/bin:$PATH
# shellcheck source=slurm/site.sh
. "$LWM_HOME/slurm/site.sh"
set -uo pipefail

# lwm_stage STAGE...: stages of the text curriculum (LWM_PIPELINE: of another file), with the ranks this job has.
# LWM_OUT: where; LWM_NAME stands over the file's value for the programs' --name, as LWM_MODEL, LWM_STEPS, LWM_MESH_DIM.
lwm_stage() {
	local s args=(--ranks "${SLURM_NTASKS:-${LWM_RANKS:-1}}")
	for s in "$@"; do args+=(--only "$s"); done
	[ -z "${LWM_OUT:-}" ] || args+=(--set "out=$LWM_OUT")
	lwm_direct lwm-run "${LWM_PIPELINE:-$LWM_HOME/pipelines/text.yaml}" "${args[@]}"
}

# lwm_tasks: the number of tasks that share the inputs. It decides which task takes what, so a rerun of some tasks
# (--array=3,7) must be told the number the whole array had.
lwm_tasks() {
	if [ -n "${LWM_TASKS:-}" ]; then
		echo "$LWM_TASKS"
	elif [ -z "${SLURM_ARRAY_TASK_ID:-}" ]; then
		echo 1
	elif [ "${SLURM_ARRAY_TASK_MIN:-0}" = 0 ] && [ "$SLURM_ARRAY_TASK_COUNT" = $((SLURM_ARRAY_TASK_MAX + 1)) ]; then
		echo "$SLURM_ARRAY_TASK_COUNT"
	else
		echo 'this is a part of an array: set LWM_TASKS to the number of tasks of the whole' >&2
		return 64
	fi
}

# lwm_array FUNCTION: calls FUNCTION TASK TASKS for this job's task, without Slurm for all of them
lwm_array() {
	local i n rc=0
	n=$(lwm_tasks) || return
	for i in ${SLURM_ARRAY_TASK_ID:-$(seq 0 $((n - 1)))}; do
		"$1" "$i" "$n" || rc=$?
	done
	return $rc
}

# ---- functions ----
# lwm_job RANKS COMMAND...: starts it; exit 75 (saved, run me again) puts the job back into the queue
lwm_job() {
	local n=$1 rc again=0
	shift
	while :; do
		if [ -n "${SLURM_JOB_ID:-}" ]; then
			# one process too: signals before the time limit reach job steps only
			# shellcheck disable=SC2086
			${LWM_LAUNCH:-srun --mpi=pmix} -n "$n" "$@"
		elif [ "$n" -gt 1 ]; then
			mpirun --oversubscribe -n "$n" "$@"
		else
			"$@"
		fi
		rc=$?
		[ $rc = 75 ] || return $rc
		if [ -n "${SLURM_JOB_ID:-}" ]; then lwm_requeue; fi
		again=$((again + 1))
		[ $again -lt "${LWM_MAX_REQUEUES:-200}" ] || return 75
	done
}

# lwm_direct COMMAND...: the same for a command that starts its ranks itself
lwm_direct() {
	local rc
	"$@"
	rc=$?
	[ $rc != 75 ] || [ -z "${SLURM_JOB_ID:-}" ] || lwm_requeue
	return $rc
}

lwm_requeue() {
	local id=$SLURM_JOB_ID
	# the last task of an array has the array's own number as job id: only this form names one task
	[ -z "${SLURM_ARRAY_JOB_ID:-}" ] || id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
	if [ "${SLURM_RESTART_COUNT:-0}" -ge "${LWM_MAX_REQUEUES:-200}" ]; then
		echo "job $id: saved and stopped $SLURM_RESTART_COUNT times, not put back into the queue" >&2
		exit 75
	fi
	echo "job $id: saved and stopped, back into the queue" >&2
	scontrol requeue "$id" || exit 75
	sleep 60 # the requeue ends this script
	exit 75
}

lwm_need() {
	local f
	for f in "$@"; do
		[ -e "$f" ] || { echo "needed and not there: $f (did the job before this one fail?)" >&2; exit 66; }
	done
}

# lwm_target FILE: standard output goes there next; nothing is written through a link, nor to a FIFO or device
lwm_target() {
	if [ -L "$1" ] || { [ -e "$1" ] && [ ! -f "$1" ]; }; then
		echo "not a regular file, not written: $1" >&2
		exit 73
	fi
}

# an exit status can get lost between nodes; what was written cannot
lwm_wrote() {
	local f
	for f in "$@"; do
		[ -e "$f" ] || { echo "not written: $f" >&2; exit 70; }
	done
}
