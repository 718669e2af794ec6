# shellcheck shell=bash disable=SC2046
# Options, files and functions that READMEs, help texts, comments and scripts name, but that do not exist. For tests/check.sh, which
# has `files`; each function prints what it finds. An option is known when a program of ours has it; behind the name of a program,
# when that one has it. Below are options of other programs, and words that look like options.

others=(
	# sbatch, srun, sacct, mpirun
	--array --cpus-per-task --dependency --gpus-per-node --gpus-per-task --job-name --kill-on-bad-exit --mem --mpi --nodes --ntasks
	--ntasks-per-node --open-mode --oversubscribe --parsable --partition --requeue --signal --time
	# slurm/*_array.sh
	--only-failed
	# variables of a page, decrements
	--bad --began --bg --fg --line --ok --c- --g- --line- --n --no- --r- --w-
)

named_options() {
	local src name tmp
	tmp=$(mktemp -d) || return
	for src in $(files 'tools/*.c'); do
		name=$(basename "$src" .c)
		"bin/$name" --help-all >"$tmp/$name.help" || echo "$name --help-all: exit $?"
		{ grep -oE -- '--[a-z][a-z0-9-]*' <(sed -n '/^ /p' "$tmp/$name.help"); printf '%s\n' --help-all --help-completion --no-such-option; } |
			sed "s/^/$name /"
	done | sort -u >"$tmp/ours"
	# scripts and benchmarks of tests/ have options of their own
	grep -ohE -- '(^|[[:space:]|"])--[a-z][a-z-]*(=\*)?\)' $(files 'tests/*.sh') | grep -oE -- '--[a-z-]+' >"$tmp/scripts"
	grep -ohE -- '"--[a-z][a-z-]*"' $(files 'tests/*.c' 'tests/*.h') | tr -d '"' >>"$tmp/scripts"
	{ cut -d' ' -f2 "$tmp/ours"; cat "$tmp/scripts"; printf '%s\n' "${others[@]}"; } | sort -u >"$tmp/known"

	# Any option that is named
	grep -HnoP -- '(?<![-\w<!$])--[a-z][a-z0-9-]*' $(files '*.md' '*.yaml' 'common/*' 'kernels/*.[ch]' 'kernels/*.cu*' 'tools/*' 'pipelines/*' 'slurm/*' 'datasets/*') |
		awk -F: 'NR == FNR { known[$0]; next } !($3 in known) { print $1 ":" $2 ": no program has " $3 }' "$tmp/known" -

	# ... and behind the name of a program, up to the end of the command
	grep -HnoP -- '(?<![\w/.-])(?:bin/)?lwm-[a-z-]+(?: [^`|;&#>"]*)' $(files '*.md' 'pipelines/*' 'slurm/*' 'datasets/*' 'tools/*.c') "$tmp"/*.help |
		sed "s|$tmp/||" | awk -F: 'NR == FNR { has[$0]; split($0, w, " "); ours[w[1]]; next } {
			n = split($3, word, /[ \t,()]+/); tool = ""
			for (i = 1; i <= n; i++) {
				name = word[i]; sub(/^bin\//, "", name)
				if (name in ours) tool = name
				else if (name ~ /^(sbatch|srun|mpirun|tests\/)/) tool = ""
				else if (tool != "" && match(name, /^--[a-z][a-z0-9-]*/) && !((tool " " substr(name, 1, RLENGTH)) in has))
					print $1 ":" $2 ": " tool " has no " substr(name, 1, RLENGTH)
			}
		}' "$tmp/ours" -
	rm -rf "$tmp"
}

# Comments of C and READMEs, as FILE:LINE:TEXT
prose() {
	grep -Hn '' $(files '*.md')
	awk 'FNR == 1 { inside = 0 } {
		text = ""; rest = $0
		while (rest != "") {
			if (inside) { k = index(rest, "*/"); text = text " " (k ? substr(rest, 1, k - 1) : rest); rest = k ? substr(rest, k + 2) : ""; inside = !k }
			else if (k = match(rest, /\/\*|\/\/ /)) { inside = substr(rest, k, 2) == "/*"; if (!inside) text = text " " substr(rest, k + 2)
				rest = inside ? substr(rest, k + 2) : "" }
			else rest = ""
		}
		if (text != "") print FILENAME ":" FNR ":" text
	}' $(files 'common/*.[ch]' 'common/*.cc' 'kernels/*.[ch]' 'kernels/*.cu*' 'tools/*.c' 'tests/*.[ch]')
}

named_files() {
	local tmp elsewhere
	tmp=$(mktemp -d) || return
	# Files: from the root, from a folder above, or by name alone; names in capitals, and lwm-name, stand for others. Those of libraries:
	elsewhere='mpi\.h|deps\.mk'
	files '*' >"$tmp/tree"
	prose | grep -oP -- '^[^:]*:\d+:|(?<![\w/.$<*~-])[A-Za-z0-9_][\w./-]*\.(c|h|cc|cu|cuh|sh|bash|bats|edits|md|yaml|mk)(?![\w/*<(-]|\.[a-z])' |
		awk -v elsewhere="^(.*/)?($elsewhere)$" 'NR == FNR { tree[$0]; n = split($0, part, "/"); tail = part[n]; tree[tail]
				for (i = n - 1; i > 1; i--) { tail = part[i] "/" tail; tree[tail] } next }
			/^[^:]*:[0-9]+:$/ { at = $0; next }
			!($0 in tree) && $0 !~ /[A-Z][A-Z]|lwm-name|^(stage|p)\.yaml|X\.cu/ && $0 !~ elsewhere { print at " there is no " $0 }' "$tmp/tree" -
	rm -rf "$tmp"
}

# A function or type of ours that is named stands in the code somewhere, or in a script.
named_functions() {
	{ bare '*.[ch]' '*.cc' && cat $(files '*.cu' '*.cuh' '*.sh'); } | grep -oE '(lwm|lk)_[a-z0-9_]+' | sort -u | awk 'NR == FNR { known[$0]; next }
		/^[^:]*:[0-9]+:$/ { at = $0; next }
		!($0 in known) { print at " there is no " $0 }' - <(prose | grep -oP '^[^:]*:\d+:|(?<![\w/*.])(lwm|lk)_[a-z0-9_]*[a-z0-9](?![\w*])')
}
