#!/usr/bin/env bash
# The libraries a build needs: looks for them, and gives make the flags of those it found. What is said to be there is what
# the build then uses: the Makefile includes the FILE this writes and asks nobody else.
#
#   deps.sh --find FILE             make variables: PKG_CFLAGS PKG_LIBS MPI_CFLAGS MPI_LIBS TEST_CFLAGS TEST_LIBS, and what
#                                   is missing: DEPS_MISSING, DEPS_TEST_MISSING; FILE.txt says the same to people.
#                                   Always 0; FILE is left as it is when nothing has changed
#   deps.sh --need COMMAND...       0 when these programs are in PATH, else 1 and their names
#   deps.sh --install PACKAGE...    Debian and Ubuntu: installs those not yet there
#
# Each library is looked for in NAME_DIR, NAME_ROOT, NAME_HOME (folders with include/ and lib/ or lib64/, as module files set
# them), then by pkg-config, then where the compiler looks by itself (CPATH, LIBRARY_PATH, /usr); HDF5 before that with
# h5cc. A library found outside /usr is linked with its folder as run path, so that programs start without the module too.
set -uo pipefail
export LC_ALL=C
CC=${CC:-gcc} CXX=${CXX:-g++}
# as make takes them: a command with its words, "ccache gcc" too
read -ra cc <<<"$CC"
read -ra cxx <<<"$CXX"

install_packages() {
	local p missing=() as=()
	command -v apt-get >/dev/null || {
		echo "deps: this is not Debian or Ubuntu. Load your site's modules, set the variables named below (make" \
			"HDF5_DIR=... or in the environment), or install what corresponds to: $*" >&2
		return 1
	}
	for p in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" != 0 ]; then
		if ! sudo -n true 2>/dev/null; then
			echo "deps: these packages are missing; type this (or set the variables named below), then start make again:" >&2
			echo "  sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
			return 1
		fi
		as=(sudo -n)
	fi
	echo "deps: installing ${missing[*]}" >&2
	export DEBIAN_FRONTEND=noninteractive
	"${as[@]}" apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 || echo "deps: apt-get update failed, going on" >&2
	"${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
		-o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install "${missing[@]}" >/dev/null || {
		echo "deps: apt-get could not install: ${missing[*]}" >&2
		return 1
	}
}

# ---- one library ----
# What a search leaves behind: cflags, libs, how (where it was found), tried (what was looked at in vain).
cflags='' libs='' how='' tried='' parallel=''
itself='where the compiler looks by itself'

# Words as compilers and pkg-config print them: what the preprocessor reads into cflags, the rest into libs. Folders the
# compiler looks into anyway stay out: named as system folders they would come first, and C++ headers break.
split() {
	local w
	cflags='' libs=''
	for w in "$@"; do
		w=${w//\"/}
		case $w in
		-I/usr/include | -I/usr/include/ | -L/usr/lib | -L/usr/lib/ | -L/usr/lib64 | -L/usr/lib64/) ;;
		-I*) cflags+=" -isystem ${w#-I}" ;;
		-D* | -U*) cflags+=" $w" ;;
		-pthread) cflags+=" $w" libs+=" $w" ;;
		-L* | -l* | -Wl,* | -Xlinker | --enable-new-dtags | -rpath | /*) libs+=" $w" ;;
		esac
	done
}

# Folders outside /usr become run paths.
run_paths() {
	local w
	for w in $libs; do
		[[ $w == -L/* && $w != -L/usr/lib* && $w != -L/lib* ]] || continue
		[[ " $libs " == *" -Wl,-rpath,${w#-L} "* ]] || libs+=" -Wl,-rpath,${w#-L}"
	done
}

# Does a program that includes HEADER and links these libs come about? The test of all that no pkg-config file vouches for.
links() { # HEADER [CALL]
	local c=("${cc[@]}") file=$tmp/program.c
	[[ $1 != sentencepiece* ]] || c=("${cxx[@]}" -std=c++17) file=$tmp/program.cc
	printf '#include <%s>\n' stdio.h stdarg.h stddef.h stdint.h setjmp.h "$1" >"$file"
	printf 'int main(void) { return (int)%s; }\n' "${2:-0}" >>"$file"
	# shellcheck disable=SC2086
	"${c[@]}" $cflags -o "$tmp/program" "$file" -Wl,--no-as-needed $libs 2>/dev/null
}

by_folder() { # VARIABLE HEADER LIBS [CALL]: the folder it holds, in the layouts that are about
	local dir=${!1:-} lib inc first=${3%% *}
	[ -n "$dir" ] || return 1
	how="$1=$dir"
	for inc in "$dir/include" "$dir/include/${2%.h}"; do
		# shellcheck disable=SC2015
		for lib in "$dir/lib64" "$dir/lib" "$dir/lib/$(uname -m)-linux-gnu"; do
			compgen -G "$lib/lib${first#-l}.*" >/dev/null && [ -e "$inc/$2" ] || continue
			# shellcheck disable=SC2086
			split "-I$inc" "-L$lib" $3
			run_paths
			! links "$2" "${4:-}" || return 0
			tried+="; $how (a program with $inc/$2 and $lib/lib${first#-l} does not link)"
			return 1
		done
	done
	tried+="; $how (no include/$2 with lib64 or lib/lib${first#-l} there)"
	return 1
}

by_pkg() { # NAMES
	how="pkg-config $1"
	local shown all
	# shellcheck disable=SC2086
	if ! shown=$(pkg-config --cflags --libs $1 2>/dev/null); then
		command -v pkg-config >/dev/null || how='pkg-config (not in PATH)'
		tried+="; $how"
		return 1
	fi
	read -ra all <<<"$shown"
	split "${all[@]}"
	run_paths
}

by_compiler() { # HEADER LIBS [CALL]
	how=$itself
	cflags='' libs=" $2"
	! links "$1" "${3:-}" || return 0
	tried+="; $how (#include <$1>, $2)"
	return 1
}

unset_too() { # VARIABLES: says so when none of them was there to be tried
	[ -n "$tried" ] || tried="; $1_DIR, $1_ROOT, $1_HOME (not set)"
}

find_library() { # VARIABLES HEADER LIBS PKG-CONFIG-NAMES: VARIABLES is what stands in front of _DIR, _ROOT, _HOME
	local v
	tried=''
	for v in "$1_DIR" "$1_ROOT" "$1_HOME"; do
		! by_folder "$v" "$2" "$3" || return 0
	done
	unset_too "$1"
	by_pkg "$4" || by_compiler "$2" "$3"
}

# ---- HDF5: a serial one ----
# A parallel HDF5 asks for MPI in its headers and in every program, also in those that must start without it.
serial() {
	local what
	# shellcheck disable=SC2086
	what=$(printf '#include <H5pubconf.h>\n#ifdef H5_HAVE_PARALLEL\nparallel\n#else\nserial\n#endif\n' |
		"${cc[@]}" -x c $cflags -E -P - 2>/dev/null | tail -1)
	[ "$what" != serial ] || return 0
	if [ "$what" = parallel ]; then
		parallel+="; $how"
		tried+="; $how (a parallel HDF5)"
	else
		tried+="; $how (no HDF5 headers there)"
	fi
	return 1
}

# libhdf5 in the folders that h5cc names, or else word for word what it links (its static libraries).
by_h5cc() {
	local all w shown
	how="h5cc ($(command -v h5cc))" || { tried+='; h5cc in PATH (none)'; return 1; }
	read -ra all < <(h5cc -show 2>/dev/null)
	split "${all[@]:1}"
	serial || return 1
	shown=$libs libs=''
	for w in "${all[@]:1}"; do
		case $w in
		-L*) libs+=" $w" ;;
		/*/libhdf5.*) libs+=" -L${w%/*}" ;;
		esac
	done
	for libs in "$libs -lhdf5" "$shown"; do
		run_paths
		! links hdf5.h 'H5open()' || return 0
	done
	tried+="; $how (what \`h5cc -show\` says does not link)"
	return 1
}

find_hdf5() {
	local v
	tried='' parallel=''
	for v in HDF5_DIR HDF5_ROOT HDF5_HOME; do
		[ -z "${!v:-}" ] || { named_hdf5 "$v" && return 0; }
	done
	unset_too HDF5
	for v in hdf5-serial hdf5; do
		by_pkg "$v" && serial && return 0
	done
	by_h5cc && return 0
	by_compiler hdf5.h -lhdf5 'H5open()' && serial && return 0
	[ -n "$parallel" ] || ! how=$(command -v h5pcc) || parallel="; $how"
	return 1
}

named_hdf5() { # a parallel one is told apart first: without MPI it would only look broken
	how="$1=${!1}"
	cflags=" -isystem ${!1}/include"
	[ ! -e "${!1}/include/hdf5.h" ] || serial || return 1
	by_folder "$1" hdf5.h -lhdf5 'H5open()'
}

# ---- MPI: the wrapper in PATH belongs to the mpirun in PATH, whatever pkg-config knows beside it ----
find_mpi() {
	local mpicc all
	read -ra mpicc <<<"${MPICC:-mpicc}"
	tried=''
	how=$(command -v "${mpicc[0]}") || { tried="; ${mpicc[*]} (not in PATH)"; by_pkg ompi-c; return; }
	[ ${#mpicc[@]} = 1 ] || how=${mpicc[*]}
	read -ra all < <(echo x "$("${mpicc[@]}" --showme:compile 2>/dev/null)" "$("${mpicc[@]}" --showme:link 2>/dev/null)" | tr '\n' ' ')
	[[ " ${all[*]}" == *' -l'* ]] || read -ra all < <("${mpicc[@]}" -show 2>/dev/null)
	split "${all[@]:1}"
	[[ $libs != *' -l'* ]] || return 0
	tried="; $how (tells its flags neither with --showme nor with -show)"
	by_pkg ompi-c
}

# ---- all of them ----
found=() missing=() test_missing=() notes=() report=''
PKG_CFLAGS='' PKG_LIBS='' MPI_CFLAGS='' MPI_LIBS='' TEST_CFLAGS='' TEST_LIBS=''

looked() { # NAME ADVICE: a paragraph about what was not found
	report+="deps: not found: $1
  looked for: ${tried#; }
  $2
"
}

take() { # STATUS NAME VARIABLES ADVICE: what the search left becomes flags, or a paragraph
	if [ "$1" != 0 ]; then
		missing+=("$2")
		looked "$2" "$4"
		return
	fi
	found+=("$2: $how")
	PKG_CFLAGS+=$cflags PKG_LIBS+=$libs
	# a folder that somebody named and that was passed over deserves a word
	[[ $tried != *"; $3"_[A-Z]*=* ]] || notes+=("$2: taken from $how; passed over ${tried#; }")
}

library() { # NAME VARIABLES HEADER LIBS PKG-CONFIG-NAMES
	find_library "${@:2}"
	take $? "$1" "$2" "set $2_DIR to the folder that holds include/$3 and lib/, or put its .pc file into PKG_CONFIG_PATH"
}

hdf5() {
	find_hdf5
	take $? HDF5 HDF5 "set HDF5_DIR to the folder that holds include/hdf5.h and lib/libhdf5.so (a module for HDF5 often does)"
	[[ $report != *'not found: HDF5'* || -z $parallel ]] ||
		report+="  there is a parallel HDF5 (${parallel#; }), not usable here: with it every program would need MPI to start, and
  most run where there is none. Load or build a serial one; the two can lie side by side
"
}

random123() { # headers alone
	local v d
	tried='; RANDOM123_DIR, RANDOM123_ROOT, RANDOM123_HOME; '"$itself (#include <Random123/philox.h>)"
	for v in "${RANDOM123_DIR:-}" "${RANDOM123_ROOT:-}" "${RANDOM123_HOME:-}" ''; do
		[ -z "$v" ] || [ -e "$v/include/Random123/philox.h" ] || continue
		d=${v:+" -isystem $v/include"}
		# shellcheck disable=SC2086
		printf '#if !__has_include(<Random123/philox.h>)\n#error\n#endif\n' | "${cc[@]}" -x c $d -E -o "$tmp/out" - 2>/dev/null || continue
		found+=("Random123: ${v:-$itself}")
		PKG_CFLAGS+=$d
		return
	done
	missing+=(Random123)
	looked Random123 'set RANDOM123_DIR to the folder that holds include/Random123/philox.h'
}

openblas() { # opened by programs when they run
	local d dirs known
	known=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null)
	[[ $known != *libopenblas.so.0* ]] || return 0
	IFS=: read -ra dirs <<<"${LD_LIBRARY_PATH:-}"
	for d in "${dirs[@]}"; do
		[ ! -e "$d/libopenblas.so.0" ] || return 0
	done
	missing+=(OpenBLAS)
	tried='; libopenblas.so.0 where the loader looks, LD_LIBRARY_PATH'
	looked OpenBLAS 'put its folder into LD_LIBRARY_PATH, now and whenever programs run (a module for OpenBLAS does)'
}

mpi() {
	if find_mpi; then
		found+=("MPI: $how")
		# shellcheck disable=SC2034
		MPI_CFLAGS=$cflags MPI_LIBS=$libs
	else
		missing+=(MPI)
		looked MPI 'put mpicc into PATH (a module for Open MPI or MPICH does), or name the wrapper: make MPICC=/path/to/mpicc'
	fi
}

cmocka() { # for the tests alone
	if find_library CMOCKA cmocka.h -lcmocka cmocka; then
		found+=("cmocka: $how")
		# shellcheck disable=SC2034
		TEST_CFLAGS=$cflags TEST_LIBS=$libs
	else
		test_missing+=(cmocka)
	fi
}

# Is there such a compiler, behind whatever wrapper?
preprocesses() { # LANGUAGE COMMAND...
	command -v "$2" >/dev/null && "${@:2}" -x "$1" -E - </dev/null >/dev/null 2>&1
}

find_all() {
	if ! preprocesses c "${cc[@]}" || ! preprocesses c++ "${cxx[@]}"; then
		missing+=(compilers)
		tried="; $CC, $CXX in PATH"
		looked compilers 'name yours: make CC=... CXX=...'
		return
	fi
	hdf5
	library FFmpeg FFMPEG libavformat/avformat.h '-lavformat -lavcodec -lavfilter -lavutil -lswscale' \
		'libavformat libavcodec libavfilter libavutil libswscale'
	library libyaml LIBYAML yaml.h -lyaml yaml-0.1
	library SentencePiece SENTENCEPIECE sentencepiece_processor.h '-lsentencepiece -lsentencepiece_train' sentencepiece
	library jansson JANSSON jansson.h -ljansson jansson
	library xxHash XXHASH xxhash.h -lxxhash libxxhash
	library cairo CAIRO cairo.h -lcairo cairo
	library zstd ZSTD zstd.h -lzstd libzstd
	library zlib ZLIB zlib.h -lz zlib
	random123
	openblas
	mpi
	cmocka
}

escaped() { sed 's/\$/$$/g; s/#/\\#/g'; } # for make

write() { # FILE: put together beside it, so that no make reads half of one
	local v
	{
		echo "# written by tests/deps.sh"
		for v in PKG_CFLAGS PKG_LIBS MPI_CFLAGS MPI_LIBS TEST_CFLAGS TEST_LIBS; do
			echo "$v := ${!v# }" | escaped
		done
		echo "DEPS_MISSING := ${missing[*]}"
		echo "DEPS_TEST_MISSING := ${test_missing[*]}"
		printf '# %s\n' "${found[@]}"
	} >"$1.tmp.$$"
	{
		[ ${#notes[@]} = 0 ] || printf 'deps: %s\n' "${notes[@]}"
		printf '%s' "$report"
	} >"$1.txt"
	if cmp -s "$1.tmp.$$" "$1"; then rm -f "$1.tmp.$$"; else mv "$1.tmp.$$" "$1"; fi
}

need() {
	local c gone=()
	for c in "$@"; do
		command -v "$c" >/dev/null || gone+=("$c")
	done
	[ ${#gone[@]} = 0 ] && return 0
	echo "deps: not found in PATH: ${gone[*]}" >&2
	return 1
}

mode=${1:-}
shift
case $mode in
--find)
	mkdir -p "$(dirname "$1")"
	tmp=$(mktemp -d) || exit 70
	trap 'rm -rf "$tmp"' EXIT
	find_all
	write "$1"
	;;
--need) need "$@" ;;
--install) install_packages "$@" ;;
*)
	echo "deps.sh --find FILE | --need COMMAND... | --install PACKAGE..." >&2
	exit 64
	;;
esac
