# lwm-eval-actions: a head that names the commands of steps, learnt from real clips.
load ../lib

setup_file() {
	export SCRATCH=$BATS_FILE_TMPDIR
	cd "$SCRATCH"
	lwm-synth -q drives -n 80 --frames 4 --size 32 -o drives
	lwm-train-stage -q --threads 1 -o vq --objective reconstruction --data drives --model tiny --resolution 32 --steps 1 \
		--batch-frames 2 --device cpu
}

setup() {
	cd "$BATS_TEST_TMPDIR"
	drives=$SCRATCH/drives
}

name_actions() { lwm-eval-actions -q -m "$SCRATCH/vq" --device cpu --threads 1 "$@"; }
error_of() { sed "s/.*\"$1\":{\"clips\":[0-9]*,\"error\":\([0-9.]*\),.*/\1/" <<<"$output"; }

@test "it knows the clips it has learnt from, and says of others told to do the opposite that they do not" {
	mkdir other
	for i in 0 1 2 3 4 5 6 7 8 9; do
		cp "$drives/drive-0000$i.mp4" other/
		sed 's/"left"/"LEFT"/g; s/"right"/"left"/g; s/"LEFT"/"right"/g' "$drives/drive-0000$i.json" >"other/drive-0000$i.json"
	done
	ok name_actions --train "$drives" --heldout "$drives" --ridge 1e-6 other
	has '"train":{"clips":80,"steps":240}'
	has '"heldout":{"clips":80,'
	awk -v e="$(error_of heldout)" 'BEGIN { exit !(e < 0.1) }'
	awk -v e="$(error_of drawn)" 'BEGIN { exit !(e > 0.3) }'
	turns=$(grep -ho '"cmd": "[lr][a-z]*"' other/*.json | wc -l)
	[ "$(sed 's/.*"drawn".*"wrong":\([0-9]*\)}.*"heldout".*/\1/' <<<"$output")" -ge $((turns - 3)) ]
	# one action for all, and into a file
	ok name_actions --train "$drives" --ridge 1e-6 -a left -o said.json "$drives"
	[ -z "$output" ]
	grep -q '"steps": 240' said.json
	code 73 name_actions --train "$drives" -a left -o said.json "$drives"
}

@test "what does not fit together is refused" {
	code 64 name_actions --train "$drives" -a speed=30 "$drives"
	err_has 'holds no command'
	code 66 name_actions --train nowhere "$drives"
	code 66 name_actions --train "$drives" nowhere
	mkdir bare still
	cp "$drives/drive-00001.mp4" bare/
	code 66 name_actions --train "$drives" bare
	err_has 'drive-00001.json'
	echo '{"actions": [null, "left"]}' >bare/drive-00001.json
	code 65 name_actions --train "$drives" bare
	err_has '4 frames, and 2 actions beside it'
	echo '{"caption": "a car"}' >bare/drive-00001.json
	code 65 name_actions --train "$drives" bare
	err_has 'no actions in the record'
	echo '{"action": "straight"}' >bare/drive-00001.json
	code 65 name_actions --train bare bare
	err_has '3 steps show 1 command'
	ok name_actions --plan --train "$drives" "$drives"
}
