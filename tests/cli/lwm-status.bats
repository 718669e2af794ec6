# lwm-status: real runs that are complete, asked to end, stopped, killed, gone bad, damaged, at work; and what is no run.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 600 >words.txt
	lwm-tokenize -q -t bytes --split-lines 20 -o docs.h5 words.txt
	lwm-pack -q -n 64 -o rows.h5 docs.h5
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	tiny=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --data "$BATS_FILE_TMPDIR/rows.h5"
		--seq-length 64 --tokens-per-batch 256 --warmup-steps 2 --lr 3e-3 --log-every 1000)
}

teardown() {
	[ -z "${job:-}" ] || kill -9 "$job" 2>/dev/null || true
}

train() { lwm-train-stage -q "${tiny[@]}" "$@"; }
start() { exec lwm-train-stage -q "${tiny[@]}" "$@"; }

# get DIR FILTER: of its JSON
get() { lwm-status --json "$1" | jq -c "$2"; }
is() { # is DIR FILTER VALUE
	local v
	v=$(get "$1" "$2")
	[ "$v" = "$3" ] || { echo "$2 is $v instead of $3"; return 1; }
}

# shares add up to 1, each of them a share
adds_up() { is "$1" '.ledger.shares | (add - 1 | fabs) < 1e-6 and all(. >= 0 and . <= 1)' true; }

until_step() { # DIR N PID
	local n
	while kill -0 "$3" 2>/dev/null; do
		n=$(grep -c '"event":"step"' "$1/metrics.jsonl" 2>/dev/null) || n=0
		[ "${n:-0}" -lt "$2" ] || return 0
		sleep 0.01
	done
	echo "ended before step $2"
	return 1
}

# what lies below a folder, with its times: reading changes nothing
look() { find "$1" -printf '%p %s %T@ %C@ %i\n' | sort; }

@test "a run that is complete" {
	train -o out --steps 6 --checkpoint-every 2 --peak-tflops 0.001
	before=$(look out)
	ok lwm-status out
	has 'state     complete since'
	has 'step      6 of 6 (100.0 %)'
	has 'lowest'
	has 'tok/s, MFU '
	has 'saved     step 6, '
	has 'verified by its seal and sizes'
	has 'restarts  0'
	has 'next      nothing; a model of it is made by: lwm-merge-ckpt out -o MODEL'
	lacks damaged
	lacks hosts
	# the parts of the time line come to 100 %, but for rounding
	sed -nE '/^time /{s/[^:]*://;s/[a-z% ,]+/ /g;p}' <<<"$output" | awk '{ for (i = 1; i <= NF; i++) s += $i; exit !(NF == 6 && s > 99 && s < 101) }'
	grep -qE '^ {10}(▁|▂|▃|▄|▅|▆|▇|█){6}$' <<<"$output"
	is out '[.schema, .state, .step, .steps, .checkpoint.step, .checkpoint.verified, .restarts, .suspicious_hosts, .code]' \
		'["lwm-status/1","complete",6,6,6,"seal",[],[],0]'
	is out '.loss == '"$(jq -s 'map(select(.event == "step"))[-1].loss' out/metrics.jsonl)" true
	adds_up out
	ok lwm-status --verify out/
	has 'verified: every byte was read'
	ok lwm-status --watch --every 0.1s out # there is nothing to wait for
	[ "$(look out)" = "$before" ]
}

@test "the rate is the median of steps: one slow step changes nothing" {
	train -o out --steps 5
	jq -c 'if .event == "step" then .seconds = 0.5 | .flops = 1e9 else . end' out/metrics.jsonl |
		jq -c 'if .step == 3 and .event == "step" then .seconds = 100 else . end |
			if .event == "start" then .peak_tflops = 0.004 else . end' >m
	mv m out/metrics.jsonl
	is out '[.rate, .mfu]' '[512,0.5]'
	ok lwm-status out
	has 'rate      512 tok/s, MFU 50.0 %'
	lacks 'hosts'
}

@test "asked to end and run again: saved, then complete with the reason of the restart" {
	code 75 train -o out --steps 6 --stop-after 3
	is out '[.state, .step, .code, .reason, .checkpoint.step]' '["saved",3,75,"--stop-after",3]'
	ok lwm-status out
	has 'next      run it again, it resumes at step 3: lwm-train-stage -q --threads 1 '
	# what it says to run is run
	next=$(get out .next | jq -r .)
	ok bash -c "${next#*: }"
	code 75 train -o other --steps 40 --stop-after 1
	next=$(get other .next | jq -r .)
	train -o out --steps 6
	is out '[.state, [.restarts[] | [.step, .code, .reason, .lost_steps]]]' '["complete",[[3,75,"--stop-after",0],[6,0,"all its steps were made",0]]]'
	adds_up out
	# from another folder the command begins with cd
	mkdir elsewhere
	cd elsewhere
	ok lwm-status ../other
	has "resumes at step 1: cd $BATS_TEST_TMPDIR && lwm-train-stage"
}

@test "killed, and run again: what was lost is counted, and time adds up to the wall clock" {
	start -o out --steps 100000 --checkpoint-every 7 &
	job=$!
	until_step out 20 $job
	ok lwm-status out # at work
	has 'state     running'
	has "pid $job"
	has 'next      nothing'
	is out '[.state, .steps]' '["running",100000]'
	adds_up out
	kill -9 $job
	wait $job || true
	is out '[.state, .code, .reason]' '["dead",null,null]'
	ok lwm-status out
	has 'it ended without a word'
	has 'next      run it again, it resumes at step '
	saved=$(get out .checkpoint.step)
	[ $((saved % 7)) = 0 ]
	reached=$(get out .step)
	# a run that is killed in the middle of the next checkpoint leaves none; the first one stands
	train -o out --steps $((saved + 3)) --allow-change steps
	is out '[.state, .step, (.restarts | length)]' "[\"complete\",$((saved + 3)),1]"
	is out '[.restarts[0] | .step, .code, .lost_steps]' "[$saved,null,$((reached - saved))]"
	[ "$reached" = "$saved" ] || is out '.ledger.shares.lost > 0' true
	adds_up out
	# what the ledger spans is what the clock says, to a tenth of a second
	wall=$(jq -s '(map(select(.event == "end"))[-1].time) - .[0].began' out/history.jsonl)
	is out "(.ledger.seconds - $wall | fabs) < 0.1" true
	ok lwm-status out
	has 'because no end was said: killed, or its node was lost'
}

@test "STOP: while it works, when it has ended, and when it was taken away" {
	start -o out --steps 100000 --checkpoint-every 1000 &
	job=$!
	until_step out 3 $job
	kill -STOP $job
	touch out/STOP
	ok lwm-status out
	has 'state     running'
	has 'STOP stands there, it saves and ends after this step'
	kill -CONT $job
	wait $job
	is out '[.state, .reason, .stop_file]' '["stopped","stop file",true]'
	ok lwm-status out
	has 'to go on remove the stop file: rm out/STOP; then run it again'
	rm out/STOP
	is out .state '"saved"'
}

@test "numbers that went bad" {
	code 79 train -o out --steps 200 --warmup-steps 0 --lr 100 --weight-decay 100 --clip 0
	is out '[.state, .code]' '["diverged",79]'
	is out '.skipped > 0' true
	ok lwm-status out
	has '(exit 79)'
	has 'it would diverge again as it is'
}

@test "it ended with another failure" {
	train -o out --steps 2
	echo '{"event":"begin","time":20,"began":10,"step":2,"steps":9,"ranks":4,"hosts":[],"lost_steps":0,"lost_seconds":0,"ended":0,"command":["lwm-x","it'"'"'s"],"job":"7","cwd":"'"$PWD"'"}
{"event":"end","time":30,"step":3,"code":74,"why":"disk\u001b[2J full"}' >>out/history.jsonl
	is out '[.state, .code, .reason, .steps]' '["failed",74,"disk\u001b[2J full",9]'
	ok lwm-status out
	has 'disk\x1b[2J full (exit 74)'
	has "next      mend what it says, and run it again, it resumes at step 2: srun -n 4 lwm-x 'it'\\''s'"
	# a rank whose weights are not those of the others: no diverging, its node is named
	echo '{"event":"begin","time":40,"began":35,"step":2,"steps":9,"ranks":4,"hosts":[["n1",2],["n2",2]],"lost_steps":0,"lost_seconds":0,"ended":30}
{"event":"end","time":50,"step":3,"code":79,"why":"step 3: x of rank 2 on n2 is not what 3 other ranks hold","rank":2,"host":"n2"}' >>out/history.jsonl
	is out '[.state, .code, .suspicious_hosts]' '["failed",79,[{"host":"n2","named":1,"attempts":1}]]'
	ok lwm-status out
	has 'hosts     n2: named by the end of 1 of its 1 runs'
}

@test "a rank that hangs is named, with its host and what the others were at" {
	type -P mpirun >/dev/null || skip 'no mpirun here'
	mpirun --oversubscribe -n 3 lwm-train-stage -q "${tiny[@]}" --tokens-per-batch 768 --mesh-dim 3,1,1,1 -o out --steps 100000 --watchdog 2 2>err &
	job=$!
	until_step out 6 $job
	local pid r rc=0
	pid=$(pgrep -P $job -f lwm-train-stage | sed -n 2p)
	r=$(tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^OMPI_COMM_WORLD_RANK=//p')
	kill -STOP "$pid"
	wait $job || rc=$?
	[ "$rc" = 76 ]
	is out '[.state, .code]' '["failed",76]'
	ok lwm-status out
	has "nothing was heard of rank $r on $(hostname) (exit 76)"
	has "waited for other ranks for "
	has "named by the end of 1 of its 1 runs"
	is out '.suspicious_hosts | length' 1
	[ "$(jq -s 'map(select(.event == "end" and .code == 76 and .waited and (.section | length > 0))) | length' out/history.jsonl)" = 2 ]
}

@test "damaged checkpoints: the seal and sizes find some, --verify all, and older ones count" {
	train -o out --steps 6 --checkpoint-every 2 --keep 9
	printf x | dd of=out/step_00000006/part_00000.h5 bs=1 seek=5000 conv=notrunc status=none
	is out '[.checkpoint.step, .damaged]' '[6,[]]'
	code 1 lwm-status --verify out
	has 'saved     step 4, '
	has 'damaged   '
	has 'step_00000006'
	err_has 'a checkpoint newer than the last whole one is damaged'
	truncate -s -1 out/step_00000006/part_00000.h5
	is out '[.checkpoint.step, (.damaged | length)]' '[4,1]'
	echo '{' >out/step_00000004/COMMIT.json
	is out '[.checkpoint.step, (.damaged | length)]' '[2,2]'
	rm out/step_00000002/COMMIT.json # unfinished: a save that is going on
	is out '[.checkpoint, (.damaged | length)]' '[null,2]'
	ok lwm-status out
	has 'no whole checkpoint'
	mkdir -p out/damaged/step_00000001
	is out .set_aside 1
}

@test "a torn last line, lines of rubbish, no history, no metrics" {
	train -o out --steps 4
	want=$(get out '[.step, .loss, .state, .ledger]')
	printf '{"event":"step","step":99,"lo' >>out/metrics.jsonl
	printf '{"event":"begin","st' >>out/history.jsonl
	is out '[.step, .loss, .state, .ledger]' "$want"
	is out .bad_lines 0
	printf '\n\0\xff\n[1,2]\n{"event":7,"step":"x","time":[]}\n{"event":"step"}\n' >>out/metrics.jsonl
	printf '\n{"event":"begin","hosts":{"a":1},"ranks":-5,"time":"no","began":1e400}\n' >out/rubbish
	cat out/rubbish >>out/history.jsonl
	ok lwm-status out
	has 'cannot be read'
	rm out/history.jsonl out/rubbish
	train -o whole --steps 4
	rm whole/history.jsonl # as earlier versions left it
	is whole '[.state, .step, .ledger]' '["complete",4,null]'
	rm whole/metrics.jsonl
	is whole '[.step, .checkpoint.step, .loss]' '[4,4,null]'
}

@test "silent: it holds its folder and gives no sign of life" {
	start -o out --steps 100000 &
	job=$!
	until_step out 3 $job
	kill -STOP $job
	touch -d '1 hour ago' out/.lock
	sed -Ei 's/"(time|began)":[0-9.]+/"\1":1000/g' out/metrics.jsonl out/history.jsonl
	is out '.state' '"silent"'
	is out '.silent > 3500' true
	ok lwm-status out
	has 'last sign of life 60 min ago, on '
	has 'see whether it still works ('
	kill -9 $job
}

@test "a process of another node: silent or running by its last sign, never dead" {
	train -o out --steps 2
	echo '{"event":"begin","time":20,"began":10,"step":2,"steps":9,"ranks":1,"hosts":[["elsewhere",1]],"lost_steps":0,"lost_seconds":0,"ended":0}' >>out/history.jsonl
	is out .state '"dead"'
	echo 'elsewhere pid 123, job 45' >out/.lock
	is out '[.state, .holder]' '["running","elsewhere pid 123, job 45"]'
	sed -Ei 's/"(time|began)":[0-9.]+/"\1":1000/g' out/metrics.jsonl out/history.jsonl
	touch -d '1 hour ago' out/.lock
	is out .state '"silent"'
}

@test "a pipeline's folder: a line for each stage, tasks, what to do next" {
	train -o runs/b/first --steps 2
	code 75 train -o runs/a/second --steps 6 --stop-after 2
	mkdir -p runs/.lwm-run
	echo '{"done":true}' >runs/.lwm-run/one.json
	echo '{"done":false}' | tee runs/.lwm-run/two.json >runs/.lwm-run/three.json
	echo '{}' >runs/.lwm-run/one.seen.json
	ok lwm-status runs
	has 'tasks of lwm-run: 1 complete, 2 open, 0 of them failed'
	grep -qE '^b/first +complete +step 2 of 2 .*tok/s' <<<"$output"
	grep -qE '^a/second +saved +step 2 of 6 ' <<<"$output"
	[ "$(grep -nE '^(a|b)/' <<<"$output" | cut -c1-5)" = $'2:b/f\n3:a/s' ] # in the order they began
	has 'next      runs/a/second: run it again, it resumes at step 2: '
	echo '{"task":"two","exit":0}
{"task":"two","exit":65}
{"task":"three","exit":65}
{"task":"three","exit":75}
{"ta' >runs/timing.jsonl
	ok lwm-status runs
	has 'next      two ended with 65: see runs/logs/two.log'
	is runs '[.schema, .tasks.done, .tasks.open, (.tasks.failed | length), (.runs | map(.state))]' \
		'["lwm-status-list/1",1,2,1,["complete","saved"]]'
	ok lwm-status --json runs/b/first runs/a/second
	[ "${#lines[@]}" = 2 ]
}

@test "watching ends when all is complete, and by Ctrl-C" {
	start -o out --steps 60 &
	job=$!
	until_step out 1 $job
	ok timeout 60 lwm-status --json --watch --every 0.05s out
	[ "$(tail -1 <<<"$output" | jq -r .state)" = complete ]
	wait $job
	code 75 train -o more --steps 6 --stop-after 2
	lwm-status --watch --every 1h more >said &
	watcher=$!
	until grep -q next said; do sleep 0.05; done
	kill -TERM $watcher
	wait $watcher
}

@test "no run 66, usage 64" {
	mkdir -p empty/deep some
	touch some/file
	code 66 lwm-status empty
	err_has 'empty: is no run'
	code 66 lwm-status absent
	err_has 'absent: does not exist'
	code 66 lwm-status some/file
	err_has 'some/file: is no folder, so no run'
	code 66 lwm-status --json empty
	code 64 lwm-status
	code 64 lwm-status --every nonsense empty
	ok lwm-status --help
	has '--watch'
	has 'Exit codes: 0, whatever the state is'
}
