# lwm-synth-judge: which way the car of a drive went, judged by pixels.
load ../lib

setup_file() {
	export SCRATCH=$BATS_FILE_TMPDIR
	cd "$SCRATCH"
	lwm-synth -q drives -n 30 --frames 4 --size 32 -o drives
}

setup() {
	cd "$BATS_TEST_TMPDIR"
	drives=$SCRATCH/drives
}

# The clips of which the records say so, by x of the first and the last frame.
told() { # left|right|straight
	local f
	for f in "$drives"/drive-*.json; do
		sed -n "s,.*\"x\": \[\([^ ]*\)\, .* \([^]]*\)\]\, \"metres.*,\1 \2 ${f%.json}.mp4,p" "$f"
	done | awk -v w="$1" '{ d = $2 - $1; if (w == (d < -0.1 ? "left" : d > 0.1 ? "right" : "straight")) print $3 }'
}
count() { told "$1" | wc -l; }

@test "of real clips it says what is true, each of them" {
	ok lwm-synth-judge --turn truth "$drives"
	has '{"turn":"truth","trials":30,"obeyed":30,"share_obeyed":1,'
	has "\"seen\":{\"left\":$(count left),\"right\":$(count right),\"straight\":$(count straight),\"lost\":0}"
	[ "$(count left)" -ge 5 ]
	[ "$(count right)" -ge 5 ]
	[ "$(($(count left) + $(count right) + $(count straight)))" = 30 ]
	# a clip whose record tells of another turn
	mkdir wrong
	for i in 0 1 2 3 4 5; do
		cp "$drives/drive-0000$i.mp4" wrong/
		cp "$drives/drive-0000$(((i + 1) % 6)).json" "wrong/drive-0000$i.json"
	done
	ok lwm-synth-judge --turn truth wrong
	lacks '"obeyed":6'
	rm wrong/drive-00003.json
	code 66 lwm-synth-judge --turn truth wrong
	err_has 'drive-00003.json'
	echo '{"truth": {"x": []}}' >wrong/drive-00003.json
	code 65 lwm-synth-judge --turn truth wrong
	err_has 'truth.x is no list of numbers'
}

@test "a clip counts that shows the turn; --aside is how far it is" {
	ok lwm-synth-judge --turn left "$drives"
	has "\"obeyed\":$(count left),"
	ok lwm-synth-judge --turn straight -o verdict.json "$drives"
	[ -z "$output" ]
	grep -q "\"obeyed\":$(count straight)," verdict.json
	code 73 lwm-synth-judge --turn straight -o verdict.json "$drives"
	ok lwm-synth-judge --turn straight --aside 0.9 "$drives"
	has '"obeyed":30,'
}

@test "a pair counts when one turns left and the other right" {
	mkdir l r
	for way in left right; do
		n=0
		told $way | head -5 | while read -r f; do cp "$f" "${way:0:1}/$((n++)).mp4"; done
	done
	ok lwm-synth-judge --turn left l --versus r
	has '"trials":5,"obeyed":5,'
	has '"seen_versus":{"left":0,"right":5,"straight":0,"lost":0}'
	cp l/2.mp4 r/2.mp4 # a twin that goes the same way
	ok lwm-synth-judge --turn left l --versus r
	has '"trials":5,"obeyed":4,'
	ok lwm-synth-judge --turn right l --versus r
	has '"trials":5,"obeyed":0,'
	rm r/3.mp4
	code 66 lwm-synth-judge --turn left l --versus r
	err_has 'r/3.mp4'
}

@test "a clip without a car is lost, and what does not fit together is refused" {
	printf 'P6\n16 16\n255\n' >green.ppm
	for ((i = 0; i < 256; i++)); do printf '\x20\xa0\x30'; done >>green.ppm
	ok lwm-synth-judge --turn left green.ppm
	has '"obeyed":0,"share_obeyed":0,"seen":{"left":0,"right":0,"straight":0,"lost":1}'
	code 64 lwm-synth-judge green.ppm
	err_has 'either --colour or --turn'
	code 64 lwm-synth-judge --turn left -c red green.ppm
	code 64 lwm-synth-judge --turn straight --versus . green.ppm
	err_has '--versus is for --turn left or right'
	code 64 lwm-synth-judge -c mauve green.ppm
	err_has 'no colour of the made-up world'
}
