# The build: how HDF5 is found, what make prints, how many jobs it starts, when it builds again.
load ../lib

# Where this machine has HDF5: what the build itself uses.
real_hdf5() {
	local w
	"$ROOT/tests/deps.sh" --find "$BATS_FILE_TMPDIR/real.mk"
	for w in $(sed -n 's/^PKG_CFLAGS := //p' "$BATS_FILE_TMPDIR/real.mk") /usr/include; do
		[ ! -e "$w/hdf5.h" ] || { headers=$w; break; }
	done
	for w in $(sed -n 's/^PKG_LIBS := //p' "$BATS_FILE_TMPDIR/real.mk") "-L$(dirname "$(gcc -print-file-name=libhdf5.so)")"; do
		[ ! -e "${w#-L}/libhdf5.so" ] || { library=$(realpath "${w#-L}/libhdf5.so"); break; }
	done
	[ -n "$headers" ] && [ -n "$library" ]
}

# site NAME LIB: an HDF5 of its own in $sites/NAME/include and LIB; its header tells its name
site() {
	local d=$sites/$1 soname
	mkdir -p "$d/include" "$d/$2"
	ln -s "$headers"/*.h "$d/include/"
	rm "$d/include/hdf5.h"
	printf '#define SITE "%s"\n#include "%s/hdf5.h"\n' "$1" "$headers" >"$d/include/hdf5.h"
	soname=$(readelf -d "$library" | sed -nE 's/.*SONAME.*\[(.*)\]/\1/p')
	cp "$library" "$d/$2/$soname"
	ln -s "$soname" "$d/$2/libhdf5.so"
}

parallel_site() { # NAME: the same, but made for MPI
	site "$1" lib
	rm "$sites/$1/include/H5pubconf.h"
	printf '#include "%s/H5pubconf.h"\n#define H5_HAVE_PARALLEL 1\n' "$headers" >"$sites/$1/include/H5pubconf.h"
}

standin_tree() {
	local d
	mkdir -p "$tree"/{common/base,common/io,tools,kernels/cuda,tests/emu,tests/gpu,tests/kernels}
	cd "$tree"
	cp "$ROOT/Makefile" .
	for d in tests/deps.sh tests/emu/build.mk tests/gpu/gpu.mk kernels/cuda/build.mk; do cp "$ROOT/$d" "$d"; done
	ln -s "$ROOT"/common/base/*.h common/base/
	ln -s "$ROOT"/common/io/{h5.c,h5.h,h5_mem.c,h5_mem.h,openfile.h,pio.h,vectype.h} common/io/
	echo 'typedef int nothing;' | tee kernels/none.c kernels/cuda/none.cu >kernels/cuda/host.c
	echo 'int main(void) { return 0; }' | tee tests/kernels/ops.c >tests/emu/selftest.cc
	cat >common/base/some.c <<-'C'
		#include "common/base/arena.h"
		#include "common/base/err.h"
		#include "common/io/openfile.h"
		#include "common/io/pio.h"
		#include "common/io/vectype.h"
		#include <unistd.h>
		int lwm_memory_room(size_t n, const char *what, struct lwm_err *e) { (void)n; (void)what; (void)e; return 0; }
		int lwm_openfile_room(const char *path, struct lwm_err *e) { (void)path; (void)e; return 0; }
		void lwm_err_clear(struct lwm_err *e) { (void)e; }
		void lwm_bug(const char *file, int line, const char *what) { (void)file; (void)line; (void)what; _exit(70); }
		int lwm_fail(struct lwm_err *e, int code, const char *fmt, ...) { (void)e; (void)fmt; return -code; }
		int lwm_fail_errno(struct lwm_err *e, int code, int err, const char *fmt, ...) { (void)e; (void)err; (void)fmt; return -code; }
		int lwm_fail_memory(struct lwm_err *e, const char *what) { (void)e; (void)what; return -LWM_EMEMORY; }
		int lwm_pwrite_all(int fd, const void *p, int64_t n, int64_t at, const char *path, struct lwm_err *e)
		{
			(void)path; (void)e;
			return pwrite(fd, p, (size_t)n, at) == n ? 0 : -1;
		}
		int lwm_vtype_bytes(enum lwm_vtype t) { return t == LWM_V_TEXT ? 1 : 4; }
	C
	cat >tools/lwm-open.c <<-'C'
		#include <dlfcn.h>
		#include <fcntl.h>
		#include <hdf5.h>
		#include <stdio.h>
		#include "common/io/h5.h"
		#ifndef SITE
		#define SITE "own"
		#endif
		int main(int argc, char **argv)
		{
			struct lwm_err e = { 0 };
			struct lwm_vec v = { .name = "v", .type = LWM_V_U32, .n = 3 };
			int64_t at = 0, bytes = 0;
			char *schema = NULL;
			Dl_info lib;
			int fd = argc == 2 ? open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0666) : -1;
			if (fd < 0 || lwm_h5_create(fd, argv[1], "it-works", &v, 1, &at, &bytes, &e) < 0 || ftruncate(fd, bytes) ||
			    lwm_h5_schema(argv[1], &schema, &e) < 0 || !dladdr((void *)(size_t)H5open, &lib))
				return 1;
			printf("%s header %s library %s\n", schema, SITE, lib.dli_fname);
			return 0;
		}
	C
	sed -i '1i #include <unistd.h>' tools/lwm-open.c
}

# Everything in PATH but what finds HDF5, MPI and packages: each test adds what it is about.
bare_path() {
	local p
	mkdir "$bare"
	find -L /usr/bin /bin -maxdepth 1 -type f -executable -print0 2>/dev/null | xargs -0 ln -st "$bare" 2>/dev/null || true
	rm -f "$bare"/{h5cc,h5pcc,mpicc,apt-get,sudo,dpkg-query}
	mkdir "$BATS_FILE_TMPDIR/pc"
	for p in libavformat libavcodec libavfilter libavutil libswscale yaml-0.1 sentencepiece jansson libxxhash cairo libzstd zlib cmocka ompi-c; do
		printf 'Name: %s\nDescription: not needed here\nVersion: 1\n' "$p" >"$BATS_FILE_TMPDIR/pc/$p.pc"
	done
}

setup_file() {
	local headers='' library=''
	export sites=$BATS_FILE_TMPDIR/sites tree=$BATS_FILE_TMPDIR/tree bare=$BATS_FILE_TMPDIR/bare
	real_hdf5 || { echo 'this machine has no shared libhdf5'; return 1; }
	site plain lib
	site wide lib64
	parallel_site parallel
	standin_tree
	bare_path
}

setup() {
	cd "$tree"
	unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES CPATH LIBRARY_PATH LD_LIBRARY_PATH PKG_CONFIG_PATH MPICC
	unset HDF5_DIR HDF5_ROOT HDF5_HOME CC CXX CFLAGS LDFLAGS V DEPS_KNOWN SAN B CUDA
	export PKG_CONFIG_LIBDIR=$BATS_FILE_TMPDIR/pc BIN=$BATS_TEST_TMPDIR
	export PATH=$BATS_TEST_TMPDIR/path:$bare
	mkdir "$BATS_TEST_TMPDIR/path"
	made="B=$BATS_TEST_TMPDIR/b BIN=$BATS_TEST_TMPDIR/bin CUDA=0"
}

# uses SITE LIB [VARIABLE=...]: with these variables the program is compiled and linked with that site's HDF5
uses() {
	local site=$1 lib=$2
	shift 2
	ok env "$@" make $made "$BATS_TEST_TMPDIR/bin/lwm-open"
	has 'CC common/io/h5.c'
	has "LD $BATS_TEST_TMPDIR/bin/lwm-open"
	ok "$BATS_TEST_TMPDIR/bin/lwm-open" "$BATS_TEST_TMPDIR/file.h5"
	has "it-works header $site library $sites/$site/$lib/libhdf5"
}

pc_file() { # NAME SITE LIB
	mkdir -p "$BATS_TEST_TMPDIR/pc"
	printf 'Name: %s\nDescription: x\nVersion: 1\nCflags: -I%s/include\nLibs: -L%s/%s -lhdf5\n' "$1" "$sites/$2" "$sites/$2" "$3" \
		>"$BATS_TEST_TMPDIR/pc/$1.pc"
	export PKG_CONFIG_PATH=$BATS_TEST_TMPDIR/pc
}

h5cc_shows() { # WORDS: a serial compiler wrapper
	printf '#!/bin/bash\n[ "$1" = -show ] && echo %q\n' "gcc -O2 -fPIC $*" >"$BATS_TEST_TMPDIR/path/h5cc"
	chmod +x "$BATS_TEST_TMPDIR/path/h5cc"
}

@test "HDF5 in HDF5_DIR, HDF5_ROOT or HDF5_HOME, from the environment or make's command line" {
	uses plain lib HDF5_DIR="$sites/plain"
	uses wide lib64 HDF5_ROOT="$sites/wide" # other flags: built again, without being asked
	uses plain lib HDF5_HOME="$sites/plain"
	ok make $made HDF5_DIR="$sites/wide" "$BATS_TEST_TMPDIR/bin/lwm-open"
	ok "$BATS_TEST_TMPDIR/bin/lwm-open" "$BATS_TEST_TMPDIR/file.h5"
	has 'header wide'
	ok make $made HDF5_DIR="$sites/wide" "$BATS_TEST_TMPDIR/bin/lwm-open"
	lacks CC
}

@test "HDF5 by pkg-config: hdf5-serial, hdf5" {
	pc_file hdf5 wide lib64
	uses wide lib64 A=
	pc_file hdf5-serial plain lib
	uses plain lib A=
	uses wide lib64 HDF5_DIR="$sites/wide" # a folder that is named comes first
}

@test "HDF5 by h5cc" {
	h5cc_shows "-I$sites/plain/include -L$sites/plain/lib $sites/plain/lib/libhdf5_hl.a $sites/plain/lib/libhdf5.a -lz -ldl -lm"
	uses plain lib A=
	h5cc_shows "-I$sites/wide/include $sites/wide/lib64/libhdf5.so -Wl,-rpath -Wl,$sites/wide/lib64"
	uses wide lib64 A=
}

@test "HDF5 where the compiler looks" {
	export LD_LIBRARY_PATH=$sites/plain/lib
	uses plain lib CPATH="$sites/plain/include" LIBRARY_PATH="$sites/plain/lib"
}

@test "a parallel HDF5 is passed over, and said to be" {
	pc_file hdf5 plain lib
	ok env HDF5_DIR="$sites/parallel" make $made config
	has "HDF5: taken from pkg-config hdf5; passed over HDF5_DIR=$sites/parallel (a parallel HDF5)"
	uses plain lib HDF5_DIR="$sites/parallel"
	pc_file hdf5 parallel lib
	h5cc_shows "-I$sites/parallel/include -L$sites/parallel/lib -lhdf5"
	code 2 make $made
	err_has "pkg-config hdf5 (a parallel HDF5)"
	err_has "$BATS_TEST_TMPDIR/path/h5cc) (a parallel HDF5)"
	err_has 'there is a parallel HDF5'
	err_has 'not usable here'
	rm "$BATS_TEST_TMPDIR/path/h5cc" "$BATS_TEST_TMPDIR/pc/hdf5.pc"
	ln -s /bin/true "$BATS_TEST_TMPDIR/path/h5pcc" # not asked for anything
	code 2 make $made
	err_has "there is a parallel HDF5 ($BATS_TEST_TMPDIR/path/h5pcc)"
}

@test "nothing there: one message says what was looked for, where, and what to set" {
	mkdir "$BATS_TEST_TMPDIR/empty"
	PKG_CONFIG_LIBDIR=$BATS_TEST_TMPDIR/empty
	code 2 env HDF5_ROOT="$BATS_TEST_TMPDIR/empty" make $made
	err_has 'not found: HDF5'
	err_has "HDF5_ROOT=$BATS_TEST_TMPDIR/empty (no include/hdf5.h"
	err_has 'pkg-config hdf5-serial; pkg-config hdf5; h5cc in PATH (none)'
	err_has 'set HDF5_DIR to the folder that holds include/hdf5.h'
	err_has 'mpicc (not in PATH); pkg-config ompi-c'
	err_has 'make MPICC=/path/to/mpicc'
	err_has 'this is not Debian or Ubuntu'
	err_lacks 'apt-get'
	[ "$(grep -c 'not found: HDF5' <<<"$stderr")" = 1 ]
}

@test "other libraries: a folder in a variable" {
	mkdir -p "$BATS_TEST_TMPDIR/z/include/zlib" "$BATS_TEST_TMPDIR/z/lib"
	echo '#define NOTHING 1' >"$BATS_TEST_TMPDIR/z/include/zstd.h"
	ok make $made ZSTD_DIR="$BATS_TEST_TMPDIR/z" config # no library in it
	lacks "zstd: ZSTD_DIR"
	echo 'int nothing;' | gcc -shared -fPIC -x c - -o "$BATS_TEST_TMPDIR/z/lib/libzstd.so"
	ok make $made ZSTD_DIR="$BATS_TEST_TMPDIR/z" config
	has "zstd: ZSTD_DIR=$BATS_TEST_TMPDIR/z"
	ok make -n $made ZSTD_DIR="$BATS_TEST_TMPDIR/z" "$BATS_TEST_TMPDIR/bin/lwm-open"
	has "-L$BATS_TEST_TMPDIR/z/lib -lzstd -Wl,-rpath,$BATS_TEST_TMPDIR/z/lib"
}

@test "MPI by its wrapper: Open MPI's words, MPICH's, another name" {
	printf '#!/bin/bash\ncase $1 in --showme:compile) echo -I/open/include -pthread;; --showme:link) echo -L/open/lib -lmpi;; *) exit 1;; esac\n' \
		>"$BATS_TEST_TMPDIR/path/mpicc"
	printf '#!/bin/bash\n[ "$1" = -show ] && echo gcc -m64 -I/mpich/include -L/mpich/lib -Xlinker -rpath -Xlinker /mpich/lib -lmpi\n' \
		>"$BATS_TEST_TMPDIR/mine"
	chmod +x "$BATS_TEST_TMPDIR/path/mpicc" "$BATS_TEST_TMPDIR/mine"
	ok make $made config
	grep -qx 'MPI_CFLAGS := -isystem /open/include -pthread' "$BATS_TEST_TMPDIR/b/deps.mk"
	grep -qx 'MPI_LIBS := -pthread -L/open/lib -lmpi' "$BATS_TEST_TMPDIR/b/deps.mk"
	ok make $made config MPICC="$BATS_TEST_TMPDIR/mine"
	grep -qx 'MPI_CFLAGS := -isystem /mpich/include' "$BATS_TEST_TMPDIR/b/deps.mk"
	grep -qx 'MPI_LIBS := -L/mpich/lib -Xlinker -rpath -Xlinker /mpich/lib -lmpi' "$BATS_TEST_TMPDIR/b/deps.mk"
}

@test "compilers behind a wrapper, as in CC='ccache gcc'" {
	local wrapped=$BATS_TEST_TMPDIR/wrapped
	printf '#!/bin/bash\necho "$1" >>%q\nexec "$@"\n' "$wrapped" >"$BATS_TEST_TMPDIR/path/wrap"
	printf '#!/bin/bash\n[ "$1" = -show ] && echo gcc -I/mpich/include -L/mpich/lib -lmpi\n' >"$BATS_TEST_TMPDIR/path/mine"
	printf '#!/bin/bash\necho "nvcc $*" >>%q\n' "$wrapped" >"$BATS_TEST_TMPDIR/path/nvcc"
	chmod +x "$BATS_TEST_TMPDIR"/path/*
	uses plain lib HDF5_DIR="$sites/plain" CC='wrap gcc' CXX='wrap g++ -m64' MPICC='wrap mine' # its links are tried with CC
	ok make $made HDF5_DIR="$sites/plain" CC='wrap gcc' CXX='wrap g++ -m64' MPICC='wrap mine' config
	has 'MPI: wrap mine'
	grep -qx 'MPI_LIBS := -L/mpich/lib -lmpi' "$BATS_TEST_TMPDIR/b/deps.mk"
	grep -qx 'DEPS_MISSING := ' "$BATS_TEST_TMPDIR/b/deps.mk"
	for word in gcc g++ mine; do grep -qx "$word" "$wrapped"; done
	make B="$BATS_TEST_TMPDIR/b" LIB="$BATS_TEST_TMPDIR/lib" CUDA_DIR="$BATS_TEST_TMPDIR/cuda" CUDA=1 CXX='wrap g++ -m64' cuda || true
	grep -q 'nvcc .* -ccbin g++ --Werror' "$wrapped"
	code 2 make $made CC='wrap no-such-gcc'
	err_has 'not found: compilers'
	err_has 'wrap no-such-gcc, g++ in PATH'
}

@test "all cores, unless somebody says -j" {
	printf '#!/bin/bash\necho 7\n' >"$BATS_TEST_TMPDIR/path/nproc"
	chmod +x "$BATS_TEST_TMPDIR/path/nproc"
	printf 'outer:\n\t@echo "outer: $(MAKEFLAGS)"; $(MAKE) --no-print-directory -f Makefile -f %s inner\ninner:\n\t@echo "inner: $(MAKEFLAGS)"\n' \
		"$BATS_TEST_TMPDIR/show.mk" >"$BATS_TEST_TMPDIR/show.mk"
	show() { # JOBS make-arguments...
		local want=$1 n
		shift
		ok "$@" $made -f Makefile -f "$BATS_TEST_TMPDIR/show.mk" outer
		[ -z "$stderr" ]
		for n in outer inner; do
			grep -qE "^$n:.* -j$want( |$)" <<<"$output" || { echo "$output"; return 1; }
		done
	}
	show 7 make
	show 3 make -j3
	show 1 make -j1
	show 5 env MAKEFLAGS=-j5 make
}

@test "a line for each file; V=1 shows the commands" {
	ok make $made HDF5_DIR="$sites/plain" "$BATS_TEST_TMPDIR/b/liblwm.a"
	[ "$(sort <<<"$output")" = "$(printf '%s\n' "AR $BATS_TEST_TMPDIR/b/liblwm.a" 'CC common/base/some.c' 'CC common/io/h5.c' 'CC common/io/h5_mem.c')" ]
	rm "$BATS_TEST_TMPDIR"/b/{common/io/h5.o,liblwm.a}
	ok make $made V=1 HDF5_DIR="$sites/plain" "$BATS_TEST_TMPDIR/b/liblwm.a"
	has "-isystem $sites/plain/include"
	has "-c -o $BATS_TEST_TMPDIR/b/common/io/h5.o common/io/h5.c"
	lacks 'CC common'
	printf '#!/bin/bash\nwhile [ $# -gt 1 ]; do [ "$1" != -o ] || touch "$2"; shift; done\n' >"$BATS_TEST_TMPDIR/path/nvcc"
	chmod +x "$BATS_TEST_TMPDIR/path/nvcc"
	ok make B="$BATS_TEST_TMPDIR/b" BIN="$BATS_TEST_TMPDIR/bin" LIB="$BATS_TEST_TMPDIR/lib" CUDA_DIR="$BATS_TEST_TMPDIR/cuda" CUDA=1 cuda
	has 'NVCC kernels/cuda/none.cu'
	has 'CC kernels/cuda/host.c'
	has "LD $BATS_TEST_TMPDIR/lib/liblwm_cuda.so"
	ok make $made emu
	has 'CXX kernels/cuda/none.cu (emulated)'
	has 'CXX tests/emu/selftest.cc'
	has "LD $BATS_TEST_TMPDIR/b/emu/liblwm_cuda.so"
}
