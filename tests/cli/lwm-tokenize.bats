load ../lib

setup() {
	cd "$BATS_TEST_TMPDIR"
	words 40 > a.txt
	words 25 > b.txt
	printf '{"question": "q%d", "answer": "a"}\n' 1 2 3 4 5 > qa.jsonl
}

@test "help, version, usage" {
	ok lwm-tokenize --help
	has "--tokenizer"
	has "Examples"
	ok lwm-tokenize --version
	code 64 lwm-tokenize
	code 64 lwm-tokenize -t bytes a.txt
	err_has "--out-dir"
	code 64 lwm-tokenize -t bytes a.txt -o x.h5 -d dir
	code 64 lwm-tokenize -t bytes a.txt -o x.h5 --tasks 2
	code 64 lwm-tokenize -t bytes a.txt -d dir --task 2 --tasks 2
	code 64 lwm-tokenize -t bytes a.txt -o x.h5 --no-such-option
	code 78 lwm-tokenize -t bytes -f '[a,b]' a.txt -o x.h5
	gone x.h5 dir
}

@test "settings that are no text are refused, not left out" {
	code 65 lwm-tokenize -t bytes -f "$(printf '[que\377],answer')" qa.jsonl -o x.h5
	err_has 'UTF-8'
	gone x.h5
}

@test "one shard from several inputs, again is nothing to do, other settings need --force" {
	ok lwm-tokenize -t bytes --split-lines 1 a.txt b.txt -o all.docs.h5 --json
	has '"documents_in":65'
	has '"documents_out":65'
	cp all.docs.h5 first
	ok lwm-tokenize -t bytes --split-lines 1 a.txt b.txt -o all.docs.h5
	err_has "nothing to do"
	code 73 lwm-tokenize -t bytes --split-lines 2 a.txt b.txt -o all.docs.h5
	same all.docs.h5 first
	ok lwm-tokenize -t bytes --split-lines 1 --threads 3 --force a.txt b.txt -o all.docs.h5
	same all.docs.h5 first
	echo more >> b.txt
	code 73 lwm-tokenize -t bytes --split-lines 1 a.txt b.txt -o all.docs.h5
}

@test "a shard for each input; array tasks share them" {
	mkdir in
	for i in 1 2 3 4 5; do words "$i" > "in/f$i.txt"; done
	ok lwm-tokenize -t bytes in -d whole
	for t in 0 1; do ok lwm-tokenize -t bytes in -d parts --task $t --tasks 2; done
	for i in 1 2 3 4 5; do same "whole/f$i.docs.h5" "parts/f$i.docs.h5"; done
	ok lwm-tokenize -t bytes in -d plan --plan
	has "in/f3.txt -> plan/f3.docs.h5"
	gone plan
}

@test "compressed inputs give the shard of plain ones" {
	gzip -k qa.jsonl
	zstd -q -k qa.jsonl
	for f in qa.jsonl qa.jsonl.gz qa.jsonl.zst; do
		ok lwm-tokenize -t bytes -f '[question],answer' "$f" -o "$f.h5" --json
		has '"tokens":25'
	done
}

@test "malformed records are counted, too many of them fail" {
	printf '{"text": "x"}\n{"text": \n\xff\n{"other": 1}\n' > bad.jsonl
	ok lwm-tokenize -t bytes bad.jsonl -o bad.h5 --json
	has '"documents_in":4'
	has '"documents_out":1'
	has '"malformed":3'
	err_has "record at line 2"
	code 65 lwm-tokenize -t bytes bad.jsonl -o bad2.h5 --max-bad 2
	gone bad2.h5 bad2.h5.manifest.json
}

@test "bad input" {
	code 66 lwm-tokenize -t bytes absent.txt -o x.h5
	code 66 lwm-tokenize -t absent.model a.txt -o x.h5
	code 65 lwm-tokenize -t a.txt a.txt -o x.h5
	gzip -k a.txt
	head -c 100 a.txt.gz > cut.txt.gz
	code 65 lwm-tokenize -t bytes cut.txt.gz -o x.h5
	err_has "cut.txt.gz"
	mkdir empty
	code 66 lwm-tokenize -t bytes empty -o x.h5
	gone x.h5
}

@test "length filters take plain numbers and powers of 1024" {
	ok lwm-tokenize -t bytes --split-lines 1 --min-tokens 40 --max-tokens 1k a.txt -o f.h5 --json
	has '"documents_in":40'
	ok lwm-tokenize -t bytes --split-lines 1 --max-tokens 10 a.txt -o g.h5 --json
	has '"documents_out":0'
	has '"filtered":40'
}

@test "what stands at the output and is no shard stays" {
	words 50 >words.txt
	echo precious >mine
	code 73 lwm-tokenize -t bytes -o mine words.txt
	[ "$(cat mine)" = precious ]
	mkfifo pipe
	code 73 lwm-tokenize -t bytes --force -o pipe words.txt
	[ -p pipe ]
	ok lwm-tokenize -t bytes --force -o mine words.txt
}
