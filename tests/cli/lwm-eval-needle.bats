# lwm-eval-needle: the sweep, its report, what it refuses.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 600 >words.txt
	lwm-tokenize -q -t bytes --split-lines 20 -o docs.h5 words.txt
	lwm-pack -q -n 64 -o rows.h5 docs.h5
	lwm-train-stage -q --threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --data rows.h5 --seq-length 64 \
		--tokens-per-batch 256 --steps 2 --tokenizer bytes -o ckpt
	lwm-merge-ckpt -q ckpt -o model
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	model=$BATS_FILE_TMPDIR/model
	grid=(-q --threads 1 -m "$model" --context-lengths-min 400
		--context-lengths-max 500 --n-context-length-intervals 2 --n-document-depth-intervals 3 --n-rounds 1
		--answer-tokens 4)
	sweep=("${grid[@]}" --haystack "$BATS_FILE_TMPDIR/words.txt")
}

timeless() { sed -E 's/"seconds":[0-9.]+/"seconds":0/; s/,"check":"[0-9a-f]{16}"/,"check":""/' "$1/results.jsonl"; }

@test "a sweep, its files, and nothing left to do" {
	ok lwm-eval-needle "${sweep[@]}" -o out
	[ "$output" = '{"accuracy":0.000000,"worst_length_accuracy":0.000000}' ]
	[ "$(wc -l <out/results.jsonl)" = 6 ]
	[ "$(wc -l <out/summary.csv)" = 7 ]
	[ "$(head -c 4 out/heatmap.png | tail -c 3)" = PNG ]
	[ "$(tail -1 out/heatmap.svg)" = '</svg>' ]
	[ "$(tail -1 out/report.html)" = '</body></html>' ]
	run grep -cE '(src|href)="(https?:|//)' out/report.html
	[ "$output" = 0 ]
	cp -r out before
	ok lwm-eval-needle "${sweep[@]}" -o out
	local f
	for f in results.jsonl summary.csv summary.json heatmap.svg heatmap.png report.html; do
		same out/$f before/$f
	done
}

@test "goes on after a torn line, with the same results" {
	ok lwm-eval-needle "${sweep[@]}" -o out
	timeless out >whole
	head -c $(($(wc -c <out/results.jsonl) / 2)) out/results.jsonl >half
	cp half out/results.jsonl
	ok lwm-eval-needle "${sweep[@]}" -o out
	timeless out | cmp - whole
	ok lwm-eval-needle "${sweep[@]}" -o out --report-only
	has '"accuracy"'
}

@test "a damaged line is told and, once deleted, made again" {
	ok lwm-eval-needle "${sweep[@]}" -o out
	timeless out >whole
	sed -i '3s/"score":0/"score":1/' out/results.jsonl
	code 65 lwm-eval-needle "${sweep[@]}" -o out
	err_has 'out/results.jsonl, line 3 (delete the line: its trial is run again)'
	code 65 lwm-eval-needle "${sweep[@]}" -o out --report-only
	err_has 'line 3'
	code 65 lwm-eval-needle "${sweep[@]}" -o out --plan
	sed -i 3d out/results.jsonl
	ok lwm-eval-needle "${sweep[@]}" -o out
	timeless out | sort | cmp - <(sort whole)
	# the same lines once more: no trial counts twice
	cp out/results.jsonl once
	cat once >>out/results.jsonl
	ok lwm-eval-needle "${grid[@]}" --haystack "$BATS_FILE_TMPDIR/words.txt" -o out --plan
	has 'trials   6, 6 of them done'
	ok lwm-eval-needle "${sweep[@]}" -o out --report-only
	[ "$(awk -F, 'NR > 1 { n += $3 } END { print n }' out/summary.csv)" = 6 ]
}

@test "a time limit stops it with 75, and it goes on" {
	code 75 env LWM_TIME_LIMIT=0.001s lwm-eval-needle "${sweep[@]}" -o out
	err_has 'run me again'
	ok lwm-eval-needle "${sweep[@]}" -o out
	[ "$(wc -l <out/results.jsonl)" = 6 ]
}

@test "a compressed haystack is the same haystack, an archive is none" {
	gzip -c "$BATS_FILE_TMPDIR/words.txt" >words.txt.gz
	ok lwm-eval-needle "${sweep[@]}" -o out
	ok lwm-eval-needle "${grid[@]}" --haystack words.txt.gz -o out --plan
	has 'trials   6, 6 of them done'
	tar -cf words.txt -C "$BATS_FILE_TMPDIR" words.txt
	code 65 lwm-eval-needle "${grid[@]}" --haystack words.txt -o other
	err_has 'this is no text'
}

@test "lengths that are one length are asked once" {
	ok lwm-eval-needle "${sweep[@]}" -o out --context-lengths-min 500 --n-document-depth-intervals 1 --n-context-length-intervals 3
	[ "$(wc -l <out/results.jsonl)" = 1 ]
	[ "$(wc -l <out/summary.csv)" = 2 ]
}

@test "several needles" {
	ok lwm-eval-needle "${sweep[@]}" -o out --context-lengths-min 700 --context-lengths-max 800 --n-needles-total 3 \
		--n-needles-retrieve 2
	[ "$(wc -l <out/results.jsonl)" = 2 ]
	[ "$(grep -o '"asked":true' out/results.jsonl | wc -l)" = 4 ]
	[ "$(grep -o '"asked":false' out/results.jsonl | wc -l)" = 2 ]
}

@test "a need that is not met is 1, with the report there" {
	code 1 lwm-eval-needle "${sweep[@]}" -o out --need 0.5
	err_has '0.500'
	has '"accuracy"'
	[ -e out/report.html ]
}

@test "bytes of a title that are no text are marked in the pages" {
	ok lwm-eval-needle "${sweep[@]}" -o out
	ok lwm-eval-needle "${sweep[@]}" -o out --report-only --title "$(printf 'a \377 b')"
	grep -q "$(printf '<title>a \357\277\275 b')" out/report.html
}

@test "a plan" {
	ok lwm-eval-needle "${sweep[@]}" -o out --plan
	has 'trials   6, 0 of them done'
	ok lwm-eval-needle "${sweep[@]}" -o out --plan --json
	[ "$output" = '{"trials":6,"done":0,"lengths":[400,500]}' ]
	ok lwm-eval-needle "${sweep[@]}" -o out --plan --json --context-lengths-min 499 --n-context-length-intervals 5
	[ "$output" = '{"trials":6,"done":0,"lengths":[499,500]}' ]
	[ ! -e out ]
	ok lwm-eval-needle --help
	has '--n-rounds'
}

@test "usage 64, data 65, input 66, contradictions 78, output 73" {
	code 64 lwm-eval-needle -m "$model"
	code 64 lwm-eval-needle -m "$model" -o out
	err_has '--haystack'
	code 64 lwm-eval-needle "${sweep[@]}" -o out --n-needles-retrieve 2
	code 64 lwm-eval-needle "${sweep[@]}" -o out --context-lengths-min 900
	echo 'no sentence here' >none.txt
	code 65 lwm-eval-needle "${grid[@]}" -o out --haystack none.txt
	code 66 lwm-eval-needle "${grid[@]}" -o out --haystack absent.txt
	err_has absent.txt
	code 66 lwm-eval-needle "${sweep[@]}" -o out -m absent
	err_has absent
	code 66 lwm-eval-needle "${sweep[@]}" -o nothing --report-only
	mkdir empty
	code 66 lwm-eval-needle "${sweep[@]}" -o empty --report-only
	code 78 lwm-eval-needle "${sweep[@]}" -o out --context-lengths-min 100
	err_has '100 tokens is too short'
	code 78 lwm-eval-needle "${sweep[@]}" -o out --context-lengths-max 1M
	err_has haystack
	ok lwm-eval-needle "${sweep[@]}" -o out
	code 78 lwm-eval-needle "${sweep[@]}" -o out --seed 7
	err_has 'another run'
	echo x >file
	code 73 lwm-eval-needle "${sweep[@]}" -o file/out
	code 74 bash -c "lwm-eval-needle ${sweep[*]} -o out >/dev/full"
}

@test "ranks share the trials and give the same results" {
	need_mpi
	ok lwm-eval-needle "${sweep[@]}" -o one
	ok mpirun -n 2 --oversubscribe lwm-eval-needle "${sweep[@]}" -o two
	cmp <(timeless one) <(timeless two)
	code 1 mpirun -n 2 --oversubscribe lwm-eval-needle "${sweep[@]}" -o two --need 1
	[ "$(grep -c 'below the 1.000' <<<"$stderr")" = 1 ]
}
