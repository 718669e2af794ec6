# lwm-sample: answers end, are reproducible, and stay within what the model knows.
load ../lib

setup_file() {
	export SCRATCH=$BATS_FILE_TMPDIR
	cd "$SCRATCH"
	for ((i = 0; i < 200; i++)); do
		echo "{\"text\":\"the cat $((i % 10)) sat on the mat.\"}"
	done >t.jsonl
	lwm-tokenize -q --tokenizer bytes -o t.docs.h5 t.jsonl
	lwm-pack -q --seq-length 64 -o t.rows.h5 --source a=1=t.docs.h5
	lwm-train-stage -q -o run --data t.rows.h5 --tokenizer bytes --device cpu --seq-length 64 --tokens-per-batch 1K \
		--dim 32 --ffn 64 --heads 2 --layers 1 --threads 1 --steps 60 --lr 1e-2 --warmup-steps 5
}

sample() { lwm-sample -q -m "$SCRATCH/run" --tokenizer bytes --device cpu "$@"; }

setup() { cd "$BATS_TEST_TMPDIR"; }

@test "text goes on as it was learnt, until it ends" {
	ok sample -p 'the cat 4' --temperature 0
	[ "$output" = ' sat on the mat.' ]
	printf 'the cat 4' >p.txt
	ok sample --prompt-file p.txt --temperature 0 --max-tokens 4
	[ "$output" = ' sat' ]
}

@test "the same seed gives the same samples, another one others" {
	ok sample -p the --samples 4 --temperature 1.5 --seed 7
	one=$output
	ok sample -p the --samples 4 --temperature 1.5 --seed 7
	[ "$output" = "$one" ]
	ok sample -p the --samples 4 --temperature 1.5 --seed 8
	[ "$output" != "$one" ]
}

@test "json: one object a sample" {
	ok sample -p 'the cat 4' --temperature 0 --samples 2 --json
	[ "${#lines[@]}" = 2 ]
	has '"prompt":"the cat 4","text":" sat on the mat."'
	has '"sample":1'
}

@test "chat: a line is a turn" {
	printf 'cat\nmat\n' >turns
	ok bash -c "lwm-sample -q -m '$SCRATCH/run' --tokenizer bytes --device cpu --mode chat --context 300 --max-tokens 5 <turns"
	code 78 bash -c "lwm-sample -q -m '$SCRATCH/run' --tokenizer bytes --device cpu --mode chat --context 20 <turns"
	err_has 'fills the context of 20 tokens'
}

@test "an answer stops where the context does, a prompt must fit" {
	ok sample -p 'the cat' --context 12 --temperature 0 --json
	has '"tokens":5'
	code 78 sample -p 'the cat' --context 5
	err_has '--context is 5'
	ok sample --plan --context 100
	has '"context":100'
}

@test "a context beyond the model's length warns, once" {
	ok sample -p 'the cat' --context 90 --max-tokens 70 --temperature 0
	err_has '--context: 78 tokens in one context'
	err_has 'was made for 64'
	[ "$(grep -c 'made for' <<<"$stderr")" = 1 ]
	ok sample -p 'the cat' --context 90 --max-tokens 5 --temperature 0
	[ -z "$stderr" ]
	for ((i = 0; i < 12; i++)); do echo "cat $i"; done >turns
	ok bash -c "lwm-sample -q -m '$SCRATCH/run' --tokenizer bytes --device cpu --mode chat --context 900 --max-tokens 5 <turns"
	[ "$(grep -c 'made for 64' <<<"$stderr")" = 1 ]
}

@test "what does not fit together is refused" {
	code 64 sample -p x --prompt-file y
	code 64 sample -p x -o a.png
	err_has 'text goes to standard output'
	code 64 sample --mode image -p x
	err_has '--output'
	code 64 sample --mode image -p x -o a.png
	err_has '--vqgan'
	code 64 sample --mode ask -p x
	err_has '--input'
	code 66 lwm-sample -q -m nowhere -p x
	err_has 'nowhere: is not there'
	mkdir void
	code 66 lwm-sample -q -m void -p x
	err_has 'void: no checkpoint in it'
	code 64 sample -p x --temperature -1
}

@test "pictures, clips, and a question about one" {
	lwm-synth -q clips -o clips --count 1 --size 32 --frames 4
	lwm-train-stage -q --threads 1 -o vq --objective reconstruction --data clips --model tiny --resolution 32 --steps 1 \
		--batch-frames 2 --device cpu
	lwm-train-stage -q --threads 1 -o run --data "$SCRATCH/t.rows.h5" --tokenizer bytes --device cpu --seq-length 64 \
		--tokens-per-batch 1K --dim 32 --ffn 64 --heads 2 --layers 1 --steps 1 --vision-codes 8192
	draw() { lwm-sample -q -m run --vqgan vq --tokenizer bytes --device cpu --threads 1 --context 900 "$@"; }
	ok draw --mode image -p 'a ball' --guidance-image 3 -o a.png
	ok draw --mode image -p 'a ball' --guidance-image 3 -o b.png
	same a.png b.png
	code 73 draw --mode image -p 'a ball' -o a.png
	ok draw --mode video -p 'a ball' --frames 3 -o a.mp4 --json
	has '{"sample":0,"output":"a.mp4","frames":3}'
	ok draw --mode ask -i a.mp4 -p 'What is it?' --max-tokens 4
	ok draw --mode ask -i a.png -p 'What is it?' --max-tokens 4 --raw
	{ printf 'P6\n64 64\n255\n' && head -c 12288 /dev/zero; } >big.ppm
	code 65 draw --mode ask -i big.ppm -p 'What is it?' --max-pixels 4095
	err_has 'big.ppm: 64 x 64 pixels are more than the limit of 4095 (--max-pixels raises it)'
	ok draw --mode ask -i big.ppm -p 'What is it?' --max-pixels 4096 --max-tokens 4
	ok draw --mode image -p 'a ball' --size 64x32 -o wide.png
	[ "$(od -An -tu1 -j16 -N8 wide.png | tr -s ' ')" = ' 0 0 0 64 0 0 0 32' ]
	ok draw --mode ask -i wide.png -p 'What is it?' --max-tokens 4 --size 64x32
	code 64 draw --mode image -p 'a ball' --size 64x30 -o no.png
	err_has '--size 64x30: this VQGAN takes multiples of'
	code 64 draw --mode image -p 'a ball' --size 64x -o no.png
	gone no.png
	code 78 draw --mode video -p 'a ball' --frames 100 -o c.mp4
	err_has 'tokens are needed'
	gone c.mp4
	code 78 sample --mode image --vqgan vq -p x -o x.png
	err_has 'text alone'
}
