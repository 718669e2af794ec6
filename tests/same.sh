#!/usr/bin/env bash
# Does this tree make the same bytes as an earlier commit? For changes that move walls and mean to change nothing.
#
#   tests/same.sh COMMIT [STEPS]    builds both in a temporary folder and runs the first stages of pipelines/demo.yaml with each
#
# Compared byte for byte: everything made up, tokenizer, document and row shards, codes, checkpoints, merged models, and the
# report of one run written by both. Every training stage takes STEPS steps (20). Left out: logs, what lwm-run notes for itself,
# and in metrics.jsonl what a clock or the size of the process says. SAME_DIR=DIR (empty) keeps the
# two trees and their runs. The last line is "N files: the same" or "N files differ of M".
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
commit=${1:?which commit} steps=${2:-20}
work=${SAME_DIR:-$(mktemp -d)} || exit 70
[ -n "${SAME_DIR:-}" ] || trap 'rm -rf "$work"' EXIT

tree() { # FOLDER: built there; what git knows, or what lies here
	make -C "$1" --no-print-directory CUDA=0 build >"$1.log" 2>&1 || {
		tail -5 "$1.log"
		exit 70
	}
}

stages() { # FOLDER: two runs, of text and of clips, as far as their merged models
	local last
	for last in text_model vision_model; do
		(cd "$1" && LWM_STEPS=$steps bin/lwm-run pipelines/demo.yaml --until "$last" -q) || exit 70
	done
}

mkdir "$work/old" "$work/new"
git archive "$commit" | tar x -C "$work/old" || exit 66
git ls-files -z --cached --others --exclude-standard | tar c --null -T - --ignore-failed-read 2>/dev/null |
	tar x -C "$work/new" || exit 70
for t in old new; do
	tree "$work/$t"
	stages "$work/$t"
done
for t in old new; do
	(cd "$work/old/runs/demo" && "$work/$t/bin/lwm-report" -q -o "$work/$t/runs/demo/report.html" --stage text=train/text_64 \
		--stage frames=train/vqgan --stage vision=train/vision --timing timing.jsonl --picture "image=data/images/image-00000.png" \
		--picture "clip=data/clips/clip-00000.mp4") || exit 70
done

# numbers that a clock, or the size of a process, gives; the peak rate is measured, and named, when a run has lasted some seconds
timeless() {
	sed -E 's/,"(peak_tflops|peak_source|mfu)":("[a-z]*"|[-+0-9.e]+)//g; s/"(seconds|began|ended|time|tokens_per_second|peak_rss|rate)":[-+0-9.e"A-Z:]+/"\1":0/g; /"event":"peak"/d' "$1"
}

differ=0 count=0
while IFS= read -r f; do
	count=$((count + 1))
	a=$work/old/runs/demo/$f b=$work/new/runs/demo/$f
	case $f in
	*metrics.jsonl | *history.jsonl) cmp -s <(timeless "$a") <(timeless "$b") && continue ;;
	*) cmp -s "$a" "$b" && continue ;;
	esac
	echo "differs: $f"
	differ=$((differ + 1))
done < <(for t in old new; do
	(cd "$work/$t/runs/demo" && find . -type f -not -path './logs/*' -not -path './.lwm-run/*' -not -name timing.jsonl -printf '%P\n')
done | sort -u)
[ "$count" -gt 50 ] || exit 70
if [ "$differ" = 0 ]; then
	echo "$count files: the same"
else
	echo "$differ files differ of $count"
	exit 1
fi
