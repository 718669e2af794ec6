#!/usr/bin/env bash
# Interrupts every program on purpose, at every place, and looks whether running it again gives what an undisturbed run gives.
#
#	tests/faults/run.sh                    every case in every way, every place (an hour or so)
#	tests/faults/run.sh --tries N          at most N places of each case and way, spread evenly (make test takes a few)
#	tests/faults/run.sh --way kill train   only these ways (may be repeated), only cases whose name contains a word
#
# Ways: kill (-9 in place of the k-th call that changes a file), full (that call finds the disk full), broken (the k-th call, reading
# too, ends in an I/O error), short (half of what was asked), memory (the k-th allocation fails), moment (-9 at a random
# moment, ranks and children too), stop (USR1 at a random moment), race (three writers at once, each with process number 1),
# keep (random schedules of saving, keeping and damage). BIN=DIR: the programs. The last line is "N passed, N failed, N skipped".
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BIN=${BIN:-$here/../../bin} PATH=${BIN:-$here/../../bin}:$PATH
export PATH LC_ALL=C OMP_NUM_THREADS=1 NO_COLOR=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
tries=0 ways=() words=()
while [ $# -gt 0 ]; do
	case $1 in
	--tries)
		tries=$2
		shift
		;;
	--way)
		ways+=("$2")
		shift
		;;
	-*)
		sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
		exit 64
		;;
	*) words+=("$1") ;;
	esac
	shift
done
[ ${#ways[@]} -gt 0 ] || ways=(kill full broken short memory moment stop race keep)
for v in $(compgen -e LWM_); do unset "$v"; done

W=$(mktemp -d "${TMPDIR:-/tmp}/lwm-faults.XXXXXX")
trap '[ $BASHPID != $$ ] || rm -rf "$W"' EXIT # a child that is signalled before it is the program would run it too
cd "$W" || exit 70
${CC:-cc} -shared -fPIC -O1 -o fault.so "$here/fault.c" -ldl || exit 70
passed=0 failed=0 skipped=0
RANDOM=7

# ---- what the cases read ----

cat >make-words.awk <<'A'
BEGIN { n = split("the ship sailed over a quiet sea and nobody spoke until morning came with rain", w, " ")
	for (i = 0; i < lines; i++) { s = "Line " i ":"; for (k = 0; k < 8; k++) { x = (x * 1103515245 + 12345) % 2147483648; s = s " " w[int(x / 65536) % n + 1] } print s "." } }
A
prepare() {
	set -eE
	trap 'echo "cannot be prepared: $BASH_COMMAND" >&2; exit 70' ERR
	mkdir in
	awk -v lines=400 -f make-words.awk >words.txt
	split -l 100 --additional-suffix=.txt words.txt in/w-
	lwm-tokenizer-train -q --vocab 320 -o tok.model words.txt
	lwm-tokenize -q -t bytes --split-lines 20 -o docs.docs.h5 words.txt
	lwm-pack -q -n 64 -o rows.rows.h5 docs.docs.h5
	lwm-train-stage -q "${small[@]}" --data rows.rows.h5 --tokenizer bytes --steps 2 -o ck
	lwm-merge-ckpt -q ck -o model --verify
	lwm-synth clips -n 6 --size 16 --frames 3 -o clips -q
	lwm-synth images -n 3 --size 64 -o images -q
	for i in 0 1; do
		printf '%s{"frames": ["images/image-0000%d.png", "images/image-00002.png"], "traj": [0, 0, 0, 4, 0, 8, 0, 12, 0, 16], "speed": [],\n' "$([ $i = 0 ] && echo '[' || echo ,)" $i
		printf '"angle": [], "cmd": 2, "goal": [800, 450], "z": 1}\n'
	done >samples.json
	echo ']' >>samples.json
	lwm-train-stage "${recon[@]}" --steps 2 -o vq
	lwm-vqgan-encode -q -m vq -t bytes --device cpu -o codes.h5 clips
	lwm-tokenize -q -t bytes --split-lines 60 -o long.docs.h5 words.txt
	# a model that has learnt to say one question and its answer
	fold -w 16 words.txt | sed -n '1,200s/.*/{"q": "You are a helpful assistant. USER: & Write a question about this text and answer it. ASSISTANT:", "a": " Question: Q? Answer: A."}/p' >said.jsonl
	lwm-tokenize -q -t bytes -f '[q],a' -o said.docs.h5 said.jsonl
	lwm-pack -q -n 160 -o said.rows.h5 said.docs.h5
	lwm-train-stage -q "${small[@]}" --dim 32 --ffn 64 --seq-length 160 --tokens-per-batch 1280 --lr 1e-2 --data said.rows.h5 --tokenizer bytes --steps 120 -o says
	cat >p.yaml <<-'Y'
		name: p
		out: o
		stages:
		- {name: tokens, tool: lwm-tokenize, foreach: in, operands: "${item}", outputs: "${out}/${item.stem}.h5",
		   args: {tokenizer: bytes, output: "${out}/${item.stem}.h5", quiet: true}}
		- {name: rows, tool: lwm-pack, needs: tokens, foreach: {stage: tokens}, operands: "${item}", outputs: "${out}/${item.stem}.rows.h5",
		   args: {seq-length: 64, output: "${out}/${item.stem}.rows.h5", quiet: true}}
		- {name: shown, tool: lwm-inspect, needs: rows, operands: ["${out}/w-aa.rows.h5"], stdout: "${out}/shown.txt"}
	Y
	trap - ERR
	set +eE
}
small=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --seq-length 64 --tokens-per-batch 256
	--warmup-steps 2 --lr 3e-3 --log-every 1000)
recon=(-q --objective reconstruction --model tiny --hidden 4 --groups 2 --channel-mult "1,2,2" --codes 16 --resolution 16 --data clips
	--batch-frames 4 --device cpu --log-every 1000)

# ---- the cases: a command that writes below o/ ----

cases=(tokenize tokenizer-train pack annos encode decode train waits ranks recon merge needle qa synth report run)
command_of() {
	case $1 in
	tokenize) cmd=(lwm-tokenize -q -t bytes -d o in) ;;
	tokenizer-train) cmd=(lwm-tokenizer-train -q --vocab 320 -o o/tok.model words.txt) ;;
	pack) cmd=(lwm-pack -q -n 64 --rows-per-shard 100 -o o docs.docs.h5) ;;
	annos) cmd=(lwm-annos -q --frames 2 --width 64 --height 64 -d o/a samples.json) ;;
	encode) cmd=(lwm-vqgan-encode -q -m vq -t bytes --device cpu -f '[vision],caption' -o o/c.h5 clips) ;;
	decode) cmd=(lwm-vqgan-decode -q -m vq --device cpu codes.h5 --doc 0 -o o/clip.mp4) ;;
	train) cmd=(lwm-train-stage -q "${small[@]}" --data rows.rows.h5 --tokenizer bytes --steps 8 --checkpoint-every 2 --keep 2 -o o/t) ;;
	waits) command_of train && cmd+=(--save-behind false) ;; # the others write checkpoints while they train
	ranks) cmd=(mpirun --oversubscribe -n 2 lwm-train-stage -q "${small[@]}" --data rows.rows.h5 --tokenizer bytes --steps 12 --checkpoint-every 2 --keep 2 -o o/t) ;;
	recon) cmd=(lwm-train-stage "${recon[@]}" --steps 4 --checkpoint-every 2 --keep 1 -o o/v) ;;
	merge) cmd=(lwm-merge-ckpt -q ck -o o/model --verify) ;;
	needle) cmd=(lwm-eval-needle -q -m model --tokenizer bytes -o o/n --haystack words.txt --context-lengths-min 260 --context-lengths-max 300
		--n-context-length-intervals 2 --n-document-depth-intervals 2 --n-rounds 2 --answer-tokens 4) ;;
	qa) cmd=(lwm-qa-gen -q --threads 1 -m says -t bytes --chunk-tokens 40 --target-tokens 400 --answer-tokens 30 --temperature 0 -d o long.docs.h5) ;;
	synth) cmd=(lwm-synth -q clips -n 3 --size 16 --frames 2 -o o/clips) ;;
	report) cmd=(lwm-report -q -o o/report.html --stage t=ck) ;;
	run) cmd=(lwm-run -q p.yaml) ;;
	esac
}
# Without --force these leave a finished output alone by refusing (73).
refuses=' tokenizer-train decode synth report pack '

# ---- one try ----

# What lies below o/, without what tells of times and processes. Of checkpoints the newest: a save that failed is no failure of the run.
result() {
	local newest
	newest=$(find o -type d -name 'step_*' | sort | tail -1)
	find o -type f ! -name '*.log' ! -name .lock ! -path '*/.lwm-run/*' ! -name timing.jsonl ! -name history.jsonl | sort | while read -r f; do
		[[ $f != o/*/step_* || $f == "$newest"/* ]] || continue
		case $f in
		*.jsonl | *.json | *.html)
			sed -E 's/"(seconds|check|time)":[^,}]*//g; /"event":"(start|save|resume|stop|end)"/d; s/[0-9.]+ s\b//g' "$f" | sort | md5sum | sed "s,-,$f,"
			;;
		*) md5sum "$f" ;;
		esac
	done
}

fresh() {
	rm -rf o
	mkdir o
}

bad() { # CASE WAY PLACE WHAT
	echo "not ok $1 $2 $3: $4"
	sed 's/^/  | /' err | tail -5
	ok=no
}

# Runs it to its end, as a batch system would: again while it says 75.
again() { # CASE
	local i rc=75
	for ((i = 0; i < 5 && rc == 75; i++)); do
		timeout 120 "${cmd[@]}" >out 2>err </dev/null
		rc=$?
	done
	[ $rc != 73 ] || [[ $refuses != *" $1 "* ]] || rc=0
	return $rc
}

# What was committed is whole, and nothing newer was said to be saved.
stands() { # CASE WAY PLACE
	local h step newest record
	for h in o/*/history.jsonl; do
		step=$(sed -nE '/"event":"save"/s/.*"step":([0-9]+).*/\1/p' "$h" 2>/dev/null | tail -1)
		newest=0
		for record in "${h%/*}"/step_*/COMMIT.json; do
			[ -e "$record" ] || continue
			record=${record%/*}
			newest=$((10#${record##*_}))
			lwm-inspect --check -q "$record" >/dev/null 2>err || bad "$1" "$2" "$3" "$record is not whole"
		done
		[ "${step:-0}" -le $newest ] || bad "$1" "$2" "$3" "step $step was saved, step $newest is the newest"
	done
}

judge() { # CASE WAY PLACE: after the interruption
	stands "$@"
	again "$1" || { bad "$1" "$2" "$3" "run again: exit $?" && return; }
	result >now
	cmp -s want now || { diff want now >err; bad "$1" "$2" "$3" 'run again: another result' && return; }
	# --keep 2, 1 of recon
	[ "$(find o -type d -name 'step_*' | wc -l)" -le 2 ] || bad "$1" "$2" "$3" "run again: $(find o -type d -name 'step_*' | wc -l) checkpoints are kept"
	! find o -name '*.tmp.*' -o -name '.trash*' | grep . >err || bad "$1" "$2" "$3" 'run again: leftovers'
}

check_exit() { # CASE WAY PLACE CODE
	local allowed
	case $2 in
	kill) allowed='137' ;;
	memory) allowed='0 71' ;;
	short) allowed='0' ;;
	*) allowed='0 66 69 73 74' ;;
	esac
	# a call that only one of two runs makes was perhaps not made
	[[ " $allowed 0 " == *" $4 "* ]] || { bad "$1" "$2" "$3" "exit $4" && return; }
	[ "$4" = 0 ] || [ "$4" = 137 ] || [ -s err ] || bad "$1" "$2" "$3" "exit $4 without a word"
	if [ "$4" = 0 ]; then
		result | grep -vE '\.tmp\.|\.trash-' >now # they go with the next run
		cmp -s want now || { diff want now >err; bad "$1" "$2" "$3" 'exit 0 with another result'; }
	fi
}

count_try() {
	if [ $ok = yes ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# ---- the ways ----

at_calls() { # CASE WAY
	local how ops='' k n step
	case $2 in
	kill) how=kill ops=change ;;
	full) how=28 ops=change ;;
	broken) how=5 ;;
	*) how=$2 ;;
	esac
	local set=(FAULT_ROOT="$W/" FAULT_OPS="$ops" LD_PRELOAD="$W/fault.so")
	[ "$1" != ranks ] || set+=(FAULT_RANK=1)
	fresh
	env "${set[@]}" FAULT="$how@0" FAULT_COUNT="$W/calls" "${cmd[@]}" >out 2>err </dev/null || { ok=no && bad "$1" "$2" 0 'the count itself failed' && count_try && return; }
	n=$(cat calls)
	step=1
	[ "$tries" = 0 ] || step=$(((n + tries - 1) / tries))
	[ $step -gt 0 ] || step=1
	local before=$passed begin=$((failed))
	for ((k = 1 + RANDOM % step; k <= n; k += step)); do
		ok=yes
		fresh
		env "${set[@]}" FAULT="$how@$k" timeout 120 "${cmd[@]}" >out 2>err </dev/null
		rc=$?
		[ "$1" != ranks ] || [ $rc = 0 ] || [ "$2" != kill ] || rc=137 # mpirun has codes of its own
		check_exit "$1" "$2" $k $rc
		[ $ok = no ] || judge "$1" "$2" $k
		count_try
	done 2>/dev/null # the shell tells of every killed process
	printf '%-16s %-7s %5d calls %5d tries %4d failed\n' "$1" "$2" "$n" $((passed + failed - before - begin)) $((failed - begin))
}

tree_of() { # PID: it and what it started
	local c
	while read -rd ' ' c; do tree_of "$c"; done < <(cat /proc/"$1"/task/*/children 2>/dev/null)
	echo "$1"
}

at_moments() { # CASE WAY
	local i pid ms rc before=$passed begin=$failed n=$tries
	[ "$n" != 0 ] || n=20
	for ((i = 0; i < n; i++)); do
		ok=yes
		fresh
		"${cmd[@]}" >out 2>err </dev/null &
		pid=$!
		ms=$((took * (RANDOM % 1000) / 1000))
		sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
		if [ "$2" = stop ]; then
			kill -USR1 $pid 2>/dev/null
		else
			# shellcheck disable=SC2046
			kill -KILL $(tree_of $pid) 2>/dev/null
		fi
		wait $pid 2>/dev/null
		rc=$?
		[ "$2" != stop ] || [[ " 0 75 138 " == *" $rc "* ]] || bad "$1" "$2" "$ms ms" "exit $rc"
		[ $ok = no ] || judge "$1" "$2" "$ms ms"
		count_try
	done 2>/dev/null
	printf '%-16s %-7s %17d tries %4d failed\n' "$1" "$2" $((passed + failed - before - begin)) $((failed - begin))
}

# As in two containers: nothing but the host part of a temporary name tells the writers apart, and not even that.
races=' tokenize tokenizer-train pack encode train recon merge synth '
at_once() { # CASE
	local i j n=$tries rc before=$passed begin=$failed pids alone=(unshare -pf --mount-proc)
	[[ $races == *" $1 "* ]] || return 0
	"${alone[@]}" true 2>/dev/null || { skipped=$((skipped + 1)); return 0; }
	[ "$n" != 0 ] || n=20
	for ((i = 0; i < n; i++)); do
		ok=yes pids=()
		fresh
		for j in 1 2 3; do
			(sleep 0.0$((RANDOM % 9)) && exec "${alone[@]}" "${cmd[@]}" >out.$j 2>err.$j </dev/null) &
			pids+=($!)
		done
		for j in 1 2 3; do
			wait "${pids[j - 1]}"
			rc=$?
			cp err.$j err
			[[ " 0 73 " == *" $rc "* ]] || bad "$1" race "writer $j" "exit $rc"
		done
		[ $ok = no ] || judge "$1" race "round $i"
		! compgen -G 'o/*.tmp.*' >err || bad "$1" race "round $i" 'left behind'
		count_try
	done
	printf '%-16s %-7s %17d tries %4d failed\n' "$1" race $((passed + failed - before - begin)) $((failed - begin))
}

intact() { # the steps whose checkpoints verify, ascending
	local d
	for d in o/t/step_*; do
		[ ! -d "$d" ] || ! lwm-inspect --check -q "$d" >/dev/null 2>&1 || echo $((10#${d##*_}))
	done
}

# What says it saved has saved, and nothing that is whole is ever given up for something older.
schedules() { # CASE
	local i j n=$tries newest at rc before=$passed begin=$failed keep how d f
	[ "$1" = train ] || return 0
	[ "$n" != 0 ] || n=40
	for ((i = 0; i < n; i++)); do
		ok=yes
		fresh
		keep=$((1 + RANDOM % 3))
		how=(--keep "$keep" --checkpoint-every "$((RANDOM % 5))" --keep-every "$((RANDOM % 2 * 4))"
			--save-behind "$([ $((RANDOM % 2)) = 0 ] && echo true || echo false)")
		for ((j = 0; j < 5; j++)); do
			newest=$(intact | tail -1)
			lwm-train-stage -q "${small[@]}" --data rows.rows.h5 --tokenizer bytes --steps 100 --stop-after $((1 + RANDOM % 6)) "${how[@]}" \
				-o o/t >out 2>err </dev/null
			rc=$?
			at=$(sed -nE 's/.*stopped at step ([0-9]+).*/\1/p' err)
			if [ $rc = 65 ] && [ -z "$newest" ] && [ $j -gt 0 ]; then # all of them are damaged: it must be asked to start over
				rm -rf o/t
				continue
			fi
			[ $rc = 75 ] || { bad "$1" keep "${how[*]}, run $j" "exit $rc" && break; }
			intact | grep -qx "$at" || { bad "$1" keep "${how[*]}, run $j" "step $at is not there" && break; }
			[ -z "$newest" ] || [ "$at" -gt "$newest" ] || { bad "$1" keep "${how[*]}, run $j" "went back behind step $newest" && break; }
			for d in $(find o/t -maxdepth 1 -name 'step_*' | sort | tail -$((1 + RANDOM % 2))); do
				f=$d/part_00000.h5
				[ $((RANDOM % 5)) -lt 2 ] || printf '\x5a' | dd of="$f" bs=1 seek=$((RANDOM * 7 % $(stat -c %s "$f"))) conv=notrunc status=none
			done
		done
		count_try
	done
	printf '%-16s %-7s %17d tries %4d failed\n' "$1" keep $((passed + failed - before - begin)) $((failed - begin))
}

wanted() {
	local w
	[ ${#words[@]} -gt 0 ] || return 0
	for w in "${words[@]}"; do [[ $1 != *"$w"* ]] || return 0; done
	return 1
}

prepare
for c in "${cases[@]}"; do
	wanted "$c" || continue
	command_of "$c"
	fresh
	t0=$(date +%s%3N)
	"${cmd[@]}" >out 2>err </dev/null || { ok=no && bad "$c" - - "undisturbed: exit $?" && count_try && continue; }
	took=$(($(date +%s%3N) - t0))
	result >want
	for way in "${ways[@]}"; do
		case $way in
		moment | stop) at_moments "$c" "$way" ;;
		race) at_once "$c" ;;
		keep) schedules "$c" ;;
		*) at_calls "$c" "$way" ;;
		esac
	done
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
