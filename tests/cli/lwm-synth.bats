load ../lib

setup() { cd "$BATS_TEST_TMPDIR"; }

@test "help and usage" {
	ok lwm-synth --help
	has "needles"
	code 64 lwm-synth
	code 64 lwm-synth dragons -o x
	code 64 lwm-synth needles -o x
	err_has "--tokenizer"
	gone x
}

@test "books: the same again, other ones for another seed" {
	ok lwm-synth books -n 3 --sentences 80 --facts 2 -o b1
	ok lwm-synth books -n 3 --sentences 80 --facts 2 -o b2
	ok lwm-synth books -n 3 --sentences 80 --facts 2 --seed 1 -o b3
	for f in book-00000.txt book-00002.txt questions.jsonl; do same b1/$f b2/$f; done
	run ! cmp -s b1/book-00000.txt b3/book-00000.txt
	[ "$(wc -l < b1/questions.jsonl)" = 6 ]
	ok lwm-synth books -n 3 --sentences 80 --facts 2 -o b1
	err_has "nothing to do"
	code 73 lwm-synth books -n 4 --sentences 80 --facts 2 -o b1
	ok lwm-synth books -n 1 --first 2 --sentences 80 --facts 2 -o b4
	same b1/book-00002.txt b4/book-00002.txt
}

@test "clips and images with their text" {
	# whatever fresh memory holds: an encoder that looks at it would show in one of these
	MALLOC_PERTURB_=85 ok lwm-synth clips -n 40 --first 50 -o perturbed
	MALLOC_PERTURB_=170 ok lwm-synth clips -n 40 --first 50 -o otherwise
	same perturbed/clip-00059.mp4 otherwise/clip-00059.mp4
	same perturbed/clip-00066.mp4 otherwise/clip-00066.mp4
	same perturbed/clip-00089.mp4 otherwise/clip-00089.mp4
	ok lwm-synth clips -n 2 --size 32 --frames 4 -o clips
	[ -s clips/clip-00001.mp4 ]
	grep -q "background" clips/clip-00001.txt
	ok lwm-synth clips -n 1 --size 32 --frames 4 --store png -o frames
	[ -s frames/clip-00000/00003.png ]
	ok lwm-synth images -n 1 --size 32 -o images
	[ -s images/image-00000.png ]
	grep -q "prompt_make" images/image-00000.json
}

@test "a tokenizer with one token per city, needle documents of the length asked for" {
	ok lwm-synth books -n 6 -o books
	ok lwm-synth chats -n 200 -o chats.jsonl
	ok lwm-synth symbols -o symbols.txt
	ok lwm-tokenizer-train --vocab 640 --symbols symbols.txt -o t.model books chats.jsonl
	ok lwm-synth needles -n 50 --tokens 64 --facts 2 --ask 2 -t t.model -o n.jsonl
	ok lwm-tokenize -t t.model -f '[prompt],answer' --max-tokens 64 n.jsonl -o n.docs.h5 --json
	has '"documents_out":50'
	code 78 lwm-synth needles -n 5 --tokens 40 --facts 2 --ask 2 -t t.model -o m.jsonl
	gone m.jsonl
	printf 'Here stands nothing but this. And the other sentence of it! ' >text.txt
	ok lwm-synth needles -n 5 --tokens 200 --facts 1 -t t.model --haystack text.txt -o real.jsonl
	[ "$(grep -c 'nothing but this' real.jsonl)" = 5 ]
	code 66 lwm-synth needles -n 5 -t t.model --haystack absent.txt -o none.jsonl
	code 73 lwm-synth needles -n 50 --tokens 64 --facts 2 --ask 2 -t t.model -o n.jsonl
	ok lwm-tokenizer-train --vocab 640 --symbols symbols.txt -o again.model books chats.jsonl
	same t.model again.model
	ok lwm-tokenizer-train --vocab 640 --actions books -o drives.model # 138 words of actions
	lwm-tokenizer-train --vocab 640 --actions books -o drives.model --force --plan 2>&1 | grep -q ' 138 symbols'
	for word in '<|world|>' '<|left|>' '<|b127|>'; do grep -aqF "$word" drives.model; done
	code 73 lwm-tokenizer-train --vocab 640 books -o t.model
	code 66 lwm-tokenizer-train absent -o u.model
	ok lwm-tokenizer-train --help
}
