# lwm-train-stage --dtype fp16: losses as in fp32, a scale of the loss that finds its size, the same bits when resumed and on ranks.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 400 >a.txt
	lwm-tokenize -q -t bytes --split-lines 10 -o a.docs.h5 a.txt
	lwm-pack -q -n 64 -o a.h5 a.docs.h5
}

setup() {
	cd "$BATS_FILE_TMPDIR" || return 1
	out=$BATS_TEST_TMPDIR
	tiny=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --seq-length 64 --tokens-per-batch 512 --warmup-steps 2
		--lr 3e-3 --log-every 1000 --data a.h5)
}

train() { lwm-train-stage -q "${tiny[@]}" "$@"; }
losses() { sed -nE 's/.*"event":"step","step":([0-9]+),.*"loss_hex":"([^"]*)".*/\1 \2/p' "$1/metrics.jsonl"; }
plain() { sed -nE 's/.*"event":"step","step":[0-9]+,"loss":([0-9.]+),.*/\1/p' "$1/metrics.jsonl"; }
# the scale of each step, with a ! where there was no update for it
scales() {
	sed -nE 's/.*"event":"step",.*"loss_scale":([0-9]+),"overflow":true.*/\1!/p; t; s/.*"event":"step",.*"loss_scale":([0-9]+),.*/\1/p' \
		"$1/metrics.jsonl" | tr '\n' ' '
}

@test "losses follow those of fp32, and are not those of fp32" {
	ok train -o "$out/wide" --steps 24
	ok train -o "$out/half" --steps 24 --dtype fp16 --loss-scale-first 1024 --tensorboard
	paste <(plain "$out/wide") <(plain "$out/half") >"$out/both"
	awk '{ d = $1 - $2; d = d < 0 ? -d : d; worst = d > worst ? d : worst; moved = first - $1; if (NR == 1) first = $1 }
		END { print NR, worst, moved; exit !(NR == 24 && worst > 1e-7 && worst < 0.01 && moved > 0.5) }' "$out/both"
	[ "$(scales "$out/half")" = "$(printf '1024 %.0s' {1..24})" ]
	[ -z "$(scales "$out/wide")" ]
	grep -aq train/loss_scale "$out"/half/tensorboard/events*
	# a checkpoint is one of fp32 weights like any other
	ok lwm-merge-ckpt -q -o "$out/model" "$out/half"
	ok train -o "$out/next" --start-from model:"$out/model" --steps 1
}

@test "too large a scale comes down without an update, and goes up again; resumed anywhere, it is the run that was not stopped" {
	ok train -o "$out/whole" --steps 40 --dtype fp16 --loss-scale-first 1073741824 --loss-scale-interval 8
	said=$(scales "$out/whole")
	echo "$said"
	[[ "$said" =~ ^1073741824!\ 536870912!\ 268435456!\  ]]
	n=$(grep -c '"overflow":true' "$out/whole/metrics.jsonl")
	[ "$(jq .overflows "$out/whole/summary.json")" = "$n" ]
	[ "$(jq .skipped "$out/whole/summary.json")" = 0 ]
	[ "$(grep -c '"skipped":true' "$out/whole/metrics.jsonl")" = 0 ]
	# each step has half of the scale of one that overflowed before it, and after 8 updates twice
	awk '{ for (i = 1; i <= NF; i++) { v = $i + 0; if (i > 1 && v != want) { print i, v, want; exit 1 }
		if ($i ~ /!/) { want = v / 2; good = 0 } else { want = ++good == 8 ? 2 * v : v; if (good == 8) good = 0; up += want > v } } exit !up }' <<<"$said"
	run lwm-status "$out/whole"
	has "$n without an update"
	for k in 3 $((n + 2)) 25; do
		ok train -o "$out/parts$k" --dtype fp16 --loss-scale-first 1073741824 --loss-scale-interval 8 --steps $k
		ok train -o "$out/parts$k" --steps 40 --dtype fp16 --loss-scale-first 1073741824 --loss-scale-interval 8
		[ "$(losses "$out/parts$k")" = "$(losses "$out/whole")" ]
		[ "$(scales "$out/parts$k")" = "$said" ]
	done
	# the scale is computed with: another first one is another run
	code 78 train -o "$out/parts3" --steps 41 --dtype fp16 --loss-scale-first 1024 --loss-scale-interval 8
	err_has loss-scale-first
	code 78 train -o "$out/parts3" --steps 41
	err_has dtype
}

@test "the same on several ranks, to the bit; and with other cuts" {
	need_mpi
	half=(--steps 16 --dtype fp16 --loss-scale-first 134217728 --loss-scale-interval 2)
	ok train -o "$out/one" "${half[@]}" --sum-order canonical
	scales "$out/one"
	scales "$out/one" | grep -q '! .*[0-9] [0-9]* .*!' # comes down, goes up, comes down
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o "$out/two" "${half[@]}" --sum-order canonical --mesh-dim 1,2,1,1
	[ "$(losses "$out/two")" = "$(losses "$out/one")" ]
	[ "$(scales "$out/two")" = "$(scales "$out/one")" ]
	for mesh in 2,1,1,1 1,1,1,2; do
		ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o "$out/$mesh" "${half[@]}" --mesh-dim $mesh
		scales "$out/$mesh" | grep -q '! .*[0-9] [0-9]* '
		paste <(plain "$out/$mesh") <(plain "$out/one") | awk '{ d = $1 - $2; if (d > 0.02 || d < -0.02) bad = 1 } END { exit bad || NR != 16 }'
	done
}

@test "a fixed scale stays, and changes no more than what is too small" {
	ok train -o "$out/a" --steps 8 --dtype fp16 --loss-scale 4096
	ok train -o "$out/b" --steps 8 --dtype fp16 --loss-scale 1024
	[ "$(scales "$out/a")" = "$(printf '4096 %.0s' {1..8})" ]
	paste <(plain "$out/a") <(plain "$out/b") | awk '{ d = $1 - $2; if (d > 1e-3 || d < -1e-3) bad = 1 } END { exit bad || NR != 8 }'
	# one too large for good is a bad step each time
	code 79 train -o "$out/c" --steps 40 --dtype fp16 --loss-scale 1099511627776
	grep -q '"skipped":true' "$out/c/metrics.jsonl"
}

@test "objectives over clips: losses follow those of fp32, and too large a scale comes down" {
	lwm-synth clips -q -n 24 --size 16 --frames 4 -o "$out/moving"
	clips=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 1 --heads 4 --init-std 0.05 --warmup-steps 2 --log-every 1000 --data "$out/moving"
		--frame-size 16 --patch-size 4 --clip-frames 4 --batch-clips 8 --steps 8 --lr 2e-3 --holdout 0)
	for how in "masked --patch-frames 2" "next-frame --patch-frames 1" "contrastive --patch-frames 2 --head-out 16" \
		"diffusion --patch-frames 1"; do
		o=${how%% *}
		ok lwm-train-stage -q "${clips[@]}" --objective $how -o "$out/$o-wide"
		ok lwm-train-stage -q "${clips[@]}" --objective $how -o "$out/$o-half" --dtype fp16 --loss-scale-first 256
		ok lwm-train-stage -q "${clips[@]}" --objective $how -o "$out/$o-much" --dtype fp16 --loss-scale-first 1099511627776
		paste <(plain "$out/$o-wide") <(plain "$out/$o-half") >"$out/both"
		awk -v o=$o '{ d = ($1 - $2) / $1; d = d < 0 ? -d : d; worst = d > worst ? d : worst }
			END { print o, NR, worst; exit !(NR == 8 && worst > 1e-7 && worst < 0.01) }' "$out/both"
		[ "$(scales "$out/$o-half")" = "$(printf '256 %.0s' {1..8})" ]
		[[ "$(scales "$out/$o-much")" == '1099511627776! 549755813888! '* ]]
	done
}

@test "what fp16 cannot do is refused by name" {
	code 78 train -o "$out/x" --steps 2 --dtype bf16
	err_has '--dtype bf16: the device cpu'
	code 78 train -o "$out/x" --steps 2 --dtype fp16 --device ref
	err_has 'computes in fp32'
	code 78 train -o "$out/x" --steps 2 --dtype fp16 --plan-memory 80 --plan
	err_has 'not for a GPU'
	code 78 train -o "$out/x" --steps 2 --loss-scale 1024
	err_has 'is for --dtype fp16'
	code 78 train -o "$out/x" --steps 2 --dtype fp16 --loss-scale 1000
	err_has 'power of two'
	code 64 train -o "$out/x" --steps 2 --dtype fp16 --loss-scale much
	err_has 'loss-scale'
	code 64 train -o "$out/x" --steps 2 --dtype fp16 --loss-scale 0
	code 78 lwm-train-stage -q --objective reconstruction --data . -o "$out/x" --steps 2 --dtype fp16
	err_has 'cannot scale its loss'
	[ ! -e "$out/x/metrics.jsonl" ]
}
