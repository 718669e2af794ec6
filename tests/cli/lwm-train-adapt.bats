# lwm-train-stage: which tensors train and how fast, averages, adapters; what is made of their checkpoints.
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

@test "only some tensors train, at rates of their own, with an average: resumed, merged, started from" {
	local some=(--train-only '*self_attn*,*norm*' --freeze 'model.layers.0.*' --lr-factors '*norm*=0.5' --ema 0.5
		--checkpoint-every 2 --keep 9)
	ok lwm-train-stage "${tiny[@]}" "${some[@]}" -o out --steps 6
	err_has 'of them train, in '
	code 75 train "${some[@]}" -o again --steps 6 --stop-after 3
	ok train "${some[@]}" -o again --steps 6
	same out/step_00000006/part_00000.h5 again/step_00000006/part_00000.h5
	# of other settings it is not the same run
	code 78 train "${some[@]}" -o again --steps 8 --freeze 'model.layers.1.*'
	err_has '--allow-change freeze'
	code 78 train -o again --steps 8
	err_has '--allow-change ema'
	ok train "${some[@]}" -o again --steps 8 --freeze 'model.layers.1.*' --allow-change freeze
	# a plan says how much it is
	ok lwm-train-stage "${tiny[@]}" "${some[@]}" -o new --plan --json
	has '"trained_parameters":'
	# the average is a model like another one
	ok lwm-merge-ckpt out -o model --json --dtype fp32
	ok lwm-merge-ckpt out -o average --ema --json --dtype fp32
	has '"verified":true'
	err_has 'logits are the checkpoint'
	! cmp -s model/model.safetensors average/model.safetensors || return 1
	code 73 lwm-merge-ckpt out -o model --ema --dtype fp32 # it is of the weights
	for m in ema:out out average; do lwm-inspect -q --device cpu --logits "$m" 1,2,3 >"logits-${m%%:*}"; done
	same logits-ema logits-average
	! cmp -s logits-ema logits-out || return 1
	ok train -o from_ema --start-from ema:out --steps 2 --lr 0 --weight-decay 0
	ok lwm-merge-ckpt -q from_ema -o average2 --dtype fp32
	same average/model.safetensors average2/model.safetensors
	ok train -o none --steps 2
	code 78 train -o wrong --start-from ema:none --steps 2
	err_has "holds no 'ema'"
}

@test "patterns that match nothing, and ways that fit nothing, are refused by name" {
	code 78 train -o out --steps 2 --train-only '*lora*'
	err_has "--train-only: '*lora*' matches no tensor of this model"
	code 78 train -o out --steps 2 --freeze '*norm*,model.layers.2.*'
	err_has "--freeze: 'model.layers.2.*' matches no tensor of this model"
	code 78 train -o out --steps 2 --freeze '*'
	err_has 'nothing is left to train'
	code 78 train -o out --steps 2 --freeze '*norm*' --lr-factors '*norm*=2' --plan
	err_has "--lr-factors: '*norm*' matches nothing that trains"
	for bad in '*norm*' '*norm*=0' '*norm*=x' '=2'; do
		code 64 train -o out --steps 2 --lr-factors "$bad" --check-options
		err_has 'PATTERN=X'
	done
	code 64 train -o out --steps 2 --freeze 'a,,b' --check-options
	code 64 train -o out --steps 2 --ema 1
	[ ! -e out/metrics.jsonl ]
	lwm-synth clips -q -n 4 --size 32 --frames 2 -o clips
	local recon=(lwm-train-stage -q --device cpu --threads 1 --objective reconstruction --model tiny --resolution 32 --data clips
		--batch-frames 2 --steps 1 --warmup-steps 0)
	code 78 "${recon[@]}" -o vq --freeze 'quant*' --probe-frames 4
	err_has 'is to be left alone, but --probe-frames 4 make it'
	ok "${recon[@]}" -o vq --freeze 'quant*' --probe-frames 0 --ema 0.5
	ok lwm-merge-ckpt -q vq -o vqgan --ema
	code 78 lwm-merge-ckpt -q vq -o vqgan --logits 3 --force
	err_has '--logits: a vqgan has none'
}

@test "adapters of low rank: trained alone, resumed, folded with proof, and what cannot have them" {
	local lora=(--lora '*self_attn*_proj*,*up_proj*' --lora-rank 4 --lora-alpha 8 --train-only '*lora*' --ema 0.5
		--eval-data "$rows" --eval-rows 8 --start-from model:base)
	ok train -o first --steps 3
	ok lwm-merge-ckpt -q first -o base --dtype fp32
	ok train "${lora[@]}" -o out --steps 6 --lr 1e-2
	code 75 train "${lora[@]}" -o again --steps 6 --lr 1e-2 --stop-after 3
	ok train "${lora[@]}" -o again --steps 6 --lr 1e-2
	same out/step_00000006/part_00000.h5 again/step_00000006/part_00000.h5
	# without --fold-lora nothing is lost in silence
	code 78 lwm-merge-ckpt out -o merged
	err_has '--fold-lora'
	code 78 lwm-merge-ckpt first -o merged --fold-lora
	err_has 'no adapters to fold'
	gone merged
	ok lwm-merge-ckpt out -o merged --fold-lora --dtype fp32 --json
	has '"verified":true'
	local tensors # adapters are none of a model's
	tensors=$(lwm-merge-ckpt -q first -o base --dtype fp32 --json | sed 's/.*"tensors":\([0-9]*\).*/\1/')
	has "\"tensors\":$tensors,"
	err_has 'logits are the checkpoint'
	! cmp -s base/model.safetensors merged/model.safetensors || return 1
	ok lwm-merge-ckpt out -o rounded --fold-lora
	ok lwm-merge-ckpt out -o average --fold-lora --ema --dtype fp32
	! cmp -s average/model.safetensors merged/model.safetensors || return 1
	# the model that was merged is the one that was trained: the same loss of the same held-out rows
	ok train -o check --start-from model:merged --steps 1 --lr 0 --weight-decay 0 --eval-data "$rows" --eval-rows 8
	loss() { sed -nE 's/.*"event":"eval","step":[0-9]+,"loss":([0-9.e+-]+),.*/\1/p' "$1/metrics.jsonl"; }
	awk -v a="$(loss out)" -v b="$(loss check)" 'BEGIN { d = a - b; exit !(a > 0 && d < 1e-5 * a && -d < 1e-5 * a) }'
	# read as it is, a checkpoint with adapters is that model, too
	for m in out merged; do lwm-inspect -q --device cpu --logits "$m" 1,2,3 >"logits-$m"; done
	same logits-out logits-merged
	code 78 train -o no --steps 2 --lora '*norm*'
	err_has 'which is no matrix of a layer'
	code 78 train -o no --steps 2 --lora '*q_proj*' --lora-rank 32
	err_has 'adapters of --lora-rank 32 are no smaller'
}

@test "adapters of ranks that share the model, and summed in canonical order: resumed elsewhere, folded" {
	need_mpi
	ok lwm-tokenizer-train -q --vocab 300 -o even.model "$BATS_FILE_TMPDIR/words.txt" # the tables divide by two
	ok lwm-tokenize -q -t even.model --split-lines 20 -o even.h5 "$BATS_FILE_TMPDIR/words.txt"
	ok lwm-pack -q -n 64 -o even.rows.h5 even.h5
	rows=$PWD/even.rows.h5
	tiny=("${tiny[@]/$BATS_FILE_TMPDIR\/rows.h5/$rows}")
	local lora=(--lora '*self_attn*_proj*,*down_proj*' --lora-rank 4 --lora-alpha 8 --train-only '*lora*' --steps 4 --lr 1e-2
		--eval-data "$rows" --eval-rows 8)
	loss() { sed -nE 's/.*"event":"eval","step":[0-9]+,"loss":([0-9.e+-]+),.*/\1/p' "$1/metrics.jsonl" | tail -n 1; }
	ok train "${lora[@]}" -o one
	# two ranks share the model, then one has it
	code 75 mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" "${lora[@]}" -o two --mesh-dim 1,1,2,1 --stop-after 2
	ok train "${lora[@]}" -o two
	awk -v a="$(loss one)" -v b="$(loss two)" 'BEGIN { d = a - b; exit !(a > 0 && d < 1e-4 * a && -d < 1e-4 * a) }'
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" "${lora[@]}" -o shared --mesh-dim 1,1,2,1
	ok lwm-merge-ckpt shared -o merged --fold-lora --dtype fp32
	err_has 'logits are the checkpoint'
	ok train -o check --start-from model:merged --steps 1 --lr 0 --weight-decay 0 --eval-data "$rows" --eval-rows 8
	awk -v a="$(loss one)" -v b="$(loss check)" 'BEGIN { d = a - b; exit !(a > 0 && d < 1e-4 * a && -d < 1e-4 * a) }'
	# in canonical order the same bits, whoever sums
	ok train "${lora[@]}" -o c1 --sum-order canonical
	code 75 mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" "${lora[@]}" -o c2 --sum-order canonical --mesh-dim 2,1,1,1 \
		--stop-after 2
	ok train "${lora[@]}" -o c2 --sum-order canonical
	same c1/step_00000004/part_00000.h5 c2/step_00000004/part_00000.h5
}

@test "curves for TensorBoard are beside the record, a file for each run" {
	code 75 train -o out --steps 4 --tensorboard --stop-after 2
	ok train -o out --steps 4 --tensorboard --eval-data "$rows" --eval-rows 2
	[ "$(ls out/tensorboard/events.out.tfevents.* | wc -l)" -ge 1 ]
	for tag in train/loss train/grad_norm train/lr train/tok_per_second eval/loss; do
		grep -qaF "$tag" out/tensorboard/events.out.tfevents.*
	done
	# four steps of each, none twice
	[ "$(cat out/tensorboard/events.* | grep -oaF train/lr | wc -l)" = 4 ]
	ok train -o none --steps 1
	gone none/tensorboard
}
