# lwm-eval-chat: conversations with a model that has learnt to count on from what it was told first.
load ../lib

setup_file() {
	export SCRATCH=$BATS_FILE_TMPDIR
	cd "$SCRATCH"
	for _ in {1..40}; do
		printf '{"data": ["%s", "%s", "and?", "%s%s"]}\n' a x a x b y b y c z c z
	done >said.jsonl
	lwm-tokenize -q -t bytes -f '<|chat|>' -o said.docs.h5 said.jsonl
	lwm-pack -q -n 128 -o said.rows.h5 said.docs.h5
	lwm-train-stage -q -o run --data said.rows.h5 --tokenizer bytes --device cpu --seq-length 128 --tokens-per-batch 1K \
		--dim 32 --ffn 64 --heads 2 --layers 2 --threads 1 --steps 80 --lr 1e-2 --warmup-steps 5
}

setup() {
	cd "$BATS_TEST_TMPDIR"
	chat=(lwm-eval-chat -q --threads 1 --device cpu -m "$SCRATCH/run" -t bytes)
}

@test "answers of both turns, and how many were right" {
	printf '%s\n' '{"data": ["a", "x", "and?", "ax"]}' '{"data": ["b", "y", "and?", "wrong"]}' '["c", "and?"]' >ask.jsonl
	ok "${chat[@]}" -o right.json ask.jsonl
	[ "$output" = 'USER: a
ASSISTANT: x
USER: and?
ASSISTANT: ax

USER: b
ASSISTANT: y
USER: and?
ASSISTANT: by
(expected: wrong)

USER: c
ASSISTANT: z
USER: and?
ASSISTANT: cz' ]
	[ "$(cat right.json)" = '{"dialogues":3,"turns":{"1":{"asked":2,"right":2,"share_right":1},"2":{"asked":2,"right":1,"share_right":0.5}}}' ]
	ok "${chat[@]}" --json ask.jsonl
	[ "${#lines[@]}" = 6 ]
	has '{"dialogue":1,"turn":1,"prompt":"and?","text":"by","expected":"wrong","right":false}'
	# a line at a time is the same conversation
	printf 'a\nand?\n' >turns
	ok bash -c "lwm-sample -q --threads 1 -m '$SCRATCH/run' --tokenizer bytes --device cpu --mode chat --temperature 0 <turns"
	[ "$output" = $'x\nax' ]
}

@test "files and options that cannot be used" {
	echo '["a"]' >ask.jsonl
	code 64 "${chat[@]}"
	code 66 "${chat[@]}" absent.jsonl
	code 66 "${chat[@]}" -m absent ask.jsonl
	code 65 "${chat[@]}" "$SCRATCH/said.rows.h5"
	err_has "said.rows.h5, line 1: "
	echo '["a", "USER: b"]' >bad.jsonl
	code 65 "${chat[@]}" -o right.json ask.jsonl bad.jsonl
	err_has "bad.jsonl, line 1: 'USER:' in the text of a turn"
	gone right.json
	code 78 "${chat[@]}" --context 20 ask.jsonl
	err_has 'ask.jsonl, line 1: the conversation fills the context of 20 tokens'
	echo kept >right.json
	code 73 "${chat[@]}" -o right.json ask.jsonl
	[ "$(cat right.json)" = kept ]
	ok "${chat[@]}" -o right.json --force ask.jsonl
	ok "${chat[@]}" --plan ask.jsonl
	[ "$output" = 'to hold: ask.jsonl' ]
}
