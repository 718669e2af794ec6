# lwm-train-stage --sample-every: files that show what a model makes while it is trained, whatever the disk does meanwhile.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	lwm-synth clips -q -n 20 --size 16 --frames 4 -o clips
	lwm-synth clips -q -n 4 --first 5000 --size 16 --frames 4 -o held
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	clips=(lwm-train-stage -q --threads 1 --device cpu --dim 32 --ffn 48 --layers 1 --heads 4 --init-std 0.1 --warmup-steps 0
		--data "$BATS_FILE_TMPDIR/clips" --eval-data "$BATS_FILE_TMPDIR/held" --frame-size 16 --patch-size 8 --patch-frames 1
		--clip-frames 4 --batch-clips 4 --objective next-frame --sample-every 2 --steps 5)
}

# named DIR: the files of samples that its metrics.jsonl names
named() { sed -nE 's/.*"event":"sample",.*"file":"([^"]*)".*/\1/p' "$1/metrics.jsonl"; }

@test "what cannot be shown is 78 by name, before a file is read, by check, plan and run alike" {
	local how
	for how in --check-options --plan ''; do
		# shellcheck disable=SC2086
		code 78 "${clips[@]}" -o out --objective contrastive --data nowhere --clip-frames 4 $how
		err_has '--sample-every: the objective contrastive has nothing that could be shown'
	done
	ok "${clips[@]}" -o out --objective contrastive --sample-every 0 --check-options
	code 64 "${clips[@]}" -o out --samples 0
}

@test "a disk that is full costs the samples of that step; the last ones must be there, and are made again" {
	ok "${clips[@]}" -o whole
	[ "$(named whole)" = $'samples/step-00000002.png\nsamples/step-00000004.png\nsamples/step-00000005.png' ]
	mkdir -p one/samples last/samples
	# the first file: it is not there, the others are
	FAULT_OPS=change ok with_fault 28@2 one/samples "${clips[@]}" -o one
	err_has 'no samples of step 2, training goes on: '
	err_has 'No space left on device'
	[ "$(named one)" = $'samples/step-00000004.png\nsamples/step-00000005.png' ]
	[ "$(ls one/samples)" = $'step-00000004.png\nstep-00000005.png' ]
	# the last one: nothing is lost, and it is made when the stage is run again
	FAULT_OPS=change count_calls last/samples "${clips[@]}" -o last
	rm -rf last
	mkdir -p last/samples
	FAULT_OPS=change code 74 with_fault "28@$((calls - calls / 3 + 2))" last/samples "${clips[@]}" -o last
	err_has 'No space left on device'
	[ -d last/step_00000005 ]
	gone last/summary.json last/samples/step-00000005.png
	ok "${clips[@]}" -o last
	[ "$(named last)" = "$(named whole)" ]
	diff -r whole/samples last/samples
	same whole/summary.json last/summary.json
	# killed before its summary, and without an evaluation: one line for each file all the same
	ok "${clips[@]}" -o ended --eval-rows 0
	rm ended/summary.json
	ok "${clips[@]}" -o ended --eval-rows 0
	[ "$(named ended)" = "$(named whole)" ]
}

@test "killed at any moment and run again: the same files" {
	local k
	ok "${clips[@]}" -o whole
	FAULT_OPS=change count_calls "$(mkdir -p many && echo many)" "${clips[@]}" -o many --checkpoint-every 2
	for k in 3 5 7 9; do
		rm -rf killed
		mkdir killed
		FAULT_OPS=change code 137 with_fault "kill@$((calls * k / 10))" killed "${clips[@]}" -o killed --checkpoint-every 2
		ok "${clips[@]}" -o killed --checkpoint-every 2
		diff -r whole/samples killed/samples
		[ "$(named killed)" = "$(named whole)" ]
	done
}

@test "texts go on as the finished model would, and are those of the held-out rows" {
	words 300 >words.txt
	words 400 | tail -n 40 >held.txt
	lwm-tokenize -q -t bytes --split-lines 3 -o docs.h5 words.txt
	lwm-tokenize -q -t bytes --split-lines 3 -o hdocs.h5 held.txt
	lwm-pack -q -n 64 -o rows.h5 docs.h5
	lwm-pack -q -n 64 -o held.h5 hdocs.h5
	local text=(lwm-train-stage -q --threads 1 --device cpu --dim 64 --ffn 128 --layers 2 --heads 4 --data rows.h5 --eval-data held.h5
		--seq-length 64 --tokens-per-batch 512 --lr 4e-3 --steps 60 --sample-every 40 --sample-tokens 20 --samples 3)
	local how k compared=
	ok "${text[@]}" -o out
	[ "$(named out)" = $'samples/step-00000040.txt\nsamples/step-00000060.txt' ]
	[ "$(head -n 1 out/samples/step-00000060.txt)" = 'step 60, held-out documents, the likeliest token each time' ]
	# what another program, with caches, makes of the same weights
	part() { awk -v k="$1" -v n="$2" '/^==== / { at++; line = 0; next } at == k && /^----/ { line++; next } at == k && line == n' "$3"; }
	for k in 1 2 3; do
		part "$k" 0 out/samples/step-00000060.txt >given
		grep -q "^Line" given || continue # the document begins there
		lwm-sample -q -m out --tokenizer bytes --device cpu --threads 1 --prompt "$(cat given)" --temperature 0 --max-tokens 20 >made
		part "$k" 1 out/samples/step-00000060.txt >shown
		diff <(tr -d '\n' <made) <(tr -d '\n' <shown)
		compared=$k
		grep -qF "$(cut -d: -f 1 given | head -n 1):" held.txt
	done
	[ -n "$compared" ]
	# less memory, another pass: the same text
	ok "${text[@]}" -o lean --head-groups 2 --micro-rows 1
	diff out/samples lean/samples
	ok "${text[@]}" -o drawn --sample-temperature 1
	! cmp -s out/samples/step-00000060.txt drawn/samples/step-00000060.txt || return 1
	# what is drawn is of the step, too: weights that stay as they are draw something else
	ok "${text[@]}" -o still --sample-temperature 1 --lr 1e-30 --min-lr 1e-30
	! cmp -s <(tail -n +2 still/samples/step-00000040.txt) <(tail -n +2 still/samples/step-00000060.txt) || return 1
	for how in --plan --check-options; do
		code 78 "${text[@]}" -o no --data nowhere --mesh-dim 1,1,1,2 --plan-ranks 2 "$how"
		err_has "--sample-every: with sp > 1 (mesh_dim '1,1,1,2')"
	done
}
