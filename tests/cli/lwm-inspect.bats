#!/usr/bin/env bats
# lwm-inspect: what it says, and that it sees damage of every kind.
load ../lib

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	words 200 >book.txt
	ok lwm-tokenize -q -t bytes --split-lines 20 book.txt -o b.docs.h5
	ok lwm-pack -q -n 256 b.docs.h5 -o b.rows.h5
}

train() {
	ok lwm-train-stage -q --device cpu --threads 1 -o run --model nano --layers 1 --data b.rows.h5 --seq-length 256 \
		--tokens-per-batch 512 --steps 2 --checkpoint-every 1 --keep 2
}

flip() { # FILE OFFSET
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1")
	printf "\\x$(printf %02x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

@test "a document shard" {
	ok lwm-inspect b.docs.h5
	has 'b.docs.h5: document shard'
	has 'documents        10'
	has 'vocab_text       259'
	has 'book.txt'
	ok lwm-inspect --json b.docs.h5
	has '"documents":10'
}

@test "one document, with its text" {
	ok lwm-inspect --doc 1 --tokenizer bytes --tokens 20 b.docs.h5
	has 'length '
	has 'Line 20: '
	has '{"from":0,"to":1,"loss":false}'
	code 64 lwm-inspect --doc 10 b.docs.h5
	err_has 'has 10 documents'
	code 65 lwm-inspect --doc 0 b.rows.h5
}

@test "a row shard and one row" {
	ok lwm-inspect b.rows.h5
	has 'seq_length       256'
	ok lwm-inspect --row 0 --json b.rows.h5
	has '"segments":[{"start":0,'
	code 64 lwm-inspect --row 0 --doc 0 b.rows.h5
	code 64 lwm-inspect --row 0 b.rows.h5 b.docs.h5
}

@test "checkpoints and models, found in a folder" {
	train
	ok lwm-inspect --tensors run/step_00000002
	has 'groups           params adam_m adam_v'
	has 'model.layers.0.self_attn.q_proj.weight'
	ok lwm-merge-ckpt -q -t none run -o model
	ok lwm-inspect model
	has 'num_hidden_layers 1'
	ok lwm-inspect --json .
	[ "$(grep -c '"kind":"checkpoint"' <<<"$output")" = 2 ]
	[ "$(grep -c '"kind":"model"' <<<"$output")" = 1 ]
	[ "$(grep -c 'shard"' <<<"$output")" = 2 ]
	ok lwm-inspect --check .
	[ -z "$output" ]
	[ -z "$stderr" ]
}

@test "damage is seen and named" {
	train
	ok lwm-merge-ckpt -q -t none run -o model
	for f in b.docs.h5 b.rows.h5 run/step_00000001/part_00000.h5 run/step_00000001/COMMIT.json model/model.safetensors \
		b.docs.h5.manifest.json; do
		cp "$f" keep
		flip "$f" $(($(stat -c %s "$f") / 2))
		code 65 lwm-inspect --check .
		err_has "${f%.manifest.json}"
		cp keep "$f"
		head -c 100 keep >"$f"
		code 65 lwm-inspect --check .
		cp keep "$f"
	done
	rm keep
	ok lwm-inspect --check b.docs.h5 b.rows.h5 run model
	rm b.docs.h5.manifest.json run/step_00000002/COMMIT.json
	code 65 lwm-inspect --check .
	err_has 'did not finish'
	err_has 'was not finished'
	err_has '2 of 5'
}

@test "what is not there, and what is not ours" {
	code 66 lwm-inspect nothing
	code 66 lwm-inspect --check nothing
	mkdir empty
	code 66 lwm-inspect empty
	code 65 lwm-inspect book.txt
	code 64 lwm-inspect
	printf '\x3f\0\0\0\0\0\0\0{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}         abcd' >foreign.safetensors
	ok lwm-inspect foreign.safetensors
	has 'checksums        no'
	code 1 lwm-inspect --check foreign.safetensors
	err_has 'made by another program'
}

@test "a hostile name does not reach the terminal" {
	printf '{"text":"x","id":"a"}\n' >'e'$'\033''vil.jsonl'
	ok lwm-tokenize -q -t bytes ./*.jsonl -o e.docs.h5
	ok lwm-inspect --doc 0 e.docs.h5
	lacks $'\033'
}
