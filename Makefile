# LWM: see README.md.  make | make deps | make demo | make test | make check | make bench | make install
# Variables: CC CXX CFLAGS LDFLAGS MPICC NVCC CUDA=auto|0|1 SAN=address,undefined PREFIX DESTDIR
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

# The kernels choose OpenBLAS's core type by the processor; a site-wide setting for other programs would only slow them down.
unexport OPENBLAS_CORETYPE

# ---- packages (Debian and Ubuntu names) ----
DEPS := gcc g++ make pkg-config libopenmpi-dev openmpi-bin libhdf5-dev hdf5-tools ffmpeg libavformat-dev libavcodec-dev \
	libavfilter-dev libavutil-dev libswscale-dev libyaml-dev libsentencepiece-dev libopenblas-openmp-dev \
	libjansson-dev libxxhash-dev librandom123-dev libcairo2-dev libzstd-dev zlib1g-dev fonts-dejavu-core
DEPS_TEST := libcmocka-dev bats shellcheck cppcheck procps zstd sentencepiece slurm-wlm munge

PKGS := hdf5-serial libavformat libavcodec libavfilter libavutil libswscale yaml-0.1 sentencepiece jansson libxxhash \
	cairo libzstd zlib
pkg = $(shell pkg-config $(1) $(2) 2>/dev/null)
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

MPI_CFLAGS := $(call pkg,--cflags,ompi-c)
MPI_LIBS   := $(call pkg,--libs,ompi-c)
PKG_CFLAGS := $(patsubst -I%,-isystem %,$(call pkg,--cflags,$(PKGS)))
PKG_LIBS   := $(call pkg,--libs,$(PKGS))
LIBS = $(PKG_LIBS) -lstdc++ -ldl -lm

# ---- sources: found, never listed ----
LIBSRC   := $(filter-out common/dist/comm_mpi.c,$(wildcard common/*/*.c))
LIBCXX   := $(wildcard common/*/*.cc)
KSRC     := $(filter-out %.hot.c,$(wildcard kernels/*.c kernels/ref/*.c kernels/cpu/*.c))
KHOT     := $(wildcard kernels/cpu/*.hot.c)
TOOLS    := $(patsubst tools/%.c,%,$(wildcard tools/*.c))
UNITS    := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/*.c))
BENCHES  := $(patsubst tests/bench/%.c,%,$(wildcard tests/bench/*.c))
FUZZERS  := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c))
# programs that talk to other ranks through MPI; everything else must start without it
MPI_TOOLS := lwm-train-stage lwm-eval-needle
MPI_UNITS := mpi_%

KOBJ := $(KSRC:%.c=$B/%.o) $(foreach i,$(ISAS),$(KHOT:%.hot.c=$B/%.$i.o))
LOBJ := $(LIBSRC:%.c=$B/%.o) $(LIBCXX:%.cc=$B/%.o)

# ---- goals ----
.PHONY: all deps deps-test have-deps have-deps-test demo test check bench install clean config FORCE
all: have-deps
	@$(MAKE) --no-print-directory build
.PHONY: build
build: $(TOOLS:%=$(BIN)/%) $(BIN)/lwm-kernel-ops cuda

config:
	@echo "CC=$(CC) SAN=$(SAN) CUDA=$(CUDA) NVCC=$(NVCC) ISAS=$(ISAS) PREFIX=$(PREFIX)"

# Probed with pkg-config and headers, so that a site with its own modules needs no apt.
have-deps:
	@bash tests/deps.sh "$(PKGS)" "ompi-c" "Random123/philox.h libopenblas.so.0" || $(MAKE) --no-print-directory deps
have-deps-test: have-deps
	@bash tests/deps.sh "cmocka" "" "" bats shellcheck cppcheck pgrep zstd || $(MAKE) --no-print-directory deps-test
deps:
	@bash tests/deps.sh --install $(DEPS)
deps-test:
	@bash tests/deps.sh --install $(DEPS) $(DEPS_TEST)

# ---- objects ----
# changed flags rebuild everything
$B/flags: FORCE
	@mkdir -p $B; echo '$(CC) $(CFLAGS_ALL) $(KFLAGS) $(CXXFLAGS_ALL) $(PKG_CFLAGS) $(ISAS)' | cmp -s - $@ || \
		echo '$(CC) $(CFLAGS_ALL) $(KFLAGS) $(CXXFLAGS_ALL) $(PKG_CFLAGS) $(ISAS)' > $@
$B/common/dist/comm_mpi.o: common/dist/comm_mpi.c $B/flags
	@mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $(patsubst -I%,-isystem %,$(MPI_CFLAGS)) -MMD -MP -c -o $@ $<
$B/kernels/%.o: kernels/%.c $B/flags
	@mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $(KFLAGS) -MMD -MP -c -o $@ $<
define hot_rule
$B/kernels/%.$(1).o: kernels/%.hot.c $B/flags
	@mkdir -p $$(@D); $$(CC) $$(CFLAGS_ALL) $$(KFLAGS) $$(ISA_$(1)) -DLK_ISA=$(1) -MMD -MP -c -o $$@ $$<
endef
$(foreach i,$(ISAS),$(eval $(call hot_rule,$i)))
$B/%.o: %.c $B/flags
	@mkdir -p $(@D); $(CC) $(CFLAGS_ALL) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<
$B/%.o: %.cc $B/flags
	@mkdir -p $(@D); $(CXX) $(CXXFLAGS_ALL) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<
$B/liblwm.a: $(LOBJ)
	@rm -f $@; ar rcs $@ $^
$B/liblk.a: $(KOBJ)
	@rm -f $@; ar rcs $@ $^
$B/libcommmpi.a: $B/common/dist/comm_mpi.o
	@rm -f $@; ar rcs $@ $^

# ---- programs ----
link = @mkdir -p $(@D); $(CC) $(OPT) -fopenmp -pthread -o $@ $(filter %.o,$^) $(1) $(LDFLAGS) -Wl,--as-needed
$(MPI_TOOLS:%=$(BIN)/%): $(BIN)/%: $B/tools/%.o $B/liblwm.a $B/liblk.a $B/libcommmpi.a
	$(call link,$B/libcommmpi.a $B/liblwm.a $B/liblk.a) $(LIBS) $(MPI_LIBS)
$(BIN)/lwm-%: $B/tools/lwm-%.o $B/liblwm.a $B/liblk.a
	$(call link,$B/liblwm.a $B/liblk.a) $(LIBS)
$B/tests/unit/mpi_%: $B/tests/unit/mpi_%.o $B/liblwm.a $B/liblk.a $B/libcommmpi.a
	$(call link,$B/libcommmpi.a $B/liblwm.a $B/liblk.a) $(LIBS) $(MPI_LIBS) -lcmocka
$B/tests/unit/%: $B/tests/unit/%.o $B/liblwm.a $B/liblk.a
	$(call link,$B/liblwm.a $B/liblk.a) $(LIBS) -lcmocka
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
-include kernels/cuda/build.mk
-include tests/gpu/gpu.mk
# the same kernels on the CPU, for the tests
include tests/emu/build.mk

# ---- use ----
test: have-deps-test
	@$(MAKE) --no-print-directory build emu $(UNITS:%=$B/tests/unit/%) $(FUZZERS:%=$B/tests/fuzz/%) \
		$(if $(SAN),,$(BENCHES:%=$B/tests/bench/%) $(GPU_BENCH) $(GPU_LARGE))
	@SAN=$(SAN) B=$(B) BIN=$(abspath $(BIN)) bash tests/run.sh
check: have-deps-test
	@bash tests/check.sh
demo: all
	@$(BIN)/lwm-run pipelines/demo.yaml
bench: all
	@$(MAKE) --no-print-directory $(BENCHES:%=$B/tests/bench/%)
	@B=$(B) BIN=$(abspath $(BIN)) bash tests/bench/run.sh
install: all
	@bash tests/install.sh "$(DESTDIR)" "$(PREFIX)" "$(BIN)" "$(LIB)"
clean:
	rm -rf build bin lib
