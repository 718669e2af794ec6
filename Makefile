# LWM: see README.md.  make | make deps | make demo | make test | make test-faults | make check | make bench | make install
# Variables: CC CXX CFLAGS LDFLAGS MPICC NVCC CUDA=auto|0|1 SAN=address,undefined PREFIX DESTDIR V=1 (shows whole commands)
# and where libraries are: HDF5_DIR and the like, see tests/deps.sh
.DEFAULT_GOAL := all
SHELL := /bin/bash

CC     ?= gcc
CXX    ?= g++
PREFIX ?= /usr/local
CUDA   ?= auto
SAN    ?=
comma  := ,
config := $(if $(SAN),san-$(subst $(comma),-,$(SAN)),rel)
B      := build/$(config)
BIN    := $(if $(SAN),$(B)/bin,bin)
LIB    := $(if $(SAN),$(B)/lib,lib)

# All cores, unless somebody said -j, here or above. What is said on the command line stands over this line.
ifeq ($(filter -j% --jobs% --jobserver%,$(MAKEFLAGS) $(shell echo "$$MAKEFLAGS")),)
MAKEFLAGS += -j$(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
endif
# What is being made: one short line each, or with V=1 the command itself.
say = $(if $(filter 1,$(V)),,@echo "$(1) $(2)"; )

# The kernels choose OpenBLAS's core type by the processor; a site-wide setting for other programs would only slow them down.
unexport OPENBLAS_CORETYPE

# ---- packages (Debian and Ubuntu names) ----
DEPS := gcc g++ make pkg-config libopenmpi-dev openmpi-bin libhdf5-dev hdf5-tools ffmpeg libavformat-dev libavcodec-dev \
	libavfilter-dev libavutil-dev libswscale-dev libyaml-dev libsentencepiece-dev libopenblas-openmp-dev \
	libjansson-dev libxxhash-dev librandom123-dev libcairo2-dev libzstd-dev zlib1g-dev fonts-dejavu-core
DEPS_TEST := libcmocka-dev bats shellcheck cppcheck procps zstd sentencepiece slurm-wlm munge

# tests/deps.sh looks for the libraries and says which flags they need; asked once for a make and those it starts.
DEPS_AT := $(foreach l,HDF5 FFMPEG LIBYAML SENTENCEPIECE JANSSON XXHASH CAIRO ZSTD ZLIB RANDOM123 CMOCKA,$(l)_DIR $(l)_ROOT $(l)_HOME)
ifeq ($(DEPS_KNOWN),)
$(shell $(foreach v,CC CXX MPICC $(DEPS_AT),$(if $($v),$v='$($v)')) bash tests/deps.sh --find $B/deps.mk)
endif
-include $B/deps.mk
ARCH := $(shell uname -m)

# ---- flags ----
WARN  := -Wall -Wextra -Wpedantic -Wmissing-prototypes -Wstrict-prototypes -Wvla -Wshadow -Wwrite-strings \
	-Wpointer-arith -Werror
OPT   := $(if $(SAN),-O1 -g -fno-omit-frame-pointer -fsanitize=$(SAN),-O2 -g)
DEF   := -D_GNU_SOURCE -I.
CFLAGS_ALL   = -std=c11 $(WARN) $(OPT) $(DEF) -fopenmp -pthread $(CFLAGS)
CXXFLAGS_ALL = -std=c++17 -Wall -Wextra $(OPT) $(DEF) -pthread $(CXXFLAGS)
# arithmetic: NaN must survive, so no -ffast-math
KFLAGS := $(if $(SAN),,-O3) -fno-math-errno -fno-trapping-math -ffp-contract=fast
ifeq ($(ARCH),x86_64)
ISAS := base avx2 avx512
else
ISAS := base
endif
ISA_base   :=
ISA_avx2   := -mavx2 -mfma -mf16c -mtune=haswell
ISA_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mprefer-vector-width=512 -mtune=skylake-avx512

LIBS = $(PKG_LIBS) -lstdc++ -ldl -lm

# ---- sources: found, never listed ----
LIBSRC   := $(filter-out common/comm/comm_mpi.c,$(wildcard common/*/*.c common/*/*/*.c))
LIBCXX   := $(wildcard common/*/*.cc)
# a folder of kernels/ with a build.mk is a shared object of its own, opened at run time
KSO      := $(wildcard kernels/*/build.mk)
KSRC     := $(filter-out %.hot.c $(KSO:build.mk=%),$(wildcard kernels/*.c kernels/*/*.c))
KHOT     := $(filter-out $(KSO:build.mk=%),$(wildcard kernels/*/*.hot.c))
TOOLS    := $(patsubst tools/%.c,%,$(wildcard tools/*.c))
UNITS    := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/*.c))
BENCHES  := $(patsubst tests/bench/%.c,%,$(wildcard tests/bench/*.c))
FUZZERS  := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c))
# programs that talk to other ranks through MPI; everything else must start without it
MPI_TOOLS := $(patsubst tools/%.c,%,$(shell grep -lsw lwm_comm_mpi tools/*.c))
MPI_UNITS := mpi_%
# those that tests/faults/night.sh counts
NIGHT_UNITS = $(shell sed -n 's/^\t\t[TN][0-9]*|.*|\(test_[a-z_]*\)$$/\1/p' tests/faults/night.sh)

KOBJ := $(KSRC:%.c=$B/%.o) $(foreach i,$(ISAS),$(KHOT:%.hot.c=$B/%.$i.o))
LOBJ := $(LIBSRC:%.c=$B/%.o) $(LIBCXX:%.cc=$B/%.o)

# ---- goals ----
.PHONY: all deps deps-test have-deps found-deps have-deps-test demo test test-faults check bench bench-1m plans install clean config FORCE
again = --no-print-directory $(if $(DEPS_MISSING),,DEPS_KNOWN=1)
all: have-deps
	@$(MAKE) $(again) build
.PHONY: build
build: $(TOOLS:%=$(BIN)/%) $(BIN)/lwm-kernel-ops cuda

config:
	@echo "CC=$(CC) SAN=$(SAN) CUDA=$(CUDA) NVCC=$(NVCC) ISAS=$(ISAS) PREFIX=$(PREFIX)"
	@sed -n 's/^# \(.*: \)/\1/p' $B/deps.mk; cat $B/deps.mk.txt

# What is missing is installed where that can be done, and looked for again. Else: where it was looked for, what to set.
have-deps:
ifeq ($(DEPS_MISSING),)
	@cat $B/deps.mk.txt >&2
else
	@echo "deps: missing: $(DEPS_MISSING)" >&2
	@$(MAKE) --no-print-directory deps || { cat $B/deps.mk.txt >&2; exit 1; }
	@$(MAKE) --no-print-directory found-deps
endif
found-deps:
	@$(if $(DEPS_MISSING),cat $B/deps.mk.txt >&2; exit 1)
have-deps-test: have-deps
	@$(if $(DEPS_TEST_MISSING),false,bash tests/deps.sh --need bats shellcheck cppcheck pgrep zstd) || $(MAKE) --no-print-directory deps-test
deps:
	@bash tests/deps.sh --install $(DEPS)
deps-test:
	@bash tests/deps.sh --install $(DEPS) $(DEPS_TEST)

# ---- objects ----
# changed flags rebuild everything
FLAGS = $(CC) $(CFLAGS_ALL) $(KFLAGS) $(CXXFLAGS_ALL) $(PKG_CFLAGS) $(MPI_CFLAGS) $(TEST_CFLAGS) $(LIBS) $(MPI_LIBS) $(LDFLAGS) $(ISAS)
$B/flags: FORCE
	@mkdir -p $B; echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' > $@
$B/common/comm/comm_mpi.o: common/comm/comm_mpi.c $B/flags
	$(call say,CC,$<)mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $(MPI_CFLAGS) -MMD -MP -c -o $@ $<
$B/kernels/%.o: kernels/%.c $B/flags
	$(call say,CC,$<)mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $(KFLAGS) -MMD -MP -c -o $@ $<
define hot_rule
$B/kernels/%.$(1).o: kernels/%.hot.c $B/flags
	$$(call say,CC,$$< ($(1)))mkdir -p $$(@D); $$(CC) $$(CFLAGS_ALL) $$(KFLAGS) $$(ISA_$(1)) -DLK_ISA=$(1) -MMD -MP -c -o $$@ $$<
endef
$(foreach i,$(ISAS),$(eval $(call hot_rule,$i)))
$B/%.o: %.c $B/flags
	$(call say,CC,$<)mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $(PKG_CFLAGS) $(if $(filter tests/%,$<),$(TEST_CFLAGS)) -MMD -MP -c -o $@ $<
$B/%.o: %.cc $B/flags
	$(call say,CXX,$<)mkdir -p $(@D); $(CXX) $(CXXFLAGS_ALL) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<
archive = $(call say,AR,$@)rm -f $@; ar rcs $@ $^
$B/liblwm.a: $(LOBJ)
	$(archive)
$B/liblk.a: $(KOBJ)
	$(archive)
$B/libcommmpi.a: $B/common/comm/comm_mpi.o
	$(archive)

# ---- programs ----
link = $(call say,LD,$@)mkdir -p $(@D); $(CC) $(OPT) -fopenmp -pthread -o $@ $(filter %.o,$^) $(1) $(LDFLAGS) -Wl,--as-needed
$(MPI_TOOLS:%=$(BIN)/%): $(BIN)/%: $B/tools/%.o $B/liblwm.a $B/liblk.a $B/libcommmpi.a
	$(call link,$B/libcommmpi.a $B/liblwm.a $B/liblk.a) $(LIBS) $(MPI_LIBS)
$(BIN)/lwm-%: $B/tools/lwm-%.o $B/liblwm.a $B/liblk.a
	$(call link,$B/liblwm.a $B/liblk.a) $(LIBS)
$B/tests/unit/mpi_%: $B/tests/unit/mpi_%.o $B/liblwm.a $B/liblk.a $B/libcommmpi.a
	$(call link,$B/libcommmpi.a $B/liblwm.a $B/liblk.a) $(LIBS) $(MPI_LIBS) $(TEST_LIBS)
$B/tests/unit/%: $B/tests/unit/%.o $B/liblwm.a $B/liblk.a
	$(call link,$B/liblwm.a $B/liblk.a) $(LIBS) $(TEST_LIBS)
$B/tests/bench/mpi_%: $B/tests/bench/mpi_%.o $B/liblwm.a $B/liblk.a $B/libcommmpi.a
	$(call link,$B/libcommmpi.a $B/liblwm.a $B/liblk.a) $(LIBS) $(MPI_LIBS)
$B/tests/bench/%: $B/tests/bench/%.o $B/liblwm.a $B/liblk.a
	$(call link,$B/liblwm.a $B/liblk.a) $(LIBS)
$B/tests/fuzz/%: $B/tests/fuzz/%.o $B/liblwm.a $B/liblk.a
	$(call link,$B/liblwm.a $B/liblk.a) $(LIBS)
# the ops harness needs libc and the kernels alone
$(BIN)/lwm-kernel-ops: $(patsubst %.c,$B/%.o,$(wildcard tests/kernels/*.c)) $B/liblk.a
	$(call link,$B/liblk.a) -ldl -lm

.SECONDARY:
-include $(shell find build -name '*.d' 2>/dev/null)

# ---- cuda: a shared object, built when nvcc is found ----
NVCC ?= $(shell command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
.PHONY: cuda
include $(KSO)
-include tests/gpu/gpu.mk
# the same kernels on the CPU, for the tests
include tests/emu/build.mk

# ---- use ----
test: have-deps-test
	@$(MAKE) $(again) build emu $(UNITS:%=$B/tests/unit/%) $(FUZZERS:%=$B/tests/fuzz/%) \
		$(if $(SAN),,$(BENCHES:%=$B/tests/bench/%) $(GPU_BENCH) $(GPU_LARGE))
	@SAN=$(SAN) B=$(B) BIN=$(abspath $(BIN)) bash tests/run.sh
# the promises of tests/faults/README.md, counted; some minutes
test-faults: have-deps-test
	@$(MAKE) $(again) build $(NIGHT_UNITS:%=$B/tests/unit/%)
	@B=$(B) BIN=$(abspath $(BIN)) bash tests/faults/night.sh
check: have-deps-test
	@$(MAKE) $(again) build; bash tests/check.sh
demo: all
	@$(BIN)/lwm-run pipelines/demo.yaml
plans: all
	@BIN=$(abspath $(BIN)) bash pipelines/table.sh

bench: all
	@$(MAKE) $(again) $(BENCHES:%=$B/tests/bench/%)
	@B=$(B) BIN=$(abspath $(BIN)) bash tests/bench/run.sh
# a million tokens in one row: half an hour on two cores, 17 GiB
bench-1m: all
	@BIN=$(abspath $(BIN)) bash tests/bench/bench_1m.sh
install: all
	@bash tests/install.sh "$(DESTDIR)" "$(PREFIX)" "$(BIN)" "$(LIB)"
clean:
	rm -rf build bin lib
