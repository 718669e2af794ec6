# Chats as data sets publish them: a tiny made-up file of each layout becomes documents, with and without the codes of clips.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR"
	lwm-synth clips -n 3 --size 16 --frames 5 -o clips -q
	lwm-train-stage --objective reconstruction --model tiny --hidden 4 --groups 2 --channel-mult 1,2,2 --codes 16 \
		--resolution 16 --data clips --steps 1 --batch-frames 4 --device cpu -o vq -q
	mkdir -p media/web
	cp clips/clip-00000.mp4 media/web/v_a.mp4
	cp clips/clip-00001.mp4 media/v_b.mp4
	lwm-vqgan-encode -m vq -t bytes --device cpu -q media -f vision -o codes.docs.h5
	cat >sharegpt.json <<-'J'
		[
		  {
		    "id": "QWJhYvA_0",
		    "conversations": [
		      {"from": "human", "value": "What is 1 + 1?"},
		      {"from": "gpt", "value": "2"},
		      {"from": "human", "value": "And 2 + 2?"},
		      {"from": "gpt", "value": "4"}
		    ]
		  },
		  {
		    "id": "broken",
		    "conversations": [{"from": "human", "value": "Only a question"}]
		  },
		  {
		    "id": "bad",
		    "conversations": [{"from": "human", "value": "Say </s> now"}, {"from": "gpt", "value": "No."}]
		  }
		]
	J
	printf '%s\n' '{"id": "0", "data": ["Hello", "Hi.", "Bye", "So long."]}' '{"id": "1", "data": ["Who?", "I."]}' >ultrachat.jsonl
	printf '[%s, %s, %s]\n' \
		'{"id": "1", "image": "v_b.mp4", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A disc."}, {"from": "human", "value": "Its colour?"}, {"from": "gpt", "value": "Red."}]}' \
		'{"id": "2", "image": "none.jpg", "conversations": [{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "x"}]}' \
		'{"id": "3", "conversations": [{"from": "human", "value": "No image?"}, {"from": "gpt", "value": "None."}]}' >llava.json
	echo '[{"v_id": "v_a", "video": "web/v_a.mp4", "source": "web", "conversations": [{"from": "human", "value": "Describe.\n<video>"}, {"from": "gpt", "value": "It moves."}]}]' >valley.json
	echo '[{"q": "What moves?", "a": "A disc.", "video_id": "v_a"}]' >videochat.json
}

setup() {
	cd "$BATS_FILE_TMPDIR"
	out=$BATS_TEST_TMPDIR
	chat=(lwm-tokenize -t bytes -f '<|chat|>' --frame-codes 16 --vision-codes 16)
}

# The text of document N: bytes as text, ^ and $ for the marks, . for ids of vision.
text() { # SHARD N
	lwm-inspect "$1" --doc "$2" --tokens -1 --json | sed 's/.*"tokens": *\[\([0-9, ]*\)\].*/\1/' | tr -d ' ' | tr ',' '\n' |
		awk '{ printf "%s", $1 == 1 ? "^" : $1 == 2 ? "$" : $1 == 13 ? "|" : ($1 > 258) ? "." : sprintf("%c", $1 - 3) } END { print "" }'
}
HEAD='^You are a helpful assistant. USER: '
frames() { printf '%*s' $((17 * $1)) '' | tr ' ' .; }

@test "ShareGPT and UltraChat: every answer has loss; broken records are counted, by file and line" {
	ok "${chat[@]}" --chat-layout sharegpt sharegpt.json -o "$out/s.h5" --json
	has '"documents_in":3'
	has '"documents_out":1'
	has '"malformed":2'
	has '"loss_tokens":4' # 2 </s> 4 </s>
	err_has 'sharegpt.json, record at line 11: '
	err_has 'there is no question with an answer'
	err_has "sharegpt.json, record at line 15: '</s>' in the text of a turn"
	[ "$(text "$out/s.h5" 0)" = "${HEAD}What is 1 + 1? ASSISTANT:2\$USER: And 2 + 2? ASSISTANT:4\$" ]
	ok "${chat[@]}" --chat-layout ultrachat ultrachat.jsonl -o "$out/u.h5" --json
	has '"documents_out":2'
	has '"loss_tokens":16'
	[ "$(text "$out/u.h5" 0)" = "${HEAD}Hello ASSISTANT:Hi.\$USER: Bye ASSISTANT:So long.\$" ]
	# a file that was cut
	head -c 330 sharegpt.json >"$out/cut.json"
	ok "${chat[@]}" "$out/cut.json" -o "$out/cut.h5" --json
	has '"documents_out":1'
	err_has 'cut.json: the file ends in the record that begins at line 11'
	# text alone: no vision vocabulary
	ok lwm-inspect "$out/u.h5"
	has 'vocab_vision     0'
}

@test "LLaVA, Valley and Video-ChatGPT: codes by name, several questions share them, frames are thinned" {
	for f in llava valley videochat; do
		ok "${chat[@]}" --codes codes.docs.h5 $f.json -o "$out/$f.h5" --json
	done
	[ "$(text "$out/llava.h5" 0)" = "${HEAD}What is it?|<vision>$(frames 5)</vision> ASSISTANT:A disc.\$USER: Its colour? ASSISTANT:Red.\$" ]
	[ "$(text "$out/llava.h5" 1)" = "${HEAD}No image? ASSISTANT:None.\$" ]
	[ "$(text "$out/valley.h5" 0)" = "${HEAD}Describe.|<vision>$(frames 5)</vision> ASSISTANT:It moves.\$" ]
	ok "${chat[@]}" --codes codes.docs.h5 --max-frames 2 videochat.json -o "$out/two.h5"
	[ "$(text "$out/two.h5" 0)" = "${HEAD}What moves?|<vision>$(frames 2)</vision> ASSISTANT:A disc.\$" ]
	# the clip that was never encoded
	ok "${chat[@]}" --codes codes.docs.h5 llava.json -o "$out/again.h5"
	err_has "llava.json, record 2 that begins at line 1: no clip that is called 'none.jpg' has been encoded"
	# without codes, and with others
	code 65 "${chat[@]}" valley.json -o "$out/x.h5"
	err_has "'web/v_a.mp4', and there are no codes"
	code 78 lwm-tokenize -t bytes -f '<|chat|>' --codes codes.docs.h5 valley.json -o "$out/x.h5"
	err_has 'another codebook (16 codes, wanted 8192)'
	gone "$out/x.h5"
}

@test "system prompts, words of the model, and other settings make another shard" {
	ok "${chat[@]}" --system 'Be brief.' ultrachat.jsonl -o "$out/u.h5"
	[ "$(text "$out/u.h5" 1)" = '^Be brief. USER: Who? ASSISTANT:I.$' ]
	code 73 "${chat[@]}" --system '' ultrachat.jsonl -o "$out/u.h5"
	ok "${chat[@]}" --system '' ultrachat.jsonl -o "$out/u.h5" --force
	[ "$(text "$out/u.h5" 1)" = '^USER: Who? ASSISTANT:I.$' ]
	ok "${chat[@]}" --escape-special sharegpt.json -o "$out/s.h5" --json
	has '"malformed":1'
	[ "$(text "$out/s.h5" 1)" = "${HEAD}Say < /s> now ASSISTANT:No.\$" ]
	# other codes
	ok "${chat[@]}" --codes codes.docs.h5 valley.json -o "$out/v.h5"
	ok "${chat[@]}" --codes codes.docs.h5 valley.json -o "$out/v.h5"
	err_lacks 'rejected'
	mkdir -p "$out/c"
	cp clips/clip-00002.mp4 "$out/c/v_a.mp4"
	ok lwm-vqgan-encode -m vq -t bytes --device cpu -q "$out/c" -f vision -o "$out/c.h5"
	code 73 "${chat[@]}" --codes "$out/c.h5" valley.json -o "$out/v.h5"
}

@test "turns that lie beside a clip: the encoder makes the same document" {
	mkdir -p "$out/m"
	cp media/web/v_a.mp4 "$out/m"
	sed 's/^.//; s/.$//' valley.json >"$out/m/v_a.json"
	ok lwm-vqgan-encode -m vq -t bytes --device cpu -q "$out/m" -f '<|chat|>' -o "$out/e.h5" --json
	ok "${chat[@]}" --codes codes.docs.h5 valley.json -o "$out/v.h5"
	[ "$(text "$out/e.h5" 0)" = "$(text "$out/v.h5" 0)" ]
	echo '{"caption": "x"}' >"$out/m/v_a.json"
	code 65 lwm-vqgan-encode -m vq -t bytes --device cpu -q "$out/m" -f '<|chat|>' -o "$out/f.h5"
	err_has 'no turns'
}

@test "threads change nothing, and folders are not searched for .json" {
	for _ in {1..40}; do cat ultrachat.jsonl; done >"$out/many.jsonl"
	{ echo '['; sed 's/$/,/' "$out/many.jsonl"; echo ']'; } >"$out/many.json"
	ok "${chat[@]}" --threads 1 "$out/many.json" -o "$out/1.h5"
	ok "${chat[@]}" --threads 4 "$out/many.json" -o "$out/4.h5"
	same "$out/1.h5" "$out/4.h5"
	mkdir "$out/in"
	cp "$out/many.json" ultrachat.jsonl "$out/in"
	ok "${chat[@]}" "$out/in" -o "$out/in.h5" --json
	has '"documents_out":2'
	gzip -k "$out/many.json"
	ok "${chat[@]}" "$out/many.json.gz" -o "$out/z.h5" --json
	has '"documents_out":80'
}
