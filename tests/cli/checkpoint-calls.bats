# What each rank asks of the file system when it saves and when it reads checkpoints, counted (FAULT_LOG of tests/faults/fault.c):
# the law that common/train/README.md gives for any number of ranks.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR" || return 1
	words 300 >words.txt
	lwm-tokenize -q -t bytes --split-lines 20 -o docs.h5 words.txt
	lwm-pack -q -n 64 -o rows.h5 docs.h5
}

setup() {
	need_mpi
	cd "$BATS_TEST_TMPDIR" || return 1
	tiny=(--threads 1 --device cpu --dim 32 --ffn 48 --layers 2 --heads 4 --kv-heads 2 --data "$BATS_FILE_TMPDIR/rows.h5"
		--seq-length 64 --tokens-per-batch 256 --warmup-steps 2 --log-every 1000)
}

# logged NAME ROOT RANKS COMMAND...: calls below ROOT, a file for each rank in log/NAME
logged() {
	mkdir -p "log/$1"
	export FAULT_LOG=$PWD/log/$1
	preload
	FAULT_ROOT=$PWD/$2 ASAN_OPTIONS=verify_asan_link_order=0:${ASAN_OPTIONS:-} LD_PRELOAD=$fault_so ok mpirun -n "$3" --oversubscribe "${@:4}"
	unset FAULT_LOG
}

train() { # NAME ROOT RANKS ARGS...
	logged "$1" "$2" "$3" lwm-train-stage -q "${tiny[@]}" "${@:4}"
}

# of log/NAME, rank R: parts that were opened, each once
parts_of() { sed -nE 's#^open .*/part_0*([0-9]+)\.h5.*#\1#p' "log/$1/$2" | sort -nu | paste -sd' '; }
opens() { grep -cE '^open(dir)? ' "log/$1/$2"; }
looks() { grep -cE '^(f?stat|lstat|stat64|fstat64|lstat64|access) ' "log/$1/$2"; }
bytes() { awk -v what="$3" '$1 == what { n += $2 } END { print n + 0 }' "log/$1/$2"; }

is() { # WHAT HAVE WANT
	[ "$2" = "$3" ] || { echo "$1: $2 instead of $3"; return 1; }
}

# law NAME PER_PART: logs NAME1, NAME2, NAME4 of so many ranks. Ranks but the first ask for the same whatever their number; the
# first one opens as many files, and looks at PER_PART more for each part.
law() {
	local n r
	for n in 2 4; do
		is "opens of rank 0 of $n" "$(opens "$1$n" 0)" "$(opens "${1}1" 0)"
		is "looks of rank 0 of $n" "$(looks "$1$n" 0)" $(($(looks "${1}1" 0) + $2 * (n - 1)))
		for ((r = 1; r < n; r++)); do
			is "opens of rank $r of $n" "$(opens "$1$n" $r)" "$(opens "${1}2" 1)"
			is "looks of rank $r of $n" "$(looks "$1$n" $r)" "$(looks "${1}2" 1)"
		done
	done
}

size_of() { stat -c %s "$1/step_00000001/part_$(printf %05d "$2").h5"; }

@test "saving, resuming, starting from a checkpoint: a rank opens its own part and looks at no other" {
	for n in 1 2 4; do
		train save$n out$n/step_ $n -o out$n --steps 1
		train same$n out$n/step_ $n -o out$n --steps 1
		train from$n out$n/step_ $n -o from$n --steps 1 --stop-after 0 --start-from checkpoint:out$n
		for ((r = 0; r < n; r++)); do
			size=$(size_of out$n $r)
			for what in save same from; do
				is "$what: parts of rank $r of $n" "$(parts_of $what$n $r)" $r
			done
			# read back once; hashed, and read; hashed, and one group of three read
			is "save: bytes read by rank $r of $n" "$(bytes save$n $r read)" "$size"
			[ "$(bytes same$n $r read)" -lt $((2 * size + (r ? 4096 : 16384))) ]
			[ "$(bytes from$n $r read)" -lt $((size * 3 / 2 + 16384)) ]
		done
	done
	law save 2
	law same 2
	law from 0
	[ "$(opens save4 3)" -le 2 ]
	[ "$(opens same4 3)" -le 3 ]
}

@test "resuming on another mesh: a rank opens the parts that it hashes and those that hold what it owns" {
	ok mpirun -n 4 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o out4 --steps 1
	train fewer out4/step_ 2 -o out4 --steps 1
	is 'rank 0 of 2' "$(parts_of fewer 0)" '0 1'
	is 'rank 1 of 2' "$(parts_of fewer 1)" '2 3'
	[ "$(bytes fewer 1 read)" -lt $((2 * ($(size_of out4 2) + $(size_of out4 3)) + 8192)) ]
	ok mpirun -n 2 --oversubscribe lwm-train-stage -q "${tiny[@]}" -o out2 --steps 1
	train more out2/step_ 4 -o out2 --steps 1
	for r in 0 1 2 3; do
		is "rank $r of 4" "$(parts_of more $r)" $((r / 2))
	done
	# of two ranks that read one part the first one hashes it
	is 'hashed less' $(($(bytes more 3 read) + $(size_of out2 1) - $(bytes more 2 read) < 4096)) 1
}
