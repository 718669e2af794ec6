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

# ---- what a model thinks of tokens ----

# The largest differences of `lwm-inspect --logits` on standard input from golden.txt: fails unless all are below 1e-5.
like_golden() { # GOLDEN
	awk -F'\t' -v golden="$1" '
		function far(a, b) { return !(a - b < 1e-5 && b - a < 1e-5) }
		BEGIN {
			while ((getline line <golden) > 0) {
				n = split(line, f, " ")
				if (f[1] == "nll") nll[f[2]] = f[3]
				if (f[1] == "logits") for (i = 3; i <= n; i++) logit[f[2], i - 3] = f[i]
			}
		}
		$5 != "-" { losses++; if (far($5, nll[$1])) { print "loss " $1 ": " $5 " " nll[$1]; bad = 1 } }
		{ for (i = 6; i <= NF; i++) { split($i, p, ":"); all++; if (far(p[3], logit[$1, p[2]])) { print $1, $i; bad = 1 } } }
		END { if (losses != 15 || all != 16 * 64) { print losses, all; bad = 1 } exit bad }'
}

@test "logits and losses are those of transformers, of folders that it saved" {
	local dir ids
	for dir in "$ROOT"/tests/golden/hf-1/*-v[45]; do
		ids=$(sed -n 's/^ids //p' "$dir/golden.txt")
		ok lwm-inspect -q --device cpu --logits "$dir" "$ids"
		like_golden "$dir/golden.txt" <<<"$output"
	done
}

@test "weights that torch.save wrote, in one file or several, give what the same in safetensors gives" {
	local pair want
	for pair in zip=tied-v5 older=grouped-v5 parts=mistral-v5 wrapped=grouped-v4; do
		ok lwm-inspect -q --device cpu --logits "$ROOT/tests/golden/hf-1/${pair#*=}" 7,8,9
		want=$output
		ok lwm-inspect -q --device cpu --logits "$ROOT/tests/golden/torch-1/${pair%=*}" 7,8,9
		[ "$output" = "$want" ]
	done
	ok lwm-inspect "$ROOT/tests/golden/torch-1/zip/pytorch_model.bin"
	has 17056
	cp -r "$ROOT/tests/golden/torch-1/zip" cut
	truncate -s -3 cut/pytorch_model.bin
	code 65 lwm-inspect --device cpu --logits cut 7
	err_has 'cut short?'
	# a folder with both is read as other programs read it
	cp "$ROOT/tests/golden/hf-1/tied-v5/model.safetensors" cut
	ok lwm-inspect -q --device cpu --logits cut 7
}

@test "the same tokens from a file, from standard input, from a document; the largest only; as JSON" {
	local model=$ROOT/tests/golden/hf-1/llama-v5
	ok lwm-inspect -q --device cpu --logits "$model" 7,8,9
	local want=$output
	[ "${#lines[@]}" = 3 ]
	printf '7 8\n9\n' >ids.txt
	ok lwm-inspect -q --device cpu --logits "$model" ids.txt
	[ "$output" = "$want" ]
	ok lwm-inspect -q --device cpu --logits "$model" - <ids.txt
	[ "$output" = "$want" ]
	ok lwm-inspect -q --device cpu --logits "$model" --top 2 7,8,9
	[ "$(awk '{print NF}' <<<"$output" | sort -u)" = 7 ]
	first=$(head -1 <<<"$want" | tr '\t' '\n' | sed -n 's/^text://p' | sort -t: -k2,2gr | head -2 | sed 's/^/text:/' | tr '\n' ' ')
	[ "$(head -1 <<<"$output" | cut -f6,7 | tr '\t' ' ') " = "$first" ]
	ok lwm-inspect -q --device cpu --logits "$model" --top 1 --json 7,8,9
	[[ ${lines[0]} =~ ^'{"position":0,"token":7,"modality":"text","next":8,"loss":'[0-9.]+',"logits":{"text":[['[0-9]+','[-0-9.e]+']]}}'$ ]]
	[[ ${lines[2]} == *'"next":null,"loss":null,'* ]]
}

@test "logits of more tokens than are fed at a time" {
	ok lwm-train-stage -q --device cpu --threads 1 -o run --model nano --layers 1 --data b.rows.h5 --seq-length 256 \
		--tokens-per-batch 512 --steps 2
	ok lwm-tokenize -q -t bytes book.txt -o long.docs.h5
	ok lwm-inspect -q --device cpu --logits run --top 1 long.docs.h5
	local n=${#lines[@]}
	[ "$n" -gt 1100 ]
	[ "$(cut -f1 <<<"$output" | sort -n | uniq | wc -l)" = "$n" ]
	has "$(printf '\n1100\t')"
	ids=$(cut -f2 <<<"$output" | head -600 | tr '\n' ' ')
	local line=${lines[599]}
	ok lwm-inspect -q --device cpu --logits run --top 1 "$ids"
	[ "$(cut -f6 <<<"${lines[599]}" | cut -d: -f2)" = "$(cut -f6 <<<"$line" | cut -d: -f2)" ]
	err_has '600 tokens in one context'
	err_has 'made for 256'
	ok lwm-inspect -q --device cpu --logits run --top 1 --doc 3 b.docs.h5
	[ "$(cut -f2 <<<"$output" | head -3 | tr '\n' ' ')" = "$(lwm-inspect --json --doc 3 --tokens 3 b.docs.h5 | sed 's/.*"tokens":\[\([^]]*\).*/\1 /; s/,/ /g')" ]
	ok lwm-inspect -q --device cpu --logits run --top 1 5,6,7
	[ -z "$stderr" ]
	ok lwm-inspect -q --device cpu --logits run --tokenizer bytes --text --top 1 'ab'
	[ "$(cut -f2 <<<"$output" | tr '\n' ' ')" = '1 100 101 ' ]
}

@test "logits of a model of text and vision: a head for each, the loss by the head of what comes next" {
	ok lwm-train-stage -q --device cpu --threads 1 -o both --model nano --layers 1 --data b.rows.h5 --seq-length 256 \
		--tokens-per-batch 512 --steps 1 --vision-codes 14
	ok lwm-inspect -q --device cpu --logits both 5,259,260,6
	[ "$(cut -f3 <<<"$output" | tr '\n' ' ')" = 'text vision vision text ' ]
	[ "$(head -1 <<<"$output" | tr '\t' '\n' | grep -c '^text:')" = 259 ]
	[ "$(head -1 <<<"$output" | tr '\t' '\n' | grep -c '^vision:')" = 256 ]
	# 5 -> 259 by the vision head, 260 -> 6 by that of text
	head -1 <<<"$output" | tr '\t' '\n' | awk -F: '
		NR == 5 { loss = $0 } $1 == "vision" { sum += exp($3) } $1 == "vision" && $2 == 259 { own = $3 }
		END { d = log(sum) - own - loss; exit !(d < 1e-5 && d > -1e-5) }'
	sed -n 3p <<<"$output" | tr '\t' '\n' | awk -F: '
		NR == 5 { loss = $0 } $1 == "text" { sum += exp($3) } $1 == "text" && $2 == 6 { own = $3 }
		END { d = log(sum) - own - loss; exit !(d < 1e-5 && d > -1e-5) }'
}

@test "logits: what is no token, no model, and options that contradict each other" {
	local model=$ROOT/tests/golden/hf-1/llama-v5
	code 65 lwm-inspect -q --device cpu --logits "$model" 7,64
	err_has 'token 1 is 64'
	code 66 lwm-inspect -q --logits "$model" absent.docs.h5
	err_has absent
	code 66 lwm-inspect -q --logits absent 7,8
	code 64 lwm-inspect -q --logits "$model" --check 7,8
	code 64 lwm-inspect -q --top 3 b.docs.h5
	code 64 lwm-inspect -q --logits "$model" ' '
	code 78 lwm-inspect -q --device cpu --logits "$model" b.docs.h5
	err_has 'a text vocabulary of 259'
	echo '7 eight' >words.txt
	code 64 lwm-inspect -q --device cpu --logits "$model" words.txt
	err_has eight
}
