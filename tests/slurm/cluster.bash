# shellcheck shell=bash disable=SC2034 # what it sets is used by tests
# A cluster for a bats file, which sets NODES; the project's scripts with the programs under test; what is asked of jobs.

setup_file() {
	WHY_NOT=$("$BATS_TEST_DIRNAME/cluster.sh" why-not)
	export WHY_NOT
	[ -z "$WHY_NOT" ] || return 0
	DIR=$(mktemp -d /tmp/lwmslurm.XXXX)
	export DIR
	"$BATS_TEST_DIRNAME/cluster.sh" up "$DIR/cluster" "$NODES" 4
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
	cd "$BATS_TEST_TMPDIR" || return 1
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

# A curriculum's file with each mesh scaled to so many ranks: while tensor and ring parallel ranks are too many the larger of both
# numbers is halved (the ring's, where they are the same); data and shard ranks become 1, and what is left goes where the -1 is.
scaled() { # FILE RANKS
	awk -v ranks="$2" '$1 == "mesh-dim:" {
		split($2, m, ",")
		while (m[3] * m[4] > ranks) { if (m[3] > m[4]) m[3] /= 2; else m[4] /= 2 }
		for (i = 1; i <= 2; i++) if (m[i] > 1) m[i] = 1
		sub(/mesh-dim: .*/, "mesh-dim: " m[1] "," m[2] "," m[3] "," m[4])
	} { print }' "$1"
}

# Stages of text.yaml (in this folder, its meshes scaled) on so many nodes, a rank each: rows in runs/rows, a model of nano size, a
# vocabulary that tensor parallel ranks can divide. LWM_CHECKPOINT_EVERY is the caller's.
small_stages() { # RANKS STAGE...
	local s
	words 400 >book.txt
	mkdir -p runs/rows
	ok lwm-tokenizer-train -q --vocab 320 -o t.model book.txt
	ok lwm-tokenize -q --tokenizer t.model -o book.docs.h5 book.txt
	for s in "${@:2}"; do ok lwm-pack -q --seq-length 64 -o "runs/rows/$s.rows.h5" book.docs.h5; done
	scaled "$ROOT/pipelines/text.yaml" "$1" >text.yaml
	export LWM_PIPELINE=$PWD/text.yaml LWM_OUT=runs LWM_MODEL=nano LWM_HEADS=4 LWM_SEQ_LENGTH=64 LWM_TOKENS_PER_BATCH=1024 LWM_RANKS=$1
	export LWM_TOKENIZER=t.model LWM_CHECKPOINT_EVERY=0 LWM_WARMUP_STEPS=2 LWM_THREADS=1
	ranks=(--nodes="$1" --ntasks-per-node=1 --gpus-per-node=0 --cpus-per-task=1 --mem=1000)
}

small_stage() {
	small_stages 2 32k
	export LWM_START_FROM=random
}

# The same stage in one piece, without Slurm, must have made the same steps.
as_undisturbed() {
	mkdir -p whole
	ln -s ../runs/rows whole/rows
	ok env LWM_OUT=whole "$ROOT/pipelines/stage_32k.sh"
	[ "$(steps runs)" = "$(steps whole)" ]
}

# The number of the last step that a run has written down; steps: each with its loss.
last_step() { grep -o '"event":"step","step":[0-9]*' "$1/train/32k/metrics.jsonl" 2>/dev/null | tail -1 | grep -o '[0-9]*$'; }
steps() { grep -o '"step":[0-9]*,.*"loss_hex":"[^"]*"' "$1/train/32k/metrics.jsonl" | sed 's/,.*loss_hex/ /'; }

until_step() { # N: stage 32k has made so many
	local i n
	for ((i = 0; i < 1500; i++)); do
		n=$(last_step runs) || true
		[ "${n:-0}" -lt "$1" ] || return 0
		sleep 0.1
	done
	echo "step $1 was not reached"
	return 1
}

endless() { sed -i 's/steps: 1200$/steps: 1000000/' text.yaml; } # stage 32k; so many steps that it is still at work
end_soon() { # STEPS: so many more than it has made
	last=$(last_step runs)
	sed -i "s/steps: 1000000/steps: $((last + $1))/" text.yaml
}

# The same of a job that is at work: it saves, and when it comes back it is told.
told_to_end() { # JOB STEPS
	local i n
	n=$(restarts "$1")
	scancel --signal=USR1 "$1"
	for ((i = 0; i < 300; i++)); do
		[ "$(restarts "$1")" = "$n" ] || break
		sleep 0.1
	done
	end_soon "$2"
}

restarts() { scontrol show job -o "$1" | grep -oE 'Restarts=[0-9]+' | cut -d= -f2; }

until_log() { # LOG TEXT
	local i
	for ((i = 0; i < 400; i++)); do
		! grep -qs -- "$2" "$1" || return 0
		sleep 0.2
	done
	cat "$1"
	return 1
}
