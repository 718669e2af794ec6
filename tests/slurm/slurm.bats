# A real Slurm of three nodes on loopback: an array with a failed task and its rerun, a requeue, the curriculum as a chain.
load ../lib
load cluster

export NODES=3

@test "an array with a failed task, and its rerun" {
	mkdir in
	for i in 0 1 2 3; do words $((20 + i)) >in/book$i.txt; done
	rm in/book2.txt
	echo '{"text": "never closed' >in/book2.jsonl
	job=$(submit --array=0-3 --mem=500 "$ROOT/slurm/tokenize_array.sh" in out --tokenizer bytes --max-bad 0)
	finish 60
	[ "$(state "$job" | sort | xargs)" = 'COMPLETED=3 FAILED=1' ]
	gone out/book2.docs.h5
	grep -q 'book2' lwm-tokenize-"${job}"_2.log
	# a part of an array must be told the size of the whole
	job=$(submit --array=2 --mem=500 "$ROOT/slurm/tokenize_array.sh" in out --tokenizer bytes --max-bad 0)
	finish 60
	[ "$(state "$job")" = 'FAILED=1' ]
	grep -q LWM_TASKS lwm-tokenize-"${job}"_2.log
	echo '{"text": "a whole line"}' >in/book2.jsonl
	job=$(LWM_TASKS=4 submit --array=2 --mem=500 "$ROOT/slurm/tokenize_array.sh" in out --tokenizer bytes --max-bad 0)
	finish 60
	[ "$(state "$job")" = 'COMPLETED=1' ]
	# the same script without Slurm gives the same bytes
	ok "$ROOT/slurm/tokenize_array.sh" in direct --tokenizer bytes --max-bad 0
	for i in 0 1 2 3; do same out/book$i.docs.h5 direct/book$i.docs.h5; done
}

@test "a stage saves before its time limit, is requeued and completes" {
	small_stage
	# more steps than fit into the first run's minute; a few more than it made for the second
	endless
	job=$(submit "${ranks[@]}" --time=1 --signal=USR1@50 "$ROOT/pipelines/stage_32k.sh")
	until_log lwm-text-32k-"$job".log 'back into the queue'
	end_soon 20
	finish 120
	[ "$(state "$job")" = 'COMPLETED=1' ]
	[ "$(restarts "$job")" = 1 ]
	[ -e runs/train/32k/summary.json ]
	# each step stands once, and the run that was cut in two is the run that was not
	[ "$(steps runs | wc -l)" = $((last + 20)) ]
	as_undisturbed
}

@test "the curriculum end to end as a chain of jobs" {
	mkdir books
	for i in 0 1 2; do words 300 | sed "s/sea/sea $i/" >books/b$i.txt; done
	export LWM_TOKENIZER=bytes LWM_MODEL=nano LWM_TOKENS_PER_BATCH=2048 LWM_STEPS=3 LWM_WARMUP_STEPS=1 LWM_THREADS=1
	export LWM_MIN_TOKENS=0 LWM_MAX_TOKENS=0 LWM_MESH_DIM=-1,1,1,1
	sets=(--set books=books --set out=out --set start=random --set ranks=2 --set nodes=2 --set gpus=0)
	n=64
	for s in 32k 128k 256k 512k 1m; do
		sets+=(--set "stages.pack_$s.args.seq-length=$n" --set "stages.train_$s.args.seq-length=$n")
		sets+=(--set "stages.tokenize_$s.resources.cpus=1" --set "stages.pack_$s.resources.cpus=1")
		n=$((n * 2))
	done
	ok lwm-run --slurm "${sets[@]}" "$ROOT/pipelines/text.yaml"
	[ "$(wc -l <<<"$output")" = 20 ]
	finish 300
	ok lwm-run --plan "${sets[@]}" "$ROOT/pipelines/text.yaml"
	has '0 to run'
	ok lwm-inspect --check --quiet out/models/1m
	# nothing left to submit
	ok lwm-run --slurm "${sets[@]}" "$ROOT/pipelines/text.yaml"
	has 'nothing to submit'
}

@test "a rank that is killed: the job is requeued within a minute and completes with the same steps" {
	small_stage
	export LWM_CHECKPOINT_EVERY=20
	endless
	job=$(submit "${ranks[@]}" --comment='a word of mine' "$ROOT/pipelines/stage_32k.sh")
	until_step 30
	# one of the two, whichever is found first
	kill -9 "$(pgrep -f "lwm-train-stage.* --output runs/train/32k" | while read -r p; do
		! grep -qz '^PMIX_RANK=1$' "/proc/$p/environ" || [ "$(cat "/proc/$p/comm")" != lwm-train-stage ] || echo "$p"
	done | head -1)"
	t0=$SECONDS
	until_log lwm-text-32k-"$job".log 'lost a rank (exit 76), back into the queue (1 of 3)'
	[ $((SECONDS - t0)) -lt 60 ]
	scontrol show job "$job" | grep -q 'Comment=a word of mine lwm-losses=1'
	end_soon 40
	finish 120
	[ "$(state "$job")" = 'COMPLETED=1' ]
	[ "$(restarts "$job")" = 1 ]
	as_undisturbed
}

@test "a rank that is always lost is given up; a cancelled job stays cancelled" {
	cat >lost.sh <<-'S'
		#!/bin/bash
		#SBATCH --nodes=2 --ntasks-per-node=1 --mem=200 --requeue --open-mode=append --output=%x-%j.log
		. "$LWM_HOME/slurm/job.sh"
		lwm_job 2 bash -c 'kill -KILL $$'
	S
	job=$(LWM_MAX_LOSSES=1 submit lost.sh)
	finish 90
	[ "$(state "$job")" = 'FAILED=1' ]
	[ "$(restarts "$job")" = 1 ]
	# killed itself, or was ended with the other: srun says the highest code
	grep -E 'lost a rank \(exit 1[2-5][0-9]\), back into the queue \(1 of 1\)' lost.sh-"$job".log || { cat lost.sh-"$job".log; false; }
	grep 'given up' lost.sh-"$job".log || { cat lost.sh-"$job".log; false; }
	small_stage
	job=$(LWM_STEPS=1000000 submit "${ranks[@]}" "$ROOT/pipelines/stage_32k.sh")
	until_step 1
	scancel "$job"
	finish 60
	[ "$(state "$job")" = 'CANCELLED=1' ]
}

@test "STOP ends a job well and for good; without it the next one goes on" {
	small_stage
	export LWM_STEPS=1000000
	job=$(submit "${ranks[@]}" "$ROOT/pipelines/stage_32k.sh")
	until_step 1
	touch runs/train/32k/STOP
	finish 60
	[ "$(state "$job")" = 'COMPLETED=1' ]
	[ "$(restarts "$job")" = 0 ]
	last=$(last_step runs)
	[ -e "runs/train/32k/step_$(printf %08d "$last")" ]
	gone runs/train/32k/summary.json
	# of a stage that is not complete no model is made
	job=$(submit "$ROOT/pipelines/merge.sh" text 32k)
	finish 60
	[ "$(state "$job")" = 'FAILED=1' ]
	grep -q 'needed and not there: runs/train/32k/summary.json' lwm-merge-"$job".log
	gone runs/models/32k
	rm runs/train/32k/STOP
	job=$(LWM_STEPS=$((last + 5)) submit "${ranks[@]}" "$ROOT/pipelines/stage_32k.sh")
	finish 90
	[ "$(state "$job")" = 'COMPLETED=1' ]
	[ "$(last_step runs)" = $((last + 5)) ]
}

@test "arrays: packed by several tasks; told to stop, they save, are requeued and complete" {
	mkdir in
	words 6000 >part.txt
	for i in {1..60}; do cat part.txt; done >book.txt
	for i in {0..19}; do sed "s/sea/sea $i/" book.txt >in/book$i.txt; done
	job=$(submit --array=0-1 --mem=500 "$ROOT/slurm/tokenize_array.sh" in docs --tokenizer bytes)
	for _ in {1..300}; do
		! compgen -G 'docs/*.docs.h5' >/dev/null || break
		sleep 0.05
	done
	scancel --signal=USR1 "$job"
	finish 120
	[ "$(state "$job")" = 'COMPLETED=2' ]
	cat lwm-tokenize-"$job"_*.log | grep -q 'back into the queue'
	[ "$(find docs -name '*.docs.h5' | wc -l)" = 20 ]
	job=$(submit --array=0-2 --mem=500 "$ROOT/slurm/pack_array.sh" docs rows 64 --rows-per-shard 1000)
	finish 120
	[ "$(state "$job")" = 'COMPLETED=3' ]
	# the same without Slurm
	ok "$ROOT/slurm/tokenize_array.sh" in direct --tokenizer bytes
	for i in {0..19}; do same docs/book$i.docs.h5 direct/book$i.docs.h5; done
	LWM_TASKS=3 ok "$ROOT/slurm/pack_array.sh" direct rows2 64 --rows-per-shard 1000
	[ "$(ls rows)" = "$(ls rows2)" ]
	for f in rows/*.rows.h5; do same "$f" "rows2/${f#*/}"; done
}

@test "the commands that the README shows are ones that Slurm takes" {
	mkdir books
	cd "$ROOT"
	n=0
	while read -r array; do
		ok sbatch --test-only "$array" --mem=100 "$ROOT/slurm/tokenize_array.sh" books tokens
		n=$((n + 1))
	done < <(grep -oh -- '--array=[0-9%,-]*' slurm/README.md slurm/*.sh README.md pipelines/README.md | sort -u)
	[ $n -ge 2 ]
}
