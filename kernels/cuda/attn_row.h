/* attn_row.h - how keys and values come into the registers of attn_row.cu, of 16 bits or 8. Who holds what stands there. */
#ifndef LK_CUDA_ATTN_ROW_H
#define LK_CUDA_ATTN_ROW_H

#include "kernels/cuda/attn_int.h"

/* ---- elements of either type ---- */

template <typename T> struct raw; /* as loaded: 8 of a key, 4 of a value */
template <> struct raw<lk_bf16> {
	typedef uint4 key;
	typedef uint2 value;
};
template <> struct raw<int8_t> {
	typedef uint2 key;
	typedef uint32_t value;
};

__device__ static inline uint32_t two(uint32_t word, int at)
{
	float lo = static_cast<float>(static_cast<int8_t>(word >> at));
	float hi = static_cast<float>(static_cast<int8_t>(word >> (at + 8)));

	return lk_pack2(lo, hi); // exact: 8 bits fit into a bf16
}

__device__ static inline void widen(uint32_t w[4], const uint4 &x)
{
	w[0] = x.x;
	w[1] = x.y;
	w[2] = x.z;
	w[3] = x.w;
}

__device__ static inline void widen(uint32_t w[4], const uint2 &x)
{
	w[0] = two(x.x, 0);
	w[1] = two(x.x, 16);
	w[2] = two(x.y, 0);
	w[3] = two(x.y, 16);
}

__device__ static inline void widen_value(uint32_t w[2], const uint2 &x)
{
	w[0] = x.x;
	w[1] = x.y;
}

__device__ static inline void widen_value(uint32_t w[2], const uint32_t &x)
{
	w[0] = two(x, 0);
	w[1] = two(x, 16);
}

/* N elements from p on, of which `there` exist; the rest is zero. */
template <typename R, typename T, bool VEC> __device__ static inline R take(const T *p, int there)
{
	constexpr int N = sizeof(R) / sizeof(T);
	T e[N];
	R r;

	memset(&r, 0, sizeof r);
	if constexpr (VEC) {
		if (there > 0)
			r = *reinterpret_cast<const R *>(p);
	} else {
		memset(e, 0, sizeof e);
		for (int i = 0; i < N; i++)
			if (i < there)
				memcpy(&e[i], p + i, sizeof(T));
		memcpy(&r, e, sizeof r);
	}
	return r;
}

/* ---- what a lane holds ---- */

template <typename T, int DP> struct keys {
	typename raw<T>::key x[2][DP / 32]; /* of keys g and g + 8 */
};

template <typename T, int DP> struct values {
	typename raw<T>::value x[4][DP / 32]; /* of keys 2c, 2c + 1, 2c + 8, 2c + 9 */
};

/* Of the same four keys. */
struct marks {
	int pos[4], seg[4];
	float k_scale[4], v_scale[4]; /* 8-bit elements */
};

struct where {
	int key_head, part, row0, rows; /* rows [row0, row0 + rows) of the group * tq that share the key head */
	int g, c, warp;
};

__device__ static inline int key_of(int k0, int i, int c)
{
	return k0 + i / 2 * 8 + 2 * c + i % 2;
}

template <typename T, int DP, bool VEC>
__device__ static inline void take_keys(struct keys<T, DP> *k, const struct lk_attn_job *j, const struct where *w, int k0)
{
#pragma unroll
	for (int i = 0; i < 2; i++) {
		int t = k0 + w->g + 8 * i, tk = static_cast<int>(j->tk);
		int64_t at = static_cast<int64_t>(t < tk ? t : 0) * j->k_t + w->key_head * j->k_h + 8 * w->c;
		const T *p = static_cast<const T *>(j->k) + at;
		int there = t < tk ? j->d - 8 * w->c : 0;

#pragma unroll
		for (int b = 0; b < DP / 32; b++)
			k->x[i][b] = take<typename raw<T>::key, T, VEC>(p + 32 * b, there - 32 * b);
	}
}

template <typename T, int DP, bool VEC>
__device__ static inline void take_values(struct values<T, DP> *v, const struct lk_attn_job *j, const struct where *w,
					  int k0)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		int t = key_of(k0, i, w->c), tk = static_cast<int>(j->tk);
		int64_t at = static_cast<int64_t>(t < tk ? t : 0) * j->v_t + w->key_head * j->v_h + 4 * w->g;
		const T *p = static_cast<const T *>(j->v) + at;
		int there = t < tk ? j->d - 4 * w->g : 0;

#pragma unroll
		for (int b = 0; b < DP / 32; b++)
			v->x[i][b] = take<typename raw<T>::value, T, VEC>(p + 32 * b, there - 32 * b);
	}
}

template <typename T>
__device__ static inline void take_marks(struct marks *m, const struct lk_attn_job *j, const struct where *w, int k0)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		int t = key_of(k0, i, w->c);

		m->pos[i] = lk_k_pos(j, t);
		m->seg[i] = lk_k_seg(j, t);
		if (sizeof(T) > 1)
			continue;
		m->k_scale[i] = t < j->tk ? j->k_scale[static_cast<int64_t>(t) * j->scale_t + w->key_head] : 0;
		m->v_scale[i] = t < j->tk ? j->v_scale[static_cast<int64_t>(t) * j->scale_t + w->key_head] : 0;
	}
}

#endif
