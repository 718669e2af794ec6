/* emu_api.cc - CUDA's host calls: GPUs, memory, queues. */
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>

#include "cuda_runtime.h"
#include "emu_int.h"

/* A queue. Any host thread may run what lies in it, in order; `turn` is held meanwhile. */
struct emu_stream {
	int gpu;
	std::mutex guard; /* of todo, queued */
	std::recursive_mutex turn;
	std::deque<std::function<void()>> todo;
	uint64_t queued = 0;
	std::atomic<uint64_t> done{ 0 };
};

struct emu_event {
	int gpu;
	emu_stream *stream = nullptr; /* NULL: never recorded */
	uint64_t at = 0;
	std::chrono::steady_clock::time_point time;
};

namespace emu
{

static std::mutex list_lock;
static std::vector<emu_stream *> streams;
static std::map<const void *, int> smem_of; /* cudaFuncAttributeMaxDynamicSharedMemorySize */

static int gpus()
{
	int n = setting("LWM_EMU_GPUS", 2);

	return n < 0 ? 0 : n > MAX_GPUS ? static_cast<int>(MAX_GPUS) : n;
}

static int capability()
{
	return setting("LWM_EMU_CC", 80);
}

static int smem_max()
{
	return capability() >= 90 ? 232448 : 166912;
}

static cudaError_t ret(cudaError_t rc)
{
	if (rc != cudaSuccess)
		state_of_host().last_error = rc;
	return rc;
}

static bool lives(const emu_stream *s)
{
	std::lock_guard<std::mutex> hold(list_lock);

	return std::find(streams.begin(), streams.end(), s) != streams.end();
}

/* Runs what was queued up to number `until`. */
static void run_stream(emu_stream *s, uint64_t until)
{
	if (s->done >= until)
		return;
	std::lock_guard<std::recursive_mutex> hold(s->turn);
	while (s->done < until) {
		std::function<void()> work;
		{
			std::lock_guard<std::mutex> g(s->guard);

			work = std::move(s->todo.front());
			s->todo.pop_front();
		}
		work();
		s->done++;
	}
}

static cudaError_t queue(emu_stream *s, std::function<void()> work)
{
	uint64_t n;

	if (!s) {
		fprintf(stderr, "emu: work on the default stream, which waits for no other\n");
		abort();
	}
	if (!lives(s))
		return ret(cudaErrorInvalidResourceHandle);
	{
		std::lock_guard<std::mutex> g(s->guard);

		s->todo.push_back(std::move(work));
		n = ++s->queued;
	}
	if (order() == 0)
		run_stream(s, n);
	return cudaSuccess;
}

static void run_gpu(int gpu)
{
	std::vector<emu_stream *> all;
	{
		std::lock_guard<std::mutex> hold(list_lock);

		all = streams;
	}
	for (size_t i = 0; i < all.size(); i++) {
		emu_stream *s = all[order() > 1 ? all.size() - 1 - i : i];

		if (s->gpu == gpu)
			run_stream(s, s->queued);
	}
}

cudaError_t queue_work(cudaStream_t s, const char *what, std::function<void()> work)
{
	if (s && s->gpu != state_of_host().gpu)
		return ret(cudaErrorInvalidResourceHandle);
	return queue(s, [s, what, work] {
		launch l = { what, "", 0, nullptr, dim3(), dim3(), 0, s };

		open_memory(s->gpu);
		work();
		close_memory(s->gpu, &l);
	});
}

static cudaError_t launch_error(const launch &l)
{
	uint64_t threads = static_cast<uint64_t>(l.dim.x) * l.dim.y * l.dim.z;
	size_t allowed = 48 << 10;

	if (!l.grid.x || !l.grid.y || !l.grid.z || !threads || threads > 1024 || l.dim.z > 64)
		return cudaErrorInvalidConfiguration;
	if (l.grid.x > 0x7fffffffu || l.grid.y > 65535 || l.grid.z > 65535)
		return cudaErrorInvalidConfiguration;
	{
		std::lock_guard<std::mutex> hold(list_lock);
		auto it = smem_of.find(l.fn);

		if (it != smem_of.end() && static_cast<size_t>(it->second) > allowed)
			allowed = static_cast<size_t>(it->second);
	}
	if (l.smem > allowed)
		return cudaErrorInvalidValue;
	if (l.stream && l.stream->gpu != state_of_host().gpu)
		return cudaErrorInvalidResourceHandle;
	return cudaSuccess;
}

void launch_kernel(const launch &l, std::function<void()> body)
{
	cudaError_t rc = launch_error(l);

	if (rc != cudaSuccess) {
		fprintf(stderr, "emu: %s:%d: kernel %s cannot be launched: grid (%u,%u,%u), block (%u,%u,%u), %zu bytes of "
			"shared memory: %s\n", l.file, l.line, l.kernel, l.grid.x, l.grid.y, l.grid.z, l.dim.x, l.dim.y,
			l.dim.z, l.smem, cudaGetErrorString(rc));
		ret(rc);
		return;
	}
	queue(l.stream, [l, body] {
		open_memory(l.stream->gpu);
		run_kernel(l, body);
		close_memory(l.stream->gpu, &l);
	});
}

cudaError_t set_function_smem(const void *fn, int bytes)
{
	if (bytes < 0 || bytes > smem_max())
		return ret(cudaErrorInvalidValue);
	std::lock_guard<std::mutex> hold(list_lock);
	smem_of[fn] = bytes;
	return cudaSuccess;
}

cudaError_t function_attributes(cudaFuncAttributes *a, const void *fn)
{
	*a = cudaFuncAttributes();
	a->maxThreadsPerBlock = 1024;
	a->numRegs = 64;
	a->binaryVersion = capability();
	std::lock_guard<std::mutex> hold(list_lock);
	auto it = smem_of.find(fn);
	a->maxDynamicSharedSizeBytes = it == smem_of.end() ? 48 << 10 : it->second;
	return cudaSuccess;
}

} // namespace emu

using namespace emu;

/* ---- errors, GPUs ---- */

cudaError_t cudaGetLastError()
{
	int rc = state_of_host().last_error;

	state_of_host().last_error = 0;
	return static_cast<cudaError_t>(rc);
}

cudaError_t cudaPeekAtLastError()
{
	return static_cast<cudaError_t>(state_of_host().last_error);
}

const char *cudaGetErrorString(cudaError_t rc)
{
	switch (rc) {
	case cudaSuccess: return "no error";
	case cudaErrorInvalidValue: return "invalid argument";
	case cudaErrorMemoryAllocation: return "out of memory";
	case cudaErrorInvalidConfiguration: return "invalid configuration argument";
	case cudaErrorNoDevice: return "no CUDA-capable device is detected";
	case cudaErrorInvalidDevice: return "invalid device ordinal";
	case cudaErrorNoKernelImageForDevice: return "no kernel image is available for execution on the device";
	case cudaErrorInvalidResourceHandle: return "invalid resource handle";
	case cudaErrorNotReady: return "device not ready";
	default: return "unknown error";
	}
}

const char *cudaGetErrorName(cudaError_t rc)
{
	return cudaGetErrorString(rc);
}

cudaError_t cudaGetDeviceCount(int *count)
{
	*count = gpus();
	return ret(*count ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int gpu)
{
	if (gpu < 0 || gpu >= gpus())
		return ret(cudaErrorInvalidDevice);
	state_of_host().gpu = gpu;
	return cudaSuccess;
}

cudaError_t cudaGetDevice(int *gpu)
{
	*gpu = state_of_host().gpu;
	return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int gpu)
{
	size_t free_bytes;

	if (gpu < 0 || gpu >= gpus())
		return ret(cudaErrorInvalidDevice);
	*p = cudaDeviceProp();
	snprintf(p->name, sizeof p->name, "emulated GPU");
	snprintf(p->uuid.bytes, sizeof p->uuid.bytes, "emulated %d", gpu);
	device_memory(gpu, &free_bytes, &p->totalGlobalMem);
	p->sharedMemPerBlock = 48 << 10;
	p->sharedMemPerBlockOptin = static_cast<size_t>(smem_max());
	p->sharedMemPerMultiprocessor = p->sharedMemPerBlockOptin + 1024;
	p->major = capability() / 10;
	p->minor = capability() % 10;
	p->multiProcessorCount = setting("LWM_EMU_SMS", 4);
	p->warpSize = 32;
	p->maxThreadsPerBlock = 1024;
	p->l2CacheSize = 40 << 20;
	return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attr, int gpu)
{
	cudaDeviceProp p;
	cudaError_t rc = cudaGetDeviceProperties(&p, gpu);

	if (rc != cudaSuccess)
		return rc;
	switch (attr) {
	case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
	case cudaDevAttrClockRate: *value = 1000000; break;
	case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
	case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
	case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
	case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(p.sharedMemPerBlockOptin); break;
	default: return ret(cudaErrorInvalidValue);
	}
	return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
	*version = CUDART_VERSION;
	return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
	return cudaDriverGetVersion(version);
}

cudaError_t cudaDeviceSynchronize()
{
	run_gpu(state_of_host().gpu);
	return cudaSuccess;
}

/* ---- memory ---- */

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
	device_memory(state_of_host().gpu, free_bytes, total);
	return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
	*p = bytes ? device_alloc(state_of_host().gpu, bytes) : nullptr;
	return ret(*p || !bytes ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void *p)
{
	int gpu = p ? device_of(p) : -1;

	if (!p)
		return cudaSuccess;
	if (gpu >= 0)
		run_gpu(gpu);
	return ret(device_free(p) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
	*p = host_alloc(bytes);
	return ret(*p ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
	return cudaHostAlloc(p, bytes, 0);
}

cudaError_t cudaFreeHost(void *p)
{
	for (int i = 0; i < gpus() && p; i++)
		run_gpu(i);
	return ret(!p || host_free(p) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *a, const void *p)
{
	int gpu = device_of(p);

	*a = cudaPointerAttributes();
	a->type = gpu >= 0 ? cudaMemoryTypeDevice : host_pinned(p) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
	a->device = gpu;
	return cudaSuccess;
}

namespace emu
{

struct block2d {
	void *dst;
	const void *src;
	size_t dpitch, spitch, width, height;
};

static bool copy_allowed(const block2d &c, cudaMemcpyKind kind)
{
	bool to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
	bool from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;

	if (c.width > c.dpitch || c.width > c.spitch)
		return false;
	if (to ? !device_holds(c.dst, c.dpitch * (c.height - 1) + c.width) : device_of(c.dst) >= 0)
		return false;
	return from ? device_holds(c.src, c.spitch * (c.height - 1) + c.width) : device_of(c.src) < 0;
}

static void copy_now(const block2d &c)
{
	int gpus[2] = { device_of(c.dst), device_of(c.src) };

	for (int g : gpus)
		if (g >= 0)
			open_memory(g);
	for (size_t i = 0; i < c.height; i++)
		memcpy(static_cast<char *>(c.dst) + i * c.dpitch, static_cast<const char *>(c.src) + i * c.spitch, c.width);
	for (int g : gpus)
		if (g >= 0)
			close_memory(g, nullptr);
}

static cudaMemcpyKind known_kind(const void *dst, const void *src, cudaMemcpyKind kind)
{
	if (kind != cudaMemcpyDefault)
		return kind;
	if (device_of(dst) >= 0)
		return device_of(src) >= 0 ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice;
	return device_of(src) >= 0 ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
}

/* A copy from or to pageable memory is over when the call returns, one with pinned memory is not. */
static cudaError_t queue_copy(const block2d &c, cudaMemcpyKind kind, emu_stream *s)
{
	const void *host = kind == cudaMemcpyHostToDevice ? c.src : kind == cudaMemcpyDeviceToHost ? c.dst : nullptr;
	cudaError_t rc;

	if (!c.width || !c.height)
		return cudaSuccess;
	if (!copy_allowed(c, kind))
		return ret(cudaErrorInvalidValue);
	rc = queue(s, [c] { copy_now(c); });
	if (rc == cudaSuccess && host && !host_pinned(host))
		run_stream(s, s->queued);
	return rc;
}

} // namespace emu

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t s)
{
	return queue_copy({ dst, src, bytes, bytes, bytes, 1 }, known_kind(dst, src, kind), s);
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dpitch, const void *src, size_t spitch, size_t width, size_t height,
			      cudaMemcpyKind kind, cudaStream_t s)
{
	return queue_copy({ dst, src, dpitch, spitch, width, height }, known_kind(dst, src, kind), s);
}

/* On the default stream, which does not wait for streams made with cudaStreamNonBlocking. */
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
	block2d c = { dst, src, bytes, bytes, bytes, 1 };

	if (!bytes)
		return cudaSuccess;
	if (!copy_allowed(c, known_kind(dst, src, kind)))
		return ret(cudaErrorInvalidValue);
	copy_now(c);
	return cudaSuccess;
}

static void set_now(void *p, int value, size_t bytes)
{
	int gpu = device_of(p);

	open_memory(gpu);
	memset(p, value, bytes);
	close_memory(gpu, nullptr);
}

cudaError_t cudaMemset(void *p, int value, size_t bytes)
{
	if (bytes && !device_holds(p, bytes))
		return ret(cudaErrorInvalidValue);
	if (bytes)
		set_now(p, value, bytes);
	return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
	if (bytes && !device_holds(p, bytes))
		return ret(cudaErrorInvalidValue);
	return bytes ? queue(s, [=] { set_now(p, value, bytes); }) : cudaSuccess;
}

/* ---- streams and events ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
	*s = new emu_stream();
	(*s)->gpu = state_of_host().gpu;
	std::lock_guard<std::mutex> hold(list_lock);
	streams.push_back(*s);
	return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *s)
{
	return cudaStreamCreateWithFlags(s, 0);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int)
{
	return cudaStreamCreateWithFlags(s, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
	*least = 0;
	*greatest = -5;
	return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
	if (!lives(s))
		return ret(cudaErrorInvalidResourceHandle);
	run_stream(s, s->queued);
	return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
	return cudaStreamSynchronize(s);
}

/* The struct stays: events may point to it. */
cudaError_t cudaStreamDestroy(cudaStream_t s)
{
	cudaError_t rc = cudaStreamSynchronize(s);
	std::lock_guard<std::mutex> hold(list_lock);

	if (rc == cudaSuccess)
		streams.erase(std::find(streams.begin(), streams.end(), s));
	return rc;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
	*e = new emu_event();
	(*e)->gpu = state_of_host().gpu;
	return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *e)
{
	return cudaEventCreateWithFlags(e, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
	if (!e)
		return ret(cudaErrorInvalidResourceHandle);
	delete e;
	return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
	if (!e || !lives(s) || e->gpu != s->gpu)
		return ret(cudaErrorInvalidResourceHandle);
	e->stream = s;
	e->at = s->queued;
	e->time = std::chrono::steady_clock::now();
	return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
	if (!e)
		return ret(cudaErrorInvalidResourceHandle);
	emu_stream *of = e->stream;
	uint64_t at = e->at;
	if (!of)
		return cudaSuccess;
	return queue(s, [of, at] { run_stream(of, at); });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t s, void (*fn)(void *), void *arg)
{
	return queue(s, [=] { fn(arg); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
	if (!e)
		return ret(cudaErrorInvalidResourceHandle);
	if (e->stream)
		run_stream(e->stream, e->at);
	return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
	return cudaEventSynchronize(e);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
	*ms = std::chrono::duration<float, std::milli>(to->time - from->time).count();
	return cudaSuccess;
}
