# lwm-sample --mode world: clips that go on from frames of a file, in rounds, under actions.
load ../lib

setup_file() {
	export SCRATCH=$BATS_FILE_TMPDIR
	cd "$SCRATCH"
	echo '{"text":"the cat sat on the mat."}' >t.jsonl
	lwm-tokenize -q --tokenizer bytes -o t.docs.h5 t.jsonl
	lwm-pack -q --seq-length 64 -o t.rows.h5 --source a=1=t.docs.h5
	lwm-synth -q clips -o clips --count 3 --size 32 --frames 4
	lwm-train-stage -q --threads 1 -o vq --objective reconstruction --data clips --model tiny --resolution 32 --steps 1 \
		--batch-frames 2 --device cpu
	lwm-train-stage -q --threads 1 -o run --data t.rows.h5 --tokenizer bytes --device cpu --seq-length 64 \
		--tokens-per-batch 1K --dim 32 --ffn 64 --heads 2 --layers 1 --steps 1 --vision-codes 256
}

setup() {
	cd "$BATS_TEST_TMPDIR"
	clips=$SCRATCH/clips
}

world() {
	lwm-sample -q -m "$SCRATCH/run" --vqgan "$SCRATCH/vq" --tokenizer bytes --device cpu --threads 1 --mode world \
		--context 900 "$@"
}

@test "rounds and what they share make the length, which --plan counts" {
	ok world --plan -i "$clips/clip-00000.mp4" -a left --rounds 3 --frames 4 --overlap 2 -o a.mp4
	has '"clips":1,"rounds":3,"frames":8,'
	# <s>, <|world|> in 9 bytes, 4 frames of 16 codes and a mark, 3 times <|left|> in 8 bytes
	has '"context":102,'
	gone a.mp4
	ok world -i "$clips/clip-00000.mp4" -a left --rounds 3 --frames 4 --overlap 2 -o a.mp4 --json
	[ "$output" = '{"sample":0,"output":"a.mp4","frames":8}' ]
	ok world --plan -i "$clips" -a straight --rounds 2 --frames 25 --samples 2 -d out
	has '"clips":6,"rounds":2,"frames":47,'
	gone out
}

@test "the same seed gives the same clip, another seed or action another one; an image will do" {
	lwm-synth -q images -o images --count 1 --size 32
	for f in 'a left 1' 'b left 1' 'c right 1' 'd left 2'; do
		read -r name action seed <<<"$f"
		ok world -i images/image-00000.png -a "$action" --seed "$seed" --frames 3 --overlap 1 --guidance-video 2 -o "$name.png"
	done
	same a.png b.png
	run ! cmp -s a.png c.png
	run ! cmp -s a.png d.png
	ok world -i images/image-00000.png -a left --seed 1 --frames 3 --overlap 1 --guidance-video 2 --zoom 2 -o e.png
	ok world -i images/image-00000.png --frames 3 --overlap 1 --samples 2 -o f.png
	ok world -i images/image-00000.png --frames 3 --overlap 1 --size 64x32 -o wide.png # pixels of a strip stand in the file's head
	[ "$(od -An -tu1 -j16 -N8 wide.png | tr -s ' ')" = ' 0 0 0 200 0 0 0 36' ]
	[ -e f-0.png ] && [ -e f-1.png ]
}

@test "one action, one a round, one a step" {
	ok world -i "$clips/clip-00001.mp4" -a left --rounds 2 --frames 3 --overlap 1 -o one.png
	ok world -i "$clips/clip-00001.mp4" -a left -a left --rounds 2 --frames 3 --overlap 1 -o round.png
	ok world -i "$clips/clip-00001.mp4" -a left -a left -a left -a left --rounds 2 --frames 3 --overlap 1 -o step.png
	same one.png round.png
	same one.png step.png
	ok world -i "$clips/clip-00001.mp4" -a left -a right --rounds 2 --frames 3 --overlap 1 -o other.png
	ok world -i "$clips/clip-00001.mp4" -a left -a left -a right -a right --rounds 2 --frames 3 --overlap 1 -o steps.png
	same other.png steps.png
	run ! cmp -s one.png other.png
}

@test "a folder of clips: what an earlier run drew stays, other settings are refused" {
	ok world -i "$clips" -a right --frames 2 --overlap 1 -d out --json
	[ "${#lines[@]}" = 3 ]
	has '{"sample":2,"output":"out/clip-00002.mp4","frames":2}'
	cp -r out first
	rm out/clip-00001.mp4
	ok world -i "$clips" -a right --frames 2 --overlap 1 -d out --json
	[ "$output" = '{"sample":1,"output":"out/clip-00001.mp4","frames":2}' ]
	for i in 0 1 2; do same "out/clip-0000$i.mp4" "first/clip-0000$i.mp4"; done
	code 73 world -i "$clips" -a left --frames 2 --overlap 1 -d out
	err_has 'out: holds clips that were drawn with other settings or from other inputs'
	code 73 world -i "$clips" -a right --frames 2 --overlap 1 --temperature-video 0.5 -d out
	code 73 world -i "$clips/clip-00000.mp4" -a right --frames 2 --overlap 1 -d out
	same out/clip-00000.mp4 first/clip-00000.mp4
	ok world -i "$clips" -a left --frames 2 --overlap 1 -d out --force --json
	[ "${#lines[@]}" = 3 ]
	ok world -i "$clips" -a left --frames 2 --overlap 1 -d out --json
	[ -z "$output" ]
}

@test "asked to stop, it ends between two clips with 75, and the next run draws the rest" {
	code 75 env LWM_TIME_LIMIT=0.001s lwm-sample -q -m "$SCRATCH/run" --vqgan "$SCRATCH/vq" --tokenizer bytes --device cpu --threads 1 \
		--mode world --context 900 -i "$clips" -a left --frames 2 --overlap 1 -d out
	err_has '0 of 3 clips, which are kept: run me again'
	ok world -i "$clips" -a left --frames 2 --overlap 1 -d out --json
	[ "${#lines[@]}" = 3 ]
}

@test "what does not fit together is refused" {
	code 64 world -i "$clips" -a left -o a.mp4
	err_has '3 inputs and one --output: --out-dir takes several'
	code 64 world -i "$clips/clip-00000.mp4" -a left
	err_has 'needs --output or --out-dir'
	code 64 world -i "$clips/clip-00000.mp4" -a left -o a.mp4 -d out
	code 64 world -i "$clips/clip-00000.mp4" -a left -o a
	err_has '--output with a suffix'
	code 64 world -a left -o a.mp4
	err_has '--mode world needs --input'
	code 64 world -i "$clips/clip-00000.mp4" -a up -o a.mp4
	err_has "'up' is none of left, right, straight, stop"
	code 64 world -i "$clips/clip-00000.mp4" -a left -a right -a left --rounds 2 --frames 5 --overlap 1 -o a.mp4
	err_has '3 actions: a clip takes one, one for each round (2), or one for each step to a frame (8)'
	code 64 world -i "$clips/clip-00000.mp4" -a left --frames 3 --overlap 3 -o a.mp4
	err_has 'rounds of 3 frames, 3 of them shared'
	code 64 world -i "$clips/clip-00000.mp4" -a left --frames 3 --overlap 1 --given 2 -o a.mp4
	err_has '2 frames to begin with'
	code 64 world -i "$clips/clip-00000.mp4" -p 'a red ball' -a left -o a.mp4
	err_has 'takes no prompt'
	code 64 lwm-sample -q -m "$SCRATCH/run" --vqgan "$SCRATCH/vq" --mode video -p x -a left -o a.mp4
	err_has '--action is for --mode world'
	code 78 world -i "$clips/clip-00000.mp4" -a left --frames 60 -o a.mp4
	err_has 'tokens are needed'
	code 66 world -i nowhere.mp4 -a left -o a.mp4
	cp "$clips/clip-00000.mp4" .
	code 64 world -i "$clips/clip-00000.mp4" -i clip-00000.mp4 -a left --frames 2 --overlap 1 -d out
	err_has 'out/clip-00000.mp4: would be drawn from'
	code 73 world -i clip-00000.mp4 -a left --frames 2 --overlap 1 -o clip-00000.mp4
	err_has 'exists'
	gone out a.mp4
}

@test "--reward: 1 where all drawings are the same, less where they differ, more variance less reward" {
	ok world -i "$clips" -a left --frames 3 --overlap 1 --samples 3 --temperature-video 0 --reward
	[ "${#lines[@]}" = 3 ]
	[[ "${lines[0]}" == *'/clip-00000.mp4","reward":1.0,"samples":3,"variance":0.0}' ]]
	ok world -i "$clips/clip-00000.mp4" -a left --frames 3 --overlap 1 --samples 3 --temperature-video 3 --reward
	v=$(sed 's/.*"variance"://; s/}//' <<<"$output")
	r=$(sed 's/.*"reward":\([^,]*\),.*/\1/' <<<"$output")
	awk -v v="$v" -v r="$r" 'BEGIN { exit !(v > 0 && (r - exp(-v)) ^ 2 < 1e-10) }'
	# of two drawings of two frames each: the squares of half their differences, seen in the strips, in which all else is the same
	ok world -i "$clips/clip-00000.mp4" -a left --frames 3 --overlap 1 --samples 2 --temperature-video 3 --reward
	v=$(sed 's/.*"variance"://; s/}//' <<<"$output")
	ok world -i "$clips/clip-00000.mp4" -a left --frames 3 --overlap 1 --samples 2 --temperature-video 3 -o two.ppm
	paste <(od -An -v -tu1 -w1 two-0.ppm) <(od -An -v -tu1 -w1 two-1.ppm) | awk -v v="$v" '{ s += ($1 - $2) ^ 2 }
		END { w = s / 2 / 127.5 ^ 2 / (2 * 32 * 32 * 3); print v, w; exit !(w > 0 && (v / w - 1) ^ 2 < 1e-10) }'
	code 64 world -i "$clips/clip-00000.mp4" -a left --reward
	err_has 'two --samples or more'
	code 64 world -i "$clips/clip-00000.mp4" -a left --samples 2 --reward -o a.mp4
	gone a.mp4
}
