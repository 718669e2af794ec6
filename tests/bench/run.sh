#!/usr/bin/env bash
# Runs the benchmark programs one after the other, then train.sh; `make bench` calls it with B, the build folder.
# Those named mpi_* have two ranks with a core each. Each prints lines of key=value; the ratios among them come last, as a table and as
# JSON. A program that fails makes the whole fail, after the others have run.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 70
export LC_ALL=C
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-0} # waiting threads sleep, so that cpu_ms counts work alone
unset OPENBLAS_CORETYPE                    # measured is what the program picks by itself
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun=$(command -v mpirun)
bad=0
lines=$(mktemp) || exit 70
trap 'rm -f "$lines"' EXIT
for source in tests/bench/*.c; do
	program=${B:-build/rel}/${source%.c}
	echo "# $program"
	launch=()
	case ${source##*/} in
	mpi_*)
		[ -n "$mpirun" ] || { echo "# skipped: no mpirun"; continue; }
		launch=(mpirun -n 2 --bind-to core)
		;;
	esac
	"${launch[@]}" "$program" | tee -a "$lines"
	[ "${PIPESTATUS[0]}" = 0 ] || { echo "# $program failed" >&2; bad=1; }
done
for script in tests/bench/tool.sh tests/bench/train.sh; do
	echo "# $script"
	bash "$script" | tee -a "$lines"
	[ "${PIPESTATUS[0]}" = 0 ] || { echo "# $script failed" >&2; bad=1; }
done
awk -f tests/bench/table.awk "$lines"
exit "$bad"
