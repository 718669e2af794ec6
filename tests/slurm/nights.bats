# A real Slurm of four nodes on loopback: the curriculum by the scripts that ship, on their own meshes, scaled down; nodes that are
# lost, jobs that are preempted; arrays of which only what failed is run again.
load ../lib
load cluster

export NODES=4

# The first stage starts from a model of made-up weights.
first_model() {
	ok lwm-train-stage -q --model nano --seq-length 64 --tokens-per-batch 256 --warmup-steps 1 --tokenizer t.model --device cpu \
		--data runs/rows/32k.rows.h5 --steps 1 -o first
	ok env -u LWM_RANKS lwm-merge-ckpt -q first -o first-model # ranks would be those of another checkpoint
	sed -i 's#^  start: .*#  start: model:first-model#' text.yaml
}

chain() { # STAGE...: sets jobs, a line "JOB WHAT" each
	ok "$ROOT/pipelines/chain.sh" text "$@" -- "${ranks[@]}"
	jobs=$output
}

all_are() { # STATE
	local job what have
	while read -r job what; do
		have=$(state "$job")
		[ "$have" = "$1=1" ] || { echo "$what: $have" && return 1; }
	done <<<"$jobs"
}

@test "five stages by the scripts that ship, on their own meshes scaled down, each merged by a job of its own" {
	stages=(32k 128k 256k 512k 1m)
	small_stages 4 "${stages[@]}"
	first_model
	export LWM_STEPS=4 LWM_CHECKPOINT_EVERY=2
	chain
	[ "$(wc -l <<<"$jobs")" = 10 ]
	# what merges has one task, no GPU and bounded memory, and waits for the stage
	while read -r job what; do
		text=$(scontrol show job -o "$job")
		[[ $what = train_32k || $text = *"Dependency=afterany:$last("* ]] || { echo "$what: $text" && false; }
		[[ $what != merge_* ]] || [[ $text = *NumTasks=1\ *MinMemoryNode=8G* && $text != *gres* ]] || { echo "$what: $text" && false; }
		last=$job
	done <<<"$jobs"
	finish 400
	all_are COMPLETED
	for s in "${stages[@]}"; do
		grep -q '"ranks":4\b' "runs/train/$s/metrics.jsonl"
		[ "$(grep -c '"event":"step"' "runs/train/$s/metrics.jsonl")" = 4 ]
		ok lwm-inspect --check --quiet "runs/models/$s"
	done
	# nothing is left to do: nothing is submitted, and what is submitted by hand ends at once and changes nothing
	chain
	[ -z "$jobs" ]
	err_has 'nothing to submit'
	before=$(md5sum runs/models/*/model.safetensors runs/train/*/metrics.jsonl)
	job=$(submit "${ranks[@]}" "$ROOT/pipelines/stage_1m.sh")
	merge=$(submit --dependency=afterany:"$job" "$ROOT/pipelines/merge.sh" text 1m)
	finish 60
	[ "$(state "$job") $(state "$merge")" = 'COMPLETED=1 COMPLETED=1' ]
	grep -q '0 ran, 1 were complete' lwm-text-1m-"$job".log
	[ "$before" = "$(md5sum runs/models/*/model.safetensors runs/train/*/metrics.jsonl)" ]
}

@test "a stage that fails ends the chain: what follows ends at once, and the next chain begins there" {
	small_stages 2 32k 256k
	first_model
	export LWM_STEPS=2
	chain 32k 128k 256k
	finish 200
	done=$(sed -n 1,2p <<<"$jobs") rest=$(sed -n '3,$p' <<<"$jobs")
	jobs=$done all_are COMPLETED
	jobs=$rest all_are FAILED
	while read -r job what; do [ "$(restarts "$job")" = 0 ]; done <<<"$rest"
	gone runs/train/128k/summary.json runs/models/128k runs/train/256k/summary.json runs/models/256k
	cp runs/rows/256k.rows.h5 runs/rows/128k.rows.h5
	cp runs/rows/256k.rows.h5.manifest.json runs/rows/128k.rows.h5.manifest.json
	chain 32k 128k 256k
	[ "$(cut -d' ' -f2 <<<"$jobs" | xargs)" = 'train_128k merge_128k train_256k merge_256k' ]
	finish 200
	all_are COMPLETED
	ok lwm-inspect --check --quiet runs/models/256k
}

@test "a job that is preempted goes on when what was more urgent has ended, with the same steps" {
	small_stage
	export LWM_CHECKPOINT_EVERY=20
	endless
	job=$(submit "${ranks[@]}" "$ROOT/pipelines/stage_32k.sh")
	for round in 1 2; do
		n=$(last_step runs) || n=0
		until_step $((${n:-0} + 30))
		urgent=$(submit --partition=urgent --nodes=4 --ntasks-per-node=4 --output=urgent.log --wrap 'sleep 1')
		for _ in {1..300}; do
			[ "$(state "$urgent")" != 'COMPLETED=1' ] || break
			sleep 0.2
		done
		[ "$(state "$urgent")" = 'COMPLETED=1' ]
		[ "$(restarts "$job")" -ge $round ]
	done
	until_step $(($(last_step runs) + 1))
	told_to_end "$job" 40
	finish 200
	[ "$(state "$job")" = 'COMPLETED=1' ]
	as_undisturbed
}

@test "--only-failed: those tasks of an array that failed are submitted again, and no others" {
	mkdir in
	for i in 0 1 2 3 4; do words $((20 + i)) >in/book$i.txt; done
	for i in 1 3; do mv in/book$i.txt kept$i && echo '{"text": "never closed' >in/book$i.jsonl; done
	args=(in out --tokenizer bytes --max-bad 0)
	job=$(submit --array=0-4 --mem=500 "$ROOT/slurm/tokenize_array.sh" "${args[@]}")
	code 64 "$ROOT/slurm/tokenize_array.sh" --only-failed x "${args[@]}"
	finish 60
	[ "$(state "$job" | sort | xargs)" = 'COMPLETED=3 FAILED=2' ]
	for i in 1 3; do echo '{"text": "a whole line"}' >in/book$i.jsonl; done
	ok "$ROOT/slurm/tokenize_array.sh" --only-failed "$job" "${args[@]}"
	again=${output##* }
	finish 60
	[ "$(state "$again")" = 'COMPLETED=2' ]
	[ "$(scontrol show job -o "$again" | grep -oE 'ArrayTaskId=[0-9]+' | sort | xargs)" = 'ArrayTaskId=1 ArrayTaskId=3' ]
	[ "$(find out -name '*.docs.h5' | wc -l)" = 5 ]
	# of an array that is complete nothing; of a part of one only with the size of the whole
	job=$(LWM_TASKS=5 submit --array=3-4 --mem=500 "$ROOT/slurm/tokenize_array.sh" "${args[@]}")
	finish 60
	ok "$ROOT/slurm/tokenize_array.sh" --only-failed "$job" "${args[@]}"
	err_has 'no task has failed'
	job=$(submit --array=1-2 --mem=500 "$ROOT/slurm/tokenize_array.sh" "${args[@]}")
	finish 60
	[ "$(state "$job")" = 'FAILED=2' ]
	code 64 "$ROOT/slurm/tokenize_array.sh" --only-failed "$job" "${args[@]}"
	err_has 'LWM_TASKS'
	code 66 "$ROOT/slurm/tokenize_array.sh" --only-failed 999999 "${args[@]}"
}

@test "nodes that are lost in the middle of a run, the batch script's too: the job runs on others, with the same steps" {
	small_stage
	export LWM_CHECKPOINT_EVERY=20
	endless
	job=$(submit "${ranks[@]}" "$ROOT/pipelines/stage_32k.sh")
	for which in '$p' 1p; do
		n=$(last_step runs) || n=0
		until_step $((${n:-0} + 30))
		node=$(scontrol show hostnames "$(squeue -h -j "$job" -o %N)" | sed -n "$which")
		before=$(restarts "$job")
		"$BATS_TEST_DIRNAME/cluster.sh" lose "$DIR/cluster" "$node"
		for _ in {1..300}; do
			[ "$(restarts "$job")" = "$before" ] || break
			sleep 0.2
		done
		[ "$(restarts "$job")" -gt "$before" ]
		until_step $(($(last_step runs) + 1))
		"$BATS_TEST_DIRNAME/cluster.sh" find "$DIR/cluster" "$node"
	done
	told_to_end "$job" 40
	finish 200
	[ "$(state "$job")" = 'COMPLETED=1' ]
	as_undisturbed
}
