# A real Slurm of three nodes on loopback: an array with a failed task and its rerun, a requeue, the curriculum as a chain.
load ../lib

setup_file() {
	WHY_NOT=$("$BATS_TEST_DIRNAME/cluster.sh" why-not)
	export WHY_NOT
	[ -z "$WHY_NOT" ] || return 0
	DIR=$(mktemp -d /tmp/lwmslurm.XXXX)
	export DIR
	"$BATS_TEST_DIRNAME/cluster.sh" up "$DIR/cluster" 3 4
}

teardown_file() {
	[ -n "${DIR:-}" ] || return 0
	"$BATS_TEST_DIRNAME/cluster.sh" down "$DIR/cluster"
	rm -rf "$DIR"
}

setup() {
	[ -z "$WHY_NOT" ] || skip "$WHY_NOT"
	# shellcheck disable=SC1091
	. "$DIR/cluster/env.sh"
	export LWM_HOME=$DIR/home OMP_NUM_THREADS=1
	mkdir -p "$LWM_HOME"
	# the programs under test, with the project's scripts
	ln -sfn "$BIN" "$LWM_HOME/bin"
	ln -sfn "$ROOT/slurm" "$LWM_HOME/slurm"
	ln -sfn "$ROOT/pipelines" "$LWM_HOME/pipelines"
	cd "$BATS_TEST_TMPDIR"
}

teardown() {
	[ -n "${BATS_TEST_COMPLETED:-}" ] || { squeue -l; tail -n 30 ./*.log out/logs/*.log; } 2>/dev/null || true
}

submit() { # submit SBATCH-ARGUMENT...: prints the job's number
	sbatch --parsable "$@"
}

state() { # state JOB: of each of its tasks
	scontrol show job -o "$1" | grep -oE 'JobState=[A-Z_]+' | cut -d= -f2 | sort | uniq -c | awk '{ print $2 "=" $1 }'
}

finish() { # finish SECONDS: until no job is left
	local end=$((SECONDS + $1))
	while [ -n "$(squeue -h)" ]; do
		[ $SECONDS -lt $end ] || { squeue -l; return 1; }
		sleep 0.5
	done
}

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
	words 400 >book.txt
	mkdir -p runs/rows
	ok lwm-tokenize -q --tokenizer bytes -o book.docs.h5 book.txt
	ok lwm-pack -q --seq-length 64 -o runs/rows/32k.rows.h5 book.docs.h5
	export LWM_OUT=runs LWM_MODEL=nano LWM_SEQ_LENGTH=64 LWM_TOKENS_PER_BATCH=1024 LWM_MESH_DIM=-1,1,1,1
	export LWM_TOKENIZER=bytes LWM_START_FROM=random LWM_CHECKPOINT_EVERY=0 LWM_WARMUP_STEPS=2 LWM_THREADS=1
	# more steps than fit into the first run's minute; a few more than it made for the second
	export LWM_PIPELINE=$PWD/text.yaml
	sed 's/steps: 1200$/steps: 1000000/' "$ROOT/pipelines/text.yaml" >text.yaml
	job=$(submit --nodes=2 --ntasks-per-node=1 --gpus-per-node=0 --cpus-per-task=1 --mem=1000 --time=1 \
		--signal=USR1@50 "$ROOT/pipelines/stage_32k.sh")
	for _ in {1..300}; do
		! grep -qs 'back into the queue' lwm-text-32k-"$job".log || break
		sleep 0.2
	done
	last=$(grep -o '"event":"step","step":[0-9]*' runs/train/32k/metrics.jsonl | tail -1 | grep -o '[0-9]*$')
	sed -i "s/steps: 1000000/steps: $((last + 20))/" text.yaml
	finish 120
	[ "$(state "$job")" = 'COMPLETED=1' ]
	[ "$(scontrol show job -o "$job" | grep -oE 'Restarts=[0-9]+')" = Restarts=1 ]
	[ -e runs/train/32k/summary.json ]
	[ -e runs/models/32k/config.json ]
	# each step stands once, and the run that was cut in two is the run that was not
	LWM_OUT=whole
	mkdir -p whole
	ln -s ../runs/rows whole/rows
	ok env OMPI_ALLOW_RUN_AS_ROOT=1 LWM_RANKS=2 "$ROOT/pipelines/stage_32k.sh"
	steps() { grep -o '"step":[0-9]*,.*"loss_hex":"[^"]*"' "$1/train/32k/metrics.jsonl" | sed 's/,.*loss_hex/ /'; }
	[ "$(steps runs | wc -l)" = $((last + 20)) ]
	[ "$(steps runs)" = "$(steps whole)" ]
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
