#!/usr/bin/env bash
# Writes the table of published stages into pipelines/README.md, between its two marks; `make plans` calls it. Each stage of text.yaml
# and vision.yaml as `lwm-run --plan` shows its command, planned by `lwm-train-stage --plan --suggest` for GPUs that are not here.
#
#   pipelines/table.sh [--print]        --print: on standard output, the file stays as it is
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
PATH=${BIN:-$PWD/bin}:$PATH
export LC_ALL=C
readme=pipelines/README.md

# The options of a stage that decide what it takes; words without blanks.
options_of() { # FILE STAGE
	lwm-run --plan --only "train_$2" "$1" 2>/dev/null | grep -oE -- '--(model|seq-length|tokens-per-batch|steps|checkpoint-every) [^ ]+' |
		tr '\n' ' '
}

# One cell: the first suggestion for so many GPUs, "-" where none fits.
cell() { # GPU RANKS OPTION...
	local gpu=$1 ranks=$2 plan
	shift 2
	plan=$(lwm-train-stage -o /nowhere/plan --data absent --plan --json --plan-gpu "$gpu" --plan-ranks "$ranks" --suggest "$@" 2>/dev/null)
	sed -nE 's/.*"suggest":\[\{"mesh":\[([0-9,]+)\],"options":"--mesh-dim [0-9,]+ ?([^"]*)","step_seconds":([0-9.e+-]+),"bytes_per_rank":([0-9]+),"limit":"([^"]*)".*/\1|\2|\3|\4|\5/p' \
		<<<"$plan"
}

# A mesh that no stage refuses: rows of a step (4M tokens, of 1M the fewest) over fsdp, the rest shares them.
some_mesh() { # RANKS
	local rows=$(($1 < 4 ? $1 : 4))
	echo "1,$rows,1,$(($1 / rows))"
}

row() { # FILE STAGE GPU RANKS
	local options got mesh way seconds bytes limit steps
	read -r -a options < <(options_of "$1" "$2")
	[ "${#options[@]}" -gt 0 ] || { echo "no options of stage $2 in $1" >&2; return 1; }
	[[ $1 = *vision* ]] && options+=(--vision-codes 8192)
	got=$(cell "$3" "$4" "${options[@]}" --mesh-dim "$(some_mesh "$4")")
	steps=$(sed -E 's/.*--steps ([0-9]+).*/\1/' <<<"${options[*]}")
	if [ -z "$got" ]; then
		printf '| %s | %d | %s | | | | | does not fit |\n' "$2" "$4" "$3"
		return
	fi
	IFS='|' read -r mesh way seconds bytes limit <<<"$got"
	awk -v stage="$2" -v n="$4" -v gpu="$3" -v mesh="$mesh" -v way="$way" -v t="$seconds" -v b="$bytes" -v limit="$limit" -v steps="$steps" \
		'BEGIN { printf "| %s | %d | %s | %s%s | %.0f | %.3g | %.3g (%.3g) | %s |\n", stage, n, gpu, mesh,
			way ~ /no-recompute/ ? ", kept" : way ~ /true/ ? ", offload" : "", b / 2^30, t, t * steps / 3600,
			t * steps * n / 3600, limit }'
}

table() {
	local s n gpu
	echo '| stage | GPUs | of | mesh (dp,fsdp,tp,sp) | GiB a GPU | s a step | hours (GPU hours) | most of a step |'
	echo '| --- | --- | --- | --- | --- | --- | --- | --- |'
	for gpu in h100 h200; do
		for n in 8 64 256 1024; do
			for s in 32k 128k 256k 512k 1m; do
				row pipelines/text.yaml "$s" "$gpu" "$n" || return 1
			done
			for s in 1k 8k chat_32k chat_128k chat_1m; do
				row pipelines/vision.yaml "$s" "$gpu" "$n" || return 1
			done
		done
	done
}

made=$(mktemp) || exit 70
trap 'rm -f "$made" "$made.readme"' EXIT
table >"$made" || exit 1
if [ "${1:-}" = --print ]; then
	cat "$made"
	exit 0
fi
awk -v made="$made" '/^<!-- plans:/ { print; while ((getline line < made) > 0) print line; skip = 1; next }
	/^<!-- end of plans/ { skip = 0 }
	!skip' "$readme" >"$made.readme" && cat "$made.readme" >"$readme"
