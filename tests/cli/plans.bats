# A plan says of every input that does not exist what the run would end with, and makes nothing.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 400 >words.txt
	lwm-tokenize -q -t bytes --split-lines 20 -o docs.h5 words.txt
	lwm-pack -q -n 64 -o rows.h5 docs.h5
	lwm-train-stage -q --threads 1 --device cpu --dim 32 --ffn 48 --layers 1 --heads 2 --data rows.h5 --seq-length 64 \
		--tokens-per-batch 64 --steps 1 --tokenizer bytes -o run
	lwm-synth clips -q -n 1 --size 16 --frames 2 -o clips
}

setup() { cd "$BATS_FILE_TMPDIR" || return 1; }

# one line each: exit code, then the command; those of 66 name what does not exist, which is called nowhere
plans() {
	cat <<-'T'
		66 lwm-tokenize -t bytes -o made nowhere
		66 lwm-tokenize -t nowhere -o made words.txt
		66 lwm-pack -n 64 -o made nowhere.h5
		65 lwm-pack -n 64 -o made words.txt
		66 lwm-vqgan-encode -m nowhere -t bytes -o made clips
		66 lwm-vqgan-encode -m run -t nowhere -o made clips
		66 lwm-vqgan-encode -m run -t bytes -o made nowhere
		65 lwm-vqgan-encode -m run -t bytes -o made clips
		66 lwm-vqgan-decode -m nowhere -o made.png docs.h5
		66 lwm-denoise -m nowhere -o made.png
		78 lwm-denoise -m run -o made.png
		66 lwm-merge-ckpt nowhere -o made
		66 lwm-eval-needle -m nowhere --haystack words.txt -o made
		66 lwm-eval-needle -m run --tokenizer bytes --haystack nowhere -o made
		66 lwm-eval-needle -m run --tokenizer nowhere --haystack words.txt -o made
		0 lwm-eval-needle -m run --tokenizer bytes --haystack words.txt -o made
		66 lwm-eval-actions -m nowhere --train clips clips
		66 lwm-eval-actions -m run --train nowhere clips
		66 lwm-eval-actions -m run --train clips nowhere
		65 lwm-eval-actions -m run --train clips clips
		66 lwm-eval-chat -m nowhere words.txt
		66 lwm-eval-chat -m run --tokenizer bytes nowhere
		0 lwm-eval-chat -m run --tokenizer bytes -o made words.txt
		66 lwm-qa-gen -m nowhere -d made docs.h5
		66 lwm-qa-gen -m run --tokenizer nowhere -d made docs.h5
		66 lwm-qa-gen -m run --tokenizer bytes -d made nowhere
		0 lwm-qa-gen -m run --tokenizer bytes -d made docs.h5
		66 lwm-sample -m nowhere -p a
		66 lwm-sample -m run --tokenizer nowhere -p a
		66 lwm-sample -m run --tokenizer bytes --prompt-file nowhere
		66 lwm-train-stage --seq-length 64 --data nowhere -o made
		66 lwm-tokenizer-train -o made nowhere
	T
}

@test "every program's plan of what is not there" {
	local want argv
	while read -r want argv; do
		read -ra argv <<<"$argv"
		code "$want" "${argv[@]}" --plan
		[ "$want" != 66 ] || err_has nowhere
		gone made made.png
	done < <(plans)
}

@test "a pipeline's plan: what no stage makes, and what the first programs miss; what is made on the way may be missing" {
	cat >p.yaml <<-'Y'
		name: plans
		out: out
		vars: {text: words.txt, extra: words.txt, tok: bytes}
		stages:
		- {name: tokens, tool: lwm-tokenize, args: {tokenizer: "${tok}", output: out/t/docs.h5}, operands: "${text}", outputs: out/t/docs.h5}
		- {name: rows, tool: lwm-pack, needs: tokens, args: {seq-length: 64, output: out/rows.h5}, operands: out/t/docs.h5,
		  inputs: ["${extra}", out/t, out/t/docs.h5], outputs: out/rows.h5}
	Y
	ok lwm-run --plan p.yaml
	has '2 to run'
	code 66 lwm-run --plan p.yaml --set extra=nowhere
	err_has 'stage rows: nowhere: is not there, and no stage makes it'
	has '2 to run'
	ok lwm-run --plan p.yaml --set extra=nowhere --only tokens
	code 66 lwm-run --plan p.yaml --set text=nowhere # no stage before it: its own program says so
	err_has 'stage tokens: lwm-tokenize: nowhere'
	code 66 lwm-run --plan p.yaml --set tok=nowhere
	err_has 'stage tokens: lwm-tokenize: nowhere'
	code 66 lwm-run --plan --json p.yaml --set extra=nowhere
	ok lwm-run --plan p.yaml --only rows # a part, before the rest has run
	gone out
	ok lwm-run --check p.yaml --set extra=nowhere # options alone
	ok lwm-run -q p.yaml
	ok lwm-run --plan p.yaml
	has '0 to run, 2 complete'
}
