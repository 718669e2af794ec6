# lwm-train-stage over clips whose targets are a VQGAN's: next-frame of its latents, masked of its codes.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	lwm-synth clips -q -n 800 --size 16 --frames 6 -o moving
	lwm-synth clips -q -n 24 --first 5000 --size 16 --frames 6 -o moved
	lwm-synth clips -q -n 48 --first 2000 --size 16 --frames 6 -o few # for what does not learn: each run encodes all of them
	tokenizer 150 --quantize-from 1000000 --probe-frames 0 && lwm-merge-ckpt -q --dtype fp32 -o ae vqgan.run # continuous latents
	tokenizer 151 --quantize-from 1000000 --probe-frames 0
	mv vqgan.run ae.run
	tokenizer 100 --probe-frames 64 && lwm-merge-ckpt -q --dtype fp32 -o codes vqgan.run
}

tokenizer() { # STEPS OPTION...
	lwm-train-stage -q --threads 1 --device cpu --objective reconstruction --model tiny --resolution 16 --hidden 8 --channel-mult 1,2,2 \
		--res-blocks 1 --z-channels 4 --codes 64 --data moving --batch-frames 16 --lr 4e-3 --steps "$1" -o vqgan.run "${@:2}"
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	ae=$BATS_FILE_TMPDIR/ae codes=$BATS_FILE_TMPDIR/codes
	small=(--threads 1 --device cpu --dim 64 --ffn 128 --layers 2 --heads 4 --init-std 0.05 --warmup-steps 5 --log-every 1000 --frame-size 16
		--clip-frames 6 --batch-clips 16 --lr 4e-3 --data "$BATS_FILE_TMPDIR/moving" --eval-data "$BATS_FILE_TMPDIR/moved")
}

forecast() { lwm-train-stage -q "${small[@]}" --objective next-frame --patch-size 4 --patch-frames 1 "$@"; }

mask() { lwm-train-stage -q "${small[@]}" --objective masked --patch-size 8 --mask-targets codes "$@"; }

# last EVENT KEY DIR: of the last line of that event
last() { sed -nE 's/.*"event":"'"$1"'",.*"'"$2"'":([0-9.e+-]+|true|false)[,}].*/\1/p' "$3/metrics.jsonl" | tail -n 1; }
losses() { sed -nE 's/.*"event":"step","step":([0-9]+),.*"loss_hex":"([^"]*)".*/\1 \2/p' "$1/metrics.jsonl"; }
# below A B FACTOR: A < B * FACTOR
below() { awk -v a="$1" -v b="$2" -v f="${3:-1}" 'BEGIN { if (a == "" || b == "" || a >= b * f) print a " is not below " b * f; exit !(a != "" && b != "" && a < b * f) }'; }

@test "next-frame of latents learns what moves, and is judged in pixels" {
	ok forecast -o out --vqgan "$ae" --steps 240 --schedule cosine
	local k
	echo "loss $(last eval loss out), of a still picture $(last eval still out)"
	[ "$(last eval held_out out)" = true ]
	[ "$(last eval predicted out)" = 1920 ] # 24 clips, 5 frames, 16 patches of a latent each
	[ -z "$(last eval psnr out)" ]
	below "$(last eval loss out)" "$(last eval still out)" 0.9
	for k in 1 2 3; do
		echo "frame $k: $(last eval psnr_$k out) dB, the VQGAN alone $(last eval psnr_vqgan_$k out)"
		below "$(last eval psnr_$k out)" "$(last eval psnr_vqgan_$k out)"
	done
	[ -z "$(last eval psnr_4 out)" ]
	below 20.5 "$(last eval psnr_1 out)"
	below "$(last eval psnr_3 out)" "$(last eval psnr_1 out)"
	below 0.5 "$(last eval ssim_1 out)"
	below 21 "$(last eval psnr_vqgan_1 out)"
	ok lwm-merge-ckpt -q --dtype fp32 --verify -o model out
	grep -qE '"vqgan": "[0-9a-f]{32}"' model/config.json
	grep -q '"objective": "next-frame"' model/config.json
}

@test "next-frame of latents: in parts, resumed, on ranks; of the same VQGAN alone" {
	small=("${small[@]/%moving/few}")
	ok forecast -o whole --vqgan "$ae" --steps 4
	code 75 forecast -o parts --vqgan "$ae" --steps 4 --stop-after 2
	ok forecast -o parts --vqgan "$ae" --steps 4
	diff <(losses whole) <(losses parts)
	code 78 forecast -o parts --steps 6
	err_has 'input_dim'
	code 78 forecast -o parts --steps 6 --vqgan "$ae.run" # one step later it is another one
	err_has 'lwm_latents'
	ok forecast -o codes --vqgan "$codes" --steps 1 --snap # what it sees of frames as codes, and as latents
	below 20.5 "$(last eval psnr_vqgan_1 codes)"
	ok forecast -o snapped --vqgan "$ae" --steps 1 --snap --sample-every 1
	ok forecast -o plain --vqgan "$ae" --steps 1
	[ "$(last eval loss snapped)" = "$(last eval loss plain)" ]
	compgen -G 'snapped/samples/*' >/dev/null
	[ "$(last eval psnr_vqgan_1 snapped)" != "$(last eval psnr_vqgan_1 plain)" ]
	# the layers of a stage over pixels, whose vectors are of another length
	ok forecast -o pixels --steps 1
	ok forecast -o started --steps 1 --vqgan "$ae" --start-from trunk-checkpoint:pixels
	[ "$(losses started)" != "$(losses plain)" ]
	need_mpi
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${small[@]}" --objective next-frame --patch-size 4 --patch-frames 1 \
		--mesh-dim 1,2,1,1 -o two --vqgan "$ae" --steps 4
	awk -v a="$(last eval loss whole)" -v b="$(last eval loss two)" -v p="$(last eval psnr_2 whole)" -v q="$(last eval psnr_2 two)" \
		'BEGIN { exit !(a > 0 && (a - b) ^ 2 < 1e-8 * a * a && p > 0 && (p - q) ^ 2 < 1e-4) }'
}

@test "next-frame of latents: what it refuses, by name, and what it plans" {
	small=("${small[@]/%moving/few}")
	code 78 forecast -o six --steps 1 --vqgan "$ae" --patch-size 2
	err_has '--patch-size 2: a latent of'
	err_has 'is 4 pixels wide'
	code 78 forecast -o six --plan --vqgan "$ae" --patch-size 2
	err_has '--patch-size 2: a latent of'
	code 78 forecast -o snap --check-options --snap
	err_has '--snap: without --vqgan'
	code 78 lwm-train-stage -q "${small[@]}" -o views --objective contrastive --patch-size 4 --vqgan "$ae" --check-options
	err_has 'views are of pixels'
	code 66 forecast -o nowhere --steps 1 --vqgan nowhere
	code 66 forecast -o nowhere --plan --vqgan nowhere
	has 'trunk'
	ok forecast -o pixels --steps 1
	code 65 forecast -o wrong --steps 1 --vqgan pixels
	# the VQGAN stays beside the net: a plan counts it
	ok forecast -o planned --plan --json
	local without
	without=$(sed -nE 's/.*"bytes_per_rank":([0-9]+),.*/\1/p' <<<"$output")
	ok forecast -o planned --plan --json --vqgan "$ae"
	below "$without" "$(sed -nE 's/.*"bytes_per_rank":([0-9]+),.*/\1/p' <<<"$output")"
}

@test "masked learns the codes of what is hidden, of clips that it has never seen" {
	ok mask -o out --vqgan "$codes" --steps 1
	local ln
	ln=$(awk 'BEGIN { print log(64) }')
	echo "loss $(last eval loss out) of $ln"
	below "$(last eval loss out)" "$ln" 1.1
	below "$ln" "$(last eval loss out)" 1.1
	ok mask -o learnt --vqgan "$codes" --steps 150 --schedule cosine
	echo "loss $(last eval loss learnt), by how often codes are $(last eval unigram learnt); $(last eval accuracy learnt) right"
	[ "$(last eval held_out learnt)" = true ]
	[ "$(last eval hidden learnt)" = 216 ] # 24 clips of 12 patches, 3 of them seen; 8 codes each
	[ "$(last eval unigram learnt)" = "$(last eval unigram out)" ]
	below "$(last eval unigram learnt)" "$ln"
	below "$(last eval loss learnt)" "$(last eval unigram learnt)" 0.85
	below 0.1 "$(last eval accuracy learnt)"
	below "$(last eval accuracy learnt)" 0.9
	awk -v l="$(last eval loss learnt)" -v p="$(last eval perplexity learnt)" 'BEGIN { exit !((exp(l) / p - 1) ^ 2 < 1e-8) }'
	ok lwm-merge-ckpt -q --dtype fp32 --verify -o model learnt
	grep -qE '"vqgan": "[0-9a-f]{32}"' model/config.json
	grep -q '"codes": 64' model/config.json
	grep -q masked.codes.weight model/model.safetensors
}

@test "masked of codes: in parts, resumed, on ranks; of the same VQGAN alone; from other layers and back" {
	small=("${small[@]/%moving/few}")
	ok mask -o whole --vqgan "$codes" --steps 4
	code 75 mask -o parts --vqgan "$codes" --steps 4 --stop-after 2
	ok mask -o parts --vqgan "$codes" --steps 4
	diff <(losses whole) <(losses parts)
	code 78 mask -o parts --steps 6 --vqgan "$ae" # of the same sizes
	err_has 'lwm_codes'
	code 78 lwm-train-stage -q "${small[@]}" --objective masked --patch-size 8 -o parts --steps 6
	err_has 'masked.pixels.weight'
	ok mask -o pixels --mask-targets normalised --steps 1
	ok mask -o started --vqgan "$codes" --steps 1 --start-from trunk-checkpoint:pixels
	[ "$(losses started)" != "$(losses whole | head -n 1)" ]
	ok mask -o back --mask-targets normalised --steps 1 --start-from trunk-checkpoint:whole
	[ "$(losses back)" != "$(losses pixels)" ]
	need_mpi
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${small[@]}" --objective masked --patch-size 8 --mask-targets codes \
		--mesh-dim 1,2,1,1 -o two --vqgan "$codes" --steps 4
	awk -v a="$(last eval loss whole)" -v b="$(last eval loss two)" -v u="$(last eval unigram whole)" -v v="$(last eval unigram two)" \
		'BEGIN { exit !(a > 0 && (a - b) ^ 2 < 1e-8 * a * a && u > 0 && (u - v) ^ 2 < 1e-8) }'
}

@test "masked of codes: what it refuses, by name, and what it plans" {
	code 64 mask -o out --check-options
	err_has '--vqgan has to say whose'
	code 78 mask -o out --check-options --vqgan "$codes" --mask-targets plain
	err_has 'targets are pixels'
	code 78 mask -o out --check-options --vqgan "$codes" --sample-every 1
	err_has 'nothing is shown'
	local way
	for way in --plan --steps=1; do
		code 78 mask -o out "$way" --vqgan "$codes" --patch-size 2
		err_has '--patch-size 2: a latent of'
		code 66 mask -o out "$way" --vqgan nowhere
	done
	ok mask -o out --plan --vqgan "$codes"
	has 'activations'
}

@test "pipelines/latents.yaml, a VQGAN and layers learned on its codes and latents" {
	lwm-synth clips -q -n 24 --size 16 --frames 4 -o videos
	local o set=(--set videos=videos --set out=run --set frame_size=16 --set batch=8 --set fps=0 --set steps=2 --set vqgan_steps=2)
	ok lwm-run -q "$ROOT/pipelines/latents.yaml" "${set[@]}"
	for o in vqgan masked next_frame; do [ -e run/train/$o/summary.json ]; done
}
