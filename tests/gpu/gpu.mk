# What runs on a machine with a GPU and nothing else of ours: no MPI, HDF5, YAML, FFmpeg, jansson. Included by the Makefile.
#
#	make test-cuda     the kernels on the GPU against ref, both attention paths, large shapes, compute-sanitizer
#	make bench-cuda    what they reach, as fractions of ceilings of the same run; JSON in build/bench_gpu.json
#
# Both say "skipped: reason" and succeed where there is no GPU.
CORE_SRC := $(filter-out common/base/hash.c common/base/json.c common/base/rng.c common/comm/comm_mpi.c %_json.c common/infer/load%.c,$(wildcard \
	common/base/*.c common/tensor/*.c common/comm/*.c common/model/*.c common/infer/*.c))
GPU_BENCH := $B/tests/bench/cuda/bench_gpu
GPU_LARGE := $B/tests/gpu/large

# the models without what needs other libraries; the linker takes what it is asked for
$B/liblwmcore.a: $(CORE_SRC:%.c=$B/%.o)
	$(archive)
$(GPU_BENCH): $(patsubst %.c,$B/%.o,$(wildcard tests/bench/cuda/*.c)) $B/liblwmcore.a $B/liblk.a
	$(call link,$B/liblwmcore.a $B/liblk.a) -ldl -lm
$(GPU_LARGE): $B/tests/gpu/large.o $B/tests/gpu/large_attn.o $B/tests/bench/cuda/frame.o $B/liblk.a
	$(call link,$B/liblk.a) -ldl -lm

.PHONY: test-cuda bench-cuda
test-cuda:
	@$(MAKE) --no-print-directory DEPS_KNOWN=1 $(BIN)/lwm-kernel-ops $(GPU_LARGE) cuda
	@B=$(abspath $B) BIN=$(abspath $(BIN)) LIB=$(abspath $(LIB)) bash tests/gpu/run.sh
bench-cuda:
	@$(MAKE) --no-print-directory DEPS_KNOWN=1 $(GPU_BENCH) cuda
	@B=$(abspath $B) LIB=$(abspath $(LIB)) bash tests/gpu/bench.sh
