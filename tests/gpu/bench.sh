#!/usr/bin/env bash
# What the kernels and models reach on a GPU; `make bench-cuda` calls it with B, the build folder. Needs CUDA alone; python3 with
# torch, where it is there, measures its attention beside ours.
#
#	PARTS=attention,decode make bench-cuda      only these parts
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 70
export LC_ALL=C
: "${B:=$PWD/build/rel}"
export LWM_CUDA_LIB=${LWM_CUDA_LIB:-${LIB:-$PWD/lib}/liblwm_cuda.so}
bench=$B/tests/bench/cuda/bench_gpu
bad=0
only=(${PARTS:+--only "$PARTS"})

echo "# commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown)," \
	"$(nvidia-smi --query-gpu=name,driver_version,power.limit,clocks.max.sm --format=csv,noheader 2>/dev/null | head -1)"
out=$("$bench" cuda:0 --probe 2>&1)
rc=$?
case $out in skipped:*)
	printf '%s\n' "$out"
	# a backend that was built but does not load is a failure
	[ "$rc" = 0 ] || [ ! -e "$LWM_CUDA_LIB" ]
	exit
	;;
esac
"$bench" cuda:0 "${only[@]}" --json build/bench_gpu.json || bad=1
if [ -z "${PARTS:-}" ]; then
	echo "# attention by mma.sync, on the same chip"
	LWM_CUDA_ATTN=mma "$bench" cuda:0 --only attention --json build/bench_gpu_mma.json || bad=1
fi
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
	timeout 120 python3 tests/bench/cuda/torch_attention.py || bad=1
else
	echo "# no python3 with torch that sees a GPU: nothing to compare with"
fi
exit "$bad"
