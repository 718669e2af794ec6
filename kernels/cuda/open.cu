/* open.cu - opens a GPU: what the library exports, and why a GPU cannot be used. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cuda/cuda_int.h"

/* Is there code for this chip in the library? Asked with the smallest of kernels. */
static __global__ void probe(void)
{
}

static bool env_is_1(const char *name)
{
	const char *s = getenv(name);

	return s && strcmp(s, "1") == 0;
}

/* dev->impl with a stream of its own on GPU `index`, which is the current one. */
static int make_impl(struct lk_dev *dev, int index, const cudaDeviceProp *prop)
{
	struct lk_cuda *cu = static_cast<struct lk_cuda *>(calloc(1, sizeof *cu));
	cudaError_t rc;

	if (!cu)
		return lk_cuda_fail(dev, LK_ENOMEM, "out of memory");
	dev->impl = cu;
	cu->index = index;
	cu->cc = prop->major * 10 + prop->minor;
	cu->sms = prop->multiProcessorCount;
	cu->smem_max = static_cast<int>(prop->sharedMemPerBlockOptin);
	cu->fast = env_is_1("LWM_CUDA_FAST");
	cu->wait_each = env_is_1("LWM_CUDA_SYNC");
	rc = cudaStreamCreateWithFlags(&cu->stream, cudaStreamNonBlocking);
	if (rc == cudaSuccess)
		rc = cudaHostAlloc(&cu->pinned, LK_PINNED_BYTES, cudaHostAllocDefault);
	return lk_cuda_check(dev, "open", rc);
}

static void cuda_close(struct lk_dev *dev)
{
	struct lk_cuda *cu = lk_cu(dev);

	if (!cu)
		return;
	cudaSetDevice(cu->index);
	if (cu->stream)
		cudaStreamSynchronize(cu->stream);
	lk_cuda_close_matmul(dev);
	lk_cuda_close_attn(dev);
	lk_cuda_close_mem(dev);
	cudaFree(cu->scratch);
	if (cu->pinned)
		cudaFreeHost(cu->pinned);
	if (cu->stream)
		cudaStreamDestroy(cu->stream);
	free(cu);
	dev->impl = NULL;
}

static int cuda_fork(struct lk_dev *child, struct lk_dev *parent)
{
	const struct lk_cuda *from = lk_cu(parent);
	cudaDeviceProp prop;
	cudaError_t err = cudaSetDevice(from->index);
	int rc;

	if (err == cudaSuccess)
		err = cudaGetDeviceProperties(&prop, from->index);
	if (err != cudaSuccess)
		return lk_cuda_fail(child, LK_EDEVICE, "fork: GPU %d: %s", from->index, cudaGetErrorString(err));
	rc = make_impl(child, from->index, &prop);
	if (rc)
		cuda_close(child);
	return rc;
}

/* How many GPUs there are; 0 with a sentence when none can be used. */
static int count_gpus(char *why, size_t n)
{
	int count = 0, driver = 0;
	cudaError_t rc = cudaGetDeviceCount(&count);

	if (rc == cudaSuccess && count > 0)
		return count;
	cudaGetLastError();
	if (rc == cudaSuccess || rc == cudaErrorNoDevice)
		snprintf(why, n, "the cuda backend sees no GPU (CUDA_VISIBLE_DEVICES may hide it)");
	else if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
		snprintf(why, n, "the cuda backend finds no NVIDIA driver on this machine");
	else if (rc == cudaErrorInsufficientDriver)
		snprintf(why, n, "the NVIDIA driver supports CUDA %d.%d at most, the cuda backend was built with %d.%d",
			 driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
	else
		snprintf(why, n, "the cuda backend cannot reach a GPU: %s", cudaGetErrorString(rc));
	return 0;
}

/* 0, or a status with the reason why this GPU cannot be used. It is the current one afterwards. */
static int examine_gpu(int index, int count, cudaDeviceProp *prop, char *why, size_t n)
{
	cudaFuncAttributes attr;
	cudaError_t rc;

	if (index >= count) {
		snprintf(why, n, "there is no cuda:%d: %d GPU%s visible here, counted from 0", index, count,
			 count == 1 ? " is" : "s are");
		return LK_EDEVICE;
	}
	rc = cudaSetDevice(index);
	if (rc == cudaSuccess)
		rc = cudaGetDeviceProperties(prop, index);
	if (rc != cudaSuccess) {
		snprintf(why, n, "GPU %d cannot be used: %s", index, cudaGetErrorString(rc));
		return LK_EDEVICE;
	}
	if (prop->major < 8) {
		snprintf(why, n, "GPU %d (%.64s) has compute capability %d.%d; 8.0 (Ampere) or later is needed", index,
			 prop->name, prop->major, prop->minor);
		return LK_EDEVICE;
	}
	rc = cudaFuncGetAttributes(&attr, probe);
	if (rc != cudaSuccess) {
		snprintf(why, n, "liblwm_cuda.so has no code for GPU %d (%.64s, compute capability %d.%d): %s", index,
			 prop->name, prop->major, prop->minor, cudaGetErrorString(rc));
		return LK_EDEVICE;
	}
	return 0;
}

static void fill_ops(struct lk_ops *o)
{
	memset(o, 0, sizeof *o);
	o->device.close = cuda_close;
	o->device.fork = cuda_fork;
	lk_cuda_fill_mem(o);
	lk_cuda_fill_matmul(o);
	lk_cuda_fill_vector(o);
	lk_cuda_fill_norm(o);
	lk_cuda_fill_rope(o);
	lk_cuda_fill_swiglu(o);
	lk_cuda_fill_embed(o);
	lk_cuda_fill_loss(o);
	lk_cuda_fill_attn(o);
	lk_cuda_fill_attn_state(o);
	lk_cuda_fill_kv(o);
	lk_cuda_fill_draw(o);
	lk_cuda_fill_conv(o);
	lk_cuda_fill_groupnorm(o);
	lk_cuda_fill_code(o);
	lk_cuda_fill_pixels(o);
	lk_cuda_fill_feature(o);
	lk_cuda_fill_group(o);
}

static void name_device(struct lk_dev *dev, int index, const cudaDeviceProp *prop)
{
	int driver = 0;

	cudaDriverGetVersion(&driver);
	snprintf(dev->name, sizeof dev->name, "cuda:%d (%.40s, %.0f GiB, driver for CUDA %d.%d)", index, prop->name,
		 static_cast<double>(prop->totalGlobalMem) / (1 << 30), driver / 1000, driver % 1000 / 10);
}

extern "C" __attribute__((visibility("default"))) int lk_cuda_count(char *why, size_t n)
{
	int count = count_gpus(why, n);

	return count ? count : LK_EDEVICE;
}

extern "C" __attribute__((visibility("default"))) int lk_cuda_open(struct lk_dev *dev, int layout, int index, char *why,
								   size_t n)
{
	cudaDeviceProp prop;
	int count, rc;

	if (layout != LK_LAYOUT) {
		snprintf(why, n, "liblwm_cuda.so is of another build (interface %d.%d, the program has %d.%d)", LK_LAYOUT >> 16,
			 LK_LAYOUT & 0xffff, layout >> 16, layout & 0xffff);
		return LK_EUNSUP;
	}
	count = count_gpus(why, n);
	if (!count)
		return LK_EDEVICE;
	rc = examine_gpu(index, count, &prop, why, n);
	if (rc)
		return rc;
	fill_ops(&dev->ops);
	dev->dtype = LK_BF16;
	dev->threads = 1;
	dev->is_host = 0;
	name_device(dev, index, &prop);
	rc = make_impl(dev, index, &prop);
	if (rc) {
		snprintf(why, n, "%s", dev->err);
		cuda_close(dev);
	}
	return rc;
}
