# Every tool: what names from outside may do to the lines on standard error, and to files written where they lie.
load ../lib

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
}

# Standard error is COUNT lines without a control character, and none of them begins with what a name brought along.
tame() { # tame COUNT
	[ "$(grep -c '' <<<"$stderr")" = "$1" ] || { printf 'lines: %q\n' "$stderr"; return 1; }
	! LC_ALL=C grep -q '[[:cntrl:]]' <<<"$stderr" || { printf 'control: %q\n' "$stderr"; return 1; }
	! grep -q '^forged' <<<"$stderr"
}

@test "a name in an error: one line, nothing for the terminal" {
	local name=$'no\nforged: all is well\x1b[2J\x1b]0;owned\a\r\x7f'
	for t in lwm-tokenize lwm-pack lwm-inspect lwm-qa-gen lwm-merge-ckpt lwm-report lwm-run lwm-train-stage lwm-sample; do
		code 64 "$t" "--set=$name" "$name"
		tame 1
	done
	code 66 lwm-inspect "$name"
	tame 1
	err_has 'no\nforged: all is well\x1b[2J\x1b]0;owned\x07\r\x7f'
	code 66 lwm-tokenize -t bytes -o x.h5 "$name"
	tame 1
	code 64 lwm-inspect "--$name"
	tame 1
	# UTF-8 is no control; the controls among it are
	code 66 lwm-inspect $'caf\xc3\xa9 \xe6\xbc\xa2 \xc2\x9b31m \xff'
	err_has $'caf\xc3\xa9 \xe6\xbc\xa2 \\u009b31m \\xff'
}

@test "a name in the log: one line, nothing for the terminal" {
	local name=$'a\nforged: line\x1b[31m.txt'
	printf 'text\xff\n' >"$name"
	printf 'more\xff\n' >b.jsonl
	words 3 >c.txt
	code 65 lwm-tokenize -t bytes -d out --max-bad 0 --format jsonl "$name" b.jsonl
	[[ $stderr == *'a\nforged: line\x1b[31m.txt'* ]]
	tame "$(grep -c '' <<<"$stderr")"
	ok lwm-tokenize -t bytes -d out "$name" c.txt
	ok lwm-tokenize -t bytes -d out "$name" c.txt # each is complete, and says so
	[[ $stderr == *'a\nforged: line\x1b[31m'* ]]
	tame "$(grep -c '' <<<"$stderr")"
}

@test "the end of a task's log is shown without what it would do to the terminal" {
	cat >loud <<-'S'
		#!/bin/bash
		printf 'first\x1b[2Jsecond\rthird\n' >&2
		exit 65
	S
	chmod +x loud
	printf 'name: n\nout: out\nstages:\n- {name: s, tool: ./loud}\n' >p.yaml
	code 65 lwm-run p.yaml
	err_has '| first\x1b[2Jsecond\rthird'
	tame "$(grep -c '' <<<"$stderr")"
	# so is what a check says, in the plan too
	cat >p.yaml <<-'Y'
		name: n
		out: out
		stages:
		- {name: s, tool: "true", outputs: p.yaml, check: [./loud]}
	Y
	code 65 lwm-run p.yaml
	err_has 'first\x1b[2Jsecond\rthird'
	tame "$(grep -c '' <<<"$stderr")"
	ok lwm-run --plan p.yaml
	has 'first\x1b[2Jsecond\rthird'
	! LC_ALL=C grep -q $'[\x1b\r]' <<<"$output"
}

@test "logs, timing and standard output of tasks do not follow links, and wait for no FIFO" {
	cat >p.yaml <<-'Y'
		name: n
		out: out
		stages:
		- {name: s, tool: echo, operands: hello, stdout: out/s.txt}
	Y
	for f in out/logs/s.log out/timing.jsonl; do
		rm -rf out
		mkdir -p out/logs
		echo 'no newline at the end' | tr -d '\n' >precious
		cp precious kept
		ln -s "$PWD/precious" "$f"
		code 73 lwm-run p.yaml
		err_has "$f: is a symbolic link"
		same precious kept
		rm "$f"
		mkfifo "$f"
		code 73 timeout 60 lwm-run p.yaml
		err_has "$f: is a FIFO"
		rm "$f"
	done
	mkfifo out/s.txt
	code 73 timeout 60 lwm-run --force p.yaml
	err_has 'out/s.txt: is a FIFO'
	[ -p out/s.txt ]
	rm out/s.txt
	ok lwm-run p.yaml
	[ "$(cat out/s.txt)" = hello ]
}

@test "a stage's metrics, history and lock do not follow links" {
	words 600 >words.txt
	ok lwm-tokenize -q -t bytes --split-lines 20 -o docs.h5 words.txt
	ok lwm-pack -q -n 64 -o rows.h5 docs.h5
	local tiny=(lwm-train-stage -q --threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --data rows.h5
		--seq-length 64 --tokens-per-batch 256 -o out --steps 1)
	for f in metrics.jsonl history.jsonl .lock; do
		rm -rf out
		mkdir out
		echo '{"step":7} and more' | tr -d '\n' >precious
		cp precious kept
		ln -s "$PWD/precious" "out/$f"
		code 73 "${tiny[@]}"
		err_has "out/$f: is a symbolic link"
		same precious kept
	done
	rm out/.lock
	ok "${tiny[@]}"
	# the lines behind a checkpoint are cut off in the file itself only
	mv out/metrics.jsonl elsewhere
	ln -s "$PWD/elsewhere" out/metrics.jsonl
	cp elsewhere kept
	code 73 "${tiny[@]}" --steps 2
	err_has 'out/metrics.jsonl: is a symbolic link'
	same elsewhere kept
}
