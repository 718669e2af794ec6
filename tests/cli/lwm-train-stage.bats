# lwm-train-stage: what it refuses, how it stops, is killed, goes on, and runs on ranks.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 600 >words.txt
	lwm-tokenize -q -t bytes --split-lines 20 -o docs.h5 words.txt
	lwm-pack -q -n 64 -o rows.h5 docs.h5
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return 1
	rows=$BATS_FILE_TMPDIR/rows.h5
	tiny=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --data "$rows" --seq-length 64
		--tokens-per-batch 256 --warmup-steps 2 --lr 3e-3 --log-every 1000)
}

train() { lwm-train-stage -q "${tiny[@]}" "$@"; }
# for the background: $! is the program itself
start() { exec lwm-train-stage -q "${tiny[@]}" "$@"; }

teardown() {
	[ -z "${job:-}" ] || kill "$job" 2>/dev/null || true
	umount "$BATS_TEST_TMPDIR/small" 2>/dev/null || true
}

# STEP LOSS, exactly, a line each
losses() { sed -nE 's/.*"event":"step","step":([0-9]+),.*"loss_hex":"([^"]*)".*/\1 \2/p' "$1/metrics.jsonl"; }

# losses_near A B: decimal losses of two runs within 1e-4 of each other
losses_near() {
	paste <(sed -nE 's/.*"event":"step".*"loss":([0-9.e+-]+),.*/\1/p' "$1/metrics.jsonl") \
		<(sed -nE 's/.*"event":"step".*"loss":([0-9.e+-]+),.*/\1/p' "$2/metrics.jsonl") |
		awk -v want="$3" '{ d = $1 - $2; if (NF != 2 || d > 1e-4 * $1 || d < -1e-4 * $1) { print "differ: " $0; bad = 1 } }
			END { if (NR != want) { print NR " steps"; bad = 1 } exit bad }'
}

# wait until DIR/metrics.jsonl has N steps, as long as PID lives
until_step() {
	local n
	while kill -0 "$3" 2>/dev/null; do
		n=$(grep -c '"event":"step"' "$1/metrics.jsonl" 2>/dev/null) || n=0
		[ "${n:-0}" -lt "$2" ] || return 0
		sleep 0.01
	done
	echo "ended before step $2"
	return 1
}

flip() { # flip FILE OFFSET: one bit
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1" | tr -d ' ')
	# shellcheck disable=SC2059
	printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

@test "trains, and says what it did" {
	ok train -o out --steps 5
	[ "$(losses out | wc -l)" = 5 ]
	[[ $(cat out/summary.json) == '{"step":5,"seen":1280,"unit":"tok",'*'}' ]]
	ok lwm-merge-ckpt -q out -o model --verify
	cp out/metrics.jsonl before
	cp out/summary.json before.json
	ok train -o out --steps 5 # complete: nothing to train
	[ "$(losses out)" = "$(sed -nE 's/.*"event":"step","step":([0-9]+),.*"loss_hex":"([^"]*)".*/\1 \2/p' before)" ]
	same out/summary.json before.json
}

@test "the rate of its work, and what it is of" {
	ok lwm-train-stage "${tiny[@]}" -o out --steps 2 --peak-tflops 1e-3
	err_has 'peak of all ranks: 0.001 TFLOP/s, given'
	[[ $stderr =~ 'step 2/2 loss '.*' tok/s '[0-9.]+' GFLOP/s MFU '[0-9.]+' % of 0.001 TFLOP/s given eta' ]]
	grep -q '"event":"end".*"peak_tflops":0.001,"peak_source":"given","mfu":' out/metrics.jsonl
	ok lwm-train-stage "${tiny[@]}" -o short --steps 2 # too short for a measurement: a rate, and nothing that it is of
	[[ $stderr =~ 'step 2/2 loss '.*' tok/s '[0-9.]+' GFLOP/s eta' ]]
	code 1 grep -E 'mfu|peak_tflops' short/metrics.jsonl
}

@test "two runs are the same byte for byte but for times" {
	ok train -o a --steps 4
	ok train -o b --steps 4
	[ "$(losses a)" = "$(losses b)" ]
	same a/summary.json b/summary.json
	same a/step_00000004/part_00000.h5 b/step_00000004/part_00000.h5
	ok train -o c --steps 4 --seed 1
	[ "$(losses a)" != "$(losses c)" ]
}

@test "help, version, configuration" {
	ok lwm-train-stage --help
	has '--mesh-dim'
	has '--data PATH'
	ok lwm-train-stage --version
	ok train -o out --print-config
	has 'tokens-per-batch'
	[ ! -e out ]
}

@test "a plan works out sizes without the data, says what is not there, and changes nothing" {
	ok train -o out --plan
	has 'verdict        fits, with '
	has ' free for each rank'
	has 'parameters'
	code 66 lwm-train-stage -o out --model micro --data absent.h5 --seq-length 1K --tokens-per-batch 8K --plan --plan-ranks 8 \
		--mesh-dim 2,-1,1,2 --threads 1
	has 'dp 2, fsdp 2, tp 1, sp 2'
	has ' to spare; an input is not there'
	err_has 'absent.h5'
	# ranks of a host share its memory: 8 as many ranks have an eighth, unless they are of 4 nodes
	free_of() { sed -nE 's/.*"device_free":([0-9]+).*/\1/p' <<<"$output"; }
	local one
	ok train -o out --plan --json
	one=$(free_of)
	ok train -o out --plan --json --tokens-per-batch 512 --plan-ranks 8
	awk -v a="$one" -v b="$(free_of)" 'BEGIN { exit !(b > a / 8 * 0.8 && b < a / 8 * 1.2) }'
	ok train -o out --plan --json --tokens-per-batch 512 --plan-ranks 8 --plan-node-ranks 2
	awk -v a="$one" -v b="$(free_of)" 'BEGIN { exit !(b > a / 2 * 0.8 && b < a / 2 * 1.2) }'
	[ ! -e out ]
	mkdir empty
	code 66 train -o out --data empty --plan
	err_has 'empty: no usable files'
	code 66 train -o out --eval-data absent.h5 --plan
	err_has 'absent.h5'
	for from in model checkpoint text-model; do
		code 66 train -o out --start-from $from:nowhere --plan
		err_has nowhere
		has 'a rank '
	done
	code 66 train -o out --tokenizer nowhere.model --plan
	err_has 'nowhere.model'
	code 66 lwm-train-stage -o out --objective reconstruction --model tiny --data absent --plan
	err_has 'absent'
	code 66 lwm-train-stage -o out --objective reconstruction --model tiny --data absent --start-from model:nowhere --plan
	[ ! -e out ]
	echo 'this is no row shard' >bad.h5
	code 65 train -o out --data bad.h5 --plan
	mkdir damaged
	echo '{' >damaged/config.json
	code 65 train -o out --start-from model:damaged --plan
	err_has 'damaged'
	[ ! -e out ]
	# what goes on from its own checkpoint wants nothing to start from
	ok train -o goes-on --steps 1
	ok train -o goes-on --steps 1 --start-from model:nowhere --plan
}

@test "a plan as JSON, and one that does not fit" {
	ok train -o out --plan --json
	[[ $output == '{"kind":"lwm",'*'"fits":true,'*'}' ]]
	[ ! -e out ]
	code 78 lwm-train-stage -o out --model 7b --data absent.h5 --seq-length 1M --tokens-per-batch 4M --plan --json
	has '"fits":false'
	err_has 'does not fit'
}

@test "a plan tells time where rates are known, and suggests meshes" {
	ok train -o out --plan --json
	lacks step_seconds
	local big=(lwm-train-stage -o out --model 200m --data absent.h5 --seq-length 128K --tokens-per-batch 4M --plan --plan-ranks 64
		--mesh-dim "1,-1,1,8")
	code 66 "${big[@]}" --plan-gpu h200
	has 'a step '
	has 'waiting for ring'
	has 'of all ranks together'
	has '; most of a step is '
	code 66 "${big[@]}" --plan-gpu h200 --json
	[[ $output =~ '"step_seconds":'([0-9.]+) ]]
	local step=${BASH_REMATCH[1]}
	[[ $output == *'"memory":{"weights":'*'"rates":{"tflops":'*'"limit":"'*'"fits":true,'* ]]
	# a site's figures come before the table's, the command line's before both
	LWM_PLAN_TFLOPS=1 code 66 "${big[@]}" --plan-gpu h200 --json
	has '"tflops":1,'
	LWM_PLAN_TFLOPS=1 code 66 "${big[@]}" --plan-gpu h200 --json --plan-tflops 640
	has "\"step_seconds\":$step"
	# five, the fastest first, none slower than the mesh that was given
	code 66 "${big[@]}" --plan-gpu h200 --suggest --json
	[ "$(grep -o '"options":' <<<"$output" | wc -l)" = 5 ]
	grep -oE '"step_seconds":[0-9.]+' <<<"${output#*\"suggest\"}" | cut -d: -f2 >times
	sort -gc times
	awk -v own="$step" 'NR == 1 { exit !($1 <= own * 1.0001) }' times
	code 66 "${big[@]}" --plan-gpu h200 --suggest
	has 'suggestions '
	has '1 --mesh-dim '
	# what does not fit is not among them
	code 78 "${big[@]}" --plan-gpu h200 --plan-memory 1 --suggest --json
	has '"suggest":[]'
	# a mesh that a run would refuse is told, with those that it would take
	code 78 "${big[@]}" --mesh-dim -1,1,1,1 --plan-gpu h200 --suggest
	err_has '32 rows a step do not divide among 64 data ranks'
	has 'refused        32 rows a step do not divide'
	has '1 --mesh-dim '
	code 78 "${big[@]}" --mesh-dim -1,1,1,1 --plan-gpu h200 --suggest --json
	[ "$(jq -rs '.[0] | .refused, (.suggest | length)' <<<"$output")" = "32 rows a step do not divide among 64 data ranks (dp x fsdp)
5" ]
	# and what has no meaning is said
	code 64 "${big[@]}" --suggest
	err_has '--suggest has to know rates'
	code 64 train -o out --suggest
	err_has '--suggest belongs to --plan'
	[ ! -e out ]
}

@test "rates are measured where they are asked for" {
	ok train -o out --plan --calibrate --json --plan-attention-tflops 0.125
	has '"attention_tflops":0.125,'
	has '"step_seconds":'
	[[ $output =~ '"rates":{"tflops":'([0-9.]+) ]]
	awk -v x="${BASH_REMATCH[1]}" 'BEGIN { exit !(x > 0) }'
	need_mpi
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o out --plan --plan-ranks 2 --calibrate --json
	[ "$(grep -c '"rates"' <<<"$output")" = 1 ] # one rank speaks
	[[ $output =~ '"node":'([0-9.]+) ]]
	awk -v x="${BASH_REMATCH[1]}" 'BEGIN { exit !(x > 0 && x < 1000) }'
	[ ! -e out ]
}

@test "a job that was given GPUs is refused where they cannot be used, with the reason" {
	local auto=("${tiny[@]/cpu/auto}") none='LWM_CUDA_LIB=/nowhere/liblwm_cuda.so'
	for given in SLURM_GPUS_ON_NODE=4 SLURM_JOB_GPUS=0,1 SLURM_STEP_GPUS=3 SLURM_GPUS_PER_TASK=1 CUDA_VISIBLE_DEVICES=0; do
		code 69 env "$none" "$given" lwm-train-stage -q "${auto[@]}" -o out --steps 1
		err_has "GPUs were given ($given) and cannot be used: "
		err_has '/nowhere/liblwm_cuda.so'
		err_has '--device cpu'
		gone out/metrics.jsonl
	done
	for given in SLURM_GPUS_ON_NODE=0 CUDA_VISIBLE_DEVICES= CUDA_VISIBLE_DEVICES=NoDevFiles; do
		ok env "$none" "$given" lwm-train-stage -q "${auto[@]}" -o "none-$given" --steps 1
	done
	ok env "$none" SLURM_GPUS_ON_NODE=4 lwm-train-stage -q "${tiny[@]}" -o asked --steps 1 # --device cpu
}

@test "usage errors are 64" {
	code 64 lwm-train-stage -o out --seq-length 64
	err_has '--data'
	code 64 lwm-train-stage --data "$rows" --seq-length 64
	err_has '--output'
	code 64 train -o out --steps none
	err_has '--steps'
	code 64 train -o out --no-such-option
	code 64 train -o out --start-from elsewhere
	err_has 'elsewhere'
	code 64 train -o out --mesh-dim 1,2
	err_has '1,2'
	code 64 train -o out --eval-every 5
	err_has '--eval-data'
	code 64 lwm-train-stage -o out --data "$rows"
	err_has '--seq-length'
	for how in --check-options --plan --quiet; do # one judge
		code 64 train -o out --data "$rows=heavy" "$how"
		err_has "'heavy' is not a number"
		code 78 train -o out --micro-rows 3 "$how"
		err_has '--micro-rows 3 does not divide'
		for from in nonsense text-nonsense nonsense:there; do
			code 64 train -o out --start-from "$from" "$how"
			err_has "'${from#text-}': expected random, checkpoint:DIR, model:DIR"
		done
	done
}

@test "no input is 66, bad data 65" {
	code 66 lwm-train-stage -q --threads 1 -o out --data absent.h5 --seq-length 64
	err_has absent.h5
	code 66 train -o out --start-from checkpoint:nowhere
	err_has nowhere
	code 66 train -o out --start-from model:nowhere
	err_has nowhere
	echo 'this is no row shard' >bad.h5
	code 65 lwm-train-stage -q --threads 1 -o out --data bad.h5 --seq-length 64
	err_has bad.h5
	head -c 3000 "$rows" >torn.h5
	cp "$rows.manifest.json" torn.h5.manifest.json
	code 65 lwm-train-stage -q --threads 1 -o out --data torn.h5 --seq-length 64
	err_has torn.h5
}

@test "contradictions are 78 and name both sides" {
	code 78 train -o out --seq-length 128
	err_has 128
	err_has 64
	code 78 train -o out --tokens-per-batch 100
	err_has 100
	code 78 train -o out --vocab 1000
	err_has 1000
	err_has 259
	code 78 train -o out --mesh-dim 1,1,2,1
	code 78 train -o out --mesh-dim 3,1,1,1
	err_has '3,1,1,1'
	local recon=(lwm-train-stage -o out --objective reconstruction --model tiny --data x --plan-ranks 2 --check-options)
	code 78 "${recon[@]}" --mesh-dim 1,1,1,2
	err_has "'1,1,1,2': a VQGAN trains on data ranks only"
	ok "${recon[@]}" --mesh-dim 1,2,1,1
	code 78 train -o out --micro-rows 3
	ok train -o out --steps 2
	code 78 train -o out --steps 4 --layers 3
	err_has 'num_hidden_layers = 2'
	code 78 train -o out --steps 4 --seed 9
	err_has 'seed 0, not 9'
}

@test "where it cannot write is 73 or 74" {
	echo x >file
	code 73 train -o file/out --steps 2
	err_has 'file: exists and is not a folder'
	code 74 bash -c "lwm-train-stage ${tiny[*]} -o out --plan >/dev/full"
}

@test "a full disk is 74 and leaves what stood" {
	mkdir small
	mount -t tmpfs -o size=2m tmpfs small 2>/dev/null || skip 'mounting a small file system is not permitted here'
	ok train -o small/out --steps 2
	head -c 4000000 /dev/zero >small/fill 2>/dev/null || true
	run --separate-stderr train -o small/out --steps 4
	local rc=$status text=$stderr
	rm small/fill
	run lwm-merge-ckpt -q small/out -o model --verify
	[ "$rc" = 74 ] || { echo "exit $rc: $text"; false; }
	[ "$status" = 0 ]
}

@test "SIGUSR1: saved, 75, and goes on as if nothing had been" {
	ok train -o whole --steps 1500
	start -o parts --steps 1500 2>err &
	until_step parts 20 $!
	kill -USR1 $!
	local rc=0
	wait $! || rc=$?
	[ "$rc" = 75 ]
	grep SIGUSR1 err
	ok lwm-merge-ckpt -q parts -o model --verify # what was saved is whole
	ok train -o parts --steps 1500
	[ "$(losses whole)" = "$(losses parts)" ]
	same whole/summary.json parts/summary.json
}

@test "kill -9 at any time: the next run goes on, the losses are the same" {
	ok train -o whole --steps 600 --checkpoint-every 50
	local n
	for n in 1 60 190 330; do
		start -o killed --steps 600 --checkpoint-every 50 &
		until_step killed $n $! || true
		kill -9 $! 2>/dev/null || true
		wait $! || true
	done
	ok train -o killed --steps 600 --checkpoint-every 50
	[ "$(losses whole)" = "$(losses killed)" ]
	same whole/step_00000600/part_00000.h5 killed/step_00000600/part_00000.h5
	run find killed -name '*.tmp*'
	[ -z "$output" ]
}

# behind FAULT ARGS...: with something happening at a call that changes something in a checkpoint's folder of killed/
behind() {
	preload
	env FAULT="$1" FAULT_COUNT="$PWD/calls" FAULT_ROOT="$PWD/killed/step_" FAULT_OPS=change \
		ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} LD_PRELOAD="$fault_so" lwm-train-stage -q "${tiny[@]}" -o killed "${@:2}"
}

@test "kill -9 at any call of saves behind the computation: what was committed stands, the next run gives the same bits" {
	local args=(--steps 40 --checkpoint-every 8 --keep 2 --save-behind true) k n saved d newest
	ok train -o whole "${args[@]}"
	ok behind '' "${args[@]}"
	n=$(cat calls)
	[ "$n" -gt 60 ]
	for ((k = 1; k <= n; k += n / 20)); do
		rm -rf killed
		code 137 behind kill@$k "${args[@]}"
		newest=0
		for d in killed/step_*/COMMIT.json; do
			[ -e "$d" ] || continue
			d=${d%/*}
			ok lwm-inspect --check -q "$d"
			newest=$((10#${d##*_}))
		done
		saved=$(sed -nE '/"event":"save"/s/.*"step":([0-9]+).*/\1/p' killed/history.jsonl | tail -1)
		[ "${saved:-0}" -le $newest ]
		ok train -o killed "${args[@]}"
		[ "$(losses whole)" = "$(losses killed)" ]
		same whole/step_00000040/part_00000.h5 killed/step_00000040/part_00000.h5
		same whole/step_00000040/COMMIT.json killed/step_00000040/COMMIT.json
		[ "$(compgen -G 'killed/step_*' | wc -l)" = 2 ]
	done
}

@test "saves behind the computation or not are the same bytes; one that fails is told, and the last good one stands" {
	local b
	for b in true false auto; do
		ok train -o $b --steps 9 --checkpoint-every 2 --keep 9 --save-behind $b
		[ "$(grep -c '"event":"save".*"seconds":[0-9.]*,"blocking":[0-9.]*,' $b/metrics.jsonl)" = 5 ]
	done
	for b in true auto; do
		diff -r --exclude=metrics.jsonl --exclude=history.jsonl --exclude=.lock false $b
		[ "$(losses false)" = "$(losses $b)" ]
	done
	# training waits for all of a save, or for a part of it
	apart() { awk -F'"seconds":|,"blocking":|,"time"' '/"event":"save"/ { s += $2 - $3 } END { print s * 1e4 }' "$1/metrics.jsonl"; }
	[ "$(apart false | cut -d. -f1)" -le 10 ]
	[ "$(apart true | cut -d. -f1)" -gt "$(apart false | cut -d. -f1)" ]
	ok behind 28@10 --steps 9 --checkpoint-every 2 --keep 9 --save-behind true
	err_has 'failed, training goes on: '
	[ "$(compgen -G 'killed/step_*' | wc -l)" = 4 ]
	same false/step_00000009/part_00000.h5 killed/step_00000009/part_00000.h5
}

@test "where there is no memory for the copy training waits and says so once, or is refused" {
	local args=(--steps 6 --checkpoint-every 2 --dim 64 --ffn 64)
	ok train -o out "${args[@]}" --plan --json
	has '"bytes_copy":'
	lacks '"bytes_copy":0'
	ok train -o out "${args[@]}" --plan
	has ' copy + '
	ok train -o out "${args[@]}" --plan --save-behind false
	lacks ' copy + '
	ok train -o out --steps 6 --plan # none but the last save
	lacks ' copy + '
	with_memory() { # KIB COMMAND...: as if the machine had so much
		printf 'MemTotal: 99999999 kB\nMemAvailable: %s kB\n' "$1" >meminfo
		unshare -m bash -c 'mount --bind meminfo /proc/meminfo && exec "$@"' with "${@:2}"
	}
	with_memory 100 true 2>/dev/null || skip 'what a machine says of its memory cannot be changed here'
	ok with_memory 100 lwm-train-stage "${tiny[@]}" -o out "${args[@]}"
	[ "$(grep -c 'training waits while checkpoints are written' <<<"$stderr")" = 1 ]
	code 71 with_memory 100 lwm-train-stage "${tiny[@]}" -o new "${args[@]}" --save-behind true
	err_has 'no room for a copy of'
	gone new/step_*
	code 78 with_memory 100 lwm-train-stage "${tiny[@]}" -o new "${args[@]}" --save-behind true --plan
	need_mpi
	ok with_memory 100 mpirun -n 2 --oversubscribe lwm-train-stage "${tiny[@]}" -o two "${args[@]}"
	[ "$(grep -c 'training waits while checkpoints are written' <<<"$stderr")" = 1 ]
}

@test "a damaged checkpoint is passed over, the one before it is taken" {
	ok train -o out --steps 30 --checkpoint-every 10 --keep 3
	losses out >whole
	local part=out/step_00000030/part_00000.h5
	flip $part $(($(stat -c %s $part) / 2))
	ok train -o out --steps 30 --checkpoint-every 10 --keep 3
	err_has 'step_00000030'
	err_has 'passing over'
	[ "$(losses out)" = "$(cat whole)" ]
	ok lwm-merge-ckpt -q out/step_00000030 -o model --verify
	# a record that is gone, too
	rm out/step_00000030/COMMIT.json
	ok train -o out --steps 30 --checkpoint-every 10 --keep 3
	[ "$(losses out)" = "$(cat whole)" ]
}

@test "STOP means stop: saved, 0, nothing more while the file stands; without it the run goes on" {
	ok train -o whole --steps 300
	start -o out --steps 300 2>err &
	job=$!
	until_step out 20 $job
	touch out/STOP
	local rc=0 last
	wait $job || rc=$?
	[ "$rc" = 0 ]
	grep 'out/STOP stands there; remove it' err
	[ ! -e out/summary.json ]
	last=$(losses out | tail -1 | cut -d' ' -f1)
	[ -e "out/step_$(printf %08d "$last")/COMMIT.json" ]
	cp out/metrics.jsonl before
	ok train -o out --steps 300 # not a step
	err_has 'STOP stands there: nothing is done'
	same before out/metrics.jsonl
	rm out/STOP
	ok train -o out --steps 300
	[ "$(losses whole)" = "$(losses out)" ]
	same whole/summary.json out/summary.json
}

@test "a time limit, --stop-after: 75" {
	code 75 env LWM_TIME_LIMIT=0.2s lwm-train-stage -q "${tiny[@]}" -o out --steps 100000
	err_has 'time limit'
	ok train -o out --steps "$(sed -nE 's/.*"event":"save","step":([0-9]+).*/\1/p' out/metrics.jsonl | tail -1)"
	code 75 train -o new --steps 10 --stop-after 4
	err_has 'step 4 of 10'
	ok train -o new --steps 10
	[ "$(losses new | wc -l)" = 10 ]
	# no step is begun that the limit would cut: there was no time for one
	code 75 env LWM_TIME_LIMIT=0s lwm-train-stage -q "${tiny[@]}" -o none --steps 10
	err_has 'step 0 of 10'
	[ -z "$(losses none)" ]
	gone none/step_*
}

@test "a signal before the first moment is a request like any other, where the launcher holds it back" {
	env --block-signal=USR1 true 2>/dev/null || skip 'this env cannot hold signals back'
	for sig in USR1 TERM; do
		code 75 env --block-signal=$sig bash -c "kill -$sig \$\$; exec lwm-train-stage \"\$@\"" held -q "${tiny[@]}" -o out --steps 3000
		err_has "stopped at step 0 of 3000 (SIG$sig)"
		gone out/step_*
	done
	need_mpi
	code 75 mpirun -n 2 --oversubscribe env --block-signal=USR1 bash -c 'kill -USR1 $$; exec lwm-train-stage "$@"' held -q "${tiny[@]}" \
		-o out --steps 3000
}

@test "Ctrl-C is answered at once, a second one ends the program" {
	start -o out --steps 100000 2>err &
	job=$!
	until_step out 5 $job
	kill -INT $job
	local rc=0
	wait $job || rc=$?
	[ "$rc" = 75 ]
	grep 'lwm-train-stage: saving; press Ctrl-C again to leave at once' err
	grep 'SIGINT' err
}

@test "no checkpoint is whole: refused with what is wrong, until --start-over sets them aside" {
	ok train -o out --steps 30 --checkpoint-every 10 --keep 1
	flip out/step_00000030/part_00000.h5 5000
	cp out/metrics.jsonl before
	code 65 train -o out --steps 40 --checkpoint-every 10 --keep 1
	err_has 'out/step_00000030/part_00000.h5: damaged'
	err_has '--start-over'
	same before out/metrics.jsonl
	# each rerun below the damaged step keeps what it saved
	code 75 train -o out --steps 40 --checkpoint-every 10 --keep 1 --start-over --stop-after 10
	[ -e out/step_00000010/COMMIT.json ]
	[ -e out/damaged/step_00000030/COMMIT.json ]
	same before out/damaged/metrics.jsonl
	code 75 train -o out --steps 40 --checkpoint-every 10 --keep 1 --start-over --stop-after 10
	[ -e out/step_00000020/COMMIT.json ] # it did not start over again: there is a whole one now
	ok train -o out --steps 40 --checkpoint-every 10 --keep 1
	[ "$(losses out | wc -l)" = 40 ]
	[ "$(losses out | head -30)" = "$(sed -nE 's/.*"event":"step","step":([0-9]+),.*"loss_hex":"([^"]*)".*/\1 \2/p' before)" ]
}

@test "an older checkpoint than the damaged newest is taken only when that is allowed, and said" {
	ok train -o ck --steps 6 --checkpoint-every 2 --keep 3 --tokenizer bytes
	ok lwm-merge-ckpt -q ck/step_00000004 -o four
	flip ck/step_00000006/part_00000.h5 5000
	code 65 lwm-merge-ckpt -q ck -o model
	err_has 'ck/step_00000006/part_00000.h5: damaged'
	err_has 'newest whole checkpoint is ck/step_00000004'
	gone model
	ok lwm-merge-ckpt -q ck -o model --older-ok
	err_has 'passing over'
	same model/model.safetensors four/model.safetensors
	code 65 train -o next --steps 1 --start-from checkpoint:ck
	err_has '--older-ok'
	ok train -o next --steps 1 --start-from checkpoint:ck --older-ok
	code 65 lwm-sample -q --device cpu -m ck -p x --max-tokens 2
	err_has '--older-ok'
	ok lwm-sample -q --device cpu -m ck -p x --max-tokens 2 --older-ok
	words 300 >hay.txt
	local needle=(--device cpu --haystack hay.txt --context-lengths-min 300 --context-lengths-max 300
		--n-context-length-intervals 1 --n-document-depth-intervals 1 --n-rounds 1 --answer-tokens 2)
	code 65 lwm-eval-needle -q -m ck -o sweep "${needle[@]}"
	err_has '--older-ok'
	ok lwm-eval-needle -q -m ck -o sweep "${needle[@]}" --older-ok
	# a folder under another step's name is not that step
	mv ck/step_00000006 saved
	cp -r ck/step_00000002 ck/step_00000009
	code 65 lwm-merge-ckpt -q ck -o nine
	err_has 'record is that of step 2'
}

@test "a run is resumed with the settings it was begun with; a difference is named, and allowed by its name" {
	ok train -o out --steps 4
	code 78 train -o out --steps 6 --lr 1
	err_has 'lr 1.0, was 0.003'
	err_has '--allow-change lr'
	code 78 train -o out --steps 6 --weight-decay 0 --beta2 0.9 --clip 0 --tokens-per-batch 512
	for part in 'weight-decay 0.0, was 0.1' 'beta2 0.9, was 0.95' 'clip 0.0, was 1.0' 'tokens-per-batch 512, was 256'; do err_has "$part"; done
	code 78 train -o out --steps 6 --lr 1 --clip 0 --allow-change lr
	err_has 'clip'
	err_lacks 'lr 1.0'
	code 78 train -o out --steps 6 --loss-weighting per_token
	code 78 train -o out --steps 6 --loss-weighting published
	code 78 train -o out --steps 6 --text-weight 0.5 --vision-weight 0.25
	for part in 'text-weight 0.5, was 0.0' 'vision-weight 0.25, was 0.0'; do err_has "$part"; done
	code 78 train -o out --steps 6 --warmup-from zero --init-lr 1e-4 --decay-all
	for part in 'warmup-from "zero", was "one"' 'init-lr 0.0001, was 0.0' 'decay-all true, was false'; do err_has "$part"; done
	code 78 train -o out --steps 6 --keep-activations bf16 # what is rounded changes gradients more than another order of sums
	err_has 'keep-activations "bf16", was "exact"'
	code 78 train -o out --steps 6 --schedule cosine
	code 78 train -o out --steps 6 --warmup-steps 3
	[ "$(losses out | wc -l)" = 4 ]
	words 500 | tac >other.txt
	lwm-tokenize -q -t bytes --split-lines 20 -o other.docs.h5 other.txt
	lwm-pack -q -n 64 -o other.h5 other.docs.h5
	code 78 train -o out --steps 6 --data other.h5 --data "$rows"
	err_has 'other data'
	# the same rows under another name are the same data; speed, ranks and records are free; steps of a constant rate, too
	cp "$rows" moved.h5
	cp "$rows.manifest.json" moved.h5.manifest.json
	ok lwm-train-stage -q "${tiny[@]/$rows/moved.h5}" -o out --steps 5 --checkpoint-every 1 --micro-rows 2 --scan-mlp-chunk-size 16
	ok train -o out --steps 6 --lr 1e-3 --data other.h5 --allow-change lr --allow-change data
	err_has 'as allowed: lr 0.001, was 0.003; other data'
	code 78 train -o out --steps 7 # from now on that is what it was begun with
	err_has 'lr 0.003, was 0.001'
	code 64 train -o out --steps 7 --allow-change weight_decay
	err_has "did you mean 'weight-decay'?"
	ok train -o cosine --steps 4 --schedule cosine
	code 78 train -o cosine --steps 6 --schedule cosine
	err_has 'steps 6, was 4'
	# where --decay-steps say how long the rate falls, it does not depend on the number of steps
	ok train -o decay --steps 4 --schedule cosine --decay-steps 9
	ok train -o decay --steps 6 --schedule cosine --decay-steps 9
	code 78 train -o decay --steps 7 --schedule cosine --decay-steps 10
	err_has 'decay-steps 10, was 9'
	code 64 train -o short --schedule cosine --warmup-steps 5 --decay-steps 5
	err_has '--decay-steps 5 end before the warm-up of 5 steps'
}

@test "a full disk while training: the run goes on, no line and no step is lost" {
	mkdir small
	mount -t tmpfs -o size=3m tmpfs small 2>/dev/null || skip 'mounting a small file system is not permitted here'
	ok train -o whole --steps 1500 --checkpoint-every 50
	start -o small/out --steps 1500 --checkpoint-every 50 2>err &
	job=$!
	until_step small/out 60 $job
	head -c 4000000 /dev/zero >small/fill 2>/dev/null || true
	sleep 0.5
	kill -0 $job
	run find small/out -name '*.tmp.*' # a failed save takes back what it wrote
	[ -z "$output" ]
	rm small/fill
	local rc=0
	wait $job || rc=$?
	[ "$rc" = 0 ] || { cat err; false; }
	grep -q 'lines wait in memory' err
	grep -q 'failed, training goes on' err
	[ "$(losses whole)" = "$(losses small/out)" ]
	same whole/summary.json small/out/summary.json
}

@test "killed between its last save and its summary: the rerun writes the summary the whole run has" {
	ok train -o out --steps 6 --eval-data "$rows" --eval-rows 8
	cp out/summary.json whole.json
	rm out/summary.json
	ok train -o out --steps 6 --eval-data "$rows" --eval-rows 8
	same whole.json out/summary.json
	[ "$(grep -c '"event":"eval"' out/metrics.jsonl)" = 1 ]
	rm out/summary.json
	ok train -o out --steps 6 # without held-out data: all but that
	[[ $(cat whole.json) == "$(sed 's/}$//' out/summary.json)"* ]]
}

@test "a run that is complete keeps no more checkpoints than it is told to" {
	ok train -o out --steps 6 --checkpoint-every 2 --keep 3
	[ "$(compgen -G 'out/step_*' | wc -l)" = 3 ]
	ok train -o out --steps 6 --checkpoint-every 2 --keep 1 # as after a kill behind the last save
	[ "$(compgen -G 'out/step_*')" = out/step_00000006 ]
}

@test "what dead writers left is swept at the next commit" {
	ok train -o out --steps 2
	mkdir -p out/step_00000001 out/step_00000077 out/.trash-step_00000001
	touch out/step_00000001/part_00000.h5.tmp.elsewhere-abcdefgh out/summary.json.tmp."$(hostname -s)"-abcdefgh
	ok train -o out --steps 3
	gone out/step_00000001 out/step_00000077 out/.trash-step_00000001 out/summary.json.tmp.*
	[ "$(ls out)" = "$(printf '%s\n' history.jsonl metrics.jsonl step_00000002 step_00000003 summary.json)" ]
}

@test "numbers that go bad end the run with 79" {
	code 79 train -o out --steps 200 --warmup-steps 0 --lr 100 --weight-decay 100 --clip 0
	err_has 'skipped'
	jq -e . out/metrics.jsonl >/dev/null # no NaN: JSON has none
	grep -q '"loss":null,"loss_hex":"-\?nan".*"text_nll":null' out/metrics.jsonl
	[ ! -e out/summary.json ]
}

@test "the next stage starts from the last one" {
	ok train -o first --steps 40
	ok train -o second --steps 2 --start-from checkpoint:first --theta 1e6
	ok lwm-merge-ckpt -q first -o model
	ok train -o third --steps 2 --start-from model:model --theta 1e6
	local a b
	a=$(sed -nE 's/.*"step":40,"loss":([0-9.]+).*/\1/p' first/metrics.jsonl)
	b=$(sed -nE 's/.*"event":"step","step":1,"loss":([0-9.]+).*/\1/p' second/metrics.jsonl)
	awk -v a="$a" -v b="$b" 'BEGIN { exit !(b < a + 0.7) }' # far below the 5.6 of random weights
}

@test "rows longer than the model it starts from, at the same theta, warn" {
	lwm-pack -q -n 128 -o long.h5 "$BATS_FILE_TMPDIR/docs.h5"
	ok train -o first --steps 1
	local longer=(-q --threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --data long.h5 --seq-length 128
		--tokens-per-batch 256 --steps 1 --start-from checkpoint:first)
	ok lwm-train-stage "${longer[@]}" -o same
	err_has '--seq-length 128: --start-from checkpoint:first was made for 64 tokens with the same --theta 10000'
	ok lwm-train-stage "${longer[@]}" -o larger --theta 1e6
	[ -z "$stderr" ]
	ok train -o second --steps 1 --start-from checkpoint:first
	[ -z "$stderr" ]
	# a test longer than what was trained says so too
	words 300 >hay.txt
	ok lwm-eval-needle -q -m first --tokenizer bytes --threads 1 --haystack hay.txt --context-lengths-min 300 --context-lengths-max 300 \
		--n-context-length-intervals 1 --n-document-depth-intervals 1 --n-rounds 1 --answer-tokens 2 -o sweep
	err_has '--context-lengths-max: 300 tokens in one context, first was made for 64'
}

@test "a stage starts from the model that it says, or not at all" {
	ok train -o first --steps 2 --norm-eps 1e-4
	ok lwm-merge-ckpt -q first -o model
	# the epsilon is the source's, and is kept when the run is resumed
	code 75 train -o next --steps 4 --stop-after 2 --start-from model:model
	ok train -o next --steps 4 --start-from model:model
	ok lwm-merge-ckpt -q next -o again
	grep -q '"rms_norm_eps": 0.0001' again/config.json
	# heads, key heads and layers of another number give other answers from the same tensors, or drop some
	code 78 train -o bad --steps 2 --start-from model:model --heads 8
	err_has '--start-from model:model: has --heads 4, this stage 8'
	code 78 train -o bad --steps 2 --start-from checkpoint:first --layers 1
	err_has 'has --layers 2, this stage 1'
	# vision tensors may be missing where it is said so
	code 78 train -o bad --steps 2 --start-from checkpoint:first --vision-codes 16
	err_has "has no tensor 'model.vision_embed_tokens.weight'"
	ok train -o sees --steps 1 --start-from text-checkpoint:first --vision-codes 16
	# so does a tensor that nobody asked for
	sed 's/"attention_bias": false/"attention_bias": true/' model/config.json >model/config.new
	rm model/manifest.json
	mv model/config.new model/config.json
	code 78 train -o bad --steps 2 --start-from model:model
	err_has 'attention_bias is true'
	gone bad/step_*
}

@test "held-out rows are measured" {
	ok train -o out --steps 4 --eval-data "$rows" --eval-rows 8 --eval-every 2
	[ "$(grep -c '"event":"eval"' out/metrics.jsonl)" = 2 ]
	grep -q '"eval":{"step":4,"loss":' out/summary.json
}

@test "2 ranks under mpirun: data and ring parallel give the losses of one" {
	need_mpi
	ok train -o one --steps 6
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o dp --steps 6 --mesh-dim 2,1,1,1
	losses_near one dp 6
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o sp --steps 6 --mesh-dim 1,1,1,2
	losses_near one sp 6
	[ -e sp/step_00000006/part_00001.h5 ]
	ok train -o sp --steps 7 # and one rank goes on from two
}

@test "ranks that share the model: losses of one rank, resumed on other meshes and back, and merged" {
	need_mpi
	tp() { ok mpirun -n "$1" --oversubscribe lwm-train-stage "${tiny[@]}" -o "$2" --mesh-dim "$3" --steps 6 "${@:4}"; }
	code 78 mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o no --mesh-dim 1,1,2,1
	err_has 'model: the text vocabulary, 259, cannot be divided over 2 tensor-parallel ranks'
	ok lwm-tokenizer-train -q --vocab 320 -o t.model "$BATS_FILE_TMPDIR/words.txt"
	ok lwm-tokenize -q -t t.model --split-lines 20 -o docs.h5 "$BATS_FILE_TMPDIR/words.txt"
	ok lwm-pack -q -n 64 -o rows.h5 docs.h5
	tiny+=(--data rows.h5)
	for i in "${!tiny[@]}"; do # those rows alone
		[ "${tiny[i]}" != "$rows" ] || unset "tiny[i]" "tiny[i-1]"
	done
	ok train -o one --steps 6
	tp 2 tp 1,1,2,1
	[[ $stderr != *'key heads'* ]]
	losses_near one tp 6
	tp 4 both 1,1,2,2
	losses_near one both 6
	tp 4 shared 1,1,4,1 # 2 key heads
	[ "$(grep -c 'fewer key heads (2) than tensor-parallel ranks (4): each is held, and computed, by 2 of them' <<<"$stderr")" = 1 ]
	losses_near one shared 6
	tp 4 cut 1,2,2,1
	err_has 'weights and gradients are cut over 2 ranks'
	losses_near one cut 6
	code 75 mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o moved --mesh-dim 1,1,2,1 --steps 6 --stop-after 2
	code 75 train -o moved --steps 6 --stop-after 1
	code 75 mpirun -n 4 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o moved --mesh-dim 1,2,2,1 --steps 6 --stop-after 1
	tp 4 moved 1,1,4,1
	losses_near one moved 6
	for i in one tp both shared cut moved; do
		ok lwm-merge-ckpt -q "$i" -o "model-$i" --verify
	done
	tp 2 started 1,1,2,1 --start-from model:model-one --stop-after 1 || [ "$status" = 75 ]
	code 78 mpirun -n 3 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o no --mesh-dim 1,1,3,1
	err_has 'model: heads, 4, cannot be divided over 3 tensor-parallel ranks'
}

@test "weights cut over ranks: losses of one rank, resumed on other meshes and back, and merged" {
	need_mpi
	fsdp() { ok mpirun -n "$1" --oversubscribe lwm-train-stage "${tiny[@]}" -o "$2" --mesh-dim "$3" "${@:4}"; }
	ok train -o one --steps 6
	fsdp 2 cut 1,2,1,1 --steps 6
	err_has 'weights and gradients are cut over 2 ranks'
	losses_near one cut 6
	fsdp 4 hybrid 2,2,1,1 --steps 6 --gather-ahead 2 --scatter microbatch --micro-rows 1
	losses_near one hybrid 6
	fsdp 2 ring 1,1,1,2 --steps 6
	[[ $stderr != *'are cut over'* ]]
	fsdp 2 cutring 1,1,1,2 --steps 6 --shard-weights true
	err_has 'weights and gradients are cut over 2 ranks'
	losses_near one cutring 6
	fsdp 2 moved 1,2,1,1 --steps 6 --stop-after 1 || [ "$status" = 75 ]
	fsdp 4 moved 1,4,1,1 --steps 6 --stop-after 1 || [ "$status" = 75 ]
	fsdp 2 moved 2,1,1,1 --steps 6 --stop-after 1 || [ "$status" = 75 ]
	code 75 train -o moved --steps 6 --stop-after 1
	fsdp 2 moved 1,2,1,1 --steps 6
	losses_near one moved 6
	for i in one cut hybrid moved; do
		ok lwm-merge-ckpt -q "$i" -o "model-$i" --verify
	done
	code 78 train -o vq --objective reconstruction --shard-weights true
	err_has 'takes its weights whole'
}

@test "a run with weights cut over ranks that is stopped continues bit for bit" {
	need_mpi
	fsdp() { mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" --mesh-dim 1,2,1,1 --micro-rows 1 "$@"; }
	ok fsdp -o through --steps 6
	code 75 fsdp -o stopped --steps 6 --stop-after 3
	ok fsdp -o stopped --steps 6
	[ "$(losses through)" = "$(losses stopped)" ]
	same through/step_00000006/part_00000.h5 stopped/step_00000006/part_00000.h5
	same through/step_00000006/part_00001.h5 stopped/step_00000006/part_00001.h5
}

# of each step and evaluation: its loss and gradient norm, exactly
figures() {
	sed -nE 's/.*"event":"(step|eval)","step":([0-9]+),.*"loss_hex":"([^"]*)"(.*"grad_norm_hex":"([^"]*)")?.*/\1 \2 \3 \5/p' \
		"$1/metrics.jsonl"
}

@test "canonical sums: 1, 2, 4 and 8 ranks give the same bits, and so does a run that moves from 4 to 8 to 1" {
	need_mpi
	local i n mesh
	tiny=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --data "$rows" --seq-length 64
		--tokens-per-batch 1024 --warmup-steps 2 --lr 3e-3 --log-every 1000 --clip 0.2 --steps 10 --sum-order canonical
		--eval-data "$rows" --eval-rows 11 --eval-every 4)
	ok train -o one
	ok lwm-merge-ckpt -q one -o model-one
	for mesh in 2,1,1,1 1,2,1,1 4,1,1,1 1,4,1,1 2,2,1,1 8,1,1,1 1,8,1,1 2,4,1,1; do
		IFS=, read -r n i _ <<<"$mesh"
		ok mpirun -n $((n * i)) --oversubscribe lwm-train-stage -q "${tiny[@]}" -o "on-$mesh" --mesh-dim "$mesh"
		[ "$(figures one)" = "$(figures "on-$mesh")" ]
		ok lwm-merge-ckpt -q "on-$mesh" -o "model-$mesh"
		same model-one/model.safetensors "model-$mesh/model.safetensors"
	done
	code 75 mpirun -n 4 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o moved --mesh-dim 2,2,1,1 --stop-after 3
	code 75 mpirun -n 8 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o moved --mesh-dim 1,8,1,1 --stop-after 4
	ok train -o moved --threads 2
	[ "$(figures one)" = "$(figures moved)" ]
	same one/step_00000010/part_00000.h5 moved/step_00000010/part_00000.h5 # moments too
	ok train -o mesh --sum-order mesh --micro-rows 1
	[ "$(figures one)" != "$(figures mesh)" ]
	losses_near one mesh 10
}

@test "canonical sums are refused where they cannot be had" {
	need_mpi
	code 78 mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o no --sum-order canonical --mesh-dim 1,1,1,2
	err_has "--sum-order canonical: with tp or sp > 1 (mesh_dim '1,1,1,2') ranks share a row"
	code 78 train -o no --sum-order canonical --plan --plan-memory 80
	err_has '--sum-order canonical is for CPUs'
	code 78 train -o no --objective reconstruction --sum-order canonical
	err_has 'this objective cannot sum by rows'
	code 64 train -o no --sum-order rows
	code 75 train -o kept --steps 4 --stop-after 2
	code 78 train -o kept --steps 4 --sum-order canonical
	err_has 'sum-order "canonical", was "mesh"'
}

@test "a balanced ring over packed rows gives the losses of one rank, and resumed it is the run that was not stopped" {
	need_mpi
	words 600 | awk '{ print } NR % 11 == 0 || NR % 26 == 0 { print "--" }' >uneven.txt # 1 to 11 lines a document
	lwm-tokenize -q -t bytes --split-at -- -o docs.h5 uneven.txt
	lwm-pack -q -n 512 -o packed.h5 docs.h5
	tiny=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --data packed.h5 --seq-length 512
		--tokens-per-batch 1024 --micro-rows 2 --warmup-steps 2 --lr 3e-3 --log-every 1000)
	local n
	ok train -o one --steps 6
	for n in 2 4; do
		ok mpirun -n $n --oversubscribe lwm-train-stage -q "${tiny[@]}" -o whole$n --steps 6 --mesh-dim 1,1,1,$n \
			--ring-layout balanced
		losses_near one whole$n 6
		code 75 mpirun -n $n --oversubscribe lwm-train-stage -q "${tiny[@]}" -o parts$n --steps 6 --mesh-dim 1,1,1,$n --stop-after 3
		ok mpirun -n $n --oversubscribe lwm-train-stage -q "${tiny[@]}" -o parts$n --steps 6 --mesh-dim 1,1,1,$n
		[ "$(losses whole$n)" = "$(losses parts$n)" ] # balanced is the default
		ok lwm-merge-ckpt -q whole$n -o model$n
		ok lwm-merge-ckpt -q parts$n -o again$n
		same model$n/model.safetensors again$n/model.safetensors
	done
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o parts4 --steps 7 --mesh-dim 1,1,1,2 --ring-layout zigzag
}

@test "of many ranks one says what is wrong, and mpirun has its exit code" {
	need_mpi
	code 66 mpirun -n 4 --oversubscribe lwm-train-stage -q --threads 1 -o out --data absent.h5 --seq-length 64
	[ "$(grep -c 'absent.h5' <<<"$stderr")" = 1 ]
	code 78 mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o out --mesh-dim 3,1,1,1
	[ "$(grep -c '3,1,1,1' <<<"$stderr")" = 1 ]
	code 75 mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o out --steps 9 --stop-after 2
	[ "$(grep -c 'run me again' <<<"$stderr")" = 1 ]
}

# dies_and_goes_on MESH: a rank is killed after step 8, whatever it is at
dies_and_goes_on() {
	mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o out --steps 100000 --checkpoint-every 5 --mesh-dim "$1" 2>err &
	job=$!
	local ranks
	until_step out 8 $job
	ranks=$(pgrep -P $job -f lwm-train-stage | head -1)
	[ -n "$ranks" ]
	kill -9 "$ranks"
	local rc=0
	wait $job || rc=$?
	[ "$rc" != 0 ]
	code 75 mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o out --steps 100000 --mesh-dim "$1" --stop-after 2
	[ "$(losses out | cut -d' ' -f1 | uniq -d)" = '' ]
}

@test "a rank that dies ends the job, and the next job goes on" {
	need_mpi
	dies_and_goes_on 1,1,1,2
}

@test "and so where its weights are cut over ranks: what came of it are the bits of a run that nobody disturbed" {
	need_mpi
	dies_and_goes_on 1,2,1,1
	local n
	n=$(losses out | tail -1 | cut -d' ' -f1)
	code 75 mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o through --steps 100000 --mesh-dim 1,2,1,1 --stop-after "$n"
	[ "$(losses out)" = "$(losses through)" ]
}

@test "a second run in a folder is refused while one is at work, and not after that one was killed" {
	lwm-train-stage -q "${tiny[@]}" -o out --steps 100000 --checkpoint-every 5 2>err &
	job=$!
	until_step out 6 $job
	grep -q "pid $job" out/.lock
	code 73 lwm-train-stage -q "${tiny[@]}" -o out --steps 9
	[ "$(grep -c . <<<"$stderr")" = 1 ]
	err_has 'another run works in this folder'
	err_has "pid $job"
	kill -0 $job
	kill -9 $job
	wait $job || true
	code 75 lwm-train-stage -q "${tiny[@]}" -o out --steps 100000 --stop-after 2
	[ -e out/.lock ] && [ ! -s out/.lock ]
}

@test "tasks that do not know each other are refused, one of them says so, LWM_ALONE=1 lets them run" {
	local alone=(env -u OMPI_COMM_WORLD_SIZE -u PMIX_RANK -u PMI_RANK -u PMI_SIZE SLURM_STEP_NUM_TASKS=4)
	code 69 "${alone[@]}" SLURM_PROCID=0 lwm-train-stage -q "${tiny[@]}" -o out --steps 2
	err_has '4 tasks were started together'
	err_has '--mpi=pmix'
	[ "$(grep -c . <<<"$stderr")" = 1 ]
	gone out
	code 69 "${alone[@]}" SLURM_PROCID=3 lwm-train-stage -q "${tiny[@]}" -o out --steps 2
	[ -z "$stderr" ]
	ok "${alone[@]}" SLURM_PROCID=3 LWM_ALONE=1 lwm-train-stage -q "${tiny[@]}" -o out --steps 2
	ok "${alone[@]}" SLURM_STEP_NUM_TASKS=1 lwm-train-stage -q "${tiny[@]}" -o one --steps 2
}

@test "of a wrong option the first rank speaks" {
	code 64 env SLURM_PROCID=0 lwm-train-stage --no-such-option
	err_has 'no-such-option'
	code 64 env SLURM_PROCID=2 lwm-train-stage --no-such-option
	[ -z "$stderr" ]
	code 64 env SLURM_PROCID=2 lwm-train-stage
	[ -z "$stderr" ]
	# mpirun started them inside a Slurm job: its own numbers count
	code 64 env SLURM_PROCID=0 OMPI_COMM_WORLD_RANK=1 lwm-train-stage --steps none
	[ -z "$stderr" ]
	# a tool without ranks is not silent: its tasks may have different options
	code 64 env SLURM_PROCID=2 lwm-pack --no-such-option
	err_has 'no-such-option'
	need_mpi
	code 64 mpirun -n 3 --oversubscribe lwm-train-stage --no-such-option
	[ "$(grep -c 'no-such-option' <<<"$stderr")" = 1 ]
}
