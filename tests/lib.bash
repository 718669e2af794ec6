# shellcheck shell=bash disable=SC2154
# Helpers for the tables in tests/cli: `load ../lib` at the top of a .bats file.
#
#	ok lwm-pack ...            must exit 0     standard output in $output, standard error in $stderr
#	code 65 lwm-pack ...       must exit 65
#	has TEXT / lacks TEXT      in $output      err_has TEXT / err_lacks TEXT   in $stderr
#	same A B                   two files of the same bytes
#	need_mpi                   skips the test where ranks cannot be started
#	gone FILE...               none exists     words N    N lines of made-up text on standard output
#	with_fault FAULT PATH CMD  the command with something happening at one of its calls to a file, or files below a folder
#	count_calls PATH CMD       how many there are: $calls (tests/faults/fault.c)
#	log_calls LOG PATH CMD     what they are: LOG/RANK, a line for each
bats_require_minimum_version 1.5.0

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BIN=${BIN:-$ROOT/bin}
PATH=$BIN:$PATH
export ROOT BIN PATH
export LC_ALL=C NO_COLOR=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
# nothing of the caller's may steer the tools
for v in $(compgen -e LWM_); do unset "$v"; done

# Open MPI unloads its modules before the end: what they leave behind cannot be told from a leak of ours.
if [[ ${SAN:-} == *address* ]]; then
	mpirun() { ASAN_OPTIONS=detect_leaks=0 command mpirun "$@"; }
fi

need_mpi() {
	type -P mpirun >/dev/null || skip 'no mpirun here'
	[[ ${SAN:-} != *thread* ]] || skip 'Open MPI itself is not clean under the thread sanitizer'
}

code() {
	local want=$1
	shift
	run --separate-stderr "$@"
	[ "$status" = "$want" ] && return 0
	echo "exit $status instead of $want: $*"
	echo "stdout: ${output:0:2000}"
	echo "stderr: ${stderr:0:2000}"
	return 1
}

ok() { code 0 "$@"; }

contains() { # contains WHAT TEXT PART
	[[ "$2" == *"$3"* ]] && return 0
	echo "$1 lacks '$3': ${2:0:2000}"
	return 1
}

contains_not() {
	[[ "$2" != *"$3"* ]] && return 0
	echo "$1 has '$3': ${2:0:2000}"
	return 1
}

has() { contains stdout "$output" "$1"; }
lacks() { contains_not stdout "$output" "$1"; }
err_has() { contains stderr "$stderr" "$1"; }
err_lacks() { contains_not stderr "$stderr" "$1"; }

same() { cmp "$1" "$2"; }

gone() {
	local f
	for f in "$@"; do
		[ ! -e "$f" ] || { echo "$f exists"; return 1; }
	done
}

words() {
	local i w=(the ship sailed over a quiet sea and nobody spoke until morning came with rain)
	for ((i = 0; i < $1; i++)); do
		echo "Line $i: ${w[i % 15]} ${w[(i * 7 + 3) % 15]} ${w[(i * 11 + 5) % 15]} ${w[(i / 15) % 15]}."
	done
}

preload() {
	local opts=()
	fault_so=$BATS_FILE_TMPDIR/fault.so
	[ -z "${SAN:-}" ] || opts=(-DFAULT_NO_MEMORY)
	[ -e "$fault_so" ] || ${CC:-cc} -shared -fPIC -O1 "${opts[@]}" -o "$fault_so" "$ROOT/tests/faults/fault.c" -ldl
}

with_fault() { # FAULT PATH COMMAND...
	local root
	root=$(realpath "$2")
	[ ! -d "$root" ] || root=$root/
	preload
	FAULT=$1 FAULT_ROOT=$root ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} LD_PRELOAD=$fault_so "${@:3}"
}

log_calls() { # LOG PATH COMMAND...
	rm -rf "$1"
	mkdir -p "$1"
	FAULT_LOG=$(realpath "$1") with_fault '' "${@:2}"
}

count_calls() { # PATH COMMAND...
	FAULT_COUNT=$BATS_TEST_TMPDIR/calls with_fault '' "$@"
	# shellcheck disable=SC2034  # for the caller
	calls=$(cat "$BATS_TEST_TMPDIR/calls")
}
