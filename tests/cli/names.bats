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
	for t in lwm-tokenize lwm-pack lwm-inspect lwm-qa-gen lwm-merge-ckpt lwm-report lwm-train-stage lwm-sample; do
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
