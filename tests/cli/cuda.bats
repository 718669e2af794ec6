# The tools on a device whose memory is not host memory and that computes in bf16: the cuda backend on the emulated GPU.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 600 >words.txt
	lwm-tokenize -q -t bytes --split-lines 20 -o docs.h5 words.txt
	lwm-pack -q -n 64 -o rows.h5 docs.h5
	lwm-train-stage -q --device cpu --threads 1 --dim 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --data rows.h5 \
		--seq-length 64 --tokens-per-batch 256 --warmup-steps 2 --lr 3e-3 --tokenizer bytes --steps 8 -o text
	lwm-merge-ckpt -q text -o model
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	here=$BATS_FILE_TMPDIR
	[ -z "${SAN:-}" ] || skip 'threads of the emulated GPU have stacks of their own, which sanitizers do not know'
	export LWM_CUDA_LIB=${LWM_EMU_LIB:-$ROOT/build/rel/emu/liblwm_cuda.so}
	[ -e "$LWM_CUDA_LIB" ] || skip 'the emulated GPU was not built (make emu)'
	tiny=(--device cuda --dim 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --data "$here/rows.h5" --seq-length 64
		--tokens-per-batch 256 --warmup-steps 2 --lr 3e-3 --tokenizer bytes --log-every 1000)
}

train() { lwm-train-stage -q "${tiny[@]}" "$@"; }
losses() { sed -nE 's/.*"event":"step","step":([0-9]+),.*"loss_hex":"([^"]*)".*/\1 \2/p' "$1/metrics.jsonl"; }

# near A B N TOLERANCE: the first N losses of two runs, relative
near() {
	paste <(sed -nE 's/.*"event":"step".*"loss":([0-9.e+-]+),.*/\1/p' "$1/metrics.jsonl") \
		<(sed -nE 's/.*"event":"step".*"loss":([0-9.e+-]+),.*/\1/p' "$2/metrics.jsonl") |
		head -n "$3" | awk -v want="$3" -v tol="$4" '{ d = $1 - $2; if (NF != 2 || d > tol * $1 || d < -tol * $1) { print "differ: " $0; bad = 1 } }
			END { if (NR != want) { print NR " steps"; bad = 1 } exit bad }'
}

@test "a text model learns as on the CPU" {
	ok train -o out --steps 8
	near "$here/text" out 8 5e-3
	ok lwm-merge-ckpt -q out -o model
	ok lwm-sample -q --device cpu -m model -p 'the ' --max-tokens 4
}

@test "stopped and resumed, the same bits" {
	ok train -o whole --steps 4
	code 75 train -o parts --steps 4 --stop-after 2
	ok train -o parts --steps 4
	[ "$(losses whole)" = "$(losses parts)" ]
}

@test "activations in host memory: the same bits" {
	ok train -o here --steps 3 --layers 4 --offload false
	ok train -o away --steps 3 --layers 4 --offload true
	[ "$(losses here)" = "$(losses away)" ]
}

@test "without recomputation, and with heads that share keys in a larger batch" {
	ok train -o a --steps 3 --no-recompute --tokens-per-batch 512 --micro-rows 2
	ok lwm-train-stage -q "${tiny[@]}" --device cpu --threads 1 -o b --steps 3 --no-recompute --tokens-per-batch 512 --micro-rows 2
	near b a 3 5e-3
}

@test "what was trained on the CPU speaks on the GPU" {
	ok lwm-sample -q --device cuda -m "$here/model" -p 'the ' --max-tokens 6 --temperature 0 --json
	has '"tokens":'
	gpu=$output
	ok lwm-sample -q --device cpu --threads 1 -m "$here/model" -p 'the ' --max-tokens 6 --temperature 0 --json
	[ "$(sed 's/"logprob.*//' <<<"$gpu")" = "$(sed 's/"logprob.*//' <<<"$output")" ]
}

@test "caches in 8 bits" {
	ok lwm-sample -q --device cuda -m "$here/model" -p 'the king of the ' --max-tokens 3 --temperature 0 --cache int8 --prefill-chunk 8
	ok lwm-sample -q --device cuda -m "$here/model" -p 'the king of the ' --max-tokens 3 --top-k 5 --top-p 0.9 --cache bf16
	code 78 lwm-sample -q --device cuda -m "$here/model" -p 'the ' --max-tokens 3 --cache f32
	err_has 'bf16'
}

@test "needle evaluation" {
	ok lwm-eval-needle -q --device cuda -m "$here/model" --haystack "$here/words.txt" --context-lengths-min 260 \
		--context-lengths-max 260 --n-context-length-intervals 1 --n-document-depth-intervals 2 --n-rounds 1 --answer-tokens 4 -o out
	[ "$(wc -l <out/results.jsonl)" = 2 ]
}

@test "frames: training, encoding and decoding" {
	ok lwm-synth -q clips -n 2 --frames 3 --size 32 -o clips
	for d in cpu cuda; do
		ok lwm-train-stage -q --device $d --threads 1 --objective reconstruction --model tiny --data clips -o vq-$d --steps 3 \
			--batch-frames 2 --frames-per-pass 2 --holdout 0 --lr 1e-3 --warmup-steps 1 --quantize-from 3
	done
	near vq-cpu vq-cuda 3 2e-2 # later a rounding may choose another code of the fresh codebook
	ok lwm-merge-ckpt -q vq-cpu -o vqgan
	ok lwm-vqgan-encode -q --device cuda -m vqgan -t bytes clips -o codes.h5
	ok lwm-vqgan-decode -q --device cuda -m vqgan codes.h5 -o back.png
}

@test "pictures and words in one model: trained, and drawn on the GPU with guidance" {
	local gpu=(lwm-sample -q --device cuda -m both --vqgan vq --size 16 --context 256)
	lwm-synth clips -q -n 3 --size 16 --frames 3 --store png -o clips
	lwm-train-stage -q --device cpu --threads 1 --objective reconstruction --model tiny --hidden 4 --groups 2 --channel-mult 1,2,2 \
		--codes 16 --resolution 16 --data clips --steps 1 --batch-frames 4 -o vq
	lwm-vqgan-encode -q --device cuda -m vq -t bytes clips -o codes.h5
	lwm-pack -q -n 64 -o rows.h5 codes.h5
	for d in cpu cuda; do
		ok lwm-train-stage -q --threads 1 "${tiny[@]}" --device $d --data rows.h5 --tokens-per-batch 128 --steps 3 -o both-$d
	done
	near both-cpu both-cuda 3 5e-3
	lwm-merge-ckpt -q both-cuda -o both
	ok "${gpu[@]}" --mode image -p 'a ball' --guidance-image 3 --top-k-image 8 -o a.png
	ok "${gpu[@]}" --mode image -p 'a ball' --guidance-image 3 --top-k-image 8 -o b.png
	same a.png b.png
	ok "${gpu[@]}" --mode video -p 'a ball' --frames 2 --cache int8 -o c.mp4
}

@test "the same seed draws the same words" {
	ok lwm-sample -q --device cuda -m "$here/model" -p 'the ' --max-tokens 12 --top-k 20 --top-p 0.95 --seed 3
	first=$output
	ok lwm-sample -q --device cuda -m "$here/model" -p 'the ' --max-tokens 12 --top-k 20 --top-p 0.95 --seed 3
	[ "$output" = "$first" ]
	ok lwm-sample -q --device cuda -m "$here/model" -p 'the ' --max-tokens 12 --top-k 1
	first=$output
	ok lwm-sample -q --device cuda -m "$here/model" -p 'the ' --max-tokens 12 --temperature 0
	[ "$output" = "$first" ]
}

@test "auto takes the GPU; where there is none, cuda is refused with the reason" {
	ok lwm-sample --device auto -m "$here/model" -p 'a' --max-tokens 1
	err_has "emulated GPU"
	LWM_CUDA_LIB=/nowhere/liblwm_cuda.so code 69 lwm-sample --device cuda -m "$here/model" -p 'a' --max-tokens 1
	err_has "--device cuda"
	err_has "cannot be loaded"
	LWM_CUDA_LIB=/nowhere/liblwm_cuda.so ok lwm-sample -v --device auto -m "$here/model" -p 'a' --max-tokens 1
	err_has "cpu ("
	code 69 lwm-sample --device cuda:7 -m "$here/model" -p 'a' --max-tokens 1
}

@test "every tool that computes takes --device and refuses an unknown one" {
	for t in lwm-train-stage lwm-sample lwm-eval-needle lwm-qa-gen lwm-vqgan-encode lwm-vqgan-decode; do
		ok $t --help
		has "--device"
	done
	code 69 train --device abacus -o out --steps 1
	err_has "abacus"
}
