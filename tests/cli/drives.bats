# Drives from a made-up world to documents: clips and actions, the words of actions in a tokenizer, what is told and what is dropped.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR"
	lwm-synth drives -n 6 --size 16 --frames 5 --store png -o drives -q
	lwm-train-stage --objective reconstruction --model tiny --hidden 4 --groups 2 --channel-mult 1,2,2 --codes 16 \
		--resolution 16 --data drives --steps 1 --batch-frames 4 --device cpu -o vq -q
	lwm-tokenizer-train -q --vocab 420 --actions -o t.model drives
}

setup() { cd "$BATS_TEST_TMPDIR" && here=$BATS_FILE_TMPDIR; }

# OPTIONS...: shard.docs.h5 of the drives
encode() { lwm-vqgan-encode -q --force -m "$here/vq" -t "$here/t.model" --device cpu --frame-folders -f '<|world|>' -o shard.docs.h5 "$@"; }

# Tokens of all documents: that many in a shard.
tokens() { lwm-inspect --json "$1" | grep -o '"tokens": *[0-9]*' | head -1 | grep -o '[0-9]*'; }

@test "drives: the same again, others by seed and number" {
	ok lwm-synth drives -n 2 --size 16 --frames 3 -o a
	ok lwm-synth drives -n 2 --size 16 --frames 3 -o b
	ok lwm-synth drives -n 1 --first 1 --size 16 --frames 3 -o c
	ok lwm-synth drives -n 2 --size 16 --frames 3 --seed 1 -o d
	for f in drive-00000.mp4 drive-00001.mp4 drive-00000.json drive-00001.txt; do same a/$f b/$f; done
	same a/drive-00001.json c/drive-00001.json
	run ! cmp -s a/drive-00000.json d/drive-00000.json
	grep -q '"actions": \[null,' a/drive-00000.json
	grep -q '^a red car on a road' a/drive-00001.txt
	code 64 lwm-synth drives --frames 257 -o e
	err_has "a drive has at most 256"
	gone e
}

@test "documents of drives: each action before its frame, one id for each word" {
	encode "$here/drives" --actions cmd --action-drop 0
	# <s> <|world|>, 5 frames of 16 codes and a mark, 4 commands, </s>
	[ "$(tokens shard.docs.h5)" = $((6 * (2 + 5 * 17 + 4 + 1))) ]
	encode "$here/drives" --actions none
	[ "$(tokens shard.docs.h5)" = $((6 * (2 + 5 * 17 + 4 + 1))) ]
	encode "$here/drives" --actions steer --action-drop 0
	[ "$(tokens shard.docs.h5)" = $((6 * (2 + 5 * 17 + 4 * 10 + 1))) ]
	encode "$here/drives" --actions steer --action-drop 1
	[ "$(tokens shard.docs.h5)" = $((6 * (2 + 5 * 17 + 4 + 1))) ]
	code 64 encode "$here/drives" --action-drop 1.5
	code 64 encode "$here/drives" --actions left
}

@test "documents of drives: frames left out, actions that are none, and clips without any" {
	cp -r "$here/drives" some
	rm some/drive-00000.json
	echo '{"actions": [null, "left", "up", "left", "left"]}' >some/drive-00001.json
	echo '{"action": "left; speed=200"}' >some/drive-00002.json
	echo '{"action": "left; speed=20"}' >some/drive-00003.json
	ok lwm-vqgan-encode -m "$here/vq" -t "$here/t.model" --device cpu --frame-folders -f '<|world|>' -o shard.docs.h5 some \
		--actions cmd --action-drop 0 --json
	has '"documents":4'
	has '"rejected":2'
	err_has "frame 2: action: 'up' is none of left"
	err_has 'frame 1: action: speed 200 is not in 0..127'
	ok lwm-inspect --json shard.docs.h5
	has '"bad actions":2'
	[ "$(tokens shard.docs.h5)" = $((4 * (2 + 5 * 17 + 4 + 1))) ]
	code 65 encode "$here/drives" --sample-frames 3
	err_has "none of 6 inputs can be used"
}

@test "the same from records, and back to pictures" {
	printf '%s\n' '{"vision": [1, 2, 3, 4, 5, 6, 7, 8], "actions": [null, "left"]}' '{"vision": [1, 2, 3, 4], "actions": [null, "left"]}' >d.jsonl
	ok lwm-tokenize -t "$here/t.model" -f '<|world|>' --frame-codes 4 --vision-codes 16 --action-drop 0 d.jsonl -o d.docs.h5 --json
	has '"documents_out":1'
	err_has "for each of the 1 frames, but of 2"
	[ "$(tokens d.docs.h5)" = 14 ]
	encode "$here/drives"
	ok lwm-vqgan-decode -m "$here/vq" --device cpu -o back.png shard.docs.h5
	[ -s back.png ]
}
