# tests/emu: the kernels of kernels/cuda as a library for the CPU, built with g++ alone. Included by the Makefile.
# It runs where it is built, so it may use every instruction of this processor: one product more or less per clock is what
# decides how long the tests take.
EMU_SO  := $B/emu/liblwm_cuda.so
EMU_CU  := $(filter-out $(if $(wildcard tests/emu/ptx90_emu.h),,kernels/cuda/attn_sm90_fwd.cu kernels/cuda/attn_sm90_bwd.cu),$(wildcard kernels/cuda/*.cu))
EMU_C   := $(wildcard kernels/cuda/*.c)
EMU_CC  := $(filter-out tests/emu/selftest.cc,$(wildcard tests/emu/*.cc))
EMU_OBJ := $(EMU_CU:kernels/cuda/%.cu=$B/emu/%.o) $(EMU_C:kernels/cuda/%.c=$B/emu/%.c.o) $(EMU_CC:tests/emu/%.cc=$B/emu/%.o)
EMU_FLAGS = -std=c++17 -Wall -Werror -Wno-unknown-pragmas -Wno-unused-function -Wno-format-truncation -Wno-maybe-uninitialized -Wno-psabi $(OPT) \
	-march=native -fno-math-errno -fstack-clash-protection -DLK_EMU -fPIC -fvisibility=hidden -pthread -Itests/emu -I. $(CXXFLAGS)

.PHONY: emu
# the thread sanitizer knows nothing of fibers
emu: $(if $(findstring thread,$(SAN)),,$(EMU_SO) $B/emu/selftest)
$B/emu/flags: FORCE
	@mkdir -p $(@D); echo '$(CXX) $(CC) $(EMU_FLAGS)' | cmp -s - $@ || echo '$(CXX) $(CC) $(EMU_FLAGS)' > $@
$B/emu/%.o: kernels/cuda/%.cu $B/emu/flags
	$(call say,CXX,$< (emulated))mkdir -p $(@D); $(CXX) -x c++ $(EMU_FLAGS) -MMD -MP -c -o $@ $<
$B/emu/%.o: tests/emu/%.cc $B/emu/flags
	$(call say,CXX,$<)mkdir -p $(@D); $(CXX) $(EMU_FLAGS) -MMD -MP -c -o $@ $<
$B/emu/%.c.o: kernels/cuda/%.c $B/emu/flags
	$(call say,CC,$<)mkdir -p $(@D); $(CC) -std=c11 $(WARN) $(OPT) $(DEF) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<
$(EMU_SO): $(EMU_OBJ)
	$(call say,LD,$@)$(CXX) $(OPT) -shared -pthread -o $@ $^ -ldl -lm
$B/emu/selftest: $B/emu/selftest.o $(EMU_CC:tests/emu/%.cc=$B/emu/%.o)
	$(call say,LD,$@)$(CXX) $(OPT) -pthread -o $@ $^ -ldl -lm
