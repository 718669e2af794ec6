load ../lib

# The VQGAN's training beyond pixels: the distance of features of a frozen network.

# network FILE SEED: a made-up one of two blocks, 3 to 4 to 6 | 8 channels, in bf16.
network() {
	awk -v seed="$2" '
	function add(name, shape, n, kind) {
		header = header sprintf("%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%d,%d]}", header == "" ? "" : ",",
			name, shape, at, at + 2 * n)
		at += 2 * n
		for (; n > 0; n--) {
			seed = (seed * 1103515245 + 12345) % 2147483648
			k = int(seed / 65536) % 6
			# little-endian: 1/8, 1/4, 1/2, and the same below zero
			body = body (kind == "head" ? "\\000\\077" : k % 3 == 0 ? "\\000" : k % 3 == 1 ? "\\200" : "\\000")
			if (kind != "head")
				body = body (k % 3 == 2 ? (k < 3 ? "\\077" : "\\277") : k < 3 ? "\\076" : "\\276")
		}
	}
	BEGIN {
		add("features.0.weight", "4,3,3,3", 108); add("features.0.bias", "4", 4)
		add("features.2.weight", "6,4,3,3", 216); add("features.2.bias", "6", 6)
		add("features.5.weight", "8,6,3,3", 432); add("features.5.bias", "8", 8)
		add("lin0.model.1.weight", "1,6,1,1", 6, "head"); add("lin1.model.1.weight", "1,8,1,1", 8, "head")
		header = "{" header "}"
		while (length(header) % 8)
			header = header " "
		printf "\\%03o\\%03o\\000\\000\\000\\000\\000\\000%s%s", length(header) % 256, int(length(header) / 256), header, body
	}' > "$1.text"
	printf '%b' "$(sed 's/\\\([0-7]\{3\}\)/\\0\1/g' "$1.text")" > "$1"
}

setup_file() {
	cd "$BATS_FILE_TMPDIR"
	lwm-synth clips -n 10 --size 16 --frames 4 -o clips -q
	network net 1
	network other 2
}

setup() {
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	seen=(--perceptual 0.5 --perceptual-net net)
	recon=(lwm-train-stage -q --device cpu --threads 1 --objective reconstruction --model tiny --hidden 4 --groups 2
		--channel-mult "1,2,2" --codes 16 --resolution 16 --data clips --batch-frames 4 --warmup-steps 0 --probe-frames 8)
}

# last FILE KEY [EVENT]: the number of its last such event
last() {
	grep "\"event\":\"${3:-step}\"" "$1/metrics.jsonl" | tail -n 1 | sed -nE "s/.*\"$2\":([-0-9.e]+).*/\1/p"
}

first() {
	grep "\"event\":\"${3:-step}\"" "$1/metrics.jsonl" | head -n 1 | sed -nE "s/.*\"$2\":([-0-9.e]+).*/\1/p"
}

@test "perceptual: what is held out looks more alike" {
	ok "${recon[@]}" "${seen[@]}" -o "$out/seen" --steps 60 --lr 4e-3 --eval-every 1 --checkpoint-every 0
	local from to
	from=$(first "$out/seen" perceptual eval) to=$(last "$out/seen" perceptual eval)
	echo "held out: $from, $to"
	awk -v a="$from" -v b="$to" 'BEGIN { exit !(a > 0 && b < 0.6 * a) }'
	ok "${recon[@]}" -o "$out/blind" --steps 2
	[ -z "$(last "$out/blind" perceptual)" ]
}

@test "perceptual: two ranks see what one sees" {
	ok "${recon[@]}" "${seen[@]}" -o "$out/one" --steps 4 --frames-per-pass 2
	ok mpirun -n 2 --oversubscribe "${recon[@]}" "${seen[@]}" -o "$out/two" --steps 4
	local key
	for key in loss perceptual l1 vq; do
		echo "$key: $(last "$out/one" $key) $(last "$out/two" $key)"
		awk -v a="$(last "$out/one" $key)" -v b="$(last "$out/two" $key)" 'BEGIN { exit !(a > 0 && a - b < 2e-5 * a && b - a < 2e-5 * a) }'
	done
}

@test "perceptual: resumed it is as if never stopped; with another network it is refused" {
	ok "${recon[@]}" "${seen[@]}" -o "$out/all" --steps 4
	code 75 "${recon[@]}" "${seen[@]}" -o "$out/half" --steps 4 --stop-after 2
	cp net moved
	code 78 "${recon[@]}" --perceptual 0.5 --perceptual-net other -o "$out/half" --steps 4
	err_has 'begun with other settings: perceptual-net'
	code 78 "${recon[@]}" -o "$out/half" --steps 4
	err_has 'perceptual 0.0, was 0.5'
	ok "${recon[@]}" --perceptual 0.5 --perceptual-net moved -o "$out/half" --steps 4
	same "$out/all/step_00000004/part_00000.h5" "$out/half/step_00000004/part_00000.h5"
	code 75 "${recon[@]}" -o "$out/blind" --steps 4 --stop-after 2
	code 78 "${recon[@]}" "${seen[@]}" -o "$out/blind" --steps 4
	ok "${recon[@]}" "${seen[@]}" -o "$out/blind" --steps 4 --allow-change perceptual --allow-change perceptual-net
}

@test "perceptual: what is no such network is refused before anything is decoded" {
	code 66 "${recon[@]}" --perceptual 1 --perceptual-net nothing -o "$out/x"
	code 66 "${recon[@]}" --perceptual 1 --perceptual-net nothing -o "$out/x" --plan
	head -c 1000 net > cut
	code 65 "${recon[@]}" --perceptual 1 --perceptual-net cut -o "$out/x"
	code 65 "${recon[@]}" --perceptual 1 --perceptual-net clips/clip-00000.mp4 -o "$out/x"
	err_has 'clips/clip-00000.mp4'
	code 64 "${recon[@]}" --perceptual 1 -o "$out/x"
	err_has '--perceptual wants the network'
	code 64 "${recon[@]}" --perceptual-net net -o "$out/x"
	err_has 'no --perceptual weight makes use of it'
	[ ! -e "$out/x/metrics.jsonl" ]
}

@test "frames of any size, and pieces of larger ones" {
	ok "${recon[@]}" -o "$out/wide" --size 24x16 --steps 2
	ok lwm-merge-ckpt -q "$out/wide" -o "$out/model"
	ok "${recon[@]}" -o "$out/wider" --size 36x12 --steps 1 --probe-frames 0 --start-from model:"$out/model"
	code 78 "${recon[@]}" -o "$out/no" --size 24x18 --check-options
	err_has 'frames of 24 x 18 (--size, --resolution): this VQGAN takes multiples of 4'
	code 64 "${recon[@]}" -o "$out/no" --size 24x --check-options
	code 64 "${recon[@]}" -o "$out/no" --size 24,16 --check-options
	code 78 "${recon[@]}" -o "$out/no" --size 24x16 --crop-from 32x12 --check-options
	err_has '--crop-from 32x12: has no pieces of 24 x 16'
	code 78 "${recon[@]}" "${seen[@]}" -o "$out/no" --size 16x12 --crop-from 8 --check-options
	ok "${recon[@]}" -o "$out/whole" --crop-from 16 --steps 3
	ok "${recon[@]}" -o "$out/plain" --steps 3
	same "$out/whole/step_00000003/part_00000.h5" "$out/plain/step_00000003/part_00000.h5"
	ok "${recon[@]}" -o "$out/pieces" --size 8 --crop-from 20x16 --steps 3
	ok mpirun -n 2 --oversubscribe "${recon[@]}" -o "$out/two" --size 8 --crop-from 20x16 --steps 3
	[ "$(last "$out/pieces" frames)" = 4 ]
	awk -v a="$(last "$out/pieces" l1)" -v b="$(last "$out/two" l1)" 'BEGIN { exit !(a > 0 && a - b < 2e-5 * a && b - a < 2e-5 * a) }'
}

@test "pipelines/frames.yaml: small frames, larger ones, whole ones" {
	local set=(--set videos=clips --set net=net --set out=run --set model=tiny --set fps=0 --set small=16 --set small_from=24x16
		--set large=24 --set large_from=32x24 --set long=32x24 --set small_batch=4 --set large_batch=4 --set long_batch=2
		--set small_steps=3 --set large_steps=2 --set long_steps=2 --set probe=4
		--set judged_from=1 --set disc_channels=4 --set disc_layers=2)
	ok lwm-run -q "$ROOT/pipelines/frames.yaml" "${set[@]}"
	ok lwm-inspect run/models/vqgan
	[ -n "$(last run/train/long perceptual)" ]
	[ -n "$(last run/train/long disc_loss)" ]
	ok lwm-vqgan-encode -q -m run/models/vqgan -t bytes --device cpu --width 32 --height 24 clips -o codes.h5
	ok lwm-run --plan "$ROOT/pipelines/frames.yaml" "${set[@]}"
}

# Beside the loss a patch discriminator of two layers.
against=(--adversarial 0.5 --disc-channels 8 --disc-layers 2 --beta1 0.5 --beta2 0.9)

@test "discriminator: it learns to tell, and training stays what it was" {
	ok "${recon[@]}" "${against[@]}" --adversarial-start 10 -o "$out/run" --steps 60 --lr 3e-3 --checkpoint-every 0 --holdout 5
	[ "$(grep -c '"disc_loss"' "$out/run/metrics.jsonl")" = 51 ] # 50 steps and the evaluation
	# the hinge loss begins at 1, and falls while the frames made are easy to tell
	grep '"event":"step"' "$out/run/metrics.jsonl" | sed -nE 's/.*"disc_loss":([-0-9.e]+).*/\1/p' > told
	awk '{ sum[NR > 40] += $1; n[NR > 40]++; if ($1 < least || NR == 1) least = $1; if (NR == 1) first = $1 }
		END { print first, least, sum[0] / n[0], sum[1] / n[1]; exit !(first > 0.95 && first < 1.05 && least < 0.9) }' told
	# and the frames go on to become better
	local from to
	from=$(first "$out/run" l1) to=$(last "$out/run" l1)
	echo "l1: $from, $to"
	awk -v a="$from" -v b="$to" 'BEGIN { exit !(b < 0.7 * a) }'
	awk -v w="$(last "$out/run" gen_weight)" 'BEGIN { exit !(w > 0 && w <= 5e3) }'
}

@test "discriminator: two ranks judge what one judges, in any number of passes" {
	local key
	ok "${recon[@]}" "${against[@]}" "${seen[@]}" -o "$out/one" --steps 4
	ok mpirun -n 2 --oversubscribe "${recon[@]}" "${against[@]}" "${seen[@]}" -o "$out/two" --steps 4 --frames-per-pass 1
	for key in loss disc_loss gen_loss logits_real logits_made gen_weight l1; do
		echo "$key: $(last "$out/one" $key) $(last "$out/two" $key)"
		awk -v a="$(last "$out/one" $key)" -v b="$(last "$out/two" $key)" 'BEGIN {
			d = a > b ? a - b : b - a; m = a > 0 ? a : -a
			exit !(m > 0 && d < 1e-3 * m + 1e-6) }'
	done
}

@test "discriminator: resumed it is as if never stopped; no part of the model" {
	ok "${recon[@]}" "${against[@]}" --adversarial-start 1 -o "$out/all" --steps 4
	code 75 "${recon[@]}" "${against[@]}" --adversarial-start 1 -o "$out/half" --steps 4 --stop-after 2
	ok "${recon[@]}" "${against[@]}" --adversarial-start 1 -o "$out/half" --steps 4
	same "$out/all/step_00000004/part_00000.h5" "$out/half/step_00000004/part_00000.h5"
	ok lwm-inspect --tensors "$out/all/step_00000004"
	has 'discriminator.conv3.weight'
	ok lwm-merge-ckpt -q "$out/all" -o "$out/model" --verify
	ok lwm-inspect --tensors "$out/model"
	has 'decoder.conv_out.weight'
	lacks 'discriminator'
	code 78 "${recon[@]}" -o "$out/half" --steps 4
	err_has 'adversarial 0.0, was 0.5'
	# from and to stages that have none
	ok "${recon[@]}" "${against[@]}" --probe-frames 0 -o "$out/next" --steps 1 --start-from model:"$out/model"
	ok "${recon[@]}" --probe-frames 0 -o "$out/last" --steps 1 --start-from checkpoint:"$out/all"
	# what it has learned goes on where the next stage has one of the same shape, and is in the way of none of another
	ok "${recon[@]}" "${against[@]}" --probe-frames 0 -o "$out/same" --steps 1 --start-from checkpoint:"$out/all"
	awk -v a="$(last "$out/same" disc_loss)" -v b="$(last "$out/next" disc_loss)" 'BEGIN { exit !(a != b) }'
	code 78 "${recon[@]}" "${against[@]}" --disc-channels 4 --probe-frames 0 -o "$out/other" --steps 1 --start-from checkpoint:"$out/all"
	err_has 'discriminator.conv0.weight'
}

@test "discriminator: what cannot be one is refused" {
	code 78 "${recon[@]}" --adversarial 1 --disc-layers 4 -o "$out/no" --check-options
	err_has 'frames of 16 x 16 have no patch for a discriminator of 4 layers (--disc-layers)'
	code 78 "${recon[@]}" --adversarial 1 --disc-layers 2 --disc-channels 6 -o "$out/no" --check-options
	err_has 'a multiple of 4'
	code 64 "${recon[@]}" --adversarial -1 -o "$out/no" --check-options
}
