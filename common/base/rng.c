/* rng.c - Philox4x32-10 as a pure function.
 *
 *	key = Philox(key: seed; counter: step, purpose, 0x6c776d01)       64 bits of the block
 *	numbers = Philox(key; counter: 0, 1, 2, ... with sample in its upper half)
 *
 * A permutation of 0..n-1 is a Feistel network of 6 rounds over the smallest even number of bits that holds n, walked on from
 * values that are n or more until one is below n (cycle-walking: a permutation of the larger set, restricted to its cycles, is
 * one of 0..n-1).
 */
#include "common/base/rng.h"

#include <math.h>
#include <string.h>

/* Random123's headers are not free of warnings under -Wpedantic. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wshadow"
#include <Random123/philox.h>
#pragma GCC diagnostic pop

enum { ROUNDS = 6, TABLE_BITS = 8 };

static void philox_block(const uint32_t key[2], const uint32_t ctr[4], uint32_t out[4])
{
	philox4x32_key_t k = { { key[0], key[1] } };
	philox4x32_ctr_t c = { { ctr[0], ctr[1], ctr[2], ctr[3] } };
	c = philox4x32(c, k);
	memcpy(out, c.v, sizeof c.v);
}

struct lwm_rng lwm_rng_at(uint64_t seed, enum lwm_purpose purpose, uint64_t step, uint64_t sample)
{
	struct lwm_rng r = { .have = 0 };
	uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) }, out[4];
	/* 64-bit step and sample and the purpose do not fit beside a running counter: derive the key from them. */
	uint32_t ctr[4] = { (uint32_t)step, (uint32_t)(step >> 32), (uint32_t)purpose, 0x6c776d01u };
	philox_block(key, ctr, out);
	r.key[0] = out[0];
	r.key[1] = out[1];
	r.ctr[2] = (uint32_t)sample;
	r.ctr[3] = (uint32_t)(sample >> 32);
	return r;
}

uint32_t lwm_rng_u32(struct lwm_rng *r)
{
	if (!r->have) {
		philox_block(r->key, r->ctr, r->out);
		if (!++r->ctr[0])
			r->ctr[1]++;
		r->have = 4;
	}
	return r->out[--r->have];
}

uint64_t lwm_rng_u64(struct lwm_rng *r)
{
	uint64_t hi = lwm_rng_u32(r);
	return hi << 32 | lwm_rng_u32(r);
}

double lwm_rng_double(struct lwm_rng *r)
{
	return (double)(lwm_rng_u64(r) >> 11) * 0x1p-53;
}

double lwm_rng_normal(struct lwm_rng *r)
{
	double u = 1.0 - lwm_rng_double(r), v = lwm_rng_double(r);
	return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

int64_t lwm_rng_below(struct lwm_rng *r, int64_t n)
{
	uint64_t m = (uint64_t)n, limit = -m % m, x; /* reject the first 2^64 mod n values */
	do
		x = lwm_rng_u64(r);
	while (x < limit);
	return (int64_t)(x % m);
}

/* Bits of half an index; two halves hold every index below n. */
static int half_bits(int64_t n)
{
	int half = 1;
	while (half < 31 && (1ULL << (2 * half)) < (uint64_t)n)
		half++;
	return half;
}

static uint32_t scramble_half(const struct lwm_rng *base, uint32_t round, uint64_t right)
{
	uint32_t ctr[4] = { (uint32_t)right, round, 0, 0x6c776d02u }, out[4];
	philox_block(base->key, ctr, out);
	return out[0];
}

int64_t lwm_rng_permute(uint64_t seed, enum lwm_purpose purpose, uint64_t step, int64_t n, int64_t i)
{
	struct lwm_rng base = lwm_rng_at(seed, purpose, step, 0);
	uint64_t x = (uint64_t)i;
	int half = half_bits(n);
	uint64_t mask = (1ULL << half) - 1;
	do {
		uint64_t l = x >> half, rgt = x & mask;
		for (uint32_t round = 0; round < ROUNDS; round++) {
			uint64_t t = l ^ (scramble_half(&base, round, rgt) & mask);
			l = rgt;
			rgt = t;
		}
		x = l << half | rgt;
	} while (x >= (uint64_t)n);
	return (int64_t)x;
}

/* What a round makes of half an index depends on nothing else: where halves are short it is worked out once for all. */
void lwm_rng_permutation(uint64_t seed, enum lwm_purpose purpose, uint64_t step, int64_t n, int64_t *out)
{
	struct lwm_rng base = lwm_rng_at(seed, purpose, step, 0);
	uint32_t table[ROUNDS][1 << TABLE_BITS];
	int half = half_bits(n);
	uint64_t mask = (1ULL << half) - 1;
	for (int64_t i = 0; i < n && half > TABLE_BITS; i++)
		out[i] = lwm_rng_permute(seed, purpose, step, n, i);
	if (half > TABLE_BITS)
		return;
	for (uint32_t round = 0; round < ROUNDS; round++)
		for (uint32_t k = 0; k <= mask; k++)
			table[round][k] = scramble_half(&base, round, k) & (uint32_t)mask;
	for (int64_t i = 0; i < n; i++) {
		uint32_t x = (uint32_t)i;
		do {
			uint32_t l = x >> half, r = x & (uint32_t)mask;
			for (int round = 0; round < ROUNDS; round++) {
				uint32_t t = l ^ table[round][r];
				l = r;
				r = t;
			}
			x = l << half | r;
		} while (x >= n);
		out[i] = x;
	}
}
