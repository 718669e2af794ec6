load ../lib

setup() {
	cd "$BATS_TEST_TMPDIR"
	words 300 > a.txt
	words 90 > b.txt
	ok lwm-tokenize -t bytes --split-lines 1 a.txt -o a.docs.h5
	ok lwm-tokenize -t bytes --split-lines 30 b.txt -o b.docs.h5
}

@test "help and usage" {
	ok lwm-pack --help
	has "--seq-length"
	code 64 lwm-pack
	code 64 lwm-pack -n 512 -o r.h5
	code 64 lwm-pack -n 1 -o r.h5 a.docs.h5
	code 64 lwm-pack -n 512 -o r.h5 -s a=1 a.docs.h5
	code 64 lwm-pack -n 512 -o r.h5 -s x=1=a.docs.h5 -s x=2=b.docs.h5
	code 78 lwm-pack -n 512 -o r.h5 a.docs.h5 --tasks 2
	gone r.h5
}

@test "every document is used; the run repeats to the byte" {
	ok lwm-pack -n 2K a.docs.h5 -o r.h5 --json --report report.json
	has '"documents_in":300'
	has '"documents_used":300'
	cp r.h5 first
	ok lwm-pack -n 2K a.docs.h5 -o r.h5
	err_has "nothing to do"
	ok lwm-pack -n 2K a.docs.h5 -o r.h5 --force
	same r.h5 first
	code 73 lwm-pack -n 1K a.docs.h5 -o r.h5
	same r.h5 first
	grep -q '"fill"' report.json
}

@test "modes and long documents" {
	for m in masked concat padded; do
		ok lwm-pack -n 4K -m $m a.docs.h5 b.docs.h5 -o $m.h5 --json
		has '"documents_used":303'
		has '"documents_left":0'
	done
	ok lwm-pack -n 256 b.docs.h5 -o split.h5 --json
	has '"documents_split":3'
	has '"tokens_cut":0'
	ok lwm-pack -n 256 -l drop b.docs.h5 a.docs.h5 -o drop.h5 --json
	has '"rejected_long":3'
	ok lwm-pack -n 256 -l truncate b.docs.h5 -o cut.h5 --json
	has '"documents_truncated":3'
	has '"rows":3'
}

@test "documents end to end: a row holds its last target too; a tail can be left out" {
	ok lwm-pack -n 512 -m concat --no-shuffle a.docs.h5 -o all.h5 --json
	has '"tokens_cut":0'
	[[ $output =~ \"rows\":([0-9]+) ]]
	rows=${BASH_REMATCH[1]}
	ok lwm-pack -n 512 -m concat --no-shuffle --drop-tail a.docs.h5 -o full.h5 --json
	has "\"rows\":$((rows - 1))"
	lacks '"tokens_cut":0'
	has '"fill":1.0'
	ok lwm-inspect --json full.h5
	has '"seq_length":513'
	code 78 lwm-pack -n 512 --drop-tail a.docs.h5 -o masked.h5
	err_has 'concat'
	code 73 lwm-pack -n 512 -m concat --no-shuffle --drop-tail a.docs.h5 -o all.h5
	train=(lwm-train-stage -q --device cpu --threads 1 --model nano --dim 16 --ffn 16 --layers 1 --heads 1
		--tokens-per-batch 1K --steps 1)
	ok "${train[@]}" --data full.h5 --seq-length 512 -o trained
	grep -q '"tokens":1024,' trained/metrics.jsonl
	code 78 "${train[@]}" --data full.h5 --seq-length 256 -o other
	err_has 'rows of 513 tokens'
}

@test "shares of the tokens" {
	ok lwm-pack -n 512 -s a=1=a.docs.h5 -s b=1=b.docs.h5 -o mix.h5 --json
	has '"documents_in":303'
	lacks '"documents_left":0,'
	ok lwm-pack -n 512 -s a=1=a.docs.h5 -s b=1=b.docs.h5 --epochs 9 --max-tokens 20000 -o mix2.h5 --json
	has '"repeats":'
}

@test "several shards, array tasks" {
	ok lwm-pack -n 512 --rows-per-shard 10 a.docs.h5 -o rows
	[ -e rows/rows-00000.rows.h5 ]
	[ -e rows/rows.report.json ]
	cp -r rows keep
	rm rows/rows.report.json rows/rows-00001.rows.h5
	ok lwm-pack -n 512 --rows-per-shard 10 a.docs.h5 -o rows
	for f in keep/*; do same "$f" "rows/${f#keep/}"; done
	for t in 0 1; do ok lwm-pack -n 512 --rows-per-shard 10 --task $t --tasks 2 a.docs.h5 b.docs.h5 -o parts; done
	[ -e parts/rows-00001.report.json ]
	# one file for each task, where a shard is not to have so many rows
	for t in 0 1; do ok lwm-pack -n 512 --task $t --tasks 2 a.docs.h5 b.docs.h5 -o files; done
	[ "$(echo files/*.h5)" = 'files/rows-00000.rows.h5 files/rows-00001.rows.h5' ]
	ok lwm-pack -n 512 --task 1 --tasks 2 a.docs.h5 b.docs.h5 -o files
	err_has 'nothing to do'
}

@test "stopped or damaged: shards that are whole stay as they are, the others are made" {
	ok lwm-pack -n 512 --rows-per-shard 10 a.docs.h5 -o rows
	cp -r rows keep
	rm rows/rows.report.json # as after a stop
	printf 'x' | dd of=rows/rows-00001.rows.h5 bs=1 seek=5000 conv=notrunc status=none
	local before
	before=$(stat -c %i rows/rows-00000.rows.h5)
	ok lwm-pack -n 512 --rows-per-shard 10 a.docs.h5 -o rows
	err_has 'it is made again'
	[ "$(stat -c %i rows/rows-00000.rows.h5)" = "$before" ] # not written again
	for f in keep/*; do same "$f" "rows/${f#keep/}"; done
	ok lwm-pack -n 512 --rows-per-shard 10 a.docs.h5 -o rows
	err_has 'nothing to do'
	printf 'x' | dd of=rows/rows-00002.rows.h5 bs=1 seek=5000 conv=notrunc status=none
	ok lwm-pack -n 512 --rows-per-shard 10 a.docs.h5 -o rows # complete means verified, of every shard
	for f in keep/*; do same "$f" "rows/${f#keep/}"; done
	code 75 env --block-signal=USR1 bash -c 'kill -USR1 $$; exec lwm-pack "$@"' held -n 512 --rows-per-shard 10 a.docs.h5 -o new
	err_has 'stopped (SIGUSR1) at row 0'
}

@test "more shards than files may be open" {
	mkdir in
	split -l 2 a.txt in/a- --additional-suffix=.txt
	ok lwm-tokenize -q -t bytes --split-lines 1 -d docs in
	[ "$(echo docs/*.h5 | wc -w)" = 150 ]
	ok lwm-pack -n 512 docs -o want.h5
	ok bash -c 'ulimit -n 24; exec lwm-pack -n 512 docs -o few.h5'
	same want.h5 few.h5
	local n said=0
	for n in {4..16}; do # of the first the linker takes none
		run --separate-stderr bash -c "ulimit -n $n; lwm-pack -q -n 512 docs -o none.h5 --force; exit \$?"
		case $status in
		0) break ;;
		71)
			[[ $stderr == *"many files open as it may (ulimit -n: $n)"* || $stderr == *'Too many open files'* ]]
			gone none.h5
			said=$((said + 1))
			;;
		*) err_has 'error while loading shared libraries' ;;
		esac
	done
	[ $said -gt 0 ]
	same want.h5 none.h5
	ok bash -c 'ulimit -n 24; exec lwm-inspect --check docs'
	ok bash -c 'ulimit -n 24; exec lwm-tokenize -q -t bytes --split-lines 1 -d again in'
	for f in docs/*; do same "$f" "again/${f#docs/}"; done
}

@test "a folder of rows: shards share their list of inputs, an index names them" {
	mkdir in
	split -l 10 a.txt in/a- --additional-suffix=.txt
	ok lwm-tokenize -q -t bytes --split-lines 1 -d docs in
	local t f
	for t in 0 1 2; do
		[ ! -e rows/rows.index.json ] # made by the task after which none is missing
		ok lwm-pack -q -n 256 --rows-per-shard 4 --task $t --tasks 3 docs -o rows
	done
	[ "$(grep -c '"content"' rows/rows.index.json)" = "$(echo rows/*.h5 | wc -w)" ]
	[ "$(echo rows/inputs-*.json | wc -w)" = 1 ]
	[ "$(grep -c '"name"' rows/inputs-*.json)" = 30 ]
	for f in rows/*.manifest.json; do
		[ "$(stat -c %s "$f")" -lt 1200 ] # however many inputs there are
		grep -q "\"xxh3\": \"$(basename rows/inputs-*.json .json | cut -c 8-)" "$f"
	done
	ok lwm-inspect --check rows
	ok lwm-inspect rows/rows.index.json
	has 'index of row shards'
	ok lwm-inspect rows/inputs-*.json
	has 'inputs           30'
	cp -r rows keep
	# what is gone, damaged or stale of them comes back, and nothing else is written
	local before
	before=$(stat -c %i rows/rows-00001-00000.rows.h5)
	rm rows/rows.index.json
	sed -i 's/a-ab/a-xx/' rows/inputs-*.json
	code 65 lwm-inspect --check rows
	err_has 'inputs-'
	ok lwm-pack -n 256 --rows-per-shard 4 --task 1 --tasks 3 docs -o rows
	err_has 'nothing to do'
	[ "$(stat -c %i rows/rows-00001-00000.rows.h5)" = "$before" ]
	for f in keep/*; do same "$f" "rows/${f#keep/}"; done
	sed -i 's/"rows": 4/"rows": 5/' rows/rows.index.json
	code 65 lwm-inspect --check rows
	err_has 'rows.index.json'
	ok lwm-pack -q -n 256 --rows-per-shard 4 --task 2 --tasks 3 docs -o rows
	for f in keep/*; do same "$f" "rows/${f#keep/}"; done
	# other inputs are other rows
	ok lwm-tokenize -q -t bytes --split-lines 1 -o docs/z.docs.h5 b.txt
	code 73 lwm-pack -q -n 256 --rows-per-shard 4 --task 1 --tasks 3 docs -o rows
	rm docs/z*
	ok lwm-tokenize -q -t bytes --split-lines 2 --force -o docs/a-ab.docs.h5 in/a-ab.txt
	code 73 lwm-pack -q -n 256 --rows-per-shard 4 --task 1 --tasks 3 docs -o rows
}

@test "held-out documents are the same in every run, and the others are the rest" {
	words 200 >d.txt
	ok lwm-tokenize -q -t bytes --split-lines 1 -o d.docs.h5 d.txt
	ok lwm-pack -n 512 --hold-out 0.2 --json d.docs.h5 -o d.train.h5
	rest=$(sed 's/.*"documents_used": *\([0-9]*\).*/\1/' <<<"$output")
	aside=$(sed 's/.*"documents_aside": *\([0-9]*\).*/\1/' <<<"$output")
	err_has "train: $rest of 200 documents; $aside are of the other side"
	[ $((rest + aside)) = 200 ]
	[ "$aside" -gt 15 ]
	[ "$aside" -lt 70 ]
	ok lwm-pack -n 512 --hold-out 0.2 --part held-out --seed 9 --json d.docs.h5 -o d.held.h5
	has "\"documents_used\":$aside"
	has "\"documents_aside\":$rest"
	# other settings are another output
	code 73 lwm-pack -n 512 --hold-out 0.3 d.docs.h5 -o d.train.h5
	code 73 lwm-pack -n 512 --hold-out 0.2 --part held-out d.docs.h5 -o d.train.h5
	code 78 lwm-pack -n 512 --part held-out d.docs.h5 -o x.h5
	err_has 'none are held out'
	gone x.h5
}

@test "bad input" {
	code 66 lwm-pack -n 512 absent.h5 -o r.h5
	code 65 lwm-pack -n 512 a.txt -o r.h5
	head -c 3000 a.docs.h5 > cut.docs.h5
	cp a.docs.h5.manifest.json cut.docs.h5.manifest.json
	code 65 lwm-pack -n 512 cut.docs.h5 -o r.h5
	ok lwm-synth symbols -o symbols.txt
	ok lwm-tokenizer-train --vocab 330 a.txt -o t.model
	ok lwm-tokenize -t t.model a.txt -o other.docs.h5
	code 78 lwm-pack -n 512 a.docs.h5 other.docs.h5 -o r.h5
	err_has "another tokenizer"
	gone r.h5
}
