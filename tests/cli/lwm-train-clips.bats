# lwm-train-stage over clips of patches: that it learns, what it refuses, ranks, models made of it.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	lwm-synth clips -q -n 400 --size 32 --frames 2 -o clips
	lwm-synth clips -q -n 32 --first 5000 --size 32 --frames 2 -o held
	lwm-synth clips -q -n 800 --size 16 --frames 6 -o moving
	lwm-synth clips -q -n 24 --first 5000 --size 16 --frames 6 -o moved
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	clips=$BATS_FILE_TMPDIR/clips held=$BATS_FILE_TMPDIR/held
	small=(--threads 2 --device cpu --dim 64 --ffn 128 --layers 2 --heads 4 --init-std 0.05 --warmup-steps 5 --log-every 1000)
	still=("${small[@]}" --data "$clips" --eval-data "$held" --frame-size 32 --clip-frames 2 --patch-size 8
		--lr 4e-3)
	moving=("${small[@]}" --data "$BATS_FILE_TMPDIR/moving" --eval-data "$BATS_FILE_TMPDIR/moved" --frame-size 16 --patch-size 4
		--lr 5e-3 --clip-frames 6 --patch-frames 1 --batch-clips 16)
	views=(--objective contrastive --batch-clips 64 --head-out 32 --min-crop 0.6 --jitter 0.1 --grey 0 --flip 0)
}

contrast() { lwm-train-stage -q "${still[@]}" "${views[@]}" "$@"; }

mask() { lwm-train-stage -q "${still[@]}" --objective masked --batch-clips 16 "$@"; }

forecast() { lwm-train-stage -q "${moving[@]}" --objective next-frame "$@"; }

# last EVENT KEY DIR: of the last line of that event
last() { sed -nE 's/.*"event":"'"$1"'",.*"'"$2"'":([0-9.e+-]+|true|false)[,}].*/\1/p' "$3/metrics.jsonl" | tail -n 1; }
losses() { sed -nE 's/.*"event":"step","step":([0-9]+),.*"loss_hex":"([^"]*)".*/\1 \2/p' "$1/metrics.jsonl"; }
atleast() { awk -v a="$1" -v b="$2" 'BEGIN { if (a == "" || a < b) print a " is below " b; exit !(a != "" && a >= b) }'; }

@test "contrastive learns to tell clips apart that it has never seen" {
	ok contrast -o out --steps 1
	local before after
	before=$(last eval loss out)
	ok contrast -o out --steps 140
	after=$(last eval loss out)
	echo "loss $before, then $after; found $(last eval found out)"
	[ "$(last eval held_out out)" = true ]
	[ "$(last eval pairs out)" = 32 ]
	[ "$(last eval negatives out)" = 31 ]
	atleast "$before" 1.5 # ln 32 is 3.47
	atleast 1.0 "$after"
	atleast "$(last eval found out)" 0.6
	[[ $(cat out/summary.json) == '{"step":140,"seen":8960,"unit":"clip",'*'}' ]]
}

@test "with a momentum encoder and a queue it learns the same; models are made without them" {
	ok contrast -o out --steps 140 --momentum 0.9 --queue 256
	echo "loss $(last eval loss out); found $(last eval found out)"
	[ "$(last eval negatives out)" = 256 ]
	atleast 4 "$(last eval loss out)" # ln 257 is 5.55
	atleast "$(last eval found out)" 0.4
	ok lwm-merge-ckpt -q --dtype fp32 --verify -o model out
	grep -q contrast.down_proj.weight model/model.safetensors
	! grep -q momentum model/model.safetensors || return 1
	ok mask -o masked --steps 1 --start-from trunk-checkpoint:out
	ok contrast -o plain --steps 1 --start-from checkpoint:out
	ok contrast -o again --steps 1 --momentum 0.9 --start-from checkpoint:out
	code 78 contrast -o out --steps 150 --momentum 0.99 --queue 256
	err_has momentum
	code 78 contrast -o out --steps 150
	err_has momentum
}

@test "masked learns to fill in what is hidden of clips that it has never seen" {
	ok mask -o out --steps 1 --mask-targets plain
	local before after
	before=$(last eval psnr out)
	ok mask -o out --steps 150 --mask-targets plain
	after=$(last eval psnr out)
	echo "psnr $before, then $after"
	[ "$(last eval held_out out)" = true ]
	[ "$(last eval hidden out)" = 384 ] # 32 clips of 16 patches, 4 of them seen
	atleast "$after" 15
	atleast 10 "$before"
	ok mask -o normalised --steps 2
	[ -z "$(last eval psnr normalised)" ]
	ok mask -o nine --steps 1 --mask-ratio 0.9
	[ "$(last eval hidden nine)" = 448 ]
}

@test "next-frame learns what moves, and rolls clips forward that it has never seen" {
	ok forecast -o out --steps 500 --schedule cosine
	local nothing after
	nothing=$(last eval psnr_still out) after=$(last eval psnr out)
	echo "psnr $after, of a still picture $nothing; rolled forward $(last eval psnr_1 out) $(last eval psnr_3 out)"
	[ "$(last eval held_out out)" = true ]
	[ "$(last eval predicted out)" = 1920 ] # 24 clips, 5 frames, 16 patches
	atleast "$after" "$(awk -v s="$nothing" 'BEGIN { print s + 1 }')"
	atleast "$(last eval psnr_1 out)" "$(last eval psnr_3 out)"
	atleast "$(last eval ssim_1 out)" 0.5
	[ -z "$(last eval psnr_4 out)" ]
	ok forecast -o known --steps 1 --known-frames 5
	[ -n "$(last eval psnr_1 known)" ]
	[ -z "$(last eval psnr_2 known)" ]
	code 78 forecast -o out --check-options --known-frames 6
	err_has '--known-frames 6'
	code 78 lwm-train-stage -q -o out "${small[@]}" --data x --objective next-frame --clip-frames 2 --check-options
	err_has 'two times are needed'
}

@test "on ranks the negatives are those of all of them" {
	need_mpi
	ok contrast -o one --steps 4
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${still[@]}" "${views[@]}" --threads 1 --mesh-dim 2,1,1,1 -o two --steps 4
	[ "$(last step negatives two)" = 63 ]
	paste <(sed -nE 's/.*"event":"step".*"loss":([0-9.e+-]+),.*/\1/p' one/metrics.jsonl) \
		<(sed -nE 's/.*"event":"step".*"loss":([0-9.e+-]+),.*/\1/p' two/metrics.jsonl) |
		awk '{ d = $1 - $2; if (d > 1e-3 * $1 || d < -1e-3 * $1) { print; bad = 1 } } END { exit bad || NR != 4 }'
}

@test "what clips cannot do is 78, by name" {
	local o
	for o in contrastive masked; do
		local all=(lwm-train-stage -q -o out "${still[@]}" --objective "$o")
		local check=("${all[@]}" --check-options)
		code 78 "${check[@]}" --plan-ranks 2 --mesh-dim 1,1,2,1
		err_has "'1,1,2,1': clips train on data ranks only"
		code 78 "${check[@]}" --plan-ranks 2 --mesh-dim 1,1,1,2
		err_has "'1,1,1,2': clips train on data ranks only"
		ok "${check[@]}" --plan-ranks 2 --mesh-dim 1,2,1,1
		code 78 "${check[@]}" --plan-ranks 3 --mesh-dim 3,1,1,1
		err_has '--batch-clips 32'
		code 78 "${check[@]}" --sum-order canonical
		err_has 'cannot sum by rows'
		ok "${check[@]}" --plan-ranks 2 --mesh-dim 1,2,1,1 --shard-weights true
		code 78 "${check[@]/#32/30}"
		err_has '--patch-size 8'
		code 78 "${check[@]}" --clip-frames 3
		err_has '--patch-frames 2'
		code 78 "${all[@]}" --steps 1 --clip-frames 4
		err_has 'clip-00000.mp4: has 2 frames, a clip is 4'
		code 78 "${all[@]}" --steps 1 --batch-clips 512
		err_has 'there are 400 clips'
		code 66 "${all[@]/$clips/nowhere}" --steps 1
	done
	code 78 lwm-train-stage -q -o out "${still[@]}" --objective contrastive --batch-clips 1 --check-options
	err_has 'nothing to be told from'
	code 78 contrast -o out --check-options --queue 64
	err_has '--momentum is 0'
	code 78 contrast -o out --check-options --momentum 0.9 --queue 96
	err_has '--queue 96 is not a multiple of --batch-clips 64'
	code 78 contrast -o out --check-options --momentum 0.9 --plan-ranks 2 --mesh-dim 1,2,1,1 --shard-weights true
	err_has '--momentum 0.9: its copy of the weights is whole'
	ok contrast -o out --check-options --momentum 0.9 --plan-ranks 2 --mesh-dim 1,2,1,1
	code 78 contrast -o out --check-options --momentum 0.9 --lora '*q_proj*'
	err_has 'not adapters (--lora)'
	code 64 contrast -o out --momentum 1
	code 64 contrast -o out --temperature 0
	code 64 mask -o out --mask-ratio 1
	code 78 lwm-train-stage -q -o out "${small[@]}" --data x --objective masked --frame-size 32 --patch-size 32 --check-options
	err_has 'one patch a frame'
	code 78 mask -o out --decoder-dim 30 --decoder-heads 4 --check-options
	err_has 'decoder of width 30'
}

@test "in parts it is the same stage; stopped and resumed the same bits" {
	ok contrast -o whole --steps 4
	code 75 contrast -o parts --steps 4 --stop-after 2
	ok contrast -o parts --steps 4
	diff <(losses whole) <(losses parts)
	ok contrast -o passes --steps 4 --clips-per-pass 5
	ok contrast -o lean --steps 4 --no-recompute
	diff <(losses whole) <(losses lean)
	code 78 contrast -o parts --steps 8 --temperature 0.1
	err_has 'temperature'
	ok mask -o mwhole --steps 4
	code 75 mask -o mparts --steps 4 --stop-after 2
	ok mask -o mparts --steps 4
	diff <(losses mwhole) <(losses mparts)
}

@test "a model folder of it, and a language model that starts from its layers" {
	words 400 >words.txt
	lwm-tokenize -q -t bytes --split-lines 20 -o docs.h5 words.txt
	lwm-pack -q -n 64 -o rows.h5 docs.h5
	ok contrast -o clips.run --steps 2
	ok lwm-merge-ckpt -q --dtype fp32 --verify -o model clips.run
	ok lwm-inspect model
	has 'LwmTrunk'
	grep -q contrast.down_proj.weight model/model.safetensors
	code 78 lwm-sample -q -m model --device cpu --prompt x
	err_has 'no language model'
	text() { lwm-train-stage -q --threads 1 --device cpu --dim 64 --ffn 128 --layers 2 --heads 4 --data rows.h5 --seq-length 64 \
		--tokens-per-batch 256 --steps 1 "$@"; }
	code 78 text -o text --start-from model:model
	err_has 'takes vectors, this stage tokens'
	err_has 'trunk-model:model'
	ok text -o text --start-from trunk-model:model
	ok text -o text2 --start-from trunk-checkpoint:clips.run
	diff <(losses text) <(losses text2)
	ok text -o fresh
	[ "$(losses text)" != "$(losses fresh)" ]
	ok text -o planned --start-from trunk-model:model --plan
	# from layers that learned in any other way, too
	local way
	for way in masked next-frame diffusion; do
		ok lwm-train-stage -q "${moving[@]}" --objective "$way" -o "by_$way" --steps 2
		ok text -o "from_$way" --start-from "trunk-checkpoint:by_$way"
		[ "$(losses "from_$way")" != "$(losses fresh)" ]
	done
	# and back: clips from what was learned on text
	ok contrast -o again --steps 1 --start-from trunk-checkpoint:text
	ok contrast -o new --steps 1
	[ "$(losses again)" != "$(losses new)" ]
	# and from clips to clips: how patches enter the layers, too
	ok mask -o masked --steps 1 --start-from trunk-model:model
	code 78 mask -o masked2 --steps 1 --start-from model:model
	err_has 'contrast.'
}

@test "pipelines/clips.yaml, from clips to a language model" {
	lwm-synth books -q -n 2 --sentences 60 -o books
	rm books/questions.jsonl
	lwm-synth clips -q -n 40 --size 16 --frames 4 -o videos
	local set=(--set videos=videos --set books=books --set out=run --set frame_size=16 --set patch_size=8 --set batch=8 --set fps=0
		--set steps=2 --set text_steps=2)
	ok lwm-run -q "$ROOT/pipelines/clips.yaml" "${set[@]}"
	local o
	for o in contrastive masked next_frame text; do [ -e run/train/$o/summary.json ]; done
	ok lwm-run --plan "$ROOT/pipelines/clips.yaml" "${set[@]}"
}
