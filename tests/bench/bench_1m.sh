#!/usr/bin/env bash
# A million tokens in one row, on this machine: `make bench-1m`. Three steps of training, each with its time, its memory beside what the
# plan says of it, and its rate as a fraction of a product of square matrices (peak.h) of the same run:
#
#	ring     a packed row, documents of 4K to 64K, over 8 ranks of a ring, which share the cores
#	kept     a packed row, documents of up to 1K, on one process: 4 layers of 8 heads of 64 in little memory (16 GiB)
#	whole    a row that is one document, on one process: 1 layer of 1 head of 32, since it costs a pair for each two tokens
#
#	bench_1m.sh [TOKENS [PART...]]      1M; all parts
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin=${BIN:-$PWD/bin}
tokens=${1:-1048576}
[ $# -gt 1 ] && parts=("${@:2}") || parts=(ring kept whole)
export LC_ALL=C GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-0} OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT

# rows LEAST MOST: one full row of documents of so many tokens, their lengths drawn evenly by logarithm; each has two marks. $document: the
# length of the one that a token is in, on average, which plans are made for
rows() {
	document=$(awk -v all="$tokens" -v lo="$1" -v hi="$2" -v out="$here/text.txt" 'BEGIN { srand(7)
		for (n = 0; n < all; n += len) { len = int(lo * exp(rand() * log(hi / lo)))
			if (n + len + 16 > all) len = all - n
			for (i = len - 2; i > 0; i -= 8) { s = sprintf("%c%c%c ship", 97 + int(rand() * 26), 97 + int(rand() * 26), 97 + int(rand() * 26))
				printf "%s", substr(s, 1, i) >out }
			print "" >out; square += len * len }
		printf "%d", square / all }')
	"$bin/lwm-tokenize" -q --force -t bytes --split-lines 1 --max-bytes 1G -o "$here/docs.h5" "$here/text.txt"
	"$bin/lwm-pack" -q --force -n "$tokens" -o "$here/rows.h5" "$here/docs.h5"
}

# step NAME RANKS WHAT OPTION...: one step of training, its plan, and a line
step() {
	local name=$1 ranks=$2 what=$3 sgemm plan launch=() all
	shift 3
	all=(-q --device cpu --vocab 259 --data "$here/rows.h5" --seq-length "$tokens" --tokens-per-batch "$tokens" --steps 1
		--checkpoint-every 0 --watchdog 0 -o "$here/run" "$@")
	rm -rf "$here/run"
	[ "$ranks" = 1 ] || launch=(mpirun -n "$ranks" --oversubscribe --bind-to none)
	sgemm=$("$bin/lwm-train-stage" "${all[@]}" --threads 0 --mesh-dim 1,1,1,1 --plan --calibrate --json | sed -nE 's/.*"tflops":([0-9.]+),.*/\1/p')
	plan=$("$bin/lwm-train-stage" "${all[@]}" --plan --plan-ranks "$ranks" --plan-document "$document" --json | sed -nE 's/.*"bytes_per_rank":([0-9]+),.*/\1/p')
	"${launch[@]}" "$bin/lwm-train-stage" "${all[@]}" >"$here/out" 2>&1 || { cat "$here/out" >&2; return 1; }
	awk -v name="$name" -v ranks="$ranks" -v what="$what" -v plan="$plan" -v tokens="$tokens" -v sgemm="$sgemm" '
		function field(k) { return match($0, "\"" k "\":[0-9.e+-]+") ? substr($0, RSTART + length(k) + 3, RLENGTH - length(k) - 3) : 0 }
		/"event":"step"/ { t = field("seconds"); f = field("flops"); loss = field("loss") }
		/"event":"end"/ { rss = field("peak_rss") }
		END { printf "op=1m_%s tokens=%d ranks=%d step_s=%.1f tok_s=%.0f GFLOPs=%.1f sgemm=%.1f of_sgemm=%.3f plan_GiB=%.3f rss_GiB=%.3f ratio=%.3f loss=%.4f model=\"%s\"\n",
			name, tokens, ranks, t, tokens / t, f / t / 1e9, sgemm * 1e3, f / t / sgemm / 1e12, plan / 2^30, rss / 2^30, plan / rss, loss, what }
	' "$here/run/metrics.jsonl"
}

for part in "${parts[@]}"; do
	case $part in
	ring)
		rows 4096 65536
		step ring 8 '2 layers, dim 64, 2 heads; documents of 4K-64K; sp 8, a thread each' \
			--threads 1 --mesh-dim 1,1,1,8 --dim 64 --ffn 176 --layers 2 --heads 2
		;;
	kept)
		rows 512 1024
		step kept 1 '4 layers, dim 512, 8 heads, MLP 352; documents of up to 1K; 8 head groups, kept in bf16' \
			--dim 512 --ffn 352 --layers 4 --heads 8 --head-groups 8 --keep-activations bf16
		;;
	whole)
		rows "$tokens" "$tokens"
		step whole 1 '1 layer, dim 32, 1 head; one document' --dim 32 --ffn 96 --layers 1 --heads 1 --keep-activations bf16
		;;
	*)
		echo "bench_1m.sh: no part '$part'" >&2
		exit 64
		;;
	esac
done
