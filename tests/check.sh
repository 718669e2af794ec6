#!/usr/bin/env bash
# Static checks; `make check` calls it. The last line is "N passed, N failed, N skipped".
# shellcheck disable=SC2046  # names of files in the project have no blanks
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
export LC_ALL=C
passed=0 failed=0 skipped=0
out=$(mktemp) || exit 70
trap 'rm -f "$out"' EXIT

# check NAME FUNCTION: the function prints what is wrong; nothing printed is a pass
check() {
	"$2" >"$out" 2>&1
	if [ -s "$out" ]; then
		failed=$((failed + 1))
		echo "FAILED $1"
		sed 's/^/    /' "$out" | head -40
	else
		passed=$((passed + 1))
		echo "ok     $1"
	fi
}

skip() {
	skipped=$((skipped + 1))
	echo "skip   $1: $2"
}

unpacked() { # the same without git: every file that is not built
	local p
	for p in "$@"; do
		find . \( -path ./build -o -path ./bin -o -path ./lib -o -path ./runs -o -path ./.git \) -prune -o \
			-type f -path "./$p" -printf '%P\n'
	done
}

files() { # files PATTERN...: those of the project, whether committed yet or not
	{ git ls-files --cached --others --exclude-standard -- "$@" 2>/dev/null || unpacked "$@"; } | sort -u | while IFS= read -r f; do
		[ ! -e "$f" ] || echo "$f"
	done
}

# shellcheck source=tests/names.bash
. tests/names.bash

tests/deps.sh --find "$out.deps"
read -ra pkg < <(sed -n 's/^PKG_CFLAGS := //p' "$out.deps")
rm -f "$out.deps" "$out.deps.txt"

headers() {
	local h
	for h in $(files 'common/*.h' 'kernels/*.h'); do
		grep -qE '#include <(cuda|cublas|nccl)' "$h" && continue
		[[ $h != kernels/cuda/* ]] || continue
		gcc -std=c11 -D_GNU_SOURCE -I. "${pkg[@]}" -Wall -Wextra -Werror -fsyntax-only -x c "$h" 2>&1 |
			grep -vE 'pragma once in main file' | grep -m 3 error
	done
	g++ -std=c++17 -I. -Wall -Wextra -Werror -fsyntax-only -x c++ kernels/kernels.h 2>&1 | grep -m 3 error
}

# Which room of common/ may include which others.
layer() {
	case $1 in
	base) echo ;;
	cli | tensor | text | media) echo base ;;
	io) echo tensor base ;;
	comm) echo base ;;
	data) echo io comm text media tensor base ;;
	synth) echo data io text media base ;;
	model) echo tensor comm base ;;
	infer) echo model io text tensor comm base ;;
	optim) echo tensor comm base ;;
	train) echo optim infer model data io media text comm tensor cli base ;;
	eval) echo infer model data io text media comm tensor base ;;
	pipeline) echo cli base ;;
	esac
}

directions() {
	local f own inc dir
	grep -nE '^#include "' $(files 'common/*.[ch]' 'common/*.cc') | while IFS=: read -r f _ inc; do
		inc=${inc#*\"} inc=${inc%%\"*}
		own=$(cut -d/ -f2 <<<"$f")
		case $inc in
		common/*)
			dir=$(cut -d/ -f2 <<<"$inc")
			[[ " $own $(layer "$own") " == *" $dir "* ]] || echo "$f includes $inc"
			;;
		kernels/kernels.h) [[ $own =~ ^(comm|model|infer|optim|train|eval)$ ]] || echo "$f includes $inc" ;;
		*) echo "$f includes $inc: write it from the root, and of kernels/ only kernels.h" ;;
		esac
	done
	grep -nE '^#include "' $(files 'kernels/*.[ch]' 'kernels/*.cu' 'kernels/*.cuh') | grep -vE '#include "(kernels/|ptx(90)?_emu\.h")'
	grep -nE '^#include "' $(files 'tools/*.c') | grep -vE '#include "(common|kernels/kernels\.h|tools)'
}

# Which files of kernels/ a file of kernels/ may call: the checks in front of the backends know no backend, a backend knows neither
# them nor another backend than ref, and backends.c opens them all. cuda is a shared object of its own.
below() {
	case $1 in
	kernels/report | kernels/library) echo 'nothing' ;;
	kernels/check) echo 'kernels/report' ;;
	kernels/dispatch_*) echo 'kernels/(report|check|dispatch_[a-z]+)' ;;
	kernels/backends) echo 'kernels/(library|[a-z]+/[a-z]+)' ;;
	kernels/cuda/*) echo 'kernels/cuda/.*' ;;
	kernels/*/*) echo "kernels/(report|ref/ref|$(cut -d/ -f2 <<<"$1")/.*)" ;;
	esac
}

# Which objects of the library and of the kernels call each other, and whether a call goes where no include may: what was built says
# it. A circle is two files or more of which none can be understood, or linked, without the others. The objects of NAME.hot.c, one
# for each instruction set, count as NAME.hot; those of kernels/cuda are looked at where liblwm_cuda.so was built from what is here.
calls() {
	local src obj objects=()
	while read -r src obj; do
		[[ $src == *.hot.c && ! -e $obj || $src == kernels/cuda/* && (! -e $obj || $src -nt $obj) ]] || objects+=("$obj")
	done < <(files 'common/*.c' 'common/*.cc' 'kernels/*.c' 'kernels/*.cu' | awk '
		/^kernels\/cuda\// { name = $0; sub(/.*\//, "", name); sub(/\.cu$/, "", name); print $0, "build/cuda/" name ".o"; next }
		/\.hot\.c$/ { name = substr($0, 1, length - 6); split("base avx2 avx512", isa, " ")
			for (i in isa) print $0, "build/rel/" name "." isa[i] ".o"; next }
		{ name = $0; sub(/\.cc?$/, "", name); print $0, "build/rel/" name ".o" }')
	{ nm -A -P --defined-only -g "${objects[@]}" | awk '$3 !~ /^[VWu]$/ { print "d", $1, $2 }'
		nm -A -P -u "${objects[@]}" | awk '{ print "u", $1, $2 }'; } | awk '{ sub(/^build\/rel\//, "", $2)
		sub(/^build\//, "kernels/", $2); sub(/(\.c)?\.o:$/, "", $2); sub(/\.(base|avx2|avx512)$/, ".hot", $2); print }' |
		awk '$1 == "d" { where[$3] = $2; next } $3 in where && where[$3] != $2 && !(($2, where[$3]) in seen) {
			seen[$2, where[$3]]; print $2, where[$3] }'
}

circles() {
	calls >"$out.calls"
	[ -s "$out.calls" ] || echo 'nothing is built'
	local from to own dir
	while read -r from to; do
		own=$(cut -d/ -f2 <<<"$from") dir=$(cut -d/ -f2 <<<"$to")
		case "$from $to" in
		kernels/*) [[ $to =~ ^($(below "$from"))$ ]] ;;
		*\ kernels/*) [[ "$own $to" =~ ^(comm|model|infer|optim|train|eval)\ kernels/(backends|dispatch_[a-z]+|report)$ ]] ;;
		*) [[ " $own $(layer "$own") " == *" $dir "* ]] ;;
		esac || echo "$from calls $to"
	done <"$out.calls"
	tsort "$out.calls" 2>&1 >/dev/null | sed -nE 's/^tsort: (common|kernels)/\1/p' >"$out.loop"
	[ ! -s "$out.loop" ] || echo "files that call each other in a circle: $(tr '\n' ' ' <"$out.loop")"
	rm -f "$out.calls" "$out.loop"
}

# One program trains. The others hold nothing of it: no function of an object of train or optim.
trains='lwm-train-stage'
untrained() {
	local objects=() name
	mapfile -t objects < <(files 'common/train/*.c' 'common/optim/*.c' | sed -E 's|^(.*)\.c$|build/rel/\1.o|')
	nm -A -P --defined-only -g "${objects[@]}" | awk '{ sub(/:$/, "", $1); print $2, $1 }' | sort -u >"$out.train"
	[ -s "$out.train" ] || echo 'nothing is built'
	for name in $(files 'tools/*.c' | sed -E 's|^tools/(.*)\.c$|\1|' | grep -vxF "$trains"); do
		nm -P --defined-only -g "bin/$name" | awk -v program="$name" 'NR == FNR { where[$1] = $2; next }
			$1 in where { print program " holds " $1 " of " where[$1] }' "$out.train" -
	done
	rm -f "$out.train"
}

# Each library is called from one folder only.
libraries() {
	only() { grep -nE "^#include <($1)" $(files '*.c' '*.h' '*.cc') | grep -vE "^($2)"; }
	only 'hdf5|H5' 'common/io/'
	only 'libav|libsw' 'common/media/|tests/unit/test_media'
	only 'yaml\.h' 'common/cli/'
	only 'mpi\.h' 'common/comm/comm_mpi\.c'
	only 'cairo' 'common/eval/'
	only 'sentencepiece' 'common/text/'
	only 'cblas' 'kernels/cpu/|tests/bench/'
	only 'cuda|cublas|nccl' 'kernels/cuda/'
}

# What mpirun, srun, Slurm and CUDA say in the environment is known to common/base alone; kernels read variables of their own.
# (OMPI_MCA_* are settings that we make.)
environment() {
	grep -nE '"(SLURM|OMPI_COMM|PMIX?|MV2|PALS|MPI_LOCAL|CUDA_VISIBLE|NVIDIA_|FLUX)[A-Z0-9_]*"' \
		$(files 'common/*.[ch]' 'common/*.cc' 'tools/*.c' 'kernels/*.[ch]' 'kernels/*.cu') | grep -v '^common/base/'
	grep -nE 'getenv\("' $(files 'kernels/*') | grep -vE 'getenv\("LWM_'
}

# The sources without comments and without the insides of strings.
bare() {
	local f
	for f in $(files "$@"); do
		gcc -fpreprocessed -dD -E -P "$f" 2>/dev/null | sed -E 's/"([^"\\]|\\.)*"/""/g' | sed "s|^|$f: |"
	done
}

banned() {
	bare 'common/*.[ch]' 'kernels/*.[ch]' 'tools/*.c' 'tests/*.c' |
		grep -E '[^A-Za-z0-9_.>](atoi|atol|atof|strcpy|strcat|sprintf|vsprintf|strtok|gets|rand|srand|system|popen|alloca|tmpnam|mktemp)\(' |
		head -20
}

ends() { # the library returns, the tool dies
	bare 'common/*.[ch]' 'kernels/*.[ch]' | grep -E '[^A-Za-z0-9_>.](exit|abort|assert)\(' |
		grep -v '^common/base/err.c:'
}

silent() { # the library does not talk past the log
	bare 'common/*.c' 'kernels/*.c' | grep -E '[^A-Za-z0-9_](printf|puts|putchar)\(|fprintf\((stdout|stderr)' |
		grep -vE '^common/(base/(log|progress|err)|cli/opt)\.c:'
}

sizes() {
	local f
	for f in $(files '*.c' '*.h' '*.cc' '*.cu' '*.cuh'); do
		[ "$(wc -l <"$f")" -le 600 ] || echo "$f: $(wc -l <"$f") lines, split it at 600"
		expand -t 8 "$f" | awk -v f="$f" 'length > 132 && !/"/ { print f ":" NR ": " length " columns"; exit }'
	done
	for f in $(files 'common/*.c' 'kernels/*.c' 'tools/*.c'); do
		awk -v f="$f" '/^[a-zA-Z].*\(.*[^;]$/ { name = $0; from = NR } /^\{/ { from = NR } /^}/ {
			if (from && NR - from > 102) print f ":" from ": a function of " NR - from - 1 " lines"; from = 0 }' "$f"
	done
	for f in $(files '*'); do # what a build or a download left behind
		[ "$(stat -c %s "$f")" -le 262144 ] || echo "$f: $(stat -c %s "$f") bytes, which no source has"
	done
}

scripts() {
	shellcheck -x $(files '*.sh' '*.bash' '.ci/run')
	[ -z "$(files '*.bats')" ] || shellcheck -x -S warning -e SC2154,SC2030,SC2031,SC2164,SC2238 $(files '*.bats')
	local f
	for f in $(files '*.sh' '.ci/run'); do
		[ -x "$f" ] || grep -q 'shellcheck shell=' "$f" || echo "$f is not executable"
	done
}

lint() {
	cppcheck --quiet --std=c11 --language=c -D_GNU_SOURCE -I. -j "$(nproc)" --inline-suppr \
		--enable=warning,portability --suppressions-list=tests/cppcheck.supp \
		--template='{file}:{line}: {id}: {message}' $(files 'common/*.c' 'kernels/*.c' 'tools/*.c') 2>&1
}

folders() {
	files '*.c' '*.h' '*.cc' '*.cu' '*.sh' '*.bats' '*.yaml' | sed 's|/[^/]*$||' | sort -u | while IFS= read -r d; do
		[[ $d != tests/fuzz/corpus* && $d != .ci* ]] || continue
		[ -s "$d/README.md" ] || echo "$d has no README.md"
	done
	[ -s README.md ] || echo 'no README.md'
	[ -s LICENSE ] || echo 'no LICENSE'
}

loose_ends() {
	grep -nE 'TO''DO|FIX''ME' $(files '*.c' '*.h' '*.cc' '*.cu' '*.sh' '*.bats' '*.md' '*.yaml' 'Makefile')
	grep -nE '/work/(shared|main|notes)' $(files '*') 
}

# Each deliberate mistake of tests/mutate can be made in the code as it is, and in one place only.
mutations() { tests/mutate.sh --check; }

# What the READMEs say under "To add a ..." works, and touches the files they list.
recipes() { tests/recipes.sh; }

# Every tool answers --help: exit 0, nothing on standard error, at most 60 lines, with examples.
help_texts() {
	local src name n
	make --no-print-directory build >/dev/null 2>&1 || echo 'the build fails'
	for src in $(files 'tools/*.c'); do
		name=$(basename "$src" .c)
		"bin/$name" --help >"$out.help" 2>"$out.err" || echo "$name --help: exit $?"
		[ ! -s "$out.err" ] || echo "$name --help talks on standard error"
		n=$(wc -l <"$out.help")
		[ "$n" -le 60 ] || echo "$name --help has $n lines"
		grep -q '^Examples:' "$out.help" || echo "$name --help has no examples"
		"bin/$name" --version | grep -qE "^$name [0-9]" || echo "$name --version"
		"bin/$name" --no-such-option >/dev/null 2>&1
		[ $? = 64 ] || echo "$name accepts an unknown option"
		"bin/$name" --help-completion | bash -n || echo "$name --help-completion is not a script"
	done
	rm -f "$out.help" "$out.err"
}

# A comment of several lines that begins as a sentence ends as one, or with a line of an example; nothing is left of one that was cut.
sentences() {
	awk 'FNR == 1 { inside = 0 }
		/\*[ \t]+\*\// { print FILENAME ":" FNR ": a stray * in a comment" }
		!inside && /^[ \t]*\/\* [A-Z]|^\/\*/ && !/\*\// { inside = 1; last = $0; next }
		inside { text = $0; sub(/[ \t]*\*\/.*/, "", text); if (text !~ /^[ \t]*\*?$/) last = text }
		inside && /\*\// { inside = 0; if (last !~ /^ \*(\t|  )/ && last !~ /[.:;!?)}][ \t]*$/) print FILENAME ":" FNR ": a sentence without its end" }' \
		$(files 'common/*.[ch]' 'common/*.cc' 'kernels/*.[ch]' 'kernels/*.cu*' 'tools/*.c' 'tests/*.[ch]' 'tests/*.cc')
}

# A tool is its file and its row in tools/README.md.
rows() {
	local src
	for src in $(files 'tools/*.c'); do
		grep -q "^| .*\`$(basename "$src" .c)\`.* |" tools/README.md || echo "tools/README.md has no row for $src"
	done
}

check 'headers compile alone' headers
check 'includes point downwards' directions
check 'calls point downwards, in no circle' circles
check 'one program trains, no other holds its objects' untrained
check 'each library has one home' libraries
check 'the environment of Slurm and CUDA has one home' environment
check 'no banned calls' banned
check 'no exit in the library' ends
check 'the library does not print' silent
check 'file, function and line sizes' sizes
if command -v shellcheck >/dev/null; then check 'shellcheck' scripts; else skip shellcheck 'not installed'; fi
if command -v cppcheck >/dev/null; then check 'cppcheck' lint; else skip cppcheck 'not installed'; fi
check 'README in each folder' folders
check 'no loose ends' loose_ends
check 'comments end' sentences
check 'every tool helps' help_texts
check 'every tool has its row' rows
check 'options that are named exist' named_options
check 'files that are named exist' named_files
check 'functions that are named exist' named_functions
check 'edits of tests/mutate fit' mutations
check 'recipes of the READMEs work' recipes
if ! ls build/cuda/*.ptxas >/dev/null 2>&1; then
	skip 'registers and spills' 'liblwm_cuda.so was not built here'
elif ! tests/gpu/resources.sh --compiler; then
	skip 'registers and spills' 'another nvcc than the one of kernels/cuda/resources.txt'
else
	check 'registers and spills' tests/gpu/resources.sh
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
