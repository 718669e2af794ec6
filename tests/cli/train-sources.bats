# lwm-train-stage --data PATH=SHARE*WEIGHT: shares that change over the steps, weights of labels, and what is said of them.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 300 >a.txt
	words 500 | tr a-m A-M >b.txt
	for k in a b; do
		lwm-tokenize -q -t bytes --split-lines 10 -o $k.docs.h5 $k.txt
		lwm-pack -q -n 64 -o $k.h5 $k.docs.h5
	done
}

setup() {
	cd "$BATS_FILE_TMPDIR" || return 1
	out=$BATS_TEST_TMPDIR
	tiny=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 1 --heads 4 --seq-length 64 --tokens-per-batch 512 --warmup-steps 0
		--lr 1e-3 --log-every 1000)
	moving=(--data "a.h5=0:1,8:0" --data "b.h5=0:0,4:1")
}

train() { lwm-train-stage -q "${tiny[@]}" "$@"; }
losses() { sed -nE 's/.*"event":"step","step":([0-9]+),.*"loss_hex":"([^"]*)".*/\1 \2/p' "$1/metrics.jsonl"; }
said() { sed -nE 's/.*"event":"step","step":([0-9]+),.*"'"$2"'":\[([^]]*)\].*/\1: \2/p' "$1/metrics.jsonl"; }

@test "a share that changes: each step says its share and the rows it got; resumed, it is the run that was not stopped" {
	ok train "${moving[@]}" -o "$out/whole" --steps 10
	# 8 rows a step; what whole rows leave over is carried to the next step (worked out by a few lines of Python)
	[ "$(said "$out/whole" source_shares | head -3)" = $'1: 1,0\n2: 0.777778,0.222222\n3: 0.6,0.4' ]
	[ "$(said "$out/whole" source_rows)" = $'1: 8,0\n2: 6,2\n3: 5,3\n4: 4,4\n5: 2,6\n6: 3,5\n7: 1,7\n8: 1,7\n9: 0,8\n10: 0,8' ]
	ok train "${moving[@]}" -o "$out/parts" --steps 4
	ok train "${moving[@]}" -o "$out/parts" --steps 7
	ok train "${moving[@]}" -o "$out/parts" --steps 10
	[ "$(losses "$out/parts")" = "$(losses "$out/whole")" ]
	[ "$(said "$out/parts" source_rows)" = "$(said "$out/whole" source_rows)" ]
	# another schedule is another run, unless it is allowed
	ok train "${moving[@]}" -o "$out/other" --steps 4
	code 78 train --data a.h5=0:1,9:0 --data b.h5=0:0,4:1 -o "$out/other" --steps 10
	err_has 'data'
	ok train --data a.h5=0:1,9:0 --data b.h5=0:0,4:1 -o "$out/other" --steps 10 --allow-change data
}

@test "the same on several ranks" {
	need_mpi
	ok train "${moving[@]}" -o "$out/one" --steps 8 --sum-order canonical
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" "${moving[@]}" -o "$out/two" --steps 8 --sum-order canonical --mesh-dim 2,1,1,1
	[ "$(losses "$out/two")" = "$(losses "$out/one")" ]
	[ "$(said "$out/two" source_rows)" = "$(said "$out/one" source_rows)" ]
	told() { grep -o '"loss_of":{[^}]*}' "$1/metrics.jsonl"; }
	[ "$(told "$out/two")" = "$(told "$out/one")" ]
	[ "$(told "$out/one" | wc -l)" = 8 ]
}

@test "shares and weights in a file, in the plan, and beside each other" {
	cat >"$out/stage.yaml" <<-'Y'
		data:
		- a.h5=0:90,100:50*2
		- b.h5=10
	Y
	ok train --config "$out/stage.yaml" -o "$out/x" --steps 201 --plan
	has 'sources        a.h5: 90 % at step 0, 83.33 % at step 100, 83.33 % at step 200; its labels weigh 2'
	has '               b.h5: 10 % at step 0, 16.67 % at step 100, 16.67 % at step 200'
	ok train --config "$out/stage.yaml" -o "$out/x" --steps 201 --plan --json
	has '"sources":[{"path":"a.h5","weight":2,"shares":[[0,0.9],[100,0.833333333],[200,0.833333333]]},{"path":"b.h5","weight":1,'
	ok train --data a.h5=3 --data b.h5=1 -o "$out/x" --steps 5 --plan
	has 'sources        a.h5: 75 % of the rows'
	ok train --data a.h5 --data b.h5 -o "$out/x" --steps 5 --plan
	has 'sources        a.h5: as many rows as it has'
	ok train --data a.h5 -o "$out/x" --steps 5 --plan
	lacks 'sources'
	gone "$out/x"
}

@test "labels that weigh more move the loss towards their source" {
	loss() { sed -nE 's/.*"event":"step","step":1,.*"loss":([0-9.]+),.*/\1/p' "$out/$1/metrics.jsonl"; }
	ok train --data a.h5=1 --data b.h5=1 -o "$out/even" --steps 1 --loss-weighting published
	ok train --data a.h5=1 --data b.h5=1*1 -o "$out/one" --steps 1 --loss-weighting published
	ok train --data a.h5=1 --data b.h5=1*1000 -o "$out/b" --steps 1 --loss-weighting published
	ok train --data a.h5=1*1000 --data b.h5=1 -o "$out/a" --steps 1 --loss-weighting published
	[ "$(losses "$out/one")" = "$(losses "$out/even")" ]
	rows=$(said "$out/even" source_rows)
	# the mean over rows is between the two, where their rows put it
	awk -v a="$(loss a)" -v b="$(loss b)" -v e="$(loss even)" -v rows="${rows#1: }" 'BEGIN {
		split(rows, n, ","); want = (n[1] * a + n[2] * b) / (n[1] + n[2]); d = e - want
		print a, b, e, want, rows
		exit !(n[1] > 0 && n[2] > 0 && a != b && d < 2e-4 && d > -2e-4) }'
}

@test "the loss of each source is that of its rows alone, in steps, evaluations, curves of TensorBoard and the report" {
	# $1: field of $2, an evaluation of "$out/$3"
	of_eval() { sed -nE 's/.*"event":"eval",.*"'"$1"'":([0-9.]+).*/\1/p' "$out/$2/metrics.jsonl"; }
	mkdir -p "$out/deep"
	ok lwm-pack -q -n 64 -o "$out/deep/a.rows.h5" b.docs.h5
	ok train --data a.h5 --data b.h5 -o "$out/x" --steps 3 --eval-data a.h5 --eval-data "$out/deep/a.rows.h5" --eval-rows 1000 --tensorboard
	# the same weights, and of the held-out rows one source after the other
	for k in a b; do
		ok train --data a.h5 --data b.h5 -o "$out/$k" --steps 3 --eval-data $k.h5 --eval-rows 1000
		[ -z "$(of_eval 'loss_of":\{"[ab]' $k)" ]
	done
	near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; print a, b; exit !(a > 0 && d < 1e-6 && d > -1e-6) }'; }
	near "$(of_eval 'loss_of":\{"a' x)" "$(of_eval text_nll a)"
	near "$(of_eval 'a#2' x)" "$(of_eval text_nll b)"
	[ "$(of_eval text_nll a)" != "$(of_eval text_nll b)" ]
	# in a step the mean over labels of both is that of all; a step without rows of a source says nothing of it
	[ "$(grep -c '"loss_of":{"a":[0-9.]*,"b":[0-9.]*}' "$out/x/metrics.jsonl")" = 3 ]
	sed -nE 's/.*"step":1,.*"text_nll":([0-9.]+),.*"source_rows":\[([0-9]+),([0-9]+)\],.*"loss_of":\{"a":([0-9.]+),"b":([0-9.]+)\}.*/\1 \2 \3 \4 \5/p;
		s/.*"step":1,.*"text_nll":([0-9.]+),.*"source_rows":\[([0-9]+),([0-9]+)\],"loss_of":\{"a":([0-9.]+),"b":([0-9.]+)\}.*/\1 \2 \3 \4 \5/p' \
		"$out/x/metrics.jsonl" | head -1 >"$out/said"
	awk '{ exit !(NF == 5 && ($1 - $4) * ($1 - $5) <= 0 && $2 > 0 && $3 > 0) }' "$out/said"
	ok train "${moving[@]}" -o "$out/moving" --steps 2
	grep -q '"step":1,.*"loss_of":{"a":[0-9.]*}' "$out/moving/metrics.jsonl"
	grep -aq 'train/loss_of/b' "$out"/x/tensorboard/events*
	ok lwm-report -o "$out/r.html" --stage "both=$out/x" --stage "moving=$out/moving" --stage "one=$out/a"
	[ "$(grep -c 'Mean loss of the labels of each source' "$out/r.html")" = 3 ]
}

@test "what cannot be is refused before anything starts" {
	code 64 train --data a.h5=x -o "$out/x" --steps 5
	code 64 train --data a.h5=5:1,5:2 --data b.h5=1 -o "$out/x" --steps 5
	err_has 'steps of shares must ascend'
	code 64 train --data a.h5=5:1,6 --data b.h5=1 -o "$out/x" --steps 5
	err_has 'is not STEP:SHARE'
	code 64 train --data 'a.h5=1*0' --data b.h5=1 -o "$out/x" --steps 5
	err_has 'teaches nothing'
	code 78 train --data a.h5=0:1,3:0 --data b.h5=0 -o "$out/x" --steps 5
	err_has 'at step 3 no source has a share'
	code 78 train --data a.h5 --eval-data b.h5=0:1,3:2 -o "$out/x" --steps 5
	err_has 'held-out rows are read once'
	gone "$out/x"
}
