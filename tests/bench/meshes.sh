#!/usr/bin/env bash
# Is the mesh that `lwm-train-stage --plan --suggest` names first a fast one? Trains a few steps on every mesh of some ranks, with and
# without recomputation, in turns, and compares the fastest step of each with what is planned from measured rates.
#
#   tests/bench/meshes.sh [RANKS [STEPS [ROUNDS]]]      8 ranks, 6 steps, 2 rounds; some minutes on two cores
#   tests/bench/meshes.sh 8 6 2 --dim 512 --layers 6    another model
#
# A line for each way, fastest first: seconds measured, planned, --suggest's place; last how the first suggestion did. Assumes nothing
# of the machine but that nobody else uses it. Not part of `make test`: nothing there depends on times.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 70
PATH=${BIN:-$PWD/bin}:$PATH
export LC_ALL=C OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
ranks=${1:-8} steps=${2:-6} rounds=${3:-2}
shift $(($# < 3 ? $# : 3))
[ $# -gt 0 ] || set -- --dim 256 --ffn 704 --layers 4 --heads 8
seq=${SEQ:-1024}
if [ -n "${DIR:-}" ]; then
	dir=$DIR
	mkdir -p "$dir" || exit 70
else
	dir=$(mktemp -d) || exit 70
	trap 'rm -rf "$dir"' EXIT
fi
touch "$dir/measured"

[ -e "$dir/rows.h5" ] || awk 'BEGIN { srand(1); for (i = 0; i < 500; i++) for (k = 0; k < 3 + i % 5; k++)
		word[i] = word[i] sprintf("%c", 97 + rand() * 26)
	for (i = 0; i < 40000; i++) printf "%s%s", word[int(rand() * 500)], i % 12 ? " " : "\n" }' >"$dir/words.txt"
if [ ! -e "$dir/rows.h5" ]; then
	lwm-tokenizer-train -q --vocab 320 -o "$dir/t.model" "$dir/words.txt" || exit 1 # 320 ids: 8 ranks can share them
	lwm-tokenize -q -t "$dir/t.model" -o "$dir/docs.h5" "$dir/words.txt" || exit 1
	lwm-pack -q -n "$seq" --mode concat -o "$dir/rows.h5" "$dir/docs.h5" || exit 1
fi
stage=(-q --device cpu --threads 1 --data "$dir/rows.h5" --seq-length "$seq" --tokens-per-batch $((seq * ranks)) --steps "$steps"
	--checkpoint-every 0 "$@")
launch=(mpirun -n "$ranks" --oversubscribe)

# ---- every mesh ----

ways() {
	local d f t
	for ((d = 1; d <= ranks; d++)); do
		((ranks % d)) && continue
		for ((f = 1; f <= ranks / d; f++)); do
			((ranks / d % f)) && continue
			for ((t = 1; t <= ranks / d / f; t++)); do
				((ranks / d / f % t)) && continue
				echo "--mesh-dim $d,$f,$t,$((ranks / d / f / t)) --no-recompute"
				echo "--mesh-dim $d,$f,$t,$((ranks / d / f / t)) --offload false"
			done
		done
	done
}

for ((round = 0; round < rounds; round++)); do
	while read -r -a way; do
		[ "$(grep -cF " ${way[*]}" "$dir/measured")" -le "$round" ] || continue
		[ "$SECONDS" -lt "${BUDGET:-100000}" ] || exit 75
		lwm-train-stage "${stage[@]}" -o "$dir/run" "${way[@]}" --plan-ranks "$ranks" --check-options >/dev/null 2>&1 || continue
		rm -rf "$dir/run"
		"${launch[@]}" lwm-train-stage "${stage[@]}" -o "$dir/run" "${way[@]}" --watchdog 0 </dev/null >"$dir/log" 2>&1 ||
			{ echo "${way[*]} failed:"; cat "$dir/log"; exit 1; }
		sed -nE 's/.*"event":"step".*"seconds":([0-9.e+-]+).*/\1/p' "$dir/run/metrics.jsonl" | sort -g | head -1 |
			sed "s/\$/ ${way[*]}/" >>"$dir/measured"
	done < <(ways)
done

# ---- and the plan ----

rm -rf "$dir/run"
"${launch[@]}" lwm-train-stage "${stage[@]}" -o "$dir/run" --plan --plan-ranks "$ranks" --calibrate --suggest --json >"$dir/plan" || exit 1
value() { sed -nE "s/.*\"$1\":([0-9.e+-]+).*/\1/p" "$dir/plan"; }
rates=(--plan-tflops "$(value tflops)" --plan-attention-tflops "$(value attention_tflops)" --plan-node-rate "$(value node)"
	--plan-latency "$(value latency_us)" --plan-memory-rate "$(sed -nE 's/.*"rates":[^}]*"memory":([0-9.e+-]+).*/\1/p' "$dir/plan")")
echo "# ${rates[*]}"
grep -oE '"options":"[^"]*"' "$dir/plan" | sed -E 's/"options":"(.*)"/\1/' >"$dir/suggested"
sort -g "$dir/measured" | awk '{ t = $1; $1 = ""; if (!($0 in seen)) { seen[$0] = 1; print t $0 } }' >"$dir/fastest"
best=$(head -1 "$dir/fastest")
echo "# measured planned place way"
while read -r seconds way; do
	# shellcheck disable=SC2086
	planned=$(lwm-train-stage "${stage[@]}" -o "$dir/run" $way --plan-ranks "$ranks" --plan --json "${rates[@]}" |
		sed -nE 's/.*"step_seconds":([0-9.e+-]+).*/\1/p')
	place=$(grep -nxF -- "$way" "$dir/suggested" | cut -d: -f1)
	printf '%s %.4g %s %s\n' "$seconds" "${planned:-0}" "${place:--}" "$way"
done <"$dir/fastest"
first=$(head -1 "$dir/suggested")
awk -v best="${best%% *}" -v way="$first" '{ t = $1; $1 = ""; if ($0 == " " way) printf "# first suggestion: %s: %s s, %.3f of the fastest, %s s\n", way, t, t / best, best }' "$dir/fastest"
