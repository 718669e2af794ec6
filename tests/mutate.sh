#!/usr/bin/env bash
# Breaks the code on purpose, one small edit at a time, and says which edits a test notices. See tests/README.md.
#
#   tests/mutate.sh                     every edit of tests/mutate/*.edits against the suites it names
#   tests/mutate.sh --full              those that pass, against all suites too (hours)
#   tests/mutate.sh PATTERN...          only edits whose file or text contains a PATTERN
#   tests/mutate.sh --part 2/3 ...      every third of them, from the second on: several machines share the list
#   tests/mutate.sh --check             builds nothing: does each edit fit its file exactly once? (make check)
#
# Works on a copy; the tree stays as it is. MUTATE_DIR=DIR keeps the copy and its build for the next run. The last line is
# "N caught, N missed, N not applicable".
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
export LC_ALL=C
mode=named part=1 parts=1 patterns=()
while [ $# -gt 0 ]; do
	case $1 in
	--full) mode=full ;;
	--check) mode=check ;;
	--part)
		part=${2%/*} parts=${2#*/}
		shift
		;;
	-*)
		sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
		exit 64
		;;
	*) patterns+=("$1") ;;
	esac
	shift
done

# ---- the list ----

file=() old=() new=() suites=() place=()
read_list() { # FILE
	local line at='' tests='' from='' n=0
	while IFS= read -r line || [ -n "$line" ]; do
		n=$((n + 1))
		case $line in
		'' | '#'*) ;;
		'@ '*) read -r _ at tests <<<"$line" ;;
		'- '*) from=${line#- } ;;
		'+ '*)
			[ -n "$from" ] || echo "$1:$n: a + without its -"
			file+=("$at") old+=("$from") new+=("${line#+ }") suites+=("$tests") place+=("$1:$n")
			from=''
			;;
		*) echo "$1:$n: begins with none of '@ ', '- ', '+ ', '#'" ;;
		esac
	done <"$1"
}

# How often a text occurs in a file: lines without the blanks in front, so that indentation is free to change.
occurs() { # FILE TEXT
	if [ ! -f "$1" ] || [ -z "$2" ]; then
		echo 0
		return
	fi
	TEXT=$2 awk '{ sub(/^[ \t]+/, ""); s = $0; while ((i = index(s, ENVIRON["TEXT"]))) { n++; s = substr(s, i + 1) } }
		END { print n + 0 }' "$1"
}

suite_exists() {
	case $1 in
	unit/*) [ -f "tests/unit/${1#unit/}.c" ] ;;
	cli/*) [ -f "tests/cli/${1#cli/}.bats" ] ;;
	fuzz/*) [ -f "tests/fuzz/${1#fuzz/}.c" ] ;;
	kernels/ops) true ;;
	*) false ;;
	esac
}

for l in tests/mutate/*.edits; do
	read_list "$l"
done
total=${#file[@]}

if [ "$mode" = check ]; then
	for ((i = 0; i < total; i++)); do
		n=$(occurs "${file[i]}" "${old[i]}")
		[ "$n" = 1 ] || echo "${place[i]}: '${old[i]}' stands $n times in ${file[i]}, expected once"
		[ "${old[i]}" != "${new[i]}" ] || echo "${place[i]}: changes nothing"
		[ -n "${suites[i]}" ] || echo "${place[i]}: names no suite"
		for s in ${suites[i]}; do
			suite_exists "$s" || echo "${place[i]}: there is no suite $s"
		done
	done
	exit 0
fi

wanted() { # INDEX
	local p
	[ $(($1 % parts)) = $((part - 1)) ] || return 1
	[ ${#patterns[@]} -gt 0 ] || return 0
	for p in "${patterns[@]}"; do
		[[ ${file[$1]} != *"$p"* && ${old[$1]} != *"$p"* ]] || return 0
	done
	return 1
}

# ---- the copy ----

copy=${MUTATE_DIR:-}
if [ -z "$copy" ]; then
	copy=$(mktemp -d) || exit 70
	trap 'rm -rf "$copy"' EXIT
fi
mkdir -p "$copy" || exit 73
{ git ls-files --cached --others --exclude-standard -z 2>/dev/null ||
	find . \( -path ./build -o -path ./bin -o -path ./lib -o -path ./runs -o -path ./.git \) -prune -o -type f -print0; } |
	tar -c --null --no-recursion --files-from=- --ignore-failed-read 2>/dev/null | tar -x -C "$copy" || exit 73
cd "$copy" || exit 73
copy=$PWD
for f in "${file[@]}"; do # a kept copy may hold objects of an edit
	[ ! -f "$f" ] || touch "$f"
done
log=$copy/mutate.log
B=build/rel

# An edit may leave a variable unused; that is not what should notice it.
compile() {
	make CUDA=0 CFLAGS=-Wno-error --no-print-directory -j"${JOBS:-2}" "$@" >"$log" 2>&1
}

build_for() { # SUITE...
	local s goals=()
	for s in "$@"; do
		case $s in
		unit/*) goals+=("$B/tests/unit/${s#unit/}") ;;
		fuzz/*) goals+=("$B/tests/fuzz/${s#fuzz/}") ;;
		kernels/ops) goals+=(bin/lwm-kernel-ops) ;;
		cli/*) goals+=(build) ;;
		esac
	done
	compile "${goals[@]}"
}

run_suites() { # SUITE...
	local s names=()
	for s in "$@"; do
		case $s in
		unit/mpi_*) names+=("$s x2\$" "$s x4\$") ;;
		*) names+=("$s\$") ;;
		esac
	done
	LWM_TEST_LIMIT=${LWM_TEST_LIMIT:-180} B=$B BIN=$copy/bin bash tests/run.sh "${names[@]}" >"$log" 2>&1
}

# What an edit made endless outlives the limit of its suite.
end_leftovers() {
	local p
	for p in /proc/[0-9]*/exe; do
		[[ $(readlink "$p" 2>/dev/null) == "$copy"/* ]] || continue
		p=${p#/proc/}
		kill -9 "${p%/exe}" 2>/dev/null
	done
}

run_all() {
	LWM_TEST_LIMIT=${LWM_TEST_LIMIT:-900} make CUDA=0 CFLAGS=-Wno-error --no-print-directory test >"$log" 2>&1
}

apply() { # FILE OLD NEW
	cp -p "$1" "$copy/mutate.saved"
	OLD=$2 NEW=$3 awk '{ i = index($0, ENVIRON["OLD"])
		if (i) $0 = substr($0, 1, i - 1) ENVIRON["NEW"] substr($0, i + length(ENVIRON["OLD"])); print }' \
		"$copy/mutate.saved" >"$1"
}

restore() { # FILE; newer than what was compiled from the edit
	cat "$copy/mutate.saved" >"$1"
}

needed=()
for ((i = 0; i < total; i++)); do
	wanted "$i" || continue
	for s in ${suites[i]}; do
		[[ " ${needed[*]} " == *" $s "* ]] || needed+=("$s")
	done
done
[ ${#needed[@]} -gt 0 ] || {
	echo 'no edit is wanted' >&2
	exit 64
}
echo "building, and running ${#needed[@]} suites on the code as it is" >&2
build_for "${needed[@]}" || {
	tail -20 "$log"
	exit 70
}
run_suites "${needed[@]}" || {
	echo 'a suite fails already without an edit:'
	tail -40 "$log"
	exit 70
}

caught=0 missed=0 unfit=0
say() { # VERDICT INDEX NOTE
	printf '%-15s %-34s %-80.80s %s\n' "$1" "${file[$2]}" "${old[$2]} => ${new[$2]}" "$3"
}

for ((i = 0; i < total; i++)); do
	wanted "$i" || continue
	read -ra named <<<"${suites[i]}"
	if [ "$(occurs "${file[i]}" "${old[i]}")" != 1 ]; then
		unfit=$((unfit + 1))
		say 'does-not-apply' "$i" "${place[i]}"
		continue
	fi
	apply "${file[i]}" "${old[i]}" "${new[i]}"
	if ! build_for "${named[@]}"; then
		unfit=$((unfit + 1))
		say 'does-not-apply' "$i" "${place[i]} does not compile: $(grep -m 1 -o 'error: .*' "$log")"
	elif ! run_suites "${named[@]}"; then
		caught=$((caught + 1))
		say caught "$i" "$(awk '/^FAILED/ && $2 ~ /\// { print $2; exit }' "$log")"
	elif [ "$mode" = full ] && ! run_all; then
		caught=$((caught + 1))
		say caught "$i" "$(awk '/^FAILED/ && $2 ~ /\// { print $2; exit }' "$log") (not named in the list)"
	else
		missed=$((missed + 1))
		say MISSED "$i" "${suites[i]}"
	fi
	end_leftovers
	restore "${file[i]}"
done
echo "$caught caught, $missed missed, $unfit not applicable"
[ "$missed" = 0 ] && [ "$unfit" = 0 ]
