/* selftest.cc - does the emulator compute what a GPU would, and does it notice what it promises to notice?
 *
 * Each case runs in a process of its own, with its own LWM_EMU_ORDER; it returns 0 when all was right, or is expected to
 * die with a sentence on standard error. */
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "kernels/cuda/ptx.h"

static const int N = 128;

static cudaStream_t stream;

/* ---- helpers ---- */

static float *device_floats(int n)
{
	void *p = nullptr;

	return cudaMalloc(&p, static_cast<size_t>(n) * 4) == cudaSuccess ? static_cast<float *>(p) : nullptr;
}

static std::vector<float> fetch(const float *p, int n)
{
	std::vector<float> host(static_cast<size_t>(n));

	cudaMemcpyAsync(host.data(), p, static_cast<size_t>(n) * 4, cudaMemcpyDeviceToHost, stream);
	cudaStreamSynchronize(stream);
	return host;
}

/* 0 when element i is want(i) for all of them */
template <class F> static int differs(const float *p, int n, F want)
{
	std::vector<float> got = fetch(p, n);

	for (int i = 0; i < n; i++)
		if (got[static_cast<size_t>(i)] != static_cast<float>(want(i)))
			return 1;
	return 0;
}

/* ---- kernels that are right ---- */

static __global__ void reduce(float *out)
{
	__shared__ float part[32];
	float x = static_cast<float>(threadIdx.x + 1);

	x = lk_warp_sum(x);
	if (threadIdx.x % 32 == 0)
		part[threadIdx.x / 32] = x;
	__syncthreads();
	x = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0;
	if (threadIdx.x < 32)
		x = lk_warp_sum(x);
	if (threadIdx.x == 0)
		out[blockIdx.x] = x + static_cast<float>(blockIdx.x);
}

static int case_reduce()
{
	float *out = device_floats(7);

	LK_LAUNCH(reduce, 7, 1024, 0, stream, out);
	return differs(out, 7, [](int i) { return 1024 * 1025 / 2 + i; });
}

static __global__ void shuffles(float *out)
{
	int lane = static_cast<int>(threadIdx.x);
	int up = __shfl_up_sync(0xffffffffu, lane, 3), down = __shfl_down_sync(0xffffffffu, lane, 5, 8);
	int at = __shfl_sync(0xffffffffu, lane, 2, 16), votes = __popc(__ballot_sync(0xffffffffu, lane % 3 == 0));
	int half = lane < 16 ? __shfl_xor_sync(0x0000ffffu, lane, 8) : __shfl_xor_sync(0xffff0000u, lane, 4);

	out[lane] = static_cast<float>(up + 100 * down + 10000 * at) + 0.5f * static_cast<float>(votes + half);
}

static int case_shuffles()
{
	float *out = device_floats(32);

	LK_LAUNCH(shuffles, 1, 32, 0, stream, out);
	return differs(out, 32, [](int i) {
		int down = i % 8 + 5 < 8 ? i + 5 : i;

		return (i < 3 ? i : i - 3) + 100 * down + 10000 * (i / 16 * 16 + 2) + 0.5f * (11 + (i < 16 ? i ^ 8 : i ^ 4));
	});
}

static __global__ void products(float *out, const lk_bf16 *a, const lk_bf16 *b)
{
	LK_SMEM(lk_bf16, tile); /* a (16,16), then b (16,8) row-major in rows of 16, of which 8 are used */
	int l = static_cast<int>(threadIdx.x), row = l % 16, half = l / 16;
	uint32_t ra[4], rb[4];
	float d[4] = { 0, 0, 0, 1 };

	lk_cp_async16(tile + 16 * row + 8 * half, a + 16 * row + 8 * half, 16);
	lk_cp_async_commit();
	lk_cp_async16(tile + 256 + 16 * row + 8 * half, b + 16 * row + 8 * half, half ? 0 : 16);
	lk_cp_async_commit();
	lk_cp_async_wait<0>();
	__syncwarp();
	lk_ldmatrix4(ra, tile + 16 * row + 8 * half);
	lk_ldmatrix4_t(rb, tile + 256 + 16 * row + 8 * half);
	lk_mma16816(d, ra, rb);
	for (int i = 0; i < 4; i++)
		out[(l / 4 + 8 * (i / 2)) * 8 + 2 * (l % 4) + i % 2] = d[i];
	if (__bfloat162float(tile[256 + 8]) != 0.0f)
		out[0] = -1.0f;
}

static int case_products()
{
	std::vector<lk_bf16> a(256), b(256);
	void *da = nullptr, *db = nullptr;
	float *out = device_floats(128);

	for (int i = 0; i < 256; i++) {
		a[static_cast<size_t>(i)] = static_cast<float>(i % 7 - 3);
		b[static_cast<size_t>(i)] = static_cast<float>(i % 5 - 2);
	}
	cudaMalloc(&da, 512);
	cudaMalloc(&db, 512);
	cudaMemcpyAsync(da, a.data(), 512, cudaMemcpyHostToDevice, stream);
	cudaMemcpyAsync(db, b.data(), 512, cudaMemcpyHostToDevice, stream);
	LK_LAUNCH(products, 1, 32, 1024, stream, out, static_cast<lk_bf16 *>(da), static_cast<lk_bf16 *>(db));
	return differs(out, 128, [&](int i) {
		float sum = i / 8 >= 8 && i % 2 ? 1 : 0;

		for (int k = 0; k < 16; k++)
			sum += static_cast<float>(a[static_cast<size_t>(i / 8 * 16 + k)]) *
			       static_cast<float>(b[static_cast<size_t>(k * 16 + i % 8)]);
		return sum;
	});
}

static int case_host_threads()
{
	std::vector<std::thread> threads;
	int bad[4] = { 1, 1, 1, 1 };

	for (int i = 0; i < 4; i++)
		threads.emplace_back([i, &bad] {
			float *out = device_floats(50);
			cudaStream_t mine;

			cudaSetDevice(i % 2);
			out = device_floats(50);
			cudaStreamCreateWithFlags(&mine, cudaStreamNonBlocking);
			for (int k = 0; k < 20; k++)
				LK_LAUNCH(reduce, 50, 256, 0, mine, out);
			cudaStreamSynchronize(mine);
			std::vector<float> got(50);
			cudaMemcpyAsync(got.data(), out, 200, cudaMemcpyDeviceToHost, mine);
			bad[i] = 0;
			for (int k = 0; k < 50; k++)
				bad[i] |= got[static_cast<size_t>(k)] != static_cast<float>(256 * 257 / 2 + k);
		});
	for (std::thread &t : threads)
		t.join();
	return bad[0] | bad[1] | bad[2] | bad[3];
}

/* ---- kernels that are wrong: some order must show it ---- */

static __global__ void no_syncthreads(float *out)
{
	__shared__ float x[128];

	x[threadIdx.x] = static_cast<float>(threadIdx.x);
	out[threadIdx.x] = x[127 - threadIdx.x];
}

static int case_no_syncthreads()
{
	float *out = device_floats(N);

	LK_LAUNCH(no_syncthreads, 1, 128, 0, stream, out);
	return differs(out, N, [](int i) { return 127 - i; });
}

static __global__ void no_syncwarp(float *out, int distance)
{
	LK_SMEM(float, x);

	x[threadIdx.x] = static_cast<float>(threadIdx.x);
	out[threadIdx.x] = x[(threadIdx.x + static_cast<unsigned>(distance)) % 32];
}

static int case_no_syncwarp()
{
	float *out = device_floats(32);

	LK_LAUNCH(no_syncwarp, 1, 32, 128, stream, out, 31);
	return differs(out, 32, [](int i) { return (i + 31) % 32; });
}

static int case_no_syncwarp_up()
{
	float *out = device_floats(32);

	LK_LAUNCH(no_syncwarp, 1, 32, 128, stream, out, 1);
	return differs(out, 32, [](int i) { return (i + 1) % 32; });
}

static __global__ void no_wait(float *out, const float *in)
{
	LK_SMEM(float, x);

	lk_cp_async16(x + 4 * threadIdx.x, in + 4 * threadIdx.x, 16);
	lk_cp_async_commit();
	lk_cp_async_wait<1>(); /* one too many may stay */
	__syncthreads();
	out[threadIdx.x] = x[threadIdx.x];
}

static int case_no_wait()
{
	float *out = device_floats(32), *in = device_floats(128);

	cudaMemsetAsync(in, 0, 512, stream);
	LK_LAUNCH(no_wait, 1, 32, 512, stream, out, in);
	return differs(out, 32, [](int) { return 0; });
}

static __global__ void stale(float *out, int write)
{
	__shared__ float fixed[32];
	LK_SMEM(float, x);

	if (write)
		x[threadIdx.x] = fixed[threadIdx.x] = 1.0f;
	out[threadIdx.x] = x[threadIdx.x] * fixed[threadIdx.x];
}

static int case_stale()
{
	float *out = device_floats(32);

	LK_LAUNCH(stale, 1, 32, 128, stream, out, 1);
	LK_LAUNCH(stale, 1, 32, 128, stream, out, 0);
	return differs(out, 32, [](int) { return 1; });
}

/* A pinned buffer is written again before the copy was waited for. */
static int case_early_reuse()
{
	float *out = device_floats(N), *host;
	void *p = nullptr;

	cudaHostAlloc(&p, 4 * N, cudaHostAllocDefault);
	host = static_cast<float *>(p);
	for (int i = 0; i < N; i++)
		host[i] = 1.0f;
	cudaMemcpyAsync(out, host, 4 * N, cudaMemcpyHostToDevice, stream);
	for (int i = 0; i < N; i++)
		host[i] = 2.0f;
	return differs(out, N, [](int) { return 1; });
}

static __global__ void add_one(float *x)
{
	x[threadIdx.x] += 1.0f;
}

/* Two queues; `wait`: the second waits for the first. */
static int two_queues(bool wait)
{
	cudaStream_t other;
	cudaEvent_t done;
	float *x = device_floats(N);

	cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
	cudaEventCreateWithFlags(&done, cudaEventDisableTiming);
	cudaMemsetAsync(x, 0, 4 * N, other);
	LK_LAUNCH(add_one, 1, N, 0, other, x);
	cudaEventRecord(done, other);
	if (wait)
		cudaStreamWaitEvent(stream, done, 0);
	LK_LAUNCH(add_one, 1, N, 0, stream, x);
	return differs(x, N, [](int) { return 2; });
}

static int case_event()
{
	return two_queues(true);
}

static int case_no_event()
{
	return two_queues(false);
}

/* ---- what must end the program ---- */

static __global__ void half_barrier(float *out)
{
	if (threadIdx.x < 64)
		__syncthreads();
	out[threadIdx.x] = 1.0f;
}

static __global__ void two_barriers(float *)
{
	if (threadIdx.x < 64)
		__syncthreads();
	else
		__syncthreads();
}

static __global__ void ended_lane(float *out)
{
	if (threadIdx.x == 7)
		return;
	out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

static __global__ void other_lane(float *out)
{
	if (threadIdx.x < 16)
		out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, 20);
}

static __global__ void diverged(float *out)
{
	if (threadIdx.x < 16)
		out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
	else
		__syncwarp();
}

static __global__ void touch(float *x, int at)
{
	x[at] = 1.0f;
}

static __global__ void touch_shared(int at)
{
	LK_SMEM(char, x);

	x[at] = 1;
}

static __global__ void matrix_from(const float *global)
{
	uint32_t r[4];

	lk_ldmatrix4(r, global);
}

static __global__ void forever(float *)
{
	for (;;)
		__nanosleep(20);
}

static __global__ void deep(float *out, int n)
{
	volatile char big[3000];

	big[n % 3000] = 1;
	if (n)
		deep(out, n - 1);
	out[0] = big[n % 3000];
}

#define DIES(name, kernel, grid, block, smem, ...)                              \
	static int case_##name()                                                \
	{                                                                       \
		float *x = device_floats(256);                                  \
                                                                                \
		(void)x;                                                        \
		LK_LAUNCH(kernel, grid, block, smem, stream, __VA_ARGS__);      \
		cudaStreamSynchronize(stream);                                  \
		return 0;                                                       \
	}

DIES(half_barrier, half_barrier, 1, 128, 0, x)
DIES(two_barriers, two_barriers, 1, 128, 0, x)
DIES(ended_lane, ended_lane, 1, 32, 0, x)
DIES(other_lane, other_lane, 1, 32, 0, x)
DIES(diverged, diverged, 1, 32, 0, x)
DIES(behind, touch, 1, 1, 0, x, 256)
DIES(before, touch, 1, 1, 0, x, -1024)
DIES(shared_behind, touch_shared, 1, 1, 100, 100)
DIES(shared_far, touch_shared, 1, 1, 100, 1024)
DIES(matrix_from_global, matrix_from, 1, 32, 0, x)
DIES(forever, forever, 1, 32, 0, x)
DIES(deep, deep, 1, 1, 0, x, 100)

static int case_padding()
{
	float *x = device_floats(5);

	LK_LAUNCH(touch, 1, 1, 0, stream, x, 5);
	cudaStreamSynchronize(stream);
	return 0;
}

static int case_freed()
{
	float *x = device_floats(256);

	cudaFree(x);
	LK_LAUNCH(touch, 1, 1, 0, stream, x, 0);
	cudaStreamSynchronize(stream);
	return 0;
}

static int case_host_touches()
{
	volatile float *x = device_floats(256);

	return x[0] > 0.0f;
}

static int case_default_stream()
{
	LK_LAUNCH(touch_shared, 1, 1, 100, nullptr, 0);
	return 0;
}

/* ---- what CUDA refuses ---- */

static int case_refusals()
{
	cudaStream_t elsewhere;
	float *x = device_floats(4);
	int bad = 0;

	LK_LAUNCH(touch_shared, 1, 1, 50000, stream, 0);
	bad |= cudaGetLastError() != cudaErrorInvalidValue;
	bad |= cudaFuncSetAttribute(touch_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 50000) != cudaSuccess;
	LK_LAUNCH(touch_shared, 1, 1, 50000, stream, 0);
	bad |= cudaGetLastError() != cudaSuccess;
	bad |= cudaFuncSetAttribute(touch_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 300000) == cudaSuccess;
	cudaGetLastError();
	LK_LAUNCH(touch, dim3(1, 65536), 1, 0, stream, x, 0);
	bad |= cudaGetLastError() != cudaErrorInvalidConfiguration;
	LK_LAUNCH(touch, 1, 1025, 0, stream, x, 0);
	bad |= cudaGetLastError() != cudaErrorInvalidConfiguration;
	LK_LAUNCH(touch, 0, 1, 0, stream, x, 0);
	bad |= cudaGetLastError() != cudaErrorInvalidConfiguration;
	cudaSetDevice(1);
	cudaStreamCreate(&elsewhere);
	LK_LAUNCH(touch, 1, 1, 0, stream, x, 0);
	bad |= cudaGetLastError() != cudaErrorInvalidResourceHandle;
	bad |= cudaMemsetAsync(x, 0, 17, elsewhere) == cudaSuccess;
	bad |= cudaMemcpyAsync(x, x + 1, 4, cudaMemcpyHostToDevice, elsewhere) == cudaSuccess;
	return bad;
}

/* ---- the table ---- */

enum { RIGHT, WRONG, DEATH };

struct test {
	const char *name;
	int (*run)();
	int how;          /* RIGHT: 0 in every order; WRONG: not 0 in at least one; DEATH: dies in every order */
	const char *says; /* part of what it must say */
};

static const struct test tests[] = {
	{ "reduction", case_reduce, RIGHT, "" },
	{ "shuffles", case_shuffles, RIGHT, "" },
	{ "mma, ldmatrix, cp.async", case_products, RIGHT, "" },
	{ "four host threads on two GPUs", case_host_threads, RIGHT, "" },
	{ "an event orders two queues", case_event, RIGHT, "" },
	{ "what CUDA refuses", case_refusals, RIGHT, "cannot be launched" },
	{ "a missing __syncthreads", case_no_syncthreads, WRONG, "" },
	{ "a missing __syncwarp", case_no_syncwarp, WRONG, "" },
	{ "a missing __syncwarp, the other way", case_no_syncwarp_up, WRONG, "" },
	{ "a missing wait for cp.async", case_no_wait, WRONG, "" },
	{ "shared memory of an earlier block", case_stale, WRONG, "" },
	{ "a pinned buffer used too early", case_early_reuse, WRONG, "" },
	{ "a missing event", case_no_event, WRONG, "" },
	{ "a barrier that half of a block reaches", case_half_barrier, DEATH, "deadlock" },
	{ "two barriers at a time", case_two_barriers, DEATH, "another barrier" },
	{ "a lane that has ended", case_ended_lane, DEATH, "end" },
	{ "a lane outside of the mask", case_other_lane, DEATH, "not in the mask" },
	{ "lanes that do different things", case_diverged, DEATH, "different things" },
	{ "a write behind an allocation", case_behind, DEATH, "byte 1024 of an allocation of 1024" },
	{ "a write before an allocation", case_before, DEATH, "byte -4096 of an allocation" },
	{ "a write into padding", case_padding, DEATH, "wrote byte 20 of an allocation of 20" },
	{ "a write to freed memory", case_freed, DEATH, "kernel touch" },
	{ "a write behind shared memory", case_shared_behind, DEATH, "behind its 100 bytes" },
	{ "a write far behind shared memory", case_shared_far, DEATH, "kernel touch_shared" },
	{ "ldmatrix of global memory", case_matrix_from_global, DEATH, "not in shared memory" },
	{ "a loop that waits for ever", case_forever, DEATH, "deadlock" },
	{ "a stack that overflows", case_deep, DEATH, "kernel deep" },
	{ "the host touching device memory", case_host_touches, DEATH, "the host touches device memory" },
	{ "work on the default stream", case_default_stream, DEATH, "default stream" },
};

/* The exit status of the case in a child, 256 + signal if it died; what it said in text. */
static int run_child(const struct test *t, int order, char *text, size_t n)
{
	int fd[2], status = 0;
	size_t len = 0;
	ssize_t got;

	if (pipe(fd))
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		char number[16];

		dup2(fd[1], 2);
		close(fd[0]);
		snprintf(number, sizeof number, "%d", order);
		setenv("LWM_EMU_ORDER", number, 1);
		cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
		_exit(t->run());
	}
	close(fd[1]);
	while ((got = read(fd[0], text + len, n - 1 - len)) > 0)
		len += static_cast<size_t>(got);
	text[len] = '\0';
	close(fd[0]);
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -1;
	return WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main()
{
	static const int orders[] = { 0, 1, 2, 3 };
	int passed = 0, failed = 0;
	static char text[65536];

	for (const struct test &t : tests) {
		int wrong = 0, died = 0, silent = 0;

		for (int order : orders) {
			int rc = run_child(&t, order, text, sizeof text);

			died += rc >= 256;
			wrong += rc != 0 && rc < 256;
			silent += !strstr(text, t.says);
		}
		bool ok = t.how == RIGHT ? !wrong && !died && !silent : t.how == WRONG ? wrong && !died : died == 4 && !silent;
		(ok ? passed : failed)++;
		if (!ok)
			printf("FAIL %s: of 4 orders %d wrong, %d died, %d without \"%s\"; the last one said: %s\n", t.name, wrong,
			       died, silent, t.says, text);
	}
	printf("%d passed, %d failed, 0 skipped\n", passed, failed);
	return failed != 0;
}
