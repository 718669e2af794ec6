#!/usr/bin/env bash
# The kernels on a GPU; `make test-cuda` calls it with B, the build folder, and BIN. Needs CUDA alone.
#
#	1. every case of tests/kernels against ref, attention by whatever path is chosen, then insisting on each path
#	2. shapes that only a GPU holds (large.c)
#	3. some cases under compute-sanitizer, where it is installed: memcheck, racecheck, initcheck, synccheck
#
# Prints one line a part, and what failed above it. Exit: 0 all good, or "skipped: why" where there is no GPU; 1 otherwise.
# SANITIZE=0 leaves out part 3; SANITIZE_SECONDS (15) is when each tool begins no more cases.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 70
export LC_ALL=C
: "${B:=$PWD/build/rel}" "${BIN:=$PWD/bin}"
export LWM_CUDA_LIB=${LWM_CUDA_LIB:-${LIB:-$PWD/lib}/liblwm_cuda.so}
ops=$BIN/lwm-kernel-ops
log=$(mktemp) || exit 70
trap 'rm -f "$log"' EXIT
bad=0
table=()

# part NAME COMMAND...: the last line of output is the verdict
part() {
	local name=$1 start=$SECONDS rc
	shift
	"$@" >"$log" 2>&1
	rc=$?
	[ "$rc" = 0 ] || { cat "$log"; bad=1; }
	table+=("$(printf '%-44s %-6s %4d s  %s' "$name" "$([ "$rc" = 0 ] && echo ok || echo "FAIL")" $((SECONDS - start)) \
		"$(tail -1 "$log")")")
	printf '%s\n' "${table[-1]}"
	return "$rc"
}

# Is there a GPU? A backend that was built but does not load is a failure, not a reason to skip.
why=$("$B/tests/gpu/large" cuda:0 --probe 2>&1)
rc=$?
case $why in skipped:*)
	printf '%s\n' "$why"
	[ "$rc" = 0 ] || [ ! -e "$LWM_CUDA_LIB" ]
	exit
	;;
esac
printf '# %s\n' "$why"

part "all cases" "$ops" cuda:0
for path in mma sm90 row; do
	LWM_CUDA_ATTN=$path part "attention cases, only by $path" "$ops" cuda:0 --case attn
done
LWM_CUDA_SYNC=1 part "all cases, waiting after each launch" "$ops" cuda:0 --every 3
part "large shapes" "$B/tests/gpu/large" cuda:0

sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null || true)
if [ "${SANITIZE:-1}" = 0 ]; then
	echo "compute-sanitizer: left out"
elif [ -z "$sanitizer" ]; then
	echo "compute-sanitizer is not installed: left out"
else
	for tool in memcheck racecheck initcheck synccheck; do
		for path in mma sm90; do
			LWM_CUDA_ATTN=$path part "$tool, attention by $path" "$sanitizer" --tool "$tool" --error-exitcode 9 "$ops" \
				cuda:0 --case attn --every 7 --seconds "${SANITIZE_SECONDS:-15}"
		done
		part "$tool, all ops" "$sanitizer" --tool "$tool" --error-exitcode 9 "$ops" cuda:0 --every 5 --seconds \
			"${SANITIZE_SECONDS:-15}"
	done
fi
printf '\n%-44s %-6s %6s  %s\n' "test-cuda" "" time "last line"
printf '%s\n' "${table[@]}"
exit "$bad"
