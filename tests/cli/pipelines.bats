# The pipelines that come with the tools: their numbers, and that every training stage starts on its own mesh.
load ../lib

@test "every stage of every pipeline would take its options, on its ranks and its mesh" {
	cd "$ROOT"
	for f in pipelines/*.yaml; do
		ok lwm-run --check "$f"
	done
	# the published recipe for other sizes and other numbers of ranks, as pipelines/README.md says
	for ways in '13b 1,-1,8,8 256' '65b 1,-1,16,4 256' '7b 1,4,16,8 512'; do
		read -r model mesh ranks <<<"$ways"
		ok lwm-run --check --only train_1m --ranks "$ranks" pipelines/text.yaml --set model="$model" \
			--set "stages.train_1m.args.mesh-dim=$mesh"
	done
	# and what would not is named, before anything starts
	for how in --check --plan '--slurm --print' ''; do
		# shellcheck disable=SC2086
		code 78 lwm-run $how pipelines/text.yaml --set out="$BATS_TEST_TMPDIR/out" --set stages.train_1m.args.mesh-dim=1,-1,64,1
		err_has 'pipelines/text.yaml:'
		err_has "stage train_1m: lwm-train-stage: model: heads, 32, cannot be divided over 64 tensor-parallel ranks"
	done
	code 78 lwm-run --check --ranks 96 pipelines/text.yaml
	err_has "stage train_32k: lwm-train-stage: 128 rows a step do not divide among 24 data ranks"
	gone "$BATS_TEST_TMPDIR/out"
}

@test "drive.yaml runs from end to end, and says what it misses when next to nothing is learned" {
	export OMP_NUM_THREADS=1
	code 1 lwm-run -q "$ROOT/pipelines/drive.yaml" --set out="$BATS_TEST_TMPDIR/run" --set drives=24 --set trials=3 \
		--set stages.vqgan.args.steps=3 --set stages.vqgan.args.eval-rows=3 --set stages.world.args.steps=3 \
		--set stages.world.args.eval-rows=1
	err_has 'report: 2 of 3 checks missed'
	cd "$BATS_TEST_TMPDIR/run"
	grep -q '"trials":3,"obeyed":3,' look/judge.json
	grep -q '"turn":"left","trials":3,' look/obeyed.json
	grep -q '"steps": 72' look/named-right.json # 24 clips that the head learnt from
	[ "$(find drawn -name '*.mp4' | wc -l)" = 6 ]
	grep -q 'data:image/png' report.html
}

@test "text.yaml has the published numbers" {
	cd "$ROOT"
	row() { # STAGE SEQ THETA STEPS WARMUP MESH MIN MAX FROM
		ok lwm-run --plan --only "train_$1" pipelines/text.yaml
		has "--seq-length $2 --theta $3 --steps $4 --warmup-steps $5 --mesh-dim $6"
		has '--tokens-per-batch 4M --schedule constant --lr 4e-5 --min-lr 4e-5 --warmup-from zero --weight-decay 0.1 --decay-all '
		has '--loss-weighting published '
		ok lwm-run --plan --only "pack_$1" pipelines/text.yaml
		has "--mode concat --drop-tail "
		has "--seq-length $2 "
		ok lwm-run --plan --only "train_$1" pipelines/text.yaml
		has "--start-from model:$9 "
		mkdir -p "$BATS_TEST_TMPDIR/books"
		touch "$BATS_TEST_TMPDIR/books/a.txt"
		# the published tokenizer is not here, and the plan says so
		code 66 lwm-run --plan --only "tokenize_$1" pipelines/text.yaml --set books="$BATS_TEST_TMPDIR/books"
		err_has 'models/llama-2-7b/tokenizer.model'
		has "--min-tokens $7"
		[ "$8" = 0 ] || has "--max-tokens $8"
	}
	row 32k 32K 1e6 1200 100 1,-1,4,1 10000 100000 models/llama-2-7b
	row 128k 128K 1e7 3000 200 1,-1,8,1 100000 200000 runs/text/models/32k
	row 256k 256K 1e7 3000 200 1,-1,16,1 200000 500000 runs/text/models/128k
	row 512k 512K 2.5e7 720 50 1,-1,16,2 500000 1000000 runs/text/models/256k
	row 1m 1M 5e7 450 25 1,-1,16,4 1000000 0 runs/text/models/512k
}

@test "vision.yaml has the published numbers" {
	cd "$ROOT"
	row() { # STAGE SEQ STEPS WARMUP LR MIN MESH FROM
		ok lwm-run --plan --only "train_$1" pipelines/vision.yaml
		has "--seq-length $2 --steps $3 --warmup-steps $4 --lr $5 --min-lr $6 --mesh-dim $7"
		has '--theta 5e7 --tokens-per-batch 8M --schedule cosine --warmup-from zero --weight-decay 0.1 --decay-all '
		has '--loss-weighting per_example --text-weight 0.5 --vision-weight 0.5 '
		has "--start-from $8 "
	}
	row 1k 1K 45000 1000 6e-4 6e-5 1,-1,1,1 text-model:runs/text/models/1m
	row 8k 8K 14000 500 6e-4 6e-5 1,-1,1,1 model:runs/vision/models/1k
	row chat_32k 32K 1200 100 8e-5 8e-5 1,-1,4,1 model:runs/vision/models/8k
	row chat_128k 128K 450 50 8e-5 8e-5 1,-1,8,1 model:runs/vision/models/chat_32k
	row chat_1m 1M 50 5 8e-5 8e-5 1,-1,16,4 model:runs/vision/models/chat_128k
	for n in 1k 8k; do
		ok lwm-run --plan --only "train_$n" pipelines/vision.yaml
		has "--data runs/vision/rows/$n.rows.h5=84 --data runs/vision/rows/text_$n.rows.h5=16 "
		ok lwm-run --plan --only "pack_text_$n" pipelines/vision.yaml
		has '--mode concat'
		has '--drop-tail'
		ok lwm-run --plan --only "pack_$n" pipelines/vision.yaml
		has '--mode masked'
		has '--long split'
		lacks 'text'
	done
	has '--source images=50='
	has '--source videos=50='
	ok lwm-run --plan --only pack_chat_1m pipelines/vision.yaml
	[ "$(grep -o '=25=' <<<"$output" | wc -l)" = 4 ]
	mkdir -p "$BATS_TEST_TMPDIR/v/a"
	echo '[]' >"$BATS_TEST_TMPDIR/v/valley.json"
	for f in 32k:100 128k:450 1m:4000; do
		ok lwm-run --plan --only "ask_videos_${f%:*}" pipelines/vision.yaml --set video_chats="$BATS_TEST_TMPDIR/v"
		has "--max-frames ${f#*:} "
		has '--codes runs/vision/codes/videos'
		lacks 'v/a '
	done
	code 66 lwm-run --plan --only encode_chat_videos pipelines/vision.yaml --set chat_videos="$BATS_TEST_TMPDIR/v"
	has '--sample-frames 4000 '
	ok lwm-run --plan --only ask_images pipelines/vision.yaml --set image_chats="$BATS_TEST_TMPDIR/v"
	has "--fields '<|chat|>' --chat-layout llava --escape-special"
}

@test "chat.yaml has the published numbers: UltraChat and questions at 7 to 3, each packed on its own, from base models" {
	cd "$ROOT"
	row() { # STAGE SEQ THETA MESH
		ok lwm-run --plan --only "train_text_chat_$1" pipelines/chat.yaml
		has "--seq-length $2 --theta $3 --steps 300 --warmup-steps 25 --mesh-dim $4"
		has '--tokens-per-batch 4M --schedule constant --lr 4e-5 --min-lr 4e-5 --warmup-from zero '
		has '--loss-weighting published '
		has "--start-from model:runs/text/models/$1 "
		has "--data runs/chat/rows/ultrachat_$1.rows.h5=7 --data runs/chat/rows/qa_$1.rows.h5=3 "
		has "--eval-data runs/chat/rows/held_$1.rows.h5 "
		for s in ultrachat qa held; do
			ok lwm-run --plan --only "pack_${s}_$1" pipelines/chat.yaml
			has "--seq-length $2"
			has '--hold-out 0.01'
		done
		ok lwm-run --plan --only "pack_held_$1" pipelines/chat.yaml
		has '--part held-out'
	}
	row 128k 128K 1e7 1,-1,8,1
	row 256k 256K 1e7 1,-1,16,1
	row 512k 512K 2.5e7 1,-1,16,2
	row 1m 1M 5e7 1,-1,16,4
	ok lwm-run --check pipelines/chat.yaml
}

@test "the tables of plans are what plans say now" { # every ninth line; make plans writes them anew
	ok "$ROOT/pipelines/table.sh" --check 9
}

# Sizes and fsdp are scaled down, the rest of the mesh is not: a stage whose sequences 64 ranks share has 64 ranks here.
stages_of() { # FILE: "stage ranks mesh" for each one that trains with ranks
	awk '/^- name:/ { name = $3 } /mesh-dim:/ { split($2, m, ","); n = m[3] * m[4]; f = n > 8 ? 1 : 2
		print name, n * f, m[1] "," f "," m[3] "," m[4] }' "$1"
}

@test "every training stage with ranks starts on its own mesh" {
	need_mpi
	[ -z "${SAN:-}" ] || skip 'up to 64 ranks: too much for instrumented programs on a small machine'
	cd "$BATS_TEST_TMPDIR"
	words 300 >book.txt
	ok lwm-tokenizer-train -q --vocab 320 -o t.model book.txt # 259 bytes cannot be shared by 16 ranks
	ok lwm-tokenize -q --tokenizer t.model -o book.docs.h5 book.txt
	ok lwm-pack -q --seq-length 128 -o some.rows.h5 book.docs.h5
	mkdir -p out/vision/rows
	for n in 1k text_1k 8k text_8k; do # two sources with shares: no LWM_DATA stands over them
		cp some.rows.h5 "out/vision/rows/$n.rows.h5"
		cp some.rows.h5.manifest.json "out/vision/rows/$n.rows.h5.manifest.json"
	done
	mkdir -p out/chat/rows
	for n in 128k 256k 512k 1m; do
		for k in ultrachat qa held; do
			cp some.rows.h5 "out/chat/rows/${k}_$n.rows.h5"
			cp some.rows.h5.manifest.json "out/chat/rows/${k}_$n.rows.h5.manifest.json"
		done
	done
	export LWM_TOKENIZER=$PWD/t.model LWM_MODEL=nano LWM_HEADS=16 LWM_STEPS=1 LWM_WARMUP_STEPS=0 LWM_START_FROM=random LWM_THREADS=1 OMP_NUM_THREADS=1
	export LWM_SEQ_LENGTH=128 LWM_TOKENS_PER_BATCH=256 LWM_DATA=$PWD/some.rows.h5
	n=0
	for p in text vision chat; do
		while read -r stage ranks mesh <&9; do
			ok lwm-run -q "$ROOT/pipelines/$p.yaml" --only "$stage" --ranks "$ranks" --set out="out/$p"
			grep -q "\"ranks\":$ranks\b" "out/$p/train/${stage#train_}/metrics.jsonl"
			ok lwm-inspect "out/$p/train/${stage#train_}"/step_*
			has "mesh             $mesh"
			n=$((n + 1))
		done 9< <(stages_of "$ROOT/pipelines/$p.yaml")
	done
	[ $n = 14 ]
	# the others have one rank, and the demo is run as it is
	! grep -l mesh-dim "$ROOT"/pipelines/{demo,quickstart}.yaml
}
