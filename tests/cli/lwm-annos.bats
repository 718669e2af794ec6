# Published samples of drives: tiny made-up ones of both layouts become clips with actions, and then documents.
load ../lib

setup_file() {
	cd "$BATS_FILE_TMPDIR"
	lwm-synth drives -n 2 --size 96 --frames 4 --store png -o world -q
	mkdir -p nusc/samples/CAM_FRONT nusc/sweeps/CAM_FRONT odv/someone/abc
	cp world/drive-00000/00000.png nusc/samples/CAM_FRONT/n1.png
	cp world/drive-00000/00001.png nusc/sweeps/CAM_FRONT/n2.png
	cp world/drive-00000/00002.png nusc/sweeps/CAM_FRONT/n3.png
	head -c 300 world/drive-00000/00003.png >nusc/cut.png
	for k in 0 1 2 3; do cp world/drive-00001/0000$k.png odv/someone/abc/00000099$((k + 6)).png; done
	local f='"frames": ["samples/CAM_FRONT/n1.png", "sweeps/CAM_FRONT/n2.png", "sweeps/CAM_FRONT/n3.png"]'
	local rest='"traj": [0, 0, 0.5, 4, 1, 8, 1.5, 12, 2, 16], "speed": [10, 20, 20, 20, 20], "angle": [0, 39, 39, 0, 0]'
	cat >nuScenes.json <<-J
		[{$f, $rest, "cmd": 1, "goal": [800, 450], "z": 9.5},
		 {$f, "traj": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "speed": [], "angle": [], "cmd": 3, "goal": [-20, 450], "z": 1},
		 {"frames": ["samples/CAM_FRONT/n1.png", "absent.png", "sweeps/CAM_FRONT/n3.png"], $rest, "cmd": 2, "goal": [800, 450], "z": 9.5},
		 {"frames": ["samples/CAM_FRONT/n1.png", "cut.png", "sweeps/CAM_FRONT/n3.png"], $rest, "cmd": 2, "goal": [800, 450], "z": 9.5},
		 {$f, $rest, "cmd": 7, "goal": [800, 450], "z": 9.5},
		 {$f, $rest, "cmd": 0, "goal": [800, 450], "z": -1}]
	J
	echo '[{"folder_name": "someone/abc", "first_frame": "000000996.png"}, {"folder_name": "someone/abc", "first_frame": "000000997.png"},
	       {"folder_name": "someone/abc", "first_frame": "000000998.png"}]' >YouTube.json
}

setup() { cd "$BATS_TEST_TMPDIR" && here=$BATS_FILE_TMPDIR; }

annos() { lwm-annos --frames 3 --width 128 --height 64 "$@"; }

@test "nuscenes: clips of the size asked for, all valid modes, what is broken is named and left out" {
	ok annos --root "$here/nusc" -d out --json "$here/nuScenes.json"
	has '"samples":6'
	has '"broken":3'
	has '"clips":3'
	has '"missing frame":1'
	has '"bad frame":1'
	has '"bad action":1'
	err_has 'sample 2: '
	err_has 'absent.png'
	err_has 'sample 3: '
	err_has "sample 4: 'cmd' is none of 0, 1, 2, 3"
	grep -qF '{"action": {"cmd": "left", "traj": [0.5, 4, 1, 8, 1.5, 12, 2, 16], "speed": [20, 20, 20, 20], "steer": [0.05, 0.05, 0, 0], "goal": [0.5, 0.5]}' out/nuScenes-000000.json
	grep -qF '{"action": {"cmd": "stop", "traj": [0, 0, 0, 0, 0, 0, 0, 0]}' out/nuScenes-000001.json
	grep -qF '"sample": 5, "first_frame": "samples/CAM_FRONT/n1.png"' out/nuScenes-000005.json
	gone out/nuScenes-000002 out/nuScenes-000002.json out/nuScenes-000003 out/nuScenes-000003.json out/nuScenes-000004
	[ "$(ls out/nuScenes-000000 | tr '\n' ' ')" = '00000.png 00001.png 00002.png ' ]
	# width and height of the PNG
	[ "$(od -An -tx1 -j16 -N8 out/nuScenes-000000/00002.png | tr -d ' \n')" = 0000008000000040 ]
}

@test "nuscenes: run again, other settings, too many broken, commands that mean something else" {
	ok annos -q --root "$here/nusc" -d out "$here/nuScenes.json"
	rm -r out/nuScenes-000001 out/nuScenes-000001.json
	touch -d 2001-01-01 out/nuScenes-000000/00000.png
	ok annos --root "$here/nusc" -d out --json "$here/nuScenes.json"
	has '"there_before":2'
	[ -s out/nuScenes-000001/00002.png ]
	[ out/nuScenes-000000/00000.png -ot out/nuScenes-000001/00000.png ]
	code 73 annos --root "$here/nusc" -d out --commands left,right,straight,stop "$here/nuScenes.json"
	err_has 'holds clips of other samples or settings'
	ok annos -q --root "$here/nusc" -d out --commands left,right,straight,stop --force "$here/nuScenes.json"
	grep -q '"cmd": "right"' out/nuScenes-000000.json
	code 65 annos --root "$here/nusc" -d few --max-bad 2 "$here/nuScenes.json"
	err_has '3 samples are broken, and no more than 2 are allowed'
	code 65 annos --root absent -d none "$here/nuScenes.json"
	err_has 'none of 6 samples can be used'
	code 64 annos --root . -d x --commands left,right "$here/nuScenes.json"
	code 64 annos --root . -d x --commands left,right,up,stop "$here/nuScenes.json"
	err_has "'up' is none of left, right, straight, stop"
	code 64 annos --width 100 --root . -d x "$here/nuScenes.json"
	err_has 'multiples of 64'
	code 66 annos --root . -d x absent.json
	echo '{"frames": []}' >object.json
	code 65 annos --root . -d x object.json
	err_has 'is no list of samples'
	mkdir other && cp "$here/nuScenes.json" other/
	code 64 annos --root . -d y "$here/nuScenes.json" other/nuScenes.json
	err_has 'a second file of this name'
}

@test "nuscenes: as often as published" {
	ok annos --root "$here/nusc" -d out --balance --json "$here/nuScenes.json"
	# sample 0: rare and complete, 10; 1: stop, 1; 5: rare, 5
	has '"clips":16'
	same out/nuScenes-000000/00001.png out/nuScenes-000000-10/00001.png
	same out/nuScenes-000000.json out/nuScenes-000000-10.json
	gone out/nuScenes-000000-11.json out/nuScenes-000001-2.json
	[ -s out/nuScenes-000005-5.json ]
}

@test "youtube: consecutive frames of a folder, tasks that share the samples" {
	ok annos --root "$here/odv" -d out --json "$here/YouTube.json"
	has '"clips":2'
	has '"missing frame":1'
	err_has '000001000.png'
	same out/YouTube-000000/00001.png out/YouTube-000001/00000.png
	grep -q '{"action": null,' out/YouTube-000000.json
	ok annos -q --root "$here/odv" -d parts --task 1 --tasks 2 "$here/YouTube.json"
	gone parts/YouTube-000000.json
	same out/YouTube-000001/00002.png parts/YouTube-000001/00002.png
	code 64 annos --root . -d x --task 2 --tasks 2 "$here/YouTube.json"
	code 65 annos --root "$here/odv" -d wrong --layout nuscenes "$here/YouTube.json"
	err_has "no field 'frames'"
	ok annos --plan --root "$here/odv" -d planned "$here/YouTube.json"
	gone planned
}

@test "both become documents of drives" {
	annos -q --root "$here/nusc" -d clips "$here/nuScenes.json"
	annos -q --root "$here/odv" -d free "$here/YouTube.json"
	lwm-train-stage --objective reconstruction --model tiny --hidden 4 --groups 2 --channel-mult 1,2,2 --codes 16 \
		--resolution 64 --data clips --steps 1 --batch-frames 2 --device cpu -o vq -q
	lwm-tokenizer-train -q --vocab 440 --actions -o t.model "$here/world"
	ok lwm-vqgan-encode -q -m vq -t t.model --device cpu --frame-folders -f '<|world|>' --width 128 --height 64 --actions steer \
		--action-drop 0 -o d.docs.h5 clips free
	ok lwm-inspect --json d.docs.h5
	# 5 clips of 3 frames of 16 x 32 codes; one of steer (two of the samples have it: 10 words), else <|free|>, before frames 1 and 2
	has "\"tokens\":$((5 * (3 + 3 * 513 + 2) + 2 * 2 * 9))"
}
