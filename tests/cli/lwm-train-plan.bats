# What a plan says of memory, against the largest resident size of the same stage as it ran.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 8000 >words.txt
	lwm-tokenize -q -t bytes --split-lines 20 -o docs.h5 words.txt
	for n in 64 256 1024 4096; do lwm-pack -q -n $n -o rows$n.h5 docs.h5; done
	lwm-synth clips -q -n 24 --size 64 --frames 16 -o clips
	for n in 32 96; do
		lwm-train-stage -q --device cpu --threads 2 --objective reconstruction --model tiny --hidden $n --codes 512 --data clips --batch-frames 2 \
			--resolution 64 --probe-frames 0 --eval-rows 1 --steps 1 -o vqgan$n
	done
}

peak_of() { sed -nE 's/.*"event":"end".*"peak_rss":([0-9]+).*/\1/p' "$1/metrics.jsonl"; }

# compare NAME RANKS OPTION...: one step, and the plan of it; a line of the table; fails beyond 5 %
compare() {
	local name=$1 ranks=$2 launch=() all
	shift 2
	all=(-q --device cpu --threads $((ranks > 1 ? 1 : 2)) --steps 1 -o "$name" "$@")
	[ "$ranks" = 1 ] || launch=(mpirun -n "$ranks" --oversubscribe)
	ok lwm-train-stage "${all[@]}" --plan --plan-ranks "$ranks" --json
	local plan measured
	plan=$(sed -nE 's/.*"bytes_per_rank":([0-9]+),.*/\1/p' <<<"$output")
	ok "${launch[@]}" lwm-train-stage "${all[@]}"
	measured=$(peak_of "$name")
	rm -rf "$name"
	awk -v n="$name" -v p="$plan" -v m="$measured" 'BEGIN {
		r = m > 0 ? p / m : 0
		printf "# | %-26s | %6.0f | %6.0f | %.3f |\n", n, p / 2^20, m / 2^20, r
		exit !(r > 0.95 && r < 1.05) }' | tee -a table >&3
}

@test "memory as planned is within 5 % of what a rank had at most" {
	[ -z "${SAN:-}" ] || skip 'a sanitizer has memory of its own'
	cd "$BATS_FILE_TMPDIR" || return 1
	set -o pipefail
	echo '# | what                       | plan, MiB | measured | ratio |' >&3
	tokens() { compare "$1" "$2" --data "rows$3.h5" --seq-length "$3" --tokens-per-batch "$4" "${@:5}"; }
	tokens wide 1 64 128 --dim 768 --ffn 2048 --layers 2 --heads 12
	tokens 'one-long-row' 1 4096 4096 --dim 128 --ffn 352 --layers 12 --heads 4
	tokens no-recompute 1 1024 6144 --dim 128 --ffn 352 --layers 6 --heads 2 --no-recompute
	tokens micro-batches 1 1024 8192 --micro-rows 4 --dim 192 --ffn 512 --layers 6 --heads 3
	tokens canonical 1 64 256 --sum-order canonical --dim 640 --ffn 1728 --layers 4 --heads 10
	tokens gqa-tied 1 256 1024 --dim 512 --ffn 1408 --layers 3 --heads 8 --kv-heads 2 --tie
	tokens offload 1 1024 8192 --dim 128 --ffn 352 --layers 10 --heads 2 --offload true
	tokens little-memory 1 4096 4096 --dim 128 --ffn 352 --layers 12 --heads 4 --head-groups 4 --keep-activations bf16
	tokens small-pieces-held-out 1 1024 8192 --dim 192 --ffn 512 --layers 6 --heads 3 --loss-mib 1 --scan-mlp-chunk-size 256 \
		--eval-data rows1024.h5 --eval-rows 8
	tokens copy-for-checkpoints 1 64 128 --dim 768 --ffn 2048 --layers 2 --heads 12 --steps 3 --checkpoint-every 1
	tokens norms-and-queries 1 64 128 --dim 768 --ffn 2048 --layers 2 --heads 12 --train-only '*norm*,*q_proj*' --ema 0.99 \
		--steps 3 --checkpoint-every 1
	tokens average 1 64 128 --dim 768 --ffn 2048 --layers 2 --heads 12 --ema 0.99
	tokens adapters 1 64 128 --dim 768 --ffn 2048 --layers 2 --heads 12 --lora '*_proj*' --train-only '*lora*'
	compare vqgan 1 --objective reconstruction --model tiny --data clips --batch-frames 12 --resolution 64 --eval-rows 4 \
		--probe-frames 16
	compare vqgan-judged 1 --objective reconstruction --model tiny --data clips --batch-frames 12 --frames-per-pass 4 --resolution 64 \
		--eval-rows 4 --probe-frames 0 --adversarial 1 --disc-channels 128
	compare contrastive 1 --objective contrastive --data clips --clip-frames 2 --dim 192 --ffn 512 --layers 6 --heads 3 --batch-clips 128 --holdout 24
	compare contrastive-parts 1 --objective contrastive --data clips --clip-frames 2 --dim 384 --ffn 1024 --layers 4 --heads 6 --batch-clips 128 \
		--holdout 24 --clips-per-pass 16
	compare contrastive-queue 1 --objective contrastive --data clips --clip-frames 2 --dim 384 --ffn 1024 --layers 4 --heads 6 --batch-clips 128 \
		--holdout 24 --momentum 0.999 --queue 65536
	compare masked 1 --objective masked --data clips --clip-frames 2 --dim 192 --ffn 512 --layers 6 --heads 3 --batch-clips 128 --holdout 24 \
		--patch-size 8
	compare next-frame 1 --objective next-frame --data clips --dim 192 --ffn 512 --layers 6 --heads 3 --batch-clips 16 --holdout 24 \
		--patch-size 8 --clip-frames 16 --patch-frames 1
	compare diffusion 1 --objective diffusion --data clips --dim 192 --ffn 512 --layers 6 --heads 3 --batch-clips 6 --holdout 24 \
		--patch-size 8 --clip-frames 16 --patch-frames 1
	compare next-frame-latents 1 --objective next-frame --data clips --dim 192 --ffn 512 --layers 6 --heads 3 --batch-clips 4 --holdout 24 \
		--patch-size 8 --clip-frames 8 --patch-frames 1 --eval-rows 4 --vqgan vqgan32
	compare masked-codes 1 --objective masked --data clips --clip-frames 2 --dim 192 --ffn 512 --layers 6 --heads 3 --batch-clips 128 --holdout 24 \
		--patch-size 8 --mask-targets codes --vqgan vqgan32 --loss-mib 16
	compare diffusion-loading 1 --objective diffusion --data clips/clip-00000.mp4 --data clips/clip-00001.mp4 --dim 64 --ffn 128 --layers 2 --heads 2 --batch-clips 1 --holdout 0 \
		--patch-size 8 --clip-frames 16 --patch-frames 1 --vqgan vqgan96
}

@test "and so is that of several ranks" {
	[ -z "${SAN:-}" ] || skip 'a sanitizer has memory of its own'
	need_mpi
	cd "$BATS_FILE_TMPDIR" || return 1
	set -o pipefail
	tokens() { compare "$1" "$2" --data "rows$3.h5" --seq-length "$3" --tokens-per-batch "$4" "${@:5}"; }
	tokens dp2 2 64 128 --mesh-dim 2,1,1,1 --dim 640 --ffn 1728 --layers 3 --heads 10
	# documents of 700 tokens go straight to whom they are dealt to, and little of the ring's buffers is ever touched
	lwm-tokenize -q -t bytes --split-lines 20 -o short.h5 words.txt
	tokens sp2-short 2 4096 8192 --mesh-dim 1,1,1,2 --dim 192 --ffn 512 --layers 6 --heads 6 --plan-document 700
	# one document in each row, which all goes round: they are filled
	ok lwm-pack -q -n 4096 --mode concat -o rows4096.h5 docs.h5 --force
	tokens sp2 2 4096 8192 --ring-layout zigzag --mesh-dim 1,1,1,2 --dim 192 --ffn 512 --layers 6 --heads 6
	tokens sp2-direct 2 4096 8192 --mesh-dim 1,1,1,2 --dim 192 --ffn 512 --layers 6 --heads 6
	tokens sp4-direct 4 4096 8192 --mesh-dim 1,1,1,4 --dim 256 --ffn 704 --layers 6 --heads 8
	tokens fsdp2-sp2 4 4096 8192 --mesh-dim 1,2,1,2 --dim 384 --ffn 1024 --layers 4 --heads 6
	tokens fsdp2 2 64 128 --mesh-dim 1,2,1,1 --dim 640 --ffn 1728 --layers 5 --heads 10
	tokens fsdp2-step 2 64 512 --micro-rows 2 --mesh-dim 1,2,1,1 --dim 640 --ffn 1728 --layers 5 --heads 10
	tokens fsdp2-micro 2 64 512 --micro-rows 2 --scatter microbatch --mesh-dim 1,2,1,1 --dim 640 --ffn 1728 --layers 5 --heads 10
	tokens dp2-canonical 2 64 256 --sum-order canonical --mesh-dim 2,1,1,1 --dim 640 --ffn 1728 --layers 3 --heads 10
	tokens fsdp2-canonical 2 64 256 --sum-order canonical --mesh-dim 1,2,1,1 --dim 640 --ffn 1728 --layers 5 --heads 10
	ok lwm-tokenizer-train -q --vocab 320 -o t.model words.txt # bytes are 259 ids, which 2 ranks cannot share
	ok lwm-tokenize -q -t t.model --split-lines 20 -o shared.h5 words.txt
	ok lwm-pack -q -n 2048 -o rows2048.h5 shared.h5
	tokens tp2 2 2048 8192 --micro-rows 4 --mesh-dim 1,1,2,1 --dim 192 --ffn 512 --layers 6 --heads 6
	compare vqgan-dp2 2 --mesh-dim 2,1,1,1 --objective reconstruction --model tiny --data clips --batch-frames 24 --resolution 64 \
		--probe-frames 16
	compare contrastive-dp2 2 --mesh-dim 2,1,1,1 --objective contrastive --data clips --clip-frames 2 --dim 384 --ffn 1024 --layers 4 --heads 6 \
		--batch-clips 128 --holdout 24
	compare contrastive-queue-dp2 2 --mesh-dim 2,1,1,1 --objective contrastive --data clips --clip-frames 2 --dim 384 --ffn 1024 --layers 4 \
		--heads 6 --batch-clips 128 --holdout 24 --momentum 0.999 --queue 4096
}
