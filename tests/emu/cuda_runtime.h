/* cuda_runtime.h - as much of CUDA's as kernels/cuda uses, on the CPU. See README.md.
 *
 * Names and meanings are CUDA's. Add what a kernel needs and is missing here; keep to what the CUDA guide says and let
 * what it calls undefined end the program with a sentence. */
#ifndef EMU_CUDA_RUNTIME_H
#define EMU_CUDA_RUNTIME_H

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>

#include "emu.h"

#define CUDART_VERSION 13000

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __constant__ static
/* each host thread has its own: what spoil_shared fills before each block */
#define __shared__ static thread_local

#define threadIdx (emu::self()->tid)
#define blockIdx (emu::self()->blk->bid)
#define blockDim (emu::self()->blk->dim)
#define gridDim (emu::self()->blk->grid)

/* ---- launching ---- */

#define LK_LAUNCH(kernel, grid, block, smem, stream, ...) \
	emu::launch_typed(#kernel, __FILE__, __LINE__, kernel, grid, block, smem, stream, ##__VA_ARGS__)
#define LK_SMEM(type, name) type *name = reinterpret_cast<type *>(emu::self()->blk->smem)

namespace emu
{

template <class... P, class... A>
void launch_typed(const char *name, const char *file, int line, void (*kernel)(P...), dim3 grid, dim3 block, size_t smem,
		  emu_stream *stream, A &&...a)
{
	std::tuple<P...> args{ static_cast<P>(a)... };
	launch l = { name, file, line, reinterpret_cast<const void *>(kernel), grid, block, smem, stream };

	launch_kernel(l, [kernel, args] { std::apply(kernel, args); });
}

} // namespace emu

#include "cuda_api.h"
#include "cuda_device.h"

static const int warpSize = 32;

#endif
