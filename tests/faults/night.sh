#!/usr/bin/env bash
# Stages on several ranks through a bad night: ranks die, hang, are told to stop, disks fill up, files rot. Each is run again without
# anybody's help until it is done, and must end with the bits of a run that nothing disturbed: every loss, every gradient norm, all
# weights and moments.
#
#	tests/faults/night.sh                  as many tries of each promise as it is held to; some minutes on two cores
#	tests/faults/night.sh --tries N        N of each row (make test: 2)
#	tests/faults/night.sh --jobs N         so many at once; default: two for each processor, for they often wait for the disk
#	tests/faults/night.sh T1 T13           these promises alone; --no-units: without the programs that show the others
#
# The promises T1 to T13 and N1 to N3 are those of tests/faults/README.md. BIN=DIR: the programs; B=DIR: what was built.
# The last line is "N passed, N failed, N skipped".
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
B=$(cd "$here/../.." && cd "${B:-build/rel}" 2>/dev/null && pwd)
BIN=${BIN:-$here/../../bin} PATH=${BIN:-$here/../../bin}:$PATH
export PATH LC_ALL=C OMP_NUM_THREADS=1 NO_COLOR=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_btl_base_warn_component_unused=0
tries='' jobs=$((2 * $(nproc))) units=yes words=()
while [ $# -gt 0 ]; do
	case $1 in
	--tries) tries=$2 && shift ;;
	--jobs) jobs=$2 && shift ;;
	--no-units) units=no ;;
	-*)
		sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
		exit 64
		;;
	*) words+=("$1") ;;
	esac
	shift
done
for v in $(compgen -e LWM_); do unset "$v"; done
type -P mpirun >/dev/null || { echo 'no mpirun here'; echo '0 passed, 0 failed, 1 skipped'; exit 0; }

W=$(mktemp -d "${TMPDIR:-/tmp}/lwm-night.XXXXXX")
trap '[ $BASHPID != $$ ] || rm -rf "$W"' EXIT
cd "$W" || exit 70
${CC:-cc} -shared -fPIC -O1 -o fault.so "$here/fault.c" -ldl || exit 70
RANDOM=${NIGHT_SEED:-11}

# ---- the meshes, and a stage on each ----

long=200 # steps of one that is to be caught at work

meshes=(dp fsdp tp sp mixed)
declare -A dim=([dp]='3,1,1,1' [fsdp]='2,2,1,1' [tp]='1,1,2,1' [sp]='1,1,1,2' [mixed]='1,2,2,1')
declare -A ranks=([dp]=3 [fsdp]=4 [tp]=2 [sp]=2 [mixed]=4)
declare -A took calls
every=5 steps=40 ref=want
behind=auto # whether training waits for its saves: every second try does
small=(-q --threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --seq-length 64 --tokens-per-batch 768
	--warmup-steps 2 --lr 3e-3 --log-every 1000 --check-replicas 7)

# mind PID: of Open MPI 4.1 mpirun was seen to lock itself up while it ended, in PMIx_server_finalize, when no rank was left any
# more. That is what it is taken for here: its ranks ended, all of them, ten seconds ago.
mind() {
	local n=0 launcher ranks
	while sleep 5; do
		launcher=$(pgrep -P "$1" mpirun) || launcher=$1
		ranks=$(ps --ppid "$launcher" -o stat=)
		if [[ $ranks == *Z* && $ranks != *[RSDTtI]* ]]; then n=$((n + 1)); else n=0; fi
		[ $n -lt 3 ] || { echo "mpirun locked itself up ($PWD)" | tee -a "$W/locked" >locked && kill -KILL "$launcher"; }
	done
}

# stage MESH OUT [OPTION...]: in the foreground; `with` stands before the program
with=()
stage() {
	local m=$1 out=$2 run minder rc
	shift 2
	"${with[@]}" mpirun --oversubscribe -n "${ranks[$m]}" lwm-train-stage "${small[@]}" --data "$W/rows.rows.h5" \
		--mesh-dim "${dim[$m]}" --steps "$steps" --checkpoint-every $every --keep 2 --save-behind $behind \
		-o "$out" "$@" >>log 2>err </dev/null &
	run=$!
	mind $run &
	minder=$!
	wait $run
	rc=$?
	kill $minder
	wait $minder 2>/dev/null
	[ -e locked ] || return $rc
	rm locked # what its ranks had to say is lost, but for what they wrote
	[ -e "$out/summary.json" ] || return 76
}

newest() { find "$1" -maxdepth 1 -type d -name 'step_*' | sort | tail -1; }
figures() { # OUT: a line for each step, exactly
	sed -nE 's/.*"event":"step","step":([0-9]+),.*"loss_hex":"([^"]*)".*"grad_norm_hex":"([^"]*)".*/\1 \2 \3/p' "$1/metrics.jsonl"
}
state() { # OUT: all that must be the same
	figures "$1"
	(cd "$1" && md5sum summary.json "$(basename "$(newest .)")"/part_*)
}

prepare() {
	local i w=(the ship sailed over a quiet sea and nobody spoke until morning came with rain) m r
	for ((i = 0; i < 1200; i++)); do
		echo "Line $i: ${w[i % 15]} ${w[(i * 7 + 3) % 15]} ${w[(i * 11 + 5) % 15]} ${w[(i / 15) % 15]}."
	done >words.txt
	# a vocabulary that tensor-parallel ranks can divide
	lwm-tokenizer-train -q --vocab 320 -o t.model words.txt && lwm-tokenize -q -t t.model --split-lines 20 -o docs.docs.h5 words.txt &&
		lwm-pack -q -n 64 -o rows.rows.h5 docs.docs.h5 || exit 70
	for m in "${meshes[@]}"; do
		mkdir "$m" "calls.$m"
		[ "$(jobs -rp | wc -l)" -lt "$jobs" ] || wait -n
		(cd "$m" && prepare_mesh "$m") &
	done
	wait
	for m in "${meshes[@]}"; do
		[ -s "took.$m" ] || { echo "cannot be prepared: $m" >&2 && tail -5 "$m/err" >&2 && exit 70; }
		took[$m]=$(cat "took.$m")
		for ((r = 0; r < ranks[$m]; r++)); do calls[$m.$r]=$(grep -vc '^read ' "calls.$m/$r"); done
	done
}

# What nothing disturbed, and where several tries begin.
prepare_mesh() {
	local t0
	with=(env FAULT_ROOT="$PWD/o/" FAULT_LOG="$W/calls.$1" FAULT_OPS=change LD_PRELOAD="$W/fault.so")
	t0=$(date +%s%3N)
	stage "$1" o || return
	t0=$(($(date +%s%3N) - t0))
	state o >"$W/want.$1" && [ "$(grep -c ' ' "$W/want.$1")" -gt $((steps + 1)) ] || return
	with=()
	if wanted T6 || wanted T9 || wanted T11; then
		stage "$1" "$W/half.$1" --stop-after 20
		[ $? = 75 ] || return
	fi
	if [ "$1" = dp ] && wanted T11; then
		lwm-merge-ckpt -q "$W/half.dp" -o "$W/model" 2>err || return
	fi
	if wanted T13; then
		steps=$long stage "$1" long && state long >"$W/long.$1" || return
	fi
	echo $t0 >"$W/took.$1"
}
wanted() {
	local w
	[ ${#words[@]} -gt 0 ] || return 0
	for w in "${words[@]}"; do [ "$1" != "$w" ] || return 0; done
	return 1
}

# ---- one try: in a folder of its own, as a job of its own; says "ok" or what went wrong ----

bad() {
	echo "$*" >verdict
	sed 's/^/  | /' err 2>/dev/null | tail -6 >>verdict
	exit 1
}

begin() { # MESH [OPTION...]: in the background, $job
	stage "$@" &
	job=$!
}
launcher() { pgrep -P "$job" mpirun | head -1; }
pids_of_ranks() { pgrep -P "$(launcher)" -f lwm-train-stage; }
nap() { sleep "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))"; }
some_moment() { echo $((${took[$mesh]} * (RANDOM % 1000) / 1000)); }

tree_of() {
	local c
	for c in $(pgrep -P "$1"); do tree_of "$c"; done
	echo "$1"
}

# Runs it to its end as a batch system would, and compares.
finish() {
	local i rc=75
	for ((i = 0; i < 3 && rc == 75; i++)); do
		with=(timeout 120)
		stage "$mesh" o
		rc=$?
	done
	[ $rc = 0 ] || bad "run again: exit $rc"
	state o >now
	cmp -s now "$W/$ref.$mesh" || { diff "$W/$ref.$mesh" now | head -4 >err; bad 'run again: another result'; }
	[ "$(find o -maxdepth 1 -type d -name 'step_*' | wc -l)" -le 2 ] || bad 'run again: too many checkpoints are kept'
	! find o -name '*.tmp.*' -o -name '.trash*' | grep . >err || bad 'run again: leftovers'
}

# At most one interval was computed again; where saves are written while training goes on, what went on meanwhile too: the next save
# waits for the one before, so that is less than a second one.
lost_little() {
	local n most=$every
	[ $behind = false ] || most=$((2 * every))
	while read -r n; do
		[ "$n" -le $most ] || bad "$n steps were computed again (saves behind the computation: $behind)"
	done < <(sed -nE 's/.*"event":"begin".*"lost_steps":([0-9]+).*/\1/p' o/history.jsonl)
}

# Exit codes of a disturbed run.
expect() { # RC CODE...
	local rc=$1 c
	shift
	for c in "$@"; do [ "$rc" != "$c" ] || return 0; done
	bad "exit $rc"
}

rank_dies() {
	local pid
	begin "$mesh" o
	nap "$(some_moment)"
	pid=$(pids_of_ranks | shuf -n 1 --random-source=<(yes "$RANDOM"))
	[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
	wait "$job"
	finish
	lost_little
}

# At a call that changes a file, any of those that a run makes.
fault() { # RANK WHAT
	with=(env FAULT_ROOT="$PWD/o/" FAULT="$2@$((1 + (RANDOM * 32768 + RANDOM) % ${calls[$mesh.$1]}))" FAULT_RANK="$1" FAULT_OPS=change
		LD_PRELOAD="$W/fault.so")
}

rank_dies_saving() {
	local r=$((RANDOM % ranks[$mesh]))
	fault $r kill
	! stage "$mesh" o || [ -e o/summary.json ] || bad 'exit 0 without a summary'
	finish
	lost_little
}

all_die() {
	begin "$mesh" o
	nap "$(some_moment)"
	# shellcheck disable=SC2046
	kill -KILL $(tree_of "$job") 2>/dev/null
	wait "$job" 2>/dev/null
	finish
	lost_little
}

time_is_over() {
	local ms
	ms=$(some_moment)
	with=(env LWM_TIME_LIMIT="$((ms / 1000)).$(printf %03d $((ms % 1000)))s")
	stage "$mesh" o
	expect $? 0 75
	finish
	lost_little
}

often_in_a_row() {
	local n=0 rc=75
	while [ $rc = 75 ]; do
		stage "$mesh" o --stop-after 3
		rc=$?
		n=$((n + 1))
	done
	expect $rc 0
	[ $n = $(((steps + 2) / 3)) ] || bad "$n runs"
	finish
}

disk_is_full() {
	local r=$((RANDOM % ranks[$mesh])) how=(28 122 5 short) rc
	fault $r "${how[try % 4]}"
	stage "$mesh" o
	rc=$?
	expect $rc 0 66 69 73 74
	[ $rc = 0 ] || [ -s err ] || bad "exit $rc without a word"
	finish
}

newest_is_damaged() {
	local f
	cp -r "$W/half.$mesh" o
	f=$(find "$(newest o)" -type f | sort | shuf -n 1 --random-source=<(yes "$RANDOM"))
	case $((try % 4)) in
	0) printf '\x5a\xa5' | dd of="$f" bs=1 seek=$((RANDOM * 7 % $(stat -c %s "$f"))) conv=notrunc status=none ;;
	1) truncate -s $(($(stat -c %s "$f") * (RANDOM % 1000) / 1000)) "$f" ;;
	2) rm "$f" ;;
	3) cp "$(find o -path "*$(basename "$f")" | sort | head -1)" swapped && mv swapped "$f" ;;
	esac
	! lwm-inspect --check -q "$(newest o)" >/dev/null 2>&1 || bad "damage of $f is not seen"
	finish
}

on_another_mesh() {
	local to=${meshes[(try + 1 + RANDOM % 4) % 5]}
	[ "$to" != "$mesh" ] || to=${meshes[(try + 1) % 5]}
	cp -r "$W/half.$mesh" o
	stage "$to" o || bad "from $mesh to $to: exit $?"
	paste <(figures o) "$W/want.$mesh" | awk -v at=21 '$1 == at { print $2, $5 }' >first
	# hexadecimal floats: the first loss on the other mesh
	are_near "$(cat first)" || bad "from $mesh to $to: first loss $(cat first)"
	[ "$(figures o | wc -l)" = $steps ] || bad 'steps are missing'
}

# Two C99 hexadecimal numbers within 1e-6 of each other; printf reads them.
are_near() {
	local a b
	read -r a b <<<"$1"
	[ -n "$b" ] && printf '%.12g %.12g\n' "$a" "$b" | awk '{ d = $1 - $2; exit !(d <= 1e-6 * $1 && -d <= 1e-6 * $1) }'
}

once_more() {
	finish
}

told_to_stop() { # SIGNAL WHOM
	local rc whom at
	begin "$mesh" o
	nap "$(some_moment)"
	if [ "$2" = launcher ]; then whom=$(launcher); else whom=$(pids_of_ranks | shuf -n 1 --random-source=<(yes "$RANDOM")); fi
	[ -z "$whom" ] || kill -"$1" "$whom" 2>/dev/null
	wait "$job"
	rc=$?
	# before it can listen a signal ends it: 128 + 10, 15, and mpirun's word for either
	expect $rc 0 75 138 143
	if [ $rc = 75 ]; then
		at=$(sed -nE 's/.*stopped at step ([0-9]+).*/\1/p' err | head -1)
		[ "${at:-0}" = 0 ] || lwm-inspect --check -q "o/$(printf 'step_%08d' "$at")" >/dev/null 2>>err ||
			bad "step $at is not whole"
	fi
	finish
	lost_little
}
usr1_to_all() { told_to_stop USR1 launcher; }
term_to_one() { told_to_stop TERM rank; }

rank_hangs() {
	local pid r rc t0 list n=$((4 + RANDOM % 20)) reason
	steps=$long ref=long
	begin "$mesh" o --watchdog 2
	for ((r = 0; r < 1500; r++)); do
		[ ! -e o/metrics.jsonl ] || [ "$(grep -c '"event":"step"' o/metrics.jsonl)" -lt $n ] || break
		sleep 0.03
	done
	mapfile -t list < <(pids_of_ranks)
	[ ${#list[@]} = "${ranks[$mesh]}" ] || bad "${#list[@]} ranks"
	pid=${list[RANDOM % ${#list[@]}]}
	r=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
	kill -STOP "$pid"
	t0=$(date +%s)
	wait "$job"
	rc=$?
	[ $(($(date +%s) - t0)) -le 20 ] || bad "ended only after $(($(date +%s) - t0)) s"
	expect $rc 76
	reason=$(lwm-status --json o | tee status.json | sed -nE 's/.*"reason":"([^"]*)".*/\1/p')
	grep -q '"state":"failed"' status.json || bad "status: $(cat status.json)"
	[[ $reason == *"nothing was heard of rank $r on $(hostname)"* && $reason == *" in '"* ]] || bad "rank $r hung, but: $reason"
	finish
}

# What the next stage, or a run that is resumed, may and may not be given: exit code, what it must say, what it begins with (a model,
# a checkpoint; half: itself, half done), options.
hand_overs() {
	cat <<-'R'
		0||model|--theta 1e6
		0||checkpoint|--theta 1e6 --lr 1e-4
		0||checkpoint|--norm-eps 1e-5
		78|has --heads 4, this stage 8|model|--heads 8
		78|has --heads 4, this stage 8|checkpoint|--heads 8
		78|has --layers 2, this stage 1|model|--layers 1
		78|has --layers 2, this stage 3|checkpoint|--layers 3
		78|has --kv-heads 2, this stage 4|model|--kv-heads 4
		78|has --kv-heads 2, this stage 4|checkpoint|--kv-heads 4
		78|32|model|--dim 64
		78|48|checkpoint|--ffn 64
		78|has no tensor|model|--vision-codes 16
		78|has no tensor|checkpoint|--vision-codes 16
		66||nothing|--theta 1e6
		0||half|--log-every 7
		0||half|--lr 1e-3 --allow-change lr
		78|lr 1.0, was 0.003|half|--lr 1
		78|rope_theta = 10000.0, this stage says 1000000.0|half|--theta 1e6
		78|weight-decay 0.0, was 0.1|half|--weight-decay 0
		78|beta1 0.8, was 0.9|half|--beta1 0.8
		78|beta2 0.9, was 0.95|half|--beta2 0.9
		78|clip 0.0, was 1.0|half|--clip 0
		78|tokens-per-batch 1536, was 768|half|--tokens-per-batch 1536
		78|warmup-steps 3, was 2|half|--warmup-steps 3
		78|warmup-from "zero", was "one"|half|--warmup-from zero
		78|decay-all true, was false|half|--decay-all
		78|schedule "cosine", was "constant"|half|--schedule cosine
		78|loss-weighting "per_token", was|half|--loss-weighting per_token
		78|text-weight 0.5, was 0.0|half|--text-weight 0.5 --vision-weight 0.5
		78|lr 1.0, was 0.003|half|--lr 1 --clip 0 --allow-change clip
		78|was trained with seed 0, not 5|half|--seed 5
		78|num_hidden_layers = 2, this stage says 1|half|--layers 1
	R
}

handed_over() {
	local code says from options rc first=$steps
	IFS='|' read -r code says from options < <(hand_overs | sed -n "$((try % $(hand_overs | wc -l) + 1))p")
	read -ra options <<<"$options"
	case $from in
	half) cp -r "$W/half.$mesh" o ;;
	checkpoint) options+=(--start-from "checkpoint:$W/half.$mesh") first=2 ;;
	*) options+=(--start-from "model:$W/$from") first=2 ;;
	esac
	steps=$first
	stage "$mesh" o "${options[@]}"
	rc=$?
	[ $rc = "$code" ] || bad "${options[*]}: exit $rc, not $code"
	[ -z "$says" ] || grep -qF -- "$says" err || bad "${options[*]}: does not say '$says'"
	if [ $rc = 0 ]; then
		[ "$(figures o | wc -l)" = $first ] || bad "${options[*]}: steps are missing"
	elif [ "$from" = half ]; then # nothing was trained with what was refused
		cmp -s <(figures "$W/half.$mesh") <(figures o) || bad "${options[*]}: refused, and went on"
	elif compgen -G 'o/step_*' >/dev/null; then
		bad "${options[*]}: refused, and trained"
	fi
}

# ---- rows of the table ----

# How often a promise is put to the test when nothing else is said; what a program counts counts too.
declare -A held=([T1]=30 [T2]=6 [T3]=1 [T4]=100 [T5]=100 [T6]=300 [T7]=50 [T8]=200 [T9]=8 [T10]=3 [T11]=30 [T12]=40 [T13]=12 [N1]=60
	[N2]=20 [N3]=100)

# promise, what, function, tries
rows() {
	local promise what how n
	while IFS='|' read -r promise what how n; do
		if [ -n "$tries" ]; then
			n=$tries
			[ "$how" != often_in_a_row ] || n=$(((tries + 5) / 6))
		fi
		echo "$promise|$what|$how|$n"
	done <<-'R'
		T1|kill -9 of a rank at a random moment|rank_dies|15
		T1|kill -9 of a rank at a call that changes a file|rank_dies_saving|15
		T2|kill -9 of the whole job|all_die|8
		T2|time limit|time_is_over|8
		T2|requeued after every three steps|often_in_a_row|2
		T4|disk full, quota, I/O error, short write at a call|disk_is_full|12
		T6|newest checkpoint flipped, cut, deleted, exchanged|newest_is_damaged|20
		T9|resumed on another mesh|on_another_mesh|10
		T10|run again from the start|once_more|5
		T11|the next stage, or this one, given something else|handed_over|32
		T12|USR1 to all ranks at a random moment|usr1_to_all|20
		T12|TERM to one rank at a random moment|term_to_one|20
		T13|SIGSTOP of a rank|rank_hangs|12
	R
}
# promise, what, program of tests/unit
programs() {
	cat <<-R
		T3|what reaches the disk, in which order|test_io_order
		T4|every call of a reader and a writer fails once|test_io_fault
		T5|every allocation fails once|test_memory
		T7|who watches sees whole checkpoints|test_io_ckpt
		T8|retention keeps a verified one|test_io_keep
		T9|every mesh continues on every other|test_train_mesh
		T13|who is ended, and who is not|test_watchdog
		N1|NaN, infinity; N2: spikes, and after a resume|test_train_guards
		N3|a flipped bit in one rank's weights|test_replicas
	R
}

passed=0 failed=0 skipped=0 nrow=0 # few tries of many rows come to all meshes
line() { # PROMISE WHAT TRIES FAILED SECONDS
	printf '%-4s %-52s %5d tries %4d failed %5d s\n' "$@"
}

one_try() { # FUNCTION TRY SEED: in a folder of its own
	mesh=${meshes[($2 + nrow) % ${#meshes[@]}]} try=$2
	[ $(($2 % 2)) = 1 ] || behind=false
	RANDOM=$3
	mkdir "$W/$1.$2" && cd "$W/$1.$2" || exit 70
	("$1") 2>>shell || [ -s verdict ] || echo 'ended without a word' >verdict
	if [ -s verdict ]; then
		{ printf 'not ok %s on %s, try %d: ' "$1" "$mesh" "$2" && cat verdict; } >"$W/$1.$2.bad"
	fi
	cd "$W" && rm -rf "${W:?}/$1.$2"
}

row() { # PROMISE WHAT FUNCTION TRIES
	local i t0=$SECONDS bads most=$jobs
	# who hangs must be told from who does not get a core for seconds
	[ "$3" != rank_hangs ] || most=$(((jobs + 1) / 2))
	for ((i = 0; i < $4; i++)); do
		[ "$(jobs -rp | wc -l)" -lt "$most" ] || wait -n
		one_try "$3" $i "$RANDOM" &
	done
	wait
	bads=$(find . -maxdepth 1 -name "$3.*.bad" | wc -l)
	[ "$bads" = 0 ] || cat "$3".*.bad
	passed=$((passed + $4 - bads)) failed=$((failed + bads)) nrow=$((nrow + 1))
	counted[$1]=$((${counted[$1]:-0} + $4))
	line "$1" "$2" "$4" "$bads" $((SECONDS - t0))
}

begin_program() { # PROMISE WHAT NAME
	local t0=$SECONDS
	[ -x "$B/tests/unit/$3" ] || return 0
	timeout 400 "$B/tests/unit/$3" >"unit.$3" 2>&1
	echo "$? $((SECONDS - t0))" >"rc.$3"
}

end_program() { # PROMISE WHAT NAME
	local p f rc t promise n
	if [ ! -e "rc.$3" ]; then
		skipped=$((skipped + 1))
		echo "skip $1 $2: $3 is not built"
		return
	fi
	read -r rc t <"rc.$3"
	[ "$rc" = 0 ] || cat "unit.$3"
	p=$(sed -nE 's/^\[  PASSED  \] ([0-9]+) test.*/\1/p' "unit.$3")
	f=$(sed -nE 's/^\[  FAILED  \] ([0-9]+) test.*/\1/p' "unit.$3")
	[ "${p:-0}" != 0 ] && { [ "$rc" = 0 ] || [ "${f:-0}" != 0 ]; } || f=$((${f:-0} + 1))
	passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
	line "$1" "$2 (unit/$3)" $((${p:-0} + ${f:-0})) "${f:-0}" "$t"
	while read -r promise n; do
		counted[$promise]=$((${counted[$promise]:-0} + n))
	done < <(sed -nE 's/^([TN][0-9]+): ([0-9]+) .*/\1 \2/p' "unit.$3")
	grep -E '^[TN][0-9]+: ' "unit.$3" | sed 's/^/     /'
}

# All of it was asked for: were there as many tries of each promise as it is held to?
count_tries() {
	local promise
	echo
	for promise in T{1..13} N{1..3}; do
		printf '%-4s %6d tries, held to %d\n' "$promise" "${counted[$promise]:-0}" "${held[$promise]}"
		if [ "${counted[$promise]:-0}" -lt "${held[$promise]}" ]; then
			failed=$((failed + 1))
			echo "not ok $promise: too few tries"
		fi
	done
}

declare -A counted
prepare
while IFS='|' read -r promise what how n <&3; do
	! wanted "$promise" || row "$promise" "$what" "$how" "$n"
done 3< <(rows)
if [ $units = yes ]; then
	while IFS='|' read -r promise what how <&3; do
		wanted "$promise" || continue
		[ "$(jobs -rp | wc -l)" -lt "$jobs" ] || wait -n
		begin_program "$promise" "$what" "$how" &
	done 3< <(programs)
	wait
	while IFS='|' read -r promise what how <&3; do
		! wanted "$promise" || end_program "$promise" "$what" "$how"
	done 3< <(programs)
	[ -n "$tries" ] || [ ${#words[@]} -gt 0 ] || count_tries
fi
[ ! -s "$W/locked" ] || cat "$W/locked"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ] && [ $passed -gt 0 ]
