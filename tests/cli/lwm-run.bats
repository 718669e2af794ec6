# lwm-run: order, completeness, reasons, failures, restarts, batch scripts.
load ../lib

setup() {
	cd "$BATS_TEST_TMPDIR"
	mkdir in
	echo a >in/a.txt
	echo b >'in/b c.txt'
	cat >p.yaml <<-'Y'
		name: probe
		out: out
		vars: {src: in, extra: x}
		stages:
		- name: say
		  tool: echo
		  needs: [join]
		  operands: ["${extra}"]
		  stdout: ${out}/say.txt
		- name: join
		  tool: cat
		  needs: copy
		  foreach: {stage: copy}
		  operands: "${item}"
		  stdout: "${out}/joined/${item.stem}.out"
		- name: copy
		  tool: cp
		  foreach: "${src}/*.txt"
		  operands: ["${item}", "${out}/copied/${item.name}"]
		  outputs: "${out}/copied/${item.name}"
	Y
}

edit() { sed -i "$1" p.yaml; }

@test "runs in the order of needs, then has nothing to do" {
	ok lwm-run --plan p.yaml
	has 'output missing: out/copied/a.txt'
	has "cp 'in/b c.txt' 'out/copied/b c.txt'"
	has '5 to run'
	ok lwm-run p.yaml
	same in/a.txt out/joined/a.out
	same 'in/b c.txt' 'out/joined/b c.out'
	[ "$(cat out/say.txt)" = x ]
	[ "$(wc -l <out/timing.jsonl)" = 5 ]
	ok lwm-run --plan p.yaml
	[ "$output" = '0 to run, 5 complete' ]
	ok lwm-run p.yaml
	[ "$(wc -l <out/timing.jsonl)" = 5 ]
}

@test "says why: changed input, changed command, missing output, forced" {
	ok lwm-run -q p.yaml
	echo 2 >in/a.txt
	ok lwm-run --plan p.yaml
	has 'changed input: in/a.txt'
	lacks 'in/b c.txt'
	ok lwm-run -q p.yaml
	[ "$(cat out/joined/a.out)" = 2 ]
	ok lwm-run --plan p.yaml --set stages.say.args.n=true
	has 'say: changed command'
	has '1 to run, 4 complete'
	rm out/joined/a.out
	ok lwm-run --plan p.yaml
	has 'output missing: out/joined/a.out'
	ok lwm-run --plan --force --only say p.yaml
	has 'say: forced'
	touch in/a.txt # same content: nothing changed
	ok lwm-run -q p.yaml
	ok lwm-run --plan p.yaml
	has '0 to run'
	ok lwm-run --plan --json p.yaml
	echo "$output" | python3 -m json.tool >/dev/null 2>&1 || [[ $output == '['*']' ]]
}

@test "outputs made elsewhere count when they are newer than their inputs" {
	ok lwm-run -q p.yaml
	rm -r out/.lwm-run
	ok lwm-run --plan p.yaml
	has '0 to run, 5 complete'
	sleep 0.02
	echo new >in/a.txt
	ok lwm-run --plan p.yaml
	has 'input newer than the outputs: in/a.txt'
}

# bytes that the last log_calls saw read of files that match
read_of() { awk -v path="$1" '$1 == "read" && $3 ~ path { n += $2 } END { print n + 0 }' log/0; }

shards() { # a pipeline of N shards, made and verified
	mkdir books
	for ((i = 0; i < $1; i++)); do words 40 >books/$i.txt; done
	cat >shards.yaml <<-'Y'
		name: shards
		out: made
		stages:
		- name: docs
		  tool: lwm-tokenize
		  foreach: books/*.txt
		  args: {tokenizer: bytes, split-lines: 5, output: "${out}/${item.stem}.h5"}
		  operands: ["${item}"]
		  outputs: "${out}/${item.stem}.h5"
	Y
	ok lwm-run -q shards.yaml
}

@test "what was verified once is looked at, not read, until something touched it" {
	shards 3
	ok log_calls log . lwm-run -q shards.yaml
	[ "$(read_of 'made/[0-9].*h5')" = 0 ]
	[ "$(read_of 'books/')" = 0 ]
	ok log_calls log . lwm-run --plan shards.yaml
	has '0 to run, 3 complete'
	[ "$(read_of 'made/[0-9].*h5')" = 0 ]
	[ "$(read_of 'books/')" = 0 ]
	# all of it on request
	ok log_calls log . lwm-run --plan --verify shards.yaml
	has '0 to run, 3 complete'
	[ "$(read_of 'made/[0-9].h5$')" -ge "$(cat made/[0-9].h5 | wc -c)" ]
	[ "$(read_of 'books/')" = "$(cat books/*.txt | wc -c)" ]
	# one touched file is read again, and no other
	touch made/1.h5
	ok log_calls log . lwm-run --plan shards.yaml
	has '0 to run, 3 complete'
	[ "$(read_of 'made/1.h5$')" -gt 0 ]
	[ "$(read_of 'made/[02].h5$')" = 0 ]
	# nothing is lost without the notes
	rm made/.lwm-run/*.seen.json
	ok lwm-run --plan shards.yaml
	has '0 to run, 3 complete'
}

@test "a change that keeps size and time of modification is seen by the time of change" {
	shards 2
	touch -r made/0.h5 before
	printf '\x7f' | dd of=made/0.h5 bs=1 seek=$(($(stat -c %s made/0.h5) / 2)) conv=notrunc status=none
	touch -r before made/0.h5
	ok lwm-run --plan shards.yaml
	has '1 to run, 1 complete'
	has 'failed check'
	touch -r books/1.txt before
	sed -i 's/sea/bay/' books/1.txt
	touch -r before books/1.txt
	ok lwm-run --plan shards.yaml
	has 'changed input: books/1.txt'
	ok lwm-run -q shards.yaml
	ok lwm-run --plan shards.yaml
	has '0 to run, 2 complete'
}

@test "a file with a time that is still to come is read again each time" {
	shards 2
	touch -d '1 hour' made/0.h5 books/1.txt
	ok lwm-run -q shards.yaml
	for _ in 1 2; do
		ok log_calls log . lwm-run --plan shards.yaml
		has '0 to run, 2 complete'
		[ "$(read_of 'made/0.h5$')" -gt 0 ]
		[ "$(read_of 'books/1.txt$')" -gt 0 ]
		[ "$(read_of 'made/1.h5$')" = 0 ]
		[ "$(read_of 'books/0.txt$')" = 0 ]
	done
}

@test "several threads find what one finds" {
	shards 5
	for i in 1 3; do printf '\x7f' | dd of=made/$i.h5 bs=1 seek=$(($(stat -c %s made/$i.h5) / 2)) conv=notrunc status=none; done
	ok lwm-run --plan --verify --threads 1 shards.yaml
	one=$output
	[[ $one == *'2 to run, 3 complete'* ]]
	ok lwm-run --plan --verify --threads 4 shards.yaml
	[ "$output" = "$one" ]
	ok lwm-run -q --verify shards.yaml
	ok lwm-inspect -q --check made/*.h5
}

@test "selection" {
	ok lwm-run --plan --until join p.yaml
	lacks 'say:'
	has 'copy-a-'
	ok lwm-run -q p.yaml
	ok lwm-run --plan --force --from join p.yaml
	has 'say: forced'
	lacks 'copy-a-'
	code 64 lwm-run --only jion p.yaml
	err_has "no stage 'jion' (did you mean 'join'?)"
}

@test "a failed task stops what needs it, the rest goes on; a rerun does only what is left" {
	cat >sometimes <<-'S'
		#!/bin/bash
		echo "looking at $1"
		[[ $1 != *b* || -e fixed ]] || { echo "cannot bear b" >&2; exit 65; }
		cp "$1" "$2"
	S
	chmod +x sometimes
	edit 's/tool: cp/tool: ".\/sometimes"/'
	code 65 lwm-run p.yaml
	err_has 'failed with exit code 65 (data)'
	err_has '| cannot bear b'
	err_has 'join: not started'
	err_has '1 ran, 0 were complete, 1 failed'
	[ -e out/copied/a.txt ]
	gone out/joined out/say.txt
	touch fixed
	ok lwm-run p.yaml
	err_has 'copy: 1 of 2 complete'
	[ -e out/say.txt ]
}

@test "exit 75 goes on, up to a limit" {
	cat >slow <<-'S'
		#!/bin/bash
		n=$(cat count 2>/dev/null || echo 0)
		echo $((n + 1)) >count
		[ "$n" -ge 3 ] || exit 75
		cp "$1" "$2"
	S
	chmod +x slow
	rm 'in/b c.txt'
	edit 's/tool: cp/tool: ".\/slow"/'
	code 75 lwm-run --restarts 1 p.yaml
	[ "$(cat count)" = 2 ]
	ok lwm-run p.yaml
	[ "$(cat count)" = 4 ]
	grep -q '"exit":75,"attempt":1' out/timing.jsonl
}

@test "asked to stop: the task is told, the exit code is 75, the rerun goes on" {
	cat >wait <<-'S'
		#!/bin/bash
		trap 'echo saved; exit 75' USR1
		touch started
		[ ! -e once ] && { touch once; for i in {1..200}; do sleep 0.1; done; }
		cp "$1" "$2"
	S
	chmod +x wait
	rm 'in/b c.txt'
	edit 's/tool: cp/tool: ".\/wait"/'
	lwm-run p.yaml 2>err &
	pid=$!
	for _ in {1..100}; do [ ! -e started ] || break; sleep 0.05; done
	kill -TERM $pid
	rc=0
	wait $pid || rc=$?
	[ $rc = 75 ]
	grep -q 'stopping (SIGTERM)' err
	grep -q saved out/logs/copy-a-*.log
	ok lwm-run p.yaml
}

@test "an output that was not written, or does not pass its check, is a failure" {
	edit 's/tool: cp/tool: "true"/'
	code 65 lwm-run p.yaml
	err_has 'ended well, but output missing: out/copied/a.txt'
	edit 's/tool: "true"/tool: cp/; $a\  check: [grep, -q, zebra, in/a.txt]'
	code 65 lwm-run p.yaml
	err_has 'failed check: grep (exit 1)'
	edit 's/zebra/a/'
	ok lwm-run p.yaml
}

@test "what a resuming program made from other inputs is moved aside" {
	rm 'in/b c.txt'
	echo '  resumes: true' >>p.yaml
	ok lwm-run p.yaml
	echo other >in/a.txt
	ok lwm-run p.yaml
	[ "$(cat out/copied/a.txt.old-1)" = a ]
	[ "$(cat out/copied/a.txt)" = other ]
}

@test "an input that was not known of before makes no resuming program begin anew" {
	rm 'in/b c.txt'
	echo '  resumes: true' >>p.yaml
	ok lwm-run p.yaml
	echo more >more.txt
	echo '  inputs: more.txt' >>p.yaml
	ok lwm-run --plan p.yaml
	has 'new input: more.txt'
	ok lwm-run p.yaml
	gone out/copied/a.txt.old-1
}

@test "tasks side by side" {
	for i in 1 2 3 4 5 6; do echo $i >in/$i.txt; done
	ok lwm-run -j 4 p.yaml
	err_has '17 ran, 0 were complete, 0 failed'
}

@test "bad files are refused with line and nearest name" {
	bad() { # SED-SCRIPT MESSAGE
		cp p.yaml q.yaml
		sed -i "$1" q.yaml
		code 64 lwm-run --plan q.yaml
		err_has "$2"
	}
	bad 's/needs: \[join/neads: [join/' "q.yaml:7: unknown key 'neads' (did you mean 'needs'?)"
	bad 's/needs: copy/needs: cpoy/' "needs 'cpoy', and there is no such stage (did you mean 'copy'?)"
	bad 's/name: join/name: copy/' "a second stage 'copy'"
	bad 's/name: join/name: "jo in"/' "a stage's name has"
	bad 's/^- name: copy/- name: copy\n  needs: say/' 'needs itself in a circle'
	bad 's/{extra}/{exrta}/' "no variable 'exrta' (did you mean 'extra'?)"
	bad 's/extra: x/extra: "${src}", src2: "${extra}${src2}"/; s/${extra}"\]/${src2}"]/' 'goes round in a circle'
	bad 's/${extra}/$extra/' "a '\$' starts"
	bad 's/extra: x/extra: "a\\nb"/' 'a control byte (0x0a)'
	bad 's/tool: cp/tool: ""/' 'not the name of a program'
	bad 's/name: probe/name: ../' "a pipeline's name"
	bad 's/tool: cp/tool: cp\n  args: {"--x y": 1}/' 'not the name of an option'
	bad 's/{stage: copy}/{stage: say}/' 'not among its needs'
	bad 's/tool: cp/tool: cp\n  ranks: many/' "'many' is not a whole number"
	bad 's/name}"$/name}"\n  check: never/' "'never' is none of auto, exists, inspect"
	bad 's/copied\/${item.name}"$/copied\/same"/' "writes out/copied/same twice"
	code 66 lwm-run --plan p.yaml --set src=nowhere
	err_has "nothing fits 'nowhere/*.txt'"
	code 64 lwm-run --plan p.yaml --set sorce=x
	code 66 lwm-run nothere.yaml
	code 64 lwm-run --print p.yaml
}

@test "options: flags, lists, nothing, environment, defaults" {
	cat >o.yaml <<-'Y'
		name: o
		out: out
		defaults: {echo: {seed: 3, alpha: 1}}
		stages:
		- name: o
		  tool: echo
		  args: {some_name: 1M, yes: true, no: false, list: [a, "b c"], none: , empty: "", quoted: "true", alpha: 2}
		  operands: [-x, "$${HOME}"]
		  stdout: out/o.txt
	Y
	ok lwm-run -q o.yaml
	[ "$(cat out/o.txt)" = '--seed 3 --some-name 1M --yes --no-no --list a --list b c --empty  --quoted true --alpha 2 ./-x ${HOME}' ]
	LWM_SOME_NAME=7 ok lwm-run --plan o.yaml
	has 'changed command'
	has '--some-name 7 '
}

@test "no name can inject" {
	local n names=("\$(touch pwned)" '`touch pwned`' '; touch pwned #' "'; touch pwned; '" '" ; touch pwned; "' '-rf'
		'&& touch pwned' '| touch pwned' '*' '~' '\' '!!' '${HOME}' 'a\b' '<x' 'ü')
	rm -r in/*
	for n in "${names[@]}"; do echo "$n" >"in/${n//\//_}.txt"; done
	ok lwm-run -q p.yaml
	for n in "${names[@]}"; do same "in/${n//\//_}.txt" "out/copied/${n//\//_}.txt"; done
	rm -r out
	ok lwm-run --slurm --print --until copy p.yaml
	mkdir out
	echo "$output" >s.sh
	ok shellcheck s.sh
	ok env LWM_LAUNCH= bash s.sh
	for n in "${names[@]}"; do same "in/${n//\//_}.txt" "out/copied/${n//\//_}.txt"; done
	gone pwned
	code 64 lwm-run --slurm --print p.yaml --set out='o;x'
	err_has 'batch jobs take only'
}

@test "batch scripts stand alone, check clean, and do the same without Slurm" {
	edit 's/foreach: {stage: copy}/foreach: "out\/copied\/*.txt"/'
	ok lwm-run --slurm --print p.yaml
	has '#SBATCH --job-name=lwm-probe-copy'
	has '#SBATCH --array=0-1'
	has '#SBATCH --open-mode=append'
	has 'lwm-run p.yaml --only join' # its tasks are known when copy has run
	csplit -s -z -f part <(echo "$output") '/^#!/' '{*}'
	[ "$(ls part* | wc -l)" = 3 ]
	ok shellcheck part*
	for s in part*; do ok bash "$s"; done
	[ "$(cat out/say.txt)" = x ]
	ok lwm-run --plan p.yaml
	has '0 to run, 5 complete'
	ok lwm-run --slurm --print p.yaml
	[ -z "$output" ] || has 'nothing to submit'
}

@test "links of the chain wait for those they need, however these end" {
	mkdir bin
	printf '#!/bin/bash\necho "$*" >>calls\necho $((100 + $(wc -l <calls)))\n' >bin/sbatch
	chmod +x bin/sbatch
	PATH=$PWD/bin:$PATH ok lwm-run --slurm p.yaml
	[ "$(wc -l <calls)" = 3 ]
	[[ $(sed -n 1p calls) != *dependency* ]]
	[[ $(sed -n 2p calls) == *--dependency=afterany:101\ * ]]
	[[ $(sed -n 3p calls) == *--dependency=afterany:102\ * ]]
}

@test "what a batch job cannot hold is refused by --check too, and before the first job is submitted" {
	local how
	mkdir bin
	printf '#!/bin/bash\necho "$*" >>calls\necho 7\n' >bin/sbatch
	chmod +x bin/sbatch
	PATH=$PWD/bin:$PATH
	for how in --check --print ''; do
		# shellcheck disable=SC2086
		code 64 lwm-run --slurm $how p.yaml --set 'stages.say.resources={mem: a b}' # the last stage
		err_has "resources: mem 'a b': batch jobs take only"
		# shellcheck disable=SC2086
		code 64 lwm-run --slurm $how p.yaml --set out='o;x'
		err_has 'the output folder'
		# shellcheck disable=SC2086
		code 64 lwm-run $how --launch $'a\nb' --set stages.say.ranks=2 p.yaml ${how:+--slurm}
		err_has '--launch'
	done
	gone calls
	ok lwm-run --check --slurm p.yaml
	ok lwm-run --check p.yaml --set 'stages.say.resources={mem: a b}' # not asked to submit
}

@test "a plan submits nothing" {
	mkdir bin
	printf '#!/bin/bash\ntouch called\necho 7\n' >bin/sbatch
	chmod +x bin/sbatch
	PATH=$PWD/bin:$PATH
	ok lwm-run --plan p.yaml
	local plan=$output
	ok lwm-run --slurm --plan p.yaml
	[ "$output" = "$plan" ]
	gone called out
	ok lwm-run --slurm p.yaml
	[ -e called ]
}

@test "the time of a batch job is rounded up to minutes" {
	local t
	for t in '90s 0:02:00' '60s 0:01:00' '1:30:00 1:30:00' '2d 48:00:00' '3601s 1:01:00'; do
		ok lwm-run --slurm --print p.yaml --only copy --set "stages.copy.resources={time: ${t% *}}"
		has "#SBATCH --time=${t#* }"
	done
}

@test "a batch script ends when what it needs is not there, and goes on after exit 75" {
	ok lwm-run -q p.yaml
	rm -r out
	rm 'in/b c.txt'
	cat >slow <<-'S'
		#!/bin/bash
		n=$(cat count 2>/dev/null || echo 0)
		echo $((n + 1)) >count
		[ "$n" -ge 2 ] || exit 75
		cp "$1" "$2"
	S
	chmod +x slow
	edit 's/tool: cp/tool: ".\/slow"/; s/foreach: {stage: copy}/foreach: [out\/copied\/a.txt]/'
	ok lwm-run --slurm --print p.yaml
	csplit -s -z -f part <(echo "$output") '/^#!/' '{*}'
	code 66 bash part01
	err_has 'needed and not there: out/copied/a.txt'
	ok bash part00
	[ "$(cat count)" = 3 ]
	ok bash part01
}

@test "a part can be planned where the data of the rest is not" {
	ok lwm-run --plan --only say p.yaml --set src=nowhere
	has '1 to run'
	ok lwm-run --check p.yaml --set src=nowhere
}

# A task that says what the file `words` holds and goes on until the file `seen` is there.
talker() {
	cat >talk <<-'S'
		#!/bin/bash
		printf '%b' "$(cat words)" >&2
		for ((i = 0; i < 600; i++)); do [ -e seen ] && break; sleep 0.05; done
		cp "$1" "$2"
	S
	chmod +x talk
	rm 'in/b c.txt'
	edit 's/tool: cp/tool: ".\/talk"/'
}

until_seen() { # FILE TEXT: waits for it, then lets the task end
	local i
	for ((i = 0; i < 600; i++)); do
		grep -qF -- "$2" "$1" 2>/dev/null && break
		sleep 0.05
	done
	touch seen
	wait "$pid" && grep -qF -- "$2" "$1"
}

@test "says how far a long task is: its time and the last line of its log" {
	talker
	echo '12:00:00 lwm-some: step 4/9\n12:00:01 lwm-some: \033[31mstep 5/9 loss 1.5\nstep 6' >words
	lwm-run --say-every 0.05 --until copy p.yaml 2>err &
	pid=$!
	until_seen err 'running for 0m'
	grep -qE ' lwm-run: copy-a-[0-9a-f]+: running for 0m0[0-9]s,  \[31mstep 5/9 loss 1.5$' err
	# what an earlier run said is not this one's
	rm seen err
	: >words
	lwm-run --say-every 0.05 --force --until copy p.yaml 2>err &
	pid=$!
	until_seen err 'running for 0m'
	[ "$(grep -c step err)" = 0 ]
	# silent on request
	ok lwm-run --say-every 0 --force --until copy p.yaml
	err_lacks 'running for'
	ok env LWM_PROGRESS=none lwm-run --say-every 0.05 --force --until copy p.yaml
	err_lacks 'running for'
}

@test "on a terminal: one line, drawn again, gone when another comes" {
	type -P script >/dev/null || skip 'no script(1) here'
	talker
	echo 'step 5/9 loss 1.5 and much more than what fits into one line\n' >words
	script -qec 'stty cols 60; lwm-run --until copy p.yaml' typed </dev/null >screen 2>&1 &
	pid=$!
	until_seen screen 'running for 0m'
	tr '\r' '\n' <screen >lines
	grep -q $'^\033\\[Klwm-run: copy-a-.*: running for 0m0[0-9]s, step' lines
	[ "$(grep -c 'what fits into one line' lines)" = 0 ] # it would wrap
	grep -qE $'^\033\\[K[0-9:]+ lwm-run: copy-a-[0-9a-f]+: done' <(sed 's/^\x1b\[K\x1b\[K/\x1b[K/' lines)
}

@test "asked to stop while the task does not listen yet: 75, and what stands is said" {
	cat >deaf <<-'S'
		#!/bin/bash
		[ -e once ] && exec cp "$1" "$2"
		touch once started
		exec sleep 20
	S
	chmod +x deaf
	edit 's/tool: cp/tool: ".\/deaf"/'
	lwm-run --jobs 1 p.yaml 2>err &
	pid=$!
	until [ -e started ]; do sleep 0.02; done
	kill -USR1 $pid
	rc=0
	wait $pid || rc=$?
	[ $rc = 75 ]
	grep 'copy.*: ended without a save' err
	grep 'copy (2 of 2 tasks left)' err
	grep 'p.yaml: stopped by SIGUSR1: run again to go on' err
	ok lwm-run p.yaml
	[ -e out/say.txt ]
}

@test "Ctrl-C: the task is asked to save; a second one ends it" {
	cat >stubborn <<-'S'
		#!/bin/bash
		trap 'touch asked' USR1
		trap '' TERM INT
		echo $$ >started
		while :; do sleep 0.05; done
	S
	chmod +x stubborn
	edit 's/tool: cp/tool: ".\/stubborn"/'
	lwm-run --jobs 1 p.yaml 2>err &
	pid=$!
	until [ -s started ]; do sleep 0.02; done
	kill -INT $pid
	until [ -e asked ]; do sleep 0.02; done
	kill -0 $pid
	kill -INT $pid
	rc=0
	wait $pid || rc=$?
	[ $rc = 75 ]
	grep 'press Ctrl-C again' err
	run kill -0 "$(cat started)"
	[ "$status" != 0 ]
}

@test "a stop file in OUT: asked to save, exit 0, and nothing more while it stands" {
	cat >listens <<-'S'
		#!/bin/bash
		trap 'exit 75' USR1
		[ -e go ] && exec cp "$1" "$2"
		touch started
		while :; do sleep 0.05; done
	S
	chmod +x listens
	edit 's/tool: cp/tool: ".\/listens"/'
	lwm-run --jobs 1 p.yaml 2>err &
	pid=$!
	until [ -e started ]; do sleep 0.02; done
	touch out/STOP
	wait $pid # 0: nobody puts this back into a queue
	grep 'out/STOP stands there' err
	rm started
	ok lwm-run p.yaml
	err_has 'out/STOP stands there'
	gone started out/say.txt
	rm out/STOP
	touch go
	ok lwm-run p.yaml
	[ -e out/say.txt ]
}

@test "a stop file of a training stage ends what needs it too, with exit 0" {
	words 200 >in/text
	cat >t.yaml <<-'Y'
		name: t
		out: out
		stages:
		- {name: tokens, tool: lwm-tokenize, operands: in/text, outputs: out/t.docs.h5, args: {tokenizer: bytes, output: out/t.docs.h5}}
		- {name: rows, tool: lwm-pack, needs: tokens, operands: out/t.docs.h5, outputs: out/t.rows.h5, args: {seq-length: 64, output: out/t.rows.h5}}
		- name: train
		  tool: lwm-train-stage
		  needs: rows
		  args: {model: nano, data: out/t.rows.h5, tokenizer: bytes, seq-length: 64, tokens-per-batch: 256, steps: 1000000,
		         checkpoint-every: 0, output: out/train, device: cpu, warmup-steps: 1, lr: 1e-3}
		  outputs: [out/train/summary.json]
		- {name: merge, tool: lwm-merge-ckpt, needs: train, operands: out/train, outputs: out/model, args: {output: out/model}}
	Y
	lwm-run t.yaml 2>err &
	pid=$!
	until grep -qs '"event":"step"' out/train/metrics.jsonl; do kill -0 $pid; sleep 0.05; done
	touch out/train/STOP
	wait $pid
	grep 'train: stopped, .*out/train/STOP stands there' err
	gone out/model
	compgen -G 'out/train/step_*/COMMIT.json'
	rm out/train/STOP
	last=$(compgen -G 'out/train/step_*' | tail -1)
	sed -i "s/steps: 1000000/steps: $((10#${last##*_} + 2))/" t.yaml
	ok lwm-run t.yaml
	[ -e out/model/config.json ]
}

@test "a lost rank ends the task and the run with 76" {
	need_mpi
	cat >r.yaml <<-'Y'
		name: r
		out: out
		stages:
		- {name: ranks, tool: ./rank, ranks: 2, operands: [x], outputs: out/never}
	Y
	cat >rank <<-'S'
		#!/bin/bash
		[ "$OMPI_COMM_WORLD_RANK" = 0 ] || kill -KILL $$
		sleep 30
	S
	chmod +x rank
	code 76 lwm-run r.yaml
	err_has 'a rank was lost'
}
