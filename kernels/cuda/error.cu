/* error.cu - errors of CUDA as sentences, in dev->err.
 *
 * An error that leaves the GPU's context unusable comes back from every later call; the op at which it was first seen is kept and
 * named each time. */
#include <stdarg.h>
#include <stdio.h>

#include "kernels/cuda/cuda_int.h"

int lk_cuda_fail(struct lk_dev *dev, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(dev->err, sizeof dev->err, fmt, ap);
	va_end(ap);
	return code;
}

/* Errors that leave the GPU's context unusable: every later call returns them again. */
static bool is_sticky(cudaError_t rc)
{
	switch (rc) {
	case cudaErrorIllegalAddress:
	case cudaErrorMisalignedAddress:
	case cudaErrorIllegalInstruction:
	case cudaErrorInvalidAddressSpace:
	case cudaErrorInvalidPc:
	case cudaErrorHardwareStackError:
	case cudaErrorLaunchFailure:
	case cudaErrorLaunchTimeout:
	case cudaErrorAssert:
	case cudaErrorECCUncorrectable:
		return true;
	default:
		return false;
	}
}

int lk_cuda_check(struct lk_dev *dev, const char *op, cudaError_t rc)
{
	struct lk_cuda *cu = lk_cu(dev);

	if (rc == cudaSuccess)
		return 0;
	cudaGetLastError(); // a plain error is reported once, here
	if (rc == cudaErrorMemoryAllocation)
		return lk_cuda_fail(dev, LK_ENOMEM, "%s: GPU %d is out of memory", op, cu->index);
	if (is_sticky(rc) && !cu->fault)
		cu->fault = op;
	if (cu->fault)
		return lk_cuda_fail(dev, LK_EDEVICE,
				    "%s: GPU %d cannot go on: %s, seen first at %s, caused there or before "
				    "(LWM_CUDA_SYNC=1 finds the op)",
				    op, cu->index, cudaGetErrorString(rc), cu->fault);
	return lk_cuda_fail(dev, LK_EDEVICE, "%s: GPU %d: %s", op, cu->index, cudaGetErrorString(rc));
}

int lk_launched(struct lk_dev *dev, const char *op)
{
	cudaError_t rc = cudaGetLastError();

	if (rc == cudaSuccess && lk_cu(dev)->wait_each)
		rc = cudaStreamSynchronize(lk_cu(dev)->stream);
	return lk_cuda_check(dev, op, rc);
}
