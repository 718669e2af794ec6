#!/usr/bin/env bash
# Runs every test that was built; `make test` calls it. The last line is "N passed, N failed, N skipped".
#
#   SAN=... B=build/rel BIN=.../bin tests/run.sh [PATTERN...]     only suites whose name contains a PATTERN ("NAME$": is NAME)
#
# A suite is a cmocka program (tests/unit, the ones named mpi_* under mpirun with 2 and 4 ranks), the kernel case table,
# a bats file (tests/build, tests/cli, tests/slurm), a fuzz target replaying its corpus or the faults of tests/faults. What a suite prints is shown when it fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
B=${B:-build/rel} BIN=${BIN:-$PWD/bin} SAN=${SAN:-}
export BIN SAN B LC_ALL=C
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_btl_base_warn_component_unused=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp:print_suppressions=0
export TSAN_OPTIONS=suppressions=$PWD/tests/tsan.supp:halt_on_error=1
# Teams of libgomp's threads cannot be judged (tests/tsan.supp), only look wrong now and then; ranks and readers are threads of ours.
[[ $SAN != *thread* ]] || export OMP_NUM_THREADS=1
limit=${LWM_TEST_LIMIT:-$([ -n "$SAN" ] && echo 3600 || echo 900)} # seconds of a suite

passed=0 failed=0 skipped=0
log=$(mktemp) || exit 70
trap 'rm -f "$log"' EXIT

wanted() {
	local p
	[ ${#patterns[@]} -gt 0 ] || return 0
	for p in "${patterns[@]}"; do
		[[ $p != *'$' || $1 != "${p%\$}" ]] || return 0
		[[ $1 != *"$p"* ]] || return 0
	done
	return 1
}

# report NAME STATUS PASSED FAILED SKIPPED SECONDS
report() {
	local p=$3 f=$4 s=$5 note=''
	# a crash, a time-out or a suite without tests is a failure whatever was counted
	if [ "$2" != 0 ] && [ "$f" = 0 ]; then
		f=1
		note=" (exit $2)"
		[ "$2" != 124 ] || note=" (stopped after $limit s)"
	elif [ $((p + f + s)) = 0 ]; then
		f=1
		note=' (no tests in it)'
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	if [ "$f" -gt 0 ]; then
		echo "---- $1$note"
		cat "$log"
		echo "---- end of $1"
	fi
	printf '%-6s %-34s %4d passed %3d failed %3d skipped %5d s%s\n' \
		"$([ "$f" = 0 ] && echo ok || echo FAILED)" "$1" "$p" "$f" "$s" "$6" "$note"
}

skip_suite() { # NAME REASON
	skipped=$((skipped + 1))
	printf '%-6s %-34s %s\n' skip "$1" "$2"
}

sum() { # sum REGEX: the numbers in the first group, added
	sed -nE "s/$1/\\1/p" "$log" | awk '{ n += $1 } END { print n + 0 }'
}

# A closing line of the form "N passed, N failed, N skipped", or cmocka's summary.
count_log() {
	local last
	last=$(grep -oE '[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped' "$log" | tail -1)
	if [ -n "$last" ]; then
		echo "$last" | tr -dc '0-9 \n'
		return
	fi
	echo "$(sum '^\[  PASSED  \] ([0-9]+) test\(s\).*') $(sum '^\[  FAILED  \] ([0-9]+) test\(s\).*') $(
		sum '^\[  SKIPPED \] ([0-9]+) test\(s\).*')"
}

run_program() { # NAME COMMAND...
	local name=$1 t0=$SECONDS rc p f s
	shift
	wanted "$name" || return 0
	timeout -k 10 "$limit" "$@" >"$log" 2>&1 </dev/null
	rc=$?
	# of several ranks, rank 0's own lines are counted
	if grep -q '^\[1,0\]<std' "$log"; then
		cp "$log" "$log.all"
		sed -nE 's/^\[1,0\]<std(out|err)>: ?//p' "$log.all" >"$log"
		read -r p f s < <(count_log)
		mv "$log.all" "$log"
	else
		read -r p f s < <(count_log)
	fi
	report "$name" "$rc" "${p:-0}" "${f:-0}" "${s:-0}" $((SECONDS - t0))
	grep -hE '^\[  SKIPPED \] [a-z]|^skip ' "$log" | sort -u | head -20 | sed 's/^/         /'
}

run_bats() { # FILE
	local name=${1#tests/} t0=$SECONDS rc p f s
	name=${name%.bats}
	wanted "$name" || return 0
	timeout -k 10 "$limit" bats --formatter tap "$1" >"$log" 2>&1 </dev/null
	rc=$?
	s=$(grep -cE '^ok [0-9]+ .*# skip' "$log")
	p=$(($(grep -cE '^ok [0-9]+' "$log") - s))
	f=$(grep -cE '^not ok [0-9]+' "$log")
	report "$name" "$rc" "$p" "$f" "$s" $((SECONDS - t0))
	sed -nE 's/^ok [0-9]+ (.*)# skip *(.*)/         skipped: \1: \2/p' "$log" | head -20
}

unit_tests() {
	local src name n
	for src in tests/unit/*.c; do
		name=$(basename "$src" .c)
		case $name in
		mpi_*)
			if [[ $SAN == *thread* ]]; then
				skip_suite "unit/$name" 'Open MPI itself is not clean under the thread sanitizer'
				continue
			fi
			for n in 2 4; do
				ASAN_OPTIONS=detect_leaks=0 run_program "unit/$name x$n" mpirun -n "$n" --oversubscribe \
					--tag-output "$B/tests/unit/$name"
			done
			;;
		*) run_program "unit/$name" "$B/tests/unit/$name" ;;
		esac
	done
}

fuzz_replays() {
	local src name
	for src in tests/fuzz/*.c; do
		[ -e "$src" ] || continue
		name=$(basename "$src" .c)
		run_program "fuzz/$name" "$B/tests/fuzz/$name" "tests/fuzz/corpus/$name"
	done
}

# The CUDA kernels on the CPU (tests/emu). Each order of threads, blocks and queues must give right results; the runs also
# differ in the chip and in the number of its multiprocessors.
emulated() {
	local run order cc sms
	if [ ! -e "$B/emu/liblwm_cuda.so" ]; then
		skip_suite kernels/emulated 'the thread sanitizer does not follow fibers'
		return
	fi
	run_program emu/selftest "$B/emu/selftest"
	for run in '0 80 4' '1 90 7' '2 80 5' '3 90 4'; do
		read -r order cc sms <<<"$run"
		run_program "kernels/emulated sm_$cc order $order" env LWM_CUDA_LIB="$B/emu/liblwm_cuda.so" \
			LWM_EMU_ORDER="$order" LWM_EMU_CC="$cc" LWM_EMU_SMS="$sms" "$BIN/lwm-kernel-ops" cuda:0
	done
	run_program 'kernels/emulated, sums in any order' env LWM_CUDA_LIB="$B/emu/liblwm_cuda.so" LWM_CUDA_FAST=1 \
		LWM_EMU_CC=90 "$BIN/lwm-kernel-ops" cuda:0 --case attn
}

# What measures and tests a GPU, at small sizes on the CPU, so that it is known to run before there is a GPU.
gpu_programs() {
	[ -z "$SAN" ] || return 0
	run_program gpu/large "$B/tests/gpu/large" cpu --dry
}

# Every program interrupted on purpose at a few places; tests/faults/run.sh by itself tries them all.
faults() {
	if [ -n "$SAN" ]; then
		skip_suite faults/run 'a sanitizer has a malloc of its own'
		skip_suite faults/night 'the programs run alone above; a sanitizer would only lengthen the waiting'
		return
	fi
	run_program faults/run tests/faults/run.sh --tries 1
	run_program faults/night tests/faults/night.sh --tries 2 --no-units # those it would run have their own line above
}

patterns=("$@")
unit_tests
[ ! -x "$BIN/lwm-kernel-ops" ] || run_program kernels/ops "$BIN/lwm-kernel-ops"
emulated
gpu_programs
fuzz_replays
faults
for t in tests/build/*.bats tests/cli/*.bats tests/slurm/*.bats; do
	[ -e "$t" ] || continue
	if [ -n "$SAN" ] && [[ $t == tests/slurm/* ]]; then
		skip_suite "${t#tests/}" 'the programs run alone above; ten times slower ones outlast the time limits of these jobs'
		continue
	fi
	run_bats "$t"
done
[ $((passed + failed + skipped)) -gt 0 ] || failed=1
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
