load ../lib

# Clips of 8 frames, and a small VQGAN (4x4 codes a frame of 16x16) that is hardly trained: nothing here looks at pictures.
setup_file() {
	cd "$BATS_FILE_TMPDIR"
	lwm-synth clips -n 4 --size 16 --frames 8 -o clips -q
	lwm-train-stage --objective reconstruction --model tiny --hidden 4 --groups 2 --channel-mult 1,2,2 --codes 16 \
		--resolution 16 --data clips --steps 2 --batch-frames 4 --device cpu -o vq -q
	lwm-synth clips -n 2 --size 16 --frames 3 --store png -o pngs -q
}

setup() {
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	enc=(lwm-vqgan-encode -m vq -t bytes --device cpu -q)
	dec=(lwm-vqgan-decode -m vq --device cpu -q)
}

recon() { # recon OUT [OPTION...]: four steps, the measures of the last
	lwm-train-stage --objective reconstruction --model tiny --hidden 4 --groups 2 --channel-mult 1,2,2 --codes 16 --resolution 16 \
		--data clips --steps 4 --batch-frames 4 --device cpu -o "$out/$1" -q "${@:2}" >/dev/null
	sed -nE 's/.*"event":"step","step":4,.*"vq":([^,]*),.*/\1/p' "$out/$1/metrics.jsonl"
}

# The ids of the document that lwm-inspect --json has just shown, one a line.
tokens() {
	sed 's/.*"tokens": *\[\([0-9, ]*\)\].*/\1/' <<< "$output" | tr -d ' ' | tr ',' '\n'
}

@test "help, version, usage" {
	for t in lwm-vqgan-encode lwm-vqgan-decode; do
		ok $t --help
		has "--model"
		has "Examples"
		ok $t --version
		code 64 $t
		code 64 $t --no-such-option x
	done
	code 64 "${enc[@]}" clips
	err_has "--out-dir"
	code 64 "${enc[@]}" clips -o "$out/a.h5" -d "$out"
	code 64 "${enc[@]}" clips -o "$out/a.h5" --tasks 2
	code 64 "${enc[@]}" clips -o "$out/a.h5" --width 18
	err_has "multiples of 4"
	code 66 "${enc[@]}" nowhere -o "$out/a.h5"
	code 66 lwm-vqgan-encode -m nowhere -t bytes --device cpu clips -o "$out/a.h5"
	code 78 "${enc[@]}" clips -f '[a,b]' -o "$out/a.h5"
	gone "$out/a.h5"
	ok "${enc[@]}" clips -o "$out/a.h5" --plan
	has "clips/clip-00000.mp4 -> "
	gone "$out/a.h5"
}

@test "tokens of a document: marks, frames, ends, caption" {
	ok "${enc[@]}" clips -f '[vision],caption' -o "$out/a.h5" --json
	has '"documents":4'
	has '"frames":32'
	ok lwm-inspect "$out/a.h5" --json
	# 259 pieces of bytes; 16 codes, end of frame, end of vision
	has '"vocab_vision":18'
	caption=$(< clips/clip-00002.txt)
	# <s> <vision> 8 frames of 16 codes and a mark, </vision> caption </s>
	n=$((1 + 8 + 8 * 17 + 9 + ${#caption} + 1))
	ok lwm-inspect "$out/a.h5" --doc 2 --tokens -1 --json
	tokens > "$out/ids"
	[ "$(wc -l < "$out/ids")" = $n ]
	[ "$(grep -c '^275$' "$out/ids")" = 7 ] # 259 + 16: end of frame
	[ "$(grep -c '^276$' "$out/ids")" = 1 ] # end of vision
	[ "$(awk '$1 >= 259 && $1 < 275' "$out/ids" | wc -l)" = 128 ]
}

@test "again is nothing to do, other settings and other text need --force" {
	cp -r clips "$out/in"
	ok "${enc[@]}" "$out/in" -f '[vision],caption' -f '[caption],vision' -o "$out/a.h5"
	cp "$out/a.h5" "$out/first"
	ok "${enc[@]}" "$out/in" -f '[vision],caption' -f '[caption],vision' -o "$out/a.h5" --json
	has '"skipped":true'
	ok "${enc[@]}" "$out/in" -f '[vision],caption' -f '[caption],vision' -o "$out/a.h5" --force --frames-per-pass 3
	same "$out/a.h5" "$out/first"
	code 73 "${enc[@]}" "$out/in" -f '[vision],caption' -o "$out/a.h5"
	echo "a longer caption" > "$out/in/clip-00000.txt"
	code 73 "${enc[@]}" "$out/in" -f '[vision],caption' -f '[caption],vision' -o "$out/a.h5"
	same "$out/a.h5" "$out/first"
}

@test "array tasks share the inputs and keep their numbers" {
	ok "${enc[@]}" clips -d "$out/all" --json
	for t in 0 1 2; do ok "${enc[@]}" clips -d "$out/p" --task $t --tasks 3 --json; done
	[ "$(ls "$out"/p/*.h5 | wc -l)" = 3 ]
	ok lwm-inspect "$out/p/part-00000-of-00003.docs.h5"
	has "clip-00000.mp4"
	has "clip-00003.mp4"
	lacks "clip-00001.mp4"
	ok "${enc[@]}" clips -d "$out/p" --task 4 --tasks 5
	ok "${enc[@]}" clips/clip-00000.mp4 -d "$out/q" --task 1 --tasks 2
	gone "$out/q"
}

@test "frame limits, images, folders of frames" {
	ok "${enc[@]}" clips/clip-00000.mp4 --max-frames 3 -o "$out/a.h5" --json
	has '"frames":3'
	ok "${enc[@]}" clips/clip-00000.mp4 --sample-frames 5 -o "$out/b.h5" --json
	has '"frames":5'
	ok "${enc[@]}" clips/clip-00000.mp4 --fps 2 -o "$out/c.h5" --json
	has '"frames":4'
	ok "${enc[@]}" pngs -f vision -o "$out/d.h5" --json
	has '"documents":6'
	has '"frames":6'
	ok "${enc[@]}" pngs --frame-folders -f '[vision],caption' -o "$out/e.h5" --json
	has '"documents":2'
	has '"frames":6'
	printf '%s\n' "# two" clips/clip-00001.mp4 clips/clip-00002.mp4 > "$out/list"
	ok "${enc[@]}" "@$out/list" --width 32 --height 16 -o "$out/f.h5" --json
	has '"documents":2'
}

@test "inputs that cannot be used are counted and reported" {
	mkdir "$out/in"
	cp clips/clip-0000[01].* "$out/in"
	head -c 1500 clips/clip-00002.mp4 > "$out/in/cut.mp4"
	echo hello > "$out/in/text.mp4"
	: > "$out/in/empty.png"
	ok "${enc[@]}" "$out/in" -o "$out/a.h5" --json
	has '"clips":5'
	has '"documents":2'
	has '"rejected":3'
	err_has "cut.mp4"
	err_has "empty.png: is empty"
	code 65 "${enc[@]}" "$out/in" -o "$out/b.h5" --max-bad 2
	gone "$out/b.h5"
	code 65 "${enc[@]}" "$out/in/text.mp4" -o "$out/c.h5"
	err_has "none of 1 inputs"
	gone "$out/c.h5"
	rm "$out/in/clip-00000.txt" "$out/in/clip-00000.json"
	ok "${enc[@]}" "$out"/in/clip-*.mp4 -f '[vision],caption' -o "$out/d.h5" --json
	has '"documents":1'
	err_has "no text 'caption'"
}

@test "decoding: clips, pictures, sheets, the codes of a list" {
	ok "${enc[@]}" clips -f '[caption],vision' -o "$out/a.h5"
	ok "${dec[@]}" "$out/a.h5" -n 1 -o "$out/1.mp4" --json
	has '"frames":8'
	ok "${dec[@]}" "$out/a.h5" -n 1 --first 2 --frames 1 -o "$out/1.png"
	ok "${dec[@]}" "$out/a.h5" -n 1 --first 2 --frames 1 --device ref -o "$out/1ref.ppm"
	ok "${dec[@]}" "$out/a.h5" -n 1 --beside clips/clip-00001.mp4 --zoom 2 -o "$out/sheet.png" --json
	has '"psnr":'
	ok lwm-vqgan-encode -m vq -t bytes --device cpu -q "$out/1.mp4" -o "$out/again.h5" # what we write can be read
	# the codes of a document, taken out and given as a list, are the same picture
	ok lwm-inspect "$out/a.h5" --doc 1 --tokens -1 --json
	echo "[$(tokens | awk '$1 >= 259 && $1 < 275 { print $1 - 259 }' | paste -sd,)]" > "$out/codes.json"
	ok "${dec[@]}" "$out/codes.json" --first 2 --frames 1 -o "$out/2.png"
	same "$out/1.png" "$out/2.png"
	ok "${dec[@]}" "$out/codes.json" -o "$out/2.mp4"
	same "$out/1.mp4" "$out/2.mp4"
	code 73 "${dec[@]}" "$out/codes.json" -o "$out/2.mp4"
}

@test "decoding what is no frame" {
	ok "${enc[@]}" clips/clip-00000.mp4 -o "$out/a.h5"
	code 64 "${dec[@]}" "$out/a.h5" -n 1 -o "$out/x.png"
	code 64 "${dec[@]}" "$out/a.h5" --first 8 -o "$out/x.png"
	code 64 "${dec[@]}" "$out/a.h5" -o "$out/x.tga"
	code 65 "${dec[@]}" "$out/a.h5" --width 32 --height 32 -o "$out/x.png"
	err_has "of the 64 codes of a frame"
	echo '[0,1,2]' > "$out/short.json"
	code 65 "${dec[@]}" "$out/short.json" -o "$out/x.png"
	echo '{"codes":[0,1,2,16]}' > "$out/big.json"
	code 65 "${dec[@]}" "$out/big.json" -o "$out/x.png"
	err_has "no code in 0..15"
	echo '{}' > "$out/none.json"
	code 65 "${dec[@]}" "$out/none.json" -o "$out/x.png"
	words 5 > "$out/t.txt"
	ok lwm-tokenize -t bytes "$out/t.txt" -o "$out/t.h5"
	code 78 "${dec[@]}" "$out/t.h5" -o "$out/x.png"
	code 66 "${dec[@]}" "$out/a.h5" --beside "$out/nothing" -o "$out/x.png"
	code 78 "${dec[@]}" "$out/a.h5" --beside pngs/clip-00000 -o "$out/x.png" # too few frames
	gone "$out/x.png" "$out/x.tga"
}

@test "training: when codes are made, and made anew, can be chosen" {
	always=$(recon always)
	[ -n "$always" ]
	late=$(recon late --quantize-from 100)
	[ "$late" = 0 ] # nothing was quantized yet
	drawn=$(recon drawn --probe-frames 0)
	[ "$drawn" != "$always" ]
	[ "$(recon again --probe-frames 16 --revive-every 1 --revive-until 3)" != "$always" ]
	code 64 lwm-train-stage --objective reconstruction --data clips -o "$out/bad" --quantize-from -1
}

@test "training: the number of threads changes no bit" {
	local n
	for n in 1 2 3 5; do
		recon t$n --threads $n --resolution 64 --batch-frames 3 --frames-per-pass 2
	done
	for n in 2 3 5; do
		same "$out/t$n/step_00000004/part_00000.h5" "$out/t1/step_00000004/part_00000.h5"
	done
	[ "$(grep -c '"event":"step"' "$out/t1/metrics.jsonl")" = 4 ]
}

@test "training: a clip that is held out twice is refused, it would count twice" {
	code 78 lwm-train-stage --objective reconstruction --model tiny --hidden 4 --groups 2 --channel-mult 1,2,2 --resolution 16 \
		--data clips -o "$out/twice" --eval-data clips --eval-data clips/clip-00000.mp4 -q
	err_has 'is held out twice'
	[ ! -e "$out/twice/metrics.jsonl" ]
	recon once --eval-data clips --eval-rows 1000
	grep -q '"event":"eval".*"frames":32,' "$out/once/metrics.jsonl"
}

@test "stopped: finished clips are kept, the next run resumes behind them and the bytes are the same" {
	ok lwm-synth images -n 60 --size 16 -o "$out/many" -q
	local slow=(-m vq -t bytes --device ref --frames-per-pass 1 -f '[vision],caption' "$out/many")
	count_calls "$out/many" lwm-vqgan-encode "${slow[@]}" -o "$out/want.h5"
	code 75 with_fault stop@$((calls / 2)) "$out/many" lwm-vqgan-encode "${slow[@]}" -o "$out/x.h5"
	[[ $stderr =~ 'stopped (SIGUSR1) after '[1-9][0-9]*' of 60 clips' ]]
	gone "$out/x.h5"
	ok lwm-vqgan-encode "${slow[@]}" -o "$out/x.h5"
	err_lacks warning
	same "$out/want.h5" "$out/x.h5"
	same "$out/want.h5.manifest.json" "$out/x.h5.manifest.json"
	gone "$out"/x.h5.aside.*
	# killed: what was put aside before is there
	code 137 with_fault save@$((calls / 3)),kill@$((calls * 3 / 4)) "$out/many" lwm-vqgan-encode "${slow[@]}" -o "$out/y.h5"
	compgen -G "$out/y.h5.aside.*.manifest.json"
	ok lwm-vqgan-encode "${slow[@]}" -o "$out/y.h5"
	err_has 'an earlier run had finished'
	same "$out/want.h5" "$out/y.h5"
	gone "$out"/y.h5.*.tmp.* "$out"/y.h5.aside.*
}

@test "a disk that fails is no bad input, wherever it fails" {
	cp -r clips "$out/in"
	local f k
	for f in "$out"/in/clip-00001.{mp4,txt,json}; do
		rm -rf "$out/want"
		mkdir -p "$out/want"
		count_calls "$f" "${enc[@]}" -f '[vision],caption' "$out/in" -o "$out/want/x.h5"
		[ "$calls" -gt 2 ]
		for ((k = 1; k <= calls; k++)); do
			rm -f "$out/x.h5"*
			run --separate-stderr with_fault 5@$k "$f" "${enc[@]}" -f '[vision],caption' "$out/in" -o "$out/x.h5"
			[ "$status" = 74 ] || [ "$status" = 66 ] || same "$out/want/x.h5.manifest.json" "$out/x.h5.manifest.json"
		done
	done
}

@test "complete means verified: other content, damage and what was borne are seen; leftovers of a kill are replaced" {
	cp -r clips "$out/in"
	ok "${enc[@]}" "$out/in" -o "$out/a.h5"
	cp "$out/a.h5" "$out/first"
	ok "${enc[@]}" "$out/in" -o "$out/a.h5" --json
	has '"skipped":true'
	printf 'x' | dd of="$out/a.h5" bs=1 seek=2000 conv=notrunc status=none
	ok "${enc[@]}" "$out/in" -o "$out/a.h5"
	err_has 'it is made again'
	same "$out/first" "$out/a.h5"
	rm "$out/a.h5.manifest.json" # killed between the two renames
	ok "${enc[@]}" "$out/in" -o "$out/a.h5"
	same "$out/first" "$out/a.h5"
	# a caption of the same length
	sed -i 's/a /A /' "$out/in/clip-00000.txt"
	code 73 "${enc[@]}" "$out/in" -o "$out/a.h5"
	head -c 200 clips/clip-00000.mp4 >"$out/in/bad.mp4"
	ok "${enc[@]}" "$out/in" -o "$out/b.h5"
	err_has 'rejected'
	code 65 "${enc[@]}" "$out/in" -o "$out/b.h5" --max-bad 0
	err_has 'made without 1 inputs'
	# too many bad ones end the run, and a larger number resumes it
	code 65 "${enc[@]}" "$out/in" -o "$out/c.h5" --max-bad 0
	err_has '--max-bad'
	ok "${enc[@]}" "$out/in" -o "$out/c.h5" --max-bad 1
	same "$out/b.h5" "$out/c.h5"
}

@test "frames larger than --max-pixels are refused, named, and counted" {
	cp -r clips "$out/in"
	printf 'P6\n60000 60000\n255\n' >"$out/in/z.ppm"
	ok "${enc[@]}" "$out/in" -o "$out/a.h5" --json
	has '"documents":4'
	has '"rejected":1'
	err_has 'z.ppm: 60000 x 60000 pixels are more than the limit of 67108864 (--max-pixels raises it)'
	# 16 x 16 is just the limit, or one too many
	ok "${enc[@]}" clips -o "$out/b.h5" --max-pixels 256 --json
	has '"documents":4'
	code 65 "${enc[@]}" clips -o "$out/c.h5" --width 4 --height 4 --max-pixels 255
	err_has '16 x 16 pixels are more than the limit of 255'
	gone "$out/c.h5"
	# the usual limit is no new setting for shards that were made before there was one; another one is
	ok lwm-inspect "$out/a.h5" --json
	lacks max_pixels
	ok lwm-inspect "$out/b.h5" --json
	has max_pixels
	code 64 "${dec[@]}" "$out/a.h5" --doc 0 --beside clips/clip-00000.mp4 --max-pixels 255 -o "$out/x.png"
	err_has 'frames of 16 x 16 under a limit of 255 pixels are not possible (--max-pixels)'
	ok "${dec[@]}" "$out/a.h5" --doc 0 --beside clips/clip-00000.mp4 --max-pixels 256 -o "$out/x.png"
	code 65 lwm-train-stage --objective reconstruction --model tiny --hidden 4 --groups 2 --channel-mult 1,2,2 --codes 16 \
		--resolution 8 --data clips --steps 1 --batch-frames 4 --device cpu -o "$out/t" -q --max-pixels 255
	err_has '16 x 16 pixels are more than the limit of 255'
	code 65 lwm-report -o "$out/r.html" --picture p=clips/clip-00000.mp4 --max-pixels 255
	err_has '16 x 16 pixels are more than the limit of 255'
	for t in lwm-vqgan-encode lwm-vqgan-decode lwm-train-stage lwm-sample lwm-report; do
		ok $t --help-all
		has '--max-pixels N'
		has '64M'
		code 64 $t --max-pixels 0
	done
}
