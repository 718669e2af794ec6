#!/usr/bin/env bash
# The training program itself beside the benchmark of its step: one model, rows of one document each, all threads, with recomputation
# and without. The best step after the first counts, of both; FLOPs of a step are those that the program counts from its rows.
#
#	tool.sh [ROWS [SEQ [STEPS [PRESET]]]]     4 1024 3 124m
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=${BIN:-$PWD/bin} bench=${B:-build/rel}/tests/bench/bench_train
rows=${1:-4} seq=${2:-1024} steps=${3:-3} preset=${4:-124m}
vocab=259 # of the tokenizer `bytes`
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT

awk -v n=$((rows * (steps + 1))) -v m="$seq" 'BEGIN { srand(7); for (; n > 0; n--) { s = ""
	for (i = 0; i < m + 8; i++) s = s sprintf("%c", 97 + int(rand() * 26)); print s } }' >"$here/text.txt"
"$bin/lwm-tokenize" -q -t bytes --split-lines 1 -o "$here/docs.h5" "$here/text.txt"
"$bin/lwm-pack" -q -n "$seq" --long truncate -o "$here/rows.h5" "$here/docs.h5"

"$bench" "$rows" "$seq" "$steps" "$preset" "$vocab" | tee "$here/bench"
best() { sed -nE 's/.*"event":"step".*"seconds":([0-9.e-]+),.*"flops":([0-9]+),.*/\1 \2/p' "$1/metrics.jsonl" |
	awk 'NR > 1 && (!b || $1 < b) { b = $1; f = $2 } END { print b, f }'; }
for way in '' --no-recompute; do
	rm -rf "$here/run"
	"$bin/lwm-train-stage" -q --device cpu --model "$preset" --data "$here/rows.h5" --seq-length "$seq" \
		--tokens-per-batch $((rows * seq)) --steps "$((steps + 1))" --checkpoint-every 0 --log-every 1 $way -o "$here/run" >"$here/out" 2>&1 ||
		{ cat "$here/out" >&2; exit 1; }
	op=train_recompute
	[ -z "$way" ] || op=train
	awk -v op="$op" -v best="$(best "$here/run")" -v tokens=$((rows * seq)) -v rows="$rows" -v seq="$seq" '
		{ delete f; for (i = 1; i <= NF; i++) { k = index($i, "="); if (k) f[substr($i, 1, k - 1)] = substr($i, k + 1) } }
		f["op"] == op && !done++ {
			split(best, b, " ")
			printf "op=tool_%s threads=%s rows=%d seq=%d tok_s=%.1f GFLOPs=%.1f of_sgemm=%.3f of_bench=%.3f step_s=%.3f\n",
				op, f["threads"], rows, seq, tokens / b[1], b[2] / b[1] / 1e9, b[2] / b[1] / 1e9 / f["sgemm"],
				tokens / b[1] / f["tok_s"], b[1]
		}' "$here/bench"
done
