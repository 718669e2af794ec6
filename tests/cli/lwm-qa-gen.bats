# lwm-qa-gen: with a model that has learnt to say one question and its answer.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	local c
	words 120 >words.txt
	tr -s '\n' ' ' <words.txt | fold -w 16 | head -200 | while IFS= read -r c; do
		echo '{"q": "You are a helpful assistant. USER: '"$c"' Write a question about this text and answer it. ASSISTANT:",' \
			'"a": " Question: Q? Answer: A."}'
	done >said.jsonl
	lwm-tokenize -q -t bytes -f '[q],a' -o said.h5 said.jsonl
	lwm-pack -q -n 160 -o said.rows.h5 said.h5
	lwm-tokenize -q -t bytes --split-lines 60 -o long.docs.h5 words.txt
	local how=(-q --threads 1 --device cpu --dim 32 --ffn 64 --layers 2 --heads 2 --data said.rows.h5 --seq-length 160
		--tokens-per-batch 1280 --lr 1e-2 --tokenizer bytes)
	lwm-train-stage "${how[@]}" --steps 120 -o trained
	lwm-train-stage "${how[@]}" --steps 1 -o dumb
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	docs=$BATS_FILE_TMPDIR/long.docs.h5
	local how=(-q --threads 1 --chunk-tokens 16 --target-tokens 400 --answer-tokens 30 --temperature 0 -d out)
	gen=("${how[@]}" -m "$BATS_FILE_TMPDIR/dumb")
	good=("${how[@]}" -m "$BATS_FILE_TMPDIR/trained")
}

# count NAME: that number of the report on standard output
count() { sed -nE 's/.*"'"$1"'":([0-9]+).*/\1/p' <<<"$output"; }

@test "pairs are written, counted, and the same again" {
	ok lwm-qa-gen "${good[@]}" "$docs"
	[ "$(count documents_in)" = 2 ]
	[ -z "$stderr" ]
	[ "$(count chunks)" = $(($(count pairs) + $(count unparsed) + $(count unfinished))) ]
	[ "$(count pairs)" -gt $(($(count chunks) / 2)) ]
	[ "$(count documents_out)" -gt 10 ]
	ok lwm-pack -q -n 400 -l drop -o rows.h5 out/long.qa.h5 # every document is at most the target long
	ok lwm-inspect out/long.qa.h5
	cp out/long.qa.h5 first
	ok lwm-qa-gen "${good[@]}" --force "$docs"
	same first out/long.qa.h5
}

@test "a batch changes no byte, hot or cold; more streams than a step takes, and stopped with another one" {
	local how
	for how in '' '--temperature 1'; do
		# shellcheck disable=SC2086
		ok lwm-qa-gen "${good[@]}" $how --batch 1 "$docs"
		mv out one
		for n in 3 40; do
			# shellcheck disable=SC2086
			ok lwm-qa-gen "${good[@]}" $how --batch $n "$docs"
			same one/long.qa.h5 out/long.qa.h5
			rm -r out
		done
		mv one "whole$how"
	done
	run ! cmp -s whole/long.qa.h5 "whole--temperature 1/long.qa.h5"
	# many short documents are asked about together
	lwm-tokenize -q -t bytes --split-lines 1 -o short.docs.h5 "$BATS_FILE_TMPDIR/words.txt"
	ok lwm-qa-gen "${good[@]}" --batch 1 short.docs.h5
	mv out one
	code 75 env --block-signal=USR1 bash -c 'kill -USR1 $$; exec lwm-qa-gen "$@"' held "${good[@]}" --batch 16 short.docs.h5
	err_has 'after 0 of 120 documents'
	ok lwm-qa-gen "${good[@]}" --batch 16 short.docs.h5
	same one/short.qa.h5 out/short.qa.h5
}

@test "a model that writes no pair is 65 with the counts, and leaves no output" {
	code 65 lwm-qa-gen "${gen[@]}" "$docs"
	err_has 'no usable pair in'
	err_has long.docs.h5
	run find out -type f
	[ -z "$output" ]
}

@test "what breaks off is no answer, however much like a pair it looks" {
	code 65 lwm-qa-gen "${good[@]}" --answer-tokens 23 "$docs" # all but the full stop of ' Question: Q? Answer: A.'
	err_has 'no usable pair in'
	gone out/long.qa.h5
}

@test "an output that is complete is left alone, a damaged one is made again, another one stays" {
	mkdir out
	echo kept >out/long.qa.h5
	code 73 lwm-qa-gen "${good[@]}" "$docs"
	[ "$(cat out/long.qa.h5)" = kept ]
	rm out/long.qa.h5
	ok lwm-qa-gen "${good[@]}" "$docs"
	cp out/long.qa.h5 first
	ok lwm-qa-gen "${good[@]}" "$docs"
	[ -z "$output" ] # nothing was written
	printf 'x' | dd of=out/long.qa.h5 bs=1 seek=5000 conv=notrunc status=none
	ok lwm-qa-gen "${good[@]}" "$docs"
	err_has 'it is made again'
	same first out/long.qa.h5
	code 73 lwm-qa-gen "${good[@]}" --target-tokens 300 "$docs"
	same first out/long.qa.h5
}

@test "stopped: finished documents are kept, the next run resumes behind them and the bytes are the same" {
	local t=${EPOCHREALTIME/./}
	ok lwm-qa-gen "${good[@]}" "$docs"
	t=$((${EPOCHREALTIME/./} - t))
	cp out/long.qa.h5 whole
	rm -r out
	code 75 env --block-signal=USR1 bash -c 'kill -USR1 $$; exec lwm-qa-gen "$@"' held "${good[@]}" "$docs"
	err_has 'stopped (SIGUSR1) after 0 of'
	# a limit in the middle, however fast this machine is
	for percent in 95 90 85 80 75 70 65 60 55 50 45 40 35 30 25 20; do
		rm -rf out
		run --separate-stderr env LWM_TIME_LIMIT="$(printf %d.%06ds $((t * percent / 100 / 1000000)) $((t * percent / 100 % 1000000)))" lwm-qa-gen "${good[@]}" "$docs"
		[[ $status != 75 || ! $stderr =~ 'time limit) after '[1-9] ]] || break
	done
	[ "$status" = 75 ]
	err_has 'time limit'
	ok lwm-qa-gen "${good[@]}" "$docs"
	same whole out/long.qa.h5
	gone out/*.aside.*
}

@test "a bad input costs itself" {
	echo 'no shard' >bad.h5
	code 65 lwm-qa-gen "${good[@]}" bad.h5 "$docs"
	err_has '1 of 2 inputs could not be used'
	[ -e out/long.qa.h5 ]
}

@test "a plan, tasks, help" {
	ok lwm-qa-gen "${gen[@]}" --plan "$docs"
	[ "${lines[0]}" = "to make: $docs -> out/long.qa.h5" ]
	[[ ${lines[1]} == 'memory on a CPU: '*'caches of 8 prompts with their answers '* ]]
	[[ ${lines[2]} == 'memory on a GPU: '* ]]
	ok lwm-qa-gen "${gen[@]}" --plan --device cpu --batch 3 "$docs"
	[ "${#lines[@]}" = 2 ]
	has 'caches of 3 prompts'
	ok lwm-qa-gen "${gen[@]}" --plan --task 1 --tasks 2 "$docs"
	[ -z "$output" ]
	[ ! -e out ]
	ok lwm-qa-gen --help
	has '--chunk-tokens'
}

@test "usage 64, data 65, input 66, contradictions 78, output 73" {
	code 64 lwm-qa-gen "${gen[@]}"
	code 64 lwm-qa-gen "${gen[@]}" --task 2 --tasks 2 "$docs"
	code 64 lwm-qa-gen "${gen[@]}" --target-tokens 70 "$docs"
	err_has 70
	code 66 lwm-qa-gen "${gen[@]}" absent.h5
	err_has absent.h5
	code 66 lwm-qa-gen "${gen[@]}" -m absent "$docs"
	echo 'no shard' >bad.h5
	code 65 lwm-qa-gen "${gen[@]}" bad.h5
	err_has bad.h5
	lwm-tokenizer-train -q --vocab 300 -o other.model "$BATS_FILE_TMPDIR/words.txt"
	lwm-tokenize -q -t other.model -o other.docs.h5 "$BATS_FILE_TMPDIR/words.txt"
	code 78 lwm-qa-gen "${gen[@]}" other.docs.h5
	err_has 'another tokenizer'
	code 78 lwm-qa-gen "${gen[@]}" -t other.model "$docs"
	echo x >file
	code 73 lwm-qa-gen "${gen[@]}" -d file/out "$docs"
}

@test "chunks beyond the model's length warn" {
	code 65 lwm-qa-gen "${gen[@]}" --chunk-tokens 200 "$docs" # the model has learnt nothing
	err_has '--chunk-tokens and --answer-tokens: '
	err_has 'was made for 160'
}
