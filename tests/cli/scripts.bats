# The shipped batch scripts, called by hand where there is no Slurm (tests/slurm runs them where there is).
load ../lib

setup() {
	cd "$BATS_TEST_TMPDIR"
	for v in $(compgen -e SLURM_); do unset "$v"; done
	export LWM_HOME=$ROOT
	mkdir in
	words 40 >in/a.txt
	words 60 >in/b.txt
	words 50 >in/c.txt
}

@test "arrays: every task, one after the other" {
	LWM_TASKS=3 ok "$ROOT/slurm/tokenize_array.sh" in docs --tokenizer bytes --split-lines 5
	[ "$(find docs -name '*.docs.h5' | wc -l)" = 3 ]
	LWM_TASKS=3 ok "$ROOT/slurm/pack_array.sh" docs rows 64
	[ "$(find rows -name '*.rows.h5' | wc -l)" = 3 ]
	ok lwm-synth clips -n 4 --size 16 --frames 3 -o clips -q
	ok lwm-train-stage --objective reconstruction --model tiny --hidden 4 --groups 2 --channel-mult 1,2,2 --codes 16 --resolution 16 \
		--data clips --steps 1 --batch-frames 4 --device cpu -o vq -q
	LWM_TASKS=2 ok "$ROOT/slurm/encode_array.sh" clips codes vq --tokenizer bytes --device cpu
	[ "$(find codes -name '*.docs.h5' | wc -l)" = 2 ]
	# again: nothing is made twice
	LWM_TASKS=3 ok "$ROOT/slurm/pack_array.sh" docs rows 64
	err_has 'nothing to do'
}

# Rows for some stages, and settings that make them small.
small_rows() { # NAME...
	local n
	mkdir -p runs/rows
	words 300 >in/c.txt
	ok lwm-tokenizer-train -q --vocab 320 -o t.model in/c.txt # 259 bytes cannot be shared by 4 ranks
	ok lwm-tokenize -q --tokenizer t.model -o book.docs.h5 in
	for n in "$@"; do ok lwm-pack -q --seq-length 64 -o "runs/rows/$n.rows.h5" book.docs.h5; done
	export LWM_OUT=runs LWM_MODEL=nano LWM_HEADS=4 LWM_SEQ_LENGTH=64 LWM_TOKENS_PER_BATCH=1024 LWM_TOKENIZER=$PWD/t.model \
		LWM_START_FROM=random LWM_CHECKPOINT_EVERY=0 LWM_WARMUP_STEPS=2 LWM_THREADS=1 LWM_STEPS=4 LWM_RANKS=4
}

# A sbatch that writes down what it is called with, and answers with numbers.
fake_sbatch() {
	mkdir -p fake
	cat >fake/sbatch <<-'S'
		#!/bin/bash
		echo "LWM_TASKS=${LWM_TASKS:-} $*" >>"${0%/*}/said"
		echo $((100 + $(wc -l <"${0%/*}/said")))
	S
	chmod +x fake/sbatch
	PATH=$PWD/fake:$PATH
}

@test "every training stage of both curricula has its script: its ranks, its GPUs, and nothing but training" {
	cd "$ROOT"
	for f in text vision chat; do
		while read -r s; do
			script=pipelines/stage_$s.sh
			of() { sed -nE "s/^#SBATCH --$1=//p" "$script"; }
			ranks=$(sed -n 's/^  ranks: \([0-9]*\)$/\1/p' pipelines/$f.yaml)
			[ $(($(of nodes) * $(of ntasks-per-node))) = "$ranks" ]
			[ "$(of nodes)" = "$(sed -n 's/^  nodes: //p' pipelines/$f.yaml)" ]
			[ "$(of gpus-per-node)" = "$(sed -n 's/^  gpus: //p' pipelines/$f.yaml)" ]
			[ "$(of job-name)" = "lwm-$f-${s//_/-}" ]
			[ "$(grep -v '^#' "$script" | tail -1)" = "lwm_stage $f train_$s" ]
			# its steps and its length are those of the file
			args=$(sed -n "/^- name: train_$s\$/,/^- name: merge/p" pipelines/$f.yaml)
			grep -q "stage $s: $(sed -n 's/^    seq-length: //p' <<<"$args") tokens.*, $(sed -n 's/^    steps: //p' <<<"$args") steps" "$script"
		done < <(sed -n 's/^- name: train_//p' pipelines/$f.yaml)
	done
	[ "$(find pipelines -name 'stage_*.sh' | wc -l)" = "$(cat pipelines/text.yaml pipelines/vision.yaml pipelines/chat.yaml | grep -c '^- name: train_')" ]
	# and what merges is a job of one task, without GPUs, with bounded memory, also in the chain that lwm-run makes
	grep -q '^#SBATCH --ntasks=1$' pipelines/merge.sh
	grep -q '^#SBATCH --mem=8G$' pipelines/merge.sh
	[ "$(grep -c '^#SBATCH.*gpu' pipelines/merge.sh)" = 0 ]
	for f in text vision chat; do
		[ "$(sed -n '/^- name: merge_/,/resources/p' pipelines/$f.yaml | grep -c 'resources: {time: 2h, cpus: 4, mem: 8G}')" = \
			"$(grep -c '^- name: train_' pipelines/$f.yaml)" ]
	done
}

@test "a chain of stages: what is not complete, each after the one before" {
	fake_sbatch
	small_rows 32k
	ok "$ROOT/pipelines/chain.sh" vision chat_128k chat_1m -- --partition=gpu --nodes=2
	[ "$output" = $'101 train_chat_128k\n102 merge_chat_128k\n103 train_chat_1m\n104 merge_chat_1m' ]
	sed "s,$ROOT/,,; s/LWM_TASKS= //" fake/said >said
	same said - <<-S
		--parsable --partition=gpu --nodes=2 pipelines/stage_chat_128k.sh
		--parsable --dependency=afterany:101 pipelines/merge.sh vision chat_128k
		--parsable --dependency=afterany:102 --partition=gpu --nodes=2 pipelines/stage_chat_1m.sh
		--parsable --dependency=afterany:103 pipelines/merge.sh vision chat_1m
	S
	code 64 "$ROOT/pipelines/chain.sh" text 3k
	err_has 'stage_3k.sh'
	# what is complete is not submitted; what follows from something that is, is
	need_mpi
	rm fake/said
	ok "$ROOT/pipelines/stage_32k.sh"
	ok "$ROOT/pipelines/chain.sh" text 32k
	[ "$output" = '101 merge_32k' ]
	ok "$ROOT/pipelines/merge.sh" text 32k
	ok "$ROOT/pipelines/chain.sh" text 32k
	[ -z "$output" ]
	err_has 'nothing to submit'
	ok env LWM_STEPS=5 "$ROOT/pipelines/chain.sh" text 32k
	[ "$output" = $'102 train_32k\n103 merge_32k' ]
}

@test "--only-failed asks what became of each task, and submits those that failed" {
	fake_sbatch
	# without accounting; a line for each task
	printf '#!/bin/bash\nexit 1\n' >fake/sacct
	cat >fake/scontrol <<-'S'
		#!/bin/bash
		[ "$*" = 'show job -o 77' ] || exit 1
		cat "${0%/*}/states"
	S
	chmod +x fake/sacct fake/scontrol
	state() { echo "JobId=$((80 + $1)) ArrayJobId=77 ArrayTaskId=$1 JobName=x UserId=0 JobState=$2 Reason=None"; }
	failed() { ok "$ROOT/slurm/pack_array.sh" --only-failed 77 docs rows 64 --force; }
	for t in 0:COMPLETED 1:FAILED 2:NODE_FAIL 3:RUNNING 4:TIMEOUT 5:COMPLETED 6:CANCELLED 7:OUT_OF_MEMORY 10:PREEMPTED 8:COMPLETED 9:COMPLETED; do
		state "${t%:*}" "${t#*:}"
	done >fake/states
	failed
	[ "$(cat fake/said)" = "LWM_TASKS=11 --array=1,2,4,6,7,10 $ROOT/slurm/pack_array.sh docs rows 64 --force" ]
	# a part of an array: only the user knows how large the whole was
	sed -i /ArrayTaskId=0/d fake/states
	code 64 "$ROOT/slurm/pack_array.sh" --only-failed 77 docs rows 64
	err_has 'set LWM_TASKS'
	LWM_TASKS=20 failed
	grep -q '^LWM_TASKS=20 --array=1,2,4,6,7,10 ' fake/said
	state 0 COMPLETED >fake/states
	failed
	err_has 'no task has failed'
	[ -z "$output" ]
	code 66 "$ROOT/slurm/pack_array.sh" --only-failed 78 docs rows 64
	code 64 "$ROOT/slurm/pack_array.sh" --only-failed docs rows 64
	# where jobs are accounted for: the last line of a task that was requeued
	printf '#!/bin/bash\nprintf "%%s\\n" "77_0|COMPLETED" "77_1|NODE_FAIL" "77_1|COMPLETED" "77_2|CANCELLED by 0" "77_[3-4]|PENDING"\n' >fake/sacct
	failed
	tail -1 fake/said | grep -q '^LWM_TASKS=3 --array=2 '
}

@test "a job that loses ranks goes back into the queue, from the second time on when lost nodes are known" {
	mkdir fake
	cat >fake/scontrol <<-'S'
		#!/bin/bash
		case "$*" in
		'show job 7') echo "   Comment=$(cat "${0%/*}/comment")" ;;
		'show config') echo 'SlurmdTimeout           = 300 sec' ;;
		*Comment=*) echo "${*#*Comment=}" >"${0%/*}/comment" ;;
		*) echo "$*" >>"${0%/*}/said" ;;
		esac
	S
	printf '#!/bin/bash\nshift 4\nexec "$@"\n' >fake/srun
	printf '#!/bin/bash\n' >fake/sleep
	chmod +x fake/*
	: >fake/comment
	cat >job.sh <<-'S'
		#!/bin/bash
		. "$LWM_HOME/slurm/job.sh"
		lwm_job 1 "$@"
		lwm_wrote result
	S
	chmod +x job.sh
	lost() { code "$1" env SLURM_JOB_ID=7 PATH="$PWD/fake:$PATH" ./job.sh "${@:2}"; }
	lost 137 sh -c 'kill -KILL $$'
	[ "$(cat fake/said)" = 'requeue 7' ]
	lost 76 sh -c 'exit 76'
	[ "$(tail -2 fake/said | xargs)" = 'requeue 7 update JobId=7 StartTime=now+610' ]
	# a step that went down with its node may be said to have ended well
	lost 76 true
	err_has 'not written: result'
	err_has 'back into the queue (3 of 3)'
	[ "$(grep -c requeue fake/said)" = 3 ]
	lost 70 true
	err_has 'given up'
	[ "$(grep -c requeue fake/said)" = 3 ]
	touch result
	lost 0 true
}

@test "stages of the vision curriculum, on their own meshes under mpirun" {
	need_mpi
	small_rows 1k text_1k chat_32k
	ok "$ROOT/pipelines/stage_1k.sh"
	ok "$ROOT/pipelines/stage_chat_32k.sh"
	for s in 1k chat_32k; do
		grep -q '"ranks":4' "runs/train/$s/metrics.jsonl"
		ok "$ROOT/pipelines/merge.sh" vision $s
		ok lwm-inspect --check --quiet runs/models/$s
	done
}

@test "a stage of the curriculum, on its own mesh under mpirun" {
	need_mpi
	small_rows 32k
	ok "$ROOT/pipelines/stage_32k.sh"
	grep -q '"ranks":4' runs/train/32k/metrics.jsonl
	gone runs/models # that is a job of its own
	ok "$ROOT/pipelines/stage_32k.sh"
	err_has '0 ran, 1 were complete'
	ok "$ROOT/pipelines/merge.sh" text 32k
	[ -e runs/models/32k/config.json ]
	ok "$ROOT/pipelines/merge.sh" text 32k
	err_has '0 ran, 1 were complete'
	# of a stage that was stopped there is none
	mkdir -p part/train
	cp -r runs/train/32k part/train/32k
	rm part/train/32k/summary.json
	code 66 env LWM_OUT=part "$ROOT/pipelines/merge.sh" text 32k
	err_has 'part/train/32k/summary.json'
	gone part/models
	# what the task would say of wrong ranks is said at once
	code 78 env LWM_RANKS=3 LWM_OUT=other "$ROOT/pipelines/stage_32k.sh"
	err_has 'stage train_32k'
}
