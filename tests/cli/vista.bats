# pipelines/vista.yaml: its three stages on tiny made-up samples of both published layouts.
load ../lib

@test "pipelines/vista.yaml, from annotations to a model that is driven, and finished once it is" {
	cd "$BATS_TEST_TMPDIR"
	lwm-synth drives -q -n 2 --size 96 --frames 4 --store png -o world
	mkdir -p nusc/cam odv/town/one run
	cp world/drive-00000/0000?.png nusc/cam
	for k in 0 1 2 3; do cp "world/drive-00001/0000$k.png" "odv/town/one/00000000$k.png"; done
	local s='{"frames": ["cam/00000.png", "cam/00001.png", "cam/00002.png", "cam/00003.png"], "traj": [0, 0, 0.5, 4, 1, 8, 1.5, 12, 2, 16],
		"speed": [10, 20, 20, 20, 20], "angle": [0, 39, 39, 0, 0], "cmd": 1, "goal": [800, 450], "z": 9.5}'
	echo "[$s, $s, $s, $s, $s, $s, $s, $s]" >nuscenes.json
	s='{"folder_name": "town/one", "first_frame": "000000000.png"}'
	echo "[$s, $s, $s, $s, $s, $s, $s, $s]" >youtube.json
	lwm-synth books -q -n 1 --sentences 50 -o books
	lwm-tokenizer-train -q -o tok.model --vocab 512 --actions books
	lwm-train-stage -q --threads 1 --device cpu -o vq --objective reconstruction --data world --model tiny --resolution 64 --steps 1 \
		--batch-frames 2 --probe-frames 8 --warmup-steps 0
	local set=() v
	for v in opendv=odv opendv_annos=youtube.json nuscenes=nusc nuscenes_annos=nuscenes.json val_annos=nuscenes.json tokenizer=tok.model \
		vqgan=vq start=random model=nano out=run frames=4 high_width=128 high_height=64 low_width=64 low_height=64 high_tokens=1K \
		low_tokens=512 rounds=2 ranks=0 adapt_ranks=0; do set+=(--set "$v"); done
	for v in pretrain low high; do
		set+=(--set "stages.train_$v.args.tokens-per-batch=1K" --set "stages.train_$v.args.mesh-dim=1,1,1,1")
	done
	export LWM_DIM=32 LWM_FFN=64 LWM_LAYERS=1 LWM_HEADS=2 LWM_STEPS=2 LWM_WARMUP_STEPS=1 LWM_DEVICE=cpu LWM_EVAL_ROWS=2 LWM_THREADS=1
	ok lwm-run -q "$ROOT/pipelines/vista.yaml" "${set[@]}"
	# of two sources row by row one each; adapters alone trained, and became part of the model, as the average has them
	grep -qF '"source_shares":[0.5,0.5]' run/train/low/metrics.jsonl
	grep -q 'lora' run/train/low/step_00000002/COMMIT.json
	! grep -q 'lora' run/models/low/model.safetensors || return 1
	# wide frames: 4 + 2 rounds that share 3 frames
	[ "$(ffprobe -v error -count_frames -show_entries stream=width,height,nb_read_frames -of csv=p=0 run/look/high/left-0.mp4)" = 128,64,5 ]
	grep -q '"reward":0\.' run/look/high/reward-0.json
	ok lwm-run -q --plan --json "$ROOT/pipelines/vista.yaml" "${set[@]}"
}
