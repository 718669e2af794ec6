# lwm-run: every string that flows into a batch script, a record, a job header or a plan. What has control characters is
# refused; everything else comes out of the script as it went in, and nothing of it is ever run.
load ../lib

setup() {
	mkdir -p "$BATS_TEST_TMPDIR/w/in" "$BATS_TEST_TMPDIR/w/listed"
	cd "$BATS_TEST_TMPDIR/w" || return 1
	echo a >in/a.txt
	# writes its arguments, each ended by a zero, to the file that is named first
	cat >argv <<-'S'
		#!/bin/bash
		out=$1
		shift
		printf '%s\0' "$@" >"$out"
	S
	# the same to out/late, for a command whose first argument is an option
	cat >late <<-'S'
		#!/bin/bash
		printf '%s\0' "$@" >out/late
	S
	chmod +x argv late
	cat >p.yaml <<-'Y'
		name: probe
		out: out
		vars: {x: x, from: in, later: "out/first"}
		stages:
		- name: first
		  tool: ./argv
		  operands: ["out/first", "${x}"]
		  outputs: out/first
		- name: each
		  tool: cat
		  foreach: "${from}/*"
		  operands: "${item}"
		  stdout: "out/each/${item.name}"
		- name: late
		  tool: ./late
		  needs: first
		  foreach: "${later}*"
		  args: {option: "${x}"}
		  operands: ["${x}", "${item}"]
		  outputs: "out/late"
	Y
}

canary='touch pwned'
# of one line: everything a shell reads anything into
printable=("\$($canary)" "\`$canary\`" "; $canary #" "'; $canary; '" "\" ; $canary ; \"" "& $canary" "&& $canary" "| $canary"
	"'\"'\"'; $canary" "\\'; $canary" '*' '?' 'x[a]' 'x{a,b}' '~' '~root' '!!' '!$' '\' '\\' "a\\nb" '<in' '>pwned' '2>pwned' '#' '##'
	' ' '  two  blanks  ' '$' '$$' "\$'\\ntouch pwned'" '${HOME}' '$HOME' '(' ')' '((' 'a=b' '-' '--' '-n' '--help' '-rf' '%x' '%%'
	'@a' '=' ':' ',' '+' '^' "\"" "'" "''" '""' '`' 'ü漢🙂' $'o\xe2\x80\x99clock \xe2\x80\x9cq\xe2\x80\x9d' '#SBATCH --wrap=x' 'if' 'done' '))' ';;' 'EOF')
ctrl=($'\n' $'\r' $'\t' $'\x01' $'\x1b' $'\x7f')
shown=('\n' '\r' '\t' '\x01' '\x1b' '\x7f')

# code 64, one sentence with the byte spelt out, and nothing that was injected among what is printed
refused() { # refused INDEX WHAT COMMAND...
	local want=${shown[$1]} what=$2
	shift 2
	code 64 "$@"
	[ "$(grep -c '' <<<"$stderr")" = 1 ]
	err_has "$what"
	err_has "$want"
	! grep -q "^$canary" <<<"$output"
	[ ! -e pwned ]
}

@test "control characters are refused, wherever a string comes from" {
	local at c bad bin=$BIN
	for at in "${!ctrl[@]}"; do
		c=${ctrl[at]} bad="a${ctrl[at]}$canary${ctrl[at]}#"
		# the pipeline file and its folder: in a comment of every script, in the command of a late one
		mkdir "d$bad"
		cp p.yaml "p$bad"
		cp p.yaml "d$bad/p.yaml"
		for how in '--slurm --print' --plan --check ''; do
			# shellcheck disable=SC2086
			refused "$at" 'the pipeline file' lwm-run $how "p$bad"
			# shellcheck disable=SC2086
			refused "$at" 'the pipeline file' lwm-run $how "d$bad/p.yaml"
		done
		# the working folder
		mkdir -p "d$bad/in"
		cp argv late "d$bad/"
		(cd "d$bad" && refused "$at" 'the working folder' lwm-run --slurm --print ../p.yaml)
		# --set, whether the variable is used, unknown, or a path of keys
		refused "$at" --set lwm-run --slurm --print p.yaml --set "x=$bad"
		refused "$at" --set lwm-run --slurm --print p.yaml --set "stages.first.about=$bad"
		refused "$at" --set lwm-run --plan p.yaml --set "$bad=x"
		refused "$at" --set lwm-run --slurm --print p.yaml --set "out=$bad"
		refused "$at" --set lwm-run --slurm --print p.yaml --set "name=$bad"
		refused "$at" --set lwm-run --slurm --print p.yaml --set "stages.first.name=$bad"
		refused "$at" --set lwm-run --slurm --print p.yaml --set "stages.first.resources.partition=$bad"
		# the folder of the programs
		mkdir "b$bad"
		cp "$bin/lwm-run" "b$bad/"
		refused "$at" 'the folder of the programs' env LWM_HOME="$ROOT" "b$bad/lwm-run" --slurm --print p.yaml
		# where job.sh and site.sh are
		mkdir -p "h$bad"
		cp -r "$ROOT/slurm" "h$bad/"
		refused "$at" 'the file of the batch functions' env LWM_HOME="$PWD/h$bad" lwm-run --slurm --print p.yaml
		# the environment stands over options
		refused "$at" LWM_OPTION env LWM_OPTION="$bad" lwm-run --slurm --print p.yaml --set later=in/
		# files that foreach finds: by pattern, in a folder, in a list, in a list of the file's
		echo x >"listed/n$bad"
		refused "$at" 'a file of foreach' lwm-run --slurm --print p.yaml --set from=listed
		refused "$at" 'a file of foreach' lwm-run --plan p.yaml --set from=listed
		refused "$at" 'a file of foreach' lwm-run --slurm --print p.yaml --set stages.each.foreach=listed
		if [ "$c" != $'\n' ] && [ "$c" != $'\r' ]; then
			echo "listed/n$bad" >list
			refused "$at" 'a file of foreach' lwm-run --slurm --print p.yaml --set stages.each.foreach=@list
		fi
		rm -r "listed/n$bad"
		# what starts ranks
		refused "$at" --launch lwm-run --plan --launch "$bad" p.yaml --set stages.first.ranks=2
	done
	gone out pwned
}

@test "control characters in the values of the file are refused with their place" {
	local key
	for key in 'x: x' 'from: in' 'later: "out/first"'; do
		sed "s|vars: {.*|vars: {x: x, from: in, later: \"out/first\", ${key%%:*}: \"a\\\\n$canary\\\\n#\"}|; s|x: x, ||" p.yaml >q.yaml
		code 64 lwm-run --slurm --print q.yaml
		[ "$(grep -c '' <<<"$stderr")" = 1 ]
	done
	bad() { # bad SED-SCRIPT
		sed "$1" p.yaml >q.yaml
		! cmp -s p.yaml q.yaml
		code 64 lwm-run --slurm --print q.yaml
		[ "$(grep -c '' <<<"$stderr")" = 1 ]
		! grep -q "^$canary" <<<"$output"
	}
	bad "s|^name: probe|name: \"a\\\\n$canary\"|"
	bad "s|^out: out|out: \"a\\\\n$canary\"|"
	bad "s|name: first|name: \"a\\\\n$canary\"|"
	bad "s|tool: cat|tool: \"a\\\\n$canary\"|"
	bad "s|operands: \"\${item}\"|operands: \"a\\\\n$canary\"|"
	bad "s|stdout: .*|stdout: \"a\\\\n$canary\"|"
	bad "s|outputs: out/first|outputs: \"a\\\\n$canary\"|"
	bad "s|outputs: out/first|inputs: \"a\\\\n$canary\"|"
	bad "s|args: .*|args: {\"a\\\\n$canary\": 1}|; s|later: \"out/first\"|later: in/|"
	bad "s|args: .*|args: {a: \"a\\\\n$canary\"}|; s|later: \"out/first\"|later: in/|"
	bad "s|foreach: \"\${from}/\\*\"|foreach: \"a\\\\n$canary\"|"
	for r in mem partition; do
		for v in "a\\\\n$canary" 'a b' 'a;b' '$(x)' '-x' "a'b" 'a#b' 'a\\\\b' 'ü'; do
			bad "s|tool: cat|tool: cat\\n  resources: {$r: \"$v\"}|"
		done
	done
	for v in 'o;x' 'o x' '$(x)' "o'x" '-o' '--wrap=x' 'o#' 'ü'; do
		code 64 lwm-run --slurm --print p.yaml --set "out=$v"
	done
	gone pwned
}

# NAME with its dollars doubled, as --set wants them
dollars() { printf %s "${1//\$/\$\$}"; }

@test "everything else comes out of the script as it went in" {
	local v dir
	for v in "${printable[@]}"; do
		rm -rf out
		mkdir out
		ok lwm-run --slurm --print p.yaml --set "x=$(dollars "$v")"
		csplit -s -z -f part <(echo "$output") '/^#!/' '{*}'
		[ "$(ls part0* | wc -l)" = 3 ]
		for s in part0*; do ok bash -n "$s"; done
		for s in part0*; do ok env LWM_LAUNCH= bash "$s"; done
		# the second of these ran lwm-run again, with the --set that its script holds
		local operand=$v
		[[ $v != -?* ]] || operand=./$v
		printf '%s\0' "$operand" >want
		same want out/first
		printf '%s\0' --option "$v" "$operand" out/first >want
		same want out/late
		rm -f part0*
		[ ! -e pwned ]
	done
}

@test "scripts of every such string at once pass bash -n and shellcheck" {
	local v i=0
	rm in/*
	for v in "${printable[@]}"; do
		v=${v//\//_}
		echo "$v" >"in/$i$v"
		i=$((i + 1))
	done
	cp p.yaml ./"; $canary # \$(x) 'p.yaml"
	mkdir "h; $canary 'h" "b; $canary \$(x) 'b"
	cp -r "$ROOT/slurm" "h; $canary 'h/"
	cp "$BIN"/lwm-run "b; $canary \$(x) 'b/"
	ok env LWM_HOME="$PWD/h; $canary 'h" "./b; $canary \$(x) 'b/lwm-run" --slurm --print ./"; $canary # \$(x) 'p.yaml" \
		--set "x=$(dollars "${printable[*]}")"
	csplit -s -z -f part <(echo "$output") '/^#!/' '{*}'
	for s in part0*; do ok bash -n "$s"; done
	LC_ALL=C.UTF-8 ok shellcheck part0*
	grep -qx "#SBATCH --array=0-$((${#printable[@]} - 1))" part01
	for s in part0*; do ok env LWM_LAUNCH= bash "$s"; done
	for f in in/*; do same "$f" "out/each/${f#in/}"; done
	printf '%s\0' "${printable[*]}" >want
	same want out/first
	[ ! -e pwned ]
}

@test "the working folder, and names that begin with @ and -" {
	local dir="d; $canary # \$(x) 'd"
	mkdir "$dir"
	cp -r in argv late p.yaml "$dir/"
	cd "$dir"
	cp p.yaml ./--only=first.yaml
	echo x >@list.txt
	echo x >-rf.txt
	ok lwm-run --slurm --print --set 'stages.each.foreach=*.txt' --set 'x=-' -- --only=first.yaml
	csplit -s -z -f part <(echo "$output") '/^#!/' '{*}'
	LC_ALL=C.UTF-8 ok shellcheck part0*
	for s in part0*; do ok env LWM_LAUNCH= bash "$s"; done
	same @list.txt out/each/@list.txt # and not the files that it names
	same ./-rf.txt out/each/-rf.txt
	[ ! -e pwned ] && [ ! -e ../pwned ]
	code 64 lwm-run --slurm --print - <p.yaml
	err_has 'standard input'
	mkdir a:b
	cp "$BIN/lwm-run" a:b/
	code 64 env LWM_HOME="$ROOT" a:b/lwm-run --slurm --print p.yaml
	err_has "':'"
	code 64 lwm-run --plan p.yaml --set 'stages.first.tool=${x}' --set 'x=-n'
	err_has 'not the name of a program'
}

@test "quoting holds for random names" {
	local i k v chars=() names=()
	for ((k = 32; k < 127; k++)); do
		[ $k = 47 ] || chars+=("$(printf "\\x$(printf %x $k)")")
	done
	chars[0]=' '
	chars+=(ü 漢 🙂)
	RANDOM=11
	rm in/*
	for ((i = 0; i < 60; i++)); do
		v=
		for ((k = RANDOM % 20; k >= 0; k--)); do v+=${chars[RANDOM % ${#chars[@]}]}; done
		names+=("$i$v")
		echo "$i" >"in/$i$v"
	done
	ok lwm-run --slurm --print --only each p.yaml
	echo "$output" >s.sh
	LC_ALL=C.UTF-8 ok shellcheck s.sh
	ok env LWM_LAUNCH= bash s.sh
	for v in "${names[@]}"; do same "in/$v" "out/each/$v"; done
}

@test "standard output of a job is written to a file, not through a link" {
	ok lwm-run --slurm --print --only each p.yaml
	echo "$output" >s.sh
	mkdir -p out/each
	echo precious >precious
	ln -s "$PWD/precious" out/each/a.txt
	code 73 env LWM_LAUNCH= bash s.sh
	err_has 'not a regular file, not written: out/each/a.txt'
	[ "$(cat precious)" = precious ]
	rm out/each/a.txt
	ok env LWM_LAUNCH= bash s.sh
	same in/a.txt out/each/a.txt
}

@test "what sbatch answers is a number of a job or a refusal" {
	mkdir fake
	cat >fake/sbatch <<-'S'
		#!/bin/bash
		printf "$ANSWER"
	S
	chmod +x fake/sbatch
	PATH=$PWD/fake:$PATH
	ANSWER='12\n' ok lwm-run --slurm --only first p.yaml
	[ "$output" = '12 lwm-probe-first' ]
	ANSWER='12;cluster\n' ok lwm-run --slurm --only first p.yaml
	[ "$output" = '12 lwm-probe-first' ]
	ANSWER='12 \033[2J\n' code 69 lwm-run --slurm --only first p.yaml
	err_has 'sbatch refused'
	[ "$(grep -c '' <<<"$stderr")" = 1 ]
	! LC_ALL=C grep -q '[[:cntrl:]]' <<<"$stderr"
}
