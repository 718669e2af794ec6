#!/usr/bin/env bash
# Training by the tool itself, on two cores: two ranks of one thread against one process of two, in turns.
#
#   tests/bench/train.sh [ROUNDS [STEPS [PART...]]]      3 rounds of 4 steps, all parts: 5 minutes
#
# A line for each way: seconds of a step, the median of all but the first of each run, and the fastest; of_one: the median of one
# process over its own, compared round by round (the median of these). What is measured, and beside what:
#   mesh     fsdp and tp of two ranks, with all kept for the backward and with what recomputation computes again, each beside one
#            process that does the same
#   ring     a row of 8,192 tokens, one document, over 1 to 8 ranks on the same two cores: equal work
#            and the same row in documents of a thousand tokens (packed): what attention need not look at is left out
#   restart  from the launch to the first step of a run that goes on, beside reading the checkpoint's bytes
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 70
PATH=${BIN:-$PWD/bin}:$PATH
export LC_ALL=C OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
rounds=${1:-3} steps=${2:-4}
shift $(($# < 2 ? $# : 2))
parts=" ${*:-mesh ring restart} "
command -v mpirun >/dev/null || { echo "# skipped: no mpirun"; exit 0; }
dir=$(mktemp -d) || exit 70
trap 'rm -rf "$dir"' EXIT
base=(-q --device cpu --watchdog 0)

# Documents of a thousand tokens, 282 different ones, which two ranks can share; and rows of them: apart, and as one.
awk 'BEGIN { srand(1); for (i = 0; i < 400; i++) { printf "{\"text\":\""; for (j = 0; j < 170; j++) printf "%d ", rand() * 1e5
	print "\"}" } }' >"$dir/words.jsonl"
awk 'BEGIN { srand(1); for (i = 0; i < 20000; i++) printf "word%d%s", rand() * 500, i % 12 ? " " : "\n" }' >"$dir/words.txt"
lwm-tokenizer-train -q --vocab 320 -o "$dir/t.model" "$dir/words.txt" &&
	lwm-tokenize -q -t "$dir/t.model" -o "$dir/docs.h5" "$dir/words.jsonl" &&
	lwm-pack -q -n 1024 --mode concat -o "$dir/short.h5" "$dir/docs.h5" &&
	lwm-pack -q -n 8192 --mode concat -o "$dir/one.h5" "$dir/docs.h5" && lwm-pack -q -n 8192 -o "$dir/packed.h5" "$dir/docs.h5" ||
	exit 1

train() { # train RANKS OPTION...: in $dir/run; ranks share the two cores
	local launch=()
	[ "$1" = 1 ] || launch=(mpirun -n "$1" --bind-to core)
	[ "$1" -le 2 ] || launch=(mpirun -n "$1" --bind-to none --oversubscribe)
	"${launch[@]}" lwm-train-stage "${base[@]}" --threads $(($1 == 1 ? 2 : 1)) -o "$dir/run" "${@:2}" </dev/null >"$dir/log" 2>&1
	[ $? = "${ends:-0}" ] || { cat "$dir/log"; exit 1; }
}

seconds() { # of the run's steps but the first: median, fastest
	sed -nE 's/.*"event":"step".*"seconds":([0-9.e+-]+).*/\1/p' "$dir/run/metrics.jsonl" | tail -n +2 | sort -g |
		awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)], v[1] }'
}

# in_turns OP TOKENS OPTION...: lines "NAME BESIDE RANKS OPTION..." of standard input are the ways, each beside the one that it names
in_turns() {
	local ways i way op=$1 tokens=$2
	[[ $parts == *" $op "* ]] || return 0
	shift 2
	mapfile -t ways
	for ((i = 0; i < rounds; i++)); do
		for way in "${ways[@]}"; do
			read -ra way <<<"$way"
			rm -rf "$dir/run"
			train "${way[2]}" "$@" --tokens-per-batch "$tokens" --steps "$steps" --checkpoint-every 0 "${way[@]:3}"
			echo "$i ${way[*]:0:3} $(seconds)"
		done
	done | awk -v op="$op" -v tokens="$tokens" '
		function median(v, n,   i, j, x) {
			for (i = 2; i <= n; i++) { x = v[i]; for (j = i - 1; j > 0 && v[j] > x; j--) v[j + 1] = v[j]; v[j + 1] = x }
			return v[int((n + 1) / 2)]
		}
		NF != 6 { print; bad = 1; next }
		{ t[$2, $1] = $5; if (!($2 in beside)) order[++n] = $2; beside[$2] = $3; ranks[$2] = $4; rounds = $1 + 1
		  if (!($2 in best) || $6 < best[$2]) best[$2] = $6 }
		END { for (k = 1; k <= n; k++) { w = order[k]
			for (i = 0; i < rounds; i++) { s[i + 1] = t[w, i]; of[i + 1] = t[beside[w], i] / t[w, i] }
			m = median(s, rounds)
			printf "op=%s way=%s ranks=%d ms=%.1f median_ms=%.1f ", op, w, ranks[w], 1e3 * best[w], 1e3 * m
			printf "tok_s=%.0f of_one=%.3f of_one_best=%.3f\n", tokens / m, median(of, rounds), best[beside[w]] / best[w] }
			exit bad }'
}

in_turns mesh 4096 --data "$dir/short.h5" --seq-length 1024 --dim 512 --ffn 1408 --layers 2 --heads 8 <<'END' || exit 1
one one 1 --no-recompute
fsdp one 2 --no-recompute --mesh-dim 1,2,1,1
tp one 2 --no-recompute --mesh-dim 1,1,2,1
one_again one_again 1 --offload false
fsdp_again one_again 2 --offload false --mesh-dim 1,2,1,1
tp_again one_again 2 --offload false --mesh-dim 1,1,2,1
END
in_turns ring 8192 --seq-length 8192 --dim 256 --ffn 704 --layers 2 --heads 4 --no-recompute <<END || exit 1
1 1 1 --data $dir/one.h5
2 1 2 --data $dir/one.h5 --mesh-dim 1,1,1,2
4 1 4 --data $dir/one.h5 --mesh-dim 1,1,1,4
8 1 8 --data $dir/one.h5 --mesh-dim 1,1,1,8
packed 1 1 --data $dir/packed.h5
packed_2 2 2 --data $dir/packed.h5 --mesh-dim 1,1,1,2
END

# ---- restart ----

restart() { # restart NAME RANKS OPTION...
	local name=$1 ranks=$2 from bytes i best=
	shift 2
	rm -rf "$dir/run"
	set -- --data "$dir/short.h5" --seq-length 1024 --tokens-per-batch 2048 --dim 768 --ffn 2048 --layers 4 --heads 12 --keep 1 "$@"
	set -- "$@" --steps 100 --stop-after 1
	ends=75
	train "$ranks" "$@"
	bytes=$(du -sb "$dir/run"/step_* | awk '{ print $1 }')
	for ((i = 0; i < rounds; i++)); do
		from=$(date +%s.%N)
		train "$ranks" "$@"
		best=$(tail -n 3 "$dir/run/metrics.jsonl" | awk -v from="$from" -v best="$best" -F'[:,]' '/"event":"step"/ {
			for (k = 1; k < NF; k++) { if ($k == "\"seconds\"") s = $(k + 1); if ($k == "\"time\"") t = $(k + 1) + 0 }
			s = t - s - from; print best == "" || s < best ? s : best }')
	done
	from=$(date +%s.%N)
	cat "$dir/run"/step_*/* >/dev/null
	awk -v name="$name" -v ranks="$ranks" -v bytes="$bytes" -v s="$best" -v from="$from" -v to="$(date +%s.%N)" 'BEGIN {
		printf "op=restart way=%s ranks=%d MB=%.0f ms=%.1f read_ms=%.1f\n", name, ranks, bytes / 1e6, 1e3 * s, 1e3 * (to - from) }'
}
[[ $parts == *" restart "* ]] || exit 0
restart one 1
restart fsdp 2 --mesh-dim 1,2,1,1
