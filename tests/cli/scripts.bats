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

@test "a stage of the curriculum, on its own mesh under mpirun" {
	need_mpi
	mkdir -p runs/rows
	words 300 >in/c.txt
	ok lwm-tokenizer-train -q --vocab 320 -o t.model in/c.txt # 259 bytes cannot be shared by 4 ranks
	ok lwm-tokenize -q --tokenizer t.model -o book.docs.h5 in
	ok lwm-pack -q --seq-length 64 -o runs/rows/32k.rows.h5 book.docs.h5
	export LWM_OUT=runs LWM_MODEL=nano LWM_HEADS=4 LWM_SEQ_LENGTH=64 LWM_TOKENS_PER_BATCH=1024 LWM_TOKENIZER=$PWD/t.model \
		LWM_START_FROM=random LWM_CHECKPOINT_EVERY=0 LWM_WARMUP_STEPS=2 LWM_THREADS=1 LWM_STEPS=4 LWM_RANKS=4
	ok "$ROOT/pipelines/stage_32k.sh"
	grep -q '"ranks":4' runs/train/32k/metrics.jsonl
	[ -e runs/models/32k/config.json ]
	ok "$ROOT/pipelines/stage_32k.sh"
	err_has '0 ran, 2 were complete'
	# what the task would say of wrong ranks is said at once
	code 78 env LWM_RANKS=3 LWM_OUT=other "$ROOT/pipelines/stage_32k.sh"
	err_has 'stage train_32k'
}
