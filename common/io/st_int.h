/* st_int.h - inside common/io: shared by the safetensors reader and writer, and values for other files of weights. */
#ifndef LWM_IO_ST_INT_H
#define LWM_IO_ST_INT_H

#include <stddef.h>
#include <stdint.h>

#include "common/io/safetensors.h"

enum { LWM_ST_BLOCK = 1 << 18 };
#define LWM_ST_HEADER_MAX 100000000LL
#define LWM_ST_SELF "\"xxh3_header\":\"" /* 16 digits follow */
#define LWM_ST_SUMS "\"xxh3_256k\":\""

/* The first `mark` in a header of n bytes with `digits` bytes after it: their offset, or -1. */
int64_t lwm_st_place(const char *header, int64_t n, const char *mark, int64_t digits);
void lwm_st_hex(char *out, uint64_t v); /* 16 digits, not 0-terminated */
/* XXH3-64 of the header with the 16 digits at `self` taken as zeros; the header is the same afterwards. */
uint64_t lwm_st_header_sum(char *header, int64_t n, int64_t self);
/* n values of a floating-point type, unaligned, little-endian, as fp32. */
void lwm_st_widen(const char *in, enum lwm_st_dtype t, int64_t n, float *out);

#endif
