# shellcheck shell=bash
# What every batch script of ours does around its command; `lwm-run --slurm` copies the functions into the scripts it makes.
#
#	. "${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}/slurm/job.sh"
#
# finds the programs, reads site.sh and goes to the folder the job was submitted from. Without Slurm the same scripts run
# here and now: mpirun instead of srun, array tasks one after the other, a job that saved and stopped at once again (but not
# after Ctrl-C).
LWM_HOME=${LWM_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}
[ -d "$LWM_HOME/slurm" ] || { echo "LWM_HOME: $LWM_HOME has no slurm folder; submit from the source tree or set it" >&2; exit 64; }
PATH=$LWM_HOME/bin:$PATH
# shellcheck source=slurm/site.sh
. "$LWM_HOME/slurm/site.sh"
set -uo pipefail

# lwm_curriculum FILE RANKS: sets `curriculum`, the words with which lwm-run works on pipelines/FILE.yaml (LWM_PIPELINE: another one).
# LWM_OUT: where; LWM_STEPS, LWM_MODEL, LWM_MESH_DIM and so on stand over what the file says of the programs' options.
lwm_curriculum() {
	curriculum=(lwm-run "${LWM_PIPELINE:-$LWM_HOME/pipelines/$1.yaml}" --ranks "$2")
	[ -z "${LWM_OUT:-}" ] || curriculum+=(--set "out=$LWM_OUT")
}

# lwm_stage FILE STAGE: one stage of a curriculum, with the ranks this job has. LWM_RANKS: how many ranks, without Slurm.
lwm_stage() {
	local curriculum
	lwm_curriculum "$1" "${SLURM_NTASKS:-${LWM_RANKS:-1}}"
	lwm_direct "${curriculum[@]}" --only "$2"
}

# lwm_only_failed SCRIPT --only-failed JOB ARGUMENT...: submits the script again for those tasks of array JOB that ended without being
# complete, and ends; with other arguments, and in a job, it does nothing. A task that waits or runs is left to itself.
lwm_only_failed() {
	local script=$1 job=${3:-} states failed n
	[ "${2:-}" = --only-failed ] && [ -z "${SLURM_JOB_ID:-}" ] || return 0
	[[ $job =~ ^[0-9]+$ ]] || { echo '--only-failed JOB: the number of an array job' >&2; exit 64; }
	shift 3
	# a line "TASK STATE" for each; scontrol knows what has ended only for a while, sacct for good, where it is set up
	states=$(sacct -X -n -P -D -j "$job" -o JobID,State 2>/dev/null | sed -nE "s/^${job}_([0-9]+)\|([A-Z_]+).*/\1 \2/p")
	[ -n "$states" ] || states=$(scontrol show job -o "$job" 2>/dev/null |
		sed -nE 's/.* ArrayTaskId=([0-9]+) .* JobState=([A-Z_]+) .*/\1 \2/p')
	[ -n "$states" ] || { echo "nothing is known of tasks of job $job" >&2; exit 66; }
	# of a task that was requeued the last line counts
	failed=$(awk '{ s[$1] = $2 } END { for (i in s) if (s[i] ~ /FAIL|TIMEOUT|CANCELLED|MEMORY|PREEMPTED|DEADLINE/) print i }' <<<"$states" |
		sort -n | paste -sd,)
	[ -n "$failed" ] || { echo "job $job: no task has failed" >&2; exit 0; }
	n=$(awk '{ s[$1] } $1 >= n { n = $1 + 1 } END { print length(s) == n ? n : "" }' <<<"$states")
	if [ -z "${LWM_TASKS:-$n}" ]; then
		echo "job $job is a part of an array, or some of its tasks wait: set LWM_TASKS to the number of tasks of the whole" >&2
		exit 64
	fi
	LWM_TASKS=${LWM_TASKS:-$n} sbatch --array="$failed" "$script" "$@"
	exit
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
# a rank that is lost ends its step, whatever LWM_LAUNCH says
export SLURM_KILL_BAD_EXIT=1

# lwm_job RANKS COMMAND...: starts it; in a job what can go on later puts the job back into the queue
lwm_job() {
	local n=$1 rc again=0
	shift
	[ -n "${SLURM_JOB_ID:-}" ] || trap 'lwm_interrupted=1' INT # the command answers Ctrl-C; it is not started again
	while :; do
		if [ -n "${SLURM_JOB_ID:-}" ]; then
			# one process too: signals before the time limit reach job steps only
			# shellcheck disable=SC2086
			${LWM_LAUNCH:-srun --mpi=pmix --kill-on-bad-exit=1} -n "$n" "$@"
		elif [ "$n" -gt 1 ]; then
			mpirun --oversubscribe -n "$n" "$@"
		else
			"$@"
		fi
		rc=$?
		[ -z "${lwm_interrupted:-}" ] || exit $((rc ? rc : 130))
		[ $rc != 0 ] || return 0
		if [ -n "${SLURM_JOB_ID:-}" ]; then
			lwm_later $rc
			return $rc
		fi
		again=$((again + 1))
		[ $rc = 75 ] && [ $again -lt "${LWM_MAX_REQUEUES:-200}" ] || return $rc
	done
}

# lwm_direct COMMAND...: the same for a command that starts its ranks itself
lwm_direct() {
	local rc
	"$@"
	rc=$?
	[ -z "${SLURM_JOB_ID:-}" ] || lwm_later $rc
	return $rc
}

# lwm_later CODE: ends this script when a later run can go on from here
lwm_later() {
	local most=${LWM_MAX_LOSSES:-3} comment n=0 wait=''
	# the last task of an array has the array's own number as job id: only this form names one task
	local id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
	id=${id:-$SLURM_JOB_ID}
	case $1 in
	75 | 138) # saved; or the signal came before the program could listen
		if [ "${SLURM_RESTART_COUNT:-0}" -ge "${LWM_MAX_REQUEUES:-200}" ]; then
			echo "job $id: saved and stopped, but requeued $SLURM_RESTART_COUNT times by now: not put back into the queue" >&2
			exit 75
		fi
		echo "job $id: saved and stopped, back into the queue" >&2
		;;
	76 | 129 | 13[0-9] | 14[0-9] | 15[0-9])
		# a rank was lost, with its node or by a signal; how often is kept in the job's comment, an hour's work forgets it
		comment=$(scontrol show job "$id" | sed -n 's/^ *Comment=//p')
		case $comment in *lwm-losses=*) n=${comment##*lwm-losses=} n=${n%%[!0-9]*} ;; esac
		[ $SECONDS -lt 3600 ] || n=0
		n=$((n + 1))
		if [ $n -gt "$most" ]; then
			echo "job $id: lost a rank (exit $1), not for the first time ($most of $most went back into the queue): given up" >&2
			return 0
		fi
		comment=${comment%%lwm-losses=*}
		comment=${comment%"${comment##*[! ]}"} # without the blanks at its end
		scontrol update JobId="$id" Comment="${comment:+$comment }lwm-losses=$n" || return 0 # uncounted it might go on for ever
		echo "job $id: lost a rank (exit $1), back into the queue ($n of $most)" >&2
		# a lost node is known as such when it has been silent for SlurmdTimeout, and was asked after that; until then the job might
		# be given it again
		[ $n = 1 ] || wait=$(scontrol show config | sed -n 's/^SlurmdTimeout *= *\([0-9]*\) .*/\1/p')
		;;
	*)
		return 0
		;;
	esac
	# the requeue ends this script, but not what is still to be said
	(trap '' TERM && scontrol requeue "$id" && { [ -z "$wait" ] || scontrol update JobId="$id" StartTime=now+$((2 * wait + 10)); }) || exit "$1"
	sleep 60
	exit "$1"
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

# An exit status can get lost between nodes, or with one; what was written cannot. A user's STOP ends the job well, and for good.
lwm_wrote() {
	local f
	for f in "$@"; do
		[ ! -e "$f" ] || continue
		if [ -e "$f/STOP" ] || [ -e "${f%/*}/STOP" ]; then
			echo "stopped by a file STOP beside $f; remove it and submit again to go on" >&2
			exit 0
		fi
		echo "not written: $f" >&2
		[ -z "${SLURM_JOB_ID:-}" ] || lwm_later 76
		exit 70
	done
}
