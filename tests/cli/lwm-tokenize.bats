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
	# nothing but malformed records is no data, however many of them are borne
	for i in {1..80}; do echo '{"txt": "x"}'; done >other.jsonl
	for bad in 100 -1; do
		code 65 lwm-tokenize -t bytes --max-bad $bad other.jsonl -o x.h5
		err_has 'other.jsonl: none of its 80 records can be used'
		err_has "'text'"
	done
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

@test "a bad input costs itself: the others are done, and it can be retried alone" {
	mkdir in
	for i in 1 2 3 4; do words "2$i" >"in/f$i.txt"; done
	ok lwm-tokenize -t bytes in -d want
	ok lwm-tokenize -t bytes in -o want.h5
	gzip -c in/f2.txt | head -c 80 >in/cut.txt.gz
	rm in/f3.txt
	ln -s /nowhere in/f3.txt
	find in -name '*.txt*' | sort >list
	code 65 lwm-tokenize -t bytes @list -d out
	err_has '2 of 5 inputs could not be used, the others are done'
	err_has 'in/cut.txt.gz: its compressed data ends in the middle'
	err_has 'in/f3.txt'
	for i in 1 2 4; do same "want/f$i.docs.h5" "out/f$i.docs.h5"; done
	gone out/cut.docs.h5 out/f3.docs.h5
	ls -i out/f1.docs.h5 >before
	rm in/f3.txt in/cut.txt.gz
	words 23 >in/f3.txt
	ok lwm-tokenize -t bytes in -d out
	err_has '3 complete before'
	same want/f3.docs.h5 out/f3.docs.h5
	ls -i out/f1.docs.h5 | cmp - before
	# one shard for all: it appears when it has them all, and what was done is not done again
	mv in/f3.txt kept
	ln -s /nowhere in/f3.txt
	find in -name '*.txt*' | sort >list
	code 66 lwm-tokenize -t bytes @list -o one.h5
	gone one.h5
	rm in/f3.txt
	mv kept in/f3.txt
	ok lwm-tokenize -t bytes in -o one.h5
	err_has 'an earlier run had finished 3 of its inputs'
	same want.h5 one.h5
	same want.h5.manifest.json one.h5.manifest.json
	gone one.h5.aside.*
}

@test "complete means verified: other content, damage and what was borne are seen" {
	ok lwm-tokenize -t bytes a.txt -o x.h5
	cp x.h5 first
	sed -i 's/Line 3/Line 9/' a.txt # as long as before
	code 73 lwm-tokenize -t bytes a.txt -o x.h5
	err_has 'made from other inputs'
	sed -i 's/Line 9: /Line 3: /' a.txt
	words 40 >a.txt
	ok lwm-tokenize -t bytes a.txt -o x.h5
	err_has 'nothing to do'
	printf 'x' | dd of=x.h5 bs=1 seek=2000 conv=notrunc status=none
	ok lwm-tokenize -t bytes a.txt -o x.h5
	err_has 'it is made again'
	same first x.h5
	printf 'x' | dd of=x.h5.manifest.json bs=1 seek=50 conv=notrunc status=none
	ok lwm-tokenize -t bytes a.txt -o x.h5
	same first x.h5
	rm x.h5 # its manifest alone stands for nothing
	ok lwm-tokenize -t bytes a.txt -o x.h5
	same first x.h5
	printf '{"text": "x"}\n{"text": \n' >bad.jsonl
	ok lwm-tokenize -t bytes bad.jsonl -o bad.h5
	code 65 lwm-tokenize -t bytes bad.jsonl -o bad.h5 --max-bad 0
	err_has '1 malformed records of bad.jsonl'
	ok lwm-tokenize -t bytes bad.jsonl -o bad.h5 --max-bad 1
	err_has 'nothing to do'
}

@test "what is no text is refused, with the byte that says so" {
	cp "$(type -P ls)" program.txt
	iconv -f UTF-8 -t UTF-16 a.txt >wide.txt
	for f in program wide; do
		code 65 lwm-tokenize -t bytes $f.txt -o x.h5
		err_has "$f.txt: byte 0x"
		err_has 'this is no text'
	done
	printf 'caf\351, na\357ve\f\033[1m\n' >latin1.txt # text all the same
	ok lwm-tokenize -t bytes latin1.txt -o x.h5
}

@test "many threads that parse at once: none of them takes another's memory for a lack of it" {
	for i in {1..300}; do printf '{"prompt": "%s", "answer": "%d"}\n' "$(head -c $((i * 7)) /dev/zero | tr '\0' x)" $i; done >many.jsonl
	for i in {1..8}; do
		ok lwm-tokenize -q --threads 8 --force -t bytes -f '[prompt],answer' many.jsonl -o many.h5
	done
}

@test "a limit on the size of files is a failed write" {
	words 2000 >big.txt
	# shellcheck disable=SC2016
	code 74 bash -c 'ulimit -f 4; exec lwm-tokenize -t bytes big.txt -o big.h5'
	err_has 'File too large'
	run compgen -G 'big.h5*'
	[ -z "$output" ]
}

@test "stopped: finished inputs are kept, the next run resumes behind them and the bytes are the same" {
	words 9000 >big.txt # more than the program holds at once, so that a.txt is written before c.txt is opened
	cat a.txt b.txt >c.txt
	local in=(-t bytes --split-lines 1 a.txt big.txt c.txt)
	ok lwm-tokenize "${in[@]}" -o want.h5
	mv c.txt kept
	mkfifo c.txt # reading stops here until somebody writes
	lwm-tokenize "${in[@]}" -o x.h5 2>err &
	job=$!
	exec 7>c.txt
	kill -USR1 $job
	exec 7>&-
	local rc=0
	wait $job || rc=$?
	[ "$rc" = 75 ]
	grep 'stopped (SIGUSR1): 0 shards are complete, 1 inputs of the next one are kept' err
	gone x.h5
	rm c.txt
	mv kept c.txt
	ok lwm-tokenize "${in[@]}" -o x.h5
	err_has 'an earlier run had finished 1 of its inputs'
	same want.h5 x.h5
	same want.h5.manifest.json x.h5.manifest.json
	gone x.h5.aside.*
	code 75 env --block-signal=USR1 bash -c 'kill -USR1 $$; exec lwm-tokenize "$@"' held -t bytes a.txt b.txt -d dir
	err_has '0 shards are complete, 0 inputs'
}

@test "what of a file is its text: all but byte order mark, CR of CR LF, newline at the end; JSON texts whole" {
	text_of() { # FILE
		rm -f t.h5*
		ok lwm-tokenize -t bytes "$1" -o t.h5
		ok lwm-inspect --doc 0 -t bytes --json t.h5
	}
	printf '\xef\xbb\xbfone\r\n\r\ntwo\r three \n\n' >a.txt
	text_of a.txt
	has '"text":"one\n\ntwo\r three \n"'
	printf 'one\r' >a.txt
	text_of a.txt
	has '"text":"one\r"'
	printf '{"text": "\\ufeffa\\u0000b\\r\\n"}\n' >a.jsonl
	text_of a.jsonl
	has '"text":"'$'\xef\xbb\xbf''a\u0000b\r\n"'
	ok lwm-inspect --doc 0 -t bytes t.h5
	has 'a?b'
	# where a text names something, it cannot have one
	printf '{"a\\u0000": "b"}\n' >bad.jsonl
	code 65 lwm-tokenize -t bytes bad.jsonl -o bad.h5
	err_has 'u0000'
	err_lacks JSON_ALLOW
}
