# lwm-train-stage --objective diffusion: that it learns, over pixels and over latents; ranks, resume, what it refuses.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	lwm-synth clips -q -n 300 --size 16 --frames 4 -o moving
	lwm-synth clips -q -n 24 --first 5000 --size 16 --frames 4 -o moved
	tokenizer 40 && lwm-merge-ckpt -q --dtype fp32 -o vqgan vqgan.run && tokenizer 41
}

tokenizer() { # STEPS
	lwm-train-stage -q --threads 1 --device cpu --objective reconstruction --model tiny --resolution 16 --hidden 8 --channel-mult 1,2,2 \
		--res-blocks 1 --z-channels 4 --codes 64 --data moving --batch-frames 16 --probe-frames 64 --lr 4e-3 --steps "$1" -o vqgan.run
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	vqgan=$BATS_FILE_TMPDIR/vqgan
	small=(--device cpu --dim 64 --ffn 128 --layers 2 --heads 4 --init-std 0.05 --warmup-steps 5 --log-every 1000 --objective diffusion
		--data "$BATS_FILE_TMPDIR/moving" --eval-data "$BATS_FILE_TMPDIR/moved" --frame-size 16 --patch-size 4 --patch-frames 1
		--clip-frames 4 --batch-clips 16 --lr 4e-3)
}

diffuse() { lwm-train-stage -q --threads 2 "${small[@]}" "$@"; }

# last EVENT KEY DIR: of the last line of that event
last() { sed -nE 's/.*"event":"'"$1"'",.*"'"$2"'":([0-9.e+-]+|true|false)[,}].*/\1/p' "$3/metrics.jsonl" | tail -n 1; }
losses() { sed -nE 's/.*"event":"step","step":([0-9]+),.*"loss_hex":"([^"]*)".*/\1 \2/p' "$1/metrics.jsonl"; }
below() { awk -v a="$1" -v b="$2" 'BEGIN { if (a == "" || b == "" || a >= b) print a " is not below " b; exit !(a != "" && b != "" && a < b) }'; }

@test "it learns to denoise clips that it has never seen" {
	ok diffuse -o out --steps 1
	local nothing first after
	nothing=$(last eval nothing out) first=$(last eval loss out)
	ok diffuse -o out --steps 150
	after=$(last eval loss out)
	echo "loss $first, then $after; of a net that says nothing $nothing"
	[ "$(last eval held_out out)" = true ]
	[ "$(last eval clips out)" = 24 ]
	[ "$(last eval nothing out)" = "$nothing" ]
	below 0.3 "$nothing"
	below "$after" "$(awk -v n="$nothing" 'BEGIN { print n / 2 }')"
	below "$after" "$(awk -v n="$first" 'BEGIN { print n / 2 }')"
	awk -v l="$after" -v p="$(last eval plain out)" -v d="$(last eval dynamics out)" -v s="$(last eval structure out)" \
		'BEGIN { exit !(d > 0 && s > 0 && (p + d + s - l) ^ 2 < 1e-12) }'
}

@test "of latents it is the same, of a VQGAN that stays as it is" {
	ok diffuse -o out --steps 60 --vqgan "$vqgan"
	echo "loss $(last eval loss out), of a net that says nothing $(last eval nothing out)"
	below "$(last eval loss out)" "$(awk -v n="$(last eval nothing out)" 'BEGIN { print n * 0.9 }')"
	ok lwm-merge-ckpt -q --dtype fp32 --verify -o model out
	grep -q '"objective": "diffusion"' model/config.json
	grep -qE '"vqgan": "[0-9a-f]{32}"' model/config.json
	grep -q denoise.latents.weight model/model.safetensors
	# a step of the encoder is four pixels
	code 78 diffuse -o six --steps 1 --vqgan "$vqgan" --patch-size 2
	err_has '--patch-size 2: a latent of'
	err_has 'is 4 pixels wide'
	code 66 diffuse -o nowhere --steps 1 --vqgan nowhere
	code 66 diffuse -o nowhere --plan --vqgan nowhere
	has 'trunk'
	ok diffuse -o planned --plan --vqgan "$vqgan"
	code 65 diffuse -o wrong --steps 1 --vqgan model
	err_has 'block_out_channels'
}

@test "two ranks train what one does" {
	need_mpi
	ok lwm-train-stage -q --threads 1 "${small[@]}" -o one --steps 4
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q --threads 1 "${small[@]}" --mesh-dim 2,1,1,1 -o two --steps 4
	paste <(sed -nE 's/.*"event":"step".*"loss":([0-9.e+-]+),.*/\1/p' one/metrics.jsonl) \
		<(sed -nE 's/.*"event":"step".*"loss":([0-9.e+-]+),.*/\1/p' two/metrics.jsonl) |
		awk '{ d = $1 - $2; if (d > 1e-4 * $1 || d < -1e-4 * $1) { print; bad = 1 } } END { exit bad || NR != 4 }'
	awk -v a="$(last eval loss one)" -v b="$(last eval loss two)" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 < 1e-8 * a * a) }'
}

@test "in parts it is the same stage; stopped and resumed the same bits" {
	ok diffuse -o whole --steps 4 --vqgan "$vqgan"
	code 75 diffuse -o parts --steps 4 --stop-after 2 --vqgan "$vqgan"
	ok diffuse -o parts --steps 4 --vqgan "$vqgan"
	diff <(losses whole) <(losses parts)
	code 78 diffuse -o parts --steps 6
	err_has 'input_dim'
	code 78 diffuse -o parts --steps 6 --vqgan "$vqgan.run" # one step later it is another one
	err_has 'lwm_latents'
	code 78 diffuse -o parts --steps 6 --vqgan "$vqgan" --sigma-mean 0
	err_has 'sigma-mean'
	code 78 diffuse -o parts --steps 6 --vqgan "$vqgan" --clean-odds 0,1
	ok diffuse -o passes --steps 4 --vqgan "$vqgan" --clips-per-pass 5
	paste <(losses whole) <(losses passes) | awk 'END { exit NR != 4 }'
	ok diffuse -o plain --steps 1 --vqgan "$vqgan" --no-dynamics --structure-weight 0
	[ "$(last step dynamics plain)" = 0 ]
	[ "$(last step structure plain)" = 0 ]
	below 0 "$(last step plain plain)"
	ok diffuse -o given --steps 1 --clean-odds 0,0,0,1
	below "$(last eval nothing given)" 0.45 # a quarter of each clip is noisy
}

@test "what it cannot do is 78 or 64, by name" {
	code 78 diffuse -o out --check-options --patch-frames 2
	err_has '--patch-frames 2: frames are denoised one by one'
	code 78 diffuse -o out --check-options --clip-frames 3
	err_has '--clean-odds 1,2,4,8: of --clip-frames 3 nothing is left'
	ok diffuse -o out --check-options --clip-frames 3 --clean-odds 1,1
	code 64 diffuse -o out --check-options --clean-odds 0,0
	err_has 'above 0'
	code 64 diffuse -o out --check-options --clean-odds 1,x
	err_has '--clean-odds'
	code 64 diffuse -o out --check-options --clean-odds 1,1,1,1,1,1,1,1,1
	err_has 'more than 8'
	code 78 diffuse -o out --check-options --plan-ranks 2 --mesh-dim 1,1,1,2
	err_has 'clips train on data ranks only'
	code 78 diffuse -o out --check-options --patch-size 5
	err_has '--patch-size 5'
}

# A shape goes on as it began: two frames say where to, and the third is drawn.
@test "what is drawn goes on from the frames that are given better than if they stood still" {
	lwm-synth clips -q -n 800 --size 16 --frames 3 -o three
	lwm-synth clips -q -n 13 --first 5000 --size 16 --frames 3 -o next
	# a plain autoencoder, whose latents are continuous
	ok lwm-train-stage -q --threads 1 --device cpu --objective reconstruction --model tiny --resolution 16 --hidden 8 --channel-mult 1,2,2 \
		--res-blocks 1 --z-channels 4 --codes 64 --data three --batch-frames 16 --quantize-from 1000000 --probe-frames 0 --lr 5e-3 \
		--schedule cosine --steps 300 -o ae
	ok diffuse -o out --data three --eval-data next --clip-frames 3 --clean-odds 1,2,4 --vqgan ae --sigma-mean=-0.5 --lr 5e-3 \
		--schedule cosine --steps 600
	local i
	for i in 01 02 03 04 07 09 12; do # shapes that move
		ok lwm-denoise -q --threads 1 --device cpu -m out --vqgan ae "next/clip-050$i.mp4" --given 2 --steps 20 -o drawn.png --force --json
		sed -nE 's/.*"psnr":\[([0-9.]+)\],"psnr_still":\[([0-9.]+)\].*/\1 \2/p' <<<"$output" >>psnr
	done
	cat psnr
	awk '{ n++; better += $1 > $2; is += $1; was += $2 } END {
		print better " of " n ", " is / n " dB, had they stood still " was / n; exit !(n == 7 && better >= 6 && is > was + 0.5 * n) }' psnr
}

# given SHEET WIDTH: bytes of the first two frames of the last row of a sheet of frames of 16 pixels, with gaps of 2
given() { tail -c $((20 * 3 * $2)) "$1" | od -An -v -tu1 -w$((3 * $2)) | cut -c1-$((36 * 3 * 4)); }

@test "lwm-denoise draws with it: pixels, latents, rounds; the same noise draws the same" {
	ok diffuse -o pixels --steps 2
	ok diffuse -o latents --steps 2 --vqgan "$vqgan"
	local clip=$BATS_FILE_TMPDIR/moved/clip-05003.mp4 d
	d=(lwm-denoise --threads 1 --device cpu --steps 4)
	ok "${d[@]}" -q -m pixels "$clip" -o one.png --json
	has '"frames":4' && has '"given":1' && has '"passes":4'
	ok "${d[@]}" -q -m pixels "$clip" -o again.png
	cmp one.png again.png
	ok "${d[@]}" -q -m pixels "$clip" -o other.png --sample 1
	! cmp -s one.png other.png || false
	ok "${d[@]}" -q -m pixels -o free.ppm --json # nothing is given
	has '"given":0'
	has '"psnr":[]'
	ok "${d[@]}" -q -m latents --vqgan "$vqgan" "$clip" -o long.mp4 --given 2 --rounds 3 --json
	has '"frames":6' && has '"passes":12' # 3 (4 - 3) + 3
	[ "$(ffprobe -v error -count_frames -select_streams v -show_entries stream=nb_read_frames -of csv=p=0 long.mp4)" = 6 ] ||
		! command -v ffprobe >/dev/null
	ok "${d[@]}" -q -m latents --vqgan "$vqgan" "$clip" -o guided.png --guide 2 --json
	has '"passes":8'
	ok "${d[@]}" -q -m latents --vqgan "$vqgan" "$clip" -o snapped.png --snap
	# what is given comes back as the VQGAN's codes have it: scaled for the denoiser, and back
	lwm-synth clips -q -n 1 --first 7 --size 16 --frames 2 -o two
	ok "${d[@]}" -q -m latents --vqgan "$vqgan" two/clip-00007.mp4 --given 2 --snap -o drawn.ppm
	ok lwm-vqgan-encode -q --device cpu -t bytes -m "$vqgan" -o two.docs.h5 two
	ok lwm-vqgan-decode -q --device cpu -m "$vqgan" -o codes.ppm two.docs.h5
	given drawn.ppm 74 >given # four frames
	[ "$(sort -u given | wc -l)" -gt 5 ]
	cmp given <(given codes.ppm 38)
	code 73 "${d[@]}" -q -m pixels "$clip" -o one.png
}

@test "what lwm-denoise cannot do" {
	ok diffuse -o pixels --steps 1
	ok diffuse -o latents --steps 1 --vqgan "$vqgan" --clean-odds 1,2
	local clip=$BATS_FILE_TMPDIR/moved/clip-05003.mp4 d
	d=(lwm-denoise -q --threads 1 --device cpu --steps 1 -o out.png)
	code 64 "${d[@]}" -m latents "$clip"
	err_has '--vqgan has to name'
	code 78 "${d[@]}" -m latents --vqgan "$vqgan.run" "$clip"
	err_has 'draws latents of the VQGAN of hash'
	code 78 "${d[@]}" -m pixels --vqgan "$vqgan" "$clip"
	err_has 'draws pixels'
	code 78 "${d[@]}" -m "$vqgan" "$clip"
	err_has 'is no denoiser'
	code 78 "${d[@]}" -m latents --vqgan "$vqgan" "$clip" --given 2
	err_has 'not --given 2'
	code 78 "${d[@]}" -m latents --vqgan "$vqgan" "$clip" --rounds 2
	err_has 'not --overlap 3'
	code 66 "${d[@]}" -m pixels nowhere.mp4
	code 66 "${d[@]}" -m nowhere "$clip"
	code 66 "${d[@]}" -m pixels nowhere.mp4 --plan
	ok "${d[@]}" -m pixels "$clip" --plan
	has 'out.png'
	gone out.png
}

@test "samples are the clips that lwm-denoise draws, of pixels and of latents" {
	local space how=(--steps 20 --sample-every 10 --samples 2 --sample-steps 6 --clean-odds "1,2,2")
	for space in '' "--vqgan $vqgan"; do
		rm -rf out drawn.png
		# shellcheck disable=SC2086
		ok diffuse -o out "${how[@]}" --samples 1 $space
		[ "$(ls out/samples)" = $'step-00000010.png\nstep-00000020.png' ]
		# shellcheck disable=SC2086
		ok lwm-denoise -q -m out "$BATS_FILE_TMPDIR/moved/clip-05000.mp4" --given 2 --steps 6 --zoom 4 -o drawn.png --threads 1 \
			--device cpu $space
		same drawn.png out/samples/step-00000020.png
		! cmp -s drawn.png out/samples/step-00000010.png
	done
	# a stage with samples keeps the VQGAN on the device, and says so before
	plan() { lwm-train-stage --plan --json --threads 1 "${small[@]}" -o planned --vqgan "$vqgan" "$@"; }
	ok plan
	local without
	without=$(jq .bytes_per_rank <<<"$output")
	ok plan --sample-every 10
	[ "$(jq .bytes_per_rank <<<"$output")" -gt "$without" ]
}
