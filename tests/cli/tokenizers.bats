# A model knows its tokenizer: every program that opens one says so when it is damaged (65) or another one (78).
load ../lib

# Two tokenizers of as many pieces; rows of each, and a model of the first.
setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 300 >words.txt
	tac words.txt | tr 'a-e' 'e-i' >other.txt
	lwm-tokenizer-train -q --vocab 320 -o a.model words.txt
	lwm-tokenizer-train -q --vocab 320 -o b.model other.txt
	for t in a b; do
		lwm-tokenize -q -t $t.model --split-lines 20 -o $t.docs.h5 words.txt
		lwm-pack -q -n 64 -o $t.rows.h5 $t.docs.h5
	done
	tiny=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 2 --seq-length 64 --tokens-per-batch 256)
	lwm-train-stage -q "${tiny[@]}" --data a.rows.h5 --tokenizer a.model --steps 1 -o ckpt
	lwm-merge-ckpt -q ckpt -o model
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	f=$BATS_FILE_TMPDIR
	cp -r "$f/model" "$f/ckpt" "$f/a.model" .
	tiny=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 2 --seq-length 64 --tokens-per-batch 256)
	sample=(lwm-sample -q --threads 1 --device cpu --max-tokens 2 -p the)
	needle=(lwm-eval-needle -q --threads 1 --context-lengths-min 300 --context-lengths-max 300
		--n-context-length-intervals 1 --n-document-depth-intervals 1 --n-rounds 1 --answer-tokens 2
		--haystack "$f/words.txt" -o needle)
	ask=(lwm-qa-gen -q --threads 1 --chunk-tokens 16 --target-tokens 400 --answer-tokens 4 -d qa)
	stage=(lwm-train-stage -q "${tiny[@]}" --steps 2)
}

hash_of() { lwm-inspect --json "$1" | sed -nE 's/.*"tokenizer(_hash)?":"([0-9a-f]{32})".*/\2/p'; }

damage() { # damage FILE OFFSET: one bit
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
	# shellcheck disable=SC2059
	printf "\\x$(printf %x $((byte ^ 4)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

refuses() { # refuses CODE COMMAND...: and names both hashes, when they contradict each other
	code "$@"
	[ "$1" != 78 ] || { err_has "$a" && err_has "$b"; }
}

@test "as they belong together, everything runs" {
	ok "${sample[@]}" -m model
	ok "${sample[@]}" -m ckpt --tokenizer model
	ok "${needle[@]}" -m model
	ok "${stage[@]}" --data "$f/a.rows.h5" --start-from model:model --tokenizer model -o out
	[ -n "$(hash_of model)" ]
	[ "$(hash_of model)" = "$(hash_of "$f/a.docs.h5")" ]
}

@test "a tokenizer of another model is 78 and named with both hashes" {
	a=$(hash_of "$f/a.docs.h5") b=$(hash_of "$f/b.docs.h5")
	[ "$a" != "$b" ]
	for m in model ckpt; do
		refuses 78 "${sample[@]}" -m $m --tokenizer "$f/b.model"
		refuses 78 "${needle[@]}" -m $m --tokenizer "$f/b.model"
		refuses 78 "${ask[@]}" -m $m --tokenizer "$f/b.model" "$f/a.docs.h5"
	done
	refuses 78 lwm-merge-ckpt -q ckpt -o again -t "$f/b.model"
	refuses 78 "${stage[@]}" --data "$f/a.rows.h5" --tokenizer "$f/b.model" -o out
	refuses 78 "${stage[@]}" --data "$f/b.rows.h5" --start-from model:model -o out
	refuses 78 "${stage[@]}" --data "$f/b.rows.h5" --start-from checkpoint:ckpt -o out
	refuses 78 "${stage[@]}" --data "$f/b.rows.h5" -o ckpt # goes on with rows of another tokenizer
	refuses 78 lwm-inspect --doc 0 --tokenizer "$f/b.model" "$f/a.docs.h5"
	gone again needle/results.jsonl
}

@test "a model without a tokenizer beside it still knows which is its own" {
	a=$(hash_of "$f/a.docs.h5") b=$(hash_of "$f/b.docs.h5")
	ok lwm-merge-ckpt -q ckpt -o bare -t none
	gone bare/tokenizer.model
	[ "$(hash_of bare)" = "$a" ]
	ok "${sample[@]}" -m bare --tokenizer "$f/a.model"
	refuses 78 "${sample[@]}" -m bare --tokenizer "$f/b.model"
	refuses 78 "${stage[@]}" --data "$f/b.rows.h5" --start-from model:bare -o out
	cp "$f/b.model" bare/tokenizer.model # put there later: not in the manifest
	refuses 78 "${sample[@]}" -m bare
}

@test "one flipped bit in a model folder is 65, whoever opens it" {
	local file
	for file in tokenizer.model config.json manifest.json model.safetensors; do
		damage model/$file $(($(stat -c %s model/$file) / 2))
		code 65 "${sample[@]}" -m model
		err_has 'model/'
		code 65 "${needle[@]}" -m model
		code 65 "${ask[@]}" -m model "$f/a.docs.h5"
		code 65 "${stage[@]}" --data "$f/a.rows.h5" --start-from model:model -o out
		code 65 lwm-inspect --check model
		rm -rf model
		cp -r "$f/model" .
	done
	ok lwm-inspect --check model
}

@test "a damaged tokenizer is no tokenizer for anything else either" {
	damage model/tokenizer.model 500 # in a score: such a model still loads
	code 65 lwm-tokenize -q -t model -o x.h5 "$f/words.txt"
	err_has 'tokenizer.model'
	code 65 lwm-tokenize -q -t model/tokenizer.model -o x.h5 "$f/words.txt"
	code 65 lwm-synth -q needles -n 1 -t model -o x.jsonl
	code 65 lwm-merge-ckpt -q ckpt -o again -t model
	code 65 "${sample[@]}" -m ckpt --tokenizer model
	code 65 "${stage[@]}" --data "$f/a.rows.h5" --tokenizer model -o out
	code 65 lwm-vqgan-encode -q -m nowhere -t model -o x.h5 "$f/words.txt"
	gone x.h5 x.jsonl again
}

@test "a layer less in config.json is not a smaller model" {
	sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 1/' model/config.json
	code 65 "${sample[@]}" -m model
	err_has 'config.json'
	rm model/manifest.json # as if made by another program, whose folders say no more: then by what is left over
	code 78 "${sample[@]}" -m model
	err_has "has a tensor 'model.layers.1."
}

@test "training reads text, plain or compressed, and nothing else" {
	cp "$f/words.txt" a.txt
	gzip -k a.txt
	zstd -q a.txt
	for input in a.txt.gz a.txt.zst; do
		ok lwm-tokenizer-train -q --vocab 320 -o $input.model $input
		same a.model $input.model
	done
	mkdir books
	mv a.txt.zst books
	ok lwm-tokenizer-train -q --vocab 320 -o folder.model books
	same a.model folder.model
	printf 'one\ntw\001o\n' >odd.txt
	code 65 lwm-tokenizer-train -q --vocab 320 -o no.model a.txt odd.txt
	err_has 'odd.txt: byte 0x01 in line 2, byte 2 of it: this is no text'
	head -c -9 a.txt.gz >cut.txt.gz
	code 65 lwm-tokenizer-train -q --vocab 320 -o no.model cut.txt.gz
	gone no.model
}
