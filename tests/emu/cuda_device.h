/* cuda_device.h - what kernels call: barriers, operations of a warp, atomics, arithmetic. Part of cuda_runtime.h. */
#ifndef EMU_CUDA_DEVICE_H
#define EMU_CUDA_DEVICE_H

/* ---- barriers ---- */

static inline void __syncthreads(EMU_HERE)
{
	emu::meet_block(0, emu::self()->blk->threads, 0, { "__syncthreads", file, line });
}

static inline int __syncthreads_count(int value, EMU_HERE)
{
	return static_cast<int>(
		emu::meet_block(0, emu::self()->blk->threads, value != 0, { "__syncthreads_count", file, line }));
}

static inline int __syncthreads_or(int value, EMU_HERE)
{
	return __syncthreads_count(value, file, line) != 0;
}

static inline int __syncthreads_and(int value, EMU_HERE)
{
	return __syncthreads_count(value == 0, file, line) == 0;
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_HERE)
{
	emu::meet_warp(mask, nullptr, nullptr, { "__syncwarp", file, line });
}

static inline void __threadfence()
{
}

static inline void __threadfence_block()
{
}

static inline void __nanosleep(unsigned, EMU_HERE)
{
	emu::pause({ "__nanosleep", file, line });
}

/* ---- operations of a warp ---- */

namespace emu
{

struct shuffled {
	unsigned char in[16], out[16];
	int from; /* lane; -1: its own value */
	place at;
};

static inline void shuffle_all(void *const *args, unsigned mask)
{
	for (unsigned m = mask; m; m &= m - 1) {
		int lane = __builtin_ctz(m);
		shuffled *s = static_cast<shuffled *>(args[lane]);
		int from = s->from < 0 ? lane : s->from;

		if (!(mask & 1u << from))
			die(s->at, "lane %d reads lane %d, which is not in the mask 0x%08x", lane, from, mask);
		memcpy(s->out, static_cast<shuffled *>(args[from])->in, sizeof s->out);
	}
}

template <class T> T shuffle(unsigned mask, T value, int from, place at)
{
	static_assert(sizeof(T) <= 16, "a value of at most 16 bytes");
	shuffled s;

	memcpy(s.in, &value, sizeof value);
	s.from = from;
	s.at = at;
	meet_warp(mask, shuffle_all, &s, at);
	memcpy(&value, s.out, sizeof value);
	return value;
}

struct voted {
	unsigned in, out;
};

static inline void ballot_all(void *const *args, unsigned mask)
{
	unsigned all = 0;

	for (unsigned m = mask; m; m &= m - 1)
		all |= (static_cast<voted *>(args[__builtin_ctz(m)])->in != 0) * (m & -m);
	for (unsigned m = mask; m; m &= m - 1)
		static_cast<voted *>(args[__builtin_ctz(m)])->out = all;
}

static inline void add_all(void *const *args, unsigned mask)
{
	unsigned sum = 0;

	for (unsigned m = mask; m; m &= m - 1)
		sum += static_cast<voted *>(args[__builtin_ctz(m)])->in;
	for (unsigned m = mask; m; m &= m - 1)
		static_cast<voted *>(args[__builtin_ctz(m)])->out = sum;
}

static inline void max_all(void *const *args, unsigned mask)
{
	unsigned most = 0;

	for (unsigned m = mask; m; m &= m - 1)
		most = std::max(most, static_cast<voted *>(args[__builtin_ctz(m)])->in);
	for (unsigned m = mask; m; m &= m - 1)
		static_cast<voted *>(args[__builtin_ctz(m)])->out = most;
}

static inline void match_all(void *const *args, unsigned mask)
{
	for (unsigned m = mask; m; m &= m - 1) {
		voted *v = static_cast<voted *>(args[__builtin_ctz(m)]);

		v->out = 0;
		for (unsigned k = mask; k; k &= k - 1)
			v->out |= (static_cast<voted *>(args[__builtin_ctz(k)])->in == v->in) * (k & -k);
	}
}

static inline unsigned vote(unsigned mask, unsigned value, warp_fn *fn, place at)
{
	voted v = { value, 0 };

	meet_warp(mask, fn, &v, at);
	return v.out;
}

} // namespace emu

/* Lanes of a segment of `width` lanes; a lane outside of it means one's own value. */
template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32, EMU_HERE)
{
	int base = emu::self()->lane & ~(width - 1);

	return emu::shuffle(mask, value, base | (lane & (width - 1)), { "__shfl_sync", file, line });
}

template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMU_HERE)
{
	int me = emu::self()->lane, from = me ^ lanes;

	if ((from & ~(width - 1)) > (me & ~(width - 1)))
		from = -1;
	return emu::shuffle(mask, value, from, { "__shfl_xor_sync", file, line });
}

template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned d, int width = 32, EMU_HERE)
{
	int me = emu::self()->lane, from = me + static_cast<int>(d);

	return emu::shuffle(mask, value, from >= (me & ~(width - 1)) + width ? -1 : from, { "__shfl_down_sync", file, line });
}

template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned d, int width = 32, EMU_HERE)
{
	int me = emu::self()->lane, from = me - static_cast<int>(d);

	return emu::shuffle(mask, value, from < (me & ~(width - 1)) ? -1 : from, { "__shfl_up_sync", file, line });
}

static inline unsigned __ballot_sync(unsigned mask, int yes, EMU_HERE)
{
	return emu::vote(mask, yes != 0, emu::ballot_all, { "__ballot_sync", file, line });
}

static inline int __any_sync(unsigned mask, int yes, EMU_HERE)
{
	return emu::vote(mask, yes != 0, emu::ballot_all, { "__any_sync", file, line }) != 0;
}

static inline int __all_sync(unsigned mask, int yes, EMU_HERE)
{
	return emu::vote(mask, yes == 0, emu::ballot_all, { "__all_sync", file, line }) == 0;
}

static inline unsigned __reduce_add_sync(unsigned mask, unsigned value, EMU_HERE)
{
	return emu::vote(mask, value, emu::add_all, { "__reduce_add_sync", file, line });
}

static inline unsigned __reduce_max_sync(unsigned mask, unsigned value, EMU_HERE)
{
	return emu::vote(mask, value, emu::max_all, { "__reduce_max_sync", file, line });
}

static inline unsigned __match_any_sync(unsigned mask, unsigned value, EMU_HERE)
{
	return emu::vote(mask, value, emu::match_all, { "__match_any_sync", file, line });
}

/* ---- atomics: one thread of a block runs at a time, but other host threads may run other blocks ---- */

template <class T> T emu_atomic(T *p, T want(T, T), T value)
{
	T old = __atomic_load_n(p, __ATOMIC_RELAXED);

	while (!__atomic_compare_exchange_n(p, &old, want(old, value), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	return old;
}

#define EMU_ATOMIC(T, name, expression)                                                         \
	static inline T name(T *p, T value)                                                     \
	{                                                                                       \
		return emu_atomic<T>(p, [](T old, T v) -> T { return expression; }, value);     \
	}
#define EMU_ATOMICS(T)                                  \
	EMU_ATOMIC(T, atomicAdd, old + v)               \
	EMU_ATOMIC(T, atomicMax, old > v ? old : v)     \
	EMU_ATOMIC(T, atomicMin, old < v ? old : v)     \
	EMU_ATOMIC(T, atomicOr, old | v)                \
	EMU_ATOMIC(T, atomicAnd, old & v)               \
	EMU_ATOMIC(T, atomicExch, (static_cast<void>(old), v))
EMU_ATOMICS(int)
EMU_ATOMICS(unsigned)
EMU_ATOMICS(unsigned long long)
EMU_ATOMIC(int, atomicSub, old - v)
EMU_ATOMIC(unsigned, atomicSub, old - v)
EMU_ATOMIC(unsigned, atomicInc, old >= v ? 0 : old + 1)

template <class T> T atomicCAS(T *p, T compare, T value)
{
	__atomic_compare_exchange_n(p, &compare, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
	return compare;
}

static inline float atomicAdd(float *p, float value)
{
	unsigned *bits = reinterpret_cast<unsigned *>(p), old = *bits, got;

	for (;;) {
		float was, sum;
		unsigned next;

		memcpy(&was, &old, sizeof was);
		sum = was + value;
		memcpy(&next, &sum, sizeof next);
		got = atomicCAS(bits, old, next);
		if (got == old)
			return was;
		old = got;
	}
}

static inline double atomicAdd(double *p, double value)
{
	unsigned long long *bits = reinterpret_cast<unsigned long long *>(p), old = *bits, got;

	for (;;) {
		double was, sum;
		unsigned long long next;

		memcpy(&was, &old, sizeof was);
		sum = was + value;
		memcpy(&next, &sum, sizeof next);
		got = atomicCAS(bits, old, next);
		if (got == old)
			return was;
		old = got;
	}
}

/* ---- bits ---- */

template <class To, class From> static inline To emu_bits(From from)
{
	static_assert(sizeof(To) == sizeof(From), "the same size");
	To to;

	memcpy(&to, &from, sizeof to);
	return to;
}

static inline float __uint_as_float(unsigned u) { return emu_bits<float>(u); }
static inline float __int_as_float(int i) { return emu_bits<float>(i); }
static inline unsigned __float_as_uint(float f) { return emu_bits<unsigned>(f); }
static inline int __float_as_int(float f) { return emu_bits<int>(f); }
static inline double __longlong_as_double(long long i) { return emu_bits<double>(i); }
static inline long long __double_as_longlong(double d) { return emu_bits<long long>(d); }
static inline int __popc(unsigned u) { return __builtin_popcount(u); }
static inline int __popcll(unsigned long long u) { return __builtin_popcountll(u); }
static inline int __clz(int i) { return i ? __builtin_clz(static_cast<unsigned>(i)) : 32; }
static inline int __clzll(long long i) { return i ? __builtin_clzll(static_cast<unsigned long long>(i)) : 64; }
static inline int __ffs(int i) { return __builtin_ffs(i); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>((1ull * a * b) >> 32); }

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
	return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}

static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select)
{
	unsigned long long both = static_cast<unsigned long long>(b) << 32 | a;
	unsigned out = 0;

	for (int i = 0; i < 4; i++)
		out |= static_cast<unsigned>(both >> (8 * (select >> (4 * i) & 7)) & 0xff) << (8 * i);
	return out;
}

static inline int __dp4a(int a, int b, int c)
{
	for (int i = 0; i < 4; i++)
		c += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
	return c;
}

static inline size_t __cvta_generic_to_shared(const void *p)
{
	return reinterpret_cast<size_t>(p);
}

/* ---- loads and stores with a hint ---- */

template <class T> static inline T __ldg(const T *p) { return *p; }
template <class T> static inline T __ldcs(const T *p) { return *p; }
template <class T> static inline T __ldcg(const T *p) { return *p; }
template <class T> static inline T __ldca(const T *p) { return *p; }
template <class T> static inline T __ldlu(const T *p) { return *p; }
template <class T> static inline void __stcs(T *p, T v) { *p = v; }
template <class T> static inline void __stcg(T *p, T v) { *p = v; }
template <class T> static inline void __stwb(T *p, T v) { *p = v; }
template <class T> static inline void __stwt(T *p, T v) { *p = v; }

/* ---- arithmetic: the compiler may contract a * b + c, as nvcc does, but not what names its rounding ---- */

template <class T> static inline T emu_alone(T x)
{
#if defined(__x86_64__)
	asm("" : "+x"(x));
#else
	asm("" : "+w"(x));
#endif
	return x;
}

using std::max;
using std::min;
using std::isfinite;
using std::isinf;
using std::isnan;

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
/* libm has functions of these names */
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __tanhf tanhf
#define __sincosf sincosf
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __frsqrt_rn(float a) { return 1.0f / sqrtf(a); }
static inline float __fadd_rn(float a, float b) { return emu_alone(a + b); }
static inline float __fsub_rn(float a, float b) { return emu_alone(a - b); }
static inline float __fmul_rn(float a, float b) { return emu_alone(a * b); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return emu_alone(a + b); }
static inline double __dmul_rn(double a, double b) { return emu_alone(a * b); }
static inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
static inline int __float2int_rn(float x) { return static_cast<int>(nearbyintf(x)); }
static inline int __float2int_rz(float x) { return static_cast<int>(x); }
static inline int __float2int_rd(float x) { return static_cast<int>(floorf(x)); }
static inline unsigned __float2uint_rn(float x) { return static_cast<unsigned>(nearbyintf(x)); }
static inline float __int2float_rn(int x) { return static_cast<float>(x); }
static inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
static inline float __double2float_rn(double x) { return static_cast<float>(x); }
static inline void sincospi(double x, double *s, double *c) { sincos(M_PI * x, s, c); }
static inline void sincospif(float x, float *s, float *c) { sincosf(static_cast<float>(M_PI) * x, s, c); }

#endif
