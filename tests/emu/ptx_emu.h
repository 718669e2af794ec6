/* ptx_emu.h - the bodies of ptx.h on the CPU, with the fragment layouts that it describes. */
#ifndef EMU_PTX_EMU_H
#define EMU_PTX_EMU_H

namespace emu
{

struct mma_args {
	float *d;
	const uint32_t *a, *b;
};

static inline float low_half(uint32_t w)
{
	return __uint_as_float(w << 16);
}

static inline float high_half(uint32_t w)
{
	return __uint_as_float(w & 0xffff0000u);
}

/* n words at an address that must be a multiple of their size, as the machine wants it */
static inline void words_load(uint32_t *w, const void *p, size_t n, place at)
{
	if (reinterpret_cast<uintptr_t>(p) % (4 * n))
		die(at, "%zu bytes from the address %p, which is not a multiple of that", 4 * n, p);
	memcpy(w, p, 4 * n);
}

static inline void words_store(void *p, const uint32_t *w, size_t n, place at)
{
	if (reinterpret_cast<uintptr_t>(p) % (4 * n))
		die(at, "%zu bytes to the address %p, which is not a multiple of that", 4 * n, p);
	memcpy(p, w, 4 * n);
}

/* d (16x8) += a (16x16) b (16x8): the operands are gathered from the lanes, multiplied, and dealt out again. */
static inline void mma_all(void *const *args, unsigned)
{
	float a[16][16], b[16][8], d[16][8];

	for (int l = 0; l < WARP; l++) {
		const mma_args *m = static_cast<mma_args *>(args[l]);
		int g = l / 4, c = 2 * (l % 4);

		for (int i = 0; i < 4; i++) {
			a[g + 8 * (i & 1)][c + 8 * (i >> 1)] = low_half(m->a[i]);
			a[g + 8 * (i & 1)][c + 8 * (i >> 1) + 1] = high_half(m->a[i]);
			d[g + 8 * (i >> 1)][c + (i & 1)] = m->d[i];
		}
		for (int i = 0; i < 2; i++) {
			b[c + 8 * i][g] = low_half(m->b[i]);
			b[c + 8 * i + 1][g] = high_half(m->b[i]);
		}
	}
	for (int i = 0; i < 16; i++)
		for (int k = 0; k < 16; k++)
			for (int j = 0; j < 8; j++)
				d[i][j] += a[i][k] * b[k][j];
	for (int l = 0; l < WARP; l++)
		for (int i = 0; i < 4; i++)
			static_cast<mma_args *>(args[l])->d[i] = d[l / 4 + 8 * (i >> 1)][2 * (l % 4) + (i & 1)];
}

struct ldmatrix_args {
	uint32_t *r;
	const uint16_t *row;
};

static inline void ldmatrix_all(void *const *args, unsigned)
{
	for (int l = 0; l < WARP; l++)
		for (int i = 0; i < 4; i++)
			memcpy(&static_cast<ldmatrix_args *>(args[l])->r[i],
			       static_cast<ldmatrix_args *>(args[8 * i + l / 4])->row + 2 * (l % 4), 4);
}

static inline void ldmatrix_t_all(void *const *args, unsigned)
{
	for (int l = 0; l < WARP; l++) {
		for (int i = 0; i < 4; i++) {
			int at = l / 4, r = 8 * i + 2 * (l % 4);
			uint32_t lo = static_cast<ldmatrix_args *>(args[r])->row[at];
			uint32_t hi = static_cast<ldmatrix_args *>(args[r + 1])->row[at];

			static_cast<ldmatrix_args *>(args[l])->r[i] = hi << 16 | lo;
		}
	}
}

/* The whole warp, all 32 lanes of it. */
static inline void warp_op(warp_fn *fn, void *arg, place at)
{
	const thread *t = self();

	if (t->blk->warp_at[t->warp].exists != 0xffffffffu)
		die(at, "the warp has fewer than 32 lanes");
	meet_warp(0xffffffffu, fn, arg, at);
}

} // namespace emu

static inline void lk_mma16816(float d[4], const uint32_t a[4], const uint32_t b[2], EMU_HERE)
{
	emu::mma_args m = { d, a, b };

	emu::warp_op(emu::mma_all, &m, { "mma", file, line });
}

static inline void lk_ldmatrix4(uint32_t r[4], const void *row, EMU_HERE)
{
	emu::ldmatrix_args m = { r, static_cast<const uint16_t *>(row) };

	emu::want_shared(row, 16, 16, { "ldmatrix", file, line });
	emu::warp_op(emu::ldmatrix_all, &m, { "ldmatrix", file, line });
}

static inline void lk_ldmatrix4_t(uint32_t r[4], const void *row, EMU_HERE)
{
	emu::ldmatrix_args m = { r, static_cast<const uint16_t *>(row) };

	emu::want_shared(row, 16, 16, { "ldmatrix.trans", file, line });
	emu::warp_op(emu::ldmatrix_t_all, &m, { "ldmatrix.trans", file, line });
}

static inline void lk_cp_async16(void *dst, const void *src, int valid, EMU_HERE)
{
	emu::copy_later(dst, src, 16, valid, { "cp.async", file, line });
}

static inline void lk_cp_async4(void *dst, const void *src, EMU_HERE)
{
	emu::copy_later(dst, src, 4, 4, { "cp.async", file, line });
}

static inline void lk_cp_async_commit(void)
{
	emu::copies_commit();
}

template <int N> static inline void lk_cp_async_wait(void)
{
	emu::copies_wait(N);
}

static inline int lk_fresh(int x)
{
	return x;
}

static inline void lk_ld16(uint32_t w[4], const void *p, int yes, EMU_HERE)
{
	if (yes)
		emu::words_load(w, p, 4, { "ld.global", file, line });
}

static inline void lk_ld8(uint32_t w[2], const void *p, int yes, EMU_HERE)
{
	if (yes)
		emu::words_load(w, p, 2, { "ld.global", file, line });
}

static inline void lk_st16(void *p, const uint32_t w[4], int yes, EMU_HERE)
{
	if (yes)
		emu::words_store(p, w, 4, { "st.global", file, line });
}

static inline void lk_st8(void *p, const uint32_t w[2], int yes, EMU_HERE)
{
	if (yes)
		emu::words_store(p, w, 2, { "st.global", file, line });
}

static inline float lk_exp2(float x)
{
	return exp2f(x);
}

#endif
