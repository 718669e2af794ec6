# kernels/cuda: liblwm_cuda.so, built when nvcc is found. Included by the Makefile.
#
#	CUDA=auto   build it when nvcc is found (the default); CUDA=0: do not; CUDA=1: nvcc must be there
#	CUDA_ARCH   chips to build for, default "80 90a 100"; the last one's PTX serves later chips
#
# Objects do not depend on SAN: they lie in build/cuda, those for other lists of chips in folders of their own. Files named
# *_sm90_* use what only Hopper has and are built for it alone; nothing in them is called on another chip. X.ptxas holds what
# the compiler says of registers and spills of X.cu; make cuda-table makes kernels/cuda/resources.txt of it.
NVCC_FOUND := $(if $(filter 0,$(CUDA)),,$(NVCC))
CUDA_ARCH  ?= 80 90a 100
blank      := $(subst ,, )
CUDA_DIR   := build/cuda$(if $(filter-out 80-90a-100,$(subst $(blank),-,$(CUDA_ARCH))),-$(subst $(blank),-,$(CUDA_ARCH)))
CUDA_ROOT  := $(patsubst %/bin/nvcc,%,$(realpath $(NVCC_FOUND)))
CUDA_SRC   := $(wildcard kernels/cuda/*.cu)
CUDA_HOSTC := $(wildcard kernels/cuda/*.c)
CUDA_OBJ   := $(CUDA_SRC:kernels/cuda/%.cu=$(CUDA_DIR)/%.o) $(CUDA_HOSTC:kernels/cuda/%.c=$(CUDA_DIR)/%.c.o)
CUDA_SO    := $(LIB)/liblwm_cuda.so

sass = -gencode arch=compute_$(1),code=sm_$(1)
CUDA_GEN   := $(foreach a,$(CUDA_ARCH),$(call sass,$a)) $(if $(filter %a,$(lastword $(CUDA_ARCH))),,-gencode \
	arch=compute_$(lastword $(CUDA_ARCH)),code=compute_$(lastword $(CUDA_ARCH)))
CUDA_GEN_90 := $(call sass,90a)
NVCCFLAGS  ?=
# -ccbin takes the compiler alone, without a wrapper such as ccache before it and flags after it
NVCC_ALL   = $(NVCC_FOUND) -std=c++17 -O3 -lineinfo -I. -ccbin $(lastword $(filter-out -%,$(CXX))) --Werror all-warnings \
	-Xcompiler -Wall,-Wextra,-Wno-format-truncation,-fPIC,-fvisibility=hidden -Xptxas -v $(NVCCFLAGS)

ifneq ($(NVCC_FOUND),)
cuda: $(CUDA_SO)
else ifeq ($(CUDA),1)
cuda:
	@echo "CUDA=1, but nvcc was not found: put it into PATH or set NVCC=/path/to/nvcc." >&2; exit 1
else ifeq ($(CUDA),0)
cuda:
else
cuda:
	@echo "No nvcc: built without the cuda backend (NVCC=/path/to/nvcc, or CUDA=0 for silence)."
endif

.PHONY: cuda-table
cuda-table: cuda
	@bash tests/gpu/resources.sh --write
$(CUDA_DIR)/flags: FORCE
	@mkdir -p $(@D); echo '$(NVCC_ALL) $(CUDA_GEN)' | cmp -s - $@ || echo '$(NVCC_ALL) $(CUDA_GEN)' > $@
$(CUDA_DIR)/%.o: kernels/cuda/%.cu $(CUDA_DIR)/flags
	$(call say,NVCC,$<)mkdir -p $(@D); $(NVCC_ALL) $(if $(findstring _sm90_,$<),$(CUDA_GEN_90),$(CUDA_GEN)) -MMD -MP -MF $(@:.o=.d) \
		-MT $@ -c -o $@ $< 2>$(@:.o=.ptxas) || { grep -vE '^ptxas info|bytes stack frame' $(@:.o=.ptxas); rm -f $@; exit 1; } >&2
$(CUDA_DIR)/%.c.o: kernels/cuda/%.c $(CUDA_DIR)/flags
	$(call say,CC,$<)mkdir -p $(@D); $(CC) -std=c11 $(WARN) -O2 -g $(DEF) -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<
$(CUDA_SO): $(CUDA_OBJ)
	$(call say,LD,$@)mkdir -p $(@D); $(NVCC_FOUND) -shared -ccbin $(lastword $(filter-out -%,$(CXX))) -cudart static -o $@ $^ -lcublasLt -ldl \
		-Xlinker -rpath,$(CUDA_ROOT)/lib64,--exclude-libs,ALL,--no-undefined
