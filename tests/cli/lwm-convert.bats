#!/usr/bin/env bats
# lwm-convert: models of other programs as folders that every program opens.
load ../lib

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	golden=$ROOT/tests/golden
}

logits() { lwm-inspect -q --device cpu --logits "$1" 7,8,9; }

@test "models of every format give the logits that they gave, and the weights of the same in safetensors" {
	local pair want
	for pair in torch-1/zip=tied-v5 torch-1/older=grouped-v5 torch-1/parts=mistral-v5 torch-1/wrapped=grouped-v4 \
		flax-1/stream=grouped-v5 flax-1/state=grouped-v4 flax-1/tree=mistral-v5 hf-1/llama-v5=llama-v5; do
		ok lwm-convert -q -t none "$golden/${pair%=*}" -o "out/${pair%=*}" --verify
		ok lwm-convert -q -t none "$golden/hf-1/${pair#*=}" -o "same/${pair%=*}"
		same "out/${pair%=*}/model.safetensors" "same/${pair%=*}/model.safetensors"
		same "out/${pair%=*}/config.json" "same/${pair%=*}/config.json"
		ok lwm-inspect --check "out/${pair%=*}"
		want=$(logits "$golden/hf-1/${pair#*=}")
		[ "$(logits "out/${pair%=*}")" = "$want" ]
	done
	grep -q '"rope_theta": 1000000' out/torch-1/parts/config.json
	grep -q '"torch_dtype": "bfloat16"' out/torch-1/parts/config.json
	grep -q '"torch_dtype": "float32"' out/hf-1/llama-v5/config.json
	grep -q '"tie_word_embeddings": true' out/torch-1/zip/config.json
}

@test "run again it compares and is done; anything else of that name stays without --force" {
	ok lwm-convert "$golden/flax-1/stream" -o out
	err_has 'there is no tokenizer.model'
	ok lwm-convert "$golden/flax-1/stream" -o out --json
	has '"skipped":true'
	err_has 'nothing to do'
	ok lwm-convert -q "$golden/torch-1/older" -o out # the same weights from another file
	code 73 lwm-convert -q "$golden/flax-1/tree" -o out
	code 73 lwm-convert -q "$golden/flax-1/stream" -o out --dtype fp32
	ok lwm-convert -q "$golden/flax-1/stream" -o out --dtype fp32 --force
	ok lwm-convert -q "$golden/flax-1/stream" -o out --dtype fp32
	mkdir mine
	touch mine/letter
	code 73 lwm-convert -q "$golden/flax-1/stream" -o mine --force
	ok test -e mine/letter
	ok lwm-convert --plan "$golden/flax-1/stream" -o planned
	has '21 tensors, 18080 values'
	gone planned
}

@test "in several files, with the tokenizer beside it, of a model of ours" {
	words 200 >book.txt
	lwm-tokenizer-train -q --vocab 300 -o t.model book.txt
	lwm-tokenize -q -t t.model --split-lines 20 book.txt -o b.docs.h5
	lwm-pack -q -n 64 b.docs.h5 -o b.rows.h5
	lwm-train-stage -q --device cpu --threads 1 -o run --model nano --layers 1 --data b.rows.h5 --seq-length 64 \
		--tokenizer t.model --tokens-per-batch 128 --steps 1
	lwm-merge-ckpt -q run -o fp32 --dtype fp32
	ok lwm-convert -q fp32 -o bf16 --dtype bf16 --max-file-size 200K --verify
	ok test -s bf16/model.safetensors.index.json
	same t.model bf16/tokenizer.model
	ok test -s bf16/tokenizer.json
	lwm-merge-ckpt -q run -o merged --dtype bf16 --max-file-size 200K
	for f in merged/*.safetensors; do same "$f" "bf16/${f#*/}"; done
	code 78 lwm-convert -q fp32 -o other -t bytes
	gone other
}

@test "what it cannot take has one sentence and leaves nothing" {
	code 66 lwm-convert nowhere -o out
	cp -r "$golden/torch-1/zip" bad
	truncate -s -3 bad/pytorch_model.bin
	code 65 lwm-convert bad -o out
	err_has 'cut short?'
	cp "$golden/torch-1/older/pytorch_model.bin" bad/ # a head of its own, which the configuration denies
	sed -i 's/"num_key_value_heads": 1/"num_key_value_heads": 2/' bad/config.json
	code 78 lwm-convert bad -o out
	err_has 'tie_word_embeddings'
	cp -r "$golden/torch-1/unsummed" some
	code 78 lwm-convert some -o out
	err_has "has no tensor 'model.layers.0."
	cp -r "$golden/flax-1/stream" family
	sed -i 's/"model_type": "llama"/"model_type": "mamba"/' family/config.json
	code 78 lwm-convert family -o out
	err_has 'model_type is "mamba"'
	rm family/config.json
	code 66 lwm-convert family/params -o out
	code 65 lwm-convert "$golden/vqpickle-1/p2.pkl" -o out
	err_has 'write it with protocol 4'
	gone out
}
