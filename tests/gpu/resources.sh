#!/usr/bin/env bash
# Registers, spills and static shared memory of the larger kernels, as the compiler reported them while it built
# liblwm_cuda.so (build/cuda/*.ptxas), against the table kernels/cuda/resources.txt.
#
#	tests/gpu/resources.sh            prints what got worse, nothing when all is well (make check)
#	tests/gpu/resources.sh --write    writes the table anew (make cuda-table)
#
# In the table: kernels with 96 registers or more, any spill, or 16 KiB of static shared memory, one row per chip.
# Worse is: a spill that the table does not allow, more spilled bytes, more static shared memory, over 8 registers more. A
# kernel that is not in the table must not spill.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
table=kernels/cuda/resources.txt
export LC_ALL=C

# file, kernel, chip, registers, spilled bytes (stores + loads), static shared memory
rows() {
	local cu p
	for cu in kernels/cuda/*.cu; do
		p=build/cuda/$(basename "$cu" .cu).ptxas
		[ -s "$p" ] || continue
		awk -v file="$(basename "$cu")" '
			/Compiling entry function/ { split($0, q, "\x27"); kernel = q[2]; chip = q[4]; spill = 0 }
			/spill stores/ { for (i = 2; i <= NF; i++) if ($i == "spill") spill += $(i - 2) }
			/Used [0-9]+ registers/ {
				smem = 0
				for (i = 2; i <= NF; i++) {
					if ($i ~ /^registers/) regs = $(i - 1)
					if ($i == "smem" || $i == "smem,") smem = $(i - 2)
				}
				if (regs >= 96 || spill > 0 || smem >= 16384)
					print file, kernel, chip, regs, spill, smem
			}' "$p"
	done | c++filt | sed -E 's/\(anonymous namespace\):://g' | short_names | sort -u
}

# "a.cu void kernel<64, true>(int) sm_80 1 2 3" -> "a.cu kernel<64,true> sm_80 1 2 3"
short_names() {
	awk '{
		n = NF
		tail = $(n - 3) " " $(n - 2) " " $(n - 1) " " $n
		name = ""
		for (i = 2; i <= n - 4; i++) name = name (i > 2 ? " " : "") $i
		sub(/^void /, "", name)
		depth = 0; out = ""
		for (i = 1; i <= length(name); i++) {
			c = substr(name, i, 1)
			if (c == "<") depth++
			if (c == ">") depth--
			if (c == "(" && depth == 0) break
			out = out c
		}
		gsub(/\((bool|int|unsigned int)\)/, "", out)
		gsub(/ /, "", out)
		print $1, out, tail
	}'
}

compiler() {
	local nvcc
	nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
	"${NVCC:-$nvcc}" --version 2>/dev/null | sed -nE 's/.*release .*, (V[0-9.]+).*/nvcc \1/p'
}

case ${1:-} in
--write)
	{
		echo "# $(compiler). Written by make cuda-table; see tests/gpu/resources.sh."
		echo '# file kernel chip registers spilled-bytes static-shared-memory'
		rows
	} >"$table.tmp"
	mv "$table.tmp" "$table"
	;;
--compiler)
	[ "$(compiler)" = "$(sed -nE '1s/^# (nvcc V[0-9.]+)\..*/\1/p' "$table")" ]
	;;
*)
	rows | awk -v table="$table" '
		BEGIN {
			while ((getline line < table) > 0)
				if (line !~ /^#/) {
					split(line, f, " ")
					k = f[1] " " f[2] " " f[3]
					known[k] = 1; regs[k] = f[4]; spill[k] = f[5]; smem[k] = f[6]
				}
		}
		{
			k = $1 " " $2 " " $3
			if (!known[k]) {
				if ($5 > 0) print k ": spills " $5 " bytes and is not in the table"
			} else if ($5 > spill[k]) print k ": spills " $5 " bytes, the table allows " spill[k]
			else if ($6 > smem[k]) print k ": " $6 " bytes of static shared memory, the table has " smem[k]
			else if ($4 > regs[k] + 8) print k ": " $4 " registers, the table has " regs[k]
		}'
	;;
esac
