#!/usr/bin/env bats
# lwm-merge-ckpt: models and checkpoints of other ranks from checkpoints.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 200 >book.txt
	lwm-tokenize -q -t bytes --split-lines 20 book.txt -o b.docs.h5
	lwm-pack -q -n 256 b.docs.h5 -o b.rows.h5
	lwm-train-stage -q --device cpu --threads 1 -o run --model nano --layers 2 --data b.rows.h5 --seq-length 256 \
		--tokenizer bytes --tokens-per-batch 512 --steps 2 --checkpoint-every 1 --keep 2
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	cp -r "$BATS_FILE_TMPDIR/run" .
}

@test "a model with its tokenizer, read back" {
	ok lwm-merge-ckpt run -o model --verify --json
	has '"verified":true'
	has '"step":2'
	ok test -s model/model.safetensors
	ok test -s model/tokenizer.txt
	grep -q '"torch_dtype": "bfloat16"' model/config.json
	ok lwm-inspect --check model
	ok lwm-merge-ckpt run/step_00000002/ -o again -q
	same model/model.safetensors again/model.safetensors
	same model/config.json again/config.json
}

@test "fp32, in several files" {
	ok lwm-merge-ckpt -q run -o model --dtype fp32 --max-file-size 500K --verify
	ok test -s model/model.safetensors.index.json
	[ "$(ls model/model-*.safetensors | wc -l)" -gt 1 ]
	grep -q '"torch_dtype": "float32"' model/config.json
	ok lwm-inspect --check model
}

@test "a model proves itself by its logits; the average needs a run that keeps one" {
	ok lwm-merge-ckpt run -o model --logits 40
	err_has 'logits are the checkpoint'
	ok lwm-merge-ckpt run -o fp32 --dtype fp32 --logits 512
	code 64 lwm-merge-ckpt run -o fp32 --dtype fp32 --logits 513
	code 78 lwm-merge-ckpt run -o average --ema
	err_has "holds no 'ema'"
	gone average
	code 64 lwm-merge-ckpt run -o cut --ema --ranks 2
}

@test "nothing is replaced without --force, and only models" {
	ok lwm-merge-ckpt -q run -o model
	code 73 lwm-merge-ckpt -q run -o model --dtype fp32
	code 73 lwm-merge-ckpt -q run/step_00000001 -o model
	ok lwm-merge-ckpt -q run -o model --force --dtype fp32
	ok lwm-inspect --check model
	mkdir mine
	touch mine/letter
	code 73 lwm-merge-ckpt -q run -o mine --force
	ok test -e mine/letter
	gone model.tmp.* mine.tmp.*
}

@test "run again: what is complete is verified, what is damaged is made again" {
	ok lwm-merge-ckpt -q run -o model
	cp -r model first
	ok lwm-merge-ckpt --json run -o model
	has '"skipped":true'
	err_has 'step 2 is complete, nothing to do'
	for f in model.safetensors config.json tokenizer.txt manifest.json; do
		printf 'x' | dd of=model/$f bs=1 seek=20 conv=notrunc status=none
		ok lwm-merge-ckpt --json run -o model
		has '"skipped":false'
		err_has 'it is made again'
		same first/$f model/$f
	done
	rm model/config.json
	ok lwm-merge-ckpt -q run -o model
	same first/config.json model/config.json
	# another program's model is not ours to replace
	cp -r first theirs
	echo '{"made": "elsewhere"}' >theirs/manifest.json
	code 73 lwm-merge-ckpt -q run -o theirs
	# cut for ranks
	ok lwm-merge-ckpt -q run -o cut --ranks 2
	cp cut/step_00000002/COMMIT.json record
	ok lwm-merge-ckpt --json run -o cut --ranks 2
	has '"skipped":true'
	same record cut/step_00000002/COMMIT.json
	code 73 lwm-merge-ckpt run -o cut --ranks 3
	printf 'x' | dd of=cut/step_00000002/part_00001.h5 bs=1 seek=100000 conv=notrunc status=none
	code 73 lwm-merge-ckpt run -o cut --ranks 2
	err_has 'damaged'
	ok lwm-merge-ckpt -q run -o cut --ranks 2 --force
	same record cut/step_00000002/COMMIT.json
}

@test "a SentencePiece tokenizer lies there in the form of other programs too, named by the manifest" {
	ok lwm-tokenizer-train -q --vocab 400 -o t.model "$BATS_FILE_TMPDIR/book.txt"
	ok lwm-tokenize -q -t t.model -o t.docs.h5 "$BATS_FILE_TMPDIR/book.txt"
	ok lwm-pack -q -n 64 -o t.rows.h5 t.docs.h5
	ok lwm-train-stage -q --model nano --seq-length 64 --tokens-per-batch 128 --steps 1 --warmup-steps 1 --data t.rows.h5 --tokenizer t.model \
		--device cpu -o trun
	ok lwm-merge-ckpt -q trun -o tmodel --verify
	grep -q '"bos_token_id": 1' tmodel/config.json
	grep -q '"tokenizer_class": "PreTrainedTokenizerFast"' tmodel/tokenizer_config.json
	grep -q '"byte_fallback": true' tmodel/tokenizer.json
	ok lwm-inspect --check tmodel
	printf 'x' | dd of=tmodel/tokenizer.json bs=1 seek=200 conv=notrunc status=none
	code 65 lwm-inspect --check tmodel
	gone model/tokenizer.json # not beside the byte tokenizer, which it cannot say
}

@test "the wrong tokenizer is refused" {
	ok lwm-tokenizer-train -q --vocab 400 -o t.model "$BATS_FILE_TMPDIR/book.txt"
	code 78 lwm-merge-ckpt -q run -o model -t t.model
	err_has 'was made with'
	code 66 lwm-merge-ckpt -q run -o model -t nowhere
	gone model
	ok lwm-merge-ckpt -q run -o model -t none
	gone model/tokenizer.txt
}

@test "the newest checkpoint that verifies" {
	rm run/step_00000002/COMMIT.json
	ok lwm-merge-ckpt run -o model
	err_has 'passing over run/step_00000002'
	err_has 'step 1'
	code 65 lwm-merge-ckpt -q run/step_00000002 -o other
	err_has 'was not finished'
	rm run/step_00000001/COMMIT.json
	code 65 lwm-merge-ckpt -q run -o other
	code 66 lwm-merge-ckpt -q nothing -o other
	gone other
}

@test "a damaged part gives no model" {
	printf 'xxxx' | dd of=run/step_00000002/part_00000.h5 bs=1 seek=100000 conv=notrunc status=none
	code 65 lwm-merge-ckpt -q run/step_00000002 -o model
	err_has 'damaged'
	gone model model.tmp.*
}

@test "cut for other ranks, and merged to the same bytes" {
	ok lwm-merge-ckpt -q run -o run3 --ranks 3 --verify
	ok lwm-inspect run3
	has 'ranks            3'
	has 'mesh             1,3,1,1'
	ok lwm-inspect --check run3
	ok lwm-merge-ckpt -q run -o m1
	ok lwm-merge-ckpt -q run3 -o m3
	same m1/model.safetensors m3/model.safetensors
	ok lwm-merge-ckpt -q run3 -o run4 --mesh dp:1,fsdp:2,tp:1,sp:2 --verify
	ok lwm-inspect run4/step_00000002
	has 'mesh             1,2,1,2'
	code 73 lwm-merge-ckpt -q run -o run3 --ranks 2
	code 73 lwm-merge-ckpt -q run3 -o run3 --ranks 2 --force
	err_has 'that is being read'
	code 64 lwm-merge-ckpt -q run -o x --mesh 1,-1,1,1
}

@test "training goes on from a checkpoint that was cut" {
	ok lwm-merge-ckpt -q run -o run2 --ranks 2
	for d in run run2; do
		ok lwm-train-stage -q --device cpu --threads 1 -o $d --model nano --layers 2 \
			--data "$BATS_FILE_TMPDIR/b.rows.h5" --seq-length 256 --tokenizer bytes --tokens-per-batch 512 \
			--steps 4 --checkpoint-every 4 --keep 9
		ok lwm-merge-ckpt -q $d -o "$d.model"
	done
	same run.model/model.safetensors run2.model/model.safetensors
}

@test "--plan writes nothing" {
	ok lwm-merge-ckpt --plan run -o model
	has 'bf16'
	ok lwm-merge-ckpt --plan run -o model --ranks 7
	has '7 parts'
	gone model
}

@test "asked to stop: 75, nothing is left, the rerun makes it" {
	code 75 env --block-signal=TERM bash -c 'kill -TERM $$; exec lwm-merge-ckpt "$@"' held -q run -o out/model
	err_has 'stopped (SIGTERM), nothing is kept'
	run find . -path "./out/*"
	[ -z "$output" ]
	ok lwm-merge-ckpt -q run -o out/model
}
