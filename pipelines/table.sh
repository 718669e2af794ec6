#!/usr/bin/env bash
# Writes the tables of published stages into pipelines/README.md, between their two marks; `make plans` calls it. Each stage of
# text.yaml, vision.yaml and chat.yaml as `lwm-run --plan` shows its command, planned by `lwm-train-stage --plan` for GPUs that are not here: on its
# own mesh, then on the first that --suggest names; then larger models.
#
#   pipelines/table.sh                  writes them
#   pipelines/table.sh --print          on standard output, the file stays as it is
#   pipelines/table.sh --check [N]      compares every N-th line with the file's: 1 and the lines that differ
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
PATH=${BIN:-$PWD/bin}:$PATH
export LC_ALL=C
readme=pipelines/README.md every=1 turn=0
text=(32k 128k 256k 512k 1m) vision=(1k 8k chat_32k chat_128k chat_1m)
chat=(text_chat_128k text_chat_256k text_chat_512k text_chat_1m)

# The options of a stage that decide what it takes; words without blanks.
options_of() { # FILE STAGE
	lwm-run --plan --only "train_$2" "$1" 2>/dev/null |
		grep -oE -- '--(model|seq-length|tokens-per-batch|steps|checkpoint-every|mesh-dim) [^ ]+' | tr '\n' ' '
}

# mesh|way|seconds|bytes|limit of a plan, nothing where none fits: of the mesh itself, or of the first suggestion
own='s/^\{.*"mesh":\[([0-9,]+)\],"bytes_per_rank":([0-9]+),.*"step_seconds":([0-9.e+-]+),.*"limit":"([^"]*)".*/\1||\3|\2|\4/p'
first='s/.*"suggest":\[\{"mesh":\[([0-9,]+)\],"options":"--mesh-dim [0-9,]+ ?([^"]*)","step_seconds":([0-9.e+-]+),"bytes_per_rank":([0-9]+),"limit":"([^"]*)".*/\1|\2|\3|\4|\5/p'
plan() { # GPU RANKS OPTION...
	local gpu=$1 ranks=$2
	shift 2
	lwm-train-stage -o /nowhere/plan --data absent --plan --json --plan-gpu "$gpu" --plan-ranks "$ranks" "$@" 2>/dev/null
}

# A mesh that no stage refuses: rows of a step (4M tokens, of 1M the fewest) over fsdp, the rest shares them.
some_mesh() { # RANKS
	local rows=$(($1 < 4 ? $1 : 4))
	echo "1,$rows,1,$(($1 / rows))"
}

# One line; suggest: "" on the stage's mesh, else on the best one. Extra options stand over the stage's.
row() { # SUGGEST LABEL FILE STAGE GPU RANKS OPTION...
	local suggest=$1 label=$2 file=$3 stage=$4 gpu=$5 ranks=$6 options got mesh way seconds bytes limit steps free=79
	shift 6
	turn=$((turn + 1))
	((turn % every == 0)) || return 0
	read -r -a options < <(options_of "$file" "$stage")
	[ "${#options[@]}" -gt 0 ] || { echo "no options of stage $stage in $file" >&2; return 1; }
	[[ $file = *vision* ]] && options+=(--vision-codes 8192)
	options+=("$@")
	if [ -n "$suggest" ]; then
		got=$(plan "$gpu" "$ranks" "${options[@]}" --mesh-dim "$(some_mesh "$ranks")" --suggest | sed -nE "$first")
	else
		got=$(plan "$gpu" "$ranks" "${options[@]}" | sed -nE "$own")
	fi
	steps=$(sed -E 's/.*--steps ([0-9]+).*/\1/' <<<"${options[*]}")
	if [ -z "$got" ]; then
		printf '| %s | %d | %s | | | | | does not fit |\n' "$label" "$ranks" "$gpu"
		return
	fi
	[ "$gpu" = h200 ] && free=139
	IFS='|' read -r mesh way seconds bytes limit <<<"$got"
	awk -v stage="$label" -v n="$ranks" -v gpu="$gpu" -v mesh="$mesh" -v way="$way" -v t="$seconds" -v b="$bytes" -v limit="$limit" \
		-v steps="$steps" -v free="$free" 'BEGIN {
		if (b / 2^30 > free) limit = "does not fit"
		printf "| %s | %d | %s | %s%s | %.0f | %.3g | %.3g (%.3g) | %s |\n", stage, n, gpu, mesh,
			way ~ /no-recompute/ ? ", kept" : way ~ /true/ ? ", offload" : "", b / 2^30, t, t * steps / 3600,
			t * steps * n / 3600, limit }'
}

head_of() { # TITLE
	printf '\n%s\n\n' "$1"
	echo '| stage | GPUs | of | mesh (dp,fsdp,tp,sp) | GiB a GPU | s a step | hours (GPU hours) | most of a step |'
	echo '| --- | --- | --- | --- | --- | --- | --- | --- |'
}

tables() {
	local s n gpu m t mesh
	# shellcheck disable=SC2016  # backticks of Markdown
	head_of 'On the published meshes, as `sbatch pipelines/stage_1m.sh` and its like run them:'
	for gpu in h100 h200; do
		for s in "${text[@]}"; do row '' "$s" pipelines/text.yaml "$s" "$gpu" 256 || return 1; done
		for s in "${vision[@]}"; do row '' "$s" pipelines/vision.yaml "$s" "$gpu" 512 || return 1; done
		for s in "${chat[@]}"; do row '' "$s" pipelines/chat.yaml "$s" "$gpu" 256 || return 1; done
	done
	# shellcheck disable=SC2016
	head_of 'The first suggestion of `--suggest`:'
	for gpu in h100 h200; do
		for n in 8 64 256 1024; do
			for s in "${text[@]}"; do row 1 "$s" pipelines/text.yaml "$s" "$gpu" "$n" || return 1; done
			for s in "${vision[@]}"; do row 1 "$s" pipelines/vision.yaml "$s" "$gpu" "$n" || return 1; done
		done
	done
	head_of 'Larger models on the published meshes (13b has 40 heads, so tp 8 at most), sp as the number of GPUs has it:'
	for m in 13b 65b; do
		t=16
		[ $m = 65b ] || t=8
		for n in 256 512; do
			while read -r s mesh; do
				row '' "$m $s" pipelines/text.yaml "$s" h100 "$n" --model $m --mesh-dim "$mesh" || return 1
			done <<<"32k 1,-1,4,1
128k 1,32,8,-1
256k 1,16,$t,-1
512k 1,8,$t,-1
1m 1,4,$t,-1"
		done
	done
}

made=$(mktemp) || exit 70
trap 'rm -f "$made" "$made.readme"' EXIT
[ "${1:-}" != --check ] || every=${2:-1}
tables >"$made" || exit 1
case ${1:-} in
--print)
	cat "$made"
	;;
--check)
	# what was planned now and is not in the file
	! grep '^| [0-9a-z]' "$made" | grep -v '^| stage' | grep -vxF -f "$readme"
	;;
*)
	awk -v made="$made" '/^<!-- plans:/ { print; while ((getline line < made) > 0) print line; print ""; skip = 1; next }
		/^<!-- end of plans/ { skip = 0 }
		!skip' "$readme" >"$made.readme" && cat "$made.readme" >"$readme"
	;;
esac
