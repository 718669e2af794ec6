/* vector_types.h - the small structs that CUDA C++ programs use. */
#ifndef EMU_VECTOR_TYPES_H
#define EMU_VECTOR_TYPES_H

#include <cstdint>

#define EMU_VECTOR(T, name, bytes2, bytes4)                                               \
	struct name##1 { T x; };                                                          \
	struct alignas(bytes2) name##2 { T x, y; };                                       \
	struct name##3 { T x, y, z; };                                                    \
	struct alignas(bytes4) name##4 { T x, y, z, w; };                                 \
	static inline name##1 make_##name##1(T x) { return { x }; }                       \
	static inline name##2 make_##name##2(T x, T y) { return { x, y }; }               \
	static inline name##3 make_##name##3(T x, T y, T z) { return { x, y, z }; }       \
	static inline name##4 make_##name##4(T x, T y, T z, T w) { return { x, y, z, w }; }

EMU_VECTOR(int, int, 8, 16)
EMU_VECTOR(unsigned, uint, 8, 16)
EMU_VECTOR(float, float, 8, 16)
EMU_VECTOR(double, double, 16, 16)
EMU_VECTOR(short, short, 4, 8)
EMU_VECTOR(unsigned short, ushort, 4, 8)
EMU_VECTOR(signed char, char, 2, 4)
EMU_VECTOR(unsigned char, uchar, 2, 4)
EMU_VECTOR(long long, longlong, 16, 16)
EMU_VECTOR(unsigned long long, ulonglong, 16, 16)

struct dim3 {
	unsigned x, y, z;

	constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
	{
	}
};

#endif
